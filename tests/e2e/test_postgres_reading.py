"""What texts, functions and triggers do to the session, in all spellings: their client keeps it, and nobody else has it."""

from collections.abc import Iterator
from typing import Final

import psycopg
import pytest

from tests.e2e.postgres_world import Client, World
from tests.e2e.test_postgres_state import LOCKS, TEMPORARY, number, strict_world
from tests.helpers.servers import PostgresServer

PREPARATIONS: Final = """
CREATE FUNCTION sets() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''app.unseen'', ''left'', false); END';
CREATE FUNCTION puts_together() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''se'' || ''t work_mem = 7777''; END';
CREATE FUNCTION locks() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(7)';
CREATE FUNCTION lower(a int) RETURNS text LANGUAGE sql AS 'SELECT set_config(''work_mem'', ''7777kB'', false)';
CREATE FUNCTION triggered() RETURNS trigger LANGUAGE plpgsql AS '
BEGIN PERFORM set_config(''work_mem'', ''7777kB'', false); RETURN NEW; END';
CREATE TABLE with_trigger (a int);
CREATE TRIGGER t BEFORE INSERT ON with_trigger FOR EACH ROW EXECUTE FUNCTION triggered();
CREATE TABLE with_default (a text DEFAULT set_config('work_mem', '7777kB', false), b int);
CREATE VIEW with_function AS SELECT set_config('work_mem', '7777kB', false);
CREATE FUNCTION adds(a point, b int) RETURNS text LANGUAGE sql AS 'SELECT set_config(''work_mem'', ''7777kB'', false)';
CREATE OPERATOR #+# (LEFTARG = point, RIGHTARG = int, FUNCTION = adds);
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
CREATE FUNCTION of_row(with_trigger) RETURNS text LANGUAGE sql AS 'SELECT set_config(''work_mem'', ''7777kB'', false)';
"""
WORK_MEM: Final = "SHOW work_mem"
CUSTOM: Final = "SELECT coalesce(current_setting('app.unseen', true), '')"

# What a client does, and the question that shows it.
UNSEEN: Final = {
    "behind BEGIN ATOMIC": (
        "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SET work_mem = '7777kB'", WORK_MEM,
    ),
    "UPDATE pg_settings": ("UPDATE pg_settings SET setting = '7777' WHERE name = 'work_mem'", WORK_MEM),
    "set_config by an escaped name": (r"""SELECT U&"set\005fconfig"('work_mem', '7777kB', false)""", WORK_MEM),
    "set_config of a name that is put together": ("SELECT set_config('work_' || 'mem', '7777kB', false)", WORK_MEM),
    "put together in a DO": ("DO $$ BEGIN EXECUTE 'se' || 't work_mem = 7777'; END $$", WORK_MEM),
    "a custom setting in a DO": ("DO $$ BEGIN EXECUTE 'se' || 't app.unseen = 1'; END $$", CUSTOM),
    "in a DO in quotes": ("DO 'BEGIN SET app.unseen = ''left''; END'", CUSTOM),
    "in a DO with escapes": (r"DO E'BEGIN S\x45T app.unseen = 1; END'", CUSTOM),
    "behind 40 KB": ("SELECT '" + "x" * 40_000 + "'; SET app.unseen = 'left'", CUSTOM),
    "behind 400 KB": ("SELECT '" + "x" * 400_000 + "'; SET app.unseen = 'left'", CUSTOM),
    "a lock behind 400 KB": ("SELECT '" + "x" * 400_000 + "', pg_advisory_lock(9)", LOCKS),
    "in a function": ("SELECT sets()", CUSTOM),
    "in a function that puts it together": ("SELECT puts_together()", WORK_MEM),
    "in a function with the name of a harmless one": ("SELECT lower(1)", WORK_MEM),
    "in a function of a row": ("WITH r AS (SELECT 1 AS a) SELECT (ROW(a)::with_trigger).of_row FROM r", WORK_MEM),
    "in a trigger": ("INSERT INTO with_trigger VALUES (1)", WORK_MEM),
    "in a default": ("INSERT INTO with_default (b) VALUES (1)", WORK_MEM),
    "in a view": ("SELECT * FROM with_function", WORK_MEM),
    "in an operator": ("SELECT point '(1,1)' #+# 1", WORK_MEM),
    "a lock in a function": ("SELECT locks()", LOCKS),
    "a lock by an escaped name": (r"""SELECT U&"pg_advisory\005flock"(5)""", LOCKS),
    "a temporary table behind comments": ("CREATE /* /* */ */ -- x\n TEMP /**/ TABLE t (a int)", TEMPORARY),
    "SELECT INTO behind comments": ("SELECT 1 AS a INTO /* * */ LOCAL /* * */ TEMP t", TEMPORARY),
    "a temporary schema in Unicode": (r"""CREATE TABLE U&"pg\005ftemp".t (a int)""", TEMPORARY),
}  # fmt: skip


@pytest.fixture(scope="module")
def two(postgres_server: PostgresServer) -> Iterator[World]:
    """Two server connections, and none of the strictness that finds what this is about."""
    with strict_world(postgres_server, pool_size=2, keys='pin = "allow"') as world:
        world.execute(PREPARATIONS)
        yield world


def value(client: Client, question: str) -> str:
    row = client.execute(question.encode()).fetchone()
    assert row is not None
    return str(row[0])


SEVERAL: Final = ("behind BEGIN ATOMIC", "behind 40 KB", "behind 400 KB")
"""Texts of several statements, which cannot be prepared."""


