"""The only place where server connections are born: dial, TLS, log in, and see that it is the server that is looked for."""

import logging
import socket
from time import monotonic
from typing import Final

import attrs
import trio

from dualpool.accounts import ServerLogin, ServerTarget
from dualpool.backends import MAX_GREETINGS, BackendState, PoolEntry
from dualpool.config import Config
from dualpool.errors import ConnectFailed, DualpoolError, RemoteProtocolError, ServerLost
from dualpool.exchange import Stream, drive
from dualpool.hosts import Host, Resolver, Search
from dualpool.link import ServerConnection, Supervisor
from dualpool.log import event
from dualpool.protocol import MAINTENANCE, ConnectionClosed, RelayLimits
from dualpool.reactor import Reactor

KEEPALIVE: Final = 1
MAX_SIMULTANEOUS_LOGINS: Final = 16
"""To one backend. A login costs the server a process or a thread and a password hash."""


class Connector:
    """Connects to backends. One connect to one host, with its login, has `timeouts.server_connect`."""

    def __init__(self, reactor: Reactor, supervisor: Supervisor, config: Config) -> None:
        self.reactor = reactor
        self.supervisor = supervisor
        self._turns: dict[BackendState, trio.CapacityLimiter] = {}
        self.take(config)

    def take(self, config: Config) -> None:
        """Another configuration. Names are looked up anew."""
        self.config = config
        self.timeout = config.timeouts.server_connect or float("inf")
        self.resolver = Resolver(config.timeouts.dns)

    async def connect(self, entry: PoolEntry, limits: RelayLimits, lane: int) -> ServerConnection:
        """A new server connection for the pool, in the reactor, ready for `pool.connected()`. Raises ConnectFailed."""
        generation = entry.pool.generation
        if lane == MAINTENANCE:  # does not wait behind others
            stream, target, login = await self._log_in_somewhere(entry)
        else:
            async with self._turns.setdefault(entry.backend, trio.CapacityLimiter(MAX_SIMULTANEOUS_LOGINS)):
                stream, target, login = await self._log_in_somewhere(entry)
        relay = entry.engine.server_relay(login, limits, target)
        relay.wants_writes = entry.backend.config.target_session_attrs in {"read-write", "primary"}
        conn = ServerConnection(
            self.reactor, stream.transport(), relay, entry.pool, entry.engine, self.supervisor, login, target
        )  # fmt: skip
        conn.generation = generation
        try:
            await self._prepare(entry, conn, stream)
        except BaseException:
            stream.close()
            raise
        conn.channel.open()
        return conn

    async def _log_in_somewhere(self, entry: PoolEntry) -> tuple[Stream, ServerTarget, ServerLogin]:
        """Try the backend's hosts in turn, until one is what is looked for."""
        backend = entry.backend
        search = Search(backend.hosts, backend.config.target_session_attrs, monotonic)
        for host in search:
            try:
                found = await self._try_host(entry, host, search)
            except ConnectFailed as failed:
                failed.message = f'backend "{backend.config.name}": {failed.message}'
                search.failed(host, failed)
            else:
                search.answered(host)
                self._answered(backend, host)
                return found
        raise search.error

    def _answered(self, backend: BackendState, host: Host) -> None:
        """Remember which it was. With in-order it is another one only if those before it failed, or are back."""
        hosts, before = backend.config.hosts, backend.host_index
        backend.greetings_left = MAX_GREETINGS
        backend.host_index = hosts.index(host) if host in hosts else 0
        if backend.host_index != before < len(hosts) and backend.config.load_balance == "in-order":
            names = [f"{hosts[index][0]}:{hosts[index][1]}" for index in (backend.host_index, before)]
            event(logging.WARNING, f'backend "{backend.config.name}": connects go to {names[0]} now, no longer to {names[1]}')

    async def _try_host(self, entry: PoolEntry, host: Host, search: Search) -> tuple[Stream, ServerTarget, ServerLogin]:
        target = attrs.evolve(entry.target, host=host[0], port=host[1])
        try:
            with trio.fail_after(self.timeout):
                stream, login = await self._log_in(entry, target, search)
        except trio.TooSlowError:
            raise ConnectFailed(
                f"{host[0]}:{host[1]} did not answer within {self.timeout:g} s",
                hint="Check the address; timeouts.server_connect is the limit.",
            ) from None
        return stream, attrs.evolve(target, address=numeric_address(stream.sock)), login

    async def _log_in(self, entry: PoolEntry, target: ServerTarget, search: Search) -> tuple[Stream, ServerLogin]:
        stream = await self.dial(entry.backend, target)
        try:
            login = await drive(entry.engine.connect(target), stream)
            if search.asks_role:
                await self._see_role(entry, target, search, stream, login)
            return stream, login
        except (ServerLost, RemoteProtocolError) as lost:
            stream.close()
            raise ConnectFailed(f"{target.host}:{target.port}: {lost.message}") from lost
        except ConnectionClosed as closed:
            stream.close()
            raise ConnectFailed("the server closed the connection during the login") from closed
        except BaseException:
            stream.close()
            raise

    @staticmethod
    async def _see_role(entry: PoolEntry, target: ServerTarget, search: Search, stream: Stream, login: ServerLogin) -> None:
        """Raises ConnectFailed if the server is not what is looked for, ServerLost."""
        role = await drive(entry.engine.role(login), stream)
        try:
            search.judge((target.host, target.port), role)
        except ConnectFailed:
            await stream.send_all(entry.engine.goodbye)
            raise

    async def dial(self, backend: BackendState, target: ServerTarget) -> Stream:
        """A connected socket; to the very `target.address`, if it has one. Raises ConnectFailed."""
        try:
            if target.host.startswith("/"):
                path = backend.engine.socket_path(target.host, target.port)
                sock = await _connected(socket.AF_UNIX, socket.SOCK_STREAM, 0, path)
            else:
                sock = await self._dial_tcp(target.address or target.host, target.port)
        except OSError as error:
            raise ConnectFailed(
                f"{target.host}:{target.port} cannot be reached: {error.strerror or error}", hint="See that the server is up."
            ) from error
        # As with libpq, the name in the certificate is that of the url, also where a numeric address is dialled.
        name = backend.config.server_name or ("" if target.host.startswith("/") else target.host)
        return Stream(sock, backend.tls, server_side=False, server_name=name)

    async def _prepare(self, entry: PoolEntry, conn: ServerConnection, stream: Stream) -> None:
        """What is due before a new connection may serve: ask for the capacity, run connect_query."""
        backend = entry.backend
        try:
            with trio.fail_after(self.timeout):
                # The first one, and the first after all were lost: the server may have started again with other settings.
                if backend.asks_capacity and not any(pool.connections for pool in backend.budget.pools):
                    self._set_budget(backend, await drive(entry.engine.capacity(conn.relay, conn.login), stream))
                if entry.engine.asks_defaults and "replication" not in conn.target.parameters:
                    # (If they are new, so is the pool's generation: this one may have begun by the old ones, and goes.)
                    entry.see_defaults(await drive(entry.engine.survey(conn.relay), stream), conn.target)
                if backend.config.connect_query:
                    await drive(entry.engine.check(conn.relay, backend.config.connect_query), stream)
        except (DualpoolError, ConnectionClosed, trio.TooSlowError) as error:
            raise ConnectFailed(f'backend "{backend.config.name}": a new connection could not be prepared: {error}') from error

    def _set_budget(self, backend: BackendState, capacity: int) -> None:
        """The server allows `capacity` connections. What does not fit is said with its numbers."""
        budget, name = backend.budget, backend.config.name
        if budget.configured_limit == capacity and backend.capacity_known:
            return
        backend.capacity_known = True
        budget.set_limit(capacity)
        sizes = {key: database.pool_size for key, database in self.config.databases.items() if database.backend == name}
        event(logging.INFO, f'backend "{name}": the server allows {capacity} connections, {budget.reserve} are reserved for maintenance')
        if sum(sizes.values()) > budget.places():
            parts = " + ".join(f"{key} {size}" for key, size in sizes.items())
            event(
                logging.ERROR if self.config.strict_budget else logging.WARNING,
                f'backend "{name}": the pool sizes sum to {sum(sizes.values())} ({parts}), but {budget.places()} connections are left '
                f"({capacity} - {budget.reserve} reserved)",
            )

    async def _dial_tcp(self, host: str, port: int) -> socket.socket:
        """The first of the name's addresses that answers."""
        error: OSError = OSError(f"{host} has no address")
        for address in await self.resolver.addresses(host, port):
            try:
                sock = await _connected(*address)
            except OSError as failed:
                error = failed
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, KEEPALIVE)
            return sock
        self.resolver.forget(host, port)
        raise error


def numeric_address(sock: socket.socket) -> str:
    """Where a TCP socket leads; "" for others, and if it is broken already."""
    if sock.family == socket.AF_UNIX:
        return ""
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return ""


async def _connected(family: int, kind: int, protocol: int, address: object) -> socket.socket:
    sock = trio.socket.socket(family, kind, protocol)
    try:
        await sock.connect(address)
    except BaseException:
        sock.close()
        raise
    plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    return plain
