"""The world of pools: clients that come, wait, vanish and misbehave; a clock that only sweeps move; and hosts that refuse, hang, are full,
die, and come back as something else.

The world keeps its own books (who holds what, which sockets exist), so that it does not believe the pool's. One seed is one schedule.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from dualpool.backends import BackendState
from dualpool.budget import RAISE_AFTER, Quota
from dualpool.config import Backend
from dualpool.errors import CheckoutTimeout, ConnectFailed, DualpoolError, ServerLost
from dualpool.growth import RETRY_JITTER
from dualpool.hosts import DEMOTED_SECONDS, Search
from dualpool.lease import CHECKING, CLOSED, CLOSING, IDLE, LEASED, RESETTING, Leasable, Party, Waiter
from dualpool.pool import Pool, PoolIO
from dualpool.pool_settings import PoolSettings
from dualpool.protocol import APPLICATION, MAINTENANCE
from dualpool.reactor import Clock
from dualpool.refusals import STARTING_NOTICE
from tests.simulation.machines import ANSWERS, FITS, HANGS, PLENTY, REFUSES, TAKES_WRITES, Machine, make_fit

LOGIN_RETRIES = (0.5, 2.0)
STEPS = 45
CALM_ROUNDS = 500
CALM_SECONDS = 60.0
"""Within this time everybody is served, if one host is what is looked for; each of the others may take its time to be given up."""
CONNECT_SECONDS, EXCHANGE_SECONDS, QUERY_SECONDS = 4.0, 3.0, 8.0
"""After these somebody who hangs is given up."""

QUIET = frozenset((IDLE, CLOSING))

HOLD, REFUSE, BOUNCE, BREAK, AGAIN = "holds", "is gone", "gives back at once", "breaks it at once", "queues a second time"
HABITS = [HOLD] * 14 + [REFUSE] * 2 + [BOUNCE] * 2 + [BREAK] + [AGAIN]


class Server(Leasable):
    """A server connection of the world."""

    __slots__ = ("born_as", "machine", "since")

    def __init__(self, pool: Pool, machine: Machine) -> None:
        super().__init__(pool)
        self.machine = machine
        self.born_as = machine.role
        self.since = 0.0
        """When its lease, its reset or its check began."""


class Connect:
    """What a pool has asked for, on its way through the hosts."""

    __slots__ = ("_hosts", "began", "began_at", "deadline", "failed", "generation", "host_was_full", "lane", "machine", "pool", "search")

    def __init__(self, world: "World", pool: Pool, lane: int) -> None:
        self.pool = pool
        self.lane = lane
        self.generation = world.reconnects[pool]
        self.search = Search(world.backend.hosts, world.target, world.time)
        self._hosts = iter(self.search)
        self.began = world.steps
        self.began_at = world.clock.now
        self.failed: set[Machine] = set()
        self.host_was_full = False
        self.machine: Machine
        self.deadline: float
        self.go_on(world)

    def go_on(self, world: "World") -> bool:
        """To the next host. False if that was the last."""
        host = next(self._hosts, None)
        if host is not None:
            self.machine = world.machines[host]
            self.deadline = world.clock.now + CONNECT_SECONDS
        return host is not None


class Client(Waiter):
    """A client that wants one lease, and does with it what its habit is."""

    __slots__ = ("conn", "habit", "is_served", "name", "pool", "world")

    def __init__(self, world: "World", name: str, pool: Pool, lane: int, habit: str) -> None:
        super().__init__(lane)
        if lane == APPLICATION:
            self.parties = world.choose_parties(pool)
        self.name = name
        self.world = world
        self.pool = pool
        self.habit = habit
        self.conn: Server | None = None
        self.is_served = False

    def offer(self, conn: Leasable) -> bool:
        world = self.world
        world.leave_queue(self, first=True)
        assert isinstance(conn, Server)
        assert conn.state == LEASED
        assert conn.pool is self.pool
        assert conn.lane == self.lane, "a lease is counted in another lane than its client's"
        if self.habit == REFUSE:
            world.tell("is offered a connection, and is gone", self, conn)
            return False
        world.lend(conn, self)
        if self.habit == BOUNCE:
            world.give_back(self)
        elif self.habit == BREAK:
            world.kill(conn)
        elif self.habit == AGAIN:
            world.arrive_at(self.pool, self.lane, HOLD)
        return True

    def fail(self, error: DualpoolError) -> None:
        world = self.world
        world.leave_queue(self)
        world.tell(f"is told: {error}", self)
        if isinstance(error, CheckoutTimeout):
            assert world.clock.now >= self.deadline
        if self.habit == AGAIN:
            world.arrive_at(self.pool, self.lane, HOLD)

    def notify(self, seconds: float) -> None:
        settings = self.pool.settings
        assert seconds >= (min(STARTING_NOTICE, settings.query_wait_notify) if settings.idle_after else settings.query_wait_notify)
        assert self.notified


class Size:
    """What a pool has for the application, counted anew at each step. `before`: how much it was a step ago."""

    __slots__ = ("before", "closing", "connecting", "idle", "others")

    def __init__(self) -> None:
        self.connecting = self.closing = self.idle = self.others = self.before = 0

    def count(self) -> int:
        return self.connecting + self.closing + self.idle + self.others

    def begin(self) -> None:
        self.before = self.count()
        self.connecting = self.closing = self.idle = self.others = 0


class WorldIO(PoolIO):
    """Keeps what the pools ask for, until the schedule answers it."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def connect(self, pool: Pool, lane: int) -> None:
        self.world.connects.append(Connect(self.world, pool, lane))
        self.world.tell(f"{pool.name} starts a connect, lane {lane}")

    def close(self, conn: Leasable, reason: str) -> None:
        world = self.world
        assert isinstance(conn, Server)
        assert conn not in world.holders, "a leased connection is closed"
        assert conn not in world.closes
        world.closes.append(conn)
        world.tell(f"is closed: {reason}", conn)

    def check(self, conn: Leasable) -> None:
        assert isinstance(conn, Server)
        conn.since = self.world.clock.now
        self.world.checks.append(conn)
        self.world.tell("is checked", conn)


