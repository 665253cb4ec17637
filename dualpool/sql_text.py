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

VERTICAL_TAB: Final = "vertical tab"
"""A flag of PostgreSQL's: a vertical tab is white space (16 and newer). Older ones refuse it outside of strings (scan.l: space)."""

# Between the quotation marks of two strings that are one, of the first one's kind: white space with a line break (scan.l: quotecontinue).
_CONTINUE: Final = rb"(?:[ \t\f%b]++|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f%b]++|--[^\n\r]*+[\n\r])*+'"


def _postgres_pattern(backslash: bool, tab: bytes) -> re.Pattern[bytes]:
    """The tokens of PostgreSQL. `tab`: the vertical tab, where it is white space."""
    between = _CONTINUE % (tab, tab)
    plain = rb"(?:[^']++|'')*+'(?:%b(?:[^']++|'')*+')*+" % between
    escaped = rb"(?:[^'\\]++|\\.|'')*+'(?:%b(?:[^'\\]++|\\.|'')*+')*+" % between
    bits = rb"[bBxX]'[^']*+'(?:%b[^']*+')*+" % between
    return re.compile(
        rb"""
          (?P<space>(?:[ \t\n\r\f%b]++|--[^\n\r]*+)++)
        | (?P<comment>/\*)
        | (?P<string>(?:[eE]'%b|[uU]&'%b|%b|'%b))
        | (?P<unicode>[uU]&"(?:[^"]++|"")++")
        | (?P<quoted>"(?:[^"]++|"")++")
        | (?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z_0-9\x80-\xff]*+)?\$)
        | (?P<parameter>\$[0-9]++(?![A-Za-z_\x80-\xff]))
        | (?P<word>[A-Za-z_\x80-\xff][A-Za-z_0-9$\x80-\xff]*+)
        | (?P<number>(?:0[xXoObB][0-9A-Fa-f_]++|(?:[0-9][0-9_]*+(?:\.(?!\.)[0-9_]*+)?|\.[0-9][0-9_]*+)(?:[eE][+-]?[0-9]++)?)
           (?![A-Za-z_\x80-\xff]))
        | (?P<sign>[^'"0-9\v])
        """
        % (tab, escaped, plain, bits, escaped if backslash else plain),
        re.VERBOSE | re.DOTALL,
    )


_PLAIN_PART: Final = re.compile(rb"((?:[^']++|'')*+)'", re.DOTALL)
_ESCAPED_PART: Final = re.compile(rb"((?:[^'\\]++|\\.|'')*+)'", re.DOTALL)
_NEXT_PART: Final = re.compile(_CONTINUE % (b"\v", b"\v"))
_ESCAPE: Final = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_LETTERS: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_EDGE_OF_COMMENT: Final = re.compile(rb"/\*|\*/")
_ESCAPE_OF_NAME: Final = r"({0}{0})|{0}([0-9A-Fa-f]{{4}})|{0}\+([0-9A-Fa-f]{{6}})|({0})"
_UESCAPE: Final = re.compile(rb"(?:[ \t\n\r\f]++|--[^\n\r]*+)*+uescape[ \t\n\r\f]*+'([^'\"+0-9A-Fa-f\s\x80-\xff])'", re.IGNORECASE)
"""(With a comment of the other kind in it, the text is not certain.)"""


class Postgres(Dialect):
    """PostgreSQL, 13 and newer."""

    __slots__ = ("_patterns",)

    def __init__(self) -> None:
        self._patterns = {
            (backslash, tab): _postgres_pattern(backslash, b"\v" if tab else b"") for backslash in (False, True) for tab in (False, True)
        }

    def scan(self, text: bytes, lexis: Lexis, found: Lexed) -> bool:
        match = self._patterns[lexis.backslash, VERTICAL_TAB in lexis.flags].match
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
            elif kind == "unicode":
                behind = _UESCAPE.match(source, position)
                if not self._add_unicode(source, start, position, found, behind):
                    return False
                if behind is not None:
                    position = behind.end()
        return True

    def _add_unicode(self, source: bytes, start: int, end: int, found: Lexed, behind: re.Match[bytes] | None) -> bool:
        r"""U&"d\0061ta", or U&"d!0061ta" UESCAPE '!', where `behind` is what follows the name."""
        name = source[start + 3 : end - 1].replace(b'""', b'"')
        escape = b"\\" if behind is None else behind[1]
        end = end if behind is None else behind.end()
        if escape in name:
            decoded = unescaped(name, escape)
            if decoded is None:
                return False
            name = decoded
        found.add(QUOTED, start, end, name)
        return True


