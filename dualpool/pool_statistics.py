"""What a pool tells of itself: SHOW and /metrics read this."""

import attrs


@attrs.frozen
class PoolStatistics:
    """A pool at one moment. Connections are counted, times are in seconds, totals are since the pool was made."""

    idle: int
    leased: int
    resetting: int
    """Being reset, recovered or checked."""
    connecting: int
    closing: int
    maintenance: int
    """How many of all of them count in the maintenance lane."""
    waiting: int
    max_wait: float
    """How long the one at the head of the queue has waited by now."""
    clients: int
    size: int
    paused: bool
    checkouts: int
    waits: int
    """How many checkouts had to wait."""
    total_wait: float
    timeouts: int
    connects: int
    connect_failures: int
    losses: int
    """Connections that broke, whatever they were doing."""
    last_error: str
    """Why the last connect failed; "" when one has succeeded since."""
    last_loss: str
    """Why a connection broke last."""
