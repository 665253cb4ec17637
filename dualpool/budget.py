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
"""

from fractions import Fraction
from typing import TYPE_CHECKING, Final

from dualpool.lease import Leasable
from dualpool.protocol import APPLICATION, MAINTENANCE

if TYPE_CHECKING:
    from dualpool.pool import Pool

Spec = int | str | dict[str, float]

LANES: Final = (MAINTENANCE, APPLICATION)
"""The order in which lanes are served."""


def resolve_budget(spec: Spec, server_limit: int | None = None) -> int | None:
    """The number that a configured budget means; None if only the server knows it and `server_limit` (what it said) is not there yet.

    `spec`: a number; "auto"; or `{"memory_gb": 1, "per_gb": 25}`, rounded down (hosted databases allow so many connections per GB).
    """
    if spec == "auto":
        return server_limit
    if isinstance(spec, dict):
        # Fractions of the decimal texts: in floating point 0.29 * 100 is under 29.
        return int(Fraction(str(spec["memory_gb"])) * Fraction(str(spec["per_gb"])))
    return int(spec)


class Budget:
    """The connections of one backend: counted, admitted, and taken from one pool for another. Pools call it, and it them."""

    __slots__ = ("_claims", "_reserve", "closing", "counted", "limit", "name", "pools", "pressed")

    def __init__(self, name: str = "", limit: int | None = None, reserve: int = 0) -> None:
        """`limit`: None means no limit. Where the server has yet to say it, start with 1: a probe that may ask; then `set_limit`."""
        self.name = name
        self.limit = limit
        self._reserve = reserve
        self.pools: list[Pool] = []
        self.counted: list[int] = [0, 0]
        """Connections per lane, CLOSING ones included."""
        self.closing: list[int] = [0, 0]
        self._claims: tuple[dict[Pool, None], dict[Pool, None]] = ({}, {})
        self.pressed: bool = False
        """Somebody waits for room, or the limit was lowered: pools must ask `wants_back` before they keep a connection."""

    @property
    def total(self) -> int:
        """Every connection that counts."""
        return self.counted[APPLICATION] + self.counted[MAINTENANCE]

    @property
    def reserve(self) -> int:
        """Places that only maintenance may take: as configured, but one is always left to the application."""
        return self._reserve if self.limit is None else min(self._reserve, self.limit - 1)

    def has_room(self, lane: int) -> bool:
        """May one more connection be counted in `lane`?"""
        limit = self.limit
        if limit is None:
            return True
        return self.total < limit and (lane == MAINTENANCE or self.counted[APPLICATION] < limit - self.reserve)

    def admit(self, pool: "Pool", lane: int, *, claim: bool = True) -> bool:
        """Count one more connection for `pool`, to be ended by `release`. If there is no room: leave a claim (unless not wanted), False."""
        if self.has_room(lane):
            self.counted[lane] += 1
            return True
        if claim and pool not in self._claims[lane]:
            self._claims[lane][pool] = None
            self._evict()
            self._press()
        return False

    def withdraw(self, pool: "Pool", lane: int) -> None:
        """`pool` needs no room any more."""
        if pool in self._claims[lane]:
            del self._claims[lane][pool]
            self._press()

    def move(self, source: int, target: int) -> bool:
        """Count a connection in `target` instead of `source`, if there is room for it there. The caller then calls `serve`."""
        if self.limit is not None and target == APPLICATION and self.counted[APPLICATION] >= self.limit - self.reserve:
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
        for lane in LANES:
            claims = self._claims[lane]
            while self.has_room(lane) and (pool := self._first_claimant(lane)) is not None:
                del claims[pool]
                # The pool asks again at once, and for as long as it needs more; a new claim of its is the last in the queue.
                pool.grow()
        self._evict()
        self._press()

    def set_limit(self, limit: int | None, reserve: int | None = None) -> None:
        """A new limit. If more connections exist, idle ones are closed now, others when they come back."""
        self.limit = limit
        if reserve is not None:
            self._reserve = reserve
        for pool in self.pools:
            pool.grow()
        self.serve()
        while self._surplus(APPLICATION) and (victim := self._nearest_to_its_end()) is not None:
            victim.pool.evict(victim, "the backend's budget was lowered")
        self._press()

    def wants_back(self, pool: "Pool", conn: Leasable) -> bool:
        """Must `pool` close `conn`, which has just come back to it, because its place is needed more elsewhere?"""
        if self._surplus(conn.lane):
            return True
        # A new connection serves once before it goes to another pool: else two pools could take it from each other for ever.
        if not conn.used and pool.has_demand():
            return False
        if sum(self.closing) >= self._claim_count():
            return False
        # Maintenance is served first, so what its pool closed for an application elsewhere would come back to itself.
        for lane in LANES[:1] if pool.maintenance_waits() else LANES:
            claimant = self._first_claimant(lane, besides=pool)
            if claimant is not None:
                if pool.has_demand() and not self._is_owed(claimant, pool):
                    return False
                self._go_behind(pool)
                return True
        return False

    def claimed(self, pool: "Pool") -> bool:
        """Does `pool` wait for room?"""
        return pool in self._claims[APPLICATION] or pool in self._claims[MAINTENANCE]

    def verify(self) -> None:
        """Check that the counts are those of the pools and that no claim was forgotten. For tests."""
        for lane in LANES:
            assert self.counted[lane] == sum(pool.counted[lane] for pool in self.pools), (lane, self.counted)
            assert self.closing[lane] == sum(pool.count_closing(lane) for pool in self.pools), (lane, self.closing)
            assert not (self._claims[lane] and self.has_room(lane)), "room, and a pool that waits for it"
        if self._claim_count():
            assert sum(self.closing) or self._nearest_to_its_end() is None, "a claim, and an idle connection that is kept"
        assert self.pressed == self._is_pressed()

    def _claim_count(self) -> int:
        return len(self._claims[APPLICATION]) + len(self._claims[MAINTENANCE])

    def _surplus(self, lane: int) -> bool:
        """Would there be too many connections even when those that are being closed are gone?"""
        if self.limit is None:
            return False
        application = self.counted[APPLICATION] - self.closing[APPLICATION]
        maintenance = self.counted[MAINTENANCE] - self.closing[MAINTENANCE]
        return application + maintenance > self.limit or (lane == APPLICATION and application > self.limit - self.reserve)

    def _is_pressed(self) -> bool:
        return self._claim_count() > 0 or self._surplus(APPLICATION)

    def _press(self) -> None:
        """Tell the pools when `pressed` changes: it decides which way their give_back goes."""
        pressed = self._is_pressed()
        if pressed != self.pressed:
            self.pressed = pressed
            for pool in self.pools:
                pool.choose_path()

    def _evict(self) -> None:
        """Close idle connections until as many are being closed as there are claims."""
        while sum(self.closing) < self._claim_count() and (victim := self._nearest_to_its_end()) is not None:
            victim.pool.evict(victim, "another pool of the backend needs its place")

    def _nearest_to_its_end(self) -> Leasable | None:
        idle = [conn for pool in self.pools for conn in pool.idle_connections()]
        return min(idle, key=_end_of_life, default=None)

    def _first_claimant(self, lane: int, besides: "Pool | None" = None) -> "Pool | None":
        """Whose turn it is: the first who has less than its share, else the first."""
        claims = self._claims[lane]
        if not claims:
            return None
        least = max(1, self._share())
        others = [pool for pool in claims if pool is not besides]
        return next((pool for pool in others if sum(pool.counted) < least), others[0] if others else None)

    def _go_behind(self, pool: "Pool") -> None:
        """A pool that gives up a connection lets the others go first."""
        for claims in self._claims:
            if pool in claims:
                del claims[pool]
                claims[pool] = None

    def _share(self) -> int:
        assert self.limit is not None
        wanting = sum(1 for pool in self.pools if any(pool.counted) or self.claimed(pool))
        return (self.limit - self.reserve) // max(1, wanting)

    def _is_owed(self, claimant: "Pool", pool: "Pool") -> bool:
        """Does `claimant` have less than its share, and `pool` more?

        With more pools than places a share is less than one connection: then the client that has waited longest goes first.
        """
        has = sum(claimant.counted)
        if share := self._share():
            return has < share < sum(pool.counted)
        return has == 0 and claimant.waiting_since() < pool.waiting_since()


def _end_of_life(conn: Leasable) -> float:
    return conn.expires_at
