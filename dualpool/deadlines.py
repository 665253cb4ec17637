"""The times that a client may take, enforced by the one sweep: no timer and no cancel scope per query.

Precision is that of the sweep (server.py, `Server.tick`): a deadline is noticed at most one tick late.
"""

import math
from collections.abc import Iterable

from dualpool.config import Timeouts
from dualpool.errors import ClientIdleTimeout, DualpoolError, IdleInTransactionTimeout, QueryTimeout, TransactionTimeout
from dualpool.link import Client


class Deadlines:
    """`[timeouts]` of clients, in seconds; 0 there is infinity here."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.query = timeouts.query or math.inf
        self.transaction = timeouts.transaction or math.inf
        self.idle_in_transaction = timeouts.idle_in_transaction or math.inf
        self.client_idle = timeouts.client_idle or math.inf
        self.any = min(self.query, self.transaction, self.idle_in_transaction, self.client_idle) < math.inf

    def sweep(self, clients: Iterable[Client], now: float) -> None:
        """Expel the clients that are over a limit."""
        if self.any:
            for client in list(clients):
                error = self.exceeded(client, now)
                if error is not None:
                    client.expel(error)

    def exceeded(self, client: Client, now: float) -> DualpoolError | None:
        """The limit that `client` is over, if any."""
        conn = client.server
        if conn is None:
            if client.is_idle() and now - client.asked_at > self.client_idle:
                return ClientIdleTimeout(f"idle for longer than timeouts.client_idle ({self.client_idle:g} s)")
            return None
        if not conn.relay.answered():
            if now - client.asked_at > self.query:
                return QueryTimeout(f"the query took longer than timeouts.query ({self.query:g} s)")
        elif conn.relay.in_transaction and now - max(client.asked_at, conn.answered_at) > self.idle_in_transaction:
            return IdleInTransactionTimeout(
                f"idle in a transaction for longer than timeouts.idle_in_transaction ({self.idle_in_transaction:g} s)",
                hint="End transactions before waiting for something else.",
            )
        if conn.relay.in_transaction and now - client.leased_at > self.transaction:
            return TransactionTimeout(f"the transaction took longer than timeouts.transaction ({self.transaction:g} s)")
        return None
