"""What goes wrong between a client and its server: refusals, caps, malformed messages, garbage, and the error that is healed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpool.buffer import RECEIVE_BYTES
from dualpool.errors import AdminShutdown, CheckoutTimeout, DualpoolError, FeatureRefused, QueryCanceled, RemoteProtocolError, ServerLost
from dualpool.postgres import wire
from dualpool.postgres.client_relay import ClientRelay
from dualpool.postgres.client_sending import SMALL_MESSAGE
from dualpool.postgres.server_relay import MAX_ANSWER, ServerRelay
from dualpool.protocol import BROKEN, CLOSE, FORWARD, NEEDS_SERVER, RELEASE, STATEMENT, RelayLimits
from dualpool.state import settings as settings_of
from tests.helpers.frames import (
    BOUND,
    CLOSED,
    COPY_IN,
    LEXICAL,
    PARSED,
    READY,
    READY_T,
    SYNC,
    bind,
    complete,
    copy_data,
    describe,
    description,
    error,
    execute,
    parameters,
    parse,
    query,
    row,
    show,
    status,
)  # fmt: skip
from tests.helpers.relay_script import OtherServer, Play, Refused, Row, client, error_message, released, server, whole

TIMEOUT = CheckoutTimeout("no server connection within 2 s")
CANCELED = QueryCanceled("canceling statement due to user request")
SHUTDOWN = AdminShutdown("dualpool is shutting down")
SMALL = RelayLimits(frame_bytes=1000, statement_bytes=2000, statements_per_client=3)


class Pair:
    """A client's relay, waiting for a server or attached to one."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.limits = limits or RelayLimits()
        self.client = ClientRelay(self.limits)
        self.server = ServerRelay(self.limits, dict(LEXICAL))

    def ask(self, data: bytes) -> bytes:
        """The client asks, and has a server at once. Returns what that is sent."""
        verdict = self.client.on_client_bytes(data)
        if verdict & NEEDS_SERVER:
            verdict = self.client.attach(self.server)
        assert verdict == FORWARD
        sent, self.client.to_server = self.client.to_server, b""
        return sent

    def answer(self, data: bytes) -> tuple[bytes, int]:
        """The server answers. Returns what the client reads, and the verdict."""
        verdict = self.server.on_server_bytes(data)
        read, self.server.to_client = self.server.to_client, b""
        if verdict & RELEASE:
            self.client.detach()
        return read, verdict


# ---------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("refusal", [TIMEOUT, CANCELED], ids=["timeout", "cancel"])
@pytest.mark.parametrize(
    "waiting",
    [
        query(b"select 1"),
        parse(b"", b"select 1") + bind(b"", b"") + execute() + SYNC,
        parse(b"a", b"select 1") + SYNC,
        wire.message(wire.FUNCTION_CALL, b"\0\0\0\1\0\0\0\0\0\0"),
    ],
    ids=["query", "extended", "parse", "call"],
)
def test_a_refused_request_is_answered_and_the_client_goes_on(waiting: bytes, refusal: DualpoolError) -> None:
    relay = ClientRelay(RelayLimits())
    assert relay.on_client_bytes(waiting) == NEEDS_SERVER
    assert relay.refuse(refusal) == FORWARD
    assert relay.to_client == error_message(refusal) + READY
    assert relay.held_bytes() == 0
    relay.to_client = b""
    assert relay.on_client_bytes(query(b"select 2")) == NEEDS_SERVER
    assert relay.attach(ServerRelay(RelayLimits(), dict(LEXICAL))) == FORWARD
    assert relay.to_server == query(b"select 2")


def test_a_refused_segment_ends_at_its_sync_whenever_that_comes() -> None:
    relay = ClientRelay(RelayLimits())
    rest = bind(b"", b"") + execute() + query(b"swallowed, as a server would") + SYNC
    assert relay.on_client_bytes(parse(b"", b"select 1")) == NEEDS_SERVER
    assert relay.refuse(TIMEOUT) == FORWARD
    assert relay.to_client == error_message(TIMEOUT)
    relay.to_client = b""
    for at in range(len(rest)):
        assert relay.on_client_bytes(rest[at : at + 1]) == FORWARD
    assert relay.to_client == READY
    assert relay.on_client_bytes(query(b"x")) == NEEDS_SERVER


