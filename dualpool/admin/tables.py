"""The tables of SHOW that PgBouncer has: its columns and types exactly (tests/golden), and rows for the pools of every protocol.

Where PgBouncer counts something that dualpool does not have (memory slabs, DNS, peers), the table is there and empty, or the value is 0.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import attrs

from dualpool import __version__
from dualpool.accounts import ClientLogin
from dualpool.admin.settings import config_rows
from dualpool.admin.stats import Totals
from dualpool.admission import application_name
from dualpool.answers import Column, Value, columns
from dualpool.cancels import is_held
from dualpool.config import WILDCARD, Database
from dualpool.engines import ENGINES
from dualpool.lease import CHECKING, CLOSING, IDLE, LEASED
from dualpool.transport import TlsTransport, Transport

if TYPE_CHECKING:
    from dualpool.backends import DatabaseKey
    from dualpool.link import Client, ServerConnection
    from dualpool.pool import Pool
    from dualpool.server import Server

Row = tuple[Value, ...]
CONSOLE: Final = "pgbouncer"
"""The console's own row, as PgBouncer calls it: exporters and scripts know to leave it out."""
PGBOUNCER_VERSION: Final = "1.26.0"
MICROSECONDS: Final = 1_000_000


@attrs.frozen
class Show:
    """A table: its columns, and how its rows come about."""

    columns: tuple[Column, ...]
    rows: Callable[["Server"], list[Row]]


# ------------------------------------------------------------------------------------------------------------------------- names


def databases_of(server: "Server") -> "dict[DatabaseKey, Database]":
    """Every database that is configured, and those that clients named for a wildcard."""
    config = server.config
    found: dict[DatabaseKey, Database] = {
        (config.backends[database.backend].protocol, database.name): database
        for database in config.databases.values()
        if database.name != WILDCARD
    }
    for entry in server.backends.entries():
        # A pool that a reload has left behind may be of a backend that is gone.
        if entry.database.backend in config.backends:
            found.setdefault(entry.database_key, entry.database)
    return found


class Names:
    """What databases are called in the tables: by their name, and where two protocols have the same name, the second one's name@protocol.

    For exporters and dashboards a name is a key.
    """

    def __init__(self, server: "Server") -> None:
        self.databases = databases_of(server)
        self.shown: dict[DatabaseKey, str] = {}
        taken: set[str] = set()
        order = list(ENGINES)
        served = {entry.database_key for entry in server.backends.entries()}
        for protocol, name in sorted({*self.databases, *served, *server.backends.retired}, key=lambda key: (key[1], order.index(key[0]))):
            shown = name if name not in taken else f"{name}@{protocol}"
            taken.add(shown)
            self.shown[protocol, name] = shown

    def find(self, name: str) -> "list[DatabaseKey]":
        """The databases that an operator means by `name`; those of every protocol, unless it says which (name@protocol)."""
        return [key for key, shown in self.shown.items() if name in {key[1], shown} and key in self.databases]


def mode_of(server: "Server", protocol: str, database: Database) -> str:
    """The pool mode of most of its clients: its own, else that of the first listener of its protocol."""
    listeners = [listener.pool_mode for listener in server.config.listeners.values() if listener.protocol == protocol]
    return database.pool_mode or (listeners[0] if listeners else "transaction")


def by_database(server: "Server") -> "list[tuple[str, Pool]]":
    """The pools, each with the shown name of its database, in the order of the names."""
    names = Names(server)
    pairs = [(names.shown[server.backends.entry_of(pool).database_key], pool) for pool in server.backends.pools()]
    return sorted(pairs, key=lambda pair: (pair[0], pair[1].name))


# ------------------------------------------------------------------------------------------------------------------------- pools

POOLS: Final = columns(
    database="text", user="text", cl_active="int4", cl_waiting="int4", cl_active_cancel_req="int4", cl_waiting_cancel_req="int4",
    sv_active="int4", sv_active_cancel="int4", sv_being_canceled="int4", sv_idle="int4", sv_used="int4", sv_tested="int4", sv_login="int4",
    maxwait="int4", maxwait_us="int4", pool_mode="text", load_balance_hosts="text",
)  # fmt: skip


