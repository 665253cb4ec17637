"""What a client's command becomes on its way to the server connection that it has, and what its answer means for the client.

In front of the command goes what brings the session to what it should be (settings, schema, a prepared statement). The command names its
prepared statement by the client's number, for which the server's own is put; one that is too long to be held is passed on as it comes.
"""

from functools import partial
from typing import Final

from dualpool import protocol
from dualpool.buffer import HeldBytes
from dualpool.errors import RemoteProtocolError
from dualpool.mysql import reading, session_sql, wire
from dualpool.mysql import states as s
from dualpool.mysql.client_session import ANY_ID, SESSION_FLAGS, ClientSession, error_row
from dualpool.mysql.codec import Ok
from dualpool.mysql.knowledge import something_was_defined
from dualpool.mysql.messages import error_payload
from dualpool.mysql.requests import (
    BUSY,
    CAPTURE_FOUND_ROWS,
    CAPTURE_INSERT_ID,
    CAPTURE_STATUS,
    CAPTURE_WARNINGS,
    CLIENT_REQUEST,
    FOR_CLIENT,
    FOR_RESET,
    FOR_SCHEMA,
    FOR_SETTINGS,
    FOR_STATE,
    FOR_STATEMENT,
    IDLE,
    MOMENTS,
    OF_ONE_STATEMENT,
    OPTION_REQUEST,
    PASSED_ON,
    QUERY,
    SENDING_FILE,
    SYNCING,
    Request,
)
from dualpool.mysql.server_relay import AS_IT_IS, ServerRelay
from dualpool.mysql.server_session import NOT_KNOWN, NOT_SUPPORTED
from dualpool.mysql.sql import unpacked
from dualpool.mysql.statements import ClientStatement, Key, ServerStatement, close_packet, long_data_packets, types_flag
from dualpool.mysql.wire import INT16, INT32, MAX_PAYLOAD, packet
from dualpool.protocol import FORWARD, SEQUENCE_PIN, SESSION, RelayLimits
from dualpool.state import Settings

UNKNOWN_STATEMENT: Final = 1243
NEEDS_REPREPARE: Final = 1615
MALFORMED: Final = frozenset((UNKNOWN_STATEMENT, 1210, 1835))
"""With these a server refuses a COM_STMT_EXECUTE before it begins. (ER_WRONG_ARGUMENTS, ER_MALFORMED_PACKET)"""
HEALED: Final = frozenset((UNKNOWN_STATEMENT, NEEDS_REPREPARE))
ANY_SCHEMA: Final = b"information_schema"
"""There is one on every server, and everybody may choose it."""
OTHER_S_SEQUENCE: Final = (
    "The last value of a sequence is known only in the transaction that has used it, by SELECT NEXTVAL(...) or in INSERT ... VALUES."
    ' Use the value that NEXTVAL() or INSERT ... RETURNING gives, sequence_values = "pin", or a listener in session mode.'
)
FORGET_WARNINGS: Final = QUERY + b"SELECT 1 FROM information_schema.ENGINES LIMIT 0"
"""(MariaDB keeps warnings until a statement uses a table.)"""
LOGIN_SCHEMA: Final = "\1"
"""Stands for the schema of the login in a statement's key. No schema's name."""
LOOKED_FOR: Final = reading.M_STRICT | reading.M_DOUBT
"""Before these it must be known what the session had without any client."""
MAY_CREATE: Final = reading.M_DOUBT | reading.M_EXECUTES
CLEARING: Final = frozenset((s.C_QUERY, s.C_PREPARE, s.C_EXECUTE))
"""Before these a server forgets the warnings of the statement before. With other commands, the list may still be that of another client."""
KEEPING: Final = frozenset((s.C_PREPARE, s.C_INIT_DB, s.C_STATISTICS))
"""They leave what is known of the statement before them as it is, but for ROW_COUNT()."""
MAY_NAME_TABLES: Final = frozenset((s.C_QUERY, s.C_EXECUTE))
MAX_SAMPLED: Final = 100
"""Texts of one lease that may have left something unseen."""
CURSOR_TYPE: Final = 9
"""Where it stands in the packet of a COM_STMT_EXECUTE."""
WITH_STATEMENT: Final = frozenset((s.C_FETCH, s.C_RESET_STATEMENT))


