"""The process as PgBouncer knows it: a pid file, a log file, another user, a life in the background."""

import contextlib
import logging
import logging.handlers
import os
import pwd
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dualpool import log
from dualpool.config.importers.pgbouncer import ProcessSettings
from dualpool.errors import ConfigError, DualpoolError

TAKEOVER_SECONDS: Final = 60.0
"""How long the process that is to be replaced may take to let its clients finish."""
POLL_SECONDS: Final = 0.05
LOG_SOCKETS: Final = ("/dev/log", "/var/run/syslog")


def become(user: str) -> None:
    """Go on as a user of the system. Raises ConfigError if there is none, or we may not."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f"there is no user {user!r}") from None
    if os.geteuid() == entry.pw_uid:
        return
    if os.geteuid() != 0:
        raise ConfigError(f"only root can go on as user {user!r}")
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def running_pid(path: str) -> int | None:
    """Whose pid file it is, if that process still runs."""
    try:
        pid = int(Path(path).read_text().strip())
        os.kill(pid, 0)
    except (OSError, ValueError) as error:
        return pid if isinstance(error, PermissionError) else None
    return pid if pid != os.getpid() else None


def replace(path: str, how: signal.Signals = signal.SIGINT) -> None:
    """Ask the process of a pid file to let its clients finish, and wait until it has gone. Raises DualpoolError if it does not go."""
    pid = running_pid(path)
    if pid is None:
        return
    os.kill(pid, how)
    deadline = time.monotonic() + TAKEOVER_SECONDS
    while running_pid(path) == pid:
        if time.monotonic() > deadline:
            raise DualpoolError(f"the process {pid} of {path} has not ended after {TAKEOVER_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def check_background(settings: ProcessSettings) -> None:
    """Raise ConfigError unless there is a place for the pid and for the log."""
    if not settings.pidfile:
        raise ConfigError("a daemon needs pidfile")
    if not settings.logfile and not settings.syslog:
        raise ConfigError("a daemon needs logfile or syslog")


def go_to_background() -> None:
    """Leave the terminal and the one who started us. Only the new process returns."""
    for _ in range(2):
        if os.fork():
            os._exit(0)
        with contextlib.suppress(OSError):
            os.setsid()
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)


def check_alone(path: str) -> None:
    """Raise ConfigError if the process of a pid file runs."""
    other = running_pid(path) if path else None
    if other is not None:
        raise ConfigError(f"{path}: the process {other} runs already", hint="Stop it, or start with -R to replace it.")


@contextlib.contextmanager
def pid_file(path: str) -> Iterator[None]:
    """Our process id in a file, which is gone afterwards. "" is none. Raises ConfigError if another process has it."""
    if not path:
        yield
        return
    check_alone(path)
    try:
        Path(path).write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise ConfigError(f"pidfile: {path}: {error.strerror or error}") from None
    try:
        yield
    finally:
        _remove_own(path)


@contextlib.contextmanager
def succession(path: str, how: signal.Signals) -> Iterator[Callable[[], None]]:
    """Take over from the process of a pid file while it still runs. Call what this yields once we serve: from then on the file is ours,
    and the other one is asked with the signal `how` to let its clients finish. Raises ConfigError if the file cannot be written."""

    def take_over() -> None:
        other = running_pid(path)
        Path(path).write_text(f"{os.getpid()}\n")
        if other is not None:
            log.event(logging.INFO, f"taking over from process {other}: it may finish ({how.name})")
            os.kill(other, how)

    if not os.access(Path(path) if Path(path).exists() else Path(path).absolute().parent, os.W_OK):
        raise ConfigError(f"{path}: cannot be written")
    try:
        yield take_over
    finally:
        _remove_own(path)


def _remove_own(path: str) -> None:
    """A pid file goes with its process, unless it is a successor's by now."""
    with contextlib.suppress(OSError, ValueError):
        if int(Path(path).read_text()) == os.getpid():
            Path(path).unlink()


def log_elsewhere(settings: ProcessSettings, *, quiet: bool) -> None:
    """Write the log where the settings say, too; `quiet`: and not to standard error. Raises ConfigError."""
    try:
        if settings.logfile:
            # It notices that a rotation has moved the file away.
            log.also(logging.handlers.WatchedFileHandler(settings.logfile, encoding="utf-8"))
        if settings.syslog:
            address = next((path for path in LOG_SOCKETS if Path(path).exists()), ("localhost", logging.handlers.SYSLOG_UDP_PORT))
            handler = logging.handlers.SysLogHandler(address, settings.syslog_facility)
            handler.ident = f"{settings.syslog_ident}[{os.getpid()}]: "
            log.also(handler)
    except (OSError, KeyError) as error:
        raise ConfigError(f"the log cannot be written: {error}") from None
    if quiet:
        log.be_quiet()
