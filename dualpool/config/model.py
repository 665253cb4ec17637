"""The configuration, as the program reads it: frozen classes whose attribute names are the TOML keys. Times are floats of seconds, 0 = off.

A key is declared once, here: `setting(help, default=..., minimum=...)`. The loader, conf/reference.toml and the JSON schema follow.
"""

# ruff: noqa: RUF009 -- setting(), duration(), instead_of() and from_url() are attrs fields.

from fractions import Fraction
from typing import Any, Final, Literal

import attrs

from dualpool.accounts import AuthMethod, SslMode
from dualpool.authentication.hba import Rule
from dualpool.authentication.ident import IdentMaps
from dualpool.config.fields import Seconds, duration, from_url, instead_of, setting
from dualpool.protocol import APPLICATION, MAINTENANCE, SESSION, STATEMENT, TRANSACTION

Protocol = Literal["postgres", "mysql"]
PoolMode = Literal["transaction", "session", "statement"]
Lane = Literal["application", "maintenance"]
SslNegotiation = Literal["postgres", "direct"]
TargetSessionAttrs = Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]
LoadBalance = Literal["in-order", "round-robin"]
PinPolicy = Literal["allow", "warn", "error"]
ListenPolicy = Literal["shared", "pin", "error"]
Verify = Literal["always", "learn", "never"]
SequenceValues = Literal["error", "pin"]
ListenerAuth = Literal[AuthMethod, "hba"]

POOL_MODES: Final[dict[PoolMode, int]] = {"transaction": TRANSACTION, "session": SESSION, "statement": STATEMENT}
LANES: Final[dict[str, int]] = {"application": APPLICATION, "maintenance": MAINTENANCE}
SCHEMES: Final[dict[Protocol, str]] = {"postgres": "postgresql", "mysql": "mysql"}
WILDCARD: Final = "*"


@attrs.frozen
class Bind:
    """An address to listen on: `host` ("": all interfaces) and `port` (0: any free one), or `unix`, the full path of a socket."""

    host: str = ""
    port: int = 0
    unix: str = ""

    def __str__(self) -> str:
        if self.unix:
            return f"unix:{self.unix}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host or '*'}:{self.port}"


@attrs.frozen
class Tls:
    """TLS towards clients."""

    mode: SslMode = setting(
        "disable, allow, prefer: clients choose; require: TLS only; verify-ca, verify-full: a client certificate as well "
        "(verify-full: its common name must be the user).",
        default="prefer",
    )
    cert: str = setting("Certificate chain, PEM.", default="", kind="path", example="server.crt")
    key: str = setting("Private key, PEM.", default="", kind="path", example="server.key")
    client_ca: str = setting("Authorities whose client certificates are accepted, PEM.", default="", kind="path", example="ca.crt")

    @property
    def offered(self) -> bool:
        """TLS can be offered to clients."""
        return self.mode != "disable"

    @property
    def required(self) -> bool:
        """A client that stays in plain text is turned away."""
        return self.mode in {"require", "verify-ca", "verify-full"}


@attrs.frozen
class Listener:
    """Where clients connect, and how those who come in there are served."""

    name: str
    protocol: Protocol = setting("Which clients connect here.", example='"postgres"')
    bind: tuple[Bind, ...] = setting(
        "Address, or a list of them: host:port, [::1]:port, *:port, or unix: with a directory or the path of a socket.",
        example='"127.0.0.1:6543"',
    )
    pool_mode: PoolMode = setting("How long a client keeps a server connection: transaction, session or statement.", default="transaction")
    lane: Lane = setting(
        "maintenance: all clients of this listener may use the reserved connections, whoever they are; they are in session mode.",
        default="application",
    )
    tls: Tls | None = setting(
        "TLS towards clients. Files are relative to this file.",
        default=None,
        example='{ mode = "prefer", cert = "server.crt", key = "server.key" }',
    )
    auth: ListenerAuth = setting(
        "How clients prove who they are. auto: the strongest way that the stored password allows. md5 and scram-sha-256: PostgreSQL only. "
        "trust: not at all; if there are no users in this file, everybody is let in. hba: as the rules of auth.hba say.",
        default="auto",
    )
    backlog: int = setting(
        "Connections that the kernel queues before they are accepted. A MySQL client that finds it full may hang.",
        default=1024,
        minimum=1,
    )
    reuse_port: bool = setting(
        "Another process of the same user may listen here too (SO_REUSEPORT; a Unix socket goes over to whoever came last): for a restart "
        "without a gap, by dualpool run --takeover.",
        default=False,
    )
    proxy_protocol: tuple[str, ...] = setting(
        "Networks of load balancers whose connections begin with a PROXY header (version 1 or 2), which tells the client's address.",
        default=(),
        kind="network",
        example='["10.0.0.0/8"]',
    )
    ignore_parameters: tuple[str, ...] = setting(
        "Start-up parameters of clients that are left out (PostgreSQL).", default=(), example='["some_proxy.hint"]'
    )
    socket_mode: str = setting("Who may connect to the Unix sockets, as chmod writes it.", default="0777", kind="mode")
    socket_group: str = setting("Group of the Unix sockets; default: the group of the process.", default="", example='"app"')

    @property
    def mode(self) -> int:
        """`pool_mode` as protocol.py counts it."""
        return POOL_MODES[self.pool_mode]


