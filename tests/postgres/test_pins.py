"""Pins: what raises a doubt, and what the relays make of the server's answer."""

import pytest

from dualpool.errors import FeatureRefused, StateLeaked
from dualpool.postgres import session_sql, sql, wire
from dualpool.postgres.catalog import MAX_KNOWN, MAX_KNOWN_TEXT, Catalog, Facts
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.reading import marks_of_part, read
from dualpool.postgres.server_relay import ServerRelay
from dualpool.postgres.server_session import ASK_AGAIN
from dualpool.protocol import NEEDS_SERVER, PIN_ALLOW, PIN_ERROR, PINNED, RELEASE, SESSION, VACATE, VERIFY_LEARN, RelayLimits
from dualpool.sql_text import POSTGRES, lexis
from tests.helpers.frames import (
    BOUND,
    LEXICAL,
    PARSED,
    READY,
    READY_T,
    SYNC,
    bind,
    complete,
    error,
    execute,
    parse,
    query,
    row,
    warning,
)

LOCK = b"select pg_advisory_lock(1)"
ANSWER = row(b"") + complete(b"SELECT 1") + READY
CANCELED = error(b"57014", b"canceling statement due to user request")

PLAIN = lexis(POSTGRES)
OF_NO_INTEREST = sql.READS | sql.WRITES | sql.COMPUTES | sql.REREADS
CHANGES_ALL = sql.EVERYTHING | sql.LIKELY | sql.PROBED << sql.ENDS
MARKS = {
    b"select 1": 0,
    b"": 0,
    b"select * from weather where temp > 1 and template = 'x' and temporary": 0,
    b"select household, threshold from holdings": 0,
    b"select advisory, listen, prepare, load, call from do": 0,
    b"insert into t values (1) on conflict do nothing": 0,
    b"begin": 0,
    b"commit": sql.TELLING,
    LOCK: sql.LOCK,
    b"SELECT PG_TRY_ADVISORY_LOCK_SHARED(1)": sql.LOCK,
    b"select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1)": 0,
    b"select pg_advisory_unlock(1)": sql.RELEASED,
    b"select pg_advisory_lock(1), pg_advisory_unlock_all()": sql.LOCK | sql.RELEASED,
    b"create temp table t (a int)": CHANGES_ALL,
    b"CREATE\n/* so */ -- or so\n LOCAL TEMPORARY VIEW t AS SELECT 1": CHANGES_ALL,
    b"create or replace temp view t as select 1": CHANGES_ALL,
    b"select 1 into temp t": sql.EVERYTHING | sql.LIKELY,
    b"create table pg_temp . t (a int)": CHANGES_ALL,
    b'create table "pg_temp".t (a int)': CHANGES_ALL,
    b"declare c cursor with\thold for select 1": sql.CURSOR,
    b"declare c cursor without hold for select 1": 0,
    b"call p()": CHANGES_ALL,
    b"/* a */ DO 'BEGIN END'": CHANGES_ALL,
    b"deallocate p": sql.TELLING | sql.DEALLOCATES,
    b"set x = 1": sql.TELLING,
    b"select set_config('a.b', 'c', false)": sql.SETTINGS,
    b"select set_config('a.b', 'c', true)": sql.TOUCHES,
    b"select set_config('a.b', f(1, 2), TRUE), set_config('a.c', 'x', 't')": sql.TOUCHES,
    b"select set_config('a.b', 'c', true), set_config('a.b', 'c', $1)": sql.SETTINGS | sql.TOUCHES,
    b"select set_config('a.' || $1, 'c', true)": sql.SETTINGS | sql.COMPUTED,
    b"select pg_catalog.set_config($1, $2, $3)": sql.SETTINGS,
    b"select set_config($1::text, 'x', false)": sql.SETTINGS,
    b"select set_config('a.' || $1, 'c', false)": sql.SETTINGS | sql.COMPUTED,
    b"select set_config(name, value, false) from t": sql.SETTINGS | sql.COMPUTED,
    b"select set_config('a.b'": sql.SETTINGS | sql.COMPUTED,
    b"select 'set_config(a, b, false)', set_config": 0,
    b"drop database x": CHANGES_ALL | sql.VACATES,
    b'DROP DATABASE IF EXISTS "X" WITH (FORCE)': CHANGES_ALL | sql.VACATES,
    b"create database y template x": CHANGES_ALL | sql.VACATES,
    b"create database y": CHANGES_ALL,
    b"alter database x rename to y": CHANGES_ALL | sql.VACATES,
    b"alter database x set a = 1": CHANGES_ALL,
}


