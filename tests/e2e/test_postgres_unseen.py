"""Settings that no text names: a view makes them, a default, a rule, a trigger on what COPY brings. The next client has none of them."""

import psycopg
import pytest

from tests.e2e.postgres_world import RunWorld
from tests.helpers.servers import PostgresServer

OBJECTS = """
CREATE VIEW viewing AS SELECT set_config('unseen.a', 'by a view', false) AS v;
CREATE TABLE defaulting (id int, v text DEFAULT set_config('unseen.b', 'by a default', false));
CREATE TABLE ruled (id int);
INSERT INTO ruled VALUES (1);
CREATE RULE ruling AS ON UPDATE TO ruled DO ALSO SELECT set_config('unseen.c', 'by a rule', false);
CREATE TABLE triggering (name text, value text);
CREATE FUNCTION setting() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM set_config(new.name, new.value, false); RETURN new; END';
CREATE TRIGGER setting BEFORE INSERT ON triggering FOR EACH ROW EXECUTE FUNCTION setting();
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
"""
NAMES = ("unseen.a", "unseen.b", "unseen.c", "unseen.d")
ASK = "SELECT " + ", ".join(f"current_setting('{name}', true)" for name in NAMES)


def copies(client: psycopg.Connection[tuple[object, ...]]) -> None:
    with client.cursor().copy("COPY triggering FROM STDIN") as copy:
        copy.write_row(("unseen.d", "by a trigger"))


@pytest.mark.parametrize(
    "statement", ["SELECT * FROM viewing", "TABLE viewing", "INSERT INTO defaulting (id) VALUES (1)", "UPDATE ruled SET id = 2", "COPY"]
)
def test_the_next_client_has_no_value(run_world: RunWorld, postgres_server: PostgresServer, statement: str) -> None:
    world = run_world(postgres_server, 1)
    world.execute(OBJECTS)
    for _ in range(2):  # first while nothing is known of the database
        with world.connect() as client, world.connect() as other:
            if statement == "COPY":
                copies(client)
            else:
                client.execute(statement)
            found = other.execute(ASK).fetchone()
        assert not any(found or ()), found
