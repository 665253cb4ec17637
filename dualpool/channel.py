"""One socket in the reactor: reads go to its owner, writes are queued when the socket is full, and the owner is told when to stop."""

from typing import Final

from dualpool.buffer import HIGH_WATER, RECEIVE_BYTES, SendQueue
from dualpool.reactor import READ, WRITE, Handler, Reactor
from dualpool.transport import TlsTransport, Transport

NO_FD: Final = -1


class ChannelOwner:
    """Whom a channel reports to. Calls come from the reactor; inside an owner's own call only if that is `on_readable`."""

    __slots__ = ()

    def received(self, data: bytes) -> None:
        """Bytes were read."""
        raise NotImplementedError

    def drained(self) -> None:
        """The send queue has shrunk to a quarter of `high_water` after it had been over it."""
        raise NotImplementedError

    def ended(self) -> None:
        """The peer is gone. Comes once at most; the channel stays open until the owner closes it; one that was `finish`ing is closed."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """Something above raised while handling this channel's bytes."""
        raise NotImplementedError


class Channel(Handler):
    """A socket with its send queue. Owns the transport: `close()` ends both."""

    __slots__ = (
        "broken",
        "congested",
        "fd",
        "finishing",
        "held",
        "high_water",
        "interest",
        "owner",
        "queue",
        "reactor",
        "speaking",
        "tls",
        "transport",
    )

    def __init__(self, reactor: Reactor, transport: Transport, owner: ChannelOwner, high_water: int = HIGH_WATER) -> None:
        """`high_water`: with more than this in the send queue it is congested, until a quarter is left."""
        self.high_water = high_water
        self.reactor = reactor
        self.transport = transport
        self.owner = owner
        self.tls = isinstance(transport, TlsTransport)
        self.fd = transport.fileno()
        self.queue: SendQueue | None = None
        self.interest = 0
        self.broken = False
        self.finishing = False
        self.speaking = False
        """Its last words are on their way, or have been sent."""
        self.congested = False
        self.held = False
        """Nothing is read, whatever the owner wants."""

    def open(self) -> None:
        """Begin to read."""
        self.interest = READ if self.queue is None else READ | WRITE
        self.reactor.add(self.fd, self, self.interest & ~READ if self.held else self.interest)
        if self.tls and self.transport.pending() and not self.held:
            self.reactor.again(self.fd, self)

    def hold(self) -> None:
        """Read nothing until `let_go`, whoever calls `resume` or `open` meanwhile. What is queued is still sent."""
        self.held = True
        self.reactor.change(self.fd, self.interest & ~READ)

    def let_go(self) -> None:
        """The owner decides again whether to read."""
        if self.held:
            self.held = False
            self.reactor.change(self.fd, self.interest)
            if self.interest & READ and self.tls and self.transport.pending():
                self.reactor.again(self.fd, self)

    def lend(self) -> Transport:
        """Take the socket out of the reactor so that a task can use it; `open()` puts it back."""
        self.reactor.remove(self.fd)
        self.interest = 0
        return self.transport

    def take_unsent(self) -> bytes:
        """What the socket has not taken yet, for the task that the socket was lent to."""
        queue = self.queue
        self.queue = None
        self.congested = False
        return b"".join(queue.chunks) if queue is not None else b""

    def is_open(self) -> bool:
        """False once `close()` was called."""
        return self.fd != NO_FD

    def on_readable(self) -> None:
        """Read once and hand over."""
        data = self.transport.recv(RECEIVE_BYTES)
        if data:
            if self.tls and self.transport.pending():
                self.reactor.again(self.fd, self)
            if not self.finishing:
                self.owner.received(data)
        elif data is not None:
            if self.finishing:
                self.close()
            self.owner.ended()

    def send(self, data: bytes) -> None:
        """Write `data` after all that was written before; what the socket does not take now is queued."""
        queue = self.queue
        if queue is None:
            sent = self.transport.send(data)
            if sent == len(data):
                return
            if sent < 0 or self.fd == NO_FD:
                self.broken = True  # the reader finds the same out and ends the connection
                return
            queue = self.queue = SendQueue()
            queue.push(data[sent:] if sent else data)
            self._want(self.interest | WRITE)
        elif not self.broken:
            queue.push(data)
        if queue.size > self.high_water:
            self.congested = True

    def on_writable(self) -> None:
        """Send what is queued, as far as it goes."""
        queue = self.queue
        if queue is None:
            return
        while queue.chunks:
            head = queue.head()
            sent = self.transport.send(head)
            if sent < 0:
                self.broken = True
                queue.clear()
                break
            queue.sent(sent)
            if sent < len(head):
                break
        if not queue.chunks:
            self.queue = None
            self._want(self.interest & ~WRITE)
            if self.finishing:
                self._close_in_peace()
                return
        if self.congested and queue.size <= self.high_water >> 2:
            self.congested = False
            self.owner.drained()

    def on_error(self, error: Exception) -> None:
        """A handler above raised: the owner decides who must go."""
        self.owner.failed(error)

    def pause(self) -> None:
        """Stop reading: what was read so far has nowhere to go."""
        self._want(self.interest & ~READ)

    def resume(self) -> None:
        """Read again."""
        if not self.interest & READ:
            self._want(self.interest | READ)
            if self.tls and self.transport.pending() and not self.held:
                self.reactor.again(self.fd, self)

    def finish(self, data: bytes) -> None:
        """Send `data` as the last thing; nothing that is read from now on reaches the owner. Without `data`, close when all is sent.

        With last words it is the peer who closes: what it has sent meanwhile would, unread, turn our close into a reset, and it might never
        see them. The owner hears of it (`ended`), and closes by itself if that takes too long.
        """
        self.speaking = bool(data)
        if data:
            self.send(data)
        self.finishing = True
        if self.queue is None or self.broken:
            self._close_in_peace()

    def _close_in_peace(self) -> None:
        if self.broken or not self.speaking or self.fd == NO_FD:
            self.close()
            return
        self.transport, self.tls = self.transport.say_no_more(), False
        self._want(READ)

    def close(self) -> None:
        """Close at the end of the reactor's batch."""
        if self.fd != NO_FD:
            self.reactor.retire(self.fd, self)
            self.fd = NO_FD

    def close_now(self) -> None:
        """The reactor's batch is over."""
        self.transport.close()

    def _want(self, interest: int) -> None:
        if interest != self.interest and self.fd != NO_FD:
            self.interest = interest
            self.reactor.change(self.fd, interest & ~READ if self.held else interest)
