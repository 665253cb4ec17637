"""The little that is read of a statement's text. What we write ourselves is in session_sql.py.

What a statement has done to the session is the server's to say (its session trackers, its status flags). Read here are only the few
questions whose answer depends on which server connection they reach: LAST_INSERT_ID(), ROW_COUNT(), SHOW WARNINGS, KILL and their like.

Sources: MySQL Reference Manual, "SET Syntax for Variable Assignment", "Information Functions", "SHOW WARNINGS", "KILL".
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from dualpool.mysql.states import (
    E_ASSIGN,
    E_BEGIN,
    E_DEALLOCATE,
    E_DEFAULT,
    E_DROP,
    E_HANDLER,
    E_HANDLER_CLOSE,
    E_LOCK,
    E_OPAQUE,
    E_PREPARE,
    E_RENAME,
    E_ROLE,
    E_ROLE_DEFAULT,
    E_TABLES,
    E_TEMPORARY,
    E_UNKNOWN,
    E_UNLOCK,
    E_UNLOCK_ALL,
    E_UNLOCK_TABLES,
    E_XA,
    E_XA_END,
    FLUSHED,
    UNREAD,
    Step,
)

# ---------------------------------------------------------------------------------------------------------- marks of a statement

M_INSERT_ID: Final = 1
"""It reads LAST_INSERT_ID(), or @@last_insert_id, or @@identity."""
M_SETS_INSERT_ID: Final = 2
"""LAST_INSERT_ID(expression): the session's value changes, which no reply says."""
M_CALC_FOUND_ROWS: Final = 4
M_COLLATES: Final = 8
"""It may set what the trackers do not report, or not reliably: a collation, or a default."""
M_LOCAL: Final = 16
"""It may be one that we answer ourselves; `local_question()` says which."""
M_KILL: Final = 32
M_USE: Final = 64
M_DIAGNOSTICS: Final = 128
"""It reads the diagnostics area of the statement before it."""
M_STEPS: Final = 256
"""It may do to the session what the trackers do not report; `steps()` says what."""
M_OWN_ID: Final = 512
"""It reads CONNECTION_ID(); and M_NUMBERS: what only the session knows that the statement before ran in. `own_numbers()` says where."""
M_NUMBERS: Final = 1024
M_STRICT: Final = 2048
"""Strict mode: no answer is passed on unseen."""
M_UNSCOPED: Final = 4096
"""It may assign to `@@name`; `with_scopes()` says where."""

LOOKED_AT: Final = 1 << 18
"""Bytes of a statement that are looked at."""


def marks(text: bytes) -> int:
    """What in `text` must be known before it may run, as M_ bits. Too many of them cost time, too few a wrong answer."""
    if len(text) > LOOKED_AT:
        text = text[:LOOKED_AT]
    upper = text.upper()
    found = 0
    if b"INSERT_ID" in upper or b"@@IDENTITY" in upper or b"IDENTITY" in upper:
        found = M_INSERT_ID
        if SETS_INSERT_ID.search(upper):
            found |= M_SETS_INSERT_ID
    if b"_ROWS" in upper:
        if b"CALC_FOUND_ROWS" in upper:
            found |= M_CALC_FOUND_ROWS
        if FOUND_ROWS.search(upper):
            found |= M_NUMBERS
    if b"CONNECTION_ID" in upper:
        found |= M_OWN_ID
    if b"_COUNT" in upper and COUNTED.search(upper):
        found |= M_NUMBERS
    if b"@@" in upper and UNSCOPED.search(upper):
        found |= M_UNSCOPED
    if b"/*!" in upper or b"/*M!" in upper:
        upper = b";".join(statements(upper))
        found |= M_STEPS
    if b"_LOCK" in upper or (b"@" in upper and (b":=" in upper or INTO_VARIABLE.search(upper))):
        found |= M_STEPS
    if b";" in upper and WORDS_BEHIND.search(upper, upper.index(b";")):
        found |= M_STEPS
    first = upper[:1]
    if first > b"Z" or first < b"A":
        upper = skip_space(upper)
        first = upper[:1]
    if first == b"S":
        if upper.startswith(b"SET"):
            if b"COLLAT" in upper or b"DEFAULT" in upper or b"CHARSET" in upper or b"CHARACTER" in upper or b"," in upper:
                found |= M_COLLATES
            if b"@" in upper or b"ROLE" in upper or b"TIMESTAMP" in upper:
                found |= M_STEPS
        elif len(upper) < LONGEST_LOCAL and LOCAL_WORDS.search(upper):
            found |= M_LOCAL
    elif first == b"K" and upper.startswith(b"KILL"):
        found |= M_KILL
    elif first == b"U" and upper[:4].rstrip() == b"USE":
        found |= M_USE
    elif (first == b"G" and upper.startswith(b"GET") and b"DIAGNOSTICS" in upper) or (first == b"C" and upper.startswith(b"CALL")):
        found |= M_DIAGNOSTICS | M_STEPS if first == b"G" else M_COLLATES | M_STEPS
    elif first in FIRST_LETTERS and FIRST_WORDS.match(upper):
        found |= M_STEPS
    return found


