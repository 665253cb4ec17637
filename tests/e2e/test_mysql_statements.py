"""Prepared statements over several server connections, with mysql-connector-python: its prepared cursors, and below them its commands."""

import contextlib
import datetime
import decimal
import io
from collections.abc import Iterator
from typing import Any

import mysql.connector
import pytest

from tests.e2e.mysql_world import RunWorld, World, value
from tests.helpers.servers import MySQLServer

CURSOR_READ_ONLY = 1
BACKEND = "SELECT CONNECTION_ID() + 0 AS processlist_id"
"""Which server connection it is: the server's own id of it."""


@contextlib.contextmanager
def occupied(world: World, count: int = 1) -> Iterator[None]:
    """`count` server connections, those that are used most, belong to other clients."""
    with contextlib.ExitStack() as clients:
        for _ in range(count):
            client = clients.enter_context(world.connect(autocommit=True))
            client.begin()
            value(client, "SELECT COUNT(*) FROM information_schema.engines")
        yield


def everywhere(world: World) -> Iterator[int]:
    """The number of the server connection that is used in each turn of a loop: another one each time."""
    for count in range(3):
        with occupied(world, count):
            yield count


def run(client: Any, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Prepare, execute and close."""
    with contextlib.closing(client.cursor(prepared=True)) as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []


def only(client: Any, sql: str, *parameters: Any) -> Any:
    """The only value of a statement's only row."""
    [(found,)] = run(client, sql, *parameters)
    return found.decode() if isinstance(found, bytes | bytearray) else found


def prepared_count(world: World) -> int:
    """How many statements the server has prepared for dualpool's connections, all together (MySQL)."""
    sql = (
        "SELECT COUNT(*) FROM performance_schema.prepared_statements_instances i JOIN performance_schema.threads t"
        f" ON i.owner_thread_id = t.thread_id WHERE t.processlist_user = '{world.user}'"
    )
    return int(world.execute(sql)[0][0])


def test_a_statement_serves_on_every_server_connection(each_mysql: World) -> None:
    with each_mysql.connector() as client, contextlib.closing(client.cursor(prepared=True)) as cursor:
        backends = set()
        for turn in everywhere(each_mysql):
            cursor.execute(f"SELECT %s * 2, ({BACKEND})", (turn,))
            [(double, backend)] = cursor.fetchall()
            assert double == 2 * turn
            backends.add(backend)
        assert len(backends) == 3


def test_values_of_all_types_and_nulls(each_mysql: World) -> None:
    each_mysql.execute("DROP TABLE IF EXISTS kinds")
    each_mysql.execute(
        "CREATE TABLE kinds (id INT PRIMARY KEY, i BIGINT, u BIGINT UNSIGNED, f DOUBLE, n DECIMAL(20, 5), s VARCHAR(100), b BLOB,"
        " d DATE, t DATETIME(6)) ENGINE=InnoDB"
    )
    full = (
        -(2**63), 2**64 - 1, 1.5, decimal.Decimal("12345.67890"), "größer ☃", b"\0\xff\n'", datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 23, 59, 59, 123456),
    )  # fmt: skip
    with each_mysql.connector() as client:
        for turn in everywhere(each_mysql):
            for hole in range(len(full) + 1):
                values = tuple(None if number == hole else found for number, found in enumerate(full))
                key = turn * 100 + hole
                run(client, "INSERT INTO kinds VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", key, *values)
                [found] = run(client, "SELECT i, u, f, n, s, b, d, t FROM kinds WHERE id = %s", key)
                assert tuple(bytes(x) if isinstance(x, bytearray) else x for x in found) == values


def test_each_client_s_types_are_its_own(each_mysql: World) -> None:
    # MySQL 8.0.22 and newer keep the type that a parameter had first, and would read the other clients' strings as numbers.
    with contextlib.ExitStack() as clients:
        cursors = [
            clients.enter_context(contextlib.closing(clients.enter_context(each_mysql.connector()).cursor(prepared=True))) for _ in range(5)
        ]
        wanted = [7, "text", None, decimal.Decimal("1.5"), datetime.date(2024, 2, 29)]
        for turn in everywhere(each_mysql):
            for shift in range(2):
                for number, cursor in enumerate(cursors):
                    cursor.execute("SELECT %s, CONCAT('<', %s, '>')", (wanted[number], f"{turn}{shift}"))
                    assert cursor.fetchall() == [(wanted[number], f"<{turn}{shift}>")]


def test_long_data(each_mysql: World) -> None:
    with each_mysql.connector() as client:
        for turn in everywhere(each_mysql):
            size = 300_000 + turn
            assert run(client, "SELECT LENGTH(%s), %s", io.BytesIO(b"x" * size), turn) == [(size, turn)]
            assert only(client, "SELECT LENGTH(%s)", "y" * size) == size


