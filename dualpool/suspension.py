"""SUSPEND: everything stands still where it is, transactions too, until RESUME. Meaning: PgBouncer's documentation, "SUSPEND".

First no client is read any more, while servers are: who waits for a server connection may still get one, and what was read reaches the
servers. Then no server is read any more, and what was read of them reaches the clients. Whoever has not taken it in time is closed.

New clients may log in (the operator must be able to give RESUME), but nothing that they ask for is read.
"""

from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from dualpool.errors import AdminShutdown, DualpoolError, ServerLost

if TYPE_CHECKING:
    from dualpool.channel import Channel
    from dualpool.link import Client, ServerConnection
    from dualpool.server import Server

POLL_SECONDS: Final = 0.01


class Suspension:
    """Suspends one server. `Halts.suspended` is true from the beginning of `suspend` to `end`."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.is_complete = False
        """Nothing moves any more. Until `end`, time does not count either."""

    async def suspend(self) -> None:
        """Bring everything to a standstill, or until somebody says `end`. A cancellation ends it, too: nobody would know of it."""
        server = self._server
        server.backends.halts.suspended = True
        deadline = trio.current_time() + (server.config.timeouts.suspend or inf)
        try:
            await self._stop_clients(deadline)
            await self._stop_servers(deadline)
        except trio.Cancelled:
            self.end()
            raise
        self.is_complete = server.backends.halts.suspended

    def end(self) -> None:
        """Everything goes on where it was. Pools that nothing else halts hand out connections again."""
        halts = self._server.backends.halts
        halts.suspended = self.is_complete = False
        for channel in self._channels():
            channel.let_go()
        self._server.backends.resume()

    def greet(self, client: "Client") -> None:
        """A client that is just coming in."""
        if self._server.backends.halts.suspended:
            client.channel.hold()

    async def _stop_clients(self, deadline: float) -> None:
        for client in self._clients():
            client.channel.hold()

        def busy() -> "list[Client]":
            return [client for client in self._clients() if client.waiter is not None or is_filled(client.server)]

        await self._wait_until(lambda: not busy(), deadline)
        for client in busy():
            client.expel(self._too_slow())

    async def _stop_servers(self, deadline: float) -> None:
        server = self._server
        if not server.backends.halts.suspended:
            return
        for pool in server.backends.pools():
            pool.pause()
        for conn in self._connections():
            conn.channel.hold()

        def is_still() -> bool:
            return not any(channel.queue is not None for channel in self._channels()) and not any(
                pool.is_busy_inside() for pool in server.backends.pools()
            )

        await self._wait_until(is_still, deadline)
        if not server.backends.halts.suspended:
            return
        for client in self._clients():
            if client.channel.queue is not None:
                client.expel(self._too_slow())
        for conn in self._connections():
            if is_filled(conn):
                conn.lose(ServerLost(self._too_slow().message))

    async def _wait_until(self, condition: Callable[[], bool], deadline: float) -> None:
        """Until it holds, or the time is over, or nothing is suspended any more."""
        halts = self._server.backends.halts
        while halts.suspended and not condition() and trio.current_time() < deadline:  # noqa: ASYNC110
            await trio.sleep(POLL_SECONDS)

    def _too_slow(self) -> DualpoolError:
        seconds = self._server.config.timeouts.suspend
        return AdminShutdown(f"dualpool was suspended, and what was under way was not taken in time (timeouts.suspend is {seconds:g} s)")

    def _clients(self) -> "list[Client]":
        return [client for client in self._server.clients.by_id.values() if not client.ended_by]

    def _connections(self) -> "Iterator[ServerConnection]":
        for pool in self._server.backends.pools():
            yield from self._server.connections_of(pool)

    def _channels(self) -> "Iterator[Channel]":
        yield from (client.channel for client in self._clients())
        yield from (conn.channel for conn in self._connections())


def is_filled(conn: "ServerConnection | None") -> bool:
    """Does it have bytes that its server has not taken?"""
    return conn is not None and conn.channel.queue is not None
