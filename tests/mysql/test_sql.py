"""What is read of a statement's text, and the SQL for settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.mysql import sql
from dualpool.state import DEFAULTS, settings

MARKS = [
    (b"SELECT 1", 0),
    (b"INSERT INTO t VALUES (1)", 0),
    (b"select last_insert_id()", sql.M_INSERT_ID),
    (b"INSERT INTO t VALUES (LAST_INSERT_ID())", sql.M_INSERT_ID),
    (b"SELECT @@identity", sql.M_INSERT_ID),
    (b"SELECT @@session.last_insert_id", sql.M_INSERT_ID),
    (b"SELECT LAST_INSERT_ID( 5 )", sql.M_INSERT_ID | sql.M_SETS_INSERT_ID),
    (b"SELECT SQL_CALC_FOUND_ROWS * FROM t", sql.M_CALC_FOUND_ROWS | sql.M_LOCAL),
    (b"SET NAMES utf8mb4", 0),
    (b"SET NAMES utf8mb4 COLLATE utf8mb4_bin", sql.M_COLLATES),
    (b" /* a */ -- b\n # c\n set x=default", sql.M_COLLATES),
    (b"SET autocommit=0", 0),
    (b"SET a=1, b=2", sql.M_COLLATES),
    (b"call p()", sql.M_COLLATES | sql.M_STEPS),
    (b"SELECT CONNECTION_ID()", sql.M_LOCAL),
    (b"\tshow warnings", sql.M_LOCAL),
    (b"SHOW TABLES", 0),
    (b"KILL 5", sql.M_KILL),
    (b"/* x */kill query 5", sql.M_KILL),
    (b"use app", sql.M_USE),
    (b"USE`app`", 0),
    (b"GET DIAGNOSTICS @n = NUMBER", sql.M_DIAGNOSTICS | sql.M_STEPS),
    (b"", 0),
    (b"SELECT '" + b"x" * (sql.LOOKED_AT + 5) + b"', LAST_INSERT_ID()", 0),
]


@pytest.mark.parametrize(("text", "marks"), MARKS, ids=[text[:40].decode() for text, _ in MARKS])
def test_marks(text: bytes, marks: int) -> None:
    assert sql.marks(text) == marks


@given(st.binary(max_size=200))
def test_any_bytes_have_marks(text: bytes) -> None:
    sql.marks(text)
    sql.local_question(text)
    sql.kill_target(text)


QUESTIONS = [
    (b"SELECT CONNECTION_ID()", sql.Q_CONNECTION_ID, b"CONNECTION_ID()"),
    (b"select connection_id() as id;", sql.Q_CONNECTION_ID, b"id"),
    (b"SELECT @@pseudo_thread_id", sql.Q_CONNECTION_ID, b"@@pseudo_thread_id"),
    (b"SELECT ROW_COUNT()", sql.Q_ROW_COUNT, b"ROW_COUNT()"),
    (b"SELECT FOUND_ROWS() n", sql.Q_FOUND_ROWS, b"n"),
    (b"SELECT @@warning_count", sql.Q_WARNING_COUNT, b"@@warning_count"),
    (b"SELECT @@session.error_count AS `e`", sql.Q_ERROR_COUNT, b"e"),
    (b"SHOW COUNT(*) WARNINGS", sql.Q_WARNING_COUNT, b"@@session.warning_count"),
    (b"show count( * ) errors", sql.Q_ERROR_COUNT, b"@@session.error_count"),
    (b"SHOW WARNINGS", sql.Q_SHOW_WARNINGS, b"WARNINGS"),
    (b"SHOW ERRORS;", sql.Q_SHOW_ERRORS, b"ERRORS"),
]


@pytest.mark.parametrize(("text", "kind", "name"), QUESTIONS, ids=[text.decode() for text, _, _ in QUESTIONS])
def test_questions_that_are_answered_here(text: bytes, kind: int, name: bytes) -> None:
    question = sql.local_question(text)
    assert question is not None
    assert (question.kind, question.name) == (kind, name)
    assert sql.marks(text) & sql.M_LOCAL


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT CONNECTION_ID() + 1",
        b"SELECT ROW_COUNT(), 1",
        b"SHOW WARNINGS WHERE 1",
        b"SELECT @@warnings",
        b"SELECT CONNECTION_ID() FROM t",
    ],
)
def test_other_questions_are_the_server_s(text: bytes) -> None:
    assert sql.local_question(text) is None


def test_limits_of_show_warnings() -> None:
    for text, wanted in ((b"SHOW WARNINGS", (0, sql.UNLIMITED)), (b"SHOW WARNINGS LIMIT 3", (0, 3)), (b"SHOW ERRORS LIMIT 2, 5", (2, 5))):
        question = sql.local_question(text)
        assert question is not None
        assert (question.offset, question.count) == wanted


def test_whom_a_kill_means() -> None:
    assert sql.kill_target(b"KILL 5") == (5, True)
    assert sql.kill_target(b"kill connection 5;") == (5, True)
    assert sql.kill_target(b"KILL QUERY 77") == (77, False)
    assert sql.kill_target(b"/* c */ KILL SOFT QUERY 77") == (77, False)
    for text in (b"KILL QUERY ID 5", b"KILL USER app", b"KILL @x", b"KILL 5 + 5", b"KILL"):
        assert sql.kill_target(text) is None


def test_values_as_sql() -> None:
    assert sql.literal("autocommit", b"OFF") == "0"
    assert sql.literal("autocommit", b"1") == "1"
    assert sql.literal("max_execution_time", b"1000") == "1000"
    assert sql.literal("long_query_time", b"10.000000") == "10.000000"
    assert sql.literal("time_zone", b"+01:00") == "'+01:00'"
    assert sql.literal("sql_mode", b"ANSI_QUOTES,STRICT_ALL_TABLES") == "'ANSI_QUOTES,STRICT_ALL_TABLES'"
    assert sql.literal("character_set_results", b"") == "NULL"
    assert sql.literal("sql_mode", b"") == "''"
    for nasty in (b"it's", b"back\\slash", 'quote"', "ü".encode()):
        data = nasty.encode() if isinstance(nasty, str) else nasty
        assert sql.literal("time_zone", data) == f"CONVERT(0x{data.hex()} USING utf8mb4)"


def test_reports_become_settings() -> None:
    start = sql.login_settings("latin1", "latin1_swedish_ci")
    assert start.values == {
        "character_set_client": "'latin1'",
        "character_set_connection": "'latin1',SESSION collation_connection='latin1_swedish_ci'",
        "character_set_results": "'latin1'",
    }
    named = sql.with_reports(
        start, {"character_set_client": b"utf8mb4", "character_set_connection": b"utf8mb4", "character_set_results": b""}
    )
    assert named.values["character_set_connection"] == "'utf8mb4'"
    assert named.values["character_set_results"] == "NULL"
    collated = sql.with_reports(named, {"collation_connection": b"utf8mb4_bin"})
    assert collated.values["character_set_connection"] == "'utf8mb4',SESSION collation_connection='utf8mb4_bin'"
    ignored = {"timestamp": b"5", "session_track_schema": b"ON", "collation_database": b"x", "insert_id": b"4", sql.TRACKING: b"*"}
    assert sql.with_reports(start, ignored) is start
    assert sql.login_settings("", "") is DEFAULTS


def test_equal_settings_are_one_object() -> None:
    one = sql.with_reports(DEFAULTS, {"autocommit": b"OFF", "time_zone": b"SYSTEM"})
    two = sql.with_reports(sql.with_reports(DEFAULTS, {"time_zone": b"SYSTEM"}), {"autocommit": b"0"})
    assert one is two


def test_the_statement_between_two_sessions() -> None:
    first = settings({"autocommit": "0", "time_zone": "'+01:00'", "gtid_next": "'AUTOMATIC'"})
    second = settings({"autocommit": "1", "time_zone": "'+01:00'"})
    assert sql.DIFFERENCES.between(first, second) == b"SET SESSION autocommit=1,SESSION gtid_next=DEFAULT"
    assert sql.DIFFERENCES.between(second, DEFAULTS) == b"SET SESSION autocommit=@@global.autocommit,SESSION time_zone=@@global.time_zone"
    back = sql.DIFFERENCES.between(sql.UNKNOWN, DEFAULTS)
    assert back.endswith(
        b",SESSION collation_connection=@@global.collation_connection,SESSION character_set_results=@@global.character_set_results"
    )
    assert sql.joined(b"", b"SESSION a=1") == b"SET SESSION a=1"
    assert sql.joined(b"SET SESSION b=2", b"SESSION a=1") == b"SET SESSION b=2,SESSION a=1"


def test_what_is_verified() -> None:
    assert sql.to_be_verified({"character_set_connection": b"x", "timestamp": b"1", "sql_mode": b""}) == {
        "character_set_connection", "collation_connection", "sql_mode",
    }  # fmt: skip
    assert sql.select_values(("a", "b")) == b"SELECT @@session.a,@@session.b"


def test_trackers() -> None:
    by_name, all_of_them = sql.trackers("9.7.0"), sql.trackers("10.11.6-MariaDB")
    assert by_name.keys() == all_of_them.keys() == sql.TRACKERS
    assert "statement_id" not in by_name[sql.TRACKING]
    assert ",autocommit,big_tables," in by_name[sql.TRACKING]
    assert all_of_them[sql.TRACKING] == "'*'"
    assert sql.assignments({"a": "1", "b": "ON"}) == "SESSION a=1,SESSION b=ON"