def test_what_follows_a_refused_request_still_waits() -> None:
    relay = ClientRelay(RelayLimits())
    relay.on_client_bytes(query(b"one") + query(b"two") + SYNC)
    assert relay.refuse(TIMEOUT) == FORWARD
    assert relay.to_client == error_message(TIMEOUT) + READY
    assert relay.on_client_bytes(b"") == NEEDS_SERVER
    relay.attach(ServerRelay(RelayLimits(), dict(LEXICAL)))
    assert relay.to_server == query(b"two") + SYNC


def test_the_rest_of_a_refused_big_query_is_dropped() -> None:
    relay = ClientRelay(SMALL)
    big = query(b"x" * 100_000)
    assert relay.on_client_bytes(big[:70_000]) == NEEDS_SERVER
    assert relay.refuse(TIMEOUT) == FORWARD
    assert relay.to_client == error_message(TIMEOUT) + READY
    assert relay.on_client_bytes(big[70_000:] + query(b"next")) == NEEDS_SERVER
    relay.attach(ServerRelay(SMALL, dict(LEXICAL)))
    assert relay.to_server == query(b"next")


def test_late_copy_data_behind_a_refused_copy_is_dropped() -> None:
    relay = ClientRelay(RelayLimits())
    relay.on_client_bytes(query(b"copy t from stdin") + copy_data(b"1"))
    relay.refuse(TIMEOUT)
    assert relay.on_client_bytes(b"") == FORWARD
    assert relay.on_client_bytes(copy_data(b"2") + query(b"x")) == NEEDS_SERVER


def test_a_fatal_refusal_ends_the_client() -> None:
    relay = ClientRelay(RelayLimits())
    relay.on_client_bytes(query(b"x"))
    assert relay.refuse(SHUTDOWN) == CLOSE
    assert relay.to_client == error_message(SHUTDOWN)


def test_refused_statements_do_not_exist() -> None:
    relay = ClientRelay(RelayLimits())
    relay.on_client_bytes(parse(b"a", b"select 1") + SYNC)
    relay.refuse(TIMEOUT)
    assert relay.statements.names == {}


# ---------------------------------------------------------------------------------------------------------------- settings


def test_a_server_that_refuses_the_clients_settings_is_not_used_for_it() -> None:
    relay = ClientRelay(RelayLimits(), settings_of({"role": "SET role = x"}))
    server_relay = ServerRelay(RelayLimits(), dict(LEXICAL))
    relay.on_client_bytes(query(b"drop table t"))
    relay.attach(server_relay)
    with pytest.raises(ServerLost, match="role"):
        server_relay.on_server_bytes(error(b"22023", b'role "x" does not exist') + READY)
    assert server_relay.to_client == b""


def test_the_answer_to_our_settings_is_hidden() -> None:
    relay = ClientRelay(RelayLimits(), settings_of({"timezone": "A"}))
    server_relay = ServerRelay(RelayLimits(), {"TimeZone": "UTC", **LEXICAL})
    relay.on_client_bytes(query(b"x"))
    relay.attach(server_relay)
    notice = wire.message(wire.NOTICE, b"SWARNING\0\0")
    hidden = description(1) + row(b"A" * 500) + complete(b"SELECT 1") + status(b"TimeZone", b"A")
    wire_bytes = hidden + notice + READY + complete(b"X") + notice + READY
    seen = b""
    for at in range(0, len(wire_bytes), 3):
        assert server_relay.on_server_bytes(wire_bytes[at : at + 3]) in {FORWARD, RELEASE}
        seen += server_relay.to_client
        server_relay.to_client = b""
    assert show(seen) == show(complete(b"X") + notice + READY)
    assert server_relay.reported["TimeZone"] == "A"


# ---------------------------------------------------------------------------------------------------------------- healing

STALE_FIELDS = b"SFEHLER\0VERROR\0C0A000\0Mgespeicherter Plan passt nicht mehr\0Fplancache.c\0L724\0RRevalidateCachedQuery\0\0"
STALE = wire.message(wire.ERROR_RESPONSE, STALE_FIELDS)
RUN = bind(b"", b"a") + execute() + SYNC
RUN_ONE = bind(b"", b"dualpool_1") + execute() + SYNC
ASKED = bind(b"", b"a") + describe(b"P") + execute() + SYNC
TOLD = parameters(0) + description(1)
AGAIN = parse(b"dualpool_2", b"select 1") + describe(b"S", b"dualpool_2")
HEALING = AGAIN + bind(b"", b"dualpool_2") + describe(b"P") + execute() + SYNC


