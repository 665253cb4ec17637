"""The work on server connections that takes time: connecting, resetting, recovering, checking, closing; what nobody's own task does.

Each piece runs in the pools' nursery, in limited time, and ends with the connection back in its pool, or closed.
"""

import contextlib
import logging
from collections.abc import Coroutine, Iterator
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from dualpool.accounts import ServerTarget
from dualpool.backends import BackendState
from dualpool.errors import AdminShutdown, ConnectFailed, DualpoolError, ServerLost
from dualpool.exchange import Stream, drive
from dualpool.hosts import rounds
from dualpool.lease import LEASED, Leasable
from dualpool.link import LEFT_MIDWAY, ClientWaiter, ServerConnection
from dualpool.log import event
from dualpool.pool import Pool, PoolIO
from dualpool.protocol import APPLICATION, TRANSACTION, ConnectionClosed, Exchange
from dualpool.state import DEFAULTS

if TYPE_CHECKING:
    from dualpool.server import Server

GOODBYE_SECONDS: Final = 1.0
"""How long a server may take to close its end after our goodbye, before we close anyway."""
GREETING_SECONDS: Final = 1.0
"""How long the first client waits for the server's version."""

ANOTHER_CLIENTS: Final = "it has what only another client made"
REREAD_PAUSE: Final = 0.005
"""Seconds: before they log in, clients must not cause more questions to a server than these."""

R = TypeVar("R")


