"""Listening beside another process, and leaving without taking anybody along."""

import os
import socket
import threading
from pathlib import Path

import pytest

from dualpool.config import Bind, Listener
from dualpool.errors import ConfigError
from dualpool.listener import address_of, bound_sockets, close_listening, sockets_for, turn_away
from dualpool.systemd import Inherited


def listener(*bind: Bind, reuse_port: bool = False) -> Listener:
    return Listener("here", "postgres", bind, reuse_port=reuse_port)


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


def test_an_address_in_use_is_an_error_unless_both_share_it() -> None:
    (first,) = sockets_for(Bind("127.0.0.1"), 8, share=True)
    bind = Bind("127.0.0.1", first.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot listen on"):
        bound_sockets(listener(bind))
    (second,) = bound_sockets(listener(bind, reuse_port=True))
    assert address_of(first) == address_of(second)
    for sock in (first, second):
        close_listening(sock)


def test_a_unix_socket_goes_over_to_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (first,) = sockets_for(Bind(unix=str(path)), 8, share=True)
    early = connect(path)
    (second,) = sockets_for(Bind(unix=str(path)), 8, share=True)
    late = connect(path)
    assert address_of(first) == address_of(second) == f"unix:{path}"
    for sock in (first, second):
        sock.setblocking(True)
        sock.accept()[0].close()
    close_listening(first)
    assert path.exists()
    close_listening(second)
    assert os.listdir(tmp_path) == []
    early.close()
    late.close()


def test_a_unix_socket_is_not_shared_unasked(tmp_path: Path) -> None:
    (first,) = sockets_for(Bind(unix=str(tmp_path / "s")), 8)
    with pytest.raises(OSError, match="in use"):
        sockets_for(Bind(unix=str(tmp_path / "s")), 8)
    close_listening(first)
    assert os.listdir(tmp_path) == []


def test_who_connects_while_one_of_two_leaves_finds_the_other() -> None:
    (leaving,) = sockets_for(Bind("127.0.0.1"), 64, share=True)
    (staying,) = sockets_for(Bind("127.0.0.1", leaving.getsockname()[1]), 64, share=True)
    came: list[socket.socket] = []
    if not turn_away([leaving]):
        pytest.skip("linux: only there can a socket turn new clients away")

    def come() -> None:
        came.append(socket.create_connection(staying.getsockname(), 60))

    clients = [threading.Thread(target=come, daemon=True) for _ in range(8)]
    for client in clients:
        client.start()
    with pytest.raises(BlockingIOError):
        leaving.accept()
    close_listening(leaving)
    staying.settimeout(60)
    accepted = [staying.accept()[0] for _ in clients]
    for client in clients:
        client.join(60)
    assert len(came) == len(accepted) == len(clients)
    for sock in (*came, *accepted, staying):
        sock.close()


def test_nobody_is_turned_away_where_nobody_else_listens() -> None:
    (alone,) = sockets_for(Bind("127.0.0.1"), 8)
    assert not turn_away([alone])
    close_listening(alone)


def test_sockets_that_were_opened_for_us(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as named, socket.create_server(("127.0.0.1", 0)) as other:
        local = socket.socket(socket.AF_UNIX)
        local.bind(str(tmp_path / "s"))
        local.listen()
        given = Inherited([("here", named.dup()), ("", other.dup()), ("", local)])
        assert [address_of(sock) for sock in bound_sockets(listener(Bind("127.0.0.1", 1)), given)] == [
            f"127.0.0.1:{named.getsockname()[1]}"
        ]
        found = bound_sockets(listener(Bind("127.0.0.1", other.getsockname()[1]), Bind(unix=str(tmp_path / "s"))), given)
        assert [address_of(sock) for sock in found] == [f"127.0.0.1:{other.getsockname()[1]}", f"unix:{tmp_path}/s"]
        for sock in found:
            close_listening(sock)
        assert (tmp_path / "s").exists(), "its file is not ours"
        assert given.close() == []
