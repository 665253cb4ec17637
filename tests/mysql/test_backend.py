"""Logging in at servers: as transcripts where a server cannot be made to say it, else at real MySQL and MariaDB."""

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.accounts import LearntSecret, ServerLogin, ServerTarget
from dualpool.errors import ConnectFailed, DualpoolError, LocalProtocolError, ServerLost
from dualpool.mysql import ENGINE, auth, backend, messages, session_sql, wire
from dualpool.mysql.codec import Ok, build_ok
from dualpool.mysql.defaults import KNOWN_NAMES
from dualpool.mysql.messages import Greeting
from dualpool.mysql.server_relay import ServerRelay
from dualpool.protocol import ConnectionClosed, Exchange, RelayLimits, Send
from dualpool.state import DEFAULTS
from tests.helpers.blocking import Driver
from tests.helpers.playbook import ANY_TLS, Play, every_end
from tests.helpers.servers import MySQLServer

NONCE = bytes(range(1, 21))
OFFERED = backend.WANTED | backend.CLIENTS_OWN | wire.CLIENT_CONNECT_WITH_DB | wire.CLIENT_SSL | wire.CLIENT_COMPRESS
OK = build_ok(Ok(), OFFERED, wire.OK)
TARGET = ServerTarget("db.example", 3306, "app", "shop", password="app")


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def changed(target: ServerTarget, **more: object) -> ServerTarget:
    return attrs.evolve(target, **more)  # type: ignore[arg-type]


def server_greeting(plugin: str = auth.CACHING_SHA2, capabilities: int = OFFERED) -> bytes:
    return wire.packet(0, Greeting("8.4.0", 99, NONCE, capabilities, 255, 2, plugin).payload())


def pairs(rows: dict[str, str], capabilities: int) -> bytes:
    """A result of two columns; what is in a column definition does not matter to dualpool."""
    payloads = [b"\x02", b"\x03defname", b"\x03defvalue"]
    if not capabilities & wire.CLIENT_DEPRECATE_EOF:
        payloads.append(build_ok(Ok(), capabilities, wire.EOF))
    payloads += [wire.put_lenenc_bytes(name.encode()) + wire.put_lenenc_bytes(value.encode()) for name, value in rows.items()]
    payloads.append(build_ok(Ok(), capabilities, wire.EOF))
    return b"".join(wire.packet(sequence, payload) for sequence, payload in enumerate(payloads, 1))


# ----------------------------------------------------------------------------------------------------------------- transcripts


CANNOT_TELL = wire.packet(1, messages.error_payload(1142, "42000", "SELECT command denied"))
"""The answer of a server that does not say what it gives new sessions."""


@pytest.fixture(autouse=True)
def _no_names_are_known() -> None:
    KNOWN_NAMES.clear()


def test_a_whole_login() -> None:
    play = Play(backend.connect(changed(TARGET, sslmode="disable", parameters={"capabilities": "2", "team": "a"})))
    sent = play.feed(server_greeting())
    response = messages.parse_handshake_response(sent[4:])
    assert sent[:4] == wire.header(1, len(sent) - 4)
    assert response.capabilities == backend.WANTED | wire.CLIENT_CONNECT_WITH_DB | wire.CLIENT_FOUND_ROWS
    assert (response.user, response.database, response.auth_plugin) == ("app", "shop", auth.CACHING_SHA2)
    assert response.auth == auth.sha2_token(auth.sha2_stage1("app"), NONCE)
    assert response.attributes["program_name"] == "dualpool"
    assert response.attributes["team"] == "a"
    assert "capabilities" not in response.attributes
    assert play.feed(wire.packet(2, b"\x01\x03")) == b""
    sent = play.feed(wire.packet(3, OK))
    assert sent.count(b"\x03SET SESSION") == 1
    assert sent.count(b"\x03SHOW SESSION VARIABLES") == 1
    sent = play.feed(wire.packet(1, OK) + pairs({"Version": "8.4.0", "sql_mode": ""}, response.capabilities))
    assert sent.startswith(b"\x03SELECT LOWER(VARIABLE_NAME)", 4)
    sent = play.feed(pairs({"sql_mode": "0", "big_tables": "0", "max_connections": "0"}, response.capabilities))
    values = b"IFNULL(@@global.big_tables,0x00),IFNULL(@@global.sql_mode,0x00)"
    assert sent[5:] == b"SELECT /*+ MAX_EXECUTION_TIME(60000) */ CONCAT_WS(0x0A," + values + b") LIMIT 1"
    sent = play.feed(pairs({"0\nANSI": ""}, response.capabilities))
    assert sent[5:] == session_sql.select_role("8.4.0").encode()
    play.feed(CANNOT_TELL)
    defaults = {"big_tables": "0", "sql_mode": "ANSI"}
    assert play.result == ServerLogin(
        parameters={"version": "8.4.0", "sql_mode": ""},
        process_id=99,
        version="8.4.0",
        capabilities=response.capabilities,
        defaults=defaults,
    )


