"""The hot path of MySQL, the server's side: what its packets answer, and what of them the client gets. See requests.py."""

from struct import Struct
from typing import TYPE_CHECKING, Final

from dualpool.buffer import HeldBytes
from dualpool.errors import FeatureRefused, RemoteProtocolError
from dualpool.mysql import session_sql, wire
from dualpool.mysql import states as s
from dualpool.mysql.codec import Ok, after_definitions, build_ok, parse_ok, skip_rows, skip_rows_shifting
from dualpool.mysql.messages import error_payload, error_text
from dualpool.mysql.requests import (
    CAPTURE_INSERT_ID,
    EXCHANGE_REQUEST,
    FOR_CLIENT,
    FOR_EXCHANGE,
    FOR_RESET,
    FOR_SCHEMA,
    FOR_SETTINGS,
    IDLE,
    IN_FRONT,
    LOOKS,
    PROBES,
    SENDING_FILE,
    SYNCING,
    Request,
)
from dualpool.mysql.server_session import MAX_PROVEN, NOT_KNOWN, NOT_SUPPORTED, ServerSession, refusal
from dualpool.mysql.statements import ServerStatement
from dualpool.mysql.wire import INT16, INT32, MAX_PAYLOAD, get_lenenc, packet
from dualpool.protocol import BROKEN, CLOSE, FORWARD, LEAKED, PINNED, RELEASE, STATEMENT, RelayLimits

if TYPE_CHECKING:
    from dualpool.mysql.client_relay import ClientRelay

MAX_ANSWER: Final = 1 << 24
"""A packet that must be read whole may be this long."""
MAX_COLUMNS: Final = 65_535
LOCAL_FILES_DISABLED: Final = 3948

# How a client's dialect differs from its server connection's.
ADD_EOF: Final = 1
DROP_EOF: Final = 2
OK_DIFFERS: Final = 4

READ_ONLY: Final = frozenset(number.to_bytes(2, "little") for number in (1290, 1792, 1836))
"""ER_OPTION_PREVENTS_STATEMENT (read_only), ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE."""
NO_TRANSACTIONS: Final = "Transactions are not allowed in statement mode. Use a listener with pool_mode = transaction."
MAX_SHORT: Final = 4096
"""Bytes of an answer that is kept until the next statement, in case its rows must be counted."""
NOT_QUICK_STATUS: Final = (
    wire.STATUS_MORE_RESULTS
    | wire.STATUS_CURSOR_EXISTS
    | wire.STATUS_LAST_ROW_SENT
    | wire.STATUS_PS_OUT_PARAMS
    | wire.STATUS_METADATA_CHANGED
    | wire.STATUS_SESSION_STATE_CHANGED
    | 0xFFFF0000
)
"""In the last four bytes of an OK packet: of the status, or any warning."""
AS_IT_IS: Final = -1
"""Of a result's columns nothing is known but what the server says."""
SHORT_OK: Final = Struct("<IBHI")
"""An OK packet of 11 bytes: length and number, first byte, number of rows and AUTO_INCREMENT's number, status and number of warnings."""
HEAD: Final = Struct("<IB")
"""Length and number of a packet, and its first byte."""
FIRST_NUMBER: Final = 1 << 24
"""The first packet of an answer has the number 1."""
SHORT_HEAD: Final = 7 | FIRST_NUMBER
COUNT_HEAD: Final = b"\1\0\0\1"
EOF_HEADS: Final = tuple(packet(number, bytes((wire.EOF, 0, 0, 0, 0)))[:-2] for number in range(256))
"""By its number: what an EOF packet without warnings has in front of its status."""
NOT_PREPARED: Final = error_payload(1295, "HY000", "This command is not supported in the prepared statement protocol yet")
"""ER_UNSUPPORTED_PS, in MySQL's words."""
BEGINNINGS: Final = frozenset((s.DONE, s.HEAD, s.PREPARED, s.TEXT, s.FETCHED, s.FIRST_FIELD))
NOT_A_COUNT: Final = frozenset((wire.OK, wire.EOF, wire.ERR, wire.LOCAL_INFILE))
OKS: Final = frozenset((wire.OK, wire.EOF))
ROW_PHASES: Final = frozenset((s.FIRST_ROW, s.FETCHED, s.ROWS))
FIELD_PHASES: Final = frozenset((s.FIRST_FIELD, s.FIELDS))
CURSOR_PHASES: Final = frozenset((s.COLUMNS_END, s.FIRST_ROW))
DEFINITIONS: Final = frozenset((s.COLUMNS, s.PARAMETERS, s.RESULT_COLUMNS))
ENDS_OF_DEFINITIONS: Final = frozenset((s.COLUMNS_END, s.PARAMETERS_END, s.RESULT_COLUMNS_END))
LOCAL_FILES_TEXT: Final = "Loading local data is disabled; this must be enabled on both the client and server sides"

