"""Users that only a server knows: a backend's auth_query, asked once for all who ask at the same time, and remembered for a while.

The session in which it runs is ours alone: it starts with the backend's own parameters, and no client ever had it or has given it a
search_path (CVE-2025-12819).
"""

import logging
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs
import trio

from dualpool.checkout import checkout
from dualpool.config import Backend, Database
from dualpool.errors import ConnectFailed, DualpoolError
from dualpool.link import ServerConnection
from dualpool.log import event
from dualpool.protocol import MAINTENANCE

if TYPE_CHECKING:
    from dualpool.server import Server

MAX_ANSWERS: Final = 10_000
FRESH: Final = 1.0
"""Seconds for which an answer is not doubted, so that wrong passwords do not each cost the server a query."""

Key = tuple[str, str, str]
Secrets = tuple[str, ...]


@attrs.frozen
class Answer:
    """What a server said of a user, and when. `secrets`: None if it knows no such user."""

    secrets: Secrets | None = attrs.field(repr=False)
    at: float


class Lookups:
    """What the servers of one configuration have said. An answer is used for `auth.query_ttl`, or until a login with it fails."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._asking: dict[Key, trio.Event] = {}

    async def find(self, backend: Backend, database: Database, user: str) -> Secrets | None:
        """The stored secrets of `user`, a client of `database` on `backend`; None if there is no such user. Raises ConnectFailed."""
        place = self._place(backend, database)
        key = (backend.name, place.name, user)
        while True:
            known = self._answers.get(key)
            if known is not None and monotonic() - known.at <= self._server.config.auth.query_ttl:
                return known.secrets
            others = self._asking.get(key)
            if others is None:
                return await self._ask(key, backend, place)
            await others.wait()

    def doubt(self, user: str) -> None:
        """A login of `user` has failed: the next one is not to be measured by an old answer, since the password may be new."""
        now = monotonic()
        for key in [key for key, answer in self._answers.items() if key[2] == user and now - answer.at > FRESH]:
            del self._answers[key]

    def _place(self, backend: Backend, database: Database) -> Database:
        """Where the query runs."""
        if not backend.auth_database:
            return database
        return self._server.config.find_database(backend.protocol, backend.auth_database) or database

    async def _ask(self, key: Key, backend: Backend, place: Database) -> Secrets | None:
        asking = self._asking[key] = trio.Event()
        try:
            secrets = await self._query(backend, place, key[2])
        finally:
            del self._asking[key]
            asking.set()
        self._answers[key] = Answer(secrets, monotonic())
        self._answers.move_to_end(key)
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
        return secrets

    async def _query(self, backend: Backend, place: Database, user: str) -> Secrets | None:
        entry = self._server.backends.lookup_entry(backend, place)
        try:
            conn = await checkout(entry.pool, MAINTENANCE)
            assert isinstance(conn, ServerConnection)
            return await self._server.upkeep.use(conn, conn.engine.find_secrets(conn.login, backend.auth_query, user))
        except DualpoolError as error:
            event(logging.WARNING, f'backend "{backend.name}": auth_query as user "{backend.auth_user}" failed: {error}')
            # Who is not in yet need not know what the server said.
            raise ConnectFailed("the server that knows the users could not be asked", hint="The log of dualpool says why.") from error