def test_trackers_that_the_server_does_not_have_are_left_out_one_by_one() -> None:
    old = OFFERED & ~wire.CLIENT_DEPRECATE_EOF
    play = Play(backend.connect(changed(TARGET, sslmode="disable")))
    play.feed(server_greeting(auth.NATIVE, old) + wire.packet(2, OK))
    play.take()
    unknown = wire.packet(1, messages.error_payload(1193, "HY000", "Unknown system variable"))
    names = []
    sent = play.feed(unknown + pairs({"version": "5.7.1"}, old))
    for answer in (OK, OK, OK, unknown[4:]):
        assert sent[4] == wire.COM_QUERY
        names.append(sent[5:].decode().split()[2])
        sent = play.feed(wire.packet(1, answer))
    play.feed(CANNOT_TELL)
    play.feed(CANNOT_TELL)
    assert [name.partition("=")[0] for name in names] == list(session_sql.trackers("5.7.1"))
    assert play.result is not None
    assert play.result.parameters == {"version": "5.7.1"}


def test_an_error_for_the_variables_is_no_obstacle() -> None:
    play = Play(backend.connect(changed(TARGET, sslmode="disable")))
    play.feed(server_greeting() + wire.packet(2, OK) + wire.packet(1, OK) + wire.packet(1, messages.error_payload(1105, "HY000", "no")))
    play.feed(CANNOT_TELL)
    play.feed(CANNOT_TELL)
    assert play.result is not None
    assert play.result.parameters == {}


def test_mariadb_s_version_is_without_its_disguise() -> None:
    play = Play(backend.connect(changed(TARGET, sslmode="disable")))
    play.feed(wire.packet(0, Greeting("5.5.5-10.11.6-MariaDB", 9, NONCE, OFFERED, 45, 2, auth.NATIVE).payload()))
    play.feed(wire.packet(2, OK) + wire.packet(1, OK) + pairs({}, OFFERED) + CANNOT_TELL + CANNOT_TELL)
    assert play.result is not None
    assert play.result.version == "10.11.6-MariaDB"


@pytest.mark.parametrize(
    ("errno", "sqlstate", "said"),
    [(1040, "", "Too many connections"), (1129, "", "Host is blocked"), (1130, "HY000", "Host is not allowed")],
)
def test_a_server_that_does_not_greet(errno: int, sqlstate: str, said: str) -> None:
    play = Play(backend.connect(TARGET))
    play.feed(wire.packet(0, messages.error_payload(errno, sqlstate, said)))
    assert isinstance(play.error, ConnectFailed)
    assert (play.error.errno, play.error.mysql_sqlstate, play.error.message) == (errno, "HY000", said)


@pytest.mark.parametrize(
    ("mode", "host", "offered", "tls"),
    [
        ("disable", "h", True, False),
        ("allow", "h", True, False),
        ("prefer", "h", True, True),
        ("prefer", "h", False, False),
        ("prefer", "/run/mysqld", True, False),
        ("require", "h", True, True),
        ("require", "/run/mysqld", True, True),
        ("verify-full", "h", True, True),
        ("require", "h", False, None),
        ("verify-ca", "h", False, None),
    ],
)
def test_sslmode(mode: str, host: str, offered: bool, tls: bool | None) -> None:
    play = Play(backend.connect(changed(TARGET, host=host, sslmode=mode)))
    sent = play.feed(server_greeting(capabilities=OFFERED if offered else OFFERED & ~wire.CLIENT_SSL))
    if tls is None:
        assert isinstance(play.error, ConnectFailed)
        assert play.error.errno == 2026
    elif tls:
        assert len(sent) == 36
        assert messages.response_capabilities(sent[4:]) & wire.CLIENT_SSL
        response = play.answer(ANY_TLS)
        assert response[3] == 2
        assert messages.parse_handshake_response(response[4:]).head() == sent[4:]
    else:
        assert not messages.parse_handshake_response(sent[4:]).capabilities & wire.CLIENT_SSL


