"""Loading: what comes out of a good file, and that every mistake in a bad one is told with its line and key."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from dualpool.config import Admin, Bind, Config, Limits, Log, MemoryBudget, Timeouts, Tls, load, loads
from dualpool.errors import ConfigError

BASE = """\
[listeners.pg]
protocol = "postgres"
bind = "127.0.0.1:6543"
[backends.main]
url = "postgresql://u:p@h/d"
[databases.app]
backend = "main"
[users.app]
password = "secret"
"""


def load_text(text: str, **environ: str) -> Config:
    return loads(dedent(text), "conf/dualpool.toml", environ)


def errors_of(text: str, **environ: str) -> list[str]:
    """The lines of the ConfigError."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, **environ)
    return caught.value.message.splitlines()


def extended(section: str, line: str) -> str:
    """BASE with one more line in a table."""
    header = f"[{section}]\n"
    return BASE.replace(header, header + line + "\n") if header in BASE else BASE + header + line + "\n"


def test_small_file_has_all_defaults() -> None:
    config = load_text(BASE)
    assert (config.limits, config.timeouts, config.admin, config.log) == (Limits(), Timeouts(), Admin(), Log())
    listener, backend, database, user = (
        next(iter(getattr(config, name).values())) for name in ("listeners", "backends", "databases", "users")
    )
    assert (listener.name, listener.protocol, listener.bind, listener.pool_mode) == (
        "pg",
        "postgres",
        (Bind("127.0.0.1", 6543),),
        "transaction",
    )
    assert (backend.hosts, backend.user, backend.password, backend.budget_number) == ((("h", 5432),), "u", "p", None)
    assert (database.name, database.database, database.pool_size, database.query_wait) == ("app", "app", 20, None)
    assert (user.password, user.maintenance) == (("secret",), False)
    assert config.warnings == ()


def test_secrets_are_not_in_the_repr() -> None:
    text = repr(load_text(BASE.replace("u:p@", "u:hidden@").replace("secret", "hidden")))
    assert "hidden" not in text


@pytest.mark.parametrize(
    ("section", "line", "attribute", "expected"),
    [
        ("listeners.pg", 'pool_mode = "session"', "pool_mode", "session"),
        ("listeners.pg", 'pool_mode = "statement"', "mode", 2),
        ("listeners.pg", 'lane = "maintenance"', "lane", "maintenance"),
        ("listeners.pg", "backlog = 7", "backlog", 7),
        ("listeners.pg", 'auth = "${AUTH}"', "auth", "trust"),
        ("backends.main", "budget = 25", "budget_number", 25),
        ("backends.main", 'budget = "${N}"', "budget_number", 42),
        ("backends.main", 'budget = "${NONE:-auto}"', "budget", "auto"),
        ("backends.main", "budget = { memory_gb = 2.5, per_gb = 25 }", "budget", MemoryBudget(2.5, 25)),
        ("backends.main", "budget = { memory_gb = 2.5, per_gb = 25 }", "budget_number", 62),
        ("backends.main", "budget = { memory_gb = 0.5, per_gb = 25 }", "budget_number", 12),
        ("backends.main", "budget = { memory_gb = 0.29, per_gb = 100 }", "budget_number", 29),
        ("databases.app", 'database = "real"', "database", "real"),
        ("databases.app", 'pool_size = "${N}"', "pool_size", 42),
        ("databases.app", 'query_wait = "1500ms"', "query_wait", 1.5),
        ("databases.app", 'name = "alias"', "database", "alias"),
        ("users.app", 'maintenance = "${YES}"', "maintenance", True),
        ("users.app", "pool_size = 3", "pool_size", 3),
    ],
)
def test_values(section: str, line: str, attribute: str, expected: Any) -> None:
    config = load_text(extended(section, line), N="42", YES="true", AUTH="trust")
    tables, name = section.split(".")
    assert getattr(getattr(config, tables)[name], attribute) == expected


