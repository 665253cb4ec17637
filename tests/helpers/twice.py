"""One random transcript, run through the relays twice: answers come whole, and each cut after its first byte.

A relay may have a quick way for an answer that is there in one piece. It may skip parsing, never a step: so at the end of each lease every
attribute of both relays is the same in the two runs. Clients and server are those of the simulation; there are no sockets and no tasks.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from dualpool.exchange import Exchange
from dualpool.protocol import (
    CANCEL,
    CLOSE,
    NEEDS_SERVER,
    RELEASE,
    RESUMES,
    ClientRelay,
    Engine,
    ReceiveSome,
    RelayLimits,
    Send,
    ServerRelay,
)
from dualpool.state import Settings
from tests.simulation.peers import Client, Session

Snapshot = dict[str, Any]
MakeClient = Callable[[int, random.Random], tuple[Client, ClientRelay]]
MakeServer = Callable[[int], tuple[Session, ServerRelay]]
MAX_STEPS: Final = 10_000


def slots_of(thing: object) -> list[str]:
    """All attributes of an object: its __slots__ over the MRO, and what it has in a __dict__."""
    names = [name for kind in type(thing).__mro__ for name in kind.__dict__.get("__slots__", ()) if name != "__weakref__"]
    return sorted({*names, *getattr(thing, "__dict__", {})})


class Pictures:
    """Attributes as values that can be compared. `named`: objects that stand for themselves; `left_out`: caches of what was parsed."""

    def __init__(self, named: dict[int, str], left_out: frozenset[str]) -> None:
        self.named = named
        self.left_out = left_out

    def of(self, thing: object, seen: frozenset[int] = frozenset()) -> Any:
        """The picture of a value."""
        if thing is None or isinstance(thing, int | float | str | bytes):
            return thing
        if isinstance(thing, bytearray):
            return bytes(thing)
        if id(thing) in self.named:
            return self.named[id(thing)]
        if isinstance(thing, Settings):
            return ("settings", dict(thing.values))
        if isinstance(thing, RelayLimits) or callable(thing):
            return repr(type(thing))
        if id(thing) in seen:
            return "the same"
        seen |= {id(thing)}
        if isinstance(thing, dict):
            return [(self.of(key, seen), self.of(value, seen)) for key, value in thing.items()]
        if isinstance(thing, set | frozenset):
            return sorted(map(repr, (self.of(one, seen) for one in thing)))
        if isinstance(thing, list | tuple | deque):
            return [self.of(one, seen) for one in thing]
        return self.attributes(thing, seen)

    def attributes(self, thing: object, seen: frozenset[int] = frozenset()) -> Snapshot:
        """All attributes of an object."""
        seen |= {id(thing)}
        names = [name for name in slots_of(thing) if name not in self.left_out]
        return {name: self.of(getattr(thing, name), seen) for name in names if hasattr(thing, name)}


class Server:
    """A server connection: a session of the simulated server, its relay, and who has it."""

    def __init__(self, session: Session, relay: ServerRelay) -> None:
        self.session = session
        self.relay = relay
        self.user: User | None = None


class User:
    """A client of the simulation, its relay, and the server connection that it has."""

    def __init__(self, client: Client, relay: ClientRelay) -> None:
        self.client = client
        self.relay = relay
        self.server: Server | None = None
        self.gone = False


class Transcript:
    """One run. `cut`: each piece that comes from a server comes as its first byte, and the rest."""

    def __init__(
        self, engine: Engine, seed: int, make_client: MakeClient, make_server: MakeServer, left_out: frozenset[str], *, cut: bool
    ) -> None:
        self.engine = engine
        self.cut = cut
        self.random = random.Random(seed)
        self.users = [User(*make_client(number, random.Random(f"{seed}.{number}"))) for number in range(1, 4)]
        self.servers = [Server(*make_server(number)) for number in range(1, 3)]
        self.waiting: deque[User] = deque()
        named = {id(user.relay): f"client {number}" for number, user in enumerate(self.users)}
        named |= {id(server.relay): f"server {number}" for number, server in enumerate(self.servers)}
        self.pictures = Pictures(named, left_out)
        self.leases: list[tuple[str, Snapshot, Snapshot]] = []
        self.said = ""
        """The last request."""

    def run(self, requests: int) -> None:
        """So many requests, of clients in turn as chance has it, each answered before the next is made."""
        for _ in range(requests):
            able = [user for user in self.users if not user.gone and user not in self.waiting and user.client.may_ask()]
            if not able:
                return
            self._ask(self.random.choice(able))

    def _ask(self, user: User) -> None:
        data = user.client.request()
        self.said = f"{user.client.name}: {data!r}"
        self._from_client(user, data)
        while user.client.unsent:
            more, user.client.unsent[:] = bytes(user.client.unsent), b""
            self._from_client(user, more)
        self._pump()

    def _from_client(self, user: User, data: bytes) -> None:
        self._obey(user, user.relay.on_client_bytes(data))

    def _obey(self, user: User, verdict: int) -> None:
        self._deliver(user)
        if verdict & CANCEL:
            user.relay.cancel_done(False)
            self._deliver(user)
        if verdict & CLOSE:
            user.gone = True
        if verdict & RESUMES:
            self._from_client(user, b"")
        if verdict & RELEASE and user.server is not None:
            self._release(user.server)
        elif verdict & NEEDS_SERVER and user not in self.waiting:
            self.waiting.append(user)
            self._serve()

    def _deliver(self, user: User) -> None:
        relay, server = user.relay, user.server
        if relay.to_server:
            assert server is not None
            server.session.incoming += relay.to_server
            relay.to_server = b""
        data, relay.to_client = relay.to_client, b""
        if data:
            user.client.read(data)

    def _serve(self) -> None:
        while self.waiting:
            idle = [server for server in self.servers if server.user is None]
            if not idle:
                return
            server, user = self.random.choice(idle), self.waiting.popleft()
            server.user, user.server = user, server
            self._obey(user, user.relay.attach(server.relay))

    def _pump(self) -> None:
        for _ in range(MAX_STEPS):
            moved = [self._step(server) for server in self.servers]
            if not any(moved):
                return
        raise AssertionError(f"no end of {self.said}")

    def _step(self, server: Server) -> bool:
        """Let a session work, and what it says come to its client."""
        session = server.session
        while session.step():
            pass
        if session.slow:
            session.end_slow(canceled=False)
        if not session.outgoing:
            return False
        data = bytes(session.outgoing)
        session.outgoing.clear()
        for piece in [data[:1], data[1:]] if self.cut and len(data) > 1 else [data]:
            self._from_server(server, piece)
        return True

    def _from_server(self, server: Server, data: bytes) -> None:
        relay = server.relay
        verdict = relay.on_server_bytes(data)
        user = server.user
        session, session_input = server.session, relay.to_server
        relay.to_server = b""
        session.incoming += session_input
        told, relay.to_client = relay.to_client, b""
        if user is None:
            assert not told
            return
        if told:
            user.client.read(told)
        while user.client.unsent:
            more, user.client.unsent[:] = bytes(user.client.unsent), b""
            self._from_client(user, more)
        self._obey(user, verdict)

    def _release(self, server: Server) -> None:
        user = server.user
        assert user is not None
        assert server.relay.is_quiet(), self.said
        user.relay.detach()
        user.server = server.user = None
        attributes = self.pictures.attributes
        self.leases.append((self.said, attributes(user.relay), attributes(server.relay)))
        if server.relay.dirty:
            self._reset(server)
        self._serve()
        if user.server is None and user not in self.waiting and user.relay.held_bytes():
            self._from_client(user, b"")

    def _reset(self, server: Server) -> None:
        drive(self.engine.reset(server.relay), server.session)


def drive(exchange: Exchange[Any], session: Session) -> Any:
    """Run an exchange against a session of the simulated server."""
    result: bytes | None = None
    while True:
        try:
            command = exchange.send(result)
        except StopIteration as over:
            return over.value
        result = None
        if isinstance(command, Send):
            session.incoming += command.data
        else:
            while session.step():
                pass
            size = len(session.outgoing) if isinstance(command, ReceiveSome) else command.size  # type: ignore[attr-defined]
            assert len(session.outgoing) >= size > 0, command
            result = bytes(session.outgoing[:size])
            del session.outgoing[:size]


def differences(whole: Transcript, cut: Transcript) -> Iterator[str]:
    """What differs between the two runs, lease by lease."""
    for number, (one, other) in enumerate(zip(whole.leases, cut.leases, strict=False)):
        if one[0] != other[0]:
            yield f"lease {number} ends behind {one[0]} and {other[0]}"
            return
        for side, left, right in (("client", one[1], other[1]), ("server", one[2], other[2])):
            for name in left.keys() | right.keys():
                if left.get(name) != right.get(name):
                    yield f"lease {number}, behind {one[0]}: {side}.{name}: whole {left.get(name)!r}, cut {right.get(name)!r}"
    if len(whole.leases) != len(cut.leases):
        yield f"{len(whole.leases)} leases, and {len(cut.leases)}"
