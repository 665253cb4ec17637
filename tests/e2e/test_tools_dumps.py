"""Dumps of a schema of some size through the port of transaction mode equal the direct ones, and are restored through it to the same."""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.e2e import mysql_world, postgres_world
from tests.e2e.postgres_world import in_thread
from tests.helpers.servers import Servers

FOLDER: Final = Path(__file__).parent / "dumps"
SECONDS: Final = 300.0
JOBS: Final = 3


def run(*command: str | Path, file: Path | None = None) -> bytes:
    """Run a program, with a file to read; what it prints. It must succeed, without a word of complaint."""
    with contextlib.ExitStack() as closing:
        source = closing.enter_context(file.open()) if file else subprocess.DEVNULL
        done = subprocess.run(command, stdin=source, capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@contextlib.contextmanager
def others_at_work(*transactions: Callable[[], object]) -> Iterator[None]:
    """Other clients do these meanwhile, again and again, so that the server connections change hands."""
    ended = threading.Event()

    def work(transaction: Callable[[], object]) -> None:
        while not ended.is_set():
            transaction()

    at_work = [in_thread(lambda one=one: work(one)) for one in transactions]  # type: ignore[misc]
    try:
        yield
    finally:
        ended.set()
        for one in at_work:
            one.result()


# ------------------------------------------------------------------------------------------------------------------ PostgreSQL

STRICT: Final = f"""
[databases."*"]
backend = "main"
pool_size = {JOBS + 3}
strict = true
"""
"""Any database, and each lease on another server connection than the one before."""


class Postgres:
    """A World with the schema in `source`, and the programs of its server."""

    def __init__(self, world: postgres_world.World, source: str) -> None:
        self.world = world
        self.source = source
        assert world.server.embedded is not None
        self._folder = world.server.embedded.bindir  # type: ignore[attr-defined]

    def program(self, name: str) -> Path:
        """pg_dump and the like, of the server's version."""
        found = Path(self._folder / name)
        assert found.exists(), f"{found} is not there"
        return found

    def direct(self, database: str) -> str:
        return self.world.server.url_for(database=database)

    def pooled(self, database: str) -> str:
        return self.world.pooler.url(database=database)

    def dump(self, url: str) -> bytes:
        """What pg_dump writes, but for the key that it makes up."""
        return comparable(run(self.program("pg_dump"), url))

    @contextlib.contextmanager
    def others(self) -> Iterator[None]:
        """Two clients in the same pool."""
        with psycopg.connect(self.pooled(self.source)) as one, psycopg.connect(self.pooled(self.source)) as two:

            def transaction(client: psycopg.Connection[tuple[object, ...]]) -> Callable[[], object]:
                def work() -> None:
                    client.execute("SELECT pg_sleep(0.005)")
                    client.rollback()

                return work

            with others_at_work(transaction(one), transaction(two)):
                yield


def comparable(dump: bytes) -> bytes:
    return b"\n".join(line for line in dump.split(b"\n") if not line.startswith((rb"\restrict", rb"\unrestrict")))


@pytest.fixture(scope="module")
def postgres(servers: Servers) -> Iterator[Postgres]:
    server = servers.postgres(15)
    with postgres_world.world(server, more=STRICT) as world, server.temporary_database() as source:
        made = Postgres(world, source)
        run(made.program("psql"), "-qX", "-v", "ON_ERROR_STOP=1", "-f", FOLDER / "postgres.sql", made.direct(source))
        yield made


@pytest.fixture(scope="module")
def plain(postgres: Postgres) -> bytes:
    """The direct dump."""
    return postgres.dump(postgres.direct(postgres.source))


def test_pg_dump(postgres: Postgres, plain: bytes) -> None:
    with postgres.others():
        assert postgres.dump(postgres.pooled(postgres.source)) == plain
    assert plain.count(b"\n") > 130_000


def test_pg_dump_in_parallel(postgres: Postgres, plain: bytes, tmp_path: Path) -> None:
    """Its workers share the snapshot of the transaction of the first."""
    folder = tmp_path / "dumped"
    with postgres.others():
        run(postgres.program("pg_dump"), "-Fd", "-Z0", f"-j{JOBS}", "-f", folder, postgres.pooled(postgres.source))
    assert comparable(run(postgres.program("pg_restore"), "-f", "-", folder)) == plain


@pytest.mark.parametrize("how", ["pg_restore", "pg_restore in parallel", "psql", "psql in one transaction"])
def test_restored(postgres: Postgres, plain: bytes, how: str, tmp_path: Path) -> None:
    with postgres.world.server.temporary_database() as database, postgres.others():
        file, url = tmp_path / "dumped", postgres.pooled(database)
        if how.startswith("psql"):
            run(postgres.program("pg_dump"), "-f", file, postgres.pooled(postgres.source))
            once = ["-1"] if how.endswith("transaction") else []
            run(postgres.program("psql"), "-qX", "-v", "ON_ERROR_STOP=1", *once, "-f", file, url)
        else:
            run(postgres.program("pg_dump"), "-Fc", "-Z1", "-f", file, postgres.pooled(postgres.source))
            jobs = [f"-j{JOBS}"] if how.endswith("parallel") else []
            run(postgres.program("pg_restore"), "--exit-on-error", *jobs, "-d", url, file)
        assert postgres.dump(postgres.direct(database)) == plain
    for url in (postgres.pooled(postgres.source), postgres.world.url()):
        with psycopg.connect(url) as client:
            assert client.execute("SHOW search_path").fetchone() == ('"$user", public',)


# ------------------------------------------------------------------------------------------------------------------ MySQL, MariaDB

EVERY: Final = '[databases.every]\nname = "*"\nbackend = "shop"'
DUMPS: Final = {
    "as it is": (),
    "in one transaction": ("--single-transaction", "--hex-blob"),
    "of all parts": ("--routines", "--events", "--complete-insert"),
}


class MySQL:
    """A World with the schema in `source`, and the programs of its server."""

    def __init__(self, world: mysql_world.World, source: str) -> None:
        self.world = world
        self.source = source
        self._client, self._dump = ("mariadb", "mariadb-dump") if world.server.is_mariadb else ("mysql", "mysqldump")

    def command(self, name: str, port: int, *options: str) -> list[str]:
        address = ["-h127.0.0.1", f"-P{port}", "-uapp", "-papp", "--default-character-set=utf8mb4"]
        return [*mysql_world.program(name), *address, *options]

    def load(self, port: int, file: Path, database: str) -> None:
        """Feed a file to the client."""
        run(*self.command(self._client, port, database), file=file)

    def dump(self, port: int, database: str, *options: str) -> bytes:
        """What mysqldump writes."""
        usual = ["--skip-comments", "--no-tablespaces", *(() if self.world.server.is_mariadb else ["--set-gtid-purged=OFF"])]
        return run(*self.command(self._dump, port, *usual, *options, database))

    @contextlib.contextmanager
    def others(self) -> Iterator[None]:
        """Two clients in the same pool."""
        with contextlib.ExitStack() as closing:
            address = self.world.address() | {"database": self.source}
            clients = [closing.enter_context(mysql_world.pymysql.connect(**address)) for _ in range(2)]

            def transaction(client: mysql_world.Client) -> Callable[[], object]:
                def work() -> None:
                    mysql_world.rows(client, "SELECT SLEEP(0.005) FROM kinds WHERE id = 1")
                    client.rollback()

                return work

            with others_at_work(*(transaction(client) for client in clients)):
                yield


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def mysql_tools(request: pytest.FixtureRequest, servers: Servers) -> Iterator[MySQL]:
    server = getattr(servers, request.param)()
    with mysql_world.world(server, more=EVERY) as world, server.temporary_database() as source:
        made = MySQL(world, source)
        made.load(server.port, FOLDER / "mysql.sql", source)
        yield made


@pytest.mark.parametrize("how", DUMPS)
def test_mysqldump(mysql_tools: MySQL, how: str, tmp_path: Path) -> None:
    direct = mysql_tools.dump(mysql_tools.world.server.port, mysql_tools.source, *DUMPS[how])
    port = mysql_tools.world.pooler.port("mysql")
    with mysql_tools.others():
        assert mysql_tools.dump(port, mysql_tools.source, *DUMPS[how]) == direct
        if how != "of all parts":
            return
        file = tmp_path / "dumped.sql"
        file.write_bytes(direct)
        with mysql_tools.world.server.temporary_database() as database:
            mysql_tools.load(port, file, database)
            assert mysql_tools.dump(mysql_tools.world.server.port, database, *DUMPS[how]) == direct
