"""Texts as long as they may be, made to take long: nobody else is served while one is read."""

import time
from collections.abc import Callable

import pytest

from dualpool.mysql import sql
from dualpool.mysql.client_relay import ClientRelay
from dualpool.mysql.states import E_LOCK, E_UNLOCK, E_UNLOCK_ALL
from dualpool.mysql.wire import packet
from dualpool.protocol import FORWARD, NEEDS_SERVER, RelayLimits
from dualpool.state import DEFAULTS

SIZE = sql.LOOKED_AT
SECONDS = 10
"""Of the processor's time. Linear work takes a hundredth of it; quadratic work would take many minutes."""

READERS: dict[str, Callable[[], object]] = {
    "KILL and blanks": lambda: sql.kill_target(b"KILL 5" + b" " * SIZE + b"x", 1),
    "a question and blanks": lambda: sql.local_question(b"SELECT ROW_COUNT()" + b" " * SIZE + b"+ 1"),
    "a question and a long name": lambda: sql.local_question(b"SELECT ROW_COUNT() " + b"x" * SIZE + b"+"),
    "GET DIAGNOSTICS and blanks": lambda: sql.diagnostics_as_set(b"GET DIAGNOSTICS @a=NUMBER" + b" " * SIZE + b"x", 1, 1),
    "many locks that are released": lambda: sql.steps(b"SELECT RELEASE_ALL_LOCKS() " + b"RELEASE_LOCK " * (SIZE // 13) + b","),
    "many locks among many strings": lambda: sql.steps(b"SELECT " + b"''," * (SIZE // 6) + b"GET_LOCK(''," * (SIZE // 24)),
    "many numbers in many columns": lambda: sql.with_numbers(b"SELECT " + b"ROW_COUNT()," * (SIZE // 12) + b"1", {sql.N_ROW_COUNT: 1}),
    "backslashes": lambda: sql.masked_safely(b"\\" * SIZE, 200),
}


@pytest.mark.parametrize("name", READERS)
def test_long_texts_take_linear_time(name: str) -> None:
    began = time.process_time()
    READERS[name]()
    assert time.process_time() - began < SECONDS


def test_a_long_statement_in_small_pieces() -> None:
    client = ClientRelay(RelayLimits(), 0, DEFAULTS)
    sent = packet(0, b"\x16SELECT '" + b"x" * (client.limits.statement_bytes - 20) + b"'")
    *pieces, last = (sent[position : position + 64] for position in range(0, len(sent), 64))
    began = time.process_time()
    assert {client.on_client_bytes(piece) for piece in pieces} == {FORWARD}
    assert client.held_bytes() == len(sent) - len(last)
    assert client.on_client_bytes(last) == NEEDS_SERVER
    assert client.held() == sent
    assert time.process_time() - began < SECONDS


def test_each_of_many_statements_that_come_as_one_changes_something() -> None:
    client = ClientRelay(RelayLimits(), 0, DEFAULTS)
    began = time.process_time()
    for text, explained in ((b"SET sql_mode='';", True), (b"SELECT f(1, 2);.", False)):
        client.text = text * 16_000
        for _ in range(16_000):
            assert client.explains(known=True) is explained
            assert client.explains(known=False) is False
    assert time.process_time() - began < SECONDS


def test_which_locks_stand_in_strings() -> None:
    text = b"SELECT 'GET_LOCK(1)', GET_LOCK('a', 1), \"RELEASE_LOCK\", RELEASE_LOCK('b'), 'x'"
    assert sql.steps(text) == ((E_LOCK, b"a"), (E_UNLOCK, b""))
    assert sql.steps(b"SELECT RELEASE_ALL_LOCKS()") == ((E_UNLOCK_ALL, b""),)


def test_a_backslash_before_a_quotation_mark_hides_what_follows() -> None:
    assert sql.masked_safely(b"SELECT 1, \\\\', 'secret'", 100) == "SELECT ?,"
