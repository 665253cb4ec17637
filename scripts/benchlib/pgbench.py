"""One measurement with pgbench.

pgbench logs every transaction with the time of its end. The window that counts lies inside the run, so neither the logins nor the
first transactions (for which a pooler connects to the server) are part of it; CPU time is read at both ends of the same window.
pgbench's own duration is whole seconds; a SIGALRM is how its timer ends a run, so one from outside ends it at any moment, log written.
"""

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import attrs

from benchlib import proc
from benchlib.model import Case, Endpoint, LeftOut, Sample, percentile
from benchlib.programs import last_of
from benchlib.tables import environment, pgbench_command

WARM_UP_SECONDS = 0.5
LONGEST_WARM_UP_SECONDS = 8.0
PATIENCE_SECONDS = 20.0


@attrs.frozen
class Window:
    """Wall-clock seconds from start to end, and the pooler's CPU seconds between them."""

    start: float
    end: float
    cpu: float


def measure(case: Case, endpoint: Endpoint, clients: int, seconds: float) -> Sample:
    """Run `case` for `seconds`. Raises LeftOut with pgbench's own words if it fails."""
    warm_up = WARM_UP_SECONDS
    while True:
        with tempfile.TemporaryDirectory() as folder:
            window = _run(case, endpoint, clients, (warm_up, seconds), Path(folder))
            first, latencies = read_logs(Path(folder).glob("log.*"), window)
        if first <= window.start:
            break
        if warm_up > LONGEST_WARM_UP_SECONDS:
            raise LeftOut(f"{endpoint.name}: no transaction within {warm_up:.0f} s")
        warm_up *= 2
    if not latencies:
        raise LeftOut(f"{endpoint.name}: no transaction within {seconds} s")
    cpu_us = window.cpu / len(latencies) * 1e6 if endpoint.is_pooler else None
    return Sample(len(latencies) / (window.end - window.start), cpu_us, percentile(latencies, 0.99))


def read_logs(paths: Iterable[Path], window: Window) -> tuple[float, list[float]]:
    """When the first transaction ended, and the latencies in milliseconds of those that ended within the window.

    A line is: client, transaction, microseconds (or "failed", "skipped"), script, then the time of the end in seconds and microseconds
    (pgbench's documentation, per-transaction logging).
    """
    first, latencies = float("inf"), []
    for path in paths:
        for line in path.read_text().splitlines():
            fields = line.split()
            ended = int(fields[4]) + int(fields[5]) / 1e6
            first = min(first, ended)
            if window.start <= ended < window.end and fields[2].isdigit():
                latencies.append(int(fields[2]) / 1000)
    return first, latencies


def _run(case: Case, endpoint: Endpoint, clients: int, duration: tuple[float, float], folder: Path) -> Window:
    process = subprocess.Popen(
        _command(case, endpoint, clients, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(endpoint.server),
    )
    warm_up, seconds = duration
    try:
        _pause(process, warm_up)
        start, cpu_before = time.time(), proc.cpu_seconds(endpoint.pids)
        _pause(process, seconds)
        end, cpu_after = time.time(), proc.cpu_seconds(endpoint.pids)
        process.send_signal(signal.SIGALRM)
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        raise LeftOut(f"{endpoint.name}: clients hang") from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise LeftOut(f"{endpoint.name}: pgbench: {_complaint(output)}")
    return Window(start, end, cpu_after - cpu_before)


def _complaint(output: str) -> str:
    """What went wrong: pgbench ends with a general remark, so its first error is the one to show."""
    errors = [line for line in output.splitlines() if "error" in line.lower()]
    return last_of("\n".join(errors[:1]) or output)


def _pause(process: "subprocess.Popen[str]", seconds: float) -> None:
    """Wait; less if the process ends before."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return


def _command(case: Case, endpoint: Endpoint, clients: int, folder: Path) -> list[str]:
    command = pgbench_command(endpoint.server, endpoint.port)
    arguments = ["-c", str(clients), "-j", "1", "-T", "3600", "--log", f"--log-prefix={folder / 'log'}", *case.arguments]
    if case.script:
        script = folder / "script.sql"
        script.write_text(case.script)
        arguments += ["-f", str(script)]
    return [command[0], *arguments, *command[1:]]
