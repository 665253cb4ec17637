"""What a client reads through relays, several servers and other clients equals what it reads from a server of its own.

A program is a list of flights; a flight is sent without waiting, and the next one is sent when all its answers are there.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from dualpool.protocol import RelayLimits
from tests.helpers import frames
from tests.helpers.model_postgres import ENDS
from tests.helpers.relay_world import Client, World

Op = tuple[Any, ...]

NAMES = st.sampled_from(["a", "b", "c"])
UNNAMED_OR_NAME = st.sampled_from(["", "", "a", "b", "c"])
PORTALS = st.sampled_from(["", "", "", "p"])

PLAIN = [
    "SELECT x 1", "SELECT y 3", "INSERT", "ERROR", "SYNTAX", "", "COPY t TO STDOUT",
    "BEGIN", "BEGIN", "COMMIT", "ROLLBACK", "END", "ABORT", "SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "ROLLBACK TO SAVEPOINT b",
    "RELEASE a", "RELEASE SAVEPOINT b",
    "SET work_mem = '8MB'", "SET work_mem = '16MB'", "SET app.note = 'n'", "SET app.note = 'm'", "SET TimeZone = 'A'", "SET TimeZone = 'B'",
    "SET application_name = 'one'", "SET LOCAL work_mem = '32MB'", "SET LOCAL TimeZone = 'C'",
    "RESET work_mem", "SET work_mem TO DEFAULT", "DISCARD PLANS", "DEALLOCATE ALL",
]  # fmt: skip
PARAMETERISED = ["SELECT $1 1", "SELECT $1,$2 2", "INSERT $1"]
# Of a client without start-up settings only: what RESET goes back to is, inside a lease, the server's default and not the client's.
RESETS = ["RESET ALL", "RESET TimeZone", "RESET application_name", "DISCARD ALL", "SET TimeZone TO DEFAULT", "SET app.note TO DEFAULT"]
DEALLOCATES = ["DEALLOCATE a", "DEALLOCATE b", "DEALLOCATE PREPARE c"]


def texts(resets: bool) -> st.SearchStrategy[str]:
    """One statement."""
    return st.sampled_from(PLAIN + (RESETS if resets else []))


def queries(resets: bool) -> st.SearchStrategy[Op]:
    """A simple Query of one to four statements."""
    several = st.lists(texts(resets), min_size=1, max_size=4).map("; ".join)
    return st.tuples(st.just("query"), st.one_of(several, several, st.sampled_from(DEALLOCATES)))


def steps(resets: bool) -> st.SearchStrategy[list[Op]]:
    """Part of an extended query: whole idioms of drivers, and single messages."""
    text = st.one_of(texts(resets), st.sampled_from(PARAMETERISED), st.sampled_from(DEALLOCATES))
    rows = st.sampled_from([0, 0, 1, 2])
    single: st.SearchStrategy[Op] = st.one_of(
        st.tuples(st.just("parse"), UNNAMED_OR_NAME, text),
        st.tuples(st.just("bind"), PORTALS, UNNAMED_OR_NAME, st.sampled_from([True] * 9 + [False])),
        st.tuples(st.just("describe"), st.sampled_from(["S", "P"]), UNNAMED_OR_NAME),
        st.tuples(st.just("execute"), PORTALS, rows),
        st.tuples(st.just("close"), st.sampled_from(["S", "P"]), UNNAMED_OR_NAME),
        st.just(("flush",)),
        st.tuples(st.just("inside"), texts(resets=False)),
        st.just(("call",)),
    )
    one_shot = st.builds(
        lambda name, sql: [("parse", name, sql), ("bind", "", name, True), ("describe", "P", ""), ("execute", "", 0)], UNNAMED_OR_NAME, text
    )
    prepared = st.builds(lambda name, n: [("bind", "", name, True), ("execute", "", n)], UNNAMED_OR_NAME, rows)
    return st.one_of(single.map(lambda op: [op]), one_shot, prepared, prepared)


def segments(resets: bool) -> st.SearchStrategy[list[Op]]:
    """An extended query up to its Sync."""
    return st.lists(steps(resets), max_size=4).map(lambda parts: [op for part in parts for op in part] + [("sync",)])


def copies() -> st.SearchStrategy[list[list[Op]]]:
    """A COPY from the client: its start in one flight, the data in another."""
    data = st.lists(st.sampled_from([b"1", b"two", b"bad"]), max_size=3).map(lambda chunks: [("data", chunk) for chunk in chunks])
    end = st.sampled_from([("done",), ("done",), ("fail",)])
    tail = st.sampled_from(["", "; SELECT x 1", "; SET work_mem = '8MB'", "; COPY t FROM STDIN"])
    simple = st.builds(lambda d, e, t: [[("query", "COPY t FROM STDIN" + t)], [*d, e]], data, end, tail)
    early = st.builds(lambda d, e: [[("query", "COPY t FROM STDIN"), *d, e]], data, end)
    start = [("parse", "", "COPY t FROM STDIN"), ("bind", "", "", True), ("execute", "", 0)]
    extended = st.builds(lambda d, e: [[*start, ("flush",)], [*d, e, ("sync",)]], data, end)
    at_once = st.builds(lambda d, e: [[*start, *d, e, ("sync",)]], data, end)
    # As libpq does it: a Sync that the server reads in copy mode and ignores, and another one at the end.
    with_early_sync = st.builds(lambda d, e: [[*start, ("sync",)], [*d, e, ("sync",)]], data, end)
    return st.one_of(simple, early, extended, at_once, with_early_sync)


def programs(resets: bool) -> st.SearchStrategy[list[list[Op]]]:
    """What a client does."""
    short = queries(resets).map(lambda op: [op])
    flight = st.lists(st.one_of(short, segments(resets)), min_size=1, max_size=3).map(lambda parts: [op for part in parts for op in part])
    call = st.just([[("call",)]])
    return st.lists(st.one_of(flight.map(lambda f: [f]), flight.map(lambda f: [f]), copies(), call), min_size=1, max_size=8).map(
        lambda groups: [f for group in groups for f in group]
    )


class Driver:
    """Runs a program for a client: turns operations into messages and leaves out those that no driver sends or that no pooler can honour.

    Left out, because the relay decides when it reads a message, before the server has answered those before it:
    * in one flight after a segment that failed, the statement names that this segment has made or closed;
    * the unnamed statement after a failed segment that made or closed it, until it is made again;
    * named Parse in a failed transaction (the server need not be asked about a text that it knows).
    """

    def __init__(self, client: Client, program: list[list[Op]]) -> None:
        self.client = client
        self.direct = client.direct
        self.flights = [*program, [("finish",)]]
        self.unsynced = False
        self.running = False
        self.unnamed_certain = True
        self.touched: set[str] = set()
        self.tainted: set[str] = set()
        self.errors_before = 0

    def is_done(self) -> bool:
        return not self.flights

    def next_flight(self) -> None:
        """Send the next flight, or its part up to what must be answered before anything else is sent."""
        self.tainted.clear()
        flight = self.flights.pop(0)
        for index, op in enumerate(flight):
            if getattr(self, "_" + op[0])(*op[1:]) and flight[index + 1 :]:
                self.flights.insert(0, flight[index + 1 :])
                return

    def _say(self, data: bytes) -> None:
        self.client.say(data)

    def _end_segment(self) -> None:
        if self.direct.errors > self.errors_before:
            self.errors_before = self.direct.errors
            self.tainted |= self.touched
            if "" in self.touched:
                self.unnamed_certain = False
        self.touched.clear()

    def _open(self, name: str) -> bool:
        """May an extended-query message about statement `name` be sent?"""
        return not self.direct.copying and (name not in self.tainted if name else self.unnamed_certain)

    def _query(self, sql: str) -> bool:
        if self.direct.copying:
            return False
        if self.unsynced:
            self._sync()
        if sql.startswith("DEALLOCATE") and sql.rsplit(maxsplit=1)[-1] in self.tainted:
            return False
        self._say(frames.query(sql.encode()))
        self.unnamed_certain = True
        self._end_segment()
        return "DEALLOCATE" in sql or "DISCARD" in sql

    def _inside(self, sql: str) -> None:
        """A simple Query in the middle of a segment. (Behind a Parse alone the relay sends a Sync, so its error does not swallow it.)"""
        if self.running and not self.direct.copying:
            self.touched.add("")
            self._say(frames.query(sql.encode()))

    def _call(self) -> None:
        if not self.direct.copying:
            if self.unsynced and not self.running:
                self._sync()
            self._say(frames.call())
            if not self.unsynced:
                self._end_segment()

    def _parse(self, name: str, sql: str) -> None:
        if self.direct.copying or (name and (name in self.tainted or (self.direct.status == "E" and sql.partition(" ")[0] not in ENDS))):
            return
        if sql.startswith("DEALLOCATE") and sql.rsplit(maxsplit=1)[-1] in self.tainted:
            return
        self.unsynced = True
        self.touched.add(name)
        self._say(frames.parse(name.encode(), sql.encode()))
        if not name and self.direct.unnamed == sql and not self.direct.skipping:
            self.unnamed_certain = True

    def _bind(self, portal: str, name: str, fits: bool) -> None:
        if not self._open(name):
            return
        self.unsynced = True
        text = self.direct.statements.get(name, "") if name else self.direct.unnamed or ""
        if text.startswith("DEALLOCATE") and text.split()[-1] in self.tainted:
            return
        self.running = True
        count = text.count("$") + (0 if fits else 1)
        self._say(frames.bind(portal.encode(), name.encode(), *[b"v%d" % n for n in range(count)]))

    def _describe(self, what: str, name: str) -> None:
        if not self.direct.copying and (what == "P" or self._open(name)):
            self.unsynced = True
            self._say(frames.describe(what.encode(), name.encode()))

    def _execute(self, portal: str, rows: int) -> bool:
        if self.direct.copying:
            return False
        self.unsynced = self.running = True
        bound = self.direct.portals.get(portal)
        text = bound.text if bound else ""
        if text.startswith("DEALLOCATE"):
            if text.split()[-1] in self.tainted:
                return False
            self.touched.add(text.split()[-1])
        self._say(frames.execute(portal.encode(), rows))
        if text in {"DEALLOCATE ALL", "DISCARD ALL"}:
            self._sync()
            return True
        return False

    def _close(self, what: str, name: str) -> None:
        if not self.direct.copying and (what == "P" or self._open(name)):
            self.unsynced = True
            if what == "S":
                self.touched.add(name)
            self._say(frames.close(what.encode(), name.encode()))

    def _flush(self) -> None:
        if self.unsynced and not self.direct.copying:
            self._say(frames.FLUSH)

    def _sync(self) -> bool:
        if self.direct.copying == "simple":
            return False  # nobody does that
        self._say(frames.SYNC)
        if self.direct.copying:
            return True  # ignored; the rest comes after CopyInResponse
        self.unsynced = self.running = False
        self._end_segment()
        return False

    def _data(self, chunk: bytes) -> None:
        self._say(frames.copy_data(chunk))

    def _done(self) -> None:
        self._end_copy(frames.COPY_DONE)

    def _fail(self) -> None:
        self._end_copy(frames.copy_fail(b"why not"))

    def _end_copy(self, end: bytes) -> None:
        extended = self.direct.copying == "extended"
        self._say(end)
        self.unsynced = self.unsynced or extended
        if not extended and not self.direct.copying:
            self._end_segment()

    def _finish(self) -> None:
        """Leave no COPY, no segment and no transaction open."""
        while self.direct.copying:
            self._fail()
        if self.unsynced:
            self._sync()
        if self.direct.status != "I":
            self._query("ROLLBACK")


def run(world: World, drivers: list[Driver], leavers: bool = False) -> None:
    """Until every program is done and every answer read."""
    while True:
        ready = [driver for driver in drivers if not driver.is_done() and not driver.client.gone and driver.client.is_answered()]
        if ready and (world.random.random() < 0.2 or not any(True for _ in [0] if world.random.random() < 0.5)):
            world.random.choice(ready).next_flight()
        elif leavers and world.random.random() < 0.01:
            world.vanish(world.random.choice(world.clients))
        elif not world.step():
            if not ready:
                break
            world.random.choice(ready).next_flight()
        for client in world.clients:
            if client.seen != client.expected[: len(client.seen)]:
                world.check_answers(client)
    for client in world.clients:
        if not client.gone:
            world.check_answers(client)
            assert client.server is None, f"a lease was kept; pending: {client.server.relay.pending}"


STARTS: list[dict[str, str]] = [{}, {"TimeZone": "A"}, {"application_name": "me", "app.note": "s"}]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[World, list[Driver]]:
    """Servers, clients and their programs."""
    starts = draw(st.lists(st.sampled_from(STARTS), min_size=1, max_size=3))
    limits = RelayLimits(statements_per_server=draw(st.sampled_from([1, 2, 200])))
    world = World(draw(st.integers(0, 1 << 32)), draw(st.integers(1, 3)), starts, limits, draw(st.booleans()))
    drivers = [Driver(client, draw(programs(resets=not client.start))) for client in world.clients]
    return world, drivers


PROFILE = settings(
    max_examples=100, deadline=None, report_multiple_bugs=False, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@PROFILE
@given(worlds())
def test_clients_see_what_they_would_see_on_a_connection_of_their_own(made: tuple[World, list[Driver]]) -> None:
    world, drivers = made
    for driver in drivers:
        note(f"{driver.client.start}: {driver.flights}")
    run(world, drivers)


@PROFILE
@given(worlds())
def test_clients_that_vanish_harm_nobody_else(made: tuple[World, list[Driver]]) -> None:
    world, drivers = made
    for driver in drivers:
        note(f"{driver.client.start}: {driver.flights}")
    run(world, drivers, leavers=True)


def test_the_comparison_notices_a_setting_that_leaks() -> None:
    world = World(1, 1, [{}, {}], RelayLimits())
    one, two = (Driver(client, [[("query", "SET work_mem = '8MB'")], [("query", "SELECT x 1")]]) for client in world.clients)
    two.flights = [[("query", "SELECT x 1")]]
    one.next_flight()
    while world.step():
        pass
    world.servers[0].relay.settings = world.clients[1].relay.settings  # as if it had not been tracked
    two.next_flight()
    while world.step():
        pass
    with pytest.raises(AssertionError):
        world.check_answers(world.clients[1])
