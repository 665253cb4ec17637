"""Readiness and the batch, with the real epoll; kqueue by its contract; tasks where there is neither, under Trio through pump()."""

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from dualpool.pump import BATCHES, pump
from dualpool.reactor import (
    EPOLL_OUT,
    KQ_EV_ADD,
    KQ_EV_DELETE,
    KQ_FILTER_READ,
    KQ_FILTER_WRITE,
    READ,
    WRITE,
    EpollPoller,
    Handler,
    KqueuePoller,
    Reactor,
    TaskPoller,
    best_poller,
)
from tests.helpers.sockets import plain_pair

needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="epoll: this system has none")


class Recorder(Handler):
    """Reads what is there and writes down its calls. `then` runs inside the call."""

    def __init__(self, reactor: Reactor, sock: socket.socket, log: list[str], name: str) -> None:
        self.reactor = reactor
        self.sock = sock
        self.log = log
        self.name = name
        self.then: Callable[[], None] = lambda: None
        self.errors: list[Exception] = []

    def watch(self, interest: int = READ) -> None:
        self.reactor.add(self.sock.fileno(), self, interest)

    def on_readable(self) -> None:
        try:
            data = self.sock.recv(100)
        except BlockingIOError:
            data = b"nothing"
        self.log.append(f"{self.name} {data.decode()}")
        self.then()

    def on_writable(self) -> None:
        self.log.append(f"{self.name} writable")
        self.reactor.change(self.sock.fileno(), READ)

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)

    def close_now(self) -> None:
        self.log.append(f"{self.name} closed")
        self.sock.close()


