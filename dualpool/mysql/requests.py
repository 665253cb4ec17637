"""What a server connection of MySQL was asked and has not answered yet, for whom, and why.

Theory. A client sends one command and waits for its answer; so a client needs a server connection for one command, or for as long as the
server says that a transaction is open (SERVER_STATUS_IN_TRANS), or while something is pinned. The server relay keeps one queue,
`requests`, of what it was asked: the client's command, and what we ask on our own account, before it (settings, schema, a prepared
statement: *sync*) or behind it (warnings, and what else would be gone with the server connection: *captures*). Our own are whole commands,
so the packets of a client's command are numbered as on a direct connection; they are renumbered only where one side has EOF packets and
the other has not (CLIENT_DEPRECATE_EOF).

A command never runs in a session that is not as it should be: a SET goes out together with the command only when the same SET has
succeeded on this connection before, else its answer is awaited first. So is the answer to a change of schema, always.

Sources: MySQL Source Code Documentation, "Command Phase"; MySQL Reference Manual, "Server Tracking of Client Session State".
"""

from itertools import count
from typing import Final

from dualpool.mysql import states as s
from dualpool.mysql import wire
from dualpool.mysql.statements import Key

# Why the server was asked something.
FOR_CLIENT: Final = 0
FOR_SETTINGS: Final = 1
FOR_SCHEMA: Final = 2
FOR_STATEMENT: Final = 3
FOR_EXCHANGE: Final = 4
FOR_WARNINGS: Final = 5
FOR_FOUND_ROWS: Final = 6
FOR_INSERT_ID: Final = 7
FOR_VALUES: Final = 8
FOR_COUNTED: Final = 24
"""Which column of a table has AUTO_INCREMENT."""
FOR_RESET: Final = 23
"""A session that its client is to have for itself begins again."""
# Is it so? What is asked of the server before a lease goes on because of it (states.Holdings.unsettled).
FOR_USER_VARIABLES: Final = 9
FOR_LOCKS: Final = 10
FOR_UNNAMED_LOCKS: Final = 11
FOR_TABLE: Final = 12
FOR_INSERT_NUMBER: Final = 13
FOR_UNSEEN_LOCKS: Final = 18
FOR_STATUS: Final = 19
"""Only for the status flags of the answer."""
# What does the session hold of which no text tells?
FOR_HELD: Final = 20
FOR_DIFFERING: Final = 21
FOR_CREATED: Final = 25
FOR_STATE: Final = 22
"""Not a question: what it must be between two others."""
# Strict mode: what a session has after its login or a reset, and what it has before it goes to another client.
FOR_BASELINE: Final = 14
FOR_VARIABLES: Final = 15
FOR_ANY_LOCKS: Final = 16
FOR_REST: Final = 17

# What must be asked of the server before it may go (`ClientSession.captures`).
CAPTURE_WARNINGS: Final = 1
CAPTURE_FOUND_ROWS: Final = 2
CAPTURE_INSERT_ID: Final = 4
CAPTURE_VALUES: Final = 8
CAPTURE_STATUS: Final = 16
"""An ERR packet has no status flags: whether a transaction is open now must be asked."""
CAPTURE_AT_ONCE: Final = CAPTURE_VALUES | CAPTURE_STATUS
CAPTURE_OF_SESSION: Final = CAPTURE_VALUES | CAPTURE_INSERT_ID
OF_ONE_STATEMENT: Final = CAPTURE_WARNINGS | CAPTURE_FOUND_ROWS | CAPTURE_STATUS

# What a client is doing.
IDLE: Final = 0
WAITING: Final = 1
SYNCING: Final = 2
BUSY: Final = 3
SENDING_FILE: Final = 4
KILLING: Final = 5


MOMENTS: Final = count(1)
"""Numbers that tell what was earlier: a login, the choice of a schema."""


PROBES: Final = frozenset(
    (FOR_USER_VARIABLES, FOR_LOCKS, FOR_UNNAMED_LOCKS, FOR_TABLE, FOR_INSERT_NUMBER, FOR_UNSEEN_LOCKS, FOR_HELD, FOR_DIFFERING, FOR_CREATED)
)
LOOKS: Final = frozenset((FOR_BASELINE, FOR_VARIABLES, FOR_ANY_LOCKS, FOR_REST))
KEPT: Final = PROBES | LOOKS | {FOR_WARNINGS, FOR_FOUND_ROWS, FOR_INSERT_ID, FOR_VALUES, FOR_COUNTED}
"""Purposes for which the answer itself is wanted."""


class Request:
    """Something that the server was asked. `phase`: how its answer begins; `hidden`: it is not the client's; `keeps`: we want all of it."""

    __slots__ = ("hidden", "keeps", "key", "names", "phase", "purpose", "subjects", "table", "text")

    def __init__(self, purpose: int, phase: int = s.HEAD, text: bytes = b"", key: Key | None = None) -> None:
        self.purpose = purpose
        self.phase = phase
        self.hidden = purpose != FOR_CLIENT
        self.keeps = purpose in KEPT
        self.text = text
        """FOR_SETTINGS: what is proven when it succeeds."""
        self.key = key
        """FOR_STATEMENT, and a client's COM_STMT_PREPARE."""
        self.names: tuple[str, ...] = ()
        """FOR_VALUES: of which variables."""
        self.table = ("", b"")
        """FOR_COUNTED: its schema, and its name as SQL."""
        self.subjects: tuple[bytes, ...] = ()
        """What a question of `_probe` is about."""

    def __repr__(self) -> str:
        return f"<Request for {self.purpose}, phase {self.phase}>"


CLIENT_REQUEST: Final = Request(FOR_CLIENT)
FETCH_REQUEST: Final = Request(FOR_CLIENT, s.FETCHED)
FIELDS_REQUEST: Final = Request(FOR_CLIENT, s.FIRST_FIELD)
TEXT_REQUEST: Final = Request(FOR_CLIENT, s.TEXT)
EXCHANGE_REQUEST: Final = Request(FOR_EXCHANGE)
OPTION_REQUEST: Final = Request(FOR_SETTINGS)
PASSED_ON: Final = {s.C_FETCH: FETCH_REQUEST, s.C_FIELD_LIST: FIELDS_REQUEST, s.C_STATISTICS: TEXT_REQUEST}
IN_FRONT: Final = frozenset((FOR_SCHEMA, FOR_STATEMENT))
QUERY: Final = bytes((wire.COM_QUERY,))
