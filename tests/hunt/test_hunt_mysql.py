"""The leak hunt on MySQL and MariaDB: two minutes on each, with scripts that are the same each time (longer: scripts/hunt)."""

from tests.helpers.servers import MySQLServer
from tests.hunt import check


def test_nothing_leaks(mysql_server: MySQLServer) -> None:
    """Each client sees what it would see on a connection of its own, and clean ones find nothing of others."""
    check.nothing_leaks(mysql_server.admin_url)
