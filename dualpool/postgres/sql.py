"""What a statement's text says, where the server's own reports do not. Only texts that a command tag has singled out come here.

Source: PostgreSQL docs, "SQL Syntax: Lexical Structure", "SET", "SET SESSION AUTHORIZATION", "SET TRANSACTION".
"""

import re
from collections.abc import Container, Iterable, Iterator
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
ESCAPED_QUOTE: Final = re.compile(rb"(?<!\\)\\++'")
HEAD: Final = 4
"""Of a text that is shown, so many times as many bytes are looked at."""
COMMENT_EDGE: Final = re.compile(rb"/\*|\*/")
BLANK: Final = re.compile(rb"(?:\s++|--[^\n]*+)*+")
WORD: Final = re.compile(rb"\s*+([A-Za-z]*+)")
NAME_START: Final = re.compile(rb'["A-Za-z_\x80-\xff]')

TELLING_WORDS: Final = frozenset(b"set reset discard deallocate unlisten commit end prepare rollback abort savepoint release".split())
"""Statements of which the relay keeps the text until the server has said that they ran."""

Change = tuple[str, str | None]
"""A setting's name, and its value as set_config() takes it; None: back to its default. The name "*": all of them.

Or LISTENED and a channel, UNLISTENED and a channel; None: all of them.
"""
LISTENED: Final = "\0listen"
UNLISTENED: Final = "\0unlisten"
UNPROVEN: Final = "\0unproven"
"""A value that only the server knows."""
LOCALLY: Final = "\0locally"
"""A value for the transaction alone."""
STRING: Final = re.compile(rb"'(?:[^'\\]++|'')*+'")
NUMBER: Final = re.compile(rb"[0-9]++(?:\.[0-9]++)?")
MAX_INTEGER: Final = 1 << 31
SAFE_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*+")
QUOTED_LISTS: Final = frozenset(
    ("search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries", "shared_preload_libraries")
)
"""The settings that are lists of names, which SET puts in quotation marks (guc_tables.c: GUC_LIST_QUOTE)."""
RESERVED_WORDS: Final = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast char
    character check coalesce collate collation column concurrently constraint create cross current_catalog current_date
    current_role current_schema current_time current_timestamp current_user dec decimal default deferrable desc distinct do else
    end except exists extract false fetch float for foreign freeze from full grant greatest group grouping having ilike in
    initially inner inout int integer intersect interval into is isnull join json json_array json_arrayagg json_exists json_object
    json_objectagg json_query json_scalar json_serialize json_table json_value lateral leading least left like limit localtime
    localtimestamp merge_action national natural nchar none normalize not notnull null nullif numeric offset on only or order out
    outer overlaps overlay placing position precision primary real references returning right row select session_user setof
    similar smallint some substring symmetric system_user table tablesample then time timestamp to trailing treat trim true union
    unique user using values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists
    xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """.split()  # noqa: SIM905
)
"""Those that stand for themselves in quotation marks only (pg_get_keywords(): all but the unreserved ones, of any version)."""
PLAIN_NAME: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_$]*+")
QUOTED_NAME: Final = re.compile(rb'"(?:[^"]++|"")++"')
MAX_NAME: Final = 63
"""Bytes of a name; longer ones are cut off (docs: Identifiers and Key Words). Of names that are not ASCII, a third: in the server's
encoding they may be longer."""


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


def listened_channel(text: bytes) -> str | None:
    """The channel that a lone LISTEN names; None for anything else, and for names whose meaning depends on more than the text."""
    words = list(islice(_each_token(text), 4))
    if words and words[-1] == b";":
        words.pop()
    if len(words) != 2 or words[0].lower() != b"listen" or not (PLAIN_NAME.fullmatch(words[1]) or QUOTED_NAME.fullmatch(words[1])):
        return None
    name = identifier(words[1])
    return name.decode("utf-8", "surrogateescape") if len(name) <= (MAX_NAME if name.isascii() else MAX_NAME // 3) else None


def unlistened(statement: list[bytes]) -> list[Change]:
    """What an UNLISTEN that has run means."""
    channel = None if statement[1:] == [b"*"] else identifier(statement[-1]).decode("utf-8", "surrogateescape")
    return [(UNLISTENED, channel)]


def unlisten_instead(text: bytes) -> bytes:
    """A lone LISTEN with UNLISTEN in its place."""
    start = _start(text, 0)
    return text[:start] + b"UN" + text[start:]


def quoted(name: str) -> str:
    """A name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def identifier(token: bytes) -> bytes:
    """A name as the server understands it: unquoted ones in lower case."""
    if token.startswith(b'"'):
        return token[1:-1].replace(b'""', b'"')
    return token.lower()


