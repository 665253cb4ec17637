"""Values that belong to a session: what a client is told through a pool of one server connection is what a connection of its own tells it.

Each row of the table is a script for two clients, which is run twice: on connections to the server itself, and through dualpool.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pymysql
import pytest
from pymysql.constants import CLIENT

from tests.e2e.mysql_world import OURS, Client, RunWorld, World, rows, value, world
from tests.e2e.postgres_world import in_thread
from tests.helpers.servers import MySQLServer, Servers

COM_RESET_CONNECTION: Final = 0x1F
NOT_SUPPORTED: Final = 1235
MORE: Final = 8
NO_BACKSLASH_ESCAPES: Final = 0x200
CASES: Final = {
    # What ran before, and as which client; what is asked in the end, by the first one.
    "auto_is_null": (["a:SET sql_auto_is_null = 1", "a:INSERT INTO ids (v) VALUES ('a')"], "SELECT v FROM ids WHERE id IS NULL"),
    "auto_is_null, set afterwards": (
        ["a:INSERT INTO ids (v) VALUES ('a')", "b:INSERT INTO ids (v) VALUES ('b')", "a:SET sql_auto_is_null = 1"],
        "SELECT v FROM ids WHERE id IS NULL AND v = 'b'",
    ),
    "collation of the schema": (["b:SET collation_database = utf8mb4_bin"], "SELECT @@collation_database, @@character_set_database"),
    "character set of the schema": (["b:SET character_set_database = ascii"], "SELECT @@collation_database, @@character_set_database"),
    "one's own": (
        ["a:SET collation_database = utf8mb4_bin", "b:SELECT @@collation_database"],
        "SELECT @@collation_database, @@character_set_database",
    ),
    "one's own, by its character set": (
        ["a:SET character_set_database = ascii", "b:SELECT @@collation_database"],
        "SELECT @@collation_database, @@character_set_database",
    ),
    "until USE": (["a:SET collation_database = utf8mb4_bin", "a:USE {database}", "b:SELECT 1"], "SELECT @@collation_database"),
    "behind a reset": (["a:reset", "b:SELECT 1"], "SELECT @@collation_database = @@global.collation_database"),
    "character sets behind a reset": (
        ["a:SET NAMES latin1", "a:reset", "b:SELECT 1"], "SELECT @@character_set_client, @@collation_connection"
    ),
    "character sets behind a reset in a transaction": (
        ["a:SET NAMES latin1", "a:BEGIN", "a:reset", "b:SELECT 1"], "SELECT @@character_set_results, @@collation_connection"
    ),
    "behind another's reset": (["b:reset", "b:SELECT 1"], "SELECT @@collation_database"),
    "the altered schema": (
        ["b:ALTER DATABASE {database} COLLATE latin1_german1_ci", "a:USE information_schema", "a:USE {database}"],
        "SELECT @@collation_database",
    ),
    "the schema that one alters": (
        ["a:ALTER DATABASE {database} COLLATE latin1_german2_ci", "b:SELECT 1"], "SELECT @@collation_database"
    ),
    "LAST_INSERT_ID(), given": (
        ["a:INSERT INTO ids (v) VALUES ('a')", "a:INSERT INTO ids VALUES (60, 'b')", "b:INSERT INTO ids (v) VALUES ('c')"],
        "SELECT LAST_INSERT_ID()",
    ),
    "LAST_INSERT_ID(), by REPLACE": (
        ["a:INSERT INTO ids (v) VALUES ('a')", "a:REPLACE INTO ids (id, v) VALUES (60, 'b')", "b:INSERT INTO ids (v) VALUES ('c')"],
        "SELECT LAST_INSERT_ID()",
    ),
    "LAST_INSERT_ID(), upsert": (
        [
            "a:INSERT INTO ids VALUES (7, 'a')", "a:INSERT INTO ids (id, v) VALUES (7, 'b') ON DUPLICATE KEY UPDATE v = 'c'",
            "b:INSERT INTO ids (v) VALUES ('c')",
        ],
        "SELECT LAST_INSERT_ID()",
    ),
    "LAST_INSERT_ID(), some given": (
        ["a:INSERT INTO ids VALUES (50, 'a'), (NULL, 'b'), (0, 'c')", "b:INSERT INTO ids (v) VALUES ('c'), ('d')"],
        "SELECT LAST_INSERT_ID()",
    ),
    "LAST_INSERT_ID(), of a SELECT": (
        ["a:INSERT INTO ids VALUES (50, 'a')", "a:INSERT INTO ids (v) SELECT v FROM ids", "b:INSERT INTO ids (v) VALUES ('c')"],
        "SELECT LAST_INSERT_ID()",
    ),
    "LAST_INSERT_ID(), in a transaction": (
        ["a:BEGIN", "a:INSERT INTO ids (v) VALUES ('a')", "a:INSERT INTO ids VALUES (50, 'a')", "a:COMMIT", "b:INSERT INTO ids VALUES ()"],
        "SELECT LAST_INSERT_ID()",
    ),
    "LAST_INSERT_ID(), given, asked in the transaction": (
        ["b:INSERT INTO ids (v) VALUES ('a'), ('b')", "b:INSERT INTO ids () VALUES ()", "a:BEGIN", "a:INSERT INTO ids VALUES (50, 'a')"],
        "SELECT LAST_INSERT_ID()",
    ),
    "upsert": ([], "INSERT INTO counted VALUES (1, 'a') ON DUPLICATE KEY UPDATE v = VALUES(v)"),
    "upsert of two": ([], "INSERT INTO counted VALUES (1, 'a'), (2, 'b') ON DUPLICATE KEY UPDATE v = VALUES(v)"),
    "upsert that changes": ([], "INSERT INTO counted VALUES (1, 'z'), (3, 'c') ON DUPLICATE KEY UPDATE v = VALUES(v)"),
    "procedure": ([], "CALL unchanged()"),
    "ROW_COUNT() + 0": (["a:BEGIN", "a:UPDATE counted SET v = v"], "SELECT ROW_COUNT() + 0"),
    "LOAD DATA": ([], "UPDATE counted SET v = v WHERE a < 3"),
}  # fmt: skip
SET_UP: Final = (
    "DROP TABLE IF EXISTS ids, counted",
    "CREATE TABLE ids (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(9)) ENGINE=InnoDB",
    "CREATE TABLE counted (a INT PRIMARY KEY, v VARCHAR(9)) ENGINE=InnoDB",
    "INSERT INTO counted VALUES (1, 'a'), (2, 'b')",
    "DROP PROCEDURE IF EXISTS unchanged",
    "CREATE PROCEDURE unchanged() UPDATE counted SET v = v",
    "ALTER DATABASE COLLATE latin1_swedish_ci",
)


@pytest.fixture(scope="module")
def single(mysql_server: MySQLServer) -> Iterator[World]:
    """A pool of one server connection (for each kind of clients)."""
    with world(mysql_server, 1) as made:
        yield made


def answered(client: Client, sql: str) -> object:
    """The rows, and how many were affected; or the error's number."""
    try:
        with client.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall(), cursor.rowcount
    except pymysql.err.MySQLError as error:
        return error.args[0]


