"""The walk over a server's messages: the fast one against one that anybody can check."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualpool.errors import RemoteProtocolError
from dualpool.postgres import wire
from dualpool.postgres.codec import check_length, skip_rows, split
from dualpool.postgres.states import S_PASS, SERVER_ACTION
from tests.helpers import frames


def naive(data: bytes, position: int, end: int) -> int:
    """As skip_rows, message by message."""
    while end - position >= 5:
        kind, length = wire.HEADER.unpack_from(data, position)
        if SERVER_ACTION[kind] != S_PASS or length < 4 or position + 1 + length > end:
            break
        position += 1 + length
    return position


RUNS = st.lists(
    st.one_of(
        st.tuples(st.just(wire.DATA_ROW), st.integers(0, 12), st.integers(1, 90)),
        st.tuples(st.sampled_from([wire.COPY_DATA, wire.ROW_DESCRIPTION, wire.DATA_ROW]), st.integers(0, 300), st.integers(1, 3)),
        st.tuples(st.sampled_from([wire.COMMAND_COMPLETE, wire.READY, wire.NOTICE, 0]), st.integers(0, 6), st.just(1)),
    ),
    max_size=6,
)


@given(RUNS, st.integers(0, 400), st.integers(0, 3), st.sampled_from([b"\0", b"D", b"D\0\0\0\x05"]))
@example([(wire.DATA_ROW, 6, 80), (wire.DATA_ROW, 7, 80)], 0, 0, b"\0")
@example([(wire.DATA_ROW, 1, 90), (wire.COMMAND_COMPLETE, 1, 1)], 0, 0, b"D")
def test_skip_rows_stops_where_a_naive_walk_stops(runs: list[tuple[int, int, int]], cut: int, junk: int, fill: bytes) -> None:
    data = b"".join(wire.message(kind, (fill * size)[:size]) * count for kind, size, count in runs)
    end = max(0, len(data) - cut)
    padded = data + b"D\0\0\0\4" * junk  # bytes behind `end` are not there
    position = skip_rows(padded, 0, end)
    assert position == naive(padded, 0, end)


@pytest.mark.parametrize("odd", [0, 1, 7, 8, 9, 63, 64, 65, 72, 500, 999])
def test_one_row_of_another_length_in_a_long_run(odd: int) -> None:
    rows = [frames.row(b"12345678")] * 1000
    rows[odd] = frames.row(b"123456789")
    data = b"".join(rows)
    assert skip_rows(data, 0, len(data)) == len(data)
    rows[odd] = frames.complete(b"SELECT 1")
    data = b"".join(rows)
    assert skip_rows(data, 0, len(data)) == sum(map(len, rows[:odd]))


def test_an_impossible_length_is_left_to_the_relay() -> None:
    data = frames.row(b"1") + b"D\0\0\0\3" + frames.row(b"1")
    assert skip_rows(data, 0, len(data)) == len(frames.row(b"1"))


MESSAGES = [frames.query(b"select 1"), frames.SYNC, frames.row(b"1", b""), frames.READY]


def test_split_at_every_byte() -> None:
    data = b"".join(MESSAGES)
    whole, rest = split(data)
    assert rest == b""
    assert [wire.message(kind, payload) for kind, payload in whole] == MESSAGES
    for cut in range(len(data)):
        first, rest = split(data[:cut])
        second, nothing = split(rest + data[cut:])
        assert (first + second, nothing) == (whole, b"")


@pytest.mark.parametrize("length", [0, 3, wire.MAX_LENGTH + 1, 0xFFFFFFFF])
def test_impossible_lengths(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        check_length(length)
    with pytest.raises(RemoteProtocolError):
        split(wire.HEADER.pack(wire.QUERY, length))


@pytest.mark.parametrize("length", [4, wire.MAX_LENGTH])
def test_possible_lengths(length: int) -> None:
    check_length(length)
