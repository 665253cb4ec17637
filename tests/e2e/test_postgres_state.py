"""What a session may hold, row by row, in strict mode: a client does it, another client on the same server connection finds no trace of it,
the first one has it still, and what pins the client to the server connection ends when the server says that it is gone.
"""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import psycopg
import pytest

from tests.e2e.postgres_raw import SYNC, Raw, error_of, parse, query
from tests.e2e.postgres_world import DEADLINE, Client, World, configuration, in_thread, wait_until
from tests.helpers.pooler import Pooler
from tests.helpers.servers import PostgresServer

KEEPS: Final = "keeps server connection"
"""What the log says of a pin."""
PRISMA_LOCK: Final = 72707369


@contextlib.contextmanager
def strict_world(
    server: PostgresServer, pool_size: int = 1, keys: str = 'strict = true\nlisten = "pin"', more: str = ""
) -> Iterator[World]:
    """A World with few server connections. `keys` are the database's."""
    with server.temporary_database() as database:
        toml = configuration(server, database, pool_size, more).replace(f"pool_size = {pool_size}", f"pool_size = {pool_size}\n{keys}", 1)
        with Pooler(toml) as pooler:
            yield World(server, database, pooler)


@pytest.fixture(scope="module")
def one(postgres_server: PostgresServer) -> Iterator[World]:
    """One server connection for all, in strict mode."""
    with strict_world(postgres_server, more='[timeouts]\nquery_wait = "60s"') as world:
        world.execute(PREPARATIONS)
        yield world


PREPARATIONS: Final = """
CREATE PROCEDURE locks() LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(99); END';
CREATE PROCEDURE sets() LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''work_mem'', ''7MB'', false); END';
CREATE FUNCTION takes_a_lock() RETURNS void LANGUAGE sql STABLE AS 'SELECT pg_advisory_lock(98)';
CREATE FUNCTION sets_a_setting() RETURNS text LANGUAGE sql STABLE AS 'SELECT set_config(''work_mem'', ''7MB'', false)';
CREATE SEQUENCE numbers;
CREATE TABLE notes (who text DEFAULT current_user, note text);
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC;
"""

LOCKS: Final = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
TEMPORARY: Final = "SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = pg_my_temp_schema()"
CURSORS: Final = "SELECT count(*) FROM pg_cursors WHERE is_holdable"
STATEMENTS: Final = "SELECT count(*) FROM pg_prepared_statements WHERE from_sql"
CHANNELS: Final = "SELECT count(*) FROM pg_listening_channels()"


@dataclass
class Pin:
    """What a client does, the question that shows it, how many it then has, and what ends it."""

    reason: str
    does: tuple[str, ...]
    trace: str
    ends: tuple[str, ...]
    holds: int = 1


