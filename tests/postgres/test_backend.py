"""Logging in at servers: transcripts with an imaginary server, then real ones; and what is left behind by clients that vanish."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpool.accounts import Account, ClientLogin, FrontendPolicy, LearntSecret, ServerLogin, ServerTarget, SslMode
from dualpool.errors import ConnectFailed, DualpoolError, LoginFailed, RemoteProtocolError, ServerLost
from dualpool.postgres import auth, backend, frontend, messages, start_settings, wire
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.server_relay import ServerRelay
from dualpool.protocol import RelayLimits, StartTls, TlsInfo
from tests.helpers.blocking import TIMEOUT, Driver
from tests.helpers.frames import LEXICAL
from tests.helpers.playbook import Play, check, every_end, fails, hangs_up, reads, returns, sends, starts_tls
from tests.helpers.servers import PostgresServer, client_tls

TARGET = ServerTarget("db", 5432, "app", "shop", "secret", sslmode="disable")
STARTUP = messages.startup({"user": "app", "database": "shop"})
SSL = messages.request(wire.SSL_REQUEST)
OK = messages.authentication(messages.AUTH_OK)
CLEARTEXT = messages.authentication(messages.AUTH_CLEARTEXT)
REST = messages.parameter_status("server_version", "15.13") + messages.backend_key(7, b"key!") + wire.ready(wire.IDLE)
IN = ServerLogin({"server_version": "15.13"}, 7, b"key!", "15.13")


def error(**fields: str) -> bytes:
    return wire.message(wire.ERROR_RESPONSE, b"".join(f"{kind}{value}\0".encode() for kind, value in fields.items()) + b"\0")


def failure_of(target: ServerTarget, *said: bytes) -> ConnectFailed:
    """The error of a login at a server that says this, one message at a time."""
    play = Play(backend.connect(target))
    for data in said:
        play.feed(data)
    assert isinstance(play.error, ConnectFailed), play.transcript
    return play.error


# ---------------------------------------------------------------------------------------------------------------- the messages


def test_trust() -> None:
    play = check(backend.connect(TARGET), [sends(STARTUP), reads(OK + REST), returns()])
    assert play.result == IN


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7])
def test_cuts_do_not_matter(chunk: int) -> None:
    assert check(backend.connect(TARGET), [sends(STARTUP), reads(OK + REST), returns()], chunk=chunk).result == IN


def test_the_targets_parameters_go_with_the_startup_packet() -> None:
    target = attrs.evolve(TARGET, parameters={"application_name": "dualpool", "TimeZone": "UTC"})
    startup = messages.startup({"user": "app", "database": "shop", "application_name": "dualpool", "TimeZone": "UTC"})
    check(backend.connect(target), [sends(startup), reads(OK + REST), returns()])


def test_bytes_behind_the_login_are_kept() -> None:
    play = check(backend.connect(TARGET), [sends(STARTUP), reads(OK + REST + b"more"), returns()])
    assert play.result == attrs.evolve(IN, pending=b"more")


def test_notices_are_passed_over() -> None:
    notice = messages.notice_message("hello")
    check(backend.connect(TARGET), [sends(STARTUP), reads(notice + OK + notice + REST), returns()])


def test_a_server_without_cancel_keys() -> None:
    play = check(backend.connect(TARGET), [sends(STARTUP), reads(OK + wire.ready(wire.IDLE)), returns()])
    assert play.result == ServerLogin({}, 0)


def test_a_long_cancel_key() -> None:
    play = Play(backend.connect(TARGET))
    play.feed(OK + messages.backend_key(7, b"k" * 256) + wire.ready(wire.IDLE))
    assert play.result is not None
    assert play.result.secret == b"k" * 256


def test_clear_text() -> None:
    check(backend.connect(TARGET), [sends(STARTUP), reads(CLEARTEXT), sends(messages.password(b"secret")), reads(OK + REST), returns()])


@pytest.mark.parametrize(
    "target",
    [TARGET, attrs.evolve(TARGET, password="", learnt=LearntSecret(stage1=auth.md5_hash(b"secret", b"app").encode()))],
)
def test_md5(target: ServerTarget) -> None:
    answer = messages.password(auth.md5_response(auth.md5_hash(b"secret", b"app"), b"salt"))
    asked = messages.authentication(messages.AUTH_MD5, b"salt")
    check(backend.connect(target), [sends(STARTUP), reads(asked), sends(answer), reads(OK + REST), returns()])


def scram_login(
    target: ServerTarget, offered: list[str], tls: TlsInfo | None = None, binding: bytes = b""
) -> tuple[str, Play[ServerLogin]]:
    """A login by SCRAM; returns what the client chose."""
    play = Play(backend.connect(target), answers=[tls] if tls else [])
    play.take()
    if tls is not None:
        play.feed(b"S")
    mechanism, first = messages.parse_sasl_initial(play.feed(messages.sasl(offered))[5:])
    server = auth.ScramServer(mechanism, b"0123456789abcdef", 4096, binding)
    final = play.feed(messages.authentication(messages.AUTH_SASL_CONTINUE, server.on_client_first(first)))
    server.on_client_final(final[5:])
    keys = auth.derive(b"secret", b"0123456789abcdef", 4096)
    verifier = auth.Verifier(b"0123456789abcdef", 4096, keys.stored_key, keys.server_key)
    assert server.client_key(verifier) == keys.client_key
    play.feed(messages.authentication(messages.AUTH_SASL_FINAL, server.final(verifier)) + OK + REST)
    return mechanism, play


@pytest.mark.parametrize(
    ("password", "learnt"),
    [
        ("secret", None),
        ("", LearntSecret(password="secret")),
        ("secret", LearntSecret(password="other")),
        ("", LearntSecret(scram_client_key=b"", scram_server_key=b"", password="secret")),
    ],
)
def test_scram_with_a_password(password: str, learnt: LearntSecret | None) -> None:
    mechanism, play = scram_login(attrs.evolve(TARGET, password=password, learnt=learnt), [auth.SCRAM])
    assert mechanism == auth.SCRAM
    assert play.result == IN


def test_scram_with_the_keys_of_a_clients_login() -> None:
    keys = auth.derive(b"secret", b"0123456789abcdef", 4096)
    learnt = LearntSecret(scram_client_key=keys.client_key, scram_server_key=keys.server_key)
    _, play = scram_login(attrs.evolve(TARGET, password="", learnt=learnt), [auth.SCRAM])
    assert play.result == IN
    assert play.offloaded == 0


def test_the_same_password_is_hashed_once() -> None:
    play = scram_login(TARGET, [auth.SCRAM])[1]
    assert scram_login(TARGET, [auth.SCRAM])[1].offloaded == 0
    assert play.result == IN


def test_the_channel_is_bound_on_tls(postgres15: PostgresServer) -> None:
    assert postgres15.certificates is not None
    certificate = ssl.PEM_cert_to_DER_cert(
        postgres15.certificates.issue("db").cert.read_text().split("-----END")[0] + "-----END CERTIFICATE-----"
    )
    tls = TlsInfo("TLSv1.3", "", "", b"", certificate)
    target = attrs.evolve(TARGET, sslmode="require")
    mechanism, play = scram_login(target, [auth.SCRAM_PLUS, auth.SCRAM], tls, auth.end_point(certificate))
    assert mechanism == auth.SCRAM_PLUS
    assert play.result == attrs.evolve(IN, tls=tls)
    assert scram_login(target, [auth.SCRAM], tls)[0] == auth.SCRAM


# -------------------------------------------------------------------------------------------------------------------- TLS modes


@pytest.mark.parametrize("sslmode", ["allow", "prefer"])
def test_a_server_without_tls_is_fine_where_tls_is_optional(sslmode: SslMode) -> None:
    target = attrs.evolve(TARGET, sslmode=sslmode)
    play = check(backend.connect(target), [sends(SSL), reads(b"N"), sends(STARTUP), reads(OK + REST), returns()])
    assert play.result == IN


@pytest.mark.parametrize("sslmode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
def test_tls_is_used_where_the_server_has_it(sslmode: SslMode) -> None:
    tls = TlsInfo("TLSv1.3", "", "", b"", b"")
    script = [sends(SSL), reads(b"S"), starts_tls(tls), sends(STARTUP), reads(OK + REST), returns()]
    play = check(backend.connect(attrs.evolve(TARGET, sslmode=sslmode)), script)
    assert play.result == attrs.evolve(IN, tls=tls)


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_a_server_without_tls_is_refused_where_tls_is_asked_for(sslmode: SslMode) -> None:
    message = f"the server at db:5432 does not offer TLS, but sslmode={sslmode} asks for it"
    check(backend.connect(attrs.evolve(TARGET, sslmode=sslmode)), [sends(SSL), reads(b"N"), fails(ConnectFailed, message, "08006")])


def test_no_tls_over_a_unix_socket() -> None:
    target = attrs.evolve(TARGET, host="/run/postgresql", sslmode="verify-full")
    check(backend.connect(target), [sends(STARTUP), reads(OK + REST), returns()])


def test_direct_tls() -> None:
    target = attrs.evolve(TARGET, sslmode="verify-full", direct_tls=True)
    check(backend.connect(target), [starts_tls(alpn="postgresql"), sends(STARTUP), reads(OK + REST), returns()])


def test_a_failed_handshake() -> None:
    failure = RemoteProtocolError("certificate verify failed")
    message = "the login at the server at db:5432 failed: certificate verify failed"
    check(
        backend.connect(attrs.evolve(TARGET, sslmode="verify-full")),
        [sends(SSL), reads(b"S"), starts_tls(failure), fails(ConnectFailed, message, "28000")],
    )


def test_plain_text_behind_the_answer_is_left_to_the_handshake() -> None:
    """CVE-2021-23222: a man in the middle slips messages in before TLS."""
    play = Play(backend.connect(attrs.evolve(TARGET, sslmode="require")))
    play.feed(b"S" + OK + REST)
    assert isinstance(play.waiting_for, StartTls)
    assert play.unread == OK + REST


@pytest.mark.parametrize("answer", [error(S="FATAL", C="XXXXX", M="send your password to evil.example")[:1], b"R", b"\x15", b"H"])
def test_an_error_before_tls_is_not_believed(answer: bytes) -> None:
    """CVE-2024-10977: anybody on the way may have written it."""
    failure = failure_of(attrs.evolve(TARGET, sslmode="require"), answer + b"....")
    assert failure.message == "the server at db:5432 did not answer the request for TLS as a PostgreSQL server does"


# ---------------------------------------------------------------------------------------------------------------------- refusals


def test_the_servers_own_words_and_sqlstate_are_passed_on() -> None:
    failure = failure_of(TARGET, error(S="FATAL", V="FATAL", C="28P01", M='password authentication failed for user "app"'))
    assert failure.message == (
        'the server at db:5432 refused the login of user "app" to database "shop" (28P01): password authentication failed for user "app"'
    )
    assert failure.sqlstate == "28P01"
    assert failure.hint == "check users.*.password or the backend url"


@pytest.mark.parametrize(
    ("sqlstate", "hint"),
    [("53300", "max_connections"), ("3D000", "databases.*.dbname"), ("57P03", "tries again"), ("28000", "password"), ("42501", "")],
)
def test_the_hint_fits_the_sqlstate(sqlstate: str, hint: str) -> None:
    failure = failure_of(TARGET, error(S="FATAL", C=sqlstate, M="no"))
    assert failure.sqlstate == sqlstate
    assert hint in failure.hint


def test_the_servers_own_hint_comes_first() -> None:
    assert failure_of(TARGET, error(S="FATAL", C="28P01", M="no", H="ask Bob")).hint == "ask Bob"


@pytest.mark.parametrize("fields", [{}, {"M": "no"}, {"C": "", "M": "no"}, {"C": "28P0", "M": "no"}, {"C": "28 01", "M": "no"}])
def test_an_error_without_a_sqlstate(fields: dict[str, str]) -> None:
    failure = failure_of(TARGET, error(**fields))
    assert failure.sqlstate == "08006"
    said = "no" if fields else "no reason given"
    assert failure.message == f'the server at db:5432 refused the login of user "app" to database "shop": {said}'


@pytest.mark.parametrize("before", [b"", OK, OK + messages.parameter_status("TimeZone", "UTC"), CLEARTEXT, messages.sasl([auth.SCRAM])])
def test_an_error_at_any_moment(before: bytes) -> None:
    assert failure_of(TARGET, before + error(S="FATAL", C="57P01", M="terminating connection")).sqlstate == "57P01"


@pytest.mark.parametrize(
    ("kind", "what"), [(2, "Kerberos V5"), (6, "SCM credentials"), (7, "GSSAPI"), (9, "SSPI"), (99, "authentication method 99")]
)
def test_a_method_that_dualpool_does_not_have(kind: int, what: str) -> None:
    failure = failure_of(TARGET, messages.authentication(kind))
    assert failure.message == f'the server at db:5432 asks user "app" for {what}, which dualpool does not support'
    assert "scram-sha-256" in failure.hint


@pytest.mark.parametrize("offered", [[], ["OAUTHBEARER"], ["SCRAM-SHA-1", "SCRAM-SHA-256-PLUS"]])
def test_sasl_mechanisms_that_dualpool_does_not_have(offered: list[str]) -> None:
    assert "which dualpool does not support" in failure_of(TARGET, messages.sasl(offered)).message


@pytest.mark.parametrize("asked", [CLEARTEXT, messages.authentication(messages.AUTH_MD5, b"salt"), messages.sasl([auth.SCRAM])])
def test_a_password_that_is_not_there(asked: bytes) -> None:
    failure = failure_of(attrs.evolve(TARGET, password=""), asked)
    assert failure.message.endswith("and dualpool has no password")
    assert failure.hint == "put it in the backend url or in users.*.password"
    assert failure.sqlstate == "28P01"


@pytest.mark.parametrize(
    ("learnt", "asked"),
    [
        (LearntSecret(scram_client_key=b"k" * 32, scram_server_key=b"k" * 32), CLEARTEXT),
        (LearntSecret(scram_client_key=b"k" * 32, scram_server_key=b"k" * 32), messages.authentication(messages.AUTH_MD5, b"salt")),
        (LearntSecret(stage1=b"md5" + b"0" * 32), messages.sasl([auth.SCRAM])),
    ],
)
def test_a_hash_that_does_not_fit_the_servers_method(learnt: LearntSecret, asked: bytes) -> None:
    failure = failure_of(attrs.evolve(TARGET, password="", learnt=learnt), asked)
    assert failure.message.endswith("but only a hash of the password is known")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n"], "message 'H' with a length of"),
        ([b"Eforked out\n"], "message 'E' with a length of"),
        ([b"R\0\0\0\x03"], "length of 3"),
        ([b"R\0\x01\0\x01"], "length of 65537"),
        ([b"R\xff\xff\xff\xff"], "length of 4294967295"),
        ([b"R\0\0\0\x04"], "where an authentication request was due"),
        ([REST], "message 'S' where an authentication request was due"),
        ([messages.negotiate_version(wire.PROTOCOL_3_0, [])], "does not speak version 3.0"),
        ([OK, wire.ready(wire.IN_TRANSACTION)], "message 'Z' while the session starts"),
        ([OK, b"D\0\0\0\x06\0\0"], "message 'D' while the session starts"),
        ([OK, b"S\0\0\0\x08name"], "invalid ParameterStatus"),
        ([OK, b"K\0\0\0\x08\0\0\0\1"], "invalid BackendKeyData"),
        ([CLEARTEXT, CLEARTEXT], "authentication request 3 after the password was sent"),
        ([messages.authentication(messages.AUTH_MD5, b"salty")], "an md5 salt of 5 bytes"),
        ([messages.sasl([auth.SCRAM]), OK], "authentication request 0 in the middle of SCRAM"),
        ([messages.sasl([auth.SCRAM]), messages.authentication(messages.AUTH_SASL_FINAL, b"v=x")], "request 12 in the middle of SCRAM"),
        ([messages.sasl([auth.SCRAM]), messages.authentication(messages.AUTH_SASL_CONTINUE, b"r=x,s=c2FsdA==,i=1")], "nonce"),
        ([messages.sasl([auth.SCRAM]), messages.authentication(messages.AUTH_SASL_CONTINUE, b"r=" + b"x" * 60_000)], "missing"),
        ([messages.sasl([auth.SCRAM]), wire.message(wire.AUTHENTICATION, b"\0\0\0\x0b" + b"r" * 70_000)], "length of 70008"),
    ],
)
def test_a_server_that_breaks_the_protocol(said: list[bytes], why: str) -> None:
    failure = failure_of(TARGET, *said)
    assert failure.message.startswith("the login at the server at db:5432 failed: ")
    assert why in failure.message


def test_a_server_that_skips_its_half_of_scram() -> None:
    """It took our proof and says that we are in, but never showed that it knows the password."""
    play = Play(backend.connect(TARGET))
    _, first = messages.parse_sasl_initial(play.feed(messages.sasl([auth.SCRAM]))[len(STARTUP) + 5 :])
    server = auth.ScramServer(auth.SCRAM, b"salt", 1)
    play.feed(messages.authentication(messages.AUTH_SASL_CONTINUE, server.on_client_first(first)))
    play.feed(OK + REST)
    assert isinstance(play.error, ConnectFailed)


def test_a_server_that_closes() -> None:
    message = "the server at db:5432 closed the connection during the login"
    check(backend.connect(TARGET), [sends(STARTUP), hangs_up(), fails(ConnectFailed, message, "08006")])


def test_a_server_may_vanish_at_every_byte() -> None:
    every_end(lambda: backend.connect(TARGET), CLEARTEXT + OK + REST)
    every_end(lambda: backend.connect(attrs.evolve(TARGET, sslmode="prefer")), b"N" + OK + REST)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([b"", OK, CLEARTEXT, messages.sasl([auth.SCRAM])]))
def test_garbage_is_refused_at_most(data: bytes, before: bytes) -> None:
    play = Play(backend.connect(TARGET))
    play.feed(before + data)
    play.hang_up()
    assert play.done
    assert play.error is None or isinstance(play.error, DualpoolError)


# ------------------------------------------------------------------------------------------------------------------ real servers


@contextmanager
def dialled(target: ServerTarget, tls: ssl.SSLContext | None = None) -> Iterator[Driver]:
    with socket.create_connection((target.host, target.port), timeout=TIMEOUT) as sock:
        driver = Driver(sock, tls=tls)
        try:
            yield driver
        finally:
            driver.sock.close()


def target_at(server: PostgresServer, user: str = "app", password: str = "app", **more: object) -> ServerTarget:
    given: dict[str, object] = {"sslmode": "disable", **more}
    return ServerTarget(server.host, server.port, user, "app", password, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("user", ["app", "app_trust", "app_password", "app_md5"])
def test_every_method_of_a_real_server(postgres_server: PostgresServer, user: str) -> None:
    with dialled(target := target_at(postgres_server, user)) as driver:
        login = driver.run(backend.connect(target))
    assert login.version.startswith(str(postgres_server.version[0]))
    assert login.parameters["server_version"] == login.version
    assert login.process_id > 0
    assert len(login.secret) == 4


@pytest.mark.parametrize("user", ["app", "app_password", "app_md5"])
def test_a_wrong_password_at_a_real_server(postgres15: PostgresServer, user: str) -> None:
    with dialled(target := target_at(postgres15, user, "wrong")) as driver, pytest.raises(ConnectFailed) as failure:
        driver.run(backend.connect(target))
    assert failure.value.sqlstate == "28P01"
    assert f'password authentication failed for user "{user}"' in failure.value.message


def test_a_database_that_is_not_there(postgres15: PostgresServer) -> None:
    target = attrs.evolve(target_at(postgres15), database="nowhere")
    with dialled(target) as driver, pytest.raises(ConnectFailed, match=r'\(3D000\): database "nowhere" does not exist'):
        driver.run(backend.connect(target))


@pytest.mark.parametrize("password", ["p\u00e4ss wort", "I\u00adX", "\u0627\u0031", "with 'quotes' and \\", "x" * 300])
def test_unusual_passwords(postgres15: PostgresServer, password: str) -> None:
    user = postgres15.create_user(password="none")
    try:
        quoted = password.replace("'", "''")
        postgres15.execute(f"ALTER ROLE \"{user}\" PASSWORD '{quoted}'")
        with dialled(target := target_at(postgres15, user, password)) as driver:
            assert driver.run(backend.connect(target)).process_id
    finally:
        postgres15.drop_user(user)


@pytest.mark.parametrize("iterations", [1, 1000, 10_000])
def test_unusual_verifiers(postgres15: PostgresServer, iterations: int) -> None:
    keys = auth.derive(b"app", b"tiny", iterations)
    user = postgres15.create_user(password=str(auth.Verifier(b"tiny", iterations, keys.stored_key, keys.server_key)))
    try:
        with dialled(target := target_at(postgres15, user)) as driver:
            assert driver.run(backend.connect(target)).process_id
    finally:
        postgres15.drop_user(user)


@pytest.mark.parametrize("user", ["app", "app_tls", "app_md5", "app_trust"])
@pytest.mark.parametrize("sslmode", ["prefer", "verify-full"])
def test_tls_to_a_real_server(postgres15: PostgresServer, user: str, sslmode: str) -> None:
    assert postgres15.certificates is not None
    with dialled(target := target_at(postgres15, user, sslmode=sslmode), client_tls(postgres15.certificates)) as driver:
        login = driver.run(backend.connect(target))
    assert login.tls is not None
    assert login.tls.peer_certificate


def test_the_channel_is_bound_at_a_real_server(postgres15: PostgresServer) -> None:
    """The proof covers the certificate: with another one than the server's, the same password is refused."""
    assert postgres15.certificates is not None

    class OtherCertificate(Driver):
        def _handshake(self, required_alpn: str) -> TlsInfo:
            tls = super()._handshake(required_alpn)
            return TlsInfo(tls.version, tls.alpn, "", b"", other)

    other = ssl.PEM_cert_to_DER_cert(postgres15.certificates.ca.read_text())
    target = target_at(postgres15, "app_tls", sslmode="require")
    with socket.create_connection((target.host, target.port), timeout=TIMEOUT) as sock:
        driver = OtherCertificate(sock, tls=client_tls(postgres15.certificates))
        with pytest.raises(ConnectFailed, match="SCRAM channel binding check failed"):
            driver.run(backend.connect(target))
        driver.sock.close()


