"""What is counted of a pool's traffic. [hot]

Counting happens where bytes are at hand anyway: once for each chunk that is read, and once for each chunk that ends queries. Times are
seconds of the reactor's clock, so they are as fine as its batches. What relays count for themselves (parses, binds) is fetched by
`gather_client` and `gather_server` when somebody wants to know.
"""

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dualpool.protocol import ClientRelay, ServerRelay

BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper ends of the histograms' buckets, in seconds; one more bucket takes what is longer."""


class Watch:
    """Who wants to know of queries that took longer than `threshold`, in seconds."""

    __slots__ = ("threshold",)

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def slow(self, relay: "ServerRelay", seconds: float) -> None:
        """What `relay` was asked has just been answered, after so long."""
        raise NotImplementedError


class Counters:
    """Totals since the pool was made, up to date after `gather`. `received`: bytes from clients; `sent`: from servers, to clients."""

    __slots__ = (
        "_single_buckets",
        "_single_seconds",
        "assignments",
        "binds",
        "client_parses",
        "leaks",
        "logins",
        "pins",
        "queries",
        "query_buckets",
        "query_seconds",
        "received",
        "sent",
        "server_parses",
        "transaction_buckets",
        "transaction_seconds",
        "transactions",
        "wait_buckets",
        "wait_seconds",
    )

    def __init__(self) -> None:
        self._single_seconds = 0.0
        self._single_buckets = [0] * (len(BOUNDS) + 1)
        self.transactions = 0
        self.queries = 0
        self.received = 0
        self.sent = 0
        self.transaction_seconds = 0.0
        self.query_seconds = 0.0
        self.client_parses = 0
        self.server_parses = 0
        self.binds = 0
        self.logins = 0
        self.leaks = 0
        """Leases that left what nobody had seen, and that were asked."""
        self.pins: Counter[str] = Counter()
        """How often sessions came to hold what pins them, by reason."""
        self.query_buckets = [0] * (len(BOUNDS) + 1)
        self.transaction_buckets = [0] * (len(BOUNDS) + 1)
        self.wait_buckets = [0] * (len(BOUNDS) + 1)
        """Of the checkouts that had to wait."""
        self.assignments = 0
        """Checkouts. The pool counts these and the wait itself; whoever gathers brings them here."""
        self.wait_seconds = 0.0

    def answered(self, relay: "ServerRelay", asked_at: float, began_at: float, now: float) -> float:
        """Count what `relay` says has been answered. `began_at`: when the open transaction began, or 0. Returns its new value."""
        seconds = now - asked_at
        bucket = bisect_left(BOUNDS, seconds)
        if relay.queries == 1 == relay.transactions and not began_at:
            relay.queries = relay.transactions = 0
            self._single_seconds += seconds
            self._single_buckets[bucket] += 1
            return 0.0
        self.queries += relay.queries
        relay.queries = 0
        self.query_seconds += seconds
        self.query_buckets[bucket] += 1
        if relay.transactions:
            if began_at:
                seconds = now - began_at
            self.transactions += relay.transactions
            relay.transactions = 0
            self.transaction_seconds += seconds
            self.transaction_buckets[bisect_left(BOUNDS, seconds)] += 1
            began_at = 0.0
        return (began_at or asked_at) if relay.in_transaction else 0.0

    def gather(self, checkouts: int, wait_seconds: float) -> None:
        """Bring the totals up to date. A query that is a transaction of its own, as most are, has been counted only once so far."""
        self.assignments = checkouts
        self.wait_seconds = wait_seconds
        count = sum(self._single_buckets)
        self.queries += count
        self.transactions += count
        self.query_seconds += self._single_seconds
        self.transaction_seconds += self._single_seconds
        for buckets in (self.query_buckets, self.transaction_buckets):
            for index, single in enumerate(self._single_buckets):
                buckets[index] += single
        self._single_seconds = 0.0
        self._single_buckets = [0] * (len(BOUNDS) + 1)

    def waited(self, seconds: float) -> None:
        """A checkout had to wait."""
        self.wait_buckets[bisect_left(BOUNDS, seconds)] += 1

    def gather_client(self, relay: "ClientRelay") -> None:
        """Take over what a client's relay has counted."""
        self.client_parses += relay.parses
        self.binds += relay.binds
        relay.parses = relay.binds = 0

    def gather_server(self, relay: "ServerRelay") -> None:
        """Take over what a server connection's relay has counted."""
        self.server_parses += relay.parses
        relay.parses = 0

    def add(self, other: "Counters") -> None:
        """Add the totals of `other`."""
        for name in Counters.__slots__:
            mine, more = getattr(self, name), getattr(other, name)
            setattr(self, name, [one + two for one, two in zip(mine, more, strict=True)] if isinstance(mine, list) else mine + more)


class WatchedCounters(Counters):
    """Counters that compare each answer's time with a threshold. A class of its own, so that it costs nothing where nobody watches."""

    __slots__ = ("watch",)

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def answered(self, relay: "ServerRelay", asked_at: float, began_at: float, now: float) -> float:
        """See Counters."""
        if now - asked_at > self.watch.threshold:
            self.watch.slow(relay, now - asked_at)
        return super().answered(relay, asked_at, began_at, now)
