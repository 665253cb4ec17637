"""Logging in at a PostgreSQL server, and bringing a session back to where it can be given to somebody else.

Source: docs, "Message Flow". What libpq does is the measure for `sslmode`, as far as a single connection can follow it: `allow` asks for
TLS as `prefer` does, because a refused plain login would need a second connection.
"""

from collections.abc import Callable
from typing import Final

from dualpool.accounts import LearntSecret, ServerLogin, ServerTarget, stored_secret
from dualpool.errors import ConnectFailed, DualpoolError, LocalProtocolError, LoginFailed, RemoteProtocolError, ServerLost
from dualpool.postgres import auth, messages, wire
from dualpool.postgres.codec import split
from dualpool.postgres.server_relay import ServerRelay
from dualpool.postgres.session_sql import LIMITS, SURVEY, constant, defaults_of, set_all
from dualpool.postgres.sql import quoted
from dualpool.postgres.statements import NEVER_PREPARED
from dualpool.protocol import (
    BROKEN,
    ConnectionClosed,
    Exchange,
    ListeningWords,
    Notification,
    Receive,
    ReceiveSome,
    Send,
    StartTls,
    TlsInfo,
)
from dualpool.state import Settings

MAX_LOGIN_MESSAGE: Final = 65_536
"""Bytes of one message during login. A real server's have some hundred."""
PLAIN_ALLOWED: Final = ("disable", "allow", "prefer")
COPY_FAIL_MESSAGE: Final = wire.message(wire.COPY_FAIL, b"the client of the connection pooler has gone\0")
FAIL_AND_SYNC: Final = wire.message(wire.BIND, b"\0" + NEVER_PREPARED + b"\0\0\0\0\0\0\0") + wire.SYNC_MESSAGE
"""Ends an extended query that never got its Sync. It must fail: a Sync alone would commit what the client has not (docs: Pipelining)."""
HINTS: Final = {
    "28": "check users.*.password or the backend url",
    "3D": "check databases.*.dbname, and that the database exists",
    "53": "the server has no room: lower the backend's budget, or raise the server's max_connections",
    "57": "the server is starting, stopping or recovering; dualpool tries again",
}
"""What to do, by the first two characters of the SQLSTATE (its class)."""


# ---------------------------------------------------------------------------------------------------------------------- login


def connect(target: ServerTarget) -> Exchange[ServerLogin]:
    """Log in at a server. Raises ConnectFailed, with the server's own SQLSTATE and message if it gave any."""
    try:
        tls = yield from secure(target)
        return (yield from _Login(target, tls).run())
    except ConnectionClosed as closed:
        raise ConnectFailed(f"{_place(target)} closed the connection during the login") from closed
    except RemoteProtocolError as error:
        raise ConnectFailed(f"the login at {_place(target)} failed: {error.message}", hint=error.hint) from error


def secure(target: ServerTarget) -> Exchange[TlsInfo | None]:
    """TLS, as far as `sslmode` and the server want it. Raises ConnectFailed if they do not agree."""
    if target.host.startswith("/") or (target.sslmode == "disable" and not target.direct_tls):
        return None
    if target.direct_tls:
        return (yield from _handshake(target, "postgresql"))
    yield Send(messages.request(wire.SSL_REQUEST))
    # Exactly one byte: whatever was slipped in behind it in plain text must break the handshake (CVE-2021-23222).
    answer: bytes = yield Receive(1)
    if answer == b"S":
        return (yield from _handshake(target))
    if answer == b"N" and target.sslmode in PLAIN_ALLOWED:
        return None
    if answer == b"N":
        message = f"{_place(target)} does not offer TLS, but sslmode={target.sslmode} asks for it"
        raise ConnectFailed(message, hint="turn on ssl at the server, or set sslmode=prefer in the backend url")
    # An error text here could have been planted by anybody on the way, so it is not shown (CVE-2024-10977).
    raise ConnectFailed(f"{_place(target)} did not answer the request for TLS as a PostgreSQL server does")


