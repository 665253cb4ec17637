"""The budget, with a server that has only 20 places, three databases and 300 clients; and the reserve for maintenance."""

import contextlib
import time
from collections.abc import Iterator

import psycopg
import pymysql
import pytest

from tests.e2e.policy_sampler import Sampler
from tests.e2e.policy_world import POOL_USER, Crowd, Stage, small_server, stage, wait_for_answers
from tests.e2e.postgres_world import wait_until
from tests.helpers.servers import DatabaseServer, MySQLServer, Servers

__all__ = ["small_server"]
CLIENTS = 300
RESERVE = 3


@pytest.fixture
def world(small_server: DatabaseServer) -> Iterator[Stage]:
    with stage(small_server, databases=3, pool_size=20) as made:
        yield made


def test_300_clients_of_three_databases_never_exceed_the_budget_and_maintenance_gets_in(world: Stage) -> None:
    # PostgreSQL keeps 3 of its 20 for superusers. MariaDB has one more than 20 for them, so the sampler costs us nothing there.
    budget = 20 if isinstance(world.server, MySQLServer) else 17
    with Sampler(world.server, POOL_USER) as sampler, Crowd(world, CLIENTS, databases=3, extra=world.slowly(0.01)) as crowd:
        wait_for_answers(crowd, 1500)
        most = most_of(sampler, 20)
        assert budget - RESERVE - 3 <= most <= budget - RESERVE, "the application takes what it may, and no more"
        for number in range(2):
            maintain(world, number)
        with contextlib.ExitStack() as sessions:
            for _ in range(RESERVE):
                sessions.enter_context(world.connect("boss")).execute("SELECT 1")
            wait_for_answers(crowd, 500)
        most, _ = sampler.most()
        assert most <= budget
        wait_until(lambda: world.server_connections() <= budget - RESERVE, "the reserve is free again")
        sampler.most()
        wait_for_answers(crowd, 500)
        most, _ = sampler.most()
        assert most <= budget - RESERVE
    assert not crowd.wrong
    assert not crowd.errors


def most_of(sampler: Sampler, wanted: int) -> int:
    """The most connections in `wanted` samples or more."""
    most = samples = 0
    while samples < wanted:
        time.sleep(0.01)
        found, more = sampler.most()
        most, samples = max(most, found), samples + more
    return most


def maintain(world: Stage, number: int) -> None:
    """A migration: it logs in, runs DDL and goes."""
    with world.connect("boss") as session:
        session.execute(f"CREATE TABLE migrated{number} (id int)")
        session.execute(f"DROP TABLE migrated{number}")


def test_a_server_that_others_fill_lowers_the_budget_and_who_waits_goes_on_waiting(small_server: DatabaseServer) -> None:
    more = '[timeouts]\nserver_login_retry = "100ms"\nquery_wait = "120s"'
    with stage(small_server, pool_size=20, more=more) as world:
        strangers = [direct(world) for _ in range(12)]
        try:
            with Crowd(world, 30, extra=world.slowly(0.01)) as crowd:
                wait_for_answers(crowd, 500)
                world.pooler.wait_for_log("connect failed.*(53300|Too many connections)")
                for stranger in strangers:
                    stranger.close()
                strangers.clear()
                wait_until(lambda: world.server_connections() > 9, "the budget rises again")
            assert not crowd.errors
            assert not crowd.wrong
        finally:
            for stranger in strangers:
                stranger.close()


def direct(world: Stage) -> "psycopg.Connection[tuple[object, ...]] | pymysql.Connection[pymysql.cursors.Cursor]":
    """A connection that dualpool knows nothing of."""
    server = world.server
    if isinstance(server, MySQLServer):
        return server.connect(user=POOL_USER, password=POOL_USER, program_name="stranger")
    return psycopg.connect(server.url_for(user=server.user), autocommit=True)


def test_a_databases_own_maximum(small_server: DatabaseServer) -> None:
    with (
        stage(small_server, pool_size=10, database="max_connections = 2") as world,
        Sampler(world.server, POOL_USER) as sampler,
        Crowd(world, 10, extra=world.slowly(0.01)) as crowd,
    ):
        wait_for_answers(crowd, 100)
        assert sampler.most()[0] == 2
        crowd.stop()
        assert not crowd.errors


def test_a_budget_by_memory_leaves_22_to_the_application(servers: Servers) -> None:
    with (
        stage(servers.postgres(15), pool_size=30, budget="{ memory_gb = 1, per_gb = 25 }") as world,
        Sampler(world.server, POOL_USER) as sampler,
        Crowd(world, 40, extra=world.slowly(0.01)) as crowd,
    ):
        wait_for_answers(crowd, 1000)
        assert sampler.most()[0] == 22
        crowd.stop()
        assert not crowd.errors
