"""A backend's budget: numbers, lanes, and who gets room from whom."""

from collections.abc import Callable

import pytest

from dualpool.budget import RAISE_AFTER, Quota
from dualpool.errors import ConnectFailed
from dualpool.lease import CLOSING, IDLE, LEASED
from dualpool.protocol import APPLICATION, MAINTENANCE
from tests.simulation.desk import Desk


@pytest.fixture
def make_desk(request: pytest.FixtureRequest) -> Callable[..., Desk]:
    """A desk whose books are checked at the end of the test."""

    def make(limit: int | None, reserve: int = 0) -> Desk:
        desk = Desk(limit, reserve)
        request.addfinalizer(desk.verify)
        return desk

    return make


Make = Callable[..., Desk]


def test_all_pools_together_stay_within_the_limit(make_desk: Make) -> None:
    desk = make_desk(3)
    one, two = desk.pool("one"), desk.pool("two")
    assert len(desk.lease(one, 2)) == 2
    assert len(desk.lease(two, 2)) == 1
    assert desk.budget.total == 3


def test_the_application_stays_out_of_the_reserve_and_maintenance_may_use_it(make_desk: Make) -> None:
    desk = make_desk(5, 2)
    pool = desk.pool()
    assert len(desk.lease(pool, 5)) == 3
    assert len(desk.lease(pool, 3, MAINTENANCE)) == 2


def test_maintenance_may_use_the_whole_limit(make_desk: Make) -> None:
    desk = make_desk(5, 2)
    assert len(desk.lease(desk.pool(), 6, MAINTENANCE)) == 5


def test_the_reserve_is_added_to_the_size_of_a_pool(make_desk: Make) -> None:
    desk = make_desk(None, 2)
    pool = desk.pool(size=1)
    desk.lease(pool)
    assert len(desk.lease(pool, 3, MAINTENANCE)) == 2


def test_a_reserve_that_leaves_nothing_is_cut(make_desk: Make) -> None:
    desk = make_desk(1, 3)
    assert len(desk.lease(desk.pool())) == 1


def test_a_connection_that_maintenance_gives_back_moves_to_the_application_if_there_is_room(make_desk: Make) -> None:
    desk = make_desk(5, 2)
    pool = desk.pool()
    (conn,) = desk.lease(pool, 1, MAINTENANCE)
    assert desk.budget.counted == [0, 1]
    pool.give_back(conn)
    assert conn.state == IDLE
    assert desk.budget.counted == [1, 0]


def test_a_connection_that_maintenance_gives_back_is_closed_if_there_is_none(make_desk: Make) -> None:
    desk = make_desk(3, 1)
    pool = desk.pool()
    desk.lease(pool, 2)
    (conn,) = desk.lease(pool, 1, MAINTENANCE)
    pool.give_back(conn)
    assert desk.close() == ["the maintenance lane needs it no more"]


def test_maintenance_takes_an_idle_connection_and_gives_its_place_to_the_application(make_desk: Make) -> None:
    desk = make_desk(3, 1)
    one, two = desk.pool("one"), desk.pool("two")
    (conn,) = desk.idle(one)
    desk.lease(two)
    assert one.take_nowait(MAINTENANCE) is conn
    assert desk.budget.counted == [1, 1]
    assert len(desk.lease(two)) == 1


def test_an_idle_connection_of_another_pool_makes_room(make_desk: Make) -> None:
    desk = make_desk(2)
    one, two = desk.pool("one"), desk.pool("two")
    older, younger = desk.idle(one, 2)
    older.expires_at, younger.expires_at = 2000.0, 1500.0
    (customer,) = desk.queue(two)
    assert younger.state == CLOSING, "the one nearest to the end of its lifetime"
    assert older.state == IDLE
    assert not desk.io.connects, "the server still counts it"
    assert desk.close() == ["another pool of the backend needs its place"]
    desk.let_in()
    assert customer.conn is not None


