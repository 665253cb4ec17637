"""Configurations of other poolers as one of dualpool's: as a TOML text for `dualpool config import`, or at once for `dualpool run`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from dualpool.config.importers.document import Imported
from dualpool.config.importers.pgbouncer import import_pgbouncer
from dualpool.config.importers.proxysql import import_proxysql
from dualpool.errors import ConfigError

FORMATS: Final[dict[str, Callable[[Path], Imported]]] = {"pgbouncer": import_pgbouncer, "proxysql": import_proxysql}
PROXYSQL_WORDS: Final = ("mysql_servers", "mysql_variables", "mysql_users", "admin_variables")


def import_file(path: Path, kind: str = "") -> Imported:
    """What a file says, and what of it has no equivalent. `kind`: whose it is; "" to find out. Raises ConfigError."""
    return FORMATS[kind or kind_of(path)](path)


def kind_of(path: Path) -> str:
    """Whose configuration a file is."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    lines = [line.strip() for line in text.splitlines()]
    if any(line in {"[pgbouncer]", "[databases]"} for line in lines):
        return "pgbouncer"
    if any(line.startswith(PROXYSQL_WORDS) for line in lines):
        return "proxysql"
    raise ConfigError(f"{path}: is neither a pgbouncer.ini nor a proxysql.cnf", hint="Say which: --from pgbouncer or --from proxysql.")


__all__ = ["FORMATS", "Imported", "import_file", "import_pgbouncer", "import_proxysql"]
