"""Fifty thousand schedules of the world of pools; `scripts/test --schedules N` runs N."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from dualpool import hosts as hosts_module
from dualpool import pool as pool_module
from dualpool.backends import BackendState
from dualpool.budget import Budget, Quota
from dualpool.errors import ConnectFailed
from dualpool.growth import Growth
from dualpool.handover import Handover
from dualpool.hosts import Host, Hosts, Search
from dualpool.lease import LEASED, Leasable, Party
from dualpool.pool import Pool
from dualpool.protocol import APPLICATION
from dualpool.refusals import Refusals
from dualpool.waiting import Queue
from tests.simulation.runner import SimulationFailure, replay, run_in_processes, run_schedules


def test_every_invariant_holds_in_every_schedule(schedules: int) -> None:
    run_in_processes("pools", schedules, os.cpu_count() or 1)


def test_a_seed_is_one_schedule() -> None:
    assert _without_ids(replay("pools", 5)) == _without_ids(replay("pools", 5))


def _without_ids(trace: list[str]) -> list[str]:
    return [" ".join(word for word in line.split() if not word.startswith("s")) for line in trace]


def _take_whatever_is_idle(pool: Pool, lane: int) -> Leasable | None:
    if not pool.idle:
        return None
    conn = pool.idle.pop()
    conn.state = LEASED
    return conn


def _keep(pool: Pool, conn: Leasable) -> None:
    conn.idle_since = pool.clock.now
    pool.idle.append(conn)


def _nothing(*_: Any) -> None:
    return None


def _tell_the_last_error(search: Search, host: Host, error: ConnectFailed) -> None:
    search._hosts.failed(host, 0.0)
    search.error = error


def _admit_always(budget: Budget, pool: Pool, lane: int, *, claim: bool = True) -> bool:
    budget.counted[lane] += 1
    return True


# A simulation that does not notice a missing rule proves nothing.
@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (Pool, "take_nowait", _take_whatever_is_idle),
        (Handover, "dispatch", _nothing),
        (Pool, "follow_up", _nothing),
        (Pool, "reconnect", _nothing),
        (Pool, "withdraw", lambda pool, waiter: waiter in pool.queue.lanes[waiter.lane]),
        (Pool, "choose_path", lambda pool: setattr(pool, "_plain", True)),
        (Pool, "has_surplus", lambda pool: False),
        (Pool, "move", lambda pool, conn, lane: True),
        (Refusals, "sweep", _nothing),
        (Budget, "admit", _admit_always),
        (Budget, "reserve", property(lambda budget: 0 if budget.limit != 2 else budget._reserve)),
        (Budget, "serve", _nothing),
        (Budget, "make_room", _nothing),
        (Budget, "_surplus", lambda budget, lane: False),
        (Budget, "wants_back", lambda budget, pool, conn: False),
        (Quota, "has_room", lambda quota, lane: True),
        (Quota, "is_exceeded", lambda quota: False),
        (Party, "is_full", lambda party: False),
        (Pool, "end_lease", _nothing),
        (Queue, "done", _nothing),
        (BackendState, "reject", _nothing),
        (Search, "judge", _nothing),
        (Search, "failed", _tell_the_last_error),
        (Hosts, "order", lambda hosts, now: list(hosts._hosts[::-1])),
        (Hosts, "order", lambda hosts, now: list(hosts._hosts[:1])),
        (hosts_module, "rounds", lambda target: (hosts_module.ROLES[target if target != "prefer-standby" else "any"],)),
        (pool_module, "is_full", lambda error: False),
        (Budget, "sweep", _nothing),
        (Growth, "_allowed_size", lambda growth: growth._pool.settings.size + growth._pool.settings.reserve_size + 1),
        (Handover, "_reason_not_to_keep", lambda handover, conn: "" if handover._pool.move(conn, APPLICATION) else "no room"),
    ],
)
def test_a_broken_rule_is_noticed(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, broken: Callable[..., Any]) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(SimulationFailure, match=r"python -m tests\.simulation --world pools --seed \d+"):
        run_schedules("pools", 2000)
