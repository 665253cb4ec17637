"""The world of links: dualpool's own server, links, relays, pools and reactor, between simulated clients and a simulated database.

Only the edges are simulated: sockets, readiness, time, and the two kinds of peers. The servers are on several hosts, which refuse, hang,
are full, die, and come back as something else. Trio runs with its deterministic scheduling, so one seed is one schedule. After each
step the invariants of the design's section 8 are checked, and that nothing takes longer than it may; the peers check what they read.
"""

import contextlib
import random
from collections.abc import Awaitable, Callable, Hashable, Iterator, MutableSequence, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, cast
from unittest import mock

import attrs
import trio
import trio._core._run
import trio.testing

from dualpool import connector as connector_module
from dualpool import reactor as reactor_module
from dualpool import server as server_module
from dualpool import upkeep as upkeep_module
from dualpool.accounts import Account, CancelRequest, ClientLogin, FrontendPolicy, ServerTarget
from dualpool.backends import BackendState
from dualpool.config import Backend, Config, Timeouts
from dualpool.config import Database as ConfiguredDatabase
from dualpool.engines import ENGINES
from dualpool.errors import ConnectFailed, DualpoolError
from dualpool.exchange import drive
from dualpool.lease import CHECKING, CLOSING, LEASED, RESETTING, Leasable
from dualpool.link import Client, ClientWaiter, ServerConnection
from dualpool.log import LOGGER
from dualpool.pool import Pool
from dualpool.protocol import APPLICATION, MAINTENANCE, SESSION, TRANSACTION, ConnectionClosed, FindAccount
from dualpool.reactor import Reactor
from dualpool.server import Server
from dualpool.upkeep import GOODBYE_SECONDS, Upkeep
from tests.simulation import peers
from tests.simulation.machines import ANSWERS, FITS, HANGS, PLENTY, REFUSES, TAKES_WRITES, Machine, make_fit
from tests.simulation.memory import End, MemoryPoller, MemoryStream, MemoryTransport, connection
from tests.simulation.mysql import MysqlClient, MysqlDatabase
from tests.simulation.patience import Patience
from tests.simulation.peers import Violation
from tests.simulation.postgres import PostgresClient, PostgresDatabase

CALM_ROUNDS: Final = 3000
NARROW_ROUNDS: Final = 100
WIDE_BYTES: Final = 60
PROTOCOLS: Final[dict[str, tuple[type[peers.Client], type[peers.Database]]]] = {
    "postgres": (PostgresClient, PostgresDatabase),
    "mysql": (MysqlClient, MysqlDatabase),
}


TIMEOUTS: Final = Timeouts(
    query_wait=20.0,
    query_wait_notify=2.0,
    server_connect=6.0,
    server_idle=30.0,
    server_lifetime=60.0,
    server_check_delay=5.0,
    cancel_wait=5.0,
    reset=3.0,
    recover=4.0,
)
QUERY_SECONDS: Final = 15.0
JUMPS: Final = (0.1, 1.0, 4.0, 15.0)
TICK: Final = 1.0
WAIT_SECONDS: Final = TIMEOUTS.query_wait + TICK
DIAL_SECONDS: Final = max(TIMEOUTS.server_connect, TIMEOUTS.cancel_wait)
"""To connect and log in at one host, for whatever that is."""
PLENTY_OF_BYTES: Final = 5000
EXCHANGES: Final = {
    CHECKING: TIMEOUTS.reset,
    RESETTING: 4 * JUMPS[-1],
    CLOSING: GOODBYE_SECONDS,
}
"""How long a connection may be in a state. The second has up to four parts (a cancel request, a recovery, the question what the server is,
a reset), each of which a jump of time may make longer than its limit."""
IN_TIME: Final = {
    CHECKING: ("did not answer the check",),
    RESETTING: ("could not be recovered in time", "could not be reset in time", "is not what it was", "in the middle of a message"),
}
"""What must be said of a connection that is given up in a state because its server hangs."""


class Turns(random.Random):
    """The order of the tasks in each turn of Trio's."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._size = 0

    def shuffle(self, tasks: MutableSequence[Any]) -> None:
        self._size = len(tasks)
        if self._size > 1:
            super().shuffle(tasks)

    def was_alone(self) -> bool:
        """The only task in this turn asks: then nobody else has anything to do in the next one, either."""
        return self._size == 1 and not trio._core._run.GLOBAL_RUN_CONTEXT.runner.runq


class Dial:
    """Somebody has dialled a host."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.answered = trio.Event()
        self.end: End | None = None
        """The connection; None: there is none."""


