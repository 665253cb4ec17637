"""Clients' logins: as transcripts, cut at every byte, with garbage, and by real clients."""

import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self

import attrs
import mysql.connector
import pymysql
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from pymysql._auth import sha2_rsa_encrypt

from dualpool.accounts import Account, ClientLogin, FrontendPolicy, LearntSecret
from dualpool.errors import DualpoolError, LoginFailed, RemoteProtocolError, TooManyClients
from dualpool.mysql import auth, frontend, messages, wire
from dualpool.mysql.codec import Ok, build_ok
from dualpool.mysql.messages import HandshakeResponse
from dualpool.protocol import ConnectionClosed, FindAccount, StartTls, TlsInfo
from tests.helpers.blocking import TIMEOUT, Driver
from tests.helpers.playbook import ANY_TLS, Play, check, every_end, fails, finds, reads, returns, sends, starts_tls
from tests.helpers.servers import PEERS, report_unavailable

NONCE = bytes(range(1, 33))
NATIVE_SECRET = "*" + hashlib.sha1(auth.native_stage1("app")).hexdigest().upper()
SALT = b"abcdefghij0123456789"
SHA2_SECRET = "$A$005$" + SALT.decode() + auth.sha256_crypt(b"app", SALT, 5000).decode()
SECRETS = {"plain": "app", "sha1": NATIVE_SECRET, "sha2": SHA2_SECRET}
CAPABILITIES = (
    wire.CLIENT_PROTOCOL_41
    | wire.CLIENT_SECURE_CONNECTION
    | wire.CLIENT_CONNECT_WITH_DB
    | wire.CLIENT_PLUGIN_AUTH
    | wire.CLIENT_PLUGIN_AUTH_LENENC
    | wire.CLIENT_CONNECT_ATTRS
)
DENIED = "Access denied for user 'app'@'10.0.0.9' (using password: YES)"
POLICY = FrontendPolicy(client_address="10.0.0.9:50000", connection_id=7)
TLS_POLICY = FrontendPolicy(client_address="10.0.0.9:50000", connection_id=7, tls=True)
SOCKET_POLICY = FrontendPolicy(unix_socket=True, connection_id=7)


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    """Each test begins without cached passwords."""
    frontend.KNOWN_PASSWORDS.clear()
    yield
    frontend.KNOWN_PASSWORDS.clear()


@pytest.fixture
def _known_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "make_nonce", lambda size=20: NONCE[:size])


def account(*secrets: str, **more: Any) -> Account:
    return Account("app", "shop", secrets, **more)


def response(plugin: str, token: bytes, *, capabilities: int = CAPABILITIES, user: str = "app") -> bytes:
    return HandshakeResponse(capabilities, 1 << 24, 45, user, token, "shop", plugin, {"program_name": "test"}).payload()


def native(password: str = "app") -> bytes:
    return auth.native_token(auth.native_stage1(password), NONCE[:20])


def sha2(password: str = "app") -> bytes:
    return auth.sha2_token(auth.sha2_stage1(password), NONCE[:20])


def greeting(policy: FrontendPolicy = POLICY) -> bytes:
    offered = frontend.OFFERED | (wire.CLIENT_SSL if policy.tls else 0)
    plugin = policy.auth_plugin or "caching_sha2_password"
    return wire.packet(0, messages.Greeting("8.4.0-dualpool", 7, NONCE[:20], offered, 45, 2, plugin).payload())


def refusal(sequence: int, message: str = DENIED, errno: int = 1045, sqlstate: str = "28000") -> bytes:
    return wire.packet(sequence, messages.error_payload(errno, sqlstate, message))


ATTRIBUTES = {"program_name": "test"}


# ----------------------------------------------------------------------------------------------------------------- transcripts


