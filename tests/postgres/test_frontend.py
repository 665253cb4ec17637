"""A client's login: transcripts of every path, hostile bytes, and at the end real libpq clients."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpool.accounts import Account, CancelRequest, ClientLogin, FrontendPolicy, LearntSecret
from dualpool.errors import CheckoutTimeout, DualpoolError, LoginFailed, RemoteProtocolError
from dualpool.postgres import auth, frontend, messages, wire
from dualpool.protocol import ConnectionClosed, FindAccount, Peek, Receive, Send, StartTls, TlsInfo
from tests.helpers.blocking import TIMEOUT, Driver
from tests.helpers.playbook import Play, Step, check, every_end, fails, finds, hangs_up, reads, returns, sends, starts_tls

PLAIN = FrontendPolicy()
TLS = FrontendPolicy(tls=True)
TLS_ONLY = FrontendPolicy(tls=True, tls_required=True)
TRUSTED = Account("u", "d", method="trust")
STARTUP = messages.startup({"user": "u", "database": "d"})
SSL = messages.request(wire.SSL_REQUEST)
GSS = messages.request(wire.GSSENC_REQUEST)
DECOY = Account("u", "d", decoy=True)


def fatal(message: str, sqlstate: str = "08P01", hint: str = "") -> Step:
    return sends(messages.error_message(RemoteProtocolError(message, sqlstate=sqlstate, hint=hint)))


def refuses(message: str, sqlstate: str = "08P01", hint: str = "", kind: type[Exception] = RemoteProtocolError) -> list[Step]:
    return [fatal(message, sqlstate, hint), fails(kind, message, sqlstate)]


def login_with(account: Account, startup: bytes = STARTUP, policy: FrontendPolicy = PLAIN) -> Play[ClientLogin | CancelRequest]:
    """A login up to the first message of the authentication."""
    play = Play(frontend.accept(policy), answers=[account])
    play.feed(startup)
    return play


def logged_in(startup: bytes) -> ClientLogin:
    play = Play(frontend.accept(PLAIN), answers=[TRUSTED])
    play.feed(startup)
    assert isinstance(play.result, ClientLogin), play.transcript
    return play.result


# -------------------------------------------------------------------------------------------------------------------- start-up


def test_a_trusted_client_needs_one_packet() -> None:
    play = check(frontend.accept(PLAIN), [reads(STARTUP), finds(TRUSTED), returns()])
    assert play.result == ClientLogin(TRUSTED, {}, None, None, wire.PROTOCOL_3_0)


def test_tls_is_offered_and_used() -> None:
    tls = TlsInfo("TLSv1.3", "", "", b"", b"")
    play = check(frontend.accept(TLS), [reads(SSL), sends(b"S"), starts_tls(tls), reads(STARTUP), finds(TRUSTED), returns()])
    assert isinstance(play.result, ClientLogin)
    assert play.result.tls is tls


@pytest.mark.parametrize("policy", [PLAIN, FrontendPolicy(tls=True, tls_required=True, unix_socket=True)])
def test_without_tls_the_client_may_go_on_in_plain_text(policy: FrontendPolicy) -> None:
    check(frontend.accept(policy), [reads(SSL), sends(b"N"), reads(STARTUP), finds(TRUSTED), returns()])


def test_libpqs_whole_dance_of_requests() -> None:
    check(frontend.accept(PLAIN), [reads(GSS), sends(b"N"), reads(SSL), sends(b"N"), reads(STARTUP), finds(TRUSTED), returns()])


def test_direct_tls_must_name_the_protocol() -> None:
    play = Play(frontend.accept(TLS))
    play.feed(b"\x16\x03\x01")
    assert isinstance(play.waiting_for, StartTls)
    assert play.waiting_for.required_alpn == "postgresql"
    assert play.unread == b"\x16\x03\x01", "the handshake's own bytes must stay for the handshake"


def test_direct_tls_without_a_certificate_is_closed_without_a_word() -> None:
    error = fails(frontend.TlsRefused, "the client started TLS at once, but this listener has no certificate", "08P01")
    check(frontend.accept(PLAIN), [reads(b"\x16\x03\x01"), error])


def test_a_failed_handshake_gets_no_plain_text_answer() -> None:
    failure = RemoteProtocolError("bad certificate")
    check(
        frontend.accept(TLS),
        [reads(SSL), sends(b"S"), starts_tls(failure), fails(frontend.TlsRefused, "bad certificate", "08P01")],
    )


def test_plain_text_behind_the_ssl_request_is_left_to_the_handshake() -> None:
    play = Play(frontend.accept(TLS))
    assert play.feed(SSL + STARTUP) == b"S"
    assert isinstance(play.waiting_for, StartTls)
    assert play.unread == STARTUP


@pytest.mark.parametrize(("request_", "number"), [(SSL, "1234.5679"), (GSS, "1234.5680")])
def test_a_second_request_for_encryption_is_an_error(request_: bytes, number: str) -> None:
    refusal = refuses(f"unsupported frontend protocol {number}: dualpool supports 3.0 to 3.2", "0A000")
    check(frontend.accept(PLAIN), [reads(request_), sends(b"N"), reads(request_), *refusal])
    check(frontend.accept(TLS), [reads(SSL), sends(b"S"), starts_tls(), reads(request_), *refusal])


def test_tls_required() -> None:
    check(
        frontend.accept(TLS_ONLY),
        [
            reads(STARTUP),
            *refuses("this listener accepts only connections with TLS", "28000", "connect with sslmode=require", LoginFailed),
        ],
    )
    check(frontend.accept(TLS_ONLY), [reads(SSL), sends(b"S"), starts_tls(), reads(STARTUP), finds(TRUSTED), returns()])


@pytest.mark.parametrize(
    ("packet", "message", "sqlstate"),
    [
        (b"\0\0\0\x04", "invalid length of startup packet: 4 is not within 8 and 10000", "08P01"),
        (b"\0\0\0\x07", "invalid length of startup packet: 7 is not within 8 and 10000", "08P01"),
        (b"\0\0\x27\x11", "invalid length of startup packet: 10001 is not within 8 and 10000", "08P01"),
        (b"\xff\xff\xff\xff", "invalid length of startup packet: 4294967295 is not within 8 and 10000", "08P01"),
        (b"GET / HTTP/1.1\r\n\r\n", "this is a PostgreSQL port, and the client speaks HTTP", "08P01"),
        (b"POST / HTTP/1.1\r\n\r\n", "this is a PostgreSQL port, and the client speaks HTTP", "08P01"),
        (messages.request(2 << 16), "unsupported frontend protocol 2.0: dualpool supports 3.0 to 3.2", "0A000"),
        (messages.request(4 << 16), "unsupported frontend protocol 4.0: dualpool supports 3.0 to 3.2", "0A000"),
        (messages.request(wire.SSL_REQUEST, b"more"), "an encryption request has 8 bytes, not 12", "08P01"),
        (messages.request(wire.GSSENC_REQUEST, b"x"), "an encryption request has 8 bytes, not 9", "08P01"),
        (messages.request(wire.CANCEL_REQUEST), "invalid length of cancel request", "08P01"),
        (messages.cancel_request(1, b""), "invalid length of cancel request", "08P01"),
        (messages.cancel_request(1, b"k" * 257), "invalid length of cancel request", "08P01"),
        (
            messages.request(wire.PROTOCOL_3_0, b"user\0u\0"),
            "invalid startup packet layout: expected name and value pairs and a terminator as last byte",
            "08P01",
        ),
    ],
)
def test_a_broken_start_is_answered_and_closed(packet: bytes, message: str, sqlstate: str) -> None:
    check(frontend.accept(PLAIN), [reads(packet), *refuses(message, sqlstate)])


def test_tls_after_a_refused_request_is_closed_without_a_word() -> None:
    play = Play(frontend.accept(PLAIN))
    play.feed(SSL)
    assert play.feed(b"\x16\x03\x01\x02\0") == b""
    assert isinstance(play.error, RemoteProtocolError)


def test_a_packet_of_exactly_the_allowed_size() -> None:
    filler = "x" * (10_000 - len(messages.startup({"user": "u", "database": "d", "application_name": ""})))
    assert logged_in(messages.startup({"user": "u", "database": "d", "application_name": filler})).parameters == {
        "application_name": filler
    }


@pytest.mark.parametrize("size", [1, 4, 32, 256])
def test_a_cancel_request_with_any_key_length(size: int) -> None:
    for script in ([], [reads(SSL), sends(b"S"), starts_tls()]):
        play = check(frontend.accept(TLS_ONLY), [*script, reads(messages.cancel_request(77, b"k" * size)), returns()])
        assert play.result == CancelRequest(77, b"k" * size)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [((3, 0), None), ((3, 2), None), ((3, 1), (3, 0)), ((3, 3), (3, 2)), ((3, 9999), (3, 2)), ((3, 65535), (3, 2))],
)
def test_the_version_is_negotiated(asked: tuple[int, int], answered: tuple[int, int] | None) -> None:
    play = Play(frontend.accept(PLAIN), answers=[TRUSTED])
    sent = play.feed(messages.startup({"user": "u"}, asked[0] << 16 | asked[1]))
    used = answered or asked
    assert sent == (messages.negotiate_version(used[0] << 16 | used[1], []) if answered else b"")
    assert isinstance(play.result, ClientLogin)
    assert play.result.protocol_version == used[0] << 16 | used[1]


def test_unknown_protocol_options_are_named_and_dropped() -> None:
    startup = messages.startup({"user": "u", "_pq_.command_tag": "1", "_pq_.test_protocol_negotiation": "", "TimeZone": "UTC"})
    names = ["_pq_.command_tag", "_pq_.test_protocol_negotiation"]
    play = check(
        frontend.accept(PLAIN),
        [
            reads(startup),
            sends(messages.negotiate_version(wire.PROTOCOL_3_0, names)),
            finds(TRUSTED, {"TimeZone": "UTC"}, database="u"),
            returns(),
        ],
    )
    assert isinstance(play.result, ClientLogin)
    assert play.result.parameters == {"TimeZone": "UTC"}


@pytest.mark.parametrize("parameters", [{}, {"user": ""}, {"database": "d"}])
def test_a_user_is_needed(parameters: dict[str, str]) -> None:
    message = "no PostgreSQL user name specified in startup packet"
    check(frontend.accept(PLAIN), [reads(messages.startup(parameters)), *refuses(message, "28000", kind=LoginFailed)])


@pytest.mark.parametrize("database", [{}, {"database": ""}])
def test_the_database_defaults_to_the_user(database: dict[str, str]) -> None:
    account = Account("u", "u", method="trust")
    check(frontend.accept(PLAIN), [reads(messages.startup({"user": "u"} | database)), finds(account), returns()])


def test_what_is_for_the_client_alone_is_dropped() -> None:
    url = {"pgbouncer": "true", "connection_limit": "3", "pool_timeout": "30", "connect_timeout": "10", "sslmode": "require", "schema": "s"}
    assert logged_in(messages.startup({"user": "u", "DateStyle": "ISO"} | url)).parameters == {"DateStyle": "ISO"}


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ("", {}),
        ("  ", {}),
        ("-c geqo=off", {"geqo": "off"}),
        ("-cgeqo=off --search-path=a,b", {"geqo": "off", "search_path": "a,b"}),
        (" -c  geqo=off\t-c\nwork_mem=1MB ", {"geqo": "off", "work_mem": "1MB"}),
        (r"-c search_path=a\ b\\c", {"search_path": r"a b\c"}),
        ("-c a=b=c", {"a": "b=c"}),
        ("-c a=", {"a": ""}),
        ("-c my.setting=1", {"my.setting": "1"}),
        ("-c a=1 -c a=2", {"a": "2"}),
    ],
)
def test_options_are_split_as_the_server_splits_them(options: str, parameters: dict[str, str]) -> None:
    assert logged_in(messages.startup({"user": "u", "options": options})).parameters == parameters


@pytest.mark.parametrize("options", ["-c", "-c geqo", "-c =on", "-S 64", "geqo=off", "--", "-x -y"])
def test_other_options_are_refused(options: str) -> None:
    play = Play(frontend.accept(PLAIN))
    play.feed(messages.startup({"user": "u", "options": options}))
    assert isinstance(play.error, LoginFailed)
    assert play.error.sqlstate == "42601"


def test_a_parameter_wins_over_the_same_in_options() -> None:
    startup = messages.startup({"user": "u", "TimeZone": "UTC", "options": "-c TimeZone=CET"})
    assert logged_in(startup).parameters == {"TimeZone": "UTC"}


TENANTS = [("endpoint=ep-1", {"endpoint": "ep-1"}), ("reference=abc", {"reference": "abc"}), ("project=p", {"project": "p"})]


@pytest.mark.parametrize(("options", "found"), TENANTS)
def test_tenants_in_options_are_for_finding_the_account_only(options: str, found: dict[str, str]) -> None:
    startup = messages.startup({"user": "u", "database": "d", "options": f"{options} -c geqo=off"})
    play = check(frontend.accept(PLAIN), [reads(startup), finds(TRUSTED, {"geqo": "off"} | found), returns()])
    assert isinstance(play.result, ClientLogin)
    assert play.result.parameters == {"geqo": "off"}


@pytest.mark.parametrize(
    ("value", "replication"),
    [
        ("true", True),
        ("on", True),
        ("yes", True),
        ("1", True),
        ("T", True),
        ("database", True),
        ("off", False),
        ("false", False),
        ("0", False),
    ],
)
def test_replication_is_told(value: str, replication: bool) -> None:
    login = logged_in(messages.startup({"user": "u", "replication": value}))
    assert login.replication is replication
    assert login.parameters == ({"replication": value} if replication else {})


@pytest.mark.parametrize("value", ["", "o", "maybe", "2"])
def test_an_unknown_kind_of_replication_is_refused(value: str) -> None:
    play = Play(frontend.accept(PLAIN))
    play.feed(messages.startup({"user": "u", "replication": value}))
    assert isinstance(play.error, LoginFailed)
    assert play.error.sqlstate == "22023"


def test_an_error_while_finding_the_account_is_told() -> None:
    error = CheckoutTimeout("the backend does not answer")
    unfound = finds(error, user="u", database="d")
    check(
        frontend.accept(PLAIN),
        [reads(STARTUP), unfound, sends(messages.error_message(error)), fails(CheckoutTimeout, "the backend does not answer", "53300")],
    )


def test_a_client_that_does_not_wait_for_the_refusal() -> None:
    exchange = frontend.accept(PLAIN)
    assert isinstance(next(exchange), Peek)
    assert isinstance(exchange.send(b"\0"), Receive)
    assert isinstance(exchange.send(b"\0\0\0\x04"), Send)
    with pytest.raises(RemoteProtocolError):
        exchange.throw(ConnectionClosed())


def test_no_secret_of_an_account_shows_in_its_repr() -> None:
    assert PASSWORD not in repr(Account("u", "d", (PASSWORD,)))


def test_a_port_scan_is_no_protocol_error() -> None:
    check(frontend.accept(PLAIN), [hangs_up(), fails(ConnectionClosed)])


# -------------------------------------------------------------------------------------------------------------- authentication

WRONG = messages.error_message(LoginFailed('password authentication failed for user "u"'))
PASSWORD = "pencil"
KEYS = auth.derive(PASSWORD.encode(), b"0123456789abcdef", 4096)
VERIFIER = auth.Verifier(b"0123456789abcdef", 4096, KEYS.stored_key, KEYS.server_key)
MD5 = auth.md5_hash(PASSWORD.encode(), b"u")


def answer_clear_text(play: Play[ClientLogin | CancelRequest], password: str) -> None:
    play.feed(messages.password(messages.raw(password)))


def answer_md5(play: Play[ClientLogin | CancelRequest], password: str) -> None:
    salt = login_request(play, messages.AUTH_MD5)
    play.feed(messages.password(auth.md5_response(auth.md5_hash(messages.raw(password), b"u"), salt)))


def login_request(play: Play[ClientLogin | CancelRequest], kind: int) -> bytes:
    """The data of the AuthenticationX message that the client has just been sent."""
    sent = play.take()
    assert sent[:1] == b"R"
    assert wire.INT32.unpack_from(sent, 1)[0] == len(sent) - 1
    assert wire.INT32.unpack_from(sent, 5)[0] == kind
    return sent[9:]


def answer_scram(
    play: Play[ClientLogin | CancelRequest], password: str, mechanism: str = auth.SCRAM, header: bytes = b"n,,", binding: bytes = b""
) -> bytes:
    """Log in as a client does; returns what it is sent at the end. On success the server's proof has been checked."""
    assert mechanism in messages.parse_sasl(login_request(play, messages.AUTH_SASL))
    client = auth.ScramClient(header, binding)
    server_first = play.feed(messages.sasl_initial(mechanism, client.first()))
    client.on_server_first(server_first[9:])
    keys = auth.derive(messages.raw(password), client.salt, client.iterations)
    final = play.feed(messages.sasl_response(client.final(keys)))
    if play.error is None:
        client.on_server_final(final[9:])
    return final


