"""dualpool as a client of MySQL and MariaDB servers: the login, and what is done to a server connection between two leases.

Every server connection of a pool begins alike: the same character set, the session trackers on (docs: "Server Tracking of Client
Session State"), so that the relay learns from OK packets what clients change.
"""

from functools import partial
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from pymysql._auth import sha2_rsa_encrypt

from dualpool import __version__
from dualpool.accounts import ServerLogin, ServerTarget, stored_secret
from dualpool.errors import ConnectFailed, LocalProtocolError, RemoteProtocolError, ServerLost
from dualpool.mysql import auth, session_sql, wire
from dualpool.mysql.client_sending import ANY_SCHEMA
from dualpool.mysql.client_session import SESSION_FLAGS
from dualpool.mysql.defaults import ask_defaults, ask_role, read_defaults, read_result, read_role
from dualpool.mysql.messages import (
    NONCE_SIZE,
    Conversation,
    Greeting,
    HandshakeResponse,
    parse_auth_switch,
    parse_error,
    parse_greeting,
    text,
)
from dualpool.mysql.server_session import ROLE_STAYS
from dualpool.protocol import BROKEN, ConnectionClosed, Exchange, Offload, ReceiveSome, Send, StartTls, TlsInfo

if TYPE_CHECKING:
    from dualpool.mysql.server_relay import ServerRelay
    from dualpool.state import Settings

MAX_REPLY: Final = 1 << 20
"""No packet of a login is longer, in bytes."""
MAX_ROUNDS: Final = 10
"""A login that takes more packets of the server's than this goes in circles."""
MAX_PACKET: Final = 1 << 30
DEFAULT_CHARACTER_SET: Final = 45
"""utf8mb4_general_ci."""

WANTED: Final = (
    wire.CLIENT_LONG_PASSWORD
    | wire.CLIENT_LONG_FLAG
    | wire.CLIENT_LOCAL_FILES
    | wire.CLIENT_PROTOCOL_41
    | wire.CLIENT_TRANSACTIONS
    | wire.CLIENT_SECURE_CONNECTION
    | wire.CLIENT_MULTI_STATEMENTS
    | wire.CLIENT_MULTI_RESULTS
    | wire.CLIENT_PS_MULTI_RESULTS
    | wire.CLIENT_PLUGIN_AUTH
    | wire.CLIENT_CONNECT_ATTRS
    | wire.CLIENT_PLUGIN_AUTH_LENENC
    | wire.CLIENT_SESSION_TRACK
    | wire.CLIENT_DEPRECATE_EOF
)
"""What dualpool uses where the server offers it."""
CLIENTS_OWN: Final = wire.CLIENT_FOUND_ROWS | wire.CLIENT_IGNORE_SPACE | wire.CLIENT_INTERACTIVE | wire.CLIENT_NO_SCHEMA
"""What clients may differ in and only a login can set: the pool asks for it in `parameters["capabilities"]`, a number."""
NOT_ATTRIBUTES: Final = frozenset(("capabilities", "character_set"))

TLS_MODES: Final = frozenset(("require", "verify-ca", "verify-full"))
CR_SSL_CONNECTION_ERROR: Final = 2026
CR_AUTH_PLUGIN_ERROR: Final = 2061
UNKNOWN_VARIABLE: Final = 1193
OFF: Final = frozenset(("OFF", "0"))
LIMITS: Final = ("max_connections", "max_user_connections")
READ_ONLY_SWITCHES: Final = ("read_only", "super_read_only")

REPORTED: Final = (
    *session_sql.TRACKERS,
    "version",
    "version_comment",
    "autocommit",
    "character_set_client",
    "character_set_connection",
    "character_set_results",
    "character_set_server",
    "character_set_database",
    "collation_connection",
    "collation_server",
    "collation_database",
    "sql_mode",
    "time_zone",
    "system_time_zone",
    "transaction_isolation",
    "tx_isolation",
    "transaction_read_only",
    "tx_read_only",
    "max_connections",
    "max_user_connections",
    "max_allowed_packet",
    "lower_case_table_names",
    "interactive_timeout",
    "wait_timeout",
    "read_only",
    "super_read_only",
    "local_infile",
)
"""The variables whose values make `ServerLogin.parameters`, as far as the server has them. (A tracker that is missing is unsupported.)"""


