"""What is read from the text of statements: settings, savepoints, names. Everything in linear time, whatever the text."""

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualpool.postgres.reading import marks_of_part, read
from dualpool.postgres.session_sql import Restoration, constant, from_digits
from dualpool.postgres.sql import LOCALLY, UNPROVEN, Change, changes, identifier, is_rollback_to, savepoint_name
from dualpool.postgres.wire import query
from dualpool.sql_text import MAX_READ, POSTGRES, lexis

PLAIN = lexis(POSTGRES)


def tokens(text: bytes) -> list[bytes]:
    """The source of all tokens."""
    return [token for statement in statements(text) for token in statement]


def statements(text: bytes) -> list[list[bytes]]:
    """The statements of a text that can be read."""
    return read(text, PLAIN).statements


CHANGES: dict[bytes, list[Change] | None] = {
    b"SET work_mem = '8MB'": [("work_mem", "8MB")],
    b"set Work_Mem to 8": [("work_mem", "8")],
    b'SET "work_mem" = 8': [("work_mem", "8")],
    b"SET SESSION work_mem = 8": [("work_mem", "8")],
    b"SET work_mem = DEFAULT": [("work_mem", None)],
    b"SET work_mem TO default": [("work_mem", None)],
    b'SET work_mem = "default"': [("work_mem", "default")],
    b"SET LOCAL work_mem = 8": [],
    b"SET LOCAL app.x = 8": [("app.x", LOCALLY)],
    b"SET app.x = 'a - b . c  d'": [("app.x", "a - b . c  d")],
    b"SET app.x = 'it''s'": [("app.x", "it's")],
    b"SET app.x TO On": [("app.x", "on")],
    b'SET "App"."X" = 1': [("app.x", "1")],
    b"SET x = .5": [("x", UNPROVEN)],
    b"SET x = 1.50": [("x", "1.50")],
    b"SET x = 007": [("x", "7")],
    b"SET x = 1e3": [("x", UNPROVEN)],
    b"SET x = 0x10": [("x", UNPROVEN)],
    b"SET x = -5": [("x", "-5")],
    b"SET x = +5": [("x", "5")],
    b"SET x = 9999999999": [("x", UNPROVEN)],
    b"SET x = a,": [("x", UNPROVEN)],
    b"SET x = 'a' 'b'": [("x", UNPROVEN)],
    b"SET x FROM CURRENT": [("x", UNPROVEN)],
    b"SET search_path = a, \"B\", 'c', 'd.e', user": [("search_path", 'a, "B", c, "d.e", "user"')],
    b"SET search_path = ''": [("search_path", '""')],
    b"SET DateStyle = ISO, 'DMY'": [("datestyle", "iso, DMY")],
    b"SET /* why */ x = 1 -- because": [("x", "1")],
    b"SET x = E'it\\'s'": [("x", UNPROVEN)],
    b"SET x = 'C:\\temp'": [("x", UNPROVEN)],
    b"SET x = $$a;b$$": [("x", UNPROVEN)],
    "SET x = 'ż'".encode(): [("x", UNPROVEN)],
    "SET x.ż = 'a'".encode(): None,
    b'SET x."a""b" = \'a\'': [('x.a"b', "a")],
    b"SET x = '\xff'": [("x", UNPROVEN)],
    b"SET TIME ZONE 'UTC'": [("timezone", UNPROVEN)],
    b"SET SESSION TIME ZONE 'UTC'": [("timezone", UNPROVEN)],
    b"SET TIME ZONE LOCAL": [("timezone", None)],
    b"SET TIME ZONE DEFAULT": [("timezone", None)],
    b"SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE": [("timezone", UNPROVEN)],
    b"SET NAMES 'latin1'": [("client_encoding", "latin1")],
    b"SET NAMES": [("client_encoding", None)],
    b"SET SCHEMA 'a'": [("search_path", "a")],
    b"SET SCHEMA 'A'": [("search_path", '"A"')],
    b"SET SEED TO 0.5": [("seed", "0.5")],
    b"SET LOCAL SEED TO 0.5": [("seed", LOCALLY)],
    b"SET ROLE joe": [("role", "joe")],
    b"SET ROLE 'Joe'": [("role", "Joe")],
    b"SET ROLE NONE": [("role", "none")],
    b"SET ROLE E'x'": [("role", UNPROVEN)],
    b"SET SESSION ROLE joe": [("role", "joe")],
    b"SET SESSION AUTHORIZATION joe": [("session_authorization", "joe"), ("role", None)],
    b"SET SESSION AUTHORIZATION DEFAULT": [("session_authorization", None), ("role", None)],
    b"SET LOCAL SESSION AUTHORIZATION joe": [],
    b"SET XML OPTION DOCUMENT": [("xmloption", "document")],
    b"SET TRANSACTION READ ONLY": [],
    b"SET transaction_isolation = 'serializable'": [],
    b"SET CONSTRAINTS ALL DEFERRED": [],
    b"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, NOT DEFERRABLE": [
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_deferrable", "off"),
    ],
    b"SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE": [("default_transaction_read_only", "off")],
    b"RESET work_mem": [("work_mem", None)],
    b"RESET App.X": [("app.x", None)],
    b"RESET ALL": [("*", None)],
    b"RESET TIME ZONE": [("timezone", None)],
    b"RESET SESSION AUTHORIZATION": [("session_authorization", None), ("role", None)],
    b"RESET ROLE": [("role", None)],
    b"RESET": None,
    b"SET": None,
    b"SELECT 1": None,
}


@pytest.mark.parametrize("text", CHANGES, ids=lambda text: text.decode("latin-1"))
def test_changes(text: bytes) -> None:
    assert changes(tokens(text)) == CHANGES[text]


