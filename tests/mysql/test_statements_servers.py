"""Prepared statements of clients over two server connections in turn: packet by packet with PyMySQL's socket, and with drivers."""

import struct
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from dualpool.mysql import wire
from dualpool.mysql.statements import close_packet
from dualpool.mysql.wire import INT16, INT32, get_lenenc_bytes
from dualpool.protocol import RelayLimits
from tests.helpers.servers import MySQLServer
from tests.mysql.test_relay_harness import Pooler
from tests.mysql.test_relay_servers import is_free, one

LONGLONG = 8
VAR_STRING = 253
BLOB = 252
CURSOR_READ_ONLY = 1


@pytest.fixture
def pooler(mysql_server: MySQLServer) -> Iterator[Pooler]:
    with mysql_server.temporary_database() as database, Pooler(mysql_server, database=database) as running:
        yield running


class Binary:
    """The binary protocol over a connection of PyMySQL's, which checks the packets' numbers."""

    def __init__(self, connection: "pymysql.Connection[Any]") -> None:
        self.connection: Any = connection

    def command(self, code: int, payload: bytes) -> None:
        self.connection._next_seq_id = 0
        self.connection._sock.sendall(wire.packet(0, bytes((code,)) + payload))
        self.connection._next_seq_id = 1

    def packet(self) -> bytes:
        data: bytes = self.connection._read_packet().get_all_data()
        return data

    def prepare(self, text: str) -> int:
        self.command(wire.COM_STMT_PREPARE, text.encode())
        head = self.packet()
        columns, params = INT16.unpack_from(head, 5)[0], INT16.unpack_from(head, 7)[0]
        for count in (params, columns):
            for _ in range(count):
                self.packet()
            if count:
                assert self.packet()[0] == wire.EOF
        found: int = INT32.unpack_from(head, 1)[0]
        return found

    def execute(self, statement: int, *values: int | str | None, types: bool = True, flags: int = 0) -> None:
        bitmap = bytearray((len(values) + 7) // 8)
        kinds = b""
        data = b""
        for number, value in enumerate(values):
            kinds += bytes((LONGLONG if isinstance(value, int) else VAR_STRING, 0))
            if value is None:
                bitmap[number // 8] |= 1 << number % 8
            elif isinstance(value, int):
                data += struct.pack("<q", value)
            elif value != LATER:
                data += wire.put_lenenc_bytes(value.encode())
        payload = struct.pack("<IBI", statement, flags, 1)
        if values:
            payload += bytes(bitmap) + (b"\x01" + kinds if types else b"\x00") + data
        self.command(wire.COM_STMT_EXECUTE, payload)

    def rows(self) -> list[bytes]:
        """The rest of a result, up to its last EOF."""
        found = []
        while (row := self.packet())[0] != wire.EOF:
            found.append(row)
        self.status = INT16.unpack_from(row, 3)[0]
        return found

    def result(self) -> list[bytes]:
        """A whole result: the values of its single column, as bytes."""
        head = self.packet()
        if head[0] == wire.OK:
            return []
        assert head == b"\x01"
        self.packet()
        assert self.packet()[0] == wire.EOF
        return [row[2:] for row in self.rows()]


LATER = "\0later"
"""Comes, or came, by COM_STMT_SEND_LONG_DATA."""


def number(value: int) -> bytes:
    return struct.pack("<q", value)


def text(value: str) -> bytes:
    return wire.put_lenenc_bytes(value.encode())


def test_a_statement_is_prepared_wherever_it_is_executed(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        binary = Binary(client)
        statement = binary.prepare("SELECT CAST(? AS SIGNED) + 1")
        assert statement == 1
        for n in range(6):
            binary.execute(statement, n)
            assert binary.result() == [number(n + 1)]
        assert [len(server.relay.statements.known) for server in pooler.servers] == [1, 1]


def test_clients_share_what_is_prepared_and_keep_their_own_ids(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as first, pooler.connect(autocommit=True) as second:
        one_, two = Binary(first), Binary(second)
        a = one_.prepare("SELECT CONCAT(?, 'a')")
        b = one_.prepare("SELECT CONCAT(?, 'b')")
        c = two.prepare("SELECT CONCAT(?, 'b')")
        assert (a, b, c) == (1, 2, 1)
        for n in range(4):
            one_.execute(b, f"x{n}")
            two.execute(c, f"y{n}")
            assert one_.result() == [text(f"x{n}b")]
            assert two.result() == [text(f"y{n}b")]
            one_.execute(a, f"z{n}")
            assert one_.result() == [text(f"z{n}a")]
        assert all(len(server.relay.statements.known) <= 2 for server in pooler.servers)


def test_types_are_remembered_for_the_other_server_connection(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as first, pooler.connect(autocommit=True) as second:
        one_, two = Binary(first), Binary(second)
        a, b = (binary.prepare("SELECT CONCAT(?, ?)") for binary in (one_, two))
        one_.execute(a, 7, "x")
        assert one_.result() == [text("7x")]
        two.execute(b, "y", 8)
        assert two.result() == [text("y8")]
        for n in range(5):
            one_.execute(a, n, None, types=False)
            assert len(one_.result()) == 1
            one_.execute(a, n, "x", types=False)
            assert one_.result() == [text(f"{n}x")]
            two.execute(b, "y", n, types=False)
            assert two.result() == [text(f"y{n}")]


def test_long_data_comes_right_before_it_is_needed(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        binary = Binary(client)
        statement = binary.prepare("SELECT CONCAT(?, ?)")
        for n in range(4):
            for piece in ("lo", "ng", str(n)):
                binary.command(wire.COM_STMT_SEND_LONG_DATA, struct.pack("<IH", statement, 0) + piece.encode())
            binary.execute(statement, LATER, "!")
            assert binary.result() == [text(f"long{n}!")]
        binary.command(wire.COM_STMT_SEND_LONG_DATA, struct.pack("<IH", statement, 0) + b"forgotten")
        binary.command(wire.COM_STMT_RESET, INT32.pack(statement))
        assert binary.packet()[0] == wire.OK
        binary.execute(statement, "a", "b")
        assert binary.result() == [text("ab")]


def test_long_data_is_bounded(mysql_server: MySQLServer) -> None:
    with Pooler(mysql_server, database="app", limits=RelayLimits(statement_bytes=1000)) as pooler, pooler.connect() as client:
        binary = Binary(client)
        statement = binary.prepare("SELECT LENGTH(?)")
        for _ in range(20):
            binary.command(wire.COM_STMT_SEND_LONG_DATA, struct.pack("<IH", statement, 0) + b"x" * 100)
        binary.execute(statement, LATER)
        with pytest.raises(pymysql.err.MySQLError) as caught:
            binary.result()
        assert caught.value.args[0] == 1153
        binary.execute(statement, "abc")
        assert binary.result()[0][0] == 3
        assert one(client, "SELECT 1") == 1


def test_a_cursor_holds_its_server_connection(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client, pooler.connect(autocommit=True) as other:
        binary = Binary(client)
        statement = binary.prepare("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT ?")
        for end in ("fetched", "closed", "reset", "executed", "left"):
            binary.execute(statement, 3, flags=CURSOR_READ_ONLY)
            assert binary.packet() == b"\x01"
            binary.packet()
            end_of_columns = binary.packet()
            assert end_of_columns[0] == wire.EOF
            assert INT16.unpack_from(end_of_columns, 3)[0] & wire.STATUS_CURSOR_EXISTS
            binary.command(wire.COM_STMT_FETCH, struct.pack("<II", statement, 2))
            assert len(binary.rows()) == 2
            assert pooler.clients[0].server is not None
            assert one(other, "SELECT 1") == 1
            if end == "fetched":
                binary.command(wire.COM_STMT_FETCH, struct.pack("<II", statement, 2))
                assert len(binary.rows()) == 1
                assert binary.status & wire.STATUS_LAST_ROW_SENT
            elif end == "closed":
                again = binary.prepare("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT ?")
                binary.execute(again, 4)
                assert len(binary.result()) == 3
                binary.command(wire.COM_STMT_CLOSE, INT32.pack(statement))
                statement = again
            elif end == "reset":
                binary.command(wire.COM_STMT_RESET, INT32.pack(statement))
                assert binary.packet()[0] == wire.OK
            elif end == "executed":
                binary.execute(statement, 3)
                assert len(binary.result()) == 3
            if end != "left":
                assert is_free(pooler), end
                binary.command(wire.COM_STMT_FETCH, struct.pack("<II", statement, 2))
                with pytest.raises(pymysql.err.MySQLError) as caught:
                    binary.packet()
                assert caught.value.args[0] == 1421
        client.close()
        assert [one(other, "SELECT 1") for _ in range(4)] == [1] * 4
        client.connect()


def test_the_least_used_statement_makes_room(mysql_server: MySQLServer) -> None:
    with Pooler(mysql_server, size=1, limits=RelayLimits(statements_per_server=2)) as pooler, pooler.connect(autocommit=True) as client:
        before = prepared_count(client)
        binary = Binary(client)
        statements = [binary.prepare(f"SELECT CONCAT(?, '{n}')") for n in range(5)]
        for turn in range(3):
            for n, statement in enumerate(statements):
                binary.execute(statement, f"t{turn}")
                assert binary.result() == [text(f"t{turn}{n}")]
        assert len(pooler.servers[0].relay.statements.known) == 2
        assert prepared_count(client) == before + 2


def prepared_count(client: "pymysql.Connection[Any]") -> int:
    """How many the only server connection has. (The number of the whole server is also that of others who use it.)"""
    prepared, closed = (int(one(client, f"SHOW SESSION STATUS LIKE 'Com_stmt_{what}'")[1]) for what in ("prepare", "close"))
    return prepared - closed


def test_too_many_statements_of_a_client(mysql_server: MySQLServer) -> None:
    with Pooler(mysql_server, limits=RelayLimits(statements_per_client=2)) as pooler, pooler.connect(autocommit=True) as client:
        binary = Binary(client)
        first, _ = binary.prepare("SELECT 1"), binary.prepare("SELECT 2")
        with pytest.raises(pymysql.err.MySQLError) as caught:
            binary.prepare("SELECT 3")
        assert caught.value.args[0] == 1461
        binary.command(wire.COM_STMT_CLOSE, INT32.pack(first))
        assert binary.prepare("SELECT 3")


def test_statements_see_the_schema_in_which_they_were_prepared(pooler: Pooler, mysql_server: MySQLServer) -> None:
    with mysql_server.temporary_database() as other, pooler.connect(autocommit=True) as client:
        for name in (pooler.database, other):
            one(client, f"CREATE TABLE `{name}`.t AS SELECT '{name}' AS name")
        binary = Binary(client)
        statement = binary.prepare("SELECT name FROM t")
        client.select_db(other)
        for _ in range(5):
            binary.execute(statement)
            assert binary.result() == [text(pooler.database)]
            assert one(client, "SELECT name FROM t") == other
            assert one(client, "SELECT DATABASE()") == other


def test_a_statement_that_the_server_has_lost_is_prepared_again(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        binary = Binary(client)
        statement = binary.prepare("SELECT CONCAT(?, 'a')")
        assert is_free(pooler)
        for server in pooler.servers:
            for found in server.relay.statements.known:
                server.sock.sendall(close_packet(found.id))
        for n in range(4):
            binary.execute(statement, f"{n}")
            assert binary.result() == [text(f"{n}a")]


def test_kill_can_be_prepared(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        binary = Binary(client)
        statement = binary.prepare("KILL 5")
        binary.execute(statement)
        with pytest.raises(pymysql.err.MySQLError) as caught:
            binary.packet()
        assert caught.value.args[0] == 1094
        assert one(client, "SHOW ERRORS")[1] == 1094


def test_wrong_commands_are_refused_and_nothing_else_happens(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        binary = Binary(client)
        statement = binary.prepare("SELECT ?")
        for code, payload, errno in (
            (wire.COM_STMT_EXECUTE, struct.pack("<IBI", 99, 0, 1), 1243),
            (wire.COM_STMT_EXECUTE, struct.pack("<IBI", statement, 0, 1), 1210),
            (wire.COM_STMT_EXECUTE, INT32.pack(statement), 1210),
            (wire.COM_STMT_FETCH, struct.pack("<II", 99, 1), 1243),
            (wire.COM_STMT_RESET, INT32.pack(99), 1243),
            (wire.COM_STMT_RESET, b"", 1243),
            (wire.COM_STMT_PREPARE, b"SELECT nonsense", 1054),
            (wire.COM_SET_OPTION, b"\x07\x00", 1047),
            (wire.COM_BINLOG_DUMP, b"", 1047),
            (wire.COM_REGISTER_SLAVE, b"", 1047),
            (wire.COM_SLEEP, b"", 1047),
            (0x77, b"", 1047),
        ):
            binary.command(code, payload)
            with pytest.raises(pymysql.err.MySQLError) as caught:
                binary.packet()
            assert caught.value.args[0] == errno, (code, payload)
            assert one(client, "SELECT 1") == 1
        binary.execute(statement, "still there")
        assert binary.result() == [text("still there")]


def test_other_commands(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        binary = Binary(client)
        one(client, "CREATE TABLE t (id INT, v VARCHAR(10))")
        for _ in range(3):
            binary.command(wire.COM_STATISTICS, b"")
            assert binary.packet().startswith(b"Uptime")
        binary.command(wire.COM_FIELD_LIST, b"t\0")
        assert len(binary.rows()) == 2
        binary.command(wire.COM_SET_OPTION, b"\x00\x00")
        assert binary.packet()[0] == wire.EOF
        assert one(client, "SELECT 1; SELECT 2") == 1
        binary.command(wire.COM_SET_OPTION, b"\x01\x00")
        assert binary.packet()[0] == wire.EOF
        for _ in range(3):
            with pytest.raises(pymysql.err.ProgrammingError):
                one(client, "SELECT 1; SELECT 2")


def test_reset_connection(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        binary = Binary(client)
        statement = binary.prepare("SELECT 1")
        one(client, "SET time_zone = '+05:00'")
        one(client, "SET @pinned = 1")
        client.begin()
        binary.command(wire.COM_RESET_CONNECTION, b"")
        assert binary.packet()[0] == wire.OK
        assert is_free(pooler)
        assert [one(client, "SELECT @pinned, @@time_zone") for _ in range(3)] == [(None, "SYSTEM")] * 3
        binary.execute(statement)
        with pytest.raises(pymysql.err.MySQLError) as caught:
            binary.packet()
        assert caught.value.args[0] == 1243
        one(client, "SET time_zone = '+05:00'")
        binary.command(wire.COM_RESET_CONNECTION, b"")
        assert binary.packet()[0] == wire.OK
        assert [one(client, "SELECT @@time_zone") for _ in range(3)] == ["SYSTEM"] * 3


def test_last_insert_id_in_a_prepared_statement(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        binary = Binary(client)
        one(client, "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
        insert, ask = binary.prepare("INSERT INTO t (v) VALUES (?)"), binary.prepare("SELECT LAST_INSERT_ID()")
        for n in range(1, 5):
            binary.execute(insert, n)
            assert binary.result() == []
            binary.execute(ask)
            assert binary.result() == [number(n)]


def test_commands_that_are_sent_ahead_are_answered_in_turn(pooler: Pooler) -> None:
    with pooler.connect(autocommit=True) as client:
        sock: Any = client._sock  # type: ignore[attr-defined]
        ahead = [
            b"\x03SELECT 1",
            b"\x0e",
            b"\x03SELECT 2",
            b"\x03SET time_zone='+01:00'",
            b"\x03BEGIN",
            b"\x0e",
            b"\x03SELECT 3",
            b"\x03COMMIT",
        ]
        sock.sendall(b"".join(wire.packet(0, payload) for payload in ahead))
        binary = Binary(client)
        seen: list[object] = []
        for payload in ahead:
            client._next_seq_id = 1  # type: ignore[attr-defined]
            if payload.startswith(b"\x03SELECT"):
                assert binary.packet() == b"\x01"
                binary.packet()
                binary.packet()
                seen.append(get_lenenc_bytes(binary.rows()[0], 0)[0])
            else:
                seen.append(binary.packet()[0])
        assert seen == [b"1", 0, b"2", 0, 0, 0, b"3", 0]
        assert is_free(pooler)


READINGS = {
    "div_precision_increment": ("4", "10", "SELECT CAST(1/3 AS CHAR)"),
    "default_week_format": ("0", "3", "SELECT CAST(WEEK('2024-01-01') AS CHAR)"),
    "group_concat_max_len": ("1024", "4", "SELECT GROUP_CONCAT('abcdefgh')"),
    "time_zone": ("'+00:00'", "'+09:00'", "SELECT CAST(TIMESTAMP'2024-01-01 00:00:00+02:00' AS CHAR)"),
    "old_mode": ("''", "'UTF8_IS_UTF8MB3'", "SELECT CHARSET(CONVERT('x' USING utf8))"),
    "default_collation_for_utf8mb4": ("utf8mb4_0900_ai_ci", "utf8mb4_general_ci", "SELECT COLLATION(_utf8mb4'x')"),
}


@pytest.mark.parametrize("name", READINGS)
def test_a_shared_text_is_read_by_the_settings_of_each_client(mysql_server: MySQLServer, name: str) -> None:
    """Some of this is fixed when a statement is prepared: on MySQL the numbers, on MariaDB old_mode."""
    first, second, query = READINGS[name]
    with (
        mysql_server.temporary_database() as database,
        Pooler(mysql_server, size=1, database=database) as pooler,
        pooler.connect(autocommit=True) as one_client,
        pooler.connect(autocommit=True) as other,
    ):
        prepared: list[tuple[Binary, int, list[bytes]]] = []
        for client, value in ((one_client, first), (other, second)):
            binary = Binary(client)
            try:
                one(client, f"SET {name} = {value}")
                expected = [text(str(one(client, query)))]
            except pymysql.Error:
                return  # this server has no such setting, or no such literals
            prepared.append((binary, binary.prepare(query), expected))
        assert prepared[0][2] != prepared[1][2]
        for binary, statement, expected in prepared * 3:
            binary.execute(statement)
            assert binary.result() == expected


def test_variables_that_are_set_by_their_short_names(pooler: Pooler) -> None:
    """MariaDB does not report them: another client would find them, and who has set them would not."""
    with pooler.connect(autocommit=True) as client, pooler.connect(autocommit=True) as other:
        before = one(other, "SELECT @@time_zone, @@sql_mode, @@max_sort_length")
        one(client, "SET @@time_zone = '+03:00', @x = 1, @@max_sort_length = 77")
        binary = Binary(client)
        binary.execute(binary.prepare("SET @@sql_mode = 'ANSI_QUOTES'"))
        assert binary.result() == []
        after = ("+03:00", "ANSI_QUOTES", 77)
        # Each meets each of the two server connections.
        for who, expected in ((other, before), (client, after), (client, after), (other, before), (other, before), (client, after)):
            assert one(who, "SELECT @@time_zone, @@sql_mode, @@max_sort_length") == expected
