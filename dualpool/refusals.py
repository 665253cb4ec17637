"""Who waits for a server connection and does not get one (yet), and what it is told: the reason, the setting behind it, the way out."""

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from dualpool.budget import Quota
from dualpool.errors import CheckoutTimeout, DualpoolError, PoolClosed, QueueFull
from dualpool.lease import Party, Waiter
from dualpool.protocol import APPLICATION

if TYPE_CHECKING:
    from dualpool.pool import Pool

STARTING_NOTICE: Final = 1.0
"""Seconds after which those who wait for a database that was asleep are told that it is starting."""
RATE_WINDOW: Final = 1.0
"""Seconds over which the pace of the queue is measured."""
SERVER_HINT: Final = "See that the server is up and reachable."


class Refusals:
    """Ends the waits of one pool that are in vain."""

    __slots__ = ("_failing", "_pool", "_rate", "_refused", "_window")

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._window: tuple[float, int] = (pool.clock.now, 0)
        self._rate: float = 0.0
        self._refused: deque[tuple[Waiter, DualpoolError]] = deque()
        self._failing: bool = False

    def refuse(self, waiter: Waiter, error: DualpoolError) -> None:
        """Fail one who just came. Without nesting, should it come again at once with its next request."""
        self._refused.append((waiter, error))
        if len(self._refused) == 1:
            while self._refused:
                first, why = self._refused[0]
                try:
                    first.fail(why)
                finally:
                    self._refused.popleft()

    def refuse_all(self, error: DualpoolError) -> None:
        """Fail everybody who waits; those too who queue up again at once with their next request, without nesting."""
        if self._failing:
            return
        self._failing = True
        queue = self._pool.queue
        try:
            while (waiter := queue.first()) is not None:
                queue.remove(waiter)
                waiter.fail(error)
        finally:
            self._failing = False

    def refuse_early(self, error: DualpoolError, until: float) -> None:
        """Fail everybody who waits since `until` or longer."""
        queue = self._pool.queue
        for waiter in queue.everybody():
            if waiter.enqueued_at <= until and queue.remove(waiter):
                waiter.fail(error)

    def sweep(self, now: float) -> None:
        """Fail those who have waited too long; tell those who have waited for a while."""
        self._measure(now)
        pool = self._pool
        notify_after = pool.settings.query_wait_notify or math.inf
        if pool.is_starting():
            notify_after = min(notify_after, STARTING_NOTICE)
        for waiter in pool.queue.everybody():
            if not pool.queue.holds(waiter):
                continue  # What an earlier one did about its failure has served this one, or ended it.
            waited = now - waiter.enqueued_at
            if now >= waiter.deadline:
                error = self.give_up(waited, waiter.limit, pool.queue.parked.get(waiter))
                pool.queue.remove(waiter)
                waiter.fail(error)
            elif waited >= notify_after and not waiter.notified:
                waiter.notified = True
                waiter.notify(waited)

    def give_up(self, waited: float, limit: str = "", party: Party | None = None) -> CheckoutTimeout:
        """Count a wait of `waited` seconds that was in vain. Returns what to tell the one who waited. `limit`: as `Waiter.limit`."""
        pool = self._pool
        pool.timeouts += 1
        if party is not None:
            cause, hint = f"{party.name} has {party.active} at work or in the queue already", "Use fewer connections at once."
        elif pool.last_error:
            cause, hint = f"the last connect failed: {pool.last_error}", SERVER_HINT
        elif pool.is_paused:
            cause, hint = "the pool is paused", "RESUME ends the pause."
        elif not pool.count_up() and any(pool.connecting):
            cause, hint = "the server has not answered the connect yet", SERVER_HINT
        else:
            cause, hint = self._what_is_full()
            cause += self._outlook()
        limit = limit or f"{pool.settings.query_wait_name} is {pool.settings.query_wait:g} s"
        message = f'pool "{pool.name}": waited {waited:.1f} s for a server connection ({limit}): {cause}'
        return CheckoutTimeout(message, hint=hint)

    def queue_full(self) -> QueueFull:
        """What one too many in the queue is told."""
        pool = self._pool
        limit = f"limits.max_waiting_clients is {pool.settings.max_waiting}"
        message = f'pool "{pool.name}": too many clients wait for a server connection ({limit}){self._outlook()}'
        return QueueFull(message, hint="Try again later.")

    def closed(self) -> PoolClosed:
        """What clients of a closed pool are told."""
        return PoolClosed(
            f'pool "{self._pool.name}" is closed', hint="dualpool is shutting down, or the database was disabled; connect again later."
        )

    def _what_is_full(self) -> tuple[str, str]:
        pool = self._pool
        budget = pool.budget
        if pool.counted[APPLICATION] >= pool.settings.size:
            return f"all {pool.settings.size} are taken (pool_size)", "Use shorter transactions, or raise pool_size."
        for bound in budget.blocking(pool, APPLICATION):
            if isinstance(bound, Quota):
                return f"all {bound.limit} are taken ({bound.name})", f"Use shorter transactions, or raise {bound.name}."
        cause = f'all {budget.limit} connections of backend "{budget.name}" are taken (budget)'
        if budget.is_full_elsewhere:
            return f"{cause}; the server has no room for more", "Others use the server too: lower the budget, or raise its max_connections."
        return cause, "Use shorter transactions, or raise the budget if the server allows more connections."

    def _outlook(self) -> str:
        """How long the next one will have to wait, as things go now; "" if nothing goes."""
        return f"; a new request would wait about {(self._pool.queue.count_all() + 1) / self._rate:.1f} s" if self._rate else ""

    def _measure(self, now: float) -> None:
        """The pace of the queue: checkouts in a second."""
        since, count = self._window
        if now - since >= RATE_WINDOW:
            self._rate = (self._pool.checkouts - count) / (now - since)
            self._window = (now, self._pool.checkouts)
