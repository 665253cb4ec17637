"""From bytes to packets, and between the two dialects of replies.

The relay walks packets in place; here is the walk over those that it need not look at, readers for the few that it does, and what must be
changed in them where a client and a server agreed on different capabilities. Source: MySQL Source Code Documentation, "OK_Packet",
"Text Resultset", "COM_QUERY" (query attributes), "Binary Protocol Value".
"""

from struct import Struct
from typing import Final

from dualpool.errors import RemoteProtocolError
from dualpool.mysql import wire
from dualpool.mysql.wire import INT16, INT32, get_lenenc, get_lenenc_bytes, put_lenenc, put_lenenc_bytes

_HEAD: Final = Struct("<HBxB")
"""The length of a packet in two parts, its number left out, and its first byte."""
_NUMBERED_HEAD: Final = Struct("<HBBB")
_unpack = _HEAD.unpack_from
_unpack_numbered = _NUMBERED_HEAD.unpack_from
_EMPTY_NAME: Final = b"\0"


def after_definitions(data: bytes, position: int, count: int) -> int:
    """Where `count` column definitions, the first at `position`, are over; 0 where they are cut, very long, or something else."""
    unpack = _unpack
    last = len(data) - 5
    for _ in range(count):
        if position > last:
            return 0
        size, high, first = unpack(data, position)
        if high or first != 3:  # the length of "def", with which each begins
            return 0
        position += size + 4
    return position if position <= last else 0


STRETCH: Final = 256
"""After so many bytes, and then each time after twice as many, two rows of one length raise the hope that a run of them follows."""
RUN: Final = 32
"""Fewer rows are not worth the attempt."""


def skip_rows(data: "bytes | bytearray", position: int, end: int) -> int:
    """The first packet at or after `position` that is no plain row, or whose head is cut. More than `end`: the last row is cut.

    This is the hottest loop of all: a select of 20,000 rows goes round it 20,000 times, unless its rows have one length. (So its numbers
    are small ones, which Python has ready, and it looks for runs but now and then.) A row's first byte is 0xFE or 0xFF only when its first
    value has 16 MiB or more, and then the packet is full (`wire.MAX_PAYLOAD`); that one is left to the caller, too.
    """
    unpack = _unpack
    last = end - 5
    before = 0
    stretch = STRETCH
    while position <= last:
        stop = position + stretch if position + stretch < last else last
        while position <= stop:
            size, high, first = unpack(data, position)
            if first > 0xFD or (high == 0xFF and size == 0xFFFF):
                return position
            if high:
                size += high << 16
            position += size + 4
        stretch *= 2
        if size == before and last - position > RUN * (size + 4):
            position += skip_equal(data, position, end, size + 4) * (size + 4)
            stretch = STRETCH
        before = size
    return position


def skip_rows_shifting(data: bytearray, position: int, end: int, shift: int) -> int:
    """As `skip_rows`, adding `shift` to every packet's sequence number on the way."""
    unpack = _unpack_numbered
    shifted = _SHIFTED[shift & 255]
    last = end - 5
    before = 0
    stretch = STRETCH
    while position <= last:
        stop = position + stretch if position + stretch < last else last
        while position <= stop:
            size, high, number, first = unpack(data, position)
            if first > 0xFD or (high == 0xFF and size == 0xFFFF):
                return position
            data[position + 3] = shifted[number]
            if high:
                size += high << 16
            position += size + 4
        stretch *= 2
        if size == before and last - position > RUN * (size + 4):
            following = position + skip_equal(data, position, end, size + 4) * (size + 4)
            numbers = slice(position + 3, following, size + 4)
            data[numbers] = data[numbers].translate(shifted)
            position = following
            stretch = STRETCH
        before = size
    return position


