"""Reading libconfig, the format of proxysql.cnf (hyperrealm.github.io/libconfig, "Configuration File Grammar")."""

import re
from pathlib import Path
from typing import Any, Final

from dualpool.errors import ConfigError

TOKEN: Final = re.compile(
    r"""(?:\s+|\#[^\n]*|//[^\n]*|/\*.*?\*/)*
    (?:(?P<string>"(?:[^"\\]|\\.)*")
      |(?P<number>[+-]?(?:0[xX][0-9A-Fa-f]+L{0,2}|\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+|\d+[eE][+-]?\d+|\d+L{0,2}))
      |(?P<name>[A-Za-z*][-A-Za-z0-9_*]*)
      |(?P<mark>[{}()\[\]=:;,])
      |(?P<end>\Z))""",
    re.VERBOSE | re.DOTALL,
)
ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}
WORDS: Final = {"true": True, "false": False}


def parse_libconfig(text: str, path: Path) -> dict[str, Any]:
    """The settings of a file: groups as dictionaries, lists and arrays as lists. Raises ConfigError."""
    return Reader(text, path).settings("")


class Reader:
    """Goes through a text once."""

    def __init__(self, text: str, path: Path) -> None:
        self.text = text
        self.path = path
        self.position = 0
        self.kind = ""
        self.token = ""
        self.advance()

    def advance(self) -> None:
        """On to the next token."""
        match = TOKEN.match(self.text, self.position)
        if match is None:
            raise self.error(f"{self.text[self.position : self.position + 20]!r} is not understood")
        self.kind = str(match.lastgroup)
        self.token = match[self.kind]
        self.position = match.end()

    def error(self, what: str) -> ConfigError:
        """Something wrong, with its line."""
        return ConfigError(f"{self.path}:{self.text.count(chr(10), 0, self.position) + 1}: {what}")

    def take(self, *marks: str) -> bool:
        """Skip a mark if it is one of these."""
        if self.kind != "mark" or self.token not in marks:
            return False
        self.advance()
        return True

    def settings(self, closing: str) -> dict[str, Any]:
        """`name = value` again and again, up to the closing mark ("": the end)."""
        found: dict[str, Any] = {}
        while True:
            if (self.kind == "end" and not closing) or (closing and self.take(closing)):
                return found
            if self.kind != "name":
                raise self.error("the name of a setting is due")
            name = self.token
            self.advance()
            if not self.take("=", ":"):
                raise self.error(f"= is due after {name}")
            found[name] = self.value()
            self.take(";", ",")

    def value(self) -> Any:
        """One value. Strings that follow each other are one."""
        if self.take("{"):
            return self.settings("}")
        if self.take("("):
            return self.items(")")
        if self.take("["):
            return self.items("]")
        kind, token = self.kind, self.token
        if kind == "string":
            parts = []
            while self.kind == "string":
                parts.append(ESCAPE.sub(unescape, self.token[1:-1]))
                self.advance()
            return "".join(parts)
        if kind == "number":
            self.advance()
            return number(token)
        if kind == "name" and token.lower() in WORDS:
            self.advance()
            return WORDS[token.lower()]
        raise self.error("a value is due")

    def items(self, closing: str) -> list[Any]:
        """Values up to the closing mark. ProxySQL's own example has lists without commas."""
        found = []
        while not self.take(closing):
            if self.kind == "end":
                raise self.error(f"{closing} is due")
            found.append(self.value())
            self.take(",")
        return found


def unescape(match: re.Match[str]) -> str:
    """What an escape in a string stands for."""
    return chr(int(match[1][1:], 16)) if len(match[1]) == 3 else ESCAPES.get(match[1], match[1])


def number(token: str) -> int | float:
    """A number in any of the notations."""
    digits = token.rstrip("L")
    if digits.lower().lstrip("+-").startswith("0x"):
        return int(digits, 16)
    return float(digits) if set(digits) & set(".eE") else int(digits)