def fed_login(account: Account, policy: FrontendPolicy = PLAIN, startup: bytes = STARTUP) -> Play[ClientLogin | CancelRequest]:
    play = Play(frontend.accept(policy), answers=[account])
    play._sent = play.feed(startup)
    return play


METHODS: dict[str, Callable[[Play[ClientLogin | CancelRequest], str], object]] = {
    "password": answer_clear_text,
    "md5": answer_md5,
    "scram-sha-256": answer_scram,
}


@pytest.mark.parametrize(
    ("method", "secrets", "asked"),
    [
        ("password", (PASSWORD,), "password"),
        ("password", (MD5,), "password"),
        ("password", (str(VERIFIER),), "password"),
        ("password", ("other", MD5, str(VERIFIER)), "password"),
        ("md5", (PASSWORD,), "md5"),
        ("md5", (MD5,), "md5"),
        ("md5", ("other", PASSWORD), "md5"),
        ("md5", (str(VERIFIER), MD5), "md5"),
        ("md5", (str(VERIFIER),), "scram-sha-256"),
        ("scram-sha-256", (PASSWORD,), "scram-sha-256"),
        ("scram-sha-256", (str(VERIFIER),), "scram-sha-256"),
        ("scram-sha-256", ("other", PASSWORD), "scram-sha-256"),
        ("scram-sha-256", (str(VERIFIER), "other"), "scram-sha-256"),
        ("auto", (PASSWORD,), "scram-sha-256"),
        ("auto", (str(VERIFIER),), "scram-sha-256"),
        ("auto", (MD5,), "md5"),
        ("auto", (MD5, PASSWORD), "scram-sha-256"),
    ],
)
def test_a_method_with_what_is_stored(method: str, secrets: tuple[str, ...], asked: str) -> None:
    account = Account("u", "d", secrets, method)  # type: ignore[arg-type]
    right = fed_login(account)
    METHODS[asked](right, PASSWORD)
    assert isinstance(right.result, ClientLogin), right.transcript
    for guess in ("wrong", PASSWORD + " ", secrets[0] if secrets[0] not in (PASSWORD, "other") else "p"):
        wrong = fed_login(account)
        METHODS[asked](wrong, guess)
        assert isinstance(wrong.error, LoginFailed), wrong.transcript
        assert f"sends {WRONG!r}" in wrong.transcript


