"""A client of MySQL's protocol that is quick, and that can wait for an answer without blocking (docs: MySQL Client/Server Protocol)."""

import select
import socket
import struct
import time
from collections.abc import Generator
from typing import Final

from pymysql import _auth

from tests.hunt.script import Message
from tests.hunt.spelling import Text

Address = tuple[str, int]
Packets = Generator[None, bytes, None]

FOUND_ROWS, CONNECT_WITH_DB, IGNORE_SPACE, INTERACTIVE = 2, 8, 0x100, 0x400
MULTI_STATEMENTS, PLUGIN_AUTH, SESSION_TRACK, DEPRECATE_EOF = 0x10000, 0x80000, 0x800000, 0x1000000
USUAL: Final = 1 | 4 | CONNECT_WITH_DB | 0x80 | 0x200 | 0x2000 | 0x8000 | 0x20000 | 0x40000 | PLUGIN_AUTH
"""Long passwords and flags, a database, LOCAL INFILE, protocol 4.1, transactions, multiple results, plugins."""

TOLD_STATUS: Final = 1 | 2 | 8 | 0x40 | 0x80 | 0x200 | 0x1000 | 0x2000
"""In a transaction, autocommit, more results, cursor, last row, no backslash escapes, OUT parameters, read-only transaction."""
MORE_RESULTS: Final = 8
CURSOR_EXISTS: Final = 0x40
COMMANDS: Final = {"InitDb": 2, "Query": 3, "Ping": 14, "ChangeUser": 17, "Prepare": 22, "Execute": 23, "LongData": 24, "StmtClose": 25,
                   "StmtReset": 26, "SetOption": 27, "Fetch": 28, "Reset": 31}  # fmt: skip
SILENT: Final = ("StmtClose", "LongData")
UNKNOWN_STATEMENT: Final = 0x7777
LOADED: Final = b"21\tloaded\n"
"""What LOAD DATA LOCAL gets."""
READ_SIZE: Final = 1 << 16
SHORTEST_PREPARED: Final = 12
NOT_PREPARED: Final = b"\xff\x0f\x05#HY000This command is not supported in the prepared statement protocol yet"
"""dualpool's answer where a server has an OK without a statement in it: MariaDB's to HELP, where it has no tables for that."""


class Answer:
    """What came for one step: for each command a list of replies."""

    def __init__(self) -> None:
        self.replies: list[list[tuple[object, ...]]] = []
        self.errors: list[tuple[object, ...]] = []
        self.closed = False


