"""What is legal when. One readable table per question; the relay uses the flat ones that are made from them.

Sources: MySQL Source Code Documentation, "Command Phase", "Text Resultset", "COM_STMT_PREPARE Response", "COM_STMT_FETCH Response",
"LOCAL INFILE Request".
"""

from typing import Final

from dualpool.mysql import wire
from dualpool.protocol import SESSION, STATEMENT, TRANSACTION

# --------------------------------------------------------------------------------------------- what a client may ask, and what of it

# What the relay does with a command. 0: it is refused (ER_UNKNOWN_COM_ERROR), as a server refuses it.
C_REFUSED: Final = 0
C_QUERY: Final = 1
C_PREPARE: Final = 2
C_EXECUTE: Final = 3
C_LONG_DATA: Final = 4
C_CLOSE_STATEMENT: Final = 5
C_RESET_STATEMENT: Final = 6
C_FETCH: Final = 7
C_INIT_DB: Final = 8
C_PING: Final = 9
C_RESET: Final = 10
C_SET_OPTION: Final = 11
C_FIELD_LIST: Final = 12
C_STATISTICS: Final = 13
C_KILL: Final = 14
C_QUIT: Final = 15

CLIENT_LEGAL: Final = {
    wire.COM_QUIT: C_QUIT,
    wire.COM_INIT_DB: C_INIT_DB,
    wire.COM_QUERY: C_QUERY,
    wire.COM_FIELD_LIST: C_FIELD_LIST,
    wire.COM_STATISTICS: C_STATISTICS,
    wire.COM_PROCESS_KILL: C_KILL,
    wire.COM_PING: C_PING,
    wire.COM_STMT_PREPARE: C_PREPARE,
    wire.COM_STMT_EXECUTE: C_EXECUTE,
    wire.COM_STMT_SEND_LONG_DATA: C_LONG_DATA,
    wire.COM_STMT_CLOSE: C_CLOSE_STATEMENT,
    wire.COM_STMT_RESET: C_RESET_STATEMENT,
    wire.COM_SET_OPTION: C_SET_OPTION,
    wire.COM_STMT_FETCH: C_FETCH,
    wire.COM_RESET_CONNECTION: C_RESET,
}

# ------------------------------------------------------------------------------------------------------- where in an answer we are

DONE: Final = 0
"""Nothing is due."""
HEAD: Final = 1
"""OK, ERR, a request for a local file, or the number of columns of a result."""
COLUMNS: Final = 2
COLUMNS_END: Final = 3
"""The EOF packet behind column definitions, where CLIENT_DEPRECATE_EOF was not agreed on."""
FIRST_ROW: Final = 4
"""The column definitions are over, and nothing has come behind them yet."""
ROWS: Final = 5
FILE: Final = 6
"""The server waits for a local file. When it is over, it answers OK or ERR."""
PREPARED: Final = 7
"""COM_STMT_PREPARE_OK or ERR."""
PARAMETERS: Final = 8
PARAMETERS_END: Final = 9
RESULT_COLUMNS: Final = 10
RESULT_COLUMNS_END: Final = 11
FIELDS: Final = 12
"""COM_FIELD_LIST: column definitions up to the end of a result."""
TEXT: Final = 13
"""COM_STATISTICS: one packet without any mark."""
ILLEGAL: Final = 255

# What a packet of the server is, in its place. `..._MORE`: with SERVER_MORE_RESULTS_EXISTS.
P_OK: Final = 0
P_OK_MORE: Final = 1
P_ERR: Final = 2
P_COUNT: Final = 3
P_FILE: Final = 4
P_DEFINITION: Final = 5
P_LAST_DEFINITION: Final = 6
P_LAST_DEFINITION_NO_EOF: Final = 7
"""The last of a list, where CLIENT_DEPRECATE_EOF was agreed on."""
P_ROW: Final = 8
P_END: Final = 9
P_END_MORE: Final = 10
P_CURSOR: Final = 11
"""The end of a result whose rows stay in a cursor."""
P_PREPARED: Final = 12
P_ANY: Final = 13
P_NO_PARAMETERS: Final = 14
"""Not a packet: a list of no definitions is over before it begins."""
P_NO_COLUMNS: Final = 15
EVENTS: Final = 16

SERVER_LEGAL: Final = {
    HEAD: {P_OK: DONE, P_OK_MORE: HEAD, P_END: DONE, P_END_MORE: HEAD, P_ERR: DONE, P_COUNT: COLUMNS, P_FILE: FILE},
    COLUMNS: {P_DEFINITION: COLUMNS, P_LAST_DEFINITION: COLUMNS_END, P_LAST_DEFINITION_NO_EOF: FIRST_ROW, P_ERR: DONE},
    COLUMNS_END: {P_END: FIRST_ROW, P_END_MORE: FIRST_ROW, P_CURSOR: DONE, P_ERR: DONE},
    FIRST_ROW: {P_ROW: ROWS, P_END: DONE, P_END_MORE: HEAD, P_CURSOR: DONE, P_ERR: DONE},
    ROWS: {P_ROW: ROWS, P_END: DONE, P_END_MORE: HEAD, P_ERR: DONE},
    FILE: {P_OK: DONE, P_OK_MORE: HEAD, P_ERR: DONE},
    PREPARED: {P_PREPARED: PARAMETERS, P_ERR: DONE},
    PARAMETERS: {
        P_DEFINITION: PARAMETERS, P_LAST_DEFINITION: PARAMETERS_END, P_LAST_DEFINITION_NO_EOF: RESULT_COLUMNS,
        P_NO_PARAMETERS: RESULT_COLUMNS,
    },
    PARAMETERS_END: {P_END: RESULT_COLUMNS},
    RESULT_COLUMNS: {
        P_DEFINITION: RESULT_COLUMNS, P_LAST_DEFINITION: RESULT_COLUMNS_END, P_LAST_DEFINITION_NO_EOF: DONE, P_NO_COLUMNS: DONE,
    },
    RESULT_COLUMNS_END: {P_END: DONE},
    FIELDS: {P_DEFINITION: FIELDS, P_END: DONE, P_ERR: DONE},
    TEXT: {P_ANY: DONE, P_ERR: DONE},
}  # fmt: skip

# ------------------------------------------------------------------------------------------------------------ both sides together

MAY_RELEASE: Final = {
    # (pool mode, SERVER_STATUS_IN_TRANS): may the server connection go back when nothing else is outstanding?
    (TRANSACTION, False): True,
    (TRANSACTION, True): False,
    # Statement mode has no transactions of several statements: the client is ended instead (relay.py).
    (STATEMENT, False): True,
    (STATEMENT, True): False,
    (SESSION, False): False,
    (SESSION, True): False,
}


def flatten(legal: dict[int, dict[int, int]]) -> bytes:
    """The same as `legal`, for one index operation: NEXT[phase * EVENTS + event]."""
    return bytes(legal.get(phase, {}).get(event, ILLEGAL) for phase in range(TEXT + 1) for event in range(EVENTS))


CLIENT_ACTION: Final = bytes(CLIENT_LEGAL.get(command, C_REFUSED) for command in range(256))
NEXT: Final = flatten(SERVER_LEGAL)
RELEASING: Final = tuple((MAY_RELEASE[mode, False], MAY_RELEASE[mode, True]) for mode in (TRANSACTION, SESSION, STATEMENT))
