"""Prepared statements whose tables change: through dualpool a client is told what a connection of its own tells it.

A server prepares such a statement again by itself, and says once that the number of columns is another one (METADATA_CHANGED). Each script
is run on connections to the server itself, and through dualpool, where the clients meet server connections by turns.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.e2e.mysql_world import Client, World, rows, world
from tests.helpers.servers import MySQLServer

PREPARE: Final = 0x16
EXECUTE: Final = 0x17
ALTERED: Final = {
    "a column more": ("SELECT * FROM shape", "ALTER TABLE shape ADD c VARCHAR(5) DEFAULT 'x'"),
    "a column less": ("SELECT * FROM shape", "ALTER TABLE shape DROP b"),
    "another column": ("SELECT * FROM shape", "ALTER TABLE shape DROP b, ADD d INT DEFAULT 9"),
    "another type": ("SELECT b FROM shape", "ALTER TABLE shape MODIFY b VARCHAR(10)"),
    "a wider type": ("SELECT b FROM shape", "ALTER TABLE shape MODIFY b BIGINT"),
    "a column that is gone": ("SELECT b FROM shape", "ALTER TABLE shape DROP b"),
    "a table that is gone": ("SELECT * FROM shape", "DROP TABLE shape"),
    "another table of that name": ("SELECT * FROM shape", "RENAME TABLE shape TO former, other TO shape"),
    "another view": ("SELECT * FROM seen", "CREATE OR REPLACE VIEW seen AS SELECT a, b, a + b AS c FROM shape"),
    "with parameters": ("SELECT *, ? FROM shape", "ALTER TABLE shape ADD c VARCHAR(5) DEFAULT 'x'"),
    "an INSERT": ("INSERT INTO shape (a, b) VALUES (?, 2)", "ALTER TABLE shape ADD c VARCHAR(5) NOT NULL DEFAULT 'x'"),
}
SET_UP: Final = (
    "DROP TABLE IF EXISTS shape, former, other",
    "CREATE TABLE shape (a INT, b INT)",
    "CREATE TABLE other (x VARCHAR(3))",
    "INSERT INTO shape VALUES (1, 2)",
    "INSERT INTO other VALUES ('q')",
    "CREATE OR REPLACE VIEW seen AS SELECT a FROM shape",
)


@pytest.fixture(scope="module")
def two(mysql_server: MySQLServer) -> Iterator[World]:
    """A pool of two server connections."""
    with world(mysql_server, 2) as made:
        yield made


def packet(client: Client) -> bytes:
    return bytes(client._read_bytes(int.from_bytes(client._read_bytes(4)[:3], "little")))


def prepared(client: Client, text: str) -> tuple[bytes, int]:
    """The statement's number, and how many columns it has, as the server says; its parameters are one or none."""
    client._execute_command(PREPARE, text.encode())
    head = packet(client)
    assert head[:1] == b"\0", head
    columns, params = struct.unpack_from("<HH", head, 5)
    for count in (params, columns):
        for _ in range(count + 1 if count else 0):
            packet(client)
    return head[1:5], columns


def executed(client: Client, number: bytes, text: str) -> object:
    """Columns with their types, the flags of both EOF packets, and the rows; or the error; or OK."""
    parameter = b"\0\1\x08\0" + (7).to_bytes(8, "little") if "?" in text else b""
    client._execute_command(EXECUTE, number + b"\0\1\0\0\0" + parameter)
    head = packet(client)
    if head[:1] == b"\xff":
        return int.from_bytes(head[1:3], "little")
    if head[:1] == b"\0":
        return "OK"
    columns = [packet(client) for _ in range(head[0])]
    flags = [packet(client)[3:5]]
    found: list[bytes] = []
    while (row := packet(client))[:1] != b"\xfe":
        found.append(row)
    flags.append(row[3:5])
    # (Of a definition: without the database's name. Whether an index was used is the server's own matter.)
    return [column[-20:] for column in columns], [int.from_bytes(flag, "little") & ~0x30 for flag in flags], found


@pytest.mark.parametrize("case", ALTERED)
def test_a_statement_whose_table_changes(two: World, case: str) -> None:
    text, change = ALTERED[case]
    server = two.server
    real = {"user": server.admin_user, "password": server.admin_password, "database": two.database}
    seen: list[list[object]] = []
    for straight in (True, False):
        for statement in SET_UP:
            two.execute(statement)

        def connect(straight: bool = straight) -> Any:
            return server.connect(**real, autocommit=True) if straight else two.connect(autocommit=True)

        with connect() as a, connect() as b, connect() as holder:
            told: list[object] = []
            statements = {client: prepared(client, text)[0] for client in (a, b)}
            told += [executed(client, statements[client], text) for client in (a, b)]
            rows(holder, "BEGIN")
            told += [executed(client, statements[client], text) for client in (a, b)]
            two.execute(change)
            told += [executed(client, statements[client], text) for client in (a, b, a, b)]
            rows(holder, "COMMIT")
            with connect() as new:
                # The server connection that has not met the change yet; and a client that never knew anything else.
                rows(holder, "BEGIN")
                told += [executed(client, statements[client], text) for client in (b, a, b)]
                if "gone" not in case:
                    number, columns = prepared(new, text)
                    told += [columns, executed(new, number, text)]
                    rows(holder, "COMMIT")
                    told += [executed(new, number, text), executed(a, statements[a], text)]
            rows(holder, "COMMIT")
        seen.append(told)
    assert seen[1] == seen[0]
