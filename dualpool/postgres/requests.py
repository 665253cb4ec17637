"""What a server connection of PostgreSQL was asked and has not answered yet.

Theory. A server connection answers in the order in which it was asked. So its relay keeps one queue, `pending`, of the answers that
something depends on: every ReadyForQuery to come (one per Query, FunctionCall and Sync), every ParseComplete and CloseComplete. Whatever
a client need not know of (a Parse that we add, a SET that brings the session to its settings) is asked like everything else and marked
hidden in the queue. Whatever a client asks and the server need not do (a Close of a statement) is replaced by a message that does nothing
and is answered in turn, and its answer is translated. So nothing is ever answered out of order, and the server's rule for errors
(everything up to the next Sync is discarded) holds for our additions as it does for the client's messages.

Source: PostgreSQL docs, chapter "Frontend/Backend Protocol".
"""

from typing import TYPE_CHECKING, Final

from dualpool.postgres.reading import Reading
from dualpool.postgres.statements import PreparedStep, Version

if TYPE_CHECKING:
    from dualpool.postgres.client_session import ClientSession

# Entries of ServerRelay.pending. A visible simple Query is the bytes of its message (the text is needed if a SET comes back); objects are
# the steps that must be undone when the server skips them; the rest are these numbers.
SYNC: Final = 1
CALL: Final = 2
HIDDEN_QUERY: Final = 3
PARSE: Final = 4
HIDDEN_PARSE: Final = 5
"""The unnamed statement of the client, again."""
CLOSING: Final = 6
HIDDEN_CLOSE: Final = 7
"""Of an unnamed statement that is not the client's."""
HIDDEN_SYNC: Final = 8
"""Only its ReadyForQuery is hidden."""
PROBE: Final = 9
"""A hidden Query whose rows we read."""
BARRIER: Final = 10
"""A do-nothing Close before a Query (or FunctionCall) that follows a Bind or Execute without Sync (so pgjdbc sets its savepoints). Until it
is answered, an error is one that makes the server skip the Query, too; afterwards an error is the Query's own."""

RESTORE: Final = 11
"""A hidden Query that brings settings back to those of the client's start-up. The client is told what the server reports of them."""

COPY_SYNC: Final = 12
"""A Sync behind the end of a COPY from the client. (One before it is read during the copy, and ignored.)"""

FORGET: Final = 13
"""A hidden Query that makes the session forget its sequences. It may fail, in a failed transaction."""

DONE: Final = 14
"""A do-nothing Close behind what the client executes: once it is answered, a notice is one of the hidden Parse that follows."""

SETTING: Final = 15
"""A hidden Parse of what sets the settings by which the next Parse of ours is read, or sets them back. What follows it is hidden, too, up
to the second SETTING_OVER."""
SETTING_OVER: Final = 16

READY_MARKS: Final = frozenset((SYNC, CALL, HIDDEN_QUERY, HIDDEN_SYNC, PROBE, RESTORE, COPY_SYNC, FORGET))
SYNCS: Final = frozenset((SYNC, HIDDEN_SYNC, COPY_SYNC))
HIDDEN_QUERIES: Final = frozenset((HIDDEN_QUERY, PROBE, RESTORE, FORGET))
SETTING_MARKS: Final = frozenset((SYNC, CALL, HIDDEN_QUERY, PROBE, RESTORE, COPY_SYNC))
"""After which settings, or what is told of them, may be others than before."""
HIDDEN_MARKS: Final = HIDDEN_QUERIES | {HIDDEN_SYNC}

# ServerRelay.unsynced.
SYNCED: Final = 0
PREPARING: Final = 1
RUNNING: Final = 2


class DescribedStep:
    """A Describe of a statement: the client's, or a hidden one of ours, from which we learn a shape."""

    __slots__ = ("client", "hidden", "learns", "named", "prepared", "types", "unnamed")

    def __init__(
        self,
        client: "ClientSession",
        prepared: PreparedStep | None = None,
        unnamed: bytes | None = None,
        *,
        named: tuple[bytes, Version] | None = None,
        hidden: bool = False,
        learns: bool = False,
    ) -> None:
        self.client = client
        self.prepared = prepared
        """What is described, if its shape is not known yet."""
        self.unnamed = unnamed
        """The same, of an unnamed statement: its Parse message."""
        self.named = named
        """What is described under the client's own name for it, to see whether it is still what the client was told: see own_names.py."""
        self.hidden = hidden
        self.learns = learns
        """The client is about to be told the shape, whatever it was told before."""
        self.types = b""
        """The answer so far: the parameter types."""


class OwnNameStep:
    """A client's statement, prepared or closed under the client's own name for it: see own_names.py."""

    __slots__ = ("alone",)

    def __init__(self, *, alone: bool = False) -> None:
        self.alone = alone
        """It is a segment of its own, before the client's Query: if it fails, the client is told so as the answer to that."""


class StaleStep:
    """In place of a Bind or Describe of a statement whose shape is another one now. It fails, and the client is told what a server says."""

    __slots__ = ("before",)

    def __init__(self, before: bytes) -> None:
        self.before = before
        """What comes before the error. (A server describes parameters before it looks at the columns.)"""


class DuplicateStep:
    """A client's Parse under a name that it has given already. The server will refuse it; the refusal must say the client's name."""

    __slots__ = ("name", "server_name")

    def __init__(self, name: bytes, server_name: bytes) -> None:
        self.name = name
        self.server_name = server_name


class ClosedStep:
    """A client's Close of a statement (a do-nothing Close on the server). If the server skips it, the client still has it."""

    __slots__ = ("client", "name", "version")

    def __init__(self, client: "ClientSession", name: bytes, version: Version) -> None:
        self.client = client
        self.name = name
        self.version = version


class DeallocatedStep:
    """A DEALLOCATE of a client, for which the server runs a statement that does nothing."""

    __slots__ = ("client", "name", "version")

    def __init__(self, client: "ClientSession", name: bytes) -> None:
        self.client = client
        self.name = name
        self.version = client.statements.remove(name)


class ListenStep:
    """A LISTEN of a client, for which the server runs a statement that does nothing: a shared connection listens."""

    __slots__ = ("channel",)

    def __init__(self, channel: str) -> None:
        self.channel = channel


class RefusedListenStep:
    """A LISTEN of a client that is not allowed: what the server runs instead fails, and the client is told why."""

    __slots__ = ()


class RefusedNamesStep:
    """A Query with names of the client's statements where these cannot be prepared. What runs instead fails; the client is told why."""

    __slots__ = ("copies",)

    def __init__(self, *, copies: bool) -> None:
        self.copies = copies
        """It may read from the client, too."""


class RefusedSequenceStep:
    """A question for a sequence's last value that another client's number may answer: it is made to fail, and the client is told why."""

    __slots__ = ()


class RefusedTemporaryStep:
    """A question that another client's temporary tables may answer: it is made to fail, and the client is told why."""

    __slots__ = ()


class EvictStep:
    """A Close of ours. If the server skips it, what `prepared` made is still there."""

    __slots__ = ("prepared",)

    def __init__(self, prepared: PreparedStep) -> None:
        self.prepared = prepared


class TellingStep:
    """An Execute of a statement whose text matters when its tag comes."""

    __slots__ = ("reading",)

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