def test_a_client_certificate(postgres15: PostgresServer) -> None:
    assert postgres15.certificates is not None
    assert postgres15.user_certificate is not None
    context = client_tls(postgres15.certificates)
    context.load_cert_chain(postgres15.user_certificate.cert, postgres15.user_certificate.key)
    with dialled(target := target_at(postgres15, "app_cert", "", sslmode="verify-full"), context) as driver:
        assert driver.run(backend.connect(target)).process_id


def test_a_server_whose_pg_hba_asks_for_tls(postgres15: PostgresServer) -> None:
    with (
        dialled(target := target_at(postgres15, "app_tls")) as driver,
        pytest.raises(ConnectFailed, match=r"pg_hba\.conf rejects") as failure,
    ):
        driver.run(backend.connect(target))
    assert failure.value.sqlstate == "28000"


def test_a_server_without_tls(postgres18: PostgresServer) -> None:
    with dialled(target := target_at(postgres18, sslmode="require")) as driver, pytest.raises(ConnectFailed, match="does not offer TLS"):
        driver.run(backend.connect(target))
    with dialled(target := target_at(postgres18, sslmode="prefer")) as driver:
        assert driver.run(backend.connect(target)).tls is None


def test_what_a_client_proves_logs_in_at_the_server(postgres15: PostgresServer) -> None:
    """Pass-through: dualpool stores the verifier of `pg_authid` only; the client's own login opens the server."""
    ((verifier,),) = postgres15.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    learnt = learnt_from(Account("app", "app", (verifier,)), "app")
    assert learnt.password == ""
    with dialled(target := target_at(postgres15, password="", learnt=learnt)) as driver:
        assert driver.run(backend.connect(target)).process_id


