"""Clients' logins: the server's side of MySQL's Connection Phase.

What is stored for a user decides how it can be checked, and the client's own choice is kept wherever it can be: a wrong guess costs a
switch, one round trip. caching_sha2_password in full (the password itself, over TLS or encrypted) can check anything that is stored.

Compression and MariaDB's extended capabilities are not offered: the relay reads plain packets.
"""

from functools import partial
from typing import Final

from dualpool.accounts import Account, ClientLogin, FrontendPolicy, LearntSecret
from dualpool.authentication.peers import common_name
from dualpool.errors import DualpoolError, LoginFailed, RemoteProtocolError
from dualpool.mysql import auth, wire
from dualpool.mysql.client_session import login_flags
from dualpool.mysql.codec import Ok, build_ok
from dualpool.mysql.messages import (
    NONCE_SIZE,
    RESPONSE_HEAD,
    Conversation,
    Greeting,
    HandshakeResponse,
    auth_switch_payload,
    error_message,
    parse_change_user,
    parse_handshake_response,
    response_capabilities,
    schema_change,
)
from dualpool.protocol import Exchange, FindAccount, Offload, Send, StartTls, TlsInfo

SERVER_VERSION: Final = "8.4.0-dualpool"
"""What clients are told where the listener does not know its backend's version. Drivers choose features by it."""
CHARACTER_SET: Final = 45
"""utf8mb4_general_ci: the widest character set that every server and client since MySQL 5.5 knows."""

OFFERED: Final = (
    wire.CLIENT_LONG_PASSWORD
    | wire.CLIENT_FOUND_ROWS
    | wire.CLIENT_LONG_FLAG
    | wire.CLIENT_CONNECT_WITH_DB
    | wire.CLIENT_NO_SCHEMA
    | wire.CLIENT_LOCAL_FILES
    | wire.CLIENT_IGNORE_SPACE
    | wire.CLIENT_PROTOCOL_41
    | wire.CLIENT_INTERACTIVE
    | wire.CLIENT_IGNORE_SIGPIPE
    | wire.CLIENT_TRANSACTIONS
    | wire.CLIENT_SECURE_CONNECTION
    | wire.CLIENT_MULTI_STATEMENTS
    | wire.CLIENT_MULTI_RESULTS
    | wire.CLIENT_PS_MULTI_RESULTS
    | wire.CLIENT_PLUGIN_AUTH
    | wire.CLIENT_CONNECT_ATTRS
    | wire.CLIENT_PLUGIN_AUTH_LENENC
    | wire.CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS
    | wire.CLIENT_SESSION_TRACK
    | wire.CLIENT_DEPRECATE_EOF
)

INSECURE_TRANSPORT: Final = 3159
FAST_AUTH_OK: Final = b"\x01\x03"
FULL_AUTH: Final = b"\x01\x04"
WANT_PUBLIC_KEY: Final = b"\x02"

RSA_KEY: Final = auth.RsaKey()
KNOWN_PASSWORDS: Final = auth.PasswordCache()


def accept(policy: FrontendPolicy) -> Exchange[ClientLogin]:
    """Log a client in, up to where `welcome()` can follow. Every DualpoolError that it raises has been sent, except where TLS failed.

    What fails after that, in place of `welcome()`, goes out as `messages.error_message(error, login.sequence)`.
    """
    return (yield from _run(_Login(policy)))


def reaccept(policy: FrontendPolicy, login: ClientLogin, request: bytes) -> Exchange[ClientLogin]:
    """The same for a client that came in by `login` and sent COM_CHANGE_USER, with which `request` begins."""
    return (yield from _run(_LoginAnew(policy, login, request)))


def _run(login: "_Login") -> Exchange[ClientLogin]:
    try:
        return (yield from login.run())
    except DualpoolError as error:
        if login.writable:
            yield Send(error_message(error, login.talk.sequence))
        raise


def welcome(login: ClientLogin, parameters: dict[str, str], process_id: int, secret: bytes) -> bytes:
    """The OK packet that ends a login, with the flags of a session with `parameters`, and where the client tracks it, its schema.

    The other arguments are for engines that use them.
    """
    del process_id, secret
    state = schema_change(login.account.database) if login.account.database else b""
    status = login_flags(parameters) | (wire.STATUS_SESSION_STATE_CHANGED if state else 0)
    return wire.packet(login.sequence, build_ok(Ok(status=status, changes=state), login.capabilities, wire.OK))