def prepared() -> Pair:
    pair = Pair()
    pair.ask(parse(b"a", b"select 1") + SYNC)
    assert pair.answer(PARSED + TOLD + READY) == (PARSED + READY, RELEASE)
    return pair


def test_a_client_that_asks_for_its_columns_is_told_the_new_ones() -> None:
    pair = prepared()
    pair.ask(ASKED)
    assert pair.answer(STALE + READY) == (b"", FORWARD)
    assert pair.server.to_server == HEALING
    answer = BOUND + description(2) + row(b"1", b"2") + complete(b"SELECT 1") + READY
    assert pair.answer(PARSED + parameters(0) + description(2) + answer) == (answer, RELEASE)
    assert pair.ask(RUN) == bind(b"", b"dualpool_2") + execute() + SYNC


def test_a_client_that_does_not_is_refused() -> None:
    pair = prepared()
    assert pair.ask(RUN) == RUN_ONE
    assert pair.answer(STALE + READY) == (STALE + READY, RELEASE)
    assert pair.ask(RUN) == RUN_ONE


def test_the_second_time_it_is_told() -> None:
    pair = prepared()
    pair.ask(ASKED)
    pair.answer(STALE + READY)
    assert pair.answer(PARSED + TOLD + STALE + READY) == (STALE + READY, RELEASE)


@pytest.mark.parametrize("other", [b"\0RExecInitNode\0", b"\0C0A001\0"])
def test_only_this_error_of_this_function(other: bytes) -> None:
    pair = prepared()
    pair.ask(ASKED)
    field = b"\0" + other[1:2]
    begin = STALE_FIELDS.index(field)
    wrong = wire.message(wire.ERROR_RESPONSE, STALE_FIELDS[:begin] + other + STALE_FIELDS[STALE_FIELDS.index(b"\0", begin + 1) + 1 :])
    assert pair.answer(wrong + READY) == (wrong + READY, RELEASE)


@pytest.mark.parametrize("cut", range(1, len(STALE)))
def test_healing_does_not_depend_on_how_the_error_arrives(cut: int) -> None:
    pair = prepared()
    pair.ask(ASKED)
    assert pair.answer(STALE[:cut]) == (b"", FORWARD)
    assert pair.answer(STALE[cut:] + READY) == (b"", FORWARD)
    assert pair.server.to_server == HEALING


def test_not_healed_in_a_transaction() -> None:
    pair = prepared()
    pair.ask(query(b"begin"))
    pair.answer(complete(b"BEGIN") + READY_T)
    pair.ask(ASKED)
    assert pair.answer(STALE)[0] == STALE
    assert pair.server.to_server == b""


def test_not_healed_when_part_of_the_segment_came_before() -> None:
    pair = prepared()
    pair.ask(bind(b"", b"a") + execute() + wire.FLUSH_MESSAGE)
    pair.answer(BOUND + complete(b"INSERT 0 1"))
    pair.ask(ASKED)
    assert pair.answer(STALE + READY) == (STALE + READY, RELEASE)  # to send only the second part again would lose the first
    assert pair.server.to_server == b""


def test_not_healed_when_something_else_is_under_way() -> None:
    pair = prepared()
    pair.ask(ASKED + ASKED)
    assert pair.answer(STALE + READY) == (STALE + READY, FORWARD)


# ---------------------------------------------------------------------------------------------------------------- statement mode


def test_statement_mode_refuses_transactions() -> None:
    pair = Pair(RelayLimits(mode=STATEMENT))
    pair.ask(query(b"begin"))
    with pytest.raises(FeatureRefused):
        pair.server.on_server_bytes(complete(b"BEGIN") + READY_T)
    assert not pair.server.is_quiet()
    assert not pair.server.is_lost()


def test_statement_mode_releases_after_each() -> None:
    pair = Pair(RelayLimits(mode=STATEMENT))
    pair.ask(query(b"show x"))
    assert pair.answer(complete(b"SHOW") + READY)[1] == RELEASE


# ---------------------------------------------------------------------------------------------------------------- caps


