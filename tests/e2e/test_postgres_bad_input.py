"""Garbage at the socket: who sent it gets an error that a driver understands, and a client beside it notices nothing."""

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator

import psycopg
import pytest

from dualpool.postgres import wire
from tests.e2e.postgres_raw import SYNC, Raw, bind, error_of, execute, kinds, parse, query, startup
from tests.e2e.postgres_world import DEADLINE, RunWorld, World, wait_until
from tests.helpers.servers import Servers


@pytest.fixture(scope="module")
def world(one_postgres: World) -> World:
    return one_postgres


@pytest.fixture
def neighbour(world: World) -> Iterator[Raw]:
    """A client in a transaction, which goes on undisturbed."""
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(query("BEGIN; SET LOCAL app.x = 'mine'"))
        yield client
        assert client.value(query("SELECT current_setting('app.x')")) == "mine"
        assert kinds(client.ask(query("COMMIT"))) == "CZ"
    world.assert_unharmed()
    assert "Traceback" not in world.pooler.log


BEFORE_LOGIN = {
    "zeros": b"\0" * 64,
    "ones": b"\xff" * 64,
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "length 0": struct.pack("!II", 0, wire.PROTOCOL_3_0),
    "length 3": struct.pack("!II", 3, wire.PROTOCOL_3_0),
    "length 7": struct.pack("!II", 7, wire.PROTOCOL_3_0),
    "length of 2 GB": struct.pack("!II", 0x7FFFFFFF, wire.PROTOCOL_3_0) + b"x" * 20_000,
    "no end": struct.pack("!II", 20, wire.PROTOCOL_3_0) + b"user\0app\0xyz",
    "no user": startup(database="app"),
    "version 2": startup(2 << 16, user="app"),
    "version 4": startup(4 << 16, user="app"),
    "mysql's version": startup(0x0A_38_2E_30, user="app"),
}


@pytest.mark.parametrize("name", BEFORE_LOGIN)
def test_garbage_before_the_login(world: World, neighbour: Raw, name: str) -> None:
    with Raw(world.pooler.port("trust")) as client:
        with contextlib.suppress(ConnectionError):  # it may be closed before it has read everything
            client.send(BEFORE_LOGIN[name])
        error = error_of(client.until_closed())
        assert (error["S"], error["C"][:2] in {"08", "0A", "28"}) == ("FATAL", True), error


def test_a_tls_handshake_where_there_is_no_tls(world: World, neighbour: Raw) -> None:
    context = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", world.pooler.port("trust")), DEADLINE) as sock, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(sock, server_hostname="localhost")
    with pytest.raises(psycopg.OperationalError, match="SSL"):
        world.connect(sslmode="require")


def test_ssl_and_gss_requests_are_answered_and_the_login_goes_on(world: World, neighbour: Raw) -> None:
    with Raw(world.pooler.port("trust")) as client:
        for request in (wire.GSSENC_REQUEST, wire.SSL_REQUEST):
            client.send(struct.pack("!II", 8, request))
            assert client.sock.recv(1) == b"N"
        client.log_in()
        assert client.value(query("SELECT 1")) == "1"


def test_garbage_behind_a_query_that_waits_in_vain(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), 1, '[timeouts]\nquery_wait = "150ms"')
    wait_until(world.is_served, "the server connection, for which nobody waits long enough")
    with Raw(world.pooler.port("trust")).log_in() as holder, Raw(world.pooler.port("trust")).log_in() as client:
        holder.ask(query("BEGIN"))
        client.send(query("SELECT 1"), b"Q" + struct.pack("!I", 3))
        assert [error_of([answer])["C"] for answer in client.until_closed() if answer[0] == "E"] == ["53300", "08P01"]
        assert kinds(holder.ask(query("COMMIT"))) == "CZ"
    wait_until(world.is_served, "others are served")


AFTER_LOGIN = {
    "an unknown kind": (b"@" + struct.pack("!I", 4), "08P01"),
    "a length of 3": (b"Q" + struct.pack("!I", 3), "08P01"),
    "a length of 0": (b"Q" + struct.pack("!I", 0), "08P01"),
    "a negative length": (b"Q" + struct.pack("!i", -1), "08P01"),
    "a password": (wire.message(wire.PASSWORD, b"x\0"), "08P01"),
    "a start-up message": (startup(user="app"), "08P01"),
    "a long Sync": (b"S" + struct.pack("!I", 100_000) + b"x" * 100_000, "08P01"),
    "a Bind without names": (wire.message(wire.BIND, b"xyz") + SYNC, "08P01"),
    "a Parse without an end": (wire.message(wire.PARSE, b"name") + SYNC, "08P01"),
    "http": (b"GET / HTTP/1.1\r\n\r\n", "08P01"),
}


