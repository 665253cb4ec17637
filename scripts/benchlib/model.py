"""The words of the benchmark: server, endpoint, case, sample, row."""

from math import ceil
from pathlib import Path
from statistics import median
from typing import Literal
from urllib.parse import unquote, urlsplit

import attrs

Engine = Literal["postgres", "mysql"]
ENGINES: tuple[Engine, ...] = ("postgres", "mysql")
REFERENCE: dict[Engine, str] = {"postgres": "pgbouncer", "mysql": "router"}
"""The rival that ratios are taken to."""


class LeftOut(Exception):
    """Something cannot be measured here. The message says what and why, in one line; the run goes on without it."""


@attrs.frozen
class Server:
    """A database server and who logs in there."""

    engine: Engine
    host: str
    port: int
    user: str
    password: str
    database: str

    @classmethod
    def from_url(cls, engine: Engine, url: str) -> "Server":
        """Read `postgresql://user:password@host:port/database` (or `mysql://`). Raises ValueError for anything else."""
        parts = urlsplit(url)
        wanted = {"postgres": ("postgresql", "postgres"), "mysql": ("mysql",)}[engine]
        if parts.scheme not in wanted or not (parts.hostname and parts.port and parts.username):
            raise ValueError(f"{url!r}: must be {wanted[0]}://user:password@host:port/database")
        password, database = unquote(parts.password or ""), unquote(parts.path.lstrip("/"))
        return cls(engine, parts.hostname, parts.port, unquote(parts.username), password, database or unquote(parts.username))


@attrs.frozen
class Endpoint:
    """Where a load is sent: a pooler, or the server itself (`direct`)."""

    name: str
    server: Server
    port: int
    pids: tuple[int, ...]
    """Processes that listen there; their descendants count as the same program."""
    log: Path | None = None

    @property
    def is_pooler(self) -> bool:
        """Whether the CPU used there is a pooler's, and so worth a column."""
        return self.name != "direct"


@attrs.frozen
class Case:
    """One kind of load. `arguments` go to pgbench or sysbench; `script` is SQL to repeat where the tool has no such test itself."""

    engine: Engine
    name: str
    about: str
    arguments: tuple[str, ...] = ()
    script: str = ""
    needs_tables: bool = False
    in_quick: bool = False

    @property
    def is_idle(self) -> bool:
        """Measured in memory per client, not in transactions."""
        return self.name == "idle"


@attrs.frozen
class Sample:
    """One measurement. `cpu_us` is the pooler's processor time per transaction, None where there is no pooler."""

    tps: float
    cpu_us: float | None
    p99_ms: float | None


@attrs.define
class Row:
    """One case through one endpoint, all rounds."""

    case: Case
    through: str
    clients: int
    samples: list[Sample] = attrs.Factory(list)
    kb_per_client: float | None = None
    failure: str = ""

    @property
    def tps(self) -> float | None:
        """Transactions per second, the median of the rounds."""
        return middle([sample.tps for sample in self.samples])

    @property
    def cpu_us(self) -> float | None:
        """Microseconds of the pooler's CPU per transaction, the median of the rounds."""
        return middle([sample.cpu_us for sample in self.samples])

    @property
    def p99_ms(self) -> float | None:
        """99th percentile of the latency in milliseconds, the median of the rounds."""
        return middle([sample.p99_ms for sample in self.samples])


def middle(values: list[float | None] | list[float]) -> float | None:
    """The median of what was measured, None if nothing was."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def percentile(values: list[float], share: float) -> float | None:
    """The smallest value that `share` (0 to 1) of all values do not exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