@pytest.mark.parametrize("text", MARKS)
def test_marks(text: bytes) -> None:
    judge = Catalog(Facts()).judge(PLAIN, VERIFY_LEARN)
    assert judge.marks(text) & ~OF_NO_INTEREST == MARKS[text]
    assert judge.query_marks(query(text)) & ~OF_NO_INTEREST == MARKS[text]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"drop database x", "x"), (b'drop database if exists "X y";', "X y"), (b"create database y with owner = a template = X", "x"),
        (b"alter database Q rename to y", "q"), (b"drop database", ""), (b"drop table x", ""),
    ],
)  # fmt: skip
def test_the_database_that_must_be_left(text: bytes, name: str) -> None:
    assert read(text, PLAIN).vacates == name


@pytest.mark.parametrize(
    "text",
    [
        b"create /*" * 100_000, b"set_config(" * 100_000, b"with -- \n" * 100_000 + b"hold", b"pg_advisory_lock " * 50_000,
        b"call(" * 100_000,
        b"'" * 1_000_000, b"temp " * 200_000,
    ],
)  # fmt: skip
def test_no_text_takes_long(text: bytes) -> None:
    assert read(text, PLAIN).marks >= 0
    assert marks_of_part(text) >= 0
    assert len(sql.masked(text)) <= 200


@pytest.mark.parametrize("text", [b"select table_to_xml('v', true, false, '')", b"select pg_catalog.database_to_xml(true, false, '')"])
def test_functions_that_read_tables_are_known(text: bytes) -> None:
    assert read(text, PLAIN).marks & sql.READS


def test_masked() -> None:
    assert sql.masked(b"select\n 'a''b', 12, $$x$$, E'\\'' /* secret */ from t -- secret\n where a = -1.5") == (
        "select ?, ?, ?, ? from t where a = -?"
    )


def test_few_texts_are_remembered() -> None:
    judge = Catalog(Facts()).judge(PLAIN, VERIFY_LEARN)
    for number in range(3 * MAX_KNOWN):
        for text in (
            b"select %d" % number,
            b"select $1 -- %d" % number,
            b"set x = $a$%d$a$" % number,
            b"select a%d" % number,
            b"select 1 from %s" % (b"b" * (number % 1000)),
        ):
            judge.query_marks(query(text))
    judge.marks(b"select $1 -- " + b"x" * MAX_KNOWN_TEXT)
    for known in (judge.queries, judge.numbered, judge.texts, judge.shapes, judge.readings):
        assert 0 < len(known) <= MAX_KNOWN
        assert max(len(text) for text in known) <= MAX_KNOWN_TEXT


class Pair:
    """A client and its server connection."""

    def __init__(self, **limits: int) -> None:
        self.limits = RelayLimits(**limits)
        self.client = ClientRelay(self.limits)
        self.server = ServerRelay(self.limits, dict(LEXICAL))

    def ask(self, data: bytes) -> bytes:
        """What the server is sent."""
        verdict = self.client.on_client_bytes(data)
        if verdict & NEEDS_SERVER:
            verdict = self.client.attach(self.server)
        sent, self.client.to_server = self.client.to_server, b""
        return sent

    def answer(self, data: bytes) -> tuple[bytes, int, bytes]:
        """What the client reads, the verdict, and what the server is sent."""
        verdict = self.server.on_server_bytes(data)
        out = self.server.to_client, verdict, self.server.to_server
        self.server.to_client = self.server.to_server = b""
        if verdict & RELEASE:
            self.client.detach()
        return out