@dataclass
class Pair:
    """Two clients of one kind."""

    a: Client
    b: Client
    database: str

    def run(self, step: str) -> None:
        name, _, text = step.partition(":")
        client = self.a if name == "a" else self.b
        if text == "reset":
            client._execute_command(COM_RESET_CONNECTION, b"")
            client._read_ok_packet()
        else:
            rows(client, text.format(database=self.database))


def both(world: World, ask: Callable[[Pair], object], **options: Any) -> tuple[object, object]:
    """What `ask` says of two clients of the server itself, and of two of dualpool."""
    server, found = world.server, []
    for straight in (True, False):
        for statement in SET_UP:
            world.execute(statement)
        given = {"autocommit": True, **options}
        real = {"user": server.admin_user, "password": server.admin_password, "database": world.database}
        connect = (lambda: server.connect(**real, **given)) if straight else (lambda: world.connect(**given))  # noqa: B023
        with connect() as a, connect() as b:
            found.append(ask(Pair(a, b, world.database)))
    return found[0], found[1]


@pytest.mark.parametrize("flag", [0, CLIENT.FOUND_ROWS], ids=["", "found_rows"])
@pytest.mark.parametrize("case", CASES)
def test_what_a_client_is_told(single: World, case: str, flag: int) -> None:
    steps, question = CASES[case]

    def ask(pair: Pair) -> object:
        for step in steps:
            pair.run(step)
        return answered(pair.a, question)

    straight, pooled = both(single, ask, client_flag=flag)
    assert pooled == straight


