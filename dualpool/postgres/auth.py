"""How PostgreSQL checks passwords, in both roles and without I/O: md5, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).

Why SCRAM is here and only its SASLprep comes from scramp: PostgreSQL's own dialect lies outside what scramp allows. libpq sends an
empty user name; passwords that SASLprep forbids are used as they are; iteration counts may be under 4096; one exchange may be tried
against several passwords; and keys instead of a password must be able to log in (pass-through).
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from functools import lru_cache
from typing import Final

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from scramp.utils import ScramException, saslprep  # type: ignore[import-untyped]

from dualpool.errors import RemoteProtocolError
from dualpool.protocol import Exchange, Offload

SCRAM: Final = "SCRAM-SHA-256"
SCRAM_PLUS: Final = "SCRAM-SHA-256-PLUS"
DEFAULT_ITERATIONS: Final = 4096
MAX_ITERATIONS: Final = 10_000_000
"""A server may not make us hash for longer than some seconds."""
END_POINT: Final = b"p=tls-server-end-point,,"
"""The gs2 header of a login with channel binding (RFC 5929)."""

_PROCESS_KEY: Final = secrets.token_bytes(32)
_SCRAM_SECRET: Final = re.compile(r"SCRAM-SHA-256\$(\d{1,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]{44}):([A-Za-z0-9+/=]{44})")
_MD5_SECRET: Final = re.compile(r"md5[0-9a-f]{32}")
_NONCE: Final = re.compile(rb"[\x21-\x2b\x2d-\x7e]+")


# ----------------------------------------------------------------------------------------------------------------------- md5


def is_md5(secret: str) -> bool:
    """Is this a stored md5 hash, as in `pg_authid`?"""
    return _MD5_SECRET.fullmatch(secret) is not None


def md5_hash(password: bytes, user: bytes) -> str:
    """`md5` and the hash of password and user name: what `pg_authid` stores."""
    return "md5" + hashlib.md5(password + user, usedforsecurity=False).hexdigest()


def md5_response(stored: str, salt: bytes) -> bytes:
    """What a client answers to AuthenticationMD5Password with `salt`, from its stored hash."""
    return b"md5" + hashlib.md5(stored[3:].encode() + salt, usedforsecurity=False).hexdigest().encode()


# ---------------------------------------------------------------------------------------------------------------- SCRAM's keys


@attrs.frozen
class ScramKeys:
    """What a password becomes with a salt and an iteration count. Who has the client key can log in."""

    client_key: bytes = attrs.field(repr=False)
    server_key: bytes = attrs.field(repr=False)

    @property
    def stored_key(self) -> bytes:
        """What a server keeps to recognise the client key."""
        return hashlib.sha256(self.client_key).digest()


@attrs.frozen
class Verifier:
    """What a server keeps of a password: enough to check a login, not enough to log in."""

    salt: bytes
    iterations: int
    stored_key: bytes = attrs.field(repr=False)
    server_key: bytes = attrs.field(repr=False)

    def __str__(self) -> str:
        """As `pg_authid` stores it."""
        salt, stored, server = (base64.b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key))
        return f"{SCRAM}${self.iterations}:{salt}${stored}:{server}"


def parse_verifier(secret: str) -> Verifier | None:
    """The verifier in a stored `SCRAM-SHA-256$...`, or None: then the secret is something else (as PostgreSQL sees it: a password)."""
    if (match := _SCRAM_SECRET.fullmatch(secret)) is None:
        return None
    iterations = int(match[1])
    try:
        salt, stored, server = (base64.b64decode(part, validate=True) for part in match.groups()[1:])
    except ValueError:
        return None
    if not 0 < iterations <= MAX_ITERATIONS or len(stored) != 32 or len(server) != 32:
        return None
    return Verifier(salt, iterations, stored, server)


def normalized(password: bytes) -> bytes:
    """The password as SCRAM hashes it: SASLprep, or the very bytes where that is not possible (pg_saslprep and its callers)."""
    if password.isascii():
        return password
    try:
        return str(saslprep(password.decode())).encode() or password
    except (ScramException, UnicodeDecodeError):
        return password


def derive(password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """Hash a password: some milliseconds for the usual 4096 iterations, so `Offload` it."""
    salted = hashlib.pbkdf2_hmac("sha256", normalized(password), salt, iterations)
    return ScramKeys(_hmac(salted, b"Client Key"), _hmac(salted, b"Server Key"))


class KeyCache:
    """Derived keys by (password, salt, iterations), the least recently used dropped: a login every time costs one hash, not 4096.

    Only passwords from the configuration or ones that just let somebody in belong here, never guesses.
    """

    def __init__(self, size: int = 4096) -> None:
        self._keys: OrderedDict[tuple[bytes, bytes, int], ScramKeys] = OrderedDict()
        self._size = size

    def get(self, password: bytes, salt: bytes, iterations: int) -> ScramKeys | None:
        """The keys, if they are known."""
        if (keys := self._keys.get((password, salt, iterations))) is not None:
            self._keys.move_to_end((password, salt, iterations))
        return keys

    def put(self, password: bytes, salt: bytes, iterations: int, keys: ScramKeys) -> None:
        """Remember `keys`."""
        self._keys[password, salt, iterations] = keys
        while len(self._keys) > self._size:
            self._keys.popitem(last=False)


KEYS: Final = KeyCache()


def known_keys(password: bytes, salt: bytes, iterations: int) -> Exchange[ScramKeys]:
    """The keys of a password that we hold ourselves: from `KEYS`, or derived once and kept there."""
    if (keys := KEYS.get(password, salt, iterations)) is None:
        keys = yield Offload(lambda: derive(password, salt, iterations))
        KEYS.put(password, salt, iterations, keys)
    return keys


def salt_for(user: str) -> bytes:
    """The salt that a user without a stored verifier is told: as stable (in this process) as a stored one, known user or not."""
    return _hmac(_PROCESS_KEY, b"salt " + user.encode("utf-8", "surrogateescape"))[:16]


def decoy_verifier(user: str) -> Verifier:
    """A verifier that no password opens (mock authentication: docs, `mock_authentication_nonce` in scram.c's words)."""
    name = user.encode("utf-8", "surrogateescape")
    return Verifier(salt_for(user), DEFAULT_ITERATIONS, _hmac(_PROCESS_KEY, b"stored " + name), _hmac(_PROCESS_KEY, b"server " + name))


# --------------------------------------------------------------------------------------------------------------- certificates


@lru_cache(maxsize=64)
def end_point(certificate: bytes) -> bytes:
    """The channel binding data `tls-server-end-point` of a DER certificate (RFC 5929, 4.1); b"" if it has none (Ed25519)."""
    if not certificate:
        return b""
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return b""
    if algorithm is None:
        return b""
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    return hashlib.new(name, certificate).digest()


# ------------------------------------------------------------------------------------------------------------ SCRAM's messages


class ScramServer:
    """The server's side of one SCRAM exchange. `binding`: the channel binding data if we offer SCRAM-SHA-256-PLUS, else b"".

    Both methods raise RemoteProtocolError for what is not SCRAM; a wrong password is not an error but a proof that opens nothing.
    """

    def __init__(self, mechanism: str, salt: bytes, iterations: int, binding: bytes = b"", nonce: bytes = b"") -> None:
        self._plus = mechanism == SCRAM_PLUS
        self._salt = salt
        self._iterations = iterations
        self._binding = binding
        self._nonce = nonce or _new_nonce()
        self._header = b""
        self._auth_message = b""
        self._proof = b""

    def on_client_first(self, message: bytes) -> bytes:
        """The server-first-message that answers the client's first."""
        flag, authzid, bare = _split_gs2(message)
        self._check_flag(flag)
        if authzid:
            raise RemoteProtocolError("the client uses a SCRAM authorization identity, which is not supported", sqlstate="0A000")
        self._header = message[: len(message) - len(bare)]
        _, client_nonce = _attributes(bare, b"nr")
        self._nonce = _checked_nonce(client_nonce) + self._nonce
        server_first = b"r=%s,s=%s,i=%d" % (self._nonce, base64.b64encode(self._salt), self._iterations)
        self._auth_message = bare + b"," + server_first + b","
        return server_first

    def on_client_final(self, message: bytes) -> None:
        """Take the client's proof."""
        without_proof, mark, proof = message.rpartition(b",p=")
        if not mark:
            raise _malformed("no proof")
        channel, nonce = _attributes(without_proof, b"cr")
        expected = self._header + (self._binding if self._plus else b"")
        if not hmac.compare_digest(_decoded(channel), expected):
            raise RemoteProtocolError("SCRAM channel binding check failed", sqlstate="28000")
        if not hmac.compare_digest(nonce, self._nonce):
            raise _malformed("the nonce does not match")
        self._proof = _decoded(proof)
        if len(self._proof) != 32:
            raise _malformed("the proof has not 32 bytes")
        self._auth_message += without_proof

    def client_key(self, verifier: Verifier) -> bytes:
        """The key that the client has proven to hold if it is the verifier's, else b""."""
        key = _xor(self._proof, _hmac(verifier.stored_key, self._auth_message))
        return key if hmac.compare_digest(hashlib.sha256(key).digest(), verifier.stored_key) else b""

    def final(self, verifier: Verifier) -> bytes:
        """The server-final-message, which proves to the client that we hold its verifier."""
        return b"v=" + base64.b64encode(_hmac(verifier.server_key, self._auth_message))

    def _check_flag(self, flag: bytes) -> None:
        if self._plus:
            if flag != b"p=tls-server-end-point":
                raise _malformed("SCRAM-SHA-256-PLUS without channel binding to tls-server-end-point")
        elif flag == b"y" and self._binding:
            # The client believes that we do not offer -PLUS, but we did: somebody in between took it out.
            raise RemoteProtocolError(
                "the client supports SCRAM channel binding but thinks the server does not, though it offers it", sqlstate="28000"
            )
        elif flag not in (b"n", b"y"):
            raise _malformed("channel binding without SCRAM-SHA-256-PLUS")


class ScramClient:
    """The client's side of one SCRAM exchange. `header` is its gs2 header, `binding` the channel binding data if that asks for it.

    The methods raise RemoteProtocolError for what is not SCRAM, or not from who it should be.
    """

    def __init__(self, header: bytes, binding: bytes = b"", nonce: bytes = b"") -> None:
        self._header = header
        self._channel = base64.b64encode(header + binding)
        self._nonce = nonce or _new_nonce()
        self._server_nonce = b""
        self._auth_message = b""
        self._signature = b""
        self.salt = b""
        self.iterations = 0

    def first(self) -> bytes:
        """The client-first-message. The user name is left empty as libpq does: the start-up packet has it."""
        return self._header + b"n=,r=" + self._nonce

    def on_server_first(self, message: bytes) -> None:
        """Take the salt and the iteration count that the keys have to be derived with."""
        nonce, salt, iterations = _attributes(message, b"rsi")
        if not nonce.startswith(self._nonce) or len(nonce) <= len(self._nonce):
            raise _malformed("the server's nonce does not continue ours")
        self._server_nonce = _checked_nonce(nonce)
        self.salt = _decoded(salt)
        if not iterations.isdigit() or len(iterations) > 9 or not 0 < int(iterations) <= MAX_ITERATIONS:
            raise _malformed("the iteration count is not within 1 and 10 million")
        if not self.salt:
            raise _malformed("no salt")
        self.iterations = int(iterations)
        self._auth_message = b"n=,r=%s,%s," % (self._nonce, message)

    def final(self, keys: ScramKeys) -> bytes:
        """The client-final-message, with the proof that we hold the client key."""
        without_proof = b"c=%s,r=%s" % (self._channel, self._server_nonce)
        self._auth_message += without_proof
        self._signature = _hmac(keys.server_key, self._auth_message)
        proof = _xor(keys.client_key, _hmac(keys.stored_key, self._auth_message))
        return without_proof + b",p=" + base64.b64encode(proof)

    def on_server_final(self, message: bytes) -> None:
        """Check that the server holds our verifier: one that does not is an impostor."""
        if message.startswith(b"e="):
            raise _malformed("the server says " + message[2:102].decode("ascii", "replace"))
        (signature,) = _attributes(message, b"v")
        if not hmac.compare_digest(_decoded(signature), self._signature):
            raise RemoteProtocolError("the server could not prove that it knows the password (wrong SCRAM server signature)")


def _split_gs2(message: bytes) -> tuple[bytes, bytes, bytes]:
    parts = message.split(b",", 2)
    if len(parts) != 3:
        raise _malformed("no gs2 header")
    return parts[0], parts[1], parts[2]


def _attributes(message: bytes, names: bytes) -> list[bytes]:
    """The values of the attributes that must begin a message, in their order. Extensions may follow, and are ignored (RFC 5802, 7)."""
    parts = message.split(b",")
    if len(parts) < len(names):
        raise _malformed("an attribute is missing")
    for part, name in zip(parts, names, strict=False):
        if part[:2] != bytes((name, 0x3D)):
            raise _malformed(f"expected attribute {chr(name)}")
    return [part[2:] for part in parts[: len(names)]]


def _checked_nonce(nonce: bytes) -> bytes:
    if not _NONCE.fullmatch(nonce):
        raise _malformed("unprintable characters in the nonce")
    return nonce


def _decoded(data: bytes) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise _malformed("invalid base64") from None


def _malformed(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"malformed SCRAM message: {detail}")


def _new_nonce() -> bytes:
    return base64.b64encode(secrets.token_bytes(18))


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
