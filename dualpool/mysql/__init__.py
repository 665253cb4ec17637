"""MySQL and MariaDB: the engine."""

from typing import Any

import attrs
from pymysql.charset import charset_by_id

from dualpool.accounts import CancelRequest, ClientLogin, FrontendPolicy, ServerLogin, ServerTarget
from dualpool.engine_modules import EngineOfModules
from dualpool.errors import DualpoolError
from dualpool.mysql import backend, cancel, console, frontend, messages, session_sql, wire
from dualpool.mysql.client_relay import ClientRelay
from dualpool.mysql.client_session import login_flags, with_flags
from dualpool.mysql.knowledge import knowledge_of
from dualpool.mysql.server_relay import ServerRelay
from dualpool.mysql.statements import shown
from dualpool.protocol import ClientRelay as AnyClientRelay
from dualpool.protocol import Exchange, RelayLimits
from dualpool.protocol import ServerRelay as AnyServerRelay
from dualpool.state import DEFAULTS, Settings


class MysqlEngine(EngineOfModules[ServerRelay]):
    """See protocol.Engine. Each method leads to the module that does it."""

    name = "mysql"
    default_port = 3306
    rereads = True
    goodbye = wire.packet(0, bytes((wire.COM_QUIT,)))
    relays = ServerRelay
    backend = backend
    cancelling = cancel
    consoles = console
    messages = messages

    def accept(self, policy: FrontendPolicy) -> Exchange[ClientLogin | CancelRequest]:
        login = yield from frontend.accept(policy)
        return attrs.evolve(login, connection_id=policy.connection_id)

    def login_now(self, login: ClientLogin, relay: AnyClientRelay) -> ClientLogin:
        # (What COM_SET_OPTION has set outlasts COM_CHANGE_USER.)
        option = wire.CLIENT_MULTI_STATEMENTS if isinstance(relay, ClientRelay) and relay.multi else 0
        return attrs.evolve(login, capabilities=login.capabilities & ~wire.CLIENT_MULTI_STATEMENTS | option)

    def reaccept(self, policy: FrontendPolicy, login: ClientLogin, request: bytes) -> Exchange[ClientLogin]:
        again = yield from frontend.reaccept(policy, login, request)
        # (MariaDB gives the session no IGNORE_SPACE then.)
        lost = wire.CLIENT_IGNORE_SPACE if "MariaDB" in policy.server_version else 0
        return attrs.evolve(again, connection_id=login.connection_id, capabilities=again.capabilities & ~lost)

    def welcome(self, login: ClientLogin, parameters: dict[str, str], process_id: int, secret: bytes) -> bytes:
        return frontend.welcome(login, parameters, process_id, secret)

    def kind_of_session(self, login: ClientLogin) -> tuple[str, dict[str, str]]:
        # Which rows an INSERT ... ON DUPLICATE KEY UPDATE counts, or a procedure, no answer tells: it depends on this flag of the login.
        if login.capabilities & wire.CLIENT_FOUND_ROWS:
            return "found rows", {"capabilities": str(wire.CLIENT_FOUND_ROWS)}
        return "", {}

    def client_relay(self, login: ClientLogin, limits: RelayLimits) -> ClientRelay:
        wanted = session_sql.login_settings(*character_names(login.character_set))
        if login.capabilities & wire.CLIENT_IGNORE_SPACE:
            wanted = session_sql.with_ignore_space(wanted)
        relay = ClientRelay(limits, login.capabilities, wanted, login.connection_id)
        relay.server_version = login.server_version
        return relay

    def greeted_version(self) -> Exchange[tuple[str, int]]:
        return backend.greeted_version()

    def greeting_status(self, parameters: dict[str, str]) -> int:
        return login_flags(parameters)

    def as_greeted(self, parameters: dict[str, str], status: int) -> dict[str, str]:
        return with_flags(parameters, status)

    def server_relay(self, login: ServerLogin, limits: RelayLimits, target: ServerTarget) -> ServerRelay:
        relay = ServerRelay(limits, login.capabilities, login.version, target.database)
        modes = login.parameters.get("sql_mode", "")
        relay.knowledge = knowledge_of(target.host, target.port, target.database, login.version, modes)
        relay.defaults = session_sql.defaults(login.defaults)
        relay.login_role = login.parameters.get(session_sql.ROLE, session_sql.NO_ROLE)
        relay.process_id = login.process_id
        relay.address = (target.host, target.port)
        return relay

    def unproven(self, login: ClientLogin) -> Settings:
        # A login sets no more than the character set, and the relay proves that on each server connection.
        return DEFAULTS

    def capacity(self, relay: AnyServerRelay, login: ServerLogin) -> Exchange[int]:
        return backend.capacity(login)

    def find_secrets(self, login: ServerLogin, sql: str, user: str) -> Exchange[tuple[str, ...] | None]:
        return backend.find_secrets(login, sql, user)

    def role(self, login: ServerLogin) -> Exchange[str]:
        return backend.role(login)

    def error_message(self, error: DualpoolError, login: ClientLogin | None = None) -> bytes:
        return messages.error_message(error, 1 if login is None else login.sequence)

    def shown(self, request: bytes, relay: AnyClientRelay, limit: int) -> str:
        assert isinstance(relay, ClientRelay)
        return shown(request, relay.statements, limit)

    def socket_path(self, directory: str, port: int) -> str:
        """A directory has one server's socket, under its usual name; `directory` may also be the socket itself."""
        return directory if directory.endswith(".sock") else f"{directory}/mysqld.sock"


def character_names(number: int) -> tuple[str, str]:
    """The character set and collation that a handshake's number means; empty: one that nobody knows, so the server's own."""
    try:
        known: Any = charset_by_id(number)
    except KeyError:
        return "", ""
    # The default collation of MySQL 8 and later is not named, so that a server which has not got it takes its own default one.
    return str(known.name), "" if known.collation == "utf8mb4_0900_ai_ci" else str(known.collation)


ENGINE = MysqlEngine()
