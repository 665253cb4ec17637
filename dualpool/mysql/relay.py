"""The hot path of MySQL: what a client's commands ask of a server connection, and what the server's packets answer.

Theory. A client sends one command and waits for its answer; so a client needs a server connection for one command, or for as long as the
server says that a transaction is open (SERVER_STATUS_IN_TRANS), or while something is pinned. The server relay keeps one queue,
`requests`, of what it was asked: the client's command, and what we ask on our own account, before it (settings, schema, a prepared
statement: *sync*) or behind it (warnings, and what else would be gone with the server connection: *captures*). Our own are whole commands,
so the packets of a client's command are numbered as on a direct connection; they are renumbered only where one side has EOF packets and
the other has not (CLIENT_DEPRECATE_EOF).

A command never runs in a session that is not as it should be: a SET goes out together with the command only when the same SET has
succeeded on this connection before, else its answer is awaited first. So is the answer to a change of schema, always.

Sources: MySQL Source Code Documentation, "Command Phase"; MySQL Reference Manual, "Server Tracking of Client Session State".
"""

from collections import deque
from typing import Final

from dualpool import protocol
from dualpool.buffer import HeldBytes
from dualpool.errors import DualpoolError, FeatureRefused, RemoteProtocolError
from dualpool.mysql import codec, sql, wire
from dualpool.mysql import states as s
from dualpool.mysql.codec import Ok, after_definitions, build_ok, parse_ok, skip_rows, skip_rows_shifting
from dualpool.mysql.messages import error_message, error_payload
from dualpool.mysql.statements import (
    ClientStatement,
    ClientStatements,
    Key,
    ServerStatement,
    ServerStatements,
    bound_types,
    close_packet,
    long_data_packets,
    types_flag,
)
from dualpool.mysql.wire import INT16, INT32, MAX_PAYLOAD, get_lenenc, packet, put_lenenc
from dualpool.protocol import (
    BROKEN,
    CANCEL,
    CLOSE,
    FORWARD,
    NEEDS_SERVER,
    PIN_ERROR,
    PINNED,
    REACCEPT,
    RELEASE,
    SESSION,
    STATEMENT,
    RelayLimits,
)
from dualpool.state import Settings

MAX_ANSWER: Final = 1 << 24
"""A packet that must be read whole may be this long."""
MAX_COLUMNS: Final = 65_535
MAX_PROVEN: Final = 256
MAX_CAPTURE: Final = 1 << 20
"""Bytes of warnings that are kept for a client. A server keeps 1,024 of them at most (max_error_count)."""

# Why the server was asked something.
FOR_CLIENT: Final = 0
FOR_SETTINGS: Final = 1
FOR_SCHEMA: Final = 2
FOR_STATEMENT: Final = 3
FOR_EXCHANGE: Final = 4
FOR_WARNINGS: Final = 5
FOR_FOUND_ROWS: Final = 6
FOR_INSERT_ID: Final = 7
FOR_VALUES: Final = 8
# Is it so? What is asked of the server before a lease goes on because of it (states.Holdings.unsettled).
FOR_USER_VARIABLES: Final = 9
FOR_LOCKS: Final = 10
FOR_UNNAMED_LOCKS: Final = 11
FOR_TABLE: Final = 12
FOR_INSERT_NUMBER: Final = 13

# What must be asked of the server before it may go (`ClientRelay.captures`).
CAPTURE_WARNINGS: Final = 1
CAPTURE_FOUND_ROWS: Final = 2
CAPTURE_INSERT_ID: Final = 4
CAPTURE_VALUES: Final = 8
CAPTURE_STATUS: Final = 16
"""An ERR packet has no status flags: whether a transaction is open now must be asked."""
CAPTURE_AT_ONCE: Final = CAPTURE_VALUES | CAPTURE_STATUS
CAPTURE_OF_SESSION: Final = CAPTURE_VALUES | CAPTURE_INSERT_ID
OF_ONE_STATEMENT: Final = CAPTURE_WARNINGS | CAPTURE_FOUND_ROWS | CAPTURE_STATUS

# What a client is doing.
IDLE: Final = 0
WAITING: Final = 1
SYNCING: Final = 2
BUSY: Final = 3
SENDING_FILE: Final = 4
KILLING: Final = 5

# Errors that we answer ourselves: MySQL Server Error Reference.
UNKNOWN_COMMAND: Final = 1047
UNKNOWN_THREAD: Final = 1094
TOO_LARGE: Final = 1153
OUT_OF_ORDER: Final = 1156
WRONG_ARGUMENTS: Final = 1210
NOT_SUPPORTED: Final = 1235
UNKNOWN_STATEMENT: Final = 1243
UNSUPPORTED_PREPARED: Final = 1295
NO_OPEN_CURSOR: Final = 1421
NEEDS_REPREPARE: Final = 1615
MALFORMED: Final = 1835
LOCAL_FILES_DISABLED: Final = 3948

HEALED: Final = frozenset((UNKNOWN_STATEMENT, NEEDS_REPREPARE))
PING: Final = packet(0, bytes((wire.COM_PING,)))


class Request:
    """Something that the server was asked. `phase`: how its answer begins; `hidden`: the answer is not the client's."""

    __slots__ = ("hidden", "key", "names", "phase", "purpose", "subjects", "text")

    def __init__(self, purpose: int, phase: int = s.HEAD, text: bytes = b"", key: Key | None = None) -> None:
        self.purpose = purpose
        self.phase = phase
        self.hidden = purpose != FOR_CLIENT
        self.text = text
        """FOR_SETTINGS: what is proven when it succeeds."""
        self.key = key
        """FOR_STATEMENT, and a client's COM_STMT_PREPARE."""
        self.names: tuple[str, ...] = ()
        """FOR_VALUES: of which variables."""
        self.subjects: tuple[bytes, ...] = ()
        """What a question of `_probe` is about."""

    def __repr__(self) -> str:
        return f"<Request for {self.purpose}, phase {self.phase}>"


CLIENT_REQUEST: Final = Request(FOR_CLIENT)
FETCH_REQUEST: Final = Request(FOR_CLIENT, s.ROWS)
FIELDS_REQUEST: Final = Request(FOR_CLIENT, s.FIELDS)
TEXT_REQUEST: Final = Request(FOR_CLIENT, s.TEXT)
EXCHANGE_REQUEST: Final = Request(FOR_EXCHANGE)
OPTION_REQUEST: Final = Request(FOR_SETTINGS)
PROBES: Final = frozenset((FOR_USER_VARIABLES, FOR_LOCKS, FOR_UNNAMED_LOCKS, FOR_TABLE, FOR_INSERT_NUMBER))
KEPT: Final = PROBES | {FOR_WARNINGS, FOR_FOUND_ROWS, FOR_INSERT_ID, FOR_VALUES}
"""Purposes for which the answer itself is wanted."""
PASSED_ON: Final = {s.C_FETCH: FETCH_REQUEST, s.C_FIELD_LIST: FIELDS_REQUEST, s.C_STATISTICS: TEXT_REQUEST}

# How a client's dialect differs from its server connection's.
ADD_EOF: Final = 1
DROP_EOF: Final = 2
OK_DIFFERS: Final = 4
ROWS_DIFFER: Final = 8
"""CLIENT_FOUND_ROWS: an UPDATE's number of rows is of those found, or of those changed."""
ROWS_MATCHED: Final = b"Rows matched: "