@pytest.mark.parametrize("request_", [b"\xfemysql_clear_password\0", b"\xfe", b"\xfedialog\0", b"\x02mysql_native_password\0", b"\x01?"])
def test_what_a_server_may_not_ask_for_without_tls(request_: bytes) -> None:
    play = Play(backend.connect(changed(TARGET, sslmode="disable")))
    play.feed(server_greeting())
    assert play.feed(wire.packet(2, request_)) == b""
    assert isinstance(play.error, ConnectFailed)
    assert play.error.errno == 2061
    assert "app" not in play.error.message.replace("'app'", "")


def test_a_password_in_clear_over_tls() -> None:
    play = Play(backend.connect(TARGET), answers=[ANY_TLS])
    play.feed(server_greeting())
    play.take()
    assert play.feed(wire.packet(3, b"\xfemysql_clear_password\0")) == wire.packet(4, b"app\0")


def test_a_learnt_stage_chooses_its_plugin() -> None:
    for stage1, plugin, token in (
        (auth.native_stage1("app"), auth.NATIVE, auth.native_token(auth.native_stage1("app"), NONCE)),
        (auth.sha2_stage1("app"), auth.CACHING_SHA2, auth.sha2_token(auth.sha2_stage1("app"), NONCE)),
    ):
        play = Play(backend.connect(changed(TARGET, password="", learnt=LearntSecret(stage1=stage1), sslmode="disable")))
        response = messages.parse_handshake_response(play.feed(server_greeting())[4:])
        assert (response.auth_plugin, response.auth) == (plugin, token)
        play.feed(wire.packet(2, b"\x01\x04" if plugin == auth.CACHING_SHA2 else b"\xfecaching_sha2_password\0" + NONCE + b"\0"))
        # The server's cache is cold, or it has another kind of account: what we know is not enough.
        if plugin == auth.CACHING_SHA2:
            play.feed(wire.packet(4, b"\x01-----BEGIN PUBLIC KEY-----"))
        assert isinstance(play.error, ConnectFailed)
        assert play.error.errno == 2061


def test_a_login_that_goes_in_circles_ends() -> None:
    play = Play(backend.connect(changed(TARGET, sslmode="disable")))
    play.feed(server_greeting())
    for turn in range(backend.MAX_ROUNDS):
        play.feed(wire.packet(2 + 2 * turn, b"\xfemysql_native_password\0" + NONCE + b"\0"))
    assert isinstance(play.error, ConnectFailed)


@pytest.mark.parametrize("greeting", [b"\x09old", b"", b"\x0a8.4.0\0short", Greeting("3.23", 1, NONCE, 0).payload()])
def test_what_is_no_server_of_ours(greeting: bytes) -> None:
    play = Play(backend.connect(TARGET))
    play.feed(wire.packet(0, greeting))
    assert isinstance(play.error, ConnectFailed)


def test_cut_at_every_byte() -> None:
    plain = changed(TARGET, sslmode="disable")
    data = server_greeting() + wire.packet(2, b"\x01\x03") + wire.packet(3, OK) + wire.packet(1, OK) + pairs({"version": "8"}, OFFERED)
    data += CANNOT_TELL + CANNOT_TELL
    every_end(lambda: backend.connect(plain), data)
    for chunk in (1, 7):
        play = Play(backend.connect(plain), chunk=chunk)
        play.feed(data)
        assert play.result is not None


@given(st.binary(max_size=100), st.lists(st.binary(max_size=60), max_size=4))
def test_garbage_ends_in_an_error_of_ours(first: bytes, more: list[bytes]) -> None:
    for greeting in (wire.packet(0, first), server_greeting()):
        play = Play(backend.connect(changed(TARGET, sslmode="disable")))
        play.feed(greeting + b"".join(wire.packet(2 + 2 * turn, payload) for turn, payload in enumerate(more)))
        play.hang_up()
        assert play.done
        assert play.error is None or isinstance(play.error, (ConnectionClosed, DualpoolError)), play.error