LONGEST_LOCAL: Final = 200
FOUND_ROWS: Final = re.compile(rb"(?<!CALC_)FOUND_ROWS\s*\(")
COUNTED: Final = re.compile(rb"ROW_COUNT\s*\(|@@(?:SESSION\.)?(?:WARNING|ERROR)_COUNT")
SETS_INSERT_ID: Final = re.compile(rb"LAST_INSERT_ID\s*\(\s*[^)\s]")
UNSCOPED: Final = re.compile(rb"@@(?=[`\w]+\s*:?=)")
INTO_VARIABLE: Final = re.compile(rb"INTO\s*@")
FIRST_LETTERS: Final = frozenset((b"A", b"B", b"C", b"D", b"E", b"F", b"H", b"L", b"P", b"R", b"U", b"X"))
FIRST_WORDS: Final = re.compile(
    rb"ALTER\b|BACKUP\b|CREATE\b.{,40}\bTEMPORARY\b|DROP\b|DEALLOCATE\b|EXECUTE\b|FLUSH\b|HANDLER\b|LOAD\b|LOCK\b|PREPARE\b|RENAME\b"
    rb"|UNLOCK\b|XA\b",
    re.DOTALL,
)
DROPS_DATABASE: Final = re.compile(
    rb"DROP\s+(?:DATABASE|SCHEMA)\s+(?:IF\s+EXISTS\s+)?(?:`((?:[^`]|``){1,128})`|([^\s;`]{1,128}))", re.IGNORECASE
)
WORDS_BEHIND: Final = re.compile(
    rb"\b(?:ALTER|BACKUP|BEGIN|CALL|CREATE|DROP|DEALLOCATE|EXECUTE|FLUSH|GET|HANDLER|LOAD|LOCK|PREPARE|RENAME|SET|START|UNLOCK|XA)\b"
)
LOCAL_WORDS: Final = re.compile(rb"WARNING|ERROR|CONNECTION_ID|PSEUDO_THREAD_ID|ROW_COUNT|FOUND_ROWS")
SPACE: Final = re.compile(rb"(?:\s+|--[ \t][^\n]*(?:\n|\Z)|#[^\n]*(?:\n|\Z)|/\*(?!M?!)(?:[^*]|\*(?!/))*\*/)*")


def dropped_database(text: bytes) -> str:
    """The database that `text` drops; "" if it drops none."""
    match = DROPS_DATABASE.match(skip_space(text))
    if match is None:
        return ""
    quoted, plain = match.groups()
    return (quoted.replace(b"``", b"`") if quoted else plain).decode("utf-8", "surrogateescape")


