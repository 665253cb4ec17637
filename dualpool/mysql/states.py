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
C_CHANGE_USER: Final = 16

CLIENT_LEGAL: Final = {
    wire.COM_QUIT: C_QUIT,
    wire.COM_INIT_DB: C_INIT_DB,
    wire.COM_QUERY: C_QUERY,
    wire.COM_FIELD_LIST: C_FIELD_LIST,
    wire.COM_STATISTICS: C_STATISTICS,
    wire.COM_PROCESS_KILL: C_KILL,
    wire.COM_PING: C_PING,
    wire.COM_CHANGE_USER: C_CHANGE_USER,
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
FETCHED: Final = 14
"""COM_STMT_FETCH: nothing has come yet of its rows, which have no definitions in front."""
FIRST_FIELD: Final = 15
"""COM_FIELD_LIST: nothing has come yet."""
PHASES: Final = 16
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
    FETCHED: {P_ROW: ROWS, P_END: DONE, P_ERR: DONE},
    FIRST_FIELD: {P_DEFINITION: FIELDS, P_END: DONE, P_ERR: DONE},
    TEXT: {P_ANY: DONE, P_ERR: DONE},
}  # fmt: skip

# ------------------------------------------------------------------------------------------------------------ both sides together

MAY_RELEASE: Final = {
    # (pool mode, SERVER_STATUS_IN_TRANS): may the server connection go back when nothing else is outstanding?
    (TRANSACTION, False): True,
    (TRANSACTION, True): False,
    # Statement mode has no transactions of several statements: the client is ended instead (server_relay.py).
    (STATEMENT, False): True,
    (STATEMENT, True): False,
    (SESSION, False): False,
    (SESSION, True): False,
}


def flatten(legal: dict[int, dict[int, int]]) -> bytes:
    """The same as `legal`, for one index operation: NEXT[phase * EVENTS + event]."""
    return bytes(legal.get(phase, {}).get(event, ILLEGAL) for phase in range(PHASES) for event in range(EVENTS))


CLIENT_ACTION: Final = bytes(CLIENT_LEGAL.get(command, C_REFUSED) for command in range(256))
NEXT: Final = flatten(SERVER_LEGAL)
RELEASING: Final = tuple((MAY_RELEASE[mode, False], MAY_RELEASE[mode, True]) for mode in (TRANSACTION, SESSION, STATEMENT))

# ------------------------------------------------------------------------------------------ what keeps a server connection with its client

# Bits of `ServerRelay.pins`.
PIN_CURSOR: Final = 1
PIN_NEXT_TRANSACTION: Final = 2
PIN_VARIABLE: Final = 4
PIN_STATE: Final = 8
PIN_USER_VARIABLE: Final = 16
PIN_LOCK: Final = 32
PIN_TABLES: Final = 64
PIN_TEMPORARY: Final = 128
PIN_PREPARED: Final = 256
PIN_HANDLER: Final = 512
PIN_XA: Final = 1024
PIN_ROLE: Final = 2048
PIN_SEQUENCE: Final = 1 << 14
DOUBT: Final = 1 << 12
"""Strict mode, in `Holdings.unsettled`: before the lease ends, the server is asked for all that it can tell of the session."""
PIN_ASK: Final = 1 << 13
"""The same because of `Holdings.doubt`."""
PINS_ELSEWHERE: Final = PIN_CURSOR | PIN_NEXT_TRANSACTION | PIN_STATE
"""Pins that `Holdings` knows nothing of."""
PIN_REASONS: Final = {
    PIN_CURSOR: "cursor; until it is read to its end, closed or reset",
    PIN_NEXT_TRANSACTION: "SET TRANSACTION; until the next transaction has ended",
    PIN_VARIABLE: "session variable; until it is back at its default",
    PIN_STATE: "session state; until the session is reset",
    PIN_USER_VARIABLE: "user variable; until they are fewer or smaller, or the session is reset",
    PIN_LOCK: "lock; until RELEASE_LOCK() or RELEASE_ALL_LOCKS()",
    PIN_TABLES: "table lock; until UNLOCK TABLES (UNLOCK INSTANCE, BACKUP STAGE END)",
    PIN_TEMPORARY: "temporary table; until it is dropped",
    PIN_PREPARED: "prepared statement; until DEALLOCATE PREPARE",
    PIN_HANDLER: "handler; until HANDLER ... CLOSE",
    PIN_XA: "XA transaction; until XA COMMIT or XA ROLLBACK",
    PIN_ROLE: "role; until SET ROLE DEFAULT",
    PIN_SEQUENCE: "sequence; until the session is reset",
}
"""What the session holds, and what would let it go."""

