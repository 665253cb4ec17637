"""A server of the test's own, of either engine, dualpool before it, and clients that hammer: what the tests of the policy share."""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import psycopg
import pymysql
import pytest

from tests.e2e.postgres_world import DEADLINE, wait_until
from tests.helpers.pooler import Pooler
from tests.helpers.servers import DatabaseServer, MySQLServer, PostgresServer, Servers

SERVER_ERRORS: Final = (psycopg.Error, pymysql.MySQLError)
Row = tuple[Any, ...]
POOL_USER: Final = "pooled"
"""Who dualpool logs in as, and nobody else."""
ADMIN: Final = "[admin]\nusers = ['app']\n"


class Conn:
    """A client's connection in autocommit, of either driver."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, sql: str) -> list[Row]:
        """Run a statement; its rows."""
        with self.driver.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        """Say goodbye, as far as there is somebody to say it to."""
        with contextlib.suppress(*SERVER_ERRORS, OSError):
            self.driver.close()


class Stage:
    """A server and a pooler. `listener` is that of the server's engine."""

    def __init__(self, server: DatabaseServer, pooler: Pooler) -> None:
        self.server = server
        self.pooler = pooler
        self.listener = "mysql" if isinstance(server, MySQLServer) else "postgres"

    def connect(self, user: str = "app", database: str = "app", timeout: float = DEADLINE, **options: Any) -> Conn:
        """A client. `timeout`: for its login. `options`: the driver's."""
        address: dict[str, Any] = {"host": "127.0.0.1", "port": self.pooler.port(self.listener), "user": user, "password": user}
        if self.listener == "postgres":
            driver: Any = psycopg.connect(**address, dbname=database, autocommit=True, connect_timeout=int(timeout), **options)
        else:
            driver = pymysql.connect(**address, database=database, autocommit=True, connect_timeout=int(timeout), **options)
        return Conn(driver)

    def slowly(self, seconds: float) -> str:
        """A column that takes its time, for the end of a SELECT's list."""
        return f", {'SLEEP' if self.listener == 'mysql' else 'pg_sleep'}({seconds})"

    def server_connections(self) -> int:
        """How many connections dualpool has, as the server counts them."""
        return len(self.connection_ids())

    def connection_ids(self) -> list[int]:
        """Those of dualpool's connections at the server."""
        if isinstance(self.server, PostgresServer):
            sql = f"SELECT pid FROM pg_stat_activity WHERE usename = '{POOL_USER}' AND backend_type = 'client backend'"
        else:
            sql = f"SELECT id FROM {self.server.processes} WHERE user = '{POOL_USER}'"
        return [row[0] for row in self.server.execute(sql)]

    def kill_half(self) -> list[int]:
        """End every second of dualpool's connections at the server. Which; the server may take a moment over it."""
        killed = self.connection_ids()[::2]
        for number in killed:
            with contextlib.suppress(pymysql.MySQLError):
                self.server.execute(f"SELECT pg_terminate_backend({number})" if self.listener == "postgres" else f"KILL {number}")
        return killed

    def waiting_clients(self, database: str = "app") -> int:
        """How many wait for a server connection, as the console says (with `ADMIN` among the tables)."""
        with self.connect(database="dualpool") as console, console.driver.cursor() as cursor:
            cursor.execute("SHOW POOLS")
            names = [column[0] for column in cursor.description]
            pools = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return sum(pool["cl_waiting"] for pool in pools if pool["database"] == database)

    def open_files(self) -> int:
        """Of the pooler's process."""
        return len(os.listdir(f"/proc/{self.pooler.pid}/fd"))