def pools(server: "Server") -> list[Row]:
    """SHOW POOLS."""
    now = server.now()
    rows: list[Row] = []
    for name, pool in by_database(server):
        entry = server.backends.entry_of(pool)
        state = pool.statistics()
        stale = sum(is_stale(pool, conn.idle_since, now) for conn in pool.idle_connections())
        cancels = server.cancels.count(pool)
        seconds, microseconds = split_seconds(state.max_wait)
        rows.append(
            (
                name, entry.shown_user, state.clients - state.waiting if state.clients > state.waiting else 0, state.waiting,
                cancels.active, cancels.waiting, state.leased, cancels.connections, cancels.held, state.idle - stale, stale,
                state.resetting - cancels.held, state.connecting, seconds, microseconds,
                mode_of(server, entry.database_key[0], entry.database), None,
            )
        )  # fmt: skip
    return [*rows, (CONSOLE, CONSOLE, len(server.console.sessions), *(0,) * 12, "statement", None)]


def is_stale(pool: "Pool", idle_since: float, now: float) -> bool:
    """Idle for so long that it is checked before it is used."""
    delay = pool.settings.check_delay
    return bool(delay) and now - idle_since >= delay


def split_seconds(seconds: float) -> tuple[int, int]:
    """Whole seconds, and the microseconds of the rest."""
    microseconds = max(0, int(seconds * MICROSECONDS))
    return microseconds // MICROSECONDS, microseconds % MICROSECONDS


DATABASES: Final = columns(
    name="text", host="text", port="int4", database="text", force_user="text", pool_size="int4", min_pool_size="int4",
    reserve_pool_size="int4", server_lifetime="int4", pool_mode="text", load_balance_hosts="text", max_connections="int4",
    current_connections="int4", max_client_connections="int4", current_client_connections="int4", paused="int4", disabled="int4",
)  # fmt: skip


def databases(server: "Server") -> list[Row]:
    """SHOW DATABASES."""
    names = Names(server)
    connections: Counter[DatabaseKey] = Counter()
    for entry in server.backends.entries():
        connections[entry.database_key] += sum(entry.pool.counted)
    clients = Counter(server.backends.entry_of(client.pool).database_key for client in server.clients.by_id.values())
    rows: list[Row] = []
    default = server.config.timeouts.server_lifetime
    for key, database in sorted(names.databases.items(), key=lambda item: names.shown[item[0]]):
        state = server.backends.states[database.backend]
        host, port = state.config.hosts[state.host_index]
        halts = server.backends.halts
        rows.append(
            (
                names.shown[key], host, port, database.database, database.user or state.config.user or None, database.pool_size,
                database.min_pool_size, database.reserve_pool_size,
                int(default if database.server_lifetime is None else database.server_lifetime), database.pool_mode, None,
                database.max_connections, connections[key], database.max_client_connections, clients[key],
                int(halts.is_paused(key)), int(key in halts.disabled),
            )
        )  # fmt: skip
    sessions = len(server.console.sessions)
    return [*rows, (CONSOLE, None, None, CONSOLE, CONSOLE, 2, 0, 0, int(default), "statement", None, 0, 0, 0, sessions, 0, 0)]


USERS: Final = columns(
    name="text", pool_size="text", reserve_pool_size="text", pool_mode="text", max_user_connections="int4", current_connections="int4",
    max_user_client_connections="int4", current_client_connections="int4",
)  # fmt: skip


def users(server: "Server") -> list[Row]:
    """SHOW USERS: those that are configured, and those that are here without."""
    clients = Counter(client.login.account.user for client in server.clients.by_id.values() if client.login is not None)
    clients.update(session.login.account.user for session in server.console.sessions.values())
    connections: Counter[str] = Counter()
    for entry in server.backends.entries():
        connections[entry.target.user] += sum(entry.pool.counted)
    rows: list[Row] = []
    for name in sorted({*server.config.users, *clients}):
        user = server.config.users.get(name)
        sizes = (user.pool_size, user.reserve_pool_size) if user is not None else (None, None)
        mode, most, most_clients = (user.pool_mode, user.max_connections, user.max_client_connections) if user is not None else (None, 0, 0)
        shown = ["" if size is None else str(size) for size in sizes]
        rows.append((name, *shown, mode, most, connections[name], most_clients, clients[name]))
    return [*rows, (CONSOLE, "", "", None, 0, 0, 0, 0)]


# ------------------------------------------------------------------------------------------------------------------------- stats