def test_a_connection_that_becomes_idle_makes_room_for_who_waits_elsewhere(make_desk: Make) -> None:
    desk = make_desk(1)
    one, two = desk.pool("one"), desk.pool("two")
    (conn,) = desk.lease(one)
    desk.queue(two)
    one.give_back(conn)
    assert conn.state == CLOSING
    desk.close()
    assert [pool for pool, _ in desk.io.connects] == [two]


def test_whoever_needs_no_room_any_more_costs_nobody_a_connection(make_desk: Make) -> None:
    desk = make_desk(1)
    one, two = desk.pool("one"), desk.pool("two")
    (conn,) = desk.lease(one)
    (customer,) = desk.queue(two)
    two.withdraw(customer)
    one.give_back(conn)
    assert conn.state == IDLE


def test_pools_are_served_in_the_order_in_which_they_asked(make_desk: Make) -> None:
    desk = make_desk(1)
    full, second, third = desk.pool("full"), desk.pool("second"), desk.pool("third")
    (conn,) = desk.lease(full)
    desk.queue(second)
    desk.queue(third)
    full.give_back(conn)
    desk.close()
    (served,) = desk.let_in()
    assert served.pool is second
    desk.clock.now += 1
    desk.queue(second)
    second.give_back(served)
    desk.close()
    assert [pool for pool, _ in desk.io.connects] == [third]


def test_a_busy_pool_gives_up_what_it_has_beyond_its_share_even_though_its_own_clients_wait(make_desk: Make) -> None:
    desk = make_desk(4)
    busy, other = desk.pool("busy"), desk.pool("other")
    conns = desk.lease(busy, 4)
    desk.queue(busy, 10)
    desk.queue(other, 10)
    for _ in range(2):
        busy.give_back(conns.pop())
        desk.close()
        desk.let_in()
    assert (sum(busy.counted), sum(other.counted)) == (2, 2)
    busy.give_back(conns.pop())
    assert not desk.io.closes, "both have their share"


@pytest.mark.parametrize(("limit", "pools"), [(1, 2), (2, 5), (4, 3), (7, 3)])
def test_no_pool_starves_however_busy_the_others_are(make_desk: Make, limit: int, pools: int) -> None:
    desk = make_desk(limit)
    busy = [desk.pool(f"p{n}") for n in range(pools)]
    for _ in range(100):
        desk.clock.now += 1
        for pool in busy:
            desk.queue(pool, limit)
        desk.close()
        desk.let_in()
        for conn in [conn for pool in busy for conn in pool.connections if conn.state == LEASED]:
            conn.pool.give_back(conn)
    checkouts = [pool.checkouts for pool in busy]
    assert min(checkouts) > max(checkouts) / 3, checkouts


def test_with_more_pools_than_places_the_longest_wait_goes_first(make_desk: Make) -> None:
    desk = make_desk(1)
    one, two = desk.pool("one"), desk.pool("two")
    (conn,) = desk.lease(one)
    desk.queue(two)
    desk.clock.now += 1
    desk.queue(one, 5)
    one.give_back(conn)
    assert conn.state == CLOSING
    desk.close()
    (served,) = desk.let_in()
    assert served.pool is two
    two.give_back(served)
    desk.close()
    assert len(desk.let_in()) == 1
    assert one.statistics().leased == 1


def test_a_new_connection_serves_its_own_pool_first(make_desk: Make) -> None:
    desk = make_desk(1)
    one, two = desk.pool("one"), desk.pool("two")
    first = desk.queue(one)[0]
    desk.clock.now -= 1
    desk.queue(two)
    desk.let_in()
    assert first.conn is not None
    assert first.conn.state == LEASED


def test_a_minimum_takes_no_room_from_others(make_desk: Make) -> None:
    desk = make_desk(1)
    idle, minimum = desk.pool("idle"), desk.pool("minimum", min_size=1)
    minimum.clients = 1
    (conn,) = desk.idle(idle)
    desk.wait(1)
    assert conn.state == IDLE
    assert not desk.io.connects