@pytest.mark.parametrize(
    "text", ["SELECT 1; SELECT 2", "SELECT 1; -- nothing", "SELECT 1;", "CALL two()", "SELECT 0; CALL two(); SELECT 3", "SELECT 1; SELECT"]
)
def test_each_eof_has_the_flags_of_its_result(single: World, text: str) -> None:
    """Of a client without DEPRECATE_EOF: behind the columns, and behind the rows. The rows are too many to be looked at before."""
    single.execute("DROP PROCEDURE IF EXISTS two")
    many = "SELECT REPEAT('x', 1000) FROM information_schema.collations"
    single.execute(f"CREATE PROCEDURE two() BEGIN {many}; {many}; END")
    for query in (text, text.replace("SELECT 1", many)):
        straight, pooled = both(single, lambda pair, query=query: flags(pair.a, query), client_flag=CLIENT.MULTI_STATEMENTS)  # type: ignore[misc]
        assert pooled == straight


def flags(client: Client, text: str) -> list[str]:
    """Of each packet that has some: whether it says that another result follows."""
    client._execute_command(3, text.encode())
    found: list[str] = []
    while not found or found[-1].endswith("more") or found[-1].startswith("columns"):
        payload = bytes(client._read_bytes(int.from_bytes(client._read_bytes(4)[:3], "little")))
        if payload[:1] == b"\xff":
            found.append("error")
        elif payload[:1] == b"\0" and (not found or not found[-1].startswith("columns")):
            found.append("ok more" if payload[3] & MORE else "ok")
        elif payload[:1] == b"\xfe" and len(payload) == 5:
            kind = "rows" if found and found[-1].startswith("columns") else "columns"
            found.append(kind + (" more" if payload[3] & MORE else ""))
    return found


@pytest.mark.parametrize("question", ["ping", "SELECT CONNECTION_ID()", "SHOW WARNINGS", "SELECT ROW_COUNT()"])
def test_flags_in_answers_of_dualpool_s_own(single: World, question: str) -> None:
    def ask(pair: Pair) -> tuple[int, object]:
        rows(pair.a, "SET sql_mode = 'NO_BACKSLASH_ESCAPES', autocommit = 0")
        rows(pair.b, "SELECT 1")
        if question == "ping":
            pair.a.ping(reconnect=False)
        else:
            rows(pair.a, question)
        return pair.a.server_status & (NO_BACKSLASH_ESCAPES | 2), value(pair.a, "SELECT %s", "a\\b'c")

    straight, pooled = both(single, ask)
    assert pooled == straight


def test_load_data_takes_the_character_set_of_the_schema(single: World, tmp_path: Any) -> None:
    letters = tmp_path / "letters.txt"
    letters.write_bytes(b"caf\xe9\n")

    def ask(pair: Pair) -> object:
        rows(pair.b, f"SELECT GET_LOCK('pins{OURS}', 0)")  # so that the server connection is reset for the next one
        pair.b._force_close()
        rows(pair.a, "DROP TABLE IF EXISTS letters")
        rows(pair.a, "CREATE TABLE letters (a VARCHAR(10) CHARACTER SET utf8mb4)")
        rows(pair.a, f"LOAD DATA LOCAL INFILE '{letters}' INTO TABLE letters")
        return rows(pair.a, "SELECT HEX(a) FROM letters")

    straight, pooled = both(single, ask, local_infile=True)
    assert pooled == straight == [("636166C3A9",)]


# ----------------------------------------------------------------------------------------------------------------------- sequences