STAT_NAMES: Final = (
    "server_assignment_count", "xact_count", "query_count", "bytes_received", "bytes_sent", "xact_time", "query_time", "wait_time",
    "client_parse_count", "server_parse_count", "bind_count", "client_login_count",
)  # fmt: skip
SHORT: Final = {
    "total_bytes_received": "total_received",
    "total_bytes_sent": "total_sent",
    "avg_bytes_received": "avg_recv",
    "avg_bytes_sent": "avg_sent",
}


def stat_columns(*prefixes: str) -> tuple[Column, ...]:
    """A column for the name of the database, and one for each total and average."""
    named = [f"{prefix}{name}" for prefix in prefixes for name in STAT_NAMES]
    return (Column("database"), *(Column(SHORT.get(name, name), "numeric") for name in named))


STATS: Final = stat_columns("total_", "avg_")
STATS_TOTALS: Final = stat_columns("")
# The names are not all of one kind in PgBouncer either.
STATS_AVERAGES: Final = (*STATS_TOTALS[:9], *(Column(f"avg_{name}", "numeric") for name in STAT_NAMES[8:]))


def console_totals(server: "Server") -> Totals:
    """What the console counts of itself: its commands are its queries."""
    console = server.console
    return Totals(transactions=console.commands, queries=console.commands, logins=console.logins)


def each_database(server: "Server") -> Iterator[tuple[str, Totals, Totals]]:
    """Name, totals and averages of every database, whether it has had a client or not; then the console's."""
    totals, averages = server.statistics.totals(), server.statistics.averages()
    for key, name in Names(server).shown.items():
        yield name, totals.get(key, Totals()), averages.get(key, Totals())
    yield CONSOLE, console_totals(server), Totals()


def stats(server: "Server") -> list[Row]:
    """SHOW STATS."""
    return [(name, *totals.values(), *averages.values()) for name, totals, averages in each_database(server)]


def stats_totals(server: "Server") -> list[Row]:
    """SHOW STATS_TOTALS."""
    return [(name, *totals.values()) for name, totals, _ in each_database(server)]


def stats_averages(server: "Server") -> list[Row]:
    """SHOW STATS_AVERAGES."""
    return [(name, *averages.values()) for name, _, averages in each_database(server)]


TOTALS: Final = columns(name="text", value="numeric")
TOTAL_NAMES: Final = (
    "server_assignment_count", "xact_count", "query_count", "client_bytes", "server_bytes", "xact_time", "query_time", "wait_time",
    "ps_client_parse_count", "ps_server_parse_count", "ps_bind_count", "client_login_count",
)  # fmt: skip


def totals(server: "Server") -> list[Row]:
    """SHOW TOTALS."""
    total = average = Totals()
    for _, totals, averages in each_database(server):
        total, average = total + totals, average + averages
    both = (("total_", total), ("avg_", average))
    return [(f"{prefix}{name}", value) for prefix, sums in both for name, value in zip(TOTAL_NAMES, sums.values(), strict=True)]


# ----------------------------------------------------------------------------------------------------------------------- sockets

CLIENTS: Final = columns(
    type="text", user="text", database="text", replication="text", state="text", addr="text", port="int4", local_addr="text",
    local_port="int4", connect_time="text", request_time="text", wait="int4", wait_us="int4", close_needed="int4", ptr="text", link="text",
    remote_pid="int4", tls="text", application_name="text", prepared_statements="int4", id="int4",
)  # fmt: skip
SOCKETS: Final = (
    *CLIENTS,
    *columns(recv_pos="int4", pkt_pos="int4", pkt_remain="int4", send_pos="int4", send_remain="int4", pkt_avail="int4", send_avail="int4"),
)
STATE_COLUMN: Final = 4
POINTER_COLUMN: Final = 14


