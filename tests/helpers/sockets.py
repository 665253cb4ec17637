"""Connected pairs of sockets, plain and TLS, non-blocking."""

import socket
import ssl
import threading

import trustme

Pair = tuple[socket.socket, socket.socket]
HANDSHAKE_SECONDS = 60.0


def plain_pair(buffer: int = 0) -> Pair:
    """Two ends; with `buffer`, what one takes without a reader is about that many bytes."""
    one, two = socket.socketpair()
    for end in (one, two):
        if buffer:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        end.setblocking(False)
    return one, two


class Contexts:
    """TLS contexts of a server called `name` and of a client that trusts it, and has a certificate, too."""

    def __init__(self, name: str = "db.example", alpn: tuple[str, ...] = ()) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate = authority.issue_cert(name)
        self.certificate.configure_cert(self.server)
        authority.configure_trust(self.server)
        self.server.verify_mode = ssl.CERT_OPTIONAL
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.client)
        authority.issue_cert("me@example.org", common_name="app").configure_cert(self.client)
        if alpn:
            self.server.set_alpn_protocols(list(alpn))
            self.client.set_alpn_protocols(list(alpn))


def tls_pair(contexts: Contexts, buffer: int = 0) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """The server's end and the client's, after the handshake."""
    one, two = plain_pair(buffer)
    one.settimeout(HANDSHAKE_SECONDS)
    two.settimeout(HANDSHAKE_SECONDS)
    accepted: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: accepted.append(contexts.server.wrap_socket(one, server_side=True)), daemon=True)
    thread.start()
    client = contexts.client.wrap_socket(two, server_hostname="db.example")
    thread.join()
    server = accepted[0]
    server.setblocking(False)
    client.setblocking(False)
    return server, client
