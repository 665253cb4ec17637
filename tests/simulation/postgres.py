"""The simulated PostgreSQL: a server that knows a handful of statements, and clients that speak both query protocols, pipelined.

Written from the documentation (Frontend/Backend Protocol) and without dualpool's own codec, so that the two cannot be wrong together.
"""

import random
import re
import struct
from collections.abc import Callable, Iterator
from typing import ClassVar

from dualpool.accounts import Account, ClientLogin
from dualpool.postgres import catalog
from tests.simulation.machines import Machine
from tests.simulation.peers import FAILED, IDLE, OPEN, Client, Database, Session, Token, Violation

CANCEL_REQUEST = 80877102
DEFAULTS = {"application_name": "", "work_mem": "4MB"}
"""Two settings: the server reports changes of the first (ParameterStatus), and not of the second."""
LEXICAL = {"client_encoding": "UTF8", "standard_conforming_strings": "on"}
"""The settings by which texts are read. They stay as they are."""
SECRET = b"\0\1\2\3"


def message(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(payload) + 4) + payload


def text(*parts: str) -> bytes:
    return b"".join(part.encode() + b"\0" for part in parts)


def take_message(buffer: bytearray) -> tuple[bytes, bytes] | None:
    """The next message, if it is whole."""
    if len(buffer) < 5:
        return None
    (length,) = struct.unpack_from("!i", buffer, 1)
    if len(buffer) < length + 1:
        return None
    kind, payload = bytes(buffer[:1]), bytes(buffer[5 : length + 1])
    del buffer[: length + 1]
    return kind, payload


def error(code: str, said: str, severity: str = "ERROR") -> bytes:
    return message(b"E", text(f"S{severity}", f"V{severity}", f"C{code}", f"M{said}") + b"\0")


