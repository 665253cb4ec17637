"""Fixtures that all tests share: real servers, and dualpool as a process.

`DUALPOOL_NO_SKIPS=1` (set by .ci/run) makes a skipped test a failure of the whole run. `DUALPOOL_ALLOW_SKIPS=mysql` excepts the tests
that need a server which the machine cannot have; names are separated by commas.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.pooler import Pooler
from tests.helpers.servers import MySQLServer, PostgresServer, Servers

RunPooler = Callable[..., Pooler]

# A run of the tests is the same each time, and no example has to be quick. For new examples: `pytest --hypothesis-profile=explore`.
settings.register_profile("same", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


def pytest_sessionstart(session: pytest.Session) -> None:
    """SIGTERM (of `timeout`, of a CI) ends a run as Ctrl-C does: servers are stopped, folders are removed."""

    def end(number: int, frame: FrameType | None) -> None:
        # The exception may become part of a group, and so a mere failure of the test in which it was raised.
        session.shouldstop = "SIGTERM"
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--schedules N`: for tests/simulation."""
    parser.addoption("--schedules", type=int, default=50_000, metavar="N", help="how many random schedules tests/simulation runs")


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """All servers; each is started by the first test that asks for it."""
    found = Servers()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def postgres15(servers: Servers) -> PostgresServer:
    """The distribution's PostgreSQL, with TLS."""
    return servers.postgres(15)


@pytest.fixture(scope="session")
def postgres18(servers: Servers) -> PostgresServer:
    """The newest PostgreSQL, without TLS."""
    return servers.postgres(18)


@pytest.fixture(scope="session")
def mariadb(servers: Servers) -> MySQLServer:
    """MariaDB."""
    return servers.mariadb()


@pytest.fixture(scope="session")
def mysql(servers: Servers) -> MySQLServer:
    """MySQL."""
    return servers.mysql()


@pytest.fixture(scope="session", params=[15, 18], ids=["postgres15", "postgres18"])
def postgres_server(request: pytest.FixtureRequest, servers: Servers) -> PostgresServer:
    """Each PostgreSQL in turn."""
    return servers.postgres(request.param)


@pytest.fixture(scope="session", params=["mysql", "mariadb"])
def mysql_server(request: pytest.FixtureRequest, servers: Servers) -> MySQLServer:
    """Each of MySQL and MariaDB in turn."""
    return servers.mysql() if request.param == "mysql" else servers.mariadb()


@pytest.fixture
def run_pooler() -> Iterator[RunPooler]:
    """`run_pooler(toml)` or `run_pooler(arguments=[...])`: a dualpool that listens, ended (and checked) when the test ends."""
    with ExitStack() as running:

        def start(toml: str | None = None, **options: object) -> Pooler:
            return running.enter_context(Pooler(toml, **options))  # type: ignore[arg-type]

        yield start


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if tests were skipped that may not be."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("DUALPOOL_NO_SKIPS"):
        return
    allowed = [f"Skipped: {name}:" for name in os.environ.get("DUALPOOL_ALLOW_SKIPS", "").split(",") if name]
    refused = [report for report in reporter.stats.get("skipped", []) if not any(reason in str(report.longrepr) for reason in allowed)]
    if refused:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("")
        reporter.write_line(f"{len(refused)} skipped, and DUALPOOL_NO_SKIPS allows none", red=True)
