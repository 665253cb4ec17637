"""One dualpool for both protocols, with its console: what the tests of test_console_*.py look at."""

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pymysql

from tests.e2e.postgres_world import DEADLINE
from tests.helpers.pooler import Pooler
from tests.helpers.servers import MySQLServer, PostgresServer, Servers

Row = tuple[Any, ...]

SHOWS: Final = (
    "POOLS", "CLIENTS", "SERVERS", "DATABASES", "USERS", "STATS", "STATS_TOTALS", "STATS_AVERAGES", "TOTALS", "LISTS", "CONFIG", "VERSION",
    "STATE", "SOCKETS", "ACTIVE_SOCKETS", "MEM", "DNS_HOSTS", "DNS_ZONES", "FDS", "PEERS", "PEER_POOLS", "PINS", "BUDGET", "BACKENDS",
    "LISTENERS", "QUEUE", "CHANNELS",
)  # fmt: skip


def configuration(postgres: str, mysql: str, *, pool_size: int = 5, more: str = "", users: str = "") -> str:
    """Databases app (PostgreSQL) and shop (MySQL); users app (admin), monitor (stats) and other."""
    return f"""
[listeners.postgres]
protocol = "postgres"
bind = "127.0.0.1:0"

[listeners.session]
protocol = "postgres"
bind = "127.0.0.1:0"
pool_mode = "session"

[listeners.mysql]
protocol = "mysql"
bind = "127.0.0.1:0"

[backends.main]
url = "{postgres}"
budget = 40

[backends.shop]
url = "{mysql}"
budget = 40

[databases.app]
backend = "main"
pool_size = {pool_size}

[databases.shop]
backend = "shop"
database = "app"
pool_size = {pool_size}

[users.app]
password = "app"

[users.monitor]
password = "app"

[users.other]
password = "app"
{users}
[admin]
users = ["app"]
stats_users = ["monitor"]
http = "127.0.0.1:0"
metrics_compat = "pgbouncer"

{more}
"""


@dataclass
class ConsoleWorld:
    """A dualpool, and the servers behind it."""

    postgres: PostgresServer
    mysql: MySQLServer
    pooler: Pooler

    def url(self, database: str = "pgbouncer", user: str = "app") -> str:
        """How a PostgreSQL client connects."""
        return self.pooler.url(f"{user}:app", database)

    def console(self, user: str = "app", database: str = "pgbouncer") -> "psycopg.Connection[Row]":
        """The console, over PostgreSQL."""
        return psycopg.connect(self.url(database, user), autocommit=True, connect_timeout=int(DEADLINE))

    def client(self, database: str = "app", listener: str = "postgres", **options: Any) -> "psycopg.Connection[Row]":
        """A client of PostgreSQL."""
        usual: dict[str, Any] = {"autocommit": True, "connect_timeout": int(DEADLINE)}
        return psycopg.connect(self.pooler.url("app:app", database, listener), **(usual | options))

    def mysql_client(self, database: str = "shop", **options: Any) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        """A client of MySQL, or with `pgbouncer` the console over MySQL."""
        return pymysql.connect(**(self.mysql_address(database) | options))

    def mysql_address(self, database: str = "pgbouncer") -> dict[str, Any]:
        """What MySQL's drivers need."""
        port = self.pooler.port("mysql")
        account = {"user": "app", "password": "app", "database": database}
        return {"host": "127.0.0.1", "port": port, **account, "autocommit": True, "connect_timeout": int(DEADLINE)}

    def show(self, table: str) -> list[dict[str, Any]]:
        """A table of the console as dictionaries."""
        with self.console() as console:
            cursor = console.execute(f"SHOW {table}".encode())
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def order(self, command: str) -> str | None:
        """Give an order; what it answers."""
        with self.console() as console:
            return console.execute(command.encode()).statusmessage

    def config(self, **options: Any) -> str:
        """The configuration, with what differs."""
        return configuration(self.postgres.url, self.mysql.url, **options)

    def fetch(self, path: str) -> tuple[int, str]:
        """GET a page of HTTP: status and body."""
        address = re.search(r"admin http listening on ([\d.:]+)", self.pooler.log)
        assert address is not None
        try:
            with urllib.request.urlopen(f"http://{address[1]}{path}", timeout=DEADLINE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def api(self, name: str) -> Any:
        """A table over HTTP."""
        status, body = self.fetch(f"/api/v1/{name}")
        assert status == 200
        return json.loads(body)


@contextlib.contextmanager
def console_world(servers: Servers, **options: Any) -> Iterator[ConsoleWorld]:
    """A dualpool of one's own."""
    postgres, mysql = servers.postgres(15), servers.mysql()
    with Pooler(configuration(postgres.url, mysql.url, **options)) as pooler:
        pooler.wait_for_log("admin http listening on")
        yield ConsoleWorld(postgres, mysql, pooler)


def run(*command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is text."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env={**os.environ, **environment}, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def dualpool(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run dualpool's command line."""
    return run(sys.executable, "-m", "dualpool", *arguments, check=check)
