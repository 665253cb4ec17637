"""The quick way of MySQL's relays skips parsing, never a step. See tests/helpers/twice.py."""

import random
from typing import Final

import attrs
import pytest

from dualpool.accounts import ClientLogin, ServerTarget
from dualpool.mysql import ENGINE, knowledge, wire
from dualpool.mysql.client_relay import ClientRelay
from dualpool.mysql.server_relay import ServerRelay
from dualpool.protocol import PIN_ALLOW, TRANSACTION, RelayLimits
from tests.helpers.twice import Transcript, differences, drive
from tests.simulation import mysql_wire
from tests.simulation.machines import Machine
from tests.simulation.mysql import MysqlClient, MysqlDatabase
from tests.simulation.mysql_server import MysqlSession
from tests.simulation.peers import Session

FIRST_ID: Final = 1_000_000_000
LEFT_OUT: Final = frozenset(("_differences", "definitions", "schema_read", "schema_since"))
"""What is remembered so that it need not be made or parsed again; and moments, which go on from run to run."""


def run(seed: int, requests: int, *, cut: bool) -> Transcript:
    database = MysqlDatabase()
    knowledge.forget()
    machine = Machine(("somewhere", 3306), random.Random(0), ("read-write",))
    limits = RelayLimits(TRANSACTION, pin_policy=PIN_ALLOW)

    def client(number: int, rng: random.Random) -> tuple[MysqlClient, ClientRelay]:
        made = MysqlClient(f"c{number}", rng)
        login: ClientLogin = made.login("one", TRANSACTION, 0)
        made.connection_id = FIRST_ID + number
        made.logged_in()
        made.capabilities &= ~wire.CLIENT_FOUND_ROWS  # they would have a pool of their own
        login = attrs.evolve(login, capabilities=made.capabilities, character_set=made.charset, connection_id=made.connection_id)
        return made, ENGINE.client_relay(login, limits)

    def server(number: int) -> tuple[Session, ServerRelay]:
        session = database.new_session(machine)
        assert isinstance(session, MysqlSession)
        target = ServerTarget("somewhere", 3306, "app", "one", password=mysql_wire.PASSWORD, sslmode="disable")
        login = drive(ENGINE.connect(target), session)
        relay = ENGINE.server_relay(login, limits, target)
        return session, relay

    transcript = Transcript(ENGINE, seed, client, server, LEFT_OUT, cut=cut)
    transcript.run(requests)
    return transcript


@pytest.mark.parametrize("seed", range(60))
def test_whole_and_cut(seed: int) -> None:
    whole, cut = run(seed, 300, cut=False), run(seed, 300, cut=True)
    assert list(differences(whole, cut)) == []
    assert whole.leases
