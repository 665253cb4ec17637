"""What the runner asks of an engine: twins of clients, one on dualpool and one on a connection of its own, and a judge of their answers."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol

from tests.hunt.script import Message, Script

ALWAYS: Final = 'verify = "always"'
"""More of a database's configuration: what is remembered of texts ("learn") can be wrong of functions that do otherwise another time."""

LOG_LINES: Final = 20
"""Of dualpool's log are shown when it does not answer."""


class Verdict(Enum):
    """What the judge says of two answers."""

    EQUAL = auto()
    EXCUSED = auto()
    """dualpool answered with an error of its own that says why; the twins may go on."""
    PARTED = auto()
    """The same, and the twins are no longer in the same state."""
    DIFFERENT = auto()


@dataclass(frozen=True)
class Difference:
    """What a script shows: the step at whose answer it was seen (from 1, 0 is a login), and what differs."""

    step: int
    what: str
    direct: str
    pooled: str

    @property
    def kind(self) -> str:
        """What stays the same when the script gets shorter."""
        return self.what

    def __str__(self) -> str:
        return f"step {self.step}: {self.what}\n  direct:   {self.direct}\n  dualpool: {self.pooled}"


class Session(Protocol):
    """A client of the engine's protocol."""

    closed: bool

    def fileno(self) -> int: ...
    def send(self, said: tuple[Message, ...], cuts: tuple[float, ...] = ()) -> None: ...
    def read(self, seconds: float) -> Any: ...
    def close(self, *, abrupt: bool = False) -> None: ...


class World(Protocol):
    """A server with two databases that are alike, and dualpool in front of one."""

    name: str
    view: tuple[Message, ...]
    """How a client looks at its own session; always with the same answer in the same state."""
    probe: tuple[Message, ...]
    """How a clean client does. It keeps its server connection until `release`."""
    release: tuple[Message, ...]

    def start(self) -> None:
        """Start a fresh dualpool."""

    def stop(self) -> None:
        """End it."""

    def log(self) -> str:
        """The end of its log."""

    def reset(self, used: str) -> None:
        """Give both databases the contents that each script begins with. `used`: the text of the next one."""

    def direct(self, kind: int) -> Session:
        """A client with a connection of its own."""

    def pooled(self, kind: int, pool_size: int) -> Session:
        """A client of dualpool."""

    def log_in_differs(self, direct: Session, pooled: Session) -> str:
        """What the logins were told differently; empty if nothing."""

    def judge(self, direct: Any, pooled: Any) -> tuple[Verdict, str, str, str]:
        """The verdict; if they differ, also what, and how each of them answered."""

    def kill(self, side: str = "pooled") -> None:
        """End dualpool's server connections, or the "direct" ones."""

    def script(self, seed: str) -> Script:
        """A random script."""
