"""The simulated MySQL: clients that speak its protocol, logins included, and a database of sessions (mysql_server.py).

A client knows what its session must be, by the replies that it has read, as if it were alone with its server: variables, schema, character
set, transaction, LAST_INSERT_ID(), warnings, user variables, prepared statements. It asks for these again and again, and compares.
"""

import random
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar

from dualpool.accounts import Account, ClientLogin
from dualpool.mysql import knowledge, wire
from dualpool.mysql.defaults import KNOWN_NAMES
from dualpool.protocol import SESSION
from tests.simulation import mysql_wire as m
from tests.simulation.mysql_server import MysqlSession
from tests.simulation.mysql_wire import GLOBAL, Reader, insert_id, string
from tests.simulation.peers import IDLE, OPEN, Client, Database, Session, Token, Violation

ALWAYS = (
    wire.CLIENT_LONG_PASSWORD | wire.CLIENT_CONNECT_WITH_DB | wire.CLIENT_PROTOCOL_41 | wire.CLIENT_TRANSACTIONS
    | wire.CLIENT_SECURE_CONNECTION | wire.CLIENT_MULTI_RESULTS | wire.CLIENT_PS_MULTI_RESULTS | wire.CLIENT_PLUGIN_AUTH
)  # fmt: skip
SOMETIMES = (
    wire.CLIENT_DEPRECATE_EOF, wire.CLIENT_SESSION_TRACK, wire.CLIENT_MULTI_STATEMENTS, wire.CLIENT_FOUND_ROWS, wire.CLIENT_LOCAL_FILES,
    wire.CLIENT_PLUGIN_AUTH_LENENC, wire.CLIENT_CONNECT_ATTRS,
)  # fmt: skip
MODES = ("", "ANSI_QUOTES", "NO_ZERO_DATE,PIPES_AS_CONCAT", "STRICT_TRANS_TABLES")
END_OF_SESSION = frozenset(("2013", "1053", "1927", "3024"))
OK: Token = ("ok", "0", "0", "0")
"""No rows, no AUTO_INCREMENT value, no warnings."""
TEXTS = (
    "SELECT ?,MODE(),DATABASE() -- x", "SELECT ?,MODE(),DATABASE() -- y", "SELECT ?,LAST_INSERT_ID()", "INSERT INTO t VALUES (?)", "FAIL ?",
    "SELECT 1 -- no parameter",
)  # fmt: skip


class Command:
    """What a client has asked. `kind`: how its answer is read; `effect`: what it means for the session when it has gone well."""

    def __init__(self, kind: str, effect: Callable[[], None] | None, tracks: frozenset[str]) -> None:
        self.kind = kind
        self.effect = effect
        self.tracks = tracks
        """The variables whose change the answer may tell."""


class Prepared:
    """A statement of a client's, and what it must be at the server. `kind`: its parameter's, if it ever had a value."""

    def __init__(self, number: int, text: str, mode: str, schema: str) -> None:
        self.number = number
        self.text = text
        self.mode = mode
        self.schema = schema
        self.kind = 0
        self.bound = 0
        """The type of the parameter in the last execution that said it; the next one may leave it out."""
        self.has_cursor = False
        self.value = ""
        """In the rows of the cursor."""


