"""Sockets, plain and TLS, behind one interface: what is there, what is not, and the end."""

import socket
import ssl
import struct
from collections.abc import Iterator

import pytest

from dualpool.transport import END, WOULD_BLOCK, TlsTransport, Transport
from tests.helpers.sockets import Contexts, plain_pair, tls_pair

Ends = tuple[Transport, socket.socket]


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return Contexts()


@pytest.fixture(params=["plain", "tls"])
def ends(request: pytest.FixtureRequest, contexts: Contexts) -> Iterator[Ends]:
    """A transport and its peer's socket."""
    transport: Transport
    if request.param == "plain":
        ours, theirs = plain_pair(4096)
        transport = Transport(ours)
    else:
        ours, theirs = tls_pair(contexts, 4096)
        transport = TlsTransport(ours)
    with theirs:
        yield transport, theirs
        transport.close()


def drain(sock: socket.socket) -> bytes:
    """What a peer can read now."""
    data = b""
    while True:
        try:
            piece = sock.recv(1 << 16)
        except (BlockingIOError, ssl.SSLWantReadError):
            return data
        if not piece:
            return data
        data += piece


def receive(transport: Transport, size: int) -> bytes:
    """All of `size` bytes that are under way."""
    data = b""
    while len(data) < size:
        piece = transport.recv(size - len(data))
        assert piece, f"after {len(data)} bytes: {piece!r}"
        data += piece
    return data


def test_nothing_there(ends: Ends) -> None:
    assert ends[0].recv(100) is WOULD_BLOCK
    assert not ends[0].pending()


def test_bytes_both_ways(ends: Ends) -> None:
    transport, peer = ends
    assert transport.send(b"hello") == 5
    assert drain(peer) == b"hello"
    peer.send(b"world")
    assert receive(transport, 5) == b"world"
    assert transport.recv(100) is WOULD_BLOCK


def test_partial_writes_lose_nothing(ends: Ends) -> None:
    transport, peer = ends
    data = bytes(range(256)) * 2000
    sent, got, refused = 0, b"", 0
    while sent < len(data):
        count = transport.send(data[sent:])
        assert count >= 0
        sent += count
        if count == 0:
            refused += 1
            got += drain(peer)
    assert refused
    assert got + drain(peer) == data


def test_the_end_comes_after_the_last_bytes(ends: Ends) -> None:
    transport, peer = ends
    peer.send(b"bye")
    if isinstance(peer, ssl.SSLSocket):
        with pytest.raises(ssl.SSLWantReadError):
            peer.unwrap()
    peer.close()
    assert transport.recv(100) == b"bye"
    assert transport.recv(100) == END
    assert transport.recv(100) == END


def test_a_reset_is_an_end(ends: Ends) -> None:
    """No TLS goodbye, unread bytes at the peer: whatever the reason, the peer is gone."""
    transport, peer = ends
    transport.send(b"never read")
    peer.close()
    while transport.recv(100) is WOULD_BLOCK:
        pass
    assert transport.recv(100) == END
    assert -1 in {transport.send(b"x"), transport.send(b"x")}


def test_a_closed_transport_says_so(ends: Ends) -> None:
    transport, _ = ends
    transport.close()
    assert transport.fileno() == -1
    assert transport.recv(10) == END
    assert transport.send(b"x") == -1
    assert not transport.pending()
    transport.close()


def test_close_delivers_what_was_sent_in_spite_of_unread_input() -> None:
    """On TCP, closing with unread input sends a reset, which can overtake the error message that was sent last."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as peer:
        ours, _ = listening.accept()
        ours.setblocking(False)
        peer.sendall(b"unread")
        transport = Transport(ours)
        transport.send(b"the last words")
        transport.close()
        peer.settimeout(60)
        assert peer.recv(100) == b"the last words"
        assert peer.recv(100) == b""


def test_a_connection_that_was_reset_on_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
        ours.setblocking(True)
        ours.settimeout(60)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        transport = Transport(ours)
        assert transport.recv(10) == END
        transport.close()


def test_tls_records_wait_where_the_operating_system_does_not_see_them(contexts: Contexts) -> None:
    ours, theirs = tls_pair(contexts)
    transport = TlsTransport(ours)
    theirs.send(b"a" * 10_000)
    assert transport.recv(10) == b"a" * 10
    assert transport.pending()
    rest = transport.recv(1 << 17)
    assert rest == b"a" * 9_990
    assert not transport.pending()
    transport.close()
    theirs.close()


def test_several_tls_records_fill_one_read(contexts: Contexts) -> None:
    ours, theirs = tls_pair(contexts)
    transport = TlsTransport(ours)
    for letter in b"abc":
        theirs.send(bytes([letter]) * 100)
    data = b""
    reads = 0
    while len(data) < 300:
        piece = transport.recv(1 << 17)
        assert piece
        data += piece
        reads += 1
    assert data == b"a" * 100 + b"b" * 100 + b"c" * 100
    assert reads <= 3
    transport.close()
    theirs.close()
