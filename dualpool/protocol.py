"""The contract that both engines implement. The docstrings here are the spec; `postgres/` and `mysql/` are its two implementations.

An engine is three things, none of which touches a socket:

* **Relays** (hot). A `ClientRelay` lives as long as a client, a `ServerRelay` as long as a server connection. They are fed the bytes that
  were read and leave the bytes to be written in `to_client` and `to_server`; whoever called them (link.py) takes those, sends them and
  sets them back to `b""`. Their answer is a verdict.
* **Exchanges**: logins, resets, checks and cancels, as generators that yield commands (`Send`, `Receive`, `StartTls`, ...) and are sent
  the results. exchange.py drives them with Trio; a test drives them with a list.
* **Messages**: an error or a notice as bytes of this protocol.

Nothing outside an engine's package asks which engine it is.
"""

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from dualpool.accounts import CancelRequest, ClientLogin, FrontendPolicy, ServerLogin, ServerTarget
    from dualpool.answers import Answer
    from dualpool.errors import DualpoolError
    from dualpool.state import Settings, Subscriptions

# Verdicts are bits: a chunk of bytes can both end a lease and end the client.
FORWARD: Final = 0
"""Send what is in `to_server` and `to_client`, and read on. (Nothing in them means: more bytes needed.)"""
NEEDS_SERVER: Final = 1
"""From `on_client_bytes`: the client has asked for something and has no server connection. `attach()` goes on from there."""
RELEASE: Final = 2
"""From `on_server_bytes` (or `on_client_bytes`): nothing is outstanding; the server connection may serve another client."""
CLOSE: Final = 4
"""The client said goodbye, or what was just sent must be the last it gets."""
BROKEN: Final = 8
"""From `on_server_bytes`: the server said that it will close this connection. Never reuse it."""
CANCEL: Final = 16
"""The client asks, inside its own session, to cancel `ClientRelay.cancel_key` (MySQL's KILL)."""
PINNED: Final = 32
"""`ServerRelay.pins` of the client's server connection has changed (also to 0)."""
VACATE: Final = 64
"""From `on_client_bytes` or `attach`: the client is about to drop, copy or rename the database `ClientRelay.vacates`."""
REACCEPT: Final = 128
"""The client begins a new login with `ClientRelay.login_request`; nothing is outstanding, and what its session was is over."""
LISTENS: Final = 256
"""The client is about to listen to `ClientRelay.wants_channel`. What it sends waits until `listen_answered()`."""
RESUMES: Final = 512
"""From `on_server_bytes`: what the client's relay has held back (`ClientRelay.awaits`) can go on: `on_client_bytes(b"")`."""

LEAKED: Final = 1024
"""From `on_server_bytes`: `ServerRelay.leak` says what the client's lease would have left to others."""

# What happens when a session begins to hold state that pins it.
PIN_ALLOW: Final = 0
PIN_WARN: Final = 1
"""The client is told: once for each reason."""
PIN_ERROR: Final = 2
"""The client is ended (FeatureRefused), and its server connection reset."""

# What becomes of a LISTEN where a lease does not last as long as the session.
LISTEN_SHARED: Final = 0
"""One server connection listens for all clients of a pool."""
LISTEN_PIN: Final = 1
LISTEN_ERROR: Final = 2

# When the server is asked what a session holds, though nothing is known to have changed it.
VERIFY_NEVER: Final = 0
VERIFY_LEARN: Final = 1
"""Until a text was found harmless `LEARNT` times."""
VERIFY_ALWAYS: Final = 2
LEARNT: Final = 3

# What becomes of a question for a sequence's last value where the session may be another one.
SEQUENCE_ERROR: Final = 0
SEQUENCE_PIN: Final = 1
"""A client that uses a sequence keeps its server connection."""

FIRST_CLIENT_ID: Final = 1_000_000_000
"""Virtual process ids are greater, and those of servers are smaller: whoever kills by an id means one session and not two."""

# How long a lease lasts.
TRANSACTION: Final = 0
SESSION: Final = 1
STATEMENT: Final = 2

# Which part of a backend's budget a checkout may use.
APPLICATION: Final = 0
MAINTENANCE: Final = 1


