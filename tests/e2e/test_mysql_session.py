"""What a client sees of its session: its settings, schema, insert id, warnings and transactions, whichever server connections it meets."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import mysql.connector
import pymysql
import pytest
from pymysql.constants import CLIENT

from tests.e2e.mysql_world import OURS, Client, RunWorld, World, rows, value
from tests.e2e.postgres_world import in_thread, wait_until
from tests.helpers.servers import MySQLServer

BACKEND = "SELECT CONNECTION_ID() + 0 AS processlist_id"
LISTENERS = pytest.mark.parametrize("listener", ["mysql", "session"], ids=["transaction", "session"])


@contextlib.contextmanager
def occupied(world: World, count: int) -> Iterator[None]:
    """`count` server connections, those that are used most, belong to other clients."""
    with contextlib.ExitStack() as clients:
        for _ in range(count):
            client = clients.enter_context(world.connect(autocommit=True))
            client.begin()
            value(client, "SELECT COUNT(*) FROM information_schema.engines")
        yield


def everywhere(world: World, client: Client, sql: str) -> set[object]:
    """What a question is answered on different server connections."""
    answers, backends = set(), set()
    # Which connection is used most depends on when the last one came back, so more than three turns may be needed for two of them.
    for turn in range(20):
        with occupied(world, turn % 3):
            answers.add(value(client, sql))
            backends.add(value(client, BACKEND))
        if turn >= 2 and len(backends) > 1:
            return answers
    raise AssertionError("always the same server connection")


@pytest.fixture
def table(each_mysql: World) -> str:
    """An empty table."""
    each_mysql.execute("DROP TABLE IF EXISTS things")
    each_mysql.execute("CREATE TABLE things (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) CHARACTER SET utf8mb4) ENGINE=InnoDB")
    return "things"


@LISTENERS
@pytest.mark.parametrize("autocommit", [False, True])
def test_create_read_update_delete(each_mysql: World, table: str, listener: str, autocommit: bool) -> None:
    with each_mysql.connect(listener, autocommit=autocommit) as client, each_mysql.connect(listener, autocommit=True) as other:
        with client.cursor() as cursor:
            assert cursor.executemany(f"INSERT INTO {table} (name) VALUES (%s)", [("one",), ("zwölf ☃",), (None,)]) == 3
            assert cursor.execute(f"UPDATE {table} SET name = 'two' WHERE name IS NULL") == 1
            assert cursor.execute(f"DELETE FROM {table} WHERE name = 'one'") == 1
        assert value(other, f"SELECT COUNT(*) FROM {table}") == (2 if autocommit else 0)
        client.commit()
        assert [name for (name,) in rows(other, f"SELECT name FROM {table} ORDER BY id")] == ["zwölf ☃", "two"]


@LISTENERS
def test_transactions_and_savepoints(each_mysql: World, table: str, listener: str) -> None:
    with each_mysql.connect(listener) as client:
        insert = f"INSERT INTO {table} (name) VALUES (%s)"
        rows(client, insert, "kept")
        client.query("SAVEPOINT here")
        rows(client, insert, "dropped")
        with pytest.raises(pymysql.err.ProgrammingError):
            rows(client, "SELECT * FROM no_such_table")
        client.query("ROLLBACK TO SAVEPOINT here")
        assert [name for (name,) in rows(client, f"SELECT name FROM {table}")] == ["kept"]
        client.commit()
        rows(client, insert, "rolled back")
        client.rollback()
        client.query("START TRANSACTION READ ONLY")
        with pytest.raises(pymysql.err.MySQLError) as caught:
            rows(client, insert, "refused")
        assert caught.value.args[0] == 1792
        client.rollback()
        assert [name for (name,) in rows(client, f"SELECT name FROM {table}")] == ["kept"]
        client.rollback()
    each_mysql.wait_until_rested()


def test_autocommit_off_holds_no_server_connection_without_a_transaction(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(mysql_server, pool_size=1)
    world.execute("CREATE TABLE t (n INT) ENGINE=InnoDB")
    clients = [world.connect() for _ in range(5)]
    for turn in range(3):
        for number, client in enumerate(clients):
            assert value(client, "SELECT @@autocommit") == 0
            rows(client, "INSERT INTO t VALUES (%s)", number)
            client.rollback() if turn else client.commit()
    assert world.execute("SELECT COUNT(*) FROM t") == [(5,)]
    for client in clients:
        client.close()


def test_settings_are_the_client_s_own(each_mysql: World) -> None:
    with each_mysql.connect(autocommit=True) as first, each_mysql.connect(autocommit=True, charset="latin1") as second:
        state = (
            "SELECT CONCAT_WS('|', @@sql_mode, @@time_zone, @@sql_safe_updates + 0, @@character_set_client, @@collation_connection,"
            " @@character_set_results, @@group_concat_max_len, DATABASE())"
        )
        [theirs] = everywhere(each_mysql, second, state)
        rows(first, "SET NAMES utf8mb4 COLLATE utf8mb4_bin")
        rows(first, "SET sql_mode = 'ANSI_QUOTES', time_zone = '+02:00'")
        rows(first, "SET SESSION sql_safe_updates = ON, @@session.group_concat_max_len = 4444")
        first.select_db("information_schema")
        mine = "ANSI_QUOTES|+02:00|1|utf8mb4|utf8mb4_bin|utf8mb4|4444|information_schema"
        assert everywhere(each_mysql, first, state) == {mine}
        assert everywhere(each_mysql, second, state) == {theirs}
        rows(second, f"USE `{each_mysql.database}`")
        rows(first, f"USE `{each_mysql.database}`")
        assert everywhere(each_mysql, first, state) == {mine.replace("information_schema", each_mysql.database)}
        assert value(second, "SELECT HEX('ü')") == "FC"
        assert value(first, "SELECT HEX('ü')") == "C3BC"


def test_user_variables_are_the_client_s_own(each_mysql: World) -> None:
    with each_mysql.connect(autocommit=True) as first, each_mysql.connect(autocommit=True) as second:
        rows(first, "SET @a = 'mine'")
        rows(second, "SET @a = 'other', SESSION group_concat_max_len = 5555")
        with each_mysql.connect(autocommit=True) as third:
            assert value(third, "SELECT @a") is None
            assert value(first, "SELECT @a") == "mine"
            assert rows(second, "SELECT @a, @@group_concat_max_len") == [("other", 5555)]


def test_last_insert_id(each_mysql: World, table: str) -> None:
    with each_mysql.connect(autocommit=True) as first, each_mysql.connect(autocommit=True) as second:
        for client, name in ((first, "a"), (second, "b")):
            rows(client, f"INSERT INTO {table} (name) VALUES (%s)", name)
        assert everywhere(each_mysql, first, "SELECT LAST_INSERT_ID()") == {1}
        assert everywhere(each_mysql, second, "SELECT LAST_INSERT_ID()") == {2}
        assert [name for (name,) in rows(first, f"SELECT name FROM {table} WHERE id = LAST_INSERT_ID()")] == ["a"]


def test_row_count_found_rows_and_warnings(each_mysql: World, table: str) -> None:
    with each_mysql.connect(autocommit=True) as client, each_mysql.connect(autocommit=True) as other:
        rows(client, f"INSERT INTO {table} (name) VALUES ('a'), ('b'), ('c')")
        assert value(other, "SELECT 1") == 1
        assert value(client, "SELECT ROW_COUNT()") == 3
        rows(client, f"SELECT SQL_CALC_FOUND_ROWS name FROM {table} LIMIT 1")
        assert value(other, "SELECT 1") == 1
        assert value(client, "SELECT FOUND_ROWS()") == 3
        rows(client, "DROP TABLE IF EXISTS no_such_table")
        assert value(other, "SELECT 1") == 1
        assert [row[:2] for row in rows(client, "SHOW WARNINGS")] == [("Note", 1051)]
        with pytest.raises(pymysql.err.ProgrammingError):
            rows(client, "SELECT * FROM no_such_table")
        assert value(other, "SELECT 1") == 1
        assert [row[:2] for row in rows(client, "SHOW ERRORS")] == [("Error", 1146)]
        assert rows(other, "SHOW WARNINGS") == []


OWN_NUMBERS = [
    "SELECT CONNECTION_ID() AS id, NOW() > 0",
    "SELECT CONNECTION_ID(), 1",
    "SELECT 1 + connection_id ( ), CONCAT('a', CONNECTION_ID()) FROM DUAL",
    "SELECT x.* FROM (SELECT CONNECTION_ID() AS own) x ORDER BY CONNECTION_ID()",
    "SELECT IF(CONNECTION_ID() > 0, 'yes', 'no')",
]


@pytest.mark.parametrize("sql", OWN_NUMBERS)
def test_the_connection_id_in_any_statement(each_mysql: World, sql: str) -> None:
    direct = each_mysql.admin
    with each_mysql.connect(autocommit=True) as client, client.cursor() as cursor, direct.cursor() as reference:
        cursor.execute(sql)
        reference.execute(sql)
        assert [column[0] for column in cursor.description] == [column[0] for column in reference.description]
        own, others = str(client.thread_id()), str(direct.thread_id())
        answers, expected = cursor.fetchall(), reference.fetchall()
        if "1 +" in sql:
            own, others = str(client.thread_id() + 1), str(direct.thread_id() + 1)
            assert answers[0][1] == f"a{client.thread_id()}"
        assert [str(row[0]) for row in answers] == [str(row[0]).replace(others, own) for row in expected]
        with each_mysql.connector() as prepared, contextlib.closing(prepared.cursor(prepared=True)) as executing:
            executing.execute(sql)
            assert len(executing.fetchall()) == 1


def test_rows_that_belong_to_a_session_by_its_connection_id(each_mysql: World, table: str) -> None:
    with each_mysql.connect(autocommit=True) as first, each_mysql.connect(autocommit=True) as second:
        for client in (first, second):
            rows(client, f"INSERT INTO {table} (id, name) VALUES (CONNECTION_ID(), 'mine')")
        for client in (first, second):
            assert everywhere(each_mysql, client, f"SELECT id FROM {table} WHERE id = CONNECTION_ID()") == {client.thread_id()}
            assert rows(client, f"SELECT COUNT(*) FROM {each_mysql.server.processes} WHERE id = CONNECTION_ID()") == [(1,)]


def test_what_a_prepared_statement_knows_of_the_one_before(each_mysql: World, table: str) -> None:
    with each_mysql.connector() as client, contextlib.closing(client.cursor()) as cursor, occupied(each_mysql, 1):
        with contextlib.closing(client.cursor(prepared=True)) as asking:
            cursor.execute(f"INSERT INTO {table} (name) VALUES ('a'), ('b'), ('c')")
            cursor.execute(f"SELECT * FROM {table}")
            cursor.fetchall()
            for expected in (3, 1):
                asking.execute("SELECT FOUND_ROWS() AS n")
                assert (asking.column_names, asking.fetchall()) == (("n",), [(expected,)])
        if each_mysql.server.is_mariadb:  # MySQL does not prepare it.
            with contextlib.closing(client.cursor(prepared=True)) as asking:
                cursor.execute("DROP TABLE IF EXISTS no_such_table")
                asking.execute("SHOW WARNINGS")
                assert [(level, code) for level, code, _ in asking.fetchall()] == [("Note", 1051)]
        with contextlib.closing(client.cursor(prepared=True)) as asking, pytest.raises(mysql.connector.Error) as caught:
            asking.execute("SELECT FOUND_ROWS() + 1")
        assert caught.value.errno == 1235


@LISTENERS
def test_several_statements_and_procedures(each_mysql: World, table: str, listener: str) -> None:
    with each_mysql.connect(listener, autocommit=True, client_flag=CLIENT.MULTI_STATEMENTS) as client:
        with client.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} (name) VALUES ('x'); SELECT name FROM {table}; SELECT 2; UPDATE {table} SET name = 'y'")
            assert cursor.nextset()
            assert cursor.fetchall() == (("x",),)
            assert cursor.nextset()
            assert cursor.fetchall() == ((2,),)
            assert cursor.nextset()
            assert cursor.rowcount == 1
            assert not cursor.nextset()
        rows(client, "DROP PROCEDURE IF EXISTS twice")
        rows(client, "CREATE PROCEDURE twice(IN n INT, OUT double_n INT) BEGIN SELECT n; SELECT n + n; SET double_n = 2 * n; END")
        with client.cursor() as cursor:
            cursor.callproc("twice", (21, 0))
            assert cursor.fetchall() == ((21,),)
            assert cursor.nextset()
            assert cursor.fetchall() == ((42,),)
            while cursor.nextset():
                pass
        assert value(client, "SELECT @_twice_1") == 42
        with pytest.raises(pymysql.err.ProgrammingError), client.cursor() as cursor:
            cursor.execute("SELECT 1; SELECT * FROM no_such_table; SELECT 3")
            cursor.nextset()
        assert value(client, "SELECT 'whole'") == "whole"
    with each_mysql.connect(listener, autocommit=True) as client, pytest.raises(pymysql.err.ProgrammingError):
        rows(client, "SELECT 1; SELECT 2")


@LISTENERS
def test_local_files(each_mysql: World, table: str, listener: str, tmp_path: Path) -> None:
    file = tmp_path / "names.csv"
    file.write_text("".join(f"{n},name {n}\n" for n in range(1, 50_001)))
    load = f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE {table} FIELDS TERMINATED BY ','"
    with each_mysql.connect(listener, autocommit=True, local_infile=True) as client, each_mysql.connect(listener, autocommit=True) as other:
        with client.cursor() as cursor:
            assert cursor.execute(load) == 50_000
        assert rows(other, f"SELECT COUNT(*), MAX(name) FROM {table}") == [(50_000, "name 9999")]
        with pytest.raises(pymysql.err.OperationalError):
            rows(client, load.replace("names", "no_names"))
        assert value(client, "SELECT 'whole'") == "whole"
        with pytest.raises(pymysql.err.MySQLError):
            rows(other, load)
        assert value(other, "SELECT 'whole'") == "whole"


@LISTENERS
def test_long_results_and_long_rows(each_mysql: World, listener: str) -> None:
    numbers = "(SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7)"
    joined = ", ".join(f"{numbers} n{n}" for n in range(5))
    with each_mysql.connect(listener, autocommit=True) as client, each_mysql.connect(listener, autocommit=True) as other:
        found = rows(client, f"SELECT n0.d + 8 * n1.d + 64 * n2.d + 512 * n3.d + 4096 * n4.d FROM {joined} LIMIT 20000")
        assert len({number for (number,) in found}) == 20_000
        limit = value(client, "SELECT @@max_allowed_packet")
        size = min(17 * 2**20, limit - 1000)
        work = in_thread(lambda: value(client, f"SELECT REPEAT('x', {size})"))
        assert value(other, "SELECT 'meanwhile'") == "meanwhile"
        assert work.result() == "x" * size
        assert value(client, "SELECT LENGTH(%s)", "y" * (size - 1000)) == size - 1000


def test_changes_of_the_schema_cost_no_login(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(mysql_server, pool_size=1)
    with world.connect(autocommit=True) as moving, world.connect(autocommit=True) as staying:
        for _ in range(5):
            moving.select_db("information_schema")
            rows(moving, "USE `information_schema`")
            assert value(staying, "SELECT DATABASE()") == world.database
            assert value(moving, "SELECT DATABASE()") == "information_schema"
    assert world.pooler.log.count("new server connection") == 1


def test_an_exhausted_pool_answers_pings(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(mysql_server, pool_size=1, more='[timeouts]\nquery_wait = "300ms"')
    wait_until(world.is_served, "the server connection, for which nobody waits long enough")
    with world.connect(autocommit=True) as client, world.connect(autocommit=True) as holder:
        holder.begin()
        value(holder, "SELECT 1")
        for _ in range(3):
            client.ping(reconnect=False)
        with pytest.raises(pymysql.err.OperationalError, match="query_wait") as caught:
            value(client, "SELECT 1")
        assert caught.value.args[0] == 1040
        client.ping(reconnect=False)
        holder.commit()
        assert value(client, "SELECT 'lives on'") == "lives on"


def test_reset_connection(each_mysql: World) -> None:
    with each_mysql.connector() as client:
        client.cmd_query("SET SESSION group_concat_max_len = 4444, time_zone = '+03:00'")
        client.start_transaction()
        client.cmd_query("CREATE TEMPORARY TABLE mine (n INT)")
        client.cmd_reset_connection()
        with contextlib.closing(client.cursor()) as cursor:
            cursor.execute("SELECT @@group_concat_max_len = @@global.group_concat_max_len, @@time_zone = @@global.time_zone")
            assert cursor.fetchall() == [(1, 1)]
    each_mysql.wait_until_rested()


def test_statement_mode_has_no_transactions(each_mysql: World, table: str) -> None:
    with each_mysql.connect("statement", autocommit=True) as client:
        rows(client, f"INSERT INTO {table} (name) VALUES ('alone')")
        assert value(client, f"SELECT name FROM {table}") == "alone"
        with pytest.raises(pymysql.err.MySQLError, match="statement mode"):
            client.begin()
    each_mysql.wait_until_rested()
    each_mysql.assert_unharmed("statement")


def test_temporary_tables_and_locks_in_session_mode(each_mysql: World) -> None:
    with each_mysql.connect("session", autocommit=True) as client:
        rows(client, "CREATE TEMPORARY TABLE mine (n INT)")
        rows(client, "INSERT INTO mine VALUES (1)")
        assert value(client, f"SELECT GET_LOCK('session lock{OURS}', 1)") == 1
        assert value(client, "SELECT n FROM mine") == 1
    with each_mysql.connect("session", autocommit=True) as other:
        wait_until(lambda: value(other, f"SELECT IS_FREE_LOCK('session lock{OURS}')") == 1, "the lock free")
        with pytest.raises(pymysql.err.ProgrammingError):
            rows(other, "SELECT n FROM mine")


def test_rows_and_warnings_of_another_client_stay_unknown(each_mysql: World, table: str) -> None:
    """What a server connection says of the statement before is another client's, if the statements in front leave that as it is."""
    with (
        each_mysql.connect(autocommit=True) as other,
        each_mysql.connect(autocommit=True, client_flag=CLIENT.MULTI_STATEMENTS) as client,
    ):
        for text in ("BEGIN; SELECT FOUND_ROWS()", "DO 1; SELECT FOUND_ROWS()"):
            rows(other, f"INSERT INTO {table} (name) VALUES ('a'), ('b'), ('c')")
            rows(other, f"SELECT * FROM {table}")
            with client.cursor() as cursor, pytest.raises(pymysql.err.MySQLError) as caught:
                cursor.execute(text)
            assert caught.value.args[0] == 1235
        rows(client, "BEGIN")
        with pytest.raises(pymysql.err.MySQLError):
            rows(client, "SELECT FOUND_ROWS()")
        rows(client, "SELECT 1 UNION SELECT 2")
        assert rows(client, "SELECT FOUND_ROWS()") == [(2,)]
        rows(client, "ROLLBACK")
        rows(client, f"SELECT * FROM {table} LIMIT 0")
        for text in ("SHOW WARNINGS; SELECT 1", "SELECT 1; SHOW WARNINGS"):
            rows(other, "SELECT CAST('x' AS SIGNED)")
            with client.cursor() as cursor:
                cursor.execute(text)
                answers = [cursor.fetchall()]
                while cursor.nextset():
                    answers.append(cursor.fetchall())
            assert () in answers


def test_a_temporary_table_of_a_statement_of_prepare(each_mysql: World) -> None:
    with each_mysql.connect(autocommit=True) as client, each_mysql.connect(autocommit=True) as other:
        rows(client, "PREPARE q FROM 'CREATE TEMPORARY TABLE IF NOT EXISTS made_unseen AS SELECT 1 AS a'")
        rows(client, "EXECUTE q")
        rows(client, "DEALLOCATE PREPARE q")
        with pytest.raises(pymysql.err.MySQLError) as caught:
            rows(other, "SELECT * FROM made_unseen")
        assert caught.value.args[0] == 1146
        assert rows(client, "SELECT * FROM made_unseen") == [(1,)]
