"""Settings that the server reports: whose they are. And those of a client's start-up: a RESET brings them back at once."""

import pytest

from dualpool.postgres import session_sql, sql
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.server_relay import ServerRelay
from dualpool.protocol import NEEDS_SERVER, RELEASE, SESSION, RelayLimits
from dualpool.state import DEFAULTS, Settings, settings
from tests.helpers.frames import (
    BOUND,
    LEXICAL,
    PARSED,
    READY,
    READY_E,
    READY_T,
    SYNC,
    bind,
    complete,
    error,
    execute,
    parse,
    query,
    row,
    status,
)

PROBE = query(session_sql.probe(sql.SETTINGS).encode())
REPORTED = {"TimeZone": "UTC", "application_name": "", **LEXICAL}
TOKYO = "Asia/Tokyo"
RESTORING = session_sql.set_all([("timezone", TOKYO)])[0].encode()
RESTORED = row(b"Asia/Tokyo") + complete(b"SELECT 1")


class Pair:
    """A client and its server connection."""

    def __init__(self, base: Settings = DEFAULTS, mode: int = 0) -> None:
        self.limits = RelayLimits(mode)
        self.client = ClientRelay(self.limits, base)
        self.server = ServerRelay(self.limits, dict(REPORTED))
        self.server.settings = base

    def ask(self, data: bytes) -> bytes:
        """What the server is sent."""
        if self.client.on_client_bytes(data) & NEEDS_SERVER:
            self.client.attach(self.server)
        sent, self.client.to_server = self.client.to_server, b""
        return sent

    def answer(self, data: bytes) -> tuple[bytes, bytes]:
        """What the client reads, and what the server is sent."""
        verdict = self.server.on_server_bytes(data)
        out = self.server.to_client, self.server.to_server
        self.server.to_client = self.server.to_server = b""
        if verdict & RELEASE:
            self.client.detach()
        return out


def settings_row(*found: tuple[bytes, bytes]) -> bytes:
    """The answer to the probe."""
    return (
        row(b"", b"")
        + b"".join(row(name, value.hex().encode()) for name, value in (*found, (b"role", b"none")))
        + complete(b"SELECT 2")
        + READY
    )


def test_what_the_server_reports_by_itself_is_its_own_default() -> None:
    pair = Pair()
    pair.ask(query(b"select 1"))
    told = complete(b"SELECT 1") + status(b"TimeZone", b"Asia/Tokyo") + READY
    assert pair.answer(told) == (told, PROBE)
    pair.answer(settings_row())
    assert pair.client.server is None
    assert pair.client.settings is DEFAULTS
    assert pair.server.settings is DEFAULTS
    assert pair.server.baseline["TimeZone"] == "Asia/Tokyo"


def test_what_a_function_has_set_is_the_clients() -> None:
    pair = Pair()
    pair.ask(query(b"select set_timezone('a')"))
    assert pair.answer(complete(b"SELECT 1") + status(b"TimeZone", b"Asia/Tokyo") + READY)[1] == PROBE
    pair.answer(settings_row((b"TimeZone", b"Asia/Tokyo")))
    assert pair.client.settings.values == {"timezone": TOKYO}
    assert pair.server.baseline["TimeZone"] == "UTC"


def test_what_ends_with_its_transaction_is_nobodys() -> None:
    pair = Pair()
    pair.ask(query(b"begin"))
    pair.answer(complete(b"BEGIN") + READY_T)
    pair.ask(query(b"set local timezone = a"))
    pair.answer(complete(b"SET") + status(b"TimeZone", b"Asia/Tokyo") + READY_T)
    pair.ask(query(b"commit"))
    assert pair.answer(complete(b"COMMIT") + status(b"TimeZone", b"UTC") + READY)[1] == b""
    assert pair.client.settings is DEFAULTS
    assert pair.client.server is None


