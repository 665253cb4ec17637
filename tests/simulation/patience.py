"""Nothing takes longer than it may."""

import math
from collections.abc import Hashable, Mapping
from typing import Final

from tests.simulation.peers import Violation

CHECKS: Final = 60
"""So many steps later somebody who was to be given up must have been: a jump of time reaches the tasks one after the other."""


class Patience:
    """Knows what is under way since when."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, list[float]] = {}
        """When it was seen first, and in how many checks it was overdue."""

    def since(self, key: Hashable) -> float:
        """When it was seen first, if it is under way."""
        return self._under_way.get(key, [math.inf])[0]

    def check(self, now: float, under_way: Mapping[Hashable, float]) -> None:
        """`under_way`: all that is, with the seconds that it may take. Raises Violation."""
        known = {key: self._under_way.get(key, [now, 0]) for key in under_way}
        for key, seconds in under_way.items():
            since = known[key]
            if now - since[0] > seconds:
                since[1] += 1
                if since[1] > CHECKS:
                    raise Violation(f"{key} has been under way for {now - since[0]:.1f} s, and may take {seconds:g} s")
        self._under_way = known