def _handshake(target: ServerTarget, alpn: str = "") -> Exchange[TlsInfo]:
    """TLS. A server that is not trusted is refused like a wrong password: asking again changes nothing. One that ends may be stopping."""
    try:
        tls: TlsInfo = yield StartTls(alpn)
    except ConnectionClosed as closed:
        message = f"{_place(target)} closed the connection during the TLS handshake"
        raise ConnectFailed(message, hint="check that it is up, and that it takes TLS (sslmode in the backend url)") from closed
    except RemoteProtocolError as error:
        message = f"the login at {_place(target)} failed: {error.message}"
        raise ConnectFailed(message, hint="check sslmode and sslrootcert in the backend url", sqlstate="28000") from error
    return tls


def _place(target: ServerTarget) -> str:
    return f"the server at {target.host}" if target.host.startswith("/") else f"the server at {target.host}:{target.port}"


class _Login:
    """One login, from the start-up packet to ReadyForQuery, with the bytes that were read and not used yet."""

    def __init__(self, target: ServerTarget, tls: TlsInfo | None) -> None:
        self._target = target
        self._tls = tls
        self._buffer = bytearray()
        self._parameters: dict[str, str] = {}
        self._key = (0, b"")

    def run(self) -> Exchange[ServerLogin]:
        target = self._target
        yield Send(messages.startup({"user": target.user, "database": target.database} | target.parameters))
        yield from self._authenticate()
        while (yield from self._take_report()):
            pass
        process_id, secret = self._key
        version = self._parameters.get("server_version", "")
        return ServerLogin(self._parameters, process_id, secret, version, tls=self._tls, pending=bytes(self._buffer))

    def _message(self) -> Exchange[tuple[int, bytes]]:
        """The next message, past notices. Raises ConnectFailed for an ErrorResponse."""
        while True:
            kind = yield from self._fill(1)
            length = (yield from self._fill_length()) + 1
            yield from self._fill(length)
            payload = bytes(self._buffer[wire.HEADER.size : length])
            del self._buffer[:length]
            if kind == wire.ERROR_RESPONSE:
                raise refused(self._target, payload)
            if kind != wire.NOTICE:
                return kind, payload

    def _fill_length(self) -> Exchange[int]:
        yield from self._fill(wire.HEADER.size)
        kind, length = wire.HEADER.unpack_from(self._buffer)
        if not wire.MIN_LENGTH <= length <= MAX_LOGIN_MESSAGE:
            raise RemoteProtocolError(
                f"message {chr(kind)!r} with a length of {length} bytes", hint="check that a PostgreSQL server listens there"
            )
        return int(length)

    def _fill(self, size: int) -> Exchange[int]:
        """Read until `size` bytes are in the buffer; returns the first one."""
        while len(self._buffer) < size:
            self._buffer += yield ReceiveSome()
        return self._buffer[0]

    def _take_report(self) -> Exchange[bool]:
        """One of the messages between AuthenticationOk and ReadyForQuery; False at ReadyForQuery."""
        kind, payload = yield from self._message()
        if kind == wire.PARAMETER_STATUS:
            name, value = messages.parse_parameter_status(payload)
            self._parameters[name] = value
        elif kind == wire.BACKEND_KEY:
            self._key = messages.parse_backend_key(payload)
        elif kind == wire.READY and payload == bytes((wire.IDLE,)):
            return False
        else:
            raise _unexpected(kind, "while the session starts")
        return True

    # ------------------------------------------------------------------------------------------------------- authentication

    def _authenticate(self) -> Exchange[None]:
        kind, data = yield from self._request()
        if kind == messages.AUTH_OK:
            return
        if kind == messages.AUTH_CLEARTEXT:
            yield Send(messages.password(messages.raw(self._password("its password in clear text"))))
        elif kind == messages.AUTH_MD5:
            yield Send(messages.password(self._md5_answer(data)))
        elif kind == messages.AUTH_SASL:
            yield from self._scram(messages.parse_sasl(data))
        else:
            raise self._unsupported(messages.AUTH_NAMES.get(kind, f"authentication method {kind}"))
        kind, _ = yield from self._request()
        if kind != messages.AUTH_OK:
            raise RemoteProtocolError(f"authentication request {kind} after the password was sent")

    def _request(self) -> Exchange[tuple[int, bytes]]:
        """An Authentication message: what the server asks for, and the data with it."""
        kind, payload = yield from self._message()
        if kind == wire.NEGOTIATE_VERSION:
            raise RemoteProtocolError("it does not speak version 3.0 of the protocol")
        if kind != wire.AUTHENTICATION or len(payload) < 4:
            raise _unexpected(kind, "where an authentication request was due")
        return wire.INT32.unpack_from(payload)[0], payload[4:]

    def _password(self, what: str) -> str:
        target = self._target
        if password := target.password or (target.learnt.password if target.learnt is not None else ""):
            return password
        if target.learnt is not None and (target.learnt.scram_client_key or target.learnt.stage1):
            message = f'{_place(target)} asks user "{target.user}" for {what}, but only a hash of the password is known'
            raise ConnectFailed(
                message, hint="store the same hash at the server, or put the plain password in users.*.password", sqlstate="28P01"
            )
        message = f'{_place(target)} asks user "{target.user}" for {what}, and dualpool has no password'
        raise ConnectFailed(message, hint="put it in the backend url or in users.*.password", sqlstate="28P01")

    def _md5_answer(self, salt: bytes) -> bytes:
        if len(salt) != 4:
            raise RemoteProtocolError(f"an md5 salt of {len(salt)} bytes")
        target = self._target
        if not target.password and target.learnt is not None and target.learnt.stage1.startswith(b"md5"):
            return auth.md5_response(target.learnt.stage1.decode("ascii", "replace"), salt)
        password = self._password("an md5 hash")
        return auth.md5_response(auth.md5_hash(messages.raw(password), messages.raw(target.user)), salt)

    def _unsupported(self, what: str) -> ConnectFailed:
        message = f'{_place(self._target)} asks user "{self._target.user}" for {what}, which dualpool does not support'
        return ConnectFailed(message, hint="let the user log in by scram-sha-256 in the server's pg_hba.conf", sqlstate="28000")

    def _scram(self, offered: list[str]) -> Exchange[None]:
        mechanism, header, binding = self._mechanism(offered)
        keys = self._learnt_keys()
        password = b"" if keys else messages.raw(self._password("its password by SCRAM"))
        client = auth.ScramClient(header, binding)
        yield Send(messages.sasl_initial(mechanism, client.first()))
        client.on_server_first((yield from self._sasl_data(messages.AUTH_SASL_CONTINUE)))
        if keys is None:
            keys = yield from auth.known_keys(password, client.salt, client.iterations)
        yield Send(messages.sasl_response(client.final(keys)))
        client.on_server_final((yield from self._sasl_data(messages.AUTH_SASL_FINAL)))

    def _mechanism(self, offered: list[str]) -> tuple[str, bytes, bytes]:
        """The mechanism to use, its gs2 header, and the channel binding data."""
        binding = auth.end_point(self._tls.peer_certificate) if self._tls is not None else b""
        if auth.SCRAM_PLUS in offered and binding:
            return auth.SCRAM_PLUS, auth.END_POINT, binding
        if auth.SCRAM not in offered:
            raise self._unsupported("SASL by " + (", ".join(offered) or "no mechanism"))
        # "y": we could have bound the channel, but you did not offer it. Should it have been taken out on the way, the server will know.
        return auth.SCRAM, b"y,," if binding else b"n,,", b""

    def _learnt_keys(self) -> auth.ScramKeys | None:
        learnt: LearntSecret | None = self._target.learnt
        if self._target.password or learnt is None or not learnt.scram_client_key:
            return None
        return auth.ScramKeys(learnt.scram_client_key, learnt.scram_server_key)

    def _sasl_data(self, expected: int) -> Exchange[bytes]:
        kind, data = yield from self._request()
        if kind != expected:
            # An AuthenticationOk here would skip the server's half of the proof.
            raise RemoteProtocolError(f"authentication request {kind} in the middle of SCRAM")
        return data