class ServerRelay(protocol.ServerRelay):
    """See the module. `settings`, `schema`, `multi` and `insert_id` are what the session has now."""

    __slots__ = (
        "_chunk", "_continued", "_file_refused", "_held", "_hiding", "_kept", "_left", "_met", "_more", "_out", "_phase",
        "_result_columns", "_shift", "_skip", "_start", "_status", "_told", "capabilities", "client", "copying_in", "dialect",
        "file_sequence", "holds", "insert_id", "last_error", "login_schema", "mode", "multi", "proven", "requests", "schema",
        "settings", "spoiled", "statements", "tracks", "unfinished", "version",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, capabilities: int, version: str = "", schema: str = "") -> None:
        super().__init__()
        self.client: ClientRelay | None = None
        self.capabilities = capabilities
        self.mode = limits.mode
        self.requests: deque[Request] = deque()
        self.statements = ServerStatements(limits.statements_per_server)
        self.settings: Settings = sql.UNKNOWN
        self.schema: str | None = None
        """The current schema; None: the one of the login; "": none is selected."""
        self.login_schema = schema
        self.holds = s.Holdings()
        self._told = 0
        """The `pins` of which the link knows."""
        self.multi: bool | None = bool(capabilities & wire.CLIENT_MULTI_STATEMENTS)
        self.insert_id = 0
        self.tracks = True
        """The session's trackers are as we need them (backend.py sets them, as far as there are any)."""
        self.version = version
        self.proven: set[bytes] = set()
        self.copying_in = False
        """The server waits for a local file; `end_file()` makes the packet that ends it."""
        self.file_sequence = 0
        """The number of the last packet about the file, from either side."""
        self.unfinished = False
        """A command has been sent in part; if the rest never comes, the connection is lost."""
        self.spoiled = False
        """There is no way back to the session as it was after the login: close the connection."""
        self.last_error = b""
        self.dialect = 0
        self._met = capabilities
        """The capabilities of the client whose `dialect` it is."""
        self._phase = s.DONE
        self._left = 0
        self._result_columns = 0
        self._status = wire.STATUS_AUTOCOMMIT
        self._hiding = False
        self._kept: list[bytes] | None = None
        self._shift = 0
        self._skip = 0
        self._continued = False
        self._more = False
        """Another result of the same command follows."""
        self._file_refused = False
        self._held = HeldBytes()
        self._chunk: bytes | bytearray = b""
        self._start = 0
        self._out: list[bytes | bytearray] | None = None

    # -------------------------------------------------------------------------------------------------------- for the exchanges

    def answered(self) -> bool:
        """True when no answer is outstanding."""
        return not self.requests and not self._held.size and not self._skip

    def is_quiet(self) -> bool:
        return not (self.requests or self.in_transaction or self.is_pinned() or self.unfinished or self._held.size or self._skip)

    def is_pinned(self) -> bool:
        """True when the session holds state that cannot be replayed, or may hold some."""
        return bool(self.pins or self.holds.unsettled)

    def pin_reasons(self) -> list[str]:
        return [reason for pin, reason in s.PIN_REASONS.items() if self.pins & pin]

    def repin(self, text: bytes = b"") -> None:
        """`holds` has changed, because of the statement `text`."""
        before = self.pins
        self.pins = before & s.PINS_ELSEWHERE | self.holds.pins()
        if not before and self.pins and text:
            self.pin_text = sql.masked(text)

    def count_statements(self) -> int:
        return len(self.statements.known)

    def is_midway(self) -> bool:
        # Also between two packets of an answer: the client wants the next one under a number that is not known here.
        begun = self._more or (self._phase not in BEGINNINGS and not self._file_refused)
        return (begun or self._skip > 0 or self._continued) and not self._hiding

    def is_lost(self) -> bool:
        return self.unfinished or self.spoiled

    def expect_hidden(self) -> None:
        """An exchange is about to send a command: keep its answer from clients. `last_error` tells afterwards whether it failed."""
        self.last_error = b""
        self._ask(EXCHANGE_REQUEST)

    def end_file(self) -> bytes:
        """The empty packet that ends the local file which the server waits for."""
        self.copying_in = False
        return wire.header(self.file_sequence + 1, 0)

    def was_reset(self, tracks: bool) -> None:
        """COM_RESET_CONNECTION has run: nothing that a client did is left, but the schema (docs: COM_RESET_CONNECTION).

        `tracks`: the session's trackers have been set again.
        """
        self.settings = sql.UNKNOWN
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
            self._told = 0
            self.pinned_at = 0.0
        self.dirty = False

    # -------------------------------------------------------------------------------------------------------- what it is asked

    def take(self, client: "ClientRelay") -> None:
        """A lease begins."""
        self.client = client
        self.mode = client.mode
        if client.capabilities != self._met:
            self._met = client.capabilities
            self.dialect = dialect(client.capabilities, self.capabilities)

    def ask(self, request: Request, payload: bytes) -> bytes:
        """Put `request` into the queue; the bytes are to be sent."""
        self._ask(request)
        return packet(0, payload)

    def _ask(self, request: Request) -> None:
        requests = self.requests
        requests.append(request)
        if len(requests) == 1:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        self._phase = request.phase
        self._hiding = request.hidden
        self._shift = 0
        self._kept = [] if request.purpose in KEPT else None

    # -------------------------------------------------------------------------------------------------------- the server's bytes

    def on_server_bytes(self, data: bytes) -> int:
        if self._phase == s.HEAD:
            client = self.client
            if client is not None and client.quick and data[3:4] == b"\x01" and len(self.requests) == 1 and not self._held.size:
                verdict = self._whole_answer(data, client)
                if verdict != NOT_QUICK:
                    return verdict
        if self._held.size:
            data = self._held.take(data)
            if not data:
                return FORWARD
        end = len(data)
        skip = self._skip
        if skip >= end > 0:
            self._skip = skip - end
            self._pass(data)
            return FORWARD
        self._skip = 0
        self._chunk = bytearray(data) if self._shift else data
        self._start = 0
        self._out = None
        position = skip
        if skip and self._hiding:
            self._hide(0, skip)
        try:
            position, verdict = self._walk(position, end)
        except RemoteProtocolError:
            self._drop_output()
            raise
        if position < end:
            size = (data[position] | data[position + 1] << 8 | data[position + 2] << 16) + 4 if end - position > 4 else 5
            if size > MAX_ANSWER:
                self._drop_output()
                raise RemoteProtocolError(f"a packet of {size} bytes where a small one is due")
            self._held.keep(data[position:], max(size, end - position + 1))
        self._flush(data, position)
        client = self.client
        if client is not None:
            # What it has said while it was told of answers comes behind them.
            self.to_server += client.to_server
            self.to_client += client.to_client
            client.to_server = client.to_client = b""
        if self.pins != self._told:
            self._told = self.pins
            verdict |= PINNED
        return verdict

    def _whole_answer(self, data: bytes, client: "ClientRelay") -> int:
        """Most of all answers: a short OK, or a result with few rows, all there, that changes nothing. NOT_QUICK: nothing was done.

        Nothing is pinned (`ClientRelay.quick`).
        """
        end = len(data)
        count = data[4] if end >= 11 else wire.ERR
        changed: bytearray | None = None
        rows = end - 11
        if count == wire.OK:
            if data[0] != 7 or end != 11 or data[6]:
                return NOT_QUICK
        else:
            if data[0] != 1 or data[1] or data[2] or count > 250 or not self.capabilities & wire.CLIENT_DEPRECATE_EOF:
                return NOT_QUICK
            rows = after_definitions(data, 5, count)
            if not rows:
                return NOT_QUICK
            if self.dialect & ADD_EOF:
                changed = bytearray(data)
                position = skip_rows_shifting(changed, rows, end, 1)
            else:
                position = skip_rows(data, rows, end)
            if position != end - 11 or data[position] != 7 or data[position + 4] != wire.EOF or data[position + 5] or data[position + 6]:
                return NOT_QUICK
        status = data[end - 4] | data[end - 3] << 8
        in_transaction = bool(status & wire.STATUS_IN_TRANS)
        leaving = s.RELEASING[self.mode][in_transaction]
        if status & NOT_QUICK_STATUS or data[end - 2] or data[end - 1] or (not leaving and (client.held_bytes() or self.mode == STATEMENT)):
            return NOT_QUICK
        if changed is not None:
            # The EOF packet behind the definitions, in front of the rows; and one in the place of the OK packet.
            tail = status_bytes = b"\0\0" + data[end - 4 : end - 2]
            tail = EOF_HEAD + bytes((changed[end - 8] + 1 & 255, wire.EOF)) + status_bytes
            data = b"".join((data[:rows], EOF_HEAD, bytes((count + 2, wire.EOF)), status_bytes, changed[rows : end - 11], tail))
        self.to_client = self.to_client + data if self.to_client else data
        self.requests.clear()
        self._phase = s.DONE
        self._status = status
        self.in_transaction = in_transaction
        self.queries += 1
        if not in_transaction:
            self.transactions += 1
        client.answered_quickly(data[5] if count == wire.OK else -1)
        return RELEASE if leaving else FORWARD

    def _walk(self, position: int, end: int) -> tuple[int, int]:
        """Deal with every packet that can be dealt with. Returns where the rest begins, and the verdict."""
        verdict = FORWARD
        while end - position >= 4:
            phase = self._phase
            if phase in ROW_PHASES and not self._continued:
                if phase == s.FIRST_ROW and not self._first_row(position, end):
                    if end - position < 5:
                        break
                else:
                    before = position
                    position = self._skip_rows(position, end)
                    if position > end:
                        self._skip = position - end
                        position = end
                    if self._hiding:
                        self._hide(before, position)
                    if end - position < 5:
                        break
            chunk = self._chunk
            size = chunk[position] | chunk[position + 1] << 8 | chunk[position + 2] << 16
            following = position + 4 + size
            if self._continued or (size == MAX_PAYLOAD and self._phase == s.ROWS):
                position = self._part_of_row(position, following, end, size)
                continue
            if following > end:
                break
            if size == 0:
                raise RemoteProtocolError("an empty packet where an answer is due")
            verdict |= self._packet(position, following)
            position = following
        return position, verdict

    def _skip_rows(self, position: int, end: int) -> int:
        if self._shift:
            chunk = self._chunk
            assert isinstance(chunk, bytearray)
            return skip_rows_shifting(chunk, position, end, self._shift)
        return skip_rows(self._chunk, position, end)

    def _part_of_row(self, position: int, following: int, end: int, size: int) -> int:
        """A packet that a longer row goes on in, or goes on from."""
        self._continued = size == MAX_PAYLOAD
        self._number(position)
        if following > end:
            self._skip = following - end
            following = end
        if self._hiding:
            self._hide(position, following)
        return following

    def _first_row(self, position: int, end: int) -> bool:
        """True when a row stands at `position`, the first of its result; then the client has its EOF packet in front of it."""
        if end - position < 5 or (self._chunk[position + 4] > 0xFD and self._size(position) < MAX_PAYLOAD):
            return False
        self._phase = s.NEXT[s.FIRST_ROW * s.EVENTS + s.P_ROW]
        if self.dialect & ADD_EOF and not self._hiding:
            self._add_eof(position, self._chunk[position + 3])
        return True

    def _size(self, position: int) -> int:
        chunk = self._chunk
        return chunk[position] | chunk[position + 1] << 8 | chunk[position + 2] << 16

    # ------------------------------------------------------------------------------------------------------------ one packet

    def _packet(self, position: int, following: int) -> int:
        """A whole packet that is no row. Moves the state, then lets it pass, changes it, or keeps it from the client."""
        phase = self._phase
        first = self._chunk[position + 4]
        if phase in DEFINITIONS:
            return self._definition(position, following, first)
        if phase == s.DONE:
            return self._unasked(position, following, first)
        if phase == s.FILE and self.client is not None and self.client.state == SENDING_FILE:
            # The server did not wait for the end of the file: what is still to come of it cannot be told from commands.
            raise RemoteProtocolError("an answer in the middle of a local file")
        if first == wire.ERR:
            return self._error(position, following)
        if phase == s.HEAD and first not in NOT_A_COUNT:
            self._count(position, following)
        elif phase == s.PREPARED:
            return self._prepared(position, following, first)
        elif phase == s.HEAD and first == wire.LOCAL_INFILE:
            self._file(position, following)
        elif phase == s.FIELDS and first != wire.EOF:
            self._plain(position, following, s.P_DEFINITION)
        elif phase == s.TEXT:
            self._plain(position, following, s.P_ANY)
            return self._over(None, b"")
        elif first in OKS:
            return self._ok(position, following, first)
        else:
            raise RemoteProtocolError(f"a packet that begins with {first:#x} in phase {phase}")
        return FORWARD

    def _move(self, event: int) -> None:
        phase = s.NEXT[self._phase * s.EVENTS + event]
        if phase == s.ILLEGAL:
            raise RemoteProtocolError(f"event {event} is not possible in phase {self._phase} of an answer")
        self._phase = phase

    def _plain(self, position: int, following: int, event: int) -> None:
        self._move(event)
        self._show(position, following)

    def _show(self, position: int, following: int) -> None:
        """The packet stays as it is, but for its number."""
        if self._hiding:
            self._hide(position, following)
        elif self._shift:
            self._number(position)

    def _count(self, position: int, following: int) -> None:
        payload = bytes(self._chunk[position + 4 : following])
        count, end = get_lenenc(payload, 0)
        if end != len(payload) or not 0 < count <= MAX_COLUMNS:
            raise RemoteProtocolError(f"a result of {count} columns, in a packet of {len(payload)} bytes")
        self._left = count
        self._plain(position, following, s.P_COUNT)

    def _definition(self, position: int, following: int, first: int) -> int:
        if first == wire.ERR and self._phase == s.COLUMNS:
            return self._error(position, following)
        self._show(position, following)
        self._left -= 1
        if self._left:
            self._move(s.P_DEFINITION)
            return FORWARD
        phase = self._phase
        self._move(s.P_LAST_DEFINITION_NO_EOF if self.capabilities & wire.CLIENT_DEPRECATE_EOF else s.P_LAST_DEFINITION)
        if phase == s.COLUMNS:
            return FORWARD
        if self.capabilities & wire.CLIENT_DEPRECATE_EOF and self.dialect & ADD_EOF and not self._hiding:
            self._add_eof(following, self._number_after(position))
        return self._next_list(phase)

    def _next_list(self, phase: int) -> int:
        """A list of COM_STMT_PREPARE's answer is over: the next one, or the end."""
        if self._phase == s.RESULT_COLUMNS and phase != s.RESULT_COLUMNS:
            self._left = self._result_columns
            if not self._left:
                self._move(s.P_NO_COLUMNS)
        if self._phase == s.DONE:
            return self._over(Ok(0, 0, self._status, 0), b"")
        return FORWARD

    def _prepared(self, position: int, following: int, first: int) -> int:
        if first != wire.OK or following - position < 16:
            raise RemoteProtocolError("an answer to COM_STMT_PREPARE that cannot be understood")
        payload = bytes(self._chunk[position + 4 : following])
        request = self.requests[0]
        assert request.key is not None
        statement_id: int = INT32.unpack_from(payload, 1)[0]
        columns: int = INT16.unpack_from(payload, 5)[0]
        params: int = INT16.unpack_from(payload, 7)[0]
        self.to_server += self.statements.add(ServerStatement(statement_id, request.key))
        self._move(s.P_PREPARED)
        client = self.client
        if self._hiding or client is None:
            self._show(position, following)
        else:
            own = client.prepared(params)
            self._replace(position, following, payload[:1] + INT32.pack(own) + payload[5:])
        self._result_columns = columns
        self._left = params
        if not params:
            phase = self._phase
            self._move(s.P_NO_PARAMETERS)
            return self._next_list(phase)
        return FORWARD

    def _file(self, position: int, following: int) -> None:
        """LOCAL INFILE: the client's packets follow, up to an empty one."""
        client = self.client
        self._move(s.P_FILE)
        self.file_sequence = self._chunk[position + 3]
        if self._hiding or client is None:
            self.copying_in = True
            self._show(position, following)
        elif client.capabilities & wire.CLIENT_LOCAL_FILES:
            self.copying_in = True
            self._show(position, following)
            client.send_file(self._shift)
        else:
            self._replace(position, following, None)
            self._file_refused = True
            self._renumber(-2)
            self.to_server += wire.header(self.file_sequence + 1, 0)

    def _ok(self, position: int, following: int, first: int) -> int:
        """OK, or EOF in any of its meanings."""
        chunk = self._chunk
        phase = self._phase
        if first == wire.OK and following - position == 11 and chunk[position + 5] < 0xFB and chunk[position + 6] < 0xFB:
            # The short form, which is the same in every dialect: most of all replies.
            ok = Ok(
                chunk[position + 5],
                chunk[position + 6],
                chunk[position + 7] | chunk[position + 8] << 8,
                chunk[position + 9] | chunk[position + 10] << 8,
            )
        else:
            ok = parse_ok(bytes(chunk[position + 4 : following]), self.capabilities)
        status = ok.status
        self._status = status & ~NOT_QUICK_STATUS
        cursor = bool(status & wire.STATUS_CURSOR_EXISTS) and phase in CURSOR_PHASES
        middle = phase in ENDS_OF_DEFINITIONS and not cursor
        if middle:
            self._move(s.P_END)
            if self._hiding:
                self._hide(position, following)
            elif self.dialect & DROP_EOF:
                self._replace(position, following, None)
                self._renumber(-1)
            elif self._shift:
                self._number(position)
            return self._next_list(phase) if phase != s.COLUMNS_END else FORWARD
        self.in_transaction = bool(status & wire.STATUS_IN_TRANS)
        self._more = more = bool(status & wire.STATUS_MORE_RESULTS)
        if cursor:
            self._move(s.P_CURSOR)
        elif first == wire.OK:
            self._move(s.P_OK_MORE if more else s.P_OK)
        else:
            self._move(s.P_END_MORE if more else s.P_END)
        if ok.changes and not self._hiding:
            self._track(ok.changes)
        if self._hiding:
            self._hide(position, following)
        elif self._file_refused and not more:
            self._file_refused = False
            self._replace(position, following, error_payload(LOCAL_FILES_DISABLED, "42000", LOCAL_FILES_TEXT))
            return self._over(None, b"") if self._phase == s.DONE else FORWARD
        elif self.mode == STATEMENT and self.in_transaction and self.client is not None:
            return self._refuse_result(position, following, NO_TRANSACTIONS)
        elif self.client is not None and self.client.limits.pin_policy == PIN_ERROR and self.pins & REFUSED_PINS and self.mode != SESSION:
            return self._refuse_result(position, following, refusal(self.pins & REFUSED_PINS))
        else:
            self._show_ok(position, following, first, phase, ok, cursor)
        if first == wire.EOF:
            ok.affected = -1  # what ROW_COUNT() says after a result
        return self._over(ok, b"") if self._phase == s.DONE else self._between(ok)

    def _show_ok(self, position: int, following: int, first: int, phase: int, ok: Ok, cursor: bool) -> None:
        """Let an OK packet pass in the client's dialect."""
        dialect_differs = self.dialect
        if not dialect_differs:
            return
        client = self.client
        if client is None:
            return
        if first == wire.EOF and phase == s.FIRST_ROW and dialect_differs & ADD_EOF and not cursor:
            self._add_eof(position, self._chunk[position + 3])
        rewrite = first == wire.EOF and dialect_differs & (ADD_EOF | DROP_EOF)
        if dialect_differs & OK_DIFFERS and following - position > 11:
            rewrite = True
        if dialect_differs & ROWS_DIFFER and ok.info.startswith(ROWS_MATCHED):
            ok.affected = affected_rows(ok.info, bool(client.capabilities & wire.CLIENT_FOUND_ROWS))
            rewrite = True
        if rewrite:
            self._replace(position, following, build_ok(ok, client.capabilities, first))
        elif self._shift:
            self._number(position)

    def _refuse_result(self, position: int, following: int, text: str) -> int:
        """The answer of a statement that has done what is not allowed becomes an error, and the client's last one."""
        self._replace(position, following, error_payload(NOT_SUPPORTED, "42000", text))
        if self._phase == s.DONE:
            self.requests.popleft()
            if self.requests:
                self._begin(self.requests[0])
        return CLOSE

    def _error(self, position: int, following: int) -> int:
        """ERR ends whatever it was that was asked."""
        payload = bytes(self._chunk[position + 4 : following])
        if self._phase == s.FIRST_ROW and self.dialect & ADD_EOF and not self._hiding:
            self._add_eof(position, self._chunk[position + 3])
        request = self.requests[0]
        phase = self._phase
        self._move(s.P_ERR)
        self._more = False
        client = self.client
        first = self._chunk[position + 3] == 1
        if first and request.purpose == FOR_CLIENT and client is not None and client.heals(payload, self):
            self._replace(position, following, None)
            self.requests.popleft()
            if self.requests:
                self._begin(self.requests[0])
            return self.settle()
        self.copying_in = False
        if self._hiding:
            self._hide(position, following)
        elif phase == s.FILE:
            # A server that ends says so under a number of its own, as it may not have read all of the file, or our refusal.
            self._cut(position).append(packet(self.file_sequence + self._shift + (2 if self._file_refused else 1), payload))
            self._start = following
        elif phase == request.phase and self._chunk[position + 3] == 0:
            self._cut(position).append(packet(1, payload))
            self._start = following
        else:
            self._show(position, following)
        self._file_refused = False
        return self._over(None, payload)

    def _unasked(self, position: int, following: int, first: int) -> int:
        """A packet that nobody asked for: the server says why it is about to close (a shutdown, wait_timeout, a KILL)."""
        if first != wire.ERR:
            raise RemoteProtocolError("a packet that nobody asked for")
        self.last_error = bytes(self._chunk[position + 4 : following])
        # A client reads it as the answer to its next command, so it is numbered as one. (MySQL's own number for it is 0.)
        self._cut(position).append(packet(1, self.last_error))
        self._start = following
        return BROKEN

    # ------------------------------------------------------------------------------------------------------- the end of an answer

    def _between(self, ok: Ok) -> int:
        """One of several results of a command is over."""
        client = self.client
        if client is not None and not self._hiding and ok.insert_id:
            client.insert_id = self.insert_id = ok.insert_id
        return FORWARD

    def _over(self, ok: Ok | None, error: bytes) -> int:
        """The answer to the first request is over. `error`: the ERR packet's payload, or b""."""
        if error and self.wants_writes and error[1:3] in READ_ONLY:
            self.refused_write = self.dirty = True
        request = self.requests.popleft()
        kept = self._kept
        if self.requests:
            self._begin(self.requests[0])
        else:
            self._phase = s.DONE
            self._hiding = False
            self._shift = 0
            self._kept = None
        purpose = request.purpose
        if purpose == FOR_CLIENT:
            self.copying_in = False
            self.queries += 1
            if not self.in_transaction:
                self.transactions += 1
            client = self.client
            if client is None:
                # An ERR packet has no status flags. So a transaction may be open, until the answer to ROLLBACK says that none is.
                self.in_transaction = self.in_transaction or error != b""
                return FORWARD
            client.answered(self, ok, error)
        elif purpose == FOR_EXCHANGE:
            if error:
                self.last_error = error
            return FORWARD
        else:
            self._own_answer(request, kept or [], error)
        return self.settle() if not self.requests else FORWARD

    def _own_answer(self, request: Request, kept: list[bytes], error: bytes) -> None:
        """The answer to something that we asked for a client's sake."""
        purpose = request.purpose
        client = self.client
        if purpose == FOR_SETTINGS:
            if error and (client is None or client.state != SYNCING):
                # The command is under way, in a session that is not what it should be. So the connection is lost, and with it the client.
                raise RemoteProtocolError(f"the session could not be set up: {error_text(error)}")
            if error and client is not None:
                self.settings = sql.UNKNOWN
                self.tracks = False
                self.dirty = True
                client.fail_command(error)
            elif request.text:
                if len(self.proven) >= MAX_PROVEN:
                    self.proven.clear()
                self.proven.add(request.text)
        elif purpose in IN_FRONT:
            if error and purpose == FOR_SCHEMA:
                self.schema = NOT_KNOWN
            if error and client is not None:
                client.fail_command(error)
        elif client is not None:
            if purpose in PROBES:
                self._settled(request, kept, error, client)
            else:
                client.captured(self, request, kept, error)

    def settle(self) -> int:
        """Everything that was asked is answered. What now?"""
        client = self.client
        if client is None or self.requests:
            return FORWARD
        state = client.state
        if state == SYNCING:
            return client.advance(self)
        if state != IDLE or client.is_sending():
            return FORWARD
        free = s.RELEASING[self.mode][self.in_transaction]
        unsettled = self.holds.unsettled
        # It may leave, as far as is known without asking.
        leaving = free and not self.pins & ~unsettled
        if client.captures and client.capture(self, leaving):
            if leaving and unsettled:
                self._probe(unsettled, client)
            return FORWARD
        if leaving and unsettled and self._probe(unsettled, client):
            return FORWARD
        return RELEASE if leaving and not self.pins else client.go_on()

    def _probe(self, unsettled: int, client: "ClientRelay") -> bool:
        """Ask the server what it knows of what is unsettled. True if something was asked; then the session says no more about the client's
        last statement (`ClientRelay.disturbed`)."""
        holds = self.holds
        holds.unsettled = 0
        asked: list[tuple[int, tuple[bytes, ...], bytes]] = []
        if unsettled & s.PIN_USER_VARIABLE and s.UNREAD not in holds.assigned:
            names = tuple(sorted(holds.assigned))
            asked.append((FOR_USER_VARIABLES, names, sql.select_user_variables(names)))
        if unsettled & s.PIN_LOCK and holds.locks:
            names = tuple(sorted(holds.locks - {s.UNREAD, s.UNSEEN}))
            if len(names) < len(holds.locks):
                asked.append((FOR_UNNAMED_LOCKS, names, sql.count_locks(self.version)))
            if names:
                asked.append((FOR_LOCKS, names, sql.are_locks_mine(names)))
        if unsettled & s.PIN_TEMPORARY:
            asked += [(FOR_TABLE, (name,), b"SHOW CREATE TABLE " + name) for name in sorted(holds.temporary) if name]
        if unsettled & s.PIN_VARIABLE and "insert_id" in holds.one_shot:
            asked.append((FOR_INSERT_NUMBER, (), b"SELECT @@SESSION.insert_id"))
        for purpose, names, text in asked:
            request = Request(purpose)
            request.subjects = names
            client.to_server += self.ask(request, QUERY + text)
        if not asked:
            self.repin()
            return False
        client.disturbed = True
        return True

    def _settled(self, request: Request, kept: list[bytes], error: bytes, client: "ClientRelay") -> None:
        """The answer to a question of `_probe`. An error means that the server cannot tell, so the pin stays."""
        holds = self.holds
        purpose = request.purpose
        names = request.subjects
        if purpose == FOR_USER_VARIABLES and not error:
            values = sql.user_variables(names, codec.parse_result(b"".join(kept), self.capabilities))
            wanted = None if values is None else sql.with_user_variables(self.settings, values)
            if wanted is not None:
                holds.assigned.clear()
                self.settings = wanted
                client.new_settings(wanted)
        elif purpose == FOR_UNNAMED_LOCKS:
            count = b"".join(value or b"" for value in first_row(kept, self.capabilities))
            if count == b"0":
                holds.locks.clear()
            elif not count and s.UNSEEN in holds.locks:
                # It is not likely, and a reset sees to it that nobody else has to bear it.
                self.dirty = True
            holds.locks.discard(s.UNSEEN)
            if count not in (b"", b"0"):
                holds.locks.add(s.UNREAD)
        elif purpose == FOR_LOCKS and not error:
            row = first_row(kept, self.capabilities)
            holds.locks -= {name for name, mine in zip(names, row, strict=False) if mine == b"0"}
        elif purpose == FOR_TABLE:
            row = first_row(kept, self.capabilities)
            if len(row) < 2 or not (row[1] or b"").upper().startswith(b"CREATE TEMPORARY"):
                holds.temporary.discard(names[0])
        elif purpose == FOR_INSERT_NUMBER and first_row(kept, self.capabilities) == [b"0"]:
            holds.one_shot.discard("insert_id")
        self.repin(client.text)

    # -------------------------------------------------------------------------------------------------------- session trackers

    def _track(self, changes: bytes) -> None:
        """What the server says the client's statement has changed in the session."""
        reports: dict[str, bytes] = {}
        changed = known = False
        for kind, data in codec.parse_changes(changes):
            if kind == wire.TRACK_SYSTEM_VARIABLES:
                reports.update(codec.parse_variables(data))
            elif kind == wire.TRACK_SCHEMA:
                # (Also when a function of another schema is called; then it is the same again.)
                known = True
                self._new_schema(codec.first_string(data).decode("utf-8", "surrogateescape"))
            elif kind == wire.TRACK_STATE_CHANGE:
                changed = True
            elif kind == wire.TRACK_TRANSACTION_CHARACTERISTICS:
                pending = codec.first_string(data) != b"" and not self.in_transaction
                self.pins = self.pins | s.PIN_NEXT_TRANSACTION if pending else self.pins & ~s.PIN_NEXT_TRANSACTION
        reports.pop("statement_id", None)  # new in every reply, where '*' is tracked
        if "last_insert_id" in reports and self.client is not None:
            self.client.insert_id = self.insert_id = int(reports.pop("last_insert_id"))
        if reports:
            known = True
            self._new_settings(reports)
        if changed and self.client is not None and not self.client.explains(known):
            if not self.pins:
                self.pin_text = sql.masked(self.client.text)
            self.pins |= s.PIN_STATE
            self.dirty = True

    def _new_schema(self, schema: str) -> None:
        self.schema = schema
        if schema and schema == self.login_schema:
            self.schema = None
        if self.client is not None:
            self.client.schema = self.schema

    def _new_settings(self, reports: dict[str, bytes]) -> None:
        for name in reports.keys() & sql.PINNING:
            if sql.is_over(name, reports[name]):
                self.holds.one_shot.discard(name)
            else:
                self.holds.one_shot.add(name)
                self.holds.unsettled |= s.PIN_VARIABLE if name == "insert_id" else 0
        if reports.keys() & sql.PINNING:
            self.dirty = self.dirty or "profiling" in reports
            self.repin(self.client.text if self.client is not None else b"")
        if reports.keys() & sql.TRACKERS:
            self.tracks = False
        client = self.client
        self.settings = sql.with_reports(self.settings, reports)
        if client is not None:
            client.new_settings(self.settings)
            client.suspect(reports)

    # ---------------------------------------------------------------------------------------------------- what goes to the client

    def _pass(self, data: bytes) -> None:
        """More of a row."""
        if not self._hiding:
            self.to_client = self.to_client + data if self.to_client else data
        else:
            self._keep(data)

    def _flush(self, data: bytes, position: int) -> None:
        out = self._out
        chunk = self._chunk
        if out is None:
            if self._start == 0:
                whole = data if chunk is data and position == len(data) else bytes(chunk[:position])
            else:
                whole = bytes(chunk[self._start : position])
        else:
            if self._start < position:
                out.append(chunk[self._start : position])
            whole = b"".join(out)
        self._out = None
        self._chunk = b""
        self.to_client = self.to_client + whole if self.to_client else whole

    def _drop_output(self) -> None:
        self._out = None
        self._chunk = b""
        self.to_client = b""

    def _cut(self, position: int) -> "list[bytes | bytearray]":
        """What is in front of `position` goes out; what the caller appends comes next."""
        out = self._out
        if out is None:
            out = self._out = []
        if self._start < position:
            out.append(self._chunk[self._start : position])
        self._start = position
        return out

    def _hide(self, position: int, following: int) -> None:
        """Keep a stretch from the client."""
        if following <= position:
            return
        if self._kept is not None:
            self._keep(bytes(self._chunk[position:following]))
        if self._start < position or self._out is not None:
            self._cut(position)
        self._start = following

    def _keep(self, data: bytes) -> None:
        kept = self._kept
        if kept is not None:
            kept.append(data)
            if sum(map(len, kept)) > MAX_CAPTURE:
                raise RemoteProtocolError("the answer to a question of ours is far too long")

    def _replace(self, position: int, following: int, payload: bytes | None) -> None:
        """Put another payload in the place of a packet's, under its number; None: nothing at all."""
        out = self._cut(position)
        if payload is not None:
            out.append(packet(self._chunk[position + 3] + self._shift, payload))
        self._start = following

    def _add_eof(self, position: int, number: int) -> None:
        """An EOF packet in front of `position`, where a packet with the server's number `number` stands (or would)."""
        payload = bytes((wire.EOF, 0, 0)) + INT16.pack(self._status)
        self._cut(position).append(packet(number + self._shift, payload))
        self._renumber(1)

    def _renumber(self, by: int) -> None:
        self._shift += by
        if type(self._chunk) is bytes:
            self._chunk = bytearray(self._chunk)

    def _number(self, position: int) -> None:
        """Give a packet the number that the client expects. (After `_renumber()` the chunk is a bytearray.)"""
        if self._shift and not self._hiding:
            chunk = self._chunk
            assert isinstance(chunk, bytearray)
            chunk[position + 3] = (chunk[position + 3] + self._shift) & 255

    def _number_after(self, position: int) -> int:
        """The server's number of the packet behind the one at `position`, whose own may have been changed already."""
        return self._chunk[position + 3] + 1 - self._shift


