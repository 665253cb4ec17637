"""What a statement's text says, where the server's own reports do not. Only texts that a command tag has singled out come here.

Source: PostgreSQL docs, "SQL Syntax: Lexical Structure", "SET", "SET SESSION AUTHORIZATION", "SET TRANSACTION".
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

# Repetitions are possessive (`*+`): what they took they keep. Otherwise Python remembers a way back for every byte of a long text, and
# tries them all, which is a hundred times the text's memory, or quadratic time.
TOKEN: Final = re.compile(
    rb"""
      (?P<space> \s++ | --[^\n]*+ )
    | (?P<comment> /\* )
    | (?P<string> [eE]'(?:[^'\\]++|\\.|'')*+(?:'|\\?\Z) | (?:[uU]&)?'(?:[^']++|'')*+(?:'|\Z) )
    | (?P<quoted> (?:[uU]&)?"(?:[^"]++|"")*+(?:"|\Z) )
    | (?P<dollar> \$(?:[A-Za-z_\x80-\xff][A-Za-z_0-9\x80-\xff]*)?\$ )
    | (?P<word> [A-Za-z_\x80-\xff][A-Za-z_0-9$\x80-\xff]* )
    | (?P<number> [0-9][0-9A-Za-z_.]* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
COMMENT_EDGE: Final = re.compile(rb"/\*|\*/")
BLANK: Final = re.compile(rb"(?:\s++|--[^\n]*+)*+")
WORD: Final = re.compile(rb"\s*+([A-Za-z]*+)")
NAME_START: Final = re.compile(rb'["A-Za-z_\x80-\xff]')

TELLING_WORDS: Final = frozenset(b"set reset discard deallocate commit end prepare rollback abort savepoint release".split())
"""Statements of which the relay keeps the text until the server has said that they ran."""

Change = tuple[str, str | None]
"""A setting's name, and the SQL that establishes it; None: back to its default. The name "*": all of them."""


def first_word(text: bytes, position: int = 0) -> bytes:
    """The first keyword from `position` on, in lower case, or b"" where there is none."""
    match = WORD.match(text, position)
    assert match is not None
    if not match[1]:
        match = WORD.match(text, _start(text, position))
        assert match is not None
    return match[1].lower()


def _start(text: bytes, position: int) -> int:
    """Where the first token from `position` on is: behind spaces and comments."""
    while True:
        match = BLANK.match(text, position)
        assert match is not None
        position = match.end()
        if not text.startswith(b"/*", position):
            return position
        position = _end_of_comment(text, position + 2)


def deallocated_name(text: bytes) -> bytes | None:
    """The statement that a lone DEALLOCATE names; None for anything else, DEALLOCATE ALL among it."""
    if first_word(text) != b"deallocate":
        return None
    words = list(islice(_each_token(text), 1, 5))
    if words and words[-1] == b";":
        words.pop()
    if len(words) == 2 and words[0].lower() == b"prepare":
        del words[0]
    if len(words) != 1 or words[0].lower() == b"all" or not NAME_START.match(words[0]):
        return None
    return identifier(words[0])


def identifier(token: bytes) -> bytes:
    """A name as the server understands it: unquoted ones in lower case."""
    if token.startswith(b'"'):
        return token[1:-1].replace(b'""', b'"')
    return token.lower()


def tokens(text: bytes) -> list[bytes]:
    """The words, strings, numbers and signs of `text`, without spaces and comments, in linear time."""
    return list(_each_token(text))


def _each_token(text: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        assert match is not None
        position = match.end()
        kind = match.lastgroup
        if kind == "comment":
            position = _end_of_comment(text, position)
        elif kind == "dollar":
            end = text.find(match[0], position)
            position = len(text) if end < 0 else end + len(match[0])
            yield text[match.start() : position]
        elif kind != "space":
            yield match[0]


def statements(text: bytes) -> list[list[bytes]]:
    """The tokens of each statement of a simple Query."""
    result: list[list[bytes]] = [[]]
    for token in tokens(text):
        if token == b";":
            result.append([])
        else:
            result[-1].append(token)
    return [statement for statement in result if statement]


def savepoint_name(statement: list[bytes]) -> bytes:
    """The name in SAVEPOINT name, ROLLBACK TO [SAVEPOINT] name."""
    return identifier(statement[-1])


def is_rollback_to(statement: list[bytes]) -> bool:
    """True for ROLLBACK TO and not for ROLLBACK."""
    return any(token.lower() == b"to" for token in statement)


def changes(statement: list[bytes]) -> list[Change]:
    """What a SET or RESET statement that has run means for the session; [] for what ends with the transaction."""
    words = [token.lower() for token in statement]
    if words[0] == b"reset":
        return _reset(words)
    if words[0] != b"set" or len(words) < 2:
        return []
    words, statement = words[1:], statement[1:]
    if words[0] in {b"local", b"constraints", b"transaction"}:
        return []
    if words[:3] == [b"session", b"characteristics", b"as"]:
        return _characteristics(words[3:])
    if words[0] == b"session" and len(words) > 1 and words[1] not in {b"=", b"to", b"authorization"}:
        words, statement = words[1:], statement[1:]
    return _set(words, statement)


def _set(words: list[bytes], statement: list[bytes]) -> list[Change]:
    sql = "SET " + _joined(statement)
    if words[:2] == [b"session", b"authorization"]:
        return [("session_authorization", None if words[2:] == [b"default"] else sql)]
    if words[:2] == [b"time", b"zone"]:
        return [("timezone", None if words[2:] in ([b"default"], [b"local"]) else sql)]
    if words[:2] == [b"xml", b"option"]:
        return [("xmloption", sql)]
    if words[0] == b"names":
        return [("client_encoding", None if words[1:] in ([], [b"default"]) else sql)]
    if words[0] == b"schema":
        return [("search_path", sql)]
    if words[0] == b"seed":
        return []
    if words[0] == b"role":
        return [("role", None if words[1:] == [b"none"] else sql)]
    name, rest = _setting_name(words)
    if not rest:
        return []
    return [(name, None if rest[1:] == [b"default"] else sql)]


def _setting_name(words: list[bytes]) -> tuple[str, list[bytes]]:
    """A setting's name, dots included, and what follows it."""
    end = 1
    while end + 1 < len(words) and words[end] == b".":
        end += 2
    return ".".join(identifier(word).decode("utf-8", "surrogateescape") for word in words[:end:2]), words[end:]


def _reset(words: list[bytes]) -> list[Change]:
    if words[1:] == [b"all"]:
        return [("*", None)]
    if words[1:] == [b"time", b"zone"]:
        return [("timezone", None)]
    if words[1:] == [b"session", b"authorization"]:
        return [("session_authorization", None)]
    return [(_setting_name(words[1:])[0], None)] if len(words) > 1 else []


def _characteristics(words: list[bytes]) -> list[Change]:
    """SET SESSION CHARACTERISTICS AS TRANSACTION mode, ... is three settings under another name."""
    text = b" ".join(words)
    found: list[Change] = []
    level = re.search(rb"isolation level (serializable|repeatable read|read committed|read uncommitted)", text)
    if level:
        found.append(("default_transaction_isolation", f"SET default_transaction_isolation = '{level[1].decode()}'"))
    access = re.search(rb"read (only|write)", text)
    if access:
        found.append(("default_transaction_read_only", f"SET default_transaction_read_only = {'on' if access[1] == b'only' else 'off'}"))
    if b"deferrable" in words:
        value = "off" if b"not deferrable" in text else "on"
        found.append(("default_transaction_deferrable", f"SET default_transaction_deferrable = {value}"))
    return found


def _joined(statement: list[bytes]) -> str:
    """The statement again, its tokens apart; every byte survives, as in messages.text()."""
    parts: list[bytes] = []
    before = b"."
    for token in statement:
        parts.append(token if b"." in {token, before} else b" " + token)
        before = token
    return b"".join(parts).decode("utf-8", "surrogateescape")


def _end_of_comment(text: bytes, position: int) -> int:
    """PostgreSQL's comments nest."""
    depth = 1
    while depth:
        edge = COMMENT_EDGE.search(text, position)
        if edge is None:
            return len(text)
        depth += 1 if edge[0] == b"/*" else -1
        position = edge.end()
    return position


def setter(name: str, value: str) -> str:
    """SQL that gives the setting `name` the value `value`, written as the server reports it (lists, too: "a, b")."""
    return f"SELECT pg_catalog.set_config({literal(name)}, {literal(value)}, false)"


def literal(text: str) -> str:
    """A string constant that means `text` whatever standard_conforming_strings is."""
    quoted = text.replace("'", "''")
    if "\\" in quoted:
        doubled = quoted.replace("\\", "\\\\")
        return f"E'{doubled}'"
    return f"'{quoted}'"