# What a statement may do to the session, as sql.py reads it: the kinds of its steps.
E_ASSIGN: Final = 0
"""The user variable may have another value now."""
E_LOCK: Final = 1
"""GET_LOCK; the name, b"" if it cannot be read."""
E_UNLOCK: Final = 2
E_UNLOCK_ALL: Final = 3
E_TEMPORARY: Final = 4
"""A temporary table is created; its name as it stands, b"" if it cannot be read."""
E_DROP: Final = 5
"""A table goes, maybe a temporary one."""
E_RENAME: Final = 6
E_PREPARE: Final = 7
E_DEALLOCATE: Final = 8
E_HANDLER: Final = 9
E_HANDLER_CLOSE: Final = 10
E_TABLES: Final = 11
"""LOCK TABLES (name b""), or a lock of another kind, by its name."""
E_UNLOCK_TABLES: Final = 12
E_BEGIN: Final = 13
E_XA: Final = 14
E_XA_END: Final = 15
E_ROLE: Final = 16
E_ROLE_DEFAULT: Final = 17
E_DEFAULT: Final = 18
"""A variable gets its default back."""
E_UNKNOWN: Final = 19
"""It runs statements that are not in its text: a procedure, or (with a name) a statement of PREPARE."""
E_OPAQUE: Final = 20
"""The statement that is prepared cannot be read."""
E_DOUBT: Final = 21
"""What it does to the session is not known; its name is a byte with D_ bits."""
E_KEPT: Final = 22
"""Something that only a reset takes back; what it is."""
E_INNER: Final = 23
"""A step of the statement that is prepared: the name of that, a NUL, the step's kind as a byte, the step's name."""
E_ASKING: Final = 24
"""The statement that is prepared may tell of the statement that runs before it."""
E_CREATE: Final = 25
"""A table is created, of those that the server counts (session_sql.count_created)."""
E_UNCOUNT: Final = 26
"""The server counts from 0 again."""

# What is to be asked of the server because of a doubt.
D_HELD: Final = 1
"""User variables, locks, and whatever else the server tells of a session."""
D_SETTINGS: Final = 2
D_INSERT_ID: Final = 4
D_HANDLERS: Final = 8
"""HANDLER, or FLUSH TABLES WITH READ LOCK, may be among it: not every server tells."""
D_VARIABLES: Final = 16
"""User variables may have been assigned to where no tracker sees it."""
D_CHANGES: Final = 32
"""A change that the trackers report is one of those that are asked for."""
D_LOCKS: Final = 64
"""GET_LOCK() may be in it, not only in what it calls."""
D_ANYTHING: Final = D_HANDLERS | D_VARIABLES | D_LOCKS
D_ALL: Final = D_HELD | D_SETTINGS | D_INSERT_ID

Step = tuple[int, bytes]
UNREAD: Final = b""
UNSEEN: Final = b"\0"
"""Stands for the lock that may have been taken where no text shows it."""
FLUSHED: Final = b"FLUSH"
NOT_COUNTED: Final = -1
NOT_TOLD: Final = -2
MAX_NAMES: Final = 128