def tokens(text: bytes) -> list[bytes]:
    """The words, strings, numbers and signs of `text`, without spaces and comments, in linear time."""
    return list(_each_token(text))


def _each_token(text: bytes) -> Iterator[bytes]:
    for start, end in _each_span(text):
        yield text[start:end]


def _each_span(text: bytes) -> Iterator[tuple[int, int]]:
    """Where the tokens are."""
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
            yield match.start(), position
        elif kind != "space":
            yield match.start(), position


def statements(text: bytes) -> list[list[bytes]]:
    """The tokens of each statement of a simple Query."""
    result: list[list[bytes]] = [[]]
    for token in tokens(text):
        if token == b";":
            result.append([])
        else:
            result[-1].append(token)
    return [statement for statement in result if statement]


def without_deallocates(text: bytes, names: Container[bytes], instead: bytes) -> bytes | None:
    """A simple Query of several statements with `instead` in the place of each first DEALLOCATE of one of `names`; None: there is none."""
    gone: set[bytes] = set()
    pieces: list[bytes] = []
    done = 0
    for start, end in _statement_spans(text):
        name = deallocated_name(text[start:end])
        if name is not None and name in names and name not in gone:
            gone.add(name)
            pieces += (text[done:start], instead)
            done = end
    return b"".join((*pieces, text[done:])) if pieces else None


def _statement_spans(text: bytes) -> Iterator[tuple[int, int]]:
    """Where the statements of a simple Query are, without what separates them."""
    start = last = -1
    for position, end in _each_span(text):
        if text[position:end] == b";":
            if start >= 0:
                yield start, last
            start = -1
        else:
            start = position if start < 0 else start
            last = end
    if start >= 0:
        yield start, last


def savepoint_name(statement: list[bytes]) -> bytes:
    """The name in SAVEPOINT name, ROLLBACK TO [SAVEPOINT] name."""
    return identifier(statement[-1])


def is_rollback_to(statement: list[bytes]) -> bool:
    """True for ROLLBACK TO and not for ROLLBACK."""
    return any(token.lower() == b"to" for token in statement)


def changes(statement: list[bytes]) -> list[Change] | None:
    """What a SET or RESET statement that has run means for the session; [] for what ends with the transaction.

    A value is as set_config() takes it. UNPROVEN: it depends on more than the text; LOCALLY: it is for the transaction alone. None: not
    even the name is certain.
    """
    words = [token.lower() for token in statement]
    if words[0] == b"reset":
        return _reset(words)
    if words[0] != b"set" or len(words) < 2:
        return None
    words, statement = words[1:], statement[1:]
    if words[0] in {b"constraints", b"transaction"}:
        return []
    if words[0] == b"local":
        found = _set(words[1:], statement[1:]) if len(words) > 1 else None
        return None if found is None else [(name, LOCALLY) for name, _ in found if "." in name or name == "seed"]
    if words[:3] == [b"session", b"characteristics", b"as"]:
        return _characteristics(words[3:])
    if words[0] == b"session" and len(words) > 1 and words[1] not in {b"=", b"to", b"authorization"}:
        words, statement = words[1:], statement[1:]
    return _set(words, statement)


