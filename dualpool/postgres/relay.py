"""The hot path of PostgreSQL: what a client's messages ask of a server connection, and what the server's messages answer.

Theory. A server connection answers in the order in which it was asked. So the server relay keeps one queue, `pending`, of the answers that
something depends on: every ReadyForQuery to come (one per Query, FunctionCall and Sync), every ParseComplete and CloseComplete. Whatever
a client need not know of (a Parse that we add, a SET that brings the session to its settings) is asked like everything else and marked
hidden in the queue. Whatever a client asks and the server need not do (a Parse of a known statement) is replaced by a message that does
nothing and is answered in turn, and its answer is translated. So nothing is ever answered out of order, and the server's rule for errors
(everything up to the next Sync is discarded) holds for our additions as it does for the client's messages.

Source: PostgreSQL docs, chapter "Frontend/Backend Protocol".
"""

import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from dualpool import protocol
from dualpool.buffer import HeldBytes
from dualpool.errors import FeatureRefused, RemoteProtocolError, ServerLost, StateLeaked
from dualpool.postgres import messages, sql, wire
from dualpool.postgres.codec import check_length, skip_rows
from dualpool.postgres.statements import (
    NEVER_PREPARED,
    SERVER_PREFIX,
    STAND_IN_CLOSE,
    ClientStatements,
    PreparedStep,
    ServerStatements,
    Statement,
    shared,
)
from dualpool.postgres.states import (
    C_BIND,
    C_CALL,
    C_COPY_DATA,
    C_COPY_END,
    C_EXECUTE,
    C_FLUSH,
    C_ILLEGAL,
    C_NAMED,
    C_PARSE,
    C_QUERY,
    C_SYNC,
    C_TERMINATE,
    CLIENT_ACTION,
    RELEASING,
    S_ASYNC,
    S_CLOSED,
    S_COMPLETE,
    S_COPY_IN,
    S_ERROR,
    S_ILLEGAL,
    S_PARAMETER,
    S_PARSED,
    S_PASS,
    S_READY,
    SERVER_ACTION,
)
from dualpool.postgres.wire import HEADER
from dualpool.protocol import (
    BROKEN,
    CLOSE,
    FORWARD,
    NEEDS_SERVER,
    PIN_ERROR,
    PIN_WARN,
    PINNED,
    RELEASE,
    SESSION,
    STATEMENT,
    VACATE,
    RelayLimits,
)
from dualpool.state import DEFAULTS, Differences, Settings, settings

if TYPE_CHECKING:
    from dualpool.errors import DualpoolError

_unpack = HEADER.unpack_from

# Entries of ServerRelay.pending. A visible simple Query is the bytes of its message (the text is needed if a SET comes back); objects are
# the steps that must be undone when the server skips them; the rest are these numbers.
SYNC: Final = 1
CALL: Final = 2
HIDDEN_QUERY: Final = 3
PARSE: Final = 4
HIDDEN_PARSE: Final = 5
"""The unnamed statement of the client, again."""
CLOSING: Final = 6
HIDDEN_CLOSE: Final = 7
"""Of an unnamed statement that is not the client's."""
HIDDEN_SYNC: Final = 8
"""Only its ReadyForQuery is hidden."""
PROBE: Final = 9
"""A hidden Query whose rows we read."""

READY_MARKS: Final = frozenset((SYNC, CALL, HIDDEN_QUERY, HIDDEN_SYNC, PROBE))
HIDDEN_MARKS: Final = frozenset((HIDDEN_QUERY, HIDDEN_SYNC, PROBE))

# ServerRelay.unsynced.
SYNCED: Final = 0
PREPARING: Final = 1
RUNNING: Final = 2

SHORT_ACTIONS: Final = frozenset((C_NAMED, C_EXECUTE, C_SYNC, C_FLUSH))
SMALL_MESSAGE: Final = 1 << 16
"""Execute, Describe, Close, Sync and Flush are never longer than this; PostgreSQL has a similar limit (PQ_SMALL_MESSAGE_LIMIT)."""
MAX_ANSWER: Final = 1 << 24
"""An error, notice or parameter of the server may be this long."""

READ_ONLY_SETTINGS: Final = frozenset(
    ("server_version", "server_encoding", "integer_datetimes", "is_superuser", "in_hot_standby", "session_authorization")
)
DEALLOCATED: Final = wire.message(wire.COMMAND_COMPLETE, b"DEALLOCATE\0")
DO_NOTHING: Final = b"UNLISTEN " + NEVER_PREPARED
"""What runs in place of a DEALLOCATE. Unlike an empty query it fails in a failed transaction, as the DEALLOCATE would."""
READY_IDLE: Final = wire.ready(wire.IDLE)
CACHED_PLAN: Final = b"cached plan must not change result type"

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
T_CREATE: Final = 11
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
    b"DO": T_DOUBT | (sql.EVERYTHING | sql.PROBED << sql.ENDS) << TAG_BITS,
    b"CALL": T_DOUBT | (sql.EVERYTHING | sql.PROBED << sql.ENDS) << TAG_BITS,
    b"CLOSE CURSOR": T_DOUBT | sql.CURSOR << sql.ENDS << TAG_BITS,
    b"CLOSE CURSOR ALL": T_DOUBT | sql.CURSOR << sql.ENDS << TAG_BITS,
    b"LOAD": T_DOUBT | sql.LIBRARY << TAG_BITS,
}
KINDS_OF_OBJECTS: Final = (b"TABLE", b"VIEW", b"SEQUENCE", b"FUNCTION", b"PROCEDURE", b"TYPE", b"DOMAIN", b"AGGREGATE", b"OPERATOR")
TAGS.update({b"CREATE " + kind: T_CREATE for kind in KINDS_OF_OBJECTS})
TAGS.update({b"DROP " + kind: T_DOUBT | sql.TEMPORARY << sql.ENDS << TAG_BITS for kind in (*KINDS_OF_OBJECTS, b"OWNED", b"SCHEMA")})

ADVISORY_FUNCTIONS: Final = range(2880, 2893)
"""The OIDs of the session's advisory lock functions (pg_proc.dat); a FunctionCall names a function so."""
CALLED_FUNCTIONS: Final = {2078: sql.SETTINGS | sql.COMPUTED} | dict.fromkeys(ADVISORY_FUNCTIONS, sql.LOCK | sql.RELEASED)
ASK_AGAIN: Final = 16
"""While a session is pinned, what it holds is asked every so many transactions even if nothing seems to have ended it."""


def render_difference(gone: list[str], wanted: dict[str, str]) -> bytes:
    """One simple Query. Roles first when they go and last when they come: the other settings may need their rights.

    It is a transaction block: should a part of it fail, the session is left in a failed transaction. What the client has sent behind it is
    then refused, and not carried out in the name, and with the rights, of the client before.
    """
    resets = [f"RESET {quoted_name(name)}" for name in sorted(gone, key=_role_rank, reverse=True)]
    sets = [wanted[name] for name in sorted(wanted, key=_role_rank)]
    return wire.query(messages.raw("; ".join([BEGIN, *resets, *sets, "COMMIT"])))


BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Whatever the default is: one of them may wait (default_transaction_deferrable)."""
ROLES: Final = ("session_authorization", "role")
"""Another session user ends the role."""


def _role_rank(name: str) -> int:
    return ROLES.index(name) + 1 if name in ROLES else 0


def quoted_name(name: str) -> str:
    """A setting's name for RESET; `a.b` is two identifiers."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


