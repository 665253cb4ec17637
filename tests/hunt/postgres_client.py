"""A client of PostgreSQL's protocol that is quick, and that can wait for an answer without blocking (docs: Frontend/Backend Protocol)."""

import base64
import hashlib
import hmac
import os
import re
import select
import socket
import struct
import time
from typing import Final

from tests.hunt.script import Argument, Message
from tests.hunt.spelling import Text

Address = tuple[str, int]
Fields = dict[str, str]
FIRST_OWN_OID: Final = 16384
"""Object ids from here on are a database's own (docs: System Catalogs), so they differ between two databases."""
READ_SIZE: Final = 1 << 16
_salted: Final[dict[tuple[str, bytes, int], bytes]] = {}


class Answer:
    """What came for one step: replies that are compared, and what comes on its own."""

    def __init__(self) -> None:
        self.replies: list[tuple[str, object]] = []
        self.notices: list[tuple[str, str]] = []
        self.errors: list[Fields] = []
        self.closed = False


def message(kind: bytes, body: bytes = b"") -> bytes:
    """A message."""
    return kind + struct.pack("!I", len(body) + 4) + body


def cstring(argument: Argument) -> bytes:
    """Text as the protocol has it."""
    if isinstance(argument, Text):
        return argument.encoded().replace(b"\0", b"") + b"\0"
    return (argument if isinstance(argument, bytes) else str(argument).encode()) + b"\0"


def encoded(said: Message) -> bytes:
    """A message of a script as bytes."""
    kind, arguments = said.kind, said.arguments
    if kind == "Query":
        return message(b"Q", cstring(arguments[0]))
    if kind == "Parse":
        return message(b"P", cstring(arguments[0]) + cstring(arguments[1]) + b"\0\0")
    if kind == "Bind":
        portal, name, binary, *values = arguments
        body = cstring(portal) + cstring(name) + b"\0\0" + struct.pack("!H", len(values))
        for value in values:
            data = None if value is None else value if isinstance(value, bytes) else str(value).encode()
            body += struct.pack("!i", -1) if data is None else struct.pack("!I", len(data)) + data
        return message(b"B", body + struct.pack("!HH", 1, int(bool(binary))))
    if kind == "Execute":
        return message(b"E", cstring(arguments[0]) + struct.pack("!I", arguments[1]))
    if kind in ("Describe", "Close"):
        return message(kind[:1].encode(), str(arguments[0]).encode() + cstring(arguments[1]))
    if kind == "CopyData":
        assert isinstance(arguments[0], bytes)
        return message(b"d", arguments[0])
    return {"Sync": message(b"S"), "Flush": message(b"H"), "CopyDone": message(b"c"), "CopyFail": message(b"f", b"no\0")}[kind]