def test_a_lower_limit_closes_idle_connections_now_and_others_when_they_come_back(make_desk: Make) -> None:
    desk = make_desk(4)
    pool = desk.pool()
    conns = desk.idle(pool, 4)
    leased = [pool.take_nowait(APPLICATION), pool.take_nowait(APPLICATION)]
    desk.budget.set_limit(1)
    assert [conn.state for conn in conns[:2]] == [CLOSING, CLOSING]
    for conn in leased:
        assert conn is not None
        pool.give_back(conn)
    assert sorted(conn.state for conn in conns[2:]) == [IDLE, CLOSING]


def test_a_higher_limit_serves_who_waits(make_desk: Make) -> None:
    desk = make_desk(1)
    pool = desk.pool()
    desk.lease(pool)
    desk.queue(pool, 2)
    assert not desk.io.connects
    desk.budget.set_limit(10)
    assert len(desk.io.connects) == 2


def test_the_error_of_a_timeout_names_the_budget(make_desk: Make) -> None:
    desk = make_desk(1)
    one, two = desk.pool("one", query_wait=5.0), desk.pool("two", query_wait=5.0)
    desk.lease(one)
    (customer,) = desk.queue(two)
    desk.wait(5)
    assert customer.error is not None
    assert 'all 1 connections of backend "main" are taken (budget)' in customer.error.message


def test_room_that_a_failed_connect_leaves_is_served(make_desk: Make) -> None:
    desk = make_desk(1)
    one, two = desk.pool("one"), desk.pool("two")
    desk.queue(one)
    desk.queue(two)
    desk.refuse()
    assert [pool for pool, _ in desk.io.connects] == [two]


def test_application_claims_do_not_hold_up_maintenance(make_desk: Make) -> None:
    desk = make_desk(2, 1)
    one, two = desk.pool("one"), desk.pool("two")
    desk.lease(one)
    desk.queue(two)
    (migration,) = desk.queue(two, lane=MAINTENANCE)
    desk.let_in()
    assert migration.conn is not None


# --------------------------------------------------------------------------------------------------------- quotas


def test_a_quota_holds_over_its_pools_and_binds_no_other(make_desk: Make) -> None:
    desk = make_desk(10)
    quota = Quota("databases.app.max_connections", 2)
    one, two, other = desk.pool("one", quotas=(quota,)), desk.pool("two", quotas=(quota,)), desk.pool("other")
    assert len(desk.lease(one, 2)) == 2
    assert not desk.lease(two)
    assert len(desk.lease(other, 3)) == 3


def test_a_quota_does_not_bind_maintenance(make_desk: Make) -> None:
    desk = make_desk(10)
    pool = desk.pool(quotas=(Quota("databases.app.max_connections", 1),))
    desk.lease(pool)
    (conn,) = desk.lease(pool, 1, MAINTENANCE)
    pool.give_back(conn)
    assert desk.close() == ["the maintenance lane needs it no more"]


def test_only_an_idle_connection_inside_the_quota_makes_room(make_desk: Make) -> None:
    desk = make_desk(10)
    quota = Quota("databases.app.max_connections", 1)
    one, two, other = desk.pool("one", quotas=(quota,)), desk.pool("two", quotas=(quota,)), desk.pool("other")
    (outside,) = desk.idle(other)
    (inside,) = desk.idle(one)
    outside.expires_at = 0.0
    (customer,) = desk.queue(two)
    assert (inside.state, outside.state) == (CLOSING, IDLE)
    desk.close()
    desk.let_in()
    assert customer.conn is not None


def test_a_connection_that_comes_back_makes_room_inside_its_quota(make_desk: Make) -> None:
    desk = make_desk(10)
    quota = Quota("databases.app.max_connections", 1)
    one, two, other = desk.pool("one", quotas=(quota,)), desk.pool("two", quotas=(quota,)), desk.pool("other")
    (outside,) = desk.lease(other)
    (inside,) = desk.lease(one)
    desk.queue(two)
    other.give_back(outside)
    assert outside.state == IDLE
    one.give_back(inside)
    assert inside.state == CLOSING


