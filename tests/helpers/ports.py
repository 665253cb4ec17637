"""TCP ports that nobody else takes between the moment when a test chooses one and the moment when a server is bound to it."""

import contextlib
import os
import random
import socket
from typing import Final

RANGE: Final = range(20_000, 32_000)
"""Below the ports that Linux, macOS and BSD give to clients and to who binds to port 0 (ip_local_port_range begins at 32768)."""

_RESERVED: Final[dict[int, socket.socket]] = {}


def reserved_port() -> int:
    """A free TCP port of 127.0.0.1 that no other test process chooses for as long as this one lives.

    What reserves it is a UDP socket on the same number: the kernel lets go of it however this process ends.
    """
    for port in random.Random(os.urandom(8)).sample(RANGE, len(RANGE)):
        if port not in _RESERVED and (mark := _reserve(port)) is not None:
            _RESERVED[port] = mark
            return port
    raise OSError("no free TCP port on 127.0.0.1")


def _reserve(port: int) -> socket.socket | None:
    mark = socket.socket(type=socket.SOCK_DGRAM)
    with contextlib.suppress(OSError), socket.socket() as probe:
        mark.bind(("127.0.0.1", port))
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return mark
    mark.close()
    return None
