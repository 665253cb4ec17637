"""The pool: which server connection is whose. Synchronous, without I/O.

Why so: a state that only changes in functions without `await` cannot be torn by a cancellation. What has to happen outside (connect, close,
check) is asked of a `PoolIO`, which only schedules it, and later reports here: every `connect` is answered by `connected` or
`connect_failed`, every `close` by `closed` (or `lost`), every `check` by `give_back` or `lost`.

    connecting ──> idle <──> leased ──> resetting        (idle too long: idle ──> checking ──> leased)
                    └───── any ──> closing ──> closed

The two calls of every transaction, `take_nowait` and `give_back`, each have a fast path that is decided by one flag: `_plain` is true as
long as nothing but "pop from the idle stack, push back on it" can be due. Whatever makes more necessary (a waiter, a pause, another pool in
need) calls `choose_path`, and then the long way is gone.

The idle stack is last in, first out, so that what is not needed grows old at its bottom and is closed. Everything on it counts as
application: a connection that maintenance gives back moves over to the application if there is room for it there, and is closed if not, so
that the reserve is free for the next migration.
"""

import math
import random
from collections import OrderedDict, deque
from itertools import count
from typing import TYPE_CHECKING, Final

import attrs

from dualpool.budget import LANES, Budget, Quota, is_full
from dualpool.counters import Counters
from dualpool.errors import CheckoutTimeout, DualpoolError, PoolClosed, QueueFull
from dualpool.lease import CHECKING, CLOSED, CLOSING, CONNECTING, IDLE, LEASED, RESETTING, Leasable, Party, Waiter
from dualpool.protocol import APPLICATION, MAINTENANCE

if TYPE_CHECKING:
    from dualpool.reactor import Clock

PERMANENT_SQLSTATES: Final = frozenset({"28000", "28P01", "3D000", "42501"})
"""PostgreSQL's answers that asking again does not change: wrong user, wrong password, no such database, not allowed into it."""
PERMANENT_ERRNOS: Final = frozenset({1044, 1045, 1049, 1698})
"""MySQL's: no access to the database, wrong password, no such database, not with this authentication plugin."""

RETRY_JITTER: Final = 0.25
"""The pause after a failed connect is up to this part shorter or longer, so that pools and processes do not knock in step."""

STARTING_NOTICE: Final = 1.0
"""Seconds after which those who wait for a database that was asleep are told that it is starting."""
DOUBT_PAUSE: Final = 1.0
"""Seconds: more losses within this time raise no new doubts about the idle connections."""
RATE_WINDOW: Final = 1.0
"""Seconds over which the pace of the queue is measured."""

RETURNABLE: Final = frozenset({LEASED, RESETTING, CHECKING})
ENDED: Final = frozenset({CLOSING, CLOSED})
UNCOUNTED: Final = frozenset({CONNECTING, CLOSED})

_ids = count(1)


class PoolSettings:
    """Sizes, and times in seconds. 0 means "no limit" for every time but `lifetime` (0: each connection serves once)."""

    __slots__ = (
        "check_delay",
        "idle_after",
        "idle_timeout",
        "lifetime",
        "lifetime_jitter",
        "login_retry",
        "max_waiting",
        "min_size",
        "query_wait",
        "query_wait_name",
        "query_wait_notify",
        "reserve_after",
        "reserve_size",
        "rotates",
        "size",
    )

    def __init__(
        self,
        size: int = 20,
        min_size: int = 0,
        query_wait: float = 120.0,
        query_wait_notify: float = 5.0,
        idle_timeout: float = 600.0,
        lifetime: float = 3600.0,
        lifetime_jitter: float = 0.0,
        login_retry: float = 1.0,
        check_delay: float = 30.0,
        reserve_size: int = 0,
        reserve_after: float = 5.0,
        idle_after: float = 0.0,
        max_waiting: int = 0,
        query_wait_name: str = "timeouts.query_wait",
        rotates: bool = False,
    ) -> None:
        self.size = size
        self.reserve_size = reserve_size
        """More connections than `size`, for as long as somebody has waited for `reserve_after`. They are closed when nobody waits."""
        self.reserve_after = reserve_after
        self.idle_after = idle_after
        """A pool that nobody has used for this long goes to sleep: no connections, no minimum."""
        self.max_waiting = max_waiting
        """So many may wait; whoever comes then is refused at once. 0: no limit."""
        self.min_size = min_size
        """Kept open while there are clients (`Pool.clients`); without clients there is no minimum."""
        self.query_wait = query_wait
        self.query_wait_name = query_wait_name
        """The setting that `query_wait` comes from, for messages."""
        self.query_wait_notify = query_wait_notify
        self.idle_timeout = idle_timeout
        self.lifetime = lifetime
        self.lifetime_jitter = lifetime_jitter
        """Each connection's lifetime is shortened by a random part of this, so that they do not all end at once."""
        self.login_retry = login_retry
        self.check_delay = check_delay
        self.rotates = rotates
        """First in, first out: each lease gets the connection that has been idle for longest. For development."""


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


