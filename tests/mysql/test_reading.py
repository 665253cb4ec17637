"""What a text does, read once."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.mysql import reading, shapes, sql, states
from dualpool.mysql.reading import Reading
from dualpool.mysql.states import D_ALL, D_ANYTHING, D_CHANGES
from dualpool.sql_text import MAX_READ, mysql_lexis


def read(text: bytes, charset: str = "utf8mb4", modes: str = "", flavour: str = reading.MYSQL_8) -> Reading:
    return reading.read(text, mysql_lexis(charset, modes, flavour))


def doubt(*bits: int) -> states.Step:
    return states.E_DOUBT, bytes((sum(bits),))


CREATED: states.Step = states.E_CREATE, b""

MARKS = [
    (b"SELECT 1", 0),
    (b"INSERT INTO t VALUES (1)", 0),
    (b"select last_insert_id()", reading.M_INSERT_ID),
    (b"INSERT INTO t VALUES (LAST_INSERT_ID())", reading.M_INSERT_ID),
    (b"SELECT @@identity", reading.M_INSERT_ID),
    (b"SELECT @@session.last_insert_id", reading.M_INSERT_ID),
    (b"SELECT LAST_INSERT_ID( 5 )", reading.M_INSERT_ID | reading.M_SETS_INSERT_ID),
    (b"SELECT SQL_CALC_FOUND_ROWS * FROM t", reading.M_CALC_FOUND_ROWS),
    (b"SET NAMES utf8mb4", 0),
    (b"SET NAMES utf8mb4 COLLATE utf8mb4_bin", reading.M_COLLATES),
    (b" /* a */ -- b\n # c\n set x=default", reading.M_COLLATES),
    (b"SET autocommit=0", 0),
    (b"SET a=1, b=2", reading.M_COLLATES),
    (b"call p()", reading.M_COLLATES | reading.M_STEPS | reading.M_DOUBT | reading.M_INSERT_ID),
    (b"SELECT CONNECTION_ID()", reading.M_LOCAL | reading.M_OWN_ID),
    (b"INSERT INTO t VALUES (connection_id ())", reading.M_OWN_ID),
    (b"SELECT 1 + row_count(), 2", reading.M_NUMBERS),
    (b"UPDATE t SET a = FOUND_ROWS ( )", reading.M_NUMBERS),
    (b"SET @a = @@session.error_count", reading.M_NUMBERS | reading.M_STEPS),
    (b"SELECT max_row_count, found_rows FROM t", 0),
    (b"SELECT `row_count`()", reading.M_STEPS | reading.M_DOUBT | reading.M_INSERT_ID),
    (b"DO 1; SELECT FOUND_ROWS()", reading.M_NUMBERS | reading.M_FOUND_BEHIND),
    (b"SELECT 2; SELECT FOUND_ROWS()", reading.M_NUMBERS),
    (b"SELECT 2; SHOW WARNINGS", 0),
    (b"SHOW ERRORS; SELECT 2", reading.M_PREVIOUS),
    (b"SELECT warnings FROM t; SELECT 2", 0),
    (b"\tshow warnings", reading.M_LOCAL),
    (b"SHOW TABLES", 0),
    (b"/* a */ /*!40101 SET NAMES utf8 COLLATE utf8_bin */ /* b */;", reading.M_COLLATES),
    (b"/*My own*/ KILL 5", reading.M_KILL),
    (b"KILL 5", reading.M_KILL),
    (b"/* x */kill query 5", reading.M_KILL),
    (b"use app", reading.M_USE),
    (b"USE`app`", reading.M_USE),
    (b"GET DIAGNOSTICS @n = NUMBER", reading.M_DIAGNOSTICS | reading.M_STEPS),
    (b"", 0),
    (b"SELECT '" + b"x" * MAX_READ + b"', LAST_INSERT_ID()", reading.M_STEPS | reading.M_DOUBT | reading.M_INSERT_ID),
]


@pytest.mark.parametrize(("text", "marks"), MARKS, ids=[text[:40].decode() for text, _ in MARKS])
def test_marks(text: bytes, marks: int) -> None:
    assert read(text).marks == marks


KNOWN: dict[str, int | None] = {
    reading.N_CONNECTION_ID: 77,
    reading.N_ROW_COUNT: -1,
    reading.N_FOUND_ROWS: 5,
    reading.N_WARNINGS: 1,
    reading.N_ERRORS: 0,
}
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
    (b"SELECT my_CONNECTION_ID(), t.CONNECTION_ID(), 'CONNECTION_ID()'", None),
    (b"SELECT /* CONNECTION_ID() */ 1 -- CONNECTION_ID()", None),
    (
        b"SELECT DISTINCT CONCAT('a', CONNECTION_ID()), 2 FROM t ORDER BY CONNECTION_ID()",
        b"SELECT DISTINCT CONCAT('a', CAST(77 AS UNSIGNED)) AS `CONCAT('a', CONNECTION_ID())`, 2 FROM t ORDER BY CAST(77 AS UNSIGNED)",
    ),
    (b"SELECT (SELECT CONNECTION_ID()) x", b"SELECT (SELECT CAST(77 AS UNSIGNED)) x"),
    (b"SELECT 1; SELECT CONNECTION_ID() a, ROW_COUNT()", b"SELECT 1; SELECT CAST(77 AS UNSIGNED) a, ROW_COUNT()"),
    (b"SELECT ROW_COUNT() , 1;", b"SELECT CAST(-0000000000000000001 AS SIGNED) AS `ROW_COUNT()` , 1;"),
    (b"SELECT /* a */ @@Session.warning_count", b"SELECT /* a */ CAST(00000000000000000001 AS UNSIGNED) AS `@@Session.warning_count`"),
    (
        b"DO SLEEP(@@error_count + FOUND_ROWS())",
        b"DO SLEEP(CAST(00000000000000000000 AS UNSIGNED) + IF(FOUND_ROWS()<0,0,CAST(00000000000000000005 AS SIGNED)))",
    ),
    (
        b"SELECT SQL_CALC_FOUND_ROWS ROW_COUNT() FROM t",
        b"SELECT SQL_CALC_FOUND_ROWS CAST(-0000000000000000001 AS SIGNED) AS `ROW_COUNT()` FROM t",
    ),
]


@pytest.mark.parametrize(("text", "wanted"), NUMBERS, ids=[text[:50].decode() for text, _ in NUMBERS])
def test_the_session_s_own_numbers(text: bytes, wanted: bytes | None) -> None:
    assert read(text).with_values(text, KNOWN) == (wanted or text)
    assert read(text).with_values(text, {}) == text


def test_a_number_that_nobody_knows() -> None:
    unknown: dict[str, int | None] = {reading.N_FOUND_ROWS: None}
    for text, wanted in ((b"SELECT FOUND_ROWS(), 1", None), (b"SELECT 'FOUND_ROWS()', 1", b"SELECT 'FOUND_ROWS()', 1")):
        assert read(text).with_values(text, unknown) == wanted
        assert read(text).reads(unknown) == (wanted is None)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"GET DIAGNOSTICS @a = NUMBER", b"SET @a=CAST(2 AS UNSIGNED)"),
        (b"get current diagnostics @a=row_count , @b = Number;", b"SET @a=-1,@b=CAST(2 AS UNSIGNED)"),
        (b"GET DIAGNOSTICS CONDITION 1 @a = MESSAGE_TEXT", None),
        (b"GET STACKED DIAGNOSTICS @a = NUMBER", None),
        (b"GET DIAGNOSTICS a = NUMBER", None),
    ],
)
def test_diagnostics_of_a_statement(text: bytes, wanted: bytes | None) -> None:
    assert read(text).as_set(2, -1) == wanted


QUESTIONS = [
    (b"SELECT CONNECTION_ID()", reading.Q_CONNECTION_ID, b"CONNECTION_ID()"),
    (b"select connection_id() as id;", reading.Q_CONNECTION_ID, b"id"),
    (b"SELECT @@pseudo_thread_id", reading.Q_CONNECTION_ID, b"@@pseudo_thread_id"),
    (b"SELECT ROW_COUNT()", reading.Q_ROW_COUNT, b"ROW_COUNT()"),
    (b"SELECT FOUND_ROWS() n", reading.Q_FOUND_ROWS, b"n"),
    (b"SELECT @@warning_count", reading.Q_WARNING_COUNT, b"@@warning_count"),
    (b"SELECT @@session.error_count AS `e`", reading.Q_ERROR_COUNT, b"e"),
    (b"SHOW COUNT(*) WARNINGS", reading.Q_WARNING_COUNT, b"@@session.warning_count"),
    (b"show count( * ) errors", reading.Q_ERROR_COUNT, b"@@session.error_count"),
    (b"SHOW WARNINGS", reading.Q_SHOW_WARNINGS, b"WARNINGS"),
    (b"SHOW ERRORS;", reading.Q_SHOW_ERRORS, b"ERRORS"),
]


@pytest.mark.parametrize(("text", "kind", "name"), QUESTIONS, ids=[text.decode() for text, _, _ in QUESTIONS])
def test_questions_that_are_answered_here(text: bytes, kind: int, name: bytes) -> None:
    question = read(text).question
    assert question is not None
    assert (question.kind, question.name) == (kind, name)
    assert read(text).marks & reading.M_LOCAL


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
    assert read(text).question is None


def test_limits_of_show_warnings() -> None:
    for text, wanted in (
        (b"SHOW WARNINGS", (0, reading.UNLIMITED)),
        (b"SHOW WARNINGS LIMIT 3", (0, 3)),
        (b"SHOW ERRORS LIMIT 2, 5", (2, 5)),
    ):
        question = read(text).question
        assert question is not None
        assert (question.offset, question.count) == wanted


def test_whom_a_kill_means() -> None:
    assert read(b"KILL 5").kill == (5, True)
    assert read(b"kill connection 5;").kill == (5, True)
    assert read(b"KILL QUERY 77").kill == (77, False)
    assert read(b"/* c */ KILL SOFT QUERY 77").kill == (77, False)
    assert read(b"KILL CONNECTION_ID ( )").kill == (-1, True)
    for text in (b"KILL QUERY ID 5", b"KILL USER app", b"KILL @x", b"KILL 5 + 5", b"KILL"):
        assert read(text).kill is None


DOUBTS: list[tuple[bytes, list[states.Step]]] = [
    (b"SELECT f(1)", [doubt(D_ALL)]),
    (b"SELECT d.now()", [doubt(D_ALL)]),
    (b"SELECT `count`(1)", [doubt(D_ALL)]),
    (b"SELECT now ()", [doubt(D_ALL)]),
    (b"SELECT uuid (), `hex`(1), (1)", []),
    (b"SELECT `GET_LOCK`('x', 0)", [(states.E_LOCK, b"x")]),
    (b"SELECT GET_LOCK/* */('x', 0)", [(states.E_LOCK, b"x")]),
    (b"SELECT 'left' INTO/**/@mine", [(states.E_ASSIGN, b"mine")]),
    (b"INSERT INTO t (a, b) VALUES (1, 2), (2, 3), (3, 4) ON DUPLICATE KEY UPDATE a = VALUES(a)", []),
    (b"INSERT INTO d.t(a) SELECT f(a) FROM t", [doubt(D_ALL)]),
    (b"REPLACE `t` (a) VALUES (f())", [doubt(D_ALL)]),
    (b"WITH x(a) AS (SELECT 1) SELECT * FROM x, (SELECT 1) y(b)", []),
    (b"SELECT CAST(a AS DECIMAL(10, 2)), a IN (1), NOT (a) AND (b) FROM t USE INDEX (i) WHERE EXISTS (SELECT 1)", []),
    (b"CREATE TABLE t (a VARCHAR(9), b geometry(1), KEY (a))", [CREATED]),
    (b"CREATE TABLE t (a INT) SELECT f(1)", [CREATED, doubt(D_ALL)]),
    (b"BEGIN NOT ATOMIC SET @x = 1; END", [doubt(D_ALL, D_ANYTHING)]),
    (b"IF 1 THEN LOCK TABLES t READ; END IF", [doubt(D_ALL, D_ANYTHING)]),
    (b"CREATE PROCEDURE p() BEGIN SELECT 1; END; DO GET_LOCK('x', 1)", [doubt(D_ALL, D_ANYTHING)]),
    (b"SET STATEMENT max_statement_time = 1 FOR SELECT 1", []),
    (b"SET STATEMENT max_statement_time = 1 FOR CALL p()", [doubt(D_ALL, D_ANYTHING)]),
    (b"PREPARE s FROM 'SELECT @a := 1'", [(states.E_PREPARE, b"s"), (states.E_OPAQUE, b"s"), (states.E_INNER, b"s\0\0a")]),
    (b"/*!80000 SET x = 1 */", [doubt(D_ALL, D_CHANGES)]),
    (b"/*M! SELECT GET_LOCK('x', 1) INTO @x */", [doubt(D_ALL, states.D_VARIABLES, states.D_LOCKS)]),
    (b"SELECT 'x", [doubt(D_ALL)]),
    (b"HANDLER 'x", [doubt(D_ALL, states.D_HANDLERS)]),
    (b"SET RESOURCE GROUP g", [(states.E_KEPT, b"resource group")]),
    (b"NONSENSE", [doubt(D_ALL, D_ANYTHING)]),
]


@pytest.mark.parametrize(("text", "wanted"), DOUBTS, ids=[text.decode() for text, _ in DOUBTS])
def test_what_is_not_proven_is_in_doubt(text: bytes, wanted: list[states.Step]) -> None:
    assert list(read(text).steps) == wanted


MODES = [
    (rb"SELECT 'a\', GET_LOCK('x', 0), 'b'", "utf8mb4", "NO_BACKSLASH_ESCAPES", [(states.E_LOCK, b"x")]),
    (rb"SELECT 'a\', GET_LOCK(1, 0), 'b'", "utf8mb4", "", [doubt(D_ALL, states.D_LOCKS)]),
    (b"SELECT hex('\xbf\x5c') AS a, GET_LOCK('x', 0), 'b'", "gbk", "", [(states.E_LOCK, b"x")]),
    (b"SELECT hex('\xbf\x5c') AS a, GET_LOCK('x', 0), 'b'", "latin1", "", [doubt(D_ALL, states.D_LOCKS)]),
    (b"SELECT '\\\xbf\x5c', 1", "gbk", "", [doubt(D_ALL)]),
    (b'SELECT 1 AS "a\\"; SELECT GET_LOCK(\'x\', 0) AS "y"', "utf8mb4", "ANSI_QUOTES", [(states.E_LOCK, b"x")]),
    (b"SELECT `\xe9` FROM t", "latin1", "", []),
    (b"SELECT `\xe9` FROM t", "utf8mb4", "", [doubt(D_ALL)]),
    (b"SELECT \xe9 FROM t", "latin1", "", [doubt(D_ALL)]),
    (b"SELECT '\xe9' FROM t", "utf8mb4", "", []),
    ("SET @é = 1".encode(), "utf8mb4", "", [doubt(D_ALL, D_CHANGES)]),
    ("SET @`É` = 1".encode(), "utf8mb4", "", [(states.E_ASSIGN, "é".encode())]),
    ("SET @`é` = 1".encode("gb18030"), "gb18030", "", [(states.E_ASSIGN, "é".encode())]),
    (b"SELECT 1", "utf8mb4", "ORACLE", [doubt(D_ALL)]),
    (b"SELECT 1", "swe7", "", [doubt(D_ALL)]),
]


@pytest.mark.parametrize(("text", "charset", "modes", "wanted"), MODES)
def test_a_text_is_read_as_its_session_reads_it(text: bytes, charset: str, modes: str, wanted: list[states.Step]) -> None:
    assert list(read(text, charset, modes).steps) == wanted


def test_functions_that_only_some_servers_have() -> None:
    for text, flavours in (
        (b"SELECT REGEXP_REPLACE('a', 'b', 'c')", (reading.MYSQL_8, reading.MYSQL_9_6, reading.MARIADB_10_11)),
        (b"SELECT MD5('a')", (reading.MYSQL_8, reading.MARIADB_10_11)),
        (b"SELECT NVL2(1, 2, 3)", (reading.MARIADB_10_11,)),
    ):
        for one in ("", reading.MYSQL_8, reading.MYSQL_9_6, reading.MARIADB_10_11):
            assert (not read(text, flavour=one).steps) == (one in flavours)
    assert [reading.flavour(version) for version in ("5.7.44", "8.0.30", "8.4.2", "9.7.4-2", "10.6.1-MariaDB", "11.4.2-MariaDB")] == [
        "", "", reading.MYSQL_8, reading.MYSQL_9_6, "", reading.MARIADB_10_11,
    ]  # fmt: skip


SHAPES = [
    (b"SELECT a FROM t WHERE b IN (5)", b"SELECT a FROM t WHERE b IN (77)"),
    (b"SELECT COUNT(*) FROM t1 WHERE b = 'x5'", b"SELECT COUNT(*) FROM t2 WHERE b = ''"),
    (b"INSERT INTO t (a) VALUES (1, 'a')", b"INSERT INTO t (a) VALUES (22, '; LOCK TABLES t READ; -- `\"')"),
    (b"SELECT `hex`(1), MD5(2)", b"SELECT `hex`(1), MD5(345)"),
    (b"(SELECT 1)", b"(SELECT 22)"),
]
OTHER_SHAPES = [
    (b"SELECT md5(1)", b"SELECT md7(1)"), (b"SELECT count(1)", b"SELECT count1(1)"), (b"SELECT count(1)", b"SELECT 1count(1)"),
    (b"SELECT hex (1)", b"SELECT he7x (1)"), (b"SELECT `hex`(1)", b"SELECT `hex5`(1)"), (b"SELECT a.b, hex(1)", b"SELECT a.b, a5.hex(1)"),
    (b"SELECT ((hex(1)))", b"SELECT ((hex2(1)))"), (b"SELECT hex(hex(1))", b"SELECT hex(hex2(1))"),
]  # fmt: skip


def known(one: bytes, other: bytes) -> bool:
    texts = shapes.Texts(mysql_lexis("utf8mb4", "", reading.MYSQL_8))
    texts.remember(one, read(one))
    if b"'" in one or b"(" in one:
        assert texts.knows(one)
        return texts.knows(other)
    assert shapes.shape(one)[0] in texts.plain
    return shapes.shape(other)[0] in texts.plain


def test_texts_of_one_shape_are_equally_harmless() -> None:
    for one, other in SHAPES:
        assert known(one, other)
    for one, other in OTHER_SHAPES:
        assert not known(one, other)


NO_SHAPES = [
    b"SELECT 'a\\' FROM t", b'SELECT "a", \'b\'', b"SELECT 1 -- x", b"SELECT 1 # x", b"SELECT 1; SELECT 2", b"SELECT @a", b"SET a = 'b'",
    b"SELECT f(1)", b"SELECT /* x */ 1", b"SELECT `a'`, 'b'", b"CREATE FUNCTION f() RETURNS INT RETURN 1", b"SELECT NEXTVAL(s)",
    b"KILL 5", b"SHOW WARNINGS",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_SHAPES)
def test_texts_that_are_read_each_time(text: bytes) -> None:
    assert not shapes.may_vary(text, read(text))


TOKENS = st.lists(
    st.sampled_from(
        [b"'", b"''", b"'x'", b'"', b"`", b"\\", b"#", b"-", b"--", b" ", b"/*", b"*/", b"a", b"\n", b"5", b"(", b"md5(", b"@", b"x1"]
    ),
    max_size=12,
)


@given(TOKENS, st.lists(st.sampled_from([b" ", b"x", b"``", b"--", b"#", b'"', b"/*", b"\n", b"(", b";", b"@a:=1"]), max_size=3))
def test_what_stands_in_strings_does_not_matter_where_a_shape_is_remembered(words: list[bytes], inside: list[bytes]) -> None:
    text = b"SELECT " + b"".join(words)
    if shapes.may_vary(text, read(text)):
        parts = text.split(b"'")
        content = b"".join(inside).replace(b"'", b"")
        other = b"'".join(content if number % 2 and part else part for number, part in enumerate(parts))
        assert shapes.shape(other) == shapes.shape(text)
        assert not read(other).steps
        assert not read(other).marks


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
    (b"CREATE /* x */ TEMPORARY TABLE IF NOT EXISTS `d`.`t` (a int)", [CREATED, (TEMPORARY, b"`d`.`t`")]),
    (b"CREATE OR REPLACE TEMPORARY TABLE t AS SELECT 1", [CREATED, (TEMPORARY, b"t")]),
    (b"CREATE TABLE t (a INT)", [CREATED]),
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
    (b"CALL p(@out)", [(ASSIGN, b"out"), doubt(D_ALL)]),
    (b"SET ROLE DEFAULT", [(states.E_ROLE_DEFAULT, b"")]),
    (b"SET timestamp=DEFAULT", [(states.E_DEFAULT, b"timestamp")]),
]


@pytest.mark.parametrize(("text", "wanted"), STEPS, ids=[text.decode() for text, _ in STEPS])
def test_what_a_statement_may_do_to_the_session(text: bytes, wanted: list[states.Step]) -> None:
    assert list(read(text).steps) == wanted
    assert list(read(b"/* c */ " + text + b" ;\n").steps) == wanted
    if wanted:
        assert read(text).marks & reading.M_STEPS


def test_statements_that_set() -> None:
    for text in (b"SET a=1", b" use app", b"SELECT 1; /* c */ SET a = 1", b"/*!40101 SET NAMES utf8 */"):
        assert read(text).sets
    for text in (b"SELECT f()", b"CALL p()", b"SELECT '; SET a'", b"SETTLE", b""):
        assert not read(text).sets


def test_double_quotes_may_be_a_name_s() -> None:
    assert read(b'SELECT GET_LOCK("x", 1)', modes="ANSI_QUOTES").steps == ((LOCK, b""),)


@given(st.one_of(st.text(alphabet="a@'\"`;#-/*!\\\n =:(SETGLOCK_", max_size=60).map(str.encode), st.binary(max_size=200)))
def test_any_bytes_can_be_read(text: bytes) -> None:
    for charset, modes in (("utf8mb4", ""), ("gbk", "ANSI_QUOTES"), ("latin1", "NO_BACKSLASH_ESCAPES"), ("swe7", "")):
        read(text, charset, modes)
    sql.masked(text)


PATTERNS = [
    b"'a''b\\'c",
    b"/* ",
    b"@a:=",
    b"-- x\n",
    b"`;`",
    b"GET_LOCK(",
    b";SET @a=1",
    b'"',
    b"ROW_COUNT(),",
    b"@@a=1,",
    b"a.",
    b"((",
    b",1",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [MAX_READ, 1 << 22])
def test_long_texts_take_linear_time(pattern: bytes, size: int) -> None:
    text = b"SELECT " + pattern * (size // len(pattern) - 1)
    began = time.process_time()
    found = read(text)
    found.with_values(text, KNOWN)
    shapes.shape(text)
    sql.masked(text)
    assert time.process_time() - began < 2


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
    assert read(text).drops == expected
    assert not expected or read(text).marks & reading.M_STEPS


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
    assert read(text).with_values(text, {}) == (changed or text)
    assert changed is None or read(text).marks & reading.M_UNSCOPED


@pytest.mark.parametrize(
    ("text", "begun"),
    [
        (b"set/*!99999 or not */role a", [states.E_ROLE]),
        (b"create/*!99999 or not */temporary table a (b int)", [states.E_TEMPORARY]),
        (b'create/* " */temporary/*!99999 or not */table a (b int)', [states.E_TEMPORARY]),
        (b"set -- it's\n role none /*!99999 */", [states.E_ROLE]),
        (b"prepare a/*!99999 or not */from 'select 1'", [states.E_PREPARE]),
        (b"select 1; # it's\n prepare `a b` /* ' */ from @a /*!99999 */", [states.E_PREPARE]),
        (b"insert into t values ('we prepare food from it') /*!99999 */", []),
        (b"insert into t values ('set', 'role') /*!99999 */", []),
        (b"set @a = 'role' /*!99999 or not */", []),
    ],
)
def test_what_a_text_that_is_not_certain_may_begin(text: bytes, begun: list[int]) -> None:
    """A role and a temporary table are told by no server to everybody, and a role survives a reset."""
    kinds = [kind for kind, _ in reading.uncertain(text).steps]
    assert kinds == [states.E_DOUBT, *begun]


@pytest.mark.parametrize("text", [b"PREPARE q FROM 'SELECT FOUND_ROWS()'", rb"PREPARE q FROM 's\elect f\o\un\d_rows()'"])
def test_what_is_prepared_asks_about_the_statement_before(text: bytes) -> None:
    assert (states.E_ASKING, b"q") in read(text).steps
