"""The events of the log, in words: who came, who left and why, what was slow. The ids in them are those of SHOW CLIENTS and SHOW SERVERS.

`Journal` has our own words; `PgBouncerJournal` those of PgBouncer, for alerts that look for them, where a pgbouncer.ini is run.
"""

import logging
import math
from typing import TYPE_CHECKING, Final

from dualpool.admin.tables import address, replication_of
from dualpool.authentication.peers import process_of
from dualpool.counters import Watch
from dualpool.errors import (
    CheckoutTimeout,
    ClientIdleTimeout,
    DualpoolError,
    IdleInTransactionTimeout,
    LoginTimeout,
    QueryTimeout,
    TooManyClients,
    TransactionTimeout,
)
from dualpool.lease import CLOSING, IDLE_TOO_LONG, PAUSED, RECONNECT, TOO_OLD, WANTED_ELSEWHERE
from dualpool.link import LEFT_MIDWAY, SAID_GOODBYE, SERVER_ENDED, SERVER_VANISHED, VANISHED, Client, ServerConnection, WatchedClient
from dualpool.log import FOLDS, event
from dualpool.protocol import ServerRelay

if TYPE_CHECKING:
    from dualpool.authentication.gate import Visit
    from dualpool.pool import Pool
    from dualpool.server import Server

STATEMENT_CHARACTERS: Final = 1024
"""How much of a slow statement is told."""


class SlowLog(Watch):
    """Queries that took longer than log.slow_query."""

    __slots__ = ("server",)

    def __init__(self, server: "Server", threshold: float) -> None:
        super().__init__(threshold or math.inf)
        self.server = server

    def slow(self, relay: ServerRelay, seconds: float) -> None:
        """Tell it, with the start of the statement."""
        for client in self.server.clients.by_id.values():
            conn = client.server
            if conn is not None and conn.relay is relay:
                request = client.request if isinstance(client, WatchedClient) else b""
                text = client.engine.shown(request, client.relay, STATEMENT_CHARACTERS)
                self.server.journal.slow(client, conn, seconds, text)
                return