@pytest.mark.parametrize(
    ("section", "line", "attribute", "expected"),
    [
        ("limits", "statements_per_server = 7", "statements_per_server", 7),
        ("timeouts", 'query_wait = "30s"', "query_wait", 30.0),
        ("timeouts", 'query_wait = "0s"', "query_wait", 0.0),
        ("timeouts", 'query_wait = "${WAIT}"', "query_wait", 120.0),
        ("admin", 'users = ["app"]', "users", ("app",)),
        ("admin", 'users = "app"', "users", ("app",)),
        ("admin", 'http = "127.0.0.1:0"', "http", Bind("127.0.0.1", 0)),
        ("log", 'level = "debug"', "level", "debug"),
    ],
)
def test_values_of_the_whole_process(section: str, line: str, attribute: str, expected: Any) -> None:
    assert getattr(getattr(load_text(extended(section, line), WAIT="2m"), section), attribute) == expected


def test_several_passwords() -> None:
    assert load_text(BASE.replace('"secret"', '["one", "${TWO}"]'), TWO="two").users["app"].password == ("one", "two")


def binds(value: str, protocol: str = "postgres") -> tuple[Bind, ...]:
    text = BASE.replace('"127.0.0.1:6543"', value).replace('"postgres"', f'"{protocol}"').replace("postgresql:", f"{protocol}:")
    return load_text(text).listeners["pg"].bind


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"[::1]:6543"', (Bind("::1", 6543),)),
        ('"*:6543"', (Bind("", 6543),)),
        ('"localhost:0"', (Bind("localhost", 0),)),
        ('["127.0.0.1:1", "127.0.0.2:1"]', (Bind("127.0.0.1", 1), Bind("127.0.0.2", 1))),
        ('"unix:/run/dualpool"', (Bind(unix="/run/dualpool/.s.PGSQL.5432"),)),
        ('["unix:/run/dualpool/", "127.0.0.1:6543"]', (Bind(unix="/run/dualpool/.s.PGSQL.6543"), Bind("127.0.0.1", 6543))),
        ('"unix:/run/.s.PGSQL.1"', (Bind(unix="/run/.s.PGSQL.1"),)),
        ('"unix:/run/my.sock"', (Bind(unix="/run/my.sock"),)),
    ],
)
def test_binds(value: str, expected: tuple[Bind, ...]) -> None:
    assert binds(value) == expected


def test_socket_of_mysql_clients() -> None:
    assert binds('"unix:/run/dualpool"', "mysql") == (Bind(unix="/run/dualpool/mysql.sock"),)


def test_bind_as_text() -> None:
    assert [str(bind) for bind in (Bind("h", 1), Bind("::1", 2), Bind("", 3), Bind(unix="/s"))] == ["h:1", "[::1]:2", "*:3", "unix:/s"]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    for name in ("server.crt", "server.key", "ca.crt", "root.crt"):
        (tmp_path / name).touch()
    tls = 'tls = { mode = "verify-full", cert = "server.crt", key = "server.key", client_ca = "ca.crt" }'
    text = extended("listeners.pg", tls).replace("h/d", "h/d?sslmode=verify-ca&sslrootcert=root.crt")
    (tmp_path / "dualpool.toml").write_text(text)
    config = load(tmp_path / "dualpool.toml", {})
    paths = [str(tmp_path / name) for name in ("server.crt", "server.key", "ca.crt")]
    assert config.listeners["pg"].tls == Tls("verify-full", *paths)
    assert config.backends["main"].sslrootcert == str(tmp_path / "root.crt")


def test_system_authorities_are_no_file() -> None:
    assert load_text(BASE.replace("h/d", "h/d?sslrootcert=system")).backends["main"].sslrootcert == "system"