DIFFERENCES: Final = Differences(render_difference)


class StandInStep:
    """A do-nothing Close that takes the place of a client's Parse; its CloseComplete is turned into ParseComplete."""

    __slots__ = ("client", "name")

    def __init__(self, client: "ClientRelay", name: bytes) -> None:
        self.client = client
        self.name = name


class DuplicateStep:
    """A client's Parse under a name that it has given already. The server will refuse it; the refusal must say the client's name."""

    __slots__ = ("name", "statement")

    def __init__(self, name: bytes, statement: Statement) -> None:
        self.name = name
        self.statement = statement


class ClosedStep:
    """A client's Close of a statement (a do-nothing Close on the server). If the server skips it, the client still has it."""

    __slots__ = ("client", "name", "statement")

    def __init__(self, client: "ClientRelay", name: bytes, statement: Statement) -> None:
        self.client = client
        self.name = name
        self.statement = statement


class DeallocatedStep:
    """A DEALLOCATE of a client, for which the server runs a statement that does nothing."""

    __slots__ = ("client", "name", "statement")

    def __init__(self, client: "ClientRelay", name: bytes) -> None:
        self.client = client
        self.name = name
        self.statement = client.statements.remove(name)


class EvictStep:
    """A Close of ours. If the server skips it, what `prepared` made is still there."""

    __slots__ = ("prepared",)

    def __init__(self, prepared: PreparedStep) -> None:
        self.prepared = prepared


