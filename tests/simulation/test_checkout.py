"""Checkout in tasks, with a cancel at every moment at which one can fall."""

import random

import pytest
import trio
import trio.testing

from dualpool.checkout import checkout
from dualpool.errors import CheckoutTimeout, ConnectFailed, PoolClosed
from dualpool.lease import IDLE, LEASED, Leasable
from dualpool.pool import Pool
from dualpool.protocol import APPLICATION
from tests.simulation.desk import Desk


async def test_an_idle_connection_comes_with_a_checkpoint(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    pool = desk.pool()
    (conn,) = desk.idle(pool)
    with trio.testing.assert_checkpoints():
        assert await checkout(pool) is conn
    pool.give_back(conn)
    desk.verify()


async def test_a_connection_that_comes_later_wakes_the_task(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    desk = Desk()
    pool = desk.pool()

    async def server() -> None:
        await trio.sleep(1)
        desk.let_in()

    nursery.start_soon(server)
    conn = await checkout(pool)
    assert conn.state == LEASED
    assert trio.current_time() >= 1


async def test_query_wait_ends_the_wait(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    pool = desk.pool(query_wait=7.0)
    start = trio.current_time()
    with pytest.raises(CheckoutTimeout, match=r"waited 7\.0 s"):
        await checkout(pool)
    assert trio.current_time() - start == pytest.approx(7)
    assert pool.statistics().waiting == 0
    assert pool.statistics().timeouts == 1


async def test_a_timeout_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(CheckoutTimeout):
        await checkout(Desk().pool(), timeout=0.5)


async def test_what_the_pool_refuses_with_is_raised(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    pool = desk.pool()
    pool.close()
    with pytest.raises(PoolClosed), trio.testing.assert_checkpoints():
        await checkout(pool)


async def test_a_failed_login_reaches_the_task(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    desk = Desk()

    async def server() -> None:
        await trio.sleep(1)
        desk.refuse(ConnectFailed("password authentication failed", sqlstate="28P01"))

    nursery.start_soon(server)
    with pytest.raises(ConnectFailed, match="password authentication failed"):
        await checkout(desk.pool())


async def test_a_cancelled_task_starts_nothing(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    with trio.CancelScope() as scope:
        scope.cancel()
        await checkout(desk.pool())
    assert scope.cancelled_caught
    assert not desk.io.connects


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_cancel_and_handover_in_the_same_tick(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, cancel_first: bool
) -> None:
    desk = Desk()
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    scope = trio.CancelScope()
    got: list[Leasable] = []

    async def client() -> None:
        with scope:
            got.append(await checkout(pool))

    nursery.start_soon(client)
    await trio.testing.wait_all_tasks_blocked()
    if cancel_first:
        scope.cancel()
        pool.give_back(conn)
    else:
        pool.give_back(conn)
        scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert got == ([] if cancel_first else [conn])
    assert conn.state == (IDLE if cancel_first else LEASED)
    desk.verify()


async def test_whoever_queues_behind_a_cancelled_task_is_served_in_the_same_tick(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    desk = Desk()
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    scope = trio.CancelScope()
    got: list[Leasable] = []

    async def cancelled() -> None:
        with scope:
            await checkout(pool)

    async def patient() -> None:
        got.append(await checkout(pool))

    nursery.start_soon(cancelled)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(patient)
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
    pool.give_back(conn)
    await trio.testing.wait_all_tasks_blocked()
    assert got == [conn]


class Traffic:
    """Tasks that check out, hold, and give back or lose; some are cancelled at a random instant. Servers connect, refuse and die."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.desk = Desk(self.rng.choice([None, 1, 3]), self.rng.choice([0, 1]))
        self.pools = [self.desk.pool(f"p{n}", size=self.rng.choice([1, 2, 4]), query_wait=3.0, login_retry=0.2) for n in range(2)]
        self.holders: dict[Leasable, int] = {}
        self.served = 0

    async def run(self) -> None:
        """All of it, in the mock clock's time. Afterwards nothing is leased and nobody waits."""
        async with trio.open_nursery() as servers:
            servers.start_soon(self.servers)
            async with trio.open_nursery() as clients:
                for number in range(30):
                    clients.start_soon(self.client, number)
            servers.cancel_scope.cancel()
        self.desk.verify()
        assert not self.holders
        for pool in self.pools:
            statistics = pool.statistics()
            assert statistics.leased == statistics.waiting == 0

    async def client(self, number: int) -> None:
        rng = self.rng
        # A grid of instants, so that cancels, handovers and deadlines often fall into the same tick.
        await trio.sleep(rng.randrange(40) / 10)
        with trio.move_on_after(rng.choice([0.0, 0.1, 0.5, 100.0])):
            try:
                conn = await checkout(
                    rng.choice(self.pools), rng.choice([APPLICATION, APPLICATION, APPLICATION, 1]), rng.choice([None, 0.5])
                )
            except (CheckoutTimeout, ConnectFailed):
                return
            await self._use(conn, number)

    async def _use(self, conn: Leasable, number: int) -> None:
        assert conn not in self.holders
        self.holders[conn] = number
        self.served += 1
        try:
            await trio.sleep(self.rng.randrange(5) / 10)
        finally:
            assert self.holders.pop(conn) == number
            if self.rng.random() < 0.2:
                conn.pool.lost(conn)
            else:
                conn.pool.give_back(conn)

    async def servers(self) -> None:
        while True:
            await trio.sleep(0.1)
            self.desk.wait(0.1)
            self.desk.close()
            if self.desk.io.connects and self.rng.random() < 0.2:
                self.desk.refuse()
            else:
                self.desk.let_in(1)
            for conn in self.desk.io.checks:
                conn.pool.give_back(conn)
            self.desk.io.checks.clear()
            self.desk.verify()


@pytest.mark.parametrize("seed", range(150))
async def test_traffic_with_cancels_at_every_instant(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    traffic = Traffic(seed)
    await traffic.run()
    assert traffic.served


def test_every_state_of_a_task_gives_way_to_a_cancel(autojump_clock: trio.testing.MockClock) -> None:
    """The n-th checkpoint of a checkout that succeeds, for every n: cancelled there, the connection is idle or was never taken."""

    async def run(checkpoint: int) -> bool:
        desk = Desk()
        pool: Pool = desk.pool(size=1)
        (conn,) = desk.lease(pool)
        scope = trio.CancelScope()
        leased: list[Leasable] = []

        async def client() -> None:
            with scope:
                leased.append(await checkout(pool))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            for tick in range(6):
                if tick == checkpoint:
                    scope.cancel()
                if tick == 2:
                    pool.give_back(conn)
                await trio.lowlevel.cancel_shielded_checkpoint()
        assert (conn.state == LEASED) == bool(leased)
        desk.verify()
        return bool(leased)

    outcomes = [trio.run(run, checkpoint) for checkpoint in range(6)]
    assert True in outcomes
    assert False in outcomes
