"""pgbouncer.ini as a configuration of dualpool. What each setting means: PgBouncer docs, config.md, of version 1.26."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from dualpool.authentication.userlist import parse_userlist
from dualpool.config.importers.document import Imported, seconds_text, url_text
from dualpool.config.importers.ini import Item, included, pairs, read_ini
from dualpool.config.importers.pgbouncer_remarks import DEFAULTS, DONE_BY_COMMAND, HONOURED, NO_EQUIVALENT, ONLY_AS_INI
from dualpool.errors import ConfigError

LISTENER: Final = "postgres"
UNLIMITED: Final = 100_000
"""pool_size = 0."""
ALWAYS: Final = 0.001
"""Seconds: as short as a delay can be that is not "off"."""

TIMES: Final = {
    "query_wait_timeout": "query_wait",
    "query_wait_notify": "query_wait_notify",
    "reserve_pool_timeout": "reserve_pool",
    "server_connect_timeout": "server_connect",
    "server_login_retry": "server_login_retry",
    "server_idle_timeout": "server_idle",
    "server_lifetime": "server_lifetime",
    "client_login_timeout": "client_login",
    "client_idle_timeout": "client_idle",
    "idle_transaction_timeout": "idle_in_transaction",
    "transaction_timeout": "transaction",
    "query_timeout": "query",
    "cancel_wait_timeout": "cancel_wait",
    "suspend_timeout": "suspend",
    "dns_max_ttl": "dns",
}
USER_TIMES: Final = ("query_timeout", "query_wait_timeout", "idle_transaction_timeout", "transaction_timeout", "client_idle_timeout")
DATABASE_SIZES: Final = {
    "pool_size": "default_pool_size",
    "min_pool_size": "min_pool_size",
    "reserve_pool_size": "reserve_pool_size",
    "max_db_connections": "max_db_connections",
    "max_db_client_connections": "max_db_client_connections",
}
"""A database's setting -> the one in [pgbouncer] that stands for it where the database has none."""
SIZE_KEYS: Final = {"max_db_connections": "max_connections", "max_db_client_connections": "max_client_connections"}
USER_SIZES: Final = {
    "pool_size": "pool_size",
    "reserve_pool_size": "reserve_pool_size",
    "max_user_connections": "max_connections",
    "max_user_client_connections": "max_client_connections",
}
SERVER_SETTINGS: Final = ("client_encoding", "datestyle", "timezone", "application_name")
POOL_MODES: Final = ("session", "transaction", "statement")
METHODS: Final = {
    "md5": "md5",
    "scram-sha-256": "scram-sha-256",
    "plain": "password",
    "trust": "trust",
    "any": "trust",
    "cert": "cert",
    "hba": "hba",
}
VERIFYING: Final = ("verify-ca", "verify-full")
SSLMODES: Final = ("disable", "allow", "prefer", "require", *VERIFYING)
TRUE_WORDS: Final = ("1", "on", "true", "yes", "t", "y")


@attrs.frozen
class ProcessSettings:
    """What an ini says of the process itself: for `dualpool pgbouncer`. Paths are "" where there is none."""

    logfile: str = ""
    pidfile: str = ""
    user: str = ""
    syslog: bool = False
    syslog_ident: str = "pgbouncer"
    syslog_facility: str = "daemon"
    verbose: int = 0


def import_pgbouncer(path: Path) -> Imported:
    """What a pgbouncer.ini says. Raises ConfigError where PgBouncer would not start with it either."""
    return Import(path).run()


def process_settings(path: Path) -> ProcessSettings:
    """What a pgbouncer.ini says of its process. Raises ConfigError."""
    own = {item.key: item.value for item in read_ini(path) if item.section == "pgbouncer"}
    verbose = own.get("verbose", "0")
    return ProcessSettings(
        logfile=own.get("logfile", ""),
        pidfile=own.get("pidfile", ""),
        user=own.get("user", ""),
        syslog=is_true(own.get("syslog", "0")),
        syslog_ident=own.get("syslog_ident", "pgbouncer"),
        syslog_facility=own.get("syslog_facility", "daemon"),
        verbose=int(verbose) if verbose.isdigit() else 0,
    )