def refused(target: ServerTarget, payload: bytes) -> ConnectFailed:
    """The error for a server's ErrorResponse during login."""
    fields = messages.parse_report(payload)
    code, said = fields.get("C", ""), fields.get("M", "") or "no reason given"
    valid = len(code) == 5 and code.isascii() and code.isalnum()
    message = f'{_place(target)} refused the login of user "{target.user}" to database "{target.database}"'
    hint = fields.get("H", "") or HINTS.get(code[:2], "")
    return ConnectFailed(f"{message} ({code}): {said}" if valid else f"{message}: {said}", hint=hint, sqlstate=code if valid else None)


def _unexpected(kind: int, when: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"message {chr(kind)!r} {when}", hint="check that a PostgreSQL server listens there")


# ------------------------------------------------------------------------------------------------------------ between clients


def recover(relay: ServerRelay) -> Exchange[None]:
    """After a client vanished: end what it left open, drop the answers, roll back. The session is quiet afterwards. Raises ServerLost."""
    yield from _guarded(_recover, relay)


def reset(relay: ServerRelay) -> Exchange[None]:
    """`DISCARD ALL`. Raises ServerLost."""
    yield from _guarded(_reset, relay)


def check(relay: ServerRelay, query: str) -> Exchange[None]:
    """Run `query` (an empty one if "") and see that it is answered without an error. Raises ServerLost."""
    yield from _guarded(lambda relay: _run(relay, messages.raw(query)), relay)