class ServerRelay:
    """One server connection's protocol state: what it was asked, what it has answered, and what is set on it."""

    __slots__ = (
        "dirty",
        "in_transaction",
        "leak",
        "parses",
        "picky",
        "pin_text",
        "pinned_at",
        "pins",
        "queries",
        "refused_write",
        "spent",
        "to_client",
        "to_server",
        "transactions",
        "wants_writes",
    )

    def __init__(self) -> None:
        self.to_client: bytes = b""
        self.to_server: bytes = b""
        self.in_transaction: bool = False
        self.leak: str = ""
        """Found by asking though all looked harmless. The one that logs it sets it to "" again."""
        self.pins: int = 0
        """Not 0: the session holds state that cannot be replayed, so the lease goes on after the transaction."""
        self.pin_text: str = ""
        """The start of the statement that made the pin likely, without its literals."""
        self.pinned_at: float = 0.0
        """When `pins` became other than 0. The link sets it when it is told PINNED."""
        self.dirty: bool = False
        """The session holds state that must be reset before another client may have it."""
        self.spent: str = ""
        """Why the session, which is `dirty`, cannot even be reset: it has to be closed when its lease is over."""
        self.wants_writes: bool = False
        """The pool is for a server that takes writes: an error that says it does not sets `refused_write` and `dirty`."""
        self.refused_write: bool = False
        self.queries: int = 0
        """Requests of clients that were answered in full. Whoever counts sets it to 0 again, and so with `transactions`."""
        self.transactions: int = 0
        """Those of them that left no transaction open."""
        self.parses: int = 0
        """Statements that were prepared on the server, whoever asked for them."""
        self.picky: bool = False
        """The session has something that no reset takes away: only clients that `ClientRelay.may_have` it get it."""

    def on_server_bytes(self, data: bytes) -> int:
        """Interpret `data`, read from the server. Returns verdict bits; raises RemoteProtocolError, then the connection must be closed."""
        raise NotImplementedError

    def is_quiet(self) -> bool:
        """True when every request is answered in full and no transaction is open: the only state in which it may be given back."""
        raise NotImplementedError

    def answered(self) -> bool:
        """True when no answer is outstanding; a transaction may be open."""
        raise NotImplementedError

    def is_only_asked(self) -> bool:
        """True when the client has all its answers, and only a question of ours is open."""
        return False

    def owes_nothing(self) -> bool:
        """The same, and without this server the client can go on."""
        return False

    def is_restoring(self) -> bool:
        """True while the server works on what brings the session to the client's settings, and not yet on what the client asks."""
        return False

    def pin_reasons(self) -> list[str]:
        """Why the lease does not end with its transaction: `what the session holds; until what would let it go`, for each reason."""
        return []

    def count_statements(self) -> int:
        """How many prepared statements the session holds."""
        return 0

    def is_midway(self) -> bool:
        """True when part of a message of the server has gone to the client, so that nothing but its rest may follow."""
        raise NotImplementedError

    def is_lost(self) -> bool:
        """True when the conversation cannot be continued (half a message was sent, answers cannot be counted): close the connection."""
        raise NotImplementedError