# --------------------------------------------------------------------------------------------------------------------- login


def greeted_version() -> Exchange[tuple[str, int]]:
    """The version that a server's greeting names, and its status flags. Nobody logs in; the caller closes the connection."""
    payload = yield from Conversation(MAX_REPLY).receive()
    greeting = parse_greeting(payload)
    return greeting.server_version, greeting.status & SESSION_FLAGS


def connect(target: ServerTarget) -> Exchange[ServerLogin]:
    """Log in at a server and prepare the session. Raises ConnectFailed, with the server's code and message where it gave one."""
    session = yield from log_in(target)
    parameters = yield from session.prepare()
    defaults = yield from session.read_defaults()
    current = yield from session.read_role()
    if current:
        parameters[session_sql.ROLE] = current
    return session.result(parameters, defaults)


def log_in(target: ServerTarget) -> "Exchange[ServerSession]":
    """Log in at a server, no more: the session is as the server made it. Raises ConnectFailed."""
    session = ServerSession(target)
    try:
        yield from session.log_in()
    except RemoteProtocolError as error:
        raise ConnectFailed(f"the server broke the protocol: {error.message}") from error
    except ConnectionClosed as error:
        raise ConnectFailed("the server closed the connection during the login", errno=2013) from error
    return session


class ServerSession:
    """A connection to a server, and the commands that are run on it before a relay takes over."""

    def __init__(self, target: ServerTarget) -> None:
        self.target = target
        self.talk = Conversation(MAX_REPLY)
        self.tls: TlsInfo | None = None
        self.greeting = Greeting("", 0, b"")
        self.capabilities = 0

    @property
    def secure(self) -> bool:
        """May a password be sent as it is?"""
        return self.tls is not None or self.target.host.startswith("/")

    def log_in(self) -> Exchange[None]:
        self.greeting = yield from self._read_greeting()
        self.capabilities = self._negotiate()
        if self._wants_tls():
            self.capabilities |= wire.CLIENT_SSL
            yield from self.talk.send(self._response("", b"").head())
            self.tls = yield StartTls()
        yield from _Proof(self).run()
        self.talk.eager = True

    def _read_greeting(self) -> Exchange[Greeting]:
        payload = yield from self.talk.receive()
        if payload[:1] == b"\xff":
            raise refused(payload)
        greeting = parse_greeting(payload)
        if not greeting.capabilities & wire.CLIENT_PROTOCOL_41:
            raise ConnectFailed(f"the server ({greeting.server_version}) is older than MySQL 4.1")
        return greeting

    def _negotiate(self) -> int:
        wanted = WANTED | _number(self.target.parameters, "capabilities", 0) & CLIENTS_OWN
        if self.target.database:
            wanted |= wire.CLIENT_CONNECT_WITH_DB
        return wanted & self.greeting.capabilities

    def _wants_tls(self) -> bool:
        """`prefer` leaves Unix sockets alone: nobody can listen there. `allow` is without TLS: a server says too late that it wants it."""
        offered = bool(self.greeting.capabilities & wire.CLIENT_SSL)
        if self.target.sslmode in TLS_MODES:
            if not offered:
                raise ConnectFailed(
                    "the server does not offer TLS", hint=f"sslmode={self.target.sslmode} asks for it.", errno=CR_SSL_CONNECTION_ERROR
                )
            return True
        return offered and self.target.sslmode == "prefer" and not self.target.host.startswith("/")

    def _response(self, plugin: str, token: bytes) -> HandshakeResponse:
        parameters = self.target.parameters
        return HandshakeResponse(
            capabilities=self.capabilities,
            max_packet=MAX_PACKET,
            character_set=_number(parameters, "character_set", DEFAULT_CHARACTER_SET),
            user=self.target.user,
            auth=token,
            database=self.target.database,
            auth_plugin=plugin,
            attributes={
                "_client_name": "dualpool",
                "_client_version": __version__,
                "program_name": "dualpool",
                **{name: value for name, value in parameters.items() if name not in NOT_ATTRIBUTES},
            },
        )

    def respond(self, plugin: str, token: bytes) -> Exchange[None]:
        """Send the HandshakeResponse."""
        yield from self.talk.send(self._response(plugin, token).payload())

    def prepare(self) -> Exchange[dict[str, str]]:
        """Turn the session trackers on and read what the pool must know, in one round trip where the server has all the trackers."""
        trackers = session_sql.trackers(self.greeting.server_version)
        names = ", ".join(f"'{name}'" for name in REPORTED)
        show = f"SHOW SESSION VARIABLES WHERE Variable_name IN ({names})"
        try:
            yield Send(query("SET " + session_sql.assignments(trackers)) + query(show))
            refusal = yield from read_status(self.talk)
            parameters = yield from read_pairs(self.talk, self.capabilities)
            if refusal:
                yield from self._track_one_by_one(trackers)
        except RemoteProtocolError as error:
            raise ConnectFailed(f"the server broke the protocol: {error.message}") from error
        except ConnectionClosed as error:
            raise ConnectFailed("the server closed the connection after the login", errno=2013) from error
        return parameters

    def _track_one_by_one(self, trackers: dict[str, str]) -> Exchange[None]:
        for name, value in trackers.items():
            yield Send(query("SET " + session_sql.assignments({name: value})))
            yield from read_status(self.talk)

    @property
    def version(self) -> str:
        """The server's. MariaDB up to 10 puts something in front, for replicas that would not take a server of version 10."""
        return self.greeting.server_version.removeprefix("5.5.5-")

    def read_defaults(self) -> Exchange[dict[str, str]]:
        """What the server gives its sessions, and so has given this one."""
        try:
            return (yield from read_defaults(self.talk, self.version, self.capabilities))
        except ServerLost as lost:
            raise ConnectFailed(lost.message, errno=2013) from lost

    def read_role(self) -> Exchange[str]:
        """The role that the session has from its login."""
        try:
            return (yield from read_role(self.talk, self.version, self.capabilities))
        except ServerLost as lost:
            raise ConnectFailed(lost.message, errno=2013) from lost

    def result(self, parameters: dict[str, str], defaults: dict[str, str]) -> ServerLogin:
        return ServerLogin(
            parameters=parameters,
            defaults=defaults,
            process_id=self.greeting.connection_id,
            version=self.version,
            capabilities=self.capabilities,
            tls=self.tls,
            pending=self.talk.leftover,
        )


