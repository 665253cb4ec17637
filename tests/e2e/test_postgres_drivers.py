"""What real drivers do all day: psycopg, asyncpg, pg8000 and psql, in transaction mode and in session mode, on each PostgreSQL."""

import asyncio
import decimal
import io
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pg8000.dbapi
import psycopg
import pytest
import trio
import trio_asyncio
from psycopg.rows import dict_row
from trio_asyncio import aio_as_trio

from dualpool.dev import EmbeddedPostgres
from tests.e2e.postgres_world import DEADLINE, RunWorld, World, in_thread
from tests.helpers.servers import PostgresServer, unique

MEGABYTES = 50


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


@pytest.fixture
def table(world: World) -> Iterator[str]:
    """A table of the test's own."""
    name = unique("items")
    world.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, name text, price numeric, at timestamptz DEFAULT now())")
    world.execute(f"GRANT ALL ON {name} TO app")
    yield name
    world.execute(f"DROP TABLE {name}")


# ------------------------------------------------------------------------------------------------------------------ psycopg


def test_psycopg_crud(world: World, listener: str, table: str) -> None:
    with world.connect(listener, autocommit=False, row_factory=dict_row) as client:  # type: ignore[arg-type]
        client.cursor().executemany(f"INSERT INTO {table} VALUES (%s, %s, %s)", [(n, f"name {n}", n / 4) for n in range(50)])
        client.commit()
        assert client.execute(f"UPDATE {table} SET price = price * 2 WHERE id >= %s RETURNING id, price", [48]).fetchall() == [
            {"id": 48, "price": decimal.Decimal(24)},
            {"id": 49, "price": decimal.Decimal("24.5")},
        ]
        client.rollback()
        client.execute(f"DELETE FROM {table} WHERE id < %s", [40])
        client.commit()
        assert client.execute(f"SELECT sum(price) AS s FROM {table}").fetchone() == {"s": decimal.Decimal("111.25")}
        with pytest.raises(psycopg.errors.UniqueViolation):
            client.execute(f"INSERT INTO {table} VALUES (41)")


def test_psycopg_savepoints(world: World, listener: str, table: str) -> None:
    with world.connect(listener) as client, client.transaction():
        client.execute(f"INSERT INTO {table} VALUES (1)")
        with pytest.raises(psycopg.errors.UniqueViolation), client.transaction():
            client.execute(f"INSERT INTO {table} VALUES (2)")
            client.execute(f"INSERT INTO {table} VALUES (1)")
        with client.transaction(force_rollback=True):
            client.execute(f"INSERT INTO {table} VALUES (3)")
        client.execute(f"INSERT INTO {table} VALUES (4)")
    assert world.execute(f"SELECT array_agg(id ORDER BY id) FROM {table}") == [([1, 4],)]


def test_psycopg_pipeline_and_executemany_with_prepared_statements(world: World, listener: str, table: str) -> None:
    with world.connect(listener, prepare_threshold=0) as client:
        with client.pipeline():
            for n in range(200):
                client.execute(f"INSERT INTO {table} VALUES (%s, %s)", [n, f"n{n}"])
        with client.cursor() as cursor:
            cursor.executemany(
                f"UPDATE {table} SET name = %s WHERE id = %s RETURNING name", [(f"m{n}", n) for n in range(200)], returning=True
            )
            names = [cursor.fetchone()]
            while cursor.nextset():
                names.append(cursor.fetchone())
        assert names == [(f"m{n}",) for n in range(200)]


def test_psycopg_server_cursors_and_streams(world: World, listener: str) -> None:
    with world.connect(listener, autocommit=False) as client:
        with client.cursor("named") as cursor:
            cursor.itersize = 300
            cursor.execute("SELECT n FROM generate_series(1, 1000) n")
            assert [n for (n,) in cursor] == list(range(1, 1001))
        client.commit()
        assert sum(n for (n,) in client.cursor().stream("SELECT n FROM generate_series(1, %s) n", [500])) == 125_250
        client.commit()


def test_psycopg_copy(world: World, listener: str, table: str) -> None:
    with world.connect(listener) as client:
        with client.cursor().copy(f"COPY {table} (id, name) FROM STDIN") as copy:
            for n in range(1000):
                copy.write_row((n, f"row {n}"))
        with client.cursor().copy(f"COPY (SELECT id, name FROM {table} ORDER BY id) TO STDOUT") as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == [(n, f"row {n}") for n in range(1000)]
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), client.cursor().copy(f"COPY {table} (id) FROM STDIN") as copy:
            copy.write("no number\n")
        with pytest.raises(ZeroDivisionError), client.cursor().copy(f"COPY {table} (id) FROM STDIN") as copy:
            copy.write("5000\n")
            _ = 1 / 0
        assert client.execute(f"SELECT count(*) FROM {table}").fetchone() == (1000,)
    world.wait_until_rested()


