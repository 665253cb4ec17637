"""Prepared statements: the ids that each client was given, the texts behind them, and what each server connection has of them.

A client's ids are its own, counted from 1 as a server counts them. On a server connection a text is prepared when it is first used there,
and is shared by all clients with the same text, schema, parsing settings, and kinds of parameters: MySQL (8.0.22 and newer) keeps the type
that a parameter was given first, and turns what comes later into it, so one client's number would make numbers of the others' strings.

Sources: MySQL Source Code Documentation, "Prepared Statements" (COM_STMT_PREPARE, COM_STMT_EXECUTE); MySQL Reference Manual, "PREPARE
Statement" (how parameters' types are derived).
"""

from collections import OrderedDict
from typing import Final

from dualpool.errors import FeatureRefused
from dualpool.mysql.reading import Reading
from dualpool.mysql.sql import masked_safely
from dualpool.mysql.wire import COM_QUERY, COM_STMT_CLOSE, COM_STMT_EXECUTE, COM_STMT_PREPARE, COM_STMT_SEND_LONG_DATA, INT32, packet
from dualpool.state import DEFAULTS, Settings

TOO_MANY_STATEMENTS: Final = 1461
Key = tuple[bytes, str, str]
"""A text, the schema in which its names are looked up, and the settings by which it is read."""


class ServerStatement:
    """A text that is prepared on one server connection. `types`: the parameter types that its last EXECUTE bound there."""

    __slots__ = ("definitions", "for_cursors", "id", "key", "kinds", "packed_id", "types", "user")

    def __init__(self, statement_id: int, key: Key) -> None:
        self.id = statement_id
        self.packed_id: bytes = INT32.pack(statement_id)
        self.definitions = b""
        """The packets of its last result in front of the rows, if there were few."""
        self.key = key
        self.types = b""
        self.kinds = b""
        """What its parameters have been so far; see `kinds_of`."""
        self.user: ClientStatement | None = None
        """Whose cursor is open on it. It cannot be shared meanwhile."""
        self.for_cursors: bool | None = None
        """Was its first execution one that opens a cursor? (MySQL 9.7 sends no rows then where a later one opens none.) None: there was
        none yet."""

    def suits(self, user: "ClientStatement") -> bool:
        """Would `user` see the same if it had this one for itself?"""
        if self.user is not None and self.user is not user:
            return False
        return self.kinds == user.kinds or all(a == b or not a or not b for a, b in zip(self.kinds, user.kinds, strict=False))


class ClientStatement:
    """A statement that a client has prepared. `reading`: what its text does; `marks`: the marks of it."""

    __slots__ = (
        "bound",
        "columns",
        "cursor",
        "flag",
        "id",
        "key",
        "kinds",
        "long_bytes",
        "long_data",
        "marks",
        "params",
        "parsing",
        "reading",
        "schema",
        "settings",
        "text",
        "types",
    )

    def __init__(self, statement_id: int, text: bytes, schema: str, reading: Reading) -> None:
        self.id = statement_id
        self.text = text
        self.schema = schema
        self.reading = reading
        self.marks = reading.marks
        self.settings = DEFAULTS
        """What the session had when it was prepared, and `parsing`: what of that says how the text is read (session_sql.py)."""
        self.parsing = ""
        self.key: Key = (text, schema, "")
        self.params = 0
        self.columns = 0
        """How many columns the client believes its result to have, by what COM_STMT_PREPARE or its last execution said. 0: none."""
        self.flag = 0
        """Where the byte is, in the packet of a COM_STMT_EXECUTE, that tells whether types follow. 0: none are known yet."""
        self.bound = b""
        """What stands there if they are those that are known."""
        self.types = b""
        """The parameter types of the last EXECUTE that bound any, as they stand in the packet."""
        self.kinds = b""
        """And their kinds; of a NULL, the kind of the value before it."""
        self.long_data: list[bytes] = []
        """What COM_STMT_SEND_LONG_DATA brought, in order: parameter number (2 bytes) and data."""
        self.long_bytes = 0
        self.cursor: ServerStatement | None = None

    def __repr__(self) -> str:
        return f"<ClientStatement {self.id} {self.text[:60]!r}>"

    def read_in(self, settings: Settings, parsing: str) -> None:
        """Its text is read in a session with these settings."""
        self.settings, self.parsing = settings, parsing
        self.key = (self.text, self.schema, parsing)

    def was_prepared(self, count: int, columns: int) -> None:
        """The server has counted its parameters, and the columns of its result."""
        self.params = count
        self.columns = columns
        self.flag = 0 if count else 4 + types_flag(0)

    def bind(self, types: bytes) -> None:
        """An EXECUTE names the types of its parameters."""
        if types != self.types:
            self.types = types
            self.flag = 4 + types_flag(self.params)
            self.bound = b"\1" + types
            self.kinds = merged(kinds_of(types), self.kinds)

    def forget_long_data(self) -> None:
        """It holds for one EXECUTE only."""
        self.long_data = []
        self.long_bytes = 0


