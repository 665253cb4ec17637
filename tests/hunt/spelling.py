"""SQL in all its spellings. A template is plain SQL; a Speller writes it with random comments, cases, quotes and escapes.

In a template `~name` is an identifier that may be put in quotes, `~~name` one whose case does not matter either (a function), and
`{key}` stands for a value: `Lit` becomes a string, `Name` an identifier, a `Text` stays as it was spelled, anything else is SQL.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

TOKEN: Final = re.compile(
    r"\{\w+\}|~{0,2}[A-Za-z_][\w$]*|\d+(?:\.\d+)?|\$\d+|\$\$.*?\$\$|'(?:[^']|'')*'|::|:=|<=|>=|<>|\|\||@@|@|!=|.", re.DOTALL
)
WORD: Final = re.compile(r"[\w$]")
LONG: Final = 300
"""Longer than any look-ahead that a reader with patterns would have."""


@dataclass(frozen=True)
class Lit:
    """A string literal."""

    value: str


@dataclass(frozen=True)
class Name:
    """An identifier, each part of a dotted name by itself."""

    value: str


@dataclass(frozen=True)
class Piece:
    """One token: how it is usually written, how it is written here, and the gap in front of it, both ways."""

    plain: str
    spelled: str
    plain_gap: str = ""
    gap: str = ""

    def straightened(self) -> "Piece":
        """The same, written as usual."""
        return replace(self, spelled=self.plain, gap=self.plain_gap)


@dataclass(frozen=True)
class Text:
    """A text of SQL, in an encoding."""

    pieces: tuple[Piece, ...]
    encoding: str = "utf8"

    def __str__(self) -> str:
        return "".join(piece.gap + piece.spelled for piece in self.pieces)

    def encoded(self) -> bytes:
        """The bytes that are sent."""
        return str(self).encode(self.encoding, "replace")

    def straightened(self) -> "Text":
        """The same, written as usual."""
        return replace(self, pieces=tuple(piece.straightened() for piece in self.pieces))

    def simpler(self) -> Iterator["Text"]:
        """Ways to write it with less oddity: all of it as usual first, then halves, then one token at a time."""
        odd = [i for i, piece in enumerate(self.pieces) if piece != piece.straightened()]
        size = len(odd)
        while size:
            for start in range(0, len(odd), size):
                chosen = set(odd[start : start + size])
                yield replace(self, pieces=tuple(p.straightened() if i in chosen else p for i, p in enumerate(self.pieces)))
            size //= 2


def verbatim(text: str, encoding: str = "utf8") -> Text:
    """A text that is written as it is."""
    return Text((Piece(text, text),), encoding)


def joined(texts: "list[Text]", separator: str = "; ") -> Text:
    """Several statements as one text."""
    pieces: list[Piece] = []
    for text in texts:
        if pieces:
            pieces.append(Piece(separator, separator))
        pieces += text.pieces
    return Text(tuple(pieces), texts[0].encoding)


class Speller:
    """Writes templates. `wildness` is how often a token is written oddly, 0 to 1; `encoding` is Python's name of the session's encoding."""

    open_string = "'"

    def __init__(self, rng: random.Random, wildness: float, encoding: str = "utf8") -> None:
        self.rng, self.wildness, self.encoding = rng, wildness, encoding

    def __call__(self, template: str, **values: object) -> Text:
        """The template as a Text."""
        return Text(tuple(self._pieces(template, values)), self.encoding)

    def _pieces(self, template: str, values: dict[str, object]) -> Iterator[Piece]:
        gap, last = "", ""
        for token in TOKEN.findall(template):
            if token.isspace():
                gap = " "
                continue
            for piece in self._token(token, values):
                yield self._with_gap(piece, gap, last)
                gap, last = "", piece.spelled or last

    def _token(self, token: str, values: dict[str, object]) -> Iterator[Piece]:
        if token[0] == "{" and token[1:-1] in values:
            value = values[token[1:-1]]
            if isinstance(value, Text):
                yield from value.pieces
            elif isinstance(value, Lit):
                plain = self.plain_string(value.value)
                yield Piece(plain, self.odd_string(value.value) if self._odd() else plain)
            elif isinstance(value, Name):
                for i, part in enumerate(value.value.split(".")):
                    if i:
                        yield Piece(".", ".")
                    yield self._name(part, any_case=True)
            else:
                yield from self._pieces(str(value), {})
        elif token.startswith("~"):
            yield self._name(token.lstrip("~"), any_case=token.startswith("~~"))
        elif token[0].isalpha() and self._odd():
            yield Piece(token, self._any_case(token))
        elif token[0] == "'" and len(token) > 1:
            yield from self._token("{x}", {"x": Lit(token[1:-1].replace("''", "'"))})
        else:
            yield Piece(token, token)

    def _with_gap(self, piece: Piece, gap: str, last: str) -> Piece:
        if piece.plain_gap or piece.gap:  # of a text within the text
            return piece
        needed = bool(last and WORD.match(last[-1]) and WORD.match(piece.plain[:1] or " "))
        tight = last[-1:] in "@$" or piece.plain[:1] in "@$(" or "." in (last[-1:], piece.plain[:1]) or not last
        plain_gap = " " if needed else gap
        if tight and not self._odd():
            return replace(piece, plain_gap=plain_gap, gap=plain_gap)
        if not self._odd() or last[-1:] in "@-/*" or piece.plain[:1] in "-/*@" or not self.may_part(last, piece.plain):
            return replace(piece, plain_gap=plain_gap, gap=plain_gap)
        return replace(piece, plain_gap=plain_gap, gap=self.odd_gap())

    def _odd(self) -> bool:
        return self.rng.random() < self.wildness

    def _any_case(self, word: str) -> str:
        return "".join(self.rng.choice((letter.upper(), letter.lower())) for letter in word)

    def _name(self, name: str, *, any_case: bool) -> Piece:
        plain = self.plain_name(name)
        return Piece(plain, self.odd_name(name, any_case=any_case) if self._odd() else plain)

    def may_part(self, before: str, after: str) -> bool:
        """May there be a gap between these two?"""
        return True

    def plain_string(self, value: str) -> str:
        """A literal as usual."""
        return "'" + value.replace("'", "''") + "'"

    def plain_name(self, name: str) -> str:
        """An identifier as usual."""
        raise NotImplementedError

    def odd_string(self, value: str) -> str:
        """A literal in another spelling."""
        raise NotImplementedError

    def odd_name(self, name: str, *, any_case: bool) -> str:
        """An identifier in another spelling."""
        raise NotImplementedError

    def odd_gap(self) -> str:
        """White space and comments that stand for a blank."""
        raise NotImplementedError


class PostgresSpeller(Speller):
    """PostgreSQL (docs: Lexical Structure)."""

    def plain_name(self, name: str) -> str:
        return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else '"' + name.replace('"', '""') + '"'

    def odd_name(self, name: str, *, any_case: bool) -> str:
        plain = re.fullmatch(r"[a-z_][a-z0-9_$]*", name) is not None
        way = self.rng.randrange(4)
        if way == 0 and plain:
            return self._any_case(name)
        if way == 1 and name.isascii():
            return 'U&"' + self._escaped(name, "\\") + '"'
        if way == 2 and name.isascii():
            return 'U&"' + self._escaped(name, "!") + "\" UESCAPE '!'"
        return '"' + name.replace('"', '""') + '"'

    def odd_string(self, value: str) -> str:
        way = self.rng.randrange(5)
        doubled = value.replace("'", "''")
        if way == 0:
            return "E'" + doubled.replace("\\", "\\\\") + "'"
        if way == 1 and value.isascii():
            return "e'" + "".join(f"\\x{ord(c):02x}" if self.rng.random() < 0.3 else c for c in doubled.replace("\\", "\\\\")) + "'"
        if way == 2 and "\\" not in value:
            return "U&'" + "".join(f"\\{ord(c):04x}" if self.rng.random() < 0.3 and c != "'" else c for c in doubled) + "'"
        if way == 3 and "$" not in value and "\\" not in value:
            tag = self.rng.choice(("", "a", "Tag", "_1"))
            return f"${tag}${value}${tag}$"
        cut = self.rng.randrange(len(value) + 1)
        return self.plain_string(value[:cut]) + "\n" + self.plain_string(value[cut:])

    def _escaped(self, name: str, sign: str) -> str:
        letters = ("".join(f"{sign}{ord(c):04x}" if self.rng.random() < 0.4 else c for c in name)) or name
        return letters.replace('"', '""')

    def odd_gap(self) -> str:
        return self.rng.choice(
            (
                "\n",
                "\t\r\n",
                "/**/",
                "/* c */",
                "/* * */",
                "/* ' */",
                '/* " $$ */',
                "/* /* n */ */",
                "/*/**/; set */",
                "--\n",
                "-- it's; \n",
                "--" + "x" * LONG + "\n",
                "/*" + "x" * LONG + "*/",
                "\f\v",
                " /* é表 */ ",
            )
        )


class MySQLSpeller(Speller):
    """MySQL and MariaDB (Reference Manual: Language Structure)."""

    def __init__(
        self, rng: random.Random, wildness: float, encoding: str = "utf8", *, ansi_quotes: bool = False, no_backslash: bool = False
    ):
        super().__init__(rng, wildness, encoding)
        self.ansi_quotes, self.no_backslash = ansi_quotes, no_backslash

    def plain_string(self, value: str) -> str:
        doubled = value.replace("'", "''")
        return "'" + (doubled if self.no_backslash else doubled.replace("\\", "\\\\")) + "'"

    def plain_name(self, name: str) -> str:
        return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", name) else "`" + name.replace("`", "``") + "`"

    def odd_name(self, name: str, *, any_case: bool) -> str:
        if any_case and self.rng.random() < 0.4 and name.isascii():
            return self._any_case(name)
        if self.ansi_quotes and self.rng.random() < 0.5:
            return '"' + name + '"'
        return "`" + name.replace("`", "``") + "`"

    def odd_string(self, value: str) -> str:
        way = self.rng.randrange(4)
        if "zzzw" in value:  # a placeholder of scripts
            way = 0
        if way == 0 and not self.ansi_quotes:
            text = value if self.no_backslash else value.replace("\\", "\\\\")
            return '"' + text.replace('"', '""') + '"'
        if way == 1 and not self.no_backslash:
            return "'" + "".join(f"\\{c}" if c in "'\"\\" or (c.isascii() and c not in "0bnrtZ%_" and c.isalnum()
                                 and self.rng.random() < 0.3) else c for c in value) + "'"  # fmt: skip
        if way == 2 and value and value.isascii():
            return "X'" + value.encode().hex() + "'"
        return self.plain_string(value)

    def odd_gap(self) -> str:
        return self.rng.choice(
            (
                "\n",
                "\t\r\n",
                "/**/",
                "/* c */",
                "/* * */",
                "/* ' */",
                '/* " ` */',
                "#\n",
                "# it's; \n",
                "-- \n",
                "-- it's \n",
                "--\n",
                "# " + "x" * LONG + "\n",
                "/*" + "x" * LONG + "*/",
                "/*! */",
                "/*!99999 or not */",
                "\f\v",
            )
        )

    def may_part(self, before: str, after: str) -> bool:
        # Built-in functions such as COUNT are told from names by the parenthesis that follows at once.
        return after[:1] != "(" or before[:1] == "`"
