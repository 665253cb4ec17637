"""Trouble behind dualpool and before it: servers that end connections or go away, long queues, clients that do not read."""

import select
import socket
import struct
from collections.abc import Iterator

import psycopg
import pytest
import trio

from dualpool.config import from_urls
from dualpool.postgres import wire
from dualpool.reactor import Reactor, TaskPoller
from dualpool.server import ServerInfo, serve
from tests.e2e.postgres_raw import SYNC, Raw, bind, error_of, execute, kinds, parse, query
from tests.e2e.postgres_world import DEADLINE, RunWorld, World, in_thread, resident_bytes, wait_until
from tests.helpers.servers import PostgresServer, Servers


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


def terminate(world: World, pids: list[int]) -> None:
    """End server connections, and wait until the server has."""
    world.server.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) pid", pids)
    wait_until(lambda: not set(pids) & set(world.server_connections()), "the connections are gone")


# --------------------------------------------------------------------------------------------------- servers that end connections


def test_idle_server_connections_that_the_server_ended_are_not_used(world: World) -> None:
    for _ in range(5):
        with world.connect() as client:
            client.execute("SELECT 1")
            pids = world.server_connections()
            assert pids
            terminate(world, pids)
            assert client.execute("SELECT 'goes on'").fetchone() == ("goes on",)


def test_a_busy_server_connection_that_the_server_ends(world: World, listener: str) -> None:
    with world.connect(listener) as client, world.connect() as other:
        running = in_thread(lambda: client.execute("SELECT pg_sleep(600), 'ended by the server'"))
        (pid,) = world.wait_until_running("ended by the server")
        terminate(world, [pid])
        with pytest.raises(psycopg.errors.AdminShutdown):
            running.result()
        assert client.closed
        assert other.execute("SELECT 1").fetchone() == (1,)
    world.assert_unharmed(listener)


def test_a_transaction_that_the_server_ends(world: World) -> None:
    with world.connect(autocommit=False) as client:
        row = client.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        terminate(world, [row[0]])
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
        assert client.closed
    world.assert_unharmed()


def test_a_server_that_is_killed_and_comes_back(servers: Servers, run_world: RunWorld) -> None:
    server = servers.own_postgres(15)
    embedded = server.embedded
    assert embedded is not None
    world = run_world(server, 2, '[timeouts]\nserver_login_retry = "50ms"')
    with world.connect() as idle, world.connect(autocommit=False) as busy:
        idle.execute("SELECT 1")
        busy.execute("SELECT 1")
        embedded.stop()
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")
        # An idle client waits for the server to come back.
        waiting = in_thread(lambda: idle.execute("SELECT 'back'").fetchone())
        with psycopg.connect(world.url("trust")) as newcomer:
            newcoming = in_thread(lambda: newcomer.execute("SELECT 'new'").fetchone())
            embedded.start()
            assert waiting.result() == ("back",)
            assert newcoming.result() == ("new",)
    world.assert_unharmed()


UNKNOWN_CATALOG = wire.message(wire.ERROR_RESPONSE, b"SERROR\0VERROR\0C42P01\0Mno\0\0") + wire.ready(wire.IDLE)