class Client:
    """A connection. `read` gives None while the answer is not complete; the first answer is that to the login."""

    def __init__(self, address: Address, user: str, password: str, database: str, **parameters: str) -> None:
        self.socket = socket.create_connection(address, 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.user, self.password = user, password
        self.parameters: dict[str, str] = {}
        self.status = "I"
        self.closed = False
        self._rest = b""
        self._answer = Answer()
        self._due = 1
        pairs = {"user": user, "database": database, **parameters}
        body = b"".join(cstring(name) + cstring(value) for name, value in pairs.items()) + b"\0"
        self.socket.sendall(struct.pack("!II", len(body) + 8, 196608) + body)

    def fileno(self) -> int:
        """For select()."""
        return self.socket.fileno()

    def send(self, said: tuple[Message, ...], cuts: tuple[float, ...] = ()) -> None:
        """Send messages; `read` then waits for the answers to all of them."""
        self._answer = Answer()
        self._due = sum(one.kind in ("Query", "Sync") for one in said)
        data = b"".join(map(encoded, said))
        ends = sorted(int(cut * len(data)) for cut in cuts)
        for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
            try:
                self.socket.sendall(data[start:end])
            except OSError:
                return
            if end < len(data):
                time.sleep(0.0005)

    def read(self, seconds: float) -> Answer | None:
        """The answer to what was sent; None if it is not there in time."""
        deadline = time.monotonic() + seconds
        while self._due and not self.closed:
            if not select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            try:
                data = self.socket.recv(READ_SIZE)
            except OSError:
                data = b""
            if not data:
                self.closed = self._answer.closed = True
                break
            self._take(self._rest + data)
        return self._answer

    def close(self, *, abrupt: bool = False) -> None:
        """Leave."""
        if not self.closed and not abrupt:
            try:
                self.socket.sendall(message(b"X"))
            except OSError:
                pass
        self.closed = True
        self.socket.close()

    def _take(self, data: bytes) -> None:
        position, end = 0, len(data)
        while end - position >= 5:
            size = int.from_bytes(data[position + 1 : position + 5], "big") + 1
            if end - position < size:
                break
            self._reply(chr(data[position]), data[position + 5 : position + size])
            position += size
        self._rest = data[position:]

    def _reply(self, kind: str, body: bytes) -> None:
        if kind == "S":
            name, value, _ = body.split(b"\0")
            self.parameters[name.decode()] = value.decode("utf8", "backslashreplace")
        elif kind == "Z":
            self.status = body.decode()
            self._due -= 1
            self._answer.replies.append((kind, body))
        elif kind == "N":
            fields = parsed(body)
            if "R" in fields:
                self._answer.notices.append((fields["C"], fields["M"]))
        elif kind == "E":
            fields = parsed(body)
            self._answer.errors.append(fields)
            self._answer.replies.append((kind, (fields["C"], fields["M"])))
        elif kind in "Tt":
            self._answer.replies.append((kind, comparable(kind, body)))
        elif kind == "R":
            self._authenticate(int.from_bytes(body[:4], "big"), body[4:])
        elif kind not in "AK":
            self._answer.replies.append((kind, body))

    def _authenticate(self, how: int, body: bytes) -> None:
        if how == 3:
            self.socket.sendall(message(b"p", cstring(self.password)))
        elif how == 10:
            self._first = f"n=,r={base64.b64encode(os.urandom(18)).decode()}"
            text = f"n,,{self._first}".encode()
            self.socket.sendall(message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(text)) + text))
        elif how == 11:
            self.socket.sendall(message(b"p", self._proof(body.decode())))

    def _proof(self, server_first: str) -> bytes:
        given = dict(part.split("=", 1) for part in server_first.split(","))
        key = (self.password, base64.b64decode(given["s"]), int(given["i"]))
        if key not in _salted:
            _salted[key] = hashlib.pbkdf2_hmac("sha256", key[0].encode(), key[1], key[2])
        client_key = hmac.digest(_salted[key], b"Client Key", "sha256")
        final = f"c=biws,r={given['r']}"
        signature = hmac.digest(hashlib.sha256(client_key).digest(), f"{self._first},{server_first},{final}".encode(), "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        return f"{final},p={proof}".encode()


def parsed(body: bytes) -> Fields:
    """The fields of an error or a notice."""
    return {chr(field[0]): field[1:].decode("utf8", "backslashreplace") for field in body.split(b"\0") if field}


def comparable(kind: str, body: bytes) -> object:
    """A description of rows or parameters without the numbers that a database gives to its own objects."""
    if kind == "t":
        (count,) = struct.unpack_from("!H", body)
        return tuple(min(oid, FIRST_OWN_OID) for oid in struct.unpack_from(f"!{count}I", body, 2))
    found, position = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", position)
        _, _, oid, length, modifier, form = struct.unpack_from("!IHIhiH", body, end + 1)
        found.append((body[position:end], min(oid, FIRST_OWN_OID), length, modifier, form))
        position = end + 19
    return tuple(found)


def row_values(body: bytes) -> list[bytes | None]:
    """The values of a DataRow."""
    found: list[bytes | None] = []
    position = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        (length,) = struct.unpack_from("!i", body, position)
        position += 4
        found.append(None if length < 0 else body[position : position + length])
        position += max(length, 0)
    return found


NUMBERED: Final = re.compile(rb"pg_(toast_)?temp_\d+|pg_toast_\d+")
"""Names that a server numbers as it comes."""


def unnumbered(body: bytes) -> list[bytes | None]:
    """The values of a DataRow without such numbers."""
    return [value and NUMBERED.sub(b"pg_numbered", value) for value in row_values(body)]