class TellingStep:
    """An Execute of a statement whose text matters when its tag comes."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


class ServerRelay(protocol.ServerRelay):
    """See the module. `mode` is the lease's, set by the client that attaches."""

    __slots__ = (
        "_asked", "_doubtful", "_ends", "_hiding", "_in_error", "_last", "_rest", "_retried", "_rows", "_skip", "_skip_hidden",
        "_texts_seen", "_unasked", "baseline", "changes", "changes_in_transaction", "client", "copying_in", "doubts", "last_error", "mode",
        "names_in_doubt", "pending", "reported", "savepoints", "segment", "segment_statement", "session_changed", "settings", "statements",
        "strict", "suspect", "unfinished", "unnamed", "unsynced",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, reported: dict[str, str]) -> None:
        super().__init__()
        self.client: ClientRelay | None = None
        self.mode = limits.mode
        self.pending: deque[object] = deque()
        self.statements = ServerStatements(limits.statements_per_server)
        self.unnamed: bytes | None = None
        """The Parse message of the unnamed statement that the session has now."""
        self.unsynced = SYNCED
        """Whether extended-query messages were sent with no Sync after them, and if they do more than prepare (RUNNING)."""
        self.unfinished = False
        """A message has been sent in part; if the rest never comes, the connection is lost."""
        self.copying_in = False
        self.suspect = False
        """We cannot tell any more how many answers are to come: do not reuse."""
        self.last_error = b""
        self.settings: Settings = DEFAULTS
        self.baseline = dict(reported)
        self.reported = reported
        self.session_changed = False
        """Something in `reported` or `changes` is new since the lease began."""
        self.changes: list[sql.Change] = []
        self.changes_in_transaction: list[sql.Change] = []
        self.savepoints: list[tuple[bytes, int]] = []
        self.segment = b""
        """What was sent since the last Sync, while it is one chunk with one Bind, so that it can be sent again once."""
        self.segment_statement: Statement | None = None
        self._hiding = False
        self._in_error = False
        self._rest = HeldBytes()
        self._skip = 0
        self._skip_hidden = False
        self._texts_seen = 0
        self.doubts = 0
        """What the session may hold by now: kinds of sql.py. Before the lease may end, the server is asked."""
        self._ends = 0
        """Of which kinds it may hold less by now. That matters if it is pinned by them."""
        self.names_in_doubt: set[str] = set()
        """Settings to be asked for by name."""
        self._doubtful = b""
        """The text that raised the newest doubt."""
        self._rows: list[bytes] | None = None
        """The rows of the probe under way, `_asked`: which kinds it is about, `_retried`: the one before it has failed."""
        self._asked = 0
        self._retried = False
        self._unasked = 0
        """How often the session has been idle, while pinned, since it was asked last."""
        self.strict = False
        self._last: object = None
        """Of `pending`, what was answered last."""

    # -------------------------------------------------------------------------------------------------------- for the exchanges

    def answered(self) -> bool:
        """True when no answer is outstanding."""
        return not self.pending and not self._rest.size and not self._skip

    def is_quiet(self) -> bool:
        return not (
            self.pending
            or self.in_transaction
            or self.unsynced
            or self.unfinished
            or self.suspect
            or self.pins
            or self.doubts
            or self._rest.size
        )

    def is_asked(self) -> bool:
        """Strict mode: is the session being asked what it holds?"""
        return self.strict and self._rows is not None

    def pin_reasons(self) -> list[str]:
        return [f"{name}; until {end}" for kind, (name, end) in sql.HOLDINGS.items() if self.pins & kind]

    def is_midway(self) -> bool:
        return self._skip > 0 and not self._skip_hidden

    def count_statements(self) -> int:
        return len(self.statements.known)

    def is_lost(self) -> bool:
        return self.suspect or self.unfinished

    def needs_sync(self) -> bool:
        """True when extended-query messages still lack their Sync."""
        return self.unsynced != SYNCED

    def sync_sent(self) -> None:
        """An exchange sends the missing Sync."""
        self.unsynced = SYNCED
        self.pending.append(SYNC)

    def expect_hidden_ready(self) -> None:
        """An exchange is about to send a simple Query: keep its answers from clients. `last_error` tells afterwards whether it failed."""
        if not self.pending:
            self._hiding = True
        self.pending.append(HIDDEN_QUERY)
        self.last_error = b""

    def was_reset(self) -> None:
        """DISCARD ALL has run: nothing that a client did is left."""
        self.settings = DEFAULTS
        self.statements.known.clear()
        self.unnamed = None
        self.reported = dict(self.baseline)
        self.pins = self.doubts = self._ends = 0
        self.pinned_at = 0.0
        self.dirty = False
        self._forget_changes()

    # -------------------------------------------------------------------------------------------------------- the server's bytes

    def on_server_bytes(self, data: bytes) -> int:
        if self._rest.size:
            data = self._rest.take(data)
            if not data:
                return FORWARD
        end = len(data)
        position = 0
        start = 0  # the first byte that has not been dealt with: [start:position] goes to the client as it is
        out: list[bytes] | None = None
        verdict = FORWARD
        ready = False
        if self._skip:
            taken = min(self._skip, end)
            self._skip -= taken
            position = taken
            if self._skip_hidden:
                start = taken
                out = []
        while end - position >= 5:
            kind, length = _unpack(data, position)
            action = SERVER_ACTION[kind]
            if action == S_PASS and not self._hiding:
                following = position + length + 1
                if following <= end and length >= 4:
                    # Most answers are short; only a run of messages is worth the call.
                    position = skip_rows(data, following, end) if end - following > 64 else following
                    continue
            check_length(length)
            following = position + length + 1
            if following > end:
                if action == S_PASS and self._rows is None:
                    self._skip = following - end
                    self._skip_hidden = self._hiding
                    if self._hiding:
                        out = [] if out is None else out
                        if start < position:
                            out.append(data[start:position])
                        start = end
                    position = end
                elif length > MAX_ANSWER:
                    raise RemoteProtocolError(f"a message of kind {chr(kind)!r} and {length} bytes")
                break
            hidden = self._hiding
            instead = b""
            if action == S_READY:
                if length != 5:
                    raise RemoteProtocolError(f"ReadyForQuery of {length} bytes")
                ready = True
                hidden = self._ready(data[position + 5]) or hidden
                if self._rows is not None:
                    pins = self.pins
                    instead = self._looked(self._rows)
                    if self.pins != pins:
                        verdict |= PINNED
            elif action == S_COMPLETE:
                self.copying_in = False
                if not hidden:
                    tag = TAGS.get(data[position + 5 : following - 1])
                    if tag is not None:
                        instead = self._tagged(tag)
                        hidden = bool(instead)
            elif action == S_PARSED:
                hidden = self._parsed() or hidden
            elif action == S_CLOSED:
                hidden, instead = self._closed()
            elif action == S_ERROR:
                payload = data[position + 5 : following]
                if hidden:
                    self.last_error = payload
                if self.wants_writes and b"\0C25006\0" in payload:
                    self.refused_write = self.dirty = True
                if b"\0VFATAL\0" in payload or b"\0VPANIC\0" in payload:
                    verdict |= BROKEN
                    hidden = False  # the server's last words are for whoever is there
                elif hidden:
                    if self.client is not None and self._rows is None:
                        raise settings_refused(payload)
                elif self.segment and self._heals(payload, position == 0):
                    hidden = True
                else:
                    instead = self._renamed(payload)
                    hidden = bool(instead)
                self._after_error()
            elif action == S_PARAMETER:
                self._report(data[position + 5 : following - 1])
            elif action == S_COPY_IN:
                self.copying_in = True
            elif action == S_ILLEGAL:
                raise RemoteProtocolError(f"a message of kind {chr(kind)!r} after the login")
            elif hidden and self._rows is not None and kind == wire.DATA_ROW:
                self._rows.append(data[position + 5 : following])
            if hidden and (action != S_ASYNC or (kind == wire.NOTICE and self._rows is not None)):
                out = [] if out is None else out
                if start < position:
                    out.append(data[start:position])
                if instead:
                    out.append(instead)
                start = following
            position = following
        if position < end:
            tail = data[position:]
            self._rest.keep(tail, 1 + _unpack(tail, 0)[1] if len(tail) >= 5 else 5)
        if out is None:
            self.to_client = data if position == end else data[:position]
        else:
            if start < position:
                out.append(data[start:position])
            self.to_client = b"".join(out)
        if position:
            self.segment = b""
        if ready and RELEASING[self.mode][wire.IDLE]:
            if self.is_quiet():
                verdict |= RELEASE
            elif self.pins or self.doubts:
                self.look()
                if self.strict and self._rows is None and self.client is not None:
                    verdict |= self.client.catch_up(self)
        return verdict

    # -------------------------------------------------------------------------------------------------------- pins

    def suspect_of(self, marks: int, text: bytes) -> None:
        """A statement that was sent, or has run, may have begun or ended what outlives its transaction."""
        doubts = marks & (sql.EVERYTHING | sql.UNASKED)
        if doubts:
            self.doubts |= doubts
            self._doubtful = text
            if doubts & sql.SETTINGS:
                self.names_in_doubt |= sql.setting_names(text)
        self._ends |= marks >> sql.ENDS & sql.PROBED

    def look(self) -> None:
        """Between two transactions, if there is reason to: ask what the session holds. The client has its answer already.

        So it is the server that says when a pin begins and ends; reading SQL only says when to ask.
        """
        if (
            self.pending
            or self.in_transaction
            or self.unsynced
            or self.unfinished
            or self.suspect
            or self._rest.size
            or self.client is None
        ):
            return
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
        self._hiding = True
        self.last_error = b""
        self.pending.append(PROBE)
        text = sql.probe(sql.EVERYTHING if self.strict else kinds, self.names_in_doubt)
        self.to_server += wire.query(messages.raw(sql.UNHURRIED + text if self._retried else text))

    def _looked(self, rows: list[bytes]) -> bytes:
        """The answer to the probe is there. Returns what the client is to be told."""
        self._rows = None
        asked = self._asked
        client = self.client
        if client is None:
            return b""
        before = self.pins
        if self.last_error or not rows:
            # Cancelled, or out of time.
            self._retried = not self._retried
            self.doubts |= asked
            if not self._retried:
                self.doubts = 0
                self._unasked = ASK_AGAIN - 2  # with the next transaction, and not at once
                self.pins |= sql.UNKNOWN
        else:
            self._retried = False
            values = [messages.parse_row(row) for row in rows]
            found = sql.holdings(values[0][1] or b"") | asked & sql.UNASKED
            if self.strict:
                if self.pending:
                    self.doubts |= sql.ALWAYS
                self._compare(found & ~asked & ~before, values[1:], asked)
            self.pins = before & ~(asked & sql.PROBED | sql.UNKNOWN) | found
            if asked & sql.SETTINGS:
                self._track(values[1:])
        if not self.pins & ~before:
            return b""
        if not before:
            self.pin_text = sql.masked(self._doubtful)
        return self._pinned(self.pins & ~before, client)

    def _pinned(self, kinds: int, client: "ClientRelay") -> bytes:
        """The session holds more than before. Returns the notices for the client; raises FeatureRefused if that is not allowed."""
        new = [words for kind, words in sql.HOLDINGS.items() if kinds & kind & ~client.told]
        policy = client.limits.pin_policy
        if policy == PIN_ERROR:
            self.suspect = bool(self.pending)
            name, end = next(words for kind, words in sql.HOLDINGS.items() if kinds & kind)
            raise FeatureRefused(
                f"the session would keep its server connection after the transaction ({name}), which is not allowed here: {self.pin_text}",
                hint=f"It would have to end with {end} before the transaction does; or use a listener in session mode.",
            )
        client.told |= kinds
        if policy != PIN_WARN:
            return b""
        return b"".join(
            messages.notice_message(
                f"this session keeps its server connection after the transaction: {name}",
                f"It lasts until {end}. A listener in session mode is there for what lasts longer.",
            )
            for name, end in new
        )

    def _track(self, rows: list[list[bytes | None]]) -> None:
        """What functions have made of the settings is known now, and can be replayed."""
        found = settings_in(rows)
        for name in self._believed():
            if name not in found and "." not in name and name not in ROLES:
                self.changes.append((name, None))
        for name, value in found.items():
            unchanged = value == ("none" if name == "role" else self.baseline.get(name) if name == "session_authorization" else None)
            self.changes.append((name, None if unchanged else sql.setter(name, value)))
        self.names_in_doubt.clear()
        self.session_changed = True

    def _believed(self) -> dict[str, str]:
        """The settings that the session has, as far as we know."""
        values = dict(self.settings.values)
        for name, statement in self.changes:
            _apply(values, name, statement, {})
        return values

    def _compare(self, unexpected: int, rows: list[list[bytes | None]], asked: int) -> None:
        """Strict mode: what the session has must be what we believe. Raises FeatureRefused."""
        wrong = [name for kind, (name, _) in sql.HOLDINGS.items() if unexpected & kind]
        if not asked & sql.SETTINGS:
            found, believed = settings_in(rows), self._believed()
            known = {name.lower() for name in self.reported} | {"session_authorization"}
            if found.pop("role", "none") != "none" and "role" not in believed:
                wrong.append("role")
            wrong += sorted(name for name in found if name not in believed and name not in known)
            wrong += sorted(name for name in believed if name not in found and name not in known and "." not in name and name != "role")
        if wrong:
            self.dirty = True
            self.suspect = bool(self.pending)
            text = sql.masked(self._last_text())
            raise StateLeaked(
                f"strict mode: the session holds what could not be seen to begin: {', '.join(wrong)}; the last statement was: {text}",
                hint="Do it in a statement of its own, not inside a function; or use a listener in session mode.",
            )

    def _last_text(self) -> bytes:
        """The text of the statement that was answered last, or of the one that was bound last."""
        last = self._last
        if isinstance(last, bytes):
            return last[5:-1]
        if self.segment_statement is not None:
            return self.segment_statement.text()
        unnamed = self.unnamed
        return unnamed[6 : unnamed.index(0, 6)] if unnamed is not None and unnamed[:1] == b"P" else b""

    # -------------------------------------------------------------------------------------------------------- answers

    def _ready(self, status: int) -> bool:
        """ReadyForQuery: the oldest Query or Sync is answered in full. True if the client did not ask for it."""
        pending = self.pending
        mark = pending.popleft() if pending else None
        if type(mark) is not bytes and mark not in READY_MARKS:
            if mark is not None:
                pending.appendleft(mark)
                self._undo_skipped()  # They were sent after the error had come already.
            if not pending:
                raise RemoteProtocolError("ReadyForQuery without a query")
            mark = pending.popleft()
        self.in_transaction = status != wire.IDLE
        self.copying_in = False
        self._hiding = bool(pending) and (pending[0] == HIDDEN_QUERY or pending[0] == PROBE)
        self._texts_seen = 0
        if self.changes_in_transaction and status == wire.IDLE:
            if not self._in_error:
                self.changes += self.changes_in_transaction
            self.changes_in_transaction = []
            self.savepoints = []
        self._in_error = False
        if status != wire.IDLE and self.mode == STATEMENT and mark != HIDDEN_QUERY:
            self.suspect = bool(pending)
            raise FeatureRefused(
                "transactions of several statements are not possible in statement pooling mode",
                hint='Use pool_mode = "transaction", or leave out BEGIN.',
            )
        if mark in HIDDEN_MARKS:
            return mark == HIDDEN_SYNC
        self._last = mark
        self.queries += 1
        if status == wire.IDLE:
            self.transactions += 1
        return False

    def _report(self, payload: bytes) -> None:
        """ParameterStatus."""
        raw_name, _, raw_value = payload.partition(b"\0")
        name, value = messages.text(raw_name), messages.text(raw_value)
        self.reported[name] = value
        if self._hiding:
            return  # the answer to a difference that we sent: both sides know
        if self.client is not None:
            self.session_changed = True
        elif name.lower() not in self.settings.values:
            self.baseline[name] = value  # the server's own default has changed (a reload, a failover)

    def _parsed(self) -> bool:
        """ParseComplete. True if the client did not ask for it."""
        step = self.pending.popleft() if self.pending else None
        if step == PARSE:
            return False
        if step == HIDDEN_PARSE:
            return True
        if isinstance(step, PreparedStep):
            step.confirmed = True
            self.statements.known.setdefault(step.statement, step)  # A DEALLOCATE ALL before it may have been answered meanwhile.
            return step.owner is None
        if isinstance(step, DuplicateStep):
            return False
        raise RemoteProtocolError("ParseComplete without a Parse")

    def _closed(self) -> tuple[bool, bytes]:
        """CloseComplete. Whether to hide it, and what the client gets instead."""
        step = self.pending.popleft() if self.pending else None
        if step == CLOSING or isinstance(step, ClosedStep):
            return False, b""
        if isinstance(step, StandInStep):
            return True, wire.PARSE_COMPLETE_MESSAGE
        if isinstance(step, EvictStep):
            self.statements.remove(step.prepared)
            return True, b""
        if step == HIDDEN_CLOSE:
            return True, b""
        raise RemoteProtocolError("CloseComplete without a Close")

    def _after_error(self) -> None:
        """After an error the server discards everything up to Sync (docs: Extended Query): undo what will not happen."""
        if self.copying_in and self.pending and type(self.pending[0]) is not bytes and len(self.pending) > 1:
            # Was a Sync that was sent before the copy began read during the copy (and ignored) or after the error? Nobody can tell.
            self.suspect = True
        self.copying_in = False
        self._in_error = True
        self._undo_skipped()

    def _undo_skipped(self) -> None:
        """The server will not do what is left of the segment: the last step is undone first."""
        skipped = []
        pending = self.pending
        while pending and not (type(pending[0]) is bytes or pending[0] in READY_MARKS):
            skipped.append(pending.popleft())
        for step in reversed(skipped):
            self._undo(step)

    def _undo(self, step: object) -> None:
        if isinstance(step, PreparedStep):
            self.statements.remove(step)
            if step.owner is not None:
                step.owner.remove(step.name)
        elif isinstance(step, StandInStep):
            step.client.statements.remove(step.name)
        elif isinstance(step, ClosedStep):
            step.client.statements.restore(step.name, step.statement)
        elif isinstance(step, EvictStep):
            if step.prepared.confirmed:
                self.statements.known[step.prepared.statement] = step.prepared
        elif isinstance(step, DeallocatedStep):
            step.client.statements.restore(step.name, step.statement)
        elif isinstance(step, int):
            # PARSE, CLOSING and their hidden forms. Was this one refused, or never read? The unnamed statement is one or the other.
            self.unnamed = UNKNOWN
            if step == PARSE and self.client is not None:
                self.client.unnamed = None

    def _renamed(self, payload: bytes) -> bytes:
        """An error that names one of our statements, with the client's own name for it; b"" when it names none."""
        if SERVER_PREFIX not in payload or self.client is None:
            return b""
        head = self.pending[0] if self.pending else None
        if isinstance(head, DuplicateStep):
            payload = payload.replace(b'"' + head.statement.name + b'"', b'"' + head.name + b'"')
        for name, statement in self.client.statements.names.items():
            payload = payload.replace(b'"' + statement.name + b'"', b'"' + name + b'"')
        return wire.message(wire.ERROR_RESPONSE, payload)

    def prepare(self, statement: Statement, owner: ClientStatements | None, name: bytes) -> bytes:
        """The messages that prepare `statement`, whether or not it is prepared already, and make room for it. See PreparedStep."""
        self.parses += 1
        step = PreparedStep(statement, owner, name)
        closing = b""
        for gone in self.statements.add(step):
            self.pending.append(EvictStep(gone))
            closing += wire.message(wire.CLOSE, b"S" + gone.statement.name + b"\0")
        self.pending.append(step)
        return closing + statement.parse

    def has(self, statement: Statement, owner: ClientStatements, name: bytes) -> bool:
        """True if `statement` will be prepared when the server reads what is sent next; `name` is what its owner calls it.

        A Parse in an earlier segment may still fail, or be skipped, without this segment failing with it. Only if it was the client's own
        for this very name, then what it asks now must fail, too.
        """
        step = self.statements.known.get(statement)
        if step is None:
            return False
        if step.confirmed or (step.owner is owner and step.name == name) or self._in_this_segment(step):
            self.statements.known.move_to_end(statement)
            return True
        return False

    def parse_is_unsure(self) -> bool:
        """True if the newest Parse of the unnamed statement is in an earlier segment and not answered yet."""
        earlier = False
        for step in reversed(self.pending):
            if step in {PARSE, HIDDEN_PARSE}:
                return earlier
            earlier = earlier or type(step) is bytes or step in READY_MARKS
        return False

    def _in_this_segment(self, step: object) -> bool:
        for later in reversed(self.pending):
            if later is step:
                return True
            if type(later) is bytes or later in READY_MARKS:
                return False
        return False

    def _heals(self, payload: bytes, first: bool) -> bool:
        """The one error that is the pooling's fault: another client changed a table under a shared plan. Prepare anew and ask again.

        Only when the whole segment can be sent again: it was one chunk, nothing of it was answered, and no transaction was lost with it.
        """
        statement, segment = self.segment_statement, self.segment
        if (
            statement is None
            or not first
            or len(self.pending) != 1
            or self.in_transaction
            or CACHED_PLAN not in payload
            or b"C0A000\0" not in payload
        ):
            return False
        self.segment_statement = None
        # The failed segment's ReadyForQuery stays hidden; then an empty Sync's worth of our own, then the client's segment again.
        self.pending.clear()
        self.pending.append(HIDDEN_QUERY)
        self.to_server += self.prepare(statement, None, b"") + segment
        self.pending.append(SYNC)
        self._hiding = True
        return True

    def _tagged(self, tag: int) -> bytes:
        """A command that matters has run. Returns what the client is told in place of its tag, or b""."""
        marks = tag >> TAG_BITS
        tag &= (1 << TAG_BITS) - 1
        if marks and self.mode != SESSION:
            self.suspect_of(marks, self._asked_text())
        if tag >= T_DOUBT:
            if tag == T_CREATE and self.mode != SESSION and self._creates_temporary():
                self.suspect_of(sql.TEMPORARY, self._asked_text())
            return b""
        if tag == T_UNLISTEN:
            if not (self.pending and isinstance(self.pending[0], DeallocatedStep)):
                return b""
            self.pending.popleft()
            return DEALLOCATED
        statement = self._text()
        if tag == T_COMMIT:
            self.changes += self.changes_in_transaction
            self.changes_in_transaction = []
            self.savepoints = []
            self._in_error = False
        elif tag == T_ROLLBACK:
            self._rolled_back(statement)
        elif tag == T_SAVEPOINT:
            if statement:
                self.savepoints.append((sql.savepoint_name(statement), len(self.changes_in_transaction)))
        elif tag == T_RELEASE:
            del self.savepoints[self._savepoint(statement) :]
        elif tag == T_SET:
            if statement:
                self.changes_in_transaction += sql.changes(statement)
                self.session_changed = True
        elif tag == T_DEALLOCATE_ALL:
            self._deallocated_all()
        elif tag == T_DISCARD_ALL:
            self._deallocated_all()
            self.changes_in_transaction.append(("*", None))
            self.session_changed = True
            self.pins &= sql.LIBRARY
            if not self.pins:
                self.pinned_at = 0.0
        return b""

    def _creates_temporary(self) -> bool:
        """With pg_temp in the search path, CREATE need not say TEMPORARY."""
        now = [self.reported.get("search_path", ""), *self._believed().values()]
        return any("pg_temp" in (value or "") for value in [*now, *(statement for _, statement in self.changes_in_transaction)])

    def _asked_text(self) -> bytes:
        """The statement that is being answered."""
        head = self.pending[0] if self.pending else None
        if isinstance(head, TellingStep):
            return head.text
        return head[5:-1] if isinstance(head, bytes) else self._last_text()

    def _rolled_back(self, statement: list[bytes]) -> None:
        """ROLLBACK, or ROLLBACK TO a savepoint, which keeps what was set before it."""
        self._in_error = False
        if not sql.is_rollback_to(statement):
            self.changes_in_transaction = []
            self.savepoints = []
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
            return sql.tokens(head.text)
        if isinstance(head, bytes):
            telling = [s for s in sql.statements(head[5:-1]) if s[0].lower() in sql.TELLING_WORDS]
            self._texts_seen += 1
            if self._texts_seen <= len(telling):
                return telling[self._texts_seen - 1]
        return []

    def _deallocated_all(self) -> None:
        """The session's prepared statements are gone; for the client they were all it had, for us they are prepared again on demand."""
        self.statements.known.clear()
        if self.client is not None:
            self.client.statements.clear()
        for step in self.pending:
            if isinstance(step, PreparedStep):
                self.statements.known[step.statement] = step
                if step.owner is not None:
                    step.owner.restore(step.name, step.statement)

    def _forget_changes(self) -> None:
        self.session_changed = False
        self.changes = []
        self.changes_in_transaction = []
        self.savepoints = []


