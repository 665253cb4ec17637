"""What is read of a statement's text, and the SQL for settings."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.mysql import codec, session_sql, sql, states, wire
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
    (b"SELECT CONNECTION_ID()", sql.M_LOCAL | sql.M_OWN_ID),
    (b"INSERT INTO t VALUES (connection_id ())", sql.M_OWN_ID),
    (b"SELECT 1 + row_count(), 2", sql.M_LOCAL | sql.M_NUMBERS),
    (b"UPDATE t SET a = FOUND_ROWS ( )", sql.M_NUMBERS),
    (b"SET @a = @@session.error_count", sql.M_NUMBERS | sql.M_STEPS),
    (b"SELECT max_row_count, found_rows FROM t", sql.M_LOCAL),
    (b"\tshow warnings", sql.M_LOCAL),
    (b"SHOW TABLES", 0),
    (b"/* a */ /*!40101 SET NAMES utf8 COLLATE utf8_bin */ /* b */;", sql.M_COLLATES | sql.M_STEPS),
    (b"/*My own*/ KILL 5", sql.M_KILL),
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


PIECES = st.sampled_from(
    b"SET|USE|KILL|CALL|GET DIAGNOSTICS|XA|DROP|LOCK|CREATE|TEMPORARY|SELECT|INTO|@|:=|;|/*!|*/|/*|-- |#|\n| |(|)|,|LAST_INSERT_ID|"
    b"IDENTITY|GET_LOCK|CALC_FOUND_ROWS|FOUND_ROWS|CONNECTION_ID|WARNING|COLLATE|DEFAULT|ROLE|1|22|50003|x".split(b"|")
)


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_a_text_without_its_digits_has_all_of_its_marks(text: bytes) -> None:
    without = sql.marks(text.translate(None, b"0123456789"))
    assert without or not sql.marks(text)


@given(st.binary(max_size=200))
def test_any_bytes_have_marks(text: bytes) -> None:
    sql.marks(text)
    sql.local_question(text)
    sql.kill_target(text, 9)


KNOWN: dict[str, int | None] = {sql.N_CONNECTION_ID: 77, sql.N_ROW_COUNT: -1, sql.N_FOUND_ROWS: 5, sql.N_WARNINGS: 1, sql.N_ERRORS: 0}
NUMBERS = [
    (b"SELECT CONNECTION_ID() AS id, NOW()", b"SELECT CAST(77 AS UNSIGNED) AS id, NOW()"),
    (b"SELECT CONNECTION_ID(), NOW()", b"SELECT CAST(77 AS UNSIGNED) AS `CONNECTION_ID()`, NOW()"),
    (b"select connection_id()+0", b"select CAST(77 AS UNSIGNED)+0 AS `connection_id()+0`"),
    (b"SELECT 'CONNECTION_ID()', connection_id ( ) id", b"SELECT 'CONNECTION_ID()', CAST(77 AS UNSIGNED) id"),
    (b"INSERT INTO t VALUES (1, CONNECTION_ID())", b"INSERT INTO t VALUES (1, CAST(77 AS UNSIGNED))"),
    (b"INSERT INTO processlist VALUES (CONNECTION_ID())", None),
    (b"SELECT * FROM `information_schema`.processlist WHERE id = CONNECTION_ID()", None),
    (b"SELECT IS_USED_LOCK('x') = CONNECTION_ID()", None),
    (b"CREATE VIEW v AS SELECT CONNECTION_ID()", None),
    (b"SELECT my_CONNECTION_ID(), t.CONNECTION_ID(), `CONNECTION_ID`()", None),
    (b"SELECT /* CONNECTION_ID() */ 1 -- CONNECTION_ID()", None),
    (
        b"SELECT DISTINCT CONCAT('a', CONNECTION_ID()), 2 FROM t ORDER BY CONNECTION_ID()",
        b"SELECT DISTINCT CONCAT('a', CAST(77 AS UNSIGNED)) AS `CONCAT('a', CONNECTION_ID())`, 2 FROM t ORDER BY CAST(77 AS UNSIGNED)",
    ),
    (b"SELECT (SELECT CONNECTION_ID()) x", b"SELECT (SELECT CAST(77 AS UNSIGNED)) x"),
    (b"SELECT 1; SELECT CONNECTION_ID() a, ROW_COUNT()", b"SELECT 1; SELECT CAST(77 AS UNSIGNED) a, ROW_COUNT()"),
    (b"SELECT ROW_COUNT() , 1;", b"SELECT CAST(-1 AS SIGNED) AS `ROW_COUNT()` , 1;"),
    (b"SELECT /* a */ @@Session.warning_count", b"SELECT /* a */ CAST(1 AS UNSIGNED) AS `@@Session.warning_count`"),
    (b"DO SLEEP(@@error_count + FOUND_ROWS())", b"DO SLEEP(CAST(0 AS UNSIGNED) + CAST(5 AS UNSIGNED))"),
    (b"SELECT SQL_CALC_FOUND_ROWS ROW_COUNT() FROM t", b"SELECT SQL_CALC_FOUND_ROWS CAST(-1 AS SIGNED) AS `ROW_COUNT()` FROM t"),
]


@pytest.mark.parametrize(("text", "wanted"), NUMBERS, ids=[text[:50].decode() for text, _ in NUMBERS])
def test_the_session_s_own_numbers(text: bytes, wanted: bytes | None) -> None:
    assert sql.with_numbers(text, KNOWN) == (wanted or text)
    assert sql.with_numbers(text, {}) == text
    assert sql.marks(text) & (sql.M_OWN_ID | sql.M_NUMBERS)


def test_a_number_that_nobody_knows() -> None:
    assert sql.with_numbers(b"SELECT FOUND_ROWS(), 1", {sql.N_FOUND_ROWS: None}) is None
    assert sql.with_numbers(b"SELECT 'FOUND_ROWS()', 1", {sql.N_FOUND_ROWS: None}) == b"SELECT 'FOUND_ROWS()', 1"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"GET DIAGNOSTICS @a = NUMBER", b"SET @a =2"),
        (b"get current diagnostics @a=row_count , @b = Number;", b"SET @a=-1 , @b =2"),
        (b"GET DIAGNOSTICS CONDITION 1 @a = MESSAGE_TEXT", None),
        (b"GET STACKED DIAGNOSTICS @a = NUMBER", None),
        (b"GET DIAGNOSTICS a = NUMBER", None),
    ],
)
def test_diagnostics_of_a_statement(text: bytes, wanted: bytes | None) -> None:
    assert sql.diagnostics_as_set(text, 2, -1) == wanted


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
    assert sql.kill_target(b"KILL 5", 9) == (5, True)
    assert sql.kill_target(b"kill connection 5;", 9) == (5, True)
    assert sql.kill_target(b"KILL QUERY 77", 9) == (77, False)
    assert sql.kill_target(b"/* c */ KILL SOFT QUERY 77", 9) == (77, False)
    assert sql.kill_target(b"KILL CONNECTION_ID ( )", 9) == (9, True)
    for text in (b"KILL QUERY ID 5", b"KILL USER app", b"KILL @x", b"KILL 5 + 5", b"KILL"):
        assert sql.kill_target(text, 9) is None


BELIEVED = settings(
    {
        "autocommit": "0",
        "time_zone": "'+01:00'",
        "sql_mode": "CONCAT_WS(',',@@global.sql_mode)",
        session_sql.CONNECTION: "'utf8mb4'",
        "@a": "5",
    }
)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("autocommit", b"OFF", True),
        ("autocommit", b"ON", False),
        ("time_zone", b"+01:00", True),
        ("time_zone", b"SYSTEM", False),
        ("sql_mode", b"ANSI_QUOTES", True),
        ("character_set_connection", b"utf8mb4", True),
        ("character_set_connection", b"latin1", False),
        ("collation_connection", b"utf8mb4_bin", True),
        ("work_dir", b"/as/it/was", True),
        ("work_dir", b"/other", False),
        ("unheard_of", b"1", False),
        ("timestamp", b"1795166597.9", True),
        ("last_insert_id", b"7", True),
    ],
)
def test_what_strict_mode_expects(name: str, value: bytes, expected: bool) -> None:
    assert session_sql.unexpected(BELIEVED, {"work_dir": b"/as/it/was"}, {name: value}) == ([] if expected else [name])


def test_values_as_sql() -> None:
    assert session_sql.literal("autocommit", b"OFF") == "0"
    assert session_sql.literal("autocommit", b"1") == "1"
    assert session_sql.literal("max_execution_time", b"1000") == "1000"
    assert session_sql.literal("long_query_time", b"10.000000") == "10.000000"
    assert session_sql.literal("time_zone", b"+01:00") == "'+01:00'"
    assert session_sql.literal("sql_mode", b"ANSI_QUOTES,STRICT_ALL_TABLES") == "'ANSI_QUOTES,STRICT_ALL_TABLES'"
    assert session_sql.literal("character_set_results", b"") == "NULL"
    assert session_sql.literal("sql_mode", b"") == "''"
    for nasty in (b"it's", b"back\\slash", 'quote"', "ü".encode()):
        data = nasty.encode() if isinstance(nasty, str) else nasty
        assert session_sql.literal("time_zone", data) == f"CONVERT(0x{data.hex()} USING utf8mb4)"


def test_reports_become_settings() -> None:
    start = session_sql.login_settings("latin1", "latin1_swedish_ci")
    assert start.values == {
        "character_set_client": "'latin1'",
        "character_set_connection": "'latin1',SESSION collation_connection='latin1_swedish_ci'",
        "character_set_results": "'latin1'",
    }
    named = session_sql.with_reports(
        start, {"character_set_client": b"utf8mb4", "character_set_connection": b"utf8mb4", "character_set_results": b""}
    )
    assert named.values["character_set_connection"] == "'utf8mb4'"
    assert named.values["character_set_results"] == "NULL"
    collated = session_sql.with_reports(named, {"collation_connection": b"utf8mb4_bin"})
    assert collated.values["character_set_connection"] == "'utf8mb4',SESSION collation_connection='utf8mb4_bin'"
    ignored = {"timestamp": b"5", "session_track_schema": b"ON", "collation_database": b"x", "insert_id": b"4", session_sql.TRACKING: b"*"}
    assert session_sql.with_reports(start, ignored) is start
    assert session_sql.login_settings("", "") is DEFAULTS


def test_equal_settings_are_one_object() -> None:
    one = session_sql.with_reports(DEFAULTS, {"autocommit": b"OFF", "time_zone": b"SYSTEM"})
    two = session_sql.with_reports(session_sql.with_reports(DEFAULTS, {"time_zone": b"SYSTEM"}), {"autocommit": b"0"})
    assert one is two


def test_the_statement_between_two_sessions() -> None:
    first = settings({"autocommit": "0", "time_zone": "'+01:00'", "gtid_next": "'AUTOMATIC'"})
    second = settings({"autocommit": "1", "time_zone": "'+01:00'"})
    assert session_sql.DIFFERENCES.between(first, second) == b"SET SESSION autocommit=1,SESSION gtid_next=DEFAULT"
    assert (
        session_sql.DIFFERENCES.between(second, DEFAULTS)
        == b"SET SESSION autocommit=@@global.autocommit,SESSION time_zone=@@global.time_zone"
    )
    back = session_sql.DIFFERENCES.between(session_sql.UNKNOWN, DEFAULTS)
    assert back.endswith(
        b",SESSION collation_connection=@@global.collation_connection,SESSION character_set_results=@@global.character_set_results"
    )
    assert session_sql.joined(b"", b"SESSION a=1") == b"SET SESSION a=1"
    assert session_sql.joined(b"SET SESSION b=2", b"SESSION a=1") == b"SET SESSION b=2,SESSION a=1"


def test_what_is_verified() -> None:
    assert session_sql.to_be_verified({"character_set_connection": b"x", "timestamp": b"1", "sql_mode": b""}) == {
        "character_set_connection", "collation_connection", "sql_mode",
    }  # fmt: skip
    assert session_sql.select_values(("a", "b")) == b"SELECT @@session.a,@@session.b"


def test_trackers() -> None:
    by_name, all_of_them = session_sql.trackers("9.7.0"), session_sql.trackers("10.11.6-MariaDB")
    assert by_name.keys() == all_of_them.keys() == session_sql.TRACKERS
    assert "statement_id" not in by_name[session_sql.TRACKING]
    assert ",autocommit,big_tables," in by_name[session_sql.TRACKING]
    assert all_of_them[session_sql.TRACKING] == "'*'"
    assert session_sql.assignments({"a": "1", "b": "ON"}) == "SESSION a=1,SESSION b=ON"


ASSIGN, LOCK, UNLOCK, ALL, TEMPORARY, DROP = (
    states.E_ASSIGN, states.E_LOCK, states.E_UNLOCK, states.E_UNLOCK_ALL, states.E_TEMPORARY, states.E_DROP,
)  # fmt: skip
STEPS: list[tuple[bytes, list[states.Step]]] = [
    (b"SELECT 1", []),
    (b"SET @a = 1, @`B c` := 2, @'d' = @@sql_mode", [(ASSIGN, b"a"), (ASSIGN, b"b c"), (ASSIGN, b"d")]),
    (b"SELECT @a", []),
    (b"SELECT x INTO @a, @b FROM t", [(ASSIGN, b"a"), (ASSIGN, b"b")]),
    (b"SELECT GET_LOCK('mig', 10)", [(LOCK, b"mig")]),
    (b'select get_lock ( "x" , 1), release_lock("y")', [(LOCK, b"x"), (UNLOCK, b"")]),
    (b"SELECT GET_LOCK(?, 10)", [(LOCK, b"")]),
    (b"SELECT GET_LOCK('a''b', 10)", [(LOCK, b"")]),
    (b"SELECT 'GET_LOCK(''x'', 1)', `GET_LOCK(` /* GET_LOCK('y', 1) */ -- GET_LOCK('z', 1)", []),
    (b"SELECT 1 /*!50000 , GET_LOCK('h', 1) */", [(LOCK, b"h")]),
    (b"DO RELEASE_ALL_LOCKS()", [(ALL, b"")]),
    (b"SELECT IF(x, RELEASE_ALL_LOCKS(), 0)", [(UNLOCK, b"")]),
    (b"CREATE /* x */ TEMPORARY TABLE IF NOT EXISTS `d`.`t` (a int)", [(TEMPORARY, b"`d`.`t`")]),
    (b"CREATE OR REPLACE TEMPORARY TABLE t AS SELECT 1", [(TEMPORARY, b"t")]),
    (b"CREATE TABLE t (a INT)", []),
    (b"DROP TEMPORARY TABLE t", [(DROP, b"")]),
    (b"ALTER TABLE t RENAME TO u", [(states.E_RENAME, b"")]),
    (b"SELECT 1; SET @a = 5; SELECT ';'", [(ASSIGN, b"a")]),
    (b"PREPARE `S` FROM 'SELECT 1'", [(states.E_PREPARE, b"s")]),
    (b"PREPARE s FROM @x", [(states.E_PREPARE, b"s"), (states.E_OPAQUE, b"s")]),
    (b"EXECUTE s USING @a", [(states.E_UNKNOWN, b"s")]),
    (b"EXECUTE IMMEDIATE 'x'", [(states.E_UNKNOWN, b"")]),
    (b"DROP PREPARE s", [(states.E_DEALLOCATE, b"s")]),
    (b"LOCK TABLES t READ", [(states.E_TABLES, b"")]),
    (b"UNLOCK INSTANCE", [(states.E_UNLOCK_TABLES, b"INSTANCE")]),
    (b"FLUSH TABLES WITH READ LOCK", [(states.E_TABLES, b"FLUSH")]),
    (b"FLUSH PRIVILEGES", []),
    (b"BACKUP STAGE START", [(states.E_TABLES, b"BACKUP")]),
    (b"BACKUP STAGE END", [(states.E_UNLOCK_TABLES, b"BACKUP")]),
    (b"HANDLER t OPEN AS h", [(states.E_HANDLER, b"h")]),
    (b"HANDLER h READ FIRST", []),
    (b"XA START 'x'", [(states.E_XA, b"")]),
    (b"CALL p(@out)", [(ASSIGN, b"out"), (states.E_UNKNOWN, b"")]),
    (b"SET ROLE DEFAULT", [(states.E_ROLE_DEFAULT, b"")]),
    (b"SET timestamp=DEFAULT", [(states.E_DEFAULT, b"timestamp")]),
]


@pytest.mark.parametrize(("text", "wanted"), STEPS, ids=[text.decode() for text, _ in STEPS])
def test_what_a_statement_may_do_to_the_session(text: bytes, wanted: list[states.Step]) -> None:
    assert list(sql.steps(text)) == wanted
    assert list(sql.steps(b"/* c */ " + text + b" ;\n")) == wanted
    if wanted:
        assert sql.marks(text) & sql.M_STEPS


def test_statements_that_set() -> None:
    for text in (b"SET a=1", b" use app", b"SELECT 1; /* c */ SET a = 1", b"\x05\0\0\0\x03SET a=1", b"/*!40101 SET NAMES utf8 */"):
        assert sql.sets(text)
    for text in (b"SELECT f()", b"CALL p()", b"SELECT '; SET a'", b"SETTLE", b""):
        assert not sql.sets(text)


def test_double_quotes_may_be_a_name_s() -> None:
    assert sql.steps(b'SELECT GET_LOCK("x", 1)', ansi=True) == ((LOCK, b""),)


@given(st.text(alphabet="a@'\"`;#-/*!\\\n =:(SETGLOCK_", max_size=60))
def test_any_text_has_steps(text: str) -> None:
    sql.steps(text.encode())
    sql.marks(text.encode())
    sql.masked(text.encode())


@pytest.mark.parametrize("pattern", [b"'a''b\\'c", b"/* ", b"@a:=", b"-- x\n", b"`;`", b"GET_LOCK(", b";SET @a=1", b'"'])
def test_long_texts_take_linear_time(pattern: bytes) -> None:
    text = b"SELECT " + pattern * ((1 << 24) // len(pattern))
    began = time.process_time()
    sql.marks(text)
    sql.steps(text)
    sql.masked(text)
    assert time.process_time() - began < 2


def test_values_of_user_variables_as_sql() -> None:
    def typed(kind: int, flags: int = 0) -> bytes:
        return codec.column(b"@a", kind, 63, 20, flags)

    def of(kind: int, row: list[bytes | None], flags: int = 0) -> str | None:
        data = b"".join(b"\xfb" if one is None else wire.put_lenenc_bytes(one) for one in row)
        found = session_sql.user_variables((b"a",), codec.Result([typed(kind, flags)] * 4, [data], ended=True))
        assert found is not None
        return found["@a"]

    number = [b"5", b"5", b"binary", b"binary"]
    assert of(codec.LONGLONG, [*number]) == "5"
    assert of(codec.LONGLONG, [*number], session_sql.UNSIGNED) == "CAST(5 AS UNSIGNED)"
    assert of(codec.NEWDECIMAL, [*number]) == "CAST(5 AS DECIMAL(65,0))"
    assert of(codec.NEWDECIMAL, [b"1.50", *number[1:]]) == "1.50"
    assert of(codec.DOUBLE, [b"1.5", *number[1:]]) == "1.5e0"
    assert of(codec.VAR_STRING, [b"ab", b"6162", b"latin1", b"latin1_bin"]) == "_latin1 x'6162' COLLATE latin1_bin"
    assert of(codec.VAR_STRING, [b"\xff", b"FF", b"binary", b"binary"]) == "x'FF'"
    assert of(codec.VAR_STRING, [None, None, b"binary", b"binary"]) is None
    assert session_sql.user_variables((b"a",), codec.Result([typed(8)] * 4, [], ended=True)) is None


def test_user_variables_are_part_of_the_difference() -> None:
    first = session_sql.with_user_variables(DEFAULTS, {"@a": "5", "@b`c": "x''", "@d": None})
    assert first is not None
    assert first.values == {"@a": "5", "@b`c": "x''"}
    assert session_sql.difference(DEFAULTS, first) == b"SET @`a`=5,@`b``c`=x''"
    second = settings({"time_zone": "'+01:00'", "@a": "6"})
    assert session_sql.difference(first, second) == b"SET SESSION time_zone='+01:00',@`a`=6,@`b``c`=NULL"
    assert session_sql.difference(first, first) == b""
    assert session_sql.with_user_variables(DEFAULTS, {f"@{n}": "1" for n in range(session_sql.MAX_USER_VARIABLES + 1)}) is None
    assert session_sql.with_user_variables(DEFAULTS, {"@a": "x" * 200_000}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"DROP DATABASE shop", "shop"),
        (b"/* away */ drop schema if exists `my``shop`;", "my`shop"),
        (b"DROP TABLE shop", ""),
        (b"DROP DATABASES", ""),
        (b"SELECT 'DROP DATABASE shop'", ""),
    ],
)
def test_dropped_database(text: bytes, expected: str) -> None:
    assert sql.dropped_database(text) == expected
    assert not expected or sql.marks(text) & sql.M_STEPS


SCOPES = {
    b"SET @@sql_mode = 'ANSI'": b"SET @@session.sql_mode = 'ANSI'",
    b"set/* @@a=1 */@@`time_zone`:='+01:00' , @a = @@b, sql_notes=0,\n@@x=@@global.x": (
        b"set/* @@a=1 */@@session.`time_zone`:='+01:00' , @a = @@b, sql_notes=0,\n@@session.x=@@global.x"
    ),
    b"SELECT 1; SET @@a=1; SELECT 2, @@a = 3": b"SELECT 1; SET @@session.a=1; SELECT 2, @@a = 3",
    b"/*!40101 SET @@a=1 */": b"/*!40101 SET @@session.a=1 */",
    b"SET @a = IF(1, @@b = 2, (SELECT 1 FROM t)), @@c=1": b"SET @a = IF(1, @@b = 2, (SELECT 1 FROM t)), @@session.c=1",
    b"SET @@session.a=1, @@local.b=2, @@global.c=3, @@d=4": b"SET @@session.a=1, @@local.b=2, @@global.c=3, @@session.d=4",
    b"SET GLOBAL a=1, @@b=2": None,
    b"SET PERSIST a=1, @@b=2": None,
    b"SET @@hot.key_buffer_size=1, @@global.a=2": None,
    b"SET @a='@@b=1', @c=@@d": None,
    b"SELECT @@a=1, @@b=2": None,
    b"UPDATE t SET a=1 WHERE @@b=1": None,
    b"CREATE PROCEDURE p() BEGIN SET @@a=1; SET @@b=2; END": None,
    b"": None,
}


@pytest.mark.parametrize("text", SCOPES)
def test_assignments_without_a_scope(text: bytes) -> None:
    changed = SCOPES[text]
    assert sql.with_scopes(text) == (changed or text)
    assert changed is None or sql.marks(text) & sql.M_UNSCOPED
