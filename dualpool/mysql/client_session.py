"""A client's session: what it should find on whatever server connection it meets, and what it may ask about its last statement.

What only the server connection knows that the statement ran on (warnings, FOUND_ROWS(), settings that are not reported as they are) is
asked before the lease ends, by queries of ours that are hidden from the client: *captures*.
"""

from typing import Final

from dualpool import protocol
from dualpool.errors import RemoteProtocolError
from dualpool.mysql import codec, reading, session_sql, wire
from dualpool.mysql import states as s
from dualpool.mysql.codec import first_row
from dualpool.mysql.knowledge import NOTHING_KNOWN, Knowledge
from dualpool.mysql.messages import error_text
from dualpool.mysql.reading import Reading
from dualpool.mysql.requests import (
    CAPTURE_AT_ONCE,
    CAPTURE_FOUND_ROWS,
    CAPTURE_INSERT_ID,
    CAPTURE_STATUS,
    CAPTURE_VALUES,
    CAPTURE_WARNINGS,
    FOR_COUNTED,
    FOR_FOUND_ROWS,
    FOR_INSERT_ID,
    FOR_STATE,
    FOR_STATUS,
    FOR_VALUES,
    FOR_WARNINGS,
    MOMENTS,
    Request,
)
from dualpool.mysql.server_relay import ServerRelay
from dualpool.mysql.server_session import NOT_KNOWN, ServerSession
from dualpool.mysql.shapes import texts_of
from dualpool.mysql.statements import ClientStatement, ClientStatements
from dualpool.mysql.wire import put_lenenc_bytes
from dualpool.protocol import PIN_WARN, SESSION, VERIFY_ALWAYS, RelayLimits
from dualpool.state import Settings

NOTHING_READ: Final = Reading()
SESSION_FLAGS: Final = wire.STATUS_AUTOCOMMIT | wire.STATUS_NO_BACKSLASH_ESCAPES
"""What an answer says of the session, whatever was asked: clients escape values by it, and decide whether they must commit."""
NO_BACKSLASH_ESCAPES: Final = "NO_BACKSLASH_ESCAPES"
ANY_ID: Final = -1
SHOW_WARNINGS: Final = bytes((wire.COM_QUERY,)) + b"SHOW WARNINGS"
SELECT_FOUND_ROWS: Final = bytes((wire.COM_QUERY,)) + b"SELECT FOUND_ROWS() LIMIT 1"
SELECT_INSERT_ID: Final = bytes((wire.COM_QUERY,)) + b"SELECT LAST_INSERT_ID() LIMIT 1"