def test_a_report_with_an_answer_of_ours() -> None:
    pair = Pair(settings({"timezone": TOKYO}))
    pair.server.settings = DEFAULTS
    pair.client.on_client_bytes(query(b"select 1"))
    pair.client.attach(pair.server)
    reports = status(b"TimeZone", b"Asia/Tokyo") + status(b"application_name", b"new default")
    pair.answer(complete(b"BEGIN") + reports + READY + complete(b"SELECT 1") + READY)
    assert pair.server.baseline == REPORTED | {"application_name": "new default"}
    assert pair.client.server is None


@pytest.mark.parametrize("mode", [0, SESSION])
@pytest.mark.parametrize("text", [b"reset all", b"reset timezone", b"discard all", b"set timezone to default", b"select 1; reset all"])
def test_a_reset_brings_back_the_start_up(text: bytes, mode: int) -> None:
    pair = Pair(settings({"timezone": TOKYO}), mode)
    pair.server.reported["TimeZone"] = "Asia/Tokyo"
    pair.ask(query(text))
    tags = b"".join(complete(tag) for tag in ((b"SELECT 1", b"RESET") if b";" in text else (text.upper().partition(b" ")[0],)))
    if text == b"discard all":
        tags = complete(b"DISCARD ALL")
    read, sent = pair.answer(tags + status(b"TimeZone", b"UTC") + READY)
    assert read == tags + READY
    assert sent == query(RESTORING)
    assert pair.ask(query(b"select 2")) == query(b"select 2")
    read, sent = pair.answer(RESTORED + status(b"TimeZone", b"Asia/Tokyo") + READY)
    assert (read, sent) == (status(b"TimeZone", b"Asia/Tokyo"), b"")
    pair.answer(complete(b"SELECT 1") + READY)
    if mode != SESSION:
        assert pair.client.settings is pair.client.base
        assert pair.server.settings is pair.client.base


def test_a_reset_by_extended_query() -> None:
    pair = Pair(settings({"timezone": TOKYO}))
    pair.ask(parse(b"", b"reset timezone") + bind(b"", b"") + execute() + SYNC)
    assert pair.answer(PARSED + BOUND + complete(b"RESET") + READY)[1] == query(RESTORING)
    pair.answer(RESTORED + READY)
    assert pair.client.settings is pair.client.base


def test_a_reset_that_is_rolled_back() -> None:
    pair = Pair(settings({"timezone": TOKYO}))
    pair.ask(query(b"begin"))
    pair.answer(complete(b"BEGIN") + READY_T)
    pair.ask(query(b"reset timezone"))
    assert pair.answer(complete(b"RESET") + READY_T)[1] == query(RESTORING)
    pair.answer(RESTORED + READY_T)
    pair.ask(query(b"rollback"))
    assert pair.answer(complete(b"ROLLBACK") + READY) == (complete(b"ROLLBACK") + READY, b"")
    pair.ask(query(b"begin; reset all; select 1/0"))
    failed = complete(b"BEGIN") + complete(b"RESET") + error(b"22012", b"no") + READY_E
    assert pair.answer(failed) == (failed, b"")
    pair.ask(query(b"rollback"))
    assert pair.answer(complete(b"ROLLBACK") + READY)[1] == b""
    assert pair.client.settings is pair.client.base


def test_session_mode_remembers_no_settings() -> None:
    pair = Pair(mode=SESSION)
    for _ in range(3):
        pair.ask(query(b"set application_name = x"))
        pair.answer(complete(b"SET") + status(b"application_name", b"x") + READY)
    assert (pair.server.changes, pair.server.changes_in_transaction, pair.server.moved) == ([], [], {})


def test_after_a_reset_what_the_server_reports_is_its_default() -> None:
    pair = Pair()
    pair.server.expect_hidden_ready()
    pair.server.on_server_bytes(complete(b"DISCARD ALL") + status(b"TimeZone", b"Europe/Paris") + READY)
    pair.server.was_reset()
    assert pair.server.baseline["TimeZone"] == "Europe/Paris"
