"""SHOW CONFIG and SET: the keys of the configuration, by the names of the file and by PgBouncer's."""

from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from dualpool.answers import Value
from dualpool.config import Config
from dualpool.config.fields import Seconds, Setting, format_duration, keys_of, parse_duration, setting_of
from dualpool.config.importers.live import IniConfig
from dualpool.config.importers.pgbouncer_remarks import DONE_BY_COMMAND, FIXED, LIVE, NO_EQUIVALENT
from dualpool.config.model import TABLES
from dualpool.config.problems import suggestion
from dualpool.errors import CommandRefused, ConfigError

if TYPE_CHECKING:
    from dualpool.server import Server

AnyConfig = TypeVar("AnyConfig", bound=Config)
CHANGEABLE: Final = ("timeouts", "limits")
"""Tables whose keys take effect at once. Of the others, see `RELOAD`."""
PGBOUNCER: Final = {
    "cancel_wait_timeout": "timeouts.cancel_wait",
    "client_idle_timeout": "timeouts.client_idle",
    "client_login_timeout": "timeouts.client_login",
    "dns_max_ttl": "timeouts.dns",
    "idle_transaction_timeout": "timeouts.idle_in_transaction",
    "max_client_conn": "limits.max_client_connections",
    "max_prepared_statements": "limits.statements_per_server",
    "query_timeout": "timeouts.query",
    "query_wait_notify": "timeouts.query_wait_notify",
    "query_wait_timeout": "timeouts.query_wait",
    "reserve_pool_timeout": "timeouts.reserve_pool",
    "server_check_delay": "timeouts.server_check_delay",
    "server_connect_timeout": "timeouts.server_connect",
    "server_idle_timeout": "timeouts.server_idle",
    "server_lifetime": "timeouts.server_lifetime",
    "server_login_retry": "timeouts.server_login_retry",
    "suspend_timeout": "timeouts.suspend",
    "transaction_timeout": "timeouts.transaction",
}
"""PgBouncer's names of our keys. It writes times as seconds."""
PGBOUNCER_NAMES: Final = {key: name for name, key in PGBOUNCER.items()}
PGBOUNCER_KEYS: Final = LIVE | FIXED | DONE_BY_COMMAND | NO_EQUIVALENT.keys()
LISTED: Final = {"admin_users": "users", "stats_users": "stats_users"}
"""PgBouncer's names of our lists of users."""
CONSTANT: Final = {"default_pool_size": "20", "max_db_connections": "0", "max_user_connections": "0"}
"""Keys of PgBouncer that exporters read, and that are a table's matter here."""


def config_rows(server: "Server") -> list[tuple[Value, ...]]:
    """SHOW CONFIG, in the order of the names."""
    config, defaults = server.config, Config()
    given = config.values() if isinstance(config, IniConfig) else {}
    told = {**CONSTANT, **{name: value for name, value in given.items() if name not in {*PGBOUNCER, *LISTED}}}
    rows: list[tuple[Value, ...]] = [
        (name, value, CONSTANT.get(name), "yes" if given and name in LIVE else "no") for name, value in told.items()
    ]
    rows.append(("conffile", str(server.path) if server.path is not None else None, None, "no"))
    may_change = "yes" if isinstance(config, IniConfig) else "no"
    rows += [(name, ",".join(getattr(config.admin, own)), "", may_change) for name, own in LISTED.items()]
    rows += [
        (name, pgbouncer_text(value_of(config, key)), pgbouncer_text(value_of(defaults, key)), "yes") for name, key in PGBOUNCER.items()
    ]
    for table, cls in TABLES.items():
        for name, attribute in keys_of(cls).items():
            key = f"{table}.{name}"
            kind = setting_of(attribute)
            if kind is not None and kind.kind != "secret":
                texts = (text_of(attribute, value_of(config, key)), text_of(attribute, value_of(defaults, key)))
                rows.append((key, *texts, "yes" if table in CHANGEABLE else "no"))
    return sorted(rows, key=lambda row: str(row[0]))


