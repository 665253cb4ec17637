"""The running process: the tree of nurseries, and what one configuration means while it runs.

    main ── serve ── pump (the reactor)             the pools' nursery: connects, closes, resets, recoveries, cancels
                  ├─ signals, and a word to the service manager now and then
                  ├─ sweep (deadlines, idle ages)
                  └─ one nursery per listener: accept loop, a task per client

The clients' nursery ends before the pools' nursery does, so that whoever leaves last finds somebody to tidy up after it.
"""

import contextlib
import gc
import logging
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final

import attrs
import trio

from dualpool import deadlines
from dualpool.accounts import ClientLogin
from dualpool.admin.console import Console
from dualpool.admin.stats import Statistics
from dualpool.admission import Guests, Parties, settle
from dualpool.authentication.gate import Gate
from dualpool.backends import Backends
from dualpool.cancels import Cancels
from dualpool.config import Config, load
from dualpool.connector import Connector
from dualpool.engines import ENGINES
from dualpool.errors import AdminShutdown, ConfigError, DualpoolError
from dualpool.exchange import Stream
from dualpool.journal import Journal, PgBouncerJournal, SlowLog
from dualpool.link import Client, ClientWaiter, ServerConnection, Supervisor
from dualpool.listener import (
    HANDSHAKE_SECONDS,
    ListeningSocket,
    accept_clients,
    accept_waiting,
    address_of,
    bound_sockets,
    close_listening,
    foreign,
    sockets_for,
    turn_away,
)
from dualpool.listening import Listening
from dualpool.log import FOLDS, LOGGER, configure, event
from dualpool.migrations import Migrations
from dualpool.pool import Pool
from dualpool.protocol import Engine
from dualpool.pump import pump
from dualpool.reactor import Reactor, best_poller
from dualpool.reload import Reload, context_of, farewell
from dualpool.session import Clients, Door
from dualpool.signals import StopMode, obey
from dualpool.surroundings import Surroundings
from dualpool.suspension import Suspension
from dualpool.systemd import Inherited, Manager
from dualpool.upkeep import GOODBYE_SECONDS, Upkeep

HTTP_BACKLOG: Final = 16
STATS_PERIOD: Final = 60.0
"""Seconds over which the averages of SHOW STATS are taken, as in PgBouncer."""
MIN_TICK: Final = 0.02
MAX_TICK: Final = 1.0
DRAIN_TICK: Final = 0.02
DRAIN_QUIET: Final = 2.0
"""Seconds for which a client must have asked for nothing before it is told, unasked, to leave: also a slow one has read its last answer."""
DRAIN_PATIENCE: Final = 1.0
"""Seconds after which one that holds a server connection is told between two requests, even if these follow each other closely."""


@attrs.frozen
class ServerInfo:
    """What a server that listens can tell: the addresses of each listener, as text."""

    addresses: dict[str, list[str]]


