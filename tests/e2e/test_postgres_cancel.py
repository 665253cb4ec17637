"""Cancel requests reach the query they are meant for, or nothing."""

import random
import signal
import subprocess
import threading

import psycopg
import pytest

from dualpool.postgres import wire
from tests.e2e.postgres_raw import Raw, cancel_request, error_of, kinds, query, startup
from tests.e2e.postgres_world import DEADLINE, Background, Client, RunWorld, World, in_thread, wait_until
from tests.helpers.servers import PostgresServer, Servers

CANCELED = "57014"


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


def send_cancel(world: World, key: tuple[int, bytes], listener: str = "trust") -> None:
    """Send a cancel request and wait until dualpool closes the connection, which says that it is over."""
    with Raw(world.pooler.port(listener)) as canceler:
        canceler.send(cancel_request(*key))
        assert canceler.until_closed() == []


def test_a_running_query_is_canceled(world: World, listener: str) -> None:
    with world.connect(listener) as client:
        running = in_thread(lambda: client.execute("SELECT pg_sleep(600), 'to be canceled'"))
        world.wait_until_running("to be canceled")
        client.cancel_safe(timeout=DEADLINE)
        with pytest.raises(psycopg.errors.QueryCanceled, match="user request"):
            running.result()
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_a_canceled_statement_of_a_transaction_fails_the_transaction_only(world: World) -> None:
    with world.connect(autocommit=False) as client:
        client.execute("SELECT 1")
        running = in_thread(lambda: client.execute("SELECT pg_sleep(600), 'in a transaction'"))
        world.wait_until_running("in a transaction")
        client.cancel_safe(timeout=DEADLINE)
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result()
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            client.execute("SELECT 1")
        client.rollback()
        assert client.execute("SELECT 2").fetchone() == (2,)


def test_a_client_that_waits_for_a_server_connection_is_canceled_there(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1)
    with world.connect(autocommit=False) as holder, world.connect() as waiter, world.connect() as extended:
        holder.execute("SELECT 1")
        waiting = [in_thread(lambda: waiter.execute("SELECT 2")), in_thread(lambda: extended.execute("SELECT %s::int", [2]))]
        for client, background in zip((waiter, extended), waiting, strict=True):

            def canceled(client: Client = client, background: Background = background) -> bool:
                # A request that comes before the query does nothing, as at a server; so ask again until there is something to cancel.
                client.cancel_safe(timeout=DEADLINE)
                return background.is_done()

            wait_until(canceled, "the query that waits is canceled")
            with pytest.raises(psycopg.errors.QueryCanceled):
                background.result()
        assert holder.execute("SELECT 3").fetchone() == (3,)
        holder.rollback()
        assert waiter.execute("SELECT 4").fetchone() == (4,)
        assert extended.execute("SELECT %s::int", [5]).fetchone() == (5,)


def test_a_wrong_key_cancels_nothing(world: World) -> None:
    lock = "SELECT pg_advisory_xact_lock(1), 'undisturbed'"
    with Raw(world.pooler.port("trust")).log_in() as client, psycopg.connect(world.server.url_for(database=world.database)) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        process_id, secret = client.key
        client.send(query(lock))
        world.wait_until_running("undisturbed")
        wrong = bytes((secret[0] ^ 1,)) + secret[1:]
        for key in ((process_id, wrong), (process_id + 1, secret), (0, secret), (process_id, secret + b"\0" * 28)):
            send_cancel(world, key)
        assert client.is_silent()
        holder.rollback()
        assert kinds(client.until_ready()) == "TDCZ"


def test_protocol_3_2_has_a_long_key_that_works(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in(wire.PROTOCOL_3_2) as client:
        assert len(client.key[1]) == 32
        client.send(query("SELECT pg_sleep(600), 'long key'"))
        world.wait_until_running("long key")
        # Half of it is not enough.
        send_cancel(world, (client.key[0], client.key[1][:16]))
        assert client.is_silent()
        send_cancel(world, client.key)
        assert error_of(client.until_ready())["C"] == CANCELED


def test_a_newer_protocol_is_negotiated_down(world: World) -> None:
    with Raw(world.pooler.port("trust")) as client:
        client.send(startup((3 << 16) + 9, user="app", database="app", **{"_pq_.unheard_of": "x"}))
        answer = client.until_ready()
        assert kinds(answer).startswith("v")
        assert b"_pq_.unheard_of\0" in answer[0][1]
        assert kinds(client.ask(query("SELECT 1"))) == "TDCZ"


def test_psql_cancels_on_sigint(world: World) -> None:
    command = ["psql", "-XAt", world.url(), "-c", "SELECT pg_sleep(600), 'from psql'"]
    psql = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    world.wait_until_running("from psql")
    psql.send_signal(signal.SIGINT)
    _, error = psql.communicate(timeout=DEADLINE)
    assert "canceling statement due to user request" in error
    world.assert_unharmed()


def test_cancels_never_hit_another_clients_query(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    """Clients whose queries end just when their cancel request comes, and others on the same two server connections that cancel nothing."""
    world = run_world(postgres_server, 2)
    ended = threading.Event()

    def innocent(number: int) -> int:
        served = 0
        with world.connect() as client:
            while not ended.is_set():
                assert client.execute("SELECT %s::int, pg_sleep(0.001)", [number]).fetchone() == (number, "")
                served += 1
        return served

    def canceling(number: int) -> int:
        rng = random.Random(number)
        canceled = 0
        with Raw(world.pooler.port("trust")).log_in() as client:
            for _ in range(60):
                client.send(query(f"SELECT pg_sleep({rng.choice([0, 0.0005, 0.001, 0.002, 0.05])})"))
                with Raw(world.pooler.port("trust")) as canceler:
                    canceler.send(cancel_request(*client.key))
                    answer = client.until_ready()
                    canceler.until_closed()
                if "E" in kinds(answer):
                    assert error_of(answer)["C"] == CANCELED
                    canceled += 1
        return canceled

    innocents = [in_thread(lambda n=n: innocent(n)) for n in range(3)]  # type: ignore[misc]
    cancelers = [in_thread(lambda n=n: canceling(n)) for n in range(4)]  # type: ignore[misc]
    try:
        canceled = sum(canceler.result(3 * DEADLINE) for canceler in cancelers)
    finally:
        ended.set()
    assert all(client.result() > 10 for client in innocents)
    assert canceled > 0
    world.wait_for_server_connections(2)


def test_a_cancel_request_over_tls_in_the_listener_is_not_needed(world: World) -> None:
    """Libraries older than 17 send cancel requests in plain text even where the session has TLS; both are taken."""
    clients: list[Client] = [world.connect(), world.connect()]
    for client in clients:
        running = in_thread(lambda client=client: client.execute("SELECT pg_sleep(600), 'plain'"))  # type: ignore[misc]
        world.wait_until_running("plain")
        client.cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result()
        client.close()
    wait_until(lambda: not world.server_connections("state = 'active'"), "no query runs")