class LeaseCounter(Client):
    """A client that numbers its leases, so that one can be told from the next."""

    leases = 0

    def attach(self, conn: Leasable) -> None:
        self.leases += 1
        super().attach(conn)


class Application:
    """A client's process: its script, its end of the connection, and what it has not written yet."""

    def __init__(self, script: peers.Client, end: End) -> None:
        self.script = script
        self.end = end
        self.client: Client | None = None
        """dualpool's side of it, once it is logged in."""
        self.unsent = script.unsent
        self.asked_at = 0.0
        """When it has written to its socket last."""
        self.was_too_slow = False
        """A query of its, the current one perhaps, has taken longer than it may."""
        self.leaving = False
        self.gone = False

    def has_work(self) -> bool:
        """It can write or read, or is about to notice its end."""
        incoming = self.end.incoming
        return not self.gone and bool(self.unsent or incoming.data or incoming.closed)


def has_work(session: peers.Session, end: End) -> bool:
    """It can write, read, or go on with what it has read; or its end has come."""
    if session.machine.state == HANGS:
        return False
    there = end.incoming.data or session.incoming or session.outgoing
    return bool(there or session.ended or end.incoming.closed or end.outgoing.closed)


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
        self.narrowest = self.database.smallest_pipe * (10 if self.busy else 1)
        """Bytes: what a connection to a server holds at least."""
        self.now = 1000.0
        self.poller = MemoryPoller(rng)
        self.applications: list[Application] = []
        self.wires: dict[peers.Session, End] = {}
        self.sessions: dict[End, peers.Session] = {}
        """By dualpool's end."""
        self.dials: list[Dial] = []
        self.leases: set[tuple[ServerConnection, int, int]] = set()
        """Those of the step before: which connection, which client, and the how manieth of that client."""
        self.patience = Patience()
        self.kills = 0
        self._fds = count(10)
        self._names = count(1)
        self.budget = rng.choice([3, 5] if self.busy else [1, 2, 3, 5])
        self.query_seconds = rng.choice([0.0, 0.0, QUERY_SECONDS])
        self.config = self._choose_config()
        self.target = self.config.backends["main"].target_session_attrs
        self.machines = {host: Machine(host, rng, database_type.roles) for host in self.config.backends["main"].hosts}
        make_fit(rng.choice(list(self.machines.values())), self.target)
        self.server: Server
        self.renewed: set[ServerConnection] = set()
        """Connections in whose place a client gets new ones."""
        self.renewing: set[ClientWaiter] = set()
        """Who waits for them."""
        self.nursery: trio.Nursery
        self.clock = trio.testing.MockClock()
        self.turns = Turns(seed)

    def _choose_config(self) -> Config:
        rng = self.rng
        backend = Backend(
            name="main",
            url=f"{self.protocol}://app@db",
            budget=self.budget,
            reserved_maintenance=rng.choice([0, 1]),
            protocol=cast(Any, self.protocol),
            hosts=tuple((f"h{n}", 1) for n in range(rng.choice([1, 1, 2, 3]))),
            load_balance=rng.choice(["in-order", "round-robin"]),
            target_session_attrs=rng.choice(["any", "any", "read-write", *FITS]),
            user="app",
            password="secret",
            sslmode="disable",
        )
        databases = {
            name: ConfiguredDatabase(
                name=name,
                backend="main",
                database=name,
                pool_size=rng.choice([1, 2, 4]),
                min_pool_size=rng.choice([0, 0, 1]),
                verify="learn" if name == "one" else "never",  # where the server is always asked, nothing that was forgotten shows
            )
            for name in ("one", "two")
        }
        return Config(backends={"main": backend}, databases=databases, timeouts=attrs.evolve(TIMEOUTS, query=self.query_seconds))

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
            mock.patch.object(run, "_r", self.turns),
            mock.patch.object(reactor_module, "monotonic", self._time),
            mock.patch.object(server_module, "monotonic", self._time),
            mock.patch.object(connector_module, "monotonic", self._time),
            mock.patch.object(upkeep_module, "monotonic", self._time),
            mock.patch.object(upkeep_module, "Stream", MemoryStream),
            mock.patch.object(Pool, "connect_failed", self._heard(Pool.connect_failed, self._check_failed_connect)),
            mock.patch.object(Pool, "condemn", self._heard(Pool.condemn, self._check_condemned)),
            mock.patch.object(connector_module.Connector, "dial", self._dial),
            mock.patch.object(Server, "log_fault", self._log_fault),
            mock.patch.object(Server, "renew", self._renew),
            mock.patch.object(Upkeep, "_renew", self._followed(Upkeep._renew)),
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
                await self._serve_newcomers()
                await self._recover()
                await self._shut_down()
            finally:
                # What is shielded ends by its deadline, so time must go on for it.
                self.clock.rate = 1e6
                self.nursery.cancel_scope.cancel()

    async def _step(self, action: "Action") -> None:
        action(self)
        for _ in range(self.rng.randint(1, 4)):
            await trio.lowlevel.checkpoint()
            if self.turns.was_alone():
                break
        self.check()

    # -------------------------------------------------------------------------------------------------- what can happen

    def arrive(self) -> None:
        """A client has logged in."""
        if sum(not application.gone for application in self.applications) < 8:
            self._arrive()

    def _arrive(self) -> Application:
        rng, server = self.rng, self.server
        script = self.script_type(f"c{next(self._names)}", rng)
        lane = MAINTENANCE if rng.random() < 0.1 else APPLICATION
        mode = SESSION if lane == MAINTENANCE or rng.random() < 0.15 else TRANSACTION
        login = script.login(rng.choice(["one", "two"]), mode, lane)
        theirs, ours = connection(rng, 1 if self.narrowest < PLENTY_OF_BYTES else PLENTY_OF_BYTES)
        application = Application(script, theirs)
        self.applications.append(application)
        self.tell(f"{script.name} comes to {login.account.database}, mode {mode}, lane {lane}")
        if script.logs_in():
            self.nursery.start_soon(self._log_in, application, ours, login.account)
        else:
            self._welcome(application, MemoryStream(self._transport(ours), server_side=True), login, server.clients.new_id())
        return application

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
        client = LeaseCounter(server.reactor, stream.transport(), relay, entry.pool, entry.engine, server, account.lane)
        client.id = process_id
        client.login = login
        server.settle(client)
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
        """A host answers somebody who has dialled it, one way or the other."""
        dials = [dial for dial in self.dials if dial.machine.state != HANGS]
        if dials:
            self._answer(self.rng.choice(dials))

    def _answer(self, dial: Dial) -> None:
        self.dials.remove(dial)
        dial.answered.set()
        if dial.machine.state == REFUSES:
            self.tell(f"a dial to {dial.machine} is refused")
            return
        theirs, dial.end = connection(self.rng, self.narrowest)
        session = self.database.new_session(dial.machine)
        self.wires[session] = theirs
        self.sessions[dial.end] = session
        self.tell(f"session {session.process_id} begins at {dial.machine}")

    def refuse_dial(self) -> None:
        """Somebody who dialled a host does not get through."""
        dials = [dial for dial in self.dials if dial.machine.state != HANGS]
        if dials:
            self.tell("a dial is refused")
            dial = self.rng.choice(dials)
            self.dials.remove(dial)
            dial.answered.set()

    def crash(self) -> None:
        """A host is gone, and with it all its sessions, whatever they are doing. Or they hang until it is back."""
        machine = self._choose_machine(ANSWERS, HANGS)
        if machine is not None:
            machine.crash(self.rng)
            self.tell(f"crash: {machine}")
            if not machine.has_lost_power:
                self._end_sessions(machine)

    def hang(self) -> None:
        """A host answers nothing any more, for a while."""
        machine = self._choose_machine(ANSWERS)
        if machine is not None:
            machine.state = HANGS
            self.tell(f"hang: {machine}")

    def come_back(self) -> None:
        """A host answers again, as something else perhaps."""
        machine = self._choose_machine(REFUSES, HANGS)
        if machine is not None:
            self._revive(machine, partial(machine.come_back, self.rng))

    def _revive(self, machine: Machine, how: Callable[[], None]) -> None:
        forgotten = machine.has_lost_power or machine.state == REFUSES
        how()
        self.tell(f"back: {machine}")
        if forgotten:
            self._end_sessions(machine)

    def switch(self) -> None:
        """A host becomes something else and goes on."""
        machine = self._choose_machine(ANSWERS)
        if machine is not None:
            machine.take_role(self.rng.choice([role for role in machine.roles if role != machine.role]))
            self.tell(f"now: {machine}")

    def crowd(self) -> None:
        """Others take the connections of a host, or leave it."""
        machine = self._choose_machine(ANSWERS)
        if machine is not None:
            machine.room = self.rng.choice([0, 1, 2, PLENTY])
            self.tell(f"now: {machine}")

    def _choose_machine(self, *states: str) -> Machine | None:
        machines = [machine for machine in self.machines.values() if machine.state in states]
        machine = self.rng.choice(machines) if machines else None
        if machine is not None:
            machine.unchanged_since = self.now
        return machine

    def _end_sessions(self, machine: Machine) -> None:
        for session in [session for session in self.wires if session.machine is machine]:
            self.kills += session.started
            self._close_session(session, self.rng.choice([End.close, End.reset]))

    def let_time_pass(self) -> None:
        """Seconds pass, and deadlines with them."""
        self._pass(self.rng.choice(JUMPS))

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        self.tell(f"--- {self.now:.1f} s")
        self.clock.jump(seconds)
        for application in self.applications:
            if self.query_seconds and application.script.expected and self.now - application.asked_at >= self.query_seconds:
                application.was_too_slow = True
                self.database.may_be_canceled.add(application.script.name)
        self.server.do_what_is_due()

    def reconnect(self) -> None:
        """An order of the administrator's."""
        for pool in self.server.backends.pools():
            pool.reconnect()

    def move_bytes(self) -> None:
        """Every peer does a bit, in random order; then the reactor handles what is ready."""
        work: list[Callable[[], None]] = [partial(self._serve_application, one) for one in self.applications if one.has_work()]
        work += [partial(self._serve_session, session, end) for session, end in self.wires.items() if has_work(session, end)]
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
        if application.unsent:
            application.asked_at = self.now
            self._write(application.unsent, end)
        script.read(self._read(end))
        if end.is_over():
            end.close()
            application.gone = True
            self.database.may_be_canceled.add(script.name)
            self.tell(f"{script.name} is at its end: {script.last_words}")
            # In the middle of a message there is no way to say anything.
            cut_off = script.in_message() and (self.kills > 0 or application.was_too_slow)
            if not application.leaving and not script.last_words and not script.perhaps_last and not cut_off:
                raise Violation(f"{script.name} was disconnected without a word")
            too_slow = script.last_words is not None and "took too long" in script.last_words[2]
            if too_slow and not application.was_too_slow:
                raise Violation(f"{script.name} was told {script.last_words} too early")
            unsaid = script.last_words is not None and "does not say" in script.last_words[2]
            if script.last_words and not self.kills and not too_slow and not unsaid:
                raise Violation(f"{script.name} was told {script.last_words}, and no server has died")

    def _serve_session(self, session: peers.Session, end: End) -> None:
        session.incoming += self._read(end)
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
        theirs = self.wires.pop(session)
        how(theirs)
        del self.database.sessions[session.process_id]

    def _write(self, unsent: bytearray, end: End) -> None:
        if end.outgoing.closed:
            unsent.clear()
        size = self._piece(min(len(unsent), end.outgoing.room()))
        if size:
            end.outgoing.put(unsent[:size])
            del unsent[:size]

    def _read(self, end: End) -> bytes:
        size = self._piece(len(end.incoming.data))
        return end.incoming.take(size) if size else b""

    def _piece(self, size: int) -> int:
        return self.rng.randint(0, size) if size and self.rng.random() < 0.4 else size

    def _someone(self) -> Application | None:
        present = [one for one in self.applications if not one.gone and not one.leaving]
        return self.rng.choice(present) if present else None

    # -------------------------------------------------------------------------------------------------- in place of the real

    def _transport(self, end: End) -> MemoryTransport:
        fd = next(self._fds)
        self.poller.ends[fd] = end
        return MemoryTransport(end, fd, self.rng)

    async def _dial(self, backend: BackendState, target: ServerTarget) -> MemoryStream:
        dial = Dial(self.machines[target.host, target.port])
        self.dials.append(dial)
        try:
            await dial.answered.wait()
        except trio.Cancelled:
            if dial in self.dials:
                self.dials.remove(dial)
            if dial.end is not None:
                dial.end.close()
            raise
        if dial.end is None:
            raise ConnectFailed("connection refused")
        return MemoryStream(self._transport(dial.end), server_side=False)

    def _time(self) -> float:
        return self.now

    def _log_fault(self, error: Exception, where: str) -> None:
        raise Violation(f"{where}: {error!r}") from error

    def _renew(self, conn: ServerConnection, waiter: ClientWaiter) -> None:
        self.renewed.add(conn)
        self.renewing.add(waiter)
        self.server.upkeep.renew(conn, waiter)

    def _followed(self, renew: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """`renew`; when it is over, its client has been given something, or queues up."""

        async def followed(upkeep: Upkeep, conn: ServerConnection, waiter: ClientWaiter) -> None:
            try:
                await renew(upkeep, conn, waiter)
            finally:
                self.renewing.discard(waiter)

        return followed

    def tell(self, what: str) -> None:
        if self.traced:
            self.trace.append(what)

    # -------------------------------------------------------------------------------------------------- the invariants

    def check(self) -> None:
        """Design, section 8: 1 to 3, as far as the peers cannot see them; roles; and that nothing takes longer than it may."""
        leases = set()
        under_way: dict[Hashable, float] = {}
        for pool in self.server.backends.pools():
            pool.verify()
            for conn in pool.connections:
                assert isinstance(conn, ServerConnection)
                self._check_lease(conn)
                if conn.state == LEASED and conn.client is None:
                    under_way[conn, "renewed"] = GOODBYE_SECONDS + WAIT_SECONDS
                elif conn.state in EXCHANGES:
                    under_way[conn, conn.state] = EXCHANGES[conn.state]
                elif isinstance(conn.client, LeaseCounter):
                    leases.add((conn, conn.client.id, conn.client.leases))
        for lease in leases - self.leases:
            self._check_role(lease[0])
        self.leases = leases
        for state in self.server.backends.states.values():
            state.budget.verify()
        self._check_clients(under_way)
        # dualpool's end may be closed while the session has yet to notice; such a session counts no more.
        sessions = [session for session, end in self.wires.items() if not end.incoming.closed]
        started = sum(session.started for session in sessions)
        if started > self.budget:
            raise Violation(f"{started} sessions, and a budget of {self.budget}")
        for session in sessions:
            if not session.started and not session.ended:
                under_way[session] = DIAL_SECONDS
        for dial in self.dials:
            under_way[dial] = DIAL_SECONDS
        self.patience.check(self.now, under_way)

    def _check_lease(self, conn: ServerConnection) -> None:
        client = conn.client
        if conn.state == LEASED:
            # (While a connection is renewed, the client that it is for only waits.)
            if conn not in self.renewed if client is None else client.server is not conn:
                raise Violation(f"{conn!r} is leased to nobody")
        elif client is not None:
            raise Violation(f"{conn!r} has a client")

    def _check_role(self, conn: ServerConnection) -> None:
        """A new lease: on a server that is what is looked for, as far as anybody has asked it."""
        session = self._session_of(conn)
        if self.target != "any" and session.told_role not in FITS[self.target]:
            raise Violation(f"a lease on a server that has said it is {session.told_role or 'nothing'}")
        if session.machine.found_out:
            raise Violation(f"a lease on {session.machine}, which has said that it is not what is looked for any more")

    def _session_of(self, conn: Leasable) -> peers.Session:
        assert isinstance(conn, ServerConnection)
        return self.sessions[cast(MemoryTransport, conn.channel.transport).end]

    def _check_clients(self, under_way: dict[Hashable, float]) -> None:
        for client in self.server.clients.by_id.values():
            conn = client.server
            if conn is not None and conn.client is not client:
                raise Violation(f"client {client.id} uses the server connection of another")
            if client.waiter is not None:
                under_way[client.waiter] = WAIT_SECONDS
                if client.waiter not in self.renewing and not client.pool.queue.holds(client.waiter):
                    raise Violation(f"client {client.id} waits, and nobody knows of it")
            elif conn is not None and self.query_seconds and not conn.relay.answered():
                under_way[client, client.asked_at] = self.query_seconds + TICK

    def _heard(self, call: Callable[..., None], check: Callable[..., None]) -> Callable[..., None]:
        """`call`, after `check`."""

        def heard(*arguments: object) -> None:
            check(*arguments)
            call(*arguments)

        return heard

    def _check_failed_connect(self, pool: Pool, error: DualpoolError, lane: int) -> None:
        """Where every host hangs, that is what must be said."""
        # (What a host said before may be read behind the next jump of time.)
        seconds = 2 * len(self.machines) * TIMEOUTS.server_connect + JUMPS[-1]
        if all(machine.state == HANGS and self.now - machine.unchanged_since > seconds for machine in self.machines.values()):
            said = f"did not answer within {TIMEOUTS.server_connect:g} s"
            if said not in error.message:
                raise Violation(f"every host hangs, and a connect fails with: {error.message}")

    def _check_condemned(self, pool: Pool, conn: Leasable, reason: str) -> None:
        """What an exchange with a server that hangs ends with; and that a server is not what it was must be known from now on."""
        if conn.state in IN_TIME:
            session = self._session_of(conn)
            machine = session.machine
            if machine.state == HANGS and machine.unchanged_since <= self.patience.since((conn, conn.state)) < self.now:
                if not any(said in reason for said in IN_TIME[conn.state]):
                    raise Violation(f"{machine} hangs, and a connection to it is given up because: {reason}")
            elif session.told_role and self.target in TAKES_WRITES and session.told_role not in FITS[self.target]:
                machine.found_out = machine.role == session.told_role

    async def _calm_down(self) -> None:
        """No more faults, and one host is what is looked for: everybody gets what was asked for, ends what is open, and says goodbye."""
        self.tell("=== calm")
        good = self.rng.choice(list(self.machines.values()))
        for machine in self.machines.values():
            if machine is good:
                self._revive(good, partial(make_fit, good, self.target))
            elif machine.state == HANGS and not self.query_seconds:
                # Who asked there has no time limit.
                machine.state = REFUSES
                self._end_sessions(machine)
        await self._come_to_rest()

    async def _come_to_rest(self) -> None:
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
        for dial in [dial for dial in self.dials if dial.machine.state != HANGS]:
            self._answer(dial)
        self.end_slow()
        if round_number % 10 == 9 or self._is_still():
            self._pass(0.25)
        if round_number == NARROW_ROUNDS:
            self._widen()
        await self._step(World.move_bytes)

    def _is_still(self) -> bool:
        """Only time can change anything."""
        peers_work = any(one.has_work() for one in self.applications) or any(has_work(*wire) for wire in self.wires.items())
        return not peers_work and self.turns.was_alone()

    def _widen(self) -> None:
        """Where bytes go one by one it would take long until all have come, and be the same over and over."""
        self.narrowest = max(self.narrowest, WIDE_BYTES)
        for end in [*self.wires.values(), *(one.end for one in self.applications)]:
            for pipe in (end.incoming, end.outgoing):
                pipe.capacity = max(pipe.capacity, WIDE_BYTES)

    async def _serve_newcomers(self) -> None:
        """With nobody else there, and every host either there or not, nobody is turned away; if bytes are quick, for that takes time."""
        self.narrowest = PLENTY_OF_BYTES
        if any(machine.state == HANGS for machine in self.machines.values()):
            return
        # Who was refused for good is refused for a while without asking again.
        for _ in range(3):
            self._pass(1.0)
            await self._step(World.move_bytes)
        self.kills, newcomers = 0, [self._arrive() for _ in range(2)]
        for newcomer in newcomers:
            while not newcomer.script.expected:
                await self._calm_round(0)
                if newcomer.script.may_ask():
                    newcomer.unsent += newcomer.script.request()
        await self._come_to_rest()
        if any(newcomer.script.refusals for newcomer in newcomers):
            raise Violation("somebody was turned away, and a host is up")

    async def _recover(self) -> None:
        """Where nobody is refused, the budget becomes what it was."""
        budget = self.server.backends.states["main"].budget
        for _ in range(2 * self.budget):
            if budget.limit == self.budget:
                return
            self._pass(TICK)
            await self._calm_round(0)
        raise Violation(f"the budget is still {budget.limit}")

    async def _shut_down(self) -> None:
        self.tell("=== the end")
        self.server.close_pools()
        for round_number in range(CALM_ROUNDS):
            # A host that hangs does not notice that dualpool has closed.
            left = [session for session, end in self.wires.items() if session.machine.state != HANGS or not end.incoming.closed]
            if not left and not any(pool.counted != [0, 0] for pool in self.server.backends.pools()):
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
    + [World.cancel] * 8
    + [World.let_time_pass] * 4
    + [World.vanish, World.vanish, World.say_goodbye, World.kill, World.refuse_dial, World.reconnect]
    + [World.crash, World.hang, World.switch, World.switch, World.crowd]
    + [World.come_back] * 4
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
    + [World.crash, World.hang, World.switch, World.crowd]
    + [World.come_back] * 8
)
