"""MySQL and MariaDB for the hunt: two databases that are alike, dualpool in front of one, what a session holds, when answers are alike."""

import re
import struct
import time
from typing import Any, Final

import pymysql
import pymysql.cursors

from tests.helpers.pooler import Pooler
from tests.hunt.mysql_client import (
    DEPRECATE_EOF,
    FOUND_ROWS,
    IGNORE_SPACE,
    INTERACTIVE,
    MULTI_STATEMENTS,
    SESSION_TRACK,
    Answer,
    Client,
    lenenc,
    row_values,
)
from tests.hunt.mysql_schema import reset_statements, schema
from tests.hunt.mysql_sessions import CLIENTS, FORGET, PLACEHOLDER, ROLE, VARIABLES, MySQLSessions
from tests.hunt.script import Message, Script
from tests.hunt.spelling import verbatim
from tests.hunt.world import ALWAYS, LOG_LINES, Session, Verdict

LOGINS: Final[tuple[dict[str, int], ...]] = (
    {"flags": MULTI_STATEMENTS},
    {"flags": MULTI_STATEMENTS | FOUND_ROWS | DEPRECATE_EOF},
    {"flags": MULTI_STATEMENTS | SESSION_TRACK, "charset": 8},
    {"flags": MULTI_STATEMENTS | IGNORE_SPACE, "charset": 28},
    {"flags": INTERACTIVE | DEPRECATE_EOF, "charset": 46},
)
"""The kinds of login; a Script's `logins` are indices here. Character sets: latin1, gbk, utf8mb4_bin."""

VOLATILE: Final = ("timestamp", "pseudo_thread_id", "rand_seed1", "rand_seed2", "last_insert_id", "identity", "insert_id", "warning_count",
                   "error_count", "statement_id", "last_gtid", "gtid_binlog_pos", "gtid_current_pos", "gtid_executed", "in_transaction",
                   "session_track_gtids", "binlog_snapshot_position", "binlog_snapshot_file", "port")  # fmt: skip
"""Variables that are not a matter of the session's state, or are asked otherwise."""
TRACKERS: Final = ("session_track_state_change", "session_track_schema", "session_track_system_variables", "session_track_transaction_info")
"""How dualpool's own connections are told of changes."""
DATABASE: Final = ("character_set_database", "collation_database")
SMALL_FLAGS: Final = 0x80 | 1
"""Of columns: binary, not NULL."""
NUMBERED_ERRORS: Final = (1064, 1243, 1421)
"""Errors whose text has a statement's number on the server, or some of the text, as the server has got it."""
RANDOM: Final = 40
OWN_ERROR: Final = 1235
OWN_ERRORS: Final = re.compile(
    r"The last value of a sequence is known only|FOUND_ROWS\(\) is not known of this statement|Outside a transaction ROW_COUNT\(\)"
    r"|Outside a transaction the warnings of the statement before|GET DIAGNOSTICS CONDITION is only supported inside a transaction"
    r"|KILL is only supported with a connection id|a lock that was taken with GET_LOCK\(\) unseen"
)
"""Errors of dualpool's own where a direct connection has a value: README.md names them. Any other refusal is a difference."""

LASTVAL: Final = re.compile(rb"\x0blastval\(s[0-9]\)")
"""The name of a column, with its length."""
FORGETTING: Final = "hunt_plain"
"""A result with columns of this table shows that the warnings of the statements before are forgotten."""

CONFIGURATION: Final = """
[listeners.mysql]
protocol = "mysql"
bind = "127.0.0.1:0"
auth = "trust"
[backends.main]
url = "{url}"
budget = 16
reserved_maintenance = 1
[databases.one]
backend = "main"
database = "{database}"
pool_size = 1
pin = "allow"
{more}
[databases.two]
backend = "main"
database = "{database}"
pool_size = 2
pin = "allow"
{more}
[timeouts]
query_wait = "60s"
[users.{database}]
password = "hunt"
"""


def query(sql: str) -> Message:
    """A Query that is written as it is."""
    return Message("Query", (verbatim(sql),))