@attrs.frozen
class PoolStatistics:
    """A pool at one moment. Connections are counted, times are in seconds, totals are since the pool was made."""

    idle: int
    leased: int
    resetting: int
    """Being reset, recovered or checked."""
    connecting: int
    closing: int
    maintenance: int
    """How many of all of them count in the maintenance lane."""
    waiting: int
    max_wait: float
    """How long the one at the head of the queue has waited by now."""
    clients: int
    size: int
    paused: bool
    checkouts: int
    waits: int
    """How many checkouts had to wait."""
    total_wait: float
    timeouts: int
    connects: int
    connect_failures: int
    losses: int
    """Connections that broke, whatever they were doing."""
    last_error: str
    """Why the last connect failed; "" when one has succeeded since."""
    last_loss: str
    """Why a connection broke last."""


class Pool:
    """The interchangeable server connections of one (database, server user), and the queue for them."""

    __slots__ = (
        "_active_at",
        "_capped",
        "_checking",
        "_closing",
        "_dispatching",
        "_failing",
        "_idle",
        "_parked",
        "_plain",
        "_rate",
        "_refusal",
        "_refused",
        "_resetting",
        "_retry_at",
        "_returned",
        "_rng",
        "_stale",
        "_swept_at",
        "_waiting",
        "_window",
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
        "io",
        "is_asleep",
        "is_closed",
        "is_paused",
        "last_error",
        "last_loss",
        "losses",
        "name",
        "quotas",
        "settings",
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
        self._rng = rng or random.Random()
        self._idle: list[Leasable] = []
        self._stale: list[Leasable] = []
        """Idle for so long that they are checked before use. Older than all of `_idle`."""
        self._checking: int = 0
        self._resetting: int = 0
        self._closing: list[int] = [0, 0]
        self._waiting: tuple[OrderedDict[Waiter, None], OrderedDict[Waiter, None]] = (OrderedDict(), OrderedDict())
        self._parked: OrderedDict[Waiter, Party] = OrderedDict()
        self._capped: bool = False
        self.is_asleep: bool = False
        """Nobody has used it for `idle_after`; who comes now wakes it."""
        self._active_at: float = clock.now
        self._swept_at: float = clock.now
        self._window: tuple[float, int] = (clock.now, 0)
        self._rate: float = 0.0
        self._refused: deque[tuple[Waiter, DualpoolError]] = deque()
        self._returned: deque[Leasable] = deque()
        self._dispatching: bool = False
        self._failing: bool = False
        self._plain: bool = False
        self._retry_at: float = -math.inf
        self._refusal: DualpoolError | None = None
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
            f"<Pool {self.name}: {len(self._idle) + len(self._stale)} idle, {self._count_leased()} leased, "
            f"{sum(self.connecting)} connecting, {self._count_waiting()} waiting>"
        )

    # ------------------------------------------------------------------------------------------------ every transaction

    def take_nowait(self, lane: int) -> Leasable | None:
        """Take an idle connection, or None: then `enqueue`. The caller must `give_back` it, or report it `lost`. Nobody is overtaken."""
        if self._plain and lane == APPLICATION:
            if not self._idle:
                return None
            conn = self._idle.pop()
            conn.state = LEASED
            self.checkouts += 1
            return conn
        return self._take_long_way(lane)

    def give_back(self, conn: Leasable) -> None:
        """The lease of `conn` is over, and it may serve another client; or its reset or check has ended well.

        Afterwards it is somebody else's, or idle, or being closed. A connection that was lost meanwhile is ignored.
        """
        now = self.clock.now
        if self._plain and conn.state == LEASED and conn.lane == APPLICATION and conn.expires_at > now:
            conn.state = IDLE
            conn.idle_since = now
            self._idle.append(conn)
            return
        self._give_back_long_way(conn)

    def choose_path(self) -> None:
        """Decide which way the two calls above go. To be called after every change that matters to it; the budget does too."""
        self._plain = not (
            self._waiting[APPLICATION]
            or self._waiting[MAINTENANCE]
            or self.is_paused
            or self.is_closed
            or self._capped
            or self.settings.rotates
            or self.budget.pressed
            or self._has_surplus()
        )

    def party(self, name: str, cap: int) -> Party:
        """A new party for clients of this pool. From now on every lease goes the long way, where it is counted."""
        self._capped = True
        self.choose_path()
        return Party(name, cap)

    # ------------------------------------------------------------------------------------------------ the queue

    def enqueue(self, waiter: Waiter) -> None:
        """Queue up. `offer` or `fail` will be called once, perhaps before this returns; unless `withdraw` is called first."""
        now = self.clock.now
        waiter.enqueued_at = now
        if not waiter.deadline:
            waiter.deadline = now + (self.settings.query_wait or math.inf)
        if self.is_closed:
            self._refuse(waiter, self._closed_error())
        elif waiter.lane == APPLICATION and self._is_queue_full():
            self._refuse(waiter, self._queue_full_error())
        elif self._line_up(waiter):
            self._dispatch()

    def withdraw(self, waiter: Waiter) -> bool:
        """`waiter` wants nothing any more. False if it was not in the queue (any more)."""
        if not self._take_out(waiter):
            return False
        self._dispatch()
        return True

    def give_up(self, waited: float, limit: str = "", party: Party | None = None) -> CheckoutTimeout:
        """Count a wait of `waited` seconds that was in vain. Returns what to tell the one who waited. `limit`: as `Waiter.limit`."""
        self.timeouts += 1
        if party is not None:
            cause, hint = f"{party.name} has {party.active} at work or in the queue already", "Use fewer connections at once."
        elif self.last_error:
            cause, hint = f"the last connect failed: {self.last_error}", "See that the server is up and reachable."
        elif self.is_paused:
            cause, hint = "the pool is paused", "RESUME ends the pause."
        elif not self._count_up() and any(self.connecting):
            cause, hint = "the server has not answered the connect yet", "See that the server is up and reachable."
        else:
            cause, hint = self._what_is_full()
            cause += self._outlook()
        limit = limit or f"{self.settings.query_wait_name} is {self.settings.query_wait:g} s"
        message = f'pool "{self.name}": waited {waited:.1f} s for a server connection ({limit}): {cause}'
        return CheckoutTimeout(message, hint=hint)

    def _what_is_full(self) -> tuple[str, str]:
        budget = self.budget
        if self.counted[APPLICATION] >= self.settings.size:
            return f"all {self.settings.size} are taken (pool_size)", "Use shorter transactions, or raise pool_size."
        for bound in budget.blocking(self, APPLICATION):
            if isinstance(bound, Quota):
                return f"all {bound.limit} are taken ({bound.name})", f"Use shorter transactions, or raise {bound.name}."
        cause = f'all {budget.limit} connections of backend "{budget.name}" are taken (budget)'
        if budget.is_full_elsewhere:
            return f"{cause}; the server has no room for more", "Others use the server too: lower the budget, or raise its max_connections."
        return cause, "Use shorter transactions, or raise the budget if the server allows more connections."

    def _outlook(self) -> str:
        """How long the next one will have to wait, as things go now; "" if nothing goes."""
        return f"; a new request would wait about {(self._count_lined_up() + 1) / self._rate:.1f} s" if self._rate else ""

    def _is_queue_full(self) -> bool:
        limit = self.settings.max_waiting
        # With something idle, and nobody in front, it will not have to wait.
        return 0 < limit <= self._count_lined_up() and bool(self.is_paused or self.has_waiters() or self._parked or not self._idle)

    def _queue_full_error(self) -> QueueFull:
        limit = f"limits.max_waiting_clients is {self.settings.max_waiting}"
        message = f'pool "{self.name}": too many clients wait for a server connection ({limit}){self._outlook()}'
        return QueueFull(message, hint="Try again later.")

    def _refuse(self, waiter: Waiter, error: DualpoolError) -> None:
        """Fail one who just came. Without nesting, should it come again at once with its next request."""
        self._refused.append((waiter, error))
        if len(self._refused) == 1:
            while self._refused:
                first, why = self._refused[0]
                first.fail(why)
                self._refused.popleft()

    def _line_up(self, waiter: Waiter) -> bool:
        """Into the queue, or behind the others of a party that has enough: then False."""
        for party in waiter.parties:
            if party.is_full():
                party.parked[waiter] = None
                self._parked[waiter] = party
                return False
        for party in waiter.parties:
            party.active += 1
        self._waiting[waiter.lane][waiter] = None
        self._plain = False
        return True

    def _take_out(self, waiter: Waiter) -> bool:
        """Out of the queue, wherever it waits. False if it does not. `_dispatch` must follow: others may move up."""
        party = self._parked.pop(waiter, None)
        if party is not None:
            del party.parked[waiter]
            return True
        queue = self._waiting[waiter.lane]
        if waiter not in queue:
            return False
        del queue[waiter]
        self._move_up(waiter.parties)
        return True

    def _move_up(self, parties: tuple[Party, ...]) -> None:
        """One of each party is done, so its next one gets into the queue."""
        for party in parties:
            party.active -= 1
        for party in parties:
            while party.parked and not party.is_full():
                waiter = party.parked.popitem(last=False)[0]
                del self._parked[waiter]
                self._line_up(waiter)

    def _end_lease(self, conn: Leasable) -> None:
        parties = conn.parties
        if parties:
            conn.parties = ()
            self._move_up(parties)

    def has_waiters(self) -> bool:
        """Does anybody wait?"""
        return bool(self._waiting[APPLICATION] or self._waiting[MAINTENANCE])

    def has_demand(self) -> bool:
        """Does anybody wait whom a connection would help now?"""
        return self.has_waiters() and not self.is_paused

    def maintenance_waits(self) -> bool:
        """Does anybody wait whom a connection would help now, in the maintenance lane?"""
        return bool(self._waiting[MAINTENANCE]) and not self.is_paused

    def waiters(self, lane: int) -> list[Waiter]:
        """Those who wait in a lane, in the order in which they came."""
        return list(self._waiting[lane])

    def waiting_since(self) -> float:
        """When the one who has waited longest came; infinite if nobody waits."""
        return min((next(iter(queue)).enqueued_at for queue in self._waiting if queue), default=math.inf)

    # ------------------------------------------------------------------------------------------------ reports

    def resetting(self, conn: Leasable) -> None:
        """The lease of `conn` is over, but it is not ready for the next: a reset, a recovery or a cancel request has to end first."""
        if conn.state == LEASED:
            conn.state = RESETTING
            self._resetting += 1

    def connected(self, conn: Leasable, lane: int) -> None:
        """A connect has ended well. `conn`, made for this pool, is the pool's from now on."""
        self.connecting[lane] -= 1
        self.connects += 1
        self._retry_at = -math.inf
        self._refusal = None
        self.last_error = ""
        conn.id = next(_ids)
        conn.lane = lane
        conn.created_at = now = self.clock.now
        conn.expires_at = now + self._choose_lifetime()
        if conn.generation == -1:
            conn.generation = self.generation
        stale = conn.generation != self.generation
        self.connections.add(conn)
        if self.is_closed or stale:
            self._discard(conn, "reconnect" if stale else "the pool is closed")
            self._follow_up()
        else:
            self._settle(conn)

    def connect_failed(self, error: DualpoolError, lane: int) -> None:
        """A connect has failed, or was given up. After a pause the next one is started, if anybody still waits."""
        self.connecting[lane] -= 1
        self.counted[lane] -= 1
        self.connect_failures += 1
        self.last_error = str(error)
        self._refusal = error if self._is_permanent(error) else None
        pause = self.settings.login_retry * self._rng.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)
        self._retry_at = self.clock.now + pause
        if is_full(error):
            self.budget.refused(lane, self.clock.now)
        else:
            self.budget.release(lane)
        self._follow_up()

    def lost(self, conn: Leasable, error: Exception | None = None) -> None:
        """`conn` is gone, whatever it was doing. Reported twice, the second time is ignored."""
        if conn.state in UNCOUNTED:
            return
        if conn.state != CLOSING:
            self.losses += 1
            self.last_loss = "" if error is None else str(error)
            self.doubt_all()
        self._forget_state(conn)
        conn.state = CLOSED
        self.connections.discard(conn)
        self.counted[conn.lane] -= 1
        self._end_lease(conn)
        self.budget.release(conn.lane)
        self._dispatch()

    def condemn(self, conn: Leasable, reason: str) -> None:
        """`conn`, which somebody holds or works on, is unfit for anybody else: close it. It counts until the server has let go of it."""
        if conn.state in UNCOUNTED or conn.state == CLOSING:
            return
        self._forget_state(conn)
        self._end_lease(conn)
        self._discard(conn, reason)
        self._follow_up()

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
        self._stale += self._idle
        self._idle.clear()

    # ------------------------------------------------------------------------------------------------ orders

    def reconnect(self) -> None:
        """Replace every connection: idle ones now, the others when they come back."""
        self.generation += 1
        for conn in self.connections:
            conn.expires_at = -math.inf
        self._retry_at = -math.inf
        self._refusal = None
        self._close_idle("reconnect")
        self._follow_up()

    def pause(self) -> None:
        """Hand out nothing more until `resume`; leases go on to their end. Waiting clients' deadlines go on too."""
        self.is_paused = True
        self._follow_up()

    def resume(self) -> None:
        """End a pause."""
        self.is_paused = False
        self._dispatch()

    def is_drained(self) -> bool:
        """True when no client holds a connection, and none is being reset after one."""
        return self._count_leased() == 0 and self._resetting == 0

    def configure(self, settings: PoolSettings) -> None:
        """Other settings, perhaps another size. A surplus is closed: idle ones now, others when they come back."""
        self.settings = settings
        self._close_surplus()
        self._dispatch()

    def close(self) -> None:
        """Refuse everybody from now on. Idle connections are closed now, leased ones when they come back."""
        self.is_closed = True
        self._fail_all(self._closed_error())
        self._close_idle("the pool is closed")
        self._follow_up()

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
        self._swept_at = now
        self._measure(now)
        self._sweep_waiters(now)
        self._sweep_idle(now)
        self._doze(now)
        self._refill()
        self._dispatch()

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        since = self.waiting_since()
        return PoolStatistics(
            idle=len(self._idle) + len(self._stale),
            leased=self._count_leased(),
            resetting=self._resetting + self._checking,
            connecting=sum(self.connecting),
            closing=sum(self._closing),
            maintenance=self.counted[MAINTENANCE],
            waiting=self._count_lined_up(),
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
        return self._stale + self._idle

    def count_closing(self, lane: int) -> int:
        """How many are being closed."""
        return self._closing[lane]

    def evict(self, conn: Leasable, reason: str) -> None:
        """Close one of `idle_connections`."""
        self._forget_state(conn)
        self._discard(conn, reason)

    def grow(self) -> None:
        """Start the checks and connects that somebody waits for, as far as the size, the budget and the pause after a failure allow."""
        while self._stale and self.has_demand() and self._count_coming() < self._count_waiting():
            self._check(self._stale.pop())
        if self._refusal is not None and self.clock.now < self._retry_at and not self._count_up():
            self._fail_all(self._refusal)
        for lane in LANES:
            while self._wants_connect(lane):
                if not self.budget.admit(self, lane):
                    break
                self._start_connect(lane)
            else:
                self.budget.withdraw(self, lane)

    # ------------------------------------------------------------------------------------------------ handing over

    def _take_long_way(self, lane: int) -> Leasable | None:
        if self.is_paused or self.has_waiters() or not self._idle:
            return None
        conn = self._idle.pop(0 if self.settings.rotates else -1)
        conn.state = LEASED
        self.checkouts += 1
        self._move(conn, lane)
        self._follow_up()
        return conn

    def _give_back_long_way(self, conn: Leasable) -> None:
        state = conn.state
        if state in ENDED:
            return
        if state not in RETURNABLE:
            raise RuntimeError(f"{conn!r} was given back, but nobody had it")
        self._forget_state(conn)
        self._end_lease(conn)
        # A check that ended well entitles to one more use, however old the connection is: somebody waits for just this one.
        if conn.expires_at <= (self.clock.now if state != CHECKING else -math.inf):
            self._discard(conn, "its lifetime is over" if conn.generation == self.generation else "reconnect")
            self._dispatch()
        else:
            self._settle(conn)

    def _settle(self, conn: Leasable) -> None:
        """Find the next place for `conn`: after the ones that came before it, when clients give back while they are being served."""
        conn.state = RESETTING
        self._resetting += 1
        self._returned.append(conn)
        self._dispatch()

    def _dispatch(self) -> None:
        """Place what has come back, and serve the queue from what is idle. One loop, never nested.

        If it were, clients that end as soon as they are served would pile up on the stack: give_back, offer, give_back, offer ...
        """
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._returned or (self._idle and self.has_demand()):
                self._place_next()
        finally:
            self._dispatching = False
        self._follow_up()

    def _place_next(self) -> None:
        if self._returned:
            conn = self._returned.popleft()
            if conn.state != RESETTING:
                return  # Lost while it waited for its turn.
            self._resetting -= 1
        else:
            conn = self._idle.pop(0 if self.settings.rotates else -1)
        conn.state = LEASED
        reason = self._reason_to_close(conn)
        conn.used = True
        if not reason:
            if self.has_demand() and self._hand_over(conn):
                return
            if conn.state != LEASED:
                return  # Lost while it was offered.
            reason = self._reason_not_to_keep(conn)
            if not reason:
                conn.state = IDLE
                conn.idle_since = self.clock.now
                self._idle.append(conn)
                return
        self._discard(conn, reason)

    def _reason_to_close(self, conn: Leasable) -> str:
        if self.is_closed:
            return "the pool is closed"
        if conn.lane == APPLICATION and self._count_application() > self.settings.size + self.settings.reserve_size:
            return "the pool has become smaller"
        if self.budget.pressed and self.budget.wants_back(self, conn):
            return "another pool of the backend needs its place"
        return ""

    def _reason_not_to_keep(self, conn: Leasable) -> str:
        """Nobody took it. May it be idle?"""
        if not self._move(conn, APPLICATION):
            return "the maintenance lane needs it no more"
        return "nobody waits who would need more than pool_size" if self._has_surplus() else ""

    def _hand_over(self, conn: Leasable) -> bool:
        """Offer `conn` to those who wait, in their order, until one takes it. It stays LEASED if nobody does."""
        for lane in LANES:
            queue = self._waiting[lane]
            if queue and self._move(conn, lane):
                while queue:
                    waiter = queue.popitem(last=False)[0]
                    conn.parties = waiter.parties
                    if waiter.offer(conn):
                        self._count_wait(waiter)
                        return True
                    self._end_lease(conn)
                    if conn.state != LEASED:
                        return False
        return False

    def _count_wait(self, waiter: Waiter) -> None:
        self.checkouts += 1
        self.waits += 1
        waited = max(0.0, self.clock.now - waiter.enqueued_at)
        self.total_wait += waited
        self.counters.waited(waited)

    def _move(self, conn: Leasable, lane: int) -> bool:
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

    def _check(self, conn: Leasable) -> None:
        conn.state = CHECKING
        self._checking += 1
        self.io.check(conn)

    def _discard(self, conn: Leasable, reason: str) -> None:
        """Close `conn`, which is in no list any more."""
        conn.state = CLOSING
        self._closing[conn.lane] += 1
        self.budget.closing[conn.lane] += 1
        self.io.close(conn, reason)

    def _forget_state(self, conn: Leasable) -> None:
        """Take `conn` out of whatever list or count its state has put it in."""
        state = conn.state
        if state == IDLE:
            (self._stale if conn in self._stale else self._idle).remove(conn)
        elif state == RESETTING:
            self._resetting -= 1
        elif state == CHECKING:
            self._checking -= 1
        elif state == CLOSING:
            self._closing[conn.lane] -= 1
            self.budget.closing[conn.lane] -= 1

    def _follow_up(self) -> None:
        """What every change may make necessary: other pools may have room now, this one may need more, the paths may have changed."""
        self.budget.serve()
        self.grow()
        self.choose_path()

    # ------------------------------------------------------------------------------------------------ connecting

    def _wants_connect(self, lane: int) -> bool:
        """Would one more connect in `lane` serve somebody, as far as the pool alone can tell?"""
        queue = self._waiting[lane]
        if not queue or self.is_paused or self.is_closed or self._count_coming() >= self._count_waiting():
            return False
        if self.clock.now < self._retry_at or not self._may_connect():
            return False
        if lane == APPLICATION:
            return self.counted[APPLICATION] < self._allowed_size()
        # The size binds the application. Without a limit of the budget, maintenance gets the reserve on top of the size.
        unbound = self.budget.limit is not None or sum(self.counted) < self.settings.size + self.budget.reserve
        return unbound and self.connecting[MAINTENANCE] < len(queue)

    def _allowed_size(self) -> int:
        """The size; and the pool's own reserve, if the first in the queue had waited too long when that was looked at last."""
        settings = self.settings
        if settings.reserve_size and self._swept_at - next(iter(self._waiting[APPLICATION])).enqueued_at >= settings.reserve_after:
            return settings.size + settings.reserve_size
        return settings.size

    def _may_connect(self) -> bool:
        """As long as nothing is up, one connect probes for all: a server that wakes up, or refuses, is not stormed."""
        return self._count_up() > 0 or not sum(self.connecting)

    def _start_connect(self, lane: int) -> None:
        """The budget has admitted it."""
        self.connecting[lane] += 1
        self.counted[lane] += 1
        self.budget.make_room()
        self.io.connect(self, lane)

    def _choose_lifetime(self) -> float:
        settings = self.settings
        return settings.lifetime - self._rng.uniform(0, min(settings.lifetime_jitter, settings.lifetime))

    # ------------------------------------------------------------------------------------------------ by time

    def _measure(self, now: float) -> None:
        """The pace of the queue: checkouts in a second."""
        since, count = self._window
        if now - since >= RATE_WINDOW:
            self._rate = (self.checkouts - count) / (now - since)
            self._window = (now, self.checkouts)

    def _sweep_waiters(self, now: float) -> None:
        notify_after = self.settings.query_wait_notify or math.inf
        if self.is_starting():
            notify_after = min(notify_after, STARTING_NOTICE)
        for waiter in [*self._waiting[MAINTENANCE], *self._waiting[APPLICATION], *self._parked]:
            if not self._is_lined_up(waiter):
                continue  # What an earlier one did about its failure has served this one, or ended it.
            waited = now - waiter.enqueued_at
            if now >= waiter.deadline:
                party = self._parked.get(waiter)
                error = self.give_up(waited, waiter.limit, party)
                self._take_out(waiter)
                waiter.fail(error)
            elif waited >= notify_after and not waiter.notified:
                waiter.notified = True
                waiter.notify(waited)

    def _is_lined_up(self, waiter: Waiter) -> bool:
        return waiter in self._waiting[waiter.lane] or waiter in self._parked

    def is_starting(self) -> bool:
        """Does somebody wait for a database that may have been asleep, and has not answered yet?"""
        return self.settings.idle_after > 0 and not self._count_up() and self.has_waiters()

    def _doze(self, now: float) -> None:
        """Go to sleep if nobody has used the pool for long: the database may be one that stops when nobody is connected."""
        idle_after = self.settings.idle_after
        if not idle_after:
            self.is_asleep = False
            return
        idle = self.idle_connections()
        if len(self.connections) - sum(self._closing) > len(idle) or any(self.connecting) or self._count_lined_up():
            self._active_at = now
        else:
            self._active_at = max([self._active_at, *(conn.idle_since for conn in idle)])
        self.is_asleep = now - self._active_at >= idle_after
        if self.is_asleep:
            self._close_idle(f"nobody has used the database for {idle_after:g} s (idle_after)")

    def _sweep_idle(self, now: float) -> None:
        settings = self.settings
        minimum = settings.min_size if self.clients else 0
        idle_timeout = settings.idle_timeout or math.inf
        for conn in self.idle_connections():
            if conn.expires_at <= now:
                self.evict(conn, "its lifetime is over")
            elif now - conn.idle_since >= idle_timeout and self._count_up() > minimum:
                self.evict(conn, "idle for too long")
        # The idle stack is in the order of idle_since.
        check_delay = settings.check_delay or math.inf
        fresh_from = next((i for i, conn in enumerate(self._idle) if now - conn.idle_since < check_delay), len(self._idle))
        self._stale += self._idle[:fresh_from]
        del self._idle[:fresh_from]

    def _refill(self) -> None:
        """Connect up to the minimum; only while there are clients, and only with room that nobody waits for."""
        if not self.clients or self.is_asleep or self.is_paused or self.is_closed or self.clock.now < self._retry_at:
            return
        minimum = min(self.settings.min_size, self.settings.size)
        while self._count_up() + sum(self.connecting) < minimum and self.counted[APPLICATION] < self.settings.size and self._may_connect():
            if not self.budget.admit(self, APPLICATION, claim=False):
                return
            self._start_connect(APPLICATION)

    # ------------------------------------------------------------------------------------------------ helpers

    def _count_up(self) -> int:
        return len(self.connections) - sum(self._closing)

    def _count_waiting(self) -> int:
        return len(self._waiting[APPLICATION]) + len(self._waiting[MAINTENANCE])

    def _count_lined_up(self) -> int:
        return self._count_waiting() + len(self._parked)

    def _count_coming(self) -> int:
        """How many connections are on their way to those who wait."""
        return sum(self.connecting) + self._checking

    def _count_leased(self) -> int:
        others = len(self._idle) + len(self._stale) + self._resetting + self._checking + sum(self._closing)
        return len(self.connections) - others

    def _count_application(self) -> int:
        return self.counted[APPLICATION] - self._closing[APPLICATION]

    def _has_surplus(self) -> bool:
        return self._count_application() > self.settings.size

    def _close_idle(self, reason: str) -> None:
        for conn in self.idle_connections():
            self.evict(conn, reason)

    def _close_surplus(self) -> None:
        for conn in self.idle_connections():
            if self._has_surplus():
                self.evict(conn, "the pool has become smaller")

    def _fail_all(self, error: DualpoolError) -> None:
        """Fail everybody who waits; those too who queue up again at once with their next request, without nesting."""
        if self._failing:
            return
        self._failing = True
        try:
            while queue := self._waiting[MAINTENANCE] or self._waiting[APPLICATION] or self._parked:
                waiter = next(iter(queue))
                self._take_out(waiter)
                waiter.fail(error)
        finally:
            self._failing = False

    def _closed_error(self) -> PoolClosed:
        return PoolClosed(
            f'pool "{self.name}" is closed', hint="dualpool is shutting down, or the database was disabled; connect again later."
        )

    @staticmethod
    def _is_permanent(error: DualpoolError) -> bool:
        return error.sqlstate in PERMANENT_SQLSTATES or error.errno in PERMANENT_ERRNOS

    def verify(self) -> None:
        """Check everything that must be true between two calls. For tests."""
        by_state = [0] * 7
        for conn in self.connections:
            assert conn.pool is self
            by_state[conn.state] += 1
        idle = self.idle_connections()
        assert by_state[IDLE] == len(idle) == len(set(idle))
        assert all(conn.state == IDLE and conn.lane == APPLICATION for conn in idle)
        assert by_state[RESETTING] == self._resetting
        assert by_state[CHECKING] == self._checking
        assert by_state[CLOSING] == sum(self._closing)
        assert by_state[LEASED] == self._count_leased()
        assert by_state[0] == by_state[CLOSED] == 0
        for lane in LANES:
            assert self._closing[lane] == sum(1 for conn in self.connections if conn.state == CLOSING and conn.lane == lane)
            assert self.counted[lane] == self.connecting[lane] + sum(1 for conn in self.connections if conn.lane == lane)
            assert self.connecting[lane] >= 0
        self._verify_parties()
        self._verify_service()

    def _verify_parties(self) -> None:
        """What each party has is what its leases and waits are, and nobody is parked for nothing."""
        active: dict[Party, int] = {}
        held = [conn.parties for conn in self.connections]
        held += [waiter.parties for queue in self._waiting for waiter in queue]
        for party in (party for parties in held for party in parties):
            active[party] = active.get(party, 0) + 1
        for waiter, party in self._parked.items():
            assert waiter in party.parked
            assert party.is_full(), "somebody is parked, and there is room"
            active.setdefault(party, 0)
        assert all(party.active == count for party, count in active.items()), "a party has something that nobody has"
        assert all(conn.state in {LEASED, RESETTING} for conn in self.connections if conn.parties), "a lease that is over still counts"

    def _verify_service(self) -> None:
        """Nobody waits for nothing: whatever could be done for those who wait has been done."""
        assert not self._returned
        assert not self._dispatching
        if self.has_demand():
            assert not self._idle, "somebody waits, and a connection is idle"
            assert not self._stale or self._count_coming() >= self._count_waiting(), "somebody waits, and nothing is being checked"
        for lane in LANES:
            if self._wants_connect(lane):
                assert self.budget.claimed(self), "somebody waits, and nobody connects"
        plain = self._plain
        self.choose_path()
        assert self._plain == plain, "give_back and take_nowait go the wrong way"
