"""What a text does to the session: read once, by the one lexer, into one value.

Harmless is what was read to its end and has only statements of the kinds in HARMLESS_VERBS, or of those that have a rule here. Of all
else the server is asked after its transaction. Which functions are harmless is not the text's to say, but the catalog's (catalog.py).

Sources: PostgreSQL docs, "SQL Commands", "Advisory Lock Functions", "System Administration Functions".
"""

import re
from collections.abc import Container, Iterator, Sequence
from typing import Final

from dualpool.postgres import own_names, sql
from dualpool.sql_text import PARAMETER, POSTGRES, QUOTED, SIGN, STRING, WORD, Lexed, Lexis, lex, string_value
from dualpool.sql_text import lexis as lexis_with

HARMLESS_VERBS: Final = frozenset(
    b"select with values table insert update delete merge copy explain show begin start commit end rollback abort savepoint release"
    b" fetch move declare close notify lock checkpoint".split()
)
"""Statements that leave nothing behind but by the functions, triggers and views that they use."""
TRACKED_VERBS: Final = frozenset(b"set reset discard deallocate prepare listen unlisten".split())
"""Statements whose tags say what they have done."""
WITHOUT_EXPRESSIONS: Final = frozenset(b"show begin start commit end rollback abort savepoint release close notify lock checkpoint".split())
WRITING_VERBS: Final = frozenset(b"insert update delete merge copy truncate".split())
BODY_VERBS: Final = frozenset((b"do", b"call"))
TEMPORARY: Final = frozenset((b"temp", b"temporary"))
TAKES_LOCK: Final = frozenset((b"pg_advisory_lock", b"pg_advisory_lock_shared", b"pg_try_advisory_lock", b"pg_try_advisory_lock_shared"))
RELEASES_LOCK: Final = frozenset((b"pg_advisory_unlock", b"pg_advisory_unlock_shared", b"pg_advisory_unlock_all"))
CANCELS: Final = frozenset((b"pg_cancel_backend", b"pg_terminate_backend"))
ASKS_SEQUENCE: Final = frozenset((b"lastval", b"currval"))
USES_SEQUENCE: Final = frozenset((b"nextval", b"setval"))
ASKS_TEMPORARY: Final = frozenset((b"pg_my_temp_schema", b"current_schemas", b"pg_is_other_temp_schema"))
TEMP_BUFFERS: Final = frozenset((b"temp_buffers", b"'temp_buffers'"))
"""A session that has used temporary tables does not let them be changed."""
READS_TABLES: Final = frozenset(
    (b"table_to_xml", b"table_to_xml_and_xmlschema", b"schema_to_xml", b"schema_to_xml_and_xmlschema", b"database_to_xml",
     b"database_to_xml_and_xmlschema")
)  # fmt: skip
"""They read tables and views of which they are told the names, and are no volatile functions (docs: Mapping Tables to XML)."""
ENDING_VERBS: Final = frozenset((b"commit", b"rollback", b"end", b"abort"))
BEGINNING_VERBS: Final = frozenset((b"begin", b"start"))
KEPT_BY_SESSION: Final = frozenset(
    b"setseed pg_replication_origin_session_setup pg_create_logical_replication_slot pg_create_physical_replication_slot"
    b" pg_copy_logical_replication_slot pg_copy_physical_replication_slot pg_backup_start pg_start_backup dblink_connect dblink_connect_u"
    .split()
)  # fmt: skip
"""What they make lives as long as the session, and no question tells of it."""
UNREAD_MARKS: Final = sql.EVERYTHING | sql.LIKELY | sql.PROBED << sql.ENDS | sql.REREADS | sql.WRITES | sql.READS | sql.COMPUTES
"""The marks of a text of which it is not certain what it does."""

ASKING_SEQUENCE: Final = re.compile(rb'lastval|currval|u&"')
ASKING_TEMPORARY: Final = re.compile(rb'temp_buffers|current_schemas|temp_schema|u&"')
FORGETTING: Final = re.compile(rb'deallocate|discard|u&"')
DOTTED_SET: Final = re.compile(rb"""set(?<!\wset)\b(?:[^=;'(]{1,200}\.|[^=;'(]{0,200}(?:/\*|--))""")
BODY: Final = re.compile(rb"do(?<!\wdo)\b")
PLAIN_LANGUAGES: Final = frozenset((b"plpgsql", b"'plpgsql'", b"sql", b"'sql'"))


