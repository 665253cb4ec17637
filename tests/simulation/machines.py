"""The machines behind a backend's hosts: one of them answers, refuses, hangs or is full; it dies, and comes back as something else."""

import random
from typing import Final

from dualpool.config import TargetSessionAttrs
from dualpool.hosts import Host

ANSWERS, REFUSES, HANGS = "answers", "refuses", "hangs"
ROLES: Final = ("read-write", "read-only", "standby")
PLENTY: Final = 99

FITS: Final[dict[TargetSessionAttrs, frozenset[str]]] = {
    "any": frozenset(ROLES),
    "read-write": frozenset(("read-write",)),
    "read-only": frozenset(("read-only", "standby")),
    "primary": frozenset(("read-write", "read-only")),
    "standby": frozenset(("standby",)),
    "prefer-standby": frozenset(ROLES),
}
"""From libpq's documentation, so that dualpool's own table is not asked whether it is right."""
TAKES_WRITES: Final = frozenset(("read-write", "primary"))
"""With these targets a server that refuses a write is asked what it is."""


class Machine:
    """What a host is now."""

    __slots__ = ("found_out", "has_lost_power", "host", "role", "roles", "room", "state", "unchanged_since")

    def __init__(self, host: Host, rng: random.Random, roles: tuple[str, ...] = ROLES) -> None:
        """`roles`: what it can be."""
        self.host = host
        self.roles = roles
        self.role = rng.choice(roles)
        self.state = ANSWERS
        self.room = PLENTY
        """How many connections it has for dualpool."""
        self.has_lost_power = False
        """It hangs, and knows nothing of its connections when it is back."""
        self.unchanged_since = 0.0
        """When any of this has changed last: the step, or the time."""
        self.found_out = False
        """It has become something else without a restart, and dualpool has been told so when it asked."""

    def is_fit(self, target: TargetSessionAttrs) -> bool:
        """Does it answer, has it room, and is it what is looked for first?"""
        roles = FITS["standby" if target == "prefer-standby" else target]
        return self.state == ANSWERS and self.room == PLENTY and self.role in roles

    def take_role(self, role: str) -> None:
        """It is something else from now on."""
        self.role = role
        self.found_out = False

    def crash(self, rng: random.Random) -> None:
        """It is gone. Whether its connections end with it, or hang as it does, is `has_lost_power`."""
        self.has_lost_power = rng.random() < 0.3
        self.state = HANGS if self.has_lost_power else REFUSES

    def come_back(self, rng: random.Random) -> None:
        """It answers again: after a crash as a replica, perhaps."""
        if self.state == REFUSES or self.has_lost_power:
            self.take_role(rng.choice(self.roles))
        self.state = ANSWERS
        self.has_lost_power = False

    def __repr__(self) -> str:
        return f"{self.host[0]} ({self.role}, {self.state}, room for {self.room})"


def make_fit(machine: Machine, target: TargetSessionAttrs) -> None:
    """Let it be what is looked for."""
    machine.state = ANSWERS
    machine.has_lost_power = False
    machine.room = PLENTY
    if target != "any":
        fitting = FITS["standby" if target == "prefer-standby" else target]
        machine.take_role(next(role for role in machine.roles if role in fitting))
