"""The flat tables are the readable ones."""

import pytest

from dualpool.mysql import states, wire
from dualpool.protocol import SESSION, STATEMENT, TRANSACTION


def test_every_transition_is_in_the_flat_table() -> None:
    for phase in range(states.PHASES):
        for event in range(states.EVENTS):
            wanted = states.SERVER_LEGAL.get(phase, {}).get(event, states.ILLEGAL)
            assert states.NEXT[phase * states.EVENTS + event] == wanted
    assert len(states.NEXT) == states.PHASES * states.EVENTS
    assert max(states.SERVER_LEGAL) < states.PHASES


def test_every_phase_can_end() -> None:
    for start in states.SERVER_LEGAL:
        reached = {start}
        while True:
            more = {after for phase in reached for after in states.SERVER_LEGAL.get(phase, {}).values()} | reached
            if more == reached:
                break
            reached = more
        assert states.DONE in reached


def test_commands_that_nobody_has_to_carry_out_are_refused() -> None:
    legal = {command for command in range(256) if states.CLIENT_ACTION[command] != states.C_REFUSED}
    assert legal == set(states.CLIENT_LEGAL)
    assert not legal & {wire.COM_SLEEP, wire.COM_BINLOG_DUMP, wire.COM_BINLOG_DUMP_GTID, wire.COM_REGISTER_SLAVE}
    assert not legal & {wire.COM_SHUTDOWN, wire.COM_REFRESH, wire.COM_DEBUG, wire.COM_TABLE_DUMP, wire.COM_CLONE}


def test_who_may_release_when() -> None:
    assert [states.RELEASING[mode] for mode in (TRANSACTION, SESSION, STATEMENT)] == [(True, False), (False, False), (True, False)]


def holdings(*steps: states.Step, ok: bool = True) -> states.Holdings:
    found = states.Holdings()
    for step in steps:
        found.apply((step,), ok, b"`app`.")
    return found


PAIRS = [
    ((states.E_PREPARE, b"s"), (states.E_DEALLOCATE, b"s"), states.PIN_PREPARED),
    ((states.E_HANDLER, b"h"), (states.E_HANDLER_CLOSE, b"h"), states.PIN_HANDLER),
    ((states.E_TABLES, b""), (states.E_UNLOCK_TABLES, b""), states.PIN_TABLES),
    ((states.E_TABLES, b""), (states.E_BEGIN, b""), states.PIN_TABLES),
    ((states.E_TABLES, b"FLUSH"), (states.E_UNLOCK_TABLES, b""), states.PIN_TABLES),
    ((states.E_TABLES, b"INSTANCE"), (states.E_UNLOCK_TABLES, b"INSTANCE"), states.PIN_TABLES),
    ((states.E_XA, b""), (states.E_XA_END, b""), states.PIN_XA),
    ((states.E_ROLE, b""), (states.E_ROLE_DEFAULT, b""), states.PIN_ROLE),
]


@pytest.mark.parametrize(("begins", "ends", "pin"), PAIRS)
def test_what_begins_and_ends_by_statements_of_its_own(begins: states.Step, ends: states.Step, pin: int) -> None:
    assert holdings(begins).pins() == pin
    assert holdings(begins, ok=False).pins() == 0
    assert holdings(begins, ends).pins() == 0
    found = holdings(begins)
    found.apply((ends,), False, b"")
    assert found.pins() == pin
    found.apply((ends, ends), False, b"")
    assert found.pins() == pin
    assert states.may_pin((begins,)) == pin
    failed = states.Holdings()
    failed.apply((begins, (states.E_DROP, b"")), False, b"", several=True)
    assert failed.pins() == pin, "a text of several statements may have failed behind it"


def test_what_only_the_server_can_tell() -> None:
    found = holdings((states.E_LOCK, b"x"), (states.E_ASSIGN, b"a"), (states.E_TEMPORARY, b"t"), (states.E_TEMPORARY, b"d.t"))
    assert found.unsettled == states.PIN_LOCK | states.PIN_USER_VARIABLE
    assert found.pins() == states.PIN_TEMPORARY
    assert found.temporary == {b"`app`.t", b"d.t"}
    found.unsettled = 0
    assert found.pins() == states.PIN_TEMPORARY | states.PIN_LOCK | states.PIN_USER_VARIABLE
    found.apply(((states.E_DROP, b""), (states.E_UNLOCK, b"")), True, b"")
    assert found.unsettled == states.PIN_TEMPORARY | states.PIN_LOCK


def test_more_names_than_are_kept_are_names_that_are_not_known() -> None:
    found = holdings(*((states.E_PREPARE, b"%d" % number) for number in range(states.MAX_NAMES + 5)))
    assert len(found.prepared) == states.MAX_NAMES + 1
    for number in range(states.MAX_NAMES + 5):
        found.apply(((states.E_DEALLOCATE, b"%d" % number),), True, b"")
    assert found.pins() == states.PIN_PREPARED


def test_each_pin_has_its_reason() -> None:
    assert set(states.PIN_REASONS) >= set(states.PINS_OF_STEPS.values())
    assert all("; until " in reason for reason in states.PIN_REASONS.values())
