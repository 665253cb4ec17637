"""Child processes that do not outlive us: started as an ordinary user, in a session of their own, and ended for certain."""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import attrs

NOBODY: Final = 65534
PR_SET_PDEATHSIG: Final = 1
POLL_SECONDS: Final = 0.01

Steps = Sequence[tuple[signal.Signals, float]]
"""How to end a process: a signal and how many seconds it is given, then the next one."""

# Loaded before any fork: between fork and exec nothing may be imported.
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@attrs.frozen
class Identity:
    """As whom a database server runs. Both PostgreSQL and MySQL refuse to run as root, so for root this is `nobody`."""

    uid: int
    gid: int
    changes: bool = False

    def own(self, path: Path) -> None:
        """Give `path` to this identity."""
        if self.changes:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, folder: Path) -> bool:
        """True if this identity may pass through `folder` and everything above it."""
        return not self.changes or all(self._may_execute(part) for part in (folder, *folder.parents))

    def _may_execute(self, path: Path) -> bool:
        status = path.stat()
        return bool(status.st_mode & 0o001) or (status.st_uid == self.uid and bool(status.st_mode & 0o100))


def server_identity() -> Identity:
    """Ourselves, or `nobody` when we are root."""
    if os.geteuid() != 0:
        return Identity(os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Identity(NOBODY, NOBODY, changes=True)
    return Identity(entry.pw_uid, entry.pw_gid, changes=True)


def end_with_parent(how: signal.Signals) -> Callable[[], None] | None:
    """What a new child runs before its program: ask Linux for the signal `how` when its parent dies, however it dies.

    Linux counts the *thread* that started the child as its parent (prctl(2)), so this is done from the main thread only.
    """
    if _LIBC is None or threading.current_thread() is not threading.main_thread():
        return None
    libc, parent = _LIBC, os.getpid()

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(how), 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl() could see it
            os._exit(1)

    return prepare


def spawn(
    arguments: Sequence[str],
    identity: Identity,
    *,
    log: IO[bytes],
    end_with: signal.Signals = signal.SIGTERM,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program as `identity`; its output goes to `log`. Its session is its own, so a Ctrl-C at the terminal reaches only us."""
    as_user: dict[str, object] = {"user": identity.uid, "group": identity.gid, "extra_groups": []} if identity.changes else {}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        arguments,
        stdin=stdin,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={**os.environ, "LC_ALL": "C", **(environment or {})},
        start_new_session=True,
        # It calls two C functions and takes no lock, so the usual danger (threads that held one at the fork) does not arise.
        preexec_fn=end_with_parent(end_with),  # noqa: PLW1509
        **as_user,
    )


def run(
    arguments: Sequence[str],
    identity: Identity,
    *,
    log: IO[bytes],
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> int:
    """Run a program to its end, as `spawn()` does; returns its exit code. It is killed when it takes longer than `timeout` seconds."""
    child = spawn(arguments, identity, log=log, stdin=stdin, environment=environment, end_with=signal.SIGKILL)
    try:
        return child.wait(timeout)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def end_child(child: subprocess.Popen[bytes], steps: Steps) -> None:
    """End a child of ours; returns when it is gone."""
    for how, seconds in (*steps, (signal.SIGKILL, 60.0)):
        if child.poll() is not None:
            return
        child.send_signal(how)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def end_stranger(pid: int, steps: Steps) -> bool:
    """End a process that is not our child. True when it is gone."""
    for how, seconds in (*steps, (signal.SIGKILL, 10.0)):
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            return True
        if wait_until(lambda: not is_running(pid), seconds):
            return True
    return False


def is_running(pid: int) -> bool:
    """True if a process with this id exists and has not ended (one that ended and was not collected yet has)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True
    return status.rpartition(b")")[2].split()[0] != b"Z"


def command_line(pid: int) -> str:
    """The program and arguments of a running process, or "" if there is none."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    ps = shutil.which("ps") or "/bin/ps"
    return subprocess.run([ps, "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll `condition` until it holds (True) or `seconds` have passed (False)."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def free_port(wanted: Iterable[int] = ()) -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now: the first of `wanted` that is free, else any."""
    for port in (*wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free TCP port on 127.0.0.1")


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a text file, for an error message."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
