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


USED_UNSEEN = """
CREATE FUNCTION unseen_set() RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''unseen.a'', ''left'', false); RETURN 1; END';
CREATE FUNCTION unseen_state(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION unseen_moved(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN unseen_set(); END';
CREATE AGGREGATE unseen_sum(int) (sfunc = unseen_state, stype = int, initcond = '0',
  msfunc = unseen_moved, minvfunc = unseen_moved, mstype = int, minitcond = '0');
CREATE DOMAIN unseen_domain AS int DEFAULT unseen_set();
CREATE TABLE of_domain (id int, v unseen_domain);
CREATE FUNCTION unseen_compare(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM unseen_set(); RETURN btint4cmp($1, $2); END';
DO $$ DECLARE op text; number int := 0; parts text := ''; BEGIN
  FOREACH op IN ARRAY ARRAY['<', '<=', '=', '>=', '>'] LOOP
    number := number + 1;
    EXECUTE format('CREATE FUNCTION unseen_%s(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS ''SELECT $1 %s $2''', number, op);
    EXECUTE format('CREATE OPERATOR %s# (leftarg = int, rightarg = int, function = unseen_%s)', op, number);
    parts := parts || format('OPERATOR %s %s#, ', number, op);
  END LOOP;
  EXECUTE format('CREATE OPERATOR CLASS unseen_class FOR TYPE int USING btree AS %s FUNCTION 1 unseen_compare(int, int)', parts);
END $$;
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
"""


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT unseen_sum(v) OVER (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM generate_series(1, 3) AS v",
        "INSERT INTO of_domain (id) VALUES (1)",
        "SELECT v FROM generate_series(1, 3) AS v ORDER BY v USING <#",
    ],
)
def test_what_other_objects_call_is_known(run_world: RunWorld, postgres_server: PostgresServer, statement: str) -> None:
    world = run_world(postgres_server, 1)
    world.execute(USED_UNSEEN)
    for _ in range(5):
        with world.connect() as client, world.connect() as other:
            client.execute(statement)
            assert other.execute("SELECT nullif(current_setting('unseen.a', true), '')").fetchone() == (None,)
            assert client.execute("SELECT current_setting('unseen.a', true)").fetchone() == ("left",)


DYNAMIC = """
CREATE FUNCTION dynamic_set(n text) RETURNS int LANGUAGE plpgsql AS
  $$BEGIN EXECUTE 'SET dynamic.' || n || ' = left'; RETURN 1; END$$;
CREATE FUNCTION dynamic_wrapped(n text) RETURNS int LANGUAGE sql AS 'SELECT dynamic_set(n)';
CREATE FUNCTION dynamic_atomic(n text) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT dynamic_wrapped(n); END;
CREATE TABLE dynamically (n text);
CREATE FUNCTION dynamic_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM dynamic_set(new.n); RETURN new; END';
CREATE TRIGGER dynamic_trigger BEFORE INSERT ON dynamically FOR EACH ROW EXECUTE FUNCTION dynamic_trigger();
CREATE FUNCTION dynamic_insert(n text) RETURNS void LANGUAGE sql AS 'INSERT INTO dynamically VALUES (n)';
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
"""


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT dynamic_set('name')",
        "SELECT dynamic_wrapped('name')",
        "SELECT dynamic_atomic('name')",
        "INSERT INTO dynamically VALUES ('name')",
        "SELECT dynamic_insert('name')",
    ],
)
def test_a_name_that_is_put_together_is_reset_however_often(run_world: RunWorld, postgres_server: PostgresServer, statement: str) -> None:
    world = run_world(postgres_server, 1)
    world.execute(DYNAMIC)
    with world.connect() as client, world.connect() as other:
        for turn in range(5):
            client.execute(statement)
            found = other.execute("SELECT current_setting(concat('dynamic'::text, '.'::text, 'name'::text), true)").fetchone()
            assert not any(found or ()), turn
