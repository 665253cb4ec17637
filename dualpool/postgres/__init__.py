"""PostgreSQL: the engine."""

from dualpool.accounts import CancelRequest, ClientLogin, FrontendPolicy, ServerLogin, ServerTarget
from dualpool.engine_modules import EngineOfModules
from dualpool.errors import DualpoolError
from dualpool.postgres import backend, cancel, console, frontend, messages, wire
from dualpool.postgres.catalog import catalog_of
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.server_relay import ServerRelay
from dualpool.postgres.statements import shown
from dualpool.protocol import ClientRelay as AnyClientRelay
from dualpool.protocol import Exchange, ListeningWords, RelayLimits
from dualpool.protocol import ServerRelay as AnyServerRelay
from dualpool.state import DEFAULTS, Settings, settings


class PostgresEngine(EngineOfModules[ServerRelay]):
    """See protocol.Engine. Each method leads to the module that does it."""

    name = "postgres"
    default_port = 5432
    alpn = ("postgresql",)
    goodbye = wire.TERMINATE_MESSAGE
    asks_defaults = True
    relays = ServerRelay
    backend = backend
    cancelling = cancel
    consoles = console
    messages = messages

    def accept(self, policy: FrontendPolicy) -> Exchange[ClientLogin | CancelRequest]:
        return frontend.accept(policy)

    def welcome(self, login: ClientLogin, parameters: dict[str, str], process_id: int, secret: bytes) -> bytes:
        own = login.parameters.get("application_name")
        told = parameters if own is None else parameters | {"application_name": own}
        return frontend.welcome(login, told, process_id, secret)

    def client_relay(self, login: ClientLogin, limits: RelayLimits) -> ClientRelay:
        return ClientRelay(limits, start_settings(login.parameters))

    def greeted_version(self) -> None:
        return None

    def server_relay(self, login: ServerLogin, limits: RelayLimits, target: ServerTarget) -> ServerRelay:
        relay = ServerRelay(limits, dict(login.parameters), catalog_of(target.host, target.port, target.database))
        relay.settings = start_settings(target.parameters)
        return relay

    def unproven(self, login: ClientLogin) -> Settings:
        # Any application_name is fine, and each client may have another: no reason to ask the server.
        return start_settings({name: value for name, value in login.parameters.items() if name != "application_name"})

    def capacity(self, relay: AnyServerRelay, login: ServerLogin) -> Exchange[int]:
        return backend.capacity()

    def survey(self, relay: AnyServerRelay) -> Exchange[str]:
        return backend.survey(self._own(relay))

    def defaults(self, relay: AnyServerRelay, user: str) -> Exchange[str]:
        return backend.defaults(self._own(relay), user)

    def told(self, relay: AnyServerRelay) -> dict[str, str]:
        return dict(self._own(relay).baseline)

    def find_secrets(self, login: ServerLogin, sql: str, user: str) -> Exchange[tuple[str, ...] | None]:
        return backend.find_secrets(sql, user)

    def role(self, login: ServerLogin) -> Exchange[str]:
        return backend.role()

    def error_message(self, error: DualpoolError, login: ClientLogin | None = None) -> bytes:
        return messages.error_message(error)

    def listening(self) -> ListeningWords:
        return backend.Listening()

    def shown(self, request: bytes, relay: AnyClientRelay, limit: int) -> str:
        assert isinstance(relay, ClientRelay)
        return shown(request, relay.statements, limit)

    def socket_path(self, directory: str, port: int) -> str:
        return f"{directory}/.s.PGSQL.{port}"


def start_settings(parameters: dict[str, str]) -> Settings:
    """The settings that a start-up packet asks for."""
    wanted = {name.lower(): value for name, value in parameters.items() if name != "replication"}
    return settings(wanted) if wanted else DEFAULTS


ENGINE = PostgresEngine()
