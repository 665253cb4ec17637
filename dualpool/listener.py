"""The accept loop: one session task per client, and a process that survives running out of file descriptors."""

import errno
import logging
import os
import shutil
import socket
import stat
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from dualpool.config import Bind, Listener
from dualpool.errors import ConfigError
from dualpool.log import event

OVERLOAD_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
OVERLOAD_PAUSE: Final = 0.1
"""Seconds to wait when there are no more descriptors: closing clients make room."""
ACCEPTS_PER_TURN: Final = 32

Handler = Callable[[socket.socket], Awaitable[None]]


def bound_sockets(listener: Listener) -> list[socket.socket]:
    """Listening, non-blocking sockets for every address of a listener. Raises ConfigError if one cannot be had."""
    sockets: list[socket.socket] = []
    try:
        for bind in listener.bind:
            sockets += sockets_for(bind, listener.backlog, listener.socket_mode, listener.socket_group)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(
            f"listeners.{listener.name}.bind: cannot listen on {bind}: {error.strerror or error}",
            hint="Another process may use the address; choose another port.",
        ) from error
    return sockets


def address_of(sock: socket.socket) -> str:
    """The address of a listening socket, as it is written in the configuration."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def sockets_for(bind: Bind, backlog: int, mode: str = "0777", group: str = "") -> list[socket.socket]:
    """Listening, non-blocking sockets for all that an address means; `mode` and `group` are for a Unix socket. Raises OSError."""
    if bind.unix:
        return [_listening(socket.AF_UNIX, bind.unix, backlog, mode, group)]
    found = socket.getaddrinfo(bind.host or None, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [_listening(family, address, backlog) for family, _, _, _, address in dict.fromkeys(found)]


def _listening(family: int, address: object, backlog: int, mode: str = "", group: str = "") -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_UNIX:
            _remove_stale(str(address))
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]
        if family == socket.AF_UNIX:
            _permit(str(address), mode, group)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


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


def close_listening(sock: socket.socket) -> None:
    """Close, unless that is done; a Unix socket's file goes with it."""
    if sock.fileno() < 0:
        return
    path = sock.getsockname() if sock.family == socket.AF_UNIX else ""
    sock.close()
    if path:
        try:
            os.unlink(path)
        except OSError:
            pass


async def accept_clients(sock: socket.socket, nursery: trio.Nursery, handler: Handler) -> None:
    """Accept for ever, a task for each client. `handler` owns the client's socket and must not raise."""
    overloaded = False
    while True:
        await trio.lowlevel.wait_readable(sock)
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, _address = sock.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in OVERLOAD_ERRNOS:
                    if not overloaded:
                        event(logging.ERROR, f"cannot accept clients: {error.strerror}; raise the limit of open files (ulimit -n)")
                    overloaded = True
                    await trio.sleep(OVERLOAD_PAUSE)
                    break
                continue  # the client was gone before it was accepted
            overloaded = False
            client.setblocking(False)
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            nursery.start_soon(handler, client)
