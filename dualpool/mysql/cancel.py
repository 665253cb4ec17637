"""Ending what a server connection runs: KILL QUERY, from a connection of its own."""

from dualpool.accounts import ServerLogin, ServerTarget
from dualpool.errors import ConnectFailed, RemoteProtocolError
from dualpool.mysql import wire
from dualpool.mysql.backend import log_in, query, read_status, refused
from dualpool.mysql.messages import parse_error
from dualpool.protocol import ConnectionClosed, Exchange, Send

NO_SUCH_THREAD = 1094


def cancel(target: ServerTarget, login: ServerLogin) -> Exchange[None]:
    """Cancel what `login` is running. Returns when the server has marked it, which is before it stops. Raises ConnectFailed.

    A server connection that is gone has nothing to be cancelled: that is no error.
    """
    session = yield from log_in(target)
    try:
        yield Send(query(f"KILL QUERY {login.process_id}"))
        refusal = yield from read_status(session.talk)
    except (ConnectionClosed, RemoteProtocolError) as error:
        raise ConnectFailed("the server did not answer KILL QUERY", errno=2013) from error
    if refusal and parse_error(refusal).errno != NO_SUCH_THREAD:
        raise refused(refusal)
    yield Send(wire.packet(0, bytes((wire.COM_QUIT,))))