def skip_space(text: bytes) -> bytes:
    """`text` without the white space and the comments that it begins with."""
    match = SPACE.match(text)
    return text[match.end() :] if match else text


# --------------------------------------------------------------------------------------------------- what it does to the session

LOCK_WORD: Final = b"_LOCK"
"""What the names of all functions for locks have in common."""
MAX_CACHED: Final = 1024
MAX_CACHED_TEXT: Final = 1024
PIECES: Final = re.compile(
    rb"""(?P<kept>'(?:[^'\\]|\\.|'')*+'?|"(?:[^"\\]|\\.|"")*+"?|`[^`]*+`?)"""
    rb"""|(?P<comment>--(?=[\s]|\Z)[^\n]*+|\#[^\n]*+|/\*[mM]?!\d*+|\*/|/\*(?:[^*]|\*(?!/))*+(?:\*/)?)|(?P<end>;)""",
    re.DOTALL,
)
"""What is looked for between the words. Of a comment that is executed (/*!, MariaDB's /*M!) only its marks go: what is in it counts."""
NAME_OF: Final = rb"(`[^`]+`|[\w$\x80-\xff]+)"
TABLE_OF: Final = rb"((?:`[^`]+`|[\w$\x80-\xff]+)(?:\s*\.\s*(?:`[^`]+`|[\w$\x80-\xff]+))?)"
WORD: Final = re.compile(rb"[\s(]*([a-z]+)", re.IGNORECASE)
VARIABLE: Final = re.compile(rb"(?<![@\w])@(`(?:[^`]|``)++`|'(?:[^'\\])++'|\"(?:[^\"\\])++\"|[\w.$\x80-\xff]++)")
LOCKS: Final = re.compile(
    rb"\b(?:(?P<get>GET_LOCK)\s*\(\s*(?:'(?P<name>[ !#-&(-\[\]-~]+)'\s*,|\"(?P<quoted>[ !#-&(-\[\]-~]+)\"\s*,)?"
    rb"|(?P<service>SERVICE_GET_(?:READ|WRITE)_LOCKS)|(?P<release>(?:RELEASE_(?:ALL_)?LOCKS?|SERVICE_RELEASE_LOCKS)))",
    re.IGNORECASE,
)
ALL_LOCKS: Final = re.compile(rb"\s*(?:SELECT|DO)\s+RELEASE_ALL_LOCKS\s*\(\s*\)[\s\w`]*\Z", re.IGNORECASE)
TEMPORARY: Final = re.compile(
    rb"\s*CREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY\s+(?:(?:TABLE|SEQUENCE)\s+(?:IF\s+NOT\s+EXISTS\s+)?" + TABLE_OF + rb")?", re.IGNORECASE
)
PREPARED: Final = re.compile(rb"\s*PREPARE\s+" + NAME_OF + rb"\s+FROM\s*(['\"]?)", re.IGNORECASE)
NAMED: Final = re.compile(rb"\s*(?:EXECUTE|(?:DEALLOCATE|DROP)\s+PREPARE)\s+" + NAME_OF, re.IGNORECASE)
HANDLER: Final = re.compile(rb"\s*HANDLER\s+" + TABLE_OF + rb"\s+(?:(OPEN)(?:\s+(?:AS\s+)?" + NAME_OF + rb")?|(CLOSE))", re.IGNORECASE)
ROLE: Final = re.compile(rb"\s*SET\s+ROLE\s+(DEFAULT\s*\Z)?", re.IGNORECASE)
DEFAULT_AGAIN: Final = re.compile(rb"\b(TIMESTAMP)\s*:?=\s*(?:DEFAULT|0(?:\.0*)?)\s*(?:,|\Z)", re.IGNORECASE)
READ_LOCK: Final = re.compile(rb"\bWITH\s+READ\s+LOCK\b|\bFOR\s+EXPORT\b", re.IGNORECASE)
ASSIGNS: Final = frozenset((b"SET", b"CALL", b"GET", b"LOAD", b"EXPLAIN", b"FETCH"))

