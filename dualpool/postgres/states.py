"""What is legal when. One readable table per question; the relay uses the flat ones that are made from them.

Sources: PostgreSQL docs, "Message Flow" (Simple Query, Extended Query, COPY Operations), "Message Formats".
"""

from typing import Final

from dualpool.postgres import wire
from dualpool.protocol import SESSION, STATEMENT, TRANSACTION

# ------------------------------------------------------------------------ client messages, by what the client may send at all

# What the relay does with a message of a client. 0 is "not a message that a logged-in client may send".
C_ILLEGAL: Final = 0
C_QUERY: Final = 1
C_PARSE: Final = 2
C_BIND: Final = 3
C_NAMED: Final = 4  # Describe, Close
C_EXECUTE: Final = 5
C_SYNC: Final = 6
C_FLUSH: Final = 7
C_CALL: Final = 8
C_COPY_DATA: Final = 9
C_COPY_END: Final = 10
C_TERMINATE: Final = 11

CLIENT_LEGAL: Final = {
    wire.QUERY: C_QUERY,
    wire.PARSE: C_PARSE,
    wire.BIND: C_BIND,
    wire.DESCRIBE: C_NAMED,
    wire.CLOSE: C_NAMED,
    wire.EXECUTE: C_EXECUTE,
    wire.SYNC: C_SYNC,
    wire.FLUSH: C_FLUSH,
    wire.FUNCTION_CALL: C_CALL,
    wire.COPY_DATA: C_COPY_DATA,
    wire.COPY_DONE: C_COPY_END,
    wire.COPY_FAIL: C_COPY_END,
    wire.TERMINATE: C_TERMINATE,
}

# ------------------------------------------------------------------------ server messages

# What the relay does with a message of the server. S_PASS: nothing, and half of one may be passed on already.
S_PASS: Final = 0
S_ILLEGAL: Final = 1
S_READY: Final = 2
S_COMPLETE: Final = 3
S_ERROR: Final = 4
S_PARSED: Final = 5
S_CLOSED: Final = 6
S_PARAMETER: Final = 7
S_COPY_IN: Final = 8
S_ASYNC: Final = 9
S_DESCRIBED: Final = 10

SERVER_LEGAL: Final = {
    wire.DATA_ROW: S_PASS,
    wire.ROW_DESCRIPTION: S_PASS,
    wire.PARAMETER_DESCRIPTION: S_DESCRIBED,
    wire.NO_DATA: S_PASS,
    wire.BIND_COMPLETE: S_PASS,
    wire.PORTAL_SUSPENDED: S_PASS,
    wire.FUNCTION_RESULT: S_PASS,
    wire.COPY_DATA: S_PASS,
    wire.COPY_DONE: S_PASS,
    wire.COPY_OUT: S_PASS,
    wire.READY: S_READY,
    wire.COMMAND_COMPLETE: S_COMPLETE,
    wire.ERROR_RESPONSE: S_ERROR,
    wire.PARSE_COMPLETE: S_PARSED,
    wire.CLOSE_COMPLETE: S_CLOSED,
    wire.PARAMETER_STATUS: S_PARAMETER,
    wire.EMPTY_QUERY: S_PASS,
    wire.COPY_IN: S_COPY_IN,
    wire.COPY_BOTH: S_COPY_IN,
    wire.NOTICE: S_ASYNC,
    wire.NOTIFICATION: S_ASYNC,
}

# ------------------------------------------------------------------------ both sides together

MAY_RELEASE: Final = {
    # (pool mode, transaction status of ReadyForQuery): may the server connection go back when nothing else is outstanding?
    (TRANSACTION, wire.IDLE): True,
    (TRANSACTION, wire.IN_TRANSACTION): False,
    (TRANSACTION, wire.FAILED): False,
    (STATEMENT, wire.IDLE): True,
    # Statement mode has no transactions of several statements: these two end the client instead (server_relay.py).
    (STATEMENT, wire.IN_TRANSACTION): False,
    (STATEMENT, wire.FAILED): False,
    (SESSION, wire.IDLE): False,
    (SESSION, wire.IN_TRANSACTION): False,
    (SESSION, wire.FAILED): False,
}


def flatten(legal: dict[int, int], otherwise: int) -> bytes:
    """A table by message kind, for one index operation per message."""
    return bytes(legal.get(kind, otherwise) for kind in range(256))


CLIENT_ACTION: Final = flatten(CLIENT_LEGAL, C_ILLEGAL)
SERVER_ACTION: Final = flatten(SERVER_LEGAL, S_ILLEGAL)
RELEASING: Final = tuple(
    bytes(1 if MAY_RELEASE.get((mode, status), False) else 0 for status in range(256)) for mode in (TRANSACTION, SESSION, STATEMENT)
)
