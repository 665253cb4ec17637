"""Faults of our own, put in where there are none: each costs the one whom it concerns, and nobody else. And last words, heard late."""

import socket
from typing import Any

import pytest
import trio
import trio.testing

from dualpool.accounts import ServerLogin, ServerTarget
from dualpool.authentication.gate import Gate
from dualpool.config import loads
from dualpool.connector import Connector
from dualpool.engines import ENGINES
from dualpool.lease import CLOSING
from dualpool.link import ServerConnection, Supervisor
from dualpool.postgres import wire
from dualpool.protocol import APPLICATION, TRANSACTION, RelayLimits
from dualpool.reactor import Reactor, best_poller
from dualpool.server import Server, ServerInfo, serve
from dualpool.transport import Transport
from tests.e2e.postgres_raw import Raw, error_of, startup
from tests.simulation.desk import Desk

NOWHERE = """
[listeners.postgres]
protocol = "postgres"
bind = "127.0.0.1:0"
auth = "trust"

[backends.main]
url = "postgresql://app:app@127.0.0.1:1/app"

[databases.app]
backend = "main"

[users.app]
password = "app"

[timeouts]
query_wait = "100ms"
"""


def broken(*_: object, **__: object) -> Any:
    raise IndexError("a fault")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where faults were, as they are logged."""
    found: list[str] = []
    monkeypatch.setattr(Server, "log_fault", lambda _self, error, where: found.append(where))
    return found


async def test_of_a_sweep(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    monkeypatch.setattr(Server, "do_what_is_due", broken)
    nursery.start_soon(Server(loads(NOWHERE), nursery).sweep)
    while len(faults) < 3:
        await trio.sleep(1)
    assert set(faults) == {"what is due"}
    nursery.cancel_scope.cancel()


async def last_words(port: int) -> str:
    """What a new client is told instead of being let in; "" if nothing."""

    def ask() -> str:
        with Raw(port) as client:
            client.send(startup(user="app", database="app"))
            answer = client.until_closed()
            return error_of(answer)["M"] if answer else ""

    return await trio.to_thread.run_sync(ask)


@pytest.mark.parametrize(
    ("where", "told", "logged"),
    [
        ((Gate, "account"), "", 'a client of listener "postgres"'),
        ((Connector, "connect"), "an internal error: IndexError('a fault')", "a connect of pool app/app"),
    ],
)
async def test_of_a_login(
    where: tuple[type, str], told: str, logged: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    info: ServerInfo = await nursery.start(lambda task_status: serve(loads(NOWHERE), task_status=task_status))
    port = int(info.addresses["postgres"][0].rpartition(":")[2])
    with monkeypatch.context() as patch:
        patch.setattr(*where, broken)
        assert told in await last_words(port)
    assert faults == [logged]
    assert "waited 0.1 s" in await last_words(port)
    nursery.cancel_scope.cancel()


def test_a_connection_whose_server_has_said_farewell_is_not_alive() -> None:
    desk, ends = Desk(), socket.socketpair()
    pool = desk.pool()
    reactor = Reactor(best_poller())
    ours, theirs = ends
    ours.setblocking(False)
    engine, target = ENGINES["postgres"], ServerTarget("127.0.0.1", 1, "app", "app")
    login = ServerLogin({}, 1)
    relay = engine.server_relay(login, RelayLimits(TRANSACTION), target)
    conn = ServerConnection(reactor, Transport(ours), relay, pool, engine, Supervisor(), login, target)
    pool.connected(conn, APPLICATION)
    conn.channel.open()
    assert pool.take_nowait(APPLICATION) is conn
    assert conn.seems_alive()
    # Its end of the socket is still open: the close comes in a packet of its own.
    theirs.sendall(wire.message(wire.ERROR_RESPONSE, b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"))
    assert not conn.seems_alive()
    assert conn.state == CLOSING
    assert desk.io.closes
    desk.close()
    reactor.poller.close()
    for end in ends:
        end.close()
