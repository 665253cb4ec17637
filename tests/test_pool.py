"""The pool's rules, one by one. What they add up to is for tests/simulation/."""

from collections.abc import Iterator

import pytest

from dualpool.errors import CheckoutTimeout, ConnectFailed, PoolClosed, QueueFull, ServerLost
from dualpool.lease import CHECKING, CLOSED, CLOSING, IDLE, LEASED, RESETTING, Leasable, Party
from dualpool.pool import Pool
from dualpool.pool_settings import PoolSettings
from dualpool.protocol import APPLICATION, MAINTENANCE
from tests.simulation.desk import Customer, Desk

WRONG_PASSWORD = ConnectFailed("password authentication failed", sqlstate="28P01")
NO_DATABASE = ConnectFailed('database "x" does not exist', sqlstate="3D000")


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.verify()


# --------------------------------------------------------------------------------------------------------- taking, giving back


def test_an_idle_connection_is_taken_at_once(desk: Desk) -> None:
    pool = desk.pool()
    (conn,) = desk.idle(pool)
    assert pool.take_nowait(APPLICATION) is conn
    assert conn.state == LEASED
    assert pool.statistics().leased == 1


def test_nothing_idle_gives_none_and_starts_nothing(desk: Desk) -> None:
    assert desk.pool().take_nowait(APPLICATION) is None
    assert not desk.io.connects


def test_the_most_recently_used_is_taken_first(desk: Desk) -> None:
    pool = desk.pool()
    old, new = desk.idle(pool, 2)
    assert pool.take_nowait(APPLICATION) is new
    assert pool.take_nowait(APPLICATION) is old


def test_a_suited_connection_is_taken_rather(desk: Desk) -> None:
    pool = desk.pool()
    suited, _, last = desk.idle(pool, 3)
    taken = pool.take_nowait(APPLICATION)
    assert taken is last
    assert pool.take_rather(taken, lambda conn: conn is suited) is suited
    assert (last.state, suited.state) == (IDLE, LEASED)
    # The other one is the last used again; nothing is suited now.
    assert pool.take_nowait(APPLICATION) is last
    assert pool.take_rather(last, lambda conn: False) is last
    desk.verify()


def test_maintenance_keeps_the_connection_that_it_has_taken(desk: Desk) -> None:
    pool = desk.pool()
    other, last = desk.idle(pool, 2)
    assert pool.take_nowait(MAINTENANCE) is last
    assert pool.take_rather(last, lambda conn: conn is other) is last
    desk.verify()