class _Login:
    """One client's login, and what is known of the client so far."""

    def __init__(self, policy: FrontendPolicy) -> None:
        self.policy = policy
        self.talk = Conversation(policy.max_startup_bytes)
        self.nonce = auth.make_nonce(NONCE_SIZE)
        self.announced = policy.auth_plugin or auth.CACHING_SHA2
        self.offered = OFFERED | (wire.CLIENT_SSL if policy.tls else 0)
        self.tls: TlsInfo | None = None
        self.writable = True
        self.response = HandshakeResponse(0, 0, 0, "")

    @property
    def secure(self) -> bool:
        """May a password be sent as it is?"""
        return self.policy.unix_socket or self.tls is not None

    def run(self) -> Exchange[ClientLogin]:
        yield from self.talk.send(self._greeting().payload())
        yield from self._read_response()
        if self.policy.tls_required and not self.secure:
            raise LoginFailed(
                "Connections using insecure transport are prohibited.",
                hint="Connect with TLS (ssl-mode=REQUIRED).",
                errno=INSECURE_TRANSPORT,
            )
        return (yield from self._prove())

    def _prove(self) -> Exchange[ClientLogin]:
        """The client has said who it is."""
        response = self.response
        account: Account = yield FindAccount(response.user, response.database, response.attributes)
        learnt = yield from _Proof(self, account).run()
        return ClientLogin(
            account=account,
            parameters=response.attributes,
            learnt=learnt,
            tls=self.tls,
            capabilities=response.capabilities & self.offered,
            character_set=response.character_set,
            sequence=self.talk.sequence,
            # (MariaDB up to 10 puts something in front, for replicas that would not take a server of version 10.)
            server_version=self.policy.server_version.removeprefix("5.5.5-"),
            pending=self.talk.leftover,
        )

    def _greeting(self) -> Greeting:
        return Greeting(
            server_version=self.policy.server_version or SERVER_VERSION,
            connection_id=self.policy.connection_id,
            nonce=self.nonce,
            capabilities=self.offered,
            character_set=CHARACTER_SET,
            status=self.policy.server_status,
            auth_plugin=self.announced,
        )

    def _read_response(self) -> Exchange[None]:
        payload = yield from self.talk.receive()
        if len(payload) == RESPONSE_HEAD and response_capabilities(payload) & wire.CLIENT_SSL:
            yield from self._start_tls()
            payload = yield from self.talk.receive()
        self.response = parse_handshake_response(payload)

    def _start_tls(self) -> Exchange[None]:
        if not self.policy.tls:
            raise RemoteProtocolError("the client asks for TLS, which was not offered", hint="Set listeners.*.tls, or connect without.")
        # Until the handshake is done neither side would understand an ERR packet.
        self.writable = False
        self.tls = yield StartTls()
        self.writable = True


class _LoginAnew(_Login):
    """A login that begins with COM_CHANGE_USER, in the place of a greeting and its answer."""

    def __init__(self, policy: FrontendPolicy, login: ClientLogin, request: bytes) -> None:
        super().__init__(policy)
        end = wire.HEADER_SIZE + int.from_bytes(request[:3], "little")
        self.request = request[wire.HEADER_SIZE : end]
        self.talk = Conversation(policy.max_startup_bytes, 1, request[end:])
        self.before = login
        self.tls = login.tls
        # A token for the nonce of the first login proves nothing: it may be on record. So the client always gets another one.
        self.nonce = b""

    def run(self) -> Exchange[ClientLogin]:
        if len(self.request) > self.talk.limit:
            text = f"a packet of {len(self.request)} bytes is longer than the {self.talk.limit} that are allowed here"
            raise RemoteProtocolError(text, errno=1153)
        if not self.before.capabilities & wire.CLIENT_PLUGIN_AUTH:
            raise LoginFailed(
                "This client is too old for COM_CHANGE_USER: it cannot be given another nonce.", hint="Connect again instead."
            )
        self.response = parse_change_user(self.request, self.before.capabilities, self.before.character_set)
        return (yield from self._prove())


