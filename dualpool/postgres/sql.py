"""What a statement says, where the server's own reports do not: its tokens come from the one lexer (reading.py).

A statement is here the source of its tokens, without spaces and comments.

Source: PostgreSQL docs, "SQL Syntax: Lexical Structure", "SET", "SET SESSION AUTHORIZATION", "SET TRANSACTION".
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

from dualpool.sql_text import unescaped

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
AT_DEFAULT: Final = "\0default"
"""The value of a custom setting that was reset. ALTER ROLE, ALTER DATABASE .. SET, the server's configuration or an extension's library may
give it another default than an empty text; only the server knows which."""
STRING: Final = re.compile(rb"'(?:[^'\\]++|'')*+'")
NUMBER: Final = re.compile(rb"[0-9]++(?:\.[0-9]++)?")
MAX_INTEGER: Final = 1 << 31
SAFE_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*+")
OF_TRANSACTION: Final = frozenset(("transaction_isolation", "transaction_read_only", "transaction_deferrable"))
"""Settings that end with their transaction, however they are set."""
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


def deallocated_name(statement: list[bytes]) -> bytes | None:
    """The statement that a DEALLOCATE names; None for anything else, DEALLOCATE ALL among it."""
    words = statement[1:]
    if statement[0].lower() != b"deallocate":
        return None
    if len(words) == 2 and words[0].lower() == b"prepare":
        del words[0]
    if len(words) != 1 or words[0].lower() == b"all" or not NAME_START.match(words[0]):
        return None
    return identifier(words[0])


def listened_channel(statement: list[bytes]) -> str | None:
    """The channel that a LISTEN names; None for anything else, and for names whose meaning depends on more than the text."""
    if len(statement) != 2 or statement[0].lower() != b"listen":
        return None
    if not (PLAIN_NAME.fullmatch(statement[1]) or QUOTED_NAME.fullmatch(statement[1])):
        return None
    name = identifier(statement[1])
    return name.decode("utf-8", "surrogateescape") if len(name) <= (MAX_NAME if name.isascii() else MAX_NAME // 3) else None


def unlistened(statement: list[bytes]) -> list[Change]:
    """What an UNLISTEN that has run means."""
    channel = None if statement[1:] == [b"*"] else identifier(statement[-1]).decode("utf-8", "surrogateescape")
    return [(UNLISTENED, channel)]


def quoted(name: str) -> str:
    """A name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def identifier(token: bytes) -> bytes:
    """A name as the server understands it: unquoted ones in lower case."""
    if token.startswith(b'"'):
        return token[1:-1].replace(b'""', b'"')
    if token[1:3] == b'&"':
        return unescaped(token[3:-1].replace(b'""', b'"')) or token
    return token.lower()


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
    if name in OF_TRANSACTION:
        return []
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
SEQUENCE: Final = 1 << 27
"""Numbers of sequences, which the client may ask for."""
UNASKED: Final = COMPUTED | LIBRARY | SEQUENCE
"""What there is no question for: a doubt is a pin."""

# The marks of a text: doubts, `doubt << ENDS` for what it may end, and these.
ENDS: Final = 10
FORGETS: Final = 1 << 15
"""DEALLOCATE ALL or DISCARD ALL: the session's prepared statements may go."""
REREADS: Final = 1 << 16
"""It may change one of the settings by which later texts are read."""
LISTENS: Final = 1 << 17
"""It is a LISTEN."""
VACATES: Final = 1 << 18
"""DROP DATABASE and its like, which fail while somebody is connected to that database."""
DEALLOCATES: Final = 1 << 19
"""There is a DEALLOCATE in it."""
NAMES: Final = 1 << 20
"""It may mean prepared statements by the names that their client gave them."""
TELLING: Final = 1 << 21
"""It has a statement that begins with one of TELLING_WORDS."""
ASKS_SEQUENCE: Final = 1 << 29
"""It may call lastval() or currval(), and USES_SEQUENCE: nextval() or setval()."""
USES_SEQUENCE: Final = 1 << 26
TOUCHES: Final = 1 << 28
"""It makes a setting for its transaction alone, whose name the session does not forget."""
ASKS_TEMPORARY: Final = 1 << 31
"""What it does may tell whether the session has had temporary tables."""
CANCELS: Final = 1 << 30
"""It calls pg_cancel_backend() or pg_terminate_backend()."""
NOTABLE: Final = TELLING - 1 | ASKS_SEQUENCE | ASKS_TEMPORARY | USES_SEQUENCE | TOUCHES | CANCELS
"""Of a simple Query: something must be done when it is sent."""
LIKELY: Final = 1 << 22
"""What the marks say is not known for certain: it may turn out that the text is harmless."""
READS: Final = 1 << 23
WRITES: Final = 1 << 24
"""It reads, or writes, tables or views, so that functions may run that it does not name."""
COMPUTES: Final = 1 << 32
"""It has expressions, in which an operator or a cast may call a function."""
OPAQUE: Final = 1 << 25
"""It calls functions that may make settings of which nobody knows the names."""
RELEASED: Final = LOCK << ENDS