def _number(parameters: dict[str, str], name: str, default: int) -> int:
    value = parameters.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else default


def read_status(talk: Conversation) -> Exchange[bytes]:
    """The answer to a command that has no result set: b"", or the ERR packet."""
    talk.sequence = 1
    payload = yield from talk.receive()
    return payload if payload[:1] == b"\xff" else b""


def read_pairs(talk: Conversation, capabilities: int) -> Exchange[dict[str, str]]:
    """The rows of a result with two columns of text, the first in lower case; none if the server answers with an error."""
    rows, _ = yield from read_result(talk, capabilities)
    return {text(row[0] or b"").lower(): text(row[1] or b"") for row in rows if len(row) > 1}


class _Proof:
    """Our proof that we are `target.user`: whatever the server asks for, as far as we know enough."""

    def __init__(self, session: ServerSession) -> None:
        self.session = session
        self.talk = session.talk
        self.target = session.target
        self.nonce = session.greeting.nonce
        learnt = session.target.learnt
        self.password = session.target.password or (learnt.password if learnt else "")
        self.stage1 = learnt.stage1 if learnt and not self.password else b""
        self.plugin = self._first_plugin()

    def run(self) -> Exchange[None]:
        """Raises ConnectFailed."""
        yield from self.session.respond(self.plugin, (yield from self._answer()))
        for _ in range(MAX_ROUNDS):
            payload = yield from self.talk.receive()
            kind = payload[0] if payload else wire.ERR
            if kind == wire.OK:
                return
            if kind == wire.ERR:
                raise refused(payload)
            if kind == wire.AUTH_SWITCH:
                yield from self._switch(payload)
            elif kind == wire.AUTH_MORE_DATA:
                yield from self._go_on(payload[1:])
            else:
                raise self._unable("asks for a second factor")
        raise self._unable("goes on asking")

    def _first_plugin(self) -> str:
        """The one that the server named, if we can answer it; it will ask us to switch where another is right."""
        if not self.session.capabilities & wire.CLIENT_PLUGIN_AUTH:
            return auth.NATIVE
        if self.stage1:
            return auth.NATIVE if len(self.stage1) == auth.SHA1_STAGE else auth.CACHING_SHA2
        offered = self.session.greeting.auth_plugin
        return offered if offered in (auth.NATIVE, auth.CACHING_SHA2) else auth.CACHING_SHA2

    def _switch(self, payload: bytes) -> Exchange[None]:
        if len(payload) == 1:
            raise self._unable("asks for the password hash of MySQL before 4.1")
        self.plugin, data = parse_auth_switch(payload)
        self.nonce = data[: auth.ED25519_NONCE if self.plugin == auth.ED25519 else NONCE_SIZE]
        yield from self.talk.send((yield from self._answer()))

    def _answer(self) -> Exchange[bytes]:
        """What the current plugin sends first."""
        if self.plugin in (auth.NATIVE, auth.CACHING_SHA2):
            return self._token()
        if self.plugin == auth.CLEAR:
            return self._in_clear()
        if self.plugin == auth.SHA256:
            if not self._need_password():
                return b"\0"
            return self._in_clear() if self.session.secure else b"\x01"
        if self.plugin == auth.ED25519:
            signature: bytes = yield Offload(partial(auth.ed25519_sign, self._need_password(), self.nonce))
            return signature
        raise self._unable(f"asks for the authentication plugin {self.plugin!r}")

    def _token(self) -> bytes:
        native = self.plugin == auth.NATIVE
        stage1 = self.stage1
        if self.password:
            stage1 = auth.native_stage1(self.password) if native else auth.sha2_stage1(self.password)
        if not stage1:
            return b""
        if len(stage1) != (auth.SHA1_STAGE if native else auth.SHA256_STAGE):
            raise self._unable(f"asks for {self.plugin}, for which the password itself must be known")
        return auth.native_token(stage1, self.nonce) if native else auth.sha2_token(stage1, self.nonce)

    def _go_on(self, data: bytes) -> Exchange[None]:
        """More of caching_sha2_password (3: done, 4: the password please) or a public key."""
        if self.plugin == auth.CACHING_SHA2 and data == b"\x03":
            return
        if self.plugin == auth.CACHING_SHA2 and data == b"\x04":
            yield from self.talk.send(self._in_clear() if self.session.secure else b"\x02")
        elif self.plugin in (auth.CACHING_SHA2, auth.SHA256) and data.startswith(b"-----BEGIN"):
            encrypted: bytes | None = yield Offload(partial(_encrypt, self._need_password(), self.nonce, data))
            if encrypted is None:
                raise self._unable("sends a public key that cannot encrypt the password")
            yield from self.talk.send(encrypted)
        else:
            raise self._unable("asks for something unknown")

    def _in_clear(self) -> bytes:
        """The password itself, where nobody else can read it. (So an impostor on a plain connection cannot ask for it.)"""
        if not self.session.secure:
            raise self._unable("asks for the password in clear on a connection without TLS")
        return self._need_password().encode() + b"\0"

    def _need_password(self) -> str:
        if self.stage1:
            raise self._unable("asks for the password itself, and only a hash of it is known")
        return self.password

    def _unable(self, what: str) -> ConnectFailed:
        return ConnectFailed(f"cannot log in user {self.target.user!r}: the server {what}", errno=CR_AUTH_PLUGIN_ERROR)