READ: Final = [
    "SELECT LASTVAL(s)", "SELECT PREVIOUS VALUE FOR s", "SELECT lastval /* */ (`s`)", "SELECT previous/**/value for s", "DO LASTVAL(s)",
    "SELECT 1; SELECT LASTVAL(s)", "SELECT IF(1, LASTVAL(s), 0)",
]  # fmt: skip


@pytest.fixture
def sequence(servers: Servers, run_mysql: RunWorld) -> Callable[..., World]:
    """A World on MariaDB with the sequences s and t."""

    def start(**options: Any) -> World:
        made = run_mysql(servers.mariadb(), 1, **options)
        made.execute("CREATE SEQUENCE s NOCACHE")
        made.execute("CREATE SEQUENCE t NOCACHE")
        return made

    return start


def test_the_last_value_of_a_sequence_is_never_another_s(sequence: Callable[..., World]) -> None:
    made = sequence()
    flag = CLIENT.MULTI_STATEMENTS
    with made.connect(autocommit=True, client_flag=flag) as a, made.connect(autocommit=True, client_flag=flag) as b:
        assert value(b, "SELECT NEXTVAL(s)") == 1
        for text in READ:
            assert answered(a, text) == NOT_SUPPORTED, text
        assert value(a, "SELECT 'LASTVAL(s)'") == "LASTVAL(s)"
        rows(a, "BEGIN")
        rows(a, "SELECT IF(0, NEXTVAL(s), 7)")
        assert answered(a, "SELECT LASTVAL(s)") == NOT_SUPPORTED, "it may not have been called"
        assert value(a, "SELECT NEXT VALUE FOR s") == 2
        assert value(a, "SELECT LASTVAL(s)") == 2
        assert answered(a, "SELECT LASTVAL(t)") == NOT_SUPPORTED
        rows(a, "ROLLBACK")
        assert answered(a, "SELECT LASTVAL(s)") == NOT_SUPPORTED
        cursor = a.cursor()
        cursor.execute("PREPARE p FROM 'SELECT 1'")


def test_a_client_may_keep_its_server_connection_for_a_sequence(sequence: Callable[..., World]) -> None:
    made = sequence(keys='sequence_values = "pin"', more='[users.hasty]\npassword = "app"\nquery_wait = "300ms"')
    with made.connect(autocommit=True) as b:
        rows(b, "SELECT NEXTVAL(t)")
    with made.connect(autocommit=True) as a:
        rows(a, "SET time_zone = '+01:00'")
        assert value(a, "SELECT LASTVAL(t)") is None, "nothing of another client's"
        assert value(a, "SELECT NEXTVAL(s)") == 1
        assert value(a, "SELECT LASTVAL(s)") == 1
        assert value(a, "SELECT @@time_zone") == "+01:00"
        with pytest.raises(pymysql.err.OperationalError, match="1040"):
            made.connect(user="hasty")
    with made.connect(autocommit=True) as later:
        assert value(later, "SELECT LASTVAL(s)") is None


TEXTS_IN_TEXTS: Final = (
    "EXECUTE IMMEDIATE 'SELECT LASTVAL(s)'",
    'EXECUTE IMMEDIATE "SELECT PREVIOUS VALUE FOR s"',
    r"EXECUTE IMMEDIATE 'SELECT L\AST\VAL(s)'",
    "EXECUTE IMMEDIATE CONCAT('SELECT ', 'LASTVAL(s)')",
    "EXECUTE/*!99999 or not */ IMMEDIATE 'SELECT LASTVAL(s)'",
    "PREPARE q FROM 'SELECT LASTVAL(s)'",
)


def test_a_text_in_a_text_reads_no_sequence_of_another_client(servers: Servers, run_mysql: RunWorld) -> None:
    made = run_mysql(servers.mariadb(), 1)
    made.execute("CREATE SEQUENCE s")
    with made.connect(autocommit=True) as a, made.connect(autocommit=True) as b:
        assert value(a, "SELECT NEXTVAL(s)") == 1
        for text in TEXTS_IN_TEXTS:
            with pytest.raises(pymysql.err.MySQLError, match=f"{NOT_SUPPORTED}"):
                rows(b, text)
        assert rows(b, "EXECUTE IMMEDIATE 'SELECT 5 AS previous'") == [(5,)]
        rows(b, "BEGIN")
        assert value(b, "SELECT NEXTVAL(s)") == 2
        assert value(b, "EXECUTE IMMEDIATE 'SELECT LASTVAL(s)'") == 2
        rows(b, "PREPARE q FROM 'SELECT LASTVAL(s)'")
        assert value(b, "EXECUTE q") == 2
        rows(b, "COMMIT")
        assert value(b, "EXECUTE q") == 2