@attrs.frozen
class MemoryBudget:
    """A budget by the rule of hosted databases: so many connections per GB of memory."""

    memory_gb: float = setting("Memory of the database server, in GB.", minimum=0.1, example="1")
    per_gb: int = setting("Connections that each GB allows.", minimum=1, example="25")

    @property
    def connections(self) -> int:
        """The budget as a number."""
        # Fractions of the decimal text: in floating point 0.29 * 100 is under 29.
        return int(Fraction(str(self.memory_gb)) * self.per_gb)


Budget = Literal["auto"] | int | MemoryBudget


@attrs.frozen
class Backend:
    """A database server. Everything that a URL says is parsed out of `url`; `hosts` has at least one entry, a host with `/` is a socket."""

    name: str
    url: str = setting(
        "Where the server is and who logs in: postgresql://user:password@host:port/database?sslmode=verify-full, or mysql://. Several "
        'hosts: host1,host2 or ?hosts=host1,host2. A Unix socket: ?host=/path. Also sslrootcert (a file or "system"), sslcert, sslkey, '
        "sslnegotiation=direct, server_name; MySQL's ssl-mode, ssl-ca, ssl-cert, ssl-key. Other parameters go to the server. Without a "
        "user, each client's own user logs in. A variable inside the user or the password is taken literally, so it needs no "
        "percent-encoding.",
        kind="secret",
        example='"postgresql://app:${APP_PASSWORD:-app}@127.0.0.1:5432/app?sslmode=prefer"',
    )
    budget: Budget = setting(
        'Server connections of all pools: "auto" (ask the server), a number, or { memory_gb = 1, per_gb = 25 }.',
        default="auto",
        minimum=1,
    )
    reserved_maintenance: int = setting("How many of them only the maintenance lane may use.", default=3, minimum=0)
    load_balance: LoadBalance = setting(
        "Which of several hosts a new server connection goes to: in-order: the first that answers; round-robin: each in turn. A host that "
        "failed is tried last for a while. In a url: load_balance_hosts.",
        default="in-order",
    )
    target_session_attrs: TargetSessionAttrs = setting(
        "Which server a host must be: any, read-write, read-only, primary, standby or prefer-standby. MySQL: read_only makes a standby. "
        "In a url: the parameter of the same name.",
        default="any",
    )
    idle_after: Seconds = setting(
        "When no client has used a database for this long: its server connections are closed, and nothing is opened until one does, so "
        'that a server that stops when nobody is connected can stop. While a client LISTENs, its connection stays. "0s": never.',
        default=0.0,
        kind="duration",
        minimum=0,
    )
    connect_query: str = setting("SQL that runs on each new server connection.", default="")
    check_query: str = setting("SQL that tells whether an idle server connection still works; empty: the cheapest way.", default="")
    auth_user: str = setting(
        "Clients' users that this file does not know are looked up at the server, on a connection of this user.",
        default="",
        example='"pooler"',
    )
    auth_password: str = setting(
        "Its password; default: the url's, if it is the url's user, or that of its table in [users].",
        default="",
        kind="secret",
        example='"${AUTH_PASSWORD:-pooler}"',
    )
    auth_query: str = setting(
        "SQL that finds the user $1: a row with the name and the stored password (NULL: no password will do). Default: PostgreSQL's "
        "pg_authid, with VALID UNTIL; MySQL's mysql.user, for host %.",
        default="",
        example='"SELECT * FROM pooler.user_lookup($1)"',
    )
    auth_database: str = setting(
        "The database (as clients call it) where that runs; default: the one that the client connects to.", default="", example='"app"'
    )
    protocol: Protocol = from_url("postgres")
    hosts: tuple[tuple[str, int], ...] = from_url(())
    user: str = from_url("")
    password: str = from_url("", secret=True)
    database: str = from_url("")
    sslmode: SslMode = from_url("prefer")
    sslrootcert: str = from_url("")
    sslcert: str = from_url("")
    sslkey: str = from_url("")
    sslnegotiation: SslNegotiation = from_url("postgres")
    server_name: str = from_url("")
    parameters: dict[str, str] = from_url(attrs.Factory(dict))

    @property
    def budget_number(self) -> int | None:
        """The budget, or None if only the server knows."""
        if isinstance(self.budget, MemoryBudget):
            return self.budget.connections
        return None if self.budget == "auto" else self.budget