def unescaped(name: bytes, escape: bytes = b"\\") -> bytes | None:
    """The name with its Unicode escapes resolved; None for what a server refuses. Names with other letters than ASCII's are not certain."""
    if not name.isascii():
        return None
    parts: list[str] = []
    position, text = 0, name.decode()
    mark = escape.decode()
    for found in re.finditer(_ESCAPE_OF_NAME.format(re.escape(mark)), text):
        parts.append(text[position : found.start()])
        position = found.end()
        if found[4]:
            return None
        code = int(found[2] or found[3], 16) if not found[1] else ord(mark)
        if not 0 < code < 0x110000 or 0xD800 <= code < 0xE000:
            return None
        parts.append(chr(code))
    parts.append(text[position:])
    return "".join(parts).encode()


def string_value(token: bytes, backslash: bool) -> bytes | None:
    r"""What a PostgreSQL string means, in its text's encoding; None where that is not certain. `backslash`: an escape in ordinary strings.

    Unicode escapes (U&'d\0061ta', E'\u0061') become UTF-8. Source: docs, "String Constants"; scan.l.
    """
    kind = token[:1]
    if kind == b"$":
        tag = token.index(b"$", 1) + 1
        return token[tag:-tag]
    if kind == b"'":
        return _joined(token, 1, escapes=backslash)
    if kind in b"eE":
        return _joined(token, 2, escapes=True)
    if kind in b"uU":
        value = _joined(token, 3, escapes=False)
        return value if b"\\" not in value else unescaped(value)
    return None


def _joined(token: bytes, position: int, *, escapes: bool) -> bytes:
    """The parts of a string from behind its first quotation mark on."""
    part, parts = _ESCAPED_PART if escapes else _PLAIN_PART, []
    while (found := part.match(token, position)) is not None:
        parts.append(found[1].replace(b"''", b"'") if not escapes else _ESCAPE.sub(_meaning, found[1].replace(b"''", b"'")))
        following = _NEXT_PART.match(token, found.end())
        if following is None:
            break
        position = following.end()
    return b"".join(parts)


def _meaning(escape: re.Match[bytes]) -> bytes:
    """Of a backslash and what follows it."""
    octal, hexadecimal, short, long, letter = escape.groups()
    code = short or long
    if octal:
        return bytes((int(octal, 8) & 255,))
    if hexadecimal:
        return bytes((int(hexadecimal, 16),))
    if code:
        number = int(code, 16)
        return chr(number).encode("utf-8", "replace") if number < 0x110000 else b""
    return _LETTERS.get(letter, letter)


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


# -------------------------------------------------------------------------------------------------------- MySQL and MariaDB

MAX_TOKENS: Final = 10_000
"""Beyond these a text is not certain. (Literals that stand in a list count as one.)"""
VARIABLE: Final = 7
"""A user variable (or the host of an account: `'app'@'%'`); its word is the name in UTF-8, in lower case, without the `@`."""

_IDENT: Final = rb"[A-Za-z0-9_$\x80-\xff]"
_BLANK: Final = rb"[ \t\n\r\f\v]"
_NUMBER_OF_LIST: Final = rb"[-+]?+[0-9]++(?:\.[0-9]++)?+"
_BODIES: Final = {
    # By the quotation mark: what a string is behind its first one, with and without escapes by backslash.
    b"'": (rb"(?:[^'\\]++|\\.|'')*+'", rb"(?:[^']++|'')*+'"),
    b'"': (rb'(?:[^"\\]++|\\.|"")*+"', rb'(?:[^"]++|"")*+"'),
}
_NAME_IN: Final = {b"`": rb"(?:[^`\x00]++|``)*+`", b'"': rb'(?:[^"\x00]++|"")*+"'}


