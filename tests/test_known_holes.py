"""Holes that other poolers had in logins: PgBouncer's CVEs, each with the bytes that went wrong there.

CVE-2025-12819 (search_path before auth_query) and CVE-2025-2291 (VALID UNTIL) are in tests/e2e/test_authentication.py, with real servers.
"""

import struct
from collections.abc import Generator
from typing import Any

import pytest

from dualpool.accounts import Account, FrontendPolicy, ServerTarget
from dualpool.errors import ConnectFailed, DualpoolError, RemoteProtocolError
from dualpool.postgres import ENGINE, messages, wire
from dualpool.protocol import FindAccount, Offload, Peek, Receive, ReceiveSome, Send, StartTls


def run(exchange: Generator[Any, Any, Any], data: bytes, chunk: int = 1 << 16) -> Any:
    """Drive an exchange with a peer that says `data`, whatever it is told."""
    result: Any = None
    while True:
        try:
            command = exchange.send(result)
        except StopIteration as stop:
            return stop.value
        result = None
        match command:
            case Receive():
                result, data = data[: command.size], data[command.size :]
            case ReceiveSome():
                assert data, "nothing left to read"
                result, data = data[:chunk], data[chunk:]
            case Peek():
                result = data[:1]
            case FindAccount():
                result = Account(command.user, command.database, ("secret",), method="scram-sha-256")
            case Offload():
                result = command.call()
            case _:
                assert isinstance(command, Send | StartTls)


def client(sasl_message: bytes) -> bytes:
    """A client that logs in and sends this as its first SASL message."""
    return messages.startup({"user": "app", "database": "app"}) + wire.message(wire.PASSWORD, sasl_message)


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0xFFFFFFFE, 1000])
def test_the_length_inside_a_sasl_message_lies(length: int) -> None:
    """CVE-2026-6664: the length was added to a position before it was compared."""
    message = b"SCRAM-SHA-256\0" + struct.pack("!I", length) + b"n,,n=,r=abc"
    with pytest.raises(DualpoolError):
        run(ENGINE.accept(FrontendPolicy()), client(message))


@pytest.mark.parametrize("length", [0, 3, 0x7FFFFFFF, 0xFFFFFFFF])
def test_the_length_of_a_password_message_lies(length: int) -> None:
    start = messages.startup({"user": "app", "database": "app"})
    with pytest.raises(RemoteProtocolError):
        run(ENGINE.accept(FrontendPolicy()), start + bytes((wire.PASSWORD,)) + struct.pack("!I", length) + b"x" * 100)


def test_a_server_sends_an_endless_nonce() -> None:
    """CVE-2026-6665: it was copied into a buffer of a fixed size."""
    target = ServerTarget("127.0.0.1", 5432, "app", "app", "secret", sslmode="disable")
    for size in (1_000, 60_000, 70_000, 1 << 24):
        answer = b"r=" + b"n" * size + b",s=c2FsdA==,i=4096"
        sasl = messages.authentication(messages.AUTH_SASL, b"SCRAM-SHA-256\0\0")
        data = sasl + messages.authentication(messages.AUTH_SASL_CONTINUE, answer)
        with pytest.raises(ConnectFailed):
            run(ENGINE.connect(target), data)


@pytest.mark.parametrize("fields", [b"", b"\0", b"SERROR\0\0", b"SERROR\0MI have no code\0\0", b"C\0M\0\0", b"M", b"Cxxxxxxxxxxxx\0\0"])
def test_a_server_sends_an_error_without_a_code(fields: bytes) -> None:
    """CVE-2026-6666: the code was read where there was none."""
    target = ServerTarget("127.0.0.1", 5432, "app", "app", "secret", sslmode="disable")
    with pytest.raises(ConnectFailed) as error:
        run(ENGINE.connect(target), wire.message(wire.ERROR_RESPONSE, fields))
    assert len(error.value.sqlstate) == 5
    assert messages.error_message(error.value)