class Server(Supervisor):
    """One configuration, running. The methods that Supervisor asks for only schedule."""

    def __init__(
        self,
        config: Config,
        pools_nursery: trio.Nursery,
        reactor: Reactor | None = None,
        *,
        path: Path | None = None,
        manager: Manager | None = None,
    ) -> None:
        self.config = config
        self.path = path
        self.manager = Manager({}) if manager is None else manager
        self.stopping = trio.Event()
        self.stop_mode: StopMode = "drain"
        self.stopped = trio.Event()
        """No more clients."""
        self.doors: list[Door] = []
        self.http = config.admin.http
        self.leaving: set[Client] = set()
        """Clients that a reload no longer allows, until they are between two transactions."""
        self.reactor = reactor or Reactor(best_poller())
        self.clients = Clients()
        self.guests = Guests()
        self.parties = Parties()
        self.migrations = Migrations(self.settle)
        self.gate = Gate(self)
        self.upkeep = Upkeep(self, pools_nursery)
        self.cancels = Cancels(self, pools_nursery)
        self.listening = Listening(self, pools_nursery)
        self.backends = Backends(config, self.reactor.clock, self.upkeep)
        self.connector = Connector(self.reactor, self, config)
        self.suspension = Suspension(self)
        self.draining = False
        self.statistics = Statistics(self.backends, self.clients.by_id, self.now())
        self.console = Console(self)
        self.journal = PgBouncerJournal(self) if config.log.format == "pgbouncer" else Journal(self)
        if config.log.slow_query:
            self.backends.watch = SlowLog(self, config.log.slow_query)
        self._nursery = pools_nursery

    # -------------------------------------------------------------------------------------------------------------- Supervisor

    def client_ended(self, client: Client, reason: str) -> None:
        self.clients.ended(client)

    def client_returns(self, client: Client) -> None:
        self.clients.wake(client)

    def tidy(self, server: ServerConnection, cancel: bool) -> None:
        self.upkeep.tidy(server, cancel)

    def renew(self, server: ServerConnection, waiter: ClientWaiter) -> None:
        self.upkeep.renew(server, waiter)

    def inquire(self, server: ServerConnection, waiter: ClientWaiter) -> None:
        self.upkeep.inquire(server, waiter)

    def cancel_inside(self, client: Client, key: int) -> None:
        self.cancels.inside(client, key)

    def pinned(self, server: ServerConnection, reasons: list[str]) -> None:
        client, relay = server.client, server.relay
        assert client is not None
        for reason in reasons:
            holds, _, until = reason.partition("; until ")
            server.counters.pins[holds] += 1
            text = f"client {client.id}: keeps server connection {server.id} after its transactions: {holds}"
            text += f" (until {until}): {relay.pin_text}" if until else f": {relay.pin_text}"
            event(logging.INFO, text, client=client.id, server=server.id, pool=client.pool.name)

    def leaked(self, client: Client, error: DualpoolError) -> None:
        client.counters.leaks += 1
        event(logging.ERROR, f"client {client.id}: {error.message}", client=client.id)

    def listens(self, client: Client) -> None:
        self.listening.wanted(client)

    def vacate(self, client: Client, database: str) -> None:
        backend = self.backends.entry_of(client.pool).backend
        for entry in self.backends.entries():
            if entry.backend is backend and entry.target.database == database and entry.pool is not client.pool:
                # The server waits for a while until everybody has left (PostgreSQL: 5 s), so that nobody need wait here.
                entry.pool.reconnect()

    def migrates(self, client: Client) -> None:
        self.migrations.begin(client)
        text = f"client {client.id}: a migration tool, by what it asks: it is in the maintenance lane now"
        event(logging.INFO, text, client=client.id, pool=client.pool.name)

    def server_lost(self, server: ServerConnection, error: DualpoolError) -> None:
        self.journal.lost(server, error)

    def log_fault(self, error: Exception, where: str) -> None:
        LOGGER.error(f"internal error at {where}: {error!r}", exc_info=error)

    # ---------------------------------------------------------------------------------------------------------- administration

    def now(self) -> float:
        """The time, in seconds of the reactor's clock."""
        self.reactor.clock.now = monotonic()
        return self.reactor.clock.now

    def connections_of(self, pool: Pool) -> list[ServerConnection]:
        """A pool's connections, the oldest first."""
        return sorted((conn for conn in pool.connections if isinstance(conn, ServerConnection)), key=lambda conn: conn.id)

    def engine_of(self, protocol: str) -> Engine:
        """The engine of a protocol."""
        return ENGINES[protocol]

    async def serve_console(self, stream: Stream, engine: Engine, login: ClientLogin) -> None:
        """A client of the admin console, from its welcome to its end."""
        await self.console.serve(stream, engine, login, login.connection_id, self.clients.secret(login.connection_id))

    async def reload(self) -> list[str]:
        """Read the configuration file again. Returns warnings; raises ConfigError, and then nothing has changed."""
        self.manager.reloading()
        try:
            return await self._reload()
        finally:
            self.manager.ready(self.status())

    async def _reload(self) -> list[str]:
        try:
            if self.path is None:
                raise ConfigError("there is no configuration file to reload", hint="dualpool was started with URLs.")
            warnings = self.reconfigure(await trio.to_thread.run_sync(load, self.path))
        except ConfigError as error:
            event(logging.ERROR, f"reload failed, nothing has changed: {error}")
            raise
        event(logging.INFO, "configuration reloaded")
        for warning in warnings:
            event(logging.WARNING, warning)
        return warnings

    def reconfigure(self, config: Config) -> list[str]:
        """Take another configuration. Returns warnings; raises ConfigError, and then nothing has changed."""
        return Reload(self, config).carry_out()

    def settle(self, client: Client) -> None:
        """Give a client the times and caps that the configuration has for it."""
        if client.login is not None:
            settle(client, self.parties, self.config, client.login)

    def take_timeouts(self) -> None:
        """What is derived from the configuration's timeouts."""
        self.connector.take(self.config)

    def send_away(self) -> None:
        """End the clients that a reload no longer allows, as soon as they are between two transactions."""
        for client in list(self.leaving):
            if client.ended_by:
                self.leaving.discard(client)
            elif client.waiter is not None or client.server is None or client.server.relay.is_quiet():
                client.expel(farewell())

    # ------------------------------------------------------------------------------------------------------------------- times

    async def sweep(self) -> None:
        """Enforce the deadlines of pools and clients, for ever."""
        while True:
            await trio.sleep(self._tick())
            try:
                self.do_what_is_due()
            except Exception as error:
                self.log_fault(error, "what is due")  # and all clients are served on

    def do_what_is_due(self) -> None:
        """What time alone makes necessary."""
        # The reactor's clock stands still while no event comes.
        now = self.now()
        for state in self.backends.states.values():
            state.budget.sweep(now)
        if not self.suspension.is_complete:
            for pool in self.backends.pools():
                pool.sweep(now)
            self.listening.sweep(now)
            deadlines.sweep(self.clients.by_id.values(), now)
            self.migrations.sweep(now)
        self.backends.forget_closed()
        if self.statistics.sweep(now, STATS_PERIOD):
            self.journal.averages()
        self.journal.sweep()
        self.send_away()

    def _tick(self) -> float:
        """Fine enough for the shortest time that is set."""
        timeouts = self.config.timeouts
        times = [timeouts.query_wait_notify, timeouts.server_idle, timeouts.server_login_retry, timeouts.reserve_pool]
        times += deadlines.all_times(self.config)
        return min(MAX_TICK, max(MIN_TICK, min([time for time in times if time] or [MAX_TICK]) / 10))

    async def drain(self) -> None:
        """Let transactions end. Whoever then asks for more is sent away, and so is who asks for nothing. Returns when no client is left.

        It is best to be told so in answer to a request: libpq takes an error that it reads together with the end of an answer for a notice.
        """
        self.draining = True
        seen: dict[Client, tuple[float, float]] = {}
        started = trio.current_time()
        while self.clients.by_id:
            now = trio.current_time()
            for client in list(self.clients.by_id.values()):
                client.farewell = shutting_down()
                if not client.is_idle():
                    seen.pop(client, None)
                    continue
                asked_at, since = seen.setdefault(client, (client.asked_at, now))
                if asked_at != client.asked_at and now - started < DRAIN_PATIENCE:
                    del seen[client]
                elif now - since >= DRAIN_QUIET:
                    client.expel(shutting_down())
            await trio.sleep(DRAIN_TICK)

    def stop(self, mode: StopMode) -> None:
        """End the process. `mode`: now; drain (see `drain`, within timeouts.shutdown); wait_for_servers (`drain` without a time limit);
        wait_for_clients (until they have left by themselves)."""
        self.stop_mode = mode
        self.stopping.set()

    def end_now(self) -> None:
        """End the process without waiting for anybody, whatever it waits for already. Clients are told."""
        self._nursery.cancel_scope.cancel()

    def status(self) -> str:
        """How much there is to do, for people."""
        connections = sum(len(pool.connections) for pool in self.backends.pools())
        return f"{len(self.clients.by_id)} clients, {connections} server connections"

    async def report(self) -> None:
        """Tell the service manager, for ever, that we are alive: this task runs only as long as all others get their turns."""
        while True:
            self.manager.alive(self.status())
            await trio.sleep(self.manager.period)

    async def finish(self) -> None:
        """Do what the stop mode asks for before everything ends."""
        if self.stop_mode == "now":
            return
        limited = self.stop_mode == "drain" and self.config.timeouts.shutdown
        with trio.move_on_after(self.config.timeouts.shutdown if limited else float("inf")):
            if self.stop_mode == "wait_for_clients":
                self.draining = True
                while self.clients.by_id:  # noqa: ASYNC110
                    await trio.sleep(DRAIN_TICK)
            else:
                await self.drain()

    def close_pools(self) -> None:
        """No more server connections; idle ones are closed."""
        self.listening.close()
        for pool in self.backends.pools():
            pool.close()


