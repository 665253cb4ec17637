"""lastval() and currval() tell a client its own numbers, or that they are not known; never those of another client."""

import contextlib

import psycopg
import pytest

from tests.e2e.postgres_world import Client, RunWorld, World
from tests.helpers.servers import Servers

UNKNOWN = psycopg.errors.ObjectNotInPrerequisiteState


def value(client: Client, sql: str, prepare: bool = False) -> int:
    row = client.execute(sql, prepare=prepare).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(params=[15, 18])
def world(servers: Servers, run_world: RunWorld, request: pytest.FixtureRequest) -> World:
    made = run_world(servers.postgres(request.param), 1)
    made.execute("CREATE TABLE ids (id serial, v text); ALTER TABLE ids OWNER TO app; ALTER SEQUENCE ids_id_seq OWNER TO app")
    return made


INSERT = "INSERT INTO ids (v) VALUES ('x')"
QUESTIONS = (
    "SELECT lastval()",
    "SELECT currval('ids_id_seq')",
    'SELECT pg_catalog."lastval"()',
    r"""SELECT U&"l\0061stval"()""",
    "SELECT pg_catalog . /* */ currval ('ids_id_seq'::regclass)",
)


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_number_of_another_client(world: World, question: str, prepare: bool) -> None:
    with world.connect() as one, world.connect() as two:
        for turn in range(3):
            one.execute(INSERT)
            with pytest.raises(UNKNOWN, match=r"not known|not yet defined") as refusal:
                value(two, question, prepare)
            if not turn:
                assert "sequence_values" in (refusal.value.diag.message_hint or "")
            with pytest.raises(UNKNOWN):
                value(one, question, prepare)
            # Where the transaction itself has taken a number it is told, from the second time on at the latest.
            with contextlib.suppress(UNKNOWN) if not turn else contextlib.nullcontext(), one.transaction():
                own = value(one, f"{INSERT} RETURNING id")
                assert value(one, question, prepare) == own
        assert value(two, "SELECT 7") == 7


def test_a_client_alone_has_its_numbers(world: World) -> None:
    with world.connect() as client:
        for _ in range(3):
            with client.transaction():
                client.execute("SELECT 'lastval()'")
            with contextlib.suppress(UNKNOWN):
                value(client, "SELECT lastval()")
            own = value(client, f"{INSERT} RETURNING id")
            assert value(client, "SELECT lastval()") == own


def test_a_string_with_the_word_is_not_refused(world: World) -> None:
    with world.connect() as one, world.connect() as two:
        one.execute(INSERT)
        assert two.execute("SELECT 'lastval()' -- currval()").fetchone() == ("lastval()",)
        assert two.execute("SELECT %s || 'lastval()'", ["x"]).fetchone() == ("xlastval()",)


def test_pinned_sequences(servers: Servers, run_world: RunWorld) -> None:
    more = '[databases.pinned]\nbackend = "main"\ndatabase = "{database}"\npool_size = 2\nsequence_values = "pin"\n'
    world = run_world(servers.postgres(18), 1, more)
    world.execute("CREATE TABLE ids (id serial, v text); ALTER TABLE ids OWNER TO app; ALTER SEQUENCE ids_id_seq OWNER TO app")
    with world.connect(dbname="pinned") as one, world.connect(dbname="pinned") as two:
        for client in (one, two, one, two):
            client.execute(INSERT)
        assert [value(client, "SELECT lastval()") for client in (one, two)] == [3, 4]
        one.execute("DISCARD ALL")
        with pytest.raises(UNKNOWN):
            value(one, "SELECT lastval()")
        assert value(two, "SELECT currval('ids_id_seq')") == 4