_steps: dict[tuple[bytes, bool], tuple[Step, ...]] = {}


def steps(text: bytes, ansi: bool = False) -> tuple[Step, ...]:
    """What `text` may do to the session. `ansi`: sql_mode has ANSI_QUOTES, so that what is in double quotes is a name.

    Too many steps cost a question to the server; what cannot be read is E_UNKNOWN or has no name. Remembered for short texts.
    """
    found = _steps.get((text, ansi))
    if found is None:
        found = tuple(step for piece in statements(text[:LOOKED_AT]) for step in _steps_of(piece, ansi))
        if len(text) <= MAX_CACHED_TEXT:
            if len(_steps) >= MAX_CACHED:
                _steps.clear()
            _steps[text, ansi] = found
    return found


def statements(text: bytes) -> list[bytes]:
    """The statements of a text, without comments; what is in executable ones stays. Linear in the length of the text."""
    found: list[bytes] = []
    parts: list[bytes] = []
    start = 0
    for match in PIECES.finditer(text):
        if match.lastgroup == "kept":
            continue
        parts.append(text[start : match.start()])
        start = match.end()
        if match.lastgroup == "comment":
            parts.append(b" ")
        else:
            found.append(b"".join(parts))
            parts = []
    parts.append(text[start:])
    found.append(b"".join(parts))
    return [piece for piece in found if piece.strip()]


def _steps_of(text: bytes, ansi: bool) -> list[Step]:
    """The steps of one statement."""
    match = WORD.match(text)
    word = match[1].upper() if match else b""
    found: list[Step] = []
    if b"@" in text and (word in ASSIGNS or b":=" in text or INTO_VARIABLE.search(text.upper())):
        found += [(E_ASSIGN, _variable(name)) for name in dict.fromkeys(VARIABLE.findall(text))]
    if LOCK_WORD in text.upper():
        release = (E_UNLOCK_ALL if ALL_LOCKS.match(text) else E_UNLOCK, UNREAD)
        for lock in _unquoted_locks(text):
            found.append(release if lock["release"] else (E_LOCK, lock["name"] or (not ansi and lock["quoted"]) or UNREAD))
    reader = READERS.get(word)
    return found + reader(text) if reader is not None else found


def _unquoted_locks(text: bytes) -> Iterator[re.Match[bytes]]:
    """What LOCKS finds, but for what stands in a string. In linear time."""
    pieces = PIECES.finditer(text)
    piece = next(pieces, None)
    for lock in LOCKS.finditer(text):
        while piece is not None and piece.end() <= lock.start():
            piece = next(pieces, None)
        if piece is None or lock.start() <= piece.start():
            yield lock


def _variable(name: bytes) -> bytes:
    """A user variable's name in one form: their case does not matter."""
    if name[:1] in b"`'\"":
        name = name[1:-1].replace(b"``", b"`")
    return name.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")


def _name(name: bytes) -> bytes:
    return name.strip(b"`").lower()


def _set(text: bytes) -> list[Step]:
    match = ROLE.match(text)
    if match is not None:
        return [(E_ROLE_DEFAULT if match[1] else E_ROLE, UNREAD)]
    return [(E_DEFAULT, name.lower()) for name in DEFAULT_AGAIN.findall(text)]


def _create(text: bytes) -> list[Step]:
    match = TEMPORARY.match(text)
    return [(E_TEMPORARY, match[1] or UNREAD)] if match is not None else []


def _drop(text: bytes) -> list[Step]:
    match = NAMED.match(text)
    return [(E_DEALLOCATE, _name(match[1]))] if match is not None else [(E_DROP, UNREAD)]


def _rename(text: bytes) -> list[Step]:
    return [(E_RENAME, UNREAD)] if b"RENAME" in text.upper() else []