def _set(words: list[bytes], statement: list[bytes]) -> list[Change] | None:
    if words[:2] == [b"session", b"authorization"]:
        # It ends the role, too.
        return [("session_authorization", None if words[2:] == [b"default"] else _name_value(statement[2:])), ("role", None)]
    if words[:2] == [b"time", b"zone"]:
        return [("timezone", None if words[2:] in ([b"default"], [b"local"]) else UNPROVEN)]
    if words[:2] == [b"xml", b"option"]:
        return [("xmloption", _value(statement[2:], "xmloption"))]
    if words[0] == b"names":
        return [("client_encoding", None if words[1:] in ([], [b"default"]) else _value(statement[1:], "client_encoding"))]
    if words[0] == b"schema":
        return [("search_path", _value(statement[1:], "search_path"))]
    if words[0] == b"role":
        return [("role", _name_value(statement[1:]))]
    name, rest = _setting_name(statement)
    if not name or not rest:
        return None
    if rest[0].lower() not in {b"=", b"to"}:
        return [(name, UNPROVEN)]
    if len(rest) == 2 and rest[1].lower() == b"default":
        return [(name, None)]
    return [(name, _value(rest[1:], name))]


def _setting_name(statement: list[bytes]) -> tuple[str, list[bytes]]:
    """A setting's name in lower case, dots included, and what follows it; "" if it is not certain, or not ASCII."""
    end = 1
    while end + 1 < len(statement) and statement[end] == b".":
        end += 2
    parts = statement[:end:2]
    if not all(PLAIN_NAME.fullmatch(part) or (QUOTED_NAME.fullmatch(part) and part.isascii()) for part in parts):
        return "", statement[end:]
    return b".".join(identifier(part) for part in parts).lower().decode(), statement[end:]


def _value(tokens: list[bytes], name: str) -> str:
    """What the values of a SET make of the setting `name`, as set_config() takes it (guc.c: flatten_set_variable_args)."""
    if not all(map(bytes.isascii, tokens)):
        return UNPROVEN
    parts: list[str] = []
    lists = name in QUOTED_LISTS
    position = 0
    while position < len(tokens):
        sign = ""
        if tokens[position] in {b"-", b"+"} and position + 1 < len(tokens):
            sign = "-" if tokens[position] == b"-" else ""
            position += 1
        part = _one_value(tokens[position], sign=bool(sign), quote=lists)
        if part is None or (position + 1 < len(tokens) and tokens[position + 1] != b","):
            return UNPROVEN
        parts.append(sign + part)
        position += 2
    # (With a comma at the end the last value is missing.)
    return ", ".join(parts) if parts and tokens[-1] != b"," else UNPROVEN


def _one_value(token: bytes, *, sign: bool, quote: bool) -> str | None:
    if NUMBER.fullmatch(token):
        return str(int(token)) if token.isdigit() and int(token) < MAX_INTEGER else token.decode() if b"." in token else None
    if sign:
        return None
    if STRING.fullmatch(token):
        value = token[1:-1].replace(b"''", b"'").decode()
    elif PLAIN_NAME.fullmatch(token) or QUOTED_NAME.fullmatch(token):
        value = identifier(token).decode()
    else:
        return None
    if not quote or (SAFE_NAME.fullmatch(value) and value not in RESERVED_WORDS):
        return value
    return quoted(value)


def _name_value(tokens: list[bytes]) -> str:
    """The role that is named."""
    value = _one_value(tokens[0], sign=False, quote=False) if len(tokens) == 1 and tokens[0].isascii() else None
    return UNPROVEN if value is None else value


def _reset(words: list[bytes]) -> list[Change] | None:
    if words[1:] == [b"all"]:
        return [("*", None)]
    if words[1:] == [b"time", b"zone"]:
        return [("timezone", None)]
    if words[1:] == [b"session", b"authorization"]:
        return [("session_authorization", None), ("role", None)]
    if words[1:] == [b"transaction", b"isolation", b"level"]:
        return []
    name, rest = _setting_name(words[1:])
    return [(name, None)] if name and not rest else None


