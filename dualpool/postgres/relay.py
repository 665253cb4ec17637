"""The hot path of PostgreSQL: what a client's messages ask of a server connection, and what the server's messages answer.

Theory. A server connection answers in the order in which it was asked. So the server relay keeps one queue, `pending`, of the answers that
something depends on: every ReadyForQuery to come (one per Query, FunctionCall and Sync), and every ParseComplete and CloseComplete. Whatever
a client need not know of (a Parse that we add, a SET that brings the session to its settings) is asked like everything else and marked
hidden in the queue. Whatever a client asks and the server need not do (a Parse of a known statement) is replaced by a message that does
nothing and is answered in turn, and its answer is translated. So nothing is ever answered out of order, and the server's rule for errors
(everything up to the next Sync is discarded) holds for our additions as it does for the client's messages.

Source: PostgreSQL docs, chapter "Frontend/Backend Protocol".
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from dualpool import protocol
from dualpool.buffer import HeldBytes
from dualpool.errors import FeatureRefused, RemoteProtocolError, ServerLost
from dualpool.postgres import messages, sql, wire
from dualpool.postgres.codec import check_length, skip_rows
from dualpool.postgres.statements import (
    NEVER_PREPARED,
    SERVER_PREFIX,
    STAND_IN_CLOSE,
    ClientStatements,
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
    S_EMPTY,
    S_ERROR,
    S_ILLEGAL,
    S_PARAMETER,
    S_PARSED,
    S_PASS,
    S_READY,
    SERVER_ACTION,
)
from dualpool.postgres.wire import HEADER
from dualpool.protocol import BROKEN, CLOSE, FORWARD, NEEDS_SERVER, RELEASE, SESSION, STATEMENT, RelayLimits
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
CLOSING: Final = 5
EMPTY_FOR_DEALLOCATE: Final = 6

READY_MARKS: Final = frozenset((SYNC, CALL, HIDDEN_QUERY))

SMALL_MESSAGE: Final = 1 << 16
"""Execute, Describe, Close, Sync and Flush are never longer than this; PostgreSQL has a similar limit (PQ_SMALL_MESSAGE_LIMIT)."""
MAX_ANSWER: Final = 1 << 24
"""An error, notice or parameter of the server may be this long."""

READ_ONLY_SETTINGS: Final = frozenset(
    ("server_version", "server_encoding", "integer_datetimes", "is_superuser", "in_hot_standby", "session_authorization")
)
DEALLOCATED: Final = wire.message(wire.COMMAND_COMPLETE, b"DEALLOCATE\0")
EMPTY_QUERY: Final = wire.query(b"")
READY_IDLE: Final = wire.ready(wire.IDLE)
CACHED_PLAN: Final = b"cached plan must not change result type"

# Command tags that change what a later client would find. Everything else is passed on after one look-up.
T_SET: Final = 1
T_DISCARD_ALL: Final = 2
T_DEALLOCATE_ALL: Final = 3
T_COMMIT: Final = 4
T_ROLLBACK: Final = 5
T_SAVEPOINT: Final = 6
TAGS: Final = {
    b"SET": T_SET,
    b"RESET": T_SET,
    b"DISCARD ALL": T_DISCARD_ALL,
    b"DEALLOCATE ALL": T_DEALLOCATE_ALL,
    b"COMMIT": T_COMMIT,
    b"PREPARE TRANSACTION": T_COMMIT,
    b"ROLLBACK": T_ROLLBACK,
    b"SAVEPOINT": T_SAVEPOINT,
}


def render_difference(gone: list[str], wanted: dict[str, str]) -> bytes:
    """One simple Query. Roles first when they go and last when they come: the other settings may need their rights."""
    resets = [f"RESET {quoted_name(name)}" for name in sorted(gone, key=lambda name: name not in ROLES)]
    sets = [wanted[name] for name in sorted(wanted, key=lambda name: name in ROLES)]
    return wire.query("; ".join(resets + sets).encode("latin-1", "replace"))


ROLES: Final = ("role", "session_authorization")


def quoted_name(name: str) -> str:
    """A setting's name for RESET; `a.b` is two identifiers."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


DIFFERENCES: Final = Differences(render_difference)


