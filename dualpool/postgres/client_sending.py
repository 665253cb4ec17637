"""What a client's messages become on their way to the server connection that it has.

A client's statements have names of their own, which no server connection knows: a Parse, Bind, Describe or Close is rewritten to the name
that the statement has there, and what must be there first goes in front of it.
"""

import struct
from typing import Final

from dualpool.errors import RemoteProtocolError
from dualpool.postgres import own_names, sql, wire
from dualpool.postgres.client_session import USES_NUMBERS, ClientSession
from dualpool.postgres.messages import NULL_LENGTH
from dualpool.postgres.reading import CANCELS, LONGEST_CLUE, Reading, is_plain, marks_of_part
from dualpool.postgres.requests import (
    CLOSING,
    HIDDEN_CLOSE,
    HIDDEN_PARSE,
    HIDDEN_SYNC,
    PARSE,
    PREPARING,
    SYNCED,
    ClosedStep,
    DeallocatedStep,
    DescribedStep,
    DuplicateStep,
    EvictStep,
    ListenStep,
    OwnNameStep,
    RefusedListenStep,
    RefusedNamesStep,
    RefusedSequenceStep,
    RefusedTemporaryStep,
    StaleStep,
    TellingStep,
)
from dualpool.postgres.server_relay import STALE, ServerRelay
from dualpool.postgres.statements import (
    ANY_READING,
    NEVER_PREPARED,
    NO_COLUMNS,
    SERVER_PREFIX,
    STAND_IN_CLOSE,
    UNKNOWN_READING,
    Change,
    ReadBy,
    Version,
    changes_for,
    describe,
    described,
    kept_reading,
    shared,
    text_of,
    undescribed,
)
from dualpool.postgres.wire import HEADER
from dualpool.protocol import FIRST_CLIENT_ID, LISTEN_ERROR, LISTEN_SHARED, SEQUENCE_PIN, SESSION, RelayLimits
from dualpool.state import DEFAULTS, Settings, Subscriptions

SMALL_MESSAGE: Final = 1 << 16
"""Execute, Describe, Close, Sync and Flush are never longer than this; PostgreSQL has a similar limit (PQ_SMALL_MESSAGE_LIMIT)."""
DO_NOTHING: Final = b"UNLISTEN " + NEVER_PREPARED
"""What runs in place of a DEALLOCATE. Unlike an empty query it fails in a failed transaction, as the DEALLOCATE would."""
STATEMENT_KIND: Final = ord("S")
PORTAL_KIND: Final = ord("P")
TOO_LONG_TO_KEEP: Final = b"the unnamed statement was too long to be kept for another server connection"
MAX_WAITS: Final = 4
"""For what is under way, for a question, and for one more about what the first has found."""
MAX_CHECKED: Final = 16
"""Statements that one text names; of more it is not certain that it names them."""
MAX_NAME: Final = 128
"""Bytes of a setting's name."""
CLOSE_UNNAMED: Final = wire.message(wire.CLOSE, b"S\0")
FAIL: Final = b"EXECUTE " + NEVER_PREPARED
"""Runs, and fails, in place of a LISTEN that is not allowed."""
DO_NOTHING_INSTEAD: Final = described(shared(DO_NOTHING + b"\0\0\0", ANY_READING), b"\0\0", NO_COLUMNS)
FAIL_INSTEAD: Final = described(shared(FAIL + b"\0\0\0", ANY_READING), b"\0\0", NO_COLUMNS)
CANCELED_INSTEAD: Final = {
    function: described(shared(b"SELECT true AS " + function + b"\0\0\0", ANY_READING), b"\0\0", NO_COLUMNS) for function in CANCELS
}
"""(Nobody describes them: the client has described its own statement.)"""
ENCODING: Final = "client_encoding"
SEARCH_PATH: Final = "search_path"


class MustWait(Exception):
    """The message that is being walked cannot be sent yet: `wants_channel` has to be answered first."""


class MustAsk(Exception):
    """The message that is being walked cannot be sent before the server has answered `asked` (`ServerRelay.awaited`).

    Or, with `need`: before so many bytes from it on are there.
    """

    def __init__(self, asked: bytes, need: int = 0) -> None:
        super().__init__()
        self.asked = asked
        self.need = need


class Stale(Exception):
    """The statement that a message is about has another shape than the client was told. `first`: what is sent all the same."""

    def __init__(self, first: bytes = b"") -> None:
        super().__init__()
        self.first = first


class MustCancel(Exception):
    """As MustWait: what another client runs, `cancel_key`, has to be cancelled first."""


