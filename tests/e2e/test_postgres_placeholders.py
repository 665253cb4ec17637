"""A custom setting that one client has made is not there for another that has not; clients that have the same ones share connections."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from tests.e2e.postgres_world import Client, World
from tests.e2e.test_postgres_settings import show_pid


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


@contextmanager
def one_connection(world: World) -> Iterator[None]:
    """All others of the pool are held by somebody."""
    with ExitStack() as holders:
        for _ in range(2):
            holders.enter_context(world.connect(autocommit=False)).execute("SELECT 1")
        yield


def read(client: Client, name: str) -> str | None:
    row = client.execute("SELECT current_setting(%s, true)", [name]).fetchone()
    assert row is not None
    found: str | None = row[0]
    return found


MAKERS = (
    ["SET {}.x = '1'"],
    ["SET {}.X TO 1", "RESET {}.x"],
    ["BEGIN", "SET LOCAL {}.x = '1'", "COMMIT"],
    ["BEGIN", "SET {}.x = '1'", "ROLLBACK"],
    ["SELECT set_config('{}.x', '1', false)"],
    ["SELECT set_config('{}.x', '1', true)"],
    ["BEGIN", "SELECT set_config('{}.x', '1', true)", "COMMIT"],
    ["SET {}.x = '1'", "DISCARD ALL"],
    ['SET "{}"."x" = \'ü\''],
)


@pytest.mark.parametrize("number", range(len(MAKERS)))
def test_what_another_client_has_made_is_not_there(world: World, number: int) -> None:
    name = f"made{number}"
    with one_connection(world):
        with world.connect() as client, world.connect() as other:
            assert read(client, f"{name}.x") is None
            for statement in MAKERS[number]:
                client.execute(statement.format(name))
            assert read(other, f"{name}.x") is None
            with pytest.raises(psycopg.errors.UndefinedObject):
                other.execute(f"SHOW {name}.x")
            assert read(client, f"{name}.x") is not None
        with world.connect() as other:
            assert read(other, f"{name}.x") is None


PUTS_TOGETHER = (
    "CREATE FUNCTION made_of(k text) RETURNS text LANGUAGE sql AS $$SELECT set_config('together.' || k, '1', true)$$",
    "CREATE FUNCTION made_of_row() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM set_config(new.name, '1', false); RETURN new; END$$",
    "CREATE TABLE together (name text)",
    "CREATE TRIGGER made_of_row BEFORE INSERT ON together FOR EACH ROW EXECUTE FUNCTION made_of_row()",
)


def test_names_that_a_function_puts_together_are_not_there(world: World) -> None:
    with one_connection(world), world.connect() as client, world.connect() as other:
        for sql in PUTS_TOGETHER:
            client.execute(sql)
        for _ in range(2):
            for statement, value, name in (("SELECT made_of(%s)", "x", "x"), ("INSERT INTO together VALUES (%s)", "together.y", "y")):
                client.execute(statement, [value])
                row = other.execute("SELECT current_setting(concat('together'::text, '.'::text, %s::text), true)", [name]).fetchone()
                assert row == (None,), statement


def test_a_name_that_a_function_resets_is_its_clients(world: World) -> None:
    with one_connection(world), world.connect() as client, world.connect() as other:
        client.execute("CREATE FUNCTION run_text(t text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE t; END$$")
        for name, text in (("ran.x", "RESET ran.x"), ("ran.ü", 'RESET "ran"."ü"'), ("ran.Y", 'SET LOCAL "ran"."Y" TO DEFAULT')):
            client.execute("SELECT run_text('" + text + "')")
            assert read(other, name) is None, text
            assert read(client, name) == "", text


@pytest.mark.parametrize("how", ["SET LOCAL shared.tenant = '{}'", "SELECT set_config('shared.tenant', '{}', true)"])
def test_clients_with_the_same_names_share_a_connection(world: World, how: str) -> None:
    with one_connection(world), world.connect() as one, world.connect() as two:
        pids = set()
        for turn in range(20):
            for client, tenant in ((one, "1"), (two, "2")):
                with client.transaction():
                    client.execute(how.format(tenant))
                    pids.add(show_pid(client))
                    assert read(client, "shared.tenant") == tenant, turn
        assert len(pids) <= 2


def test_a_client_that_begins_with_a_name_gets_the_connection_that_knows_it(world: World) -> None:
    """Each request a client of its own, as with PHP."""
    with one_connection(world):
        pids = set()
        for number in range(10):
            with world.connect(autocommit=False) as client:
                client.execute(f"SET LOCAL brief.tenant = '{number}'")
                pids.add(show_pid(client))
                assert read(client, "brief.tenant") == str(number)
            with world.connect() as client:
                client.execute(f"SELECT set_config('brief.tenant', '{number}', false)")
                pids.add(show_pid(client))
                assert read(client, "brief.tenant") == str(number)
        assert len(pids) == 1


def test_a_transaction_that_does_not_know_the_name_moves(world: World) -> None:
    with one_connection(world), world.connect() as client:
        client.execute("SET LOCAL moved.x = '1'")
        client.execute("SET moved.x = '1'")
        with world.connect(autocommit=False) as other:
            assert read(other, "moved.x") is None
            assert other.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
            other.execute("CREATE TABLE made_by_other (n int)")
            other.rollback()
        with world.connect() as other, other.transaction():
            other.execute("SELECT 1")
        assert world.execute("SELECT to_regclass('made_by_other')") == [(None,)]
        assert read(client, "moved.x") == "1"


def test_temp_buffers_can_be_set_after_another_clients_temporary_table(world: World) -> None:
    with one_connection(world):
        with world.connect() as client:
            with client.transaction():
                client.execute("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1")
            client.execute("CREATE TEMP TABLE t (n int)")
            client.execute("INSERT INTO t VALUES (1)")
            client.execute("DROP TABLE t")
        with world.connect() as other:
            other.execute("SET temp_buffers = '2MB'")
            assert other.execute("SELECT pg_my_temp_schema()").fetchone() == (0,)
            assert other.execute("SHOW temp_buffers").fetchone() == ("2MB",)


def test_settings_of_an_extension_are_reset_as_others(world: World) -> None:
    with one_connection(world), world.connect() as client, world.connect() as other:
        for one in (client, other):
            one.execute("DO $$ BEGIN END $$")
        client.execute("SET plpgsql.check_asserts = off")
        pids = {show_pid(one) for one in (client, other)}
        assert other.execute("SHOW plpgsql.check_asserts").fetchone() == ("on",)
        assert client.execute("SHOW plpgsql.check_asserts").fetchone() == ("off",)
        client.execute("RESET plpgsql.check_asserts")
        assert client.execute("SHOW plpgsql.check_asserts").fetchone() == ("on",)
        assert len(pids) == 1


@pytest.mark.parametrize("order", ["ROLE app", "DATABASE {}", "ROLE app IN DATABASE {}"])
def test_new_defaults_reach_new_clients(world: World, order: str) -> None:
    what = order.format(world.database)
    with world.connect() as client:
        client.execute("SELECT 1")
        world.execute(f"ALTER {what} SET statement_timeout = '71s'")
        world.execute(f"ALTER {what} SET timezone = 'Asia/Tokyo'")
        try:
            with world.connect() as new:
                assert new.execute("SHOW statement_timeout").fetchone() == ("71s",)
                assert new.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
                assert new.info.parameter_status("TimeZone") == "Asia/Tokyo"
        finally:
            world.execute(f"ALTER {what} RESET ALL")
        with world.connect() as new:
            assert new.execute("SHOW statement_timeout").fetchone() == ("0",)
            assert new.info.parameter_status("TimeZone") != "Asia/Tokyo"


@pytest.mark.parametrize("has_connections", [True, False])
def test_new_defaults_reach_a_login_right_behind_another(world: World, has_connections: bool) -> None:
    """The server has just been asked, for the client before; and the connection of that client may be on its way back to the pool."""
    role = f'ROLE app IN DATABASE "{world.database}"'
    try:
        for number in range(1, 9):
            before = world.connect()
            if number % 2:
                before.execute("SET work_mem = '1MB'")
            before.close()
            if not has_connections:
                for pid in world.server_connections("usename = 'app'"):
                    world.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
            world.execute(f"ALTER {role} SET statement_timeout = '{number}min'")
            world.execute(f"ALTER {role} SET timezone = 'Etc/GMT-{number}'")
            with world.connect() as new:
                assert new.info.parameter_status("TimeZone") == f"Etc/GMT-{number}"
                found = new.execute("SELECT current_setting('statement_timeout'), current_setting('timezone')").fetchone()
                assert found == (f"{number}min", f"Etc/GMT-{number}")
    finally:
        world.execute(f"ALTER {role} RESET ALL")


@pytest.mark.parametrize("listener", ["postgres", "session"])
@pytest.mark.parametrize("seed", ["SELECT setseed(0.5)", "SET SEED TO 0.5", "SELECT pg_catalog.setseed(0.5), 1"])
def test_nobody_has_the_seed_of_another_client(world: World, listener: str, seed: str) -> None:
    with psycopg.connect(world.server.url_for(database=world.database), autocommit=True) as direct:
        direct.execute(seed)
        predicted = direct.execute("SELECT random()").fetchone()
    with one_connection(world):
        with world.connect(listener) as client:
            client.execute(seed)
            assert client.execute("SELECT random()").fetchone() == predicted
            client.execute(seed)
        with world.connect() as other:
            assert other.execute("SELECT random()").fetchone() != predicted


def test_session_mode_leaves_no_placeholders(world: World) -> None:
    for number, statement in enumerate(
        (
            "SET sess.a{} = '1'",
            "set /* */ local sess . a{} to 1",
            "SELECT set_config('sess.a' || {}, '1', false)",
            "SELECT set_config('sess.a{}', '1', true)",
        )
    ):
        with one_connection(world):
            with world.connect("session") as client, client.transaction():
                client.execute(statement.format(number))
            with world.connect() as other:
                assert read(other, f"sess.a{number}") is None


@pytest.fixture
def used_by_another(world: World) -> Iterator[World]:
    """The one connection that is left has had a temporary table of a client that is gone. Nobody has asked for such yet."""
    with one_connection(world):
        with world.connect() as client, client.transaction():
            client.execute("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1")
        yield world


ASKS_TEMPORARY = "SELECT pg_my_temp_schema() = 0 AND current_schemas(true) = '{pg_catalog,public}'"


def test_another_clients_temporary_schema_is_not_there(used_by_another: World) -> None:
    with used_by_another.connect() as other:
        assert other.execute(ASKS_TEMPORARY).fetchone() == (True,)


def test_another_clients_temporary_schema_is_not_told_by_a_prepared_statement(used_by_another: World) -> None:
    with used_by_another.connect() as other:
        assert other.execute(ASKS_TEMPORARY, prepare=True).fetchone() == (True,)
        assert other.execute(ASKS_TEMPORARY, prepare=True).fetchone() == (True,)


def test_in_a_transaction_the_first_question_for_the_temporary_schema_may_be_refused(used_by_another: World) -> None:
    """Nobody knew that clients of this pool would ask."""
    for prepare in (False, True):
        with used_by_another.connect(autocommit=False) as other:
            for _ in range(2):
                other.execute("SELECT 1")
                try:
                    assert other.execute(ASKS_TEMPORARY, prepare=prepare).fetchone() == (True,)
                    break
                except psycopg.errors.FeatureNotSupported:
                    other.rollback()
            else:
                pytest.fail("the second transaction has been refused, too")


@pytest.mark.parametrize(
    "statement",
    ["CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1", "DO $$BEGIN CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1; END$$"],
)
def test_what_has_left_no_temporary_table_often_has_left_the_schema(world: World, statement: str) -> None:
    with one_connection(world):
        for _ in range(6):
            with world.connect() as client, client.transaction():
                client.execute(statement)
            with world.connect() as other:
                # (In one text, since the lease may have begun before anybody asks.)
                answer = other.execute(f"BEGIN; SELECT 1; {ASKS_TEMPORARY}; COMMIT")
                while answer.nextset():
                    if answer.description and answer.description[0].name == "?column?":
                        row = answer.fetchone()
                assert row == (True,)


def test_another_clients_temporary_schema_is_not_told_by_a_function(world: World) -> None:
    world.execute(
        "CREATE FUNCTION asks_temporary() RETURNS bool STABLE LANGUAGE plpgsql AS"
        " $$BEGIN RETURN (SELECT pg_my_temp_schema() <> 0); END$$; CREATE VIEW tells_temporary AS SELECT asks_temporary() AS has;"
        " GRANT SELECT ON tells_temporary TO public"
    )
    with world.connect() as client:
        client.execute("CREATE TABLE changes_the_catalog ()")
    with one_connection(world):
        for _ in range(2):
            with world.connect() as client, client.transaction():
                client.execute("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1")
            with world.connect(autocommit=False) as other:
                other.execute("SELECT 1")
                assert other.execute("SELECT has FROM tells_temporary").fetchone() == (False,)


def test_a_client_has_so_many_settings_and_no_more(world: World) -> None:
    with world.connect() as client, world.connect() as other:
        with client.transaction():
            for number in range(1000):
                client.execute(f"SET LOCAL many.x{number} = '1'")
        assert read(client, "many.x999") == ""
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="more than 1000 settings of its own"):
            for number in range(1000, 1100):
                client.execute(f"SET many.x{number} = '1'")
        assert read(other, "many.x1") is None


RESETS = (
    ["SET {0} = '1'", "RESET {0}"],
    ["SET {0} = '1'", "SET {0} TO DEFAULT"],
    ["SET {0} = '1'", "RESET ALL"],
    ["SET {0} = '1'", "DISCARD ALL"],
    ["SELECT set_config('{0}', '1', true)"],
    ["BEGIN", "SET LOCAL {0} = '1'", "COMMIT"],
    ["BEGIN", "SET {0} = '1'", "ROLLBACK"],
    ["DO $$BEGIN PERFORM set_config('{0}', '1', false); RESET {0}; END$$"],
)


def test_a_reset_brings_back_the_default_of_the_database(world: World) -> None:
    world.execute(f"ALTER DATABASE {world.database} SET kept.x = 'of the database'")
    try:
        with one_connection(world), world.connect() as other:
            for statements in RESETS:
                with world.connect() as client:
                    for statement in statements:
                        client.execute(statement.format("kept.x"))
                    other.execute("SET kept.x = '2'")
                    assert read(client, "kept.x") == "of the database", statements
                    client.execute("SET kept.x = ''")
                    assert read(other, "kept.x") == "2"
                    assert not read(client, "kept.x"), statements
    finally:
        world.execute(f"ALTER DATABASE {world.database} RESET kept.x")