class ClientRelay(protocol.ClientRelay):
    """See the module. Without a lease, bytes wait in `_held`."""

    __slots__ = (
        "_careful", "_discarding", "_held", "_portals", "_skip", "base", "limits", "server", "settings", "statements", "told", "unnamed",
        "unnamed_marks",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, wanted: Settings = DEFAULTS) -> None:
        super().__init__()
        self.limits = limits
        self.server: ServerRelay | None = None
        self.base = wanted
        """The settings of the client's start-up: where RESET takes it back to."""
        self.settings = wanted
        self.statements = ClientStatements(limits.statements_per_client, limits.statement_bytes)
        self.unnamed: bytes | None = None
        """The Parse message of the unnamed statement, to be sent again on another server connection."""
        self.unnamed_marks = 0
        self.told = 0
        """The kinds of pins that the client has been told of."""
        self._careful = limits.mode == SESSION or limits.strict
        """Something must be done at the start of each lease."""
        self._held = HeldBytes()
        self._skip = 0
        self._discarding = False
        self._portals: dict[bytes, bytes] = {}
        """The texts of portals bound in this lease, from the first telling one on."""

    def count_statements(self) -> int:
        return len(self.statements.names)

    def held_bytes(self) -> int:
        return self._held.size

    def on_client_bytes(self, data: bytes) -> int:
        if self._held.size:
            data = self._held.take(data)
            if not data:
                return FORWARD
        server = self.server
        if self._skip and data:
            taken = min(self._skip, len(data))
            self._skip -= taken
            part, data = data[:taken], data[taken:]
            if server is not None:
                server.unfinished = self._skip > 0
                verdict = self._process(data, server) if data else FORWARD
                self.to_server = part + self.to_server
                if RELEASING[server.mode][wire.IDLE]:
                    # That may have been the end of late copy data, which nothing answers.
                    if server.is_quiet():
                        verdict |= RELEASE
                    elif server.doubts:
                        server.look()
                        self.to_server += server.to_server
                        server.to_server = b""
                return verdict
        if not data:
            return FORWARD
        if server is not None:
            if self._careful and server.is_asked():
                # Strict mode: so that it goes to another server connection.
                self._held.keep(data, 0)
                return FORWARD
            return self._process(data, server)
        return self._unattached(data)

    def catch_up(self, server: ServerRelay) -> int:
        """The lease goes on: what waited for the end of the question is for the same server connection. Returns verdict bits."""
        held = self._held
        if not held.size or held.need:
            return FORWARD
        data = b"".join(held.chunks)
        held.clear()
        verdict = self._process(data, server)
        server.to_server += self.to_server
        self.to_server = b""
        return verdict

    def attach(self, server: protocol.ServerRelay) -> int:
        assert isinstance(server, ServerRelay)
        self.server = server
        server.client = self
        server.mode = self.limits.mode
        prefix = b""
        if self.settings is not server.settings:
            prefix = DIFFERENCES.between(server.settings, self.settings)
            server.settings = self.settings
            server.expect_hidden_ready()
        if self._careful:
            if self.limits.mode == SESSION:
                server.dirty = True
            else:
                server.strict = True
                server.doubts = sql.ALWAYS
        held = self._held
        data = b"".join(held.chunks)
        held.clear()
        verdict = self._process(data, server) if data else FORWARD
        if prefix:
            self.to_server = prefix + self.to_server
        return verdict

    def detach(self) -> None:
        server = self.server
        if server is None:
            return
        if server.session_changed:
            self._absorb(server)
        if not server.is_quiet():
            # What is still to come (a rollback above all) may change settings behind our back. And what it is pinned by must go.
            server.dirty = True
            if server.pins & sql.LIBRARY:
                server.suspect = True
        server.client = None
        server.segment = b""
        server.segment_statement = None
        self.server = None
        if self._portals:
            self._portals.clear()

    def error_message(self, error: "DualpoolError") -> bytes:
        return messages.error_message(error)

    def refuse(self, error: "DualpoolError") -> int:
        """Answer the first request that waits, as a server would: an error, and ReadyForQuery at its Query or Sync."""
        self.to_client += messages.error_message(error)
        if error.severity != "ERROR":
            return CLOSE
        held = self._held
        data = b"".join(held.chunks)
        held.clear()
        position = 0
        while len(data) - position >= 5:
            kind, length = _unpack(data, position)
            following = position + 1 + length
            whole_request = not self._discarding and kind in {wire.QUERY, wire.FUNCTION_CALL}
            if following > len(data):
                self._skip = following - len(data)
                position = len(data)
                self._discarding = not whole_request
                break
            position = following
            if whole_request or kind == wire.SYNC:
                self._discarding = False
                self.to_client += READY_IDLE
                if position < len(data):
                    held.keep(data[position:], 0)
                return FORWARD
            self._discarding = True
        if not self._discarding:
            self.to_client += READY_IDLE
        if position < len(data):
            held.keep(data[position:], 5)
        return FORWARD

    # -------------------------------------------------------------------------------------------------------- without a lease

    def _unattached(self, data: bytes) -> int:
        """Answer what needs no server; keep the rest, and say whether a server is needed for it."""
        position = 0
        end = len(data)
        while end - position >= 5:
            kind, length = _unpack(data, position)
            check_length(length)
            action = CLIENT_ACTION[kind]
            following = position + length + 1
            if action == C_TERMINATE:
                return CLOSE
            if action == C_ILLEGAL:
                raise illegal_message(kind)
            if following > end:
                if action in {C_COPY_DATA, C_COPY_END} or self._discarding:
                    self._skip = following - end
                    return FORWARD
                enough = self._enough(kind, action, length)
                if end - position >= enough:
                    break
                self._held.keep(data[position:], enough)
                return FORWARD
            if action == C_SYNC:
                # With nothing before it, the answer is known; and after a refusal this is where the client is told to go on.
                self._discarding = False
                self.to_client += READY_IDLE
            elif not (action == C_FLUSH or self._discarding or action in {C_COPY_DATA, C_COPY_END}):
                # Copy messages here are late: the copy failed, and the server drops what was still under way (docs: COPY Operations).
                break
            position = following
        if position == end:
            return FORWARD
        if end - position < 5:
            self._held.keep(data[position:], 5)
            return FORWARD
        self._held.keep(data[position:] if position else data, UNTIL_ATTACHED)
        return NEEDS_SERVER

    def _enough(self, kind: int, action: int, length: int) -> int:
        """How many bytes of an unfinished message must be there to handle it: all of a short one, the head of a long one."""
        if action == C_COPY_DATA:
            return 5
        if action == C_ILLEGAL:
            raise illegal_message(kind)
        if length > SMALL_MESSAGE and action in SHORT_ACTIONS:
            raise RemoteProtocolError(f"a message of kind {chr(kind)!r} and {length} bytes")
        cap = self.limits.statement_bytes if action == C_PARSE else self.limits.frame_bytes
        return length + 1 if length <= max(cap, SMALL_MESSAGE) else SMALL_MESSAGE

    # -------------------------------------------------------------------------------------------------------- with a lease

    def _process(self, data: bytes, server: ServerRelay) -> int:
        """Walk the messages; what the server gets is `data` itself unless something in it must be rewritten."""
        end = len(data)
        position = 0
        start = 0
        out: list[bytes] | None = None
        verdict = FORWARD
        rewrites = self.limits.mode != SESSION
        pending = server.pending
        binds = 2 if server.unsynced else 0  # a segment that began earlier cannot be sent again as a whole
        try:
            while end - position >= 5:
                kind, length = _unpack(data, position)
                following = position + length + 1
                action = CLIENT_ACTION[kind]
                whole = True
                if following > end or length < 4:
                    check_length(length)
                    if end - position < self._enough(kind, action, length):
                        break
                    whole = False
                instead: bytes | None = None
                if action == C_QUERY:
                    ending = self._end_segment(server) if server.unsynced else b""
                    self.unnamed = None
                    server.unnamed = None
                    frame = data if start == 0 and position == 0 and following == end else data[position:following]
                    pending.append(frame)
                    server.segment_statement = None
                    marks = sql.QUERY_MARKS.get(frame) if whole else sql.UNREAD
                    if marks is None:
                        if length < 5:
                            raise RemoteProtocolError("a Query without a text")
                        marks = sql.UNREAD if length > max(self.limits.frame_bytes, SMALL_MESSAGE) else sql.query_marks(frame)
                    if marks & sql.NOTABLE:
                        instead = self._note_query(frame, marks, server)
                        if self.vacates:
                            verdict |= VACATE
                    if ending:
                        instead = ending + (frame if instead is None else instead)
                elif action == C_BIND:
                    server.unsynced = RUNNING
                    binds += 1
                    if rewrites:
                        instead = self._bind(data, position, following if whole else end, length, server)
                elif action == C_EXECUTE:
                    server.unsynced = RUNNING
                    if self._portals:
                        self._executed(data, position, server)
                elif action == C_SYNC:
                    server.unsynced = SYNCED
                    pending.append(SYNC)
                elif action == C_PARSE:
                    server.unsynced = server.unsynced or PREPARING
                    instead = self._parse(data, position, following, whole, server, rewrites)
                    if self.vacates:
                        verdict |= VACATE
                elif action == C_NAMED:
                    server.unsynced = server.unsynced or PREPARING
                    instead = self._named(data, position, following, kind, server, rewrites)
                elif action == C_FLUSH:
                    pass
                elif action == C_COPY_DATA:
                    pass  # Outside a copy the server drops it: the copy has failed, or it begins when this arrives (docs: COPY Operations).
                elif action == C_COPY_END:
                    self._copy_ended(server)
                elif action == C_CALL:
                    pending.append(CALL)
                    marks = CALLED_FUNCTIONS.get(wire.INT32.unpack_from(data, position + 5)[0], 0) if end - position >= 9 else 0
                    if marks and rewrites:
                        server.suspect_of(marks, b"FunctionCall")
                elif action == C_TERMINATE:
                    verdict = CLOSE
                    end = position
                    break
                else:
                    raise illegal_message(kind)
                if instead is not None:
                    out = [] if out is None else out
                    if start < position:
                        out.append(data[start:position])
                    if instead:
                        out.append(instead)
                    start = following if whole else end
                if not whole:
                    self._skip = following - end
                    server.unfinished = True
                    position = end
                    break
                position = following
        except (RemoteProtocolError, IndexError, ValueError) as error:
            # What stood before it in `data` is expected to be answered, and will not be sent.
            server.suspect = bool(pending)
            if isinstance(error, RemoteProtocolError):
                raise
            raise RemoteProtocolError(f"malformed message of kind {chr(kind)!r}") from error
        if position < end:
            tail = data[position:end]
            self._held.keep(tail, self._enough(kind, action, length) if len(tail) >= 5 else 5)
        if out is None:
            self.to_server = data if position == len(data) else data[:position]
        else:
            if start < position:
                out.append(data[start:position])
            self.to_server = b"".join(out)
        if binds:
            self.binds += binds
            self._remember_segment(server, binds)
        return verdict

    def _end_segment(self, server: ServerRelay) -> bytes:
        """A simple Query follows a Parse or Describe without Sync (so asyncpg begins a COPY). Send the Sync, and hide its answer.

        Then an error of the Parse does not swallow the Query, and we know how many answers are to come.
        """
        if server.unsynced == RUNNING:
            # A Sync of ours would commit what the Query, failing, would have rolled back.
            raise RemoteProtocolError("a simple Query in the middle of an extended one", hint="Send Sync before it.")
        server.unsynced = SYNCED
        server.pending.append(HIDDEN_SYNC)
        return wire.SYNC_MESSAGE

    def _remember_segment(self, server: ServerRelay, binds: int) -> None:
        """For healing: the chunk that was just made is a whole segment with one Bind, if it ends with the only Sync under way."""
        if (
            binds == 1
            and server.segment_statement is not None
            and len(server.pending) == 1
            and not server.unsynced
            and not self._portals
            and self.to_server.endswith(wire.SYNC_MESSAGE)
        ):
            server.segment = self.to_server

    def _note_query(self, frame: bytes, marks: int, server: ServerRelay) -> bytes | None:
        """A simple Query of which something must be noted. Returns what is sent instead, or None."""
        text = frame[5:-1]
        self._note(text, marks, server)
        return self._query_instead(text, server) if marks & sql.DEALLOCATES and server.mode != SESSION else None

    def _note(self, text: bytes, marks: int, server: ServerRelay) -> None:
        """A statement is about to be run (or, for VACATES, will be soon)."""
        if marks & sql.VACATES:
            self.vacates = sql.vacated_database(text)
        if server.mode != SESSION:
            server.suspect_of(marks, text)

    def _query_instead(self, text: bytes, server: ServerRelay) -> bytes | None:
        """DEALLOCATE of a statement that the client prepared by protocol: the server never knew its name."""
        name = sql.deallocated_name(text)
        if name is None or name not in self.statements.names:
            return None
        mark = server.pending.pop()
        server.pending.extend((DeallocatedStep(self, name), mark))
        return wire.query(DO_NOTHING)

    def _parse(self, data: bytes, position: int, following: int, whole: bool, server: ServerRelay, rewrites: bool) -> bytes | None:
        self.parses += 1
        if not rewrites:
            server.parses += 1
            server.pending.append(PARSE)
            return None
        name_end = data.index(0, position + 5, following)
        if name_end == position + 5:
            return self._parse_unnamed(data, position, following, whole, server)
        if not whole:
            raise RemoteProtocolError(
                "the text of a prepared statement is too long", hint="Raise limits.statement_bytes.", sqlstate="54000"
            )
        name = data[position + 5 : name_end]
        existing = self.statements.names.get(name)
        if existing is not None:
            # As on a direct connection: 42P05. The server says so of a statement that it has; that one, lest it takes another in its place.
            instead = self._ensure(existing, server, name)
            server.pending.append(DuplicateStep(name, existing))
            return instead + existing.parse
        statement = shared(data[name_end + 1 : following])
        if statement.marks & sql.VACATES:
            self.vacates = sql.vacated_database(statement.text())
        self.statements.add(name, statement)
        if server.has(statement, self.statements, name):
            server.pending.append(StandInStep(self, name))
            return STAND_IN_CLOSE
        return server.prepare(statement, self.statements, name)

    def _parse_unnamed(self, data: bytes, position: int, following: int, whole: bool, server: ServerRelay) -> bytes | None:
        server.parses += 1
        server.pending.append(PARSE)
        if whole:
            self.unnamed = server.unnamed = data[position:following]
            text = data[position + 6 : data.index(0, position + 6, following)]
            self.unnamed_marks = sql.UNREAD if len(text) > max(self.limits.statement_bytes, SMALL_MESSAGE) else sql.marks(text)
            if self.unnamed_marks & sql.VACATES:
                self.vacates = sql.vacated_database(text)
        else:
            self.unnamed_marks = sql.UNREAD
            # Too long to be kept. On another server connection this takes its place, and the server's complaint tells the client.
            self.unnamed = server.unnamed = wire.message(wire.PARSE, b"\0" + TOO_LONG_TO_KEEP + b"\0\0\0")
        return None

    def _bind(self, data: bytes, position: int, end: int, length: int, server: ServerRelay) -> bytes | None:
        portal_end = data.index(0, position + 5, end)
        name_end = data.index(0, portal_end + 1, end)
        if name_end == portal_end + 1:
            return self._bind_unnamed(data, position, portal_end, end, length, server)
        name = data[portal_end + 1 : name_end]
        statement = self.statements.names.get(name)
        if statement is None:
            server.segment_statement = None
            if not name.startswith(SERVER_PREFIX):
                return None  # the server says that it does not exist
            return bound_to(NEVER_PREPARED, data, position, portal_end, name_end, end, length)
        if statement.notable or self._portals:
            if statement.marks & sql.NOTABLE:
                self._note_bound(statement.text(), statement.marks, data[name_end + 1 : end], server)
            if statement.telling or self._portals:
                self._portals[data[position + 5 : portal_end]] = statement.text()
                if statement.deallocates in self.statements.names:
                    statement, name = shared(DO_NOTHING_KEY), b""
        server.segment_statement = statement
        known = server.statements.known
        step = known.get(statement)
        if step is not None and step.confirmed:
            known.move_to_end(statement)
            prefix = b""
        else:
            prefix = self._ensure(statement, server, name)
        own = statement.name
        head = HEADER.pack(wire.BIND, length + len(own) - (name_end - portal_end - 1))
        return b"".join((prefix, head, data[position + 5 : portal_end + 1], own, data[name_end:end]))

    def _bind_unnamed(self, data: bytes, position: int, portal_end: int, end: int, length: int, server: ServerRelay) -> bytes | None:
        """Bind of the unnamed statement: it must be this client's own."""
        server.segment_statement = None
        unnamed = self.unnamed
        if unnamed is not None:
            marks = self.unnamed_marks
            if marks or self._portals:
                text = unnamed[6 : unnamed.index(0, 6)]
                if marks & sql.NOTABLE:
                    self._note_bound(text, marks, data[portal_end + 2 : end], server)
                if self._portals or marks & sql.TELLING:
                    self._portals[data[position + 5 : portal_end]] = text
                    if marks & sql.DEALLOCATES and sql.deallocated_name(text) in self.statements.names:
                        nothing = shared(DO_NOTHING_KEY)
                        prefix = self._ensure(nothing, server, b"")
                        return prefix + bound_to(nothing.name, data, position, portal_end, portal_end + 1, end, length)
        again = self._unnamed_again(server)
        return again + data[position:end] if again else None

    def _note_bound(self, text: bytes, marks: int, values: bytes, server: ServerRelay) -> None:
        """A statement of which something must be noted is about to run. `values`: its parameters, as Bind has them."""
        server.suspect_of(marks, text)
        if marks & sql.SETTINGS:
            server.names_in_doubt |= sql.names_among(bound_values(values))

    def _unnamed_again(self, server: ServerRelay) -> bytes:
        """What must be sent first so that the session has the client's unnamed statement, or none if it has none."""
        unnamed = self.unnamed
        if server.unnamed is unnamed and not (len(server.pending) > 1 and server.parse_is_unsure()):
            return b""
        server.unnamed = unnamed
        if unnamed is None:
            # Another client's is there; on a direct connection there would be none.
            server.pending.append(HIDDEN_CLOSE)
            return CLOSE_UNNAMED
        server.pending.append(HIDDEN_PARSE)
        return unnamed

    def _executed(self, data: bytes, position: int, server: ServerRelay) -> None:
        """Execute of a portal whose statement may be a telling one."""
        text = self._portals.get(data[position + 5 : data.index(0, position + 5)])
        if text is None or sql.first_word(text) not in sql.TELLING_WORDS:
            return
        name = sql.deallocated_name(text)
        if name is not None and name in self.statements.names:
            server.pending.append(DeallocatedStep(self, name))
        else:
            server.pending.append(TellingStep(text))

    def _named(self, data: bytes, position: int, following: int, kind: int, server: ServerRelay, rewrites: bool) -> bytes | None:
        """Describe or Close of a statement or portal."""
        what = data[position + 5]
        name = data[position + 6 : following - 1]
        if kind == wire.CLOSE and (what != STATEMENT_KIND or not name or not rewrites):
            if what == STATEMENT_KIND and not name:
                self.unnamed = server.unnamed = None
            server.pending.append(CLOSING)
            return None
        if what != STATEMENT_KIND or not rewrites:
            return None
        if not name:
            again = self._unnamed_again(server)
            return again + data[position:following] if again else None
        statement = self.statements.names.get(name)
        if kind == wire.CLOSE:
            if statement is None:
                server.pending.append(CLOSING)
            else:
                self.statements.remove(name)
                server.pending.append(ClosedStep(self, name, statement))
            return STAND_IN_CLOSE
        if statement is None:
            return wire.message(wire.DESCRIBE, b"S" + NEVER_PREPARED + b"\0") if name.startswith(SERVER_PREFIX) else None
        return self._ensure(statement, server, name) + wire.message(wire.DESCRIBE, b"S" + statement.name + b"\0")

    def _ensure(self, statement: Statement, server: ServerRelay, name: bytes) -> bytes:
        """What must be sent first so that `statement`, which the client calls `name`, is prepared; b"" if it is."""
        return b"" if server.has(statement, self.statements, name) else server.prepare(statement, None, b"")

    def _copy_ended(self, server: ServerRelay) -> None:
        """CopyDone or CopyFail. Syncs that were sent before the copy began were read during it and ignored (docs: COPY Operations)."""
        pending = server.pending
        if server.copying_in and SYNC in pending:
            server.unsynced = SYNCED if type(pending[0]) is bytes else RUNNING
            kept = [step for step in pending if step != SYNC]
            pending.clear()
            pending.extend(kept)

    # -------------------------------------------------------------------------------------------------------- the end of a lease

    def _absorb(self, server: ServerRelay) -> None:
        """What the lease has set becomes this client's wish, and what we know of the server connection."""
        actual = dict(server.settings.values)
        wanted = dict(self.settings.values)
        back_to_base: set[str] = set()
        for name, statement in server.changes:
            _apply(actual, name, statement, {})
            _apply(wanted, name, statement, self.base.values)
            if statement is None:
                back_to_base.update(self.base.values if name == "*" else (name,))
        names = {name.lower(): name for name in server.reported}
        for lowered, name in names.items():
            if name in READ_ONLY_SETTINGS:
                continue
            value = server.reported[name]
            if value == server.baseline.get(name):
                actual.pop(lowered, None)
                if lowered not in back_to_base:
                    wanted.pop(lowered, None)
            else:
                actual[lowered] = sql.setter(name, value)
                if lowered not in back_to_base:
                    wanted[lowered] = actual[lowered]
        server.settings = settings(actual)
        self.settings = settings(wanted)
        server._forget_changes()


