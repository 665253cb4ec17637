"""The backends at run time: their budgets and pools, and which pool serves which client."""

import re
import ssl
from typing import TypeVar, cast

import attrs

from dualpool.accounts import ClientLogin, LearntSecret, ServerTarget
from dualpool.budget import Budget, Quota
from dualpool.config import Backend, Config, Database, Pins
from dualpool.counters import Counters, Watch, WatchedCounters
from dualpool.engines import ENGINES
from dualpool.hosts import Host, Hosts
from dualpool.link import Client, ServerConnection
from dualpool.pool import Pool, PoolIO
from dualpool.pool_settings import PoolSettings
from dualpool.protocol import (
    LISTEN_ERROR,
    LISTEN_PIN,
    LISTEN_SHARED,
    PIN_ALLOW,
    PIN_ERROR,
    PIN_WARN,
    SEQUENCE_ERROR,
    SEQUENCE_PIN,
    VERIFY_ALWAYS,
    VERIFY_LEARN,
    VERIFY_NEVER,
    Engine,
    RelayLimits,
)
from dualpool.questions import SharedQuestion
from dualpool.reactor import Clock
from dualpool.state import Settings
from dualpool.tls import backend_context

DatabaseKey = tuple[str, str]
"""The protocol of a database's clients, and the name that they call it by."""
V = TypeVar("V")
MD5 = re.compile(r"md5[0-9a-f]{32}")
HASHED = re.compile(r"md5[0-9a-f]{32}\Z|SCRAM-SHA-256\$|\*[0-9A-Fa-f]{40}\Z|\$[AB]\$|0x24[0-9A-Fa-f]+\Z")
"""The stored forms of a password, of both engines."""
LOOKUP_CONNECTIONS = 2
"""For the auth_query of one backend in one database."""
LOOKUP_IDLE = 60.0
"""Seconds without a login after which they are closed."""
PIN_POLICIES = {"allow": PIN_ALLOW, "warn": PIN_WARN, "error": PIN_ERROR}
LISTEN_POLICIES = {"shared": LISTEN_SHARED, "pin": LISTEN_PIN, "error": LISTEN_ERROR}
VERIFY = {"always": VERIFY_ALWAYS, "learn": VERIFY_LEARN, "never": VERIFY_NEVER}
SEQUENCE_VALUES = {"error": SEQUENCE_ERROR, "pin": SEQUENCE_PIN}

MAX_WELCOMES = 1000
"""Sets of start-up settings whose answer is remembered, per pool."""
REREAD_PAUSE = 0.002
"""Seconds: before they log in, clients must not cause more questions to a server than these."""
MAX_GREETINGS = 5
"""How often a server's greeting is read without a login, between two logins. (MySQL blocks a host after `max_connect_errors`, 100.)"""


@attrs.frozen
class RelayPolicy:
    """What a database's configuration says to its clients' relays: RelayLimits without the sizes that all have in common."""

    mode: int
    pins: Pins = attrs.field(factory=lambda: Pins("allow"))
    listen: int = LISTEN_SHARED
    verify: int = VERIFY_LEARN
    verify_every: int = 0
    sequence_values: int = SEQUENCE_ERROR
    strict: bool = False


class BackendState:
    """One backend: its configuration, its TLS, and the budget that its pools share."""

    def __init__(self, config: Backend) -> None:
        self.config = config
        self.engine: Engine = ENGINES[config.protocol]
        self.tls = backend_context(config, self.engine.alpn)
        limit = config.budget_number
        self.asks_capacity = limit is None
        # Until the server has said what it allows, one connection goes ahead and asks.
        self.budget = Budget(config.name, 1 if limit is None else limit, config.reserved_maintenance)
        self.host_index = 0
        """Of the host that answered last."""
        self.capacity_known = False
        self.hosts = Hosts(config.hosts, config.load_balance)
        self._quotas: dict[str, Quota] = {}
        self.identity = identity_of(config)
        self.version: str | None = None
        """What clients are told of the server's version in their greeting; None: it has not been asked."""
        self.status = self.engine.greeting_status({})
        """What they are told there of their session."""
        self.defaults: dict[str, str] | None = None
        """What the server gives a new session (`Engine.prove`), where that is asked again."""
        self.question = SharedQuestion(REREAD_PAUSE)
        """For that."""
        self.greeting = SharedQuestion(REREAD_PAUSE)
        """For what the server's greeting says, while there is no server connection on which to ask."""
        self.greetings_left = MAX_GREETINGS

    def reconfigure(self, config: Backend, tls: ssl.SSLContext | None) -> None:
        """Another configuration of the same protocol."""
        if (config.budget, config.reserved_maintenance) != (self.config.budget, self.config.reserved_maintenance):
            limit = config.budget_number
            self.asks_capacity = limit is None
            self.budget.set_limit(self.budget.limit if limit is None else limit, config.reserved_maintenance)
        if (config.hosts, config.load_balance) != (self.config.hosts, self.config.load_balance):
            self.hosts, self.host_index = Hosts(config.hosts, config.load_balance), 0
        self.config, self.tls, self.identity = config, tls, identity_of(config)

    def reject(self, host: Host, now: float) -> None:
        """`host` has turned out to be not what is looked for any more: nobody else is served by a connection that is there already."""
        self.hosts.failed(host, now)
        for pool in self.budget.pools:
            pool.reconnect()

    def quota(self, setting: str, limit: int) -> tuple[Quota, ...]:
        """The bound that a `max_connections` means, one for all its pools; none for 0."""
        if not limit:
            return ()
        quota = self._quotas.setdefault(setting, Quota(setting, limit))
        quota.limit = limit
        return (quota,)


