"""LISTEN where one connection listens for all: what the server is sent, what the client reads, and when."""

import pytest

from dualpool.errors import RemoteProtocolError, ServerLost
from dualpool.postgres import messages, session_sql, sql, wire
from dualpool.postgres.backend import Listening
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.client_sending import DO_NOTHING
from dualpool.postgres.reading import read
from dualpool.postgres.server_relay import ServerRelay
from dualpool.protocol import LISTEN_ERROR, LISTEN_PIN, LISTENS, NEEDS_SERVER, RELEASE, SESSION, Notification, RelayLimits
from dualpool.sql_text import POSTGRES, lexis
from tests.helpers.frames import (
    BOUND,
    LEXICAL,
    NO_DATA,
    PARSED,
    READY,
    READY_E,
    READY_T,
    SYNC,
    bind,
    complete,
    describe,
    error,
    execute,
    parameters,
    parse,
    query,
    row,
    status,
)  # fmt: skip

CHANNELS = {
    b"listen a": "a",
    b"LISTEN  NewS;": "news",
    b'/* listen x */ listen "A ""b"""; -- y': 'A "b"',
    b"listen": None,
    b"listen a, b": None,
    b"listen a; select 1": None,
    b"listen 'a'": None,
    b'listen U&"a"': "a",
    b'listen ""': None,
    b"listen " + b"x" * 63: "x" * 63,
    b"listen " + b"x" * 64: None,
    b"listen \xc3\xa9": None,
    b'listen "\xc3\xa9"': "é",
    b'listen "' + b"\xc3\xa9" * 20 + b'"': None,
    b"unlisten a": None,
    b"": None,
}


@pytest.mark.parametrize("text", CHANNELS)
def test_channels(text: bytes) -> None:
    assert read(text, lexis(POSTGRES)).listens == CHANNELS[text]


def test_unlisten() -> None:
    assert sql.unlistened([b"UNLISTEN", b"*"]) == [(sql.UNLISTENED, None)]
    assert sql.unlistened([b"unlisten", b'"A"']) == [(sql.UNLISTENED, "A")]
    assert read(b"listen a", lexis(POSTGRES)).marks == sql.LISTENS
    assert read(b"unlisten a", lexis(POSTGRES)).marks == sql.TELLING


class Pair:
    """A client and its server connection; the shared connection says yes as soon as it is asked, or no."""

    def __init__(self, *, shared: bool = True, reported: dict[str, str] | None = None, **limits: int) -> None:
        self.limits = RelayLimits(**limits)
        self.client = ClientRelay(self.limits)
        self.server = ServerRelay(self.limits, LEXICAL | (reported or {}))
        self.shared = shared
        self.asked: list[str] = []

    def ask(self, data: bytes) -> bytes:
        """What the server is sent."""
        return self._obey(self.client.on_client_bytes(data))

    def _obey(self, verdict: int) -> bytes:
        if verdict & NEEDS_SERVER:
            verdict = self.client.attach(self.server)
        sent, self.client.to_server = self.client.to_server, b""
        if verdict & RELEASE:
            self.client.detach()
        if verdict & LISTENS:
            self.asked.append(self.client.wants_channel)
            if self.shared:
                assert self.client.subscriptions is not None
                self.client.subscriptions.ready.add(self.client.wants_channel)
            self.client.listen_answered(self.shared)
            sent += self._obey(self.client.on_client_bytes(b""))
        return sent

    def answer(self, data: bytes) -> bytes:
        """What the client reads."""
        verdict = self.server.on_server_bytes(data)
        read, self.server.to_client = self.server.to_client, b""
        if verdict & RELEASE:
            self.client.detach()
        return read

    def run(self, text: bytes, tag: bytes, ready: bytes = READY) -> bytes:
        """A statement by simple Query; what the client reads."""
        self.ask(query(text))
        return self.answer(complete(tag) + ready)

    def active(self) -> set[str]:
        """What the client listens to."""
        assert self.client.subscriptions is not None
        return self.client.subscriptions.active

    def notified(self, channel: str) -> bytes:
        """What the client reads at once."""
        self.client.notified(channel, note(channel))
        read, self.client.to_client = self.client.to_client, b""
        return read


def note(channel: str) -> bytes:
    return messages.notification(7, Notification(channel, b"x", 7))


