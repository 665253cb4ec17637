"""A server connection's session: what it was asked, what it has been set to, and what it may hold beyond a transaction.

Settings that clients change are told by ParameterStatus where the server reports them, else by the text of the statement whose tag has
come; they take effect, or are taken back, with their transaction. Of what outlives a transaction and cannot be replayed (a pin), reading
SQL only says when to ask: it is a query of ours, hidden from the client, that says when a pin begins and ends.
"""

from collections import deque
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from dualpool import protocol
from dualpool.errors import FeatureRefused, StateLeaked
from dualpool.postgres import catalog, messages, session_sql, sql, wire
from dualpool.postgres.catalog import Catalog, Facts, Judge, SamplingJudge
from dualpool.postgres.lexical import LEXICAL_SETTINGS, codec_of, lexis_of
from dualpool.postgres.reading import customizes
from dualpool.postgres.requests import HIDDEN_QUERY, PROBE, RESTORE, DeallocatedStep, ListenStep, TellingStep
from dualpool.postgres.session_sql import LIMITS, RESTORATIONS, ROLES, is_placeholder
from dualpool.postgres.statements import (
    UNKNOWN_READING,
    PreparedStep,
    ReadBy,
    ServerStatements,
    Statement,
    Version,
    reading,
    shared,
    text_of,
)
from dualpool.protocol import LISTEN_ERROR, PIN_WARN, SESSION, RelayLimits
from dualpool.state import DEFAULTS, Settings, settings

if TYPE_CHECKING:
    from dualpool.postgres.client_relay import ClientRelay

# Command tags that change what a later client would find. Everything else is passed on after one look-up.
T_SET: Final = 1
T_DISCARD_ALL: Final = 2
T_DEALLOCATE_ALL: Final = 3
T_COMMIT: Final = 4
T_ROLLBACK: Final = 5
T_SAVEPOINT: Final = 6
T_RELEASE: Final = 7
T_UNLISTEN: Final = 8
T_NOTHING: Final = 9
T_DOUBT: Final = 10
"""Of statements that TELLING_WORDS does not have."""
T_DDL: Final = 11
"""What the catalog says may be different now."""
TAG_BITS: Final = 4
TAGS: Final = {
    # Every tag that a statement beginning with one of sql.TELLING_WORDS can have is here: statements and tags are counted off together.
    b"SET": T_SET,
    b"RESET": T_SET,
    b"DISCARD ALL": T_DISCARD_ALL,
    b"DEALLOCATE ALL": T_DEALLOCATE_ALL | sql.PREPARED << sql.ENDS << TAG_BITS,
    b"COMMIT": T_COMMIT,
    b"PREPARE TRANSACTION": T_COMMIT,
    b"ROLLBACK": T_ROLLBACK,
    b"SAVEPOINT": T_SAVEPOINT,
    b"RELEASE": T_RELEASE,
    b"UNLISTEN": T_UNLISTEN | sql.LISTENING << sql.ENDS << TAG_BITS,
    b"SET CONSTRAINTS": T_NOTHING,
    b"DEALLOCATE": T_NOTHING | sql.PREPARED << sql.ENDS << TAG_BITS,
    b"DISCARD PLANS": T_NOTHING,
    b"DISCARD SEQUENCES": T_NOTHING,
    b"DISCARD TEMP": T_NOTHING | sql.TEMPORARY << sql.ENDS << TAG_BITS,
    b"PREPARE": T_NOTHING | sql.PREPARED << TAG_BITS,
    b"COMMIT PREPARED": T_NOTHING,
    b"ROLLBACK PREPARED": T_NOTHING,
    # What the server says has run raises doubts about what the session holds, without any reading of SQL.
    b"LISTEN": T_DOUBT | sql.LISTENING << TAG_BITS,
    b"CLOSE CURSOR": T_DOUBT | sql.CURSOR << sql.ENDS << TAG_BITS,
    b"CLOSE CURSOR ALL": T_DOUBT | sql.CURSOR << sql.ENDS << TAG_BITS,
    b"LOAD": T_DOUBT | sql.LIBRARY << TAG_BITS,
}
KINDS_OF_OBJECTS: Final = (
    b"AGGREGATE", b"CAST", b"DATABASE", b"DOMAIN", b"EVENT TRIGGER", b"EXTENSION", b"FOREIGN TABLE", b"FUNCTION", b"INDEX", b"LANGUAGE",
    b"MATERIALIZED VIEW", b"OPERATOR", b"OPERATOR CLASS", b"OPERATOR FAMILY", b"OWNED", b"POLICY", b"PROCEDURE", b"ROLE", b"ROUTINE",
    b"RULE", b"SCHEMA", b"SEQUENCE", b"TABLE", b"TABLE AS", b"TRIGGER", b"TRANSFORM", b"TYPE", b"VIEW",
)  # fmt: skip
"""Of which CREATE, ALTER and DROP may change what statements do, or what they return."""
TAGS.update({verb + b" " + kind: T_DDL for verb in (b"CREATE", b"ALTER") for kind in KINDS_OF_OBJECTS})
TAGS.update({b"DROP " + kind: T_DDL | sql.TEMPORARY << sql.ENDS << TAG_BITS for kind in KINDS_OF_OBJECTS})
TAGS[b"SELECT INTO"] = T_DDL

