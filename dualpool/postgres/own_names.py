"""Texts that mean prepared statements by the names that their client gave them: EXECUTE, PREPARE, pg_prepared_statements.

A server connection knows a client's statements by names of ours, and those of other clients beside them. Such a text is not rewritten:
while it runs, the client's statements are there under their own names, and what is not the client's is closed first if it could be seen.
"""

import re
from collections.abc import Collection, Iterator
from typing import Final

from dualpool.sql_text import MAX_READ, POSTGRES, QUOTED, WORD, Lexed, lex, lexis

VIEW: Final = b"pg_prepared_statement"
"""The view pg_prepared_statements, and the function under it."""
NAMING: Final = frozenset((b"execute", b"prepare"))
NAMES_ANY: Final = re.compile(rb"\b(?:execute|prepare)(?:[\s\"]|/\*|--|u&)")
PLAIN: Final = lexis(POSTGRES)
"""For texts of which nobody can tell how they are read. (One prepared statement too many does no harm.)"""
ESCAPED: Final = b'u&"'
"""The start of a name that may be any other one."""


def may_name(text: bytes, lexed: Lexed | None) -> bool:
    """Must `text` be asked the questions below? `lexed`: its tokens; None: nobody knows what they are."""
    if lexed is None:
        return (len(text) <= MAX_READ and NAMES_ANY.search(text.lower()) is not None) or shows_all(text, None)
    return any(True for _ in _named(lexed)) or shows_all(text, lexed)


def shows_all(text: bytes, lexed: Lexed | None) -> bool:
    """May `text` look at all prepared statements of the session? (The name may stand in a string, too: a body that is run.)"""
    lower = text.lower()
    if VIEW in lower:
        return True
    if ESCAPED not in lower:
        return False
    return lexed is None or any(kind == QUOTED and VIEW in word for kind, word in zip(lexed.kinds, lexed.words, strict=True))


def may_copy(text: bytes, lexed: Lexed | None) -> bool:
    """May `text` begin a COPY FROM STDIN?"""
    return b"stdin" in (text.lower() if lexed is None else lexed.words)


def names_in(text: bytes, lexed: Lexed | None, names: Collection[bytes]) -> list[bytes]:
    """Those of `names` that an EXECUTE or PREPARE in `text` means. All of them, where that is not certain."""
    if not names or (lexed is None and len(text) > MAX_READ):
        return []
    lexed = lexed or lex(text, PLAIN)
    if lexed is None:
        return list(names)
    return [name for name in dict.fromkeys(_named(lexed)) if name in names]


def _named(lexed: Lexed) -> Iterator[bytes]:
    kinds, words = lexed.kinds, lexed.words
    for index in range(1, len(kinds)):
        if kinds[index] in (WORD, QUOTED) and kinds[index - 1] == WORD and words[index - 1] in NAMING:
            yield words[index]