@pytest.mark.parametrize("before", ["", "BEGIN"], ids=["idle", "in a transaction"])
@pytest.mark.parametrize("name", AFTER_LOGIN)
def test_garbage_after_the_login(world: World, neighbour: Raw, name: str, before: str) -> None:
    garbage, sqlstate = AFTER_LOGIN[name]
    with Raw(world.pooler.port("trust")).log_in() as client:
        if before:
            client.ask(query(before))
        with contextlib.suppress(ConnectionError):  # it may be closed before it has read everything
            client.send(garbage)
        error = error_of(client.until_closed())
        assert error["C"] == sqlstate, error
    wait_until(lambda: len(world.server_connections("state <> 'idle'")) == 1, "only the neighbour's transaction is left")


def test_a_malformed_message_in_a_right_frame_is_the_servers_to_refuse(world: World, neighbour: Raw) -> None:
    with Raw(world.pooler.port("trust")).log_in() as client:
        client.ask(parse("s", "SELECT $1::int"), SYNC)
        for malformed in (bind("s", "1", "2"), wire.message(wire.DESCRIBE, b""), wire.message(wire.EXECUTE, b"\0")):
            assert error_of(client.ask(malformed, SYNC))["C"] == "08P01"
        assert client.value(query("SELECT 1")) == "1"


@pytest.mark.parametrize("cut", [1, 4, 5, 9])
def test_a_message_that_is_cut_off_by_the_end_of_the_connection(world: World, neighbour: Raw, cut: int) -> None:
    client = Raw(world.pooler.port("trust")).log_in()
    client.send(query("SELECT 1")[:cut])
    client.sock.shutdown(socket.SHUT_WR)
    assert "D" not in kinds(client.until_closed())
    client.sock.close()


def test_a_startup_message_cut_off(world: World, neighbour: Raw) -> None:
    whole = startup(user="app", database="app")
    for cut in (0, 1, 4, 8, len(whole) - 1):
        with Raw(world.pooler.port("trust")) as client:
            client.send(whole[:cut])
            client.sock.shutdown(socket.SHUT_WR)
            client.until_closed()


def test_messages_byte_by_byte(world: World, neighbour: Raw) -> None:
    with Raw(world.pooler.port("trust")) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in startup(user="app", database="app"):
            client.send(bytes((byte,)))
        client.until_ready()
        for byte in query("SELECT 'slowly'") + parse("", "SELECT 2") + bind("") + execute() + SYNC:
            client.send(bytes((byte,)))
        assert kinds(client.until_ready()) + kinds(client.until_ready()) == "TDCZ12DCZ"


def test_a_login_that_stalls_is_ended(run_world: RunWorld, servers: Servers) -> None:
    world = run_world(servers.postgres(15), more='[timeouts]\nclient_login = "200ms"')
    for sent in (b"", struct.pack("!I", 30), startup(user="app", database="app")):
        with Raw(world.pooler.port()) as client:
            with contextlib.suppress(ConnectionError):  # it may have been slower than the time that it has
                client.send(sent)
            error = error_of(client.until_closed())
            assert (error["C"], "timeouts.client_login" in error["M"]) == ("08P01", True)
    wait_until(lambda: logs_in_in_time(world), "a login that is quick enough")


def logs_in_in_time(world: World) -> bool:
    """On a machine under load a login may take longer than the test allows."""
    try:
        world.assert_unharmed()
    except psycopg.OperationalError:
        return False
    return True


def test_a_stalled_login_holds_up_nobody(world: World, neighbour: Raw) -> None:
    stalled = [Raw(world.pooler.port()) for _ in range(50)]
    began = time.monotonic()
    for _ in range(5):
        world.assert_unharmed()
    assert time.monotonic() - began < DEADLINE / 2
    for client in stalled:
        client.sock.close()


def test_a_query_that_is_longer_than_a_message_is_held_passes(world: World, neighbour: Raw) -> None:
    text = "x" * 3_000_000
    with Raw(world.pooler.port("trust")).log_in() as client:
        assert client.value(query(f"SELECT length('{text}')")) == "3000000"
        assert client.value(parse("", f"SELECT length('{text}')"), bind(""), execute(), SYNC) == "3000000"
        assert client.value(parse("", "SELECT length($1)"), bind("", text), execute(), SYNC) == "3000000"
        with contextlib.suppress(ConnectionError):  # it is closed before it has read everything
            client.send(parse("named", f"SELECT length('{text * 2}')"), SYNC)
        error = error_of(client.until_closed())
        assert (error["C"], "limits.statement_bytes" in error["H"]) == ("54000", True)
