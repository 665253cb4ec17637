"""What is wrong with a file: every problem with its line and key, in the order of the lines, and the nearest name for a wrong one."""

import difflib
import json
import re
from collections.abc import Iterable
from typing import Final

from dualpool.config.positions import Path, Positions
from dualpool.errors import ConfigError

BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


class Problems:
    """Collects problems and warnings of one file. Without positions it is no file, and lines are not told."""

    def __init__(self, name: str, positions: Positions | None) -> None:
        self.name = name
        self.positions = positions
        self.found: dict[Path, str] = {}
        self.warned: list[tuple[Path, str]] = []

    def add(self, path: Path, message: str) -> None:
        """A problem at `path`. The first one at a path is the cause; what follows from it is not told."""
        if not any(path[:length] in self.found for length in range(1, len(path) + 1)):
            self.found[path] = message

    def warn(self, path: Path, message: str) -> None:
        """Something that works, but probably not as meant."""
        self.warned.append((path, message))

    def raise_if_any(self) -> None:
        """Raise one ConfigError with all problems, a line each."""
        if self.found:
            raise ConfigError("\n".join(self.lines(self.found.items())))

    def warnings(self) -> tuple[str, ...]:
        """The warnings, a line each."""
        return tuple(self.lines(self.warned))

    def lines(self, items: Iterable[tuple[Path, str]]) -> list[str]:
        """`file:line: key: message`, by line."""
        ordered = sorted(items, key=lambda item: self.line(item[0]))
        return [": ".join(filter(None, (self.place(path), format_path(path), message))) for path, message in ordered]

    def place(self, path: Path) -> str:
        """`file:line`, or the name alone."""
        return f"{self.name}:{self.line(path)}" if self.positions is not None else self.name

    def line(self, path: Path) -> int:
        """The line of `path`; 0 where there are no lines."""
        return self.positions.line(path) if self.positions is not None else 0


def format_path(path: Path) -> str:
    """A path as TOML writes it: `databases."a.b".pool_size`, `listeners.web.bind[1]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if BARE_KEY.match(part) else json.dumps(part, ensure_ascii=False))
    return text


def suggestion(wrong: str, allowed: Iterable[str]) -> str:
    """`; did you mean NAME?`, or the names that are allowed if none is near."""
    names = list(allowed)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; allowed: {', '.join(names)}" if names else ""
