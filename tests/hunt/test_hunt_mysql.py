"""The leak hunt on MySQL."""

from tests.helpers.servers import MySQLServer
from tests.hunt.in_tests import hunt_on, still_differs


@still_differs
def test_nothing_leaks(mysql: MySQLServer) -> None:
    hunt_on(mysql)
