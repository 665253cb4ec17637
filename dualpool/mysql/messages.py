"""The packets that are not passed on but made or read: OK, ERR, EOF, and those of a login.

Source: MySQL Source Code Documentation, "Client/Server Protocol", Connection Phase and Generic Response Packets. A `..._payload` has no
header; `Conversation` adds it. Everything here expects CLIENT_PROTOCOL_41, which every client since MySQL 4.1 has.
"""

from dataclasses import dataclass, field  # the relay builds its errors here, and hot modules do without attrs
from typing import Final

from dualpool.errors import DualpoolError, RemoteProtocolError
from dualpool.mysql import wire
from dualpool.protocol import Exchange, Receive, ReceiveSome, Send

SQLSTATE_SIZE: Final = 5
NONCE_SIZE: Final = 20
RESPONSE_HEAD: Final = 32
"""Capabilities, packet size, character set and filler: all of an SSLRequest, and how a HandshakeResponse41 begins."""


class Conversation:
    """The packets of one exchange: counts sequence numbers, joins split payloads, and keeps them under `limit` bytes."""

    __slots__ = ("_buffer", "eager", "limit", "sequence")

    def __init__(self, limit: int, sequence: int = 0, buffer: bytes = b"") -> None:
        """`buffer`: what was read already."""
        self.limit = limit
        self.sequence = sequence
        self.eager = False
        """Read what is there instead of packet by packet. Only where no TLS handshake can follow."""
        self._buffer = buffer

    @property
    def leftover(self) -> bytes:
        """Bytes that were read and belong to no packet yet."""
        return self._buffer

    def send(self, payload: bytes) -> Exchange[None]:
        data = wire.packet(self.sequence, payload)
        self._count(len(payload))
        yield Send(data)

    def receive(self) -> Exchange[bytes]:
        """The next payload. Raises RemoteProtocolError if it is too long or out of sequence."""
        payload = yield from self._receive_part(0)
        size = len(payload)
        while size == wire.MAX_PAYLOAD:
            part = yield from self._receive_part(len(payload))
            size = len(part)
            payload += part
        return payload

    def _receive_part(self, before: int) -> Exchange[bytes]:
        head = int.from_bytes((yield from self._take(wire.HEADER_SIZE)), "little")
        size, sequence = head & 0xFFFFFF, head >> 24
        if sequence != self.sequence:
            raise RemoteProtocolError(f"packet number {sequence} came where {self.sequence} was due", errno=1156)
        if before + size > self.limit:
            raise RemoteProtocolError(
                f"a packet of {before + size} bytes is longer than the {self.limit} that are allowed here", errno=1153
            )
        self.sequence = (sequence + 1) & 255
        return (yield from self._take(size))

    def _take(self, size: int) -> Exchange[bytes]:
        while len(self._buffer) < size:
            self._buffer += yield ReceiveSome() if self.eager else Receive(size - len(self._buffer))
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _count(self, size: int) -> None:
        self.sequence = (self.sequence + 1 + size // wire.MAX_PAYLOAD) & 255


# ------------------------------------------------------------------------------------------------------------ generic answers


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """What an ERR packet says. `sqlstate` is HY000 where the server sent none (before the login)."""

    errno: int
    sqlstate: str
    message: str


def is_end(payload: bytes, capabilities: int) -> bool:
    """Does this packet, where a row could be, end the result? (A row may begin with 0xFE too, if its first value is of 16 MiB or more.)"""
    longest = wire.MAX_PAYLOAD if capabilities & wire.CLIENT_DEPRECATE_EOF else 9
    return payload[:1] == b"\xfe" and len(payload) < longest


def error_payload(errno: int, sqlstate: str, message: str) -> bytes:
    """An ERR packet. Without `sqlstate` it is of the form for a client whose capabilities are not known yet."""
    marker = b"#" + sqlstate.encode("ascii") if sqlstate else b""
    return bytes((wire.ERR,)) + wire.INT16.pack(errno) + marker + message.encode()


def parse_error(payload: bytes) -> ErrorMessage:
    """Read an ERR packet, with or without SQLSTATE. Raises RemoteProtocolError where it is cut."""
    errno, position = _int16(payload, 1)
    sqlstate = "HY000"
    if payload[position : position + 1] == b"#" and len(payload) > position + SQLSTATE_SIZE:
        sqlstate = payload[position + 1 : position + 1 + SQLSTATE_SIZE].decode("ascii", "replace")
        position += 1 + SQLSTATE_SIZE
    return ErrorMessage(errno, sqlstate, text(payload[position:]))


def error_text(error: bytes) -> str:
    """The message of an ERR packet."""
    return error[3:].decode("utf-8", "replace")


def error_message(error: DualpoolError, sequence: int = 1) -> bytes:
    """`error` as an ERR packet. `sequence`: 1 answers a command; 0 stands in place of the greeting, where no SQLSTATE may be sent."""
    message = f"{error.message} {error.hint}" if error.hint else error.message
    return wire.packet(sequence, error_payload(error.errno, error.mysql_sqlstate if sequence else "", message))


def notice_message(text: str) -> bytes:
    """Nothing: MySQL has no message outside an answer (what it has is SHOW WARNINGS, which the client asks for)."""
    del text
    return b""


def schema_change(schema: str) -> bytes:
    """The session state change that tells a client which schema is current."""
    return bytes((wire.TRACK_SCHEMA,)) + wire.put_lenenc_bytes(wire.put_lenenc_bytes(schema.encode()))


# --------------------------------------------------------------------------------------------------------------------- login


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says first (HandshakeV10). `nonce` is of 20 bytes."""

    server_version: str
    connection_id: int
    nonce: bytes = field(repr=False)
    capabilities: int = 0
    character_set: int = 0
    status: int = wire.STATUS_AUTOCOMMIT
    auth_plugin: str = ""

    def payload(self) -> bytes:
        return b"".join(
            (
                b"\x0a",
                self.server_version.encode() + b"\0",
                wire.INT32.pack(self.connection_id & 0xFFFFFFFF),
                self.nonce[:8] + b"\0",
                wire.INT16.pack(self.capabilities & 0xFFFF),
                bytes((self.character_set & 0xFF,)),
                wire.INT16.pack(self.status),
                wire.INT16.pack(self.capabilities >> 16 & 0xFFFF),
                bytes((len(self.nonce) + 1,)),
                bytes(10),
                self.nonce[8:] + b"\0",
                self.auth_plugin.encode() + b"\0",
            )
        )


def parse_greeting(payload: bytes) -> Greeting:
    """Read a HandshakeV10. Raises RemoteProtocolError where it is cut or of another version."""
    if payload[:1] != b"\x0a":
        raise RemoteProtocolError(f"the greeting is of protocol version {payload[0] if payload else 'none'}, not 10")
    version, position = wire.get_nul_bytes(payload, 1)
    if len(payload) < position + 31 + 12:
        raise RemoteProtocolError("the greeting is cut short")
    fixed, rest = payload[position : position + 31], payload[position + 31 :]
    nonce_size = max(13, fixed[20] - 8)
    return Greeting(
        server_version=text(version),
        connection_id=int.from_bytes(fixed[0:4], "little"),
        nonce=(fixed[4:12] + rest[:nonce_size])[:NONCE_SIZE],
        capabilities=int.from_bytes(fixed[13:15] + fixed[18:20], "little"),
        character_set=fixed[15],
        status=int.from_bytes(fixed[16:18], "little"),
        auth_plugin=text(rest[nonce_size:].partition(b"\0")[0]),
    )


@dataclass(frozen=True, slots=True)
class HandshakeResponse:
    """What a client answers (HandshakeResponse41)."""

    capabilities: int
    max_packet: int
    character_set: int
    user: str
    auth: bytes = field(default=b"", repr=False)
    database: str = ""
    auth_plugin: str = ""
    attributes: dict[str, str] = field(default_factory=dict)

    def head(self) -> bytes:
        """What it begins with; alone, with CLIENT_SSL, it asks for TLS."""
        return wire.INT32.pack(self.capabilities) + wire.INT32.pack(self.max_packet) + bytes((self.character_set & 0xFF,)) + bytes(23)

    def payload(self) -> bytes:
        data = self.head() + self.user.encode() + b"\0" + _auth_field(self.auth, self.capabilities)
        if self.capabilities & wire.CLIENT_CONNECT_WITH_DB:
            data += self.database.encode() + b"\0"
        if self.capabilities & wire.CLIENT_PLUGIN_AUTH:
            data += self.auth_plugin.encode() + b"\0"
        if self.capabilities & wire.CLIENT_CONNECT_ATTRS:
            words = [word.encode() for pair in self.attributes.items() for word in pair]
            data += wire.put_lenenc_bytes(b"".join(map(wire.put_lenenc_bytes, words)))
        return data


def parse_handshake_response(payload: bytes) -> HandshakeResponse:
    """Read a HandshakeResponse41. Raises RemoteProtocolError where it is cut, lies about a length, or is older than MySQL 4.1."""
    capabilities = response_capabilities(payload)
    if len(payload) < RESPONSE_HEAD:
        raise RemoteProtocolError("the handshake response is cut short", errno=1043)
    user, position = wire.get_nul_bytes(payload, RESPONSE_HEAD)
    auth, position = _get_auth_field(payload, position, capabilities)
    database = plugin = b""
    attributes: dict[str, str] = {}
    if capabilities & wire.CLIENT_CONNECT_WITH_DB:
        database, position = wire.get_nul_bytes(payload, position)
    if capabilities & wire.CLIENT_PLUGIN_AUTH:
        plugin, position = wire.get_nul_bytes(payload, position)
    if capabilities & wire.CLIENT_CONNECT_ATTRS:
        block, position = wire.get_lenenc_bytes(payload, position)
        attributes = _parse_attributes(block)
    return HandshakeResponse(
        capabilities=capabilities,
        max_packet=int.from_bytes(payload[4:8], "little"),
        character_set=payload[8],
        user=text(user),
        auth=auth,
        database=text(database),
        auth_plugin=text(plugin),
        attributes=attributes,
    )


def parse_change_user(payload: bytes, capabilities: int, character_set: int) -> HandshakeResponse:
    """Read a COM_CHANGE_USER. `capabilities` are those of the login before; `character_set` as well, in case it names none.

    Raises RemoteProtocolError where it is cut. It cannot be asked for without a database: an empty name stands for none.
    """
    user, position = wire.get_nul_bytes(payload, 1)
    # The length is one byte, whatever was agreed on for the handshake.
    auth, position = _get_auth_field(payload, position, capabilities & ~wire.CLIENT_PLUGIN_AUTH_LENENC)
    database, position = wire.get_nul_bytes(payload, position)
    plugin = b""
    attributes: dict[str, str] = {}
    if position < len(payload):
        character_set, position = _int16(payload, position)
    if position < len(payload) and capabilities & wire.CLIENT_PLUGIN_AUTH:
        plugin, position = wire.get_nul_bytes(payload, position)
    if position < len(payload) and capabilities & wire.CLIENT_CONNECT_ATTRS:
        block, position = wire.get_lenenc_bytes(payload, position)
        attributes = _parse_attributes(block)
    return HandshakeResponse(
        capabilities=capabilities,
        max_packet=0,
        character_set=character_set,
        user=text(user),
        auth=auth,
        database=text(database),
        auth_plugin=text(plugin),
        attributes=attributes,
    )


def response_capabilities(payload: bytes) -> int:
    """The capability flags that a HandshakeResponse41 or SSLRequest begins with. Raises RemoteProtocolError for older protocols."""
    capabilities = int.from_bytes(payload[:4], "little")
    if len(payload) < 4 or not capabilities & wire.CLIENT_PROTOCOL_41:
        raise RemoteProtocolError("the client's protocol is older than MySQL 4.1", hint="Consider upgrading the MySQL client.", errno=1251)
    return capabilities


def auth_switch_payload(plugin: str, data: bytes) -> bytes:
    """Ask the client to log in by `plugin`. `data` is the plugin's: a nonce, for most of them with a NUL behind it."""
    return bytes((wire.AUTH_SWITCH,)) + plugin.encode() + b"\0" + data


def parse_auth_switch(payload: bytes) -> tuple[str, bytes]:
    """Which plugin the server asks for, and the plugin's data. Raises RemoteProtocolError where it is cut."""
    plugin, position = wire.get_nul_bytes(payload, 1)
    return text(plugin), payload[position:]


def text(data: bytes) -> str:
    """A name as text: UTF-8, as any current client sends it; what is none becomes U+FFFD, so that no name can break a log."""
    return data.decode("utf-8", "replace")


def _auth_field(auth: bytes, capabilities: int) -> bytes:
    if capabilities & wire.CLIENT_PLUGIN_AUTH_LENENC:
        return wire.put_lenenc_bytes(auth)
    return bytes((len(auth),)) + auth


def _get_auth_field(payload: bytes, position: int, capabilities: int) -> tuple[bytes, int]:
    if capabilities & wire.CLIENT_PLUGIN_AUTH_LENENC:
        return wire.get_lenenc_bytes(payload, position)
    if not capabilities & wire.CLIENT_SECURE_CONNECTION:
        return wire.get_nul_bytes(payload, position)
    start = position + 1
    end = start + payload[position] if position < len(payload) else start
    if end > len(payload):
        raise RemoteProtocolError("a packet ends inside its authentication data", errno=1043)
    return payload[start:end], end


def _parse_attributes(block: bytes) -> dict[str, str]:
    attributes: dict[str, str] = {}
    position = 0
    while position < len(block):
        name, position = wire.get_lenenc_bytes(block, position)
        value, position = wire.get_lenenc_bytes(block, position)
        attributes[text(name)] = text(value)
    return attributes


def _int16(payload: bytes, position: int) -> tuple[int, int]:
    end = position + 2
    if end > len(payload):
        raise RemoteProtocolError("a packet ends inside an integer")
    return int.from_bytes(payload[position:end], "little"), end