def test_wildcard_and_names_per_protocol() -> None:
    config = load_text(
        BASE
        + """
        [backends.shop]
        url = "mysql://h"
        [databases."*"]
        backend = "main"
        [databases.shop]
        backend = "shop"
        name = "app"
        database = "shop_production"
        """.replace("        ", "")
    )
    found = [config.find_database(*key) for key in (("postgres", "app"), ("mysql", "app"), ("postgres", "other"), ("mysql", "other"))]
    assert [(database.backend, database.name, database.database) if database else None for database in found] == [
        ("main", "app", "app"),
        ("shop", "app", "shop_production"),
        ("main", "other", "other"),
        None,
    ]


def test_every_mistake_is_told_with_its_line() -> None:
    text = """\
        strict_budget = 1
        foo = 2
        [listeners.a]
        protocl = "postgres"
        bind = [
          "127.0.0.1:1",
          "::1:5", # not an address
          "x",
        ]
        tls = { mode = "prefr" }
        [backends.main]
        url = "postgres://u:${NOPE}@h"
        budget = { memory_gb = 1 }
        [backends.b2]
        url = "oops://x"
        budget = 0
        [databases.app]
        backend = "mian"
        pool_size = 0
        query_wait = 5
        [users]
        app.password = ["a", 3]
        bob = 1
        [timeouts]
        query_wait = "5 parsecs"
        client_idel = "5s"
        """
    assert errors_of(text) == [
        "conf/dualpool.toml:1: strict_budget: must be true or false, got 1",
        "conf/dualpool.toml:2: foo: unknown key; allowed: listeners, backends, databases, users, limits, timeouts, auth, admin, "
        "log, strict_budget",
        "conf/dualpool.toml:3: listeners.a.protocol: is required",
        "conf/dualpool.toml:4: listeners.a.protocl: unknown key; did you mean protocol?",
        "conf/dualpool.toml:7: listeners.a.bind[1]: an IPv6 address goes in brackets, such as [::1]:6543, got '::1:5'",
        'conf/dualpool.toml:8: listeners.a.bind[2]: must be "host:port" or "unix:/path", got \'x\'',
        "conf/dualpool.toml:10: listeners.a.tls.mode: must be one of disable, allow, prefer, require, verify-ca, verify-full, "
        "got 'prefr'; did you mean prefer?",
        "conf/dualpool.toml:12: backends.main.url: the environment variable NOPE is not set; set it, or give a default: ${NOPE:-...}",
        "conf/dualpool.toml:13: backends.main.budget.per_gb: is required",
        "conf/dualpool.toml:15: backends.b2.url: must be a URL that starts with postgresql:// or mysql://",
        "conf/dualpool.toml:16: backends.b2.budget: must be at least 1, got 0",
        "conf/dualpool.toml:18: databases.app.backend: there is no backend 'mian'; did you mean main?",
        "conf/dualpool.toml:19: databases.app.pool_size: must be at least 1, got 0",
        'conf/dualpool.toml:20: databases.app.query_wait: must be a time with a unit (ms, s, m, h or d), such as "5s", got 5',
        "conf/dualpool.toml:22: users.app.password[1]: must be a string",
        "conf/dualpool.toml:23: users.bob: must be a table, got 1",
        "conf/dualpool.toml:25: timeouts.query_wait: must be a time with a unit (ms, s, m, h or d), such as \"30s\", got '5 parsecs'",
        "conf/dualpool.toml:26: timeouts.client_idel: unknown key; did you mean client_idle?",
    ]


