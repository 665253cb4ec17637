"""What the first request of a lease begins with. See dualpool/postgres/beginning.py."""

import pytest

from dualpool.postgres import beginning, sql, wire


def parse(text: bytes) -> bytes:
    return wire.message(wire.PARSE, b"name\0" + text + b"\0\0\0")


def bind(*values: bytes) -> bytes:
    parameters = b"".join(len(value).to_bytes(4, "big") + value for value in values)
    return wire.message(wire.BIND, b"\0name\0\0\0" + len(values).to_bytes(2, "big") + parameters + b"\0\0")


DESCRIBE = wire.message(wire.DESCRIBE, b"Sname\0")

VALUES: dict[bytes, bool] = {
    wire.query(b"SET app.user = 'a'"): True,
    wire.query(b"/* who */ set Local APP.User to a; SELECT current_setting('app.user')"): True,
    wire.query(b"begin; SET app.user = 'a'; SELECT 1"): True,
    wire.query(b'set "app"."user" = 1'): True,
    wire.query(b"SELECT set_config('App.User', 'a', false)"): True,
    wire.query(b"SELECT pg_catalog.set_config('app.user', 'a', true); SELECT 1"): True,
    parse(b"SET app.user = 'a'"): True,
    parse(b"SELECT set_config($1, $2, true)") + bind(b"App.User", b"a"): True,
    parse(b"SELECT set_config($1, $2, true)") + DESCRIBE + bind(b"app.user", b"a"): True,
    parse(b"SELECT set_config($1, $2, true)") + bind(b"app.other", b"app.user"): False,
    parse(b"SELECT set_config($1, $2, true)") + DESCRIBE: False,
    parse(b"SELECT set_config($1, $2, true)"): False,
    bind(b"app.user"): False,
    wire.query(b"SET app.other = 'a'"): False,
    wire.query(b"SET app.user.x = 'a'"): False,
    wire.query(b"RESET app.user"): False,
    wire.query(b"SELECT 1; SET app.user = 'a'"): False,
    wire.query(b"SELECT set_config('app.user', current_setting('app.user'), true)"): False,
    wire.query(b"SELECT set_config('app.user', 'a', true), f()"): False,
    wire.query(b"SELECT 1"): False,
    wire.query(b";;"): False,
    wire.query(b""): False,
    wire.query(b"SET app.user = 'a")[:-3]: False,
    b"": False,
    b"Q": False,
}


@pytest.mark.parametrize("request_", VALUES)
def test_whether_a_setting_is_given_a_value_at_once(request_: bytes) -> None:
    assert beginning.gives_value_to(request_, "app.user") == VALUES[request_]


BEGINS = (b"BEGIN", b"begin;", b"/* x */ START TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE")
NO_BEGINS = (b"BEGIN; SELECT 1", b"SELECT 1", b"", b"COMMIT", "BEGIN /* ü */".encode())


@pytest.mark.parametrize("text", BEGINS + NO_BEGINS)
def test_a_lone_begin(text: bytes) -> None:
    assert beginning.only_begins(wire.query(text)) == (text in BEGINS)
    assert not beginning.only_begins(wire.query(text) + wire.query(b"SELECT 1"))
    assert not beginning.only_begins(wire.query(text)[:-1])


ENDS = (b"COMMIT", b"end;", b"ROLLBACK WORK", b"-- x\nabort", b"COMMIT AND NO CHAIN")
NO_ENDS = (b"COMMIT AND CHAIN", b"ROLLBACK TO a", b"COMMIT; SELECT 1", b"BEGIN", b"")


@pytest.mark.parametrize("text", ENDS + NO_ENDS)
def test_a_lone_end(text: bytes) -> None:
    assert beginning.only_ends(wire.query(text)) == (text in ENDS)


ASKING = (
    b"SELECT pg_my_temp_schema()",
    b'select "current_schemas" (true)',
    b"SHOW temp_buffers",
    b"SELECT set_config('temp_buffers', '2MB', false)",
    b"DO $$ BEGIN PERFORM pg_my_temp_schema(); END $$",
    b"PREPARE p AS SELECT pg_is_other_temp_schema(1)",
)
NOT_ASKING = (b"SELECT 1", b"SELECT 'pg_my_temp_schema()'", b"CREATE TEMP TABLE t (n int)", b"SELECT temp_bufferz FROM t")


@pytest.mark.parametrize("text", ASKING + NOT_ASKING)
def test_what_tells_of_temporary_tables(text: bytes) -> None:
    for request in (wire.query(text), parse(text), wire.query(text + b" " * 5000)[:4000]):
        marks = beginning.first_reading(request).marks
        assert bool(marks & sql.ASKS_TEMPORARY) == (text in ASKING) or not request.endswith(b"\0")
