"""Session state on one server connection: a client does a thing, others see no trace of it, it sees its own again, and the pin ends.

One row of the table for each condition. A pinned client has its server connection for itself, so others get another one; whether the pin
has ended is seen by the next client on a pool of one server connection: it waits for as long as the connection is held.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pymysql
import pytest

from tests.e2e.mysql_world import OURS, Client, RunWorld, World, rows, value, world
from tests.e2e.postgres_world import wait_until
from tests.helpers.servers import MySQLServer

BACKEND = "SELECT CONNECTION_ID() + 0 AS processlist_id"
HASTY = '[users.hasty]\npassword = "app"\nquery_wait = "300ms"'
"""A user who does not wait long for a server connection; all others do, however slow the machine is."""
COM_RESET_CONNECTION = 0x1F
WAITED = 1040
"""What a client is told that no server connection came for."""


@pytest.fixture(scope="module")
def single(mysql_server: MySQLServer) -> Iterator[World]:
    """A pool of one server connection."""
    with world(mysql_server, 1, HASTY, keys="strict = true") as made:
        made.execute("CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(20)) ENGINE=InnoDB")
        made.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')")
        made.execute("CREATE PROCEDURE assigns() SET @inside = 'a procedure'")
        made.execute("CREATE FUNCTION assigning() RETURNS INT NO SQL BEGIN SET @inside = 'a function'; RETURN 1; END")
        made.execute("CREATE TABLE triggered (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB")
        made.execute("CREATE TRIGGER assigned BEFORE INSERT ON triggered FOR EACH ROW SET @inside = 'a trigger'")
        made.execute("CREATE PROCEDURE gives(OUT x INT) SET x = 77")
        yield made


def run(client: Client, sql: str) -> list[tuple[object, ...]]:
    """All results of a text that may have several statements."""
    found: list[tuple[object, ...]] = []
    with client.cursor() as cursor:
        cursor.execute(sql)
        found += cursor.fetchall()
        while cursor.nextset():
            found += cursor.fetchall()
    return found


def is_held(world: World) -> bool:
    """Does somebody have the only server connection for itself? (Or is the machine slow: what must be free is `is_free`.)"""
    try:
        with world.connect(autocommit=True, user="hasty") as other:
            return value(other, "SELECT 1") != 1
    except pymysql.err.OperationalError as error:
        if error.args[0] != WAITED:
            raise
        return True


def is_free(world: World) -> bool:
    """Can everybody have the only server connection, sooner or later?"""
    with world.connect(autocommit=True) as other:
        return bool(value(other, "SELECT 1") == 1)


@contextlib.contextmanager
def clients(world: World) -> Iterator[tuple[Client, Client]]:
    """Two, with autocommit on and several statements in one text allowed."""
    flag = pymysql.constants.CLIENT.MULTI_STATEMENTS
    with world.connect(autocommit=True, client_flag=flag) as first, world.connect(autocommit=True, client_flag=flag) as second:
        yield first, second


# ------------------------------------------------------------------------------------------------------------- what is replayed

NOBODY = [(None,)]
REPLAYED = {
    "integer": ("SET @a = 5", "SELECT @a", [(5,)], NOBODY),
    "negative": ("SET @a = -7", "SELECT @a", [(-7,)], NOBODY),
    "unsigned": ("SET @a = 18446744073709551615", "SELECT @a - 1", [(18446744073709551614,)], NOBODY),
    "decimal": ("SET @a = 1.50", "SELECT CONCAT(@a)", [("1.50",)], NOBODY),
    "double": ("SET @a = 1e300", "SELECT @a * 2", [(2e300,)], NOBODY),
    "text": ("SET @a = 'it''s \\\\ \u2603 \"x\"; --'", "SELECT @a", [("it's \\ \u2603 \"x\"; --",)], NOBODY),
    "empty text": ("SET @a = ''", "SELECT @a", [("",)], NOBODY),
    "bytes": ("SET @a = x'00ff27'", "SELECT HEX(@a), IF(@a IS NULL, NULL, CHARSET(@a))", [("00FF27", "binary")], [(None, None)]),
    "collation": (
        "SET @a = _latin1'x' COLLATE latin1_german1_ci", "SELECT IF(@a IS NULL, NULL, COLLATION(@a))", [("latin1_german1_ci",)], NOBODY,
    ),
    "odd names": ("SET @`a b` = 1, @'c' = 2, @D.e$ = 3", "SELECT @`A B`, @C, @d.E$", [(1, 2, 3)], [(None, None, None)]),
    "several, by turns": ("SET @a = 1; SET @b = @a + 1; SELECT @c := @b + 1", "SELECT @a, @b, @c", [(1, 2, 3)], [(None, None, None)]),
    "by a query": ("SELECT id, name INTO @a, @b FROM t WHERE id = 2", "SELECT @a, @b", [(2, "two")], [(None, None)]),
    "by an out parameter": ("CALL gives(@a)", "SELECT @a", [(77,)], NOBODY),
    "beside a setting": ("SET @a = 1, sql_select_limit = 2", "SELECT @a, @@sql_select_limit", [(1, 2)], None),
    "by diagnostics": ("DO 1/0; GET DIAGNOSTICS @a = NUMBER", "SELECT @a IS NOT NULL", [(1,)], [(0,)]),
    "in a comment that is executed": ("/*!40101 SET @a = @@sql_mode, time_zone = '+03:00' */", "SELECT @@time_zone", [("+03:00",)], None),
    "setting": ("SET time_zone = '+05:00'", "SELECT @@time_zone", [("+05:00",)], None),
    "isolation": ("SET SESSION TRANSACTION READ ONLY", "SELECT @@transaction_read_only + 0", [(1,)], [(0,)]),
    "insert id": ("DO LAST_INSERT_ID(77)", "SELECT LAST_INSERT_ID()", [(77,)], [(0,)]),
    "schema": ("USE information_schema", "SELECT DATABASE()", [("information_schema",)], None),
}  # fmt: skip


@pytest.mark.parametrize("name", REPLAYED)
def test_what_is_replayed(single: World, name: str) -> None:
    does, asks, mine, others = REPLAYED[name]
    if name == "isolation" and single.server.is_mariadb:
        asks = "SELECT @@tx_read_only + 0"
    with clients(single) as (client, other):
        before = rows(other, asks)
        assert others is None or before == others
        run(client, does)
        for _ in range(2):
            assert rows(other, asks) == before
            assert rows(client, asks) == mine
            assert value(client, BACKEND) == value(other, BACKEND)
        assert is_free(single)
    with single.connect(autocommit=True) as later:
        assert rows(later, asks) == before


def test_variables_in_a_transaction_are_known_after_it(single: World) -> None:
    with clients(single) as (client, other):
        client.begin()
        for number in range(3):
            run(client, f"SET @v{number} = {number}")
        assert rows(client, "SELECT @v0, @v1, @v2") == [(0, 1, 2)]
        client.rollback()
        assert rows(other, "SELECT @v0, @v1, @v2") == [(None, None, None)]
        assert rows(client, "SELECT @v0, @v1, @v2") == [(0, 1, 2)]
        run(client, "SET @v0 = NULL")
        assert rows(other, "SELECT @v0, @v1, @v2") == [(None, None, None)]
        assert rows(client, "SELECT @v0, @v1, @v2") == [(None, 1, 2)]


def test_a_question_of_ours_leaves_no_trace(single: World) -> None:
    with clients(single) as (client, _):
        run(client, "SET @a = REPEAT('x', 70000)")
        assert is_held(single)
        run(client, "SELECT @a := 1/0")
        warnings = rows(client, "SHOW WARNINGS")
        assert 1365 in {code for _, code, _ in warnings}
        assert value(client, "SELECT @@warning_count") == len(warnings)


# ------------------------------------------------------------------------------------------------------------------ what pins


@dataclass
class Pinning:
    """`does` pins; `asks` sees it, and others get `others`; `ends` lets go (None: only a reset does)."""

    does: str
    asks: str
    mine: list[tuple[object, ...]]
    ends: str | None
    others: list[tuple[object, ...]] | int
    only: str = ""


MISSING = 1146
PINS = {
    "lock": Pinning(
        f"SELECT GET_LOCK('mine{OURS}', 0)", f"SELECT IS_USED_LOCK('mine{OURS}') = CONNECTION_ID()", [(1,)],
        f"DO RELEASE_LOCK('mine{OURS}')", NOBODY,
    ),
    "locks": Pinning(
        f"SELECT GET_LOCK('one{OURS}', 0), GET_LOCK(\"two{OURS}\", 0)",
        f"SELECT IS_FREE_LOCK('one{OURS}'), IS_FREE_LOCK('two{OURS}')", [(0, 0)], "SELECT RELEASE_ALL_LOCKS()", [(1, 1)],
    ),
    "lock of a computed name": Pinning(
        f"SELECT GET_LOCK(CONCAT('com', 'puted{OURS}'), 0)", f"SELECT IS_FREE_LOCK('computed{OURS}')", [(0,)],
        "SELECT RELEASE_ALL_LOCKS()", [(1,)],
    ),
    "lock in a comment": Pinning(
        f"SELECT 1 /*!50000 , GET_LOCK('hidden{OURS}', 0) */", f"SELECT IS_FREE_LOCK('hidden{OURS}')", [(0,)],
        f"DO RELEASE_LOCK('hidden{OURS}')", [(1,)],
    ),
    "table locks": Pinning("LOCK TABLES t READ", "SELECT COUNT(*) FROM t", [(3,)], "UNLOCK TABLES", [(3,)]),
    "table locks, until a transaction": Pinning("LOCK TABLES t READ", "SELECT COUNT(*) FROM t", [(3,)], "BEGIN; COMMIT", [(3,)]),
    "temporary table": Pinning(
        "CREATE TEMPORARY TABLE mine (x INT) ENGINE=InnoDB", "SELECT COUNT(*) FROM mine", [(0,)], "DROP TEMPORARY TABLE mine", MISSING
    ),
    "temporary tables": Pinning(
        "CREATE TEMPORARY TABLE IF NOT EXISTS mine AS SELECT * FROM t; CREATE /* c */ TEMPORARY TABLE `mine 2` (x INT)",
        "SELECT COUNT(*) FROM mine", [(3,)], "DROP TABLE mine, `mine 2`", MISSING,
    ),
    "temporary table over another": Pinning(
        "CREATE TEMPORARY TABLE t (x INT)", "SELECT COUNT(*) FROM t", [(0,)], "DROP TABLE t", [(3,)]
    ),
    "prepared statement": Pinning("PREPARE mine FROM 'SELECT 5'", "EXECUTE mine", [(5,)], "DEALLOCATE PREPARE mine", 1243),
    "handler": Pinning("HANDLER t OPEN AS h", "HANDLER h READ FIRST", [(1, "one")], "HANDLER h CLOSE", 1109),
    "xa": Pinning(
        "XA START 'XID'; INSERT INTO t VALUES (9, 'nine'); XA END 'XID'; XA PREPARE 'XID'", "SELECT 1", [(1,)], "XA ROLLBACK 'XID'", [(1,)]
    ),
    "insert id to come": Pinning(
        "SET insert_id = 500", "SELECT @@insert_id", [(500,)], "INSERT INTO numbers VALUES (); DELETE FROM numbers", [(0,)]
    ),
    "timestamp": Pinning("SET timestamp = 86400", "SELECT UNIX_TIMESTAMP()", [(86400,)], "SET timestamp = DEFAULT", []),
    "next transaction": Pinning("SET TRANSACTION READ ONLY", "SELECT 1", [(1,)], "BEGIN; COMMIT", [(1,)]),
    "profiling": Pinning("SET profiling = 1", "SELECT @@profiling", [(1,)], "SET profiling = 0", [(0,)]),
    "big variable": Pinning("SET @big = REPEAT('x', 100000)", "SELECT LENGTH(@big)", [(100000,)], "SET @big = 1", NOBODY),
    "procedure": Pinning("CALL assigns()", "SELECT @inside", [("a procedure",)], None, NOBODY),
    "function": Pinning("SELECT assigning()", "SELECT @inside", [("a function",)], None, NOBODY),
    "trigger": Pinning("INSERT INTO triggered VALUES ()", "SELECT @inside", [("a trigger",)], None, NOBODY),
    "role": Pinning("SET ROLE NONE", "SELECT 1", [(1,)], "SET ROLE DEFAULT", [(1,)], only="mysql"),
    "all tables": Pinning("FLUSH TABLES WITH READ LOCK", "SELECT COUNT(*) FROM t", [(3,)], "UNLOCK TABLES", [(3,)], only="mariadb"),
    "backup": Pinning("BACKUP LOCK t", "SELECT COUNT(*) FROM t", [(3,)], "BACKUP UNLOCK", [(3,)], only="mariadb"),
}  # fmt: skip


def others_see(other: Client, pinning: Pinning) -> None:
    if isinstance(pinning.others, int):
        with pytest.raises(pymysql.err.MySQLError) as caught:
            rows(other, pinning.asks)
        assert caught.value.args[0] == pinning.others
    elif pinning.others:
        assert rows(other, pinning.asks) == pinning.others
    else:
        assert rows(other, pinning.asks) != pinning.mine


@pytest.fixture(params=PINS.values(), ids=PINS)
def pinning(request: pytest.FixtureRequest, single: World) -> Pinning:
    found: Pinning = request.param
    single.execute("CREATE TABLE IF NOT EXISTS numbers (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB")
    return replace(found, does=found.does.replace("XID", single.database), ends=found.ends and found.ends.replace("XID", single.database))


def test_what_pins_and_how_it_ends(single: World, pinning: Pinning) -> None:
    with clients(single) as (client, other):
        others_see(other, pinning)
        run(client, pinning.does)
        assert is_held(single)
        for _ in range(2):
            assert rows(client, pinning.asks) == pinning.mine
            assert is_held(single)
        if pinning.ends is None:
            client._execute_command(COM_RESET_CONNECTION, b"")
            client._read_ok_packet()
        else:
            run(client, pinning.ends)
        assert is_free(single)
        others_see(other, pinning)
        assert value(client, "SELECT 'well'") == "well"


def test_a_pinned_client_that_leaves_leaves_nothing_behind(single: World, pinning: Pinning) -> None:
    with clients(single) as (client, other):
        run(client, pinning.does)
        assert is_held(single)
        client._force_close()
        others_see(other, pinning)
        assert value(other, "SELECT COUNT(*) FROM t") == 3
    if "XA" in pinning.does:
        single.execute(f"XA ROLLBACK '{single.database}'")


NEVER = [
    "SELECT @never",
    "SELECT RELEASE_LOCK('nobody')",
    "SELECT GET_LOCK('taken{OURS}', 0)",
    "DROP TEMPORARY TABLE IF EXISTS nothing",
    "CREATE TEMPORARY TABLE broken (x NOSUCHTYPE)",
    "UNLOCK TABLES",
    "SELECT 'GET_LOCK(''x'', 1); SET @a := 1'",
    "INSERT INTO t VALUES (5, 'a@b.c; SET @'); DELETE FROM t WHERE id = 5",
    "SET NAMES utf8mb4",
    "SELECT @@sql_mode, @@global.time_zone",
    "SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1",
    "PREPARE broken FROM 'SELEKT'",
    "SELECT GET_LOCK('short{OURS}', 0), RELEASE_LOCK('short{OURS}')",
]


@pytest.mark.parametrize("sql", NEVER)
def test_what_does_not_pin(single: World, sql: str) -> None:
    sql = sql.replace("{OURS}", OURS)
    with contextlib.ExitStack() as closing:
        if "taken" in sql:
            direct = closing.enter_context(single.server.connect())
            assert rows(direct, f"SELECT GET_LOCK('taken{OURS}', 0)") == [(1,)]
        client = closing.enter_context(single.connect(autocommit=True, client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS))
        with contextlib.suppress(pymysql.err.MySQLError):
            run(client, sql)
        assert is_free(single)


def test_prepared_statements_of_the_protocol_pin_and_unpin_too(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(mysql_server, pool_size=1, more=HASTY)
    with world.connector() as client, contextlib.closing(client.cursor(prepared=True)) as cursor:
        cursor.execute("SELECT GET_LOCK(%s, %s)", (f"given{OURS}", 0))
        assert cursor.fetchall() == [(1,)]
        assert is_held(world)
        with contextlib.closing(client.cursor(prepared=True)) as releasing:
            releasing.execute("SELECT RELEASE_LOCK(%s)", (f"given{OURS}",))
            assert releasing.fetchall() == [(1,)]
        # MariaDB does not tell which locks of unknown names are held.
        assert is_held(world) if mysql_server.is_mariadb else is_free(world)
        with contextlib.closing(client.cursor(prepared=True)) as setting:
            setting.execute("SET @given = %s", ("a value",))
        client.cmd_query("DO RELEASE_ALL_LOCKS()")
        assert is_free(world)
        client.cmd_query("SELECT @given")
        assert client.get_rows()[0] == [("a value",)]


def test_a_lock_over_many_transactions(single: World) -> None:
    with clients(single) as (client, _):
        for _ in range(5):
            assert value(client, f"SELECT GET_LOCK('a long job{OURS}', 10)") == 1
            for number in range(3):
                run(client, f"CREATE TABLE m{number} (a INT); INSERT INTO m{number} VALUES (1); DROP TABLE m{number}")
            assert is_held(single)
            assert value(client, f"SELECT RELEASE_LOCK('a long job{OURS}')") == 1
            assert is_free(single)


def test_a_global_variable_that_changes_is_no_leak(single: World) -> None:
    with clients(single) as (client, _):
        before, mine = (value(client, f"SELECT @@{scope}.net_retry_count") for scope in ("global", "session"))
        try:
            single.execute(f"SET GLOBAL net_retry_count = {before + 1}")
            assert value(client, "SELECT @@net_retry_count") == mine
            run(client, "DO 1")
        finally:
            single.execute(f"SET GLOBAL net_retry_count = {before}")


def test_ignore_space_is_a_mode_of_the_client_alone(single: World) -> None:
    flag = pymysql.constants.CLIENT.IGNORE_SPACE
    with single.connect(autocommit=True, client_flag=flag) as client, single.connect(autocommit=True) as other:
        for _ in range(2):
            assert "IGNORE_SPACE" in value(client, "SELECT @@sql_mode").split(",")
            assert "IGNORE_SPACE" not in value(other, "SELECT @@sql_mode").split(",")
            assert value(client, "SELECT COUNT (*) FROM t") == 3
        run(client, "SET sql_mode = ''")
        assert [value(one, "SELECT @@sql_mode = ''") for one in (client, other, client)] == [1, 0, 1]


def test_a_prepared_question_for_the_connection_id(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(mysql_server, pool_size=1)
    with world.connector() as first, world.connector() as second:
        for client in (first, second, first):
            with contextlib.closing(client.cursor(prepared=True)) as cursor:
                cursor.execute("SELECT CONNECTION_ID()")
                assert cursor.column_names == ("CONNECTION_ID()",)
                assert cursor.fetchall() == [(client.connection_id,)]


def warnings_of(client: Client, sql: str) -> tuple[int, list[tuple[object, ...]]]:
    """How many warnings a statement's answer announces, and what SHOW WARNINGS says of it."""
    with client.cursor() as cursor:
        cursor.execute(sql)
        announced = cursor.warning_count
    return announced, rows(client, "SHOW WARNINGS")