def test_too_many_statements() -> None:
    pair = Pair(SMALL)
    for name in (b"a", b"b", b"c"):
        pair.ask(parse(name, b"select " + name))
    with pytest.raises(RemoteProtocolError) as caught:
        pair.client.on_client_bytes(parse(b"d", b"select 4"))
    assert caught.value.sqlstate == "54000"


def test_too_much_text() -> None:
    pair = Pair(SMALL)
    pair.ask(parse(b"a", b"x" * 1500))
    with pytest.raises(RemoteProtocolError) as caught:
        pair.client.on_client_bytes(parse(b"b", b"x" * 1500))
    assert caught.value.sqlstate == "54000"


def test_closing_makes_room() -> None:
    pair = Pair(SMALL)
    for turn in range(10):
        pair.ask(parse(b"a", b"x" * 1500) + wire.message(wire.CLOSE, b"Sa\0") + SYNC)
        pair.answer((CLOSED if turn > 1 else b"") + PARSED + TOLD + CLOSED + READY)
    assert pair.client.statements.bytes == 0


def test_a_named_statement_that_is_too_long_to_keep() -> None:
    relay = ClientRelay(SMALL)
    big = parse(b"a", b"x" * 100_000)
    assert relay.on_client_bytes(big[: SMALL_MESSAGE + 10]) == NEEDS_SERVER
    with pytest.raises(RemoteProtocolError) as caught:
        relay.attach(ServerRelay(SMALL, dict(LEXICAL)))
    assert caught.value.sqlstate == "54000"


def test_an_unnamed_statement_that_was_too_long_to_keep_is_missed_on_another_server() -> None:
    pair = Pair(SMALL)
    run = bind(b"", b"") + execute() + SYNC
    big = parse(b"", b"x" * 100_000)
    holds_nothing = row(b"", b"") + complete(b"SELECT 1") + READY
    assert pair.ask(big[:90_000]) + pair.ask(big[90_000:] + SYNC) == big + SYNC
    pair.answer(PARSED + READY)
    assert pair.ask(run) == run
    pair.answer(BOUND + complete(b"X") + READY)
    assert pair.answer(holds_nothing) == (b"", RELEASE)  # a text that nobody has read may have done anything
    pair.server = ServerRelay(SMALL, dict(LEXICAL))
    assert b"too long" in pair.ask(run)  # the server will say so, as a syntax error


@pytest.mark.parametrize("message", [query(b"x" * 1_000_000), bind(b"", b"", b"x" * 1_000_000), parse(b"", b"x" * 1_000_000)], ids="QBP")
@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("size", [1000, 5000, 70_000])
def test_of_a_long_message_only_the_head_is_held(message: bytes, attached: bool, size: int) -> None:
    pair = Pair(SMALL)
    sent = b""
    if attached:
        sent = pair.ask(query(b"begin"))
        pair.answer(complete(b"BEGIN") + READY_T)
        assert sent
        sent = b""
    for at in range(0, len(message), size):
        sent += pair.ask(message[at : at + size])
        assert pair.client.held_bytes() <= SMALL_MESSAGE + size
    assert sent == message


@pytest.mark.parametrize("kind", b"EDCSH")
def test_messages_that_are_never_long(kind: int) -> None:
    relay = ClientRelay(RelayLimits())
    with pytest.raises(RemoteProtocolError):
        relay.on_client_bytes(wire.HEADER.pack(kind, SMALL_MESSAGE + 1) + b"x")
    assert relay.held_bytes() == 0


def test_an_answer_that_is_too_long() -> None:
    pair = Pair()
    pair.ask(query(b"x"))
    with pytest.raises(RemoteProtocolError):
        pair.server.on_server_bytes(wire.HEADER.pack(wire.ERROR_RESPONSE, MAX_ANSWER + 1) + b"x")


# ---------------------------------------------------------------------------------------------------------------- malformed