class ClientSession(protocol.ClientRelay):
    """See the module. `settings`, `schema`, `multi` and `insert_id` are what the client's session should have.

    `connection_id`: what the client was told in the greeting; 0: it sees the server's.
    """

    __slots__ = (
        "_action", "_answer", "_counted_here", "_execution", "_explained", "_found_rows", "_has_rows", "_healed", "_login_settings",
        "_marks", "_noted", "_notes", "_plain", "_preparing", "_reading", "_row_count", "_steps", "_suspects", "_uncounted", "_warnings",
        "always", "capabilities", "captures", "connection_id", "defaults", "disturbed", "flags", "foreign_list", "insert_id", "knowledge",
        "limits", "login_flags", "mode", "multi", "parsing", "refused_pins", "schema", "schema_since", "server", "server_version",
        "settings", "statements", "text", "texts", "told_id", "untold_pins", "warned",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, capabilities: int, login_settings: Settings, connection_id: int = 0) -> None:
        super().__init__()
        self.limits = limits
        self.mode = limits.mode
        self.capabilities = capabilities
        self.connection_id = connection_id
        self.server: ServerRelay | None = None
        self._login_settings = login_settings
        self.knowledge: Knowledge = NOTHING_KNOWN
        """Of the server's database; nothing before the first lease."""
        self.login_flags = wire.STATUS_AUTOCOMMIT
        """Those of SESSION_FLAGS that a new session has."""
        self.statements = ClientStatements(limits.statements_per_client, limits.statement_bytes)
        shared = limits.mode != SESSION
        self.refused_pins = limits.refused_pins(s.PIN_REASONS) if shared else 0
        self.untold_pins = 0
        """The pins of which the client is to be told when they come."""
        if shared:
            self.untold_pins = sum(pin for pin, reason in s.PIN_REASONS.items() if limits.policy_of(reason.partition(";")[0]) == PIN_WARN)
        self.server_version = ""
        """Of the server of the last lease; before that, of the one whose greeting the client got, if it was a server's."""
        self.defaults = session_sql.UNKNOWN_DEFAULTS
        """What the session has as far as the client has not set anything else: the server's at the client's login."""
        self._action = s.C_REFUSED
        self._forget_session()
        self.schema: str | None = None
        self.schema_since = next(MOMENTS)
        """When it was chosen: what a session has learnt of it before (`ServerSession.schema_read`) is too old."""
        self.multi = bool(capabilities & wire.CLIENT_MULTI_STATEMENTS)

    def greeted(self, parameters: dict[str, str]) -> None:
        """The client is logged in; a new session has `parameters`."""
        self.defaults = session_sql.defaults(parameters)
        self.flags = self.login_flags = login_flags(parameters)

    def learnt(self, parameters: dict[str, str]) -> None:
        """A new session has `parameters`, but the client keeps what its login has told it."""
        self.uncertain = False
        self.defaults = session_sql.defaults(with_flags(parameters, self.login_flags))

    def _forget_session(self) -> None:
        """As after the login, but for the schema."""
        self.new_settings(self._login_settings)
        self.flags = self.login_flags
        """Those of SESSION_FLAGS that the session has, as the last answer of the server said."""
        self.statements.clear()
        self.insert_id = 0
        self.told_id = 0
        """The number in the last OK packet of which it was not certain that it is LAST_INSERT_ID(); ANY_ID: that was set."""
        self._uncounted: tuple[str, bytes] | None = None
        """A table of which it is not known which column has AUTO_INCREMENT: its schema and its name as SQL."""
        self.captures = 0
        self._marks = 0
        self._steps: tuple[s.Step, ...] = ()
        self._reading: Reading = NOTHING_READ
        """Of the statement that is being carried out, unless that is plain."""
        self.text = b""
        """The statement that is being carried out, or its packet."""
        self.disturbed = True
        """The server was asked something of ours since the client's last statement, so what it says of that one is not so any more."""
        self._explained: tuple[bytes, tuple[s.Step, ...], bool, bool] = (b"", (), False, False)
        """What was found of that text and its steps: do they explain a change, and do they if the server has told what changed?"""
        self.foreign_list = False
        """What the server connection has for SHOW WARNINGS may be of another client's statement. (MariaDB: see `_keeps_warnings`.)"""
        self.warned = False
        """MariaDB: a statement that was not the last of its text has warned, and the later ones have perhaps left its list."""
        self._row_count = 0
        self._counted_here = False
        """The last command was answered without the server, so that ROW_COUNT() is what we say."""
        self._has_rows = False
        """The last statement had a result, on the server connection that it ran on."""
        self._found_rows = -1
        self._answer = b""
        """The whole answer to the last statement, if it was a short and plain result: if need be its rows can be counted."""
        self.always = 0
        """Marks that every statement has. M_DOUBT: what a trigger or a view does, its text does not say. M_CALC_FOUND_ROWS: FOUND_ROWS()
        could not be answered once, so from then on it is asked for."""
        if self.mode != SESSION:
            self.always |= reading.M_STRICT if self.limits.strict else 0
            self.always |= reading.M_DOUBT if self.limits.verify == VERIFY_ALWAYS else 0
        self._warnings: list[bytes] = []
        """The rows of SHOW WARNINGS, as far as they are known. The first `_noted` of them are our own."""
        self._noted = 0
        self._notes: list[bytes] = []
        """Rows that are to be among the warnings of the statement that is being answered."""
        self._suspects: set[str] = set()
        self._execution: ClientStatement | None = None
        self._preparing: ClientStatement | None = None
        self._healed = False

    def new_schema(self, schema: str | None, moment: int) -> None:
        """The client has chosen a schema."""
        self.schema = schema
        self.schema_since = moment

    def new_settings(self, wanted: Settings) -> None:
        """What the session should have from now on."""
        self.settings = wanted
        self.parsing = session_sql.parsing(wanted)
        self.reads_by_settings()

    def reads_by_settings(self) -> None:
        """How the session reads texts, by its settings and what is known of its server."""
        values = self.settings.values
        known = self.knowledge
        self.texts = texts_of(values.get("character_set_client", ""), values.get("sql_mode", ""), known.modes, known.flavour)
        self._plain = self.texts.plain

    def count_statements(self) -> int:
        return len(self.statements.known)

    def _status(self) -> int:
        """The status flags of an answer of ours."""
        server = self.server
        return self.flags | (server.transaction_flags() if server is not None else 0)

    def _quoted_schema(self, server: ServerRelay) -> bytes:
        """The current schema, to be put in front of a table's name; nothing if there is none."""
        schema = server.login_schema if self.schema is None else self.schema
        if not schema or schema == NOT_KNOWN:
            return b""
        return b"`" + schema.replace("`", "``").encode("utf-8", "surrogateescape") + b"`."

    def more_follows(self, parts: bytes) -> bool:
        """Does another result follow the one that has begun? `parts`: those of the same command that are over (`ServerRelay._parts`)."""
        return self._reading.more_follows(parts)

    def found_rows(self) -> int:
        """FOUND_ROWS() of the last statement; -1 if that is not known."""
        if self._found_rows < 0 and self._answer:
            # (Only one that came with CLIENT_DEPRECATE_EOF is kept.)
            self._found_rows = len(codec.parse_result(self._answer, wire.CLIENT_DEPRECATE_EOF).rows)
        return self._found_rows

    def has_notes(self) -> bool:
        """Is there something of ours to be told with the answer that is passing?"""
        return bool(self._notes)

    def note(self, pins: int) -> int:
        """Tell the client of these pins, as far as it wants to know and has not been told yet. Returns how many warnings that makes."""
        pins &= self.untold_pins
        if not pins:
            return 0
        self.untold_pins &= ~pins
        new = [note_row(reason) for pin, reason in s.PIN_REASONS.items() if pins & pin]
        self._notes += new
        return len(new)

    def _forget_warnings(self) -> None:
        """The server has forgotten those of the statement before."""
        self._warnings = []
        self._noted = 0

    def take_notes(self) -> None:
        """What is to be told belongs to the warnings of the last statement."""
        if self._notes:
            self._noted += len(self._notes)
            self._warnings = self._notes + self._warnings
            self._notes = []

    # ---------------------------------------------------------------------------------------------------------------- captures

    def explains(self, known: bool) -> bool:
        """The session has changed. True when it is known in what: by the server's reports (`known`) or by the statement's text."""
        if self._action == s.C_INIT_DB:
            return True
        text, steps, always, if_known = self._explained
        if text is not self.text or steps is not self._steps:
            # (Of many statements that come as one, each may change something.)
            kinds = {kind for kind, _ in self._steps}
            named = not kinds.isdisjoint(s.EXPLAINING) or bool(self.doubts() & s.D_CHANGES)
            always = s.E_UNKNOWN not in kinds and named
            # Any other statement has set a variable by a function, which may have set user variables as well.
            if_known = always or (s.E_UNKNOWN not in kinds and self._reading.sets)
            self._explained = self.text, self._steps, always, if_known
        return if_known if known else always

    def doubts(self) -> int:
        """D_ bits: what is in doubt about the statement that is being carried out."""
        doubt = 0
        for kind, name in self._steps:
            if kind == s.E_DOUBT:
                doubt |= name[0]
        return doubt

    def suspect(self, reports: dict[str, bytes]) -> None:
        """Which of the server's reports must be verified: a SET with COLLATE or DEFAULT is not reported as it is, wherever it stands."""
        if self._marks & (reading.M_COLLATES | reading.M_DOUBT) or self._reading.calls_users:
            self._suspects.update(session_sql.to_be_verified(reports))
            if self._suspects:
                self.captures |= CAPTURE_VALUES

    def capture(self, server: ServerSession, leaving: bool) -> bool:
        """Ask what would be gone with the server connection. True if something was asked."""
        # (Warnings of the server's among notes of ours must be known before anybody asks.)
        at_once = CAPTURE_AT_ONCE | CAPTURE_WARNINGS if self._noted else CAPTURE_AT_ONCE
        wanted = self.captures if leaving else self.captures & at_once
        if not wanted:
            return False
        self.captures &= ~wanted
        if wanted & (CAPTURE_WARNINGS | CAPTURE_STATUS) and not wanted & CAPTURE_FOUND_ROWS:
            # (Each of the two destroys the other: SHOW WARNINGS finds rows, and the deprecated FOUND_ROWS() warns.)
            self.to_server += server.ask(Request(FOR_WARNINGS if wanted & CAPTURE_WARNINGS else FOR_STATUS), SHOW_WARNINGS)
        if wanted & CAPTURE_FOUND_ROWS:
            self.to_server += server.ask(Request(FOR_FOUND_ROWS), SELECT_FOUND_ROWS)
        if wanted & CAPTURE_INSERT_ID:
            self.ask_insert_id(server)
            if self._uncounted is not None:
                request = Request(FOR_COUNTED)
                request.table, self._uncounted = self._uncounted, None
                self.to_server += server.ask(request, bytes((wire.COM_QUERY,)) + session_sql.counted_column(request.table[1]))
        if wanted & CAPTURE_VALUES:
            names = tuple(sorted(self._suspects))
            self._suspects.clear()
            request = Request(FOR_VALUES)
            request.names = names
            self.to_server += server.ask(request, bytes((wire.COM_QUERY,)) + session_sql.select_values(names))
        return True

    def ask_insert_id(self, server: ServerSession) -> None:
        """Ask for LAST_INSERT_ID()."""
        self.captures &= ~CAPTURE_INSERT_ID
        self.disturbed = True
        self.to_server += server.ask(Request(FOR_INSERT_ID), SELECT_INSERT_ID)

    def captured(self, server: ServerSession, request: Request, kept: list[bytes], error: bytes) -> None:
        """The answer to one of our questions."""
        purpose = request.purpose
        if error:
            if purpose == FOR_VALUES:
                raise RemoteProtocolError(f"the session's settings could not be read: {error_text(error)}")
            return
        if purpose in (FOR_STATUS, FOR_STATE):
            return
        if purpose == FOR_WARNINGS:
            result = codec.parse_result(b"".join(kept), server.capabilities)
            self._warnings = self._warnings[: self._noted] + result.rows
            return
        values = first_row(kept, server.capabilities)
        if purpose == FOR_COUNTED:
            if values:
                server.knowledge.counts(request.table, (values[0] or b"").lower())
        elif purpose == FOR_VALUES and len(values) == len(request.names):
            reports = {name: value or b"" for name, value in zip(request.names, values, strict=True)}
            server.settings = session_sql.with_reports(server.settings, reports)
            self.new_settings(server.settings)
        elif values and values[0] is not None and values[0].isdigit():
            if purpose == FOR_FOUND_ROWS:
                self._found_rows = int(values[0])
            elif purpose == FOR_INSERT_ID:
                self._last_id_is(server, int(values[0]))

    def _last_id_is(self, server: ServerSession, number: int) -> None:
        """What LAST_INSERT_ID() says. If it is what another client has left there, and not what was told, no statement has changed it."""
        told, self.told_id = self.told_id, 0
        if number == server.insert_id and (not told or told not in (ANY_ID, number)):
            return
        if number != server.insert_id and self._marks & reading.M_DOUBT:
            server.is_clean = False
        self.insert_id = server.insert_id = number


