"""What is known of a server's database, whichever connection leads there: how sessions begin, and which doubtful texts were found clean.

A text in doubt that was asked about `LEARNT` times, with nothing found, needs no question any more, until something is defined that
statements may run (functions, triggers, views).
"""

from typing import Final

from dualpool.mysql import shapes
from dualpool.mysql.reading import MODES_UNKNOWN, flavour
from dualpool.protocol import LEARNT, VERIFY_LEARN, RelayLimits

MAX_REMEMBERED: Final = 4096
GUILTY: Final = -1
"""Something was found once: it is asked about for ever."""


class Knowledge:
    """See the module. `modes`: the sql_mode that a new session has; `flavour`: whose functions are built in."""

    __slots__ = ("clean", "counted", "flavour", "modes")

    def __init__(self, modes: str = MODES_UNKNOWN, version: str = "") -> None:
        self.modes = modes
        self.flavour = flavour(version)
        self.clean: dict[bytes, int] = {}
        """By `Reading.key`: how often nothing was found."""
        self.counted: dict[tuple[str, bytes], bytes] = {}
        """By schema and table: the column with AUTO_INCREMENT."""

    def is_learnt(self, key: bytes, limits: RelayLimits) -> bool:
        """Need the server not be asked about this text any more?"""
        return key != b"" and limits.verify == VERIFY_LEARN and self.clean.get(key, 0) >= LEARNT

    def found(self, keys: set[bytes], clean: bool) -> None:
        """The server was asked about texts with these keys."""
        if len(self.clean) >= MAX_REMEMBERED:
            self.clean = {key: count for key, count in self.clean.items() if count == GUILTY} if clean else {}
        for key in keys:
            count = self.clean.get(key, 0)
            if not clean:
                self.clean[key] = GUILTY
            elif count != GUILTY:
                self.clean[key] = count + 1

    def counts(self, table: tuple[str, bytes], column: bytes) -> None:
        """The table has this column with AUTO_INCREMENT."""
        if len(self.counted) >= MAX_REMEMBERED:
            self.counted.clear()
        self.counted[table] = column


NOTHING_KNOWN: Final = Knowledge()
_known: dict[tuple[str, int, str, str, str], Knowledge] = {}


def knowledge_of(host: str, port: int, database: str, version: str, modes: str) -> Knowledge:
    """The one Knowledge of this database, as its server is now."""
    key = (host, port, database, version, modes)
    found = _known.get(key)
    if found is None:
        if len(_known) >= MAX_REMEMBERED:
            _known.clear()
        found = _known[key] = Knowledge(modes, version)
    return found


def something_was_defined() -> None:
    """What was learnt may not be so any more."""
    for known in _known.values():
        known.counted.clear()
        known.clean = {key: count for key, count in known.clean.items() if count == GUILTY}


def forget() -> None:
    """Begin again, as a new process does."""
    _known.clear()
    shapes.forget()