KEEPS = "This session keeps its server connection after the transaction: "


def test_a_client_is_told_once_of_each_reason(single: World) -> None:
    with single.connect(autocommit=True) as client:
        announced, [(level, _, message)] = warnings_of(client, "CREATE TEMPORARY TABLE mine (x INT)")
        assert (announced, level) == (1, "Note")
        assert message.startswith(f"{KEEPS}temporary table. It lasts until it is dropped.")
        assert value(client, "SELECT @@warning_count") == 1
        assert rows(client, "SHOW ERRORS") == []
        assert warnings_of(client, "CREATE TEMPORARY TABLE another (x INT)") == (0, [])
        announced, told = warnings_of(client, "PREPARE one FROM 'SELECT 1/0'")
        assert announced == 1
        assert told[0][2].startswith(f"{KEEPS}prepared statement")
        assert warnings_of(client, "EXECUTE one") == (1, [("Warning", 1365, "Division by 0")])
        assert warnings_of(client, "SELECT COUNT(*) FROM t") == (0, [])
    with single.connect(autocommit=True) as later:
        assert warnings_of(later, "DO 1") == (0, [])


def test_a_note_stands_beside_the_server_s_warnings(single: World) -> None:
    with single.connect(autocommit=True) as client:
        rows(client, "SET sql_mode = 'ERROR_FOR_DIVISION_BY_ZERO'")
        announced, told = warnings_of(client, "CREATE TEMPORARY TABLE mine AS SELECT 1/0 AS x FROM t WHERE id = 1")
        assert announced == len(told) > 1
        assert told[0][2].startswith(KEEPS)
        assert {code for _, code, _ in told[1:]} == {1365}
        assert rows(client, "SHOW WARNINGS LIMIT 1, 1") == told[1:2]


