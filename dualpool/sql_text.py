"""The one lexer of SQL texts, for both engines' dialects: where the tokens and statements of a text are, as its server sees them.

What a text means depends on the session: a backslash is an escape or a letter, a double quote begins a name or a string, a byte 0x5C is
the second half of a character or a backslash. `Lexis` holds these settings. `lex` answers None where it is not certain: an unterminated
string, bytes that are invalid in their encoding, a text over MAX_READ. The caller must then expect everything of the text.

The time is linear in the length of the text. Repetitions are possessive (`*+`): what they took they keep. Otherwise Python would remember
a way back for every byte of a long text.

Sources: PostgreSQL, src/backend/parser/scan.l and docs "Lexical Structure"; MySQL Reference Manual, "Language Structure", sql/sql_lex.cc.
"""

import re
from collections.abc import Iterator
from typing import Final

MAX_READ: Final = 1 << 15
"""Bytes. A longer text is not read: reading takes the time of all clients."""

# Kinds of tokens.
WORD: Final = 1
"""A keyword or a name without quotes; its word is in lower case."""
QUOTED: Final = 2
"""A name in quotes; its word is the name that it means."""
STRING: Final = 3
NUMBER: Final = 4
PARAMETER: Final = 5
SIGN: Final = 6
"""One byte of an operator, a bracket, a comma, ..."""

# Encodings in which a later byte of a character may be that of an ASCII sign, by Python's names, with the pattern of such a character.
_PAIRS: Final = {
    "shift_jis": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    "cp932": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    "shift_jis_2004": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    "big5": rb"[\xa1-\xf9][\x40-\x7e\xa1-\xfe]",
    "cp950": rb"[\x81-\xfe][\x40-\x7e\xa1-\xfe]",
    "gbk": rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]",
    "cp949": rb"[\x81-\xfe][\x41-\x5a\x61-\x7a\x81-\xfe]",
    "johab": rb"[\x84-\xf9][\x31-\x7e\x81-\xfe]",
    "gb18030": rb"[\x81-\xfe](?:[\x30-\x39][\x81-\xfe][\x30-\x39]|[\x40-\x7e\x80-\xfe])",
}
_BLANKED: Final = {name: re.compile(pattern) for name, pattern in _PAIRS.items()}


class Dialect:
    """How one engine's texts are cut into tokens. `scan` fills in a Lexed and returns False where it is not certain."""

    __slots__ = ()

    def scan(self, text: bytes, lexis: "Lexis", found: "Lexed") -> bool:
        """Append the tokens of `text` (multi-byte characters blanked) to `found`, whose `source` is the text itself."""
        raise NotImplementedError


class Lexis:
    """The settings by which a session reads a text. Immutable; equal ones are one object (see `lexis`)."""

    __slots__ = ("backslash", "codec", "dialect", "flags")

    def __init__(self, dialect: Dialect, codec: str, backslash: bool, flags: frozenset[str]) -> None:
        self.dialect = dialect
        self.codec = codec
        """Python's name of the text's encoding; "" if each byte is a character, or ASCII's bytes are never a part of one."""
        self.backslash = backslash
        """In an ordinary string a backslash is an escape."""
        self.flags = flags
        """What else the dialect distinguishes."""

    def __repr__(self) -> str:
        return f"<Lexis {type(self.dialect).__name__} {self.codec or 'bytes'} {'backslash ' if self.backslash else ''}{sorted(self.flags)}>"


_known: dict[tuple[Dialect, str, bool, frozenset[str]], Lexis] = {}


def lexis(dialect: Dialect, codec: str = "", backslash: bool = False, flags: frozenset[str] = frozenset()) -> Lexis:
    """The one Lexis with these settings. There are as many as there are encodings and flags, so they are kept."""
    key = (dialect, codec, backslash, flags)
    found = _known.get(key)
    if found is None:
        found = _known[key] = Lexis(dialect, codec, backslash, flags)
    return found


