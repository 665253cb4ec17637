"""Putting a new configuration in the place of the running one. What can fail happens first; then nothing waits and nothing fails.

What stays: listening sockets (another address needs a restart), clients that the new file still allows, server connections of pools that
still mean the same login at the same server. A pool whose login or server is another one replaces its connections; clients whose database
is on another backend now go over to a new pool.
"""

import ssl
from math import inf
from typing import TYPE_CHECKING, Final

import attrs

from dualpool.config import Config, Listener
from dualpool.counters import WatchedCounters
from dualpool.errors import AdminShutdown, ConfigError
from dualpool.journal import SlowLog
from dualpool.log import LEVELS, LOGGER
from dualpool.protocol import Engine
from dualpool.tls import ListenerContext, backend_context, listener_context

if TYPE_CHECKING:
    from dualpool.link import Client
    from dualpool.server import Server
    from dualpool.session import Door

RESTART: Final = "takes effect after a restart"
SOCKETS: Final = ("bind", "protocol", "backlog", "reuse_port", "socket_mode", "socket_group")
"""What a listener's sockets are made of, which stay."""


class Reload:
    """A configuration that is about to be taken. The constructor raises ConfigError if it cannot be; `carry_out` does not."""

    def __init__(self, server: "Server", config: Config) -> None:
        self.server = server
        self.config = config
        self.contexts: dict[Door, ListenerContext | None] = {}
        self.listeners: dict[Door, Listener] = {}
        for door in server.doors:
            listener = config.listeners.get(door.listener.name)
            if listener is not None:
                self.listeners[door] = attrs.evolve(listener, **{key: getattr(door.listener, key) for key in SOCKETS})
                self.contexts[door] = context_of(listener, door.engine)
        self.backend_contexts = {name: self._backend_context(name) for name in config.backends}

    def carry_out(self) -> list[str]:
        """Take it. Returns what will only be true after a restart."""
        server, config = self.server, self.config
        warnings = list(config.warnings) + self._needs_restart()
        for door, listener in self.listeners.items():
            door.listener, door.tls = listener, self.contexts[door]
        if config.log.level != server.config.log.level:
            LOGGER.setLevel(LEVELS[config.log.level])
        watch_slow_queries(server, config.log.slow_query)
        # The log stays as it is, so that the next reload says again what its format waits for.
        server.config = config = attrs.evolve(config, log=attrs.evolve(config.log, format=server.config.log.format))
        server.take_timeouts()
        server.backends.reconfigure(config, self.backend_contexts)
        leaving = [client for client in server.clients.by_id.values() if not may_stay(server, client)]
        server.leaving.update(leaving)
        server.backends.rearrange([client for client in server.clients.by_id.values() if client not in server.leaving])
        for client in server.clients.by_id.values():
            server.settle(client)
        server.send_away()
        return warnings

    def _backend_context(self, name: str) -> ssl.SSLContext | None:
        backend = self.config.backends[name]
        try:
            return backend_context(backend, self.server.engine_of(backend.protocol).alpn)
        except (OSError, ValueError) as error:
            raise ConfigError(f"backends.{name}: {error}") from error

    def _needs_restart(self) -> list[str]:
        open_now, wanted = {door.listener.name: door.listener for door in self.server.doors}, self.config.listeners
        changes = [f"listeners.{name}: a new listener {RESTART}" for name in sorted(wanted.keys() - open_now.keys())]
        changes += [f"listeners.{name}: that it is gone {RESTART}" for name in sorted(open_now.keys() - wanted.keys())]
        for name in sorted(wanted.keys() & open_now.keys()):
            for key in SOCKETS:
                if getattr(wanted[name], key) != getattr(open_now[name], key):
                    changes.append(f"listeners.{name}.{key}: the change {RESTART}")
        if self.config.admin.http != self.server.http:
            changes.append(f"admin.http: the change {RESTART}")
        # (Whoever runs a pgbouncer.ini has another format than the file says.)
        if self.config.log.format != self.server.config.log.format != "pgbouncer":
            changes.append(f"log.format: the change {RESTART}")
        return changes


def watch_slow_queries(server: "Server", threshold: float) -> None:
    """Tell queries that take longer than `threshold` (seconds; 0: none) from now on, also those of pools that are there already.

    What clients ask that are there already is not told: nothing keeps it.
    """
    backends = server.backends
    if backends.watch is not None:
        backends.watch.threshold = threshold or inf
    elif threshold:
        backends.watch = SlowLog(server, threshold)
        for pool in backends.pools():
            counters = WatchedCounters(backends.watch)
            counters.add(pool.counters)
            pool.counters = counters
            for conn in server.connections_of(pool):
                conn.counters = counters
        for client in server.clients.by_id.values():
            client.counters = client.pool.counters


def context_of(listener: Listener, engine: Engine) -> ListenerContext | None:
    """What a listener offers to its clients. Raises ConfigError for files that cannot be used."""
    if listener.tls is None or not listener.tls.offered:
        return None
    try:
        return listener_context(listener.tls, engine.alpn)
    except (OSError, ValueError) as error:
        raise ConfigError(f"listeners.{listener.name}.tls: {error}") from error


def may_stay(server: "Server", client: "Client") -> bool:
    """Does the configuration still have the client's database, and its user, if it had one for it?"""
    login = client.login
    if login is None:
        return True
    config = server.config
    if config.find_database(client.engine.name, login.account.database) is None:
        return False
    return login.account.user in config.users or not login.account.configured


def farewell() -> AdminShutdown:
    """What a client is told whose user or database is gone."""
    return AdminShutdown("the configuration has changed: this user or database is gone")
