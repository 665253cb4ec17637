"""Prepared statements: ids, caps, what is shared, and the head of COM_STMT_EXECUTE."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.errors import FeatureRefused
from dualpool.mysql import statements, wire
from dualpool.mysql.statements import (
    ClientStatement,
    ClientStatements,
    ServerStatement,
    ServerStatements,
    locate,
    rebuilt_head,
    unnamed_types,
)

HEAD = b"\x17" + struct.pack("<IBI", 7, 0, 1)
COUNTED = b"\x17" + struct.pack("<IBI", 7, statements.PARAMETER_COUNT_AVAILABLE, 1)


def key(text: bytes) -> statements.Key:
    return (text, "app", "")


def test_ids_are_the_client_s_own_and_never_used_twice() -> None:
    known = ClientStatements(2, 100)
    first = known.new(b"SELECT 1", "app", 0)
    known.add(first)
    known.remove(first)
    known.remove(first)
    second = known.new(b"SELECT 2", "app", 0)
    known.add(second)
    assert (first.id, second.id, known.bytes) == (1, 2, 8)
    known.clear()
    assert known.new(b"SELECT 3", "app", 0).id == 3
    assert (known.known, known.bytes) == ({}, 0)


def test_caps_of_a_client() -> None:
    known = ClientStatements(1, 10)
    with pytest.raises(FeatureRefused):
        known.new(b"x" * 11, "app", 0)
    known.add(known.new(b"x" * 9, "app", 0))
    with pytest.raises(FeatureRefused) as caught:
        known.new(b"x", "app", 0)
    assert caught.value.errno == 1461


def test_the_least_recently_used_is_closed() -> None:
    known = ServerStatements(2)
    user = ClientStatement(1, b"", "", 0)
    a, b, c = (ServerStatement(number, key(b"%d" % number)) for number in (1, 2, 3))
    assert known.add(a) == known.add(b) == b""
    assert known.find(a.key, user) is a
    assert known.add(c) == statements.close_packet(2)
    assert known.find(b.key, user) is None
    again = ServerStatement(4, a.key)
    assert known.add(again) == statements.close_packet(1)
    assert known.find(a.key, user) is again
    known.remove(a)
    assert known.holds(again)
    assert not known.holds(a)


def test_one_with_an_open_cursor_is_its_user_s_alone() -> None:
    known = ServerStatements(1)
    user, other = ClientStatement(1, b"", "", 0), ClientStatement(2, b"", "", 0)
    a = ServerStatement(1, key(b"a"))
    known.add(a)
    a.user = user
    assert known.find(a.key, user) is a
    assert known.find(a.key, other) is None
    assert known.add(ServerStatement(2, a.key)) == b""


EXECUTES = [
    (HEAD, 0, False, (0, 10, False)),
    (HEAD, 0, True, (0, 10, False)),
    (HEAD + b"\0\0", 1, False, (1, 12, False)),
    (HEAD + b"\0\1\x08\0" + b"v" * 8, 1, False, (1, 14, False)),
    (HEAD + b"\0\0\1" + b"\x08\0" * 9, 9, False, (9, 31, False)),
    (HEAD + b"\1\0\1\x08\0\0" + b"v" * 8, 1, True, (1, 16, True)),
    (COUNTED + b"\2\0\1\x08\0\0\x08\0\1n" + b"v" * 16, 1, True, (2, 20, True)),
    (COUNTED + b"\0", 0, True, (0, 11, True)),
]


@pytest.mark.parametrize(("payload", "params", "attributes", "wanted"), EXECUTES)
def test_where_the_types_are(payload: bytes, params: int, attributes: bool, wanted: tuple[int, int, bool]) -> None:
    found = locate(payload, params, attributes)
    assert found is not None
    assert (found.count, found.types_end, found.named) == wanted
    needed = found.types_end
    for cut in range(needed):
        assert locate(payload[:cut], params, attributes) is None


def test_fewer_values_than_parameters_do_not_fit() -> None:
    assert locate(COUNTED + b"\1\0\1\x08\0\0" + b"v" * 8, 2, True) is None
    assert locate(HEAD, 1, False) is None


@given(st.binary(max_size=60), st.integers(0, 20), st.booleans())
def test_junk_fits_or_does_not(junk: bytes, params: int, attributes: bool) -> None:
    found = locate(b"\x17" + junk, params, attributes)
    if found is not None:
        assert found.types_end <= len(junk) + 1


def test_types_and_heads_in_both_forms() -> None:
    named = COUNTED + b"\2\0\1\x08\0\0\xfd\0\1n" + b"v" * 9
    where = locate(named, 1, True)
    assert where is not None
    statement = ClientStatement(1, b"", "", 0)
    statement.params = 1
    statement.types = unnamed_types(named, where, 1)
    assert statement.types == b"\x08\0"
    plain = b"\x17" + struct.pack("<IBI", 9, 0, 1)
    assert rebuilt_head(named, where, statement, 9, False) == plain + b"\0\1\x08\0"
    assert rebuilt_head(named, where, statement, 9, True) == plain + b"\1\0\1\x08\0\0"
    statement.types = b""
    assert rebuilt_head(named, where, statement, 9, True) == plain + b"\1\0\0"
    statement.params = 0
    assert rebuilt_head(named, where, statement, 9, True) == plain


def test_long_data_is_sent_for_the_server_s_id() -> None:
    statement = ClientStatement(1, b"", "", 0)
    statement.long_data = [b"\0\0abc", b"\1\0def"]
    wanted = b"".join(wire.packet(0, b"\x18\x09\0\0\0" + chunk) for chunk in (b"\0\0abc", b"\1\0def"))
    assert statements.long_data_packets(statement, 9) == wanted
    statement.forget_long_data()
    assert statements.long_data_packets(statement, 9) == b""
