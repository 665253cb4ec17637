"""`dualpool dev`: start the databases, run the pooler in front of them, say how to connect, and leave nothing behind."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import trio

from dualpool.config import DEFAULT_BINDS, Config, from_urls
from dualpool.dev.embedded import DevError, EmbeddedServer
from dualpool.dev.folders import cache_dir
from dualpool.dev.mariadb_packages import fetch_mariadb
from dualpool.dev.mysql_server import EmbeddedMySQL, Installation, find_mysqld
from dualpool.dev.postgres_server import EmbeddedPostgres
from dualpool.dev.processes import tail
from dualpool.errors import DualpoolError
from dualpool.log import configure
from dualpool.server import ServerInfo, serve

ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WATCH_SECONDS: Final = 0.5


def run(
    *,
    postgres: bool = True,
    mysql: bool = True,
    bind_postgres: str = DEFAULT_BINDS["postgres"],
    bind_mysql: str = DEFAULT_BINDS["mysql"],
    data_dir: Path | None = None,
    fetch: bool = False,
) -> int:
    """Run until Ctrl-C, SIGTERM or SIGHUP; returns the exit code. `fetch`: where there is no MySQL server, download MariaDB.

    `data_dir` keeps the databases' data from one run to the next; by default it is in the user's cache folder.
    """
    folder = (data_dir or cache_dir() / "dev").absolute()
    code = 0
    try:
        with _signals_interrupt(), ExitStack() as running:
            servers = _start_servers(running, folder, postgres=postgres, mysql=mysql, fetch=fetch)
            config = _configuration(servers, bind_postgres, bind_mysql)
            code = trio.run(_serve, config, servers, folder)
    except* KeyboardInterrupt:
        pass
    except* (DualpoolError, OSError) as group:
        _complain(*_leaves(group))
        code = 1
    return code


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP act like Ctrl-C, so that whatever has been started by then is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING_SIGNALS if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_servers(running: ExitStack, folder: Path, *, postgres: bool, mysql: bool, fetch: bool) -> list[EmbeddedServer]:
    """The databases that are wanted and can be had. One that is missing is told in a line, unless it is the only one."""
    servers: list[EmbeddedServer] = []
    missing: list[DevError] = []
    makers: list[Callable[[], EmbeddedServer]] = []
    if postgres:
        makers.append(lambda: EmbeddedPostgres(folder / "postgres"))
    if mysql:
        makers.append(lambda: EmbeddedMySQL(folder / "mysql", _mysqld(fetch=fetch)))
    for make in makers:
        try:
            servers.append(make())
        except DevError as error:
            missing.append(error)
    if not servers:
        raise missing[0] if missing else DevError("nothing to start: both databases are switched off")
    _complain(*missing)
    for server in servers:
        running.enter_context(server)
    return servers


def _mysqld(*, fetch: bool) -> Installation:
    """The server on the machine, else (if wanted) one that is fetched now. One that the user has named is not replaced by another."""
    try:
        return find_mysqld()
    except DevError:
        if not fetch or os.environ.get("DUALPOOL_MYSQLD"):
            raise
        print("downloading MariaDB ...", file=sys.stderr, flush=True)
        return fetch_mariadb()


def _configuration(servers: Sequence[EmbeddedServer], bind_postgres: str, bind_mysql: str) -> Config:
    urls = {scheme: [server.url for server in servers if server.scheme == scheme] for scheme in ("postgresql", "mysql")}
    return from_urls(urls["postgresql"], urls["mysql"], bind_postgres=bind_postgres, bind_mysql=bind_mysql)


async def _serve(config: Config, servers: Sequence[EmbeddedServer], folder: Path) -> int:
    """Run the pooler until a signal comes (0) or a database ends by itself (1)."""
    configure(config.log)
    dead: EmbeddedServer | None = None
    with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            info: ServerInfo = await nursery.start(serve, config)
            _print_addresses(servers, info, config, folder)
            nursery.start_soon(_end_on_signal, signals, nursery.cancel_scope)
            while dead is None:
                await trio.sleep(WATCH_SECONDS)
                dead = next((server for server in servers if not server.running), None)
            nursery.cancel_scope.cancel()
    if dead is None:
        return 0
    _complain(DevError(f"{dead.version} has ended by itself; the end of {dead.log_path}:\n{tail(dead.log_path)}"))
    return 1


async def _end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


def _print_addresses(servers: Sequence[EmbeddedServer], info: ServerInfo, config: Config, folder: Path) -> None:
    """Where to connect: through the pooler, and past it."""
    for server in servers:
        protocol = "postgres" if server.scheme == "postgresql" else server.scheme
        listeners = [listener.name for listener in config.listeners.values() if listener.protocol == protocol]
        print(server.version)
        for address in (address for name in listeners for address in info.addresses[name]):
            print(f"  pooled  {_pooled_url(server, address)}")
        print(f"  direct  {server.url}")
    print(f"Data and logs are in {folder}. Ctrl-C ends everything.", flush=True)


def _pooled_url(server: EmbeddedServer, address: str) -> str:
    """A URL that clients take as it is: an address that means "all" is none to connect to."""
    if address.startswith("unix:"):
        return f"{server.url} through {address.removeprefix('unix:')}"
    host, _, port = address.rpartition(":")
    anywhere = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}  # noqa: S104 -- compared, not bound
    return server.url_for(host=anywhere.get(host, host.strip("[]")), port=int(port))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _complain(*errors: BaseException) -> None:
    for error in errors:
        hint = getattr(error, "hint", "")
        print(f"dualpool dev: {error}" + (f"\n{hint}" if hint else ""), file=sys.stderr, flush=True)