READ_ONLY: Final = frozenset(number.to_bytes(2, "little") for number in (1290, 1792, 1836))
"""ER_OPTION_PREVENTS_STATEMENT (read_only), ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE."""
NO_TRANSACTIONS: Final = "Transactions are not allowed in statement mode. Use a listener with pool_mode = transaction."
REFUSED_PINS: Final = s.PIN_STATE | s.PIN_VARIABLE
"""What a statement's text does not tell beforehand."""
NOT_QUICK: Final = -1
NOT_QUICK_STATUS: Final = (
    wire.STATUS_MORE_RESULTS
    | wire.STATUS_CURSOR_EXISTS
    | wire.STATUS_LAST_ROW_SENT
    | wire.STATUS_PS_OUT_PARAMS
    | wire.STATUS_SESSION_STATE_CHANGED
)
EOF_HEAD: Final = b"\x05\0\0"
BEGINNINGS: Final = frozenset((s.DONE, s.HEAD, s.PREPARED, s.TEXT))
NOT_A_COUNT: Final = frozenset((wire.OK, wire.EOF, wire.ERR, wire.LOCAL_INFILE))
OKS: Final = frozenset((wire.OK, wire.EOF))
ROW_PHASES: Final = frozenset((s.FIRST_ROW, s.ROWS))
CURSOR_PHASES: Final = frozenset((s.COLUMNS_END, s.FIRST_ROW))
DEFINITIONS: Final = frozenset((s.COLUMNS, s.PARAMETERS, s.RESULT_COLUMNS))
IN_FRONT: Final = frozenset((FOR_SCHEMA, FOR_STATEMENT))
ENDS_OF_DEFINITIONS: Final = frozenset((s.COLUMNS_END, s.PARAMETERS_END, s.RESULT_COLUMNS_END))
NOT_KNOWN: Final = "\0"
"""No schema's name."""
LOCAL_FILES_TEXT: Final = "Loading local data is disabled; this must be enabled on both the client and server sides"


