"""What a prepared statement's text means is settled by its client's own Parse, wherever it is prepared again, and by what it names."""

from typing import Final

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
from tests.e2e.postgres_world import World
from tests.e2e.test_postgres_placeholders import one_connection

READ_OTHERWISE: Final = (
    ("SET datestyle = 'German, DMY'", "SELECT date '01/02/2024' - date '2024-01-01'"),
    ("SET timezone = 'Asia/Tokyo'", "SELECT extract(epoch FROM timestamptz '2024-01-01 00:00')"),
    ("SET intervalstyle = 'sql_standard'", "SELECT extract(epoch FROM interval '-1 2:03:04')"),
    ("SET standard_conforming_strings = off", r"SELECT length('a\\b')"),
    ("SET transform_null_equals = on", "SELECT count(*) FROM (VALUES (NULL::int)) AS v(a) WHERE a = NULL"),
)
"""A setting, and a text that means something else by it."""
COPY: Final = "EXECUTE p; COPY copied FROM STDIN"
COPY_DATA: Final = b"d\0\0\0\x061\n"
COPY_DONE: Final = b"c\0\0\0\x04"


@pytest.fixture
def world(each_postgres: World) -> World:
    return each_postgres


def run(client: Raw, sql: str) -> None:
    """By a named statement: a simple query would end the unnamed one."""
    assert "E" not in kinds(client.ask(parse("run", sql), bind("run"), execute(), close_statement("run"), SYNC)), sql


def describe_portal(name: str = "") -> bytes:
    body = b"P" + name.encode() + b"\0"
    return b"D" + (len(body) + 4).to_bytes(4, "big") + body


@pytest.mark.parametrize("described", [False, True])
@pytest.mark.parametrize("name", ["", "s"])
def test_constants_mean_what_they_meant_when_the_client_prepared_them(world: World, name: str, described: bool) -> None:
    port = world.pooler.port("trust")
    with one_connection(world):
        for setting, text in READ_OTHERWISE:
            with Raw(port).log_in() as client, Raw(port).log_in() as other:
                client.ask(parse(name, text), *([describe_statement(name)] if described else []), SYNC)
                before = client.value(bind(name), execute(), SYNC)
                run(client, setting)
                other.ask(parse("", "SELECT 1"), SYNC)
                for _ in range(2):
                    assert client.value(bind(name), execute(), SYNC) == before, setting
                with Raw(port).log_in() as third:
                    run(third, setting)
                    assert third.value(parse(name, text), bind(name), execute(), SYNC) != before, setting


@pytest.mark.parametrize("name", ["", "s"])
def test_a_text_that_is_sent_behind_a_setting_whose_answer_is_still_to_come(world: World, name: str) -> None:
    port = world.pooler.port("trust")
    with one_connection(world):
        for setting, text in READ_OTHERWISE:
            with Raw(port).log_in() as client, Raw(port).log_in() as other:
                usual = client.value(parse("", text), bind(""), execute(), SYNC)
                other.ask(query("SELECT 1"))  # behind the question what the database's functions do
                # By a text of which nobody can say beforehand that it comes to its end.
                client.ask(query(f"SELECT 1/1; {setting}"), parse(name, text), SYNC)
                client.until_ready()
                meant = client.value(bind(name), execute(), SYNC)
                assert meant != usual, setting
                # What its session is asked about its statements must not change them.
                listed = (parse("l", "SELECT count(*) FROM pg_prepared_statements"), bind("l"), execute(), close_statement("l"), SYNC)
                assert client.value(*listed) is not None
                run(client, setting.replace("SET", "RESET").partition(" =")[0])
                other.ask(parse("", "SELECT 1"), SYNC)
                assert client.value(bind(name), execute(), SYNC) == meant, setting
                # And behind a setting that is under way, one from before it.
                other.ask(parse("", "SELECT 1"), SYNC)
                client.ask(parse("run", setting), bind("run"), execute(), close_statement("run"), SYNC, bind(name), execute(), SYNC)
                assert [first_column(payload) for kind, payload in client.until_ready() if kind == "D"] == [meant], setting


def test_what_a_text_means_by_its_names_is_prepared_by_the_settings_of_then(world: World) -> None:
    """Here: letters that are none in the encoding to which the session is on its way back. The listing comes right behind that."""
    listing = "SELECT string_agg(statement, ', ') FROM pg_prepared_statements WHERE name = 'p'"
    in_gb18030 = b"p\0SELECT '\xbf\\'\0\0\0"
    ways = {
        "query": (query(listing),),
        "extended": (parse("l", listing), bind("l"), execute(), close_statement("l"), SYNC),
        "unnamed": (parse("", listing), bind(""), execute(), SYNC),
        "by its name": (query("EXECUTE p"),),
    }
    port = world.pooler.port("trust")
    with one_connection(world):
        for way, asked in ways.items():
            with Raw(port).log_in() as client, Raw(port).log_in() as other:
                client.ask(query("SET standard_conforming_strings = off; SET client_encoding = gb18030"))
                client.ask(wire.message(wire.PARSE, in_gb18030), SYNC)
                for _ in range(3):
                    other.ask(query("SELECT 1"))
                    client.ask(query("SELECT 1/1; RESET client_encoding"), *asked)
                    (value,) = [first_column(payload) for kind, payload in client.until_ready() if kind == "D"]
                    assert value is not None, way
                    assert "縗" in value, way
                    client.ask(query("SET client_encoding = gb18030"))


