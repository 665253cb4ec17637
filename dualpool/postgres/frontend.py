"""Logging a client in, as a PostgreSQL server does. Source: docs, "Message Flow", sections Start-up, SSL Session Encryption and SASL.

The order: TLS (asked for, or direct), a start-up packet or a cancel request, the account, its password or certificate. `accept()`
ends there; `welcome()` builds what says "you are in", which has to wait until the server's parameters are known.
"""

import hmac
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Final

import attrs

from dualpool.accounts import Account, CancelRequest, ClientLogin, FrontendPolicy, LearntSecret
from dualpool.authentication.peers import common_name
from dualpool.errors import DualpoolError, LoginFailed, RemoteProtocolError
from dualpool.postgres import auth, messages, wire
from dualpool.protocol import ConnectionClosed, Exchange, FindAccount, Offload, Peek, Receive, Send, StartTls, TlsInfo

MAX_PASSWORD_BYTES: Final = 65_535
MAX_SASL_BYTES: Final = 1024
"""PostgreSQL's own limits for what a client may send before it is in (PG_MAX_AUTH_TOKEN_LENGTH, PG_MAX_SASL_MESSAGE_LENGTH)."""

TLS_HANDSHAKE: Final = b"\x16"
SUPPORTED: Final = (wire.PROTOCOL_3_0, wire.PROTOCOL_3_2)
HTTP_METHODS: Final = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN", b"PRI ")

CLIENT_ONLY: Final = frozenset(
    {
        "channel_binding", "connect_timeout", "connection_limit", "gssencmode", "host", "hostaddr",
        "max_idle_connection_lifetime", "passfile", "password", "pgbouncer", "pool_timeout", "port", "schema",
        "single_use_connections", "socket_timeout", "sslaccept", "sslcert", "sslidentity", "sslkey", "sslmode",
        "sslnegotiation", "sslpassword", "sslrootcert", "statement_cache_size", "target_session_attrs",
    }
)  # fmt: skip
"""What URLs carry for the client alone (libpq, Prisma, DigitalOcean). Some drivers send all of a URL; as settings these would be errors."""
ROUTING: Final = frozenset({"endpoint", "project", "reference"})
"""Names that Neon and Supabase take from `options` to find the tenant. Not settings: FindAccount sees them, the server never does."""

TRUE_WORDS: Final = ("true", "yes", "on", "1", "database")
FALSE_WORDS: Final = ("false", "no", "off", "0")


class TlsRefused(RemoteProtocolError):
    """A protocol error that cannot be sent: the client expects TLS records, and there is no TLS session to send them in."""


@attrs.frozen
class _Start:
    """What a client said of itself before it proved anything."""

    user: str
    database: str
    parameters: dict[str, str]
    routing: dict[str, str]
    replication: bool
    version: int
    tls: TlsInfo | None


def accept(policy: FrontendPolicy) -> Exchange[ClientLogin | CancelRequest]:
    """Log a client in. Every DualpoolError that it raises has been sent to the client, except where TLS itself failed."""
    try:
        start = yield from _start_up(policy)
        if isinstance(start, CancelRequest):
            return start
        account: Account = yield FindAccount(start.user, start.database, start.parameters | start.routing)
        learnt = yield from _authenticate(account, start, policy)
    except TlsRefused:
        raise
    except DualpoolError as error:
        try:
            yield Send(messages.error_message(error))
        except ConnectionClosed:
            pass  # It did not wait for the answer; the reason is still the error.
        raise
    return ClientLogin(account, start.parameters, learnt, start.tls, start.version, replication=start.replication)


def welcome(login: ClientLogin, parameters: dict[str, str], process_id: int, secret: bytes) -> bytes:
    """AuthenticationOk, the parameters, the cancel key and ReadyForQuery. A client of protocol 3.0 gets the first 4 bytes of `secret`."""
    key = secret if login.protocol_version >= wire.PROTOCOL_3_2 else secret[:4]
    statuses = b"".join(messages.parameter_status(name, value) for name, value in parameters.items())
    return messages.authentication(messages.AUTH_OK) + statuses + messages.backend_key(process_id, key) + wire.ready(wire.IDLE)


# ------------------------------------------------------------------------------------------------------------------- start-up


