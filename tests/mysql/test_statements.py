"""Prepared statements: ids, caps, what is shared, and the head of COM_STMT_EXECUTE."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.errors import FeatureRefused
from dualpool.mysql import statements, wire
from dualpool.mysql.reading import Reading
from dualpool.mysql.statements import (
    ClientStatement,
    ClientStatements,
    ServerStatement,
    ServerStatements,
    bound_types,
)

HEAD = b"\x17" + struct.pack("<IBI", 7, 0, 1)


def key(text: bytes) -> statements.Key:
    return (text, "app", "")


def test_ids_are_the_client_s_own_and_never_used_twice() -> None:
    known = ClientStatements(2, 100)
    first = known.new(b"SELECT 1", "app", Reading())
    known.add(first)
    known.remove(first)
    known.remove(first)
    second = known.new(b"SELECT 2", "app", Reading())
    known.add(second)
    assert (first.id, second.id, known.bytes) == (1, 2, 8)
    known.clear()
    assert known.new(b"SELECT 3", "app", Reading()).id == 3
    assert (known.known, known.bytes) == ({}, 0)


def test_caps_of_a_client() -> None:
    known = ClientStatements(1, 10)
    with pytest.raises(FeatureRefused):
        known.new(b"x" * 11, "app", Reading())
    known.add(known.new(b"x" * 9, "app", Reading()))
    with pytest.raises(FeatureRefused) as caught:
        known.new(b"x", "app", Reading())
    assert caught.value.errno == 1461


def test_long_data_of_all_statements_together_is_capped() -> None:
    known = ClientStatements(10, 1000)
    first, second, third = (known.new(b"SELECT ?", "app", Reading()) for _ in range(3))
    for statement in (first, second, third):
        known.add(statement)
    known.keep_long_data(first, b"\0\0" + b"x" * 598)
    known.keep_long_data(second, b"\0\0" + b"x" * 398)
    for _ in range(2):
        known.keep_long_data(third, b"\0\0x")
        assert (third.long_data, third.long_bytes) == ([], 1001)
    assert first.long_bytes + second.long_bytes == 1000
    for statement in (first, third):
        statement.forget_long_data()
    known.keep_long_data(third, b"\0\0x")
    assert (third.long_data, third.long_bytes) == ([b"\0\0x"], 3)


def test_the_least_recently_used_is_closed() -> None:
    known = ServerStatements(2)
    user = ClientStatement(1, b"", "", Reading())
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
    user, other = ClientStatement(1, b"", "", Reading()), ClientStatement(2, b"", "", Reading())
    a = ServerStatement(1, key(b"a"))
    known.add(a)
    a.user = user
    assert known.find(a.key, user) is a
    assert known.find(a.key, other) is None
    assert known.add(ServerStatement(2, a.key)) == b""


def test_statements_are_shared_by_users_with_the_same_kinds_of_parameters() -> None:
    known = ServerStatements(10)
    users = [ClientStatement(number, b"", "", Reading()) for number in range(4)]
    number, long, string, null = users
    number.bind(b"\x01\0\xfd\0")
    long.bind(b"\x08\0\x0f\0")
    string.bind(b"\xfd\0\xfd\0")
    null.bind(b"\x06\0\xfd\0")
    first, second = ServerStatement(1, key(b"a")), ServerStatement(2, key(b"a"))
    known.add(first)
    assert [known.find(first.key, user) for user in (null, number, long, string, null)] == [first, first, first, None, first]
    assert known.add(second) == b""
    assert [known.find(first.key, user) for user in (number, string, null, string)] == [first, second, first, second]
    string.bind(b"\x06\0\xfd\0")
    assert string.kinds == b"\xfd\xfd"
    string.bind(b"\x08\x80\xfd\0")
    assert known.find(first.key, string) is None
    known.clear()
    assert known.find(first.key, number) is None


EXECUTES = [
    (HEAD, 0, b""),
    (HEAD + b"\0\0", 1, b""),
    (HEAD + b"\0\1\x08\0", 1, b"\x08\0"),
    (HEAD + b"\0\2\x08\0", 1, b"\x08\0"),
    (HEAD + b"\0\0\1" + b"\x08\0" * 9, 9, b"\x08\0" * 9),
]


@pytest.mark.parametrize(("payload", "params", "types"), EXECUTES)
def test_the_types_of_parameters(payload: bytes, params: int, types: bytes) -> None:
    assert bound_types(payload, params) == bound_types(payload + b"v" * 8, params) == types
    for cut in range(len(payload)):
        assert bound_types(payload[:cut], params) is None


@given(st.binary(max_size=60), st.integers(0, 20))
def test_junk_fits_or_does_not(junk: bytes, params: int) -> None:
    found = bound_types(b"\x17" + junk, params)
    if found is not None:
        assert len(found) in (0, 2 * params)


def test_long_data_is_sent_for_the_server_s_id() -> None:
    statement = ClientStatement(1, b"", "", Reading())
    statement.long_data = [b"\0\0abc", b"\1\0def"]
    wanted = b"".join(wire.packet(0, b"\x18\x09\0\0\0" + chunk) for chunk in (b"\0\0abc", b"\1\0def"))
    assert statements.long_data_packets(statement, 9) == wanted
    statement.forget_long_data()
    assert statements.long_data_packets(statement, 9) == b""
