"""Clients that vanish: their server connection is cleaned up or closed, whatever they were doing, and nobody else notices."""

import pytest

from dualpool.postgres import wire
from tests.e2e.postgres_raw import FLUSH, SYNC, TERMINATE, Raw, bind, execute, kinds, parse, query
from tests.e2e.postgres_world import RunWorld, World, in_thread, wait_until
from tests.helpers.servers import PostgresServer, Servers


@pytest.fixture(scope="module")
def world(each_postgres: World) -> World:
    each_postgres.execute("CREATE TABLE vanishing (n int)")
    each_postgres.execute("GRANT ALL ON vanishing TO app")
    return each_postgres


COPY = "COPY vanishing FROM STDIN"
ROWS = wire.message(wire.COPY_DATA, b"1\n2\n3\n")
SLEEP = "SELECT pg_sleep(600), 'left alone'"


def in_query(client: Raw, world: World) -> None:
    client.send(query(SLEEP))
    world.wait_until_running("left alone")


def in_extended_query(client: Raw, world: World) -> None:
    client.send(parse("x", SLEEP), bind("x"), execute(), SYNC)
    world.wait_until_running("left alone")


def in_query_without_sync(client: Raw, world: World) -> None:
    client.send(parse("y", SLEEP), bind("y"), execute(), FLUSH)
    world.wait_until_running("left alone")


def in_transaction(client: Raw, world: World) -> None:
    client.ask(query("BEGIN; INSERT INTO vanishing VALUES (1); SET application_name = 'not to be kept'"))


def in_failed_transaction(client: Raw, world: World) -> None:
    client.ask(query("BEGIN"))
    client.ask(query("SELECT 1/0"))


def in_query_of_transaction(client: Raw, world: World) -> None:
    client.ask(query("BEGIN; INSERT INTO vanishing VALUES (1)"))
    in_query(client, world)


def in_pipeline(client: Raw, world: World) -> None:
    client.send(*(parse("", f"SELECT {n}") + bind("") + execute() + SYNC for n in range(20)), query(SLEEP), query("SELECT 1"))
    world.wait_until_running("left alone")


def in_pipeline_without_sync(client: Raw, world: World) -> None:
    client.send(parse("", "INSERT INTO vanishing VALUES (1)"), bind(""), execute(), FLUSH)
    client.until("C")


def in_copy_in(client: Raw, world: World) -> None:
    client.send(query(COPY))
    client.until("G")
    client.send(ROWS)


def in_extended_copy_in(client: Raw, world: World) -> None:
    client.send(parse("", COPY), bind(""), execute(), SYNC)
    client.until("G")
    client.send(ROWS)


def in_copy_in_without_sync(client: Raw, world: World) -> None:
    client.send(parse("", COPY), bind(""), execute(), FLUSH)
    client.until("G")
    client.send(ROWS)


def in_long_copy_message(client: Raw, world: World) -> None:
    client.send(query(COPY))
    client.until("G")
    client.send(wire.HEADER.pack(wire.COPY_DATA, 1 << 24), b"1\n" * 1000)


