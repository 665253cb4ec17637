"""LISTEN in transaction mode: one server connection listens for all clients of a pool, and each hears what it would on its own."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import asyncpg
import psycopg
import pytest

from tests.e2e.postgres_raw import SYNC, Raw, bind, error_of, execute, kinds, parse, query
from tests.e2e.postgres_world import DEADLINE, Client, Row, RunWorld, World, in_thread, wait_for, wait_until, world
from tests.helpers.servers import PostgresServer, Servers

ADMIN: Final = '[admin]\nusers = ["app"]\n'
SHARED: Final = "query LIKE 'LISTEN \"%'"
"""What the connection that listens has run last."""


@pytest.fixture(scope="module")
def each(postgres_server: PostgresServer) -> Iterator[World]:
    """Three server connections, and one that listens, in front of each PostgreSQL in turn."""
    with world(postgres_server, more=ADMIN) as made:
        yield made


@pytest.fixture
def one(servers: Servers, run_world: RunWorld) -> World:
    """The same for one test alone."""
    return run_world(servers.postgres(15), more=ADMIN)


def console(world: World, command: str) -> list[Row]:
    """Run a command on the admin console."""
    url = world.pooler.url("app:app", "pgbouncer")
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as admin:
        cursor = admin.execute(command)
        return cursor.fetchall() if cursor.description else []


def channels(world: World) -> list[tuple[Any, ...]]:
    """Who listens to what: channel and client."""
    return [(channel, client) for _, _, channel, client, _, _ in console(world, "SHOW CHANNELS")]


def heard(client: Client, count: int = 1) -> list[tuple[str, str]]:
    """The next notifications: channel and payload."""
    found = [(notify.channel, notify.payload) for notify in client.notifies(timeout=DEADLINE, stop_after=count)]
    assert len(found) == count, found
    return found


def hears_nothing_but(client: Client, world: World, channel: str, expected: list[str]) -> None:
    """What has been notified until now, and nothing else, has come."""
    world.execute(f"NOTIFY \"{channel}\", 'the last'")
    found = []
    for notify in client.notifies(timeout=DEADLINE):
        found.append(notify.payload)
        if notify.payload == "the last":
            break
    assert found == [*expected, "the last"]


def test_one_connection_listens_for_fifty_clients(each: World) -> None:
    with contextlib.ExitStack() as clients:
        listeners = [clients.enter_context(each.connect()) for _ in range(50)]
        for number, client in enumerate(listeners):
            client.execute("LISTEN everybody")
            client.execute(f"LISTEN channel_{number}")
        assert len(each.server_connections()) <= 4
        assert len(channels(each)) == 100
        each.execute("NOTIFY everybody, 'hello'")
        for number in range(50):
            each.execute(f"NOTIFY channel_{number}, 'number {number}'")
        for number, client in enumerate(listeners):
            assert heard(client, 2) == [("everybody", "hello"), (f"channel_{number}", f"number {number}")]
        assert console(each, "SHOW PINS") == []
        rows = [row for row in console(each, "SHOW POOLS") if row[0] == "app"]
        assert [(row[1], row[6]) for row in rows] == [("app", 0), ("app (listen)", 1)]
    wait_until(lambda: console(each, "SHOW CHANNELS") == [], "nobody listens")
    wait_until(lambda: len([row for row in console(each, "SHOW POOLS") if row[0] == "app"]) == 1, "the connection is gone")


def test_names_are_folded_as_the_server_folds_them(each: World) -> None:
    with each.connect() as client:
        client.execute("/* LISTEN to */ listen NeWs ; -- so")
        client.execute('LISTEN "NeWs ""é"""')
        each.execute("SELECT pg_notify('news', 'folded')")
        each.execute("SELECT pg_notify('NeWs', 'nobody'), pg_notify('NeWs \"é\"', 'ü')")
        assert heard(client, 2) == [("news", "folded"), ('NeWs "é"', "ü")]
        with pytest.raises(psycopg.errors.SyntaxError):
            client.execute("LISTEN select")
        with pytest.raises(psycopg.errors.SyntaxError):
            client.execute("LISTEN a, b")
        client.execute("UNLISTEN NEWS")
        client.execute("UNLISTEN *")
        assert channels(each) == []


def test_the_transaction_decides(each: World) -> None:
    with each.connect(autocommit=False) as client:
        client.execute("LISTEN early")
        each.execute("NOTIFY early, 'before'")
        client.rollback()
        client.execute("LISTEN kept")
        client.execute("SAVEPOINT a")
        client.execute("LISTEN undone")
        client.execute("ROLLBACK TO a")
        client.commit()
        assert [channel for channel, _ in channels(each)] == ["kept"]
        for channel in ("early", "undone", "kept"):
            each.execute(f"NOTIFY {channel}, 'after'")
        assert heard(client) == [("kept", "after")]
        client.execute("UNLISTEN kept")
        client.rollback()
        hears_nothing_but(client, each, "kept", [])
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            with contextlib.suppress(psycopg.errors.DivisionByZero):
                client.execute("SELECT 1/0")
            client.execute("LISTEN never")
        client.rollback()
        client.execute("LISTEN never")
        with pytest.raises(psycopg.errors.DivisionByZero):
            client.execute("SELECT 1/0")
        client.commit()
        assert [channel for channel, _ in channels(each)] == ["kept"]