PLAIN: Final = lexis_with(POSTGRES)
MAX_DEPTH: Final = 2
"""Strings in strings in strings."""
LONGEST_CLUE: Final = 250
"""Bytes. What `customizes` looks for is no longer."""


class Reading:
    """One text, as a session reads it. Immutable."""

    __slots__ = ("calls", "deallocates", "lexed", "lexis", "listens", "marks", "names", "statements", "vacates")

    def __init__(self) -> None:
        self.marks: int = UNREAD_MARKS
        """What it may do: bits of sql.py."""
        self.lexed: Lexed | None = None
        """Its tokens; None if it is not certain what they are."""
        self.lexis: Lexis = PLAIN
        """By which they were found."""
        self.statements: list[list[bytes]] = []
        """The source of the tokens of each statement."""
        self.calls: frozenset[bytes] = frozenset()
        """The names that may be those of functions which it calls."""
        self.names: set[str] = set()
        """The settings that it names where it may make them."""
        self.deallocates: bytes | None = None
        """The statement that it names, if it is a lone DEALLOCATE of one."""
        self.listens: str | None = None
        """The channel that it names, if it is a lone LISTEN."""
        self.vacates: str = ""
        """The database that it drops, renames or copies."""

    def verb(self) -> bytes:
        """The first word of a text that can be read, in lower case."""
        return self.statements[0][0].lower() if self.statements else b""

    def cancels(self, values: Sequence[bytes] = ()) -> tuple[bytes, int] | None:
        """The function and the process, if the text is a lone SELECT of pg_cancel_backend() or its like. `values`: its parameters."""
        lexed = self.lexed
        if lexed is None or len(self.statements) != 1 or lexed.kinds[0] != WORD or lexed.words[0] != b"select":
            return None
        words = [word for word in lexed.words[1:] if word != b";"]
        if words[:2] == [b"pg_catalog", b"."]:
            del words[:2]
        if words[3:5] == [b":", b":"] and words[5:6] in ([b"int"], [b"int4"], [b"integer"], [b"bigint"], [b"int8"]):
            del words[3:6]
        if len(words) != 4 or words[0] not in CANCELS or [words[1], words[3]] != [b"(", b")"]:
            return None
        number = values[0] if words[2] == b"$1" and len(values) == 1 else words[2]
        if number.isdigit():
            return words[0], int(number)
        return (words[0], int.from_bytes(number, "big")) if words[2] == b"$1" and len(number) in {4, 8} else None

    def only_begins(self) -> bool:
        """Is it a lone BEGIN?"""
        return len(self.statements) == 1 and self.verb() in BEGINNING_VERBS

    def only_ends(self) -> bool:
        """Is it a lone statement that ends the transaction, and begins none?"""
        if len(self.statements) != 1 or self.verb() not in ENDING_VERBS:
            return False
        words = [word.lower() for word in self.statements[0]]
        return b"to" not in words and (b"chain" not in words or b"no" in words)

    def sets_first(self) -> bytes | None:
        """The custom setting that it gives a value before it can ask for any: its name, or `$1`. None: it does not begin so."""
        lexed = self.lexed
        statements = list(lexed.statements()) if lexed is not None else []
        if lexed is None or not statements:
            return None
        start, end = statements[1 if len(statements) > 1 and self.verb() in BEGINNING_VERBS else 0]
        words = lexed.words[start:end]
        if words[0] == b"set":
            named = words[2:] if words[1:2] in ([b"local"], [b"session"]) else words[1:]
            return b"".join(named[:3]).lower() if named[1:2] == [b"."] and named[3:4] in ([b"="], [b"to"]) else None
        call = words[1:]
        if call[:2] == [b"pg_catalog", b"."]:
            del call[:2]
        if words[0] != b"select" or call[:2] != [b"set_config", b"("] or call[3:4] != [b","] or self.calls - {b"set_config"}:
            return None
        value = _value(lexed, words.index(b"(") + start + 1, self.lexis)
        return call[2] if call[2] == b"$1" else None if value is None else value.lower()

    def is_read_by_settings(self) -> bool:
        """May it matter by which settings the text is read: are there strings in it, NULL, or letters that are not ASCII's?"""
        lexed = self.lexed
        if lexed is None or not lexed.source.isascii():
            return True
        read = STRING in lexed.kinds or b"null" in lexed.words
        return read and any(statement[0].lower() not in WITHOUT_EXPRESSIONS for statement in self.statements)

    def dotted_names(self, text: bytes) -> set[str]:
        """What may be the name of a custom setting in `text`, as it stands there or as its strings mean it."""
        names = sql.dotted_names(text)
        for value in () if self.lexed is None else _strings(self.lexed, self.lexis, MAX_DEPTH):
            names |= sql.dotted_names(value)
            inner = lex(value, self.lexis) if b'"' in value else None
            if inner is not None:
                names.update(_named_settings(inner, self.lexis))
        return names

    def telling(self) -> list[list[bytes]]:
        """The statements whose tags must be told apart."""
        return [statement for statement in self.statements if statement[0].lower() in sql.TELLING_WORDS]

    def without_deallocates(self, text: bytes, names: Container[bytes], instead: bytes) -> bytes | None:
        """`text`, with `instead` in the place of each first DEALLOCATE of one of `names`; None: there is none."""
        lexed = self.lexed
        if lexed is None:
            return None
        gone: set[bytes] = set()
        pieces: list[bytes] = []
        done = 0
        for (first, behind), statement in zip(lexed.statements(), self.statements, strict=True):
            name = sql.deallocated_name(statement)
            if name is not None and name in names and name not in gone:
                gone.add(name)
                pieces += (text[done : lexed.starts[first]], instead)
                done = lexed.ends[behind - 1]
        return b"".join((*pieces, text[done:])) if pieces else None