def holds(letters: bytes, *settings: tuple[bytes, bytes]) -> bytes:
    """The answer to a probe."""
    rows = row(b"", letters) + b"".join(row(name, value.hex().encode()) for name, value in settings)
    return rows + complete(b"SELECT 1") + READY


def pinned(**limits: int) -> Pair:
    pair = Pair(**limits)
    pair.ask(query(LOCK))
    assert pair.answer(ANSWER)[2] == query(session_sql.probe(sql.LOCK).encode())
    pair.answer(holds(b"l"))
    assert pair.server.pins == sql.LOCK
    return pair


def test_the_client_has_its_answer_before_the_question() -> None:
    pair = Pair()
    assert pair.ask(query(LOCK)) == query(LOCK)
    assert pair.answer(ANSWER) == (ANSWER, 0, query(session_sql.probe(sql.LOCK).encode()))
    assert not pair.server.is_quiet()
    assert pair.answer(holds(b"")) == (b"", RELEASE, b"")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_pin_begins_and_ends(size: int) -> None:
    pair = Pair()
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    told, verdicts = b"", 0
    answer = holds(b"l")
    for at in range(0, len(answer), size):
        read, verdict, sent = pair.answer(answer[at : at + size])
        told, verdicts = told + read, verdicts | verdict
        assert sent == b""
    assert b"advisory lock\0" in told
    assert told.count(b"SNOTICE") == 1
    assert verdicts == PINNED
    assert pair.server.pin_reasons() == ["advisory lock; until pg_advisory_unlock"]
    assert pair.server.pin_text == "select pg_advisory_lock(?)"
    pair.ask(query(b"select 1"))
    assert pair.answer(ANSWER) == (ANSWER, 0, b"")
    pair.ask(query(b"select pg_advisory_unlock(1)"))
    assert pair.answer(ANSWER)[2] == query(session_sql.probe(sql.LOCK).encode())
    assert pair.answer(holds(b"")) == (b"", PINNED | RELEASE, b"")
    assert pair.server.pin_reasons() == []


def test_it_is_told_once() -> None:
    pair = pinned()
    pair.ask(query(b"select pg_advisory_unlock(1)"))
    pair.answer(ANSWER)
    pair.answer(holds(b""))
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    assert pair.answer(holds(b"l")) == (b"", PINNED, b"")


def test_what_comes_while_the_question_is_open_is_passed_on() -> None:
    pair = Pair()
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    unlock = query(b"select pg_advisory_unlock(1)")
    assert pair.ask(unlock) == unlock
    read, verdict, sent = pair.answer(holds(b"l") + ANSWER)
    assert read.endswith(ANSWER)
    assert verdict == PINNED
    assert sent == query(session_sql.probe(sql.LOCK).encode())
    assert pair.answer(holds(b"")) == (b"", PINNED | RELEASE, b"")


def test_the_question_waits_for_the_end_of_the_transaction() -> None:
    pair = Pair()
    pair.ask(query(b"begin"))
    pair.answer(complete(b"BEGIN") + READY_T)
    pair.ask(query(LOCK))
    assert pair.answer(row(b"") + complete(b"SELECT 1") + READY_T)[2] == b""
    pair.ask(query(b"commit"))
    assert pair.answer(complete(b"COMMIT") + READY)[2] == query(session_sql.probe(sql.LOCK).encode())


def test_extended_queries_raise_doubts_when_they_are_bound() -> None:
    for name in (b"", b"a"):
        pair = Pair()
        pair.ask(parse(name, LOCK) + SYNC)
        assert pair.answer(PARSED + READY)[1] == RELEASE
        pair.ask(bind(b"", name) + execute() + SYNC)
        assert pair.answer(BOUND + ANSWER)[2] == query(session_sql.probe(sql.LOCK).encode())