def test_psycopg_copies_50_megabytes_each_way(world: World, listener: str) -> None:
    name = unique("big")
    world.execute(f"CREATE UNLOGGED TABLE {name} (line text)")
    world.execute(f"GRANT ALL ON {name} TO app")
    chunk = b"".join(b"%07d %s\n" % (n, b"x" * 1015) for n in range(1024))
    with world.connect(listener) as client, world.connect(listener) as other:
        with client.cursor().copy(f"COPY {name} FROM STDIN") as copy:
            for _ in range(MEGABYTES // 2):
                copy.write(chunk)
            assert other.execute("SELECT 'meanwhile'").fetchone() == ("meanwhile",)
            for _ in range(MEGABYTES - MEGABYTES // 2):
                copy.write(chunk)
        size = 0
        with client.cursor().copy(f"COPY {name} TO STDOUT") as copy:
            for data in copy:
                size += len(data)
        assert size == MEGABYTES * len(chunk)
        sums = client.execute(f"SELECT count(*), count(DISTINCT line), sum(left(line, 7)::int) FROM {name}").fetchone()
        assert sums == (MEGABYTES * 1024, 1024, MEGABYTES * 1023 * 512)
    world.execute(f"DROP TABLE {name}")


# ------------------------------------------------------------------------------------------------------------------ asyncpg


async def test_asyncpg(world: World, listener: str, table: str) -> None:
    async def scenario() -> None:
        client = await asyncpg.connect(world.url(listener))
        await client.executemany(f"INSERT INTO {table} (id, name) VALUES ($1, $2)", [(n, f"n{n}") for n in range(100)])
        statement = await client.prepare(f"SELECT name FROM {table} WHERE id = $1")
        assert [await statement.fetchval(n) for n in (3, 97)] == ["n3", "n97"]
        async with client.transaction():
            assert [row["id"] async for row in client.cursor(f"SELECT id FROM {table} ORDER BY id", prefetch=30)] == list(range(100))
            with pytest.raises(asyncpg.UniqueViolationError):
                async with client.transaction():
                    await client.execute(f"INSERT INTO {table} (id) VALUES ($1)", 5)
            await client.execute(f"DELETE FROM {table} WHERE id = $1", 6)
        assert await client.fetchval(f"SELECT count(*) FROM {table}") == 99
        when = datetime(2026, 1, 2, tzinfo=UTC)
        assert await client.fetchrow("SELECT $1::timestamptz, $2::uuid, $3::jsonb", when, uuid.UUID(int=7), '{"a": 1}') == (
            when, uuid.UUID(int=7), '{"a": 1}',
        )  # fmt: skip
        await client.execute("SET statement_timeout = 50")
        with pytest.raises(asyncpg.QueryCanceledError):
            await client.fetch("SELECT pg_sleep(600)")
        await client.execute("RESET statement_timeout")
        assert await client.fetchval("SHOW statement_timeout") == "0"
        await client.close()

    with trio.fail_after(DEADLINE):
        async with trio_asyncio.open_loop():
            await aio_as_trio(scenario)()


async def test_asyncpg_copy(world: World, listener: str, table: str) -> None:
    async def scenario() -> None:
        client = await asyncpg.connect(world.url(listener))
        await client.copy_records_to_table(table, records=[(n, f"n{n}") for n in range(500)], columns=["id", "name"])
        out = io.BytesIO()
        assert await client.copy_from_query(f"SELECT id, name FROM {table} WHERE id < $1 ORDER BY id", 3, output=out) == "COPY 3"
        assert out.getvalue() == b"0\tn0\n1\tn1\n2\tn2\n"
        with pytest.raises(asyncpg.UniqueViolationError):
            await client.copy_records_to_table(table, records=[(1, "again")], columns=["id", "name"])
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await client.copy_to_table(table, source=io.BytesIO(b"no number\n"), columns=["id"])
        assert await client.fetchval(f"SELECT count(*) FROM {table}") == 500
        await client.close()

    with trio.fail_after(DEADLINE):
        async with trio_asyncio.open_loop():
            await aio_as_trio(scenario)()
    world.wait_until_rested()
    world.wait_for_server_connections(3)


async def test_asyncpg_pool_with_its_reset_query(world: World, listener: str) -> None:
    async def scenario() -> None:
        async with asyncpg.create_pool(world.url(listener), min_size=2, max_size=2) as pool:
            for number in range(10):
                async with pool.acquire() as client:
                    assert await client.fetchval("SELECT current_setting('app.x', true)") in {None, ""}
                    assert await client.fetchval("SELECT $1::int", number) == number
                    await client.execute("SET app.x = 'set'")
            assert await pool.fetchval("SELECT 'pool'") == "pool"

    with trio.fail_after(DEADLINE):
        async with trio_asyncio.open_loop():
            await aio_as_trio(scenario)()


async def test_asyncpg_gives_up_waiting_and_cancels(world: World) -> None:
    async def scenario() -> None:
        client = await asyncpg.connect(world.url())
        with pytest.raises(TimeoutError):
            await client.fetch("SELECT pg_sleep(600)", timeout=0.05)
        assert await client.fetchval("SELECT 'goes on'") == "goes on"
        await client.close()

    with trio.fail_after(DEADLINE):
        async with trio_asyncio.open_loop():
            await aio_as_trio(scenario)()
    world.wait_until_rested()


async def test_listen_in_session_mode(world: World) -> None:
    async def scenario() -> None:
        client = await asyncpg.connect(world.url("session"))
        heard: asyncio.Queue[str] = asyncio.Queue()
        await client.add_listener("news", lambda *args: heard.put_nowait(args[3]))
        sender = await asyncpg.connect(world.url())
        await sender.execute("NOTIFY news, 'one'")
        await sender.execute("SELECT pg_notify($1, $2)", "news", "two")
        assert [await heard.get(), await heard.get()] == ["one", "two"]
        await client.remove_listener("news", print)
        await client.close()
        await sender.close()

    with trio.fail_after(DEADLINE):
        async with trio_asyncio.open_loop():
            await aio_as_trio(scenario)()
    with world.connect("session") as client:
        assert client.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (0,)


# ------------------------------------------------------------------------------------------------------------------ pg8000


def test_pg8000(world: World, listener: str, table: str) -> None:
    client = pg8000.dbapi.connect("app", "127.0.0.1", "app", world.pooler.port(listener), "app")
    cursor = client.cursor()
    cursor.executemany(f"INSERT INTO {table} (id, name) VALUES (%s, %s)", [(n, f"n{n}") for n in range(20)])
    client.commit()
    cursor.execute(f"UPDATE {table} SET name = 'lost' WHERE id = 1")
    client.rollback()
    cursor.execute(f"SELECT id, name FROM {table} WHERE id = ANY(%s) ORDER BY id", ([1, 2],))
    assert [tuple(row) for row in cursor.fetchall()] == [(1, "n1"), (2, "n2")]
    cursor.execute(f"COPY {table} (id, name) FROM STDIN", stream=io.BytesIO(b"100\ta\n101\tb\n"))
    out = io.BytesIO()
    cursor.execute(f"COPY (SELECT id FROM {table} WHERE id >= 100 ORDER BY id) TO STDOUT", stream=out)
    assert out.getvalue() == b"100\n101\n"
    client.commit()
    with pytest.raises(pg8000.dbapi.DatabaseError, match="22012"):
        cursor.execute("SELECT 1/0")
    client.rollback()
    client.autocommit = True
    cursor.execute("SELECT count(*) FROM " + table)
    assert list(cursor.fetchone()) == [22]
    client.close()


# ------------------------------------------------------------------------------------------------------------------ psql


def psql(world: World, listener: str, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", world.url(listener)], input=script, capture_output=True, text=True, cwd=cwd,
        timeout=DEADLINE, check=False, env={**os.environ, "PGPASSWORD": "app"},
    )  # fmt: skip


def test_psql_scripts_copies_and_reconnects(world: World, listener: str, table: str, tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("".join(f"{n}\trow {n}\n" for n in range(3000)))
    script = f"""
        \\copy {table} (id, name) FROM 'rows.tsv'
        BEGIN;
        DELETE FROM {table} WHERE id >= 10;
        SAVEPOINT s;
        DELETE FROM {table};
        ROLLBACK TO s;
        COMMIT;
        \\copy (SELECT id FROM {table} ORDER BY id) TO 'out.tsv'
        \\c
        SELECT count(*) FROM {table};
        \\c app app
        \\d {table}
    """
    done = psql(world, listener, script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10" in done.stdout.splitlines()
    assert (tmp_path / "out.tsv").read_text() == "".join(f"{n}\n" for n in range(10))


def test_psql_copies_a_file_given_inside_the_script(world: World, listener: str, table: str, tmp_path: Path) -> None:
    done = psql(world, listener, f"COPY {table} (id, name) FROM stdin;\n1\tone\n2\ttwo\n\\.\nSELECT count(*) FROM {table};\n", tmp_path)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_two_pg_dumps_at_once(world: World, listener: str, table: str) -> None:
    """pg_dump: many settings, a serializable transaction, SQL-level PREPARE, COPY."""
    world.execute(f"INSERT INTO {table} (id, name) SELECT n, 'dumped ' || n FROM generate_series(1, 500) n")
    assert isinstance(world.server.embedded, EmbeddedPostgres)
    pg_dump = world.server.embedded.bindir / "pg_dump"
    command = [str(pg_dump), "-t", table, world.url(listener)]
    runs = [
        in_thread(lambda: subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout) for _ in range(2)
    ]
    for run in runs:
        assert run.result().count("dumped ") == 500


# ------------------------------------------------------------------------------------------------------- all on one server connection


async def test_clients_that_rest_hold_nothing_whatever_they_did_before(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    """One server connection for all: a client that kept it, although it is at rest, would starve the next."""
    world = run_world(postgres_server, 1, '[timeouts]\nquery_wait = "30s"')
    world.execute("CREATE TABLE shared (id int PRIMARY KEY, name text)")
    world.execute("GRANT ALL ON shared TO app")
    resting: list[Any] = []

    async def with_asyncpg() -> None:
        client = await asyncpg.connect(world.url())
        resting.append(client)
        await client.copy_records_to_table("shared", records=[(1, "a")], columns=["id", "name"])
        with pytest.raises(asyncpg.UniqueViolationError):
            await client.copy_records_to_table("shared", records=[(1, "b")], columns=["id", "name"])
        with pytest.raises(asyncpg.UndefinedTableError):
            await client.copy_records_to_table("nowhere", records=[(1, "b")])
        for wrong in ("SELEC 1", "SELECT * FROM nowhere"):
            with pytest.raises(asyncpg.PostgresError):
                await client.prepare(wrong)
            with pytest.raises(asyncpg.PostgresError):
                await client.fetch(wrong)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await client.executemany("SELECT 1 / $1::int", [(1,), (0,), (2,)])
        with pytest.raises(TimeoutError):
            await client.fetch("SELECT pg_sleep(600)", timeout=0.05)
        with pytest.raises(ZeroDivisionError):
            await client.copy_to_table("shared", source=failing(), columns=["id"])
        await client.fetch("SELECT * FROM shared WHERE id = $1", 1)

    async def failing() -> AsyncIterator[bytes]:
        yield b"7\n"
        raise ZeroDivisionError

    def with_psycopg() -> None:
        client = world.connect(prepare_threshold=0)
        resting.append(client)
        with pytest.raises(psycopg.errors.UniqueViolation), client.cursor().copy("COPY shared FROM STDIN") as copy:
            copy.write("1\ta\n")
        with client.cursor().copy("COPY shared TO STDOUT") as copy:
            assert list(copy)
        with pytest.raises(psycopg.errors.UndefinedTable), client.cursor().copy("COPY nowhere FROM STDIN"):
            pass
        with pytest.raises(psycopg.errors.SyntaxError):
            client.execute("SELEC %s", [1])
        with pytest.raises(psycopg.errors.DivisionByZero), client.pipeline():
            client.execute("SELECT 1/%s::int", [0])
            client.execute("SELECT %s", [1])
        with client.transaction(), client.cursor("named") as cursor:
            cursor.execute("SELECT generate_series(1, 10)")
            cursor.fetchone()

    def with_pg8000() -> None:
        client = pg8000.dbapi.connect("app", "127.0.0.1", "app", world.pooler.port(), "app")
        resting.append(client)
        client.autocommit = True
        cursor = client.cursor()
        for wrong, parameters in (("SELEC %s", (1,)), ("SELECT 1/%s", (0,)), ("SELECT nothing", ())):
            with pytest.raises(pg8000.dbapi.DatabaseError):
                cursor.execute(wrong, parameters)
        cursor.execute("COPY shared FROM STDIN", stream=io.BytesIO(b"20\ta\n"))
        with pytest.raises(pg8000.dbapi.DatabaseError, match="23505"):
            cursor.execute("COPY shared FROM STDIN", stream=io.BytesIO(b"20\ta\n"))
        cursor.execute("COPY shared TO STDOUT", stream=io.BytesIO())

    with trio.fail_after(2 * DEADLINE):
        async with trio_asyncio.open_loop():
            for _ in range(2):
                await aio_as_trio(with_asyncpg)()
                await trio.to_thread.run_sync(with_psycopg)
                world.execute("DELETE FROM shared WHERE id <> 1")
                await trio.to_thread.run_sync(with_pg8000)
                world.execute("DELETE FROM shared")
            await trio.to_thread.run_sync(world.wait_for_server_connections, 1)
            for client in resting:
                if isinstance(client, asyncpg.Connection):
                    client.terminate()
                else:
                    client.close()
