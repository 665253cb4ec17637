"""Which host a connect goes to, and what its name means."""

import socket

import pytest

from dualpool.errors import ConnectFailed
from dualpool.hosts import DEMOTED_SECONDS, Address, Hosts, Resolver, Search, rounds

A, B, C = ("a", 1), ("b", 1), ("c", 1)


def test_in_order_the_first_is_always_first() -> None:
    hosts = Hosts((A, B, C), "in-order")
    assert hosts.order(0.0) == hosts.order(1.0) == [A, B, C]


def test_round_robin_begins_with_each_in_turn() -> None:
    hosts = Hosts((A, B, C), "round-robin")
    assert [hosts.order(0.0)[0] for _ in range(4)] == [A, B, C, A]
    assert hosts.order(0.0) == [B, C, A]


@pytest.mark.parametrize("balance", ["in-order", "round-robin"])
def test_a_host_that_failed_is_the_last_for_a_while(balance: str) -> None:
    hosts = Hosts((A, B), "in-order" if balance == "in-order" else "round-robin")
    hosts.failed(A, 100.0)
    assert hosts.order(100.0) == hosts.order(100.0 + DEMOTED_SECONDS - 1) == [B, A]
    assert {tuple(hosts.order(100.0 + DEMOTED_SECONDS)) for _ in range(2)} >= {(A, B)}


def test_a_host_that_answers_again_is_not_the_last_any_more() -> None:
    hosts = Hosts((A, B), "in-order")
    hosts.failed(A, 100.0)
    hosts.answered(A)
    assert hosts.order(101.0) == [A, B]


def test_prefer_standby_looks_for_any_after_that() -> None:
    assert rounds("prefer-standby") == (frozenset({"standby"}), frozenset({"read-write", "read-only", "standby"}))
    assert rounds("read-write") == (frozenset({"read-write"}),)
    assert "standby" in rounds("read-only")[0]
    assert rounds("primary")[0] == {"read-write", "read-only"}


def test_a_search_goes_on_until_a_host_is_what_is_looked_for() -> None:
    search = Search(Hosts((A, B, C), "in-order"), "read-write", lambda: 0.0)
    assert search.asks_role
    tried = []
    for host in search:
        tried.append(host)
        try:
            search.judge(host, "standby" if host == A else "read-write")
        except ConnectFailed as error:
            search.failed(host, error)
        else:
            search.answered(host)
            break
    assert tried == [A, B]
    assert str(search.error) == "a:1 is standby, but target_session_attrs asks for read-write"


def test_a_search_for_any_does_not_ask() -> None:
    assert not Search(Hosts((A,), "in-order"), "any").asks_role


def test_prefer_standby_tries_all_again() -> None:
    search = Search(Hosts((A, B), "in-order"), "prefer-standby", lambda: 0.0)
    hosts = iter(search)
    for host in [next(hosts), next(hosts)]:
        with pytest.raises(ConnectFailed):
            search.judge(host, "read-write")
    search.judge(next(hosts), "read-write")


@pytest.mark.parametrize("full_first", [True, False])
def test_that_a_server_is_full_outweighs_what_is_wrong_with_the_others(full_first: bool) -> None:
    search = Search(Hosts((A, B), "in-order"), "read-write", lambda: 0.0)
    full, standby = ConnectFailed("sorry, too many clients already", sqlstate="53300"), ConnectFailed("b:1 is standby")
    for host, error in [(A, full), (B, standby)] if full_first else [(A, standby), (B, full)]:
        search.failed(host, error)
    assert search.error is full


class Names:
    """A directory of names that can be changed, and asked how often it was asked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.address: str | None = "10.0.0.1"
        self.resolver = Resolver(15.0, self.look_up, lambda: self.now)

    async def look_up(self, host: str, port: int) -> list[Address]:
        self.asked += 1
        if self.address is None:
            raise OSError("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, (self.address, port))]

    async def found(self) -> str:
        ((_, _, _, address),) = await self.resolver.addresses("db", 5432)
        return str(address[0])


async def test_a_name_is_looked_up_again_after_its_time() -> None:
    names = Names()
    assert await names.found() == "10.0.0.1"
    names.address = "10.0.0.2"
    names.now = 14.0
    assert await names.found() == "10.0.0.1"
    names.now = 16.0
    assert await names.found() == "10.0.0.2"
    assert names.asked == 2


async def test_a_name_whose_addresses_do_not_answer_is_looked_up_at_once() -> None:
    names = Names()
    await names.found()
    names.address = "10.0.0.2"
    names.resolver.forget("db", 5432)
    assert await names.found() == "10.0.0.2"


async def test_what_a_name_meant_last_serves_while_it_cannot_be_looked_up() -> None:
    names = Names()
    await names.found()
    names.address = None
    names.now = 100.0
    assert await names.found() == "10.0.0.1"


async def test_a_name_that_never_meant_anything() -> None:
    names = Names()
    names.address = None
    with pytest.raises(OSError, match="no such name"):
        await names.found()
