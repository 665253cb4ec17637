"""The flat tables say what the readable ones say."""

import pytest

from dualpool.postgres import states, wire
from dualpool.protocol import SESSION, STATEMENT, TRANSACTION


@pytest.mark.parametrize("kind", range(256))
def test_flat_tables_equal_the_readable_ones(kind: int) -> None:
    assert states.CLIENT_ACTION[kind] == states.CLIENT_LEGAL.get(kind, states.C_ILLEGAL)
    assert states.SERVER_ACTION[kind] == states.SERVER_LEGAL.get(kind, states.S_ILLEGAL)
    for mode in (TRANSACTION, SESSION, STATEMENT):
        assert bool(states.RELEASING[mode][kind]) is states.MAY_RELEASE.get((mode, kind), False)


def test_every_kind_of_message_has_an_answer() -> None:
    """A message kind added to wire.py must be thought about here."""
    logins = {wire.BACKEND_KEY, wire.AUTHENTICATION, wire.NEGOTIATE_VERSION, wire.PASSWORD}
    names = vars(wire)
    kinds = {value for name, value in names.items() if name.isupper() and type(value) is int and 48 < value < 123}
    states_of_ready = {wire.IDLE, wire.IN_TRANSACTION, wire.FAILED}
    assert kinds - logins - states_of_ready <= set(states.CLIENT_LEGAL) | set(states.SERVER_LEGAL)
    assert not logins & (set(states.CLIENT_LEGAL) | set(states.SERVER_LEGAL))


def test_every_mode_and_status_is_decided() -> None:
    assert set(states.MAY_RELEASE) == {
        (mode, status) for mode in (TRANSACTION, SESSION, STATEMENT) for status in (wire.IDLE, wire.IN_TRANSACTION, wire.FAILED)
    }
