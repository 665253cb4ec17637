"""A statement's text as it is shown to people: without its values. What a text does is reading.py's matter."""

import re
from typing import Final

LITERALS: Final = re.compile(
    rb"""(?P<comment>/\*(?:[^*]|\*(?!/))*+(?:\*/)?|--[\s][^\n]*|\#[^\n]*)|(?P<name>`[^`]*+`?)
    |'(?:[^'\\]|\\.|'')*+'?|"(?:[^"\\]|\\.|"")*+"?|\b\d[\w.]*""",
    re.DOTALL | re.VERBOSE,
)
"""And what looks like one and is none."""
ESCAPED_QUOTE: Final = re.compile(rb"""(?<!\\)\\++['"]""")
SHOWN: Final = 200
HEAD: Final = 5
"""Of a text that is shown, so many times as many bytes are looked at."""


def unpacked(text: bytes) -> bytes:
    """A statement, also if it is given as its packet."""
    return text[5:] if text[3:5] == b"\0\x03" else text


def masked(text: bytes, limit: int = SHOWN) -> str:
    """The start of a statement, or of its packet, without its literals and comments."""
    text = unpacked(text)
    return LITERALS.sub(_mask, text[: HEAD * limit]).decode("utf-8", "replace")[:limit]


def _mask(found: "re.Match[bytes]") -> bytes:
    return b" " if found["comment"] is not None else found[0] if found["name"] is not None else b"?"


def masked_safely(text: bytes, limit: int) -> str:
    """As `masked`, in one line, whatever sql_mode says: where a backslash stands before a quotation mark, the rest is left out."""
    head = unpacked(text)[: HEAD * limit]
    doubt = ESCAPED_QUOTE.search(head)
    return " ".join(masked(head if doubt is None else head[: doubt.start()], limit).split())