def _characteristics(words: list[bytes]) -> list[Change]:
    """SET SESSION CHARACTERISTICS AS TRANSACTION mode, ... is three settings under another name."""
    text = b" ".join(words)
    found: list[Change] = []
    level = re.search(rb"isolation level (serializable|repeatable read|read committed|read uncommitted)", text)
    if level:
        found.append(("default_transaction_isolation", level[1].decode()))
    access = re.search(rb"read (only|write)", text)
    if access:
        found.append(("default_transaction_read_only", "on" if access[1] == b"only" else "off"))
    if b"deferrable" in words:
        found.append(("default_transaction_deferrable", "off" if b"not deferrable" in text else "on"))
    return found


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


# ------------------------------------------------------------------------------------- what may outlive a transaction

# What a session can hold that cannot be brought to another one: the bits of `ServerRelay.pins`, and of the doubts about them.
LOCK: Final = 1
TEMPORARY: Final = 2
CURSOR: Final = 4
PREPARED: Final = 8
LISTENING: Final = 16
LIBRARY: Final = 32
COMPUTED: Final = 64
"""A setting of which only the server knows the name. pg_settings does not show such as `app.user`."""
UNKNOWN: Final = 128
SETTINGS: Final = 256
"""As a doubt only: settings that were made by a function. What they are now is asked, and tracked."""
ALWAYS: Final = 512
"""As a doubt only: there is none, but strict mode asks always."""
PROBED: Final = LOCK | TEMPORARY | CURSOR | PREPARED | LISTENING
EVERYTHING: Final = PROBED | SETTINGS
UNASKED: Final = COMPUTED | LIBRARY
"""What there is no question for: a doubt is a pin."""

# The marks of a text: doubts, `doubt << ENDS` for what it may end, and these.
ENDS: Final = 10
FORGETS: Final = 1 << 15
"""DEALLOCATE ALL or DISCARD ALL: the session's prepared statements may go."""
REREADS: Final = 1 << 16
"""It may change one of the settings by which later texts are read."""
LISTENS: Final = 1 << 17
"""Begins with LISTEN."""
VACATES: Final = 1 << 18
"""DROP DATABASE and its like, which fail while somebody is connected to that database."""
DEALLOCATES: Final = 1 << 19
"""Has the word somewhere."""
TELLING: Final = 1 << 20
"""Begins with one of TELLING_WORDS."""
NOTABLE: Final = TELLING - 1
"""Of a simple Query: something must be done when it is sent."""

UNREAD: Final = LOCK | TEMPORARY | CURSOR | SETTINGS | LOCK << ENDS
"""The marks of a text that is too long to be looked at."""
RELEASED: Final = LOCK << ENDS

MAX_KNOWN_TEXT: Final = 2048
MAX_KNOWN: Final = 2048
MAX_CALLS: Final = 16
"""Calls of set_config that are read in one text, and the tokens of each."""
MAX_CALL: Final = 500
MAX_READ: Final = 1 << 18
"""Bytes of a text whose calls of set_config are read; of those in a longer one the server is asked."""