class MysqlClient(Client):
    """See the module."""

    pool_errors = frozenset(("1040", "2003", "2013", "1317", "1053"))
    kills = True

    def __init__(self, name: str, rng: random.Random) -> None:
        super().__init__(name, rng)
        self.capabilities = ALWAYS | sum(flag for flag in SOMETIMES if rng.random() < 0.5)
        self.charset = rng.choice(sorted(m.CHARACTER_SETS))
        self.plugin = rng.choice((m.NATIVE, m.CACHING))
        self.settings = {name: value for name, value in GLOBAL.items() if not name.startswith("session_track")}
        self.set_names(*m.CHARACTER_SETS[self.charset])
        self.connection_id = 0
        self._is_servers = False
        """It keeps its server connection for good, whose id is its own."""
        self._database = ""
        self._buffer = bytearray()
        self._number = 0
        self._phase = self._greeting
        self._commands: deque[Command] = deque()
        self._prepared: dict[int, Prepared] = {}
        self._fond_of_statements = rng.choice((0, 1, 5))
        self._closed_statement = 0
        self._schema = ""
        self._last_id = 0
        self._warnings: list[Token] | None = []
        """None: not known."""
        self._found_rows = 0
        self._row_count = ""
        self._user_variables: dict[str, str] = {}
        self._owns: set[str] = set()
        """Locks and temporary tables."""
        self._columns = self._left = 0
        self._lists: list[int] = []
        self._binary = False
        self._new_number = 0

    def set_names(self, charset: str, collation: str = "") -> None:
        """What SET NAMES does."""
        for name in ("character_set_client", "character_set_connection", "character_set_results"):
            self.settings[name] = charset
        self.settings["collation_connection"] = collation or m.DEFAULT_COLLATIONS[charset]

    # -------------------------------------------------------------------------------------------------------------- the login

    def login(self, database: str, mode: int, lane: int) -> ClientLogin:
        self._database = self._schema = database
        self._is_servers = mode == SESSION
        return ClientLogin(Account("app", database, (m.PASSWORD,), mode=mode, lane=lane), {}, None, None)

    def logs_in(self) -> bool:
        return True

    def logged_in(self) -> None:
        """Its login is over (where there is none in the schedule)."""
        self._phase = self._head
        self._number = 1

    def may_leave(self) -> bool:
        # (While it sends a file, a goodbye would be a part of that.)
        return self._is_in() and not any(command.kind == "load" for command in self._commands)

    def _is_in(self) -> bool:
        return self._phase not in (self._greeting, self._welcome)

    def may_ask(self) -> bool:
        return self._is_in() and super().may_ask()

    def _greeting(self, payload: bytes) -> Iterator[Token]:
        reader = Reader(payload)
        if reader.number(1) != 10:
            raise Violation(f"{self.name} got {payload!r} in place of a greeting")
        reader.to_nul()
        self.connection_id = reader.number(4)
        nonce = reader.take(8)
        reader.number(1)
        offered = reader.number(2)
        reader.take(3)
        offered |= reader.number(2) << 16
        reader.take(11)
        nonce += reader.take(12)
        self.capabilities &= offered
        self._respond(nonce)
        self._phase = self._welcome
        return iter(())

    def _respond(self, nonce: bytes) -> None:
        token = (m.native_token if self.plugin == m.NATIVE else m.sha2_token)(nonce)
        if self.plugin == m.NATIVE and self.rng.random() < 0.2:
            token = b""  # it waits for a request of its plugin's own
        payload = struct.pack("<IIB", self.capabilities, 1 << 24, self.charset) + bytes(23) + b"app\0" + string(token)
        payload += self._database.encode() + b"\0" + self.plugin.encode() + b"\0"
        if self.capabilities & wire.CLIENT_CONNECT_ATTRS:
            payload += string(string("program_name") + string(self.name))
        self._write(payload)

    def _write(self, payload: bytes) -> None:
        self.unsent += m.packet(self._number, payload)
        self._number += 1

    def _welcome(self, payload: bytes) -> Iterator[Token]:
        if payload[0] == 0xFE:
            reader = Reader(payload, 1)
            self.plugin = reader.to_nul().decode()
            self._write((m.native_token if self.plugin == m.NATIVE else m.sha2_token)(reader.take(20)))
        elif payload[0] == 0:
            self._phase = self._head
            self._number = 1
        elif payload != b"\x01\x03":
            raise Violation(f"{self.name} got {payload!r} at its login")
        return iter(())

    # -------------------------------------------------------------------------------------------------------------- requests

    def request(self) -> bytes:
        choices = [*EVERYWHERE, *(OUTSIDE if self.status == IDLE else INSIDE)]
        choices += WITH_STATEMENTS * self._fond_of_statements
        if self.expected:
            return self.rng.choice(BEHIND_OTHERS)(self)
        self._row_count, row_count = "", self._row_count
        if row_count and self.rng.random() < 0.5:
            return self._text("SELECT ROW_COUNT()", ("row", row_count), effect=self._forget_warnings)
        return self.rng.choice(choices)(self)

    def finish(self) -> bytes:
        if self.status != IDLE:
            return self._rollback()
        return b""

    def goodbye(self) -> bytes:
        return m.packet(0, bytes((wire.COM_QUIT,)))

    def kill(self, connection_id: int, *, whole: bool) -> bytes:
        """Stop what the client with this number runs; or, `whole`, that client."""
        text = f"KILL {'' if whole else 'QUERY '}{connection_id}"
        if self.rng.random() < 0.3 and whole:
            payload = bytes((wire.COM_PROCESS_KILL,)) + struct.pack("<I", connection_id)
        else:
            payload = bytes((wire.COM_QUERY,)) + text.encode()
        self.must_wait = True
        self.expected += [("killed",), ("ready", "*")]
        self._commands.append(Command("query", self._forget_warnings, frozenset()))
        return m.packet(0, payload)

    def _flags(self) -> str:
        return self.status + ("A" if self.settings["autocommit"] == "1" else "")

    def _ask(
        self, command: int, rest: bytes | str, *replies: Token, kind: str = "query", status: str | None = None, tracks: str = "",
        effect: Callable[[], None] | None = None, wait: bool = True,
    ) -> bytes:  # fmt: skip
        """`status`: the flags at the end of the answer; "": it has none."""
        self.must_wait = self.must_wait or wait
        self.expected += [*replies, ("ready", self._flags() if status is None else status)]
        self._commands.append(Command(kind, effect, frozenset(tracks.split())))
        return m.packet(0, bytes((command,)) + (rest.encode() if isinstance(rest, str) else rest))

    def _text(self, text: str, *replies: Token, status: str | None = None, tracks: str = "", effect: Callable[[], None] | None = None,
              wait: bool = True) -> bytes:  # fmt: skip
        return self._ask(wire.COM_QUERY, text, *replies, status=status, tracks=tracks, effect=effect, wait=wait)

    def _error(self, code: int, text: str) -> tuple[Token, Callable[[], None]]:
        """An error, and what SHOW WARNINGS says after it."""
        return ("error", str(code), text), lambda: self._warn("Error", code, text)

    def _warn(self, level: str, code: int, text: str) -> None:
        self._warnings = [("row", level, str(code), text)]

    def _forget_warnings(self) -> None:
        self._warnings = None

    # Statements.

    def _select(self) -> bytes:
        marker = self.marker()
        return self._text(f"SELECT '{marker}'", ("row", marker), wait=False)

    def _plain(self) -> bytes:
        """The same text again and again."""
        return self._text(f"SELECT '{self.name}.0'", ("row", f"{self.name}.0"), wait=False)

    def _many_rows(self) -> bytes:
        marker, (rows, width) = self.marker(), self.rng.choice([(30, 1), (12, 20), (2, 300)])
        replies = [("row", marker + "x" * width)] * rows
        return self._text(f"SELECT '{marker}',REPEAT('x',{width}) FROM t LIMIT {rows}", *replies, wait=False)

    def _several(self) -> bytes:
        one, two = self.marker(), self.marker()
        if not self.capabilities & wire.CLIENT_MULTI_STATEMENTS:
            token, effect = self._error(1064, "several statements")
            return self._text(f"SELECT '{one}'; SELECT '{two}'", token, status="", effect=effect)
        if self.rng.random() < 0.3:
            token, effect = self._error(1064, two)
            return self._text(f"SELECT '{one}'; FAIL '{two}'; SELECT '{one}'", ("row", one), token, status="", effect=effect)
        return self._text(f"SELECT '{one}'; SELECT '{two}'", ("row", one), ("row", two))

    def _touched(self) -> str:
        """The status behind a statement that uses a table."""
        return self.status if self.settings["autocommit"] == "1" else OPEN

    def _insert(self) -> bytes:
        marker = self.marker()
        return self._text(f"INSERT INTO t VALUES ('{marker}')", ("ok", "1", str(insert_id(marker)), "0"), status=self._after_touch(),
                          effect=lambda: self._inserted(insert_id(marker)))  # fmt: skip

    def _after_touch(self) -> str:
        return self._touched() + self._flags()[1:]

    def _inserted(self, number: int) -> None:
        self.status = self._touched()
        self._last_id = number
        self._row_count = "1"

    def _delete(self) -> bytes:
        """Perhaps the server takes no writes; outside of a transaction that changes nothing."""
        if self.settings["autocommit"] != "1":
            return self._insert()
        return self._text(f"DELETE FROM t WHERE a='{self.marker()}'", ("written",))

    def _update(self) -> bytes:
        affected = "3" if self.capabilities & wire.CLIENT_FOUND_ROWS else "1"
        return self._text(f"UPDATE t SET a='{self.marker()}'", ("ok", affected, "0", "0"), status=self._after_touch(),
                          effect=lambda: self._updated(affected))  # fmt: skip

    def _updated(self, affected: str) -> None:
        self.status = self._touched()
        self._row_count = affected

    def _last_insert_id(self) -> bytes:
        return self._text(f"SELECT LAST_INSERT_ID() /*{self.marker()}*/", ("row", str(self._last_id)))

    def _count_up(self) -> bytes:
        """A sequence as people make one: the number is the session's LAST_INSERT_ID() behind the next COMMIT as well."""
        number = insert_id(marker := self.marker())
        return self._text(f"UPDATE seq SET id=LAST_INSERT_ID({number}) /*{marker}*/", ("ok", "1", str(number), "0"),
                          status=self._after_touch(), effect=lambda: self._inserted(number))  # fmt: skip

    def _set_last_insert_id(self) -> bytes:
        number = insert_id(marker := self.marker())
        if self.rng.random() < 0.5:
            text, reply = f"SET last_insert_id={number} /*{marker}*/", OK
        else:
            text, reply = f"SELECT LAST_INSERT_ID({number}) /*{marker}*/", ("row", str(number))
        return self._text(text, reply, tracks="last_insert_id", effect=lambda: setattr(self, "_last_id", number))

    def _set(self) -> bytes:
        values = {"time_zone": f"Zone/{self.marker()}", "sql_mode": self.rng.choice(MODES), "foreign_key_checks": self.rng.choice("01"),
                  "max_execution_time": str(self.rng.randint(0, 9)), "autocommit": self.rng.choice("01")}  # fmt: skip
        if self.rng.random() < 0.3:
            values["time_zone"] = f"(Zo)ne\N{EURO SIGN}/{self.marker()}"
        names = self.rng.sample(sorted(values), self.rng.choice([1, 1, 2]))
        if self.rng.random() < 0.6:
            names = [name for name in names if name != "autocommit"] or ["time_zone"]
        wanted = {name: values[name] for name in names}
        defaults = {name for name in names if self.rng.random() < 0.2 and name != "autocommit"}
        items = [f"{name}={'DEFAULT' if name in defaults else self._literal(name, values[name])}" for name in names]
        wanted |= {name: GLOBAL[name] for name in defaults}
        before = self.status
        if wanted.get("autocommit") == "1" and self.settings["autocommit"] == "0":
            before = IDLE
        flags = before + ("A" if (self.settings | wanted)["autocommit"] == "1" else "")
        prefix = self.rng.choice(["", "SESSION ", "@@session."])
        text = "SET " + ",".join(prefix + item for item in items) + f" /*{self.marker()}*/"
        return self._text(text, OK, status=flags, tracks=" ".join(names), effect=lambda: self._have_set(wanted, before))

    def _literal(self, name: str, value: str) -> str:
        if name in {"time_zone", "sql_mode"}:
            return f"'{value}'"
        return {"1": "ON", "0": "OFF"}[value] if name == "foreign_key_checks" and self.rng.random() < 0.5 else value

    def _have_set(self, wanted: dict[str, str], status: str) -> None:
        self.settings |= wanted
        self.status = status

    def _set_names(self) -> bytes:
        charset = self.rng.choice(sorted(m.DEFAULT_COLLATIONS))
        collation = f"{charset}_bin" if self.rng.random() < 0.5 else ""
        text = f"SET NAMES {charset}" + (f" COLLATE {collation}" if collation else "") + f" /*{self.marker()}*/"
        return self._text(text, OK, tracks="character_set_client character_set_connection character_set_results",
                          effect=lambda: self.set_names(charset, collation))  # fmt: skip

    def _set_in_vain(self) -> bytes:
        token, effect = self._error(1193, "Unknown system variable 'nonsense'")
        return self._text(f"SET time_zone='{self.marker()}',nonsense=1 /*{self.marker()}*/", token, status="", effect=effect)

    def _show(self) -> bytes:
        names = self.rng.sample(sorted(self.settings), 2)
        text = f"SELECT @@session.{names[0]},@@session.{names[1]} /*{self.marker()}*/"
        return self._text(text, ("row", *(self.settings[name] for name in names)))

    def _use(self) -> bytes:
        schema = self.rng.choice(sorted(m.SCHEMAS))
        warnings = self._warnings if (command := self.rng.random() < 0.5) else []

        def effect() -> None:
            self._schema = schema
            self._warnings = warnings

        if command:
            return self._ask(wire.COM_INIT_DB, schema, ("ok", "0", "0", "*"), effect=effect)
        return self._text(f"USE {schema} /*{self.marker()}*/", OK, effect=effect)

    def _use_in_vain(self) -> bytes:
        # (MySQL adds this error to the warnings that there are; dualpool knows them only while the client has its server connection.)
        token, _ = self._error(1049, "Unknown database 'nowhere'")
        return self._ask(wire.COM_INIT_DB, "nowhere", token, status="", effect=self._forget_warnings)

    def _show_schema(self) -> bytes:
        return self._text(f"SELECT DATABASE() /*{self.marker()}*/", ("row", self._schema))

    def _begin(self) -> bytes:
        return self._transaction(f"{self.rng.choice(['BEGIN', 'START TRANSACTION'])} /*{self.marker()}*/", OPEN)

    def _transaction(self, text: str, status: str) -> bytes:
        def effect() -> None:
            self.status = status

        return self._text(text, OK, status=status + self._flags()[1:], effect=effect)

    def _commit(self) -> bytes:
        return self._transaction(f"COMMIT /*{self.marker()}*/", IDLE)

    def _rollback(self) -> bytes:
        return self._transaction(f"ROLLBACK /*{self.marker()}*/", IDLE)

    def _commit_and_chain(self) -> bytes:
        return self._transaction(f"COMMIT AND CHAIN /*{self.marker()}*/", OPEN)

    def _create(self) -> bytes:
        return self._transaction(f"CREATE TABLE t /*{self.marker()}*/", IDLE)

    def _set_transaction(self) -> bytes:
        return self._text(f"SET TRANSACTION READ ONLY /*{self.marker()}*/", OK)

    def _slow(self) -> bytes:
        marker = self.marker()
        return self._text(f"SELECT SLEEP(9),'{marker}'", ("row", marker), ("row", marker))

    def _fail(self) -> bytes:
        token, effect = self._error(1064, marker := self.marker())
        return self._text(f"FAIL '{marker}'", token, status="", effect=effect)

    def _deadlock(self) -> bytes:
        token, warn = self._error(1213, marker := self.marker())

        def effect() -> None:
            warn()
            self.status = IDLE

        return self._text(f"DEADLOCK '{marker}'", token, status="", effect=effect)

    def _warning(self) -> bytes:
        marker = self.marker()
        return self._text(f"WARN '{marker}'", ("ok", "0", "0", "1"), effect=lambda: self._warn("Warning", 1000, marker))

    def _show_warnings(self) -> bytes:
        if self._warnings is None:
            return self._select()
        rows = list(self._warnings)
        kind = self.rng.choice(("WARNINGS", "ERRORS"))
        shown = rows if kind == "WARNINGS" else [row for row in rows if row[1] == "Error"]
        return self._text(f"SHOW {kind}", *shown, effect=lambda: setattr(self, "_warnings", rows))

    def _count_warnings(self) -> bytes:
        if self._warnings is None:
            return self._select()
        return self._text("SELECT @@warning_count", ("row", str(len(self._warnings))), effect=self._forget_warnings)

    def _calc_found_rows(self) -> bytes:
        marker = self.marker()
        return self._text(
            f"SELECT SQL_CALC_FOUND_ROWS '{marker}'", ("row", marker), effect=lambda: setattr(self, "_found_rows", insert_id(marker))
        )

    def _show_found_rows(self) -> bytes:
        if not self._found_rows:
            return self._calc_found_rows()
        return self._text("SELECT FOUND_ROWS()", ("row", str(self._found_rows)))

    def _show_connection_id(self) -> bytes:
        if self._is_servers:
            return self._select()
        return self._text("SELECT CONNECTION_ID()", ("row", str(self.connection_id)), effect=self._forget_warnings)

    def _set_user_variable(self) -> bytes:
        name, value, marker = self.rng.choice("vw"), self.rng.choice([self.marker(), "It is long \N{EURO SIGN}" * 9]), self.marker()
        return self._text(f"SET @{name}='{value}' /*{marker}*/", OK,
                          effect=lambda: self._user_variables.update({name: value}))  # fmt: skip

    def _show_user_variable(self) -> bytes:
        name = self.rng.choice("vw")
        return self._text(f"SELECT @{name} /*{self.marker()}*/", ("row", self._user_variables.get(name, "NULL")))

    def _lock(self) -> bytes:
        lock = f"lock{self.name}"
        if lock in self._owns:
            return self._text(f"SELECT RELEASE_LOCK('{lock}') /*{self.marker()}*/", ("row", "1"), effect=lambda: self._owns.discard(lock))
        return self._text(f"SELECT GET_LOCK('{lock}',0) /*{self.marker()}*/", ("row", "1"), effect=lambda: self._owns.add(lock))

    def _temporary_table(self) -> bytes:
        table = f"tmp{self.name}"
        if table in self._owns:
            return self._text(f"DROP TEMPORARY TABLE {table} /*{self.marker()}*/", OK, effect=lambda: self._owns.discard(table))
        return self._text(f"CREATE TEMPORARY TABLE {table} /*{self.marker()}*/", OK, effect=lambda: self._owns.add(table))

    def _load(self) -> bytes:
        marker = self.marker()
        text = f"LOAD DATA LOCAL INFILE '{marker}' INTO TABLE t"
        status = self._after_touch()

        def effect() -> None:
            self.status = self._touched()

        if not self.capabilities & wire.CLIENT_LOCAL_FILES:
            refused = "Loading local data is disabled; this must be enabled on both the client and server sides"

            def forget() -> None:
                effect()
                self._forget_warnings()

            return self._ask(wire.COM_QUERY, text, ("error", "3948", refused), kind="load", status="", effect=forget)
        return self._ask(wire.COM_QUERY, text, ("file", marker), ("ok", "2", "0", "0"), kind="load", status=status, effect=effect)

    # Other commands.

    def _ping(self) -> bytes:
        rows = self._warnings
        return self._ask(wire.COM_PING, b"", OK, effect=lambda: setattr(self, "_warnings", rows))

    def _unknown(self) -> bytes:
        return self._ask(wire.COM_SHUTDOWN, b"", ("error", "1047", "Unknown command"), status="", effect=self._forget_warnings)

    def _statistics(self) -> bytes:
        rows = self._warnings
        effect = lambda: setattr(self, "_warnings", rows)  # noqa: E731
        return self._ask(wire.COM_STATISTICS, b"", ("text", "Uptime: 1"), kind="text", status="", effect=effect)

    def _reset_connection(self) -> bytes:
        return self._ask(wire.COM_RESET_CONNECTION, b"", OK, status=IDLE + "A", effect=self._have_reset)

    def _have_reset(self) -> None:
        self.settings = {name: value for name, value in GLOBAL.items() if name in self.settings}
        self.status = IDLE
        self._last_id = 0
        self._user_variables.clear()
        self._owns.clear()
        self._found_rows = 0
        if self._prepared:
            self._closed_statement = min(self._prepared)
        self._prepared.clear()

    def _prepare(self) -> bytes:
        if self.rng.random() < 0.1:
            token, warn = self._error(1064, marker := self.marker())
            return self._ask(wire.COM_STMT_PREPARE, f"SELECT '{marker}' FROM", token, kind="prepare", status="", effect=warn)
        text = self.rng.choice((*TEXTS, f"SELECT ?,MODE(),DATABASE() -- {self.name}"))
        columns = 0 if text.startswith(("INSERT", "FAIL")) else 4
        mode, schema = self.settings["sql_mode"], self._schema

        def effect() -> None:
            if self._new_number in self._prepared:
                raise Violation(f"{self.name} got the statement id {self._new_number} twice")
            self._prepared[self._new_number] = Prepared(self._new_number, text, mode, schema)

        reply = ("prepared", str(text.count("?")), str(columns))
        return self._ask(wire.COM_STMT_PREPARE, text, reply, kind="prepare", status="", effect=effect)

    def _execute(self) -> bytes:
        if not self._prepared:
            return self._prepare()
        statement = self._prepared[self.rng.choice(sorted(self._prepared))]
        return self._run(statement, cursor=False)

    def _run(self, statement: Prepared, *, cursor: bool, long_data: bool = False) -> bytes:
        marker = self.marker()
        kind = statement.kind or (m.STRING if long_data else self.rng.choice((m.STRING, m.NUMBER)))
        null = not long_data and self.rng.random() < 0.1
        payload = struct.pack("<IBI", statement.number, m.CURSOR if cursor else 0, 1)
        first, value, shown, number = b"", b"", "NULL", 0
        if "?" not in statement.text:
            kind = 0
        elif not null:
            number = insert_id(marker)
            shown = f"{number if kind == m.NUMBER else marker}:{kind}"
            value = struct.pack("<Q", number) if kind == m.NUMBER else string(marker)
        if long_data:
            first, value = self._long_data(statement, marker), b""
        if kind:
            known = statement.bound == kind and self.rng.random() < 0.5
            payload += bytes((null, not known)) + (b"" if known else struct.pack("<H", kind)) + value

        def effect() -> None:
            statement.bound = kind
            statement.kind = statement.kind if null else kind
            statement.has_cursor = cursor
            statement.value = shown

        return first + self._execution(statement, payload, shown, number, effect)

    def _execution(self, statement: Prepared, payload: bytes, shown: str, number: int, effect: Callable[[], None]) -> bytes:
        def inserted() -> None:
            effect()
            self._inserted(number or self._last_id)

        if statement.text.startswith("FAIL"):
            token, warn = self._error(1064, "None" if shown == "NULL" else shown.partition(":")[0])

            def failed() -> None:
                effect()
                warn()

            return self._ask(wire.COM_STMT_EXECUTE, payload, token, kind="execute", status="", effect=failed)
        if statement.text.startswith("INSERT"):
            ok = ("ok", "1", str(number), "0")
            return self._ask(wire.COM_STMT_EXECUTE, payload, ok, kind="execute", status=self._after_touch(), effect=inserted)
        last_id = str(self._last_id) if "INSERT_ID" in statement.text else "0"
        row = ("cursor",) if payload[4] & m.CURSOR else ("row", shown, statement.mode, statement.schema, last_id)
        return self._ask(wire.COM_STMT_EXECUTE, payload, row, kind="execute", effect=effect)

    def _long_data(self, statement: Prepared, data: str) -> bytes:
        half = len(data) // 2
        head = bytes((wire.COM_STMT_SEND_LONG_DATA,)) + struct.pack("<IH", statement.number, 0)
        return m.packet(0, head + data[:half].encode()) + m.packet(0, head + data[half:].encode())

    def _with_long_data(self) -> bytes:
        found = [one for one in self._prepared.values() if "?" in one.text and one.kind in (0, m.STRING)]
        return self._run(self.rng.choice(found), cursor=False, long_data=True) if found else self._prepare()

    def _open_cursor(self) -> bytes:
        found = [one for one in self._prepared.values() if one.text.startswith("SELECT")]
        return self._run(self.rng.choice(found), cursor=True) if found else self._prepare()

    def _fetch(self) -> bytes:
        found = [one for one in self._prepared.values() if one.has_cursor]
        if not found:
            return self._open_cursor()
        statement = self.rng.choice(found)
        rest = struct.pack("<II", statement.number, 10)
        rows = [("row of", statement.value)] * 3

        def effect() -> None:
            statement.has_cursor = False
            self._forget_warnings()

        return self._ask(wire.COM_STMT_FETCH, rest, *rows, kind="fetch", effect=effect)

    def _close_statement(self) -> bytes:
        if not self._prepared:
            return self._prepare()
        self._closed_statement = self.rng.choice(sorted(self._prepared))
        del self._prepared[self._closed_statement]
        return m.packet(0, bytes((wire.COM_STMT_CLOSE,)) + struct.pack("<I", self._closed_statement))

    def _execute_closed(self) -> bytes:
        number = self._closed_statement
        if not number or number in self._prepared:
            return self._execute()
        text = f"Unknown prepared statement handler ({number}) given to mysql_stmt_precheck"
        rest = struct.pack("<IBI", number, 0, 1)
        return self._ask(wire.COM_STMT_EXECUTE, rest, ("error", "1243", text), kind="execute", status="", effect=self._forget_warnings)

    def _reset_statement(self) -> bytes:
        if not self._prepared:
            return self._prepare()
        statement = self._prepared[self.rng.choice(sorted(self._prepared))]
        first = b""
        if "?" in statement.text and statement.kind in (0, m.STRING):
            first = self._long_data(statement, "forgotten")
        rows = self._warnings if not statement.has_cursor else None

        def effect() -> None:
            statement.has_cursor = False
            self._warnings = rows

        return first + self._ask(wire.COM_STMT_RESET, struct.pack("<I", statement.number), OK, effect=effect)

    # -------------------------------------------------------------------------------------------------------------- replies

    def in_message(self) -> bool:
        return bool(self._buffer) or self._phase != self._head or self._number != 1

    def _compare(self, token: Token) -> None:
        wanted = self.expected[0] if self.expected else ("nothing",)
        if token[0] != "ready":
            self.perhaps_last = token if token[:2] == ("error", "1053") else None
        if self._skipping:
            if token[0] == "ready":
                self._skipping = False
                while self.expected.popleft()[0] != "ready":
                    pass
                self._commands.popleft()
                self._warnings = None
                self._row_count = ""
        elif wanted == ("written",) and token[:2] == ("error", "1290"):
            self.expected.popleft()
            self.expected[0] = ("ready", "")
            self._commands[0].effect = lambda: self._warn("Error", 1290, "--read-only")
        elif token == wanted or matches(token, wanted) or (wanted == ("written",) and token == OK):
            self.expected.popleft()
            if token[0] == "ready":
                self._done(self._commands.popleft())
        elif token[0] == "error" and is_last(token) and not (token[1] == "1053" and self.expected):
            self.last_words = token
            self.expected.clear()
            self._commands.clear()
        elif token[0] == "error" and token[1] in self.pool_errors and self.expected:
            self.refusals += 1
            self._skipping = True
        else:
            raise Violation(f"{self.name} got {token}, and wanted {wanted}")

    def _done(self, command: Command) -> None:
        self._warnings = []
        self._row_count = ""
        self._found_rows = self._found_rows if command.kind == "found" else 0
        if command.effect is not None:
            command.effect()

    def tokens(self, data: bytes) -> Iterator[Token]:
        self._buffer += data
        while (found := m.take_packet(self._buffer)) is not None:
            number, payload = found
            if number != self._number & 255:
                raise Violation(f"{self.name} got packet {number}, and wanted {self._number}: {payload[:60]!r}")
            self._number += 1
            yield from self._phase(payload)

    def _finish(self, flags: str) -> Token:
        self._phase = self._head
        self._number = 1
        return ("ready", flags)

    def _head(self, payload: bytes) -> Iterator[Token]:
        command = self._commands[0] if self._commands else None
        first = payload[0]
        if first == wire.ERR or command is None:
            yield from self._err(payload)
        elif command.kind == "text":
            yield ("text", payload.decode())
            yield self._finish("")
        elif command.kind == "prepare":
            yield from self._prepared_ok(payload)
        elif command.kind == "fetch":
            self._binary, self._columns = True, 4
            self._phase = self._row
            yield from self._row(payload)
        elif first == wire.OK:
            yield from self._ok(payload, command)
        elif first == wire.LOCAL_INFILE:
            yield ("file", payload[1:].decode())
            for line in (b"line of " + payload[1:], b""):
                self._write(line)
        else:
            self._columns = self._left = Reader(payload).lenenc()
            self._binary = command.kind == "execute"
            self._lists = [1]
            self._phase = self._definition

    def _err(self, payload: bytes) -> Iterator[Token]:
        if payload[:1] != b"\xff" or payload[3:4] != b"#":
            raise Violation(f"{self.name} got {payload!r}, and had asked for nothing")
        yield ("error", str(int.from_bytes(payload[1:3], "little")), payload[9:].decode())
        if self._commands and not self.last_words:
            yield self._finish("")
        else:
            self._number = 1

    def _ok(self, payload: bytes, command: Command) -> Iterator[Token]:
        reader = Reader(payload, 1)
        affected, new_id = reader.lenenc(), reader.lenenc()
        status, warnings = reader.number(2), reader.number(2)
        if self.capabilities & wire.CLIENT_SESSION_TRACK:
            if not reader.at_end():
                reader.string()
            if status & wire.STATUS_SESSION_STATE_CHANGED:
                self._check_changes(Reader(reader.string()), command)
        elif status & wire.STATUS_SESSION_STATE_CHANGED:
            raise Violation(f"{self.name} is told of changes, and has not asked for it")
        else:
            reader.rest()
        if not reader.at_end():
            raise Violation(f"{self.name} got an OK packet with {reader.rest()!r} behind it")
        if payload[0] == wire.OK:
            yield ("ok", str(affected), str(new_id), str(warnings))
        yield from self._status(status)

    def _check_changes(self, reader: Reader, command: Command) -> None:
        while not reader.at_end():
            kind, change = reader.number(1), Reader(reader.string())
            while kind == wire.TRACK_SYSTEM_VARIABLES and not change.at_end():
                name, value = change.string().decode(), change.string().decode()
                if name not in command.tracks:
                    raise Violation(f"{self.name} is told of {name}={value}, which it has not set")

    def _status(self, status: int) -> Iterator[Token]:
        if status & wire.STATUS_MORE_RESULTS:
            self._phase = self._head
            return
        yield self._finish((OPEN if status & wire.STATUS_IN_TRANS else IDLE) + ("A" if status & wire.STATUS_AUTOCOMMIT else ""))

    def _prepared_ok(self, payload: bytes) -> Iterator[Token]:
        reader = Reader(payload, 1)
        self._new_number, columns, params = reader.number(4), reader.number(2), reader.number(2)
        reader.number(3)
        if payload[0] != wire.OK or not reader.at_end():
            raise Violation(f"{self.name} got {payload!r} for a COM_STMT_PREPARE")
        yield ("prepared", str(params), str(columns))
        self._lists = [count for count in (params, columns) if count]
        yield from self._next_list()

    def _next_list(self) -> Iterator[Token]:
        """Of definitions, in the answer to COM_STMT_PREPARE."""
        if not self._lists:
            yield self._finish("")
            return
        self._left = self._lists.pop(0)
        self._phase = self._definition

    def _definition(self, payload: bytes) -> Iterator[Token]:
        if payload[:1] == b"\xff":
            yield from self._err(payload)
            return
        if not payload.startswith(b"\x03def"):
            raise Violation(f"{self.name} got {payload!r} in place of a column definition")
        self._left -= 1
        if self._left:
            return
        if not self.capabilities & wire.CLIENT_DEPRECATE_EOF:
            self._phase = self._middle
        else:
            yield from self._after_definitions(0)

    def _middle(self, payload: bytes) -> Iterator[Token]:
        if payload[:1] != b"\xfe" or len(payload) != 5:
            raise Violation(f"{self.name} got {payload!r} in place of an EOF packet behind definitions")
        yield from self._after_definitions(Reader(payload, 3).number(2))

    def _after_definitions(self, status: int) -> Iterator[Token]:
        if self._commands[0].kind == "prepare":
            yield from self._next_list()
        elif status & wire.STATUS_CURSOR_EXISTS:
            yield ("cursor",)
            yield from self._status(status)
        else:
            self._phase = self._row

    def _row(self, payload: bytes) -> Iterator[Token]:
        if payload[:1] == b"\xff":
            yield from self._err(payload)
        elif payload[:1] == b"\xfe":
            yield from self._end(payload)
        elif self._binary:
            yield ("row", *m.read_binary_row(payload, self._columns))
        else:
            yield ("row", *m.read_text_row(payload))

    def _end(self, payload: bytes) -> Iterator[Token]:
        deprecated = bool(self.capabilities & wire.CLIENT_DEPRECATE_EOF)
        if not deprecated and len(payload) != 5:
            raise Violation(f"{self.name} got {payload!r} in place of an EOF packet")
        status = int.from_bytes(payload[3:5], "little")
        if status & wire.STATUS_CURSOR_EXISTS and self._commands[0].kind == "execute":
            yield ("cursor",)
        if deprecated:
            yield from self._ok(payload, self._commands[0])
        else:
            yield from self._status(status)