def pin_reason(help: str) -> Any:
    """A reason for a pin, in the words of SHOW PINS with underscores; what happens then, if not `default`."""
    return setting(help, default=None, example='"error"')


@attrs.frozen
class Pins:
    """What happens for each of the reasons for which a session keeps its server connection."""

    default: PinPolicy = setting("For every reason that is not named.", default="warn")
    cursor: PinPolicy | None = pin_reason("A cursor WITH HOLD (PostgreSQL); one that is not read to its end (MySQL).")
    prepared_statement: PinPolicy | None = pin_reason("PREPARE in SQL.")
    temporary_table: PinPolicy | None = pin_reason("A temporary table, or view, or sequence.")
    advisory_lock: PinPolicy | None = pin_reason("PostgreSQL: pg_advisory_lock.")
    library: PinPolicy | None = pin_reason("PostgreSQL: LOAD.")
    sequence: PinPolicy | None = pin_reason('Numbers of a sequence that the client may ask for (sequence_values = "pin").')
    listen: PinPolicy | None = pin_reason("PostgreSQL: a LISTEN that is not shared.")
    setting: PinPolicy | None = pin_reason("PostgreSQL: a setting whose name only the server knows.")
    unknown_state: PinPolicy | None = pin_reason("PostgreSQL: the server did not say what the session holds.")
    handler: PinPolicy | None = pin_reason("MySQL: HANDLER ... OPEN.")
    lock: PinPolicy | None = pin_reason("MySQL: GET_LOCK.")
    role: PinPolicy | None = pin_reason("MySQL: SET ROLE.")
    session_state: PinPolicy | None = pin_reason("MySQL: the server says that the session has changed, but not in what.")
    session_variable: PinPolicy | None = pin_reason("MySQL: a session variable that cannot be replayed.")
    set_transaction: PinPolicy | None = pin_reason("MySQL: SET TRANSACTION, for the next one.")
    table_lock: PinPolicy | None = pin_reason("MySQL: LOCK TABLES and its like.")
    user_variable: PinPolicy | None = pin_reason("MySQL: user variables that cannot be replayed.")
    xa_transaction: PinPolicy | None = pin_reason("MySQL: XA START.")

    def by_reason(self) -> dict[str, PinPolicy]:
        """The policies of the reasons that have their own, by their words."""
        own: dict[str, PinPolicy | None] = attrs.asdict(self, filter=lambda attribute, _: attribute.name != "default")
        return {name.replace("_", " "): policy for name, policy in own.items() if policy is not None}


Pin = PinPolicy | Pins


