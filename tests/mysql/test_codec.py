"""Packets: the walk over rows, and the two dialects of OK."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.errors import RemoteProtocolError
from dualpool.mysql import codec, wire
from dualpool.mysql.codec import Ok, build_ok, parse_ok

BOTH = wire.CLIENT_DEPRECATE_EOF | wire.CLIENT_SESSION_TRACK
CHANGES = b"\x01\x04\x03app"
STATUS = wire.STATUS_AUTOCOMMIT

sizes = st.lists(st.integers(1, 60), max_size=80) | st.integers(1, 40).flatmap(lambda size: st.just([size] * 60))


def rows(lengths: list[int], first: int = 1) -> bytes:
    return b"".join(wire.packet(first + number, bytes((number % 0xFE,)) * length) for number, length in enumerate(lengths))


@given(sizes, st.binary(max_size=4))
def test_rows_are_skipped_up_to_the_first_other_packet(lengths: list[int], junk: bytes) -> None:
    data = rows(lengths)
    end = wire.packet(9, b"\xfe\0\0\2\0\0\0")
    for tail in (b"", end, wire.packet(9, b"\xff\x15\x04"), junk):
        whole = data + tail
        found = codec.skip_rows(whole, 0, len(whole))
        if tail == junk:
            assert found == len(data)
        else:
            assert found == len(data), (lengths, tail)


def walk(data: bytes, shift: int) -> tuple[int, bytes]:
    """As skip_rows, packet by packet; and the packets with `shift` added to their numbers."""
    changed = bytearray(data)
    position = 0
    while position + 5 <= len(data):
        size = int.from_bytes(data[position : position + 3], "little")
        if data[position + 4] > 0xFD or size == wire.MAX_PAYLOAD:
            break
        changed[position + 3] = (data[position + 3] + shift) % 256
        position += size + 4
    return position, bytes(changed)


lengths = st.integers(0, 12) | st.sampled_from((250, 255, 256, 511, 65_535, 65_536, 131_071))
runs = st.lists(st.tuples(lengths, st.integers(1, 400), st.sampled_from((0, 3, 0x7F, 0x80, 0xFB, 0xFD, 0xFE, 0xFF))), max_size=5)


@given(runs, st.integers(0, 255), st.integers(0, 300), st.integers(-3, 3))
def test_rows_are_skipped_as_by_a_naive_walk(runs: list[tuple[int, int, int]], number: int, cut: int, shift: int) -> None:
    """Runs of rows of one length (few where they are long), some of which begin as no row does, cut somewhere in the last of them."""
    parts = []
    for length, count, first in runs:
        payload = bytes((first,)) + bytes(length - 1) if length else b""
        for _ in range(min(count, 200_000 // (length + 4))):
            parts.append(wire.packet(number, payload))
            number = (number + 1) % 256
    data = b"".join(parts)
    data = data[: len(data) - cut]
    position, shifted = walk(data, shift)
    assert codec.skip_rows(data, 0, len(data)) == position
    changed = bytearray(data)
    assert codec.skip_rows_shifting(changed, 0, len(changed), shift) == position
    assert changed == shifted


@given(sizes, st.integers(-3, 3))
def test_skipped_rows_can_be_renumbered(lengths: list[int], shift: int) -> None:
    data = bytearray(rows(lengths, 1))
    assert codec.skip_rows_shifting(data, 0, len(data), shift) == len(data)
    assert bytes(data) == rows(lengths, 1 + shift)


def test_a_row_that_is_cut_counts_as_skipped() -> None:
    data = rows([10, 20])
    for cut in range(14 + 5, len(data)):
        assert codec.skip_rows(data[:cut], 0, cut) == len(data)
    for cut in range(14, 14 + 5):
        assert codec.skip_rows(data[:cut], 0, cut) == 14


def test_full_packets_are_left_to_the_caller() -> None:
    for before in (1, 40):
        data = rows([5] * before) + b"\xff\xff\xff\x02a"
        assert codec.skip_rows(data, 0, len(data)) == codec.skip_rows_shifting(bytearray(data), 0, len(data), 1) == 9 * before


def test_a_run_of_equal_rows_ends_where_a_row_differs() -> None:
    for count in (1, 15, 16, 17, 40, 200, 1000):
        data = rows([12] * count)
        for tail in (rows([13]), wire.packet(1, b"\xfe" * 12), wire.packet(1, b"\xff" * 12), b"", b"\x0c"):
            whole = data + tail
            assert codec.skip_equal(whole, 0, len(whole), 16) == count
            assert codec.skip_equal(whole, 0, len(whole), 17) == 0


OKS = [
    (Ok(0, 0, STATUS, 0), b"\0\0\0\2\0\0\0", b"\0\0\0\2\0\0\0"),
    (Ok(1, 300, STATUS, 1), b"\0\1\xfc\x2c\1\2\0\1\0", b"\0\1\xfc\x2c\1\2\0\1\0"),
    (Ok(3, 0, STATUS, 0, b"Rows"), b"\0\3\0\2\0\0\0\4Rows", b"\0\3\0\2\0\0\0Rows"),
    (Ok(0, 0, STATUS | 0x4000, 0, b"", CHANGES), b"\0\0\0\2\x40\0\0\0\6" + CHANGES, b"\0\0\0\2\0\0\0"),
    (Ok(0, 0, STATUS | 0x4000, 0, b"hi", CHANGES), b"\0\0\0\2\x40\0\0\2hi\6" + CHANGES, b"\0\0\0\2\0\0\0hi"),
]


@pytest.mark.parametrize(("ok", "tracking", "plain"), OKS)
def test_ok_packets_in_both_dialects(ok: Ok, tracking: bytes, plain: bytes) -> None:
    assert build_ok(ok, BOTH, wire.OK) == tracking
    assert build_ok(ok, 0, wire.OK) == plain
    for payload, capabilities in ((tracking, BOTH), (plain, 0)):
        found = parse_ok(payload, capabilities)
        assert (found.affected, found.insert_id, found.warnings, found.info) == (ok.affected, ok.insert_id, ok.warnings, ok.info)
        assert found.status & ~0x4000 == ok.status & ~0x4000
    assert parse_ok(tracking, BOTH).changes == ok.changes
    for cut in range(1, min(len(tracking), 7)):
        with pytest.raises(RemoteProtocolError):
            parse_ok(tracking[:cut], BOTH)


def test_the_end_of_a_result_in_both_dialects() -> None:
    ok = Ok(0, 0, 0x22, 3)
    assert build_ok(ok, BOTH, wire.EOF) == b"\xfe\0\0\x22\0\3\0"
    assert build_ok(ok, 0, wire.EOF) == b"\xfe\3\0\x22\0"
    for capabilities in (0, BOTH):
        found = parse_ok(build_ok(ok, capabilities, wire.EOF), capabilities)
        assert (found.status, found.warnings) == (0x22, 3)
    with pytest.raises(RemoteProtocolError):
        parse_ok(b"\xfe\0\0", 0)


@given(st.binary(min_size=1, max_size=60), st.sampled_from([0, BOTH]))
def test_junk_is_no_ok_packet_or_one(payload: bytes, capabilities: int) -> None:
    try:
        parse_ok(payload, capabilities)
    except RemoteProtocolError:
        pass


def test_session_changes() -> None:
    variables = b"\x0aautocommit\3OFF\x09time_zone\6+01:00"
    changes = bytes((0, len(variables))) + variables + CHANGES + b"\2\2\x011"
    parsed = codec.parse_changes(changes)
    assert parsed == [(0, variables), (1, b"\x03app"), (2, b"\x011")]
    assert codec.parse_variables(variables) == {"autocommit": b"OFF", "time_zone": b"+01:00"}
    assert codec.first_string(b"\x03app") == b"app"


@pytest.mark.parametrize("capabilities", [0, BOTH])
def test_our_own_results_can_be_read(capabilities: int) -> None:
    data = codec.result([codec.integer_column(b"n"), codec.column(b"s", 253, 45, 40, 0)], [b"\x015\x03abc", b"\xfb\x00"], 2, capabilities)
    result = codec.parse_result(data, capabilities)
    assert result.ended
    assert [codec.row_values(row) for row in result.rows] == [[b"5", b"abc"], [None, b""]]
    assert [data[0] for data in codec.split(data)][:1] == [2]
    assert not codec.parse_result(wire.packet(1, b"\xff\x15\x04"), capabilities).ended
    assert not codec.parse_result(b"", capabilities).ended


@pytest.mark.parametrize("zeros", [1, 3])
def test_changes_whose_length_has_the_width_of_the_schema_s_letters(zeros: int) -> None:
    """As MariaDB 10.11 sends them where the schema is in ucs2, utf16 or utf32."""
    change = bytes((wire.TRACK_SYSTEM_VARIABLES, 7)) + b"\4name\1x"
    head = build_ok(Ok(1, 0, 0x4002, 0, b"said", change), BOTH, wire.OK)
    at = head.index(change) - 1
    assert parse_ok(head[:at] + bytes(zeros) + head[at:], BOTH).changes == change
