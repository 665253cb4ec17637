"""PostgreSQL's console as an exchange: no socket, no server; a dictionary of commands answers."""

import contextlib
from decimal import Decimal
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.numeric import NumericBinaryLoader

from dualpool.accounts import Account, ClientLogin
from dualpool.answers import Answer, Done, Notice, Table, columns
from dualpool.errors import CommandRefused, DualpoolError
from dualpool.postgres import wire
from dualpool.postgres.codec import split as split_messages
from dualpool.postgres.console import binary_numeric, serve, small_talk, split
from dualpool.protocol import DescribeCommand, Receive, RunCommand, Send

NUMBERS = Table(columns(n="int4", big="int8", sum="numeric", word="text"), [(1, -2, 30000, "one"), (None, 0, -1, None), (3, 4, 0, "")])
LOGIN = ClientLogin(Account("app", "dualpool", admin=True), {}, None, None)
SYNC = wire.SYNC_MESSAGE


def answer_to(text: str) -> Answer:
    """The commands of these tests."""
    if text == "SHOW NUMBERS":
        return NUMBERS
    if text.startswith("PAUSE"):
        return Done(text, (Notice("as you wish", severity="WARNING"),))
    raise CommandRefused(f"invalid command '{text}'", hint="no")


def talk(sent: bytes) -> list[tuple[int, bytes]]:
    """What the console answers to `sent` after its welcome, until the client has nothing more to say."""
    exchange: Any = serve(LOGIN, 1, bytes(32))
    command = next(exchange)
    out: list[bytes] = []
    rest = sent
    try:
        while True:
            result: Any = None
            try:
                if isinstance(command, Send):
                    out.append(command.data)
                elif isinstance(command, Receive):
                    if len(rest) < command.size:
                        break
                    result, rest = rest[: command.size], rest[command.size :]
                elif isinstance(command, RunCommand):
                    result = answer_to(command.text)
                elif isinstance(command, DescribeCommand):
                    answer = answer_to(command.text.replace("$1", "x"))
                    result = answer.columns if isinstance(answer, Table) else None
            except DualpoolError as error:
                command = exchange.throw(error)
            else:
                command = exchange.send(result)
    except StopIteration:
        pass
    found, left = split_messages(b"".join(out[1:]))
    assert not left
    return found


def kinds(sent: bytes) -> str:
    """The answers' kinds as letters."""
    return "".join(chr(kind) for kind, _ in talk(sent))


def parse(text: str, name: str = "", oids: tuple[int, ...] = ()) -> bytes:
    return wire.message(wire.PARSE, f"{name}\0{text}\0".encode() + pack(f"!H{len(oids)}I", len(oids), *oids))


def bind(
    statement: str = "", portal: str = "", values: tuple[bytes | None, ...] = (), given: tuple[int, ...] = (), wanted: tuple[int, ...] = ()
) -> bytes:
    data = f"{portal}\0{statement}\0".encode() + pack(f"!H{len(given)}H", len(given), *given) + pack("!H", len(values))
    for value in values:
        data += b"\xff\xff\xff\xff" if value is None else pack("!I", len(value)) + value
    return wire.message(wire.BIND, data + pack(f"!H{len(wanted)}H", len(wanted), *wanted))


def describe(kind: str, name: str = "") -> bytes:
    return wire.message(wire.DESCRIBE, f"{kind}{name}\0".encode())


def execute(portal: str = "", rows: int = 0) -> bytes:
    return wire.message(wire.EXECUTE, f"{portal}\0".encode() + pack("!I", rows))