def test_what_a_client_proves_by_md5_logs_in_at_the_server(postgres15: PostgresServer) -> None:
    ((stored,),) = postgres15.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'app_md5'")
    with dialled(target := target_at(postgres15, "app_md5", "", learnt=LearntSecret(stage1=stored.encode()))) as driver:
        assert driver.run(backend.connect(target)).process_id


def learnt_from(account: Account, password: str) -> LearntSecret:
    """What our frontend learns of a client that logs in by SCRAM at our frontend, both ours."""
    client = Play(backend.connect(attrs.evolve(TARGET, user=account.user, database=account.database, password=password)))
    server = Play(frontend.accept(FrontendPolicy()), answers=[account])
    said = client.take()
    while said:
        said = client.feed(server.feed(said))
    assert isinstance(server.result, ClientLogin)
    assert server.result.learnt is not None
    return server.result.learnt


def test_direct_tls_between_our_own_two_sides(postgres15: PostgresServer) -> None:
    certificates = postgres15.certificates
    assert certificates is not None
    own = certificates.issue("localhost", "127.0.0.1")
    certificate = ssl.PEM_cert_to_DER_cert(own.cert.read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.cert, own.key)
    near, far = socket.socketpair()

    def serve() -> None:
        driver = Driver(far, tls=context, server_side=True, certificate=certificate, find=lambda command: Account("app", "app", ("app",)))
        login = driver.run(frontend.accept(FrontendPolicy(tls=True, tls_required=True)))
        assert isinstance(login, ClientLogin)
        driver.sock.sendall(frontend.welcome(login, {}, 7, b"key!"))
        driver.sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        driver = Driver(near, tls=client_tls(certificates))
        login = driver.run(backend.connect(ServerTarget("localhost", 1, "app", "app", "app", sslmode="verify-full", direct_tls=True)))
        driver.sock.close()
    finally:
        thread.join()
    assert login.tls is not None
    assert login.tls.alpn == "postgresql"


