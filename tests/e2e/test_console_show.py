"""The real clients read every SHOW, over both protocols; columns and types are those of the real PgBouncer."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import asyncpg
import mysql.connector
import pg8000.native
import psycopg
import pymysql
import pytest
import trio_asyncio

from tests.admin.world import SHOWS, ConsoleWorld, console_world, run
from tests.golden.record import load
from tests.helpers.servers import Servers

GOLDEN = load()
EXPORTER = (
    "SHOW LISTS;",
    "SHOW CONFIG;",
    "SHOW CLIENTS;",
    "SHOW databases;",
    "SHOW stats_totals;",
    "SHOW pools;",
    "SHOW STATS",
    "SHOW VERSION;",
)


@pytest.fixture(scope="module")
def world(servers: Servers) -> Iterator[ConsoleWorld]:
    with console_world(servers) as made, made.client() as client, made.mysql_client() as other:
        for number in range(10):
            client.execute("SELECT %s::int", [number])
            with other.cursor() as cursor:
                cursor.execute("SELECT %s", [number])
        yield made


# ---------------------------------------------------------------------------------------------------------------- PostgreSQL


@pytest.mark.parametrize("table", GOLDEN["tables"])
def test_columns_over_the_wire_are_pgbouncers(world: ConsoleWorld, table: str) -> None:
    with world.console() as console:
        result = console.pgconn.exec_(f"SHOW {table}".encode())
        names = [result.fname(i) for i in range(result.nfields)]
        assert [[name.decode(), result.ftype(i)] for i, name in enumerate(names) if name is not None] == GOLDEN["tables"][table]
        assert result.command_status == b"SHOW"


@pytest.mark.parametrize("table", ["LISTS", "TOTALS"])
def test_rows_that_have_names_are_pgbouncers(world: ConsoleWorld, table: str) -> None:
    assert [next(iter(row.values())) for row in world.show(table)] == GOLDEN["rows"][table]


def test_errors_are_pgbouncers(world: ConsoleWorld) -> None:
    with world.console() as console:
        for command, message in GOLDEN["errors"].items():
            with pytest.raises(psycopg.Error) as error:
                console.execute(command.encode())
            assert (error.value.diag.message_primary, error.value.diag.sqlstate) == (message, "08P01"), command


def test_psql_reads_every_show(world: ConsoleWorld) -> None:
    arguments = [part for table in SHOWS for part in ("-c", f"SHOW {table}")]
    done = run("psql", world.url(), *arguments)
    assert done.stderr == ""
    assert "cl_active" in done.stdout
    shown = run("psql", world.url(), "-At", "-c", "show version; show state", "-c", "SHOW HELP")
    assert "PgBouncer 1.26" in shown.stdout
    assert "active|yes" in shown.stdout
    assert "SHOW HELP|CONFIG" in shown.stderr


def test_psycopg_reads_every_show_as_text_and_binary_simple_and_prepared(world: ConsoleWorld) -> None:
    with world.console() as console:
        for table in SHOWS:
            command = f"SHOW {table}".encode()
            simple = console.execute(command).fetchall()
            for options in ({"binary": True}, {"prepare": True}, {"prepare": True, "binary": True}):
                other = console.execute(command, **options)  # type: ignore[arg-type]
                assert other.description is not None
                assert len(other.fetchall()) == len(simple) or table in {"FDS", "CLIENTS"}
    with world.console() as console:
        totals = dict(console.execute("SHOW TOTALS", binary=True).fetchall())
        assert isinstance(totals["total_query_count"], Decimal)
        assert totals["total_query_count"] > 20
        assert totals["total_ps_bind_count"] > 0


def test_psycopg_with_transactions_and_a_server_side_fetch_size(world: ConsoleWorld) -> None:
    with psycopg.connect(world.url()) as console:
        assert console.execute("SHOW STATE").fetchall()[0] == ("active", "yes")
        with pytest.raises(psycopg.Error):
            console.execute("SHOW nonsense")
        assert console.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        console.rollback()
        assert console.execute("SELECT 1").fetchone() == (1,)
        console.commit()


@pytest.mark.trio
async def test_asyncpg_reads_every_show(world: ConsoleWorld) -> None:
    async def work() -> dict[str, list[asyncpg.Record]]:
        console = await asyncpg.connect(world.url())
        found = {table: await console.fetch(f"SHOW {table}") for table in SHOWS}
        prepared = await console.prepare("RECONNECT $1")
        await prepared.fetch("app")
        with pytest.raises(asyncpg.PostgresError, match="no such database"):
            await console.execute("RECONNECT nosuch")
        await console.close()
        return found

    async with trio_asyncio.open_loop():
        found: dict[str, Any] = await trio_asyncio.aio_as_trio(work)()
    pool = next(dict(row) for row in found["POOLS"] if row["database"] == "app")
    assert pool["cl_active"] == 1
    assert {row["database"] for row in found["STATS"]} == {"app", "shop", "pgbouncer"}


def test_pg8000_reads_every_show(world: ConsoleWorld) -> None:
    console = pg8000.native.Connection("app", "127.0.0.1", "pgbouncer", world.pooler.port(), "app")
    for table in SHOWS:
        console.run(f"SHOW {table}")
        assert console.columns
    console.close()


def test_what_exporters_ask(world: ConsoleWorld) -> None:
    with world.console("monitor") as console:
        shapes = {command: console.execute(command.encode()).description for command in EXPORTER}
        assert len(shapes["SHOW LISTS;"] or ()) == 2
        assert len(shapes["SHOW CONFIG;"] or ()) == 4
        version = console.execute("SHOW VERSION;").fetchone()
        assert version is not None
        assert version[0].startswith("PgBouncer 1.26.0")
        config = {row[0]: row[1] for row in console.execute("SHOW CONFIG").fetchall()}
        assert (config["max_client_conn"], config["max_user_connections"]) == ("1000", "0")


def test_counters_count(world: ConsoleWorld) -> None:
    before = {row["database"]: row for row in world.show("STATS_TOTALS")}
    with world.client() as client:
        client.execute("BEGIN")
        client.execute("SELECT 1")
        client.execute("COMMIT")
        client.execute("SELECT repeat('x', 10000)")
    with world.mysql_client() as other, other.cursor() as cursor:
        cursor.execute("SELECT 1")
    after = {row["database"]: row for row in world.show("STATS_TOTALS")}
    change = {name: int(value - before["app"][name]) for name, value in after["app"].items() if name != "database"}
    assert (change["query_count"], change["xact_count"], change["client_login_count"]) == (4, 2, 1)
    assert change["server_assignment_count"] == 2
    assert change["bytes_sent"] > 10_000
    assert 50 < change["bytes_received"] < 1000
    assert change["xact_time"] >= change["query_time"] > 0
    assert after["shop"]["query_count"] > before["shop"]["query_count"]
    assert after["shop"]["client_login_count"] == before["shop"]["client_login_count"] + 1


def test_clients_and_servers_are_who_they_are(world: ConsoleWorld) -> None:
    with world.client(application_name="teller") as client, world.mysql_client() as other:
        client.execute("BEGIN")
        rows = {row["id"]: row for row in world.show("CLIENTS")}
        mine = rows[client.info.backend_pid]
        assert (mine["user"], mine["database"], mine["state"], mine["application_name"]) == ("app", "app", "active", "teller")
        assert (mine["addr"], mine["local_port"]) == ("127.0.0.1", world.pooler.port())
        assert rows[other.thread_id()]["database"] == "shop"
        held = next(row for row in world.show("SERVERS") if row["ptr"] == mine["link"])
        assert (held["state"], held["link"], held["application_name"]) == ("active", mine["ptr"], "teller")
        client.execute("COMMIT")
        [(pid,)] = client.execute("SELECT pg_backend_pid()").fetchall()
        assert pid in {row["remote_pid"] for row in world.show("SERVERS")}


def test_our_own_tables(world: ConsoleWorld) -> None:
    budget = {row["backend"]: row for row in world.show("BUDGET")}
    assert (budget["main"]["limit"], budget["main"]["source"]) == (40, "configured")
    listeners = {row["name"]: row for row in world.show("LISTENERS")}
    assert listeners["session"]["pool_mode"] == "session"
    assert listeners["postgres"]["address"] == f"127.0.0.1:{world.pooler.port()}"
    assert {row["name"] for row in world.show("BACKENDS")} == {"main", "shop"}
    assert world.show("PINS") == world.show("QUEUE") == []


# --------------------------------------------------------------------------------------------------------------------- MySQL


def test_the_mysql_client_reads_every_show(world: ConsoleWorld) -> None:
    commands = ";".join(f"SHOW {table}" for table in [*SHOWS, "HELP"])
    port = str(world.pooler.port("mysql"))
    done = run("mysql", "-h127.0.0.1", f"-P{port}", "-uapp", "pgbouncer", "-e", commands, MYSQL_PWD="app")
    assert "cl_active" in done.stdout
    assert "PgBouncer 1.26" in done.stdout
    failed = run("mysql", "-h127.0.0.1", f"-P{port}", "-uapp", "dualpool", "-e", "SHOW nonsense", check=False, MYSQL_PWD="app")
    assert failed.returncode == 1
    assert "ERROR 1064 (42000)" in failed.stderr


def test_pymysql_reads_every_show(world: ConsoleWorld) -> None:
    with world.mysql_client("pgbouncer") as console, console.cursor() as cursor:
        for table in SHOWS:
            cursor.execute(f"SHOW {table}")
            if table in GOLDEN["tables"]:
                assert [column[0] for column in cursor.description] == [name for name, _ in GOLDEN["tables"][table]]
        cursor.execute("SHOW POOLS")
        pools = {row[0]: row for row in cursor.fetchall()}
        assert pools["shop"][2] == 1
        cursor.execute("SELECT @@version_comment LIMIT 1")
        assert "dualpool" in cursor.fetchone()[0]  # type: ignore[index]
        with pytest.raises(pymysql.err.ProgrammingError, match="use SHOW HELP"):
            cursor.execute("SELECT 1 FROM dual")


def test_prepared_statements_over_mysql(world: ConsoleWorld) -> None:
    address = world.mysql_address() | {"autocommit": True}
    with mysql.connector.connect(**address) as console, console.cursor(prepared=True) as cursor:
        for table in SHOWS:
            cursor.execute(f"SHOW {table}")
            rows = cursor.fetchall()
            if table == "TOTALS":
                assert int(dict(rows)["total_query_count"]) > 0
            if table == "LISTS":
                assert dict(rows)["databases"] == 3
        cursor.execute("RECONNECT ?", ("shop",))
        with pytest.raises(mysql.connector.Error, match="no such database: nosuch"):
            cursor.execute("RECONNECT ?", ("nosuch",))
