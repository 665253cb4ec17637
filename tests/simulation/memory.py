"""Sockets, readiness and streams of memory, in place of the operating system's. What comes in pieces there comes in random pieces here."""

import random
import socket
import ssl
from typing import Any, Final

import trio

from dualpool.protocol import ConnectionClosed
from dualpool.reactor import EPOLL_OUT, READ, WRITE, Poller
from dualpool.transport import END, WOULD_BLOCK, Transport

HANG_UP: Final = 16
"""As epoll's EPOLLHUP: told whatever the interest is."""


class Pipe:
    """One direction of a connection. `closed`: no more bytes come, and none are taken."""

    __slots__ = ("_changed", "capacity", "closed", "data")

    def __init__(self, capacity: int) -> None:
        self.data = bytearray()
        self.closed = False
        self.capacity = capacity
        self._changed: trio.Event | None = None

    def room(self) -> int:
        """How many bytes it takes now."""
        return max(0, self.capacity - len(self.data))

    def put(self, data: bytes | bytearray) -> None:
        """Add bytes, for which there is room."""
        self.data += data
        self._tell()

    def take(self, size: int) -> bytes:
        """Remove the first bytes."""
        data = bytes(self.data[:size])
        del self.data[:size]
        self._tell()
        return data

    def close(self, *, lose: bool = False) -> None:
        """No more. `lose`: what is in it cannot be read any more, either."""
        self.closed = True
        if lose:
            self.data.clear()
        self._tell()

    async def changes(self) -> None:
        """Sleep until bytes have come or gone, or it is closed. One task at a time: the order in which several wake is not determined."""
        assert self._changed is None or not self._changed.statistics().tasks_waiting
        self._changed = trio.Event()
        await self._changed.wait()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class End:
    """One end of a connection, as the simulated peers use it."""

    __slots__ = ("incoming", "outgoing")

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self.incoming = incoming
        self.outgoing = outgoing

    def close(self) -> None:
        """No more in either direction. What was sent can still be read at the other end."""
        self.incoming.close()
        self.outgoing.close()

    def reset(self) -> None:
        """As close, but what was sent is lost."""
        self.incoming.close()
        self.outgoing.close(lose=True)

    def is_over(self) -> bool:
        """The other end is gone, and everything that it sent has been read."""
        return self.incoming.closed and not self.incoming.data


def connection(rng: random.Random, narrowest: int = 1) -> tuple[End, End]:
    """Both ends of a new connection, with room for at least `narrowest` bytes in each direction."""
    there, back = (Pipe(max(narrowest, rng.choice([1, 7, 60, 5000, 5000]))) for _ in range(2))
    return End(there, back), End(back, there)


class MemoryTransport(Transport):
    """dualpool's end of a connection. Its own `sock`, so that whoever borrows the socket gets it."""

    __slots__ = ("_fd", "_rng", "end")
    family = socket.AF_UNIX
    """(Without an address of its own.)"""

    def __init__(self, end: End, fd: int, rng: random.Random) -> None:
        self.sock: Any = self
        self.end = end
        self._fd = fd
        self._rng = rng

    def recv(self, size: int) -> bytes | None:
        pipe = self.end.incoming
        if not pipe.data:
            return END if pipe.closed else WOULD_BLOCK
        return pipe.take(self._piece(min(size, len(pipe.data))))

    def send(self, data: bytes) -> int:
        pipe = self.end.outgoing
        if pipe.closed:
            return -1
        size = self._piece(min(len(data), pipe.room()))
        if size:
            pipe.put(data[:size])
        return size

    def _piece(self, size: int) -> int:
        return self._rng.randint(1, size) if size and self._rng.random() < 0.3 else size

    def fileno(self) -> int:
        return self._fd

    def say_no_more(self) -> Transport:
        self.end.outgoing.close()
        return self

    def close(self) -> None:
        self.end.close()


class MemoryPoller(Poller):
    """Level-triggered, as epoll; the events of a batch come in random order, and not always all of them."""

    __slots__ = ("_interest", "_rng", "ends")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._interest: dict[int, int] = {}
        self.ends: dict[int, End] = {}

    def add(self, fd: int, interest: int) -> None:
        assert fd not in self._interest, "epoll: EEXIST"
        self._interest[fd] = interest

    def change(self, fd: int, interest: int) -> None:
        assert fd in self._interest, "epoll: ENOENT"
        self._interest[fd] = interest

    def remove(self, fd: int) -> None:
        del self._interest[fd]

    def poll(self, timeout: float, limit: int) -> list[tuple[int, int]]:
        events = [(fd, what) for fd, interest in self._interest.items() if (what := self._ready(self.ends[fd], interest))]
        self._rng.shuffle(events)
        return events[: self._rng.randint(1, limit)]

    def _ready(self, end: End, interest: int) -> int:
        what = 0
        if interest & READ and (end.incoming.data or end.incoming.closed):
            what |= READ
        if interest & WRITE and (end.outgoing.room() or end.outgoing.closed):
            what |= EPOLL_OUT
        if end.incoming.closed and end.outgoing.closed:
            what |= HANG_UP
        return what

    def close(self) -> None:
        self._interest.clear()


class MemoryStream:
    """exchange.Stream over a MemoryTransport. It sleeps until there is something to do."""

    def __init__(self, sock: MemoryTransport, tls: ssl.SSLContext | None = None, *, server_side: bool, server_name: str = "") -> None:
        self.sock = sock

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        pipe = self.sock.end.outgoing
        while data:
            sent = self.sock.send(data)
            if sent < 0:
                raise ConnectionClosed
            data = data[sent:]
            while data and not pipe.room() and not pipe.closed:
                await pipe.changes()

    async def receive(self, size: int, flags: int = 0) -> bytes:
        await trio.lowlevel.checkpoint()
        while (data := self.sock.recv(size)) is None:
            await self.sock.end.incoming.changes()
        if not data:
            raise ConnectionClosed
        return data

    async def receive_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await self.receive(size - len(data))
        return data

    def end(self) -> None:
        self.sock.end.outgoing.close()

    def transport(self) -> Transport:
        return self.sock

    def close(self) -> None:
        self.sock.close()
