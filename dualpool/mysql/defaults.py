"""What a server gives a new session: the global values of the variables that sessions have of their own.

A server connection has those of its login (or reset), and a client those of its login. SET GLOBAL reaches new sessions only, so the two are
compared at each lease; and at each login of a client the server is asked whether they have changed, if a server connection is idle.

Sources: MySQL Reference Manual, "SET Syntax for Variable Assignment"; MariaDB documentation, "Information Schema SYSTEM_VARIABLES Table".
"""

from typing import Final

from dualpool.errors import RemoteProtocolError, ServerLost
from dualpool.mysql import session_sql, wire
from dualpool.mysql.codec import row_values
from dualpool.mysql.messages import Conversation, is_end, text
from dualpool.protocol import ConnectionClosed, Exchange, Send

MAX_REPLY: Final = 1 << 20
NAMES: Final = (
    "SELECT LOWER(VARIABLE_NAME), 0 FROM performance_schema.global_variables LIMIT 10000",
    "SELECT LOWER(VARIABLE_NAME), 0 FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_SCOPE = 'SESSION' LIMIT 10000",
)
"""Of MySQL, and of MariaDB: a query for the names of variables with a global value."""
MAX_VERSIONS: Final = 64

KNOWN_NAMES: Final[dict[str, tuple[str, ...]]] = {}
"""By the server's version: the variables that are asked for."""

Row = list[bytes | None]


def ask_defaults(version: str, capabilities: int) -> Exchange[dict[str, str]]:
    """As `read_defaults`, of a session that nobody uses."""
    talk = Conversation(MAX_REPLY)
    talk.eager = True
    found = yield from read_defaults(talk, version, capabilities)
    if talk.leftover:
        raise ServerLost("the server says more than it was asked")
    return found


def ask_role(version: str, capabilities: int) -> Exchange[str]:
    """As `read_role`, of a session that nobody uses."""
    talk = Conversation(MAX_REPLY)
    talk.eager = True
    return (yield from read_role(talk, version, capabilities))


def read_role(talk: Conversation, version: str, capabilities: int) -> Exchange[str]:
    """Ask for the current role; NO_ROLE where the server has none. Raises ServerLost."""
    query = session_sql.select_role(version)
    try:
        rows = (yield from _rows(talk, query, capabilities)) if query else []
    except (ConnectionClosed, RemoteProtocolError) as error:
        raise ServerLost("the server did not answer when it was asked for its role") from error
    return text(rows[0][0] or b"") if len(rows) == 1 else session_sql.NO_ROLE


def read_defaults(talk: Conversation, version: str, capabilities: int) -> Exchange[dict[str, str]]:
    """Ask for what new sessions get, by name; nothing from a server that cannot tell. Raises ServerLost."""
    try:
        names = KNOWN_NAMES.get(version)
        found = None
        if names is not None:
            found = yield from _values(talk, capabilities, names)
        if found is None:
            # Not asked yet; or another server of the same version has other plugins.
            names = yield from _ask_names(talk, version, capabilities)
            found = yield from _values(talk, capabilities, names)
    except (ConnectionClosed, RemoteProtocolError) as error:
        raise ServerLost("the server did not answer when it was asked for its defaults") from error
    return found or {}


def _ask_names(talk: Conversation, version: str, capabilities: int) -> Exchange[tuple[str, ...]]:
    rows = yield from _rows(talk, NAMES["MariaDB" in version], capabilities)
    known = session_sql.with_defaults(version, {text(row[0] or b"") for row in rows})
    if known:
        if len(KNOWN_NAMES) >= MAX_VERSIONS:
            KNOWN_NAMES.clear()
        KNOWN_NAMES[version] = known
    return known


def _values(talk: Conversation, capabilities: int, names: tuple[str, ...]) -> Exchange[dict[str, str] | None]:
    """None: the server does not know one of them."""
    if not names:
        return {}
    rows = yield from _rows(talk, session_sql.select_defaults(names), capabilities)
    if len(rows) != 1:
        return None
    values = (rows[0][0] or b"").split(b"\n")
    return {name: text(value) for name, value in zip(names, values, strict=True)} if len(values) == len(names) else None


def _rows(talk: Conversation, sql: str, capabilities: int) -> Exchange[list[Row]]:
    """The rows of a query's answer; none if it is an error."""
    yield Send(wire.packet(0, bytes((wire.COM_QUERY,)) + sql.encode()))
    rows, error = yield from read_result(talk, capabilities)
    return [] if error else rows


def read_result(talk: Conversation, capabilities: int) -> Exchange[tuple[list[Row], bytes]]:
    """The rows of the answer to a query, and the ERR packet's payload if that ends them."""
    talk.sequence = 1
    rows: list[Row] = []
    payload = yield from talk.receive()
    if payload[:1] == b"\xff":
        return rows, payload
    columns, _ = wire.get_lenenc(payload, 0)
    for _ in range(columns if capabilities & wire.CLIENT_DEPRECATE_EOF else columns + 1):
        yield from talk.receive()
    while not is_end(payload := (yield from talk.receive()), capabilities):
        if payload[:1] == b"\xff":
            return rows, payload
        rows.append(row_values(payload))
    return rows, b""
