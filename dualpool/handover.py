"""The long way of a server connection from one client to the next, whenever it is more than popping the idle stack or pushing back on it.

Whatever comes back finds its next place here: closed, if there is a reason to; the first in the queue who takes it; or idle.
"""

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from dualpool.budget import LANE_ORDER
from dualpool.lease import CHECKING, CLOSED, CLOSING, IDLE, LEASED, RECONNECT, RESETTING, TOO_OLD, WANTED_ELSEWHERE, Leasable, Waiter
from dualpool.protocol import APPLICATION

if TYPE_CHECKING:
    from dualpool.pool import Pool

RETURNABLE: Final = frozenset({LEASED, RESETTING, CHECKING})
ENDED: Final = frozenset({CLOSING, CLOSED})


class Handover:
    """Hands the connections of one pool over."""

    __slots__ = ("_dispatching", "_missed", "_pool", "_returned")

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._returned: deque[Leasable] = deque()
        self._dispatching: bool = False
        self._missed: bool = False
        """Something changed meanwhile that calls for more than a handover."""

    def is_at_rest(self) -> bool:
        """Is nothing on its way?"""
        return not (self._dispatching or self._returned)

    def take(self, lane: int) -> Leasable | None:
        """As `Pool.take_nowait`."""
        pool = self._pool
        if pool.is_paused or pool.queue.has_anybody() or not pool.idle:
            return None
        conn = pool.idle.pop(0 if pool.settings.rotates else -1)
        conn.state = LEASED
        pool.checkouts += 1
        pool.move(conn, lane)
        pool.follow_up()
        return conn

    def give_back(self, conn: Leasable) -> None:
        """As `Pool.give_back`."""
        pool = self._pool
        state = conn.state
        if state in ENDED:
            return
        if state not in RETURNABLE:
            raise RuntimeError(f"{conn!r} was given back, but nobody had it")
        pool.forget_state(conn)
        pool.end_lease(conn)
        # A check that ended well entitles to one more use, however old the connection is: somebody waits for just this one.
        if conn.expires_at <= (pool.clock.now if state != CHECKING else -math.inf):
            pool.discard(conn, TOO_OLD if conn.generation == pool.generation else RECONNECT)
            self.dispatch()
        else:
            self.settle(conn)

    def to_first(self, conn: Leasable) -> None:
        """The same for a leased connection of a pool that is full: to the first in the queue, if there is one who takes it."""
        pool = self._pool
        queue = pool.queue.lanes[APPLICATION]
        if not queue or self._dispatching:
            self.give_back(conn)
            return
        self._dispatching = True
        self._missed = False
        conn.used = True
        waiter = pool.queue.next_for(conn, APPLICATION)
        try:
            taken = waiter.offer(conn)
        finally:
            self._dispatching = False
        if taken:
            self._count_wait(waiter)
        if not taken and conn.state == LEASED:
            self.settle(conn)
        elif self._missed:
            self.dispatch()
        elif not queue:
            pool.choose_path()

    def settle(self, conn: Leasable) -> None:
        """Find the next place for `conn`: after the ones that came before it, when clients give back while they are being served."""
        pool = self._pool
        conn.state = RESETTING
        pool.resetting_count += 1
        self._returned.append(conn)
        self.dispatch()

    def dispatch(self) -> None:
        """Place what has come back, and serve the queue from what is idle. One loop, never nested.

        If it were, clients that end as soon as they are served would pile up on the stack: give_back, offer, give_back, offer ...
        """
        pool = self._pool
        if self._dispatching:
            self._missed = True
            return
        self._dispatching = True
        try:
            while self._returned or (pool.idle and pool.has_demand()):
                self._place_next()
        finally:
            self._dispatching = False
        pool.follow_up()

    def _place_next(self) -> None:
        pool = self._pool
        if self._returned:
            conn = self._returned.popleft()
            if conn.state != RESETTING:
                return  # Lost while it waited for its turn.
            pool.resetting_count -= 1
        else:
            conn = pool.idle.pop(0 if pool.settings.rotates else -1)
        conn.state = LEASED
        reason = self._reason_to_close(conn)
        conn.used = True
        if not reason:
            if pool.has_demand() and self._hand_over(conn):
                return
            if conn.state != LEASED:
                return  # Lost while it was offered.
            reason = self._reason_not_to_keep(conn)
            if not reason:
                conn.state = IDLE
                conn.idle_since = pool.clock.now
                pool.idle.append(conn)
                return
        pool.discard(conn, reason)

    def _reason_to_close(self, conn: Leasable) -> str:
        pool = self._pool
        if pool.is_closed:
            return "the pool is closed"
        if conn.lane == APPLICATION and pool.count_application() > pool.settings.size + pool.settings.reserve_size:
            return "the pool has become smaller"
        if pool.budget.pressed and pool.budget.wants_back(pool, conn):
            return WANTED_ELSEWHERE
        return ""

    def _reason_not_to_keep(self, conn: Leasable) -> str:
        """Nobody took it. May it be idle?"""
        pool = self._pool
        if not pool.move(conn, APPLICATION):
            return "the maintenance lane needs it no more"
        return "nobody waits who would need more than pool_size" if pool.has_surplus() else ""

    def _hand_over(self, conn: Leasable) -> bool:
        """Offer `conn` to those who wait, in their order, until one takes it. It stays LEASED if nobody does."""
        pool = self._pool
        for lane in LANE_ORDER:
            queue = pool.queue.lanes[lane]
            if queue and pool.move(conn, lane):
                while queue:
                    waiter = pool.queue.next_for(conn, lane)
                    conn.parties = waiter.parties
                    if waiter.offer(conn):
                        self._count_wait(waiter)
                        return True
                    pool.end_lease(conn)
                    if conn.state != LEASED:
                        return False
        return False

    def _count_wait(self, waiter: Waiter) -> None:
        pool = self._pool
        pool.checkouts += 1
        pool.waits += 1
        waited = max(0.0, pool.clock.now - waiter.enqueued_at)
        pool.total_wait += waited
        pool.counters.waited(waited)
