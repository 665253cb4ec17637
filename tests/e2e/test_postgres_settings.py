"""Settings are each client's own: they follow it from one server connection to the next, and never reach another client."""

import random

import psycopg
import pytest

from tests.e2e.postgres_raw import SYNC, Raw, bind, error_of, execute, parse, query, startup
from tests.e2e.postgres_world import DEADLINE, Client, World, in_thread, wait_until


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


def show(client: Client, name: str) -> str:
    row = client.execute(f"SELECT current_setting('{name}', true)").fetchone()
    assert row is not None
    # A setting of an extension (`app.x`) that was set once stays known to the server, as an empty text: NULL and "" are the same here.
    return row[0] or ""


def everywhere(world: World, client: Client, name: str) -> set[str]:
    """What the client finds on one server connection after the other."""
    found = set()
    holders = [world.connect(autocommit=False) for _ in range(3)]
    for count in range(3):
        for holder in holders[:count]:
            holder.execute("SELECT 1")
        found.add(show(client, name))
        for holder in holders:
            holder.rollback()
    for holder in holders:
        holder.close()
    return found


def test_clients_with_other_settings_have_each_their_own_server_connection_while_there_are_enough(world: World) -> None:
    with world.connect() as first, world.connect() as second:
        first.execute("SET work_mem = '3MB'")
        second.execute("SET work_mem = '4MB'")
        first.execute("BEGIN")
        pids = [show_pid(one) for one in (first, second)]
        first.execute("COMMIT")
        assert pids[0] != pids[1]
        for _ in range(5):
            assert [show_pid(one) for one in (first, second)] == pids


def show_pid(client: Client) -> int:
    row = client.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


SETTERS = [
    ("SET work_mem = '5MB'", "work_mem", "5MB"),
    ("set session work_mem to '6MB'", "work_mem", "6MB"),
    ("SET search_path TO alpha, \"Beta\"", "search_path", 'alpha, "Beta"'),
    ("SET search_path = ''", "search_path", '""'),
    ("SET TIME ZONE 'Asia/Tokyo'", "TimeZone", "Asia/Tokyo"),
    ("SET timezone = 'Europe/Paris'", "TimeZone", "Europe/Paris"),
    ("SET DateStyle = 'German, DMY'", "DateStyle", "German, DMY"),
    ("SET application_name = 'it''s; me'", "application_name", "it's; me"),
    ("SET app.user_id = '42'", "app.user_id", "42"),
    ("/* c */ SET -- d\n statement_timeout = 30000", "statement_timeout", "30s"),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE", "default_transaction_isolation", "serializable"),
    ("SET SCHEMA 'gamma'", "search_path", "gamma"),
    ("SET client_encoding TO 'LATIN1'", "client_encoding", "LATIN1"),
    ("SET NAMES 'UTF8'", "client_encoding", "UTF8"),
    ("SET extra_float_digits = -3", "extra_float_digits", "-3"),
    ("SET standard_conforming_strings = off", "standard_conforming_strings", "off"),
    ("SELECT 1; SET lock_timeout = 7; SELECT 2", "lock_timeout", "7ms"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "name", "value"), SETTERS)
def test_a_setting_follows_its_client_and_no_other(world: World, statement: str, name: str, value: str) -> None:
    with world.connect() as client, world.connect() as other:
        default = show(other, name)
        client.execute(statement)
        assert everywhere(world, client, name) == {value}
        assert everywhere(world, other, name) == {default}
        client.execute(f"RESET {name}")
        assert everywhere(world, client, name) == {default}
        assert everywhere(world, other, name) == {default}


