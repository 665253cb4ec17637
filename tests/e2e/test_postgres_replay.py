"""A client's settings are given back to it as they were, whatever the client before it on the server connection has set."""

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from tests.e2e.postgres_world import Client, World


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


BEFORE = (
    "standard_conforming_strings = off",
    "client_encoding = latin1",
    "client_encoding = gbk",
    "client_encoding = sjis",
    "backslash_quote = on",
    "bytea_output = escape",
    "array_nulls = off",
    "search_path = pg_temp, nowhere",
    "client_min_messages = debug5",
    "quote_all_identifiers = on",
    "default_transaction_read_only = on",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "statement_timeout = '20ms'",
    "statement_timeout = '1ms'",
    "lock_timeout = 1",
    "role = narrow",
    "plan_cache_mode = force_generic_plan",
    "datestyle = 'German'",
)
"""What the client before has set: all by which a text is read, or which limits a statement."""
VALUES = (
    "",
    " ",
    "plain",
    "München",
    "schéma",
    "日本語",
    "ソ表\\",
    "ends in a backslash\\",
    "\\'; commit; create table injected(a int); --",
    "'; commit; create table injected(a int); --",
    "it''s",
    "C:\\temp\\new",
    "two\nlines\r\n\ttabbed",
    "$$dollar$$ $1 /* -- */ ; :",
    'double " quotes',
    "x" * 5000,
    "a, b, \"C\"",
    "\x01\x7f",
)  # fmt: skip
NAMES = ("mine.x", "search_path")


def narrow(world: World) -> None:
    world.execute("DO $$ BEGIN CREATE ROLE narrow; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$")
    world.execute("GRANT narrow TO app")


def reset(client: Client) -> None:
    """RESET ALL: on a busy machine it may take longer than the time limit that it takes away."""
    while True:
        with contextlib.suppress(psycopg.errors.QueryCanceled):
            client.execute("RESET ALL")
            return


def straight(world: World) -> Client:
    """A connection of one's own."""
    return psycopg.connect(world.server.url_for(database=world.database), autocommit=True)


@contextlib.contextmanager
def one_connection(world: World) -> Iterator[None]:
    """All others of the pool are held by somebody."""
    with contextlib.ExitStack() as holders:
        for _ in range(2):
            holders.enter_context(world.connect(autocommit=False)).execute("SELECT 1")
        yield


def literal(value: str) -> str:
    """As a careful client writes it, in a session that has standard_conforming_strings on."""
    return "'" + value.replace("'", "''") + "'"


@pytest.mark.parametrize("how", ["set", "set_config"])
@pytest.mark.parametrize("before", BEFORE)
def test_values_are_replayed_as_they_were(world: World, before: str, how: str) -> None:
    narrow(world)
    notices: list[str] = []
    with one_connection(world), world.connect() as client, world.connect() as other, straight(world) as direct:
        client.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        for name in NAMES:
            for value in VALUES:
                other.execute("RESET mine.x" if name == "mine.x" else "RESET search_path")
                for one in (client, direct):
                    if how == "set":
                        one.execute(f"SET {name} = {literal(value)}".encode())
                    else:
                        listed = '"' + value.replace('"', '""') + '"' if name == "search_path" else value
                        one.execute("SELECT set_config(%s, %s, false)", [name, listed])
                other.execute("SET mine.x = 'other'")
                other.execute(f"SET {before}")
                for probe in (f"SHOW {name}", "SHOW client_encoding", "SELECT current_user = session_user"):
                    assert client.execute(probe).fetchone() == direct.execute(probe).fetchone(), (before, value)
                assert not notices
                reset(other)
                other.execute("RESET ROLE")
    assert world.execute("SELECT to_regclass('injected')") == [(None,)]


@pytest.mark.parametrize(
    ("encoding", "value"),
    [
        ("latin1", "M\xfcnchen".encode("latin1")),
        ("gbk", "成都\\".encode("gbk")),
        ("sjis", "ソ表".encode("shift_jis")),
        ("big5", "許功蓋".encode("big5")),
        ("win1252", "€uro".encode("cp1252")),
        ("euc_jp", "日本".encode("euc_jp")),
    ],
)
def test_values_in_another_encoding(world: World, encoding: str, value: bytes) -> None:
    digits = "SELECT encode(convert_to(current_setting('mine.x'), 'UTF8'), 'hex'), current_setting('client_encoding')"
    with one_connection(world), world.connect() as client, world.connect() as other, straight(world) as direct:
        for one in (client, direct):
            one.execute(f"SET client_encoding = {encoding}")
            one.execute(b"SET mine.x = '" + value + b"'")
        for before in ("client_encoding = utf8", "standard_conforming_strings = off", "client_encoding = latin1"):
            other.execute(f"SET {before}")
            assert client.execute(digits).fetchone() == direct.execute(digits).fetchone()


def test_a_tiny_statement_timeout_strikes_nobody_else(world: World) -> None:
    with one_connection(world), world.connect() as client, world.connect() as other:
        for number in range(100):
            client.execute(f"SET mine.x = '{number}'")
            # On a busy machine the other's own timeout may strike its own SET, as on a connection of its own.
            with pytest.raises(psycopg.errors.QueryCanceled):
                other.execute("SET mine.x = 'other'")
                other.execute("SET statement_timeout = '1ms'")
                other.execute("SELECT pg_sleep(1)")
            assert client.execute("SHOW mine.x").fetchone() == (str(number),)


def test_the_role_ends_with_discard_all(world: World) -> None:
    narrow(world)
    whoami = "SELECT current_user, session_user, current_setting('role')"
    steps = (
        ["SET ROLE narrow", "DISCARD ALL"],
        ["SET ROLE narrow", "RESET ALL"],
        ["SET ROLE narrow", "set role none"],
        ["SET ROLE narrow", "RESET ROLE"],
        ["SET ROLE narrow", "SET SESSION AUTHORIZATION DEFAULT"],
        ["BEGIN", "SET ROLE narrow", "ROLLBACK"],
        ["BEGIN", "SET LOCAL ROLE narrow", "COMMIT"],
        ["SET ROLE 'narrow'", "BEGIN", "RESET ROLE", "ROLLBACK"],
        ["SELECT set_config('role', 'narrow', false)", "DISCARD ALL"],
        ["SELECT set_config('role', 'narrow', false)"],
    )
    with one_connection(world), world.connect() as other:
        for step in steps:
            with world.connect() as client, straight(world) as direct:
                for one in (client, direct):
                    for statement in step:
                        one.execute(statement)
                other.execute("SELECT 1")
                assert client.execute(whoami).fetchone() == direct.execute(whoami).fetchone(), step
