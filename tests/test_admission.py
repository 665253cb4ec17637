"""Lanes that a client asks for, how many clients there may be, and the parties that they belong to."""

import pytest

from dualpool.accounts import Account, ClientLogin
from dualpool.admission import Guests, Parties, assigned, may_ask_for_maintenance
from dualpool.config import Backend, Config, Database, Limits, Listener, User
from dualpool.errors import LoginFailed, TooManyClients
from dualpool.protocol import APPLICATION, MAINTENANCE, SESSION, TRANSACTION
from tests.simulation.desk import Desk

LISTENER = Listener(name="pg", protocol="postgres", bind=())
CONFIG = Config(
    backends={"main": Backend(name="main", url="")},
    databases={"app": Database(name="app", backend="main", max_client_connections=2)},
    users={
        "app": User(name="app", max_client_connections=3),
        "boss": User(name="boss", maintenance=True),
        "both": User(name="both", maintenance_on_request=True),
    },
    limits=Limits(max_client_connections=4),
)


def login(user: str = "app", database: str = "app", **parameters: str) -> ClientLogin:
    lane = MAINTENANCE if user == "boss" else APPLICATION
    account = Account(user, database, lane=lane, mode=SESSION if lane else TRANSACTION)
    return ClientLogin(account, {name.replace("__", "."): value for name, value in parameters.items()}, None, None)


# --------------------------------------------------------------------------------------------------------- lanes


def test_who_asks_for_nothing_is_left_as_it_is() -> None:
    asked = login(application_name="x")
    assert assigned(CONFIG, LISTENER, asked) is asked


def test_the_maintenance_lane_on_request() -> None:
    found = assigned(CONFIG, LISTENER, login("both", dualpool__lane="maintenance", application_name="x"))
    assert (found.account.lane, found.account.mode) == (MAINTENANCE, SESSION)
    assert found.parameters == {"application_name": "x"}, "no server sees what is for us"


def test_without_a_request_it_is_an_application() -> None:
    assert assigned(CONFIG, LISTENER, login("both")).account.lane == APPLICATION


def test_a_maintenance_user_may_do_without() -> None:
    found = assigned(CONFIG, LISTENER, login("boss", dualpool__lane="application"))
    assert (found.account.lane, found.account.mode) == (APPLICATION, TRANSACTION)


@pytest.mark.parametrize(
    ("parameters", "message", "sqlstate"),
    [
        ({"dualpool__lane": "maintenance"}, 'user "app" may not use the maintenance lane', "42501"),
        ({"dualpool__lane": "fast"}, 'invalid value for parameter "dualpool.lane": "fast"', "22023"),
        ({"dualpool__lain": "maintenance"}, 'unrecognized parameter "dualpool.lain"', "42704"),
    ],
)
def test_what_is_refused(parameters: dict[str, str], message: str, sqlstate: str) -> None:
    with pytest.raises(LoginFailed) as caught:
        assigned(CONFIG, LISTENER, login(**parameters))
    assert (caught.value.message, caught.value.sqlstate) == (message, sqlstate)


@pytest.mark.parametrize(("user", "asked", "answer"), [("boss", "", True), ("boss", "application", False), ("both", "", False),
                                                       ("both", "maintenance", True), ("app", "maintenance", False)])  # fmt: skip
def test_who_need_not_be_counted_before_the_login(user: str, asked: str, answer: bool) -> None:
    assert may_ask_for_maintenance(CONFIG, login(user).account, {"dualpool.lane": asked} if asked else {}) is answer


# --------------------------------------------------------------------------------------------------------- how many


def fill(guests: Guests, *logins: ClientLogin) -> list[object]:
    places = [guests.counted(CONFIG, "postgres", one) for one in logins]
    for place in places:
        place.__enter__()
    return list(places)


@pytest.mark.parametrize(
    ("present", "newcomer", "limit"),
    [
        ([("x", "other")] * 4, ("y", "other"), "limits.max_client_connections is 4"),
        ([("x", "app")] * 2, ("y", "app"), "databases.app.max_client_connections is 2"),
        ([("app", "other")] * 3, ("app", "another"), "users.app.max_client_connections is 3"),
    ],
)
def test_one_too_many_is_refused(present: list[tuple[str, str]], newcomer: tuple[str, str], limit: str) -> None:
    guests = Guests()
    held = fill(guests, *(login(*who) for who in present))
    with pytest.raises(TooManyClients, match=limit), guests.counted(CONFIG, "postgres", login(*newcomer)):
        pass
    with guests.counted(CONFIG, "postgres", login("boss", newcomer[1])):
        assert guests.total == len(present) + 1
    assert len(held) == len(present)


def test_whoever_leaves_makes_room() -> None:
    guests = Guests()
    for _ in range(10):
        with guests.counted(CONFIG, "postgres", login()), guests.counted(CONFIG, "postgres", login()):
            assert guests.total == 2
    assert guests.total == 0


# --------------------------------------------------------------------------------------------------------- parties


def test_clients_of_one_user_are_one_party_and_keep_it() -> None:
    pool, parties = Desk().pool(), Parties()
    config = Config(limits=Limits(clients_per_user=2, clients_per_application=1))
    first = parties.of(pool, config, login(application_name="web"), "10.0.0.1")
    second = parties.of(pool, config, login(program_name="web"), "10.0.0.2")
    assert first == second
    assert [party.name for party in first] == [
        'user "app" (limits.clients_per_user is 2)',
        'application "web" (limits.clients_per_application is 1)',
    ]


def test_who_has_no_name_is_in_no_party_of_names() -> None:
    config = Config(limits=Limits(clients_per_application=1, clients_per_address=1))
    assert Parties().of(Desk().pool(), config, login(), "") == ()


def test_maintenance_is_in_no_party() -> None:
    assert Parties().of(Desk().pool(), Config(limits=Limits(clients_per_user=1)), login("boss"), "") == ()


def test_without_caps_a_pool_keeps_its_short_way() -> None:
    pool = Desk().pool()
    assert Parties().of(pool, Config(), login(application_name="x"), "10.0.0.1") == ()
    assert pool._plain
