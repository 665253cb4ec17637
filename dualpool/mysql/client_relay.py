"""The hot path of MySQL, the client's side: what its commands ask of a server connection, and which of them need none. See requests.py."""

from struct import Struct
from typing import Any, Final

from pymysql.charset import _charsets

from dualpool import protocol
from dualpool.errors import DualpoolError, FeatureRefused
from dualpool.mysql import codec, reading, session_sql, wire
from dualpool.mysql import states as s
from dualpool.mysql.client_sending import CLEARING, LOGIN_SCHEMA, MAY_CREATE, UNKNOWN_STATEMENT, WITH_STATEMENT, ClientSender
from dualpool.mysql.client_session import NOTHING_READ, error_row
from dualpool.mysql.codec import Ok, build_ok
from dualpool.mysql.knowledge import NOTHING_KNOWN
from dualpool.mysql.messages import error_message, error_payload
from dualpool.mysql.reading import Reading
from dualpool.mysql.requests import CAPTURE_OF_SESSION, CAPTURE_WARNINGS, IDLE, KILLING, OF_ONE_STATEMENT, SENDING_FILE, SYNCING, WAITING
from dualpool.mysql.server_relay import ServerRelay
from dualpool.mysql.server_session import NOT_SUPPORTED, refusal
from dualpool.mysql.shapes import DIGITS
from dualpool.mysql.statements import ClientStatement, bound_types, close_packet
from dualpool.mysql.wire import INT16, INT32, MAX_PAYLOAD, packet, put_lenenc
from dualpool.protocol import CANCEL, CLOSE, FORWARD, NEEDS_SERVER, REACCEPT, SESSION, VACATE, VERIFY_NEVER

# Errors that we answer ourselves: MySQL Server Error Reference.
UNKNOWN_COMMAND: Final = 1047
UNKNOWN_THREAD: Final = 1094
TOO_LARGE: Final = 1153
OUT_OF_ORDER: Final = 1156
WRONG_ARGUMENTS: Final = 1210
NO_OPEN_CURSOR: Final = 1421
CURSOR_TYPE: Final = 5
"""Where it is in the payload of a COM_STMT_EXECUTE."""
MALFORMED: Final = 1835

BEGINNING: Final = Struct("<IBI")
"""Of a command: the length and number of its packet, what it is, and the number of its statement, if it has one."""
SHORTEST: Final = BEGINNING.size
MAX_REMEMBERED: Final = 1024
QUOTE: Final = ord("'")
PAREN: Final = ord("(")
CHANGED: Final = reading.M_OWN_ID | reading.M_NUMBERS | reading.M_UNSCOPED
"""Another text goes to the server."""
ABOUT_SESSION: Final = reading.M_LOCAL | reading.M_NUMBERS
NOT_KNOWN_NUMBERS: Final[dict[str, int | None]] = {
    reading.N_ROW_COUNT: None,
    reading.N_FOUND_ROWS: None,
    reading.N_WARNINGS: None,
    reading.N_ERRORS: None,
}
FOUND_ROWS: Final[dict[str, int | None]] = {reading.N_FOUND_ROWS: None}
TO_BE_READ: Final = reading.M_LOCAL | reading.M_KILL | reading.M_DIAGNOSTICS
ABOUT_ERRORS: Final = frozenset((reading.Q_SHOW_ERRORS, reading.Q_ERROR_COUNT))
ABOUT_PREVIOUS: Final = reading.M_FOUND_BEHIND | reading.M_PREVIOUS | reading.M_COUNT_UNREAD
COUNTS: Final = frozenset((reading.Q_WARNING_COUNT, reading.Q_ERROR_COUNT))
TEXTS: Final = frozenset((wire.COM_STMT_PREPARE, wire.COM_STMT_SEND_LONG_DATA))
MAY_BE_LONG: Final = frozenset((s.C_QUERY, s.C_EXECUTE))
NO_SEQUENCES: Final[frozenset[bytes]] = frozenset()
ERROR_LEVEL: Final = b"\x05Error"
NOT_KNOWN_WARNINGS: Final = (
    "Outside a transaction the warnings of the statement before are only known to a text that asks for nothing else."
    " Send SHOW WARNINGS alone, or use a listener in session mode."
)
NOT_KNOWN_COUNT: Final = (
    "Outside a transaction ROW_COUNT() is only known to a text without comments of a certain version (/*!99999 */)."
    " Send it without them, or use a listener in session mode."
)
UTF8: Final = 33
"""What is sent where the client has set character_set_results = NULL."""
UTF8MB4: Final = 45
UTF8MB4_IN_MYSQL: Final = 255
LETTERS: Final = {"utf8": 3, "utf8mb3": 3, "utf8mb4": 4, "gbk": 2, "gb2312": 2, "big5": 2, "euckr": 2, "sjis": 2, "cp932": 2, "gb18030": 4,
                  "ujis": 3, "eucjpms": 3, "ucs2": 2, "utf16": 4, "utf16le": 4, "utf32": 4}  # fmt: skip
