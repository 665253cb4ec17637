"""Folders and processes: what the server's user can reach, and what ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dualpool.dev.folders import cache_dir, installation_for, make_folder, version_numbers
from dualpool.dev.processes import NOBODY, Identity, end_child, free_port, is_running, server_identity, tail
from tests.helpers.ports import reserved_port

STRANGER = Identity(NOBODY, NOBODY, changes=True)
OURSELVES = Identity(os.geteuid(), os.getegid())


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """An installation in a folder that only we can enter."""
    home = tmp_path / "home"
    for name in ("bin", "lib", "include"):
        (home / "package" / "pg" / name).mkdir(parents=True)
    (home / "package" / "pg" / "bin" / "postgres").write_text("#!/bin/sh\n")
    (home / "package" / "pg" / "bin" / "postgres").chmod(0o755)
    (home / "package" / "pg" / "lib" / "libpq.a").touch()
    (home / "package.libs").mkdir()
    (home / "package.libs" / "libpq.so").touch()
    home.chmod(0o700)
    return home / "package" / "pg"


def test_binaries_out_of_reach_are_copied_once(private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALPOOL_CACHE", str(tmp_path / "cache"))
    copy = installation_for(private, "postgres-1.2", STRANGER)
    whole = tmp_path / "cache" / "binaries" / "postgres-1.2"
    assert copy == whole / "package" / "pg"
    files = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    assert files == ["package.libs/libpq.so", "package/pg/bin/postgres"]
    assert (copy / "bin" / "postgres").stat().st_mode & 0o111 == 0o111
    (copy / "mark").touch()
    assert (installation_for(private, "postgres-1.2", STRANGER) / "mark").exists()
    assert list(whole.parent.iterdir()) == [whole]


def test_binaries_in_reach_are_used_where_they_are(private: Path) -> None:
    assert installation_for(private, "postgres-1.2", OURSELVES) == private
    assert private.parent.parent.stat().st_mode & 0o777 == 0o700


def test_a_new_folder_can_be_entered_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = make_folder(tmp_path / "a" / "b", OURSELVES)
    finally:
        os.umask(before)
    assert made.parent.stat().st_mode & 0o777 == 0o755
    assert made.stat().st_mode & 0o777 == 0o700


def test_the_cache_can_be_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALPOOL_CACHE", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
    monkeypatch.delenv("DUALPOOL_CACHE")
    assert cache_dir().name == "dualpool"


def test_servers_never_run_as_root() -> None:
    assert server_identity().uid != 0
    assert server_identity().changes == (os.geteuid() == 0)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [(" 15.13 (Debian 15.13-0)", (15, 13)), ("18beta1", (18,)), ("mysqld  Ver 10.11.6-MariaDB", (10, 11, 6)), ("none", ())],
)
def test_version_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers


def test_a_free_port_is_the_wanted_one_unless_taken() -> None:
    wanted = reserved_port()
    assert free_port([wanted]) == wanted
    with socket.create_server(("127.0.0.1", wanted)):
        assert free_port([wanted]) != wanted


def test_a_process_that_was_not_collected_yet_is_not_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(child.pid)
    child.wait()
    assert not is_running(child.pid)


def test_a_child_that_ignores_signals_is_killed() -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        end_child(child, ((signal.SIGTERM, 0.05),))
        assert child.returncode == -signal.SIGKILL


def test_the_end_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a\nb\nc\n")
    assert tail(tmp_path / "log", 2) == "b\nc"
    assert tail(tmp_path / "none") == ""
