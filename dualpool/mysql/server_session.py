"""A server connection's session: what it was asked, what it has been set to, and what it may hold beyond a transaction.

What a client changes in the session is told by the server's trackers. Of what outlives a transaction and cannot be replayed (a pin), the
text of statements says when it may begin and end (states.Holdings); what is unsettled is asked of the server before a lease goes on
because of it.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from dualpool import protocol
from dualpool.errors import FeatureRefused, RemoteProtocolError, StateLeaked
from dualpool.mysql import codec, session_sql, shapes, sql, wire
from dualpool.mysql import states as s
from dualpool.mysql.codec import first_row
from dualpool.mysql.knowledge import NOTHING_KNOWN, Knowledge
from dualpool.mysql.reading import M_STRICT, accuse
from dualpool.mysql.requests import (
    FOR_ANY_LOCKS,
    FOR_BASELINE,
    FOR_CREATED,
    FOR_DIFFERING,
    FOR_HELD,
    FOR_INSERT_ID,
    FOR_INSERT_NUMBER,
    FOR_LOCKS,
    FOR_REST,
    FOR_STATE,
    FOR_TABLE,
    FOR_UNNAMED_LOCKS,
    FOR_UNSEEN_LOCKS,
    FOR_USER_VARIABLES,
    FOR_VARIABLES,
    MOMENTS,
    QUERY,
    Request,
)
from dualpool.mysql.statements import ServerStatements
from dualpool.mysql.wire import packet
from dualpool.protocol import RelayLimits
from dualpool.state import Settings

if TYPE_CHECKING:
    from dualpool.mysql.client_relay import ClientRelay

MAX_PROVEN: Final = 256
MAX_CAPTURE: Final = 1 << 20
"""Bytes of an answer that is kept. Of warnings a server has 1,024 at most, unless a client raises max_error_count: then more than this ends
its server connection."""
ROLE_STAYS: Final = "a role stays until the session ends"
"""COM_RESET_CONNECTION does not end it, on MySQL and MariaDB alike."""
NOT_KNOWN: Final = "\0"
"""No schema's name."""
NOT_SUPPORTED: Final = 1235
"""ER_NOT_SUPPORTED_YET: what is refused because it would keep a server connection, or would need one."""


