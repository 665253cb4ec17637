"""Programs that the benchmark starts: here or in the peers' chroot, with files of their own, and always ended."""

import io
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from benchlib.model import LeftOut
from benchlib.proc import listeners

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(os.environ.get("DUALPOOL_PEERS") or ROOT.parent / "shared" / "bin" / "peers")
"""A program that starts servers and runs rivals in a chroot of its own, where there is one."""
START_SECONDS = 30.0
END_SECONDS = 5.0
POLL_SECONDS = 0.02

# A folder of its own for the program's files, removed after it has ended; a TERM to the process group reaches the program and lets
# the shell live for the cleaning up.
UNPACK_AND_RUN = """
d=$(mktemp -d) && trap 'rm -rf "$d"' EXIT && trap : TERM INT && chmod 755 "$d" && cd "$d" && tar -xf - || exit 1
%s &
wait $!
wait
"""


class Host:
    """Where rivals' programs are: in the peers' chroot if this checkout has one beside it, else on PATH."""

    def command(self, program: str, files: Mapping[str, str], command: str) -> tuple[list[str], bytes]:
        """How to run `command` in a fresh folder that holds `files`: the arguments, and what goes to standard input.

        Raises LeftOut if `program`, which is what `command` runs, is not installed.
        """
        return [*self._prefix(program), "sh", "-c", UNPACK_AND_RUN % command], packed(files)

    def _prefix(self, program: str) -> list[str]:
        """What to put before a shell command so that it finds `program`."""
        if PEERS.exists() and os.geteuid() == 0:
            prefix = [str(PEERS), "run"]
            if not subprocess.run([*prefix, "sh", "-c", f"command -v {program}"], capture_output=True, check=False).returncode:
                return prefix
        if shutil.which(program):
            return []
        raise LeftOut(f"{program} is not installed")


def peers_port(name: str) -> int | None:
    """Where the peers' server of that name listens; None where there are no peers."""
    if not PEERS.exists():
        return None
    told = subprocess.run([str(PEERS), "ports"], capture_output=True, text=True, check=False).stdout
    ports = dict(line.split() for line in told.splitlines())
    return int(ports[name]) if name in ports else None


def packed(files: Mapping[str, str]) -> bytes:
    """A tar archive of text files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


@contextmanager
def running(name: str, command: list[str], port: int, log: Path, *, stdin: bytes = b"", ready: str = "") -> Iterator[tuple[int, ...]]:
    """Run `command` until the block ends; yields the ids of the processes that listen on `port`.

    Ready means that the port answers and, if `ready` is given, that the log has such a line. Raises LeftOut with the log's last line
    when that does not happen within START_SECONDS.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True, env=environment, cwd=log.parent
        )
    try:
        _feed(process, stdin)
        _wait_ready(name, process, port, log, ready)
        yield listeners(port)
    finally:
        end(process)


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(data)
        process.stdin.close()


def _wait_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path, ready: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LeftOut(f"{name}: ended with code {process.returncode} before it was ready: {last_line(log)}")
        if ready in log.read_text(errors="replace") and answers("127.0.0.1", port):
            return
        time.sleep(POLL_SECONDS)
    raise LeftOut(f"{name}: not ready after {START_SECONDS:.0f} s: {last_line(log)}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own group, and everything in that group: politely, then not."""
    for number, seconds in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, END_SECONDS)):
        deadline = time.monotonic() + seconds
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(POLL_SECONDS)
            continue
        break
    process.wait()


def answers(host: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def last_line(log: Path) -> str:
    """The last line that says something, for an error message."""
    return last_of(log.read_text(errors="replace"))


def last_of(text: str) -> str:
    """The last line of `text` that is not blank, or a word that there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "(it said nothing)"


def quoted(*words: str) -> str:
    """`words` as one shell command."""
    return shlex.join(words)
