"""Reading pgbouncer.ini: sections, %include, and the connection strings in them. Source: PgBouncer docs and src/loader.c."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from dualpool.errors import ConfigError

SECTION: Final = re.compile(r"\[([^\]]+)\]\Z")
QUOTED_KEY: Final = re.compile(r'"((?:[^"]|"")*)"\s*=')
INCLUDE: Final = re.compile(r"%include\s+(\S.*)\Z")
PAIR: Final = re.compile(r"\s*(?P<key>[^=\s]+)\s*=\s*(?:'(?P<quoted>(?:[^']|'')*)'|(?P<bare>[^'\s]\S*))(?=\s|\Z)")
COMMENTS: Final = (";", "#")
MAX_DEPTH: Final = 16


@attrs.frozen
class Item:
    """A line `key = value`, and where it is."""

    section: str
    key: str
    value: str
    file: Path
    line: int

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"


def read_ini(path: Path) -> list[Item]:
    """Every line with a value, in order; later ones win over earlier ones. Raises ConfigError."""
    return list(items(path, 0, ""))


def items(path: Path, depth: int, section: str) -> Iterator[Item]:
    """The lines of a file and of those that it includes. A section that an included file begins goes on behind it."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(COMMENTS):
            continue
        if include := INCLUDE.match(line):
            if depth == MAX_DEPTH:
                raise ConfigError(f"{path}:{number}: files include each other more than {MAX_DEPTH} deep")
            for item in items(included(include[1], path), depth + 1, section):
                section = item.section
                yield item
        elif header := SECTION.match(line):
            section = header[1].strip()
        else:
            key, value = split(line, f"{path}:{number}")
            yield Item(section, key, value, path, number)


def included(name: str, path: Path) -> Path:
    """A file that another one names: relative to the working directory, as in PgBouncer, or else to the file that names it."""
    found = Path(name)
    return found if found.is_absolute() or found.exists() else path.absolute().parent / found


def split(line: str, place: str) -> tuple[str, str]:
    """`key = value`; the name of a database may be in double quotes."""
    if quoted := QUOTED_KEY.match(line):
        return quoted[1].replace('""', '"'), line[quoted.end() :].strip()
    key, equals, value = line.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{place}: must be key = value")
    return key.strip(), value.strip()


def pairs(item: Item) -> dict[str, str]:
    """The settings in a line of [databases] or [users]: `host=h port=5432 connect_query='select ''x'''`. Raises ConfigError."""
    found: dict[str, str] = {}
    position, text = 0, item.value
    while text[position:].strip():
        match = PAIR.match(text, position)
        if match is None:
            rest = text[position:].partition("=")[0].strip()
            raise ConfigError(f"{item.place}: {item.section}.{item.key}: the settings from {rest!r} on are not understood")
        quoted = match["quoted"]
        found[match["key"]] = quoted.replace("''", "'") if quoted is not None else match["bare"]
        position = match.end()
    return found
