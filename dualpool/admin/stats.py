"""Totals and averages per database, from the counters of its pools. Meaning and units are PgBouncer's: its documentation, SHOW STATS."""

from typing import TYPE_CHECKING, Final

import attrs

from dualpool.counters import Counters

if TYPE_CHECKING:
    from dualpool.backends import Backends, DatabaseKey
    from dualpool.link import Client
    from dualpool.pool import Pool

MICROSECONDS: Final = 1_000_000


@attrs.frozen
class Totals:
    """Since the start. `received`: bytes from clients; `sent`: bytes from servers. Times are microseconds."""

    server_assignments: int = 0
    transactions: int = 0
    queries: int = 0
    received: int = 0
    sent: int = 0
    transaction_time: int = 0
    query_time: int = 0
    wait_time: int = 0
    client_parses: int = 0
    server_parses: int = 0
    binds: int = 0
    logins: int = 0

    def values(self) -> tuple[int, ...]:
        """In the order of PgBouncer's columns."""
        return attrs.astuple(self)

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(one + two for one, two in zip(self.values(), other.values(), strict=True)))

    def __sub__(self, other: "Totals") -> "Totals":
        return Totals(*(one - two for one, two in zip(self.values(), other.values(), strict=True)))


def totals_of(counters: Counters) -> Totals:
    """`counters` in PgBouncer's units."""
    return Totals(
        counters.assignments,
        counters.transactions,
        counters.queries,
        counters.received,
        counters.sent,
        int(counters.transaction_seconds * MICROSECONDS),
        int(counters.query_seconds * MICROSECONDS),
        int(counters.wait_seconds * MICROSECONDS),
        counters.client_parses,
        counters.server_parses,
        counters.binds,
        counters.logins,
    )


def average(change: Totals, seconds: float) -> Totals:
    """Per second; the times of transactions and queries are per transaction and query (PgBouncer: calc_average)."""
    rates = Totals(*(int(value / seconds) for value in change.values()))
    return attrs.evolve(
        rates,
        transaction_time=change.transaction_time // max(1, change.transactions),
        query_time=change.query_time // max(1, change.queries),
    )


class Statistics:
    """What SHOW STATS and its relatives tell. `sweep` remembers, once a period, what was."""

    def __init__(self, backends: "Backends", clients: "dict[int, Client]", now: float) -> None:
        self._backends = backends
        self._clients = clients
        self._newer: tuple[float, dict[DatabaseKey, Totals]] = (now, {})
        self._averages: dict[DatabaseKey, Totals] = {}

    def gather(self) -> "list[Pool]":
        """Bring the counters of all pools up to date. Returns the pools."""
        for client in self._clients.values():
            client.counters.gather_client(client.relay)
        pools = self._backends.pools()
        for pool in pools:
            self._backends.gather(pool)
        return pools

    def totals(self) -> "dict[DatabaseKey, Totals]":
        """Of every database that has had a pool."""
        found = {key: totals_of(counters) for key, counters in self._backends.retired.items()}
        for pool in self.gather():
            key = self._backends.entry_of(pool).database_key
            found[key] = found.get(key, Totals()) + totals_of(pool.counters)
        return found

    def averages(self) -> "dict[DatabaseKey, Totals]":
        """Of the last whole period."""
        return self._averages

    def sweep(self, now: float, period: float) -> bool:
        """A period may be over: then True."""
        since, before = self._newer
        if now - since >= period > 0:
            totals = self.totals()
            self._averages = {key: average(value - before.get(key, Totals()), now - since) for key, value in totals.items()}
            self._newer = (now, totals)
            return True
        return False
