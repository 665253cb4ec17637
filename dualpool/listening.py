"""Listening for clients: one server connection of a pool's database and user listens to all the channels that the pool's clients want.

A client's way in: its relay says LISTENS and holds what the client has sent; when the shared connection listens to the channel, the relay
goes on (`Client.listen_answered`), and the server is asked for no more than what makes the LISTEN part of the client's transaction. So
whatever is notified after the client's transaction has ended reaches the client. Where the connection cannot be had in time, the client
listens on a server connection of its own, which it then keeps (a pin).

The connection is one of a pool of its own, so that it counts in the backend's budget but in nobody's `pool_size`, and takes part in PAUSE,
RECONNECT and the shutdown as every connection does. Its socket belongs to a task here, never to the reactor.
"""

import logging
import random
from collections import Counter, deque
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from dualpool.checkout import checkout
from dualpool.errors import DualpoolError, ServerLost
from dualpool.exchange import Stream
from dualpool.link import Client, ServerConnection
from dualpool.log import event
from dualpool.protocol import ConnectionClosed, ListeningWords, Notification

if TYPE_CHECKING:
    from dualpool.backends import PoolEntry
    from dualpool.pool import Pool
    from dualpool.server import Server

PATIENCE: Final = 5.0
"""Seconds that a client waits for the shared connection, before it listens by itself."""
SWEEP_PERIOD: Final = 0.5
"""Seconds after which channels that nobody wants any more are looked for."""
FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 5.0
"""Seconds before the shared connection is made again: each time twice as long, a quarter more or less."""
STEADY: Final = 10.0
"""Seconds after which a connection counts as one that worked: the pauses begin anew."""
LONG_HELD: Final = 1.0
"""Seconds: whoever has held a server connection for this long has sent its notifications."""
NO_PROCESS: Final = 0
"""The process id of a notification whose own would be taken for the listener's."""


class Listening:
    """All shared connections of one server. Methods only schedule."""

    def __init__(self, server: "Server", nursery: trio.Nursery) -> None:
        self.server = server
        self._nursery = nursery
        self.hubs: dict[Pool, Hub] = {}
        self._closed = False
        self._swept_at = 0.0

    def wanted(self, client: Client) -> None:
        """As `Supervisor.listens`."""
        self._hub(client.pool).want(client, client.relay.wants_channel, self.server.reactor.clock.now + PATIENCE)

    def _hub(self, pool: "Pool") -> "Hub":
        hub = self.hubs.get(pool)
        if hub is None:
            hub = self.hubs[pool] = Hub(self, pool)
            if self._closed:
                hub.close()
            self._nursery.start_soon(hub.run)
        return hub

    def sweep(self, now: float) -> None:
        """Do what is due by time alone."""
        if now - self._swept_at >= SWEEP_PERIOD:
            self._swept_at = now
            for hub in list(self.hubs.values()):
                for client, channel in hub.sweep(now):
                    self._hub(client.pool).want(client, channel)

    def close(self) -> None:
        """No more listening."""
        self._closed = True
        for hub in self.hubs.values():
            hub.close()


