"""Hundreds of schedules of the worlds of links: a 400th of what `--schedules` says with PostgreSQL, a 1000th, longer ones, with MySQL."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from dualpool import deadlines
from dualpool.budget import Budget
from dualpool.hosts import Host, Hosts, Search
from dualpool.link import ServerConnection
from dualpool.mysql import client_relay, client_sending, server_relay
from dualpool.mysql.statements import ServerStatement
from dualpool.postgres import server_relay as postgres_server_relay
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.server_relay import ServerRelay
from dualpool.server import Server
from dualpool.upkeep import Upkeep
from tests.simulation import links
from tests.simulation.runner import SimulationFailure, replay, run_schedules


@pytest.mark.parametrize(("world", "part"), [("links", 400), ("mysql-links", 1000)])
def test_every_client_gets_its_own_replies_and_every_invariant_holds_in_every_schedule(world: str, part: int, schedules: int) -> None:
    run_schedules(world, schedules // part)


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


_work = Upkeep._work


async def _say_little(upkeep: Upkeep, conn: ServerConnection, exchanges: Any, seconds: float, failure: str, **more: bool) -> bool:
    return await _work(upkeep, conn, exchanges, seconds, "broke", **more)


def _forget_why(search: Search, host: Host, error: Exception) -> None:
    search._hosts.failed(host, 0.0)


# A simulation that does not notice a missing rule proves nothing.
@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (ServerRelay, "is_quiet", lambda relay: not relay.pending),
        (ServerRelay, "_tagged", lambda relay, tag: None),
        (ServerRelay, "_parsed", lambda relay: bool(relay.pending.popleft()) and False),
        (ClientRelay, "_ensure", lambda client, version, server, name, learns: (b"", b"dualpool_1")),
        (ClientRelay, "_learns", lambda client, data, position, portal_end, end, length: True),
        (postgres_server_relay, "columns_of", lambda description: b""),
        (ServerConnection, "release", _release_during_a_cancel),
        (ServerConnection, "abandoned", _give_back_as_it_is),
        (ServerConnection, "lose", lambda conn, error, **how: conn.channel.close()),
        (Server, "tidy", _no_reset),
        (Upkeep, "check", lambda upkeep, conn: None),
        (Upkeep, "_work", _say_little),
        (Search, "judge", lambda search, host, role: None),
        (Search, "asks_role", False),
        (Search, "failed", _forget_why),
        (Hosts, "order", lambda hosts, now: list(hosts._hosts[:1])),
        (Budget, "sweep", lambda budget, now: None),
        (deadlines, "sweep", lambda clients, now: None),
        (links, "TIMEOUTS", attrs.evolve(links.TIMEOUTS, server_connect=0.0)),
    ],
)
def test_a_broken_rule_is_noticed(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, broken: object) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(SimulationFailure, match=r"python -m tests\.simulation --world links --seed \d+"):
        run_schedules("links", 1000)


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (server_relay.ServerRelay, "is_quiet", lambda relay: not relay.requests),
        (server_relay.ServerRelay, "is_midway", lambda relay: False),
        (server_relay.ServerRelay, "_track", lambda relay, changes: None),
        (server_relay.ServerRelay, "_new_schema", lambda relay, schema: None),
        (server_relay.ServerRelay, "_probe", lambda relay, unsettled, client: False),
        (server_relay.ServerRelay, "repin", lambda relay, text=b"": None),
        (server_relay.ServerRelay, "_number", lambda relay, position: None),
        (server_relay.ServerRelay, "_unasked", lambda relay, position, following, first: 0),
        (client_relay.ClientRelay, "_sync", lambda client, server, wanted, schema: False),
        (client_relay.ClientRelay, "capture", lambda client, server, leaving: False),
        (client_relay.ClientRelay, "heals", lambda client, error, server: False),
        (client_relay.ClientRelay, "suspect", lambda client, reports: None),
        (ServerStatement, "suits", lambda statement, user: True),
        (server_relay, "dialect", lambda client, server: 0),
        (client_relay, "bound_types", lambda payload, params: b""),
        (client_sending, "long_data_packets", lambda statement, number: b""),
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
        run_schedules("mysql-links", 400)