def _encrypt(password: str, nonce: bytes, pem: bytes) -> bytes | None:
    """The password for the owner of the public key, or None if that is no RSA key, or too small for it (2048 bits hold 213 bytes)."""
    try:
        encrypted: bytes = sha2_rsa_encrypt(password.encode(), nonce, pem)
    except (ValueError, AttributeError, TypeError, UnsupportedAlgorithm):
        return None
    return encrypted


def refused(payload: bytes) -> ConnectFailed:
    """The server's ERR packet, during a login, as our error: with its code, SQLSTATE and message."""
    answer = parse_error(payload) if len(payload) > 2 else None
    if answer is None:
        return ConnectFailed("the server ended the login without saying why")
    error = ConnectFailed(answer.message, errno=answer.errno)
    error.mysql_sqlstate = answer.sqlstate
    return error


# ------------------------------------------------------------------------------------------------------------- between leases


def recover(relay: "ServerRelay") -> Exchange[None]:
    """After a client vanished: drop what it was owed, end its file, roll back. Raises ServerLost. See `Engine.recover`."""
    if relay.unfinished:
        raise ServerLost("a client has gone in the middle of a command")
    yield from _drain(relay)
    if relay.in_transaction:
        yield from _run(relay, query("ROLLBACK"), 1)
    if not relay.answered() or relay.in_transaction:
        raise ServerLost("the transaction that a client had left open could not be ended")


