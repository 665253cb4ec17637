"""URLs of database servers: those of libpq, of MySQL's clients and of the common drivers and hosting providers."""

import json
from typing import Any, Final, cast, get_args
from urllib.parse import unquote

import attrs

from dualpool.accounts import SslMode
from dualpool.config.model import LoadBalance, Protocol, SslNegotiation, TargetSessionAttrs

PROTOCOLS: Final[dict[str, Protocol]] = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "mysql": "mysql",
    "mysql2": "mysql",
    "mariadb": "mysql",
}
DEFAULT_PORTS: Final[dict[Protocol, int]] = {"postgres": 5432, "mysql": 3306}
DEFAULT_HOST: Final = "127.0.0.1"

SSLMODES: Final[dict[str, SslMode]] = {
    "disable": "disable",
    "disabled": "disable",
    "allow": "allow",
    "prefer": "prefer",
    "preferred": "prefer",
    "require": "require",
    "required": "require",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
    "verify-identity": "verify-full",
    # Drivers' switches: `ssl=true` (JDBC, Node), `sslaccept=` (Prisma), `tls=` (Go).
    "true": "require",
    "1": "require",
    "false": "disable",
    "0": "disable",
    "accept-invalid-certs": "require",
    "strict": "verify-full",
    "skip-verify": "require",
}
SSLMODE_NAMES: Final = "disable, allow, prefer, require, verify-ca, verify-full; DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY"

NAMES: Final = {
    "ssl-mode": "sslmode",
    "ssl_mode": "sslmode",
    "sslMode": "sslmode",
    "ssl": "sslmode",
    "sslaccept": "sslmode",
    "tls": "sslmode",
    "ssl-ca": "sslrootcert",
    "ssl_ca": "sslrootcert",
    "ssl-cert": "sslcert",
    "ssl_cert": "sslcert",
    "ssl-key": "sslkey",
    "ssl_key": "sslkey",
    "socket": "host",
    "unix_socket": "host",
    "dbname": "database",
}
"""Other spellings of the parameters that dualpool knows."""

CLIENT_ONLY: Final = frozenset(
    {
        "pgbouncer",
        "connection_limit",
        "pool_timeout",
        "connect_timeout",
        "socket_timeout",
        "single_use_connections",
        "statement_cache_size",
        "schema",
        "sslidentity",
        "sslpassword",
        "max_idle_connection_lifetime",
        "channel_binding",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "gssencmode",
        "krbsrvname",
        "gsslib",
        "passfile",
        "service",
        "require_auth",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslsni",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "requirepeer",
        "uselibpqcompat",
        "supa",
        "workaround",
        "serverVersion",
        "reconnect",
        "pool",
        "max_connections",
        "prepareThreshold",
        "preparedStatements",
        "serverTimezone",
        "allowPublicKeyRetrieval",
        "useSSL",
        "parseTime",
        "timeout",
        "readTimeout",
        "writeTimeout",
    }
)
"""Parameters that mean something to a driver and nothing to a server: left out, never sent as settings."""


HARMLESS: Final = {"channel_binding": {"disable", "prefer"}, "require_auth": {""}}
"""Left-out parameters that promise something which dualpool does not keep, unless they have one of these values."""


LOAD_BALANCE: Final[dict[str, LoadBalance]] = {"disable": "in-order", "random": "round-robin", "round-robin": "round-robin"}
"""load_balance_hosts of libpq, and of PgBouncer."""


@attrs.frozen
class ServerUrl:
    """What a server's URL says. The attributes are those of `Backend` that come from its url."""

    protocol: Protocol
    hosts: tuple[tuple[str, int], ...]
    user: str = ""
    password: str = attrs.field(default="", repr=False)
    database: str = ""
    sslmode: SslMode = "prefer"
    sslrootcert: str = ""
    sslcert: str = ""
    sslkey: str = ""
    sslnegotiation: SslNegotiation = "postgres"
    server_name: str = ""
    target_session_attrs: TargetSessionAttrs | None = None
    load_balance: LoadBalance | None = None
    """None: the URL does not say."""
    parameters: dict[str, str] = attrs.field(factory=dict)

    def attributes(self) -> dict[str, Any]:
        """For `attrs.evolve(backend, **url.attributes())`."""
        values = {attribute.name: getattr(self, attribute.name) for attribute in attrs.fields(type(self))}
        return {name: value for name, value in values.items() if value is not None}


def parse_url(text: str) -> ServerUrl:
    """Take a URL apart. Raises ValueError that says what is wrong, without the URL (it holds a password)."""
    protocol, rest = split_scheme(text)
    address, _, query = rest.partition("?")
    authority, _, path = address.partition("/")
    if "@" not in authority and "@" in rest:
        raise ValueError("a slash or question mark in the user or the password must be written %2F or %3F")
    userinfo, _, hostlist = authority.rpartition("@")
    user, _, password = userinfo.partition(":")
    options = parse_query(query)
    sslmode = parse_sslmode(options.pop("sslmode", "prefer"))
    return ServerUrl(
        protocol=protocol,
        hosts=parse_hosts(hostlist, options, DEFAULT_PORTS[protocol]),
        user=options.pop("user", unquote(user)),
        password=options.pop("password", unquote(password)),
        database=options.pop("database", unquote(path)),
        sslmode=sslmode,
        sslrootcert=options.pop("sslrootcert", ""),
        sslcert=options.pop("sslcert", ""),
        sslkey=options.pop("sslkey", ""),
        sslnegotiation=parse_sslnegotiation(options.pop("sslnegotiation", "postgres"), protocol, sslmode),
        server_name=options.pop("server_name", ""),
        target_session_attrs=parse_target(options.pop("target_session_attrs", "")),
        load_balance=parse_load_balance(options.pop("load_balance_hosts", "")),
        parameters={name: value for name, value in options.items() if name not in CLIENT_ONLY},
    )


