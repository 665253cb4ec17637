"""Node.js: node-postgres, postgres.js and mysql2, and the migrations of Knex, Sequelize and Drizzle, on the port of transaction mode.

The scripts in node_tools/ use node:test; each is run by Node.js in one process and must pass as a whole. scripts/test installs what they
need there.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import mysql_world, postgres_world
from tests.helpers.servers import Servers, report_unavailable

FOLDER: Final = Path(__file__).parent / "node_tools"
SECONDS: Final = 300.0
SCRIPTS: Final = {
    "postgres15": ("pg.mjs", "postgresjs.mjs", "migrations.mjs"),
    "mariadb": ("mysql2.mjs", "migrations.mjs"),
    "mysql": ("mysql2.mjs", "migrations.mjs"),
}
CASES: Final = [(server, script) for server, scripts in SCRIPTS.items() for script in scripts]


@pytest.fixture(scope="module")
def node() -> str:
    """The program, where its packages are there, too."""
    found = shutil.which("node") or shutil.which("nodejs")
    if found is None:
        report_unavailable("node", "Node.js is not on this machine (apt install nodejs npm)")
    if not (FOLDER / "node_modules").is_dir():
        report_unavailable("node", "npm ci in tests/e2e/node_tools has not been done")
    return found


@pytest.fixture(scope="module")
def url_of(servers: Servers) -> Iterator[Callable[[str], str]]:
    """How a client connects to a dualpool with 3 server connections in front of the server of this name."""
    with ExitStack() as running:

        @cache
        def start(server: str) -> str:
            if server == "postgres15":
                return running.enter_context(postgres_world.world(servers.postgres(15))).url()
            return running.enter_context(mysql_world.world(getattr(servers, server)())).pooler.url(listener="mysql")

        yield start


@pytest.mark.parametrize(("server", "script"), CASES)
def test_node(node: str, url_of: Callable[[str], str], server: str, script: str) -> None:
    environment = {**os.environ, "DUALPOOL_TOOL": json.dumps({"url": url_of(server)}), "NODE_NO_WARNINGS": "1"}
    done = subprocess.run([node, script], cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
