"""Many clients on few server connections: each reply goes to the client that asked, and the server never sees more than the pool allows."""

import contextlib
import random
import socket
from typing import Any

import asyncmy
import asyncmy.errors
import mysql.connector
import pytest
import trio
import trio_asyncio
from trio_asyncio import aio_as_trio

from tests.e2e.mysql_world import RunWorld, Sampler, World
from tests.e2e.postgres_world import CROWD_DEADLINE, PATIENT
from tests.helpers.servers import MySQLServer

CLIENTS = 200
THREADS = 40
"""How many of the clients have a driver that blocks."""
ROUNDS = 8


class Asyncmy:
    """A client with a marker of its own, in the text protocol. Every method asks for what only this client's marker answers."""

    def __init__(self, marker: str, rng: random.Random) -> None:
        self.marker = marker
        self.rng = rng

    async def run(self, world: World) -> None:
        autocommit = self.rng.random() < 0.5
        self.client = await asyncmy.connect(**self.options(world), autocommit=autocommit)
        try:
            await self.execute(f"SET SESSION group_concat_max_len = {self.number()}")
            actions = [self.simple, self.many_rows, self.transaction, self.rolled_back, self.error, self.insert]
            for _ in range(ROUNDS):
                await self.rng.choice(actions)()
                assert await self.execute("SELECT @@group_concat_max_len, @@autocommit") == [(self.number(), int(autocommit))]
        finally:
            await self.client.ensure_closed()

    def options(self, world: World) -> dict[str, Any]:
        address = world.address()
        address["db"] = address.pop("database")
        return {**address, "connect_timeout": int(CROWD_DEADLINE)}

    def number(self) -> int:
        """Another one than all other clients have."""
        return 10_000 + int(self.marker[1:])

    async def execute(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        async with self.client.cursor() as cursor:
            await cursor.execute(sql, parameters or None)
            return list(await cursor.fetchall())

    async def simple(self) -> None:
        assert await self.execute("SELECT %s", self.marker) == [(self.marker,)]

    async def many_rows(self) -> None:
        found = await self.execute("SELECT %s, n FROM numbers ORDER BY n", self.marker)
        assert found == [(self.marker, n) for n in range(300)]

    async def transaction(self) -> None:
        await self.client.begin()
        before = await self.execute("SELECT CONNECTION_ID() + 0 AS processlist_id")
        await self.execute("UPDATE markers SET n = n + 1 WHERE marker = %s", self.marker)
        assert await self.execute("SELECT marker FROM markers WHERE marker = %s", self.marker) == [(self.marker,)]
        assert await self.execute("SELECT CONNECTION_ID() + 0 AS processlist_id") == before
        await self.client.commit()

    async def rolled_back(self) -> None:
        await self.client.begin()
        await self.execute("UPDATE markers SET n = -1000 WHERE marker = %s", self.marker)
        await self.client.rollback()

    async def error(self) -> None:
        with pytest.raises(asyncmy.errors.ProgrammingError, match=f"no_{self.marker}"):
            await self.execute(f"SELECT * FROM no_{self.marker}")

    async def insert(self) -> None:
        await self.client.begin()
        await self.execute("INSERT INTO inserted (marker) VALUES (%s)", self.marker)
        await self.client.commit()
        found = await self.execute("SELECT marker FROM inserted WHERE id = LAST_INSERT_ID()")
        assert found == [(self.marker,)]
        await self.client.commit()


class Blocking:
    """The same in a thread: PyMySQL for text, and mysql-connector's prepared statements."""

    def __init__(self, marker: str, rng: random.Random) -> None:
        self.marker = marker
        self.rng = rng

    def run(self, world: World) -> None:
        with world.connector(connect_timeout=int(CROWD_DEADLINE)) as self.client:
            cursor = self.client.cursor(prepared=True)
            cursor.execute("SET @@session.group_concat_max_len = %s", (20_000 + int(self.marker[1:]),))
            cursor.close()
            for _ in range(ROUNDS):
                self.rng.choice([self.text, self.parameters, self.prepared, self.transaction, self.error])()
                assert self.execute("SELECT @@group_concat_max_len") == [(20_000 + int(self.marker[1:]),)]

    def execute(self, sql: str, *parameters: Any, prepared: bool = True) -> list[tuple[Any, ...]]:
        cursor = self.client.cursor(prepared=prepared)
        try:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()

    def text(self) -> None:
        assert self.execute("SELECT %s, %s", self.marker, 1, prepared=False) == [(self.marker, 1)]

    def parameters(self) -> None:
        # The same text in every client, with values of other types each time.
        wanted = (self.marker, self.rng.choice([None, 7, "text", 0.5, b"bytes", self.marker]))
        found = self.execute("SELECT %s, %s", *wanted)
        assert [(plain(a), plain(b)) for a, b in found] == [tuple(map(plain, wanted))]

    def prepared(self) -> None:
        cursor = self.client.cursor(prepared=True)
        for number in range(5):
            cursor.execute(f"SELECT CONCAT('{self.marker}', %s, n) FROM numbers WHERE n < %s ORDER BY n", (number, 20))
            assert [plain(found) for (found,) in cursor.fetchall()] == [f"{self.marker}{number}{n}" for n in range(20)]
        cursor.close()

    def transaction(self) -> None:
        self.client.start_transaction()
        before = self.execute("SELECT CONNECTION_ID() + 0 AS processlist_id")
        self.execute("UPDATE markers SET n = n + 1 WHERE marker = %s", self.marker)
        assert [plain(found) for (found,) in self.execute("SELECT marker FROM markers WHERE marker = %s", self.marker)] == [self.marker]
        assert self.execute("SELECT CONNECTION_ID() + 0 AS processlist_id", prepared=False) == before
        self.client.commit()

    def error(self) -> None:
        with pytest.raises(mysql.connector.ProgrammingError, match=f"no_{self.marker}"):
            self.execute(f"SELECT * FROM no_{self.marker} WHERE n = %s", 1)


def plain(found: Any) -> Any:
    """Whether a driver calls a string text or bytes is its own affair."""
    return found.decode() if isinstance(found, bytes | bytearray) else found


def create_tables(world: World) -> None:
    """What the clients read and write."""
    world.execute("CREATE TABLE markers (marker VARCHAR(20) PRIMARY KEY, n INT NOT NULL DEFAULT 0) ENGINE=InnoDB")
    world.execute("CREATE TABLE inserted (id INT AUTO_INCREMENT PRIMARY KEY, marker VARCHAR(20)) ENGINE=InnoDB")
    world.execute("CREATE TABLE numbers (n INT PRIMARY KEY) ENGINE=InnoDB")
    world.execute("INSERT INTO numbers VALUES " + ",".join(f"({n})" for n in range(300)))
    world.execute("INSERT INTO markers (marker) VALUES " + ",".join(f"('m{n}')" for n in range(CLIENTS)))


async def run_clients(world: World) -> None:
    """All clients at once, to the end."""
    limiter = trio.CapacityLimiter(THREADS)
    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
        for number in range(THREADS):
            client = Blocking(f"m{number}", random.Random(number))
            nursery.start_soon(lambda client=client: trio.to_thread.run_sync(client.run, world, limiter=limiter))
        for number in range(THREADS, CLIENTS):
            nursery.start_soon(aio_as_trio(Asyncmy(f"m{number}", random.Random(number)).run), world)


async def test_200_clients_on_10_server_connections_get_their_own_replies(run_mysql: RunWorld, mysql_server: MySQLServer) -> None:
    world = run_mysql(mysql_server, pool_size=10, more=PATIENT)
    create_tables(world)
    with Sampler(world) as sampler, trio.fail_after(CROWD_DEADLINE):
        await run_clients(world)
    assert sampler.samples > 10
    assert 1 < sampler.most <= 10
    assert world.execute("SELECT COUNT(*) FROM markers WHERE n < 0") == [(0,)]
    world.wait_until_rested()


def test_hundreds_who_connect_in_the_same_moment_are_all_greeted(run_mysql: RunWorld, mariadb: MySQLServer) -> None:
    """The server speaks first in MySQL: who finds the kernel's queue full is connected, as it thinks, and would wait for ever."""
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", run_mysql(mariadb, 1).pooler.port("mysql"))
        clients = [stack.enter_context(socket.socket()) for _ in range(3 * CLIENTS)]
        for client in clients:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(address)
        for client in clients:
            client.settimeout(CROWD_DEADLINE)
            assert client.recv(1 << 10)[4] == 10