# ------------------------------------------------------------------------------------------------------------- between clients

Session = tuple[Driver, ServerRelay]


@pytest.fixture
def session(postgres15: PostgresServer) -> Iterator[Session]:
    """A server connection at rest."""
    with dialled(target := target_at(postgres15)) as driver:
        login = driver.run(backend.connect(target))
        yield driver, ServerRelay(RelayLimits(), dict(login.parameters))


def parse_bind_execute(sql: str) -> bytes:
    parse = wire.message(wire.PARSE, b"\0" + sql.encode() + b"\0\0\0")
    bind = wire.message(wire.BIND, b"\0\0\0\0\0\0\0\0")
    return parse + bind + wire.message(wire.EXECUTE, b"\0\0\0\0\0")


def vanish_after(session: Session, data: bytes, until: Callable[[ServerRelay], bool] | None = None) -> None:
    """A client sends `data`, reads its answers until `until`, and is gone."""
    driver, server = session
    client = ClientRelay(RelayLimits())
    client.attach(server)
    client.on_client_bytes(data)
    driver.sock.sendall(client.to_server)
    while until is not None and not until(server):
        server.on_server_bytes(driver.sock.recv(65536))
    client.detach()


def at_rest(session: Session) -> bool:
    driver, server = session
    driver.run(backend.check(server, "SELECT 1"))
    assert server.to_client == b""
    return server.is_quiet()