def test_the_first_in_the_queue_gets_what_is_given_back(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    first, second = desk.queue(pool, 2)
    pool.give_back(conn)
    assert first.conn is conn
    assert second.conn is None


def test_nobody_who_waits_is_overtaken(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    (waiting,) = desk.queue(pool)
    assert pool.take_nowait(APPLICATION) is None
    pool.give_back(conn)
    assert waiting.conn is conn
    assert pool.take_nowait(APPLICATION) is None


def test_one_who_refuses_is_passed_over(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    gone, here = desk.queue(pool, 2)
    gone.here = False
    pool.give_back(conn)
    assert here.conn is conn


def test_if_all_refuse_the_connection_is_idle(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    for customer in desk.queue(pool, 2):
        customer.here = False
    pool.give_back(conn)
    assert conn.state == IDLE
    assert pool.statistics().waiting == 0


def test_withdraw_leaves_the_queue_and_may_be_repeated(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    (customer,) = desk.queue(pool)
    assert pool.withdraw(customer)
    assert not pool.withdraw(customer)
    pool.give_back(conn)
    assert customer.conn is None


def test_maintenance_goes_first(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    desk.queue(pool)
    (migration,) = desk.queue(pool, lane=MAINTENANCE)
    pool.give_back(conn)
    assert migration.conn is conn


def test_giving_back_twice_is_refused(desk: Desk) -> None:
    pool = desk.pool()
    (conn,) = desk.idle(pool)
    with pytest.raises(RuntimeError, match="nobody had it"):
        pool.give_back(conn)


def test_giving_back_what_was_lost_is_ignored(desk: Desk) -> None:
    pool = desk.pool()
    (conn,) = desk.lease(pool)
    pool.lost(conn, ServerLost("gone"))
    pool.give_back(conn)
    assert conn.state == CLOSED


def test_clients_that_end_as_soon_as_they_are_served_do_not_nest(desk: Desk) -> None:
    class Hasty(Customer):
        __slots__ = ()

        def offer(self, conn: Leasable) -> bool:
            conn.pool.give_back(conn)
            return True

    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    for _ in range(5000):
        pool.enqueue(Hasty())
    pool.give_back(conn)
    assert conn.state == IDLE
    assert pool.checkouts == 5001


def test_a_lease_that_breaks_inside_the_offer_is_not_offered_again(desk: Desk) -> None:
    class Clumsy(Customer):
        __slots__ = ()

        def offer(self, conn: Leasable) -> bool:
            conn.pool.lost(conn)
            return False

    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    pool.enqueue(Clumsy())
    (other,) = desk.queue(pool)
    pool.give_back(conn)
    assert other.conn is None
    assert len(desk.io.connects) == 1


# --------------------------------------------------------------------------------------------------------- connecting


def test_one_connect_probes_and_the_others_follow(desk: Desk) -> None:
    pool = desk.pool(size=5)
    desk.queue(pool, 3)
    assert len(desk.io.connects) == 1
    desk.let_in(1)
    assert len(desk.io.connects) == 2


def test_no_more_connects_than_waiters(desk: Desk) -> None:
    pool = desk.pool(size=5)
    desk.lease(pool)
    desk.queue(pool, 2)
    assert len(desk.io.connects) == 2


def test_no_more_connections_than_the_size(desk: Desk) -> None:
    pool = desk.pool(size=2)
    desk.queue(pool, 5)
    assert len(desk.let_in()) == 2


def test_a_connection_whose_client_has_gone_meanwhile_serves_the_next(desk: Desk) -> None:
    pool = desk.pool()
    first, second = desk.queue(pool, 2)
    pool.withdraw(first)
    (conn,) = desk.let_in(1)
    assert second.conn is conn


def test_a_connection_nobody_waits_for_any_more_is_idle(desk: Desk) -> None:
    pool = desk.pool()
    (customer,) = desk.queue(pool)
    pool.withdraw(customer)
    (conn,) = desk.let_in()
    assert conn.state == IDLE


def test_after_a_failed_connect_there_is_a_pause(desk: Desk) -> None:
    pool = desk.pool(login_retry=2.0)
    (customer,) = desk.queue(pool)
    desk.refuse()
    desk.wait(1.4)
    assert not desk.io.connects
    desk.wait(1.2)
    assert len(desk.io.connects) == 1
    desk.let_in()
    assert customer.conn is not None


@pytest.mark.parametrize("error", [WRONG_PASSWORD, ConnectFailed("Access denied for user", errno=1044)])
def test_a_refusal_for_good_fails_all_who_wait_and_who_come_before_the_next_try(desk: Desk, error: ConnectFailed) -> None:
    pool = desk.pool(login_retry=2.0)
    waiting = desk.queue(pool, 3)
    desk.refuse(error)
    waiting += desk.queue(pool, 2)
    assert [customer.error for customer in waiting] == [error] * 5
    desk.wait(3)
    (later,) = desk.queue(pool)
    desk.let_in()
    assert later.conn is not None


@pytest.mark.parametrize("error", [NO_DATABASE, ConnectFailed("Unknown database 'x'", errno=1049)])
def test_a_database_that_is_missing_is_looked_for_again_when_somebody_comes(desk: Desk, error: ConnectFailed) -> None:
    pool = desk.pool(login_retry=2.0)
    early = desk.queue(pool, 3)
    desk.wait(0.1)
    (late,) = desk.queue(pool)
    desk.refuse(error)
    # The answer is for those who came before the server was asked.
    assert [customer.error for customer in early] == [error] * 3
    assert late.error is None
    assert len(desk.io.connects) == 1
    desk.let_in()
    assert late.conn is not None


def test_nobody_comes_so_nobody_looks_again_for_a_missing_database(desk: Desk) -> None:
    pool = desk.pool(login_retry=2.0, min_size=1)
    pool.clients = 1
    (customer,) = desk.queue(pool)
    desk.refuse(NO_DATABASE)
    assert customer.error is NO_DATABASE
    desk.wait(1.4)
    assert not desk.io.connects
    desk.wait(1.2)
    assert len(desk.io.connects) == 1


def test_a_database_that_is_missing_fails_nobody_while_other_connections_serve(desk: Desk) -> None:
    pool = desk.pool(size=2, login_retry=2.0)
    (conn,) = desk.lease(pool)
    (customer,) = desk.queue(pool)
    desk.refuse(NO_DATABASE)
    assert customer.error is None
    assert not desk.io.connects
    pool.give_back(conn)
    assert customer.conn is conn


def test_a_refusal_for_good_fails_nobody_while_other_connections_serve(desk: Desk) -> None:
    pool = desk.pool(size=2)
    (conn,) = desk.lease(pool)
    (customer,) = desk.queue(pool)
    desk.refuse(WRONG_PASSWORD)
    assert customer.error is None
    pool.give_back(conn)
    assert customer.conn is conn


def test_a_refusal_for_the_moment_fails_nobody(desk: Desk) -> None:
    pool = desk.pool()
    (customer,) = desk.queue(pool)
    desk.refuse(ConnectFailed("the database system is starting up", sqlstate="57P03"))
    assert customer.error is None
    assert pool.statistics().last_error == "the database system is starting up"


def test_whoever_queues_again_when_failed_does_not_nest(desk: Desk) -> None:
    class Stubborn(Customer):
        __slots__ = ("tries",)

        def __init__(self) -> None:
            super().__init__()
            self.tries = 0

        def fail(self, error: Exception) -> None:
            self.tries += 1
            if self.tries < 5000:
                pool.enqueue(self)

    pool = desk.pool()
    customer = Stubborn()
    pool.enqueue(customer)
    desk.refuse(WRONG_PASSWORD)
    assert customer.tries == 5000


# --------------------------------------------------------------------------------------------------------- losses, resets, checks


@pytest.mark.parametrize("state", [IDLE, LEASED, RESETTING, CHECKING, CLOSING])
def test_a_loss_is_counted_once_in_whatever_state(desk: Desk, state: int) -> None:
    pool = desk.pool(check_delay=5.0)
    conn = _bring_to(desk, pool, state)
    pool.lost(conn, ServerLost("gone"))
    pool.lost(conn)
    assert conn.state == CLOSED
    assert desk.budget.total == 0
    assert pool.statistics().losses == (0 if state == CLOSING else 1)


def _bring_to(desk: Desk, pool: Pool, state: int) -> Leasable:
    (conn,) = desk.idle(pool)
    if state == CHECKING:
        desk.wait(6)
        (customer,) = desk.queue(pool)
        pool.withdraw(customer)
    elif state == CLOSING:
        pool.reconnect()
    elif state != IDLE:
        assert pool.take_nowait(APPLICATION) is conn
        if state == RESETTING:
            pool.resetting(conn)
    assert conn.state == state
    return conn


def test_a_loss_makes_room_for_who_waits(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    desk.queue(pool)
    pool.lost(conn)
    assert len(desk.io.connects) == 1


def test_a_reset_keeps_the_connection_from_others_until_it_is_over(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    (customer,) = desk.queue(pool)
    pool.resetting(conn)
    assert customer.conn is None
    assert pool.statistics().resetting == 1
    pool.give_back(conn)
    assert customer.conn is conn


def test_idle_for_long_is_checked_before_use(desk: Desk) -> None:
    pool = desk.pool(size=1, check_delay=30.0)
    (conn,) = desk.idle(pool)
    desk.wait(31)
    assert pool.take_nowait(APPLICATION) is None
    (customer,) = desk.queue(pool)
    assert desk.io.checks == [conn]
    assert customer.conn is None
    pool.give_back(conn)
    assert customer.conn is conn


def test_one_check_for_one_who_waits(desk: Desk) -> None:
    pool = desk.pool(size=3, check_delay=30.0)
    desk.idle(pool, 3)
    desk.wait(31)
    desk.queue(pool, 2)
    assert len(desk.io.checks) == 2
    assert not desk.io.connects


def test_a_check_that_fails_leads_to_the_next(desk: Desk) -> None:
    pool = desk.pool(size=2, check_delay=30.0)
    desk.idle(pool, 2)
    desk.wait(31)
    desk.queue(pool)
    pool.lost(desk.io.checks[0], ServerLost("gone"))
    assert len(desk.io.checks) == 2
    pool.lost(desk.io.checks[1], ServerLost("gone"))
    assert len(desk.io.connects) == 1


# --------------------------------------------------------------------------------------------------------- time


def test_waiting_too_long_ends_with_an_error_that_names_the_setting_and_the_cause(desk: Desk) -> None:
    pool = desk.pool(size=1, query_wait=10.0)
    desk.lease(pool)
    (customer,) = desk.queue(pool)
    desk.wait(9.9)
    assert customer.error is None
    desk.wait(0.1)
    assert isinstance(customer.error, CheckoutTimeout)
    assert customer.error.message == (
        'pool "app": waited 10.0 s for a server connection (timeouts.query_wait is 10 s): all 1 are taken (pool_size); '
        "a new request would wait about 19.8 s"
    )
    assert pool.statistics().timeouts == 1


def test_the_error_tells_why_connects_fail(desk: Desk) -> None:
    pool = desk.pool(query_wait=1.0, login_retry=100.0)
    (customer,) = desk.queue(pool)
    desk.refuse()
    desk.wait(2)
    assert customer.error is not None
    assert customer.error.message.endswith("the last connect failed: connection refused")


def test_whoever_waits_is_told_so_once(desk: Desk) -> None:
    pool = desk.pool(query_wait_notify=5.0)
    (customer,) = desk.queue(pool)
    desk.wait(4)
    desk.wait(2)
    desk.wait(2)
    assert customer.notices == [6.0]


def test_a_deadline_of_its_own_is_kept(desk: Desk) -> None:
    pool = desk.pool(query_wait=10.0)
    customer = Customer()
    customer.deadline = desk.clock.now + 1
    pool.enqueue(customer)
    desk.wait(1)
    assert customer.error is not None


def test_an_old_connection_is_closed_when_it_comes_back(desk: Desk) -> None:
    pool = desk.pool(size=1, lifetime=60.0)
    (conn,) = desk.lease(pool)
    (customer,) = desk.queue(pool)
    desk.wait(61)
    pool.give_back(conn)
    assert conn.state == CLOSING
    assert not desk.io.connects, "the one that is being closed still counts"
    assert desk.close() == ["its lifetime is over"]
    desk.let_in()
    assert customer.conn is not None


def test_an_old_idle_connection_is_closed_by_the_sweep(desk: Desk) -> None:
    pool = desk.pool(lifetime=60.0)
    desk.idle(pool)
    desk.wait(61)
    assert desk.close() == ["its lifetime is over"]


def test_lifetimes_differ_by_the_jitter_and_are_never_longer(desk: Desk) -> None:
    pool = desk.pool(lifetime=60.0, lifetime_jitter=10.0)
    lifetimes = [conn.expires_at - conn.created_at for conn in desk.idle(pool, 10)]
    assert all(50 <= lifetime <= 60 for lifetime in lifetimes)
    assert len(set(lifetimes)) == 10


def test_lifetime_zero_serves_once(desk: Desk) -> None:
    pool = desk.pool(size=1, lifetime=0)
    first, second = desk.queue(pool, 2)
    (conn,) = desk.let_in()
    assert first.conn is conn
    pool.give_back(conn)
    desk.close()
    desk.let_in()
    assert second.conn is not None
    assert second.conn is not conn


def test_what_is_not_used_is_closed(desk: Desk) -> None:
    pool = desk.pool(idle_timeout=60.0)
    unused, used = desk.idle(pool, 2)
    for _ in range(3):
        desk.wait(25)
        assert pool.take_nowait(APPLICATION) is used
        pool.give_back(used)
    assert unused.state == CLOSING
    assert used.state == IDLE


def test_the_minimum_is_kept_while_there_are_clients(desk: Desk) -> None:
    pool = desk.pool(min_size=2, idle_timeout=60.0)
    pool.clients = 1
    desk.wait(1)
    desk.let_in()
    desk.wait(1)
    desk.let_in()
    desk.wait(100)
    assert pool.statistics().idle == 2
    assert not desk.io.closes


def test_without_clients_there_is_no_minimum(desk: Desk) -> None:
    pool = desk.pool(min_size=2, idle_timeout=60.0)
    desk.wait(1)
    assert not desk.io.connects
    desk.idle(pool, 2)
    desk.wait(61)
    assert len(desk.io.closes) == 2


# --------------------------------------------------------------------------------------------------------- orders


def test_reconnect_replaces_idle_ones_now_and_leased_ones_when_they_come_back(desk: Desk) -> None:
    pool = desk.pool(size=2)
    idle, leased = desk.idle(pool, 2)
    assert pool.take_nowait(APPLICATION) is leased
    pool.reconnect()
    assert idle.state == CLOSING
    assert leased.state == LEASED
    pool.give_back(leased)
    assert desk.close() == ["reconnect", "reconnect"]


def test_a_connect_that_began_before_a_reconnect_is_replaced(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (customer,) = desk.queue(pool)
    conn = Leasable(pool)
    conn.generation = pool.generation
    pool.reconnect()
    desk.io.connects.clear()
    pool.connected(conn, APPLICATION)
    assert conn.state == CLOSING
    assert customer.conn is None
    desk.close()
    desk.let_in()
    assert customer.conn is not None


def test_a_pause_lets_leases_end_and_hands_out_nothing(desk: Desk) -> None:
    pool = desk.pool(size=1)
    (conn,) = desk.lease(pool)
    (customer,) = desk.queue(pool)
    pool.pause()
    assert not pool.is_drained()
    pool.give_back(conn)
    assert pool.is_drained()
    assert pool.take_nowait(APPLICATION) is None
    assert customer.conn is None
    pool.resume()
    assert customer.conn is conn


def test_a_smaller_size_closes_idle_ones_now_and_leased_ones_when_they_come_back(desk: Desk) -> None:
    pool = desk.pool(size=4)
    conns = desk.idle(pool, 4)
    assert pool.take_nowait(APPLICATION) is conns[3]
    assert pool.take_nowait(APPLICATION) is conns[2]
    pool.configure(PoolSettings(size=1))
    assert [conn for conn, _ in desk.io.closes] == conns[:2]
    pool.give_back(conns[3])
    assert conns[3].state == CLOSING
    pool.give_back(conns[2])
    assert conns[2].state == IDLE


def test_a_larger_size_serves_who_waits(desk: Desk) -> None:
    pool = desk.pool(size=1)
    desk.lease(pool)
    desk.queue(pool, 2)
    pool.configure(PoolSettings(size=3))
    assert len(desk.io.connects) == 2


def test_a_closed_pool_refuses_and_closes_everything(desk: Desk) -> None:
    pool = desk.pool(size=2)
    idle, leased = desk.idle(pool, 2)
    assert pool.take_nowait(APPLICATION) is leased
    pool.close()
    (late,) = desk.queue(pool)
    assert isinstance(late.error, PoolClosed)
    assert idle.state == CLOSING
    pool.give_back(leased)
    assert not pool.is_gone()
    desk.close()
    assert pool.is_gone()


def test_a_connect_that_ends_after_the_close_is_closed(desk: Desk) -> None:
    pool = desk.pool()
    (customer,) = desk.queue(pool)
    pool.close()
    assert isinstance(customer.error, PoolClosed)
    desk.let_in()
    assert desk.close() == ["the pool is closed"]
    assert pool.is_gone()


def test_statistics_add_up(desk: Desk) -> None:
    pool = desk.pool(size=2)
    first, second = desk.lease(pool, 2)
    desk.queue(pool, 3)
    desk.wait(4)
    pool.give_back(first)
    pool.resetting(second)
    statistics = pool.statistics()
    assert (statistics.leased, statistics.resetting, statistics.idle, statistics.waiting) == (1, 1, 0, 2)
    assert statistics.max_wait == 4
    assert (statistics.checkouts, statistics.waits, statistics.total_wait) == (3, 3, 4)
    assert repr(pool) == "<Pool app: 0 idle, 1 leased, 0 connecting, 2 waiting>"
    assert repr(first).endswith("of app: leased>")


# --------------------------------------------------------------------------------------------------------- the pool's own reserve


def test_beyond_the_size_only_for_who_has_waited_long_enough(desk: Desk) -> None:
    pool = desk.pool(size=1, reserve_size=1, reserve_after=5.0)
    desk.lease(pool)
    first, second = desk.queue(pool, 2)
    desk.wait(4)
    assert not desk.io.connects
    desk.wait(1)
    assert len(desk.let_in()) == 1, "one more, and not one for each"
    assert first.conn is not None
    assert second.conn is None


def test_what_is_beyond_the_size_serves_while_somebody_waits_and_is_closed_then(desk: Desk) -> None:
    pool = desk.pool(size=1, reserve_size=1, reserve_after=5.0)
    (normal,) = desk.lease(pool)
    first, second = desk.queue(pool, 2)
    desk.wait(5)
    (extra,) = desk.let_in()
    assert first.conn is extra
    pool.give_back(extra)
    assert second.conn is extra
    pool.give_back(extra)
    assert desk.close() == ["nobody waits who would need more than pool_size"]
    pool.give_back(normal)
    assert normal.state == IDLE


# --------------------------------------------------------------------------------------------------------- caps of a party


def _guests(pool: Pool, *parties: Party, count: int) -> list[Customer]:
    guests = [Customer() for _ in range(count)]
    for guest in guests:
        guest.parties = parties
        pool.enqueue(guest)
    return guests


def test_a_burst_of_one_party_waits_behind_its_own_and_not_in_front_of_others(desk: Desk) -> None:
    pool = desk.pool(size=3)
    burst = pool.party("user burst", 2)
    desk.idle(pool, 3)
    guests = _guests(pool, burst, count=5)
    assert [guest.conn is not None for guest in guests] == [True, True, False, False, False]
    (other,) = [pool.take_nowait(APPLICATION)]
    assert other is not None, "the third is left for somebody else"
    pool.give_back(other)
    assert pool.statistics().waiting == 3
    assert guests[0].conn is not None
    pool.give_back(guests[0].conn)
    assert guests[2].conn is not None
    assert guests[3].conn is None


def test_a_party_moves_up_when_one_of_it_is_lost_or_leaves_the_queue(desk: Desk) -> None:
    pool = desk.pool(size=2)
    conns = desk.lease(pool, 2)
    burst = pool.party("user burst", 1)
    first, second, third = _guests(pool, burst, count=3)
    assert pool.withdraw(first)
    assert pool.withdraw(third)
    pool.give_back(conns[0])
    assert second.conn is conns[0]
    (last,) = _guests(pool, burst, count=1)
    pool.lost(conns[0], ServerLost("gone"))
    pool.give_back(conns[1])
    assert last.conn is conns[1]
    assert burst.active == 1


def test_a_reset_still_counts_for_its_party(desk: Desk) -> None:
    pool = desk.pool(size=2)
    desk.idle(pool, 2)
    burst = pool.party("user burst", 1)
    first, second = _guests(pool, burst, count=2)
    assert first.conn is not None
    pool.resetting(first.conn)
    assert second.conn is None
    pool.give_back(first.conn)
    assert second.conn is not None


def test_who_belongs_to_two_parties_needs_room_in_both(desk: Desk) -> None:
    pool = desk.pool(size=5)
    desk.idle(pool, 5)
    user, address = pool.party("user u", 2), pool.party("address a", 1)
    first, second = _guests(pool, user, address, count=2)
    (third,) = _guests(pool, user, count=1)
    assert [guest.conn is not None for guest in (first, second, third)] == [True, False, True]
    assert first.conn is not None
    pool.give_back(first.conn)
    assert second.conn is not None
    assert (user.active, address.active) == (2, 1)


def test_the_parked_are_told_and_time_out_with_the_cap_as_the_reason(desk: Desk) -> None:
    pool = desk.pool(size=5, query_wait=10.0, query_wait_notify=5.0)
    desk.idle(pool, 2)
    burst = pool.party("user burst (limits.clients_per_user is 1)", 1)
    first, second = _guests(pool, burst, count=2)
    desk.wait(6)
    assert second.notices == [6.0]
    desk.wait(4)
    assert second.error is not None
    assert second.error.message.endswith("user burst (limits.clients_per_user is 1) has 1 at work or in the queue already")
    assert first.conn is not None


def test_closing_fails_the_parked_too(desk: Desk) -> None:
    pool = desk.pool(size=1)
    desk.lease(pool)
    guests = _guests(pool, pool.party("user burst", 1), count=3)
    pool.close()
    assert all(isinstance(guest.error, PoolClosed) for guest in guests)


def test_a_queue_that_is_long_enough_refuses_at_once_and_tells_the_wait_to_expect(desk: Desk) -> None:
    pool = desk.pool(size=1, max_waiting=2)
    (conn,) = desk.lease(pool)
    desk.wait(2)
    first, _, refused = desk.queue(pool, 3)
    assert isinstance(refused.error, QueueFull)
    assert refused.error.message == (
        'pool "app": too many clients wait for a server connection (limits.max_waiting_clients is 2); a new request would wait about 6.0 s'
    )
    (migration,) = desk.queue(pool, lane=MAINTENANCE)
    assert migration.error is None
    pool.give_back(conn)
    assert migration.conn is conn
    assert first.conn is None


def test_whoever_is_refused_and_comes_again_at_once_does_not_nest(desk: Desk) -> None:
    class Stubborn(Customer):
        __slots__ = ("tries",)

        def __init__(self) -> None:
            super().__init__()
            self.tries = 0

        def fail(self, error: Exception) -> None:
            self.tries += 1
            if self.tries < 5000:
                pool.enqueue(self)

    pool = desk.pool()
    pool.close()
    customer = Stubborn()
    pool.enqueue(customer)
    assert customer.tries == 5000


# --------------------------------------------------------------------------------------------------------- doubts, sleep


def test_after_a_loss_what_is_idle_is_checked_before_it_is_used(desk: Desk) -> None:
    one, two = desk.pool("one"), desk.pool("two")
    (leased,) = desk.lease(one)
    (idle,) = desk.idle(two)
    one.lost(leased, ServerLost("gone"))
    assert two.take_nowait(APPLICATION) is None
    (customer,) = desk.queue(two)
    assert desk.io.checks == [idle]
    two.give_back(idle)
    assert customer.conn is idle


def test_one_doubt_in_a_second_is_enough(desk: Desk) -> None:
    pool = desk.pool(size=3)
    conns = desk.lease(pool, 3)
    pool.lost(conns[0])
    pool.give_back(conns[1])
    pool.lost(conns[2])
    assert pool.take_nowait(APPLICATION) is conns[1]


def test_a_pool_that_nobody_uses_goes_to_sleep(desk: Desk) -> None:
    pool = desk.pool(min_size=2, idle_after=60.0)
    pool.clients = 1
    desk.idle(pool)
    desk.wait(50)
    desk.let_in()
    desk.wait(61)
    assert pool.ageing.is_asleep
    assert set(desk.close()) == {"nobody has used the database for 60 s (idle_after)"}
    desk.wait(100)
    assert not desk.io.connects, "no minimum while it sleeps"


def test_a_lease_keeps_it_awake(desk: Desk) -> None:
    pool = desk.pool(idle_after=60.0)
    (conn,) = desk.lease(pool)
    desk.wait(100)
    assert not pool.ageing.is_asleep
    pool.give_back(conn)
    desk.wait(59)
    assert conn.state == IDLE
    desk.wait(1)
    assert conn.state == CLOSING


def test_who_wakes_it_is_told_after_a_second_that_it_is_starting(desk: Desk) -> None:
    pool = desk.pool(idle_after=60.0, query_wait_notify=5.0)
    first, second = desk.queue(pool, 2)
    assert len(desk.io.connects) == 1, "one probes"
    desk.wait(1)
    assert pool.is_starting()
    assert first.notices == second.notices == [1.0]
    desk.let_in()
    assert first.conn is not None
    assert second.conn is not None
    assert not pool.is_starting()
