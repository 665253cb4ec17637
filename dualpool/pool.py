"""The pool: which server connection is whose. Synchronous, without I/O.

Why so: a state that only changes in functions without `await` cannot be torn by a cancellation. What has to happen outside (connect, close,
check) is asked of a `PoolIO`, which only schedules it, and later reports here: every `connect` is answered by `connected` or
`connect_failed`, every `close` by `closed` (or `lost`), every `check` by `give_back` or `lost`.

    connecting ──> idle <──> leased ──> resetting        (idle too long: idle ──> checking ──> leased)
                    └───── any ──> closing ──> closed

The two calls of every transaction, `take_nowait` and `give_back`, each have a fast path that is decided by one flag: `_plain` is true as
long as nothing but "pop from the idle stack, push back on it" can be due. With more clients than connections, `_full` is the flag: true as
long as nothing but "behind the last in the queue, to the first in the queue" can be due. Whatever makes more necessary (a pause, another
pool in need, maintenance) calls `choose_path`, and then the long way is gone.

The idle stack is last in, first out, so that what is not needed grows old at its bottom and is closed. Everything on it counts as
application: a connection that maintenance gives back moves over to the application if there is room for it there, and is closed if not, so
that the reserve is free for the next migration.

Its parts have modules of their own: who waits (waiting.py), the long way (handover.py), what is opened (growth.py), what time alone ends
(ageing.py), and what those are told who wait in vain (refusals.py).
"""

import math
import random
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final

from dualpool.ageing import Ageing
from dualpool.budget import LANE_ORDER, Budget, Quota, is_full
from dualpool.counters import Counters
from dualpool.errors import DualpoolError
from dualpool.growth import Growth
from dualpool.handover import Handover
from dualpool.lease import CHECKING, CLOSED, CLOSING, CONNECTING, IDLE, LEASED, RECONNECT, RESETTING, Leasable, Party, Waiter
from dualpool.pool_settings import PoolSettings
from dualpool.pool_statistics import PoolStatistics
from dualpool.protocol import APPLICATION, MAINTENANCE
from dualpool.refusals import Refusals
from dualpool.waiting import Queue

if TYPE_CHECKING:
    from dualpool.reactor import Clock

DOUBT_PAUSE: Final = 1.0
"""Seconds: more losses within this time raise no new doubts about the idle connections."""
CHOICE: Final = 8
"""So many idle connections are looked at for a suited one."""
UNCOUNTED: Final = frozenset({CONNECTING, CLOSED})

_ids = count(1)


class PoolIO:
    """What a pool asks of the world. Each method only schedules; it never calls the pool back before it returns."""

    def connect(self, pool: "Pool", lane: int) -> None:
        """Start one connect. Ends in `pool.connected(conn, lane)` or `pool.connect_failed(error, lane)`, exactly once."""
        raise NotImplementedError

    def close(self, conn: Leasable, reason: str) -> None:
        """Close `conn`. Ends in `pool.closed(conn)`, when the server no longer counts it."""
        raise NotImplementedError

    def check(self, conn: Leasable) -> None:
        """Find out whether `conn` is alive, within a time limit. Ends in `pool.give_back(conn)` or `pool.lost(conn, error)`."""
        raise NotImplementedError


