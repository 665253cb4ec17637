"""A MySQL or MariaDB server, a database of the test's own on it, and dualpool in front: what the end-to-end tests for MySQL look at.

One dualpool listens once for each pool mode. Its server connections log in as a user of their own, so that the server's process list tells
them from all others.
"""

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import mysql.connector
import pymysql
import pymysql.cursors

from tests.e2e.postgres_world import DEADLINE, in_thread, wait_for, wait_until
from tests.helpers.pooler import Pooler
from tests.helpers.servers import PEERS, MySQLServer, report_unavailable, unique

Client: TypeAlias = "pymysql.Connection[pymysql.cursors.Cursor]"
Row = tuple[Any, ...]

OURS: Final = unique("")
"""Makes a lock's name one that nothing else takes: GET_LOCK()'s locks are the whole server's, and other tests may use it meanwhile."""
ACTIVE: Final = re.compile(r"^---TRANSACTION \d+, ACTIVE(?:(?!^---)[\s\S])*? thread id (\d+)", re.MULTILINE)

LISTENERS: Final = """
[listeners.mysql]
protocol = "mysql"
bind = "127.0.0.1:0"
pool_mode = "transaction"

[listeners.session]
protocol = "mysql"
bind = "127.0.0.1:0"
pool_mode = "session"

[listeners.statement]
protocol = "mysql"
bind = "127.0.0.1:0"
pool_mode = "statement"
"""


def configuration(url: str, database: str, pool_size: int = 3, more: str = "", keys: str = "") -> str:
    """A TOML text: all listeners, the user app, the database `app` that is `database` on the server at `url` (`keys`: more of its own)."""
    return f"""{LISTENERS}
[backends.shop]
url = "{url}"

[databases.app]
backend = "shop"
database = "{database}"
pool_size = {pool_size}
{keys}

[users.app]
password = "app"

{more}
"""


@dataclass
class World:
    """One dualpool with the server behind it. `database` is the real name of what clients call `app`, `user` is who dualpool logs in as."""

    server: MySQLServer
    database: str
    user: str
    pooler: Pooler
    admin: Client = field(repr=False)
    clients: list[Client] = field(default_factory=list, repr=False)

    def address(self, listener: str = "mysql") -> dict[str, Any]:
        """The arguments by which every driver finds dualpool, and logs in."""
        account = {"user": "app", "password": "app", "database": "app"}
        return {"host": "127.0.0.1", "port": self.pooler.port(listener), **account, "connect_timeout": int(DEADLINE)}

    def connect(self, listener: str = "mysql", **options: Any) -> Client:
        """A client of PyMySQL. As usual with it, autocommit is off if not asked for."""
        client = pymysql.connect(**{**self.address(listener), "read_timeout": DEADLINE, **options})
        self.clients.append(client)
        return client

    def close_clients(self) -> None:
        """Cut off who is still there (after a failure), so that dualpool need not wait for the end of their transactions."""
        for client in self.clients:
            client._force_close()

    def connector(self, listener: str = "mysql", **options: Any) -> Any:
        """A client of mysql-connector-python, in pure Python. (Its default collation is one that MariaDB does not have.)"""
        usual = {"use_pure": True, "collation": "utf8mb4_general_ci", "autocommit": True}
        return mysql.connector.connect(**{**self.address(listener), **usual, **options})

    def execute(self, sql: str, *parameters: Any) -> list[Row]:
        """Run a statement as the administrator in the database, straight at the server."""
        with self.admin.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return list(cursor.fetchall())

    def server_connections(self, condition: str = "true") -> list[int]:
        """The ids of dualpool's connections in the server's process list."""
        sql = f"SELECT id FROM {self.server.processes} WHERE user = '{self.user}' AND ({condition})"
        return [number for (number,) in self.execute(sql)]

    def wait_until_running(self, text: str, count: int = 1) -> list[int]:
        """Wait until `count` connections run a statement that contains `text`; their ids."""
        condition = f"command <> 'Sleep' AND info LIKE '%{text}%'"
        return wait_for(lambda: self.server_connections(condition), lambda found: len(found) == count, f"{count} running {text!r}")

    def open_transactions(self) -> int:
        """How many of dualpool's connections are in a transaction. (innodb_trx would show what was 0.1 s ago, and later if asked often.)"""
        ours = set(self.server_connections())
        [(_, _, report)] = self.execute("SHOW ENGINE INNODB STATUS")
        return sum(int(found[1]) in ours for found in ACTIVE.finditer(report))

    def wait_until_rested(self) -> None:
        """Wait until no server connection runs anything or is in a transaction."""
        try:
            wait_until(lambda: not self.server_connections("command <> 'Sleep'"), "all server connections idle")
            wait_until(lambda: not self.open_transactions(), "no transaction open")
        except AssertionError as error:
            running = self.execute(f"SELECT id, command, time, state FROM {self.server.processes} WHERE user = '{self.user}'")
            raise AssertionError(f"{error}; {running}; {self.pooler.log[-4000:]}") from None

    def is_served(self, listener: str = "mysql") -> bool:
        """Is a new client let in and served in the time that the configuration allows? (On a machine under load it may be too short.)"""
        try:
            self.assert_unharmed(listener)
        except pymysql.err.MySQLError:
            return False
        return True

    def wait_for_server_connections(self, most: int) -> None:
        """Wait until there are no more than `most`: a server may need a moment for those that were closed."""
        wait_until(lambda: len(self.server_connections()) <= most, f"at most {most} server connections")

    def assert_unharmed(self, listener: str = "mysql") -> None:
        """A new client is served as if nothing had been."""
        with self.connect(listener, autocommit=True) as client:
            assert value(client, "SELECT 'unharmed'") == "unharmed"