class ClientRelay:
    """One client's protocol state: the bytes that wait, its prepared statements, the settings that it wants."""

    __slots__ = (
        "awaits",
        "binds",
        "cancel_connection",
        "cancel_key",
        "login_request",
        "parses",
        "peers",
        "subscriptions",
        "to_client",
        "to_server",
        "uncertain",
        "vacates",
        "wants_channel",
    )

    def __init__(self) -> None:
        self.to_client: bytes = b""
        self.to_server: bytes = b""
        self.cancel_key: int = 0
        """The id of the client that CANCEL means, or what the server calls the session that it holds."""
        self.cancel_connection: bool = False
        """CANCEL means not what the client with `cancel_key` runs, but that client."""
        self.vacates: str = ""
        """The database that VACATE means, as the server calls it."""
        self.login_request: bytes = b""
        """What the client has sent from the request on that REACCEPT means."""
        self.wants_channel: str = ""
        """The channel that LISTENS means."""
        self.peers: Mapping[int, Any] = {}
        """All clients that are logged in, by the ids that they know themselves by; each has its relay as `relay`."""
        self.subscriptions: Subscriptions | None = None
        """What the client listens to, if it ever has."""
        self.parses: int = 0
        """Statements that the client prepared, and `binds`: how often it ran one."""
        self.binds: int = 0
        self.uncertain: bool = False
        """Its login could not ask what sessions are given now: what it was told of that was so a while ago."""
        self.awaits: bool = False
        """What it has sent waits for an answer of its server connection to a question of ours: see RESUMES."""

    def greeted(self, parameters: dict[str, str]) -> None:
        """The client has been told these `parameters` at its login (`Engine.prove`)."""

    def learnt(self, parameters: dict[str, str]) -> None:
        """A session that begins now is given these `parameters`. Asked in front of the first lease, if `uncertain`."""

    def on_client_bytes(self, data: bytes) -> int:
        """Interpret `data`, read from the client. Returns verdict bits; raises RemoteProtocolError, then the client must be closed.

        Bytes that cannot be used yet (half a frame, no server) are kept, at most `limits.frame_bytes` of them (`held_bytes()`).
        """
        raise NotImplementedError

    def held_bytes(self) -> int:
        """How many client bytes wait inside the relay; link.py stops reading the client when they are too many."""
        raise NotImplementedError

    def held(self) -> bytes:
        """The first of those bytes."""
        raise NotImplementedError

    def suits(self, server: "ServerRelay") -> bool:
        """Is the session of `server`, which nobody holds, as the client wants it already? Then nothing need be replayed."""
        raise NotImplementedError

    def may_have(self, server: "ServerRelay") -> bool:
        """Would the session of `server`, which is picky, show this client nothing that it should not see?"""
        return True

    def count_statements(self) -> int:
        """How many prepared statements the client has."""
        return 0

    def attach(self, server: ServerRelay) -> int:
        """Lease begins: bring the server's session to this client's settings and pass on what waited. Returns verdict bits."""
        raise NotImplementedError

    def detach(self) -> None:
        """Lease over: take what the server's session has become (settings) into this client's state, and let go of it."""
        raise NotImplementedError

    def cancel_done(self, found: bool) -> None:
        """What CANCEL asked for is over: answer it in `to_client`. `found`: `cancel_key` was a client that may be cancelled."""
        raise NotImplementedError

    def listen_answered(self, shared: bool) -> None:
        """What LISTENS asked for: does the shared connection listen to the channel? If not, the client does itself. What it has sent can go
        on: `on_client_bytes(b"")`."""
        raise NotImplementedError

    def notified(self, channel: str, message: bytes) -> None:
        """A notification for this client. It is in `to_client` if the client may be told now, else it is told after its transaction."""
        raise NotImplementedError

    def error_message(self, error: "DualpoolError") -> bytes:
        """`error` as the next and last thing that the client reads, wherever its conversation is."""
        raise NotImplementedError

    def refuse(self, error: "DualpoolError") -> int:
        """No server will come for what waits: answer it with `error` in `to_client`, and go on with what follows. Returns verdict bits."""
        raise NotImplementedError


# ---------------------------------------------------------------------------------------------------------------- exchanges


class Command:
    """What an exchange asks its driver to do. The driver sends the result into the generator, or throws a DualpoolError."""

    __slots__ = ()


class Send(Command):
    """Write all of `data`. Result: None."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Receive(Command):
    """Read exactly `size` bytes, never more (so that a TLS handshake can follow). Result: the bytes. Throws ConnectionClosed at EOF."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class ReceiveSome(Command):
    """Read what is there, at least one byte. Result: the bytes. Throws ConnectionClosed at EOF."""

    __slots__ = ()


class Peek(Command):
    """Look at the first byte without taking it. Result: the byte. Throws ConnectionClosed at EOF."""

    __slots__ = ()


class StartTls(Command):
    """Do the TLS handshake, as the side that we are. Result: TlsInfo. Throws RemoteProtocolError if it fails.

    `required_alpn`: the peer must have chosen this protocol (PostgreSQL's direct TLS).
    """

    __slots__ = ("required_alpn",)

    def __init__(self, required_alpn: str = "") -> None:
        self.required_alpn = required_alpn


