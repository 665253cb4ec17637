"""How MySQL and MariaDB prove passwords, both roles: what a client computes, and what a server can check and learn.

* mysql_native_password: stage1 = SHA1(password); stored stage2 = SHA1(stage1), as `*HEX`; sent stage1 XOR SHA1(nonce, stage2).
* caching_sha2_password: stage1 = SHA256(password), stage2 = SHA256(stage1), kept in memory only; sent
  stage1 XOR SHA256(stage2, nonce). What is stored is a sha256-crypt of the password (`$A$005$...`), in MySQL 9.7 also PBKDF2
  (`$B$00A$...`), so the first login after a start needs the password itself: over TLS, or encrypted with the server's RSA key.
* client_ed25519 (MariaDB): an Ed25519 signature (RFC 8032) of the nonce whose secret key is the password, whatever its length.

Both XORs tell a server that knows stage2 the client's stage1, which is all that the next server asks for.
Sources: MySQL "Authentication Methods", mysql-server sql/auth/sha2_password.cc, Drepper's "Unix crypt using SHA-256", MariaDB
plugin/auth_ed25519.
"""

import hashlib
import re
import secrets
import threading
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha1, sha256
from hmac import compare_digest
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from dualpool.accounts import LearntSecret

NATIVE: Final = "mysql_native_password"
CACHING_SHA2: Final = "caching_sha2_password"
SHA256: Final = "sha256_password"
CLEAR: Final = "mysql_clear_password"
ED25519: Final = "client_ed25519"

SecretKind = Literal["plain", "sha1", "sha2", "foreign"]

SHA1_STAGE: Final = 20
SHA256_STAGE: Final = 32
"""The size of `LearntSecret.stage1` says whose stage it is."""

ED25519_NONCE: Final = 32

CRYPT_SALT: Final = 20
CRYPT_DIGEST: Final = 43
_SHA1_SECRET: Final = re.compile(r"\*[0-9A-Fa-f]{40}")
_SHA2_SECRET: Final = re.compile(
    rf"\$([AB])\$([0-9A-F]{{3}})\$(.{{{CRYPT_SALT}}})([./0-9A-Za-z]{{{CRYPT_DIGEST}}}|[+/0-9A-Za-z]{{86}}==)", re.DOTALL
)
_FOREIGN_SECRET: Final = re.compile(r"md5[0-9a-f]{32}|SCRAM-SHA-256\$.*", re.DOTALL)
_CRYPT_ALPHABET: Final = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CRYPT_ORDER: Final = bytes.fromhex("000a14 15010b 0c1602 030d17 18040e 0f1905 06101a 1b0711 121c08 09131d")

# A nonce travels as a NUL-terminated string, and the stored hashes use "$" to part their fields, so the servers avoid both.
_NONCE_BYTES: Final = bytes(byte for byte in range(1, 128) if byte != ord("$"))


def kind_of(secret: str) -> SecretKind:
    """What a stored secret is. PostgreSQL's hashes, of a user that both engines have, open nothing here; what is no hash is a password."""
    if _FOREIGN_SECRET.fullmatch(secret):
        return "foreign"
    if _SHA1_SECRET.fullmatch(secret):
        return "sha1"
    return "sha2" if _SHA2_SECRET.fullmatch(unhex(secret)) else "plain"


def unhex(secret: str) -> str:
    """A `$A$` or `$B$` hash in hexadecimal, as SHOW CREATE USER prints it under print_identified_with_as_hex, as what it stands for."""
    if not secret.startswith(("0x244124", "0x244224")):
        return secret
    try:
        return bytes.fromhex(secret[2:]).decode("latin-1")
    except ValueError:
        return secret


def make_nonce(size: int = 20) -> bytes:
    """`size` unpredictable bytes, as a server's challenge."""
    return bytes(secrets.choice(_NONCE_BYTES) for _ in range(size))


# ------------------------------------------------------------------------------------------------------------ native and SHA-2


def native_stage1(password: str) -> bytes:
    return sha1(password.encode(), usedforsecurity=False).digest()


def native_token(stage1: bytes, nonce: bytes) -> bytes:
    """What a client with SHA1(password) sends."""
    return _xor(stage1, _sha1(nonce + _sha1(stage1)))


