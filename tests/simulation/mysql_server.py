"""The simulated MySQL's side of a connection: a session that knows a handful of statements, and is strict about all it reads.

Every state that a real session has and a client could meet another's of is here: variables, schema, transaction, LAST_INSERT_ID(), user
variables, warnings, prepared statements with the types of their parameters, cursors, data of COM_STMT_SEND_LONG_DATA.
"""

import re
import struct
from collections.abc import Callable

from dualpool.mysql import wire
from tests.simulation import mysql_wire as m
from tests.simulation.machines import Machine
from tests.simulation.mysql_wire import GLOBAL, SWITCHES, Reader, Value, insert_id, lenenc, marker_of, string
from tests.simulation.peers import IDLE, OPEN, Database, Session, Violation

OFFERED = (
    wire.CLIENT_LONG_PASSWORD | wire.CLIENT_FOUND_ROWS | wire.CLIENT_LONG_FLAG | wire.CLIENT_CONNECT_WITH_DB | wire.CLIENT_LOCAL_FILES
    | wire.CLIENT_PROTOCOL_41 | wire.CLIENT_TRANSACTIONS | wire.CLIENT_SECURE_CONNECTION | wire.CLIENT_MULTI_STATEMENTS
    | wire.CLIENT_MULTI_RESULTS | wire.CLIENT_PS_MULTI_RESULTS | wire.CLIENT_PLUGIN_AUTH | wire.CLIENT_CONNECT_ATTRS
    | wire.CLIENT_PLUGIN_AUTH_LENENC | wire.CLIENT_SESSION_TRACK
)  # fmt: skip
ITEMS = re.compile(r"(?:[^,']|'[^']*')+")
SET_ITEM = re.compile(r"(?:(?:SESSION |@@session\.)?(\w+)|@`?(\w+)`?)\s*=\s*(.*)\Z", re.DOTALL)
NAMES = re.compile(r"NAMES (\w+)(?: COLLATE (\w+))?\Z")
BINARY = re.compile(r"_utf8mb4 x'([0-9A-F]*)' COLLATE \w+\Z")
CONVERTED = re.compile(r"CONVERT\(0x([0-9a-f]*) USING utf8mb4\)\Z")
COMMENT = re.compile(r" /\*(c[0-9.]+)\*/\Z")
QUOTED = re.compile(r"'(c\d+\.\d+)'")
UNTOUCHED = re.compile(r"SHOW (WARNINGS|ERRORS|COUNT)")


class Statement:
    """A prepared one. `kind`: what its parameter was when it first was anything."""

    def __init__(self, text: str, mode: str, schema: str) -> None:
        self.text = text
        self.mode = mode
        self.schema = schema
        self.params = text.count("?")
        self.types: list[int] | None = None
        self.kind = 0
        self.long_data: bytes | None = None
        self.executions = 0
        self.cursor: list[bytes] | None = None


class Refusal(Exception):
    """An ERR packet."""

    def __init__(self, code: int, text: str, state: str = "HY000") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.state = state


