"""Clients and model servers joined by relays, without sockets: bytes move in pieces, in an order that a seed decides.

`World` does what link.py does with verdicts. Each client has a model server of its own beside it (`direct`), which is fed the same bytes;
what the client reads through the relays must be what `direct` answers.
"""

import difflib
import random
from collections import deque

from dualpool.errors import ServerLost
from dualpool.postgres import ENGINE, backend
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.server_relay import ServerRelay
from dualpool.protocol import BROKEN, CLOSE, NEEDS_SERVER, RELEASE, RESUMES, Exchange, ReceiveSome, RelayLimits, Send
from dualpool.state import settings
from tests.helpers import frames
from tests.helpers.frames import LEXICAL
from tests.helpers.model_postgres import REPORTED, ModelServer


class Server:
    """A server connection: a model, its relay, and the bytes under way between them."""

    def __init__(self, limits: RelayLimits, report_at_once: bool) -> None:
        self.model = ModelServer(report_at_once=report_at_once)
        self.relay = ServerRelay(limits, {name: self.model.setting(name) for name in REPORTED} | LEXICAL)
        self.inbox = b""
        self.outbox = b""
        self.client: Client | None = None


class Client:
    """A client: what it still sends, what it has read, what it should have read."""

    def __init__(self, limits: RelayLimits, start: dict[str, str], report_at_once: bool) -> None:
        wanted = settings({name.lower(): value for name, value in start.items()})
        self.start = start
        self.relay = ClientRelay(limits, wanted)
        self.direct = ModelServer(start, report_at_once=report_at_once)
        self.outbox = b""
        self.seen = b""
        self.expected = b""
        self.server: Server | None = None
        self.waiting = False
        self.gone = False

    def say(self, data: bytes) -> None:
        """Send, to both."""
        self.outbox += data
        self.expected += self.direct.feed(data)

    def is_answered(self) -> bool:
        """Everything was sent, and all that was expected was read."""
        return not self.outbox and len(self.seen) >= len(self.expected)