class PostgresClient(Client):
    """Requests in both protocols. Names of prepared statements are the client's own, so they are those of other clients, too."""

    pool_errors = frozenset({"53300", "08006", "57014", "28P01"})

    def __init__(self, name: str, rng: random.Random) -> None:
        super().__init__(name, rng)
        self.settings = DEFAULTS | {"application_name": name}
        self._buffer = bytearray()
        self._welcomed = False
        self._prepared: set[str] = set()
        self._told: dict[str, str] = {}
        """The shape of each, as the client was told."""
        self._statements = 0

    def login(self, database: str, mode: int, lane: int) -> ClientLogin:
        account = Account("app", database, mode=mode, lane=lane)
        return ClientLogin(account, {"application_name": self.name}, None, None, protocol_version=3 << 16)

    def request(self) -> bytes:
        named = [self._named] * 4
        choices: list[Callable[[], bytes]] = [self._select, self._select, self._unnamed, *named, self._pipeline]
        if self.status == IDLE:
            choices += [
                self._begin,
                self._begin,
                self._set,
                *[self._show] * 4,
                self._fail,
                self._slow,
                self._slow,
                self._close_statement,
                self._several,
                self._write,
                self._alter,
                self._alter,
            ]
        else:
            choices += [self._commit, self._commit, self._fail]
        if self.status == FAILED:
            choices = [self._select_in_vain, self._rollback]
        return self.rng.choice(choices)()

    def finish(self) -> bytes:
        return self._rollback() if self.status != IDLE else b""

    def goodbye(self) -> bytes:
        return message(b"X")

    # -------------------------------------------------------------------------------------------------- simple queries

    def _query(self, sql: str, *replies: Token, status: str = "") -> bytes:
        self.status = status or self.status
        self.expected += [*replies, ("ready", self.status)]
        return message(b"Q", text(sql))

    def _select(self) -> bytes:
        marker = self.marker()
        return self._query(f"select '{marker}'", ("described",), ("row", marker), ("done", "SELECT"))

    def _several(self) -> bytes:
        one, two = self.marker(), self.marker()
        rows = [token for marker in (one, two) for token in (("described",), ("row", marker), ("done", "SELECT"))]
        return self._query(f"select '{one}'; select '{two}'", *rows)

    def _fail(self) -> bytes:
        marker = self.marker()
        return self._query(f"fail '{marker}'", ("error", "22012", marker), status=FAILED if self.status == OPEN else IDLE)

    def _select_in_vain(self) -> bytes:
        return self._query(f"select '{self.marker()}'", ("error", "25P02", "aborted"))

    def _slow(self) -> bytes:
        marker = self.marker()
        self.slow = True
        return self._query(f"slow '{marker}'", ("described",), ("row", marker), ("done", "SELECT"))

    def _write(self) -> bytes:
        return self._query(f"write '{self.marker()}'", ("written",))

    def _alter(self) -> bytes:
        data = self._query(f"alter '{self.marker()}'", ("done", "ALTER"))
        return data + self._named() if self.rng.random() < 0.5 else data

    def _begin(self) -> bytes:
        self.must_wait = True
        return self._query(f"begin '{self.marker()}'", ("done", "BEGIN"), status=OPEN)

    def _commit(self) -> bytes:
        return self._query("commit", ("done", "COMMIT"), status=IDLE)

    def _rollback(self) -> bytes:
        return self._query("rollback", ("done", "ROLLBACK"), status=IDLE)

    def _set(self) -> bytes:
        name, value = self.rng.choice(sorted(DEFAULTS)), self.marker()
        return self._query(f"set {name} = '{value}'", ("set", name, value))

    def _show(self) -> bytes:
        name = self.rng.choice(sorted(DEFAULTS))
        return self._query(f"show {name} /*{self.marker()}*/", ("described",), ("setting", name), ("done", "SHOW"))

    # -------------------------------------------------------------------------------------------------- extended queries

    def _sync(self, data: bytes) -> bytes:
        self.expected.append(("ready", self.status))
        return data + message(b"S")

    def _run(self, statement: str, parameters: tuple[str, ...], marker: str) -> bytes:
        self.expected += [("bound",), ("row", marker), ("done", "SELECT")]
        values = b"".join(struct.pack("!i", len(value)) + value.encode() for value in parameters)
        bind = text("", statement) + struct.pack("!hh", 0, len(parameters)) + values + struct.pack("!h", 0)
        return message(b"B", bind) + message(b"E", text("") + struct.pack("!i", 0))

    def _parse(self, statement: str, sql: str) -> bytes:
        self.expected.append(("parsed",))
        return message(b"P", text(statement, sql) + struct.pack("!h", 0))

    def _unnamed(self) -> bytes:
        marker = self.marker()
        return self._sync(self._parse("", f"select '{marker}'") + self._run("", (), marker))

    def _named(self) -> bytes:
        marker = self.marker()
        if self._prepared and self.rng.random() < 0.7:
            name = self.rng.choice(sorted(self._prepared))
            # Somebody may have changed the table: then the server refuses.
            self.must_wait = True
            return self._sync(self._run_shaped(name, marker, learns=self.rng.random() < 0.3))
        self._statements += 1
        name = f"s{self._statements}"
        # Until it is known to be prepared it cannot be used: the pool may refuse.
        self.must_wait = True
        return self._prepare_and_run(name, marker)

    def _run_shaped(self, name: str, marker: str, *, learns: bool) -> bytes:
        """Rows of a prepared statement come in a shape. `learns`: the client asks once more for that of the portal."""
        data = self._run(name, (marker,), marker)
        for _ in range(2):
            self.expected.pop()
        self.expected += [("told", name)] if learns else []
        self.expected += [("shaped", marker, name), ("done", "SELECT")]
        bind_size = 1 + struct.unpack_from("!i", data, 1)[0]
        return data[:bind_size] + (message(b"D", b"P" + text("")) if learns else b"") + data[bind_size:]

    def _prepare_and_run(self, name: str, marker: str) -> bytes:
        # Some share their text with other clients' statements, and so their place on the server.
        parse = self._parse(name, f"select $1 -- {self.rng.choice(['x', 'y', self.name])}")
        self.expected[-1] = ("prepared", name)
        self.expected.append(("told", name))
        return self._sync(parse + message(b"D", b"S" + text(name)) + self._run_shaped(name, marker, learns=False))

    def _close_statement(self) -> bytes:
        if not self._prepared:
            return self._select()
        name = self.rng.choice(sorted(self._prepared))
        self._prepared.discard(name)
        self.expected.append(("closed",))
        return self._sync(message(b"C", b"S" + text(name)))

    def _pipeline(self) -> bytes:
        """Several segments at once; one with an error in its middle, whose rest the server skips."""
        data = b""
        for _ in range(self.rng.randint(1, 4)):
            data += self._unnamed()
        return data + self._failing_segment() if self.status == IDLE and self.rng.random() < 0.5 else data

    def _failing_segment(self) -> bytes:
        marker = self.marker()
        data = self._parse("", f"fail '{marker}'")
        self.expected += [("bound",), ("error", "22012", marker)]
        run = message(b"B", text("", "") + struct.pack("!hhh", 0, 0, 0)) + message(b"E", text("") + struct.pack("!i", 0))
        # What comes after the error is skipped; a name prepared there does not exist. Nothing is asked before that is known: a relay
        # that has passed on the Parse cannot know either whether the next request with the same text needs one of its own.
        self.must_wait = True
        self._statements += 1
        vain = message(b"P", text(f"s{self._statements}", f"select $1 -- {self.rng.choice(['x', 'y'])}") + struct.pack("!h", 0))
        return self._sync(data + run + vain + run)

    # -------------------------------------------------------------------------------------------------- replies

    def _compare(self, token: Token) -> None:
        if self.expected and self.expected[0][0] == "prepared" and token == ("parsed",):
            self._prepared.add(self.expected.popleft()[1])
            return
        if self.expected and self.expected[0][0] == "told" and token[0] == "shape":
            self._told[self.expected.popleft()[1]] = token[1]
            return
        if self.expected and self.expected[0][0] == "shaped" and token[0] == "row":
            _, marker, name = self.expected.popleft()
            if token[1] != f"{marker}@{self._told[name]}":
                raise Violation(f"{self.name} got {token}, and can read rows of shape {self._told[name]}")
            return
        if token[:2] == ("error", "0A000"):
            self._stale()
            return
        if self.expected and self.expected[0] == ("written",) and (token == ("done", "INSERT") or token[:2] == ("error", "25006")):
            self.expected.popleft()
            return
        super()._compare(token)

    def logged_in(self) -> None:
        """Its login is over (where there is none in the schedule)."""
        self._welcomed = True

    def _stale(self) -> None:
        """The table was changed since the statement was prepared: nothing of its segment has run."""
        gone = []
        while self.expected and self.expected[0][0] != "ready":
            gone.append(self.expected.popleft())
        if not any(token[0] == "shaped" for token in gone) or ("done", "SELECT") not in gone:
            raise Violation(f"{self.name} got 0A000, and wanted {gone}")
        self._prepared -= {token[2] for token in gone if token[0] == "shaped"}
        if self.status == OPEN:
            self.status = FAILED
        self.expected[0] = ("ready", self.status)

    def in_message(self) -> bool:
        return bool(self._buffer)

    def tokens(self, data: bytes) -> Iterator[Token]:
        self._buffer += data
        while (found := take_message(self._buffer)) is not None:
            token = self._token(*found)
            if not self._welcomed:
                self._welcomed = token == ("ready", IDLE)
            elif token is not None:
                yield token

    def _token(self, kind: bytes, payload: bytes) -> Token | None:
        simple = {b"1": "parsed", b"2": "bound", b"3": "closed"}.get(kind)
        if simple is not None:
            return (simple,)
        if kind == b"T" and payload[2:3] == b"@":
            return ("shape", payload[3:].partition(b"\0")[0].decode())
        if kind == b"T":
            return ("described",)
        if kind == b"D":
            (size,) = struct.unpack_from("!i", payload, 2)
            return ("row", payload[6 : 6 + size].decode())
        if kind == b"C":
            return ("done", payload[:-1].decode().split()[0])
        if kind == b"Z":
            return ("ready", payload.decode())
        if kind == b"E":
            fields = {field[:1].decode(): field[1:].decode() for field in payload.split(b"\0") if field}
            return ("fatal" if fields["V"] == "FATAL" else "error", fields["C"], fields["M"])
        if kind in {b"S", b"N", b"R", b"K", b"t"}:
            return None
        raise Violation(f"{self.name} got a message of kind {kind!r}")


