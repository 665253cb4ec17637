"""Exchanges over real sockets: every command, TLS both ways, the peer that goes away, the cancel."""

import socket
import ssl
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from dualpool.accounts import Account
from dualpool.errors import LocalProtocolError, RemoteProtocolError
from dualpool.exchange import Stream, drive
from dualpool.protocol import (
    ConnectionClosed,
    Exchange,
    FindAccount,
    Offload,
    Peek,
    Receive,
    ReceiveSome,
    Send,
    StartTls,
    TlsInfo,
)
from dualpool.transport import TlsTransport, Transport
from tests.helpers.sockets import Contexts, Pair, plain_pair


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return Contexts(alpn=("postgresql", "other"))


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, two = plain_pair(4096)
    yield one, two
    one.close()
    two.close()


def streams(pair: Pair, contexts: Contexts | None = None, server_name: str = "db.example") -> tuple[Stream, Stream]:
    """The server's and the client's."""
    return (
        Stream(pair[0], contexts.server if contexts else None, server_side=True),
        Stream(pair[1], contexts.client if contexts else None, server_side=False, server_name=server_name),
    )


async def both(server: Stream, server_does: Exchange[object], client: Stream, client_does: Exchange[object]) -> tuple[object, object]:
    """Drive two exchanges against each other."""
    results: dict[str, object] = {}

    async def side(name: str, stream: Stream, exchange: Exchange[object]) -> None:
        try:
            results[name] = await drive(exchange, stream)
        except (RemoteProtocolError, ConnectionClosed) as error:
            results[name] = error

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side, "server", server, server_does)
            nursery.start_soon(side, "client", client, client_does)
    return results["server"], results["client"]


def talk(*, tls: bool, required_alpn: str = "", speak_first: bool = False) -> Exchange[object]:
    """Perhaps TLS, then each sends its half and reads the other's."""
    info = (yield StartTls(required_alpn)) if tls else None
    if speak_first:
        yield Send(b"hello" * 10_000)
        heard = yield Receive(50_000)
    else:
        heard = yield Receive(50_000)
        yield Send(b"world" * 10_000)
    return info, heard


async def test_plain(pair: Pair) -> None:
    server, client = streams(pair)
    results = await both(server, talk(tls=False), client, talk(tls=False, speak_first=True))
    assert results == ((None, b"hello" * 10_000), (None, b"world" * 10_000))
    assert type(client.transport()) is Transport


async def test_tls(pair: Pair, contexts: Contexts) -> None:
    server, client = streams(pair, contexts)
    results = await both(server, talk(tls=True), client, talk(tls=True, required_alpn="postgresql", speak_first=True))
    assert isinstance(results[0], tuple)
    assert isinstance(results[1], tuple)
    server_info, heard = results[0]
    client_info, answer = results[1]
    assert (heard, answer) == (b"hello" * 10_000, b"world" * 10_000)
    assert isinstance(server_info, TlsInfo)
    assert isinstance(client_info, TlsInfo)
    assert (server_info.alpn, client_info.alpn) == ("postgresql", "postgresql")
    assert server_info.version == client_info.version == "TLSv1.3"
    pem = contexts.certificate.cert_chain_pems[0].bytes().decode()
    assert client_info.peer_certificate == ssl.PEM_cert_to_DER_cert(pem)
    assert server_info.peer_certificate, "the client showed its own"
    assert type(server.transport()) is type(client.transport()) is TlsTransport


async def test_the_certificate_is_for_somebody_else(pair: Pair, contexts: Contexts) -> None:
    server, client = streams(pair, contexts, server_name="evil.example")
    _, error = await both(server, talk(tls=True), client, talk(tls=True, speak_first=True))
    assert isinstance(error, RemoteProtocolError)
    assert "TLS handshake failed" in error.message
    assert error.sqlstate == "08006"


async def test_an_application_protocol_that_was_not_chosen(pair: Pair, contexts: Contexts) -> None:
    server, client = streams(pair, contexts)
    error, _ = await both(server, talk(tls=True, required_alpn="mysql"), client, _hang_up_after_tls(client))
    assert isinstance(error, RemoteProtocolError)
    assert '"mysql"' in error.message


def _hang_up_after_tls(stream: Stream) -> Exchange[object]:
    yield StartTls()
    stream.close()
    return None


