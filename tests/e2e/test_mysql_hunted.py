"""What the leak hunt has found on MySQL and MariaDB."""

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import pymysql
import pymysql.constants
import pytest

from tests.e2e import mysql_world
from tests.e2e.mysql_world import Client, World, rows, value
from tests.e2e.postgres_world import DEADLINE, in_thread
from tests.helpers.servers import MySQLServer
from tests.hunt.mysql_client import Client as PacketClient
from tests.hunt.script import Message
from tests.hunt.spelling import verbatim


@pytest.fixture
def narrow(mysql_server: MySQLServer) -> Iterator[World]:
    """One server connection for all."""
    with mysql_world.world(mysql_server, pool_size=1) as made:
        yield made


def same(first: Client, second: Client) -> None:
    """Another client has the server connection for a moment."""
    assert value(second, "SELECT LAST_INSERT_ID()") == 0
    assert value(first, "SELECT 1") == 1


def test_execute_reads_last_insert_id(narrow: World) -> None:
    with narrow.connect(autocommit=True) as client, narrow.connect(autocommit=True) as other:
        rows(client, "CREATE TABLE made (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
        rows(client, "INSERT INTO made (v) VALUES (1), (2)")
        number = value(client, "SELECT LAST_INSERT_ID()")
        same(client, other)
        rows(client, "SELECT * FROM made")
        assert value(client, "SELECT LAST_INSERT_ID()") == number
        same(client, other)
        rows(client, "PREPARE q FROM 'SELECT LAST_INSERT_ID()'")
        assert value(client, "EXECUTE q") == number


def takes_a_role_unseen(client: Any) -> None:
    rows(client, r"PREPARE q FROM 's\et rol\e hunted_role'")
    rows(client, "EXECUTE q")
    rows(client, "DEALLOCATE PREPARE q")


def takes_a_role_and_resets(client: Any) -> None:
    rows(client, "SET ROLE hunted_role")
    client._execute_command(COM_RESET_CONNECTION, b"")
    client._read_packet()


@pytest.mark.parametrize("takes", [takes_a_role_unseen, takes_a_role_and_resets])
def test_a_role_ends_with_its_client(narrow: World, mysql_server: MySQLServer, takes: Callable[[Any], None]) -> None:
    mysql_server.execute("CREATE ROLE IF NOT EXISTS hunted_role")
    mysql_server.execute(f"GRANT hunted_role TO {narrow.user}@'%'")
    with narrow.connect(autocommit=True) as other:
        before = value(other, "SELECT CURRENT_ROLE()")
        with narrow.connect(autocommit=True) as client:
            takes(client)
            assert "hunted_role" in str(value(client, "SELECT CURRENT_ROLE()"))
        assert value(other, "SELECT CURRENT_ROLE()") == before


def test_what_prepare_could_not_read_is_over_with_deallocate(narrow: World) -> None:
    with narrow.connect(autocommit=True) as client, narrow.connect(autocommit=True) as other:
        rows(client, "PREPARE q FROM 'SELECT RELEASE_ALL_LOCKS()'")
        rows(client, "DEALLOCATE PREPARE q")
        with pytest.raises(Exception, match="1243"):
            rows(other, "EXECUTE q")
        assert value(client, "SELECT 1") == 1


# ------------------------------------------------------------------------------------- what a connection of its own shows is what counts

COM_PING, COM_STMT_RESET, COM_SET_OPTION, COM_RESET_CONNECTION = 0x0E, 0x1A, 0x1B, 0x1F
UNKNOWN: Final = struct.pack("<I", 0x7777)
CHARACTERS: Final = "SELECT @@character_set_database, @@collation_database, @@collation_connection, @@sql_mode"
UPDATE: Final = "UPDATE counted SET v = v + 1"
WARNING: Final = "SELECT CAST('x' AS SIGNED)"
Step = str | tuple[int, bytes]
ALIKE: Final[dict[str, list[Step]]] = {
    "the schema's character set after a reset": [(COM_RESET_CONNECTION, b""), CHARACTERS],
    "and another one after it": [(COM_RESET_CONNECTION, b""), "SET character_set_database = big5", CHARACTERS],
    "and a schema that is chosen again": [(COM_RESET_CONNECTION, b""), "USE information_schema", CHARACTERS],
    "rows before a ping": ["BEGIN", UPDATE, (COM_PING, b""), "SELECT ROW_COUNT(), 5", "SELECT ROW_COUNT(), 5"],
    "rows before an option": ["BEGIN", UPDATE, (COM_SET_OPTION, b"\0\0"), "SELECT ROW_COUNT(), 5"],
    "rows before an unknown statement": ["BEGIN", UPDATE, (COM_STMT_RESET, UNKNOWN), "SELECT ROW_COUNT(), 5"],
    "rows before an unknown statement, of no transaction": [UPDATE, (COM_STMT_RESET, UNKNOWN), "SELECT ROW_COUNT()"],
    "rows before a count of rows": ["BEGIN", UPDATE, "SELECT ROW_COUNT()", "SELECT ROW_COUNT(), 5"],
    "warnings that were counted": [WARNING, "SELECT @@warning_count", "SHOW WARNINGS", "SELECT @@warning_count"],
    "errors that were counted": [WARNING, "SELECT @@error_count", "SHOW WARNINGS"],
    "warnings of the first statement of two": [f"{WARNING}; SELECT 'b'", "SHOW WARNINGS"],
    "and after older ones": ["SELECT CAST('y' AS SIGNED)", f"{WARNING}; SELECT 'b'", "SELECT 1", "SHOW WARNINGS"],
    "no warnings of what was done before the first statement": ["SHOW WARNINGS; SELECT 'b'", "SHOW WARNINGS"],
    "warnings that SHOW has counted": [WARNING, "SHOW COUNT(*) WARNINGS", "SHOW WARNINGS"],
}


def seen(address: dict[str, Any], steps: list[Step], flags: int = 0) -> list[Any]:
    """What a client sees that takes these steps."""
    found: list[Any] = []
    flags |= pymysql.constants.CLIENT.MULTI_STATEMENTS
    with pymysql.connect(**address, autocommit=True, charset="latin1", client_flag=flags, ssl_disabled=True) as client:
        for step in steps:
            if isinstance(step, str):
                found.append(rows(client, step))
                continue
            client._execute_command(*step)  # type: ignore[attr-defined]
            with contextlib.suppress(pymysql.err.MySQLError):
                client._read_packet()  # type: ignore[attr-defined]
            if step[0] == COM_RESET_CONNECTION:
                # (The reset took it back on some servers, so that the client says again what it speaks.)
                rows(client, "SET NAMES latin1")
    return found


@pytest.mark.parametrize("flags", [0, pymysql.constants.CLIENT.IGNORE_SPACE], ids=["plain", "ignore space"])
def test_it_is_as_on_a_connection_of_its_own(narrow: World, mysql_server: MySQLServer, flags: int) -> None:
    narrow.execute("CREATE TABLE counted (v INT)")
    narrow.execute("INSERT INTO counted VALUES (1), (2), (3)")
    direct = {"host": "127.0.0.1", "port": mysql_server.port, "user": narrow.user, "password": "app", "database": narrow.database}
    for name, steps in ALIKE.items():
        assert seen(narrow.address(), steps, flags) == seen(direct, steps, flags), name


# ----------------------------------------------------------------------------------------------- packet by packet, between other clients

Said = tuple[Message, ...]
ROWS: Final = "SELECT id, v FROM told"


def query(text: str) -> Message:
    return Message("Query", (text,))


PACKETS: Final[dict[str, list[Said]]] = {
    "a warning of FOUND_ROWS()": [(query(ROWS),), (query("SELECT FOUND_ROWS()"),), (query("SHOW WARNINGS"),)],
    "in a text with others": [(query(ROWS),), (query("SELECT FOUND_ROWS(); SELECT 2"),), (query("SHOW WARNINGS"),)],
    "with something else": [(query(ROWS),), (query("SELECT FOUND_ROWS(), 5"),), (query("SELECT @@warning_count"),)],
    "warnings of a statement that is prepared": [(Message("Prepare", ("p", "SELECT FOUND_ROWS()")),), (query("SHOW WARNINGS"),)],
    "a long name of a column": [(query("SELECT ROW_COUNT(/*" + "x" * 300 + "*/)"),)],
    "a long name with letters of two bytes": [(query("SELECT ROW_COUNT(/*" + "é" * 300 + "*/)"),)],
    "EXPLAIN with a cursor": [(Message("Prepare", ("p", f"EXPLAIN {ROWS}")),), (Message("Execute", ("p", True)),), (query("SELECT 1"),)],
    "KILL with a cursor": [
        (Message("Prepare", ("p", "KILL QUERY 0")),), (Message("Execute", ("p", True)),), (query("SHOW WARNINGS"),),
        (Message("Execute", ("p", False)),),
    ],
    "diagnostics in a prepared statement": [
        (Message("Prepare", ("p", "GET DIAGNOSTICS @number = NUMBER, @affected = ROW_COUNT")),),
        (query("SELECT CAST('x' AS SIGNED)"),),
        (Message("Execute", ("p", False)),),
        (query("SELECT @number, @affected"),),
    ],
    "a character set in a text that is not certain": [
        (query("SET /*!99999 or not */ CHARACTER SET latin1"),),
        (query("SELECT @@character_set_client, @@collation_connection"),),
    ],
    "an error of a fetch, beside warnings": [
        (query("SELECT CAST('x' AS SIGNED)"),), (Message("Fetch", ("p",)),), (query("SHOW WARNINGS"),), (query("SELECT 3"),),
        (query("SHOW ERRORS"),),
    ],
    "an error of a reset, beside warnings": [
        (query("SELECT CAST('x' AS SIGNED)"),), (Message("StmtReset", ("p",)),), (query("SHOW WARNINGS"),),
    ],
    "an error of an unknown schema, beside warnings": [
        (query("SELECT CAST('x' AS SIGNED)"),), (Message("InitDb", ("no_such_schema",)),), (query("SHOW WARNINGS"),),
    ],
    "counts behind a text that is not certain": [
        (query("SELECT CAST('x' AS SIGNED)"),), (query("SELECT 5/*!99999 or not */"),),
        (query("SELECT @@error_count"),),
    ],
    "PREPARE in a text that is not certain": [(query("PREPARE q/*!99999 or not */FROM 'SELECT 5'"),), (query("EXECUTE q"),)],
    "a temporary table of one": [
        (query('CREATE/* " */TEMPORARY/*!99999 or not */TABLE brief AS SELECT 1 AS a'),),
        (query("SELECT a FROM brief"),),
    ],
}  # fmt: skip


def packet_client(world: World, mysql_server: MySQLServer, *, pooled: bool) -> PacketClient:
    """A client of the protocol itself, which does not know CLIENT_DEPRECATE_EOF. Character set: utf8mb4 with its default collation."""
    charset = 45 if mysql_server.is_mariadb else 255
    options: dict[str, Any] = {"renamed": (b"\0?", b"\0?"), "flags": pymysql.constants.CLIENT.MULTI_STATEMENTS, "charset": charset}
    if pooled:
        client = PacketClient(("127.0.0.1", world.address()["port"]), "app", "app", "app", **options)
    else:
        client = PacketClient(("127.0.0.1", mysql_server.port), world.user, "app", world.database, **options)
    assert client.read(DEADLINE) is not None
    return client


def test_help_is_not_prepared(mysql_server: MySQLServer) -> None:
    """MariaDB without its tables for that answers with an OK that has no statement."""
    with mysql_world.world(mysql_server, pool_size=1) as made:
        client = packet_client(made, mysql_server, pooled=True)
        help_, select = (Message("Prepare", ("p", verbatim(text))) for text in ("HELP 'x'", "SELECT 1"))
        refused, taken = told(client, help_, select)
        assert [reply[:3] for reply in refused] == [("ERR", 1295, "HY000")]
        assert taken[0][0] != "ERR"
        client.close()


def test_warnings_that_a_question_takes_away_are_kept_or_refused(mysql_server: MySQLServer) -> None:
    """A question comes in front of the next statement, since the session may have got a temporary table by one that failed."""
    with mysql_world.world(mysql_server, pool_size=1, keys='pin = "allow"\nverify = "always"') as made:
        for flags, asked, answer in ((0, "SHOW ERRORS", None), (pymysql.constants.CLIENT.MULTI_STATEMENTS, "SHOW ERRORS; SELECT 1", 1235)):
            with made.connect(autocommit=True, client_flag=flags) as client:
                for _ in range(2):
                    with contextlib.suppress(pymysql.MySQLError):
                        rows(client, "CREATE TEMPORARY TABLE made (a INT)" if flags else "CREATE TEMPORARY TABLE made (a INT); SELECT 1")
                if answer is None:
                    assert [row[1] for row in rows(client, asked)] == [1064]
                else:
                    with pytest.raises(pymysql.MySQLError) as refused:
                        rows(client, asked)
                    assert refused.value.args[0] == answer


def told(client: PacketClient, *said: Message) -> list[list[tuple[object, ...]]]:
    """All that the client is told."""
    client.send(said)
    answer = client.read(DEADLINE)
    assert answer is not None
    return answer.replies


def test_packets_are_as_on_a_connection_of_its_own(mysql_server: MySQLServer) -> None:
    with mysql_world.world(mysql_server, pool_size=1, keys='pin = "allow"') as made, made.connect(autocommit=True) as other:
        made.execute(f"ALTER DATABASE `{made.database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        made.execute("CREATE TABLE told (id INT, v INT)")
        made.execute("INSERT INTO told VALUES (1, 57)")
        for name, steps in PACKETS.items():
            if name.startswith("diagnostics") and not mysql_server.is_mariadb:
                continue  # MySQL does not prepare it.
            clients = [packet_client(made, mysql_server, pooled=pooled) for pooled in (True, False)]
            for said in steps:
                pooled, direct = (told(client, *said) for client in clients)
                assert pooled == direct, name
                if not name.startswith(("PREPARE", "a temporary table")):
                    assert value(other, "SELECT LAST_INSERT_ID()") == 0
            for client in clients:
                client.close()


TEXTS_IN_TEXTS: Final = (
    "PREPARE q FROM 'SET @a = 1'",
    r"PREPARE q FROM 'SET sql_mode = \'\AN\SI\''",
    "PREPARE q FROM 'SELECT id FROM told'",
    "PREPARE q FROM 'SELECT CAST(''y'' AS SIGNED)'",
    "PREPARE q FROM 'SELECT'",
    "EXECUTE IMMEDIATE 'DO 1'",
    "EXECUTE IMMEDIATE 'SELECT id FROM told'",
    "EXECUTE IMMEDIATE 'SELECT CAST(''y'' AS SIGNED)'",
)


def test_warnings_before_a_text_in_a_text_are_not_lost(mysql_server: MySQLServer) -> None:
    """It runs on another server connection than the statement before."""
    with mysql_world.world(mysql_server, pool_size=2, keys='pin = "allow"') as made:
        made.execute("CREATE TABLE told (id INT, v INT)")
        for text in TEXTS_IN_TEXTS[: None if mysql_server.is_mariadb else 5]:
            clients = [packet_client(made, mysql_server, pooled=pooled) for pooled in (True, False)]
            with made.connect(autocommit=True) as other:
                for said in ("SELECT CAST('x' AS SIGNED)", text, "SELECT @@warning_count", "SHOW WARNINGS"):
                    pooled, direct = (rows_told(client, said) for client in clients)
                    assert pooled == direct, (text, said)
                    if said != text:
                        rows(other, "BEGIN")
            for client in clients:
                client.close()


def rows_told(client: PacketClient, text: str) -> list[tuple[object, ...]]:
    """The answer, but for its columns' definitions."""
    return [part for reply in told(client, query(text)) for part in reply if part[0] != "COLUMNS"]


def test_a_statement_that_has_opened_cursors_is_executed_without_one(narrow: World, mysql_server: MySQLServer) -> None:
    narrow.execute("CREATE TABLE told (id INT, v INT)")
    narrow.execute("INSERT INTO told VALUES (1, 57)")
    first, second = (packet_client(narrow, mysql_server, pooled=True) for _ in range(2))
    prepare = Message("Prepare", ("p", ROWS))
    open_cursor, execute, fetch = Message("Execute", ("p", True)), Message("Execute", ("p", False)), Message("Fetch", ("p",))
    row = b"\0\0\1\0\0\0\x39\0\0\0"
    for client in (first, second):
        told(client, prepare)
    for _ in range(2):
        assert told(first, open_cursor)[0][-1][0] == "CURSOR"
        assert told(first, fetch)[0][0] == ("ROWS", row)
        assert told(second, execute)[0][1] == ("ROWS", row)
        assert told(first, execute)[0][1] == ("ROWS", row)
    assert told(first, open_cursor)[0][-1][0] == "CURSOR"
    assert told(first, execute)[0][1] == ("ROWS", row)
    assert told(second, execute)[0][1] == ("ROWS", row)


def test_explain_opens_no_cursor(narrow: World, mysql_server: MySQLServer) -> None:
    """(Of MySQL 9.7, a client that fetches from it, or executes it again, ends the server.)"""
    clients = [packet_client(narrow, mysql_server, pooled=True) for _ in range(2)]
    for client in clients:
        told(client, Message("Prepare", ("p", "EXPLAIN SELECT 1")))
    for client in (*clients, *clients):
        assert [kind for kind, *_ in told(client, Message("Execute", ("p", True)))[0]] == ["COLUMNS", "ROWS", "EOF"]
        assert told(client, Message("Fetch", ("p",)))[0][-1][:2] == ("ERR", 1421)
    assert [kind for kind, *_ in told(clients[0], Message("Execute", ("p", False)))[0]] == ["COLUMNS", "ROWS", "EOF"]


# ---------------------------------------------------------------------------------------------------------------- schemas and their letters


def test_a_client_without_a_schema_leaves_no_character_set(mysql_server: MySQLServer) -> None:
    asked = "SELECT @@character_set_database, @@collation_database"
    every = '[databases.every]\nname = "*"\nbackend = "shop"\npool_size = 1'
    with (
        mysql_world.world(mysql_server, more=every) as made,
        made.connect(autocommit=True, database=None) as client,
        made.connect(autocommit=True, database=None) as other,
    ):
        before = rows(other, asked)
        for charset, setting in (("ucs2", "character_set_database = ucs2"), ("greek", "collation_database = greek_bin")):
            rows(client, f"SET {setting}")
            assert rows(other, asked) == before
            assert rows(client, asked)[0][0] == charset


@pytest.mark.parametrize("charset", ["ucs2", "utf16", "utf32"])
def test_settings_are_followed_whatever_letters_the_schema_has(mysql_server: MySQLServer, charset: str) -> None:
    with mysql_world.world(mysql_server, pool_size=1) as made:
        made.execute(f"ALTER DATABASE `{made.database}` CHARACTER SET {charset}")
        with made.connect(autocommit=True) as client, made.connect(autocommit=True) as other:
            rows(client, "SET sql_mode = 'ANSI_QUOTES'")
            rows(client, "SET lc_time_names = 'de_DE', sort_buffer_size = 99999, @kept = 5")
            assert rows(other, "SELECT @@sql_mode LIKE '%ANSI_QUOTES%', @@lc_time_names, @kept") == [(0, "en_US", None)]
            assert rows(client, "SELECT @@sql_mode, @@lc_time_names, @kept") == [("ANSI_QUOTES", "de_DE", 5)]


# --------------------------------------------------------------------------------------------- tables that no text of the client's shows

UNSEEN: Final = {
    "a procedure": "CALL makes_unseen()",
    "a function": "SELECT makes_one()",
    "a prepared statement with quotes in it": (
        "PREPARE q FROM 'CREATE TEMPORARY TABLE unseen AS SELECT ''a'' AS a'; EXECUTE q; DEALLOCATE PREPARE q"
    ),
}


@pytest.mark.parametrize("text", UNSEEN.values(), ids=UNSEEN)
def test_a_temporary_table_that_is_filled_as_it_is_created_stays_with_its_client(narrow: World, text: str) -> None:
    """No tracker of MySQL's or MariaDB's reports CREATE TEMPORARY TABLE ... SELECT where it is not the client's statement itself."""
    narrow.execute("CREATE PROCEDURE makes_unseen() CREATE TEMPORARY TABLE unseen AS SELECT 'a' AS a")
    narrow.execute("CREATE FUNCTION makes_one() RETURNS INT NO SQL BEGIN CREATE TEMPORARY TABLE unseen AS SELECT 'a' AS a; RETURN 1; END")
    flags = pymysql.constants.CLIENT.MULTI_STATEMENTS
    client = narrow.connect(autocommit=True, client_flag=flags)
    with narrow.connect(autocommit=True) as other:
        rows(client, "CREATE TABLE plain (a INT)")
        rows(client, "CREATE TEMPORARY TABLE brief (a INT)")
        rows(client, "DROP TEMPORARY TABLE brief")
        same(client, other)
        rows(client, text)
        waiting = in_thread(lambda: missing(other))
        assert value(client, "SELECT a FROM unseen") == "a"
        client.close()
        assert waiting.result() == 1146


def missing(client: Client) -> int:
    """The error for who has no such table."""
    with pytest.raises(pymysql.err.MySQLError) as caught:
        value(client, "SELECT a FROM unseen")
    return int(caught.value.args[0])
