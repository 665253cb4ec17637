"""Passwords: the published vectors, other people's implementations, and everything that a peer may get wrong."""

import base64
import datetime
import hashlib
import re

import pytest
import scramp  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpool.authentication.peers import common_name
from dualpool.errors import RemoteProtocolError
from dualpool.postgres import auth

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")


def verifier_of(password: bytes, salt: bytes = SALT, iterations: int = 4096) -> auth.Verifier:
    keys = auth.derive(password, salt, iterations)
    return auth.Verifier(salt, iterations, keys.stored_key, keys.server_key)


# -------------------------------------------------------------------------------------------------------- md5 and stored forms


def test_md5_is_what_postgresql_stores_and_expects() -> None:
    # SELECT 'md5' || md5('secret' || 'bob'), and that with the salt 0x01020304.
    stored = auth.md5_hash(b"secret", b"bob")
    assert stored == "md5" + hashlib.md5(b"secretbob").hexdigest()
    assert auth.is_md5(stored)
    assert auth.md5_response(stored, b"\1\2\3\4") == b"md5" + hashlib.md5(stored[3:].encode() + b"\1\2\3\4").hexdigest().encode()


@pytest.mark.parametrize("secret", ["", "md5", "md5" + "g" * 32, "md5" + "a" * 31, "md5" + "A" * 32, "secret"])
def test_what_is_no_md5_hash_is_a_password(secret: str) -> None:
    assert not auth.is_md5(secret)


def test_a_verifier_is_read_and_written_as_pg_authid_has_it() -> None:
    # As PostgreSQL 15 stores it for the password "pencil", this salt and 4096 iterations.
    verifier = verifier_of(b"pencil")
    text = str(verifier)
    assert text.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:")
    assert auth.parse_verifier(text) == verifier


@pytest.mark.parametrize(
    "broken",
    [
        "SCRAM-SHA-256",
        "SCRAM-SHA-256$0:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-256$4096:c2FsdA==$" + "A" * 44 + ":" + "A" * 43 + "=",
        "SCRAM-SHA-256$4096:c2Fsd===$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-256$99999999:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-1$4096:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=",
    ],
)
def test_a_broken_verifier_is_a_password(broken: str) -> None:
    assert auth.parse_verifier(broken) is None


def test_no_secret_shows_in_a_repr() -> None:
    verifier = verifier_of(b"pencil")
    assert "stored_key" not in repr(verifier)
    assert repr(auth.derive(b"pencil", SALT, 1)) == "ScramKeys()"


@pytest.mark.parametrize(
    ("password", "hashed"),
    [
        (b"pencil", b"pencil"),
        (b"with\ttab", b"with\ttab"),  # ASCII is never touched
        ("I\u00adX".encode(), b"IX"),  # RFC 4013: soft hyphen maps to nothing
        ("\u00aa".encode(), b"a"),  # RFC 4013: NFKC
        ("\u2168".encode(), b"IX"),
        ("\u0627\u0031".encode(), "\u0627\u0031".encode()),  # RFC 4013: forbidden, so used as it is
        ("\u00ad".encode(), "\u00ad".encode()),  # nothing would be left
        (b"\xff\xfe", b"\xff\xfe"),  # not UTF-8
    ],
)
def test_passwords_are_normalized_or_used_as_they_are(password: bytes, hashed: bytes) -> None:
    assert auth.normalized(password) == hashed


# ------------------------------------------------------------------------------------------------------------------- SCRAM


def test_the_server_follows_the_example_of_rfc_7677() -> None:
    server = auth.ScramServer(auth.SCRAM, SALT, 4096, nonce=b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert server.on_client_first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    server.on_client_final(b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    verifier = verifier_of(b"pencil")
    assert server.client_key(verifier) == auth.derive(b"pencil", SALT, 4096).client_key
    assert server.client_key(verifier_of(b"pen")) == b""
    assert server.final(verifier) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=20), st.binary(min_size=1, max_size=20), st.integers(1, 50), st.booleans())