def test_a_listen_waits_for_the_shared_connection_without_a_lease() -> None:
    pair = Pair()
    assert pair.client.on_client_bytes(query(b"listen A") + query(b"select 1")) == NEEDS_SERVER
    assert pair.client.attach(pair.server) == LISTENS | RELEASE
    pair.client.detach()
    assert pair.client.wants_channel == "a"
    assert pair.client.on_client_bytes(query(b"select 2")) == 0
    assert pair.client.subscriptions is not None
    pair.client.subscriptions.ready.add("a")
    pair.client.listen_answered(True)
    assert pair._obey(pair.client.on_client_bytes(b"")) == query(b"UNlisten A") + query(b"select 1") + query(b"select 2")
    assert pair.answer(complete(b"UNLISTEN") + READY) == complete(b"LISTEN") + READY
    assert pair.active() == {"a"}


def test_in_a_transaction_it_takes_effect_with_the_commit() -> None:
    for end, tag, active in ((b"commit", b"COMMIT", {"a"}), (b"rollback", b"ROLLBACK", set[str]())):
        pair = Pair()
        pair.run(b"begin", b"BEGIN", READY_T)
        pair.run(b"listen a", b"UNLISTEN", READY_T)
        assert pair.active() == set()
        assert pair.client.subscriptions is not None
        assert pair.client.subscriptions.hears("a")
        assert pair.notified("a") == b""
        told = pair.run(end, tag)
        assert told == complete(tag) + (note("a") if active else b"") + READY
        assert pair.active() == active
        assert pair.client.subscriptions.hears("a") == bool(active)


def test_savepoints() -> None:
    pair = Pair()
    for text, tag in ((b"begin", b"BEGIN"), (b"listen a", b"UNLISTEN"), (b"savepoint s", b"SAVEPOINT"), (b"listen b", b"UNLISTEN"),
                      (b"rollback to s", b"ROLLBACK")):  # fmt: skip
        pair.run(text, tag, READY_T)
    pair.run(b"commit", b"COMMIT")
    assert pair.active() == {"a"}


def test_an_error_in_the_same_query_undoes_it() -> None:
    pair = Pair()
    pair.ask(parse(b"", b"listen a") + bind(b"", b"") + execute() + parse(b"", b"select 1/0") + bind(b"", b"") + execute() + SYNC)
    pair.answer(PARSED + BOUND + complete(b"UNLISTEN") + PARSED + BOUND + error(b"22012", b"division by zero") + READY)
    assert pair.active() == set()
    assert pair.server.is_quiet()


@pytest.mark.parametrize("name", [b"", b"s"])
def test_extended_queries_are_held_at_the_bind(name: bytes) -> None:
    pair = Pair()
    text = parse(name, b"listen a")
    own = b"dualpool_2" if name else b"dualpool_1"
    sent = pair.ask(text + bind(b"", name) + execute() + SYNC)
    first = parse(b"dualpool_1", b"listen a") + describe(b"S", b"dualpool_1") if name else text
    assert sent == first + parse(own, DO_NOTHING) + bind(b"", own) + execute() + SYNC
    told = parameters(0) + NO_DATA if name else b""
    assert pair.answer(PARSED + told + PARSED + BOUND + complete(b"UNLISTEN") + READY) == PARSED + BOUND + complete(b"LISTEN") + READY
    assert pair.active() == {"a"}
    assert pair.asked == ["a"]


def test_without_a_shared_connection_the_client_listens_itself() -> None:
    pair = Pair(shared=False)
    assert pair.ask(query(b"listen a")) == query(b"listen a")
    assert pair.answer(complete(b"LISTEN") + READY) == complete(b"LISTEN") + READY
    assert pair.server.to_server == query(session_sql.probe(sql.LISTENING).encode())
    pair.server.to_server = b""
    channel = wire.message(wire.DATA_ROW, b"\0\2" + b"\xff" * 4 + wire.INT32.pack(1) + b"a")
    pair.answer(row(b"", b"n") + channel + complete(b"SELECT 2") + READY)
    assert pair.server.pins == sql.LISTENING
    assert pair.client.subscriptions is not None
    pair.client.subscriptions.active.add("a")
    assert not pair.client.subscriptions.hears("a")
    pair.shared = True
    assert pair.ask(query(b"listen b")) == query(b"UNlisten b")


