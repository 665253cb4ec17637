"""A MariaDB or MySQL server of our own, found on the machine. No Python package brings one; mariadb_packages.py can fetch MariaDB."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, ClassVar, Final

import attrs

from dualpool.dev.embedded import DevError, EmbeddedServer, run_or_fail
from dualpool.dev.folders import cache_dir, make_folder, program_version, version_numbers
from dualpool.dev.processes import Steps, run

PLACES: Final = (
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/libexec",
    "/usr/local/mysql/bin",
    "/opt/homebrew/opt/mariadb/bin",
    "/opt/homebrew/opt/mysql/bin",
    "/usr/local/opt/mariadb/bin",
    "/usr/local/opt/mysql/bin",
)
HOW_TO_INSTALL: Final = (
    "Install one (apt install mariadb-server, brew install mariadb), point DUALPOOL_MYSQLD at one, "
    "or on Debian and Ubuntu: dualpool dev --fetch, which installs nothing and needs no root."
)
SYSTEM_TABLES: Final = (
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
)
"""What mariadb-install-db feeds to a new server, without the help tables. Found in share/; a version may lack some."""


@attrs.frozen
class Installation:
    """A server program, where the files that belong to it are, and the libraries it needs that the system does not have."""

    program: Path
    prefix: Path
    libraries: tuple[Path, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the program needs to start."""
        return {"LD_LIBRARY_PATH": os.pathsep.join(map(str, self.libraries))} if self.libraries else {}

    def banner(self) -> str:
        """What it says when asked for its version, or "" if it does not run."""
        return program_version(self.program, self.environment)


def find_mysqld() -> Installation:
    """DUALPOOL_MYSQLD, then a MariaDB, then a MySQL, then a fetched MariaDB. Raises DevError if there is none."""
    if given := os.environ.get("DUALPOOL_MYSQLD"):
        installation = installation_of(Path(given))
        if not installation.banner():
            raise DevError(f"DUALPOOL_MYSQLD={given} is not a server that runs")
        return installation
    for installation in installed_servers():
        if installation.banner():
            return installation
    raise DevError("no MariaDB or MySQL server was found on this machine", hint=HOW_TO_INSTALL)