class PreparedStep:
    """A Parse under way for a shared statement. If the server skips or refuses it, it is not prepared after all."""

    __slots__ = ("client", "name", "statement")

    def __init__(self, statement: Statement, client: "ClientRelay | None", name: bytes) -> None:
        self.statement = statement
        self.client = client
        """Set when the client itself sent the Parse, as `name`: then its answer is the client's."""
        self.name = name


class StandInStep:
    """A do-nothing Close that takes the place of a client's Parse; its CloseComplete is turned into ParseComplete."""

    __slots__ = ("client", "name")

    def __init__(self, client: "ClientRelay", name: bytes) -> None:
        self.client = client
        self.name = name


class ClosedStep:
    """A client's Close of a statement (a do-nothing Close on the server). If the server skips it, the client still has it."""

    __slots__ = ("client", "name", "statement")

    def __init__(self, client: "ClientRelay", name: bytes, statement: Statement) -> None:
        self.client = client
        self.name = name
        self.statement = statement


class EvictStep:
    """A Close of ours that makes room. If the server skips it, the statement is still there."""

    __slots__ = ("statement",)

    def __init__(self, statement: Statement) -> None:
        self.statement = statement


class TellingStep:
    """An Execute of a statement whose text matters when its tag comes."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


class ServerRelay(protocol.ServerRelay):
    """See the module. `mode` is the lease's, set by the client that attaches."""

    __slots__ = (
        "_hiding", "_in_error", "_rest", "_skip", "_skip_hidden", "_texts_seen", "baseline", "changes", "changes_in_transaction", "client",
        "copying_in", "last_error", "mode", "pending", "reported", "savepoints", "segment", "segment_statement", "session_changed",
        "settings", "statements", "suspect", "unfinished", "unnamed", "unsynced",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, reported: dict[str, str]) -> None:
        super().__init__()
        self.client: ClientRelay | None = None
        self.mode = limits.mode
        self.pending: deque[object] = deque()
        self.statements = ServerStatements(limits.statements_per_server)
        self.unnamed: bytes | None = None
        """The Parse message of the unnamed statement that the session has now."""
        self.unsynced = False
        """Extended-query messages were sent and no Sync after them."""
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

    # -------------------------------------------------------------------------------------------------------- for the exchanges

    def answered(self) -> bool:
        """True when no answer is outstanding."""
        return not self.pending and not self._rest.size and not self._skip

    def is_quiet(self) -> bool:
        return not (self.pending or self.in_transaction or self.unsynced or self.unfinished or self.suspect or self.pins or self._rest.size)

    def is_lost(self) -> bool:
        return self.suspect or self.unfinished

    def needs_sync(self) -> bool:
        """True when extended-query messages still lack their Sync."""
        return self.unsynced

    def sync_sent(self) -> None:
        """An exchange sends the missing Sync."""
        self.unsynced = False
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
        self.pins = 0
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
                if action == S_PASS:
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
                ready = True
                self._ready(data[position + 5])
            elif action == S_COMPLETE:
                self.copying_in = False
                if not hidden:
                    tag = TAGS.get(data[position + 5 : following - 1])
                    if tag is not None:
                        self._tagged(tag)
            elif action == S_PARSED:
                hidden = self._parsed() or hidden
            elif action == S_CLOSED:
                hidden, instead = self._closed()
            elif action == S_ERROR:
                payload = data[position + 5 : following]
                if b"\0VFATAL\0" in payload or b"\0VPANIC\0" in payload:
                    verdict |= BROKEN
                if hidden:
                    self.last_error = payload
                    if self.client is not None:
                        raise settings_refused(payload)
                elif self.segment and self._heals(payload, position == 0):
                    hidden = True
                else:
                    instead = self._renamed(payload)
                    hidden = bool(instead)
                self._after_error()
            elif action == S_PARAMETER:
                self._report(data[position + 5 : following - 1])
            elif action == S_EMPTY:
                if self.pending and self.pending[0] == EMPTY_FOR_DEALLOCATE:
                    self.pending.popleft()
                    hidden, instead = True, DEALLOCATED
            elif action == S_COPY_IN:
                self.copying_in = True
            elif action == S_ILLEGAL:
                raise RemoteProtocolError(f"a message of kind {chr(kind)!r} after the login")
            if hidden and action != S_ASYNC:
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
        self.segment = b""
        if ready and RELEASING[self.mode][wire.IDLE] and self.is_quiet():
            verdict |= RELEASE
        return verdict

    def _ready(self, status: int) -> None:
        """ReadyForQuery: the oldest Query or Sync is answered in full."""
        pending = self.pending
        while True:
            if not pending:
                raise RemoteProtocolError("ReadyForQuery without a query")
            mark = pending.popleft()
            if type(mark) is bytes or mark in READY_MARKS:
                break
        self.in_transaction = status != wire.IDLE
        self.copying_in = False
        self._hiding = bool(pending) and pending[0] == HIDDEN_QUERY
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

    def _report(self, payload: bytes) -> None:
        """ParameterStatus."""
        raw_name, _, raw_value = payload.partition(b"\0")
        name, value = raw_name.decode("utf-8", "replace"), raw_value.decode("utf-8", "replace")
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
        if isinstance(step, PreparedStep):
            return step.client is None
        raise RemoteProtocolError("ParseComplete without a Parse")

    def _closed(self) -> tuple[bool, bytes]:
        """CloseComplete. Whether to hide it, and what the client gets instead."""
        step = self.pending.popleft() if self.pending else None
        if step == CLOSING or isinstance(step, ClosedStep):
            return False, b""
        if isinstance(step, StandInStep):
            return True, wire.PARSE_COMPLETE_MESSAGE
        if isinstance(step, EvictStep):
            return True, b""
        raise RemoteProtocolError("CloseComplete without a Close")

    def _after_error(self) -> None:
        """After an error the server discards everything up to Sync (docs: Extended Query): undo what will not happen."""
        if self.copying_in and self.pending and type(self.pending[0]) is not bytes and len(self.pending) > 1:
            # Was a Sync that was sent before the copy began read during the copy (and ignored) or after the error? Nobody can tell.
            self.suspect = True
        self.copying_in = False
        self._in_error = True
        pending = self.pending
        while pending and not (type(pending[0]) is bytes or pending[0] in READY_MARKS):
            self._undo(pending.popleft())

    def _undo(self, step: object) -> None:
        if isinstance(step, PreparedStep):
            self.statements.known.pop(step.statement, None)
            if step.client is not None:
                step.client.statements.remove(step.name)
        elif isinstance(step, StandInStep):
            step.client.statements.remove(step.name)
        elif isinstance(step, ClosedStep):
            step.client.statements.names.setdefault(step.name, step.statement)
        elif isinstance(step, EvictStep):
            self.statements.known[step.statement] = None
        elif step == PARSE:
            self.unnamed = None
            if self.client is not None:
                self.client.unnamed = None

    def _renamed(self, payload: bytes) -> bytes:
        """An error that names one of our statements, with the client's own name for it; b"" when it names none."""
        if SERVER_PREFIX not in payload or self.client is None:
            return b""
        for name, statement in self.client.statements.names.items():
            payload = payload.replace(b'"' + statement.name + b'"', b'"' + name + b'"')
        return wire.message(wire.ERROR_RESPONSE, payload)

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
        self.pending.extend((HIDDEN_QUERY, EvictStep(statement), PreparedStep(statement, None, b""), SYNC))
        self._hiding = True
        close = wire.message(wire.CLOSE, b"S" + statement.name + b"\0")
        self.to_server += close + statement.parse + segment
        return True

    def _tagged(self, tag: int) -> None:
        """A command that matters has run."""
        if tag == T_COMMIT:
            self.changes += self.changes_in_transaction
            self.changes_in_transaction = []
            self.savepoints = []
            self._in_error = False
            self._text()
            return
        statement = self._text()
        if tag == T_ROLLBACK:
            self._rolled_back(statement)
        elif tag == T_SAVEPOINT:
            if statement:
                self.savepoints.append((sql.savepoint_name(statement), len(self.changes_in_transaction)))
        elif tag == T_SET:
            if statement:
                self.changes_in_transaction += sql.changes(statement)
                self.session_changed = True
        elif tag == T_DEALLOCATE_ALL:
            self._deallocated_all()
        else:
            self._deallocated_all()
            self.changes_in_transaction.append(("*", None))
            self.session_changed = True
            self.pins = 0

    def _rolled_back(self, statement: list[bytes]) -> None:
        """ROLLBACK, or ROLLBACK TO a savepoint, which keeps what was set before it."""
        self._in_error = False
        if not sql.is_rollback_to(statement):
            self.changes_in_transaction = []
            self.savepoints = []
            return
        name = sql.savepoint_name(statement)
        for index in range(len(self.savepoints) - 1, -1, -1):
            if self.savepoints[index][0] == name:
                del self.changes_in_transaction[self.savepoints[index][1] :]
                del self.savepoints[index + 1 :]
                return

    def _text(self) -> list[bytes]:
        """The tokens of the statement whose tag has come: the next telling one of a simple Query, or the oldest telling Execute."""
        head = self.pending[0] if self.pending else None
        if isinstance(head, TellingStep):
            self.pending.popleft()
            return sql.tokens(head.text)
        if isinstance(head, bytes):
            telling = [s for s in sql.statements(head[5:-1]) if s[0].lower() in sql.TELLING_WORDS or s[0].lower() in ENDING_WORDS]
            self._texts_seen += 1
            if self._texts_seen <= len(telling):
                return telling[self._texts_seen - 1]
        return []

    def _deallocated_all(self) -> None:
        """The session's prepared statements are gone; for the client they were all it had, for us they are prepared again on demand."""
        self.statements.known.clear()
        self.unnamed = None
        if self.client is not None:
            self.client.statements.clear()
            self.client.unnamed = None

    def _forget_changes(self) -> None:
        self.session_changed = False
        self.changes = []
        self.changes_in_transaction = []
        self.savepoints = []


