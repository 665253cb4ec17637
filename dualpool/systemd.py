"""What systemd and a service agree on: sockets that it opened for us, and telling it how we are.

Sources: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3), systemd.service(5) on Type=notify-reload. Without systemd nothing happens.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

from dualpool.config import Bind

FIRST_DESCRIPTOR: Final = 3
"""sd_listen_fds(3): SD_LISTEN_FDS_START."""
MICROSECONDS: Final = 1_000_000
STATUS_SECONDS: Final = 10.0
"""How often `systemctl status` learns how many clients there are, where no watchdog asks for more."""


class Inherited:
    """Listening sockets that somebody opened before us. Each is taken once: by the name of a listener, or by its address."""

    def __init__(self, sockets: list[tuple[str, socket.socket]]) -> None:
        self._sockets = sockets

    def named(self, name: str) -> list[socket.socket]:
        """Those with the name of a listener (FileDescriptorName=): they take the place of all its addresses."""
        return self._take([entry for entry in self._sockets if entry[0] == name])

    def at(self, bind: Bind) -> list[socket.socket]:
        """Those that listen on an address."""
        return self._take([entry for entry in self._sockets if means(bind, entry[1])])

    def _take(self, entries: list[tuple[str, socket.socket]]) -> list[socket.socket]:
        self._sockets = [entry for entry in self._sockets if entry not in entries]
        return [sock for _, sock in entries]

    def close(self) -> list[str]:
        """Close what nobody has taken. Returns what it was."""
        left, self._sockets = self._sockets, []
        texts = [f"{name or 'unnamed'} ({sock.getsockname()})" for name, sock in left]
        for _, sock in left:
            sock.close()
        return texts


def means(bind: Bind, sock: socket.socket) -> bool:
    """Does an address of the configuration mean the one that a socket has?"""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return bool(bind.unix) and name == bind.unix
    if bind.unix or bind.port != name[1]:
        return False
    everywhere = {"", "*", "::", "0.0.0.0"}  # noqa: S104 -- compared with, not listened on
    return bind.host == name[0] or (bind.host in everywhere and name[0] in everywhere)


def inherited(environment: MutableMapping[str, str]) -> Inherited:
    """The sockets that came with our start. The variables go, so that no process that we start takes them for its own."""
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return Inherited([])
    found = []
    for index in range(int(count)):
        descriptor = FIRST_DESCRIPTOR + index
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        found.append((names[index] if index < len(names) else "", sock))
    return Inherited(found)


class Manager:
    """The service manager that started us, or nobody. A message that cannot be sent is lost: it must not cost the service."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Takes its variables out of `environment`."""
        path = environment.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        limit, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", str(os.getpid()))
        self.watchdog = int(limit) / MICROSECONDS if limit.isdecimal() and pid == str(os.getpid()) else 0.0
        """Seconds within which it wants to hear from us, again and again; 0: it does not."""

    @property
    def is_there(self) -> bool:
        """Somebody listens to us."""
        return bool(self._address)

    @property
    def period(self) -> float:
        """Seconds between two signs of life: half of what is allowed, as sd_watchdog_enabled(3) advises."""
        return min(STATUS_SECONDS, self.watchdog / 2) if self.watchdog else STATUS_SECONDS

    def ready(self, status: str) -> None:
        """We serve; also after a reload, whether it went well or not."""
        self.tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """We read the configuration again; `ready` follows. systemd wants the time, to know which of its requests that answers."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self, status: str) -> None:
        """We are about to end."""
        self.tell("STOPPING=1", f"STATUS={status}")

    def alive(self, status: str) -> None:
        """A sign of life."""
        self.tell(*(["WATCHDOG=1"] if self.watchdog else []), f"STATUS={status}")

    def tell(self, *lines: str) -> None:
        """Send it some assignments."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.connect(self._address)
            sock.send("\n".join(lines).encode())