@pytest.mark.usefixtures("_known_nonce")
class TestTranscripts:
    """Whole logins, line for line."""

    def test_a_native_password(self) -> None:
        play = check(
            frontend.accept(POLICY),
            [
                sends(greeting()),
                reads(wire.packet(1, response(auth.NATIVE, native()))),
                finds(account("app"), ATTRIBUTES),
                returns(),
            ],
        )
        assert play.result == ClientLogin(
            account=account("app"),
            parameters=ATTRIBUTES,
            learnt=LearntSecret(password="app"),
            tls=None,
            capabilities=CAPABILITIES,
            character_set=45,
            sequence=2,
        )
        assert play.offloaded == 0

    def test_a_known_password_by_caching_sha2(self) -> None:
        play = check(
            frontend.accept(POLICY),
            [
                sends(greeting()),
                reads(wire.packet(1, response(auth.CACHING_SHA2, sha2()))),
                finds(account("app"), ATTRIBUTES),
                sends(wire.packet(2, b"\x01\x03")),
                returns(),
            ],
        )
        assert play.result is not None
        assert play.result.learnt == LearntSecret(password="app")
        assert play.result.sequence == 3

    def test_a_hash_by_caching_sha2_over_tls(self) -> None:
        head = response(auth.CACHING_SHA2, sha2(), capabilities=CAPABILITIES | wire.CLIENT_SSL)
        script = [
            sends(greeting(TLS_POLICY)),
            reads(wire.packet(1, head[:32])),
            starts_tls(ANY_TLS),
            reads(wire.packet(2, head)),
            finds(account(SHA2_SECRET), ATTRIBUTES),
        ]
        full = [sends(wire.packet(3, b"\x01\x04")), reads(wire.packet(4, b"app\0"))]
        play = check(frontend.accept(TLS_POLICY), [*script, *full, returns()])
        assert play.result is not None
        assert (play.result.learnt, play.result.tls, play.result.sequence) == (LearntSecret(password="app"), ANY_TLS, 5)
        # From now on the password is known, so the fast path will do.
        again = check(frontend.accept(TLS_POLICY), [*script, sends(wire.packet(3, b"\x01\x03")), returns()])
        assert again.result is not None
        assert again.result.learnt == LearntSecret(password="app")

    def test_a_hash_by_caching_sha2_with_rsa(self) -> None:
        play = Play(frontend.accept(POLICY))
        play.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2())))
        assert play.answer(account(SHA2_SECRET)) == wire.packet(2, b"\x01\x04")
        key = play.feed(wire.packet(3, b"\x02"))
        assert key[:5] == wire.header(4, len(key) - 4) + b"\x01"
        play.feed(wire.packet(5, sha2_rsa_encrypt(b"app", NONCE[:20], key[5:])))
        assert play.result is not None
        assert (play.result.learnt, play.result.sequence) == (LearntSecret(password="app"), 6)

    def test_a_password_in_clear_is_not_taken_without_tls(self) -> None:
        play = Play(frontend.accept(POLICY))
        play.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2())))
        play.answer(account(SHA2_SECRET))
        assert play.feed(wire.packet(3, b"app\0")) == refusal(4)
        assert isinstance(play.error, LoginFailed)

    def test_a_unix_socket_is_as_good_as_tls(self) -> None:
        play = Play(frontend.accept(SOCKET_POLICY))
        play.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2())))
        assert play.answer(account(SHA2_SECRET)) == wire.packet(2, b"\x01\x04")
        play.feed(wire.packet(3, b"app\0"))
        assert play.result is not None
        clear = Play(frontend.accept(SOCKET_POLICY), answers=[account(NATIVE_SECRET)])
        clear.feed(wire.packet(1, response(auth.CLEAR, b"app\0")))
        assert clear.result is not None
        assert clear.result.learnt == LearntSecret(password="app")

    def test_a_switch_to_native_for_what_only_native_can_check(self) -> None:
        play = check(
            frontend.accept(POLICY),
            [
                sends(greeting()),
                reads(wire.packet(1, response(auth.CACHING_SHA2, sha2()))),
                finds(account(NATIVE_SECRET), ATTRIBUTES),
                sends(wire.packet(2, b"\xfemysql_native_password\0" + NONCE[:20] + b"\0")),
                reads(wire.packet(3, native())),
                returns(),
            ],
        )
        assert play.result is not None
        assert (play.result.learnt, play.result.sequence) == (LearntSecret(stage1=auth.native_stage1("app")), 4)

    def test_a_switch_to_caching_sha2_for_its_hash(self) -> None:
        play = Play(frontend.accept(POLICY), answers=[account(SHA2_SECRET)])
        play.take()
        sent = play.feed(wire.packet(1, response(auth.NATIVE, native())))
        assert sent == wire.packet(2, b"\xfecaching_sha2_password\0" + NONCE[:20] + b"\0")
        assert play.feed(wire.packet(3, sha2())) == wire.packet(4, b"\x01\x04")

    def test_a_client_set_to_another_plugin_than_the_greeting_s_waits_for_its_nonce(self) -> None:
        play = Play(frontend.accept(POLICY), answers=[account("app")])
        play.take()
        sent = play.feed(wire.packet(1, response(auth.NATIVE, b"")))
        assert sent == wire.packet(2, b"\xfemysql_native_password\0" + NONCE[:20] + b"\0")
        play.feed(wire.packet(3, native()))
        assert play.result is not None

    def test_mariadb_s_ed25519(self) -> None:
        play = Play(frontend.accept(POLICY), answers=[account("old", "app")])
        play.take()
        assert play.feed(wire.packet(1, response(auth.ED25519, b""))) == wire.packet(2, b"\xfeclient_ed25519\0" + NONCE)
        play.feed(wire.packet(3, auth.ed25519_sign("app", NONCE)))
        assert play.result is not None
        assert play.result.learnt == LearntSecret(password="app")

    def test_a_client_that_knows_no_plugins_has_native(self) -> None:
        old = wire.CLIENT_PROTOCOL_41 | wire.CLIENT_SECURE_CONNECTION | wire.CLIENT_CONNECT_WITH_DB
        for secret, accepted in (("app", True), (NATIVE_SECRET, True), (SHA2_SECRET, False)):
            play = Play(frontend.accept(POLICY), answers=[account(secret)])
            play.feed(wire.packet(1, response("", native(), capabilities=old)))
            assert play.done
            assert (play.error is None) is accepted

    @pytest.mark.parametrize(
        ("plugin", "token"),
        [(auth.NATIVE, native("wrong")), (auth.CACHING_SHA2, sha2("wrong")), (auth.NATIVE, b"x"), (auth.CACHING_SHA2, b"x" * 900)],
    )
    @pytest.mark.parametrize(
        "found", [account("app"), account("app", decoy=True), account(decoy=True), account(), account(decoy=True, method="trust")]
    )
    def test_wrong_passwords_and_unknown_users_are_answered_alike(self, plugin: str, token: bytes, found: Account) -> None:
        check(
            frontend.accept(POLICY),
            [
                sends(greeting()),
                reads(wire.packet(1, response(plugin, token))),
                finds(found, ATTRIBUTES),
                sends(refusal(2)),
                fails(LoginFailed, DENIED, "28P01"),
            ],
        )

    def test_a_decoy_with_a_hash_goes_all_the_way(self) -> None:
        for found in (account(SHA2_SECRET), account(SHA2_SECRET, decoy=True)):
            play = Play(frontend.accept(SOCKET_POLICY))
            play.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2("wrong"))))
            assert play.answer(found) == wire.packet(2, b"\x01\x04")
            play.feed(wire.packet(3, b"wrong\0"))
            assert isinstance(play.error, LoginFailed)
            assert play.offloaded == 1

    def test_no_decoy_opens_to_the_right_password(self) -> None:
        for plugin, token in ((auth.NATIVE, native()), (auth.CACHING_SHA2, sha2())):
            play = Play(frontend.accept(POLICY), answers=[account("app", decoy=True)])
            play.feed(wire.packet(1, response(plugin, token)))
            assert isinstance(play.error, LoginFailed)

    def test_an_empty_password_is_one_only_where_it_is_stored(self) -> None:
        for secrets, accepted in ((("",), True), (("app",), False), ((), False), ((NATIVE_SECRET, ""), True)):
            play = Play(frontend.accept(SOCKET_POLICY), answers=[account(*secrets)])
            play.feed(wire.packet(1, response(auth.CACHING_SHA2, b"")))
            assert play.done
            assert (play.error is None) is accepted
        assert "using password: NO" in play.take().decode("utf-8", "replace") or play.error is None

    def test_anyone_with_any_password_where_trusted(self) -> None:
        found = account(method="trust")
        for plugin, token, sent in (
            (auth.NATIVE, native("any"), b""),
            (auth.CACHING_SHA2, sha2("any"), wire.packet(2, b"\x01\x03")),
            (auth.CACHING_SHA2, b"", b""),
        ):
            play = Play(frontend.accept(POLICY))
            play.feed(wire.packet(1, response(plugin, token)))
            assert play.answer(found) == sent
            assert play.result is not None
            assert play.result.learnt is None

    def test_what_a_trusted_client_can_send_safely_is_learnt(self) -> None:
        play = Play(frontend.accept(SOCKET_POLICY), answers=[account(method="trust")])
        play.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2("any"))))
        play.feed(wire.packet(3, b"any\0"))
        assert play.result is not None
        assert play.result.learnt == LearntSecret(password="any")

    def test_method_password_asks_for_the_password_itself(self) -> None:
        play = Play(frontend.accept(SOCKET_POLICY), answers=[account("app", method="password")])
        play.take()
        assert play.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2()))) == wire.packet(2, b"\x01\x04")
        play.feed(wire.packet(3, b"app\0"))
        assert play.result is not None

    def test_a_certificate_s_name_must_be_the_user_s(self) -> None:
        authority = trustme.CA()
        for name, accepted in (("app", True), ("bob", False)):
            certificate = authority.issue_cert("client.example", common_name=name).cert_chain_pems[0].bytes().decode()
            tls = TlsInfo("TLSv1.3", "", "", b"", ssl.PEM_cert_to_DER_cert(certificate))
            head = response(auth.CACHING_SHA2, sha2("any"), capabilities=CAPABILITIES | wire.CLIENT_SSL)
            play = Play(frontend.accept(TLS_POLICY), answers=[tls, account(method="cert")])
            play.feed(wire.packet(1, head[:32]) + wire.packet(2, head))
            assert (play.error is None) is accepted
        without = Play(frontend.accept(POLICY), answers=[account(method="cert")])
        without.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2())))
        assert isinstance(without.error, LoginFailed)

    def test_each_of_several_secrets_opens(self) -> None:
        other = "$A$005$" + SALT.decode() + auth.sha256_crypt(b"new", SALT, 5000).decode()
        for password in ("app", "new"):
            play = Play(frontend.accept(SOCKET_POLICY), answers=[account(NATIVE_SECRET, other)])
            play.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2(password))))
            play.feed(wire.packet(3, password.encode() + b"\0"))
            assert play.result is not None

    def test_a_password_that_was_taken_away_is_not_remembered_for_another(self) -> None:
        other = "$A$005$" + SALT.decode() + auth.sha256_crypt(b"new", SALT, 5000).decode()
        first = Play(frontend.accept(SOCKET_POLICY), answers=[account(SHA2_SECRET, other)])
        first.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2())) + wire.packet(3, b"app\0"))
        assert first.result is not None
        then = Play(frontend.accept(SOCKET_POLICY), answers=[account(other)])
        then.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2())) + wire.packet(3, b"app\0"))
        assert isinstance(then.error, LoginFailed)

    def test_tls_may_be_required(self) -> None:
        policy = FrontendPolicy(tls=True, tls_required=True, connection_id=7)
        play = Play(frontend.accept(policy))
        play.take()
        sent = play.feed(wire.packet(1, response(auth.CACHING_SHA2, sha2())))
        assert messages.parse_error(sent[4:]).errno == 3159
        assert isinstance(play.error, LoginFailed)

    def test_a_failed_tls_handshake_is_answered_with_nothing(self) -> None:
        head = response(auth.CACHING_SHA2, sha2(), capabilities=CAPABILITIES | wire.CLIENT_SSL)[:32]
        check(
            frontend.accept(TLS_POLICY),
            [
                sends(greeting(TLS_POLICY)),
                reads(wire.packet(1, head)),
                starts_tls(RemoteProtocolError("no cipher in common")),
                fails(RemoteProtocolError, "no cipher in common", "08P01"),
            ],
        )

    def test_tls_that_was_not_offered(self) -> None:
        play = Play(frontend.accept(POLICY))
        play.take()
        sent = play.feed(wire.packet(1, response(auth.NATIVE, b"", capabilities=CAPABILITIES | wire.CLIENT_SSL)[:32]))
        assert b"TLS" in sent
        assert isinstance(play.error, RemoteProtocolError)

    @pytest.mark.parametrize(
        ("data", "errno"),
        [
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1156),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 1156),
            (wire.packet(1, b"\x05\x24\0\0\0bob\0scramble"), 1251),
            (wire.header(1, 20_000), 1153),
            (wire.packet(1, response(auth.NATIVE, native())[:40]), 1835),
            (wire.packet(2, response(auth.NATIVE, native())), 1156),
            (wire.packet(1, b""), 1251),
        ],
    )
    def test_what_is_no_mysql_client_is_told_so(self, data: bytes, errno: int) -> None:
        play = Play(frontend.accept(POLICY))
        play.take()
        sent = play.feed(data)
        assert messages.parse_error(sent[4:]).errno == errno
        assert isinstance(play.error, RemoteProtocolError)

    def test_any_error_is_sent_in_its_place(self) -> None:
        play = Play(frontend.accept(POLICY), answers=[TooManyClients("too many clients")])
        play.take()
        sent = play.feed(wire.packet(1, response(auth.NATIVE, native())))
        assert sent == refusal(2, "too many clients", 1040, "08004")
        assert isinstance(play.error, TooManyClients)

    def test_cut_at_every_byte(self) -> None:
        tls = CAPABILITIES | wire.CLIENT_SSL
        over_tls = response(auth.CACHING_SHA2, sha2(), capabilities=tls)
        every_end(
            lambda: frontend.accept(TLS_POLICY),
            wire.packet(1, over_tls[:32]) + wire.packet(2, over_tls) + wire.packet(4, b"app\0"),
            [ANY_TLS, account(NATIVE_SECRET)],
        )
        every_end(
            lambda: frontend.accept(POLICY),
            wire.packet(1, response(auth.CACHING_SHA2, sha2())) + wire.packet(3, native()),
            [account(NATIVE_SECRET)],
        )