def test_our_client_and_our_server_agree(password: bytes, salt: bytes, iterations: int, bound: bool) -> None:
    binding = b"hash of the certificate" if bound else b""
    mechanism = auth.SCRAM_PLUS if bound else auth.SCRAM
    client = auth.ScramClient(auth.END_POINT if bound else b"n,,", binding)
    server = auth.ScramServer(mechanism, salt, iterations, binding)
    client.on_server_first(server.on_client_first(client.first()))
    assert (client.salt, client.iterations) == (salt, iterations)
    server.on_client_final(client.final(auth.derive(password, salt, iterations)))
    verifier = verifier_of(password, salt, iterations)
    assert server.client_key(verifier)
    assert not server.client_key(verifier_of(password + b"x", salt, iterations))
    client.on_server_final(server.final(verifier))


@pytest.mark.parametrize("password", ["pencil", "I\u00adX", "p\u00e4ss wort"])
def test_scramp_logs_in_at_our_server(password: str) -> None:
    client = scramp.ScramClient(["SCRAM-SHA-256"], "user", password)
    server = auth.ScramServer(auth.SCRAM, SALT, 4096)
    client.set_server_first(server.on_client_first(client.get_client_first().encode()).decode())
    server.on_client_final(client.get_client_final().encode())
    verifier = verifier_of(password.encode())
    assert server.client_key(verifier)
    client.set_server_final(server.final(verifier).decode())


def test_the_keys_that_a_login_reveals_log_in_elsewhere() -> None:
    verifier = verifier_of(b"pencil")
    learnt = auth.ScramKeys(auth.derive(b"pencil", SALT, 4096).client_key, verifier.server_key)
    client, server = auth.ScramClient(b"n,,"), auth.ScramServer(auth.SCRAM, SALT, 4096)
    client.on_server_first(server.on_client_first(client.first()))
    server.on_client_final(client.final(learnt))
    assert server.client_key(verifier) == learnt.client_key
    client.on_server_final(server.final(verifier))


def server_first(first: bytes, mechanism: str = auth.SCRAM, binding: bytes = b"") -> bytes:
    return auth.ScramServer(mechanism, SALT, 4096, binding).on_client_first(first)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"", "gs2"),
        (b"n,,", "attribute"),
        (b"n,,n=u", "missing"),
        (b"n,,r=abc,n=u", "expected attribute n"),
        (b"n,,m=ext,n=u,r=abc", "expected attribute n"),
        (b"n,,n=u,r=", "nonce"),
        (b"n,,n=u,r=a\x7fb", "nonce"),
        (b"n,,n=u,r=a\nb", "nonce"),
        (b"q,,n=u,r=abc", "channel binding"),
        (b"p=tls-server-end-point,,n=u,r=abc", "channel binding"),
        (b"n,a=admin,n=u,r=abc", "authorization identity"),
    ],
)
def test_a_malformed_first_message_is_refused(first: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        server_first(first)


def test_a_client_that_was_told_of_no_channel_binding_notices() -> None:
    assert server_first(b"y,,n=,r=abc")  # it could bind, but we do not offer it
    with pytest.raises(RemoteProtocolError, match="thinks the server does not"):
        server_first(b"y,,n=,r=abc", binding=b"hash")
    with pytest.raises(RemoteProtocolError, match="without channel binding"):
        server_first(b"n,,n=,r=abc", auth.SCRAM_PLUS, b"hash")
    with pytest.raises(RemoteProtocolError, match="without channel binding"):
        server_first(b"p=tls-unique,,n=,r=abc", auth.SCRAM_PLUS, b"hash")


def test_another_channel_is_refused() -> None:
    client, server = auth.ScramClient(auth.END_POINT, b"theirs"), auth.ScramServer(auth.SCRAM_PLUS, SALT, 1, b"ours")
    client.on_server_first(server.on_client_first(client.first()))
    with pytest.raises(RemoteProtocolError, match="channel binding check failed"):
        server.on_client_final(client.final(auth.derive(b"pencil", SALT, 1)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (rb".+", b""),
        (rb".{4}$", b""),
        (rb",p=", b",q="),
        (rb"c=biws", b"c=****"),
        (rb"r=", b"r=x"),
        (rb"p=.+", b"p=AAAA"),
        (rb"c=biws,", b""),
    ],
)
def test_a_malformed_final_message_is_refused(old: bytes, new: bytes) -> None:
    client, server = auth.ScramClient(b"n,,"), auth.ScramServer(auth.SCRAM, SALT, 1)
    client.on_server_first(server.on_client_first(client.first()))
    with pytest.raises(RemoteProtocolError, match="SCRAM"):
        server.on_client_final(re.sub(old, new, client.final(auth.derive(b"pencil", SALT, 1))))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"r=OTHERsrv,s=c2FsdA==,i=4096", "nonce"),
        (b"r=mine,s=c2FsdA==,i=4096", "nonce"),  # nothing of the server's own
        (b"r=mine\x01,s=c2FsdA==,i=4096", "nonce"),
        (b"r=minesrv,s=!,i=4096", "base64"),
        (b"r=minesrv,s=,i=4096", "salt"),
        (b"r=minesrv,s=c2FsdA==,i=0", "iteration"),
        (b"r=minesrv,s=c2FsdA==,i=-1", "iteration"),
        (b"r=minesrv,s=c2FsdA==,i=99999999999999999999", "iteration"),
        (b"r=minesrv,s=c2FsdA==,i=2147483647", "iteration"),
        (b"r=minesrv,s=c2FsdA==", "missing"),
        (b"e=other-error", "missing"),
        (b"", "missing"),
    ],
)
def test_a_servers_bad_first_message_is_refused(message: bytes, why: str) -> None:
    client = auth.ScramClient(b"n,,", nonce=b"mine")
    client.first()
    with pytest.raises(RemoteProtocolError, match=why):
        client.on_server_first(message)