@pytest.mark.parametrize("secrets", [(PASSWORD, "second"), (str(VERIFIER), "second"), (MD5, "second", PASSWORD)])
@pytest.mark.parametrize("method", ["password", "scram-sha-256"])
def test_while_a_password_is_rotated_both_let_in(method: str, secrets: tuple[str, ...]) -> None:
    for password in (PASSWORD, "second"):
        play = fed_login(Account("u", "d", secrets, method))  # type: ignore[arg-type]
        METHODS[method](play, password)
        assert isinstance(play.result, ClientLogin), play.transcript


@pytest.mark.parametrize(
    ("method", "secret", "learnt"),
    [
        ("password", PASSWORD, LearntSecret(password=PASSWORD)),
        ("password", str(VERIFIER), LearntSecret(password=PASSWORD)),
        ("md5", PASSWORD, LearntSecret(password=PASSWORD)),
        ("md5", MD5, LearntSecret(stage1=MD5.encode())),
        ("scram-sha-256", PASSWORD, LearntSecret(password=PASSWORD)),
        ("scram-sha-256", str(VERIFIER), LearntSecret(scram_client_key=KEYS.client_key, scram_server_key=KEYS.server_key)),
    ],
)
def test_what_a_login_reveals(method: str, secret: str, learnt: LearntSecret) -> None:
    play = fed_login(Account("u", "d", (secret,), method))  # type: ignore[arg-type]
    METHODS[method](play, PASSWORD)
    assert isinstance(play.result, ClientLogin)
    assert play.result.learnt == learnt


