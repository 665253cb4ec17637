"""Everything that an operator does to a pooler in production, under a steady load of both engines: no client may see an error.

Each round is a RELOAD with another pool size, PAUSE and RESUME, RECONNECT, another certificate, and a restart beside which the old
process serves its clients until they leave. Small by default; as it is meant to be, with 100 clients of each engine and ten rounds:

    DUALPOOL_FULL=1 scripts/test -n 0 tests/e2e/test_steady_load.py tests/e2e/test_restart.py
"""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pymysql
import pytest

from tests.e2e.postgres_world import wait_until
from tests.helpers.certificates import Certificates
from tests.helpers.pooler import Pooler
from tests.helpers.ports import reserved_port
from tests.helpers.servers import MySQLServer, PostgresServer, Servers
from tests.helpers.steady import CLIENTS, ROUNDS, Load

RECYCLE: Final = 20
"""Transactions after which a client connects anew: those of a process that is to end must leave it some day."""
ANY_CERTIFICATE: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANY_CERTIFICATE.check_hostname, ANY_CERTIFICATE.verify_mode = False, ssl.CERT_NONE


class Site:
    """One address per engine, and the process that serves there now: each restart starts another."""

    def __init__(self, postgres: PostgresServer, mysql: MySQLServer, folder: Path) -> None:
        self.postgres = postgres
        self.mysql = mysql
        self.folder = folder
        self.ports = {"postgres": reserved_port(), "mysql": reserved_port()}
        self.pool_size = 5
        self.issuers = [Certificates(folder)]
        self.renew_certificate()
        self.running = contextlib.ExitStack()
        self.pooler = self.running.enter_context(Pooler(self.toml()))

    def toml(self) -> str:
        """The file as it should be now. The listener `own` is not shared with a successor: whoever connects there knows whom it reaches."""
        tls = f'tls = {{ mode = "prefer", cert = "{self.folder}/now.crt", key = "{self.folder}/now.key" }}'
        listeners = "".join(
            f'[listeners.{kind}]\nprotocol = "{kind}"\nbind = "127.0.0.1:{port}"\nreuse_port = true\nbacklog = 1024\n{tls}\n'
            for kind, port in self.ports.items()
        )
        return f"""
{listeners}
[listeners.own]
protocol = "postgres"
bind = "127.0.0.1:0"

[backends.one]
url = "{self.postgres.url}"

[backends.two]
url = "{self.mysql.url}"

[databases.app]
backend = "one"
database = "app"
pool_size = {self.pool_size}

[databases.shop]
name = "app"
backend = "two"
database = "app"
pool_size = {self.pool_size}

[users.app]
password = "app"

[admin]
users = ["app"]
"""

    def console(self, process: Pooler | None = None) -> "psycopg.Connection[tuple[Any, ...]]":
        """The console of a process; of the one that serves, unless another is named."""
        return psycopg.connect((process or self.pooler).url(listener="own", database="dualpool"), autocommit=True)

    def order(self, command: str) -> None:
        """Give the console a command that is answered when it has been carried out."""
        with self.console() as console:
            console.execute(command.encode())

    def show(self, table: str) -> list[tuple[Any, ...]]:
        """A table of the console."""
        with self.console() as console:
            return console.execute(f"SHOW {table}".encode()).fetchall()

    def renew_certificate(self) -> None:
        """Another certificate, of another authority, in the files that the configuration names."""
        (self.folder / str(len(self.issuers))).mkdir()
        self.issuers.append(Certificates(self.folder / str(len(self.issuers))))
        issued = self.issuers[-1].issue("127.0.0.1")
        for source, target in ((issued.cert, "now.crt"), (issued.key, "now.key")):
            (self.folder / target).write_bytes(source.read_bytes())

    def postgres_client(self, number: int) -> Any:
        """Every second one with TLS."""
        mode = "require" if number % 2 else "disable"
        place = {"host": "127.0.0.1", "port": self.ports["postgres"], "dbname": "app", "user": "app", "password": "app"}
        return psycopg.connect(**place, sslmode=mode, connect_timeout=60)

    def mysql_client(self, number: int) -> Any:
        """Every second one with TLS."""
        place: dict[str, Any] = {"host": "127.0.0.1", "port": self.ports["mysql"], "database": "app", "user": "app", "password": "app"}
        return pymysql.connect(**place, ssl=ANY_CERTIFICATE if number % 2 else None, ssl_disabled=number % 2 == 0, connect_timeout=60)


@pytest.fixture
def site(servers: Servers, tmp_path: Path) -> Iterator[Site]:
    made = Site(servers.postgres(15), servers.mariadb(), tmp_path)
    with made.running:
        yield made


def new_pool_size(site: Site) -> None:
    site.pool_size = 4 + (site.pool_size + 1) % 3
    site.pooler.write_config(site.toml())
    site.order("RELOAD")
    sizes = {row[0]: row[5] for row in site.show("DATABASES")}
    assert (sizes["app"], sizes["app@mysql"]) == (site.pool_size, site.pool_size)


def pause_and_resume(site: Site) -> None:
    site.order("PAUSE")
    assert dict(site.show("STATE"))["paused"] == "yes"
    site.order("RESUME")


def reconnect(site: Site) -> None:
    site.order("RECONNECT")
    site.order("WAIT_CLOSE")


def new_certificate(site: Site) -> None:
    site.renew_certificate()
    site.order("RELOAD")
    trusted = {"sslmode": "verify-ca", "sslrootcert": str(site.issuers[-1].ca)}
    psycopg.connect(host="127.0.0.1", port=site.ports["postgres"], dbname="app", user="app", password="app", **trusted).close()
    place: dict[str, Any] = {"host": "127.0.0.1", "port": site.ports["mysql"], "database": "app", "user": "app", "password": "app"}
    pymysql.connect(**place, connect_timeout=60, ssl_ca=str(site.issuers[-1].ca), ssl_verify_cert=True, ssl_verify_identity=True).close()


def restart(site: Site) -> None:
    old, site.pooler = site.pooler, site.running.enter_context(Pooler(site.toml()))
    with site.console(old) as console:
        console.execute("SHUTDOWN WAIT_FOR_CLIENTS")
    assert old.wait() == 0
    assert "Traceback" not in old.log


OPERATIONS: Final[tuple[Callable[[Site], None], ...]] = (new_pool_size, pause_and_resume, reconnect, new_certificate, restart)


def test_no_client_sees_an_error(site: Site) -> None:
    connect: dict[str, Callable[[int], Any]] = {"postgres": site.postgres_client, "mysql": site.mysql_client}
    with Load(connect, CLIENTS, RECYCLE) as load:
        wait_until(lambda: all(load.done[kind] >= CLIENTS for kind in connect), "everybody is at work")
        for _ in range(ROUNDS):
            for operate in OPERATIONS:
                operate(site)
                load.wait_for_more(CLIENTS)
    assert load.errors == []
    assert load.told.total() == 0, "nobody was even told to connect again"
