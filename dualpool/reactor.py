"""Readiness: which sockets can be read or written, and who handles them.

Theory. A pooler spends its life on two events per query: the client's bytes and the server's. Both are handled here by plain function
calls, one after the other, in the thread and the turn of one Trio task (pump.py). Three rules make that sound:

1. A handler never waits, and never raises past `dispatch()`.
2. A handler never closes a file descriptor. It calls `retire()`; the close happens at the end of the batch. Otherwise a descriptor closed
   in the middle of a batch could be reused by a new socket, which the rest of the batch would then take for the old one.
3. Each event does a bounded amount of work (one read), so that every socket gets its turn, and so do Trio's tasks between batches.
"""

import select
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

READ: Final = 1
WRITE: Final = 2


class Clock:
    """The time of the current batch, in seconds (time.monotonic), read once so that handlers need no call."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now: float = monotonic()


class Handler:
    """Something with a file descriptor that the reactor calls when it is ready."""

    __slots__ = ()

    def on_readable(self) -> None:
        """There is something to read, or the connection is broken."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """There is room to write."""
        raise NotImplementedError

    def on_error(self, error: Exception) -> None:
        """A handler raised `error`: end this connection, and only this one."""
        raise NotImplementedError

    def close_now(self) -> None:
        """The batch is over: release the file descriptor."""
        raise NotImplementedError


class Poller:
    """The operating system's readiness interface. `interest` and the events are READ | WRITE."""

    __slots__ = ()

    def add(self, fd: int, interest: int) -> None:
        """Watch a new descriptor."""
        raise NotImplementedError

    def change(self, fd: int, interest: int) -> None:
        """Watch it for something else; 0 watches for nothing, but breakage may still be told."""
        raise NotImplementedError

    def remove(self, fd: int) -> None:
        """Stop watching, before the descriptor is closed."""
        raise NotImplementedError

    def poll(self, timeout: float, limit: int) -> list[tuple[int, int]]:
        """Ready descriptors with what they are ready for. A broken connection is ready to read. `timeout` in seconds."""
        raise NotImplementedError

    def fileno(self) -> int:
        """A descriptor that is readable when poll() would return something; -1 if there is none (then tasks feed the events)."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the descriptor."""
        raise NotImplementedError


class EpollPoller(Poller):
    """Linux. Level-triggered: what is not read now is told again."""

    __slots__ = ("_epoll",)

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def add(self, fd: int, interest: int) -> None:
        self._epoll.register(fd, _EPOLL_MASK[interest])

    def change(self, fd: int, interest: int) -> None:
        self._epoll.modify(fd, _EPOLL_MASK[interest])

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def poll(self, timeout: float, limit: int) -> list[tuple[int, int]]:
        return self._epoll.poll(timeout, limit)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()


# READ and EPOLLIN are both 1, so epoll's masks need no translation on the way back except for WRITE, which `dispatch` knows.
_EPOLL_MASK: Final = (0, 1, 4, 5)
EPOLL_OUT: Final = 4


class KqueuePoller(Poller):
    """BSD and macOS. `kqueue` and `kevent` are parameters so that its contract can be tested where the kernel has none."""

    __slots__ = ("_interest", "_kevent", "_kqueue")

    def __init__(self, kqueue: object = None, kevent: object = None) -> None:
        self._kqueue: Any = kqueue if kqueue is not None else getattr(select, "kqueue")()  # noqa: B009
        self._kevent: Any = kevent if kevent is not None else getattr(select, "kevent")  # noqa: B009
        self._interest: dict[int, int] = {}

    def add(self, fd: int, interest: int) -> None:
        self._interest[fd] = 0
        self.change(fd, interest)

    def change(self, fd: int, interest: int) -> None:
        changes = []
        before = self._interest[fd]
        for bit, kq_filter in ((READ, KQ_FILTER_READ), (WRITE, KQ_FILTER_WRITE)):
            if (before ^ interest) & bit:
                changes.append(self._kevent(fd, kq_filter, KQ_EV_ADD if interest & bit else KQ_EV_DELETE))
        if changes:
            self._kqueue.control(changes, 0, 0)
        self._interest[fd] = interest

    def remove(self, fd: int) -> None:
        self.change(fd, 0)
        del self._interest[fd]

    def poll(self, timeout: float, limit: int) -> list[tuple[int, int]]:
        return [
            (event.ident, EPOLL_OUT if event.filter == KQ_FILTER_WRITE else READ) for event in self._kqueue.control(None, limit, timeout)
        ]

    def fileno(self) -> int:
        return int(self._kqueue.fileno())

    def close(self) -> None:
        self._kqueue.close()


