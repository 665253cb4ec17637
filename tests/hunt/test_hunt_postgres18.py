"""The leak hunt on the newest PostgreSQL."""

from tests.helpers.servers import PostgresServer
from tests.hunt.in_tests import hunt_on, still_differs


@still_differs
def test_nothing_leaks(postgres18: PostgresServer) -> None:
    hunt_on(postgres18)