def test_tags_raise_doubts() -> None:
    for text, tag, kinds in (
        (b"select 1; listen x", b"LISTEN", sql.LISTENING), (b"prepare p as select 1", b"PREPARE", sql.PREPARED),
        (b"load 'x'", b"LOAD", sql.EVERYTHING | sql.LIBRARY), (b"call p()", b"CALL", sql.EVERYTHING),
    ):  # fmt: skip
        pair = Pair()
        pair.ask(query(text))
        assert pair.answer(complete(tag) + READY)[2] == query(session_sql.probe(kinds).encode())


def test_a_question_that_was_cancelled_is_asked_again() -> None:
    pair = Pair()
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    read, verdict, sent = pair.answer(CANCELED + READY)
    assert (read, verdict) == (b"", 0)
    assert sent == query((session_sql.UNHURRIED + session_sql.probe(sql.LOCK)).encode())
    assert pair.answer(complete(b"SET") + holds(b"")) == (b"", RELEASE, b"")


def test_what_cannot_be_asked_is_a_pin_until_it_can() -> None:
    pair = Pair()
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    pair.answer(CANCELED + READY)
    read, verdict, sent = pair.answer(CANCELED + READY)
    assert b"unknown state" in read
    assert (verdict, sent) == (PINNED, b"")
    pair.ask(query(b"select 1"))
    assert pair.answer(ANSWER)[2] == query(session_sql.probe(sql.EVERYTHING).encode())
    assert pair.answer(holds(b"")) == (b"", PINNED | RELEASE, b"")


def test_a_notice_about_our_question_is_not_the_clients() -> None:
    pair = Pair()
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    assert pair.answer(warning(b"w") + holds(b"")) == (b"", RELEASE, b"")


def test_an_end_that_nobody_could_see_is_found_after_a_while() -> None:
    pair = pinned()
    for _ in range(ASK_AGAIN):
        pair.ask(query(b"select 1"))
        _, _, sent = pair.answer(ANSWER)
        if sent:
            break
    assert sent == query(session_sql.probe(sql.LOCK).encode())
    assert pair.answer(holds(b"")) == (b"", PINNED | RELEASE, b"")


def test_settings_that_a_function_made_are_tracked() -> None:
    pair = Pair()
    pair.ask(query(b"select set_config('app.x', '1', false)"))
    asked = query(session_sql.probe(sql.SETTINGS, ["app.x"]).encode())
    assert pair.answer(ANSWER)[2] == asked
    none = (b"role", b"none")
    assert pair.answer(holds(b"", (b"work_mem", b"64"), none, (b"app.x", b"1")))[1] == RELEASE
    assert pair.client.settings.values == {"work_mem": "64", "app.x": "1"}
    pair.ask(query(b"do 'begin reset work_mem; end'"))
    pair.answer(complete(b"DO") + READY)
    assert pair.answer(holds(b"", none))[1] == RELEASE
    assert pair.client.settings.values == {"app.x": "1"}
    assert pair.server.settings is pair.client.settings


def test_settings_that_parameters_name_are_asked_for() -> None:
    pair = Pair()
    values = [b"App.Tenant", b"x" * 1000, b"1"]
    numbers = b"".join(wire.INT32.pack(len(value)) + value for value in values)
    bound = wire.message(wire.BIND, b"\0\0\0\0\0\3" + numbers + b"\0\0")
    pair.ask(parse(b"", b"select set_config($1, $2, $3)") + bound + execute() + SYNC)
    assert pair.answer(PARSED + BOUND + ANSWER)[2] == query(session_sql.probe(sql.SETTINGS, ["app.tenant"]).encode())


def test_a_computed_name_is_a_pin_until_discard_all() -> None:
    pair = Pair()
    pair.ask(query(b"select set_config('a.' || 'b', '1', false)"))
    pair.answer(ANSWER)
    assert pair.answer(holds(b""))[1] == PINNED
    assert pair.server.pin_reasons() == ["setting; until DISCARD ALL"]
    pair.ask(query(b"discard all"))
    assert pair.answer(complete(b"DISCARD ALL") + READY)[1] == RELEASE


