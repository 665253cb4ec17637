"""What the leak hunt has found on MySQL and MariaDB."""

from collections.abc import Iterator

import pytest

from tests.e2e import mysql_world
from tests.e2e.mysql_world import Client, World, rows, value
from tests.helpers.servers import MySQLServer


@pytest.fixture
def narrow(mysql_server: MySQLServer) -> Iterator[World]:
    """One server connection for all."""
    with mysql_world.world(mysql_server, pool_size=1) as made:
        yield made


def same(first: Client, second: Client) -> None:
    """Another client has the server connection for a moment."""
    assert value(second, "SELECT LAST_INSERT_ID()") == 0
    assert value(first, "SELECT 1") == 1


def test_execute_reads_last_insert_id(narrow: World) -> None:
    with narrow.connect(autocommit=True) as client, narrow.connect(autocommit=True) as other:
        rows(client, "CREATE TABLE made (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
        rows(client, "INSERT INTO made (v) VALUES (1), (2)")
        number = value(client, "SELECT LAST_INSERT_ID()")
        same(client, other)
        rows(client, "SELECT * FROM made")
        assert value(client, "SELECT LAST_INSERT_ID()") == number
        same(client, other)
        rows(client, "PREPARE q FROM 'SELECT LAST_INSERT_ID()'")
        assert value(client, "EXECUTE q") == number


def test_a_role_that_no_text_shows_ends_with_its_client(narrow: World, mysql_server: MySQLServer) -> None:
    mysql_server.execute("CREATE ROLE IF NOT EXISTS hunted_role")
    mysql_server.execute(f"GRANT hunted_role TO {narrow.user}@'%'")
    with narrow.connect(autocommit=True) as other:
        before = value(other, "SELECT CURRENT_ROLE()")
        with narrow.connect(autocommit=True) as client:
            rows(client, r"PREPARE q FROM 's\et rol\e hunted_role'")
            rows(client, "EXECUTE q")
            rows(client, "DEALLOCATE PREPARE q")
            assert "hunted_role" in str(value(client, "SELECT CURRENT_ROLE()"))
        assert value(other, "SELECT CURRENT_ROLE()") == before


def test_what_prepare_could_not_read_is_over_with_deallocate(narrow: World) -> None:
    with narrow.connect(autocommit=True) as client, narrow.connect(autocommit=True) as other:
        rows(client, "PREPARE q FROM 'SELECT RELEASE_ALL_LOCKS()'")
        rows(client, "DEALLOCATE PREPARE q")
        with pytest.raises(Exception, match="1243"):
            rows(other, "EXECUTE q")
        assert value(client, "SELECT 1") == 1