def test_a_configured_password_is_hashed_once() -> None:
    offloaded = []
    for _ in range(3):
        play = fed_login(Account("u", "d", ("hashed once",)))
        answer_scram(play, "hashed once")
        offloaded.append(play.offloaded)
    assert offloaded == [1, 0, 0]


@pytest.mark.parametrize("method", ["auto", "scram-sha-256", "password", "md5"])
def test_an_unknown_user_cannot_be_told_from_a_wrong_password(method: str) -> None:
    """The same messages, the same lengths, the same work."""
    traces = []
    for account in (Account("u", "d", (PASSWORD,), method), Account("u", "d", (), method, decoy=True), Account("u", "d", (), method)):  # type: ignore[arg-type]
        for _ in range(2):  # the first time, what is configured is hashed
            play = fed_login(account)
            METHODS["scram-sha-256" if method == "auto" else method](play, "wrong")
        traces.append(([len(line) for line in play.transcript if not line.startswith("finds")], play.offloaded, str(play.error)))
    assert traces[0][1:] == traces[1][1:] == traces[2][1:]
    assert len(traces[0][0]) == len(traces[1][0]) == len(traces[2][0])


def test_a_user_is_told_the_same_salt_each_time_known_or_not() -> None:
    def told(account: Account) -> bytes:
        play = fed_login(account)
        login_request(play, messages.AUTH_SASL)
        client = auth.ScramClient(b"n,,")
        client.on_server_first(play.feed(messages.sasl_initial(auth.SCRAM, client.first()))[9:])
        return client.salt

    assert told(DECOY) == told(DECOY) == told(Account("u", "d", (PASSWORD,)))


