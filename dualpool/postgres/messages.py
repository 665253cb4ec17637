"""Building and parsing the messages that logins, errors and notices need.

Source: docs, "Message Formats" and "Error and Notice Message Fields".
Text is UTF-8. Bytes that are not (a name in a client's own encoding) survive the way in and out as surrogates.
"""

from typing import Final

from dualpool.errors import DualpoolError, RemoteProtocolError
from dualpool.postgres import wire
from dualpool.protocol import Notification

# The first word of an Authentication message.
AUTH_OK: Final = 0
AUTH_CLEARTEXT: Final = 3
AUTH_MD5: Final = 5
AUTH_SASL: Final = 10
AUTH_SASL_CONTINUE: Final = 11
AUTH_SASL_FINAL: Final = 12
AUTH_NAMES: Final = {2: "Kerberos V5", 6: "SCM credentials", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}
"""What a server can ask for that dualpool cannot answer."""

NULL_LENGTH: Final = 0xFFFFFFFF
"""-1, without its sign."""
MAX_CANCEL_KEY: Final = 256
"""Bytes of a cancel key in protocol 3.2; in 3.0 it has 4."""


def raw(text: str) -> bytes:
    """`text` as it goes over the wire."""
    return text.encode("utf-8", "surrogateescape")


def text(data: bytes) -> str:
    """What came over the wire, as text."""
    return data.decode("utf-8", "surrogateescape")


def _string(value: str) -> bytes:
    return wire.cstring(raw(value))


# ----------------------------------------------------------------------------------------------------------- errors, notices


def error_message(error: DualpoolError) -> bytes:
    """`error` as an ErrorResponse: severity, SQLSTATE, message and hint."""
    return wire.message(wire.ERROR_RESPONSE, _report(error.severity, error.sqlstate, error.message, error.hint))


def notice_message(message: str, hint: str = "") -> bytes:
    """A NoticeResponse that psql prints as `NOTICE:  message`."""
    return wire.message(wire.NOTICE, _report("NOTICE", "00000", message, hint))


def _report(severity: str, sqlstate: str, message: str, hint: str) -> bytes:
    # V repeats the severity for programs: S may be translated, V never is.
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", message)]
    if hint:
        fields.append(("H", hint))
    return b"".join(kind.encode() + _string(value) for kind, value in fields) + b"\0"


