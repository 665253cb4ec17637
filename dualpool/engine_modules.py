"""An engine that is made of the modules of its package: what both engines pass on to theirs in the same words."""

from typing import Generic, Protocol, TypeVar

from dualpool import protocol
from dualpool.accounts import ClientLogin, ServerLogin, ServerTarget
from dualpool.answers import Answer
from dualpool.protocol import Engine, Exchange
from dualpool.state import Settings

R = TypeVar("R", bound=protocol.ServerRelay)
R_contra = TypeVar("R_contra", bound=protocol.ServerRelay, contravariant=True)


class BackendModule(Protocol[R_contra]):
    """`<engine>/backend.py`. See the methods of Engine with these names."""

    def connect(self, target: ServerTarget) -> Exchange[ServerLogin]: ...

    def prove(self, relay: R_contra, wanted: Settings) -> Exchange[dict[str, str]]: ...

    def recover(self, relay: R_contra) -> Exchange[None]: ...

    def reset(self, relay: R_contra) -> Exchange[None]: ...

    def check(self, relay: R_contra, query: str) -> Exchange[None]: ...


class CancelModule(Protocol):
    """`<engine>/cancel.py`."""

    def cancel(self, target: ServerTarget, login: ServerLogin) -> Exchange[None]: ...


class ConsoleModule(Protocol):
    """`<engine>/console.py`."""

    def serve(self, login: ClientLogin, process_id: int, secret: bytes) -> Exchange[None]: ...

    def ask(self, login: ServerLogin, command: str) -> Exchange[Answer]: ...


class MessagesModule(Protocol):
    """`<engine>/messages.py`."""

    def notice_message(self, text: str) -> bytes: ...


class EngineOfModules(Engine, Generic[R]):
    """See protocol.Engine. `relays` is the class of its server relays; the others are the modules of its package."""

    relays: type[R]
    backend: BackendModule[R]
    cancelling: CancelModule
    consoles: ConsoleModule
    messages: MessagesModule

    def _own(self, relay: protocol.ServerRelay) -> R:
        assert isinstance(relay, self.relays)
        return relay

    def connect(self, target: ServerTarget) -> Exchange[ServerLogin]:
        return self.backend.connect(target)

    def prove(self, relay: protocol.ServerRelay, wanted: Settings) -> Exchange[dict[str, str]]:
        return self.backend.prove(self._own(relay), wanted)

    def recover(self, relay: protocol.ServerRelay) -> Exchange[None]:
        return self.backend.recover(self._own(relay))

    def reset(self, relay: protocol.ServerRelay) -> Exchange[None]:
        return self.backend.reset(self._own(relay))

    def check(self, relay: protocol.ServerRelay, query: str) -> Exchange[None]:
        return self.backend.check(self._own(relay), query)

    def cancel(self, target: ServerTarget, login: ServerLogin) -> Exchange[None]:
        return self.cancelling.cancel(target, login)

    def console(self, login: ClientLogin, process_id: int, secret: bytes) -> Exchange[None]:
        return self.consoles.serve(login, process_id, secret)

    def ask(self, login: ServerLogin, command: str) -> Exchange[Answer]:
        return self.consoles.ask(login, command)

    def notice_message(self, text: str) -> bytes:
        return self.messages.notice_message(text)
