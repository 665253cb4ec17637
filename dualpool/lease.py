"""What the pool knows of a server connection and of who waits for one. [hot]

`link.ServerConnection` is a `Leasable`; whatever waits (a link, a task) is a `Waiter`. The pool needs no more than this of either, so its
simulation can do without sockets.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from dualpool.protocol import APPLICATION

if TYPE_CHECKING:
    from dualpool.errors import DualpoolError
    from dualpool.pool import Pool

# States of a server connection. Only the pool sets them. CONNECTING is that of an object that no pool has yet, CLOSED that of one that no
# pool counts any more. One that is CLOSING still counts: until its socket is gone the server counts it too.
CONNECTING: Final = 0
IDLE: Final = 1
LEASED: Final = 2
RESETTING: Final = 3
"""After a lease: being reset or recovered, or a cancel request for it is still under way."""
CHECKING: Final = 4
"""Before a lease: it was idle for long, and is being asked whether it is alive."""
CLOSING: Final = 5
CLOSED: Final = 6

# Why a server connection that is well is closed.
TOO_OLD: Final = "its lifetime is over"
IDLE_TOO_LONG: Final = "idle for too long"
RECONNECT: Final = "reconnect"
PAUSED: Final = "paused"
WANTED_ELSEWHERE: Final = "another pool of the backend needs its place"

STATE_NAMES: Final = ("connecting", "idle", "leased", "resetting", "checking", "closing", "closed")


class Party:
    """Clients that share a cap: those of one user, address or application. Together they hold or wait for at most `cap` connections.

    Whoever comes beyond that is parked: it waits too, but not in the queue, and gets into the queue when one of the others is done. So a
    burst of one party waits behind its own, and not in front of everybody else.
    """

    __slots__ = ("__weakref__", "active", "cap", "name", "parked")

    def __init__(self, name: str, cap: int) -> None:
        """`name`: who, and the setting, for messages."""
        self.name = name
        self.cap = cap
        self.active: int = 0
        """Leases, and waits in the queue."""
        self.parked: OrderedDict[Waiter, None] = OrderedDict()

    def is_full(self) -> bool:
        """Must the next one be parked?"""
        return self.active >= self.cap


class Leasable:
    """The part of a server connection that belongs to its pool. Times are those of `reactor.Clock`, in seconds."""

    __slots__ = ("created_at", "expires_at", "generation", "id", "idle_since", "lane", "parties", "pool", "state", "used")

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.id: int = 0
        """Unique within the process; `Pool.connected` gives it."""
        self.state: int = CONNECTING
        self.lane: int = APPLICATION
        """The part of the budget that it is counted in now. It changes when the other lane takes it over."""
        self.created_at: float = 0.0
        self.idle_since: float = 0.0
        self.expires_at: float = 0.0
        """From here on it is closed instead of used again: its lifetime is over, or its pool was told to reconnect."""
        self.used: bool = False
        """It has been offered, or been idle. Until then no other pool may take its place."""
        self.generation: int = -1
        """`pool.generation` when its connect began, set by whoever connects; -1 means: the current one."""
        self.parties: tuple[Party, ...] = ()
        """Whose caps the lease counts against."""

    def is_picky(self) -> bool:
        """May only some of those who wait have it? `Waiter.accepts` tells which."""
        return False

    def seems_alive(self) -> bool:
        """Is nothing known against it? May be asked while it is leased and nothing was sent; False: it has been reported lost."""
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self.pool.name}: {STATE_NAMES[self.state]}>"


class Waiter:
    """Somebody in a pool's queue. The pool calls these methods; they must not raise, and may call the pool again."""

    __slots__ = ("deadline", "enqueued_at", "lane", "limit", "notified", "parties", "passed_over")

    def __init__(self, lane: int = APPLICATION) -> None:
        self.lane = lane
        self.enqueued_at: float = 0.0
        self.deadline: float = 0.0
        """When the wait ends with CheckoutTimeout. 0: `Pool.enqueue` sets it from `query_wait`."""
        self.limit: str = ""
        """The setting behind `deadline` with its value, for the message, if it is not the pool's."""
        self.notified: bool = False
        self.parties: tuple[Party, ...] = ()
        self.passed_over: int = 0
        """How often others got a connection that it does not accept."""

    def accepts(self, conn: Leasable) -> bool:
        """Would `conn`, which is picky, do as it is? It may be offered all the same."""
        return True

    def offer(self, conn: Leasable) -> bool:
        """Take the lease of `conn` now, or refuse it with False: nobody is there any more. Taken or not, the wait is over."""
        raise NotImplementedError

    def fail(self, error: "DualpoolError") -> None:
        """No server connection will come, because of `error`. The wait is over."""
        raise NotImplementedError

    def notify(self, seconds: float) -> None:
        """The wait has lasted for `seconds` and goes on. Called once at most."""
        raise NotImplementedError
