"""Migration and dump tools on the applications' port: recognised, they use the maintenance lane for as long as they need it. [hot]

A tool that says by its name what it is (application_name, program_name) is in that lane from its login on, and in session mode. Others are
known by the tables and the locks that they keep their books with. That is looked for only when a client has to wait: with a connection at
hand the lane makes no difference.
"""

import re
from typing import Final

from dualpool.protocol import APPLICATION, MAINTENANCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dualpool.link import Client

TOOLS: Final = frozenset(
    ("pg_dump", "pg_dumpall", "pg_restore", "mysqldump", "mariadb-dump", "mysqlimport", "mariadb-import", "Flyway by Redgate")
)
"""What tools call themselves by."""
TRACES: Final = re.compile(
    rb"\b(?:alembic_version|django_migrations|schema_migrations|ar_internal_metadata|flyway_schema_history|databasechangelog|goose_db_version"
    rb"|_prisma_migrations|prisma_migrate|knex_migrations|sequelizemeta|__drizzle_migrations|__efmigrationshistory"
    rb"|doctrine_migration_versions)|pg_advisory_lock\(72707369\)"
)
"""Alembic, Django, Rails and golang-migrate, Flyway, Liquibase, Goose, Prisma, Knex, Sequelize, Drizzle, Entity Framework, Doctrine: in
lower case."""
HINTS: Final = (b"migrat", b"_version", b"changelog", b"_metadata", b"schema_history", b"sequelizemeta", b"72707369")
"""One of these is in whatever TRACES finds, in lower case. To look for them first is much faster, and nearly all requests have none."""
LOOKED_AT: Final = 4096
"""Bytes of a request that are looked at."""
RESTS: Final = 10.0
"""Seconds without a request after which a tool has done its work."""
LASTS: Final = 600.0
"""Seconds after which a client must have been recognised again: an application may look at such a table, too, and then goes on."""


def is_of_a_tool(request: bytes) -> bool:
    """Is this what a migration tool asks?"""
    head = request[:LOOKED_AT].lower()
    return any(hint in head for hint in HINTS) and TRACES.search(head) is not None


class Migrations:
    """The clients that are in the maintenance lane because of what they ask."""

    __slots__ = ("_clients", "_settle")

    def __init__(self, settle: "Callable[[Client], None]") -> None:
        """`settle` gives a client what it has as an application."""
        self._clients: dict[Client, float] = {}
        self._settle = settle

    def begin(self, client: "Client") -> None:
        """`client` was recognised."""
        client.lane = MAINTENANCE
        client.parties = ()
        client.may_migrate = False
        self._clients[client] = client.clock.now

    def sweep(self, now: float) -> None:
        """Call it about once a second."""
        for client, since in list(self._clients.items()):
            rests = client.waiter is None and client.server is None
            if client.ended_by:
                del self._clients[client]
            elif rests and (now - client.asked_at > RESTS or now - since > LASTS):
                del self._clients[client]
                client.lane = APPLICATION
                self._settle(client)
