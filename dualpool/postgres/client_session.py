"""A client's session: the settings and prepared statements that it finds on whatever server connection it meets."""

from typing import Final

from dualpool import protocol
from dualpool.postgres import sql
from dualpool.postgres.catalog import Judge
from dualpool.postgres.lexical import LEXICAL_SETTINGS, lexis_of
from dualpool.postgres.server_relay import ServerRelay
from dualpool.postgres.server_session import READ_ONLY_SETTINGS, apply_change
from dualpool.postgres.session_sql import ROLES, has_tiny_limit, is_placeholder
from dualpool.postgres.sql import AT_DEFAULT
from dualpool.postgres.statements import ClientStatements, ReadBy, reading
from dualpool.protocol import SEQUENCE_PIN, SESSION, RelayLimits
from dualpool.sql_text import Lexis
from dualpool.state import DEFAULTS, Settings, settings

USES_NUMBERS: Final = sql.USES_SEQUENCE | sql.WRITES | sql.SETTINGS
"""The marks of a text that may take a number of a sequence: it does so itself, it writes, or nobody knows what it does."""


class ClientSession(protocol.ClientRelay):
    """See the module. `server` is the lease's."""

    __slots__ = (
        "_judged_by", "_judged_for", "base", "judge", "limits", "notable", "reading", "server", "settings", "statements", "told",
        "unnamed", "unnamed_judge", "unnamed_marks", "unnamed_reading", "unnamed_shape", "uses", "was_elsewhere",
    )  # fmt: skip

    def __init__(self, limits: RelayLimits, wanted: Settings = DEFAULTS) -> None:
        super().__init__()
        self.limits = limits
        self.server: ServerRelay | None = None
        self.base = wanted
        """The settings of the client's start-up: where RESET takes it back to."""
        self.settings = wanted
        self.reading = reading(wanted)
        """How texts are read with these settings."""
        self.statements = ClientStatements(limits.statements_per_client, limits.statement_bytes)
        self.unnamed: bytes | None = None
        """The Parse message of the unnamed statement, to be sent again on another server connection."""
        self.unnamed_marks = 0
        self.unnamed_judge: Judge | None = None
        """Who has said so; None: nobody may be asked again, for its text is not kept."""
        self.unnamed_reading: ReadBy = ()
        """The settings by which the client's own Parse was read: what its constants mean, wherever it is sent again."""
        self.unnamed_shape: tuple[bytes, bytes] | None = None
        """The parameter types and columns of it that the client was told when it described it."""
        self.judge: Judge | None = None
        """Who says what the client's texts do, as it was when `settings` were `_judged_for` and the server's own `_judged_by`."""
        self._judged_for: Settings | None = None
        self._judged_by: Lexis | None = None
        self.uses: ServerRelay | None = None
        """The server connection of the last lease."""
        self.was_elsewhere = False
        """There were several; so numbers of sequences may be known to one of them and not to another."""
        self.notable = sql.NOTABLE
        """The marks of a text that matter when it is sent."""
        if limits.sequence_values == SEQUENCE_PIN and limits.mode != SESSION:
            self.notable |= USES_NUMBERS
        if limits.mode == SESSION:
            self.notable |= sql.TELLING
        self.told = 0
        """The kinds of pins that the client has been told of."""

    def learns_again(self, segment: bytes) -> bool:
        """A server has refused a statement of `segment` for its shape. Does the segment ask for the new one? Then it can be sent again."""
        raise NotImplementedError

    def ask_again(self, segment: bytes, server: ServerRelay) -> bytes:
        """What `segment` is for the server once more."""
        raise NotImplementedError

    def notified(self, channel: str, message: bytes) -> None:
        subscriptions, server = self.subscriptions, self.server
        if subscriptions is None:
            return
        if server is not None and not server.is_between():
            subscriptions.keep(channel, message)
            server.attentive = True
        elif channel in subscriptions.active:
            self.to_client += message

    def _find_judge(self, server: ServerRelay) -> Judge:
        """The lease begins, and what the client's texts mean may have changed."""
        encoding, conforming, version = (self._setting(name, server) for name in LEXICAL_SETTINGS)
        lexis = lexis_of(encoding, conforming, version or "") if encoding is not None and conforming is not None else None
        self._judged_for, self._judged_by = self.settings, server.lexis
        self.judge = server.catalog.judge(lexis, self.limits.verify)
        return self.judge

    def _setting(self, name: str, server: ServerRelay) -> str | None:
        """The value of a reported setting as the client will find it; None if nobody can tell."""
        return self.settings.values.get(name) or server.baseline.get(name)

    def count_statements(self) -> int:
        return len(self.statements.names)

    def _absorb(self, server: ServerRelay) -> None:
        """What the lease has set becomes this client's wish, and what we know of the server connection."""
        actual = dict(server.settings.values)
        wanted = dict(self.settings.values)
        back_to_base: set[str] = set()
        defined = server.defined
        for name, value in server.changes:
            at_login = name in ROLES and value == server.baseline.get(name, "none")
            apply_change(actual, name, None if at_login else value, {}, defined)
            if at_login and name not in self.base.values:
                value = None
            apply_change(wanted, name, value, self.base.values, defined)
            if value is None:
                back_to_base.update(self.base.values if name == "*" else (name,))
        for name in server.touched:
            actual.setdefault(name, AT_DEFAULT)
            wanted.setdefault(name, AT_DEFAULT)
        changed = {name for name, _ in server.changes}
        for name in server.reported:
            lowered = name.lower()
            if lowered in READ_ONLY_SETTINGS or not (name in server.moved or lowered in changed):
                continue
            value = server.reported[name]
            if not value.isascii():
                continue  # in the client's encoding; the server was asked
            if value == server.baseline.get(name):
                actual.pop(lowered, None)
                if lowered not in back_to_base:
                    wanted.pop(lowered, None)
            else:
                actual[lowered] = value
                if lowered not in back_to_base:
                    wanted[lowered] = actual[lowered]
        server.settings = settings(actual)
        server.picky = server.has_temporary or any(is_placeholder(name, defined) for name in actual)
        if has_tiny_limit(actual):
            server.dirty = True
        self.settings = settings(wanted)
        self.reading = reading(self.settings)
        server.forget_changes()
