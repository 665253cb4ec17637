"""What PostgreSQL and MySQL servers that we start ourselves have in common: the folder, the lock, start, stop, and stale processes.

A folder looks like this, `EDITION` being for example `postgres-15`:

    lock          held (flock) by the process that uses the folder; the kernel lets go of it however that process ends
    EDITION/      the server's data; written as EDITION.new and renamed when complete
    EDITION.json  the user, password and database that the data was made for
    EDITION.port  the port of the last start
    run/          Unix sockets
    tmp/          temporary tables (MySQL)
    server.log
"""

import fcntl
import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Final, Self
from urllib.parse import quote

from dualpool.dev.folders import OURSELVES, make_folder
from dualpool.dev.processes import (
    Identity,
    Steps,
    command_line,
    end_child,
    end_stranger,
    free_port,
    is_running,
    server_identity,
    spawn,
    tail,
    wait_until,
)
from dualpool.errors import DualpoolError

START_SECONDS: Final = 60
START_ATTEMPTS: Final = 3
MAX_LOG_BYTES: Final = 10_000_000
MAX_SOCKET_PATH: Final = 90
"""A Unix socket's path has room for 104 bytes (macOS) or 108 (Linux); the file's own name takes up to 14 of them."""


class DevError(DualpoolError):
    """A database for development could not be found, made or started. The message says what was tried, the hint what to do."""