def _start_up(policy: FrontendPolicy) -> Exchange[_Start | CancelRequest]:
    tls: TlsInfo | None = None
    if (yield Peek()) == TLS_HANDSHAKE:
        tls = yield from _direct_tls(policy)
    refused: set[int] = set()
    while True:
        code, body = yield from _first_message(policy)
        if code == wire.SSL_REQUEST and tls is None and code not in refused:
            tls = yield from _answer_ssl_request(policy, body)
        elif code == wire.GSSENC_REQUEST and tls is None and code not in refused:
            _check_empty(body)
            yield Send(b"N")
        elif code == wire.CANCEL_REQUEST:
            return _cancel_request(body)
        else:
            return (yield from _read_start(policy, code, body, tls))
        refused.add(code)


def _direct_tls(policy: FrontendPolicy) -> Exchange[TlsInfo]:
    if not policy.tls:
        raise TlsRefused(
            "the client started TLS at once, but this listener has no certificate", hint="set tls on the listener, or sslmode=disable"
        )
    return (yield from _start_tls("postgresql"))


def _start_tls(required_alpn: str = "") -> Exchange[TlsInfo]:
    try:
        tls: TlsInfo = yield StartTls(required_alpn)
    except RemoteProtocolError as error:
        raise TlsRefused(error.message, hint=error.hint) from error
    return tls


def _answer_ssl_request(policy: FrontendPolicy, body: bytes) -> Exchange[TlsInfo | None]:
    _check_empty(body)
    if not policy.tls or policy.unix_socket:
        yield Send(b"N")
        return None
    yield Send(b"S")
    # What the client sent behind its request in plain text is still unread, and now meets the TLS handshake, which it breaks
    # (CVE-2021-23214).
    return (yield from _start_tls())


def _check_empty(body: bytes) -> None:
    if body:
        raise RemoteProtocolError(f"an encryption request has 8 bytes, not {len(body) + 8}")


def _first_message(policy: FrontendPolicy) -> Exchange[tuple[int, bytes]]:
    """A message without a kind: its code, and what follows that."""
    head: bytes = yield Receive(4)
    (length,) = wire.INT32.unpack(head)
    if not 8 <= length <= policy.max_startup_bytes:
        raise _bad_length(head, length, policy)
    packet: bytes = yield Receive(length - 4)
    return wire.INT32.unpack_from(packet)[0], packet[4:]


def _bad_length(head: bytes, length: int, policy: FrontendPolicy) -> RemoteProtocolError:
    if head[:2] == TLS_HANDSHAKE + b"\x03":
        return TlsRefused("the client started TLS where a start-up packet was due")
    if head in HTTP_METHODS:
        return RemoteProtocolError("this is a PostgreSQL port, and the client speaks HTTP")
    return RemoteProtocolError(f"invalid length of startup packet: {length} is not within 8 and {policy.max_startup_bytes}")


def _cancel_request(body: bytes) -> CancelRequest:
    if not 4 < len(body) <= 4 + messages.MAX_CANCEL_KEY:
        raise RemoteProtocolError("invalid length of cancel request")
    return CancelRequest(wire.INT32.unpack_from(body)[0], body[4:])


def _read_start(policy: FrontendPolicy, code: int, body: bytes, tls: TlsInfo | None) -> Exchange[_Start]:
    major, minor = code >> 16, code & 0xFFFF
    if major != 3:
        raise RemoteProtocolError(f"unsupported frontend protocol {major}.{minor}: dualpool supports 3.0 to 3.2", sqlstate="0A000")
    version = max(known for known in SUPPORTED if known <= code)
    given = messages.parse_startup(body)
    unknown = [name for name in given if name.startswith("_pq_.")]
    if version != code or unknown:
        yield Send(messages.negotiate_version(version, unknown))
    if policy.tls_required and tls is None and not policy.unix_socket:
        raise LoginFailed("this listener accepts only connections with TLS", hint="connect with sslmode=require", sqlstate="28000")
    return _start(given, version, tls)


def _start(given: dict[str, str], version: int, tls: TlsInfo | None) -> _Start:
    user = given.pop("user", "")
    if not user:
        raise LoginFailed("no PostgreSQL user name specified in startup packet", sqlstate="28000")
    database = given.pop("database", "") or user
    options = parse_options(given.pop("options", ""))
    routing = {name: options.pop(name) for name in ROUTING & options.keys()}
    # A parameter of the packet itself wins over one in `options`, as it does in PostgreSQL (process_startup_options).
    parameters = {name: value for name, value in (options | given).items() if name not in CLIENT_ONLY and not name.startswith("_pq_.")}
    replication = _is_true(parameters.get("replication", "off"))
    if not replication:
        parameters.pop("replication", None)
    return _Start(user, database, parameters, routing, replication, version, tls)