def _mysql_pattern(backslash: bool, ansi: bool) -> re.Pattern[bytes]:
    """One token and the space behind it; a name with what follows behind its dots.

    What begins with a dollar sign is none of them: it is a name, or (MySQL 9) the mark of a string.
    """
    single, double = (_BODIES[mark][not backslash] for mark in (b"'", b'"'))
    value = _BLANK + rb"*+(?:" + _NUMBER_OF_LIST + rb"|'" + single + rb"|(?i:null|true|false))" + _BLANK + rb"*+"
    row = _BLANK + rb"*+\(" + value + rb"(?:," + value + rb")*+\)" + _BLANK + rb"*+"
    return re.compile(
        rb"""(?:
          (?P<word>(?:(?![xXbBnN]')[A-Za-z_\x80-\xff]|(?!0[xb]|[0-9]++(?!I)|[0-9]++[eE][0-9+-])[0-9])I*+(?:\.I++)*+)
        | (?P<list>(?:,(?:VALUE(?=[,);])|ROW(?=[,;]|\Z|[oO][nN]\b))){2,}+)
        | (?P<number>(?:0x[0-9A-Fa-f]++|0b[01]++|[0-9]++[eE][+-]?+[0-9]++|[0-9]++(?!I)(?:\.[0-9]*+(?:[eE][+-]?+[0-9]++)?+)?+
             |\.[0-9]++(?:[eE][+-]?+[0-9]++)?+)(?!I))
        | (?P<sign>[!%&()+,.;<=>\[\]^{|}~]|\*|:=|:|-(?!-[\x01-\x20\x7f]|-\Z)|/(?!\*))
        | (?P<string>'SINGLE|[xX]'[0-9A-Fa-f]*+'|[bB]'[01]*+'|[nN]'SINGLE DOUBLE)
        | (?P<quoted>(?:`NAME ANSI)(?:\.(?![0-9])I++)*+)
        | (?P<variable>@(?:[A-Za-z0-9_.$]++(?![\x80-\xff])|`NAME|'[^'\\\x00]++'(?!')|"[^"\\\x00]++"(?!")))
        | (?P<system>@@(?=[A-Za-z_`]))
        | (?P<parameter>\?)
        | (?P<executed>/\*!(?:[0-9]{5}(?!I)|(?![0-9])))
        | (?P<space>(?=[ \t\n\r\f\v\#]|--|/\*))
        )(?:[ \t\n\r\f\v]++|\#[^\n\x00]*+(?:\n|\Z)|--(?=[\x01-\x20\x7f]|\Z)[^\n\x00]*+(?:\n|\Z)
             |/\*(?!M?!|m!|\+)[^*]*+(?:\*(?!/)[^*]*+)*+\*/|/\*\+[^*'"`]*+(?:\*(?!/)[^*'"`]*+)*+\*/)*+
        """.replace(b"DOUBLE", b"" if ansi else rb'|"' + double)
        .replace(b"ANSI", rb'|"' + _NAME_IN[b'"'] if ansi else b"")
        .replace(b"SINGLE", single)
        .replace(b"NAME", _NAME_IN[b"`"])
        .replace(b"VALUE", value)
        .replace(b"ROW", row)
        .replace(b"(?!I)", b"(?!" + _IDENT + b")")
        .replace(b"I++", _IDENT + b"++")
        .replace(b"I*+", _IDENT + b"*+"),
        re.VERBOSE | re.DOTALL,
    )


NAMES_OF_GROUPS: Final = frozenset(("word", "quoted"))
_END_OF_NAME: Final = {mark: re.compile(mark + body) for mark, body in _NAME_IN.items()}
KINDS_OF_GROUPS: Final = {
    "word": WORD, "quoted": QUOTED, "string": STRING, "number": NUMBER, "parameter": PARAMETER, "sign": SIGN, "list": SIGN, "system": SIGN,
    "variable": VARIABLE, "executed": SIGN,
}  # fmt: skip
EXECUTED_BY_ALL: Final = 50_700
"""An executable comment below this version is carried out by each MySQL since 5.7 and each MariaDB since 10. MariaDB leaves out others."""


class MySQL(Dialect):
    """MySQL 5.7 and newer, MariaDB 10 and newer.

    `Lexis.flags`: "ansi" (ANSI_QUOTES), and "names:" with Python's name of the encoding by which names are read; without one a letter
    outside ASCII is not certain in a name without quotes. Strings need none where no byte of a character can be that of an ASCII sign:
    there a server takes invalid bytes one by one (sql_lex.cc, get_text). In quoted names it skips by the first byte of a character.
    """

    __slots__ = ("_patterns",)

    def __init__(self) -> None:
        self._patterns = {(escapes, ansi): _mysql_pattern(escapes, ansi) for escapes in (False, True) for ansi in (False, True)}

    def scan(self, text: bytes, lexis: Lexis, found: Lexed) -> bool:
        if lexis.codec and lexis.backslash and b"\\\xff" in text:
            return False  # a backslash takes one byte, which leaves the rest of the character behind it
        codec = next((flag[6:] for flag in lexis.flags if flag.startswith("names:")), "")
        pattern = self._patterns[lexis.backslash, "ansi" in lexis.flags]
        following = pattern.scanner(text).match  # type: ignore[attr-defined]
        source = found.source
        add_kind, add_start, add_end, add_word = found.kinds.append, found.starts.append, found.ends.append, found.words.append
        position, end, executed = 0, len(text), False
        for _ in range(MAX_TOKENS):
            if position == end:
                return not executed
            token = following()
            if token is None:
                return False
            kind = token.lastgroup
            if kind == "space":
                if token.end() == position:
                    return False
                position = token.end()
                continue
            start, position = position, token.end()
            over = token.end(kind)
            word = source[start:over]
            number = KINDS_OF_GROUPS[kind]
            if kind in NAMES_OF_GROUPS:
                if not word.isascii() or b"." in word or number == QUOTED:
                    if not _add_name(found, word, start, number == QUOTED, codec):
                        return False
                    continue
                word = word.lower()
            elif kind == "sign":
                if executed and word == b"*" and text.startswith(b"/", over):
                    executed = False
                    position = over + 1
                    following = pattern.scanner(text, position).match  # type: ignore[attr-defined]
                    continue
            elif kind == "list":
                # A comma and literals, many times: one comma, for readers of lists.
                word = b","
            elif kind == "variable":
                variable = _variable(word[1:], codec)
                if variable is None:
                    return False
                word = variable
            elif kind == "executed":
                if executed or (over - start > 3 and int(word[3:]) >= EXECUTED_BY_ALL):
                    return False
                executed = True
                continue
            add_kind(number)
            add_start(start)
            add_end(over)
            add_word(word)
        return False


