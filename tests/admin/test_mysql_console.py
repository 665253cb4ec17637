"""MySQL's console as an exchange: no socket, no server; a dictionary of commands answers."""

from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.accounts import Account, ClientLogin
from dualpool.answers import Answer, Done, Notice, Table, Value, columns
from dualpool.errors import CommandRefused, DualpoolError
from dualpool.mysql import codec, messages, wire
from dualpool.mysql.console import binary_row, clean, serve, small_talk
from dualpool.protocol import DescribeCommand, Receive, RunCommand, Send

NUMBERS = Table(columns(n="int4", big="int8", sum="numeric", word="text"), [(1, -2, 30000, "one"), (None, 0, -1, None)])
CAPABILITIES = wire.CLIENT_PROTOCOL_41 | wire.CLIENT_DEPRECATE_EOF


def answer_to(text: str) -> Answer:
    """The commands of these tests."""
    if text == "SHOW NUMBERS":
        return NUMBERS
    if text.startswith("PAUSE"):
        return Done("PAUSE", (Notice(text, severity="WARNING"),))
    if text == "SHOW HELP":
        return Done("SHOW", (Notice("usage", "\n\tone\n\ttwo\n"),))
    raise CommandRefused(f"invalid command '{text}'", hint="no")


def talk(*commands: bytes, capabilities: int = CAPABILITIES) -> list[bytes]:
    """The payloads that the console sends after its welcome."""
    login = ClientLogin(Account("app", "dualpool", admin=True), {}, None, None, capabilities=capabilities, sequence=2)
    exchange: Any = serve(login, 1, bytes(32))
    command = next(exchange)
    out: list[bytes] = []
    rest = b"".join(wire.packet(0, payload) for payload in commands)
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
                    answer = answer_to(command.text)
                    result = answer.columns if isinstance(answer, Table) else None
            except DualpoolError as error:
                command = exchange.throw(error)
            else:
                command = exchange.send(result)
    except StopIteration:
        pass
    return codec.split(b"".join(out[1:]))


def query(text: str) -> bytes:
    return bytes((wire.COM_QUERY,)) + text.encode()


def rows_of(text: str) -> list[list[bytes | None]]:
    """The rows of a command's answer."""
    payloads = talk(query(text))
    count = payloads[0][0]
    return [codec.row_values(payload) for payload in payloads[1 + count : -1]]


@pytest.mark.parametrize("capabilities", [wire.CLIENT_PROTOCOL_41, CAPABILITIES])
def test_a_table_as_text(capabilities: int) -> None:
    payloads = talk(query("SHOW NUMBERS"), capabilities=capabilities)
    first = 5 if capabilities == CAPABILITIES else 6
    assert payloads[0] == b"\4"
    assert [codec.row_values(row) for row in payloads[first:-1]] == [[b"1", b"-2", b"30000", b"one"], [None, b"0", b"-1", None]]
    assert payloads[-1][0] == 0xFE


def test_orders_errors_and_warnings() -> None:
    ok, error = talk(query("PAUSE a"), query("nonsense;"))
    assert codec.parse_ok(ok, CAPABILITIES).warnings == 1
    assert messages.parse_error(error).message == "invalid command 'nonsense' no"
    assert messages.parse_error(error).errno == 1064
    assert codec.row_values(talk(query("PAUSE a"), query("SHOW WARNINGS"))[-2]) == [b"Warning", b"1105", b"PAUSE a"]
    assert rows_of("SHOW HELP") == [[b"one"], [b"two"]]


def prepare(text: str) -> bytes:
    return bytes((wire.COM_STMT_PREPARE,)) + text.encode()


def execute(number: int, values: bytes = b"") -> bytes:
    return bytes((wire.COM_STMT_EXECUTE,)) + pack("<IBI", number, 0, 1) + values


def test_a_prepared_table() -> None:
    payloads = talk(prepare("SHOW NUMBERS"), execute(1))
    assert payloads[0] == b"\0" + pack("<IHH", 1, 4, 0) + b"\0\0\0"
    assert payloads[10:12] == [binary_row(NUMBERS.columns, row) for row in NUMBERS.rows]


