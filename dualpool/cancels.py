"""Cancel requests: whose they are, what they mean, and how they reach the server that runs it.

A request goes to the address that the server connection leads to, on a connection of its own: behind a name there may be several servers,
and a key or a number of one may be somebody else's at another.
"""

import logging
from math import inf
from typing import TYPE_CHECKING, Final

import attrs
import trio

from dualpool.accounts import CancelRequest
from dualpool.errors import DualpoolError
from dualpool.exchange import drive
from dualpool.lease import RESETTING
from dualpool.link import Client, ServerConnection
from dualpool.log import event
from dualpool.protocol import ConnectionClosed
from dualpool.session import canceled

if TYPE_CHECKING:
    from dualpool.pool import Pool
    from dualpool.server import Server


RESTORING_SECONDS: Final = 0.001
"""How often is looked whether the server has come to the client's query."""


@attrs.define(eq=False)
class Errand:
    """A cancel request on its way to a server."""

    pool: "Pool"
    of_client: bool
    """A client has asked for it, and waits; else it is dualpool's own."""
    is_connected: bool = False


@attrs.frozen
class CancelCounts:
    """Of one pool, as in PgBouncer's SHOW POOLS."""

    waiting: int
    """Clients whose request has not been sent to the server yet."""
    active: int
    """Clients whose request has been sent, and not been taken."""
    connections: int
    """Connections to a server that carry a request."""
    held: int
    """Server connections that could serve others, but for requests that mean what they have run."""


class Cancels:
    """The cancel requests of one server's clients."""

    def __init__(self, server: "Server", nursery: trio.Nursery) -> None:
        self._server = server
        self._nursery = nursery
        self._errands: set[Errand] = set()

    def count(self, pool: "Pool") -> CancelCounts:
        """What is under way for `pool`."""
        errands = [errand for errand in self._errands if errand.pool is pool]
        clients = [errand.is_connected for errand in errands if errand.of_client]
        held = sum(1 for conn in self._server.connections_of(pool) if is_held(conn))
        return CancelCounts(clients.count(False), clients.count(True), sum(errand.is_connected for errand in errands), held)

    async def requested(self, request: CancelRequest) -> None:
        """A client's cancel request (PostgreSQL). Returns when the server has taken it; a wrong key is ignored, as a server does."""
        if not self._server.clients.is_genuine(request):
            return
        client, session = self._server.clients.by_id.get(request.process_id), self._server.console.sessions.get(request.process_id)
        if client is not None:
            self._server.journal.canceled(client)
            await self._cancel(client)
        elif session is not None:
            session.cancel()

    def inside(self, client: Client, key: int) -> None:
        """As `Supervisor.cancel_inside`. A fault of ours costs the client that asked."""

        async def guarded() -> None:
            try:
                await self._inside(client, key)
            except Exception as error:
                client.failed(error)

        self._nursery.start_soon(guarded)

    async def _inside(self, client: Client, key: int) -> None:
        victim = self._server.clients.by_id.get(key) or self._holder(client, key)
        if victim is None or not victim.may_be_canceled_by(client):
            client.canceled(False)
            return
        if client.relay.cancel_connection:
            victim.kill()
        else:
            await self._cancel(victim)
        client.canceled(True)

    def _holder(self, client: Client, key: int) -> Client | None:
        """Who holds the server connection that the server knows by `key`; None also where two hosts know one by it."""
        holders = [
            other
            for other in self._server.clients.by_id.values()
            if other.server is not None and other.server.login.process_id == key and other.may_be_canceled_by(client)
        ]
        return holders[0] if len(holders) == 1 else None

    async def _cancel(self, client: Client) -> None:
        if client.cancel_wait(canceled()):
            return
        conn = client.server
        if conn is not None:
            await self.at_server(conn, of_client=True)

    async def at_server(self, conn: ServerConnection, *, of_client: bool = False) -> None:
        """Cancel what `conn` runs. It serves nobody else until the server has taken the request, so that it cannot hit another's query."""
        entry = self._server.backends.entry_of(conn.pool)
        errand = Errand(conn.pool, of_client)
        self._errands.add(errand)
        conn.cancels += 1
        try:
            with trio.move_on_after(self._server.config.timeouts.cancel_wait or inf, shield=True):
                while conn.relay.is_restoring() and conn.channel.is_open():  # noqa: ASYNC110  (the relay knows no tasks)
                    # It is for the client's query, and must not strike what is ours in front of it.
                    await trio.sleep(RESTORING_SECONDS)
                stream = await self._server.connector.dial(entry.backend, conn.target)
                errand.is_connected = True
                try:
                    await drive(conn.engine.cancel(conn.target, conn.login), stream)
                finally:
                    stream.close()
        except (DualpoolError, ConnectionClosed) as error:
            event(logging.WARNING, f'pool "{entry.pool.name}": a cancel request failed: {error}')
        finally:
            self._errands.discard(errand)
            conn.cancel_over()


def is_held(conn: ServerConnection) -> bool:
    """Does it serve nobody because of a cancel request?"""
    return conn.cancels > 0 and conn.state == RESETTING
