"""SET, and what SHOW CONFIG says of values."""

import pytest

from dualpool.admin.settings import PGBOUNCER, changed, full_name, value_of
from dualpool.config import Config
from dualpool.errors import CommandRefused


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