STATEMENT = re.compile(r"(\w+)(?: '([^']*)'| (\$1).*| \"?(\w+)\"?(?:(?: = | TO | to )'([^']*)')?)?(?: /\*(.*)\*/)?\Z", re.DOTALL)


ROLE_QUERY = "SELECT pg_is_in_recovery()::text || current_setting('transaction_read_only')"
ROLE_ANSWERS = {"read-write": "falseoff", "read-only": "falseon", "standby": "trueon"}
BLOCK = {"BEGIN ISOLATION LEVEL READ COMMITTED": OPEN, "COMMIT": IDLE}
SET_CONFIG = "SELECT pg_catalog.set_config("
CALL = re.compile(r"pg_catalog\.set_config\('(\w+)', (NULL|'[^']*'), false\)")


class PostgresSession(Session):
    """begin, commit, rollback, select, fail, slow, set, reset, show, discard all; prepared statements; errors that skip to Sync."""

    def __init__(self, database: Database, process_id: int, machine: Machine) -> None:
        super().__init__(database, process_id, machine)
        self._defaults = dict(DEFAULTS)
        self._settings = dict(DEFAULTS)
        self._statements: dict[str, tuple[str, int]] = {}
        """For each name the text, and the shape of its rows."""
        self._portal: tuple[str, int | None] = ("", None)
        """What it runs, and the shape of its rows, if they have one."""
        self._skipping = False

    def step(self) -> bool:
        if self.slow or self.ended:
            return False
        if not self.started:
            return self._start()
        found = take_message(self.incoming)
        if found is None:
            return False
        kind, payload = found
        if not self._skipping or kind in {b"S", b"X"}:
            self._handle(kind, payload)
        return True

    def _start(self) -> bool:
        if len(self.incoming) < 8 or len(self.incoming) < struct.unpack_from("!i", self.incoming)[0]:
            return False
        length, version = struct.unpack_from("!ii", self.incoming)
        payload = bytes(self.incoming[8:length])
        del self.incoming[:length]
        if version == CANCEL_REQUEST:
            (process_id,) = struct.unpack_from("!i", payload)
            self.ended = True
            victim = self.database.sessions.get(process_id)
            if victim is not None and payload[4:] == SECRET:
                victim.cancel()
            return True
        if self.database.is_full(self.machine):
            self.outgoing += error("53300", "sorry, too many clients already", "FATAL")
            self.ended = True
            return True
        fields = payload.decode().split("\0")
        parameters = dict(zip(fields[::2], fields[1::2], strict=False))
        self._defaults |= {name: parameters[name] for name in DEFAULTS if name in parameters}
        self._settings = dict(self._defaults)
        self.started = True
        lexical = b"".join(message(b"S", text(*pair)) for pair in LEXICAL.items())
        self.outgoing += message(b"R", struct.pack("!i", 0)) + lexical + self._report()
        self.outgoing += message(b"K", struct.pack("!i", self.process_id) + SECRET) + self._ready()
        return True

    def _handle(self, kind: bytes, payload: bytes) -> None:
        if kind == b"Q":
            self._simple(payload[:-1].decode())
        elif kind == b"P":
            name, sql = payload.split(b"\0")[:2]
            if name and name.decode() in self._statements:
                self._refuse("42P05", f'prepared statement "{name.decode()}" already exists')
            else:
                self._statements[name.decode()] = sql.decode(), self._shape()
                self.outgoing += message(b"1")
        elif kind == b"D":
            self._describe(payload[:1], payload[1:-1].decode())
        elif kind == b"B":
            self._bind(payload)
        elif kind == b"E":
            self._execute_portal()
        elif kind == b"C":
            self._statements.pop(payload[1:-1].decode(), None)
            self.outgoing += message(b"3")
        elif kind == b"S":
            self._skipping = False
            self.outgoing += self._ready()
        elif kind == b"X":
            self.ended = True
        elif kind != b"H":
            raise Violation(f"the server got a message of kind {kind!r}")

    def _simple(self, sql: str) -> None:
        if not sql:
            self.outgoing += message(b"I") + self._ready()
            return
        for statement in sql.split("; "):
            answer, ok = self._execute(statement, described=True)
            self.outgoing += answer
            if not ok:
                break
            if self.slow:
                return
        self.outgoing += self._ready()

    def _bind(self, payload: bytes) -> None:
        _, name, rest = payload.split(b"\0", 2)
        if name.decode() not in self._statements:
            self._refuse("26000", f'prepared statement "{name.decode()}" does not exist')
            return
        sql, shape = self._statements[name.decode()]
        (count,) = struct.unpack_from("!h", rest, 2)
        if count and self.status == FAILED:
            self._refuse("25P02", "aborted")
            return
        if count and shape != self._shape():
            self._refuse_stale()
            return
        if count:
            (size,) = struct.unpack_from("!i", rest, 4)
            sql = f"select '{rest[8 : 8 + size].decode()}'"
        self._portal = sql, shape if count else None
        self.outgoing += message(b"2")

    def _shape(self) -> int:
        assert isinstance(self.database, PostgresDatabase)
        return self.database.shape

    def _refuse_stale(self) -> None:
        self._skipping = True
        self.status = FAILED if self.status == OPEN else self.status
        fields = text("SFEHLER", "VERROR", "C0A000", "Mverwendeter Plan passt nicht", "RRevalidateCachedQuery")
        self.outgoing += message(b"E", fields + b"\0")

    def _describe(self, what: bytes, name: str) -> None:
        """Of a statement without parameters nothing is told: what it returns is known when it runs."""
        sql, shape = self._statements.get(name, ("", 0)) if what == b"S" else ("$", self._portal[1])
        if what == b"S" and name not in self._statements:
            self._refuse("26000", f'prepared statement "{name}" does not exist')
            return
        if what == b"S":
            self.outgoing += message(b"t", struct.pack("!h", sql.count("$")) + struct.pack("!i", 25) * sql.count("$"))
        if "$" not in sql:
            self.outgoing += message(b"n")
        elif what == b"S" and shape != self._shape():
            self._refuse_stale()
        else:
            self.outgoing += message(b"T", struct.pack("!h", 1) + text(f"@{shape}") + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0))

    def _execute_portal(self) -> None:
        answer, ok = self._execute(self._portal[0], described=False, shape=self._portal[1])
        self.outgoing += answer
        self._skipping = not ok

    def _execute(self, sql: str, *, described: bool, shape: int | None = None) -> tuple[bytes, bool]:
        """The answer, and whether it went well."""
        if sql.startswith(SET_CONFIG):
            for name, value in CALL.findall(sql):
                self._settings[name] = self._defaults[name] if value == "NULL" else value[1:-1]
            return self._rows("", "SELECT 1", described=described) + self._report(), True
        if "pg_db_role_setting" in sql:
            return error("42P01", "no catalogs"), False
        if sql.startswith("SELECT ''::pg_catalog.text AS name"):
            return self._probed(facts="pg_proc" in sql), True
        if sql == ROLE_QUERY:
            return self._rows(ROLE_ANSWERS[self.tell_role()], "SELECT 1", described=described), True
        if sql in BLOCK:
            # Around what brings the session to a client's settings.
            if self.status == FAILED:
                return error("25P02", "aborted"), False
            self.status = BLOCK[sql]
            return message(b"C", text(sql.split(maxsplit=1)[0])), True
        match = STATEMENT.match(sql)
        if match is None:
            raise Violation(f"the server got {sql!r}")
        word, marker = match[1].lower(), match[2] or match[6] or ""
        if marker:
            self.check_owner(marker)
        if self.status == FAILED and word != "rollback":
            return error("25P02", "aborted"), False
        if word == "fail":
            self.status = FAILED if self.status == OPEN else self.status
            return error("22012", marker), False
        if word == "write":
            return (message(b"C", text("INSERT 0 1")), True) if self.takes_writes() else (error("25006", marker), False)
        if word == "slow":
            self.slow = marker
            return b"", True
        if word == "select":
            value = marker if shape is None else f"{marker}@{shape}"
            return self._rows(value, "SELECT 1", described=described), True
        if word == "show":
            return self._rows(self._settings[match[4]], "SHOW", described=described), True
        return self._command(word, match), True

    def _probed(self, *, facts: bool) -> bytes:
        """What the session holds: nothing but settings. `facts`: and what the catalog says, which has no functions."""
        found = {name: value.encode().hex() for name, value in self._settings.items() if value != self._defaults[name]}
        rows = [("", ""), *found.items(), *([("version", "1", "")] if facts else [])]
        return b"".join(map(self._data_row, rows)) + message(b"C", text("SELECT"))

    def _data_row(self, values: tuple[str, ...]) -> bytes:
        columns = b"".join(struct.pack("!i", len(value)) + value.encode() for value in values)
        return message(b"D", struct.pack("!h", len(values)) + columns)

    def _command(self, word: str, match: "re.Match[str]") -> bytes:
        reported = b""
        if word == "begin":
            self.status = OPEN
        elif word in {"commit", "rollback"}:
            self.status = IDLE
        elif word in {"set", "reset"}:
            self._settings[match[4]] = match[5] if word == "set" else self._defaults[match[4]]
            reported = self._report() if match[4] == "application_name" else b""
        elif word == "alter":
            assert isinstance(self.database, PostgresDatabase)
            self.database.shape += 1
        elif word == "discard":
            self._statements.clear()
            self._settings = dict(self._defaults)
            reported = self._report()
            word = "discard all"
        else:
            raise Violation(f"the server got {match[0]!r}")
        return message(b"C", text(word.upper())) + reported

    def _rows(self, value: str, tag: str, *, described: bool) -> bytes:
        head = message(b"T", struct.pack("!h", 1) + text("value") + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)) if described else b""
        return head + message(b"D", struct.pack("!hi", 1, len(value)) + value.encode()) + message(b"C", text(tag))

    def _refuse(self, code: str, said: str) -> None:
        self._skipping = True
        self.status = FAILED if self.status == OPEN else self.status
        self.outgoing += error(code, said)

    def _report(self) -> bytes:
        return message(b"S", text("application_name", self._settings["application_name"]))

    def _ready(self) -> bytes:
        return message(b"Z", self.status.encode())

    def end_slow(self, *, canceled: bool) -> None:
        marker, self.slow = self.slow, ""
        self.outgoing += error("57014", "canceled") if canceled else self._rows(marker, "SELECT 1", described=True)
        self.outgoing += self._ready()

    def last_words(self) -> bytes:
        return error("57P01", "terminating connection due to administrator command", "FATAL")


class PostgresDatabase(Database):
    session_type: ClassVar[type[Session]] = PostgresSession

    shape = 0
    """How often the table was changed: what has this shape when it is prepared is refused when that is another one."""

    def __init__(self) -> None:
        super().__init__()
        # What one schedule has left there must not change the next one.
        catalog.forget()
