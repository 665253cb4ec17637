"""The SQL that we write ourselves: what gives a session a setting, and what asks for all that it holds.

Source: PostgreSQL docs, "System Administration Functions", "System Views".
"""

from collections.abc import Iterable
from typing import Final

from dualpool.postgres.sql import COMPUTED, CURSOR, LIBRARY, LISTENING, LOCK, PREPARED, SETTINGS, TEMPORARY, UNKNOWN


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
SESSION_SETTINGS: Final = (
    f" UNION ALL SELECT name, setting FROM pg_catalog.pg_settings WHERE source {_IS} 'session'"
    " UNION ALL SELECT name, pg_catalog.current_setting(name, true) FROM (VALUES ('role'::pg_catalog.text), ('session_authorization')"
)
CHANNELS: Final = " UNION ALL SELECT NULL, channel FROM pg_catalog.pg_listening_channels() AS channel"
UNHURRIED: Final = "SET LOCAL statement_timeout = 0; "
"""The client's own time limit is not for our questions."""


def probe(kinds: int, names: Iterable[str] = ()) -> str:
    """SQL that tells which of `kinds` the session holds: a row with an empty name and the LETTERS of those.

    With LISTENING, a row without a name for every channel. With SETTINGS, a row for every setting of the session, and for each of `names`.
    """
    cases = "".join(f", CASE WHEN EXISTS ({QUESTIONS[kind]}) THEN '{LETTERS[kind]}' END" for kind in QUESTIONS if kinds & kind)
    text = f"SELECT ''::pg_catalog.text AS name, pg_catalog.concat(''{cases}) AS setting"
    if kinds & LISTENING:
        text += CHANNELS
    if kinds & SETTINGS:
        asked = "".join(f", ({literal(name)})" for name in sorted(names))
        text += f"{SESSION_SETTINGS}{asked}) AS asked(name)"
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
    UNKNOWN: ("unknown state", "the next transaction"),
}
"""What each pin is called, and what ends it."""