# ------------------------------------------------------------------------------------------------------------- COM_CHANGE_USER


BEFORE = ClientLogin(account("app"), {}, None, None, capabilities=CAPABILITIES, character_set=45, sequence=2)


def change_user(plugin: str = auth.NATIVE, token: bytes = b"\1" * 20, *, user: str = "app", tail: bytes | None = None) -> bytes:
    """The command, without its header. `tail`: in place of the character set, the plugin and the attributes."""
    block = wire.put_lenenc_bytes(b"program_name") + wire.put_lenenc_bytes(b"test")
    usual = b"\xff\x00" + plugin.encode() + b"\0" + wire.put_lenenc_bytes(block)
    return b"\x11" + user.encode() + b"\0" + bytes((len(token),)) + token + b"shop\0" + (usual if tail is None else tail)


def switch(plugin: str, sequence: int = 1) -> bytes:
    return wire.packet(sequence, b"\xfe" + plugin.encode() + b"\0" + NONCE[:20] + b"\0")


@pytest.mark.usefixtures("_known_nonce")
class TestChangesOfUser:
    """The same from COM_CHANGE_USER on."""

    @pytest.mark.parametrize("attributes", [True, False])
    @pytest.mark.parametrize(
        ("plugin", "used", "secret", "token", "more"),
        [
            (auth.NATIVE, auth.NATIVE, "app", native(), b""),
            (auth.CACHING_SHA2, auth.CACHING_SHA2, "app", sha2(), wire.packet(3, b"\x01\x03")),
            (auth.CACHING_SHA2, auth.NATIVE, NATIVE_SECRET, native(), b""),
            ("", auth.CACHING_SHA2, "app", sha2(), wire.packet(3, b"\x01\x03")),
        ],
    )
    def test_it_always_takes_a_new_nonce(self, plugin: str, used: str, secret: str, token: bytes, more: bytes, attributes: bool) -> None:
        before = BEFORE if attributes else attrs.evolve(BEFORE, capabilities=CAPABILITIES & ~wire.CLIENT_CONNECT_ATTRS)
        tail = None if attributes else b"\xff\x00" + plugin.encode() + b"\0"
        request = wire.packet(0, change_user(plugin, tail=tail))
        script = [finds(account(secret), ATTRIBUTES if attributes else {}), sends(switch(used)), reads(wire.packet(2, token))]
        script += [sends(more)] if more else []
        play = check(frontend.reaccept(POLICY, before, request), [*script, returns()])
        assert play.result is not None
        assert (play.result.character_set, play.result.sequence) == (255, 4 if more else 3)
        assert (play.result.capabilities, play.result.account) == (before.capabilities, account(secret))

    @pytest.mark.parametrize("tail", [b"", b"\x2d\x00", b"\x2d\x00mysql_native_password\0"])
    def test_what_old_clients_leave_out(self, tail: bytes) -> None:
        play = Play(frontend.reaccept(POLICY, BEFORE, wire.packet(0, change_user(tail=tail))), answers=[account(NATIVE_SECRET)])
        assert play.take() == switch(auth.NATIVE)
        play.feed(wire.packet(2, native()))
        assert play.result is not None
        assert play.result.character_set == 45

    def test_a_wrong_password(self) -> None:
        play = Play(frontend.reaccept(POLICY, BEFORE, wire.packet(0, change_user())), answers=[account("app")])
        assert play.take() == switch(auth.NATIVE)
        assert play.feed(wire.packet(2, native("wrong"))) == refusal(3)
        assert isinstance(play.error, LoginFailed)

    def test_a_token_that_came_unasked_proves_nothing(self) -> None:
        play = Play(frontend.reaccept(POLICY, BEFORE, wire.packet(0, change_user(token=native()))), answers=[account("app")])
        assert play.take() == switch(auth.NATIVE)
        assert play.feed(wire.packet(2, b"")) == refusal(3, DENIED.replace("YES", "NO"))

    def test_tls_lasts(self) -> None:
        before = attrs.evolve(BEFORE, tls=ANY_TLS)
        play = Play(frontend.reaccept(TLS_POLICY, before, wire.packet(0, change_user(auth.CACHING_SHA2))), answers=[account(SHA2_SECRET)])
        assert play.take() == switch(auth.CACHING_SHA2)
        assert play.feed(wire.packet(2, sha2())) == wire.packet(3, b"\x01\x04")
        play.feed(wire.packet(4, b"app\0"))
        assert play.result is not None
        assert (play.result.tls, play.result.sequence) == (ANY_TLS, 5)

    def test_what_came_with_the_request(self) -> None:
        request = wire.packet(0, change_user()) + wire.packet(2, native()) + b"behind"
        play = Play(frontend.reaccept(POLICY, BEFORE, request), answers=[account("app")])
        assert play.take() == switch(auth.NATIVE)
        assert play.result is not None
        assert play.result.pending == b"behind"
        for cut in range(len(request) - len(b"behind") - 24, len(request) - len(b"behind")):
            play = Play(frontend.reaccept(POLICY, BEFORE, request[:cut]), answers=[account("app")])
            play.feed(request[cut : -len(b"behind")])
            assert play.result is not None
            assert play.result.pending == b""

    def test_clients_that_cannot_be_given_another_nonce(self) -> None:
        before = attrs.evolve(BEFORE, capabilities=CAPABILITIES & ~wire.CLIENT_PLUGIN_AUTH)
        play = Play(frontend.reaccept(POLICY, before, wire.packet(0, change_user(tail=b""))))
        text = "This client is too old for COM_CHANGE_USER: it cannot be given another nonce. Connect again instead."
        assert play.take() == refusal(1, text)
        assert isinstance(play.error, LoginFailed)

    def test_too_long(self) -> None:
        play = Play(frontend.reaccept(POLICY, BEFORE, wire.packet(0, change_user(user="a" * 10_000))))
        assert play.take()[3:7] == b"\x01\xff\x81\x04"
        assert isinstance(play.error, RemoteProtocolError)

    def test_cut_anywhere(self) -> None:
        whole = change_user()
        for cut in range(1, len(whole)):
            play = Play(frontend.reaccept(POLICY, BEFORE, wire.packet(0, whole[:cut])), answers=[account("app")])
            play.hang_up()
            assert isinstance(play.error, (ConnectionClosed, DualpoolError)), (cut, play.error)


