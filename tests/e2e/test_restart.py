"""Restarting without clients noticing: a successor listens beside the one that ends. And what signals mean."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
import pymysql
import pytest

from tests.e2e.postgres_world import DEADLINE, wait_until
from tests.helpers.pooler import Pooler
from tests.helpers.ports import reserved_port
from tests.helpers.servers import MySQLServer, PostgresServer, Servers
from tests.helpers.steady import CLIENTS, ROUNDS, Load


def configuration(postgres: PostgresServer, mysql: MySQLServer, folder: Path, more: str = "") -> str:
    """Both engines on fixed ports (and a Unix socket) that a successor can share."""
    return f"""
[listeners.postgres]
protocol = "postgres"
bind = ["127.0.0.1:{reserved_port()}", "unix:{folder}/.s.PGSQL.5432"]
reuse_port = true
backlog = 1024

[listeners.mysql]
protocol = "mysql"
bind = "127.0.0.1:{reserved_port()}"
reuse_port = true
backlog = 1024

[backends.one]
url = "{postgres.url}"

[backends.two]
url = "{mysql.url}"

[databases.app]
backend = "one"
database = "app"
pool_size = 5

[databases.shop]
name = "app"
backend = "two"
database = "app"
pool_size = 5

[users.app]
password = "app"
{more}
"""


def clients(ports: dict[str, int], folder: Path) -> dict[str, Callable[[int], Any]]:
    """How the clients of a load connect: those of PostgreSQL by TCP and by the Unix socket in turn."""

    def postgres(number: int) -> Any:
        host, port = ("127.0.0.1", ports["postgres"]) if number % 2 else (str(folder), 5432)
        return psycopg.connect(host=host, port=port, user="app", password="app", dbname="app", connect_timeout=int(DEADLINE))

    def mysql(_: int) -> Any:
        place = {"host": "127.0.0.1", "port": ports["mysql"], "connect_timeout": int(DEADLINE)}
        return pymysql.connect(**place, user="app", password="app", database="app")  # type: ignore[arg-type]

    return {"postgres": postgres, "mysql": mysql}


def test_restarts_under_load(servers: Servers, tmp_path: Path) -> None:
    toml = configuration(servers.postgres(15), servers.mariadb(), tmp_path)
    with contextlib.ExitStack() as running:
        old = running.enter_context(Pooler(toml))
        ports = {"mysql": old.port("mysql"), "postgres": int(old.addresses["postgres"][0].rpartition(":")[2])}
        with Load(clients(ports, tmp_path), CLIENTS) as load:
            for _ in range(ROUNDS):
                load.wait_for_more(3 * CLIENTS)
                new = running.enter_context(Pooler(toml))
                assert old.stop() == 0
                assert "Traceback" not in old.log
                old = new
            load.wait_for_more(3 * CLIENTS)
        assert load.errors == []
        assert all(load.told[kind] >= ROUNDS * CLIENTS / 2 for kind in ("postgres", "mysql")), load.told
        assert (tmp_path / ".s.PGSQL.5432").exists()
    assert not (tmp_path / ".s.PGSQL.5432").exists()
    assert list(tmp_path.iterdir()) == []


def test_takeover_by_pid_file(servers: Servers, tmp_path: Path) -> None:
    toml = configuration(servers.postgres(15), servers.mariadb(), tmp_path)
    pid_file = tmp_path / "pid"
    options = {"arguments": ["--takeover", str(pid_file)]}
    with Pooler(toml, **options) as old:  # type: ignore[arg-type]
        wait_until(pid_file.exists, "the pid file")
        with psycopg.connect(old.url().replace(str(old.port()), old.addresses["postgres"][0].rpartition(":")[2])) as busy:
            busy.execute("SELECT 1")
            with Pooler(toml, **options) as new:  # type: ignore[arg-type]
                new.wait_for_log(f"taking over from process {old.pid}")
                wait_until(lambda: pid_file.read_text() == f"{new.pid}\n", "the new one's pid")
                old.wait_for_log("SIGTERM")
                busy.execute("SELECT 2")
                busy.commit()
                assert old.wait() == 0
                assert pid_file.read_text() == f"{new.pid}\n"
                with psycopg.connect(new.url().replace(str(new.port()), new.addresses["postgres"][0].rpartition(":")[2])) as client:
                    assert client.execute("SELECT 3").fetchone() == (3,)
    assert not pid_file.exists()


# ------------------------------------------------------------------------------------------------------------------ signals


@pytest.fixture
def pooler(servers: Servers, tmp_path: Path) -> Iterator[Pooler]:
    with Pooler(configuration(servers.postgres(15), servers.mariadb(), tmp_path)) as pooler:
        yield pooler


def connect(pooler: Pooler) -> "psycopg.Connection[tuple[Any, ...]]":
    port = pooler.addresses["postgres"][0].rpartition(":")[2]
    return psycopg.connect(host="127.0.0.1", port=int(port), user="app", password="app", dbname="app", autocommit=True)


def test_usr1_pauses_and_usr2_resumes(pooler: Pooler) -> None:
    with connect(pooler) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
        pooler.process.send_signal(signal.SIGUSR2)
        pooler.wait_for_log("nothing is paused")
        pooler.process.send_signal(signal.SIGUSR1)
        pooler.wait_for_log("paused: all server connections are closed")
        answers: list[object] = []
        waiting = threading.Thread(target=lambda: answers.append(client.execute("SELECT 2").fetchone()))
        waiting.start()
        pooler.process.send_signal(signal.SIGUSR2)
        pooler.wait_for_log("SIGUSR2: resuming")
        waiting.join(DEADLINE)
        assert answers == [(2,)]


def test_quit_ends_at_once(pooler: Pooler) -> None:
    with connect(pooler) as client:
        client.execute("BEGIN")
        client.execute("SELECT 1")
        pooler.process.send_signal(signal.SIGQUIT)
        assert pooler.wait() == 0
        with pytest.raises(psycopg.errors.AdminShutdown):
            client.execute("SELECT 2")


# ---------------------------------------------------------------------------------------------------------- PgBouncer's files


class Bouncer:
    """`dualpool pgbouncer FILE`, with a log file."""

    def __init__(self, server: PostgresServer, folder: Path, more: str = "") -> None:
        self.folder = folder
        self.log_path = folder / "log"
        (folder / "userlist.txt").write_text('"app" "app"\n')
        self.path = folder / "pgbouncer.ini"
        self.path.write_text(
            f"[databases]\napp = host={server.host} port={server.port}\n[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = 6432\n"
            f"pool_mode = transaction\nlogfile = {self.log_path}\npidfile = {folder}/pid\nauth_type = trust\n"
            f"auth_file = {folder}/userlist.txt\n{more}"
        )
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        before = self.log.count("listening on")
        process = subprocess.Popen([sys.executable, "-m", "dualpool", "pgbouncer", "-q", *options, str(self.path)])
        self.processes.append(process)
        wait_until(lambda: self.log.count("listening on") > before or process.poll() is not None, "it listens")
        return process

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(host=str(self.folder), port=6432, user="app", dbname="app", autocommit=True)

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""


@pytest.fixture
def bouncer(servers: Servers, tmp_path: Path) -> Iterator[Bouncer]:
    with Bouncer(servers.postgres(15), tmp_path) as made:
        yield made


def test_pgbouncers_sigterm_waits_for_clients(bouncer: Bouncer) -> None:
    process = bouncer.start()
    with bouncer.connect() as client:
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "waiting for all clients disconnect" in bouncer.log, "told")
        assert client.execute("SELECT 1").fetchone() == (1,)
        wait_until(lambda: not (bouncer.folder / ".s.PGSQL.6432").exists(), "nobody listens")
        assert client.execute("SELECT 2").fetchone() == (2,)
    assert process.wait(DEADLINE) == 0


def test_pgbouncers_sigint_waits_for_servers(bouncer: Bouncer) -> None:
    process = bouncer.start()
    with bouncer.connect() as idle, bouncer.connect() as client:
        client.execute("BEGIN")
        client.execute("SELECT 1")
        process.send_signal(signal.SIGINT)
        with pytest.raises(psycopg.errors.AdminShutdown):
            while True:
                idle.execute("SELECT 1")
        assert client.execute("SELECT 1").fetchone() == (1,)
        client.execute("COMMIT")
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_pgbouncers_second_signal_ends_at_once(bouncer: Bouncer, second: signal.Signals) -> None:
    process = bouncer.start()
    with bouncer.connect() as client:
        client.execute("SELECT 1")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "waiting for all clients disconnect" in bouncer.log, "told")
        process.send_signal(second)
        assert process.wait(DEADLINE) == 0


def test_reboot_beside_the_old_one(servers: Servers, tmp_path: Path) -> None:
    with Bouncer(servers.postgres(15), tmp_path, "so_reuseport = 1\n") as bouncer:
        old = bouncer.start()
        with bouncer.connect() as client:
            client.execute("BEGIN")
            client.execute("SELECT 1")
            new = bouncer.start("-R")
            wait_until(lambda: (tmp_path / "pid").read_text() == f"{new.pid}\n", "the new one's pid")
            with bouncer.connect() as other:
                assert other.execute("SELECT 1").fetchone() == (1,)
                assert old.poll() is None
                client.execute("COMMIT")
                assert old.wait(DEADLINE) == 0
                assert other.execute("SELECT 2").fetchone() == (2,)
        new.send_signal(signal.SIGTERM)
        assert new.wait(DEADLINE) == 0


# ------------------------------------------------------------------------------------------------------------------ systemd


def test_systemd_opens_the_sockets_and_is_told(servers: Servers, tmp_path: Path) -> None:
    config = tmp_path / "dualpool.toml"
    config.write_text(configuration(servers.postgres(15), servers.mariadb(), tmp_path))
    with contextlib.ExitStack() as closing:
        tcp = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        local = closing.enter_context(socket.socket(socket.AF_UNIX))
        local.bind(str(tmp_path / "given.sock"))
        local.listen()
        told = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        told.bind(str(tmp_path / "notify"))
        told.settimeout(DEADLINE)

        def wait_for(word: str) -> dict[str, str]:
            while True:
                message = dict(line.split("=", 1) for line in told.recv(4096).decode().splitlines())
                if word in message:
                    return message

        process = closing.enter_context(launched_by_systemd(config, [tcp, local], "postgres:postgres", tmp_path / "notify"))
        assert wait_for("READY")["MAINPID"] == str(process.pid)
        assert "WATCHDOG" in wait_for("WATCHDOG")
        for host, port in (("127.0.0.1", tcp.getsockname()[1]), (None, 0)):
            if host is None:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(tmp_path / "given.sock"))
            else:
                with psycopg.connect(host=host, port=port, user="app", password="app", dbname="app") as client:
                    assert client.execute("SELECT 1").fetchone() == (1,)
        now = time.monotonic_ns() // 1000
        process.send_signal(signal.SIGHUP)
        assert 0 <= int(wait_for("RELOADING")["MONOTONIC_USEC"]) - now < DEADLINE * 1_000_000
        assert "clients" in wait_for("READY")["STATUS"]
        process.send_signal(signal.SIGTERM)
        assert "shutting down" in wait_for("STOPPING")["STATUS"]
        assert process.wait(DEADLINE) == 0
        assert (tmp_path / "given.sock").exists()
        # The socket is systemd's: who comes now waits for the next process.
        socket.create_connection(tcp.getsockname()).close()


@contextlib.contextmanager
def launched_by_systemd(config: Path, sockets: list[socket.socket], names: str, notify: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """As sd_listen_fds(3) says: the sockets are the descriptors from 3 on, and LISTEN_PID is the process itself."""
    script = (
        "import os, sys\n"
        "given = [int(word) for word in sys.argv[1].split(',')]\n"
        "high = [os.dup2(fd, 100 + index) for index, fd in enumerate(given)]\n"
        "[os.dup2(fd, 3 + index) for index, fd in enumerate(high)]\n"
        "os.environ['LISTEN_PID'] = os.environ['WATCHDOG_PID'] = str(os.getpid())\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'dualpool', 'run', sys.argv[2]])\n"
    )
    descriptors = [sock.fileno() for sock in sockets]
    environment = {
        **os.environ,
        "LISTEN_FDS": str(len(sockets)),
        "LISTEN_FDNAMES": names,
        "NOTIFY_SOCKET": str(notify),
        "WATCHDOG_USEC": "400000",
    }
    command = [sys.executable, "-c", script, ",".join(map(str, descriptors)), str(config)]
    process = subprocess.Popen(command, env=environment, pass_fds=descriptors, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
