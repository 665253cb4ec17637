"""Who may come in, and as whom dualpool logs in at the server. Plain data; the hashing is in `<engine>/auth.py`."""

from typing import Literal

import attrs

from dualpool.errors import ConnectFailed
from dualpool.protocol import APPLICATION, TRANSACTION, TlsInfo

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
AuthMethod = Literal["auto", "trust", "password", "md5", "scram-sha-256", "cert"]
"""How a PostgreSQL client proves who it is. `auto`: the strongest that the stored secret allows. MySQL: see mysql/auth.py."""


@attrs.frozen
class Account:
    """A client's user in one database: what it must prove, and what it gets.

    `secrets` are what is stored for the user, as in the configuration: plain passwords, `SCRAM-SHA-256$...`, `md5...` (PostgreSQL),
    `*HEX` and `$A$005$...` (MySQL). Any one that fits lets the client in. None at all: only `trust` or a certificate lets it in.
    `decoy`: the user or the database is unknown; the login must look and last like one with a wrong password, and fail.
    `certificate_name`: the CN that its certificate must have, if not the user's name. `passthrough`: whatever password the client sends is
    the one, because the server will be asked before it gets in.
    `console`: the database is the admin console. `admin` may do everything there, `monitor` may look.
    `configured`: the configuration names the user; if it no longer does, the user has to go.
    """

    user: str
    database: str
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    method: AuthMethod = "auto"
    mode: int = TRANSACTION
    lane: int = APPLICATION
    admin: bool = False
    monitor: bool = False
    console: bool = False
    configured: bool = False
    decoy: bool = False
    certificate_name: str = ""
    passthrough: bool = False


@attrs.frozen
class LearntSecret:
    """What a client's login revealed that can log in at a server: the password itself, or SCRAM keys, or a SHA-1/SHA-256 stage.

    Used where only a verifier is stored (SCRAM pass-through). Kept in memory only, never logged.
    """

    password: str = attrs.field(default="", repr=False)
    scram_client_key: bytes = attrs.field(default=b"", repr=False)
    scram_server_key: bytes = attrs.field(default=b"", repr=False)
    stage1: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen
class FrontendPolicy:
    """What a listener allows. `tls`: a certificate is configured, so TLS can be offered. `client_address`: for messages only.

    MySQL's greeting comes before the client has said anything, so it is here: `server_version` ("" for mysql/frontend.py's own),
    `server_status` (of a new session: Engine.greeting_status), `auth_plugin` ("" likewise) and `connection_id`, unique per client: what it
    sees as CONNECTION_ID() and names in a KILL.
    """

    tls: bool = False
    tls_required: bool = False
    client_certificates: bool = False
    unix_socket: bool = False
    max_startup_bytes: int = 10_000
    client_address: str = ""
    server_version: str = ""
    server_status: int = 2
    auth_plugin: str = ""
    connection_id: int = 0


@attrs.frozen
class ClientLogin:
    """A client that is in. `parameters`: its start-up parameters (PostgreSQL) or connection attributes (MySQL), user and database aside.

    `sequence`: the number of the packet that ends the login, be it `welcome()` or an error (MySQL).
    `connection_id`, `server_version`: as in FrontendPolicy.
    """

    account: Account
    parameters: dict[str, str]
    learnt: LearntSecret | None
    tls: TlsInfo | None
    protocol_version: int = 0
    capabilities: int = 0
    character_set: int = 0
    replication: bool = False
    sequence: int = 0
    connection_id: int = 0
    server_version: str = ""
    pending: bytes = b""
    """Bytes that came behind a login anew (Engine.reaccept), for the relay."""


@attrs.frozen
class CancelRequest:
    """A connection that carried only a cancel request (PostgreSQL docs: Canceling Requests in Progress)."""

    process_id: int
    secret: bytes


@attrs.frozen
class ServerTarget:
    """Where and as whom a server connection logs in. `host` starting with `/` is a Unix socket directory or path."""

    host: str
    port: int
    user: str
    database: str
    password: str = attrs.field(default="", repr=False)
    learnt: LearntSecret | None = None
    sslmode: SslMode = "prefer"
    direct_tls: bool = False
    parameters: dict[str, str] = attrs.field(factory=dict)
    address: str = ""
    """The numeric address that `host` turned out to be, for what has to reach the same server; "" before, and for a Unix socket."""


@attrs.frozen
class ServerLogin:
    """A server connection that is in. `parameters`: what the server reported. `secret`: its cancel key; `process_id`: pid or thread id.

    `defaults`: the values of its variables that each new session begins with, as far as they are known (MySQL).
    """

    parameters: dict[str, str]
    process_id: int
    secret: bytes = attrs.field(default=b"", repr=False)
    version: str = ""
    capabilities: int = 0
    tls: TlsInfo | None = None
    pending: bytes = b""
    """Bytes that came after the login's last message, for the relay."""
    defaults: dict[str, str] = attrs.field(factory=dict)


def stored_secret(rows: list[list[bytes | None]]) -> bytes | None:
    """What the rows of an auth_query (name, stored password) say of a user. None: no such user; b"": one whom no password lets in.

    Only the first row counts. Raises ConnectFailed for rows of less than two columns.
    """
    if not rows:
        return None
    if len(rows[0]) < 2:
        raise ConnectFailed("auth_query must return two columns: the user, and the stored password")
    name, secret = rows[0][:2]
    return None if name is None else secret or b""
