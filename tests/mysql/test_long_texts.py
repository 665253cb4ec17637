"""Texts as long as they may be, made to take long: nobody else is served while one is read."""

import time

from dualpool.mysql import reading, sql
from dualpool.mysql.client_relay import ClientRelay
from dualpool.mysql.wire import packet
from dualpool.protocol import FORWARD, NEEDS_SERVER, RelayLimits
from dualpool.sql_text import mysql_lexis
from dualpool.state import DEFAULTS

SECONDS = 10
"""Of the processor's time. Linear work takes a hundredth of it; quadratic work would take many minutes."""


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
        client._reading = reading.read(text * 1_000, client.texts.lexis or mysql_lexis("utf8mb4", ""))
        for _ in range(16_000):
            assert client.explains(known=True) is explained
            assert client.explains(known=False) is False
    assert time.process_time() - began < SECONDS


def test_a_backslash_before_a_quotation_mark_hides_what_follows() -> None:
    assert sql.masked_safely(b"SELECT 1, \\\\', 'secret'", 100) == "SELECT ?,"
