"""Password proofs, against pymysql's, cryptography's and MySQL's own."""

import hashlib
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st
from pymysql._auth import scramble_caching_sha2, scramble_native_password, sha2_rsa_encrypt

from dualpool.accounts import LearntSecret
from dualpool.mysql import auth

NATIVE_APP = "*5BCB3E6AC345B435C7C2E6B7949A04CE6F6563D3"
SHA2_SECRET = bytes.fromhex(
    "244124303041240a17036105344c321119090a6f105b55660e47"
    "05736f704f512e61675445734d41575a475a67516d3273427942557a786f6a3457503273416b455670687930"
).decode()
"""What MySQL 9.7 stored for the password `secret`: 10000 rounds."""
PBKDF2_SECRET = bytes.fromhex(
    "24422430304124347a4674074a4b7832614b7c3c487e13266b1a5f687557495231345a673131357742586141757250484c39456d4d444d5072"
    "572b4a7558745556774d5958474f7a7473755568654c514a626362536b4677347a466a6d336869697330432f6b543865392f77436f6b2f413d3d"
).decode()
"""The same with caching_sha2_password_storage_format = PBKDF2_SHA512."""


def test_what_a_stored_secret_is() -> None:
    assert auth.kind_of(NATIVE_APP) == "sha1"
    assert auth.kind_of(SHA2_SECRET) == "sha2"
    assert auth.kind_of("0x" + SHA2_SECRET.encode().hex()) == "sha2"
    assert auth.kind_of(PBKDF2_SECRET) == auth.kind_of("0x" + PBKDF2_SECRET.encode().hex()) == "sha2"
    assert auth.kind_of("md5" + "0" * 32) == auth.kind_of("SCRAM-SHA-256$4096:salt$a:b") == "foreign"
    for plain in ("", "secret", "*5BCB", "$A$005$short", "0x244124", "0x244124zz", "*" * 41):
        assert auth.kind_of(plain) == "plain"


@given(st.text(min_size=1, max_size=80))
def test_tokens_are_pymysql_s(password: str) -> None:
    password = password.encode("utf-8", "replace").decode()
    nonce = auth.make_nonce()
    native, sha2 = auth.native_stage1(password), auth.sha2_stage1(password)
    assert auth.native_token(native, nonce) == scramble_native_password(password.encode(), nonce)
    assert auth.sha2_token(sha2, nonce) == scramble_caching_sha2(password.encode(), nonce)


def test_nonces_hold_neither_nul_nor_dollar() -> None:
    nonces = [auth.make_nonce() for _ in range(200)]
    assert len(set(nonces)) == 200
    assert not {0, ord("$")} & set(b"".join(nonces))


def test_a_native_token_reveals_the_stage_that_logs_in_at_a_server() -> None:
    nonce = auth.make_nonce()
    stage1 = auth.native_stage1("app")
    stored = "*" + hashlib.sha1(stage1).hexdigest().upper()
    learnt = auth.check_native((stored,), auth.native_token(stage1, nonce), nonce)
    assert learnt == LearntSecret(stage1=stage1)


@pytest.mark.parametrize("token", [b"", bytes(20), bytes(19), bytes(32), b"x" * 500])
def test_wrong_tokens_prove_nothing(token: bytes) -> None:
    nonce = auth.make_nonce()
    assert auth.check_native(("app", NATIVE_APP, SHA2_SECRET, ""), token, nonce) is None
    assert auth.check_sha2(("app", ""), token, nonce) is None
    assert auth.native_recover(token, nonce, bytes(20)) == b""


def test_any_of_several_passwords_may_be_proved() -> None:
    nonce = auth.make_nonce()
    stored = ("old", "new")
    for password in stored:
        assert auth.check_native(stored, auth.native_token(auth.native_stage1(password), nonce), nonce) == LearntSecret(password=password)
        assert auth.check_sha2(stored, auth.sha2_token(auth.sha2_stage1(password), nonce), nonce) == LearntSecret(password=password)


def test_a_password_against_all_that_can_be_stored() -> None:
    native = "*" + hashlib.sha1(auth.native_stage1("secret")).hexdigest().upper()
    stored = ("other", "md5" + "0" * 32, native, SHA2_SECRET, "0x" + SHA2_SECRET.encode().hex(), PBKDF2_SECRET, "secret")
    assert auth.fitting_secrets(stored, "secret") == list(stored[2:])
    assert auth.fitting_secrets(stored, "Secret") == []
    assert auth.fitting_secrets(stored, "") == []


@pytest.mark.parametrize(
    ("password", "salt", "rounds", "digest"),
    [
        # What glibc's crypt(3) makes of them.
        (b"Hello world!", b"saltstring", 5000, b"5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
        (b"Hello world!", b"saltstringsaltst", 10000, b"3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"),
        (b"we have a short salt string but not a short password", b"short", 77777, b"JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/"),
        (b"", b"abc", 5000, b"bBHLwRRW2Li0XKaX13kz/g2fkDil4Jx46aNvd.48MS8"),
        (b"x" * 70, b"abc", 5000, b"5ox4QOf8XoCKLSxoCXvmgZ1th6KC4nDv0o9/Fj2v2E/"),
    ],
)
def test_sha256_crypt(password: bytes, salt: bytes, rounds: int, digest: bytes) -> None:
    assert auth.sha256_crypt(password, salt, rounds) == digest


def test_a_hash_of_postgresql_s_is_no_password() -> None:
    nonce = auth.make_nonce()
    for secret in ("md5" + "0" * 32, "SCRAM-SHA-256$4096:salt$a:b", NATIVE_APP, SHA2_SECRET):
        assert auth.check_native((secret,), auth.native_token(auth.native_stage1(secret), nonce), nonce) is None
        assert auth.fitting_secrets((secret,), secret) == []


def test_the_password_cache_forgets_the_oldest() -> None:
    cache = auth.PasswordCache(size=2)
    for name in "abc":
        cache.put(name, name.upper())
    assert [cache.get(name) for name in "abc"] == [None, "B", "C"]


def test_rsa_is_what_clients_encrypt_with() -> None:
    key = auth.RsaKey()
    with ThreadPoolExecutor(4) as pool:
        pems = set(pool.map(lambda _: key.public_pem(), range(4)))
    assert len(pems) == 1
    nonce = auth.make_nonce()
    assert key.decrypt(sha2_rsa_encrypt("gehëim".encode(), nonce, pems.pop()), nonce) == "gehëim"
    for garbage in (b"", b"secret\0", bytes(256)):
        assert key.decrypt(garbage, nonce) is None


@given(st.text(st.characters(codec="ascii"), min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_ed25519_is_the_standard_one_for_passwords_of_32_bytes(password: str, nonce: bytes) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(password.encode())
    assert auth.ed25519_sign(password, nonce) == key.sign(nonce)
    assert auth.ed25519_public_key(password) == key.public_key().public_bytes_raw()


def test_ed25519_public_keys_are_mariadb_s() -> None:
    # MariaDB documentation, "Authentication Plugin - ed25519": SELECT ED25519_PASSWORD("secret").
    assert b64encode(auth.ed25519_public_key("secret")).rstrip(b"=") == b"ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY"


def test_ed25519_signatures() -> None:
    nonce = auth.make_nonce(32)
    signature = auth.ed25519_sign("a", nonce)
    assert auth.check_ed25519(("b", "", "a"), signature, nonce) == LearntSecret(password="a")
    assert auth.check_ed25519(("b",), signature, nonce) is None
    assert auth.check_ed25519(("a",), signature[:-1], nonce) is None
    assert auth.check_ed25519(("a",), signature, auth.make_nonce(32)) is None