def dialect(client: int, server: int) -> int:
    """How the answers must be changed, from the capabilities of both."""
    differs = 0
    if server & ~client & wire.CLIENT_DEPRECATE_EOF:
        differs |= ADD_EOF
    if client & ~server & wire.CLIENT_DEPRECATE_EOF:
        differs |= DROP_EOF
    if (client ^ server) & wire.CLIENT_SESSION_TRACK:
        differs |= OK_DIFFERS
    if (client ^ server) & wire.CLIENT_FOUND_ROWS:
        differs |= ROWS_DIFFER
    return differs


def affected_rows(info: bytes, found: bool) -> int:
    """From an UPDATE's "Rows matched: 3  Changed: 1  Warnings: 0": the rows found, or the rows changed."""
    numbers = [int(word) for word in info.split() if word.isdigit()]
    return numbers[0 if found else 1] if len(numbers) > 1 else 0


def refusal(pins: int) -> str:
    """What a client is told whose statement would pin its server connection, where `pin` is "error"."""
    reasons = ", ".join(reason for pin, reason in s.PIN_REASONS.items() if pins & pin)
    return f"This would keep a server connection for this session alone ({reasons}), and pin = error. Use a listener in session mode."


def error_text(error: bytes) -> str:
    """The message of an ERR packet."""
    return error[3:].decode("utf-8", "replace")


