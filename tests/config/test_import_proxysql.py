"""What becomes of a proxysql.cnf."""

from pathlib import Path

import pytest

from dualpool.config import Bind, loads
from dualpool.config.importers import Imported, import_file
from dualpool.config.importers.libconfig import parse_libconfig
from dualpool.errors import ConfigError

CONFIG = """
#file proxysql.cfg
datadir="/var/lib/proxysql" // where
admin_variables= { admin_credentials="admin:admin"; mysql_ifaces="127.0.0.1:6032;/tmp/proxysql_admin.sock" }
mysql_variables=
{
    threads=4
    max_connections=2048
    default_query_timeout=36000000
    interfaces="0.0.0.0:6033;/tmp/proxysql.sock"
    default_schema="information_schema"
    connect_timeout_server=10000
    connection_max_age_ms=0
    have_ssl=true
}
/* servers */
mysql_servers =
(
    { address = "10.0.0.1" , port = 3306 , hostgroup = 0 , max_connections = 200 , weight = 1 },
    { address = "10.0.0.2" , port = 3307 , hostgroup = 0 , max_connections = 100 , weight = 2 }
    { address="/var/lib/mysql/mysql.sock" , port=0 , hostgroup=1 , use_ssl = 1 },
    { address="10.0.0.3" , hostgroup=1 , status = "OFFLINE_HARD" }
)
mysql_users:
(
    { username = "app" , password = "p$${x}\\"q\\"" , default_hostgroup = 0 , max_connections=1000 , default_schema="test" },
    { username = "hash" , password = "*0123456789012345678901234567890123456789" },
    { username = "report" , password = "r" , default_hostgroup = 1 },
    { username = "old" , password = "o" , active = 0 }
)
mysql_query_rules: ( { rule_id=1 active=1 match_pattern="^SELECT .* FOR UPDATE$" destination_hostgroup=0 apply=1 } )
scheduler=()
"""


def imported(folder: Path, text: str) -> Imported:
    path = folder / "proxysql.cnf"
    path.write_text(text)
    result = import_file(path)
    made, read = result.config(), loads(result.toml(), str(folder / "dualpool.toml"), {})
    assert (made.listeners, made.backends, made.databases, made.users) == (read.listeners, read.backends, read.databases, read.users)
    return result


def test_a_whole_file(tmp_path: Path) -> None:
    result = imported(tmp_path, CONFIG)
    config = result.config()
    listener = config.listeners["mysql"]
    assert (listener.protocol, listener.bind) == ("mysql", (Bind("0.0.0.0", 6033), Bind(unix="/tmp/proxysql.sock")))
    first, second = config.backends["hostgroup-0"], config.backends["hostgroup-1"]
    assert (first.hosts, first.budget, first.load_balance) == ((("10.0.0.1", 3306), ("10.0.0.2", 3307)), 300, "round-robin")
    assert (first.sslmode, first.user, first.reserved_maintenance) == ("disable", "", 0)
    assert (second.hosts, second.sslmode) == ((("/var/lib/mysql/mysql.sock", 3306),), "require")
    assert (config.databases["*"].backend, config.databases["*"].pool_size) == ("hostgroup-0", 300)
    assert {name: user.password for name, user in config.users.items()} == {
        "app": ('p$${x}"q"',),
        "hash": ("*0123456789012345678901234567890123456789",),
        "report": ("r",),
    }
    assert config.users["app"].max_client_connections == 1000
    assert (config.limits.max_client_connections, config.timeouts.query, config.timeouts.server_connect) == (2048, 36000.0, 10.0)
    assert config.timeouts.server_lifetime > 86400
    told = "\n".join(map(str, result.notes))
    for word in (
        "have_ssl",
        "weight",
        "10.0.0.3",
        "default_schema = test",
        "report: default_hostgroup = 1",
        "query_rules",
        "admin_variables",
        "threads",
    ):
        assert word in told
    assert "scheduler" not in told


def test_libconfig() -> None:
    text = 'a = 1; b : 0x1F, c = -2.5e1 d = [1, 2L] e = ( "x" "y", (), { f = TRUE } ) g = "t\\tq\\"\\x41\\\\" h = 10LL'
    assert parse_libconfig(text, Path("x")) == {
        "a": 1,
        "b": 31,
        "c": -25.0,
        "d": [1, 2],
        "e": ["xy", [], {"f": True}],
        "g": 't\tq"A\\',
        "h": 10,
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a = ", "x:1: a value is due"),
        ("\na 1", "x:2: = is due after a"),
        ("a = ( 1", "x:1: ) is due"),
        ("a = { b = 1", "x:1: the name of a setting is due"),
        ("a = 'x'", "is not understood"),
        ("= 1", "the name of a setting is due"),
    ],
)
def test_broken_libconfig(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_libconfig(text, Path("x"))
    assert error in raised.value.message


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("mysql_servers = ()", "there is no server"),
        ("mysql_servers = ( { port = 1 } )", "address is missing in ['port']"),
        ('mysql_servers = { address = "x" }', "mysql_servers: must be a list of groups"),
        ("mysql_variables = 5", "mysql_variables: must be a group"),
    ],
)
def test_what_cannot_be_imported(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        imported(tmp_path, text)
    assert error in raised.value.message