def value_of(config: Config, key: str) -> Any:
    """What a key like `timeouts.query` is set to."""
    table, _, name = key.partition(".")
    return getattr(getattr(config, table), name)


def pgbouncer_text(value: float) -> str:
    """A number as PgBouncer writes it."""
    return f"{value:.15g}"


def text_of(attribute: "attrs.Attribute[Any]", value: Any) -> str | None:
    """A value as it is written in the file, without quotation marks."""
    if value is None:
        return None
    if attribute.type is Seconds or isinstance(value, float):
        return format_duration(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def changed(config: Config, key: str, text: str) -> tuple[Config, str]:
    """`config` with one key set, and the full name of the key. Raises CommandRefused with what is allowed."""
    if not isinstance(config, IniConfig):
        full = full_name(key)
        return with_value(config, full, checked(full, text)), full
    name = key.lower() if key.lower() in PGBOUNCER_KEYS else PGBOUNCER_NAMES.get(full_name(key), "")
    if name:
        return changed_ini(config, name, text), name
    full = full_name(key)
    return attrs.evolve(with_value(config, full, checked(full, text)), own={**config.own, full: checked(full, text)}), full


def changed_ini(config: IniConfig, key: str, text: str) -> Config:
    """The same where a pgbouncer.ini runs, by PgBouncer's name; what was set by ours remains. Raises CommandRefused."""
    if key in PGBOUNCER:
        text = pgbouncer_text(checked(PGBOUNCER[key], text))
    try:
        result: Config = config.with_change(key, text)
    except ConfigError as error:
        raise CommandRefused(f"SET failed: {error.message}", sqlstate="22023") from None
    for full, value in config.own.items():
        result = with_value(result, full, value)
    return result


def checked(full: str, text: str) -> float:
    """The value of a key. Raises CommandRefused."""
    table, _, name = full.partition(".")
    declared = setting_of(keys_of(TABLES[table])[name])
    assert declared is not None
    try:
        return read(declared, text)
    except ValueError as error:
        raise CommandRefused(f"SET failed: {full}: {error}", sqlstate="22023") from None


def with_value(config: AnyConfig, full: str, value: float) -> AnyConfig:
    """`config` with one key set."""
    table, _, name = full.partition(".")
    return attrs.evolve(config, **{table: attrs.evolve(getattr(config, table), **{name: value})})


def full_name(key: str) -> str:
    """The key that an operator means: `timeouts.query`, `query` or PgBouncer's `query_timeout`. Raises CommandRefused."""
    lowered = key.lower()
    known = [f"{table}.{name}" for table in CHANGEABLE for name in keys_of(TABLES[table])]
    if lowered in known:
        return lowered
    if lowered in PGBOUNCER:
        return PGBOUNCER[lowered]
    found = [name for name in known if name.partition(".")[2] == lowered]
    if found:
        return found[0]
    table, _, name = lowered.partition(".")
    if lowered in NO_EQUIVALENT:
        raise CommandRefused(f"SET failed: {key}: {NO_EQUIVALENT[lowered]}", sqlstate="55P02")
    if lowered in PGBOUNCER_KEYS or (table in TABLES and name in keys_of(TABLES[table])):
        raise CommandRefused(f"SET failed: {key} cannot be changed here", hint="Change the file, then RELOAD.", sqlstate="55P02")
    raise CommandRefused(f"SET failed: there is no key {key!r}{suggestion(key, [*known, *PGBOUNCER])}", hint="See SHOW CONFIG.")


def read(declared: Setting, text: str) -> float | int:
    """A value of a table in CHANGEABLE: a time (seconds where it has no unit) or a number. Raises ValueError."""
    if declared.kind == "duration":
        value: float | int = parse_duration(f"{text}s" if text and text[-1].isdigit() else text)
    elif text.isdecimal() and text.isascii():
        value = int(text)
    else:
        raise ValueError(f"must be a whole number, got {text!r}")
    if declared.minimum is not None and value < declared.minimum:
        raise ValueError(f"must be at least {declared.minimum:g}, got {text}")
    return value