class Lexed:
    """The tokens of a text, in parallel lists. Comments and spaces are left out."""

    __slots__ = ("ends", "kinds", "source", "starts", "words")

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.kinds: list[int] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.words: list[bytes] = []
        """A WORD in lower case; of QUOTED the name, of a STRING or NUMBER its source, of the rest its bytes."""

    def __len__(self) -> int:
        return len(self.kinds)

    def add(self, kind: int, start: int, end: int, word: bytes) -> None:
        """One more token."""
        self.kinds.append(kind)
        self.starts.append(start)
        self.ends.append(end)
        self.words.append(word)

    def is_sign(self, index: int, sign: bytes) -> bool:
        """Is token `index` there, and this sign?"""
        return index < len(self.kinds) and self.kinds[index] == SIGN and self.words[index] == sign

    def is_word(self, index: int, word: bytes) -> bool:
        """Is token `index` there, and this word without quotes?"""
        return index < len(self.kinds) and self.kinds[index] == WORD and self.words[index] == word

    def statements(self) -> Iterator[tuple[int, int]]:
        """The first token of each statement and the one behind its last. A semicolon in brackets ends none (CREATE RULE)."""
        start = depth = 0
        kinds, words = self.kinds, self.words
        for index, kind in enumerate(kinds):
            if kind != SIGN:
                continue
            word = words[index]
            if word == b"(":
                depth += 1
            elif word == b")":
                depth -= 1
            elif word == b";" and depth <= 0:
                if index > start:
                    yield start, index
                start = index + 1
        if len(kinds) > start:
            yield start, len(kinds)


def lex(text: bytes, reading: Lexis) -> Lexed | None:
    """The tokens of `text`; None where it is not certain what its server would see."""
    if len(text) > MAX_READ:
        return None
    found = Lexed(text)
    if reading.codec and not text.isascii():
        try:
            text.decode(reading.codec)
        except UnicodeDecodeError:
            return None
        blanked = _BLANKED.get(reading.codec)
        if blanked is not None:
            text = blanked.sub(_blank, text)
    return found if reading.dialect.scan(text, reading, found) else None


def _blank(character: re.Match[bytes]) -> bytes:
    """A multi-byte character as letters of the same number of bytes."""
    return b"\xff" * len(character[0])


# --------------------------------------------------------------------------------------------------------------- PostgreSQL

# Two strings with white space between them that has a line break are one string, of the first one's kind (scan.l: quotecontinue).
_CONTINUE: Final = rb"(?:[ \t\f\v]++|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]++|--[^\n\r]*+[\n\r])*+'"
_PLAIN: Final = rb"(?:[^']++|'')*+'(?:" + _CONTINUE + rb"(?:[^']++|'')*+')*+"
_ESCAPED: Final = rb"(?:[^'\\]++|\\.|'')*+'(?:" + _CONTINUE + rb"(?:[^'\\]++|\\.|'')*+')*+"
_BITS: Final = rb"[bBxX]'[^']*+'(?:" + _CONTINUE + rb"[^']*+')*+"


def _postgres_pattern(string: bytes) -> re.Pattern[bytes]:
    return re.compile(
        rb"""
          (?P<space>(?:[ \t\n\r\f\v]++|--[^\n\r]*+)++)
        | (?P<comment>/\*)
        | (?P<string>(?:[eE]'%b|[uU]&'%b|%b|'%b))
        | (?P<unicode>[uU]&"(?:[^"]++|"")++")
        | (?P<quoted>"(?:[^"]++|"")++")
        | (?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z_0-9\x80-\xff]*+)?\$)
        | (?P<parameter>\$[0-9]++(?![A-Za-z_\x80-\xff]))
        | (?P<word>[A-Za-z_\x80-\xff][A-Za-z_0-9$\x80-\xff]*+)
        | (?P<number>(?:0[xXoObB][0-9A-Fa-f_]++|(?:[0-9][0-9_]*+(?:\.(?!\.)[0-9_]*+)?|\.[0-9][0-9_]*+)(?:[eE][+-]?[0-9]++)?)
           (?![A-Za-z_\x80-\xff]))
        | (?P<sign>[^'"0-9])
        """
        % (_ESCAPED, _PLAIN, _BITS, string),
        re.VERBOSE | re.DOTALL,
    )


