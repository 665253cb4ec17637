"""What must hold between the tables of a configuration. Each check is a function over `Tables`, and adds its problems by path."""

import os
import socket
from collections.abc import Mapping
from typing import Any, Final

import attrs

from dualpool.config.fields import keys_of
from dualpool.config.model import SCHEMES, WILDCARD, Admin, Auth, Backend, Bind, Database, Listener, Pins, User
from dualpool.config.positions import Path
from dualpool.config.problems import Problems, suggestion
from dualpool.config.url import broken_promises

ANY_ADDRESS: Final = {"0.0.0.0", "::", ""}  # noqa: S104 -- compared, not bound
PINS_OF_POSTGRES: Final = frozenset({"advisory_lock", "library", "listen", "setting", "unknown_state"})
"""The reasons for pins that only this engine has."""
PINS_OF_MYSQL: Final = frozenset(
    {
        *("handler", "lock", "role", "session_state", "session_variable", "set_transaction"),
        *("table_lock", "user_variable", "xa_transaction"),
    }
)
SOCKET_PATH_BYTES: Final = 103
"""sun_path holds 104 bytes on macOS and BSD, 108 on Linux, with the zero at the end (unix(4), unix(7))."""


@attrs.frozen
class Tables:
    """What could be read of a file. `names`: every table that it has, readable or not, so that a broken one is not also missing."""

    listeners: dict[str, Listener]
    backends: dict[str, Backend]
    databases: dict[str, Database]
    users: dict[str, User]
    admin: Admin
    auth: Auth
    strict_budget: bool
    names: Mapping[str, Mapping[str, Any]]


def check(tables: Tables, problems: Problems) -> None:
    """Every check."""
    check_presence(tables, problems)
    check_backends_of_databases(tables, problems)
    check_names(tables, problems)
    check_pool_sizes(tables, problems)
    check_pins(tables, problems)
    for backend in tables.backends.values():
        check_url(backend, problems)
        check_budget(backend, tables, problems)
    check_binds(tables, problems)
    for listener in tables.listeners.values():
        check_served(listener, tables, problems)
        check_tls(listener, problems)
        check_auth(listener, tables.auth, problems)
    for backend in tables.backends.values():
        check_auth_query(backend, tables, problems)
    check_users(tables, problems)
    check_server_users(tables, problems)


def check_presence(tables: Tables, problems: Problems) -> None:
    """Without a listener there is nothing to do."""
    if not tables.names["listeners"]:
        problems.add(("listeners",), "at least one is required, such as [listeners.postgres]")


def check_backends_of_databases(tables: Tables, problems: Problems) -> None:
    """databases.*.backend names a backend. Looks at the tables as they are in the file, so that other mistakes in them hide nothing."""
    known = tables.names["backends"]
    for key, table in tables.names["databases"].items():
        backend = table.get("backend") if isinstance(table, dict) else None
        if isinstance(backend, str) and backend not in known:
            problems.add(("databases", key, "backend"), f"there is no backend {backend!r}{suggestion(backend, known)}")


def check_names(tables: Tables, problems: Problems) -> None:
    """One name means one database for the clients of a protocol."""
    seen: dict[tuple[str, str], str] = {}
    for key, database in tables.databases.items():
        backend = tables.backends.get(database.backend)
        if backend is None:
            continue
        first = seen.setdefault((backend.protocol, database.name), key)
        if first != key:
            problems.add(("databases", key, "name"), f"databases.{first} is called {database.name!r} as well ({backend.protocol})")


def check_pool_sizes(tables: Tables, problems: Problems) -> None:
    """min_pool_size is part of pool_size, and of max_connections."""
    for key, database in tables.databases.items():
        if 0 < database.max_connections < database.min_pool_size:
            message = f"must be at least min_pool_size ({database.min_pool_size}), got {database.max_connections}"
            problems.add(("databases", key, "max_connections"), message)
        if database.min_pool_size > database.pool_size:
            message = f"must be at most pool_size ({database.pool_size}), got {database.min_pool_size}"
            problems.add(("databases", key, "min_pool_size"), message)