class Import:
    """One file, and what has been made of it so far."""

    def __init__(self, path: Path, lines: Sequence[Item] | None = None) -> None:
        """`lines`: what the file says, where that is known already."""
        self.path = path
        self.own: dict[str, Item] = {}
        self.databases: dict[str, Item] = {}
        self.users: dict[str, Item] = {}
        sections = {"pgbouncer": self.own, "databases": self.databases, "users": self.users}
        self.result = Imported(path, {"listeners": {}, "backends": {}, "databases": {}, "users": {}}, [])
        for item in read_ini(path) if lines is None else lines:
            if item.section == "peers":
                self.result.note("[peers]", "a cancel request has to reach the process that serves the client")
            elif item.section in sections:
                sections[item.section][item.key] = item
            else:
                raise ConfigError(f"{item.place}: there is no section [{item.section}]")
        self.used: set[str] = set()
        self.backends: dict[tuple[Any, ...], str] = {}
        self.userlist: dict[str, str] = {}

    def run(self) -> Imported:
        """Convert everything."""
        document = self.result.document
        self.add_auth()
        document["listeners"][LISTENER] = self.listener()
        for item in self.databases.values():
            self.add_database(item)
        for user in self.users.values():
            self.add_user(user)
        self.add_limits_of_all_users()
        document["limits"] = self.limits()
        document["timeouts"] = self.timeouts()
        self.add_admin()
        document["log"] = self.log()
        self.remark()
        return Imported(self.path, {key: table for key, table in document.items() if table}, self.result.notes)

    # ---------------------------------------------------------------------------------------------------------- reading values

    def text(self, key: str, default: str = "") -> str:
        """A setting of [pgbouncer]."""
        self.used.add(key)
        item = self.own.get(key)
        return default if item is None else item.value

    def number(self, key: str, default: int) -> int:
        """A whole number."""
        self.used.add(key)
        item = self.own.get(key)
        return default if item is None else whole(item.value, item, key)

    def seconds(self, key: str) -> float | None:
        """A time, or None where it is not set."""
        self.used.add(key)
        item = self.own.get(key)
        return None if item is None else parse_seconds(item.value, item, key)

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self.text(key, default)
        if value not in allowed:
            raise ConfigError(f"{self.own[key].place}: {key}: must be one of {', '.join(allowed)}, got {value!r}")
        return value

    def file(self, key: str) -> str:
        """The full path of a file that a setting names; "" without one. PgBouncer starts at its working directory."""
        name = self.text(key)
        return str(included(name, self.own[key].file).absolute()) if name else ""

    # ------------------------------------------------------------------------------------------------------------- the sections

    def listener(self) -> dict[str, Any]:
        """Where clients connect, and how."""
        port = self.number("listen_port", 6432)
        hosts = [host.strip() for host in self.text("listen_addr").split(",") if host.strip()]
        bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]
        folder = self.text("unix_socket_dir", "/tmp")  # noqa: S108 -- PgBouncer's default
        if folder.startswith("@"):
            self.result.note(f"unix_socket_dir = {folder}", "sockets in the abstract namespace are not possible")
        elif folder:
            bind.append(f"unix:{Path(folder).absolute()}/.s.PGSQL.{port}")
        if not bind:
            raise ConfigError(f"{self.path}: neither listen_addr nor unix_socket_dir is set, so nobody could connect")
        listener: dict[str, Any] = {"protocol": "postgres", "bind": bind, "pool_mode": self.choice("pool_mode", "session", POOL_MODES)}
        listener["auth"] = METHODS.get(self.text("auth_type", "md5"), "auto")
        if tls := self.client_tls():
            listener["tls"] = tls
        if "listen_backlog" in self.own:
            listener["backlog"] = max(1, self.number("listen_backlog", 128))
        if mode := self.text("unix_socket_mode"):
            listener["socket_mode"] = mode.rjust(4, "0")
        if group := self.text("unix_socket_group"):
            listener["socket_group"] = group
        if is_true(self.text("so_reuseport", "0")):
            listener["reuse_port"] = True
        if ignored := self.ignored_parameters():
            listener["ignore_parameters"] = ignored
        return listener

    def ignored_parameters(self) -> list[str]:
        """Start-up parameters that no server knows; those that it does are honoured instead."""
        names = words(self.text("ignore_startup_parameters"))
        honoured = [name for name in names if name.lower() in HONOURED]
        if honoured:
            self.result.note(f"ignore_startup_parameters = {', '.join(honoured)}", "not ignored: each client gets what it asks for")
        return [name for name in names if name.lower() not in HONOURED]

    def log(self) -> dict[str, Any]:
        """What is logged."""
        log: dict[str, Any] = {"level": "debug"} if self.number("verbose", 0) > 0 else {}
        return log | {key: False for key in ("connections", "disconnections") if not is_true(self.text(f"log_{key}", "1"))}

    def client_tls(self) -> dict[str, Any]:
        """TLS towards clients. What PgBouncer does not check, we must not ask for."""
        mode = self.choice("client_tls_sslmode", "disable", SSLMODES)
        files = {key: self.file(f"client_tls_{key}_file") for key in ("cert", "key", "ca")}
        if mode == "disable":
            return {}
        tls = {"mode": "verify-ca" if mode in VERIFYING else mode, "cert": files["cert"], "key": files["key"]}
        if files["ca"] and (mode in VERIFYING or self.text("auth_type") in {"cert", "hba"}):
            tls["client_ca"] = files["ca"]
        return {key: value for key, value in tls.items() if value}

    def add_auth(self) -> None:
        """Files of users and rules."""
        kind = self.text("auth_type", "md5")
        auth: dict[str, Any] = {}
        if kind not in METHODS:
            self.result.note(f"auth_type = {kind}", "is not possible; only the passwords of auth_file and auth_query count")
        path = self.file("auth_file")
        if path and not Path(path).is_file():
            self.result.note(f"auth_file = {path}", "there is no such file")
        elif path:
            self.userlist = read_userlist(Path(path))
            if kind != "any":
                auth["userlist"] = path
        for key, setting in (("hba", "auth_hba_file"), ("ident", "auth_ident_file")):
            if (path := self.file(setting)) and kind == "hba":
                auth[key] = path
        if kind == "any":
            self.result.note("auth_type = any", "everybody is let in, but not to the admin console")
        self.result.document["auth"] = auth

    def add_database(self, item: Item) -> None:
        """A line of [databases]."""
        given = pairs(item)
        sizes = {key: self.size(given, key, default, item) for key, default in DATABASE_SIZES.items()}
        if "reserve_pool" in given:
            sizes["reserve_pool_size"] = whole(given.pop("reserve_pool"), item, "reserve_pool")
        database: dict[str, Any] = {"backend": self.backend(item, given)}
        name = given.pop("dbname", "")
        if name and name != item.key:
            database["database"] = name
        user, password = given.pop("user", ""), given.pop("password", "")
        if user:
            database["user"] = user
            if not password and self.text("auth_type") == "any":
                password = self.userlist.get(user, "")
            database |= {"password": password} if password else {}
        database |= sizes_of_database(sizes)
        if "pool_mode" in given:
            database["pool_mode"] = one_of(given.pop("pool_mode"), POOL_MODES, item, "pool_mode")
        for key in ("query_wait_timeout", "server_lifetime"):
            value = given.pop(key, "-1")
            if not value.startswith("-"):
                database[TIMES[key]] = seconds_text(parse_seconds(value, item, key))
        if given:
            raise ConfigError(f"{item.place}: databases.{item.key}: unknown settings: {', '.join(given)}")
        self.result.document["databases"][item.key] = database

    def size(self, given: dict[str, str], key: str, default: str, item: Item) -> int | None:
        """A size of a database, or that of all databases, or None."""
        self.used.add(default)
        if key in given:
            return whole(given.pop(key), item, key)
        return whole(self.own[default].value, self.own[default], default) if default in self.own else None

    def backend(self, item: Item, given: dict[str, str]) -> str:
        """The name of the backend that a database is on. Databases share one if everything that makes a connection is the same."""
        port = whole(given.pop("port", "5432"), item, "port")
        listed = given.pop("host", "") or self.text("unix_socket_dir") or "/tmp"  # noqa: S108 -- PgBouncer's default
        hosts = [(host.strip(), port) for host in listed.split(",")]
        if any(host.startswith("@") for host, _ in hosts):
            raise ConfigError(f"{item.place}: databases.{item.key}: sockets in the abstract namespace are not possible")
        parameters = self.server_tls() | {name: given.pop(name) for name in SERVER_SETTINGS if name in given}
        backend: dict[str, Any] = {"url": url_text("postgresql", hosts, parameters)}
        if query := given.pop("connect_query", ""):
            backend["connect_query"] = query
        check = self.text("server_check_query", "<empty>")
        if check not in {"", "<empty>"}:
            backend["check_query"] = check
        balance = given.pop("load_balance_hosts", "round-robin")
        if len(hosts) > 1 and balance == "round-robin":
            backend["load_balance"] = "round-robin"
        backend |= self.auth_query(item, given)
        key = tuple(backend.items())
        if key not in self.backends:
            self.backends[key] = self.new_name(hosts[0][0])
            self.result.document["backends"][self.backends[key]] = backend
        return self.backends[key]

    def new_name(self, host: str) -> str:
        """A name for a backend, by its host."""
        base = "local" if host.startswith("/") else re.sub(r"[^A-Za-z0-9_.-]", "-", host)
        names = self.result.document["backends"]
        return next(name for name in (base, *(f"{base}-{number}" for number in range(2, len(names) + 3))) if name not in names)

    def auth_query(self, item: Item, given: dict[str, str]) -> dict[str, str]:
        """How users that are in no file are found."""
        user, query, name = (given.pop(key, "") or self.text(key) for key in ("auth_user", "auth_query", "auth_dbname"))
        if not user:
            return {}
        found = {"auth_user": user}
        if query:
            found["auth_query"] = query
        if name and (name in self.databases or "*" in self.databases):
            found["auth_database"] = name
        elif name:
            self.result.note(f"auth_dbname = {name}", f"there is no such database; auth_query runs in {item.key}")
        return found

    def server_tls(self) -> dict[str, str]:
        """The parameters of a backend's url. Only the verify modes check certificates in PgBouncer, so only they get the authorities."""
        mode = self.choice("server_tls_sslmode", "prefer", SSLMODES)
        authorities, cert, key = (self.file(f"server_tls_{name}_file") for name in ("ca", "cert", "key"))
        found = {"sslmode": mode}
        if authorities and mode in VERIFYING:
            found["sslrootcert"] = authorities
        return found | ({"sslcert": cert, "sslkey": key} if cert and key else {})

    def add_user(self, item: Item) -> None:
        """A line of [users]."""
        given = pairs(item)
        user: dict[str, Any] = {}
        for key, name in USER_SIZES.items():
            if key in given:
                size = whole(given.pop(key), item, key)
                user[name] = size or UNLIMITED if key == "pool_size" else size
        if "pool_mode" in given:
            user["pool_mode"] = one_of(given.pop("pool_mode"), POOL_MODES, item, "pool_mode")
        for key in USER_TIMES:
            value = given.pop(key, "-1")
            if not value.startswith("-"):
                user[TIMES[key]] = seconds_text(parse_seconds(value, item, key))
        if given:
            raise ConfigError(f"{item.place}: users.{item.key}: unknown settings: {', '.join(given)}")
        self.result.document["users"][item.key] = user

    def add_limits_of_all_users(self) -> None:
        """max_user_connections and max_user_client_connections hold for every user that has no own."""
        users = self.result.document["users"]
        for key in ("max_user_connections", "max_user_client_connections"):
            limit = self.number(key, 0)
            if not limit:
                continue
            for name in dict.fromkeys((*users, *self.userlist)):
                users.setdefault(name, {}).setdefault(USER_SIZES[key], limit)
            if any("auth_user" in backend for backend in self.result.document["backends"].values()):
                self.result.note(f"{key} = {limit}", "holds for the users of the files, not for those that auth_query finds")

    def limits(self) -> dict[str, int]:
        """Sizes."""
        limits = {"max_client_connections": self.number("max_client_conn", 100)}
        statements = self.number("max_prepared_statements", 200)
        if statements:
            limits["statements_per_server"] = statements
        else:
            self.result.note("max_prepared_statements = 0", "prepared statements always work")
        return limits

    def timeouts(self) -> dict[str, str]:
        """Every time."""
        found: dict[str, str] = {}
        for key, name in TIMES.items():
            seconds = self.seconds(key)
            if seconds is not None:
                found[name] = seconds_text(seconds)
        lifetime = self.seconds("server_lifetime")
        if lifetime is not None:
            found["server_lifetime_jitter"] = seconds_text(round(lifetime / 10, 3))
        delay = self.seconds("server_check_delay")
        if self.text("server_check_query", "<empty>") == "":
            found["server_check_delay"] = seconds_text(0)
        elif delay is not None:
            found["server_check_delay"] = seconds_text(delay or ALWAYS)
        return found

    def add_admin(self) -> None:
        """Who may use the console."""
        document = self.result.document
        known = {*self.userlist, *document["users"]} if self.text("auth_type") != "any" else set()
        asked_for = any("auth_user" in backend for backend in document["backends"].values())
        admin: dict[str, list[str]] = {}
        for key, name in (("admin_users", "users"), ("stats_users", "stats_users")):
            listed = words(self.text(key))
            admin[name] = [user for user in listed if user in known or asked_for]
            for user in listed:
                if user not in admin[name]:
                    self.result.note(f"{key} = {user}", "nothing says how this user is to be recognised")
        document["admin"] = {name: users for name, users in admin.items() if users}

    def remark(self) -> None:
        """On every setting that has been used for nothing."""
        for key, item in self.own.items():
            if key in self.used:
                continue
            if key in DONE_BY_COMMAND:
                self.result.note(f"{key} = {item.value}", ONLY_AS_INI)
            elif key in NO_EQUIVALENT:
                if item.value.lower() not in DEFAULTS.get(key, ("",)):
                    self.result.note(f"{key} = {item.value}", NO_EQUIVALENT[key])
            else:
                raise ConfigError(f"{item.place}: {key}: PgBouncer has no such setting")


