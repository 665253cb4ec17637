"""`dualpool top` on a terminal of its own."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Final, Self

import pytest

from tests.admin.world import ConsoleWorld, console_world
from tests.e2e.postgres_world import DEADLINE
from tests.helpers.servers import Servers

CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Screen:
    """A program on a pseudo-terminal."""

    def __init__(self, *command: str, columns: int) -> None:
        self.keys, self.terminal = pty.openpty()
        self.resize(columns)
        self.text = ""
        environment = {**os.environ, "TERM": "xterm", "PYTHONUNBUFFERED": "1"}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(command, stdin=self.terminal, stdout=self.terminal, stderr=self.terminal, env=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.keys)
        os.close(self.terminal)

    def resize(self, columns: int) -> None:
        """Another size."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

    def press(self, key: str) -> None:
        """A key."""
        os.write(self.keys, key.encode())

    def wait_for(self, pattern: str) -> None:
        """Read until something is on the screen that was not there before; what was read is forgotten."""
        deadline = time.monotonic() + DEADLINE
        while (found := re.search(pattern, self.text, re.DOTALL)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} is not in:\n{self.text}"
            if select.select([self.keys], [], [], 0.1)[0]:
                self.text += CONTROL.sub("", os.read(self.keys, 1 << 16).decode(errors="replace"))
        self.text = self.text[found.end() :]

    def echoes(self) -> bool:
        """Is the terminal as programs expect it?"""
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ECHO)


@pytest.fixture(scope="module")
def world(servers: Servers) -> Iterator[ConsoleWorld]:
    with console_world(servers) as made, made.client() as client, made.mysql_client() as other, other.cursor() as cursor:
        client.execute("SELECT 1")
        cursor.execute("SELECT 1")
        yield made


@pytest.mark.parametrize("protocol", ["postgres", "mysql"])
def test_a_live_picture(world: ConsoleWorld, protocol: str) -> None:
    url = world.pooler.url(database="dualpool", listener=protocol)
    command = (sys.executable, "-m", "dualpool", "top", "--url", url, "--interval", "0.1")
    with Screen(*command, columns=110) as screen:
        screen.wait_for(r"dualpool \d\S* +2 clients +0 waiting +2 server connections")
        screen.wait_for(r"app +app +transaction +1 .*shop +app +transaction +1 ")
        screen.wait_for(r"backend +server +version +conns +active +failed +lost +last error")
        assert not screen.echoes()
        screen.resize(70)
        screen.wait_for(r"pool +user +clients +waiting +max wait +active +idle *\n")
        with world.client() as client:
            client.execute("BEGIN")
            screen.wait_for(r" 3 clients ")
        screen.press("x")
        screen.wait_for(r" 2 clients ")
        screen.press("q")
        assert screen.process.wait(DEADLINE) == 0
        assert screen.echoes()


def test_the_end_of_the_pooler_is_told(servers: Servers) -> None:
    with console_world(servers) as world:
        url = world.pooler.url(database="dualpool")
        with Screen(sys.executable, "-m", "dualpool", "top", "--url", url, "--interval", "0.1", columns=100) as screen:
            screen.wait_for(r"0 clients")
            world.order("SHUTDOWN")
            assert world.pooler.wait() == 0
            screen.wait_for(r"the console has closed the connection|shutting down")
            assert screen.process.wait(DEADLINE) == 1
            assert screen.echoes()
