"""How many server connections dualpool may hold to one backend, shared by the backend's pools.

What counts: every connection from the moment its connect is admitted until its socket is gone. One that is being closed still counts,
because the server counts it too; so making room means closing an idle connection and waiting until `release` says that it is gone.

Two lanes. `application` has `limit - reserve` places, `maintenance` may use the whole limit. A connection counts in the lane that uses it
now, so the reserve is empty whenever maintenance does nothing, however its connections were born.

A pool that finds no room leaves a claim: one for each lane, and after each grant it queues again, so pools take turns. Claims are served
when room appears, of those who have less than their share first. To make room, an idle connection of any pool is closed, the one nearest
to the end of its lifetime first. Where nothing is idle, a pool that has more than its share gives up the next connection that comes back
to it, even though clients of its own wait: else one busy pool could keep the others out for ever. A share is the application's places
divided by the pools that want any.

Inside the budget there are bounds for some of its pools: a `Quota` is what `max_connections` of a database or of a user means. A claim is
blocked by the budget, by quotas, or by both, and only an idle connection inside what blocks it makes room for it.

The server may be fuller than the limit says, because others are connected too. When it answers that it has no room (`refused`), the limit
is lowered to what we hold, and raised again in steps: whoever waits goes on waiting, and the reserve stays free for maintenance.
"""

import math
from typing import TYPE_CHECKING, Final

from dualpool.errors import DualpoolError
from dualpool.lease import WANTED_ELSEWHERE, Leasable
from dualpool.protocol import APPLICATION, MAINTENANCE

if TYPE_CHECKING:
    from dualpool.pool import Pool

LANE_ORDER: Final = (MAINTENANCE, APPLICATION)
"""The order in which lanes are served."""
UNLIMITED: Final = 1 << 30
RAISE_AFTER: Final = 1.0
"""Seconds from a server's refusal to the first step back to the configured limit, and from step to step."""
RAISE_PART: Final = 4
"""Each step is this part of what is allowed now, and at least one connection."""


class Bound:
    """So many connections, of some pools: a whole budget, or a quota."""

    __slots__ = ("name", "pools")

    def __init__(self, name: str) -> None:
        self.name = name
        self.pools: list[Pool] = []

    def has_room(self, lane: int) -> bool:
        """May one more connection be counted in `lane`?"""
        raise NotImplementedError

    def places(self) -> int:
        """What the application may take; large if there is no limit."""
        raise NotImplementedError

    def closing_count(self) -> int:
        """Connections that are being closed, whose places will be free."""
        raise NotImplementedError

    def nearest_to_its_end(self) -> Leasable | None:
        """The idle connection whose loss costs least."""
        idle = [conn for pool in self.pools for conn in pool.idle_connections()]
        return min(idle, key=_end_of_life, default=None)

    def share(self, budget: "Budget") -> int:
        """What each pool that wants connections is owed."""
        wanting = sum(1 for pool in self.pools if any(pool.counted) or budget.claimed(pool))
        return self.places() // max(1, wanting)


class Quota(Bound):
    """`max_connections` of a database or of a user: over several pools of one backend. It binds the application, not maintenance."""

    __slots__ = ("limit",)

    def __init__(self, name: str, limit: int) -> None:
        """`name`: the setting, for messages."""
        super().__init__(name)
        self.limit = limit

    def counted(self) -> int:
        """The application's connections, those that are being closed included."""
        return sum(pool.counted[APPLICATION] for pool in self.pools)

    def has_room(self, lane: int) -> bool:
        return lane == MAINTENANCE or self.counted() < self.limit

    def places(self) -> int:
        return self.limit

    def closing_count(self) -> int:
        return sum(pool.count_closing(APPLICATION) for pool in self.pools)

    def is_exceeded(self) -> bool:
        """Would there be too many even when those that are being closed are gone?"""
        return self.counted() - self.closing_count() > self.limit