class Pool:
    """The interchangeable server connections of one (database, server user), and the queue for them."""

    __slots__ = (
        "_capped",
        "_checking",
        "_closing",
        "_full",
        "_plain",
        "ageing",
        "budget",
        "checkouts",
        "clients",
        "clock",
        "connect_failures",
        "connecting",
        "connections",
        "connects",
        "counted",
        "counters",
        "generation",
        "growth",
        "handover",
        "idle",
        "io",
        "is_closed",
        "is_paused",
        "last_error",
        "last_loss",
        "losses",
        "name",
        "queue",
        "quotas",
        "refusals",
        "resetting_count",
        "rng",
        "settings",
        "stale",
        "timeouts",
        "total_wait",
        "waits",
    )

    def __init__(
        self,
        name: str,
        settings: PoolSettings,
        budget: Budget,
        io: PoolIO,
        clock: "Clock",
        rng: random.Random | None = None,
        quotas: tuple[Quota, ...] = (),
    ) -> None:
        """`name` is for messages. `rng` is for jitter only. `quotas`: bounds inside the budget, shared with other pools."""
        self.name = name
        self.quotas = quotas
        self.settings = settings
        self.budget = budget
        self.io = io
        self.clock = clock
        self.generation: int = 0
        self.clients: int = 0
        """How many clients of this pool are logged in. Whoever serves them counts them here; `min_size` needs at least one."""
        self.is_paused: bool = False
        self.is_closed: bool = False
        self.connections: set[Leasable] = set()
        """Every connection but the connecting and the closed ones."""
        self.connecting: list[int] = [0, 0]
        self.counted: list[int] = [0, 0]
        """Per lane: every connection from the start of its connect until it is closed."""
        self.rng = rng or random.Random()
        self.idle: list[Leasable] = []
        self.stale: list[Leasable] = []
        """Idle for so long that they are checked before use. Older than all of `idle`."""
        self.queue = Queue()
        self.growth = Growth(self)
        self.refusals = Refusals(self)
        self.ageing = Ageing(self)
        self.handover = Handover(self)
        self._checking: int = 0
        self.resetting_count: int = 0
        """Being reset or recovered; and those that came back and have not found their next place yet."""
        self._closing: list[int] = [0, 0]
        self._capped: bool = False
        self._plain: bool = False
        self._full: bool = False
        self.counters = Counters()
        self.checkouts: int = 0
        self.waits: int = 0
        self.total_wait: float = 0.0
        self.timeouts: int = 0
        self.connects: int = 0
        self.connect_failures: int = 0
        self.losses: int = 0
        self.last_error: str = ""
        """Why the last connect failed; "" when one has succeeded since."""
        self.last_loss: str = ""
        budget.add(self, quotas)
        self.choose_path()

    def __repr__(self) -> str:
        return (
            f"<Pool {self.name}: {len(self.idle) + len(self.stale)} idle, {self._count_leased()} leased, "
            f"{sum(self.connecting)} connecting, {self.queue.count()} waiting>"
        )

    # ------------------------------------------------------------------------------------------------ every transaction

    def take_nowait(self, lane: int) -> Leasable | None:
        """Take an idle connection, or None: then `enqueue`. The caller must `give_back` it, or report it `lost`. Nobody is overtaken."""
        if self._plain and lane == APPLICATION:
            if not self.idle:
                return None
            conn = self.idle.pop()
            conn.state = LEASED
            self.checkouts += 1
            return conn
        return self.handover.take(lane)

    def take_rather(self, conn: Leasable, is_suited: Callable[[Leasable], bool]) -> Leasable:
        """Another idle connection in place of `conn`, which was just taken, if there is a suited one among the last used; else `conn`."""
        if self._plain and conn.lane == APPLICATION:
            idle = self.idle
            for position in range(len(idle) - 1, max(len(idle) - CHOICE, 0) - 1, -1):
                other = idle[position]
                if is_suited(other):
                    del idle[position]
                    idle.append(conn)
                    conn.state = IDLE
                    other.state = LEASED
                    return other
        return conn

    def give_back(self, conn: Leasable) -> None:
        """The lease of `conn` is over, and it may serve another client; or its reset or check has ended well.

        Afterwards it is somebody else's, or idle, or being closed. A connection that was lost meanwhile is ignored.
        """
        now = self.clock.now
        if self._plain and conn.state == LEASED and conn.lane == APPLICATION and conn.expires_at > now:
            conn.state = IDLE
            conn.idle_since = now
            self.idle.append(conn)
        elif self._full and conn.state == LEASED and conn.lane == APPLICATION and conn.expires_at > now:
            self.handover.to_first(conn)
        else:
            self.handover.give_back(conn)

    def choose_path(self) -> None:
        """Decide which way the calls above and `enqueue` go. To be called after every change that matters to it; the budget does too."""
        settings = self.settings
        ordinary = not (self.is_paused or self.is_closed or self._capped or settings.rotates or self.budget.pressed or self.has_surplus())
        self._plain = ordinary and not self.queue.has_anybody()
        self._full = (
            ordinary
            and self.counted[APPLICATION] >= settings.size
            and not (settings.reserve_size or settings.max_waiting or self.queue.lanes[MAINTENANCE])
        )

    def party(self, name: str, cap: int) -> Party:
        """A new party for clients of this pool. From now on every lease goes the long way, where it is counted."""
        self._capped = True
        self.choose_path()
        return Party(name, cap)

    # ------------------------------------------------------------------------------------------------ the queue

    def enqueue(self, waiter: Waiter) -> None:
        """Queue up. `offer` or `fail` will be called once, perhaps before this returns; unless `withdraw` is called first."""
        self.begin_wait(waiter)
        queue = self.queue.lanes[APPLICATION]
        if self._full and queue and waiter.lane == APPLICATION and not self.stale:
            queue[waiter] = None  # whatever can be done for those in front has been done, and does for this one
        elif self.is_closed:
            self.refusals.refuse(waiter, self.refusals.closed())
        elif waiter.lane == APPLICATION and self._is_queue_full():
            self.refusals.refuse(waiter, self.refusals.queue_full())
        elif self.queue.add(waiter):
            self._plain = False
            self.handover.dispatch()

    def begin_wait(self, waiter: Waiter) -> None:
        """It waits from now on, and as long as it may, if that is not settled yet."""
        waiter.enqueued_at = now = self.clock.now
        if not waiter.deadline:
            waiter.deadline = now + (self.settings.query_wait or math.inf)

    def withdraw(self, waiter: Waiter) -> bool:
        """`waiter` wants nothing any more. False if it was not in the queue (any more)."""
        if not self.queue.remove(waiter):
            return False
        self.handover.dispatch()
        return True

    def _is_queue_full(self) -> bool:
        limit = self.settings.max_waiting
        # With something idle, and nobody in front, it will not have to wait.
        return 0 < limit <= self.queue.count_all() and bool(self.is_paused or self.queue.count_all() or not self.idle)

    def end_lease(self, conn: Leasable) -> None:
        """`conn` counts for nobody's cap any more."""
        parties = conn.parties
        if parties:
            conn.parties = ()
            self._plain = False
            self.queue.done(parties)

    def has_demand(self) -> bool:
        """Does anybody wait whom a connection would help now?"""
        return self.queue.has_anybody() and not self.is_paused

    def is_starting(self) -> bool:
        """Does somebody wait for a database that may have been asleep, and has not answered yet?"""
        return self.settings.idle_after > 0 and not self.count_up() and self.queue.has_anybody()

    def maintenance_waits(self) -> bool:
        """Does anybody wait whom a connection would help now, in the maintenance lane?"""
        return bool(self.queue.lanes[MAINTENANCE]) and not self.is_paused

    # ------------------------------------------------------------------------------------------------ reports

    def resetting(self, conn: Leasable) -> None:
        """The lease of `conn` is over, but it is not ready for the next: a reset, a recovery or a cancel request has to end first."""
        if conn.state == LEASED:
            conn.state = RESETTING
            self.resetting_count += 1

    def connected(self, conn: Leasable, lane: int) -> None:
        """A connect has ended well. `conn`, made for this pool, is the pool's from now on."""
        self.connecting[lane] -= 1
        self.connects += 1
        self.growth.succeeded()
        self.last_error = ""
        conn.id = next(_ids)
        conn.lane = lane
        conn.created_at = now = self.clock.now
        conn.expires_at = self.ageing.end_of_life(now)
        if conn.generation == -1:
            conn.generation = self.generation
        stale = conn.generation != self.generation
        self.connections.add(conn)
        if self.is_closed or stale:
            self.discard(conn, RECONNECT if stale else "the pool is closed")
            self.follow_up()
        else:
            self.handover.settle(conn)

    def replaced(self, old: Leasable, new: Leasable) -> None:
        """`old`, which is leased, was closed and `new` opened for the same lease."""
        self.connects += 1
        new.id = next(_ids)
        new.state, new.lane, new.used = LEASED, old.lane, True
        new.parties, old.parties = old.parties, ()
        new.created_at = now = self.clock.now
        new.expires_at = self.ageing.end_of_life(now)
        if new.generation not in {-1, self.generation}:
            new.expires_at = -math.inf
        new.generation = self.generation if new.generation == -1 else new.generation
        old.state = CLOSED
        self.connections.remove(old)
        self.connections.add(new)

    def connect_failed(self, error: DualpoolError, lane: int) -> None:
        """A connect has failed, or was given up. After a pause the next one is started, if anybody still waits."""
        self.connecting[lane] -= 1
        self.counted[lane] -= 1
        self.connect_failures += 1
        self.last_error = str(error)
        self.growth.failed(error)
        if is_full(error):
            self.budget.refused(lane, self.clock.now)
        else:
            self.budget.release(lane)
        self.follow_up()

    def lost(self, conn: Leasable, error: Exception | None = None) -> None:
        """`conn` is gone, whatever it was doing. Reported twice, the second time is ignored."""
        if conn.state in UNCOUNTED:
            return
        if conn.state != CLOSING:
            self.losses += 1
            self.last_loss = "" if error is None else str(error)
            self.doubt_all()
        self.forget_state(conn)
        conn.state = CLOSED
        self.connections.discard(conn)
        self.counted[conn.lane] -= 1
        self.end_lease(conn)
        self.budget.release(conn.lane)
        self.handover.dispatch()

    def condemn(self, conn: Leasable, reason: str) -> None:
        """`conn`, which somebody holds or works on, is unfit for anybody else: close it. It counts until the server has let go of it."""
        if conn.state in UNCOUNTED or conn.state == CLOSING:
            return
        self.forget_state(conn)
        self.end_lease(conn)
        self.discard(conn, reason)
        self.follow_up()

    def closed(self, conn: Leasable) -> None:
        """The answer to `PoolIO.close`: the server no longer counts `conn`."""
        self.lost(conn)

    def doubt_all(self) -> None:
        """Something is wrong with the backend: whatever is idle in any of its pools is checked before it is used."""
        budget = self.budget
        if self.clock.now >= budget.doubted_at + DOUBT_PAUSE:
            budget.doubted_at = self.clock.now
            for pool in budget.pools:
                pool.doubt()

    def doubt(self) -> None:
        """Check what is idle now before it is used."""
        self.stale += self.idle
        self.idle.clear()

    # ------------------------------------------------------------------------------------------------ orders

    def reconnect(self) -> None:
        """Replace every connection: idle ones now, the others when they come back."""
        self.generation += 1
        for conn in self.connections:
            conn.expires_at = -math.inf
        self.growth.succeeded()
        self.close_idle(RECONNECT)
        self.follow_up()

    def pause(self) -> None:
        """Hand out nothing more until `resume`; leases go on to their end. Waiting clients' deadlines go on too."""
        self.is_paused = True
        self.follow_up()

    def resume(self) -> None:
        """End a pause."""
        self.is_paused = False
        self.handover.dispatch()

    def is_drained(self) -> bool:
        """True when no client holds a connection, and none is being reset after one."""
        return self._count_leased() == 0 and self.resetting_count == 0

    def is_busy_inside(self) -> bool:
        """True while connections are being reset, recovered or checked."""
        return bool(self.resetting_count or self._checking)

    def configure(self, settings: PoolSettings) -> None:
        """Other settings, perhaps another size. A surplus is closed: idle ones now, others when they come back."""
        self.settings = settings
        self._close_surplus()
        self.handover.dispatch()

    def close(self) -> None:
        """Refuse everybody from now on. Idle connections are closed now, leased ones when they come back."""
        self.is_closed = True
        self.refusals.refuse_all(self.refusals.closed())
        self.close_idle("the pool is closed")
        self.follow_up()

    def is_gone(self) -> bool:
        """True when a closed pool has no connection left."""
        return self.is_closed and not sum(self.counted)

    def leave_budget(self) -> None:
        """A pool that `is_gone` will not come back."""
        assert self.is_gone()
        if self in self.budget.pools:
            self.budget.remove(self)

    def sweep(self, now: float) -> None:
        """Do what is due by time alone; call it about once a second. Sets the clock to `now`."""
        self.clock.now = now
        self.growth.swept_at = now
        self.refusals.sweep(now)
        self.ageing.sweep(now)
        self.growth.sweep(now)
        self.handover.dispatch()

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        since = self.queue.since()
        return PoolStatistics(
            idle=len(self.idle) + len(self.stale),
            leased=self._count_leased(),
            resetting=self.resetting_count + self._checking,
            connecting=sum(self.connecting),
            closing=sum(self._closing),
            maintenance=self.counted[MAINTENANCE],
            waiting=self.queue.count_all(),
            max_wait=0.0 if math.isinf(since) else max(0.0, self.clock.now - since),
            clients=self.clients,
            size=self.settings.size,
            paused=self.is_paused,
            checkouts=self.checkouts,
            waits=self.waits,
            total_wait=self.total_wait,
            timeouts=self.timeouts,
            connects=self.connects,
            connect_failures=self.connect_failures,
            losses=self.losses,
            last_error=self.last_error,
            last_loss=self.last_loss,
        )

    # ------------------------------------------------------------------------------------------------ for the budget

    def idle_connections(self) -> list[Leasable]:
        """Those that nobody would miss at once."""
        return self.stale + self.idle

    def count_closing(self, lane: int) -> int:
        """How many are being closed."""
        return self._closing[lane]

    def evict(self, conn: Leasable, reason: str) -> None:
        """Close one of `idle_connections`."""
        self.forget_state(conn)
        self.discard(conn, reason)

    def grow(self) -> None:
        """Start the checks and connects that somebody waits for, as far as the size, the budget and the pause after a failure allow."""
        self.growth.serve()

    # ------------------------------------------------------------------------------------------------ for its parts

    def move(self, conn: Leasable, lane: int) -> bool:
        """Count `conn` in `lane`, if there is room for it there. Maintenance may take over any connection."""
        source = conn.lane
        if source == lane:
            return True
        if lane == APPLICATION and self.counted[APPLICATION] >= self.settings.size:
            return False
        if not self.budget.move(self, source, lane):
            return False
        self.counted[source] -= 1
        self.counted[lane] += 1
        conn.lane = lane
        return True

    def check_next(self) -> None:
        """Check one of those that may not be alive any more: it serves whoever is next, if it is."""
        conn = self.stale.pop()
        conn.state = CHECKING
        self._checking += 1
        self.io.check(conn)

    def discard(self, conn: Leasable, reason: str) -> None:
        """Close `conn`, which is in no list any more."""
        conn.state = CLOSING
        self._closing[conn.lane] += 1
        self.budget.closing[conn.lane] += 1
        self.io.close(conn, reason)

    def forget_state(self, conn: Leasable) -> None:
        """Take `conn` out of whatever list or count its state has put it in."""
        state = conn.state
        if state == IDLE:
            (self.stale if conn in self.stale else self.idle).remove(conn)
        elif state == RESETTING:
            self.resetting_count -= 1
        elif state == CHECKING:
            self._checking -= 1
        elif state == CLOSING:
            self._closing[conn.lane] -= 1
            self.budget.closing[conn.lane] -= 1

    def follow_up(self) -> None:
        """What every change may make necessary: other pools may have room now, this one may need more, the paths may have changed."""
        self.budget.serve()
        self.growth.serve()
        self.choose_path()

    # ------------------------------------------------------------------------------------------------ helpers

    def count_up(self) -> int:
        """How many are connected, and not being closed."""
        return len(self.connections) - sum(self._closing)

    def count_coming(self) -> int:
        """How many connections are on their way to those who wait."""
        return sum(self.connecting) + self._checking

    def _count_leased(self) -> int:
        others = len(self.idle) + len(self.stale) + self.resetting_count + self._checking + sum(self._closing)
        return len(self.connections) - others

    def count_application(self) -> int:
        """How many the application has, apart from what is being closed."""
        return self.counted[APPLICATION] - self._closing[APPLICATION]

    def has_surplus(self) -> bool:
        """Are there more than the size?"""
        return self.count_application() > self.settings.size

    def close_idle(self, reason: str) -> None:
        """Close what nobody would miss at once."""
        for conn in self.idle_connections():
            self.evict(conn, reason)

    def _close_surplus(self) -> None:
        for conn in self.idle_connections():
            if self.has_surplus():
                self.evict(conn, "the pool has become smaller")

    def verify(self) -> None:
        """Check everything that must be true between two calls. For tests, which call it so often that it is written to be quick."""
        by_lane = [0] * 7, [0] * 7
        party_leases = []
        for conn in self.connections:
            assert conn.pool is self
            by_lane[conn.lane][conn.state] += 1
            if conn.parties:
                assert conn.state in {LEASED, RESETTING}, "a lease that is over still counts"
                party_leases.append(conn)
        by_state = [ours + theirs for ours, theirs in zip(*by_lane, strict=True)]
        idle = self.idle_connections()
        assert by_lane[APPLICATION][IDLE] == by_state[IDLE] == len(idle) == len(set(idle))
        for conn in idle:
            assert conn.state == IDLE
        assert by_state[RESETTING] == self.resetting_count
        assert by_state[CHECKING] == self._checking
        assert by_state[LEASED] == self._count_leased()
        assert by_state[CONNECTING] == by_state[CLOSED] == 0
        for lane in LANE_ORDER:
            assert by_lane[lane][CLOSING] == self._closing[lane]
            assert self.counted[lane] - sum(by_lane[lane]) == self.connecting[lane] >= 0
        if self._capped:
            self.queue.verify(party_leases)
        self._verify_service()

    def _verify_service(self) -> None:
        """Nobody waits for nothing: whatever could be done for those who wait has been done."""
        assert self.handover.is_at_rest()
        if self.has_demand():
            assert not self.idle, "somebody waits, and a connection is idle"
            assert not self.stale or self.count_coming() >= self.queue.count(), "somebody waits, and nothing is being checked"
        for lane in LANE_ORDER:
            if self.growth.is_wanted(lane):
                assert self.budget.claimed(self), "somebody waits, and nobody connects"
        paths = self._plain, self._full
        self.choose_path()
        assert paths == (self._plain, self._full), "give_back, take_nowait or enqueue goes the wrong way"