@attrs.frozen
class Database:
    """A name that clients connect to. `database` is always filled in by the loader; only for a wildcard it is "" (the client's name)."""

    name: str = setting(
        'What clients call it; default: the name of the table. "*" takes every other name. Needed only where PostgreSQL and MySQL '
        "clients use the same name for different databases.",
        required=False,
        example='"app"',
    )
    backend: str = setting("Which backend it is on.", example='"main"')
    database: str = setting(
        'Its real name on the backend; default: `name`; for "*": the name that the client gave.', default="", example='"app_production"'
    )
    user: str = setting(
        "Server user for all its clients; default: the user of the backend's url, or else the client's own.", default="", example='"app"'
    )
    password: str = setting("The server user's password.", default="", kind="secret", example='"${SERVER_PASSWORD}"')
    pool_size: int = setting("Server connections for each server user.", default=20, minimum=1)
    reserve_pool_size: int = setting(
        "More of them while a client has waited for timeouts.reserve_pool; closed when nobody waits.", default=0, minimum=0
    )
    min_pool_size: int = setting("Server connections that stay open while there are clients.", default=0, minimum=0)
    pool_mode: PoolMode | None = setting("Instead of the listener's.", default=None, example='"session"')
    max_connections: int = setting("Server connections for all server users together; 0: no limit but the budget.", default=0, minimum=0)
    max_client_connections: int = setting("Clients at once; 0: no limit but limits.max_client_connections.", default=0, minimum=0)
    pin: Pin = setting(
        "When a session begins to hold what keeps its server connection after the transaction (a lock, a temporary table, ...): "
        "allow it; warn: allow it and tell the client; error: end the client. Or a table of these by reason, such as "
        '{ default = "allow", advisory_lock = "error" }:',
        default="warn",
    )
    listen: ListenPolicy = setting(
        "LISTEN in transaction mode (PostgreSQL). shared: one server connection of each server user listens for all its clients; pin: each "
        "client that listens keeps a server connection; error: it is refused.",
        default="shared",
    )
    verify: Verify = setting(
        "When the server is asked what a session holds before another client gets it. learn: after each statement that may have changed "
        "it unseen, until the same text was found harmless three times; always: after each of them; never: only after what changes it "
        "for certain.",
        default="learn",
    )
    verify_every: int = setting(
        "Of so many leases in which all looked harmless, the server is asked in one; a difference is logged as a leak. 0: in none.",
        default=1000,
        minimum=0,
    )
    sequence_values: SequenceValues = setting(
        "lastval(), currval() and MariaDB's LASTVAL() outside the transaction that has used the sequence. error: they are refused; pin: a "
        "client that uses a sequence keeps its server connection.",
        default="error",
    )
    strict: bool = setting("As the strict of the whole file, for this database.", default=False)
    idle_after: Seconds | None = setting("Instead of the backend's.", default=None, kind="duration", minimum=0, example='"5m"')
    server_lifetime: Seconds | None = instead_of("server_lifetime", "30m")
    query_wait: Seconds | None = instead_of("query_wait", "30s")
    client_idle: Seconds | None = instead_of("client_idle", "1h")
    idle_in_transaction: Seconds | None = instead_of("idle_in_transaction", "1m")
    query: Seconds | None = instead_of("query", "30s")
    transaction: Seconds | None = instead_of("transaction", "5m")
    pin_idle: Seconds | None = instead_of("pin_idle", "5m")


@attrs.frozen
class User:
    """Who may log in to dualpool."""

    name: str
    password: tuple[str, ...] = setting(
        "What the client must know: a password, or a stored form of it (SCRAM-SHA-256$..., md5..., *HEX or $A$005$...). A list: any one of "
        "them, so that passwords can change without an interruption. None: only trust or a certificate lets the user in.",
        default=(),
        kind="secret",
        example='"${APP_PASSWORD:-app}"',
    )
    maintenance: bool = setting(
        "May use the reserved connections; its clients are in session mode. A client says dualpool.lane=application, as a start-up "
        "parameter or connection attribute, to do without for once.",
        default=False,
    )
    maintenance_on_request: bool = setting(
        "The same for those of the user's clients that say dualpool.lane=maintenance; the others are application clients.", default=False
    )
    migration_tools: bool = setting(
        "Migration and dump tools that log in as this user may use the reserved connections. They are recognised by what they call "
        "themselves, or, when they would have to wait, by the tables and locks that they keep their books with.",
        default=True,
    )
    pool_mode: PoolMode | None = setting("Instead of the database's and the listener's.", default=None, example='"session"')
    pool_size: int | None = setting("Instead of the database's, where this is the server user.", default=None, minimum=1, example="5")
    reserve_pool_size: int | None = setting(
        "Instead of the database's, where this is the server user.", default=None, minimum=0, example="2"
    )
    max_connections: int = setting(
        "Server connections in all databases of a backend together, where this is the server user; 0: no limit.", default=0, minimum=0
    )
    max_client_connections: int = setting("Clients at once; 0: no limit but limits.max_client_connections.", default=0, minimum=0)
    query_wait: Seconds | None = instead_of("query_wait", "30s")
    client_idle: Seconds | None = instead_of("client_idle", "1h")
    idle_in_transaction: Seconds | None = instead_of("idle_in_transaction", "1m")
    query: Seconds | None = instead_of("query", "30s")
    transaction: Seconds | None = instead_of("transaction", "5m")
    pin_idle: Seconds | None = instead_of("pin_idle", "5m")


