"""A client, a server connection, and the link between them while one holds the other.

The whole job: bytes from the client go through its relay to the server connection, bytes from the server connection go through its relay to
the client; the verdict of a relay says when a server connection is needed and when it may go back to the pool. A side that cannot take
bytes stops the other side from being read.

What takes time (connecting, resetting, cancelling, recovering) is not done here but asked of the supervisor, whose methods only schedule.
"""

from typing import Final

from dualpool.buffer import HIGH_WATER
from dualpool.channel import Channel, ChannelOwner
from dualpool.errors import AdminShutdown, DualpoolError, ListenerTooSlow, ServerLost, StateLeaked
from dualpool.lease import CLOSING, LEASED, Leasable, Party, Waiter
from dualpool.migrations import is_of_a_tool
from dualpool.protocol import (
    BROKEN,
    CANCEL,
    CLOSE,
    LEAKED,
    LISTENS,
    NEEDS_SERVER,
    PINNED,
    REACCEPT,
    RELEASE,
    RESUMES,
    VACATE,
    ClientRelay,
    Engine,
    ServerRelay,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dualpool.accounts import ClientLogin, ServerLogin, ServerTarget
    from dualpool.deadlines import Times
    from dualpool.pool import Pool
    from dualpool.reactor import Reactor
    from dualpool.transport import Transport

UNSEEN: Final = 0.005
"""Seconds. A server connection that was idle for longer is looked at once more before a request is sent on it."""
SLOW_LISTENER_HINT: Final = "Read them as they come, and end transactions; limits.client_buffer_bytes is half of the limit."
VANISHED: Final = "client closed the connection"
SAID_GOODBYE: Final = "client ended the session"
SERVER_ENDED: Final = "the server ended the connection"
SERVER_VANISHED: Final = "the server closed the connection unexpectedly"
LEFT_MIDWAY: Final = "its client left in the middle of a message"
CONNECTION_KILLED: Final = 1927
"""MariaDB Error Codes: ER_CONNECTION_KILLED."""


class Supervisor:
    """What a link asks of the world of tasks. Every method schedules and returns at once."""

    __slots__ = ()

    def client_ended(self, client: "Client", reason: str) -> None:
        """The client's connection is over (and closed); its session task should end."""
        raise NotImplementedError

    def client_returns(self, client: "Client") -> None:
        """The client logs in anew. Its socket is lent to its session task, which says `Client.returned` in the end."""
        raise NotImplementedError

    def tidy(self, server: "ServerConnection", cancel: bool) -> None:
        """Make a server connection that its client has left fit for the pool (cancel, drain, roll back, reset), or close it.

        It counts as RESETTING in its pool until `pool.give_back()` or `pool.lost()`.
        """
        raise NotImplementedError

    def renew(self, server: "ServerConnection", waiter: "ClientWaiter") -> None:
        """Put a new connection in the place of `server`, which is leased and shows what the waiting client must not see; offer it."""
        raise NotImplementedError

    def inquire(self, server: "ServerConnection", waiter: "ClientWaiter") -> None:
        """Ask on `server`, which is leased, what the waiting client's login could not ask (`ClientRelay.uncertain`); then offer it."""
        raise NotImplementedError

    def cancel_inside(self, client: "Client", key: int) -> None:
        """A client's session asks to cancel what the client with the virtual key `key` runs."""
        raise NotImplementedError

    def pinned(self, server: "ServerConnection", reasons: list[str]) -> None:
        """The lease of `server` will outlast its transaction, for `reasons` (ServerRelay.pin_reasons) that are new."""
        raise NotImplementedError

    def leaked(self, client: "Client", error: DualpoolError) -> None:
        """The server was asked, and a lease of `client` has left what nobody saw. In strict mode the client is ended with `error`."""
        raise NotImplementedError

    def listens(self, client: "Client") -> None:
        """`client` is about to listen to `client.relay.wants_channel`. Answered by `Client.listen_answered`, not before this returns."""
        raise NotImplementedError

    def vacate(self, client: "Client", database: str) -> None:
        """`client` is about to ask its server for what fails while somebody else is connected to `database`."""
        raise NotImplementedError

    def migrates(self, client: "Client") -> None:
        """`client` must wait with what a migration tool asks: it may do so in the maintenance lane."""

    def server_lost(self, server: "ServerConnection", error: DualpoolError) -> None:
        """A server has closed a connection. Nothing need be done."""

    def log_fault(self, error: Exception, where: str) -> None:
        """An exception that is a bug of ours."""
        raise NotImplementedError


class Client(ChannelOwner):
    """A client that is logged in. Its session task created it and ends when `Supervisor.client_ended` was called."""

    __slots__ = (
        "address",
        "asked_at",
        "began_at",
        "channel",
        "clock",
        "connected_at",
        "counters",
        "ended_by",
        "engine",
        "error",
        "farewell",
        "id",
        "lane",
        "leased_at",
        "login",
        "may_migrate",
        "parties",
        "pool",
        "query_wait",
        "relay",
        "returning",
        "server",
        "supervisor",
        "times",
        "wait_limit",
        "waiter",
    )

    def __init__(
        self, reactor: "Reactor", transport: "Transport", relay: ClientRelay, pool: "Pool", engine: Engine, supervisor: Supervisor,
        lane: int, buffer_bytes: int = HIGH_WATER,
    ) -> None:  # fmt: skip
        """`buffer_bytes`: with more than this waiting for the client, its server connection is no longer read."""
        self.channel = Channel(reactor, transport, self, buffer_bytes)
        self.relay = relay
        self.pool = pool
        self.counters = pool.counters
        self.engine = engine
        self.supervisor = supervisor
        self.lane = lane
        self.login: ClientLogin | None = None
        self.server: ServerConnection | None = None
        self.waiter: ClientWaiter | None = None
        self.clock = reactor.clock
        self.connected_at = reactor.clock.now
        self.asked_at = reactor.clock.now
        """When bytes came from the client last."""
        self.leased_at = 0.0
        self.began_at = 0.0
        """When the open transaction began; 0.0 outside of one."""
        self.id = 0
        self.ended_by = ""
        self.error: DualpoolError | None = None
        """What it was ended with, if not by itself."""
        self.farewell: DualpoolError | None = None
        """What it is told, and ended with, when it asks for a server connection again."""
        self.returning = False
        """It logs in anew: the socket is lent to its session task, and nobody else writes to it or closes it."""
        self.address = ""
        """Where it comes from, without the port; "" on a Unix socket."""
        self.parties: tuple[Party, ...] = ()
        """The caps that its requests count against."""
        self.may_migrate = False
        """It is for the maintenance lane as soon as it asks what a migration tool asks."""
        self.times: Times | None = None
        """How long it may take for what; None: as long as it likes."""
        self.query_wait = 0.0
        """How long it waits for a server connection; 0: as long as its pool says."""
        self.wait_limit = ""
        """The setting behind `query_wait`, with its value, for the message."""

    def received(self, data: bytes) -> None:
        """Bytes from the client, or b"" to go on with what the relay holds."""
        relay = self.relay
        self.asked_at = self.clock.now
        self.counters.received += len(data)
        verdict = relay.on_client_bytes(data)
        server = self.server
        if verdict == NEEDS_SERVER:
            self._get_server()
            return
        out = relay.to_server
        if out and server is not None:
            relay.to_server = b""
            server.channel.send(out)
            if server.channel.congested:
                self.channel.pause()
        if relay.to_client:
            self._flush_own_replies()
        if verdict:
            self._obey(verdict)
        elif (self.waiter is not None or relay.awaits) and relay.held_bytes() > HIGH_WATER:
            self.channel.pause()

    def feed(self, data: bytes = b"") -> None:
        """As `received`, for those who are not the reactor, which has faults told to `failed`: they end this client and nobody else."""
        try:
            self.received(data)
        except Exception as error:
            self.failed(error)

    def take(self, conn: Leasable) -> None:
        """Attach `conn`, or what comes in its place if it shows what this client must not see."""
        server: ServerConnection = conn  # type: ignore[assignment]
        if self.relay.uncertain or (server.relay.picky and not self.relay.may_have(server.relay)):
            self.waiter = ClientWaiter(self)
            self.pool.begin_wait(self.waiter)
            (self.supervisor.inquire if self.relay.uncertain else self.supervisor.renew)(server, self.waiter)
        else:
            self.attach(server)

    def attach(self, conn: Leasable) -> None:
        """The lease begins: `conn` is this client's until the relay says RELEASE or one of the two ends."""
        server: ServerConnection = conn  # type: ignore[assignment]
        server.client = self
        self.server = server
        self.leased_at = self.clock.now
        if server.last_client is not self:
            server.last_client = self
            server.others_until = server.released_at
        relay = self.relay
        verdict = relay.attach(server.relay)
        out = relay.to_server
        if out:
            relay.to_server = b""
            server.channel.send(out)
            if server.channel.congested:
                self.channel.pause()
        if relay.to_client:
            self._flush_own_replies()
        if verdict:
            self._obey(verdict)

    def go_on(self) -> None:
        """The lease is over: handle what the client sent meanwhile."""
        if self.channel.fd >= 0 and self.server is None and self.waiter is None and self.relay.held_bytes():
            self.feed()

    def drained(self) -> None:
        """The client takes bytes again."""
        if self.server is not None:
            self.server.channel.resume()

    def ended(self) -> None:
        """The client vanished without a word; or it has closed after ours."""
        if self.ended_by:
            self.supervisor.client_ended(self, self.ended_by)
        self.leave(VANISHED, cancel=True)

    def failed(self, error: Exception) -> None:
        """The relay refused the client's bytes, or a fault of ours."""
        if not isinstance(error, DualpoolError):
            self.supervisor.log_fault(error, f"client {self.id}")
            error = DualpoolError(f"internal error: {error!r}", hint="Please report it with the log of dualpool.")
        server = self.server
        if server is not None:
            # The relay may count on answers to what was never sent: the connection is in doubt.
            self.server = None
            server.client = None
            self.relay.detach()
            server.lose(ServerLost("its client broke the protocol"))
        self.expel(error)

    def expel(self, error: DualpoolError, *, silent: bool = False) -> None:
        """End this client with `error` as the last thing it reads; `silent`: without a word, where none would be understood."""
        if self.channel.fd >= 0 and not self.ended_by:
            self.error = error
            if not self.returning:
                self._flush_own_replies()
                silent = silent or (self.server is not None and self.server.relay.is_midway())
                self.channel.finish(b"" if silent else self.relay.error_message(error))
            self.leave(error.message, cancel=True)

    def kill(self) -> None:
        """End this client because another one asked for it."""
        self.expel(AdminShutdown("Connection was killed", hint="Connect again.", errno=CONNECTION_KILLED))

    def leave(self, reason: str, cancel: bool) -> None:
        """Close, and see to it that the server connection becomes fit for others. `cancel`: stop what it is still running."""
        if self.ended_by:
            return
        self.ended_by = reason
        if self.waiter is not None:
            self.pool.withdraw(self.waiter)
            self.waiter = None
        server = self.server
        if server is not None:
            self.server = None
            server.client = None
            self.relay.detach()
            server.abandoned(cancel)
        if not self.channel.finishing and not self.returning:
            self.channel.close()
        self.supervisor.client_ended(self, reason)

    def return_to_session(self) -> None:
        """The client logs in anew: nothing is left of what it has had."""
        self.channel.lend()
        self.returning = True
        server = self.server
        if server is not None:
            self.server = None
            server.client = None
            self.relay.detach()
            server.abandoned(cancel=False)
        self.supervisor.client_returns(self)

    def returned(self, relay: ClientRelay, pool: "Pool", login: "ClientLogin") -> None:
        """It is in again, as somebody else maybe. Nothing is read before `channel.open()`."""
        self.move_to(pool)
        self.relay = relay
        self.login = login
        self.lane = login.account.lane
        self.began_at = 0.0
        self.returning = False

    def move_to(self, pool: "Pool") -> None:
        """Another pool serves this client from now on. What it holds of the old one it keeps to the end of the lease."""
        waiter = self.waiter
        if waiter is not None:
            self.pool.withdraw(waiter)
            waiter.parties = ()
        self.parties = ()
        self.counters.gather_client(self.relay)
        self.pool.clients -= 1
        pool.clients += 1
        self.pool, self.counters = pool, pool.counters
        if waiter is not None:
            pool.enqueue(waiter)

    def cancel_wait(self, error: DualpoolError) -> bool:
        """End the wait for a server connection with `error`; the client lives on. False if it is not waiting."""
        waiter = self.waiter
        if waiter is None:
            return False
        self.pool.withdraw(waiter)
        self.waiter = None
        self.refuse(error)
        return True

    def refuse(self, error: DualpoolError) -> None:
        """No server connection comes: answer what waits with `error` and go on with what follows."""
        try:
            verdict = self.relay.refuse(error)
        except Exception as fault:
            self.failed(fault)
            return
        self._flush_own_replies()
        self.channel.resume()
        if verdict & CLOSE:
            self._obey(verdict)
        else:
            self.go_on()

    def may_be_canceled_by(self, other: "Client") -> bool:
        """A session may cancel what the same account runs, also in another database of the same servers."""
        if self is other or (self.pool is other.pool and self.engine is other.engine):
            return True
        mine, its = self.login, other.login
        same_account = mine is not None and its is not None and mine.account.user == its.account.user
        return same_account and self.engine is other.engine and self.pool.budget is other.pool.budget

    def canceled(self, found: bool) -> None:
        """The cancel request that this client's session made is over; `found`: there was something to cancel."""
        if not self.ended_by:
            self.relay.cancel_done(found)
            self._flush_own_replies()
            if self.server is not None and self.relay.held_bytes():
                self.feed()
            else:
                self.go_on()

    def resume(self) -> None:
        """What it has sent can go on: its server connection has answered what the relay had to know first."""
        if self.ended_by or self.returning:
            return
        if self.server is None or not self.server.channel.congested:
            self.channel.resume()
        self.feed()

    def vacate(self) -> None:
        """What the client asks fails while others are connected to the database that its relay names."""
        database, self.relay.vacates = self.relay.vacates, ""
        self.supervisor.vacate(self, database)

    def wait_for_channel(self) -> None:
        """The client's next request is to listen, and has to wait."""
        self.channel.pause()
        self.supervisor.listens(self)

    def listen_answered(self, shared: bool) -> None:
        """What it has sent can go on. `shared`: a shared connection listens for it."""
        if self.ended_by or self.returning:
            return
        self.channel.resume()
        self.relay.listen_answered(shared)
        self.feed()

    def notified(self, channel: str, message: bytes) -> None:
        """A notification. A client that does not take them is ended: they would grow without end."""
        relay = self.relay
        relay.notified(channel, message)
        self._flush_own_replies()
        queue, subscriptions = self.channel.queue, relay.subscriptions
        waiting = (queue.size if queue is not None else 0) + (subscriptions.mail_bytes if subscriptions is not None else 0)
        if waiting > 2 * self.channel.high_water:
            self.expel(ListenerTooSlow(f"{waiting} bytes of notifications wait for this client", hint=SLOW_LISTENER_HINT))

    def is_idle(self) -> bool:
        """True when the client asks for nothing and is in no transaction; in session mode it may hold a server connection."""
        return self.waiter is None and (self.server is None or self.server.relay.is_quiet())

    def _get_server(self) -> None:
        """Take an idle server connection, or queue up for one."""
        if self.relay.to_client:
            self._flush_own_replies()
        if self.farewell is not None:
            self.expel(self.farewell)
            return
        if not self.parties:
            while (conn := self.pool.take_nowait(self.lane)) is not None:
                if not self.relay.suits(conn.relay):  # type: ignore[attr-defined]
                    conn = self.pool.take_rather(conn, self._is_suited)
                if conn.relay.picky and not self.relay.may_have(conn.relay):  # type: ignore[attr-defined]
                    conn = self.pool.take_rather(conn, self._is_acceptable)
                if self.clock.now - conn.idle_since < UNSEEN or conn.seems_alive():
                    self.take(conn)
                    return
        if self.may_migrate and is_of_a_tool(self.relay.held()):
            self.supervisor.migrates(self)
        self.waiter = ClientWaiter(self)
        if self.relay.held_bytes() > HIGH_WATER:
            self.channel.pause()
        self.pool.enqueue(self.waiter)

    def _is_suited(self, conn: Leasable) -> bool:
        # (What `_get_server` asks of the first one in its own words, to save most leases this call.)
        return self.relay.suits(conn.relay)  # type: ignore[attr-defined]

    def _is_acceptable(self, conn: Leasable) -> bool:
        relay = conn.relay  # type: ignore[attr-defined]
        return not relay.picky or self.relay.may_have(relay)

    def _flush_own_replies(self) -> None:
        out = self.relay.to_client
        if out:
            self.relay.to_client = b""
            self.channel.send(out)

    def _obey(self, verdict: int) -> None:
        """The verdicts that do not come with every query."""
        server = self.server
        if verdict & RELEASE and server is not None:
            server.release()
        if verdict & PINNED and server is not None:
            server.pins_changed()
        if verdict & LISTENS:
            self.wait_for_channel()
        if verdict & VACATE:
            self.vacate()
        if verdict & CANCEL:
            self.supervisor.cancel_inside(self, self.relay.cancel_key)
        if verdict & REACCEPT:
            self.return_to_session()
            return
        if verdict & CLOSE:
            # What was asked before the goodbye is still carried out, as on a direct connection: no cancel.
            self.channel.finish(b"")
            self.leave(SAID_GOODBYE, cancel=False)
        elif verdict & NEEDS_SERVER and self.server is None:
            self._get_server()


class WatchedClient(Client):
    """A client whose last request is kept, so that the log can tell it if it turns out to be slow."""

    __slots__ = ("request",)

    def __init__(
        self, reactor: "Reactor", transport: "Transport", relay: ClientRelay, pool: "Pool", engine: Engine, supervisor: Supervisor,
        lane: int, buffer_bytes: int = HIGH_WATER,
    ) -> None:  # fmt: skip
        super().__init__(reactor, transport, relay, pool, engine, supervisor, lane, buffer_bytes)
        self.request = b""
        """The first bytes of it that were read at once."""

    def received(self, data: bytes) -> None:
        """See Client."""
        if data and (self.server is None or self.server.relay.answered()):
            self.request = data
        super().received(data)


class ClientWaiter(Waiter):
    """A client in the pool's queue."""

    __slots__ = ("client",)

    def __init__(self, client: Client) -> None:
        super().__init__(client.lane)
        self.client = client
        self.parties = client.parties
        if client.query_wait:
            self.deadline = client.clock.now + client.query_wait
            self.limit = client.wait_limit

    def offer(self, conn: Leasable) -> bool:
        """Take the server connection, unless the client is gone."""
        client = self.client
        if client.waiter is not self:
            return False
        client.waiter = None
        client.channel.resume()
        try:
            client.take(conn)
        except Exception as error:
            # The connection is the client's already, so it goes the way of every lease whose client fails.
            client.failed(error)
        return True

    def accepts(self, conn: Leasable) -> bool:
        """May the client have it as it is?"""
        return self.client.relay.may_have(conn.relay)  # type: ignore[attr-defined]

    def fail(self, error: DualpoolError) -> None:
        """The wait is over without a server connection."""
        client = self.client
        if client.waiter is self:
            client.waiter = None
            client.refuse(error)

    def notify(self, seconds: float) -> None:
        """The wait has become long enough to tell the client."""
        client = self.client
        text = f"waiting for a server connection for {seconds:.1f} s (pool {client.pool.name})"
        if client.pool.is_starting():
            text = f"the database is starting (pool {client.pool.name})"
        notice = client.engine.notice_message(text)
        if notice:
            client.channel.send(notice)


class ServerConnection(Leasable, ChannelOwner):
    """A server connection that is logged in. Its pool knows it from `pool.connected()` to `pool.lost()`."""

    __slots__ = (
        "answered_at", "cancels", "channel", "client", "clock", "counters", "engine", "last_client", "login", "others_until", "pin_reasons",
        "relay", "released_at", "supervisor", "target", "tidying",
    )  # fmt: skip

    def __init__(
        self, reactor: "Reactor", transport: "Transport", relay: ServerRelay, pool: "Pool", engine: Engine, supervisor: Supervisor,
        login: "ServerLogin", target: "ServerTarget",
    ) -> None:  # fmt: skip
        super().__init__(pool)
        self.counters = pool.counters
        self.clock = reactor.clock
        self.channel = Channel(reactor, transport, self)
        self.relay = relay
        self.engine = engine
        self.supervisor = supervisor
        self.login = login
        self.target = target
        self.client: Client | None = None
        self.last_client: Client | None = None
        """The client that had the last lease, and `released_at`: when a lease ended last."""
        self.released_at = 0.0
        self.others_until = 0.0
        """When the last lease of another client ended."""
        self.answered_at = 0.0
        """When bytes came from the server last."""
        self.pin_reasons: list[str] = []
        """Those that the supervisor knows of."""
        self.tidying = False
        """A task makes it fit for the pool, and will say `ready_again`."""
        self.cancels = 0
        """Cancel requests under way that mean what this connection runs now. Until they are over it serves nobody else."""

    def received(self, data: bytes) -> None:
        """Bytes from the server."""
        relay = self.relay
        self.answered_at = self.clock.now
        self.counters.sent += len(data)
        verdict = relay.on_server_bytes(data)
        client = self.client
        if relay.queries and client is not None:
            asked_at = client.asked_at if client.asked_at > client.leased_at else client.leased_at
            client.began_at = self.counters.answered(relay, asked_at, client.began_at, self.answered_at)
        out = relay.to_client
        if out:
            relay.to_client = b""
            if client is not None:
                client.channel.send(out)
                if client.channel.congested:
                    self.channel.pause()
        out = relay.to_server
        if out:
            relay.to_server = b""
            self.channel.send(out)
        if verdict == RELEASE:
            self.release()
        elif verdict:
            self._obey(verdict)

    def _obey(self, verdict: int) -> None:
        """The verdicts that are more than the end of a lease."""
        if verdict & PINNED:
            self.pins_changed()
        if verdict & LEAKED and self.client is not None:
            self.supervisor.leaked(self.client, StateLeaked(self.relay.leak))
            self.relay.leak = ""
        if verdict & CANCEL and self.client is not None:
            # The client's next request, which had to wait for this answer.
            self.supervisor.cancel_inside(self.client, self.client.relay.cancel_key)
        if verdict & VACATE and self.client is not None:
            self.client.vacate()
        if verdict & REACCEPT and self.client is not None:
            self.client.return_to_session()
        if verdict & LISTENS and self.client is not None:
            self.client.wait_for_channel()
        if verdict & RESUMES and not verdict & BROKEN and self.client is not None:
            self.client.resume()
        if verdict & BROKEN:
            self.lose(ServerLost(SERVER_ENDED), told=True)
        elif verdict & RELEASE:
            self.release()
        elif verdict & CLOSE and self.client is not None:
            self.client.leave("the session was ended by the server's answer", cancel=False)

    def pins_changed(self) -> None:
        """The relay's pins are others than before."""
        relay = self.relay
        reasons = relay.pin_reasons()
        before = self.pin_reasons if relay.pinned_at else []
        self.pin_reasons = reasons
        if not reasons:
            relay.pinned_at = 0.0
        elif not relay.pinned_at:
            relay.pinned_at = self.clock.now
        new = [reason for reason in reasons if reason not in before]
        if new and self.client is not None:
            self.supervisor.pinned(self, new)

    def release(self) -> None:
        """The lease is over in good order."""
        client = self.client
        if client is None:
            return
        client.relay.detach()
        client.server = None
        self.client = None
        self.released_at = self.clock.now
        if client.channel.congested:
            self.channel.resume()
        if self.cancels or self.relay.dirty:
            self.pool.resetting(self)
            self._tidy(cancel=False)
        else:
            self.pool.give_back(self)
        client.go_on()

    def abandoned(self, cancel: bool) -> None:
        """The client has gone while it held this connection."""
        self.released_at = self.clock.now
        self.pool.resetting(self)
        self.channel.resume()
        self._tidy(cancel)

    def is_picky(self) -> bool:
        """Does the session have what some clients must not see?"""
        return self.relay.picky

    def seems_alive(self) -> bool:
        """Read what the server may have said while nobody held the connection: a server that ends says so, and then closes it.

        What the reactor has not come to yet would else meet a request, of which nobody could say whether the server has read it.
        """
        try:
            self.channel.on_readable()
        except Exception as error:
            self.failed(error)
        return self.state == LEASED and self.channel.is_open()

    def ready_again(self) -> None:
        """It has been tidied up or checked."""
        self.tidying = False
        if self.channel.is_open() and not self.cancels:
            self.pool.give_back(self)

    def cancel_over(self) -> None:
        """A cancel request that was meant for this connection has been taken by the server (or failed)."""
        self.cancels -= 1
        if self.client is None and not self.tidying:
            self.ready_again()

    def _tidy(self, cancel: bool) -> None:
        """Get ready for the next client: at once if nothing is left of this one, else by a task."""
        if self.relay.dirty or not self.relay.is_quiet():
            self.tidying = True
            self.supervisor.tidy(self, cancel)
        else:
            self.ready_again()

    def drained(self) -> None:
        """The server takes bytes again."""
        if self.client is not None:
            self.client.channel.resume()

    def ended(self) -> None:
        """The server closed the connection."""
        self.lose(ServerLost(SERVER_VANISHED), gone=True)

    def failed(self, error: Exception) -> None:
        """The server's bytes make no sense, or the statement is not allowed in this pool mode, or a fault of ours."""
        client = self.client
        if isinstance(error, DualpoolError) and not isinstance(error, ServerLost) and error.sqlstate == "0A000" and client is not None:
            if self.relay.pins and not self.relay.pinned_at:
                self.pins_changed()
            if isinstance(error, StateLeaked):
                self.supervisor.leaked(client, error)
            client.expel(error)
            return
        if not isinstance(error, DualpoolError):
            self.supervisor.log_fault(error, f"server connection {self.id}")
        self.lose(error if isinstance(error, ServerLost) else ServerLost(f"the server's answer could not be understood: {error}"))

    def lose(self, error: DualpoolError, *, told: bool = False, gone: bool = False) -> None:
        """This connection is over; the client that holds it ends with it.

        `told`: the client has the server's own last words. `gone`: the server has closed; else it is still counted until it does.
        """
        if not self.channel.is_open():
            return
        self.counters.gather_server(self.relay)
        is_news = self.state != CLOSING
        if not gone:
            self.pool.condemn(self, error.message)
        if is_news and (told or gone):
            self.supervisor.server_lost(self, error)
        if gone:
            self.channel.close()
            self.pool.lost(self, error)
        client = self.client
        if client is None:
            return
        goes_on = self.relay.owes_nothing()
        self.client = None
        client.server = None
        client.relay.detach()
        if goes_on:
            client.channel.resume()
            client.go_on()
            return
        # Behind half a message of the server, words of ours would be read as the rest of it.
        client.expel(error, silent=told or self.relay.is_midway())
