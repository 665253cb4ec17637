"""The leak hunt on MariaDB."""

from tests.helpers.servers import MySQLServer
from tests.hunt.in_tests import hunt_on, still_differs


@still_differs
def test_nothing_leaks(mariadb: MySQLServer) -> None:
    hunt_on(mariadb)