def check_pins(tables: Tables, problems: Problems) -> None:
    """A reason for pins is one of the database's engine."""
    for key, database in tables.databases.items():
        backend = tables.backends.get(database.backend)
        if backend is None or not isinstance(database.pin, Pins):
            continue
        foreign = {"postgres": PINS_OF_MYSQL, "mysql": PINS_OF_POSTGRES}[backend.protocol]
        for name in sorted(foreign):
            if getattr(database.pin, name) is not None:
                allowed = [reason for reason in keys_of(Pins) if reason not in foreign]
                message = f"is no reason of a {backend.protocol} database{suggestion(name, allowed)}"
                problems.add(("databases", key, "pin", name), message)


def check_url(backend: Backend, problems: Problems) -> None:
    """A URL that asks for more than dualpool does must not seem to get it."""
    for option in broken_promises(backend.url):
        problems.warn(("backends", backend.name, "url"), f"{option} is not enforced")


def check_budget(backend: Backend, tables: Tables, problems: Problems) -> None:
    """The reserve leaves something, and the pools fit into what it leaves."""
    budget = backend.budget_number
    if budget is None:
        return
    room = budget - backend.reserved_maintenance
    if room <= 0:
        message = f"must be less than the budget ({budget}), got {backend.reserved_maintenance}"
        problems.add(("backends", backend.name, "reserved_maintenance"), message)
        return
    sizes = {key: database.pool_size for key, database in tables.databases.items() if database.backend == backend.name}
    if sum(sizes.values()) > room:
        parts = " + ".join(f"{key} {size}" for key, size in sizes.items())
        message = (
            f"the pool sizes sum to {sum(sizes.values())} ({parts}), but {room} connections are left "
            f"({budget} - {backend.reserved_maintenance} reserved)"
        )
        (problems.add if tables.strict_budget else problems.warn)(("backends", backend.name, "budget"), message)


def check_binds(tables: Tables, problems: Problems) -> None:
    """No address is listened on twice."""
    taken: list[tuple[str, Bind]] = []
    for listener in tables.listeners.values():
        listed = len(listener.bind) > 1
        for index, bind in enumerate(listener.bind):
            path: Path = ("listeners", listener.name, "bind", *((index,) if listed else ()))
            check_bind(f"listeners.{listener.name}", bind, path, taken, problems)
    if tables.admin.http is not None:
        check_bind("admin.http", tables.admin.http, ("admin", "http"), taken, problems)


def check_bind(owner: str, bind: Bind, path: Path, taken: list[tuple[str, Bind]], problems: Problems) -> None:
    """One address against those before it."""
    if len(os.fsencode(bind.unix)) > SOCKET_PATH_BYTES:
        problems.add(path, f"the path of a socket may have {SOCKET_PATH_BYTES} bytes, {bind.unix} has {len(os.fsencode(bind.unix))}")
    for other, used in taken:
        if overlap(bind, used):
            problems.add(path, f"{bind} is in use by {other}" + ("" if bind == used else f" ({used})"))
            return
    taken.append((owner, bind))


def overlap(one: Bind, other: Bind) -> bool:
    """Binding both would fail. Port 0 never overlaps; an address for all interfaces overlaps with each of its family."""
    if one.unix or other.unix:
        return one.unix == other.unix
    if one.port != other.port or not one.port:
        return False
    hosts = {"127.0.0.1" if host == "localhost" else host for host in (one.host, other.host)}
    return len(hosts) == 1 or (bool(hosts & ANY_ADDRESS) and len({":" in host for host in hosts - {""}}) < 2)


def check_served(listener: Listener, tables: Tables, problems: Problems) -> None:
    """A listener has something to offer: a backend of its protocol, and a database on it."""
    if len(tables.backends) < len(tables.names["backends"]) or len(tables.databases) < len(tables.names["databases"]):
        return  # what is broken might be what is missing
    path = ("listeners", listener.name, "protocol")
    backends = [backend.name for backend in tables.backends.values() if backend.protocol == listener.protocol]
    if not backends:
        example = f'[backends.NAME] with url = "{SCHEMES[listener.protocol]}://..."'
        problems.add(path, f"there is no {listener.protocol} backend; add {example}")
    elif not any(database.backend in backends for database in tables.databases.values()):
        example = f'[databases."{WILDCARD}"] with backend = "{backends[0]}"'
        problems.warn(path, f"there is no database for {listener.protocol} clients; add {example}")


