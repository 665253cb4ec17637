"""Many clients on few server connections: each reply goes to the client that asked, and the server never sees more than the pool allows."""

import asyncio
import random
from typing import Any

import asyncpg
import psycopg
import pytest
import trio
import trio_asyncio
from trio_asyncio import aio_as_trio

from tests.e2e.postgres_world import CROWD_DEADLINE, PATIENT, RunWorld, Sampler, World
from tests.helpers.servers import PostgresServer

CLIENTS = 200
ROUNDS = 12


class Psycopg:
    """A client with a marker of its own. Every method asks for something that only this client's marker answers."""

    def __init__(self, marker: str, rng: random.Random) -> None:
        self.marker = marker
        self.rng = rng

    async def run(self, world: World) -> None:
        actions = [self.simple, self.extended, self.prepared, self.transaction, self.failed_transaction, self.pipeline, self.rows]
        self.client = await psycopg.AsyncConnection.connect(world.url(), autocommit=True, connect_timeout=int(CROWD_DEADLINE))
        async with self.client:
            await self.client.execute(f"SET app.marker = '{self.marker}'")
            for _ in range(ROUNDS):
                await self.rng.choice(actions)()
                await self.expect("SELECT current_setting('app.marker')")

    async def expect(self, query: str, *parameters: object, **options: Any) -> None:
        cursor = await self.client.execute(query, parameters or None, **options)
        assert await cursor.fetchone() == (self.marker,)

    async def simple(self) -> None:
        await self.expect(f"SELECT '{self.marker}'")

    async def extended(self) -> None:
        await self.expect("SELECT %s::text", self.marker, prepare=False)

    async def prepared(self) -> None:
        # psycopg's names are _pg3_0, _pg3_1 ... in every client, here for different texts.
        await self.expect(f"SELECT '{self.marker}' || %s::text", "", prepare=True)
        await self.expect("SELECT %s || ''::text", self.marker, prepare=True)

    async def transaction(self) -> None:
        async with self.client.transaction():
            cursor = await self.client.execute("SELECT pg_backend_pid()")
            before = await cursor.fetchone()
            await self.client.execute("SET LOCAL app.marker = 'local'")
            await self.expect("SELECT %s::text", self.marker)
            await self.client.execute("UPDATE markers SET n = n + 1 WHERE marker = %s", [self.marker])
            cursor = await self.client.execute("SELECT pg_backend_pid()")
            assert await cursor.fetchone() == before

    async def failed_transaction(self) -> None:
        with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
            async with self.client.transaction():
                await self.client.execute("SET app.marker = 'wrong'")
                await self.client.execute("UPDATE markers SET n = -1000 WHERE marker = %s", [self.marker])
                await self.client.execute("SELECT 1/0")

    async def pipeline(self) -> None:
        async with self.client.pipeline():
            cursors = [await self.client.execute("SELECT %s::text || %s::int", [self.marker, n]) for n in range(5)]
        assert [await cursor.fetchone() for cursor in cursors] == [(f"{self.marker}{n}",) for n in range(5)]

    async def rows(self) -> None:
        cursor = await self.client.execute("SELECT %s::text, n FROM generate_series(1, 300) n", [self.marker])
        assert await cursor.fetchall() == [(self.marker, n) for n in range(1, 301)]


class Asyncpg:
    """The same with asyncpg, which prepares everything."""

    def __init__(self, marker: str, rng: random.Random) -> None:
        self.marker = marker
        self.rng = rng

    async def run(self, world: World) -> None:
        self.client = await asyncpg.connect(world.url(), timeout=CROWD_DEADLINE)
        try:
            await self.client.execute(f"SET app.marker = '{self.marker}'")
            for _ in range(ROUNDS):
                await self.rng.choice([self.simple, self.fetch, self.transaction, self.cursor, self.error])()
                assert await self.client.fetchval("SELECT current_setting('app.marker')") == self.marker
        finally:
            await self.client.close()

    async def simple(self) -> None:
        await self.client.execute(f"SELECT '{self.marker}'; UPDATE markers SET n = n + 1 WHERE marker = '{self.marker}'")

    async def fetch(self) -> None:
        assert await self.client.fetchval("SELECT $1::text", self.marker) == self.marker
        rows = await self.client.fetch(
            f"SELECT $1::text || n AS m FROM generate_series(1, 100) n /* {self.rng.randrange(4)} */", self.marker
        )
        assert [row["m"] for row in rows] == [f"{self.marker}{n}" for n in range(1, 101)]

    async def transaction(self) -> None:
        async with self.client.transaction():
            await self.client.execute("UPDATE markers SET n = n + 1 WHERE marker = $1", self.marker)
            assert await self.client.fetchval("SELECT marker FROM markers WHERE marker = $1", self.marker) == self.marker

    async def cursor(self) -> None:
        async with self.client.transaction():
            found = [row[0] async for row in self.client.cursor("SELECT $1::text FROM generate_series(1, 60)", self.marker, prefetch=25)]
        assert found == [self.marker] * 60

    async def error(self) -> None:
        with pytest.raises(asyncpg.PostgresError, match=f'"{self.marker}"'):
            await self.client.fetchval("SELECT $1::text::int", self.marker)


async def psycopg_clients(world: World) -> None:
    """Every second client."""
    async with asyncio.TaskGroup() as group:
        for number in range(0, CLIENTS, 2):
            group.create_task(Psycopg(f"m{number}", random.Random(number)).run(world))


def create_tables(world: World) -> None:
    """What the clients read and write."""
    world.execute("CREATE TABLE markers (marker text PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    world.execute(f"INSERT INTO markers SELECT 'm' || n FROM generate_series(0, {CLIENTS - 1}) n")
    world.execute("GRANT ALL ON markers TO app")


async def run_clients(world: World) -> None:
    """All clients at once, to the end."""
    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
        # psycopg insists on asyncio's own loop, so its clients have one, in a thread.
        nursery.start_soon(trio.to_thread.run_sync, asyncio.run, psycopg_clients(world))
        for number in range(1, CLIENTS, 2):
            nursery.start_soon(aio_as_trio(Asyncpg(f"m{number}", random.Random(number)).run), world)


async def test_200_clients_on_10_server_connections_get_their_own_replies(run_world: RunWorld, postgres_server: PostgresServer) -> None:
    world = run_world(postgres_server, pool_size=10, more=PATIENT)
    create_tables(world)
    with Sampler(world) as sampler, trio.fail_after(CROWD_DEADLINE):
        await run_clients(world)
    assert sampler.samples > 10
    assert 1 < sampler.most <= 10
    assert world.execute("SELECT count(*) FROM markers WHERE n < 0") == [(0,)]
    world.wait_until_rested()