PINS: Final = {
    "a lock": Pin("advisory lock", ("SELECT pg_advisory_lock(1)",), LOCKS, ("SELECT pg_advisory_unlock(1)",)),
    "a lock of two keys": Pin("advisory lock", ("SELECT pg_advisory_lock(1, 2)",), LOCKS, ("SELECT pg_advisory_unlock(1, 2)",)),
    "a shared lock": Pin("advisory lock", ("SELECT pg_advisory_lock_shared(1)",), LOCKS, ("SELECT pg_advisory_unlock_shared(1)",)),
    "a lock that was tried": Pin("advisory lock", ("SELECT pg_try_advisory_lock(1)",), LOCKS, ("SELECT pg_advisory_unlock(1)",)),
    "two locks": Pin("advisory lock", ("SELECT pg_advisory_lock(1), pg_advisory_lock(2)",), LOCKS, ("SELECT pg_advisory_unlock_all()",), 2),
    "a lock taken twice": Pin(
        "advisory lock", ("SELECT pg_advisory_lock(1)",) * 2, LOCKS, ("SELECT pg_advisory_unlock(1)", "SELECT pg_advisory_unlock(1)")
    ),
    "a lock of a transaction that was rolled back": Pin(
        "advisory lock", ("BEGIN", "SELECT pg_advisory_lock(1)", "ROLLBACK"), LOCKS, ("SELECT pg_advisory_unlock(1)",)
    ),
    "a lock of a DO": Pin(
        "advisory lock", ("DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",), LOCKS, ("DO 'BEGIN PERFORM pg_advisory_unlock_all(); END'",)
    ),
    "a lock of a procedure": Pin("advisory lock", ("CALL locks()",), LOCKS, ("SELECT pg_advisory_unlock(99)",)),
    "a lock, until DISCARD ALL": Pin("advisory lock", ("SELECT pg_advisory_lock(1)",), LOCKS, ("DISCARD ALL",)),
    "a temporary table": Pin("temporary table", ("CREATE TEMP TABLE t (a int)",), TEMPORARY, ("DROP TABLE t",)),
    "a temporary table, until DISCARD TEMP": Pin("temporary table", ("CREATE TEMPORARY TABLE t (a int)",), TEMPORARY, ("DISCARD TEMP",)),
    "a temporary table of a SELECT": Pin("temporary table", ("SELECT 1 AS a INTO TEMP t",), TEMPORARY, ("DROP TABLE t",)),
    "a temporary table behind a comment": Pin("temporary table", ("CREATE /* a */ TEMP TABLE t (a int)",), TEMPORARY, ("DROP TABLE t",)),
    "a temporary table by its schema": Pin("temporary table", ("CREATE TABLE pg_temp.t (a int)",), TEMPORARY, ("DROP TABLE t",)),
    "a temporary table by the search path": Pin(
        "temporary table",
        ("SET search_path = pg_temp, public", "CREATE TABLE t (a int)"),
        TEMPORARY,
        ("DROP TABLE t", "RESET search_path"),
    ),
    "a temporary view": Pin("temporary table", ("CREATE TEMP VIEW t AS SELECT 1 AS a",), TEMPORARY, ("DROP VIEW t",)),
    "a temporary sequence": Pin("temporary table", ("CREATE TEMP SEQUENCE t",), TEMPORARY, ("DROP SEQUENCE t",)),
    "a temporary function": Pin(
        "temporary table",
        ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",),
        TEMPORARY,
        ("DROP FUNCTION pg_temp.f()",),
    ),
    "a cursor": Pin("cursor", ("DECLARE c CURSOR WITH HOLD FOR SELECT 1",), CURSORS, ("CLOSE c",)),
    "a cursor, until CLOSE ALL": Pin("cursor", ("BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT"), CURSORS, ("CLOSE ALL",)),
    "a prepared statement": Pin("prepared statement", ("PREPARE p AS SELECT 1",), STATEMENTS, ("DEALLOCATE p",)),
    "a prepared statement of a transaction that was rolled back": Pin(
        "prepared statement", ("BEGIN", "PREPARE p AS SELECT 1", "ROLLBACK"), STATEMENTS, ("DEALLOCATE ALL",)
    ),
    "a channel": Pin("listen", ("LISTEN news",), CHANNELS, ("UNLISTEN news",)),
    "two channels": Pin("listen", ("LISTEN news", "LISTEN weather"), CHANNELS, ("UNLISTEN *",), 2),
}


def number(client: Client, sql: str) -> int:
    """The only value of an answer."""
    row = client.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def pid_of(client: Client) -> int:
    return number(client, "SELECT pg_backend_pid()")


def pins(world: World) -> int:
    """How often a pin has begun so far."""
    return world.pooler.log.count(KEEPS)


