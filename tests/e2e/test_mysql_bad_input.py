"""Garbage at the socket: who sent it gets an error of MySQL's or is cut off, and a client beside it notices nothing. And the end."""

import contextlib
import os
import signal
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from dualpool.mysql import wire
from dualpool.mysql.messages import parse_error
from tests.e2e.mysql_world import Client, RunWorld, World, rows, value, world
from tests.e2e.postgres_world import DEADLINE, wait_until
from tests.helpers.servers import MySQLServer, Servers


@pytest.fixture(scope="module")
def one(servers: Servers) -> Iterator[World]:
    """One dualpool."""
    with world(servers.mysql()) as made:
        yield made


@pytest.fixture(scope="module")
def hasty(servers: Servers) -> Iterator[World]:
    """One that gives up on a login after a while: too short a while for a real one, if the machine is slow."""
    with world(servers.mysql(), more='[timeouts]\nclient_login = "400ms"') as made:
        yield made


@pytest.fixture
def neighbour(one: World) -> Iterator[Client]:
    """A client in a transaction, which goes on undisturbed."""
    with one.connect() as client:
        client.begin()
        before = value(client, "SELECT CONNECTION_ID() + 0 AS processlist_id")
        yield client
        assert value(client, "SELECT CONNECTION_ID() + 0 AS processlist_id") == before
        client.commit()
    one.assert_unharmed()
    assert "Traceback" not in one.pooler.log


def read_to_the_end(sock: socket.socket) -> bytes:
    """What comes until the other side closes."""
    sock.settimeout(DEADLINE)
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := sock.recv(65536):
            data += more
    return data


def packets(data: bytes) -> list[bytes]:
    """The payloads."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "little")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


RESPONSE = struct.pack("<IIB23x", wire.CLIENT_PROTOCOL_41 | wire.CLIENT_PLUGIN_AUTH, 1 << 24, 45) + b"app\0"
BEFORE_LOGIN = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": b"\0" * 64,
    "ones": b"\xff" * 64,
    "postgres": struct.pack("!II", 8, 80877103),
    "out of order": wire.packet(7, RESPONSE),
    "a token longer than its packet": wire.packet(1, RESPONSE + b"\xfeab"),
    "an empty response": wire.packet(1, b""),
    "a query before the login": wire.packet(1, b"\3SELECT 1"),
}
STALLS = {
    "a plugin nobody knows": wire.packet(1, RESPONSE + b"\0" + b"no_such_plugin\0"),
    "a length that lies": wire.packet(1, RESPONSE)[:-3],
    "16 MB": wire.header(1, 0xFFFFFF) + b"x" * 100_000,
    "silence": b"",
}


@pytest.mark.parametrize("name", BEFORE_LOGIN)
def test_before_the_login(one: World, neighbour: Client, name: str) -> None:
    assert_told_in_order(one, BEFORE_LOGIN[name])


@pytest.mark.parametrize("name", STALLS)
def test_who_does_not_go_on_with_a_login(hasty: World, name: str) -> None:
    assert_told_in_order(hasty, STALLS[name])
    wait_until(hasty.is_served, "somebody who is quicker")


def assert_told_in_order(target: World, sent: bytes) -> None:
    """A greeting comes first, then nothing but an error, and the connection is closed."""
    with socket.create_connection(("127.0.0.1", target.pooler.port("mysql"))) as sock:
        with contextlib.suppress(ConnectionError):  # it may be closed before it has read everything
            sock.sendall(sent)
        greeting, *rest = packets(read_to_the_end(sock))
    assert greeting[0] == 10
    errors = [parse_error(packet) for packet in rest if packet[:1] == b"\xff"]
    assert all(1000 < error.errno < 5000 for error in errors)


def test_a_response_cut_at_any_byte(one: World, neighbour: Client) -> None:
    whole = wire.packet(1, RESPONSE + b"\0mysql_native_password\0")
    for cut in range(0, len(whole), 7):
        with socket.create_connection(("127.0.0.1", one.pooler.port("mysql"))) as sock:
            sock.sendall(whole[:cut])
            sock.shutdown(socket.SHUT_WR)
            assert read_to_the_end(sock)


def test_a_tls_handshake_where_a_greeting_is_due(one: World, neighbour: Client) -> None:
    context = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", one.pooler.port("mysql"))) as sock, pytest.raises((ssl.SSLError, OSError)):
        sock.settimeout(DEADLINE)
        context.wrap_socket(sock, server_hostname="localhost")


def test_a_login_that_stalls(hasty: World) -> None:
    with socket.create_connection(("127.0.0.1", hasty.pooler.port("mysql"))) as sock:
        sock.sendall(wire.packet(1, RESPONSE)[:10])
        _, error = packets(read_to_the_end(sock))
    assert "client_login" in parse_error(error).message


AFTER_LOGIN = {
    "out of order": (b"\x02\0\0\x05\x03S", True),
    "no command": (b"\0\0\0\0", True),
    "an unknown command": (wire.packet(0, b"\xee"), False),
    "a command of the server's own": (wire.packet(0, b"\x0b"), False),
    "a statement that was never prepared": (wire.packet(0, b"\x17" + struct.pack("<IBI", 77, 0, 1)), False),
    "half a statement id": (wire.packet(0, b"\x17ab"), False),
    "half an init": (wire.packet(0, b"\x02"), False),
    "a set option of no option": (wire.packet(0, b"\x1b\x09\x00"), False),
    "a fetch without a cursor": (wire.packet(0, b"\x1c" + struct.pack("<II", 1, 1)), False),
    "binary zeros as a query": (wire.packet(0, b"\x03" + b"\0" * 100), False),
}


@pytest.mark.parametrize("name", AFTER_LOGIN)
def test_after_the_login(one: World, neighbour: Client, name: str) -> None:
    data, is_the_end = AFTER_LOGIN[name]
    client = one.connect(autocommit=True)
    sock: Any = client._sock
    sock.sendall(data)
    client._next_seq_id = 1
    with pytest.raises(pymysql.err.MySQLError) as caught:
        client._read_packet()
    assert 1000 < caught.value.args[0] < 5000
    if is_the_end:
        assert read_to_the_end(sock) == b""
        client._force_close()
    else:
        assert value(client, "SELECT 'lives on'") == "lives on"
        client.close()


def test_garbage_behind_a_query_that_waits_in_vain(run_mysql: RunWorld, servers: Servers) -> None:
    world = run_mysql(servers.mysql(), 1, more='[timeouts]\nquery_wait = "150ms"')
    wait_until(world.is_served, "the server connection, for which nobody waits long enough")
    with world.connect() as holder, world.connect(autocommit=True) as client:
        holder.begin()
        assert value(holder, "SELECT 1") == 1
        sock: Any = client._sock
        sock.sendall(wire.packet(0, b"\x03SELECT 1") + AFTER_LOGIN["out of order"][0])
        told = [parse_error(packet).message for packet in packets(read_to_the_end(sock))]
        assert ["query_wait" in message for message in told] == [True, False]
        client._force_close()
        holder.rollback()
    wait_until(world.is_served, "others are served")


def test_a_parameter_count_that_does_not_fit(one: World, neighbour: Client) -> None:
    client = one.connector()
    prepared = client.cmd_stmt_prepare(b"SELECT ? + ?")
    client._socket.send(b"\x17" + struct.pack("<IBI", prepared["statement_id"], 0, 1) + b"\0", 0, 0)
    answer = client._socket.recv()
    assert answer[4] == 0xFF
    with contextlib.closing(client.cursor(prepared=True)) as cursor:
        cursor.execute("SELECT %s + %s", (1, 2))
        assert cursor.fetchall() == [(3,)]
    client.close()


def test_commands_sent_ahead(one: World, neighbour: Client) -> None:
    """A client that does not wait gets its answers in order."""
    client = one.connect(autocommit=True)
    sock: Any = client._sock
    sock.sendall(b"".join(wire.packet(0, b"\x03SELECT %d" % number) for number in range(50)) + wire.packet(0, b"\x0e"))
    for number in range(50):
        client._next_seq_id = 1
        found = [client._read_packet().get_all_data() for _ in range(5)]
        assert found[3] == bytes((len(str(number)),)) + str(number).encode()
    client._next_seq_id = 1
    assert client._read_packet().get_all_data()[0] == 0
    client.close()


# --------------------------------------------------------------------------------------------------------------------- the end


def is_refused(port: int) -> bool:
    """True if nobody listens."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return True
    return False


