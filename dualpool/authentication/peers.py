"""Who is at the other end of a client's socket, before it has said anything, and what its TLS adds."""

import contextlib
import ipaddress
import pwd
import socket
import ssl
import struct
import sys
from typing import Final

import attrs
from cryptography import x509
from cryptography.x509.oid import NameOID

from dualpool.authentication.hba import Address, plain

UCRED: Final = struct.Struct("3i")
"""Linux, unix(7): pid, uid, gid."""
XUCRED_UID: Final = struct.Struct("II")
"""macOS, sys/ucred.h: version, uid, and more."""
LOCAL_PEERCRED: Final = 1


@attrs.frozen
class Peer:
    """A client's end. `address` is None for a Unix socket; `name` is for logs and messages."""

    address: Address | None
    port: int = 0

    @property
    def name(self) -> str:
        """`host:port`, or words for what has none."""
        if self.address is None:
            return "a local client"
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"

    @property
    def is_near(self) -> bool:
        """On this machine, so that nobody can listen in between."""
        return self.address is None or plain(self.address).is_loopback


def peer_of(sock: socket.socket) -> Peer:
    """The socket's own idea of it. Raises OSError if the client is gone already."""
    name = sock.getpeername()
    if sock.family == socket.AF_UNIX:
        return Peer(None)
    return Peer(plain(ipaddress.ip_address(name[0].partition("%")[0])), name[1])


def system_user(sock: socket.socket) -> tuple[int, str]:
    """The operating system's user at the other end of a Unix socket: number and name ("" where it has none). Raises OSError."""
    if sys.platform == "linux":
        _, uid, _ = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    else:
        _, uid = XUCRED_UID.unpack_from(sock.getsockopt(0, LOCAL_PEERCRED, 128))
    try:
        return uid, pwd.getpwuid(uid).pw_name
    except KeyError:
        return uid, ""


def process_of(sock: socket.socket) -> int:
    """The process at the other end of a Unix socket; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError):
        return int(UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))[0])
    return 0


def certificate_of(sock: socket.socket) -> bytes:
    """The certificate (DER) that the client has shown; b"" without one."""
    return (sock.getpeercert(binary_form=True) or b"") if isinstance(sock, ssl.SSLSocket) else b""


def common_name(certificate: bytes) -> str:
    """The CN of a certificate, or "" if it has none or more than one."""
    try:
        names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return ""
    return str(names[0].value) if len(names) == 1 else ""
