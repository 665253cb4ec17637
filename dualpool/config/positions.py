"""On which line of a TOML file each key and value is. tomlkit parses; it keeps no positions, so this second reading finds them.

It follows the structure only (TOML 1.0: keys, tables, arrays, strings) and reads no value. The text must be one that tomlkit accepts; on
any other the answer may be incomplete, never an exception.
"""

import re
from typing import Final

Path = tuple[str | int, ...]
"""The keys from the top to a value; an index in an array (or an array of tables) is an int."""

BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
SPACE: Final = re.compile(r"[ \t]*")
BARE: Final = re.compile(r"[^\s=.,\[\]{}#\"']+")
STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'",
    re.DOTALL,
)
SCALAR: Final = re.compile(r"[^,\]}#\n]*")
ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
CONTROL: Final = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


class Positions:
    """The lines (from 1) of the paths of one text, and the keys that it gives twice."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {(): 1}
        self.repeated: list[tuple[Path, int]] = []
        Scanner(text, self).scan()

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest table around it that the text has."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


class Scanner:
    """One pass over the text."""

    def __init__(self, text: str, found: Positions) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.found = found
        self.arrays: dict[Path, int] = {}
        """Arrays of tables, and the index of their last one."""
        self.implied: dict[Path, int] = {}
        """Tables that a header names on its way (`[a.b]` names a), which may have a header of their own later."""

    def scan(self) -> None:
        """All statements; then the tables without a header get the line of the first header that names them."""
        self.statements()
        for path, line in self.implied.items():
            self.found.lines.setdefault(path, line)

    def statements(self) -> None:
        """Statement by statement: a header or a key with its value. Stops where it understands nothing."""
        table: Path = ()
        while True:
            self.skip(BLANK)
            before = self.at
            if self.peek("["):
                table = self.header()
            elif not self.end():
                self.pair(table)
            if self.at == before:
                return
            self.skip(SPACE)

    def header(self) -> Path:
        """`[a.b]` or `[[a.b]]`: the path of the table that begins here."""
        line, double = self.line, self.take("[[")
        if not double:
            self.take("[")
        path: Path = ()
        keys = self.keys()
        for key in keys[:-1]:
            path = self.inside((*path, key))
            self.implied.setdefault(path, line)
        path = (*path, *keys[-1:])
        if double:
            self.arrays[path] = self.arrays.get(path, -1) + 1
            self.found.lines.setdefault(path, line)
        path = self.inside(path)
        self.record(path, line, header=True)
        self.take("]]" if double else "]")
        return path

    def inside(self, path: Path) -> Path:
        """`path`, or its last table if it is an array of tables."""
        return (*path, self.arrays[path]) if path in self.arrays else path

    def pair(self, table: Path) -> None:
        """`a.b = value`, in a table or an inline table."""
        line, path = self.line, table
        keys = self.keys()
        for key in keys[:-1]:
            path = (*path, key)
            self.found.lines.setdefault(path, line)
        path = (*path, *keys[-1:])
        self.record(path, line)
        self.skip(SPACE)
        self.take("=")
        self.skip(SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        """A value, whatever it is; the insides of arrays and inline tables are recorded."""
        if self.peek("["):
            self.array(path)
        elif self.peek("{"):
            self.inline_table(path)
        elif not self.skip(STRING):
            self.skip(SCALAR)

    def array(self, path: Path) -> None:
        """`[value, ...]`, over several lines if it likes."""
        self.take("[")
        index = 0
        self.skip(BLANK)
        while not self.end() and not self.take("]"):
            before = self.at
            self.record((*path, index), self.line)
            self.value((*path, index))
            index += 1
            self.separator()
            if self.at == before:
                return

    def inline_table(self, path: Path) -> None:
        """`{ key = value, ... }`."""
        self.take("{")
        self.skip(BLANK)
        while not self.end() and not self.take("}"):
            before = self.at
            self.pair(path)
            self.separator()
            if self.at == before:
                return

    def separator(self) -> None:
        """What may stand between two values."""
        self.skip(BLANK)
        self.take(",")
        self.skip(BLANK)

    def keys(self) -> tuple[str, ...]:
        """A dotted key, in its parts."""
        keys: list[str] = []
        while True:
            self.skip(SPACE)
            if quoted := self.skip(STRING):
                keys.append(unquote(quoted))
            elif bare := self.skip(BARE):
                keys.append(bare)
            self.skip(SPACE)
            if not self.take("."):
                return tuple(keys)

    def record(self, path: Path, line: int, *, header: bool = False) -> None:
        """`path` begins on `line`. A header may come again for the same path: where keys before it have begun the table."""
        if path in self.found.lines and not header:
            self.found.repeated.append((path, line))
        self.found.lines.setdefault(path, line)

    def end(self) -> bool:
        return self.at >= len(self.text)

    def peek(self, mark: str) -> bool:
        return self.text.startswith(mark, self.at)

    def take(self, mark: str) -> bool:
        """Step over `mark` if it is next."""
        if not self.peek(mark):
            return False
        self.at += len(mark)
        return True

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Step over what `pattern` matches here, counting lines. Returns it."""
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        self.line += match[0].count("\n")
        return match[0]


def unquote(quoted: str) -> str:
    """The text of a one-line string."""
    body = quoted[1:-1]
    return body if quoted[0] == "'" else ESCAPE.sub(unescape, body)


def unescape(match: re.Match[str]) -> str:
    """One escape sequence as the character that it stands for."""
    code = match[1] or match[2] or match[3]
    if code is None:
        return CONTROL.get(match[4], match[4])
    number = int(code, 16)
    return chr(number) if number < 0x110000 else match[0]
