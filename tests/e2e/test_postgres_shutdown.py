"""How dualpool ends: after the transactions, or at once; clients are told, and nothing stays behind."""

import os
import signal

import psycopg
import pytest

from dualpool.dev.processes import is_running
from tests.e2e.postgres_raw import Raw, error_of, kinds, query
from tests.e2e.postgres_world import RunWorld, World, wait_until
from tests.helpers.servers import PostgresServer, Servers

GOODBYE = "57P01"


def ended(world: World) -> None:
    """Wait until dualpool has ended, and see that nothing of it is left."""
    assert world.pooler.wait() == 0, world.pooler.log
    assert not is_running(world.pooler.pid)
    wait_until(lambda: not world.server_connections(), "no server connection left")


def is_refused(port: int) -> bool:
    """True if nobody listens."""
    try:
        Raw(port).sock.close()
    except ConnectionError:
        return True
    return False


def test_sigterm_lets_a_transaction_finish_and_sends_idle_clients_away(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    world = run_world(postgres_server)
    world.execute("CREATE TABLE kept (n int)")
    world.execute("GRANT ALL ON kept TO app")
    busy = Raw(world.pooler.port("trust")).log_in()
    session = Raw(world.pooler.port("session-trust")).log_in()
    idle = Raw(world.pooler.port("trust")).log_in()
    idle_session = Raw(world.pooler.port("session-trust")).log_in()
    for client in (busy, session):
        client.ask(query("BEGIN; INSERT INTO kept VALUES (1)"))
    for client in (idle, idle_session):
        client.ask(query("SELECT 1"))
    os.kill(world.pooler.pid, signal.SIGTERM)
    for client in (idle, idle_session):
        error = error_of(client.until_closed())
        assert (error["C"], error["S"]) == (GOODBYE, "FATAL")
    wait_until(lambda: is_refused(world.pooler.port("trust")), "no more clients let in")
    for client in (busy, session):
        assert kinds(client.ask(query("INSERT INTO kept VALUES (2)"))) == "CZ"
        client.send(query("COMMIT"))
        answer = client.until_closed()
        assert (kinds(answer), error_of(answer)["C"]) == ("CZE", GOODBYE)
    ended(world)
    assert world.execute("SELECT count(*) FROM kept") == [(4,)]


def test_sigterm_lets_clients_that_wait_be_served(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1)
    holder, waiter = Raw(world.pooler.port("trust")).log_in(), Raw(world.pooler.port("trust")).log_in()
    holder.ask(query("BEGIN"))
    waiter.send(query("SELECT 'served'"))
    world.wait_until_read()
    os.kill(world.pooler.pid, signal.SIGTERM)
    world.pooler.wait_for_log("SIGTERM")
    assert kinds(holder.ask(query("SELECT 1"))) == "TDCZ"
    holder.send(query("ROLLBACK"))
    assert kinds(waiter.until_closed()) == "TDCZE"
    ended(world)


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_or_sigint_ends_at_once(run_world: RunWorld, servers: Servers, signals: tuple[signal.Signals, ...]) -> None:
    world = run_world(servers.postgres(15), 1)
    world.execute("CREATE TABLE lost (n int)")
    world.execute("GRANT ALL ON lost TO app")
    busy, waiter = Raw(world.pooler.port("trust")).log_in(), Raw(world.pooler.port("trust")).log_in()
    busy.ask(query("BEGIN; INSERT INTO lost VALUES (1)"))
    busy.send(query("SELECT pg_sleep(600), 'when it ended'"))
    world.wait_until_running("when it ended")
    waiter.send(query("SELECT 1"))
    for number in signals:
        os.kill(world.pooler.pid, number)
        world.pooler.wait_for_log("SIGTERM: clients may|ending now")
    for client in (busy, waiter):
        assert error_of(client.until_closed())["C"] == GOODBYE
    ended(world)
    assert world.execute("SELECT count(*) FROM lost") == [(0,)]


def test_shutdown_has_a_limit(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1, '[timeouts]\nshutdown = "300ms"')
    with world.connect(autocommit=False) as client:
        client.execute("SELECT 1")
        os.kill(world.pooler.pid, signal.SIGTERM)
        ended(world)
        with pytest.raises(psycopg.errors.AdminShutdown):
            client.execute("SELECT 1")
