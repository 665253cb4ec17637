"""Where the reactor meets Trio: one task that runs its batches."""

from collections.abc import Callable
from time import monotonic
from typing import Final

import trio

from dualpool.reactor import READ, WRITE, Reactor, TaskPoller

BATCHES: Final = 32
"""So many batches in a row, then Trio's other tasks get a turn."""
SLICE: Final = 0.005
"""Seconds after which they get one anyway: a batch in which hundreds of clients leave takes milliseconds."""
EVENTS: Final = 32
"""In one batch, so that it stays within the slice."""
LINGER: Final = 0.001
"""Seconds. While traffic flows the next event is usually nearer than this; waiting for it here saves a round through Trio's scheduler.

Trio's own tasks (accepts, logins, timers) start late by at most this much, and only between two events of live traffic.
"""


async def pump(reactor: Reactor) -> None:
    """Dispatch events for ever; the end is a cancellation."""
    token = trio.lowlevel.current_trio_token()

    def batch() -> None:
        reactor.dispatch()
        if reactor.has_more():
            reactor.wake()

    reactor.wake = lambda: token.run_sync_soon(batch, idempotent=True)
    if isinstance(reactor.poller, TaskPoller):
        await _pump_with_tasks(reactor.poller, batch)
        return
    fd = reactor.poller.fileno()
    while True:
        if reactor.has_more():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(fd)
        clock = reactor.clock
        until = monotonic() + SLICE
        for _ in range(BATCHES):
            if not reactor.dispatch(LINGER, EVENTS) or clock.now > until:
                break


async def _pump_with_tasks(poller: TaskPoller, batch: Callable[[], None]) -> None:
    """One task for each direction of each socket waits for its readiness; a batch follows at once."""
    scopes: dict[tuple[int, int], trio.CancelScope] = {}
    async with trio.open_nursery() as nursery:

        async def watch(fd: int, what: int, scope: trio.CancelScope) -> None:
            wait = trio.lowlevel.wait_writable if what == WRITE else trio.lowlevel.wait_readable
            with scope:
                # The batch may have closed `fd`, or even another one before its task ran first: then there is nothing to wait for.
                while not scope.cancel_called:
                    await wait(fd)
                    poller.ready(fd, what)
                    batch()

        def interested(fd: int, interest: int) -> None:
            for what in (READ, WRITE):
                if interest > 0 and interest & what:
                    if (fd, what) not in scopes:
                        scope = scopes[fd, what] = trio.CancelScope()
                        nursery.start_soon(watch, fd, what, scope)
                elif (fd, what) in scopes:
                    scopes.pop((fd, what)).cancel()

        poller.watch = interested
        await trio.sleep_forever()
