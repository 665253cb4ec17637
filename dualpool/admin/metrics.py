"""/metrics: what the console shows, for Prometheus. A time series per pool, backend or listener; never one per client.

`[admin] metrics_compat = "pgbouncer"` adds the names of prometheus-community/pgbouncer_exporter (collector.go), for its dashboards.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from dualpool import __version__
from dualpool.admin.tables import TABLES, Names, Row
from dualpool.answers import Value
from dualpool.config import LANES
from dualpool.counters import BOUNDS

if TYPE_CHECKING:
    from dualpool.backends import PoolEntry
    from dualpool.server import Server

MICROSECOND: Final = 1e-6
POOL_LABELS: Final = ("database", "user", "protocol")


class Metrics:
    """The registry of one server."""

    def __init__(self, server: "Server") -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Dualpool(server))
        self.registry.register(_Pgbouncer(server))
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self.registry)


class _Dualpool(Collector):
    """dualpool_*"""

    def __init__(self, server: "Server") -> None:
        self.server = server

    def collect(self) -> Iterator[Metric]:
        server = self.server
        names = Names(server)
        server.statistics.gather()
        yield InfoMetricFamily("dualpool", "What is running.", {"version": __version__})
        entries = [(label_of(names, entry), entry) for entry in server.backends.entries()]
        yield from self._gauges(entries)
        yield from self._totals(entries)
        yield from self._pins(entries)
        yield from self._histograms(entries)
        yield from self._backends()
        yield from self._listeners()

    def _gauges(self, entries: "list[tuple[list[str], PoolEntry]]") -> Iterator[Metric]:
        clients = GaugeMetricFamily("dualpool_clients", "Clients that are logged in.", labels=(*POOL_LABELS, "state"))
        connections = GaugeMetricFamily("dualpool_server_connections", "Server connections.", labels=(*POOL_LABELS, "state"))
        size = GaugeMetricFamily("dualpool_pool_size", "Server connections that the pool may have.", labels=POOL_LABELS)
        paused = GaugeMetricFamily("dualpool_pool_paused", "1: an operator has paused it.", labels=POOL_LABELS)
        wait = GaugeMetricFamily("dualpool_pool_max_wait_seconds", "How long the first in the queue has waited.", labels=POOL_LABELS)
        active = Counter(client.pool for client in self.server.clients.by_id.values() if client.server is not None)
        for labels, entry in entries:
            state = entry.pool.statistics()
            busy = active[entry.pool]
            for name, count in (("active", busy), ("waiting", state.waiting), ("idle", max(0, state.clients - busy - state.waiting))):
                clients.add_metric([*labels, name], count)
            for name in ("idle", "leased", "resetting", "connecting", "closing"):
                connections.add_metric([*labels, name], getattr(state, name))
            size.add_metric(labels, state.size)
            paused.add_metric(labels, int(state.paused))
            wait.add_metric(labels, state.max_wait)
        yield from (clients, connections, size, paused, wait)

    def _totals(self, entries: "list[tuple[list[str], PoolEntry]]") -> Iterator[Metric]:
        told = {
            "queries": "Queries that were answered.",
            "transactions": "Transactions that ended.",
            "received_bytes": "Bytes from clients.",
            "sent_bytes": "Bytes from servers, to clients.",
            "client_parses": "Statements that clients prepared.",
            "server_parses": "Statements that were prepared on servers.",
            "binds": "Prepared statements that were run.",
            "logins": "Clients that logged in.",
            "leaks": "Leases that left something which only a question to the server has shown.",
            "checkouts": "Server connections that were given to clients.",
            "checkout_timeouts": "Clients that waited for a server connection in vain.",
            "connects": "Server connections that were opened.",
            "connect_failures": "Connects that failed.",
            "connection_losses": "Server connections that broke.",
        }
        families = {name: CounterMetricFamily(f"dualpool_{name}", text, labels=POOL_LABELS) for name, text in told.items()}
        for labels, entry in entries:
            counters, pool = entry.pool.counters, entry.pool
            values = (
                counters.queries, counters.transactions, counters.received, counters.sent, counters.client_parses,
                counters.server_parses, counters.binds, counters.logins, counters.leaks, pool.checkouts, pool.timeouts, pool.connects,
                pool.connect_failures, pool.losses,
            )  # fmt: skip
            for family, value in zip(families.values(), values, strict=True):
                family.add_metric(labels, value)
        yield from families.values()

    def _pins(self, entries: "list[tuple[list[str], PoolEntry]]") -> Iterator[Metric]:
        """By what the sessions hold; an engine has a dozen of such reasons."""
        labels = (*POOL_LABELS, "reason")
        total = CounterMetricFamily("dualpool_pins", "Sessions that came to hold what keeps their server connection.", labels=labels)
        now = GaugeMetricFamily("dualpool_pinned_connections", "Server connections that their sessions keep now.", labels=labels)
        for values, entry in entries:
            held = Counter(
                reason.partition(";")[0] for conn in self.server.connections_of(entry.pool) for reason in conn.relay.pin_reasons()
            )
            for reason, count in entry.pool.counters.pins.items():
                total.add_metric([*values, reason], count)
            # One that was held once stays, so that it goes back to 0 and does not vanish.
            for reason in entry.pool.counters.pins | held:
                now.add_metric([*values, reason], held[reason])
        yield from (total, now)

    def _histograms(self, entries: "list[tuple[list[str], PoolEntry]]") -> Iterator[Metric]:
        queries = HistogramMetricFamily("dualpool_query_seconds", "From a query to its answer.", labels=POOL_LABELS)
        transactions = HistogramMetricFamily("dualpool_transaction_seconds", "From its first query to its end.", labels=POOL_LABELS)
        waits = HistogramMetricFamily("dualpool_wait_seconds", "Wait for a server connection.", labels=POOL_LABELS)
        for labels, entry in entries:
            counters, pool = entry.pool.counters, entry.pool
            # Those who found an idle connection waited for no time at all; nothing counted them one by one.
            wait_buckets = [counters.wait_buckets[0] + pool.checkouts - pool.waits, *counters.wait_buckets[1:]]
            queries.add_metric(labels, cumulative(counters.query_buckets), counters.query_seconds)
            transactions.add_metric(labels, cumulative(counters.transaction_buckets), counters.transaction_seconds)
            waits.add_metric(labels, cumulative(wait_buckets), counters.wait_seconds)
        yield from (queries, transactions, waits)

    def _backends(self) -> Iterator[Metric]:
        used = GaugeMetricFamily("dualpool_backend_connections", "Connections to a backend.", labels=("backend", "lane"))
        budget = GaugeMetricFamily("dualpool_backend_budget", "Connections that dualpool may hold to a backend.", labels=("backend",))
        reserve = GaugeMetricFamily("dualpool_backend_reserved", "Those that only maintenance may take.", labels=("backend",))
        for name, state in self.server.backends.states.items():
            for lane_name, lane in LANES.items():
                used.add_metric([name, lane_name], state.budget.counted[lane])
            if state.budget.limit is not None:
                budget.add_metric([name], state.budget.limit)
                reserve.add_metric([name], state.budget.reserve)
        yield from (used, budget, reserve)

    def _listeners(self) -> Iterator[Metric]:
        clients = GaugeMetricFamily("dualpool_listener_clients", "Clients that came in at a listener.", labels=("listener",))
        accepted = CounterMetricFamily("dualpool_listener_accepted", "Connections that a listener has accepted.", labels=("listener",))
        for door in self.server.doors:
            clients.add_metric([door.listener.name], door.clients)
            accepted.add_metric([door.listener.name], door.accepted)
        yield from (clients, accepted)


def label_of(names: Names, entry: "PoolEntry") -> list[str]:
    """The values of POOL_LABELS."""
    return [names.shown[entry.database_key], entry.shown_user, entry.database_key[0]]


def cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    """A histogram as Prometheus counts it: everything up to each bound."""
    bounds = [f"{bound:g}" for bound in BOUNDS] + ["+Inf"]
    return list(zip(bounds, map(float, accumulate(buckets)), strict=True))


# --------------------------------------------------------------------------------------------------------- pgbouncer_exporter

DATABASE_GAUGES: Final = {
    "pool_size": "pool_size",
    "reserve_pool": "reserve_pool_size",
    "max_connections": "max_connections",
    "current_connections": "current_connections",
    "paused": "paused",
    "disabled": "disabled",
}
STAT_COUNTERS: Final = {
    "queries_pooled": ("query_count", 1.0),
    "queries_duration_seconds": ("query_time", MICROSECOND),
    "received_bytes": ("bytes_received", 1.0),
    "queries": ("query_count", 1.0),
    "sent_bytes": ("bytes_sent", 1.0),
    "client_wait_seconds": ("wait_time", MICROSECOND),
    "sql_transactions_pooled": ("xact_count", 1.0),
    "server_in_transaction_seconds": ("xact_time", MICROSECOND),
    "client_parses": ("client_parse_count", 1.0),
    "server_parses": ("server_parse_count", 1.0),
    "binds": ("bind_count", 1.0),
    "server_assignments": ("server_assignment_count", 1.0),
}
POOL_GAUGES: Final = {
    "client_active_connections": "cl_active",
    "client_active_cancel_connections": "cl_active_cancel_req",
    "client_waiting_connections": "cl_waiting",
    "client_waiting_cancel_connections": "cl_waiting_cancel_req",
    "server_active_connections": "sv_active",
    "server_active_cancel_connections": "sv_active_cancel",
    "server_being_canceled_connections": "sv_being_canceled",
    "server_idle_connections": "sv_idle",
    "server_used_connections": "sv_used",
    "server_testing_connections": "sv_tested",
    "server_login_connections": "sv_login",
    "client_maxwait_seconds": "maxwait",
}
LIST_GAUGES: Final = {
    "databases": "databases",
    "users": "users",
    "pools": "pools",
    "free_clients": "free_clients",
    "used_clients": "used_clients",
    "login_clients": "login_clients",
    "free_servers": "free_servers",
    "used_servers": "used_servers",
    "cached_dns_names": "dns_names",
    "cached_dns_zones": "dns_zones",
    "in_flight_dns_queries": "dns_queries",
}
DATABASE_LABELS: Final = ("name", "host", "port", "database", "force_user", "pool_mode")


class _Pgbouncer(Collector):
    """pgbouncer_*, if wanted. It reads the tables of SHOW, as the exporter does."""

    def __init__(self, server: "Server") -> None:
        self.server = server

    def collect(self) -> Iterator[Metric]:
        if self.server.config.admin.metrics_compat != "pgbouncer":
            return
        yield GaugeMetricFamily("pgbouncer_up", "Whether the console answers.", 1)
        version = GaugeMetricFamily("pgbouncer_version_info", "The version that SHOW VERSION tells.", labels=("version",))
        version.add_metric([text(self._rows("VERSION")[0]["version"])], 1)
        yield version
        limits = self.server.config.limits
        yield GaugeMetricFamily("pgbouncer_config_max_client_connections", "Clients at once.", limits.max_client_connections)
        yield GaugeMetricFamily("pgbouncer_config_max_user_connections", "Server connections per user; 0: no limit.", 0)
        yield from gauges("databases", self._rows("DATABASES"), DATABASE_LABELS, DATABASE_GAUGES)
        yield from gauges("pools", self._rows("POOLS"), ("database", "user"), POOL_GAUGES)
        items = {str(row["list"]): row["items"] for row in self._rows("LISTS")}
        for name, key in LIST_GAUGES.items():
            yield GaugeMetricFamily(f"pgbouncer_{name}", f"{key} of SHOW LISTS.", number(items[key]))
        # The exporter has called them stats_totals_ since 0.8; older dashboards look for stats_.
        stats = self._rows("STATS_TOTALS")
        for prefix in ("stats_totals", "stats"):
            yield from counters(prefix, stats)
        yield self._clients()

    def _rows(self, table: str) -> list[dict[str, Value]]:
        return as_objects(table, TABLES[table].rows(self.server))

    def _clients(self) -> Metric:
        labels = ("database", "user", "application_name", "state")
        family = GaugeMetricFamily("pgbouncer_client_connections", "Clients by what they are.", labels=labels)
        for values, count in Counter(tuple(text(row[label]) for label in labels) for row in self._rows("CLIENTS")).items():
            family.add_metric(values, count)
        return family


def gauges(prefix: str, rows: list[dict[str, Value]], labels: tuple[str, ...], columns: dict[str, str]) -> Iterator[Metric]:
    """A gauge for each of `columns`."""
    for name, column in columns.items():
        family = GaugeMetricFamily(f"pgbouncer_{prefix}_{name}", f"{column} of SHOW {prefix.upper()}.", labels=labels)
        for row in rows:
            family.add_metric([text(row[label]) for label in labels], number(row[column]))
        yield family


def counters(prefix: str, rows: list[dict[str, Value]]) -> Iterator[Metric]:
    """A counter for each of STAT_COUNTERS."""
    for name, (column, factor) in STAT_COUNTERS.items():
        family = CounterMetricFamily(f"pgbouncer_{prefix}_{name}", f"{column} of SHOW STATS_TOTALS.", labels=("database",))
        for row in rows:
            family.add_metric([text(row["database"])], number(row[column]) * factor)
        yield family


def as_objects(table: str, rows: list[Row]) -> list[dict[str, Value]]:
    """Rows with the names of their columns."""
    names = [column.name for column in TABLES[table].columns]
    return [dict(zip(names, row, strict=True)) for row in rows]


def text(value: Value) -> str:
    """A label's value."""
    return "" if value is None else str(value)


def number(value: Value) -> float:
    """A sample's value."""
    return 0.0 if value is None else float(value)