class ClientStatements:
    """What one client has prepared. Caps: see `RelayLimits`."""

    __slots__ = ("_last_id", "byte_limit", "bytes", "count_limit", "known")

    def __init__(self, count_limit: int, byte_limit: int) -> None:
        self.known: dict[int, ClientStatement] = {}
        self.bytes = 0
        self.count_limit = count_limit
        self.byte_limit = byte_limit
        self._last_id = 0

    def new(self, text: bytes, schema: str, reading: Reading) -> ClientStatement:
        """One that is about to be prepared; `add()` follows when the server has accepted it. Raises FeatureRefused over a cap."""
        if len(self.known) >= self.count_limit or self.bytes + len(text) > self.byte_limit:
            raise FeatureRefused(
                f"too many prepared statements: {len(self.known)} with {self.bytes} bytes of text",
                hint="Close statements that are no longer needed, or raise limits.statements_per_client or limits.statement_bytes.",
                errno=TOO_MANY_STATEMENTS,
            )
        self._last_id = self._last_id % 0x7FFFFFFF + 1
        return ClientStatement(self._last_id, text, schema, reading)

    def add(self, statement: ClientStatement) -> None:
        """The server has accepted it."""
        self.known[statement.id] = statement
        self.bytes += len(statement.text)

    def keep_long_data(self, statement: ClientStatement, chunk: bytes) -> None:
        """The client has sent this (parameter number and data). If all that waits is more than the cap, nothing is kept for `statement`:
        its `long_bytes` are over the cap then."""
        statement.long_data.append(chunk)
        statement.long_bytes += len(chunk)
        if sum(one.long_bytes for one in self.known.values() if one.long_data) > self.byte_limit:
            statement.long_data = []
            statement.long_bytes = self.byte_limit + 1

    def remove(self, statement: ClientStatement) -> None:
        """The client has closed it."""
        if self.known.pop(statement.id, None) is not None:
            self.bytes -= len(statement.text)

    def clear(self) -> None:
        """COM_RESET_CONNECTION. The ids go on, so that a late packet for an old one cannot meet a new one."""
        self.known.clear()
        self.bytes = 0


def shown(request: bytes, known: ClientStatements, limit: int) -> str:
    """See `Engine.shown`."""
    command, body = request[4:5], request[5:]
    if command == bytes((COM_STMT_EXECUTE,)):
        statement = known.known.get(int.from_bytes(body[:4], "little"))
        return masked_safely(statement.text, limit) if statement is not None else ""
    if command not in (bytes((COM_QUERY,)), bytes((COM_STMT_PREPARE,))):
        return ""
    # With query attributes two counts stand before the text: none of them, in one set.
    return masked_safely(body[: int.from_bytes(request[:3], "little") - 1].removeprefix(b"\0\1"), limit)