def native_recover(token: bytes, nonce: bytes, stage2: bytes) -> bytes:
    """The client's SHA1(password), if `token` fits the stored `stage2`; else b""."""
    if len(token) != SHA1_STAGE:
        return b""
    stage1 = _xor(token, _sha1(nonce + stage2))
    return stage1 if compare_digest(_sha1(stage1), stage2) else b""


def sha2_stage1(password: str) -> bytes:
    return sha256(password.encode()).digest()


def sha2_token(stage1: bytes, nonce: bytes) -> bytes:
    """What a client with SHA256(password) sends."""
    return _xor(stage1, sha256(sha256(stage1).digest() + nonce).digest())


def check_native(stored: Iterable[str], token: bytes, nonce: bytes) -> LearntSecret | None:
    """Which of the stored plain passwords and `*HEX` hashes `token` proves."""
    learnt = None
    for secret in stored:
        kind = kind_of(secret)
        if kind == "plain" and secret and compare_digest(token, native_token(native_stage1(secret), nonce)):
            learnt = LearntSecret(password=secret)
        elif kind == "sha1" and (stage1 := native_recover(token, nonce, bytes.fromhex(secret[1:]))):
            learnt = LearntSecret(stage1=stage1)
    return learnt


def check_sha2(passwords: Iterable[str], token: bytes, nonce: bytes) -> LearntSecret | None:
    """Which of the known passwords `token` proves."""
    learnt = None
    for password in passwords:
        if password and compare_digest(token, sha2_token(sha2_stage1(password), nonce)):
            learnt = LearntSecret(password=password)
    return learnt


# --------------------------------------------------------------------------------------------------------- the password itself


def fitting_secrets(stored: Iterable[str], password: str) -> list[str]:
    """Those of the stored secrets that `password` fits. Some milliseconds for each `$A$005$` hash: call it in a worker thread."""
    return [secret for secret in stored if _fits(secret, password)]


def _fits(secret: str, password: str) -> bool:
    kind = kind_of(secret)
    if kind == "plain":
        return compare_digest(secret.encode(), password.encode())
    if not password or kind == "foreign":
        return False
    if kind == "sha1":
        return compare_digest(bytes.fromhex(secret[1:]), _sha1(native_stage1(password)))
    return _fits_sha2(unhex(secret), password.encode())


def _fits_sha2(secret: str, password: bytes) -> bool:
    match = _SHA2_SECRET.fullmatch(secret)
    assert match is not None
    rounds, salt, digest = int(match[2], 16) * 1000, match[3].encode("latin-1"), match[4].encode("ascii")
    if match[1] == "A":
        return compare_digest(sha256_crypt(password, salt, rounds), digest)
    return compare_digest(b64encode(hashlib.pbkdf2_hmac("sha512", password, salt, rounds)), digest)


def sha256_crypt(password: bytes, salt: bytes, rounds: int) -> bytes:
    """The digest part of glibc's sha256-crypt. (crypt(3) itself cuts a salt at 16 bytes; MySQL's have 20.)"""
    first = sha256(password + salt + password).digest()
    mixed = password + salt + _repeat(first, len(password))
    bits = len(password)
    while bits:
        mixed += first if bits & 1 else password
        bits >>= 1
    digest = sha256(mixed).digest()
    p = _repeat(sha256(password * len(password)).digest(), len(password))
    s = _repeat(sha256(salt * (16 + digest[0])).digest(), len(salt))
    for turn in range(rounds):
        odd = turn & 1
        middle = (s if turn % 3 else b"") + (p if turn % 7 else b"")
        digest = sha256((p if odd else digest) + middle + (digest if odd else p)).digest()
    return _crypt_base64(digest)


