"""The commands that steer, as async functions of the server and their words. What they mean: PgBouncer's documentation, "Admin console".

Waiting is polling: an order is given by a person or a script, and the states that it waits for have no events of their own.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from dualpool.admin.settings import changed
from dualpool.admin.tables import Names
from dualpool.answers import Done, Notice
from dualpool.errors import AdminShutdown, CommandRefused
from dualpool.lease import PAUSED

if TYPE_CHECKING:
    from dualpool.backends import DatabaseKey
    from dualpool.pool import Pool
    from dualpool.server import Server
    from dualpool.signals import StopMode

POLL_SECONDS: Final = 0.01


def databases(server: "Server", words: list[str]) -> "list[DatabaseKey]":
    """The databases that an order names; none for all. Raises CommandRefused."""
    if not words:
        return []
    found = Names(server).find(words[0])
    if not found:
        raise CommandRefused(f"no such database: {words[0]}", hint="See SHOW DATABASES.")
    return found


def pools(server: "Server", keys: "list[DatabaseKey]") -> "list[Pool]":
    """The pools of these databases; of all, if none is given."""
    return [entry.pool for entry in server.backends.entries() if not keys or entry.database_key in keys]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(POLL_SECONDS)


async def pause(server: "Server", words: list[str]) -> Done:
    """PAUSE [db]: hand out no more server connections, wait until all have come back, close them."""
    keys = databases(server, words)
    halt(server, keys)
    await until(lambda: all(pool.is_drained() or not pool.is_paused for pool in pools(server, keys)))
    for pool in pools(server, keys):
        if pool.is_paused:
            for conn in pool.idle_connections():
                pool.evict(conn, PAUSED)
    return Done("PAUSE")


def halt(server: "Server", keys: "list[DatabaseKey]") -> None:
    """Pause some databases, or everything."""
    if keys:
        server.backends.halts.databases.update(keys)
    else:
        server.backends.halts.everything = True
    for pool in pools(server, keys):
        pool.pause()


async def resume(server: "Server", words: list[str]) -> Done:
    """RESUME [db]: after PAUSE, KILL or SUSPEND."""
    keys, halts = databases(server, words), server.backends.halts
    if keys and not halts.databases.intersection(keys):
        raise CommandRefused(f"database {words[0]} is not paused")
    if not keys and not is_halted(server):
        raise CommandRefused("pooler is not paused")
    if keys:
        halts.databases.difference_update(keys)
    else:
        halts.everything = False
        halts.databases.clear()
        server.suspension.end()
    server.backends.resume()
    return Done("RESUME")


def is_halted(server: "Server") -> bool:
    """Is there something to resume?"""
    halts = server.backends.halts
    return bool(halts.everything or halts.suspended or halts.databases)


async def suspend(server: "Server", words: list[str]) -> Done:
    """SUSPEND: read nothing more, and wait until all that was read has been sent on."""
    if server.backends.halts.suspended:
        raise CommandRefused("already suspended/paused", hint="RESUME ends that.")
    await server.suspension.suspend()
    return Done("SUSPEND")


async def kill(server: "Server", words: list[str]) -> Done:
    """KILL [db]: pause, and end every client and server connection at once."""
    keys = databases(server, words)
    halt(server, keys)
    doomed = pools(server, keys)
    for pool in doomed:
        pool.reconnect()
    for client in list(server.clients.by_id.values()):
        if client.pool in doomed:
            client.expel(AdminShutdown("admin forced disconnect"))
    return Done("KILL")


async def kill_client(server: "Server", words: list[str]) -> Done:
    """KILL_CLIENT id: end one client. Its id is that of SHOW CLIENTS."""
    number = int(words[0]) if words[0].isdecimal() and len(words[0]) < 12 else -1
    client, session = server.clients.by_id.get(number), server.console.sessions.get(number)
    if client is not None:
        client.expel(AdminShutdown("admin forced disconnect"))
    elif session is not None:
        session.end()
    else:
        raise CommandRefused("client not found", hint="The id is in the last column of SHOW CLIENTS.")
    return Done("KILL_CLIENT")


async def disable(server: "Server", words: list[str]) -> Done:
    """DISABLE db: no new clients."""
    server.backends.halts.disabled.update(databases(server, words))
    return Done("DISABLE")


async def enable(server: "Server", words: list[str]) -> Done:
    """ENABLE db: new clients again."""
    server.backends.halts.disabled.difference_update(databases(server, words))
    return Done("ENABLE")


async def reconnect(server: "Server", words: list[str]) -> Done:
    """RECONNECT [db]: replace every server connection; idle ones now, the others when they come back."""
    for pool in pools(server, databases(server, words)):
        pool.reconnect()
    return Done("RECONNECT")


async def wait_close(server: "Server", words: list[str]) -> Done:
    """WAIT_CLOSE [db]: wait until the connections that RECONNECT or RELOAD meant are gone."""
    keys = databases(server, words)
    await until(lambda: not any(conn.expires_at == -math.inf for pool in pools(server, keys) for conn in pool.connections))
    return Done("WAIT_CLOSE")


async def reload(server: "Server", words: list[str]) -> Done:
    """RELOAD: read the file again."""
    warnings = await server.reload()
    return Done("RELOAD", tuple(Notice(warning, severity="WARNING") for warning in warnings))


async def set_key(server: "Server", words: list[str]) -> Done:
    """SET key = value: until the next RELOAD."""
    if len(words) != 3 or words[1] not in {"=", "to", "TO"}:
        raise CommandRefused("SET failed", hint="Write SET key = value, for instance SET query_wait_timeout = 30.")
    config, key = changed(server.config, words[0], words[2])
    server.reconfigure(config)
    return Done(f"SET {key}={words[2]}")


async def shutdown(server: "Server", words: list[str]) -> Done:
    """SHUTDOWN: at once; or when all server connections have come back; or when the clients have gone."""
    how: dict[str, StopMode] = {"NOW": "now", "WAIT_FOR_SERVERS": "wait_for_servers", "WAIT_FOR_CLIENTS": "wait_for_clients"}
    mode = how.get(words[0].upper() if words else "NOW")
    if mode is None:
        raise CommandRefused(f"invalid command 'SHUTDOWN {words[0]}', use SHOW HELP;", hint="SHUTDOWN [WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]")
    server.stop(mode)
    return Done("SHUTDOWN")
