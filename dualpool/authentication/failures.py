"""Logins that fail slow the next ones from the same address: guessing passwords takes longer, everybody else notices nothing."""

import ipaddress
from collections import OrderedDict
from typing import Final

from dualpool.authentication.hba import Address, plain

FREE: Final = 3
"""So many logins of an address may fail before the next one waits."""
FIRST_DELAY: Final = 0.1
"""Seconds; doubled by each failure."""
FORGOTTEN_AFTER: Final = 60.0
"""Seconds without a failure after which an address starts anew."""
MAX_ADDRESSES: Final = 10_000
IPV6_NEIGHBOURS: Final = 64
"""Bits of an IPv6 address that tell who it is: whoever has one has all of its network."""

Key = int


class FailedLogins:
    """How many logins from each address have failed of late. `longest`: the longest delay in seconds; 0 means none at all.

    The table is bounded: of too many addresses the one that failed the longest ago is forgotten.
    """

    def __init__(self, longest: float, size: int = MAX_ADDRESSES) -> None:
        self.longest = longest
        self._size = size
        self._failed: OrderedDict[tuple[int, Key], tuple[int, float]] = OrderedDict()

    def delay(self, address: Address | None, now: float) -> float:
        """Seconds that a login from `address` has to wait before it is looked at. A Unix socket (None) never waits."""
        count, last = self._failed.get(key_of(address), (0, now)) if address is not None else (0, now)
        if count < FREE or now - last > FORGOTTEN_AFTER:
            return 0.0
        return float(min(self.longest, FIRST_DELAY * 2 ** min(count - FREE, 30)))

    def failed(self, address: Address | None, now: float) -> None:
        """A login from `address` was refused for its password, user or certificate."""
        if address is None or not self.longest:
            return
        key = key_of(address)
        count, last = self._failed.pop(key, (0, now))
        self._failed[key] = (1 if now - last > FORGOTTEN_AFTER else count + 1, now)
        if len(self._failed) > self._size:
            self._failed.popitem(last=False)

    def succeeded(self, address: Address | None) -> None:
        """Somebody at `address` knows a password, so the failures there are mistakes."""
        if address is not None:
            self._failed.pop(key_of(address), None)

    def __len__(self) -> int:
        return len(self._failed)


def key_of(address: Address) -> tuple[int, Key]:
    """What addresses have in common that belong to one machine."""
    address = plain(address)
    number = int(address)
    return address.version, number >> IPV6_NEIGHBOURS if isinstance(address, ipaddress.IPv6Address) else number