def ask(session: Session, sql: str) -> bytes:
    """Run a query as a client would; returns the whole answer."""
    driver, server = session
    client = ClientRelay(RelayLimits())
    client.attach(server)
    client.on_client_bytes(wire.query(sql.encode()))
    driver.sock.sendall(client.to_server)
    answer = b""
    while not server.answered():
        server.on_server_bytes(driver.sock.recv(65536))
        answer += server.to_client
        driver.sock.sendall(server.to_server)
        server.to_server = b""
    client.detach()
    return answer


def value_of(answer: bytes) -> bytes:
    """The only value of an answer."""
    start = answer.index(b"D", 5 + wire.INT32.unpack_from(answer, 1)[0] - 4)
    size = wire.INT32.unpack_from(answer, start + 7)[0]
    return answer[start + 11 : start + 11 + size]


ROWS = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        wire.query(b"BEGIN"),
        wire.query(b"BEGIN; SELECT 1/0"),
        wire.query(b"BEGIN") + wire.query(ROWS.encode()) + wire.query(b"SAVEPOINT a"),
        wire.query(ROWS.encode()),
        wire.query(b"COPY (" + ROWS.encode() + b") TO STDOUT"),
        wire.query(b"CREATE TEMP TABLE t (a int); COPY t FROM STDIN; SELECT 1"),
        wire.query(b"BEGIN; CREATE TEMP TABLE t (a int); COPY t FROM STDIN"),
        parse_bind_execute("SELECT 1"),
        parse_bind_execute("SELECT 1") + wire.FLUSH_MESSAGE,
        parse_bind_execute("BEGIN") + wire.SYNC_MESSAGE + parse_bind_execute(ROWS),
        parse_bind_execute("SELECT 1/0") + parse_bind_execute("SELECT 2"),
        parse_bind_execute("SELECT 1/0") + wire.SYNC_MESSAGE + wire.query(b"SELECT 1"),
        wire.message(wire.PARSE, b"\0SELEC\0\0\0"),
    ],
)
def test_a_session_recovers_from_a_client_that_vanishes(session: Session, data: bytes) -> None:
    vanish_after(session, data)
    driver, server = session
    driver.run(backend.recover(server))
    assert server.answered()
    assert not server.in_transaction
    if server.dirty:
        driver.run(backend.reset(server))
    assert at_rest(session)
    assert b"\x00\x01" in ask(session, "SELECT 1")


