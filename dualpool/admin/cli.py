"""What `dualpool admin` and `dualpool top` run."""

from contextlib import suppress

import trio

from dualpool.admin import top
from dualpool.admin.client import connected
from dualpool.answers import Answer


def ask(url: str, command: str) -> Answer:
    """One command. Raises DualpoolError."""

    async def work() -> Answer:
        async with connected(url) as client:
            return await client.ask(command)

    return trio.run(work)


def watch(url: str, interval: float, *, once: bool) -> None:
    """`top`, until Ctrl-C. Raises DualpoolError."""

    async def work() -> None:
        await top.run(url, interval, once=once)

    with suppress(KeyboardInterrupt):
        trio.run(work)
