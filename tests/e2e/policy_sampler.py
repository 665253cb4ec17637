"""A process that counts the connections of one user at a server every 10 ms: `python -m tests.e2e.policy_sampler postgres HOST PORT USER`.

In a process of its own, so that a busy test does not slow it down. Each line on its standard input makes it print the most that it has
counted since the last line, and how often it has looked.
"""

import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Self

import psycopg
import pymysql

from tests.helpers.servers import DatabaseServer

PERIOD: Final = 0.01
POSTGRES: Final = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND backend_type = 'client backend'"
MYSQL: Final = "SELECT COUNT(*) FROM performance_schema.processlist WHERE user = %s"
MARIADB: Final = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s"


class Sampler:
    """The process. `with Sampler(server, user) as sampler: ...; most, samples = sampler.most()`."""

    def __init__(self, server: DatabaseServer, user: str) -> None:
        account = [server.admin_user, server.admin_password]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.policy_sampler", server.scheme, server.host, str(server.port), *account, user],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.most()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def most(self) -> tuple[int, int]:
        """The most connections since it was asked last, and the number of samples."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        most, samples = self._process.stdout.readline().split()
        return int(most), int(samples)


def main(scheme: str, host: str, port: str, admin: str, password: str, user: str) -> None:
    """Sample until standard input ends."""
    connection: Any
    if scheme == "postgresql":
        connection = psycopg.connect(host=host, port=port, user=admin, password=password, dbname="postgres", autocommit=True)
        sql = POSTGRES
    else:
        connection = pymysql.connect(host=host, port=int(port), user=admin, password=password, autocommit=True, connect_timeout=60)
        sql = MARIADB if "MariaDB" in connection.get_server_info() else MYSQL
    cursor = connection.cursor()
    most = samples = 0
    while True:
        started = time.monotonic()
        cursor.execute(sql, [user])
        most, samples = max(most, cursor.fetchone()[0]), samples + 1
        ready, _, _ = select.select([sys.stdin], [], [], max(0.0, started + PERIOD - time.monotonic()))
        if ready:
            if not sys.stdin.readline():
                return
            # Once more, so that what there is now counts, however long this process was kept waiting.
            cursor.execute(sql, [user])
            print(max(most, cursor.fetchone()[0]), samples + 1, flush=True)
            most = samples = 0


if __name__ == "__main__":
    main(*sys.argv[1:])
