"""Prepared statements: texts that clients share, the names that each client gave them, and what each server connection has of them.

A statement has a shape, which its Parse settles for good: the types of its parameters and its columns. If its columns would come out in
another way later, the server refuses to run it (0A000), and its driver prepares it again. Clients share a server connection's statement
where it has the shape that each of them was told, and nowhere else. So a client's own Parse is always a Parse on the server, and what is
prepared for a client elsewhere is given the parameter types that it was told, and described before anything is bound to it.

What the constants in a text mean is settled when it is prepared: a date by DateStyle, a time by TimeZone, a backslash by
standard_conforming_strings, every byte by client_encoding. So clients share a text only if they have the same settings for these.
"""

from collections import OrderedDict
from typing import Final
from weakref import WeakValueDictionary

from dualpool.errors import RemoteProtocolError
from dualpool.postgres.catalog import Judge
from dualpool.postgres.reading import Reading
from dualpool.postgres.sql import LEXING_SETTINGS, LISTENS, NOTABLE, SHARING_SETTINGS, TELLING, USES_SEQUENCE, WRITES, masked_safely
from dualpool.postgres.wire import BIND, CLOSE, DESCRIBE, INT16, PARSE, QUERY, message
from dualpool.state import Settings

SERVER_PREFIX: Final = b"dualpool_"
NEVER_PREPARED: Final = b"dualpool_none"
"""A name that no server connection ever prepares: to Close it does nothing, to Bind it fails."""
STAND_IN_CLOSE: Final = message(CLOSE, b"S" + NEVER_PREPARED + b"\0")
"""A Close that does nothing and is answered in turn: it takes the place of a message that the server need not see."""


ReadBy = tuple[tuple[str, str], ...]
"""Of SHARING_SETTINGS those that are not the server's defaults, with their values."""
Change = tuple[str, str | None, str | None]
"""A setting, its value while a text is prepared, and the one that it has; None: the server's default."""


def text_of(unnamed: bytes) -> bytes:
    """The SQL in a Parse message of an unnamed statement."""
    return unnamed[6 : unnamed.index(0, 6)]


class Statement:
    """A text with its declared parameter types, read in a certain way: the same object for every client that prepares the same."""

    __slots__ = ("__weakref__", "judged_by", "key", "marks", "notable", "reading", "telling")

    def __init__(self, key: bytes, reading: ReadBy) -> None:
        self.key = key
        self.reading = reading
        """The settings by which the text is read (`reading`). It is not to be prepared where others hold."""
        self.judged_by: Judge | None = None
        """Who has said what follows. Another one must be asked again: `judged`."""
        self.marks = 0
        self.telling = False
        """The relay must know when this one has run: it changes the session."""
        self.notable = False
        """Its marks matter when it is bound."""

    def judged(self, judge: Judge) -> None:
        """What the text does for sessions of `judge`."""
        self.judged_by = judge
        self.marks = judge.marks(self.text())
        self.telling = bool(self.marks & (TELLING | LISTENS))
        self.notable = bool(self.marks & (TELLING | NOTABLE | USES_SEQUENCE | WRITES))

    def read(self, judge: Judge) -> Reading:
        """What is in the text."""
        return judge.read(self.text())

    def text(self) -> bytes:
        """The SQL."""
        return self.key[: self.key.index(0)]

    def __repr__(self) -> str:
        return f"<Statement {self.text()[:60]!r}>"


class Version:
    """A statement in one shape. Described: one object for all that have this shape. Not described yet: one client's, until it is."""

    __slots__ = ("__weakref__", "columns", "settled", "statement", "types")

    def __init__(self, statement: Statement, types: bytes, columns: bytes | None) -> None:
        self.statement = statement
        self.types = types
        """The parameter types, as they stand in Parse and in ParameterDescription."""
        self.columns = columns
        """See `columns_of`; None: not described yet."""
        self.settled: Version | None = None
        """What it has turned out to be when it was described."""

    def parse(self, name: bytes) -> bytes:
        """The Parse message that prepares it as `name`."""
        return message(PARSE, name + b"\0" + self.statement.text() + b"\0" + self.types)

    def again(self) -> "Version":
        """The same, to be described once more."""
        return Version(self.statement, self.types, None)

    def __repr__(self) -> str:
        return f"<Version of {self.statement!r} {self.types!r} {self.columns!r}>"


