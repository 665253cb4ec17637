"""The SQL for settings and user variables."""

import pytest

from dualpool.mysql import codec, session_sql, wire
from dualpool.state import DEFAULTS, settings

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
    assert session_sql.unexpected(BELIEVED, {"work_dir": b"/as/it/was"}, {name: value}, session_sql.UNKNOWN_DEFAULTS) == (
        [] if expected else [name]
    )


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
    ignored = {"timestamp": b"5", "session_track_schema": b"ON", "sql_auto_is_null": b"ON", "insert_id": b"4", session_sql.TRACKING: b"*"}
    assert session_sql.with_reports(start, ignored) is start
    assert session_sql.login_settings("", "") is DEFAULTS


def test_what_belongs_to_the_schema() -> None:
    one = session_sql.with_reports(DEFAULTS, {"collation_database": b"latin1_bin"})
    assert one.values == {"collation_database": "'latin1_bin'"}
    other = session_sql.with_reports(one, {"character_set_database": b"utf8mb4"})
    assert other.values == {"character_set_database": "'utf8mb4'"}
    assert session_sql.of_schema(other) is DEFAULTS
    assert session_sql.UNKNOWN_DEFAULTS.difference(other, DEFAULTS) == b"", "COM_INIT_DB does it"
    assert session_sql.UNKNOWN_DEFAULTS.difference(other, one) == b"SET SESSION collation_database='latin1_bin'"
    assert session_sql.to_be_verified({"collation_database": b"x"}) == {"character_set_database", "collation_database"}


def test_character_sets_behind_a_reset() -> None:
    login = session_sql.login_settings("latin1", "latin1_swedish_ci")
    names = {"character_set_client": "utf8mb4", "character_set_connection": "utf8mb4", "character_set_results": "utf8mb4"}
    given = session_sql.defaults(names | {"collation_connection": "utf8mb4_0900_ai_ci"})
    mysql = session_sql.after_reset(login, given, "8.4.0").values
    assert mysql["character_set_client"] == mysql["character_set_results"] == "'utf8mb4'"
    assert mysql["character_set_connection"] == "'utf8mb4',SESSION collation_connection='utf8mb4_0900_ai_ci'"
    mariadb = session_sql.after_reset(login, given, "10.11.6-MariaDB").values
    assert mariadb == login.values | {"collation_database": "@@global.collation_database"}
    assert session_sql.after_reset(login, session_sql.UNKNOWN_DEFAULTS, "8.4.0").values == mariadb


def test_defaults_that_have_changed() -> None:
    old = session_sql.defaults({"group_concat_max_len": "1024", "sql_mode": "A,B", "innodb_tmpdir": "\0"})
    new = session_sql.defaults({"group_concat_max_len": "77", "sql_mode": "A,B", "innodb_tmpdir": "\0"})
    assert session_sql.defaults({"sql_mode": "A,B", "group_concat_max_len": "77", "innodb_tmpdir": "\0"}) is new
    own = settings({"sql_mode": "''"})
    seen = new.seen_from(old, own)
    assert seen.values == {"group_concat_max_len": "77", "sql_mode": "''"}
    assert new.seen_from(new, own) is own
    assert old.difference(seen, own) == b"SET SESSION group_concat_max_len=@@global.group_concat_max_len"
    old.supersede()
    assert old.difference(seen, own) == b"SET SESSION group_concat_max_len=1024"
    assert old.difference(settings({"innodb_tmpdir": "'/tmp'"}), DEFAULTS) == b"SET SESSION innodb_tmpdir=NULL"


def test_equal_settings_are_one_object() -> None:
    one = session_sql.with_reports(DEFAULTS, {"autocommit": b"OFF", "time_zone": b"SYSTEM"})
    two = session_sql.with_reports(session_sql.with_reports(DEFAULTS, {"time_zone": b"SYSTEM"}), {"autocommit": b"0"})
    assert one is two


def test_the_statement_between_two_sessions() -> None:
    first = settings({"autocommit": "0", "time_zone": "'+01:00'", "gtid_next": "'AUTOMATIC'"})
    second = settings({"autocommit": "1", "time_zone": "'+01:00'"})
    assert session_sql.UNKNOWN_DEFAULTS.difference(first, second) == b"SET SESSION autocommit=1,SESSION gtid_next=DEFAULT"
    assert (
        session_sql.UNKNOWN_DEFAULTS.difference(second, DEFAULTS)
        == b"SET SESSION autocommit=@@global.autocommit,SESSION time_zone=@@global.time_zone"
    )
    back = session_sql.UNKNOWN_DEFAULTS.difference(session_sql.UNKNOWN, DEFAULTS)
    assert back.endswith(
        b",SESSION collation_connection=@@global.collation_connection,SESSION character_set_results=@@global.character_set_results"
    )
    assert session_sql.joined(b"", b"SESSION a=1") == b"SET SESSION a=1"
    assert session_sql.joined(b"SET SESSION b=2", b"SESSION a=1") == b"SET SESSION b=2,SESSION a=1"


def test_what_is_verified() -> None:
    assert session_sql.to_be_verified({"character_set_connection": b"x", "timestamp": b"1", "sql_mode": b""}) == {
        "character_set_connection", "collation_connection", "sql_mode",
    }  # fmt: skip
    assert session_sql.select_values(("a", "b")) == b"SELECT @@session.a,@@session.b LIMIT 1"


def test_trackers() -> None:
    by_name, all_of_them = session_sql.trackers("9.7.0"), session_sql.trackers("10.11.6-MariaDB")
    assert by_name.keys() == all_of_them.keys() == session_sql.TRACKERS
    assert "statement_id" not in by_name[session_sql.TRACKING]
    assert ",autocommit,big_tables," in by_name[session_sql.TRACKING]
    assert all_of_them[session_sql.TRACKING] == "'*'"
    assert session_sql.assignments({"a": "1", "b": "ON"}) == "SESSION a=1,SESSION b=ON"


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
    assert session_sql.UNKNOWN_DEFAULTS.difference(DEFAULTS, first) == b"SET @`a`=5,@`b``c`=x''"
    second = settings({"time_zone": "'+01:00'", "@a": "6"})
    assert session_sql.UNKNOWN_DEFAULTS.difference(first, second) == b"SET SESSION time_zone='+01:00',@`a`=6,@`b``c`=NULL"
    assert session_sql.UNKNOWN_DEFAULTS.difference(first, first) == b""
    assert session_sql.with_user_variables(DEFAULTS, {f"@{n}": "1" for n in range(session_sql.MAX_USER_VARIABLES + 1)}) is None
    assert session_sql.with_user_variables(DEFAULTS, {"@a": "x" * 200_000}) is None
