"""Prepared statements: texts that clients share, the names that each client gave them, and what each server connection has of them.

What the constants in a text mean is settled when it is prepared: a date by DateStyle, a time by TimeZone, a backslash by
standard_conforming_strings, every byte by client_encoding. So clients share a text only if they have the same settings for these.
"""

from collections import OrderedDict
from typing import Final
from weakref import WeakValueDictionary

from dualpool.errors import RemoteProtocolError
from dualpool.postgres.sql import LISTENS, NOTABLE, SHARING_SETTINGS, TELLING, deallocated_name, listened_channel, marks, masked_safely
from dualpool.postgres.wire import BIND, CLOSE, PARSE, QUERY, message
from dualpool.state import Settings

SERVER_PREFIX: Final = b"dualpool_"
NEVER_PREPARED: Final = b"dualpool_none"
"""A name that no server connection ever prepares: to Close it does nothing, to Bind it fails."""
STAND_IN_CLOSE: Final = message(CLOSE, b"S" + NEVER_PREPARED + b"\0")
"""A Close that does nothing and is answered in turn: it takes the place of a message that the server need not see."""


class Statement:
    """A text with its parameter types, read in a certain way: the same object for every client that prepares the same.

    Its name on servers is `name`.
    """

    __slots__ = ("__weakref__", "deallocates", "key", "listens", "marks", "name", "notable", "parse", "reading", "telling")

    def __init__(self, key: bytes, reading: str) -> None:
        global _count  # noqa: PLW0603
        _count += 1
        self.key = key
        self.reading = reading
        """The settings by which the text is read (`reading`). It is not to be prepared where others hold."""
        self.name = SERVER_PREFIX + b"%d" % _count
        self.parse = message(PARSE, self.name + b"\0" + key)
        text = self.text()
        self.marks = marks(text)
        self.telling = bool(self.marks & (TELLING | LISTENS))
        """The relay must know when this one has run: it changes the session."""
        self.notable = bool(self.marks & (TELLING | NOTABLE))
        """Its marks matter when it is bound."""
        self.deallocates = deallocated_name(text) if self.telling else None
        self.listens = listened_channel(text) if self.marks & LISTENS else None

    def text(self) -> bytes:
        """The SQL."""
        return self.key[: self.key.index(0)]

    def __repr__(self) -> str:
        return f"<Statement {self.name.decode()} {self.text()[:60]!r}>"


_shared: "WeakValueDictionary[tuple[bytes, str], Statement]" = WeakValueDictionary()
_count = 0

ANY_READING: Final = "any"
"""Of a text that means the same whatever the settings are."""
OWN_READING: Final = "own"
"""Nobody can say what the settings were: the statement is not shared."""


def shared(key: bytes, reading: str = "") -> Statement:
    """The one Statement for `key` (text, null byte, and parameter types, as they stand in a Parse message) that is read in this way."""
    if reading == OWN_READING:
        return Statement(key, reading)
    found = _shared.get((key, reading))
    if found is None:
        found = _shared[key, reading] = Statement(key, reading)
    return found


def reading(wanted: Settings) -> str:
    """The settings by which a session with the settings `wanted` reads texts, as a Statement needs them. Empty: the server's defaults."""
    values = wanted.values
    if not values:
        return ""
    return ";".join(f"{name}={values[name]}" for name in SHARING_SETTINGS if name in values)


class ClientStatements:
    """The names that a client gave. Caps: see `RelayLimits`."""

    __slots__ = ("byte_limit", "bytes", "count_limit", "names")

    def __init__(self, count_limit: int, byte_limit: int) -> None:
        self.names: dict[bytes, Statement] = {}
        self.bytes = 0
        self.count_limit = count_limit
        self.byte_limit = byte_limit

    def add(self, name: bytes, statement: Statement) -> None:
        """The client has prepared `statement` as `name`. Raises RemoteProtocolError (54000) over a cap."""
        self.bytes += len(statement.key)
        if len(self.names) >= self.count_limit or self.bytes > self.byte_limit:
            raise RemoteProtocolError(
                f"too many prepared statements: {len(self.names)} with {self.bytes} bytes of text",
                hint="Close statements that are no longer needed, or raise limits.statements_per_client or limits.statement_bytes.",
                sqlstate="54000",
            )
        self.names[name] = statement

    def remove(self, name: bytes) -> Statement | None:
        """The client has closed `name`, or preparing it failed. Returns what it was."""
        statement = self.names.pop(name, None)
        if statement is not None:
            self.bytes -= len(statement.key)
        return statement

    def restore(self, name: bytes, statement: Statement | None) -> None:
        """It was not closed after all."""
        if statement is not None and name not in self.names:
            self.names[name] = statement
            self.bytes += len(statement.key)

    def clear(self) -> None:
        """DEALLOCATE ALL."""
        self.names.clear()
        self.bytes = 0


def shown(request: bytes, known: ClientStatements, limit: int) -> str:
    """See `Engine.shown`."""
    position = 0
    while position + 5 <= len(request):
        kind, length = request[position], int.from_bytes(request[position + 1 : position + 5], "big")
        body = request[position + 5 : position + 1 + max(length, 4)]
        if kind == QUERY:
            return masked_safely(body.partition(b"\0")[0], limit)
        if kind == PARSE:
            return masked_safely(body.split(b"\0", 2)[1] if b"\0" in body else b"", limit)
        if kind == BIND:
            statement = known.names.get([*body.split(b"\0", 2), b""][1])
            return masked_safely(statement.text(), limit) if statement is not None else ""
        position += 1 + max(length, 4)
    return ""


class PreparedStep:
    """A Parse for a shared statement: under way, or done (`confirmed`). If the server skips or refuses it, it is not prepared after all."""

    __slots__ = ("confirmed", "name", "owner", "statement", "sure")

    def __init__(self, statement: Statement, owner: ClientStatements | None, name: bytes) -> None:
        self.statement = statement
        self.owner = owner
        """Set when a client itself sent the Parse, as `name`: then its answer is the client's."""
        self.name = name
        self.confirmed = False
        self.sure = False
        """It is confirmed, and nothing that is under way may do away with it."""


class ServerStatements:
    """What one server connection has prepared, the least recently used first: for each statement the step that prepared it."""

    __slots__ = ("known", "limit")

    def __init__(self, limit: int) -> None:
        self.known: OrderedDict[Statement, PreparedStep] = OrderedDict()
        self.limit = limit

    def add(self, step: PreparedStep) -> list[PreparedStep]:
        """`step` is about to prepare its statement. Returns the steps whose statements must be closed first."""
        known = self.known
        gone = []
        before = known.pop(step.statement, None)
        if before is not None:
            gone.append(before)
        known[step.statement] = step
        if len(known) > self.limit:
            gone.append(known.popitem(last=False)[1])
        return gone

    def doubt(self) -> None:
        """Something is sent that may deallocate them all. Until it is known whether it did, each must be prepared again to be used."""
        for step in self.known.values():
            step.sure = False

    def remove(self, step: PreparedStep) -> None:
        """What `step` prepared is not there (any more)."""
        if self.known.get(step.statement) is step:
            del self.known[step.statement]
