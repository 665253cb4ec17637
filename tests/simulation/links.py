"""The world of links: dualpool's own server, links, relays, pools and reactor, between simulated clients and a simulated database.

Only the edges are simulated: sockets, readiness, time, and the two kinds of peers. Trio runs with its deterministic scheduling, so one seed
is one schedule. After each step the invariants of the design's section 8 are checked; the peers check what they read by themselves.
"""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, cast
from unittest import mock

import trio
import trio._core._run
import trio.testing

from dualpool import connector as connector_module
from dualpool import reactor as reactor_module
from dualpool import server as server_module
from dualpool.accounts import Account, CancelRequest, ClientLogin, FrontendPolicy, ServerTarget
from dualpool.backends import BackendState
from dualpool.config import Backend, Config, Timeouts
from dualpool.config import Database as ConfiguredDatabase
from dualpool.engines import ENGINES
from dualpool.errors import ConnectFailed
from dualpool.exchange import drive
from dualpool.lease import LEASED
from dualpool.link import Client, ServerConnection
from dualpool.log import LOGGER
from dualpool.protocol import APPLICATION, MAINTENANCE, SESSION, TRANSACTION, ConnectionClosed, FindAccount
from dualpool.reactor import Reactor
from dualpool.server import Server
from tests.simulation import peers
from tests.simulation.memory import End, MemoryPoller, MemoryStream, MemoryTransport, connection
from tests.simulation.mysql import MysqlClient, MysqlDatabase
from tests.simulation.peers import Violation
from tests.simulation.postgres import PostgresClient, PostgresDatabase

CALM_ROUNDS: Final = 3000
PROTOCOLS: Final[dict[str, tuple[type[peers.Client], type[peers.Database]]]] = {
    "postgres": (PostgresClient, PostgresDatabase),
    "mysql": (MysqlClient, MysqlDatabase),
}


class Application:
    """A client's process: its script, its end of the connection, and what it has not written yet."""

    def __init__(self, script: peers.Client, end: End) -> None:
        self.script = script
        self.end = end
        self.client: Client | None = None
        """dualpool's side of it, once it is logged in."""
        self.unsent = script.unsent
        self.leaving = False
        self.gone = False