def prove(relay: "ServerRelay", wanted: Settings) -> Exchange[dict[str, str]]:
    """Bring the session to `wanted`; returns what it reports then. Raises LoginFailed if the server refuses, ServerLost if it is gone."""
    if relay.settings is not wanted:
        before = relay.settings
        yield Send(relay.restore_to(wanted))
        yield from _guarded(_settle, relay)
        if relay.last_error:
            fields = messages.parse_report(relay.last_error)
            relay.not_restored(before, wanted)
            yield from _guarded(_recover, relay)
            raise LoginFailed(fields.get("M", ""), hint=fields.get("H", ""), sqlstate=fields.get("C", "22023"))
    return dict(relay.reported)


CAPACITY_QUERY: Final = (
    b"SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    b" - coalesce(current_setting('reserved_connections', true)::int, 0)"
)


def capacity() -> Exchange[int]:
    """How many connections the server allows to ordinary users. The session must be idle. Raises ServerLost."""
    value = yield from _ask_value(CAPACITY_QUERY, "for max_connections")
    return int(value or b"0")


def survey(relay: ServerRelay) -> Exchange[str]:
    """See Engine. What only PostgreSQL itself answers stays unknown where something else is asked."""
    for kind, payload in (yield from _ask(wire.query(SURVEY.encode()), "for its settings")):
        values = messages.parse_row(payload) if kind == wire.DATA_ROW else []
        if len(values) == 3:
            defaults, role, defined = values
            relay.baseline["role"] = messages.text(role or b"none")
            relay.defined = frozenset(messages.text(defined or b"").lower().split(","))
            return messages.text(defaults or b"")
    return ""


def defaults(relay: ServerRelay, user: str) -> Exchange[str]:
    """See Engine."""
    found = ""
    for kind, payload in (yield from _ask(wire.query(f"SELECT {defaults_of(constant(user))}".encode()), "for its defaults")):
        if kind == wire.DATA_ROW:
            found = messages.text(next(iter(messages.parse_row(payload)), None) or b"")
        elif kind == wire.PARAMETER_STATUS:
            relay.report_default(*messages.parse_parameter_status(payload))
    relay.unnamed = None  # a simple Query ends it (docs: Extended Query)
    return found


