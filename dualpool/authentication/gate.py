"""Who comes in, and as what: from what a client says of itself, through rules and lists of users, to an account that it must prove.

In this order: addresses whose logins failed wait; the rules of auth.hba, where the listener goes by them; the users of the file and of the
userlist; a backend's auth_query; password pass-through. Whoever is not found gets a decoy, and learns no more than with a wrong password.
"""

import hashlib
import hmac
import os
import secrets
import socket
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs
import trio

from dualpool.accounts import Account, AuthMethod, ClientLogin
from dualpool.authentication import ident
from dualpool.authentication.failures import FailedLogins
from dualpool.authentication.hba import Asked, Rule, decide
from dualpool.authentication.lookups import Lookups
from dualpool.authentication.peers import Peer, certificate_of, common_name, peer_of, system_user
from dualpool.checkout import checkout
from dualpool.config import LANES, POOL_MODES, Backend, Config, Database, Listener, User
from dualpool.errors import DualpoolError, LoginFailed, PoolError
from dualpool.exchange import Stream
from dualpool.link import ServerConnection
from dualpool.protocol import APPLICATION, MAINTENANCE, SESSION, FindAccount

if TYPE_CHECKING:
    from dualpool.server import Server

CONSOLE_DATABASES: Final = frozenset({"dualpool", "pgbouncer"})
"""What clients connect to in order to reach the admin console, unless the configuration has a database of that name."""
CONSOLE_USER: Final = "pgbouncer"
"""On a Unix socket, whoever runs as the same user of the system as dualpool may be this one on the console, as in PgBouncer."""
REFUSED: Final = "28000"
WRONG_PASSWORD_ERRNO: Final = 1045
MAX_PROVEN: Final = 10_000
PASSWORD_METHODS: Final = frozenset({"auto", "password", "md5", "scram-sha-256"})
POSTGRES_ONLY: Final = frozenset({"md5", "scram-sha-256"})


