"""Prepared statements: shared texts, names of clients, what a server connection has."""

import gc

import pytest

from dualpool.errors import RemoteProtocolError
from dualpool.postgres.statements import ClientStatements, PreparedStep, ServerStatements, shared
from tests.helpers import frames


def key(text: bytes) -> bytes:
    return text + b"\0\0\0"


def test_one_text_is_one_statement_while_somebody_has_it() -> None:
    one = shared(key(b"select 17"))
    assert shared(key(b"select 17")) is one
    assert shared(b"select 17\0\0\1\0\0\0\x17") is not one  # other parameter types
    assert one.parse == frames.parse(one.name, b"select 17")
    name = one.name
    del one
    gc.collect()
    assert shared(key(b"select 17")).name != name, "a name must not mean two texts on one server connection"


def test_the_caps_of_a_client() -> None:
    mine = ClientStatements(count_limit=2, byte_limit=40)
    mine.add(b"a", shared(key(b"select 1")))
    mine.add(b"b", shared(key(b"select 2")))
    with pytest.raises(RemoteProtocolError):
        mine.add(b"c", shared(key(b"x")))
    mine = ClientStatements(count_limit=9, byte_limit=20)
    mine.add(b"a", shared(key(b"select 1")))
    with pytest.raises(RemoteProtocolError):
        mine.add(b"b", shared(key(b"select 2")))


def test_bytes_are_counted_back() -> None:
    mine = ClientStatements(9, 1000)
    statement = shared(key(b"select 1"))
    mine.add(b"a", statement)
    assert mine.remove(b"a") is statement
    assert mine.remove(b"a") is None
    assert mine.bytes == 0
    mine.restore(b"a", statement)
    mine.restore(b"a", statement)
    mine.restore(b"b", None)
    assert (mine.bytes, list(mine.names)) == (len(statement.key), [b"a"])
    mine.clear()
    assert (mine.bytes, mine.names) == (0, {})


def test_the_least_recently_used_makes_room() -> None:
    have = ServerStatements(2)
    one, two, three = (PreparedStep(shared(key(b"select %d" % number)), None, b"") for number in (1, 2, 3))
    assert have.add(one) == have.add(two) == []
    have.known.move_to_end(one.statement)
    assert have.add(three) == [two]
    again = PreparedStep(one.statement, None, b"")
    assert have.add(again) == [one]  # the same text: it must be closed before it is prepared anew
    have.remove(one)
    assert have.known[one.statement] is again
    have.remove(again)
    assert list(have.known) == [three.statement]
