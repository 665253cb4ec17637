"""Several hosts: which role is looked for, in which order, and what happens when a server becomes another."""

import shutil
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from dualpool.dev import EmbeddedPostgres
from tests.e2e.policy_world import POOL_USER, Stage, make_pool_user, stage
from tests.e2e.postgres_world import wait_for, wait_until
from tests.helpers.ports import reserved_port
from tests.helpers.servers import MySQLServer, PostgresServer, Servers

SERVER_PORT = "SELECT inet_server_port()"
QUICK = '[timeouts]\nserver_login_retry = "50ms"\nquery_wait = "60s"'


@pytest.fixture(scope="module")
def pair(servers: Servers) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary, and a standby that was made of a copy of its data. Tests may promote the standby."""
    primary = servers.own_postgres(15)
    embedded = primary.embedded
    assert isinstance(embedded, EmbeddedPostgres)
    make_pool_user(primary)
    primary.execute(f"GRANT CREATE ON SCHEMA public TO {POOL_USER}", database="app")
    embedded.stop()
    copied = embedded.data_dir.with_name(f"{embedded.data_dir.name}-standby")
    shutil.copytree(embedded.data_dir, copied, symlinks=True, ignore=shutil.ignore_patterns("run", "*.pid", "server.log", "port"))
    account = {"user": embedded.user, "password": embedded.password, "database": embedded.database}
    copy = EmbeddedPostgres(copied, embedded.bindir, port=reserved_port(), **account)
    copy.settings, copy.hba = {**embedded.settings, "hot_standby": "on"}, embedded.hba
    (copy.folder / "standby.signal").touch()
    for path in (copied, *copied.rglob("*")):
        copy.identity.own(path)
        path.chmod(0o700 if path.is_dir() else 0o600)
    embedded.restart()
    with copy:
        yield primary, replace(primary, port=copy.port, embedded=copy)
    embedded.stop()


def served_by(world: Stage) -> int:
    """The port of the server that answers a new client."""
    with world.connect() as conn:
        return int(conn.execute(SERVER_PORT)[0][0])


class Stages:
    """A stage in front of several servers: `with` it."""

    def __init__(self, servers: tuple[PostgresServer | MySQLServer, ...], keys: str, **options: str) -> None:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        first = servers[0]
        url = f"{first.scheme}://{POOL_USER}:{POOL_USER}@{hosts}/app?sslmode=disable"
        self._context = stage(first, url=url, backend=keys, more=QUICK, **options)  # type: ignore[arg-type]

    def __enter__(self) -> Stage:
        return self._context.__enter__()

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "index"),
    [("any", 0), ("read-write", 0), ("primary", 0), ("read-only", 1), ("standby", 1), ("prefer-standby", 1)],
)
def test_the_role_that_is_looked_for(pair: tuple[PostgresServer, PostgresServer], target: str, index: int) -> None:
    with Stages(pair, f'target_session_attrs = "{target}"') as world:
        assert served_by(world) == pair[index].port


def test_prefer_standby_is_content_with_a_primary(pair: tuple[PostgresServer, PostgresServer]) -> None:
    with Stages(pair[:1], 'target_session_attrs = "prefer-standby"') as world:
        assert served_by(world) == pair[0].port


def test_nobody_has_the_role(pair: tuple[PostgresServer, PostgresServer]) -> None:
    with Stages(pair[:1], 'target_session_attrs = "standby"', database='query_wait = "300ms"') as world:

        def told() -> str:
            with pytest.raises(psycopg.OperationalError) as error:
                world.connect().execute("SELECT 1")
            return str(error.value)

        # The first ones may be told only that they have waited: nobody has been asked for its role yet.
        wait_for(told, lambda text: "is read-write, but target_session_attrs asks for standby" in text, "the reason")


def test_round_robin_uses_both(pair: tuple[PostgresServer, PostgresServer]) -> None:
    with Stages(pair, 'load_balance = "round-robin"') as world:
        conns = [world.connect() for _ in range(4)]
        for conn in conns:
            conn.execute("BEGIN")
        ports = [conn.execute(SERVER_PORT)[0][0] for conn in conns]
        assert {ports.count(server.port) for server in pair} == {2}
        for conn in conns:
            conn.close()


def test_a_primary_that_takes_no_writes_any_more_is_left(pair: tuple[PostgresServer, PostgresServer], servers: Servers) -> None:
    """The setting is of new transactions, so sessions that exist find out by an error, one client's."""
    primary = pair[0]
    other = servers.own_postgres(15)
    make_pool_user(other)
    other.execute(f"GRANT CREATE ON SCHEMA public TO {POOL_USER}", database="app")
    try:
        with Stages((primary, other), 'target_session_attrs = "read-write"') as world:
            assert served_by(world) == primary.port
            primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            primary.execute("SELECT pg_reload_conf()")

            def moved() -> bool:
                with world.connect() as conn:
                    try:
                        conn.execute("CREATE TABLE IF NOT EXISTS written (id int)")
                    except psycopg.errors.ReadOnlySqlTransaction:
                        return False
                    return bool(conn.execute(SERVER_PORT) == [(other.port,)])

            wait_until(moved, "writes go to the other server")
            world.pooler.wait_for_log("takes no writes any more")
    finally:
        with psycopg.connect(
            primary.url_for(user="postgres", password="postgres", database="postgres"),
            autocommit=True,
            options="-c default_transaction_read_only=off",
        ) as admin:
            admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
            admin.execute("SELECT pg_reload_conf()")
        assert other.embedded is not None
        other.embedded.stop()


def test_mariadb_that_becomes_read_only_is_left(servers: Servers) -> None:
    two = (servers.own_mariadb(), servers.own_mariadb())
    for server in two:
        make_pool_user(server)
    try:
        with Stages(two, 'target_session_attrs = "read-write"') as world, world.connect() as conn:
            conn.execute("CREATE TABLE IF NOT EXISTS written (port int)")
            two[0].execute("SET GLOBAL read_only = 1")

            def moved() -> bool:
                try:
                    conn.execute("CREATE TABLE IF NOT EXISTS written (port int)")
                except Exception:
                    return False
                return bool(conn.execute("SELECT @@port") == [(two[1].port,)])

            wait_until(moved, "writes go to the other server")
            world.pooler.wait_for_log("takes no writes any more")
    finally:
        for server in two:
            assert server.embedded is not None
            server.embedded.stop()


def test_clients_wait_while_the_primary_dies_and_the_standby_is_promoted(pair: tuple[PostgresServer, PostgresServer]) -> None:
    """The last test of the pair: afterwards there is another primary."""
    primary, standby = pair
    assert primary.embedded is not None
    with Stages(pair, 'target_session_attrs = "read-write"') as world, world.connect() as conn:
        # The first lease of a pool ends with a question to the catalog. A request behind it would be under way when the server dies.
        for _ in range(3):
            assert conn.execute(SERVER_PORT) == [(primary.port,)]
        primary.embedded.kill()
        standby.execute("SELECT pg_promote(false)")
        assert conn.execute(SERVER_PORT) == [(standby.port,)]