def parse_report(payload: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse, by their letters (`C` SQLSTATE, `M` message). Takes what it can of a broken one."""
    fields: dict[str, str] = {}
    for field in payload.split(b"\0"):
        if not field:
            break
        fields[text(field[:1])] = text(field[1:])
    return fields


def parse_notification(payload: bytes) -> Notification:
    """A NotificationResponse. Raises RemoteProtocolError."""
    words = payload[4:].split(b"\0")
    if len(words) != 3:
        raise RemoteProtocolError("invalid NotificationResponse message")
    return Notification(text(words[0]), words[1], wire.INT32.unpack_from(payload)[0])


def notification(process_id: int, content: Notification) -> bytes:
    """A NotificationResponse that names `process_id` as its sender."""
    return wire.message(wire.NOTIFICATION, wire.INT32.pack(process_id) + _string(content.channel) + content.payload + b"\0")


def parse_row(payload: bytes) -> list[bytes | None]:
    """The columns of a DataRow."""
    values: list[bytes | None] = []
    position = 2
    while position < len(payload):
        (length,) = wire.INT32.unpack_from(payload, position)
        position += 4
        if length == NULL_LENGTH:
            values.append(None)
        else:
            values.append(payload[position : position + length])
            position += length
    return values


# -------------------------------------------------------------------------------------------------------- a connection's start


def request(code: int, body: bytes = b"") -> bytes:
    """A connection's first message, which has no kind byte: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage."""
    return wire.INT32.pack(len(body) + 8) + wire.INT32.pack(code) + body


def startup(parameters: dict[str, str], version: int = wire.PROTOCOL_3_0) -> bytes:
    """A StartupMessage."""
    return request(version, b"".join(_string(name) + _string(value) for name, value in parameters.items()) + b"\0")


def parse_startup(body: bytes) -> dict[str, str]:
    """The parameters of a StartupMessage, from what follows its version. Raises RemoteProtocolError."""
    words = body.split(b"\0")
    # n pairs and a terminator: 2n words, an empty one for the terminator, and one after its own null byte.
    if len(words) % 2 or words[-2:] != [b"", b""] or b"" in words[:-2:2]:
        raise RemoteProtocolError("invalid startup packet layout: expected name and value pairs and a terminator as last byte")
    return {text(name): text(value) for name, value in zip(words[:-2:2], words[1:-2:2], strict=True)}


def cancel_request(process_id: int, secret: bytes) -> bytes:
    """A CancelRequest."""
    return request(wire.CANCEL_REQUEST, wire.INT32.pack(process_id) + secret)


def negotiate_version(version: int, options: list[str]) -> bytes:
    """NegotiateProtocolVersion: the version we go on with, and the `_pq_.` options that we do not know."""
    names = b"".join(_string(name) for name in options)
    return wire.message(wire.NEGOTIATE_VERSION, wire.INT32.pack(version) + wire.INT32.pack(len(options)) + names)


def parameter_status(name: str, value: str) -> bytes:
    """A ParameterStatus."""
    return wire.message(wire.PARAMETER_STATUS, _string(name) + _string(value))


def parse_parameter_status(payload: bytes) -> tuple[str, str]:
    """Name and value of a ParameterStatus. Raises RemoteProtocolError."""
    words = payload.split(b"\0")
    if len(words) != 3 or words[2]:
        raise RemoteProtocolError("invalid ParameterStatus message")
    return text(words[0]), text(words[1])


def backend_key(process_id: int, secret: bytes) -> bytes:
    """BackendKeyData."""
    return wire.message(wire.BACKEND_KEY, wire.INT32.pack(process_id) + secret)


def parse_backend_key(payload: bytes) -> tuple[int, bytes]:
    """Process id and secret of BackendKeyData. Raises RemoteProtocolError."""
    if not 4 < len(payload) <= 4 + MAX_CANCEL_KEY:
        raise RemoteProtocolError(f"invalid BackendKeyData message of {len(payload)} bytes")
    return wire.INT32.unpack_from(payload)[0], payload[4:]


# ------------------------------------------------------------------------------------------------------------ authentication


def authentication(kind: int, data: bytes = b"") -> bytes:
    """An Authentication message: AUTH_OK, AUTH_MD5 with its salt, AUTH_SASL_CONTINUE with its data..."""
    return wire.message(wire.AUTHENTICATION, wire.INT32.pack(kind) + data)


def sasl(mechanisms: list[str]) -> bytes:
    """AuthenticationSASL: the mechanisms that the client may choose from."""
    return authentication(AUTH_SASL, b"".join(_string(name) for name in mechanisms) + b"\0")


def parse_sasl(data: bytes) -> list[str]:
    """The mechanisms of AuthenticationSASL, from what follows its kind."""
    return [text(name) for name in data.split(b"\0") if name]


def password(secret: bytes) -> bytes:
    """A PasswordMessage: clear text or an md5 response."""
    return wire.message(wire.PASSWORD, secret + b"\0")


def sasl_initial(mechanism: str, data: bytes) -> bytes:
    """SASLInitialResponse."""
    return wire.message(wire.PASSWORD, _string(mechanism) + wire.INT32.pack(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    """SASLResponse."""
    return wire.message(wire.PASSWORD, data)


def parse_sasl_initial(payload: bytes) -> tuple[str, bytes]:
    """Mechanism and data of SASLInitialResponse. Raises RemoteProtocolError."""
    mechanism, null, rest = payload.partition(b"\0")
    # The length -1 (no data) is legal, but no SCRAM client speaks second; it fails here as a length that does not fit.
    if not null or len(rest) < 4 or wire.INT32.unpack_from(rest)[0] != len(rest) - 4:
        raise RemoteProtocolError("malformed SASLInitialResponse message")
    return text(mechanism), rest[4:]