def test_a_decoy_fails_with_any_secret() -> None:
    for method in ("password", "md5", "scram-sha-256"):
        play = fed_login(Account("u", "d", (PASSWORD,), method, decoy=True))
        METHODS[method](play, PASSWORD) if method != "scram-sha-256" else refused_scram(play)
        assert isinstance(play.error, LoginFailed)


def refused_scram(play: Play[ClientLogin | CancelRequest]) -> None:
    with pytest.raises(AssertionError):
        answer_scram(play, PASSWORD)
        raise AssertionError


def test_trust_does_not_extend_to_what_does_not_exist() -> None:
    account = Account("u", "d", method="trust", decoy=True)
    refusal = refuses('user "u" may not log in to database "d"', "28000", "Check both names.", LoginFailed)
    check(frontend.accept(PLAIN), [reads(STARTUP), finds(account), *refusal])


def test_an_empty_password_never_fits() -> None:
    for secrets in ((PASSWORD,), ("",)):
        play = fed_login(Account("u", "d", secrets, "password"))
        answer_clear_text(play, "")
        assert isinstance(play.error, LoginFailed)


def test_a_client_that_has_to_ask_for_the_password_first_hangs_up() -> None:
    play = fed_login(Account("u", "d", (PASSWORD,)))
    play.hang_up()
    assert isinstance(play.error, ConnectionClosed)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"Q\0\0\0\x0dselect 1\0", "expected a password message, got message type 'Q'"),
        (b"X\0\0\0\x04", "expected a password message, got message type 'X'"),
        (b"p\xff\xff\xff\xff", "invalid password message length 4294967295"),
        (b"p\x7f\xff\xff\xff", "invalid password message length 2147483647"),
        (b"p\0\x01\0\x04", "invalid password message length 65540"),
        (b"p\0\0\0\x03", "invalid password message length 3"),
        (b"p\0\0\0\x04", "invalid password packet size"),
        (b"p\0\0\0\x06pw", "invalid password packet size"),
        (b"p\0\0\0\x09pw\0\0\0", "invalid password packet size"),
    ],
)
def test_a_broken_password_message(answer: bytes, why: str) -> None:
    play = fed_login(Account("u", "d", (PASSWORD,), "password"))
    play.take()
    assert play.feed(answer) == messages.error_message(RemoteProtocolError(why))
    assert isinstance(play.error, RemoteProtocolError)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (messages.sasl_initial("SCRAM-SHA-1", b"n,,n=,r=a"), "invalid SASL authentication mechanism"),
        (messages.sasl_initial("SCRAM-SHA-256-PLUS", b"n,,n=,r=a"), "invalid SASL authentication mechanism"),
        (messages.sasl_response(b"n,,n=,r=a"), "malformed SASLInitialResponse"),
        (b"p\xff\xff\xff\xff", "invalid password message length"),
        (b"p\x7f\xff\xff\xff", "invalid password message length"),
        (wire.message(wire.PASSWORD, b"x" * 1025), "invalid password message length"),
        (b"p\0\0\0\x04", "malformed SASLInitialResponse"),
        (messages.sasl_initial("SCRAM-SHA-256", b"junk"), "malformed SCRAM message"),
    ],
)
def test_a_broken_scram_message(answer: bytes, why: str) -> None:
    play = fed_login(Account("u", "d", (PASSWORD,)))
    play.take()
    sent = play.feed(answer)
    assert isinstance(play.error, RemoteProtocolError)
    assert why in play.error.message
    assert sent == messages.error_message(play.error)