class ClientSender(ClientSession):
    """See the module. Each method returns what is sent instead of the message, or None: the message as it is."""

    __slots__ = ("_canceled", "_listens_alone", "_portals", "_unread", "_waits")

    def __init__(self, limits: RelayLimits, wanted: Settings = DEFAULTS) -> None:
        super().__init__(limits, wanted)
        self._portals: dict[bytes, Reading | ListenStep | RefusedListenStep] = {}
        """What the texts of this lease's portals are, from the first telling one on; or what an Execute does in place of a LISTEN."""
        self._listens_alone = False
        """The next LISTEN goes to the client's own server connection."""
        self._canceled: bool | None = None
        """The cancel request that the next Query means is over; True: there was such a client."""
        self._waits = 0
        """How often the next message has waited already until it is known how the session reads texts."""
        self._unread = b""
        """The end of what was sent of a text that is too long to be read, while its rest comes."""

    def forget_portals(self) -> None:
        """The transaction is over, and its portals with it."""
        self._portals.clear()

    def _note_query(self, frame: bytes, marks: int, server: ServerRelay, whole: bool) -> bytes | None:
        """A simple Query of which something must be noted. Returns what is sent instead, or None. Raises MustWait."""
        text = frame[5:-1]
        refused = self._refused(marks, server)
        if refused is not None:
            server.pending.insert(-1, refused)
            return wire.query(FAIL)
        judge = server.judge
        now = UNKNOWN_READING
        if marks & sql.NAMES and whole and server.mode != SESSION:
            asked = server.pending.pop()
            now = self._reading_for_names(judge.read(text), text, server)
            server.pending.append(asked)
        if server.mode != SESSION:
            self._suspect(marks, text, server)
        else:
            server.leaves(marks, text)
        if not marks & (sql.VACATES | sql.LISTENS | sql.DEALLOCATES | sql.NAMES | sql.CANCELS):
            return None
        reading = judge.read(text)
        if marks & sql.CANCELS:
            return self._cancel_instead(reading)
        if reading.vacates:
            self.vacates = reading.vacates
        if server.mode == SESSION:
            return None
        if marks & sql.LISTENS:
            return self._listen_instead(text, reading, server)
        instead = self._query_instead(text, reading, server) if marks & sql.DEALLOCATES else None
        if marks & sql.NAMES and whole:
            return self._query_under_own_names(frame if instead is None else instead, text, reading, now, server)
        return instead

    def _cancel_instead(self, reading: Reading) -> bytes | None:
        """pg_cancel_backend() of a process id that a client was told at its login: it is ours to cancel. Raises MustCancel."""
        function = self._cancel(reading.cancels())
        return wire.query(b"SELECT true AS " + function) if function else None

    def _cancel(self, asked: tuple[bytes, int] | None) -> bytes:
        """Cancel a client's query, or end it. The function that is to return true; b"": the server answers. Raises MustCancel."""
        if asked is None or asked[1] < FIRST_CLIENT_ID:
            return b""
        found, self._canceled = self._canceled, None
        if found is None:
            self.cancel_key = asked[1]
            self.cancel_connection = asked[0] == b"pg_terminate_backend"
            raise MustCancel
        return asked[0] if found else b""

    def _bind_canceling(
        self, reading: Reading, data: bytes, position: int, portal_end: int, values: int, end: int, server: ServerRelay
    ) -> bytes:
        """The same for a Bind, whose `values` begin there. Returns what is sent instead, or b"". Raises MustCancel."""
        bound = data[values:end]
        function = self._cancel(reading.cancels(bound_values(bound)))
        if not function:
            return b""
        prefix, own = self._stand_in(CANCELED_INSTEAD[function], server)
        body = data[position + 5 : portal_end + 1] + own + b"\0\0\0\0\0" + bound[end_of_values(bound) :]
        return prefix + wire.message(wire.BIND, body)

    def _query_under_own_names(self, query: bytes, text: bytes, reading: Reading, now: ReadBy, server: ServerRelay) -> bytes:
        """`query`, with what its `text` means by the client's own names prepared around it. See own_names.py. Raises MustAsk."""
        shows_all, names = own_names.shows_all(text, reading.lexed), self._names_meant(reading, text)
        if not names and not shows_all:
            return query
        pending = server.pending
        if server.unsynced or (names and own_names.may_copy(text, reading.lexed)):
            # What is prepared would need a Sync, which would commit what the client has not; what closes it would be read as data.
            pending.insert(-1, RefusedNamesStep(copies=not server.unsynced))
            return wire.query(FAIL)
        asked = [pending.pop()]
        if pending and isinstance(pending[-1], DeallocatedStep):
            asked.insert(0, pending.pop())
        parts = [self._close_all(server)] if shows_all else []
        is_checked = not shows_all and len(names) <= MAX_CHECKED
        for name in names:
            if name not in server.own_names:
                parts.append(self._prepare_under(name, OwnNameStep(alone=True), now, server, b"".join(parts), is_checked=is_checked))
                parts.append(wire.SYNC_MESSAGE)
                pending.append(HIDDEN_SYNC)
        stale = [name for name, is_stale in server.own_names.items() if is_stale]
        if stale:
            # It is not to find them; what it is told then is what a server says.
            server.own_name_error = STALE[wire.HEADER.size :]
            parts += (wire.message(wire.CLOSE, b"S" + name + b"\0") for name in stale)
            pending.extend(OwnNameStep() for _ in stale)
        pending.extend(asked)
        parts += (query, self._close_own_names(list(server.own_names), server))
        server.own_names.clear()
        return b"".join(parts)

    def _names_meant(self, reading: Reading, text: bytes) -> list[bytes]:
        """The client's statements that `text` means by their names; all of them, if it shows them."""
        names = self.statements.names
        return list(names) if own_names.shows_all(text, reading.lexed) else own_names.names_in(text, reading.lexed, names)

    def _prepare_under(self, name: bytes, step: OwnNameStep, now: ReadBy, server: ServerRelay, before: bytes, *, is_checked: bool) -> bytes:
        """What prepares the client's statement under its own name for it, in a session that reads texts by the settings `now`.

        As when the client prepared it: what it means by the search path of now, the server finds out itself. Raises MustAsk, with what is
        sent `before`, if that is to be compared with what the client was told (`is_checked`).
        """
        version = settled(self.statements.names[name])
        server.own_names[name] = False
        data = server.parse_hidden(version.parse(name), step, self._changes_for(version, now, server))
        if not is_checked or version.columns is None:
            return data
        raise self._ask(DescribedStep(self, named=(name, version), hidden=True), before + data + describe(name), server)

    def _close_all(self, server: ServerRelay) -> bytes:
        """What closes all that is prepared for anybody, under names of ours. (The next use of each prepares it again.)"""
        server.statements.leave_all()
        gone = server.statements.take_outdated()
        server.pending.extend(EvictStep(step) for step in gone)
        return b"".join(wire.message(wire.CLOSE, b"S" + step.name + b"\0") for step in gone)

    def _close_own_names(self, names: list[bytes], server: ServerRelay) -> bytes:
        """What closes them again, behind the client's Query or Sync."""
        if not names:
            return b""
        server.pending.extend(OwnNameStep() for _ in names)
        server.pending.append(HIDDEN_SYNC)
        return b"".join(wire.message(wire.CLOSE, b"S" + name + b"\0") for name in names) + wire.SYNC_MESSAGE

    def _under_own_names(self, reading: Reading, text: bytes, now: ReadBy, server: ServerRelay) -> bytes:
        """The same for a statement that is about to be prepared, described or bound: what must be sent first. The Sync ends it.

        Where it is not certain that `text` means one of them by its name, one that cannot be prepared any more is left out, unless that
        would end the client's transaction.
        """
        shows_all, names = own_names.shows_all(text, reading.lexed), self._names_meant(reading, text)
        alone = (shows_all or reading.lexed is None) and not server.in_transaction and server.may_sync()
        parts = [self._close_all(server)] if shows_all else []
        is_checked = not shows_all and len(names) <= MAX_CHECKED
        for name in names:
            if name not in server.own_names:
                parts.append(self._prepare_under(name, OwnNameStep(alone=alone), now, server, b"".join(parts), is_checked=is_checked))
                if alone:
                    parts.append(wire.SYNC_MESSAGE)
                    server.pending.append(HIDDEN_SYNC)
        return b"".join(parts)

    def _is_stale_by_name(self, reading: Reading, text: bytes, server: ServerRelay) -> bool:
        """Is one of the statements that `text` names no longer what the client was told?"""
        stale = [name for name, is_stale in server.own_names.items() if is_stale]
        return bool(stale) and bool(own_names.names_in(text, reading.lexed, stale))

    def _names_first(self, reading: Reading, text: bytes, now: ReadBy, server: ServerRelay) -> bytes:
        """The same in front of a Parse: the columns of an EXECUTE are settled by it (`PlanCacheComputeResultDesc` in plancache.c).

        Not where `text` would see what is prepared in between.
        """
        return b"" if own_names.shows_all(text, reading.lexed) else self._under_own_names(reading, text, now, server)

    def _names_of_unnamed_first(self, now: ReadBy, server: ServerRelay) -> bytes:
        """The same for the unnamed statement."""
        unnamed = self.unnamed
        if unnamed is None or not self.unnamed_marks & sql.NAMES:
            return b""
        text = text_of(unnamed)
        return self._names_first(server.judge.read(text), text, now, server)

    def end_own_names(self, server: ServerRelay) -> bytes:
        """The client's Sync, and behind it what closes the statements under its own names."""
        names, server.own_names = list(server.own_names), {}
        return wire.SYNC_MESSAGE + self._close_own_names(names, server)

    def _suspect(self, marks: int, text: bytes, server: ServerRelay) -> None:
        server.suspect_of(marks, text)
        if marks & self.notable & USES_NUMBERS and self.limits.sequence_values == SEQUENCE_PIN and not server.pins & sql.SEQUENCE:
            server.suspect_of(sql.SEQUENCE, text)

    def _refused(self, marks: int, server: ServerRelay) -> RefusedSequenceStep | RefusedTemporaryStep | None:
        """May what a text asks for be another client's? The step of its refusal; None: it is not. From now on leases begin without that."""
        if marks & sql.ASKS_SEQUENCE:
            self.limits.asks_sequences = True
            if not server.owns_sequences:
                return RefusedSequenceStep()
        if marks & sql.ASKS_TEMPORARY:
            self.limits.asks_temporary = True
            if server.has_temporary and server.temporary_of is not self:
                return RefusedTemporaryStep()
        return None

    def _query_instead(self, text: bytes, reading: Reading, server: ServerRelay) -> bytes | None:
        """DEALLOCATE of a statement that the client prepared by protocol: the server never knew its name."""
        name = reading.deallocates
        if name is None:
            others = reading.without_deallocates(text, self.statements.names, DO_NOTHING)
            return None if others is None else wire.query(others)
        if name not in self.statements.names:
            return None
        mark = server.pending.pop()
        server.pending.extend((DeallocatedStep(self, name), mark))
        return wire.query(DO_NOTHING)

    def _listen_instead(self, text: bytes, reading: Reading, server: ServerRelay) -> bytes | None:
        """LISTEN. Raises MustWait."""
        channel = reading.listens
        if self.limits.listen == LISTEN_ERROR and channel is not None:
            server.pending.insert(-1, RefusedListenStep())
            return wire.query(FAIL)
        if channel is None or reading.lexed is None or not self._is_shared(channel, server):
            return None
        # The name is the same, so that it is refused where LISTEN would refuse it (a reserved word).
        server.pending.insert(-1, ListenStep(channel))
        start = reading.lexed.starts[0]
        return wire.query(text[:start] + b"UN" + text[start:])

    def _is_shared(self, channel: str, server: ServerRelay) -> bool:
        """Does the shared connection listen to `channel` for this client? Raises MustWait while that is not known."""
        if self.limits.listen != LISTEN_SHARED or server.reported.get(ENCODING) != server.baseline.get(ENCODING):
            return False
        if self.subscriptions is None:
            self.subscriptions = Subscriptions()
        if channel in self.subscriptions.ready:
            return True
        if self._listens_alone:
            self._listens_alone = False
            return False
        self.wants_channel = channel
        raise MustWait

    def _parse(self, data: bytes, position: int, following: int, whole: bool, server: ServerRelay, rewrites: bool) -> bytes | None:
        if server.rereads and rewrites and whole:
            start = data.index(0, position + 5, following) + 1
            if not is_plain(data[start : data.index(0, start, following)]):
                self._await_settings(server)
        self.parses += 1
        if not rewrites:
            server.parses += 1
            server.pending.append(PARSE)
            text = data[data.index(0, position + 5, following) + 1 : following]
            server.leaves(server.judge.marks(text[: text.index(0)]) if whole else marks_of_part(text), text)
            return None
        name_end = data.index(0, position + 5, following)
        if name_end == position + 5:
            return self._parse_unnamed(data, position, following, whole, server)
        if not whole:
            raise RemoteProtocolError(
                "the text of a prepared statement is too long", hint="Raise limits.statement_bytes.", sqlstate="54000"
            )
        name = data[position + 5 : name_end]
        key = data[name_end + 1 : following]
        existing = self.statements.names.get(name)
        if existing is not None:
            # As on a direct connection: 42P05. The server says so of a statement that it has; that one, lest it takes another in its place.
            try:
                instead, own = self._ensure(existing, server, name, learns=False)
            except Stale:
                instead, own = b"", next(reversed(server.statements.known.values())).name  # what it is now
            server.pending.append(DuplicateStep(name, own))
            return instead + wire.message(wire.PARSE, own + b"\0" + key)
        statement = shared(key, server.certain_reading() if server.rereads else self.reading)
        if statement.judged_by is not server.judge:
            statement.judged(server.judge)
        if statement.marks & sql.ASKS_TEMPORARY:
            self.limits.asks_temporary = True
        if statement.marks & sql.VACATES:
            self.vacates = statement.read(server.judge).vacates
        under = b""
        if statement.marks & sql.NAMES:
            read, text = statement.read(server.judge), statement.text()
            under = self._under_own_names(read, text, self._reading_for_names(read, text, server), server)
        version = undescribed(statement)
        self.statements.add(name, version)
        return under + server.prepare_and_describe(version, self, name, visible=True)[0]

    def _parse_unnamed(self, data: bytes, position: int, following: int, whole: bool, server: ServerRelay) -> bytes | None:
        server.parses += 1
        self.unnamed_shape = None
        self.unnamed_reading = server.certain_reading() if server.rereads else self.reading
        under = b""
        if whole:
            self.unnamed = server.unnamed = data[position:following]
            text = data[position + 6 : data.index(0, position + 6, following)]
            self.unnamed_judge = server.judge
            self.unnamed_marks = server.judge.marks(text)
            if self.unnamed_marks & sql.ASKS_TEMPORARY:
                self.limits.asks_temporary = True
            if self.unnamed_marks & sql.VACATES:
                self.vacates = server.judge.read(text).vacates
            if self.unnamed_marks & sql.NAMES:
                read = server.judge.read(text)
                under = self._under_own_names(read, text, self._reading_for_names(read, text, server), server)
        else:
            self.unnamed_judge = None
            self.unnamed_marks = marks_of_part(data[position + 6 :])
            self._unread = data[-LONGEST_CLUE:]
            # Too long to be kept. On another server connection this takes its place, and the server's complaint tells the client.
            self.unnamed = server.unnamed = wire.message(wire.PARSE, b"\0" + TOO_LONG_TO_KEEP + b"\0\0\0")
        server.pending.append(PARSE)
        return under + data[position:following] if under else None

    def _bind(self, data: bytes, position: int, end: int, length: int, server: ServerRelay) -> bytes | None:
        portal_end = data.index(0, position + 5, end)
        name_end = data.index(0, portal_end + 1, end)
        if name_end == portal_end + 1:
            return self._bind_unnamed(data, position, portal_end, end, length, server)
        name = data[portal_end + 1 : name_end]
        version = self.statements.names.get(name)
        if version is None:
            server.segment_statement = None
            if not name.startswith(SERVER_PREFIX):
                return None  # the server says that it does not exist
            return bound_to(NEVER_PREPARED, data, position, portal_end, name_end, end, length)
        statement = version.statement
        judge = server.judge
        if statement.judged_by is not judge:
            statement.judged(judge)
        refused = self._refused(statement.marks, server) if statement.notable else None
        if refused is not None:
            server.segment_statement = None
            server.pending.append(refused)
            return bound_to(NEVER_PREPARED, data, position, portal_end, name_end, end, length)
        if statement.marks & sql.CANCELS:
            instead = self._bind_canceling(statement.read(judge), data, position, portal_end, name_end + 1, end, server)
            if instead:
                server.segment_statement = None
                return instead
        stand_in = None
        if statement.telling or self._portals or statement.marks & sql.NAMES:
            stand_in = self._bind_telling(statement.read(judge), data[position + 5 : portal_end], server)
        now = UNKNOWN_READING
        if statement.marks & sql.NAMES:
            now = self._reading_for_names(statement.read(judge), statement.text(), server)
        known = server.statements.known
        step = known.get(version)
        if stand_in is not None:
            prefix, own = self._stand_in(stand_in, server)
        elif step is not None and step.sure:
            known.move_to_end(version)
            prefix, own = b"", step.name
        else:
            first = self._names_first(statement.read(judge), statement.text(), now, server) if statement.marks & sql.NAMES else b""
            try:
                prefix, own = self._ensure(version, server, name, self._learns(data, position, portal_end, end, length))
            except Stale:
                self._stale(server)
                return first + bound_to(NEVER_PREPARED, data, position, portal_end, name_end, end, length)
            except MustAsk as question:
                raise MustAsk(first + question.asked, question.need) from None
            prefix = first + prefix
        if statement.notable and statement.marks & self.notable:
            self._note_bound(statement.text(), statement.marks, data[name_end + 1 : end], server)
            if statement.marks & sql.NAMES and stand_in is None:
                prefix += self._under_own_names(statement.read(server.judge), statement.text(), now, server)
                own = name if name in server.own_names else own
                if self._is_stale_by_name(statement.read(judge), statement.text(), server):
                    self._stale(server)
                    return prefix + bound_to(NEVER_PREPARED, data, position, portal_end, name_end, end, length)
        server.segment_statement = statement
        head = HEADER.pack(wire.BIND, length + len(own) - (name_end - portal_end - 1))
        return b"".join((prefix, head, data[position + 5 : portal_end + 1], own, data[name_end:end]))

    def _learns(self, data: bytes, position: int, portal_end: int, end: int, length: int) -> bool | None:
        """Does a Describe of its portal follow the Bind at `position`, so that the client is told its shape? None: not known yet."""
        following = position + 1 + length
        if end < following:
            return False
        portal = data[position + 5 : portal_end]
        if len(data) - following < len(portal) + 7:
            return None if data[following : following + 1] in {b"", b"D"} else False
        return describes_portal(data, following, portal)

    def _stale(self, server: ServerRelay, before: bytes = b"") -> None:
        """What is sent next is bound to fail, so that nothing runs: the client's statement has another shape now."""
        server.segment_statement = None
        server.pending.append(StaleStep(before))

    def _bind_unnamed(self, data: bytes, position: int, portal_end: int, end: int, length: int, server: ServerRelay) -> bytes | None:
        """Bind of the unnamed statement: it must be this client's own."""
        server.segment_statement = None
        unnamed = self.unnamed
        if server.rereads and unnamed is not None and not self._unnamed_is_there(server):
            self._await_reading([(self.unnamed_reading, text_of(unnamed))], server)
        if unnamed is not None and self.unnamed_marks & sql.NAMES:
            self._reading_for_names(server.judge.read(text_of(unnamed)), text_of(unnamed), server)
        now = self._reading_now(server)  # before it is noted that the statement may change that
        if unnamed is not None:
            marks = self._marks_of_unnamed(unnamed, server)
            if marks or self._portals:
                text = text_of(unnamed)
                judge = server.judge
                refused = self._refused(marks, server)
                if refused is not None:
                    server.pending.append(refused)
                    return bound_to(NEVER_PREPARED, data, position, portal_end, portal_end + 1, end, length)
                if marks & sql.CANCELS:
                    instead = self._bind_canceling(judge.read(text), data, position, portal_end, portal_end + 2, end, server)
                    if instead:
                        return instead
                if marks & self.notable:
                    self._note_bound(text, marks, data[portal_end + 2 : end], server)
                if self._portals or marks & (sql.TELLING | sql.LISTENS | sql.NAMES):
                    stand_in = self._bind_telling(judge.read(text), data[position + 5 : portal_end], server)
                    if stand_in is not None:
                        prefix, own = self._stand_in(stand_in, server)
                        return prefix + bound_to(own, data, position, portal_end, portal_end + 1, end, length)
        if server.unnamed is unnamed and len(server.pending) <= 1 and not self.unnamed_marks & sql.NAMES:
            return None
        first = self._names_of_unnamed_first(now, server)
        try:
            again = first + self._unnamed_again(server, self._learns(data, position, portal_end, end, length), now)
        except Stale:
            self._stale(server)
            return first + bound_to(NEVER_PREPARED, data, position, portal_end, portal_end + 1, end, length)
        except MustAsk as question:
            raise MustAsk(first + question.asked, question.need) from None
        if unnamed is not None and self.unnamed_marks & sql.NAMES:
            text = text_of(unnamed)
            again += self._under_own_names(server.judge.read(text), text, now, server)
            if self._is_stale_by_name(server.judge.read(text), text, server):
                self._stale(server)
                return again + bound_to(NEVER_PREPARED, data, position, portal_end, portal_end + 1, end, length)
        return again + data[position:end] if again else None

    def _marks_of_unnamed(self, unnamed: bytes, server: ServerRelay) -> int:
        """What the unnamed statement does by what is known now: what it calls may have been replaced."""
        if self.unnamed_judge not in {None, server.judge}:
            self.unnamed_judge = server.judge
            self.unnamed_marks = server.judge.marks(text_of(unnamed))
        return self.unnamed_marks

    def _bind_telling(self, reading: Reading, portal: bytes, server: ServerRelay) -> Version | None:
        """Bind of a statement whose text matters when it has run. Returns what is bound instead, or None. Raises MustWait."""
        if reading.listens is not None:
            if self.limits.listen == LISTEN_ERROR:
                self._portals[portal] = RefusedListenStep()
                return FAIL_INSTEAD
            if self._is_shared(reading.listens, server):
                self._portals[portal] = ListenStep(reading.listens)
                return DO_NOTHING_INSTEAD
        self._portals[portal] = reading
        return DO_NOTHING_INSTEAD if reading.deallocates in self.statements.names else None

    def _note_bound(self, text: bytes, marks: int, values: bytes, server: ServerRelay) -> None:
        """A statement of which something must be noted is about to run. `values`: its parameters, as Bind has them."""
        self._suspect(marks, text, server)
        if marks & sql.SETTINGS:
            server.doubts |= server.doubt_names(sql.names_among(bound_values(values)))
        elif marks & sql.TOUCHES:
            server.touch(sql.names_among(bound_values(values)))

    def _unnamed_is_there(self, server: ServerRelay) -> bool:
        return server.unnamed is self.unnamed and not (len(server.pending) > 1 and server.parse_is_unsure())

    def _unnamed_again(self, server: ServerRelay, learns: bool | None, now: ReadBy) -> bytes:
        """What must be sent first so that the session has the client's unnamed statement, or none if it has none.

        `learns`: the client is about to be told its shape (None: that is not known yet). `now`: how the session reads texts. Raises Stale,
        MustAsk.
        """
        unnamed = self.unnamed
        if self._unnamed_is_there(server):
            return b""
        if unnamed is not None and self.unnamed_shape is not None and not server.skipping:
            return self._unnamed_as_told(unnamed, self.unnamed_shape[0], server, learns, now)
        server.unnamed = unnamed
        if unnamed is None:
            # Another client's is there; on a direct connection there would be none.
            server.pending.append(HIDDEN_CLOSE)
            return CLOSE_UNNAMED
        return server.parse_hidden(unnamed, HIDDEN_PARSE, self._unnamed_changes(text_of(unnamed), server, now))

    def _unnamed_as_told(self, unnamed: bytes, types: bytes, server: ServerRelay, learns: bool | None, now: ReadBy) -> bytes:
        """The same, where the client was told the shape of its unnamed statement."""
        if server.unequal is unnamed:
            if learns is None:
                raise MustAsk(b"", 1)
            server.unequal = None
            if not learns:
                raise Stale
        text = text_of(unnamed)
        self.unnamed = server.unnamed = wire.message(wire.PARSE, b"\0" + text + b"\0" + types)
        server.parses += 1
        again = server.parse_hidden(self.unnamed, HIDDEN_PARSE, self._unnamed_changes(text, server, now))
        step = DescribedStep(self, unnamed=self.unnamed, hidden=True, learns=bool(learns))
        if learns:
            server.pending.append(step)
            return again + describe(b"")
        raise self._ask(step, again + describe(b""), server)

    def _reading_for_names(self, reading: Reading, text: bytes, server: ServerRelay) -> ReadBy:
        """The settings by which is read what `text` means by its client's own names, before it is noted what it may change itself.

        Raises MustAsk, as `_await_reading` does.
        """
        if server.rereads:
            versions = [settled(self.statements.names[name]) for name in self._names_meant(reading, text) if name not in server.own_names]
            self._await_reading([(version.statement.reading, version.statement.text()) for version in versions], server)
        return self._reading_now(server)

    def _await_reading(self, prepared: list[tuple[ReadBy, bytes]], server: ServerRelay) -> None:
        """Texts, with what each was read by, are to be prepared again: by the settings that the session has then. Raises MustAsk."""
        certain = [text for reading, text in prepared if reading not in {ANY_READING, UNKNOWN_READING}]
        if any(server.judge.read(text).is_read_by_settings() for text in certain):
            self._await_settings(server)

    def _await_settings(self, server: ServerRelay) -> None:
        """Wait for answers that are under way, and tell by which settings the session reads texts. Raises MustAsk."""
        if not server.rereads or not server.reading_is_coming():
            self._waits = 0
        elif self._waits < MAX_WAITS and server.may_sync():
            self._waits += 1
            server.unsynced = SYNCED
            server.pending.append(HIDDEN_SYNC)
            server.awaited = HIDDEN_SYNC
            self.awaits = True
            raise MustAsk(wire.SYNC_MESSAGE)

    def _ask(self, step: DescribedStep, asked: bytes, server: ServerRelay) -> MustAsk:
        """A question whose answer, `step`, the client's message must wait for."""
        if step not in server.pending:
            server.pending.append(step)
        server.awaited = step
        server.unsynced = server.unsynced or PREPARING
        self.awaits = True
        return MustAsk(asked + wire.FLUSH_MESSAGE)

    def _executed(self, data: bytes, position: int, server: ServerRelay) -> bytes:
        """Execute of a portal whose statement may be a telling one. Returns what is sent first."""
        bound = self._portals.get(data[position + 5 : data.index(0, position + 5)])
        if isinstance(bound, ListenStep | RefusedListenStep):
            server.pending.append(bound)
            return b""
        if bound is None:
            return b""
        first = self._for_portal(bound, server)
        if not bound.marks & sql.TELLING:
            pass
        elif bound.deallocates is not None and bound.deallocates in self.statements.names:
            server.pending.append(DeallocatedStep(self, bound.deallocates))
        else:
            server.pending.append(TellingStep(bound))
        return first

    def _for_portal(self, bound: Reading, server: ServerRelay) -> bytes:
        """What a portal means by the client's own names, if it was bound in another segment."""
        if not bound.marks & sql.NAMES or bound.lexed is None:
            return b""
        return self._under_own_names(bound, bound.lexed.source, self._reading_now(server), server)

    def _named(self, data: bytes, position: int, following: int, kind: int, server: ServerRelay, rewrites: bool) -> bytes | None:
        """Describe or Close of a statement or portal."""
        what = data[position + 5]
        name = data[position + 6 : following - 1]
        if kind == wire.CLOSE and (what != STATEMENT_KIND or not name or not rewrites):
            if what == STATEMENT_KIND and not name:
                self.unnamed = server.unnamed = None
            elif what == PORTAL_KIND:
                self._portals.pop(name, None)
            server.pending.append(CLOSING)
            return None
        if what == PORTAL_KIND and self._portals and rewrites:
            bound = self._portals.get(name)
            first = self._for_portal(bound, server) if isinstance(bound, Reading) else b""
            return first + data[position:following] if first else None
        if what != STATEMENT_KIND or not rewrites:
            return None
        version = self.statements.names.get(name)
        if kind == wire.CLOSE:
            if version is None:
                server.pending.append(CLOSING)
            else:
                self.statements.remove(name)
                server.pending.append(ClosedStep(self, name, version))
            return STAND_IN_CLOSE
        try:
            return self._described(data[position:following], name, version, server)
        except Stale as stale:
            types = version.types if version is not None else self.unnamed_shape[0] if self.unnamed_shape is not None else b"\0\0"
            self._stale(server, wire.message(wire.PARAMETER_DESCRIPTION, types))
            return stale.first + describe(NEVER_PREPARED)

    def _described(self, message: bytes, name: bytes, version: Version | None, server: ServerRelay) -> bytes | None:
        """Describe of a statement. Raises Stale, MustAsk."""
        if not name:
            if self.unnamed is not None and not self._unnamed_is_there(server):
                self._await_reading([(self.unnamed_reading, text_of(self.unnamed))], server)
            now = self._reading_now(server)
            first = self._names_of_unnamed_first(now, server)
            try:
                again = first + self._unnamed_again(server, False, now)
            except MustAsk as question:
                raise MustAsk(first + question.asked, question.need) from None
            except Stale as stale:
                stale.first = first
                raise
            if self.unnamed is not None and self.unnamed_marks & sql.NAMES:
                text = text_of(self.unnamed)
                if self._is_stale_by_name(server.judge.read(text), text, server):
                    raise Stale(again)
            server.pending.append(DescribedStep(self, unnamed=self.unnamed))
            return again + message if again else None
        if version is None:
            server.pending.append(DescribedStep(self))
            return describe(NEVER_PREPARED) if name.startswith(SERVER_PREFIX) else None
        first, now = b"", UNKNOWN_READING
        if version.statement.marks & sql.NAMES:
            read, text = version.statement.read(server.judge), version.statement.text()
            now = self._reading_for_names(read, text, server)
            first = self._names_first(read, text, now, server)
        try:
            prefix, own = self._ensure(version, server, name, learns=False)
        except MustAsk as question:
            raise MustAsk(first + question.asked, question.need) from None
        except Stale as stale:
            stale.first = first
            raise
        prefix = first + prefix
        if version.statement.marks & sql.NAMES:
            prefix += self._under_own_names(version.statement.read(server.judge), version.statement.text(), now, server)
            own = name if name in server.own_names else own
            if self._is_stale_by_name(version.statement.read(server.judge), version.statement.text(), server):
                raise Stale(prefix)
        version = self.statements.names[name]
        server.pending.append(DescribedStep(self, server.statements.known.get(version) if version.columns is None else None))
        return prefix + describe(own)

    def _stand_in(self, version: Version, server: ServerRelay) -> tuple[bytes, bytes]:
        """As `_ensure`, for a statement of ours that runs in place of a client's."""
        step = server.step_of(version, self.statements, b"")
        if step is not None:
            return b"", step.name
        prefix, step = server.prepare(version, self.statements, b"")
        server.statements.add(step)
        return prefix, step.name

    def _ensure(self, version: Version, server: ServerRelay, name: bytes, learns: bool | None) -> tuple[bytes, bytes]:
        """What must be sent first so that `version`, which the client calls `name`, is prepared (b"" if it is), and its name there.

        It is another one for the same text if that would be read in another way now than when the client prepared it. `learns`: the client
        is about to be told its shape (None: that is not known yet). Raises Stale, MustAsk.
        """
        step = server.step_of(version, self.statements, name)
        if step is not None:
            return b"", step.name
        if server.skipping:
            return b"", NEVER_PREPARED
        if server.unequal is version:
            if learns is None:
                raise MustAsk(b"", 1)
            server.unequal = None
            if not learns:
                raise Stale
        self._await_reading([(version.statement.reading, version.statement.text())], server)
        version = self.statements.names[name] = self._current(version, server)
        step = server.step_of(version, self.statements, name)
        if step is not None:
            return b"", step.name
        changes = self._changes_for(version, self._reading_now(server), server)
        if version.columns is None or learns:
            again = self.statements.names[name] = version.again()
            prefix, step, _ = server.prepare_and_describe(again, self, name, changes=changes)
            step.told = version
            return prefix, step.name
        prefix, step, asked = server.prepare_and_describe(version, self, name, changes=changes)
        raise self._ask(asked, prefix, server)

    def _current(self, version: Version, server: ServerRelay) -> Version:
        """What the client means by the name for `version` now."""
        version = settled(version)
        statement, now = version.statement, self._reading_now(server)
        kept = kept_reading(statement.reading, now)
        if statement.reading != ANY_READING and (kept != statement.reading or kept == UNKNOWN_READING):
            statement = shared(statement.key, kept)
            columns = version.columns
            version = Version(statement, version.types, None) if columns is None else described(statement, version.types, columns)
        return version

    def _reading_now(self, server: ServerRelay) -> ReadBy:
        """The settings by which the server reads what is sent next; UNKNOWN_READING: nobody can tell."""
        return server.reading_now() if server.rereads else self.reading

    def _changes_for(self, version: Version, now: ReadBy, server: ServerRelay) -> list[Change]:
        """What must be set otherwise while `version` is prepared: the client had other settings when it did that."""
        statement = version.statement
        changes = changes_for(statement.reading, now)
        return changes if changes and statement.read(server.judge).is_read_by_settings() else []

    def _unnamed_changes(self, text: bytes, server: ServerRelay, now: ReadBy) -> list[Change]:
        """The same for the unnamed statement. What it means by another search path, the server finds out itself."""
        changes = changes_for(self.unnamed_reading, now)
        self.unnamed_reading = kept_reading(self.unnamed_reading, now)
        if not changes or server.judge.read(text).is_read_by_settings():
            return changes
        return [change for change in changes if change[0] == SEARCH_PATH]


