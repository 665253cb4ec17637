"""Reading a configuration from a file or a text."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path as Directory
from typing import Any, Final, TypeVar

import attrs
import tomlkit
from tomlkit.exceptions import ParseError, TOMLKitError

from dualpool.authentication.hba import Rule, parse_hba
from dualpool.authentication.ident import IdentMaps, parse_ident
from dualpool.authentication.userlist import parse_userlist
from dualpool.config.checks import Tables, check, check_hosts
from dualpool.config.environment import expand
from dualpool.config.fields import setting_of
from dualpool.config.model import (
    TABLES,
    TABLES_BY_NAME,
    WILDCARD,
    Auth,
    Backend,
    Bind,
    Config,
    Database,
    Listener,
    User,
)
from dualpool.config.positions import Path, Positions
from dualpool.config.problems import Problems, format_path, suggestion
from dualpool.config.structure import Structurer
from dualpool.config.url import DEFAULT_PORTS
from dualpool.config.values import describe, read_bool
from dualpool.errors import ConfigError

T = TypeVar("T")
INI: Final = ".ini"
"""A file with this ending is PgBouncer's, and is imported each time it is read."""
TOP_LEVEL: Final = (*TABLES_BY_NAME, *TABLES, "strict_budget")


def load(path: Directory, environ: Mapping[str, str] | None = None, *, resolve: bool = False) -> Config:
    """The configuration in a file: dualpool's own, or a pgbouncer.ini. Raises ConfigError with everything that is wrong with it.

    `resolve`: look the servers' names up too.
    """
    if path.suffix == INI:
        from dualpool.config.importers.live import load_ini

        return load_ini(path, resolve=resolve)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    return loads(text, str(path), environ, resolve=resolve)


def loads(text: str, name: str = "dualpool.toml", environ: Mapping[str, str] | None = None, *, resolve: bool = False) -> Config:
    """The configuration in a text. `name` is for messages, and paths are relative to its directory. `resolve`: as in `load`."""
    problems = Problems(name, Positions(text))
    document = expand_all(parse(text, problems), (), os.environ if environ is None else environ, problems)
    return build(document, problems, Directory(name).absolute().parent, resolve=resolve)


def parse(text: str, problems: Problems) -> dict[str, Any]:
    """The text as plain dictionaries and lists. Raises ConfigError where it is no TOML."""
    try:
        return tomlkit.parse(text).unwrap()
    except TOMLKitError as error:
        raise ConfigError(explain(error, text, problems.name)) from None


def explain(error: TOMLKitError, text: str, name: str) -> str:
    """tomlkit's complaint with its line. Of a key that is given twice tomlkit does not tell the place."""
    for path, line in Positions(text).repeated:
        if "exists" in str(error):
            return f"{name}:{line}: {format_path(path)}: is given twice"
    if not isinstance(error, ParseError):
        return f"{name}: {error}"
    message = str(error).removesuffix(f" at line {error.line} col {error.col}")
    return f"{name}:{error.line}: {message} (column {error.col})"


