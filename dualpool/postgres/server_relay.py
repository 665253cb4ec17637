"""The hot path of PostgreSQL, the server's side: what its messages answer, and what of them the client gets. See requests.py."""

import re
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dualpool.buffer import HeldBytes
from dualpool.errors import DualpoolError, FeatureRefused, RemoteProtocolError, ServerLost
from dualpool.postgres import messages, session_sql, sql, wire
from dualpool.postgres.catalog import Catalog
from dualpool.postgres.codec import check_length, skip_rows
from dualpool.postgres.requests import (
    BARRIER,
    CLOSING,
    COPY_SYNC,
    DONE,
    FORGET,
    HIDDEN_CLOSE,
    HIDDEN_MARKS,
    HIDDEN_PARSE,
    HIDDEN_QUERIES,
    HIDDEN_QUERY,
    HIDDEN_SYNC,
    PARSE,
    PROBE,
    READY_MARKS,
    RUNNING,
    SETTING,
    SETTING_MARKS,
    SETTING_OVER,
    SYNC,
    SYNCED,
    SYNCS,
    ClosedStep,
    DeallocatedStep,
    DescribedStep,
    DuplicateStep,
    EvictStep,
    OwnNameStep,
    RefusedListenStep,
    RefusedNamesStep,
    RefusedSequenceStep,
    RefusedTemporaryStep,
    StaleStep,
    TellingStep,
)
from dualpool.postgres.server_session import TAGS, ServerSession
from dualpool.postgres.session_sql import FORGET_SEQUENCES
from dualpool.postgres.statements import (
    NEVER_PREPARED,
    NO_COLUMNS,
    SERVER_PREFIX,
    STAND_IN_CLOSE,
    UNKNOWN_READING,
    Change,
    ClientStatements,
    PreparedStep,
    ReadBy,
    Version,
    columns_of,
    describe,
    described,
)
from dualpool.postgres.states import (
    RELEASING,
    S_ASYNC,
    S_CLOSED,
    S_COMPLETE,
    S_COPY_IN,
    S_DESCRIBED,
    S_ERROR,
    S_ILLEGAL,
    S_PARAMETER,
    S_PARSED,
    S_PASS,
    S_READY,
    SERVER_ACTION,
)
from dualpool.postgres.wire import HEADER
from dualpool.protocol import BROKEN, FORWARD, LEAKED, PINNED, RELEASE, RESUMES, SESSION, STATEMENT, RelayLimits

if TYPE_CHECKING:
    from dualpool.postgres.client_session import ClientSession

_unpack = HEADER.unpack_from

MAX_ANSWER: Final = 1 << 24
"""An error, notice or parameter of the server may be this long."""
STALE_CODE: Final = b"\0C0A000\0"
STALE_ROUTINE: Final = b"\0RRevalidateCachedQuery\0"
"""The function of the server that refuses a statement whose columns have changed. Drivers look for it, too (asyncpg, pgjdbc)."""
STALE: Final = wire.message(
    wire.ERROR_RESPONSE,
    b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0Fplancache.c\0RRevalidateCachedQuery\0\0",
)
"""What a server says to it. Source: plancache.c."""
WITHOUT_CHECK: Final = frozenset((b"fetch", b"move", b"execute"))
"""Statements with the columns of a cursor or statement of the session. A server does not compare them (stmt_requires_parse_analysis)."""
HIDES: Final = 1
LOOKS: Final = 2
"""`_hiding`: each message is looked at, and the oldest step of `pending` says whether it is hidden."""
OUR_NAME: Final = re.compile(rb'"(' + SERVER_PREFIX + rb'[0-9]++)"')
"""One of our statements, in an error of the server's."""
LISTEN_REFUSED: Final = FeatureRefused(
    'LISTEN is not allowed in this database (listen = "error")', hint="Use a listener in session mode, or a connection to the server."
)
NAMES_REFUSED: Final = FeatureRefused(
    "a simple query behind an extended query without Sync cannot mean prepared statements by their names",
    hint="Send Sync first, or run the statement by the protocol (Bind and Execute).",
)
NAMES_AND_COPY_REFUSED: Final = FeatureRefused(
    "a simple query with COPY FROM STDIN cannot mean prepared statements by their names",
    hint="Send the COPY as a query of its own.",
)
SEQUENCE_UNKNOWN: Final = DualpoolError(
    "the last value of the sequence is not known in this transaction: the server connection is shared with other clients",
    hint="Take the value by RETURNING, or in the transaction in which nextval() was called;"
    ' or set sequence_values = "pin" for the database in the configuration of dualpool.',
    sqlstate="55000",
)
TEMPORARY_UNKNOWN: Final = FeatureRefused(
    "whether this session has had temporary tables is not known in this transaction: the server connection is shared with other clients",
    hint="Begin the transaction again: the client then has a server connection without temporary tables of others.",
)
UNKNOWN: Final = b"?"
"""`ServerRelay.unnamed` when nobody can tell which one the session has: not this client's, at any rate."""


