"""Waiting for a server connection in a Trio task: sessions, probes, the admin console.

Cancellation-safe: the task either gets the connection or was never given it. A cancelled task leaves the queue in the same instant
(`abort`), and one that was handed a connection cannot be cancelled until `checkout` has returned it.
"""

import math

import outcome
import trio

from dualpool.errors import DualpoolError
from dualpool.lease import Leasable, Waiter
from dualpool.pool import Pool
from dualpool.protocol import APPLICATION


class TaskWaiter(Waiter):
    """A task that is parked in `checkout`."""

    __slots__ = ("_result", "_task")

    def __init__(self, lane: int) -> None:
        super().__init__(lane)
        # `checkout` ends the wait itself: at the right moment, not at the next sweep.
        self.deadline = math.inf
        self._task: trio.lowlevel.Task | None = None
        self._result: outcome.Outcome[Leasable] | None = None

    async def park(self, pool: Pool) -> Leasable:
        """Queue up, and sleep until there is a connection (returned) or an error (raised)."""
        pool.enqueue(self)
        if self._result is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return self._result.unwrap()
        self._task = trio.lowlevel.current_task()

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            pool.withdraw(self)
            return trio.lowlevel.Abort.SUCCEEDED

        conn: Leasable = await trio.lowlevel.wait_task_rescheduled(abort)
        return conn

    def offer(self, conn: Leasable) -> bool:
        self._wake(outcome.Value(conn))
        return True

    def fail(self, error: DualpoolError) -> None:
        self._wake(outcome.Error(error))

    def notify(self, seconds: float) -> None:
        """There is nobody to tell."""

    def _wake(self, result: outcome.Outcome[Leasable]) -> None:
        self._result = result
        if self._task is not None:
            trio.lowlevel.reschedule(self._task, result)


async def checkout(pool: Pool, lane: int = APPLICATION, timeout: float | None = None) -> Leasable:
    """Lease a server connection, waiting for at most `timeout` seconds (None: the pool's `query_wait`). The caller must give it back.

    Raises CheckoutTimeout, and whatever the pool refuses with: ConnectFailed with the server's own answer, PoolClosed.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    conn = pool.take_nowait(lane)
    if conn is not None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        return conn
    seconds = (pool.settings.query_wait or math.inf) if timeout is None else timeout
    with trio.move_on_after(seconds):
        return await TaskWaiter(lane).park(pool)
    raise pool.refusals.give_up(seconds)