class Budget(Bound):
    """The connections of one backend: counted, admitted, and taken from one pool for another. Pools call it, and it them."""

    __slots__ = (
        "_ceiling",
        "_claims",
        "_configured",
        "_raise_at",
        "_reserve",
        "closing",
        "counted",
        "doubted_at",
        "limit",
        "pressed",
        "quotas",
    )

    def __init__(self, name: str = "", limit: int | None = None, reserve: int = 0) -> None:
        """`limit`: None means no limit. Where the server has yet to say it, start with 1: a probe that may ask; then `set_limit`."""
        super().__init__(name)
        self.limit = limit
        """What holds now: as set, or less while the server has no room for that many."""
        self._configured = limit
        self._ceiling: int | None = None
        self._raise_at: float = 0.0
        self._reserve = reserve
        self.quotas: list[Quota] = []
        self.doubted_at: float = -math.inf
        """When connections were last found broken; those that were idle then are checked before they are used."""
        self.counted: list[int] = [0, 0]
        """Connections per lane, CLOSING ones included."""
        self.closing: list[int] = [0, 0]
        self._claims: tuple[dict[Pool, None], dict[Pool, None]] = ({}, {})
        self.pressed: bool = False
        """Somebody waits for room, or a limit was lowered: pools must ask `wants_back` before they keep a connection."""

    @property
    def total(self) -> int:
        """Every connection that counts."""
        return self.counted[APPLICATION] + self.counted[MAINTENANCE]

    @property
    def reserve(self) -> int:
        """Places that only maintenance may take: as configured, but one is always left to the application."""
        return self._reserve if self.limit is None else min(self._reserve, self.limit - 1)

    @property
    def configured_limit(self) -> int | None:
        """The limit as it was set."""
        return self._configured

    @property
    def is_full_elsewhere(self) -> bool:
        """Is the limit lowered because the server has no room for more?"""
        return self._ceiling is not None

    def add(self, pool: "Pool", quotas: "tuple[Quota, ...]") -> None:
        """A new pool."""
        self.pools.append(pool)
        self._bind(pool, quotas)

    def bind(self, pool: "Pool", quotas: "tuple[Quota, ...]") -> None:
        """Other quotas for `pool`, or others limits of its own."""
        self._unbind(pool)
        pool.quotas = quotas
        self._bind(pool, quotas)
        self._apply()

    def remove(self, pool: "Pool") -> None:
        """A pool without connections that will not come back."""
        self.pools.remove(pool)
        self._unbind(pool)

    def _bind(self, pool: "Pool", quotas: "tuple[Quota, ...]") -> None:
        for quota in quotas:
            quota.pools.append(pool)
            if quota not in self.quotas:
                self.quotas.append(quota)

    def _unbind(self, pool: "Pool") -> None:
        for quota in pool.quotas:
            quota.pools.remove(pool)
            if not quota.pools:
                self.quotas.remove(quota)

    def has_room(self, lane: int) -> bool:
        """May one more connection be counted in `lane`?"""
        limit = self.limit
        if limit is None:
            return True
        return self.total < limit and (lane == MAINTENANCE or self.counted[APPLICATION] < limit - self.reserve)

    def places(self) -> int:
        return UNLIMITED if self.limit is None else self.limit - self.reserve

    def closing_count(self) -> int:
        return sum(self.closing)

    def blocking(self, pool: "Pool", lane: int) -> list[Bound]:
        """What keeps `pool` from one more connection in `lane`."""
        found: list[Bound] = [] if self.has_room(lane) else [self]
        if lane == APPLICATION:
            found += [quota for quota in pool.quotas if not quota.has_room(lane)]
        return found

    def admit(self, pool: "Pool", lane: int, *, claim: bool = True) -> bool:
        """Count one more connection for `pool`, to be ended by `release`. If there is no room: leave a claim (unless not wanted), False."""
        if not self.blocking(pool, lane):
            self.counted[lane] += 1
            return True
        if claim and pool not in self._claims[lane]:
            self._claims[lane][pool] = None
            self.make_room()
            self._press()
        return False

    def withdraw(self, pool: "Pool", lane: int) -> None:
        """`pool` needs no room any more."""
        if pool in self._claims[lane]:
            del self._claims[lane][pool]
            self._press()

    def move(self, pool: "Pool", source: int, target: int) -> bool:
        """Count a connection in `target` instead of `source`, if there is room for it there. The caller then calls `serve`."""
        full = self.counted[APPLICATION] >= self.places() or any(not quota.has_room(target) for quota in pool.quotas)
        if full and target == APPLICATION:
            return False
        self.counted[source] -= 1
        self.counted[target] += 1
        return True

    def release(self, lane: int) -> None:
        """A connection is gone, or its connect failed."""
        self.counted[lane] -= 1
        self.serve()

    def serve(self) -> None:
        """Give the room that there is to the pools that claimed it, in their order; see that more is made if it is not enough."""
        for lane in LANE_ORDER:
            while (pool := self._next_with_room(lane)) is not None:
                del self._claims[lane][pool]
                # The pool asks again at once, and for as long as it needs more; a new claim of its is the last in the queue.
                pool.grow()
        self.make_room()
        self._press()

    def set_limit(self, limit: int | None, reserve: int | None = None) -> None:
        """A new limit. If more connections exist, idle ones are closed now, others when they come back."""
        self._configured = limit
        if reserve is not None:
            self._reserve = reserve
        self._apply()

    def refused(self, lane: int, now: float) -> None:
        """A connect failed because the server has no room: others hold connections too. Keep to what we hold, for a while."""
        self.counted[lane] -= 1
        self._ceiling = max(1, self.total)
        self._raise_at = now + RAISE_AFTER
        self._apply()

    def sweep(self, now: float) -> None:
        """Do what is due by time alone; call it about once a second."""
        if self._ceiling is not None and now >= self._raise_at:
            # In steps, so that a server that is still full refuses few connects; the next refusal ends the climb.
            self._ceiling += max(1, self._ceiling // RAISE_PART)
            self._raise_at = now + RAISE_AFTER
            if self._configured is None or self._ceiling >= self._configured:
                self._ceiling = None
            self._apply()

    def _apply(self) -> None:
        limits = [limit for limit in (self._configured, self._ceiling) if limit is not None]
        self.limit = min(limits, default=None)
        for pool in self.pools:
            pool.grow()
        self.serve()
        while self._surplus(APPLICATION) and (victim := self.nearest_to_its_end()) is not None:
            victim.pool.evict(victim, "the backend's budget was lowered")
        for quota in self.quotas:
            while quota.is_exceeded() and (victim := quota.nearest_to_its_end()) is not None:
                victim.pool.evict(victim, f"{quota.name} was lowered")
        self._press()

    def wants_back(self, pool: "Pool", conn: Leasable) -> bool:
        """Must `pool` close `conn`, which has just come back to it, because its place is needed more elsewhere?"""
        if self._surplus(conn.lane) or (conn.lane == APPLICATION and any(quota.is_exceeded() for quota in pool.quotas)):
            return True
        # A new connection serves once before it goes to another pool: else two pools could take it from each other for ever.
        if not conn.used and pool.has_demand():
            return False
        short = [bound for bound in (self, *self.quotas) if bound.closing_count() < self._blocked_by(bound)]
        if not short:
            return False
        # Maintenance is served first, so what its pool closed for an application elsewhere would come back to itself.
        for lane in LANE_ORDER[:1] if pool.maintenance_waits() else LANE_ORDER:
            helped = [other for other in self._claims[lane] if other is not pool and self._would_help(conn, other, lane, short)]
            claimant = self._first_of(helped)
            if claimant is not None:
                if pool.has_demand() and not self._is_owed(claimant, pool, lane):
                    return False
                self._go_behind(pool)
                return True
        return False

    def claimed(self, pool: "Pool") -> bool:
        """Does `pool` wait for room?"""
        return pool in self._claims[APPLICATION] or pool in self._claims[MAINTENANCE]

    def verify(self) -> None:
        """Check that the counts are those of the pools and that no claim was forgotten. For tests."""
        for lane in LANE_ORDER:
            counted = closing = 0
            for pool in self.pools:
                counted += pool.counted[lane]
                closing += pool.count_closing(lane)
            assert self.counted[lane] == counted, (lane, self.counted)
            assert self.closing[lane] == closing, (lane, self.closing)
            assert self._next_with_room(lane) is None, "room, and a pool that waits for it"
        if self._claim_count():
            for bound in (self, *self.quotas):
                if self._blocked_by(bound):
                    assert bound.closing_count() or bound.nearest_to_its_end() is None, "a claim, and an idle connection that is kept"
        assert self.pressed == self._is_pressed()

    def _claim_count(self) -> int:
        return len(self._claims[APPLICATION]) + len(self._claims[MAINTENANCE])

    def _blocked_by(self, bound: Bound) -> int:
        """How many claims wait for a place inside `bound`."""
        return sum(bound in self.blocking(pool, lane) for lane in LANE_ORDER for pool in self._claims[lane])

    def _would_help(self, conn: Leasable, claimant: "Pool", lane: int, short: list[Bound]) -> bool:
        """Would the place of `conn` let `claimant` in? `short`: where more is claimed than is being closed."""
        blocking = self.blocking(claimant, lane)
        inside = conn.pool.quotas if conn.lane == APPLICATION else ()
        return all(bound is self or bound in inside for bound in blocking) and any(bound in short for bound in blocking)

    def _surplus(self, lane: int) -> bool:
        """Would there be too many connections even when those that are being closed are gone?"""
        if self.limit is None:
            return False
        application = self.counted[APPLICATION] - self.closing[APPLICATION]
        maintenance = self.counted[MAINTENANCE] - self.closing[MAINTENANCE]
        return application + maintenance > self.limit or (lane == APPLICATION and application > self.limit - self.reserve)

    def _is_pressed(self) -> bool:
        return self._claim_count() > 0 or self._surplus(APPLICATION) or any(quota.is_exceeded() for quota in self.quotas)

    def _press(self) -> None:
        """Tell the pools when `pressed` changes: it decides which way their give_back goes."""
        pressed = self._is_pressed()
        if pressed != self.pressed:
            self.pressed = pressed
            for pool in self.pools:
                pool.choose_path()

    def make_room(self) -> None:
        """Close idle connections until as many are being closed as there are claims, inside whatever the claims are blocked by."""
        if not self._claim_count():
            return
        for bound in (self, *self.quotas):
            while bound.closing_count() < self._blocked_by(bound) and (victim := bound.nearest_to_its_end()) is not None:
                victim.pool.evict(victim, WANTED_ELSEWHERE)

    def _next_with_room(self, lane: int) -> "Pool | None":
        """Whose claim can be served now, if any."""
        claims = self._claims[lane]
        if not claims or not self.has_room(lane):
            return None
        return self._first_of([pool for pool in claims if not self.blocking(pool, lane)])

    def _first_of(self, claimants: "list[Pool]") -> "Pool | None":
        """Whose turn it is: the first who has less than its share, else the first."""
        if len(claimants) < 2:
            return claimants[0] if claimants else None
        least = max(1, self.share(self))
        return next((pool for pool in claimants if sum(pool.counted) < least), claimants[0])

    def _go_behind(self, pool: "Pool") -> None:
        """A pool that gives up a connection lets the others go first."""
        for claims in self._claims:
            if pool in claims:
                del claims[pool]
                claims[pool] = None

    def _is_owed(self, claimant: "Pool", pool: "Pool", lane: int) -> bool:
        """Does `claimant` have less than its share, and `pool` more?

        With more pools than places a share is less than one connection: then the client that has waited longest goes first.
        """
        has = sum(claimant.counted)
        if share := min(bound.share(self) for bound in self.blocking(claimant, lane)):
            return has < share < sum(pool.counted)
        return has == 0 and claimant.queue.since() < pool.queue.since()


def is_full(error: DualpoolError) -> bool:
    """Is this the server's answer that it has no room for any more connection, rather than for one user or one database?

    PostgreSQL answers 53300 to both, and only the sentence differs (postgres.c, InitPostgres). MySQL: 1040, and 1203 for one user.
    """
    if error.sqlstate == "53300":
        return "for role" not in error.message and "for database" not in error.message
    return error.errno == 1040


def _end_of_life(conn: Leasable) -> float:
    return conn.expires_at
