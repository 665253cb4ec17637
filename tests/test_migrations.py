"""Who is taken for a migration tool, and for how long."""

from types import SimpleNamespace
from typing import Any

import pytest

from dualpool.migrations import LASTS, RESTS, Migrations, is_of_a_tool
from dualpool.protocol import APPLICATION, MAINTENANCE


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"Q\0\0\0\x20SELECT pg_advisory_lock(72707369)\0", True),
        (b'P\0\0\0\x20\0SELECT "public"."_prisma_migrations"."id" FROM ...', True),
        (b"\x20\0\0\0\x03SELECT `django_migrations`.`app` FROM `django_migrations`", True),
        (b"SELECT version_num FROM ALEMBIC_VERSION", True),
        (b"SELECT pg_advisory_lock(7)", False),
        (b"SELECT * FROM bird_migrations", False),
        (b"select 1", False),
        (b"", False),
    ],
)
def test_requests(request_: bytes, expected: bool) -> None:
    assert is_of_a_tool(request_) is expected


class Known(SimpleNamespace):
    """What there is to know of a client."""

    __hash__ = object.__hash__

    def __init__(self) -> None:
        clock = SimpleNamespace(now=0.0)
        super().__init__(
            lane=APPLICATION, parties=("a",), may_migrate=True, clock=clock, asked_at=0.0, waiter=None, server=None, ended_by=""
        )


class World:
    """One client that was recognised at the time 0."""

    def __init__(self) -> None:
        self.settled: list[Any] = []
        self.migrations = Migrations(self.settled.append)
        self.client: Any = Known()
        self.migrations.begin(self.client)


def test_it_stays_until_it_rests() -> None:
    world = World()
    assert (world.client.lane, world.client.parties) == (MAINTENANCE, ())
    world.migrations.sweep(RESTS - 1)
    assert world.client.lane == MAINTENANCE
    world.migrations.sweep(RESTS + 1)
    assert (world.client.lane, world.settled) == (APPLICATION, [world.client])


@pytest.mark.parametrize("held", ["server", "waiter"])
def test_it_stays_while_it_works(held: str) -> None:
    world = World()
    setattr(world.client, held, object())
    world.migrations.sweep(LASTS + 1)
    assert world.client.lane == MAINTENANCE


def test_it_does_not_stay_for_ever() -> None:
    world = World()
    world.client.asked_at = LASTS
    world.migrations.sweep(LASTS + 1)
    assert world.client.lane == APPLICATION


def test_it_is_forgotten_when_it_ends() -> None:
    world = World()
    world.client.ended_by = "goodbye"
    world.migrations.sweep(LASTS + 1)
    assert not world.settled
