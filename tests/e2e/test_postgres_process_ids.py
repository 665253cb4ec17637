"""The process id that a client is told at login works where others name it."""

import psycopg
import pytest
from psycopg.types.numeric import Int4

from tests.e2e.postgres_world import RunWorld, World, in_thread, wait_until
from tests.helpers.servers import Servers


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


@pytest.mark.parametrize("listener", ["postgres", "session"])
@pytest.mark.parametrize("text", ["SELECT pg_cancel_backend({})", 'select pg_catalog . "pg_cancel_backend" ( {} ) ;'])
def test_a_query_is_canceled(world: World, listener: str, text: str) -> None:
    with world.connect(listener) as victim, world.connect(listener) as other:
        running = in_thread(lambda: victim.execute("SELECT pg_sleep(100)"))
        world.wait_until_running("pg_sleep(100)")
        cursor = other.execute(text.format(victim.info.backend_pid))
        assert cursor.description is not None
        assert (cursor.description[0].name, cursor.fetchone()) == ("pg_cancel_backend", (True,))
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result()
        assert victim.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("prepare", [False, True])
def test_a_query_is_canceled_by_a_parameter(world: World, prepare: bool, binary: bool) -> None:
    with world.connect() as victim, world.connect() as other:
        for _ in range(2):
            running = in_thread(lambda: victim.execute("SELECT pg_sleep(100)"))
            world.wait_until_running("pg_sleep(100)")
            text = f"SELECT pg_cancel_backend(%{'b' if binary else 's'}::int)"
            cursor = other.execute(text, [Int4(victim.info.backend_pid)], prepare=prepare)
            assert cursor.description is not None
            assert (cursor.description[0].name, cursor.fetchone()) == ("pg_cancel_backend", (True,))
            with pytest.raises(psycopg.errors.QueryCanceled):
                running.result()
        assert other.execute("SELECT pg_cancel_backend(%s)", [2_000_000_000], prepare=prepare).fetchone() == (False,)


def test_a_client_is_ended(world: World) -> None:
    with world.connect() as victim, world.connect() as other:
        victim.execute("BEGIN")
        assert other.execute(f"SELECT pg_terminate_backend({victim.info.backend_pid})").fetchone() == (True,)
        with pytest.raises(psycopg.OperationalError):
            victim.execute("SELECT 1")
        assert other.execute("SELECT 2").fetchone() == (2,)


def test_inside_a_transaction_and_of_nobody(world: World) -> None:
    with world.connect() as other, other.transaction():
        other.execute("SELECT 1")
        assert other.execute("SELECT pg_cancel_backend(2000000000)").fetchone() == (False,)
        assert other.execute("SELECT 2").fetchone() == (2,)


def test_the_sender_of_a_notification(run_world: RunWorld, servers: Servers) -> None:
    """Nobody else has had the server connection lately."""
    with run_world(servers.postgres(15)).connect() as client:
        senders: list[int] = []
        client.add_notify_handler(lambda notice: senders.append(notice.pid))
        client.execute("LISTEN news")
        client.execute("NOTIFY news, 'x'")

        def heard() -> bool:
            client.execute("SELECT 1")
            return bool(senders)

        wait_until(heard, "the notification")
        assert senders == [client.info.backend_pid]