_common_oks: dict[int, Ok] = {}
"""What most OK packets say: by status flags (16 bits), and in front of them whether it ends a result (0), or one row more than it tells.

They are shared, so nobody changes them. As the flags of NOT_QUICK_STATUS are never among them, they are at most 3 * 1024.
"""


class ServerRelay(ServerSession):
    """See the module."""

    __slots__ = (
        "_answer", "_chunk", "_columns", "_continued", "_file_refused", "_held", "_left", "_more", "_out", "_parts", "_prepared_warnings",
        "_result_columns", "_skip", "_start", "_status", "copying_in", "dialect", "file_sequence", "met", "unfinished",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, capabilities: int, version: str = "", schema: str = "") -> None:
        super().__init__(limits, capabilities, version, schema)
        self.copying_in = False
        """The server waits for a local file; `end_file()` makes the packet that ends it."""
        self.file_sequence = 0
        """The number of the last packet about the file, from either side."""
        self.unfinished = False
        """A command has been sent in part; if the rest never comes, the connection is lost."""
        self.dialect = 0
        self.met = capabilities
        """The capabilities of the client whose `dialect` it is."""
        self._left = 0
        self._result_columns = 0
        self._prepared_warnings = 0
        self._status = wire.STATUS_AUTOCOMMIT
        self._skip = 0
        self._continued = False
        self._more = False
        """Another result of the same command follows."""
        self._file_refused = False
        self._answer = b""
        """What has come of the answer that is due, if nothing else is due; more than MAX_SHORT of it is only known to be too long."""
        self._columns = AS_IT_IS
        """What the status flags of the result that is coming say of its columns: 0, STATUS_METADATA_CHANGED, or what the server says."""
        self._parts = b""
        """Of the results of a command that are over: b"r" for each result with rows, b"o" for each OK."""
        self._held = HeldBytes()
        self._chunk: bytes | bytearray = b""
        self._start = 0
        self._out: list[bytes | bytearray] | None = None

    # ------------------------------------------------------------------------------------------------------- for the exchanges

    def answered(self) -> bool:
        """True when no answer is outstanding."""
        return not self.requests and not self._held.size and not self._skip

    def is_quiet(self) -> bool:
        return not (self.requests or self.in_transaction or self.is_pinned() or self.unfinished or self._held.size or self._skip)

    def transaction_flags(self) -> int:
        """What the status flags say of the transaction that is open, if one is."""
        return wire.STATUS_IN_TRANS | self._status & wire.STATUS_IN_TRANS_READONLY if self.in_transaction else 0

    def is_midway(self) -> bool:
        # Also between two packets of an answer: the client wants the next one under a number that is not known here.
        begun = self._more or (self._phase not in BEGINNINGS and not self._file_refused)
        return (begun or self._skip > 0 or self._continued) and not self._hiding

    def is_lost(self) -> bool:
        return self.unfinished or self.spoiled

    def expect_hidden(self) -> None:
        """An exchange is about to send a command: keep its answer from clients. `last_error` tells afterwards whether it failed."""
        self.last_error = b""
        self.expect(EXCHANGE_REQUEST)

    def end_file(self) -> bytes:
        """The empty packet that ends the local file which the server waits for."""
        self.copying_in = False
        return wire.header(self.file_sequence + 1, 0)

    def meet(self, capabilities: int) -> None:
        """A lease begins, of a client with other capabilities than the one before."""
        self.met = capabilities
        self.dialect = dialect(capabilities, self.capabilities)

    # ------------------------------------------------------------------------------------------------------ the server's bytes

    def on_server_bytes(self, data: bytes) -> int:
        client = self.client
        if self._phase == s.HEAD and client is not None and client.quick and len(self.requests) == 1 and not self._held.size:
            ok = self._whole_answer(data, client)
            verdict = self._read(data) if ok is None else self._over(ok, b"", data if ok.affected < 0 and len(data) < MAX_SHORT else b"")
        else:
            verdict = self._read(data)
        client = self.client
        if client is not None and (client.to_client or client.to_server):
            # What it has said while it was told of answers comes behind them.
            self.to_server += client.to_server
            self.to_client += client.to_client
            client.to_server = client.to_client = b""
        if self.pins != self._told_pins:
            self._told_pins = self.pins
            verdict |= PINNED
        return verdict | LEAKED if self.leak else verdict

    def _read(self, data: bytes) -> int:
        """`data`, packet by packet."""
        self._keep_answer(data)
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
        return verdict

    def _keep_answer(self, data: bytes) -> None:
        """`data` has come: is it of an answer that may be wanted again (`_answer`)?"""
        if self._phase == s.HEAD and not self._more and not self._held.size:
            self._answer = data if len(self.requests) == 1 and not self._hiding else b""
        elif self._answer and len(self._answer) < MAX_SHORT:
            self._answer += data

    def _whole_answer(self, data: bytes, client: "ClientRelay") -> Ok | None:
        """Most of all answers: OK, or a result with few rows, all there, that changes nothing. It is passed on unparsed. None: it is none.

        Nothing is pinned (`ClientRelay.quick`). What it means is for `_over` to say, as of every other answer.
        """
        end = len(data)
        if end < 11:
            return None
        insert_id = 0
        # The last packet, or the only one, if it is a short OK.
        head, kind, affected, status = SHORT_OK.unpack_from(data, end - 11)
        if data[4]:
            if kind != wire.EOF or affected or head & 0xFFFFFF != 7 or not self.capabilities & wire.CLIENT_DEPRECATE_EOF:
                return None
            affected = -1
        elif end > 11 or affected > 0xFF:
            affected, insert_id, status = self._whole_ok(data)
        elif head != SHORT_HEAD:
            return None
        if status & NOT_QUICK_STATUS or (self.mode == STATEMENT and status & wire.STATUS_IN_TRANS):
            return None
        passed = data
        if affected < 0:
            passed = self._whole_result(data, end - 11, client.executing_on)
            if not passed or (client.executing_on is not None and not client.expects(data[4])):
                return None
        self.to_client = self.to_client + passed if self.to_client else passed
        # As _take_status, of flags among which are none of NOT_QUICK_STATUS.
        self._status = status
        self.in_transaction = status & wire.STATUS_IN_TRANS != 0
        self._more = False
        if affected > 1 or insert_id:
            return Ok(affected, insert_id, status)
        key = (affected + 1) << 16 | status
        ok = _common_oks.get(key)
        if ok is None:
            ok = _common_oks[key] = Ok(affected, insert_id, status)
        return ok

    def _take_status(self, status: int) -> None:
        """The status flags at the end of an answer."""
        self._status = status & ~NOT_QUICK_STATUS
        self.in_transaction = status & wire.STATUS_IN_TRANS != 0
        self._more = status & wire.STATUS_MORE_RESULTS != 0

    def _whole_ok(self, data: bytes) -> tuple[int, int, int]:
        """Number of rows, AUTO_INCREMENT's number, status with warnings: if `data` is one OK packet that the client can have as it is."""
        size = len(data)
        if size < MAX_SHORT and INT32.unpack_from(data)[0] == size - 4 | FIRST_NUMBER:
            affected, position = get_lenenc(data, 5)
            insert_id, position = get_lenenc(data, position)
            if position + 4 == size or (position + 4 < size and not self.dialect & OK_DIFFERS):
                return affected, insert_id, INT32.unpack_from(data, position)[0]
        return 0, 0, NOT_QUICK_STATUS

    def _whole_result(self, data: bytes, last: int, statement: ServerStatement | None) -> bytes:
        """What the client gets of `data`, if it is a result whose last packet, a short OK, begins at `last`; b"": it is none.

        `statement`: what was executed. What its results begin with is known from the one before.
        """
        known = statement.definitions if statement is not None else b""
        if known and data.startswith(known):
            rows = len(known)
        else:
            rows = after_definitions(data, 5, data[4]) if data[:4] == COUNT_HEAD and 0 < data[4] <= 250 else 0
            if not rows:
                return b""
            if statement is not None and rows < MAX_SHORT:
                statement.definitions = data[:rows]
        if rows > last:
            return b""
        head, first = HEAD.unpack_from(data, rows)
        one = rows + 4 + (head & 0xFFFFFF) == last and first < wire.EOF
        if not self.dialect & ADD_EOF:
            return data if one or skip_rows(data, rows, len(data)) == last else b""
        # An EOF packet behind the definitions, in front of the rows; and one in the place of the OK packet.
        number = data[rows + 3]
        if one:
            changed = bytearray(data[rows:last])
            changed[3] = number + 1 & 255
        else:
            changed = bytearray(data[rows:])
            if skip_rows_shifting(changed, 0, len(changed), 1) != last - rows:
                return b""
            del changed[last - rows :]
        status = data[last + 7 : last + 9]
        return b"".join((data[:rows], EOF_HEADS[number], status, changed, EOF_HEADS[data[last + 3] + 1 & 255], status))

    def _walk(self, position: int, end: int) -> tuple[int, int]:
        """Deal with every packet that can be dealt with. Returns where the rest begins, and the verdict."""
        verdict = FORWARD
        while end - position >= 4:
            phase = self._phase
            if phase in ROW_PHASES and not self._continued:
                if phase != s.ROWS and not self._first_row(position, end):
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
        """True when a row stands at `position`, the first of its result; then the client has the definitions' EOF packet in front of it."""
        if end - position < 5 or (self._chunk[position + 4] > 0xFD and self._size(position) < MAX_PAYLOAD):
            return False
        defined = self._phase == s.FIRST_ROW
        self._move(s.P_ROW)
        if defined and self.dialect & ADD_EOF and not self._hiding:
            self._add_eof(position, self._chunk[position + 3], self._status_ahead(position))
        return True

    def _status_ahead(self, position: int) -> int:
        """The status flags of the result whose first row stands at `position`: as at its end, if that has come already.

        Else they are those of the session, and whether another result follows is known from the text. (A server says it already behind
        the columns, and clients that read rows one by one believe that.)
        """
        status = self._end_ahead(position)
        return status & ~wire.STATUS_METADATA_CHANGED | self._columns if self._columns >= 0 else status

    def _end_ahead(self, position: int) -> int:
        chunk = self._chunk
        end = skip_rows(chunk, position, len(chunk))
        if end + 5 <= len(chunk) and chunk[end + 4] == wire.EOF and end + 4 + self._size(end) <= len(chunk):
            status = parse_ok(bytes(chunk[end + 4 : end + 4 + self._size(end)]), self.capabilities).status
            # (A cursor has no rows here, though MySQL says behind those of EXPLAIN that there is one.)
            return status & ~wire.STATUS_CURSOR_EXISTS
        client = self.client
        more = client is not None and client.more_follows(self._parts)
        return self._status | (wire.STATUS_MORE_RESULTS if more else 0)

    def _size(self, position: int) -> int:
        chunk = self._chunk
        return chunk[position] | chunk[position + 1] << 8 | chunk[position + 2] << 16

    # -------------------------------------------------------------------------------------------------------------- one packet

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
        elif phase in FIELD_PHASES and first != wire.EOF:
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
        self._columns = AS_IT_IS
        if self.client is not None and not self._hiding and not self._parts:
            self._columns = self.client.new_columns(count)
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
            self._add_eof(following, self._number_after(position), self._status)
        return self._next_list(phase)

    def _next_list(self, phase: int) -> int:
        """A list of COM_STMT_PREPARE's answer is over: the next one, or the end."""
        if self._phase == s.RESULT_COLUMNS and phase != s.RESULT_COLUMNS:
            self._left = self._result_columns
            if not self._left:
                self._move(s.P_NO_COLUMNS)
        if self._phase == s.DONE:
            return self._over(Ok(0, 0, self._status, self._prepared_warnings), b"")
        return FORWARD

    def _prepared(self, position: int, following: int, first: int) -> int:
        if first != wire.OK:
            raise RemoteProtocolError("an answer to COM_STMT_PREPARE that cannot be understood")
        if following - position < 16:
            return self._not_prepared(position, following)
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
            own = client.prepared(params, columns)
            self._replace(position, following, payload[:1] + INT32.pack(own) + payload[5:])
        self._result_columns = columns
        self._prepared_warnings = INT16.unpack_from(payload, 10)[0]
        self._left = params
        if not params:
            phase = self._phase
            self._move(s.P_NO_PARAMETERS)
            return self._next_list(phase)
        return FORWARD

    def _not_prepared(self, position: int, following: int) -> int:
        """An OK without a statement, with which no driver could go on: MariaDB's to HELP, where it has no tables for that."""
        self._move(s.P_ERR)
        if self._hiding:
            self._hide(position, following)
        else:
            self._replace(position, following, NOT_PREPARED)
        return self._over(None, NOT_PREPARED)

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
        changed = False
        if self._columns >= 0 and first == wire.EOF and not self._hiding:
            changed = ok.status & wire.STATUS_METADATA_CHANGED != self._columns
            ok.status = ok.status & ~wire.STATUS_METADATA_CHANGED | self._columns
        status = ok.status
        cursor = bool(status & wire.STATUS_CURSOR_EXISTS) and phase in CURSOR_PHASES
        middle = phase in ENDS_OF_DEFINITIONS and not cursor
        if middle:
            self._move(s.P_END)
            self._status = status & ~NOT_QUICK_STATUS
            if self._hiding:
                self._hide(position, following)
            elif self.dialect & DROP_EOF:
                self._replace(position, following, None)
                self._renumber(-1)
            elif changed:
                self._replace(position, following, build_ok(ok, 0, wire.EOF))
            elif self._shift:
                self._number(position)
            return self._next_list(phase) if phase != s.COLUMNS_END else FORWARD
        self._take_status(status)
        more = self._more
        if cursor:
            self._move(s.P_CURSOR)
        elif first == wire.OK:
            self._move(s.P_OK_MORE if more else s.P_OK)
        else:
            self._move(s.P_END_MORE if more else s.P_END)
        client = self.client
        pins = 0
        if not self._hiding:
            if ok.changes:
                self._track(ok.changes)
            if client is not None and self._phase == s.DONE:
                client.apply_steps(self, ok=True)
            pins = self.pins | s.PIN_CURSOR if cursor else self.pins
        if self._hiding:
            self._hide(position, following)
        elif self._file_refused and not more:
            self._file_refused = False
            self._replace(position, following, error_payload(LOCAL_FILES_DISABLED, "42000", LOCAL_FILES_TEXT))
            return self._over(None, b"") if self._phase == s.DONE else FORWARD
        elif self.mode == STATEMENT and self.in_transaction and self.client is not None:
            return self._refuse_result(position, following, NO_TRANSACTIONS)
        elif client is not None and client.refused_pins & pins:
            return self._refuse_result(position, following, refusal(client.refused_pins & pins))
        else:
            if pins and client is not None and self._phase == s.DONE:
                ok.warnings += client.note(pins)
            self._show_ok(position, following, first, phase, ok, cursor, changed)
        if first == wire.EOF:
            ok.affected = -1  # what ROW_COUNT() says after a result
        if status & wire.STATUS_CURSOR_EXISTS and not cursor and client is not None and not self._hiding:
            ok.status &= ~wire.STATUS_CURSOR_EXISTS
            client.has_no_cursor(self)
        if self._phase != s.DONE:
            return self._between(ok)
        countable = ok.affected < 0 and not cursor and len(self._answer) < MAX_SHORT and self.capabilities & wire.CLIENT_DEPRECATE_EOF
        return self._over(ok, b"", self._answer if countable else b"")

    def _show_ok(self, position: int, following: int, first: int, phase: int, ok: Ok, cursor: bool, changed: bool) -> None:
        """Let an OK packet pass in the client's dialect. `changed`: `ok` is not what stands there."""
        dialect_differs = self.dialect
        client = self.client
        if client is None or not (dialect_differs or changed or client.has_notes()):
            return
        if first == wire.EOF and phase == s.FIRST_ROW and dialect_differs & ADD_EOF and not cursor:
            self._add_eof(position, self._chunk[position + 3], ok.status)
        rewrite = changed or client.has_notes() or (first == wire.EOF and dialect_differs & (ADD_EOF | DROP_EOF))
        if dialect_differs & OK_DIFFERS and following - position > 11:
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
            self._add_eof(position, self._chunk[position + 3], self._status_ahead(position))
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

    # ---------------------------------------------------------------------------------------------------- the end of an answer

    def _between(self, ok: Ok) -> int:
        """One of several results of a command is over."""
        self._answer = b""
        self._columns = AS_IT_IS
        self._parts += b"r" if ok.affected < 0 else b"o"
        client = self.client
        if client is not None and not self._hiding and ok.insert_id:
            client.captures |= CAPTURE_INSERT_ID
            client.told_id = ok.insert_id
        if client is not None and not self._hiding and ok.warnings and "MariaDB" in self.version:
            client.warned = True
        return FORWARD

    def _over(self, ok: Ok | None, error: bytes, answer: bytes = b"") -> int:
        """The answer to the first request is over: both the quick way and the other one end here.

        `error`: the ERR packet's payload, or b"". `answer`: all of it, if it is one short result that came alone.
        """
        if error and self.wants_writes and error[1:3] in READ_ONLY:
            self.refused_write = self.dirty = True
        request = self.requests.popleft()
        kept = self._kept
        self._answer = b""
        if self._parts:
            self._parts = b""
        self._columns = AS_IT_IS
        if self.requests:
            self._begin(self.requests[0])
        else:
            self._phase = s.DONE
            self._shift = 0
            if request.hidden:
                self._hiding = False
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
            client.answered(self, ok, error, answer)
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
                self.settings = session_sql.UNKNOWN
                self.tracks = False
                self.dirty = True
                client.fail_command(error)
            elif request.text:
                if len(self.proven) >= MAX_PROVEN:
                    self.proven.clear()
                self.proven.add(request.text)
        elif purpose == FOR_RESET:
            if error:
                raise RemoteProtocolError(f"the session could not be reset: {error_text(error)}")
            self.was_reset(tracks=False)
            self.holds.sequence = True
            self.repin(client.text if client is not None else b"")
        elif purpose in IN_FRONT:
            if error and purpose == FOR_SCHEMA:
                self.schema = NOT_KNOWN
            if error and client is not None:
                client.fail_command(error)
        elif client is not None:
            if purpose in PROBES:
                self._settled(request, kept, error, client)
            elif purpose in LOOKS:
                self._looked(request, kept, client)
            else:
                client.captured(self, request, kept, error)

    def settle(self) -> int:
        """Everything that was asked is answered. What now? Raises FeatureRefused if the client has to go."""
        client = self.client
        if client is None or self.requests:
            return FORWARD
        if self._refusal is not None:
            raise self._refusal
        state = client.state
        if state == SYNCING:
            return client.advance(self)
        if state != IDLE or client.passing or client.goes_on:
            return FORWARD
        free = s.RELEASING[self.mode][self.in_transaction]
        unsettled = self.holds.unsettled
        if not (self.pins or unsettled or client.captures or self.asked_about):
            return RELEASE if free else client.go_on()
        # It may leave, as far as is known without asking.
        leaving = free and not self.pins & ~unsettled
        if client.captures and client.capture(self, leaving):
            if leaving and unsettled & ~s.DOUBT:
                self._probe(unsettled, client)
            return FORWARD
        if leaving and unsettled & ~s.DOUBT and self._probe(unsettled, client):
            return FORWARD
        if leaving and self.asked_about and not self.holds.unsettled & ~s.DOUBT:
            self.knowledge.found(self.asked_about, self.is_clean)
            self.asked_about.clear()
            self.is_clean = True
            self._changed = False
        if self.pins & client.refused_pins and free:
            self.dirty = True
            raise FeatureRefused(refusal(self.pins & client.refused_pins))
        if leaving and not self.pins and self.holds.unsettled:
            self.look(client)
            return FORWARD
        return RELEASE if leaving and not self.pins else client.go_on()

    # ------------------------------------------------------------------------------------------------- what goes to the client

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
        self._start = 0
        self.to_client = self.to_client + whole if self.to_client else whole

    def _drop_output(self) -> None:
        self._out = None
        self._chunk = b""
        self._start = 0
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

    def _replace(self, position: int, following: int, payload: bytes | None) -> None:
        """Put another payload in the place of a packet's, under its number; None: nothing at all."""
        out = self._cut(position)
        if payload is not None:
            out.append(packet(self._chunk[position + 3] + self._shift, payload))
        self._start = following

    def _add_eof(self, position: int, number: int, status: int) -> None:
        """An EOF packet in front of `position`, where a packet with the server's number `number` stands (or would)."""
        payload = bytes((wire.EOF, 0, 0)) + INT16.pack(status & ~wire.STATUS_SESSION_STATE_CHANGED)
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


def dialect(client: int, server: int) -> int:
    """How the answers must be changed, from the capabilities of both."""
    differs = 0
    if server & ~client & wire.CLIENT_DEPRECATE_EOF:
        differs |= ADD_EOF
    if client & ~server & wire.CLIENT_DEPRECATE_EOF:
        differs |= DROP_EOF
    if (client ^ server) & wire.CLIENT_SESSION_TRACK:
        differs |= OK_DIFFERS
    return differs