# ------------------------------------------------------------------------------------------------------------- SET GLOBAL, and ids


HARMLESS: Final = ("min_examined_row_limit",)
"""Of both servers, and nothing but what goes to the slow log depends on it."""
OF_ALL_SESSIONS: Final = (*HARMLESS, "autocommit", "sql_mode", "group_concat_max_len", "time_zone")


@contextlib.contextmanager
def globals_kept(server: MySQLServer, names: tuple[str, ...]) -> Iterator[MySQLServer]:
    """The server; afterwards these variables have their values again."""
    before = {name: server.execute(f"SELECT @@global.{name}")[0][0] for name in names}
    yield server
    for name, old in before.items():
        server.execute(f"SET GLOBAL {name} = %s", old)


@pytest.fixture
def own_mariadb(servers: Servers) -> Iterator[MySQLServer]:
    """The server of this test session alone: it may get any SET GLOBAL, which is undone."""
    with globals_kept(servers.mariadb(), OF_ALL_SESSIONS) as server:
        yield server


@pytest.fixture(params=["mysql", "mariadb"])
def each_global(request: pytest.FixtureRequest, servers: Servers) -> Iterator[MySQLServer]:
    """Each of the two servers. The MySQL may be others', too: it may get SET GLOBAL of what is HARMLESS, which is undone."""
    with globals_kept(servers.mysql() if request.param == "mysql" else servers.mariadb(), HARMLESS) as server:
        yield server


def test_set_global_reaches_new_clients_and_no_others(own_mariadb: MySQLServer, run_mysql: RunWorld) -> None:
    made = run_mysql(own_mariadb, 1)
    with made.connect(autocommit=True) as old:
        before = value(old, "SELECT @@group_concat_max_len")
        rows(old, "SET time_zone = '+02:00'")
        own_mariadb.execute("SET GLOBAL group_concat_max_len = 77, time_zone = '+05:00'")
        with made.connect(autocommit=True) as new:
            assert rows(new, "SELECT @@group_concat_max_len, @@time_zone") == [(77, "+05:00")]
            assert rows(old, "SELECT @@group_concat_max_len, @@time_zone") == [(before, "+02:00")]
            rows(old, "SET time_zone = DEFAULT")
            assert rows(new, "SELECT @@group_concat_max_len, @@time_zone") == [(77, "+05:00")]
            assert value(old, "SELECT @@group_concat_max_len") == before


def test_new_clients_are_told_the_server_s_autocommit_and_sql_mode(own_mariadb: MySQLServer, run_mysql: RunWorld) -> None:
    made = run_mysql(own_mariadb, 1)
    made.execute("CREATE TABLE kept (a INT) ENGINE=InnoDB")
    for autocommit, mode in ((0, "NO_BACKSLASH_ESCAPES"), (1, ""), (0, "")):
        own_mariadb.execute(f"SET GLOBAL autocommit = {autocommit}, sql_mode = '{mode}'")
        with made.connect(autocommit=None) as client:
            wanted = (2 if autocommit else 0) | (NO_BACKSLASH_ESCAPES if mode else 0)
            assert client.server_status & (2 | NO_BACKSLASH_ESCAPES) == wanted
            client.ping(reconnect=False)
            assert client.server_status & (2 | NO_BACKSLASH_ESCAPES) == wanted
            assert value(client, "SELECT %s", "a\\b'c") == "a\\b'c"
        with made.connect(autocommit=True) as client:
            rows(client, "INSERT INTO kept VALUES (%s)", autocommit)
    assert made.execute("SELECT a FROM kept") == [(0,), (1,), (0,)]


