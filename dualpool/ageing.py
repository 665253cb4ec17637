"""What time alone does to a pool's connections: they are closed when they are too old or idle for too long, and checked after a while.

A pool that nobody uses falls asleep: no connections, no minimum. The database behind it may be one that stops when nobody is connected.
"""

import math
from typing import TYPE_CHECKING

from dualpool.lease import IDLE_TOO_LONG, TOO_OLD

if TYPE_CHECKING:
    from dualpool.pool import Pool


class Ageing:
    """Ages the idle connections of one pool."""

    __slots__ = ("_active_at", "_pool", "is_asleep")

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._active_at: float = pool.clock.now
        self.is_asleep: bool = False
        """Nobody has used the pool for `idle_after`; who comes now wakes it."""

    def end_of_life(self, born_at: float) -> float:
        """When a new connection is to be closed."""
        settings = self._pool.settings
        return born_at + settings.lifetime - self._pool.rng.uniform(0, min(settings.lifetime_jitter, settings.lifetime))

    def sweep(self, now: float) -> None:
        """Close and doubt what is due; fall asleep."""
        self._close_old(now)
        self._doubt_old(now)
        self._doze(now)

    def _close_old(self, now: float) -> None:
        pool = self._pool
        minimum = pool.settings.min_size if pool.clients else 0
        idle_timeout = pool.settings.idle_timeout or math.inf
        for conn in pool.idle_connections():
            if conn.expires_at <= now:
                pool.evict(conn, TOO_OLD)
            elif now - conn.idle_since >= idle_timeout and pool.count_up() > minimum:
                pool.evict(conn, IDLE_TOO_LONG)

    def _doubt_old(self, now: float) -> None:
        """What has been idle for long is checked before it is used."""
        pool = self._pool
        check_delay = pool.settings.check_delay or math.inf
        # The idle stack is in the order of idle_since.
        fresh_from = next((i for i, conn in enumerate(pool.idle) if now - conn.idle_since < check_delay), len(pool.idle))
        pool.stale += pool.idle[:fresh_from]
        del pool.idle[:fresh_from]

    def _doze(self, now: float) -> None:
        pool = self._pool
        idle_after = pool.settings.idle_after
        if not idle_after:
            self.is_asleep = False
            return
        idle = pool.idle_connections()
        if pool.count_up() > len(idle) or any(pool.connecting) or pool.queue.count_all():
            self._active_at = now
        else:
            self._active_at = max([self._active_at, *(conn.idle_since for conn in idle)])
        self.is_asleep = now - self._active_at >= idle_after
        if self.is_asleep:
            pool.close_idle(f"nobody has used the database for {idle_after:g} s (idle_after)")