class Desk:
    """A reactor with two handlers and their peers."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.log: list[str] = []
        self.pairs = [plain_pair() for _ in range(2)]
        self.a, self.b = (Recorder(reactor, pair[0], self.log, name) for pair, name in zip(self.pairs, "ab", strict=True))
        self.peer_a, self.peer_b = (pair[1] for pair in self.pairs)


@pytest.fixture
def desk() -> Iterator[Desk]:
    reactor = Reactor(EpollPoller())
    made = Desk(reactor)
    yield made
    for pair in made.pairs:
        for end in pair:
            end.close()
    reactor.poller.close()


@needs_epoll
class TestBatches:
    def test_readable(self, desk: Desk) -> None:
        desk.a.watch()
        assert desk.reactor.dispatch() == 0
        desk.peer_a.send(b"x")
        assert desk.reactor.dispatch() == 1
        assert desk.log == ["a x"]

    def test_what_is_not_read_is_told_again(self, desk: Desk) -> None:
        desk.a.watch()
        desk.peer_a.send(b"x" * 150)
        desk.reactor.dispatch()
        desk.reactor.dispatch()
        assert desk.log == ["a " + "x" * 100, "a " + "x" * 50]

    def test_writable_comes_before_readable(self, desk: Desk) -> None:
        desk.a.watch(READ | WRITE)
        desk.peer_a.send(b"x")
        desk.reactor.dispatch()
        assert desk.log == ["a writable", "a x"]

    def test_interest_in_nothing_hears_nothing(self, desk: Desk) -> None:
        desk.a.watch(0)
        desk.peer_a.send(b"x")
        assert desk.reactor.dispatch() == 0
        desk.reactor.change(desk.a.sock.fileno(), READ)
        assert desk.reactor.dispatch() == 1

    def test_a_broken_connection_is_readable(self, desk: Desk) -> None:
        desk.a.watch()
        desk.peer_a.close()
        desk.reactor.dispatch()
        assert desk.log == ["a "]

    def test_a_handler_that_raises_ends_only_itself(self, desk: Desk) -> None:
        def fail() -> None:
            raise ValueError("bug")

        desk.a.then = fail
        desk.a.watch()
        desk.b.watch()
        desk.peer_a.send(b"x")
        desk.peer_b.send(b"y")
        desk.reactor.dispatch()
        assert sorted(desk.log) == ["a x", "b y"]
        assert [str(error) for error in desk.a.errors] == ["bug"]

    def test_a_close_waits_for_the_end_of_the_batch(self, desk: Desk) -> None:
        """Each retires the other, whichever comes first: the other hears nothing more, and its descriptor is open till the end."""
        open_at_the_end: list[bool] = []

        def retire(other: Recorder) -> Callable[[], None]:
            def inner() -> None:
                desk.reactor.retire(other.sock.fileno(), other)
                open_at_the_end.append(other.sock.fileno() >= 0)

            return inner

        desk.a.then, desk.b.then = retire(desk.b), retire(desk.a)
        desk.a.watch()
        desk.b.watch()
        desk.peer_a.send(b"x")
        desk.peer_b.send(b"y")
        desk.reactor.dispatch()
        assert desk.log in (["a x", "b closed"], ["b y", "a closed"])
        assert open_at_the_end == [True]

    def test_a_descriptor_is_not_reused_within_a_batch(self, desk: Desk) -> None:
        """A handler ends another one and opens a socket: the new one must not get the old one's event."""
        new: list[tuple[socket.socket, socket.socket]] = []

        def replace(other: Recorder) -> Callable[[], None]:
            def inner() -> None:
                old = other.sock.fileno()
                desk.reactor.retire(old, other)
                new.append(plain_pair())
                assert old not in {end.fileno() for end in new[0]}
                Recorder(desk.reactor, new[0][0], desk.log, "new").watch()

            return inner

        desk.a.then, desk.b.then = replace(desk.b), replace(desk.a)
        desk.a.watch()
        desk.b.watch()
        desk.peer_a.send(b"x")
        desk.peer_b.send(b"y")
        desk.reactor.dispatch()
        assert not [line for line in desk.log if line.startswith("new")]
        new[0][1].send(b"z")
        desk.reactor.dispatch()
        assert desk.log[-1] == "new z"
        for end in new[0]:
            end.close()

    def test_between_batches_a_close_is_at_once(self, desk: Desk) -> None:
        desk.a.watch()
        desk.reactor.retire(desk.a.sock.fileno(), desk.a)
        assert desk.log == ["a closed"]

    def test_removed_it_lives_on_unwatched(self, desk: Desk) -> None:
        desk.a.watch()
        desk.peer_a.send(b"x")
        desk.reactor.remove(desk.a.sock.fileno())
        desk.reactor.remove(desk.a.sock.fileno())
        assert desk.reactor.dispatch() == 0
        assert desk.a.sock.recv(10) == b"x"
        desk.reactor.change(desk.a.sock.fileno(), WRITE)
        assert desk.reactor.dispatch() == 0

    def test_again_comes_in_the_next_batch_without_an_event(self, desk: Desk) -> None:
        woken: list[int] = []
        desk.reactor.wake = lambda: woken.append(1)
        desk.a.watch()
        fd = desk.a.sock.fileno()
        desk.a.then = lambda: desk.reactor.again(fd, desk.a) if len(desk.log) < 3 else None
        desk.reactor.again(fd, desk.a)
        assert woken == [1]
        assert desk.reactor.has_more()
        for count in (1, 2, 3):
            assert desk.reactor.dispatch(100.0) == 1, "with something due it does not wait"
            assert desk.log == ["a nothing"] * count
        assert woken == [1], "inside a batch nobody need be woken"
        assert not desk.reactor.has_more()

    def test_again_from_inside_an_event_waits_for_the_next_batch(self, desk: Desk) -> None:
        desk.a.watch()
        fd = desk.a.sock.fileno()
        desk.a.then = lambda: desk.reactor.again(fd, desk.a) if len(desk.log) < 5 else None
        desk.peer_a.send(b"x")
        for count in range(1, 6):
            assert desk.reactor.dispatch() == 1
            assert len(desk.log) == count
        assert desk.reactor.dispatch() == 0

    def test_again_is_not_for_a_successor(self, desk: Desk) -> None:
        """The descriptor went to somebody else in the meantime."""
        desk.a.watch()
        fd = desk.a.sock.fileno()
        desk.reactor.again(fd, desk.a)
        desk.reactor.remove(fd)
        desk.reactor.add(fd, desk.b, READ)
        desk.reactor.dispatch()
        assert desk.log == []

    def test_the_clock_stands_still_within_a_batch(self, desk: Desk) -> None:
        before = desk.reactor.clock.now
        desk.reactor.dispatch()
        assert desk.reactor.clock.now >= before


# ---------------------------------------------------------------------------------------------------------------- kqueue


class FakeKevent:
    """What select.kevent is, as far as we use it."""

    def __init__(self, ident: int, filter: int, flags: int) -> None:
        self.ident = ident
        self.filter = filter
        self.flags = flags

    def __repr__(self) -> str:
        return f"{self.ident} {self.filter} {self.flags}"


