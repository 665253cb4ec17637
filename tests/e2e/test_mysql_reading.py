"""What changes a session of MySQL or MariaDB, written so that a reader of SQL may overlook it. A session of one's own is the measure.

A client takes the steps and stays; another client of the same pool asks the probe, then the first does. Both see what they see with a
connection of their own, or the first is told with an error that it cannot be so.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import pymysql
import pymysql.connections
import pytest
from pymysql.constants import CLIENT

from tests.e2e.mysql_world import OURS, RunWorld, World, world
from tests.helpers.servers import MySQLServer

NAME: Final = f"overlooked{OURS}"
LOCK: Final = f"SELECT RELEASE_LOCK('{NAME}') = 1"
LOCKING: Final = f"GET_LOCK('{NAME}', 0)"
VARIABLE: Final = "SELECT @mine"
INSERT_ID: Final = "SELECT LAST_INSERT_ID()"
LONG: Final = "x" * 300_000
MARIADB: Final = frozenset(("mariadb",))
MYSQL: Final = frozenset(("mysql",))
BOTH: Final = MARIADB | MYSQL

Step = str | bytes
CASES: Final[list[tuple[list[Step], str, frozenset[str]]]] = [
    (["INSERT INTO triggering VALUES (1)"], LOCK, MYSQL),
    (["INSERT INTO triggering VALUES (1)"], VARIABLE, MYSQL),
    (["BEGIN", "INSERT INTO triggering VALUES (1)", "COMMIT"], LOCK, MYSQL),
    (["SELECT * FROM viewing"], LOCK, MYSQL),
    (["TABLE viewing"], LOCK, MYSQL),
    ([f"SELECT `GET_LOCK`('{NAME}', 0)"], LOCK, BOTH),
    ([f"SELECT GET_LOCK/* x */('{NAME}', 0)"], LOCK, BOTH),
    ([f"SELECT '{LONG}', {LOCKING}"], LOCK, BOTH),
    ([f"SELECT 1; DO {LOCKING}"], LOCK, BOTH),
    ([f"DO 1; ; DO {LOCKING}"], LOCK, MARIADB),
    ([f"SELECT 1 --\x01\n, {LOCKING}"], LOCK, BOTH),
    ([f"SELECT 2*/* x */3, {LOCKING}"], LOCK, BOTH),
    ([f"SELECT /*!50000 {LOCKING} */"], LOCK, BOTH),
    ([f"SELECT /*! {LOCKING}, */ 1"], LOCK, BOTH),
    ([f"SELECT /*!99999 {LOCKING}, */ 1"], LOCK, BOTH),
    ([f"SELECT /*!80000 {LOCKING}, */ 1"], LOCK, BOTH),
    ([f"SELECT /*M! {LOCKING}, */ 1"], LOCK, BOTH),
    ([f"SELECT /*M!100100 {LOCKING}, */ 1"], LOCK, BOTH),
    (["SET sql_mode = 'NO_BACKSLASH_ESCAPES'", rf"SELECT 'a\', {LOCKING}, 'b'"], LOCK, BOTH),
    (["SET sql_mode = 'ANSI_QUOTES'", rf'SELECT 1 AS "a\"; SELECT {LOCKING} AS "x"'], LOCK, BOTH),
    (["SET NAMES gbk", b"SELECT hex('\xbf\x5c') AS a, " + LOCKING.encode() + b", 'b'"], LOCK, BOTH),
    (["SET NAMES sjis", b"SELECT hex('\x83\x5c') AS a, " + LOCKING.encode() + b", 'b'"], LOCK, BOTH),
    (["SET NAMES big5", b"SELECT hex('\xa5\x5c') AS a, " + LOCKING.encode() + b", 'b'"], LOCK, BOTH),
    (["SET NAMES gbk", b"SELECT 1 AS `\xbf`, '`, " + LOCKING.encode() + b", '"], LOCK, BOTH),
    (["SET NAMES latin1", b"SELECT 1\xa0, " + LOCKING.encode()], LOCK, BOTH),
    (["SELECT 'left' INTO/**/@mine"], VARIABLE, BOTH),
    (["SELECT 'left' INTO @`mine`"], VARIABLE, BOTH),
    (["SELECT 'left' INTO @'mine'"], VARIABLE, BOTH),
    (["SELECT @mine/* */:=/* */'left'"], VARIABLE, BOTH),
    (["SELECT 1; SELECT @mine := 'left'"], VARIABLE, BOTH),
    (["DO @`MINE` := 'left'"], VARIABLE, BOTH),
    ([f"SELECT '{LONG}', @mine := 'left'"], VARIABLE, BOTH),
    ([f"SELECT '{LONG}' INTO @mine"], "SELECT LENGTH(@mine)", BOTH),
    (["PREPARE s FROM 'SELECT @mine := 1'", "EXECUTE s"], VARIABLE, BOTH),
    (["SET @text = 'SELECT @mine := 1'", "PREPARE s FROM @text", "EXECUTE s"], VARIABLE, BOTH),
    (["SELECT assigns()"], VARIABLE, BOTH),
    (["SELECT `assigns` ()"], VARIABLE, BOTH),
    (["CALL assigning()"], VARIABLE, BOTH),
    (["SELECT LAST_INSERT_ID/**/(777)"], INSERT_ID, BOTH),
    (["SELECT `LAST_INSERT_ID`(777)"], INSERT_ID, BOTH),
    (["SELECT counts()"], INSERT_ID, BOTH),
    ([f"SELECT '{LONG}', LAST_INSERT_ID(777)"], INSERT_ID, BOTH),
    (["SET sql_mode = ''", "SELECT locks()"], LOCK, BOTH),
    ([f"SELECT '{LONG}'; LOCK TABLES one READ"], "INSERT INTO two VALUES (1)", BOTH),
    (["/*!80000 SET sql_select_limit = 5 */"], "SELECT @@sql_select_limit", BOTH),
    (["SET NAMES utf8mb4 COLLATE utf8mb4_bin"], "SELECT @@collation_connection", BOTH),
    ([f"SELECT '{LONG}'; SET NAMES utf8mb4 COLLATE utf8mb4_bin"], "SELECT @@collation_connection", BOTH),
    (["SET @@sql_select_limit/* */=/* */7"], "SELECT @@sql_select_limit", BOTH),
    ([f"BEGIN NOT ATOMIC EXECUTE IMMEDIATE CONCAT('DO GET_', 'LOCK(''{NAME}'', 1)'); END"], LOCK, MARIADB),
    ([f"EXECUTE IMMEDIATE CONCAT('DO GET_', 'LOCK(''{NAME}'', 1)')"], LOCK, MARIADB),
    (["BEGIN NOT ATOMIC SET @@sql_select_limit = 5; END"], "SELECT @@sql_select_limit", MARIADB),
    (["BEGIN NOT ATOMIC SELECT 'left' INTO @mine; END"], VARIABLE, MARIADB),
    ([f"IF 1 THEN DO {LOCKING}; END IF"], LOCK, MARIADB),
    (["SET STATEMENT sql_select_limit = 5 FOR SELECT @mine := 'left'"], "SELECT @mine, @@sql_select_limit", MARIADB),
    (["SET sql_mode = ORACLE", "SELECT 'left' INTO @mine"], VARIABLE, MARIADB),
    (["SET sql_mode = ORACLE", "BEGIN @mine := 1; END"], VARIABLE, MARIADB),
    (["EXPLAIN FORMAT=JSON INTO @mine SELECT 1"], "SELECT @mine IS NULL", MYSQL),
    (["SET @@transaction_isolation = 'SERIALIZABLE'", "BEGIN", "COMMIT"], "SELECT @@transaction_isolation", MYSQL),
    (["HANDLER one OPEN", "HANDLER one READ FIRST"], "HANDLER one READ FIRST", BOTH),
]


STORED: Final = ("assigns", "assigning")
"""User variables that stored programs assign to without SET. MySQL tells of them only those who may read performance_schema; for others the
session is reset, so that its client loses them (docs: transaction mode)."""


class Session:
    """A client that sends bytes as they are, and gives all the rows, or the error's number."""

    def __init__(self, connection: "pymysql.connections.Connection[Any]") -> None:
        self.connection = connection

    def run(self, sql: Step) -> Any:
        try:
            self.connection.query(sql if isinstance(sql, bytes) else sql.encode())
            found = list(self.connection._result.rows or ())  # type: ignore[attr-defined]
            while self.connection._result.has_next:  # type: ignore[attr-defined]
                self.connection.next_result()
                found += self.connection._result.rows or ()  # type: ignore[attr-defined]
        except pymysql.err.MySQLError as error:
            return error
        return found


