"""The smallest pooler there can be: it joins clients' sockets to a few server connections by the relays alone, for the relays' tests.

One thread, blocking logins, `select` afterwards. A server connection that is released goes to the end of the line, so that a client meets
another one for nearly every command.
"""

import selectors
import socket
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any

import pymysql

from dualpool.accounts import Account, FrontendPolicy, ServerTarget
from dualpool.errors import DualpoolError, ServerLost
from dualpool.mysql import ENGINE
from dualpool.mysql.client_relay import ClientRelay
from dualpool.protocol import BROKEN, CANCEL, CLOSE, NEEDS_SERVER, RELEASE, TRANSACTION, FindAccount, RelayLimits
from tests.helpers.blocking import TIMEOUT, Driver
from tests.helpers.servers import MySQLServer

CHUNK = 1 << 16


class Joined:
    """A client's socket with its relay."""

    def __init__(self, sock: socket.socket, relay: ClientRelay) -> None:
        self.sock = sock
        self.relay = relay
        self.server: Server | None = None


class Server:
    """A server connection with its relay."""

    def __init__(self, target: ServerTarget, limits: RelayLimits) -> None:
        self.sock = socket.create_connection((target.host, target.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        driver = Driver(self.sock)
        login = driver.run(ENGINE.connect(target))
        self.relay = ENGINE.server_relay(login, limits, target)
        self.driver = driver
        self.client: Joined | None = None
        self.login = login
        self.resets = 0


class Pooler:
    """A context manager. `size` server connections to `server`; clients log in as app/app."""

    def __init__(
        self, server: MySQLServer, size: int = 2, mode: int = TRANSACTION, chunk: int = CHUNK, limits: RelayLimits | None = None,
        database: str = "app",
    ) -> None:  # fmt: skip
        self.limits = limits or RelayLimits(mode=mode)
        self.chunk = chunk
        self.database = database
        self.target = target = ServerTarget(server.host, server.port, server.user, database, password=server.password, sslmode="disable")
        self.servers = [Server(target, self.limits) for _ in range(size)]
        self.idle = deque(self.servers)
        self.waiting: deque[Joined] = deque()
        self.clients: list[Joined] = []
        self.faults: list[BaseException] = []
        self.leases = 0
        self._next_id = 1000
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Pooler":
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        for server in self.servers:
            self._selector.register(server.sock, selectors.EVENT_READ, (self._from_server, server))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._wake.send(b"x")
        self._thread.join(2 * TIMEOUT)
        assert not self._thread.is_alive(), "the pooler hangs"
        for one in (*self.servers, *self.clients):
            one.sock.close()
        self._listener.close()
        self._wake.close()
        self._woken.close()
        self._selector.close()
        if self.faults:
            raise self.faults[0]  # what failed in the test is a consequence of it

    def connect(self, **more: Any) -> "pymysql.Connection[Any]":
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="app",
            password="app",
            **({"database": self.database, "read_timeout": TIMEOUT, "connect_timeout": int(TIMEOUT)} | more),
        )

    def _run(self) -> None:
        while True:
            ready = [key.data for key, _ in self._selector.select()]
            if None in ready:
                return
            try:
                self._handle(ready[0])  # one event a round: what it does may close or empty the sockets of the others
            except BaseException as error:
                self.faults.append(error)
                self._close_all()
                return

    def _handle(self, event: Any) -> None:
        if event == self._accept:
            self._accept()
        else:
            call, who = event
            call(who)

    def _close_all(self) -> None:
        for client in self.clients:
            client.sock.close()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._next_id += 1

        def find(command: FindAccount) -> Account:
            return Account(command.user, command.database, secrets=("app",))

        driver = Driver(sock, find=find)
        policy = FrontendPolicy(server_version="8.4.0", auth_plugin="mysql_native_password", connection_id=self._next_id)
        login: Any = driver.run(ENGINE.accept(policy))
        relay = ENGINE.client_relay(login, self.limits)
        sock.sendall(ENGINE.welcome(login, {}, self._next_id, b""))
        client = Joined(sock, relay)
        self.clients.append(client)
        self._selector.register(sock, selectors.EVENT_READ, (self._from_client, client))

    def _from_client(self, client: Joined) -> None:
        try:
            data = client.sock.recv(self.chunk)
        except ConnectionError:
            data = b""
        if not data:
            self._leave(client)
            return
        self._feed(client, data)

    def _feed(self, client: Joined, data: bytes) -> None:
        relay = client.relay
        verdict = relay.on_client_bytes(data)
        self._send(client)
        self._obey(client, verdict)

    def _obey(self, client: Joined, verdict: int) -> None:
        if verdict & RELEASE and client.server is not None:
            self._release(client.server)
        if verdict & CANCEL:
            client.relay.cancel_done(self._kill(client.relay))
            self._send(client)
        if verdict & CLOSE:
            self._leave(client)
        elif verdict & NEEDS_SERVER and client.server is None and client not in self.waiting:
            if self.idle:
                self._attach(client, self.idle.popleft())
            else:
                self.waiting.append(client)

    def _attach(self, client: Joined, server: Server) -> None:
        client.server = server
        server.client = client
        self.leases += 1
        verdict = client.relay.attach(server.relay)
        self._send(client)
        self._obey(client, verdict)

    def _send(self, client: Joined) -> None:
        relay = client.relay
        if relay.to_client:
            _send_all(client.sock, relay.to_client)
            relay.to_client = b""
        if relay.to_server:
            assert client.server is not None
            client.server.sock.sendall(relay.to_server)
            relay.to_server = b""

    def _from_server(self, server: Server) -> None:
        data = server.sock.recv(self.chunk)
        if not data:
            raise ServerLost("the server closed the connection")
        relay = server.relay
        try:
            verdict = relay.on_server_bytes(data)
        except DualpoolError as error:
            assert server.client is not None
            _send_all(server.client.sock, ENGINE.error_message(error))
            raise
        assert not verdict & BROKEN, relay.last_error
        if relay.to_client:
            if server.client is not None:
                _send_all(server.client.sock, relay.to_client)
            relay.to_client = b""
        if relay.to_server:
            server.sock.sendall(relay.to_server)
            relay.to_server = b""
        if verdict & RELEASE:
            self._release(server)
        elif verdict & CLOSE and server.client is not None:
            self._leave(server.client)

    def _release(self, server: Server) -> None:
        client = server.client
        assert client is not None
        assert server.relay.is_quiet()
        client.relay.detach()
        client.server = None
        server.client = None
        self._give_back(server)
        if client.relay.held_bytes() and client not in self.waiting:
            self._feed(client, b"")

    def _give_back(self, server: Server) -> None:
        if server.relay.dirty:
            server.resets += 1
            server.driver.run(ENGINE.reset(server.relay))
        self.idle.append(server)
        if self.waiting:
            self._attach(self.waiting.popleft(), self.idle.popleft())

    def _leave(self, client: Joined) -> None:
        self._selector.unregister(client.sock)
        client.sock.close()
        self.clients.remove(client)
        if client in self.waiting:
            self.waiting.remove(client)
        server = client.server
        if server is not None:
            client.relay.detach()
            client.server = server.client = None
            if not server.relay.is_quiet():
                server.driver.run(ENGINE.recover(server.relay))
            self._give_back(server)

    def _kill(self, relay: ClientRelay) -> bool:
        for client in self.clients:
            if client.relay.connection_id == relay.cancel_key:
                if client.server is not None:
                    with socket.create_connection((self.target.host, self.target.port)) as sock:
                        Driver(sock).run(ENGINE.cancel(self.target, client.server.login))
                return True
        return False


def _send_all(sock: socket.socket, data: bytes | bytearray) -> None:
    """A client that has gone gets nothing; reading its socket tells so next."""
    with suppress(ConnectionError):
        sock.sendall(data)
