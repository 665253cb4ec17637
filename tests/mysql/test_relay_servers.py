"""The relays between PyMySQL and real servers, two server connections in turn. See test_relay_harness.py."""

import time
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from pymysql.constants import CLIENT

from dualpool.protocol import SESSION, STATEMENT
from tests.helpers.blocking import TIMEOUT
from tests.helpers.servers import MySQLServer
from tests.mysql.test_relay_harness import Pooler


@pytest.fixture
def pooler(mysql_server: MySQLServer) -> Iterator[Pooler]:
    with mysql_server.temporary_database() as database, Pooler(mysql_server, database=database) as running:
        yield running


BACKEND = "SELECT CONNECTION_ID() + 0 AS processlist_id"


def one(connection: "pymysql.Connection[Any]", query: str, *arguments: object) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query, arguments or None)
        row = cursor.fetchone()
        return row[0] if row is not None and len(row) == 1 else row


def is_free(pooler: Pooler) -> bool:
    """True as soon as the only client holds no server connection; False if it holds one for long."""
    deadline = time.monotonic() + TIMEOUT
    while pooler.clients[0].server is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def test_commands_go_to_another_server_connection_each_time(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        raw = [one(client, BACKEND) for _ in range(6)]
        assert len(set(raw)) == 2
        assert one(client, "SELECT CONNECTION_ID()") == client.thread_id() == 1001
        client.ping(reconnect=False)


def test_transactions_stay_on_one_server_connection(pooler: Pooler) -> None:
    with pooler.connect() as client:
        one(client, "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT) ENGINE=InnoDB")
        client.commit()
        for _ in range(3):
            one(client, "INSERT INTO t (v) VALUES (1)")
            ids = {one(client, BACKEND) for _ in range(4)}
            assert len(ids) == 1
            assert pooler.clients[0].server is not None
            client.commit()
            assert is_free(pooler)
        one(client, "INSERT INTO t (v) VALUES (5)")
        client.rollback()
        assert one(client, "SELECT COUNT(*) FROM t") == 3


def test_autocommit_off_without_a_transaction_releases(pooler: Pooler) -> None:
    with pooler.connect() as client:
        assert one(client, "SELECT @@autocommit") == 0
        assert is_free(pooler)
        with pooler.connect(autocommit=True) as other:
            assert [one(other, "SELECT @@autocommit") for _ in range(4)] == [1] * 4
            assert [one(client, "SELECT @@autocommit") for _ in range(4)] == [0] * 4


def test_settings_follow_the_client(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as first, pooler.connect(autocommit=True, charset="latin1") as second:
        query = "SELECT CONCAT_WS(',', @@sql_mode, @@time_zone, @@foreign_key_checks + 0, @@collation_connection, @@character_set_results)"
        before = one(second, query)
        original = one(first, query)
        one(first, "SET sql_mode='ANSI_QUOTES', time_zone='+02:00', foreign_key_checks=0")
        one(first, "SET NAMES utf8mb4 COLLATE utf8mb4_bin")
        for _ in range(3):
            assert one(first, query) == "ANSI_QUOTES,+02:00,0,utf8mb4_bin,utf8mb4"
            assert one(second, query) == before
        one(first, "SET SESSION sql_mode=DEFAULT")
        one(first, "SET time_zone=DEFAULT")
        one(first, "SET foreign_key_checks=1")
        one(first, "SET NAMES utf8mb4")
        first.select_db(pooler.database)
        for _ in range(3):
            assert one(second, query) == before
            assert one(first, query).split(",")[:-3] == original.split(",")[:-3]


def test_quotes_in_settings_survive(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        one(client, "SET sql_mode='NO_BACKSLASH_ESCAPES,ANSI_QUOTES'")
        assert [set(one(client, "SELECT @@sql_mode").split(",")) for _ in range(3)] == [{"NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"}] * 3


def test_schema_follows_the_client(pooler: Pooler, mysql_server: MySQLServer) -> None:
    with mysql_server.temporary_database() as other, pooler.connect(autocommit=True) as first, pooler.connect(autocommit=True) as second:
        first.select_db(other)
        assert [one(first, "SELECT DATABASE()") for _ in range(3)] == [other] * 3
        assert [one(second, "SELECT DATABASE()") for _ in range(3)] == [pooler.database] * 3
        one(second, f"USE `{other}`")
        assert [one(second, "SELECT DATABASE()") for _ in range(3)] == [other] * 3
        with pytest.raises(pymysql.err.OperationalError) as caught:
            first.select_db("no_such_database")
        assert caught.value.args[0] in (1049, 1044)
        assert one(first, "SELECT DATABASE()") == other
        one(first, f"USE `{pooler.database}`")
        assert [one(first, "SELECT DATABASE()") for _ in range(3)] == [pooler.database] * 3


def test_a_schema_that_is_dropped_meanwhile(pooler: Pooler, mysql_server: MySQLServer) -> None:
    with mysql_server.temporary_database() as other, pooler.connect(autocommit=True) as client, pooler.connect() as second:
        client.select_db(other)
        one(second, f"DROP DATABASE `{other}`")
        one(second, "SELECT 1")
        with pytest.raises(pymysql.err.MySQLError):
            for _ in range(3):
                one(client, "SELECT 1")
        client.select_db(pooler.database)
        assert one(client, "SELECT DATABASE()") == pooler.database


def test_last_insert_id(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client, pooler.connect(autocommit=True) as second:
        one(client, "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
        one(client, "INSERT INTO t (v) VALUES (1)")
        one(second, "INSERT INTO t (v) VALUES (1)")
        for _ in range(3):
            assert one(client, "SELECT LAST_INSERT_ID()") == 1
            assert one(second, "SELECT last_insert_id()") == 2
            assert one(client, "SELECT @@identity") == 1
        one(client, "SELECT LAST_INSERT_ID(77)")
        assert [one(client, "SELECT @@last_insert_id") for _ in range(3)] == [77] * 3
        one(client, "UPDATE t SET v = LAST_INSERT_ID(v + 41) WHERE id = 1")
        assert one(client, "SELECT LAST_INSERT_ID()") == 42
        one(client, "SET last_insert_id = 9")
        assert [one(client, "SELECT LAST_INSERT_ID()") for _ in range(3)] == [9] * 3


def test_warnings_are_there_after_the_server_connection_is_gone(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client, pooler.connect(autocommit=True) as second:
        with client.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS no_such_table")
            one(second, "SELECT 1")
            one(second, "SELECT 1")
            cursor.execute("SHOW WARNINGS")
            rows = cursor.fetchall()
            assert [row[:2] for row in rows] == [("Note", 1051)]
            assert [column[0] for column in cursor.description] == ["Level", "Code", "Message"]
            cursor.execute("SHOW WARNINGS LIMIT 0")
            assert cursor.fetchall() == ()
        assert one(client, "SHOW COUNT(*) WARNINGS") == 1
        assert one(client, "SELECT @@warning_count") == 1
        assert one(client, "SHOW COUNT(*) ERRORS") == 0
        with pytest.raises(pymysql.err.ProgrammingError):
            one(client, "SELECT * FROM no_such_table")
        assert one(client, "SHOW ERRORS")[:2] == ("Error", 1146)
        assert one(second, "SHOW WARNINGS") is None
        # MariaDB forgets what a statement has warned of when another one uses a table.
        mariadb = "MariaDB" in one(client, "SELECT VERSION()")
        assert (one(client, "SHOW WARNINGS") is not None) == mariadb
        assert one(second, "SHOW WARNINGS") is None
        one(client, "SELECT 1 FROM information_schema.ENGINES LIMIT 1")
        assert one(client, "SHOW WARNINGS") is None


def test_row_count_and_found_rows(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        one(client, "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
        one(client, "INSERT INTO t (v) VALUES (1), (2), (3)")
        assert one(client, "SELECT ROW_COUNT()") == 3
        assert one(client, "SELECT ROW_COUNT()") == -1
        one(client, "SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1")
        assert one(client, "SELECT FOUND_ROWS() AS n") == 3
        assert one(client, "SELECT FOUND_ROWS()") == 1
        one(client, "SELECT * FROM t")
        assert one(client, "SELECT FOUND_ROWS() + 1 AS n") == 4
        one(client, "SELECT * FROM t LIMIT 2")
        assert one(client, "SELECT FOUND_ROWS()") == 2
        one(client, "UPDATE t SET v = 7 WHERE id > 1")
        assert one(client, "SELECT ROW_COUNT(), 1 FROM DUAL") == (2, 1)
        one(client, "INSERT INTO t (v) VALUES (7)")
        one(client, "UPDATE t SET v = ROW_COUNT() + 10 WHERE id = 1")
        assert one(client, "SELECT v FROM t WHERE id = 1") == 11


def test_found_rows_of_what_nobody_has_counted(pooler: Pooler) -> None:
    many = "SELECT a.table_name, b.table_name FROM information_schema.tables a, information_schema.tables b LIMIT 600"
    with pooler.connect(autocommit=True) as client:
        one(client, many)
        with pytest.raises(pymysql.err.MySQLError) as caught:
            one(client, "SELECT FOUND_ROWS()")
        assert caught.value.args[0] == 1235
        for _ in range(2):
            one(client, many)
            assert one(client, "SELECT FOUND_ROWS()") == 600
            assert one(client, "SELECT FOUND_ROWS()") == 1


def test_get_diagnostics_of_a_statement_on_another_server_connection(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        one(client, "CREATE TABLE t (id INT)")
        one(client, "INSERT INTO t VALUES (1), (2), (3)")
        one(client, "GET DIAGNOSTICS @rows = ROW_COUNT, @n=NUMBER")
        assert one(client, "SELECT @rows, @n") == (3, 0)
        one(client, "DROP TABLE IF EXISTS no_such_table")
        for _ in range(2):
            one(client, "get current diagnostics @n = NUMBER")
        assert one(client, "SELECT @n") == 1
        with pytest.raises(pymysql.err.MySQLError) as caught:
            one(client, "GET DIAGNOSTICS CONDITION 1 @text = MESSAGE_TEXT")
        assert caught.value.args[0] == 1235


def test_errors_leave_nothing_behind(pooler: Pooler) -> None:
    with pooler.connect() as client:
        one(client, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB")
        one(client, "INSERT INTO t VALUES (1)")
        client.commit()
        with pytest.raises(pymysql.err.IntegrityError):
            one(client, "INSERT INTO t VALUES (1)")
        client.rollback()
        assert one(client, "SELECT COUNT(*) FROM t") == 1
        client.rollback()
        assert is_free(pooler)


def test_several_statements_and_results(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True, client_flag=CLIENT.MULTI_STATEMENTS) as client, client.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2, 3; SET @@session.sql_mode = ''; SELECT 4 FROM DUAL WHERE 0")
        assert cursor.fetchall() == ((1,),)
        assert cursor.nextset()
        assert cursor.fetchall() == ((2, 3),)
        assert cursor.nextset()
        assert cursor.nextset()
        assert cursor.fetchall() == ()
        assert not cursor.nextset()
        assert [one(client, "SELECT @@sql_mode") for _ in range(3)] == [""] * 3
        with pytest.raises(pymysql.err.MySQLError):
            cursor.execute("SELECT 1; SELECT syntax error; SELECT 3")
            cursor.nextset()


def test_several_statements_are_refused_where_the_client_did_not_ask_for_them(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client, pooler.connect(client_flag=CLIENT.MULTI_STATEMENTS) as other:
        for _ in range(3):
            assert one(other, "SELECT 1; SELECT 2") == 1
            with pytest.raises(pymysql.err.ProgrammingError):
                one(client, "SELECT 1; SELECT 2")


def test_stored_procedures(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client, client.cursor() as cursor:
        cursor.execute("CREATE PROCEDURE p() BEGIN SELECT 1; SET SESSION time_zone = '+03:00'; SELECT 2; END")
        cursor.callproc("p")
        assert cursor.fetchall() == ((1,),)
        assert cursor.nextset()
        assert cursor.fetchall() == ((2,),)
        cursor.nextset()
        assert [one(client, "SELECT @@time_zone") for _ in range(3)] == ["+03:00"] * 3


def test_large_results_and_large_queries(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True, max_allowed_packet=1 << 30) as client:
        with client.cursor() as cursor:
            cursor.execute(
                "SELECT seq.n, REPEAT('x', seq.n % 50) FROM (WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s"
                " WHERE n < 1000) SELECT n FROM s) seq ORDER BY n"
            )
            rows = cursor.fetchall()
        assert [row[0] for row in rows] == list(range(1, 1001))
        assert [len(row[1]) for row in rows] == [n % 50 for n in range(1, 1001)]
        for size in (300_000, 5_000_000):
            assert one(client, "SELECT LENGTH(%s)", "a" * size) == size


@pytest.mark.parametrize("size", [(1 << 24) - 40, (1 << 24) + 10, 40_000_000])
def test_packets_over_16_mib_both_ways(mysql_server: MySQLServer, size: int) -> None:
    mysql_server.execute("SET GLOBAL max_allowed_packet = 1073741824")
    with Pooler(mysql_server) as pooler, pooler.connect(autocommit=True, max_allowed_packet=1 << 30) as client:
        assert one(client, "SELECT LENGTH(%s)", "a" * size) == size
        assert one(client, f"SELECT REPEAT('b', {size})") == "b" * size
        assert one(client, "SELECT 1") == 1


@pytest.mark.parametrize("short", range(-4, 2))
def test_queries_at_the_edge_of_a_packet(mysql_server: MySQLServer, short: int) -> None:
    mysql_server.execute("SET GLOBAL max_allowed_packet = 1073741824")
    with Pooler(mysql_server, database="app") as pooler, pooler.connect(autocommit=True, max_allowed_packet=1 << 30) as client:
        query = "SELECT LENGTH('')"
        room = (1 << 24) - 1 - 1 + short - len(query)
        assert one(client, f"SELECT LENGTH('{'a' * room}')") == room
        assert one(client, "SELECT 1") == 1


def test_local_files(pooler: Pooler, mysql_server: MySQLServer, tmp_path: Any) -> None:
    mysql_server.execute("SET GLOBAL local_infile = 1")
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"{n}\n" for n in range(5000)))
    with pooler.connect(autocommit=True, local_infile=True) as client:
        one(client, "CREATE TABLE t (id INT)")
        one(client, f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE t")
        assert one(client, "SELECT COUNT(*), SUM(id) FROM t") == (5000, sum(range(5000)))
        with pytest.raises(pymysql.err.MySQLError):
            one(client, "LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE t")
        assert one(client, "SELECT COUNT(*) FROM t") == 5000
    with pooler.connect(autocommit=True, local_infile=False) as client:
        with pytest.raises(pymysql.err.MySQLError) as caught:
            one(client, f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE t")
        assert caught.value.args[0] == 3948
        assert one(client, "SELECT COUNT(*) FROM t") == 5000


def test_kill(pooler: Pooler) -> None:
    with pooler.connect() as client, pooler.connect() as other:
        with pytest.raises(pymysql.err.MySQLError) as caught:
            one(client, "KILL QUERY 999999")
        assert caught.value.args[0] == 1094
        one(client, f"KILL QUERY {other.thread_id()}")
        client.kill(other.thread_id())
        one(client, "KILL QUERY CONNECTION_ID()")
        with pytest.raises(pymysql.err.MySQLError) as caught:
            one(client, "KILL @other")
        assert caught.value.args[0] == 1235


def test_a_pin_ends_with_the_session_s_reset(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        one(client, "SET @mine = 5")
        assert [one(client, "SELECT @mine") for _ in range(3)] == [5] * 3
    with pooler.connect(autocommit=True) as client:
        assert [one(client, "SELECT @mine") for _ in range(4)] == [None] * 4


def test_set_transaction_is_for_the_next_one(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        one(client, "CREATE TABLE t (id INT) ENGINE=InnoDB")
        one(client, "SET TRANSACTION READ ONLY")
        client.begin()
        with pytest.raises(pymysql.err.MySQLError) as caught:
            one(client, "INSERT INTO t VALUES (1)")
        assert caught.value.args[0] == 1792
        client.rollback()
        one(client, "INSERT INTO t VALUES (1)")
        assert is_free(pooler)


def test_session_mode_keeps_the_server_connection(mysql_server: MySQLServer) -> None:
    with Pooler(mysql_server, database="app", mode=SESSION) as pooler, pooler.connect(autocommit=True) as client:
        assert len({one(client, BACKEND) for _ in range(4)}) == 1
        one(client, "DROP TABLE IF EXISTS no_such_table")
        assert one(client, "SHOW WARNINGS")[1] == 1051
        one(client, "SELECT 1")
        assert one(client, "SELECT FOUND_ROWS()") == 1


def test_statement_mode_refuses_transactions(mysql_server: MySQLServer) -> None:
    with Pooler(mysql_server, database="app", mode=STATEMENT) as pooler:
        with pooler.connect(autocommit=True) as client:
            assert one(client, "SELECT 1") == 1
            with pytest.raises(pymysql.err.MySQLError) as caught:
                one(client, "BEGIN")
            assert caught.value.args[0] == 1235
        with pooler.connect(autocommit=True) as client:
            assert [one(client, "SELECT 1") for _ in range(4)] == [1] * 4


@pytest.mark.parametrize("chunk", [1, 7])
def test_bytes_come_in_pieces(mysql_server: MySQLServer, chunk: int) -> None:
    with (
        mysql_server.temporary_database() as database,
        Pooler(mysql_server, database=database, chunk=chunk) as pooler,
        pooler.connect() as client,
        client.cursor() as cursor,
    ):
        cursor.execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(100))")
        cursor.executemany("INSERT INTO t (v) VALUES (%s)", [("v" * n,) for n in range(50)])
        client.commit()
        cursor.execute("SELECT * FROM t ORDER BY id")
        assert cursor.fetchall() == tuple((n + 1, "v" * n) for n in range(50))
        with pytest.raises(pymysql.err.MySQLError):
            cursor.execute("SELECT nonsense FROM t")
        client.commit()
        assert one(client, "SELECT LAST_INSERT_ID()") == 1