MALFORMED = {
    "Query without a text": wire.message(wire.QUERY, b""),
    "Parse without a name": wire.message(wire.PARSE, b"abc"),
    "Parse without a text": wire.message(wire.PARSE, b"a\0select 1"),
    "Parse of nothing": wire.message(wire.PARSE, b""),
    "Bind of nothing": wire.message(wire.BIND, b""),
    "Bind with one name": wire.message(wire.BIND, b"a\0"),
    "Describe of nothing": wire.message(wire.DESCRIBE, b""),
    "length 3": b"Q\0\0\0\3",
    "length 2 GB": b"Q\x80\0\0\0",
    "a password": wire.message(wire.PASSWORD, b"secret\0"),
    "an unknown kind": wire.message(ord("z"), b""),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("before", [b"", query(b"select 1"), parse(b"", b"x")], ids=["first", "behind a query", "behind a parse"])
def test_malformed_messages_are_a_protocol_error(name: str, before: bytes) -> None:
    pair = Pair()
    with pytest.raises(RemoteProtocolError) as caught:
        pair.ask(before + MALFORMED[name])
    assert caught.value.sqlstate == "08P01"
    if pair.server.pending:
        assert pair.server.is_lost(), "answers are expected to what was not sent: the server connection would wait for ever"


NONSENSE = [
    wire.message(wire.READY, b""),
    wire.message(wire.READY, b"II"),
    READY + READY,
    PARSED + READY,
    CLOSED,
    b"R\0\0\0\x08\0\0\0\0",
    b"D\0\0\0\1",
]


@pytest.mark.parametrize("data", NONSENSE)
def test_answers_that_make_no_sense(data: bytes) -> None:
    pair = Pair()
    pair.ask(query(b"x"))
    with pytest.raises(RemoteProtocolError):
        pair.server.on_server_bytes(data)


# ---------------------------------------------------------------------------------------------------------------- garbage

CHUNKS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(wire.message, st.sampled_from(b"QPBDECSHFXdcfpz"), st.binary(max_size=30)),
        st.sampled_from([query(b"set x = 1"), SYNC, parse(b"", b"deallocate a"), bind(b"", b""), execute(), describe(b"S")]),
        st.builds(lambda kind, size: wire.HEADER.pack(kind, size), st.sampled_from(b"QPBdF"), st.integers(0, 1 << 31)),
    ),
    max_size=12,
)
ANSWERS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(wire.message, st.sampled_from(b"123ACDEGHINRSTVWZnst"), st.binary(max_size=30)),
        st.sampled_from([READY, READY_T, complete(b"SET"), complete(b"ROLLBACK"), COPY_IN, PARSED, CLOSED, BOUND, error(b"X", b"y")]),
    ),
    max_size=12,
)


@settings(max_examples=250, deadline=None)
@given(CHUNKS, ANSWERS, st.sampled_from([0, 1, 2]), st.booleans())
def test_garbage_raises_nothing_but_protocol_errors(asked: list[bytes], answers: list[bytes], mode: int, alternate: bool) -> None:
    limits = RelayLimits(mode=mode, frame_bytes=1000, statement_bytes=2000)
    client_relay, server_relay = ClientRelay(limits), ServerRelay(limits, dict(LEXICAL))
    attached = False
    turns = [(True, chunk) for chunk in asked] + [(False, chunk) for chunk in answers]
    if alternate:
        turns.sort(key=lambda turn: len(turn[1]))
    try:
        for from_client, chunk in turns:
            if from_client:
                verdict = client_relay.on_client_bytes(chunk)
            elif attached:
                verdict = server_relay.on_server_bytes(chunk)
            else:
                continue
            while verdict & (NEEDS_SERVER | RELEASE):
                if verdict & NEEDS_SERVER:
                    assert not attached
                    attached, verdict = True, client_relay.attach(server_relay)
                else:
                    client_relay.detach()
                    attached, verdict = False, client_relay.on_client_bytes(b"")
            assert client_relay.held_bytes() <= SMALL_MESSAGE + RECEIVE_BYTES
            client_relay.to_server = client_relay.to_client = b""
            server_relay.to_server = server_relay.to_client = b""
            if verdict & (CLOSE | BROKEN):
                return
    except (RemoteProtocolError, FeatureRefused, ServerLost):
        pass
    assert len(server_relay.pending) <= 2 * len(asked) + 24


def test_scripts_notice_what_is_wrong() -> None:
    wrong = Row("wrong", (client(query(b"x"), query(b"y"), verdict=NEEDS_SERVER),))
    with pytest.raises(AssertionError, match="line 0, client: to the server"):
        Play(wrong).run(whole)
    hasty = Row(
        "hasty", (client(query(b"show x"), verdict=NEEDS_SERVER), server(READY), OtherServer(), Refused(TIMEOUT, b""), released(b""))
    )
    with pytest.raises(AssertionError, match="line 1, server: verdict"):
        Play(hasty).run(whole)