def test_a_server_that_does_not_know_the_password_is_found_out() -> None:
    for final in (b"v=" + base64.b64encode(bytes(32)), b"v=", b"v=***", b"e=invalid-proof", b""):
        client = auth.ScramClient(b"n,,", nonce=b"mine")
        client.first()
        client.on_server_first(b"r=minesrv,s=c2FsdA==,i=1")
        client.final(auth.derive(b"pencil", b"salt", 1))
        with pytest.raises(RemoteProtocolError):
            client.on_server_final(final)


@given(st.binary(max_size=80))
def test_garbage_is_a_protocol_error_at_most(data: bytes) -> None:
    for use in (
        lambda: server_first(b"n,," + data),
        lambda: server_first(data),
        lambda: auth.ScramClient(b"n,,", nonce=b"a").on_server_first(data),
    ):
        try:
            use()
        except RemoteProtocolError:
            pass


# ------------------------------------------------------------------------------------------------------- caches, decoys, salts


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = auth.KeyCache(size=2)
    keys = auth.derive(b"p", b"salt", 1)
    cache.put(b"one", b"salt", 1, keys)
    cache.put(b"two", b"salt", 1, keys)
    assert cache.get(b"one", b"salt", 1) is keys
    cache.put(b"three", b"salt", 1, keys)
    assert cache.get(b"two", b"salt", 1) is None
    assert cache.get(b"one", b"salt", 1) is keys
    assert cache.get(b"one", b"other", 1) is None


def test_a_decoy_keeps_its_salt_and_looks_like_a_user_with_a_password() -> None:
    assert auth.decoy_verifier("bob") == auth.decoy_verifier("bob")
    assert auth.decoy_verifier("bob").salt == auth.salt_for("bob") != auth.salt_for("alice")
    assert len(auth.salt_for("bob")) == 16


# ------------------------------------------------------------------------------------------------------------- certificates


def certificate(algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None, *names: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()) if algorithm is not None else ed25519.Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, start, start + datetime.timedelta(days=1))
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


@pytest.mark.parametrize(("algorithm", "name"), [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384"), (hashes.SHA512(), "sha512")])
def test_the_channel_is_bound_by_the_certificates_own_hash(algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512, name: str) -> None:
    der = certificate(algorithm, "localhost")
    assert auth.end_point(der) == hashlib.new(name, der).digest()


def test_a_certificate_without_a_hash_binds_nothing() -> None:
    assert auth.end_point(certificate(None, "localhost")) == b""
    assert auth.end_point(b"") == b""
    assert auth.end_point(b"no certificate") == b""


def test_the_common_name_must_be_one() -> None:
    assert common_name(certificate(hashes.SHA256(), "bob")) == "bob"
    assert common_name(certificate(hashes.SHA256(), "bob", "alice")) == ""
    assert common_name(certificate(hashes.SHA256())) == ""
    assert common_name(b"no certificate") == ""
