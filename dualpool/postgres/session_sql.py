"""The SQL that we write ourselves: what gives a session its settings, and what asks for all that it holds.

It is read by the session as the client before has left it, so nothing in it depends on a setting. It is plain ASCII, which means the same
in every client_encoding. No string in it has a backslash or a quotation mark: whatever is more than plain letters is written as hexadecimal
digits. Values are kept as the bytes that the server itself has, in its own encoding (as `messages.text`), so that none is ever converted.

Sources: PostgreSQL docs, "System Administration Functions", "System Views", "Character Set Support", "String Constants".
"""

import re
from collections.abc import Container, Iterable
from typing import Final

from dualpool.postgres import messages, wire
from dualpool.postgres.sql import (
    AT_DEFAULT,
    COMPUTED,
    CURSOR,
    LIBRARY,
    LISTENING,
    LOCK,
    PREPARED,
    SEQUENCE,
    SETTINGS,
    TEMPORARY,
    UNKNOWN,
    setting_name,
)
from dualpool.state import MAX_CACHED_BYTES, MAX_CACHED_DIFFERENCES, Settings

PLAIN: Final = re.compile(r"[ -&(-\[\]-~]*+")
"""What stands for itself in a string: printable ASCII without quotation mark and backslash."""
ROLES: Final = ("session_authorization", "role")
"""Another session user ends the role."""
LIMITS: Final = ("statement_timeout", "lock_timeout", "transaction_timeout")
"""The client's own; our statements are not to be struck by them. PostgreSQL before 17 has no transaction_timeout, so nobody has set it."""
MAX_ARGUMENTS: Final = 1000
"""Calls in one SELECT; a target list has at most 1664 entries."""
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Whatever the default is: one of them may wait (default_transaction_deferrable)."""
TINY_SECONDS: Final = 0.01
DURATION: Final = re.compile(r"\s*+([0-9]++(?:\.[0-9]*+)?)\s*+(us|ms|s|min|h|d|)\s*+")
UNITS: Final = {"us": 1e-6, "": 1e-3, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def constant(text: str) -> str:
    """SQL that means `text`, the server's own bytes, whatever the session's settings are."""
    if PLAIN.fullmatch(text):
        return f"'{text}'"
    digits = messages.raw(text).hex()
    return f"pg_catalog.convert_from(pg_catalog.decode('{digits}', 'hex'), pg_catalog.getdatabaseencoding())"


def digits_of(expression: str) -> str:
    """SQL for the bytes of a text, as the server has them, in hexadecimal digits: no client_encoding converts those."""
    return f"pg_catalog.encode(pg_catalog.convert_to({expression}, pg_catalog.getdatabaseencoding()), 'hex')"


def from_digits(digits: bytes) -> str:
    """What `digits_of` has brought."""
    return messages.text(bytes.fromhex(digits.decode("ascii")))


def set_all(values: Iterable[tuple[str, str | None]]) -> list[str]:
    """Statements that give settings their values; None, AT_DEFAULT: the default."""
    calls = [
        f"pg_catalog.set_config({constant(name)}, {'NULL' if value in (None, AT_DEFAULT) else constant(value)}, false) IS NULL"
        for name, value in values
    ]
    return ["SELECT " + ", ".join(calls[start : start + MAX_ARGUMENTS]) for start in range(0, len(calls), MAX_ARGUMENTS)]


def set_unset(values: Iterable[tuple[str, str]]) -> list[str]:
    """Statements that give those of the settings their values that nobody has set in the session (docs: pg_settings, `source`).

    The view does not show placeholders. One that was reset is empty.
    """
    return [
        f"SELECT pg_catalog.set_config({constant(name)}, {constant(value)}, false) IS NULL"
        + (
            f" WHERE pg_catalog.current_setting({constant(name)}, true) OPERATOR(pg_catalog.=) ''"
            if is_placeholder(name)
            else " FROM pg_catalog.pg_settings"
            f" WHERE pg_catalog.lower(name) OPERATOR(pg_catalog.=) {constant(name)} AND source OPERATOR(pg_catalog.<>) 'session'"
        )
        for name, value in values
    ]


INSIDE: Final = b"dualpool_settings"
"""The name of a statement and a portal that are there only between other messages of ours."""


def set_inside(values: list[tuple[str, str | None]]) -> bytes:
    """Messages that give settings their values within an extended query: they are taken back with the rest of it if that fails."""
    return b"".join(
        (
            wire.message(wire.PARSE, b"%b\0%b\0\0\0" % (INSIDE, set_all(values)[0].encode())),
            wire.message(wire.BIND, b"%b\0%b\0\0\0\0\0\0\0" % (INSIDE, INSIDE)),
            wire.message(wire.EXECUTE, INSIDE + b"\0\0\0\0\0"),
            wire.message(wire.CLOSE, b"P%b\0" % INSIDE),
            wire.message(wire.CLOSE, b"S%b\0" % INSIDE),
        )
    )


def is_placeholder(name: str, defined: Container[str] = ()) -> bool:
    """Is it a setting that the server does not know before it is set, and never forgets: RESET leaves its default, mostly an empty text?

    `defined`: those of extensions. (plpgsql is loaded when it is used first; its settings are then defined.)
    """
    return "." in name and name not in defined and not name.startswith("plpgsql.")


def has_tiny_limit(values: dict[str, str]) -> bool:
    """Is there a time limit in which not even a statement of ours is certain to end?"""
    for name in ("statement_timeout", "transaction_timeout"):
        match = DURATION.fullmatch(values.get(name, ""))
        if match is not None and 0 < float(match[1]) * UNITS[match[2]] < TINY_SECONDS:
            return True
    return False


class Restoration:
    """What brings a session from the settings of one client to those of another.

    `data` is simple Queries, `queries` of them. The first lifts time limits, if there are any; what comes next does not depend on it. The
    last is a transaction block: should a part of it fail, the session is left in a failed transaction. What the client has sent behind it
    is then refused, and not carried out in the name, and with the rights, of the client before.
    """

    __slots__ = ("data", "picky", "queries", "tiny")

    def __init__(self, actual: dict[str, str], wanted: dict[str, str]) -> None:
        limits = [name for name in LIMITS if name in actual]
        changed = {name: wanted.get(name) for name in (*actual, *wanted) if actual.get(name) != wanted.get(name) or name in limits}
        first: list[tuple[str, str | None]] = []
        last: list[tuple[str, str | None]] = []
        if any(name in changed for name in ROLES) or (changed and any(name in actual for name in ROLES)):
            # The other settings may need the rights that the session had at its start.
            first = [(name, None) for name in reversed(ROLES) if name in actual]
            last = [(name, wanted[name]) for name in ROLES if name in wanted]
        ordinary = [name for name in changed if name not in ROLES and name not in LIMITS]
        own_limits = [name for name in changed if name in LIMITS]
        statements = set_all(first) + set_all((name, changed[name]) for name in (*ordinary, *own_limits)) + set_all(last)
        queries = [wire.query(text.encode()) for text in set_all((name, "0") for name in limits)]
        queries.append(wire.query("; ".join([BEGIN, *statements, "COMMIT"]).encode()))
        self.data = b"".join(queries)
        self.queries = len(queries)
        self.picky = any(map(is_placeholder, wanted))
        """Afterwards the session has placeholders; `tiny`: a limit that must not be left to others."""
        self.tiny = has_tiny_limit(wanted)


class Restorations:
    """Remembers them for the pairs of settings that were asked for."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[Settings, Settings], Restoration] = {}

    def between(self, actual: Settings, wanted: Settings) -> Restoration:
        """What turns `actual` into `wanted`. (Placeholders that only `actual` has become empty.)"""
        pair = (actual, wanted)
        found = self._known.get(pair)
        if found is None:
            found = Restoration(actual.values, wanted.values)
            if len(found.data) <= MAX_CACHED_BYTES:
                if len(self._known) >= MAX_CACHED_DIFFERENCES:
                    self._known.clear()
                self._known[pair] = found
        return found