# -------------------------------------------------------------------------------------------------------- TLS and certificates

AUTHORITY = trustme.CA()
SERVER = AUTHORITY.issue_cert("localhost", common_name="localhost")


def der(issued: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def over_tls(account: Account, tls: TlsInfo, policy: FrontendPolicy = TLS) -> Play[ClientLogin | CancelRequest]:
    play = Play(frontend.accept(policy), answers=[tls, account])
    assert play.feed(SSL) == b"S"
    play._sent = play.feed(STARTUP)
    return play


SERVER_TLS = TlsInfo("TLSv1.3", "", "", der(SERVER), b"")


def test_channel_binding_is_offered_on_tls() -> None:
    account = Account("u", "d", (PASSWORD,))
    play = over_tls(account, SERVER_TLS)
    answer_scram(play, PASSWORD, auth.SCRAM_PLUS, auth.END_POINT, auth.end_point(der(SERVER)))
    assert isinstance(play.result, ClientLogin)
    play = over_tls(account, SERVER_TLS)
    answer_scram(play, PASSWORD)
    assert isinstance(play.result, ClientLogin), "a client that cannot bind may come in without"


def test_a_man_in_the_middle_is_found_out() -> None:
    play = over_tls(Account("u", "d", (PASSWORD,)), SERVER_TLS)
    other = der(AUTHORITY.issue_cert("localhost"))
    answer_scram(play, PASSWORD, auth.SCRAM_PLUS, auth.END_POINT, auth.end_point(other))
    assert isinstance(play.error, RemoteProtocolError)
    assert play.error.message == "SCRAM channel binding check failed"


def test_channel_binding_is_not_offered_where_it_cannot_be() -> None:
    for play in (fed_login(Account("u", "d", (PASSWORD,))), over_tls(Account("u", "d", (PASSWORD,)), TlsInfo("TLSv1.3", "", "", b"", b""))):
        assert messages.parse_sasl(login_request(play, messages.AUTH_SASL)) == [auth.SCRAM]


WITH_CLIENT_CA = FrontendPolicy(tls=True, client_certificates=True)


@pytest.mark.parametrize("account", [Account("u", "d", method="cert"), Account("u", "d")])
def test_a_certificate_lets_in_who_it_names(account: Account) -> None:
    mine, other = (TlsInfo("TLSv1.3", "", "", der(SERVER), der(AUTHORITY.issue_cert("x", common_name=name))) for name in ("u", "other"))
    assert isinstance(over_tls(account, mine, WITH_CLIENT_CA).result, ClientLogin)
    failure = over_tls(account, other, WITH_CLIENT_CA).error
    assert isinstance(failure, LoginFailed)
    assert failure.sqlstate == "28000"
    assert failure.message == 'certificate authentication failed for user "u"'


def test_the_method_cert_needs_a_certificate_and_a_user() -> None:
    mine = TlsInfo("TLSv1.3", "", "", der(SERVER), der(AUTHORITY.issue_cert("x", common_name="u")))
    for play in (
        fed_login(Account("u", "d", method="cert")),
        over_tls(Account("u", "d", method="cert"), SERVER_TLS),
        over_tls(Account("u", "d", method="cert", decoy=True), mine, WITH_CLIENT_CA),
    ):
        assert isinstance(play.error, LoginFailed)
        assert play.error.sqlstate == "28000"


def test_a_certificate_does_not_open_an_account_with_a_password() -> None:
    mine = TlsInfo("TLSv1.3", "", "", der(SERVER), der(AUTHORITY.issue_cert("x", common_name="u")))
    play = over_tls(Account("u", "d", (PASSWORD,)), mine, WITH_CLIENT_CA)
    assert not play.done


# --------------------------------------------------------------------------------------------------------- welcome, hostile bytes


def test_welcome_says_everything_at_once() -> None:
    old, new = (ClientLogin(TRUSTED, {}, None, None, version) for version in (wire.PROTOCOL_3_0, wire.PROTOCOL_3_2))
    said = frontend.welcome(old, {"server_version": "15.0"}, 7, b"k" * 32)
    assert said == b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0015.0\0K\0\0\0\x0c\0\0\0\x07kkkkZ\0\0\0\x05I"
    assert messages.backend_key(7, b"k" * 32) in frontend.welcome(new, {}, 7, b"k" * 32)


def test_a_client_may_vanish_at_every_byte() -> None:
    secret = Account("u", "d", (PASSWORD,), "password")
    every_end(lambda: frontend.accept(PLAIN), GSS + SSL + STARTUP + messages.password(b"pencil"), [secret])
    every_end(lambda: frontend.accept(PLAIN), STARTUP + messages.sasl_initial(auth.SCRAM, b"n,,n=,r=abc"), [Account("u", "d", (PASSWORD,))])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda body: messages.request(wire.PROTOCOL_3_0, body + b"\0"))))
