"""The lines of PostgreSQL's authentication files (docs: The pg_hba.conf File): words, commas, quotation marks, comments."""

import re
from collections.abc import Iterator
from typing import Final

import attrs

TOKEN: Final = re.compile(r'\s*(?:(?P<end>#.*|$)|(?P<comma>,)|"(?P<quoted>(?:[^"]|"")*)"|(?P<bare>[^\s,#"]+)|(?P<broken>"))')


@attrs.frozen
class Word:
    """A word of a line. In quotation marks it is a name, and never a keyword."""

    text: str
    quoted: bool = False

    def is_keyword(self, *keywords: str) -> bool:
        """Is it one of these, without quotation marks?"""
        return not self.quoted and self.text in keywords

    def check(self) -> None:
        """Raise ValueError for a regular expression that is none."""
        if self.text.startswith("/"):
            try:
                re.compile(self.text[1:])
            except re.error as error:
                raise ValueError(f"{self.text}: {error}") from None

    def finds(self, name: str) -> bool:
        """Is it the name? After a slash, in quotation marks or not, comes a regular expression, which may match any part of it."""
        return re.search(self.text[1:], name) is not None if self.text.startswith("/") else self.text == name


Field = list[Word]
"""Words that commas hold together."""


def fields(line: str) -> list[Field]:
    """The fields of a line. Raises ValueError."""
    found: list[Field] = []
    joined = False
    for token in tokens(line):
        if token is None:
            joined = True
        elif joined and found:
            found[-1].append(token)
            joined = False
        else:
            found.append([token])
            joined = False
    return found


def tokens(line: str) -> Iterator[Word | None]:
    """Words, and None for a comma."""
    position = 0
    while True:
        match = TOKEN.match(line, position)
        if match is None or match["broken"]:
            raise ValueError("a quotation mark is not closed")
        position = match.end()
        if match["end"] is not None:
            return
        if match["comma"]:
            yield None
        elif match["quoted"] is not None:
            yield Word(match["quoted"].replace('""', '"'), quoted=True)
        else:
            yield Word(match["bare"])


def joined_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers; one that ends with a backslash goes on in the next."""
    start, held = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        if line.endswith("\\"):
            held += line[:-1]
            continue
        yield start, held + line
        start, held = 0, ""
    if held:
        yield start, held