def test_another_encoding_or_policy_or_mode_is_not_shared() -> None:
    for pair in (Pair(listen=LISTEN_PIN), Pair(mode=SESSION), Pair(reported={"client_encoding": "UTF8"})):
        if pair.server.reported:
            pair.ask(query(b"set client_encoding = latin1"))
            pair.server.on_server_bytes(status(b"client_encoding", b"LATIN1") + complete(b"SET") + READY_T)
        assert pair.ask(query(b"listen a")) == query(b"listen a")
        assert pair.asked == []


def test_refused() -> None:
    failed = error(b"26000", b'prepared statement "dualpool_none" does not exist')
    pair = Pair(listen=LISTEN_ERROR)
    assert pair.ask(query(b"listen a")) == query(b"EXECUTE dualpool_none")
    told = pair.answer(failed + READY)
    assert b"C0A000\0" in told
    assert b"LISTEN is not allowed" in told
    sent = pair.ask(parse(b"", b"listen a") + bind(b"", b"") + execute() + SYNC)
    assert parse(b"dualpool_1", b"EXECUTE dualpool_none") in sent
    assert b"LISTEN is not allowed" in pair.answer(PARSED + PARSED + BOUND + failed + READY)
    pair.ask(query(b"listen a"))
    aborted = error(b"25P02", b"current transaction is aborted")
    assert pair.answer(aborted + READY_E) == aborted + READY_E


def test_notifications_come_when_the_client_may_be_told() -> None:
    pair = Pair()
    pair.run(b"listen a", b"UNLISTEN")
    assert pair.notified("a") == note("a")
    assert pair.notified("b") == b""
    pair.ask(query(b"select 1"))
    assert pair.notified("a") == b""
    assert pair.answer(complete(b"SELECT 1")) == complete(b"SELECT 1")
    assert pair.answer(READY) == note("a") + READY
    pair.ask(parse(b"", b"select 1") + bind(b"", b"") + execute() + wire.FLUSH_MESSAGE)
    assert pair.notified("a") == b""
    pair.answer(PARSED + BOUND + complete(b"SELECT 1"))
    assert pair.notified("a") == b""
    pair.ask(SYNC)
    assert pair.answer(READY) == note("a") + note("a") + READY


def test_who_stops_listening_hears_no_more() -> None:
    for text, tag in ((b"unlisten a", b"UNLISTEN"), (b"unlisten *", b"UNLISTEN"), (b"discard all", b"DISCARD ALL")):
        pair = Pair()
        pair.run(b"listen a", b"UNLISTEN")
        pair.ask(query(text))
        assert pair.notified("a") == b""
        assert pair.answer(complete(tag) + READY) == complete(tag) + READY
        assert pair.active() == set()


def test_an_unlisten_among_others_counts() -> None:
    pair = Pair()
    pair.run(b"listen a", b"UNLISTEN")
    pair.ask(query(b"select 1; reset work_mem; unlisten *; reset all"))
    pair.answer(complete(b"SELECT 1") + complete(b"RESET") + complete(b"UNLISTEN") + complete(b"RESET") + READY)
    assert pair.active() == set()
    assert pair.server.changes == []


def test_the_words_of_the_shared_connection() -> None:
    words = Listening()
    assert words.listen('a "b"') == query(b'LISTEN "a ""b"""')
    assert words.unlisten("a") == query(b'UNLISTEN "a"')
    said = complete(b"SET") + READY + note("é") + error(b"25006", b"no") + READY
    for cut in range(len(said)):
        found = words.read(said[:cut]) + words.read(said[cut:])
        assert [(one.channel, one.payload, one.process_id) for one in found if isinstance(one, Notification)] == [("é", b"x", 7)]
        assert [one for one in found if not isinstance(one, Notification)] == [None, "no"]
    assert words.notification(Notification("c", b"p", 1), 2) == wire.message(wire.NOTIFICATION, b"\0\0\0\2c\0p\0")
    with pytest.raises(ServerLost, match="going down"):
        words.read(error(b"57P01", b"going down", b"FATAL"))
    with pytest.raises(RemoteProtocolError):
        words.read(wire.message(wire.NOTIFICATION, b"\0\0\0\1x"))