class ServerSession(protocol.ServerRelay):
    """See the module. `settings`, `schema`, `multi` and `insert_id` are what the session has now."""

    __slots__ = (
        "_changed", "_counts_locks", "_hiding", "_kept", "_leaked", "_phase", "_refusal", "_shift", "_sure", "_tells_held", "_told_pins",
        "address", "asked_about", "baseline", "capabilities", "client", "defaults", "holds", "insert_id", "is_clean", "knowledge",
        "last_error", "login_role", "login_schema", "mode", "multi", "process_id", "proven", "requests", "sampled", "sampled_every",
        "schema",
        "schema_read", "sequences", "settings", "spoiled", "statements", "tracks", "until_sample", "version",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, capabilities: int, version: str = "", schema: str = "") -> None:
        super().__init__()
        self.client: ClientRelay | None = None
        self.capabilities = capabilities
        self.mode = limits.mode
        self.requests: deque[Request] = deque()
        self.statements = ServerStatements(limits.statements_per_server)
        self.settings: Settings = session_sql.UNKNOWN
        self.defaults = session_sql.UNKNOWN_DEFAULTS
        """What the session has as far as nobody has set anything else."""
        self.schema: str | None = None
        """The current schema; None: the one of the login; "": none is selected."""
        self.login_schema = schema
        self.login_role = session_sql.NO_ROLE
        """What a login gives."""
        self.schema_read = next(MOMENTS)
        """When the session has learnt what the schema's collation is: ALTER DATABASE reaches those that choose it afterwards."""
        self.holds = s.Holdings()
        self._told_pins = 0
        """The `pins` of which the link knows."""
        self._counts_locks = "MariaDB" not in version
        """As far as we know, the server tells this user how many locks the session holds."""
        self.baseline: dict[str, bytes] | None = None
        """Strict mode: the variables that differed from the global ones when no client had had the session."""
        self._leaked: list[str] = []
        self.knowledge: Knowledge = NOTHING_KNOWN
        self._tells_held = True
        """As far as we know, the server tells this user what the session holds."""
        self.asked_about: set[bytes] = set()
        """The texts (`Reading.key`) because of which it was asked, or will be."""
        self.is_clean = True
        """Nothing has been found that these left."""
        self.until_sample = 1
        """Leases until one is looked at, of `sampled_every`."""
        self.sampled_every = 0
        self.sampled: set[bytes] = set()
        """The texts of the lease that is looked at."""
        self._sure: set[bytes] = set()
        """User variables that the text of a statement assigned to, when the server was asked."""
        self._changed = False
        """The server has reported a change, among what it is asked for."""
        self._refusal: FeatureRefused | None = None
        """Why the client has to go, as soon as nothing is outstanding."""
        self.multi: bool | None = bool(capabilities & wire.CLIENT_MULTI_STATEMENTS)
        self.insert_id = 0
        self.sequences: frozenset[bytes] = frozenset()
        """Those of which the client, in this lease, has made a value for certain."""
        self.tracks = True
        """The session's trackers are as we need them (backend.py sets them, as far as there are any)."""
        self.version = version
        self.process_id = 0
        """The session's number at the server, and `address`: which server that is."""
        self.address = ("", 0)
        self.proven: set[bytes] = set()
        self.spoiled = False
        """There is no way back to the session as it was after the login: close the connection."""
        self.last_error = b""
        self._phase = s.DONE
        self._hiding = False
        self._kept: list[bytes] | None = None
        self._shift = 0

    def is_pinned(self) -> bool:
        """True when the session holds state that cannot be replayed, or may hold some."""
        return bool(self.pins or self.holds.unsettled)

    def pin_reasons(self) -> list[str]:
        return [reason for pin, reason in s.PIN_REASONS.items() if self.pins & pin]

    def repin(self, text: bytes = b"") -> None:
        """`holds` has changed, because of the statement `text`."""
        before = self.pins
        self.pins = before & s.PINS_ELSEWHERE | self.holds.pins()
        self.spent = ROLE_STAYS if self.holds.role else ""
        if not before and self.pins and text:
            self.pin_text = sql.masked(text)

    def count_statements(self) -> int:
        return len(self.statements.known)

    def was_reset(self, tracks: bool) -> None:
        """COM_RESET_CONNECTION has run: nothing that a client did is left, but the schema (docs: COM_RESET_CONNECTION).

        `tracks`: the session's trackers have been set again, and the schema of the login has been chosen again. (Else the schema's
        character set is the server's now, and not its own.)
        """
        self.settings = session_sql.UNKNOWN
        if not tracks:
            self.settings = session_sql.after_reset(session_sql.UNKNOWN, self.defaults, self.version)
        if tracks:
            self.schema = None
            self.schema_read = next(MOMENTS)
        self.tracks = tracks or not self.capabilities & wire.CLIENT_SESSION_TRACK
        self.multi = None
        self.insert_id = 0
        self.statements.clear()
        self.in_transaction = False
        self.holds.clear()
        self.pins = 0
        self.pin_text = ""
        if self.client is None:
            # Nobody will be told PINNED.
            self._told_pins = 0
            self.pinned_at = 0.0
        self.dirty = False
        self.baseline = None
        self.asked_about.clear()
        self.is_clean = True
        self._changed = False
        self._refusal = None

    # -------------------------------------------------------------------------------------------------------- what it is asked

    def ask(self, request: Request, payload: bytes) -> bytes:
        """Put `request` into the queue; the bytes are to be sent."""
        self.expect(request)
        return packet(0, payload)

    def expect(self, request: Request) -> None:
        """Put `request`, which somebody else sends, into the queue."""
        requests = self.requests
        requests.append(request)
        if len(requests) == 1:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        self._phase = request.phase
        self._hiding = request.hidden
        self._shift = 0
        self._kept = [] if request.keeps else None

    def _keep(self, data: bytes) -> None:
        kept = self._kept
        if kept is not None:
            kept.append(data)
            if sum(map(len, kept)) > MAX_CAPTURE:
                raise RemoteProtocolError("the answer to a question of ours is far too long")

    # ----------------------------------------------------------------------------------------------------------- what it holds

    def _probe(self, unsettled: int, client: "ClientRelay") -> bool:
        """Ask the server what it knows of what is unsettled. True if something was asked; then the session says no more about the client's
        last statement (`ClientRelay.disturbed`)."""
        holds = self.holds
        holds.unsettled &= s.DOUBT
        asked: list[tuple[int, tuple[bytes, ...], bytes]] = []
        if unsettled & s.PIN_ASK:
            asked += self._doubts()
            unsettled |= holds.unsettled
            # (Which user variables there are has to be known before their values are asked for.)
            holds.unsettled = holds.unsettled & s.DOUBT | (unsettled & s.PIN_USER_VARIABLE if asked else 0)
            unsettled &= ~holds.unsettled
        if unsettled & s.PIN_USER_VARIABLE and holds.assigned and s.UNREAD not in holds.assigned:
            names = tuple(sorted(holds.assigned))
            believed = [name for name in self.settings.values if name[0] == "@"]
            others = {name[1:].encode("utf-8", "surrogateescape") for name in believed}
            if not all(name.isascii() for name in others | holds.assigned):
                # To MySQL, @e and @é are one variable: what has changed one has changed the other.
                names = tuple(sorted(others | holds.assigned))
            asked.append((FOR_USER_VARIABLES, names, session_sql.select_user_variables(names)))
        if unsettled & s.PIN_LOCK and holds.locks:
            names = tuple(sorted(holds.locks - {s.UNREAD, s.UNSEEN}))
            if s.UNSEEN in holds.locks and not self._counts_locks and len(holds.locks) == 1:
                asked.append((FOR_UNSEEN_LOCKS, (), session_sql.RELEASE_ALL_LOCKS))
            elif s.UNREAD in holds.locks or (s.UNSEEN in holds.locks and self._counts_locks):
                asked.append((FOR_UNNAMED_LOCKS, names, session_sql.count_locks(self.version)))
            if names:
                asked.append((FOR_LOCKS, names, session_sql.are_locks_mine(names)))
        if unsettled & s.PIN_TEMPORARY:
            asked += [(FOR_TABLE, (name,), b"SHOW CREATE TABLE " + name) for name in sorted(holds.temporary) if name]
        if unsettled & s.PIN_VARIABLE and "insert_id" in holds.one_shot:
            asked.append((FOR_INSERT_NUMBER, (), b"SELECT @@SESSION.insert_id"))
        for purpose, names, text in asked:
            request = Request(purpose)
            request.subjects = names
            client.to_server += self._ask_created() if purpose == FOR_CREATED else self._ask_ascii(request, text)
        if not asked:
            self.repin()
            return False
        client.disturbed = True
        return True

    def _ask_ascii(self, request: Request, text: bytes) -> bytes:
        """Ask in a text that is read alike in every character set: where it is not in ASCII, that of the session is UTF-8 meanwhile."""
        if text.isascii():
            return self.ask(request, QUERY + text)
        before = self.ask(Request(FOR_STATE), QUERY + session_sql.READ_UTF8)
        packets = before + self.ask(request, QUERY + text)
        return packets + self.ask(Request(FOR_STATE), QUERY + session_sql.read_again(self.settings))

    def _doubts(self) -> list[tuple[int, tuple[bytes, ...], bytes]]:
        """What to ask because of `Holdings.doubt`."""
        holds = self.holds
        doubt, holds.doubt = holds.doubt, 0
        asked: list[tuple[int, tuple[bytes, ...], bytes]] = []
        self._sure = set(holds.assigned)
        if doubt & s.D_HELD:
            asked.append((FOR_CREATED, (), session_sql.count_created(self.version)))
            if self._tells_held:
                asked.append((FOR_HELD, (bytes((doubt,)),), session_sql.select_held(self.version)))
            else:
                self._not_told(doubt)
            if "MariaDB" in self.version:
                # (The end of SET STATEMENT is a change that no OK packet tells until there is another one: it must not be a client's.)
                asked.append((FOR_STATE, (), session_sql.TELL_ALL))
                holds.locks.add(s.UNREAD if doubt & s.D_LOCKS else s.UNSEEN)
                holds.unsettled |= s.PIN_LOCK
        if doubt & s.D_SETTINGS:
            if self.baseline is None:
                self.dirty = True
            else:
                asked.append((FOR_DIFFERING, (), session_sql.select_differing(self.version, self.settings.values)))
        if doubt & s.D_INSERT_ID:
            asked.append((FOR_INSERT_ID, (), b"SELECT LAST_INSERT_ID() LIMIT 1"))
        return asked

    def _not_told(self, doubt: int) -> None:
        """The server does not tell what the session holds: nobody else gets it as it is."""
        self.dirty = True
        self.is_clean = False
        if doubt & s.D_LOCKS:
            self.holds.locks.add(s.UNREAD)
        else:
            self.holds.locks.add(s.UNSEEN)
            self.holds.unsettled |= s.PIN_LOCK
        if self._changed or doubt & (s.D_VARIABLES | s.D_HANDLERS):
            self.pins |= s.PIN_STATE

    def _found_held(self, doubt: int, result: codec.Result) -> None:
        """The answer to FOR_HELD: names of all that there is."""
        holds = self.holds
        rows = [codec.row_values(row)[0] or b"" for row in result.rows]
        mariadb = "MariaDB" in self.version
        if not result.ended or not (mariadb or b"INSTRUMENT YES" in rows):
            self._tells_held = False
            self._not_told(doubt)
            return
        kinds: dict[bytes, set[bytes]] = {}
        for row in rows:
            kind, _, name = row.partition(b":")
            kinds.setdefault(kind, set()).add(name)
        names = {name.lower() for name in kinds.get(b"VARIABLE", set())}
        believed = {name[1:].encode("utf-8", "surrogateescape") for name in self.settings.values if name[0] == "@"}
        if names - believed - self._sure:
            self.is_clean = False
        for name in names | believed:
            holds.add_assigned(name)
        if names or believed:
            holds.unsettled |= s.PIN_USER_VARIABLE
        if mariadb:
            if doubt & s.D_HANDLERS:
                self.pins |= s.PIN_STATE
            return
        self._held_locks(kinds)

    def _held_locks(self, kinds: dict[bytes, set[bytes]]) -> None:
        """Locks and prepared statements, by their kinds."""
        holds = self.holds
        locks = {name if session_sql.LOCK_NAME.match(name) else s.UNREAD for name in kinds.get(b"USER LEVEL LOCK", set())}
        if b"LOCKING SERVICE" in kinds:
            locks.add(s.UNREAD)
        if locks - holds.locks:
            self.is_clean = False
        holds.locks = locks
        prepared = {name.lower() for name in kinds.get(b"PREPARED", set())}
        if prepared - holds.prepared:
            self.is_clean = False
            holds.opaque |= prepared - holds.prepared
        holds.prepared = prepared
        if holds.table_locks:
            return
        tables = bool(kinds.keys() & {b"TABLE", b"SCHEMA", b"TABLESPACE"})
        if b"GLOBAL" in kinds or b"COMMIT" in kinds:
            self.is_clean = False
            holds.table_locks.add(s.FLUSHED)
        elif b"BACKUP LOCK" in kinds:
            self.is_clean = False
            holds.table_locks.add(b"INSTANCE")
        elif not tables:
            holds.handlers.clear()
        elif not holds.handlers:
            self.is_clean = False
            holds.handlers.add(s.UNREAD)

    def _created(self, row: list[bytes | None]) -> None:
        """The answer to FOR_CREATED: has a table been created that no text has told of? It may be a temporary one, and may be there."""
        holds = self.holds
        last = row[-1] if row else None
        told = int(last) if last is not None and last.isdigit() else s.NOT_TOLD
        if holds.created != s.NOT_COUNTED and (told != holds.created or told == s.NOT_TOLD):
            self.is_clean = False
            holds.temporary.add(s.UNREAD)
        holds.created = told

    def count_first(self) -> bytes:
        """Ask how many tables the session has created, before a statement that may create some unseen."""
        asked = self._ask_created()
        return asked + self.ask(Request(FOR_STATE), QUERY + session_sql.TELL_ALL) if "MariaDB" in self.version else asked

    def _ask_created(self) -> bytes:
        before, after = (b"", b"") if "MariaDB" in self.version else session_sql.without_limits(self.settings)
        asked = self.ask(Request(FOR_STATE), QUERY + before) if before else b""
        asked += self.ask(Request(FOR_CREATED), QUERY + session_sql.count_created(self.version))
        return asked + self.ask(Request(FOR_STATE), QUERY + after) if after else asked

    def _differing(self, result: codec.Result, client: "ClientRelay") -> None:
        """The answer to FOR_DIFFERING: what has been set that no tracker has told becomes a setting like any other."""
        if not result.ended:
            self.dirty = True
            return
        found = {(row[0] or b"").decode(): row[1] or b"" for row in map(codec.row_values, result.rows)}
        names = session_sql.unexpected(self.settings, self.baseline or {}, found, self.defaults)
        if session_sql.ROLE in names:
            names.remove(session_sql.ROLE)
            self.is_clean = self.is_clean and self.holds.role
            self.holds.role = True
        if names:
            self.is_clean = False
            self._new_settings({name: found[name] for name in names})
            client.new_settings(self.settings)

    def _settled(self, request: Request, kept: list[bytes], error: bytes, client: "ClientRelay") -> None:
        """The answer to a question of `_probe`. An error means that the server cannot tell, so the pin stays."""
        holds = self.holds
        purpose = request.purpose
        names = request.subjects
        if purpose == FOR_USER_VARIABLES and not error:
            values = session_sql.user_variables(names, codec.parse_result(b"".join(kept), self.capabilities))
            wanted = None if values is None else session_sql.with_user_variables(self.settings, values)
            if values is not None and any(
                self.settings.values.get(name) != value and name[1:].encode("utf-8", "surrogateescape") not in self._sure
                for name, value in values.items()
            ):
                self.is_clean = False
            if wanted is not None:
                holds.assigned.clear()
                self.settings = wanted
                client.new_settings(wanted)
        elif purpose == FOR_HELD:
            self._found_held(names[0][0], codec.parse_result(b"".join(kept), self.capabilities))
        elif purpose == FOR_CREATED:
            self._created(first_row(kept, self.capabilities))
        elif purpose == FOR_DIFFERING:
            self._differing(codec.parse_result(b"".join(kept), self.capabilities), client)
        elif purpose == FOR_UNNAMED_LOCKS:
            count = b"".join(value or b"" for value in first_row(kept, self.capabilities))
            if count == b"0":
                holds.locks.clear()
            elif count:
                holds.locks.discard(s.UNSEEN)
                holds.locks.add(s.UNREAD)
            else:
                self._counts_locks = False
        elif purpose == FOR_UNSEEN_LOCKS:
            holds.locks.discard(s.UNSEEN)
            if first_row(kept, self.capabilities) != [b"0"]:
                self.dirty = True
                self._refusal = FeatureRefused(
                    f"a lock that was taken with GET_LOCK() unseen, as in a procedure, could not be kept: {sql.masked(client.text)}",
                    hint="This server does not tell of it. Take it in a statement of its own, or use a listener in session mode.",
                )
        elif purpose == FOR_LOCKS and not error:
            row = first_row(kept, self.capabilities)
            holds.locks -= {name for name, mine in zip(names, row, strict=False) if mine == b"0"}
        elif purpose == FOR_TABLE:
            row = first_row(kept, self.capabilities)
            if len(row) < 2 or not (row[1] or b"").upper().startswith(b"CREATE TEMPORARY"):
                holds.temporary.discard(names[0])
        elif purpose == FOR_INSERT_NUMBER and first_row(kept, self.capabilities) == [b"0"]:
            holds.one_shot.discard("insert_id")
        if s.UNSEEN in holds.locks and not self._counts_locks and len(holds.locks) == 1:
            holds.unsettled |= s.PIN_LOCK
        self.repin(client.text)

    # ------------------------------------------------------------------------------------------------------------- strict mode

    def look_first(self) -> bytes:
        """Ask what the session has before its first client."""
        return self.ask(Request(FOR_BASELINE), QUERY + session_sql.select_all(self.version))

    def look(self, client: "ClientRelay") -> None:
        """Ask for everything that the session may hold."""
        self.holds.unsettled = 0
        self._leaked = []
        client.disturbed = True
        variables = QUERY + session_sql.select_differing(self.version, self.settings.values)
        client.to_server += self.ask(Request(FOR_VARIABLES), variables)
        client.to_server += self.ask(Request(FOR_ANY_LOCKS), QUERY + session_sql.RELEASE_ALL_LOCKS)
        client.to_server += self.ask(Request(FOR_REST), QUERY + session_sql.select_rest(self.version))

    def _looked(self, request: Request, kept: list[bytes], client: "ClientRelay") -> None:
        """What is there. (What the server does not tell, for want of a right or of a table, is not compared.)"""
        purpose = request.purpose
        result = codec.parse_result(b"".join(kept), self.capabilities)
        rows = [[value or b"" for value in codec.row_values(row)] for row in result.rows]
        if purpose == FOR_BASELINE:
            known = self.settings.values
            self.baseline = {row[0].decode(): row[1] for row in rows if row[0].decode() not in known}
        elif purpose == FOR_VARIABLES and result.ended:
            values = {row[0].decode(): row[1] for row in rows}
            self._leaked += session_sql.unexpected(self.settings, self.baseline or {}, values, self.defaults)
        elif purpose == FOR_ANY_LOCKS and result.ended and rows != [[b"0"]]:
            self._leaked.append("lock of GET_LOCK()")
        elif purpose == FOR_REST:
            if result.ended:
                self._compare_rest({row[0].decode("utf-8", "surrogateescape").replace("VARIABLE:", "@", 1) for row in rows})
            if self._leaked:
                self._leak(client)

    def _compare_rest(self, found: set[str]) -> None:
        believed = {name.lower() for name in self.settings.values if name[0] == "@"}
        # (An empty one has no value for performance_schema, so none is missed.)
        self._leaked += sorted({name.lower() if name[0] == "@" else name for name in found} - believed)

    def _leak(self, client: "ClientRelay") -> None:
        """More is there than was seen to begin. Outside strict mode that is an error in the log, and the texts are in doubt from now on."""
        self.dirty = True
        found = f"the session holds what could not be seen to begin: {', '.join(self._leaked)}"
        last = f"the last statement was: {sql.masked(client.text)}"
        if not client.always & M_STRICT:
            self.leak = f"{found}; {last}"
            accuse(self.sampled, client.texts.lexis)
            shapes.forget()
            return
        self._refusal = StateLeaked(
            f"strict mode: {found}; {last}",
            hint="Do it in a statement of its own, not inside a function; or use a listener in session mode.",
        )

    # -------------------------------------------------------------------------------------------------------- session trackers

    def _track(self, changes: bytes) -> None:
        """What the server says the client's statement has changed in the session."""
        reports: dict[str, bytes] = {}
        changed = known = False
        schema: str | None = None
        for kind, data in codec.parse_changes(changes):
            if kind == wire.TRACK_SYSTEM_VARIABLES:
                reports.update(codec.parse_variables(data))
            elif kind == wire.TRACK_SCHEMA:
                # (Also when a function of another schema is called; then it is the same again.)
                schema = codec.first_string(data).decode("utf-8", "surrogateescape")
            elif kind == wire.TRACK_STATE_CHANGE:
                changed = True
            elif kind == wire.TRACK_TRANSACTION_STATE:
                self._track_tables(codec.first_string(data))
            elif kind == wire.TRACK_TRANSACTION_CHARACTERISTICS:
                pending = codec.first_string(data) != b"" and not self.in_transaction
                self.pins = self.pins | s.PIN_NEXT_TRANSACTION if pending else self.pins & ~s.PIN_NEXT_TRANSACTION
        reports.pop("statement_id", None)  # new in every reply, where '*' is tracked
        if "last_insert_id" in reports and self.client is not None:
            self.client.insert_id = self.insert_id = int(reports.pop("last_insert_id"))
        if reports:
            known = True
            self._new_settings(reports)
        if schema is not None:
            known = True
            self._new_schema(schema)
        if changed and self.client is not None and not self.client.explains(known):
            if not self.pins:
                self.pin_text = sql.masked(self.client.text)
            self.pins |= s.PIN_STATE
            self.dirty = True
        elif changed and self.client is not None and self.client.doubts():
            # It is asked for what is set; a temporary table beside that would be seen by nobody.
            self._changed = self.dirty = True

    def _track_tables(self, state: bytes) -> None:
        """The state of the transaction ends in an L while LOCK TABLES holds (session_track_transaction_info)."""
        locks = self.holds.table_locks
        if (s.UNREAD in locks) != state.endswith(b"L"):
            (locks.add if state.endswith(b"L") else locks.discard)(s.UNREAD)
            self.repin(self.client.text if self.client is not None else b"")

    def _new_schema(self, schema: str) -> None:
        self.schema = schema
        if schema and schema == self.login_schema:
            self.schema = None
        self.schema_read = next(MOMENTS)
        self.settings = session_sql.of_schema(self.settings)
        if self.client is not None:
            self.client.new_schema(self.schema, self.schema_read)
            self.client.new_settings(self.settings)

    def _new_settings(self, reports: dict[str, bytes]) -> None:
        for name in reports.keys() & session_sql.PINNING:
            if session_sql.is_over(name, reports[name]):
                self.holds.one_shot.discard(name)
            else:
                self.holds.one_shot.add(name)
                self.holds.unsettled |= s.PIN_VARIABLE if name == "insert_id" else 0
        if reports.keys() & session_sql.PINNING:
            self.dirty = self.dirty or "profiling" in reports
            self.repin(self.client.text if self.client is not None else b"")
        if reports.keys() & session_sql.TRACKERS:
            self.tracks = False
        client = self.client
        self.settings = session_sql.with_reports(self.settings, reports)
        if client is not None:
            client.new_settings(self.settings)
            client.suspect(reports)


def refusal(pins: int) -> str:
    """What a client is told whose statement would pin its server connection, where `pin` is "error"."""
    reasons = ", ".join(reason for pin, reason in s.PIN_REASONS.items() if pins & pin)
    return f"This would keep a server connection for this session alone ({reasons}), and pin = error. Use a listener in session mode."
