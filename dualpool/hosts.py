"""Which of a backend's hosts a connect goes to, in which order; and the addresses that their names mean now."""

import socket
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic
from typing import Any, Final

import trio

from dualpool.budget import is_full
from dualpool.config import LoadBalance, TargetSessionAttrs
from dualpool.errors import ConnectFailed

DEMOTED_SECONDS: Final = 10.0
"""A host that failed is tried last for so long."""
MAX_NAMES: Final = 1000

Host = tuple[str, int]
Address = tuple[int, int, int, Any]
"""Family, kind, protocol and address, as a socket wants them."""
Lookup = Callable[[str, int], Awaitable[list[Address]]]

ROLES: Final[dict[TargetSessionAttrs, frozenset[str]]] = {
    "any": frozenset(("read-write", "read-only", "standby")),
    "read-write": frozenset(("read-write",)),
    "read-only": frozenset(("read-only", "standby")),
    "primary": frozenset(("read-write", "read-only")),
    "standby": frozenset(("standby",)),
    "prefer-standby": frozenset(("standby",)),
}
"""What a server may be (`Engine.role`) for each `target_session_attrs`."""


def rounds(target: TargetSessionAttrs) -> tuple[frozenset[str], ...]:
    """The roles to look for among all hosts; then, if there is none, the next."""
    return (ROLES[target], ROLES["any"]) if target == "prefer-standby" else (ROLES[target],)


class Hosts:
    """The hosts of one backend. `now` is `time.monotonic()`."""

    def __init__(self, hosts: tuple[Host, ...], load_balance: LoadBalance) -> None:
        self._hosts = hosts
        self._turning = load_balance == "round-robin"
        self._next = 0
        self._demoted_until: dict[Host, float] = {}

    def order(self, now: float) -> list[Host]:
        """In which order to try them: those that failed lately come last."""
        hosts = [*self._hosts[self._next :], *self._hosts[: self._next]]
        if self._turning:
            self._next = (self._next + 1) % len(self._hosts)
        return sorted(hosts, key=lambda host: self._demoted_until.get(host, 0.0) > now)

    def failed(self, host: Host, now: float) -> None:
        """It did not answer, or is not what is looked for."""
        self._demoted_until[host] = now + DEMOTED_SECONDS

    def answered(self, host: Host) -> None:
        """It is what is looked for."""
        self._demoted_until.pop(host, None)


class Search:
    """One connect's way through the hosts, until one is what is looked for: each of them is to be tried, and `failed` or `answered`."""

    def __init__(self, hosts: Hosts, target: TargetSessionAttrs, clock: Callable[[], float] = monotonic) -> None:
        self._hosts = hosts
        self._target = target
        self._clock = clock
        self._roles = ROLES["any"]
        self.error = ConnectFailed("there are no hosts")
        """Why all have failed. That one of them has no room for more is what the budget must know, whatever the others say."""

    @property
    def asks_role(self) -> bool:
        """Must a server say what it is?"""
        return self._target != "any"

    def __iter__(self) -> Iterator[Host]:
        for roles in rounds(self._target):
            self._roles = roles
            yield from self._hosts.order(self._clock())

    def judge(self, host: Host, role: str) -> None:
        """Raises ConnectFailed if `role` is not what is looked for now."""
        if role not in self._roles:
            raise ConnectFailed(
                f"{host[0]}:{host[1]} is {role}, but target_session_attrs asks for {self._target}",
                hint="dualpool goes on looking for such a server among the hosts.",
            )

    def failed(self, host: Host, error: ConnectFailed) -> None:
        """It did not answer, or is not what is looked for."""
        self._hosts.failed(host, self._clock())
        if is_full(error) or not is_full(self.error):
            self.error = error

    def answered(self, host: Host) -> None:
        """It is what is looked for."""
        self._hosts.answered(host)


class Resolver:
    """Names to addresses, kept for `ttl` seconds. When a name cannot be looked up, what it meant last still serves."""

    def __init__(self, ttl: float, lookup: Lookup | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._ttl = ttl
        self._lookup = lookup or look_up
        self._clock = clock
        self._known: dict[Host, tuple[float, list[Address]]] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """At least one address. Raises OSError."""
        key = (host, port)
        known = self._known.get(key)
        if known is not None and self._clock() < known[0]:
            return known[1]
        try:
            found = await self._lookup(host, port)
        except OSError:
            if known is None:
                raise
            found = known[1]
        if len(self._known) >= MAX_NAMES:
            self._known.clear()
        self._known[key] = (self._clock() + self._ttl, found)
        return found

    def forget(self, host: str, port: int) -> None:
        """None of the addresses answers: look the name up again at the next connect, but keep them if that fails."""
        known = self._known.get((host, port))
        if known is not None:
            self._known[host, port] = (0.0, known[1])


async def look_up(host: str, port: int) -> list[Address]:
    """What the system says. Raises OSError."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]
