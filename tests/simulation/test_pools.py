"""Ten thousand schedules of the world of pools; DUALPOOL_SCHEDULES=N runs N."""

import os

import pytest

from dualpool.pool import Pool
from tests.simulation import pools
from tests.simulation.runner import SimulationFailure, replay, run_schedules

SCHEDULES = int(os.environ.get("DUALPOOL_SCHEDULES", "10000"))


def test_every_invariant_holds_in_every_schedule() -> None:
    run_schedules("pools", SCHEDULES)


def test_a_seed_is_one_schedule() -> None:
    assert _without_ids(replay("pools", 5)) == _without_ids(replay("pools", 5))


def test_a_failure_is_told_with_its_trace_and_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "_count_up", lambda pool: 1 if pool.is_paused else 0)
    with pytest.raises(SimulationFailure, match=r"python -m tests\.simulation --world pools --seed \d+") as failure:
        run_schedules("pools", SCHEDULES)
    assert "starts a connect" in str(failure.value)


# What a world without the rule would do: each of these must be noticed, or the simulation proves nothing.
@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("take_nowait", lambda pool, lane: _pop_whatever_is_idle(pool)),
    ],
)
def test_a_broken_rule_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str, broken: object) -> None:
    monkeypatch.setattr(Pool, name, broken)
    with pytest.raises(SimulationFailure):
        run_schedules("pools", 500)


def _pop_whatever_is_idle(pool: Pool) -> object:
    return pool._idle.pop() if pool._idle else None


def _without_ids(trace: list[str]) -> list[str]:
    return [" ".join(word for word in line.split() if not word.startswith("s")) for line in trace]


def test_the_deck_reaches_everything() -> None:
    names = {action.__name__ for action in pools.DECK}
    assert names >= {"arrive", "withdraw", "die", "set_limit", "reconnect", "close_pool", "sweep"}