@pytest.mark.usefixtures("_known_nonce")
@pytest.mark.parametrize("plugin", ["parsec", "dialog", "authentication_webauthn_client", "client_of_tomorrow"])
@pytest.mark.parametrize("token", [b"", b"of its own"], ids=["silent", "eager"])
def test_a_plugin_that_nobody_knows_is_declined(plugin: str, token: bytes) -> None:
    """MariaDB's parsec, which the server would have to know a salt and a key for, among others: the client is switched to one of ours."""
    play = Play(frontend.accept(POLICY), answers=[account("app")])
    assert play.take() == greeting()
    assert play.feed(wire.packet(1, response(plugin, token))) == switch(auth.CACHING_SHA2, 2)
    assert play.feed(wire.packet(3, sha2())) == wire.packet(4, b"\x01\x03")
    assert play.result is not None


@given(st.binary(max_size=200), st.binary(max_size=60), st.sampled_from(sorted(SECRETS.values())))
@settings(deadline=None)
def test_garbage_in_a_change_of_user_ends_in_an_error_of_ours(first: bytes, second: bytes, secret: str) -> None:
    play = Play(frontend.reaccept(POLICY, BEFORE, wire.packet(0, b"\x11" + first)), answers=[account(secret)])
    for sequence in (2, 4):
        play.feed(wire.packet(sequence, second))
    play.hang_up()
    assert isinstance(play.error, (ConnectionClosed, DualpoolError)), play.error