@pytest.mark.parametrize("name", PINS)
def test_a_pin_is_nobody_elses_and_ends(one: World, name: str) -> None:
    pin = PINS[name]
    before = pins(one)
    told: list[str] = []
    with one.connect() as first, one.connect() as second:
        first.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        for sql in pin.does:
            first.execute(sql)
        assert number(first, pin.trace) == pin.holds
        wait_until(lambda: pins(one) == before + 1, f"a pin in the log: {one.pooler.log[-500:]}")
        waits = in_thread(lambda: (number(second, pin.trace), pid_of(second)))
        own = pid_of(first)
        assert number(first, pin.trace) == pin.holds
        assert not waits.is_done()
        for sql in pin.ends:
            first.execute(sql)
        held, pid = waits.result()
        assert held == 0
        if pin.trace != TEMPORARY:  # A session that had temporary tables shows it by pg_my_temp_schema().
            assert pid == own
        assert number(first, pin.trace) == 0
        assert [text for text in told if "keeps its server connection" in text] == [
            f"this session keeps its server connection after the transaction: {pin.reason}"
        ]
        assert pins(one) == before + 1


@pytest.mark.parametrize("name", PINS)
def test_what_pinned_a_client_that_has_gone_is_gone_at_once(one: World, name: str) -> None:
    pin = PINS[name]
    before = pins(one)
    with one.connect() as first:
        for sql in pin.does:
            first.execute(sql)
        wait_until(lambda: pins(one) == before + 1, "a pin in the log")
        # Not a goodbye: the socket is closed under it, as when a process is killed.
        os.close(os.dup(first.fileno()))
        first.pgconn.finish()
    with one.connect() as second:
        assert number(second, pin.trace) == 0
        assert number(second, LOCKS) == 0


FREE: Final = {
    "a lock of a transaction": (("BEGIN", "SELECT pg_advisory_xact_lock(1)", "COMMIT"), LOCKS),
    "a lock that is given back in its transaction": (("SELECT pg_advisory_lock(1), pg_advisory_unlock(1)",), LOCKS),
    "a temporary table that goes with its transaction": (("BEGIN", "CREATE TEMP TABLE t (a int) ON COMMIT DROP", "COMMIT"), TEMPORARY),
    "a temporary table that was rolled back": (("BEGIN", "CREATE TEMP TABLE t (a int)", "ROLLBACK"), TEMPORARY),
    "a cursor of a transaction": (("BEGIN", "DECLARE c CURSOR FOR SELECT 1", "COMMIT"), CURSORS),
    "a channel that was rolled back": (("BEGIN", "LISTEN news", "ROLLBACK"), CHANNELS),
    "NOTIFY": (("NOTIFY news",), CHANNELS),
    "UNLISTEN of nothing": (("UNLISTEN *",), CHANNELS),
    "nextval and currval": (("BEGIN", "SELECT nextval('numbers')", "SELECT currval('numbers'), lastval()", "COMMIT"), LOCKS),
    "words in literals": (("SELECT 'pg_advisory_lock(1)', 'create temp table t', 'with hold', 'set_config(a, b, false)'",), LOCKS),
    "two phases": (("BEGIN", "SELECT 1", "ROLLBACK"), LOCKS),
}


@pytest.mark.parametrize("name", FREE)
def test_no_pin(one: World, name: str) -> None:
    does, trace = FREE[name]
    before = pins(one)
    with one.connect() as first, one.connect() as second:
        for sql in does:
            first.execute(sql)
        assert number(second, trace) == 0
        assert number(first, trace) == 0
    assert pins(one) == before


# What a client does, the setting, what it has then. Another client has the server's default.
TRACKED: Final = {
    "SET": ("SET work_mem = '5MB'", "work_mem", "5MB"),
    "set_config": ("SELECT set_config('work_mem', '5MB', false)", "work_mem", "5MB"),
    "set_config of a name of its own": ("SELECT set_config('app.tenant', 'a''b', false)", "app.tenant", "a'b"),
    "set_config in a DO": ("DO $$ BEGIN PERFORM set_config('app.tenant', '1', false); END $$", "app.tenant", "1"),
    "SET in a DO": ("DO $$ BEGIN SET work_mem = '5MB'; SET app.tenant = '2'; END $$", "app.tenant", "2"),
    "SET in a procedure": ("CALL sets()", "work_mem", "7MB"),
    "a reported setting": ("SELECT set_config('TimeZone', 'Asia/Tokyo', false)", "TimeZone", "Asia/Tokyo"),
    "the search path": ("SELECT pg_catalog.set_config('search_path', '', false)", "search_path", ""),
    "defaults of transactions": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE", "default_transaction_isolation", "serializable",
    ),
    "a time limit": ("SET statement_timeout = '4321ms'", "statement_timeout", "4321ms"),
}  # fmt: skip


