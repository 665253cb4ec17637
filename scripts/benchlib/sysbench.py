"""One measurement with sysbench.

The window is sysbench's own: from "Threads started!", when all clients are logged in, to its report. CPU time is read as these lines come.
"""

import math
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchlib import proc
from benchlib.model import Case, Endpoint, LeftOut, Sample
from benchlib.programs import last_of
from benchlib.tables import sysbench_command

REPEAT = Path(__file__).with_name("repeat.lua")
PATIENCE_SECONDS = 20.0
STARTED, REPORT = "Threads started!", "SQL statistics:"


def ensure_installed() -> None:
    """Have sysbench, installed from the distribution where this process may. Raises LeftOut."""
    if shutil.which("sysbench"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "sysbench"], capture_output=True, check=False)
    if not shutil.which("sysbench"):
        raise LeftOut("mysql: sysbench is not installed (on Debian and Ubuntu: apt-get install sysbench)")


def measure(case: Case, endpoint: Endpoint, clients: int, seconds: float, shape: tuple[str, ...]) -> Sample:
    """Run `case` for `seconds`, rounded up to a whole number. Raises LeftOut with sysbench's own words if it fails."""
    duration = math.ceil(seconds)
    lines: list[str] = []
    cpu: dict[str, float] = {}
    with _running(_command(case, endpoint, clients, duration, shape), duration + PATIENCE_SECONDS) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.strip() in {STARTED, REPORT}:
                cpu[line.strip()] = proc.cpu_seconds(endpoint.pids)
    output = "".join(lines)
    if process.returncode or REPORT not in cpu:
        raise LeftOut(f"{endpoint.name}: sysbench: {_complaint(output)}")
    transactions, tps, p99_ms = read_report(output)
    if not transactions:
        raise LeftOut(f"{endpoint.name}: no transaction within {duration} s")
    cpu_us = (cpu[REPORT] - cpu[STARTED]) / transactions * 1e6 if endpoint.is_pooler else None
    return Sample(tps, cpu_us, p99_ms)


def read_report(output: str) -> tuple[int, float, float]:
    """Transactions, transactions per second, and the 99th percentile of the latency in milliseconds."""
    counts = re.search(r"transactions:\s+(\d+)\s+\(([\d.]+) per sec", output)
    p99 = re.search(r"99th percentile:\s+([\d.]+)", output)
    if not counts or not p99:
        raise LeftOut(f"sysbench: {_complaint(output)}")
    return int(counts[1]), float(counts[2]), float(p99[1])


def _complaint(output: str) -> str:
    errors = [line for line in output.splitlines() if line.startswith("FATAL")]
    return last_of("\n".join(errors[:1]) or output)


@contextmanager
def _running(command: list[str], limit: float) -> "Iterator[subprocess.Popen[str]]":
    """The process until the block ends; killed after `limit` seconds, so that reading its output ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watchdog = threading.Timer(limit, process.kill)
    watchdog.start()
    try:
        yield process
        process.wait()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def _command(case: Case, endpoint: Endpoint, clients: int, duration: int, shape: tuple[str, ...]) -> list[str]:
    test, *options = case.arguments
    if test == "repeat":
        test, shape = str(REPEAT), (f"--query={case.script}",)
    head, *where = sysbench_command(endpoint.server, endpoint.port)
    return [head, test, *where, *options, *shape, f"--threads={clients}", f"--time={duration}", "--percentile=99", "run"]