def views(mariadb: bool, blind: tuple[str, ...]) -> tuple[Message, ...]:
    """Queries for all that a session holds, as far as names are known."""
    names = ", ".join(f"'{name}'" for name in (*VOLATILE, *TRACKERS, *(DATABASE if "collation_database" in blind else ())))
    asked = [
        "select last_insert_id()",
        f"show session variables where variable_name not in ({names})",
        "select " + ", ".join(f"cast(@`{name}` as char)" for name in VARIABLES),
        "select current_user(), database(), @@autocommit, current_role()",
        "select " + ", ".join(f"coalesce(release_lock('{name}{PLACEHOLDER}{i}'), 0)" for name in ("lock", "lock") for i in range(CLIENTS)),
    ]
    for i in range(CLIENTS):
        asked += [f"select * from tt{i} limit 0", f"execute q{i}", f"handler h{i} read next"]
    # dualpool's own error is the answer to these. What is excused because of one must be nothing but the list of warnings.
    asked += [f"select lastval(s{i})" for i in range(CLIENTS) if mariadb]
    asked.append(FORGET)
    return tuple(query(one) for one in asked)


class MySQLWorld:
    """See World."""

    def __init__(
        self,
        host: str,
        port: int,
        user: str,
        password: str,
        *,
        program: list[str] | None = None,
        more: str = ALWAYS,
        blind: tuple[str, ...] = (),
    ):
        self.name = "mysql"
        self.address = (host, port)
        self.admin_account = {"host": host, "port": port, "user": user, "password": password}
        self.program, self.more, self.blind = program, more, blind
        self.pooler: Pooler | None = None
        self.mark = f"{time.time_ns() // 1000 % 10**7:07d}"
        self.marks = {"direct": f"{self.mark}d", "pooled": f"{self.mark}p"}
        self.databases = {side: f"hunt{mark}" for side, mark in self.marks.items()}
        self.admins: dict[str, pymysql.Connection[pymysql.cursors.Cursor]] = {}

    # ------------------------------------------------------------------------------------------------------ databases

    def __enter__(self) -> "MySQLWorld":
        admin = self._admin(None)
        with admin.cursor() as cursor:
            cursor.execute("select version()")
            row = cursor.fetchone()
            assert row is not None
            self.mariadb = "MariaDB" in row[0]
            self.name = ("mariadb" if self.mariadb else "mysql") + row[0].partition("-")[0]
            cursor.execute("select id, character_set_name from information_schema.collations where id is not null order by id desc")
            found = cursor.fetchall()
            first = {name: number for number, name in found}
            self.charsets: dict[int, int] = {number: first[name] for number, name in found}
            cursor.execute(f"create role if not exists {ROLE}")
            for database in self.databases.values():
                cursor.execute(f"create database {database} character set utf8mb4 collate utf8mb4_general_ci")
                cursor.execute(f"create user {database}@'%' identified by 'hunt'")
                cursor.execute(f"grant all on *.* to {database}@'%' with grant option")
                cursor.execute(f"grant {ROLE} to {database}@'%'")
                if not self.mariadb:
                    cursor.execute(f"create resource group {database} type = user")
        admin.close()
        for side, database in self.databases.items():
            self.admins[side] = self._admin(database)
            self._execute(side, schema(self.mariadb))
        self.view = views(self.mariadb, self.blind)
        self.reset()
        self._predict()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for admin in self.admins.values():
            admin.close()
        admin = self._admin(None)
        with admin.cursor() as cursor:
            for database in self.databases.values():
                cursor.execute(f"drop user if exists {database}@'%'")
                cursor.execute(f"drop database if exists {database}")
                if not self.mariadb:
                    cursor.execute(f"drop resource group {database} force")
        admin.close()

    def _admin(self, database: str | None) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        return pymysql.connect(
            **self.admin_account, database=database, autocommit=True, connect_timeout=60, read_timeout=60, charset="utf8mb4"
        )  # type: ignore[arg-type]

    def _execute(self, side: str, statements: list[str]) -> None:
        with self.admins[side].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _predict(self) -> None:
        """A probe must not get what rand() gives after seeds that another client has set."""
        client = self.direct(0)
        client.read(30)
        client.send((query("set rand_seed1 = 11, rand_seed2 = 22"), *[query("select round(rand(), 9)")] * RANDOM))
        answer = client.read(30)
        client.close()
        assert answer is not None
        found = [row_values(row)[0] for replies in answer.replies for kind, *rows in replies if kind == "ROWS" for row in rows]
        values = ", ".join(value.decode() for value in found if value)
        tests = (query("begin"), query("insert into hunt_plain values (1, 'x')"), query(f"select round(rand(), 9) in ({values})"))
        self.probe: tuple[Message, ...] = (*self.view, *tests)
        self.release: tuple[Message, ...] = (query("rollback"),)

    def reset(self, used: str = "") -> None:
        """Both databases as at the beginning."""
        for side in self.databases:
            for attempt in range(3):
                try:
                    self._execute(side, reset_statements(self.mariadb, used))
                    break
                except pymysql.err.OperationalError:
                    if attempt == 2:
                        raise
                    self.kill()

    def kill(self, side: str = "pooled") -> None:
        """End dualpool's server connections, or the "direct" ones, and wait until they are gone."""
        deadline = time.monotonic() + 30
        # (MySQL's information_schema.processlist fails while somebody runs a text that is not utf8mb3.)
        table = "information_schema.processlist" if self.mariadb else "performance_schema.processlist"
        with self.admins["pooled"].cursor() as cursor:
            while time.monotonic() < deadline:
                cursor.execute(f"select id from {table} where user = %s", [self.databases[side]])
                numbers = [number for (number,) in cursor.fetchall()]
                if not numbers:
                    return
                for number in numbers:
                    try:
                        cursor.execute(f"kill {number}")
                    except pymysql.err.MySQLError:
                        pass  # it is gone already
                time.sleep(0.002)

    # ------------------------------------------------------------------------------------------------------ clients

    def start(self) -> None:
        """A fresh dualpool."""
        host, port = self.address
        database = self.databases["pooled"]
        url = f"mysql://{database}:hunt@{host}:{port}"
        self.pooler = Pooler(CONFIGURATION.format(url=url, database=database, more=self.more), program=self.program)
        self.pooler.start()
        self.port = self.pooler.port("mysql")

    def stop(self) -> None:
        """End it."""
        if self.pooler is not None:
            self.pooler.kill()
            self.pooler = None

    def log(self) -> str:
        """The end of its log."""
        return "\n    ".join(self.pooler.log.splitlines()[-LOG_LINES:]) if self.pooler is not None else ""

    def _renamed(self, side: str) -> tuple[bytes, bytes]:
        return PLACEHOLDER.encode(), self.marks[side].encode()

    def direct(self, kind: int) -> Session:
        """A client with a connection of its own."""
        database = self.databases["direct"]
        return Client(self.address, database, "hunt", database, renamed=self._renamed("direct"), **LOGINS[kind])

    def pooled(self, kind: int, pool_size: int) -> Session:
        """A client of dualpool."""
        database = "one" if pool_size == 1 else "two"
        return Client(("127.0.0.1", self.port), self.databases["pooled"], "hunt", database, renamed=self._renamed("pooled"), **LOGINS[kind])

    def log_in_differs(self, direct: Session, pooled: Session) -> str:
        """The judge has compared the login's answers."""
        return ""

    def script(self, seed: str) -> Script:
        """A random script."""
        return MySQLSessions(seed, mariadb=self.mariadb).script()

    # ------------------------------------------------------------------------------------------------------ the judge

    def judge(self, direct: Answer, pooled: Answer) -> tuple[Verdict, str, str, str]:
        """Are the answers alike?"""
        excused = False
        for i, (one, other) in enumerate(zip(direct.replies, pooled.replies, strict=False), 1):
            if one == other or self._clean(one) == self._clean(other):
                # Behind a statement that uses a table, the error of the one before is forgotten.
                excused = excused and not any(FORGETTING in str(column) for kind, *rest in other if kind == "COLUMNS" for column in rest)
                continue
            if is_own_error(other):
                changed = (status(one) & 1 or any(kind == "OK" for kind, *_ in one)) and not is_look(one)
                if changed or pooled.closed or is_last_error(other):
                    return Verdict.PARTED, "", "", ""
                excused = True
                continue
            if excused:
                return Verdict.PARTED, "", "", ""  # it may be about the error
            if pooled.closed and i == len(pooled.replies) and not other and not direct.closed:
                return Verdict.DIFFERENT, f"answer {i}, closed", str(one)[:300], "closed"
            return Verdict.DIFFERENT, *first_unlike(i, self._clean(one), self._clean(other))
        if len(direct.replies) != len(pooled.replies) or direct.closed != pooled.closed:
            return Verdict.DIFFERENT, "end", f"closed={direct.closed}", f"closed={pooled.closed}"
        return Verdict.PARTED if excused else Verdict.EQUAL, "", "", ""

    def _clean(self, replies: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
        """Without what says nothing: the numbers of statements, and which collation of its character set a column's text has."""
        found = [self._cleaned(*reply) for reply in replies]
        for i in range(len(replies) - 1):
            if replies[i][0] == "COLUMNS":
                found[i] = ("COLUMNS", *without_old_types(found[i][1:], replies[i + 1]))
        return found

    def _cleaned(self, kind: object, *rest: Any) -> tuple[object, ...]:
        if kind == "ERR" and rest[0] in NUMBERED_ERRORS:
            return kind, *rest[:2]
        if kind == "COLUMNS":
            return kind, *(self._column(column) for column in rest)
        if kind == "PREPARED":
            return kind, *rest[:3], *without_old_types(tuple(self._column(column) for column in rest[3:]))
        return kind, *rest

    def _column(self, definition: bytes) -> tuple[object, ...]:
        """What of a column's definition must be alike (docs: Column Definition)."""
        names, at = [], 0
        for _ in range(6):  # catalog, schema, table, original table, name, original name
            length, at = lenenc(definition, at)
            names.append(definition[at : at + length])
            at += length
        charset, width, kind, flags, scale = struct.unpack_from("<HIBHB", definition, at + 1)
        told = (*names, self.charsets.get(charset, 0), kind, flags & ~SMALL_FLAGS)
        if not names[2]:
            # A server leaves an executable comment out of the text by which it calls a column.
            told = (*names[:4], names[4].replace(b"/*! */", b"").replace(b" ", b""), *told[5:])
        # Of what is in no table, how long its values may get is a server's guess.
        return (*told, width, scale) if names[2] else told


def without_old_types(columns: tuple[Any, ...], rows: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """`columns`, but of user variables that are NULL only their names: they keep the type that they had, and nobody can take that away."""
    values = row_values(rows[1]) if len(rows) == 2 and isinstance(rows[1], bytes) and rows[1][:1] != b"\0" else [None] * len(columns)
    nulls = [value is None for value in values] if len(values) == len(columns) else [True] * len(columns)
    return [column[4:5] if null and b"@" in column[4] else column for column, null in zip(columns, nulls, strict=True)]


def status(replies: list[tuple[object, ...]]) -> int:
    """The last status flags that a command's answer tells."""
    for reply in reversed(replies):
        if reply[0] == "OK":
            return int(reply[3])  # type: ignore[call-overload, no-any-return]
        if reply[0] == "EOF":
            return int(reply[2])  # type: ignore[call-overload, no-any-return]
    return 0


def is_own_error(replies: list[tuple[object, ...]]) -> bool:
    """Is it one of dualpool's own errors that say what to do?"""
    return any(kind == "ERR" and rest[0] == OWN_ERROR and OWN_ERRORS.match(str(rest[2])) for kind, *rest in replies)


def is_look(replies: list[tuple[object, ...]]) -> bool:
    """Is it the answer to nothing but LASTVAL()? Who is refused it is in the same state as who is not."""
    columns = replies[0]
    return len(replies) == 3 and len(columns) == 2 and isinstance(columns[1], bytes) and LASTVAL.search(columns[1]) is not None


def is_last_error(replies: list[tuple[object, ...]]) -> bool:
    """Does the client lose its connection with this error? (A lock that a stored program has taken on MariaDB.)"""
    return any(kind == "ERR" and "could not be kept" in str(rest[2]) for kind, *rest in replies)


def first_unlike(index: int, direct: list[tuple[object, ...]], pooled: list[tuple[object, ...]]) -> tuple[str, str, str]:
    """What differs first, as a short name, and both sides of it."""
    nothing: tuple[object, ...] = ("nothing",)
    for one, other in zip([*direct, nothing], [*pooled, nothing], strict=False):
        if one == other:
            continue
        kinds = str(one[0]) if one[0] == other[0] else f"{one[0]} or {other[0]}"
        detail = f" {one[1]} or {other[1]}" if one[0] == other[0] == "ERR" else ""
        if one[0] == other[0] and one[0] in ("ROWS", "COLUMNS") and len(one) + len(other) > 12:
            left, right = set(one), set(other)
            return (
                f"answer {index}, {kinds}",
                str([row for row in one if row not in right])[:600],
                str([r for r in other if r not in left])[:600],
            )
        return f"answer {index}, {kinds}{detail}", str(one)[:600], str(other)[:600]
    return f"answer {index}", str(direct)[:300], str(pooled)[:300]
