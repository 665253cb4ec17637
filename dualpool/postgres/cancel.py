"""Cancelling what a server connection runs. Source: docs, "Canceling Requests in Progress"."""

from dualpool.accounts import ServerLogin, ServerTarget
from dualpool.errors import ConnectFailed, RemoteProtocolError
from dualpool.postgres import backend, messages
from dualpool.protocol import ConnectionClosed, Exchange, ReceiveSome, Send


def cancel(target: ServerTarget, login: ServerLogin) -> Exchange[None]:
    """On a new connection: cancel what `login` runs. Returns when the server has taken the request, which it tells by closing."""
    if not login.secret:
        return
    try:
        if login.tls is not None:
            # The key opens the session to whoever reads it on the way, so it travels as the session itself does.
            yield from backend.secure(target)
        yield Send(messages.cancel_request(login.process_id, login.secret))
    except ConnectionClosed as closed:
        raise ConnectFailed("the server closed the connection before it took the cancel request") from closed
    except RemoteProtocolError as error:
        raise ConnectFailed(f"the cancel request could not be sent: {error.message}", hint=error.hint) from error
    yield from _wait_for_end()


def _wait_for_end() -> Exchange[None]:
    try:
        while True:
            yield ReceiveSome()
    except ConnectionClosed:
        return
