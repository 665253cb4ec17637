"""KILL QUERY, at real servers and as transcripts."""

import socket
import threading
import time

import pymysql
import pytest

from dualpool.accounts import ServerLogin, ServerTarget
from dualpool.errors import ConnectFailed
from dualpool.mysql import backend, cancel, messages, wire
from dualpool.mysql.codec import Ok, build_ok
from dualpool.mysql.messages import Greeting
from tests.helpers.blocking import TIMEOUT, Driver
from tests.helpers.playbook import Play, every_end
from tests.helpers.servers import MySQLServer

TARGET = ServerTarget("db.example", 3306, "app", "", sslmode="disable")
OFFERED = backend.WANTED
OK = build_ok(Ok(), OFFERED, wire.OK)
LOGGED_IN = wire.packet(0, Greeting("8.4.0", 99, bytes(20), OFFERED).payload()) + wire.packet(2, OK)
QUIT = wire.packet(0, b"\x01")


def kill(server: MySQLServer, process_id: int) -> None:
    target = ServerTarget(server.host, server.port, server.user, "", password=server.password, sslmode="disable")
    driver = Driver(socket.create_connection((server.host, server.port)))
    try:
        driver.run(cancel.cancel(target, ServerLogin({}, process_id)))
        assert driver.sock.recv(1) == b"", "COM_QUIT ends the connection"
    finally:
        driver.sock.close()


def wait_until_running(server: MySQLServer, process_id: int) -> None:
    """Poll until the connection runs its SLEEP."""
    deadline = time.monotonic() + TIMEOUT
    while not server.execute(f"SELECT 1 FROM {server.processes} WHERE id = %s AND state = 'User sleep'", process_id):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_query_is_cancelled_and_its_connection_lives_on(mysql_server: MySQLServer) -> None:
    victim = mysql_server.connect()
    outcome: list[object] = []

    def sleep() -> None:
        try:
            with victim.cursor() as cursor:
                cursor.execute("SELECT SLEEP(600)")
                outcome.append(cursor.fetchone())
        except pymysql.MySQLError as error:
            outcome.append(error.args[0])

    sleeper = threading.Thread(target=sleep, daemon=True)
    sleeper.start()
    wait_until_running(mysql_server, victim.thread_id())
    kill(mysql_server, victim.thread_id())
    sleeper.join(TIMEOUT)
    assert not sleeper.is_alive()
    assert outcome in ([(1,)], [1317])
    with victim.cursor() as cursor:
        cursor.execute("SELECT 2")
        assert cursor.fetchone() == (2,)
    victim.close()


def test_a_connection_that_is_gone_needs_no_cancel(mysql_server: MySQLServer) -> None:
    kill(mysql_server, 4_000_000_000)


@pytest.mark.parametrize(("answer", "error"), [(OK, None), ((1094, "no such thread"), None), ((1095, "not yours"), 1095)])
def test_answers_to_a_kill(answer: bytes | tuple[int, str], error: int | None) -> None:
    play = Play(cancel.cancel(TARGET, ServerLogin({}, 42)))
    assert play.feed(LOGGED_IN).endswith(b"\x03KILL QUERY 42")
    payload = answer if isinstance(answer, bytes) else messages.error_payload(answer[0], "HY000", answer[1])
    assert play.feed(wire.packet(1, payload)) == (b"" if error else QUIT)
    assert play.done
    if error:
        assert isinstance(play.error, ConnectFailed)
        assert play.error.errno == error


def test_cut_at_every_byte() -> None:
    every_end(lambda: cancel.cancel(TARGET, ServerLogin({}, 42)), LOGGED_IN + wire.packet(1, OK))