RESTORATIONS: Final = Restorations()


FORGET_SEQUENCES: Final = wire.query(b"DISCARD SEQUENCES")

# What a session begins with.


def defaults_of(user: str) -> str:
    """An expression that is another one after each ALTER ROLE or ALTER DATABASE .. SET or RESET that matters to sessions of `user` here.

    (A transaction that changes a row gives it its own number.)
    """
    return (
        "pg_catalog.concat('=', (SELECT pg_catalog.string_agg(pg_catalog.concat(setdatabase, '/', setrole, '/', xmin), ','"
        " ORDER BY setdatabase, setrole) FROM pg_catalog.pg_db_role_setting WHERE setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT"
        " oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())]) AND setrole"
        f" OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) {user})])))"
    )


SURVEY: Final = (
    f"SELECT {defaults_of('session_user')}, pg_catalog.current_setting('role'), (SELECT pg_catalog.string_agg(name, ',')"
    " FROM pg_catalog.pg_settings WHERE pg_catalog.strpos(name, '.') OPERATOR(pg_catalog.>) 0)"
)
"""Of a new session: its defaults, its role, and the settings of extensions."""

# The questions. Every name is qualified, and no operator is written without its schema: the search path is the client's.
_IS: Final = "OPERATOR(pg_catalog.=)"
QUESTIONS: Final = {
    LOCK: f"SELECT FROM pg_catalog.pg_locks WHERE locktype {_IS} 'advisory' AND pid {_IS} pg_catalog.pg_backend_pid()",
    # Whatever is in a schema depends on it: tables, types, functions.
    TEMPORARY: f"SELECT FROM pg_catalog.pg_depend WHERE refclassid {_IS} 'pg_catalog.pg_namespace'::pg_catalog.regclass"
    f" AND refobjid {_IS} pg_catalog.pg_my_temp_schema()",
    CURSOR: "SELECT FROM pg_catalog.pg_cursors WHERE is_holdable",
    PREPARED: "SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql",
    LISTENING: "SELECT FROM pg_catalog.pg_listening_channels()",
}
LETTERS: Final = {LOCK: "l", TEMPORARY: "t", CURSOR: "c", PREPARED: "p", LISTENING: "n"}
TEMPORARY_SCHEMA: Final = b"s"
"""Told with TEMPORARY: there is one, or was."""
SESSION_SETTINGS: Final = (
    f" UNION ALL SELECT name, {digits_of('setting')} FROM pg_catalog.pg_settings WHERE source {_IS} 'session'"
    f" UNION ALL SELECT shown, {digits_of('pg_catalog.current_setting(name, true)')}"
    " FROM (VALUES ('role'::pg_catalog.text, 'role'::pg_catalog.text), ('session_authorization', 'session_authorization')"
)
CHANNELS: Final = " UNION ALL SELECT NULL, channel FROM pg_catalog.pg_listening_channels() AS channel"
UNHURRIED: Final = "SET LOCAL statement_timeout = 0; "
"""The client's own time limit is not for our questions."""


