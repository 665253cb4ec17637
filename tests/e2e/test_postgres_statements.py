"""Prepared statements in transaction mode: whatever server connection runs them, each client has its own, and only its own."""

import psycopg
import pytest

from dualpool.postgres import wire
from tests.e2e.postgres_raw import (
    SYNC,
    Raw,
    bind,
    close_statement,
    describe_statement,
    error_of,
    execute,
    first_column,
    kinds,
    parse,
    query,
)
from tests.e2e.postgres_world import RunWorld, World
from tests.helpers.servers import PostgresServer, Servers


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


def occupy(world: World, count: int = 1) -> list[Raw]:
    """Clients that hold a server connection each, so that others must be served by another one than before."""
    clients = [Raw(world.pooler.port("trust")).log_in() for _ in range(count)]
    for client in clients:
        client.ask(query("BEGIN"))
    return clients


def release(clients: list[Raw]) -> None:
    for client in clients:
        client.ask(query("COMMIT"))
        client.sock.close()


COUNT = "CREATE OR REPLACE FUNCTION count_prepared() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM pg_prepared_statements'"
"""(A text that names the view itself is shown its own client's statements only.)"""


@pytest.mark.parametrize("listener", ["trust", "session"])
def test_the_same_name_means_another_text_to_each_client(world: World, listener: str) -> None:
    if listener == "session":
        clients = [world.connect("session", prepare_threshold=0) for _ in range(3)]
        for _ in range(3):
            for number, client in enumerate(clients):
                assert client.execute(f"SELECT {number}, %s::int", [number]).fetchone() == (number, number)
        for client in clients:
            client.close()
        return
    with Raw(world.pooler.port("trust")).log_in() as one, Raw(world.pooler.port("trust")).log_in() as two:
        one.ask(parse("s", "SELECT 'one' || $1"), SYNC)
        two.ask(parse("s", "SELECT 'two' || $1"), SYNC)
        for number in range(4):
            held = occupy(world, number % 3)
            assert one.value(bind("s", str(number)), execute(), SYNC) == f"one{number}"
            assert two.value(bind("s", str(number)), execute(), SYNC) == f"two{number}"
            release(held)


def test_twenty_clients_prepare_hundreds_of_texts_under_the_same_names(world: World) -> None:
    clients = [world.connect(prepare_threshold=0) for _ in range(20)]
    for _ in range(3):
        for who, client in enumerate(clients):
            for text in range(5):
                cursor = client.execute(f"SELECT {who}, {text}, %s::int", [who * text])
                assert cursor.fetchone() == (who, text, who * text)
    for client in clients:
        client.close()