@pytest.mark.parametrize(("name", "extended"), [(name, way) for name in UNSEEN for way in (False, True) if not (way and name in SEVERAL)])
def test_its_client_keeps_it_and_the_next_one_has_none_of_it(two: World, name: str, extended: bool) -> None:
    does, question = UNSEEN[name]
    with two.connect() as fresh:
        default = value(fresh, question)
    with two.connect() as first, two.connect() as second:
        first.execute(does.encode(), prepare=extended)
        assert [value(second, question) for _ in range(3)] == [default] * 3
        assert value(first, question) != default
        assert value(second, question) == default
    with two.connect() as third:
        assert [value(third, question) for _ in range(3)] == [default] * 3


ENCODED: Final = {
    "a backslash ends no string": ("SET standard_conforming_strings = off", rb"SELECT 'a\'b'; SET work_mem = '7777kB'; SELECT 'c\'d'"),
    "a backslash ends a string": ("SET standard_conforming_strings = on", rb"SELECT 'a\'; SET work_mem = '7777kB'; SELECT 'c\'"),
    "SJIS": ("SET client_encoding = SJIS", b"SELECT E'\x83\x5c'; SET work_mem = '7777kB'; SELECT E'\x83\x5c'"),
    "BIG5": ("SET client_encoding = BIG5", b"SELECT E'\xa5\x5c'; SET work_mem = '7777kB'; SELECT E'\xa5\x5c'"),
    "GBK": ("SET client_encoding = GBK", b"SELECT E'\x81\x5c'; SET work_mem = '7777kB'; SELECT E'\x81\x5c'"),
    "GB18030": ("SET client_encoding = GB18030", b"SELECT E'\x81\x5c'; SET work_mem = '7777kB'; SELECT E'\x81\x5c'"),
    "UHC": ("SET client_encoding = UHC", b"SELECT E'\xb0\xa1'; SET work_mem = '7777kB'; SELECT E'\xb0\xa1'"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_texts_are_read_by_the_sessions_own_settings(two: World, name: str) -> None:
    setting, text = ENCODED[name]
    with two.connect() as first, two.connect() as second:
        default = value(second, WORK_MEM)
        first.execute(setting.encode())
        first.execute(text)
        assert [value(second, WORK_MEM) for _ in range(3)] == [default] * 3
        first.execute(b"RESET client_encoding; RESET standard_conforming_strings")
        assert value(first, WORK_MEM) == "7777kB"


def test_a_leak_that_a_sample_finds(postgres_server: PostgresServer) -> None:
    with strict_world(postgres_server, pool_size=1, keys="verify_every = 1") as world:
        world.execute("CREATE FUNCTION locks_unseen() RETURNS void LANGUAGE sql STABLE AS 'SELECT pg_advisory_lock(8)'")
        with world.connect() as client:
            client.execute("SELECT 1")  # behind it the catalog is asked for, and the next client waits for that
            with world.connect() as other:
                other.execute("SELECT 1")
            client.execute("SELECT locks_unseen()")
            world.pooler.wait_for_log(
                r"the session holds what could not be seen to begin: advisory lock; the statements were: .*locks_unseen"
            )
            # From now on the text is in doubt. Its client keeps what it holds.
            client.execute("SELECT locks_unseen()")
            assert number(client, LOCKS) == 1


def test_ddl_is_noticed(two: World) -> None:
    """A function that becomes volatile, and a trigger that is made, by another client."""
    with two.connect() as owner, two.connect() as client, two.connect() as other:
        default = value(other, WORK_MEM)
        owner.execute("CREATE OR REPLACE FUNCTION changes() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''a''::text'")
        for _ in range(5):
            client.execute("SELECT changes()")
        owner.execute(
            "CREATE OR REPLACE FUNCTION changes() RETURNS text LANGUAGE sql AS 'SELECT set_config(''work_mem'', ''7777kB'', false)'"
        )
        client.execute("SELECT changes()")
        assert value(other, WORK_MEM) == default
        assert value(client, WORK_MEM) == "7777kB"
        client.execute("RESET ALL")


def test_an_error_in_a_text_that_cannot_be_read_harms_nobody(two: World) -> None:
    with two.connect() as client, two.connect() as other:
        for text in (b"SELECT 'a", b"SELECT $a$ b", b"SELECT 1x", b'SELECT "', b"SELECT /* ", b"gibberish"):
            with pytest.raises(psycopg.Error):
                client.execute(text)
            assert value(other, "SELECT 1") == "1"
        assert value(client, "SELECT 1") == "1"


CALLING: Final = {
    "called_by_a_view": "CREATE VIEW called_by_a_view AS SELECT volatile_one() AS n",
    "called_by_a_default": "CREATE TABLE called_by_a_default (n int DEFAULT volatile_one(), CHECK (volatile_one() > n))",
    "called_by_a_policy": "CREATE TABLE called_by_a_policy (n int); CREATE POLICY p ON called_by_a_policy USING (volatile_one() > n);"
    " CREATE TRIGGER t AFTER INSERT ON called_by_a_policy FOR EACH ROW EXECUTE FUNCTION volatile_trigger()",
}


def test_what_somebody_is_changing_holds_up_nobody(two: World) -> None:
    """What the catalog says of a view and its like can only be asked while nobody changes it."""
    two.execute(
        "CREATE FUNCTION volatile_one() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;"
        " CREATE FUNCTION volatile_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        + "; ".join(CALLING.values())
    )
    for changed in CALLING:
        with psycopg.connect(two.server.admin_url, dbname=two.database) as administrator, two.connect() as client:
            administrator.execute(f"LOCK TABLE {changed} IN ACCESS EXCLUSIVE MODE")
            client.execute(f"CREATE TABLE so_the_catalog_is_read_again_{changed} ()")
            for _ in range(3):
                client.execute("DO $$ BEGIN END $$")
                with two.connect() as other:
                    assert other.execute("SELECT 1").fetchone() == (1,)