class MysqlSession(Session):
    """See the module. A statement names its client by a marker, in quotes or in a comment at its end."""

    def __init__(self, database: Database, process_id: int, machine: Machine) -> None:
        super().__init__(database, process_id, machine)
        self.variables = dict(GLOBAL)
        self._created = 0
        self.schema = ""
        self._user_variables: dict[str, str] = {}
        self._owned: dict[str, str] = {}
        """Whose the locks and temporary tables are that the session holds."""
        self._last_id = 0
        self._found_rows = 0
        self._warnings: list[tuple[str, int, str]] = []
        self._statements: dict[int, Statement] = {}
        self._last_statement = process_id * 1000
        self._next_transaction = ""
        """Who has asked for another kind of transaction than usual."""
        self._characteristics = ""
        self._changes = b""
        self._multi = False
        self._file = ""
        self._number = 0
        self._nonce = bytes(32 + (process_id * 7 + index * 11) % 90 for index in range(20))
        self._logged_in = False
        # A quarter of the sessions know the older way of ending a result only: their server is older, or set up otherwise.
        self._offered = OFFERED | (wire.CLIENT_DEPRECATE_EOF if process_id % 4 else 0)
        self._capabilities = 0
        self._rest_of_slow: list[bytes] = []
        if database.is_full(machine):
            self._send(b"\xff" + struct.pack("<H", 1040) + b"Too many connections")
            self.ended = True
        else:
            self._greet()

    # -------------------------------------------------------------------------------------------------------------- the login

    def _greet(self) -> None:
        low, high = self._offered & 0xFFFF, self._offered >> 16
        head = b"\x0a8.4.0\0" + struct.pack("<I", self.process_id) + self._nonce[:8] + b"\0"
        rest = struct.pack("<HBHHB", low, 45, wire.STATUS_AUTOCOMMIT, high, 21) + bytes(10) + self._nonce[8:] + b"\0"
        self._send(head + rest + m.NATIVE.encode() + b"\0")

    def _log_in(self, payload: bytes) -> None:
        if self._capabilities:
            self._check_token(payload)
            return
        reader = Reader(payload)
        self._capabilities = reader.number(4)
        if self._capabilities & ~self._offered:
            raise Violation(f"the login asks for what was not offered: {self._capabilities & ~self._offered:#x}")
        reader.number(4)
        charset = reader.number(1)
        reader.take(23)
        user, token = reader.to_nul(), reader.string()
        if self._capabilities & wire.CLIENT_CONNECT_WITH_DB:
            self.schema = reader.to_nul().decode()
        reader.to_nul()
        reader.string()
        if user != b"app" or not reader.at_end():
            raise Violation(f"a login of {user!r}, with {reader.rest()!r} behind it")
        self._multi = bool(self._capabilities & wire.CLIENT_MULTI_STATEMENTS)
        self._take_names(*m.CHARACTER_SETS[charset])
        if self.process_id % 3 == 0:
            self._nonce = self._nonce[::-1]
            self._send(b"\xfe" + m.NATIVE.encode() + b"\0" + self._nonce + b"\0")
        else:
            self._check_token(token)

    def _check_token(self, token: bytes) -> None:
        if token != m.native_token(self._nonce):
            raise Violation("dualpool logs in with a wrong password")
        self._logged_in = True
        self._ok()

    # -------------------------------------------------------------------------------------------------------------- packets

    def step(self) -> bool:
        if self.slow or self.ended:
            return False
        found = m.take_packet(self.incoming)
        if found is None:
            return False
        number, payload = found
        if not self._logged_in or self._file:
            if number != self._number & 255:
                raise Violation(f"the server got packet {number}, and wanted {self._number}")
            self._number = number + 1
            (self._log_in if not self._logged_in else self._take_file)(payload)
            return True
        if number != 0:
            raise Violation(f"the server got a command with the number {number}: {payload[:60]!r}")
        self._number = 1
        try:
            self._command(payload)
        except Refusal as refusal:
            self._error(refusal)
        return True

    def _send(self, payload: bytes) -> None:
        self.outgoing += m.packet(self._number, payload)
        self._number += 1

    def _status(self, more: bool, extra: int) -> int:
        status = extra | (wire.STATUS_MORE_RESULTS if more else 0)
        status |= wire.STATUS_IN_TRANS if self.status == OPEN else 0
        return status | (wire.STATUS_AUTOCOMMIT if self.variables["autocommit"] == "1" else 0)

    def _ok(self, affected: int = 0, new_id: int = 0, info: str = "", *, more: bool = False, first: bytes = b"\0", extra: int = 0) -> None:
        status = self._status(more, extra)
        changes, self._changes = self._changes, b""
        tracks = bool(self._capabilities & wire.CLIENT_SESSION_TRACK)
        if changes and tracks:
            status |= wire.STATUS_SESSION_STATE_CHANGED
        payload = first + lenenc(affected) + lenenc(new_id) + struct.pack("<HH", status, len(self._warnings))
        if not tracks:
            payload += info.encode()
        elif info or changes:
            payload += string(info) + (string(changes) if changes else b"")
        self._send(payload)

    def _end(self, *, more: bool = False, extra: int = 0) -> None:
        """The end of a result."""
        if self._capabilities & wire.CLIENT_DEPRECATE_EOF:
            self._ok(more=more, first=b"\xfe", extra=extra)
        else:
            self._eof(more=more, extra=extra)

    def _eof(self, *, more: bool = False, extra: int = 0) -> None:
        self._send(b"\xfe" + struct.pack("<HH", len(self._warnings), self._status(more, extra)))

    def _middle(self) -> None:
        """What comes behind column definitions."""
        if not self._capabilities & wire.CLIENT_DEPRECATE_EOF:
            self._eof()

    def _error(self, refusal: Refusal) -> None:
        self._warnings.append(("Error", refusal.code, refusal.text))
        self._changes = b""
        self._send(b"\xff" + struct.pack("<H", refusal.code) + b"#" + refusal.state.encode() + refusal.text.encode())

    def _columns(self, *columns: tuple[str, int]) -> None:
        self._send(lenenc(len(columns)))
        for name, kind in columns:
            self._send(m.column(name, kind))

    def _result(self, names: list[str], rows: list[list[Value]], *, more: bool = False) -> None:
        self._columns(*((name, m.STRING) for name in names))
        self._middle()
        for row in rows:
            self._send(m.text_row(row))
        self._found_rows = len(rows)
        self._end(more=more)

    # -------------------------------------------------------------------------------------------------------------- commands

    def _command(self, payload: bytes) -> None:
        command, rest = payload[0], payload[1:]
        if command == wire.COM_QUERY:
            self._queries(rest.decode())
        elif command == wire.COM_STMT_SEND_LONG_DATA:
            statement = self._statements.get(int.from_bytes(rest[:4], "little"))
            if statement is not None:
                statement.long_data = (statement.long_data or b"") + rest[6:]
        elif command == wire.COM_STMT_CLOSE:
            self._statements.pop(int.from_bytes(rest, "little"), None)
        elif command == wire.COM_QUIT:
            self.ended = True
        elif command in COMMANDS:
            if command in CLEARING:
                self._warnings = []
            COMMANDS[command](self, rest)
        else:
            raise Violation(f"the server got {payload!r}")

    def _ping(self, rest: bytes) -> None:
        self._ok()

    def _statistics(self, rest: bytes) -> None:
        self._send(b"Uptime: 1")

    def _set_option(self, rest: bytes) -> None:
        self._multi = rest == b"\0\0"
        self._end()

    def _init_db(self, rest: bytes) -> None:
        self._use(rest.decode())
        self._ok()

    def _reset_connection(self, rest: bytes) -> None:
        self.status = IDLE
        self.variables = dict(GLOBAL)
        self._user_variables.clear()
        self._owned.clear()
        self._statements.clear()
        self._last_id = 0
        self._next_transaction = ""
        self._characteristics = ""
        self._ok()

    # -------------------------------------------------------------------------------------------------------------- statements

    def _queries(self, text: str) -> None:
        if "KILL" not in text:
            self.started = True
        if "; " in text and not self._multi:
            self._warnings = []
            raise Refusal(1064, "several statements", "42000")
        texts = text.split("; ")
        for index, one in enumerate(texts):
            self._run(one, more=index + 1 < len(texts))

    def _run(self, text: str, more: bool) -> None:
        comment = COMMENT.search(text)
        if comment is not None:
            text = text[: comment.start()]
        quoted = QUOTED.search(text)
        marker = comment[1] if comment else quoted[1] if quoted else ""
        if marker:
            self._check(marker)
        if not UNTOUCHED.match(text):
            seen, self._warnings = self._warnings, []
            if text == "SELECT @@warning_count":
                self._result(["@@warning_count"], [[len(seen)]], more=more)
                return
        for pattern, run in STATEMENTS:
            match = pattern.match(text)
            if match is not None:
                run(self, match, marker, more)
                return
        raise Violation(f"the server got {text!r}")

    def _check(self, marker: str) -> None:
        self.check_owner(marker)
        client = marker.partition(".")[0]
        if self._next_transaction and self._next_transaction != client:
            raise Violation(f"a statement of {client} ran where {self._next_transaction} had asked for another kind of transaction")
        for thing, owner in self._owned.items():
            if owner != client:
                raise Violation(f"a statement of {client} ran where {owner} had {thing}")

    def _touch(self, marker: str) -> None:
        """A statement reads or writes a table: it begins a transaction where there is no autocommit, and is one where there is."""
        if self.variables["autocommit"] != "1" and self.status == IDLE:
            self._begin_now("")
        elif self.status == IDLE:
            self._end_now()

    def _begin_now(self, characteristics: str) -> None:
        self.status = OPEN
        self._next_transaction = ""
        self._characterize(characteristics)

    def _end_now(self) -> None:
        self.status = IDLE
        self._next_transaction = ""
        self._characterize("")

    def _characterize(self, characteristics: str) -> None:
        if characteristics != self._characteristics and self.variables["session_track_transaction_info"] == "CHARACTERISTICS":
            self._changes += bytes((wire.TRACK_TRANSACTION_CHARACTERISTICS,)) + string(string(characteristics))
        self._characteristics = characteristics

    def _select(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        rows = int(match[3] or 1)
        self._result(["a"], [[match[1] + "x" * int(match[2] or 0)]] * rows, more=more)

    def _calc_found_rows(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["a"], [[marker]], more=more)
        self._found_rows = insert_id(marker)

    def _found(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["FOUND_ROWS()"], [[self._found_rows]], more=more)

    def _told_found(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["FOUND_ROWS()"], [[int(match[1])]], more=more)

    def _insert(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._touch(marker)
        self._last_id = insert_id(marker)
        self._ok(1, self._last_id, more=more)

    def _update(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._touch(marker)
        affected = 3 if self._capabilities & wire.CLIENT_FOUND_ROWS else 1
        self._ok(affected, info="Rows matched: 3  Changed: 1  Warnings: 0", more=more)

    def _count_up(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._touch(marker)
        self._last_id = int(match[1])
        self._ok(1, self._last_id, more=more)

    def _delete(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        if not self.takes_writes():
            raise Refusal(1290, "--read-only")
        self._touch(marker)
        self._ok(more=more)

    def _create(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._end_now()
        self._ok(more=more)

    def _begin(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._begin_now("START TRANSACTION;")
        self._ok(more=more)

    def _commit(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._end_now()
        if match[1]:
            self._begin_now("START TRANSACTION;")
        self._ok(more=more)

    def _set_transaction(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        if self.status == OPEN:
            raise Refusal(1568, "Transaction characteristics can't be changed while a transaction is in progress", "25001")
        self._next_transaction = marker.partition(".")[0]
        self._characterize("SET TRANSACTION READ ONLY;")
        self._ok(more=more)

    def _sleep(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        """Half of them have begun to answer when they fall asleep."""
        self.slow = marker
        self._rest_of_slow = [m.text_row([marker])]
        if int(marker.partition(".")[2]) % 2:
            self._columns(
                ("a", m.STRING),
            )
            self._middle()
            self._send(m.text_row([marker]))
        else:
            self._rest_of_slow = [lenenc(1), m.column("a", m.STRING), b"", m.text_row([marker]), m.text_row([marker])]

    def end_slow(self, *, canceled: bool) -> None:
        self.slow = ""
        rest, self._rest_of_slow = self._rest_of_slow, []
        if canceled:
            self._error(Refusal(1317, "Query execution was interrupted", "70100"))
            return
        for payload in rest:
            if payload:
                self._send(payload)
            else:
                self._middle()
        self._end()

    def _fail(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        raise Refusal(1064, marker, "42000")

    def _deadlock(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._end_now()
        raise Refusal(1213, marker, "40001")

    def _warn(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._warnings = [("Warning", 1000, marker)]
        self._ok(more=more)

    def _show_warnings(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        rows: list[list[Value]] = [list(row) for row in self._warnings if match[1] == "WARNINGS" or row[0] == "Error"]
        kept = self._warnings
        self._warnings = []
        self._result(["Level", "Code", "Message"], rows, more=more)
        self._warnings = kept

    def _last_insert_id(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        if match[1]:
            self._last_id = int(match[1])
        self._result(["LAST_INSERT_ID()"], [[self._last_id]], more=more)

    def _database(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["DATABASE()"], [[self.schema or None]], more=more)

    def _variables(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        names = [word.removeprefix("@@").removeprefix("session.") for word in match[1].removesuffix(" LIMIT 1").split(",")]
        self._result(names, [[self.variables[name] for name in names]], more=more)

    def _user_variable(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result([match[1]], [[self._user_variables.get(match[1])]], more=more)

    def _show_user_variables(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        """What dualpool asks to know what it must carry to another session."""
        row: list[Value] = []
        for name in re.findall(r"HEX\(@`(\w+)`\)", match[0]):
            value = self._user_variables.get(name)
            row += [None] * 4 if value is None else [value, value.encode().hex().upper(), "utf8mb4", "utf8mb4_general_ci"]
        self._result(["a"] * len(row), [row], more=more)

    def _lock(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._owned[match[1]] = marker.partition(".")[0]
        self._result(["GET_LOCK()"], [[1]], more=more)

    def _unlock(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["RELEASE_LOCK()"], [[None if self._owned.pop(match[1], None) is None else 1]], more=more)

    def _show_locks(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        names = re.findall(r"IS_USED_LOCK\('(\w+)'\)", match[0])
        self._result(names, [[int(name in self._owned) for name in names]], more=more)

    def _session_variables(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        """Those that differ from the global ones or are asked for by name, or all of them."""
        every = " WHERE " not in match[0]
        names = [name for name, value in self.variables.items() if every or f"'{name}'" in match[0] or value != GLOBAL[name]]
        self._result(["name", "value"], [[name, self.variables[name]] for name in names], more=more)

    def _held(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        names = [f"VARIABLE:{name}" for name in self._user_variables]
        names += [f"USER LEVEL LOCK:{name}" for name in self._owned if name.startswith("lock")]
        self._result(["name"], [[name] for name in (*names, "INSTRUMENT YES")], more=more)

    def _count_locks(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["IF()"], [[sum(name.startswith("lock") for name in self._owned)]], more=more)

    def _count_created(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["Variable_name", "Value"], [["Com_create_table", self._created]], more=more)

    def _create_temporary(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._created += 1
        self._owned[match[1]] = marker.partition(".")[0]
        self._state_changed()
        self._ok(more=more)

    def _drop_temporary(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        if self._owned.pop(match[1], None) is None:
            raise Refusal(1051, f"Unknown table '{match[1]}'", "42S02")
        self._state_changed()
        self._ok(more=more)

    def _show_create(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        if match[1] not in self._owned:
            raise Refusal(1146, f"Table '{match[1]}' doesn't exist", "42S02")
        self._result(["Table", "Create Table"], [[match[1], f"CREATE TEMPORARY TABLE `{match[1]}` ..."]], more=more)

    def _show_variables(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["Variable_name", "Value"], [["version", "8.4.0"], ["time_zone", "SYSTEM"]], more=more)

    def _show_role(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        value = "OFF" if self.tell_role() == "read-write" else "ON"
        self._result(["Variable_name", "Value"], [["read_only", value], ["super_read_only", value]], more=more)

    def _show_names(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["a", "0"], [[name, 0] for name in GLOBAL], more=more)

    def _show_defaults(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["a"], [["\n".join(GLOBAL[name] for name in re.findall(r"@@global\.(\w+)", match[1]))]], more=more)

    def _show_current_role(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._result(["a"], [[""]], more=more)

    def _kill(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        victim = self.database.sessions.get(int(match[1]))
        if victim is None or victim.ended:
            raise Refusal(1094, "Unknown thread id")
        victim.cancel()
        self._ok(more=more)

    def _load(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._file = marker
        self._send(b"\xfb" + marker.encode())

    def _take_file(self, payload: bytes) -> None:
        if payload:
            if payload != b"line of " + self._file.encode():
                raise Violation(f"the file of {self._file} has a line {payload!r}")
            return
        marker, self._file = self._file, ""
        self._touch(marker)
        self._ok(2)

    def _use_schema(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        self._use(match[1])
        self._ok(more=more)

    def _use(self, schema: str) -> None:
        if schema not in m.SCHEMAS:
            raise Refusal(1049, f"Unknown database '{schema}'", "42000")
        self.schema = schema
        if self.variables["session_track_schema"] == "1":
            self._changes += bytes((wire.TRACK_SCHEMA,)) + string(string(schema))
        self._state_changed()

    # -------------------------------------------------------------------------------------------------------------- SET

    def _set(self, match: "re.Match[str]", marker: str, more: bool) -> None:
        before = dict(self.variables)
        for item in ITEMS.findall(match[1]):
            self._set_one(item.strip(), before)
        self._ok(more=more)

    def _set_one(self, item: str, before: dict[str, str]) -> None:
        names = NAMES.match(item)
        found = SET_ITEM.match(item)
        if names is not None:
            self._take_names(names[1], names[2] or "")
            for name in ("character_set_client", "character_set_connection", "character_set_results"):
                self._report(name, self.variables[name])
        elif found is None:
            raise Violation(f"the server got SET {item!r}")
        elif found[2]:
            self._set_user_variable(found[2], found[3])
        else:
            self._set_variable(found[1], found[3], before)
        self._state_changed()

    def _set_variable(self, name: str, text: str, before: dict[str, str]) -> None:
        if name == "last_insert_id":
            self._last_id = int(text)
            self._report(name, text)
            return
        if name not in GLOBAL:
            self.variables = before
            self._changes = b""
            raise Refusal(1193, f"Unknown system variable '{name}'")
        value = self._value(name, text)
        # What is set to DEFAULT is reported with its value before.
        self._report(name, self.variables[name] if text == "DEFAULT" else value)
        if name == "autocommit" and value == "1" and self.variables[name] == "0":
            self._end_now()
        self.variables[name] = value
        if name == "character_set_connection":
            self.variables["collation_connection"] = m.DEFAULT_COLLATIONS[value]
        elif name == "collation_connection":
            self.variables["character_set_connection"] = value.partition("_")[0]

    def _set_user_variable(self, name: str, text: str) -> None:
        digits = BINARY.match(text)
        if text == "NULL":
            self._user_variables.pop(name, None)
        else:
            self._user_variables[name] = bytes.fromhex(digits[1]).decode() if digits else text.strip("'")

    def _take_names(self, charset: str, collation: str) -> None:
        for name in ("character_set_client", "character_set_connection", "character_set_results"):
            self.variables[name] = charset
        self.variables["collation_connection"] = collation or m.DEFAULT_COLLATIONS[charset]

    def _value(self, name: str, text: str) -> str:
        converted = CONVERTED.match(text)
        if text == "DEFAULT":
            return GLOBAL[name]
        if text.startswith("@@global."):
            return GLOBAL[text.removeprefix("@@global.")]
        value = bytes.fromhex(converted[1]).decode() if converted else text.strip("'")
        return {"ON": "1", "OFF": "0"}.get(value.upper(), value) if name in SWITCHES else value

    def _report(self, name: str, value: str) -> None:
        tracked = self.variables["session_track_system_variables"].split(",")
        if name in tracked:
            shown = {"1": "ON", "0": "OFF"}[value] if name in SWITCHES else value
            self._changes += bytes((wire.TRACK_SYSTEM_VARIABLES,)) + string(string(name) + string(shown))

    def _state_changed(self) -> None:
        if self.variables["session_track_state_change"] == "1":
            self._changes += bytes((wire.TRACK_STATE_CHANGE,)) + string(string("1"))

    # -------------------------------------------------------------------------------------------------------------- prepared

    def _prepare(self, rest: bytes) -> None:
        text = rest.decode()
        quoted = QUOTED.search(text)
        if quoted is not None:
            self._check(quoted[1])
            raise Refusal(1064, quoted[1], "42000")
        self._last_statement += 1
        statement = self._statements[self._last_statement] = Statement(text, self.variables["sql_mode"], self.schema)
        columns = 0 if text.startswith(("INSERT", "FAIL")) else 4
        self._send(b"\0" + struct.pack("<IHHxH", self._last_statement, columns, statement.params, 0))
        for count in (statement.params, columns):
            for _ in range(count):
                self._send(m.column("?", m.STRING))
            if count:
                self._middle()

    def _find(self, rest: bytes) -> Statement:
        number = int.from_bytes(rest[:4], "little")
        if number not in self._statements:
            raise Refusal(1243, f"Unknown prepared statement handler ({number}) given to mysql_stmt_precheck")
        return self._statements[number]

    def _execute(self, rest: bytes) -> None:
        statement = self._find(rest)
        value = self._bind(statement, Reader(rest, 4)) if statement.params else None
        self._warnings = []
        statement.executions += 1
        statement.cursor = None
        if statement.executions == 2 and int.from_bytes(rest[:4], "little") % 5 == 0:
            raise Refusal(1615, "Prepared statement needs to be re-prepared")
        marker = marker_of(value) if isinstance(value, int) else value
        if marker is not None:
            self._check(marker)
        if statement.text.startswith("FAIL"):
            raise Refusal(1064, str(value), "42000")
        if statement.text.startswith("INSERT"):
            self._touch(marker or "")
            self._last_id = insert_id(marker) if marker else self._last_id
            self._ok(1, self._last_id if marker else 0)
            return
        shown = None if value is None else f"{value}:{statement.kind}"
        last_id = self._last_id if "INSERT_ID" in statement.text else 0
        row = m.binary_row([shown, statement.mode, statement.schema, last_id])
        self._columns(*((name, m.STRING) for name in ("value", "mode", "schema", "id")))
        if rest[4] & m.CURSOR:
            statement.cursor = [row] * 3
            if self._capabilities & wire.CLIENT_DEPRECATE_EOF:
                self._end(extra=wire.STATUS_CURSOR_EXISTS)
            else:
                self._eof(extra=wire.STATUS_CURSOR_EXISTS)
            return
        self._middle()
        self._send(row)
        self._end()

    def _bind(self, statement: Statement, reader: Reader) -> Value:
        """The value of the only parameter."""
        reader.number(1)
        reader.number(4)
        null = reader.number(1) & 1
        if reader.number(1):
            statement.types = [reader.number(2)]
        if statement.types is None:
            raise Refusal(1210, "Incorrect arguments to mysqld_stmt_execute")
        kind = statement.types[0] & 0xFF
        long_data, statement.long_data = statement.long_data, None
        if not null and not statement.kind:
            statement.kind = kind
        value: Value = None
        if long_data is not None:
            value = long_data.decode()
        elif not null:
            value = reader.number(8) if kind == m.NUMBER else reader.string().decode()
        if not reader.at_end():
            raise Violation(f"{reader.rest()!r} behind the values of a COM_STMT_EXECUTE")
        return value

    def _fetch(self, rest: bytes) -> None:
        statement = self._find(rest)
        if statement.cursor is None:
            raise Refusal(1421, "The statement has no open cursor.")
        count = int.from_bytes(rest[4:8], "little")
        rows, statement.cursor = statement.cursor[:count], statement.cursor[count:]
        for row in rows:
            self._send(row)
        over = not statement.cursor
        if over:
            statement.cursor = None
        self._end(extra=wire.STATUS_LAST_ROW_SENT if over else wire.STATUS_CURSOR_EXISTS)

    def _reset_statement(self, rest: bytes) -> None:
        statement = self._find(rest)
        statement.long_data = statement.cursor = None
        # (It counts none, and keeps them.)
        kept, self._warnings = self._warnings, []
        self._ok()
        self._warnings = kept

    def last_words(self) -> bytes:
        text = b"\xff" + struct.pack("<H", 1053) + b"#08S01Server shutdown in progress"
        # (What nobody has asked for has the number 0.)
        number = self._number if self._rest_of_slow or self._file or not self._logged_in else 0
        return m.packet(number, text)


Run = Callable[[MysqlSession, "re.Match[str]", str, bool], None]

STATEMENTS: list[tuple["re.Pattern[str]", Run]] = [
    (re.compile(pattern + r"\Z", re.DOTALL), run)
    for pattern, run in [
        (r"SELECT '([^']*)'(?:,REPEAT\('x',(\d+)\))?(?: FROM t LIMIT (\d+))?", MysqlSession._select),
        (r"SELECT SQL_CALC_FOUND_ROWS '([^']*)'", MysqlSession._calc_found_rows),
        (r"SELECT FOUND_ROWS\(\)(?: LIMIT 1)?", MysqlSession._found),
        (r"SELECT IF\(FOUND_ROWS\(\)<0,0,CAST\((\d+) AS SIGNED\)\) AS `FOUND_ROWS\(\)`", MysqlSession._told_found),
        (r"INSERT INTO t VALUES \('[^']*'\)", MysqlSession._insert),
        (r"UPDATE t SET a='[^']*'", MysqlSession._update),
        (r"UPDATE seq SET id=LAST_INSERT_ID\((\d+)\)", MysqlSession._count_up),
        (r"DELETE FROM t WHERE a='[^']*'", MysqlSession._delete),
        (r"CREATE TABLE t", MysqlSession._create),
        (r"(?:BEGIN|START TRANSACTION)", MysqlSession._begin),
        (r"(?:COMMIT|ROLLBACK)( AND CHAIN)?", MysqlSession._commit),
        (r"SET TRANSACTION READ ONLY", MysqlSession._set_transaction),
        (r"SET (.*)", MysqlSession._set),
        (r"SELECT SLEEP\(9\),'[^']*'", MysqlSession._sleep),
        (r"FAIL '[^']*'", MysqlSession._fail),
        (r"DEADLOCK '[^']*'", MysqlSession._deadlock),
        (r"WARN '[^']*'", MysqlSession._warn),
        (r"SHOW (WARNINGS|ERRORS)", MysqlSession._show_warnings),
        (r"SELECT LAST_INSERT_ID\((\d*)\)(?: LIMIT 1)?", MysqlSession._last_insert_id),
        (r"SELECT DATABASE\(\)", MysqlSession._database),
        (r"SELECT (@@.*)", MysqlSession._variables),
        (r"SELECT @(\w+)", MysqlSession._user_variable),
        (r"SELECT @`\w+`,HEX\(.*", MysqlSession._show_user_variables),
        (r"SELECT GET_LOCK\('(\w+)',0\)", MysqlSession._lock),
        (r"SELECT RELEASE_LOCK\('(\w+)'\)", MysqlSession._unlock),
        (r"SELECT COALESCE\(IS_USED_LOCK.*", MysqlSession._show_locks),
        (r"SELECT IF\(\(SELECT ENABLED .* performance_schema.metadata_locks .*", MysqlSession._count_locks),
        (r"SELECT LOWER\(s.VARIABLE_NAME\).*", MysqlSession._session_variables),
        (r"SELECT CAST\(CONCAT\('VARIABLE:', VARIABLE_NAME\).*", MysqlSession._held),
        (r"SHOW SESSION STATUS LIKE 'Com_create_table'", MysqlSession._count_created),
        (r"CREATE TEMPORARY TABLE (\w+)", MysqlSession._create_temporary),
        (r"DROP TEMPORARY TABLE (\w+)", MysqlSession._drop_temporary),
        (r"SHOW CREATE TABLE (?:`\w+`\.)?`?(\w+)`?", MysqlSession._show_create),
        (r"SELECT LOWER\(VARIABLE_NAME\), 0 FROM performance_schema.global_variables .*", MysqlSession._show_names),
        (r"SELECT /\*\+ MAX_EXECUTION_TIME\(60000\) \*/ CONCAT_WS\(0x0A,(.*)\) LIMIT 1", MysqlSession._show_defaults),
        (r"SELECT COALESCE\(NULLIF\(CURRENT_ROLE.*", MysqlSession._show_current_role),
        (r"SHOW GLOBAL VARIABLES .*read_only.*", MysqlSession._show_role),
        (r"SHOW (?:SESSION|GLOBAL) VARIABLES .*", MysqlSession._show_variables),
        (r"KILL (?:QUERY |CONNECTION )?(\d+)", MysqlSession._kill),
        (r"LOAD DATA LOCAL INFILE '[^']*' INTO TABLE t", MysqlSession._load),
        (r"USE (\w+)", MysqlSession._use_schema),
    ]
]

COMMANDS: dict[int, Callable[[MysqlSession, bytes], None]] = {
    wire.COM_PING: MysqlSession._ping,
    wire.COM_STATISTICS: MysqlSession._statistics,
    wire.COM_SET_OPTION: MysqlSession._set_option,
    wire.COM_INIT_DB: MysqlSession._init_db,
    wire.COM_RESET_CONNECTION: MysqlSession._reset_connection,
    wire.COM_STMT_PREPARE: MysqlSession._prepare,
    wire.COM_STMT_EXECUTE: MysqlSession._execute,
    wire.COM_STMT_FETCH: MysqlSession._fetch,
    wire.COM_STMT_RESET: MysqlSession._reset_statement,
}
CLEARING = frozenset((wire.COM_STMT_PREPARE, wire.COM_RESET_CONNECTION))
"""They forget the warnings of the statement before, as COM_QUERY does, and COM_STMT_EXECUTE when it begins. MySQL 9.7 keeps them else."""
