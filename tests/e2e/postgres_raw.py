"""A PostgreSQL client at the level of messages, for what drivers do not do: half a message, a Sync too many, a connection cut off."""

import socket
import struct
from types import TracebackType
from typing import Final, Self

from dualpool.postgres import messages, wire
from dualpool.postgres.codec import split

TIMEOUT: Final = 60.0
Message = tuple[str, bytes]


def parse(name: str, sql: str) -> bytes:
    """Parse without parameter types."""
    return wire.message(wire.PARSE, name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def bind(name: str, *values: str, portal: str = "") -> bytes:
    """Bind with text parameters."""
    body = portal.encode() + b"\0" + name.encode() + b"\0\0\0" + struct.pack("!H", len(values))
    return wire.message(wire.BIND, body + b"".join(struct.pack("!I", len(v.encode())) + v.encode() for v in values) + b"\0\0")


def execute(portal: str = "", rows: int = 0) -> bytes:
    """Execute."""
    return wire.message(wire.EXECUTE, portal.encode() + b"\0" + struct.pack("!I", rows))


def describe_statement(name: str) -> bytes:
    """Describe of a statement."""
    return wire.message(wire.DESCRIBE, b"S" + name.encode() + b"\0")


def close_statement(name: str) -> bytes:
    """Close of a statement."""
    return wire.message(wire.CLOSE, b"S" + name.encode() + b"\0")


def query(sql: str) -> bytes:
    """A simple Query."""
    return wire.query(sql.encode())


def startup(version: int = wire.PROTOCOL_3_0, **parameters: str) -> bytes:
    """A start-up message."""
    body = b"".join(wire.cstring(name.encode()) + wire.cstring(value.encode()) for name, value in parameters.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, version) + body


def cancel_request(process_id: int, secret: bytes) -> bytes:
    """A cancel request."""
    return struct.pack("!III", 12 + len(secret), wire.CANCEL_REQUEST, process_id) + secret


SYNC: Final = wire.SYNC_MESSAGE
FLUSH: Final = wire.FLUSH_MESSAGE
TERMINATE: Final = wire.TERMINATE_MESSAGE


class Raw:
    """A connection to 127.0.0.1. Every wait ends after TIMEOUT."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.key = (0, b"")
        self.parameters: dict[str, str] = {}
        self._rest = b""
        self._ready: list[Message] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.sock.close()

    def log_in(self, version: int = wire.PROTOCOL_3_0, **parameters: str) -> Self:
        """Log in where no password is asked for."""
        self.send(startup(version, **{"user": "app", "database": "app", **parameters}))
        for kind, payload in self.until_ready():
            if kind == "K":
                self.key = (struct.unpack_from("!I", payload)[0], payload[4:])
            elif kind == "S":
                name, value, _ = payload.split(b"\0")
                self.parameters[name.decode()] = value.decode()
        return self

    def send(self, *data: bytes) -> None:
        """Send it all in one piece."""
        self.sock.sendall(b"".join(data))

    def ask(self, *data: bytes) -> list[Message]:
        """Send, and return what comes up to ReadyForQuery."""
        self.send(*data)
        return self.until_ready()

    def value(self, *data: bytes) -> str | None:
        """Send, and return the first column of the first row that comes up to ReadyForQuery; AssertionError if an error does."""
        answer = self.ask(*data)
        assert "E" not in [kind for kind, _ in answer], answer
        rows = [payload for kind, payload in answer if kind == "D"]
        return first_column(rows[0]) if rows else None

    def message(self) -> Message:
        """The next message; ConnectionError at the end of the connection."""
        while not self._ready:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("closed")
            found, self._rest = split(self._rest + data)
            self._ready = [(chr(kind), payload) for kind, payload in found]
        return self._ready.pop(0)

    def until(self, kind: str) -> list[Message]:
        """The messages up to the next one of `kind`."""
        found: list[Message] = []
        while not found or found[-1][0] != kind:
            found.append(self.message())
        return found

    def until_ready(self) -> list[Message]:
        """The messages up to ReadyForQuery; AssertionError if an error ends the connection instead."""
        found: list[Message] = []
        while not found or found[-1][0] != "Z":
            try:
                found.append(self.message())
            except ConnectionError as error:
                raise AssertionError(f"closed after {found}") from error
        return found

    def until_closed(self) -> list[Message]:
        """All that comes until the other side closes the connection."""
        found: list[Message] = []
        try:
            while True:
                found.append(self.message())
        except ConnectionError:
            return found

    def is_silent(self) -> bool:
        """True if nothing has arrived. (For what must not come: ask only after something later has been answered.)"""
        if self._ready:
            return False
        self.sock.setblocking(False)
        try:
            return not self.sock.recv(1, socket.MSG_PEEK) and False
        except BlockingIOError:
            return True
        finally:
            self.sock.settimeout(TIMEOUT)

    def vanish(self) -> None:
        """Cut the connection off without a word: the other side gets a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def first_column(row: bytes) -> str | None:
    """The first column of a DataRow's payload, as text."""
    (length,) = struct.unpack_from("!i", row, 2)
    return None if length < 0 else row[6 : 6 + length].decode()


def kinds(answer: list[Message]) -> str:
    """The kinds of some messages, as one word; ParameterStatus and notices left out."""
    return "".join(kind for kind, _ in answer if kind not in "SN")


def error_of(answer: list[Message]) -> dict[str, str]:
    """The fields of the first error among some messages: C is the SQLSTATE, M the message, H the hint, S the severity."""
    for kind, payload in answer:
        if kind == "E":
            return messages.parse_report(payload)
    raise AssertionError(f"no error in {answer}")