MAX_CALLS: Final = 16
"""Calls of set_config that are read in one text, and the tokens of each."""
MAX_CALL: Final = 500
DATABASE_VERBS: Final = frozenset((b"drop", b"alter", b"create"))
_NAME: Final = rb"[A-Za-z_\x80-\xff][\w$\x80-\xff]*+(?:\.[A-Za-z_\x80-\xff][\w$\x80-\xff]*+)++"
"""A name that a custom setting may have (guc.c: valid_custom_variable_name)."""
SETTING_NAME: Final = re.compile(_NAME + rb"|role|session_authorization", re.IGNORECASE)
DOTTED: Final = re.compile(rb"(?<![\w$.\x80-\xff])" + _NAME + rb"(?![\w$.\x80-\xff(])")
ESCAPED_BYTE: Final = re.compile(rb"\\(?:x([0-7][0-9A-Fa-f])|u?00([0-7][0-9A-Fa-f]))")
MAX_DOTTED: Final = 64
"""Names in one text that are asked for because a function may make settings of them."""
NAMED_SETTING: Final = re.compile(
    rb"set_config\"?\s*+\(\s*+'([^'\\]{1,200})'|\bset\s++(?:session\s++)?([a-z_][\w$]*+(?:\.[a-z_][\w$]*+)++)", re.IGNORECASE
)
READING_SETTINGS: Final = (
    "array_nulls", "backslash_quote", "bytea_output", "client_encoding", "datestyle", "extra_float_digits", "intervalstyle", "lc_monetary",
    "standard_conforming_strings", "timezone", "timezone_abbreviations", "transform_null_equals", "xmloption",
)  # fmt: skip
"""What the constants in a text mean when it is prepared."""
LEXING_SETTINGS: Final = ("backslash_quote", "client_encoding", "standard_conforming_strings")
"""Those of them by which a text is cut into tokens."""
SHARING_SETTINGS: Final = (*READING_SETTINGS, "search_path")
"""A prepared statement is shared only where these are equal. (When the search path changes the server reads the text again, but then its
columns must still be the same.)"""
READING_WORDS: Final = frozenset(name.encode() for name in (*READING_SETTINGS, "all", "zone", "names", "option"))
"""Words by which SET and RESET name them."""
LOCAL: Final = frozenset((b"true", b"'true'", b"'t'", b"'on'", b"'1'", b"'yes'"))


def arguments(words: list[bytes]) -> list[list[bytes]]:
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
    return {setting_name(match[1] or match[2]) for match in NAMED_SETTING.finditer(text)}


def setting_name(name: bytes) -> str:
    """A setting's name as it is compared: only the letters of ASCII have no case (guc.c: guc_name_compare)."""
    return name.lower().decode("utf-8", "surrogateescape")


def dotted_names(text: bytes) -> set[str]:
    """What may be the name of a custom setting in `text`, in which strings may be written with escapes, or between dollar signs."""
    plain = text if b"\\" not in text else ESCAPED_BYTE.sub(lambda found: bytes((int(found[1] or found[2], 16),)), text)
    found = {match[0] for match in islice(DOTTED.finditer(plain), MAX_DOTTED)}
    if b"$" in plain:
        found.update(match[0] for match in islice(DOTTED.finditer(plain.replace(b"$", b" ")), MAX_DOTTED))
    return {setting_name(name) for name in found if len(name) <= 2 * MAX_NAME}


def names_among(values: Iterable[bytes]) -> set[str]:
    """Those of the parameters of set_config that may be the name of a setting which pg_settings does not show."""
    return {setting_name(value) for value in values if SETTING_NAME.fullmatch(value)}


def vacated_database(statement: list[bytes]) -> str:
    """The database that DROP, ALTER .. RENAME or CREATE .. TEMPLATE needs for itself; "" if it is none of these."""
    words = [token.lower() for token in statement]
    if words[0] not in DATABASE_VERBS or words[1:2] != [b"database"]:
        return ""
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
