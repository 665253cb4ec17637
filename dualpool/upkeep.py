"""The work on server connections that takes time: connecting, resetting, recovering, checking, closing; what nobody's own task does.

Each piece runs in the pools' nursery, in limited time, and ends with the connection back in its pool, or closed.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from dualpool.accounts import ServerTarget
from dualpool.backends import BackendState
from dualpool.checkout import checkout
from dualpool.errors import AdminShutdown, ConnectFailed, DualpoolError, ServerLost
from dualpool.exchange import Stream, drive
from dualpool.hosts import rounds
from dualpool.lease import LEASED, Leasable
from dualpool.link import LEFT_MIDWAY, ClientWaiter, ServerConnection
from dualpool.log import event
from dualpool.pool import Pool, PoolIO
from dualpool.protocol import APPLICATION, TRANSACTION, ConnectionClosed, Exchange
from dualpool.questions import SharedQuestion
from dualpool.state import DEFAULTS

if TYPE_CHECKING:
    from dualpool.server import Server

GOODBYE_SECONDS: Final = 1.0
"""How long a server may take to close its end after our goodbye, before we close anyway."""
GREETING_SECONDS: Final = 1.0
"""How long the first client waits for the server's version."""

ANOTHER_CLIENTS: Final = "it has what only another client made"
DEFAULTS_WAIT: Final = 0.25
"""Seconds that logins wait for a server connection on which to ask for a server's defaults."""
LOOKS: Final = 50
"""How often they look meanwhile, where none is made for them."""
DEFAULTS_PAUSE: Final = 1.0
"""Seconds for which no login waits after one that has waited for nothing."""

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

    def inquire(self, conn: ServerConnection, waiter: ClientWaiter) -> None:
        """As `Supervisor.inquire`."""
        self._start(self._inquire(conn, waiter), conn)

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

    async def greeting(self, backend: BackendState, since: float) -> tuple[str, int]:
        """The server's version, and what it says of a session that begins after `since` (trio's clock); "" if it does not answer.

        Without a server connection on which to ask for it, it is what the server's greeting says, as long as that may be asked for.
        """
        if backend.version is not None and await self.reread(backend, since):
            return backend.version, backend.status
        is_idle = not any(pool.count_up() for pool in backend.budget.pools)
        if backend.version is None or (is_idle and backend.greetings_left):
            await backend.greeting.ask(since, partial(self._greet, backend))
        return backend.version or "", backend.status

    async def _greet(self, backend: BackendState) -> float | None:
        exchange = backend.engine.greeted_version()
        sent = trio.current_time()
        if exchange is None:
            return None
        with trio.move_on_after(GREETING_SECONDS), contextlib.suppress(DualpoolError, ConnectionClosed):
            host, port = backend.config.hosts[0]
            stream = await self._server.connector.dial(backend, ServerTarget(host, port, "", ""))
            backend.greetings_left = max(backend.greetings_left - 1, 0)
            try:
                backend.version, backend.status = await drive(exchange, stream)
            finally:
                stream.close()
            return sent
        return None

    async def reread(self, backend: BackendState, since: float) -> bool:
        """Have a server asked, after `since`, what it gives new sessions (SET GLOBAL may have run). False: there was nobody to ask."""
        return await backend.question.ask(since, partial(self._reread, backend))

    async def _reread(self, backend: BackendState) -> float | None:
        async def ask(conn: ServerConnection) -> None:
            found = await self.use(conn, conn.engine.prove(conn.relay, DEFAULTS))
            self._server.backends.learn_defaults(backend, found)

        return await self.ask_on_any(backend.budget.pools, backend.question, ask)

    async def ask_on_any(
        self, pools: Iterable[Pool], question: SharedQuestion, ask: Callable[[ServerConnection], Awaitable[None]], *, connects: bool = False
    ) -> float | None:
        """Ask on a leased connection of one of these pools; `ask` gives it back. One that turns out to be lost makes room for the next.

        `connects`: a connection may be made for it, unless the pool has none and the database behind it may be asleep. Returns when the
        question was sent, or None: see `SharedQuestion`.
        """
        pools = tuple(pools)
        for _ in range(1 + sum(pool.count_up() for pool in pools)):
            conn = await self._free_connection(pools, question, connects)
            if conn is None:
                return None
            sent = trio.current_time()
            with contextlib.suppress(DualpoolError):
                await ask(conn)
                return sent
        return None

    async def _free_connection(self, pools: tuple[Pool, ...], question: SharedQuestion, connects: bool) -> ServerConnection | None:
        """Lease a connection of one of these pools, if one is idle, or soon is. It is not for a client, so it is not counted."""

        def take() -> Leasable | None:
            return next(filter(None, (pool.take_nowait(APPLICATION) for pool in pools)), None)

        conn = take()
        # It may be between two leases, or there may be room for one more.
        busy = [pool for pool in pools if not pool.is_paused and (pool.count_up() or (connects and not pool.settings.idle_after))]
        if conn is None and busy and trio.current_time() >= question.patient_from:
            with trio.move_on_after(DEFAULTS_WAIT), contextlib.suppress(DualpoolError):
                if connects:
                    conn = await checkout(busy[0], APPLICATION)
                # Who has not logged in yet makes no connections.
                while conn is None:
                    await trio.sleep(DEFAULTS_WAIT / LOOKS)
                    conn = take()
            if conn is None:
                question.patient_from = trio.current_time() + DEFAULTS_PAUSE
        assert conn is None or isinstance(conn, ServerConnection)
        if conn is not None:
            conn.pool.checkouts -= 1
        return conn

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

    async def _inquire(self, conn: ServerConnection, waiter: ClientWaiter) -> None:
        """Ask what new sessions are given, tell `waiter`'s client, and offer it the connection; if that is lost, it queues up."""
        client, pool = waiter.client, conn.pool
        found, lost = None, ServerLost("the server connection did not tell the server's defaults in time")
        try:
            with trio.move_on_after(self._server.config.timeouts.reset or inf), self._borrowed(conn) as stream:
                found = await drive(conn.engine.prove(conn.relay, DEFAULTS), stream)
        except (DualpoolError, ConnectionClosed) as error:
            lost = ServerLost(f"the server connection did not tell the server's defaults: {error}")
        except BaseException:
            conn.lose(ServerLost("the question was cut off"))
            raise
        if found is not None:
            self._server.backends.learn_defaults(self._server.backends.entry_of(pool).backend, found)
            client.relay.learnt(found)
            if not waiter.offer(conn):
                pool.give_back(conn)
            return
        conn.lose(lost)
        if client.waiter is waiter:
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
