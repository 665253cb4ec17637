"""Texts that differ in their values only: where one of them is known to be harmless, the others need not be read.

Programs send the same queries again and again, but for the numbers and strings in them. A text's *shape* is what is left without these;
what stands before its brackets must be equal as well, for it may be a function.
"""

import re
from typing import Final

from dualpool.mysql.reading import MODES_UNKNOWN, Reading, forget_readings
from dualpool.sql_text import Lexis, mysql_lexis

DIGITS: Final = b"0123456789"
_OTHERS_IN_SHAPE: Final = re.compile(rb"""["#;@$\x80-\xff]|--|/\*|\A\s*+set\b""", re.IGNORECASE)
_CALLS: Final = re.compile(rb"(?=((?:[^\w$`.]|\A)[\w$`.]++\s*+\())")
MAX_SHAPES: Final = 4096
MAX_CALLS: Final = 16
Calls = tuple[tuple[bytes, int], ...]
"""What stands before brackets in a text, with the byte before it, and how often."""


def without_strings(text: bytes) -> bytes:
    """`text` without what stands between its single quotation marks. b"" where that is not certain."""
    parts = text.split(b"'")
    return b"''".join(parts[::2]) if len(parts) & 1 and b"\\" not in text else b""


def shape(text: bytes) -> tuple[bytes, Calls]:
    """`text` without its strings and digits, and what stands before its brackets. Texts of one shape differ in values only.

    For none of the words that matter has digits, but for functions: these must be the same.
    """
    if b"'" in text:
        text = without_strings(text)
    calls: dict[bytes, int] = {}
    for found in dict.fromkeys(_CALLS.findall(text)):
        calls[found] = text.count(found)
    return text.translate(None, DIGITS), tuple(calls.items())


def may_vary(text: bytes, reading: Reading) -> bool:
    """Is each text with the shape of this one as harmless as it is?

    Then each quotation mark begins or ends a string: there is no backslash, no other quotation, no comment, nothing outside ASCII in front
    of one.
    """
    if reading.marks or reading.calls_users:
        return False
    found, calls = shape(text)
    if not found or len(calls) > MAX_CALLS or _OTHERS_IN_SHAPE.search(found):
        return False
    return all(part.count(b"`") % 2 == 0 for part in found.split(b"''"))


class Texts:
    """Of sessions that read alike: how they read, and the shapes of harmless texts that they have sent.

    `plain`: of those without strings and brackets, which is all that the hot path looks at itself.
    """

    __slots__ = ("lexis", "plain", "shapes")

    def __init__(self, lexis: Lexis | None) -> None:
        self.lexis = lexis
        self.plain: set[bytes] = set()
        self.shapes: dict[bytes, tuple[Calls, ...]] = {}

    def remember(self, text: bytes, reading: Reading) -> None:
        """Remember the shape of `text`, if it is harmless whatever its values are."""
        if not may_vary(text, reading):
            return
        if len(self.plain) + len(self.shapes) >= MAX_SHAPES:
            self.forget()
        found, calls = shape(text)
        if b"'" in text or b"(" in text:
            self.shapes[found] = (calls, *self.shapes.get(found, ())[: MAX_CALLS - 1])
        else:
            self.plain.add(found)

    def knows(self, text: bytes) -> bool:
        """Has a text of the same shape been remembered? (`shape`, but quicker.)"""
        if b"'" in text:
            text = without_strings(text)
        for calls in self.shapes.get(text.translate(None, DIGITS), ()):
            for call, times in calls:
                if text.count(call) != times:
                    break
            else:
                return True
        return False

    def forget(self) -> None:
        """Begin again."""
        self.plain.clear()
        self.shapes.clear()


_texts: dict[tuple[str, str, str, str], Texts] = {}


def texts_of(charset: str, modes: str, default_modes: str, flavour: str) -> Texts:
    """The Texts of sessions with these settings, as SQL (settings of session_sql.py; "" for the default, which is `default_modes`)."""
    key = (charset, modes, default_modes, flavour)
    found = _texts.get(key)
    if found is None:
        names = modes[1:-1] if modes[:1] == "'" else default_modes if not modes or modes.startswith("CONCAT_WS") else "ORACLE"
        lexis = mysql_lexis(charset.strip("'"), names, flavour)
        if lexis is not None and names == MODES_UNKNOWN:
            lexis = mysql_lexis(charset.strip("'"), "", MODES_UNKNOWN)
        if len(_texts) >= MAX_SHAPES:
            _texts.clear()
        found = _texts[key] = Texts(lexis)
    return found


def forget() -> None:
    """Every text is to be read again: what one of them does is not what was known."""
    forget_readings()
    for texts in _texts.values():
        texts.forget()