def is_plain(text: bytes) -> bool:
    """Does `text` mean the same in every encoding, and whatever a backslash is?"""
    return text.isascii() and b"\\" not in text


def read(text: bytes, lexis: Lexis | None) -> Reading:
    """What `text` does. `lexis` None: nobody can tell by which settings it will be read."""
    reading = Reading()
    if lexis is None and is_plain(text):
        lexis = PLAIN
    lexed = lex(text, lexis) if lexis is not None else None
    if lexed is None or lexis is None or _has_body(lexed):
        reading.marks = marks_of_part(text)
        return reading
    reading.lexed, reading.lexis = lexed, lexis
    reading.calls = frozenset(_calls(lexed))
    reading.marks = _marks_of_calls(reading.calls, lexed, lexis)
    if own_names.may_name(text, lexed):
        reading.marks |= sql.NAMES
    reading.names.update(_named_settings(lexed, lexis))
    for start, end in lexed.statements():
        reading.marks |= _marks_of_statement(lexed, start, end)
        reading.statements.append([_source(text, lexed, index) for index in range(start, end)])
        if lexed.is_word(start, b"execute"):
            strings = [_value(lexed, index, lexis) for index in range(start, end) if lexed.kinds[index] == STRING]
            reading.names |= sql.names_among(filter(None, strings))
    for body in _bodies(lexed):
        _read_body(reading, body, lexis)
    if reading.calls & ASKS_TEMPORARY or not TEMP_BUFFERS.isdisjoint(lexed.words):
        reading.marks |= sql.ASKS_TEMPORARY
    if len(reading.statements) == 1:
        alone = reading.statements[0]
        reading.deallocates = sql.deallocated_name(alone)
        reading.listens = sql.listened_channel(alone)
        reading.vacates = sql.vacated_database(alone)
        if reading.vacates:
            reading.marks |= sql.VACATES
    return reading


def _source(text: bytes, lexed: Lexed, index: int) -> bytes:
    """A token as it stands in `text`; of a name with escapes, what it means in plain quotation marks."""
    source = text[lexed.starts[index] : lexed.ends[index]]
    word = lexed.words[index]
    return source if lexed.kinds[index] != QUOTED or source[:1] == b'"' or not word.isascii() else b'"' + word.replace(b'"', b'""') + b'"'


def marks_of_part(part: bytes) -> int:
    """What may be done by a text of which nothing is known but that `part` is in it."""
    marks = UNREAD_MARKS
    if customizes(part):
        marks |= sql.COMPUTED
    if own_names.may_name(part, None):
        marks |= sql.NAMES
    if ASKING_SEQUENCE.search(part.lower()):
        marks |= sql.ASKS_SEQUENCE
    if ASKING_TEMPORARY.search(part.lower()):
        marks |= sql.ASKS_TEMPORARY
    if FORGETTING.search(part.lower()):
        marks |= sql.FORGETS | sql.DEALLOCATES
    return marks


def customizes(text: bytes) -> bool:
    """Might `text`, of which nothing else is known, make a setting that the server does not show (`SET app.user`)? Linear in its length.

    Such a setting is made by its name in a SET, by set_config(), or by a statement that is put together.
    """
    lower = text.lower()
    return (
        b"set_config" in lower
        or b'u&"' in lower
        or DOTTED_SET.search(lower) is not None
        or (b"execute" in lower and BODY.search(lower) is not None)
    )