def test_what_an_unnamed_statement_calls_may_have_been_replaced(world: World) -> None:
    create = "CREATE OR REPLACE FUNCTION replaced() RETURNS text LANGUAGE sql AS "
    port = world.pooler.port("trust")
    with one_connection(world), Raw(port).log_in() as client, Raw(port).log_in() as other:
        other.ask(query(create + "'SELECT ''a''::text'"))
        other.ask(query("SELECT 1"))
        assert client.value(parse("", "SELECT replaced()"), bind(""), execute(), SYNC) == "a"
        client.ask(parse("", "SELECT replaced()"), SYNC)
        other.ask(query(create + "'SELECT set_config(''replaced.a'', ''b'', false)'"))
        other.ask(query("SELECT 1"))
        assert client.value(bind(""), execute(), SYNC) == "b"
        assert other.value(query("SELECT current_setting('replaced.a', true)")) is None
        assert client.value(query("SELECT current_setting('replaced.a', true)")) == "b"


@pytest.mark.parametrize("name", ["", "e"])
def test_execute_of_a_statement_of_the_protocol_is_described_wherever_it_is_prepared(world: World, name: str) -> None:
    port = world.pooler.port("trust")
    with one_connection(world), Raw(port).log_in() as client, Raw(port).log_in() as other:
        client.ask(parse("p", "SELECT 1 AS x"), SYNC)
        client.ask(parse(name, "EXECUTE p"), SYNC)
        for _ in range(2):
            other.ask(parse("", "SELECT 2"), SYNC)
            assert kinds(client.ask(bind(name), describe_portal(), execute(), SYNC)) == "2TDCZ"
            other.ask(parse("", "SELECT 2"), SYNC)
            assert kinds(client.ask(describe_statement(name), SYNC)) == "tTZ"


def test_a_portal_of_execute_lasts_beyond_its_segment(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(parse("p", "SELECT generate_series(1, 3) AS x"), parse("e", "EXECUTE p"), SYNC)
        client.ask(query("BEGIN"))
        assert kinds(client.ask(bind("e", portal="w"), SYNC)) == "2Z"
        assert kinds(client.ask(describe_portal("w"), execute("w", 1), SYNC)) == "TDsZ"
        assert kinds(client.ask(execute("w"), SYNC)) == "DDCZ"
        client.ask(query("COMMIT"))


def test_copy_from_the_client_beside_a_name_is_refused(world: World) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(query("CREATE TABLE copied (a int)"))
        client.ask(parse("p", "SELECT 1"), SYNC)
        error = error_of(client.ask(query(COPY), COPY_DATA, COPY_DONE))
        assert error["C"] == "0A000"
        assert "COPY FROM STDIN" in error["M"]
        assert client.value(query("SELECT count(*) FROM copied")) == "0"
        assert kinds(client.ask(query("COPY copied FROM STDIN"), COPY_DATA, COPY_DONE)) == "GCZ"
        assert client.value(bind("p"), execute(), SYNC) == "1"


RESETS: Final = ("RESET ALL", "RESET client_encoding", "SET client_encoding TO DEFAULT", "DISCARD ALL", "DO $$BEGIN RESET ALL; END$$")


@pytest.mark.parametrize("listener", ["trust", "session-trust"])
def test_what_the_start_up_packet_has_set_is_there_after_every_kind_of_reset(world: World, listener: str) -> None:
    for sql in RESETS:
        for messages in ((query(sql),), (parse("", sql), bind(""), execute(), SYNC), (parse("n", sql), bind("n"), execute(), SYNC)):
            with Raw(world.pooler.port(listener)).log_in(client_encoding="LATIN1", DateStyle="German") as client:
                client.ask(query("SET datestyle = 'SQL, DMY'"))
                assert "E" not in kinds(client.ask(*messages)), sql
                assert client.value(query("SHOW client_encoding")) == "LATIN1", (sql, messages)
                kept = "SQL, DMY" if "encoding" in sql else "German, DMY"
                assert client.value(query("SHOW datestyle")) == kept, (sql, messages)


@pytest.mark.parametrize("sql", ["RESET /* é表 */ client_encoding", r"RESET client_encoding /* \ */"])
def test_a_reset_that_can_be_read_when_the_setting_before_is_known(world: World, sql: str) -> None:
    """It comes while the server is asked what has become of the setting, by which it is read."""
    for messages in ((query(sql),), (parse("", sql), bind(""), execute(), SYNC), (parse("n", sql), bind("n"), execute(), SYNC)):
        with Raw(world.pooler.port("trust")).log_in(client_encoding="LATIN1") as client:
            client.ask(query("SELECT 1/1; SET client_encoding = utf8"), *messages)
            client.until_ready()
            assert client.value(query("SHOW client_encoding")) == "LATIN1", messages


TRIGGER: Final = (
    "CREATE FUNCTION set_by_row() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM set_config(new.name, 'b', false); RETURN new; END$$",
    "CREATE TABLE names (name text)",
    "CREATE TRIGGER set_by_row BEFORE INSERT ON names FOR EACH ROW EXECUTE FUNCTION set_by_row()",
)


def test_a_setting_of_the_start_up_packet_that_a_trigger_takes_from_a_row(world: World) -> None:
    port = world.pooler.port("trust")
    options = "-c started.c=a"
    with Raw(port).log_in(options=options) as client, Raw(port).log_in(options=options) as other:
        for sql in TRIGGER:
            other.ask(query(sql))
        row = b"started.c\n"
        data = b"d" + (len(row) + 4).to_bytes(4, "big") + row
        assert kinds(client.ask(query("COPY names FROM STDIN"), data, COPY_DONE)) == "GCZ"
        assert other.value(query("SELECT current_setting('started.c')")) == "a"
        assert client.value(query("SELECT current_setting('started.c')")) == "b"