_shared: "WeakValueDictionary[tuple[bytes, ReadBy], Statement]" = WeakValueDictionary()
_versions: "WeakValueDictionary[tuple[Statement, bytes, bytes], Version]" = WeakValueDictionary()

ANY_READING: Final[ReadBy] = (("any", ""),)
"""Of a text that means the same whatever the settings are."""
UNKNOWN_READING: Final[ReadBy] = (("unknown", ""),)
"""Nobody can say what the settings were: the statement is not shared."""


def shared(key: bytes, reading: ReadBy = ()) -> Statement:
    """The one Statement for `key` (text, null byte, and parameter types, as they stand in a Parse message) that is read in this way."""
    if reading == UNKNOWN_READING:
        return Statement(key, reading)
    found = _shared.get((key, reading))
    if found is None:
        found = _shared[key, reading] = Statement(key, reading)
    return found


def undescribed(statement: Statement) -> Version:
    """`statement` as its client's own Parse declares it, before the server has described it."""
    return Version(statement, statement.key[statement.key.index(0) + 1 :], None)


def described(statement: Statement, types: bytes, columns: bytes) -> Version:
    """The one Version of `statement` with this shape."""
    found = _versions.get((statement, types, columns))
    if found is None:
        found = _versions[statement, types, columns] = Version(statement, types, columns)
    return found


NO_COLUMNS: Final = b""
"""The shape of what returns no rows (NoData)."""


def columns_of(description: bytes) -> bytes:
    """Of a RowDescription what PostgreSQL compares, too, before it runs an old statement: names, types and type modifiers.

    Raises ValueError or struct.error if it is malformed. Source: docs, "Message Formats"; `equalRowTypes` in tupdesc.c.
    """
    (count,) = INT16.unpack_from(description)
    position = 2
    parts = [description[:2]]
    for _ in range(count):
        name_end = description.index(0, position) + 1
        # Behind the name: table (4 bytes), column (2), type (4), its size (2), its modifier (4), format (2).
        parts += (description[position:name_end], description[name_end + 6 : name_end + 10], description[name_end + 12 : name_end + 16])
        position = name_end + 18
    return b"".join(parts)


def describe(name: bytes) -> bytes:
    """The message that asks for the shape of the statement `name`."""
    return message(DESCRIBE, b"S" + name + b"\0")


def reading(wanted: Settings) -> ReadBy:
    """The settings by which a session with the settings `wanted` reads texts, as a Statement needs them."""
    values = wanted.values
    return tuple((name, values[name]) for name in SHARING_SETTINGS if name in values) if values else ()


def kept_reading(prepared: ReadBy, now: ReadBy) -> ReadBy:
    """How a session with the settings `now` understands a statement that it has prepared with others.

    As when it was prepared. Only with another search path it reads all again but the text's characters (plancache.c:
    RevalidateCachedQuery). Where one of the two is unknown: as now.
    """
    if UNKNOWN_READING in (now, prepared):
        return now
    then, today = dict(prepared), dict(now)
    if prepared in (ANY_READING, now) or then.get("search_path") == today.get("search_path"):
        return prepared
    values = {name: value for name, value in now if name not in LEXING_SETTINGS} | {n: v for n, v in prepared if n in LEXING_SETTINGS}
    return tuple((name, values[name]) for name in SHARING_SETTINGS if name in values)


def changes_for(prepared: ReadBy, now: ReadBy) -> list[Change]:
    """What must be set otherwise in a session with the settings `now` while a statement is prepared as if they were `prepared`."""
    if prepared == now or {ANY_READING, UNKNOWN_READING} & {prepared, now}:
        return []
    then, today = dict(prepared), dict(now)
    return [(name, then.get(name), today.get(name)) for name in SHARING_SETTINGS if then.get(name) != today.get(name)]