def shutting_down() -> AdminShutdown:
    """What clients are told."""
    return AdminShutdown("dualpool is shutting down", hint="Connect again.")


async def serve(
    config: Config,
    *,
    path: Path | None = None,
    task_status: trio.TaskStatus[ServerInfo] = trio.TASK_STATUS_IGNORED,
    reactor: Reactor | None = None,
    around: Surroundings | None = None,
) -> None:
    """Run `config` until cancelled or told to stop (`Server.stop`).

    `task_status.started()` gets a ServerInfo. Raises ConfigError if a listener cannot be opened. `path`: the file of `config`.
    `around`: None where signals, sockets from elsewhere and the service manager are somebody else's matter.
    """
    for warning in config.warnings:
        event(logging.WARNING, warning)
    async with trio.open_nursery() as pools_nursery:
        server = Server(config, pools_nursery, reactor, path=path, manager=around.manager if around is not None else None)
        pools_nursery.start_soon(pump, server.reactor)
        pools_nursery.start_soon(server.sweep)
        if around is not None:
            await pools_nursery.start(obey, server, around.signals)
        if server.manager.is_there:
            pools_nursery.start_soon(server.report)
        try:
            await _serve_clients(server, around, task_status)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2 * GOODBYE_SECONDS):
                server.close_pools()
                while any(pool.connections for pool in server.backends.pools()):  # noqa: ASYNC110
                    await trio.sleep(DRAIN_TICK)
            pools_nursery.cancel_scope.cancel()