@pytest.mark.parametrize("pool_size", [1, 2])
def test_set_global_reaches_a_login_right_behind_another(each_global: MySQLServer, run_mysql: RunWorld, pool_size: int) -> None:
    """The server has just been asked, for the client before; and the connection of that client may be on its way back to the pool."""
    made = run_mysql(each_global, pool_size)
    for number in range(1, 13):
        before = made.connect(autocommit=True)
        if number % 3:
            rows(before, "SET @a = 1, time_zone = '+01:00'")
        if number % 3 == 2:
            rows(before, "SELECT GET_LOCK(%s, 0)", OURS)
        if number % 2 or number % 3 == 2:
            before._force_close()
        made.execute(f"SET GLOBAL min_examined_row_limit = {number}")
        with made.connect(autocommit=True) as client:
            assert value(client, "SELECT @@min_examined_row_limit") == number


def test_set_global_reaches_all_logins_of_a_storm(each_global: MySQLServer, run_mysql: RunWorld) -> None:
    """They share the questions to the server; none is content with an answer to one that was asked before it came."""
    made = run_mysql(each_global, 2)
    made.assert_unharmed()

    def log_in() -> list[tuple[int, int]]:
        found = []
        for _ in range(10):
            least = current[0]
            with made.connect(autocommit=True) as client:
                found.append((least, value(client, "SELECT @@min_examined_row_limit")))
        return found

    current = [0]
    work = [in_thread(log_in) for _ in range(4)]
    for number in range(1, 25):
        made.execute(f"SET GLOBAL min_examined_row_limit = {number}")
        current[0] = number
    seen = [pair for thread in work for pair in thread.result()]
    assert [pair for pair in seen if pair[1] < pair[0]] == []


def test_a_login_that_cannot_ask_does_so_later(each_global: MySQLServer, run_mysql: RunWorld) -> None:
    """The only connection is in another client's transaction. The second of the logins does not wait for it any more."""
    made = run_mysql(each_global, 1)
    with made.connect(autocommit=True) as before:
        old = value(before, "SELECT @@min_examined_row_limit")
        rows(before, "BEGIN")
        rows(before, "SELECT 1")
        made.execute("SET GLOBAL min_examined_row_limit = 77")
        with plain_login(made) as first, plain_login(made) as second:
            rows(before, "COMMIT")
            assert [value(client, "SELECT @@min_examined_row_limit") for client in (first, second, before)] == [77, 77, old]


def test_the_question_at_a_login_leaves_no_trace(each_global: MySQLServer, run_mysql: RunWorld) -> None:
    """The client that gets the connection next is told of no change, and gives the connection back."""
    made = run_mysql(each_global, 1)
    with made.connect(autocommit=True) as client:
        assert value(client, "SELECT 1") == 1
        for _ in range(3):
            with plain_login(made) as other:
                rows(client, "BEGIN")
                rows(client, "ROLLBACK")
                assert value(other, "SELECT 1") == 1
    assert "keeps server connection" not in made.pooler.log


def test_defaults_of_an_earlier_login_are_no_leak(each_global: MySQLServer, run_mysql: RunWorld) -> None:
    """On a connection that was made behind the SET GLOBAL they are set for the client."""
    made = run_mysql(each_global, 1, keys="strict = true")
    with made.connect(autocommit=True) as old:
        before = value(old, "SELECT @@min_examined_row_limit")
        for number in (77, 78):
            made.execute(f"SET GLOBAL min_examined_row_limit = {number}")
            with made.connect(autocommit=True) as new:
                for client, mine in ((new, number), (old, before), (new, number)):
                    rows(client, "DO 1")
                    assert value(client, "SELECT @@min_examined_row_limit") == mine


LIMITS: Final = ("character_set_results = 'utf16'", "sql_select_limit = 0", "max_execution_time = 1")
MARIADB_S: Final = {"max_execution_time = 1": "max_statement_time = 0.000001"}


