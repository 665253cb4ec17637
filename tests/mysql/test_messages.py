"""MySQL's packets, as bytes: one table of rows for parsing and building, and each cut at every byte."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysql.constants import CLIENT, COMMAND, SERVER_STATUS

from dualpool.errors import CheckoutTimeout, LoginFailed, RemoteProtocolError
from dualpool.mysql import messages, wire
from dualpool.mysql.messages import Conversation, ErrorMessage, Greeting, HandshakeResponse
from dualpool.protocol import Exchange
from tests.helpers.playbook import Play, check, reads, returns, sends

PLAIN = wire.CLIENT_PROTOCOL_41
NONCE = bytes(range(1, 21))


# ---------------------------------------------------------------------------------------------------------------------- wire


def test_the_commands_are_pymysql_s() -> None:
    known = {name: value for name, value in vars(COMMAND).items() if name.startswith("COM_") and name != "COM_END"}
    assert known == {name: getattr(wire, name) for name in known}


def test_the_capabilities_are_pymysql_s() -> None:
    renamed = {"PLUGIN_AUTH_LENENC_CLIENT_DATA": "PLUGIN_AUTH_LENENC", "HANDLE_EXPIRED_PASSWORDS": "CAN_HANDLE_EXPIRED_PASSWORDS"}
    known = {name: value for name, value in vars(CLIENT).items() if name.isupper() and name != "CAPABILITIES"}
    assert known == {name: getattr(wire, "CLIENT_" + renamed.get(name, name)) for name in known}


def test_the_status_flags_are_pymysql_s() -> None:
    renamed = {
        "MORE_RESULTS_EXISTS": "MORE_RESULTS",
        "QUERY_NO_GOOD_INDEX_USED": "NO_GOOD_INDEX_USED",
        "QUERY_NO_INDEX_USED": "NO_INDEX_USED",
    }
    known = {
        name.split("_", 1)[1].removeprefix("STATUS_"): value for name, value in vars(SERVER_STATUS).items() if name.startswith("SERVER_")
    }
    assert known == {name: getattr(wire, "STATUS_" + renamed.get(name, name)) for name in known}


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, b"\x00"),
        (250, b"\xfa"),
        (251, b"\xfc\xfb\x00"),
        (65535, b"\xfc\xff\xff"),
        (65536, b"\xfd\x00\x00\x01"),
        (2**24 - 1, b"\xfd\xff\xff\xff"),
        (2**24, b"\xfe\x00\x00\x00\x01\x00\x00\x00\x00"),
        (2**64 - 1, b"\xfe" + b"\xff" * 8),
    ],
)
def test_length_encoded_integers(value: int, data: bytes) -> None:
    assert wire.put_lenenc(value) == data
    assert wire.get_lenenc(b"x" + data + b"y", 1) == (value, 1 + len(data))
    for cut in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            wire.get_lenenc(data[:cut], 0)


@pytest.mark.parametrize("first", [0xFB, 0xFF])
def test_bytes_that_begin_no_length(first: int) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.get_lenenc(bytes((first,)) + bytes(9), 0)


def test_a_string_s_length_may_lie() -> None:
    with pytest.raises(RemoteProtocolError):
        wire.get_lenenc_bytes(b"\xfe" + b"\xff" * 8 + b"abc", 0)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (0, [0]),
        (5, [5]),
        (wire.MAX_PAYLOAD - 1, [wire.MAX_PAYLOAD - 1]),
        (wire.MAX_PAYLOAD, [wire.MAX_PAYLOAD, 0]),
        (wire.MAX_PAYLOAD + 1, [wire.MAX_PAYLOAD, 1]),
        (2 * wire.MAX_PAYLOAD, [wire.MAX_PAYLOAD, wire.MAX_PAYLOAD, 0]),
    ],
)
def test_long_payloads_take_several_packets(size: int, sizes: list[int]) -> None:
    payload = bytes(size)
    data = wire.packet(254, payload)
    assert len(data) == size + wire.HEADER_SIZE * len(sizes)
    position = 0
    for sequence, part in enumerate(sizes, 254):
        assert data[position : position + 4] == wire.header(sequence, part) == part.to_bytes(3, "little") + bytes((sequence & 255,))
        position += wire.HEADER_SIZE + part


# -------------------------------------------------------------------------------------------------------------- conversation


def receive_all(talk: Conversation, count: int) -> Exchange[list[bytes]]:
    payloads = []
    for _ in range(count):
        payload = yield from talk.receive()
        payloads.append(payload)
    return payloads


def test_a_conversation_counts_both_sides_packets() -> None:
    def ping_pong() -> Exchange[int]:
        talk = Conversation(100)
        yield from talk.send(b"a")
        yield from talk.receive()
        yield from talk.send(b"")
        return talk.sequence

    play = check(ping_pong(), [sends(b"\x01\0\0\0a"), reads(b"\x02\0\0\x01bc"), sends(b"\0\0\0\x02"), returns()])
    assert play.result == 3


def test_a_conversation_joins_what_was_split() -> None:
    payload = bytes(wire.MAX_PAYLOAD) + b"end"
    play = Play(receive_all(Conversation(1 << 25), 2))
    play.feed(wire.packet(0, payload) + wire.packet(2, b"next"))
    assert play.result == [payload, b"next"]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_an_eager_conversation_reads_what_is_there(chunk: int) -> None:
    talk = Conversation(100)
    talk.eager = True
    play = Play(receive_all(talk, 2), chunk=chunk)
    play.feed(wire.packet(0, b"one") + wire.packet(1, b"two"))
    assert play.result == [b"one", b"two"]
    assert talk.leftover == b""


def test_a_conversation_refuses_what_is_too_long_or_out_of_sequence() -> None:
    for data, errno in ((wire.packet(0, bytes(101)), 1153), (wire.packet(1, b"x"), 1156), (wire.header(0, wire.MAX_PAYLOAD), 1153)):
        play = Play(receive_all(Conversation(100), 1))
        play.feed(data[:4])
        assert isinstance(play.error, RemoteProtocolError)
        assert play.error.errno == errno


# ------------------------------------------------------------------------------------------------------------ generic answers


def test_schema_changes() -> None:
    assert messages.schema_change("app") == b"\x01\x04\x03app"


@pytest.mark.parametrize(
    ("capabilities", "payload"),
    [(PLAIN, b"\xfe\x01\0\x02\0"), (PLAIN | wire.CLIENT_DEPRECATE_EOF, b"\xfe\0\0\x02\0\x01\0")],
)
def test_the_end_of_a_result(capabilities: int, payload: bytes) -> None:
    assert messages.is_end(payload, capabilities)


def test_a_row_that_begins_with_a_long_value_is_no_end() -> None:
    row = wire.put_lenenc(1 << 24) + b"..."
    assert not messages.is_end(row, PLAIN)


@pytest.mark.parametrize(
    ("answer", "payload"),
    [
        (ErrorMessage(1045, "28000", "Access denied"), b"\xff\x15\x04#28000Access denied"),
        (ErrorMessage(1064, "42000", ""), b"\xff\x28\x04#42000"),
        (ErrorMessage(1105, "HY000", "fänger"), b"\xff\x51\x04#HY000f\xc3\xa4nger"),
    ],
)
def test_err_packets(answer: ErrorMessage, payload: bytes) -> None:
    assert messages.error_payload(answer.errno, answer.sqlstate, answer.message) == payload
    assert messages.parse_error(payload) == answer


def test_an_err_packet_before_the_login_has_no_sqlstate() -> None:
    payload = b"\xff\x10\x04Too many connections"
    assert messages.error_payload(1040, "", "Too many connections") == payload
    assert messages.parse_error(payload) == ErrorMessage(1040, "HY000", "Too many connections")


def test_our_errors_as_packets() -> None:
    error = CheckoutTimeout("no server connection within 2 s", hint="Raise timeouts.query_wait.")
    text = b"no server connection within 2 s Raise timeouts.query_wait."
    assert messages.error_message(error) == wire.packet(1, b"\xff\x10\x04#08004" + text)
    assert messages.error_message(error, 7) == wire.packet(7, b"\xff\x10\x04#08004" + text)
    assert messages.error_message(error, 0) == wire.packet(0, b"\xff\x10\x04" + text)
    assert messages.error_message(LoginFailed("no", errno=3159)) == wire.packet(1, b"\xff\x57\x0c#28000no")


def test_there_are_no_notices() -> None:
    assert messages.notice_message("hello") == b""


# --------------------------------------------------------------------------------------------------------------------- login

FULL = (
    wire.CLIENT_PROTOCOL_41
    | wire.CLIENT_SECURE_CONNECTION
    | wire.CLIENT_CONNECT_WITH_DB
    | wire.CLIENT_PLUGIN_AUTH
    | wire.CLIENT_PLUGIN_AUTH_LENENC
    | wire.CLIENT_CONNECT_ATTRS
)
OLD = wire.CLIENT_PROTOCOL_41 | wire.CLIENT_SECURE_CONNECTION
GREETINGS = [
    (
        Greeting("8.4.0", 77, NONCE, 0xDF_FF_FF_FF, 45, 2, "caching_sha2_password"),
        b"\x0a8.4.0\0\x4d\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0\xff\xff\x2d\x02\0\xff\xdf\x15"
        + bytes(10)
        + b"\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\0caching_sha2_password\0",
    ),
]
RESPONSES = [
    (
        HandshakeResponse(FULL, 1 << 24, 45, "bob", b"\xaa" * 20, "shop", "mysql_native_password", {"_os": "Linux", "pid": "7"}),
        b"\x08\x82\x38\0\0\0\0\x01\x2d"
        + bytes(23)
        + b"bob\0\x14"
        + b"\xaa" * 20
        + b"shop\0mysql_native_password\0\x10\x03_os\x05Linux\x03pid\x017",
    ),
    (
        HandshakeResponse(OLD, 1 << 24, 8, "bob", b"\xaa" * 20),
        b"\0\x82\0\0\0\0\0\x01\x08" + bytes(23) + b"bob\0\x14" + b"\xaa" * 20,
    ),
    (HandshakeResponse(OLD, 0, 255, ""), b"\0\x82\0\0\0\0\0\0\xff" + bytes(23) + b"\0\0"),
]


@pytest.mark.parametrize(("greeting", "payload"), GREETINGS)
def test_greetings(greeting: Greeting, payload: bytes) -> None:
    assert greeting.payload() == payload
    assert messages.parse_greeting(payload) == greeting


@pytest.mark.parametrize(("response", "payload"), RESPONSES)
def test_handshake_responses(response: HandshakeResponse, payload: bytes) -> None:
    assert response.payload() == payload
    assert messages.parse_handshake_response(payload) == response
    assert payload.startswith(response.head())


def test_a_greeting_without_a_plugin() -> None:
    payload = GREETINGS[0][1].removesuffix(b"caching_sha2_password\0")
    assert messages.parse_greeting(payload).auth_plugin == ""
    assert messages.parse_greeting(payload).nonce == NONCE


@pytest.mark.parametrize(
    ("parse", "payload"),
    [
        (messages.parse_greeting, GREETINGS[0][1].removesuffix(b"\0caching_sha2_password\0")),
        (messages.parse_handshake_response, RESPONSES[0][1]),
        (messages.parse_handshake_response, RESPONSES[1][1]),
    ],
)
def test_login_packets_cut_at_every_byte(parse: Callable[[bytes], object], payload: bytes) -> None:
    for cut in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            parse(payload[:cut])


@given(st.binary(max_size=300))
def test_garbage_is_a_protocol_error_or_a_packet(data: bytes) -> None:
    capabilities = wire.INT32.pack(FULL)
    for parse, payload in (
        (messages.parse_greeting, b"\x0a" + data),
        (messages.parse_handshake_response, capabilities + data),
        (messages.parse_error, b"\xff" + data),
        (messages.parse_auth_switch, b"\xfe" + data),
    ):
        try:
            parse(payload)
        except RemoteProtocolError:
            pass


def test_a_client_before_4_1_is_told_so() -> None:
    with pytest.raises(RemoteProtocolError) as failure:
        messages.parse_handshake_response(b"\x05\x24\0\0\0bob\0scramble")
    assert failure.value.errno == 1251


def test_names_that_are_no_utf_8_cannot_break_anything() -> None:
    response = HandshakeResponse(OLD, 0, 8, "b?b").payload().replace(b"b?b", b"b\xe9b")
    assert messages.parse_handshake_response(response).user == "b\ufffdb"