def check_tls(listener: Listener, problems: Problems) -> None:
    """A certificate and its key belong together, and client certificates need an authority."""
    tls, path = listener.tls, ("listeners", listener.name, "tls")
    if tls is None or not tls.offered:
        return
    for present, missing in (("cert", "key"), ("key", "cert")):
        if getattr(tls, present) and not getattr(tls, missing):
            problems.add((*path, present), f"needs tls.{missing} as well")
    if not tls.cert and not tls.key:
        problems.add(path, f"mode {tls.mode} needs cert and key")
    if tls.mode in {"verify-ca", "verify-full"} and not tls.client_ca:
        problems.add(path, f"mode {tls.mode} needs client_ca")


def check_auth(listener: Listener, auth: Auth, problems: Problems) -> None:
    """The method fits the protocol and what the listener has; trust is for this machine."""
    path = ("listeners", listener.name, "auth")
    if listener.protocol == "mysql" and listener.auth in {"md5", "scram-sha-256"}:
        problems.add(path, f"{listener.auth} is for PostgreSQL clients; allowed here: auto, trust, password, cert, hba")
    if listener.auth == "cert" and not (listener.tls is not None and listener.tls.offered and listener.tls.client_ca):
        problems.add(path, "cert needs tls with client_ca")
    if listener.auth == "hba" and not auth.hba:
        problems.add(path, "hba needs the rules: [auth] hba = FILE")
    exposed = [str(bind) for bind in listener.bind if not is_local(bind)]
    if listener.auth == "trust" and exposed:
        problems.warn(path, f"trust lets everyone in who can reach {', '.join(exposed)}")


def is_local(bind: Bind) -> bool:
    """Only this machine can connect."""
    return bool(bind.unix) or bind.host in {"localhost", "::1"} or bind.host.startswith("127.")


def check_auth_query(backend: Backend, tables: Tables, problems: Problems) -> None:
    """There is somebody to ask as, and a database to ask in."""
    path = ("backends", backend.name)
    for key in ("auth_query", "auth_password", "auth_database"):
        if getattr(backend, key) and not backend.auth_user:
            problems.add((*path, key), "needs auth_user as well")
    if backend.auth_query and "$1" not in backend.auth_query:
        problems.add((*path, "auth_query"), "must contain $1, which stands for the user")
    if not backend.auth_database or len(tables.databases) < len(tables.names["databases"]):
        return
    served = [database for database in tables.databases.values() if database.backend in tables.backends]
    names = [database.name for database in served if tables.backends[database.backend].protocol == backend.protocol]
    if backend.auth_database not in names and WILDCARD not in names:
        problems.add((*path, "auth_database"), f"there is no database {backend.auth_database!r}{suggestion(backend.auth_database, names)}")


def check_users(tables: Tables, problems: Problems) -> None:
    """Admins exist, and somebody can log in. Without any user, trust lets everybody in."""
    users = tables.names["users"]
    open_to_all = not users and any(listener.auth == "trust" for listener in tables.listeners.values())
    asked_for = tables.auth.passthrough or any(backend.auth_user for backend in tables.backends.values())
    for key in ("users", "stats_users"):
        names: tuple[str, ...] = getattr(tables.admin, key)
        for name in names:
            if name not in users and not open_to_all and not asked_for:
                problems.add(("admin", key), f"there is no user {name!r}{suggestion(name, users)}")
    closed = [listener.name for listener in tables.listeners.values() if listener.auth != "trust"]
    if closed and not users and not asked_for:
        problems.warn(("listeners", closed[0]), "nobody can log in: there are no users; add [users.NAME] with a password")


def check_server_users(tables: Tables, problems: Problems) -> None:
    """Sizes of pools of a user who never logs in at a server have no effect."""
    fixed = {
        database.user or tables.backends[database.backend].user
        for database in tables.databases.values()
        if database.backend in tables.backends
    }
    if "" in fixed or not fixed:
        return
    for name, user in tables.users.items():
        for key in ("pool_size", "reserve_pool_size", "max_connections"):
            if getattr(user, key) and name not in fixed:
                problems.warn(("users", name, key), f"has no effect: every database has a server user ({', '.join(sorted(fixed))})")


def check_hosts(tables: Tables, problems: Problems) -> None:
    """The names of servers can be resolved now. (At any other time they may not be, and that is no mistake in the file.)"""
    for backend in tables.backends.values():
        for host, port in backend.hosts:
            if host.startswith("/"):
                continue
            try:
                socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                problems.add(("backends", backend.name, "url"), f"the host {host!r} cannot be resolved: {error.strerror or error}")