def expand_all(value: Any, path: Path, environ: Mapping[str, str], problems: Problems) -> Any:
    """`value` with the variables in all its strings replaced."""
    if isinstance(value, dict):
        return {key: expand_all(item, (*path, key), environ, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_all(item, (*path, index), environ, problems) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return expand(value, environ)
    except ValueError as error:
        problems.add(path, str(error))
        return value


def build(document: dict[str, Any], problems: Problems, directory: Directory, *, resolve: bool = False) -> Config:
    """A Config of plain dictionaries. Raises ConfigError with all problems."""
    for key in document:
        if key not in TOP_LEVEL:
            problems.add((key,), "unknown key" + suggestion(key, TOP_LEVEL))
    structurer = Structurer(problems, directory)
    named = {section: tables_of(document, section, problems) for section in TABLES_BY_NAME}
    single: dict[str, Any] = {
        section: structurer.table(cls, document.get(section, {}), (section,)) or cls() for section, cls in TABLES.items()
    }
    files = AuthFiles(single["auth"], problems)
    named["users"] = {**{user: {} for user in files.userlist}, **named["users"]}
    tables = Tables(
        listeners={key: complete_sockets(listener) for key, listener in read(structurer, Listener, named, "listeners").items()},
        backends=read_backends(structurer, named["backends"]),
        databases={key: complete_database(database) for key, database in read(structurer, Database, named, "databases").items()},
        users=with_passwords(read(structurer, User, named, "users"), files.userlist),
        admin=single["admin"],
        auth=single["auth"],
        strict_budget=read_strict_budget(document, problems),
        names=named,
    )
    check(tables, problems)
    if resolve:
        check_hosts(tables, problems)
    problems.raise_if_any()
    return Config(
        listeners=tables.listeners,
        backends=tables.backends,
        databases=tables.databases,
        users=tables.users,
        strict_budget=tables.strict_budget,
        warnings=problems.warnings(),
        hba=files.hba,
        ident=files.ident,
        **single,
    )


class AuthFiles:
    """What the files say that [auth] names."""

    def __init__(self, auth: Auth, problems: Problems) -> None:
        self._problems = problems
        self.userlist: dict[str, str] = self._parsed("userlist", auth.userlist, parse_userlist) or {}
        ident = self._parsed("ident", auth.ident, parse_ident)
        self.ident: IdentMaps = ident or {}
        hba = partial(parse_hba, directory=Directory(auth.hba).parent)
        self.hba: tuple[Rule, ...] = self._parsed("hba", auth.hba, hba) or ()
        is_broken = bool(auth.ident) and ident is None
        for rule in self.hba:
            if rule.map and rule.map not in self.ident and not is_broken:
                problems.add(
                    ("auth", "hba"), f"{auth.hba}: line {rule.line}: there is no map {rule.map!r}{suggestion(rule.map, self.ident)}"
                )

    def _parsed(self, key: str, path: str, parse: Callable[[str], T]) -> T | None:
        """A file, or None where there is none, or it is broken."""
        if not path:
            return None
        try:
            return parse(Directory(path).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            self._problems.add(("auth", key), f"{path}: is not UTF-8")
        except OSError as error:
            self._problems.add(("auth", key), f"{path}: {error.strerror or error}")
        except ValueError as error:
            self._problems.add(("auth", key), f"{path}: {error}")
        return None


def with_passwords(users: dict[str, User], userlist: Mapping[str, str]) -> dict[str, User]:
    """`users`, and those of the userlist; a password of [users] is the one that counts."""
    listed = {name: users.get(name, User(name)) for name in userlist}
    return {**listed, **users} | {
        name: attrs.evolve(user, password=(userlist[name],)) for name, user in listed.items() if userlist[name] and not user.password
    }


def tables_of(document: dict[str, Any], section: str, problems: Problems) -> dict[str, Any]:
    """The tables of a section by name."""
    value = document.get(section, {})
    if isinstance(value, dict):
        return value
    problems.add((section,), f"must hold tables, such as [{section}.NAME], got {describe(value)}")
    return {}


def read(structurer: Structurer, cls: type[Any], named: dict[str, dict[str, Any]], section: str) -> dict[str, Any]:
    """The tables of a section that have no problem."""
    read = {name: structurer.table(cls, table, (section, name), name) for name, table in named[section].items()}
    return {name: instance for name, instance in read.items() if instance is not None}


def read_backends(structurer: Structurer, tables: dict[str, Any]) -> dict[str, Backend]:
    """As `read`, with everything that the urls say."""
    read = {name: structurer.backend(table, ("backends", name), name) for name, table in tables.items()}
    return {name: backend for name, backend in read.items() if backend is not None}


def read_strict_budget(document: dict[str, Any], problems: Problems) -> bool:
    """The one key that is in no table."""
    declared = setting_of(attrs.fields(Config).strict_budget)
    assert declared is not None
    try:
        return read_bool(document.get("strict_budget", False), declared)
    except ValueError as error:
        problems.add(("strict_budget",), str(error))
        return False


def complete_database(database: Database) -> Database:
    """`database` with its real name; a wildcard has none until a client names it."""
    if database.database or database.name == WILDCARD:
        return database
    return attrs.evolve(database, database=database.name)


def complete_sockets(listener: Listener) -> Listener:
    """`listener` with the full path of its sockets: in a directory, the name that the clients of the protocol look for."""
    port = next((bind.port for bind in listener.bind if bind.port), DEFAULT_PORTS[listener.protocol])
    file = f".s.PGSQL.{port}" if listener.protocol == "postgres" else "mysql.sock"
    return attrs.evolve(listener, bind=tuple(complete_socket(bind, file) for bind in listener.bind))


def complete_socket(bind: Bind, file: str) -> Bind:
    """A path that ends like a socket is one; any other is a directory, whether it exists yet or not."""
    last = bind.unix.rpartition("/")[2]
    if not bind.unix or last.startswith(".s.PGSQL.") or last.endswith((".sock", ".socket")):
        return bind
    return attrs.evolve(bind, unix=f"{bind.unix.rstrip('/')}/{file}")
