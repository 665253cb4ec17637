"""Building messages."""

from dualpool.postgres import wire


def test_messages() -> None:
    assert wire.query(b"a") == b"Q\0\0\0\6a\0"
    assert wire.message(wire.SYNC, b"") == wire.SYNC_MESSAGE
    assert wire.message(wire.FLUSH, b"") == wire.FLUSH_MESSAGE
    assert wire.message(wire.TERMINATE, b"") == wire.TERMINATE_MESSAGE
    assert wire.message(wire.PARSE_COMPLETE, b"") == wire.PARSE_COMPLETE_MESSAGE
    assert wire.ready(wire.IDLE) == b"Z\0\0\0\5I"


def test_a_null_byte_ends_a_string() -> None:
    assert wire.cstring(b"a\0b") == b"a\0"