def _add_name(found: Lexed, text: bytes, start: int, quoted: bool, codec: str) -> bool:
    """Add a name and those behind its dots, whatever these look like. False where its letters are not certain."""
    position = 0
    if quoted:
        mark = text[:1]
        position = _END_OF_NAME[mark].match(text).end()  # type: ignore[union-attr]
        name = text[1 : position - 1].replace(mark + mark, mark)
        if not name.isascii() and not _is_name(name, codec, True):
            return False
        found.add(QUOTED, start, start + position, name)
        if position == len(text):
            return True
        found.add(SIGN, start + position, start + position + 1, b".")
        position += 1
    for name in text[position:].split(b"."):
        if not name.isascii() and not _is_name(name, codec, False):
            return False
        if position and found.words[-1] != b".":
            found.add(SIGN, start + position - 1, start + position, b".")
        found.add(WORD, start + position, start + position + len(name), name.lower() if name.isascii() else name)
        position += len(name) + 1
    return True


def _is_name(name: bytes, codec: str, quoted: bool) -> bool:
    """Does the server read these letters, some outside ASCII, as a name of just these bytes?"""
    if not codec:
        return quoted
    if codec == "utf8mb3":
        if max(name) >= 0xF0:
            return False
        codec = "utf-8"
    try:
        name.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _variable(name: bytes, codec: str) -> bytes | None:
    """A user variable's name in UTF-8 and lower case; None where its letters are not known."""
    mark = name[:1]
    if mark in (b"`", b"'", b'"'):
        name = name[1:-1].replace(mark + mark, mark)
    if name.isascii():
        return name.lower()
    if not codec or not _is_name(name, codec, True):
        return None
    return name.decode("utf-8" if codec == "utf8mb3" else codec).lower().encode()


MYSQL: Final = MySQL()
_EUC: Final = {"ujis": "euc_jp", "eucjpms": "euc_jp", "euckr": "euc_kr", "gb2312": "gb2312"}
_UTF8: Final = {"utf8mb4": "utf-8", "utf8": "utf8mb3", "utf8mb3": "utf8mb3"}
_PAIRED: Final = {"sjis": "shift_jis", "cp932": "cp932", "big5": "big5", "gbk": "gbk", "gb18030": "gb18030"}
_BYTES: Final = frozenset(
    (
        *("latin1", "latin2", "latin5", "latin7", "ascii", "binary", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866"),
        *("dec8", "hp8", "greek", "hebrew", "tis620", "koi8r", "koi8u", "keybcs2", "macce", "macroman", "geostd8", "armscii8"),
    )
)
"""Character sets of one byte for each character, ASCII's among them. (swe7 has letters in the place of some signs.)"""


def mysql_lexis(charset: str, modes: str, flavour: str = "") -> Lexis | None:
    """How a session of MySQL reads a text, by its character_set_client and sql_mode; None where we cannot say.

    `flavour`: whose functions are built in there; it is one of the flags.
    """
    known = frozenset(modes.upper().split(","))
    if "ORACLE" in known:
        return None
    flags = {flavour} if flavour else set()
    if "ANSI_QUOTES" in known:
        flags.add("ansi")
    codec = ""
    if charset in _UTF8:
        flags.add("names:" + _UTF8[charset])
    elif charset in _EUC:
        flags.add("names:" + _EUC[charset])
    elif charset in _PAIRED:
        codec = _PAIRED[charset]
        flags.add("names:" + codec)
    elif charset not in _BYTES:
        return None
    return lexis(MYSQL, codec, "NO_BACKSLASH_ESCAPES" not in known, frozenset(flags))