def settled(version: Version) -> Version:
    """What `version` has turned out to be, if it was described meanwhile."""
    while version.settled is not None:
        version = version.settled
    return version


def bound_to(name: bytes, data: bytes, position: int, portal_end: int, name_end: int, end: int, length: int) -> bytes:
    """The Bind at `position` of `data`, to the statement `name` instead of the one that it names."""
    head = HEADER.pack(wire.BIND, length + len(name) - (name_end - portal_end - 1))
    return b"".join((head, data[position + 5 : portal_end + 1], name, data[name_end:end]))


def describes_portal(data: bytes, position: int, portal: bytes) -> bool:
    """Is there a Describe of `portal` at `position`?"""
    return data.startswith(wire.message(wire.DESCRIBE, b"P" + portal + b"\0"), position)


def end_of_values(data: bytes) -> int:
    """Where the parameters of a whole Bind end, from behind the names on."""
    position = 2 + 2 * int(wire.INT16.unpack_from(data)[0])
    count = wire.INT16.unpack_from(data, position)[0]
    position += 2
    for _ in range(count):
        length = wire.INT32.unpack_from(data, position)[0]
        position += 4 + (length if length != NULL_LENGTH else 0)
    return position


def bound_values(data: bytes) -> list[bytes]:
    """The short parameters of a Bind, from behind the names on."""
    try:
        position = 2 + 2 * wire.INT16.unpack_from(data)[0]
        count = wire.INT16.unpack_from(data, position)[0]
        position += 2
        values = []
        for _ in range(count):
            length = wire.INT32.unpack_from(data, position)[0]
            position += 4
            if 0 < length < MAX_NAME:
                values.append(data[position : position + length])
            position += length if length != NULL_LENGTH else 0
    except struct.error:
        return []  # cut short: it is longer than what we keep, or the server will refuse it
    return values
