"""MySQL and MariaDB: the engine."""

from typing import Any

import attrs
from pymysql.charset import charset_by_id

from dualpool.accounts import CancelRequest, ClientLogin, FrontendPolicy, ServerLogin, ServerTarget
from dualpool.answers import Answer
from dualpool.errors import DualpoolError
from dualpool.mysql import backend, cancel, console, frontend, messages, sql, wire
from dualpool.mysql.client_relay import ClientRelay
from dualpool.mysql.server_relay import ServerRelay
from dualpool.mysql.statements import shown
from dualpool.protocol import ClientRelay as AnyClientRelay
from dualpool.protocol import Engine, Exchange, RelayLimits
from dualpool.protocol import ServerRelay as AnyServerRelay
from dualpool.state import DEFAULTS, Settings


class MysqlEngine(Engine):
    """See protocol.Engine. Each method leads to the module that does it."""

    name = "mysql"
    default_port = 3306
    goodbye = wire.packet(0, bytes((wire.COM_QUIT,)))

    def accept(self, policy: FrontendPolicy) -> Exchange[ClientLogin | CancelRequest]:
        login = yield from frontend.accept(policy)
        return attrs.evolve(login, connection_id=policy.connection_id)

    def reaccept(self, policy: FrontendPolicy, login: ClientLogin, request: bytes) -> Exchange[ClientLogin]:
        again = yield from frontend.reaccept(policy, login, request)
        return attrs.evolve(again, connection_id=login.connection_id)

    def welcome(self, login: ClientLogin, parameters: dict[str, str], process_id: int, secret: bytes) -> bytes:
        return frontend.welcome(login, parameters, process_id, secret)

    def client_relay(self, login: ClientLogin, limits: RelayLimits) -> ClientRelay:
        wanted = sql.login_settings(*character_names(login.character_set))
        if login.capabilities & wire.CLIENT_IGNORE_SPACE:
            wanted = sql.with_ignore_space(wanted)
        return ClientRelay(limits, login.capabilities, wanted, login.connection_id)

    def greeted_version(self) -> Exchange[str]:
        return backend.greeted_version()

    def connect(self, target: ServerTarget) -> Exchange[ServerLogin]:
        return backend.connect(target)

    def server_relay(self, login: ServerLogin, limits: RelayLimits, target: ServerTarget) -> ServerRelay:
        return ServerRelay(limits, login.capabilities, login.version, target.database)

    def unproven(self, login: ClientLogin) -> Settings:
        # A login sets no more than the character set, and the relay proves that on each server connection.
        return DEFAULTS

    def prove(self, relay: AnyServerRelay, wanted: Settings) -> Exchange[dict[str, str]]:
        assert isinstance(relay, ServerRelay)
        return backend.prove(relay, wanted)

    def capacity(self, relay: AnyServerRelay, login: ServerLogin) -> Exchange[int]:
        return backend.capacity(login)

    def find_secrets(self, login: ServerLogin, sql: str, user: str) -> Exchange[tuple[str, ...] | None]:
        return backend.find_secrets(login, sql, user)

    def role(self, login: ServerLogin) -> Exchange[str]:
        return backend.role(login)

    def recover(self, relay: AnyServerRelay) -> Exchange[None]:
        assert isinstance(relay, ServerRelay)
        return backend.recover(relay)

    def reset(self, relay: AnyServerRelay) -> Exchange[None]:
        assert isinstance(relay, ServerRelay)
        return backend.reset(relay)

    def check(self, relay: AnyServerRelay, query: str) -> Exchange[None]:
        assert isinstance(relay, ServerRelay)
        return backend.check(relay, query)

    def cancel(self, target: ServerTarget, login: ServerLogin) -> Exchange[None]:
        return cancel.cancel(target, login)

    def console(self, login: ClientLogin, process_id: int, secret: bytes) -> Exchange[None]:
        return console.serve(login, process_id, secret)

    def ask(self, login: ServerLogin, command: str) -> Exchange[Answer]:
        return console.ask(login, command)

    def error_message(self, error: DualpoolError, login: ClientLogin | None = None) -> bytes:
        return messages.error_message(error, 1 if login is None else login.sequence)

    def notice_message(self, text: str) -> bytes:
        return messages.notice_message(text)

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