@pytest.mark.parametrize("name", TRACKED)
def test_a_setting_follows_its_client(one: World, name: str) -> None:
    does, setting, value = TRACKED[name]
    show = f"SELECT coalesce(current_setting('{setting}', true), '')"
    with one.connect() as first, one.connect() as second:
        default = second.execute(show).fetchone()
        first.execute(does)
        assert second.execute(show).fetchone() == default
        assert first.execute(show).fetchone() == (value,)
        assert second.execute(show).fetchone() == default
        first.execute("RESET ALL")
        assert first.execute(show).fetchone() == default


def test_set_config_with_parameters(one: World) -> None:
    show = "SELECT coalesce(current_setting('app.parameter', true), '')"
    with one.connect() as first, one.connect() as second:
        for value in ("a", "b"):
            first.execute("SELECT set_config(%s, %s, %s)", ["app.parameter", value, False])
            assert second.execute(show).fetchone() == ("",)
            assert first.execute(show).fetchone() == (value,)
        with first.transaction():
            first.execute("SELECT set_config(%s, %s, %s)", ["app.parameter", "local", True])
            assert first.execute(show).fetchone() == ("local",)
        assert first.execute(show).fetchone() == ("b",)


def test_a_setting_of_which_only_the_server_knows_the_name_pins(one: World) -> None:
    before = pins(one)
    with one.connect() as first:
        first.execute("SELECT set_config('app.' || 'tenant', '1', false)")
        wait_until(lambda: pins(one) == before + 1, "a pin in the log")
        first.execute("DISCARD ALL")
        one.assert_unharmed()


# ------------------------------------------------------------------------------------------------------------------ rights


def test_a_role_is_its_clients_own(one: World) -> None:
    with roles(one, "clerk") as (clerk,), one.connect() as first, one.connect() as second:
        who = "SELECT current_user::text"
        for does in (f"SET ROLE {clerk}", f"SELECT set_config('role', '{clerk}', false)", f"DO 'BEGIN SET ROLE {clerk}; END'"):
            first.execute(does)
            assert second.execute(who).fetchone() == ("app",)
            assert first.execute(who).fetchone() == (clerk,)
            first.execute("RESET ROLE")
            assert first.execute(who).fetchone() == ("app",)


def test_nothing_is_done_with_the_rights_of_the_client_before(one: World) -> None:
    """A role that was dropped cannot be taken: what was sent with it is not carried out, as whoever else is on the connection."""
    with roles(one, "clerk", "chief") as (clerk, chief), one.connect() as first, one.connect() as second:
        first.execute(f"SET ROLE {clerk}")
        second.execute(f"SET ROLE {chief}")
        assert second.execute("SELECT current_user::text").fetchone() == (chief,)
        one.execute(f"DROP OWNED BY {clerk}; DROP ROLE {clerk}")
        with pytest.raises(psycopg.Error, match="could not be brought back"):
            first.execute("INSERT INTO notes (note) VALUES ('not mine')")
        assert one.execute("SELECT * FROM notes") == []
        assert second.execute("SELECT current_user::text").fetchone() == (chief,)
        one.assert_unharmed()


@contextlib.contextmanager
def roles(world: World, *names: str) -> Iterator[list[str]]:
    """New roles that app is a member of."""
    made = [f"{name}_{world.database}" for name in names]
    for name in made:
        world.execute(f"CREATE ROLE {name}; GRANT {name} TO app")
    try:
        yield made
    finally:
        for name in made:
            world.execute(f"DROP ROLE IF EXISTS {name}")


# ------------------------------------------------------------------------------------------------------------------ policies