def test_discard_all_and_a_reset_query_end_it(each: World) -> None:
    for reset in ("DISCARD ALL", "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL", "UNLISTEN *"):
        with each.connect() as client:
            client.execute("LISTEN a")
            client.execute(reset)
            each.execute("NOTIFY a")
            client.execute("LISTEN b")
            hears_nothing_but(client, each, "b", [])


def test_notifications_come_between_transactions(each: World) -> None:
    with Raw(each.pooler.port("trust")) as client:
        client.log_in()
        client.ask(query("LISTEN news"))
        client.ask(query("BEGIN"))
        each.execute("NOTIFY news, 'one'")
        assert kinds(client.ask(query("SELECT 1"))) == "TDCZ"
        client.send(query("COMMIT"))
        said = client.until("A")
        assert kinds(said) in {"CA", "CZA"}
        assert said[-1][1][4:] == b"news\0one\0"


def test_a_prepared_listen_and_a_listen_among_others(each: World) -> None:
    with Raw(each.pooler.port("trust")) as client:
        client.log_in()
        client.ask(parse("listens", "LISTEN prepared") + SYNC)
        for _ in range(2):
            assert kinds(client.ask(bind("listens") + execute() + SYNC)) == "2CZ"
        assert [channel for channel, _ in channels(each)] == ["prepared"]
        assert console(each, "SHOW PINS") == []
        client.ask(query("SELECT 1; LISTEN among; SELECT 2"))
        wait_until(lambda: [row[4] for row in console(each, "SHOW PINS")] == ["listen"], "a pin")
        each.execute("NOTIFY among, 'x'")
        assert client.until("A")[-1][1][4:] == b"among\0x\0"
        client.ask(query("UNLISTEN *"))
        wait_until(lambda: console(each, "SHOW PINS") == [], "no pin")


async def asyncpg_talks(url: str, other: str) -> list[tuple[str, str]]:
    """asyncpg's listeners: what they have heard."""
    news: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    client = await asyncpg.connect(url)
    sender = await asyncpg.connect(other)
    try:

        def hear(_: object, __: int, channel: str, payload: str) -> None:
            news.put_nowait((channel, payload))

        await client.add_listener("news", hear)
        await client.add_listener("More news", hear)
        await sender.execute("SELECT pg_notify('news', '1')")
        async with client.transaction():
            await sender.execute("SELECT pg_notify('More news', '2')")
            assert await client.fetchval("SELECT 3") == 3
        found = [await asyncio.wait_for(news.get(), DEADLINE) for _ in range(2)]
        await client.remove_listener("news", hear)
        await sender.execute("SELECT pg_notify('news', 'unheard')")
        await sender.execute("SELECT pg_notify('More news', '4')")
        return [*found, await asyncio.wait_for(news.get(), DEADLINE)]
    finally:
        await client.close()
        await sender.close()


def test_asyncpg(each: World) -> None:
    expected = [("news", "1"), ("More news", "2"), ("More news", "4")]
    assert asyncio.run(asyncpg_talks(each.url(), each.url())) == expected
    assert console(each, "SHOW PINS") == []


def test_nothing_is_lost_under_load(each: World) -> None:
    count = 300

    def notify() -> None:
        with each.connect() as sender:
            for number in range(count):
                sender.execute("SELECT pg_notify('load', %s)", [str(number)])

    with contextlib.ExitStack() as clients:
        listeners = [clients.enter_context(each.connect()) for _ in range(5)]
        for client in listeners:
            client.execute("LISTEN load")
        work = in_thread(notify)
        found: dict[Client, list[str]] = {client: [] for client in listeners}

        def hear() -> bool:
            for client, payloads in found.items():
                # Notifications arrive with the answers of transactions, and between them.
                with client.transaction():
                    client.execute("SELECT 1")
                payloads += [notify.payload for notify in client.notifies(timeout=0.01)]
            return all(len(payloads) >= count for payloads in found.values())

        wait_until(hear, "all notifications", 3 * DEADLINE)
        work.result()
        for payloads in found.values():
            assert payloads == [str(number) for number in range(count)]


def test_a_killed_connection_comes_back(one: World) -> None:
    with one.connect() as client, one.connect() as other:
        client.execute("LISTEN a")
        other.execute("LISTEN b")
        (process_id,) = one.server_connections(SHARED)
        one.execute(f"SELECT pg_terminate_backend({process_id})")
        one.pooler.wait_for_log("no connection listens for 2 clients")
        wait_until(lambda: [row[4] > 0 for row in console(one, "SHOW CHANNELS")] == [True, True], "both are listened to again")
        one.execute("NOTIFY a, 'again'")
        one.execute("NOTIFY b, 'again'")
        assert heard(client) == [("a", "again")]
        assert heard(other) == [("b", "again")]


