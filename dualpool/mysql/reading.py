"""What a statement's text does, read once: `read()` gives the one value that the relays consult.

Harmless is proven: the text was lexed to its end, each statement is of a kind on a list, and each function that it calls is known to leave
nothing in a session. What is tracked by a rule of its own has marks and steps. For all else there is a step E_DOUBT: after the statement
the server is asked what its session holds.

Sources: MySQL Reference Manual, "SQL Statements", "Information Functions", "Locking Functions", "User-Defined Variables"; MariaDB
Knowledge Base, "Programmatic & Compound Statements", "SET STATEMENT".
"""

import re
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from dualpool.mysql.functions import EVERYWHERE, IN_MARIADB_10_11, IN_MYSQL_8, IN_MYSQL_UNTIL_9_5, UNQUOTED, UNSPACED
from dualpool.mysql.states import (
    D_ALL,
    D_ANYTHING,
    D_CHANGES,
    D_HANDLERS,
    D_INSERT_ID,
    D_LOCKS,
    D_VARIABLES,
    E_ASKING,
    E_ASSIGN,
    E_BEGIN,
    E_CREATE,
    E_DEALLOCATE,
    E_DEFAULT,
    E_DOUBT,
    E_DROP,
    E_HANDLER,
    E_HANDLER_CLOSE,
    E_INNER,
    E_KEPT,
    E_LOCK,
    E_OPAQUE,
    E_PREPARE,
    E_RENAME,
    E_ROLE,
    E_ROLE_DEFAULT,
    E_TABLES,
    E_TEMPORARY,
    E_UNCOUNT,
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
from dualpool.sql_text import NUMBER, PARAMETER, QUOTED, SIGN, STRING, VARIABLE, WORD, Lexed, Lexis, lex

# ---------------------------------------------------------------------------------------------------------- marks of a statement

M_INSERT_ID: Final = 1
"""It reads LAST_INSERT_ID(), or @@last_insert_id, or @@identity; or it sets sql_auto_is_null, by which others do."""
M_SETS_INSERT_ID: Final = 2
"""LAST_INSERT_ID(expression): the session's value changes, which no reply says."""
M_CALC_FOUND_ROWS: Final = 4
M_COLLATES: Final = 8
"""It may set what the trackers do not report, or not reliably: a collation, a default, or a value for one statement."""
M_LOCAL: Final = 16
"""It is one that we may answer ourselves: `Reading.question` says which."""
M_KILL: Final = 32
M_USE: Final = 64
M_DIAGNOSTICS: Final = 128
"""It reads the diagnostics area of the statement before it."""
M_STEPS: Final = 256
"""It may do to the session what the trackers do not report: see `Reading.steps`."""
M_OWN_ID: Final = 512
"""It reads CONNECTION_ID(); and M_NUMBERS: what only the session knows that the statement before ran in. See `Reading.numbers`."""
M_NUMBERS: Final = 1024
M_STRICT: Final = 2048
"""Strict mode: no answer is passed on unseen."""
M_UNSCOPED: Final = 4096
"""It assigns to `@@name`: see `Reading.scopes`."""
M_DOUBT: Final = 8192
"""The server will be asked what its session holds."""
M_SEQUENCE: Final = 16384
"""MariaDB: it uses a sequence, the last value of which belongs to a session: see `Reading.reads_sequences`."""
M_SERVERS_IDS: Final = 32768
"""It may compare numbers with the ids that the server gives its sessions: see `Reading.ids`."""

M_PREVIOUS: Final = 65536
"""In the middle of several statements it reads the diagnostics area, which may still be that of what ran there before them."""
M_FOUND_BEHIND: Final = 131072
"""It reads FOUND_ROWS() behind statements that leave it as it was before them."""

M_COUNT_UNREAD: Final = 262144
"""It is not certain, and may read ROW_COUNT()."""

M_EXECUTES: Final = 524288
"""It is EXECUTE of what PREPARE has prepared."""
ASKS_PREVIOUS: Final = M_LOCAL | M_DIAGNOSTICS | M_NUMBERS | M_PREVIOUS | M_FOUND_BEHIND | M_COUNT_UNREAD
"""One of these is there where a statement may tell of the one before it."""

# What we answer ourselves.
Q_CONNECTION_ID: Final = 1
Q_ROW_COUNT: Final = 2
Q_FOUND_ROWS: Final = 3
Q_WARNING_COUNT: Final = 4
Q_ERROR_COUNT: Final = 5
Q_SHOW_WARNINGS: Final = 6
Q_SHOW_ERRORS: Final = 7
UNLIMITED: Final = 1 << 30

# Numbers that stand for a session.
N_CONNECTION_ID: Final = "connection"
N_ROW_COUNT: Final = "rowcount"
N_FOUND_ROWS: Final = "found"
N_WARNINGS: Final = "warnings"
N_ERRORS: Final = "errors"


SIGNED_NUMBERS: Final = frozenset((N_ROW_COUNT, N_FOUND_ROWS))
OVER: Final = ord("o")


class Question:
    """A statement whose answer is the session's own: `kind` is a Q_ number, `name` the name of its column, the rest is its LIMIT."""

    __slots__ = ("count", "kind", "name", "offset", "variable")

    def __init__(self, kind: int, name: bytes, offset: int = 0, count: int = UNLIMITED, *, variable: bool = False) -> None:
        self.variable = variable
        """It is asked as a system variable."""
        self.kind = kind
        self.name = name
        self.offset = offset
        self.count = count


class Number:
    """A place in a text that reads a number which the session knows: its N_ name, and from where to where."""

    __slots__ = ("end", "name", "start")

    def __init__(self, name: str, start: int, end: int) -> None:
        self.name = name
        self.start = start
        self.end = end


class Reading:
    """What one text does. Immutable once made; shared by all that send the text."""

    __slots__ = (
        "alters_database",
        "calls_users",
        "columns",
        "defines",
        "diagnostics",
        "drops",
        "forgets_warnings",
        "ids",
        "key",
        "kill",
        "makes_sequences",
        "marks",
        "names_tables",
        "numbers",
        "question",
        "reads_sequences",
        "results",
        "scopes",
        "sets",
        "several",
        "steps",
        "sure_steps",
    )

    def __init__(self) -> None:
        self.marks = 0
        self.steps: tuple[Step, ...] = ()
        """What it may do to the session."""
        self.sure_steps: tuple[Step, ...] = ()
        """The same without its doubt, for one that was asked about often enough."""
        self.calls_users = False
        """It calls what a user has defined, or may have."""
        self.key = b""
        """The text without its values, by which what was found out about its doubt is remembered; b"": it is asked about each time."""
        self.question: Question | None = None
        self.kill: tuple[int, bool] | None = None
        """Which connection a KILL means (-1: its own), and whether the connection goes too. None: another form, or no KILL."""
        self.diagnostics: tuple[tuple[bytes, bool], ...] = ()
        """A GET DIAGNOSTICS of the statement's own information: each variable as SQL, and whether it gets NUMBER (else ROW_COUNT)."""
        self.drops = ""
        """The database that it drops."""
        self.names_tables = False
        """Its statements work on tables, which may be views, or have triggers."""
        self.forgets_warnings: bool | None = None
        """MariaDB: a statement in it uses a table, by which the warnings of the one before are forgotten. None: that is not known."""
        self.several = False
        """It is of several statements, or may be: of these, some may have been carried out when it fails."""
        self.sets = False
        """A statement in it has the work to set variables, or the schema."""
        self.defines = False
        """It makes, changes or drops what other statements may run: a function, a trigger, a view, ..."""
        self.scopes: tuple[int, ...] = ()
        """Where `session.` is to be put in front of a name that is assigned to."""
        self.numbers: tuple[Number, ...] = ()
        self.ids: tuple[Number, ...] = ()
        """Numbers that may be ids of clients, beside ids of the server's."""
        self.alters_database = False
        self.reads_sequences: frozenset[bytes] | None = frozenset()
        """The sequences whose last value it reads (LASTVAL() and its like); None: it cannot be told which."""
        self.makes_sequences: frozenset[bytes] = frozenset()
        """Those of which it makes a new value for certain, if it succeeds."""
        self.results: tuple[bool, ...] = ()
        """For each statement, as the server counts them: may it have several results, with an OK behind them? (). It is not known."""
        self.columns: tuple[tuple[int, int], ...] = ()
        """From where to where: columns that would have another name with other `numbers` in them."""

    def with_values(self, text: bytes, values: dict[str, int | None]) -> bytes | None:
        """The text with scopes, and with the numbers in `values` (by their N_ names) in the place of what reads them; columns keep their
        names. None: it reads a number that is None."""
        edits: list[tuple[int, int, bytes]] = [(place, place, b"session.") for place in self.scopes]
        put: list[int] = []
        for number in self.numbers:
            if number.name in values:
                value = values[number.name]
                if value is None:
                    return None
                put.append(number.start)
                # (With few digits, MariaDB makes an INT of it.)
                digits = b"%d" % value if number.name == N_CONNECTION_ID else b"%020d" % value
                instead = b"CAST(%b AS %s)" % (digits, b"SIGNED" if number.name in SIGNED_NUMBERS else b"UNSIGNED")
                if number.name == N_FOUND_ROWS:
                    # (It stays there, because MySQL warns that it is deprecated.)
                    instead = b"IF(%b<0,0,%b)" % (text[number.start : number.end], instead)
                edits.append((number.start, number.end, instead))
        for begin, over in self.columns:
            if bisect_left(put, begin) < bisect_left(put, over):
                edits.append((over, over, b" AS `" + _cut(text[begin:over]).replace(b"`", b"``") + b"`"))
        return _edited(text, edits) if edits else text

    def with_ids(self, text: bytes, find: Callable[[int], int]) -> bytes:
        """The text with other numbers in the place of its `ids`, where `find` knows one (else it says 0)."""
        edits: list[tuple[int, int, bytes]] = []
        for place in self.ids:
            number = find(int(text[place.start : place.end]))
            if number:
                edits.append((place.start, place.end, b"%d" % number))
        return _edited(text, edits) if edits else text

    def more_follows(self, parts: bytes) -> bool:
        """Does another result follow the one that has begun? `parts`: of those that are over, b"r" for rows and b"o" for an OK."""
        results = self.results
        done = 0
        for part in parts:
            # (CALL ends with an OK, whatever results it has.)
            done += part == OVER or (done < len(results) and not results[done])
        return done + 1 < len(results) or (done < len(results) and results[done])

    def reads(self, names: "dict[str, int | None]") -> bool:
        """Is one of these numbers read?"""
        return any(number.name in names for number in self.numbers)

    def as_set(self, conditions: int, row_count: int) -> bytes | None:
        """Its GET DIAGNOSTICS as a SET with these values; None for other statements, and where a condition is asked for."""
        if not self.diagnostics:
            return None
        values = (b"%d" % row_count, b"CAST(%d AS UNSIGNED)" % conditions)
        return b"SET " + b",".join(b"%b=%b" % (name, values[number]) for name, number in self.diagnostics)


def _edited(text: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """`text` with other bytes in the place of some stretches."""
    parts: list[bytes] = []
    position = 0
    for start, end, instead in sorted(edits):
        parts += [text[position:start], instead]
        position = end
    parts.append(text[position:])
    return b"".join(parts)


# -------------------------------------------------------------------------------------------------------------- the one entrance

MAX_CACHED: Final = 2048
MAX_CACHED_TEXT: Final = 2048
MODES_UNKNOWN: Final = "modes?"
"""A flag of a Lexis: the server's default sql_mode is not known yet, so what depends on it is not certain."""
MYSQL_8: Final = "mysql8"
MYSQL_9_6: Final = "mysql9.6"
MARIADB_10_11: Final = "mariadb10.11"
_FUNCTIONS: Final = {
    MYSQL_8: EVERYWHERE | IN_MYSQL_8 | IN_MYSQL_UNTIL_9_5,
    MYSQL_9_6: EVERYWHERE | IN_MYSQL_8,
    MARIADB_10_11: EVERYWHERE | IN_MARIADB_10_11,
}
_readings: dict[tuple[bytes, Lexis | None], Reading] = {}


def read(text: bytes, lexis: Lexis | None) -> Reading:
    """The reading of `text` in a session that reads by `lexis` (None: nobody knows how). Remembered for short texts."""
    found = _readings.get((text, lexis))
    if found is None:
        lexed = None
        if lexis is not None and not (MODES_UNKNOWN in lexis.flags and (b"\\" in text or b'"' in text)):
            lexed = lex(text, lexis)
        found = uncertain(text) if lexed is None or lexis is None else _Reader(lexed, lexis).reading()
        if len(text) <= MAX_CACHED_TEXT:
            if len(_readings) >= MAX_CACHED:
                _readings.clear()
            _readings[text, lexis] = found
    return found


MAX_GUILTY: Final = 1024
_guilty: set[bytes] = set()


def accuse(texts: set[bytes], lexis: Lexis | None) -> None:
    """One of these has left in its session what nobody saw. From now on all of them, whatever their values, are in doubt.

    (COMMIT and its like carry out what was said before; a text that calls a user's code is one that names something.) What was read before
    is to be forgotten.
    """
    for text in texts:
        lexed = lex(text, lexis) if lexis is not None else None
        if lexed is not None and len(lexed) > 2 and len(_guilty) < MAX_GUILTY:
            _guilty.add(_masked(lexed))


def flavour(version: str) -> str:
    """Whose functions are built in, by the server's version; "" where only those are that all have."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if "MariaDB" in version:
        return MARIADB_10_11 if numbers >= (10, 11) else ""
    if numbers >= (9, 6):
        return MYSQL_9_6
    return MYSQL_8 if numbers >= (8, 0, 31) else ""


def forget_readings() -> None:
    """Read every text again. (Who remembers what `read` has said forgets it first: shapes.forget.)"""
    _readings.clear()


# ---------------------------------------------------------------------------------------------------------------- not certain

_SEEN: Final = (b"HANDLER", b"FLUSH", b"BACKUP", b"CALL", b"EXECUTE")
LONGEST_SIGN: Final = 32
"""More than the longest of the words: so many bytes of one stretch are looked at again with the next."""


def dangers(part: bytes) -> int:
    """D_ bits for a stretch of a text that was not lexed: more than it does, never less. (What it calls is D_ALL's matter.)"""
    upper = part.upper()
    found = 0
    if any(word in upper for word in _SEEN):
        found = D_HANDLERS
    if b"@" in upper and (b":=" in upper or b"INTO" in upper):
        found |= D_VARIABLES
    if b"GET_" in upper and b"_LOCK" in upper:
        found |= D_LOCKS
    return found


BEGUN_UNREAD: Final = {
    E_ROLE: re.compile(rb"""\bSET\b[^=;'"]{0,200}?\bROLE\b""", re.IGNORECASE),
    E_TEMPORARY: re.compile(rb"""\bCREATE\b[^;'"]{0,200}?\bTEMPORARY\b""", re.IGNORECASE),
    E_PREPARE: re.compile(rb"""(?:\A|[;!\n])[\s\d]{0,20}PREPARE\b[^;'"]{0,200}?\bFROM\b""", re.IGNORECASE),
}
"""What not every server tells, and no reset ends: it counts as begun where a text that is not certain looks like it."""


ASKING_UNREAD: Final = {
    M_FOUND_BEHIND: re.compile(rb"FOUND_ROWS", re.IGNORECASE),
    M_COUNT_UNREAD: re.compile(rb"ROW_COUNT", re.IGNORECASE),
    M_PREVIOUS: re.compile(rb"WARNING|ERROR|DIAGNOSTICS", re.IGNORECASE),
}
"""What a text that is not certain may tell of the statement before it."""


def _without_comments(text: bytes) -> bytes:
    """A guess at what there is between the comments. Executable ones stay."""
    if b"/*" in text:
        parts: list[bytes] = []
        for piece in text.split(b"*/"):
            before, _, comment = piece.partition(b"/*")
            parts += [before, comment if comment[:1] == b"!" or comment[:2] == b"M!" else b""]
        text = b" ".join(parts)
    return b"\n".join(line.partition(b"#")[0].partition(b"--")[0] for line in text.split(b"\n"))


def uncertain(text: bytes) -> Reading:
    """The Reading of a text that could not be lexed. Anything may be in it.

    A statement of SET in it is what the trackers' report of a change is about, as far as we are told.
    """
    found = Reading()
    doubt = D_ALL | dangers(text)
    if b"SET" in text.upper():
        doubt |= D_CHANGES
    bare = _without_comments(text)
    begun = [(kind, UNREAD) for kind, words in BEGUN_UNREAD.items() if words.search(text) or words.search(bare)]
    found.steps = ((E_DOUBT, bytes((doubt,))), *begun)
    found.sure_steps = tuple(begun)
    found.calls_users = found.several = True
    found.marks = M_STEPS | M_DOUBT | M_INSERT_ID
    for mark, about in ASKING_UNREAD.items():
        if about.search(text):
            found.marks |= mark
    if SEQUENCE_WORDS.search(text):
        found.marks |= M_SEQUENCE
        found.reads_sequences = None
    if len(text) <= MAX_CACHED_TEXT:
        found.key = text
    return found


# -------------------------------------------------------------------------------------------------------------------- certain

HARMLESS: Final = frozenset(
    b"select insert update delete replace values with do table explain describe desc show commit rollback savepoint release help "
    b"checksum analyze optimize check repair truncate use kill load import signal resignal grant revoke install uninstall shutdown "
    b"restart change stop reset purge cache clone start begin flush get create alter drop rename set prepare deallocate lock unlock "
    b"handler backup xa".split()
)
"""By their first word: what leaves nothing in a session, or only what its steps say."""
DEFINITIONS: Final = frozenset((b"create", b"alter", b"drop", b"rename", b"grant", b"revoke"))
"""Here a word before a bracket is a type or a table, unless a SELECT is carried out."""
PROGRAMS: Final = frozenset((b"procedure", b"function", b"trigger", b"event", b"package"))
DEFINED: Final = frozenset((b"procedure", b"function", b"trigger", b"view", b"package", b"database", b"schema"))
ASSIGNS: Final = frozenset((b"set", b"call", b"get", b"load", b"explain", b"describe", b"desc", b"fetch"))
SETTING: Final = frozenset((b"set", b"use", b"create", b"drop", b"alter"))
READING: Final = frozenset((b"select", b"insert", b"update", b"delete", b"replace", b"do", b"set", b"with", b"values", b"call"))
"""Statements that are carried out now. (What CREATE VIEW says is for others.)"""
SERVERS_IDS: Final = (b"processlist", b"used_lock", b"performance_schema", b"information_schema", b"innodb_trx", b"thread_id")
"""Beside these, CONNECTION_ID() is compared with ids of the server's, so it must be one itself."""
BEFORE_NAMES: Final = frozenset(
    b"into insert replace ignore low_priority high_priority delayed as with recursive view table references".split()
)
"""A name behind one of these is that of a table or of a type, also with a bracket behind it."""
NAMES: Final = frozenset((WORD, QUOTED))
OPERANDS: Final = frozenset((STRING, NUMBER, PARAMETER, VARIABLE))
OVER_ITEMS: Final = frozenset(b"from into where union except intersect limit order group having for procedure".split())
SELECT_OPTIONS: Final = frozenset(
    b"all distinct distinctrow high_priority straight_join sql_small_result sql_big_result sql_buffer_result sql_no_cache sql_cache "
    b"sql_calc_found_rows".split()
)
ABOUT_CHARACTERS: Final = (b"collat", b"charset", b"character", b"default")
GLOBAL_SCOPES: Final = frozenset((b"global", b"persist", b"persist_only"))
FOR_NEXT_TRANSACTION: Final = frozenset((b"transaction_isolation", b"transaction_read_only", b"tx_isolation", b"tx_read_only"))
"""`SET @@name` of these is for the next transaction, `SET @@session.name` is not (Reference Manual, "SET TRANSACTION Statement")."""
LOCK_NAME: Final = re.compile(rb"['\"]([ !#-&(-\[\]-~]+)['\"]\Z")
ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
"""A character behind a backslash. (Of those that mean another one, none is in a word.)"""
PLAIN_STRING: Final = re.compile(rb"(?:'([^'\\]*)'|\"([^\"\\]*)\")\Z")
MAX_TITLE: Final = 255
"""A server cuts the text by which it calls a column, between two letters."""
ZERO: Final = re.compile(rb"0(?:\.0*)?\Z")
NUMBERS_OF_FUNCTIONS: Final = {b"connection_id": N_CONNECTION_ID, b"row_count": N_ROW_COUNT, b"found_rows": N_FOUND_ROWS}
NUMBERS_OF_VARIABLES: Final = {b"warning_count": N_WARNINGS, b"error_count": N_ERRORS}
ONLY_UNQUOTED: Final = frozenset((b"row_count",))
"""Of these, a word of the grammar: in quotes MySQL looks for a function of the user's. (To MariaDB it is the same, and is asked.)"""
QUESTIONS: Final = {
    N_CONNECTION_ID: Q_CONNECTION_ID, N_ROW_COUNT: Q_ROW_COUNT, N_FOUND_ROWS: Q_FOUND_ROWS, N_WARNINGS: Q_WARNING_COUNT,
    N_ERRORS: Q_ERROR_COUNT,
}  # fmt: skip
LOCKING: Final = frozenset((b"get_lock", b"service_get_read_locks", b"service_get_write_locks"))
RELEASING: Final = frozenset((b"release_lock", b"release_all_locks", b"service_release_locks"))
OWN_RULES: Final = frozenset((*NUMBERS_OF_FUNCTIONS, b"last_insert_id", b"get_lock", b"release_lock", b"release_all_locks"))
SEQUENCES: Final = frozenset((b"lastval", b"nextval", b"setval", b"currval"))
"""MariaDB's: what they leave in a session is found by their names."""
SEQUENCE_WORDS: Final = re.compile(rb"LASTVAL|CURRVAL|PREVIOUS", re.IGNORECASE)
ABOUT_PREVIOUS: Final = frozenset((b"warnings", b"errors", b"diagnostics", b"warning_count", b"error_count"))
COUNTED: Final = frozenset((b"select", b"show", b"(", b"with", b"values", b"table", b"explain", b"desc", b"describe"))
"""How statements begin that set FOUND_ROWS()."""
ON_TABLES: Final = frozenset(b"from insert update delete replace load table join call handler execute".split())
RUNNING: Final = frozenset((b"call", b"execute"))
FORGETTING: Final = frozenset(
    b"tables show describe desc help truncate view trigger function procedure sequence nextval setval lastval value checksum grant revoke "
    b"user database schema".split()
)
PERHAPS: Final = frozenset(b"select if ifnull nullif nvl nvl2 coalesce case elt decode and or xor duplicate returning".split())
"""Beside these, what stands in a list of values may not be worked out."""
ABOUT_SESSIONS: Final = re.compile(rb"processlist|thread_id", re.IGNORECASE)
EXPLAINING_OTHERS: Final = frozenset((b"explain", b"describe", b"desc", b"analyze", b"show"))
SEVERAL_RESULTS: Final = frozenset((b"call", b"execute"))
FIRST_CLIENT: Final = 1_000_000_000
"""Ids of clients are greater (clients.FIRST_ID), and have 31 bits."""


def _cut(title: bytes) -> bytes:
    """A column's name as the server makes it of this text. (Its encoding is UTF-8 mostly; it is long hardly ever.)"""
    cut = title[:MAX_TITLE]
    return cut if cut.isascii() or len(title) <= MAX_TITLE else cut.decode("utf-8", "ignore").encode()


def _masked(lexed: Lexed) -> bytes:
    """A text without its literals."""
    return b" ".join(b"?" if kind in (STRING, NUMBER) else word for kind, word in zip(lexed.kinds, lexed.words, strict=True))


class _Reader:
    """Reads the statements of one text, one after another."""

    __slots__ = (
        "compound",
        "defined",
        "doubt",
        "first",
        "found",
        "harmless",
        "inner",
        "kinds",
        "last",
        "learnable",
        "lexed",
        "lexis",
        "multiple",
        "numbers",
        "steps",
        "word",
        "words",
    )

    def __init__(self, lexed: Lexed, lexis: Lexis) -> None:
        self.lexed = lexed
        self.lexis = lexis
        self.kinds = lexed.kinds
        self.words = lexed.words
        self.harmless = next((_FUNCTIONS[flag] for flag in lexis.flags if flag in _FUNCTIONS), EVERYWHERE)
        self.found = Reading()
        self.steps: list[Step] = []
        self.numbers: list[Number] = []
        self.doubt = 0
        self.inner: Reading | None = None
        """Of the text in PREPARE or EXECUTE IMMEDIATE."""
        self.learnable = True
        self.compound = False
        self.multiple = False
        self.first = self.last = 0
        """The tokens of the statement that is being read."""
        self.word = b""
        """Its first word."""

    def reading(self) -> Reading:
        """Read all of it."""
        spans = self._statements()
        found = self.found
        found.several = self.multiple = len(spans) > 1
        results: list[bool] = []
        for self.first, self.last in spans:
            self._statement()
            results.append(self.compound or self.word in SEVERAL_RESULTS)
            if self.compound:
                break
        if spans and not self.compound and self._comment_at_end(spans[-1][1]):
            results.append(False)  # Behind the last semicolon a comment is a statement of its own.
        found.results = tuple(results)
        if self.multiple:
            self._mark_previous(spans)
        if self.steps or self.doubt or found.defines:
            found.marks |= M_STEPS
        if _guilty and _masked(self.lexed) in _guilty:
            found.marks |= M_STEPS
            found.calls_users = True
            self._mark_doubt(D_ALL, learnable=False)
        found.names_tables = not ON_TABLES.isdisjoint(self.words)
        words = set(self.words)
        if not (words.isdisjoint(ON_TABLES - RUNNING) and words.isdisjoint(FORGETTING)):
            found.forgets_warnings = True
        elif words.isdisjoint(RUNNING):
            found.forgets_warnings = False
        if E_PREPARE in {kind for kind, _ in self.steps} or self.inner is not None:
            found.forgets_warnings = None if self.inner is None or self.multiple else self.inner.forgets_warnings
        found.sure_steps = tuple(self.steps)
        if self.doubt:
            found.marks |= M_DOUBT
            if self.doubt & D_INSERT_ID:
                found.marks |= M_INSERT_ID
            self.steps.append((E_DOUBT, bytes((self.doubt,))))
            if self.learnable:
                found.key = _masked(self.lexed)
        found.steps = tuple(self.steps)
        found.numbers = tuple(self.numbers)
        return found

    def _statements(self) -> list[tuple[int, int]]:
        """The first token of each statement, and the one behind its last. Here a semicolon in brackets ends a statement as well."""
        spans: list[tuple[int, int]] = []
        start = 0
        kinds = self.kinds
        for index, word in enumerate(self.words):
            if word == b";" and kinds[index] == SIGN:
                if index > start:
                    spans.append((start, index))
                start = index + 1
        if len(kinds) > start:
            spans.append((start, len(kinds)))
        return spans

    def _mark_previous(self, spans: list[tuple[int, int]]) -> None:
        """Of several statements: do some read what the statement in front of them has left, where that may be another text's?"""
        words = self.words
        counted = False
        for first, last in spans:
            begins = first == spans[0][0]
            asks = words[first] in (b"show", b"get") or any(word in NUMBERS_OF_VARIABLES for word in words[first:last])
            if asks and any(word in ABOUT_PREVIOUS for word in words[first:last]) and (begins or not self._is_mysql()):
                self.found.marks |= M_PREVIOUS
            if b"found_rows" in map(bytes.lower, words[first:last]) and not counted and not begins:
                self.found.marks |= M_FOUND_BEHIND
            counted = counted or words[first] in COUNTED

    def _is_mysql(self) -> bool:
        """Does each statement but those about warnings forget the warnings of the one before? (MariaDB's only if it uses a table.)"""
        return not self.lexis.flags.isdisjoint((MYSQL_8, MYSQL_9_6))

    def _comment_at_end(self, last: int) -> bool:
        """Is there something behind the semicolon behind the last statement, the one before token `last`?"""
        return last < len(self.kinds) and self.lexed.source[self.lexed.ends[-1] :].strip(b"; \t\r\n\v\f") != b""

    # ----------------------------------------------------------------------------------------------------------- small questions

    def _is(self, index: int, *words: bytes) -> bool:
        """Do these words without quotes stand from token `index` on, in this statement?"""
        end = index + len(words)
        return end <= self.last and all(self.kinds[index + n] == WORD and self.words[index + n] == word for n, word in enumerate(words))

    def _sign(self, index: int, sign: bytes) -> bool:
        return index < self.last and self.kinds[index] == SIGN and self.words[index] == sign

    def _has(self, *words: bytes) -> bool:
        """Is one of these words in the statement, without quotes?"""
        return any(self.kinds[index] == WORD and self.words[index] in words for index in range(self.first, self.last))

    def _name(self, index: int) -> bytes:
        """The name that token `index` is, in lower case; UNREAD where it is none."""
        if index >= self.last or self.kinds[index] not in (WORD, QUOTED):
            return UNREAD
        word = self.words[index]
        return word.lower() if word.isascii() else word

    def _source(self, first: int, last: int) -> bytes:
        return self.lexed.source[self.lexed.starts[first] : self.lexed.ends[last]]

    def _mark_doubt(self, doubt: int, *, learnable: bool = True) -> None:
        self.doubt |= doubt
        self.learnable = self.learnable and learnable

    def _step(self, kind: int, name: bytes = UNREAD) -> None:
        self.steps.append((kind, name))

    # -------------------------------------------------------------------------------------------------------------- one statement

    def _statement(self) -> None:
        first = self.first
        while self._sign(first, b"("):
            first += 1
        self.word = word = self.words[first] if first < self.last and self.kinds[first] == WORD else b""
        if word == b"begin" and not (self.last == first + 1 or (self._is(first + 1, b"work") and self.last == first + 2)):
            # MariaDB's BEGIN NOT ATOMIC ... END: statements within it end where ours would.
            self.compound = True
            word = b""
        if word == b"start" and not self._is(first + 1, b"transaction"):
            word = b""
        rule = RULES.get(word)
        if word not in HARMLESS and rule is None:
            self.compound = True
            self._mark_doubt(D_ALL | D_ANYTHING, learnable=False)
        self.found.sets = self.found.sets or word in SETTING
        self._tokens(word)
        if rule is not None:
            rule(self, first)
        if word in READING:
            self._own_numbers(first)
        if word in DEFINITIONS:
            self._definition(first)
        self._question(first)

    def _definition(self, first: int) -> None:
        """CREATE, ALTER, DROP, ..."""
        if self._has(*DEFINED):
            self.found.defines = True
        if self.word in (b"create", b"alter") and self._has(*PROGRAMS) and self.multiple:
            # Which semicolon ends the body is not known here, nor what stands behind it.
            self.compound = True
            self._mark_doubt(D_ALL | D_ANYTHING, learnable=False)

    def _tokens(self, word: bytes) -> None:
        """What stands anywhere in the statement: functions, user variables, variables of the session."""
        first, last = self.first, self.last
        whole = first == 0 and last == len(self.kinds)
        kinds = self.kinds if whole else self.kinds[first:last]
        words = self.words if whole else self.words[first:last]
        found = self.found
        if b"(" in words and (word not in DEFINITIONS or self._has(b"select", b"values")):
            for index, other in enumerate(words):
                if other == b"(" and index and kinds[index] == SIGN and kinds[index - 1] in NAMES:
                    self._call(first + index - 1, kinds[index - 1])
        if b"@@" in words:
            for index, other in enumerate(words):
                if other == b"@@" and kinds[index] == SIGN:
                    self._system(first + index)
        if b"sql_calc_found_rows" in words:
            found.marks |= M_CALC_FOUND_ROWS
        if b"returning" in words:
            found.marks |= M_SETS_INSERT_ID  # The end of a result does not tell it.
        if b"sql_auto_is_null" in words:
            found.marks |= M_INSERT_ID
        if not SEQUENCES.isdisjoint(words) or b"previous" in words or (b"next" in words and b"value" in words):
            self._sequences(first)
        if (word in EXPLAINING_OTHERS and b"for" in words) or ABOUT_SESSIONS.search(self._source(first, last - 1)):
            self._ids()
        if b"value" in words and any(self._is(first + n, b"value", b"for") for n in range(len(words))):
            found.calls_users = True  # MariaDB: NEXT VALUE FOR sequence
        if VARIABLE in kinds:
            self._variables(word, kinds, words)

    def _ids(self) -> None:
        """Where numbers stand that may be ids of clients."""
        self.found.marks |= M_SERVERS_IDS
        lexed = self.lexed
        for n in range(self.first, self.last):
            if self.kinds[n] == NUMBER and self.words[n].isdigit() and FIRST_CLIENT < int(self.words[n]) < 1 << 31:
                self.found.ids += (Number(N_CONNECTION_ID, lexed.starts[n], lexed.ends[n]),)

    def _sequences(self, first: int) -> None:
        """MariaDB: LASTVAL(name), PREVIOUS VALUE FOR name, name.CURRVAL; NEXTVAL(name), NEXT VALUE FOR name, name.NEXTVAL."""
        found = self.found
        read: list[bytes] = []
        made: list[bytes] = []
        used = False
        last = 0
        for n in range(self.first, self.last):
            if self.kinds[n] != WORD:
                continue
            word = self.words[n]
            names = made if word in (b"nextval", b"next") else read
            if word in (b"lastval", b"nextval", b"currval") and self._sign(n + 1, b"("):
                name, last = self._sequence_name(n + 2)
                names.append(name if self._sign(last, b")") and word != b"currval" else UNREAD)
                last += 1
            elif word in (b"previous", b"next") and self._is(n + 1, b"value", b"for"):
                name, last = self._sequence_name(n + 3)
                names.append(name)
            elif word in (b"currval", b"nextval") and self._sign(n - 1, b"."):
                begin = n - 4 if self._sign(n - 3, b".") else n - 2
                names.append(self._sequence_name(begin, n - 1)[0] if begin >= self.first else UNREAD)
                last = n + 1
            used = used or bool(names)
        if not used:
            return
        found.marks |= M_SEQUENCE
        found.calls_users = True
        if UNREAD in read or found.reads_sequences is None:
            found.reads_sequences = None
        else:
            found.reads_sequences |= frozenset(read)
        if made and UNREAD not in made and self._is_certain(first, last, len(made)):
            found.makes_sequences = frozenset(made)

    def _sequence_name(self, index: int, end: int = 0) -> tuple[bytes, int]:
        """The name of a sequence at token `index`, with its schema, and the token behind it."""
        parts: list[bytes] = []
        end = end or self.last
        while index < end and self.kinds[index] in NAMES:
            parts.append(self._name(index))
            if index + 1 >= end or not self._sign(index + 1, b"."):
                return b".".join(parts), index + 1
            index += 2
        return UNREAD, index

    def _is_certain(self, first: int, last: int, count: int) -> bool:
        """Is a value made of each sequence whenever the statement succeeds? `last`: the token behind what makes the last one."""
        if self.multiple:
            return False
        words = {self.words[n] for n in range(self.first, self.last) if self.kinds[n] == WORD}
        if self.word == b"select":
            behind = last + 1 if self._is(last, b"as") else last
            return count == 1 and self._begins(first + 1) and self.last - behind <= 1 and words.isdisjoint(PERHAPS - {b"select"})
        signs = {self.words[n] for n in range(self.first, self.last) if self.kinds[n] == SIGN}
        lists = not words.isdisjoint((b"values", b"value"))
        return self.word in (b"insert", b"replace") and lists and words.isdisjoint(PERHAPS) and signs.isdisjoint((b"&&", b"||", b"&", b"|"))

    def _begins(self, index: int) -> bool:
        """Does what makes a value of a sequence stand at token `index`?"""
        if self._is(index, b"nextval") or self._is(index, b"next", b"value", b"for"):
            return True
        while index + 1 < self.last and self.kinds[index] in NAMES and self._sign(index + 1, b"."):
            index += 2
        return self._is(index, b"nextval") and self._sign(index - 1, b".")

    def _variables(self, word: bytes, kinds: list[int], words: list[bytes]) -> None:
        """User variables: are they assigned to?"""
        assigned = word in ASSIGNS or b":=" in words
        if not assigned and b"into" in words:
            assigned = any(kind == VARIABLE and words[n - 1] == b"into" for n, kind in enumerate(kinds) if n)
        if assigned:
            for name in dict.fromkeys(one for one, kind in zip(words, kinds, strict=True) if kind == VARIABLE):
                self._step(E_ASSIGN, name)

    def _system(self, index: int) -> None:
        """`@@name`, `@@session.name`."""
        name = index + 1
        if self._is(name, b"session") and self._sign(name + 1, b"."):
            name += 2
        word = self._name(name)
        if word in (b"last_insert_id", b"identity", b"insert_id"):
            self.found.marks |= M_INSERT_ID
        elif word in NUMBERS_OF_VARIABLES:
            self.found.marks |= M_NUMBERS

    def _call(self, index: int, kind: int) -> None:
        """A name with a bracket behind it."""
        words, kinds = self.words, self.kinds
        base = index
        while base - 2 >= self.first and self._sign(base - 1, b".") and kinds[base - 2] in (WORD, QUOTED):
            base -= 2
        if base > self.first:
            before = kinds[base - 1]
            if before == WORD and words[base - 1] in BEFORE_NAMES:
                return
            if before in OPERANDS or (before == SIGN and words[base - 1] == b")"):
                return
        name = words[index].lower()
        if base == index:
            spaced = self.lexed.starts[index + 1] != self.lexed.ends[index] and name in UNSPACED
            if name in self.harmless and not spaced and not (kind == QUOTED and name in UNQUOTED):
                return
            if name in OWN_RULES and not (name in ONLY_UNQUOTED and not self._number_of(index)):
                self._own_rule(name, index, kind)
                return
            if name in SEQUENCES:
                self.found.calls_users = True
                return
        self.found.calls_users = True
        if name in LOCKING or name in RELEASING:
            self._step(E_LOCK if name in LOCKING else E_UNLOCK)
        self._mark_doubt(D_ALL)

    def _own_rule(self, name: bytes, index: int, kind: int) -> None:
        """A function of the server's that touches the session, or reads what is the session's own."""
        found = self.found
        if name == b"last_insert_id":
            found.marks |= M_INSERT_ID
            if not self._sign(index + 2, b")"):
                found.marks |= M_SETS_INSERT_ID
        elif name == b"get_lock":
            literal = LOCK_NAME.match(self.words[index + 2]) if index + 3 < self.last and self.kinds[index + 2] == STRING else None
            self._step(E_LOCK, literal[1] if literal and self._sign(index + 3, b",") else UNREAD)
        elif name in RELEASING:
            self._step(E_UNLOCK_ALL if name == b"release_all_locks" and self._is_only(index) else E_UNLOCK)
        elif kind in (WORD, QUOTED) and self._sign(index + 2, b")"):
            found.marks |= M_OWN_ID if name == b"connection_id" else M_NUMBERS

    def _is_only(self, index: int) -> bool:
        """Is SELECT or DO of this call, with or without an alias, the whole statement?"""
        if self.word not in (b"select", b"do") or index != self.first + 1 or not self._sign(index + 2, b")"):
            return False
        return all(kind in (WORD, QUOTED) for kind in self.kinds[index + 3 : self.last]) and self.last - index <= 5

    # --------------------------------------------------------------------------------------------- numbers that stand for a session

    def _own_numbers(self, first: int) -> None:
        """Where CONNECTION_ID() and its like are read. Behind the first statement of a text, numbers are about the statement before."""
        if not self.found.marks & (M_OWN_ID | M_NUMBERS):
            return
        lexed, words, kinds = self.lexed, self.words, self.kinds
        begins = self.first == self._first_of_all()
        own_id = not any(
            kinds[n] in (WORD, QUOTED) and any(part in words[n].lower() for part in SERVERS_IDS) for n in range(self.first, self.last)
        ) and not any(self._name(n) == b"sys" and self._sign(n + 1, b".") for n in range(self.first, self.last))
        numbers: list[tuple[int, Number]] = []
        for index in range(self.first, self.last):
            if kinds[index] in (WORD, QUOTED):
                name = self._number_of(index)
                if name and self._sign(index + 1, b"(") and self._sign(index + 2, b")") and not self._sign(index - 1, b"."):
                    numbers.append((index, Number(name, lexed.starts[index], lexed.ends[index + 2])))
            elif self._sign(index, b"@@"):
                last = index + 3 if self._is(index + 1, b"session") and self._sign(index + 2, b".") else index + 1
                name = NUMBERS_OF_VARIABLES.get(self._name(last), "")
                if name:
                    numbers.append((index, Number(name, lexed.starts[index], lexed.ends[last])))
        numbers = [(n, one) for n, one in numbers if (own_id if one.name == N_CONNECTION_ID else begins)]
        self.numbers += [one for _, one in numbers]
        if numbers and self.word == b"select":
            self._unnamed_columns(first + 1, [n for n, _ in numbers])

    def _number_of(self, index: int) -> str:
        """The N_ name of what a function of this name tells; "" for other functions."""
        word = self.words[index].lower()
        if self.kinds[index] == QUOTED and word in ONLY_UNQUOTED and MARIADB_10_11 not in self.lexis.flags:
            return ""
        return NUMBERS_OF_FUNCTIONS.get(word, "")

    def _first_of_all(self) -> int:
        """The first token of the text that is no semicolon."""
        return next((n for n, word in enumerate(self.words) if word != b";" or self.kinds[n] != SIGN), 0)

    def _unnamed_columns(self, index: int, numbers: list[int]) -> None:
        """The columns of a SELECT that contain one of the tokens `numbers` and are called by their text."""
        while index < self.last and self.kinds[index] == WORD and self.words[index] in SELECT_OPTIONS:
            index += 1
        lexed = self.lexed
        columns: list[tuple[int, int]] = []
        for begin, over in self._items(index):
            if bisect_left(numbers, begin) < bisect_left(numbers, over):
                start, end = lexed.starts[begin], lexed.ends[over - 1]
                last = self.words[over - 1]
                called_by_text = self._sign(over - 1, b")") or self.kinds[over - 1] == NUMBER or last.endswith(b"_count")
                if called_by_text:
                    columns.append((start, end))
        self.found.columns += tuple(columns)

    def _items(self, index: int) -> list[tuple[int, int]]:
        """Where the items of a list begin and end, of which the first begins at token `index`."""
        items: list[tuple[int, int]] = []
        depth = 0
        first = index
        for n in range(index, self.last):
            kind, word = self.kinds[n], self.words[n]
            if kind == SIGN:
                depth += (word == b"(") - (word == b")")
                if word == b"," and depth == 0:
                    items.append((first, n))
                    first = n + 1
            elif kind == WORD and depth == 0 and word in OVER_ITEMS:
                return [*items, (first, n)]
        return [*items, (first, self.last)]

    # ------------------------------------------------------------------------------------------------------ what we answer ourselves

    def _question(self, first: int) -> None:
        """Is the text exactly one of the questions that we can answer, with or without an alias?"""
        word = self.word
        if self.multiple or first != self.first or word not in (b"select", b"show"):
            return
        found = self._number_question(first + 1) if word == b"select" else self._warnings_question(first + 1)
        if found is not None:
            self.found.question = found
            self.found.marks |= M_LOCAL

    def _number_question(self, index: int) -> Question | None:
        name, last = "", index
        if index < self.last and self.kinds[index] in (WORD, QUOTED):
            name = self._number_of(index)
            if not (self._sign(index + 1, b"(") and self._sign(index + 2, b")")):
                return None
            last = index + 2
        elif self._sign(index, b"@@"):
            last = index + 3 if self._is(index + 1, b"session") and self._sign(index + 2, b".") else index + 1
            variable = self._name(last)
            name = N_CONNECTION_ID if variable == b"pseudo_thread_id" else NUMBERS_OF_VARIABLES.get(variable, "")
        if not name:
            return None
        title = self._alias(last + 1, _cut(self._source(index, last)))
        return None if title is None else Question(QUESTIONS[name], title, variable=self._sign(index, b"@@"))

    def _alias(self, index: int, name: bytes) -> bytes | None:
        """The alias, with or without AS, that the statement ends with; `name` if it ends without one, None if it ends otherwise."""
        if self._is(index, b"as"):
            index += 1
        if index == self.last:
            return name
        if index != self.last - 1:
            return None
        if self.kinds[index] == STRING:
            literal = PLAIN_STRING.match(self.words[index])
            return (literal[1] or literal[2] or b"") if literal else None
        if self.kinds[index] == QUOTED:
            return self.words[index]
        return self._source(index, index) if self.kinds[index] == WORD else None

    def _warnings_question(self, index: int) -> Question | None:
        """SHOW WARNINGS, SHOW ERRORS, SHOW COUNT(*) ..."""
        if self._is(index, b"count") and self._sign(index + 1, b"(") and self._sign(index + 2, b"*") and self._sign(index + 3, b")"):
            if index + 5 != self.last:
                return None
            if self._is(index + 4, b"warnings"):
                return Question(Q_WARNING_COUNT, b"@@session.warning_count")
            return Question(Q_ERROR_COUNT, b"@@session.error_count") if self._is(index + 4, b"errors") else None
        kind = Q_SHOW_WARNINGS if self._is(index, b"warnings") else Q_SHOW_ERRORS if self._is(index, b"errors") else 0
        if not kind:
            return None
        name = self._source(index, index)
        if index + 1 == self.last:
            return Question(kind, name)
        numbers = [int(self.words[n]) for n in (index + 2, index + 4) if n < self.last and self.words[n].isdigit()]
        if not self._is(index + 1, b"limit"):
            return None
        if index + 3 == self.last and len(numbers) == 1:
            return Question(kind, name, 0, numbers[0])
        if index + 5 == self.last and len(numbers) == 2 and self._sign(index + 3, b","):
            return Question(kind, name, numbers[0], numbers[1])
        return None

    # ------------------------------------------------------------------------------------------------------------ rules of statements

    def _kill(self, first: int) -> None:
        self.found.marks |= M_KILL
        if self.multiple:
            return
        index = first + 1
        if self._is(index, b"hard") or self._is(index, b"soft"):
            index += 1
        connection = not self._is(index, b"query")
        if not connection or self._is(index, b"connection"):
            index += 1
        if index + 1 == self.last and self.words[index].isdigit():
            self.found.kill = int(self.words[index]), connection
        elif index + 3 == self.last and self._is(index, b"connection_id") and self._sign(index + 1, b"(") and self._sign(index + 2, b")"):
            self.found.kill = -1, connection

    def _use(self, first: int) -> None:
        del first
        if not self.multiple:
            self.found.marks |= M_USE

    def _set(self, first: int) -> None:
        found = self.found
        words = [self.words[n] for n in range(first, self.last) if self.kinds[n] == WORD]
        if any(sign in word for word in words for sign in ABOUT_CHARACTERS) or any(self._sign(n, b",") for n in range(first, self.last)):
            found.marks |= M_COLLATES
        if self._is(first + 1, b"role"):
            self._step(E_ROLE_DEFAULT if self._is(first + 2, b"default") and first + 3 == self.last else E_ROLE)
        if self._is(first + 1, b"statement"):
            # The trackers may report what it sets for one statement only, which is read within it.
            found.marks |= M_COLLATES
            inner = next((self.words[n + 1] for n in range(first, self.last - 1) if self._is(n, b"for")), b"")
            if inner not in READING or inner == b"call":
                self._mark_doubt(D_ALL | D_ANYTHING, learnable=False)
            return
        if self._is(first + 1, b"resource"):
            self._step(E_KEPT, b"resource group")
        for n in range(first, self.last):
            if self._is(n, b"timestamp") and self.words[n + 1 : n + 2] in ([b"="], [b":="]) and n + 2 < self.last:
                over = n + 3 == self.last or self._sign(n + 3, b",")
                if over and (self._is(n + 2, b"default") or ZERO.match(self.words[n + 2])):
                    self._step(E_DEFAULT, b"timestamp")
        if not self._has_global():
            self._scopes(first + 1)

    def _has_global(self) -> bool:
        """GLOBAL and its like, which are for the assignments behind them as well. (`@@global.x` is for itself.)"""
        return any(
            self.kinds[n] == WORD and self.words[n] in GLOBAL_SCOPES and not self._sign(n - 1, b"@@") for n in range(self.first, self.last)
        )

    def _scopes(self, index: int) -> None:
        """`@@name = value` means `@@session.name = value`, but MariaDB's trackers do not report the short form."""
        places: list[int] = []
        for begin, _ in self._items(index):
            assigned = self._sign(begin, b"@@") and (self._sign(begin + 2, b"=") or self._sign(begin + 2, b":="))
            if assigned and self._name(begin + 1) not in FOR_NEXT_TRANSACTION:
                places.append(self.lexed.starts[begin + 1])
        if places:
            self.found.scopes += tuple(places)
            self.found.marks |= M_UNSCOPED

    def _get(self, first: int) -> None:
        """GET DIAGNOSTICS."""
        if not self._has(b"diagnostics"):
            return
        if first != self._first_of_all():
            return  # It is about the statement before it, in the same text.
        self.found.marks |= M_DIAGNOSTICS
        index = first + 1
        if self._is(index, b"current"):
            index += 1
        if self.multiple or not self._is(index, b"diagnostics"):
            return
        items: list[tuple[bytes, bool]] = []
        index += 1
        while index + 2 < self.last and self.kinds[index] == VARIABLE and self._sign(index + 1, b"="):
            number = self._is(index + 2, b"number")
            if not number and not self._is(index + 2, b"row_count"):
                return
            items.append((self._source(index, index), number))
            index += 3
            if index == self.last:
                self.found.diagnostics = tuple(items)
                return
            if not self._sign(index, b","):
                return
            index += 1

    def _call_statement(self, first: int) -> None:
        del first
        self.found.marks |= M_COLLATES
        self.found.calls_users = True
        self._mark_doubt(D_ALL)

    def _create(self, first: int) -> None:
        index = first + 1
        if self._is(index, b"or", b"replace"):
            index += 2
        temporary = self._is(index, b"temporary")
        if self._is(index + temporary, b"table") and (temporary or MARIADB_10_11 not in self.lexis.flags):
            self._step(E_CREATE)
        if not temporary:
            return
        index += 1
        if not (self._is(index, b"table") or self._is(index, b"sequence")):
            self._step(E_TEMPORARY)
            return
        index += 1
        if self._is(index, b"if", b"not", b"exists"):
            index += 3
        self._step(E_TEMPORARY, self._table(index))

    def _table(self, index: int) -> bytes:
        """A table's name as SQL; UNREAD where there is none, or one that another character set would change."""
        parts: list[bytes] = []
        while index < self.last and self.kinds[index] in (WORD, QUOTED):
            quoted = self.kinds[index] == QUOTED
            parts.append(b"`%b`" % self.words[index].replace(b"`", b"``") if quoted else self._source(index, index))
            if not self._sign(index + 1, b"."):
                break
            index += 2
        found = b".".join(parts)
        return found if found.isascii() and len(parts) <= 2 else UNREAD

    def _drop(self, first: int) -> None:
        if self._is(first + 1, b"prepare"):
            self._step(E_DEALLOCATE, self._name(first + 2))
            return
        if self._is(first + 1, b"database") or self._is(first + 1, b"schema"):
            index = first + 4 if self._is(first + 2, b"if", b"exists") else first + 2
            if index < self.last and self.kinds[index] in (WORD, QUOTED):
                name = self.words[index] if self.kinds[index] == QUOTED else self._source(index, index)
                self.found.drops = name.decode("utf-8", "surrogateescape")
        self._step(E_DROP)

    def _deallocate(self, first: int) -> None:
        self._step(E_DEALLOCATE, self._name(first + 2))

    def _rename(self, first: int) -> None:
        if self._is(first + 1, b"database") or self._is(first + 1, b"schema"):
            self.found.alters_database = True
            self.found.marks |= M_STEPS
        if self._has(b"rename"):
            self._step(E_RENAME)

    def _prepare(self, first: int) -> None:
        name = self._name(first + 1)
        self._step(E_PREPARE, name)
        self.inner = None
        self._runs(first + 3)
        literal = None
        if first + 4 == self.last and self._is(first + 2, b"from") and self.kinds[first + 3] == STRING:
            literal = PLAIN_STRING.match(self.words[first + 3])
        inner = read(literal[1] or literal[2] or b"", self.lexis) if literal else None
        if inner is None or inner.marks or inner.steps:
            self._step(E_OPAQUE, name)
        asking = inner or self.inner
        if asking is not None and asking.marks & ASKS_PREVIOUS:
            self._step(E_ASKING, name)
        if inner is not None:
            # (What a server does not tell of afterwards, as a temporary table, is known only from here.)
            for kind, of in inner.sure_steps:
                if kind not in (E_UNKNOWN, E_DOUBT) and b"\0" not in name:
                    self._step(E_INNER, b"%b\0%c%b" % (name, kind, of))

    def _execute(self, first: int) -> None:
        """EXECUTE name, EXECUTE IMMEDIATE text. What is not opaque was read when it was prepared."""
        name = self._name(first + 1)
        self.found.marks |= M_DOUBT | M_INSERT_ID | M_EXECUTES
        self._step(E_UNKNOWN, UNREAD if name == b"immediate" else name)
        if name == b"immediate":
            self._runs(first + 2)

    def _runs(self, index: int) -> None:
        """The text at token `index` is run, now or later. Does it read the last value of a sequence, as far as can be seen from here?"""
        source = self._source(index, self.last - 1) if index < self.last else b""
        reads: frozenset[bytes] | None = None
        if index + 1 == self.last and source[:1] in (b"'", b'"') and source[-1:] == source[:1] and source.isascii():
            text = source[1:-1].replace(source[:1] * 2, source[:1])
            self.inner = read(ESCAPED.sub(rb"\1", text) if self.lexis.backslash else text, self.lexis)
            reads = self.inner.reads_sequences
        elif not SEQUENCE_WORDS.search(source.replace(b"\\", b"")):
            return
        if reads is None or reads:
            found = self.found
            found.marks |= M_SEQUENCE
            known = found.reads_sequences
            found.reads_sequences = None if reads is None or known is None else known | reads

    def _lock(self, first: int) -> None:
        self._step(E_TABLES, b"INSTANCE" if self._is(first + 1, b"instance") else UNREAD)

    def _unlock(self, first: int) -> None:
        self._step(E_UNLOCK_TABLES, b"INSTANCE" if self._is(first + 1, b"instance") else UNREAD)

    def _flush(self, first: int) -> None:
        if self._has(b"status"):
            self._step(E_UNCOUNT)
        for n in range(first, self.last):
            if self._is(n, b"with", b"read", b"lock") or self._is(n, b"for", b"export"):
                self._step(E_TABLES, FLUSHED)
                return

    def _backup(self, first: int) -> None:
        ends = self._is(first + 1, b"unlock") or self._is(self.last - 1, b"end")
        self._step(E_UNLOCK_TABLES if ends else E_TABLES, b"BACKUP")

    def _handler(self, first: int) -> None:
        name, index = self._name(first + 1), first + 2
        if self._sign(index, b"."):
            name, index = name + b"." + self._name(index + 1), index + 2
        if self._is(index, b"open"):
            index += 2 if self._is(index + 1, b"as") else 1
            self._step(E_HANDLER, self._name(index) or name)
        elif self._is(index, b"close"):
            self._step(E_HANDLER_CLOSE, name)

    def _xa(self, first: int) -> None:
        if self._is(first + 1, b"start") or self._is(first + 1, b"begin"):
            self._step(E_XA)
        elif self._is(first + 1, b"commit") or self._is(first + 1, b"rollback"):
            self._step(E_XA_END)

    def _begin(self, first: int) -> None:
        del first
        self._step(E_BEGIN)


RULES: Final = {
    b"kill": _Reader._kill, b"use": _Reader._use, b"set": _Reader._set, b"get": _Reader._get, b"call": _Reader._call_statement,
    b"create": _Reader._create, b"drop": _Reader._drop, b"deallocate": _Reader._deallocate, b"alter": _Reader._rename,
    b"rename": _Reader._rename, b"prepare": _Reader._prepare, b"execute": _Reader._execute, b"lock": _Reader._lock,
    b"unlock": _Reader._unlock, b"flush": _Reader._flush, b"backup": _Reader._backup, b"handler": _Reader._handler, b"xa": _Reader._xa,
    b"begin": _Reader._begin, b"start": _Reader._begin,
}  # fmt: skip
"""By a statement's first word."""

# --------------------------------------------------------------------------------------------------------------- rows that are new

SIMPLE_INSERT: Final = re.compile(
    rb"\s*+(?:INSERT|REPLACE)\s++(?:INTO\s++)?([`\w$]++(?:\.[`\w$]++)?)\s*+\(([`\w$,\s]*+)\)\s*+(?:VALUES?|SELECT)\b", re.IGNORECASE
)
"""Nothing in it needs to be lexed."""
COLUMN: Final = re.compile(rb"`?([\w$]+)`?\Z")


def inserted_columns(text: bytes) -> tuple[bytes, frozenset[bytes]] | None:
    """Of an INSERT that only makes new rows: its table as SQL, and the columns that it names, in lower case. None: it may be another."""
    match = SIMPLE_INSERT.match(text)
    if match is None or b";" in text or b"DUPLICATE" in text.upper():
        return None
    names = [COLUMN.match(name.strip()) for name in match[2].split(b",")] if match[2].strip() else []
    if not all(names):
        return None
    return match[1], frozenset(name[1].lower() for name in names if name is not None)