class ServerRelay(ServerSession):
    """See the module."""

    __slots__ = (
        "_describing", "_rest", "_skip", "_skip_hidden", "awaited", "copy_ended", "copying_in", "own_name_error", "own_names", "resumes",
        "segment", "skipping", "unequal", "unfinished", "unsynced",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, reported: dict[str, str], catalog: Catalog | None = None) -> None:
        super().__init__(limits, reported, catalog)
        self.unsynced = SYNCED
        """Whether extended-query messages were sent with no Sync after them, and if they do more than prepare (RUNNING)."""
        self.unfinished = False
        """A message has been sent in part; if the rest never comes, the connection is lost."""
        self.copying_in = False
        self.copy_ended = False
        """Since the last Sync, the client has sent the end of a COPY."""
        self.segment = b""
        """What the client sent since the last Sync, while it is one chunk with one Bind, so that it can be sent again once."""
        self.skipping = False
        """There was an error in the segment that has no Sync yet: the server discards everything up to it."""
        self._describing: DescribedStep | None = None
        """Its parameter types have come, its columns have not."""
        self.awaited: DescribedStep | int | None = None
        """What the client's next message waits for: an answer, or HIDDEN_SYNC for all of them."""
        self.unequal: Version | bytes | None = None
        """The answer to that: this statement has another shape here than the client was told."""
        self.resumes = False
        """The wait for `awaited` is over."""
        self.own_names: dict[bytes, bool] = {}
        """In the segment that has no Sync yet, the client's statements that are prepared under its own names, too. True: it has turned out
        that the client was told another shape."""
        self.own_name_error = b""
        """Why one of them could not be, for the Query under way."""
        self._rest = HeldBytes()
        self._skip = 0
        self._skip_hidden = False

    # ------------------------------------------------------------------------------------------------------- for the exchanges

    def answered(self) -> bool:
        """True when no answer is outstanding."""
        return not self.pending and not self._rest.size and not self._skip

    def is_quiet(self) -> bool:
        return not (
            self.pending
            or self.in_transaction
            or self.unsynced
            or self.unfinished
            or self.suspect
            or self.pins
            or self.doubts
            or self._rest.size
        )

    def is_midway(self) -> bool:
        return self._skip > 0 and not self._skip_hidden

    def is_only_asked(self) -> bool:
        return self._rows is not None and all(step == PROBE for step in self.pending) and not (self.unsynced or self.unfinished)

    def owes_nothing(self) -> bool:
        return self.is_only_asked() and not (self.in_transaction or self.pins or self._founded)

    def is_lost(self) -> bool:
        return self.suspect or self.unfinished

    def needs_sync(self) -> bool:
        """True when extended-query messages still lack their Sync."""
        return self.unsynced != SYNCED

    def may_sync(self) -> bool:
        """Would a Sync of ours change nothing for the client: nothing of its segment has run, or is still to be answered?"""
        last = self.pending[-1] if self.pending else SYNC
        return self.unsynced != RUNNING and not self.skipping and (type(last) is bytes or last in READY_MARKS)

    def sync_sent(self) -> None:
        """An exchange sends the missing Sync."""
        self.unsynced = SYNCED
        self.skipping = False
        self.copy_ended = False
        if self.own_names:
            self.dirty = self.suspect = True  # nobody closes them now
        self.pending.append(COPY_SYNC)

    def forget_sequences(self) -> bytes:
        """The client is about to take a number, and may ask for it. Returns what is sent in front of its Query, or of its Bind."""
        mark = self.pending.pop() if self.pending and type(self.pending[-1]) is bytes else None
        if not self.pending:
            self._hiding = True
        self.pending.append(FORGET)
        if mark is not None:
            self.pending.append(mark)
        self.unnamed = None  # a simple Query ends it (docs: Extended Query)
        self.owns_sequences = True
        if self.client is not None:
            self.client.was_elsewhere = True  # what it has taken before is forgotten
        return FORGET_SEQUENCES

    def expect_hidden_ready(self) -> None:
        """An exchange is about to send a simple Query: keep its answers from clients. `last_error` tells afterwards whether it failed."""
        if not self.pending:
            self._hiding = True
        self.pending.append(HIDDEN_QUERY)
        self.unnamed = None  # a simple Query ends it (docs: Extended Query)
        self.last_error = b""

    # ------------------------------------------------------------------------------------------------------ the server's bytes

    def on_server_bytes(self, data: bytes) -> int:
        if self._rest.size:
            data = self._rest.take(data)
            if not data:
                return FORWARD
        end = len(data)
        position = 0
        start = 0  # the first byte that has not been dealt with: [start:position] goes to the client as it is
        out: list[bytes] | None = None
        verdict = FORWARD
        ready = False
        if self._skip:
            taken = min(self._skip, end)
            self._skip -= taken
            position = taken
            if self._skip_hidden:
                start = taken
                out = []
        while end - position >= 5:
            kind, length = _unpack(data, position)
            action = SERVER_ACTION[kind]
            if action == S_PASS and not self._hiding:
                following = position + length + 1
                if following <= end and length >= 4:
                    # Most answers are short; only a run of messages is worth the call.
                    position = skip_rows(data, following, end) if end - following > 64 else following
                    continue
            check_length(length)
            following = position + length + 1
            if following > end:
                if action == S_PASS and self._rows is None and self._describing is None:
                    self._skip = following - end
                    self._skip_hidden = hidden = self._hiding == HIDES
                    if hidden:
                        out = [] if out is None else out
                        if start < position:
                            out.append(data[start:position])
                        start = end
                    position = end
                elif length > MAX_ANSWER:
                    raise RemoteProtocolError(f"a message of kind {chr(kind)!r} and {length} bytes")
                break
            hidden = self._hiding == HIDES
            instead = b""
            if action == S_READY:
                if length != 5:
                    raise RemoteProtocolError(f"ReadyForQuery of {length} bytes")
                ready = True
                hidden = self._ready(data[position + 5]) or hidden
                if self.attentive:
                    pins = self.pins
                    instead = self._attend(data[position + 5])
                    if self.pins != pins:
                        verdict |= PINNED
                    if self.leak:
                        verdict |= LEAKED
                    if instead and not hidden:
                        # Notifications come before ReadyForQuery, as from a server.
                        out = [] if out is None else out
                        out += (data[start:position], instead)
                        start = position
            elif action == S_COMPLETE:
                self.copying_in = False
                if not hidden:
                    tag = TAGS.get(data[position + 5 : following - 1])
                    if tag is not None:
                        instead = self._tagged(tag)
                        hidden = bool(instead)
            elif action == S_PARSED:
                hidden = self._parsed() or hidden
            elif action == S_CLOSED:
                hidden, instead = self._closed()
            elif action == S_DESCRIBED:
                hidden = self._parameters(data[position + 5 : following]) or hidden
            elif self._describing is not None and kind in {wire.ROW_DESCRIPTION, wire.NO_DATA}:
                hidden = self._columns(data[position + 5 : following] if kind == wire.ROW_DESCRIPTION else None)
            elif action == S_ERROR:
                payload, alone = data[position + 5 : following], False
                if self._describing is not None:
                    self._describing = None
                    self._hiding = 0
                if hidden:
                    self.last_error = payload
                if self.wants_writes and b"\0C25006\0" in payload:
                    self.refused_write = self.dirty = True
                if b"\0VFATAL\0" in payload or b"\0VPANIC\0" in payload:
                    verdict |= BROKEN
                    hidden = self.owes_nothing()  # the server's last words are for a client that waits for something
                elif hidden:
                    if self.pending and self.pending[0] == FORGET:
                        self.owns_sequences = False
                    elif self.client is not None and self._rows is None:
                        raise settings_refused(payload)
                elif self.segment and self._heals(payload, position == 0):
                    hidden = True
                elif self._is_own_name(payload):
                    hidden = alone = True
                else:
                    instead = self._renamed(payload)
                    hidden = bool(instead)
                self._after_error(payload)
                if alone and self.skipping:
                    # What the client sends next is not to be skipped.
                    self.skipping, self.unsynced = False, SYNCED
                    self.pending.append(HIDDEN_SYNC)
                    self.to_server += wire.SYNC_MESSAGE
            elif action == S_PARAMETER:
                hidden = self._report(data[position + 5 : following - 1])
            elif action == S_COPY_IN:
                self.copying_in = True
            elif kind == wire.NOTICE:
                hidden = hidden or self._is_of_ours()
            elif action == S_ILLEGAL:
                raise RemoteProtocolError(f"a message of kind {chr(kind)!r} after the login")
            elif hidden and self._rows is not None and kind == wire.DATA_ROW:
                self._rows.append(data[position + 5 : following])
            if hidden and (action != S_ASYNC or kind == wire.NOTICE):
                out = [] if out is None else out
                if start < position:
                    out.append(data[start:position])
                if instead:
                    out.append(instead)
                start = following
            position = following
        if position < end:
            tail = data[position:]
            self._rest.keep(tail, 1 + _unpack(tail, 0)[1] if len(tail) >= 5 else 5)
        if out is None:
            self.to_client = data if position == end else data[:position]
        else:
            if start < position:
                out.append(data[start:position])
            self.to_client = b"".join(out)
        if position:
            self.segment = b""
        if ready and RELEASING[self.mode][wire.IDLE]:
            if self.is_quiet():
                if not self.resumes:  # else the client has more to say
                    verdict |= RELEASE
            else:
                if self.pins or self.doubts:
                    self.look()
                if self._rows is None and self.client is not None and not self.pending:
                    verdict |= self.client.catch_up(self)
        if self.resumes:
            self.resumes = False
            if self.client is not None:
                verdict |= RESUMES
        return verdict

    def look(self) -> None:
        """Between two transactions, if there is reason to: ask what the session holds. The client has its answer already.

        So it is the server that says when a pin begins and ends; reading SQL only says when to ask.
        """
        if not (
            self.pending
            or self.in_transaction
            or self.unsynced
            or self.unfinished
            or self.suspect
            or self._rest.size
            or self.client is None
        ):
            self.client.forget_portals()
            self._ask_what_is_due()

    def is_between(self) -> bool:
        """True between two transactions, with nothing on its way to the client."""
        return not (self.pending or self.in_transaction or self.unsynced or self._rest.size or self._skip)

    def _attend(self, status: int) -> bytes:
        """ReadyForQuery, and something has waited for it. Returns what the client is told."""
        told = b"" if self._rows is None else self._looked(self._rows)
        restores = self.restores_unset or bool(self.to_restore)
        if restores and status != wire.FAILED and not (self.pending or self.unsynced or self.unfinished):
            self._restore()
        if status == wire.IDLE:
            if self.moved and self.mode != SESSION:
                self._explain_reports()
            if self.client is not None and self.client.subscriptions is not None:
                told += self.client.subscriptions.take_mail()
        self.attentive = bool(
            self._rows is not None or self.to_restore or self.restores_unset or (status != wire.IDLE and (self.moved or self._has_mail()))
        )
        return told

    def _has_mail(self) -> bool:
        """Do notifications wait for the end of the client's transaction?"""
        client = self.client
        return client is not None and client.subscriptions is not None and bool(client.subscriptions.mail)

    # ----------------------------------------------------------------------------------------------------------------- answers

    def _ready(self, status: int) -> bool:
        """ReadyForQuery: the oldest Query or Sync is answered in full. True if the client did not ask for it."""
        pending = self.pending
        mark = pending.popleft() if pending else None
        if type(mark) is not bytes and mark not in READY_MARKS:
            if mark is not None:
                pending.appendleft(mark)
                self._undo_skipped()  # They were sent after the error had come already.
            if not pending:
                raise RemoteProtocolError("ReadyForQuery without a query")
            mark = pending.popleft()
        self.in_transaction = status != wire.IDLE
        self.copying_in = False
        self._hiding = HIDES if pending and pending[0] in HIDDEN_QUERIES else 0
        self._describing = None
        self._query = self._telling = None
        if self.changes_in_transaction and status == wire.IDLE:
            if self._in_error:
                self._drop_changes()
                self.to_restore.clear()
                self.restores_unset = False
            else:
                self._commit_changes()
        if self.session_changed and status == wire.IDLE:
            self.check_number_of_settings()
        if self.rereads:
            self._unsettled = False
            if not pending:
                self.settle()
        if self._altered and status == wire.IDLE:
            # Only now can others see it.
            self._altered = False
            self._outdate()
        self._in_error = False
        if status != wire.IDLE and self.mode == STATEMENT and mark != HIDDEN_QUERY:
            self.suspect = bool(pending)
            raise FeatureRefused(
                "transactions of several statements are not possible in statement pooling mode",
                hint='Use pool_mode = "transaction", or leave out BEGIN.',
            )
        if mark == HIDDEN_SYNC:
            self._end_wait(HIDDEN_SYNC)
            return True
        if mark in HIDDEN_MARKS:
            return False
        self._last = mark
        self.own_name_error = b""
        self.queries += 1
        if status == wire.IDLE:
            self.transactions += 1
        return False

    def _parsed(self) -> bool:
        """ParseComplete. True if the client did not ask for it."""
        step = self.pending.popleft() if self.pending else None
        if step == PARSE:
            if self.rereads:
                self._settle_reading_of_unnamed()
            return False
        if step == HIDDEN_PARSE:
            return True
        if step == SETTING:
            self._hiding = HIDES
            return True
        if isinstance(step, PreparedStep):
            step.confirmed = step.sure = True
            if step.visible and step.version.statement.reading is UNKNOWN_READING:
                self.settle_reading(step.version)
            if step.version.columns is None and not step.leaving:
                self.statements.keep(step)  # A DEALLOCATE ALL before it may have been answered meanwhile.
            return not step.visible
        if isinstance(step, DuplicateStep):
            return False
        if isinstance(step, OwnNameStep):
            return True
        raise RemoteProtocolError("ParseComplete without a Parse")

    def _closed(self) -> tuple[bool, bytes]:
        """CloseComplete. Whether to hide it, and what the client gets instead."""
        step = self.pending.popleft() if self.pending else None
        if step == CLOSING or isinstance(step, ClosedStep):
            return False, b""
        if isinstance(step, EvictStep):
            self.statements.remove(step.prepared)
            return True, b""
        if step == SETTING_OVER:
            if not self.pending or self.pending[0] != SETTING_OVER:
                self._hiding = 0
            return True, b""
        if step in {HIDDEN_CLOSE, BARRIER, DONE} or isinstance(step, OwnNameStep):
            return True, b""
        raise RemoteProtocolError("CloseComplete without a Close")

    def _after_error(self, payload: bytes) -> None:
        """After an error the server discards everything up to Sync (docs: Extended Query): undo what will not happen."""
        if self.copying_in and self.pending and self.pending[0] == SYNC:
            # Was a Sync that was sent before the copy began read during the copy (and ignored) or after the error?
            if has_read_data(payload) and all(step == SYNC for step in self.pending):
                self.pending.clear()
                self.unsynced = RUNNING
            else:
                self.suspect = True
        self.copying_in = False
        self._in_error = True
        self._undo_skipped()
        self.skipping = bool(self.unsynced) and not self.pending

    def _undo_skipped(self) -> None:
        """The server will not do what is left of the segment: the last step is undone first."""
        skipped = []
        pending = self.pending
        barred = False
        while pending:
            step = pending[0]
            if step in SYNCS if barred else type(step) is bytes or step in READY_MARKS:
                break
            barred = barred or step == BARRIER
            skipped.append(pending.popleft())
        for step in reversed(skipped):
            self._undo(step)

    def _undo(self, step: object) -> None:
        if isinstance(step, PreparedStep):
            self.statements.remove(step)
            if step.visible:
                step.owner.remove(step.owner_name)
            elif step.told is not None:
                step.owner.replace(step.owner_name, step.version, step.told)
        elif isinstance(step, DescribedStep):
            self._end_wait(step)
        elif isinstance(step, ClosedStep):
            step.client.statements.restore(step.name, step.version)
        elif isinstance(step, EvictStep):
            if step.prepared.confirmed:
                self.statements.keep(step.prepared)
        elif isinstance(step, DeallocatedStep):
            step.client.statements.restore(step.name, step.version)
        elif isinstance(step, int) and step not in {DONE, SETTING, SETTING_OVER}:
            # PARSE, CLOSING and their hidden forms. Was this one refused, or never read? The unnamed statement is one or the other.
            self.unnamed = UNKNOWN
            if step == PARSE and self.client is not None and PARSE not in self.pending:
                # (Of several, the newest is the client's.)
                self.client.unnamed = None

    def _is_of_ours(self) -> bool:
        """Is a notice that comes now one of a Parse that the client did not ask for?"""
        step = self.pending[0] if self.pending else None
        return step in {HIDDEN_PARSE, SETTING} or isinstance(step, OwnNameStep) or (isinstance(step, PreparedStep) and not step.visible)

    def parse_hidden(self, frame: bytes, step: object, changes: Sequence[Change] = ()) -> bytes:
        """`frame`, a Parse that the client did not ask for, and what tells its notices from those of what the client executes before.

        Around it, `changes` of the settings by which it is read.
        """
        before = b""
        if self.unsynced == RUNNING:
            self.pending.append(DONE)
            before = STAND_IN_CLOSE
        if not changes:
            self.pending.append(step)
            return before + frame
        self.pending.extend((SETTING, SETTING_OVER, SETTING_OVER, step, SETTING, SETTING_OVER, SETTING_OVER))
        there = session_sql.set_inside([(name, then) for name, then, _ in changes])
        back = session_sql.set_inside([(name, now) for name, _, now in changes])
        return before + there + frame + back

    def _is_own_name(self, payload: bytes) -> bool:
        """Is it an error of what we prepare by itself? Then it is kept, to be told where the client's text fails for want of it."""
        head = next((step for step in self.pending if step not in {SETTING, SETTING_OVER}), None)
        if isinstance(head, OwnNameStep) and head.alone:
            self.own_name_error = payload
            return True
        return False

    def _renamed(self, payload: bytes) -> bytes:
        """An error that names one of our statements, with the client's own name for it; b"" when it names none."""
        if self.own_name_error and (b"\0C26000\0" in payload or b"\0C25P02\0" in payload):
            return wire.message(wire.ERROR_RESPONSE, self.own_name_error)
        if self.client is None:
            return b""
        if b"\0Rlastval\0" in payload or b"\0Rcurrval_oid\0" in payload:
            return messages.error_message(SEQUENCE_UNKNOWN) if b"\0C55000\0" in payload and self.client.was_elsewhere else b""
        if SERVER_PREFIX not in payload:
            return b""
        head = self.pending[0] if self.pending else None
        if isinstance(head, RefusedListenStep) and NEVER_PREPARED in payload:
            return messages.error_message(LISTEN_REFUSED)
        if isinstance(head, RefusedNamesStep) and NEVER_PREPARED in payload:
            return messages.error_message(NAMES_AND_COPY_REFUSED if head.copies else NAMES_REFUSED)
        if isinstance(head, RefusedSequenceStep) and NEVER_PREPARED in payload:
            return messages.error_message(SEQUENCE_UNKNOWN)
        if isinstance(head, RefusedTemporaryStep) and NEVER_PREPARED in payload:
            return messages.error_message(TEMPORARY_UNKNOWN)
        if isinstance(head, StaleStep) and NEVER_PREPARED in payload:
            return head.before + STALE
        known = self.statements.known
        names = {known[version].name: name for name, version in self.client.statements.names.items() if version in known}
        if isinstance(head, DuplicateStep):
            names[head.server_name] = head.name
        payload = OUR_NAME.sub(lambda found: b'"' + names.get(found[1], found[1]) + b'"', payload)
        return wire.message(wire.ERROR_RESPONSE, payload)

    def _heals(self, payload: bytes, first: bool) -> bool:
        """A table was changed under a statement, and the client asks in this very segment what rows it will get: it need not know.

        Only when the whole segment can be asked again: it was one chunk, nothing of it was answered, and no transaction was lost with it.
        """
        client, segment = self.client, self.segment
        if not first or client is None or len(self.pending) != 1 or self.in_transaction:
            return False
        if STALE_CODE not in payload or STALE_ROUTINE not in payload or not client.learns_again(segment):
            return False
        self.segment_statement = None
        # The failed segment's ReadyForQuery stays hidden; then comes the client's segment again.
        self.pending.clear()
        self.pending.append(HIDDEN_QUERY)
        self._hiding = HIDES
        self.to_server += client.ask_again(segment, self)
        return True

    # ---------------------------------------------------------------------------------------------------------------- readings

    def reading_now(self) -> ReadBy:
        """The settings by which the session reads what is sent next, as far as is known; UNKNOWN_READING if more must be answered first."""
        if self.unsynced == RUNNING or any(map(may_set, self.pending)):
            return UNKNOWN_READING
        return self.reading_as_told()

    def certain_reading(self) -> ReadBy:
        """The same, where nothing that has run may have made settings that nobody has told of; else UNKNOWN_READING."""
        return UNKNOWN_READING if self.doubts & sql.SETTINGS else self.reading_now()

    def reading_is_coming(self) -> bool:
        """Will the answers that are under way, or that of a question, tell it without anything more from the client?"""
        if self.unsynced == RUNNING:
            return False
        return any(map(may_set, self.pending)) or (bool(self.doubts & sql.SETTINGS) and not self.in_transaction)

    def _settle_reading_of_unnamed(self) -> None:
        """The client's own Parse of an unnamed statement is answered, and all that was sent before it."""
        client = self.client
        if client is not None and client.unnamed_reading is UNKNOWN_READING and PARSE not in self.pending:
            client.unnamed_reading = self.reading_as_told()

    # ------------------------------------------------------------------------------------------------------------------ shapes

    def _parameters(self, payload: bytes) -> bool:
        """ParameterDescription. True if the client did not ask for it."""
        step = self.pending[0] if self.pending else None
        if not isinstance(step, DescribedStep):
            return False
        if step.prepared is None and step.unnamed is None and step.named is None:
            self.pending.popleft()
            return step.hidden
        step.types = payload
        self._describing = step
        self._hiding = LOOKS
        return step.hidden

    def _columns(self, description: bytes | None) -> bool:
        """RowDescription or NoData (None) behind it. True if the client did not ask for it."""
        step = self._describing
        assert step is not None
        self._describing = None
        self._hiding = 0
        self.pending.popleft()
        try:
            columns = NO_COLUMNS if description is None else columns_of(description)
        except (ValueError, struct.error) as error:
            raise RemoteProtocolError("invalid RowDescription message") from error
        if step.prepared is not None:
            self._settle(step.prepared, described(step.prepared.version.statement, step.types, columns))
        elif step.unnamed is not None:
            self._settle_unnamed(step, step.types, columns)
        elif step.named is not None:
            name, told = step.named
            self.own_names[name] = (told.types, told.columns) != (step.types, columns) and not self._is_unchecked(told)
        self._end_wait(step)
        return step.hidden

    def _settle(self, prepared: PreparedStep, now: Version) -> None:
        """The server has told the shape of what was prepared."""
        before = prepared.version
        if before.columns is None:
            # The client that it was prepared for is told this shape, or knows no other.
            before.settled = now
            prepared.owner.replace(prepared.owner_name, before, now)
        elif before is not now:
            if self._is_unchecked(before):
                prepared.owner.replace(prepared.owner_name, before, now)
            else:
                self.unequal = before
        self.statements.settle(prepared, now)

    def _is_unchecked(self, version: Version) -> bool:
        """Does a server run it whatever its columns have become?"""
        return version.statement.read(self.reader).verb() in WITHOUT_CHECK

    def _settle_unnamed(self, step: DescribedStep, types: bytes, columns: bytes) -> None:
        """The same of an unnamed statement."""
        client = step.client
        if client.unnamed is not step.unnamed:
            return
        if not step.hidden or step.learns or client.unnamed_shape is None:
            client.unnamed_shape = (types, columns)
        elif client.unnamed_shape != (types, columns):
            self.unequal = step.unnamed
            self.unnamed = UNKNOWN

    def forget_question(self) -> None:
        """Its client is going: nobody waits for an answer."""
        self.awaited = self.unequal = None
        self.resumes = False

    def _end_wait(self, step: DescribedStep | int) -> None:
        """`step` is answered, or will not be."""
        if self.awaited == step:
            self.awaited = None
            self.resumes = True

    # -------------------------------------------------------------------------------------------------------------- statements

    def prepare(
        self, version: Version, owner: ClientStatements, owner_name: bytes, *, visible: bool = False, changes: Sequence[Change] = ()
    ) -> tuple[bytes, PreparedStep]:
        """The messages that prepare `version` under a new name, by `changes` of the settings, and make room for it. See PreparedStep."""
        self.parses += 1
        statements = self.statements
        step = PreparedStep(version, statements.new_name(), owner, owner_name, visible=visible)
        if version.columns is None:
            statements.add(step)  # else it must be seen first whether it is `version`
        closing = b""
        for gone in statements.take_outdated():
            self.pending.append(EvictStep(gone))
            closing += wire.message(wire.CLOSE, b"S" + gone.name + b"\0")
        if visible:
            self.pending.append(step)
            return closing + version.parse(step.name), step
        return closing + self.parse_hidden(version.parse(step.name), step, changes), step

    def prepare_and_describe(
        self, version: Version, client: "ClientSession", owner_name: bytes, *, visible: bool = False, changes: Sequence[Change] = ()
    ) -> tuple[bytes, PreparedStep, DescribedStep]:
        """The same, and ask for its shape."""
        data, step = self.prepare(version, client.statements, owner_name, visible=visible, changes=changes)
        asked = DescribedStep(client, step, hidden=True)
        self.pending.append(asked)
        return data + describe(step.name), step, asked

    def step_of(self, version: Version, owner: ClientStatements, owner_name: bytes) -> PreparedStep | None:
        """What has prepared `version` when the server reads what is sent next; `owner_name` is what its owner calls it.

        A Parse in an earlier segment may still fail, or be skipped, without this segment failing with it. Only if it was the client's own
        for this very name, then what it asks now must fail, too.
        """
        step = self.statements.known.get(version)
        if step is None:
            return None
        own = step.visible and step.owner is owner and step.owner_name == owner_name
        if step.sure or (own and not step.confirmed) or self._in_this_segment(step):
            self.statements.known.move_to_end(version)
            return step
        return None

    def parse_is_unsure(self) -> bool:
        """True if the newest Parse (or Close of ours) of the unnamed statement is in an earlier segment and not answered yet."""
        earlier = False
        for step in reversed(self.pending):
            if step in {PARSE, HIDDEN_PARSE, HIDDEN_CLOSE}:
                return earlier
            earlier = earlier or type(step) is bytes or step in READY_MARKS
        return False

    def _in_this_segment(self, step: object) -> bool:
        for later in reversed(self.pending):
            if later is step:
                return True
            if type(later) is bytes or later in READY_MARKS:
                return False
        return False


def may_set(step: object) -> bool:
    """May a setting of the session be another one when `step` is answered?"""
    return type(step) is bytes or isinstance(step, TellingStep) or step in SETTING_MARKS


def settings_refused(payload: bytes) -> ServerLost:
    """The server has refused a client's settings (a role that was dropped?), so it still has those of the client before."""
    report = messages.parse_report(payload)
    return ServerLost(f"the settings of the session could not be brought back: {report.get('M', '')}", sqlstate=report.get("C"))


def has_read_data(payload: bytes) -> bool:
    """Is an error one of a COPY that was reading from the client? Its context says so, whatever language it is in: `COPY t, line 1`."""
    context = messages.parse_report(payload).get("W", "")
    return "COPY" in context.rpartition("\n")[2]
