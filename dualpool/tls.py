"""TLS contexts, from the configuration. Meaning of sslmode: PostgreSQL docs, "SSL Support" (libpq); MySQL's ssl-mode says the same."""

import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dualpool.config import Backend, Tls


class ListenerContext(ssl.SSLContext):
    """Towards clients. `certificate_der`: our own certificate, for channel binding."""

    certificate_der: bytes = b""


def listener_context(tls: Tls, alpn: Sequence[str]) -> ListenerContext:
    """What a listener offers to its clients. Raises OSError or ValueError for files that cannot be used."""
    context = ListenerContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)
    context.certificate_der = x509.load_pem_x509_certificate(Path(tls.cert).read_bytes()).public_bytes(Encoding.DER)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if tls.client_ca:
        context.load_verify_locations(tls.client_ca)
        verified = tls.mode in {"verify-ca", "verify-full"}
        context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_OPTIONAL
    context.sni_callback = _remember_name
    return context


def _remember_name(sock: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    sock.requested_name = name  # type: ignore[attr-defined]


def backend_context(backend: Backend, alpn: Sequence[str]) -> ssl.SSLContext | None:
    """What we use towards a server; None for sslmode=disable. Raises OSError for files that cannot be used."""
    if backend.sslmode == "disable" and backend.sslnegotiation != "direct":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # libpq: with a root certificate at hand, `require` checks the chain as verify-ca does.
    verify = backend.sslmode in {"verify-ca", "verify-full"} or (backend.sslmode == "require" and bool(backend.sslrootcert))
    context.check_hostname = backend.sslmode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if backend.sslrootcert == "system" or (verify and not backend.sslrootcert):
        context.load_default_certs()
    elif backend.sslrootcert:
        context.load_verify_locations(backend.sslrootcert)
    if backend.sslcert:
        context.load_cert_chain(backend.sslcert, backend.sslkey or None)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
