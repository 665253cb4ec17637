"""The quick ways of PostgreSQL's relays skip parsing, never a step. See tests/helpers/twice.py."""

import random
from typing import Final

import pytest

from dualpool.accounts import ServerTarget
from dualpool.postgres import ENGINE
from dualpool.postgres.client_relay import ClientRelay
from dualpool.protocol import TRANSACTION, RelayLimits, ServerRelay
from tests.helpers.twice import Transcript, differences, drive
from tests.simulation.machines import Machine
from tests.simulation.peers import Session
from tests.simulation.postgres import PostgresClient, PostgresDatabase

CACHES: Final = frozenset(("_asked_at", "judged_by", "marks", "notable", "telling"))
"""The time; and what a statement that both runs share remembers of what its text does."""


def run(seed: int, requests: int, *, cut: bool) -> Transcript:
    database = PostgresDatabase()
    machine = Machine(("somewhere", 5432), random.Random(0), ("read-write",))
    limits = RelayLimits(TRANSACTION)

    def client(number: int, rng: random.Random) -> tuple[PostgresClient, ClientRelay]:
        made = PostgresClient(f"c{number}", rng)
        made.logged_in()
        relay = ENGINE.client_relay(made.login("one", TRANSACTION, 0), limits)
        return made, relay

    def server(number: int) -> tuple[Session, ServerRelay]:
        session = database.new_session(machine)
        # Each run learns for itself what is harmless in its database.
        target = ServerTarget(f"{seed}.{cut}", 5432, "app", "one", password="app", sslmode="disable")
        login = drive(ENGINE.connect(target), session)
        return session, ENGINE.server_relay(login, limits, target)

    transcript = Transcript(ENGINE, seed, client, server, CACHES, cut=cut)
    transcript.run(requests)
    return transcript


@pytest.mark.parametrize("seed", range(60))
def test_whole_and_cut(seed: int) -> None:
    whole, cut = run(seed, 300, cut=False), run(seed, 300, cut=True)
    assert list(differences(whole, cut)) == []
    assert whole.leases
