"""What the leak hunt has found on MySQL and MariaDB."""

import contextlib
import struct
from collections.abc import Iterator
from typing import Any, Final

import pymysql
import pymysql.constants
import pytest

from tests.e2e import mysql_world
from tests.e2e.mysql_world import Client, World, rows, value
from tests.helpers.servers import MySQLServer


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


def test_a_role_that_no_text_shows_ends_with_its_client(narrow: World, mysql_server: MySQLServer) -> None:
    mysql_server.execute("CREATE ROLE IF NOT EXISTS hunted_role")
    mysql_server.execute(f"GRANT hunted_role TO {narrow.user}@'%'")
    with narrow.connect(autocommit=True) as other:
        before = value(other, "SELECT CURRENT_ROLE()")
        with narrow.connect(autocommit=True) as client:
            rows(client, r"PREPARE q FROM 's\et rol\e hunted_role'")
            rows(client, "EXECUTE q")
            rows(client, "DEALLOCATE PREPARE q")
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