class World:
    """One schedule. `run()` raises AssertionError where an invariant does not hold; `trace` says how it came to that."""

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        self.rng = rng = random.Random(seed)
        self.traced = traced
        self.trace: list[str] = []
        self.clock = Clock()
        self.clock.now = 1000.0
        self.steps = 0
        self.connects: list[Connect] = []
        self.closes: list[Server] = []
        self.checks: list[Server] = []
        self.resets: list[Server] = []
        self.sockets: set[Server] = set()
        self.holders: dict[Server, Client] = {}
        self.queue: dict[Client, None] = {}
        """Everybody who waits, for any pool, in the order of arrival."""
        self.arrivals = 0
        self.before = (0, 0)
        self.sizes: dict[Pool, Size] = {}
        self.reconnects: Counter[Pool] = Counter()
        self.parties: dict[Pool, list[Party]] = {}
        self.quotas = [Quota(f"q{n}", rng.choice([1, 2, 4])) for n in range(rng.choice([0, 0, 1, 2]))]
        self.counted: dict[Quota, int] = {}
        self.births: dict[Server, int] = {}
        """After how many reconnects of its pool each connection was begun."""
        self.backend = BackendState(self._choose_backend())
        self.target = self.backend.config.target_session_attrs
        self.machines = {host: Machine(host, rng) for host in self.backend.config.hosts}
        make_fit(rng.choice(list(self.machines.values())), self.target)
        self.gave_up_at: dict[Machine, float] = {}
        """When a host was last found unfit."""
        self.budget = self.backend.budget
        self.budget.set_limit(rng.choice([None, 1, 2, 3, 4, 6, 9]), rng.choice([0, 0, 1, 2, 3]))
        self.raises, self.raised_at = 0, 0.0
        """How many steps a budget that was lowered must have recovered by since, and when the last one was due."""
        io = WorldIO(self)
        self.pools: list[Pool] = []
        for n in range(rng.choice([1, 1, 2, 3, 4])):
            quotas = tuple(quota for quota in self.quotas if rng.random() < 0.6)
            self.pools.append(Pool(f"p{n}", self._choose_settings(), self.budget, io, self.clock, rng, quotas))
            self.parties[self.pools[-1]] = [
                self.pools[-1].party(f"party{n}", rng.choice([1, 2, 3])) for n in range(rng.choice([0, 0, 1, 2]))
            ]
            self.pools[-1].clients = rng.choice([0, 1])
            self.sizes[self.pools[-1]] = Size()
        self.has_parties = any(self.parties.values())
        self.tell(f"budget {self.budget.limit}, reserve {self.budget.reserve}, sizes {[pool.settings.size for pool in self.pools]}")
        self.tell(f"{self.target}, {self.backend.config.load_balance}: {list(self.machines.values())}")

    def _choose_backend(self) -> Backend:
        rng = self.rng
        hosts = tuple((f"h{n}", 1) for n in range(rng.choice([1, 1, 2, 3])))
        return Backend(
            name="main",
            url="postgresql://db",
            hosts=hosts,
            budget=1,
            load_balance=rng.choice(["in-order", "round-robin"]),
            target_session_attrs=rng.choice(
                ["any", "any", "read-write", "read-write", "read-only", "primary", "standby", "prefer-standby"]
            ),
            sslmode="disable",
        )

    def time(self) -> float:
        """For what takes a clock."""
        return self.clock.now

    def _choose_settings(self) -> PoolSettings:
        rng = self.rng
        return PoolSettings(
            size=rng.choice([1, 1, 2, 3, 5]),
            min_size=rng.choice([0, 0, 0, 2]),
            query_wait=rng.choice([0, 3.0, 10.0]),
            query_wait_notify=rng.choice([0, 1.0]),
            idle_timeout=rng.choice([0, 20.0]),
            lifetime=rng.choice([0, 30.0, 3600.0]),
            lifetime_jitter=rng.choice([0, 10.0]),
            login_retry=rng.choice(LOGIN_RETRIES),
            check_delay=rng.choice([0, 2.0, 8.0]),
            reserve_size=rng.choice([0, 0, 0, 1, 2]),
            reserve_after=rng.choice([0.5, 2.0]),
            idle_after=rng.choice([0, 0, 15.0]),
            max_waiting=rng.choice([0, 0, 0, 0, 3]),
        )

    def choose_parties(self, pool: Pool) -> tuple[Party, ...]:
        """Those that a client of `pool` belongs to."""
        return tuple(party for party in self.parties[pool] if self.rng.random() < 0.5)

    def run(self) -> None:
        """The schedule: disorder, then calm, in which everybody must be served, then the end, after which nothing may be left."""
        self.check()
        for self.steps in range(1, STEPS + 1):
            self.rng.choice(DECK)(self)
            self.check()
        self.calm_down()
        self.serve_newcomers()
        self.recover()
        self.shut_down()

    # -------------------------------------------------------------------------------------------------- what can happen

    def arrive(self) -> None:
        """A client comes and wants a connection."""
        rng = self.rng
        self.arrive_at(rng.choice(self.pools), MAINTENANCE if rng.random() < 0.15 else APPLICATION, rng.choice(HABITS))

    def arrive_at(self, pool: Pool, lane: int, habit: str) -> Client:
        self.arrivals += 1
        client = Client(self, f"c{self.arrivals}", pool, lane, habit)
        conn = None if client.parties else pool.take_nowait(lane)
        if conn is not None:
            assert isinstance(conn, Server)
            assert not any(other.pool is pool and not other.parties for other in self.queue), "somebody who waits was overtaken"
            assert conn.lane == lane
            self.lend(conn, client)
            return client
        self.tell(f"queues at {pool.name}, lane {lane}, and {habit}", client)
        self.queue[client] = None
        pool.enqueue(client)
        return client

    def withdraw(self) -> None:
        """A client that waits goes away, and says so; twice, for that must not matter."""
        if self.queue:
            client = self.rng.choice(list(self.queue))
            self.leave_queue(client)
            self.tell("withdraws", client)
            assert client.pool.withdraw(client)
            assert not client.pool.withdraw(client)

    def finish(self) -> None:
        """A lease ends."""
        clients = [client for conn, client in self.holders.items() if conn.machine.state != HANGS]
        if clients:
            self.give_back(self.rng.choice(clients))

    def reset(self) -> None:
        """A lease ends in a way that makes a reset necessary."""
        if self.holders:
            self._leave_to_reset(self.rng.choice(list(self.holders)))

    def _leave_to_reset(self, conn: Server) -> None:
        client = self.holders.pop(conn)
        self.tell("leaves it to be reset", client, conn)
        conn.pool.resetting(conn)
        if conn.state != CLOSED:
            conn.since = self.clock.now
            self.resets.append(conn)

    def finish_reset(self) -> None:
        self._finish_exchange(self.resets, "reset")

    def finish_check(self) -> None:
        self._finish_exchange(self.checks, "check")

    def _finish_exchange(self, exchanges: list[Server], what: str) -> None:
        answered = [conn for conn in exchanges if conn.machine.state != HANGS]
        if answered:
            conn = self.rng.choice(answered)
            exchanges.remove(conn)
            if self.rng.random() < 0.25:
                self.tell(f"fails its {what}", conn)
                self.kill(conn)
            else:
                self.tell(f"ends its {what}", conn)
                conn.pool.give_back(conn)

    def write(self) -> None:
        """A client writes, and is refused if its server takes no writes any more; then the server is asked what it is."""
        for conn in list(self.holders):
            machine = conn.machine
            if self.target in TAKES_WRITES and machine.state == ANSWERS and machine.role not in FITS[self.target]:
                self._leave_to_reset(conn)
                if conn in self.resets:
                    self.resets.remove(conn)
                    machine.found_out = True
                    self.tell(f"says that its host is {machine.role}", conn)
                    conn.pool.condemn(conn, "it is not what is looked for")
                    self.reconnects.update(self.pools)
                    self.gave_up_at[machine] = self.clock.now
                    self.backend.reject(machine.host, self.clock.now)
                return

    def die(self) -> None:
        """A server connection breaks, whatever it is doing. Its holder, if any, finds out later, or now."""
        if self.sockets:
            self.kill(self.rng.choice(sorted(self.sockets, key=_id)))

    def answer_connect(self) -> None:
        """A host answers a connect, one way or another."""
        connects = self._answerable()
        if connects:
            self._answer(self.rng.choice(connects), self.rng.random())

    def _answerable(self) -> list[Connect]:
        return [connect for connect in self.connects if connect.machine.state != HANGS or self.clock.now >= connect.deadline]

    def _answer(self, connect: Connect, luck: float) -> None:
        try:
            self._log_in(connect, luck)
        except ConnectFailed as error:
            self._fail(connect, error)
        else:
            self.connects.remove(connect)
            connect.search.answered(connect.machine.host)
            self._check_choice(connect)
            self.let_in(connect)

    def _log_in(self, connect: Connect, luck: float) -> None:
        machine = connect.machine
        if machine.state != ANSWERS:
            raise ConnectFailed("refused" if machine.state == REFUSES else "no answer")
        if sum(1 for conn in self.sockets if conn.machine is machine) >= machine.room:
            connect.host_was_full = True
            raise ConnectFailed("Too many connections", errno=1040) if luck < 0.5 else ConnectFailed("sorry", sqlstate="53300")
        if luck > 0.85:
            raise ConnectFailed("bad luck", sqlstate="28P01" if luck > 0.95 else None)
        if connect.search.asks_role:
            connect.search.judge(machine.host, machine.role)

    def _fail(self, connect: Connect, error: ConnectFailed) -> None:
        pool, machine = connect.pool, connect.machine
        self.tell(f"{pool.name}: a connect to {machine} fails: {error}")
        connect.failed.add(machine)
        self.gave_up_at[machine] = self.clock.now
        connect.search.failed(machine.host, error)
        if connect.go_on(self):
            return
        self.connects.remove(connect)
        error, total = connect.search.error, self.budget.total
        self.raises = 0 if connect.host_was_full else self.raises
        self.raised_at = self.clock.now if connect.host_was_full else self.raised_at
        pool.connect_failed(error, connect.lane)
        if connect.host_was_full:
            lowered = self.budget.limit is not None and self.budget.limit < max(2, total)
            assert lowered, "a host has no room, and the budget is as it was"
        if error.sqlstate == "28P01" and not any(conn.pool is pool and conn.state != CLOSING for conn in self.sockets):
            waiting = any(client.pool is pool for client in self.queue)
            assert not waiting or pool.connecting != [0, 0], "the server refuses for good, and somebody waits"

    def _check_choice(self, connect: Connect) -> None:
        """A host that comes before this one, and could have been used, has been tried."""
        chosen = connect.machine
        for machine in self.machines.values():
            in_turn = self.backend.config.load_balance == "in-order"
            if machine is chosen and in_turn:
                return
            if machine.unchanged_since >= connect.began or not machine.is_fit(self.target) or machine in connect.failed:
                continue
            assert chosen.role in FITS["standby"] or self.target != "prefer-standby", "a standby is up, and another server is used"
            lately = self.gave_up_at.get(machine, 0.0) + DEMOTED_SECONDS > connect.began_at
            assert lately or not in_turn, "an earlier host is up, and a later one is used"

    def let_in(self, connect: Connect) -> None:
        conn = Server(connect.pool, connect.machine)
        conn.generation = connect.generation
        self.births[conn] = connect.generation
        self.sockets.add(conn)
        self.tell(f"{conn.pool.name}: a connect to {conn.machine} ends well, lane {connect.lane}")
        conn.pool.connected(conn, connect.lane)

    def finish_close(self) -> None:
        """A socket that was being closed is closed."""
        if self.closes:
            conn = self.closes.pop(self.rng.randrange(len(self.closes)))
            self.sockets.discard(conn)
            self.tell("is gone", conn)
            conn.pool.closed(conn)

    def sweep(self) -> None:
        """Time passes."""
        self._pass(self.rng.choice([0.1, 1.0, 1.0, 4.0, 40.0]))

    def _pass(self, seconds: float) -> None:
        now = self.clock.now + seconds
        self.tell(f"--- {now:.1f} s")
        if now >= self.raised_at + RAISE_AFTER:
            self.raises, self.raised_at = self.raises + 1, now
        self.budget.sweep(now)
        for pool in self.pools:
            pool.sweep(now)
        self._give_up_hanging()
        overdue = [client.name for client in self.queue if now >= client.deadline]
        assert not overdue, f"{overdue} still wait"

    def _give_up_hanging(self) -> None:
        """What the server's tasks and the deadlines do about those who never answer."""
        now = self.clock.now
        if not any(machine.state == HANGS for machine in self.machines.values()):
            return
        for exchanges in (self.resets, self.checks):
            for conn in [conn for conn in exchanges if conn.machine.state == HANGS and now - conn.since >= EXCHANGE_SECONDS]:
                if conn in exchanges:
                    exchanges.remove(conn)
                    self.tell("has not answered in time", conn)
                    conn.pool.condemn(conn, "no answer in time")
        for conn in [conn for conn in self.holders if conn.machine.state == HANGS and now - conn.since >= QUERY_SECONDS]:
            if conn in self.holders:
                self._leave_to_reset(conn)

    def _choose_machine(self, states: Iterable[str]) -> Machine | None:
        machines = [machine for machine in self.machines.values() if machine.state in states]
        machine = self.rng.choice(machines) if machines else None
        if machine is not None:
            machine.unchanged_since = self.steps
        return machine

    def crash(self) -> None:
        """A host is gone, and with it all its connections, whatever they are doing. Or they hang until it is back."""
        machine = self._choose_machine((ANSWERS, HANGS))
        if machine is not None:
            machine.crash(self.rng)
            self.tell(f"crash: {machine}")
            if not machine.has_lost_power:
                self._kill_all(machine)

    def hang(self) -> None:
        """A host answers nothing any more, for a while."""
        machine = self._choose_machine((ANSWERS,))
        if machine is not None:
            machine.state = HANGS
            self.tell(f"hang: {machine}")

    def come_back(self) -> None:
        """A host answers again, as something else perhaps."""
        machine = self._choose_machine((REFUSES, HANGS))
        if machine is not None:
            self._revive(machine)

    def _revive(self, machine: Machine) -> None:
        forgotten = machine.has_lost_power
        machine.come_back(self.rng)
        self.tell(f"back: {machine}")
        if forgotten:
            self._kill_all(machine)

    def _kill_all(self, machine: Machine) -> None:
        for conn in sorted((conn for conn in self.sockets if conn.machine is machine), key=_id):
            if conn in self.sockets:
                self.kill(conn)

    def switch(self) -> None:
        """A host becomes something else and goes on."""
        machine = self._choose_machine((ANSWERS,))
        if machine is not None:
            machine.take_role(self.rng.choice(machine.roles))
            self.tell(f"now: {machine}")

    def crowd(self) -> None:
        """Others take the connections of a host, or leave it."""
        machine = self._choose_machine((ANSWERS,))
        if machine is not None:
            machine.room = self.rng.choice([0, 1, 2, 5, PLENTY, PLENTY])
            self.tell(f"now: {machine}")

    def pause(self) -> None:
        pool = self.rng.choice(self.pools)
        self.tell(f"{pool.name} is {'resumed' if pool.is_paused else 'paused'}")
        if pool.is_paused:
            pool.resume()
        else:
            pool.pause()

    def resume(self) -> None:
        for pool in self.pools:
            if pool.is_paused:
                self.tell(f"{pool.name} is resumed")
                pool.resume()

    def reconnect(self) -> None:
        pool = self.rng.choice(self.pools)
        self.tell(f"{pool.name} is told to reconnect")
        self.reconnects[pool] += 1
        pool.reconnect()

    def configure(self) -> None:
        pool = self.rng.choice(self.pools)
        settings = self._choose_settings()
        self.tell(f"{pool.name} gets other settings, size {settings.size}")
        pool.configure(settings)

    def set_limit(self) -> None:
        limit, reserve = self.rng.choice([None, 1, 2, 5, 9]), self.rng.choice([0, 1, 3])
        self.tell(f"the budget becomes {limit}, reserve {reserve}")
        self.raises = 0 if limit is None else self.raises
        self.budget.set_limit(limit, reserve)

    def set_quota(self) -> None:
        if self.quotas:
            quota, pool = self.rng.choice(self.quotas), self.rng.choice(self.pools)
            quota.limit = self.rng.choice([1, 2, 4])
            self.tell(f"{quota.name} becomes {quota.limit}")
            self.budget.bind(pool, pool.quotas)

    def close_pool(self) -> None:
        pool = self.rng.choice(self.pools)
        self.tell(f"{pool.name} is closed")
        pool.close()
        assert not any(client.pool is pool for client in self.queue)

    # -------------------------------------------------------------------------------------------------- the books

    def lend(self, conn: Server, client: Client) -> None:
        assert conn not in self.holders, "a connection with two clients"
        assert conn in self.sockets, "a connection that is gone was handed out"
        assert self.births[conn] == self.reconnects[conn.pool], "a connection that should have been replaced was handed out"
        assert conn.state == LEASED
        assert conn.born_as in FITS[self.target], "a lease on a server that is not what is looked for"
        assert not conn.machine.found_out, "a lease on a server that has said that it is not what is looked for any more"
        self.holders[conn] = client
        conn.since = self.clock.now
        client.conn = conn
        client.is_served = True
        self.tell("gets it", client, conn)

    def give_back(self, client: Client) -> None:
        conn = client.conn
        assert conn is not None
        del self.holders[conn]
        self.tell("gives it back", client, conn)
        conn.pool.give_back(conn)

    def kill(self, conn: Server) -> None:
        """The socket breaks. Told twice, for both ends of a link may notice."""
        self.tell("breaks", conn)
        self.sockets.discard(conn)
        for books in (self.closes, self.checks, self.resets):
            if conn in books:
                books.remove(conn)
        if self.rng.random() < 0.5:
            self.holders.pop(conn, None)
        conn.pool.lost(conn, ServerLost("broken"))
        conn.pool.lost(conn)

    def leave_queue(self, client: Client, *, first: bool = False) -> None:
        if first:
            # Who is parked is not in the queue yet, so those of other parties are no rivals; nor is one of two parties, who parks twice.
            alike = [other for other in self.queue if other.parties == client.parties and (len(other.parties) < 2 or other is client)]
            rivals = [other for other in self.queue if other.pool is client.pool and (other in alike or other.lane)]
            assert client is max(rivals, key=lambda other: (other.lane, -other.enqueued_at, other is client)), "overtaken"
            assert client is next(other for other in rivals if other.lane == client.lane), "overtaken in its lane"
        del self.queue[client]

    def tell(self, what: str, *who: object) -> None:
        if self.traced:
            names = [one.name if isinstance(one, Client) else f"s{_id(one)}" if isinstance(one, Leasable) else "" for one in who]
            self.trace.append(" ".join([*names[:1], what, *names[1:]]))

    # -------------------------------------------------------------------------------------------------- the invariants

    def check(self) -> None:
        """Design, section 8: 1 to 3. And the pool's own books must agree with the world's. (It runs so often that it must be quick.)"""
        for pool in self.pools:
            pool.verify()
        self.budget.verify()
        counted = len(self.connects) + len(self.sockets)
        assert counted == self.budget.total, "the budget does not count what exists"
        for size in self.sizes.values():
            size.begin()
        for connect in self.connects:
            if connect.lane == APPLICATION:
                self.sizes[connect.pool].connecting += 1
        leases = self._check_sockets()
        for pool, size in self.sizes.items():
            self._check_size(pool, size)
        for quota in self.quotas:
            self._check_quota(quota)
        self._check_limit(counted, leases)
        if self.has_parties:
            self._check_parties()

    def _check_sockets(self) -> int:
        """Each is what the world takes it for. Returns the number of leases in the application lane."""
        leases, holders = 0, self.holders
        by_state = [0] * 7
        for conn in self.sockets:
            state = conn.state
            by_state[state] += 1
            assert state != LEASED or conn in holders, "a lease that nobody has"
            assert state == LEASED or conn not in holders, "a lease that was taken away"
            if conn.lane == APPLICATION:
                leases += state == LEASED
                size = self.sizes[conn.pool]
                size.closing += state == CLOSING
                size.idle += state == IDLE
                size.others += state not in QUIET
        for state, books in ((RESETTING, self.resets), (CHECKING, self.checks), (CLOSING, self.closes)):
            assert by_state[state] == len(books)
            for conn in books:
                assert conn.state == state
        return leases

    def _check_size(self, pool: Pool, size: "Size") -> None:
        """A size that was lowered may be exceeded by what is leased, but nothing may be added or stay idle."""
        limit = pool.settings.size
        assert size.count() <= max(limit + pool.settings.reserve_size, size.before), "more than pool_size and its reserve"
        assert size.count() - size.closing <= limit or not size.idle, "idle beyond pool_size"

    def _check_parties(self) -> None:
        for parties in self.parties.values():
            parked = sum(len(party.parked) for party in parties)
            for party in parties:
                held = sum(1 for conn, client in self.holders.items() if party in client.parties and conn in self.sockets)
                assert held <= party.active <= party.cap, "a party has more than its cap"
                waiting = sum(1 for client in self.queue if party in client.parties)
                assert waiting <= party.active + parked

    def _check_quota(self, quota: Quota) -> None:
        """A quota that was lowered may be exceeded by what exists, but nothing may be added."""
        sizes = [size for pool, size in self.sizes.items() if quota in pool.quotas]
        counted = sum(size.count() for size in sizes)
        assert counted <= max(quota.limit, self.counted.get(quota, 0)), "more than a quota"
        self.counted[quota] = counted
        exceeded = counted - sum(size.closing for size in sizes) > quota.limit
        assert not exceeded or not any(size.idle for size in sizes), "idle beyond a quota"

    def _check_limit(self, counted: int, leases: int) -> None:
        limit = self.budget.limit
        if limit is not None:
            # A limit that was lowered below what exists may be exceeded for a while, but nothing may be added.
            assert counted <= max(limit, self.before[0]), "over budget"
            assert leases <= max(limit - self.budget.reserve, self.before[1]), "the application is in the reserve"
        self.before = (counted, leases)
        configured = self.budget.configured_limit
        if configured is None:
            assert limit is None or not self.raises, "the budget does not recover"
        else:
            assert (limit or 0) >= min(configured, 1 + self.raises), "the budget does not recover"

    def calm_down(self) -> None:
        """No more faults, and one host is what is looked for: everybody who waits must be served within a bounded time."""
        self.tell("=== calm")
        self.resume()
        good = self.rng.choice(list(self.machines.values()))
        forgotten = good.has_lost_power or good.state == REFUSES
        make_fit(good, self.target)
        good.unchanged_since = self.steps
        self.tell(f"good: {good}")
        if forgotten:
            self._kill_all(good)
        self._come_to_rest()

    def _come_to_rest(self) -> None:
        began_at = self.clock.now
        for _ in range(CALM_ROUNDS):
            if not self._calm_round():
                return
            self.check()
            assert self.clock.now - began_at <= CALM_SECONDS, f"somebody waits for too long: {[client.name for client in self.queue]}"
        raise AssertionError("it does not come to rest")

    def _calm_round(self) -> bool:
        """All that can be done without time passing; if there is nothing, half a second passes. False: nothing is left to do."""
        self.steps += 1
        if self._do_what_can_be_done():
            return True
        hangs = self.connects or self.checks or self.resets or self.holders
        if not hangs and not self.queue:
            return False
        # Only a pause after a failed connect may still keep somebody waiting, or who hangs, or that the server was full.
        paused = any(client.pool.growth.retry_at > self.clock.now for client in self.queue)
        assert hangs or paused or self.budget.is_full_elsewhere, "somebody waits, and nothing happens"
        self._pass(0.5)
        self._give_up_hanging()
        return True

    def _do_what_can_be_done(self) -> bool:
        """False: nothing."""
        exchanges = [(conn, books) for books in (self.resets, self.checks) for conn in books if conn.machine.state != HANGS]
        for conn, books in exchanges:
            books.remove(conn)
            conn.pool.give_back(conn)
        closes = len(self.closes)
        while self.closes:
            self.finish_close()
        connects = self._answerable()
        for connect in connects:
            self._answer(connect, 0.0)
        clients = [client for conn, client in self.holders.items() if conn.machine.state != HANGS]
        for client in clients:
            self.give_back(client)
        return bool(exchanges or closes or connects or clients)

    def serve_newcomers(self) -> None:
        """With nobody else there, and one host that is what is looked for, nobody is turned away."""
        self._pass(LOGIN_RETRIES[-1] * (1 + RETRY_JITTER))
        newcomers = []
        for pool in [pool for pool in self.pools if not pool.is_closed]:
            client = Client(self, f"new{pool.name}", pool, self.rng.choice([APPLICATION, MAINTENANCE]), HOLD)
            client.deadline = self.clock.now + CALM_SECONDS
            self.queue[client] = None
            newcomers.append(client)
            pool.enqueue(client)
        self._come_to_rest()
        starved = [client.name for client in newcomers if not client.is_served]
        assert not starved, f"{starved} got nothing, and a host is up"

    def recover(self) -> None:
        """Where nobody is refused, the budget becomes what it was."""
        configured = self.budget.configured_limit
        for _ in range(configured or 1):
            if self.budget.limit == configured:
                return
            self._pass(RAISE_AFTER)
            self._come_to_rest()
            self.check()
        assert self.budget.limit == configured, "the budget has not recovered"

    def shut_down(self) -> None:
        self.tell("=== the end")
        for pool in self.pools:
            pool.close()
        while self.closes:
            self.finish_close()
        assert not self.sockets
        assert self.budget.total == 0
        for pool in self.pools:
            assert pool.is_gone()
            statistics = pool.statistics()
            assert statistics.idle == statistics.leased == statistics.resetting == statistics.connecting == statistics.waiting == 0
            pool.leave_budget()


def _id(conn: Leasable) -> int:
    return conn.id


Action = Callable[[World], None]

DECK: Sequence[Action] = (
    [World.arrive] * 30
    + [World.finish] * 16
    + [World.answer_connect] * 22
    + [World.finish_close] * 12
    + [World.withdraw] * 5
    + [World.sweep] * 10
    + [World.reset] * 5
    + [World.finish_reset] * 5
    + [World.finish_check] * 5
    + [World.die] * 4
    + [World.close_pool]
    + [World.pause, World.resume, World.resume, World.reconnect, World.configure, World.configure, World.set_limit, World.set_limit]
    + [World.set_quota]
    + [World.crash, World.hang, World.switch, World.switch, World.crowd, World.crowd]
    + [World.come_back] * 4
    + [World.write] * 4
)