class Describer:
    """Rows of SHOW CLIENTS and SHOW SERVERS."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.names = Names(server)
        self.now = server.now()
        self.wall = time.time() - self.now

    def database(self, pool: "Pool") -> str:
        """The shown name of a pool's database."""
        return self.names.shown[self.server.backends.entry_of(pool).database_key]

    def stamp(self, when: float) -> str:
        """A time of the clock as text."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.wall + when))

    def client(self, client: "Client") -> Row:
        """A client's row."""
        login = client.login
        waiting = client.waiter is not None
        since = client.waiter.enqueued_at if client.waiter is not None else client.asked_at
        state = "waiting" if waiting else "active" if client.server is not None else "idle"
        wait = split_seconds(self.now - since) if waiting else (0, 0)
        name = application_name(login.parameters) if login is not None else ""
        return (
            "C", login.account.user if login is not None else "", self.database(client.pool), replication_of(login), state,
            *addresses(client.channel.transport), self.stamp(client.connected_at), self.stamp(client.asked_at), *wait, 0, pointer(client),
            pointer(client.server), 0, tls_of(client.channel.transport), name, client.relay.count_statements(), client.id,
        )  # fmt: skip

    def connection(self, conn: "ServerConnection") -> Row:
        """A server connection's row."""
        entry = self.server.backends.entry_of(conn.pool)
        stale = conn.state == IDLE and is_stale(conn.pool, conn.idle_since, self.now)
        states = {IDLE: "used" if stale else "idle", LEASED: "active", CHECKING: "tested"}
        state = states.get(conn.state) or ("being_canceled" if is_held(conn) else "tested")
        close_needed = int(conn.state == CLOSING or conn.expires_at <= self.now)
        client = conn.client
        asked_at = client.asked_at if client is not None else conn.answered_at or conn.created_at
        name = application_name(client.login.parameters) if client is not None and client.login is not None else ""
        return (
            "S", entry.shown_user, self.database(conn.pool), "none", state, *addresses(conn.channel.transport),
            self.stamp(conn.created_at), self.stamp(asked_at), 0, 0, close_needed, pointer(conn), pointer(client),
            conn.login.process_id & 0x7FFFFFFF, tls_of(conn.channel.transport), name, conn.relay.count_statements(), conn.id,
        )  # fmt: skip


def addresses(transport: Transport) -> tuple[str, int, str, int]:
    """The peer's address and port, and ours. A Unix socket is `unix`."""
    return (*address(transport.sock.getpeername), *address(transport.sock.getsockname))


def address(ask: Callable[[], object]) -> tuple[str, int]:
    """Host and port of one end of a socket."""
    try:
        name = ask()
    except OSError:
        return "", 0
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("unix", 0)


def pointer(thing: object) -> str:
    """What tells one from another, as PgBouncer's addresses do."""
    return "" if thing is None else hex(id(thing))


def tls_of(transport: Transport) -> str:
    """Protocol and cipher, or nothing."""
    if not isinstance(transport, TlsTransport):
        return ""
    cipher = transport.tls.cipher()
    return f"{transport.tls.version()}/{cipher[0]}" if cipher is not None else ""


def replication_of(login: ClientLogin | None) -> str:
    """Which kind of replication a client does."""
    if login is None or not login.replication:
        return "none"
    return "logical" if login.parameters.get("replication") == "database" else "physical"


def clients(server: "Server") -> list[Row]:
    """SHOW CLIENTS, those of the console included."""
    describer = Describer(server)
    return [describer.client(client) for client in server.clients.by_id.values()] + [
        session.row(describer.stamp) for session in server.console.sessions.values()
    ]


def servers(server: "Server") -> list[Row]:
    """SHOW SERVERS."""
    describer = Describer(server)
    return [describer.connection(conn) for pool in server.backends.pools() for conn in server.connections_of(pool)]


def sockets(server: "Server") -> list[Row]:
    """SHOW SOCKETS: every connection. Nothing is kept of a socket but what it has not taken yet (send_remain): the other numbers are 0."""
    ends: list[Client | ServerConnection] = list(server.clients.by_id.values())
    ends += [conn for pool in server.backends.pools() for conn in server.connections_of(pool)]
    unsent = {pointer(end): end.channel.queue.size for end in ends if end.channel.queue is not None}
    return [
        (*row[:STATE_COLUMN], socket_state(row), *row[STATE_COLUMN + 1 :], 0, 0, 0, 0, unsent.get(str(row[POINTER_COLUMN]), 0), 0, 0)
        for row in clients(server) + servers(server)
    ]


def active_sockets(server: "Server") -> list[Row]:
    """SHOW ACTIVE_SOCKETS: those that do something."""
    return [row for row in sockets(server) if row[STATE_COLUMN] in {"cl_active", "cl_waiting", "sv_active", "sv_tested"}]