def _is_true(value: str) -> bool:
    """A boolean setting, or `database` (logical replication). Unique prefixes do, as in PostgreSQL's parse_bool."""
    for words, answer in ((TRUE_WORDS, True), (FALSE_WORDS, False)):
        if value and value != "o" and any(word.startswith(value.lower()) for word in words):
            return answer
    raise LoginFailed(
        f'invalid value for parameter "replication": "{value}"', hint="Valid values are: false, 0, true, 1, database.", sqlstate="22023"
    )


def parse_options(options: str) -> dict[str, str]:
    """The settings in a start-up packet's `options`: `-c name=value`, `-cname=value`, `--name=value` and plain `name=value` for routing."""
    settings: dict[str, str] = {}
    words = _words(options)
    for word in words:
        if word == "-c":
            assignment = next(words, "")
        elif word.startswith(("--", "-c")):
            assignment = word[2:]
        else:
            assignment = word if word.partition("=")[0] in ROUTING else ""
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise LoginFailed(
                f'invalid command-line argument in options: "{word}"',
                hint="Write options as -c name=value or --name=value.",
                sqlstate="42601",
            )
        settings[name.replace("-", "_")] = value
    return settings


def _words(options: str) -> Iterator[str]:
    """Split at white space; a backslash takes the next character as it is (pg_split_opts)."""
    word: list[str] = []
    characters = iter(options)
    for character in characters:
        if character == "\\":
            word.append(next(characters, ""))
        elif not character.isspace():
            word.append(character)
        elif word:
            yield "".join(word)
            word.clear()
    if word:
        yield "".join(word)


# ------------------------------------------------------------------------------------------------------------- authentication


def _authenticate(account: Account, start: _Start, policy: FrontendPolicy) -> Exchange[LearntSecret | None]:
    """What the login revealed of the client's password. Raises LoginFailed."""
    method = _effective_method(account, start.tls, policy)
    if method == "trust":
        _check_not_decoy(account)
        return None
    if method == "cert":
        _check_certificate(account, start.tls)
        return None
    checks = {"password": _clear_text, "md5": _md5, "scram-sha-256": _scram}
    learnt = yield from checks[method](account, start.tls)
    if learnt is None or account.decoy:
        raise LoginFailed(f'password authentication failed for user "{start.user}"')
    return learnt


def _effective_method(account: Account, tls: TlsInfo | None, policy: FrontendPolicy) -> str:
    stored = bool(_verifiers(account))
    hashed = any(auth.is_md5(secret) for secret in account.secrets)
    plain = bool(_passwords(account))
    if account.method == "md5" and stored and not (plain or hashed):
        return "scram-sha-256"  # As PostgreSQL does: the method md5 means "a password, by whatever is stored".
    if account.method != "auto":
        return account.method
    if not account.secrets and not account.decoy and policy.client_certificates and tls is not None and tls.peer_certificate:
        return "cert"
    return "md5" if hashed and not (stored or plain) else "scram-sha-256"


def _passwords(account: Account) -> list[str]:
    return [secret for secret in account.secrets if not auth.is_md5(secret) and auth.parse_verifier(secret) is None]


def _verifiers(account: Account) -> list[auth.Verifier]:
    return [verifier for secret in account.secrets if (verifier := auth.parse_verifier(secret)) is not None]


def _check_not_decoy(account: Account) -> None:
    if account.decoy:
        message = f'user "{account.user}" may not log in to database "{account.database}"'
        raise LoginFailed(message, hint="Check both names.", sqlstate="28000")


def _check_certificate(account: Account, tls: TlsInfo | None) -> None:
    if tls is None or not tls.peer_certificate:
        raise LoginFailed("connection requires a valid client certificate", hint="Connect with TLS, sslcert and sslkey.", sqlstate="28000")
    if account.decoy or common_name(tls.peer_certificate) != (account.certificate_name or account.user):
        raise LoginFailed(f'certificate authentication failed for user "{account.user}"', sqlstate="28000")


def _password_message(limit: int) -> Exchange[bytes]:
    kind, length = wire.HEADER.unpack((yield Receive(wire.HEADER.size)))
    if kind != wire.PASSWORD:
        raise RemoteProtocolError(f"expected a password message, got message type {chr(kind)!r}")
    if not wire.MIN_LENGTH <= length <= limit + wire.MIN_LENGTH:
        raise RemoteProtocolError(f"invalid password message length {length}")
    if length == wire.MIN_LENGTH:
        return b""
    payload: bytes = yield Receive(length - wire.MIN_LENGTH)
    return payload


def _sent_password() -> Exchange[bytes]:
    payload = yield from _password_message(MAX_PASSWORD_BYTES)
    if not payload or payload.find(b"\0") != len(payload) - 1:
        raise RemoteProtocolError("invalid password packet size")
    return payload[:-1]


