"""The shortest script that still shows a difference: steps are left out (delta debugging), then messages, then odd spellings."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.hunt.script import Say, Script, size
from tests.hunt.world import Difference

Shows = Callable[[list[Script]], Difference | None]
"""Runs scripts one after another on a fresh dualpool; the difference that the last one shows."""


@dataclass
class Shrunk:
    """The scripts (mostly one) and what the last one shows. `reproduced` is False if it did not show again."""

    scripts: list[Script]
    difference: Difference
    reproduced: bool
    runs: int = 0

    def __str__(self) -> str:
        told = "\n".join(map(str, self.scripts))
        again = "" if self.reproduced else "\n(it did not show again on a fresh dualpool)"
        return f"seed {self.scripts[-1].seed}\n{told}\n{self.difference}{again}"


def shrink(history: list[Script], difference: Difference, shows: Shows, seconds: float) -> Shrunk:
    """Shrink the last of some scripts that ran one after another, or if need be several of them, for at most so long."""
    deadline = time.monotonic() + seconds
    best = Shrunk(history[-1:], difference, reproduced=False)
    count = 1
    while not best.reproduced and time.monotonic() < deadline:
        _attempt(best, history[-count:], shows, any_kind=True)
        if count >= len(history):
            break
        count = min(4 * count, len(history))
    if best.reproduced:
        while time.monotonic() < deadline and any(_attempt(best, fewer, shows) for fewer in _fewer(best.scripts, deadline)):
            pass
    return best


def _attempt(best: Shrunk, scripts: list[Script], shows: Shows, *, any_kind: bool = False) -> bool:
    best.runs += 1
    found = shows(scripts)
    if found is None or not (any_kind or found.kind == best.difference.kind):
        return False
    best.scripts, best.difference, best.reproduced = scripts, found, True
    return True


def _fewer(scripts: list[Script], deadline: float) -> Iterator[list[Script]]:
    """What may be tried, the most promising first."""
    for i in range(len(scripts) - 1):
        yield scripts[:i] + scripts[i + 1 :]
    for at, script in enumerate(scripts):
        for fewer in (*_without_steps(script), *_plainer(script), *_simpler_steps(script)):
            if time.monotonic() > deadline:
                return
            if size(fewer) < size(script) or fewer.logins != script.logins:
                yield [*scripts[:at], fewer, *scripts[at + 1 :]]


def _without_steps(script: Script) -> Iterator[Script]:
    count = len(script.steps)
    length = (count + 1) // 2
    while length:
        for start in range(max(0, count - length), -1, -length):
            yield replace(script, steps=script.steps[:start] + script.steps[start + length :])
        length //= 2


def _plainer(script: Script) -> Iterator[Script]:
    if any(script.logins):
        yield replace(script, logins=(0,) * len(script.logins))


def _simpler_steps(script: Script) -> Iterator[Script]:
    for i, step in enumerate(script.steps):
        if isinstance(step, Say):
            for less in step.simpler():
                yield replace(script, steps=(*script.steps[:i], less, *script.steps[i + 1 :]))
