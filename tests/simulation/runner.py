"""Running seeds, and telling what is needed to replay one that failed."""

import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Final, Protocol

from tests.simulation.links import World as LinkWorld
from tests.simulation.pools import World as PoolWorld

TOLD_STEPS: Final = 100


class Schedule(Protocol):
    """What a world is to the runner."""

    trace: list[str]

    def run(self) -> None:
        """Raises where an invariant does not hold."""


class SimulationFailure(Exception):
    """A seed failed; the message has the command that replays it, and the end of its trace."""


WORLDS: Final[dict[str, Callable[[int, bool], Schedule]]] = {
    "links": lambda seed, traced: LinkWorld(seed, traced=traced),
    "mysql-links": lambda seed, traced: LinkWorld(seed, "mysql", traced=traced),
    "pools": lambda seed, traced: PoolWorld(seed, traced=traced),
}


def run_schedules(world: str, count: int, first: int = 0) -> None:
    """Run `count` seeds from `first` on. The first that fails is run again, for its trace, and raised as SimulationFailure."""
    make = WORLDS[world]
    for seed in range(first, first + count):
        try:
            make(seed, False).run()
        except Exception as error:
            raise _explain(world, seed, error) from error


def run_in_processes(world: str, count: int, processes: int) -> None:
    """Run `count` seeds from 0 on, in so many processes at once. Raises as `run_schedules` does."""
    part = math.ceil(count / processes)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(run_schedules, world, min(part, count - first), first) for first in range(0, count, part)]
        for job in jobs:
            job.result()


def replay(world: str, seed: int) -> list[str]:
    """Run one seed again; its trace. Raises SimulationFailure where it fails."""
    schedule = WORLDS[world](seed, True)
    try:
        schedule.run()
    except Exception as error:
        raise _explain(world, seed, error, schedule.trace) from error
    return schedule.trace


def _explain(world: str, seed: int, error: Exception, trace: list[str] | None = None) -> SimulationFailure:
    if trace is None:
        schedule = WORLDS[world](seed, True)
        try:
            schedule.run()
        except Exception as again:
            error = again
        trace = schedule.trace[-TOLD_STEPS:]
    steps = "\n".join(trace)
    return SimulationFailure(
        f"{steps}\n\nseed {seed} of the {world} world: {type(error).__name__}: {error}\n"
        f"replay it with: python -m tests.simulation --world {world} --seed {seed}"
    )