def test_garbage_ends_in_an_answer(data: bytes) -> None:
    play = Play(frontend.accept(PLAIN), answers=[Account("u", "d", (PASSWORD,))])
    play.feed(data)
    play.hang_up()
    assert play.done
    assert play.error is None or isinstance(play.error, (DualpoolError, ConnectionClosed))


# ------------------------------------------------------------------------------------------------------------------ real clients


def server_context(client_ca: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    SERVER.configure_cert(context)
    if client_ca:
        AUTHORITY.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


@contextmanager
def acceptor(
    account: Account, policy: FrontendPolicy = PLAIN, listener: socket.socket | None = None
) -> Iterator[tuple[int, "Future[ClientLogin | CancelRequest]"]]:
    """Accepts one client, tells it that it is in if it is, and closes. Yields the port and the outcome. `listener`: where."""
    outcome: Future[ClientLogin | CancelRequest] = Future()

    listening = listener or socket.create_server(("127.0.0.1", 0))
    listening.settimeout(TIMEOUT)

    def serve() -> None:
        sock, _ = listening.accept()
        with sock:
            context = server_context(policy.client_certificates) if policy.tls else None
            driver = Driver(sock, tls=context, server_side=True, certificate=der(SERVER), find=find)
            try:
                login = driver.run(frontend.accept(policy))
                if isinstance(login, ClientLogin):
                    driver.sock.sendall(frontend.welcome(login, {"client_encoding": "UTF8", "server_version": "15.0"}, 42, b"key!" * 8))
                outcome.set_result(login)
            except Exception as error:
                outcome.set_exception(error)
            finally:
                driver.sock.close()

    def find(command: FindAccount) -> Account:
        return account

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1], outcome
    finally:
        thread.join()
        if listener is None:
            listening.close()


