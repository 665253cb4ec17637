"""Which connections a pool opens, and when: for those who wait, and up to its minimum. Synchronous, without I/O.

Three things hold it back: its size, the budget, and the server. As long as nothing is up, one connect probes for all; after a failed one
there is a pause; and what the server refuses for good (a wrong password) is told to everybody who waits. Only that a database is missing is
not for good: tools find out, create it, and come again at once.
"""

import math
from typing import TYPE_CHECKING, Final

from dualpool.budget import LANE_ORDER
from dualpool.errors import DualpoolError
from dualpool.protocol import APPLICATION, MAINTENANCE

if TYPE_CHECKING:
    from dualpool.pool import Pool

PERMANENT_SQLSTATES: Final = frozenset({"28000", "28P01", "42501"})
"""PostgreSQL's answers that asking again does not change: wrong user, wrong password, not allowed into the database."""
PERMANENT_ERRNOS: Final = frozenset({1044, 1045, 1698})
"""MySQL's: no access to the database, wrong password, not with this authentication plugin."""
MISSING_SQLSTATE: Final = "3D000"
MISSING_ERRNO: Final = 1049
"""No such database."""

RETRY_JITTER: Final = 0.25
"""The pause after a failed connect is up to this part shorter or longer, so that pools and processes do not knock in step."""


class Growth:
    """Starts the connects of one pool. What comes of them is told to the pool, which tells `succeeded` or `failed`."""

    __slots__ = ("_missing", "_pool", "_probed_at", "_refusal", "_serve_at", "retry_at", "swept_at")

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self.swept_at: float = pool.clock.now
        """When the queue was looked at last."""
        self.retry_at: float = -math.inf
        """When the pause after a failed connect is over, and `_serve_at`: when it is for those who wait."""
        self._serve_at: float = -math.inf
        self._refusal: DualpoolError | None = None
        self._probed_at: float = -math.inf
        """When the last connect was started."""
        self._missing: tuple[DualpoolError, float] | None = None
        """What those are to be told who came before this time: that the database is missing."""

    def succeeded(self) -> None:
        """A connect has ended well; or whatever was wrong may be so no more."""
        self.retry_at = self._serve_at = -math.inf
        self._refusal = self._missing = None

    def failed(self, error: DualpoolError) -> None:
        """A connect has failed: the next one comes after a pause; or with the next who comes, if the database is missing."""
        pool = self._pool
        self._refusal = error if is_permanent(error) else None
        self.retry_at = pool.clock.now + pool.settings.login_retry * pool.rng.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)
        is_told = is_missing(error) and not pool.count_up()
        self._missing = (error, self._probed_at) if is_told else None
        self._serve_at = -math.inf if is_told else self.retry_at

    def serve(self) -> None:
        """Start the checks and connects that somebody waits for."""
        pool = self._pool
        while pool.stale and pool.has_demand() and pool.count_coming() < pool.queue.count():
            pool.check_next()
        if self._refusal is not None and pool.clock.now < self.retry_at and not pool.count_up():
            pool.refusals.refuse_all(self._refusal)
        if self._missing is not None:
            (error, asked_at), self._missing = self._missing, None
            pool.refusals.refuse_early(error, asked_at)
        for lane in LANE_ORDER:
            while self.is_wanted(lane):
                if not pool.budget.admit(pool, lane):
                    break
                self._start(lane)
            else:
                pool.budget.withdraw(pool, lane)

    def sweep(self, now: float) -> None:
        """Connect up to the minimum; only while there are clients, and only with room that nobody waits for."""
        pool = self._pool
        if not pool.clients or pool.ageing.is_asleep or pool.is_paused or pool.is_closed or now < self.retry_at:
            return
        size = pool.settings.size
        minimum = min(pool.settings.min_size, size)
        while pool.count_up() + sum(pool.connecting) < minimum and pool.counted[APPLICATION] < size and self._may_connect():
            if not pool.budget.admit(pool, APPLICATION, claim=False):
                return
            self._start(APPLICATION)

    def is_wanted(self, lane: int) -> bool:
        """Would one more connect in `lane` serve somebody, as far as the pool alone can tell?"""
        pool = self._pool
        queue = pool.queue.lanes[lane]
        if not queue or pool.is_paused or pool.is_closed or pool.count_coming() >= pool.queue.count():
            return False
        if pool.clock.now < self._serve_at or not self._may_connect():
            return False
        if lane == APPLICATION:
            return pool.counted[APPLICATION] < self._allowed_size()
        # The size binds the application. Without a limit of the budget, maintenance gets the reserve on top of the size.
        unbound = pool.budget.limit is not None or sum(pool.counted) < pool.settings.size + pool.budget.reserve
        return unbound and pool.connecting[MAINTENANCE] < len(queue)

    def _allowed_size(self) -> int:
        """The size; and the pool's own reserve, if the first in the queue had waited too long when that was looked at last."""
        settings = self._pool.settings
        if settings.reserve_size:
            first = next(iter(self._pool.queue.lanes[APPLICATION]))
            if self.swept_at - first.enqueued_at >= settings.reserve_after:
                return settings.size + settings.reserve_size
        return settings.size

    def _may_connect(self) -> bool:
        """As long as nothing is up, one connect probes for all: a server that wakes up, or refuses, is not stormed."""
        return self._pool.count_up() > 0 or not sum(self._pool.connecting)

    def _start(self, lane: int) -> None:
        """The budget has admitted it."""
        pool = self._pool
        self._probed_at = pool.clock.now
        pool.connecting[lane] += 1
        pool.counted[lane] += 1
        pool.budget.make_room()
        pool.io.connect(pool, lane)


def is_permanent(error: DualpoolError) -> bool:
    """Would the server give the same answer again?"""
    return error.sqlstate in PERMANENT_SQLSTATES or error.errno in PERMANENT_ERRNOS


def is_missing(error: DualpoolError) -> bool:
    """Is there no such database, for now?"""
    return error.sqlstate == MISSING_SQLSTATE or error.errno == MISSING_ERRNO
