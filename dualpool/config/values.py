"""Single values: from what TOML holds to what the program reads. Everything here raises ValueError that says what is allowed."""

import ipaddress
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

import attrs

from dualpool.config.environment import Expanded
from dualpool.config.fields import Setting, parse_duration
from dualpool.config.model import Backend, Bind, Budget, MemoryBudget, Pin, PinPolicy, Pins
from dualpool.config.problems import suggestion
from dualpool.config.url import parse_port, parse_url

Reader = Callable[[Any], Any]

ANYTHING: Final = Setting("")
TRUTH: Final = {"true": True, "false": False}
NAMES_OF_TYPES: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "a table", list: "a list"}
MODE: Final = re.compile(r"0?[0-7]{3}")
SYSTEM: Final = "system"
"""sslrootcert=system: the authorities that the machine trusts."""


def describe(value: Any) -> str:
    """A wrong value, for a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return NAMES_OF_TYPES[type(value)]
    return repr(str(value)) if isinstance(value, str) else str(value)


def wrong_type(wanted: str, value: Any, declared: Setting = ANYTHING) -> ValueError:
    """The error for a value of another type; a secret is not shown."""
    return ValueError(f"must be {wanted}" + ("" if declared.kind == "secret" else f", got {describe(value)}"))


def read_str(value: Any, declared: Setting) -> str:
    """A string, as a plain str."""
    if not isinstance(value, str):
        raise wrong_type("a string", value, declared)
    return str(value)


def read_bool(value: Any, declared: Setting) -> bool:
    """true or false; from the environment the words."""
    if isinstance(value, Expanded) and value.lower() in TRUTH:
        return TRUTH[value.lower()]
    if not isinstance(value, bool):
        raise wrong_type("true or false", value, declared)
    return value


def read_number(value: Any, declared: Setting, wanted: type[int] | type[float]) -> float:
    """A number that is large enough; from the environment its digits."""
    if isinstance(value, Expanded):
        try:
            value = wanted(value)
        except ValueError:
            raise wrong_type(NAMES_OF_TYPES[wanted], value, declared) from None
    if isinstance(value, bool) or not isinstance(value, (int, wanted)):
        raise wrong_type(NAMES_OF_TYPES[wanted], value, declared)
    if declared.minimum is not None and not value >= declared.minimum:
        raise ValueError(f"must be at least {declared.minimum:g}, got {value}")
    return wanted(value)


def read_duration(value: Any, declared: Setting) -> float:
    """A time; 0 needs a unit as well, so that nobody has to wonder which."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise wrong_type(f'a time with a unit (ms, s, m, h or d), such as "{value}s"', value)
    return parse_duration(read_str(value, declared))


def read_literal(value: Any, allowed: tuple[str, ...], declared: Setting) -> str:
    """One of a few words."""
    text = read_str(value, declared)
    if text not in allowed:
        near = suggestion(text, allowed)
        raise ValueError(f"must be one of {', '.join(allowed)}, got {text!r}" + (near if "mean" in near else ""))
    return text


def read_path(value: Any, declared: Setting, directory: Path) -> str:
    """A file that exists; relative paths start at the configuration's directory."""
    return existing_file(read_str(value, declared), directory)


def existing_file(text: str, directory: Path) -> str:
    """The full path of a file. Raises ValueError if there is none."""
    if not text:
        return ""
    path = directory / Path(text).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return str(path)


def read_url(value: Any, declared: Setting, directory: Path) -> str:
    """A backend's URL that can be parsed, whose files exist."""
    text = read_str(value, declared)
    url = parse_url(text)
    for option in ("sslrootcert", "sslcert", "sslkey"):
        named = getattr(url, option)
        try:
            existing_file("" if (option, named) == ("sslrootcert", SYSTEM) else named, directory)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None
    if bool(url.sslcert) != bool(url.sslkey):
        raise ValueError("sslcert and sslkey must be given together")
    return text


def resolve_url(backend: Backend, directory: Path) -> Backend:
    """`backend` with everything that its url says. The url has been read by `read_url`."""
    url = parse_url(backend.url)
    return attrs.evolve(
        backend,
        **attrs.evolve(
            url,
            sslrootcert=SYSTEM if url.sslrootcert == SYSTEM else existing_file(url.sslrootcert, directory),
            sslcert=existing_file(url.sslcert, directory),
            sslkey=existing_file(url.sslkey, directory),
        ).attributes(),
    )


def read_network(value: Any, declared: Setting) -> str:
    """A network, or a single address."""
    text = read_str(value, declared)
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"must be a network, such as 10.0.0.0/8 or fd00::/8, got {text!r}") from None


def read_mode(value: Any, declared: Setting) -> str:
    """The permissions of a file."""
    text = read_str(value, declared)
    if not MODE.fullmatch(text):
        raise ValueError(f'must be permissions in octal digits, such as "0770", got {text!r}')
    return text


def read_bind(value: Any, declared: Setting, directory: Path) -> Bind:
    """An address to listen on; the path of a socket is relative to `directory`."""
    bind = parse_bind(read_str(value, declared))
    return attrs.evolve(bind, unix=str(directory / bind.unix)) if bind.unix else bind


def parse_bind(text: str) -> Bind:
    """An address to listen on. A socket's directory is completed later, by `complete_socket`."""
    if text.startswith("unix:"):
        if len(text) == len("unix:"):
            raise ValueError("unix: needs a directory or the path of a socket")
        return Bind(unix=text.removeprefix("unix:"))
    host, mark, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address goes in brackets, such as [::1]:6543, got {text!r}")
    if not mark or not host:
        raise ValueError(f'must be "host:port" or "unix:/path", got {text!r}')
    return Bind(host="" if host == "*" else host, port=0 if port == "0" else parse_port(port))


def read_budget(value: Any, declared: Setting, table: Callable[[Any], MemoryBudget]) -> Budget:
    """ "auto", a number, or the rule by memory."""
    if value == "auto":
        return "auto"
    if isinstance(value, dict):
        return table(value)
    try:
        return int(read_number(value, declared, int))
    except ValueError as error:
        if "at least" in str(error):
            raise
        raise wrong_type('"auto", a whole number or { memory_gb = 1, per_gb = 25 }', value, declared) from None


def read_pin(value: Any, declared: Setting, table: Callable[[Any], Pins]) -> Pin:
    """One policy for every reason, or a table of them."""
    if isinstance(value, dict):
        return table(value)
    return cast(Pin, read_literal(value, get_args(PinPolicy), declared))


def without_none(kind: Any) -> Any:
    """X of `X | None`, which TOML has no value for."""
    if get_origin(kind) in {Union, types.UnionType}:
        members = [member for member in get_args(kind) if member is not type(None)]
        return members[0] if len(members) == 1 else kind
    return kind


def is_literal(kind: Any) -> bool:
    """A choice of words."""
    return get_origin(kind) is Literal


def item_type(kind: Any) -> Any:
    """X of `tuple[X, ...]`, or None for anything else. In TOML a single X may stand for a list of one."""
    return get_args(kind)[0] if get_origin(kind) is tuple else None
