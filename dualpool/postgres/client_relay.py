"""The hot path of PostgreSQL, the client's side: what its messages ask of a server connection. See requests.py."""

from typing import TYPE_CHECKING, Final

from dualpool import protocol
from dualpool.buffer import HeldBytes
from dualpool.errors import RemoteProtocolError
from dualpool.postgres import beginning, messages, sql, wire
from dualpool.postgres.catalog import DOUBT
from dualpool.postgres.client_sending import SMALL_MESSAGE, ClientSender, MustAsk, MustCancel, MustWait, describes_portal
from dualpool.postgres.codec import check_length
from dualpool.postgres.reading import LONGEST_CLUE, is_plain, marks_of_part
from dualpool.postgres.requests import BARRIER, CALL, COPY_SYNC, HIDDEN_SYNC, PARSE, PREPARING, RUNNING, SYNC, SYNCED
from dualpool.postgres.server_relay import UNKNOWN, ServerRelay
from dualpool.postgres.server_session import LASTING
from dualpool.postgres.session_sql import FORGET_SEQUENCES
from dualpool.postgres.statements import ANY_READING, STAND_IN_CLOSE
from dualpool.postgres.states import (
    C_BIND,
    C_CALL,
    C_COPY_DATA,
    C_COPY_END,
    C_EXECUTE,
    C_FLUSH,
    C_ILLEGAL,
    C_NAMED,
    C_PARSE,
    C_QUERY,
    C_SYNC,
    C_TERMINATE,
    CLIENT_ACTION,
    RELEASING,
)
from dualpool.postgres.wire import HEADER
from dualpool.protocol import (
    CANCEL,
    CLOSE,
    FORWARD,
    LISTENS,
    NEEDS_SERVER,
    RELEASE,
    SEQUENCE_PIN,
    SESSION,
    TRANSACTION,
    VACATE,
    RelayLimits,
)
from dualpool.state import DEFAULTS, Settings

if TYPE_CHECKING:
    from dualpool.errors import DualpoolError

_unpack = HEADER.unpack_from

SHORT_ACTIONS: Final = frozenset((C_NAMED, C_EXECUTE, C_SYNC, C_FLUSH))
READY_IDLE: Final = wire.ready(wire.IDLE)
UNTIL_ATTACHED: Final = 1 << 62
"""`HeldBytes.need` of a client that waits for a server connection, or for an answer to LISTENS: whatever it sends is put behind."""
ADVISORY_FUNCTIONS: Final = range(2880, 2893)
"""The OIDs of the session's advisory lock functions (pg_proc.dat); a FunctionCall names a function so."""
CALLED_FUNCTIONS: Final = {2078: sql.SETTINGS | sql.COMPUTED | sql.REREADS} | dict.fromkeys(ADVISORY_FUNCTIONS, sql.LOCK | sql.RELEASED)
"""What these leave."""
HARMLESS_CALLS: Final = frozenset(
    (715, 764, 767, 765, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172, 3457, 3458, 3459, 3460)
)
"""The functions of large objects, for which libpq sends FunctionCall. What others do is in doubt: their names are not told."""


TEMP_BUFFERS: Final = "temp_buffers"