KQ_FILTER_READ: Final = -1
KQ_FILTER_WRITE: Final = -2
KQ_EV_ADD: Final = 1
KQ_EV_DELETE: Final = 2


class TaskPoller(Poller):
    """Where there is neither epoll nor kqueue: pump.py runs one small task per socket, which calls `ready()`.

    `watch(fd, interest)` is called whenever the interest in a descriptor changes; interest -1 means that it is gone.
    """

    __slots__ = ("_events", "watch")

    def __init__(self) -> None:
        self._events: dict[int, int] = {}
        self.watch: Callable[[int, int], None] = _ignore

    def add(self, fd: int, interest: int) -> None:
        self.watch(fd, interest)

    def change(self, fd: int, interest: int) -> None:
        self.watch(fd, interest)

    def remove(self, fd: int) -> None:
        self._events.pop(fd, None)
        self.watch(fd, -1)

    def ready(self, fd: int, what: int) -> None:
        """A task found `fd` ready for `what` (READ or WRITE)."""
        self._events[fd] = self._events.get(fd, 0) | (EPOLL_OUT if what == WRITE else READ)

    def poll(self, timeout: float, limit: int) -> list[tuple[int, int]]:
        events = list(self._events.items())
        self._events.clear()
        return events

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._events.clear()


NOTHING: Final[list[tuple[int, Handler]]] = []


class Reactor:
    """Handlers by file descriptor, and the batch. Used from one thread only."""

    __slots__ = ("_again", "_handlers", "_in_batch", "_retired", "clock", "poller", "wake")

    def __init__(self, poller: Poller) -> None:
        self.clock = Clock()
        self.poller = poller
        self._handlers: dict[int, Handler] = {}
        self._again: list[tuple[int, Handler]] = []
        self._retired: list[Handler] = []
        self._in_batch = False
        self.wake: Callable[[], None] = _nobody
        """Has `dispatch()` called soon, although no event may come; set by whoever runs the batches."""

    def add(self, fd: int, handler: Handler, interest: int) -> None:
        """Call `handler` from now on when `fd` is ready for `interest`."""
        self._handlers[fd] = handler
        self.poller.add(fd, interest)

    def change(self, fd: int, interest: int) -> None:
        """Other interest in a descriptor that was added."""
        if fd in self._handlers:
            self.poller.change(fd, interest)

    def remove(self, fd: int) -> None:
        """Give the descriptor back to its owner, who goes on using it (a task takes it over). No handler call comes after this."""
        if self._handlers.pop(fd, None) is not None:
            self.poller.remove(fd)

    def retire(self, fd: int, handler: Handler) -> None:
        """No more calls for `fd`; `handler.close_now()` at the end of the batch, or now if a task calls this between two batches."""
        self.remove(fd)
        if self._in_batch:
            self._retired.append(handler)
        else:
            handler.close_now()

    def again(self, fd: int, handler: Handler) -> None:
        """Call `on_readable` in the next batch even if the operating system does not: the bytes wait in the TLS layer."""
        self._again.append((fd, handler))
        if not self._in_batch:
            self.wake()

    def has_more(self) -> bool:
        """True if another batch is due although no event may come."""
        return bool(self._again)

    def dispatch(self, timeout: float = 0.0, limit: int = 256) -> int:
        """Handle one batch, waiting at most `timeout` seconds for it. Returns how many events there were."""
        again = NOTHING
        if self._again:
            again = self._again
            self._again = []  # What this batch adds is for the next one.
            timeout = 0.0
        events = self.poller.poll(timeout, limit)
        self.clock.now = monotonic()
        handlers = self._handlers
        self._in_batch = True
        for fd, what in events:
            handler = handlers.get(fd)
            if handler is None:
                continue
            try:
                if what & 4:  # EPOLL_OUT, as a literal: this is the hottest loop
                    handler.on_writable()
                if what & -5:
                    handler.on_readable()
            except Exception as error:
                handler.on_error(error)
        for fd, handler in again:
            if handlers.get(fd) is handler:
                try:
                    handler.on_readable()
                except Exception as error:
                    handler.on_error(error)
        self._in_batch = False
        if self._retired:
            self._close_retired()
        return len(events) + len(again)

    def _close_retired(self) -> None:
        """End of a batch: close what its handlers retired."""
        retired = self._retired
        self._retired = []
        for handler in retired:
            handler.close_now()


def _ignore(fd: int, interest: int) -> None:
    """Nobody watches yet."""


def _nobody() -> None:
    """Nobody runs batches yet; whoever begins to has the first one run."""


def best_poller() -> Poller:
    """The fastest that this system has."""
    if hasattr(select, "epoll"):
        return EpollPoller()
    if hasattr(select, "kqueue"):
        return KqueuePoller()
    return TaskPoller()