class Hub:
    """The shared connection of one pool's clients, and who listens to what."""

    def __init__(self, listening: Listening, pool: "Pool") -> None:
        self.pool = pool
        self.base = listening.server.backends.entry_of(pool)
        """What the pool belongs to. A reload may move the clients to another one, and this pool is forgotten before the hub is."""
        self.wanted: dict[str, set[Client]] = {}
        self.heard: set[str] = set()
        """The channels that the connection listens to."""
        self.counts: Counter[str] = Counter()
        """Notifications by channel."""
        self.conn: ServerConnection | None = None
        self._server = listening.server
        self._listening = listening
        self._waiting: dict[Client, float] = {}
        """Clients whose LISTENS is to be answered, and until when."""
        self._asked: set[str] = set()
        self._orders: deque[str] = deque()
        """What the server has not answered yet: a channel of a LISTEN; "": anything else."""
        self._due = False
        self._nap: trio.CancelScope | None = None
        self._scope = trio.CancelScope()
        self._entry: PoolEntry | None = None
        self._made_for: object = None
        self._closed = False

    # ------------------------------------------------------------------------------------------------------------ clients

    def want(self, client: Client, channel: str, deadline: float | None = None) -> None:
        """`client` wants to hear `channel`. With a deadline, it waits for the answer."""
        self.wanted.setdefault(channel, set()).add(client)
        if deadline is not None:
            self._waiting[client] = deadline
        self._poke()

    def _poke(self) -> None:
        """There is something to do for the task."""
        self._due = True
        if self._nap is not None:
            self._nap.cancel()

    def _answer(self, client: Client, *, shared: bool) -> None:
        if self._waiting.pop(client, None) is not None:
            client.listen_answered(shared)

    def _answer_all(self, clients: "set[Client]", channel: str, *, shared: bool) -> None:
        for client in [client for client in clients if client in self._waiting and client.relay.wants_channel == channel]:
            self._answer(client, shared=shared)

    def _answer_everybody(self) -> None:
        """No connection will listen for those who wait."""
        for client in list(self._waiting):
            self._answer(client, shared=False)

    def _get_ready(self, channel: str) -> None:
        """The connection listens to `channel`."""
        clients = self.wanted.get(channel, set())
        for client in clients:
            if client.relay.subscriptions is not None:
                client.relay.subscriptions.ready.add(channel)
        self._answer_all(clients, channel, shared=True)

    def sweep(self, now: float) -> list[tuple[Client, str]]:
        """Forget who has left or lost interest, and see whether the connection is still the right one. Returns who listens in another
        pool by now, and to what."""
        moved = [(client, channel) for channel, clients in self.wanted.items() for client in clients if client.pool is not self.pool]
        for channel in list(self.wanted):
            for client in [client for client in self.wanted[channel] if not self._is_interested(client, channel)]:
                self._forget(client, channel)
        for client in [client for client, deadline in self._waiting.items() if deadline <= now or client.ended_by]:
            self._answer(client, shared=False)
        if not self.wanted or self._is_outdated():
            self._scope.cancel()
        return [(client, channel) for client, channel in moved if listens_to(client, channel)]

    def _is_interested(self, client: Client, channel: str) -> bool:
        if client.ended_by or client.pool is not self.pool:
            return False
        # With a server connection, or waiting for one, it may be about to listen.
        return client in self._waiting or client.server is not None or client.waiter is not None or listens_to(client, channel)

    def _forget(self, client: Client, channel: str) -> None:
        clients = self.wanted[channel]
        clients.discard(client)
        if client.relay.subscriptions is not None:
            client.relay.subscriptions.ready.discard(channel)
        if not clients:
            del self.wanted[channel]
            self._poke()

    # ---------------------------------------------------------------------------------------------------------- the connection

    def close(self) -> None:
        """Let go of the connection for good."""
        self._closed = True
        self._scope.cancel()

    def _is_outdated(self) -> bool:
        """Must the connection go: the database is paused, connections are to be replaced, the login is another one now?"""
        if self._entry is None:
            return False
        if self._made_for != identity_of(self.base):
            return True
        conn = self.conn
        return conn is not None and (self._entry.pool.is_paused or conn.expires_at == -inf)

    async def run(self) -> None:
        """The task: as long as somebody listens. A fault of ours makes each client listen by itself."""
        try:
            await self._keep_listening()
        except Exception as error:
            self._server.log_fault(error, f"the listening connection of pool {self.pool.name}")
        del self._listening.hubs[self.pool]
        self._answer_everybody()

    async def _keep_listening(self) -> None:
        pause = FIRST_PAUSE
        while self.wanted and not self._closed:
            began = trio.current_time()
            with trio.CancelScope() as self._scope:
                await self._listen()
            if self._scope.cancelled_caught:
                continue
            pause = FIRST_PAUSE if trio.current_time() - began > STEADY else min(2 * pause, LAST_PAUSE)
            await trio.sleep(pause * random.uniform(0.75, 1.25))

    async def _listen(self) -> None:
        """One connection, from its making to its loss."""
        self._made_for = identity_of(self.base)
        entry = self._entry = self._server.backends.listening_entry(self.base)
        try:
            conn = await checkout(entry.pool, timeout=inf)
            assert isinstance(conn, ServerConnection)
            await self._use(conn)
        except Exception as error:
            self._lost(error)
        finally:
            self._entry = None
            entry.pool.close()

    def _lost(self, error: Exception) -> None:
        if not isinstance(error, DualpoolError):
            self._server.log_fault(error, f"the listening connection of pool {self.pool.name}")
        text = f'pool "{self.pool.name}": no connection listens for {self._count_clients()}: {error}'
        event(logging.WARNING, f"{text}; what is notified until there is one again is lost")
        if not isinstance(error, ServerLost):
            # Nobody is kept waiting for a server that does not let us in: each client's own connection will tell it why.
            self._answer_everybody()

    def _count_clients(self) -> str:
        count = len(set[Client]().union(*self.wanted.values()))
        return f"{count} client{'' if count == 1 else 's'}"

    async def _use(self, conn: ServerConnection) -> None:
        """Listen on `conn` until it is lost, or the task is cancelled."""
        stream = Stream(conn.channel.lend().sock, server_side=False)
        words = conn.engine.listening()
        self.conn = conn
        failure = ServerLost("nobody listens any more, or another connection does")
        gone = False
        try:
            await self._converse(stream, words)
        except (ConnectionClosed, DualpoolError) as error:
            gone = isinstance(error, ConnectionClosed)
            failure = ServerLost("the server closed the connection" if gone else str(error))
            raise failure from error
        finally:
            self._forget_connection()
            conn.channel.open()
            conn.lose(failure, gone=gone)

    def _forget_connection(self) -> None:
        self.conn = None
        self.heard.clear()
        self._asked.clear()
        self._orders.clear()
        for channel, clients in self.wanted.items():
            for client in clients:
                if client.relay.subscriptions is not None:
                    client.relay.subscriptions.ready.discard(channel)

    async def _converse(self, stream: Stream, words: ListeningWords) -> None:
        timeouts = self._server.config.timeouts
        self._orders.append("")
        await stream.send_all(words.begin())
        while True:
            await trio.lowlevel.checkpoint()
            await stream.send_all(self._orders_due(words))
            data = b""
            patience = (timeouts.reset if self._orders else timeouts.server_check_delay) or inf
            with trio.move_on_after(patience) as self._nap:
                if self._due:
                    continue
                data = await stream.receive(1 << 16)
            self._nap = None
            if data:
                self._read(data, words)
            elif not self._due:
                if self._orders:
                    raise ServerLost("the server did not answer in time")
                self._orders.append("")
                await stream.send_all(words.ping())

    def _orders_due(self, words: ListeningWords) -> bytes:
        """What brings the connection to the channels that are wanted."""
        self._due = False
        gone = [channel for channel in self._asked if channel not in self.wanted]
        new = [channel for channel in self.wanted if channel not in self._asked]
        self._asked.difference_update(gone)
        self._asked.update(new)
        self.heard.difference_update(gone)
        self._orders.extend([""] * len(gone) + new)
        for channel in list(self.heard):
            self._get_ready(channel)
        return b"".join([*map(words.unlisten, gone), *map(words.listen, new)])

    def _read(self, data: bytes, words: ListeningWords) -> None:
        for said in words.read(data):
            if isinstance(said, Notification):
                self._tell(said, words)
            elif said is None or isinstance(said, str):
                if not self._orders:
                    raise ServerLost("the server answers what it was not asked")
                self._answered(self._orders.popleft(), said)

    def _answered(self, channel: str, refusal: str | None) -> None:
        """The server has answered an order. `refusal`: why not."""
        if not channel or channel not in self._asked:
            return
        if refusal is None:
            self.heard.add(channel)
            self._get_ready(channel)
            return
        clients = self.wanted.get(channel, set())
        self._answer_all(clients, channel, shared=False)
        if any(listens_to(client, channel) for client in clients):
            raise ServerLost(f"the server does not listen to {channel}: {refusal}")
        self._asked.discard(channel)
        self.wanted.pop(channel, None)

    # ------------------------------------------------------------------------------------------------------------ notifications

    def _tell(self, notification: Notification, words: ListeningWords) -> None:
        """Pass a notification on to all who listen."""
        channel = notification.channel
        self.counts[channel] += 1
        sender = self._sender(notification.process_id)
        for client in list(self.wanted.get(channel, ())):
            subscriptions = client.relay.subscriptions
            if subscriptions is None or client.ended_by or not subscriptions.hears(channel):
                continue
            process_id = sender.id if sender is not None else notification.process_id
            if process_id == client.id and sender is not client:
                process_id = NO_PROCESS
            client.notified(channel, words.notification(notification, process_id))

    def _sender(self, process_id: int) -> Client | None:
        """Whose session has notified, as far as that is certain: nobody else has had its server connection for long."""
        now = self._server.reactor.clock.now
        here = self.conn.target if self.conn is not None else self.base.target
        for pool in self.base.backend.budget.pools:
            for conn in pool.connections:
                if isinstance(conn, ServerConnection) and conn.login.process_id == process_id and conn.last_client is not None:
                    same = (conn.target.host, conn.target.port) == (here.host, here.port)
                    if same and now - conn.others_until >= LONG_HELD:
                        return conn.last_client
        return None


def listens_to(client: Client, channel: str) -> bool:
    """Has the client's LISTEN taken effect?"""
    return client.relay.subscriptions is not None and channel in client.relay.subscriptions.active


def identity_of(entry: "PoolEntry") -> object:
    """What a connection of this entry is made of."""
    return entry.backend, entry.target, entry.identity