class Journal:
    """One for a server."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self._timeouts: dict[Pool, int] = {}

    # --------------------------------------------------------------------------------------------------------------- clients

    def connected(self, client: Client, visit: "Visit") -> None:
        """A client is in."""
        login = client.login
        if login is None or not self.server.config.log.connections:
            return
        user, database = login.account.user, login.account.database
        event(
            logging.INFO,
            f"client {client.id}: {user} logged in to {database} from {visit.peer.name}{', TLS' if visit.tls else ''}",
            client=client.id, pool=client.pool.name, user=user, database=database, address=visit.peer.name, tls=visit.tls,
        )  # fmt: skip

    def login_failed(self, listener: str, visit: "Visit", error: DualpoolError) -> None:
        """A client did not get in."""
        event(logging.WARNING, f'listener "{listener}": login of {visit.peer.name} failed: {error}', sqlstate=error.sqlstate)

    def left(self, client: Client) -> None:
        """A client is gone: by itself, or because of an error, which is told whatever the settings are."""
        usual = client.error is None or self.server.draining
        if usual and not self.server.config.log.disconnections:
            return
        age = self.server.reactor.clock.now - client.connected_at
        level = logging.INFO if usual else logging.WARNING
        event(level, f"client {client.id}: {client.ended_by} (after {age:.1f} s)", client=client.id, pool=client.pool.name)

    def canceled(self, client: Client) -> None:
        """A cancel request that is genuine."""
        held = client.server.id if client.server is not None else None
        event(logging.DEBUG, f"client {client.id}: cancel request", client=client.id, server=held, pool=client.pool.name)

    def slow(self, client: Client, conn: ServerConnection, seconds: float, text: str) -> None:
        """A query took long."""
        event(
            logging.INFO,
            f'pool "{client.pool.name}": slow query of client {client.id}: {seconds:.3f} s: {text or "(a statement that is not known)"}',
            client=client.id, server=conn.id, pool=client.pool.name, seconds=round(seconds, 3), statement=text,
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------------------- server connections

    def opened(self, conn: ServerConnection) -> None:
        """A new server connection."""
        if self.server.config.log.connections:
            where = f"{conn.target.host}:{conn.target.port}"
            event(logging.INFO, f'pool "{conn.pool.name}": new server connection {conn.id} to {where}', server=conn.id, pool=conn.pool.name)

    def connect_failed(self, pool: "Pool", error: DualpoolError) -> None:
        """There is none."""
        event(logging.WARNING, f'pool "{pool.name}": connect failed: {error}', sqlstate=error.sqlstate, pool=pool.name)

    def closing(self, conn: ServerConnection, reason: str) -> None:
        """We end it."""
        if self.server.config.log.disconnections:
            event(
                logging.INFO,
                f'pool "{conn.pool.name}": closing server connection {conn.id}: {reason} (after {self.age(conn):.1f} s)',
                server=conn.id, pool=conn.pool.name, reason=reason,
            )  # fmt: skip

    def lost(self, conn: ServerConnection, error: DualpoolError) -> None:
        """The server has ended it."""
        held = conn.client.id if conn.client is not None else None
        what = f'pool "{conn.pool.name}": lost server connection {conn.id}: {error.message} (after {self.age(conn):.1f} s)'
        event(logging.WARNING, what, server=conn.id, client=held, pool=conn.pool.name)

    def age(self, conn: ServerConnection) -> float:
        """Of a server connection, in seconds."""
        return max(0.0, self.server.reactor.clock.now - conn.created_at)

    # ---------------------------------------------------------------------------------------------------------------- others

    def ordered(self, user: str, command: str) -> None:
        """Somebody steers at the admin console."""
        event(logging.INFO, f"admin console: {user}: {command}", user=user)

    def sweep(self) -> None:
        """What is seen when somebody looks: requests that waited in vain; and the counts of lines that were left out."""
        for pool in self.server.backends.pools():
            given_up = pool.timeouts - self._timeouts.get(pool, 0)
            if given_up:
                self._timeouts[pool] = pool.timeouts
                self.gave_up(pool, given_up)
        for gone in self._timeouts.keys() - set(self.server.backends.pools()):
            del self._timeouts[gone]
        FOLDS.tell()

    def gave_up(self, pool: "Pool", count: int) -> None:
        """So many requests have waited for a server connection until their time was over."""
        event(logging.WARNING, f'pool "{pool.name}": {count} requests waited in vain for a server connection', pool=pool.name)

    def averages(self) -> None:
        """A period of SHOW STATS is over."""


WORDS: Final[dict[type[DualpoolError], str]] = {
    CheckoutTimeout: "query_wait_timeout",
    QueryTimeout: "query timeout",
    TransactionTimeout: "transaction timeout",
    IdleInTransactionTimeout: "idle transaction timeout",
    ClientIdleTimeout: "client_idle_timeout",
    LoginTimeout: "client_login_timeout",
    TooManyClients: "no more connections allowed (max_client_conn)",
}
"""PgBouncer: src/janitor.c, src/client.c; as the log of version 1.26.1 has them."""
REASONS: Final = {
    VANISHED: "client unexpected eof",
    SAID_GOODBYE: "client close request",
    IDLE_TOO_LONG: "server idle timeout",
    TOO_OLD: "server lifetime over",
    RECONNECT: "database configuration changed",
    PAUSED: "unclean server",
    SERVER_VANISHED: "server conn crashed?",
    SERVER_ENDED: "server conn crashed?",
    LEFT_MIDWAY: "client disconnect while server was not ready",
    WANTED_ELSEWHERE: "evicted",
}
STATS: Final = (
    "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, {} client logins/s, "
    "in {} B/s, out {} B/s, xact {} us, query {} us, wait {} us"
)


def place_of(visit: "Visit") -> str:
    """Where a client is: its address, or what the system says of a Unix socket."""
    return visit.peer.name if visit.peer.address is not None else f"unix({process_of(visit.stream.sock)})"


def in_its_words(error: DualpoolError) -> str:
    """As PgBouncer would say it."""
    return WORDS.get(type(error), error.message)


class PgBouncerJournal(Journal):
    """PgBouncer's words (its src/client.c, src/server.c, src/objects.c, src/stats.c), for what people's alerts look for."""

    def __init__(self, server: "Server") -> None:
        super().__init__(server)
        self._places: dict[int, str] = {}
        """Who a client is, as its lines begin."""

    def connected(self, client: Client, visit: "Visit") -> None:
        login = client.login
        if login is None:
            return
        user, database = login.account.user, login.account.database
        self._places[client.id] = f"C-{client.id:#x}: {database}/{user}@{place_of(visit)}"
        if self.server.config.log.connections:
            tls, replication = "yes" if visit.tls else "no", replication_of(login).replace("none", "no")
            what = f"login attempt: db={database} user={user} tls={tls} replication={replication}"
            event(logging.INFO, f"{self._places[client.id]} {what}", client=client.id)

    def login_failed(self, listener: str, visit: "Visit", error: DualpoolError) -> None:
        place, account = place_of(visit), visit.account
        user, database = ("(nouser)", "(nodb)") if account is None else (account.user, account.database)
        event(logging.INFO, f"C-0x0: {database}/{user}@{place} closing because: {in_its_words(error)} (age=0s)")
        event(logging.WARNING, f"C-0x0: {database}/{user}@{place} pooler error: {in_its_words(error)}")

    def left(self, client: Client) -> None:
        place = self._places.pop(client.id, f"C-{client.id:#x}")
        age = int(self.server.reactor.clock.now - client.connected_at)
        reason = in_its_words(client.error) if client.error is not None else REASONS.get(client.ended_by, client.ended_by)
        if self.server.config.log.disconnections:
            event(logging.INFO, f"{place} closing because: {reason} (age={age}s)", client=client.id)
        if client.error is not None:
            event(logging.WARNING, f"{place} pooler error: {reason}", client=client.id)

    def opened(self, conn: ServerConnection) -> None:
        if self.server.config.log.connections:
            host, port = address(conn.channel.transport.sock.getsockname)
            event(logging.INFO, f"{self._place(conn)} new connection to server (from {host}:{port})", server=conn.id)

    def connect_failed(self, pool: "Pool", error: DualpoolError) -> None:
        target = self.server.backends.entry_of(pool).target
        event(logging.WARNING, f"S-0x0: {pool.name}@{target.host}:{target.port} server login failed: {error}", sqlstate=error.sqlstate)

    def closing(self, conn: ServerConnection, reason: str) -> None:
        if self.server.config.log.disconnections:
            because = REASONS.get(reason, reason)
            event(logging.INFO, f"{self._place(conn)} closing because: {because} (age={int(self.age(conn))}s)", server=conn.id)

    def lost(self, conn: ServerConnection, error: DualpoolError) -> None:
        if conn.state != CLOSING:  # else that has been told
            self.closing(conn, error.message)

    def ordered(self, user: str, command: str) -> None:
        verb, *words = command.rstrip("; ").split()
        if verb.upper() != "SET":
            event(logging.INFO, " ".join((verb.upper(), *(f"'{word}'" for word in words), "command issued")))

    def gave_up(self, pool: "Pool", count: int) -> None:
        event(logging.WARNING, f"P-0x0: {pool.name} pooler error: query_wait_timeout ({count} times)")

    def averages(self) -> None:
        rates = list(self.server.statistics.averages().values())
        if not rates:
            return
        # The times are averages per transaction and query, so they are weighed with how many there were.
        xacts, queries = sum(one.transactions for one in rates), sum(one.queries for one in rates)
        numbers = (
            xacts, queries, sum(one.client_parses for one in rates), sum(one.server_parses for one in rates),
            sum(one.binds for one in rates), sum(one.logins for one in rates),
            sum(one.received for one in rates), sum(one.sent for one in rates),
            sum(one.transaction_time * one.transactions for one in rates) // max(1, xacts),
            sum(one.query_time * one.queries for one in rates) // max(1, queries),
            sum(one.wait_time for one in rates),
        )  # fmt: skip
        event(logging.INFO, STATS.format(*numbers))

    def _place(self, conn: ServerConnection) -> str:
        return f"S-{conn.id:#x}: {conn.pool.name}@{conn.target.host}:{conn.target.port}"
