"""The times that a client may take, enforced by the one sweep: no timer and no cancel scope per query.

Precision is that of the sweep (server.py, `Server._tick`): a deadline is noticed at most one tick late.
"""

import math
from collections.abc import Iterable, Iterator

import attrs

from dualpool.config import Config, Database
from dualpool.errors import (
    ClientIdleTimeout,
    DualpoolError,
    IdleInTransactionTimeout,
    PinIdleTimeout,
    QueryTimeout,
    ServerLost,
    TransactionTimeout,
)
from dualpool.link import Client


@attrs.frozen
class Limit:
    """A time, and the setting that it comes from. As text: what a client is told."""

    seconds: float
    """Infinite where the setting is 0."""
    name: str

    def __str__(self) -> str:
        return f"{self.name} is {self.seconds:g} s"


@attrs.frozen
class Times:
    """What holds for a client."""

    query_wait: Limit
    client_idle: Limit
    idle_in_transaction: Limit
    query: Limit
    transaction: Limit
    pin_idle: Limit

    @property
    def any(self) -> bool:
        """Must the sweep look at this client at all? (`query_wait` is for its pool to enforce.)"""
        limits = (self.client_idle, self.idle_in_transaction, self.query, self.transaction, self.pin_idle)
        return min(limit.seconds for limit in limits) < math.inf


NAMES = tuple(attribute.name for attribute in attrs.fields(Times))


def times_of(config: Config, database: Database | None, user: str) -> Times:
    """A user's own times go before those of its database, and these before `[timeouts]`."""
    known = config.users.get(user)
    sources: list[tuple[str, object]] = [(f"users.{user}", known)] if known is not None else []
    if database is not None:
        sources.append((f"databases.{database.name}", database))
    sources.append(("timeouts", config.timeouts))
    return Times(**{name: _first(name, sources) for name in NAMES})


def _first(name: str, sources: list[tuple[str, object]]) -> Limit:
    path, seconds = next((path, seconds) for path, source in sources if (seconds := getattr(source, name)) is not None)
    return Limit(seconds or math.inf, f"{path}.{name}")


def all_times(config: Config) -> Iterator[float]:
    """Every time that `Times` or a pool may get from `config`; 0 is off."""
    for source in (config.timeouts, *config.databases.values(), *config.users.values()):
        for name in NAMES:
            yield getattr(source, name) or 0.0


def sweep(clients: Iterable[Client], now: float) -> None:
    """Expel the clients that are over a limit. A server that owes only us an answer is given up instead: the client has what it wanted."""
    for client in [client for client in clients if client.times is not None and client.times.any]:
        error = exceeded(client, now)
        conn = client.server
        assert client.times is not None
        if isinstance(error, QueryTimeout) and conn is not None and conn.relay.is_only_asked():
            conn.lose(ServerLost(f"the server does not say what its session holds: {client.times.query}"))
        elif error is not None:
            client.expel(error)


def exceeded(client: Client, now: float) -> DualpoolError | None:
    """The limit that `client` is over, if any."""
    conn, times = client.server, client.times
    assert times is not None
    if conn is None or (conn.relay.is_quiet() and not conn.relay.in_transaction):
        if client.is_idle() and now - client.asked_at > times.client_idle.seconds:
            return ClientIdleTimeout(f"idle for too long: {times.client_idle}")
        return None
    if not conn.relay.answered():
        if now - client.asked_at > times.query.seconds:
            return QueryTimeout(f"the query took too long: {times.query}")
    elif conn.relay.in_transaction and now - max(client.asked_at, conn.answered_at) > times.idle_in_transaction.seconds:
        return IdleInTransactionTimeout(
            f"idle in a transaction for too long: {times.idle_in_transaction}",
            hint="End transactions before waiting for something else.",
        )
    elif conn.relay.pins and not conn.relay.in_transaction:
        idle = now - max(client.asked_at, conn.answered_at)
        if idle > times.client_idle.seconds:
            return ClientIdleTimeout(f"idle for too long: {times.client_idle}")
        if idle <= times.pin_idle.seconds:
            return None
        reasons = ", ".join(reason.partition(";")[0] for reason in conn.relay.pin_reasons())
        return PinIdleTimeout(
            f"idle for too long while the session holds what keeps its server connection ({reasons}): {times.pin_idle}",
            hint="End it (SHOW PINS on the admin console tells how) before waiting for something else, or use a listener in session mode.",
        )
    if conn.relay.in_transaction and now - client.leased_at > times.transaction.seconds:
        return TransactionTimeout(f"the transaction took too long: {times.transaction}")
    return None
