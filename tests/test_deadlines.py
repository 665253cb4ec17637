"""Which times hold for a client, and where they come from."""

import math

from dualpool.config import Config, Database, Timeouts, User
from dualpool.deadlines import Limit, all_times, times_of

DATABASE = Database(name="app", backend="main", query=20.0, client_idle=0.0)
CONFIG = Config(
    databases={"app": DATABASE},
    users={"bob": User(name="bob", query=5.0), "eve": User(name="eve")},
    timeouts=Timeouts(query=60.0, query_wait=120.0, client_idle=30.0),
)


def test_a_users_own_goes_before_its_databases_and_that_before_the_general_one() -> None:
    assert times_of(CONFIG, DATABASE, "bob").query == Limit(5.0, "users.bob.query")
    assert times_of(CONFIG, DATABASE, "eve").query == Limit(20.0, "databases.app.query")
    assert times_of(CONFIG, None, "nobody").query == Limit(60.0, "timeouts.query")


def test_a_zero_of_its_own_switches_off() -> None:
    assert times_of(CONFIG, DATABASE, "eve").client_idle.seconds == math.inf
    assert times_of(CONFIG, None, "eve").client_idle.seconds == 30.0


def test_a_client_is_told_the_setting_and_its_value() -> None:
    assert str(times_of(CONFIG, DATABASE, "bob").query) == "users.bob.query is 5 s"
    assert str(times_of(CONFIG, DATABASE, "bob").query_wait) == "timeouts.query_wait is 120 s"


def test_the_sweep_looks_only_at_clients_that_have_a_limit() -> None:
    assert times_of(CONFIG, DATABASE, "bob").any
    assert not times_of(Config(), None, "bob").any


def test_every_time_is_known_to_the_tick() -> None:
    assert {5.0, 20.0, 30.0, 60.0, 120.0} <= set(all_times(CONFIG))
