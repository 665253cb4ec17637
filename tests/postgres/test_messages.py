"""Every message that is built here is what the documentation says, and is parsed back to what it was built from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.errors import CheckoutTimeout, LoginFailed, RemoteProtocolError
from dualpool.postgres import messages, wire

BUILT = [
    (messages.request(wire.SSL_REQUEST), b"\0\0\0\x08\x04\xd2\x16\x2f"),
    (messages.request(wire.GSSENC_REQUEST), b"\0\0\0\x08\x04\xd2\x16\x30"),
    (messages.cancel_request(1, b"abcd"), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd"),
    (messages.startup({"user": "u", "database": "d"}), b"\0\0\0\x1b\0\x03\0\0user\0u\0database\0d\0\0"),
    (messages.startup({"user": "u"}, wire.PROTOCOL_3_2), b"\0\0\0\x10\0\x03\0\x02user\0u\0\0"),
    (messages.negotiate_version(wire.PROTOCOL_3_2, ["_pq_.a"]), b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.a\0"),
    (messages.parameter_status("TimeZone", "UTC"), b"S\0\0\0\x11TimeZone\0UTC\0"),
    (messages.backend_key(1, b"abcd"), b"K\0\0\0\x0c\0\0\0\x01abcd"),
    (messages.authentication(messages.AUTH_OK), b"R\0\0\0\x08\0\0\0\0"),
    (messages.authentication(messages.AUTH_MD5, b"salt"), b"R\0\0\0\x0c\0\0\0\x05salt"),
    (messages.sasl(["A", "B"]), b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0"),
    (messages.password(b"pw"), b"p\0\0\0\x07pw\0"),
    (messages.sasl_initial("A", b"data"), b"p\0\0\0\x0eA\0\0\0\0\x04data"),
    (messages.sasl_response(b"data"), b"p\0\0\0\x08data"),
    (messages.notice_message("hi"), b"N\0\0\0\x20SNOTICE\0VNOTICE\0C00000\0Mhi\0\0"),
]


@pytest.mark.parametrize(("built", "expected"), BUILT)
def test_messages_are_built_as_documented(built: bytes, expected: bytes) -> None:
    assert built == expected


def test_an_error_has_severity_sqlstate_message_and_hint() -> None:
    error = CheckoutTimeout("no server connection within 2m", hint="Raise pool_size.")
    built = messages.error_message(error)
    assert built[:1] == b"E"
    assert wire.INT32.unpack_from(built, 1)[0] == len(built) - 1
    assert messages.parse_report(built[5:]) == {
        "S": "ERROR", "V": "ERROR", "C": "53300", "M": "no server connection within 2m", "H": "Raise pool_size.",
    }  # fmt: skip


def test_an_error_without_a_hint_has_no_hint_field() -> None:
    fields = messages.parse_report(messages.error_message(LoginFailed("no"))[5:])
    assert fields == {"S": "FATAL", "V": "FATAL", "C": "28P01", "M": "no"}


def test_a_null_byte_in_a_message_cannot_forge_a_field() -> None:
    fields = messages.parse_report(messages.error_message(LoginFailed("no\0CXXXXX"))[5:])
    assert fields["C"] == "28P01"
    assert fields["M"] == "no"


def test_bytes_that_are_not_utf8_survive() -> None:
    body = b"user\0m\xfcller\0\0"
    assert messages.startup(messages.parse_startup(body))[8:] == body


@pytest.mark.parametrize("parameters", [{}, {"user": "u"}, {"user": "u", "application_name": "", "b": "c"}])
def test_a_startup_packet_is_parsed_back(parameters: dict[str, str]) -> None:
    assert messages.parse_startup(messages.startup(parameters)[8:]) == parameters


@pytest.mark.parametrize(
    "body", [b"", b"\0\0", b"user", b"user\0u", b"user\0u\0", b"user\0\0", b"\0u\0\0", b"user\0u\0\0more", b"a\0b\0\0c\0\0"]
)
def test_a_malformed_startup_packet_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="startup packet"):
        messages.parse_startup(body)


@given(st.binary(max_size=60))
def test_garbage_in_parsers_is_a_protocol_error_at_most(data: bytes) -> None:
    messages.parse_report(data)
    messages.parse_sasl(data)
    for parse in (messages.parse_startup, messages.parse_sasl_initial, messages.parse_backend_key, messages.parse_parameter_status):
        try:
            parse(data)
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize(
    "payload",
    [
        b"SCRAM-SHA-256",  # no end of the name
        b"SCRAM-SHA-256\0\0\0",  # half a length
        b"SCRAM-SHA-256\0\xff\xff\xff\xffdata",  # -1: no data, but there is some
        b"SCRAM-SHA-256\0\xff\xff\xff\xff",  # -1: the server should speak first
        b"SCRAM-SHA-256\0\x7f\xff\xff\xffdata",  # more than there is
        b"SCRAM-SHA-256\0\0\0\0\x03data",  # less than there is
    ],
)
def test_a_sasl_length_that_does_not_fit_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="SASLInitialResponse"):
        messages.parse_sasl_initial(payload)


def test_a_sasl_initial_response_is_parsed_back() -> None:
    assert messages.parse_sasl_initial(messages.sasl_initial("SCRAM-SHA-256", b"n,,n=,r=x")[5:]) == ("SCRAM-SHA-256", b"n,,n=,r=x")


def test_a_backend_key_has_any_length_up_to_256() -> None:
    for size in (1, 4, 32, 256):
        assert messages.parse_backend_key(messages.backend_key(7, b"k" * size)[5:]) == (7, b"k" * size)
    for size in (0, 257):
        with pytest.raises(RemoteProtocolError):
            messages.parse_backend_key(messages.backend_key(7, b"k" * size)[5:])