def first_row(kept: list[bytes], capabilities: int) -> list[bytes | None]:
    """The values of the first row of an answer that was kept; none if it is an error."""
    result = codec.parse_result(b"".join(kept), capabilities)
    return codec.row_values(result.rows[0]) if result.ended and result.rows else []


class ClientRelay(protocol.ClientRelay):
    """See the module. `settings`, `schema`, `multi` and `insert_id` are what the client's session should have.

    `connection_id`: what the client was told in the greeting; 0: it sees the server's.
    """

    __slots__ = (
        "_action",
        "_dropping",
        "_executed",
        "_executing_on",
        "_execution",
        "_found_rows",
        "_head",
        "_healed",
        "_held",
        "_login_settings",
        "_marks",
        "_more",
        "_passing",
        "_preparing",
        "_row_count",
        "_shift",
        "_size",
        "_steps",
        "_suspects",
        "_tail",
        "_warning_columns",
        "_warnings",
        "at_rest",
        "capabilities",
        "captures",
        "connection_id",
        "disturbed",
        "insert_id",
        "limits",
        "mode",
        "multi",
        "parsing",
        "quick",
        "schema",
        "server",
        "settings",
        "state",
        "statements",
        "text",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, capabilities: int, login_settings: Settings, connection_id: int = 0) -> None:
        super().__init__()
        self.limits = limits
        self.mode = limits.mode
        self.capabilities = capabilities
        self.at_rest = True
        """Nothing waits and nothing is under way. (False may mean only that nobody has looked.)"""
        self.quick = False
        """The command that is being answered was plain: a plain answer to it needs no looking at."""
        self.connection_id = connection_id
        self.server: ServerRelay | None = None
        self.state = IDLE
        self._login_settings = login_settings
        self.statements = ClientStatements(limits.statements_per_client, limits.statement_bytes)
        self._held = b""
        """Bytes of the client's that wait. While a command waits or is synchronised, it stands at their beginning."""
        self._action = s.C_REFUSED
        self._tail = b""
        """The last bytes that were passed on of a long statement."""
        self._size = 0
        """Of the command's first packet, with its header."""
        self._head = b""
        """The command's payload, or as much of it as is held: what can be read of it."""
        self._passing = 0
        """Bytes of the current packet that are still to come and go to the server unread."""
        self._more = False
        """The current packet is full, so the command goes on in another one."""
        self._dropping = False
        """The rest of the command goes nowhere: it was answered already."""
        self._shift = 0
        """By how much our numbers of an answer's packets differ from the server's, while a local file is sent."""
        self._executed = b""
        """The COM_STMT_EXECUTE that is being answered, while it can be sent again."""
        self._executing_on: ServerStatement | None = None
        self._forget_session()
        self.schema: str | None = None
        self.multi = bool(capabilities & wire.CLIENT_MULTI_STATEMENTS)

    def _forget_session(self) -> None:
        """As after the login, but for the schema."""
        self.new_settings(self._login_settings)
        self.statements.clear()
        self.insert_id = 0
        self.captures = 0
        self._marks = 0
        self._steps: tuple[s.Step, ...] = ()
        self.text = b""
        """The statement that is being carried out, or its packet."""
        self.disturbed = False
        """The server was asked something of ours since the client's last statement, so what it says of that one is not so any more."""
        self._row_count = 0
        self._found_rows = -1
        self._warnings: list[bytes] = []
        self._warning_columns: list[bytes] = []
        self._suspects: set[str] = set()
        self._execution: ClientStatement | None = None
        self._preparing: ClientStatement | None = None
        self._healed = False

    def new_settings(self, wanted: Settings) -> None:
        """What the session should have from now on."""
        self.settings = wanted
        self.parsing = sql.parsing(wanted)

    # -------------------------------------------------------------------------------------------------------- the client's bytes

    def count_statements(self) -> int:
        return len(self.statements.known)

    def held_bytes(self) -> int:
        return len(self._held)

    def is_sending(self) -> bool:
        """True when a command has been passed on in part."""
        return bool(self._passing or self._more)

    def on_client_bytes(self, data: bytes) -> int:
        if self.at_rest and data in PLAIN_QUERIES:
            # Most of all commands: one that was seen before, with nothing to be read in it.
            self.at_rest = False
            self._action = s.C_QUERY
            self._marks = 0
            self._steps = ()
            self.text = data
            self._held = data
            self._size = len(data)
            self.state = WAITING
            server = self.server
            if server is None:
                return NEEDS_SERVER
            self.state = SYNCING
            return self.advance(server)
        self.at_rest = False
        if self._held:
            data = self._held + data
            self._held = b""
        state = self.state
        if state == SENDING_FILE:
            return self._send_file(data)
        if self._passing or self._more:
            return self._pass_on(data)
        if state == IDLE:
            server = self.server
            if server is None or not server.requests:
                return self._commands(data)
            # Captures are under way: they belong to the command before this one.
            self._held = data
            return FORWARD
        self._held = data
        return NEEDS_SERVER if state == WAITING else FORWARD

    def go_on(self) -> int:
        """The server connection stays: handle what the client sent meanwhile."""
        data = self._held
        if not data:
            return FORWARD
        self._held = b""
        return self._commands(data)

    def _commands(self, data: bytes) -> int:
        """Take commands, until one must wait for its answer."""
        while len(data) > 4:
            size = (data[0] | data[1] << 8 | data[2] << 16) + 4
            if data[3]:
                return self._end_with(OUT_OF_ORDER, "08S01", f"Got packets out of order: a command with the number {data[3]}")
            if size == 4:
                return self._end_with(MALFORMED, "HY000", "Malformed communication packet: a command of no bytes")
            if len(data) < size and len(data) < self._must_hold(data[4], size):
                break
            self._action = s.CLIENT_ACTION[data[4]]
            self._size = size
            verdict = self._command(data)
            if self.state != IDLE or verdict:
                return verdict
            data = self._held
            self._held = b""
            if self._passing or self._more:
                return self._pass_on(data)
        if len(data) == 4 and data[:3] == b"\0\0\0":
            return self._end_with(MALFORMED, "HY000", "Malformed communication packet: a command of no bytes")
        self._held = data
        return FORWARD

    def _must_hold(self, command: int, size: int) -> int:
        """How much of a packet of `size` bytes must be there before anything can be done with it."""
        limit = self.limits.frame_bytes
        if command in TEXTS:
            limit = max(limit, self.limits.statement_bytes)
        return min(size, limit)

    def _command(self, data: bytes) -> int:
        """One command, at the beginning of `data`. Leaves in `_held` what is not dealt with."""
        size = self._size
        action = self._action
        self._held = data
        if action == s.C_QUERY:
            self._head = data[4:size]
            verdict = self._query()
        elif action not in MAY_BE_LONG and (len(data) < size or size == MAX_PAYLOAD + 4):
            return self._end_with(TOO_LARGE, "08S01", "Got a packet bigger than limits.statement_bytes or limits.frame_bytes")
        else:
            self._head = data[4:size]
            verdict = HANDLERS[action](self)
        return verdict

    # ------------------------------------------------------------------------------------------------------------- commands

    def _query(self) -> int:
        self.text = text = self._head[1:]
        self._marks = marks = sql.marks(text)
        self._steps = ()
        if marks & sql.M_STEPS or (self.server is not None and self.server.is_pinned()):
            self._steps = sql.steps(text, "ANSI" in self.parsing)
        if not marks and self._size <= MAX_REMEMBERED:
            if len(PLAIN_QUERIES) >= MAX_PLAIN_QUERIES:
                PLAIN_QUERIES.clear()
            PLAIN_QUERIES.add(self._held[: self._size])
        if marks & TO_BE_READ:
            answered = self._answer_ourselves(text, marks)
            if answered is not None:
                return answered
        return self._to_server()

    def _to_server(self) -> int:
        """The command needs a server connection."""
        server = self.server
        if self._steps and self.limits.pin_policy == PIN_ERROR and self.mode != SESSION:
            pins = s.may_pin(self._steps)
            if pins:
                return self._end_with(NOT_SUPPORTED, "42000", refusal(pins))
        if server is None:
            self.state = WAITING
            return NEEDS_SERVER
        self.state = SYNCING
        return self.advance(server)

    def _answer_ourselves(self, text: bytes, marks: int) -> int | None:
        """Answer what depends on which server connection it meets; None where it does not after all."""
        if marks & sql.M_KILL:
            target = sql.kill_target(text)
            if target is None:
                return self._refuse_command(NOT_SUPPORTED, "42000", "KILL is only supported with a connection id.")
            return self._kill(*target)
        if marks & sql.M_DIAGNOSTICS:
            if (self.server is None or self.disturbed) and self._warnings:
                return self._refuse_command(
                    NOT_SUPPORTED, "42000", "GET DIAGNOSTICS is only supported inside a transaction. Use SHOW WARNINGS, or a session pool."
                )
            return None
        question = sql.local_question(text)
        return None if question is None else self._answer_question(question)

    def _answer_question(self, question: sql.Question) -> int | None:
        kind = question.kind
        if kind == sql.Q_CONNECTION_ID:
            return self._answer_number(question.name, self.connection_id) if self.connection_id else None
        if kind == sql.Q_ROW_COUNT:
            return self._answer_number(question.name, self._row_count)
        if self.server is not None and not self.disturbed:
            return None  # the statement that it is about ran on this very server connection
        if kind == sql.Q_FOUND_ROWS:
            if self._found_rows < 0:
                text = "FOUND_ROWS() is only known inside a transaction, or after a statement with SQL_CALC_FOUND_ROWS."
                return self._refuse_command(NOT_SUPPORTED, "42000", text)
            return self._answer_number(question.name, self._found_rows)
        rows = self._warnings
        if kind in ABOUT_ERRORS:
            rows = [row for row in rows if row.startswith(ERROR_LEVEL)]
        if kind in COUNTS:
            return self._answer_number(question.name, len(rows))
        rows = rows[question.offset : question.offset + question.count]
        self._reply_result(self._warning_columns or WARNING_COLUMNS, rows)
        return FORWARD

    def _answer_number(self, name: bytes, number: int) -> int:
        """A result of one number."""
        value = b"%d" % number
        self._reply_result([codec.integer_column(name)], [put_lenenc(len(value)) + value])
        self._row_count = -1
        self._found_rows = 1
        return FORWARD

    def _reply_result(self, columns: list[bytes], rows: list[bytes]) -> None:
        self._drop_command()
        self.to_client += codec.text_result(columns, rows, self._status(), self.capabilities)

    def _kill(self, target: int, connection: bool) -> int:
        self._drop_command()
        self.state = KILLING
        self.cancel_key = target
        self.cancel_connection = connection
        return CANCEL

    def _process_kill(self) -> int:
        if len(self._head) < 5:
            return self._refuse_command(MALFORMED, "HY000", "Malformed communication packet")
        return self._kill(INT32.unpack_from(self._head, 1)[0], True)

    def cancel_done(self, found: bool) -> None:
        if self.state != KILLING:
            return
        self.state = IDLE
        if found:
            self._reply_ok()
        else:
            self._reply_error(UNKNOWN_THREAD, "HY000", f"Unknown thread id: {self.cancel_key}")

    def _prepare(self) -> int:
        text = self._head[1:]
        if sql.marks(text) & sql.M_KILL:
            return self._refuse_command(
                UNSUPPORTED_PREPARED, "HY000", "This command is not supported in the prepared statement protocol yet"
            )
        marks = sql.marks(text)
        try:
            text = self._with_own_id(text, marks)
            steps = sql.steps(text, "ANSI" in self.parsing) if marks & sql.M_STEPS else ()
            self._preparing = self.statements.new(text, self.schema or LOGIN_SCHEMA, marks, steps)
            self._preparing.settings, self._preparing.parsing = self.settings, self.parsing
        except FeatureRefused as error:
            return self._refuse_command(error.errno, "42000", f"{error.message}. {error.hint}")
        self.parses += 1
        self._marks = 0
        return self._to_server()

    def _with_own_id(self, text: bytes, marks: int) -> bytes:
        """The statement to be prepared: in the place of SELECT CONNECTION_ID() it is the number that the client knows itself by."""
        question = sql.local_question(text) if marks & sql.M_LOCAL and self.connection_id else None
        if question is None or question.kind != sql.Q_CONNECTION_ID:
            return text
        text = b"SELECT %d AS `%s`" % (self.connection_id, question.name)
        self._head = bytes((wire.COM_STMT_PREPARE,)) + text
        self._held = packet(0, self._head) + self._held[self._size :]
        self._size = 4 + len(self._head)
        return text

    def _execute(self) -> int:
        statement = self._statement("mysqld_stmt_execute")
        if statement is None:
            return FORWARD
        if statement.long_bytes > self.limits.statement_bytes:
            statement.forget_long_data()
            return self._refuse_command(TOO_LARGE, "08S01", "The data of COM_STMT_SEND_LONG_DATA is more than limits.statement_bytes")
        types = bound_types(self._head, statement.params)
        if types is None:
            return self._refuse_command(WRONG_ARGUMENTS, "HY000", "Incorrect arguments to mysqld_stmt_execute")
        if types:
            statement.bind(types)
        self.binds += 1
        self._execution = statement
        self._marks = statement.marks
        self._steps = statement.steps
        self.text = statement.text
        self._healed = False
        return self._to_server()

    def _fetch(self) -> int:
        statement = self._statement("mysqld_stmt_fetch")
        if statement is None:
            return FORWARD
        if statement.cursor is None or self.server is None:
            return self._refuse_command(NO_OPEN_CURSOR, "HY000", f"The statement ({statement.id}) has no open cursor.")
        self._execution = statement
        return self._to_server()

    def _reset_statement(self) -> int:
        statement = self._statement("mysqld_stmt_reset")
        if statement is None:
            return FORWARD
        statement.forget_long_data()
        if statement.cursor is not None and self.server is not None:
            self._execution = statement
            return self._to_server()
        self._drop_command()
        self._reply_ok()
        return FORWARD

    def _close_statement(self) -> int:
        statement = self._find_statement()
        self._drop_command()
        if statement is None:
            return FORWARD
        self.statements.remove(statement)
        server = self.server
        cursor = statement.cursor
        if cursor is None or server is None:
            return FORWARD
        # The cursor goes with the statement, so the server's one must go as well.
        server.statements.remove(cursor)
        self.to_server += close_packet(cursor.id)
        self._cursor_over(statement, server)
        return server.settle() if not self._held else FORWARD

    def _long_data(self) -> int:
        """COM_STMT_SEND_LONG_DATA is never answered; what is wrong with it, EXECUTE will tell."""
        statement = self._find_statement()
        payload = self._head
        self._drop_command()
        if statement is not None and len(payload) >= 7:
            statement.long_bytes += len(payload) - 5
            if statement.long_bytes <= self.limits.statement_bytes:
                statement.long_data.append(payload[5:])
            else:
                statement.long_data = []
        return FORWARD

    def _ping(self) -> int:
        self._drop_command()
        self._reply_ok()
        return FORWARD

    def _quit(self) -> int:
        self._drop_command()
        self._held = b""
        return CLOSE

    def _set_option(self) -> int:
        option = INT16.unpack_from(self._head, 1)[0] if len(self._head) == 3 else -1
        if option not in (0, 1):
            return self._refuse_command(UNKNOWN_COMMAND, "08S01", "Unknown command")
        self.multi = option == 0
        self._drop_command()
        self.to_client += packet(1, build_ok(Ok(0, 0, self._status(), 0), self.capabilities, wire.EOF))
        return FORWARD

    def _reset_connection(self) -> int:
        if self.server is not None:
            return self._to_server()
        self._drop_command()
        self._forget_session()
        self._reply_ok()
        return FORWARD

    def _change_user(self) -> int:
        """All of the session ends here, also if the new login fails (docs: COM_CHANGE_USER)."""
        self.login_request = self._held
        self._held = self._head = b""
        return REACCEPT

    def _pass_command(self) -> int:
        self._marks = 0
        self._steps = ()
        return self._to_server()

    def _unknown_command(self) -> int:
        return self._refuse_command(UNKNOWN_COMMAND, "08S01", "Unknown command")

    def _find_statement(self) -> ClientStatement | None:
        return self.statements.known.get(INT32.unpack_from(self._head, 1)[0]) if len(self._head) >= 5 else None

    def _statement(self, function: str) -> ClientStatement | None:
        """The statement that the command names; without one, the command is refused."""
        statement = self._find_statement()
        if statement is None:
            number = INT32.unpack_from(self._head, 1)[0] if len(self._head) >= 5 else 0
            text = f"Unknown prepared statement handler ({number}) given to {function}"
            self._refuse_command(UNKNOWN_STATEMENT, "HY000", text)
        return statement

    # --------------------------------------------------------------------------------------------------------- our own answers

    def _status(self) -> int:
        """The status flags of an answer of ours."""
        server = self.server
        autocommit = wire.STATUS_AUTOCOMMIT if self.settings.values.get("autocommit", "1") == "1" else 0
        return autocommit | (wire.STATUS_IN_TRANS if server is not None and server.in_transaction else 0)

    def _reply_ok(self) -> None:
        self.to_client += packet(1, build_ok(Ok(0, 0, self._status(), 0), self.capabilities, wire.OK))

    def _reply_error(self, errno: int, sqlstate: str, text: str) -> None:
        self.to_client += packet(1, error_payload(errno, sqlstate, text))

    def _refuse_command(self, errno: int, sqlstate: str, text: str) -> int:
        self._drop_command()
        self._reply_error(errno, sqlstate, text)
        return FORWARD

    def _end_with(self, errno: int, sqlstate: str, text: str) -> int:
        """The client has lost its way: an error, and no more."""
        self._reply_error(errno, sqlstate, text)
        self._held = b""
        self._head = b""
        return CLOSE

    def _drop_command(self) -> None:
        """The command at the beginning of `_held` is dealt with; what is still to come of it goes nowhere."""
        held = self._held
        size = self._size
        self._head = b""
        self._more = size == MAX_PAYLOAD + 4
        if len(held) >= size:
            self._held = held[size:]
        else:
            self._passing = size - len(held)
            self._held = b""
        self._dropping = bool(self._passing or self._more)

    # --------------------------------------------------------------------------------------------------------------- the lease

    def attach(self, server: protocol.ServerRelay) -> int:
        assert isinstance(server, ServerRelay)
        self.server = server
        server.take(self)
        if self.state != WAITING:
            return server.settle()
        self.state = SYNCING
        return self.advance(server)

    def detach(self) -> None:
        server = self.server
        if server is None:
            return
        if server.schema is not None and not server.login_schema:
            # No command takes the choice of a schema back, and who has chosen none must not meet another's.
            server.spoiled = server.dirty = True
        if server.is_pinned() or self.limits.mode == SESSION or server.requests or self.captures & CAPTURE_OF_SESSION:
            # What a session of its own may have left (locks, variables, temporary tables) no tracker tells in full. Nor do we know what a
            # command has left whose answer nobody waits for any more.
            server.dirty = True
        server.client = None
        self.server = None
        self.at_rest = self.state == IDLE and not (self._held or self._passing or self._more)

    def error_message(self, error: DualpoolError) -> bytes:
        return error_message(error)

    def refuse(self, error: DualpoolError) -> int:
        if self.state == WAITING:
            self.state = IDLE
            self._forget_command()
            self._drop_command()
            self.to_client += error_message(error)
        return FORWARD

    def _forget_command(self) -> None:
        if self._execution is not None and self._action == s.C_EXECUTE:
            # As when a server answers with an error.
            self._execution.forget_long_data()
        self._execution = None
        self._preparing = None

    def advance(self, server: ServerRelay) -> int:
        """Send the next that must go in front of the command, or the command itself when there is nothing more."""
        if (
            self._action == s.C_QUERY
            and not self._marks
            and server.settings is self.settings
            and server.schema == self.schema
            and server.multi is self.multi
            and server.tracks
            and len(self._held) == self._size
        ):
            self.state = BUSY
            # (A session that is pinned is looked at after each statement.)
            self.quick = not (server.pins or server.holds.unsettled)
            server._ask(CLIENT_REQUEST)
            self.to_server = self.to_server + self._held if self.to_server else self._held
            self._held = b""
            return FORWARD
        execution = self._execution if self._action == s.C_EXECUTE else None
        found: ServerStatement | None = None
        key: Key | None = None
        schema = self.schema
        wanted = self.settings
        if execution is not None:
            key = (execution.text, execution.schema, execution.parsing)
            found = server.statements.find(key, execution)
            if found is None:
                # It is prepared as it was, and then executed in the session as it is.
                wanted = wanted if execution.parsing == self.parsing else sql.as_read(wanted, execution.settings)
                schema = None if execution.schema == LOGIN_SCHEMA else execution.schema
        elif self._action == s.C_INIT_DB or self._marks & sql.M_USE:
            schema = server.schema
        if (
            server.settings is not wanted
            or server.schema != schema
            or server.multi is not self.multi
            or not server.tracks
            or (self._marks & sql.M_INSERT_ID and server.insert_id != self.insert_id)
        ) and self._sync(server, wanted, schema):
            return FORWARD
        if execution is not None and found is None:
            assert key is not None
            server.parses += 1
            self.to_server += server.ask(Request(FOR_STATEMENT, s.PREPARED, key=key), bytes((wire.COM_STMT_PREPARE,)) + execution.text)
            return FORWARD
        self._send_command(server, found)
        return FORWARD

    def _sync(self, server: ServerRelay, wanted: Settings, schema: str | None) -> bool:
        """Ask for what brings the session to `wanted` and `schema`. True when the answers must be awaited."""
        text = b""
        if server.settings is not wanted:
            text = sql.difference(server.settings, wanted)
        first_use = not server.tracks
        if first_use:
            text = sql.joined(text, sql.assignments(sql.trackers(server.version)).encode())
        # (A SET of user variables alone cannot fail.)
        known = not text or text in server.proven or (text.startswith(b"SET @") and not first_use)
        if text or self._marks & sql.M_INSERT_ID:
            whole = text
            if self._marks & sql.M_INSERT_ID and server.insert_id != self.insert_id:
                whole = sql.joined(text, b"SESSION last_insert_id=%d" % self.insert_id)
            if whole:
                self.to_server += server.ask(Request(FOR_SETTINGS, text=b"" if known else text), QUERY + whole)
                server.insert_id = self.insert_id if self._marks & sql.M_INSERT_ID else server.insert_id
        server.settings = wanted
        server.tracks = True
        if server.multi is not self.multi:
            server.multi = self.multi
            self.to_server += server.ask(OPTION_REQUEST, bytes((wire.COM_SET_OPTION, 0 if self.multi else 1, 0)))
        if server.schema != schema:
            name = server.login_schema if schema is None else schema
            server.schema = schema
            if name:
                self.to_server += server.ask(Request(FOR_SCHEMA), bytes((wire.COM_INIT_DB,)) + name.encode("utf-8", "surrogateescape"))
                known = False
        return not known

    def _send_command(self, server: ServerRelay, found: ServerStatement | None) -> None:
        """The command itself. From now on its answer is the next that the client gets."""
        self.state = BUSY
        self.quick = False
        action = self._action
        self._dropping = False
        if found is not None:
            self._send_execute(server, found)
            return
        if action == s.C_PREPARE:
            assert self._preparing is not None
            server.parses += 1
            server._ask(Request(FOR_CLIENT, s.PREPARED, key=(self._preparing.text, self._preparing.schema, self.parsing)))
        elif action in PASSED_ON:
            server._ask(PASSED_ON[action])
        else:
            server._ask(CLIENT_REQUEST)
        if self._execution is not None and action in WITH_STATEMENT:
            cursor = self._execution.cursor
            self._head = b""
            if cursor is not None:
                held = self._held
                self.to_server += held[:5] + INT32.pack(cursor.id) + held[9 : self._size]
                self._held = held[self._size :]
                return
        self._send_held(server)

    def _send_held(self, server: ServerRelay) -> None:
        """Pass on the command as it stands in `_held`, and go on passing what is still to come of it."""
        held = self._held
        size = self._size
        self._head = self._head if self._action == s.C_RESET else b""
        if len(held) == size and size <= MAX_PAYLOAD:
            self.to_server = self.to_server + held if self.to_server else held
            self._held = b""
            return
        self._held = b""
        self._passing = size
        self._more = size == MAX_PAYLOAD + 4
        server.unfinished = True
        self._pass_on(held)

    def _pass_on(self, data: bytes) -> int:
        """The rest of a command that is longer than what we hold of it."""
        position = 0
        end = len(data)
        while position < end:
            if self._passing:
                taken = min(self._passing, end - position)
                position += taken
                self._passing -= taken
            elif not self._more or end - position < 4:
                break
            else:
                size = data[position] | data[position + 1] << 8 | data[position + 2] << 16
                self._more = size == MAX_PAYLOAD
                self._passing = size + 4
        if not self._dropping:
            self.to_server += data[:position]
            if self._action == s.C_QUERY:
                self._look_at(data[:position])
        self._held = data[position:]
        if self._passing or self._more:
            return FORWARD
        self._dropping = False
        server = self.server
        if server is not None:
            server.unfinished = False
        if self.state == IDLE:
            # The answer was there before the whole question.
            verdict = server.settle() if server is not None else FORWARD
            return verdict if verdict or server is not None else self.go_on()
        return FORWARD

    def _look_at(self, data: bytes) -> None:
        """A part of a statement that is too long to be read as a whole: is there a word in it that only its text can tell of?"""
        seen = self._tail + data
        if sql.LOCK_WORD in seen.upper() and UNKNOWN_STEP not in self._steps:
            self._steps += (UNKNOWN_STEP,)
        self._tail = seen[1 - len(sql.LOCK_WORD) :]

    def _send_execute(self, server: ServerRelay, found: ServerStatement) -> None:
        """COM_STMT_EXECUTE, with the server's id of the statement, its long data in front, and the types of its parameters."""
        statement = self._execution
        assert statement is not None
        held = self._held
        size = self._size
        server._ask(CLIENT_REQUEST)
        self._executing_on = found
        self.quick = not (self._marks or statement.long_data or statement.cursor is not None or server.is_pinned())
        if statement.long_data:
            self.to_server += long_data_packets(statement, found.id)
        whole = len(held) >= size
        self._executed = held[:size] if whole else b""
        self._head = b""
        head = held[:5] + INT32.pack(found.id)
        if found.types != statement.types:
            flag = 4 + types_flag(statement.params)
            if not held[flag]:
                # They were bound on another server connection, so they are said again.
                longer = size - 4 + len(statement.types)
                if longer >= MAX_PAYLOAD:
                    raise RemoteProtocolError("the types of the parameters make COM_STMT_EXECUTE too long for one packet")
                head = wire.header(0, longer) + head[4:] + held[9:flag] + b"\x01" + statement.types
                held = bytes(9) + held[flag + 1 :]
                size -= flag - 8
            found.types = statement.types
        self.to_server += head + held[9:size]
        if whole and size <= MAX_PAYLOAD:
            self._held = held[size:]
            return
        self._held = b""
        self._passing = max(size - len(held), 0)
        self._more = size == MAX_PAYLOAD + 4
        server.unfinished = True
        self._pass_on(held[size:])

    # ---------------------------------------------------------------------------------------------------------- a local file

    def send_file(self, shift: int) -> None:
        """The server asks for a local file: the client sends it, up to an empty packet."""
        self.state = SENDING_FILE
        self._shift = shift

    def _send_file(self, data: bytes) -> int:
        server = self.server
        position = 0
        start = 0
        end = len(data)
        while position < end:
            if self._passing:
                taken = min(self._passing, end - position)
                position += taken
                self._passing -= taken
                continue
            if end - position < 4:
                break
            size = data[position] | data[position + 1] << 8 | data[position + 2] << 16
            sequence = (data[position + 3] - self._shift) & 255
            if self._shift:
                self.to_server += data[start:position] + wire.header(sequence, size)
                start = position + 4
            position += 4
            self._passing = size
            if server is not None:
                server.file_sequence = sequence
            if not size:
                self._file_over()
                break
        self.to_server += data[start:position]
        self._held = data[position:]
        if server is not None:
            server.unfinished = self._passing > 0
        return FORWARD

    def _file_over(self) -> None:
        self.state = BUSY
        if self.server is not None:
            self.server.copying_in = False

    # -------------------------------------------------------------------------------------------------- what the server relay says

    def prepared(self, params: int) -> int:
        """The server has accepted the client's COM_STMT_PREPARE. Returns the id that the client shall know it by."""
        statement = self._preparing
        assert statement is not None
        self._preparing = None
        statement.params = params
        self.statements.add(statement)
        return statement.id

    def answered(self, server: ServerRelay, ok: Ok | None, error: bytes) -> None:
        """The client's command is answered in full, by `ok`, by `error` (the payload of an ERR packet) or by neither."""
        self.state = IDLE
        self.quick = False
        self.disturbed = False
        self._executed = b""
        self._warnings = []
        self._found_rows = -1
        self._row_count = -1
        captures = self.captures & ~OF_ONE_STATEMENT
        marks = self._marks
        if error:
            captures |= CAPTURE_WARNINGS | CAPTURE_STATUS
        elif ok is not None:
            self._row_count = ok.affected
            if ok.insert_id:
                self.insert_id = server.insert_id = ok.insert_id
            if ok.warnings:
                captures |= CAPTURE_WARNINGS
            if marks & (sql.M_CALC_FOUND_ROWS | sql.M_SETS_INSERT_ID):
                captures |= CAPTURE_FOUND_ROWS if marks & sql.M_CALC_FOUND_ROWS else 0
                captures |= CAPTURE_INSERT_ID if marks & sql.M_SETS_INSERT_ID else 0
        if self._suspects:
            captures |= CAPTURE_VALUES
        self.captures = captures
        holds = server.holds
        if self._steps:
            holds.apply(self._steps, not error, self._quoted_schema(server))
            server.repin(self.text)
        if "insert_id" in holds.one_shot:
            holds.unsettled |= s.PIN_VARIABLE
        if self._action != s.C_QUERY:
            self._after(server, ok)
        self._execution = None
        self._preparing = None

    def answered_quickly(self, affected: int) -> None:
        """The same for an answer in which there is nothing but that number (-1: rows)."""
        self.state = IDLE
        self.quick = False
        self.at_rest = not self._held
        self._row_count = affected
        self._found_rows = -1
        self._execution = None
        self._executed = b""
        if self._warnings:
            self._warnings = []

    def _quoted_schema(self, server: ServerRelay) -> bytes:
        """The current schema, to be put in front of a table's name; nothing if there is none."""
        schema = server.login_schema if self.schema is None else self.schema
        if not schema or schema == NOT_KNOWN:
            return b""
        return b"`" + schema.replace("`", "``").encode("utf-8", "surrogateescape") + b"`."

    def _after(self, server: ServerRelay, ok: Ok | None) -> None:
        """What an answered command other than COM_QUERY has changed."""
        action = self._action
        statement = self._execution
        if action == s.C_EXECUTE and statement is not None:
            statement.forget_long_data()
            if statement.cursor is not None:
                self._cursor_over(statement, server)
            if ok is not None and ok.status & wire.STATUS_CURSOR_EXISTS and self._executing_on is not None:
                statement.cursor = self._executing_on
                statement.cursor.user = statement
                server.pins |= s.PIN_CURSOR
        elif action == s.C_FETCH and statement is not None:
            if ok is None or ok.status & wire.STATUS_LAST_ROW_SENT:
                self._cursor_over(statement, server)
        elif action == s.C_RESET_STATEMENT and statement is not None:
            self._cursor_over(statement, server)
        elif action == s.C_RESET and ok is not None:
            server.was_reset(tracks=False)
            self._forget_session()
        elif action == s.C_INIT_DB and ok is not None and not server.capabilities & wire.CLIENT_SESSION_TRACK:
            server.schema = self.schema = NOT_KNOWN

    def _cursor_over(self, statement: ClientStatement, server: ServerRelay) -> None:
        """A cursor is closed. Its statement can be shared again, or goes, if another has taken its place meanwhile."""
        cursor = statement.cursor
        statement.cursor = None
        if cursor is not None:
            cursor.user = None
            if not server.statements.holds(cursor):
                self.to_server += close_packet(cursor.id)
        if not any(other.cursor is not None for other in self.statements.known.values()):
            server.pins &= ~s.PIN_CURSOR

    def heals(self, error: bytes, server: ServerRelay) -> bool:
        """True when `error`, the first packet of the answer, is about a statement that must only be prepared again: it is, once."""
        found = self._executing_on
        if self._action != s.C_EXECUTE or self._healed or not self._executed or found is None or len(error) < 3:
            return False
        if INT16.unpack_from(error, 1)[0] not in HEALED:
            return False
        self._healed = True
        server.statements.remove(found)
        self.to_server += close_packet(found.id)
        self._head = self._executed[4:]
        self._size = len(self._executed)
        self._held = self._executed + self._held
        self._executed = b""
        self.state = SYNCING
        return True

    def fail_command(self, error: bytes) -> None:
        """What had to be done before the command has failed: that is its answer."""
        if self.state == SYNCING:
            self.state = IDLE
            self._forget_command()
            self._drop_command()
            self.to_client += packet(1, error)

    # -------------------------------------------------------------------------------------------------------------- captures

    def explains(self, known: bool) -> bool:
        """The session has changed. True when it is known in what: by the server's reports (`known`) or by the statement's text."""
        if self._action == s.C_INIT_DB:
            return True
        kinds = {kind for kind, _ in self._steps}
        if s.E_UNKNOWN in kinds:
            return False
        # Any other statement has set a variable by a function, which may have set user variables as well.
        return not kinds.isdisjoint(s.EXPLAINING) or (known and sql.sets(self.text))

    def suspect(self, reports: dict[str, bytes]) -> None:
        """Which of the server's reports must be verified: a SET with COLLATE or DEFAULT is not reported as it is."""
        if self._marks & sql.M_COLLATES:
            self._suspects.update(sql.to_be_verified(reports))

    def capture(self, server: ServerRelay, leaving: bool) -> bool:
        """Ask what would be gone with the server connection. True if something was asked."""
        wanted = self.captures if leaving else self.captures & CAPTURE_AT_ONCE
        if not wanted:
            return False
        self.captures &= ~wanted
        if wanted & (CAPTURE_WARNINGS | CAPTURE_STATUS) and not wanted & CAPTURE_FOUND_ROWS:
            # (Each of the two destroys the other: SHOW WARNINGS finds rows, and the deprecated FOUND_ROWS() warns.)
            self.to_server += server.ask(Request(FOR_WARNINGS), SHOW_WARNINGS)
        if wanted & CAPTURE_FOUND_ROWS:
            self.to_server += server.ask(Request(FOR_FOUND_ROWS), SELECT_FOUND_ROWS)
        if wanted & CAPTURE_INSERT_ID:
            self.to_server += server.ask(Request(FOR_INSERT_ID), SELECT_INSERT_ID)
        if wanted & CAPTURE_VALUES:
            names = tuple(sorted(self._suspects))
            self._suspects.clear()
            request = Request(FOR_VALUES)
            request.names = names
            self.to_server += server.ask(request, bytes((wire.COM_QUERY,)) + sql.select_values(names))
        return True

    def captured(self, server: ServerRelay, request: Request, kept: list[bytes], error: bytes) -> None:
        """The answer to one of our questions."""
        purpose = request.purpose
        if error:
            if purpose == FOR_VALUES:
                raise RemoteProtocolError(f"the session's settings could not be read: {error_text(error)}")
            return
        if purpose == FOR_WARNINGS:
            result = codec.parse_result(b"".join(kept), server.capabilities)
            self._warnings = result.rows
            self._warning_columns = result.columns
            return
        values = first_row(kept, server.capabilities)
        if purpose == FOR_VALUES and len(values) == len(request.names):
            reports = {name: value or b"" for name, value in zip(request.names, values, strict=True)}
            server.settings = sql.with_reports(server.settings, reports)
            self.new_settings(server.settings)
        elif values and values[0] is not None and values[0].isdigit():
            if purpose == FOR_FOUND_ROWS:
                self._found_rows = int(values[0])
            elif purpose == FOR_INSERT_ID:
                self.insert_id = server.insert_id = int(values[0])