@contextlib.contextmanager
def session(address: dict[str, Any]) -> Iterator[Session]:
    flags = CLIENT.MULTI_STATEMENTS
    connection = pymysql.connect(**address, autocommit=True, client_flag=flags, charset="utf8mb4", ssl_disabled=True, read_timeout=10)
    try:
        yield Session(connection)
    finally:
        with contextlib.suppress(pymysql.err.Error):
            connection.close()


def seen(address: dict[str, Any], steps: list[Step], probe: str) -> tuple[Any, Any, Any]:
    """What the other client sees, what the first one does, and the error that it was given."""
    with session(address) as first, session(address) as other:
        refused = next((answer for step in steps if isinstance(answer := first.run(step), Exception)), None)
        theirs = other.run(probe)
        own = first.run(probe)
    return told(theirs), told(own), refused if refused is not None else own if isinstance(own, Exception) else None


def wait_for_lock(made: World) -> None:
    """A server takes a lock from a client that has left, but not at once."""
    assert made.execute("SELECT GET_LOCK(%s, 60), RELEASE_LOCK(%s)", NAME, NAME) == [(1, 1)]


def told(answer: Any) -> Any:
    return f"error {answer.args[0]}" if isinstance(answer, Exception) else answer


def prepare(made: World) -> None:
    for sql in (
        "CREATE TABLE one (a INT)",
        "CREATE TABLE two (a INT)",
        "INSERT INTO one VALUES (1)",
        "CREATE FUNCTION assigns() RETURNS INT NO SQL BEGIN SELECT 'left' INTO @mine; RETURN 1; END",
        "CREATE PROCEDURE assigning() SELECT 'left' INTO @mine",
        f"CREATE FUNCTION locks() RETURNS INT NO SQL BEGIN DO {LOCKING}; RETURN 1; END",
        "CREATE VIEW viewing AS SELECT `locks`() AS a",
        "CREATE TABLE triggering (a INT)",
        "CREATE TRIGGER t BEFORE INSERT ON triggering FOR EACH ROW SET @mine = 'left', NEW.a = `locks`()",
        "CREATE FUNCTION counts() RETURNS INT NO SQL BEGIN DO LAST_INSERT_ID(777); RETURN 1; END",
    ):
        made.execute(sql)


