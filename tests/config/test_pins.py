"""`pin`: one policy, or one for each reason."""

import pytest

from dualpool.config import Database, PinPolicy, Pins, loads
from dualpool.config.checks import PINS_OF_MYSQL, PINS_OF_POSTGRES
from dualpool.config.fields import keys_of
from dualpool.errors import ConfigError
from dualpool.mysql.states import PIN_REASONS
from dualpool.postgres.session_sql import HOLDINGS
from dualpool.protocol import PIN_ALLOW, PIN_ERROR, PIN_WARN, RelayLimits

HEAD = """
[listeners.a]
protocol = "{0}"
bind = "127.0.0.1:1"
[backends.main]
url = "{1}://u@h"
[users.app]
password = "x"
[databases.app]
backend = "main"
"""
POSTGRES = HEAD.format("postgres", "postgresql")
MYSQL = HEAD.format("mysql", "mysql")


def database(text: str) -> Database:
    return loads(text, "t", {}).databases["app"]


def error(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        loads(text, "t", {})
    return raised.value.message


@pytest.mark.parametrize("policy", ["allow", "warn", "error"])
def test_one_policy(policy: PinPolicy) -> None:
    assert database(f'{POSTGRES}pin = "{policy}"').pin == policy


def test_policies_by_reason() -> None:
    found = database(POSTGRES + 'pin = { default = "allow", advisory_lock = "error", temporary_table = "warn" }').pin
    assert found == Pins("allow", advisory_lock="error", temporary_table="warn")
    assert found.by_reason() == {"advisory lock": "error", "temporary table": "warn"}
    assert database(MYSQL + 'pin.lock = "error"').pin == Pins("warn", lock="error")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (POSTGRES + 'pin = "eror"', "t:11: databases.app.pin: must be one of allow, warn, error, got 'eror'; did you mean error?"),
        (POSTGRES + 'pin = { advisry_lock = "error" }', "t:11: databases.app.pin.advisry_lock: unknown key; did you mean advisory_lock?"),
        (POSTGRES + 'pin = { cursor = "never" }', "t:11: databases.app.pin.cursor: must be one of allow, warn, error, got 'never'"),
        (POSTGRES + "pin = 1", "t:11: databases.app.pin: must be a string, got 1"),
        (
            POSTGRES + 'pin = { user_variable = "error" }',
            "t:11: databases.app.pin.user_variable: is no reason of a postgres database; allowed: default, cursor, prepared_statement, "
            "temporary_table, advisory_lock, library, sequence, listen, setting, unknown_state",
        ),
        (MYSQL + 'pin = { advisory_lock = "error" }', "t:11: databases.app.pin.advisory_lock: is no reason of a mysql database"),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    assert error(text).startswith(problem)


def test_the_reasons_are_those_of_the_engines() -> None:
    postgres = {name for name, _ in HOLDINGS.values()}
    mysql = {reason.partition(";")[0].lower() for reason in PIN_REASONS.values()}
    words = {name.replace("_", " ") for name in keys_of(Pins)} - {"default"}
    assert words == postgres | mysql
    assert {name.replace("_", " ") for name in PINS_OF_POSTGRES} == postgres - mysql
    assert {name.replace("_", " ") for name in PINS_OF_MYSQL} == mysql - postgres


def test_limits() -> None:
    limits = RelayLimits(pin_policy=PIN_ALLOW, pin_policies={"set transaction": PIN_ERROR, "cursor": PIN_WARN})
    assert [limits.policy_of(reason) for reason in ("cursor", "SET TRANSACTION", "lock")] == [PIN_WARN, PIN_ERROR, PIN_ALLOW]
    assert limits.refused_pins(PIN_REASONS) == 2
