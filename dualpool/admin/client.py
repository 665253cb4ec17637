"""A small client of the console, for the command line: it speaks whichever protocol the URL names, by the engines' own exchanges."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from dualpool.accounts import ServerLogin, ServerTarget
from dualpool.answers import Answer
from dualpool.config import Backend, Bind, Config, Listener, load, parse_url
from dualpool.config.client_urls import format_url, plain_password
from dualpool.engines import ENGINES
from dualpool.errors import ConfigError, ConnectFailed, ServerLost
from dualpool.exchange import Stream, drive
from dualpool.protocol import ConnectionClosed, Engine
from dualpool.tls import backend_context

DATABASE: Final = "dualpool"
CONNECT_SECONDS: Final = 10.0


class ConsoleClient:
    """A connection to a console."""

    def __init__(self, engine: Engine, stream: Stream, login: ServerLogin) -> None:
        self._engine = engine
        self._stream = stream
        self._login = login

    async def ask(self, command: str) -> Answer:
        """Carry out a command. Raises CommandRefused with the console's words, ServerLost if there is no console any more."""
        try:
            return await drive(self._engine.ask(self._login, command), self._stream)
        except ConnectionClosed as closed:
            raise ServerLost("the console has closed the connection") from closed


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[ConsoleClient]:
    """A client of the console at `url`. Raises ConnectFailed, ConfigError."""
    backend = backend_of(url)
    engine = ENGINES[backend.protocol]
    host, port = backend.hosts[0]
    direct = backend.sslnegotiation == "direct"
    target = ServerTarget(host, port, backend.user, backend.database or DATABASE, backend.password, None, backend.sslmode, direct)
    with trio.move_on_after(CONNECT_SECONDS) as deadline:
        sock = await dial(engine, host, port)
        stream = Stream(sock, backend_context(backend, engine.alpn), server_side=False, server_name=host if host[:1] != "/" else "")
        try:
            login = await drive(engine.connect(target), stream)
        except ConnectionClosed as closed:
            stream.close()
            raise ConnectFailed(f"{host}:{port} closed the connection during the login") from closed
        except BaseException:
            stream.close()
            raise
    if deadline.cancelled_caught:
        raise ConnectFailed(f"{host}:{port} did not answer within {CONNECT_SECONDS:g} s")
    try:
        yield ConsoleClient(engine, stream, login)
    finally:
        stream.close()


def backend_of(url: str) -> Backend:
    """What a URL says. Raises ConfigError."""
    try:
        parsed = parse_url(url)
    except ValueError as error:
        raise ConfigError(f"--url: {error}") from None
    return attrs.evolve(Backend(name="console", url=url), **parsed.attributes())


async def dial(engine: Engine, host: str, port: int) -> socket.socket:
    """A connected, non-blocking socket. Raises ConnectFailed."""
    try:
        if host.startswith("/"):
            path = engine.socket_path(host, port)
            connecting = trio.socket.socket(trio.socket.AF_UNIX)
            await connecting.connect(path)
        else:
            connecting = (await trio.open_tcp_stream(host, port)).socket
    except OSError as error:
        raise ConnectFailed(f"{host}:{port} cannot be reached: {error.strerror or error}", hint="Is dualpool running?") from error
    sock = socket.socket(fileno=connecting.detach())
    sock.setblocking(False)
    return sock


def url_of(path: Path) -> str:
    """How an admin of the configuration in a file connects to its console. Raises ConfigError."""
    config = load(path)
    found = [(listener, bind) for listener in config.listeners.values() for bind in listener.bind if bind.unix or bind.port]
    if not found:
        raise ConfigError(f"{path}: no listener has a port of its own", hint="Say where the console is: --url.")
    for listener, bind in found:
        for user in config.admin.users:
            if url := url_for(config, listener, bind, user):
                return url
    raise ConfigError(f"{path}: no user of admin.users has a password that is not hashed", hint="Say how to log in: --url.")


def url_for(config: Config, listener: Listener, bind: Bind, user: str) -> str:
    """The URL of the console for a user, or "" if its password is not known."""
    password = plain_password(config, user) if user in config.users else ""
    return format_url(listener, bind, DATABASE, user, password) if password or listener.auth == "trust" else ""
