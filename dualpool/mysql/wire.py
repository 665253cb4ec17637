"""The bytes of MySQL's client/server protocol: commands, flags, and how a packet is built.

Sources: MySQL Source Code Documentation, "Client/Server Protocol" (Protocol Basics, Capabilities Flags, SERVER_STATUS flags), and MariaDB's
"Client/Server Protocol" for the extended capabilities. Where a number is pymysql's too, a test compares them.
"""

from struct import Struct
from typing import Final

from dualpool.errors import RemoteProtocolError

HEADER_SIZE: Final = 4
"""Every packet begins with its payload's length in three bytes (little endian) and its sequence number in one."""
MAX_PAYLOAD: Final = 0xFFFFFF
"""A payload of this length or more goes on in the next packet; the last packet is shorter, so it may be empty."""

INT16: Final = Struct("<H")
INT32: Final = Struct("<I")
INT64: Final = Struct("<Q")

# Commands: the first byte of a client's packet with sequence number 0.
COM_SLEEP: Final = 0x00
COM_QUIT: Final = 0x01
COM_INIT_DB: Final = 0x02
COM_QUERY: Final = 0x03
COM_FIELD_LIST: Final = 0x04
COM_CREATE_DB: Final = 0x05
COM_DROP_DB: Final = 0x06
COM_REFRESH: Final = 0x07
COM_SHUTDOWN: Final = 0x08
COM_STATISTICS: Final = 0x09
COM_PROCESS_INFO: Final = 0x0A
COM_CONNECT: Final = 0x0B
COM_PROCESS_KILL: Final = 0x0C
COM_DEBUG: Final = 0x0D
COM_PING: Final = 0x0E
COM_TIME: Final = 0x0F
COM_DELAYED_INSERT: Final = 0x10
COM_CHANGE_USER: Final = 0x11
COM_BINLOG_DUMP: Final = 0x12
COM_TABLE_DUMP: Final = 0x13
COM_CONNECT_OUT: Final = 0x14
COM_REGISTER_SLAVE: Final = 0x15
COM_STMT_PREPARE: Final = 0x16
COM_STMT_EXECUTE: Final = 0x17
COM_STMT_SEND_LONG_DATA: Final = 0x18
COM_STMT_CLOSE: Final = 0x19
COM_STMT_RESET: Final = 0x1A
COM_SET_OPTION: Final = 0x1B
COM_STMT_FETCH: Final = 0x1C
COM_DAEMON: Final = 0x1D
COM_BINLOG_DUMP_GTID: Final = 0x1E
COM_RESET_CONNECTION: Final = 0x1F
COM_CLONE: Final = 0x20
COM_SUBSCRIBE_GROUP_REPLICATION_STREAM: Final = 0x21
COM_STMT_BULK_EXECUTE: Final = 0xFA  # MariaDB

# Capability flags: what client and server both can do holds for the connection.
CLIENT_LONG_PASSWORD: Final = 1 << 0
"""MariaDB calls it CLIENT_MYSQL: a server without it has MariaDB's extended capabilities in the greeting's last four reserved bytes."""
CLIENT_FOUND_ROWS: Final = 1 << 1
CLIENT_LONG_FLAG: Final = 1 << 2
CLIENT_CONNECT_WITH_DB: Final = 1 << 3
CLIENT_NO_SCHEMA: Final = 1 << 4
CLIENT_COMPRESS: Final = 1 << 5
CLIENT_ODBC: Final = 1 << 6
CLIENT_LOCAL_FILES: Final = 1 << 7
CLIENT_IGNORE_SPACE: Final = 1 << 8
CLIENT_PROTOCOL_41: Final = 1 << 9
CLIENT_INTERACTIVE: Final = 1 << 10
CLIENT_SSL: Final = 1 << 11
CLIENT_IGNORE_SIGPIPE: Final = 1 << 12
CLIENT_TRANSACTIONS: Final = 1 << 13
CLIENT_RESERVED: Final = 1 << 14
CLIENT_SECURE_CONNECTION: Final = 1 << 15
CLIENT_MULTI_STATEMENTS: Final = 1 << 16
CLIENT_MULTI_RESULTS: Final = 1 << 17
CLIENT_PS_MULTI_RESULTS: Final = 1 << 18
CLIENT_PLUGIN_AUTH: Final = 1 << 19
CLIENT_CONNECT_ATTRS: Final = 1 << 20
CLIENT_PLUGIN_AUTH_LENENC: Final = 1 << 21
CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS: Final = 1 << 22
CLIENT_SESSION_TRACK: Final = 1 << 23
CLIENT_DEPRECATE_EOF: Final = 1 << 24
CLIENT_OPTIONAL_RESULTSET_METADATA: Final = 1 << 25
CLIENT_ZSTD_COMPRESSION: Final = 1 << 26
CLIENT_QUERY_ATTRIBUTES: Final = 1 << 27
CLIENT_MULTI_FACTOR: Final = 1 << 28
CLIENT_CAPABILITY_EXTENSION: Final = 1 << 29
CLIENT_SSL_VERIFY_SERVER_CERT: Final = 1 << 30
CLIENT_REMEMBER_OPTIONS: Final = 1 << 31