def test_parameters() -> None:
    text = b"\0\1" + bytes((codec.VAR_STRING, 0)) + b"\4it's"
    number = b"\0\1" + bytes((codec.LONG, 0)) + pack("<i", -5)
    again = b"\0\0" + pack("<i", 7)
    for values, expected in ((text, "PAUSE 'it''s'"), (number, "PAUSE '-5'")):
        assert codec.row_values(talk(prepare("PAUSE ?"), execute(1, values), query("SHOW WARNINGS"))[-2])[2] == expected.encode()
    told = talk(prepare("PAUSE ?"), execute(1, number), execute(1, again), query("SHOW WARNINGS"))
    assert codec.row_values(told[-2])[2] == b"PAUSE '7'"
    long = bytes((wire.COM_STMT_SEND_LONG_DATA,)) + pack("<IH", 1, 0) + b"ab"
    told = talk(prepare("PAUSE ?"), long, long, execute(1, text), query("SHOW WARNINGS"))
    assert codec.row_values(told[-2])[2] == b"PAUSE 'abab'"


@pytest.mark.parametrize(
    ("commands", "errno"),
    [
        ([execute(9)], 1243),
        ([prepare("PAUSE ?"), execute(1)], 1210),
        ([prepare("PAUSE ?"), execute(1, b"\1\1\xfd\0")], 1064),
        ([prepare("PAUSE ?"), execute(1, b"\0\1\x05\0" + bytes(8))], 1210),
        ([prepare("nonsense")], 1064),
        ([bytes((wire.COM_BINLOG_DUMP,))], 1047),
        ([b""], 1047),
        ([prepare("PAUSE a"), bytes((wire.COM_STMT_CLOSE,)) + pack("<I", 1), execute(1)], 1243),
    ],
)
def test_what_is_refused(commands: list[bytes], errno: int) -> None:
    assert messages.parse_error(talk(*commands)[-1]).errno == errno


def test_the_other_commands() -> None:
    for command in (wire.COM_PING, wire.COM_RESET_CONNECTION):
        assert talk(bytes((command,)))[0][0] == 0
    assert talk(bytes((wire.COM_INIT_DB,)) + b"dualpool")[0][0] == 0
    assert talk(bytes((wire.COM_SET_OPTION, 0, 0)))[0][0] == 0xFE
    assert talk(bytes((wire.COM_STATISTICS,))) == [b"dualpool console"]
    assert talk(bytes((wire.COM_QUIT,)), query("PAUSE")) == []


LOGIN = ClientLogin(Account("app", "dualpool"), {}, None, None, connection_id=7)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("SELECT 1", (1,)),
        ("select @@version_comment limit 1", None),
        ("SELECT @@session.autocommit AS a, @@max_allowed_packet", (1, 1 << 20)),
        ("SELECT @@no_such_thing", (None,)),
        ("SELECT DATABASE(), USER(), CONNECTION_ID()", ("dualpool", "app", 7)),
    ],
)
def test_what_drivers_ask_is_answered(text: str, row: tuple[Value, ...] | None) -> None:
    answer = small_talk(clean(text), LOGIN, ())
    assert isinstance(answer, Table)
    assert row is None or answer.rows == [row]


@pytest.mark.parametrize(
    "text", ["SET NAMES utf8mb4", "set autocommit=0", "SET @@session.autocommit = OFF", "SET SESSION sql_mode='x'", "COMMIT", "use x"]
)
def test_what_drivers_set_is_done(text: str) -> None:
    assert small_talk(text, LOGIN, ()) == Done("OK")


@pytest.mark.parametrize("text", ["SHOW POOLS", "SET query_timeout = 5", "SELECT 1 FROM t", "RELOAD", "SELECT sleep()"])
def test_commands_are_not_small_talk(text: str) -> None:
    assert small_talk(text, LOGIN, ()) is None


def test_comments_are_left_out() -> None:
    assert clean("/* a */ SHOW POOLS -- b\n ; ") == "SHOW POOLS"
    assert clean("PAUSE 'a -- b'") == "PAUSE 'a -- b'"


@given(st.binary(min_size=1, max_size=60))
def test_garbage_is_answered(payload: bytes) -> None:
    talk(payload)