def test_sigterm_lets_a_transaction_finish(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    own = run_mysql(mysql_server)
    own.execute("CREATE TABLE kept (n INT) ENGINE=InnoDB")
    busy, idle = own.connect(), own.connect(autocommit=True)
    busy.begin()
    rows(busy, "INSERT INTO kept VALUES (1)")
    value(idle, "SELECT 1")
    os.kill(own.pooler.pid, signal.SIGTERM)
    with pytest.raises(pymysql.err.MySQLError):
        while True:
            idle.ping(reconnect=False)
    wait_until(lambda: is_refused(own.pooler.port("mysql")), "no more clients let in")
    rows(busy, "INSERT INTO kept VALUES (2)")
    busy.commit()
    assert own.pooler.wait() == 0, own.pooler.log
    wait_until(lambda: not own.server_connections(), "no server connection left")
    assert own.execute("SELECT n FROM kept ORDER BY n") == [(1,), (2,)]


def test_a_second_signal_ends_at_once(run_mysql: RunWorld, mysql: MySQLServer) -> None:
    own = run_mysql(mysql)
    own.execute("CREATE TABLE kept (n INT) ENGINE=InnoDB")
    busy = own.connect()
    busy.begin()
    rows(busy, "INSERT INTO kept VALUES (1)")
    os.kill(own.pooler.pid, signal.SIGTERM)
    own.pooler.wait_for_log("SIGTERM")
    os.kill(own.pooler.pid, signal.SIGINT)
    assert own.pooler.wait() == 0, own.pooler.log
    wait_until(lambda: not own.server_connections(), "no server connection left")
    assert own.execute("SELECT n FROM kept") == []
