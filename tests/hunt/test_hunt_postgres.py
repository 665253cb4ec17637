"""The leak hunt on PostgreSQL: two minutes on each server, with scripts that are the same each time (longer: scripts/hunt)."""

from tests.helpers.servers import PostgresServer
from tests.hunt import check


def test_nothing_leaks(postgres_server: PostgresServer) -> None:
    """Each client sees what it would see on a connection of its own, and clean ones find nothing of others."""
    check.nothing_leaks(postgres_server.admin_url)