SECRET_QUERY: Final = (
    "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END"
    " FROM pg_catalog.pg_authid WHERE rolname=$1 AND rolcanlogin"
)
"""PgBouncer's default auth_query. A password whose time is over is none (CVE-2025-2291)."""


def find_secrets(sql: str, user: str) -> Exchange[tuple[str, ...] | None]:
    """What the server stores to recognise `user`; None: it knows no such user. Raises ConnectFailed, ServerLost."""
    name = messages.raw(user)
    parse = wire.message(wire.PARSE, b"\0" + messages.raw(sql or SECRET_QUERY) + b"\0\0\0")
    bind = wire.message(wire.BIND, b"\0\0\0\0\0\1" + wire.INT32.pack(len(name)) + name + b"\0\0")
    sent = parse + bind + wire.message(wire.EXECUTE, b"\0\0\0\0\0") + wire.SYNC_MESSAGE
    answers = yield from _ask(sent, "for a user")
    for kind, payload in answers:
        if kind == wire.ERROR_RESPONSE:
            raise ConnectFailed(f"auth_query failed at the server: {messages.parse_report(payload).get('M', '') or 'no reason given'}")
    secret = stored_secret([messages.parse_row(payload) for kind, payload in answers if kind == wire.DATA_ROW])
    return None if secret is None else (messages.text(secret),) if secret else ()


ROLE_QUERY: Final = b"SELECT pg_is_in_recovery()::text || current_setting('transaction_read_only')"
ROLES: Final = {b"falseoff": "read-write", b"falseon": "read-only"}


def role() -> Exchange[str]:
    """What the server is (`Engine.role`). The session must be idle. Raises ServerLost."""
    value = yield from _ask_value(ROLE_QUERY, "whether it takes writes")
    return ROLES.get(value, "standby")


def _ask_value(sql: bytes, what: str) -> Exchange[bytes]:
    """The value that `sql` returns, b"" if none. Raises ServerLost, also for an error of the server's."""
    answers = yield from _ask(wire.query(sql), what)
    value = b""
    for kind, payload in answers:
        if kind == wire.DATA_ROW:
            value = payload[6:]
        elif kind == wire.ERROR_RESPONSE:
            raise ServerLost(f"the server does not tell {what.removeprefix('for ')}: {messages.parse_report(payload).get('M', '')}")
    return value


def _ask(request: bytes, what: str) -> Exchange[list[tuple[int, bytes]]]:
    """Send `request` in an idle session that has no relay, and read the answer up to ReadyForQuery. Raises ServerLost."""
    yield Send(request)
    answers: list[tuple[int, bytes]] = []
    data = b""
    while not answers or answers[-1][0] != wire.READY:
        try:
            data += yield ReceiveSome()
        except ConnectionClosed as closed:
            raise ServerLost(f"the server closed the connection when it was asked {what}") from closed
        found, data = split(data)
        answers += found
    if data:
        raise ServerLost("the server says more than it was asked")
    return answers


def _guarded(work: Callable[[ServerRelay], Exchange[None]], relay: ServerRelay) -> Exchange[None]:
    try:
        yield from work(relay)
    except ConnectionClosed as closed:
        raise ServerLost("the server closed the connection between two clients") from closed
    except ServerLost:
        raise
    except DualpoolError as error:
        raise ServerLost(f"a session could not be brought back to rest: {error.message}", hint=error.hint) from error


def _recover(relay: ServerRelay) -> Exchange[None]:
    _check_known(relay)
    yield from _settle(relay)
    if relay.in_transaction:
        yield from _run(relay, b"ROLLBACK")
    _check_known(relay)
    if relay.in_transaction:
        raise ServerLost("the transaction that a client had left open could not be ended")


