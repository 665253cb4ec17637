"""How a lease begins: the first request of a client tells if it may have a session that differs from a new one.

Such a session knows custom settings of other clients, or has had their temporary tables. Nothing is asked of a text that means another
thing by other settings: it is not certain then.

Source: PostgreSQL docs, "Message Formats"; "Customized Options".
"""

from functools import lru_cache
from typing import Final

from dualpool.postgres import wire
from dualpool.postgres.client_sending import bound_values
from dualpool.postgres.reading import Reading, marks_of_part, read
from dualpool.postgres.wire import HEADER

MAX_FIRST: Final = 4096
"""Bytes of a request that are looked at."""
HEAD: Final = 5
REMEMBERED: Final = 256
"""Texts whose readings are kept, for all clients of the process."""


def first_reading(request: bytes) -> Reading:
    """The text that `request` begins with, read; the marks alone if it is not all there, and nothing if there is none."""
    text = _first_text(request)
    if text is not None:
        return _read(text)
    found = Reading()
    found.marks = marks_of_part(request[:MAX_FIRST])
    return found


def only_begins(request: bytes) -> bool:
    """Is `request` a BEGIN in a Query, and no more?"""
    return _is_one_query(request) and first_reading(request).only_begins()


def only_ends(request: bytes) -> bool:
    """Is `request` the end of its transaction in a Query, and no more?"""
    return _is_one_query(request) and first_reading(request).only_ends()


def gives_value_to(request: bytes, name: str) -> bool:
    """Does `request` give the custom setting `name` a value, before anything in it can ask for the one that it had?"""
    own = first_reading(request).sets_first()
    if own == b"$1":
        values = _first_values(request)
        own = values[0].lower() if values else None
    return own == name.encode("utf-8", "surrogateescape")


def _is_one_query(request: bytes) -> bool:
    return len(request) > HEAD and request[0] == wire.QUERY and HEADER.unpack_from(request)[1] + 1 == len(request)


def _first_text(request: bytes) -> bytes | None:
    if len(request) < HEAD or request[0] not in (wire.QUERY, wire.PARSE):
        return None
    end = HEADER.unpack_from(request)[1] + 1
    if end > min(len(request), MAX_FIRST):
        return None
    start = HEAD if request[0] == wire.QUERY else request.find(b"\0", HEAD, end) + 1
    behind = request.find(b"\0", start, end)
    return request[start:behind] if start and behind >= 0 else None


def _first_values(request: bytes) -> list[bytes]:
    """The parameters of the Bind that follows the Parse with which `request` begins."""
    position = HEADER.unpack_from(request)[1] + 1
    while len(request) - position >= HEAD:
        kind, length = HEADER.unpack_from(request, position)
        if kind == wire.BIND:
            values = request.find(b"\0", request.find(b"\0", position + HEAD) + 1) + 1
            return bound_values(request[values : position + 1 + length]) if values else []
        if kind != wire.DESCRIBE:
            return []
        position += 1 + length
    return []


@lru_cache(maxsize=REMEMBERED)
def _read(text: bytes) -> Reading:
    return read(text, None)
