"""The only place where server connections are born: dial, TLS, log in."""

import socket
from typing import Final

import attrs
import trio

from dualpool.accounts import ServerLogin, ServerTarget
from dualpool.backends import BackendState, PoolEntry
from dualpool.errors import ConnectFailed, DualpoolError
from dualpool.exchange import Stream, drive
from dualpool.link import ServerConnection, Supervisor
from dualpool.protocol import ConnectionClosed, RelayLimits
from dualpool.reactor import Reactor

KEEPALIVE: Final = 1
MAX_SIMULTANEOUS_LOGINS: Final = 16
"""To one backend. A login costs the server a process or a thread and a password hash."""


class Connector:
    """Connects to backends. `timeout` is for one connect with its login, in seconds; 0 means none."""

    def __init__(self, reactor: Reactor, supervisor: Supervisor, timeout: float) -> None:
        self.reactor = reactor
        self.supervisor = supervisor
        self.timeout = timeout or float("inf")
        self._turns: dict[BackendState, trio.CapacityLimiter] = {}

    async def connect(self, entry: PoolEntry, limits: RelayLimits) -> ServerConnection:
        """A new server connection for the pool, in the reactor, ready for `pool.connected()`. Raises ConnectFailed."""
        turn = self._turns.setdefault(entry.backend, trio.CapacityLimiter(MAX_SIMULTANEOUS_LOGINS))
        generation = entry.pool.generation
        async with turn:
            stream, target, login = await self._log_in_somewhere(entry)
        relay = entry.engine.server_relay(login, limits, target)
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
        """Try the backend's hosts in turn, beginning with the one that answered last."""
        hosts = entry.backend.config.hosts
        first = entry.backend.host_index
        error: DualpoolError = ConnectFailed(f'backend "{entry.backend.config.name}" has no hosts')
        for offset in range(len(hosts)):
            index = (first + offset) % len(hosts)
            host, port = hosts[index]
            target = attrs.evolve(entry.target, host=host, port=port)
            try:
                with trio.fail_after(self.timeout):
                    stream, login = await self._log_in(entry, target)
                entry.backend.host_index = index
                return stream, target, login
            except trio.TooSlowError:
                error = ConnectFailed(
                    f'backend "{entry.backend.config.name}": {host}:{port} did not answer within {self.timeout:g} s',
                    hint="Check the address; timeouts.server_connect is the limit.",
                )
            except ConnectFailed as failed:
                failed.message = f'backend "{entry.backend.config.name}": {failed.message}'
                error = failed
        raise error

    async def _log_in(self, entry: PoolEntry, target: ServerTarget) -> tuple[Stream, ServerLogin]:
        stream = await self.dial(entry.backend, target)
        try:
            return stream, await drive(entry.engine.connect(target), stream)
        except ConnectionClosed as closed:
            stream.close()
            raise ConnectFailed("the server closed the connection during the login") from closed
        except BaseException:
            stream.close()
            raise

    async def dial(self, backend: BackendState, target: ServerTarget) -> Stream:
        """A connected socket. Raises ConnectFailed."""
        try:
            if target.host.startswith("/"):
                path = backend.engine.socket_path(target.host, target.port)
                sock = await _connected(socket.AF_UNIX, path)
            else:
                sock = await _dial_tcp(target.host, target.port)
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
                if backend.asks_capacity:
                    backend.asks_capacity = False
                    try:
                        backend.budget.set_limit(await drive(entry.engine.capacity(conn.relay, conn.login), stream))
                    except BaseException:
                        backend.asks_capacity = True
                        raise
                if backend.config.connect_query:
                    await drive(entry.engine.check(conn.relay, backend.config.connect_query), stream)
        except (DualpoolError, ConnectionClosed, trio.TooSlowError) as error:
            raise ConnectFailed(f'backend "{backend.config.name}": a new connection could not be prepared: {error}') from error


async def _dial_tcp(host: str, port: int) -> socket.socket:
    """The first of the name's addresses that answers."""
    error: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            sock = await _connected(family, address, kind, protocol)
        except OSError as failed:
            error = failed
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, KEEPALIVE)
        return sock
    raise error


async def _connected(family: int, address: object, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
    sock = trio.socket.socket(family, kind, protocol)
    try:
        await sock.connect(address)
    except BaseException:
        sock.close()
        raise
    plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    return plain