class TlsInfo:
    """What a finished TLS handshake tells. Certificates are DER; `server_name` is the SNI that the client sent, or ""."""

    __slots__ = ("alpn", "local_certificate", "peer_certificate", "server_name", "version")

    def __init__(self, version: str, alpn: str, server_name: str, local_certificate: bytes, peer_certificate: bytes) -> None:
        self.version = version
        self.alpn = alpn
        self.server_name = server_name
        self.local_certificate = local_certificate
        self.peer_certificate = peer_certificate


class Offload(Command):
    """Run `call` in a worker thread (password hashing of more than about a millisecond). Result: what it returns."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call


class FindAccount(Command):
    """Who is this client? Result: accounts.Account, always one: an unknown user or database gets a decoy that no password opens."""

    __slots__ = ("database", "parameters", "user")

    def __init__(self, user: str, database: str, parameters: dict[str, str]) -> None:
        self.user = user
        self.database = database
        self.parameters = parameters


class RunCommand(Command):
    """Carry out a command of the admin console. Result: answers.Answer. Throws the DualpoolError that the client is to be told."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class DescribeCommand(Command):
    """What would the command answer? Result: the columns of its table, or None if it has none. Throws as RunCommand does."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


# ----------------------------------------------------------------------------------------------------------------- listening


class Notification:
    """What a server tells those who listen to a channel. `process_id`: of the session that notified."""

    __slots__ = ("channel", "payload", "process_id")

    def __init__(self, channel: str, payload: bytes, process_id: int) -> None:
        self.channel = channel
        self.payload = payload
        self.process_id = process_id


class ListeningWords:
    """The protocol of one server connection that only listens. What it is asked, it answers in order."""

    __slots__ = ()

    def begin(self) -> bytes:
        """The first order."""
        raise NotImplementedError

    def listen(self, channel: str) -> bytes:
        """The order to listen to `channel`."""
        raise NotImplementedError

    def unlisten(self, channel: str) -> bytes:
        """The order to listen to it no more."""
        raise NotImplementedError

    def ping(self) -> bytes:
        """An order that does nothing."""
        raise NotImplementedError

    def read(self, data: bytes) -> "list[Notification | str | None]":
        """What the server has said: notifications, and the answers to orders: None, or why not. Raises ServerLost, RemoteProtocolError."""
        raise NotImplementedError

    def notification(self, notification: Notification, process_id: int) -> bytes:
        """`notification` for a client, as if the session with `process_id` had sent it."""
        raise NotImplementedError


class ConnectionClosed(Exception):
    """The peer closed the connection in the middle of an exchange."""


R = TypeVar("R")
Exchange = Generator[Command, Any, R]


# ------------------------------------------------------------------------------------------------------------------- engine


class Engine:
    """One database protocol. Each engine's package exports one instance, `ENGINE`.

    Exchanges raise DualpoolErrors: LoginFailed and RemoteProtocolError towards a client are also *sent* to it, by the exchange, before
    they are raised; ConnectFailed carries the server's own SQLSTATE / code and message. Nothing is sent twice.
    """

    name: str = ""
    default_port: int = 0
    alpn: tuple[str, ...] = ()
    """The application protocols that TLS towards clients and servers names."""
    goodbye: bytes = b""
    """What a server is sent before its connection is closed."""
    asks_defaults: bool = False
    """It has `survey`, `defaults` and `told`."""
    rereads: bool = False
    """`prove` is cheap, and what it says may change: it is asked again at each login for which a server connection is idle."""

    def accept(self, policy: "FrontendPolicy") -> "Exchange[ClientLogin | CancelRequest]":
        """Log a client in, from its first byte to the moment when its password (or certificate) has been accepted."""
        raise NotImplementedError

    def login_now(self, login: "ClientLogin", relay: "ClientRelay") -> "ClientLogin":
        """`login` of the client with this relay, as far as it still is what was agreed on then."""
        return login

    def reaccept(self, policy: "FrontendPolicy", login: "ClientLogin", request: bytes) -> "Exchange[ClientLogin]":
        """Log a client in anew, who came in by `login` and asks for it with `request`. Only asked of engines whose relays say REACCEPT."""
        raise NotImplementedError

    def welcome(self, login: "ClientLogin", parameters: dict[str, str], process_id: int, secret: bytes) -> bytes:
        """What ends a client's login: the parameters that it is told, its (virtual) cancel key, ready."""
        raise NotImplementedError

    def kind_of_session(self, login: "ClientLogin") -> tuple[str, dict[str, str]]:
        """What only a login at the server can make of a client's sessions: clients that differ in it have pools of their own.

        Returns what such a pool is called (the usual one: ""), and what the login takes as `ServerTarget.parameters`.
        """
        del login
        return "", {}

    def client_relay(self, login: "ClientLogin", limits: "RelayLimits") -> ClientRelay:
        """A relay for a client that has just been welcomed."""
        raise NotImplementedError

    def greeted_version(self) -> "Exchange[tuple[str, int]] | None":
        """What a server says of its version, and of sessions (`greeting_status`), before any login; None where clients are not told before
        they log in."""
        raise NotImplementedError

    def greeting_status(self, parameters: dict[str, str]) -> int:
        """What a greeting says of a session that is given these `parameters` (`prove`). Only of engines that greet."""
        del parameters
        return 0

    def as_greeted(self, parameters: dict[str, str], status: int) -> dict[str, str]:
        """`parameters`, for a client that was greeted with `status`: it came in before they have changed."""
        del status
        return parameters

    def connect(self, target: "ServerTarget") -> "Exchange[ServerLogin]":
        """Log in at a server. Raises ConnectFailed with the server's answer."""
        raise NotImplementedError

    def server_relay(self, login: "ServerLogin", limits: "RelayLimits", target: "ServerTarget") -> ServerRelay:
        """A relay for a server connection that has just logged in at `target`."""
        raise NotImplementedError

    def unproven(self, login: "ClientLogin") -> "Settings":
        """The settings of a client's login of which only the server can tell whether they are possible."""
        raise NotImplementedError

    def prove(self, relay: ServerRelay, wanted: "Settings") -> "Exchange[dict[str, str]]":
        """Bring the session to `wanted`. Returns the parameters that a client with these settings is told at login.

        Raises LoginFailed with the server's own answer if it refuses a setting.
        """
        raise NotImplementedError

    def capacity(self, relay: ServerRelay, login: "ServerLogin") -> "Exchange[int]":
        """Ask the server how many connections it allows to ordinary users. Raises ServerLost."""
        raise NotImplementedError

    def survey(self, relay: ServerRelay) -> "Exchange[str]":
        """Ask a session that has just logged in what its relay must know. The result is that of `defaults`."""
        raise NotImplementedError

    def defaults(self, relay: ServerRelay, user: str) -> "Exchange[str]":
        """Ask an idle session by what defaults a session of the server's `user` would begin now. Raises ServerLost.

        The result is another one after each change; "" if it is not known. What the session reports meanwhile becomes its own.
        """
        raise NotImplementedError

    def told(self, relay: ServerRelay) -> dict[str, str]:
        """The defaults of which clients are told at login, as the session has them."""
        raise NotImplementedError

    def role(self, login: "ServerLogin") -> "Exchange[str]":
        """Ask an idle session what the server is: "read-write", "read-only" (a primary that takes no writes) or "standby". ServerLost."""
        raise NotImplementedError

    def find_secrets(self, login: "ServerLogin", sql: str, user: str) -> "Exchange[tuple[str, ...] | None]":
        """Ask an idle session what the server stores to recognise `user` (see Account.secrets); None: it knows no such user.

        `sql` returns a row with the name and the stored secret, and has $1 in the place of the name; "" is the engine's own way. Raises
        ConnectFailed with the server's error, ServerLost.
        """
        raise NotImplementedError

    def recover(self, relay: ServerRelay) -> "Exchange[None]":
        """After a client vanished: read and drop what it was owed, roll back, and see that the session is quiet. Raises ServerLost."""
        raise NotImplementedError

    def reset(self, relay: ServerRelay) -> "Exchange[None]":
        """Bring the session to its state after login; `relay.dirty` is False afterwards. Raises ServerLost."""
        raise NotImplementedError

    def check(self, relay: ServerRelay, query: str) -> "Exchange[None]":
        """Run `query` (an empty one if "") and see that it is answered without an error. Raises ServerLost."""
        raise NotImplementedError

    def cancel(self, target: "ServerTarget", login: "ServerLogin") -> "Exchange[None]":
        """On a new connection to the same server: cancel what `login` is running. Returns when the server has taken it."""
        raise NotImplementedError

    def listening(self) -> ListeningWords:
        """How to listen on a connection that has just logged in. Only asked of engines whose relays say LISTENS."""
        raise NotImplementedError

    def console(self, login: "ClientLogin", process_id: int, secret: bytes) -> "Exchange[None]":
        """Welcome a client to the admin console and serve it there until it leaves. Yields RunCommand and DescribeCommand."""
        raise NotImplementedError

    def ask(self, login: "ServerLogin", command: str) -> "Exchange[Answer]":
        """The other side of `console`: give a command and read the answer. Raises CommandRefused with the console's words."""
        raise NotImplementedError

    def error_message(self, error: "DualpoolError", login: "ClientLogin | None" = None) -> bytes:
        """`error` as this protocol sends it; `login`: to a client that was accepted and is not welcomed yet.

        To a client that is logged in, only its relay knows how (`ClientRelay.error_message`).
        """
        raise NotImplementedError

    def notice_message(self, text: str) -> bytes:
        """A notice outside any reply; b"" where the protocol has none (MySQL)."""
        raise NotImplementedError

    def shown(self, request: bytes, relay: ClientRelay, limit: int) -> str:
        """The first statement in a client's `request` (bytes as they came), without literals, at most `limit` characters; "" if none."""
        raise NotImplementedError

    def socket_path(self, directory: str, port: int) -> str:
        """Where in a directory a server's Unix socket is."""
        raise NotImplementedError