async def _serve_clients(server: Server, around: Surroundings | None, task_status: trio.TaskStatus[ServerInfo]) -> None:
    doors: list[tuple[Door, list[ListeningSocket]]] = []
    given = around.inherited if around is not None else Inherited([])
    addresses: dict[str, list[str]] = {}
    with contextlib.ExitStack() as sockets:
        for name, listener in server.config.listeners.items():
            engine = ENGINES[listener.protocol]
            tls = context_of(listener, engine)
            bound = bound_sockets(listener, given)
            for sock in bound:
                sockets.callback(close_listening, sock)
            door = Door(server, listener, engine, tls)
            door.sockets, door.addresses = list(bound), [address_of(sock) for sock in bound]
            doors.append((door, bound))
            server.doors.append(door)
            addresses[name] = door.addresses
        http = http_sockets(server.config, given)
        for sock in http:
            sockets.callback(close_listening, sock)
        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in doors]
            for (door, bound), scope in zip(doors, scopes, strict=True):
                nursery.start_soon(_listen, door, bound, scope)
            for name, listening in addresses.items():
                for address in listening:
                    event(logging.INFO, f'listener "{name}" listening on {address}')
            if http:
                from dualpool.admin.http import serve_http  # costs a third of a second

                nursery.start_soon(serve_http, server, http)
                addresses["http"] = [address_of(sock) for sock in http]
                event(logging.INFO, f"admin http listening on {', '.join(addresses['http'])}")
            for left in given.close():
                event(logging.WARNING, f"no listener is for the socket {left} that was passed on to us")
            task_status.started(ServerInfo(addresses))
            server.manager.ready(server.status())
            if around is not None:
                around.when_ready()
            await server.stopping.wait()
            server.manager.stopping(f"shutting down ({server.stop_mode}): {server.status()}")
            if turn_away([sock for _, bound in doors for sock in bound]):
                await trio.sleep(HANDSHAKE_SECONDS)
            for scope in scopes:
                scope.cancel()
            await server.finish()
            server.stopped.set()
            nursery.cancel_scope.cancel()


def http_sockets(config: Config, given: Inherited) -> list[ListeningSocket]:
    """Where HTTP is answered; beside a successor, too, where listeners can have one. Raises ConfigError."""
    bind = config.admin.http
    if bind is None:
        return []
    try:
        share = any(listener.reuse_port for listener in config.listeners.values())
        return [foreign(sock) for sock in given.named("http") + given.at(bind)] or sockets_for(bind, HTTP_BACKLOG, share=share)
    except OSError as error:
        raise ConfigError(f"admin.http: cannot listen on {bind}: {error.strerror or error}", hint="Choose another port.") from error


async def _listen(door: Door, sockets: list[ListeningSocket], accepting: trio.CancelScope) -> None:
    """One listener: its clients' nursery outlives its accept loops, which `accepting` ends; then others may listen there."""
    async with trio.open_nursery() as clients:
        with accepting:
            async with trio.open_nursery() as loops:
                for sock in sockets:
                    loops.start_soon(accept_clients, sock, clients, door.receive)
        for sock in sockets:
            with contextlib.suppress(OSError):
                accept_waiting(sock, clients, door.receive, door.listener.backlog)
            close_listening(sock)


def main(config: Config, path: Path | None = None, around: Surroundings | None = None) -> int:
    """`dualpool run`: serve until a signal."""
    configure(config.log)
    raise_file_limit()
    spare_the_collector()
    try:
        trio.run(partial(serve, config, path=path, around=around or Surroundings()))
    except* ConfigError as errors:
        raise errors.exceptions[0] from None
    finally:
        FOLDS.tell(inf)
    return 0


def spare_the_collector() -> None:
    """What is there before the first client stays to the end: to look through it takes the collector tens of milliseconds each time."""
    gc.collect()
    gc.freeze()


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each client and each server connection is one."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