@pytest.mark.parametrize(
    ("section", "line", "error"),
    [
        ("databases.app", "pool_size = true", "7: databases.app.pool_size: must be a whole number, got true"),
        ("databases.app", "pool_size = 1.5", "7: databases.app.pool_size: must be a whole number, got 1.5"),
        ("databases.app", 'pool_size = "5"', "7: databases.app.pool_size: must be a whole number, got '5'"),
        ("databases.app", 'pool_size = "${X}"', "7: databases.app.pool_size: must be a whole number, got 'x'"),
        ("databases.app", "database = 5", "7: databases.app.database: must be a string, got 5"),
        ("databases.app", "password = 5", "7: databases.app.password: must be a string"),
        ("databases.app", "min_pool_size = -1", "7: databases.app.min_pool_size: must be at least 0, got -1"),
        ("backends.main", "budget = {}", "5: backends.main.budget.memory_gb: is required"),
        ("backends.main", "budget = { memory_gb = nan, per_gb = 1 }", "5: backends.main.budget.memory_gb: must be at least 0.1, got nan"),
        ("backends.main", "budget = { memory = 1 }", "5: backends.main.budget.memory: unknown key; did you mean memory_gb?"),
        ("backends.main", 'budget = "lots"', '5: backends.main.budget: must be "auto", a whole number or'),
        ("listeners.pg", "tls = true", "2: listeners.pg.tls: must be a table, got true"),
        (
            "listeners.pg",
            'auth = "scram"',
            "2: listeners.pg.auth: must be one of auto, trust, password, md5, scram-sha-256, cert, hba, got 'scram'",
        ),
        ("listeners.pg", 'tls = { cert = "nope.crt", key = "nope.key" }', "2: listeners.pg.tls.cert: there is no file /"),
        ("users.app", 'name = "x"', "9: users.app.name: unknown key"),
        ("users.app", "maintenance = 1", "9: users.app.maintenance: must be true or false, got 1"),
        ("admin", "http = 9127", "11: admin.http: must be a string, got 9127"),
        ("admin", 'http = "9127"', '11: admin.http: must be "host:port" or "unix:/path", got \'9127\''),
        ("admin", 'http = "h:99999"', "11: admin.http: a port must be a number from 1 to 65535"),
        ("admin", 'http = "unix:"', "11: admin.http: unix: needs a directory or the path of a socket"),
        ("timeouts", "reset = [1]", "11: timeouts.reset: must be a string, got a list"),
    ],
)
def test_wrong_values(section: str, line: str, error: str) -> None:
    assert any(found.startswith(f"conf/dualpool.toml:{error}") for found in errors_of(extended(section, line), X="x"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a = 1\na = 2\n", "conf/dualpool.toml:2: a: is given twice"),
        ("[t]\n[u]\n[v]\nx = 1\nx = 2\n", "conf/dualpool.toml:5: v.x: is given twice"),
        ("a = 1\n[b]\nc =\n", r"conf/dualpool.toml:3: .*"),
        ("a = 'x\n", r"conf/dualpool.toml:[12]: .*"),
        ("listeners = 1", "(?s)conf/dualpool.toml:1: listeners: must hold tables, such as .*"),
        ("limits = 1", "(?s).*conf/dualpool.toml:1: limits: must be a table, got 1.*"),
        ("", "conf/dualpool.toml:1: listeners: at least one is required, such as .*"),
    ],
)
def test_files_that_are_something_else(text: str, error: str) -> None:
    assert re.fullmatch(error, "\n".join(errors_of(text)))


def test_a_url_with_a_password_is_never_told() -> None:
    lines = errors_of(BASE.replace("u:p@h/d", "u:hidden@h:port/d"))
    assert lines == ["conf/dualpool.toml:5: backends.main.url: a port must be a number from 1 to 65535"]


def test_certificates_of_a_url_must_exist() -> None:
    lines = errors_of(BASE.replace("h/d", "h/d?sslrootcert=nope.crt"))
    assert len(lines) == 1
    assert lines[0].startswith("conf/dualpool.toml:5: backends.main.url: sslrootcert: there is no file /")
    assert errors_of(BASE.replace("h/d", "h/d?sslcert=" + __file__)) == [
        "conf/dualpool.toml:5: backends.main.url: sslcert and sslkey must be given together"
    ]


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "nope.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(tmp_path / "latin.toml")