def reset(relay: "ServerRelay") -> Exchange[None]:
    """COM_RESET_CONNECTION, and again what every session of the pool begins with. Raises ServerLost. See `Engine.reset`.

    Never COM_CHANGE_USER: Vitess has none, and it would be a whole login. COM_RESET_CONNECTION keeps the schema, but gives the session
    the server's character set in the place of the schema's. So the schema is chosen again. A role stays, too, and cannot be taken back.
    """
    data = wire.packet(0, bytes((wire.COM_RESET_CONNECTION,))) + query(setup_sql(relay))
    schema = relay.login_schema.encode("utf-8", "surrogateescape")
    # (MariaDB does not read again what is chosen already.)
    chosen = [ANY_SCHEMA, schema] if "MariaDB" in relay.version else [schema]
    choices = [wire.packet(0, bytes((wire.COM_INIT_DB,)) + name) for name in chosen if schema]
    yield from _run(relay, data + b"".join(choices), 2 + len(choices), tolerated=UNKNOWN_VARIABLE)
    if relay.last_error:
        for name, value in session_sql.trackers(relay.version).items():
            yield from _run(relay, query("SET " + session_sql.assignments({name: value})), 1, tolerated=UNKNOWN_VARIABLE)
    if (yield from ask_role(relay.version, relay.capabilities)) != relay.login_role:
        raise ServerLost(ROLE_STAYS)
    relay.was_reset(tracks=True)
    relay.defaults = session_sql.defaults((yield from ask_defaults(relay.version, relay.capabilities)))


def check(relay: "ServerRelay", sql: str) -> Exchange[None]:
    """COM_PING, or `sql`. Raises ServerLost. See `Engine.check`."""
    data = query(sql) if sql else wire.packet(0, bytes((wire.COM_PING,)))
    yield from _run(relay, data, 1)


def prove(relay: "ServerRelay", wanted: "Settings") -> Exchange[dict[str, str]]:
    """A MySQL client's login sets no more than a character set, which is not asked for here. See `Engine.prove`.

    Returns what a new session gets from the server now. A client is told little of it: the flags of the OK packet. Raises ServerLost.
    """
    del wanted
    found = yield from ask_defaults(relay.version, relay.capabilities)
    if not found and relay.defaults is not session_sql.UNKNOWN_DEFAULTS:
        raise ServerLost("the server does not tell its defaults any more")
    now = session_sql.defaults(found)
    if now is not relay.defaults:
        relay.defaults.supersede()
    return found


def capacity(login: ServerLogin) -> Exchange[int]:
    """How many connections the server allows to ordinary users; it has one more for administrators. The session must be idle.

    `max_user_connections` limits each user further, where it is not 0. Raises ServerLost.
    """
    limits = yield from _variables(login, LIMITS, "for max_connections")
    numbers = [int(value) for value in limits.values() if value.isdigit() and int(value)]
    if "max_connections" not in limits or not numbers:
        raise ServerLost("the server does not tell max_connections")
    return min(numbers)


SECRET_QUERY: Final = (
    "SELECT user, authentication_string FROM mysql.user WHERE user = $1 AND host = '%' AND account_locked = 'N'"
    " AND password_expired = 'N' AND plugin IN ('mysql_native_password', 'caching_sha2_password')"
)
"""The hashes by which a client can be checked. A user of certain hosts only is left to those hosts: we are not there."""
MARIADB_SECRET_QUERY: Final = (
    "SELECT u.user, u.authentication_string FROM mysql.user u JOIN mysql.global_priv g ON g.user = u.user AND g.host = u.host"
    " WHERE u.user = $1 AND u.host = '%' AND u.is_role = 'N' AND u.password_expired = 'N' AND u.plugin = 'mysql_native_password'"
    " AND COALESCE(JSON_VALUE(g.priv, '$.account_locked'), '0') NOT IN ('1', 'true')"
)