def test_prepared_and_extended_sets_count_too(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client, world.connect() as other:
        default = show(other, "work_mem")
        client.ask(parse("s", "SET work_mem = '7MB'"), SYNC)
        client.ask(bind("s"), execute(), SYNC)
        client.ask(parse("", "SET app.x = 'unnamed'"), bind(""), execute(), SYNC)
        with world.connect(autocommit=False) as holder:
            holder.execute("SELECT 1")
            assert client.value(query("SHOW work_mem")) == "7MB"
            assert client.value(query("SHOW app.x")) == "unnamed"
            assert show(other, "work_mem") == default
        client.ask(parse("r", "RESET ALL"), bind("r"), execute(), SYNC)
        assert client.value(query("SHOW work_mem")) == default


def test_a_rolled_back_set_is_not_kept(world: World) -> None:
    with world.connect() as client:
        client.execute("SET app.x = 'before'")
        client.execute("BEGIN")
        client.execute("SET app.x = 'inside'")
        client.execute("SET TimeZone = 'Asia/Tokyo'")
        assert show(client, "app.x") == "inside"
        client.execute("ROLLBACK")
        assert everywhere(world, client, "app.x") == {"before"}
        assert "Asia/Tokyo" not in everywhere(world, client, "TimeZone")
        client.execute("BEGIN")
        client.execute("SET app.x = 'again'")
        with pytest.raises(psycopg.errors.DivisionByZero):
            client.execute("SELECT 1/0")
        client.execute("COMMIT")  # which rolls back
        assert everywhere(world, client, "app.x") == {"before"}
        client.execute("BEGIN")
        client.execute("SET app.x = 'kept'")
        client.execute("COMMIT")
        assert everywhere(world, client, "app.x") == {"kept"}


def test_savepoints_take_back_what_was_set_after_them(world: World) -> None:
    with world.connect() as client:
        client.execute("BEGIN")
        client.execute("SET app.x = 'one'")
        client.execute("SAVEPOINT s")
        client.execute("SET app.x = 'two'")
        client.execute("ROLLBACK TO SAVEPOINT s")
        client.execute("SET app.y = 'three'")
        client.execute("RELEASE s")
        client.execute("COMMIT")
        assert everywhere(world, client, "app.x") == {"one"}
        assert everywhere(world, client, "app.y") == {"three"}


def test_set_local_ends_with_the_transaction(world: World) -> None:
    with world.connect() as client:
        client.execute("SET app.x = 'session'")
        client.execute("BEGIN; SET LOCAL app.x = 'local'")
        assert show(client, "app.x") == "local"
        client.execute("COMMIT")
        assert everywhere(world, client, "app.x") == {"session"}


def test_a_set_that_fails_changes_nothing(world: World) -> None:
    with world.connect() as client:
        client.execute("SET work_mem = '9MB'")
        for wrong in ("SET work_mem = 'nonsense'", "SET no_such_setting = 1", "SET work_mem = '3MB'; SELECT 1/0"):
            with pytest.raises(psycopg.Error):
                client.execute(wrong)
        assert everywhere(world, client, "work_mem") == {"9MB"}


def test_discard_all_and_reset_all_bring_back_the_clients_own_defaults(world: World) -> None:
    options = "-c work_mem=8MB -c app.x=mine"
    with world.connect(options=options, application_name="start") as client, world.connect() as other:
        for how in ("RESET ALL", "DISCARD ALL"):
            client.execute("SET work_mem = '9MB'; SET app.x = 'changed'; SET application_name = 'changed'")
            other.execute("SET work_mem = '3MB'")
            client.execute(how)
            assert everywhere(world, client, "work_mem") == {"8MB"}
            assert everywhere(world, client, "app.x") == {"mine"}
            assert everywhere(world, client, "application_name") == {"start"}
            assert everywhere(world, other, "work_mem") == {"3MB"}


@pytest.mark.parametrize("listener", ["postgres", "session"])
def test_startup_parameters_are_the_clients_own(world: World, listener: str) -> None:
    options = {"options": "-c search_path=alpha,beta -c statement_timeout=11s --lock_timeout=3s", "application_name": "mine"}
    with world.connect(listener, **options) as client:
        assert client.info.parameter_status("application_name") == "mine"
        for name, value in (
            ("search_path", "alpha,beta"),
            ("statement_timeout", "11s"),
            ("lock_timeout", "3s"),
            ("application_name", "mine"),
        ):
            assert show(client, name) == value
    with world.connect(listener) as other:
        assert show(other, "statement_timeout") == "0"
        assert show(other, "application_name") == ""


def test_what_urls_of_hosting_providers_carry_is_no_setting(world: World) -> None:
    extra = {
        "pgbouncer": "true",
        "connection_limit": "1",
        "pool_timeout": "20",
        "connect_timeout": "10",
        "statement_cache_size": "0",
        "schema": "public",
    }
    with Raw(world.pooler.port("trust")).log_in(**extra) as client:
        assert client.value(query("SELECT 'well'")) == "well"


def test_a_startup_parameter_that_the_server_refuses_is_refused_at_login(world: World) -> None:
    with Raw(world.pooler.port("trust")) as client:
        client.send(startup(user="app", database="app", DateStyle="nonsense"))
        assert error_of(client.until_closed())["C"] == "22023"
    world.assert_unharmed()


def test_clients_are_told_what_their_session_reports(world: World) -> None:
    with world.connect(options="-c TimeZone=Asia/Tokyo") as tokyo, world.connect(options="-c TimeZone=Europe/Paris") as paris:
        assert tokyo.info.parameter_status("TimeZone") == "Asia/Tokyo"
        assert paris.info.parameter_status("TimeZone") == "Europe/Paris"
        paris.execute("SET TimeZone = 'UTC'")
        assert paris.info.parameter_status("TimeZone") == "UTC"
        assert tokyo.execute("SELECT '2026-01-01T00:00:00Z'::timestamptz::text").fetchone() == ("2026-01-01 09:00:00+09",)
        assert tokyo.info.parameter_status("TimeZone") == "Asia/Tokyo"


def test_a_role_is_the_clients_own(world: World) -> None:
    world.execute("DO $$ BEGIN CREATE ROLE other_role; EXCEPTION WHEN duplicate_object THEN END $$")
    world.execute("GRANT other_role TO app")
    with world.connect() as client, world.connect() as other:
        client.execute("SET ROLE other_role")
        for _ in range(3):
            assert client.execute("SELECT current_user").fetchone() == ("other_role",)
            assert other.execute("SELECT current_user").fetchone() == ("app",)
        client.execute("RESET ROLE")
        assert client.execute("SELECT current_user").fetchone() == ("app",)


def test_session_mode_leaves_nothing_behind(world: World) -> None:
    for number in range(6):
        with world.connect("session") as client:
            assert show(client, "app.x") == ""
            assert client.execute("SELECT count(*) FROM pg_prepared_statements WHERE name !~ 'dualpool'").fetchone() == (0,)
            tables = "SELECT count(*) FROM pg_class WHERE relname = 'left' AND relnamespace = pg_my_temp_schema()"
            assert client.execute(tables).fetchone() == (0,)
            client.execute(f"SET app.x = '{number}'; PREPARE p AS SELECT 1; CREATE TEMP TABLE \"left\" (n int); SELECT pg_advisory_lock(1)")
    with world.connect() as client:
        assert show(client, "app.x") == ""


def test_settings_never_leak_in_a_crowd(one_postgres: World) -> None:
    """Clients that set, reset, roll back and fail at random, each against its own notebook."""
    names = ["app.a", "app.b", "work_mem", "TimeZone", "search_path"]
    values = {"work_mem": ["1MB", "2MB", "3MB"], "TimeZone": ["Asia/Tokyo", "Europe/Paris", "UTC"], "search_path": ["one", "two", "three"]}

    def crowd(seed: int) -> None:
        rng = random.Random(seed)
        with one_postgres.connect() as client:
            defaults = {"app.a": "", "app.b": "", **{name: show(client, name) for name in names[2:]}}
            kept = dict(defaults)
            for _ in range(40):
                now = dict(kept)
                transaction = rng.choice(["none", "none", "commit", "rollback"])
                if transaction != "none":
                    client.execute("BEGIN")
                for _ in range(rng.randint(1, 2)):
                    name = rng.choice(names)
                    if rng.random() < 0.3:
                        client.execute(f"RESET {name}")
                        now[name] = defaults[name]
                    else:
                        value = rng.choice(values.get(name, [f"{seed}-{rng.random()}"]))
                        client.execute(f"SET {name} = '{value}'")
                        now[name] = value
                if transaction != "none":
                    client.execute(transaction)
                if transaction != "rollback":
                    kept = now
                for name in names:
                    assert show(client, name) == kept[name], (seed, name)

    for background in [in_thread(lambda seed=seed: crowd(seed)) for seed in range(8)]:  # type: ignore[misc]
        background.result(3 * DEADLINE)


def test_statement_mode_refuses_transactions(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in(), world.connect("statement") as client:
        assert client.execute("SELECT %s::int", [1]).fetchone() == (1,)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="statement pooling mode"):
            client.execute("BEGIN")
    world.wait_until_rested()
    with world.connect("statement") as client:
        assert client.execute("SELECT 2").fetchone() == (2,)
        with pytest.raises(psycopg.errors.FeatureNotSupported), client.transaction():
            client.execute("SELECT 1")
    world.wait_until_rested()


def test_replayed_settings_that_the_server_refuses_are_told(world: World) -> None:
    """A role that is gone when its client comes to another server connection: an error, not another's rights."""
    role = f"passing_{world.database}"
    world.execute(f"CREATE ROLE {role}")
    world.execute(f"GRANT {role} TO app")
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(query(f"SET ROLE {role}"))
        with world.connect(autocommit=False) as holder:
            holder.execute("SELECT 1")
            world.execute(f"DROP ROLE {role}")
            for other in (world.connect(), world.connect()):
                other.execute("SELECT 1")
                other.close()
            client.send(query("SELECT current_user"))
            error = error_of(client.until_closed())
            assert (error["C"], role in error["M"]) == ("22023", True)
    world.assert_unharmed()


@pytest.mark.parametrize("listener", ["postgres", "session"])
@pytest.mark.parametrize("how", ["RESET ALL", "RESET TimeZone", "SET TimeZone TO DEFAULT", "DISCARD ALL", "SELECT 1; RESET ALL"])
def test_a_reset_brings_back_what_the_client_said_at_its_start_at_once(world: World, listener: str, how: str) -> None:
    with world.connect(listener, options="-c TimeZone=Asia/Tokyo") as client:
        client.execute("SET TimeZone = 'Europe/Paris'")
        # (So that the server connection stays the same.)
        client.execute("SELECT pg_advisory_lock_shared(1)")
        client.execute(how)
        assert show(client, "TimeZone") == "Asia/Tokyo"
        assert client.info.parameter_status("TimeZone") == "Asia/Tokyo"
        if how != "DISCARD ALL":
            with client.transaction():
                client.execute("SET TimeZone = 'Europe/Paris'")
                client.execute(how)
                assert show(client, "TimeZone") == "Asia/Tokyo"


def test_a_default_of_the_server_that_changes_is_not_the_clients(world: World) -> None:
    def change(order: str, value: str, client: Client) -> None:
        world.server.execute(f"ALTER SYSTEM {order}")
        world.server.execute("SELECT pg_reload_conf()")
        with client.transaction():
            wait_until(lambda: show(client, "IntervalStyle") == value, f"{value} for whom it is told inside a transaction")

    with world.connect() as client, world.connect() as other:
        client.execute("SET DateStyle = 'German'")
        change("SET IntervalStyle = 'iso_8601'", "iso_8601", client)
        try:
            assert everywhere(world, other, "IntervalStyle") == {"iso_8601"}
        finally:
            change("RESET IntervalStyle", "postgres", client)
        assert everywhere(world, client, "IntervalStyle") == {"postgres"}
        assert everywhere(world, other, "IntervalStyle") == {"postgres"}
        assert everywhere(world, client, "DateStyle") == {"German, DMY"}