def identity_of(config: Backend) -> Backend:
    """What must be equal for two connections to be interchangeable: everything but how many there may be and how they are checked."""
    return attrs.evolve(config, budget="auto", reserved_maintenance=0, check_query="", load_balance="in-order", idle_after=0.0)


class PoolEntry:
    """A pool with everything that makes its connections: where to, as whom, and what clients are told at login."""

    def __init__(self, backend: BackendState, database: Database, target: ServerTarget, pool: Pool) -> None:
        self.backend = backend
        self.database = database
        self.target = target
        self.pool = pool
        self.welcomes: dict[Settings, dict[str, str]] = {}
        self.database_key: DatabaseKey = (backend.config.protocol, database.name)
        self.identity = backend.identity
        self.login: ClientLogin | None = None
        """That of the client for whom the pool was made."""
        self.purpose = ""
        """What it is for, if its connections do not serve clients one by one; or which clients they serve (`Engine.kind_of_session`)."""
        self.question = SharedQuestion()
        """By what defaults sessions begin now."""
        self._defaults: dict[Host, str] = {}
        """By what defaults sessions began when each server was asked last. (A standby may learn of new ones later.)"""
        self._told: dict[str, str] = {}

    @property
    def engine(self) -> Engine:
        """The engine of the backend."""
        return self.backend.engine

    @property
    def shown_user(self) -> str:
        """The server's user, so that no two pools of a database look the same."""
        return f"{self.target.user} ({self.purpose})" if self.purpose else self.target.user

    def remember_welcome(self, wanted: Settings, parameters: dict[str, str]) -> None:
        """Clients with the start-up settings `wanted` are told `parameters`."""
        if len(self.welcomes) >= MAX_WELCOMES:
            self.welcomes.clear()
        self.welcomes[wanted] = parameters

    def see_defaults(self, defaults: str, target: ServerTarget) -> bool:
        """By these (`Engine.defaults`) sessions begin there now. If they are new, all connections are replaced; then True."""
        place = (target.host, target.port)
        if not defaults or defaults == self._defaults.get(place):
            return False
        is_first = place not in self._defaults
        self._defaults[place] = defaults
        if is_first:
            return False
        self.welcomes.clear()
        self.pool.reconnect()
        return True

    def see_told(self, told: dict[str, str]) -> bool:
        """These are the defaults of which clients are told. If they are others than before, so are welcomes; then True."""
        if told == self._told:
            return False
        self._told = told
        self.welcomes.clear()
        return True

    def forget_defaults(self) -> None:
        """The server gives new sessions something else: those that are there are out of date."""
        self.welcomes.clear()
        self.pool.reconnect()

    def learn(self, user: str, learnt: LearntSecret | None) -> None:
        """The client `user` has logged in; if that is the server's user too, what its login revealed serves there from now on."""
        if learnt is not None and user == self.target.user and not self.target.password and learnt != self.target.learnt:
            self.target = attrs.evolve(self.target, learnt=learnt)


class Halts:
    """What an operator has stopped, until RESUME and ENABLE."""

    def __init__(self) -> None:
        self.everything = False
        self.suspended = False
        self.databases: set[DatabaseKey] = set()
        self.disabled: set[DatabaseKey] = set()

    def is_paused(self, key: DatabaseKey) -> bool:
        """May no client of this database get a server connection?"""
        return self.everything or self.suspended or key in self.databases


