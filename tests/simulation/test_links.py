"""Hundreds of schedules of the worlds of links; DUALPOOL_SCHEDULES=N runs N / 80 with PostgreSQL and N / 200, longer ones, with MySQL."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from dualpool.link import ServerConnection
from dualpool.mysql import relay as mysql
from dualpool.mysql.statements import ServerStatement
from dualpool.postgres.relay import ClientRelay, ServerRelay
from dualpool.server import Server
from tests.simulation.runner import SimulationFailure, replay, run_schedules

SCHEDULES = int(os.environ.get("DUALPOOL_SCHEDULES", "10000"))


@pytest.mark.parametrize(("world", "schedules"), [("links", SCHEDULES // 80), ("mysql-links", SCHEDULES // 200)])
def test_every_client_gets_its_own_replies_and_every_invariant_holds_in_every_schedule(world: str, schedules: int) -> None:
    run_schedules(world, schedules)


@pytest.mark.parametrize("world", ["links", "mysql-links"])
def test_a_seed_is_one_schedule(world: str) -> None:
    assert replay(world, 3) == replay(world, 3)


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


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (mysql.ServerRelay, "is_quiet", lambda relay: not relay.requests),
        (mysql.ServerRelay, "is_midway", lambda relay: False),
        (mysql.ServerRelay, "_track", lambda relay, changes: None),
        (mysql.ServerRelay, "_new_schema", lambda relay, schema: None),
        (mysql.ServerRelay, "_probe", lambda relay, unsettled, client: False),
        (mysql.ServerRelay, "repin", lambda relay, text=b"": None),
        (mysql.ServerRelay, "_number", lambda relay, position: None),
        (mysql.ServerRelay, "_unasked", lambda relay, position, following, first: 0),
        (mysql.ClientRelay, "_sync", lambda client, server, wanted, schema: False),
        (mysql.ClientRelay, "capture", lambda client, server, leaving: False),
        (mysql.ClientRelay, "heals", lambda client, error, server: False),
        (mysql.ClientRelay, "suspect", lambda client, reports: None),
        (ServerStatement, "suits", lambda statement, user: True),
        (mysql, "dialect", lambda client, server: 0),
        (mysql, "bound_types", lambda payload, params: b""),
        (mysql, "long_data_packets", lambda statement, number: b""),
        (ServerConnection, "release", _release_during_a_cancel),
        (ServerConnection, "abandoned", _give_back_as_it_is),
        (ServerConnection, "lose", lambda conn, error, **how: conn.channel.close()),
        (Server, "tidy", _no_reset),
    ],
)
def test_a_rule_that_is_broken_with_mysql_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, broken: Callable[..., Any]
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(SimulationFailure, match=r"python -m tests\.simulation --world mysql-links --seed \d+"):
        run_schedules("mysql-links", 200)