def _has_body(lexed: Lexed) -> bool:
    """CREATE FUNCTION .. BEGIN ATOMIC .. END: where it ends only PostgreSQL's grammar can tell."""
    words = lexed.words
    return b"atomic" in words and any(
        words[index - 1] == b"begin" for index in range(1, len(words)) if words[index] == b"atomic" and lexed.kinds[index] == WORD
    )


def _calls(lexed: Lexed) -> Iterator[bytes]:
    """Names in front of a bracket; and behind a dot, where a function of one row may stand like a column."""
    kinds, words = lexed.kinds, lexed.words
    last = len(kinds) - 1
    for index, kind in enumerate(kinds):
        if kind in (WORD, QUOTED) and (
            (index < last and words[index + 1] == b"(" and kinds[index + 1] == SIGN)
            or (index and words[index - 1] == b"." and kinds[index - 1] == SIGN)
        ):
            yield words[index]


def _value(lexed: Lexed, index: int, lexis: Lexis) -> bytes | None:
    """What the token at `index` means, if it is a string of which that is certain."""
    return string_value(lexed.words[index], lexis.backslash) if index < len(lexed.kinds) and lexed.kinds[index] == STRING else None


def _strings(lexed: Lexed, lexis: Lexis, depth: int) -> Iterator[bytes]:
    """What the strings of a text mean, and the strings in those of them that are SQL, too."""
    for index, kind in enumerate(lexed.kinds):
        value = _value(lexed, index, lexis) if kind == STRING else None
        if value is None:
            continue
        yield value
        inner = lex(value, lexis) if depth and (b"'" in value or b"$" in value) else None
        if inner is not None:
            yield from _strings(inner, lexis, depth - 1)


def _marks_of_calls(calls: frozenset[bytes], lexed: Lexed, lexis: Lexis) -> int:
    """The functions that have rules of their own."""
    marks = 0
    if calls & TAKES_LOCK:
        marks |= sql.LOCK
    if calls & RELEASES_LOCK:
        marks |= sql.RELEASED
    if calls & KEPT_BY_SESSION:
        marks |= sql.LIBRARY
    if calls & CANCELS:
        marks |= sql.CANCELS
    if calls & READS_TABLES:
        marks |= sql.READS
    if calls & ASKS_SEQUENCE:
        marks |= sql.ASKS_SEQUENCE
    if calls & USES_SEQUENCE:
        marks |= sql.USES_SEQUENCE
    if b"set_config" in calls:
        marks |= _marks_of_set_config(lexed, lexis)
    return marks


def _marks_of_set_config(lexed: Lexed, lexis: Lexis) -> int:
    """set_config(name, value, is_local) matters unless it says that it is local."""
    words = [word.lower() if kind == STRING else word for kind, word in zip(lexed.kinds, lexed.words, strict=True)]
    marks = 0
    count = 0
    for index, word in enumerate(words):
        if word != b"set_config" or not lexed.is_sign(index + 1, b"("):
            continue
        count += 1
        arguments = sql.arguments(words[index + 2 : index + 2 + sql.MAX_CALL]) if count <= sql.MAX_CALLS else []
        name = arguments[0] if arguments else []
        is_parameter = len(name) > 0 and lexed.kinds[index + 2] == PARAMETER and name[1:2] in ([], [b":"])
        constant = _value(lexed, index + 2, lexis) if len(name) == 1 else None
        is_constant = constant is not None
        if constant is None or sql.setting_name(constant) in sql.READING_SETTINGS:
            marks |= sql.REREADS
        if not (is_parameter or is_constant):
            marks |= sql.SETTINGS | sql.COMPUTED
        elif len(arguments) == 3 and len(arguments[2]) == 1 and arguments[2][0] in sql.LOCAL:
            marks |= sql.TOUCHES
        else:
            marks |= sql.SETTINGS
    return marks or sql.SETTINGS | sql.COMPUTED | sql.REREADS