class ClientStatements:
    """The names that a client gave. Caps: see `RelayLimits`."""

    __slots__ = ("byte_limit", "bytes", "count_limit", "names")

    def __init__(self, count_limit: int, byte_limit: int) -> None:
        self.names: dict[bytes, Version] = {}
        self.bytes = 0
        self.count_limit = count_limit
        self.byte_limit = byte_limit

    def add(self, name: bytes, version: Version) -> None:
        """The client has prepared `version` as `name`. Raises RemoteProtocolError (54000) over a cap."""
        self.bytes += len(version.statement.key)
        if len(self.names) >= self.count_limit or self.bytes > self.byte_limit:
            raise RemoteProtocolError(
                f"too many prepared statements: {len(self.names)} with {self.bytes} bytes of text",
                hint="Close statements that are no longer needed, or raise limits.statements_per_client or limits.statement_bytes.",
                sqlstate="54000",
            )
        self.names[name] = version

    def remove(self, name: bytes) -> Version | None:
        """The client has closed `name`, or preparing it failed. Returns what it was."""
        version = self.names.pop(name, None)
        if version is not None:
            self.bytes -= len(version.statement.key)
        return version

    def restore(self, name: bytes, version: Version | None) -> None:
        """It was not closed after all."""
        if version is not None and name not in self.names:
            self.names[name] = version
            self.bytes += len(version.statement.key)

    def replace(self, name: bytes, before: Version, now: Version) -> None:
        """What the client calls `name` is `now`, if it was `before`."""
        if self.names.get(name) is before:
            self.names[name] = now

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
            version = known.names.get([*body.split(b"\0", 2), b""][1])
            return masked_safely(version.statement.text(), limit) if version is not None else ""
        position += 1 + max(length, 4)
    return ""


class PreparedStep:
    """A Parse for a client's statement: under way, or done (`confirmed`). If the server skips or refuses it, nothing is prepared."""

    __slots__ = ("confirmed", "leaving", "name", "owner", "owner_name", "sure", "told", "version", "visible")

    def __init__(self, version: Version, name: bytes, owner: ClientStatements, owner_name: bytes, *, visible: bool) -> None:
        self.version = version
        self.name = name
        """What this server connection calls it: no other statement there ever has this name."""
        self.owner = owner
        """The statements of the client for which it is prepared, as `owner_name`."""
        self.owner_name = owner_name
        self.visible = visible
        """The Parse is the client's own: then its answer is the client's, too."""
        self.confirmed = False
        self.leaving = False
        """It is closed, or about to be."""
        self.sure = False
        """It is confirmed, and nothing that is under way may do away with it."""
        self.told: Version | None = None
        """Where the owner is about to be told a new shape: the one from before, which it goes by if nothing is prepared."""


class ServerStatements:
    """What one server connection has prepared, the least recently used first: for each version the step that prepared it."""

    __slots__ = ("count", "known", "limit", "outdated")

    def __init__(self, limit: int) -> None:
        self.known: OrderedDict[Version, PreparedStep] = OrderedDict()
        self.outdated: list[PreparedStep] = []
        """Those whose place has been taken, to be closed with the next Parse."""
        self.count = 0
        self.limit = limit

    def new_name(self) -> bytes:
        """A name that this server connection has not seen yet."""
        self.count += 1
        return SERVER_PREFIX + b"%d" % self.count

    def add(self, step: PreparedStep) -> None:
        """`step` is there, or about to be. What must make room for it is `outdated`."""
        known = self.known
        before = known.pop(step.version, None)
        if before is not None and before is not step:
            self._leave(before)
        known[step.version] = step
        if len(known) > self.limit:
            self._leave(known.popitem(last=False)[1])

    def _leave(self, step: PreparedStep) -> None:
        step.leaving = True
        self.outdated.append(step)

    def settle(self, step: PreparedStep, now: Version) -> None:
        """The server has described what `step` has prepared: it is `now`."""
        self.remove(step)
        step.version = now
        if not step.leaving:
            self.add(step)

    def leave_all(self) -> None:
        """All are to be closed."""
        while self.known:
            self._leave(self.known.popitem(last=False)[1])

    def take_outdated(self) -> list[PreparedStep]:
        """Those that are to be closed, once."""
        gone, self.outdated = self.outdated, []
        return gone

    def doubt(self) -> None:
        """Something is sent that may deallocate them all. Until it is known whether it did, each must be prepared again to be used."""
        for step in self.known.values():
            step.sure = False

    def remove(self, step: PreparedStep) -> None:
        """What `step` prepared is not there (any more)."""
        if self.known.get(step.version) is step:
            del self.known[step.version]

    def keep(self, step: PreparedStep) -> None:
        """It was not closed after all."""
        step.leaving = False
        if self.known.setdefault(step.version, step) is not step:
            self._leave(step)

    def clear(self) -> None:
        """All are gone."""
        self.known.clear()
        self.outdated.clear()
