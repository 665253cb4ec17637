"""From bytes to messages. The relay walks messages in place; this is the walk over those that it need not look at, and a reader for
everything that is not in a hurry."""

from dualpool.errors import RemoteProtocolError
from dualpool.postgres.states import SERVER_ACTION
from dualpool.postgres.wire import DATA_ROW, HEADER, MAX_LENGTH, MIN_LENGTH

_unpack = HEADER.unpack_from


def skip_rows(data: bytes, position: int, end: int) -> int:
    """The first message at or after `position` that the relay must look at, or that is not whole; `end` when there is none.

    This is the hottest loop of all: a select of 20,000 rows goes round it 20,000 times, unless its rows have one length.
    """
    action = SERVER_ACTION
    unpack = _unpack
    while end - position >= 5:
        kind, length = unpack(data, position)
        if action[kind]:
            return position
        following: int = position + length + 1
        if following > end or length < 4:
            return position
        if kind == DATA_ROW and following + length < end and data[following : following + 5] == data[position : position + 5]:
            position = _skip_equal(data, following, end, length + 1)
        else:
            position = following
    return position


def _skip_equal(data: bytes, position: int, end: int, stride: int) -> int:
    """Skip messages of `stride` bytes that all have the header of the one at `position`: rows of one length come in long runs.

    Compares whole columns of header bytes at once: byte k of every header is `data[position + k :: stride]`.
    """
    header = data[position : position + 5]
    run = 8
    while True:
        count = (end - position) // stride
        if count < 1 or data[position : position + 5] != header:
            return position
        count = min(count, run)
        last = position + stride * (count - 1) + 5
        for offset in (4, 3, 0, 1, 2):
            column = data[position + offset : last : stride]
            if column.count(column[0]) != len(column):
                return position + stride * _equal_prefix(data, position, stride, count, header)
        position += stride * count
        run *= 8


def _equal_prefix(data: bytes, position: int, stride: int, count: int, header: bytes) -> int:
    """How many of the `count` headers, from the first, are equal to `header`."""
    for index in range(count):
        at = position + index * stride
        if data[at : at + 5] != header:
            return index
    return count


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """All whole messages in `data` as (kind, payload), and the rest. Raises RemoteProtocolError for an impossible length."""
    messages: list[tuple[int, bytes]] = []
    position = 0
    while len(data) - position >= 5:
        kind, length = _unpack(data, position)
        check_length(length)
        following = position + 1 + length
        if following > len(data):
            break
        messages.append((kind, data[position + 5 : following]))
        position = following
    return messages, data[position:]


def check_length(length: int) -> None:
    """Raise RemoteProtocolError for a length that no message can have."""
    if length < MIN_LENGTH:
        raise RemoteProtocolError(f"message length {length} is under the minimum of {MIN_LENGTH}")
    if length > MAX_LENGTH:
        raise RemoteProtocolError(f"message length {length} is over the maximum of {MAX_LENGTH}")
