"""What is read from the text of statements: settings, savepoints, names. Everything in linear time, whatever the text."""

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualpool.postgres.session_sql import literal, setter
from dualpool.postgres.sql import (
    Change,
    changes,
    deallocated_name,
    first_word,
    identifier,
    is_rollback_to,
    savepoint_name,
    statements,
    tokens,
    without_deallocates,
)

CHANGES: dict[bytes, list[Change]] = {
    b"SET work_mem = '8MB'": [("work_mem", "SET work_mem = '8MB'")],
    b"set Work_Mem to 8": [("work_mem", "SET Work_Mem to 8")],
    b'SET "work_mem" = 8': [("work_mem", 'SET "work_mem" = 8')],
    b"SET SESSION work_mem = 8": [("work_mem", "SET work_mem = 8")],
    b"SET work_mem = DEFAULT": [("work_mem", None)],
    b"SET work_mem TO default": [("work_mem", None)],
    b"SET LOCAL work_mem = 8": [],
    b"SET app.x = 'a - b . c  d'": [("app.x", "SET app.x = 'a - b . c  d'")],
    b'SET "App"."X" = 1': [("app.x", 'SET "App"."X" = 1')],
    b"SET seq_page_cost = .5": [("seq_page_cost", "SET seq_page_cost =.5")],
    b"SET x = -5": [("x", "SET x = - 5")],
    b"SET search_path = a, \"B\", 'c'": [("search_path", "SET search_path = a , \"B\" , 'c'")],
    b"SET /* why */ x = 1 -- because": [("x", "SET x = 1")],
    b"SET x = E'it\\'s'": [("x", "SET x = E'it\\'s'")],
    b"SET x = $$a;b$$": [("x", "SET x = $$a;b$$")],
    "SET x = 'ż'".encode(): [("x", "SET x = 'ż'")],
    b"SET x = '\xff'": [("x", "SET x = '\udcff'")],
    b"SET TIME ZONE 'UTC'": [("timezone", "SET TIME ZONE 'UTC'")],
    b"SET SESSION TIME ZONE 'UTC'": [("timezone", "SET TIME ZONE 'UTC'")],
    b"SET TIME ZONE LOCAL": [("timezone", None)],
    b"SET TIME ZONE DEFAULT": [("timezone", None)],
    b"SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE": [("timezone", "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE")],
    b"SET NAMES 'latin1'": [("client_encoding", "SET NAMES 'latin1'")],
    b"SET NAMES": [("client_encoding", None)],
    b"SET SCHEMA 'a'": [("search_path", "SET SCHEMA 'a'")],
    b"SET SEED 0.5": [],
    b"SET ROLE joe": [("role", "SET ROLE joe")],
    b"SET ROLE NONE": [("role", None)],
    b"SET SESSION ROLE joe": [("role", "SET ROLE joe")],
    b"SET SESSION AUTHORIZATION joe": [("session_authorization", "SET SESSION AUTHORIZATION joe")],
    b"SET SESSION AUTHORIZATION DEFAULT": [("session_authorization", None)],
    b"SET XML OPTION DOCUMENT": [("xmloption", "SET XML OPTION DOCUMENT")],
    b"SET TRANSACTION READ ONLY": [],
    b"SET CONSTRAINTS ALL DEFERRED": [],
    b"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, NOT DEFERRABLE": [
        ("default_transaction_isolation", "SET default_transaction_isolation = 'serializable'"),
        ("default_transaction_read_only", "SET default_transaction_read_only = on"),
        ("default_transaction_deferrable", "SET default_transaction_deferrable = off"),
    ],
    b"SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE": [
        ("default_transaction_read_only", "SET default_transaction_read_only = off"),
    ],
    b"RESET work_mem": [("work_mem", None)],
    b"RESET App.X": [("app.x", None)],
    b"RESET ALL": [("*", None)],
    b"RESET TIME ZONE": [("timezone", None)],
    b"RESET SESSION AUTHORIZATION": [("session_authorization", None)],
    b"RESET ROLE": [("role", None)],
    b"RESET": [],
    b"SET": [],
    b"SELECT 1": [],
}


@pytest.mark.parametrize("text", CHANGES, ids=lambda text: text.decode("latin-1"))
def test_changes(text: bytes) -> None:
    assert changes(tokens(text)) == CHANGES[text]


@pytest.mark.parametrize(
    "text", [text for text in CHANGES if CHANGES[text] and CHANGES[text][0][1]], ids=lambda text: text.decode("latin-1")
)
def test_what_is_replayed_means_the_same(text: bytes) -> None:
    """The SQL that establishes a setting, read again, is that setting."""
    for change in CHANGES[text]:
        assert change[1] is not None
        assert changes(tokens(change[1].encode("utf-8", "surrogateescape"))) == [change]


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
    b"deallocate a b": None,
}