class EmbeddedServer(ABC):
    """A database server of our own on 127.0.0.1, with `user` as its administrator and `database` in it.

    `port` 0 takes the port of the last start if that is free, else any free one; it is known after `start()`. `settings` are the server's
    own settings. Call `start()` from the main thread: then, on Linux, the server ends even if we are killed.
    """

    scheme: ClassVar[str]
    stop_steps: ClassVar[Steps]

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        user: str = "app",
        password: str = "app",
        database: str = "app",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        for value in (user, password, database):
            if not value.isprintable() or not value:
                raise DevError("user, password and database must be printable and not empty")
        self.data_dir = data_dir.absolute()
        self.host = "127.0.0.1"
        self.port = port
        self.user = user
        self.password = password
        self.database = database
        self.settings = dict(settings or {})
        self.identity: Identity = server_identity()
        self._any_port = port == 0
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    # What a subclass tells about its server.

    @property
    @abstractmethod
    def edition(self) -> str:
        """Product and series, as a folder name: data of one edition is not opened with another."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Product and version, for people."""

    @property
    @abstractmethod
    def pid_file(self) -> Path:
        """The file whose first line is the running server's process id."""

    @abstractmethod
    def _initialise(self, folder: Path, log: IO[bytes]) -> None:
        """Make the data, with the user and the database, in `folder`, which is empty. Raises DevError."""

    @abstractmethod
    def _arguments(self) -> list[str]:
        """The command that runs the server."""

    @abstractmethod
    def _answers(self) -> bool:
        """True when the server that we have started accepts logins."""

    def _environment(self) -> dict[str, str]:
        """Variables that the server's programs need beyond ours."""
        return {}

    # The state.

    @property
    def folder(self) -> Path:
        """The server's own data folder."""
        return self.data_dir / self.edition

    @property
    def log_path(self) -> Path:
        """Everything that the server has said."""
        return self.data_dir / "server.log"

    @property
    def socket_dir(self) -> Path | None:
        """The folder of its Unix sockets, or None where the path would be too long for one."""
        folder = self.data_dir / "run"
        return folder if len(os.fsencode(folder)) <= MAX_SOCKET_PATH else None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._child.pid if self.running else None  # type: ignore[union-attr]

    @property
    def running(self) -> bool:
        """True from a successful `start()` until the server ends, for whatever reason."""
        return self._child is not None and self._child.poll() is None

    @property
    def url(self) -> str:
        """How to connect to it, as its administrator."""
        return self.url_for()

    def url_for(
        self, *, user: str | None = None, password: str | None = None, database: str | None = None, host: str = "", port: int = 0
    ) -> str:
        """How to connect to it, with some parts replaced."""
        account = f"{quote(user or self.user, '')}:{quote(self.password if password is None else password, '')}"
        host = host or self.host
        place = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{account}@{place}:{port or self.port}/{quote(database or self.database, '')}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.edition} port={self.port} pid={self.pid}>"

    # Start and stop.

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Make the data folder if it is not there, and start the server; returns when it accepts logins. Raises DevError.

        A server that an earlier, killed process has left behind in the folder is stopped first.
        """
        if self._child is not None:
            raise DevError(f"{self!r} has been started already")
        self._open_folder()
        try:
            self._end_stale()
            with self._open_log() as log:
                self._make_data(log)
                self._start_server(log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and wait until it is gone. Harmless if it is not running."""
        try:
            if self._child is not None:
                end_child(self._child, self.stop_steps)
        finally:
            self._child = None
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would. The data folder stays ours; `stop()` is still due."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def restart(self) -> None:
        """Stop, and start again on the same port."""
        self.stop()
        self._any_port = False
        self.start()

    def _open_folder(self) -> None:
        make_folder(self.data_dir, OURSELVES, 0o755)
        if not self.identity.can_enter(self.data_dir):
            raise DevError(
                f"{self.data_dir}: the database server runs as another user than root, who cannot enter this folder",
                hint="Choose a data folder outside of root's home.",
            )
        lock = (self.data_dir / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise DevError(
                f"{self.data_dir} is in use by process {holder or '(unknown)'}", hint="Stop that one, or choose another data folder."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        if self.socket_dir is not None:
            make_folder(self.socket_dir, self.identity)

    def _end_stale(self) -> None:
        """End the server that still runs in our folder. We hold the lock, so whoever started it is dead."""
        try:
            pid = int(self.pid_file.read_text().split(maxsplit=1)[0])
        except (OSError, ValueError, IndexError):
            return
        # The number may belong to an unrelated process by now.
        if is_running(pid) and str(self.folder) in command_line(pid) and not end_stranger(pid, self.stop_steps):
            raise DevError(f"{self.data_dir}: the server with process id {pid}, left behind by an earlier run, could not be stopped")

    def _open_log(self) -> IO[bytes]:
        if self.log_path.is_file() and self.log_path.stat().st_size > MAX_LOG_BYTES:
            self.log_path.unlink()
        self.log_path.touch(mode=0o600)
        return self.log_path.open("ab")

    def _make_data(self, log: IO[bytes]) -> None:
        account = {"user": self.user, "password": self.password, "database": self.database}
        marker = self.data_dir / f"{self.edition}.json"
        if self.folder.is_dir():
            self._compare_account(marker, account)
            return
        scratch = self.data_dir / f"{self.edition}.new"
        shutil.rmtree(scratch, ignore_errors=True)
        make_folder(scratch, self.identity)
        self._initialise(scratch, log)
        marker.touch(mode=0o600)
        marker.write_text(json.dumps(account))
        scratch.rename(self.folder)

    def _compare_account(self, marker: Path, account: dict[str, str]) -> None:
        try:
            made_for = json.loads(marker.read_text())
        except (OSError, ValueError):
            raise DevError(f"{self.folder} was not made by dualpool", hint="Choose another data folder.") from None
        for key, value in account.items():
            if made_for.get(key) != value:
                shown = "another password" if key == "password" else f"{key} {made_for.get(key)!r}, not {value!r}"
                raise DevError(f"{self.folder} was made for {shown}", hint="Choose another data folder.")

    def _start_server(self, log: IO[bytes]) -> None:
        """Start it, on another port if the one that was free a moment ago has been taken meanwhile."""
        for attempt in range(START_ATTEMPTS):
            if self._any_port:
                self.port = free_port([self._last_port()] if attempt == 0 else [])
            arguments, end_with = self._arguments(), self.stop_steps[0][0]
            self._child = spawn(arguments, self.identity, log=log, end_with=end_with, environment=self._environment())
            if self._wait_for_answer():
                self._remember_port()
                return
            end_child(self._child, self.stop_steps)
            if not self._any_port or free_port([self.port]) == self.port:
                break
        raise DevError(f"{self.version} did not start; the end of {self.log_path}:\n{tail(self.log_path)}")

    def _wait_for_answer(self) -> bool:
        """True once it answers; False when it has ended, or is silent for too long."""
        answered = False

        def decided() -> bool:
            nonlocal answered
            answered = self.running and self._answers()
            return answered or not self.running

        return wait_until(decided, START_SECONDS) and answered

    def _last_port(self) -> int:
        try:
            return int((self.data_dir / f"{self.edition}.port").read_text())
        except (OSError, ValueError):
            return 0

    def _remember_port(self) -> None:
        (self.data_dir / f"{self.edition}.port").write_text(f"{self.port}\n")


def run_or_fail(code: int, what: str, log_path: Path) -> None:
    """Raise DevError with the end of the log unless the exit code is 0."""
    if code != 0:
        raise DevError(f"{what} failed (exit code {code}); the end of {log_path}:\n{tail(log_path)}")