MAX_UNPROVEN: Final = 100
"""Texts of a lease that may turn out to be harmless."""
MAX_LEAK: Final = 2000
"""Characters of the statements that a leak is told with."""
MAX_CHANGES: Final = 64
"""Of a lease that does not end, so many changes are kept as they came."""
MAX_SETTINGS: Final = 1000
"""Of one client in transaction mode."""
LASTING: Final = "it has what lasts as long as the session"
"""Why a server connection is closed after a lease."""
ASK_AGAIN: Final = 16
"""While a session is pinned, what it holds is asked every so many transactions even if nothing seems to have ended it."""
DEALLOCATED: Final = wire.message(wire.COMMAND_COMPLETE, b"DEALLOCATE\0")
LISTENING: Final = wire.message(wire.COMMAND_COMPLETE, b"LISTEN\0")


READ_ONLY_SETTINGS: Final = frozenset(
    ("server_version", "server_encoding", "integer_datetimes", "is_superuser", "in_hot_standby", "session_authorization")
)
"""Reported settings that no client sets, or that follow another one."""


def apply_change(values: dict[str, str], name: str, value: str | None, base: dict[str, str], defined: Container[str] = ()) -> None:
    """Carry out a SET (`value`) or RESET (None) of `name` in `values`; every name is `*`.

    `base`: what a RESET goes back to. `defined`: the settings of extensions; other names with a dot never go again.
    """
    if name == "*":
        # RESET ALL leaves the role and the session user as they are (docs: RESET).
        kept: dict[str, str] = {role: values[role] for role in ROLES if role in values}
        kept.update((other, sql.AT_DEFAULT) for other in values if is_placeholder(other, defined))
        values.clear()
        values.update(base)
        values.update((other, was) for other, was in kept.items() if other in ROLES or other not in base)
    elif value is not None:
        values[name] = value
    elif name in base:
        values[name] = base[name]
    elif is_placeholder(name, defined):
        values[name] = sql.AT_DEFAULT
    else:
        values.pop(name, None)


def lasting(changes: list[sql.Change]) -> list[sql.Change]:
    """Those that still say something when all have been carried out: one for each name, which RESET ALL leaves to the roles alone."""
    found: dict[str, str | None] = {}
    for name, statement in changes:
        if name == "*":
            # Of placeholders the name lasts.
            found = {
                other: was if other in ROLES else sql.AT_DEFAULT for other, was in found.items() if other in ROLES or is_placeholder(other)
            }
        else:
            found.pop(name, None)
        found[name] = statement
    return list(found.items())


def settings_in(rows: list[list[bytes | None]]) -> dict[str, str]:
    """What a probe's rows say of settings."""
    found = {session_sql.told(name): session_sql.from_digits(value) for name, value in rows if name and value is not None}
    return {name: value for name, value in found.items() if name not in sql.OF_TRANSACTION}


