"""Cancel requests: the bytes, and a real server's query that ends by them."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

from dualpool.accounts import ServerLogin, ServerTarget
from dualpool.errors import ConnectFailed, RemoteProtocolError
from dualpool.postgres import backend, cancel, messages, wire
from dualpool.protocol import TlsInfo
from tests.helpers.blocking import TIMEOUT, Driver
from tests.helpers.playbook import check, fails, hangs_up, reads, returns, sends, starts_tls
from tests.helpers.servers import PostgresServer, client_tls

TARGET = ServerTarget("db", 5432, "app", "shop", "secret")
PLAIN = ServerLogin({}, 7, b"key!")
REQUEST = messages.cancel_request(7, b"key!")
SSL = messages.request(wire.SSL_REQUEST)
ENCRYPTED = attrs.evolve(PLAIN, tls=TlsInfo("TLSv1.3", "", "", b"", b""))


def test_it_is_over_when_the_server_closes() -> None:
    check(cancel.cancel(TARGET, PLAIN), [sends(REQUEST), hangs_up(), returns()])


def test_what_the_server_says_does_not_matter() -> None:
    check(cancel.cancel(TARGET, PLAIN), [sends(REQUEST), reads(b"whatever"), hangs_up(), returns()])


def test_a_long_key() -> None:
    login = ServerLogin({}, 7, b"k" * 256)
    check(cancel.cancel(TARGET, login), [sends(messages.cancel_request(7, b"k" * 256)), hangs_up(), returns()])


def test_a_session_without_a_key_cannot_be_cancelled() -> None:
    check(cancel.cancel(TARGET, ServerLogin({}, 7)), [returns()])


def test_the_key_travels_as_the_session_does() -> None:
    check(cancel.cancel(TARGET, ENCRYPTED), [sends(SSL), reads(b"S"), starts_tls(), sends(REQUEST), hangs_up(), returns()])
    direct = attrs.evolve(TARGET, direct_tls=True, sslmode="require")
    check(cancel.cancel(direct, ENCRYPTED), [starts_tls(alpn="postgresql"), sends(REQUEST), hangs_up(), returns()])


def test_it_fails_where_tls_does() -> None:
    required = attrs.evolve(TARGET, sslmode="require")
    message = "the server at db:5432 does not offer TLS, but sslmode=require asks for it"
    check(cancel.cancel(required, ENCRYPTED), [sends(SSL), reads(b"N"), fails(ConnectFailed, message, "08006")])
    failure = RemoteProtocolError("bad certificate")
    message = "the login at the server at db:5432 failed: bad certificate"
    check(cancel.cancel(TARGET, ENCRYPTED), [sends(SSL), reads(b"S"), starts_tls(failure), fails(ConnectFailed, message, "28000")])
    message = "the server closed the connection before it took the cancel request"
    check(cancel.cancel(TARGET, ENCRYPTED), [sends(SSL), hangs_up(), fails(ConnectFailed, message, "08006")])


# ------------------------------------------------------------------------------------------------------------------ real servers


@contextmanager
def dialled(target: ServerTarget, tls: ssl.SSLContext | None) -> Iterator[Driver]:
    with socket.create_connection((target.host, target.port), timeout=TIMEOUT) as sock:
        driver = Driver(sock, tls=tls)
        try:
            yield driver
        finally:
            driver.sock.close()


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_a_real_servers_query_ends(postgres15: PostgresServer, sslmode: str) -> None:
    assert postgres15.certificates is not None
    tls = client_tls(postgres15.certificates)
    target = ServerTarget(postgres15.host, postgres15.port, "app", "app", "app", sslmode=sslmode)  # type: ignore[arg-type]
    with dialled(target, tls) as driver:
        login = driver.run(backend.connect(target))
        driver.sock.sendall(wire.query(b"SELECT pg_sleep(600)"))
        answer: list[bytes] = []
        reader = threading.Thread(target=lambda: answer.append(driver.sock.recv(65536)))
        reader.start()
        wait_until_running(postgres15, login.process_id)
        with dialled(target, tls) as other:
            other.run(cancel.cancel(target, login))
        reader.join()
    assert b"C57014" in answer[0]


def wait_until_running(server: PostgresServer, process_id: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not server.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'", process_id):
        assert time.monotonic() < deadline, "the query does not start"
        time.sleep(0.01)


def test_a_wrong_key_cancels_nothing(postgres15: PostgresServer) -> None:
    target = ServerTarget(postgres15.host, postgres15.port, "app", "app", "app", sslmode="disable")
    with dialled(target, None) as driver:
        login = driver.run(backend.connect(target))
        with dialled(target, None) as other:
            other.run(cancel.cancel(target, attrs.evolve(login, secret=bytes(byte ^ 1 for byte in login.secret))))
        driver.sock.sendall(wire.query(b"SELECT 1"))
        assert b"SELECT 1\0" in driver.sock.recv(65536)
