"""Bytes that wait."""

from hypothesis import given
from hypothesis import strategies as st

from dualpool.buffer import HeldBytes, SendQueue


@given(st.lists(st.binary(max_size=5), max_size=10), st.integers(0, 30))
def test_held_bytes_come_back_whole_when_enough(pieces: list[bytes], need: int) -> None:
    held = HeldBytes()
    held.keep(b"", need)
    total = b""
    for piece in pieces:
        total += piece
        data = held.take(piece)
        if len(total) >= need:
            assert data == total
            assert (held.size, held.need, held.chunks) == (0, 0, [])
            return
        assert data == b""
        assert held.size == len(total)


def test_a_thousand_small_pieces_are_joined_once() -> None:
    held = HeldBytes()
    held.keep(b"x", 1001)
    for _ in range(999):
        assert held.take(b"x") == b""
    assert len(held.chunks) == 1000
    assert held.take(b"x") == b"x" * 1001


@given(st.lists(st.binary(min_size=1, max_size=6), max_size=10), st.data())
def test_send_queue_gives_all_in_order(chunks: list[bytes], data: st.DataObject) -> None:
    queue = SendQueue()
    for chunk in chunks:
        queue.push(chunk)
    sent = b""
    while queue.chunks:
        head = queue.head()
        count = data.draw(st.integers(0, len(head)))
        sent += head[:count]
        queue.sent(count)
        assert queue.size == sum(map(len, queue.chunks))
        if count == 0:
            assert queue.head() is head  # TLS must retry with the same bytes
            queue.sent(len(head))
            sent += head
    assert sent == b"".join(chunks)
    assert queue.size == 0


def test_clear() -> None:
    queue = SendQueue()
    queue.push(b"abc")
    queue.clear()
    assert (queue.size, list(queue.chunks)) == (0, [])