def skip_equal(data: "bytes | bytearray", position: int, end: int, stride: int) -> int:
    """How many rows of `stride` bytes each begin at `position`: rows of one length come in long runs.

    Compares whole columns of header bytes at once: byte k of every header is `data[position + k :: stride]`. Runs are tried in growing
    steps, so that a short one costs little.
    """
    size = (stride - 4).to_bytes(3, "little")
    found = 0
    run = 16
    while True:
        start = position + found * stride
        count = min((end - start - 5) // stride + 1, run)
        if count < 1:
            return found
        last = start + stride * (count - 1) + 5
        same = count
        for offset in (0, 1, 2):
            column = data[start + offset : last : stride]
            byte = size[offset : offset + 1]
            if column != byte * count:
                same = min(same, count - len(column.lstrip(byte)))
        firsts = data[start + 4 : last : stride]
        if not firsts.isascii():
            same = min(same, count - len(firsts.lstrip(_FIRSTS)))
        found += same
        if same < count:
            return found
        run *= 8


_FIRSTS: Final = bytes(range(0xFE))
"""What a row may begin with."""
_SHIFTED: Final = tuple(bytes((number + shift) & 255 for number in range(256)) for shift in range(256))


class Ok:
    """What an OK packet says, or what an EOF packet says as one. `changes`: the session state changes, unparsed."""

    __slots__ = ("affected", "changes", "info", "insert_id", "status", "warnings")

    def __init__(
        self,
        affected: int = 0,
        insert_id: int = 0,
        status: int = wire.STATUS_AUTOCOMMIT,
        warnings: int = 0,
        info: bytes = b"",
        changes: bytes = b"",
    ) -> None:
        self.affected = affected
        self.insert_id = insert_id
        self.status = status
        self.warnings = warnings
        self.info = info
        self.changes = changes


def parse_ok(payload: bytes, capabilities: int) -> Ok:
    """Read an OK packet, or one that begins with wire.EOF: either form of it. Raises RemoteProtocolError where it is cut."""
    if payload[0] == wire.EOF and not capabilities & wire.CLIENT_DEPRECATE_EOF:
        if len(payload) < 5:
            raise RemoteProtocolError("an EOF packet is cut short")
        return Ok(0, 0, INT16.unpack_from(payload, 3)[0], INT16.unpack_from(payload, 1)[0])
    affected, position = get_lenenc(payload, 1)
    insert_id, position = get_lenenc(payload, position)
    if position + 4 > len(payload):
        raise RemoteProtocolError("an OK packet is cut short")
    status: int = INT16.unpack_from(payload, position)[0]
    warnings: int = INT16.unpack_from(payload, position + 2)[0]
    position += 4
    if position == len(payload):
        return Ok(affected, insert_id, status, warnings)
    if not capabilities & wire.CLIENT_SESSION_TRACK:
        return Ok(affected, insert_id, status, warnings, payload[position:])
    info, position = get_lenenc_bytes(payload, position)
    changes = b""
    if status & wire.STATUS_SESSION_STATE_CHANGED and position < len(payload):
        while payload[position] == 0 and position + 1 < len(payload):
            # (MariaDB writes the length as a letter of ucs2, utf16 or utf32, where that is the schema's character set.)
            position += 1
        changes, position = get_lenenc_bytes(payload, position)
    return Ok(affected, insert_id, status, warnings, info, changes)


def build_ok(ok: Ok, capabilities: int, first: int) -> bytes:
    """The payload of `ok` for a client with `capabilities`. `first` is wire.OK, or wire.EOF at the end of a result."""
    if first == wire.EOF and not capabilities & wire.CLIENT_DEPRECATE_EOF:
        return bytes((wire.EOF,)) + INT16.pack(ok.warnings) + INT16.pack(ok.status & ~wire.STATUS_SESSION_STATE_CHANGED)
    tracks = bool(capabilities & wire.CLIENT_SESSION_TRACK)
    changes = ok.changes if tracks else b""
    status = ok.status if changes else ok.status & ~wire.STATUS_SESSION_STATE_CHANGED
    head = bytes((first,)) + put_lenenc(ok.affected) + put_lenenc(ok.insert_id) + INT16.pack(status) + INT16.pack(ok.warnings)
    if not tracks:
        return head + ok.info
    if changes:
        return head + put_lenenc_bytes(ok.info) + put_lenenc_bytes(changes)
    return head + put_lenenc_bytes(ok.info) if ok.info else head


def parse_changes(changes: bytes) -> list[tuple[int, bytes]]:
    """The session state changes of an OK packet: their kind (wire.TRACK_...) and their data."""
    found: list[tuple[int, bytes]] = []
    position = 0
    while position < len(changes):
        kind = changes[position]
        data, position = get_lenenc_bytes(changes, position + 1)
        found.append((kind, data))
    return found


def parse_variables(data: bytes) -> dict[str, bytes]:
    """The system variables in a change of the kind wire.TRACK_SYSTEM_VARIABLES."""
    found: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        name, position = get_lenenc_bytes(data, position)
        value, position = get_lenenc_bytes(data, position)
        found[name.decode("ascii", "replace").lower()] = value
    return found


def first_string(data: bytes) -> bytes:
    """The only string in a change of another kind."""
    return get_lenenc_bytes(data, 0)[0]


# ------------------------------------------------------------------------------------------------------------------- results


class Result:
    """A small result, read whole: its column definitions and rows as payloads."""

    __slots__ = ("columns", "ended", "rows")

    def __init__(self, columns: list[bytes], rows: list[bytes], ended: bool) -> None:
        self.columns = columns
        self.rows = rows
        self.ended = ended
        """False where an error ended it."""


def split(data: bytes) -> list[bytes]:
    """The payloads of the whole packets in `data`, none of which is continued."""
    payloads: list[bytes] = []
    position = 0
    while position + 4 <= len(data):
        size = INT32.unpack_from(data, position)[0] & 0xFFFFFF
        payloads.append(data[position + 4 : position + 4 + size])
        position += 4 + size
    return payloads


def parse_result(data: bytes, capabilities: int) -> Result:
    """Read a reply that was captured whole."""
    payloads = split(data)
    if not payloads or payloads[0][:1] in (b"\x00", b"\xff"):
        return Result([], [], False)
    count = get_lenenc(payloads[0], 0)[0]
    first_row = 1 + count + (0 if capabilities & wire.CLIENT_DEPRECATE_EOF else 1)
    return Result(payloads[1 : 1 + count], payloads[first_row:-1], payloads[-1][:1] == b"\xfe")


def row_values(row: bytes) -> list[bytes | None]:
    """The values of a row of the text protocol."""
    values: list[bytes | None] = []
    position = 0
    while position < len(row):
        if row[position] == wire.NULL:
            values.append(None)
            position += 1
        else:
            value, position = get_lenenc_bytes(row, position)
            values.append(value)
    return values


def first_row(kept: list[bytes], capabilities: int) -> list[bytes | None]:
    """The values of the first row of an answer that was kept; none if it is an error."""
    result = parse_result(b"".join(kept), capabilities)
    return row_values(result.rows[0]) if result.ended and result.rows else []


LONG: Final = 3
DOUBLE: Final = 5
LONGLONG: Final = 8
NEWDECIMAL: Final = 246
VAR_STRING: Final = 253


def column(name: bytes, kind: int, charset: int, length: int, flags: int, decimals: int = 0) -> bytes:
    """A column definition of the expression `name`."""
    fixed = b"\x0c" + INT16.pack(charset) + INT32.pack(length) + bytes((kind,)) + INT16.pack(flags) + bytes((decimals, 0, 0))
    return b"\x03def" + _EMPTY_NAME * 3 + put_lenenc_bytes(name) + _EMPTY_NAME + fixed


def column_type(definition: bytes) -> tuple[int, int]:
    """The type of a column and its flags, from its definition."""
    position = 0
    for _ in range(6):
        _, position = get_lenenc_bytes(definition, position)
    if len(definition) < position + 10:
        raise RemoteProtocolError("a column definition is cut short")
    return definition[position + 7], INT16.unpack_from(definition, position + 8)[0]


UNSIGNED: Final = 0x00A1
NULLABLE_UNSIGNED: Final = 0x00A0


def integer_column(name: bytes, flags: int = 0x0081) -> bytes:
    """A BIGINT, in the binary character set, as functions (not null, `flags` as they are) and system variables return it."""
    return column(name, LONGLONG, 63, 21, flags)


def binary_row(columns: list[bytes], row: bytes) -> bytes:
    """A row of the text protocol, all of whose numbers are whole, as one of the binary protocol. No value is NULL."""
    parts = [b"\0" + bytes((len(columns) + 9) // 8)]
    for definition, value in zip(columns, row_values(row), strict=True):
        size = SIZES.get(column_type(definition)[0])
        text = value or b""
        parts.append(put_lenenc_bytes(text) if size is None else int(text).to_bytes(size, "little", signed=text.startswith(b"-")))
    return b"".join(parts)


SIZES: Final = {LONG: 4, LONGLONG: 8}


def result(columns: list[bytes], rows: list[bytes], status: int, capabilities: int) -> bytes:
    """A whole reply to a command, as packets. `rows` are of the text protocol, or of the binary one."""
    payloads = [put_lenenc(len(columns)), *columns]
    ok = Ok(0, 0, status, 0)
    end = build_ok(ok, capabilities, wire.EOF)
    if not capabilities & wire.CLIENT_DEPRECATE_EOF:
        payloads.append(end)
    payloads += rows
    payloads.append(end)
    return b"".join(wire.packet(number, payload) for number, payload in enumerate(payloads, 1))
