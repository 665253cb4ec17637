"""What both ends of the world of links are, whichever protocol they speak: a client with its script, a server with its sessions.

A query carries a marker, `client.number`; the server sends it back in a row. So a client can tell its own rows from another's, and a
session can tell whose transaction a statement wandered into.
"""

import random
from collections import Counter, deque
from collections.abc import Iterator
from typing import ClassVar, Final

from dualpool.accounts import ClientLogin
from tests.simulation.machines import ROLES, Machine

Token = tuple[str, ...]
"""One reply, as both sides name it: ("row", marker), ("done", tag), ("error", code, text), ("fatal", code, text), ("ready", status) ...

Only in what is expected: ("set", name, value), answered by ("done", "SET"); and ("setting", name), answered by a row with its value.
"""

IDLE: Final = "I"
OPEN: Final = "T"
FAILED: Final = "E"


class Violation(AssertionError):
    """An invariant does not hold."""


class Client:
    """A client: makes requests, knows the replies that must come, in their order, and compares."""

    pool_errors: ClassVar[frozenset[str]] = frozenset()
    """The codes with which the pooler may answer a request instead of the server; the request has then not run."""

    kills: ClassVar[bool] = False
    """A cancel request is a request that another client makes in its session."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.rng = rng
        self.expected: deque[Token] = deque()
        self.settings: dict[str, str] = {}
        """What the session's settings must be, by the replies read so far."""
        self.status = IDLE
        """Of the transaction, by the requests made so far."""
        self.must_wait = False
        """What can be asked next depends on replies that are still to come."""
        self.slow = False
        self.unsent = bytearray()
        """What it has not written to its socket yet."""
        self.replies = 0
        self.refusals = 0
        self.last_words: Token | None = None
        """The error with which the pooler ended the session."""
        self.perhaps_last: Token | None = None
        """The same, as far as an answer can be both: the server's own last words."""
        self._skipping = False
        self._numbers = 0

    # What a protocol fills in.

    def login(self, database: str, mode: int, lane: int) -> ClientLogin:
        """Who it is."""
        raise NotImplementedError

    def request(self) -> bytes:
        """The next request; its replies are added to `expected`."""
        raise NotImplementedError

    def finish(self) -> bytes:
        """A request that ends what is open; b"" if nothing is."""
        raise NotImplementedError

    def goodbye(self) -> bytes:
        """The polite end."""
        raise NotImplementedError

    def in_message(self) -> bool:
        """Part of a message has been read, and the rest has not come."""
        raise NotImplementedError

    def tokens(self, data: bytes) -> Iterator[Token]:
        """The replies that are complete with these bytes."""
        raise NotImplementedError

    # What a protocol may say otherwise.

    def logs_in(self) -> bool:
        """Its login is part of the schedule (else it begins behind it)."""
        return False

    def may_leave(self) -> bool:
        """A goodbye would be taken for one now."""
        return True

    def kill(self, connection_id: int, *, whole: bool) -> bytes:
        """A request to stop what another client runs; or, `whole`, that client. See `kills`."""
        raise NotImplementedError

    # The rest is the same for all.

    def marker(self) -> str:
        """A new one."""
        self._numbers += 1
        return f"{self.name}.{self._numbers}"

    def may_ask(self) -> bool:
        """False while its next request depends on replies that are still to come."""
        if not self.expected:
            self.must_wait = False
        return not self.must_wait and not self.last_words and len(self.expected) < 40

    def read(self, data: bytes) -> None:
        """Bytes have come from the pooler."""
        for token in self.tokens(data):
            if self.last_words:
                raise Violation(f"{self.name}: {token} after its last words {self.last_words}")
            self.replies += 1
            self._compare(token)

    def _compare(self, token: Token) -> None:
        wanted = self.expected[0] if self.expected else ("nothing",)
        if wanted[0] == "setting":
            wanted = ("row", self.settings[wanted[1]])
        if self._skipping and token[0] == "ready":
            self._skip_to_ready(token)
        elif token == wanted:
            self.expected.popleft()
        elif wanted[0] == "set" and token == ("done", "SET"):
            self.expected.popleft()
            self.settings[wanted[1]] = wanted[2]
        elif token[0] == "fatal":
            self.last_words = token
            self.expected.clear()
        elif token[0] == "error" and token[1] in self.pool_errors and self.expected and not self._skipping:
            self.refusals += 1
            self._skipping = True
        else:
            raise Violation(f"{self.name} got {token}, and wanted {wanted}")

    def _skip_to_ready(self, token: Token) -> None:
        """A request was refused, so its other replies do not come."""
        while self.expected and self.expected.popleft()[0] != "ready":
            pass
        if token != ("ready", IDLE):
            raise Violation(f"{self.name}: {token} after a request that was refused")
        self._skipping = False
        if not self.expected:
            self.status = IDLE


class Session:
    """One session of the simulated server."""

    def __init__(self, database: "Database", process_id: int, machine: Machine) -> None:
        self.database = database
        self.machine = machine
        self.told_role = ""
        """What it has said that its server is, when it was asked last."""
        self.process_id = process_id
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.status = IDLE
        self.owner = ""
        """Whose transaction is open."""
        self.slow = ""
        """The marker of the query that takes its time."""
        self.started = False
        """It is logged in (and not one that only carried a cancel request)."""
        self.ended = False

    # What a protocol fills in.

    def step(self) -> bool:
        """Work on one message. False if there is none (whole)."""
        raise NotImplementedError

    def end_slow(self, *, canceled: bool) -> None:
        """The slow query ends."""
        raise NotImplementedError

    def last_words(self) -> bytes:
        """What an administrator's shutdown makes it say."""
        raise NotImplementedError

    # The rest is the same for all.

    def check_owner(self, marker: str) -> None:
        """A statement with this marker runs."""
        client = marker.partition(".")[0]
        self.database.ran[client] += 1
        if self.status != IDLE and client != self.owner:
            raise Violation(f"a statement of {client} ran in the transaction of {self.owner}")
        self.owner = client

    def tell_role(self) -> str:
        """It is asked what its server is."""
        self.told_role = self.machine.role
        return self.told_role

    def takes_writes(self) -> bool:
        """Could anything be written now?"""
        return self.machine.role == "read-write"

    def cancel(self) -> None:
        """A cancel request has come for it."""
        if self.slow:
            client = self.slow.partition(".")[0]
            if client not in self.database.may_be_canceled:
                raise Violation(f"a cancel request hit {client}, who had asked for none")
            self.end_slow(canceled=True)


class Database:
    """The simulated server."""

    session_type: ClassVar[type[Session]] = Session
    smallest_pipe: ClassVar[int] = 1
    """Bytes. With fewer in flight a login would take too long."""
    steps: ClassVar[int] = 300
    """Of a schedule, before it calms down."""
    roles: ClassVar[tuple[str, ...]] = ROLES
    """What a server of this kind can say that it is."""
    wild: ClassVar[float] = 1.0
    """How many schedules are full of faults; in the others clients get much done."""

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self.may_be_canceled: set[str] = set()
        """Clients that have asked for a cancel, or are gone."""
        self.ran: Counter[str] = Counter()
        self._last_id = 0

    def is_full(self, machine: Machine) -> bool:
        """Has it no room for one more session?"""
        return sum(1 for session in self.sessions.values() if session.machine is machine and session.started) >= machine.room

    def new_session(self, machine: Machine) -> Session:
        """Somebody has connected."""
        self._last_id += 1
        session = self.session_type(self, self._last_id, machine)
        self.sessions[self._last_id] = session
        return session