_GAP: Final = rb"(?:\s|/\*[^*]{0,200}\*/|--[^\n]{0,200}\n)++"
ADVISORY: Final = re.compile(rb"pg_(?:try_)?advisory_(lock|unlock)")
CREATES_TEMPORARY: Final = re.compile(
    rb"\b(?:create|into|replace)" + _GAP + rb"(?:(?:local|global)" + _GAP + rb')?temp(?:orary)?\b|\bpg_temp"?\s*+\.'
)
WITH_HOLD: Final = re.compile(rb"\bwith" + _GAP + rb"hold\b")
DEALLOCATES_ALL: Final = re.compile(rb"deallocate" + _GAP + rb"(?:prepare" + _GAP + rb")?all\b")
DATABASE_ORDER: Final = re.compile(rb"\s*+(?:drop|alter|create)\s++database\b")
SETTING_NAME: Final = re.compile(rb"[A-Za-z_][\w$]*+(?:\.[A-Za-z_][\w$]*+)++|role|session_authorization")
NAMED_SETTING: Final = re.compile(
    rb"set_config\"?\s*+\(\s*+'([^'\\]{1,200})'|\bset\s++(?:session\s++)?([a-z_][\w$]*+(?:\.[a-z_][\w$]*+)++)", re.IGNORECASE
)
READING_SETTINGS: Final = (
    "array_nulls", "backslash_quote", "bytea_output", "client_encoding", "datestyle", "extra_float_digits", "intervalstyle", "lc_monetary",
    "standard_conforming_strings", "timezone", "xmloption",
)  # fmt: skip
"""What the constants in a text mean when it is prepared."""
SHARING_SETTINGS: Final = (*READING_SETTINGS, "search_path")
"""A prepared statement is shared only where these are equal. (When the search path changes the server reads the text again, but then its
columns must still be the same.)"""
_READING_NAMES: Final = rb"(?:%s|time\s++zone|names|xml\s++option)\b" % "|".join(READING_SETTINGS).encode()
REREADING: Final = re.compile(
    rb"set(?:\s++(?:(?:session|local)\s++)?(?:all\b|" + _READING_NAMES + rb")|_config\"?\s*+\(\s*+'" + _READING_NAMES + rb")"
)
"""SET, RESET and set_config() of these. (It begins with plain letters, for which Python looks fast.)"""
BODY_WORDS: Final = frozenset((b"do", b"call"))
PLAIN_VERBS: Final = (b"select", b"insert", b"update", b"delete", b"with", b"begin")
LOCAL: Final = frozenset((b"true", b"'true'", b"'t'", b"'on'", b"'1'", b"'yes'"))

MARKS: Final[dict[bytes, int]] = {}
"""The marks of texts that came lately."""
QUERY_MARKS: Final[dict[bytes, int]] = {}
"""The same by whole Query messages."""


def marks(text: bytes) -> int:
    """What the text of a statement makes likely. It only raises doubts: what is the case the server is asked."""
    found = MARKS.get(text)
    return _remember(MARKS, text, _read(text)) if found is None else found


def query_marks(frame: bytes) -> int:
    """The same for a Query message that QUERY_MARKS does not know."""
    return _remember(QUERY_MARKS, frame, _read(frame[5:-1]))


def _remember(known: dict[bytes, int], key: bytes, found: int) -> int:
    if len(key) <= MAX_KNOWN_TEXT:
        if len(known) >= MAX_KNOWN:
            known.clear()
        known[key] = found
    return found


def _read(text: bytes) -> int:
    lower = text.lower()
    found = 0
    if b"advisory" in lower:
        for match in ADVISORY.finditer(lower):
            found |= LOCK if match[1] == b"lock" else RELEASED
    if b"temp" in lower and CREATES_TEMPORARY.search(lower):
        found |= TEMPORARY
    if b"hold" in lower and WITH_HOLD.search(lower):
        found |= CURSOR
    if b"deallocate" in lower:
        found |= DEALLOCATES | FORGETS if DEALLOCATES_ALL.search(lower) else DEALLOCATES
    if b"set_config" in lower:
        found |= _set_config(lower) if len(lower) <= MAX_READ else SETTINGS
    if REREADING.search(lower):
        found |= REREADS
    if not lower.startswith(PLAIN_VERBS):
        word = first_word(lower)
        if word in TELLING_WORDS:
            found |= TELLING | FORGETS | REREADS if word == b"discard" else TELLING
        elif word == b"listen":
            found |= LISTENS
        elif word in BODY_WORDS:
            found |= EVERYTHING | PROBED << ENDS
        if b"database" in lower and vacated_database(text):
            found |= VACATES
    return found