def _prepare(text: bytes) -> list[Step]:
    match = PREPARED.match(text)
    if match is None:
        return [(E_PREPARE, UNREAD), (E_OPAQUE, UNREAD)]
    name = _name(match[1])
    readable = match[2] and b"LOCK" not in text.upper()
    return [(E_PREPARE, name)] if readable else [(E_PREPARE, name), (E_OPAQUE, name)]


def _execute(text: bytes) -> list[Step]:
    match = NAMED.match(text)
    name = UNREAD if match is None else _name(match[1])
    return [(E_UNKNOWN, UNREAD if name == b"immediate" else name)]


def _call(text: bytes) -> list[Step]:
    del text
    return [(E_UNKNOWN, UNREAD)]


def _lock(text: bytes) -> list[Step]:
    return [(E_TABLES, b"INSTANCE" if text.upper().split()[1:2] == [b"INSTANCE"] else UNREAD)]


def _unlock(text: bytes) -> list[Step]:
    return [(E_UNLOCK_TABLES, b"INSTANCE" if text.upper().split()[1:2] == [b"INSTANCE"] else UNREAD)]


def _flush(text: bytes) -> list[Step]:
    return [(E_TABLES, FLUSHED)] if READ_LOCK.search(text) else []


def _backup(text: bytes) -> list[Step]:
    ends = b"UNLOCK" in text.upper() or text.upper().split()[-1:] == [b"END"]
    return [(E_UNLOCK_TABLES if ends else E_TABLES, b"BACKUP")]


def _handler(text: bytes) -> list[Step]:
    match = HANDLER.match(text)
    if match is None:
        return []
    return [(E_HANDLER, _name(match[3] or match[1]))] if match[2] else [(E_HANDLER_CLOSE, _name(match[1]))]


def _xa(text: bytes) -> list[Step]:
    verb = text.upper().split()[1:2]
    if verb in ([b"START"], [b"BEGIN"]):
        return [(E_XA, UNREAD)]
    return [(E_XA_END, UNREAD)] if verb in ([b"COMMIT"], [b"ROLLBACK"]) else []


def _begin(text: bytes) -> list[Step]:
    del text
    return [(E_BEGIN, UNREAD)]


READERS: Final = {
    b"SET": _set, b"CREATE": _create, b"DROP": _drop, b"ALTER": _rename, b"RENAME": _rename, b"PREPARE": _prepare, b"EXECUTE": _execute,
    b"DEALLOCATE": _drop, b"CALL": _call, b"LOCK": _lock, b"UNLOCK": _unlock, b"FLUSH": _flush, b"BACKUP": _backup, b"HANDLER": _handler,
    b"XA": _xa, b"BEGIN": _begin, b"START": _begin,
}  # fmt: skip

# ------------------------------------------------------------------------------------------------------- what we answer ourselves

Q_CONNECTION_ID: Final = 1
Q_ROW_COUNT: Final = 2
Q_FOUND_ROWS: Final = 3
Q_WARNING_COUNT: Final = 4
Q_ERROR_COUNT: Final = 5
Q_SHOW_WARNINGS: Final = 6
Q_SHOW_ERRORS: Final = 7

ALIAS: Final = rb"(?:\s+(?:AS\s+)?[`\"']?(\w+)[`\"']?)?"
QUESTION: Final = re.compile(
    rb"\s*(?:"
    rb"SELECT\s+(?:"
    rb"(?P<connection>(?:CONNECTION_ID\s*\(\s*\)|@@(?:SESSION\.)?PSEUDO_THREAD_ID))"
    rb"|(?P<rowcount>ROW_COUNT\s*\(\s*\))"
    rb"|(?P<found>FOUND_ROWS\s*\(\s*\))"
    rb"|(?P<warnings>@@(?:SESSION\.)?WARNING_COUNT)"
    rb"|(?P<errors>@@(?:SESSION\.)?ERROR_COUNT)"
    rb")" + ALIAS + rb"|SHOW\s+(?:(?P<countwarnings>COUNT\s*\(\s*\*\s*\)\s*WARNINGS)|(?P<counterrors>COUNT\s*\(\s*\*\s*\)\s*ERRORS)"
    rb"|(?P<showwarnings>WARNINGS)|(?P<showerrors>ERRORS))(?P<limit>\s+LIMIT\s+\d+(?:\s*,\s*\d+)?)?"
    rb")\s*+(?:;\s*+)?\Z",
    re.IGNORECASE,
)
KINDS: Final = {
    "connection": Q_CONNECTION_ID,
    "rowcount": Q_ROW_COUNT,
    "found": Q_FOUND_ROWS,
    "warnings": Q_WARNING_COUNT,
    "errors": Q_ERROR_COUNT,
    "countwarnings": Q_WARNING_COUNT,
    "counterrors": Q_ERROR_COUNT,
    "showwarnings": Q_SHOW_WARNINGS,
    "showerrors": Q_SHOW_ERRORS,
}


