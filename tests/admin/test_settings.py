"""SET, and what SHOW CONFIG says of values."""

import re
from pathlib import Path

import pytest

from dualpool.admin.settings import PGBOUNCER, PGBOUNCER_KEYS, changed, full_name, value_of
from dualpool.config import Config
from dualpool.config.importers.live import IniConfig, load_ini
from dualpool.config.importers.pgbouncer_remarks import DEFAULTS, DONE_BY_COMMAND, FIXED, LIVE, NO_EQUIVALENT
from dualpool.errors import CommandRefused
from tests.golden.record import load

GOLDEN = load()


@pytest.mark.parametrize(
    ("key", "text", "full", "value"),
    [
        ("query_wait_timeout", "30", "timeouts.query_wait", 30.0),
        ("query_wait", "500ms", "timeouts.query_wait", 0.5),
        ("timeouts.query_wait", "2m", "timeouts.query_wait", 120.0),
        ("QUERY_WAIT_TIMEOUT", "0.5", "timeouts.query_wait", 0.5),
        ("max_client_conn", "5", "limits.max_client_connections", 5),
        ("statements_per_client", "7", "limits.statements_per_client", 7),
    ],
)
def test_a_key_by_any_of_its_names(key: str, text: str, full: str, value: float) -> None:
    config, name = changed(Config(), key, text)
    assert (name, value_of(config, full)) == (full, value)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("query_timeout", "abc", "must be a time with a unit"),
        ("query_timeout", "-1", "must be a time"),
        ("query_timeout", "", "must be a time"),
        ("max_client_conn", "0", "must be at least 1"),
        ("max_client_conn", "many", "must be a whole number"),
        ("query_wait_timeuot", "1", "there is no key 'query_wait_timeuot'"),
        ("log.level", "debug", "cannot be changed here"),
        ("default_pool_size", "5", "cannot be changed here"),
    ],
)
def test_what_cannot_be_set(key: str, text: str, message: str) -> None:
    with pytest.raises(CommandRefused, match=message):
        changed(Config(), key, text)


def test_pgbouncers_names_mean_keys_that_exist() -> None:
    for name, key in PGBOUNCER.items():
        assert full_name(name) == key
        value_of(Config(), key)


# -------------------------------------------------------------------------------------------------------- a pgbouncer.ini that runs


@pytest.fixture
def running(tmp_path: Path) -> IniConfig:
    for name in ("cert.pem", "key.pem", "hba", "ident"):
        (tmp_path / name).write_text("")
    (tmp_path / "users").write_text('"app" "app"\n')
    path = tmp_path / "pgbouncer.ini"
    path.write_text(
        "[databases]\napp = host=127.0.0.1\nbig = host=127.0.0.1 pool_size=50\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 6432\n"
        f"auth_file = {tmp_path}/users\nunix_socket_dir =\ndefault_pool_size = 5\n"
    )
    return load_ini(path)


def test_every_key_of_pgbouncer_is_known(running: IniConfig) -> None:
    wanted = set(GOLDEN["rows"]["CONFIG"])
    assert wanted <= PGBOUNCER_KEYS
    assert PGBOUNCER_KEYS - wanted == {"service_name", "suspend_timeout"}
    assert not LIVE & FIXED
    assert not (LIVE | FIXED) & (NO_EQUIVALENT.keys() | DONE_BY_COMMAND)
    for key in LIVE:
        text = VALUES.get(key, "3")
        config, name = changed(running, key, text)
        assert isinstance(config, IniConfig)
        assert (name, config.values()[key]) == (key, text)
    for key in FIXED | DONE_BY_COMMAND:
        with pytest.raises(CommandRefused, match=f"SET failed: {key}: takes effect after a restart"):
            changed(running, key, "1")
    for key, reason in NO_EQUIVALENT.items():
        with pytest.raises(CommandRefused, match=re.escape(f"SET failed: {key}: {reason}")):
            changed(running, key, "another")
        for harmless in DEFAULTS.get(key, ()):
            assert changed(running, key, harmless)[1] == key
        with pytest.raises(CommandRefused, match=re.escape(reason)):
            changed(Config(), key, "another")


VALUES = {
    "admin_users": "app", "stats_users": "app", "auth_dbname": "app", "auth_file": "", "auth_hba_file": "", "auth_ident_file": "",
    "auth_query": "SELECT $1", "auth_type": "trust", "auth_user": "app", "client_tls_ca_file": "", "client_tls_cert_file": "",
    "client_tls_key_file": "", "client_tls_sslmode": "disable", "ignore_startup_parameters": "a,b", "pool_mode": "statement",
    "server_check_query": "select 2", "server_tls_ca_file": "", "server_tls_cert_file": "", "server_tls_key_file": "",
    "server_tls_sslmode": "require",
}  # fmt: skip


def test_changes_add_up_and_the_file_stays_as_it_was_read(running: IniConfig) -> None:
    running.source.write_text("nonsense")
    config, _ = changed(running, "default_pool_size", "7")
    config, _ = changed(config, "pin_idle", "9s")
    config, _ = changed(config, "query_wait", "500ms")
    config, _ = changed(config, "POOL_MODE", "transaction")
    assert {name: database.pool_size for name, database in config.databases.items()} == {"app": 7, "big": 50}
    assert (config.timeouts.query_wait, config.timeouts.pin_idle, config.listeners["postgres"].pool_mode) == (0.5, 9.0, "transaction")
    assert isinstance(config, IniConfig)
    assert config.changes == {"default_pool_size": "7", "query_wait_timeout": "0.5", "pool_mode": "transaction"}
    config, _ = changed(config, "pin_idle", "1s")
    config, _ = changed(config, "default_pool_size", "8")
    assert (config.databases["app"].pool_size, config.timeouts.pin_idle) == (8, 1.0)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("default_pool_size", "many", "SET failed: default_pool_size: must be a whole number, got 'many'"),
        ("pool_mode", "both", "SET failed: pool_mode: must be one of session, transaction, statement, got 'both'"),
        ("query_timeout", "long", "must be a time with a unit"),
        ("auth_type", "pam", "auth_type: is not possible"),
        ("admin_users", "nobody_knows", "admin_users: nothing says how this user is to be recognised"),
        ("auth_type", "hba", "hba needs the rules"),
        ("nosuch", "1", "there is no key 'nosuch'"),
    ],
)
def test_what_an_ini_cannot_be_set_to(running: IniConfig, key: str, text: str, message: str) -> None:
    with pytest.raises(CommandRefused, match=re.escape(message)):
        changed(running, key, text)
