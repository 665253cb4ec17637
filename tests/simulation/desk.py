"""A pool on a desk: what it asks of the world is written down, and the test answers it by hand."""

import random
from typing import Any

from dualpool.budget import Budget, Quota
from dualpool.errors import ConnectFailed, DualpoolError
from dualpool.lease import Leasable, Waiter
from dualpool.pool import Pool, PoolIO
from dualpool.pool_settings import PoolSettings
from dualpool.protocol import APPLICATION
from dualpool.reactor import Clock


class Customer(Waiter):
    """Waits, and remembers what became of it. `here`: takes what it is offered."""

    __slots__ = ("conn", "error", "here", "notices")

    def __init__(self, lane: int = APPLICATION) -> None:
        super().__init__(lane)
        self.here = True
        self.conn: Leasable | None = None
        self.error: DualpoolError | None = None
        self.notices: list[float] = []

    def offer(self, conn: Leasable) -> bool:
        if self.here:
            self.conn = conn
        return self.here

    def fail(self, error: DualpoolError) -> None:
        self.error = error

    def notify(self, seconds: float) -> None:
        self.notices.append(seconds)


class DeskIO(PoolIO):
    """Writes down what is asked."""

    def __init__(self) -> None:
        self.connects: list[tuple[Pool, int]] = []
        self.closes: list[tuple[Leasable, str]] = []
        self.checks: list[Leasable] = []

    def connect(self, pool: Pool, lane: int) -> None:
        self.connects.append((pool, lane))

    def close(self, conn: Leasable, reason: str) -> None:
        self.closes.append((conn, reason))

    def check(self, conn: Leasable) -> None:
        self.checks.append(conn)


class Desk:
    """One budget, any number of pools, a clock that stands still."""

    def __init__(self, limit: int | None = None, reserve: int = 0) -> None:
        self.clock = Clock()
        self.clock.now = 1000.0
        self.io = DeskIO()
        self.budget = Budget("main", limit, reserve)

    def pool(self, name: str = "app", quotas: tuple[Quota, ...] = (), **settings: Any) -> Pool:
        """A pool with these settings."""
        return Pool(name, PoolSettings(**settings), self.budget, self.io, self.clock, random.Random(1), quotas)

    def queue(self, pool: Pool, count: int = 1, lane: int = APPLICATION) -> list[Customer]:
        """So many customers in the queue."""
        customers = [Customer(lane) for _ in range(count)]
        for customer in customers:
            pool.enqueue(customer)
        return customers

    def let_in(self, count: int = -1) -> list[Leasable]:
        """Let the connects that were asked for succeed (all that come to be, or so many)."""
        made: list[Leasable] = []
        while self.io.connects and len(made) != count:
            pool, lane = self.io.connects.pop(0)
            made.append(Leasable(pool))
            pool.connected(made[-1], lane)
        return made

    def refuse(self, error: DualpoolError | None = None) -> None:
        """Let the next connect fail."""
        pool, lane = self.io.connects.pop(0)
        pool.connect_failed(error or ConnectFailed("connection refused"), lane)

    def lease(self, pool: Pool, count: int = 1, lane: int = APPLICATION) -> list[Leasable]:
        """So many leased connections."""
        customers = self.queue(pool, count, lane)
        self.let_in()
        return [customer.conn for customer in customers if customer.conn is not None]

    def idle(self, pool: Pool, count: int = 1) -> list[Leasable]:
        """So many idle connections, the last one on top."""
        conns = self.lease(pool, count)
        for conn in conns:
            pool.give_back(conn)
        return conns

    def close(self) -> list[str]:
        """Let the closes that were asked for happen. Returns the reasons."""
        closes, self.io.closes = self.io.closes, []
        for conn, _ in closes:
            conn.pool.closed(conn)
        return [reason for _, reason in closes]

    def wait(self, seconds: float) -> None:
        """Time passes, and every pool is swept."""
        now = self.clock.now + seconds
        self.budget.sweep(now)
        for pool in self.budget.pools:
            pool.sweep(now)

    def verify(self) -> None:
        """The books are in order."""
        for pool in self.budget.pools:
            pool.verify()
        self.budget.verify()
