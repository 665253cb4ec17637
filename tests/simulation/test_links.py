"""Hundreds of schedules of the world of links; DUALPOOL_SCHEDULES=N runs N / 20 (they take longer than those of the pools)."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from dualpool.link import ServerConnection
from dualpool.postgres.relay import ClientRelay, ServerRelay
from dualpool.server import Server
from tests.simulation.runner import SimulationFailure, replay, run_schedules

SCHEDULES = int(os.environ.get("DUALPOOL_SCHEDULES", "10000")) // 20


def test_every_client_gets_its_own_replies_and_every_invariant_holds_in_every_schedule() -> None:
    run_schedules("links", SCHEDULES)


def test_a_seed_is_one_schedule() -> None:
    assert replay("links", 3) == replay("links", 3)


def _give_back_as_it_is(server: ServerConnection, cancel: bool) -> None:
    server.pool.give_back(server)


_release = ServerConnection.release


def _release_during_a_cancel(server: ServerConnection) -> None:
    cancels, server.cancels = server.cancels, 0
    _release(server)
    server.cancels = cancels


def _no_reset(server: Server, conn: ServerConnection, cancel: bool) -> None:
    conn.relay.dirty = False
    conn.ready_again()


# A simulation that does not notice a missing rule proves nothing.
@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (ServerRelay, "is_quiet", lambda relay: not relay.pending),
        (ServerRelay, "_tagged", lambda relay, tag: None),
        (ServerRelay, "_parsed", lambda relay: bool(relay.pending.popleft()) and False),
        (ClientRelay, "_ensure", lambda relay, statement, server: b""),
        (ServerConnection, "release", _release_during_a_cancel),
        (ServerConnection, "abandoned", _give_back_as_it_is),
        (ServerConnection, "lose", lambda conn, error, **how: conn.channel.close()),
        (Server, "tidy", _no_reset),
        (Server, "check", lambda server, conn: None),
    ],
)
def test_a_broken_rule_is_noticed(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, broken: Callable[..., Any]) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(SimulationFailure, match=r"python -m tests\.simulation --world links --seed \d+"):
        run_schedules("links", 500)