@attrs.frozen
class Limits:
    """Sizes and numbers that one process keeps to."""

    max_client_connections: int = setting(
        "Clients at once, over all listeners. The maintenance lane is not bound by it.", default=1000, minimum=1
    )
    max_waiting_clients: int = setting(
        "Clients that may wait for a connection of one pool; whoever comes then is refused at once. 0: no limit.", default=0, minimum=0
    )
    clients_per_user: int = setting(
        "Clients of one user that one pool serves or queues at once; more of them wait behind those, and not in front of others. "
        "0: no limit.",
        default=0,
        minimum=0,
    )
    clients_per_address: int = setting("The same for the clients of one network address.", default=0, minimum=0)
    clients_per_application: int = setting(
        "The same for the clients with one application_name (MySQL: program_name).", default=0, minimum=0
    )
    max_startup_bytes: int = setting("Longest login message that is read from a client.", default=10_000, minimum=1000)
    frame_bytes: int = setting("Messages up to this size are held whole; of longer ones only the start is.", default=1 << 18, minimum=4096)
    client_buffer_bytes: int = setting(
        "Bytes that wait for a slow client before its server connection is no longer read.", default=1 << 20, minimum=4096
    )
    statements_per_client: int = setting("Prepared statements that one client may hold.", default=1000, minimum=1)
    statement_bytes: int = setting("Text of all prepared statements of one client.", default=1 << 22, minimum=1024)
    statements_per_server: int = setting("Prepared statements that are kept on one server connection.", default=200, minimum=1)


@attrs.frozen
class Timeouts:
    """How long things may take."""

    query_wait: Seconds = duration("2m", "A client waits this long for a server connection.")
    reserve_pool: Seconds = duration("5s", "A client that has waited this long may get a connection of reserve_pool_size.")
    query_wait_notify: Seconds = duration("5s", "A client that waits is told so after this time (PostgreSQL).")
    server_connect: Seconds = duration("15s", "Connecting and logging in to a server.")
    server_login_retry: Seconds = duration("1s", "Pause after a failed connect before the next one; a random quarter more or less.")
    dns: Seconds = duration("15s", "The addresses of a server's name are looked up again after this time.")
    server_idle: Seconds = duration("10m", "A server connection that nobody used for this long is closed.")
    server_lifetime: Seconds = duration("1h", "A server connection older than this is closed when it is free.")
    server_lifetime_jitter: Seconds = duration("6m", "Each server connection's lifetime is shortened by a random part of this.")
    server_check_delay: Seconds = duration("30s", "A server connection idle for longer is checked before it is used.")
    client_login: Seconds = duration("60s", "A client must be logged in by then.")
    client_idle: Seconds = duration("0s", "A client that sends nothing for this long is disconnected.")
    idle_in_transaction: Seconds = duration("0s", "A client that is idle inside a transaction for this long is disconnected.")
    query: Seconds = duration("0s", "A query that takes longer is cancelled, and its client disconnected.")
    transaction: Seconds = duration("0s", "A client whose transaction takes longer is disconnected.")
    pin_idle: Seconds = duration(
        "0s", "A client that is idle for this long between transactions, while its session is pinned (SHOW PINS), is disconnected."
    )
    cancel_wait: Seconds = duration("10s", "A cancel request waits this long for a connection to the server.")
    reset: Seconds = duration("5s", "Resetting a server connection's session; one that takes longer is closed.")
    recover: Seconds = duration("5s", "Saving the server connection of a client that vanished; one that takes longer is closed.")
    suspend: Seconds = duration(
        "10s", "SUSPEND waits this long until what was read has been sent on; who has not taken it by then is disconnected."
    )
    shutdown: Seconds = duration("30s", "Clients may finish their transactions for this long before the process ends.")


