"""What an import makes: the tables of a configuration, and remarks about what could not be brought over."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs

from dualpool.config.fields import format_duration
from dualpool.config.load import build
from dualpool.config.model import Config
from dualpool.config.problems import Problems

BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
WRAPPED_AT: Final = 130
TABLES_OF_TABLES: Final = ("listeners", "backends", "databases", "users")


@attrs.frozen
class Note:
    """A setting that is not in the result as it was, and why."""

    setting: str
    reason: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.reason}"


@attrs.define
class Imported:
    """`document`: plain dictionaries, as the loader takes them. `notes`: in the order in which they came up."""

    source: Path
    document: dict[str, Any]
    notes: list[Note]

    def note(self, setting: str, reason: str) -> None:
        """Remark on a setting, once."""
        note = Note(setting, reason)
        if note not in self.notes:
            self.notes.append(note)

    def config(self, *, resolve: bool = False) -> Config:
        """The configuration, for `dualpool run`; the remarks are among its warnings. Raises ConfigError. `resolve`: see `load`."""
        problems = Problems(str(self.source), None)
        config = build(self.document, problems, self.source.absolute().parent, resolve=resolve)
        return attrs.evolve(config, warnings=(*(f"{self.source}: {note}" for note in self.notes), *config.warnings))

    def toml(self) -> str:
        """The configuration as a text. It may hold passwords."""
        lines = [f"# Imported from {self.source}", ""]
        if self.notes:
            lines += ["# Without an equivalent, or different:", *(f"#   {note}" for note in self.notes), ""]
        for section, table in self.document.items():
            if section in TABLES_OF_TABLES:
                for name, inner in table.items():
                    lines += [f"[{section}.{key_text(name)}]", *table_lines(inner), ""]
            elif isinstance(table, Mapping):
                lines += [f"[{section}]", *table_lines(table), ""]
            else:
                lines.insert(0, f"{section} = {value_text(table)}")
        return "\n".join(lines)


def table_lines(table: Mapping[str, Any]) -> list[str]:
    """`key = value` for everything in a table."""
    return [f"{key_text(key)} = {value_text(value)}" for key, value in table.items()]


def key_text(key: str) -> str:
    """A key, in quotation marks where TOML needs them."""
    return key if BARE_KEY.match(key) else string_text(key)


def value_text(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return string_text(value.replace("${", "$${"))
    if isinstance(value, list):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key_text(key)} = {value_text(item)}" for key, item in value.items()) + " }"
    return str(value)


def string_text(text: str) -> str:
    """A basic string. JSON's escapes are all TOML's too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def seconds_text(seconds: float) -> str:
    """A time, as the configuration writes it."""
    return format_duration(seconds)


def url_text(scheme: str, hosts: list[tuple[str, int]], parameters: Mapping[str, str]) -> str:
    """The URL of servers, none of whose parts can be misread."""
    options = dict(parameters)
    if len(hosts) == 1 and not hosts[0][0].startswith("/"):
        place = host_text(*hosts[0])
    else:
        place = ""
        options = {"hosts": ",".join(host if host.startswith("/") else host_text(host, port) for host, port in hosts), **options}
        ports = {port for host, port in hosts if host.startswith("/")}
        if ports:
            options["port"] = str(ports.pop())
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='/,:[]')}" for name, value in options.items())
    return f"{scheme}://{place}" + (f"?{query}" if query else "")


def host_text(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