class _Proof:
    """One client's proof that it is `account`."""

    def __init__(self, login: _Login, account: Account) -> None:
        self.login = login
        self.talk = login.talk
        self.account = account
        self.token = login.response.auth
        self.nonce = login.nonce
        self.plugin = login.response.auth_plugin if login.response.capabilities & wire.CLIENT_PLUGIN_AUTH else auth.NATIVE

    def run(self) -> Exchange[LearntSecret | None]:
        """See the proof, by whichever plugin. Returns what it revealed; raises LoginFailed."""
        if self.account.method == "cert":
            self._check_certificate()
            yield from self._skip_password()
            return None
        yield from self._agree_on_plugin()
        learnt: LearntSecret | None = yield from self._check_token()
        if self._opens_to_anyone():
            return learnt
        if learnt is None or self.account.decoy:
            raise self._denied()
        return learnt

    def _opens_to_anyone(self) -> bool:
        return self.account.method == "trust" and not self.account.decoy

    def _agree_on_plugin(self) -> Exchange[None]:
        plugin = choose_plugin(self.account, self.plugin, self.login.secure)
        if plugin == self.plugin and not self._expects_switch():
            return
        if not self.login.response.capabilities & wire.CLIENT_PLUGIN_AUTH:
            raise self._denied()
        self.plugin = plugin
        self.nonce = auth.make_nonce(auth.ED25519_NONCE if plugin == auth.ED25519 else NONCE_SIZE)
        yield from self.talk.send(auth_switch_payload(plugin, self.nonce + (b"" if plugin == auth.ED25519 else b"\0")))
        self.token = yield from self.talk.receive()

    def _expects_switch(self) -> bool:
        """A client that was set to a plugin which the greeting did not name sends nothing yet: that nonce was not for its plugin.

        client_ed25519 always waits for one of 32 bytes.
        """
        if not self.login.response.capabilities & wire.CLIENT_PLUGIN_AUTH:
            return False
        return not self.nonce or self.plugin == auth.ED25519 or (self.plugin != self.login.announced and not self.token)

    def _check_token(self) -> Exchange[LearntSecret | None]:
        if self.plugin == auth.CLEAR:
            return (yield from self._check_password(auth.end_at_nul(self.token)))
        if not self.token or self.token == b"\0":
            return LearntSecret() if "" in self.account.secrets or self.account.passthrough else None
        if self.plugin == auth.NATIVE:
            return auth.check_native(self.account.secrets, self.token, self.nonce)
        if self.plugin == auth.ED25519:
            learnt: LearntSecret | None = yield Offload(partial(auth.check_ed25519, self.account.secrets, self.token, self.nonce))
            return learnt
        return (yield from self._check_sha2())

    def _check_sha2(self) -> Exchange[LearntSecret | None]:
        """caching_sha2_password: the fast path where a password is known that fits, else the password itself where that can help."""
        learnt = auth.check_sha2(self._known_passwords(), self.token, self.nonce)
        if learnt or not self._needs_password():
            if learnt or self._opens_to_anyone():
                yield from self._skip_password()
            return learnt
        yield from self.talk.send(FULL_AUTH)
        return (yield from self._check_password((yield from self._receive_password())))

    def _skip_password(self) -> Exchange[None]:
        """Content the client with what it has sent: with caching_sha2_password it does not expect the OK packet right after a token."""
        if self.plugin == auth.CACHING_SHA2 and self.token.strip(b"\0"):
            yield from self.talk.send(FAST_AUTH_OK)

    def _known_passwords(self) -> list[str]:
        if self.account.method == "password":
            return []
        known = [secret if auth.kind_of(secret) == "plain" else KNOWN_PASSWORDS.get(secret) for secret in self.account.secrets]
        return [password for password in known if password]

    def _needs_password(self) -> bool:
        """Can the password itself tell what the fast path could not? (Where anyone may come in: what to log in with at the server.)"""
        if self.account.method == "trust":
            return self.login.secure
        return self.account.method == "password" or any(auth.kind_of(secret) != "plain" for secret in self.account.secrets)

    def _receive_password(self) -> Exchange[str | None]:
        data = yield from self.talk.receive()
        if data == WANT_PUBLIC_KEY:
            pem: bytes = yield Offload(RSA_KEY.public_pem)
            yield from self.talk.send(bytes((wire.AUTH_MORE_DATA,)) + pem)
            data = yield from self.talk.receive()
        elif self.login.secure:
            return auth.end_at_nul(data)
        password: str | None = yield Offload(partial(RSA_KEY.decrypt, data, self.nonce))
        return password

    def _check_password(self, password: str | None) -> Exchange[LearntSecret | None]:
        if password is None:
            return None
        if self._opens_to_anyone() or self.account.passthrough:
            return LearntSecret(password=password)
        fitting: list[str] = yield Offload(partial(auth.fitting_secrets, self.account.secrets, password))
        for secret in fitting:
            if auth.kind_of(secret) == "sha2":
                KNOWN_PASSWORDS.put(secret, password)
        return LearntSecret(password=password) if fitting else None

    def _check_certificate(self) -> None:
        certificate = self.login.tls.peer_certificate if self.login.tls else b""
        if self.account.decoy or not certificate or common_name(certificate) != (self.account.certificate_name or self.account.user):
            raise self._denied()

    def _denied(self) -> LoginFailed:
        used = "YES" if self.token.strip(b"\0") else "NO"
        user, host = self.login.response.user, _host(self.login.policy)
        return LoginFailed(f"Access denied for user '{user}'@'{host}' (using password: {used})")


def choose_plugin(account: Account, preferred: str, secure: bool) -> str:
    """By which plugin `account` is to prove itself: the client's own one where what is stored can be checked by it."""
    kinds = {auth.kind_of(secret) for secret in account.secrets}
    if preferred == auth.CLEAR and secure:
        return preferred
    if account.method == "password":
        return auth.CACHING_SHA2
    if preferred == auth.ED25519 and kinds <= {"plain"}:
        return preferred
    # Without TLS many clients refuse to send a password, even encrypted; native's exchange is all that a *HEX hash needs.
    if kinds == {"sha1"} and not (preferred == auth.CACHING_SHA2 and secure):
        return auth.NATIVE
    if preferred == auth.NATIVE and "sha2" not in kinds:
        return preferred
    return auth.CACHING_SHA2


def _host(policy: FrontendPolicy) -> str:
    """The client's host as MySQL's messages name it: the address without its port."""
    if policy.unix_socket or not policy.client_address:
        return "localhost"
    host, colon, port = policy.client_address.rpartition(":")
    single = colon and port.isdigit() and (":" not in host or host.endswith("]"))
    return host.strip("[]") if single else policy.client_address