def _apply(values: dict[str, str], name: str, statement: str | None, base: dict[str, str]) -> None:
    if name == "*":
        # RESET ALL leaves the role and the session user as they are (docs: RESET).
        kept: dict[str, str] = {role: values[role] for role in ROLES if role in values}
        values.clear()
        values.update(base)
        values.update(kept)
    elif statement is not None:
        values[name] = statement
    elif name in base:
        values[name] = base[name]
    else:
        values.pop(name, None)


def settings_in(rows: list[list[bytes | None]]) -> dict[str, str]:
    """What a probe's rows say of settings."""
    return {messages.text(name).lower(): messages.text(value) for name, value in rows if name and value is not None}


def settings_refused(payload: bytes) -> ServerLost:
    """The server has refused a client's settings (a role that was dropped?), so it still has those of the client before."""
    report = messages.parse_report(payload)
    return ServerLost(f"the settings of the session could not be brought back: {report.get('M', '')}", sqlstate=report.get("C"))


def bound_to(name: bytes, data: bytes, position: int, portal_end: int, name_end: int, end: int, length: int) -> bytes:
    """The Bind at `position` of `data`, to the statement `name` instead of the one that it names."""
    head = HEADER.pack(wire.BIND, length + len(name) - (name_end - portal_end - 1))
    return b"".join((head, data[position + 5 : portal_end + 1], name, data[name_end:end]))


