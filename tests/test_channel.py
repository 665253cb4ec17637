"""One socket in the reactor: reads, queued writes, backpressure, the end. Real sockets, real epoll, no time."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from dualpool.channel import Channel, ChannelOwner
from dualpool.reactor import READ, WRITE, Reactor, best_poller
from dualpool.transport import TlsTransport, Transport
from tests.helpers.sockets import Contexts, plain_pair, tls_pair

MANY = b"0123456789abcdef" * (1 << 16)  # 1 MiB


class Owner(ChannelOwner):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.calls: list[str] = []
        self.errors: list[Exception] = []
        self.raises: Exception | None = None

    def received(self, data: bytes) -> None:
        self.data += data
        if self.raises is not None:
            raise self.raises

    def drained(self) -> None:
        self.calls.append("drained")

    def ended(self) -> None:
        self.calls.append("ended")

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


class Desk:
    """A reactor with one channel, and its peer."""

    def __init__(self, transport: Transport, peer: socket.socket, high_water: int) -> None:
        self.reactor = Reactor(best_poller())
        self.owner = Owner()
        self.peer = peer
        self.channel = Channel(self.reactor, transport, self.owner, high_water)
        self.channel.open()

    def turn(self) -> None:
        """Batches until nothing is ready."""
        for _ in range(1000):
            if not self.reactor.dispatch(0.0):
                return
        raise AssertionError("the reactor spins")

    def read_all(self, size: int) -> bytes:
        """The peer reads `size` bytes while the reactor turns."""
        got = b""
        while len(got) < size:
            self.reactor.dispatch(0.0)
            try:
                piece = self.peer.recv(1 << 16)
            except (BlockingIOError, OSError) as error:
                if not isinstance(error, BlockingIOError) and "want" not in str(error).lower() and "complete" not in str(error):
                    raise
                continue
            if not piece:
                break
            got += piece
        return got


@pytest.fixture(params=["plain", "tls"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    if request.param == "plain":
        ours, theirs = plain_pair(8192)
        made = Desk(Transport(ours), theirs, 100_000)
    else:
        ours, theirs = tls_pair(Contexts(), 8192)
        made = Desk(TlsTransport(ours), theirs, 100_000)
    with theirs:
        yield made
        made.channel.close()
        made.reactor.dispatch(0.0)
    made.reactor.poller.close()


def test_what_is_read_reaches_the_owner(desk: Desk) -> None:
    desk.peer.send(b"hello")
    desk.turn()
    assert desk.owner.data == b"hello"


def test_what_the_socket_does_not_take_is_queued_and_comes_in_order(desk: Desk) -> None:
    desk.channel.send(MANY)
    assert desk.channel.queue is not None
    assert desk.channel.interest == READ | WRITE
    desk.channel.send(b"the end")
    assert desk.read_all(len(MANY) + 7) == MANY + b"the end"
    desk.turn()
    assert desk.channel.queue is None
    assert desk.channel.interest == READ


def test_congestion_begins_at_high_water_and_ends_at_a_quarter(desk: Desk) -> None:
    while not desk.channel.congested:
        desk.channel.send(b"x" * 10_000)
    assert desk.channel.queue is not None
    assert 100_000 < desk.channel.queue.size <= 110_000
    left = 0
    while desk.channel.congested:
        assert desk.owner.calls == []
        desk.read_all(1)
        left = desk.channel.queue.size if desk.channel.queue else 0
    assert desk.owner.calls == ["drained"]
    assert left <= 25_000


def test_paused_it_reads_nothing_resumed_it_reads_all(desk: Desk) -> None:
    desk.channel.pause()
    desk.peer.send(b"early")
    desk.turn()
    assert desk.owner.data == b""
    desk.channel.resume()
    desk.turn()
    assert desk.owner.data == b"early"


def test_paused_it_still_writes(desk: Desk) -> None:
    desk.channel.pause()
    desk.channel.send(MANY)
    assert desk.read_all(len(MANY)) == MANY
    desk.turn()
    assert desk.channel.interest == 0


def test_finish_sends_everything_then_waits_for_the_peer_to_close(desk: Desk) -> None:
    desk.channel.send(MANY)
    desk.channel.finish(b"last words")
    assert desk.channel.is_open()
    assert desk.read_all(len(MANY) + 10) == MANY + b"last words"
    desk.turn()
    assert desk.channel.is_open()
    with contextlib.suppress(OSError):  # TLS: behind a close_notify nothing can be sent
        desk.peer.send(b"asked meanwhile")
    desk.turn()
    assert desk.channel.is_open()
    desk.peer.close()
    desk.turn()
    assert not desk.channel.is_open()
    assert desk.channel.transport.fileno() == -1
    assert (desk.owner.data, desk.owner.calls[-1]) == (b"", "ended")


def test_after_finish_the_owner_hears_nothing(desk: Desk) -> None:
    desk.channel.send(MANY)
    desk.channel.finish(b"")
    desk.peer.send(b"too late")
    desk.turn()
    assert (desk.owner.data, desk.owner.calls) == (b"", [])


def test_finish_without_last_words_closes_at_once(desk: Desk) -> None:
    desk.channel.send(b"bye")
    desk.channel.finish(b"")
    assert not desk.channel.is_open()
    desk.reactor.dispatch(0.0)
    assert desk.read_all(3) == b"bye"


def test_the_owner_need_not_wait_for_the_peer_after_last_words(desk: Desk) -> None:
    desk.channel.finish(b"bye")
    assert desk.channel.is_open()
    desk.channel.close()
    desk.reactor.dispatch(0.0)
    assert desk.read_all(3) == b"bye"


def test_the_peer_goes_away(desk: Desk) -> None:
    desk.peer.close()
    desk.reactor.dispatch(0.0)
    assert desk.owner.calls == ["ended"]
    assert desk.channel.is_open(), "the owner closes it"


def test_the_peer_goes_away_while_much_is_queued(desk: Desk) -> None:
    desk.channel.send(MANY)
    desk.peer.close()
    for _ in range(3):
        desk.reactor.dispatch(0.0)
    assert "ended" in desk.owner.calls
    desk.channel.send(b"into the void")
    desk.channel.finish(b"and this")
    assert not desk.channel.is_open()


def test_an_owner_that_raises_hears_of_it(desk: Desk) -> None:
    desk.owner.raises = RuntimeError("bug")
    desk.peer.send(b"x")
    desk.turn()
    assert desk.owner.errors == [desk.owner.raises]
    desk.owner.raises = None
    desk.peer.send(b"y")
    desk.turn()
    assert desk.owner.data == b"xy"


def test_lent_to_a_task_the_reactor_leaves_it_alone(desk: Desk) -> None:
    desk.channel.send(MANY)
    transport = desk.channel.lend()
    desk.peer.send(b"for the task")
    desk.turn()
    assert desk.owner.data == b""
    unsent = desk.channel.take_unsent()
    assert 0 < len(unsent) <= len(MANY)  # TLS: the first record may still be under way as a whole
    assert desk.channel.queue is None
    assert transport.recv(100) == b"for the task"
    desk.channel.open()
    desk.peer.send(b"back")
    desk.turn()
    assert desk.owner.data == b"back"
    assert desk.read_all(len(MANY) - len(unsent)) == MANY[: len(MANY) - len(unsent)]


def test_given_back_with_bytes_unsent_it_goes_on_writing(desk: Desk) -> None:
    desk.channel.send(MANY)
    desk.channel.lend()
    desk.channel.open()
    assert desk.read_all(len(MANY)) == MANY


def test_tls_bytes_that_wait_inside_are_read_without_an_event() -> None:
    ours, theirs = tls_pair(Contexts())
    theirs.send(b"query")
    transport = TlsTransport(ours)
    assert transport.recv(1) == b"q"  # as a login that shares its record with the first query
    assert transport.pending()
    desk = Desk(transport, theirs, 1000)
    desk.turn()
    assert desk.owner.data == b"uery"
    desk.channel.close()
    theirs.close()
    desk.reactor.poller.close()


def test_tls_bytes_that_waited_during_a_pause() -> None:
    ours, theirs = tls_pair(Contexts())
    transport = TlsTransport(ours)
    desk = Desk(transport, theirs, 1000)
    theirs.send(b"query")
    desk.channel.pause()
    assert transport.recv(1) == b"q"
    desk.turn()
    assert desk.owner.data == b""
    desk.channel.resume()
    desk.turn()
    assert desk.owner.data == b"uery"
    desk.channel.close()
    theirs.close()
    desk.reactor.poller.close()


def test_closed_twice() -> None:
    ours, theirs = plain_pair()
    desk = Desk(Transport(ours), theirs, 1000)
    desk.channel.close()
    desk.channel.close()
    desk.turn()
    assert ours.fileno() == -1
    theirs.close()
    desk.reactor.poller.close()