def test_an_error_instead_of_a_pin(postgres_server: PostgresServer) -> None:
    with strict_world(postgres_server, keys='pin = "error"') as world, world.connect() as client:
        client.execute("SELECT pg_advisory_xact_lock(1)")
        with Raw(world.pooler.port("trust")).log_in() as raw:
            raw.send(query("SELECT pg_advisory_lock(2)"))
            answer = error_of(raw.until_closed())
        assert answer["C"] == "0A000"
        assert "(advisory lock)" in answer["M"]
        assert "pg_advisory_lock(?)" in answer["M"]
        wait_until(lambda: number(client, "SELECT pg_try_advisory_lock(2)::int + pg_advisory_unlock(2)::int") == 2, "the lock is gone")


def test_allowed_without_a_word(postgres_server: PostgresServer) -> None:
    told: list[str] = []
    with strict_world(postgres_server, keys='pin = "allow"') as world, world.connect() as client:
        client.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        client.execute("CREATE TEMP TABLE t (a int)")
        client.execute("DROP TABLE t")
        world.assert_unharmed()
    assert told == []


def test_a_pinned_client_that_is_idle_for_too_long(postgres_server: PostgresServer) -> None:
    with strict_world(postgres_server, keys='pin_idle = "200ms"\nlisten = "pin"') as world:
        with world.connect() as idle, Raw(world.pooler.port("trust")).log_in() as pinned:
            idle.execute("SELECT 1")
            pinned.ask(query("LISTEN news"))
            answer = error_of(pinned.until_closed())
            assert (answer["C"], answer["S"]) == ("57P05", "FATAL")
            assert "(listen): databases.app.pin_idle is 0.2 s" in answer["M"]
            assert number(idle, CHANNELS) == 0
        world.assert_unharmed()


# ------------------------------------------------------------------------------------------------------------------ strict


@pytest.mark.parametrize(("call", "what"), [("takes_a_lock()", "advisory lock"), ("sets_a_setting()", "work_mem")])
def test_strict_mode_finds_what_nobody_could_see(one: World, call: str, what: str) -> None:
    with Raw(one.pooler.port("trust")).log_in() as raw:
        raw.send(query(f"SELECT {call}"))
        answer = error_of(raw.until_closed())
    assert answer["C"] == "0A000"
    assert "strict mode: " in answer["M"]
    assert what in answer["M"]
    assert answer["M"].endswith(f"SELECT {call}")
    one.pooler.wait_for_log(f"strict mode: .*{what}")
    one.assert_unharmed()
    with one.connect() as client:
        assert number(client, LOCKS) == 0
        assert client.execute("SHOW work_mem").fetchone() != ("7MB",)


def test_strict_mode_uses_another_connection_each_time(postgres_server: PostgresServer) -> None:
    with strict_world(postgres_server, pool_size=2) as world, world.connect() as client:
        wait_until(lambda: len(world.server_connections()) == 2, "two server connections")
        client.prepare_threshold = None  # one request for each query
        found = [pid_of(client) for _ in range(10)]
        assert all(one != other for one, other in pairwise(found))


# ------------------------------------------------------------------------------------------------------------------ tools


def test_what_prisma_migrate_does(postgres_server: PostgresServer) -> None:
    with strict_world(postgres_server, 3, more='[databases."*"]\nbackend = "main"') as world:
        for round_number in range(20):
            with world.connect() as migration, world.connect() as other:
                assert migration.execute(f"SELECT pg_advisory_lock({PRISMA_LOCK})")
                assert number(other, f"SELECT pg_try_advisory_lock({PRISMA_LOCK})::int") == 0
                shadow = f"{world.database}_shadow_{round_number}"
                migration.execute(f"CREATE DATABASE {shadow}".encode())
                with psycopg.connect(world.pooler.url(database=shadow), autocommit=True) as client:
                    client.execute("CREATE TABLE a (id int)")
                    own = migration.execute("SELECT pg_backend_pid()").fetchone()
                migration.execute(f"DROP DATABASE {shadow}".encode())
                migration.execute(f"CREATE TABLE a{round_number} (id int); CREATE INDEX ON a{round_number} (id)".encode())
                assert migration.execute("SELECT pg_backend_pid()").fetchone() == own
                assert number(other, f"SELECT pg_try_advisory_lock({PRISMA_LOCK})::int") == 0
                if round_number % 2:
                    migration.execute(f"SELECT pg_advisory_unlock({PRISMA_LOCK})")
                else:
                    migration.pgconn.finish()  # killed while it holds the lock
            wait_until(lambda: is_free(world), "the lock is free")
        assert world.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(20,)]