"""How many bytes a letter may have, of character sets where that is not one."""


class ClientRelay(ClientSender):
    """See the module."""

    __slots__ = ()

    # ------------------------------------------------------------------------------------------------------ the client's bytes

    def on_client_bytes(self, data: bytes) -> int:
        server = self.server
        if (
            self.state == IDLE
            and len(data) >= SHORTEST
            and not (self._held or self._partial.size or self.passing or self.goes_on or self.always)
            and (server is None or not server.requests)
        ):
            head, command, number = BEGINNING.unpack_from(data)
            # Most of all commands: one packet with the number 0, a query that is known to be harmless whatever its values, or an EXECUTE.
            # (Programs send the same queries again and again, but for the numbers and strings in them.)
            plain = False
            if head == len(data) - 4:
                if command == wire.COM_STMT_EXECUTE:
                    plain = self._is_plain_execute(data, number)
                elif command == wire.COM_QUERY and head <= MAX_REMEMBERED:
                    text = data[5:]
                    plain = self.texts.knows(text) if QUOTE in text or PAREN in text else text.translate(None, DIGITS) in self._plain
                    if plain:
                        self._action = s.C_QUERY
                        self.text = text
            if plain:
                self._marks = 0
                self._steps = ()
                self._reading = NOTHING_READ
                self._held = data
                self._size = len(data)
                if server is None:
                    self.state = WAITING
                    return NEEDS_SERVER
                self.state = SYNCING
                return self.advance(server)
        if self._partial.size:
            data = self._partial.take(data)
            if not data:
                return FORWARD
        if self._held:
            data = self._held + data
            self._held = b""
        state = self.state
        if state == SENDING_FILE:
            return self._send_file(data)
        if self.passing or self.goes_on:
            return self._go_on_passing(data)
        if state == IDLE:
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
            need = self._must_hold(data[4], size) if len(data) < size else 0
            if len(data) < need:
                break
            self._action = s.CLIENT_ACTION[data[4]]
            self._size = size
            verdict = self._command(data)
            if self.state != IDLE or verdict:
                return verdict
            data = self._held
            self._held = b""
            if self.passing or self.goes_on:
                return self._go_on_passing(data)
        else:
            need = 5
        if len(data) == 4 and data[:3] == b"\0\0\0":
            return self._end_with(MALFORMED, "HY000", "Malformed communication packet: a command of no bytes")
        self._partial.keep(data, need)
        return FORWARD

    def _go_on_passing(self, data: bytes) -> int:
        """More of a command of which a part is on its way."""
        self._pass_on(data)
        if self.state != IDLE or self.passing or self.goes_on:
            return FORWARD
        # The answer was there before the whole question.
        server = self.server
        verdict = server.settle() if server is not None else FORWARD
        return verdict if verdict or server is not None else self.go_on()

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

    # --------------------------------------------------------------------------------------------------------------- the lease

    def attach(self, server: protocol.ServerRelay) -> int:
        leased: ServerRelay = server  # type: ignore[assignment]
        self.server = leased
        leased.client = self
        leased.mode = self.mode
        self.server_version = leased.version
        if self.knowledge is not leased.knowledge:
            self._know(leased)
        if self.capabilities != leased.met:
            leased.meet(self.capabilities)
        if self.defaults is not leased.defaults:
            self._meet_defaults(leased)
        leased.until_sample -= 1
        if not leased.until_sample:
            self._sample(leased)
        if self.state != WAITING:
            return leased.settle()
        self.state = SYNCING
        return self.advance(leased)

    def _sample(self, leased: ServerRelay) -> None:
        """Of `limits.verify_every` leases one is looked at, whatever it looked like: what is there at its end must be known."""
        every = self.limits.verify_every if self.mode != SESSION and not self.always & reading.M_STRICT else 0
        begins = leased.sampled_every != every
        leased.until_sample = leased.sampled_every = every
        if every and (every == 1 or not begins):
            leased.holds.unsettled |= s.DOUBT
            leased.sampled.clear()
            self._marks |= reading.M_STRICT

    def _know(self, leased: ServerRelay) -> None:
        """The first lease: now it is known how the server reads texts. What waits and was not certain is read again."""
        unknown = self.knowledge is NOTHING_KNOWN
        self.knowledge = leased.knowledge
        self.reads_by_settings()
        if not unknown or self.state != WAITING or not self._marks & reading.M_DOUBT:
            return
        if self._action == s.C_QUERY:
            self._reading = found = reading.read(self.text, self.texts.lexis)
            self._take(found)
            if self._marks & CHANGED and (changed := found.with_values(self.text, self._own_numbers(self._marks))) is not None:
                self._put_text(changed)

    def _meet_defaults(self, server: ServerRelay) -> None:
        """The session began when the server's defaults were other ones. (Of which two are not known, nothing can be said.)"""
        if self.defaults is session_sql.UNKNOWN_DEFAULTS:
            self.defaults = server.defaults
        elif server.defaults is not session_sql.UNKNOWN_DEFAULTS:
            self.defaults.supersede()
            server.settings = server.defaults.seen_from(self.defaults, server.settings)
            server.defaults = self.defaults

    def detach(self) -> None:
        server = self.server
        if server is None:
            return
        if server.schema is not None and not server.login_schema:
            # No command takes the choice of a schema back, and who has chosen none must not meet another's.
            server.spoiled = server.dirty = True
        if server.pins or server.holds.unsettled or self.mode == SESSION or server.requests or self.captures & CAPTURE_OF_SESSION:
            # What a session of its own may have left (locks, variables, temporary tables) no tracker tells in full. Nor do we know what a
            # command has left whose answer nobody waits for any more.
            server.dirty = True
        server.sequences = NO_SEQUENCES
        self.disturbed = True
        server.client = None
        self.server = None

    def error_message(self, error: DualpoolError) -> bytes:
        return error_message(error)

    def refuse(self, error: DualpoolError) -> int:
        if self.state == WAITING:
            self.state = IDLE
            self._forget_command()
            self._drop_command()
            self.to_client += error_message(error)
        return FORWARD

    # ---------------------------------------------------------------------------------------------------------------- commands

    def _query(self) -> int:
        self.text = text = self._head[1:]
        self._reading = found = reading.read(text, self.texts.lexis)
        if not found.marks and len(text) < MAX_REMEMBERED:
            self.texts.remember(text, found)
        self._take(found)
        marks = self._marks
        if marks & reading.ASKS_PREVIOUS:
            self._foresee(marks)
        if marks & TO_BE_READ:
            answered = self._answer_ourselves(found)
            if answered is not None:
                return answered
        if marks & reading.M_EXECUTES:
            marks |= self._asked_by(found)
        if marks & ABOUT_PREVIOUS:
            refused = self._refuse_previous(marks)
            if refused is not None:
                return refused
        if marks & CHANGED:
            changed = found.with_values(text, self._own_numbers(marks))
            if changed is None:
                return self._refuse_numbers()
            self._put_text(changed)
        return self._vacate(found) | self._to_server()

    def _take(self, found: Reading) -> None:
        """What must be known of a command with this reading before it runs, and what it may do."""
        # (One that only asks about the statement before leaves nothing.)
        self._marks = found.marks | (self.always if found.question is None else self.always & ~reading.M_DOUBT)
        self._steps = found.steps
        if found.marks & reading.M_DOUBT and not self._asks(found):
            self._steps = found.sure_steps
            self._marks &= ~reading.M_DOUBT

    def _foresee(self, marks: int) -> None:
        """What will be asked in front of this statement takes away what it asks about the one before."""
        server = self.server
        if server is not None and marks & MAY_CREATE and (server.baseline is None or server.holds.created == s.NOT_COUNTED):
            self.disturbed = True

    def _asks(self, found: Reading) -> bool:
        """Will the server be asked what this statement, whose effect is not known, has left?"""
        limits = self.limits
        return self.mode != SESSION and limits.verify != VERIFY_NEVER and not self.knowledge.is_learnt(found.key, limits)

    def _vacate(self, found: Reading) -> int:
        """VACATE if the statement drops a database: who is in it on other server connections would not hear of it."""
        if found.drops:
            self.vacates = found.drops
        return VACATE if self.vacates else FORWARD

    def _own_numbers(self, marks: int) -> dict[str, int | None]:
        """What of the session's own a statement cannot learn on a server connection that many have by turns."""
        values: dict[str, int | None] = {}
        if marks & reading.M_OWN_ID and self.connection_id and self.mode != SESSION:
            values[reading.N_CONNECTION_ID] = self.connection_id
        if marks & reading.M_NUMBERS and (self.server is None or self.disturbed):
            values[reading.N_ROW_COUNT] = self._row_count
            found = self.found_rows()
            values[reading.N_FOUND_ROWS] = found if found >= 0 else None
            values[reading.N_WARNINGS] = None if self._list_is_lost() else len(self._warnings)
            values[reading.N_ERRORS] = None if self._list_is_lost() else len(self._errors())
            return values
        if marks & reading.M_NUMBERS and self._counted_here:
            values[reading.N_ROW_COUNT] = self._row_count
        if marks & reading.M_NUMBERS and self.foreign_list:
            values[reading.N_WARNINGS] = len(self._warnings)
            values[reading.N_ERRORS] = len(self._errors())
        if marks & reading.M_NUMBERS and not self._has_counted_rows():
            found = self.found_rows()
            values[reading.N_FOUND_ROWS] = found if found >= 0 else None
        return values

    def _has_counted_rows(self) -> bool:
        """Does the server connection say of FOUND_ROWS() what is the client's own? Only the last statement is known to have run there."""
        return self.server is not None and not self.disturbed and self._has_rows

    def _errors(self) -> list[bytes]:
        """Of the last statement's warnings, those that are errors."""
        return [row for row in self._warnings if row.startswith(ERROR_LEVEL)]

    def _asked_by(self, found: Reading) -> int:
        """ABOUT_PREVIOUS, as far as it is asked by what was prepared by PREPARE and is executed now."""
        if self.server is None:
            return 0
        asking = self.server.holds.asking
        return ABOUT_PREVIOUS if any(kind == s.E_UNKNOWN and name in asking for kind, name in found.steps) else 0

    def _has_no_list(self) -> bool:
        """Does no server connection say what SHOW WARNINGS shows to this client?"""
        return self.server is None or self.disturbed or self.foreign_list

    def _list_is_lost(self) -> bool:
        """Has a question of ours taken away the server's list of warnings, or is it about to, before anybody knew them?"""
        return self.disturbed and bool(self.captures & CAPTURE_WARNINGS)

    def _refuse_previous(self, marks: int) -> int | None:
        """Refuse a text in which not all can be replaced that it tells of the statement before; None if it may go to the server."""
        if marks & reading.M_FOUND_BEHIND and not self._has_counted_rows():
            return self._refuse_found_rows()
        if marks & reading.M_PREVIOUS and self._has_no_list() and (self._warnings or self._list_is_lost()):
            return self._refuse_command(NOT_SUPPORTED, "42000", NOT_KNOWN_WARNINGS)
        if self.server is not None and not self.disturbed and not self._counted_here:
            return None
        return self._refuse_command(NOT_SUPPORTED, "42000", NOT_KNOWN_COUNT) if marks & reading.M_COUNT_UNREAD else None

    def _refuse_numbers(self) -> int:
        if self._list_is_lost():
            return self._refuse_command(NOT_SUPPORTED, "42000", NOT_KNOWN_WARNINGS)
        return self._refuse_found_rows()

    def _refuse_found_rows(self) -> int:
        self.always |= reading.M_CALC_FOUND_ROWS
        text = "FOUND_ROWS() is not known of this statement: it had no SQL_CALC_FOUND_ROWS, and ran outside a transaction."
        text += " From now on the rows of this session's results are counted."
        return self._refuse_command(NOT_SUPPORTED, "42000", text)

    def _to_server(self) -> int:
        """The command needs a server connection."""
        server = self.server
        if self._steps and self.refused_pins:
            pins = s.may_pin(self._steps) & self.refused_pins
            if pins:
                return self._end_with(NOT_SUPPORTED, "42000", refusal(pins))
        if server is None:
            self.state = WAITING
            return NEEDS_SERVER
        self.state = SYNCING
        return self.advance(server)

    def _answer_ourselves(self, found: Reading) -> int | None:
        """Answer what depends on which server connection it meets; None where it does not after all."""
        if found.marks & reading.M_KILL:
            if found.kill is None:
                return self._refuse_command(NOT_SUPPORTED, "42000", "KILL is only supported with a connection id.")
            target, connection = found.kill
            return self._kill(self.connection_id if target < 0 else target, connection)
        if found.marks & reading.M_DIAGNOSTICS:
            return self._diagnostics(found) if self._has_no_list() else None
        return None if found.question is None else self._answer_question(found.question)

    def _diagnostics(self, found: Reading) -> int | None:
        """GET DIAGNOSTICS, about a statement that ran on another server connection."""
        if self._list_is_lost():
            return self._refuse_command(NOT_SUPPORTED, "42000", NOT_KNOWN_WARNINGS)
        changed = found.as_set(len(self._warnings), self._row_count)
        if changed is None:
            why = "GET DIAGNOSTICS CONDITION is only supported inside a transaction. Use SHOW WARNINGS, or a listener in session mode."
            return self._refuse_command(NOT_SUPPORTED, "42000", why)
        self._put_text(changed)
        return None

    def _answer_question(self, question: reading.Question) -> int | None:
        kind = question.kind
        if kind == reading.Q_CONNECTION_ID:
            return self._answer_number(question, self.connection_id) if self.connection_id and self.mode != SESSION else None
        if kind == reading.Q_ROW_COUNT:
            return self._answer_number(question, self._row_count)
        if self.server is not None:
            # (Behind the last answer it may have been found to pin.)
            self.note(self.server.pins)
            self.take_notes()
            if kind == reading.Q_FOUND_ROWS:
                if self._has_counted_rows():
                    return None
            elif not self._has_no_list() and not self._noted:
                return None  # the statement that it is about ran on this very server connection
        if kind == reading.Q_FOUND_ROWS:
            found = self.found_rows()
            if found >= 0 and self._action == s.C_QUERY and "MariaDB" not in self.server_version:
                return None  # the server warns that it is deprecated
            return self._answer_number(question, found) if found >= 0 else self._refuse_found_rows()
        rows = self._errors() if kind in ABOUT_ERRORS else self._warnings
        if kind in COUNTS:
            return self._answer_number(question, len(rows))
        rows = rows[question.offset : question.offset + question.count]
        self._reply_result(warning_columns(self.settings.values.get("character_set_results", ""), self.server_version), rows)
        return FORWARD

    def _answer_number(self, question: reading.Question, number: int) -> int:
        """A result of one number."""
        value = b"%d" % number
        mariadb = "MariaDB" in self.server_version
        self._reply_result([number_column(question, mariadb)], [put_lenenc(len(value)) + value])
        if not mariadb and (question.variable or question.kind not in COUNTS):
            # (SHOW COUNT(*) WARNINGS leaves them, and MariaDB's stay until a statement uses a table.)
            self.captures &= ~OF_ONE_STATEMENT
            self._forget_warnings()
            self.disturbed = True
        self._row_count = -1
        self._counted_here = True
        self._has_rows = False
        self._found_rows = 1
        return FORWARD

    def _reply_result(self, columns: list[bytes], rows: list[bytes]) -> None:
        if self._action == s.C_EXECUTE:
            rows = [codec.binary_row(columns, row) for row in rows]
        self._drop_command()
        self.to_client += codec.result(columns, rows, self._status(), self.capabilities)

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
            self._has_failed(error_payload(UNKNOWN_THREAD, "HY000", f"Unknown thread id: {self.cancel_key}"))

    def _has_failed(self, error: bytes) -> None:
        """The last statement has failed, and no server connection knows of it."""
        self.captures &= ~OF_ONE_STATEMENT
        self._forget_warnings()
        self._warnings.append(error_row(error))
        self._answer = b""
        self._row_count = self._found_rows = -1
        self._has_rows = False
        self.disturbed = True

    def _ping(self) -> int:
        self._row_count = 0
        self._counted_here = True
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
        self._row_count = -1
        self._counted_here = True
        self._drop_command()
        self.to_client += packet(1, build_ok(Ok(0, 0, self._status(), 0), self.capabilities, wire.EOF))
        return FORWARD

    def _reset_connection(self) -> int:
        if self.server is not None or self.knowledge is NOTHING_KNOWN:
            return self._to_server()
        self._drop_command()
        self._forget_session()
        self.new_settings(session_sql.after_reset(self.settings, self.defaults, self.server_version))
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
        self._reading = NOTHING_READ
        return self._to_server()

    def _unknown_command(self) -> int:
        return self._refuse_command(UNKNOWN_COMMAND, "08S01", "Unknown command")

    # ----------------------------------------------------------------------------------------------------- prepared statements

    def _prepare(self) -> int:
        text = self._head[1:]
        found = reading.read(text, self.texts.lexis)
        if found.marks & CHANGED:
            changed = found.with_values(text, self._own_numbers(reading.M_OWN_ID & found.marks))
            assert changed is not None
            self._put_text(changed)
            text = self._head[1:]
        try:
            self._preparing = self.statements.new(text, self.schema or LOGIN_SCHEMA, found)
            self._preparing.read_in(self.settings, self.parsing)
        except FeatureRefused as error:
            return self._refuse_command(error.errno, "42000", f"{error.message}. {error.hint}")
        self.parses += 1
        self._marks = 0
        self._steps = ()
        return self._vacate(found) | self._to_server()

    def _is_plain_execute(self, data: bytes, number: int) -> bool:
        """Is it, a whole packet, a COM_STMT_EXECUTE with nothing to be read in its statement, nothing sent for it before, and no new types?

        If so it is taken. What remains to be asked is whether the server connection has the statement, and the types.
        """
        statement = self.statements.known.get(number)
        if statement is None or statement.marks or statement.long_bytes or statement.cursor is not None or not statement.flag:
            return False
        if not data.startswith(statement.bound, statement.flag) and not data.startswith(b"\0", statement.flag):
            return False
        self.binds += 1
        self._action = s.C_EXECUTE
        self._execution = statement
        self.text = statement.text
        self._healed = False
        return True

    def _execute(self) -> int:
        statement = self._statement("mysqld_stmt_execute")
        if statement is None:
            return FORWARD
        if statement.long_bytes > self.limits.statement_bytes:
            statement.forget_long_data()
            return self._refuse_command(TOO_LARGE, "08S01", "The data of COM_STMT_SEND_LONG_DATA is more than limits.statement_bytes")
        types = bound_types(self._head, statement.params)
        if types is None or (statement.params and not (types or statement.types)):
            return self._refuse_command(WRONG_ARGUMENTS, "HY000", "Incorrect arguments to mysqld_stmt_execute")
        if types:
            statement.bind(types)
        self.binds += 1
        if statement.marks & reading.M_KILL:
            if self._head[CURSOR_TYPE] and "MariaDB" not in self.server_version:
                return self._refuse_command(WRONG_ARGUMENTS, "HY000", "Incorrect arguments to with cursor")
            return self._answer_ourselves(statement.reading) or FORWARD
        if statement.marks & reading.ASKS_PREVIOUS:
            self._foresee(statement.marks)
        if statement.marks & ABOUT_PREVIOUS:
            refused = self._refuse_previous(statement.marks)
            if refused is not None:
                return refused
        if statement.marks & ABOUT_SESSION and self._is_elsewhere(statement.reading):
            answered = self._execute_ourselves(statement)
            if answered is not None:
                return answered
        self._reading = statement.reading
        self._take(statement.reading)
        self.text = statement.text
        if statement.marks & reading.M_DIAGNOSTICS and self._has_no_list():
            self._action = s.C_QUERY
            self._head = bytes((wire.COM_QUERY,))
            refused = self._diagnostics(statement.reading)
            return self._to_server() if refused is None else refused
        self._execution = statement
        self._healed = False
        return self._to_server()

    def _is_elsewhere(self, found: Reading) -> bool:
        """Is what the statement asks about not to be had of this server connection?"""
        if found.marks & (reading.M_LOCAL | reading.M_NUMBERS) and self.foreign_list:
            return True
        return self.server is None or self.disturbed or (found.reads(FOUND_ROWS) and not self._has_counted_rows())

    def _execute_ourselves(self, statement: ClientStatement) -> int | None:
        """Answer a statement that asks what only the session knows that ran the one before; None if it asks nothing of the kind."""
        found = statement.reading
        if found.question is not None:
            return self._answer_question(found.question)
        if statement.marks & reading.M_NUMBERS and found.reads(NOT_KNOWN_NUMBERS):
            why = "Outside a transaction ROW_COUNT(), FOUND_ROWS() and counts of warnings are only known to a prepared statement that asks"
            why += " for nothing else."
            return self._refuse_command(NOT_SUPPORTED, "42000", why)
        return None

    def _fetch(self) -> int:
        statement = self._statement("mysqld_stmt_fetch")
        if statement is None:
            return FORWARD
        if statement.cursor is None or self.server is None:
            end = "" if "MariaDB" in self.server_version else "."
            return self._refuse_command(NO_OPEN_CURSOR, "HY000", f"The statement ({statement.id}) has no open cursor{end}")
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
        self._row_count = 0
        self._counted_here = True
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
            self.statements.keep_long_data(statement, payload[5:])
        return FORWARD

    def _find_statement(self) -> ClientStatement | None:
        return self.statements.known.get(INT32.unpack_from(self._head, 1)[0]) if len(self._head) >= 5 else None

    def _statement(self, function: str) -> ClientStatement | None:
        """The statement that the command names; without one, the command is refused, as by MariaDB's `function`."""
        statement = self._find_statement()
        if statement is None:
            number = INT32.unpack_from(self._head, 1)[0] if len(self._head) >= 5 else 0
            if self.server_version and "MariaDB" not in self.server_version:
                function = "mysql_stmt_precheck"
            text = f"Unknown prepared statement handler ({number}) given to {function}"
            self._refuse_command(UNKNOWN_STATEMENT, "HY000", text)
        return statement

    # --------------------------------------------------------------------------------------------------------- our own answers

    def _reply_ok(self) -> None:
        self.to_client += packet(1, build_ok(Ok(0, 0, self._status(), 0), self.capabilities, wire.OK))

    def _reply_error(self, errno: int, sqlstate: str, text: str) -> None:
        self.to_client += packet(1, error_payload(errno, sqlstate, text))

    def _refuse_command(self, errno: int, sqlstate: str, text: str) -> int:
        if self._action in CLEARING or (self._action in WITH_STATEMENT and "MariaDB" in self.server_version):
            self._has_failed(error_payload(errno, sqlstate, text))
        else:
            if self._action in WITH_STATEMENT and self.server is None:
                self._warnings.append(error_row(error_payload(errno, sqlstate, text)))
            self._row_count = -1
            self._counted_here = True
        self._drop_command()
        self._reply_error(errno, sqlstate, text)
        return FORWARD

    def _end_with(self, errno: int, sqlstate: str, text: str) -> int:
        """The client has lost its way: an error, and no more."""
        self._reply_error(errno, sqlstate, text)
        self._held = b""
        self._head = b""
        return CLOSE


