"""URLs of servers, as libpq, MySQL's clients, drivers and hosting providers write them."""

import re
from typing import Any

import pytest

from dualpool.config.url import ServerUrl, broken_promises, parse_url

PG: dict[str, Any] = {"protocol": "postgres", "hosts": (("127.0.0.1", 5432),)}
MY: dict[str, Any] = {"protocol": "mysql", "hosts": (("127.0.0.1", 3306),)}

URLS: list[tuple[str, dict[str, Any]]] = [
    ("postgresql://", PG),
    ("postgres:///app", {**PG, "database": "app"}),
    ("mysql://h", {**MY, "hosts": (("h", 3306),)}),
    ("mysql+pymysql://u@h:1/d", {**MY, "hosts": (("h", 1),), "user": "u", "database": "d"}),
    ("postgresql+asyncpg://h", {**PG, "hosts": (("h", 5432),)}),
    ("jdbc:mysql://h/d", {**MY, "hosts": (("h", 3306),), "database": "d"}),
    ("postgresql://u:p@h:1/d", {**PG, "hosts": (("h", 1),), "user": "u", "password": "p", "database": "d"}),
    ("postgresql://u%40x:p%2F%3A@h", {**PG, "hosts": (("h", 5432),), "user": "u@x", "password": "p/:"}),
    ("postgresql://u@x:p@h", {**PG, "hosts": (("h", 5432),), "user": "u@x", "password": "p"}),
    ("postgresql://postgres.abc|pool:p@h", {**PG, "hosts": (("h", 5432),), "user": "postgres.abc|pool", "password": "p"}),
    ("postgresql://a,b:2,[::1]:3/d", {**PG, "hosts": (("a", 5432), ("b", 2), ("::1", 3)), "database": "d"}),
    ("postgresql://[::1]", {**PG, "hosts": (("::1", 5432),)}),
    ("postgresql://?hosts=a:1,b", {**PG, "hosts": (("a", 1), ("b", 5432))}),
    ("postgresql://?host=a,b&port=1,2", {**PG, "hosts": (("a", 1), ("b", 2))}),
    ("postgresql://ignored?host=/run/postgresql", {**PG, "hosts": (("/run/postgresql", 5432),)}),
    ("postgresql://u@/d?host=/run/pg&port=5433", {**PG, "hosts": (("/run/pg", 5433),), "user": "u", "database": "d"}),
    ("postgresql://%2Frun%2Fpg/d", {**PG, "hosts": (("/run/pg", 5432),), "database": "d"}),
    ("mysql://u@localhost/d?socket=/run/mysqld.sock", {**MY, "hosts": (("/run/mysqld.sock", 3306),), "user": "u", "database": "d"}),
    ("postgresql://h?user=u&password=a%26b&dbname=d", {**PG, "hosts": (("h", 5432),), "user": "u", "password": "a&b", "database": "d"}),
    ("postgresql:///?sslmode=verify-full&sslrootcert=system", {**PG, "sslmode": "verify-full", "sslrootcert": "system"}),
    ("postgresql:///?sslmode=require&sslnegotiation=direct", {**PG, "sslmode": "require", "sslnegotiation": "direct"}),
    ("postgresql:///?sslcert=c&sslkey=k&server_name=n", {**PG, "sslcert": "c", "sslkey": "k", "server_name": "n"}),
    ("mysql:///?ssl-mode=VERIFY_IDENTITY&ssl-ca=ca", {**MY, "sslmode": "verify-full", "sslrootcert": "ca"}),
    ("mysql:///?ssl-mode=DISABLED&ssl-cert=c&ssl-key=k", {**MY, "sslmode": "disable", "sslcert": "c", "sslkey": "k"}),
    ('mysql:///d?ssl={"rejectUnauthorized":true}', {**MY, "database": "d", "sslmode": "verify-full"}),
    ('mysql:///d?ssl={"rejectUnauthorized":false}', {**MY, "database": "d", "sslmode": "require"}),
    ("mysql:///d?connection_limit=1&sslaccept=accept_invalid_certs", {**MY, "database": "d", "sslmode": "require"}),
    ("postgresql:///d?sslmode=require&pgbouncer=true&connect_timeout=10&pool_timeout=30", {**PG, "database": "d", "sslmode": "require"}),
    ("postgresql:///d?options=endpoint%3Dep-x", {**PG, "database": "d", "parameters": {"options": "endpoint=ep-x"}}),
    ("postgresql:///?application_name=a+b", {**PG, "parameters": {"application_name": "a+b"}}),
]


@pytest.mark.parametrize(("text", "expected"), URLS, ids=[text for text, _ in URLS])
def test_parse(text: str, expected: dict[str, Any]) -> None:
    assert parse_url(text) == ServerUrl(**expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a URL that starts with postgresql:// or mysql://"),
        ("redis://h", "must be a URL that starts with"),
        ("postgresql:h", "must be a URL that starts with"),
        ("postgresql://u:pa/ss@h", "a slash or question mark in the user or the password must be written %2F or %3F"),
        ("postgresql://u:pa?ss@h", "a slash or question mark"),
        ("postgresql://h:secret", "a port must be a number from 1 to 65535"),
        ("postgresql://h:0", "a port must be"),
        ("postgresql://h:65536", "a port must be"),
        ("postgresql://[::1", "has no closing bracket"),
        ("postgresql://a,b,c?port=1,2", "port names 2 ports for 3 hosts"),
        ("postgresql://h?sslmode=maybe", "sslmode must be one of disable, allow, prefer"),
        ("mysql://h?ssl={x", "ssl must be an sslmode or"),
        ("postgresql://h?sslnegotiation=yes", "sslnegotiation must be postgres or direct, got 'yes'"),
        ("postgresql://h?sslnegotiation=direct", "sslnegotiation=direct needs sslmode require, verify-ca or verify-full, got prefer"),
        ("mysql://h?ssl-mode=required&sslnegotiation=direct", "sslnegotiation=direct is for PostgreSQL only"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


def test_password_is_not_shown() -> None:
    assert "hidden" not in repr(parse_url("postgresql://u:hidden@h"))


@pytest.mark.parametrize(
    ("query", "broken"),
    [
        ("", []),
        ("sslmode=require", []),
        ("channel_binding=prefer&target_session_attrs=read-write", []),
        ("channel_binding=require", ["channel_binding=require"]),
        ("require_auth=scram-sha-256", ["require_auth=scram-sha-256"]),
    ],
)
def test_promises_that_are_not_kept(query: str, broken: list[str]) -> None:
    assert broken_promises(f"postgresql://h/d?{query}") == broken


def test_what_a_url_says_of_several_hosts() -> None:
    url = parse_url("postgresql://a,b/d?target_session_attrs=prefer-standby&load_balance_hosts=random")
    assert (url.target_session_attrs, url.load_balance, url.parameters) == ("prefer-standby", "round-robin", {})
    silent = parse_url("postgresql://a,b/d").attributes()
    assert "target_session_attrs" not in silent
    assert "load_balance" not in silent


@pytest.mark.parametrize("query", ["target_session_attrs=master", "load_balance_hosts=yes"])
def test_wrong_words_for_several_hosts(query: str) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        parse_url(f"postgresql://a,b/d?{query}")
