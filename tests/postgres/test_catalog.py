"""What the catalog makes of texts, and what is learnt of them."""

import pytest

from dualpool.postgres import catalog, session_sql, sql
from dualpool.postgres.catalog import MAX_NAMES, Catalog, Facts, Judge, shape_of
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.server_relay import ServerRelay
from dualpool.protocol import LEAKED, LEARNT, NEEDS_SERVER, RELEASE, VERIFY_ALWAYS, VERIFY_LEARN, VERIFY_NEVER, RelayLimits
from dualpool.sql_text import POSTGRES, lexis
from tests.helpers.frames import LEXICAL, READY, complete, query, row

PLAIN = lexis(POSTGRES)
ANSWER = row(b"1") + complete(b"SELECT 1") + READY
NOTHING = row(b"", b"") + row(b"role", b"none".hex().encode()) + complete(b"SELECT 1") + READY
A_LOCK = row(b"", b"l") + row(b"role", b"none".hex().encode()) + complete(b"SELECT 1") + READY


def facts(*rows: tuple[str, str]) -> Facts:
    return Facts([[kind.encode(), name.encode(), b""] for kind, name in rows])


VOLATILE = facts(("call", "f"), ("opaque", "g"), ("call", "g"))


def judge(found: Facts | None, verify: int = VERIFY_LEARN) -> Judge:
    return Catalog(found).judge(PLAIN, verify)


@pytest.mark.parametrize(
    ("found", "text", "in_doubt"),
    [
        (VOLATILE, b"select f(1)", True),
        (VOLATILE, b'select "f" (1)', True),
        (VOLATILE, b"select public . F(1)", True),
        (VOLATILE, b"select t.f from t", True),
        (VOLATILE, b"select h(1)", False),
        (VOLATILE, b"select f from t", False),
        (VOLATILE, b"select 'f(1)' -- f(1)", False),
        (VOLATILE, b"insert into t values (1)", False),
        (facts(("write", "")), b"insert into t values (1)", True),
        (facts(("write", "")), b"with a as (delete from t returning *) select * from a", True),
        (facts(("write", "")), b"select 1 from t", False),
        (facts(("read", "")), b"select 1 from t", True),
        (facts(("read", "")), b"table t", True),
        (facts(("read", "")), b"select 1", False),
        (facts(("all", "")), b"select 1", True),
        (facts(("all", "")), b"begin", False),
        (None, b"begin", False),
        (None, b"select 1", True),
        (None, b"select 1 from t", True),
        (None, b"select now()", True),
    ],
)
def test_what_is_in_doubt(found: Facts | None, text: bytes, in_doubt: bool) -> None:
    assert bool(judge(found).marks(text) & sql.SETTINGS) is in_doubt
    assert bool(judge(found, VERIFY_ALWAYS).marks(text) & sql.SETTINGS) is in_doubt
    assert not judge(found, VERIFY_NEVER).marks(text) & sql.SETTINGS


def test_functions_that_may_make_settings_without_a_name() -> None:
    assert judge(VOLATILE).marks(b"select g()") & sql.OPAQUE
    assert not judge(VOLATILE).marks(b"select f()") & sql.OPAQUE


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"select 1 from t where a = 'x'", b"select 23.5 from t where a = 'y'' z'", False),
        (b"select 1 from t where a = 'x'", b"select 23.5 from t where a = 'y'", True),
        (b'select "1"', b'select "2"', False),
        (b'select \'5" pipe\', "1"', b'select \'5" pipe\', "2"', False),
        (b"select a1", b"select a2", False),
        (b"select e'x'", b"select 'x'", False),
        (b"select 1e5", b"select 2e5", False),
    ],
)
def test_shapes(one: bytes, other: bytes, same: bool) -> None:
    assert (shape_of(one) == shape_of(other)) is same


@pytest.mark.parametrize("text", [rb"select '\'", b"select $a$", b"select 1 -- '", b"select /* ' */ 1", b"x" * 5000])
def test_texts_without_a_shape(text: bytes) -> None:
    assert shape_of(text) is None


