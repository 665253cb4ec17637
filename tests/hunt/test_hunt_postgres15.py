"""The leak hunt on the distribution's PostgreSQL."""

from tests.helpers.servers import PostgresServer
from tests.hunt.in_tests import hunt_on, still_differs


@still_differs
def test_nothing_leaks(postgres15: PostgresServer) -> None:
    hunt_on(postgres15)