def test_a_text_is_shared_on_the_server(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    world = run_world(postgres_server, pool_size=1)
    for _ in range(5):
        with world.connect(prepare_threshold=0) as client:
            client.execute("SELECT 'shared', %s::int", [1])
    world.execute(COUNT)
    with world.connect(prepare_threshold=None) as client:
        found = client.execute("SELECT count_prepared()").fetchone()
        assert found == (2,)  # the newest, and the one before it, which is closed with the next Parse


def test_a_server_connection_keeps_at_most_statements_per_server(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    world = run_world(postgres_server, 1, "[limits]\nstatements_per_server = 4")
    with world.connect(prepare_threshold=0) as one, world.connect(prepare_threshold=0) as two:
        for _ in range(3):
            for text in range(10):
                assert one.execute(f"SELECT {text}, %s::int", [text]).fetchone() == (text, text)
                assert two.execute(f"SELECT 'b{text}', %s::int", [text]).fetchone() == (f"b{text}", text)
        world.execute(COUNT)
        two.prepare_threshold = None
        found = two.execute("SELECT count_prepared()").fetchone()
        assert found is not None
        assert found[0] <= 4 + 2  # and those that are closed with the next Parse


def test_more_statements_in_one_pipeline_than_a_server_connection_keeps(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1, "[limits]\nstatements_per_server = 2")
    with Raw(world.pooler.port("trust")).log_in() as client:
        for _ in range(2):
            answer = client.ask(*(parse(f"p{n}", f"SELECT {n}") + bind(f"p{n}") + execute() for n in range(6)), SYNC)
            assert kinds(answer) == "12DC" * 6 + "Z"
            assert [first_column(payload) for kind, payload in answer if kind == "D"] == [str(n) for n in range(6)]
            answer = client.ask(*(bind(f"p{n}") + execute() for n in range(6)), *(close_statement(f"p{n}") for n in range(6)), SYNC)
            assert kinds(answer) == "2DC" * 6 + "3" * 6 + "Z"


def test_a_client_may_hold_only_so_many(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1, "[limits]\nstatements_per_client = 3")
    with Raw(world.pooler.port("trust")).log_in() as client:
        for number in range(3):
            client.ask(parse(f"s{number}", f"SELECT {number}"), SYNC)
        client.send(parse("s3", "SELECT 3"), SYNC)
        error = error_of(client.until_closed())
        assert (error["C"], "statements_per_client" in error["H"]) == ("54000", True)
    world.assert_unharmed()


def test_a_name_that_is_taken_and_a_name_that_is_not_there(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client, Raw(world.pooler.port("trust")).log_in() as other:
        client.ask(parse("s", "SELECT 1"), SYNC)
        error = error_of(client.ask(parse("s", "SELECT 2"), SYNC))
        assert (error["C"], error["M"]) == ("42P05", 'prepared statement "s" already exists')
        assert client.value(bind("s"), execute(), SYNC) == "1"
        error = error_of(other.ask(bind("s"), execute(), SYNC))
        assert (error["C"], error["M"]) == ("26000", 'prepared statement "s" does not exist')
        error = error_of(other.ask(describe_statement("s"), SYNC))
        assert error["C"] == "26000"
        # A server's name for it is nobody's.
        error = error_of(other.ask(bind("dualpool_1"), execute(), SYNC))
        assert error["C"] == "26000"
        assert kinds(client.ask(close_statement("s"), SYNC)) == "3Z"
        assert error_of(client.ask(bind("s"), execute(), SYNC))["C"] == "26000"


def test_a_text_that_does_not_parse_leaves_no_statement(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        for _ in range(2):
            assert error_of(client.ask(parse("bad", "SELEC 1"), bind("bad"), execute(), SYNC))["C"] == "42601"
        assert error_of(client.ask(bind("bad"), execute(), SYNC))["C"] == "26000"
        assert client.value(parse("bad", "SELECT 'good'"), bind("bad"), execute(), SYNC) == "good"


def test_what_a_pipeline_skips_after_an_error_is_not_prepared_and_not_closed(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(parse("kept", "SELECT 'kept'"), SYNC)
        answer = client.ask(
            *(parse("a", "SELECT 1"), bind("a"), execute()),
            *(parse("b", "SELECT 1/0"), bind("b"), execute()),
            *(parse("c", "SELECT 3"), bind("c"), execute(), close_statement("kept")),
            SYNC,
        )
        assert (kinds(answer), error_of(answer)["C"]) == ("12DC1EZ", "22012")
        assert client.value(bind("a"), execute(), SYNC) == "1"
        assert error_of(client.ask(bind("b"), execute(), SYNC))["C"] == "22012"
        assert error_of(client.ask(bind("c"), execute(), SYNC))["C"] == "26000"
        assert client.value(bind("kept"), execute(), SYNC) == "kept"


def test_pipelines_with_many_syncs_and_errors_between(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        segments = [parse("", f"SELECT 10/{n % 3}") + bind("") + execute() + SYNC for n in range(30)]
        client.send(*segments)
        for number in range(30):
            answer = client.until_ready()
            if number % 3:
                assert (kinds(answer), first_column(dict(answer)["D"])) == ("12DCZ", str(10 // (number % 3)))
            else:
                assert error_of(answer)["C"] == "22012"


def test_psycopg_pipeline_with_an_error_in_the_middle(world: World, listener: str) -> None:
    with world.connect(listener, prepare_threshold=0) as client:
        for _ in range(3):
            before, failing, after = client.cursor(), client.cursor(), client.cursor()
            with client.pipeline() as pipeline:
                before.execute("SELECT %s::int", [1])
                pipeline.sync()
                with pytest.raises(psycopg.errors.DivisionByZero):
                    failing.execute("SELECT 1/%s::int", [0])
                    pipeline.sync()
                after.execute("SELECT %s::int", [2])
            assert before.fetchone() == (1,)
            assert after.fetchone() == (2,)
            assert client.execute("SELECT %s::text", ["well"]).fetchone() == ("well",)


@pytest.mark.parametrize("how", ["DEALLOCATE ALL", "DISCARD ALL", "deallocate prepare all ;"])
def test_deallocate_all_and_discard_all_concern_only_that_client(world: World, how: str) -> None:
    with Raw(world.pooler.port("trust")).log_in() as one, Raw(world.pooler.port("trust")).log_in() as two:
        for client in (one, two):
            client.ask(parse("s", "SELECT 'still here'"), SYNC)
        assert kinds(one.ask(query(how))) == "CZ"
        assert error_of(one.ask(bind("s"), execute(), SYNC))["C"] == "26000"
        for count in range(3):
            held = occupy(world, count)
            assert two.value(bind("s"), execute(), SYNC) == "still here"
            release(held)
        assert one.value(parse("s", "SELECT 'again'"), bind("s"), execute(), SYNC) == "again"


def test_deallocate_of_one_statement(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as one, Raw(world.pooler.port("trust")).log_in() as two:
        for client in (one, two):
            client.ask(parse("s", "SELECT 's'"), parse('Q "x"', "SELECT 'q'"), SYNC)
        answer = one.ask(query("DEALLOCATE s"))
        assert (kinds(answer), answer[0][1]) == ("CZ", b"DEALLOCATE\0")
        assert error_of(one.ask(bind("s"), execute(), SYNC))["C"] == "26000"
        assert error_of(one.ask(query("DEALLOCATE s")))["C"] == "26000"
        answer = one.ask(parse("", 'DEALLOCATE "Q ""x"""'), bind(""), execute(), SYNC)
        assert kinds(answer) == "12CZ"
        assert error_of(one.ask(bind('Q "x"'), execute(), SYNC))["C"] == "26000"
        assert two.value(bind("s"), execute(), SYNC) == "s"
        assert two.value(bind('Q "x"'), execute(), SYNC) == "q"


def test_psycopg_deallocates(world: World) -> None:
    with world.connect(prepare_threshold=0) as client:
        client.prepared_max = 2
        for text in range(6):
            assert client.execute(f"SELECT {text}, %s::int", [text]).fetchone() == (text, text)
        client.execute("DEALLOCATE ALL")
        assert client.execute("SELECT 1, %s::int", [1]).fetchone() == (1, 1)


def test_the_unnamed_statement_survives_between_batches_and_on_another_server_connection(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client, Raw(world.pooler.port("trust")).log_in() as other:
        client.ask(parse("", "SELECT 'mine' || $1"), SYNC)
        other.ask(parse("", "SELECT 'theirs' || $1"), SYNC)
        for count in (0, 1, 2, 0):
            held = occupy(world, count)
            assert client.value(bind("", "!"), execute(), SYNC) == "mine!"
            assert other.value(bind("", "!"), execute(), SYNC) == "theirs!"
            assert kinds(client.ask(describe_statement(""), SYNC)) == "tTZ"
            release(held)
        # A simple Query destroys it (docs: Extended Query), and nobody inherits another's.
        client.ask(query("SELECT 1"))
        assert error_of(client.ask(bind("", "!"), execute(), SYNC))["C"] == "26000"
        with Raw(world.pooler.port("trust")).log_in() as third:
            assert error_of(third.ask(bind("", "!"), execute(), SYNC))["C"] == "26000"


def test_a_portal_lives_as_long_as_its_transaction(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(query("BEGIN"))
        client.ask(parse("gen", "SELECT * FROM generate_series(1, 5)"), bind("gen", portal="p"), execute("p", 2), SYNC)
        assert kinds(client.ask(execute("p", 2), SYNC)) == "DDsZ"
        assert kinds(client.ask(execute("p", 2), SYNC)) == "DCZ"
        client.ask(query("COMMIT"))
        assert error_of(client.ask(execute("p", 2), SYNC))["C"] == "34000"


def test_a_plan_that_a_changed_table_has_made_stale_is_made_anew(world: World) -> None:
    world.execute("CREATE TABLE IF NOT EXISTS shifting (id int)")
    world.execute("GRANT ALL ON shifting TO app")
    world.execute("TRUNCATE shifting")
    world.execute("INSERT INTO shifting VALUES (1)")
    with world.connect(prepare_threshold=0) as one, world.connect(prepare_threshold=0) as two:
        for client in (one, two):
            for _ in range(2):
                client.execute("SELECT * FROM shifting WHERE id = %s", [1])
        world.execute("ALTER TABLE shifting ADD COLUMN extra text DEFAULT 'new'")
        for client in (one, two):
            assert client.execute("SELECT * FROM shifting WHERE id = %s", [1]).fetchone() == (1, "new")
            assert client.execute("SELECT * FROM shifting WHERE id = %s", [1]).fetchone() == (1, "new")
        world.execute("ALTER TABLE shifting DROP COLUMN extra")
        for client in (one, two):
            assert client.execute("SELECT * FROM shifting WHERE id = %s", [1]).fetchone() == (1,)


def test_a_stale_plan_inside_a_transaction_is_told_to_the_client(world: World) -> None:
    world.execute("CREATE TABLE IF NOT EXISTS moving (id int)")
    world.execute("GRANT ALL ON moving TO app")
    with world.connect(prepare_threshold=0) as client:
        client.execute("SELECT * FROM moving WHERE id = %s", [1])
        client.execute("BEGIN")
        client.execute("SELECT 1")
        world.execute("ALTER TABLE moving ADD COLUMN extra text")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan"):
            client.execute("SELECT * FROM moving WHERE id = %s", [1])
        client.execute("ROLLBACK")
        with world.connect() as other:
            assert other.execute("SELECT 1").fetchone() == (1,)


def test_deallocate_among_other_statements(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(parse("mine", "SELECT 5") + SYNC)
        assert kinds(client.ask(query("SELECT 1; DEALLOCATE mine; SELECT 2"))) == "TDCCTDCZ"
        answer = client.ask(bind("mine") + execute() + SYNC)
        assert error_of(answer)["C"] == "26000"
        client.ask(parse("mine", "SELECT 5") + SYNC)
        client.ask(query("SELECT 1/0; DEALLOCATE mine"))
        assert client.value(bind("mine") + execute() + SYNC) == "5"


READINGS = {
    "TimeZone": (
        "'UTC'",
        "'Asia/Tokyo'",
        "SELECT extract(epoch FROM '2024-01-01 00:00'::timestamptz)::int::text",
        ("1704067200", "1704034800"),
    ),
    "DateStyle": ("'ISO,MDY'", "'ISO,DMY'", "SELECT extract(month FROM '01/02/2024'::date)::text", ("1", "2")),
    "standard_conforming_strings": ("on", "off", "SELECT length('a\\nb')::text", ("4", "3")),
    "array_nulls": ("on", "off", "SELECT ('{NULL}'::text[])[1] IS NULL", ("t", "f")),
}


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("local", [False, True])
def test_the_constants_in_a_shared_text_are_read_by_the_settings_of_each_client(
    run_world: RunWorld, postgres_server: PostgresServer, name: str, local: bool
) -> None:
    first, second, text, expected = READINGS[name]
    world = run_world(postgres_server, pool_size=1)
    port = world.pooler.port("trust")
    with Raw(port).log_in() as one, Raw(port).log_in() as two, Raw(port).log_in() as three:
        found = []
        for client, value in ((one, first), (two, second)):
            if local:
                client.ask(query("BEGIN"))
                client.ask(parse("", f"SET LOCAL {name} = {value}"), bind(""), execute(), parse("s", text), SYNC)
            else:
                client.ask(query(f"SET {name} = {value}"))
                client.ask(parse("s", text), SYNC)
            found.append(client.value(bind("s"), execute(), SYNC))
            if local:
                client.ask(query("COMMIT"))
        assert tuple(found) == expected
        three.ask(parse("s", text), SYNC)
        assert three.value(bind("s"), execute(), SYNC) == expected[0]
        assert [client.value(bind("s"), execute(), SYNC) for client in (one, two)] == list(expected)


def test_the_bytes_of_a_shared_text_are_read_in_the_encoding_of_each_client(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    port = run_world(postgres_server, pool_size=1).pooler.port("trust")
    text = wire.message(wire.PARSE, b"s\0SELECT ascii('\xe9')::text\0\0\0")
    with Raw(port).log_in(client_encoding="LATIN1") as one, Raw(port).log_in(client_encoding="WIN1251") as two:
        for client, expected in ((one, "233"), (two, "1081")):
            client.ask(text, SYNC)
            assert client.value(bind("s"), execute(), SYNC) == expected


def test_tables_of_another_shape_in_another_schema_do_not_spoil_a_shared_text(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    port = run_world(postgres_server, pool_size=1).pooler.port("trust")
    with Raw(port).log_in() as one, Raw(port).log_in() as two:
        one.ask(query("CREATE SCHEMA a CREATE TABLE t (id int)"))
        one.ask(query("CREATE SCHEMA b CREATE TABLE t (id text)"))
        one.ask(query("INSERT INTO a.t VALUES (1); INSERT INTO b.t VALUES ('x')"))
        for client, schema in ((one, "a"), (two, "b")):
            client.ask(query(f"SET search_path = {schema}"))
            client.ask(parse("s", "SELECT * FROM t"), SYNC)
        for client, expected in ((one, "1"), (two, "x"), (one, "1")):
            client.ask(query("BEGIN"))
            assert client.value(bind("s"), execute(), SYNC) == expected
            client.ask(query("COMMIT"))


@pytest.mark.parametrize("order", ["DEALLOCATE ALL", "DEALLOCATE PREPARE ALL", "DISCARD ALL"])
def test_what_is_prepared_behind_a_deallocate_all_in_one_pipeline(run_world: RunWorld, postgres_server: PostgresServer, order: str) -> None:
    port = run_world(postgres_server, pool_size=1).pooler.port("trust")
    with Raw(port).log_in() as one, Raw(port).log_in() as other:
        other.ask(parse("x", "SELECT 'kept'"), SYNC)
        one.send(parse("", order), bind(""), execute(), SYNC, parse("s", "SELECT 'kept'"), bind("s"), execute(), SYNC)
        assert kinds(one.until_ready()) == "12CZ"
        assert kinds(one.until_ready()) == "12DCZ"
        one.send(query(order), parse("t", "SELECT 'kept'"), bind("t"), execute(), SYNC)
        assert kinds(one.until_ready()) == "CZ"
        assert kinds(one.until_ready()) == "12DCZ"
        assert one.value(bind("t"), execute(), SYNC) == "kept"
        assert other.value(bind("x"), execute(), SYNC) == "kept"
        # It fails: everything is as it was.
        one.send(query("BEGIN"), query("SELECT nothing"), query(order), query("ROLLBACK"), bind("t"), execute(), SYNC)
        assert [kinds(one.until_ready()) for _ in range(4)] == ["CZ", "EZ", "EZ", "CZ"]
        assert kinds(one.until_ready()) == "2DCZ"


def test_an_unnamed_statement_behind_a_failed_one_in_one_pipeline(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.send(parse("", "SELECT nothing"), SYNC, parse("", "SELECT 'here'"), SYNC)
        assert [kinds(client.until_ready()) for _ in range(2)] == ["EZ", "1Z"]
        assert client.value(bind(""), execute(), SYNC) == "here"


def test_notices_of_what_the_client_did_not_ask_for(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(query("SET standard_conforming_strings = off"))
        assert "N" in [kind for kind, _ in client.ask(parse("s", r"SELECT 'a\b'"), SYNC)]
        client.ask(parse("n", "DO 'BEGIN RAISE NOTICE $$told$$; END'"), SYNC)
        client.ask(query("SET DateStyle = 'German'"))  # both are prepared again
        answer = client.ask(bind("n"), execute(), bind("s"), execute(), SYNC)
        assert kinds(answer) == "2C2DCZ"
        notices = [payload for kind, payload in answer if kind == "N"]
        assert len(notices) == 1
        assert b"told" in notices[0]


def test_a_name_with_an_escape_of_its_own(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(parse("s", "SELECT 1"), SYNC)
        assert kinds(client.ask(query("EXECUTE U&\"!0073\" UESCAPE '!'"))) == "TDCZ"
        assert kinds(client.ask(query("DEALLOCATE U&\"!0073\" UESCAPE '!'"))) == "CZ"
        assert error_of(client.ask(bind("s"), SYNC))["C"] == "26000"
