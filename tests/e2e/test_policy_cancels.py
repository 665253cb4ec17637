"""Cancel requests on their way: what SHOW POOLS says of them, whom they keep waiting, and which of several servers they go to."""

import socket
from collections.abc import Iterator

import attrs
import psycopg
import pymysql
import pytest
import trio

from dualpool import hosts
from dualpool.config import from_urls
from dualpool.server import ServerInfo, serve
from tests.e2e.policy_world import ADMIN, POOL_USER, Conn, Stage, stage
from tests.e2e.postgres_world import DEADLINE, Background, in_thread, wait_until
from tests.helpers.gate import Gate, gate
from tests.helpers.servers import DatabaseServer, MySQLServer, PostgresServer, Servers

COUNTS = ("cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active", "sv_active_cancel", "sv_being_canceled", "sv_idle")


@pytest.fixture(params=["postgres", "mysql"])
def server(request: pytest.FixtureRequest, servers: Servers) -> DatabaseServer:
    return servers.postgres(15) if request.param == "postgres" else servers.mariadb()


@pytest.fixture
def door(server: DatabaseServer) -> Iterator[Gate]:
    with gate("127.0.0.1", server.port) as made:
        yield made


@pytest.fixture
def world(server: DatabaseServer, door: Gate) -> Iterator[Stage]:
    """One server connection, through the gate."""
    url = f"{server.scheme}://{POOL_USER}:{POOL_USER}@127.0.0.1:{door.port}/app?sslmode=disable"
    with stage(server, url=url, pool_size=1, budget="5", more=ADMIN) as made:
        yield made


class Held:
    """A table that nobody else can read, until `free`."""

    def __init__(self, server: DatabaseServer) -> None:
        self.server = server
        lock = "LOCK TABLES held WRITE" if isinstance(server, MySQLServer) else "LOCK TABLE held"
        self._owner: psycopg.Connection[tuple[object, ...]] | pymysql.Connection[pymysql.cursors.Cursor]
        if isinstance(server, MySQLServer):
            self._owner = server.connect(database="app")
        else:
            self._owner = psycopg.connect(server.url_for(database="app"))
        with self._owner.cursor() as cursor:
            for sql in ("DROP TABLE IF EXISTS held", "CREATE TABLE held (id int)"):
                cursor.execute(sql)
            self._owner.commit()
            cursor.execute(lock)

    def is_wanted(self) -> bool:
        """Does somebody wait for it?"""
        if isinstance(self.server, MySQLServer):
            sql = f"SELECT count(*) FROM {self.server.processes} WHERE state LIKE 'Waiting for table%'"
        else:
            sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%held%'"
        return bool(self.server.execute(sql)[0][0])

    def free(self) -> None:
        """Let others read it."""
        self._owner.close()


def counts(world: Stage) -> dict[str, int]:
    """COUNTS of the database app that are not 0."""
    with world.connect(database="dualpool") as console, console.driver.cursor() as cursor:
        cursor.execute("SHOW POOLS")
        names = [column[0] for column in cursor.description]
        (pool,) = [row for row in (dict(zip(names, row, strict=True)) for row in cursor.fetchall()) if row["database"] == "app"]
    return {name: pool[name] for name in COUNTS if pool[name]}


def cancel(world: Stage, victim: Conn, other: Conn) -> Background:
    """Ask to cancel what `victim` runs, in the way of the engine: MySQL needs another session for it, `other`."""
    if world.listener == "postgres":
        return in_thread(lambda: victim.driver.cancel_safe(timeout=DEADLINE))
    return in_thread(lambda: other.execute(f"KILL QUERY {victim.driver.thread_id()}"))


def test_a_request_under_way_is_counted_and_keeps_its_server_connection_from_others(world: Stage, door: Gate) -> None:
    held = Held(world.server)
    with world.connect() as victim, world.connect() as next_one, world.connect() as other:
        running = in_thread(lambda: victim.execute("SELECT count(*) FROM held"))
        wait_until(held.is_wanted, "the query waits at the server")
        assert counts(world) == {"sv_active": 1}
        door.shut()
        canceling = cancel(world, victim, other)
        sent = {"cl_active_cancel_req": 1, "sv_active_cancel": 1}
        wait_until(lambda: counts(world) == sent | {"sv_active": 1}, "the request is on its way")
        held.free()
        assert running.result() == [(0,)]
        wait_until(lambda: counts(world) == sent | {"sv_being_canceled": 1}, "the server connection waits for the request")
        waiting = in_thread(lambda: next_one.execute("SELECT 'not canceled'"))
        wait_until(lambda: counts(world) == sent | {"sv_being_canceled": 1, "cl_waiting": 1}, "the next client waits")
        door.open()
        assert waiting.result() == [("not canceled",)]
        canceling.result()
        wait_until(lambda: counts(world) == {"sv_idle": 1}, "all is over")


async def test_a_request_goes_to_the_server_of_the_connection_whatever_its_name_means_by_now(
    server: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    meaning = ["127.0.0.1"]
    looked_up = trio.Event()
    real = hosts.look_up

    async def look_up(host: str, port: int) -> list[hosts.Address]:
        if host == "database.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, (meaning[0], port))]
        await looked_up.wait()
        return await real(host, port)

    monkeypatch.setattr(hosts, "look_up", look_up)
    url = server.url.replace("127.0.0.1", "database.example")
    config = from_urls(
        *([url], []) if isinstance(server, PostgresServer) else ([], [url]), bind_postgres="127.0.0.1:0", bind_mysql="127.0.0.1:0"
    )
    config = attrs.evolve(config, timeouts=attrs.evolve(config.timeouts, dns=0.0))
    protocol = "mysql" if isinstance(server, MySQLServer) else "postgres"

    async with trio.open_nursery() as nursery:
        info: ServerInfo = await nursery.start(lambda task_status: serve(config, task_status=task_status))
        token = trio.lowlevel.current_trio_token()
        world = InProcess(server, protocol, int(info.addresses[protocol][0].rpartition(":")[2]))

        def work() -> None:
            held = Held(server)
            with world.connect() as victim, world.connect() as other, socket.create_server(("127.0.0.2", server.port)) as another:
                running = in_thread(lambda: victim.execute("SELECT count(*) FROM held"))
                wait_until(held.is_wanted, "the query waits at the server")
                meaning[0] = "127.0.0.2"
                canceling = cancel(world, victim, other)
                wait_until(lambda: counts(world) == {"sv_active": 1, "cl_waiting_cancel_req": 1}, "the request is not sent yet")
                token.run_sync_soon(looked_up.set)
                with pytest.raises((psycopg.errors.QueryCanceled, pymysql.err.OperationalError)):
                    running.result()
                canceling.result()
                another.setblocking(False)
                with pytest.raises(BlockingIOError):
                    another.accept()
            held.free()

        with trio.fail_after(3 * DEADLINE):
            await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


class InProcess(Stage):
    """A Stage whose pooler is part of the test's own process."""

    def __init__(self, server: DatabaseServer, listener: str, port: int) -> None:
        self.server = server
        self.listener = listener
        self._port = port

    def connect(self, user: str = "app", database: str = "app", timeout: float = DEADLINE, **options: object) -> Conn:
        address = {"host": "127.0.0.1", "port": self._port, "user": user, "password": user, "connect_timeout": int(timeout)}
        if self.listener == "postgres":
            return Conn(psycopg.connect(**address, dbname=database, autocommit=True))  # type: ignore[arg-type]
        return Conn(pymysql.connect(**address, database=database, autocommit=True))  # type: ignore[arg-type]