PINS_OF_STEPS: Final = {
    E_LOCK: PIN_LOCK, E_TEMPORARY: PIN_TEMPORARY, E_PREPARE: PIN_PREPARED, E_HANDLER: PIN_HANDLER, E_TABLES: PIN_TABLES, E_XA: PIN_XA,
    E_ROLE: PIN_ROLE, E_KEPT: PIN_VARIABLE,
}  # fmt: skip
EXPLAINING: Final = frozenset((E_ASSIGN, E_TEMPORARY, E_DROP, E_RENAME, E_PREPARE, E_DEALLOCATE, E_ROLE, E_ROLE_DEFAULT))
"""What the server reports as a change of the session, and the names of these steps say what it is."""
BEGINNINGS: Final = {
    E_LOCK: "locks", E_TEMPORARY: "temporary", E_PREPARE: "prepared", E_HANDLER: "handlers", E_TABLES: "table_locks",
}  # fmt: skip


class Holdings:
    """What one session holds that cannot be replayed, by name. `unsettled`: the pins whose truth must be asked of the server.

    Counting alone is enough where only statements of this session can begin and end a thing. A lock may not have been got, a table's name
    may have meant another table, and a variable has a value that only the server knows.
    """

    __slots__ = (
        "asking",
        "assigned",
        "created",
        "doubt",
        "handlers",
        "inner",
        "locks",
        "one_shot",
        "opaque",
        "prepared",
        "role",
        "sequence",
        "table_locks",
        "temporary",
        "unsettled",
        "xa",
    )

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """The session has been reset."""
        self.unsettled = 0
        self.doubt = 0
        """What is to be asked, as D_ bits."""
        self.created = NOT_COUNTED
        """How many tables the session has created, as its server counts them. More than that: some that no text has told of."""
        self.assigned: set[bytes] = set()
        self.locks: set[bytes] = set()
        self.temporary: set[bytes] = set()
        self.prepared: set[bytes] = set()
        self.opaque: set[bytes] = set()
        self.asking: set[bytes] = set()
        """Of those, what may tell of the statement before it."""
        self.inner: dict[bytes, tuple[Step, ...]] = {}
        """What EXECUTE of a name does, as far as its text was read when it was prepared."""
        self.handlers: set[bytes] = set()
        self.table_locks: set[bytes] = set()
        self.one_shot: set[str] = set()
        self.xa = False
        self.role = False
        self.sequence = False

    def pins(self) -> int:
        """The pins that are certain as far as we know. A lock counts when the server has confirmed it."""
        pins = PIN_TEMPORARY if self.temporary else 0
        if self.prepared:
            pins |= PIN_PREPARED
        if self.handlers:
            pins |= PIN_HANDLER
        if self.table_locks:
            pins |= PIN_TABLES
        if self.one_shot:
            pins |= PIN_VARIABLE
        if self.xa:
            pins |= PIN_XA
        if self.role:
            pins |= PIN_ROLE
        if self.sequence:
            pins |= PIN_SEQUENCE
        if self.locks and not self.unsettled & PIN_LOCK:
            pins |= PIN_LOCK
        if self.assigned and not self.unsettled & PIN_USER_VARIABLE:
            pins |= PIN_USER_VARIABLE
        return pins

    def apply(self, steps: tuple[Step, ...], ok: bool, schema: bytes, several: bool = False) -> None:
        """A text with these steps was answered. `schema`: the current one, as it is quoted, with its dot.

        If it has failed and is of several statements, what it may have begun counts as begun, and what it should have ended as not ended.
        """
        for kind, name in steps:
            if kind == E_ASSIGN:
                self._add(self.assigned, name)
                self.unsettled |= PIN_USER_VARIABLE
            elif kind == E_LOCK:
                self._add(self.locks, name)
                self.unsettled |= PIN_LOCK
            elif kind == E_CREATE:
                self._count_created(ok, unseen=any(other in (E_DOUBT, E_UNKNOWN) for other, _ in steps))
            elif kind == E_DOUBT:
                self.ask(name[0])
            elif kind == E_UNKNOWN:
                if not name or name in self.opaque or (ok and name not in self.prepared):
                    self.ask(D_ALL | D_ANYTHING)
                self.apply(self.inner.get(name, ()), ok, schema, several)
            elif ok or several:
                self._apply_whole(kind, name, ok, schema)

    def _count_created(self, ok: bool, unseen: bool) -> None:
        """A statement has created a table, or has failed. (That counts as well, once it has begun.) `unseen`: others may have been, too."""
        if ok and self.created >= 0:
            self.created += 1
        elif not unseen:
            self.created = NOT_COUNTED

    def ask(self, doubt: int) -> None:
        """The server has to be asked."""
        self.doubt |= doubt
        self.unsettled |= PIN_ASK

    def _apply_whole(self, kind: int, name: bytes, ok: bool, schema: bytes) -> None:
        """A step of a statement that does nothing if it fails."""
        if kind == E_PREPARE:
            self.inner.pop(name, None)
            self.asking.discard(name)
        if kind in BEGINNINGS:
            self._add(getattr(self, BEGINNINGS[kind]), schema + name if kind == E_TEMPORARY and b"." not in name and name else name)
        elif kind == E_OPAQUE:
            self._add(self.opaque, name)
        elif kind == E_ASKING:
            self._add(self.asking, name)
        elif kind == E_INNER:
            prepared, _, step = name.partition(b"\0")
            if prepared in self.prepared:
                self.inner[prepared] = (*self.inner.get(prepared, ()), (step[0], step[1:]))
        elif kind == E_UNCOUNT:
            self.created = NOT_COUNTED
        elif kind == E_XA:
            self.xa = True
        elif kind == E_ROLE:
            self.role = True
        elif kind == E_KEPT:
            self.one_shot.add(name.decode())
        elif kind == E_HANDLER_CLOSE and UNREAD in self.handlers:
            self.handlers.discard(name)
            self.ask(D_HELD)
        elif kind == E_DROP and self.temporary:
            self.unsettled |= PIN_TEMPORARY
        elif kind == E_RENAME and self.temporary:
            self.temporary.add(UNREAD)
        elif kind == E_UNLOCK and self.locks:
            self.unsettled |= PIN_LOCK
        elif ok:
            self._end(kind, name)

    def _end(self, kind: int, name: bytes) -> None:
        if kind == E_UNLOCK_ALL:
            self.locks.clear()
        elif kind == E_DEALLOCATE:
            self.prepared.discard(name)
            self.opaque.discard(name)
            self.asking.discard(name)
            self.inner.pop(name, None)
        elif kind == E_HANDLER_CLOSE:
            self.handlers.discard(name)
        elif kind == E_UNLOCK_TABLES:
            # UNLOCK TABLES ends FLUSH TABLES WITH READ LOCK as well.
            self.table_locks -= {name} if name else {UNREAD, FLUSHED}
        elif kind == E_BEGIN:
            self.table_locks.discard(UNREAD)
        elif kind == E_XA_END:
            self.xa = False
        elif kind == E_ROLE_DEFAULT:
            self.role = False
        elif kind == E_DEFAULT:
            self.one_shot.discard(name.decode("ascii", "replace"))

    def add_assigned(self, name: bytes) -> None:
        """A user variable has a value, or had one."""
        self._add(self.assigned, name)

    def _add(self, names: set[bytes], name: bytes) -> None:
        names.add(name if len(names) < MAX_NAMES else UNREAD)


def may_pin(steps: tuple[Step, ...]) -> int:
    """The pins that a statement with these steps may begin."""
    pins = 0
    for kind, _ in steps:
        pins |= PINS_OF_STEPS.get(kind, 0)
    return pins
