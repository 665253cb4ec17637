"""Who waits for a server connection of a pool, in which order, and who has to wait outside the queue. Synchronous, without I/O.

First come, first served, within a lane. Who belongs to a party that has enough is parked: behind the others of its party, in no queue.
"""

import math
from collections import OrderedDict
from itertools import islice
from typing import Final

from dualpool.budget import LANE_ORDER
from dualpool.lease import Leasable, Party, Waiter
from dualpool.protocol import APPLICATION, MAINTENANCE

CHOICE: Final = 16
"""So many of those who wait are looked at for one who accepts a connection."""
MAX_PASSED_OVER: Final = 8
"""So often others are served first."""


class Queue:
    """The queues of both lanes, and those who are parked."""

    __slots__ = ("lanes", "parked")

    def __init__(self) -> None:
        self.lanes: tuple[OrderedDict[Waiter, None], OrderedDict[Waiter, None]] = (OrderedDict(), OrderedDict())
        self.parked: OrderedDict[Waiter, Party] = OrderedDict()

    def add(self, waiter: Waiter) -> bool:
        """Into the queue, or behind the others of a party that has enough: then False."""
        for party in waiter.parties:
            if party.is_full():
                party.parked[waiter] = None
                self.parked[waiter] = party
                return False
        for party in waiter.parties:
            party.active += 1
        self.lanes[waiter.lane][waiter] = None
        return True

    def remove(self, waiter: Waiter) -> bool:
        """Out of it, wherever it waits. False if it does not. Others may have moved up, and must be served."""
        party = self.parked.pop(waiter, None)
        if party is not None:
            del party.parked[waiter]
            return True
        queue = self.lanes[waiter.lane]
        if waiter not in queue:
            return False
        del queue[waiter]
        self.done(waiter.parties)
        return True

    def next_for(self, conn: Leasable, lane: int) -> Waiter:
        """Take the first in a queue; if `conn` is not for it as it is, rather one of those behind it for whom it is."""
        queue = self.lanes[lane]
        first = next(iter(queue))
        chosen = first
        if conn.is_picky() and first.passed_over < MAX_PASSED_OVER:
            chosen = next((waiter for waiter in islice(queue, CHOICE) if waiter.accepts(conn)), first)
            if chosen is not first:
                first.passed_over += 1
        del queue[chosen]
        return chosen

    def done(self, parties: tuple[Party, ...]) -> None:
        """One of each party is done, so its next one gets into the queue."""
        for party in parties:
            party.active -= 1
        for party in parties:
            while party.parked and not party.is_full():
                waiter = party.parked.popitem(last=False)[0]
                del self.parked[waiter]
                self.add(waiter)

    def has_anybody(self) -> bool:
        """Does anybody wait whose turn may come?"""
        return bool(self.lanes[APPLICATION] or self.lanes[MAINTENANCE])

    def first(self) -> Waiter | None:
        """Whose turn it is to be refused, when all are."""
        queue = self.lanes[MAINTENANCE] or self.lanes[APPLICATION] or self.parked
        return next(iter(queue), None)

    def everybody(self) -> list[Waiter]:
        """All, in the order of their turns."""
        return [*self.lanes[MAINTENANCE], *self.lanes[APPLICATION], *self.parked]

    def holds(self, waiter: Waiter) -> bool:
        """Does it still wait?"""
        return waiter in self.lanes[waiter.lane] or waiter in self.parked

    def count(self) -> int:
        """How many wait whose turn may come."""
        return len(self.lanes[APPLICATION]) + len(self.lanes[MAINTENANCE])

    def count_all(self) -> int:
        """How many wait."""
        return self.count() + len(self.parked)

    def since(self) -> float:
        """When the one who has waited longest for its turn came; infinite if nobody waits."""
        return min((next(iter(queue)).enqueued_at for queue in self.lanes if queue), default=math.inf)

    def verify(self, held: list[Leasable]) -> None:
        """What each party has is what its leases and waits are, and nobody is parked for nothing. `held`: what is leased. For tests."""
        active: dict[Party, int] = {}
        having = [conn.parties for conn in held] + [waiter.parties for lane in LANE_ORDER for waiter in self.lanes[lane]]
        for party in (party for parties in having for party in parties):
            active[party] = active.get(party, 0) + 1
        for waiter, party in self.parked.items():
            assert waiter in party.parked
            assert party.is_full(), "somebody is parked, and there is room"
            active.setdefault(party, 0)
        assert all(party.active == count for party, count in active.items()), "a party has something that nobody has"
