"""Tracked session state: the settings that a client wants and that a server connection has, and the channels that it listens to.
Shared by both engines.

A `Settings` is a set of (name, statement) pairs, where the statement is the SQL that establishes the setting. Equal sets are one and the
same object, so that the question of every checkout, "is this server connection already as this client wants it?", is answered by `is`.
"""

from collections.abc import Callable, Mapping
from typing import Final
from weakref import WeakValueDictionary

MAX_CACHED_DIFFERENCES: Final = 1024
MAX_CACHED_BYTES: Final = 4096
"""Longer differences are not remembered: they, and the settings between which they are, would be kept alive."""


class Settings:
    """Immutable. Make one with `settings()` only."""

    __slots__ = ("__weakref__", "values")

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"<Settings {self.values}>"


_known: "WeakValueDictionary[frozenset[tuple[str, str]], Settings]" = WeakValueDictionary()


def settings(values: Mapping[str, str]) -> Settings:
    """The one `Settings` with these values."""
    if not values:
        return DEFAULTS
    key = frozenset(values.items())
    found = _known.get(key)
    if found is None:
        found = Settings(dict(values))
        _known[key] = found
    return found


DEFAULTS: Final = Settings({})
"""Nothing differs from what the server gives a new session."""


class Differences:
    """What must be sent to bring a session from one `Settings` to another, remembered for the pairs that were asked for.

    `render(gone, wanted)` is the engine's: the names to reset, and the statements to run, as bytes ready to send.
    """

    __slots__ = ("_cache", "_render")

    def __init__(self, render: Callable[[list[str], dict[str, str]], bytes]) -> None:
        self._render = render
        self._cache: dict[tuple[Settings, Settings], bytes] = {}

    def between(self, actual: Settings, wanted: Settings) -> bytes:
        """The bytes that turn `actual` into `wanted`."""
        pair = (actual, wanted)
        found = self._cache.get(pair)
        if found is None:
            have, want = actual.values, wanted.values
            found = self._render(
                [name for name in have if name not in want],
                {name: sql for name, sql in want.items() if have.get(name) != sql},
            )
            if len(found) <= MAX_CACHED_BYTES:
                if len(self._cache) >= MAX_CACHED_DIFFERENCES:
                    self._cache.clear()
                self._cache[pair] = found
        return found


class Subscriptions:
    """The channels that one client listens to through a connection that it shares with others (listening.py).

    A channel's way: `ready` (the shared connection listens to it), `tentative` (the client's LISTEN has run), `active` (it is committed).
    """

    __slots__ = ("active", "mail", "mail_bytes", "own", "ready", "tentative")

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.tentative: set[str] = set()
        self.ready: set[str] = set()
        self.own: frozenset[str] = frozenset()
        """What the client's own session at the server listens to: that tells it of these itself."""
        self.mail: list[tuple[str, bytes]] = []
        """What has come while the client was in a transaction: channel and message; `mail_bytes` of them."""
        self.mail_bytes = 0

    def hears(self, channel: str) -> bool:
        """Does the client listen to it, or may it be about to, and nobody else tells it?"""
        return (channel in self.active or channel in self.tentative) and channel not in self.own

    def keep(self, channel: str, message: bytes) -> None:
        """The client is in a transaction."""
        self.mail.append((channel, message))
        self.mail_bytes += len(message)

    def take_mail(self) -> bytes:
        """What the client is to be told now that its transaction is over."""
        told = b"".join(message for channel, message in self.mail if channel in self.active)
        self.mail = []
        self.mail_bytes = 0
        return told
