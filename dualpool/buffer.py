"""Bytes that wait: those read but not yet understood, and those written but not yet taken by the socket."""

from collections import deque
from typing import Final

RECEIVE_BYTES: Final = 1 << 16
"""One read takes at most this much: large enough that a big result costs few calls, small enough that others get their turn. And less than
what malloc maps anew for each buffer (128 KiB): that would cost a short read three more system calls and a page fault."""
HIGH_WATER: Final = 1 << 20
"""With more than this queued towards one side, the other side is not read, until the queue has shrunk to a quarter."""


class HeldBytes:
    """Bytes of an unfinished frame. Joined only when the frame is whole, so that a peer that sends byte by byte costs linear time."""

    __slots__ = ("chunks", "need", "size")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.need = 0

    def keep(self, data: bytes, need: int) -> None:
        """Hold `data`; `take()` will have something when `need` bytes are there."""
        self.chunks = [data] if data else []
        self.size = len(data)
        self.need = need

    def take(self, more: bytes) -> bytes:
        """All bytes held, with `more` behind them, or b"" when they are still too few (they stay held)."""
        self.chunks.append(more)
        self.size += len(more)
        if self.size < self.need:
            return b""
        data = b"".join(self.chunks)
        self.clear()
        return data

    def clear(self) -> None:
        """Forget everything."""
        self.chunks = []
        self.size = 0
        self.need = 0


class SendQueue:
    """Bytes that a socket has not taken yet, in order."""

    __slots__ = ("chunks", "size")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0

    def push(self, data: bytes) -> None:
        """Add at the end."""
        self.chunks.append(data)
        self.size += len(data)

    def head(self) -> bytes:
        """The bytes to send next. The same object until `sent()` is told of progress: TLS must retry with the same bytes."""
        return self.chunks[0]

    def sent(self, count: int) -> None:
        """`count` bytes of the head are gone."""
        self.size -= count
        head = self.chunks.popleft()
        if count < len(head):
            self.chunks.appendleft(head[count:])

    def clear(self) -> None:
        """Forget everything."""
        self.chunks.clear()
        self.size = 0