RunWorld = Callable[..., World]


def rows(client: Client, sql: str, *parameters: Any) -> list[Row]:
    """All rows of a statement's result."""
    with client.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return list(cursor.fetchall())


def value(client: Client, sql: str, *parameters: Any) -> Any:
    """The only value of a statement's only row."""
    [(found,)] = rows(client, sql, *parameters)
    return found


@contextlib.contextmanager
def world(
    server: MySQLServer, pool_size: int = 3, more: str = "", query: dict[str, str] | None = None, keys: str = "", **options: Any
) -> Iterator[World]:
    """A World with a new database. `more` and `keys`: as in `configuration`; `query`: the parameters of the backend's url."""
    with contextlib.ExitStack() as closing:
        database = closing.enter_context(server.temporary_database())
        user = server.create_user()
        closing.callback(server.drop_user, user)
        admin = server.connect(user=server.admin_user, password=server.admin_password, database=database, autocommit=True)
        closing.callback(admin.close)
        url = server.url_for(user=user, database=database, **(query or {}))
        pooler = closing.enter_context(Pooler(configuration(url, database, pool_size, more, keys), **options))
        made = World(server, database, user, pooler, admin)
        closing.callback(made.close_clients)
        yield made


def program(name: str) -> list[str]:
    """The command of a program of MySQL's own (`mysql`, `mysqldump`) or of MariaDB's (`mariadb`, `mariadb-dump`). Options may follow."""
    if not name.startswith("mysql"):
        found = shutil.which(name)
        if found is None:
            report_unavailable("mariadb", f"{name} is not on this machine")
        return [found, "--no-defaults", "--skip-ssl"]
    options = ["--no-defaults", "--ssl-mode=DISABLED", "--get-server-public-key"]
    if PEERS.is_file():
        return [str(PEERS), "run", name, *options]
    found = shutil.which(name)
    if found is None or "MariaDB" in subprocess.run([found, "-V"], capture_output=True, text=True, check=False).stdout:
        report_unavailable("mysql", f"{name} is not on this machine")
    return [found, *options]


class Sampler:
    """Counts dualpool's server connections, again and again, in a thread. `with Sampler(world) as sampler: ...; sampler.most`."""

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
        server = self._world.server
        sql = f"SELECT COUNT(*) FROM {server.processes} WHERE user = %s"
        with server.connect(user=server.admin_user, password=server.admin_password, autocommit=True) as admin:
            while not self._ended.wait(0.01):
                self.most = max(self.most, value(admin, sql, self._world.user))
                self.samples += 1