def split_scheme(text: str) -> tuple[Protocol, str]:
    """The protocol and what follows `://`. A driver's name (`postgresql+psycopg`) and JDBC's prefix are ignored."""
    scheme, mark, rest = text.removeprefix("jdbc:").partition("://")
    protocol = PROTOCOLS.get(scheme.partition("+")[0].lower())
    if not mark or protocol is None:
        raise ValueError("must be a URL that starts with postgresql:// or mysql://")
    return protocol, rest


def parse_query(query: str) -> dict[str, str]:
    """The parameters under the names that dualpool knows them by. A `+` is a plus, as in libpq."""
    options: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        name = unquote(name)
        options[NAMES.get(name, name)] = unquote(value)
    return options


def broken_promises(text: str) -> list[str]:
    """The parameters of a URL, as `name=value`, that ask for something which dualpool does not do. The URL has been parsed before."""
    options = parse_query(text.partition("?")[2])
    return [f"{name}={options[name]}" for name, harmless in HARMLESS.items() if options.get(name, min(harmless)) not in harmless]


def parse_hosts(hostlist: str, options: dict[str, str], default_port: int) -> tuple[tuple[str, int], ...]:
    """Every (host, port); takes `hosts`, `host` and `port` out of the options. A host with a slash is a Unix socket."""
    listed = options.pop("hosts", "") or options.pop("host", "") or unquote_sockets(hostlist) or DEFAULT_HOST
    ports = options.pop("port", "").split(",")
    items = listed.split(",")
    if len(ports) not in {1, len(items)}:
        raise ValueError(f"port names {len(ports)} ports for {len(items)} hosts")
    ports = ports * len(items) if len(ports) == 1 else ports
    return tuple(parse_host(item.strip(), port or str(default_port)) for item, port in zip(items, ports, strict=True))


def unquote_sockets(hostlist: str) -> str:
    """libpq's `postgresql://%2Fvar%2Frun/`: a socket's directory in the place of a host."""
    return unquote(hostlist) if "%2f" in hostlist.lower() else hostlist


def parse_host(text: str, default_port: str) -> tuple[str, int]:
    """`host`, `host:port`, `[::1]:port`, or the path of a socket."""
    if text.startswith("/"):
        return text, parse_port(default_port)
    if text.startswith("["):
        host, mark, port = text[1:].partition("]")
        port = port.removeprefix(":")
        if not mark:
            raise ValueError(f"the host {text!r} has no closing bracket")
    else:
        host, _, port = text.rpartition(":") if text.count(":") == 1 else (text, "", "")
    return unquote(host) or DEFAULT_HOST, parse_port(port or default_port)


def parse_port(text: str) -> int:
    """A TCP port. Raises ValueError."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise ValueError("a port must be a number from 1 to 65535")
    return int(text)


def parse_sslmode(text: str) -> SslMode:
    """Any spelling of an sslmode, also the JSON of Node's MySQL drivers: `ssl={"rejectUnauthorized":true}`."""
    if text.startswith("{"):
        return sslmode_of_json(text)
    mode = SSLMODES.get(text.lower().replace("_", "-"))
    if mode is None:
        raise ValueError(f"sslmode must be one of {SSLMODE_NAMES}; got {text!r}")
    return mode


def sslmode_of_json(text: str) -> SslMode:
    """Node drivers check the certificate unless `rejectUnauthorized` is false."""
    try:
        verify = cast(dict[str, object], json.loads(text)).get("rejectUnauthorized", True)
    except (ValueError, AttributeError):
        raise ValueError('ssl must be an sslmode or {"rejectUnauthorized":true}') from None
    return "verify-full" if verify else "require"


def parse_sslnegotiation(text: str, protocol: Protocol, sslmode: SslMode) -> SslNegotiation:
    """`direct` starts TLS without asking (PostgreSQL 17 docs, libpq: sslnegotiation), so it cannot fall back to plain text."""
    if text not in {"postgres", "direct"}:
        raise ValueError(f"sslnegotiation must be postgres or direct, got {text!r}")
    if text == "direct" and protocol != "postgres":
        raise ValueError("sslnegotiation=direct is for PostgreSQL only")
    if text == "direct" and sslmode in {"disable", "allow", "prefer"}:
        raise ValueError(f"sslnegotiation=direct needs sslmode require, verify-ca or verify-full, got {sslmode}")
    return cast(SslNegotiation, text)


def parse_target(text: str) -> TargetSessionAttrs | None:
    """libpq's target_session_attrs; None for "" (not given)."""
    if text and text not in get_args(TargetSessionAttrs):
        raise ValueError(f"target_session_attrs must be one of {', '.join(get_args(TargetSessionAttrs))}, got {text!r}")
    return cast(TargetSessionAttrs | None, text or None)


def parse_load_balance(text: str) -> LoadBalance | None:
    """libpq's load_balance_hosts; None for "" (not given)."""
    if text and text not in LOAD_BALANCE:
        raise ValueError(f"load_balance_hosts must be one of {', '.join(LOAD_BALANCE)}, got {text!r}")
    return LOAD_BALANCE.get(text)