def test_a_pin_that_is_found_behind_the_answer_is_told_of(single: World) -> None:
    with single.connect(autocommit=True) as client:
        assert value(client, f"SELECT GET_LOCK('one{OURS}', 0)") == 1
        assert rows(client, "SHOW WARNINGS")[0][2].startswith(f"{KEEPS}lock. It lasts until RELEASE_LOCK()")
    with single.connect(autocommit=True) as client:
        assert value(client, f"SELECT GET_LOCK('one{OURS}', 0)") == 1
        announced, told = warnings_of(client, "SELECT COUNT(*) FROM t")
        assert (announced, len(told)) == (1, 1)
        assert warnings_of(client, "SELECT COUNT(*) FROM t") == (0, [])


@pytest.mark.parametrize(("policy", "listener"), [("allow", "mysql"), ("warn", "session")])
def test_who_does_not_want_to_know_is_not_told(run_mysql: RunWorld, mysql_server: MySQLServer, policy: str, listener: str) -> None:
    world = run_mysql(mysql_server, 1, keys=f'pin = "{policy}"')
    with world.connect(listener, autocommit=True) as client:
        assert warnings_of(client, "CREATE TEMPORARY TABLE mine (x INT)") == (0, [])


def test_policies_by_reason(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(
        mysql_server, 1, keys='pin = { default = "allow", lock = "error", user_variable = "error", temporary_table = "warn" }'
    )
    with world.connect(autocommit=True) as client:
        assert warnings_of(client, "PREPARE one FROM 'SELECT 1'") == (0, [])
        assert warnings_of(client, "CREATE TEMPORARY TABLE mine (x INT)")[0] == 1
        with pytest.raises(pymysql.err.MySQLError) as caught:
            rows(client, f"DO GET_LOCK('x{OURS}', 0)")
        assert caught.value.args[0] == 1235
    with world.connect(autocommit=True) as client:
        rows(client, "SET @big = REPEAT('x', 100000)")
        with pytest.raises(pymysql.err.MySQLError) as caught:
            rows(client, "SELECT 1")
        assert caught.value.args[0] == 1235
        assert "user variable" in caught.value.args[1]
    with world.connect(autocommit=True) as client:
        assert value(client, "SELECT @big") is None


def test_a_lock_that_a_procedure_takes(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(mysql_server, 1)
    world.execute(f"CREATE PROCEDURE takes() DO GET_LOCK('inside{OURS}', 0)")
    world.execute("CREATE PROCEDURE nothing() DO 1")
    with world.connect(autocommit=True) as client:
        if mysql_server.is_mariadb:
            # No table of its says which locks there are: but that there were some is told when they are released.
            rows(client, "CALL takes()")
            with pytest.raises(pymysql.err.MySQLError) as caught:
                rows(client, "SELECT 1")
            assert caught.value.args[0] == 1235
            assert "a lock that was taken with GET_LOCK() unseen" in caught.value.args[1]
        else:
            rows(client, "CALL takes()")
            assert rows(client, f"SELECT IS_FREE_LOCK('inside{OURS}'), IS_USED_LOCK('inside{OURS}') = CONNECTION_ID()") == [(0, 1)]
            rows(client, "DO RELEASE_ALL_LOCKS()")
    with (
        world.connect(autocommit=True) as client,
        world.connector() as preparing,
        contextlib.closing(preparing.cursor(prepared=True)) as one,
    ):
        one.execute("SELECT 'prepared' + %s", (1,))
        one.fetchall()
        prepared = "SHOW SESSION STATUS LIKE 'Com_stmt_prepare'"
        before = rows(client, prepared)
        for _ in range(5):
            rows(client, "CALL nothing()")
            one.execute("SELECT 'prepared' + %s", (1,))
            one.fetchall()
        assert rows(client, prepared) == before, "the session was reset, and so its statements had to be prepared again"
        assert value(client, f"SELECT IS_FREE_LOCK('inside{OURS}')") == 1


# ----------------------------------------------------------------------------------------------------------------- strict mode


def test_strict_mode_finds_what_nobody_could_see(single: World) -> None:
    single.execute("CREATE TABLE watched (a INT)")
    single.execute(f"CREATE TRIGGER takes BEFORE INSERT ON watched FOR EACH ROW SET NEW.a = GET_LOCK('unseen{OURS}', 0)")
    with single.connect(autocommit=True) as client, single.connect(autocommit=True) as other:
        run(client, "INSERT INTO watched VALUES (0)")
        with pytest.raises(pymysql.err.MySQLError) as caught:
            rows(client, "SELECT 1")
        assert caught.value.args[0] == 1235
        assert "strict mode: the session holds what could not be seen to begin: lock" in caught.value.args[1]
        assert "INSERT INTO watched" in caught.value.args[1]
        single.pooler.wait_for_log("strict mode: .*watched")
        assert value(other, f"SELECT IS_FREE_LOCK('unseen{OURS}')") == 1


def test_strict_mode_uses_another_connection_each_time(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(mysql_server, 2, keys="strict = true")
    with world.connect(autocommit=True) as client:
        wait_until(lambda: value(client, BACKEND) != value(client, BACKEND), "two server connections")
        numbers = [value(client, BACKEND) for _ in range(6)]
        assert set(numbers[::2]).isdisjoint(numbers[1::2])
        rows(client, "SET @a = 5, time_zone = '+05:00', sql_mode = ''")
        assert [rows(client, "SELECT @a, @@time_zone, @@sql_mode") for _ in range(4)] == [[(5, "+05:00", "")]] * 4


def test_a_pin_is_in_the_log_without_its_values(single: World) -> None:
    with single.connect(autocommit=True) as client:
        run(client, f"SELECT GET_LOCK('secret{OURS}', 0), 'a value'")
        single.pooler.wait_for_log(r"keeps server connection \d+ after its transactions: lock \(until RELEASE_LOCK")
    assert "secret" not in single.pooler.log


@pytest.mark.parametrize("sql", ["SELECT GET_LOCK('x{OURS}', 0)", "CREATE TEMPORARY TABLE mine (x INT)", "SELECT {}.assigning()"])
def test_pins_can_be_errors(run_mysql: RunWorld, mysql_server: MySQLServer, sql: str) -> None:
    more = '[databases.information_schema]\nbackend = "shop"\npool_size = 1\npin = "error"'
    world = run_mysql(mysql_server, 1, more)
    world.execute("CREATE FUNCTION assigning() RETURNS INT NO SQL BEGIN SET @inside = 1; RETURN 1; END")
    with world.connect(autocommit=True, database="information_schema") as client:
        run(client, "SET @a = 5")
        with pytest.raises(pymysql.err.MySQLError) as caught:
            run(client, sql.format(world.database, OURS=OURS))
        assert caught.value.args[0] == 1235
        assert "; until " in caught.value.args[1]
    with world.connect(autocommit=True, database="information_schema") as other:
        assert rows(other, f"SELECT IS_FREE_LOCK('x{OURS}'), @inside, @a") == [(1, None, None)]


def test_a_role_does_not_stay_when_its_client_has_gone(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    # COM_RESET_CONNECTION ends no role, on either server.
    world = run_mysql(mysql_server, 1)
    role = f"role_{world.database}"[:32]
    world.execute(f"CREATE ROLE {role}")
    try:
        world.execute(f"GRANT {role} TO {world.user}")
        with world.connect(autocommit=True) as client:
            before = value(client, "SELECT CURRENT_ROLE()")
            rows(client, f"SET ROLE {role}")
            assert role in str(value(client, "SELECT CURRENT_ROLE()"))
        with world.connect(autocommit=True) as other:
            assert value(other, "SELECT CURRENT_ROLE()") == before
    finally:
        world.execute(f"DROP ROLE {role}")