class ClientRelay(ClientSender):
    """See the module. Without a lease, bytes wait in `_held`."""

    __slots__ = ("_again", "_again_hidden", "_begun", "_careful", "_discarding", "_held", "_skip")

    def __init__(self, limits: RelayLimits, wanted: Settings = DEFAULTS) -> None:
        super().__init__(limits, wanted)
        self._careful = limits.mode == SESSION or limits.strict
        """Something must be done at the start of each lease."""
        self._held = HeldBytes()
        self._skip = 0
        self._discarding = False
        self._begun = b""
        """A BEGIN, which is all that was sent in this lease. What follows tells if the client may have this server connection."""
        self._again = b""
        """The same, for the next server connection; `_again_hidden`: the client has the answer."""
        self._again_hidden = False

    def _is_answered(self) -> bool:
        """Is there an answer to what its message waits for?"""
        return self.server is None or self.server.awaited is None

    def held_bytes(self) -> int:
        return self._held.size

    def held(self) -> bytes:
        chunks = self._held.chunks
        return chunks[0] if chunks else b""

    def suits(self, server: protocol.ServerRelay) -> bool:
        return server.settings is self.settings  # type: ignore[attr-defined]

    def may_have(self, server: protocol.ServerRelay) -> bool:
        assert isinstance(server, ServerRelay)
        first = b"".join(self._held.chunks)
        if server.has_temporary and server.temporary_of is not self and self._tells_temporary(first, server):
            return False
        if server.settings is self.settings:
            return True
        foreign = server.foreign_placeholders(self.settings)
        return self._sees_no_difference(first, foreign) or (self.limits.mode == TRANSACTION and beginning.only_begins(first))

    def _tells_temporary(self, first: bytes, server: ServerRelay) -> bool:
        """Does it matter to this client, whose `first` request waits, that the session has had temporary tables of another?"""
        facts = server.catalog.facts
        return (
            self.limits.asks_temporary
            or facts is None
            or facts.tells_temporary
            or self.settings.values.get(TEMP_BUFFERS) != server.settings.values.get(TEMP_BUFFERS)
            or bool(beginning.first_reading(first).marks & sql.ASKS_TEMPORARY)
        )

    def _asks_for_temporary(self, request: bytes, server: ServerRelay) -> bool:
        """Does `request` ask for what another client has left here? As long as the lease may end before it, that need not be refused."""
        return (
            server.has_temporary and server.temporary_of is not self and bool(beginning.first_reading(request).marks & sql.ASKS_TEMPORARY)
        )

    def _sees_no_difference(self, request: bytes, foreign: list[str]) -> bool:
        """Are the `foreign` placeholders, the names of others, no difference to a client that begins with `request`?"""
        return not foreign or (len(foreign) == 1 and beginning.gives_value_to(request, foreign[0]))

    def on_client_bytes(self, data: bytes) -> int:
        if self.awaits and self._is_answered():
            self.awaits = False
            self._held.need = 0
        if self._held.size:
            data = self._held.take(data)
            if not data:
                return FORWARD
        server = self.server
        if self._skip and data:
            taken = min(self._skip, len(data))
            self._skip -= taken
            part, data = data[:taken], data[taken:]
            if server is not None:
                server.unfinished = self._skip > 0
                if self._unread:
                    self._read_on(part, server)
                verdict = self._process(data, server) if data else FORWARD
                self.to_server = part + self.to_server
                if RELEASING[server.mode][wire.IDLE]:
                    # That may have been the end of late copy data, which nothing answers.
                    if server.is_quiet():
                        verdict |= RELEASE
                    elif server.doubts:
                        server.look()
                        self.to_server += server.to_server
                        server.to_server = b""
                return verdict
        if not data:
            return FORWARD
        if server is not None:
            if server.attentive and server.is_asked() and (self._careful or self._asks_for_temporary(data, server)):
                # So that it goes to another server connection: in strict mode, or because it would be refused here.
                self._held.keep(data, 0)
                return FORWARD
            return self._behind_begin(data, server) if self._begun else self._process(data, server)
        return self._unattached(data)

    def _behind_begin(self, data: bytes, server: ServerRelay) -> int:
        """What follows a BEGIN tells if the client may have this server connection. Else its transaction begins again on another one."""
        begun, self._begun = self._begun, b""
        foreign = server.foreign_placeholders(self.settings)
        if self._sees_no_difference(data, foreign) or beginning.only_ends(data):
            return self._process(data, server)
        self._again, self._again_hidden = begun, server.answered()
        self._held.keep(data, UNTIL_ATTACHED)
        return RELEASE | NEEDS_SERVER

    def _read_on(self, part: bytes, server: ServerRelay) -> None:
        """One more part of a text that is too long to be read has been sent. A clue may begin in the part before it."""
        marks = marks_of_part(self._unread + part)
        if server.pending and server.pending[-1] == PARSE:
            self.unnamed_marks |= marks
        elif server.mode != SESSION:
            server.suspect_of(marks, b"")
        self._unread = part[-LONGEST_CLUE:] if self._skip else b""

    # --------------------------------------------------------------------------------------------------------------- the lease

    def catch_up(self, server: ServerRelay) -> int:
        """The lease goes on: what waited for the end of the question is for the same server connection. Returns verdict bits."""
        held = self._held
        if not held.size or held.need:
            return FORWARD
        data = b"".join(held.chunks)
        held.clear()
        verdict = self._process(data, server)
        server.to_server += self.to_server
        self.to_server = b""
        return verdict

    def attach(self, server: protocol.ServerRelay) -> int:
        assert isinstance(server, ServerRelay)
        self.server = server
        server.client = self
        server.mode = self.limits.mode
        judge = self.judge
        if judge is None or judge.outdated or self._judged_for is not self.settings or self._judged_by is not server.lexis:
            judge = self._find_judge(server)
        judge.leases += 1
        server.reader = judge
        server.judge = judge if judge.leases != self.limits.verify_every else server.sampled(judge)
        prefix = b""
        if server.picky and server.foreign_placeholders(self.settings):
            first = b"".join(self._held.chunks)
            self._begun = first if beginning.only_begins(first) else b""
        if self.settings is not server.settings:
            prefix = server.restore_to(self.settings)
        if server.used_by is not self or self.uses is not server:
            prefix = self._take_sequences(server) + prefix
        if self._careful:
            if self.limits.mode == SESSION:
                server.dirty = True
                if server.statements.known or server.statements.outdated:
                    # It would see those of others, and may use names like theirs.
                    prefix += self._close_all(server) + wire.SYNC_MESSAGE
                    server.pending.append(HIDDEN_SYNC)
            else:
                server.strict = True
                server.doubts = sql.ALWAYS
        held = self._held
        data = b"".join(held.chunks)
        held.clear()
        if self._again:
            again, self._again = self._again, b""
            if self._again_hidden:
                server.expect_hidden_ready()
                prefix += again
            else:
                data = again + data
        verdict = self._process(data, server) if data else FORWARD
        if prefix:
            self.to_server = prefix + self.to_server
        return verdict

    def _take_sequences(self, server: ServerRelay) -> bytes:
        """Not the client's last server connection, or another client has had it since. Returns what is sent first.

        As soon as clients ask for the last values of sequences, the session forgets those of others.
        """
        is_new = server.used_by is None
        server.used_by = self
        self.was_elsewhere = self.was_elsewhere or self.uses is not None
        self.uses = server
        limits = self.limits
        forgets = not is_new and (limits.asks_sequences or limits.sequence_values == SEQUENCE_PIN or limits.mode == SESSION)
        server.owns_sequences = is_new or forgets
        if not forgets:
            return b""
        server.expect_hidden_ready()
        return FORGET_SEQUENCES

    def detach(self) -> None:
        server = self.server
        if server is None:
            return
        if server.session_changed:
            self._absorb(server)
        if not server.is_quiet():
            # What is still to come (a rollback above all) may change settings behind our back. And what it is pinned by must go.
            server.dirty = True
            maybe = server.pins | server.doubts | server.asked()
            if maybe & (sql.LIBRARY | sql.COMPUTED):
                server.spent = LASTING
            if maybe & sql.TEMPORARY:
                server.note_temporary()
        self.awaits = False
        server.forget_question()
        server.client = None
        server.segment = b""
        server.segment_statement = None
        server.rereads = False
        server.lease_over()
        self.server = None
        self._begun = b""
        if self._portals:
            self._portals.clear()

    def cancel_done(self, found: bool) -> None:
        self._canceled = found
        self._held.need = 0

    def listen_answered(self, shared: bool) -> None:
        self.wants_channel = ""
        self._listens_alone = not shared
        self._held.need = 0

    def error_message(self, error: "DualpoolError") -> bytes:
        return messages.error_message(error)

    def refuse(self, error: "DualpoolError") -> int:
        """Answer the first request that waits, as a server would: an error, and ReadyForQuery at its Query or Sync."""
        self.to_client += messages.error_message(error)
        if error.severity != "ERROR":
            return CLOSE
        held = self._held
        data = b"".join(held.chunks)
        held.clear()
        position = 0
        while len(data) - position >= 5:
            kind, length = _unpack(data, position)
            following = position + 1 + length
            whole_request = not self._discarding and kind in {wire.QUERY, wire.FUNCTION_CALL}
            if following > len(data):
                self._skip = following - len(data)
                position = len(data)
                self._discarding = not whole_request
                break
            position = following
            if whole_request or kind == wire.SYNC:
                self._discarding = False
                self.to_client += READY_IDLE
                if position < len(data):
                    held.keep(data[position:], 0)
                return FORWARD
            self._discarding = True
        if not self._discarding:
            self.to_client += READY_IDLE
        if position < len(data):
            held.keep(data[position:], 5)
        return FORWARD

    # --------------------------------------------------------------------------------------------------------- without a lease

    def _unattached(self, data: bytes) -> int:
        """Answer what needs no server; keep the rest, and say whether a server is needed for it."""
        position = 0
        end = len(data)
        while end - position >= 5:
            kind, length = _unpack(data, position)
            check_length(length)
            action = CLIENT_ACTION[kind]
            following = position + length + 1
            if action == C_TERMINATE:
                return CLOSE
            if action == C_ILLEGAL:
                raise illegal_message(kind)
            if following > end:
                if action in {C_COPY_DATA, C_COPY_END} or self._discarding:
                    self._skip = following - end
                    return FORWARD
                enough = self._enough(kind, action, length)
                if end - position >= enough:
                    break
                self._held.keep(data[position:], enough)
                return FORWARD
            if action == C_SYNC:
                # With nothing before it, the answer is known; and after a refusal this is where the client is told to go on.
                self._discarding = False
                self.to_client += READY_IDLE
            elif not (action == C_FLUSH or self._discarding or action in {C_COPY_DATA, C_COPY_END}):
                # Copy messages here are late: the copy failed, and the server drops what was still under way (docs: COPY Operations).
                break
            position = following
        if position == end:
            return FORWARD
        if end - position < 5:
            self._held.keep(data[position:], 5)
            return FORWARD
        self._held.keep(data[position:] if position else data, UNTIL_ATTACHED)
        return NEEDS_SERVER

    def _enough(self, kind: int, action: int, length: int) -> int:
        """How many bytes of an unfinished message must be there to handle it: all of a short one, the head of a long one."""
        if action == C_COPY_DATA:
            return 5
        if action == C_ILLEGAL:
            raise illegal_message(kind)
        if length > SMALL_MESSAGE and action in SHORT_ACTIONS:
            raise RemoteProtocolError(f"a message of kind {chr(kind)!r} and {length} bytes")
        cap = self.limits.statement_bytes if action == C_PARSE else self.limits.frame_bytes
        return length + 1 if length <= max(cap, SMALL_MESSAGE) else SMALL_MESSAGE

    # ------------------------------------------------------------------------------------------------------------ with a lease

    def _process(self, data: bytes, server: ServerRelay) -> int:
        """Walk the messages; what the server gets is `data` itself unless something in it must be rewritten."""
        end = len(data)
        position = 0
        start = 0
        out: list[bytes] | None = None
        verdict = FORWARD
        rewrites = self.limits.mode != SESSION
        pending = server.pending
        waits_for = 0
        binds = 0
        begun = server.unsynced  # a segment that began earlier cannot be sent again as a whole
        try:
            while end - position >= 5:
                kind, length = _unpack(data, position)
                following = position + length + 1
                action = CLIENT_ACTION[kind]
                whole = True
                if following > end or length < 4:
                    check_length(length)
                    if end - position < self._enough(kind, action, length):
                        break
                    whole = False
                elif length > SMALL_MESSAGE:
                    self._enough(kind, action, length)
                instead: bytes | None = None
                if action == C_QUERY:
                    ending = self._end_segment(server) if server.unsynced else b""
                    self.unnamed = None
                    server.unnamed = None
                    frame = data if start == 0 and position == 0 and following == end else data[position:following]
                    pending.append(frame)
                    server.segment_statement = None
                    marks = server.judge.queries.get(frame)
                    if marks is None:
                        if length < 5:
                            raise RemoteProtocolError("a Query without a text")
                        if whole and length <= max(self.limits.frame_bytes, SMALL_MESSAGE):
                            marks = server.judge.query_marks(frame)
                        else:
                            marks = marks_of_part(frame[5:])
                            self._unread = frame[-LONGEST_CLUE:]
                    if marks & self.notable:
                        if server.rereads and len(pending) > 1 and not is_plain(frame[5:]):
                            pending.pop()
                            self._await_settings(server)
                            pending.append(frame)
                            server.unread.add(frame)
                        first = not server.owns_sequences and marks & sql.USES_SEQUENCE and not (server.unsynced or ending)
                        instead = self._note_query(frame, marks, server, whole)
                        if first and instead is None:
                            instead = server.forget_sequences() + frame
                        if self.vacates:
                            verdict |= VACATE
                    if ending:
                        instead = ending + (frame if instead is None else instead)
                elif action == C_BIND:
                    if rewrites:
                        instead = self._bind(data, position, following if whole else end, length, server)
                    server.unsynced = RUNNING
                    binds += 1
                elif action == C_EXECUTE:
                    server.unsynced = RUNNING
                    if self._portals:
                        before = self._executed(data, position, server)
                        instead = before + data[position:following] if before else None
                elif action == C_SYNC:
                    server.unsynced = SYNCED
                    server.skipping = False
                    if server.copy_ended:
                        server.copy_ended = False
                        pending.append(COPY_SYNC)
                    else:
                        pending.append(SYNC)
                    if server.own_names:
                        instead = self.end_own_names(server)
                elif action == C_PARSE:
                    server.unsynced = server.unsynced or PREPARING
                    instead = self._parse(data, position, following, whole, server, rewrites)
                    if self.vacates:
                        verdict |= VACATE
                elif action == C_NAMED:
                    server.unsynced = server.unsynced or PREPARING
                    instead = self._named(data, position, following, kind, server, rewrites)
                elif action == C_FLUSH:
                    pass
                elif action == C_COPY_DATA:
                    pass  # Outside a copy the server drops it: the copy has failed, or it begins when this arrives (docs: COPY Operations).
                elif action == C_COPY_END:
                    self._copy_ended(server)
                elif action == C_CALL:
                    if server.unsynced:
                        instead = self._end_segment(server) + data[position:following]
                    pending.append(CALL)
                    if rewrites:
                        function = wire.INT32.unpack_from(data, position + 5)[0] if end - position >= 9 else 0
                        if function not in HARMLESS_CALLS:
                            server.suspect_of(CALLED_FUNCTIONS.get(function, DOUBT), b"FunctionCall")
                elif action == C_TERMINATE:
                    verdict = CLOSE
                    end = position
                    break
                else:
                    raise illegal_message(kind)
                if instead is not None:
                    out = [] if out is None else out
                    if start < position:
                        out.append(data[start:position])
                    if instead:
                        out.append(instead)
                    start = following if whole else end
                if not whole:
                    self._skip = following - end
                    server.unfinished = True
                    position = end
                    break
                position = following
        except (MustWait, MustCancel) as wait:
            verdict |= CANCEL if isinstance(wait, MustCancel) else LISTENS
            if action == C_QUERY:
                pending.pop()
                server.unnamed = UNKNOWN
                if ending:
                    out = [*(out or ()), data[start:position], ending]
                    start = position
        except MustAsk as question:
            out = [] if out is None else out
            out += (data[start:position], ending if action == C_QUERY else b"", question.asked)
            start = position
            waits_for = question.need or UNTIL_ATTACHED
        except (RemoteProtocolError, IndexError, ValueError) as error:
            # What stood before it in `data` is expected to be answered, and will not be sent.
            server.suspect = bool(pending)
            if isinstance(error, RemoteProtocolError):
                raise
            raise RemoteProtocolError(f"malformed message of kind {chr(kind)!r}") from error
        if position < end:
            tail = data[position:end]
            if waits_for:
                self._held.keep(tail, waits_for)
            elif verdict & (LISTENS | CANCEL):
                self._held.keep(tail, UNTIL_ATTACHED)
                if not position and RELEASING[server.mode][wire.IDLE] and server.is_quiet():
                    verdict |= RELEASE
            else:
                self._held.keep(tail, self._enough(kind, action, length) if len(tail) >= 5 else 5)
        if out is None:
            self.to_server = data if position == len(data) else data[:position]
        else:
            if start < position:
                out.append(data[start:position])
            self.to_server = b"".join(out)
        if binds:
            self.binds += binds
            if binds == 1 and len(pending) == 1 and not (begun or server.unsynced or server.segment_statement is None or self._portals):
                server.segment = data  # see ServerRelay._heals
        return verdict

    def _end_segment(self, server: ServerRelay) -> bytes:
        """A simple Query follows extended-query messages without Sync. What we send before it, to know how many answers are to come.

        After a Parse or Describe (so asyncpg begins a COPY): the Sync, whose answer is hidden; then an error of the Parse does not swallow
        the Query. After more than that, a Sync of ours would commit what the Query, failing, would have rolled back: see BARRIER.
        """
        if server.unsynced == RUNNING:
            server.pending.append(BARRIER)
            return STAND_IN_CLOSE
        server.unsynced = SYNCED
        server.pending.append(HIDDEN_SYNC)
        return wire.SYNC_MESSAGE

    def learns_again(self, segment: bytes) -> bool:
        """`segment` is a Bind of a named statement, a Describe of its portal, and so on to the only Sync."""
        kind, length = _unpack(segment)
        if kind != wire.BIND or not segment.endswith(wire.SYNC_MESSAGE):
            return False
        portal, name = segment[5 : 1 + length].split(b"\0", 2)[:2]
        version = self.statements.names.get(name)
        if version is None or version.columns is None or not describes_portal(segment, 1 + length, portal):
            return False
        if version.statement.reading not in {self.reading, ANY_READING}:
            return False
        self.statements.names[name] = version.again()
        return True

    def ask_again(self, segment: bytes, server: ServerRelay) -> bytes:
        """What `segment` is for the server once more, now that its statement is to be prepared again."""
        self._process(segment, server)
        server.segment = b""
        again, self.to_server = self.to_server, b""
        return again

    def _copy_ended(self, server: ServerRelay) -> None:
        """CopyDone or CopyFail. Syncs that were sent before the copy began were read during it and ignored (docs: COPY Operations)."""
        pending = server.pending
        if server.copying_in and SYNC in pending:
            server.unsynced = SYNCED if type(pending[0]) is bytes else RUNNING
            kept = [step for step in pending if step != SYNC]
            pending.clear()
            pending.extend(kept)
        if server.unsynced:
            server.copy_ended = True


def illegal_message(kind: int) -> RemoteProtocolError:
    """A client sent what no logged-in client sends."""
    return RemoteProtocolError(f"invalid frontend message type {kind}")
