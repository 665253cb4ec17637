"""One client from its first byte to its last: login, the settings it starts with, and the wait until it is over or logs in anew.

In between, the client's bytes are the reactor's business (link.py); the task only sleeps.
"""

import contextlib
import hashlib
import hmac
import math
import secrets
import socket
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import attrs
import trio

from dualpool.accounts import Account, CancelRequest, ClientLogin, FrontendPolicy
from dualpool.admission import assigned, may_ask_for_maintenance
from dualpool.authentication.gate import Visit
from dualpool.backends import PoolEntry
from dualpool.checkout import checkout
from dualpool.config import Listener
from dualpool.errors import AdminShutdown, DualpoolError, LoginFailed, LoginTimeout, PoolClosed, QueryCanceled
from dualpool.exchange import Stream, drive
from dualpool.link import VANISHED, Client, ServerConnection, WatchedClient
from dualpool.protocol import FIRST_CLIENT_ID, SESSION, ClientRelay, ConnectionClosed, Engine, FindAccount
from dualpool.proxy_protocol import networks, read_header, speaks_for_others
from dualpool.tls import ListenerContext

if TYPE_CHECKING:
    from dualpool.server import Server

CLOSE_GRACE = 1.0
"""Seconds for sending a last error message to a client that does not get in."""
LINGER = 0.25
"""Seconds for a client to close after a last message that is on its way: what it has asked meanwhile must not be answered by a reset."""


class Clients:
    """The clients that are logged in, by their virtual process id; and their cancel keys, which need no storage."""

    def __init__(self) -> None:
        self.by_id: dict[int, Client] = {}
        self._ids = count(1)
        self._key = secrets.token_bytes(32)
        self._parked: dict[Client, trio.lowlevel.Task] = {}
        self._returning: dict[Client, trio.CancelScope] = {}

    def new_id(self) -> int:
        """A virtual process id: positive, 31 bits, not in use."""
        while True:
            process_id = FIRST_CLIENT_ID + next(self._ids) % (0x80000000 - FIRST_CLIENT_ID)
            if process_id not in self.by_id:
                return process_id

    def secret(self, process_id: int) -> bytes:
        """The cancel key that belongs to a virtual process id: 32 bytes; protocol 3.0 uses the first 4."""
        return hmac.digest(self._key, process_id.to_bytes(4, "big"), hashlib.sha256)

    def is_genuine(self, request: CancelRequest) -> bool:
        """Is the key that of its process id?"""
        expected = self.secret(request.process_id)
        return len(request.secret) in {4, len(expected)} and hmac.compare_digest(expected[: len(request.secret)], request.secret)

    async def until_called(self, client: Client) -> None:
        """Sleep until `ended(client)`, or until it is to log in anew; a cancellation wakes it, too."""
        if not client.ended_by and not client.returning:
            await self._sleep(client)

    async def until_closed(self, client: Client) -> None:
        """Sleep until the client that has ended has closed its end, too."""
        if client.channel.is_open():
            await self._sleep(client)

    async def _sleep(self, client: Client) -> None:
        self._parked[client] = trio.lowlevel.current_task()

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self._parked.pop(client, None)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    @contextlib.contextmanager
    def while_alive(self, client: Client) -> Iterator[None]:
        """What is done for a client that nobody else ends meanwhile: else it is cancelled."""
        with trio.CancelScope() as scope:
            self._returning[client] = scope
            try:
                yield
            finally:
                del self._returning[client]

    def ended(self, client: Client) -> None:
        """The client is over: its session task should end."""
        scope = self._returning.get(client)
        if scope is not None:
            scope.cancel()
        self.wake(client)

    def wake(self, client: Client) -> None:
        """Wake the client's session task."""
        task = self._parked.pop(client, None)
        if task is not None:
            trio.lowlevel.reschedule(task)


