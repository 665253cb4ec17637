"""Delays after failed logins: who waits, how long, and who does not."""

from ipaddress import ip_address

import pytest

from dualpool.authentication.failures import FIRST_DELAY, FORGOTTEN_AFTER, FREE, FailedLogins

HERE = ip_address("192.0.2.1")


def fail(table: FailedLogins, times: int, address: str = "192.0.2.1", now: float = 0.0) -> None:
    for _ in range(times):
        table.failed(ip_address(address), now)


def test_a_few_mistakes_are_free_and_then_each_doubles_the_delay() -> None:
    table = FailedLogins(3.0)
    delays = []
    for _ in range(12):
        delays.append(table.delay(HERE, 0.0))
        fail(table, 1)
    assert delays[: FREE + 1] == [0.0] * FREE + [FIRST_DELAY]
    assert delays[FREE + 1 : FREE + 4] == pytest.approx([FIRST_DELAY * 2, FIRST_DELAY * 4, FIRST_DELAY * 8])
    assert delays[-1] == 3.0
    fail(table, 2000)
    assert table.delay(HERE, 0.0) == 3.0


def test_others_and_unix_sockets_do_not_wait() -> None:
    table = FailedLogins(3.0)
    fail(table, 9)
    table.failed(None, 0.0)
    assert table.delay(ip_address("192.0.2.2"), 0.0) == 0.0
    assert table.delay(None, 0.0) == 0.0
    assert len(table) == 1


def test_success_and_time_forgive() -> None:
    table = FailedLogins(3.0)
    fail(table, 9)
    assert table.delay(HERE, FORGOTTEN_AFTER + 1) == 0.0
    fail(table, 1, now=FORGOTTEN_AFTER + 1)
    assert table.delay(HERE, FORGOTTEN_AFTER + 1) == 0.0
    fail(table, 9, now=FORGOTTEN_AFTER + 1)
    table.succeeded(HERE)
    assert table.delay(HERE, FORGOTTEN_AFTER + 1) == 0.0


def test_one_machine_has_one_count() -> None:
    table = FailedLogins(3.0)
    for number in range(9):
        fail(table, 1, f"2001:db8::{number:x}")
    assert table.delay(ip_address("2001:db8::ffff"), 0.0) > 0
    assert table.delay(ip_address("2001:db8:0:1::1"), 0.0) == 0.0
    fail(table, 9, "::ffff:192.0.2.1")
    assert table.delay(HERE, 0.0) > 0


def test_the_table_is_bounded() -> None:
    table = FailedLogins(3.0, size=10)
    fail(table, 9)
    for number in range(20):
        fail(table, 9, f"198.51.100.{number}")
    assert len(table) == 10
    assert table.delay(HERE, 0.0) == 0.0


def test_without_a_delay_nothing_is_kept() -> None:
    table = FailedLogins(0.0)
    fail(table, 9)
    assert (len(table), table.delay(HERE, 0.0)) == (0, 0.0)
