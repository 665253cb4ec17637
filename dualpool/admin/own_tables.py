"""The tables of SHOW that are dualpool's own."""

import math
from typing import TYPE_CHECKING, Final

from dualpool.admin.tables import Describer, Names, Row, Show
from dualpool.answers import columns
from dualpool.budget import LANE_ORDER
from dualpool.config import LANES
from dualpool.link import ClientWaiter
from dualpool.listening import listens_to
from dualpool.protocol import APPLICATION, MAINTENANCE

if TYPE_CHECKING:
    from dualpool.server import Server

LANE_NAMES: Final = {lane: name for name, lane in LANES.items()}


def pins(server: "Server") -> list[Row]:
    """SHOW PINS: the clients whose server connection stays with them after the transaction, and what would let it go."""
    describer = Describer(server)
    rows: list[Row] = []
    for client in server.clients.by_id.values():
        conn = client.server
        if conn is None or client.login is None:
            continue
        user, database = client.login.account.user, describer.database(client.pool)
        since = conn.relay.pinned_at or client.leased_at
        for reason in conn.relay.pin_reasons():
            holds, _, until = reason.partition("; until ")
            seconds = max(0, int(describer.now - since))
            rows.append((client.id, user, database, conn.id, holds, until, describer.stamp(since), seconds, conn.relay.pin_text))
    return rows


def budget(server: "Server") -> list[Row]:
    """SHOW BUDGET: each backend's connections against what it allows."""
    rows: list[Row] = []
    for name, state in server.backends.states.items():
        book = state.budget
        waiting = sum(pool.queue.count_all() for pool in book.pools)
        rows.append(
            (
                name, None if state.asks_capacity and not state.capacity_known else book.limit,
                "auto" if state.config.budget_number is None else "configured",
                book.reserve, book.counted[APPLICATION], book.counted[MAINTENANCE], sum(book.closing), len(book.pools), waiting,
            )
        )  # fmt: skip
    return rows


def backends(server: "Server") -> list[Row]:
    """SHOW BACKENDS: the database servers."""
    rows: list[Row] = []
    for name, state in server.backends.states.items():
        config = state.config
        host, port = config.hosts[state.host_index]
        found = [pool.statistics() for pool in state.budget.pools]
        logins = [conn.login for pool in state.budget.pools for conn in server.connections_of(pool)]
        versions = {login.version or login.parameters.get("server_version", "") for login in logins}
        error = next((statistics.last_error for statistics in found if statistics.last_error), "")
        rows.append(
            (
                name, config.protocol, host, port, len(config.hosts), config.user or None, config.sslmode, ", ".join(sorted(versions)),
                len(found), state.budget.total, sum(one.leased for one in found), sum(one.connects for one in found),
                sum(one.connect_failures for one in found), sum(one.losses for one in found), error,
            )
        )  # fmt: skip
    return rows


def listeners(server: "Server") -> list[Row]:
    """SHOW LISTENERS: where clients come in."""
    return [
        (
            door.listener.name, door.listener.protocol, address, door.listener.pool_mode, door.listener.lane,
            door.listener.tls.mode if door.listener.tls is not None else "disable", door.listener.auth, door.clients, door.accepted,
        )
        for door in server.doors
        for address in door.addresses
    ]  # fmt: skip


def queue(server: "Server") -> list[Row]:
    """SHOW QUEUE: who waits for a server connection, in the order in which they are served."""
    names = Names(server)
    now = server.now()
    rows: list[Row] = []
    for pool in server.backends.pools():
        entry = server.backends.entry_of(pool)
        for lane in LANE_ORDER:
            for place, waiter in enumerate(pool.queue.lanes[lane], 1):
                client = waiter.client if isinstance(waiter, ClientWaiter) else None
                user = client.login.account.user if client is not None and client.login is not None else entry.target.user
                waited = int((now - waiter.enqueued_at) * 1000)
                left = None if math.isinf(waiter.deadline) else int(max(0.0, waiter.deadline - now) * 1000)
                number = 0 if client is None else client.id
                rows.append((names.shown[entry.database_key], user, number, LANE_NAMES[lane], place, waited, left))
    return rows


def channels(server: "Server") -> list[Row]:
    """SHOW CHANNELS: who listens to what on a shared connection, and what has come there."""
    names = Names(server)
    rows: list[Row] = []
    for hub in server.listening.hubs.values():
        name = names.shown[hub.base.database_key]
        for channel, clients in sorted(hub.wanted.items()):
            for client in sorted(clients, key=lambda client: client.id):
                if listens_to(client, channel) and client.login is not None and not client.ended_by:
                    conn = 0 if hub.conn is None or channel not in hub.heard else hub.conn.id
                    rows.append((name, client.login.account.user, channel, client.id, conn, hub.counts[channel]))
    return rows


OWN_TABLES: Final[dict[str, Show]] = {
    "PINS": Show(
        columns(
            client="int4", user="text", database="text", server="int4", reason="text", until="text", since="text", seconds="int4",
            statement="text",
        ),
        pins,
    ),
    "BUDGET": Show(
        columns(
            backend="text", limit="int4", source="text", reserved="int4", application="int4", maintenance="int4", closing="int4",
            pools="int4", waiting="int4",
        ),
        budget,
    ),
    "BACKENDS": Show(
        columns(
            name="text", protocol="text", host="text", port="int4", hosts="int4", user="text", sslmode="text", version="text", pools="int4",
            connections="int4", active="int4", connects="int8", connect_failures="int8", losses="int8", last_error="text",
        ),
        backends,
    ),
    "LISTENERS": Show(
        columns(
            name="text", protocol="text", address="text", pool_mode="text", lane="text", tls="text", auth="text", clients="int4",
            accepted="int8",
        ),
        listeners,
    ),
    "CHANNELS": Show(
        columns(database="text", user="text", channel="text", client="int4", server="int4", notifications="int8"), channels
    ),
    "QUEUE": Show(
        columns(database="text", user="text", client="int4", lane="text", place="int4", waited_ms="int4", left_ms="int4"), queue
    ),
}  # fmt: skip