def test_a_copy_by_extended_query_without_sync_recovers(session: Session) -> None:
    assert b"CREATE TABLE" in ask(session, "CREATE TEMP TABLE t (a int)")
    vanish_after(session, parse_bind_execute("COPY t FROM STDIN") + wire.FLUSH_MESSAGE, until=lambda server: server.copying_in)
    driver, server = session
    driver.run(backend.recover(server))
    driver.run(backend.reset(server))
    assert at_rest(session)


def test_a_copy_by_extended_query_whose_sync_was_ignored_recovers(session: Session) -> None:
    assert b"CREATE TABLE" in ask(session, "CREATE TEMP TABLE t (a int)")
    vanish_after(session, parse_bind_execute("COPY t FROM STDIN") + wire.SYNC_MESSAGE)
    driver, server = session
    driver.run(backend.recover(server))
    driver.run(backend.reset(server))
    assert at_rest(session)


def test_half_a_message_costs_the_connection(session: Session) -> None:
    driver, server = session
    vanish_after(session, wire.query(b"COPY (SELECT 1) TO STDOUT"))
    server.unfinished = True
    with pytest.raises(ServerLost, match="in the middle of a message"):
        driver.run(backend.recover(server))


def test_a_session_that_the_server_ended(session: Session, postgres15: PostgresServer) -> None:
    driver, server = session
    pid = value_of(ask(session, "SELECT pg_backend_pid()"))
    postgres15.execute("SELECT pg_terminate_backend(%s, 5000)", int(pid))
    with pytest.raises(ServerLost, match=r"ended the session|closed the connection"):
        driver.run(backend.check(server, ""))