def login_flags(parameters: dict[str, str]) -> int:
    """SESSION_FLAGS of a new session, to which the server gives `parameters`. (MySQL's says autocommit in any case, until it is set.)"""
    modes = parameters.get("sql_mode", "").split(",")
    flags = wire.STATUS_NO_BACKSLASH_ESCAPES if NO_BACKSLASH_ESCAPES in modes else 0
    is_on = session_sql.ONLY_IN_MARIADB not in parameters or parameters.get("autocommit", "1") in ("1", "ON")
    return flags | (wire.STATUS_AUTOCOMMIT if is_on else 0)


def with_flags(parameters: dict[str, str], flags: int) -> dict[str, str]:
    """`parameters` as they are where a new session has these `flags`."""
    if login_flags(parameters) == flags:
        return parameters
    modes = [mode for mode in parameters.get("sql_mode", "").split(",") if mode not in ("", NO_BACKSLASH_ESCAPES)]
    modes += [NO_BACKSLASH_ESCAPES] if flags & wire.STATUS_NO_BACKSLASH_ESCAPES else []
    changed = parameters | {"sql_mode": ",".join(modes)}
    if session_sql.ONLY_IN_MARIADB in parameters:
        changed["autocommit"] = "1" if flags & wire.STATUS_AUTOCOMMIT else "0"
    return changed


ERROR: Final = put_lenenc_bytes(b"Error")
NOTE: Final = put_lenenc_bytes(b"Note") + put_lenenc_bytes(b"1105")


def error_row(payload: bytes) -> bytes:
    """The row of SHOW WARNINGS that goes with an ERR packet."""
    errno = int.from_bytes(payload[1:3], "little")
    return ERROR + put_lenenc_bytes(b"%d" % errno) + put_lenenc_bytes(payload[9:])


def note_row(reason: str) -> bytes:
    """A row of SHOW WARNINGS (its code is ER_UNKNOWN_ERROR) that says that something pins: one of states.PIN_REASONS."""
    held, _, until = reason.partition("; until ")
    text = f"This session keeps its server connection after the transaction: {held}. It lasts until {until}."
    text += " A listener in session mode is there for what lasts longer."
    return NOTE + put_lenenc_bytes(text.encode())