def libpq(port: int, **more: str) -> psycopg.Connection:
    settings: dict[str, str | int] = {
        "host": "127.0.0.1",
        "port": port,
        "user": "u",
        "password": PASSWORD,
        "dbname": "d",
        "gssencmode": "disable",
    }
    connection = psycopg.connect(psycopg.conninfo.make_conninfo("", **(settings | more)))
    assert connection.info.backend_pid == 42
    assert connection.info.parameter_status("server_version") == "15.0"
    connection.close()
    return connection


@pytest.mark.parametrize(
    ("method", "secret", "wanted"),
    [
        ("trust", "", "none"),
        ("password", PASSWORD, "password"),
        ("md5", PASSWORD, "md5"),
        ("md5", MD5, "md5"),
        ("auto", PASSWORD, "scram-sha-256"),
        ("auto", str(VERIFIER), "scram-sha-256"),
        ("auto", MD5, "md5"),
    ],
)
def test_libpq_logs_in(method: str, secret: str, wanted: str) -> None:
    account = Account("u", "d", (secret,) if secret else (), method)  # type: ignore[arg-type]
    with acceptor(account) as (port, outcome):
        libpq(port, require_auth=wanted)
        assert isinstance(outcome.result(TIMEOUT), ClientLogin)


@pytest.mark.parametrize(("method", "secret"), [("password", PASSWORD), ("md5", MD5), ("auto", str(VERIFIER)), ("auto", "")])
def test_libpq_shows_why_it_may_not_come_in(method: str, secret: str) -> None:
    account = Account("u", "d", (secret,) if secret else (), method, decoy=not secret)  # type: ignore[arg-type]
    with acceptor(account) as (port, outcome):
        with pytest.raises(psycopg.OperationalError, match='FATAL:  password authentication failed for user "u"'):
            libpq(port, password="wrong")
        assert isinstance(outcome.exception(20), LoginFailed)


def test_libpq_shows_the_hint() -> None:
    with acceptor(TRUSTED, TLS_ONLY) as (port, _), pytest.raises(psycopg.OperationalError, match="HINT:  connect with sslmode=require"):
        libpq(port, sslmode="disable")


@pytest.mark.parametrize(
    "settings",
    [
        {"sslmode": "require", "channel_binding": "require"},
        {"sslmode": "require", "channel_binding": "disable"},
        {"sslmode": "prefer"},
        {"sslmode": "require", "sslnegotiation": "direct", "channel_binding": "require"},
    ],
)
def test_libpq_over_tls(settings: dict[str, str]) -> None:
    if "sslnegotiation" in settings and psycopg.pq.version() < 170000:
        pytest.skip("libpq older than 17 has no direct TLS")
    with acceptor(Account("u", "d", (PASSWORD,)), TLS_ONLY) as (port, outcome):
        libpq(port, **settings)
        login = outcome.result(TIMEOUT)
    assert isinstance(login, ClientLogin)
    assert login.tls is not None
    assert login.tls.alpn == ("postgresql" if "sslnegotiation" in settings else "")


def test_libpq_verifies_our_certificate(tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with acceptor(TRUSTED, TLS_ONLY) as (port, _):
        libpq(port, host="localhost", hostaddr="127.0.0.1", sslmode="verify-full", sslrootcert=str(tmp_path / "ca.pem"))


def test_libpq_logs_in_by_certificate(tmp_path: Path) -> None:
    client = AUTHORITY.issue_cert("x", common_name="u")
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "key.pem").chmod(0o600)
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    with acceptor(Account("u", "d", method="cert"), WITH_CLIENT_CA) as (port, outcome):
        libpq(port, sslmode="require", sslcert=str(tmp_path / "cert.pem"), sslkey=str(tmp_path / "key.pem"))
        assert isinstance(outcome.result(TIMEOUT), ClientLogin)


def test_libpq_sends_a_cancel_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with acceptor(TRUSTED, listener=listener) as (port, _):
            connection = psycopg.connect(f"host=127.0.0.1 port={port} user=u dbname=d sslmode=disable gssencmode=disable")
        with acceptor(TRUSTED, listener=listener) as (_, outcome):
            connection.cancel_safe()
            assert outcome.result(TIMEOUT) == CancelRequest(42, b"key!")
        connection.close()


def test_libpq_18_negotiates_the_version() -> None:
    if psycopg.pq.version() < 180000:
        pytest.skip("libpq older than 18 speaks 3.0 only")
    with acceptor(TRUSTED) as (port, outcome):
        libpq(port, max_protocol_version="latest")
        login = outcome.result(TIMEOUT)
    assert isinstance(login, ClientLogin)
    assert login.protocol_version == wire.PROTOCOL_3_2