def _repeat(block: bytes, size: int) -> bytes:
    return (block * (size // len(block) + 1))[:size]


def _crypt_base64(digest: bytes) -> bytes:
    values = [int.from_bytes(bytes(digest[i] for i in _CRYPT_ORDER[at : at + 3]), "big") for at in range(0, 30, 3)]
    letters = bytes(_CRYPT_ALPHABET[value >> shift & 63] for value in values for shift in (0, 6, 12, 18))
    last = digest[31] << 8 | digest[30]
    return letters + bytes(_CRYPT_ALPHABET[last >> shift & 63] for shift in (0, 6, 12))


class PasswordCache:
    """Passwords that have been found to fit a stored hash, by that hash: what caching_sha2_password caches. In memory only.

    Kept as passwords, not as digests, because a server that has lost its own cache will ask for the password itself.
    """

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._known: dict[str, str] = {}

    def get(self, stored: str) -> str | None:
        return self._known.get(stored)

    def put(self, stored: str, password: str) -> None:
        if len(self._known) >= self._size:
            del self._known[next(iter(self._known))]
        self._known[stored] = password

    def clear(self) -> None:
        self._known.clear()


# ------------------------------------------------------------------------------------------------------------------------ RSA


class RsaKey:
    """The key pair with which clients encrypt a password on a connection without TLS. Made when first needed, once per process.

    It proves nothing about who we are: a client that can, should use TLS.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: rsa.RSAPrivateKey | None = None

    def public_pem(self) -> bytes:
        """The public key. The first call takes some hundred milliseconds, so make it in a worker thread."""
        public = self._private().public_key()
        return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def decrypt(self, data: bytes, nonce: bytes) -> str | None:
        """The password that a client sent, or None if it is not encrypted with our key."""
        try:
            masked = self._private().decrypt(data, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
        except ValueError:
            return None
        return end_at_nul(_xor(masked, _repeat(nonce, len(masked))))

    def _private(self) -> rsa.RSAPrivateKey:
        with self._lock:
            if self._key is None:
                self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            return self._key


def end_at_nul(data: bytes) -> str | None:
    """The password of a NUL-terminated string, or None where it is none."""
    if not data.endswith(b"\0"):
        return None
    try:
        return data[:-1].decode()
    except UnicodeDecodeError:
        return None


# -------------------------------------------------------------------------------------------------------------------- Ed25519
# RFC 8032 section 5.1 with a secret key of any length, which no library offers. Not constant in time: we sign once per server connection.

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_BASE_Y: Final = 4 * pow(5, -1, _P) % _P
_BASE_X: Final = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_Point = tuple[int, int, int, int]
_BASE: Final[_Point] = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)


def ed25519_public_key(password: str) -> bytes:
    """What MariaDB stores for `password` (there in base64). Some milliseconds."""
    return _compress(_multiply(_ed25519_scalar(password), _BASE))


def ed25519_sign(password: str, nonce: bytes) -> bytes:
    """What a client sends for a nonce of 32 bytes. Some milliseconds."""
    scalar = _ed25519_scalar(password)
    public = _compress(_multiply(scalar, _BASE))
    r = _sha512_int(hashlib.sha512(password.encode()).digest()[32:] + nonce) % _L
    point = _compress(_multiply(r, _BASE))
    s = (r + _sha512_int(point + public + nonce) * scalar) % _L
    return point + s.to_bytes(32, "little")


def check_ed25519(stored: Iterable[str], signature: bytes, nonce: bytes) -> LearntSecret | None:
    """Which of the stored plain passwords the signature proves. Some milliseconds each."""
    learnt = None
    for secret in stored:
        if secret and kind_of(secret) == "plain" and _signed_by(ed25519_public_key(secret), signature, nonce):
            learnt = LearntSecret(password=secret)
    return learnt


def _signed_by(public_key: bytes, signature: bytes, nonce: bytes) -> bool:
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public_key).verify(signature, nonce)
    except InvalidSignature:
        return False
    return True


def _ed25519_scalar(password: str) -> int:
    value = int.from_bytes(hashlib.sha512(password.encode()).digest()[:32], "little")
    return value & (1 << 254) - 8 | 1 << 254


def _sha512_int(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little")


def _add(p: _Point, q: _Point) -> _Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(scalar: int, point: _Point) -> _Point:
    result: _Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _compress(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


# --------------------------------------------------------------------------------------------------------------------- helpers


def _sha1(data: bytes) -> bytes:
    return sha1(data, usedforsecurity=False).digest()


def _xor(left: bytes, right: bytes) -> bytes:
    size = len(left)
    return (int.from_bytes(left, "big") ^ int.from_bytes(right[:size], "big")).to_bytes(size, "big")