@given(st.binary(max_size=200), st.binary(max_size=60), st.sampled_from(sorted(SECRETS.values())), st.booleans())
@settings(deadline=None)
def test_garbage_ends_in_an_error_of_ours(first: bytes, second: bytes, secret: str, secure: bool) -> None:
    capabilities = wire.INT32.pack(CAPABILITIES)
    for payload in (first, capabilities + bytes(28) + first, response(auth.CACHING_SHA2, first), response(auth.NATIVE, first)):
        play = Play(frontend.accept(SOCKET_POLICY if secure else POLICY), answers=[account(secret)])
        play.feed(wire.packet(1, payload))
        for sequence in (3, 5):
            play.feed(wire.packet(sequence, second))
        play.hang_up()
        assert play.done
        assert isinstance(play.error, (ConnectionClosed, DualpoolError)), play.error


def test_the_greeting_says_what_the_policy_says() -> None:
    policy = FrontendPolicy(tls=True, server_version="10.11.6-MariaDB", auth_plugin=auth.NATIVE, connection_id=1 << 32 | 5)
    said = messages.parse_greeting(Play(frontend.accept(policy)).take()[4:])
    assert (said.server_version, said.auth_plugin, said.connection_id) == ("10.11.6-MariaDB", auth.NATIVE, 5)
    assert said.capabilities & wire.CLIENT_SSL
    for declined in (wire.CLIENT_COMPRESS, wire.CLIENT_ZSTD_COMPRESSION, wire.CLIENT_OPTIONAL_RESULTSET_METADATA, wire.CLIENT_MULTI_FACTOR):
        assert not said.capabilities & declined
    plain = messages.parse_greeting(Play(frontend.accept(POLICY)).take()[4:])
    assert not plain.capabilities & wire.CLIENT_SSL


