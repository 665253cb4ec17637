"""proxysql.cnf as a configuration of dualpool. What each setting means: ProxySQL docs, "Main (runtime) tables" and "MySQL variables".

dualpool chooses a server by the database that a client connects to, ProxySQL by user and query: a hostgroup becomes a backend, and the
hostgroup that most users have as their default serves every database.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Final

from dualpool.config.importers.document import Imported, seconds_text, url_text
from dualpool.config.importers.libconfig import parse_libconfig
from dualpool.errors import ConfigError

LISTENER: Final = "mysql"
DEFAULT_INTERFACES: Final = "0.0.0.0:6033"
DEFAULT_SERVER_CONNECTIONS: Final = 1000
MILLISECONDS: Final = {
    "connect_timeout_server": "server_connect",
    "connect_timeout_server_max": "query_wait",
    "connection_max_age_ms": "server_lifetime",
    "default_query_timeout": "query",
    "max_transaction_time": "transaction",
    "max_transaction_idle_time": "idle_in_transaction",
    "wait_timeout": "client_idle",
}
TABLES_WITHOUT: Final = {
    "mysql_query_rules": "queries are not routed, rewritten or cached; each database is on one backend",
    "mysql_query_rules_fast_routing": "queries are not routed",
    "mysql_replication_hostgroups": "roles are found by target_session_attrs on a backend",
    "mysql_group_replication_hostgroups": "roles are found by target_session_attrs on a backend",
    "mysql_galera_hostgroups": "nodes are not watched; a backend may have several hosts",
    "mysql_aws_aurora_hostgroups": "nodes are not watched; a backend may have several hosts",
    "mysql_collations": "the servers' collations are used",
    "mysql_firewall_whitelist_users": "queries are not filtered",
    "mysql_firewall_whitelist_rules": "queries are not filtered",
    "proxysql_servers": "there is no cluster",
    "scheduler": "nothing is run",
    "restapi": "see admin.http",
    "admin_variables": "the admin console is the database dualpool on every listener; name its users in [admin]",
    "pgsql_servers": "import PostgreSQL servers by hand",
    "pgsql_users": "import PostgreSQL users by hand",
    "pgsql_variables": "import PostgreSQL servers by hand",
    "pgsql_query_rules": "queries are not routed",
}
SILENT: Final = frozenset({"datadir", "errorlog", "logdir", "restart_on_missing_heartbeats", "execute_on_exit_failure", "uuid"})
VARIABLES_KNOWN: Final = frozenset({"interfaces", "max_connections", "have_ssl", *MILLISECONDS})
VARIABLES_WITHOUT: Final = {
    "default_schema": "a client that names no database is in none",
    "server_version": "clients are told the version of their server",
    "init_connect": "use connect_query on the backend",
    "multiplexing": "server connections are shared between transactions; see pool_mode",
    "monitor_username": "servers are checked by the connections in use",
    "query_cache_size_MB": "there is no query cache",
    "ssl_p2s_ca": "put sslrootcert into the url of the backend",
    "ssl_p2s_cert": "put sslcert into the url of the backend",
    "ssl_p2s_key": "put sslkey into the url of the backend",
    "proxy_protocol_networks": "",
}
USER_WITHOUT: Final = {
    "transaction_persistent": (1, True),
    "fast_forward": (0, False),
    "schema_locked": (0, False),
    "use_ssl": (0, False),
}
"""Settings of a user, and the values that need no remark."""


def import_proxysql(path: Path) -> Imported:
    """What a proxysql.cnf says. Raises ConfigError."""
    return Import(path).run()


class Import:
    """One file, and what has been made of it so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from None
        self.given = parse_libconfig(text, path)
        self.variables: dict[str, Any] = self.group("mysql_variables")
        tables: dict[str, Any] = {"listeners": {}, "backends": {}, "databases": {}, "users": {}}
        self.result = Imported(path, tables, [])

    def run(self) -> Imported:
        """Convert everything."""
        document = self.result.document
        document["listeners"][LISTENER] = self.listener()
        self.add_backends()
        self.add_users()
        self.add_database()
        document["limits"] = {"max_client_connections": int(self.variables.get("max_connections", 2048))}
        document["timeouts"] = self.timeouts()
        self.remark()
        return Imported(self.path, {key: table for key, table in document.items() if table}, self.result.notes)

    def group(self, name: str) -> dict[str, Any]:
        """A group of the file; variables are also written with their prefix."""
        found = self.given.get(name, {})
        if not isinstance(found, dict):
            raise ConfigError(f"{self.path}: {name}: must be a group, {{ ... }}")
        return {key.removeprefix("mysql-"): value for key, value in found.items()}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A table of the file."""
        found = self.given.get(name, [])
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise ConfigError(f"{self.path}: {name}: must be a list of groups, ( {{ ... }}, ... )")
        return found

    def listener(self) -> dict[str, Any]:
        """Where clients connect. A path is a Unix socket."""
        interfaces = [part.strip() for part in str(self.variables.get("interfaces", DEFAULT_INTERFACES)).split(";") if part.strip()]
        bind = [f"unix:{part}" if part.startswith("/") else part for part in interfaces]
        listener: dict[str, Any] = {"protocol": "mysql", "bind": bind}
        if self.variables.get("have_ssl"):
            self.result.note("have_ssl", "give the listener a certificate: tls = { cert = FILE, key = FILE }")
        if networks := str(self.variables.get("proxy_protocol_networks", "")):
            listener["proxy_protocol"] = ["0.0.0.0/0", "::/0"] if networks == "*" else [part.strip() for part in networks.split(",")]
        return listener

    def add_backends(self) -> None:
        """A backend for each hostgroup."""
        groups: dict[int, list[dict[str, Any]]] = {}
        for server in self.rows("mysql_servers"):
            if str(server.get("status", "ONLINE")).upper() in {"OFFLINE_SOFT", "OFFLINE_HARD"}:
                self.result.note(f"mysql_servers: {server.get('address')}", "is offline, and left out")
                continue
            groups.setdefault(int(server.get("hostgroup", server.get("hostgroup_id", 0))), []).append(server)
        if not groups:
            raise ConfigError(f"{self.path}: mysql_servers: there is no server")
        for number, servers in sorted(groups.items()):
            self.result.document["backends"][name_of(number)] = self.backend(number, servers)

    def backend(self, number: int, servers: list[dict[str, Any]]) -> dict[str, Any]:
        """The servers of one hostgroup. Each client's own user logs in there, as with ProxySQL."""
        hosts = [(str(self.required(server, "address")), int(server.get("port", 3306)) or 3306) for server in servers]
        sockets = [host for host, _ in hosts if host.startswith("/")]
        if sockets and len(hosts) > 1:
            reason = f"only {sockets[0]} of its servers is taken: a socket and hosts do not mix"
            self.result.note(f"mysql_servers: hostgroup {number}", reason)
            hosts = [(sockets[0], 3306)]
        tls = any(server.get("use_ssl") for server in servers)
        backend: dict[str, Any] = {"url": url_text("mysql", hosts, {"sslmode": "require" if tls else "disable"})}
        limits = [int(server.get("max_connections", DEFAULT_SERVER_CONNECTIONS)) for server in servers]
        backend |= {"budget": max(1, sum(limits)), "reserved_maintenance": 0}
        if len(hosts) > 1:
            backend["load_balance"] = "round-robin"
        if len({server.get("weight", 1) for server in servers}) > 1:
            self.result.note(f"mysql_servers: hostgroup {number}: weight", "its servers get equal shares")
        for key in ("compression", "max_replication_lag", "max_latency_ms"):
            if any(server.get(key) for server in servers):
                self.result.note(f"mysql_servers: hostgroup {number}: {key}", "is not possible")
        return backend

    def add_users(self) -> None:
        """Who may log in."""
        users = self.result.document["users"]
        for row in self.rows("mysql_users"):
            name = str(self.required(row, "username"))
            if not row.get("active", 1) or not row.get("frontend", 1):
                continue
            password = str(row.get("password", ""))
            users[name] = {"password": password}
            if int(row.get("max_connections", 0)) not in {0, 10_000}:
                users[name]["max_client_connections"] = int(row["max_connections"])
            if row.get("default_schema"):
                self.result.note(f"mysql_users: {name}: default_schema = {row['default_schema']}", VARIABLES_WITHOUT["default_schema"])
            for key, harmless in USER_WITHOUT.items():
                if row.get(key, harmless[0]) not in harmless:
                    self.result.note(f"mysql_users: {name}: {key} = {row[key]}", "is not possible for a single user")

    def add_database(self) -> None:
        """Every name, on the hostgroup that most users have."""
        document = self.result.document
        wanted = {
            str(row.get("username")): int(row.get("default_hostgroup", 0)) for row in self.rows("mysql_users") if row.get("active", 1)
        }
        used = Counter(number for number in wanted.values() if name_of(number) in document["backends"])
        backend = name_of(used.most_common(1)[0][0]) if used else next(iter(document["backends"]))
        document["databases"]["*"] = {"backend": backend, "pool_size": document["backends"][backend]["budget"]}
        for user, number in wanted.items():
            if name_of(number) != backend:
                reason = f"dualpool chooses by database: every one is on {backend}; give those of {name_of(number)} tables of their own"
                self.result.note(f"mysql_users: {user}: default_hostgroup = {number}", reason)

    def timeouts(self) -> dict[str, str]:
        """Every time. In ProxySQL they are milliseconds."""
        found = {}
        for key, name in MILLISECONDS.items():
            if key in self.variables:
                seconds = float(self.variables[key]) / 1000
                # In ProxySQL an age of 0 is "for ever"; here it would be "once".
                found[name] = seconds_text(365 * 86400.0 if (key, seconds) == ("connection_max_age_ms", 0.0) else seconds)
        return found

    def remark(self) -> None:
        """On everything that has been used for nothing."""
        for key in self.given:
            if key in TABLES_WITHOUT and self.given[key]:
                self.result.note(key, TABLES_WITHOUT[key])
            elif key not in {"mysql_servers", "mysql_users", "mysql_variables", *TABLES_WITHOUT, *SILENT}:
                self.result.note(key, "is not known")
        others = []
        for key, value in self.variables.items():
            if key in VARIABLES_WITHOUT:
                if VARIABLES_WITHOUT[key]:
                    self.result.note(f"mysql_variables: {key} = {value}", VARIABLES_WITHOUT[key])
            elif key not in VARIABLES_KNOWN:
                others.append(key)
        if others:
            self.result.note("mysql_variables: " + ", ".join(others), "have no equivalent")

    def required(self, row: dict[str, Any], key: str) -> Any:
        """A setting that a row must have."""
        if key not in row:
            raise ConfigError(f"{self.path}: {key} is missing in {sorted(row)}")
        return row[key]


def name_of(hostgroup: int) -> str:
    """What a hostgroup's backend is called."""
    return f"hostgroup-{hostgroup}"
