"""The world of pools: clients that come, wait, vanish and misbehave; servers that refuse, hang and die; a clock that only sweeps move.

The world keeps its own books (who holds what, which sockets exist), so that it does not believe the pool's. One seed is one schedule.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from dualpool.budget import Budget, Quota
from dualpool.errors import CheckoutTimeout, ConnectFailed, DualpoolError, ServerLost
from dualpool.lease import CHECKING, CLOSED, CLOSING, IDLE, LEASED, RESETTING, Leasable, Party, Waiter
from dualpool.pool import Pool, PoolIO
from dualpool.pool_settings import PoolSettings
from dualpool.protocol import APPLICATION, MAINTENANCE
from dualpool.reactor import Clock
from dualpool.refusals import STARTING_NOTICE

STEPS = 45
CALM_ROUNDS = 500

HOLD, REFUSE, BOUNCE, BREAK, AGAIN = "holds", "is gone", "gives back at once", "breaks it at once", "queues a second time"
HABITS = [HOLD] * 14 + [REFUSE] * 2 + [BOUNCE] * 2 + [BREAK] + [AGAIN]


class Server(Leasable):
    """A server connection of the world."""

    __slots__ = ()


class Client(Waiter):
    """A client that wants one lease, and does with it what its habit is."""

    __slots__ = ("conn", "habit", "name", "pool", "world")

    def __init__(self, world: "World", name: str, pool: Pool, lane: int, habit: str) -> None:
        super().__init__(lane)
        if lane == APPLICATION:
            self.parties = world.choose_parties(pool)
        self.name = name
        self.world = world
        self.pool = pool
        self.habit = habit
        self.conn: Leasable | None = None

    def offer(self, conn: Leasable) -> bool:
        world = self.world
        world.leave_queue(self, first=True)
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


class WorldIO(PoolIO):
    """Keeps what the pools ask for, until the schedule answers it."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def connect(self, pool: Pool, lane: int) -> None:
        self.world.connects.append((pool, lane, self.world.reconnects[pool]))
        self.world.tell(f"{pool.name} starts a connect, lane {lane}")

    def close(self, conn: Leasable, reason: str) -> None:
        world = self.world
        assert conn not in world.holders, "a leased connection is closed"
        assert conn not in world.closes
        world.closes.append(conn)
        world.tell(f"is closed: {reason}", conn)

    def check(self, conn: Leasable) -> None:
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
        self.connects: list[tuple[Pool, int, int]] = []
        self.closes: list[Leasable] = []
        self.checks: list[Leasable] = []
        self.resets: list[Leasable] = []
        self.sockets: set[Leasable] = set()
        self.holders: dict[Leasable, Client] = {}
        self.queue: dict[Client, None] = {}
        """Everybody who waits, for any pool, in the order of arrival."""
        self.arrivals = 0
        self.before = (0, 0)
        self.sizes: dict[Pool, int] = {}
        self.reconnects: Counter[Pool] = Counter()
        self.parties: dict[Pool, list[Party]] = {}
        self.quotas = [Quota(f"q{n}", rng.choice([1, 2, 4])) for n in range(rng.choice([0, 0, 1, 2]))]
        self.counted: dict[Quota, int] = {}
        self.births: dict[Leasable, int] = {}
        """After how many reconnects of its pool each connection was begun."""
        self.budget = Budget("main", rng.choice([None, 1, 2, 3, 4, 6, 9]), rng.choice([0, 0, 1, 2, 3]))
        io = WorldIO(self)
        self.pools: list[Pool] = []
        for n in range(rng.choice([1, 1, 2, 3, 4])):
            quotas = tuple(quota for quota in self.quotas if rng.random() < 0.6)
            self.pools.append(Pool(f"p{n}", self._choose_settings(), self.budget, io, self.clock, rng, quotas))
            self.parties[self.pools[-1]] = [
                self.pools[-1].party(f"party{n}", rng.choice([1, 2, 3])) for n in range(rng.choice([0, 0, 1, 2]))
            ]
            self.pools[-1].clients = rng.choice([0, 1])
        self.tell(f"budget {self.budget.limit}, reserve {self.budget.reserve}, sizes {[pool.settings.size for pool in self.pools]}")

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
            login_retry=rng.choice([0.5, 2.0]),
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
        for _ in range(STEPS):
            self.rng.choice(DECK)(self)
            self.check()
        self.calm_down()
        self.shut_down()

    # -------------------------------------------------------------------------------------------------- what can happen

    def arrive(self) -> None:
        """A client comes and wants a connection."""
        rng = self.rng
        self.arrive_at(rng.choice(self.pools), MAINTENANCE if rng.random() < 0.15 else APPLICATION, rng.choice(HABITS))

    def arrive_at(self, pool: Pool, lane: int, habit: str) -> None:
        self.arrivals += 1
        client = Client(self, f"c{self.arrivals}", pool, lane, habit)
        conn = None if client.parties else pool.take_nowait(lane)
        if conn is not None:
            assert not any(other.pool is pool and not other.parties for other in self.queue), "somebody who waits was overtaken"
            assert conn.lane == lane
            self.lend(conn, client)
            return
        self.tell(f"queues at {pool.name}, lane {lane}, and {habit}", client)
        self.queue[client] = None
        pool.enqueue(client)

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
        if self.holders:
            self.give_back(self.rng.choice(list(self.holders.values())))

    def reset(self) -> None:
        """A lease ends in a way that makes a reset necessary."""
        if self.holders:
            conn, client = self.rng.choice(list(self.holders.items()))
            del self.holders[conn]
            self.tell("leaves it to be reset", client, conn)
            conn.pool.resetting(conn)
            if conn.state != CLOSED:
                self.resets.append(conn)

    def finish_reset(self) -> None:
        self._finish_exchange(self.resets, "reset")

    def finish_check(self) -> None:
        self._finish_exchange(self.checks, "check")

    def _finish_exchange(self, exchanges: list[Leasable], what: str) -> None:
        if exchanges:
            conn = exchanges.pop(self.rng.randrange(len(exchanges)))
            if self.rng.random() < 0.25:
                self.tell(f"fails its {what}", conn)
                self.kill(conn)
            else:
                self.tell(f"ends its {what}", conn)
                conn.pool.give_back(conn)

    def die(self) -> None:
        """A server connection breaks, whatever it is doing. Its holder, if any, finds out later, or now."""
        if self.sockets:
            self.kill(self.rng.choice(sorted(self.sockets, key=_id)))

    def answer_connect(self) -> None:
        """A server answers a connect, one way or another."""
        if self.connects:
            pool, lane, generation = self.connects.pop(self.rng.randrange(len(self.connects)))
            chance = self.rng.random()
            if chance < 0.75:
                self.let_in(pool, lane, generation)
            else:
                permanent, full = chance > 0.93, chance < 0.81
                self.tell(f"{pool.name}: a connect fails, {'for good' if permanent else 'the server is full' if full else 'for now'}")
                pool.connect_failed(ConnectFailed("refused", sqlstate="28P01" if permanent else "53300" if full else None), lane)
                if permanent and not any(conn.pool is pool and conn.state != CLOSING for conn in self.sockets):
                    waiting = any(client.pool is pool for client in self.queue)
                    assert not waiting or pool.connecting != [0, 0], "the server refuses for good, and somebody waits"

    def let_in(self, pool: Pool, lane: int, generation: int) -> None:
        conn = Server(pool)
        conn.generation = generation
        self.births[conn] = generation
        self.sockets.add(conn)
        self.tell(f"{pool.name}: a connect ends well, lane {lane}")
        pool.connected(conn, lane)

    def finish_close(self) -> None:
        """A socket that was being closed is closed."""
        if self.closes:
            conn = self.closes.pop(self.rng.randrange(len(self.closes)))
            self.sockets.discard(conn)
            self.tell("is gone", conn)
            conn.pool.closed(conn)

    def sweep(self) -> None:
        """Time passes."""
        now = self.clock.now + self.rng.choice([0.1, 1.0, 1.0, 4.0, 40.0])
        self.tell(f"--- {now:.1f} s")
        self.budget.sweep(now)
        for pool in self.pools:
            pool.sweep(now)
        overdue = [client.name for client in self.queue if now >= client.deadline]
        assert not overdue, f"{overdue} still wait"

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

    def lend(self, conn: Leasable, client: Client) -> None:
        assert conn not in self.holders, "a connection with two clients"
        assert conn in self.sockets, "a connection that is gone was handed out"
        assert self.births[conn] == self.reconnects[conn.pool], "a connection that should have been replaced was handed out"
        assert conn.state == LEASED
        self.holders[conn] = client
        client.conn = conn
        self.tell("gets it", client, conn)

    def give_back(self, client: Client) -> None:
        conn = client.conn
        assert conn is not None
        del self.holders[conn]
        self.tell("gives it back", client, conn)
        conn.pool.give_back(conn)

    def kill(self, conn: Leasable) -> None:
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
        """Design, section 8: 1 to 3. And the pool's own books must agree with the world's."""
        for pool in self.pools:
            pool.verify()
        self.budget.verify()
        counted = len(self.connects) + len(self.sockets)
        assert counted == self.budget.total, "the budget does not count what exists"
        leases = 0
        for conn in self.sockets:
            holder = self.holders.get(conn)
            assert (conn.state == LEASED) == (holder is not None), (
                "a lease that nobody has" if holder is None else "a lease that was taken away"
            )
            assert (conn.state == RESETTING) == (conn in self.resets)
            assert (conn.state == CHECKING) == (conn in self.checks)
            assert (conn.state == CLOSING) == (conn in self.closes)
            leases += conn.state == LEASED and conn.lane == APPLICATION
        self._check_limit(counted, leases)
        self._check_parties()
        for quota in self.quotas:
            self._check_quota(quota)
        for pool in self.pools:
            self._check_size(pool, [conn for conn in self.sockets if conn.pool is pool and conn.lane == APPLICATION])

    def _check_size(self, pool: Pool, application: list[Leasable]) -> None:
        """A size that was lowered may be exceeded by what is leased, but nothing may be added or stay idle."""
        connecting = sum(1 for of, lane, _ in self.connects if of is pool and lane == APPLICATION)
        size = connecting + len(application)
        assert size <= max(pool.settings.size + pool.settings.reserve_size, self.sizes.get(pool, 0)), "more than pool_size and its reserve"
        self.sizes[pool] = size
        stay = connecting + sum(1 for conn in application if conn.state != CLOSING)
        assert stay <= pool.settings.size or not any(conn.state == IDLE for conn in application), "idle beyond pool_size"

    def _check_parties(self) -> None:
        for party in (party for parties in self.parties.values() for party in parties):
            held = sum(1 for conn, client in self.holders.items() if party in client.parties and conn in self.sockets)
            assert held <= party.active <= party.cap, "a party has more than its cap"
            waiting = sum(1 for client in self.queue if party in client.parties)
            assert waiting <= party.active + len(party.parked) + sum(
                len(other.parked) for others in self.parties.values() for other in others
            )

    def _check_quota(self, quota: Quota) -> None:
        """A quota that was lowered may be exceeded by what exists, but nothing may be added."""
        connecting = sum(1 for pool, lane, _ in self.connects if quota in pool.quotas and lane == APPLICATION)
        counted = connecting + sum(1 for conn in self.sockets if quota in conn.pool.quotas and conn.lane == APPLICATION)
        assert counted <= max(quota.limit, self.counted.get(quota, 0)), "more than a quota"
        self.counted[quota] = counted
        inside = [conn for conn in self.sockets if quota in conn.pool.quotas and conn.lane == APPLICATION and conn.state != CLOSING]
        assert connecting + len(inside) <= quota.limit or not any(conn.state == IDLE for conn in inside), "idle beyond a quota"

    def _check_limit(self, counted: int, leases: int) -> None:
        limit = self.budget.limit
        if limit is not None:
            # A limit that was lowered below what exists may be exceeded for a while, but nothing may be added.
            assert counted <= max(limit, self.before[0]), "over budget"
            assert leases <= max(limit - self.budget.reserve, self.before[1]), "the application is in the reserve"
        self.before = (counted, leases)

    def calm_down(self) -> None:
        """No more faults: everybody who waits must be served within a bounded number of rounds."""
        self.tell("=== calm")
        self.resume()
        for _ in range(CALM_ROUNDS):
            if not self._calm_round():
                return
            self.check()
        raise AssertionError("it does not come to rest")

    def _calm_round(self) -> bool:
        for exchanges in (self.resets, self.checks):
            while exchanges:
                conn = exchanges.pop()
                conn.pool.give_back(conn)
        while self.closes:
            self.finish_close()
        while self.connects:
            self.let_in(*self.connects.pop(0))
        while self.holders:
            self.give_back(next(iter(self.holders.values())))
        if not (self.connects or self.closes or self.checks or self.queue):
            return False
        if not (self.connects or self.closes or self.checks):
            # Only a pause after a failed connect may still keep somebody waiting, or that the server was full.
            paused = any(client.pool.growth.retry_at > self.clock.now for client in self.queue)
            assert paused or self.budget.is_full_elsewhere, "somebody waits, and nothing happens"
            now = self.clock.now + 0.5
            self.budget.sweep(now)
            for pool in self.pools:
                pool.sweep(now)
        return True

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
)