class Upkeep(PoolIO):
    """Does it for one server. The methods that PoolIO asks for, and `tidy`, only schedule."""

    def __init__(self, server: "Server", nursery: trio.Nursery) -> None:
        self._server = server
        self._nursery = nursery

    def connect(self, pool: Pool, lane: int) -> None:
        self._nursery.start_soon(self._connect, pool, lane)

    def close(self, conn: Leasable, reason: str) -> None:
        assert isinstance(conn, ServerConnection)
        self._start(self._close(conn, reason), conn)

    def check(self, conn: Leasable) -> None:
        assert isinstance(conn, ServerConnection)
        self._start(self._check(conn), conn)

    def tidy(self, conn: ServerConnection, cancel: bool) -> None:
        """As `Supervisor.tidy`."""
        self._start(self._tidy(conn, cancel), conn)

    def renew(self, conn: ServerConnection, waiter: ClientWaiter) -> None:
        """As `Supervisor.renew`."""
        self._start(self._renew(conn, waiter), conn)

    def _start(self, work: Coroutine[Any, Any, None], conn: ServerConnection) -> None:
        """Work on a server connection in the background. A fault of ours costs that connection, not the process."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self._server.log_fault(error, f"server connection {conn.id}")
                conn.lose(ServerLost("an internal error"))

        self._nursery.start_soon(guarded)

    async def use(self, conn: ServerConnection, exchange: Exchange[R]) -> R:
        """Run an exchange on a leased server connection and give it back. Raises what the exchange does, ServerLost if it is gone."""
        try:
            with self._borrowed(conn) as stream:
                result = await drive(exchange, stream)
        except (ServerLost, ConnectionClosed) as error:
            lost = error if isinstance(error, ServerLost) else ServerLost("the server closed the connection")
            conn.lose(lost)
            raise lost from error
        except DualpoolError:
            conn.pool.give_back(conn)
            raise
        except BaseException:
            conn.lose(ServerLost("the exchange was cut off"))
            raise
        conn.pool.give_back(conn)
        return result

    async def greeted_version(self, backend: BackendState) -> str:
        """The server's version, as its greeting tells it; "" if clients need not know, or it does not answer. It is asked until it does."""
        if backend.version is None:
            backend.version = ""  # who comes meanwhile is not kept waiting
            exchange = backend.engine.greeted_version()
            if exchange is not None:
                with trio.move_on_after(GREETING_SECONDS), contextlib.suppress(DualpoolError, ConnectionClosed):
                    host, port = backend.config.hosts[0]
                    stream = await self._server.connector.dial(backend, ServerTarget(host, port, "", ""))
                    try:
                        backend.version, backend.status = await drive(exchange, stream)
                    finally:
                        stream.close()
                backend.version = backend.version or None
        return backend.version or ""

    async def reread(self, backend: BackendState) -> None:
        """Ask a server what it gives new sessions now, if that was long ago and a server connection is idle. (SET GLOBAL may have run.)"""
        now = trio.current_time()
        if now - backend.defaults_read_at < REREAD_PAUSE:
            return
        for pool in backend.budget.pools:
            conn = pool.take_nowait(APPLICATION)
            if conn is not None:
                assert isinstance(conn, ServerConnection)
                backend.defaults_read_at = now
                with contextlib.suppress(ServerLost):
                    found = await self.use(conn, conn.engine.prove(conn.relay, DEFAULTS))
                    self._server.backends.learn_defaults(backend, found)
                return

    async def _connect(self, pool: Pool, lane: int) -> None:
        entry = self._server.backends.entry_of(pool)
        try:
            conn = await self._server.connector.connect(entry, self._server.backends.relay_limits[TRANSACTION], lane)
        except Exception as error:
            failed = error if isinstance(error, DualpoolError) else ConnectFailed(f"an internal error: {error!r}")
            if failed is not error:
                self._server.log_fault(error, f"a connect of pool {pool.name}")
            self._server.journal.connect_failed(pool, failed)
            pool.connect_failed(failed, lane)
        except trio.Cancelled:
            pool.connect_failed(AdminShutdown("dualpool is shutting down"), lane)
            raise
        else:
            conn.counters = pool.counters  # others, perhaps, than when the connect began: a reload may watch queries from now on
            pool.connected(conn, lane)
            self._server.journal.opened(conn)

    async def _renew(self, conn: ServerConnection, waiter: ClientWaiter) -> None:
        """Close a leased connection, and offer a new one in its place to `waiter`, which queues up if there is none."""
        pool = conn.pool
        conn.counters.gather_server(conn.relay)
        new = None
        try:
            await self._say_goodbye(conn, ANOTHER_CLIENTS)
            if conn.state == LEASED:  # else the server had ended it, and its place may be another's
                with trio.move_on_after(max(0.0, waiter.deadline - pool.clock.now)):
                    entry, limits = self._server.backends.entry_of(pool), self._server.backends.relay_limits[TRANSACTION]
                    new = await self._server.connector.connect(entry, limits, conn.lane)
        except DualpoolError as error:
            self._server.journal.connect_failed(pool, error)
        except BaseException:
            pool.condemn(conn, ANOTHER_CLIENTS)
            raise
        if new is not None:
            new.counters = pool.counters
            pool.replaced(conn, new)
            self._server.journal.opened(new)
            if not waiter.offer(new):
                pool.give_back(new)
            return
        pool.condemn(conn, ANOTHER_CLIENTS)
        if waiter.client.waiter is waiter:
            pool.enqueue(waiter)

    async def _close(self, conn: ServerConnection, reason: str) -> None:
        """Close a connection, and tell its pool."""
        await self._say_goodbye(conn, reason)
        conn.pool.closed(conn)

    async def _say_goodbye(self, conn: ServerConnection, reason: str) -> None:
        """Say goodbye and wait until the server has closed its end: only then does it no longer count the connection."""
        self._server.journal.closing(conn, reason)
        if conn.channel.is_open():
            with trio.move_on_after(GOODBYE_SECONDS, shield=True), contextlib.suppress(ConnectionClosed):
                stream = Stream(conn.channel.lend().sock, server_side=False)
                if conn.relay.answered() and not conn.relay.is_lost():
                    await stream.send_all(conn.engine.goodbye)
                stream.end()
                while True:
                    await stream.receive(1 << 16)
            conn.channel.close()

    async def _check(self, conn: ServerConnection) -> None:
        entry = self._server.backends.entry_of(conn.pool)
        exchange = conn.engine.check(conn.relay, entry.backend.config.check_query)
        await self._work(conn, [exchange], self._server.config.timeouts.reset, "did not answer the check")

    async def _tidy(self, conn: ServerConnection, cancel: bool) -> None:
        """Make a connection that its client has left fit for the next, or close it. Always ends, whoever cancels."""
        relay = conn.relay
        if cancel and (relay.is_lost() or not relay.answered()):
            # Also of a connection that is lost: a server notices the end of a connection only when its query has ended.
            await self._server.cancels.at_server(conn)
        if relay.is_lost():
            conn.lose(ServerLost(LEFT_MIDWAY))
            return
        if relay.spent:
            conn.pool.condemn(conn, relay.spent)
            return
        timeouts = self._server.config.timeouts
        # (It may have become quiet by itself meanwhile.)
        if not relay.is_quiet() and not await self._work(
            conn, [conn.engine.recover(relay)], timeouts.recover, "could not be recovered in time", more=True
        ):
            return
        if relay.refused_write and not await self._is_still_writable(conn):
            return
        if relay.dirty:
            await self._work(conn, [conn.engine.reset(relay)], timeouts.reset, "could not be reset in time")
        else:
            conn.ready_again()

    async def _is_still_writable(self, conn: ServerConnection) -> bool:
        """A write was refused, and the pool is for a server that takes writes. If it has become another, every connection to it goes."""
        entry = self._server.backends.entry_of(conn.pool)
        target, host = entry.backend.config.target_session_attrs, f"{conn.target.host}:{conn.target.port}"

        def see() -> Exchange[None]:
            role = yield from conn.engine.role(conn.login)
            if role not in rounds(target)[0]:
                raise ServerLost(f"{host} has become {role}, but target_session_attrs asks for {target}")

        conn.relay.refused_write = False
        if await self._work(conn, [see()], self._server.config.timeouts.reset, "is not what it was", more=True):
            return True
        event(logging.WARNING, f'backend "{entry.backend.config.name}": {host} takes no writes any more; its connections are closed')
        entry.backend.reject((conn.target.host, conn.target.port), monotonic())
        return False

    async def _work(
        self, conn: ServerConnection, exchanges: list[Exchange[None]], seconds: float, failure: str, *, more: bool = False
    ) -> bool:
        """Run exchanges on a connection that no client holds, in limited time; then give it back (unless `more` follows) or close it."""
        if not conn.channel.is_open():
            return False
        error = ServerLost(f"the server connection {failure}")
        finished = False
        with trio.move_on_after(seconds or inf, shield=True):
            try:
                with self._borrowed(conn) as stream:
                    await stream.send_all(conn.channel.take_unsent())
                    for exchange in exchanges:
                        await drive(exchange, stream)
                finished = True
            except (DualpoolError, ConnectionClosed) as reason:
                error = ServerLost(f"the server connection {failure}: {reason}")
        if not finished or conn.relay.is_lost():
            conn.lose(error)
            return False
        if not more:
            conn.ready_again()
        return True

    @contextlib.contextmanager
    def _borrowed(self, conn: ServerConnection) -> Iterator[Stream]:
        """The connection's socket, out of the reactor for as long as a task uses it."""
        stream = Stream(conn.channel.lend().sock, server_side=False)
        try:
            yield stream
        finally:
            if conn.channel.is_open():
                conn.channel.open()
