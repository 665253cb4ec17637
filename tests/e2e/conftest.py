"""Fixtures of the end-to-end tests."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e import mysql_world
from tests.e2e.postgres_world import RunWorld, World, world
from tests.helpers.servers import MySQLServer, PostgresServer, Servers


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What only one of two servers has (`only` of a parameter) is not asked of the other."""
    unfit = [item for item in items if isinstance(item, pytest.Function) and is_of_another_server(item)]
    config.hook.pytest_deselected(items=unfit)
    items[:] = [item for item in items if item not in unfit]


def is_of_another_server(item: pytest.Function) -> bool:
    """Is one of the test's parameters only for the server that it does not run on?"""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    only = getattr(params.get("pinning"), "only", "")
    return bool(only) and only != params.get("mysql_server")


@pytest.fixture(scope="module")
def each_postgres(postgres_server: PostgresServer) -> Iterator[World]:
    """One dualpool for the tests of a file, with 3 server connections, in front of each PostgreSQL in turn."""
    with world(postgres_server) as made:
        yield made


@pytest.fixture(scope="module")
def one_postgres(servers: Servers) -> Iterator[World]:
    """The same in front of one PostgreSQL, for what does not depend on its version."""
    with world(servers.postgres(15)) as made:
        yield made


@pytest.fixture
def run_world() -> Iterator[RunWorld]:
    """`run_world(server, pool_size=..., more=...)`: a World of the test's own."""
    with ExitStack() as running:

        def start(server: PostgresServer, *arguments: object, **options: object) -> World:
            return running.enter_context(world(server, *arguments, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture(params=["postgres", "session"], ids=["transaction", "session"])
def listener(request: pytest.FixtureRequest) -> str:
    """The listeners of transaction mode and of session mode in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def each_mysql(mysql_server: MySQLServer) -> Iterator[mysql_world.World]:
    """One dualpool for the tests of a file, with 3 server connections, in front of MySQL and of MariaDB in turn."""
    with mysql_world.world(mysql_server) as made:
        yield made


@pytest.fixture
def run_mysql() -> Iterator[mysql_world.RunWorld]:
    """`run_mysql(server, pool_size=..., more=...)`: a World of the test's own."""
    with ExitStack() as running:

        def start(server: MySQLServer, *arguments: object, **options: object) -> mysql_world.World:
            return running.enter_context(mysql_world.world(server, *arguments, **options))  # type: ignore[arg-type]

        yield start