class Question:
    """A statement whose answer is the session's own: `kind` is a Q_ number, `name` the name of its column, the rest is its LIMIT."""

    __slots__ = ("count", "kind", "name", "offset")

    def __init__(self, kind: int, name: bytes, offset: int, count: int) -> None:
        self.kind = kind
        self.name = name
        self.offset = offset
        self.count = count


UNLIMITED: Final = 1 << 30


def local_question(text: bytes) -> Question | None:
    """What `text` asks, if it is exactly one of the questions that we can answer, with or without an alias."""
    match = QUESTION.match(text)
    if match is None:
        return None
    for group, kind in KINDS.items():
        words = match[group]
        if words is not None:
            offset, count = _limit(match["limit"])
            return Question(kind, match[6] or _column_name(group, words), offset, count)
    return None


def _column_name(group: str, words: bytes) -> bytes:
    if group == "countwarnings":
        return b"@@session.warning_count"
    return b"@@session.error_count" if group == "counterrors" else words


def _limit(clause: bytes | None) -> tuple[int, int]:
    if not clause:
        return 0, UNLIMITED
    numbers = [int(word) for word in re.findall(rb"\d+", clause)]
    return (0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


KILL: Final = re.compile(
    rb"KILL\s+(?:(?:HARD|SOFT)\s+)?(?:(CONNECTION|QUERY)\s+)?(?:(\d+)|CONNECTION_ID\s*\(\s*\))\s*+(?:;\s*+)?\Z", re.IGNORECASE
)


def kill_target(text: bytes, own_id: int) -> tuple[int, bool] | None:
    """Whom a KILL statement means: a connection id, and whether the connection goes too. None for its other forms."""
    match = KILL.match(skip_space(text))
    if match is None:
        return None
    return int(match[2] or own_id), (match[1] or b"").upper() != b"QUERY"


# ------------------------------------------------------------------------------------------------ numbers that stand for a session

N_CONNECTION_ID: Final = "connection"
N_ROW_COUNT: Final = "rowcount"
N_FOUND_ROWS: Final = "found"
N_WARNINGS: Final = "warnings"
N_ERRORS: Final = "errors"

NUMBERS: Final = re.compile(
    rb"(?<![\w.`@$])(?:(?P<connection>CONNECTION_ID)|(?P<rowcount>ROW_COUNT)|(?P<found>FOUND_ROWS))\s*\(\s*\)"
    rb"|@@(?:SESSION\s*\.\s*)?(?:(?P<warnings>WARNING_COUNT)|(?P<errors>ERROR_COUNT))\b",
    re.IGNORECASE,
)
READING: Final = frozenset((b"SELECT", b"INSERT", b"UPDATE", b"DELETE", b"REPLACE", b"DO", b"SET", b"WITH", b"VALUES", b"CALL"))
"""Statements that are carried out now. (What CREATE VIEW says is for others.)"""
SERVERS_IDS: Final = re.compile(
    rb"PROCESSLIST|USED_LOCK|PERFORMANCE_SCHEMA|INFORMATION_SCHEMA|INNODB_TRX|THREAD_ID\b|\bSYS`?\s*\.", re.IGNORECASE
)
"""Beside these, CONNECTION_ID() is compared with ids of the server's, so it must be one itself."""
ITEMS: Final = re.compile(
    rb"(?P<open>\()|(?P<close>\))|(?P<comma>,)|(?P<over>\b(?:FROM|INTO|WHERE|UNION|EXCEPT|INTERSECT|LIMIT|ORDER|GROUP|HAVING|FOR|PROCEDURE)\b)",
    re.IGNORECASE,
)
SELECT: Final = re.compile(rb"\s*SELECT\b(?:\s+(?:ALL|DISTINCT|DISTINCTROW|HIGH_PRIORITY|STRAIGHT_JOIN|SQL_\w+)\b)*", re.IGNORECASE)
WITHOUT_ALIAS: Final = re.compile(rb"(?:\)|_COUNT|(?<![\w.])\d+(?:\.\d+)?)\Z", re.IGNORECASE)
MAX_ALIAS: Final = 60
"""A name of a column may have 64 characters in a table, 256 in a result."""


def with_numbers(text: bytes, values: dict[str, int | None]) -> bytes | None:
    """`text` with the numbers in `values`, by their N_ names, in the place of what reads them; its columns are called as before.

    None: it reads a number that is None. What stands behind the first statement of a text is about the one before it: only
    CONNECTION_ID() is replaced there.
    """
    shape = _shape(text[:LOOKED_AT])
    edits: list[tuple[int, int, bytes]] = []
    for start, end in _statement_spans(shape):
        numbers = _numbers(text, shape, start, end, values)
        for number in numbers:
            value = values[number.lastgroup or ""]
            if value is None:
                return None
            edits.append((number.start(), number.end(), b"CAST(%d AS %s)" % (value, b"SIGNED" if value < 0 else b"UNSIGNED")))
        edits += [(over, over, b" AS `" + text[begin:over] + b"`") for begin, over in _unnamed_columns(shape, start, end, numbers)]
    return _edited(text, edits)


DIAGNOSTICS: Final = re.compile(
    rb"\s*GET\s+(?:CURRENT\s+)?DIAGNOSTICS\s+(@[\w.$]+\s*=\s*(?:NUMBER|ROW_COUNT)(?:\s*,\s*@[\w.$]+\s*=\s*(?:NUMBER|ROW_COUNT))*)\s*+(?:;\s*+)?\Z",
    re.IGNORECASE,
)
ASKED_OF_STATEMENT: Final = re.compile(rb"=\s*(NUMBER|ROW_COUNT)", re.IGNORECASE)


def diagnostics_as_set(text: bytes, conditions: int, row_count: int) -> bytes | None:
    """A GET DIAGNOSTICS of the statement's own information as a SET with these values; None for any other."""
    match = DIAGNOSTICS.match(text)
    if match is None:
        return None
    values = {b"NUMBER": b"=%d" % conditions, b"ROW_COUNT": b"=%d" % row_count}
    return b"SET " + ASKED_OF_STATEMENT.sub(lambda asked: values[asked[1].upper()], match[1])


def _numbers(text: bytes, shape: bytes, start: int, end: int, values: dict[str, int | None]) -> list[re.Match[bytes]]:
    """What reads one of the numbers in `values`, in the statement from `start` to `end`."""
    word = WORD.match(shape, start)
    if word is None or word[1].upper() not in READING:
        return []
    wanted = {name for name in values if not start or name == N_CONNECTION_ID}
    if SERVERS_IDS.search(text, start, end):
        wanted.discard(N_CONNECTION_ID)
    return [match for match in NUMBERS.finditer(shape, start, end) if match.lastgroup in wanted]


def _shape(text: bytes) -> bytes:
    """`text` with letters in the place of what is quoted, and blanks in the place of comments; each byte where it was."""
    parts: list[bytes] = []
    start = 0
    for match in PIECES.finditer(text):
        if match.lastgroup != "end":
            parts.append(text[start : match.start()])
            parts.append((b"q" if match.lastgroup == "kept" else b" ") * (match.end() - match.start()))
            start = match.end()
    parts.append(text[start:])
    return b"".join(parts)


def _unnamed_columns(shape: bytes, start: int, end: int, numbers: list[re.Match[bytes]]) -> list[tuple[int, int]]:
    """The columns of a SELECT that contain one of `numbers` and are called by their text."""
    select = SELECT.match(shape, start, end)
    if select is None or not numbers:
        return []
    found: list[tuple[int, int]] = []
    starts = [number.start() for number in numbers]
    for begin, over in _items(shape, select.end(), end):
        item = shape[begin:over].rstrip()
        begin, over = over - len(shape[begin:over].lstrip()), begin + len(item)
        inside = bisect_left(starts, begin) < bisect_left(starts, over)
        if inside and over - begin <= MAX_ALIAS and WITHOUT_ALIAS.search(item):
            found.append((begin, over))
    return found


def _items(shape: bytes, first: int, end: int) -> list[tuple[int, int]]:
    """Where the items of a list begin and end, of which the first begins at `first`."""
    found: list[tuple[int, int]] = []
    depth = 0
    for match in ITEMS.finditer(shape, first, end):
        depth += (match.lastgroup == "open") - (match.lastgroup == "close")
        if depth == 0 and match.lastgroup in ("comma", "over"):
            found.append((first, match.start()))
            first = match.end()
            if match.lastgroup == "over":
                return found
    return [*found, (first, end)]


GLOBAL_SCOPE: Final = re.compile(rb"(?<!@@)\b(?:GLOBAL|PERSIST|PERSIST_ONLY)\b", re.IGNORECASE)
"""It is for the assignments behind it as well."""
UNSCOPED_ITEM: Final = re.compile(rb"\s*" + UNSCOPED.pattern)
DEFINING: Final = frozenset((b"CREATE", b"ALTER"))


def with_scopes(text: bytes) -> bytes:
    """`text` with `@@session.name` in the place of each `@@name` that a SET assigns to. It means the same, but MariaDB's trackers do not
    report the short form. A SET of global variables, or a definition of a procedure, stays as it is."""
    shape = _shape(text[:LOOKED_AT])
    edits: list[tuple[int, int, bytes]] = []
    for start, end in _statement_spans(shape):
        match = WORD.match(shape, start, end)
        word = match[1].upper() if match is not None else b""
        if word in DEFINING:
            break
        if match is not None and word == b"SET" and not GLOBAL_SCOPE.search(shape, start, end):
            for begin, over in _items(shape, match.end(), end):
                assigned = UNSCOPED_ITEM.match(shape, begin, over)
                if assigned is not None:
                    edits.append((assigned.end(), assigned.end(), b"session."))
    return _edited(text, edits)


def _statement_spans(shape: bytes) -> Iterator[tuple[int, int]]:
    """Where each statement of a text begins and ends; the text as `_shape` gives it, so that no string has a semicolon."""
    start = 0
    while start < len(shape):
        end = shape.find(b";", start)
        end = len(shape) if end < 0 else end
        yield start, end
        start = end + 1


def _edited(text: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """`text` with other bytes in the place of some stretches."""
    parts: list[bytes] = []
    position = 0
    for start, end, instead in sorted(edits):
        parts += [text[position:start], instead]
        position = end
    parts.append(text[position:])
    return b"".join(parts)


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

SETTING: Final = re.compile(rb"\s*(?:SET|USE|CREATE|DROP|ALTER)\b", re.IGNORECASE)


def sets(text: bytes) -> bool:
    """Is there a statement in `text` (or in its packet) whose work it is to set variables, or the schema?"""
    return any(SETTING.match(one) for one in statements(unpacked(text)))


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