def test_a_cursor_is_fetched_from_where_it_was_opened(each_mysql: World) -> None:
    each_mysql.execute("CREATE TABLE IF NOT EXISTS thousand (n INT PRIMARY KEY) ENGINE=InnoDB")
    each_mysql.execute("INSERT IGNORE INTO thousand VALUES " + ",".join(f"({n})" for n in range(1000)))
    with each_mysql.connector() as client, each_mysql.connector() as other:
        prepared = client.cmd_stmt_prepare(b"SELECT n FROM thousand WHERE n >= ? ORDER BY n")
        _, columns, _ = client.cmd_stmt_execute(
            prepared["statement_id"], data=(10,), parameters=prepared["parameters"], flags=CURSOR_READ_ONLY
        )
        found = []
        for count in (1, 300, 300, 389):
            client.cmd_stmt_fetch(prepared["statement_id"], count)
            rows, _ = client.get_rows(binary=True, columns=columns)
            assert len(rows) == count
            found += [n for (n,) in rows]
            assert run(other, "SELECT n FROM thousand WHERE n >= ? ORDER BY n LIMIT 1", count) == [(count,)]
        assert found == list(range(10, 1000))
        client.unread_result = False
        client.cmd_stmt_reset(prepared["statement_id"])
        client.cmd_stmt_close(prepared["statement_id"])
        assert only(client, "SELECT 1") == 1
    each_mysql.wait_until_rested()


def test_tables_change_under_a_statement(each_mysql: World) -> None:
    each_mysql.execute("DROP TABLE IF EXISTS changing")
    each_mysql.execute("CREATE TABLE changing (a INT) ENGINE=InnoDB")
    each_mysql.execute("INSERT INTO changing VALUES (1)")
    with each_mysql.connector() as client, contextlib.closing(client.cursor(prepared=True)) as cursor:
        for _ in everywhere(each_mysql):
            cursor.execute("SELECT * FROM changing WHERE a = %s", (1,))
            assert cursor.fetchall() == [(1,)]
        each_mysql.execute("ALTER TABLE changing ADD COLUMN b VARCHAR(10) DEFAULT 'new'")
        for _ in everywhere(each_mysql):
            cursor.execute("SELECT * FROM changing WHERE a = %s", (1,))
            assert cursor.fetchall() == [(1, "new")]
        each_mysql.execute("DROP TABLE changing")
        for _ in everywhere(each_mysql):
            with pytest.raises(mysql.connector.ProgrammingError, match="changing") as caught:
                cursor.execute("SELECT * FROM changing WHERE a = %s", (1,))
            assert caught.value.errno == 1146


def test_a_statement_that_cannot_be_prepared(each_mysql: World) -> None:
    with each_mysql.connector() as client:
        for sql, errno in (("SELEKT %s", 1064), ("SELECT * FROM no_such_table WHERE x = %s", 1146)):
            with pytest.raises(mysql.connector.ProgrammingError) as caught:
                run(client, sql, 1)
            assert caught.value.errno == errno
            assert only(client, "SELECT %s", "well") == "well"


def test_few_statements_per_server_connection_serve_many(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(mysql_server, pool_size=2, more="[limits]\nstatements_per_server = 4")
    with world.connector() as first, world.connector() as second:
        cursors = [(client.cursor(prepared=True), number) for number in range(12) for client in (first, second)]
        for _ in range(2):
            for cursor, number in cursors:
                cursor.execute(f"SELECT {number}, %s", (number,))
                assert cursor.fetchall() == [(number, number)]
        if not mysql_server.is_mariadb:
            assert 0 < prepared_count(world) <= 2 * 4
        for cursor, _ in cursors:
            cursor.close()


def test_clients_share_a_server_connection_s_statement(run_mysql: RunWorld, mysql: MySQLServer) -> None:
    world = run_mysql(mysql, pool_size=1)
    with contextlib.ExitStack() as open_clients:
        for number in range(10):
            client = open_clients.enter_context(world.connector())
            cursor = open_clients.enter_context(contextlib.closing(client.cursor(prepared=True)))
            for _ in range(2):
                cursor.execute("SELECT %s + 1", (number,))
                assert cursor.fetchall() == [(number + 1,)]
        # One that is executed, and one that is new: nobody knows yet what its parameter will be.
        assert prepared_count(world) == 2


def test_statements_in_transactions_and_in_session_mode(each_mysql: World) -> None:
    each_mysql.execute("CREATE TABLE IF NOT EXISTS written (n INT) ENGINE=InnoDB")
    each_mysql.execute("DELETE FROM written")
    for listener in ("mysql", "session"):
        with each_mysql.connector(listener) as client:
            client.start_transaction()
            run(client, "INSERT INTO written VALUES (%s)", 1)
            client.cmd_query("SAVEPOINT here")
            run(client, "INSERT INTO written VALUES (%s)", 2)
            client.cmd_query("ROLLBACK TO SAVEPOINT here")
            assert run(client, "SELECT n FROM written WHERE n < %s", 10) == [(1,)]
            client.rollback()
            assert run(client, "SELECT n FROM written WHERE n < %s", 10) == []
    each_mysql.wait_until_rested()
