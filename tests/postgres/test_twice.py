"""The quick ways of PostgreSQL's relays skip parsing, never a step. See tests/helpers/twice.py."""

import random
from typing import Final

import pytest

from dualpool.accounts import ServerTarget
from dualpool.postgres import ENGINE, server_relay
from dualpool.postgres.client_relay import ClientRelay
from dualpool.protocol import TRANSACTION, RelayLimits, ServerRelay
from tests.helpers.twice import Transcript, differences, drive
from tests.simulation.machines import Machine
from tests.simulation.peers import Session, Violation
from tests.simulation.postgres import PostgresClient, PostgresDatabase

CACHES: Final = frozenset(("_asked_at", "judged_by", "marks", "notable", "telling", "owner"))
"""The time; what a statement that both runs share remembers of what its text does; and whole clients, once for each of their statements."""


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


def _learns_always(client: ClientRelay, segment: bytes) -> bool:
    for name, version in client.statements.names.items():
        client.statements.names[name] = version.again()
    return True


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (ClientRelay, "_ensure", lambda client, version, server, name, learns: (b"", b"dualpool_1")),
        (ClientRelay, "_learns", lambda client, data, position, portal_end, end, length: True),
        (ClientRelay, "learns_again", _learns_always),
        (server_relay, "columns_of", lambda description: b""),
    ],
)
def test_rows_of_another_shape_than_the_client_was_told_are_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, broken: object
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(Violation):
        for seed in range(40):
            run(seed, 300, cut=False)