@pytest.mark.parametrize("text", DEALLOCATES, ids=lambda text: text.decode())
def test_deallocated_name(text: bytes) -> None:
    assert deallocated_name(text) == DEALLOCATES[text]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"Select 1", b"select"), (b" \n\t SET x", b"set"), (b"-- c\nset", b"set"), (b"--c", b""), (b"/* a */set", b"set"), (b"", b""),
        (b"/* a ** / */ /**/ set", b"set"), (b"/* never ends", b""), (b"(select 1)", b""), (b"1", b""),
    ],
)  # fmt: skip
def test_first_word(text: bytes, word: bytes) -> None:
    assert first_word(text) == word


@pytest.mark.parametrize(
    ("text", "quoted"), [("", "''"), ("it's", "'it''s'"), ("a\\b", "E'a\\\\b'"), ("'\\", "E'''\\\\'"), ("ż", "'ż'")]
)  # fmt: skip
def test_literal(text: str, quoted: str) -> None:
    assert literal(text) == quoted
    assert tokens(quoted.encode()) == [quoted.encode()]
    assert setter("x", text) == f"SELECT pg_catalog.set_config('x', {quoted}, false)"


def test_identifier() -> None:
    assert [identifier(name) for name in (b"Abc", b'"Abc"', b'"a""b"')] == [b"abc", b"Abc", b'a"b']


SIZE = 1 << 24
LONG = {
    "spaces": (b" " * SIZE, 0),
    "spaces and a sign": (b" " * SIZE + b"!", 1),
    "a string": (b"'" + b"x" * SIZE + b"'", 1),
    "a string without its end": (b"'" + b"x" * SIZE, 1),
    "doubled quotes": (b"'" + b"''" * (SIZE // 2) + b"'", 1),
    "an escape string": (b"E'" + b"\\'" * (SIZE // 2), 1),
    "a quoted name without its end": (b'"' + b'""' * (SIZE // 2), 1),
    "a dollar quote without its end": (b"$tag$" + b"$other" * (SIZE // 6), 1),
    "a comment without its end": (b"/*" + b"*" * SIZE, 0),
    "comments in comments": (b"/*" * (1 << 15), 0),
    "a comment's many ends": (b"/*" + b"* /" * (1 << 15), 0),
    "a line comment": (b"--" + b"x" * SIZE, 0),
    "one word": (b"x" * SIZE, 1),
    "one number": (b"1" * SIZE, 1),
}


@pytest.mark.parametrize("name", LONG)
def test_sixteen_megabytes_take_linear_time_and_little_memory(name: str) -> None:
    """Quadratic time would not end, and a way back for every byte would take gigabytes."""
    text, count = LONG[name]
    tracemalloc.start()
    try:
        assert len(tokens(text)) == count
        first_word(text)
        deallocated_name(text)
        deallocated_name(b"deallocate " + text)
        deallocated_name(b"deallocate a" + text + b"!")
        assert tracemalloc.get_traced_memory()[1] < 8 * SIZE
    finally:
        tracemalloc.stop()


def test_many_dollars() -> None:
    """Each looks for its own end, so different tags that never end must not each read to the end of the text."""
    text = b"".join(b"$t%d$ " % number for number in range(100_000))
    assert len(tokens(text)) == 1


@given(st.one_of(st.binary(max_size=80), st.text("sSeEtT'\"$/*-;\\ \n.=aA1&uU", max_size=80).map(str.encode)))
@example(b"E'\\")
@example(b"set")
@example(b"set local")
@example(b"reset a .")
def test_garbage(text: bytes) -> None:
    found = tokens(text)
    assert all(found)
    assert len(b"".join(found)) <= len(text)
    for statement in statements(text):
        changes(statement)
        savepoint_name(statement)
    for word in (b"set ", b"reset ", b"set session "):
        for statement in statements(word + text):
            changes(statement)
    first_word(text)
    deallocated_name(text)
    deallocated_name(b"deallocate " + text)


AMONG_OTHERS = {
    b"select 1; deallocate a; select 2": b"select 1; X; select 2",
    b'DEALLOCATE PREPARE "B"; /* ; */ deallocate a;': b"X; /* ; */ X;",
    b"deallocate a; deallocate a": b"X; deallocate a",
    b"select 'deallocate a;'; deallocate all; deallocate c": None,
    b"": None,
}


@pytest.mark.parametrize("text", AMONG_OTHERS)
def test_deallocates_among_other_statements(text: bytes) -> None:
    assert without_deallocates(text, {b"a", b"B"}, b"X") == AMONG_OTHERS[text]