class ClientSender(ClientSession):
    """See the module. The bytes that wait are `_held`."""

    __slots__ = (
        "_dropping", "_executed", "_head", "_held", "_partial", "_shift", "_size", "_tail", "executing_on", "goes_on", "passing",
        "quick", "state",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, capabilities: int, login_settings: Settings, connection_id: int = 0) -> None:
        super().__init__(limits, capabilities, login_settings, connection_id)
        self.quick = False
        """The command that is being answered was plain: a plain answer to it needs no looking at."""
        self.state = IDLE
        self._held = b""
        """Bytes of the client's that wait. While a command waits or is synchronised, it stands at their beginning."""
        self._partial = HeldBytes()
        """While no command is under way: the beginning of the next one, of which too little has come."""
        self._tail = b""
        """The last bytes that were passed on of a long statement."""
        self._size = 0
        """Of the command's first packet, with its header."""
        self._head = b""
        """The command's payload, or as much of it as is held: what can be read of it."""
        self.passing = 0
        """Bytes of the current packet that are still to come and go to the server unread."""
        self.goes_on = False
        """The current packet is full, so the command goes on in another one."""
        self._dropping = False
        """The rest of the command goes nowhere: it was answered already."""
        self._shift = 0
        """By how much our numbers of an answer's packets differ from the server's, while a local file is sent."""
        self._executed = b""
        """The COM_STMT_EXECUTE that is being answered, while it can be sent again."""
        self.executing_on: ServerStatement | None = None
        """What the COM_STMT_EXECUTE that is being answered runs."""

    def held_bytes(self) -> int:
        return len(self._held) + self._partial.size

    def held(self) -> bytes:
        return self._held

    def suits(self, server: protocol.ServerRelay) -> bool:
        return server.settings is self.settings and server.schema == self.schema  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------------------------------- in front of the command

    def advance(self, server: ServerRelay) -> int:
        """Send the next that must go in front of the command, or the command itself when there is nothing more."""
        if (
            server.settings is self.settings
            and server.schema == self.schema
            and server.schema_read >= self.schema_since
            and server.multi is self.multi
            and server.tracks
            and not self._marks
            and len(self._held) == self._size <= MAX_PAYLOAD
        ):
            data = self._held
            if self._action == s.C_QUERY or (self._action == s.C_EXECUTE and (data := self._translated(data, server))):
                self.state = BUSY
                # (A session that is pinned is looked at after each statement.)
                self.quick = not (server.pins or server.holds.unsettled)
                self._head = b""
                server.expect(CLIENT_REQUEST)
                self.to_server = self.to_server + data if self.to_server else data
                self._held = b""
                return FORWARD
        if self._look_first(server):
            return FORWARD
        if self._marks & reading.M_SEQUENCE and self._meets_sequence(server):
            return server.settle()
        if self._marks & reading.M_INSERT_ID and self.captures & CAPTURE_INSERT_ID and server.insert_id != self.insert_id:
            # What the session has now may be the client's own, of a statement before, or another's.
            self.ask_insert_id(server)
            return FORWARD
        execution = self._execution if self._action == s.C_EXECUTE else None
        found: ServerStatement | None = None
        key: Key | None = None
        schema = self.schema
        again = server.schema_read < self.schema_since
        wanted = self.settings
        if execution is not None:
            key = execution.key
            found = server.statements.find(key, execution)
            if found is not None and found.for_cursors and not self._opens_cursor():
                server.statements.remove(found)
                # (One with an open cursor goes when that is over.)
                self.to_server += close_packet(found.id) if found.user is None else b""
                found = None
            if found is None:
                # It is prepared as it was, and then executed in the session as it is.
                wanted = wanted if execution.parsing == self.parsing else session_sql.as_read(wanted, execution.settings)
                schema = None if execution.schema == LOGIN_SCHEMA else execution.schema
        elif self._action == s.C_INIT_DB or self._marks & reading.M_USE:
            schema = server.schema
            again = False
        if (
            server.settings is not wanted
            or server.schema != schema
            or again
            or server.multi is not self.multi
            or not server.tracks
            or (self._marks & reading.M_INSERT_ID and server.insert_id != self.insert_id)
        ) and self._sync(server, wanted, schema, again):
            return FORWARD
        if execution is not None and found is None:
            assert key is not None
            server.parses += 1
            self.to_server += server.ask(Request(FOR_STATEMENT, s.PREPARED, key=key), bytes((wire.COM_STMT_PREPARE,)) + execution.text)
            return FORWARD
        if self._marks & reading.M_PREVIOUS and (self.disturbed or self.foreign_list):
            # What it reads may be what another client, or a question of ours, has left there.
            self.to_server += server.ask(Request(FOR_STATE), FORGET_WARNINGS)
        self._send_command(server, found)
        return FORWARD

    def _look_first(self, server: ServerRelay) -> bool:
        """Ask what the session had before a statement that may leave something unseen. False if that is known."""
        looked = server.baseline is None and (self._marks & LOOKED_FOR or server.holds.unsettled & s.DOUBT)
        counted = server.holds.created == s.NOT_COUNTED and self._marks & MAY_CREATE
        if looked:
            self.to_server += server.look_first()
        if counted:
            self.to_server += server.count_first()
        return bool(looked or counted)

    def _meets_sequence(self, server: ServerRelay) -> bool:
        """The command uses a sequence, whose last value belongs to a session. True when it cannot go on (yet)."""
        if self.mode == SESSION or "MariaDB" not in server.version or server.holds.sequence:
            return False
        if self.limits.sequence_values == SEQUENCE_PIN and not (server.in_transaction or server.is_pinned()):
            # From now on the session is this client's; nothing is left in it of the sequences that others have used.
            self.to_server += server.ask(Request(FOR_RESET), bytes((wire.COM_RESET_CONNECTION,)))
            return True
        read = self._reading.reads_sequences
        if read is not None and read <= server.sequences:
            return False
        self.fail_command(error_payload(NOT_SUPPORTED, "42000", OTHER_S_SEQUENCE))
        return True

    def _sync(self, server: ServerRelay, wanted: Settings, schema: str | None, again: bool) -> bool:
        """Ask for what brings the session to `wanted` and `schema`, which is chosen `again` if need be. True when the answers must be
        awaited."""
        text = b""
        first = not wanted.values.keys().isdisjoint(session_sql.OF_DATABASE)
        again = again or not session_sql.keeps_database(server.settings, wanted)
        # (The choice of a schema takes back what was set of these.)
        actual = session_sql.of_schema(server.settings) if again or server.schema != schema else server.settings
        if actual is not wanted:
            if session_sql.foreign_names(actual, wanted):
                variables, text = session_sql.neutral_difference(actual, wanted, server.defaults)
                if variables:
                    self.to_server += server.ask(Request(FOR_SETTINGS), QUERY + session_sql.READ_UTF8)
                    self.to_server += server.ask(Request(FOR_SETTINGS), QUERY + variables)
            else:
                text = server.defaults.difference(actual, wanted)
        # What is the schema's unless it is set must be set behind the choice of the schema.
        must_wait = first and self._choose(server, schema, again)
        first_use = not server.tracks
        if first_use:
            text = session_sql.joined(text, session_sql.assignments(session_sql.trackers(server.version)).encode())
        # (A SET of user variables alone cannot fail.)
        known = not text or text in server.proven or (text.startswith(b"SET @") and not first_use)
        if text or self._marks & reading.M_INSERT_ID:
            whole = text
            if self._marks & reading.M_INSERT_ID and server.insert_id != self.insert_id:
                whole = session_sql.joined(text, b"SESSION last_insert_id=%d" % self.insert_id)
            if whole:
                self.to_server += server.ask(Request(FOR_SETTINGS, text=b"" if known else text), QUERY + whole)
                server.insert_id = self.insert_id if self._marks & reading.M_INSERT_ID else server.insert_id
        server.settings = wanted
        server.tracks = True
        if server.multi is not self.multi:
            server.multi = self.multi
            self.to_server += server.ask(OPTION_REQUEST, bytes((wire.COM_SET_OPTION, 0 if self.multi else 1, 0)))
        if not first:
            must_wait = self._choose(server, schema, again)
        return must_wait or not known

    def _choose(self, server: ServerRelay, schema: str | None, again: bool) -> bool:
        """Ask for `schema`, if it is not the session's; `again`: in any case. True when the answer must be awaited."""
        other = server.schema != schema
        if not (other or again):
            return False
        name = server.login_schema if schema is None else schema
        server.schema = schema
        server.schema_read = next(MOMENTS)
        if not name:
            # (There is no command that chooses none.)
            self.to_server += server.ask(Request(FOR_SETTINGS), QUERY + session_sql.NO_DATABASE_S)
            return False
        if "MariaDB" in server.version and not other:
            # The schema that it has already is not read again.
            self.to_server += server.ask(Request(FOR_SCHEMA), bytes((wire.COM_INIT_DB,)) + ANY_SCHEMA)
        self.to_server += server.ask(Request(FOR_SCHEMA), bytes((wire.COM_INIT_DB,)) + name.encode("utf-8", "surrogateescape"))
        # (If it fails, and it was the session's already, the database has been dropped, and the command fails as well.)
        return other

    # ------------------------------------------------------------------------------------------------------ the command itself

    def _translated(self, execute: bytes, server: ServerRelay) -> bytes:
        """The packet of a COM_STMT_EXECUTE, with the server's number of its statement. b"": there is more to be changed or done."""
        statement = self._execution
        assert statement is not None
        found = server.statements.find(statement.key, statement)
        if found is None or found.types != statement.types or statement.long_data or statement.cursor is not None:
            return b""
        if found.for_cursors is not False or execute[CURSOR_TYPE]:
            return b""
        self._executed = execute
        self.executing_on = found
        return execute[:5] + found.packed_id + execute[9:]

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
            server.expect(Request(FOR_CLIENT, s.PREPARED, key=self._preparing.key))
        elif action in PASSED_ON:
            server.expect(PASSED_ON[action])
        else:
            server.expect(CLIENT_REQUEST)
        if self._execution is not None and action in WITH_STATEMENT:
            cursor = self._execution.cursor
            self._head = b""
            if cursor is not None:
                held = self._held
                self.to_server += held[:5] + INT32.pack(cursor.id) + held[9 : self._size]
                self._held = held[self._size :]
                return
        self._send_held(server)

    def _opens_cursor(self) -> bool:
        """Does the COM_STMT_EXECUTE ask for a cursor?"""
        return self._held[CURSOR_TYPE] != 0

    def _send_execute(self, server: ServerRelay, found: ServerStatement) -> None:
        """COM_STMT_EXECUTE, with the server's id of the statement, its long data in front, and the types of its parameters."""
        statement = self._execution
        assert statement is not None
        held = self._held
        size = self._size
        if found.for_cursors is None:
            found.for_cursors = self._opens_cursor() and "MariaDB" not in server.version
        server.expect(CLIENT_REQUEST)
        self.executing_on = found
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
        self.passing = max(size - len(held), 0)
        self.goes_on = size == MAX_PAYLOAD + 4
        server.unfinished = True
        self._pass_on(held[size:])

    def _send_held(self, server: ServerRelay) -> None:
        """Pass on the command as it stands in `_held`, and go on passing what is still to come of it."""
        if self._marks & reading.M_SERVERS_IDS and self._action == s.C_QUERY:
            text = self._head[1:]
            self._put_text(reading.read(text, self.texts.lexis).with_ids(text, partial(self._id_at, server)))
        held = self._held
        size = self._size
        self._head = self._head if self._action == s.C_RESET else b""
        if len(held) == size and size <= MAX_PAYLOAD:
            if self._action == s.C_QUERY and len(self.text) + 5 < size:
                # The rest of it has come since its beginning was read.
                self._look_at(held)
            self.to_server = self.to_server + held if self.to_server else held
            self._held = b""
            return
        self._held = b""
        self.passing = size
        self.goes_on = size == MAX_PAYLOAD + 4
        server.unfinished = True
        self._pass_on(held)

    def _id_at(self, server: ServerRelay, number: int) -> int:
        """What `server`'s server calls the session that the client `number` has there now; 0 if it has none."""
        peer = self.peers.get(number)
        theirs = peer.relay.server if peer is not None and isinstance(peer.relay, ClientSession) else None
        return theirs.process_id if theirs is not None and theirs.address == server.address else 0

    def _put_text(self, text: bytes) -> None:
        """Another text in the place of the command's."""
        if text == self._head[1:] or len(self._held) < self._size or len(text) >= MAX_PAYLOAD:
            return  # There is nothing to be changed in it, or only a part of it is there.
        self._head = self._head[:1] + text
        self._held = packet(0, self._head) + self._held[self._size :]
        self._size = 4 + len(self._head)

    def _pass_on(self, data: bytes) -> None:
        """The rest of a command that is longer than what we hold of it."""
        position = 0
        end = len(data)
        while position < end:
            if self.passing:
                taken = min(self.passing, end - position)
                position += taken
                self.passing -= taken
            elif not self.goes_on or end - position < 4:
                break
            else:
                size = data[position] | data[position + 1] << 8 | data[position + 2] << 16
                self.goes_on = size == MAX_PAYLOAD
                self.passing = size + 4
        if not self._dropping:
            self.to_server += data[:position]
            if self._action == s.C_QUERY:
                self._look_at(data[:position])
        self._held = data[position:]
        if self.passing or self.goes_on:
            return
        self._dropping = False
        if self.server is not None:
            self.server.unfinished = False

    def _look_at(self, data: bytes) -> None:
        """A part of a statement that is too long to be read: is there a word in it that only its text can tell of?"""
        seen = self._tail + data
        found = reading.dangers(seen)
        if found & ~self.doubts() and self._steps:
            self._steps += ((s.E_DOUBT, bytes((found,))),)
        self._tail = seen[1 - reading.LONGEST_SIGN :]

    def _drop_command(self) -> None:
        """The command at the beginning of `_held` is dealt with; what is still to come of it goes nowhere."""
        held = self._held
        size = self._size
        self._head = b""
        self.goes_on = size == MAX_PAYLOAD + 4
        if len(held) >= size:
            self._held = held[size:]
        else:
            self.passing = size - len(held)
            self._held = b""
        self._dropping = bool(self.passing or self.goes_on)

    def _forget_command(self) -> None:
        if self._execution is not None and self._action == s.C_EXECUTE:
            # As when a server answers with an error.
            self._execution.forget_long_data()
        self._execution = None
        self._preparing = None

    # ------------------------------------------------------------------------------------------------------------ a local file

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
            if self.passing:
                taken = min(self.passing, end - position)
                position += taken
                self.passing -= taken
                continue
            if end - position < 4:
                break
            size = data[position] | data[position + 1] << 8 | data[position + 2] << 16
            sequence = (data[position + 3] - self._shift) & 255
            if self._shift:
                self.to_server += data[start:position] + wire.header(sequence, size)
                start = position + 4
            position += 4
            self.passing = size
            if server is not None:
                server.file_sequence = sequence
            if not size:
                self._file_over()
                break
        self.to_server += data[start:position]
        self._held = data[position:]
        if server is not None:
            server.unfinished = self.passing > 0
        return FORWARD

    def _file_over(self) -> None:
        self.state = BUSY
        if self.server is not None:
            self.server.copying_in = False

    # ---------------------------------------------------------------------------------------------- what the server relay says

    def prepared(self, params: int, columns: int) -> int:
        """The server has accepted the client's COM_STMT_PREPARE. Returns the id that the client shall know it by."""
        statement = self._preparing
        assert statement is not None
        self._preparing = None
        statement.was_prepared(params, columns)
        self.statements.add(statement)
        return statement.id

    def expects(self, columns: int) -> bool:
        """Does the client know that what it executes has so many columns? (Of a query, or where it was told of none, nothing is known.)"""
        statement = self._execution
        return self._action != s.C_EXECUTE or statement is None or statement.columns in (0, columns)

    def new_columns(self, columns: int) -> int:
        """A result of so many columns begins. Returns what its status flags say of that.

        A server says once that there are more or fewer than it has told (SERVER_STATUS_METADATA_CHANGED), to whoever executes the
        statement first. So it is said to each client that was told something else, and to no other.
        """
        statement = self._execution
        if self._action != s.C_EXECUTE or statement is None or not statement.columns:
            return AS_IT_IS
        before, statement.columns = statement.columns, columns
        return wire.STATUS_METADATA_CHANGED if before != columns else 0

    def answered(self, server: ServerRelay, ok: Ok | None, error: bytes, answer: bytes) -> None:
        """The client's command is answered in full, by `ok`, by `error` (the payload of an ERR packet) or by neither.

        `answer`: all of it, if it is one short result and nothing else came with it: its rows can be counted.
        """
        self.state = IDLE
        self.quick = False
        marks = self._marks
        action = self._action
        captures = self.captures
        if error or not (action in KEEPING or (marks and marks & reading.M_DIAGNOSTICS)):
            keeps: bool | None = False
            if ok is not None and (self.disturbed or self.foreign_list or captures or self._warnings):
                keeps = self._keeps_warnings(server, ok)
            self.foreign_list = keeps is not False and (self.foreign_list or self.disturbed)
            if keeps:
                captures &= ~OF_ONE_STATEMENT | CAPTURE_WARNINGS
            else:
                captures &= ~OF_ONE_STATEMENT
                # (An error of another command stands behind the warnings of the statement before, where it is MySQL's.)
                if self._warnings and (action in CLEARING or not error or "MariaDB" in server.version):
                    self._forget_warnings()
            self.disturbed = False
            self._answer = b""
            self._found_rows = -1
            self._row_count = -1
            self._counted_here = False
            self._has_rows = False
        elif action == s.C_PREPARE and "MariaDB" not in server.version:
            # (MariaDB does this where the statement uses tables.)
            captures &= ~CAPTURE_WARNINGS
            self._forget_warnings()
        if self._notes:
            self.take_notes()
        if error:
            captures |= self._failed(error)
        elif ok is not None:
            affected = ok.affected
            self.flags = ok.status & SESSION_FLAGS
            if action != s.C_PREPARE:
                self._row_count = affected
                self._counted_here = False
                self._has_rows = affected < 0
            if answer and not (marks and marks & reading.M_CALC_FOUND_ROWS):
                self._answer = answer
            if ok.insert_id:
                captures |= self._inserted(server, ok.insert_id)
            if (ok.warnings > self._noted or self.warned) and action != s.C_INIT_DB:
                captures |= CAPTURE_WARNINGS
            if marks:
                captures |= CAPTURE_FOUND_ROWS if marks & reading.M_CALC_FOUND_ROWS else 0
                if marks & reading.M_SETS_INSERT_ID:
                    captures |= CAPTURE_INSERT_ID
                    self.told_id = ANY_ID
                if marks & reading.M_SEQUENCE:
                    server.sequences |= self._reading.makes_sequences
                if marks & reading.M_STEPS and self._reading.alters_database:
                    self.schema_since = server.schema_read = next(MOMENTS)
        self.captures = captures
        self.warned = False
        if error:
            self.apply_steps(server, ok=False)
        if self.always or server.holds.one_shot:
            self._doubt(server)
        if action != s.C_QUERY:
            statement = self._execution
            if action != s.C_EXECUTE:
                self._after(server, ok)
                self._preparing = None
            elif statement is not None and (
                statement.long_bytes or statement.cursor is not None or (ok is not None and ok.status & wire.STATUS_CURSOR_EXISTS)
            ):
                self._after_execute(statement, server, ok)
            self.executing_on = None
            self._execution = None
            self._executed = b""

    def _keeps_warnings(self, server: ServerRelay, ok: Ok) -> bool | None:
        """MariaDB forgets the warnings of a statement when another one warns, fails or uses a table. None: it is not known whether it did.

        So behind one that does nothing of that, the list on the server connection may still be that of another client.
        """
        if "MariaDB" not in server.version or ok.warnings > self._noted or self.warned or self._action not in CLEARING:
            return False
        forgets = reading.read(self.text, self.texts.lexis).forgets_warnings
        return None if forgets is None else not forgets

    def _inserted(self, server: ServerRelay, number: int) -> int:
        """The answer names `number`. Returns what must be asked because of it.

        It is LAST_INSERT_ID() only if the server has made it: a number that the statement gives itself is told as well, and is not.
        """
        inserts = None if self._marks & reading.M_DOUBT else reading.inserted_columns(self.text)
        if inserts is not None and not server.holds.temporary and self.schema != NOT_KNOWN:
            table = (server.login_schema if self.schema is None else self.schema, inserts[0])
            column = server.knowledge.counted.get(table)
            if column is None:
                # (Without autocommit the question would begin a transaction.)
                self._uncounted = table if self.flags & wire.STATUS_AUTOCOMMIT else None
            elif column not in inserts[1]:
                self.insert_id = server.insert_id = number
                return 0
        self.told_id = number
        return CAPTURE_INSERT_ID

    def _failed(self, error: bytes) -> int:
        """The command is answered by an error: what must be asked because of it."""
        unread = self._action == s.C_EXECUTE and int.from_bytes(error[1:3], "little") in MALFORMED
        if unread or self._action not in CLEARING:
            self._warnings.append(error_row(error))
            return CAPTURE_STATUS
        return CAPTURE_STATUS | CAPTURE_WARNINGS

    def _doubt(self, server: ServerRelay) -> None:
        """Behind every answer there is something to be asked."""
        if "insert_id" in server.holds.one_shot:
            server.holds.unsettled |= s.PIN_VARIABLE
        if self.always & reading.M_STRICT:
            server.holds.unsettled |= s.DOUBT
        if self.always & reading.M_DOUBT and self._action in MAY_NAME_TABLES and self._names_tables():
            server.holds.ask(s.D_ALL)

    def _names_tables(self) -> bool:
        """May the statement meet a trigger or a view, which do what no text says? (That it is in doubt anyway, its steps say.)"""
        return self._reading.names_tables and not self.doubts()

    def apply_steps(self, server: ServerRelay, ok: bool) -> None:
        """The statement is over: what of the session its text says that it has changed."""
        if self._steps:
            server.holds.apply(self._steps, ok, self._quoted_schema(server), self._reading.several)
            if self._reading.key:
                server.asked_about.add(self._reading.key)
            server.repin(self.text)
        if server.holds.unsettled & s.DOUBT and len(server.sampled) < MAX_SAMPLED:
            server.sampled.add(unpacked(self.text))
        if self._reading.defines and self._marks & reading.M_STEPS:
            something_was_defined()

    def _after_execute(self, statement: ClientStatement, server: ServerRelay, ok: Ok | None) -> None:
        """What a COM_STMT_EXECUTE has used up, and the cursor that it has opened."""
        if statement.long_bytes:
            statement.forget_long_data()
        if statement.cursor is not None:
            self._cursor_over(statement, server)
        if ok is not None and ok.status & wire.STATUS_CURSOR_EXISTS and self.executing_on is not None:
            statement.cursor = self.executing_on
            statement.cursor.user = statement
            server.pins |= s.PIN_CURSOR

    def has_no_cursor(self, server: ServerRelay) -> None:
        """Behind rows, as of EXPLAIN, MySQL says that there is a cursor. There is none, and MySQL 9.7 breaks down when the statement is
        executed again."""
        found = self.executing_on
        if self._action == s.C_EXECUTE and found is not None and found.user is None:
            server.statements.remove(found)
            self.to_server += close_packet(found.id)

    def _after(self, server: ServerRelay, ok: Ok | None) -> None:
        """What an answered command other than COM_QUERY and COM_STMT_EXECUTE has changed."""
        action = self._action
        statement = self._execution
        if action == s.C_FETCH and statement is not None:
            if ok is None or ok.status & wire.STATUS_LAST_ROW_SENT:
                self._cursor_over(statement, server)
        elif action == s.C_RESET_STATEMENT and statement is not None:
            self._cursor_over(statement, server)
        elif action == s.C_RESET and ok is not None:
            # (The role stays. Behind a reset of ours it is asked whether there is one that nobody has seen.)
            role, unseen = server.holds.role, bool(server.holds.unsettled & s.PIN_ASK)
            server.was_reset(tracks=False)
            server.holds.role = role
            server.dirty = server.dirty or unseen
            server.repin(self.text)
            self._forget_session()
            self.new_settings(session_sql.after_reset(self.settings, server.defaults, server.version))
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
        found = self.executing_on
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
