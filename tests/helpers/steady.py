"""A steady load of clients of both protocols, that notices every error which a client sees.

`DUALPOOL_FULL=1` makes the tests that use it as large as they are meant to be; otherwise they are small enough for every run.
"""

import contextlib
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import psycopg
import pymysql

from tests.e2e.postgres_world import DEADLINE, wait_until

FULL: Final = bool(os.environ.get("DUALPOOL_FULL"))
CLIENTS: Final = 100 if FULL else 30
"""Of each protocol."""
ROUNDS: Final = 10 if FULL else 3
GROUP: Final = 25
"""Clients of a process."""
DONE, TOLD = 0, 1
SHUTDOWN: Final = 1053
"""MySQL: ER_SERVER_SHUTDOWN."""
REST: Final = 0.003
"""Seconds that a client rests between two transactions, for each client of its kind."""


class Load:
    """Clients, each with one transaction after the other. They connect again when told to, but only between transactions.

    `connect`: for each kind ("postgres", "mysql"), how its client number N connects. `clients`: of each kind. `recycle`: each client
    connects anew by itself after so many transactions, as the pools of applications make theirs do (0: never). They are threads of a few
    processes: in one, each would wait for all others, and read its answers late.
    """

    def __init__(self, connect: Mapping[str, Callable[[int], Any]], clients: int, recycle: int = 0) -> None:
        context = multiprocessing.get_context("fork")
        self._stop = context.Event()
        self._errors: multiprocessing.Queue[str] = context.Queue()
        self.errors: list[str] = []
        groups = [(kind, range(first, min(first + GROUP, clients))) for kind in connect for first in range(0, clients, GROUP)]
        self._counts = [(kind, context.Array("q", 2)) for kind, _ in groups]
        self._processes = [
            context.Process(
                target=Group(kind, connect[kind], numbers, recycle, REST * clients, counts, self._stop, self._errors).run, daemon=True
            )
            for (kind, numbers), (_, counts) in zip(groups, self._counts, strict=True)
        ]

    @property
    def done(self) -> Counter[str]:
        """How many transactions were answered, by kind."""
        return self._sum(DONE)

    @property
    def told(self) -> Counter[str]:
        """How often somebody was told to connect again."""
        return self._sum(TOLD)

    def _sum(self, index: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for kind, counts in self._counts:
            found[kind] += counts[index]
        return found

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for process in self._processes:
            process.join(DEADLINE)
        hanging = [process for process in self._processes if process.is_alive()]
        for process in hanging:
            process.kill()
        self._hear()
        assert not hanging, "a client hangs"

    def _hear(self) -> list[str]:
        while not self._errors.empty():
            self.errors.append(self._errors.get())
        return self.errors

    def wait_for_more(self, count: int) -> None:
        """Wait until each kind has done `count` transactions more. AssertionError if a client has seen an error."""
        goal = {kind: number + count for kind, number in self.done.items()}
        enough = "more answers than " + str(self.done)
        wait_until(lambda: bool(self._hear()) or all(self.done[kind] >= goal[kind] for kind in goal), enough, 3 * DEADLINE)
        assert not self.errors, self.errors


class Group:
    """Some of the clients of a kind, in a process of their own."""

    def __init__(
        self, kind: str, connect: Callable[[int], Any], numbers: range, recycle: int, rest: float, counts: Any, stop: Any, errors: Any
    ) -> None:
        self.kind = kind
        self.connect = connect
        self.numbers = numbers
        self.recycle = recycle
        self.rest = rest
        self.counts = counts
        self.stop = stop
        self.errors = errors
        self.ended = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        threads = [threading.Thread(target=self._live, args=(number,), daemon=True) for number in self.numbers]
        for thread in threads:
            thread.start()
        self.stop.wait()
        self.ended.set()
        for thread in threads:
            thread.join()

    def _live(self, number: int) -> None:
        while not self.ended.is_set():
            with contextlib.suppress(TellsToLeave):
                connection = self._open(number)
                try:
                    self._use(connection)
                except TellsToLeave:
                    self._count(TOLD)
                except Exception as error:
                    self.errors.put(f"{self.kind}: {error!r}")
                    return
                finally:
                    with contextlib.suppress(Exception):
                        connection.close()

    def _open(self, number: int) -> Any:
        try:
            return self.connect(number)
        except Exception as error:
            if not tells_to_leave(error):
                self.errors.put(f"{self.kind}, connecting: {error!r}")
            raise TellsToLeave from error

    def _use(self, connection: Any) -> None:
        count = 0
        told: list[str | None] = []
        if self.kind == "postgres":
            connection.add_notice_handler(lambda notice: told.append(notice.sqlstate))
        while not self.ended.wait(self.rest) and not (self.recycle and count >= self.recycle):
            transaction(self.kind, connection, told)
            self._count(DONE)
            count += 1

    def _count(self, index: int) -> None:
        with self.counts.get_lock():
            self.counts[index] += 1


def transaction(kind: str, connection: Any, told: Sequence[str | None] = ()) -> None:
    """Two statements and a COMMIT. Raises TellsToLeave if the first is answered with that.

    `told`: the SQLSTATEs of notices. libpq takes an error for one that it reads together with the end of an answer, as a slow client does.
    """
    with connection.cursor() as cursor:
        try:
            cursor.execute("BEGIN" if kind == "mysql" else "SELECT 0")
        except Exception as error:
            if tells_to_leave(error) or psycopg.errors.AdminShutdown.sqlstate in told:
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