def in_copy_out(client: Raw, world: World) -> None:
    client.send(query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"))
    client.until("H")


def in_big_result(client: Raw, world: World) -> None:
    client.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"))
    client.until("D")


def in_half_a_message(client: Raw, world: World) -> None:
    client.send(query("SELECT 1")[:-3])


def in_half_a_message_of_a_transaction(client: Raw, world: World) -> None:
    client.ask(query("BEGIN; INSERT INTO vanishing VALUES (1)"))
    client.send(query("SELECT 1")[:-3])


def in_half_a_long_message(client: Raw, world: World) -> None:
    client.send(wire.HEADER.pack(wire.QUERY, 1 << 24), b" " * 300_000)


def between_queries(client: Raw, world: World) -> None:
    client.ask(query("SELECT 1"))


SITUATIONS = [
    in_query, in_extended_query, in_query_without_sync, in_transaction, in_failed_transaction, in_query_of_transaction, in_pipeline,
    in_pipeline_without_sync, in_copy_in, in_extended_copy_in, in_copy_in_without_sync, in_long_copy_message, in_copy_out, in_big_result,
    in_half_a_message, in_half_a_message_of_a_transaction, in_half_a_long_message, between_queries,
]  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("listener", ["trust", "session-trust"])
def test_a_client_vanishes(world: World, situation, listener: str) -> None:  # type: ignore[no-untyped-def]
    client = Raw(world.pooler.port(listener)).log_in()
    situation(client, world)
    client.vanish()
    world.wait_until_rested()
    world.wait_for_server_connections(3)
    assert world.execute("SELECT count(*) FROM vanishing") == [(0,)]
    with world.connect(autocommit=False) as one, world.connect(autocommit=False) as two, world.connect(autocommit=False) as three:
        for other in (one, two, three):
            assert other.execute("SELECT 'unharmed', current_setting('application_name')").fetchone() == ("unharmed", "")
            assert other.execute("SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE 'dualpool%'").fetchone() == (0,)
    world.wait_for_server_connections(3)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_client_vanishes_while_others_wait_for_its_only_server_connection(scarce: World, situation) -> None:  # type: ignore[no-untyped-def]
    client = Raw(scarce.pooler.port("trust")).log_in()
    others = [Raw(scarce.pooler.port("trust")).log_in() for _ in range(4)]
    situation(client, scarce)
    for number, other in enumerate(others):
        other.send(query("BEGIN"), query(f"SELECT {number}, pg_sleep(0.002)"), query("COMMIT"))
        other.send(parse("", f"SELECT {number}"), bind(""), execute(), SYNC)
    client.vanish()
    for other in others:
        assert [kinds(other.until_ready()) for _ in range(4)] == ["CZ", "TDCZ", "CZ", "12DCZ"]
        other.send(TERMINATE)
        other.sock.close()
    scarce.wait_for_server_connections(1)


@pytest.fixture(scope="module")
def scarce(servers: Servers, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    from tests.e2e.postgres_world import world

    with world(servers.postgres(15), 1) as made:
        made.execute("CREATE TABLE vanishing (n int)")
        made.execute("GRANT ALL ON vanishing TO app")
        yield made


def test_what_was_asked_before_a_goodbye_is_still_done(world: World) -> None:
    world.execute("CREATE TABLE IF NOT EXISTS goodbyes (n int)")
    world.execute("GRANT ALL ON goodbyes TO app")
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.send(query("INSERT INTO goodbyes SELECT 1 FROM pg_sleep(0.05)"), TERMINATE)
        client.until_closed()
    wait_until(lambda: world.execute("SELECT count(*) FROM goodbyes") == [(1,)], "the row")
    world.execute("DROP TABLE goodbyes")


def test_clients_that_vanish_by_the_dozen(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    world = run_world(postgres_server, 2)
    world.execute("CREATE TABLE vanishing (n int)")
    world.execute("GRANT ALL ON vanishing TO app")
    stays = Raw(world.pooler.port("trust")).log_in()
    for number in range(60):
        client = Raw(world.pooler.port("trust")).log_in()
        client.send(query("BEGIN; INSERT INTO vanishing VALUES (1)"), query("SELECT pg_sleep(600)") if number % 2 else b"")
        if number % 3:
            client.message()
        client.vanish()
        if number % 5 == 0:
            assert stays.value(query(f"SELECT {number}")) == str(number)
    assert stays.value(query("SELECT 'stays'")) == "stays"
    world.wait_until_rested()
    world.wait_for_server_connections(2)
    assert world.execute("SELECT count(*) FROM vanishing") == [(0,)]


def test_clients_that_vanish_while_they_wait(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1)
    with Raw(world.pooler.port("trust")).log_in() as holder, Raw(world.pooler.port("trust")).log_in() as last:
        holder.ask(query("BEGIN"))
        for _ in range(10):
            waiter = Raw(world.pooler.port("trust")).log_in()
            waiter.send(query("SELECT 'never'"))
            waiter.vanish()
        waiting = in_thread(lambda: last.value(query("SELECT 'last'")))
        holder.ask(query("COMMIT"))
        assert waiting.result() == "last"