@pytest.mark.parametrize("key", [b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"])
def test_a_public_key_that_is_none(key: bytes) -> None:
    play = Play(backend.connect(changed(TARGET, sslmode="disable")))
    play.feed(server_greeting())
    assert play.feed(wire.packet(2, b"\x01\x04")) == wire.packet(3, b"\x02")
    play.feed(wire.packet(4, b"\x01" + key))
    assert isinstance(play.error, ConnectFailed)


def test_a_password_that_is_too_long_for_the_server_s_key() -> None:
    key = auth.RsaKey().public_pem()
    for size, fits in ((213, True), (214, False)):
        play = Play(backend.connect(changed(TARGET, sslmode="disable", password="x" * size)))
        play.feed(server_greeting() + wire.packet(2, b"\x01\x04") + wire.packet(4, b"\x01" + key))
        assert (play.error is None) is fits


# ---------------------------------------------------------------------------------------------------------------- real servers


def dial(target: ServerTarget) -> socket.socket:
    if target.host.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(target.host)
        return sock
    return socket.create_connection((target.host, target.port))


def target_of(server: MySQLServer, **more: object) -> ServerTarget:
    return changed(ServerTarget(server.host, server.port, server.user, server.database, password=server.password), **more)


def log_in(target: ServerTarget) -> ServerLogin:
    """Connect, and leave."""
    driver = Driver(dial(target), tls=trusting())
    try:
        return driver.run(backend.connect(target))
    finally:
        driver.sock.close()


def ask(target: ServerTarget, sql: str) -> dict[str, str]:
    """The two columns of a query on a session that `connect()` has made."""

    def exchange() -> Exchange[dict[str, str]]:
        session = yield from backend.log_in(target)
        yield from session.prepare()
        yield Send(backend.query(sql))
        return (yield from backend.read_pairs(session.talk, session.capabilities))

    driver = Driver(dial(target), tls=trusting())
    try:
        return driver.run(exchange())
    finally:
        driver.sock.close()


@pytest.fixture
def new_user() -> Iterator[Callable[..., str]]:
    """`new_user(server, password=..., plugin=...)`: a user that is gone after the test."""
    users: list[tuple[MySQLServer, str]] = []

    def create(server: MySQLServer, **options: str) -> str:
        name = server.create_user(**options)
        users.append((server, name))
        return name

    yield create
    for server, name in users:
        server.drop_user(name)


@contextmanager
def refused(errno: int, sqlstate: str) -> Iterator[None]:
    with pytest.raises(ConnectFailed) as failure:
        yield
    assert (failure.value.errno, failure.value.mysql_sqlstate) == (errno, sqlstate), failure.value.message


TLS_MODES = pytest.mark.parametrize("sslmode", ["disable", "require"])


@TLS_MODES
def test_a_login_at_a_real_server(mysql_server: MySQLServer, sslmode: str) -> None:
    login = log_in(target_of(mysql_server, sslmode=sslmode))
    assert login.process_id > 0
    assert login.version == login.parameters["version"]
    assert ("MariaDB" in login.version) is mysql_server.is_mariadb
    assert login.pending == b""
    assert (login.tls is not None) is (sslmode == "require")
    tracked = login.parameters["session_track_system_variables"]
    assert tracked == "*" if mysql_server.is_mariadb else "autocommit" in tracked.split(",")
    assert login.parameters["session_track_transaction_info"] == "CHARACTERISTICS"
    assert login.parameters["character_set_client"] == login.parameters["character_set_results"] == "utf8mb4"
    assert login.parameters["collation_connection"] == "utf8mb4_general_ci"
    assert login.parameters["autocommit"] == "ON"
    assert int(login.parameters["max_connections"]) > 0
    assert {"transaction_isolation", "tx_isolation"} & set(login.parameters)
    assert login.capabilities & wire.CLIENT_SESSION_TRACK
    assert login.capabilities & wire.CLIENT_DEPRECATE_EOF


def test_a_real_connection_is_encrypted(mysql_server: MySQLServer) -> None:
    status = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
    assert ask(target_of(mysql_server, sslmode="disable"), status) == {"ssl_cipher": ""}
    assert ask(target_of(mysql_server, sslmode="prefer"), status)["ssl_cipher"] != ""


def test_the_pool_s_own_parameters(mysql_server: MySQLServer) -> None:
    parameters = {"capabilities": str(wire.CLIENT_FOUND_ROWS | wire.CLIENT_SSL | wire.CLIENT_COMPRESS), "character_set": "46"}
    login = log_in(target_of(mysql_server, sslmode="disable", parameters=parameters))
    assert login.parameters["collation_connection"] == "utf8mb4_bin"
    assert login.capabilities & wire.CLIENT_FOUND_ROWS
    assert not login.capabilities & (wire.CLIENT_SSL | wire.CLIENT_COMPRESS)


def test_connection_attributes(mysql: MySQLServer) -> None:
    sql = "SELECT attr_name, attr_value FROM performance_schema.session_connect_attrs WHERE processlist_id = CONNECTION_ID()"
    attributes = ask(target_of(mysql, parameters={"team": "a", "capabilities": "0"}), sql)
    assert attributes["program_name"] == "dualpool"
    assert attributes["team"] == "a"
    assert "capabilities" not in attributes


def test_a_login_without_a_database(mysql_server: MySQLServer) -> None:
    assert ask(target_of(mysql_server, database=""), "SELECT 'schema', COALESCE(DATABASE(), 'none')") == {"schema": "none"}
    assert ask(target_of(mysql_server), "SELECT 'schema', COALESCE(DATABASE(), 'none')") == {"schema": "app"}


def test_a_unix_socket(mariadb: MySQLServer, new_user: Callable[..., str]) -> None:
    path = mariadb.execute("SELECT @@socket")[0][0]
    user = new_user(mariadb)
    mariadb.execute(f"CREATE USER '{user}'@'localhost' IDENTIFIED BY 'app'")
    try:
        assert ask(target_of(mariadb, host=path, user=user, database=""), "SELECT 'user', CURRENT_USER()") == {"user": f"{user}@localhost"}
    finally:
        mariadb.execute(f"DROP USER '{user}'@'localhost'")


def test_refusals_carry_the_server_s_code(mysql_server: MySQLServer) -> None:
    with refused(1045, "28000"):
        log_in(target_of(mysql_server, password="wrong"))
    with refused(1049, "42000"):
        log_in(target_of(mysql_server, database="nowhere_at_all"))


@TLS_MODES
@pytest.mark.parametrize("plugin", [auth.CACHING_SHA2, auth.SHA256])
@pytest.mark.parametrize("password", ["", "app", "gehëim " * 12])
def test_mysql_s_plugins(mysql: MySQLServer, new_user: Callable[..., str], plugin: str, password: str, sslmode: str) -> None:
    user = new_user(mysql, password=password, plugin=plugin)
    target = target_of(mysql, user=user, password=password, sslmode=sslmode)
    log_in(target)  # In full: the server knows the password by its crypt hash only.
    log_in(target)  # caching_sha2_password: from the cache.
    with refused(1045, "28000"):
        log_in(changed(target, password="wrong"))
    if password and plugin == auth.CACHING_SHA2:
        log_in(changed(target, password="", learnt=LearntSecret(stage1=auth.sha2_stage1(password))))
    log_in(changed(target, password="", learnt=LearntSecret(password=password)))


@TLS_MODES
@pytest.mark.parametrize("password", ["", "app", "gehëim"])
def test_mariadb_s_native_passwords(mariadb: MySQLServer, new_user: Callable[..., str], password: str, sslmode: str) -> None:
    user = new_user(mariadb, password=password)
    target = target_of(mariadb, user=user, password=password, sslmode=sslmode)
    log_in(target)
    with refused(1045, "28000"):
        log_in(changed(target, password="wrong"))
    if password:
        log_in(changed(target, password="", learnt=LearntSecret(stage1=auth.native_stage1(password))))


@TLS_MODES
@pytest.mark.parametrize("password", ["app", "a much longer password than thirty-two bytes"])
def test_mariadb_s_ed25519(mariadb: MySQLServer, new_user: Callable[..., str], password: str, sslmode: str) -> None:
    if not mariadb.execute("SELECT 1 FROM information_schema.plugins WHERE plugin_name = 'ed25519'"):
        mariadb.execute("INSTALL SONAME 'auth_ed25519'")
    user = new_user(mariadb, password=password, plugin="ed25519")
    target = target_of(mariadb, user=user, password=password, sslmode=sslmode)
    log_in(target)
    with refused(1045, "28000"):
        log_in(changed(target, password="wrong"))


def test_a_hash_that_dualpool_can_check_is_what_the_server_stores(
    mysql: MySQLServer, mariadb: MySQLServer, new_user: Callable[..., str]
) -> None:
    user = new_user(mysql, password="gehëim", plugin=auth.CACHING_SHA2)
    stored = mysql.execute("SELECT HEX(authentication_string) FROM mysql.user WHERE user = %s", user)[0][0]
    secret = bytes.fromhex(stored).decode()
    assert auth.kind_of(secret) == "sha2"
    assert auth.fitting_secrets((secret, "0x" + stored), "gehëim") == [secret, "0x" + stored]
    native = mariadb.execute("SELECT PASSWORD('gehëim')")[0][0]
    assert native == "*" + hashlib.sha1(auth.native_stage1("gehëim")).hexdigest().upper()
    assert auth.fitting_secrets((native,), "gehëim") == [native]


# --------------------------------------------------------------------------------------------------------------- between leases


class Session:
    """A server connection with its relay: `run()` is an exchange of the pool's, `say()` a command of a client's that is gone."""

    def __init__(self, server: MySQLServer, **more: object) -> None:
        self.target = target_of(server, sslmode="disable", **more)
        self.driver = Driver(dial(self.target))
        self.login = self.driver.run(backend.connect(self.target))
        relay = ENGINE.server_relay(self.login, RelayLimits(), self.target)
        assert isinstance(relay, ServerRelay)
        self.relay = relay

    def run(self, exchange: Exchange[object]) -> object:
        return self.driver.run(exchange)

    def say(self, sql: str) -> None:
        """Send a query and do not read the answer."""
        self.relay.expect_hidden()
        self.driver.sock.sendall(backend.query(sql))

    def ask(self, sql: str) -> dict[str, str]:
        """The two columns of a query, past the relay."""

        def exchange() -> Exchange[dict[str, str]]:
            talk = messages.Conversation(1 << 20)
            talk.eager = True
            yield Send(backend.query(sql))
            return (yield from backend.read_pairs(talk, self.login.capabilities))

        return self.driver.run(exchange())


@pytest.fixture
def session(mysql_server: MySQLServer) -> Iterator[Session]:
    session = Session(mysql_server)
    yield session
    session.driver.sock.close()


def test_check(session: Session) -> None:
    for text in ("", "SELECT 1", "SELECT table_name FROM information_schema.tables"):
        session.run(backend.check(session.relay, text))
        assert session.relay.is_quiet()
        assert session.relay.to_client == b""
    with pytest.raises(ServerLost, match=r"1146 \(42S02\)"):
        session.run(backend.check(session.relay, "SELECT 1 FROM nothing_there"))


def test_recover_rolls_back(session: Session, mysql_server: MySQLServer) -> None:
    with mysql_server.temporary_database() as database:
        mysql_server.execute(f"CREATE TABLE {database}.t (a INT) ENGINE InnoDB")
        session.say("BEGIN")
        session.run(backend.recover(session.relay))
        for sql in ("BEGIN", f"INSERT INTO {database}.t VALUES (1), (2)", f"SELECT * FROM {database}.t"):
            session.run(backend.check(session.relay, sql))
        assert session.relay.in_transaction
        session.say(f"SELECT a, REPEAT('x', 100000) FROM {database}.t")
        session.run(backend.recover(session.relay))
        assert session.relay.is_quiet()
        assert session.ask(f"SELECT 'rows', COUNT(*) FROM {database}.t") == {"rows": "0"}


def test_recover_drops_what_was_owed(session: Session) -> None:
    session.say("SELECT REPEAT('x', 1000000) UNION ALL SELECT REPEAT('y', 1000000)")
    session.run(backend.recover(session.relay))
    assert session.relay.is_quiet()
    assert session.relay.to_client == b""
    assert session.ask("SELECT 'still', 'here'") == {"still": "here"}


def test_recover_ends_a_local_file(session: Session, mysql_server: MySQLServer) -> None:
    with mysql_server.temporary_database() as database:
        mysql_server.execute(f"CREATE TABLE {database}.t (a INT)")
        session.say(f"LOAD DATA LOCAL INFILE 'anything' INTO TABLE {database}.t")
        session.run(backend.recover(session.relay))
        assert session.relay.is_quiet()
        assert session.ask(f"SELECT 'rows', COUNT(*) FROM {database}.t") == {"rows": "0"}


def test_recover_gives_up_half_a_command(session: Session) -> None:
    session.relay.unfinished = True
    with pytest.raises(ServerLost):
        session.run(backend.recover(session.relay))


def test_reset_leaves_nothing_of_a_client(session: Session) -> None:
    names = ["sql_mode", "time_zone", "character_set_client", "character_set_results", "autocommit", *session_sql.TRACKERS]
    variables = f"SHOW SESSION VARIABLES WHERE Variable_name IN ({str(names)[1:-1]})"
    before = session.ask(variables)
    for statement in (
        "SET SESSION sql_mode = '', time_zone = '+05:00', NAMES latin1, autocommit = 0, session_track_system_variables = ''",
        "SET @mine = 'yours'",
        "CREATE TEMPORARY TABLE app.temporary (a INT)",
        "BEGIN",
    ):
        session.run(backend.check(session.relay, statement))
    assert session.relay.in_transaction
    session.run(backend.reset(session.relay))
    assert session.relay.is_quiet()
    assert not session.relay.dirty
    assert session.relay.tracks
    assert session.ask(variables) == before
    assert session.ask("SELECT 'mine', COALESCE(@mine, 'nobody')") == {"mine": "nobody"}
    assert session.ask("SELECT 'schema', DATABASE()") == {"schema": "app"}
    with pytest.raises(ServerLost, match="1146"):
        session.run(backend.check(session.relay, "SELECT * FROM app.temporary"))


def test_a_reset_that_the_server_does_not_know_loses_the_connection(session: Session) -> None:
    play = Play(backend.reset(session.relay))
    sent = play.take()
    assert sent.startswith(b"\x01\0\0\0\x1f")
    play.feed(wire.packet(1, messages.error_payload(1047, "08S01", "Unknown command")) + wire.packet(1, OK) * 3)
    assert isinstance(play.error, ServerLost)


def test_trackers_that_a_reset_cannot_set_are_set_one_by_one(session: Session) -> None:
    play = Play(backend.reset(session.relay))
    play.take()
    unknown = wire.packet(1, messages.error_payload(1193, "HY000", "Unknown system variable"))
    sent = play.feed(wire.packet(1, OK) + unknown + wire.packet(1, OK) * (2 if "MariaDB" in session.relay.version else 1))
    for answer in (unknown, wire.packet(1, OK), unknown, wire.packet(1, OK)):
        assert sent[4:].startswith(b"\x03SET SESSION session_track_")
        sent = play.feed(answer)
    play.feed(CANNOT_TELL)
    assert play.error is None
    assert session.relay.tracks


def test_a_command_of_ours_waits_for_the_client_s(session: Session) -> None:
    session.relay.expect_hidden()
    for exchange in (backend.check(session.relay, ""), backend.reset(session.relay)):
        assert isinstance(Play(exchange).error, LocalProtocolError)


@pytest.mark.parametrize("name", ["recover", "reset", "check"])
@pytest.mark.parametrize("garbage", [b"", b"\x05", b"\0\0\0\x01"])
def test_a_connection_that_is_lost_between_leases(session: Session, name: str, garbage: bytes) -> None:
    relay = session.relay
    exchanges: dict[str, Callable[[ServerRelay], Exchange[None]]] = {
        "recover": backend.recover,
        "reset": backend.reset,
        "check": lambda relay: backend.check(relay, ""),
    }
    if name == "recover":
        relay.expect_hidden()
    play = Play(exchanges[name](relay))
    if garbage:
        play.feed(garbage)
    if not play.done:
        play.hang_up()
    assert isinstance(play.error, ServerLost)


def test_capacity(session: Session, mysql_server: MySQLServer) -> None:
    assert session.run(backend.capacity(session.login)) == int(mysql_server.execute("SELECT @@max_connections")[0][0])


def test_prove_asks_for_the_defaults_of_new_sessions(session: Session) -> None:
    found = session.run(backend.prove(session.relay, DEFAULTS))
    assert found["autocommit"] in {"1", "ON"}
    assert "sql_mode" in found
    assert found.keys().isdisjoint({"collation_database", "last_insert_id", "timestamp"})
    assert not session.relay.defaults.superseded