class ServerStatements:
    """What one server connection has prepared, the least recently used first."""

    __slots__ = ("_by_key", "known", "limit")

    def __init__(self, limit: int) -> None:
        self.known: OrderedDict[ServerStatement, None] = OrderedDict()
        self._by_key: dict[Key, list[ServerStatement]] = {}
        self.limit = max(limit, 1)

    def find(self, key: Key, user: ClientStatement) -> ServerStatement | None:
        """The one to execute for `user`, or None. It belongs to the kinds of its parameters from now on."""
        for found in self._by_key.get(key, ()):
            same = found.kinds == user.kinds
            if (same and found.user is None) or found.suits(user):
                if not same:
                    found.kinds = merged(user.kinds, found.kinds)
                self.known.move_to_end(found)
                return found
        return None

    def add(self, statement: ServerStatement) -> bytes:
        """It was prepared. Returns the packets that close what it takes the place of, and what must make room."""
        same = self._by_key.get(statement.key, ())
        closing = [other for other in same if not other.kinds or other.user is not None]
        for old in closing:
            self.remove(old)
        self.known[statement] = None
        self._by_key.setdefault(statement.key, []).append(statement)
        if len(self.known) > self.limit:
            oldest = next(iter(self.known))
            self.remove(oldest)
            closing.append(oldest)
        # One with an open cursor is closed when the cursor is: its user still has it (`ClientStatement.cursor`).
        return b"".join(close_packet(one.id) for one in closing if one.user is None)

    def remove(self, statement: ServerStatement) -> None:
        """It is no longer there."""
        if self.holds(statement):
            del self.known[statement]
            same = self._by_key[statement.key]
            same.remove(statement)
            if not same:
                del self._by_key[statement.key]

    def holds(self, statement: ServerStatement) -> bool:
        """Is it still one that can be shared?"""
        return statement in self.known

    def clear(self) -> None:
        """The server has forgotten all of them."""
        self.known.clear()
        self._by_key.clear()


KINDS: Final = bytes.maketrans(
    # TINY, SHORT, LONG, LONGLONG, INT24, YEAR: whole numbers; FLOAT, DOUBLE; DECIMAL, NEWDECIMAL; DATETIME, TIMESTAMP; BLOBs; texts.
    bytes((1, 2, 3, 8, 9, 13, 4, 5, 0, 246, 7, 12, 249, 250, 251, 252, 15, 247, 248, 253, 254, 6)),
    bytes((1, 1, 1, 1, 1, 1, 4, 4, 3, 3, 12, 12, 252, 252, 252, 252, 253, 253, 253, 253, 253, 0)),
)
"""Of a type (`enum_field_types`): its kind, which is 0 for NULL. What is not named here is a kind of its own."""
UNSIGNED: Final = 0x80


def kinds_of(types: bytes) -> bytes:
    """A byte for each parameter: the same for two types where a server treats them as one. Whole numbers differ by their sign."""
    kinds = types[::2].translate(KINDS)
    if UNSIGNED not in types[1::2]:
        return kinds
    return bytes(UNSIGNED if kind == 1 and flags & UNSIGNED else kind for kind, flags in zip(kinds, types[1::2], strict=True))


def merged(new: bytes, old: bytes) -> bytes:
    """`new`, with the kinds of `old` where it has NULL."""
    return bytes(a or b for a, b in zip(new, old, strict=True)) if new and old else new or old


def close_packet(statement_id: int) -> bytes:
    """COM_STMT_CLOSE, which is not answered."""
    return packet(0, bytes((COM_STMT_CLOSE,)) + INT32.pack(statement_id))


def long_data_packets(statement: ClientStatement, statement_id: int) -> bytes:
    """All that the client sent by COM_STMT_SEND_LONG_DATA, for the statement's id on a server connection. Not answered either."""
    head = bytes((COM_STMT_SEND_LONG_DATA,)) + INT32.pack(statement_id)
    return b"".join(packet(0, head + chunk) for chunk in statement.long_data)


HEAD_SIZE: Final = 10
"""A COM_STMT_EXECUTE begins with the command, the statement's id, flags, and a number of iterations. A bitmap of the NULLs follows."""


def types_flag(params: int) -> int:
    """Where the byte is, in the payload of a COM_STMT_EXECUTE, that is 1 (a server: not 0) when the parameters' types follow."""
    return HEAD_SIZE + (params + 7) // 8


def bound_types(payload: bytes, params: int) -> bytes | None:
    """The types that a COM_STMT_EXECUTE of a statement with `params` parameters binds, two bytes each; None if it does not fit."""
    if not params:
        return b"" if len(payload) >= HEAD_SIZE else None
    flag = types_flag(params)
    if flag >= len(payload):
        return None
    if not payload[flag]:
        return b""
    end = flag + 1 + 2 * params
    return payload[flag + 1 : end] if end <= len(payload) else None
