"""A steady load of clients of both protocols, that notices every error which a client sees.

`DUALPOOL_FULL=1` makes the tests that use it as large as they are meant to be; otherwise they are small enough for every run.
"""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import psycopg
import pymysql

from tests.e2e.postgres_world import DEADLINE, wait_until

FULL: Final = bool(os.environ.get("DUALPOOL_FULL"))
CLIENTS: Final = 100 if FULL else 30
"""Of each protocol."""
ROUNDS: Final = 10 if FULL else 3
SHUTDOWN: Final = 1053
"""MySQL: ER_SERVER_SHUTDOWN."""
REST: Final = 0.002
"""Seconds that a client rests between two transactions, for each client of its kind."""


class Load:
    """Clients in threads, each with one transaction after the other. They connect again when told to, but only between transactions.

    `connect`: for each kind ("postgres", "mysql"), how its client number N connects. `clients`: of each kind. `recycle`: each client
    connects anew by itself after so many transactions, as the pools of applications make theirs do (0: never).
    """

    def __init__(self, connect: Mapping[str, Callable[[int], Any]], clients: int, recycle: int = 0) -> None:
        self.connect = connect
        self.done: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        """How often somebody was told to connect again."""
        self.errors: list[str] = []
        self._recycle = recycle
        self._rest = REST * clients
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(kind, number), daemon=True) for kind in connect for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def wait_for_more(self, count: int) -> None:
        """Wait until each kind has done `count` transactions more. AssertionError if a client has seen an error."""
        goal = {kind: self.done[kind] + count for kind in self.connect}
        wait_until(
            lambda: bool(self.errors) or all(self.done[kind] >= goal[kind] for kind in goal), f"more answers: {self.done}", 3 * DEADLINE
        )
        assert not self.errors, self.errors

    def _run(self, kind: str, number: int) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TellsToLeave):
                connection = self._open(kind, number)
                try:
                    self._use(kind, connection)
                except TellsToLeave:
                    self.told[kind] += 1
                except Exception as error:
                    self.errors.append(f"{kind}: {error!r}")
                    return
                finally:
                    with contextlib.suppress(Exception):
                        connection.close()

    def _open(self, kind: str, number: int) -> Any:
        try:
            return self.connect[kind](number)
        except Exception as error:
            if not tells_to_leave(error):
                self.errors.append(f"{kind}, connecting: {error!r}")
            raise TellsToLeave from error

    def _use(self, kind: str, connection: Any) -> None:
        count = 0
        while not self._ended.wait(self._rest) and not (self._recycle and count >= self._recycle):
            transaction(kind, connection)
            self.done[kind] += 1
            count += 1


def transaction(kind: str, connection: Any) -> None:
    """Two statements and a COMMIT. Raises TellsToLeave if the first is answered with that."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("BEGIN" if kind == "mysql" else "SELECT 0")
        except Exception as error:
            if tells_to_leave(error):
                raise TellsToLeave from error
            raise
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    connection.commit()


class TellsToLeave(Exception):
    """Connect again."""


def tells_to_leave(error: Exception) -> bool:
    """57P01, or MySQL's 1053."""
    if isinstance(error, pymysql.MySQLError):
        return bool(error.args[0] == SHUTDOWN)
    # While it connects, psycopg has no SQLSTATE for what the server says.
    return isinstance(error, psycopg.errors.AdminShutdown) or (
        isinstance(error, psycopg.OperationalError) and "shutting down" in str(error)
    )