# MariaDB's extended capability flags, as the second 32 bits.
MARIADB_PROGRESS: Final = 1 << 32
MARIADB_COM_MULTI: Final = 1 << 33
MARIADB_STMT_BULK_OPERATIONS: Final = 1 << 34
MARIADB_EXTENDED_TYPE_INFO: Final = 1 << 35
MARIADB_CACHE_METADATA: Final = 1 << 36
MARIADB_BULK_UNIT_RESULTS: Final = 1 << 37

# Status flags, in every OK and EOF packet.
STATUS_IN_TRANS: Final = 1 << 0
STATUS_AUTOCOMMIT: Final = 1 << 1
STATUS_MORE_RESULTS: Final = 1 << 3
STATUS_NO_GOOD_INDEX_USED: Final = 1 << 4
STATUS_NO_INDEX_USED: Final = 1 << 5
STATUS_CURSOR_EXISTS: Final = 1 << 6
STATUS_LAST_ROW_SENT: Final = 1 << 7
STATUS_DB_DROPPED: Final = 1 << 8
STATUS_NO_BACKSLASH_ESCAPES: Final = 1 << 9
STATUS_METADATA_CHANGED: Final = 1 << 10
STATUS_QUERY_WAS_SLOW: Final = 1 << 11
STATUS_PS_OUT_PARAMS: Final = 1 << 12
STATUS_IN_TRANS_READONLY: Final = 1 << 13
STATUS_SESSION_STATE_CHANGED: Final = 1 << 14

# What an OK packet's session state information is about.
TRACK_SYSTEM_VARIABLES: Final = 0
TRACK_SCHEMA: Final = 1
TRACK_STATE_CHANGE: Final = 2
TRACK_GTIDS: Final = 3
TRACK_TRANSACTION_CHARACTERISTICS: Final = 4
TRACK_TRANSACTION_STATE: Final = 5

# The first byte of a server's packet.
OK: Final = 0x00
EOF: Final = 0xFE
ERR: Final = 0xFF
LOCAL_INFILE: Final = 0xFB
NULL: Final = 0xFB
"""In a text row: a NULL. In place of a result's column count: LOCAL_INFILE."""

# During a login.
AUTH_SWITCH: Final = 0xFE
AUTH_MORE_DATA: Final = 0x01
AUTH_NEXT_FACTOR: Final = 0x02


def header(seq: int, size: int) -> bytes:
    """The header of a packet whose payload is `size` bytes, fewer than MAX_PAYLOAD + 1."""
    return INT32.pack(size | (seq & 255) << 24)


def packet(seq: int, payload: bytes) -> bytes:
    """`payload` as one packet, or as many as its length takes; the first has the sequence number `seq`."""
    if len(payload) < MAX_PAYLOAD:
        return INT32.pack(len(payload) | (seq & 255) << 24) + payload
    parts: list[bytes] = []
    for start in range(0, len(payload) + 1, MAX_PAYLOAD):
        part = payload[start : start + MAX_PAYLOAD]
        parts.append(header(seq, len(part)))
        parts.append(part)
        seq += 1
    return b"".join(parts)


def put_lenenc(value: int) -> bytes:
    """`value` as a length-encoded integer."""
    if value < 0xFB:
        return bytes((value,))
    if value < 1 << 16:
        return b"\xfc" + INT16.pack(value)
    if value < 1 << 24:
        return b"\xfd" + INT32.pack(value)[:3]
    return b"\xfe" + INT64.pack(value)


def put_lenenc_bytes(value: bytes) -> bytes:
    """`value` as a length-encoded string."""
    return put_lenenc(len(value)) + value


def get_lenenc(data: bytes, position: int) -> tuple[int, int]:
    """The length-encoded integer at `position`, and the position behind it. Raises RemoteProtocolError where it is cut or is none."""
    if position >= len(data):
        raise RemoteProtocolError("a packet ends where a length-encoded integer should be")
    first = data[position]
    if first < 0xFB:
        return first, position + 1
    if first == 0xFC:
        end = position + 3
    elif first == 0xFD:
        end = position + 4
    elif first == 0xFE:
        end = position + 9
    else:
        raise RemoteProtocolError(f"byte {first:#x} does not begin a length-encoded integer")
    if end > len(data):
        raise RemoteProtocolError("a packet ends inside a length-encoded integer")
    return int.from_bytes(data[position + 1 : end], "little"), end


def get_lenenc_bytes(data: bytes, position: int) -> tuple[bytes, int]:
    """The length-encoded string at `position`, and the position behind it. Raises RemoteProtocolError where it is cut or is none."""
    size, start = get_lenenc(data, position)
    end = start + size
    if end > len(data):
        raise RemoteProtocolError(f"a packet ends inside a string of {size} bytes")
    return data[start:end], end


def get_nul_bytes(data: bytes, position: int) -> tuple[bytes, int]:
    """The NUL-terminated string at `position`, and the position behind its NUL. Raises RemoteProtocolError without a NUL."""
    end = data.find(b"\0", position)
    if end < 0:
        raise RemoteProtocolError("a packet ends inside a NUL-terminated string")
    return data[position:end], end + 1