def _clear_text(account: Account, tls: TlsInfo | None) -> Exchange[LearntSecret | None]:
    yield Send(messages.authentication(messages.AUTH_CLEARTEXT))
    sent = yield from _sent_password()
    if account.passthrough:
        return LearntSecret(password=messages.text(sent))
    if sent and (_is_known(account, sent) or (yield from _opens_verifier(account, sent))):
        return LearntSecret(password=messages.text(sent))
    return None


def _is_known(account: Account, sent: bytes) -> bool:
    """Is it one of the plain or md5-hashed passwords?"""
    md5 = auth.md5_hash(sent, messages.raw(account.user)).encode()
    known = [(messages.raw(password), sent) for password in _passwords(account)]
    known += [(secret.encode(), md5) for secret in account.secrets if auth.is_md5(secret)]
    return any([hmac.compare_digest(stored, given) for stored, given in known])  # noqa: C419  (all of them, for even timing)


def _opens_verifier(account: Account, sent: bytes) -> Exchange[bool]:
    # Without a verifier a decoy is tried, so that every wrong password costs the same, whatever is stored, if anything.
    for verifier in _verifiers(account) or [auth.decoy_verifier(account.user)]:
        salt, iterations = verifier.salt, verifier.iterations
        if (keys := auth.KEYS.get(sent, salt, iterations)) is None:
            keys = yield Offload(partial(auth.derive, sent, salt, iterations))
        if hmac.compare_digest(keys.stored_key, verifier.stored_key):
            auth.KEYS.put(sent, salt, iterations, keys)
            return True
    return False


def _md5(account: Account, tls: TlsInfo | None) -> Exchange[LearntSecret | None]:
    salt = secrets.token_bytes(4)
    yield Send(messages.authentication(messages.AUTH_MD5, salt))
    sent = yield from _sent_password()
    for secret in account.secrets:
        if auth.is_md5(secret):
            stored, learnt = secret, LearntSecret(stage1=secret.encode())
        elif auth.parse_verifier(secret) is None:
            stored, learnt = auth.md5_hash(messages.raw(secret), messages.raw(account.user)), LearntSecret(password=secret)
        else:
            continue
        if hmac.compare_digest(auth.md5_response(stored, salt), sent):
            return learnt
    return None


def _scram(account: Account, tls: TlsInfo | None) -> Exchange[LearntSecret | None]:
    """One salt is told to the client, so of several verifiers those with the first one's salt can fit; plain passwords always can."""
    stored = _verifiers(account) or [auth.decoy_verifier(account.user)]
    salt, iterations = stored[0].salt, stored[0].iterations
    server = yield from _scram_messages(salt, iterations, tls)
    for verifier in stored:
        if (verifier.salt, verifier.iterations) == (salt, iterations) and (client_key := server.client_key(verifier)):
            yield Send(messages.authentication(messages.AUTH_SASL_FINAL, server.final(verifier)))
            return LearntSecret(scram_client_key=client_key, scram_server_key=verifier.server_key)
    for password in _passwords(account):
        keys = yield from auth.known_keys(messages.raw(password), salt, iterations)
        verifier = auth.Verifier(salt, iterations, keys.stored_key, keys.server_key)
        if server.client_key(verifier):
            yield Send(messages.authentication(messages.AUTH_SASL_FINAL, server.final(verifier)))
            return LearntSecret(password=password)
    # Above, a password's first login hashes, and a decoy never does. Let every failure hash once more, and nobody can tell them apart.
    yield Offload(partial(auth.derive, b"", salt, iterations))
    return None


def _scram_messages(salt: bytes, iterations: int, tls: TlsInfo | None) -> Exchange[auth.ScramServer]:
    """The exchange up to the client's proof, which the result can check."""
    binding = auth.end_point(tls.local_certificate) if tls is not None else b""
    offered = [auth.SCRAM_PLUS, auth.SCRAM] if binding else [auth.SCRAM]
    yield Send(messages.sasl(offered))
    mechanism, first = messages.parse_sasl_initial((yield from _password_message(MAX_SASL_BYTES)))
    if mechanism not in offered:
        raise RemoteProtocolError("client selected an invalid SASL authentication mechanism")
    server = auth.ScramServer(mechanism, salt, iterations, binding)
    yield Send(messages.authentication(messages.AUTH_SASL_CONTINUE, server.on_client_first(first)))
    server.on_client_final((yield from _password_message(MAX_SASL_BYTES)))
    return server