def bound_values(data: bytes) -> list[bytes]:
    """The short parameters of a Bind, from behind the names on."""
    try:
        position = 2 + 2 * wire.INT16.unpack_from(data)[0]
        count = wire.INT16.unpack_from(data, position)[0]
        position += 2
        values = []
        for _ in range(count):
            length = wire.INT32.unpack_from(data, position)[0]
            position += 4
            if 0 < length < MAX_NAME:
                values.append(data[position : position + length])
            position += max(length, 0)
    except struct.error:
        return []  # cut short: it is longer than what we keep, or the server will refuse it
    return values


def illegal_message(kind: int) -> RemoteProtocolError:
    """A client sent what no logged-in client sends."""
    return RemoteProtocolError(f"invalid frontend message type {kind}")


UNTIL_ATTACHED: Final = 1 << 62
"""`HeldBytes.need` of a client that waits for a server connection: whatever it sends is put behind."""
STATEMENT_KIND: Final = ord("S")
DO_NOTHING_KEY: Final = DO_NOTHING + b"\0\0\0"
TOO_LONG_TO_KEEP: Final = b"the unnamed statement was too long to be kept for another server connection"
MAX_NAME: Final = 128
"""Bytes of a setting's name."""
UNKNOWN: Final = b"?"
"""`ServerRelay.unnamed` when nobody can tell which one the session has: not this client's, at any rate."""
CLOSE_UNNAMED: Final = wire.message(wire.CLOSE, b"S\0")
