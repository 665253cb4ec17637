"""A configuration without a file, from the URLs of a command line: `dualpool run --postgres URL --mysql URL`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dualpool.config.load import build
from dualpool.config.model import SCHEMES, WILDCARD, Config, Protocol
from dualpool.config.problems import Problems
from dualpool.config.url import ServerUrl, parse_url
from dualpool.config.values import parse_bind
from dualpool.errors import ConfigError

DEFAULT_BINDS: Final[dict[Protocol, str]] = {"postgres": "127.0.0.1:6543", "mysql": "127.0.0.1:3307"}


def from_urls(
    postgres: Sequence[str] = (),
    mysql: Sequence[str] = (),
    *,
    bind_postgres: str = DEFAULT_BINDS["postgres"],
    bind_mysql: str = DEFAULT_BINDS["mysql"],
) -> Config:
    """One backend for each URL, serving the URL's database and, for the first URL of a protocol, every other name.

    Clients log in with the users and passwords of the URLs. Where no URL of a protocol has a password, the server asks for none, and
    neither does dualpool. Raises ConfigError.
    """
    document: dict[str, Any] = {"listeners": {}, "backends": {}, "databases": {}, "users": {}}
    add_protocol(document, "postgres", postgres, bind_postgres)
    add_protocol(document, "mysql", mysql, bind_mysql)
    if not document["listeners"]:
        raise ConfigError("at least one URL is required: --postgres postgresql://... or --mysql mysql://...")
    document["admin"] = {"users": list(document["users"])}
    return build(document, Problems("command line", None), Path.cwd())


def add_protocol(document: dict[str, Any], protocol: Protocol, urls: Sequence[str], bind: str) -> None:
    """The listener of a protocol and what its URLs bring."""
    parsed = [parse_option(protocol, url) for url in urls]
    for index, (text, url) in enumerate(zip(urls, parsed, strict=True)):
        name = f"{protocol}-{index + 1}" if index else protocol
        document["backends"][name] = {"url": text}
        for database in dict.fromkeys(filter(None, (url.database, "" if index else WILDCARD))):
            add_database(document, protocol, database, name)
        if url.user:
            add_user(document, url)
    if urls:
        auth = "auto" if any(url.password for url in parsed) else "trust"
        document["listeners"][protocol] = {"protocol": protocol, "bind": parse_binds(protocol, bind), "auth": auth}


def parse_option(protocol: Protocol, text: str) -> ServerUrl:
    """The URL of an option. Raises ConfigError that names the option."""
    try:
        url = parse_url(text)
    except ValueError as error:
        raise ConfigError(f"--{protocol}: {error}") from None
    if url.protocol != protocol:
        raise ConfigError(f"--{protocol}: must be a URL that starts with {SCHEMES[protocol]}://; use --{url.protocol} for this one")
    return url


def parse_binds(protocol: Protocol, text: str) -> list[str]:
    """The addresses of an option. Raises ConfigError that names the option."""
    binds = [bind.strip() for bind in text.split(",")]
    for bind in binds:
        try:
            parse_bind(bind)
        except ValueError as error:
            raise ConfigError(f"--bind-{protocol}: {error}") from None
    return binds


def add_database(document: dict[str, Any], protocol: Protocol, name: str, backend: str) -> None:
    """A database under its name, or under a longer label if the other protocol has that name too."""
    databases = document["databases"]
    key = name if name not in databases else f"{backend}:{name}"
    databases[key] = {"name": name, "backend": backend}


def add_user(document: dict[str, Any], url: ServerUrl) -> None:
    """The URL's user, with one more password that lets it in."""
    user = document["users"].setdefault(url.user, {"password": []})
    if url.password and url.password not in user["password"]:
        user["password"].append(url.password)