def test_the_welcome() -> None:
    login = ClientLogin(account(), {}, None, None, capabilities=CAPABILITIES, sequence=4)
    assert frontend.welcome(login, {}, 1, b"") == wire.packet(4, b"\0\0\0\x02\0\0\0")
    tracking = ClientLogin(account(), {}, None, None, capabilities=CAPABILITIES | wire.CLIENT_SESSION_TRACK, sequence=2)
    assert frontend.welcome(tracking, {}, 1, b"") == wire.packet(2, b"\0\0\0\x02\x40\0\0\0\x07\x01\x05\x04shop")


@pytest.mark.parametrize(
    ("address", "host"),
    [("10.0.0.9:50000", "10.0.0.9"), ("[::1]:50000", "::1"), ("::1", "::1"), ("10.0.0.9", "10.0.0.9"), ("", "localhost")],
)
def test_the_host_in_a_refusal(address: str, host: str) -> None:
    play = Play(frontend.accept(FrontendPolicy(client_address=address)), answers=[account()])
    play.feed(wire.packet(1, response(auth.NATIVE, b"x" * 20)))
    assert f"'app'@'{host}'" in str(play.error)


# ---------------------------------------------------------------------------------------------------------------- real clients


class Acceptor:
    """A listener in a thread that logs clients in, says yes to SET and ping, and to anything else the error 1105 "logged in"."""

    def __init__(self, found: Account, *, tls: ssl.SSLContext | None, auth_plugin: str = "") -> None:
        self._found = found
        self._tls = tls
        self._plugin = auth_plugin
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.logins: list[ClientLogin | Exception] = []
        self.asked: list[FindAccount] = []
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # shutdown, not close alone: that is what wakes a thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(1 if kind else TIMEOUT)
        if self._client is not None:
            self._client.close()
        self._listener.close()
        assert kind or not self._thread.is_alive()

    @property
    def login(self) -> ClientLogin:
        """The only client's login."""
        (login,) = self.logins
        assert isinstance(login, ClientLogin), login
        return login

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
                self._client = sock
            except OSError:
                return
            driver = Driver(sock, tls=self._tls, server_side=True, find=self._find)
            try:
                self._log_in(driver)
            except (OSError, ConnectionClosed, DualpoolError) as error:
                self.logins.append(error)
            finally:
                driver.sock.close()

    def _find(self, command: FindAccount) -> Account:
        self.asked.append(command)
        return self._found

    def _log_in(self, driver: Driver) -> None:
        policy = FrontendPolicy(tls=self._tls is not None, client_address="127.0.0.1:1", connection_id=7, auth_plugin=self._plugin)
        login = driver.run(frontend.accept(policy))
        self.logins.append(login)
        driver.sock.sendall(frontend.welcome(login, {}, 7, b""))
        while len(data := driver.sock.recv(65536)) > 4 and data[4] != wire.COM_QUIT:
            answer = build_ok(Ok(), login.capabilities, wire.OK)
            if data[4] != wire.COM_PING and b"SET " not in data.upper():
                answer = messages.error_payload(1105, "HY000", "logged in")
            driver.sock.sendall(wire.packet(1, answer))