def sizes_of_database(sizes: Mapping[str, int | None]) -> dict[str, int]:
    """A database's sizes as dualpool wants them: 0 is no limit of a pool, and a minimum is no more than the maximum."""
    found = {SIZE_KEYS.get(key, key): size for key, size in sizes.items() if size is not None}
    if "pool_size" in found:
        found["pool_size"] = found["pool_size"] or UNLIMITED
    if "min_pool_size" in found:
        caps = [found.get("pool_size", 20), found.get("max_connections") or UNLIMITED]
        found["min_pool_size"] = min(found["min_pool_size"], *caps)
    return found


def read_userlist(path: Path) -> dict[str, str]:
    """The users of a file. Raises ConfigError."""
    try:
        return parse_userlist(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def words(text: str) -> list[str]:
    """The words of a list."""
    return [word for word in re.split(r"[,\s]+", text) if word]


def is_true(text: str) -> bool:
    """A switch."""
    return text.lower() in TRUE_WORDS


def whole(text: str, item: Item, key: str) -> int:
    """A whole number. Raises ConfigError."""
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"{item.place}: {key}: must be a whole number, got {text!r}")
    return int(text)


def parse_seconds(text: str, item: Item, key: str) -> float:
    """A time in seconds. Raises ConfigError."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text):
        raise ConfigError(f"{item.place}: {key}: must be a number of seconds, got {text!r}")
    return float(text)


def one_of(text: str, allowed: tuple[str, ...], item: Item, key: str) -> str:
    """One of a few words. Raises ConfigError."""
    if text not in allowed:
        raise ConfigError(f"{item.place}: {key}: must be one of {', '.join(allowed)}, got {text!r}")
    return text
