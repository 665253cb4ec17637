"""What clients put into DATABASE_URL."""

import pytest

from dualpool.config import loads
from dualpool.config.client_urls import client_urls, is_verifier
from dualpool.errors import ConfigError

TEXT = f"""
[listeners.pg]
protocol = "postgres"
bind = ["0.0.0.0:6543", "[::]:6543", "unix:/run/dp"]
[listeners.session]
protocol = "postgres"
bind = "127.0.0.1:5433"
pool_mode = "session"
tls = {{ mode = "require", cert = "{__file__}", key = "{__file__}" }}
[listeners.my]
protocol = "mysql"
bind = ["127.0.0.1:3307", "unix:/run/dp"]
[backends.main]
url = "postgresql://u@h"
[backends.shop]
url = "mysql://u@h"
[databases.app]
backend = "main"
[databases."my shop"]
backend = "shop"
pool_mode = "statement"
[users."a@b"]
password = ["SCRAM-SHA-256$4096:x", "p/w"]
[users.dba]
pool_mode = "session"
"""


def urls(name: str, user: str = "", *, show_password: bool = False) -> list[tuple[str, str]]:
    return [(found.pool_mode, found.url) for found in client_urls(loads(TEXT, environ={}), name, user, show_password=show_password)]


def test_postgres() -> None:
    assert urls("app") == [
        ("transaction", "postgresql://a%40b@127.0.0.1:6543/app"),
        ("transaction", "postgresql://a%40b@[::1]:6543/app"),
        ("transaction", "postgresql://a%40b@/app?host=/run/dp&port=6543"),
        ("session", "postgresql://a%40b@127.0.0.1:5433/app?sslmode=require"),
    ]


def test_mysql_with_password() -> None:
    assert urls("my shop", show_password=True) == [
        ("statement", "mysql://a%40b:p%2Fw@127.0.0.1:3307/my%20shop"),
        ("statement", "mysql://a%40b:p%2Fw@localhost/my%20shop?socket=/run/dp/mysql.sock"),
    ]


def test_another_user() -> None:
    assert urls("my shop", "dba", show_password=True)[0] == ("session", "mysql://dba@127.0.0.1:3307/my%20shop")


@pytest.mark.parametrize(
    ("name", "user", "message"),
    [("ap", "", "no listener serves a database 'ap'; did you mean app?"), ("app", "dbb", "there is no user 'dbb'; did you mean dba?")],
)
def test_refusals(name: str, user: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        urls(name, user)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "verifier"),
    [
        ("SCRAM-SHA-256$4096:x", True),
        ("$A$005$x", True),
        ("md5" + "0f" * 16, True),
        ("*" + "0F" * 20, True),
        ("md5", False),
        ("*secret*", False),
        ("$money", False),
    ],
)
def test_verifiers(text: str, verifier: bool) -> None:
    assert is_verifier(text) == verifier
