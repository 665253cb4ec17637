"""dualpool as a real process, for tests: started with a configuration, ready when it listens, gone afterwards."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dualpool.dev.processes import end_with_parent

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
LOG_SECONDS: Final = 60.0
"""Generous: on a machine under load everything is only slow."""
# As text, or inside a JSON string, where the quotation marks are escaped.
LISTENING: Final = re.compile(r'listener \\?"(?P<name>[^"\\]+)\\?" listening on (?P<address>[^\s",]+)')


class Pooler:
    """`python -m dualpool run`, with a TOML text as its file (`Pooler(toml)`) or with arguments (`Pooler(arguments=["--postgres", url])`).
    `program`: what is run in its stead.

    Bind to port 0: the real ports are in `port()`. `with Pooler(...) as pooler:` waits until every listener listens; at the end the process
    gets SIGTERM and must end with code 0, without a traceback in its log.
    """

    def __init__(
        self,
        toml: str | None = None,
        *,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        program: Sequence[str] | None = None,
    ) -> None:
        self.toml = toml
        self.program = program or [sys.executable, "-m", "dualpool"]
        self.arguments = list(arguments)
        self.environment = environment or {}
        self.expected_code = 0
        self._folder = tempfile.TemporaryDirectory(prefix="dualpool-pooler-")
        self.config_path = Path(self._folder.name) / "dualpool.toml"
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []
        self._news = threading.Condition(threading.RLock())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            code = self.stop()
        finally:
            self._folder.cleanup()
        if kind is None:
            assert code == self.expected_code, f"dualpool ended with code {code}; its log:\n{self.log}"
            assert "Traceback" not in self.log, self.log

    def start(self) -> None:
        """Start it and wait until every listener of the configuration listens."""
        self.launch()
        expected = self._expected_listeners()
        self._wait(lambda: expected <= self.addresses.keys(), START_SECONDS, f"the listeners {sorted(expected)}")

    def launch(self) -> None:
        """Start it, and wait for nothing: for configurations that must be refused."""
        command = [*self.program, "run", *self.arguments]
        if self.toml is not None:
            self.write_config(self.toml)
            command += ["-c", str(self.config_path)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
            start_new_session=True,
            preexec_fn=end_with_parent(signal.SIGKILL),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def write_config(self, toml: str) -> None:
        """Replace the configuration file; `reload()` makes dualpool read it."""
        self.toml = toml
        self.config_path.write_text(toml)

    def reload(self) -> None:
        """SIGHUP: read the configuration file again."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Ask it to end and wait until it has; returns the exit code. AssertionError if it does not end in time."""
        process = self.process
        if process.poll() is None:
            process.send_signal(how)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"dualpool did not end in {seconds} s after {how.name}; its log:\n{self.log}") from None
        self._collect()
        return process.returncode

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._collect()

    def wait(self, seconds: float = START_SECONDS) -> int:
        """Wait until it ends by itself; returns the exit code."""
        code = self.process.wait(seconds)
        self._collect()
        return code

    @property
    def process(self) -> subprocess.Popen[str]:
        """The process; it must have been started."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything it has printed so far."""
        with self._news:
            return "".join(self._lines)

    @property
    def addresses(self) -> dict[str, list[str]]:
        """Listener name -> the addresses that it is bound to, as `host:port` or the path of a socket."""
        found: dict[str, list[str]] = {}
        for match in LISTENING.finditer(self.log):
            found.setdefault(match["name"], []).append(match["address"])
        return found

    def port(self, listener: str = "postgres") -> int:
        """The TCP port of a listener (its last one, after a reload)."""
        ports = [address.rpartition(":")[2] for address in self.addresses[listener] if address.rpartition(":")[2].isdigit()]
        return int(ports[-1])

    def url(self, account: str = "app:app", database: str = "app", listener: str = "postgres") -> str:
        """How a client connects to it."""
        scheme = "mysql" if listener.startswith("mysql") else "postgresql"
        return f"{scheme}://{account}@127.0.0.1:{self.port(listener)}/{database}"

    def wait_for_log(self, pattern: str, seconds: float = LOG_SECONDS) -> re.Match[str]:
        """Wait until a regular expression is found in the log."""
        self._wait(lambda: re.search(pattern, self.log) is not None, seconds, f"{pattern!r}")
        match = re.search(pattern, self.log)
        assert match is not None
        return match

    def _expected_listeners(self) -> set[str]:
        if self.toml is not None:
            return set(tomllib.loads(self.toml).get("listeners", {}))
        return {name for name in ("postgres", "mysql") if f"--{name}" in self.arguments}

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        with self._news:
            while not condition():
                if self.process.poll() is not None and self._reader is not None and not self._reader.is_alive():
                    raise AssertionError(f"dualpool ended with code {self.process.returncode} before {what}; its log:\n{self.log}")
                if time.monotonic() > deadline:
                    raise AssertionError(f"no {what} in {seconds} s; dualpool's log:\n{self.log}")
                self._news.wait(0.1)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _collect(self) -> None:
        if self._reader is not None:
            self._reader.join(STOP_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()