def _marks_of_statement(lexed: Lexed, start: int, end: int) -> int:
    first = start
    while first < end - 1 and lexed.is_sign(first, b"("):
        first += 1
    verb = lexed.words[first] if lexed.kinds[first] == WORD else b""
    words = lexed.words[start:end]
    if verb in TRACKED_VERBS:
        return _marks_of_tracked(verb, words)
    if verb in BODY_VERBS:
        return sql.EVERYTHING | sql.LIKELY | sql.PROBED << sql.ENDS | sql.REREADS
    if verb == b"execute":
        return sql.EVERYTHING | sql.PROBED << sql.ENDS | sql.REREADS
    if verb not in HARMLESS_VERBS:
        return sql.EVERYTHING | sql.LIKELY | sql.PROBED << sql.ENDS
    marks = sql.TELLING if verb in sql.TELLING_WORDS else 0
    if verb not in WITHOUT_EXPRESSIONS:
        marks |= sql.COMPUTES
    if verb == b"declare":
        return marks | sql.READS | (sql.CURSOR if _has_pair(words, b"with", b"hold") else 0)
    if verb in WRITING_VERBS or (verb in (b"with", b"explain") and not WRITING_VERBS.isdisjoint(words)):
        marks |= sql.WRITES | sql.READS
    elif b"from" in words or verb in (b"table", b"merge"):
        marks |= sql.READS
    if b"into" in words and b"insert" not in words and b"merge" not in words:
        marks |= sql.EVERYTHING | sql.LIKELY  # SELECT INTO makes a table, which may be temporary
    if b"pg_settings" in words and b"update" in words:
        marks |= sql.SETTINGS | sql.REREADS
    if any(word.startswith(b"pg_temp") for word in words):
        marks |= sql.TEMPORARY
    return marks


def _marks_of_tracked(verb: bytes, words: list[bytes]) -> int:
    marks = sql.TELLING
    if verb == b"listen":
        return sql.LISTENS
    if verb == b"deallocate":
        return marks | sql.DEALLOCATES | (sql.FORGETS if words[-1] == b"all" else 0)
    if verb == b"discard":
        return marks | sql.FORGETS | sql.REREADS if words[-1] == b"all" else marks
    if verb in (b"set", b"reset") and any(word.lower() in sql.READING_WORDS for word in words):
        marks |= sql.REREADS
    return marks


def _has_pair(words: list[bytes], one: bytes, two: bytes) -> bool:
    return any(words[index] == one and words[index + 1] == two for index in range(len(words) - 1))


def _bodies(lexed: Lexed) -> Iterator[bytes]:
    """The bodies of DO statements, as strings with their quotes."""
    for start, end in lexed.statements():
        if lexed.is_word(start, b"do"):
            for index in range(start + 1, end):
                if lexed.kinds[index] == STRING and not lexed.is_word(index - 1, b"language"):
                    yield lexed.words[index]
                elif lexed.is_word(index - 1, b"language") and lexed.words[index] not in PLAIN_LANGUAGES:
                    yield b"E"  # as little is known of it as of an escaped string


def _read_body(reading: Reading, body: bytes, lexis: Lexis | None) -> None:
    """DO: functions that the body calls are called, and settings that it makes are made."""
    inner = _unquoted(body)
    found = lex(inner, lexis) if inner is not None and lexis is not None else None
    if found is None or lexis is None:
        reading.marks |= sql.COMPUTED
        return
    calls = frozenset(_calls(found))
    if b"execute" in found.words or (b"set_config" in calls and _marks_of_set_config(found, lexis) & sql.COMPUTED):
        reading.marks |= sql.COMPUTED
    reading.calls |= calls
    reading.names.update(_named_settings(found, lexis))


def _named_settings(lexed: Lexed, lexis: Lexis) -> Iterator[str]:
    """The names in set_config('name', ..), SET name and RESET name."""
    kinds, words = lexed.kinds, lexed.words
    for index, word in enumerate(words):
        if word == b"set_config" and kinds[index] != STRING and lexed.is_sign(index + 1, b"(") and index + 2 < len(words):
            value = _value(lexed, index + 2, lexis)
            if value is not None:
                yield sql.setting_name(value)
        elif word in {b"set", b"reset"} and kinds[index] == WORD:
            first = index + 2 if lexed.is_word(index + 1, b"session") or lexed.is_word(index + 1, b"local") else index + 1
            parts = []
            while first < len(words) and kinds[first] in (WORD, QUOTED):
                parts.append(words[first])
                if not lexed.is_sign(first + 1, b"."):
                    break
                first += 2
            yield sql.setting_name(b".".join(parts))


def _unquoted(body: bytes) -> bytes | None:
    """What a string without escapes means; None for one with."""
    if body[:1] == b"$":
        tag = body.index(b"$", 1) + 1
        return body[tag:-tag]
    inner = body[1:-1].replace(b"''", b"")
    if body[:1] != b"'" or b"\\" in body or b"'" in inner:
        return None
    return body[1:-1].replace(b"''", b"'")
