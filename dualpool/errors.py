"""One tree of errors. Each carries what a client of either engine must be told: a SQLSTATE, a MySQL code and a sentence.

Whoever sends an error to a client asks the engine for its message (`Engine.error_message`); nobody else looks at the codes.
"""

from typing import ClassVar


class DualpoolError(Exception):
    """Base of every error that dualpool raises on purpose.

    `sqlstate` is PostgreSQL's five characters (docs: Appendix A), `errno` and `mysql_sqlstate` are MySQL's (Server Error Reference).
    `hint` is what to do about it, in a sentence of its own.
    """

    sqlstate: str = "58000"
    errno: int = 1105
    mysql_sqlstate: str = "HY000"
    severity: ClassVar[str] = "ERROR"

    def __init__(self, message: str, *, hint: str = "", sqlstate: str | None = None, errno: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if sqlstate is not None:
            self.sqlstate = sqlstate
        if errno is not None:
            self.errno = errno


class ConfigError(DualpoolError):
    """The configuration cannot be used. The message holds every problem found, a line each (`file:line: key: what is allowed`)."""

    sqlstate = "F0000"


class PoolError(DualpoolError):
    """The pool could not give a server connection."""

    sqlstate = "53300"
    errno = 1040
    mysql_sqlstate = "08004"


class CheckoutTimeout(PoolError):
    """A client waited `timeouts.query_wait` for a server connection and got none."""


class QueueFull(PoolError):
    """`limits.max_waiting_clients` wait for the pool already."""


class TooManyClients(PoolError):
    """`limits.max_client_connections` is reached: a login ends."""

    severity = "FATAL"


class PoolClosed(PoolError):
    """dualpool is shutting down, or the database was disabled."""

    sqlstate = "57P01"
    errno = 1053
    mysql_sqlstate = "08S01"


class ConnectFailed(PoolError):
    """No connection to the backend could be made. If the server answered with an error, its SQLSTATE / code is passed on."""

    sqlstate = "08006"
    errno = 2003
    mysql_sqlstate = "08S01"


class ServerLost(DualpoolError):
    """The server connection broke while this client was using it."""

    sqlstate = "08006"
    errno = 2013
    mysql_sqlstate = "08S01"
    severity = "FATAL"


class QueryCanceled(DualpoolError):
    """The client's own cancel request ended its wait."""

    sqlstate = "57014"
    errno = 1317
    mysql_sqlstate = "70100"


class QueryTimeout(DualpoolError):
    """A query took longer than `timeouts.query`. It is cancelled at the server, and the client is disconnected."""

    sqlstate = "57014"
    errno = 3024
    severity = "FATAL"


class TransactionTimeout(DualpoolError):
    """A transaction took longer than `timeouts.transaction`."""

    sqlstate = "25P04"
    errno = 3024
    severity = "FATAL"


class IdleInTransactionTimeout(DualpoolError):
    """A client did nothing inside a transaction for longer than `timeouts.idle_in_transaction`."""

    sqlstate = "25P03"
    errno = 1205
    severity = "FATAL"


class ClientIdleTimeout(DualpoolError):
    """A client did nothing for longer than `timeouts.client_idle`."""

    sqlstate = "57P05"
    errno = 4031
    severity = "FATAL"


class PinIdleTimeout(DualpoolError):
    """A client did nothing for longer than `timeouts.pin_idle` while it was pinned to its server connection."""

    sqlstate = "57P05"
    errno = 4031
    severity = "FATAL"


class ListenerTooSlow(DualpoolError):
    """A client does not take the notifications that it listens to."""

    sqlstate = "53400"
    severity = "FATAL"


class AdminShutdown(DualpoolError):
    """dualpool ends; the client should connect again, later or elsewhere."""

    sqlstate = "57P01"
    errno = 1053
    mysql_sqlstate = "08S01"
    severity = "FATAL"


class LoginFailed(DualpoolError):
    """The client may not come in. The message never tells whether the user or the database exists."""

    sqlstate = "28P01"
    errno = 1045
    mysql_sqlstate = "28000"
    severity = "FATAL"


class LoginTimeout(DualpoolError):
    """The login took longer than `timeouts.client_login`."""

    sqlstate = "08P01"
    errno = 1159
    mysql_sqlstate = "08S01"
    severity = "FATAL"


class ProtocolError(DualpoolError):
    """Bytes that the protocol does not allow. `Remote`: the peer sent them. `Local`: we were about to."""

    sqlstate = "08P01"
    errno = 1835
    mysql_sqlstate = "HY000"
    severity = "FATAL"


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol."""


class LocalProtocolError(ProtocolError):
    """dualpool itself was about to break the protocol: a bug. Nothing was written."""


class FeatureRefused(DualpoolError):
    """The statement is fine, but not in this pool mode or under this limit."""

    sqlstate = "0A000"
    errno = 1235
    mysql_sqlstate = "42000"


class StateLeaked(FeatureRefused):
    """Strict mode: a session holds what its relay could not see to begin, so it would have leaked to the next client."""


class CommandRefused(DualpoolError):
    """The admin console does not know the command, or cannot carry it out. The codes are those of PgBouncer, and of a syntax error."""

    sqlstate = "08P01"
    errno = 1064
    mysql_sqlstate = "42000"


class NotAllowed(DualpoolError):
    """The user may not do this on the admin console."""

    sqlstate = "42501"
    errno = 1227
    mysql_sqlstate = "42000"