ENDING_WORDS: Final = frozenset((b"commit", b"end", b"prepare"))


class ClientRelay(protocol.ClientRelay):
    """See the module. Without a lease, bytes wait in `_held`."""

    __slots__ = (
        "_discarding", "_held", "_portals", "_skip", "base", "limits", "server", "settings", "statements", "unnamed",
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
        self._held = HeldBytes()
        self._skip = 0
        self._discarding = False
        self._portals: dict[bytes, Statement | bytes] = {}

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
                if not data:
                    self.to_server += part
                    return FORWARD
                verdict = self._process(data, server)
                self.to_server = part + self.to_server
                return verdict
        if not data:
            return FORWARD
        if server is not None:
            return self._process(data, server)
        return self._unattached(data)

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
        if self.limits.mode == SESSION:
            server.dirty = True
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
            # What is still to come (a rollback above all) may change settings behind our back.
            server.dirty = True
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
                if self._may_begin(kind, length, end - position):
                    break
                self._held.keep(data[position:], length + 1)
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

    def _may_begin(self, kind: int, length: int, have: int) -> bool:
        """Part of a long message is there: is it enough to pass it on as it comes?"""
        if length <= self.limits.frame_bytes:
            return False
        if kind == wire.PARSE:
            return length > self.limits.statement_bytes and have > SMALL_MESSAGE
        return have > SMALL_MESSAGE

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
        binds = 0
        while end - position >= 5:
            kind, length = _unpack(data, position)
            following = position + length + 1
            if following > end or length < 4:
                check_length(length)
                if CLIENT_ACTION[kind] == C_COPY_DATA or self._may_begin(kind, length, end - position):
                    whole = False
                else:
                    break
            else:
                whole = True
            action = CLIENT_ACTION[kind]
            instead: bytes | None = None
            if action == C_QUERY:
                if server.unsynced:
                    raise RemoteProtocolError("a simple Query in the middle of an extended one", hint="Send Sync before it.")
                self.unnamed = None
                server.unnamed = None
                frame = data if start == 0 and position == 0 and following == end else data[position:following]
                pending.append(frame)
                server.segment_statement = None
                if rewrites and data[position + 5] in MAYBE_DEALLOCATE:
                    instead = self._query_instead(frame, server)
            elif action == C_BIND:
                server.unsynced = True
                binds += 1
                if rewrites:
                    instead = self._bind(data, position, following if whole else end, length, server)
            elif action == C_EXECUTE:
                server.unsynced = True
                if self._portals:
                    self._executed(data, position, server)
            elif action == C_SYNC:
                server.unsynced = False
                pending.append(SYNC)
            elif action == C_PARSE:
                server.unsynced = True
                instead = self._parse(data, position, following, whole, server, rewrites)
            elif action == C_NAMED:
                server.unsynced = True
                instead = self._named(data, position, following, kind, server, rewrites)
            elif action == C_FLUSH:
                pass
            elif action == C_COPY_DATA:
                if not server.copying_in:
                    instead = b""
            elif action == C_COPY_END:
                instead = self._copy_ended(server)
            elif action == C_CALL:
                pending.append(CALL)
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
            if length > SMALL_MESSAGE and action in {C_NAMED, C_EXECUTE, C_SYNC, C_FLUSH}:
                raise RemoteProtocolError(f"a message of kind {chr(kind)!r} and {length} bytes")
            position = following
        if position < end:
            tail = data[position:end]
            self._held.keep(tail, 1 + _unpack(tail, 0)[1] if len(tail) >= 5 else 5)
        if out is None:
            self.to_server = data if position == len(data) else data[:position]
        else:
            if start < position:
                out.append(data[start:position])
            self.to_server = b"".join(out)
        if binds:
            self._remember_segment(server, binds)
        return verdict

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

    def _query_instead(self, frame: bytes, server: ServerRelay) -> bytes | None:
        """DEALLOCATE of a statement that the client prepared by protocol: an empty query takes its place."""
        name = sql.deallocated_name(frame[5:-1])
        if name is None or name not in self.statements.names:
            return None
        self.statements.remove(name)
        mark = server.pending.pop()
        server.pending.extend((EMPTY_FOR_DEALLOCATE, mark))
        return EMPTY_QUERY

    def _parse(self, data: bytes, position: int, following: int, whole: bool, server: ServerRelay, rewrites: bool) -> bytes | None:
        name_end = data.find(0, position + 5)
        named = name_end != position + 5
        if name_end < 0 or (named and not whole):
            raise RemoteProtocolError(
                "the text of a prepared statement is too long", hint="Raise limits.statement_bytes.", sqlstate="54000"
            )
        if not (named and rewrites):
            return self._parse_unnamed(data, position, following, whole, named, server)
        name = data[position + 5 : name_end]
        statement = shared(data[name_end + 1 : following])
        if name in self.statements.names:
            # As on a direct connection: 42P05. The server says so of a name that it knows.
            instead = self._ensure(self.statements.names[name], server)
            server.pending.append(PARSE)
            return instead + wire.message(wire.PARSE, self.statements.names[name].name + b"\0" + statement.key)
        self.statements.add(name, statement)
        if statement in server.statements.known:
            server.statements.known.move_to_end(statement)
            server.pending.append(StandInStep(self, name))
            return STAND_IN_CLOSE
        evicting = self._make_room(statement, server)
        server.pending.append(PreparedStep(statement, self, name))
        return evicting + statement.parse

    def _parse_unnamed(self, data: bytes, position: int, following: int, whole: bool, named: bool, server: ServerRelay) -> bytes | None:
        server.pending.append(PARSE)
        if named:
            return None
        if not whole:
            self.unnamed = server.unnamed = None
            return None
        frame = data[position:following]
        self.unnamed = frame if len(frame) <= self.limits.statement_bytes else None
        server.unnamed = frame
        return self._empty_if_deallocating(frame[6:])

    def _empty_if_deallocating(self, key: bytes) -> bytes | None:
        """An unnamed Parse of DEALLOCATE name: prepare an empty statement in its place; `_bind` knows it by its text."""
        if key[0] not in MAYBE_DEALLOCATE:
            return None
        name = sql.deallocated_name(key[: key.index(0)])
        if name is None or name not in self.statements.names:
            return None
        return wire.message(wire.PARSE, b"\0\0\0\0")

    def _bind(self, data: bytes, position: int, end: int, length: int, server: ServerRelay) -> bytes | None:
        portal_end = data.find(0, position + 5, end)
        name_end = data.find(0, portal_end + 1, end)
        if portal_end < 0 or name_end < 0:
            raise RemoteProtocolError("Bind without the names of a portal and a statement")
        if name_end == portal_end + 1:
            return self._bind_unnamed(data, position, portal_end, server)
        name = data[portal_end + 1 : name_end]
        statement = self.statements.names.get(name)
        if statement is None:
            server.segment_statement = None
            if not name.startswith(SERVER_PREFIX):
                return None  # the server says that it does not exist
            own, prefix = NEVER_PREPARED, b""
        else:
            own, prefix = statement.name, self._ensure(statement, server)
            server.segment_statement = statement
            if statement.telling or self._portals:
                self._portals[data[position + 5 : portal_end]] = statement
        head = HEADER.pack(wire.BIND, length + len(own) - len(name))
        return b"".join((prefix, head, data[position + 5 : portal_end + 1], own, data[name_end:end]))

    def _bind_unnamed(self, data: bytes, position: int, portal_end: int, server: ServerRelay) -> bytes | None:
        """Bind of the unnamed statement: it must be this client's own."""
        server.segment_statement = None
        unnamed = self.unnamed
        prefix: bytes | None = None
        if unnamed is None:
            if server.unnamed is not None:
                # Another client's unnamed statement is there; on a direct connection there would be none.
                server.unnamed = None
                server.pending.append(EvictStep(NO_STATEMENT))
                prefix = wire.message(wire.CLOSE, b"S\0")
        elif server.unnamed is not unnamed:
            server.unnamed = unnamed
            server.pending.append(PreparedStep(NO_STATEMENT, None, b""))
            prefix = unnamed
        if unnamed is not None and (self._portals or sql.first_word(unnamed[6:]) in sql.TELLING_WORDS):
            self._portals[data[position + 5 : portal_end]] = unnamed[6 : unnamed.index(0, 6)]
        if prefix is None:
            return None
        length = _unpack(data, position)[1]
        return prefix + data[position : position + length + 1]

    def _executed(self, data: bytes, position: int, server: ServerRelay) -> None:
        """Execute of a portal whose statement may be a telling one."""
        bound = self._portals.get(data[position + 5 : data.index(0, position + 5)])
        if bound is None:
            return
        text = bound if isinstance(bound, bytes) else bound.text()
        if sql.first_word(text) not in sql.TELLING_WORDS:
            return
        name = sql.deallocated_name(text)
        if name is not None and name in self.statements.names:
            self.statements.remove(name)
            server.pending.append(EMPTY_FOR_DEALLOCATE)
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
            return self._describe_unnamed(data[position:following], server)
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
        return self._ensure(statement, server) + wire.message(wire.DESCRIBE, b"S" + statement.name + b"\0")

    def _describe_unnamed(self, frame: bytes, server: ServerRelay) -> bytes | None:
        if self.unnamed is None:
            if server.unnamed is None:
                return None
            server.unnamed = None
            server.pending.append(EvictStep(NO_STATEMENT))
            return wire.message(wire.CLOSE, b"S\0") + frame
        if server.unnamed is self.unnamed:
            return None
        server.unnamed = self.unnamed
        server.pending.append(PreparedStep(NO_STATEMENT, None, b""))
        return self.unnamed + frame

    def _ensure(self, statement: Statement, server: ServerRelay) -> bytes:
        """What must be sent first so that `statement` is prepared on this server connection; b"" if it is."""
        known = server.statements.known
        if statement in known:
            known.move_to_end(statement)
            return b""
        evicting = self._make_room(statement, server)
        server.pending.append(PreparedStep(statement, None, b""))
        return evicting + statement.parse

    def _make_room(self, statement: Statement, server: ServerRelay) -> bytes:
        evicted = server.statements.add(statement)
        if evicted is None:
            return b""
        server.pending.append(EvictStep(evicted))
        return wire.message(wire.CLOSE, b"S" + evicted.name + b"\0")

    def _copy_ended(self, server: ServerRelay) -> bytes | None:
        """CopyDone or CopyFail. Syncs that were sent before the copy began were read during it and ignored (docs: COPY Operations)."""
        if not server.copying_in:
            return b""
        pending = server.pending
        if pending and type(pending[0]) is not bytes:
            kept = [step for step in pending if step != SYNC]
            if len(kept) != len(pending):
                pending.clear()
                pending.extend(kept)
                server.unsynced = True
        return None

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


def settings_refused(payload: bytes) -> ServerLost:
    """The server has refused a client's settings (a role that was dropped?), so it still has those of the client before."""
    report = messages.parse_report(payload)
    return ServerLost(f"the settings of the session could not be brought back: {report.get('M', '')}", sqlstate=report.get("C"))


def illegal_message(kind: int) -> RemoteProtocolError:
    """A client sent what no logged-in client sends."""
    return RemoteProtocolError(f"invalid frontend message type {kind}")


UNTIL_ATTACHED: Final = 1 << 62
"""`HeldBytes.need` of a client that waits for a server connection: whatever it sends is put behind."""
STATEMENT_KIND: Final = ord("S")
MAYBE_DEALLOCATE: Final = frozenset(b"dD \t\r\n/-")
NO_STATEMENT: Final = Statement(b"\0\0\0", 0)
"""Stands for the unnamed statement in steps that would otherwise name one."""