class Backends:
    """All backends and pools of one configuration. A pool is made when its first client comes."""

    def __init__(self, config: Config, clock: Clock, io: PoolIO) -> None:
        self.config = config
        self.clock = clock
        self._io = io
        self.states = {name: BackendState(backend) for name, backend in config.backends.items()}
        self._entries: dict[tuple[str, str, str, str], PoolEntry] = {}
        self._by_pool: dict[Pool, PoolEntry] = {}
        self._lookups: dict[tuple[str, str], PoolEntry] = {}
        self._outdated: list[Pool] = []
        self.halts = Halts()
        self.watch: Watch | None = None
        """Who wants to know of slow queries. The pools that are made from now on tell it."""
        self.retired: dict[DatabaseKey, Counters] = {}
        """What pools had counted that exist no more."""
        self._limits: dict[RelayPolicy, RelayLimits] = {}
        """Every relay of a kind shares one."""
        self.relay_limits = [self._limits_of(RelayPolicy(mode)) for mode in range(3)]
        """By pool mode: for relays that are no client's of a database."""

    def limits_of(self, mode: int, database: Database) -> RelayLimits:
        """What the relay of a client of `database` keeps to."""
        policy = RelayPolicy(
            mode,
            pins=database.pin if isinstance(database.pin, Pins) else Pins(database.pin),
            listen=LISTEN_POLICIES[database.listen],
            verify=VERIFY[database.verify],
            verify_every=database.verify_every,
            sequence_values=SEQUENCE_VALUES[database.sequence_values],
            strict=self.config.strict or database.strict,
        )
        return self._limits_of(policy)

    def _limits_of(self, policy: RelayPolicy) -> RelayLimits:
        found = self._limits.get(policy)
        if found is None:
            pins = policy.pins
            policies = {reason: PIN_POLICIES[name] for reason, name in pins.by_reason().items()}
            found = RelayLimits(policy.mode, pin_policy=PIN_POLICIES[pins.default], pin_policies=policies, listen=policy.listen)
            found.verify, found.verify_every, found.sequence_values = policy.verify, policy.verify_every, policy.sequence_values
            found.strict = policy.strict
            self._limits[policy] = found
            self._take_limits()
        return found

    def _take_limits(self) -> None:
        limits = self.config.limits
        for shared in self._limits.values():
            shared.frame_bytes = limits.frame_bytes
            shared.statement_bytes = limits.statement_bytes
            shared.statements_per_client = limits.statements_per_client
            shared.statements_per_server = limits.statements_per_server

    def entry(self, protocol: str, login: ClientLogin) -> PoolEntry:
        """The pool of a client that has logged in, so its database exists."""
        database = self.config.find_database(protocol, login.account.database)
        assert database is not None
        backend = self.states[database.backend]
        user, password = self._server_user(backend.config, database, login)
        # Two names of one database are two pools: each has its own size, and PAUSE means one of them.
        kind = backend.engine.kind_of_session(login)
        key = (database.backend, database.name, user, kind[0])
        found = self._entries.get(key)
        if found is None:
            target = self._client_target(backend.config, database, user, password, login)
            found = self._make(backend, database, target, self._settings(backend.config, database, user))
            found.login = login
            found.purpose = kind[0]
            self._entries[key] = found
        found.learn(login.account.user, login.learnt)
        return found

    def replication_entry(self, entry: PoolEntry, login: ClientLogin) -> PoolEntry:
        """A pool of one connection that starts with the client's own parameters, for one replication client. To be dropped after it."""
        target = attrs.evolve(entry.target, parameters=entry.target.parameters | login.parameters)
        settings = PoolSettings(size=1, query_wait=self.config.timeouts.query_wait)
        return self._make(entry.backend, entry.database, target, settings)

    def listening_entry(self, entry: PoolEntry) -> PoolEntry:
        """A pool of one connection, which listens for the clients of `entry`. To be closed after it."""
        made = self._make(
            entry.backend, entry.database, entry.target, PoolSettings(size=1, login_retry=self.config.timeouts.server_login_retry)
        )
        made.purpose = "listen"
        return made

    def lookup_entry(self, backend: Backend, database: Database) -> PoolEntry:
        """The pool in which a backend's auth_query runs, in `database`, which may be on another backend. It never serves a client."""
        state = self.states[database.backend]
        password = backend.auth_password or (backend.password if backend.user == backend.auth_user else "")
        target = self._target(state.config, database, backend.auth_user, password)
        key = (backend.name, database.name)
        found = self._lookups.get(key)
        if found is not None and found.target == target and not found.pool.is_closed:
            return found
        if found is not None:
            found.pool.close()
        settings = PoolSettings(size=LOOKUP_CONNECTIONS, query_wait=self.config.timeouts.query_wait, idle_timeout=LOOKUP_IDLE)
        made = self._lookups[key] = self._make(state, database, target, settings)
        return made

    def trial_entry(self, protocol: str, login: ClientLogin) -> PoolEntry:
        """A pool of one connection, which shows whether the server takes the client's password. To be closed after it."""
        database = self.config.find_database(protocol, login.account.database)
        assert database is not None
        state = self.states[database.backend]
        target = self._target(state.config, database, login.account.user, "")
        settings = PoolSettings(size=1, query_wait=self.config.timeouts.query_wait)
        return self._make(state, database, attrs.evolve(target, learnt=login.learnt), settings)

    def learn_defaults(self, backend: BackendState, found: dict[str, str]) -> None:
        """What `backend` gives a new session now, in an engine that asks again and again: another one than before?"""
        before, backend.defaults = backend.defaults, found
        backend.status = backend.engine.greeting_status(found)
        if before is not None and before != found:
            for entry in self.entries():
                if entry.backend is backend:
                    entry.forget_defaults()

    def forget_closed(self) -> None:
        """Drop the pools that are closed and empty. Their counts stay."""
        self._close_outdated()
        for pool in [pool for pool in self._by_pool if pool.is_gone() and not pool.clients]:
            self.gather(pool)
            entry = self._by_pool.pop(pool)
            self.retired.setdefault(entry.database_key, Counters()).add(pool.counters)
            pool.leave_budget()

    def reconfigure(self, config: Config, contexts: dict[str, ssl.SSLContext | None]) -> None:
        """Another configuration; `contexts`: TLS towards its backends. `rearrange` must follow."""
        self.config = config
        self._take_limits()
        for name in self.states.keys() - config.backends.keys():
            del self.states[name]
        for name, backend in config.backends.items():
            state = self.states.get(name)
            if state is None or state.config.protocol != backend.protocol:
                self.states[name] = BackendState(backend)
            else:
                state.reconfigure(backend, contexts[name])

    def rearrange(self, clients: list[Client]) -> None:
        """Bring the pools in line with the configuration, and each of `clients` to the pool that is now its own."""
        outdated = [key for key, entry in self._entries.items() if not self._refresh(entry)]
        closing = [self._entries.pop(key) for key in outdated]
        for client in clients:
            if client.login is not None and not client.login.replication:
                pool = self.entry(client.engine.name, client.login).pool
                if pool is not client.pool:
                    client.move_to(pool)
        self._outdated += [entry.pool for entry in closing]
        self._close_outdated()

    def _close_outdated(self) -> None:
        """Close the pools that a reload has left behind, when their last client has gone."""
        for pool in self._outdated:
            if not pool.clients:
                pool.close()
        self._outdated = [pool for pool in self._outdated if not pool.is_closed]

    def _refresh(self, entry: PoolEntry) -> bool:
        """Give a pool what the configuration says now. False if the pool must go: its database is elsewhere, or its user another one."""
        database = self.config.find_database(*entry.database_key)
        state = self.states.get(database.backend) if database is not None else None
        if database is None or state is not entry.backend or entry.login is None:
            return False
        user, password = self._server_user(state.config, database, entry.login)
        if user != entry.target.user:
            return False
        target = self._client_target(state.config, database, user, password, entry.login)
        if user == entry.login.account.user:
            # Its clients' logins have told its password, and later ones tell a new one.
            target = attrs.evolve(target, learnt=entry.target.learnt)
        entry.database = database
        entry.pool.configure(self._settings(state.config, database, user))
        state.budget.bind(entry.pool, self._quotas_of(state, database, user))
        if target != entry.target or state.identity != entry.identity:
            entry.target, entry.identity = target, state.identity
            entry.welcomes.clear()
            entry.pool.reconnect()
        return True

    def resume(self) -> None:
        """Let the pools that nothing halts any more go on."""
        for entry in self.entries():
            if entry.pool.is_paused and not self.halts.is_paused(entry.database_key):
                entry.pool.resume()

    def gather(self, pool: Pool) -> None:
        """Bring the counters of a pool up to date."""
        counters = pool.counters
        counters.gather(pool.checkouts, pool.total_wait)
        for conn in pool.connections:
            counters.gather_server(cast(ServerConnection, conn).relay)

    def entry_of(self, pool: Pool) -> PoolEntry:
        """The entry that a pool belongs to."""
        return self._by_pool[pool]

    def entries(self) -> list[PoolEntry]:
        """All pools that exist now, with what makes them."""
        return list(self._by_pool.values())

    def pools(self) -> list[Pool]:
        """All pools that exist now."""
        return list(self._by_pool)

    def _make(self, backend: BackendState, database: Database, target: ServerTarget, settings: PoolSettings) -> PoolEntry:
        quotas = self._quotas_of(backend, database, target.user)
        pool = Pool(f"{database.name}/{target.user}", settings, backend.budget, self._io, self.clock, quotas=quotas)
        if self.watch is not None:
            pool.counters = WatchedCounters(self.watch)
        entry = PoolEntry(backend, database, target, pool)
        if self.halts.is_paused(entry.database_key):
            pool.pause()
        self._by_pool[pool] = entry
        return entry

    def _target(self, backend: Backend, database: Database, user: str, password: str) -> ServerTarget:
        host, port = backend.hosts[0]
        direct = backend.sslnegotiation == "direct"
        stored = self._stored(user) if not password else None
        return ServerTarget(host, port, user, database.database, password, stored, backend.sslmode, direct, dict(backend.parameters))

    def _client_target(self, backend: Backend, database: Database, user: str, password: str, login: ClientLogin) -> ServerTarget:
        """The same for clients such as `login`: with what only a login at the server can give them."""
        target = self._target(backend, database, user, password)
        _, own = ENGINES[backend.protocol].kind_of_session(login)
        return attrs.evolve(target, parameters=target.parameters | own) if own else target

    def _stored(self, user: str) -> LearntSecret | None:
        """What [users] and the userlist say of a server's user that has no password elsewhere."""
        known = self.config.users.get(user)
        return stored_secret(known.password) if known is not None else None

    def _server_user(self, backend: Backend, database: Database, login: ClientLogin) -> tuple[str, str]:
        """Who logs in at the server. A client's own user has its password from `learn`, so that it can change."""
        if database.user:
            return database.user, database.password
        if backend.user:
            return backend.user, backend.password
        return login.account.user, ""

    def _quotas_of(self, backend: BackendState, database: Database, user: str) -> tuple[Quota, ...]:
        """`user`: who logs in at the server."""
        known = self.config.users.get(user)
        quotas = backend.quota(f"databases.{database.name}.max_connections", database.max_connections)
        if known is not None:
            quotas += backend.quota(f"users.{user}.max_connections", known.max_connections)
        return quotas

    def _settings(self, backend: Backend, database: Database, user: str) -> PoolSettings:
        """`user`: who logs in at the server."""
        timeouts = self.config.timeouts
        known = self.config.users.get(user)
        own_wait = database.query_wait is not None
        size = first_set(known.pool_size if known is not None else None, database.pool_size)
        strict = self.config.strict or database.strict
        return PoolSettings(
            size=size,
            min_size=max(database.min_pool_size, min(2, size)) if strict else database.min_pool_size,
            rotates=strict,
            reserve_size=first_set(known.reserve_pool_size if known is not None else None, database.reserve_pool_size),
            reserve_after=timeouts.reserve_pool,
            query_wait=first_set(database.query_wait, timeouts.query_wait),
            query_wait_name=f"databases.{database.name}.query_wait" if own_wait else "timeouts.query_wait",
            query_wait_notify=timeouts.query_wait_notify,
            idle_timeout=timeouts.server_idle,
            idle_after=first_set(database.idle_after, backend.idle_after),
            lifetime=first_set(database.server_lifetime, timeouts.server_lifetime),
            lifetime_jitter=timeouts.server_lifetime_jitter,
            login_retry=timeouts.server_login_retry,
            check_delay=timeouts.server_check_delay,
            max_waiting=self.config.limits.max_waiting_clients,
        )


def first_set(first: V | None, second: V) -> V:
    """`first`, unless it was not given; a 0 was."""
    return second if first is None else first


def stored_secret(secrets: tuple[str, ...]) -> LearntSecret | None:
    """What of a user's stored secrets can log in at a server: a plain password, or PostgreSQL's md5 hash."""
    for secret in secrets:
        if secret and not HASHED.match(secret):
            return LearntSecret(password=secret)
    return next((LearntSecret(stage1=secret.encode()) for secret in secrets if MD5.fullmatch(secret)), None)
