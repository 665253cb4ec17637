"""`dualpool dev`: databases and the pooler in front of them, in one command.

The database servers are the ones that the machine has, or the binaries that a Python package brings; each runs as a child process on
127.0.0.1 with a data folder of its own. The classes are synchronous and serve tests as well:

    with EmbeddedPostgres(folder) as postgres:
        connect(postgres.url)
"""

from dualpool.dev.embedded import DevError, EmbeddedServer
from dualpool.dev.mysql_server import EmbeddedMySQL
from dualpool.dev.postgres_server import EmbeddedPostgres

__all__ = ["DevError", "EmbeddedMySQL", "EmbeddedPostgres", "EmbeddedServer"]