@contextlib.contextmanager
def stage(
    server: DatabaseServer,
    *,
    databases: int = 1,
    pool_size: int = 5,
    budget: str = '"auto"',
    backend: str = "",
    database: str = "",
    user: str = "",
    more: str = "",
    url: str = "",
) -> Iterator[Stage]:
    """A Stage with so many databases (app, app1, ...), the users app and boss (maintenance), transaction mode.

    `backend`, `database` and `user` are more keys of these tables (of the user app); `more` is more tables. `url`: instead of the server's.
    """
    names = ["app", *(f"app{number}" for number in range(1, databases))]
    make_pool_user(server)
    for name in names[1:]:
        with contextlib.suppress(*SERVER_ERRORS):
            server.create_database(name)
    protocol = "mysql" if isinstance(server, MySQLServer) else "postgres"
    tables = "".join(f'[databases.{name}]\nbackend = "main"\npool_size = {pool_size}\n{database}\n' for name in names)
    toml = f"""
[listeners.{protocol}]
protocol = "{protocol}"
bind = "127.0.0.1:0"
backlog = 1024

[backends.main]
url = "{url or server.url_for(user=POOL_USER, password=POOL_USER)}"
budget = {budget}
{backend}

{tables}
[users.app]
password = "app"
{user}

[users.boss]
password = "boss"
maintenance = true

{more}
"""
    with Pooler(toml) as pooler:
        yield Stage(server, pooler)


def make_pool_user(server: DatabaseServer) -> None:
    """The user whom dualpool logs in as: no administrator, or the server would let it in where it lets in nobody else."""
    if isinstance(server, PostgresServer):
        if not server.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{POOL_USER}'"):
            server.create_user(POOL_USER, POOL_USER)
            server.execute(f"GRANT {server.user} TO {POOL_USER}")
    elif isinstance(server, MySQLServer):
        server.execute(f"CREATE USER IF NOT EXISTS {POOL_USER}@'%' IDENTIFIED BY '{POOL_USER}'")
        server.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER ON *.* TO {POOL_USER}@'%'")


class Crowd:
    """Clients in threads, each of which asks again and again for something that only it can get as an answer, until `stop`."""

    def __init__(self, stage: Stage, count: int, databases: int = 1, pause: float = 0.0, extra: str = "") -> None:
        """`pause`: seconds between an answer and the next question. `extra`: SQL behind the list of columns."""
        self.stage = stage
        self.answers = 0
        self.wrong: list[str] = []
        self.errors: Counter[str] = Counter()
        self._extra = extra
        self._pause = pause
        self._ended = threading.Event()
        self._lock = threading.Lock()
        names = ["app", *(f"app{number}" for number in range(1, databases))]
        self._threads = [
            threading.Thread(target=self._run, args=(number, names[number % databases]), daemon=True) for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let everybody finish."""
        self._ended.set()
        deadline = time.monotonic() + DEADLINE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def _run(self, number: int, database: str) -> None:
        asked = 0
        while not self._ended.is_set():
            try:
                with self.stage.connect(database=database) as conn:
                    while not self._ended.wait(self._pause) if self._pause else not self._ended.is_set():
                        asked += 1
                        token = number * 1_000_000 + asked
                        rows = conn.execute(f"SELECT {token}{self._extra}")
                        with self._lock:
                            self.answers += 1
                            if rows[0][0] != token:
                                self.wrong.append(f"asked for {token}, got {rows}")
            except SERVER_ERRORS as error:
                with self._lock:
                    self.errors[str(error).strip() or repr(error)] += 1
                self._ended.wait(0.05)


def wait_for_answers(crowd: Crowd, more: int) -> None:
    """Until the crowd has got so many more."""
    goal = crowd.answers + more
    wait_until(lambda: crowd.answers >= goal, f"{more} more answers; errors: {crowd.errors}", 3 * DEADLINE)


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def small_server(request: pytest.FixtureRequest, servers: Servers) -> Iterator[DatabaseServer]:
    """A server with max_connections = 20, of each engine in turn."""
    if request.param == "postgres":
        server: DatabaseServer = servers.own_postgres(15, {"max_connections": "20"})
    else:
        server = servers.own_mariadb({"max-connections": "20"})
    yield server
    assert server.embedded is not None
    server.embedded.stop()


def timed(work: Callable[[], object]) -> float:
    """How many seconds it takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started
