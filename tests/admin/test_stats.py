"""Counters, and what is made of them."""

from dualpool.admin.stats import Totals, average, totals_of
from dualpool.counters import BOUNDS, Counters
from dualpool.protocol import ServerRelay


def relay_with(queries: int, transactions: int, *, open: bool = False) -> ServerRelay:
    relay = ServerRelay()
    relay.queries, relay.transactions, relay.in_transaction = queries, transactions, open
    return relay


def test_a_query_of_its_own_is_a_transaction() -> None:
    counters = Counters()
    relay = relay_with(1, 1)
    assert counters.answered(relay, asked_at=10.0, began_at=0.0, now=10.5) == 0.0
    counters.gather(3, 0.25)
    assert (counters.assignments, counters.wait_seconds) == (3, 0.25)
    assert (counters.queries, counters.transactions, counters.query_seconds, counters.transaction_seconds) == (1, 1, 0.5, 0.5)
    assert (relay.queries, relay.transactions) == (0, 0)
    assert counters.query_buckets[BOUNDS.index(0.5)] == counters.transaction_buckets[BOUNDS.index(0.5)] == 1
    counters.gather(3, 0.25)
    assert (counters.queries, counters.query_seconds, sum(counters.query_buckets)) == (1, 0.5, 1)


def test_a_transaction_lasts_from_its_first_query_to_its_last_answer() -> None:
    counters = Counters()
    began = counters.answered(relay_with(1, 0, open=True), asked_at=10.0, began_at=0.0, now=10.25)
    assert began == 10.0
    began = counters.answered(relay_with(1, 0, open=True), asked_at=11.0, began_at=began, now=11.25)
    assert began == 10.0
    assert counters.answered(relay_with(1, 1), asked_at=12.0, began_at=began, now=12.25) == 0.0
    assert (counters.queries, counters.transactions) == (3, 1)
    assert (counters.query_seconds, counters.transaction_seconds) == (0.75, 2.25)


def test_one_that_ends_and_begins_in_the_same_answer() -> None:
    counters = Counters()
    assert counters.answered(relay_with(2, 1, open=True), asked_at=20.0, began_at=10.0, now=20.5) == 20.0
    assert counters.transaction_seconds == 10.5
    assert counters.answered(relay_with(3, 3), asked_at=30.0, began_at=0.0, now=30.5) == 0.0
    assert (counters.queries, counters.transactions) == (5, 4)


def test_what_is_longer_than_every_bound_has_a_bucket() -> None:
    counters = Counters()
    counters.waited(BOUNDS[-1] * 2)
    counters.waited(0.0)
    assert counters.wait_buckets[-1] == counters.wait_buckets[0] == 1
    assert len(counters.wait_buckets) == len(BOUNDS) + 1


def test_adding_adds_everything() -> None:
    one, two = Counters(), Counters()
    for index, name in enumerate(Counters.__slots__):
        if not name.endswith("buckets"):
            setattr(one, name, index)
            setattr(two, name, 100)
    two.waited(1.0)
    one.add(two)
    for index, name in enumerate(Counters.__slots__):
        if not name.endswith("buckets"):
            assert getattr(one, name) == index + 100
    assert sum(one.wait_buckets) == 1


def test_totals_are_in_pgbouncers_units() -> None:
    counters = Counters()
    counters.query_seconds, counters.wait_seconds, counters.received = 0.001, 2.0, 7
    totals = totals_of(counters)
    assert (totals.query_time, totals.wait_time, totals.received) == (1000, 2_000_000, 7)


def test_averages_are_per_second_and_times_per_query_and_transaction() -> None:
    change = Totals(queries=120, transactions=60, query_time=1200, transaction_time=1200, received=600, wait_time=60)
    averages = average(change, 60.0)
    assert (averages.queries, averages.transactions, averages.received, averages.wait_time) == (2, 1, 10, 1)
    assert (averages.query_time, averages.transaction_time) == (10, 20)
    assert average(Totals(), 60.0) == Totals()
