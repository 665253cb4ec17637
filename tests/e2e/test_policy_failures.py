"""Servers that are killed, and server connections that are killed again and again: who may notice, and what may be left.

DUALPOOL_KILLING_SECONDS is how long the killing goes on (30 for a long run).
"""

import os
import time
from collections.abc import Iterator

import pytest

from tests.e2e.policy_world import Conn, Crowd, Stage, stage, wait_for_answers
from tests.e2e.postgres_world import DEADLINE, in_thread, wait_until
from tests.helpers.servers import DatabaseServer, Servers

SECONDS = float(os.environ.get("DUALPOOL_KILLING_SECONDS", "5"))
POOL_SIZE = 6
CLIENTS = 30
TIMEOUTS = '[timeouts]\nserver_login_retry = "50ms"\nquery_wait = "120s"'


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def own_server(request: pytest.FixtureRequest, servers: Servers) -> Iterator[DatabaseServer]:
    """A server that may be killed, of each engine in turn."""
    server: DatabaseServer = servers.own_postgres(15) if request.param == "postgres" else servers.own_mariadb()
    yield server
    assert server.embedded is not None
    server.embedded.stop()


@pytest.fixture
def world(own_server: DatabaseServer) -> Iterator[Stage]:
    with stage(own_server, pool_size=POOL_SIZE, budget="20", more=TIMEOUTS) as made:
        yield made


class Bystanders:
    """Clients that are connected and ask nothing: whatever happens to server connections is no business of theirs."""

    def __init__(self, world: Stage, count: int = 10) -> None:
        self.conns: list[Conn] = [world.connect() for _ in range(count)]

    def check(self) -> None:
        """They are all still there, and are served."""
        for number, conn in enumerate(self.conns):
            assert conn.execute(f"SELECT {number}") == [(number,)]
            conn.close()


def assert_nothing_is_left(world: Stage, files: int) -> None:
    """When the clients have gone: what the server sees, what the console says, and the pooler's files agree that nothing is leased."""
    wait_until(lambda: world.server_connections() <= POOL_SIZE, "no more server connections than pool_size")
    # Idle server connections, and those of this moment's accepts, may stay.
    wait_until(lambda: world.open_files() <= files + POOL_SIZE, f"{files} open files")
    with world.connect() as conn:
        assert conn.execute("SELECT 'unharmed'") == [("unharmed",)]


def test_server_connections_that_are_killed_all_the_time(world: Stage) -> None:
    files = world.open_files()
    bystanders = Bystanders(world)
    kills = 0
    with Crowd(world, CLIENTS, extra=world.slowly(0.002)) as crowd:
        wait_for_answers(crowd, 100)
        ended = time.monotonic() + SECONDS
        while time.monotonic() < ended or kills < 10:
            assert time.monotonic() < ended + DEADLINE, "too few to kill"
            kills += len(world.kill_half())
            time.sleep(0.1)
        wait_for_answers(crowd, 300)
        crowd.stop()
    assert not crowd.wrong
    # Each kill ends one transaction at most: that in flight. Nobody who waited for a connection has noticed.
    assert sum(crowd.errors.values()) <= kills, crowd.errors
    bystanders.check()
    assert_nothing_is_left(world, files)


def test_a_server_that_is_killed_under_load_and_comes_back(world: Stage) -> None:
    embedded = world.server.embedded
    assert embedded is not None
    files = world.open_files()
    bystanders = Bystanders(world)
    with Crowd(world, CLIENTS, extra=world.slowly(0.002)) as crowd:
        wait_for_answers(crowd, 300)
        embedded.kill()
        waiting = in_thread(lambda: bystanders.conns[0].execute("SELECT 'it is back'"))
        before = crowd.answers
        wait_until(lambda: world.pooler.log.count("connect failed") > 2, "connects are tried again")
        assert not waiting.is_done()
        # What was answered before, and had not been read yet.
        assert crowd.answers - before <= CLIENTS
        # Only those whose transaction was in flight have noticed; the others wait.
        assert sum(crowd.errors.values()) <= POOL_SIZE, crowd.errors
        embedded.restart()
        assert waiting.result() == [("it is back",)]
        wait_for_answers(crowd, 300)
        crowd.stop()
    assert not crowd.wrong
    assert sum(crowd.errors.values()) <= POOL_SIZE, crowd.errors
    bystanders.check()
    assert_nothing_is_left(world, files)


def test_idle_connections_that_the_server_ended_meet_no_client(world: Stage) -> None:
    with world.connect() as conn, Crowd(world, POOL_SIZE, extra=world.slowly(0.05)) as crowd:
        wait_for_answers(crowd, 2 * POOL_SIZE)
        crowd.stop()
        for _ in range(20):
            killed = set(world.kill_half())
            wait_until(lambda: killed.isdisjoint(world.connection_ids()), "the server has ended them")  # noqa: B023
            assert conn.execute("SELECT 1") == [(1,)]
