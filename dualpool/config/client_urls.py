"""The URLs that a client uses: what goes into DATABASE_URL once dualpool is in between."""

from typing import Final
from urllib.parse import quote

import attrs

from dualpool.config.model import SCHEMES, WILDCARD, Bind, Config, Database, Listener
from dualpool.config.problems import suggestion
from dualpool.config.url import DEFAULT_PORTS
from dualpool.errors import ConfigError

ALL_INTERFACES: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 -- nothing is bound here
VERIFIERS: Final = ("SCRAM-SHA-256$", "$A$")


@attrs.frozen
class ClientUrl:
    """One way to a database."""

    listener: str
    pool_mode: str
    url: str


def client_urls(config: Config, name: str, user: str = "", *, show_password: bool = False) -> list[ClientUrl]:
    """Every way to the database `name`, for `user` (default: the first user). Raises ConfigError if no listener serves it.

    Without `show_password`, and where only a verifier is known, the password is left out.
    """
    user = user or next(iter(config.users), "")
    if user and user not in config.users:
        raise ConfigError(f"there is no user {user!r}{suggestion(user, config.users)}")
    password = plain_password(config, user) if show_password else ""
    urls = [
        ClientUrl(listener.name, mode_of(config, listener, database, user), format_url(listener, bind, database.name, user, password))
        for listener in config.listeners.values()
        if (database := config.find_database(listener.protocol, name)) is not None
        for bind in listener.bind
    ]
    if not urls:
        names = [database.name for database in config.databases.values() if database.name != WILDCARD]
        raise ConfigError(f"no listener serves a database {name!r}{suggestion(name, names)}")
    return urls


def plain_password(config: Config, user: str) -> str:
    """A password that a client could send; "" if only verifiers are stored."""
    stored = config.users[user].password if user else ()
    return next((text for text in stored if not is_verifier(text)), "")


def is_verifier(text: str) -> bool:
    """Stored forms of passwords: SCRAM and caching_sha2 by their marks, md5 and native hashes by their hexadecimal digits."""
    if text.startswith(VERIFIERS):
        return True
    mark, digits = (text[:3], text[3:]) if text.startswith("md5") else (text[:1], text[1:])
    return len(digits) == {"md5": 32, "*": 40}.get(mark) and all(digit in "0123456789abcdefABCDEF" for digit in digits)


def mode_of(config: Config, listener: Listener, database: Database, user: str) -> str:
    """The user's pool mode, else the database's, else the listener's."""
    own = config.users[user].pool_mode if user else None
    return own or database.pool_mode or listener.pool_mode


def format_url(listener: Listener, bind: Bind, database: str, user: str, password: str) -> str:
    """A URL that libpq, the MySQL drivers and ORMs understand."""
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    address, options = address_of(listener, bind)
    if listener.tls is not None and listener.tls.required:
        options.append("sslmode=require" if listener.protocol == "postgres" else "ssl-mode=REQUIRED")
    query = "?" + "&".join(options) if options else ""
    return f"{SCHEMES[listener.protocol]}://{login}{'@' if login else ''}{address}/{quote(database, safe='')}{query}"


def address_of(listener: Listener, bind: Bind) -> tuple[str, list[str]]:
    """The authority of the URL, and what a socket needs among its options."""
    if not bind.unix:
        host = ALL_INTERFACES.get(bind.host, bind.host)
        return f"[{host}]:{bind.port}" if ":" in host else f"{host}:{bind.port}", []
    if listener.protocol == "mysql":
        return "localhost", [f"socket={bind.unix}"]
    directory, _, file = bind.unix.rpartition("/")
    port = file.removeprefix(".s.PGSQL.")
    return "", [f"host={directory}", *([f"port={port}"] if port != str(DEFAULT_PORTS["postgres"]) else [])]