def find_secrets(login: ServerLogin, sql: str, user: str) -> Exchange[tuple[str, ...] | None]:
    """What the server stores to recognise `user`; None: it knows no such user. Raises ConnectFailed, ServerLost."""
    own = MARIADB_SECRET_QUERY if "MariaDB" in login.version else SECRET_QUERY
    # As hexadecimal digits a name needs no escaping, whatever the server's sql_mode and character sets are.
    literal = f"_utf8mb4 x'{user.encode('utf-8', 'surrogateescape').hex()}'"
    talk = Conversation(MAX_REPLY)
    talk.eager = True
    try:
        yield Send(query((sql or own).replace("$1", literal)))
        rows = yield from read_rows(talk, login.capabilities)
    except (ConnectionClosed, RemoteProtocolError) as error:
        raise ServerLost("the server did not answer when it was asked for a user") from error
    if talk.leftover:
        raise ServerLost("the server says more than it was asked")
    secret = stored_secret(rows)
    return None if secret is None else (secret.decode("latin-1"),) if secret else ()


def read_rows(talk: Conversation, capabilities: int) -> Exchange[list[list[bytes | None]]]:
    """The rows of a result, as text. Raises ConnectFailed for the server's error."""
    rows, error = yield from read_result(talk, capabilities)
    if error:
        raise _query_refused(error)
    return rows


def _query_refused(payload: bytes) -> ConnectFailed:
    answer = parse_error(payload)
    return ConnectFailed(f"auth_query failed at the server: {answer.message} ({answer.errno})")


def role(login: ServerLogin) -> Exchange[str]:
    """What the server is (`Engine.role`): replicas are read_only, and nothing else tells them apart for everybody.

    The session must be idle. Raises ServerLost.
    """
    switches = yield from _variables(login, READ_ONLY_SWITCHES, "whether it takes writes")
    # MariaDB 12 has values of its own beside ON: NO_LOCK, NO_LOCK_NO_ADMIN.
    return "read-write" if all(value.upper() in OFF for value in switches.values()) else "standby"


def _variables(login: ServerLogin, names: tuple[str, ...], what: str) -> Exchange[dict[str, str]]:
    """Ask an idle session for global variables. Raises ServerLost."""
    talk = Conversation(MAX_REPLY)
    talk.eager = True
    quoted = ", ".join(f"'{name}'" for name in names)
    try:
        yield Send(query(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({quoted})"))
        return (yield from read_pairs(talk, login.capabilities))
    except (ConnectionClosed, RemoteProtocolError) as error:
        raise ServerLost(f"the server did not answer when it was asked {what}") from error


def setup_sql(relay: "ServerRelay") -> str:
    """The statement that brings a session which was reset to where `connect()` left it, as far as the relay does not set it anyway."""
    if not relay.capabilities & wire.CLIENT_SESSION_TRACK:
        return "SET NAMES utf8mb4"
    return "SET NAMES utf8mb4," + session_sql.assignments(session_sql.trackers(relay.version))


def _run(relay: "ServerRelay", data: bytes, commands: int, tolerated: int = 0) -> Exchange[None]:
    """Send commands of ours and let the relay take their answers. Raises ServerLost if one is an error, but for the code `tolerated`."""
    if not relay.answered():
        raise LocalProtocolError("a command of dualpool's own while an answer is outstanding")
    for _ in range(commands):
        relay.expect_hidden()
    yield Send(data)
    yield from _drain(relay)
    if relay.last_error:
        answer = parse_error(relay.last_error)
        if answer.errno != tolerated:
            raise ServerLost(f"the server answered with error {answer.errno} ({answer.sqlstate}): {answer.message}")


def _drain(relay: "ServerRelay") -> Exchange[None]:
    """Read until every command is answered; what was meant for a client goes nowhere."""
    try:
        while not relay.answered():
            if relay.copying_in:
                yield Send(relay.end_file())
            verdict = relay.on_server_bytes((yield ReceiveSome()))
            relay.to_client = b""
            if verdict & BROKEN:
                raise ServerLost("the server ended the connection")
            if relay.to_server:
                more, relay.to_server = relay.to_server, b""
                yield Send(more)
    except ConnectionClosed as closed:
        raise ServerLost("the server closed the connection between two clients") from closed
    except RemoteProtocolError as error:
        raise ServerLost(f"the server broke the protocol: {error.message}") from error


def query(sql: str) -> bytes:
    """`sql` as a COM_QUERY packet."""
    return wire.packet(0, bytes((wire.COM_QUERY,)) + sql.encode())