def test_a_reset_takes_everything_back(session: Session) -> None:
    ask(session, "SET TimeZone = 'Asia/Tokyo'; CREATE TEMP TABLE t (a int); PREPARE p AS SELECT 1; SELECT pg_advisory_lock(1)")
    driver, server = session
    server.dirty = True
    driver.run(backend.reset(server))
    assert not server.dirty
    assert at_rest(session)
    assert b"Asia/Tokyo" not in ask(session, "SHOW TimeZone")
    assert b"42P01" in ask(session, "SELECT * FROM t")
    assert b"26000" in ask(session, "EXECUTE p")
    assert b"\x00\x00\x00\x010" in ask(session, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")


def test_a_reset_inside_a_transaction_costs_the_connection(session: Session) -> None:
    ask(session, "BEGIN")
    driver, server = session
    with pytest.raises(ServerLost, match=r"DISCARD ALL failed at the server \(25001\)"):
        driver.run(backend.reset(server))


@pytest.mark.parametrize("query", ["", "SELECT 1", "SELECT repeat('x', 300000)", "-- nothing", "SHOW TimeZone"])
def test_a_check(session: Session, query: str) -> None:
    driver, server = session
    driver.run(backend.check(server, query))
    assert server.is_quiet()
    assert server.to_client == b""


def test_a_check_that_fails(session: Session) -> None:
    driver, server = session
    with pytest.raises(ServerLost, match=r'SELEC 1 failed at the server \(42601\): syntax error at or near "SELEC"'):
        driver.run(backend.check(server, "SELEC 1"))
    driver.run(backend.check(server, "SELECT 1"))


def test_settings_are_proven(session: Session) -> None:
    driver, server = session
    wanted = start_settings({"TimeZone": "Asia/Tokyo"})
    assert driver.run(backend.prove(server, wanted))["TimeZone"] == "Asia/Tokyo"
    assert server.settings is wanted
    with pytest.raises(LoginFailed) as failure:
        driver.run(backend.prove(server, start_settings({"work_mem": "much"})))
    assert failure.value.sqlstate == "22023"
    assert at_rest(session)


def test_the_servers_capacity_is_what_ordinary_users_may_have(session: Session, postgres15: PostgresServer) -> None:
    ((allowed,),) = postgres15.execute(
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    )
    driver, _ = session
    assert driver.run(backend.capacity()) == allowed
    assert at_rest(session)


def test_a_server_that_closes_between_clients() -> None:
    play = Play(backend.check(ServerRelay(RelayLimits(), dict(LEXICAL)), ""))
    play.hang_up()
    assert isinstance(play.error, ServerLost)
    for exchange in (backend.reset, backend.recover):
        relay = ServerRelay(RelayLimits(), dict(LEXICAL))
        relay.in_transaction = True
        play = Play(exchange(relay))
        play.feed(b"!\0\0\0\x04")
        assert isinstance(play.error, ServerLost)
