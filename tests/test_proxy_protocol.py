"""PROXY headers, read byte by byte, and what is none."""

import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.authentication.peers import Peer
from dualpool.errors import RemoteProtocolError
from dualpool.protocol import Receive
from dualpool.proxy_protocol import SIGNATURE, networks, read_header, speaks_for_others

SENDER = Peer(ip_address("192.0.2.1"), 1000)


def read(data: bytes) -> tuple[Peer, bytes]:
    """The peer that a header names, and what is left for the client. EOFError if more is asked for than there is."""
    exchange = read_header(SENDER)
    answer: bytes | None = None
    while True:
        try:
            command = exchange.send(answer)  # type: ignore[arg-type]
        except StopIteration as stop:
            return stop.value, data
        assert isinstance(command, Receive)
        if command.size > len(data):
            raise EOFError
        answer, data = data[: command.size], data[command.size :]


def version_2(family: int, addresses: bytes, command: int = 0x21, extra: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses + extra)) + addresses + extra


IPV4 = socket.inet_aton("198.51.100.7") + socket.inet_aton("192.0.2.9") + struct.pack("!HH", 4711, 6543)
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + b"\0" * 16 + struct.pack("!HH", 4711, 6543)
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:198.51.100.7") + b"\0" * 16 + struct.pack("!HH", 4711, 6543)

GOOD = [
    (b"PROXY TCP4 198.51.100.7 192.0.2.9 4711 6543\r\n", "198.51.100.7:4711"),
    (b"PROXY TCP6 2001:db8::7 ::1 4711 6543\r\n", "[2001:db8::7]:4711"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
    (b"PROXY UNKNOWN\r\n", "192.0.2.1:1000"),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "192.0.2.1:1000"),
    (version_2(0x11, IPV4), "198.51.100.7:4711"),
    (version_2(0x11, IPV4, extra=b"\x03\x00\x04crc4" + b"\x20" * 50), "198.51.100.7:4711"),
    (version_2(0x21, IPV6), "[2001:db8::7]:4711"),
    (version_2(0x21, MAPPED), "198.51.100.7:4711"),
    (version_2(0x31, b"/x" * 108), "192.0.2.1:1000"),
    (version_2(0x00, b""), "192.0.2.1:1000"),
    (version_2(0x11, IPV4, command=0x20), "192.0.2.1:1000"),
    (version_2(0x00, b"", command=0x20), "192.0.2.1:1000"),
]


@pytest.mark.parametrize(("header", "name"), GOOD)
def test_headers(header: bytes, name: str) -> None:
    peer, rest = read(header + b"PROXY and what the client says")
    assert peer.name == name
    assert rest == b"PROXY and what the client says"
    for cut in range(len(header)):
        with pytest.raises(EOFError):
            read(header[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x08\x04\xd2\x16\x2f" + b"\0" * 8,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.9 4711\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.9 4711 6543 1\r\n",
        b"PROXY TCP5 198.51.100.7 192.0.2.9 4711 6543\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 4711 6543\r\n",
        b"PROXY TCP4 198.51.100 192.0.2.9 4711 6543\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.x 4711 6543\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.9 65536 6543\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.9 -1 6543\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.9 04711 6543\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.9 \xb2 6543\r\n",
        b"PROXY  TCP4 198.51.100.7 192.0.2.9 1 6543\r\n",
        b"PROXY " + b"x" * 200,
        version_2(0x11, IPV4, command=0x31),
        version_2(0x11, IPV4, command=0x22),
        version_2(0x11, IPV4[:-1]),
        version_2(0x21, IPV4),
        SIGNATURE + b"\x21\x11\xff\xff" + b"\0" * 70_000,
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(data)


@given(st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00"]))
def test_garbage(tail: bytes, head: bytes) -> None:
    try:
        peer, _ = read(head + tail)
    except (RemoteProtocolError, EOFError):
        return
    assert peer.address is not None


def test_who_may_speak_for_others() -> None:
    balancers = networks(("10.0.0.0/8", "2001:db8::/32"))
    assert speaks_for_others(Peer(ip_address("10.1.1.1")), balancers)
    assert speaks_for_others(Peer(ip_address("::ffff:10.1.1.1")), balancers)
    assert speaks_for_others(Peer(ip_address("2001:db8::1")), balancers)
    assert not speaks_for_others(Peer(ip_address("11.1.1.1")), balancers)
    assert not speaks_for_others(Peer(None), balancers)
    assert not speaks_for_others(SENDER, ())