_EDGE_OF_COMMENT: Final = re.compile(rb"/\*|\*/")
_ESCAPE_OF_NAME: Final = re.compile(r"(\\\\)|\\([0-9A-Fa-f]{4})|\\\+([0-9A-Fa-f]{6})|(\\)")


class Postgres(Dialect):
    """PostgreSQL, 13 and newer."""

    __slots__ = ("_escaping", "_standard")

    def __init__(self) -> None:
        self._standard = _postgres_pattern(_PLAIN)
        self._escaping = _postgres_pattern(_ESCAPED)

    def scan(self, text: bytes, lexis: Lexis, found: Lexed) -> bool:
        match = (self._escaping if lexis.backslash else self._standard).match
        source = found.source
        position, end = 0, len(text)
        while position < end:
            token = match(text, position)
            if token is None:
                return False
            start, position = position, token.end()
            kind = token.lastgroup
            if kind == "word":
                if found.kinds and found.kinds[-1] == QUOTED and source[start:position].lower() == b"uescape":
                    return False  # the escapes of the name before it are others
                found.add(WORD, start, position, source[start:position].lower())
            elif kind == "sign":
                found.add(SIGN, start, position, source[start:position])
            elif kind == "string":
                if lexis.backslash and text[start] in b"uU":
                    return False  # refused there (scan.l: unsafe use of string constant with Unicode escapes)
                found.add(STRING, start, position, source[start:position])
            elif kind == "number":
                found.add(NUMBER, start, position, source[start:position])
            elif kind == "parameter":
                found.add(PARAMETER, start, position, source[start:position])
            elif kind == "quoted":
                found.add(QUOTED, start, position, source[start + 1 : position - 1].replace(b'""', b'"'))
            elif kind == "comment":
                position = _end_of_comment(text, position)
                if position < 0:
                    return False
            elif kind == "dollar":
                closing = text.find(token[0], position)
                if closing < 0:
                    return False
                position = closing + len(token[0])
                found.add(STRING, start, position, source[start:position])
            elif kind == "unicode" and not self._add_unicode(source, lexis, start, position, found):
                return False
        return True

    def _add_unicode(self, source: bytes, lexis: Lexis, start: int, end: int, found: Lexed) -> bool:
        r"""U&"d\0061ta"."""
        name = source[start + 3 : end - 1].replace(b'""', b'"')
        if lexis.backslash:
            return False
        if b"\\" in name:
            decoded = _unescaped(name)
            if decoded is None:
                return False
            name = decoded
        found.add(QUOTED, start, end, name)
        return True


def _unescaped(name: bytes) -> bytes | None:
    """The name with its Unicode escapes resolved; None for what a server refuses. Names with other letters than ASCII's are not certain."""
    if not name.isascii():
        return None
    parts: list[str] = []
    position, text = 0, name.decode()
    for escape in _ESCAPE_OF_NAME.finditer(text):
        parts.append(text[position : escape.start()])
        position = escape.end()
        if escape[4]:
            return None
        code = int(escape[2] or escape[3], 16) if not escape[1] else ord("\\")
        if not 0 < code < 0x110000 or 0xD800 <= code < 0xE000:
            return None
        parts.append(chr(code))
    parts.append(text[position:])
    return "".join(parts).encode()


def _end_of_comment(text: bytes, position: int) -> int:
    """Where a comment ends whose beginning is in front of `position`; -1 if it does not. PostgreSQL's comments nest."""
    depth = 1
    while depth:
        edge = _EDGE_OF_COMMENT.search(text, position)
        if edge is None:
            return -1
        depth += 1 if edge[0] == b"/*" else -1
        position = edge.end()
    return position


POSTGRES: Final = Postgres()