class Door:
    """What the clients of one listener meet: its TLS, its authentication, its pool mode."""

    def __init__(self, server: "Server", listener: Listener, engine: Engine, tls: ListenerContext | None) -> None:
        self.server = server
        self.listener = listener
        self.engine = engine
        self.tls = tls
        self.sockets: list[socket.socket] = []
        """Where it listens, and `addresses`: the same as text."""
        self.addresses: list[str] = []
        self.accepted = 0
        self.arriving = 0
        """Clients in the middle of their login, and `clients`: those that are in."""
        self.clients = 0

    async def receive(self, sock: socket.socket) -> None:
        """A client has connected. The session's whole life; raises nothing but cancellation: a fault of ours costs this client alone."""
        stream = Stream(sock, self.tls, server_side=True)
        try:
            visit = Visit(stream)
        except OSError:
            stream.close()
            return
        self.accepted += 1
        try:
            with contextlib.ExitStack() as place:
                await self._receive(visit, place)
        except Exception as error:
            self.server.log_fault(error, f'a client of listener "{self.listener.name}"')
            stream.close()

    async def _receive(self, visit: Visit, place: contextlib.ExitStack) -> None:
        stream = visit.stream
        self.arriving += 1
        try:
            guest = await self._let_in(visit, place)
        except (DualpoolError, ConnectionClosed, OSError) as error:
            self._not_let_in(visit, error)
            stream.transport().close()
            return
        except BaseException:
            stream.close()
            raise
        finally:
            self.arriving -= 1
        self.clients += 1
        try:
            if isinstance(guest, Client):
                await self._host(guest, visit, place)
            elif guest is not None:
                await self.server.serve_console(stream, self.engine, guest)
        finally:
            self.clients -= 1

    def _not_let_in(self, visit: Visit, error: Exception) -> None:
        if isinstance(error, DualpoolError):
            self.server.gate.failed(visit, error)
            self.server.journal.login_failed(self.listener.name, visit, error)

    async def _host(self, client: Client, visit: Visit, place: contextlib.ExitStack) -> None:
        """The client is the reactor's; be there for its end, and for logins in the middle."""
        try:
            await self.server.clients.until_called(client)
            while client.returning and not client.ended_by:
                await self._let_in_anew(client, visit, place)
                await self.server.clients.until_called(client)
            # It has not read its last message yet, and may never do.
            with trio.move_on_after(LINGER if client.channel.queue is None else CLOSE_GRACE):
                await self.server.clients.until_closed(client)
        finally:
            self._see_off(client)

    async def _let_in(self, visit: Visit, place: contextlib.ExitStack) -> Client | ClientLogin | None:
        """The login. A ClientLogin is for the admin console; None was a cancel request, which has been dealt with.

        `place`: closed when the client has left, which is counted until then.
        """
        server, stream = self.server, visit.stream
        until, too_late = self._time_for_login()
        with trio.move_on_at(until + CLOSE_GRACE):
            if speaks_for_others(visit.peer, networks(self.listener.proxy_protocol)):
                visit.peer = await drive(read_header(visit.peer), stream)
            process_id = server.clients.new_id()
            since = trio.current_time()
            policy = await self._policy(visit, process_id, since)
            find_account = partial(self._find_account, visit)
            answer = await drive(self.engine.accept(policy), stream, find_account, until=until, too_late=too_late)
            if isinstance(answer, CancelRequest):
                await server.cancels.requested(answer)
                stream.close()
                return None
            try:
                await self._trust(visit, answer)
                answer = assigned(server.config, self.listener, answer)
                if answer.account.console:
                    return console_guest(answer, process_id)
                place.enter_context(server.guests.counted(server.config, self.listener.protocol, answer))
                client = await self._welcome(stream, answer, process_id, policy.server_status, since)
                client.address = "" if visit.peer.address is None else str(visit.peer.address)
                server.settle(client)
                server.journal.connected(client, visit)
                return client
            except DualpoolError as error:
                with trio.move_on_after(CLOSE_GRACE):
                    await stream.send_all(self.engine.error_message(error, answer))
                raise
        await self._say_last(stream, too_late)
        raise too_late

    def _time_for_login(self) -> tuple[float, LoginTimeout]:
        """Until when a login that begins now may last (trio's clock), and what the client is told then."""
        seconds = self.server.config.timeouts.client_login
        error = LoginTimeout(f"the login took longer than timeouts.client_login ({seconds:g} s)")
        return trio.current_time() + (seconds or math.inf), error

    async def _say_last(self, stream: Stream, error: LoginTimeout) -> None:
        with trio.move_on_after(CLOSE_GRACE):
            await stream.send_all(self.engine.error_message(error))

    async def _let_in_anew(self, client: Client, visit: Visit, place: contextlib.ExitStack) -> None:
        """The client's next login on the same connection. If it fails, or somebody ends the client meanwhile, that is its end."""
        # As at every login, it is counted again when it has proven who it is.
        place.close()
        with self.server.clients.while_alive(client):
            try:
                await self._log_in_anew(client, visit, place)
            except (DualpoolError, ConnectionClosed, OSError) as error:
                self._not_let_in(visit, error)
                client.leave("the login anew failed" if isinstance(error, DualpoolError) else VANISHED, cancel=False)
        if client.returning:
            client.channel.close()

    async def _log_in_anew(self, client: Client, visit: Visit, place: contextlib.ExitStack) -> None:
        server, stream = self.server, visit.stream
        assert client.login is not None
        until, too_late = self._time_for_login()
        with trio.move_on_at(until + CLOSE_GRACE):
            await stream.send_all(client.channel.take_unsent())
            since = trio.current_time()
            policy = await self._policy(visit, client.id, since)
            request = client.relay.login_request
            before = self.engine.login_now(client.login, client.relay)
            exchange, find_account = self.engine.reaccept(policy, before, request), partial(self._find_account, visit)
            login = await drive(exchange, stream, find_account, until=until, too_late=too_late)
            try:
                await self._trust(visit, login)
                login = assigned(server.config, self.listener, login)
                if login.account.console:
                    raise LoginFailed("the admin console is for new connections only", hint="Connect again, to that database.")
                place.enter_context(server.guests.counted(server.config, self.listener.protocol, login))
                await self._welcome_back(client, login, since)
                server.journal.connected(client, visit)
                return
            except DualpoolError as error:
                with trio.move_on_after(CLOSE_GRACE):
                    await stream.send_all(self.engine.error_message(error, login))
                raise
        await self._say_last(stream, too_late)
        raise too_late

    async def _welcome_back(self, client: Client, login: ClientLogin, since: float) -> None:
        """Tell the client that it is in again, and give its socket back to the reactor. Its session begins after `since` (trio's clock)."""
        server = self.server
        entry, parameters, certain = await self._place(login, since)
        if client.ended_by:
            # In the same moment as the last bytes of its login came, so that the cancellation has not met any wait.
            raise ConnectionClosed
        client.returned(self._relay(login, entry, parameters, certain), entry.pool, login)
        entry.pool.counters.logins += 1
        server.settle(client)
        client.channel.send(self.engine.welcome(login, parameters, client.id, server.clients.secret(client.id)))
        client.channel.open()
        if login.pending:
            client.feed(login.pending)

    def _relay(self, login: ClientLogin, entry: PoolEntry, parameters: dict[str, str], certain: bool) -> ClientRelay:
        mode = SESSION if login.replication else login.account.mode
        relay = self.engine.client_relay(login, self.server.backends.limits_of(mode, entry.database))
        relay.greeted(parameters)
        relay.uncertain = self.engine.rereads and not certain
        relay.peers = self.server.clients.by_id
        return relay

    async def _trust(self, visit: Visit, login: ClientLogin) -> None:
        """The client has proven who it is, but for what only the server can tell."""
        if login.account.passthrough:
            await self.server.gate.prove(self.listener.protocol, login)
        self.server.gate.succeeded(visit)
        for ignored in self.listener.ignore_parameters:
            login.parameters.pop(ignored, None)

    async def _welcome(self, stream: Stream, login: ClientLogin, process_id: int, status: int, since: float) -> Client:
        """Tell the client that it is in, and hand its socket to the reactor. Its session begins after `since` (trio's clock).

        `status`: what its greeting said of its session.
        """
        server, account = self.server, login.account
        entry, parameters, certain = await self._place(login, since)
        parameters = self.engine.as_greeted(parameters, status)
        relay = self._relay(login, entry, parameters, certain)
        buffer_bytes = server.config.limits.client_buffer_bytes
        made = Client if server.backends.watch is None else WatchedClient
        client = made(server.reactor, stream.transport(), relay, entry.pool, self.engine, server, account.lane, buffer_bytes)
        client.id = process_id
        client.login = login
        server.clients.by_id[process_id] = client
        entry.pool.clients += 1
        entry.pool.counters.logins += 1
        client.channel.send(self.engine.welcome(login, parameters, process_id, server.clients.secret(process_id)))
        server.suspension.greet(client)
        client.channel.open()
        return client

    async def _place(self, login: ClientLogin, since: float) -> tuple[PoolEntry, dict[str, str], bool]:
        """The client's pool, and `_parameters`. A reload may have put another pool in the place of the first one meanwhile."""
        backends, protocol = self.server.backends, self.listener.protocol
        entry = backends.entry(protocol, login)
        if login.replication:
            return backends.replication_entry(entry, login), {}, True
        while True:
            try:
                parameters, certain = await self._parameters(entry, login, since)
            except PoolClosed:
                if backends.entry(protocol, login) is entry:
                    raise
            else:
                if backends.entry(protocol, login) is entry:
                    return entry, parameters, certain
            entry = backends.entry(protocol, login)

    async def _parameters(self, entry: PoolEntry, login: ClientLogin, since: float) -> tuple[dict[str, str], bool]:
        """What a client with these start-up settings is told, and whether that is so after `since`. The first of each kind asks a server.

        It may be otherwise only if no server connection is there, or becomes free in time, on which to ask again.
        """
        wanted = self.engine.unproven(login)
        certain = True
        if wanted in entry.welcomes:
            if self.engine.rereads:
                certain = await self.server.upkeep.reread(entry.backend, since)
            elif self.engine.asks_defaults:
                certain = await entry.question.ask(trio.current_time(), partial(self._see_defaults, entry))
        known = entry.welcomes.get(wanted)  # none if the answer was a new one
        if known is not None:
            return known, certain
        conn = await checkout(entry.pool, login.account.lane)
        assert isinstance(conn, ServerConnection)
        parameters = await self.server.upkeep.use(conn, self.engine.prove(conn.relay, wanted))
        if self.engine.asks_defaults:
            entry.see_told(self.engine.told(conn.relay))
        if self.engine.rereads:
            self.server.backends.learn_defaults(entry.backend, parameters)
        entry.remember_welcome(wanted, parameters)
        return parameters, True

    async def _see_defaults(self, entry: PoolEntry) -> float | None:
        """Ask a server by what defaults sessions begin now; if they are new, what clients were told is forgotten. As `ask_on_any`."""

        async def ask(conn: ServerConnection) -> None:
            defaults = await self.server.upkeep.use(conn, self.engine.defaults(conn.relay, entry.target.user))
            entry.see_told(self.engine.told(conn.relay))
            entry.see_defaults(defaults, conn.target)

        return await self.server.upkeep.ask_on_any((entry.pool,), entry.question, ask, connects=True)

    def _see_off(self, client: Client) -> None:
        if not client.ended_by:
            client.expel(AdminShutdown("dualpool is shutting down", hint="Connect again."))
        client.channel.close()
        self.server.journal.left(client)
        del self.server.clients.by_id[client.id]
        client.counters.gather_client(client.relay)
        client.pool.clients -= 1
        if client.login is not None and client.login.replication:
            client.pool.close()  # it was this client's alone; Backends.forget_closed does the rest

    # ------------------------------------------------------------------------------------------------------------ accounts

    async def _policy(self, visit: Visit, process_id: int, since: float) -> FrontendPolicy:
        tls = self.listener.tls
        version, status = await self._greeting(since)
        return FrontendPolicy(
            tls=self.tls is not None,
            tls_required=tls is not None and tls.required,
            client_certificates=tls is not None and bool(tls.client_ca),
            unix_socket=visit.is_local,
            max_startup_bytes=self.server.config.limits.max_startup_bytes,
            client_address="" if visit.is_local else visit.peer.name,
            connection_id=process_id,
            server_version=version,
            server_status=status,
        )

    async def _greeting(self, since: float) -> tuple[str, int]:
        """What the first backend of the listener's protocol says in its: before it logs in, a client has not said which it wants."""
        if self.engine.rereads:
            for backend in self.server.backends.states.values():
                if backend.config.protocol == self.listener.protocol:
                    return await self.server.upkeep.greeting(backend, since)
        return "", self.engine.greeting_status({})

    async def _find_account(self, visit: Visit, asked: FindAccount) -> Account:
        server = self.server
        account = await server.gate.account(self.listener, visit, asked)
        if not account.console and not may_ask_for_maintenance(server.config, account, asked.parameters):
            server.guests.check(server.config, self.listener.protocol, account.user, account.database)
        if server.draining:
            raise AdminShutdown("dualpool is shutting down", hint="Connect again.")
        if (self.listener.protocol, asked.database) in server.backends.halts.disabled:
            raise PoolClosed(f'database "{asked.database}" is disabled', hint="ENABLE on the admin console ends that.")
        return account


def console_guest(login: ClientLogin, process_id: int) -> ClientLogin:
    """A login to the admin console, if its user may have it. Raises LoginFailed."""
    if not (login.account.admin or login.account.monitor):
        hint = "Users of the admin console are in admin.users and admin.stats_users."
        raise LoginFailed("not allowed", sqlstate="42501", errno=1227, hint=hint)
    return attrs.evolve(login, connection_id=process_id)


def canceled() -> QueryCanceled:
    """What a waiting client is told when it cancels its own wait."""
    return QueryCanceled("canceling statement due to user request")
