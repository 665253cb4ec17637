"""A configuration without a file."""

import re
from typing import Any

import pytest

from dualpool.config import Bind, from_urls, loads
from dualpool.errors import ConfigError


def test_both_protocols_with_the_same_names() -> None:
    config = from_urls(["postgresql://u:p@h/app"], ["mysql://v:q@h:1/app"])
    assert {name: listener.bind for name, listener in config.listeners.items()} == {
        "postgres": (Bind("127.0.0.1", 6543),),
        "mysql": (Bind("127.0.0.1", 3307),),
    }
    assert {name: user.password for name, user in config.users.items()} == {"u": ("p",), "v": ("q",)}
    assert config.admin.users == ("u", "v")
    for protocol in ("postgres", "mysql"):
        for name in ("app", "other"):
            database = config.find_database(protocol, name)
            assert database is not None
            assert (database.backend, database.database) == (protocol, name)


def test_several_servers_of_one_protocol() -> None:
    config = from_urls(["postgresql://u:p@one/a", "postgresql://u:q@two/b"], bind_postgres="127.0.0.1:0,[::1]:0")
    found = [config.find_database("postgres", name) for name in ("a", "b", "c")]
    assert [database and database.backend for database in found] == ["postgres", "postgres-2", "postgres"]
    assert config.users["u"].password == ("p", "q")
    assert config.listeners["postgres"].bind == (Bind("127.0.0.1", 0), Bind("::1", 0))


@pytest.mark.parametrize(
    ("url", "auth", "users"),
    [
        ("postgresql://u:p@h", "auto", ["u"]),
        ("postgresql://u@h", "trust", ["u"]),
        ("postgresql://localhost:54322/main", "trust", []),
    ],
)
def test_no_password_is_asked_for_where_the_server_asks_for_none(url: str, auth: str, users: list[str]) -> None:
    config = from_urls([url])
    assert (config.listeners["postgres"].auth, list(config.users)) == (auth, users)
    assert config.warnings == ()


def test_dollars_in_a_url_are_not_variables() -> None:
    assert from_urls(["postgresql://u:${X}@h"]).backends["postgres"].password == "${X}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "at least one URL is required: --postgres postgresql://... or --mysql mysql://..."),
        ({"postgres": ["mysql://h"]}, "--postgres: must be a URL that starts with postgresql://; use --mysql for this one"),
        ({"mysql": ["h"]}, "--mysql: must be a URL that starts with postgresql:// or mysql://"),
        ({"mysql": ["mysql://h"], "bind_mysql": "3307"}, '--bind-mysql: must be "host:port" or "unix:/path", got \'3307\''),
        (
            {"postgres": ["postgresql://u:p@h"], "mysql": ["mysql://h"], "bind_mysql": "127.0.0.1:6543"},
            "command line: listeners.mysql.bind: 127.0.0.1:6543 is in use by listeners.postgres",
        ),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_urls(**options)


def test_a_client_that_names_no_database_means_the_only_one() -> None:
    head = '[listeners.m]\nprotocol = "mysql"\nbind = "127.0.0.1:0"\n[backends.b]\nurl = "mysql://h"\n'
    only = loads(head + '[databases.shop]\nbackend = "b"\n')
    found = only.find_database("mysql", "")
    assert found is not None
    assert found.name == "shop"
    two = loads(head + '[databases.shop]\nbackend = "b"\n[databases.blog]\nbackend = "b"\n')
    assert two.find_database("mysql", "") is None