class World:
    """One schedule. `run()` raises where an invariant does not hold."""

    def __init__(self, seed: int, protocol: str = "postgres", *, traced: bool = False) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.traced = traced
        self.trace: list[str] = []
        self.protocol = protocol
        self.script_type, database_type = PROTOCOLS[protocol]
        self.database = database_type()
        self.busy = self.database.wild < 1.0 and rng.random() >= self.database.wild
        """Few faults: clients get much done."""
        self.now = 1000.0
        self.poller = MemoryPoller(rng)
        self.applications: list[Application] = []
        self.wires: dict[peers.Session, End] = {}
        self.dials: list[tuple[trio.Event, list[End | None]]] = []
        self.kills = 0
        self._fds = count(10)
        self._names = count(1)
        self.budget = rng.choice([3, 5] if self.busy else [1, 2, 3, 5])
        self.config = self._choose_config()
        self.server: Server
        self.nursery: trio.Nursery
        self.clock = trio.testing.MockClock()

    def _choose_config(self) -> Config:
        rng = self.rng
        backend = Backend(
            name="main",
            url=f"{self.protocol}://app@db",
            budget=self.budget,
            reserved_maintenance=rng.choice([0, 1]),
            protocol=cast(Any, self.protocol),
            hosts=(("db", 1),),
            user="app",
            password="secret",
            sslmode="disable",
        )
        databases = {
            name: ConfiguredDatabase(
                name=name, backend="main", database=name, pool_size=rng.choice([1, 2, 4]), min_pool_size=rng.choice([0, 0, 1])
            )
            for name in ("one", "two")
        }
        timeouts = Timeouts(query_wait=20.0, query_wait_notify=2.0, server_idle=30.0, server_lifetime=60.0, server_check_delay=5.0)
        return Config(backends={"main": backend}, databases=databases, timeouts=timeouts)

    def run(self) -> None:
        """The schedule: disorder; then calm, in which everybody must get all replies; then the end, after which nothing may be left."""
        with self._patched():
            try:
                trio.run(self._main, clock=self.clock)
            except BaseExceptionGroup as group:
                raise _first(group) from group

    @contextlib.contextmanager
    def _patched(self) -> Iterator[None]:
        run = trio._core._run
        with (
            mock.patch.object(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            mock.patch.object(run, "_r", random.Random(self.seed)),
            mock.patch.object(reactor_module, "monotonic", self._time),
            mock.patch.object(server_module, "Stream", MemoryStream),
            mock.patch.object(connector_module.Connector, "dial", self._dial),
            mock.patch.object(Server, "log_fault", self._log_fault),
            mock.patch.object(LOGGER, "disabled", True),
        ):
            yield

    async def _main(self) -> None:
        async with trio.open_nursery() as self.nursery:
            self.server = Server(self.config, self.nursery, Reactor(self.poller))
            try:
                for _ in range(3):
                    self.arrive()
                deck = BUSY_DECK if self.busy else DECK
                for _ in range(self.database.steps):
                    await self._step(self.rng.choice(deck))
                await self._calm_down()
                await self._shut_down()
            finally:
                # What is shielded ends by its deadline, so time must go on for it.
                self.clock.rate = 1e6
                self.nursery.cancel_scope.cancel()

    async def _step(self, action: "Action") -> None:
        action(self)
        for _ in range(self.rng.randint(1, 4)):
            await trio.lowlevel.checkpoint()
        self.check()

    # -------------------------------------------------------------------------------------------------- what can happen

    def arrive(self) -> None:
        """A client has logged in."""
        rng, server = self.rng, self.server
        if sum(not application.gone for application in self.applications) >= 8:
            return
        script = self.script_type(f"c{next(self._names)}", rng)
        lane = MAINTENANCE if rng.random() < 0.1 else APPLICATION
        mode = SESSION if lane == MAINTENANCE or rng.random() < 0.15 else TRANSACTION
        login = script.login(rng.choice(["one", "two"]), mode, lane)
        theirs, ours = connection(rng)
        application = Application(script, theirs)
        self.applications.append(application)
        self.tell(f"{script.name} comes to {login.account.database}, mode {mode}, lane {lane}")
        if script.logs_in():
            self.nursery.start_soon(self._log_in, application, ours, login.account)
        else:
            self._welcome(application, MemoryStream(self._transport(ours), server_side=True), login, server.clients.new_id())

    async def _log_in(self, application: Application, ours: End, account: Account) -> None:
        stream = MemoryStream(self._transport(ours), server_side=True)
        process_id = self.server.clients.new_id()

        async def find_account(asked: FindAccount) -> Account:
            return account

        try:
            login = await drive(ENGINES[self.protocol].accept(FrontendPolicy(connection_id=process_id)), cast(Any, stream), find_account)
        except ConnectionClosed:
            stream.close()
            return
        assert isinstance(login, ClientLogin)
        self._welcome(application, stream, login, process_id)

    def _welcome(self, application: Application, stream: MemoryStream, login: ClientLogin, process_id: int) -> None:
        server, account = self.server, login.account
        entry = server.backends.entry(self.protocol, login)
        entry.pool.rng = self.rng
        relay = entry.engine.client_relay(login, server.backends.relay_limits[account.mode])
        client = Client(server.reactor, stream.transport(), relay, entry.pool, entry.engine, server, account.lane)
        client.id = process_id
        server.clients.by_id[client.id] = client
        entry.pool.clients += 1
        client.channel.send(entry.engine.welcome(login, {}, client.id, server.clients.secret(client.id)))
        client.channel.open()
        application.client = client
        self.nursery.start_soon(self._session, client)

    async def _session(self, client: Client) -> None:
        await self.server.clients.until_called(client)
        del self.server.clients.by_id[client.id]
        client.pool.clients -= 1

    def ask(self) -> None:
        """A client makes a request, or several."""
        application = self._someone()
        if application is not None:
            script = application.script
            for _ in range(self.rng.choice([1, 1, 1, 3])):
                if script.may_ask():
                    before = len(script.expected)
                    application.unsent += script.request()
                    self.tell(f"{script.name} asks for {list(script.expected)[before:]}")

    def say_goodbye(self) -> None:
        """A client ends politely, perhaps in the middle of a transaction, perhaps without waiting for replies."""
        application = self._someone()
        if application is not None and application.script.may_leave():
            self._say_goodbye(application)

    def _say_goodbye(self, application: Application) -> None:
        self.tell(f"{application.script.name} says goodbye")
        application.unsent += application.script.goodbye()
        application.leaving = True
        self.database.may_be_canceled.add(application.script.name)

    def vanish(self) -> None:
        """A client is gone without a word, perhaps in the middle of a message."""
        application = self._someone()
        if application is not None:
            self.tell(f"{application.script.name} vanishes")
            self.database.may_be_canceled.add(application.script.name)
            self.rng.choice([application.end.close, application.end.reset])()
            application.gone = True

    def cancel(self) -> None:
        """A client cancels what it runs, or what it waits for."""
        running = {session.slow.partition(".")[0] for session in self.wires if session.slow}
        asking = [one for one in self.applications if one.script.expected and not one.gone and not one.leaving]
        candidates = [one for one in asking if one.script.name in running] or asking
        if not candidates:
            return
        application = self.rng.choice(candidates)
        script, client = application.script, application.client
        self.database.may_be_canceled.add(script.name)
        if client is None:
            return
        if script.kills:
            self._kill(application, client)
        else:
            self.tell(f"{script.name} sends a cancel request")
            self.nursery.start_soon(self.server.cancels.requested, CancelRequest(client.id, self.server.clients.secret(client.id)))

    def _kill(self, victim: Application, client: Client) -> None:
        """Another client, if there is one, stops what this one runs, or this one."""
        killers = [one for one in self.applications if one is not victim and not one.gone and not one.leaving and one.script.may_ask()]
        killers = [one for one in killers if one.client is not None and one.client.pool is client.pool]
        if killers:
            killer, whole = self.rng.choice(killers), self.rng.random() < 0.1
            self.kills += whole
            self.tell(f"{killer.script.name} kills {'the session' if whole else 'the query'} of {victim.script.name}")
            killer.unsent += killer.script.kill(client.id, whole=whole)

    def end_slow(self) -> None:
        """A query that takes its time is done."""
        busy = [session for session in self.wires if session.slow]
        if busy:
            session = self.rng.choice(busy)
            self.tell(f"session {session.process_id} ends its slow query {session.slow}")
            session.end_slow(canceled=False)

    def kill(self) -> None:
        """A session of the server dies, with or without last words."""
        sessions = [session for session in self.wires if session.started and not session.ended]
        if sessions:
            session = self.rng.choice(sessions)
            self.kills += 1
            self.tell(f"session {session.process_id} is killed")
            if self.rng.random() < 0.5:
                session.slow = ""
                session.outgoing += session.last_words()
                session.ended = True
            else:
                self._close_session(session, self.rng.choice([End.close, End.reset]))

    def answer_dial(self) -> None:
        """Somebody who dialled the database gets through."""
        if self.dials:
            event, answer = self.dials.pop(self.rng.randrange(len(self.dials)))
            theirs, answer[0] = connection(self.rng)
            for pipe in (theirs.incoming, theirs.outgoing):
                pipe.capacity = max(pipe.capacity, self.database.smallest_pipe * (10 if self.busy else 1))
            session = self.database.new_session()
            self.wires[session] = theirs
            self.tell(f"session {session.process_id} begins")
            event.set()

    def refuse_dial(self) -> None:
        """Somebody who dialled the database does not get through."""
        if self.dials:
            self.tell("a dial is refused")
            self.dials.pop(self.rng.randrange(len(self.dials)))[0].set()

    def let_time_pass(self) -> None:
        """Seconds pass, and deadlines with them."""
        self._pass(self.rng.choice([0.1, 1.0, 4.0, 15.0]))

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        self.tell(f"--- {self.now:.1f} s")
        self.clock.jump(seconds)
        for pool in self.server.backends.pools():
            pool.sweep(self.now)

    def reconnect(self) -> None:
        """An order of the administrator's."""
        for pool in self.server.backends.pools():
            pool.reconnect()

    def move_bytes(self) -> None:
        """Every peer does a bit, in random order; then the reactor handles what is ready."""
        work: list[Callable[[], None]] = [partial(self._serve_application, one) for one in self.applications if not one.gone]
        work += [partial(self._serve_session, session) for session in self.wires]
        self.rng.shuffle(work)
        for piece in work:
            piece()
        self.server.reactor.dispatch(0, self.rng.choice([1, 4, 256]))

    def move_many(self) -> None:
        """The same, several times over."""
        for _ in range(5):
            self.move_bytes()

    # -------------------------------------------------------------------------------------------------- the peers' sockets

    def _serve_application(self, application: Application) -> None:
        script, end = application.script, application.end
        self._write(application.unsent, end)
        data = end.incoming.take(self._piece(len(end.incoming.data)))
        if data:
            script.read(data)
        if end.is_over():
            end.close()
            application.gone = True
            self.database.may_be_canceled.add(script.name)
            self.tell(f"{script.name} is at its end: {script.last_words}")
            # In the middle of a message there is no way to say anything.
            cut_off = script.in_message() and self.kills > 0
            if not application.leaving and not script.last_words and not script.perhaps_last and not cut_off:
                raise Violation(f"{script.name} was disconnected without a word")
            if script.last_words and not self.kills:
                raise Violation(f"{script.name} was told {script.last_words}, and no server has died")

    def _serve_session(self, session: peers.Session) -> None:
        end = self.wires.get(session)
        if end is None:
            return
        session.incoming += end.incoming.take(self._piece(len(end.incoming.data)))
        for _ in range(self.rng.choice([1, 3, 100])):
            if not session.step():
                break
        self._write(session.outgoing, end)
        if end.is_over() and not session.incoming:
            session.ended = True
            session.outgoing.clear()
        if (session.ended and not session.outgoing) or end.outgoing.closed:
            self._close_session(session, End.close)

    def _close_session(self, session: peers.Session, how: Callable[[End], None]) -> None:
        self.tell(f"session {session.process_id} is closed")
        session.ended = True
        how(self.wires.pop(session))
        del self.database.sessions[session.process_id]

    def _write(self, unsent: bytearray, end: End) -> None:
        if end.outgoing.closed:
            unsent.clear()
        size = self._piece(min(len(unsent), end.outgoing.room()))
        end.outgoing.data += unsent[:size]
        del unsent[:size]

    def _piece(self, size: int) -> int:
        return self.rng.randint(0, size) if self.rng.random() < 0.4 else size

    def _someone(self) -> Application | None:
        present = [one for one in self.applications if not one.gone and not one.leaving]
        return self.rng.choice(present) if present else None

    # -------------------------------------------------------------------------------------------------- in place of the real

    def _transport(self, end: End) -> MemoryTransport:
        fd = next(self._fds)
        self.poller.ends[fd] = end
        return MemoryTransport(end, fd, self.rng)

    async def _dial(self, backend: BackendState, target: ServerTarget) -> MemoryStream:
        answer: list[End | None] = [None]
        event = trio.Event()
        self.dials.append((event, answer))
        try:
            await event.wait()
        except trio.Cancelled:
            self.dials = [dial for dial in self.dials if dial[0] is not event]
            if answer[0] is not None:
                answer[0].close()
            raise
        if answer[0] is None:
            raise ConnectFailed("connection refused")
        return MemoryStream(self._transport(answer[0]), server_side=False)

    def _time(self) -> float:
        return self.now

    def _log_fault(self, error: Exception, where: str) -> None:
        raise Violation(f"{where}: {error!r}") from error

    def tell(self, what: str) -> None:
        if self.traced:
            self.trace.append(what)

    # -------------------------------------------------------------------------------------------------- the invariants

    def check(self) -> None:
        """Design, section 8: 1 to 3, as far as the peers cannot see them."""
        for pool in self.server.backends.pools():
            pool.verify()
            for conn in pool.connections:
                assert isinstance(conn, ServerConnection)
                self._check_lease(conn)
        for state in self.server.backends.states.values():
            state.budget.verify()
        for client in self.server.clients.by_id.values():
            if client.server is not None and client.server.client is not client:
                raise Violation(f"client {client.id} uses the server connection of another")
        # dualpool's end may be closed while the session has yet to notice; such a session counts no more.
        sessions = sum(1 for session, end in self.wires.items() if session.started and not end.incoming.closed)
        if sessions > self.budget:
            raise Violation(f"{sessions} sessions, and a budget of {self.budget}")

    def _check_lease(self, conn: ServerConnection) -> None:
        client = conn.client
        if conn.state == LEASED:
            if client is None or client.server is not conn:
                raise Violation(f"{conn!r} is leased to nobody")
        elif client is not None:
            raise Violation(f"{conn!r} has a client")

    async def _calm_down(self) -> None:
        """No more faults: everybody gets what was asked for, ends what is open, and says goodbye."""
        self.tell("=== calm")
        for round_number in range(CALM_ROUNDS):
            waiting = [one for one in self.applications if not one.gone]
            for application in waiting:
                self._bring_to_end(application)
            if not waiting:
                return
            await self._calm_round(round_number)
        raise Violation("it does not come to rest: " + ", ".join(f"{one.script.name} {list(one.script.expected)[:3]}" for one in waiting))

    def _bring_to_end(self, application: Application) -> None:
        script = application.script
        if application.leaving or script.expected or application.unsent or script.last_words or not script.may_leave():
            return
        script.may_ask()
        last = script.finish()
        if last:
            application.unsent += last
        else:
            self._say_goodbye(application)

    async def _calm_round(self, round_number: int) -> None:
        while self.dials:
            self.answer_dial()
        self.end_slow()
        if round_number % 10 == 9:
            self._pass(0.25)
        await self._step(World.move_bytes)

    async def _shut_down(self) -> None:
        self.tell("=== the end")
        self.server.close_pools()
        for round_number in range(CALM_ROUNDS):
            if not self.wires and not any(pool.counted != [0, 0] for pool in self.server.backends.pools()):
                return
            await self._calm_round(round_number)
        raise Violation("something is left")


def _first(error: BaseException) -> BaseException:
    """What went wrong, out of the groups that nurseries have put it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


Action = Callable[[World], None]

DECK: Sequence[Action] = (
    [World.move_bytes] * 60
    + [World.ask] * 30
    + [World.answer_dial] * 8
    + [World.arrive] * 3
    + [World.end_slow] * 2
    + [World.cancel] * 4
    + [World.let_time_pass] * 3
    + [World.vanish, World.vanish, World.say_goodbye, World.kill, World.refuse_dial, World.reconnect]
)

BUSY_DECK: Sequence[Action] = (
    [World.move_many] * 600
    + [World.ask] * 400
    + [World.answer_dial] * 40
    + [World.arrive] * 8
    + [World.end_slow] * 40
    + [World.cancel] * 8
    + [World.let_time_pass] * 2
    + [World.vanish, World.say_goodbye, World.kill, World.refuse_dial, World.reconnect]
)