def socket_state(row: Row) -> str:
    """PgBouncer's other names for the states."""
    state = row[STATE_COLUMN]
    if row[0] == "C":
        return "cl_waiting" if state == "waiting" else "cl_active"
    return f"sv_{state}"


# ---------------------------------------------------------------------------------------------------------------------- the rest

LISTS: Final = columns(list="text", items="int4")


def lists(server: "Server") -> list[Row]:
    """SHOW LISTS, in PgBouncer's order. It keeps freed clients and servers; dualpool does not."""
    pools = server.backends.pools()
    counts = {
        "databases": len(Names(server).databases) + 1,
        "users": len(server.config.users) + 1,
        "peers": 0,
        "pools": len(pools) + 1,
        "peer_pools": 0,
        "free_clients": 0,
        "used_clients": len(server.clients.by_id) + len(server.console.sessions),
        "login_clients": sum(door.arriving for door in server.doors),
        "free_servers": 0,
        "used_servers": sum(sum(pool.counted) for pool in pools),
        "dns_names": 0,
        "dns_zones": 0,
        "dns_queries": 0,
        "dns_pending": 0,
    }
    return list(counts.items())


def version(_: "Server") -> list[Row]:
    """SHOW VERSION: PgBouncer's first, because exporters parse it."""
    return [(f"PgBouncer {PGBOUNCER_VERSION} (dualpool {__version__})",)]


def state(server: "Server") -> list[Row]:
    """SHOW STATE."""
    halts = server.backends.halts
    return [
        ("active", "no" if halts.everything or halts.suspended else "yes"),
        ("paused", "yes" if halts.everything else "no"),
        ("suspended", "yes" if halts.suspended else "no"),
    ]


def fds(server: "Server") -> list[Row]:
    """SHOW FDS: the open sockets."""
    rows: list[Row] = [
        (sock.fileno(), "pooler", None, None, *address(sock.getsockname), 0, 0) for door in server.doors for sock in door.sockets
    ]
    describer = Describer(server)
    for client in server.clients.by_id.values():
        _, user, database, _, _, host, port, *_ = describer.client(client)
        held = client.server
        rows.append((client.channel.fd, "client", user, database, host, port, client.id, 0 if held is None else held.id))
    for pool in server.backends.pools():
        for conn in server.connections_of(pool):
            _, user, database, _, _, host, port, *_ = describer.connection(conn)
            owner = conn.client
            rows.append((conn.channel.fd, "server", user, database, host, port, conn.login.process_id, 0 if owner is None else owner.id))
    return rows


def nothing(_: "Server") -> list[Row]:
    """A table that PgBouncer has and dualpool has no rows for."""
    return []


TABLES: Final[dict[str, Show]] = {
    "POOLS": Show(POOLS, pools),
    "CLIENTS": Show(CLIENTS, clients),
    "SERVERS": Show(CLIENTS, servers),
    "DATABASES": Show(DATABASES, databases),
    "USERS": Show(USERS, users),
    "STATS": Show(STATS, stats),
    "STATS_TOTALS": Show(STATS_TOTALS, stats_totals),
    "STATS_AVERAGES": Show(STATS_AVERAGES, stats_averages),
    "TOTALS": Show(TOTALS, totals),
    "LISTS": Show(LISTS, lists),
    "CONFIG": Show(columns(key="text", value="text", default="text", changeable="text"), config_rows),
    "VERSION": Show(columns(version="text"), version),
    "STATE": Show(columns(key="text", value="text"), state),
    "SOCKETS": Show(SOCKETS, sockets),
    "ACTIVE_SOCKETS": Show(SOCKETS, active_sockets),
    "MEM": Show(columns(name="text", size="int4", used="int4", free="int4", memtotal="int4"), nothing),
    "DNS_HOSTS": Show(columns(hostname="text", ttl="int8", addrs="text"), nothing),
    "DNS_ZONES": Show(columns(zonename="text", serial="int8", count="int4"), nothing),
    "FDS": Show(columns(fd="int4", task="text", user="text", database="text", addr="text", port="int4", cancel="int8", link="int4"), fds),
    "PEERS": Show(columns(peer_id="int4", host="text", port="int4", pool_size="int4"), nothing),
    "PEER_POOLS": Show(
        columns(peer_id="int4", cl_active_cancel_req="int4", cl_waiting_cancel_req="int4", sv_active_cancel="int4", sv_login="int4"),
        nothing,
    ),
}
