"""Prepared statements: shared texts, names of clients, what a server connection has."""

import gc
import struct
import weakref

import pytest

from dualpool.errors import RemoteProtocolError
from dualpool.postgres.statements import (
    ClientStatements,
    PreparedStep,
    ServerStatements,
    Version,
    columns_of,
    described,
    shared,
    undescribed,
)
from tests.helpers import frames

NOBODY = ClientStatements(9, 1000)


def key(text: bytes) -> bytes:
    return text + b"\0\0\0"


def version(text: bytes) -> Version:
    return undescribed(shared(key(text)))


def step(of: Version, name: bytes) -> PreparedStep:
    return PreparedStep(of, name, NOBODY, b"", visible=False)


def test_one_text_is_one_statement_while_somebody_has_it() -> None:
    one = shared(key(b"select 17"))
    assert shared(key(b"select 17")) is one
    assert shared(b"select 17\0\0\1\0\0\0\x17") is not one  # other parameter types
    assert undescribed(one).parse(b"n") == frames.parse(b"n", b"select 17")
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_one_shape_is_one_version() -> None:
    statement = shared(key(b"select 18"))
    one = described(statement, b"\0\0", b"\0\0")
    assert described(statement, b"\0\0", b"\0\0") is one
    assert described(statement, b"\0\1\0\0\0\x17", b"\0\0") is not one
    assert described(statement, b"\0\0", b"") is not one  # no rows are not rows without columns
    assert described(shared(key(b"select 19")), b"\0\0", b"\0\0") is not one
    assert undescribed(statement) is not undescribed(statement)
    assert one.again().columns is None


COLUMN = (b"id", 16384, 1, 23, 4, -1, 0)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (COLUMN, True),
        ((b"id", 999, 7, 23, 4, -1, 1), True),  # the table was made again, and the client wants binary
        ((b"Id", 16384, 1, 23, 4, -1, 0), False),
        ((b"id", 16384, 1, 20, 8, -1, 0), False),
        ((b"id", 16384, 1, 23, 4, 5, 0), False),
    ],
)
def test_what_makes_columns_different(other: tuple[bytes, int, int, int, int, int, int], same: bool) -> None:
    def rows(*columns: tuple[bytes, int, int, int, int, int, int]) -> bytes:
        fields = b"".join(name + b"\0" + struct.pack("!IhIhih", *rest) for name, *rest in columns)
        return struct.pack("!h", len(columns)) + fields

    assert (columns_of(rows(COLUMN)) == columns_of(rows(other))) is same
    assert (columns_of(rows(COLUMN, COLUMN)) == columns_of(rows(COLUMN, other))) is same
    assert columns_of(rows(COLUMN)) != columns_of(rows(COLUMN, COLUMN))


@pytest.mark.parametrize("broken", [b"", b"\0", b"\0\1", b"\0\1id"])
def test_columns_that_make_no_sense(broken: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        columns_of(broken)


def test_the_caps_of_a_client() -> None:
    mine = ClientStatements(count_limit=2, byte_limit=40)
    mine.add(b"a", version(b"select 1"))
    mine.add(b"b", version(b"select 2"))
    with pytest.raises(RemoteProtocolError):
        mine.add(b"c", version(b"x"))
    mine = ClientStatements(count_limit=9, byte_limit=20)
    mine.add(b"a", version(b"select 1"))
    with pytest.raises(RemoteProtocolError):
        mine.add(b"b", version(b"select 2"))


def test_bytes_are_counted_back() -> None:
    mine = ClientStatements(9, 1000)
    statement = version(b"select 1")
    mine.add(b"a", statement)
    assert mine.remove(b"a") is statement
    assert mine.remove(b"a") is None
    assert mine.bytes == 0
    mine.restore(b"a", statement)
    mine.restore(b"a", statement)
    mine.restore(b"b", None)
    assert (mine.bytes, list(mine.names)) == (len(statement.statement.key), [b"a"])
    mine.clear()
    assert (mine.bytes, mine.names) == (0, {})


def test_the_least_recently_used_makes_room() -> None:
    have = ServerStatements(2)
    one, two, three = (step(version(b"select %d" % number), have.new_name()) for number in (1, 2, 3))
    have.add(one)
    have.add(two)
    assert have.take_outdated() == []
    have.known.move_to_end(one.version)
    have.add(three)
    assert have.take_outdated() == [two]
    again = step(one.version, have.new_name())
    assert again.name == b"dualpool_4"
    have.add(again)
    assert have.take_outdated() == [one]
    have.remove(one)
    assert have.known[one.version] is again
    have.remove(again)
    assert list(have.known) == [three.version]


def test_what_is_described_takes_the_place_of_an_older_one_of_its_shape() -> None:
    have = ServerStatements(9)
    shape = described(shared(key(b"select 20")), b"\0\0", b"\0\0")
    steps = [step(undescribed(shape.statement), have.new_name()) for _ in range(2)]
    for prepared in steps:
        have.add(prepared)
        have.settle(prepared, shape)
    assert list(have.known.values()) == [steps[1]]
    assert have.take_outdated() == [steps[0]]
    have.keep(steps[0])  # its Close was skipped
    assert have.known[shape] is steps[1]
    assert have.take_outdated() == [steps[0]]


def test_what_is_closed_already_comes_back_with_no_description() -> None:
    have = ServerStatements(1)
    one, two = (step(version(text), have.new_name()) for text in (b"select 1", b"select 2"))
    have.add(one)
    have.add(two)
    have.settle(one, described(one.version.statement, b"\0\0", b"\0\0"))
    assert list(have.known.values()) == [two]