class World:
    """See the module."""

    def __init__(self, seed: int, servers: int, starts: list[dict[str, str]], limits: RelayLimits, report_at_once: bool = False) -> None:
        self.random = random.Random(seed)
        self.limits = limits
        self.report_at_once = report_at_once
        self.servers = [Server(limits, report_at_once) for _ in range(servers)]
        self.clients = [Client(limits, start, report_at_once) for start in starts]
        self.queue: deque[Client] = deque()
        self.leases = 0
        self.recovered = 0
        self.lost = 0

    def step(self) -> bool:
        """Move one piece of bytes. False if there is none to move."""
        moves = [(self._from_client, client) for client in self.clients if client.outbox]
        moves += [(self._to_model, server) for server in self.servers if server.inbox]  # type: ignore[misc]
        moves += [(self._from_model, server) for server in self.servers if server.outbox]  # type: ignore[misc]
        if not moves:
            return False
        move, who = self.random.choice(moves)
        move(who)
        self.check_leases()
        return True

    def check_leases(self) -> None:
        """Invariant 1: a server connection has one client at most, and both know it."""
        for client in self.clients:
            assert client.server is None or client.server.client is client
        for server in self.servers:
            assert server.client is None or server.client.server is server
            assert (server.client is None) == (server.relay.client is None)

    def vanish(self, client: Client) -> None:
        """The client's connection breaks, with whatever it was about to send."""
        client.gone = True
        client.outbox = b""
        if client.waiting:
            self.queue.remove(client)
            client.waiting = False
        server = client.server
        if server is not None:
            client.relay.detach()
            client.server = server.client = None
            server.outbox += server.model.feed(server.inbox)
            server.inbox = b""
            self._tidy(server)

    def _piece(self, data: bytes) -> tuple[bytes, bytes]:
        size = self.random.choice((1, 2, 3, 5, 7, 20, 50, 200, 1000, 1 << 20))
        return data[:size], data[size:]

    def _from_client(self, client: Client) -> None:
        piece, client.outbox = self._piece(client.outbox)
        self._client_bytes(client, piece)

    def _client_bytes(self, client: Client, data: bytes) -> None:
        verdict = client.relay.on_client_bytes(data)
        self._collect(client)
        self._obey(client, verdict)

    def _collect(self, client: Client) -> None:
        """Take what a client's relay has to say."""
        relay = client.relay
        client.seen += relay.to_client
        relay.to_client = b""
        if relay.to_server:
            assert client.server is not None
            client.server.inbox += relay.to_server
            relay.to_server = b""

    def _obey(self, client: Client, verdict: int) -> None:
        assert not verdict & ~(NEEDS_SERVER | RELEASE | CLOSE)
        if verdict & NEEDS_SERVER:
            assert client.server is None
            client.waiting = True
            self.queue.append(client)
            self._serve()
        if verdict & RELEASE:
            assert client.server is not None
            self._release(client.server)
        if verdict & CLOSE:
            client.gone = True

    def _serve(self) -> None:
        """Give idle server connections, whichever chance picks, to those who wait."""
        while self.queue:
            idle = [server for server in self.servers if server.client is None]
            if not idle:
                return
            client, server = self.queue.popleft(), self.random.choice(idle)
            client.waiting = False
            if server.relay.picky and not client.relay.may_have(server.relay):
                self.servers[self.servers.index(server)] = server = Server(self.limits, self.report_at_once)
            client.server, server.client = server, client
            self.leases += 1
            verdict = client.relay.attach(server.relay)
            self._collect(client)
            self._obey(client, verdict)

    def _to_model(self, server: Server) -> None:
        piece, server.inbox = self._piece(server.inbox)
        server.outbox += server.model.feed(piece)

    def _from_model(self, server: Server) -> None:
        piece, server.outbox = self._piece(server.outbox)
        verdict = server.relay.on_server_bytes(piece)
        assert server.client is not None or not server.relay.to_client
        if server.client is not None:
            server.client.seen += server.relay.to_client
        server.relay.to_client = b""
        server.inbox += server.relay.to_server
        server.relay.to_server = b""
        assert not verdict & BROKEN
        if verdict & RESUMES:
            assert server.client is not None
            self._client_bytes(server.client, b"")
        if verdict & RELEASE:
            self._release(server)

    def _release(self, server: Server) -> None:
        client = server.client
        assert client is not None
        assert server.relay.is_quiet()
        assert not server.outbox, "released with answers under way"
        assert server.model.would_ignore(server.inbox)
        assert server.model.status == "I"
        client.relay.detach()
        client.server = server.client = None
        if server.relay.dirty:
            self._tidy(server)
        self._serve()
        if client.server is None and not client.waiting and client.relay.held_bytes():
            self._client_bytes(client, b"")

    def _tidy(self, server: Server) -> None:
        """What supervisors do with a connection that a client has left: recover, reset, or close and replace it."""
        relay = server.relay
        if relay.is_lost() or not self._run(server, backend.recover(relay) if not relay.is_quiet() else None):
            self.servers[self.servers.index(server)] = Server(self.limits, self.report_at_once)
            self.lost += 1
        elif relay.dirty:
            assert self._run(server, ENGINE.reset(relay))
            assert server.model.values == server.model.defaults
        self.recovered += 1
        self._serve()

    def _run(self, server: Server, exchange: Exchange[None] | None) -> bool:
        """Drive an exchange against the model. False if it raises; AssertionError if it would wait for ever."""
        if exchange is None:
            return True
        result: bytes | None = None
        try:
            while True:
                command = exchange.send(result)
                result = None
                if isinstance(command, Send):
                    server.outbox += server.model.feed(command.data)
                else:
                    assert isinstance(command, ReceiveSome)
                    assert server.outbox, f"an exchange waits for ever; pending: {server.relay.pending}"
                    result, server.outbox = self._piece(server.outbox)
        except StopIteration:
            assert server.relay.is_quiet()
            assert not server.outbox
            return True
        except ServerLost:
            return False

    def check_answers(self, client: Client) -> None:
        """What the client has read so far is what it should have read."""
        expected = client.expected[: len(client.seen)] if client.outbox or client.gone else client.expected
        if client.seen != expected:
            lines = difflib.ndiff(frames.show(client.expected), frames.show(client.seen))
            raise AssertionError("what the client should have read (-) and what it has read (+):\n" + "\n".join(lines))