def told_as(name: str) -> str:
    """How the answer calls a setting: by what no client_encoding converts. No setting's name begins with an equals sign."""
    return name if name.isascii() else f"={messages.raw(name).hex()}"


def told(name: bytes) -> str:
    """The name of a setting that the answer calls so."""
    return from_digits(name[1:]) if name[:1] == b"=" else setting_name(name)


def probe(kinds: int, names: Iterable[str] = ()) -> str:
    """SQL that tells which of `kinds` the session holds: a row with an empty name and the LETTERS of those.

    With LISTENING, a row without a name for every channel. With SETTINGS, a row for every setting of the session, and for each of `names`,
    with the digits of its value. (Names that are not ASCII: see `told_as`.)
    """
    cases = "".join(f", CASE WHEN EXISTS ({QUESTIONS[kind]}) THEN '{LETTERS[kind]}' END" for kind in QUESTIONS if kinds & kind)
    if kinds & TEMPORARY:
        cases += ", CASE WHEN pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0 THEN 's' END"
    text = f"SELECT ''::pg_catalog.text AS name, pg_catalog.concat(''{cases}) AS setting"
    if kinds & LISTENING:
        text += CHANNELS
    if kinds & SETTINGS:
        asked = "".join(f", ({constant(told_as(name))}, {constant(name)})" for name in sorted(names))
        text += f"{SESSION_SETTINGS}{asked}) AS asked(shown, name)"
    return text


def holdings(letters: bytes) -> int:
    """The kinds that a probe's first row tells."""
    return sum(kind for kind, letter in LETTERS.items() if letter.encode() in letters)


HOLDINGS: Final = {
    LOCK: ("advisory lock", "pg_advisory_unlock"),
    TEMPORARY: ("temporary table", "DROP, or DISCARD TEMP"),
    CURSOR: ("cursor", "CLOSE"),
    PREPARED: ("prepared statement", "DEALLOCATE"),
    LISTENING: ("listen", "UNLISTEN"),
    LIBRARY: ("library", "the client disconnects"),
    COMPUTED: ("setting", "DISCARD ALL"),
    SEQUENCE: ("sequence", "DISCARD ALL"),
    UNKNOWN: ("unknown state", "the next transaction"),
}
"""What each pin is called, and what ends it."""