def test_policies() -> None:
    pair = Pair(pin_policy=PIN_ALLOW)
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    assert pair.answer(holds(b"l")) == (b"", PINNED, b"")
    pair = Pair(pin_policy=PIN_ERROR)
    pair.ask(query(LOCK))
    assert pair.answer(ANSWER)[0] == ANSWER
    with pytest.raises(FeatureRefused, match=r"advisory lock.*pg_advisory_lock\(\?\)"):
        pair.answer(holds(b"l"))
    pair.client.detach()
    assert pair.server.dirty


def test_session_mode_knows_no_pins() -> None:
    pair = Pair(mode=SESSION)
    for text, tag in ((LOCK, b"SELECT 1"), (b"listen x", b"LISTEN"), (b"call p()", b"CALL"), (b"create table t ()", b"CREATE TABLE")):
        pair.ask(query(text))
        assert pair.answer(complete(tag) + READY)[1:] == (0, b"")
        assert pair.server.is_quiet()


def test_a_client_that_leaves_with_a_pin_or_a_doubt_leaves_a_dirty_session() -> None:
    pair = pinned()
    pair.client.detach()
    assert pair.server.dirty
    pair = Pair()
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    pair.client.detach()
    assert pair.server.dirty
    assert pair.answer(holds(b"l"))[::2] == (b"", b"")
    pair.server.was_reset()
    assert pair.server.is_quiet()


def test_a_library_costs_the_connection() -> None:
    pair = Pair()
    pair.ask(query(b"load 'x'"))
    pair.answer(complete(b"LOAD") + READY)
    assert pair.answer(holds(b""))[1] == PINNED
    pair.client.detach()
    assert pair.server.dirty
    assert pair.server.spent


def test_a_database_that_is_to_be_dropped() -> None:
    for ask in (query(b'drop database "X"'), parse(b"", b'drop database "X"') + SYNC, parse(b"a", b'drop database "X"') + SYNC):
        pair = Pair()
        assert pair.client.on_client_bytes(ask) == NEEDS_SERVER
        assert pair.client.attach(pair.server) == VACATE
        assert pair.client.vacates == "X"


def test_strict_mode() -> None:
    limits = RelayLimits()
    limits.strict = True
    for answer, what in ((holds(b"t", (b"role", b"none")), "temporary table"), (holds(b"", (b"role", b"boss")), "role")):
        pair = Pair()
        pair.client, pair.server = ClientRelay(limits), ServerRelay(limits, dict(LEXICAL))
        pair.ask(query(b"select f('secret')"))
        assert pair.answer(ANSWER)[2] == query(session_sql.probe(sql.EVERYTHING).encode())
        assert pair.ask(query(b"select 2")) == b""  # for the next server connection
        with pytest.raises(StateLeaked, match=rf"{what}; the last statement was: select f\(\?\)"):
            pair.answer(answer)
        assert pair.server.dirty


def test_strict_mode_has_no_objection_to_what_it_sees() -> None:
    limits = RelayLimits()
    limits.strict = True
    pair = Pair()
    pair.client, pair.server = ClientRelay(limits), ServerRelay(limits, dict(LEXICAL))
    pair.ask(query(b"set work_mem = '1MB'"))
    pair.answer(complete(b"SET") + READY)
    assert pair.answer(holds(b"", (b"work_mem", b"1024"), (b"role", b"none")))[1] == RELEASE
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    assert pair.ask(query(b"select 2")) == b""
    read, verdict, sent = pair.answer(holds(b"l", (b"work_mem", b"1024"), (b"role", b"none")))
    assert verdict == PINNED
    assert b"advisory lock" in read
    assert sent == query(b"select 2")


def test_each_reason_may_have_its_own_policy() -> None:
    policies = {"advisory lock": PIN_ERROR, "cursor": PIN_ALLOW}
    pair = Pair(pin_policies=policies)
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    told, verdict, _ = pair.answer(holds(b"ct"))
    assert verdict == PINNED
    assert b"temporary table" in told
    assert b"cursor" not in told
    pair.ask(query(LOCK))
    pair.answer(ANSWER)
    with pytest.raises(FeatureRefused, match="advisory lock"):
        pair.answer(holds(b"ctl"))