def query(text: str) -> bytes:
    return wire.query(text.encode())


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (query("SHOW NUMBERS"), "TDDDCZ"),
        (query("PAUSE a"), "NCZ"),
        (query("SHOW NUMBERS; PAUSE a"), "TDDDCNCZ"),
        (query("nonsense; SHOW NUMBERS"), "EZ"),
        (query("-- a ping"), "IZ"),
        (query(""), "IZ"),
        (query("SELECT 1"), "TDCZ"),
        (query("BEGIN; SHOW NUMBERS; COMMIT"), "CTDDDCCZ"),
        (parse("SHOW NUMBERS") + bind() + describe("P") + execute() + SYNC, "12TDDDCZ"),
        (parse("SHOW NUMBERS", "s") + describe("S", "s") + wire.FLUSH_MESSAGE, "1tT"),
        (parse("PAUSE $1") + describe("S") + bind(values=(b"a",)) + execute() + SYNC, "1tn2NCZ"),
        (parse("SHOW NUMBERS") + bind() + execute(rows=2) + execute(rows=2) + SYNC, "12DDsDCZ"),
        (parse("SHOW NUMBERS") + bind() + execute(rows=3) + SYNC, "12DDDCZ"),
        (parse("nonsense") + bind() + execute() + SYNC + query("PAUSE a"), "EZNCZ"),
        (bind("missing") + execute() + SYNC, "EZ"),
        (execute("missing") + SYNC, "EZ"),
        (parse("PAUSE $1") + bind() + SYNC, "1EZ"),
        (parse("PAUSE $1") + bind(values=(None,)) + SYNC, "1EZ"),
        (parse("PAUSE a", "s") + parse("PAUSE b", "s") + SYNC, "1EZ"),
        (parse("PAUSE a", "s") + wire.message(wire.CLOSE, b"Ss\0") + parse("PAUSE b", "s") + SYNC, "131Z"),
        (parse("") + bind() + describe("P") + execute() + SYNC, "12nIZ"),
        (wire.message(wire.FUNCTION_CALL, b"") + SYNC, "EZ"),
        (wire.message(wire.BIND, b"no end") + SYNC, "EZ"),
        (wire.TERMINATE_MESSAGE + query("PAUSE a"), ""),
    ],
)
def test_what_is_answered(sent: bytes, expected: str) -> None:
    assert kinds(sent) == expected


def test_a_failed_transaction_says_so_until_it_ends() -> None:
    ready = [payload for kind, payload in talk(query("BEGIN") + query("nonsense") + query("ROLLBACK")) if kind == wire.READY]
    assert ready == [b"T", b"E", b"I"]


def test_a_parameter_is_one_word_whatever_it_holds() -> None:
    tags = [
        payload
        for kind, payload in talk(parse("PAUSE $1") + bind(values=(b"it's; KILL",)) + execute() + SYNC)
        if kind == wire.COMMAND_COMPLETE
    ]
    assert tags == [b"PAUSE 'it''s; KILL'\0"]


def test_a_binary_number_of_the_type_that_the_client_named() -> None:
    sent = parse("PAUSE $1", oids=(23,)) + bind(values=(pack("!i", -5),), given=(1,)) + execute() + SYNC
    assert [payload for kind, payload in talk(sent) if kind == wire.COMMAND_COMPLETE] == [b"PAUSE '-5'\0"]


def test_binary_rows() -> None:
    sent = parse("SHOW NUMBERS") + bind(wanted=(1,)) + describe("P") + execute() + SYNC
    rows = [payload for kind, payload in talk(sent) if kind == wire.DATA_ROW]
    assert (
        rows[0][2:]
        == b"\0\0\0\x04" + pack("!i", 1) + b"\0\0\0\x08" + pack("!q", -2) + b"\0\0\0\x0a" + binary_numeric(30000) + b"\0\0\0\x03one"
    )
    assert rows[1][2:6] == b"\xff\xff\xff\xff"


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_numeric_in_binary_is_what_psycopg_reads(number: int) -> None:
    assert NumericBinaryLoader(1700, None).load(binary_numeric(number)) == Decimal(number)


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("a; b ;; c;", ["a", "b", "c"]),
        ("PAUSE 'a;b'; x", ["PAUSE 'a;b'", "x"]),
        ('PAUSE "a;b"', ['PAUSE "a;b"']),
        ("/* x; y */ SHOW -- z;\nPOOLS", ["SHOW  \nPOOLS"]),
        ("  ", []),
        ("'open; string", ["'open; string"]),
    ],
)
def test_commands_of_a_text(text: str, commands: list[str]) -> None:
    assert split(text) == commands


@pytest.mark.parametrize(
    "text",
    [
        "SET extra_float_digits = 3", "set session statement_timeout to 0", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE", "DISCARD ALL", "select version()", "SELECT current_schema()", "SHOW server_version",
        "show transaction isolation level", "SELECT 1 AS one", "select pg_catalog.version()",
    ],
)  # fmt: skip
def test_what_drivers_say_is_answered(text: str) -> None:
    assert small_talk(text, LOGIN) is not None


@pytest.mark.parametrize("text", ["SET query_timeout = 1", "SHOW POOLS", "SELECT * FROM t", "RELOAD", "KILL x"])
def test_commands_are_not_small_talk(text: str) -> None:
    assert small_talk(text, LOGIN) is None


@given(st.binary(max_size=60))
def test_garbage_after_the_login_ends_in_an_error_and_in_no_other_way(data: bytes) -> None:
    with contextlib.suppress(DualpoolError):
        talk(data)