class FakeKqueue:
    """Keeps filters as a kernel does: deleting one that is not there is an error (kqueue(2), ENOENT)."""

    def __init__(self) -> None:
        self.filters: set[tuple[int, int]] = set()
        self.calls: list[tuple[list[tuple[int, int, int]], int, float]] = []
        self.ready: list[FakeKevent] = []
        self.closed = False

    def control(self, changes: list[FakeKevent] | None, limit: int, timeout: float) -> list[FakeKevent]:
        made = [(change.ident, change.filter, change.flags) for change in changes or []]
        self.calls.append((made, limit, timeout))
        for ident, kq_filter, flags in made:
            if flags == KQ_EV_ADD:
                self.filters.add((ident, kq_filter))
            elif (ident, kq_filter) not in self.filters:
                raise FileNotFoundError(2, "no such filter")
            else:
                self.filters.remove((ident, kq_filter))
        return self.ready[:limit]

    def fileno(self) -> int:
        return 77

    def close(self) -> None:
        self.closed = True


def test_kqueue_constants() -> None:
    if hasattr(select, "kqueue"):
        system: Any = select
        assert (system.KQ_FILTER_READ, system.KQ_FILTER_WRITE) == (KQ_FILTER_READ, KQ_FILTER_WRITE)
        assert (system.KQ_EV_ADD, system.KQ_EV_DELETE) == (KQ_EV_ADD, KQ_EV_DELETE)


def test_kqueue_is_told_the_differences_only() -> None:
    queue = FakeKqueue()
    poller = KqueuePoller(queue, FakeKevent)
    poller.add(5, READ)
    poller.change(5, READ | WRITE)
    poller.change(5, READ | WRITE)
    poller.change(5, WRITE)
    poller.change(5, 0)
    poller.change(5, READ)
    poller.remove(5)
    assert [changes for changes, _, _ in queue.calls] == [
        [(5, KQ_FILTER_READ, KQ_EV_ADD)],
        [(5, KQ_FILTER_WRITE, KQ_EV_ADD)],
        [(5, KQ_FILTER_READ, KQ_EV_DELETE)],
        [(5, KQ_FILTER_WRITE, KQ_EV_DELETE)],
        [(5, KQ_FILTER_READ, KQ_EV_ADD)],
        [(5, KQ_FILTER_READ, KQ_EV_DELETE)],
    ]
    assert queue.filters == set()
    poller.add(5, READ)  # the same number again, another socket
    assert queue.filters == {(5, KQ_FILTER_READ)}


def test_kqueue_events_mean_what_epolls_mean() -> None:
    queue = FakeKqueue()
    queue.ready = [FakeKevent(5, KQ_FILTER_READ, 0), FakeKevent(6, KQ_FILTER_WRITE, 0), FakeKevent(7, KQ_FILTER_READ, 0)]
    poller = KqueuePoller(queue, FakeKevent)
    assert poller.poll(0.5, 2) == [(5, READ), (6, EPOLL_OUT)]
    assert queue.calls[-1] == ([], 2, 0.5)
    assert poller.fileno() == 77
    poller.close()
    assert queue.closed


def test_a_reactor_on_kqueue() -> None:
    queue = FakeKqueue()
    desk = Desk(Reactor(KqueuePoller(queue, FakeKevent)))
    desk.a.watch()
    desk.b.watch(READ | WRITE)
    desk.peer_a.send(b"x")
    queue.ready = [
        FakeKevent(desk.a.sock.fileno(), KQ_FILTER_READ, 0),
        FakeKevent(desk.b.sock.fileno(), KQ_FILTER_WRITE, 0),
    ]
    desk.reactor.dispatch()
    assert desk.log == ["a x", "b writable"]
    assert (desk.b.sock.fileno(), KQ_FILTER_WRITE) not in queue.filters
    fd = desk.a.sock.fileno()
    desk.reactor.retire(fd, desk.a)
    assert not [ident for ident, _ in queue.filters if ident == fd]
    for pair in desk.pairs:
        for end in pair:
            end.close()


def test_the_best_poller_of_this_system() -> None:
    poller = best_poller()
    expected = EpollPoller if hasattr(select, "epoll") else KqueuePoller if hasattr(select, "kqueue") else TaskPoller
    assert type(poller) is expected
    poller.close()


# ---------------------------------------------------------------------------------------------------------------- under Trio