class Visit:
    """A connection that wants to come in. `peer` is the client, also behind a load balancer; `account` is set once it has been named."""

    __slots__ = ("account", "peer", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.peer: Peer = peer_of(stream.sock)
        self.account: Account | None = None

    @property
    def is_local(self) -> bool:
        """On a Unix socket."""
        return self.stream.sock.family == socket.AF_UNIX

    @property
    def tls(self) -> bool:
        """Encrypted."""
        return self.stream.is_tls()

    def may_send_password(self) -> bool:
        """Can nobody on the way read it?"""
        return self.tls or self.peer.is_near


@attrs.frozen
class Course:
    """How somebody is to prove who it is: the method, and the name that its certificate must have, if not its own."""

    method: AuthMethod
    certificate_name: str = ""


class Gate:
    """One for a server. What it remembers (failures, answers) outlives a reload."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.failures = FailedLogins(server.config.auth.failed_login_delay)
        self.lookups = Lookups(server)
        self._key = secrets.token_bytes(32)
        self._proven: OrderedDict[bytes, float] = OrderedDict()

    async def account(self, listener: Listener, visit: Visit, asked: FindAccount) -> Account:
        """What a client must prove, and what it gets. Raises LoginFailed where a rule turns it away, ConnectFailed."""
        config = self._server.config
        self.failures.longest = config.auth.failed_login_delay
        await trio.sleep(self.failures.delay(visit.peer.address, monotonic()))
        course = Course("trust") if is_own_console(config, listener, visit, asked) else self._course(config, listener, visit, asked)
        visit.account = await self._account(config, listener, visit, asked, course)
        return visit.account

    def succeeded(self, visit: Visit) -> None:
        """It is in."""
        self.failures.succeeded(visit.peer.address)

    def failed(self, visit: Visit, error: DualpoolError) -> None:
        """It is not, because of `error`."""
        if isinstance(error, LoginFailed) and error.sqlstate.startswith("28"):
            self.failures.failed(visit.peer.address, monotonic())
            if visit.account is not None:
                self.lookups.doubt(visit.account.user)

    # ------------------------------------------------------------------------------------------------------------- methods

    def _course(self, config: Config, listener: Listener, visit: Visit, asked: FindAccount) -> Course:
        if listener.auth != "hba":
            return Course(listener.auth)
        rule = self._rule(config, listener, visit, asked)
        if rule.method == "peer":
            return self._peer_course(config, rule, visit, asked.user)
        if rule.method == "cert":
            name = common_name(certificate_of(visit.stream.sock))
            allowed = bool(rule.map) and ident.allows(config.ident, rule.map, name, asked.user)
            if rule.map and not allowed:
                raise LoginFailed(f'certificate authentication failed for user "{asked.user}"', sqlstate=REFUSED)
            return Course("cert", name if rule.map else "")
        assert rule.method != "reject"
        if rule.method in POSTGRES_ONLY and listener.protocol == "mysql":
            return Course("auto")
        return Course(rule.method)

    def _rule(self, config: Config, listener: Listener, visit: Visit, asked: FindAccount) -> Rule:
        # A MySQL client chooses the names of its attributes freely, and has no replication that could go through here.
        replication = asked.parameters.get("replication", "database") if listener.protocol == "postgres" else "database"
        address = None if visit.is_local else visit.peer.address
        about = Asked(asked.user, asked.database, address, visit.tls, replication != "database")
        rule = decide(config.hba, about)
        if rule is None or rule.method == "reject":
            place = f'host "{visit.peer.address}"' if address is not None else "the Unix socket"
            encryption = "TLS" if visit.tls else "no encryption"
            reason = "rejects the connection" if rule is not None else "has no entry"
            raise LoginFailed(
                f'auth.hba {reason} for {place}, user "{asked.user}", database "{asked.database}", {encryption}', sqlstate=REFUSED
            )
        return rule

    def _peer_course(self, config: Config, rule: Rule, visit: Visit, user: str) -> Course:
        _, name = system_user(visit.stream.sock)
        if not name or not ident.allows(config.ident, rule.map, name, user):
            raise LoginFailed(f'peer authentication failed for user "{user}"', sqlstate=REFUSED)
        return Course("trust")

    # ------------------------------------------------------------------------------------------------------------ accounts

    async def _account(self, config: Config, listener: Listener, visit: Visit, asked: FindAccount, course: Course) -> Account:
        user, name = asked.user, asked.database
        database = config.find_database(listener.protocol, name)
        if is_console(config, listener, name):
            return await self._console_account(config, listener, visit, asked, course)
        if database is None:
            return Account(user, name, method=course.method, decoy=True)
        backend = config.backends[database.backend]
        known = await self._known(config, backend, database, user)
        if known is not None:
            return account_of(config, listener, known, name, database, course)
        if course.method in PASSWORD_METHODS and passes_through(config, backend, database) and visit.may_send_password():
            account = account_of(config, listener, User(user), name, database, Course("password"))
            return attrs.evolve(account, passthrough=True)
        if course.method == "trust" and not config.users and not backend.auth_user:
            return account_of(config, listener, User(user), name, database, course)
        return Account(user, name, method=course.method, decoy=True)

    async def _console_account(self, config: Config, listener: Listener, visit: Visit, asked: FindAccount, course: Course) -> Account:
        """One for the admin console. Whoever has no business there is told so, but only once it has proven who it is."""
        user, own = asked.user, is_own_console(config, listener, visit, asked)
        known = config.users.get(user)
        if known is None or not known.password:
            known = await self._known_anywhere(config, listener.protocol, user) or known
        if known is None and not own and not (course.method == "trust" and not config.users):
            return Account(user, asked.database, method=course.method, decoy=True)
        return Account(
            user,
            asked.database,
            secrets=known.password if known is not None else (),
            method=course.method,
            admin=own or user in config.admin.users,
            monitor=user in config.admin.stats_users,
            console=True,
            certificate_name=course.certificate_name,
        )

    async def _known_anywhere(self, config: Config, protocol: str, user: str) -> User | None:
        """An administrator whom only a server knows: one that says in which database to ask."""
        if user not in config.admin.users + config.admin.stats_users:
            return None
        for backend in config.backends.values():
            database = config.find_database(protocol, backend.auth_database) if backend.auth_database else None
            if backend.protocol == protocol and database is not None:
                return await self._known(config, backend, database, user)
        return None

    async def _known(self, config: Config, backend: Backend, database: Database, user: str) -> User | None:
        """The user in the file; where it has no password there, or is not there, what the server says."""
        known = config.users.get(user)
        if not backend.auth_user or (known is not None and known.password):
            return known
        found = await self.lookups.find(backend, database, user)
        if found is None:
            return known
        return attrs.evolve(known or User(user), password=found)

    # -------------------------------------------------------------------------------------------------------- pass-through

    async def prove(self, protocol: str, login: ClientLogin) -> None:
        """See that the server takes the password of a client that passes it through. Raises LoginFailed if it does not."""
        learnt = login.learnt
        assert learnt is not None
        now = monotonic()
        words = "\0".join((protocol, login.account.database, login.account.user, learnt.password))
        digest = hmac.digest(self._key, words.encode("utf-8", "surrogatepass"), hashlib.sha256)
        if now - self._proven.get(digest, -1e9) <= self._server.config.auth.query_ttl:
            return
        entry = self._server.backends.trial_entry(protocol, login)
        try:
            conn = await checkout(entry.pool, MAINTENANCE)
            assert isinstance(conn, ServerConnection)
            entry.pool.give_back(conn)
        except PoolError as error:
            if error.sqlstate.startswith("28") or error.errno == WRONG_PASSWORD_ERRNO:
                raise LoginFailed(f'password authentication failed for user "{login.account.user}"') from error
            raise
        finally:
            entry.pool.close()
        self._proven[digest] = now
        if len(self._proven) > MAX_PROVEN:
            self._proven.popitem(last=False)


def is_console(config: Config, listener: Listener, name: str) -> bool:
    """Do clients of a listener mean the admin console by `name`?"""
    if name not in CONSOLE_DATABASES:
        return False
    database = config.find_database(listener.protocol, name)
    return database is None or all(
        other.name != name for other in config.databases.values() if config.backends[other.backend].protocol == listener.protocol
    )


def is_own_console(config: Config, listener: Listener, visit: Visit, asked: FindAccount) -> bool:
    """The console, asked for by whoever dualpool runs as."""
    if asked.user != CONSOLE_USER or not visit.is_local or not is_console(config, listener, asked.database):
        return False
    return system_user(visit.stream.sock)[0] == os.geteuid()


def passes_through(config: Config, backend: Backend, database: Database) -> bool:
    """May unknown users try their passwords at the server? Only where they log in there as themselves."""
    return config.auth.passthrough and not backend.user and not database.user


def account_of(config: Config, listener: Listener, user: User, name: str, database: Database, course: Course) -> Account:
    """What a known user must prove in a database that it calls `name`, and what it gets."""
    lane = MAINTENANCE if user.maintenance else LANES[listener.lane]
    return Account(
        user.name,
        name,
        secrets=user.password,
        method=course.method,
        # Maintenance works are sessions: migrations hold locks and settings across transactions.
        mode=SESSION if lane != APPLICATION else POOL_MODES[user.pool_mode or database.pool_mode or listener.pool_mode],
        lane=lane,
        admin=user.name in config.admin.users,
        configured=user.name in config.users,
        certificate_name=course.certificate_name,
    )
