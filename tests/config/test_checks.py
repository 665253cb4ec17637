"""What must hold between tables."""

from textwrap import dedent

import pytest

from dualpool.config import loads
from dualpool.errors import ConfigError

LISTENER = '[listeners.a]\nprotocol = "postgres"\nbind = "127.0.0.1:1"\n'
BACKEND = '[backends.main]\nurl = "postgresql://u@h"\n'
DATABASE = '[databases.app]\nbackend = "main"\n'
USER = '[users.app]\npassword = "x"\n'


def told(text: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings of a text, without its name."""
    try:
        config = loads(dedent(text), "t", {})
    except ConfigError as error:
        return [line.removeprefix("t:") for line in error.message.splitlines()], []
    return [], [line.removeprefix("t:") for line in config.warnings]


def errors(text: str) -> list[str]:
    return told(text)[0]


def warnings(text: str) -> list[str]:
    found, warned = told(text)
    assert found == []
    return warned


def test_a_sound_file_has_neither_errors_nor_warnings() -> None:
    assert told(LISTENER + BACKEND + DATABASE + USER) == ([], [])


def test_backend_of_a_database_exists() -> None:
    text = LISTENER + BACKEND + DATABASE + USER + '[databases.web]\nbackend = "mean"\n'
    assert errors(text) == ["11: databases.web.backend: there is no backend 'mean'; did you mean main?"]


def test_a_broken_backend_is_not_also_missing() -> None:
    text = LISTENER + BACKEND.replace("postgresql", "nosql") + DATABASE + USER
    assert errors(text) == ["5: backends.main.url: must be a URL that starts with postgresql:// or mysql://"]


def test_a_listener_has_a_backend_and_a_database() -> None:
    mysql = '[listeners.m]\nprotocol = "mysql"\nbind = "127.0.0.1:2"\n'
    text = LISTENER + BACKEND + DATABASE + USER + mysql
    assert errors(text) == ['11: listeners.m.protocol: there is no mysql backend; add [backends.NAME] with url = "mysql://..."']
    text += '[backends.shop]\nurl = "mysql://u@h"\n'
    assert warnings(text) == ['11: listeners.m.protocol: there is no database for mysql clients; add [databases."*"] with backend = "shop"']


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1 is in use by listeners.a"),
        ("localhost:1", "127.0.0.1:1", "127.0.0.1:1 is in use by listeners.a (localhost:1)"),
        ("0.0.0.0:1", "127.0.0.1:1", "127.0.0.1:1 is in use by listeners.a (0.0.0.0:1)"),
        ("*:1", "[::1]:1", "[::1]:1 is in use by listeners.a (*:1)"),
        ("[::]:1", "[::1]:1", "[::1]:1 is in use by listeners.a ([::]:1)"),
        ("unix:/r", "unix:/r", "unix:/r/.s.PGSQL.5432 is in use by listeners.a"),
        ("0.0.0.0:1", "[::1]:1", ""),
        ("*:1", "0.0.0.0:1", "0.0.0.0:1 is in use by listeners.a (*:1)"),
        ("127.0.0.1:1", "127.0.0.2:1", ""),
        ("127.0.0.1:0", "127.0.0.1:0", ""),
        ("127.0.0.1:1", "127.0.0.1:2", ""),
    ],
)
def test_binds_are_used_once(first: str, second: str, clash: str) -> None:
    one = LISTENER.replace("127.0.0.1:1", first)
    two = LISTENER.replace("127.0.0.1:1", second).replace("listeners.a", "listeners.b")
    assert errors(one + two + BACKEND + DATABASE + USER) == ([f"6: listeners.b.bind: {clash}"] if clash else [])


def test_binds_of_one_list_and_of_http() -> None:
    text = LISTENER.replace('"127.0.0.1:1"', '["127.0.0.1:1",\n"127.0.0.1:1"]') + BACKEND + DATABASE + USER
    assert errors(text + '[admin]\nhttp = "127.0.0.1:1"') == [
        "4: listeners.a.bind[1]: 127.0.0.1:1 is in use by listeners.a",
        "12: admin.http: 127.0.0.1:1 is in use by listeners.a",
    ]


def test_a_socket_path_has_a_limit() -> None:
    text = LISTENER.replace("127.0.0.1:1", "unix:/" + "x" * 100) + BACKEND + DATABASE + USER
    assert errors(text)[0].startswith("3: listeners.a.bind: the path of a socket may have 103 bytes")


def test_names_are_unique_per_protocol() -> None:
    text = LISTENER + BACKEND + DATABASE + USER + '[databases.web]\nname = "app"\nbackend = "main"\n'
    assert errors(text) == ["11: databases.web.name: databases.app is called 'app' as well (postgres)"]


def test_min_pool_size_is_part_of_pool_size() -> None:
    text = LISTENER + BACKEND + DATABASE + "pool_size = 2\nmin_pool_size = 3\n" + USER
    assert errors(text) == ["9: databases.app.min_pool_size: must be at most pool_size (2), got 3"]


POOLS = BACKEND + "budget = 25\n" + DATABASE + "pool_size = 20\n[databases.web]\nbackend = 'main'\npool_size = 3\n"


def test_pools_larger_than_the_budget() -> None:
    message = "6: backends.main.budget: the pool sizes sum to 23 (app 20 + web 3), but 22 connections are left (25 - 3 reserved)"
    assert warnings(LISTENER + POOLS + USER) == [message]
    assert errors("strict_budget = true\n" + LISTENER + POOLS + USER) == [message.replace("6:", "7:", 1)]
    assert warnings(LISTENER + POOLS.replace("= 3", "= 2") + USER) == []


@pytest.mark.parametrize("reserve", [25, 26])
def test_the_reserve_leaves_something(reserve: int) -> None:
    text = LISTENER + POOLS.replace("budget = 25\n", f"budget = 25\nreserved_maintenance = {reserve}\n") + USER
    assert errors(text) == [f"7: backends.main.reserved_maintenance: must be less than the budget (25), got {reserve}"]


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("{ cert = '{file}' }", ["4: listeners.a.tls.cert: needs tls.key as well"]),
        ("{ key = '{file}' }", ["4: listeners.a.tls.key: needs tls.cert as well"]),
        ("{ mode = 'require' }", ["4: listeners.a.tls: mode require needs cert and key"]),
        ("{ mode = 'verify-ca', cert = '{file}', key = '{file}' }", ["4: listeners.a.tls: mode verify-ca needs client_ca"]),
        ("{ mode = 'disable' }", []),
        ("{ cert = '{file}', key = '{file}' }", []),
    ],
)
def test_tls(tls: str, expected: list[str]) -> None:
    text = LISTENER + "tls = " + tls.replace("{file}", __file__) + "\n" + BACKEND + DATABASE + USER
    assert errors(text) == expected


def test_methods_that_a_listener_cannot_have() -> None:
    mysql = (LISTENER + BACKEND + DATABASE + USER).replace('"postgres"', '"mysql"').replace("postgresql:", "mysql:")
    assert errors(mysql.replace("[backends", "auth = 'md5'\n[backends", 1)) == [
        "4: listeners.a.auth: md5 is for PostgreSQL clients; allowed here: auto, trust, password, cert, hba"
    ]
    assert errors(LISTENER + "auth = 'cert'\n" + BACKEND + DATABASE) == ["4: listeners.a.auth: cert needs tls with client_ca"]


def test_trust_is_for_this_machine() -> None:
    text = LISTENER + "auth = 'trust'\n" + BACKEND + DATABASE
    assert warnings(text) == []
    assert warnings(text.replace("127.0.0.1:1", "0.0.0.0:1")) == ["4: listeners.a.auth: trust lets everyone in who can reach 0.0.0.0:1"]


def test_admins_exist() -> None:
    text = LISTENER + BACKEND + DATABASE + USER + '[admin]\nusers = ["app"]\nstats_users = ["ap"]\n'
    assert errors(text) == ["12: admin.stats_users: there is no user 'ap'; did you mean app?"]


def test_nobody_can_log_in() -> None:
    assert warnings(LISTENER + BACKEND + DATABASE) == [
        "1: listeners.a: nobody can log in: there are no users; add [users.NAME] with a password"
    ]


def test_promises_of_a_url_that_are_not_kept() -> None:
    text = LISTENER + BACKEND.replace("@h", "@h/d?channel_binding=require") + DATABASE + USER
    assert warnings(text) == ["5: backends.main.url: channel_binding=require is not enforced"]


def test_without_users_trust_lets_admins_in() -> None:
    text = LISTENER + "auth = 'trust'\n" + BACKEND + DATABASE + '[admin]\nusers = ["me"]\n'
    assert told(text) == ([], [])


def test_max_connections_leaves_room_for_the_minimum() -> None:
    text = LISTENER + BACKEND + DATABASE + "min_pool_size = 3\nmax_connections = 2\n" + USER
    assert errors(text) == ["9: databases.app.max_connections: must be at least min_pool_size (3), got 2"]


def test_the_pool_size_of_a_user_who_never_logs_in_at_a_server_has_no_effect() -> None:
    text = LISTENER + BACKEND + DATABASE + USER + "pool_size = 3\n"
    assert warnings(text) == ["10: users.app.pool_size: has no effect: every database has a server user (u)"]
    assert warnings(text.replace("u@h", "h")) == []


def test_hosts_that_do_not_resolve() -> None:
    text = LISTENER + BACKEND.replace("@h", "@127.0.0.1,nowhere.invalid") + DATABASE + USER
    loads(text)
    with pytest.raises(ConfigError, match=r":5: backends\.main\.url: the host 'nowhere\.invalid' cannot be resolved"):
        loads(text, resolve=True)
