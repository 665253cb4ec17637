"""What long leases and long texts must not cost: memory for each transaction, or time for each pair of words."""

import time

import pytest

from dualpool.postgres import sql
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.reading import read
from dualpool.postgres.server_relay import ServerRelay
from dualpool.postgres.server_session import MAX_CHANGES, lasting
from dualpool.protocol import NEEDS_SERVER, PINNED, RELEASE, RelayLimits
from dualpool.sql_text import MAX_READ, POSTGRES, lexis
from tests.helpers.frames import (
    BOUND,
    CLOSED,
    LEXICAL,
    NO_DATA,
    PARSED,
    READY,
    READY_T,
    SYNC,
    bind,
    close,
    complete,
    error,
    execute,
    parameters,
    parse,
    query,
    row,
)  # fmt: skip

TOLD = parameters(0) + NO_DATA

SECONDS = 10
"""Of the processor's time. Linear work takes a hundredth of it; quadratic work would take many minutes."""


class Lease:
    """A client that has a server connection."""

    def __init__(self, pinned: bool = False) -> None:
        self.client = ClientRelay(RelayLimits())
        self.server = ServerRelay(RelayLimits(), dict(LEXICAL))
        self.ask(query(b"BEGIN"), complete(b"BEGIN") + READY_T)
        if pinned:
            self.ask(query(b"SELECT pg_advisory_lock(1)"), row(b"") + complete(b"SELECT 1") + READY_T)
            assert self.ask(query(b"COMMIT"), complete(b"COMMIT") + READY) & PINNED

    def ask(self, data: bytes, answer: bytes) -> int:
        """Verdicts of the server relay."""
        if self.client.on_client_bytes(data) == NEEDS_SERVER:
            self.client.attach(self.server)
        self.client.to_server = b""
        verdict = self.server.on_server_bytes(answer)
        if self.server.to_server:
            # What the session holds is asked.
            self.server.to_server = b""
            verdict |= self.server.on_server_bytes(row(b"", b"l") + complete(b"SELECT 1") + READY)
        assert not verdict & RELEASE
        return verdict


def test_portals_are_forgotten_with_their_transaction() -> None:
    lease = Lease(pinned=True)
    for number in range(200):
        portal = b"p%d" % number
        asked = parse(b"", b"SAVEPOINT s") + bind(portal, b"") + execute(portal) + SYNC
        lease.ask(query(b"BEGIN"), complete(b"BEGIN") + READY_T)
        lease.ask(asked, PARSED + BOUND + complete(b"SAVEPOINT") + READY_T)
        lease.ask(query(b"COMMIT"), complete(b"COMMIT") + READY)
    assert not lease.client._portals


def test_a_portal_that_is_closed_is_forgotten() -> None:
    lease = Lease()
    for number in range(200):
        portal = b"p%d" % number
        asked = parse(b"", b"SAVEPOINT s") + bind(portal, b"") + execute(portal) + close(b"P", portal) + SYNC
        lease.ask(asked, PARSED + BOUND + complete(b"SAVEPOINT") + CLOSED + READY_T)
    assert not lease.client._portals


def test_settings_that_change_again_and_again_take_no_more_room() -> None:
    lease = Lease(pinned=True)
    for number in range(20 * MAX_CHANGES):
        lease.ask(query(b"SET work_mem = %d" % number), complete(b"SET") + READY)
        assert len(lease.server.changes) <= MAX_CHANGES + 1
    lease.client.detach()
    assert lease.client.settings.values == {"work_mem": f"{20 * MAX_CHANGES - 1}"}


def test_which_changes_last() -> None:
    role: sql.Change = ("role", "SET role x")
    assert lasting([("a", "1"), ("b", "1"), ("a", "2")]) == [("b", "1"), ("a", "2")]
    assert lasting([("a", "1"), role, ("*", None), ("b", "1"), ("*", None), ("a", None)]) == [role, ("*", None), ("a", None)]


def test_each_of_many_statements_in_a_query_is_told_from_the_others_in_linear_time() -> None:
    lease = Lease()
    began = time.process_time()
    count = MAX_READ // len(b"SET a=1;")
    lease.ask(query(b"SET a=1;" * count), complete(b"SET") * count + READY_T)
    assert len(lease.server.changes_in_transaction) == count
    lease.ask(query(b"DO '';--set_config('a.b',\n" * 20_000), complete(b"DO") * 20_000 + READY_T)
    assert lease.server.names_in_doubt == {"a.b"}
    assert lease.server.doubts & sql.COMPUTED
    assert time.process_time() - began < SECONDS


def test_an_error_as_long_as_it_may_be_is_searched_for_names_once() -> None:
    lease = Lease()
    for number in range(1000):
        lease.ask(parse(b"name%d" % number, b"SELECT %d" % number) + SYNC, CLOSED * (number >= 200) + PARSED + TOLD + READY_T)
    ours = b'"dualpool_1000"'
    began = time.process_time()
    lease.ask(query(b"SELECT f()"), error(b"P0001", ours + b'"dualpool_' * 1_500_000))
    assert b'M"name999""dualpool_"' in lease.server.to_client[:100]
    assert time.process_time() - began < SECONDS


def test_a_name_like_one_of_ours_is_not_put_in_twice() -> None:
    lease = Lease()
    first, second = b"dualpool_1", b"dualpool_2"
    lease.ask(parse(second, b"SELECT 'first'") + SYNC, PARSED + TOLD + READY_T)
    lease.ask(parse(b"other", b"SELECT 'second'") + SYNC, PARSED + TOLD + READY_T)
    lease.ask(query(b"SELECT f()"), error(b"P0001", b'"' + first + b'"'))
    assert b'M"' + second + b'"' in lease.server.to_client


@pytest.mark.parametrize("text", [b"\\" * (1 << 20), b"'" * (1 << 20), b"set_config(" * (1 << 18), b"set " * (1 << 20)])
def test_long_texts(text: bytes) -> None:
    began = time.process_time()
    sql.masked_safely(text, 100)
    read(text, lexis(POSTGRES))
    sql.setting_names(text)
    assert time.process_time() - began < SECONDS


def test_a_backslash_before_a_quotation_mark_hides_what_follows() -> None:
    assert sql.masked_safely(b"select 1, \\\\', 'secret'", 100) == "select ?,"