class RelayLimits:
    """The sizes that relays keep to. Bytes, except where the name says otherwise."""

    __slots__ = (
        "asks_sequences",
        "asks_temporary",
        "frame_bytes",
        "listen",
        "mode",
        "pin_policies",
        "pin_policy",
        "sequence_values",
        "statement_bytes",
        "statements_per_client",
        "statements_per_server",
        "strict",
        "verify",
        "verify_every",
    )

    def __init__(
        self,
        mode: int = TRANSACTION,
        frame_bytes: int = 1 << 18,
        statement_bytes: int = 1 << 22,
        statements_per_client: int = 1000,
        statements_per_server: int = 200,
        pin_policy: int = PIN_WARN,
        pin_policies: "dict[str, int] | None" = None,
        listen: int = LISTEN_SHARED,
    ) -> None:
        self.mode = mode
        self.pin_policy = pin_policy
        """What happens when a session is pinned, and `pin_policies`: the same for the reasons that have their own."""
        self.pin_policies: dict[str, int] = pin_policies or {}
        self.listen = listen
        self.verify = VERIFY_LEARN
        """When what a session holds is asked after a text of which it is not certain that it changes nothing."""
        self.verify_every = 0
        """Of so many leases in which all looked harmless, one is asked; 0: none."""
        self.sequence_values = SEQUENCE_ERROR
        self.asks_sequences = False
        """Some client has asked for the last value of a sequence: leases begin without those of others."""
        self.asks_temporary = False
        """Some client has asked for what tells if its session has had temporary tables: leases begin on sessions that had none."""
        self.strict = False
        """For development: what a session really holds is compared with what its relay believes, at the end of each lease."""
        self.frame_bytes = frame_bytes
        """A frame up to this size is interpreted whole; of a longer one only its head is, and the rest is passed on as it comes."""
        self.statement_bytes = statement_bytes
        """The text of all prepared statements of one client."""
        self.statements_per_client = statements_per_client
        self.statements_per_server = statements_per_server

    def policy_of(self, reason: str) -> int:
        """What happens when a session is pinned for `reason` (what it holds, in the words of `ServerRelay.pin_reasons`)."""
        return self.pin_policies.get(reason.lower(), self.pin_policy)

    def refused_pins(self, reasons: dict[int, str]) -> int:
        """Of the pins with these reasons, by their bits: those that are not allowed. An engine asks once for each client."""
        return sum(bit for bit, reason in reasons.items() if self.policy_of(reason.partition(";")[0]) == PIN_ERROR)
