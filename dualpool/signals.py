"""What signals mean: which end the process, and how; SIGHUP reloads, SIGUSR1 pauses, SIGUSR2 resumes.

Two sets of meanings. Ours: Ctrl-C on a laptop ends at once, and SIGTERM, which service managers and containers send, lets transactions end,
within a time. PgBouncer's (its documentation, "Signals"): SIGINT waits for servers, SIGTERM for clients, without a limit. In both SIGQUIT
ends at once, and so does a second ending signal.
"""

import contextlib
import logging
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import trio

from dualpool.admin import orders
from dualpool.errors import ConfigError
from dualpool.log import event

if TYPE_CHECKING:
    from dualpool.server import Server

StopMode = Literal["now", "drain", "wait_for_servers", "wait_for_clients"]
Meanings = Mapping[str, StopMode]

DUALPOOL: Final[Meanings] = {"SIGTERM": "drain", "SIGINT": "now", "SIGQUIT": "now"}
PGBOUNCER: Final[Meanings] = {"SIGTERM": "wait_for_clients", "SIGINT": "wait_for_servers", "SIGQUIT": "now"}
WORDS: Final = {
    "drain": "clients may finish their transactions; a second one ends at once",
    "wait_for_servers": "shutting down, waiting for all servers connections to be released",
    "wait_for_clients": "shutting down, waiting for all clients disconnect",
}
STEERING: Final = ("SIGHUP", "SIGUSR1", "SIGUSR2")


async def obey(server: "Server", meanings: Meanings, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Do what signals ask for, until cancelled. Those that a system does not have do not come."""
    numbers = [getattr(signal, name) for name in (*meanings, *STEERING) if hasattr(signal, name)]
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(*numbers) as signals:
            task_status.started()
            async for number in signals:
                name = signal.Signals(number).name
                if name in meanings:
                    end(server, name, meanings[name])
                else:
                    nursery.start_soon(steer, server, name)


def end(server: "Server", name: str, mode: StopMode) -> None:
    """An ending signal."""
    if mode == "now" or server.stopping.is_set():
        event(logging.INFO, f"{name}: ending now")
        server.end_now()
    else:
        event(logging.INFO, f"{name}: {WORDS[mode]}")
        server.stop(mode)


async def steer(server: "Server", name: str) -> None:
    """One of the others."""
    if name == "SIGHUP":
        event(logging.INFO, "SIGHUP: reading the configuration again")
        with contextlib.suppress(ConfigError):  # which the log has told
            await server.reload()
    elif name == "SIGUSR1":
        event(logging.INFO, "SIGUSR1: pausing")
        await orders.pause(server, [])
        event(logging.INFO, "paused: all server connections are closed")
    elif orders.is_halted(server):
        event(logging.INFO, "SIGUSR2: resuming")
        await orders.resume(server, [])
    else:
        event(logging.INFO, "SIGUSR2: nothing is paused")