def installed_servers() -> Iterator[Installation]:
    """The servers on PATH and in the usual places: MariaDB first, it starts faster and takes less. Then the one that was fetched."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *PLACES])
    for name in ("mariadbd", "mysqld"):
        if (program := shutil.which(name, path=path)) is not None:
            yield installation_of(Path(program))
    if (fetched := fetched_installation(cache_dir() / "mariadb")) is not None:
        yield fetched


def installation_of(program: Path) -> Installation:
    """A server that was installed the usual way: its files are beside its folder (`/usr/sbin/mariadbd`, `/usr/share/mysql`)."""
    return Installation(program, program.resolve().parent.parent)


def fetched_installation(root: Path) -> Installation | None:
    """The server that was unpacked below `root`, if there is one."""
    program = root / "usr" / "sbin" / "mariadbd"
    if not program.is_file():
        return None
    folders = (root / "usr" / "lib", root / "lib")
    libraries = {found.parent for folder in folders if folder.is_dir() for found in folder.rglob("lib*.so*")}
    return Installation(program, root / "usr", tuple(sorted(libraries)))


class EmbeddedMySQL(EmbeddedServer):
    """MariaDB or MySQL on 127.0.0.1. `user` may do everything; there is no other account, `root` included."""

    scheme = "mysql"
    stop_steps: ClassVar[Steps] = ((signal.SIGTERM, 15.0),)

    def __init__(
        self,
        data_dir: Path,
        mysqld: Path | Installation | None = None,
        *,
        port: int = 0,
        user: str = "app",
        password: str = "app",
        database: str = "app",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir, port=port, user=user, password=password, database=database, settings=settings)
        self.installation = installation_of(mysqld) if isinstance(mysqld, Path) else mysqld or find_mysqld()
        banner = self.installation.banner()
        self.is_mariadb = "MariaDB" in banner
        self.server_version = version_numbers(banner.partition("Ver ")[2])
        if not self.server_version:
            raise DevError(f"{self.installation.program} does not run")
        if not self.identity.can_enter(self.installation.program.parent):
            raise DevError(f"{self.installation.program}: the server runs as another user than root, who cannot enter its folder")

    @property
    def product(self) -> str:
        """MariaDB or MySQL."""
        return "MariaDB" if self.is_mariadb else "MySQL"

    @cached_property
    def edition(self) -> str:
        """Data is opened with the series that made it: neither upgrades without being told, nor goes back."""
        return f"{self.product.lower()}-" + ".".join(map(str, self.server_version[:2]))

    @property
    def version(self) -> str:
        """Such as "MariaDB 10.11.6"."""
        return f"{self.product} " + ".".join(map(str, self.server_version))

    @property
    def pid_file(self) -> Path:
        """Told to the server in `_arguments()`."""
        return self.folder / "mysqld.pid"

    def _environment(self) -> dict[str, str]:
        return self.installation.environment

    def _initialise(self, folder: Path, log: IO[bytes]) -> None:
        initialise = self._bootstrap_mariadb if self.is_mariadb else self._initialise_mysql
        run_or_fail(initialise(folder, log), f"creating {self.version}'s data", self.log_path)

    def _bootstrap_mariadb(self, folder: Path, log: IO[bytes]) -> int:
        # As mariadb-install-db does it, without its shell script. One statement ends at the end of a line.
        before = ["CREATE DATABASE IF NOT EXISTS mysql", "USE mysql", "SET @auth_root_socket = NULL"]
        after = ["DELETE FROM mysql.global_priv WHERE User IN ('root', '')", "FLUSH PRIVILEGES", *self._account_statements()]
        options = ["--bootstrap", "--enforce-storage-engine=", "--max-allowed-packet=8M", "--net-buffer-length=16K", "--log-warnings=0"]
        with tempfile.TemporaryFile() as script:
            script.write(_script(before) + self._system_tables() + b"\n" + _script(after))
            script.seek(0)
            command = [*self._base(folder), *options]
            return run(command, self.identity, log=log, stdin=script, environment=self._environment())

    def _initialise_mysql(self, folder: Path, log: IO[bytes]) -> int:
        statements = [*self._account_statements(), "DROP USER IF EXISTS 'root'@'localhost'"]
        with tempfile.NamedTemporaryFile(suffix=".sql") as script:
            script.write(_script(statements))
            script.flush()
            self.identity.own(Path(script.name))
            command = [*self._base(folder), "--initialize-insecure", f"--init-file={script.name}"]
            return run(command, self.identity, log=log, environment=self._environment())

    def _account_statements(self) -> list[str]:
        account, database = f"{_literal(self.user)}@'%'", _identifier(self.database)
        return [
            "SET NAMES utf8mb4",
            f"CREATE DATABASE IF NOT EXISTS {database} CHARACTER SET utf8mb4",
            f"CREATE USER {account} IDENTIFIED BY {_literal(self.password)}",
            f"GRANT ALL ON *.* TO {account} WITH GRANT OPTION",
        ]

    def _system_tables(self) -> bytes:
        """The SQL that makes MariaDB's system tables, from the files of the installation."""
        for share in (self.installation.prefix / "share" / name for name in ("mysql", "mariadb", "")):
            # Newer series name the files after MariaDB.
            named = [(share / name, share / name.replace("mysql_", "mariadb_")) for name in SYSTEM_TABLES]
            found = [path for names in named for path in names if path.is_file()]
            if any(path in named[0] for path in found):
                return b"\n".join(path.read_bytes() for path in found)
        raise DevError(f"{self.installation.prefix / 'share'}: the files that make MariaDB's system tables are missing")

    def _base(self, folder: Path) -> list[str]:
        """The command up to the options that every use of it has. Options files of the machine are not read."""
        # A server that starts removes the temporary tables that it finds in its tmpdir: in a shared one, those of others too.
        tmpdir = make_folder(self.data_dir / "tmp", self.identity)
        where = [f"--basedir={self.installation.prefix}", f"--datadir={folder}", f"--tmpdir={tmpdir}"]
        small = ["--innodb-log-file-size=8M"] if self.is_mariadb else ["--innodb-redo-log-capacity=16M"]
        return [str(self.installation.program), "--no-defaults", *where, *small]

    def _arguments(self) -> list[str]:
        sockets = self.socket_dir
        ours = {
            "port": str(self.port),
            "bind-address": self.host,
            "pid-file": str(self.pid_file),
            # A relative one is in the data folder: too long a path to connect to, but not a folder that others use.
            "socket": str(sockets / "mysqld.sock") if sockets is not None else "mysqld.sock",
            "skip-name-resolve": "ON",
            "skip-log-bin": "",
        }
        # MariaDB before 11.6 is latin1 by itself. MySQL's packages fix a folder that only their own installation makes; mysqlx is a port.
        defaults = {"character-set-server": "utf8mb4"} if self.is_mariadb else {"mysqlx": "OFF", "secure-file-priv": "NULL"}
        options = [f"--{key}={value}" if value else f"--{key}" for key, value in {**defaults, **self.settings, **ours}.items()]
        return [*self._base(self.folder), *options]

    def _answers(self) -> bool:
        """The pid file is written after the socket is bound; then a greeting must come (protocol version 10)."""
        try:
            if self.pid_file.read_text().strip() != str(self.pid):
                return False
            with socket.create_connection((self.host, self.port), timeout=5) as connection:
                return connection.recv(5)[4:] == b"\x0a"
        except OSError:
            return False


def _script(statements: list[str]) -> bytes:
    return "".join(statement + ";\n" for statement in statements).encode()


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