@pytest.mark.parametrize("order", ["RECONNECT", "RELOAD", "PAUSE"])
def test_orders_of_the_console(one: World, order: str) -> None:
    with one.connect() as client:
        client.execute("LISTEN a")
        before = one.server_connections(SHARED)
        if order == "RELOAD":
            assert one.pooler.toml is not None
            one.pooler.write_config(one.pooler.toml.replace("pool_size = 3", "pool_size = 2"))
        console(one, order)
        if order == "PAUSE":
            wait_until(lambda: one.server_connections() == [], "no server connection")
            console(one, "RESUME")
        if order != "RELOAD":
            wait_until(lambda: one.server_connections(SHARED) not in ([], before), "another connection")
        wait_until(lambda: [row[4] > 0 for row in console(one, "SHOW CHANNELS")] == [True], "it is listened to again")
        if order == "RELOAD":
            assert one.server_connections(SHARED) == before
        one.execute("NOTIFY a, 'x'")
        assert heard(client) == [("a", "x")]


def test_a_reload_that_takes_listeners_to_another_backend(one: World) -> None:
    toml = one.pooler.toml
    assert toml is not None
    both = toml + toml[toml.index("[backends.main]") : toml.index("[databases.app]")].replace("[backends.main]", "[backends.other]")
    with one.connect() as client:
        client.execute("LISTEN a")
        for name in ("other", "main", "other"):
            one.pooler.write_config(both.replace('backend = "main"', f'backend = "{name}"'))
            console(one, "RELOAD")
            # Every moment of it is seen: the old pool and what listens for it go one after the other.
            wait_until(partial(listens_at, one, name), "it is heard there")
            one.execute(f"NOTIFY a, '{name}'")
            assert heard(client) == [("a", name)]


def listens_at(world: World, backend: str) -> bool:
    """Does a shared connection to this backend, and to no other, listen for the one client?"""
    in_use = {row[0] for row in console(world, "SHOW BACKENDS") if row[9]}
    are_heard = [row[4] > 0 for row in console(world, "SHOW CHANNELS")]
    return in_use == {backend} and are_heard == [True]


def test_a_slow_listener_is_ended_and_nobody_else_is(servers: Servers, run_world: RunWorld) -> None:
    one = run_world(servers.postgres(15), more="[limits]\nclient_buffer_bytes = 4096")
    with one.connect() as quick, one.connect() as slow:
        quick.execute("LISTEN a")
        slow.execute("LISTEN a")
        slow.execute("BEGIN")
        for number in range(40):
            one.execute(f"NOTIFY a, '{number}{'x' * 1000}'")
        assert len(heard(quick, 40)) == 40
        with pytest.raises(psycopg.OperationalError, match="bytes of notifications wait"):
            slow.execute("SELECT 1")


@pytest.mark.parametrize("policy", ["pin", "error"])
def test_other_policies(servers: Servers, run_world: RunWorld, policy: str) -> None:
    more = f"{ADMIN}"
    one = run_world(servers.postgres(15), more=more)
    assert one.pooler.toml is not None
    one.pooler.write_config(one.pooler.toml.replace("pool_size = 3", f'pool_size = 3\nlisten = "{policy}"'))
    console(one, "RELOAD")
    with one.connect() as client, Raw(one.pooler.port("trust")) as raw:
        raw.log_in()
        if policy == "pin":
            client.execute("LISTEN a")
            wait_until(lambda: [row[4] for row in console(one, "SHOW PINS")] == ["listen"], "a pin")
            one.execute("NOTIFY a, 'x'")
            assert heard(client) == [("a", "x")]
            assert channels(one) == []
            return
        for _ in range(2):
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="LISTEN is not allowed"):
                client.execute("LISTEN a")
        answers = raw.ask(parse("", "LISTEN a") + bind("") + execute() + SYNC)
        assert kinds(answers) == "12EZ"
        assert error_of(answers)["C"] == "0A000"
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_session_mode_is_as_it_was(each: World) -> None:
    with each.connect("session") as client:
        client.execute("LISTEN mine")
        assert client.execute("SELECT pg_listening_channels()").fetchall() == [("mine",)]
        each.execute("NOTIFY mine, 'x'")
        assert heard(client) == [("mine", "x")]
        assert channels(each) == []


def test_with_one_connection_in_the_budget_the_client_listens_itself(servers: Servers, run_world: RunWorld) -> None:
    one = run_world(servers.postgres(15), more=ADMIN)
    assert one.pooler.toml is not None
    one.pooler.write_config(
        re.sub(r"(\[backends.main\])", r"\1\nbudget = 1\nreserved_maintenance = 0", one.pooler.toml).replace(
            "pool_size = 3", "pool_size = 1"
        )
    )
    console(one, "RELOAD")
    with one.connect() as client:
        client.execute("BEGIN")
        client.execute("LISTEN a")
        client.execute("COMMIT")
        one.execute("NOTIFY a, 'x'")
        assert heard(client) == [("a", "x")]
        assert wait_for(lambda: [row[4] for row in console(one, "SHOW PINS")], bool, "a pin") == ["listen"]