@attrs.frozen
class Auth:
    """How clients are recognised, beyond [users]."""

    userlist: str = setting('PgBouncer\'s userlist.txt: more users, a line "user" "password" for each.', default="", kind="path")
    hba: str = setting(
        'Rules like those of pg_hba.conf, for listeners with auth = "hba": who may connect from where, and how.', default="", kind="path"
    )
    ident: str = setting(
        "Maps like those of pg_ident.conf, which rules name by map=NAME. Other files are not read from there.", default="", kind="path"
    )
    query_ttl: Seconds = duration("10s", "What a backend's auth_query said is used again for this long.")
    passthrough: bool = setting(
        "For development: a user that nothing knows is asked for its password, and is in if the server takes it. Only with TLS or on this "
        "machine, and only where clients' own users log in at the server.",
        default=False,
    )
    failed_login_delay: Seconds = duration(
        "3s", "An address whose logins fail has to wait before the next, each time twice as long, up to this."
    )


@attrs.frozen
class Admin:
    """Who may look and steer."""

    users: tuple[str, ...] = setting("Users who may do everything on the admin console.", default=(), example='["app"]')
    stats_users: tuple[str, ...] = setting("Users who may only look (SHOW).", default=(), example='["monitor"]')
    http: Bind | None = setting(
        "Address of /metrics, /healthz, /readyz, /api/v1 and the dashboard. Whoever reaches it may read.",
        default=None,
        example='"127.0.0.1:9127"',
    )
    metrics_compat: Literal["none", "pgbouncer"] = setting(
        "pgbouncer: /metrics also has the names of pgbouncer_exporter, for its dashboards and alerts.", default="none"
    )


@attrs.frozen
class Log:
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting("debug, info, warning or error.", default="info")
    format: Literal["auto", "text", "json", "pgbouncer"] = setting(
        "text, json, or auto: text on a terminal, JSON elsewhere. pgbouncer: PgBouncer's lines and words.", default="auto"
    )
    connections: bool = setting("Tell of clients that log in, and of new server connections.", default=True)
    disconnections: bool = setting("Tell of clients that leave, and of server connections that are closed, and why.", default=True)
    slow_query: Seconds = duration("0s", "Tell of queries that take longer, with the start of their text, without its literals.")


@attrs.frozen
class Config:
    """A whole configuration, checked. The dictionaries are keyed by the names of the tables."""

    listeners: dict[str, Listener] = attrs.field(factory=dict)
    backends: dict[str, Backend] = attrs.field(factory=dict)
    databases: dict[str, Database] = attrs.field(factory=dict)
    users: dict[str, User] = attrs.field(factory=dict)
    limits: Limits = attrs.field(factory=Limits)
    timeouts: Timeouts = attrs.field(factory=Timeouts)
    auth: Auth = attrs.field(factory=Auth)
    admin: Admin = attrs.field(factory=Admin)
    log: Log = attrs.field(factory=Log)
    strict: bool = setting(
        "For development and tests: each transaction goes to another server connection, and what would leak from one client to the next "
        "is an error that names the statement.",
        default=False,
    )
    strict_budget: bool = setting("Pool sizes that sum to more than a backend's budget are an error, not a warning.", default=False)
    warnings: tuple[str, ...] = ()
    hba: tuple[Rule, ...] = ()
    """What auth.hba says."""
    ident: IdentMaps = attrs.field(factory=dict)
    """What auth.ident says."""

    def summary(self) -> str:
        """How much there is of what: `2 listeners, 1 backend, ...`."""
        counts = {section: len(getattr(self, section)) for section in TABLES_BY_NAME}
        return ", ".join(f"{count} {section if count != 1 else section[:-1]}" for section, count in counts.items())

    def find_database(self, protocol: str, name: str) -> Database | None:
        """What a client of `protocol` means by `name`: the database of that name, else the wildcard as a database of that name.

        The names are per protocol; the dictionary's keys are only labels, so look names up here.
        """
        served = [database for database in self.databases.values() if self.backends[database.backend].protocol == protocol]
        for database in served:
            if database.name == name != WILDCARD:
                return database
        for database in served:
            if database.name == WILDCARD:
                return attrs.evolve(database, name=name, database=database.database or name)
        # A client that names none (mysql -u app) can mean only one where there is only one.
        return served[0] if not name and len(served) == 1 else None


TABLES_BY_NAME: Final[dict[str, type[Any]]] = {"listeners": Listener, "backends": Backend, "databases": Database, "users": User}
"""Top-level tables that hold one table per name."""
TABLES: Final[dict[str, type[Any]]] = {"limits": Limits, "timeouts": Timeouts, "auth": Auth, "admin": Admin, "log": Log}
