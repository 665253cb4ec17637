"""The bytes of the simulated MySQL, written from the documentation (Client/Server Protocol) without dualpool's own codec: the two cannot be
wrong together. Only the names of numbers are dualpool's."""

import hashlib
import struct
from collections.abc import Iterable

from dualpool.mysql import wire

PASSWORD = "secret"
NATIVE = "mysql_native_password"
CACHING = "caching_sha2_password"
STRING = 253
NUMBER = 8
CURSOR = 1

CHARACTER_SETS = {
    8: ("latin1", "latin1_swedish_ci"),
    33: ("utf8mb3", "utf8mb3_general_ci"),
    45: ("utf8mb4", "utf8mb4_general_ci"),
    255: ("utf8mb4", "utf8mb4_0900_ai_ci"),
}
DEFAULT_COLLATIONS = {"latin1": "latin1_swedish_ci", "utf8mb3": "utf8mb3_general_ci", "utf8mb4": "utf8mb4_0900_ai_ci"}
GLOBAL = {
    "autocommit": "1",
    "foreign_key_checks": "1",
    "time_zone": "SYSTEM",
    "sql_mode": "STRICT_TRANS_TABLES",
    "max_execution_time": "0",
    "character_set_client": "utf8mb4",
    "character_set_connection": "utf8mb4",
    "character_set_results": "utf8mb4",
    "collation_connection": "utf8mb4_0900_ai_ci",
    "collation_database": "utf8mb4_0900_ai_ci",
    "session_track_system_variables": "time_zone,autocommit,character_set_client,character_set_results,character_set_connection",
    "session_track_schema": "1",
    "session_track_state_change": "0",
    "session_track_transaction_info": "OFF",
}
"""What a new session has, as SELECT @@session.name says it."""
SWITCHES = frozenset(("autocommit", "foreign_key_checks", "session_track_schema", "session_track_state_change"))
"""What SELECT says as 1 or 0, and a report as ON or OFF."""
SCHEMAS = frozenset(("one", "two", "shop", "stock"))

Value = str | int | None


def packet(number: int, payload: bytes) -> bytes:
    return struct.pack("<I", len(payload) | (number & 255) << 24) + payload


def take_packet(buffer: bytearray) -> tuple[int, bytes] | None:
    """The next packet's number and payload, if it is whole."""
    if len(buffer) < 4:
        return None
    (head,) = struct.unpack_from("<I", buffer)
    size = head & 0xFFFFFF
    if len(buffer) < size + 4:
        return None
    payload = bytes(buffer[4 : size + 4])
    del buffer[: size + 4]
    return head >> 24, payload


def lenenc(number: int) -> bytes:
    for limit, mark, size in ((251, b"", 1), (1 << 16, b"\xfc", 2), (1 << 24, b"\xfd", 3)):
        if number < limit:
            return mark + number.to_bytes(size, "little")
    return b"\xfe" + number.to_bytes(8, "little")


def string(data: bytes | str) -> bytes:
    """With its length in front."""
    data = data.encode() if isinstance(data, str) else data
    return lenenc(len(data)) + data


class Reader:
    """Reads a payload from its beginning to its end. An IndexError or struct.error means that it was cut."""

    def __init__(self, payload: bytes, position: int = 0) -> None:
        self.payload = payload
        self.position = position

    def number(self, size: int) -> int:
        data = self.payload[self.position : self.position + size]
        if len(data) < size:
            raise IndexError("a payload ends inside a number")
        self.position += size
        return int.from_bytes(data, "little")

    def take(self, size: int) -> bytes:
        self.position += size
        if self.position > len(self.payload):
            raise IndexError("a payload ends inside a string")
        return self.payload[self.position - size : self.position]

    def lenenc(self) -> int:
        first = self.number(1)
        if first == 0xFB or first == 0xFF:
            raise IndexError(f"{first:#x} is no length")
        return first if first < 0xFB else self.number({0xFC: 2, 0xFD: 3, 0xFE: 8}[first])

    def string(self) -> bytes:
        return self.take(self.lenenc())

    def to_nul(self) -> bytes:
        end = self.payload.index(b"\0", self.position)
        data = self.payload[self.position : end]
        self.position = end + 1
        return data

    def rest(self) -> bytes:
        data = self.payload[self.position :]
        self.position = len(self.payload)
        return data

    def at_end(self) -> bool:
        return self.position >= len(self.payload)


def column(name: str, kind: int) -> bytes:
    fixed = struct.pack("<HIBHBxx", 45, 1024, kind, 0, 0)
    return string("def") + string("") * 3 + string(name) + string("") + b"\x0c" + fixed


def text_row(values: Iterable[Value]) -> bytes:
    return b"".join(b"\xfb" if value is None else string(str(value)) for value in values)


def binary_row(values: list[Value]) -> bytes:
    """All values as strings."""
    nulls = 0
    for index, value in enumerate(values):
        nulls |= (value is None) << (index + 2)
    bitmap = nulls.to_bytes((len(values) + 9) // 8, "little")
    return b"\0" + bitmap + b"".join(string(str(value)) for value in values if value is not None)


def read_text_row(payload: bytes) -> list[str]:
    reader, values = Reader(payload), []
    while not reader.at_end():
        if payload[reader.position] == wire.NULL:
            reader.position += 1
            values.append("NULL")
        else:
            values.append(reader.string().decode())
    return values


def read_binary_row(payload: bytes, columns: int) -> list[str]:
    reader = Reader(payload, 1)
    nulls = reader.number((columns + 9) // 8)
    return ["NULL" if nulls >> (index + 2) & 1 else reader.string().decode() for index in range(columns)]


def native_token(nonce: bytes) -> bytes:
    stage1 = hashlib.sha1(PASSWORD.encode(), usedforsecurity=False).digest()
    stage2 = hashlib.sha1(stage1, usedforsecurity=False).digest()
    mask = hashlib.sha1(nonce[:20] + stage2, usedforsecurity=False).digest()
    return bytes(a ^ b for a, b in zip(stage1, mask, strict=True))


def sha2_token(nonce: bytes) -> bytes:
    stage1 = hashlib.sha256(PASSWORD.encode()).digest()
    mask = hashlib.sha256(hashlib.sha256(stage1).digest() + nonce[:20]).digest()
    return bytes(a ^ b for a, b in zip(stage1, mask, strict=True))


def insert_id(marker: str) -> int:
    """The AUTO_INCREMENT value of the row that the statement with this marker inserts: a number that tells whose it is."""
    client, _, number = marker[1:].partition(".")
    return int(client) * 1_000_000 + int(number)


def marker_of(number: int) -> str:
    return f"c{number // 1_000_000}.{number % 1_000_000}"