class BabblingServer:
    """Logs clients in like a PostgreSQL server, and answers every query with `answer`."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.connections = 0
        self.thread = in_thread(self._accept)

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.result()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listening.accept()
            except OSError:
                return
            in_thread(lambda sock=sock: self._serve(sock))  # type: ignore[misc]

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            sock.recv(8)
            sock.sendall(b"N")
            sock.recv(10_000)
            parameters = b"".join(
                wire.message(wire.PARAMETER_STATUS, pair) for pair in (b"server_version\x0015.0\0", b"client_encoding\0UTF8\0")
            )
            key = wire.message(wire.BACKEND_KEY, struct.pack("!II", 1, 2))
            sock.sendall(wire.message(wire.AUTHENTICATION, struct.pack("!I", 0)) + parameters + key + wire.ready(wire.IDLE))
            self.connections += 1
            while data := sock.recv(10_000):
                if data.startswith(b"X"):
                    return
                # What dualpool itself asks when a connection is new is refused, as by a server that knows no such catalog.
                ours = b"pg_db_role_setting" in data
                sock.sendall(UNKNOWN_CATALOG if ours else self.answer)


@pytest.fixture
def babbling() -> Iterator[list[BabblingServer]]:
    made: list[BabblingServer] = []
    yield made
    for server in made:
        server.close()


BABBLE = {
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an unknown kind": wire.message(ord("@"), b"?"),
    "a length of 2": b"T\0\0\0\x02",
    "two answers": wire.ready(wire.IDLE) * 2,
    "an answer of another": wire.PARSE_COMPLETE_MESSAGE + wire.ready(wire.IDLE),
}


@pytest.mark.parametrize("name", BABBLE)
def test_a_server_that_answers_garbage(servers: Servers, run_world: RunWorld, babbling: list[BabblingServer], name: str) -> None:
    server = BabblingServer(BABBLE[name])
    babbling.append(server)
    postgres = servers.postgres(15)
    more = (
        f'[backends.babbling]\nurl = "postgresql://app:app@127.0.0.1:{server.port}"\nbudget = 5\n[databases.babble]\nbackend = "babbling"\n'
    )
    world = run_world(postgres, 2, more)
    with Raw(world.pooler.port("trust")).log_in() as neighbour:
        for _ in range(2):
            with Raw(world.pooler.port("trust")).log_in(database="babble") as client:
                client.send(query("SELECT 1"))
                answer = client.until_closed()
                if name != "two answers":
                    assert error_of(answer)["C"] == "08006"
        assert neighbour.value(query("SELECT 'well'")) == "well"
    assert "Traceback" not in world.pooler.log


# ------------------------------------------------------------------------------------------------------------- queues and limits


def test_who_waits_too_long_is_told_what_to_change(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1, '[timeouts]\nquery_wait = "150ms"')
    wait_until(world.is_served, "the server connection, for which nobody waits long enough")
    with world.connect(autocommit=False) as holder, world.connect() as waiter, Raw(world.pooler.port("trust")).log_in() as pipelining:
        holder.execute("SELECT 1")
        with pytest.raises(psycopg.errors.TooManyConnections, match=r"timeouts\.query_wait is 0\.15 s.*pool_size"):
            waiter.execute("SELECT 2")
        pipelining.send(query("SELECT 1"), parse("", "SELECT 2"), bind(""), execute(), SYNC)
        assert error_of(pipelining.until_ready())["C"] == "53300"
        assert error_of(pipelining.until_ready())["C"] == "53300"
        holder.rollback()
        # Both live on.
        assert waiter.execute("SELECT 3").fetchone() == (3,)
        assert pipelining.value(query("SELECT 4")) == "4"


def test_who_waits_long_is_told_so(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1, '[timeouts]\nquery_wait_notify = "50ms"')
    with Raw(world.pooler.port("trust")).log_in() as holder, Raw(world.pooler.port("trust")).log_in() as waiter:
        holder.ask(query("BEGIN"))
        waiter.send(query("SELECT 'served'"))
        kind, payload = waiter.message()
        assert (kind, b"waiting for a server connection" in payload) == ("N", True)
        holder.ask(query("COMMIT"))
        assert kinds(waiter.until_ready()) == "TDCZ"


def test_clients_are_served_in_the_order_in_which_they_came(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1)
    world.execute("CREATE TABLE arrivals (at bigserial, who int)")
    world.execute("GRANT ALL ON arrivals, arrivals_at_seq TO app")
    clients = [Raw(world.pooler.port("trust")).log_in() for _ in range(20)]
    clients[0].ask(query("BEGIN"))
    for number, client in enumerate(clients[1:], 1):
        client.send(query(f"INSERT INTO arrivals (who) VALUES ({number})"))
        # A cancel request for nobody goes through the same door, so what came before it has been read.
        with Raw(world.pooler.port("trust")).log_in():
            pass
    clients[0].ask(query("COMMIT"))
    for client in clients[1:]:
        assert kinds(client.until_ready()) == "CZ"
        client.sock.close()
    assert world.execute("SELECT array_agg(who ORDER BY at) FROM arrivals") == [(list(range(1, 20)),)]
    clients[0].sock.close()


# ------------------------------------------------------------------------------------------------------------------ slow readers


def test_a_client_that_does_not_read_harms_nobody_and_costs_little(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    world = run_world(postgres_server, 2)
    lines = 200_000
    with Raw(world.pooler.port("trust")).log_in() as slow, Raw(world.pooler.port("trust")).log_in() as other:
        other.ask(query("SELECT 1"))
        before = resident_bytes(world.pooler.pid)
        slow.send(query(f"SELECT repeat('x', 1000) FROM generate_series(1, {lines})"))
        # The server can go on no more: what it sends has nowhere to go.
        wait_until(lambda: bool(world.server_connections("wait_event = 'ClientWrite'")), "the server waits for its client")
        for number in range(200):
            assert other.value(query(f"SELECT {number}")) == str(number)
        assert resident_bytes(world.pooler.pid) - before < 20_000_000
        # When it reads at last, it gets everything.
        rows = sum(kind == "D" for kind, _ in slow.until_ready())
        assert rows == lines
        assert slow.value(query("SELECT 'well'")) == "well"


def test_a_server_that_does_not_read_stops_its_client_only(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 2)
    world.execute("CREATE TABLE locked (line text)")
    world.execute("GRANT ALL ON locked TO app")
    insert = query(f"INSERT INTO locked VALUES ('{'x' * 100_000}')")
    with psycopg.connect(world.server.url_for(database=world.database)) as holder, Raw(world.pooler.port("trust")).log_in() as pushing:
        holder.execute("LOCK TABLE locked")
        before = resident_bytes(world.pooler.pid)
        pushed, count = b"", 0
        # Until nobody takes anything any more: the server waits for the lock, and dualpool does not take what it cannot pass on.
        while select.select([], [pushing.sock], [], 0.5)[1]:
            if not pushed:
                pushed, count = insert, count + 1
            pushed = pushed[pushing.sock.send(pushed, socket.MSG_DONTWAIT) :]
            assert count < 500, "50 MB were taken"
        world.assert_unharmed()
        assert resident_bytes(world.pooler.pid) - before < 20_000_000
        holder.rollback()
        pushing.send(pushed)
        assert [kinds(pushing.until_ready()) for _ in range(count)] == ["CZ"] * count
    assert world.execute("SELECT count(*) FROM locked") == [(count,)]


# -------------------------------------------------------------------------------------------------------- without epoll and kqueue


async def test_one_task_per_socket_where_there_is_no_epoll(postgres15: PostgresServer) -> None:
    config = from_urls([postgres15.url], bind_postgres="127.0.0.1:0")

    def work(port: int) -> None:
        url = f"postgresql://app:app@127.0.0.1:{port}/app"
        clients = [psycopg.connect(url, autocommit=True, prepare_threshold=0) for _ in range(8)]
        for number in range(5):
            for who, client in enumerate(clients):
                assert client.execute("SELECT %s::int, %s::int", [who, number]).fetchone() == (who, number)
        # Much in both directions at once: the server sends while it is sent to.
        with clients[3].pipeline():
            cursors = [clients[3].execute("SELECT %s::text", ["y" * 100_000]) for _ in range(100)]
        assert [len(cursor.fetchone()[0]) for cursor in cursors] == [100_000] * 100  # type: ignore[index]
        rows = clients[0].execute("SELECT repeat('x', 1000) FROM generate_series(1, 20000)").fetchall()
        assert len(rows) == 20000
        with clients[0].transaction(), clients[1].transaction():
            assert clients[1].execute("SELECT 2").fetchone() == (2,)
        running = in_thread(lambda: clients[2].execute("SELECT pg_sleep(601)"))
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(601)' AND state = 'active'"
        wait_until(lambda: postgres15.execute(sleeping) == [(1,)], "the query runs")
        clients[2].cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result()
        for client in clients:
            client.close()

    async with trio.open_nursery() as nursery:
        info: ServerInfo = await nursery.start(lambda task_status: serve(config, task_status=task_status, reactor=Reactor(TaskPoller())))
        port = int(info.addresses["postgres"][0].rpartition(":")[2])
        with trio.fail_after(3 * DEADLINE):
            await trio.to_thread.run_sync(work, port)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("end", ["bad data", "CopyFail", "nothing"])
def test_a_copy_that_fails_after_an_early_sync_keeps_its_server_connection(servers: Servers, run_world: RunWorld, end: str) -> None:
    world = run_world(servers.postgres(15), 1)
    world.execute("CREATE TABLE numbers (n int)")
    world.execute("GRANT ALL ON numbers TO PUBLIC")
    with Raw(world.pooler.port("trust")).log_in() as client, world.connect() as other:
        pid = client.value(query("SELECT pg_backend_pid()"))
        client.send(parse("", "COPY numbers FROM STDIN"), bind(""), execute(), SYNC)
        client.until("G")
        if end == "nothing":
            client.vanish()
        else:
            if end == "bad data":
                client.send(wire.message(wire.COPY_DATA, b"x\n"), wire.message(wire.COPY_DONE, b""), SYNC)
            else:
                client.send(wire.message(wire.COPY_FAIL, b"no\0"), SYNC)
            assert kinds(client.until_ready()) == "EZ"
            assert client.value(query("SELECT 1")) == "1"
        assert other.execute("SELECT pg_backend_pid()::text").fetchone() == (pid,)