@pytest.fixture(scope="module", params=["who may ask all", "who may ask little"])
def made(mysql_server: MySQLServer, request: pytest.FixtureRequest) -> Iterator[World]:
    """dualpool's own user has every right, or none beyond its database: then the server does not tell it all that a session holds."""
    with world(mysql_server, 2, keys='verify = "always"') as found:
        prepare(found)
        if request.param == "who may ask little":
            found.execute(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM '{found.user}'@'%'")
            found.execute(f"GRANT ALL ON `{found.database}`.* TO '{found.user}'@'%'")
        yield found


def may_ask_little(made: World) -> bool:
    with session({"host": "127.0.0.1", "port": made.server.port, "user": made.user, "password": "app"}) as own:
        return isinstance(own.run("SELECT 1 FROM performance_schema.user_variables_by_thread LIMIT 0"), Exception)


@pytest.mark.parametrize(("steps", "probe", "engines"), CASES, ids=[str(steps[-1]).replace(OURS, "")[-60:] for steps, _, _ in CASES])
def test_its_client_keeps_it_and_the_next_one_has_none_of_it(
    made: World, mysql_server: MySQLServer, steps: list[Step], probe: str, engines: frozenset[str]
) -> None:
    if ("mariadb" if mysql_server.is_mariadb else "mysql") not in engines:
        return
    direct = {"host": "127.0.0.1", "port": mysql_server.port, "user": made.user, "password": "app", "database": made.database}
    wait_for_lock(made)
    theirs, own, _ = seen(direct, steps, probe)
    wait_for_lock(made)
    got_theirs, got_own, refused = seen(made.address(), steps, probe)
    # A client that was refused is gone, and what it held with it: sooner or later.
    assert got_theirs == theirs or (refused is not None and got_theirs == seen(direct, [], probe)[0])
    if may_ask_little(made) and not mysql_server.is_mariadb and any(name in str(step) for name in STORED for step in steps):
        return
    assert got_own == own or (refused is not None and refused.args[0] in (1235, 2013))


# ------------------------------------------------------------------------------------------- what is replayed is not read differently

VALUES: Final = {
    "a variable outside ASCII": ("SET @`é` = 'München', @`日本` = 2", "SELECT @`é`, @`日本`"),
    "a value that ends in a backslash": (r"SET @x = 'C:\\temp\\', @y = '\\''; DROP TABLE one; -- '", "SELECT HEX(@x), HEX(@y)"),
    "bytes and collations": ("SET @x = x'00FF5C27', @y = _latin1 x'E9' COLLATE latin1_bin", "SELECT HEX(@x), HEX(@y), COLLATION(@y)"),
    "numbers": ("SET @x = 1.50, @y = 1e-7, @z = 18446744073709551615", "SELECT @x, @y, @z"),
    "settings": ("SET sql_select_limit = 7, time_zone = '+05:30', lc_time_names = 'de_DE'", "SELECT @@sql_select_limit, @@time_zone"),
}
SETTINGS: Final = (
    "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'",
    "SET sql_mode = 'IGNORE_SPACE,HIGH_NOT_PRECEDENCE,REAL_AS_FLOAT,PAD_CHAR_TO_FULL_LENGTH'",
    "SET NAMES latin1",
    "SET NAMES gbk",
    "SET NAMES sjis",
    "SET NAMES big5",
    "SET NAMES swe7",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "SET character_set_results = NULL",
    "SET sql_select_limit = 0",
    "SET max_statement_time = 0.001",
    "SET max_execution_time = 1",
    "SET sql_safe_updates = 1, max_join_size = 1, sql_big_selects = 0",
    "SET sql_mode = ORACLE",
    "SET sql_warnings = 1, max_error_count = 0",
)


@pytest.fixture(scope="module")
def narrow(mysql_server: MySQLServer) -> Iterator[World]:
    with world(mysql_server, 1) as found:
        prepare(found)
        yield found


@pytest.mark.parametrize("value", VALUES)
def test_no_setting_of_one_client_changes_what_another_gets_back(narrow: World, value: str) -> None:
    """By turns on one server connection: what the one has set is not what the other's is restored under."""
    assigned, question = VALUES[value]
    with session(narrow.address()) as mine:
        assert mine.run(assigned) == []
        wanted = mine.run(question)
        for setting in SETTINGS:
            with session(narrow.address()) as other:
                other.run(setting)  # (Not each server has each of them.)
                other.run("DO 1")
                assert mine.run(question) == wanted, setting
                other.run(b"SELECT @own := 1")
                assert mine.run("SELECT @own") == [(None,)], setting
                assert mine.run(question) == wanted, setting
    assert narrow.execute("SELECT COUNT(*) FROM one") == [(1,)]


# ------------------------------------------------------------------------------------------------------- what was found out is learnt

QUESTIONS: Final = "SHOW SESSION STATUS LIKE 'Questions'"


def asked(client: Session, sql: str) -> int:
    """How many statements the server was asked because of this one, beside it and the two looks at the counter."""
    [(_, before)] = client.run(QUESTIONS)
    assert not isinstance(client.run(sql), Exception)
    [(_, after)] = client.run(QUESTIONS)
    return int(after) - int(before) - 2


def test_a_text_that_was_found_clean_needs_no_question_until_something_is_defined(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    made = run_mysql(mysql_server, 1, keys="verify_every = 0")
    made.execute("CREATE FUNCTION harmless(x INT) RETURNS INT NO SQL RETURN x")
    with session(made.address()) as client:
        assert asked(client, "SELECT 1") == 0
        counts = [asked(client, f"SELECT harmless({number})") for number in range(5)]
        assert min(counts[:3]) > 0
        assert counts[3:] == [0, 0]
        assert not isinstance(client.run("CREATE FUNCTION another() RETURNS INT NO SQL RETURN 1"), Exception)
        assert asked(client, "SELECT harmless(7)") > 0
        counts = [asked(client, "SELECT harmless(1), @x := 5") for _ in range(4)]
        assert client.run("SELECT @x") == [(5,)]


@pytest.mark.parametrize(("verify", "least"), [("always", 1), ("never", 0)])
def test_a_text_in_doubt_is_asked_about_as_it_was_configured(
    run_mysql: RunWorld, mysql_server: MySQLServer, verify: str, least: int
) -> None:
    made = run_mysql(mysql_server, 1, keys=f'verify = "{verify}"\nverify_every = 0')
    made.execute("CREATE FUNCTION harmless(x INT) RETURNS INT NO SQL RETURN x")
    with session(made.address()) as client:
        counts = [asked(client, "SELECT harmless(1)") for _ in range(5)]
        assert all(count >= least for count in counts)
        assert least or set(counts) == {0}


def test_a_leak_of_one_lease_in_so_many_is_found_and_not_repeated(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    made = run_mysql(mysql_server, 1, keys="verify_every = 1")
    made.execute("CREATE TABLE watched (a INT)")
    made.execute(f"CREATE TRIGGER takes BEFORE INSERT ON watched FOR EACH ROW SET NEW.a = GET_LOCK('unseen{OURS}', 0)")
    with session(made.address()) as client, session(made.address()) as other:
        assert client.run("INSERT INTO watched VALUES (1)") == []
        assert other.run(f"SELECT IS_FREE_LOCK('unseen{OURS}')") == [(1,)]
        made.pooler.wait_for_log("could not be seen to begin: lock")
        client.run("INSERT INTO watched VALUES (2)")
        if not mysql_server.is_mariadb:
            assert client.run(f"SELECT RELEASE_LOCK('unseen{OURS}')") == [(1,)], "now it is known, and kept"
        assert other.run(f"SELECT IS_FREE_LOCK('unseen{OURS}')") == [(1,)]