@pytest.mark.parametrize("limit", LIMITS)
def test_no_setting_of_a_client_keeps_others_from_new_defaults(each_global: MySQLServer, run_mysql: RunWorld, limit: str) -> None:
    if each_global.is_mariadb:
        limit = MARIADB_S.get(limit, limit)
    made = run_mysql(each_global, 1)
    with made.connect(autocommit=True) as before:
        rows(before, f"SET {limit}")
        rows(before, "DO 1")
        for number in range(1, 5):
            made.execute(f"SET GLOBAL min_examined_row_limit = {number}")
            with made.connect(autocommit=True) as client:
                assert value(client, "SELECT @@min_examined_row_limit") == number
            with contextlib.suppress(pymysql.err.OperationalError):
                rows(before, "DO 1")


def plain_login(world: World) -> Client:
    """A client that has logged in, and has asked for nothing else."""
    client: Client = pymysql.connect(**world.address(), autocommit=None, defer_connect=True)
    client.set_character_set = lambda *_: None  # type: ignore[method-assign]
    client.connect()
    return client


def test_set_global_reaches_the_first_client(own_mariadb: MySQLServer, run_mysql: RunWorld) -> None:
    """There is no server connection on which to ask, and the server's greeting was read for a visitor before."""
    made = run_mysql(own_mariadb, 1)
    visit(made)
    made.execute("SET GLOBAL autocommit = 0, group_concat_max_len = 77")
    with made.connect(autocommit=None) as client:
        assert client.server_status & 2 == 0
        assert rows(client, "SELECT @@autocommit, @@group_concat_max_len") == [(0, 77)]


@pytest.mark.parametrize("visitors", [0, 9])
def test_set_global_reaches_clients_of_a_pool_without_connections(own_mariadb: MySQLServer, run_mysql: RunWorld, visitors: int) -> None:
    """Without logins a server's greeting is read only a few times: the server would block us. What a client was told stays the client's."""
    made = run_mysql(own_mariadb, 1)
    made.assert_unharmed()
    for number in made.server_connections():
        made.execute(f"KILL {number}")
    made.wait_for_server_connections(0)
    for _ in range(visitors):
        visit(made)
    made.execute("SET GLOBAL autocommit = 0, group_concat_max_len = 77")
    with made.connect(autocommit=None) as client:
        told = client.server_status & 2
        assert told == 0 or visitors
        assert rows(client, "SELECT @@autocommit, @@group_concat_max_len") == [(told // 2, 77)]


def visit(world: World) -> None:
    """Somebody reads dualpool's greeting and goes."""
    with socket.create_connection(("127.0.0.1", world.pooler.port("mysql"))) as visitor:
        assert visitor.recv(1)


def test_ids_that_clients_know_are_found_at_the_server(each_mysql: World) -> None:
    with each_mysql.connect(autocommit=True) as busy, each_mysql.connect(autocommit=True) as asking:
        number = value(busy, "SELECT CONNECTION_ID()")
        work = in_thread(lambda: answered(busy, "SELECT SLEEP(600) /* known */"))
        each_mysql.wait_until_running("known")
        found = rows(asking, f"SELECT info FROM {each_mysql.server.processes} WHERE id = {number}")
        assert "known" in found[0][0]
        assert rows(asking, f"SELECT '{number}', 'PROCESSLIST {number}'") == [(str(number), f"PROCESSLIST {number}")]
        explain = "SHOW EXPLAIN FOR" if each_mysql.server.is_mariadb else "EXPLAIN FOR CONNECTION"
        assert answered(asking, f"{explain} {number}") != 1094
        rows(asking, f"KILL QUERY {number}")
        work.result()


def test_one_s_own_client_is_killed_from_another_database(servers: Servers, mysql_server: MySQLServer, run_mysql: RunWorld) -> None:
    other = '[databases.other]\nbackend = "shop"\ndatabase = "information_schema"\n'
    made = run_mysql(mysql_server, 2, other)
    with made.connect(autocommit=True) as busy, made.connect(autocommit=True, database="other") as killer:
        work = in_thread(lambda: rows(busy, "SELECT 1 FROM (SELECT 1) t WHERE SLEEP(600) /* killed */"))
        made.wait_until_running("killed")
        rows(killer, f"KILL QUERY {busy.thread_id()}")
        with pytest.raises(pymysql.err.MySQLError):
            work.result()
