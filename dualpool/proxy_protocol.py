"""The PROXY protocol, versions 1 and 2: a load balancer's word on whose connection it passes on.

Source: "The PROXY protocol", haproxy.org, sections 2.1 and 2.2. The header is required from those who may send one and read from nobody
else: to guess would let anybody claim any address.
"""

import ipaddress
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from dualpool.authentication.hba import Network, plain
from dualpool.authentication.peers import Peer
from dualpool.errors import RemoteProtocolError
from dualpool.protocol import Exchange, Receive

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIRST_BYTES: Final = len(SIGNATURE)
"""Shorter than any header of either version, and enough to tell them apart."""
V1_START: Final = b"PROXY "
V1_MAX: Final = 107
V2_HEAD: Final = struct.Struct("!BBH")
V2_MAX: Final = 4096
"""Bytes of addresses and extensions that are read; what balancers send are some dozens."""
LOCAL: Final = 0x20
PROXY: Final = 0x21
TCP4: Final = 0x11
TCP6: Final = 0x21
ADDRESSES: Final = {TCP4: struct.Struct("!4s4sHH"), TCP6: struct.Struct("!16s16sHH")}
V1_FAMILIES: Final = {b"TCP4": 4, b"TCP6": 6}


@lru_cache(maxsize=64)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """The networks that a listener's configuration names."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def speaks_for_others(peer: Peer, networks: Iterable[Network]) -> bool:
    """Is it one of those whose connections begin with a header?"""
    return peer.address is not None and any(plain(peer.address) in network for network in networks)


def read_header(sender: Peer) -> Exchange[Peer]:
    """Whose connection it is: the client that the header names, or the sender itself. Raises RemoteProtocolError."""
    first: bytes = yield Receive(FIRST_BYTES)
    if first == SIGNATURE:
        return (yield from _version_2(sender))
    if first.startswith(V1_START):
        return (yield from _version_1(first, sender))
    raise RemoteProtocolError("no PROXY header from an address of listeners.*.proxy_protocol")


def _version_1(line: bytes, sender: Peer) -> Exchange[Peer]:
    while not line.endswith(b"\r\n"):
        if len(line) >= V1_MAX:
            raise RemoteProtocolError(f"a PROXY header of more than {V1_MAX} bytes")
        # Byte by byte: what follows the header belongs to the client.
        line += yield Receive(1)
    words = line[:-2].split(b" ")
    if words[1] == b"UNKNOWN":
        return sender
    family = V1_FAMILIES.get(words[1])
    if family is None or len(words) != 6:
        raise RemoteProtocolError("a PROXY header that is not understood")
    try:
        address, _ = (ipaddress.ip_address(word.decode("ascii")) for word in words[2:4])
        port, _ = (_port(word) for word in words[4:])
    except ValueError:
        raise RemoteProtocolError("a PROXY header with an address that is none") from None
    if address.version != family:
        raise RemoteProtocolError("a PROXY header with an address of the wrong family")
    return Peer(plain(address), port)


def _port(text: bytes) -> int:
    number = int(text) if text.isdigit() and len(text) <= 5 else -1
    if not 0 <= number <= 65_535 or str(number).encode() != text:
        raise ValueError(text)
    return number


def _version_2(sender: Peer) -> Exchange[Peer]:
    command, family, length = V2_HEAD.unpack((yield Receive(V2_HEAD.size)))
    if command not in (LOCAL, PROXY):
        raise RemoteProtocolError(f"a PROXY header with the unknown version and command {command:#04x}")
    if length > V2_MAX:
        raise RemoteProtocolError(f"a PROXY header of {length} bytes")
    body: bytes = (yield Receive(length)) if length else b""
    layout = ADDRESSES.get(family)
    if command == LOCAL or layout is None:
        # Its own health check, or a kind of address that says nothing to us: the sender is all that is known.
        return sender
    if length < layout.size:
        raise RemoteProtocolError("a PROXY header that is too short for its addresses")
    source, _, port, _ = layout.unpack_from(body)
    return Peer(plain(ipaddress.ip_address(source)), port)
