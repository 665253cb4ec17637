"""Settings whose names, values and readers are spelled, or encoded, in unusual ways: a client keeps its own, and no other sees them."""

from typing import Final

import psycopg
import pytest

from tests.e2e.postgres_world import World
from tests.e2e.test_postgres_placeholders import one_connection, read

FUNCTION: Final = (
    "CREATE FUNCTION set_by_function(name text, value text) RETURNS text LANGUAGE plpgsql AS"
    " $$BEGIN RETURN set_config(name, value, false); END$$"
)
SPELLED: Final = (
    ("s{}.ü", "'s{}.ü'"),
    ("s{}.a", r"E'\x73{}.\141'"),
    ("s{}.b", "'s'\n'{}.b'"),
    ("s{}.c", "$$s{}.c$$"),
    ("s{}.d", "$a$s{}.d$a$"),
    ("s{}.e", r"U&'\0073{}.e'"),
    ("s{}.ö", r"E's{}.\u00f6'"),
    ("s{}.F", "'s{}.F'"),
)
"""The name of a setting, and how it is written."""
CALLS: Final = ("set_config({}, 'x', false)", "set_by_function({}, 'x')")
ENCODINGS: Final = ("utf8", "latin1")


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


def test_a_setting_is_its_clients_whatever_its_spelling(world: World) -> None:
    with world.connect() as client:
        client.execute(FUNCTION)
    cases = [(call, encoding, *spelled) for call in CALLS for encoding in ENCODINGS for spelled in SPELLED]
    with one_connection(world):
        for number, (call, encoding, name, spelled) in enumerate(cases):
            name, spelled = name.format(number), spelled.format(number)
            with world.connect() as client, world.connect() as other:
                client.execute(f"SET client_encoding = '{encoding}'")
                client.execute(f"SELECT {call.format(spelled)}")
                assert read(other, name) is None, spelled
                assert read(client, name) == "x", spelled


def test_the_catalog_is_read_whatever_a_backslash_is(world: World) -> None:
    """The names of settings that functions make come from the catalog: each client asks for it after DDL."""
    with one_connection(world), world.connect() as client, world.connect() as other:
        client.execute("SET standard_conforming_strings = off")
        client.execute(
            "CREATE FUNCTION set_unseen() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN set_config('unseen.a', 'x', false); END$$"
        )
        client.execute("BEGIN; SAVEPOINT a; SELECT set_unseen(); ROLLBACK TO SAVEPOINT a; COMMIT")
        assert read(other, "unseen.a") is None


def test_values_that_a_clients_encoding_does_not_have(world: World) -> None:
    with one_connection(world), world.connect() as client, world.connect() as other:
        client.execute("SET app.spelled = '縗'")
        client.execute("SET client_encoding = 'latin1'")
        assert read(other, "app.spelled") is None
        assert client.execute("SELECT length(current_setting('app.spelled'))").fetchone() == (1,)


QUOTED: Final = ('SET quoted0."A" = $$x$$', 'SET "quoted1".a = $$x$$', r'SET quoted2.U&"\0061" = $$x$$')


@pytest.mark.parametrize("number", range(len(QUOTED)))
def test_names_in_quotes_in_what_a_function_runs(world: World, number: int) -> None:
    with world.connect() as client:
        client.execute(
            "CREATE OR REPLACE FUNCTION runs(statement text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE statement; RETURN 1; END$$"
        )
    with one_connection(world), world.connect() as client, world.connect() as other:
        client.execute(f"SELECT runs('{QUOTED[number]}')")
        assert read(other, f"quoted{number}.a") is None
        assert read(client, f"quoted{number}.a") == "x"


def test_what_a_comparison_with_null_means_is_each_clients_own(world: World) -> None:
    text = "SELECT 1 WHERE NULLIF(1, 1) = NULL"
    with one_connection(world), world.connect() as one, world.connect() as two:
        assert one.execute(text, prepare=True).fetchone() is None
        two.execute("SET transform_null_equals = on")
        assert two.execute(text, prepare=True).fetchone() == (1,)
        assert one.execute(text, prepare=True).fetchone() is None


@pytest.mark.parametrize(
    ("setting", "then", "now", "text", "expected"),
    [
        ("datestyle", "German", "ISO, MDY", "SELECT date '01/02/2024' - date '2024-01-01'", 31),
        ("timezone", "Asia/Tokyo", "UTC", "SELECT extract(epoch FROM timestamptz '2024-01-01 00:00')::int", 1704034800),
        ("standard_conforming_strings", "off", "on", r"SELECT length('a\\b')", 3),
    ],
)
def test_constants_mean_what_they_meant_when_they_were_prepared(
    world: World, setting: str, then: str, now: str, text: str, expected: int
) -> None:
    """On a server connection of one's own they are settled then; on another one, too."""
    with world.connect() as client:
        client.execute(f"SET {setting} = '{then}'")
        assert client.execute(text, prepare=True).fetchone() == (expected,)
        client.execute(f"SET {setting} = '{now}'")
        for _ in range(3):
            assert client.execute(text, prepare=True).fetchone() == (expected,)
            row = client.execute(f"SHOW {setting}").fetchone()
            assert row == (now,)
            for pid in world.server_connections():
                world.execute("SELECT pg_terminate_backend(%s)", pid)
            world.wait_for_server_connections(0)


def test_what_is_asked_while_the_server_is_asked(world: World) -> None:
    """A setting that is made again while an earlier question for it is under way is not forgotten."""
    with world.connect() as client:
        client.execute("CREATE FUNCTION set_again(name text, value text) RETURNS text LANGUAGE plpgsql AS"
                       " $$BEGIN RETURN set_config(name, value, false); END$$")  # fmt: skip
    with one_connection(world), world.connect() as client, world.connect() as other:
        with client.pipeline():
            for value in range(20):
                client.execute(f"SELECT set_again('again.a', '{value}')")
        assert read(other, "again.a") is None
        assert read(client, "again.a") == "19"
        with pytest.raises(psycopg.errors.UndefinedObject):
            other.execute("SHOW again.a")