class ServerSession(protocol.ServerRelay):
    """See the module. `mode` is the lease's, set by the client that attaches."""

    __slots__ = (
        "_altered", "_asked", "_asked_names", "_believed_readings", "_doubtful", "_ends", "_founded", "_hiding", "_in_error",
        "_last", "_opaque", "_query",
        "_retried", "_rows", "_telling", "_unasked", "_unproven", "_unsettled", "attentive", "baseline", "catalog", "changes",
        "changes_in_transaction", "client", "defined", "doubts", "has_temporary", "judge", "last_error", "lexis", "mode", "moved",
        "names_in_doubt", "owns_sequences", "pending", "reader", "reported", "rereads", "restores_unset", "savepoints",
        "segment_statement",
        "session_changed", "settings", "statements", "strict", "suspect", "temporary_of", "to_restore", "touched", "unnamed",
        "unread", "used_by",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, reported: dict[str, str], catalog: Catalog | None = None) -> None:
        super().__init__()
        self.client: ClientRelay | None = None
        self.catalog = catalog or Catalog(Facts())
        """What is known of the database's functions and triggers."""
        self.lexis = lexis_of(*(reported.get(name, "") for name in LEXICAL_SETTINGS))
        """How a session without settings of its own reads texts."""
        self.judge = self.catalog.judge(self.lexis, limits.verify)
        """Who says what the next text does."""
        self.reader = self.judge
        """Who has read the texts that are being answered, but for those in `unread`."""
        self.unread: set[bytes] = set()
        """Query messages that were sent while nobody could tell how they would be read."""
        self.mode = limits.mode
        self.pending: deque[object] = deque()
        self.statements = ServerStatements(limits.statements_per_server)
        self.unnamed: bytes | None = None
        """The Parse message of the unnamed statement that the session has now."""
        self.suspect = False
        """We cannot tell any more how many answers are to come: do not reuse."""
        self.last_error = b""
        self.settings: Settings = DEFAULTS
        self.baseline = dict(reported)
        self.reported = reported
        self.session_changed = False
        """Something in `reported` or `changes` is new since the lease began."""
        self.defined: frozenset[str] = frozenset()
        """The settings of extensions that the session has: not placeholders, though there is a dot in their names."""
        self.used_by: object = None
        """The client that had the last lease; None: nobody since the session began."""
        self.owns_sequences = False
        """All numbers of sequences that the session remembers are those of the client that has it, and the client has no newer ones."""
        self.has_temporary = False
        """The session has a schema for temporary tables, though maybe no table in it. No reset takes that away."""
        self.temporary_of: ClientRelay | None = None
        """The client that had the first of them."""
        self.touched: set[str] = set()
        """Placeholders that this lease has set, if only for a transaction, or in one that was rolled back."""
        self.changes: list[sql.Change] = []
        self.changes_in_transaction: list[sql.Change] = []
        self.savepoints: list[tuple[bytes, int]] = []
        self.segment_statement: Statement | None = None
        self._hiding = 0
        """Answers are hidden from the client, or looked at (server_relay.py)."""
        self._in_error = False
        self._query: bytes | None = None
        """The text of the simple Query that is being answered, as soon as it matters."""
        self._telling: Iterator[list[bytes]] | None = None
        """Its telling statements whose tags are still to come."""
        self.doubts = 0
        """What the session may hold by now: kinds of sql.py. Before the lease may end, the server is asked."""
        self._ends = 0
        """Of which kinds it may hold less by now. That matters if it is pinned by them."""
        self.moved: dict[str, str] = {}
        """Reported settings that have changed in this lease: what they were before."""
        self.to_restore: set[str] = set()
        """Settings of the client's start-up that a RESET or DISCARD ALL has taken away."""
        self.restores_unset = False
        """Some of them may be gone, and nobody can say which."""
        self.rereads = False
        """In this lease a setting may have changed by which texts are read."""
        self.names_in_doubt: set[str] = set()
        """Settings to be asked for by name."""
        self._unproven: list[bytes] = []
        """The texts of this lease of which it is not certain that they do anything."""
        self._founded = False
        """A text of this lease is in doubt for what it says itself, or for what the catalog says or said: not only for want of one."""
        self._opaque = False
        """A function has run that may have made settings of which nobody knows the names."""
        self._altered = False
        """DDL has run in the open transaction."""
        self._doubtful = b""
        """The text that raised the newest doubt."""
        self.attentive = False
        """At the next ReadyForQuery there is more to do: a probe is under way, or notifications wait."""
        self._rows: list[bytes] | None = None
        """The rows of the probe under way, `_asked`: which kinds it is about, `_retried`: the one before it has failed."""
        self._asked = 0
        self._asked_names: frozenset[str] = frozenset()
        """Of what was in `names_in_doubt`, those that it is about."""
        self._retried = False
        self._believed_readings: list[Statement] = []
        """Statements that were prepared while settings were in doubt: what they are read by is what was believed, until that is asked."""
        self._unsettled = False
        """A command that may have made a setting has run, and the server has yet to report what has come of it (at ReadyForQuery)."""
        self._unasked = 0
        """How often the session has been idle, while pinned, since it was asked last."""
        self.strict = False
        self._last: object = None
        """Of `pending`, what was answered last."""

    def is_asked(self) -> bool:
        """Is the session being asked what it holds?"""
        return self._rows is not None

    def asked(self) -> int:
        """The kinds that the session is being asked about."""
        return self._asked if self._rows is not None else 0

    def is_restoring(self) -> bool:
        return self._rows is None and bool(self.pending) and self.pending[0] == HIDDEN_QUERY

    def pin_reasons(self) -> list[str]:
        return [f"{name}; until {end}" for kind, (name, end) in session_sql.HOLDINGS.items() if self.pins & kind]

    def count_statements(self) -> int:
        return len(self.statements.known)

    def was_reset(self) -> None:
        """DISCARD ALL has run: nothing that a client did is left, but for the names of its own settings."""
        values = {name: sql.AT_DEFAULT for name in self.settings.values if is_placeholder(name, self.defined)}
        self.settings = settings(values)
        self.picky = bool(values) or self.has_temporary
        self.statements.clear()
        self.unnamed = None
        self.baseline = {"role": self.baseline.get("role", "none")} | self.reported
        self.used_by = None
        self.pins = self.doubts = self._ends = 0
        self.pinned_at = 0.0
        self.dirty = False
        self.forget_changes()

    def restore_to(self, wanted: Settings) -> bytes:
        """The messages that bring the idle session to `wanted`, whose answers nobody gets. `last_error` tells if they failed."""
        restoration = RESTORATIONS.between(self.settings, wanted)
        lost = [name for name in self.settings.values if name not in wanted.values and is_placeholder(name, self.defined)]
        self.settings = settings(wanted.values | dict.fromkeys(lost, sql.AT_DEFAULT)) if lost else wanted
        self.picky = self.picky or restoration.picky
        self.session_changed = self.session_changed or restoration.tiny
        self._hiding = True
        self.pending.extend([HIDDEN_QUERY] * restoration.queries)
        self.unnamed = None  # a simple Query ends it (docs: Extended Query)
        self.last_error = b""
        return restoration.data

    def not_restored(self, before: Settings, wanted: Settings) -> None:
        """`restore_to(wanted)` has failed: its transaction was rolled back, but limits are lifted, and names that are new last."""
        values = dict.fromkeys(filter(is_placeholder, wanted.values), sql.AT_DEFAULT) | before.values
        self.settings = settings(values | {name: "0" for name in LIMITS if name in values})

    def foreign_placeholders(self, wanted: Settings) -> list[str]:
        """The names that the session knows, and a client with these settings does not."""
        values = wanted.values
        return [name for name in self.settings.values if name not in values and is_placeholder(name, self.defined)]

    # ----------------------------------------------------------------------------------------------------------------- reading

    def reading_as_told(self) -> ReadBy:
        """The settings by which the session reads texts, as far as what was answered tells; UNKNOWN_READING if it does not tell."""
        if self._unsettled:
            return UNKNOWN_READING
        values = dict(self.settings.values)
        for name, value in (*self.changes, *self.changes_in_transaction):
            apply_change(values, name, value, {}, self.defined)
        for name, value in self.reported.items():
            lowered = name.lower()
            if name in self.moved or lowered in values:
                if value == self.baseline.get(name):
                    values.pop(lowered, None)
                else:
                    values[lowered] = value
        found = reading(settings(values))
        return found if all(value.isascii() and value[:1] != "\0" for _, value in found) else UNKNOWN_READING

    def settle_reading(self, version: Version) -> None:
        """A client's own Parse of `version` is answered, and all that was sent before it: now it can be told how it was read."""
        key, told = version.statement.key, self.reading_as_told()
        if told is UNKNOWN_READING:
            return
        if self.doubts & sql.SETTINGS:
            if len(self._believed_readings) < MAX_UNPROVEN:
                version.statement.reading = told
                self._believed_readings.append(version.statement)
        else:
            version.statement = shared(key, told)

    def settle(self) -> None:
        """A setting may have changed by which texts are read; all is answered, and what is reported is true."""
        lexis = lexis_of(*(self.reported.get(name, "") for name in LEXICAL_SETTINGS))
        self.judge = self.reader = self.catalog.judge(lexis, self.judge.verify)
        self.unread.clear()

    def sampled(self, judge: Judge) -> Judge:
        """A lease begins in which the server is asked though all looks harmless. Returns who listens."""
        judge.leases = 0
        self.doubts |= sql.ALWAYS
        return SamplingJudge(judge)

    def lease_over(self) -> None:
        """What was in doubt was asked. What nobody can ask is reset."""
        if self._opaque:
            self._opaque = False
            self.dirty = True
            if self.catalog.facts is None or self.catalog.facts.computes_names:
                self.spent = LASTING
        self._founded = False
        if self._unproven:
            self._unproven = []
        if self._believed_readings:
            self._believed_readings = []
        if self.names_in_doubt:
            self.names_in_doubt.clear()

    # -------------------------------------------------------------------------------------------------------------------- pins

    def suspect_of(self, marks: int, text: bytes) -> None:
        """A statement that was sent, or has run, may have begun or ended what outlives its transaction."""
        doubts = marks & (sql.EVERYTHING | sql.UNASKED)
        if doubts:
            if doubts & sql.SETTINGS and not (text is self._doubtful and self.doubts & sql.SETTINGS):
                found = self.reader.read(text)
                names = found.names or sql.setting_names(text)
                more = bool(marks & (sql.OPAQUE | sql.COMPUTED)) or self.reader.facts is None or self.catalog.facts is None
                doubts |= self.doubt_names(names)
                if more:
                    self.doubt_names(found.dotted_names(text))
                # They may be made later, too: by EXECUTE, by the next FETCH, or by a trigger.
                self.catalog.know(name for name in names if is_placeholder(name, self.defined) and name in self.names_in_doubt)
            self.doubts |= doubts
            self._doubtful = text
            if not self._founded and (self.catalog.is_known or self.reader.read(text).marks & (sql.EVERYTHING | sql.UNASKED)):
                self._founded = True
            if marks & sql.LIKELY and len(self._unproven) < MAX_UNPROVEN:
                self._unproven.append(text)
            if marks & sql.OPAQUE:
                self._opaque = True
        if marks & sql.TOUCHES:
            self.touch(self.reader.read(text).names)
        if marks & sql.FORGETS:
            self.statements.doubt()
        if marks & sql.REREADS and not self.rereads:
            self.rereads = True
            self.judge = self.catalog.judge(None, self.judge.verify)
        self._ends |= marks >> sql.ENDS & sql.PROBED

    def doubt_names(self, names: Iterable[str]) -> int:
        """These settings are to be asked for. Returns COMPUTED if there are some that the question cannot name."""
        unknown = 0
        for name in names:
            known = (name,) if name.isascii() else self._as_server_has(name)
            self.names_in_doubt.update(known)
            unknown = unknown if known else sql.COMPUTED
        return unknown

    def _as_server_has(self, name: str) -> tuple[str, ...]:
        """What a name in the client's encoding may be in that of the server; none where that is not certain."""
        if self.reported.get("server_encoding") != "UTF8":
            return ()
        found = []
        # What was written as Unicode escapes is UTF-8 already.
        for codec in dict.fromkeys(("utf-8", codec_of(self.reported.get("client_encoding", "")))):
            with suppress(UnicodeDecodeError, LookupError):
                found.append(messages.raw(name).decode(codec))
        return tuple(found)

    def leaves(self, marks: int, text: bytes) -> None:
        """Session mode: `text` is about to run. What of it a reset does not take away costs the connection, or binds it to some clients."""
        if marks & (sql.LIBRARY | sql.COMPUTED | sql.TOUCHES | sql.OPAQUE) or customizes(text) or b"seed" in text.lower():
            self.spent = LASTING
        if marks & sql.TEMPORARY:
            self.note_temporary()

    def note_temporary(self) -> None:
        """The session may have had a temporary table, of its client if it had none before."""
        if not self.has_temporary:
            self.has_temporary = self.picky = True
            self.temporary_of = self.client

    def touch(self, names: Iterable[str]) -> None:
        """These settings are made for a transaction. Those that are new here, or to the client, are asked for afterwards."""
        known = self.settings.values
        wanted = self.client.settings.values if self.client is not None else known
        for name in names:
            if is_placeholder(name, self.defined) and not (name in known and name in wanted):
                self.doubts |= sql.SETTINGS | self.doubt_names((name,))

    def _ask_what_is_due(self) -> None:
        """The session is idle, and something is pinned or in doubt."""
        asked = self.doubts | self._ends & self.pins
        self._ends = 0
        if not asked:
            self._unasked += 1
            if self._unasked < ASK_AGAIN:
                return
            asked = sql.EVERYTHING if self.pins & sql.UNKNOWN else self.pins & sql.PROBED
        self.doubts = 0
        self._unasked = 0
        self._ask(asked)

    def _ask(self, kinds: int) -> None:
        self._asked = kinds
        self._rows = []
        self.attentive = True
        self._hiding = True
        self.last_error = b""
        self.pending.append(PROBE)
        self.unnamed = None  # a simple Query ends it (docs: Extended Query)
        kinds = sql.EVERYTHING if self.strict or kinds & sql.ALWAYS else kinds
        # What is sent while the question is under way may make the same settings again.
        self._asked_names, self.names_in_doubt = frozenset(self.names_in_doubt), set()
        names = self._asked_names | self.catalog.names | self._known_placeholders() if kinds & sql.SETTINGS else self._asked_names
        text = session_sql.probe(kinds, names)
        if self._retried:
            text = session_sql.UNHURRIED + text
        elif self.catalog.facts is None:
            text += ";" + catalog.QUERY
        self.to_server += wire.query(messages.raw(text))

    def _known_placeholders(self) -> set[str]:
        """The custom settings of the session and of its client, those of a start-up packet among them: a function may set any of them."""
        known = self.settings.values if self.client is None else self.settings.values.keys() | self.client.settings.values.keys()
        return {name for name in known if is_placeholder(name, self.defined)}

    def _looked(self, rows: list[bytes]) -> bytes:
        """The answer to the probe is there. Returns what the client is to be told."""
        self._rows = None
        asked = self._asked
        client = self.client
        values = self._without_facts([messages.parse_row(row) for row in rows])
        if client is None:
            return b""
        before = self.pins
        if self.last_error or not values:
            # Cancelled, or out of time.
            self._retried = not self._retried
            self.doubts |= asked
            self.names_in_doubt |= self._asked_names
            if not self._retried:
                self.doubts = 0
                self._unasked = ASK_AGAIN - 2  # with the next transaction, and not at once
                self.pins |= sql.UNKNOWN
        else:
            retried, self._retried = self._retried, False
            found = session_sql.holdings(values[0][1] or b"") | asked & sql.UNASKED
            if session_sql.TEMPORARY_SCHEMA in (values[0][1] or b""):
                self.note_temporary()
            if self.strict:
                if self.pending:
                    self.doubts |= sql.ALWAYS
                self._compare(found & ~asked & ~before, values[1:], asked)
            elif asked & sql.ALWAYS:
                self._sample_answered(found & ~asked & ~before, values[1:], asked)
            if self._unproven and asked & sql.SETTINGS:
                self._learn(found & sql.PROBED & ~before, values[1:])
            self.pins = before & ~(asked & sql.PROBED | sql.UNKNOWN) | found
            if asked & sql.LISTENING and client.subscriptions is not None:
                client.subscriptions.own = frozenset(messages.text(value) for name, value in values[1:] if name is None and value)
            if asked & sql.SETTINGS:
                believed = self.reading_as_told()
                self._track(values[1:] if not retried else self._with_own_limit(values[1:]))
                if self._believed_readings and self.reading_as_told() != believed:
                    for statement in self._believed_readings:
                        statement.reading = UNKNOWN_READING
                self._believed_readings = []
        if not self.pins & ~before:
            return b""
        if not before:
            self.pin_text = sql.masked(self._doubtful)
        return self._pinned(self.pins & ~before, client)

    def _with_own_limit(self, rows: list[list[bytes | None]]) -> list[list[bytes | None]]:
        """The rows of a question that has lifted statement_timeout for itself (UNHURRIED): that is what they tell."""
        self.dirty = True
        believed = self._believed().get("statement_timeout")
        kept = [row for row in rows if row[0] != b"statement_timeout"]
        return kept if believed is None else [*kept, [b"statement_timeout", messages.raw(believed).hex().encode()]]

    def _without_facts(self, rows: list[list[bytes | None]]) -> list[list[bytes | None]]:
        """A probe's rows; what the catalog has answered behind them is learnt."""
        facts = [row for row in rows if len(row) == 3]
        if not facts or self.last_error:
            return rows
        known = len(self.catalog.names)
        learnt = Facts(facts)
        self.catalog.learn(learnt)
        # Nor is it known now whether what has run was one of the functions whose settings have no known names.
        self._opaque = self._opaque or bool(learnt.opaque or learnt.opaque_marks)
        if len(self.catalog.names) > known:
            # The question did not ask for the settings that, as is known now, functions make.
            self.doubts |= sql.SETTINGS
        return [row for row in rows if len(row) != 3]

    def _learn(self, found: int, rows: list[list[bytes | None]]) -> None:
        """The texts in doubt were harmless if the session holds, and has set, no more than what is known.

        Where it has had temporary tables, nobody can tell that they make none.
        """
        if not found and not self.has_temporary and not self._unexpected(rows):
            for text in self._unproven:
                self.judge.found_harmless(text)
        self._unproven = []

    def _sample_answered(self, unexpected: int, rows: list[list[bytes | None]], asked: int) -> None:
        """All of a lease looked harmless, and the server was asked all the same."""
        judge = self.judge
        wrong = self._wrong(unexpected, rows, asked)
        if wrong and isinstance(judge, SamplingJudge):
            for text in judge.seen:
                judge.base.found_guilty(text)
            texts = "; ".join(dict.fromkeys(sql.masked(text) for text in judge.seen))
            self.leak = f"the session holds what could not be seen to begin: {', '.join(wrong)}; the statements were: {texts[:MAX_LEAK]}"

    def _pinned(self, kinds: int, client: "ClientRelay") -> bytes:
        """The session holds more than before. Returns the notices for the client; raises FeatureRefused if that is not allowed."""
        new = [words for kind, words in session_sql.HOLDINGS.items() if kinds & kind & ~client.told]
        limits = client.limits
        forbidden = limits.refused_pins({kind: name for kind, (name, _) in session_sql.HOLDINGS.items()})
        if limits.listen == LISTEN_ERROR:
            forbidden |= sql.LISTENING
        refused = next((words for kind, words in session_sql.HOLDINGS.items() if kinds & kind & forbidden), None)
        if refused is not None:
            self.suspect = bool(self.pending)
            name, end = refused
            raise FeatureRefused(
                f"the session would keep its server connection after the transaction ({name}), which is not allowed here: {self.pin_text}",
                hint=f"It would have to end with {end} before the transaction does; or use a listener in session mode.",
            )
        client.told |= kinds
        return b"".join(
            messages.notice_message(
                f"this session keeps its server connection after the transaction: {name}",
                f"It lasts until {end}. A listener in session mode is there for what lasts longer.",
            )
            for name, end in new
            if limits.policy_of(name) == PIN_WARN
        )

    def _track(self, rows: list[list[bytes | None]]) -> None:
        """What functions have made of the settings is known now, and can be replayed."""
        found, believed = settings_in(rows), self._believed()
        gone = [name for name in believed if name not in found and "." not in name and name not in ROLES]
        self.changes += [(name, None) for name in gone]
        self._restore_later(gone)
        for name, value in found.items():
            before = believed.get(name)
            is_left = is_placeholder(name, self.defined) and name not in self._asked_names and not before
            if not value and (is_left or before == sql.AT_DEFAULT):
                # Some client before has left it, or this one in a transaction that was undone.
                self.touched.add(name)
                continue
            unchanged = name in ROLES and value == self.baseline.get(name, "none")
            self.changes.append((name, None if unchanged else value))
        for name in self.moved:
            if name.lower() not in found:
                # The server's own default has changed.
                self.moved[name] = self.reported[name]
                self._set_baseline(name, self.reported[name])
        self._shorten_changes()
        self.session_changed = self.rereads = True

    def _believed(self) -> dict[str, str]:
        """The settings that the session has, as far as we know."""
        values = dict(self.settings.values)
        for name, value in self.changes:
            apply_change(values, name, value, {}, self.defined)
        return values

    def _compare(self, unexpected: int, rows: list[list[bytes | None]], asked: int) -> None:
        """Strict mode: what the session has must be what we believe. Raises FeatureRefused."""
        wrong = self._wrong(unexpected, rows, asked)
        if wrong:
            self.dirty = True
            self.suspect = bool(self.pending)
            text = sql.masked(self._last_text())
            raise StateLeaked(
                f"strict mode: the session holds what could not be seen to begin: {', '.join(wrong)}; the last statement was: {text}",
                hint="Do it in a statement of its own, not inside a function; or use a listener in session mode.",
            )

    def _wrong(self, unexpected: int, rows: list[list[bytes | None]], asked: int) -> list[str]:
        """What the session holds or has set that nobody has seen to begin."""
        wrong = [name for kind, (name, _) in session_sql.HOLDINGS.items() if unexpected & kind]
        return wrong if asked & sql.SETTINGS else wrong + self._unexpected(rows)

    def _unexpected(self, rows: list[list[bytes | None]]) -> list[str]:
        """The settings that a probe tells otherwise than they are believed to be."""
        found, believed = settings_in(rows), self._believed()
        known = {name.lower() for name in self.reported} | {"session_authorization"}
        wrong = ["role"] if found.pop("role", "none") != "none" and "role" not in believed else []
        wrong += sorted(name for name in found if name not in believed and name not in known)
        return wrong + sorted(name for name in believed if name not in found and name not in known and "." not in name and name != "role")

    def _last_text(self) -> bytes:
        """The text of the statement that was answered last, or of the one that was bound last."""
        last = self._last
        if isinstance(last, bytes):
            return last[5:-1]
        if self.segment_statement is not None:
            return self.segment_statement.text()
        unnamed = self.unnamed
        return text_of(unnamed) if unnamed is not None and unnamed[:1] == b"P" else b""

    # ---------------------------------------------------------------------------------------------------------------- settings

    def _report(self, payload: bytes) -> bool:
        """ParameterStatus. True if the client need not know of it."""
        raw_name, _, raw_value = payload.partition(b"\0")
        name, value = messages.text(raw_name), messages.text(raw_value)
        before = self.reported.get(name)
        self.reported[name] = value
        lowered = name.lower()
        if self.client is None:
            if not self._hiding and lowered not in self.settings.values:
                self._set_baseline(name, value)  # the server's own default has changed (a reload, a failover)
            return bool(self._hiding)
        if self._hiding:
            if self.pending[0] == RESTORE:
                return False
            if lowered not in self._believed():
                self._set_baseline(name, value)
            return True  # the answer to a difference that we sent: both sides know
        self.session_changed = True
        if self.mode != SESSION and lowered not in READ_ONLY_SETTINGS:
            if not value.isascii():
                # It is in the client's encoding.
                self.doubts |= sql.SETTINGS
            self.moved.setdefault(name, before or "")
            self.attentive = True
            self.rereads = self.rereads or lowered in sql.READING_SETTINGS
        if value == self.baseline.get(name) and lowered in self.client.base.values and lowered not in self.to_restore:
            self._restore_unset()  # by a function, maybe
        return lowered in self.to_restore

    def report_default(self, name: str, value: str) -> None:
        """The server has said of an idle session that a setting is another one: its default has changed (a reload)."""
        self.reported[name] = value
        if name.lower() not in self.settings.values:
            self._set_baseline(name, value)

    def _set_baseline(self, name: str, value: str) -> None:
        """The server's own value of a reported setting is another one now."""
        self.baseline[name] = value
        if name in LEXICAL_SETTINGS:
            self.lexis = lexis_of(*(self.baseline.get(each, "") for each in LEXICAL_SETTINGS))

    def _explain_reports(self) -> None:
        """The transaction is over, and reported settings have moved: by the client, as far as can be seen, or because the server's defaults
        have changed. Where it cannot be seen the server is asked."""
        changed = {name for name, _ in self.changes}
        for name, before in self.moved.items():
            value, lowered = self.reported[name], name.lower()
            by_reset = "*" in changed and value == self.baseline.get(name)
            if value != before and lowered not in changed and not by_reset:
                self.suspect_of(sql.SETTINGS, self._last_text())
                return

    def _tagged(self, tag: int) -> bytes:
        """A command that matters has run. Returns what the client is told in place of its tag, or b""."""
        if self.mode == SESSION:
            if self.client is not None and self.client.base.values:
                self._restore_after(tag & (1 << TAG_BITS) - 1)
            return b""  # All else is reset when the lease ends.
        marks = tag >> TAG_BITS
        tag &= (1 << TAG_BITS) - 1
        self._unsettled = True
        if marks:
            self.suspect_of(marks, self._asked_text())
        if tag >= T_DOUBT:
            if tag == T_DDL:
                self._altered = True
                self._outdate()
            return b""
        instead = self._stood_in() if tag == T_UNLISTEN else b""
        if instead:
            return instead
        statement = self._text()
        if tag == T_COMMIT:
            self._commit_changes()
            self._in_error = False
        elif tag == T_ROLLBACK:
            self._rolled_back(statement)
        elif tag == T_SAVEPOINT:
            if statement:
                self.savepoints.append((sql.savepoint_name(statement), len(self.changes_in_transaction)))
        elif tag == T_RELEASE:
            del self.savepoints[self._savepoint(statement) :]
        elif tag == T_SET:
            self._set(statement)
        elif tag == T_UNLISTEN:
            if statement and statement[0].lower() == b"deallocate":
                # One among several statements: see ClientSender._query_instead.
                if self.client is not None:
                    self.client.statements.remove(sql.identifier(statement[-1]))
                return DEALLOCATED
            if statement:
                self.changes_in_transaction += sql.unlistened(statement)
        elif tag == T_DEALLOCATE_ALL:
            self._deallocated_all()
        elif tag == T_DISCARD_ALL:
            self._deallocated_all()
            self.changes_in_transaction += [("session_authorization", None), ("role", None), ("*", None), (sql.UNLISTENED, None)]
            self.session_changed = True
            self._restore_later(("*",))
            if self.pins & sql.COMPUTED:
                # It knows the names of settings that nobody can ask for, and never forgets them.
                self.dirty = True
                self.spent = LASTING
            self.pins &= sql.LIBRARY
            if not self.pins:
                self.pinned_at = 0.0
        return b""

    def _outdate(self) -> None:
        """DDL has run: from now on the lease's texts are in doubt, and so are those that were sent behind it."""
        self.catalog.outdate()
        self.judge = self.catalog.judge(self.judge.lexis, self.judge.verify)
        if len(self.pending) > 1:
            self.doubts |= sql.EVERYTHING

    def _set(self, statement: list[bytes]) -> None:
        """A SET or RESET has run. What it has set is told by the server, or certain from its text; else the server is asked."""
        self.session_changed = True
        changes = sql.changes(statement) if statement else None
        if changes is None:
            self.suspect_of(sql.SETTINGS | sql.COMPUTED, self._asked_text())
            return
        for name, value in changes:
            if name == "seed":
                self.suspect_of(sql.LIBRARY, self._asked_text())
                continue
            if value is not sql.LOCALLY:
                self.changes_in_transaction.append((name, value))
            if is_placeholder(name, self.defined):
                self.touched.add(name)
            if value is sql.UNPROVEN and name not in {known.lower() for known in self.reported}:
                self.doubts |= sql.SETTINGS
                self.names_in_doubt.add(name)
                self._doubtful = self._asked_text()
        self._restore_later(name for name, value in changes if value is None)

    def _restore_after(self, tag: int) -> None:
        """Session mode: a command has run. Of an extended query nobody has kept the text."""
        statement = self._text() if tag < T_DOUBT else []
        if tag == T_DISCARD_ALL:
            self._restore_later(("*",))
        elif tag == T_SET and statement:
            self._restore_later(name for name, value in sql.changes(statement) or () if value is None)
        elif tag == T_SET:
            self._restore_unset()

    def _restore_later(self, names: Iterable[str]) -> None:
        """These settings are back at the server's defaults. Those of the client's start-up must be as it said there: see `_restore`."""
        base = self.client.base.values if self.client is not None else {}
        for name in names:
            if name == "*":
                self.to_restore.update(base.keys() - set(ROLES))
            elif name in base:
                self.to_restore.add(name)
        self.attentive = self.attentive or bool(self.to_restore)

    def _restore_unset(self) -> None:
        """Settings of the client's start-up may be back at the server's defaults. Those that are must be as it said there."""
        self.restores_unset = self.attentive = True

    def _restore(self) -> None:
        """ReadyForQuery: the client has its answer, and what it asks next is answered behind this."""
        client, names, unset = self.client, sorted(self.to_restore), self.restores_unset
        self.to_restore.clear()
        self.restores_unset = False
        if client is None:
            return
        base = client.base.values
        restored = [(name, base[name]) for name in names]
        if self.mode != SESSION:
            (self.changes_in_transaction if self.in_transaction else self.changes).extend(restored)
        self._hiding = True
        self.unnamed = None
        self.pending.append(RESTORE)
        self.last_error = b""
        queries = session_sql.set_all(restored)
        if unset:
            queries += session_sql.set_unset([(name, value) for name, value in base.items() if name not in ROLES])
        self.to_server += wire.query("; ".join(queries).encode())

    def _stood_in(self) -> bytes:
        """UNLISTEN has run. If it was in the place of something else: what the client is told of that."""
        step = self.pending[0] if self.pending else None
        if isinstance(step, DeallocatedStep):
            self.pending.popleft()
            return DEALLOCATED
        if isinstance(step, ListenStep):
            self.pending.popleft()
            self.changes_in_transaction.append((sql.LISTENED, step.channel))
            if self.client is not None and self.client.subscriptions is not None:
                self.client.subscriptions.tentative.add(step.channel)
            return LISTENING
        return b""

    def _commit_changes(self) -> None:
        """The transaction has done what it did."""
        subscriptions = self.client.subscriptions if self.client is not None else None
        for change in self.changes_in_transaction:
            name, value = change
            if name not in {sql.LISTENED, sql.UNLISTENED}:
                self.changes.append(change)
                if is_placeholder(name, self.defined):
                    self.catalog.know((name,))
            elif subscriptions is None:
                continue
            elif value is None:
                subscriptions.active.clear()
            elif name == sql.LISTENED:
                subscriptions.active.add(value)
            else:
                subscriptions.active.discard(value)
        self._shorten_changes()
        self._drop_changes()

    def _shorten_changes(self) -> None:
        """A lease may go on for days."""
        if len(self.changes) > MAX_CHANGES:
            self.changes = lasting(self.changes)

    def check_number_of_settings(self) -> None:
        """Each client's settings are kept for it, and compared at each lease. Raises FeatureRefused if there are too many."""
        client = self.client
        if client is not None and self.mode != SESSION and len(client.settings.values) + len(self.changes) > MAX_SETTINGS + MAX_CHANGES:
            raise FeatureRefused(
                f"the session has more than {MAX_SETTINGS} settings of its own",
                hint='Use fewer names, or a listener with pool_mode = "session".',
            )

    def _drop_changes(self) -> None:
        """The transaction is over."""
        self.changes_in_transaction = []
        self.savepoints = []
        if self.client is not None and self.client.subscriptions is not None:
            self.client.subscriptions.tentative.clear()

    def _asked_text(self) -> bytes:
        """The statement that is being answered."""
        head = self.pending[0] if self.pending else None
        if isinstance(head, TellingStep) and head.reading.lexed is not None:
            return head.reading.lexed.source
        return self._query_text(head) if isinstance(head, bytes) else self._last_text()

    def _query_text(self, head: bytes) -> bytes:
        """The text of the simple Query that is being answered. The same object for each of its tags."""
        if self._query is None:
            self._query = head[5:-1]
        return self._query

    def _rolled_back(self, statement: list[bytes]) -> None:
        """ROLLBACK, or ROLLBACK TO a savepoint, which keeps what was set before it."""
        self._in_error = False
        if not sql.is_rollback_to(statement):
            self._drop_changes()
            self.to_restore.clear()
            self.restores_unset = False
            return
        index = self._savepoint(statement)
        if index < len(self.savepoints):
            del self.changes_in_transaction[self.savepoints[index][1] :]
            del self.savepoints[index + 1 :]

    def _savepoint(self, statement: list[bytes]) -> int:
        """Where the savepoint that a statement names is in `savepoints`: the newest of that name. Their number if it is not there."""
        name = sql.savepoint_name(statement) if statement else b""
        for index in range(len(self.savepoints) - 1, -1, -1):
            if self.savepoints[index][0] == name:
                return index
        return len(self.savepoints)

    def _text(self) -> list[bytes]:
        """The tokens of the statement whose tag has come: the next telling one of a simple Query, or the oldest telling Execute."""
        head = self.pending[0] if self.pending else None
        if isinstance(head, TellingStep):
            self.pending.popleft()
            return head.reading.statements[0]
        if isinstance(head, bytes):
            if self._telling is None:
                self._telling = iter(() if head in self.unread else self.reader.read(self._query_text(head)).telling())
            return next(self._telling, [])
        return []

    def _deallocated_all(self) -> None:
        """The session's prepared statements are gone; for the client they were all it had, for us they are prepared again on demand."""
        self.statements.clear()
        if self.client is not None:
            self.client.statements.clear()
        for step in self.pending:
            if isinstance(step, PreparedStep):
                if step.version.columns is None:
                    self.statements.add(step)
                if step.visible:
                    step.owner.restore(step.owner_name, step.version)

    def forget_changes(self) -> None:
        """What the lease has set is dealt with."""
        self.session_changed = False
        self.touched.clear()
        self.moved.clear()
        self.to_restore.clear()
        self.restores_unset = False
        self.changes = []
        self.changes_in_transaction = []
        self.savepoints = []