@pytest.fixture(scope="module")
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def mysql_client() -> list[str]:
    """MySQL's own client, not MariaDB's program of the same name."""
    if PEERS.is_file():
        return [str(PEERS), "run", "mysql"]
    found = shutil.which("mysql")
    if not found or "MariaDB" in subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout:
        report_unavailable("mysql", "no MySQL client on this machine")
    return [found]


def mariadb_client() -> list[str]:
    found = shutil.which("mariadb")
    if not found:
        report_unavailable("mariadb", "apt install mariadb-client")
    return [found]


def run_client(kind: str, port: int, *, tls: bool, plugin: str) -> str:
    """Log in with a command line client and run one statement; returns what it says on stderr."""
    options = ["-uapp", "-papp", "-h127.0.0.1", f"-P{port}", "-A", "shop", "-e", "select 1"]
    if plugin:
        options.insert(0, f"--default-auth={plugin}")
    if kind == "mariadb":
        command = [*mariadb_client(), "--no-defaults", "--ssl" if tls else "--skip-ssl", *options]
    else:
        clear = ["--enable-cleartext-plugin"] if plugin == auth.CLEAR else []
        mode = ["--ssl-mode=REQUIRED"] if tls else ["--ssl-mode=DISABLED", "--get-server-public-key"]
        command = [*mysql_client(), "--no-defaults", *clear, *mode, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * TIMEOUT, check=False, stdin=subprocess.DEVNULL).stderr


