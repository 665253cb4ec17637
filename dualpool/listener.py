"""The accept loop: one session task per client, and a process that survives running out of file descriptors.

A successor may listen beside us (`reuse_port`). Who stops listening must not take clients along that the kernel has already connected:
closing a TCP socket resets what is in its queue. So it first lets no new connection into the queue (`turn_away`: a client's SYN is dropped,
and its next one finds the successor), gives handshakes that are under way the time to end, and takes what is there (`accept_waiting`).
A Unix socket is a name in a folder: the successor puts its own in the place of ours, and our queue is complete from then on.
"""

import ctypes
import errno
import logging
import os
import shutil
import socket
import stat
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from dualpool.config import Bind, Listener
from dualpool.errors import ConfigError
from dualpool.log import event
from dualpool.systemd import Inherited

OVERLOAD_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
OVERLOAD_PAUSE: Final = 0.1
"""Seconds to wait when there are no more descriptors: closing clients make room."""
ACCEPTS_PER_TURN: Final = 8
"""Each is a new task with a step of its own (0.2 ms) before the reactor has its next turn."""
HANDSHAKE_SECONDS: Final = 0.2
"""How long a TCP handshake that has begun may take to end: the round trip to a client on another continent."""
SO_ATTACH_FILTER: Final = 26
"""Linux, asm-generic/socket.h."""
NO_SYN: Final = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""A filter (Linux, networking/filter.rst) that drops a TCP segment with SYN and without ACK: load the flags, mask them, compare, return."""

Handler = Callable[[socket.socket], Awaitable[None]]


class ListeningSocket(socket.socket):
    """A socket of ours that listens. `path` and `file` (device and inode) are those of a Unix socket, which goes when we close it."""

    path: str = ""
    file: tuple[int, int] | None = None
    shared: bool = False
    """Others may listen on the same address."""


class ForeignSocket(ListeningSocket):
    """One that was opened for us, and goes on listening without us: it is not ours to remove."""


def bound_sockets(listener: Listener, inherited: Inherited | None = None) -> list[ListeningSocket]:
    """Listening, non-blocking sockets for every address of a listener. Raises ConfigError if one cannot be had.

    What has been opened for us is taken instead of opening it again: by the listener's name all of it, else address by address.
    """
    sockets: list[ListeningSocket] = []
    if inherited is not None and (given := inherited.named(listener.name)):
        return [foreign(sock) for sock in given]
    try:
        for bind in listener.bind:
            given = inherited.at(bind) if inherited is not None else []
            sockets += [foreign(sock) for sock in given] or sockets_for(
                bind, listener.backlog, listener.socket_mode, listener.socket_group, share=listener.reuse_port
            )
    except OSError as error:
        for sock in sockets:
            close_listening(sock)
        raise ConfigError(
            f"listeners.{listener.name}.bind: cannot listen on {bind}: {error.strerror or error}",
            hint="Another process may use the address; choose another port.",
        ) from error
    return sockets


def foreign(sock: socket.socket) -> ListeningSocket:
    """A socket that was opened for us."""
    found = ForeignSocket(fileno=sock.detach())
    found.setblocking(False)
    if found.family == socket.AF_UNIX:
        found.path = found.getsockname()
    return found


def address_of(sock: ListeningSocket) -> str:
    """The address of a listening socket, as it is written in the configuration."""
    if sock.path:
        return f"unix:{sock.path}"
    name = sock.getsockname()
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def sockets_for(bind: Bind, backlog: int, mode: str = "0777", group: str = "", *, share: bool = False) -> list[ListeningSocket]:
    """Listening, non-blocking sockets for all that an address means; `mode` and `group` are for a Unix socket. Raises OSError.

    `share`: where another process of the same user listens too.
    """
    if bind.unix:
        return [_listening_unix(bind.unix, backlog, mode, group, share)]
    found = socket.getaddrinfo(bind.host or None, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [_listening(family, address, backlog, share) for family, _, _, _, address in dict.fromkeys(found)]


def _listening(family: int, address: object, backlog: int, share: bool) -> ListeningSocket:
    sock = ListeningSocket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share and hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.shared = True
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _listening_unix(path: str, backlog: int, mode: str, group: str, share: bool) -> ListeningSocket:
    sock = ListeningSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under another name until it listens: clients that come meanwhile still find who was there before.
    bound = f"{path}.{os.getpid()}" if share else path
    try:
        sock.setblocking(False)
        _remove_stale(bound)
        sock.bind(bound)
        _permit(bound, mode, group)
        sock.listen(backlog)
        if share:
            os.rename(bound, path)
        sock.path, sock.file = path, _identity(path)
    except OSError:
        sock.close()
        raise
    return sock


def _identity(path: str) -> tuple[int, int] | None:
    """Which file it is, whatever its name; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _permit(path: str, mode: str, group: str) -> None:
    """Who may connect to a Unix socket; before it listens, so that nobody else ever could."""
    try:
        os.chmod(path, int(mode, 8))
        if group:
            shutil.chown(path, group=group)
    except (OSError, LookupError) as error:
        os.unlink(path)
        raise OSError(errno.EPERM, f"socket_mode, socket_group: {error}") from error


def _remove_stale(path: str) -> None:
    """A socket file that a dead process left behind would keep us from listening; one that answers is somebody's."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def close_listening(sock: ListeningSocket) -> None:
    """Close, unless that is done; a Unix socket's file goes with it, unless it is a successor's by now."""
    if sock.fileno() < 0:
        return
    ours = sock.file is not None and _identity(sock.path) == sock.file
    sock.close()
    if ours:
        try:
            os.unlink(sock.path)
        except OSError:
            pass


def turn_away(sockets: list[ListeningSocket]) -> bool:
    """Let no new connection come in where another process may take it. True if some may still be on their way in."""
    shared = [sock for sock in sockets if sock.shared and sys.platform == "linux"]
    return any(list(map(_filter, shared)))


def _filter(sock: ListeningSocket) -> bool:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in NO_SYN))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(NO_SYN), ctypes.addressof(code)))
    except OSError:
        return False
    return True


async def accept_clients(sock: ListeningSocket, nursery: trio.Nursery, handler: Handler) -> None:
    """Accept for ever, a task for each client. `handler` owns the client's socket and must not raise."""
    overloaded = False
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            accept_waiting(sock, nursery, handler, ACCEPTS_PER_TURN)
        except OSError as error:
            if not overloaded:
                event(logging.ERROR, f"cannot accept clients: {error.strerror}; raise the limit of open files (ulimit -n)")
            overloaded = True
            await trio.sleep(OVERLOAD_PAUSE)
        else:
            overloaded = False


def accept_waiting(sock: ListeningSocket, nursery: trio.Nursery, handler: Handler, limit: int) -> None:
    """Accept those who are in the queue, `limit` at most. Raises OSError when there are no more descriptors."""
    for _ in range(limit):
        try:
            client, _address = sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in OVERLOAD_ERRNOS:
                raise
            continue  # the client was gone before it was accepted
        client.setblocking(False)
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        nursery.start_soon(handler, client)