def test_statements_are_told_apart() -> None:
    text = b"SET a = ';'; /* ; /* ; */ ; */ ROLLBACK TO \"s;\" ;; -- ;\n SAVEPOINT S; SELECT $x$;$x$, e'\\';', U&\"a;\""
    found = statements(text)
    assert [part[0] for part in found] == [b"SET", b"ROLLBACK", b"SAVEPOINT", b"SELECT"]
    assert is_rollback_to(found[1])
    assert savepoint_name(found[1]) == b"s;"
    assert savepoint_name(found[2]) == b"s"
    assert not is_rollback_to(statements(b"ROLLBACK AND CHAIN")[0])


DEALLOCATES = {
    b"deallocate a": b"a",
    b"DEALLOCATE PREPARE A;": b"a",
    b'deallocate "A""b" ; ': b'A"b',
    b"/* x */ deallocate -- y\n a /* traceparent='1' */": b"a",
    b"deallocate prepare": b"prepare",
    b"deallocate all": None,
    b"deallocate prepare ALL": None,
    b"deallocate a; select 1": None,
    b"deallocate": None,
    b"deallocatea": None,
    b'deallocate U&"\\0061b"': b"ab",
    b"deallocate U&\"!0061b\" uescape '!'": b"ab",
    b"deallocate a b": None,
}


@pytest.mark.parametrize("text", DEALLOCATES, ids=lambda text: text.decode())
def test_deallocated_name(text: bytes) -> None:
    assert read(text, PLAIN).deallocates == DEALLOCATES[text]


@pytest.mark.parametrize("text", ["", "it's", "a\\b", "'\\", "ż", "a\nb", "\udcff", "a; b -- c /* $$", "'; commit; --"])
def test_constants_are_plain(text: str) -> None:
    """No byte of a value can be read in two ways."""
    sql = constant(text)
    assert sql.isascii()
    assert "\\" not in sql
    if sql.startswith("'"):
        assert sql == f"'{text}'"
    else:
        assert from_digits(sql.split("'")[1].encode()) == text


def test_a_restoration_lifts_limits_first_and_sets_them_last() -> None:
    found = Restoration({"statement_timeout": "1", "role": "a", "app.x": "1"}, {"app.x": "1", "role": "b", "lock_timeout": "5"})
    assert found.data == query(b"SELECT pg_catalog.set_config('statement_timeout', '0', false) IS NULL") + query(
        b"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_catalog.set_config('role', NULL, false) IS NULL;"
        b" SELECT pg_catalog.set_config('statement_timeout', NULL, false) IS NULL,"
        b" pg_catalog.set_config('lock_timeout', '5', false) IS NULL;"
        b" SELECT pg_catalog.set_config('role', 'b', false) IS NULL; COMMIT"
    )
    assert (found.queries, found.picky, found.tiny) == (2, True, False)
    assert Restoration({}, {"statement_timeout": "1ms"}).tiny


def test_identifier() -> None:
    names = [identifier(name) for name in (b"Abc", b'"Abc"', b'"a""b"', b'u&"\\0041"')]
    assert names == [b"abc", b"Abc", b'a"b', b"A"]


SIZE = 1 << 24
LONG = [
    b" " * SIZE, b"'" + b"x" * SIZE + b"'", b"'" + b"''" * (SIZE // 2), b"E'" + b"\\'" * (SIZE // 2), b'"' + b'""' * (SIZE // 2),
    b"$tag$" + b"$other" * (SIZE // 6), b"/*" * (SIZE // 2), b"--" + b"x" * SIZE, b"set " * (SIZE // 4), b"set_config(" * (SIZE // 11),
]  # fmt: skip


@pytest.mark.parametrize("text", LONG, ids=lambda text: text[:10].decode())
def test_sixteen_megabytes_take_linear_time_and_little_memory(text: bytes) -> None:
    """Quadratic time would not end, and a way back for every byte would take gigabytes."""
    tracemalloc.start()
    try:
        assert read(text, PLAIN).lexed is None
        assert tracemalloc.get_traced_memory()[1] < 8 * SIZE
    finally:
        tracemalloc.stop()


def test_many_dollars() -> None:
    """Each looks for its own end, so different tags that never end must not each read to the end of the text."""
    text = b"".join(b"$t%d$ " % number for number in range(100_000))
    assert read(text[:MAX_READ], PLAIN).lexed is None


@given(st.one_of(st.binary(max_size=80), st.text("sSeEtT'\"$/*-;\\ \n.=aA1&uU", max_size=80).map(str.encode)))
@example(b"E'\\")
@example(b"set")
@example(b"set local")
@example(b"reset a .")
def test_garbage(text: bytes) -> None:
    for word in (b"", b"set ", b"reset ", b"set session ", b"deallocate ", b"listen ", b"drop database "):
        reading = read(word + text, PLAIN)
        for statement in reading.statements:
            assert all(statement)
            changes(statement)
            savepoint_name(statement)
        reading.telling()
    marks_of_part(text)


AMONG_OTHERS = {
    b"select 1; deallocate a; select 2": b"select 1; X; select 2",
    b'DEALLOCATE PREPARE "B"; /* ; */ deallocate a;': b"X; /* ; */ X;",
    b"deallocate a; deallocate a": b"X; deallocate a",
    b"select 'deallocate a;'; deallocate all; deallocate c": None,
    b"": None,
}


@pytest.mark.parametrize("text", AMONG_OTHERS)
def test_deallocates_among_other_statements(text: bytes) -> None:
    assert read(text, PLAIN).without_deallocates(text, {b"a", b"B"}, b"X") == AMONG_OTHERS[text]
