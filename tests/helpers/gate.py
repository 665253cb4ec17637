"""A TCP proxy before a server whose gate a test can close: connections that come then are accepted, and get no further until it opens."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Gate:
    """Listens on `address`. `arrived`: how many connections have come; `waiting`: those that stand before the closed gate."""

    def __init__(self, host: str, port: int) -> None:
        """`host`, `port`: the server."""
        self.arrived = 0
        self.waiting = 0
        self._server = (host, port)
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        """Who comes from now on has to wait."""
        self._open.clear()

    def open(self) -> None:
        """Let everybody through."""
        self._open.set()

    def close(self) -> None:
        """The end of it, and of every connection through it."""
        self._open.set()
        for sock in [self._listening, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._sockets.append(client)
                self.arrived += 1
                threading.Thread(target=self._let_through, args=(client,), daemon=True).start()

    def _let_through(self, client: socket.socket) -> None:
        self.waiting += 1
        self._open.wait()
        self.waiting -= 1
        with contextlib.suppress(OSError):
            server = socket.create_connection(self._server)
            self._sockets.append(server)
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()
            _copy(client, server)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def gate(host: str, port: int) -> Iterator[Gate]:
    """A Gate before a server."""
    made = Gate(host, port)
    try:
        yield made
    finally:
        made.close()