def is_last(token: Token) -> bool:
    """Does this error end the session? (A connect that failed has the backend's name in front.)"""
    return token[1] in END_OF_SESSION and not token[2].startswith("backend ")


def matches(token: Token, wanted: Token) -> bool:
    """What can be told in more than one way."""
    if wanted == ("killed",):
        return token[0] == "ok" or token[:2] == ("error", "1094")
    if wanted == ("ready", "*"):
        return token[0] == "ready"
    if wanted == ("ok", "0", "0", "*"):
        # How many warnings there are behind COM_INIT_DB is said of whatever statement ran on the server connection before.
        return token[:3] == wanted[:3]
    return wanted[0] == "row of" and token[:2] == ("row", wanted[1])


Choice = Callable[[MysqlClient], bytes]
EVERYWHERE: list[Choice] = [
    MysqlClient._select, MysqlClient._select, MysqlClient._plain, MysqlClient._plain, MysqlClient._many_rows, MysqlClient._several,
    MysqlClient._insert, MysqlClient._insert, MysqlClient._update, MysqlClient._last_insert_id, MysqlClient._last_insert_id,
    MysqlClient._count_up,
    MysqlClient._set_last_insert_id, MysqlClient._set, MysqlClient._set, MysqlClient._set_names, MysqlClient._set_in_vain,
    MysqlClient._show, MysqlClient._show, MysqlClient._show, MysqlClient._use, MysqlClient._use_in_vain, MysqlClient._show_schema,
    MysqlClient._show_schema, MysqlClient._slow, MysqlClient._fail, MysqlClient._warning, MysqlClient._show_warnings,
    MysqlClient._show_warnings, MysqlClient._count_warnings, MysqlClient._calc_found_rows, MysqlClient._show_found_rows,
    MysqlClient._show_connection_id, MysqlClient._load, MysqlClient._ping, MysqlClient._unknown, MysqlClient._statistics,
    MysqlClient._prepare, MysqlClient._show_user_variable,
]  # fmt: skip
BEHIND_OTHERS: list[Choice] = [
    MysqlClient._select, MysqlClient._plain, MysqlClient._many_rows, MysqlClient._insert, MysqlClient._begin, MysqlClient._set,
    MysqlClient._use, MysqlClient._slow, MysqlClient._fail, MysqlClient._prepare, MysqlClient._load,
]  # fmt: skip
"""What can be asked for before the answers to plain SELECTs are there, because nothing of it depends on what is the case behind those."""
OUTSIDE: list[Choice] = [
    *[MysqlClient._begin] * 4,
    MysqlClient._delete,
    MysqlClient._set_transaction, MysqlClient._reset_connection, MysqlClient._set_user_variable, MysqlClient._create, MysqlClient._lock,
    MysqlClient._temporary_table,
]  # fmt: skip
INSIDE: list[Choice] = [
    *[MysqlClient._commit] * 6,
    MysqlClient._rollback, MysqlClient._commit_and_chain, MysqlClient._create, MysqlClient._deadlock, MysqlClient._deadlock,
    MysqlClient._reset_connection, MysqlClient._begin,
]  # fmt: skip
WITH_STATEMENTS: list[Choice] = [
    *[MysqlClient._execute] * 8,
    MysqlClient._with_long_data, MysqlClient._open_cursor, MysqlClient._fetch, MysqlClient._fetch, MysqlClient._close_statement,
    MysqlClient._execute_closed, MysqlClient._reset_statement,
]  # fmt: skip


class MysqlDatabase(Database):
    session_type: ClassVar[type[Session]] = MysqlSession
    smallest_pipe = 60
    steps = 1000
    wild = 0.3
    roles = ("read-write", "standby")

    def __init__(self) -> None:
        super().__init__()
        # What one schedule has left there must not change the next one.
        knowledge.forget()
        KNOWN_NAMES.clear()