class Client:
    """A connection. `read` gives None while the answer is not complete; the first answer is that to the login.

    `renamed`: what a placeholder in texts stands for here, and is shown as in answers.
    """

    def __init__(
        self, address: Address, user: str, password: str, database: str, *, renamed: tuple[bytes, bytes], charset: int = 45, flags: int = 0
    ):
        self.socket = socket.create_connection(address, 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.user, self.password, self.database, self.renamed = user.encode(), password.encode(), database.encode(), renamed
        self._shown = (renamed[::-1], (renamed[1].hex().upper().encode(), renamed[0].hex().upper().encode()))
        """In answers, as it is and as HEX() makes it."""
        self.charset, self.flags = charset, flags
        self.closed = False
        self.statements: dict[str, tuple[int, int]] = {}
        self._long: set[str] = set()
        """Statements whose first parameter's value went ahead of the execution."""
        self._rest = b""
        self._answer = Answer()
        self._number = 0
        self._reading: list[Packets] = []
        self._expect([self._login()])

    def fileno(self) -> int:
        """For select()."""
        return self.socket.fileno()

    def send(self, said: tuple[Message, ...], cuts: tuple[float, ...] = ()) -> None:
        """Send commands; `read` then waits for the answers to all of them."""
        self._answer = Answer()
        data = b""
        readers: list[Packets] = []
        for one in said:
            body = self._command(one)
            data += len(body).to_bytes(3, "little") + b"\0" + body
            if one.kind not in SILENT:
                readers.append(self._reader(one))
        self._expect(readers)
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
        # (A server's last error may have come behind the answer before.)
        self._take(self._rest)
        while self._reading and not self.closed:
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
                self.socket.sendall(b"\1\0\0\0\1")
            except OSError:
                pass
        self.closed = True
        self.socket.close()

    # ------------------------------------------------------------------------------------------------------ sending

    def _command(self, said: Message) -> bytes:
        code = bytes((COMMANDS[said.kind],))
        arguments = said.arguments
        if said.kind == "Query":
            return code + self._text(arguments[0])
        if said.kind == "Prepare":
            return code + self._text(arguments[1])
        if said.kind == "InitDb":
            return code + str(arguments[0]).encode().replace(*self.renamed)
        if said.kind in ("Ping", "Reset"):
            return code
        if said.kind == "SetOption":
            assert isinstance(arguments[0], int)
            return code + struct.pack("<H", arguments[0])
        if said.kind == "ChangeUser":
            body = self.user + b"\0\0" + self.database + b"\0" + struct.pack("<H", self.charset)
            return code + body + b"caching_sha2_password\0"
        number, parameters = self.statements.get(str(arguments[0]), (UNKNOWN_STATEMENT, 0))
        if said.kind == "LongData":
            assert isinstance(arguments[1], bytes)
            self._long.add(str(arguments[0]))
            return code + struct.pack("<IH", number, 0) + arguments[1]
        if said.kind == "Fetch":
            return code + struct.pack("<II", number, 2)
        if said.kind == "StmtClose":
            self.statements.pop(str(arguments[0]), None)
        if said.kind != "Execute":
            return code + struct.pack("<I", number)
        name, cursor, *values = arguments
        sent_before = name in self._long
        self._long.discard(str(name))
        body = struct.pack("<IBI", number, int(bool(cursor)), 1)
        if parameters:
            given = [*values, *[b"1"] * parameters][:parameters]
            nulls = bytearray((parameters + 7) // 8)
            data = b""
            for i, value in enumerate(given):
                if i == 0 and sent_before:
                    continue
                if value is None:
                    nulls[i // 8] |= 1 << (i % 8)
                else:
                    text = value if isinstance(value, bytes) else str(value).encode().replace(*self.renamed)
                    data += (bytes((len(text),)) if len(text) < 251 else b"\xfc" + struct.pack("<H", len(text))) + text
            body += bytes(nulls) + b"\1" + b"\xfd\0" * parameters + data
        return code + body

    def _text(self, argument: object) -> bytes:
        return (argument.encoded() if isinstance(argument, Text) else str(argument).encode()).replace(*self.renamed)

    def _send_packet(self, body: bytes) -> None:
        try:
            self.socket.sendall(len(body).to_bytes(3, "little") + bytes(((self._number + 1) & 255,)) + body)
        except OSError:
            pass

    # ------------------------------------------------------------------------------------------------------ receiving

    def _expect(self, readers: list[Packets]) -> None:
        self._reading = readers
        if readers:
            next(readers[0])

    def _take(self, data: bytes) -> None:
        position, end = 0, len(data)
        while end - position >= 4 and self._reading:
            size = int.from_bytes(data[position : position + 3], "little") + 4
            if end - position < size:
                break
            self._number = data[position + 3]
            body = data[position + 4 : position + size]
            for theirs, shown in self._shown:
                body = body.replace(theirs, shown)
            position += size
            try:
                self._reading[0].send(body)
            except StopIteration:
                self._reading.pop(0)
                if self._reading:
                    next(self._reading[0])
        self._rest = data[position:]

    def _reader(self, said: Message) -> Packets:
        replies: list[tuple[object, ...]] = []
        self._answer.replies.append(replies)
        if said.kind == "Prepare":
            return self._prepared(str(said.arguments[0]), replies)
        if said.kind == "Fetch":
            return self._rows(replies)
        if said.kind == "ChangeUser":
            return self._changed_user(replies)
        if said.kind in ("Ping", "InitDb", "SetOption"):
            return self._pinged(replies)
        return self._results(replies)

    def _error(self, body: bytes, replies: list[tuple[object, ...]]) -> None:
        number = int.from_bytes(body[1:3], "little")
        state, text = (body[4:9].decode(), body[9:]) if body[3:4] == b"#" else ("", body[3:])
        replies.append(("ERR", number, state, text.decode("utf8", "replace")))
        self._answer.errors.append(replies[-1])

    def _results(self, replies: list[tuple[object, ...]]) -> Packets:
        more = True
        while more:
            body = yield
            if body[0] == 0xFF:
                self._error(body, replies)
                return
            if body[0] == 0xFB:
                self._send_packet(LOADED)
                self._number += 1
                self._send_packet(b"")
                continue
            if body[0] == 0 or (body[0] == 0xFE and len(body) < 9):
                more = bool(self._ok(body, replies) & MORE_RESULTS)
                continue
            status = yield from self._result_set(body, replies)
            more = bool(status & MORE_RESULTS)

    def _result_set(self, body: bytes, replies: list[tuple[object, ...]]) -> Generator[None, bytes, int]:
        columns: list[bytes] = []
        while len(columns) < lenenc(body, 0)[0]:
            columns.append((yield))
        replies.append(("COLUMNS", *columns))
        if not self.flags & DEPRECATE_EOF:
            status = eof_status((yield))
            if status & CURSOR_EXISTS:
                replies.append(("CURSOR", status & TOLD_STATUS))
                return 0
        return (yield from self._rows(replies))

    def _rows(self, replies: list[tuple[object, ...]]) -> Generator[None, bytes, int]:
        rows = []
        while True:
            body = yield
            if body[0] == 0xFF:
                replies.append(("ROWS", *rows))
                self._error(body, replies)
                return 0
            if body[0] == 0xFE and (len(body) < 9 or (self.flags & DEPRECATE_EOF and len(body) < 0xFFFFFF)):
                replies.append(("ROWS", *rows))
                if self.flags & DEPRECATE_EOF:
                    return self._ok(body, replies)
                replies.append(("EOF", int.from_bytes(body[1:3], "little"), eof_status(body) & TOLD_STATUS))
                return eof_status(body)
            rows.append(body)

    def _ok(self, body: bytes, replies: list[tuple[object, ...]]) -> int:
        if len(body) < 7:
            replies.append(("EOF", int.from_bytes(body[1:3], "little"), eof_status(body) & TOLD_STATUS))
            return eof_status(body)
        affected, position = lenenc(body, 1)
        number, position = lenenc(body, position)
        status, warnings = struct.unpack_from("<HH", body, position)
        info = body[position + 4 :]
        if self.flags & SESSION_TRACK and info:
            length, start = lenenc(info, 0)
            info = info[start : start + length]
        elif info:
            info = info[1:] if info[0] == len(info) - 1 else info
        replies.append(("OK", affected, number, status & TOLD_STATUS, warnings, info))
        return int(status)

    def _prepared(self, name: str, replies: list[tuple[object, ...]]) -> Packets:
        body = yield
        if body[0] == 0xFF or len(body) < SHORTEST_PREPARED:
            self._error(body if body[0] == 0xFF else NOT_PREPARED, replies)
            return
        number, columns, parameters, _, warnings = struct.unpack_from("<IHHBH", body, 1)
        self.statements[name] = (number, parameters)
        told: list[bytes] = []
        for count in (parameters, columns):
            end = len(told) + count
            while len(told) < end:
                told.append((yield))
            if count and not self.flags & DEPRECATE_EOF:
                yield
        replies.append(("PREPARED", columns, parameters, warnings, *told))

    def _pinged(self, replies: list[tuple[object, ...]]) -> Packets:
        yield from self._results(replies)
        # Whether it counts the warnings of the statement before is of no use to anyone.
        without = {"OK": lambda reply: (*reply[:4], 0, b""), "EOF": lambda reply: ("EOF", 0, reply[2])}
        replies[:] = [without[str(reply[0])](reply) if reply[0] in without else reply for reply in replies]

    def _changed_user(self, replies: list[tuple[object, ...]]) -> Packets:
        yield from self._authentication(replies, b"")
        self.statements = {}

    def _login(self) -> Packets:
        replies: list[tuple[object, ...]] = []
        self._answer.replies.append(replies)
        hello = yield
        if hello[0] == 0xFF:
            self._error(hello, replies)
            return
        end = hello.index(b"\0", 1)
        nonce = hello[end + 5 : end + 13]
        offered = int.from_bytes(hello[end + 14 : end + 16], "little") | int.from_bytes(hello[end + 19 : end + 21], "little") << 16
        nonce += hello[end + 32 : end + 44]
        plugin = hello[end + 45 :].split(b"\0")[0]
        self.flags = (USUAL | self.flags) & offered
        response = scrambled(plugin, self.password, nonce)
        self._send_packet(
            struct.pack("<IIB23x", self.flags, 1 << 24, self.charset)
            + self.user + b"\0" + bytes((len(response),)) + response + self.database + b"\0" + plugin + b"\0"
        )  # fmt: skip
        yield from self._authentication(replies, nonce)

    def _authentication(self, replies: list[tuple[object, ...]], nonce: bytes) -> Packets:
        plugin = b"caching_sha2_password"
        while True:
            body = yield
            if body[0] == 0xFF:
                self._error(body, replies)
                return
            if body[0] == 0xFE:
                plugin, nonce = body[1:].split(b"\0", 1)
                nonce = nonce[:20]
                self._send_packet(scrambled(plugin, self.password, nonce))
            elif body == b"\1\4":
                self._send_packet(b"\2")
                key = yield
                self._send_packet(_auth.sha2_rsa_encrypt(self.password, nonce, key[1:]))
            elif body[0] == 0:
                self._ok(body, replies)
                return


def scrambled(plugin: bytes, password: bytes, nonce: bytes) -> bytes:
    """The proof of a password."""
    if plugin == b"caching_sha2_password":
        return bytes(_auth.scramble_caching_sha2(password, nonce))
    return bytes(_auth.scramble_native_password(password, nonce))


def eof_status(body: bytes) -> int:
    """The status flags of an EOF packet."""
    return int.from_bytes(body[3:5], "little")


def lenenc(body: bytes, position: int) -> tuple[int, int]:
    """A length-encoded integer, and where it ends."""
    first = body[position]
    if first < 0xFB:
        return first, position + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    return int.from_bytes(body[position + 1 : position + 1 + size], "little"), position + 1 + size


def row_values(row: bytes) -> list[bytes | None]:
    """The values of a text row."""
    found: list[bytes | None] = []
    position = 0
    while position < len(row):
        if row[position] == 0xFB:
            found.append(None)
            position += 1
            continue
        length, position = lenenc(row, position)
        found.append(row[position : position + length])
        position += length
    return found