@pytest.mark.parametrize("plugin", ["", auth.NATIVE, auth.ED25519, auth.CLEAR])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("stored", sorted(SECRETS))
@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_command_line_clients(kind: str, stored: str, tls: bool, plugin: str, server_tls: ssl.SSLContext) -> None:
    """Whatever is stored and whatever plugin the client is set to: it comes in."""
    with Acceptor(account(SECRETS[stored]), tls=server_tls if tls else None) as acceptor:
        said = run_client(kind, acceptor.port, tls=tls, plugin=plugin)
    assert "1105" in said
    assert "logged in" in said
    assert (acceptor.login.tls is not None) is tls
    learnt = acceptor.login.learnt
    assert learnt is not None
    assert learnt.password == "app" or learnt.stage1 == auth.native_stage1("app")


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_command_line_clients_are_refused(kind: str, server_tls: ssl.SSLContext) -> None:
    for found in (account("other"), account(decoy=True), account(SHA2_SECRET[:-1] + "/")):
        with Acceptor(found, tls=server_tls) as acceptor:
            said = run_client(kind, acceptor.port, tls=True, plugin="")
        assert "ERROR 1045 (28000): Access denied for user 'app'@'127.0.0.1' (using password: YES)" in said


@pytest.mark.parametrize("announced", [auth.CACHING_SHA2, auth.NATIVE])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("stored", sorted(SECRETS))
class TestPythonDrivers:
    def test_pymysql(self, stored: str, tls: bool, announced: str, server_tls: ssl.SSLContext) -> None:
        with Acceptor(account(SECRETS[stored]), tls=server_tls if tls else None, auth_plugin=announced) as acceptor:
            options: dict[str, Any] = {"ssl": trusting()} if tls else {}
            client = pymysql.connect(
                host="127.0.0.1",
                port=acceptor.port,
                user="app",
                password="app",
                database="shop",
                autocommit=True,
                program_name="tests",
                **options,
            )
            assert client.thread_id() == 7
            with pytest.raises(pymysql.MySQLError, match="logged in"):
                client.cursor().execute("select 1")
            client.close()
        (asked,) = acceptor.asked
        assert (asked.user, asked.database, asked.parameters["program_name"]) == ("app", "shop", "tests")

    def test_mysql_connector(self, stored: str, tls: bool, announced: str, server_tls: ssl.SSLContext) -> None:
        login: dict[str, Any] = {"host": "127.0.0.1", "user": "app", "password": "app", "database": "shop"}
        with Acceptor(account(SECRETS[stored]), tls=server_tls if tls else None, auth_plugin=announced) as acceptor:
            connect = partial(mysql.connector.connect, port=acceptor.port, use_pure=True, ssl_disabled=not tls, **login)
            if stored == "sha2" and not tls:
                # It has no RSA, and sends the password as it is; a MySQL server refuses that too.
                with pytest.raises(mysql.connector.Error, match="1045"):
                    connect()
                return
            client = connect()
            assert client.connection_id == 7
            with pytest.raises(mysql.connector.Error, match="logged in"):
                client.cursor().execute("select 1")
            client.close()


def test_a_refused_driver_sees_1045() -> None:
    with Acceptor(account("other"), tls=None) as acceptor, pytest.raises(pymysql.OperationalError) as failure:
        pymysql.connect(host="127.0.0.1", port=acceptor.port, user="app", password="app")
    assert failure.value.args[0] == 1045


def test_tls_is_asked_for_before_the_user_is_named() -> None:
    play = Play(frontend.accept(TLS_POLICY))
    play.feed(wire.packet(1, response(auth.NATIVE, b"", capabilities=CAPABILITIES | wire.CLIENT_SSL)[:32]))
    assert isinstance(play.waiting_for, StartTls)
