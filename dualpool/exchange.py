"""Drives an engine's exchanges (logins, resets, cancels) over a socket, with Trio. The only place where they meet the network.

A `Stream` borrows a non-blocking socket from whoever owns the connection; nothing here registers it with the reactor, so a socket is used
either by an exchange or by the reactor, never by both.
"""

import contextlib
import math
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from dualpool.accounts import Account
from dualpool.answers import Answer, Column
from dualpool.errors import DualpoolError, LocalProtocolError, RemoteProtocolError
from dualpool.protocol import (
    Command,
    ConnectionClosed,
    DescribeCommand,
    Exchange,
    FindAccount,
    Offload,
    Peek,
    Receive,
    ReceiveSome,
    RunCommand,
    Send,
    StartTls,
    TlsInfo,
)
from dualpool.transport import TlsTransport, Transport

R = TypeVar("R")
AccountFinder = Callable[[FindAccount], Awaitable[Account]]
ENDED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""What a TLS handshake raises when the peer has ended the connection without a word."""
LAST_WORDS = 0.5
"""Seconds in which an exchange that has run out of time may say so to its peer."""


class CommandRunner:
    """Who carries out the commands of an admin console session."""

    def describe(self, text: str) -> tuple[Column, ...] | None:
        """The columns that the command answers with, or None. Raises DualpoolError."""
        raise NotImplementedError

    async def run(self, text: str) -> Answer:
        """Carry it out. Raises DualpoolError."""
        raise NotImplementedError


class Stream:
    """A socket for exchanges. `start_tls` replaces the socket by its TLS form; `transport()` is what the reactor gets at the end."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None = None, *, server_side: bool, server_name: str = "") -> None:
        """`tls`: how to do TLS if an exchange asks for it. `server_name`: whom to expect (SNI and certificate), as a TLS client."""
        self.sock = sock
        self.context = tls
        self.server_side = server_side
        self.server_name = server_name

    async def send_all(self, data: bytes) -> None:
        """Write everything."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await trio.lowlevel.wait_writable(self.sock)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self.sock)
            except OSError as error:
                raise ConnectionClosed from error

    async def receive(self, size: int, flags: int = 0) -> bytes:
        """At least one byte and at most `size`. Raises ConnectionClosed at the end."""
        while True:
            try:
                data = self.sock.recv(size, flags) if flags else self.sock.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(self.sock)
                continue
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self.sock)
                continue
            except OSError as error:
                raise ConnectionClosed from error
            if not data:
                raise ConnectionClosed
            return data

    async def receive_exactly(self, size: int) -> bytes:
        """`size` bytes, and not one more."""
        data = await self.receive(size) if size else b""
        while len(data) < size:
            data += await self.receive(size - len(data))
        return data

    async def start_tls(self, required_alpn: str) -> TlsInfo:
        """The handshake. Raises RemoteProtocolError with the reason, and ConnectionClosed if the server ended instead of giving one."""
        if self.context is None:
            raise LocalProtocolError("TLS was asked for, but is not configured")
        tls = self.context.wrap_socket(
            self.sock,
            server_side=self.server_side,
            do_handshake_on_connect=False,
            server_hostname=self.server_name or None if not self.server_side else None,
        )
        self.sock = tls
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(tls)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(tls)
            except (OSError, ValueError) as error:
                if not self.server_side and isinstance(error, ENDED):
                    raise ConnectionClosed from error
                raise RemoteProtocolError(f"the TLS handshake failed: {error}", sqlstate="08006") from error
        alpn = tls.selected_alpn_protocol() or ""
        if required_alpn and alpn != required_alpn:
            raise RemoteProtocolError(f'direct TLS needs the application protocol "{required_alpn}" (ALPN), the peer chose "{alpn}"')
        return TlsInfo(
            version=tls.version() or "",
            alpn=alpn,
            server_name=getattr(tls, "requested_name", "") or "",
            local_certificate=getattr(self.context, "certificate_der", b""),
            peer_certificate=tls.getpeercert(binary_form=True) or b"",
        )

    def end(self) -> None:
        """Tell the peer that nothing more will come."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def is_tls(self) -> bool:
        """Has the TLS handshake been done?"""
        return isinstance(self.sock, ssl.SSLSocket)

    def transport(self) -> Transport:
        """The socket as the reactor wants it."""
        return TlsTransport(self.sock) if isinstance(self.sock, ssl.SSLSocket) else Transport(self.sock)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


async def drive(
    exchange: Exchange[R],
    stream: Stream,
    find_account: AccountFinder | None = None,
    commands: CommandRunner | None = None,
    until: float = math.inf,
    too_late: DualpoolError | None = None,
) -> R:
    """Run an exchange to its end and return its result. Raises what it raises; ConnectionClosed if the peer goes away.

    At the time `until` (trio's clock) `too_late` is thrown into it, as it alone knows how to tell the peer: LAST_WORDS are left for that.
    """
    result: Any = None
    error: Exception | None = None
    while True:
        try:
            command = exchange.throw(error) if error is not None else exchange.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        result, error = None, None
        try:
            with trio.move_on_at(until) as waiting:
                result = await _obey(command, stream, find_account, commands)
            if waiting.cancelled_caught:
                error = too_late
                until = trio.current_time() + LAST_WORDS
        except Exception as raised:
            error = raised
        except BaseException:
            exchange.close()
            raise


async def _obey(command: Command, stream: Stream, find_account: AccountFinder | None, commands: CommandRunner | None) -> Any:
    match command:
        case Send():
            return await stream.send_all(command.data)
        case Receive():
            return await stream.receive_exactly(command.size)
        case ReceiveSome():
            return await stream.receive(1 << 16)
        case Peek():
            return await stream.receive(1, socket.MSG_PEEK)
        case StartTls():
            return await stream.start_tls(command.required_alpn)
        case Offload():
            return await trio.to_thread.run_sync(command.call)
        case FindAccount() if find_account is not None:
            return await find_account(command)
        case RunCommand() if commands is not None:
            return await commands.run(command.text)
        case DescribeCommand() if commands is not None:
            return commands.describe(command.text)
    raise LocalProtocolError(f"an exchange asked for {type(command).__name__}, which has no meaning here")
