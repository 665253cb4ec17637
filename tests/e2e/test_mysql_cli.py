"""What people type at the command line clients of MySQL and MariaDB: other sessions on the way, and compression that is declined."""

import pytest

from tests.e2e.mysql_world import World
from tests.e2e.test_mysql_drivers import LISTENERS, run

NAMES = pytest.mark.parametrize("name", ["mysql", "mariadb"])
PLAIN = ("--skip-column-names", "--batch")
SETS = "SET @mine = 5; CREATE TEMPORARY TABLE mine (x INT); SELECT 'set', @mine;"
LOOKS = "SELECT @mine, COUNT(*) FROM information_schema.engines WHERE engine = 'InnoDB'; SELECT DATABASE() = SCHEMA();"


def options(name: str) -> tuple[str, ...]:
    """MySQL's own client takes its commands only if it is told so."""
    return (*PLAIN, "--commands") if name == "mysql" else PLAIN


def lines(name: str, world: World, listener: str, *script: str, code: int = 0) -> list[str]:
    return run(name, world, listener, "\n".join((*script, "")), *options(name), code=code).splitlines()


@LISTENERS
@NAMES
@pytest.mark.parametrize("command", ["connect", "\\r", "connect app 127.0.0.1"])
def test_connect_begins_a_new_session(each_mysql: World, name: str, listener: str, command: str) -> None:
    assert lines(name, each_mysql, listener, SETS, command, LOOKS) == ["set\t5", "NULL\t1", "1"]
    said = run(name, each_mysql, listener, f"{SETS}\n{command}\nSELECT * FROM mine;\n", *options(name), code=1)
    assert "ERROR 1146 (42S02)" in said


@LISTENERS
@pytest.mark.parametrize("command", ["resetconnection", "\\x"])
def test_resetconnection_of_mysql_s_client(each_mysql: World, listener: str, command: str) -> None:
    assert lines("mysql", each_mysql, listener, SETS, command, LOOKS) == ["set\t5", "NULL\t1", "1"]
    each_mysql.assert_unharmed()


@NAMES
def test_commands_of_the_clients(each_mysql: World, name: str) -> None:
    said = lines(
        name, each_mysql, "mysql", "use information_schema", "SELECT DATABASE();", "\\u app", "SELECT DATABASE() = SCHEMA();", "status"
    )
    assert said[:2] == ["information_schema", "1"]
    assert any(line.startswith("Connection id:") for line in said)


@LISTENERS
@NAMES
def test_compression_is_declined(each_mysql: World, name: str, listener: str) -> None:
    compressing = ("--compression-algorithms=zlib,zstd,uncompressed",) if name == "mysql" else ("--compress",)
    script = "SHOW SESSION STATUS LIKE 'Compression'; SELECT LENGTH(REPEAT('x', 100000));"
    assert run(name, each_mysql, listener, script, *PLAIN, *compressing).splitlines() == ["Compression\tOFF", "100000"]
