"""Non-blocking sockets, plain and TLS, behind one interface. Nothing here waits and nothing here raises for the network's faults.

A TLS transport is a Python `SSLSocket` whose handshake is over (exchange.py does handshakes), so that both kinds are one file descriptor
for the reactor.
"""

import socket
import ssl
from typing import Final

WOULD_BLOCK: Final = None
END: Final = b""


class Transport:
    """A connected, non-blocking socket. Owned by one endpoint, which must `close()` it."""

    __slots__ = ("sock",)

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def recv(self, size: int) -> bytes | None:
        """At most `size` bytes; b"" when the peer is gone (for whatever reason); None when there is nothing now."""
        try:
            return self.sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return WOULD_BLOCK
        except OSError:
            return END

    def send(self, data: bytes) -> int:
        """How many bytes were taken; 0 when there is no room; -1 when the connection is broken (a read will tell, too)."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return -1

    def pending(self) -> bool:
        """True when bytes can be read that the operating system does not announce, because they wait in the TLS layer."""
        return False

    def fileno(self) -> int:
        """The file descriptor; -1 when closed."""
        return self.sock.fileno()

    def say_no_more(self) -> "Transport":
        """Nothing more comes from us. Replaces this transport."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return EndedTransport(self.sock)

    def close(self) -> None:
        """Close now. What the socket had already taken is still delivered."""
        try:
            # Unread input would turn the close into a reset, which can overtake the error message that we sent last.
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.recv(1 << 16)
        except OSError:
            pass
        self.sock.close()


class EndedTransport(Transport):
    """A connection on which we have said our last word. What still comes is only read so that closing does not become a reset, which can
    overtake that word."""

    __slots__ = ()

    def recv(self, size: int) -> bytes | None:
        """As Transport.recv, but below TLS: nobody looks at it."""
        try:
            return socket.socket.recv(self.sock, size)
        except (BlockingIOError, InterruptedError):
            return WOULD_BLOCK
        except OSError:
            return END

    def close(self) -> None:
        """Close now."""
        self.sock.close()


class TlsTransport(Transport):
    """A TLS connection after its handshake."""

    __slots__ = ("tls",)

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self.tls = sock

    def recv(self, size: int) -> bytes | None:
        """As Transport.recv. One TLS record is at most 16 KiB, so several are read to fill `size`."""
        chunks: list[bytes] = []
        total = 0
        tls = self.tls
        while total < size:
            try:
                data = tls.recv(size - total)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except (OSError, ValueError):
                data = END
            if not data:
                # Deliver what came before the end first; the next call finds the end again.
                return b"".join(chunks)
            chunks.append(data)
            total += len(data)
            if not tls.pending():
                break
        if not chunks:
            return WOULD_BLOCK
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def send(self, data: bytes) -> int:
        """As Transport.send. After a 0 the next call must start with the same bytes (OpenSSL: SSL_write, "bad write retry")."""
        try:
            return self.tls.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except (OSError, ValueError):
            return -1

    def pending(self) -> bool:
        """True when a decrypted record waits inside OpenSSL."""
        return self.tls.fileno() >= 0 and self.tls.pending() > 0

    def say_no_more(self) -> Transport:
        """As Transport.say_no_more, with a close_notify if the socket takes it at once."""
        self._notify()
        return super().say_no_more()

    def close(self) -> None:
        """Close now, with a close_notify if the socket takes it at once."""
        self._notify()
        super().close()

    def _notify(self) -> None:
        try:
            self.tls.setblocking(False)
            self.tls.unwrap()
        except (OSError, ValueError):
            pass