def test_two_full_quotas_each_give_up_one(make_desk: Make) -> None:
    desk = make_desk(10)
    database, user = Quota("databases.d.max_connections", 1), Quota("users.u.max_connections", 1)
    same_database, same_user = desk.pool("d/v", quotas=(database,)), desk.pool("e/u", quotas=(user,))
    both = desk.pool("d/u", quotas=(database, user))
    victims = [*desk.idle(same_database), *desk.idle(same_user)]
    (customer,) = desk.queue(both)
    assert [victim.state for victim in victims] == [CLOSING, CLOSING]
    desk.close()
    desk.let_in()
    assert customer.conn is not None


def test_the_error_of_a_timeout_names_the_quota(make_desk: Make) -> None:
    desk = make_desk(10)
    quota = Quota("databases.app.max_connections", 1)
    one, two = desk.pool("one", quotas=(quota,)), desk.pool("two", query_wait=5.0, quotas=(quota,))
    desk.lease(one)
    (customer,) = desk.queue(two)
    desk.wait(5)
    assert customer.error is not None
    assert "all 1 are taken (databases.app.max_connections)" in customer.error.message


# --------------------------------------------------------------------------------------------------------- a full server

FULL = ConnectFailed("sorry, too many clients already", sqlstate="53300")


@pytest.mark.parametrize("error", [FULL, ConnectFailed("Too many connections", errno=1040)])
def test_a_full_server_lowers_the_budget_to_what_we_hold_and_who_waits_goes_on_waiting(make_desk: Make, error: ConnectFailed) -> None:
    desk = make_desk(10)
    pool = desk.pool()
    conns = desk.lease(pool, 3)
    (customer,) = desk.queue(pool)
    desk.refuse(error)
    assert desk.budget.limit == 3
    assert customer.error is None
    pool.give_back(conns[0])
    assert customer.conn is conns[0]


def test_the_budget_rises_again_in_steps(make_desk: Make) -> None:
    desk = make_desk(6)
    pool = desk.pool(login_retry=0.5)
    desk.lease(pool, 3)
    customers = desk.queue(pool)
    desk.refuse(FULL)
    limits = []
    for _ in range(4):
        desk.wait(RAISE_AFTER)
        limits.append(desk.budget.limit)
    assert limits == [4, 5, 6, 6]
    desk.let_in()
    assert all(customer.conn is not None for customer in customers)


def test_a_full_server_keeps_the_reserve_free_for_maintenance(make_desk: Make) -> None:
    desk = make_desk(10, 2)
    pool = desk.pool(login_retry=0.5)
    conns = desk.lease(pool, 6)
    desk.queue(pool)
    desk.refuse(FULL)
    for conn in conns[:2]:
        pool.give_back(conn)
    desk.close()
    assert desk.budget.counted == [4, 0]
    desk.clock.now += 1
    assert len(desk.lease(pool, 1, MAINTENANCE)) == 1


def test_a_full_server_lets_nobody_fail_who_can_wait_for_another_pools_connection(make_desk: Make) -> None:
    desk = make_desk(10)
    one, two = desk.pool("one"), desk.pool("two", login_retry=0.1)
    (conn,) = desk.lease(one)
    (customer,) = desk.queue(two)
    desk.refuse(FULL)
    one.give_back(conn)
    desk.wait(0.5)
    assert conn.state == CLOSING
    desk.close()
    desk.let_in()
    assert customer.conn is not None


@pytest.mark.parametrize("message", ['too many connections for role "app"', 'too many connections for database "app"'])
def test_a_limit_of_one_user_or_database_is_not_the_servers(make_desk: Make, message: str) -> None:
    desk = make_desk(10)
    desk.queue(desk.pool())
    desk.refuse(ConnectFailed(message, sqlstate="53300"))
    assert desk.budget.limit == 10


def test_the_error_of_a_timeout_says_that_the_server_is_full(make_desk: Make) -> None:
    desk = make_desk(10)
    one, two = desk.pool("one"), desk.pool("two", query_wait=1.0, login_retry=0.1)
    desk.lease(one)
    (customer,) = desk.queue(two)
    desk.refuse(FULL)
    desk.wait(1)
    assert customer.error is not None
    assert "sorry, too many clients already" in customer.error.message
