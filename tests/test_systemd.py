"""What systemd passes on, and what it is told."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualpool.config import Bind
from dualpool.systemd import Inherited, Manager, inherited, means


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def test_a_socket_is_found_by_name_or_by_address_once(tcp: socket.socket) -> None:
    found = Inherited([("postgres", tcp)])
    assert found.named("mysql") == []
    assert found.at(Bind("127.0.0.1", port_of(tcp) + 1)) == []
    assert found.named("postgres") == [tcp]
    assert found.named("postgres") == found.at(Bind("127.0.0.1", port_of(tcp))) == []
    assert Inherited([("", tcp)]).at(Bind("127.0.0.1", port_of(tcp))) == [tcp]


def test_what_nobody_takes_is_closed_and_told(tcp: socket.socket) -> None:
    left = Inherited([("odd", tcp)]).close()
    assert left == [f"odd (('127.0.0.1', {left[0].rpartition(' ')[2].strip(')')}))"]
    assert tcp.fileno() == -1


def test_which_address_means_a_socket(tcp: socket.socket, tmp_path: Path) -> None:
    port = port_of(tcp)
    assert not means(Bind("", port), tcp)
    assert not means(Bind(unix="/x"), tcp)
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        assert means(Bind("", port_of(everywhere)), everywhere)
        assert not means(Bind("127.0.0.1", port_of(everywhere)), everywhere)
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "s"))
        assert means(Bind(unix=str(tmp_path / "s")), local)
        assert not means(Bind(unix="/other"), local)
        assert not means(Bind("", port), local)


@pytest.mark.parametrize("variables", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "5"}, {"LISTEN_PID": "me", "LISTEN_FDS": "many"}])
def test_sockets_of_another_process_are_left_alone(variables: dict[str, str]) -> None:
    environment = {key: str(os.getpid()) if value == "me" else value for key, value in variables.items()} | {
        "LISTEN_FDNAMES": "a:b",
        "X": "y",
    }
    assert inherited(environment).close() == []
    assert environment == {"X": "y"}


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    path = f"@dualpool-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + path[1:] if abstract else path)
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "X": "y"}
        manager = Manager(environment)
        assert environment == {"X": "y"}
        assert manager.is_there
        assert (manager.watchdog, manager.period) == (3.0, 1.5)
        manager.ready("1 clients")
        assert listening.recv(1000).decode() == f"READY=1\nSTATUS=1 clients\nMAINPID={os.getpid()}"
        manager.reloading()
        assert listening.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        manager.alive("s")
        assert listening.recv(1000) == b"WATCHDOG=1\nSTATUS=s"
        manager.stopping("s")
        assert listening.recv(1000) == b"STOPPING=1\nSTATUS=s"
    manager.alive("nobody there any more")


def test_without_a_manager_nothing_happens() -> None:
    manager = Manager({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"})
    assert not manager.is_there
    assert manager.watchdog == 0
    assert manager.period > 1
    manager.ready("nobody hears it")