PLAIN_QUERIES: Final[set[bytes]] = set()
"""COM_QUERY packets, whole, in whose text sql.py found nothing: programs send the same ones again and again."""
MAX_PLAIN_QUERIES: Final = 4096
MAX_REMEMBERED: Final = 1024
QUERY: Final = bytes((wire.COM_QUERY,))
UNKNOWN_STEP: Final = (s.E_UNKNOWN, s.UNREAD)
SHOW_WARNINGS: Final = bytes((wire.COM_QUERY,)) + b"SHOW WARNINGS"
SELECT_FOUND_ROWS: Final = bytes((wire.COM_QUERY,)) + b"SELECT FOUND_ROWS()"
SELECT_INSERT_ID: Final = bytes((wire.COM_QUERY,)) + b"SELECT LAST_INSERT_ID()"
LOGIN_SCHEMA: Final = "\1"
"""Stands for the schema of the login in a statement's key. No schema's name."""
TO_BE_READ: Final = sql.M_LOCAL | sql.M_KILL | sql.M_DIAGNOSTICS
ABOUT_ERRORS: Final = frozenset((sql.Q_SHOW_ERRORS, sql.Q_ERROR_COUNT))
COUNTS: Final = frozenset((sql.Q_WARNING_COUNT, sql.Q_ERROR_COUNT))
TEXTS: Final = frozenset((wire.COM_STMT_PREPARE, wire.COM_STMT_SEND_LONG_DATA))
MAY_BE_LONG: Final = frozenset((s.C_QUERY, s.C_EXECUTE))
WITH_STATEMENT: Final = frozenset((s.C_FETCH, s.C_RESET_STATEMENT))
ERROR_LEVEL: Final = b"\x05Error"
WARNING_COLUMNS: Final = [
    codec.column(b"Level", codec.VAR_STRING, 45, 28, 1),
    codec.column(b"Code", codec.LONG, 63, 4, 0x21),
    codec.column(b"Message", codec.VAR_STRING, 45, 2048, 1),
]
HANDLERS: Final = {
    s.C_REFUSED: ClientRelay._unknown_command,
    s.C_QUERY: ClientRelay._query,
    s.C_PREPARE: ClientRelay._prepare,
    s.C_EXECUTE: ClientRelay._execute,
    s.C_LONG_DATA: ClientRelay._long_data,
    s.C_CLOSE_STATEMENT: ClientRelay._close_statement,
    s.C_RESET_STATEMENT: ClientRelay._reset_statement,
    s.C_FETCH: ClientRelay._fetch,
    s.C_INIT_DB: ClientRelay._pass_command,
    s.C_PING: ClientRelay._ping,
    s.C_RESET: ClientRelay._reset_connection,
    s.C_SET_OPTION: ClientRelay._set_option,
    s.C_FIELD_LIST: ClientRelay._pass_command,
    s.C_STATISTICS: ClientRelay._pass_command,
    s.C_KILL: ClientRelay._process_kill,
    s.C_QUIT: ClientRelay._quit,
    s.C_CHANGE_USER: ClientRelay._change_user,
}