@pytest.fixture(params=["system", "tasks"])
def running(request: pytest.FixtureRequest) -> Iterator[Desk]:
    made = Desk(Reactor(best_poller() if request.param == "system" else TaskPoller()))
    yield made
    for pair in made.pairs:
        for end in pair:
            end.close()
    made.reactor.poller.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until it holds; no time passes but what they need."""
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0)


async def test_pump_hands_over_what_arrives(running: Desk, nursery: trio.Nursery) -> None:
    nursery.start_soon(pump, running.reactor)
    await trio.testing.wait_all_tasks_blocked()
    running.a.watch()
    running.peer_a.send(b"one")
    await until(lambda: running.log == ["a one"])
    await trio.testing.wait_all_tasks_blocked()
    running.peer_a.send(b"two")
    await until(lambda: running.log == ["a one", "a two"])
    nursery.cancel_scope.cancel()


async def test_pump_both_directions_at_once(running: Desk, nursery: trio.Nursery) -> None:
    """A socket that cannot be written is read all the same; else two ends that both write would wait for each other for ever."""
    nursery.start_soon(pump, running.reactor)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(BlockingIOError):
        while True:
            running.a.sock.send(b"x" * 10_000)
    running.a.watch(READ | WRITE)
    running.peer_a.send(b"read me")
    await until(lambda: running.log == ["a read me"])
    while True:
        try:
            running.peer_a.recv(1 << 16)
        except BlockingIOError:
            break
    await until(lambda: running.log == ["a read me", "a writable"])
    nursery.cancel_scope.cancel()


async def test_pump_a_close_inside_a_batch(running: Desk, nursery: trio.Nursery) -> None:
    nursery.start_soon(pump, running.reactor)
    await trio.testing.wait_all_tasks_blocked()
    running.a.then = lambda: running.reactor.retire(running.a.sock.fileno(), running.a)
    running.a.watch()
    running.b.watch()
    running.peer_a.send(b"x")
    await until(lambda: running.log == ["a x", "a closed"])
    running.peer_b.send(b"y")
    await until(lambda: running.log == ["a x", "a closed", "b y"])
    nursery.cancel_scope.cancel()


async def test_pump_a_descriptor_that_is_used_again(running: Desk, nursery: trio.Nursery) -> None:
    nursery.start_soon(pump, running.reactor)
    await trio.testing.wait_all_tasks_blocked()
    for turn in range(5):
        ours, theirs = plain_pair()
        handler = Recorder(running.reactor, ours, running.log, f"{turn}")
        handler.then = lambda handler=handler: running.reactor.retire(handler.sock.fileno(), handler)  # type: ignore[misc]
        handler.watch()
        theirs.send(b"x")
        await until(lambda turn=turn: running.log[2 * turn :] == [f"{turn} x", f"{turn} closed"])  # type: ignore[misc]
        theirs.close()
    nursery.cancel_scope.cancel()


async def test_pump_is_woken_by_again_although_no_event_comes(running: Desk, nursery: trio.Nursery) -> None:
    nursery.start_soon(pump, running.reactor)
    await trio.testing.wait_all_tasks_blocked()
    running.a.watch()
    await trio.testing.wait_all_tasks_blocked()
    running.reactor.again(running.a.sock.fileno(), running.a)
    await until(lambda: running.log == ["a nothing"])
    nursery.cancel_scope.cancel()


async def test_pump_goes_on_with_again_for_more_than_its_batches(running: Desk, nursery: trio.Nursery) -> None:
    """TLS bytes that wait inside, longer than one turn of the pump."""
    nursery.start_soon(pump, running.reactor)
    await trio.testing.wait_all_tasks_blocked()
    running.a.watch()
    fd = running.a.sock.fileno()
    wanted = 3 * BATCHES
    running.a.then = lambda: running.reactor.again(fd, running.a) if len(running.log) < wanted else None
    running.peer_a.send(b"go")
    await until(lambda: len(running.log) == wanted)
    nursery.cancel_scope.cancel()


async def test_pump_lets_others_have_a_turn(running: Desk, nursery: trio.Nursery) -> None:
    """A socket that is always ready does not keep Trio's tasks from running."""
    nursery.start_soon(pump, running.reactor)
    await trio.testing.wait_all_tasks_blocked()
    running.a.watch()
    running.a.then = lambda: _write(running.peer_a)
    running.peer_a.send(b"x")
    with trio.fail_after(60):
        for _ in range(20):
            await trio.sleep(0)
    assert running.log
    nursery.cancel_scope.cancel()


def _write(sock: socket.socket) -> None:
    sock.send(b"x")
