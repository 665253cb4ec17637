"""What a client gets besides its pool: a place among the clients, a lane, the times that hold for it, the caps that it counts against."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import attrs

from dualpool.accounts import Account, ClientLogin
from dualpool.config import LANES, POOL_MODES, Config, Listener
from dualpool.deadlines import times_of
from dualpool.errors import LoginFailed, TooManyClients
from dualpool.lease import Party
from dualpool.migrations import TOOLS
from dualpool.protocol import MAINTENANCE, SESSION

if TYPE_CHECKING:
    from dualpool.link import Client
    from dualpool.pool import Pool

OWN_PARAMETERS: Final = "dualpool."
"""Start-up parameters and connection attributes with this prefix are for us; no server sees them."""
LANE: Final = "dualpool.lane"
APPLICATION_NAMES: Final = ("application_name", "program_name")
"""What PostgreSQL and what MySQL clients call themselves by."""


def assigned(config: Config, listener: Listener, login: ClientLogin) -> ClientLogin:
    """`login` in the lane that it asks for, without the parameters that say so. Raises LoginFailed."""
    own = {name: value for name, value in login.parameters.items() if name.startswith(OWN_PARAMETERS)}
    if not own:
        return in_maintenance(login) if is_tool(config, login.account, login.parameters) else login
    for name in own.keys() - {LANE}:
        raise LoginFailed(f'unrecognized parameter "{name}"', hint=f"dualpool knows {LANE}.", sqlstate="42704", errno=1193)
    account, lane = login.account, LANES.get(own[LANE])
    if lane is None:
        raise LoginFailed(
            f'invalid value for parameter "{LANE}": "{own[LANE]}"', hint=f"Allowed: {', '.join(LANES)}.", sqlstate="22023", errno=1231
        )
    user = config.users.get(account.user)
    if lane == MAINTENANCE != account.lane and not (user is not None and user.maintenance_on_request):
        raise LoginFailed(
            f'user "{account.user}" may not use the maintenance lane',
            hint=f"Set users.{account.user}.maintenance_on_request = true.",
            sqlstate="42501",
            errno=1227,
        )
    login = attrs.evolve(login, parameters={name: value for name, value in login.parameters.items() if name not in own})
    if lane == account.lane:
        return login
    if lane == MAINTENANCE:
        return in_maintenance(login)
    return attrs.evolve(login, account=attrs.evolve(account, lane=lane, mode=mode_of(config, listener, login)))


def in_maintenance(login: ClientLogin) -> ClientLogin:
    """The same client in the maintenance lane, so in session mode."""
    return attrs.evolve(login, account=attrs.evolve(login.account, lane=MAINTENANCE, mode=SESSION))


def is_tool(config: Config, account: Account, parameters: dict[str, str]) -> bool:
    """Does a client say that it is one of the tools that are for the maintenance lane?"""
    user = config.users.get(account.user)
    return user is not None and user.migration_tools and any(parameters.get(name) in TOOLS for name in APPLICATION_NAMES)


def may_ask_for_maintenance(config: Config, account: Account, parameters: dict[str, str]) -> bool:
    """Will a client that has not proven itself yet be in the maintenance lane?"""
    if LANE not in parameters and is_tool(config, account, parameters):
        return True
    user = config.users.get(account.user)
    asked = LANES.get(parameters.get(LANE, ""), account.lane)
    return asked == MAINTENANCE and (account.lane == MAINTENANCE or (user is not None and user.maintenance_on_request))


def application_name(parameters: dict[str, str]) -> str:
    """What a client calls itself; "" if it does not."""
    return next((parameters[name] for name in APPLICATION_NAMES if parameters.get(name)), "")


def mode_of(config: Config, listener: Listener, login: ClientLogin) -> int:
    """The pool mode of an application client."""
    user = config.users.get(login.account.user)
    database = config.find_database(listener.protocol, login.account.database)
    mode = (user.pool_mode if user is not None else None) or (database.pool_mode if database is not None else None)
    return POOL_MODES[mode or listener.pool_mode]


class Guests:
    """How many clients there are: in all, of each user, in each database. Those whose login is still going on are counted once proven."""

    def __init__(self) -> None:
        self.total = 0
        self._users: Counter[str] = Counter()
        self._databases: Counter[tuple[str, str]] = Counter()

    def check(self, config: Config, protocol: str, user: str, database: str) -> None:
        """Raises TooManyClients if one more is one too many. The maintenance lane is not asked."""
        limits = [("limits.max_client_connections", config.limits.max_client_connections, self.total)]
        known = config.users.get(user)
        if known is not None:
            limits.append((f"users.{user}.max_client_connections", known.max_client_connections, self._users[user]))
        found = config.find_database(protocol, database)
        if found is not None:
            count = self._databases[protocol, database]
            limits.append((f"databases.{found.name}.max_client_connections", found.max_client_connections, count))
        for name, limit, count in limits:
            if 0 < limit <= count:
                raise TooManyClients(f"too many clients: {name} is {limit}", hint="Close idle clients, or raise the limit.")

    @contextmanager
    def counted(self, config: Config, protocol: str, login: ClientLogin) -> Iterator[None]:
        """Count a client that has proven who it is. Raises TooManyClients."""
        account = login.account
        if account.lane != MAINTENANCE:
            self.check(config, protocol, account.user, account.database)
        key = (protocol, account.database)
        self.total += 1
        self._users[account.user] += 1
        self._databases[key] += 1
        try:
            yield
        finally:
            self.total -= 1
            # Names come from clients, so those that nobody has any more are forgotten.
            for counts, name in ((self._users, account.user), (self._databases, key)):
                counts[name] -= 1  # type: ignore[index]
                if not counts[name]:  # type: ignore[index]
                    del counts[name]


class Parties:
    """The parties of all pools. One lives as long as a client of its."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[Pool, str, str], Party] = WeakValueDictionary()

    def of(self, pool: "Pool", config: Config, login: ClientLogin, address: str) -> tuple[Party, ...]:
        """Those that a client of `pool` belongs to; none if nothing is capped. The maintenance lane never is."""
        if login.account.lane == MAINTENANCE:
            return ()
        limits = config.limits
        application = application_name(login.parameters)
        found = [
            ("user", login.account.user, "clients_per_user", limits.clients_per_user),
            ("address", address, "clients_per_address", limits.clients_per_address),
            ("application", application, "clients_per_application", limits.clients_per_application),
        ]
        return tuple(self._party(pool, kind, who, setting, cap) for kind, who, setting, cap in found if cap and who)

    def _party(self, pool: "Pool", kind: str, who: str, setting: str, cap: int) -> Party:
        party = self._known.get((pool, kind, who))
        if party is None:
            party = self._known[pool, kind, who] = pool.party("", cap)
        party.name, party.cap = f'{kind} "{who}" (limits.{setting} is {cap})', cap
        return party


def settle(client: "Client", parties: Parties, config: Config, login: ClientLogin) -> None:
    """Give a client its times and its parties: a new one, or where something has changed for it."""
    client.parties = parties.of(client.pool, config, login, client.address)
    database = config.find_database(client.engine.name, login.account.database)
    user = config.users.get(login.account.user)
    client.may_migrate = client.lane != MAINTENANCE and user is not None and user.migration_tools
    client.times = times_of(config, database, login.account.user)
    wait = client.times.query_wait
    client.query_wait = wait.seconds
    client.wait_limit = str(wait)
