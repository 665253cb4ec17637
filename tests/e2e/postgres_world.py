"""A PostgreSQL server, a database of the test's own on it, and dualpool in front: what the end-to-end tests for PostgreSQL look at.

One dualpool listens once for each pool mode, and once (`trust`) for raw clients that would rather not log in.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg

from tests.e2e.postgres_raw import Raw
from tests.helpers.pooler import Pooler
from tests.helpers.servers import PostgresServer

DEADLINE: Final = 60.0
"""Seconds after which something that should come is taken not to come: on a machine under load everything is only slow."""
CROWD_DEADLINE: Final = 10 * DEADLINE
"""The same for hundreds of clients at once."""
PATIENT: Final = f'[timeouts]\nclient_login = "{CROWD_DEADLINE:.0f}s"\nquery_wait = "{CROWD_DEADLINE:.0f}s"\n'
"""More of a configuration, for them."""
Row = tuple[Any, ...]
Found = TypeVar("Found")

LISTENERS: Final = """
[listeners.postgres]
protocol = "postgres"
bind = "127.0.0.1:0"
pool_mode = "transaction"

[listeners.session]
protocol = "postgres"
bind = "127.0.0.1:0"
pool_mode = "session"

[listeners.statement]
protocol = "postgres"
bind = "127.0.0.1:0"
pool_mode = "statement"

[listeners.trust]
protocol = "postgres"
bind = "127.0.0.1:0"
auth = "trust"

[listeners.session-trust]
protocol = "postgres"
bind = "127.0.0.1:0"
auth = "trust"
pool_mode = "session"
"""


def configuration(server: PostgresServer, database: str, pool_size: int = 3, more: str = "", backend: str = "") -> str:
    """A TOML text: all listeners, the user app, the database `app` that is `database` on the server. `backend`: its url, if another."""
    return f"""{LISTENERS}
[backends.main]
url = "{backend or server.url_for(database=database)}"

[databases.app]
backend = "main"
database = "{database}"
pool_size = {pool_size}

[users.app]
password = "app"

{more}
"""


@dataclass
class World:
    """One dualpool with the server behind it. `database` is the real name of what clients call `app`."""

    server: PostgresServer
    database: str
    pooler: Pooler

    def url(self, listener: str = "postgres", account: str = "app:app", **query: str) -> str:
        """How a client connects."""
        options = "&".join(f"{key}={value}" for key, value in query.items())
        return self.pooler.url(account, listener=listener) + (f"?{options}" if options else "")

    def connect(self, listener: str = "postgres", *, account: str = "app:app", autocommit: bool = True, **options: Any) -> "Client":
        """A client of psycopg."""
        options = {"connect_timeout": int(DEADLINE), **options}
        return psycopg.connect(self.url(listener, account), autocommit=autocommit, **options)

    def execute(self, sql: str, *parameters: Any) -> list[Row]:
        """Run a statement as the administrator in the database, straight at the server."""
        return self.server.execute(sql, *parameters, database=self.database)

    def server_connections(self, condition: str = "true") -> list[int]:
        """The process ids of dualpool's connections to the database. (The administrator's own are in another one.)"""
        sql = f"SELECT pid FROM pg_stat_activity WHERE datname = '{self.database}' AND backend_type <> 'parallel worker' AND ({condition})"
        return [pid for (pid,) in self.server.execute(sql)]

    def wait_until_running(self, text: str, count: int = 1) -> list[int]:
        """Wait until `count` connections run a query that contains `text`; their process ids."""
        condition = f"state = 'active' AND query LIKE '%{text}%'"
        return wait_for(lambda: self.server_connections(condition), lambda found: len(found) == count, f"{count} running {text!r}")

    def wait_until_read(self) -> None:
        """Wait until dualpool has read what clients have sent so far: who logs in afterwards comes through the same door behind them."""
        with Raw(self.pooler.port("trust")) as last:
            last.log_in()

    def wait_for_server_connections(self, most: int) -> None:
        """Wait until there are no more than `most`: a server may need a moment for those that were closed."""
        wait_until(lambda: len(self.server_connections()) <= most, f"at most {most} server connections")

    def wait_until_rested(self) -> None:
        """Wait until no server connection runs anything or is in a transaction."""
        wait_until(lambda: not self.server_connections("state <> 'idle'"), "all server connections idle")

    def assert_unharmed(self, listener: str = "postgres") -> None:
        """A new client is served as if nothing had been."""
        with self.connect(listener) as client:
            assert client.execute("SELECT 'unharmed'").fetchone() == ("unharmed",)
            assert client.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

    def is_served(self) -> bool:
        """Does one who comes now get a server connection in time?"""
        try:
            self.assert_unharmed()
        except psycopg.OperationalError:
            return False
        return True


Client = psycopg.Connection[Row]
RunWorld = Callable[..., World]


@contextlib.contextmanager
def world(server: PostgresServer, pool_size: int = 3, more: str = "", backend: str = "", **options: Any) -> Iterator[World]:
    """A World with a new database. `more` and `backend` as in `configuration`; `backend` may contain {database}."""
    with server.temporary_database() as database:
        toml = configuration(server, database, pool_size, more.replace("{database}", database), backend.replace("{database}", database))
        with Pooler(toml, **options) as pooler:
            yield World(server, database, pooler)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Poll until `condition()` is true; AssertionError if it does not become so in time."""
    wait_for(condition, bool, what, seconds)


def wait_for(find: Callable[[], Found], is_it: Callable[[Found], bool], what: str, seconds: float = DEADLINE) -> Found:
    """Poll until `is_it(find())`; what was found. AssertionError if that does not come in time."""
    deadline = time.monotonic() + seconds
    while not is_it(found := find()):
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.005)
    return found


class Sampler:
    """Counts the server connections of a database, again and again, in a thread. `with Sampler(world) as sampler: ...; sampler.most`."""

    def __init__(self, world: World) -> None:
        self.most = 0
        self.samples = 0
        self._world = world
        self._ended = threading.Event()

    def __enter__(self) -> "Sampler":
        self._work = in_thread(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._work.result()

    def _run(self) -> None:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
        with psycopg.connect(
            self._world.server.url_for(user="postgres", password="postgres", database="postgres"), autocommit=True
        ) as admin:
            while not self._ended.wait(0.01):
                row = admin.execute(sql, [self._world.database]).fetchone()
                assert row is not None
                self.most = max(self.most, row[0])
                self.samples += 1


def in_thread(work: Callable[[], object]) -> "Background":
    """Run `work` in a thread; `result()` waits for it and returns or raises what it did."""
    return Background(work)


class Background:
    """See `in_thread`."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._result: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def is_done(self) -> bool:
        """Has it ended?"""
        return not self._thread.is_alive()

    def result(self, seconds: float = DEADLINE) -> Any:
        """What `work` returned; raises what it raised."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"not in {seconds:g} s"
        if self._error is not None:
            raise self._error
        return self._result


def resident_bytes(pid: int) -> int:
    """How much memory a process has now."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