def test_what_is_learnt_survives_ddl_of_no_importance_and_no_other() -> None:
    known = Catalog(VOLATILE)
    first = known.judge(PLAIN, VERIFY_LEARN)
    for _ in range(LEARNT):
        assert first.marks(b"select f(1)") & sql.SETTINGS
        first.found_harmless(b"select f(1)")
    assert not first.marks(b"select f(1)") & sql.SETTINGS
    assert first.marks(b"select f(2)") & sql.SETTINGS
    known.outdate()
    assert first.outdated
    assert known.judge(PLAIN, VERIFY_LEARN).marks(b"select f(1)") & sql.SETTINGS
    known.learn(facts(("call", "f"), ("opaque", "g"), ("call", "g")))
    assert known.judge(PLAIN, VERIFY_LEARN) is first
    assert not first.outdated
    known.outdate()
    known.learn(facts(("call", "f"), ("version", "2")))
    assert first.outdated
    assert known.judge(PLAIN, VERIFY_LEARN).marks(b"select f(1)") & sql.SETTINGS


def test_names_have_a_cap() -> None:
    known = Catalog()
    for number in range(2 * MAX_NAMES):
        known.know((f"app.x{number}",))
    assert len(known.names) == MAX_NAMES


class Pair:
    """A client, and the server connection that it gets for each request."""

    def __init__(self, found: Facts | None, verify: int = VERIFY_LEARN, every: int = 0) -> None:
        limits = RelayLimits()
        limits.verify, limits.verify_every = verify, every
        self.client = ClientRelay(limits)
        self.server = ServerRelay(limits, dict(LEXICAL), Catalog(found))

    def run(self, text: bytes, holds: bytes = NOTHING) -> bytes:
        """One lease. Returns what the server is asked behind it."""
        assert self.client.on_client_bytes(query(text)) == NEEDS_SERVER
        self.client.attach(self.server)
        self.client.to_server = b""
        verdict = self.server.on_server_bytes(ANSWER)
        asked, self.server.to_server = self.server.to_server, b""
        if asked:
            verdict |= self.server.on_server_bytes(holds)
        self.verdict = verdict
        if verdict & RELEASE:
            self.client.detach()
        return asked


@pytest.mark.parametrize(
    ("verify", "asked"), [(VERIFY_LEARN, [True] * 3 + [False] * 2), (VERIFY_ALWAYS, [True] * 5), (VERIFY_NEVER, [False] * 5)]
)
def test_a_text_that_was_found_harmless_is_asked_no_more(verify: int, asked: list[bool]) -> None:
    pair = Pair(VOLATILE, verify)
    assert [bool(pair.run(b"select f(1)")) for _ in asked] == asked


def test_texts_with_other_literals_learn_together_where_no_function_gets_them() -> None:
    pair = Pair(facts(("write", "")))
    assert [bool(pair.run(b"insert into t values (%d)" % number)) for number in range(5)] == [True] * 3 + [False] * 2
    pair = Pair(VOLATILE)
    assert all(pair.run(b"select f(%d)" % number) for number in range(5))


def test_a_text_that_does_something_is_always_asked() -> None:
    pair = Pair(VOLATILE)
    assert pair.run(b"select f(1)", A_LOCK)
    assert pair.server.pins == sql.LOCK


def test_the_catalog_is_asked_for_once() -> None:
    pair = Pair(None)
    fact = row(b"version", b"1", b"") + complete(b"SELECT 1") + READY
    asked = pair.run(b"select now()", row(b"", b"") + row(b"role", b"6e6f6e65") + complete(b"SELECT 1") + complete(b"SET") + fact)
    assert asked == query((session_sql.probe(sql.EVERYTHING) + ";" + catalog.QUERY).encode())
    assert pair.server.catalog.facts is not None
    assert pair.run(b"select now()") == b""


def test_a_sample_finds_what_looked_harmless() -> None:
    pair = Pair(facts(), every=3)
    assert [bool(pair.run(b"select stable()")) for _ in range(6)] == [False, False, True] * 2
    assert not pair.verdict & LEAKED
    assert [bool(pair.run(b"select stable()", A_LOCK)) for _ in range(3)] == [False, False, True]
    assert pair.verdict & LEAKED
    assert "advisory lock; the statements were: select stable()" in pair.server.leak
    assert pair.server.pins == sql.LOCK
    assert pair.server.judge.marks(b"select stable()") & sql.SETTINGS
