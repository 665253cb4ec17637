"""The bytes of PostgreSQL's protocol 3: message kinds, and how a message is built. Source: docs, "Message Formats"."""

from struct import Struct
from typing import Final

HEADER: Final = Struct("!BI")
"""Every message but the first of a connection: its kind, and its length (which counts itself but not the kind)."""
INT32: Final = Struct("!I")
INT16: Final = Struct("!H")

# From clients.
BIND: Final = 66  # B
CLOSE: Final = 67  # C
DESCRIBE: Final = 68  # D
EXECUTE: Final = 69  # E
FUNCTION_CALL: Final = 70  # F
FLUSH: Final = 72  # H
PARSE: Final = 80  # P
QUERY: Final = 81  # Q
SYNC: Final = 83  # S
TERMINATE: Final = 88  # X
COPY_FAIL: Final = 102  # f
PASSWORD: Final = 112  # p: also SASLInitialResponse, SASLResponse, GSSResponse

# From either side.
COPY_DONE: Final = 99  # c
COPY_DATA: Final = 100  # d

# From servers.
PARSE_COMPLETE: Final = 49  # 1
BIND_COMPLETE: Final = 50  # 2
CLOSE_COMPLETE: Final = 51  # 3
NOTIFICATION: Final = 65  # A
COMMAND_COMPLETE: Final = 67  # C
DATA_ROW: Final = 68  # D
ERROR_RESPONSE: Final = 69  # E
COPY_IN: Final = 71  # G
COPY_OUT: Final = 72  # H
EMPTY_QUERY: Final = 73  # I
BACKEND_KEY: Final = 75  # K
NOTICE: Final = 78  # N
AUTHENTICATION: Final = 82  # R
PARAMETER_STATUS: Final = 83  # S
ROW_DESCRIPTION: Final = 84  # T
FUNCTION_RESULT: Final = 86  # V
COPY_BOTH: Final = 87  # W
READY: Final = 90  # Z
NO_DATA: Final = 110  # n
PORTAL_SUSPENDED: Final = 115  # s
PARAMETER_DESCRIPTION: Final = 116  # t
NEGOTIATE_VERSION: Final = 118  # v

# The second word of a connection's first message.
PROTOCOL_3_0: Final = 196608
PROTOCOL_3_2: Final = 196610
CANCEL_REQUEST: Final = 80877102
SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104

# ReadyForQuery's byte.
IDLE: Final = 73  # I
IN_TRANSACTION: Final = 84  # T
FAILED: Final = 69  # E

MIN_LENGTH: Final = 4
MAX_LENGTH: Final = 0x3FFFFFFF + 4
"""PostgreSQL's own limit for a message (MaxAllocSize, 1 GB less one byte)."""

SYNC_MESSAGE: Final = b"S\x00\x00\x00\x04"
FLUSH_MESSAGE: Final = b"H\x00\x00\x00\x04"
TERMINATE_MESSAGE: Final = b"X\x00\x00\x00\x04"
PARSE_COMPLETE_MESSAGE: Final = b"1\x00\x00\x00\x04"


def message(kind: int, payload: bytes) -> bytes:
    """A whole message of `kind`."""
    return HEADER.pack(kind, len(payload) + 4) + payload


def cstring(text: bytes) -> bytes:
    """A null-terminated string. A null byte inside ends it, as it does in libpq."""
    return text.partition(b"\0")[0] + b"\0"


def query(sql: bytes) -> bytes:
    """A simple Query."""
    return message(QUERY, sql + b"\0")


def ready(status: int) -> bytes:
    """ReadyForQuery with `status` IDLE, IN_TRANSACTION or FAILED."""
    return bytes((READY, 0, 0, 0, 5, status))