def _set_config(lower: bytes) -> int:
    """set_config(name, value, is_local) matters unless it says that it is local."""
    words = tokens(lower)
    named = [index for index, word in enumerate(words) if word in {b"set_config", b'"set_config"'}]
    calls = [index for index in named if words[index + 1 : index + 2] == [b"("]]
    found = 0
    for count, index in enumerate(calls):
        arguments = _arguments(words[index + 2 : index + 2 + MAX_CALL]) if count < MAX_CALLS else []
        if len(arguments) == 3 and len(arguments[2]) == 1 and arguments[2][0] in LOCAL:
            continue
        found |= SETTINGS
        name = arguments[0] if arguments else []
        is_parameter = name[:1] == [b"$"] and name[2:3] in ([], [b":"])
        if not (is_parameter or (len(name) == 1 and name[0].startswith(b"'"))):
            found |= COMPUTED
    return found


def _arguments(words: list[bytes]) -> list[list[bytes]]:
    """The arguments of a call, from behind its parenthesis to the one that closes it; [] if none does."""
    found: list[list[bytes]] = [[]]
    depth = 0
    for token in words:
        if token in {b"(", b"["}:
            depth += 1
        elif token in {b")", b"]"}:
            if not depth:
                return found
            depth -= 1
        elif token == b"," and not depth:
            found.append([])
            continue
        found[-1].append(token)
    return []


def setting_names(text: bytes) -> set[str]:
    """The settings that calls of set_config, and SETs in a body, name."""
    return {(match[1] or match[2]).decode("utf-8", "surrogateescape").lower() for match in NAMED_SETTING.finditer(text)}


def names_among(values: Iterable[bytes]) -> set[str]:
    """Those of the parameters of set_config that may be the name of a setting which pg_settings does not show."""
    return {value.decode().lower() for value in values if SETTING_NAME.fullmatch(value)}


def vacated_database(text: bytes) -> str:
    """The database that DROP, ALTER .. RENAME or CREATE .. TEMPLATE needs for itself; "" if `text` is none of these."""
    if not DATABASE_ORDER.match(text.lower()):
        return ""
    statement = list(islice(_each_token(text), 100))
    words = [token.lower() for token in statement]
    name = b""
    if words[0] == b"drop":
        index = 4 if words[2:4] == [b"if", b"exists"] else 2
        name = statement[index] if index < len(statement) else b""
    elif words[0] == b"alter":
        name = statement[2] if len(words) > 3 and words[3] == b"rename" else b""
    elif b"template" in words:
        rest = [token for token in statement[words.index(b"template") + 1 :] if token != b"="]
        name = rest[0] if rest else b""
    return identifier(name).decode("utf-8", "surrogateescape")


def masked(text: bytes, limit: int = 200) -> str:
    """The start of a statement without its literals and comments, in one line."""
    head = text[: HEAD * limit]
    parts: list[bytes] = []
    position = 0
    while position < len(head):
        match = TOKEN.match(head, position)
        assert match is not None
        position = match.end()
        kind = match.lastgroup
        if kind == "comment":
            position = _end_of_comment(head, position)
            parts.append(b" ")
        elif kind == "dollar":
            end = head.find(match[0], position)
            position = len(head) if end < 0 else end + len(match[0])
            parts.append(b"?")
        else:
            parts.append(b" " if kind == "space" else b"?" if kind in {"string", "number"} else match[0])
    return b" ".join(b"".join(parts).split()).decode("utf-8", "replace")[:limit]


def masked_safely(text: bytes, limit: int) -> str:
    """As `masked`, whatever standard_conforming_strings says: where a backslash stands before a quotation mark, the rest is left out."""
    head = text[: HEAD * limit]
    doubt = ESCAPED_QUOTE.search(head)
    return masked(head if doubt is None else head[: doubt.start()], limit)