@pytest.mark.parametrize("words", [b"", b"\x15\x03\x03\0\2\1\0", b"\x16\x03"], ids=["nothing", "close_notify", "cut"])
async def test_a_server_that_ends_instead_of_the_handshake_may_be_stopping(pair: Pair, contexts: Contexts, words: bytes) -> None:
    server, client = streams(pair, contexts)

    def hang_up() -> Exchange[object]:
        yield ReceiveSome()
        if words:
            yield Send(words)
        server.close()
        return None

    _, error = await both(server, hang_up(), client, talk(tls=True))
    assert isinstance(error, ConnectionClosed)


async def test_something_else_than_tls(pair: Pair, contexts: Contexts) -> None:
    server, client = streams(pair, contexts)

    def rubbish() -> Exchange[object]:
        yield Send(b"GET / HTTP/1.1\r\n\r\n" * 10)
        return None

    error, _ = await both(server, talk(tls=True), client, rubbish())
    assert isinstance(error, RemoteProtocolError)


async def test_the_peer_goes_away_in_the_handshake(pair: Pair, contexts: Contexts) -> None:
    server, client = streams(pair, contexts)

    def leave() -> Exchange[object]:
        yield Send(b"\x16\x03\x01\x02\x00\x01")
        client.close()
        return None

    error, _ = await both(server, talk(tls=True), client, leave())
    assert isinstance(error, RemoteProtocolError)


async def test_tls_without_a_context(pair: Pair) -> None:
    with pytest.raises(LocalProtocolError):
        await drive(talk(tls=True), streams(pair)[0])


async def test_receive_takes_not_one_byte_more(pair: Pair) -> None:
    """So that a TLS handshake can follow in the same packet."""
    server, _ = streams(pair)
    pair[1].send(b"12345")

    def exchange() -> Exchange[object]:
        first = yield Peek()
        two = yield Receive(2)
        none = yield Receive(0)
        some = yield ReceiveSome()
        return first, two, none, some

    assert await drive(exchange(), server) == (b"1", b"12", b"", b"345")


async def test_offload_and_find_account(pair: Pair) -> None:
    server, _ = streams(pair)

    async def find(command: FindAccount) -> Account:
        return Account(command.user, command.database)

    def exchange() -> Exchange[object]:
        number = yield Offload(lambda: 6 * 7)
        account = yield FindAccount("joe", "app", {})
        return number, account

    assert await drive(exchange(), server, find) == (42, Account("joe", "app"))
    with pytest.raises(LocalProtocolError):
        await drive(exchange(), server)


async def test_errors_come_into_the_exchange_where_it_waits(pair: Pair) -> None:
    server, client = streams(pair)
    client.close()

    def exchange() -> Exchange[object]:
        try:
            yield Receive(1)
        except ConnectionClosed:
            return "noticed"
        return "missed"

    def broken() -> Exchange[object]:
        def bug() -> None:
            raise ZeroDivisionError

        try:
            yield Offload(bug)
        except ZeroDivisionError:
            return "noticed"
        return "missed"

    assert await drive(exchange(), server) == "noticed"
    assert await drive(broken(), server) == "noticed"

    def careless() -> Exchange[object]:
        yield Receive(1)
        return None

    with pytest.raises(ConnectionClosed):
        await drive(careless(), server)


async def test_writing_to_somebody_who_has_gone(pair: Pair) -> None:
    server, client = streams(pair)
    client.close()

    def exchange() -> Exchange[object]:
        yield Send(b"x" * 100_000)
        return None

    with pytest.raises(ConnectionClosed):
        await drive(exchange(), server)


async def test_a_cancelled_exchange_is_closed(pair: Pair, nursery: trio.Nursery) -> None:
    """Its `finally` runs: secrets are dropped, counters are put right."""
    server, _ = streams(pair)
    closed = trio.Event()

    def exchange() -> Exchange[object]:
        try:
            yield Receive(1)
        finally:
            closed.set()
        return None

    nursery.start_soon(drive, exchange(), server)
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True), trio.fail_after(60):
        await closed.wait()


async def test_a_slow_reader_gets_everything(pair: Pair, nursery: trio.Nursery) -> None:
    server, _ = streams(pair)
    data = bytes(range(256)) * 1000
    nursery.start_soon(server.send_all, data)
    got = b""
    with trio.fail_after(60):
        while len(got) < len(data):
            await trio.testing.wait_all_tasks_blocked()
            try:
                got += pair[1].recv(5000)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(pair[1])
    assert got == data


def test_close(pair: Pair) -> None:
    server, _ = streams(pair)
    server.close()
    assert pair[0].fileno() == -1
    assert isinstance(pair[1], socket.socket)