def _check_known(relay: ServerRelay) -> None:
    """A session whose answers cannot be counted any more is of no use: waiting for one that never comes would take for ever."""
    if relay.unfinished:
        raise ServerLost("a client has gone in the middle of a message")
    if relay.suspect:
        raise ServerLost("a client has gone, and how many answers it is still owed is unknown")


def _reset(relay: ServerRelay) -> Exchange[None]:
    limits = [name for name in LIMITS if name in relay.settings.values]
    if limits:
        # One that is so short that it strikes at once must not strike what follows.
        relay.expect_hidden_ready()
        yield Send(wire.query(set_all((name, "0") for name in limits)[0].encode()))
        yield from _settle(relay)
    yield from _run(relay, b"DISCARD ALL")
    relay.was_reset()


def _run(relay: ServerRelay, sql: bytes) -> Exchange[None]:
    if not relay.answered():
        raise LocalProtocolError("a query of dualpool's own while an answer is outstanding")
    relay.expect_hidden_ready()
    yield Send(wire.query(sql))
    yield from _settle(relay)
    if relay.last_error:
        fields = messages.parse_report(relay.last_error)
        said = fields.get("M", "no reason given")
        raise ServerLost(f"{messages.text(sql) or 'the empty query'} failed at the server ({fields.get('C', '?')}): {said}")


def _settle(relay: ServerRelay) -> Exchange[None]:
    """Read until nothing is outstanding, ending a COPY from the client and an extended query without Sync on the way."""
    told = False
    while True:
        if relay.copying_in and not told:
            # Before any Sync: while it copies, the server reads and drops those (docs: COPY Operations).
            yield Send(COPY_FAIL_MESSAGE)
        told = relay.copying_in
        if relay.needs_sync():
            relay.sync_sent()
            yield Send(FAIL_AND_SYNC)
        if relay.answered():
            return
        yield from _read(relay)


def _read(relay: ServerRelay) -> Exchange[None]:
    data: bytes = yield ReceiveSome()
    verdict = relay.on_server_bytes(data)
    relay.to_client = b""  # Owed to a client that is gone, or an answer to ourselves.
    if verdict & BROKEN:
        raise ServerLost("the server ended the session")
    if relay.to_server:
        more, relay.to_server = relay.to_server, b""
        yield Send(more)
    _check_known(relay)


# ------------------------------------------------------------------------------------------------------------------ listening


class Listening(ListeningWords):
    """LISTEN by simple queries. Bytes that are not a whole message yet wait in `_rest`."""

    __slots__ = ("_refusal", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._refusal: str | None = None

    def begin(self) -> bytes:
        # Servers before 14 do not know it, and refuse; those that do may have a limit for idle sessions.
        return wire.query(b"SET idle_session_timeout = 0")

    def listen(self, channel: str) -> bytes:
        return wire.query(messages.raw(f"LISTEN {quoted(channel)}"))

    def unlisten(self, channel: str) -> bytes:
        return wire.query(messages.raw(f"UNLISTEN {quoted(channel)}"))

    def ping(self) -> bytes:
        return wire.query(b"")

    def read(self, data: bytes) -> list[Notification | str | None]:
        whole, self._rest = split(self._rest + data)
        said: list[Notification | str | None] = []
        for kind, payload in whole:
            if kind == wire.NOTIFICATION:
                said.append(messages.parse_notification(payload))
            elif kind == wire.ERROR_RESPONSE:
                report = messages.parse_report(payload)
                self._refusal = report.get("M", "no reason given")
                if report.get("V") in {"FATAL", "PANIC"}:
                    raise ServerLost(f"the server ended the connection: {self._refusal}")
            elif kind == wire.READY:
                said.append(self._refusal)
                self._refusal = None
        return said

    def notification(self, notification: Notification, process_id: int) -> bytes:
        return messages.notification(process_id, notification)