def number_column(question: reading.Question, mariadb: bool) -> bytes:
    """The column of an answer to `question`, as the servers define it."""
    if question.kind in COUNTS:
        return codec.integer_column(question.name, codec.NULLABLE_UNSIGNED)
    if question.kind != reading.Q_CONNECTION_ID:
        return codec.integer_column(question.name)
    if question.variable:
        return codec.integer_column(question.name, codec.NULLABLE_UNSIGNED)
    if mariadb:
        return codec.column(question.name, codec.LONG, 63, 10, codec.UNSIGNED)
    return codec.integer_column(question.name, codec.UNSIGNED)


def warning_columns(charset: str, version: str) -> list[bytes]:
    """The columns of SHOW WARNINGS, where character_set_results is `charset`, as SQL. `version`: the server's, if known."""
    known: Any = _charsets.by_name(charset.strip("'"))
    number, size = (UTF8, 3) if charset == "NULL" else (known.id, LETTERS.get(known.name, 1)) if known else (UTF8MB4, 4)
    mariadb = "MariaDB" in version
    if number == UTF8MB4 and version and not mariadb:
        number = UTF8MB4_IN_MYSQL
    decimals = 39 if mariadb else 31
    return [
        codec.column(b"Level", codec.VAR_STRING, number, 7 * size, 1, decimals),
        codec.column(b"Code", codec.LONG, 63, 4 if mariadb else 5, codec.UNSIGNED),
        codec.column(b"Message", codec.VAR_STRING, number, 512 * size, 1, decimals),
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
