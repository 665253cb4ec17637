"""The leak hunt on MySQL and MariaDB: a fixed number of scripts, or as many as DUALPOOL_HUNT_SECONDS allow (with DUALPOOL_HUNT_SEED)."""

import math
import os
from typing import Final

from tests.helpers.servers import MySQLServer
from tests.hunt.hunt import Hunt, world_of

SCRIPTS: Final = 100
SECONDS: Final = float(os.environ.get("DUALPOOL_HUNT_SECONDS") or math.inf)
SEED: Final = os.environ.get("DUALPOOL_HUNT_SEED") or "ci"
SHRINK_SECONDS: Final = 45.0


def test_nothing_leaks(mysql_server: MySQLServer) -> None:
    """Each client sees what it would see on a connection of its own, and clean ones find nothing of others."""
    with world_of(mysql_server.admin_url) as world:
        found = Hunt(world, SEED, shrink_seconds=SHRINK_SECONDS).run(SECONDS, scripts=SCRIPTS if math.isinf(SECONDS) else None)
    assert not found, f"\n{found[0]}"
