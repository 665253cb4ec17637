"""The flat tables are the readable ones."""

from dualpool.mysql import states, wire
from dualpool.protocol import SESSION, STATEMENT, TRANSACTION


def test_every_transition_is_in_the_flat_table() -> None:
    for phase in range(states.TEXT + 1):
        for event in range(states.EVENTS):
            wanted = states.SERVER_LEGAL.get(phase, {}).get(event, states.ILLEGAL)
            assert states.NEXT[phase * states.EVENTS + event] == wanted
    assert len(states.NEXT) == (states.TEXT + 1) * states.EVENTS


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
    assert not legal & {wire.COM_SLEEP, wire.COM_BINLOG_DUMP, wire.COM_BINLOG_DUMP_GTID, wire.COM_REGISTER_SLAVE, wire.COM_CHANGE_USER}
    assert not legal & {wire.COM_SHUTDOWN, wire.COM_REFRESH, wire.COM_DEBUG, wire.COM_TABLE_DUMP, wire.COM_CLONE}


def test_who_may_release_when() -> None:
    assert [states.RELEASING[mode] for mode in (TRANSACTION, SESSION, STATEMENT)] == [(True, False), (False, False), (True, False)]
