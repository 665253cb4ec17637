"""Driving an exchange over a blocking socket: the smallest driver there can be, for tests against real peers."""

import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from dualpool.accounts import Account
from dualpool.errors import RemoteProtocolError
from dualpool.protocol import (
    Command,
    ConnectionClosed,
    Exchange,
    FindAccount,
    Offload,
    Peek,
    Receive,
    ReceiveSome,
    Send,
    StartTls,
    TlsInfo,
)

R = TypeVar("R")
TIMEOUT = 60.0
"""Seconds after which a silent peer fails the test."""


class Driver:
    """One connection. `tls`: the context for StartTls; `server_side`: we are the server of the handshake, with `certificate` (DER)."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        server_side: bool = False,
        certificate: bytes = b"",
        server_name: str = "localhost",
        find: Callable[[FindAccount], Account] | None = None,
    ) -> None:
        self.sock = sock
        self.sock.settimeout(TIMEOUT)
        self._tls = tls
        self._server_side = server_side
        self._certificate = certificate
        self._server_name = server_name
        self._find = find

    def run(self, exchange: Exchange[R]) -> R:
        """Run `exchange` to its end. Raises what it raises."""
        answer: object = None
        error: Exception | None = None
        while True:
            try:
                command = exchange.send(answer) if error is None else exchange.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            answer, error = None, None
            try:
                answer = self._do(command)
            except (ConnectionClosed, RemoteProtocolError) as failure:
                error = failure

    def _do(self, command: Command) -> object:
        if isinstance(command, Send):
            self._send(command.data)
            return None
        if isinstance(command, Receive):
            return self._exactly(command.size)
        if isinstance(command, ReceiveSome):
            return self._some(65536)
        if isinstance(command, Peek):
            return self._some(1, socket.MSG_PEEK)
        if isinstance(command, StartTls):
            return self._handshake(command.required_alpn)
        if isinstance(command, Offload):
            return command.call()
        assert isinstance(command, FindAccount)
        assert self._find is not None
        return self._find(command)

    def _send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise ConnectionClosed from error

    def _some(self, size: int, flags: int = 0) -> bytes:
        try:
            data = self.sock.recv(size, flags)
        except (ConnectionError, ssl.SSLError) as error:
            raise ConnectionClosed from error
        if not data:
            raise ConnectionClosed
        return data

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self._some(size - len(data))
        return data

    def _handshake(self, required_alpn: str) -> TlsInfo:
        assert self._tls is not None
        if required_alpn:
            self._tls.set_alpn_protocols([required_alpn])
        name = None if self._server_side else self._server_name
        try:
            sock = self._tls.wrap_socket(self.sock, server_side=self._server_side, server_hostname=name)
        except (ssl.SSLError, ConnectionError) as error:
            raise RemoteProtocolError(f"TLS handshake failed: {error}") from error
        self.sock = sock
        alpn = sock.selected_alpn_protocol() or ""
        if required_alpn and alpn != required_alpn:
            raise RemoteProtocolError("the peer did not choose the protocol by ALPN")
        return TlsInfo(sock.version() or "", alpn, "", self._certificate, sock.getpeercert(binary_form=True) or b"")