def is_free(world: World) -> bool:
    return world.server.execute(f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {PRISMA_LOCK}") == [(0,)]


def test_pg_dump(postgres_server: PostgresServer) -> None:
    embedded = postgres_server.embedded
    assert embedded is not None
    with strict_world(postgres_server, 1, keys="") as world:
        world.execute(PREPARATIONS)
        world.execute(
            "INSERT INTO notes SELECT 'a', repeat('x', n) FROM generate_series(1, 100) AS n; CREATE VIEW v AS SELECT * FROM notes"
        )
        direct = dump(embedded, postgres_server.url_for(database=world.database))
        assert "CREATE VIEW" in direct
        assert dump(embedded, world.url()) == direct
        with world.connect() as client:
            assert number(client, STATEMENTS) == 0
            assert client.execute("SHOW search_path").fetchone() == ('"$user", public',)


def dump(embedded: Any, url: str) -> str:
    """What pg_dump writes, but for the key that it makes up."""
    program = embedded.bindir / "pg_dump"
    if not program.exists():
        pytest.skip(f"{program} is not there")
    done = subprocess.run([program, url], capture_output=True, text=True, check=True, timeout=3 * DEADLINE)
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith((r"\restrict", r"\unrestrict")))


def test_eight_cursors_at_once(postgres_server: PostgresServer) -> None:
    with strict_world(postgres_server, 8) as world:

        def scrolls(start: int) -> Callable[[], list[int]]:
            def run() -> list[int]:
                with world.connect() as client:
                    client.execute(f"DECLARE c CURSOR WITH HOLD FOR SELECT generate_series({start}, {start + 99})")
                    found = []
                    while rows := client.execute("FETCH 7 FROM c").fetchall():
                        found += [row[0] for row in rows]
                    client.execute("CLOSE c")
                    assert number(client, CURSORS) == 0
                    return found

            return run

        at_work = [in_thread(scrolls(start)) for start in range(0, 800, 100)]
        assert [work.result() for work in at_work] == [list(range(start, start + 100)) for start in range(0, 800, 100)]


def test_a_library_stays_with_its_client(postgres_server: PostgresServer) -> None:
    with strict_world(postgres_server, 1, keys='user = "postgres"\npassword = "postgres"') as world:
        with world.connect() as client:
            own = pid_of(client)
            client.execute("LOAD 'plpgsql'")
            wait_until(lambda: pins(world) == 1, "a pin in the log")
            client.execute("DISCARD ALL")
            assert pid_of(client) == own
        with world.connect() as client:
            assert pid_of(client) != own


def test_a_drop_of_a_database_that_pooled_connections_are_in(postgres_server: PostgresServer) -> None:
    with strict_world(postgres_server, 3, keys="", more='[databases."*"]\nbackend = "main"') as world, world.connect() as client:
        for prepare in (True, False):
            client.execute(f"CREATE DATABASE {world.database}_x".encode())
            with psycopg.connect(world.pooler.url(database=f"{world.database}_x"), autocommit=True) as other:
                other.execute("SELECT 1")
            client.execute(f"DROP DATABASE {world.database}_x".encode(), prepare=prepare)


def test_parse_alone_begins_nothing(one: World) -> None:
    before = pins(one)
    with Raw(one.pooler.port("trust")).log_in() as raw:
        raw.ask(parse("a", "SELECT pg_advisory_lock(5)"), SYNC)
    one.assert_unharmed()
    assert pins(one) == before
