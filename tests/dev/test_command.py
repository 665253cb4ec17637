"""`dualpool dev` from the outside: it says how to connect, that works, and nothing is left when it ends."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest

from dualpool.dev.processes import is_running, wait_until
from tests.helpers.servers import REPOSITORY, Servers, unique

START_SECONDS = 180
END_SECONDS = 60


@dataclass
class Dev:
    """A `dualpool dev` that runs, and what it has printed."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def urls(self, kind: str) -> list[str]:
        return re.findall(rf"^  {kind} +(\S+)$", self.said, re.MULTILINE)

    def children(self) -> list[int]:
        """The databases, as process ids."""
        pid = self.process.pid
        if sys.platform == "linux":
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
        return [int(child) for child in listed.stdout.split()]


@pytest.fixture
def folder(servers: Servers) -> Iterator[Path]:
    made = servers.folder(unique("dev"))
    yield made
    # At once: most of it has never been written to the disk.
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def dev(folder: Path) -> Iterator[Callable[..., Dev]]:
    """`dev("--no-mysql", ...)`: started, and ready or ended when it returns."""
    running: list[tuple[Dev, threading.Thread]] = []

    def start(*arguments: str, **environment: str) -> Dev:
        binds = ["--bind-postgres", "127.0.0.1:0", "--bind-mysql", "127.0.0.1:0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "dualpool", "dev", "--data-dir", str(folder), *binds, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )
        started = Dev(process)
        reader = threading.Thread(target=started.read, daemon=True)
        reader.start()
        running.append((started, reader))
        assert wait_until(lambda: "Ctrl-C ends everything" in started.said or not reader.is_alive(), START_SECONDS), started.said
        return started

    yield start
    for started, reader in running:
        started.process.kill()
        started.process.wait()
        reader.join(10)


def answer(url: str) -> object:
    """What a server says to a question, through a URL as it was printed."""
    parts = urlsplit(url)
    if parts.scheme == "postgresql":
        with psycopg.connect(url) as postgres:
            row = postgres.execute("SELECT current_user || ' ' || current_database()").fetchone()
            return row[0] if row else None
    account = {"user": parts.username, "password": parts.password or "", "database": parts.path[1:]}
    mysql = pymysql.connect(host=parts.hostname, port=parts.port or 0, connect_timeout=60, **account)
    with closing(mysql), mysql.cursor() as cursor:
        cursor.execute("SELECT concat(substring_index(current_user(), '@', 1), ' ', database())")
        found = cursor.fetchone()
        return found[0] if found else None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_both_databases_until_a_signal(dev: Callable[..., Dev], how: signal.Signals) -> None:
    started = dev()
    urls = [*started.urls("pooled"), *started.urls("direct")]
    assert sorted(urlsplit(url).scheme for url in urls) == ["mysql", "mysql", "postgresql", "postgresql"], started.said
    assert [answer(url) for url in urls] == ["app app"] * 4
    children = started.children()
    assert len(children) == 2
    started.process.send_signal(how)
    assert started.process.wait(END_SECONDS) == 0, started.said
    assert not any(is_running(pid) for pid in children)
    assert "Traceback" not in started.said


def test_one_database_alone(dev: Callable[..., Dev]) -> None:
    started = dev("--no-mysql")
    assert [urlsplit(url).scheme for url in started.urls("pooled")] == ["postgresql"], started.said


def test_what_is_missing_is_said_and_the_rest_runs(dev: Callable[..., Dev]) -> None:
    started = dev(DUALPOOL_MYSQLD="/nonexistent/mysqld")
    assert "DUALPOOL_MYSQLD=/nonexistent/mysqld" in started.said
    assert [answer(url) for url in started.urls("pooled")] == ["app app"]


def test_nothing_to_run_is_an_error(dev: Callable[..., Dev]) -> None:
    started = dev("--no-mysql", DUALPOOL_PG_BINDIR="/nonexistent")
    assert started.process.wait(END_SECONDS) == 1
    assert "DUALPOOL_PG_BINDIR=/nonexistent" in started.said
    assert "Traceback" not in started.said


def test_a_database_that_dies_ends_it(dev: Callable[..., Dev]) -> None:
    started = dev("--no-mysql")
    (database,) = started.children()
    os.kill(database, signal.SIGKILL)
    assert started.process.wait(END_SECONDS) == 1
    assert wait_until(lambda: "has ended by itself" in started.said, END_SECONDS), started.said
    assert "Traceback" not in started.said


def test_a_port_that_is_taken_is_said(dev: Callable[..., Dev], folder: Path) -> None:
    first = dev("--no-mysql")
    port = urlsplit(first.urls("pooled")[0]).port
    second = dev("--no-mysql", "--data-dir", str(folder / "second"), "--bind-postgres", f"127.0.0.1:{port}")
    assert second.process.wait(END_SECONDS) == 1
    assert "Traceback" not in second.said
    assert str(port) in second.said


def test_killed_hard_it_takes_the_databases_along(dev: Callable[..., Dev]) -> None:
    started = dev("--no-mysql")
    children = started.children()
    started.process.kill()
    if sys.platform == "linux":
        assert wait_until(lambda: not any(is_running(pid) for pid in children), END_SECONDS)
    again = dev("--no-mysql")
    assert [answer(url) for url in again.urls("pooled")] == ["app app"], again.said
