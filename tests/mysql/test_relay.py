"""The relays without any socket: every command with its answer, in both dialects, cut at every byte, and with junk behind."""

import itertools
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.errors import CheckoutTimeout, RemoteProtocolError
from dualpool.mysql import codec, knowledge, server_relay, session_sql, shapes, sql, states, wire
from dualpool.mysql.client_relay import ClientRelay, warning_columns
from dualpool.mysql.codec import Ok, build_ok
from dualpool.mysql.messages import error_payload
from dualpool.mysql.server_relay import ServerRelay
from dualpool.protocol import (
    BROKEN,
    CANCEL,
    CLOSE,
    FORWARD,
    NEEDS_SERVER,
    PIN_ERROR,
    PIN_WARN,
    PINNED,
    REACCEPT,
    RELEASE,
    SESSION,
    STATEMENT,
    TRANSACTION,
    RelayLimits,
)

PLAIN = wire.CLIENT_PROTOCOL_41 | wire.CLIENT_LOCAL_FILES | wire.CLIENT_MULTI_STATEMENTS
MODERN = PLAIN | wire.CLIENT_DEPRECATE_EOF | wire.CLIENT_SESSION_TRACK
DIALECTS = [(client, server) for client in (PLAIN, MODERN) for server in (PLAIN, MODERN)]
AUTOCOMMIT = wire.STATUS_AUTOCOMMIT
IN_TRANS = AUTOCOMMIT | wire.STATUS_IN_TRANS
COLUMN = codec.column(b"c", 253, 45, 10, 0)
ERR = error_payload(1064, "42000", "no")
FULL = b"\xfe"  # stands for an end of a result in `dialect()`


class Part:
    """A packet of an answer that looks different in the two dialects: `kind` is "ok", "end", or "middle" (which one dialect lacks)."""

    def __init__(self, kind: str, ok: Ok) -> None:
        self.kind = kind
        self.ok = ok


def ok(affected: int = 0, insert_id: int = 0, status: int = AUTOCOMMIT, warnings: int = 0, info: bytes = b"") -> Part:
    return Part("ok", Ok(affected, insert_id, status, warnings, info))


def end(status: int = AUTOCOMMIT, warnings: int = 0) -> Part:
    return Part("end", Ok(0, 0, status, warnings))


def middle(status: int = AUTOCOMMIT) -> Part:
    return Part("middle", Ok(0, 0, status, 0))


def answer(parts: list[bytes | Part], capabilities: int) -> bytes:
    """An answer to a command, as a server sends it with these capabilities (and as a client with them expects it)."""
    found: list[bytes] = []
    for part in parts:
        if isinstance(part, bytes):
            found.append(part)
        elif part.kind == "ok":
            found.append(build_ok(part.ok, capabilities, wire.OK))
        elif part.kind == "end" or not capabilities & wire.CLIENT_DEPRECATE_EOF:
            found.append(build_ok(part.ok, capabilities, wire.EOF))
    return b"".join(wire.packet(number, payload) for number, payload in enumerate(found, 1))


def result(rows: list[bytes], status: int = AUTOCOMMIT) -> list[bytes | Part]:
    return [b"\x02", COLUMN, COLUMN, middle(status), *rows, end(status)]


ROWS = [b"\x01a\x01b", b"\xfb\xfb", b"\x00\x03xyz"] + [b"\x03abc\x03def"] * 40
PREPARED = b"\0" + struct.pack("<IHHBH", 77, 2, 2, 0, 0)
GIVEN = b"\0" + struct.pack("<IHHBH", 1, 2, 2, 0, 0)
MORE = AUTOCOMMIT | wire.STATUS_MORE_RESULTS

QUERY = b"\x03SELECT 1"
SEVERAL = b"\x03SELECT 1; UPDATE t SET a = 1; SELECT 2; SELECT 3"
ANSWERS: dict[str, tuple[bytes, list[bytes | Part]]] = {
    "ok": (QUERY, [ok(1)]),
    "ok with info": (QUERY, [ok(3, 0, info=b"Records: 3")]),
    "result": (QUERY, result(ROWS)),
    "empty result": (QUERY, result([])),
    "several results": (SEVERAL, [*result(ROWS[:2], MORE), ok(1, status=MORE), *result([], MORE), *result(ROWS)]),
    "init db": (b"\x02app", [ok()]),
    "statistics": (b"\x09", [b"Uptime: 1"]),
    "field list": (b"\x04t\0", [COLUMN, COLUMN, end()]),
    "no fields": (b"\x04t\0", [end()]),
}


def pair(client: int = PLAIN, server: int = MODERN, mode: int = TRANSACTION, policy: int = PIN_WARN) -> tuple[ClientRelay, ServerRelay]:
    """A client and a server connection whose session is as the client wants it."""
    limits = RelayLimits(mode=mode, pin_policy=policy)
    clients = ClientRelay(limits, client, session_sql.login_settings("utf8mb4", "utf8mb4_general_ci"), 5)
    servers = ServerRelay(limits, server, "8.4.0", "app")
    servers.settings, servers.tracks, servers.multi = clients.settings, True, clients.multi
    return clients, servers


def sent(command: bytes) -> bytes:
    return wire.packet(0, command)


def attached(client: ClientRelay, server: ServerRelay, command: bytes) -> bytes:
    """Give `command` to the client's relay, and it a server connection; what goes to the server."""
    verdict = client.on_client_bytes(sent(command))
    if verdict == NEEDS_SERVER:
        assert client.attach(server) == FORWARD
    return take_server(client)


def take_server(one: ClientRelay | ServerRelay) -> bytes:
    data, one.to_server = one.to_server, b""
    return data


def take_client(one: ClientRelay | ServerRelay) -> bytes:
    data, one.to_client = one.to_client, b""
    return data


def cuts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for cut in range(len(data) + 1):
        yield data[:cut], data[cut:]


@pytest.fixture
def known_shape() -> None:
    """`SELECT 1` has been seen, so whatever differs from it in digits alone is passed on unread."""
    client, _ = pair()
    client.on_client_bytes(sent(b"\x03SELECT 1"))


@pytest.mark.usefixtures("known_shape")
@pytest.mark.parametrize("text", [b"SELECT 2", b"SELECT 123456", b"SELECT "])
def test_a_query_that_differs_in_numbers_goes_on_as_it_is(text: bytes) -> None:
    client, server = pair()
    assert attached(client, server, b"\x03" + text) == sent(b"\x03" + text)


@pytest.mark.usefixtures("known_shape")
@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\0\0" + b"0\0\x03SELECT 1",  # the sequence number is a digit
        b"\x0a\0\0\0" + b"0\x03SELECT 1",  # the command is
    ],
)
def test_digits_outside_of_the_text_are_no_numbers(data: bytes) -> None:
    client, _ = pair()
    assert client.on_client_bytes(data) != NEEDS_SERVER
    assert b"\xff" in client.to_client


@pytest.mark.usefixtures("known_shape")
def test_a_query_of_a_known_shape_that_is_cut_waits_for_its_rest() -> None:
    client, server = pair()
    whole = sent(b"\x03SELECT 12")
    assert client.on_client_bytes(whole[:-1]) == FORWARD
    assert client.on_client_bytes(whole[-1:]) == NEEDS_SERVER
    client.attach(server)
    assert take_server(client) == whole


CERTAIN = [
    b"SELECT 'a'",
    b"SELECT a FROM t WHERE b='x' AND c IN ('y','z')",
    b"INSERT INTO `t` (`a`, b) VALUES ('it''s', N'x', x'41', '')",
    b"SELECT 'a' 'b', ''''",
]
NOT_CERTAIN = [
    b"SELECT 'a', \"it's\", 'b'",
    b"SELECT 'a' -- it's\n, 'b', 'c'",
    b"SELECT 'a' # it's\n, 'b', 'c'",
    b"SELECT 'a' /* it's */, 'b', 'c'",
    b"SELECT 'a', `it's`, 'b', 'c'",
    b"SELECT 'a', $$it's$$, 'b', 'c'",
    b"SELECT 'a\\', 'b'",
    b"SELECT 'a\\', 'b', '\\'",
    b"SELECT 'a', 'b",
    b"SELECT '''",
    b" SET a = 'b'",
    b"SELECT 'a'; SET b = 'c'",
]
HIDDEN = b" KILL 5; SET @a := GET_LOCK(`x`, 1), LAST_INSERT_ID(7), SQL_CALC_FOUND_ROWS /*! x */ -- "


@pytest.mark.parametrize("text", CERTAIN)
def test_a_query_that_differs_in_its_strings_goes_on_as_it_is(text: bytes) -> None:
    parts = text.split(b"'")
    knowledge.forget()
    pair()[0].on_client_bytes(sent(b"\x03" + text))
    for hidden in (HIDDEN, b"", b"123"):
        other = b"'".join(hidden if number % 2 else part for number, part in enumerate(parts))
        assert sql.masked(other) == sql.masked(text) or not hidden
        clients, servers = pair()
        assert shapes.shape(other) == shapes.shape(text)
        assert clients.texts.knows(other)
        assert attached(clients, servers, b"\x03" + other) == sent(b"\x03" + other)
        assert servers.on_server_bytes(answer([ok()], MODERN)) == RELEASE


@pytest.mark.parametrize("text", NOT_CERTAIN)
def test_a_query_in_which_it_is_not_certain_what_its_strings_are_is_read_each_time(text: bytes) -> None:
    knowledge.forget()
    clients, servers = pair()
    clients.on_client_bytes(sent(b"\x03" + text))
    assert not clients.texts.knows(text)
    assert not clients.texts.plain
    other = text.replace(b"'", HIDDEN + b"'", 2)
    clients, servers = pair()
    attached(clients, servers, b"\x03" + other)
    assert not clients.quick


@pytest.mark.parametrize(("client", "server"), DIALECTS)
@pytest.mark.parametrize("name", ANSWERS)
def test_answers_cut_at_every_byte(name: str, client: int, server: int) -> None:
    command, parts = ANSWERS[name]
    wanted, given_ = answer(parts, client), answer(parts, server)
    for head, tail in cuts(given_):
        clients, servers = pair(client, server)
        assert attached(clients, servers, command) == sent(command)
        verdict = servers.on_server_bytes(head) if head else FORWARD
        out = take_client(servers)
        assert bool(verdict & RELEASE) == (not tail)
        if tail:
            assert not servers.is_quiet()
            verdict = servers.on_server_bytes(tail)
            out += take_client(servers)
        assert (out, verdict) == (wanted, RELEASE)
        assert servers.is_quiet()
        assert servers.answered()
    clients, servers = pair(client, server)
    attached(clients, servers, command)
    out = b""
    for position in range(len(given_)):
        servers.on_server_bytes(given_[position : position + 1])
        out += take_client(servers)
    assert out == wanted


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_in_the_client_s_dialect_is_passed_on_as_the_same_object(name: str) -> None:
    command, parts = ANSWERS[name]
    clients, servers = pair(MODERN, MODERN)
    attached(clients, servers, command)
    data = answer(parts, MODERN)
    servers.on_server_bytes(data)
    assert servers.to_client is data


@pytest.mark.parametrize("name", ANSWERS)
def test_a_command_is_passed_on_as_the_same_object(name: str) -> None:
    clients, servers = pair()
    data = sent(ANSWERS[name][0])
    assert clients.on_client_bytes(data) == NEEDS_SERVER
    clients.attach(servers)
    assert clients.to_server is data


@pytest.mark.parametrize("name", ANSWERS)
def test_commands_cut_at_every_byte(name: str) -> None:
    command, parts = ANSWERS[name]
    for head, tail in cuts(sent(command)):
        clients, servers = pair(MODERN, MODERN)
        verdict = clients.on_client_bytes(head)
        assert (verdict == NEEDS_SERVER) == (not tail)
        if tail:
            assert clients.held_bytes() == len(head)
            assert clients.on_client_bytes(tail) == NEEDS_SERVER
        clients.attach(servers)
        assert take_server(clients) == head + tail
        assert servers.on_server_bytes(answer(parts, MODERN)) == RELEASE


@pytest.mark.parametrize(("client", "server"), DIALECTS)
def test_errors_are_asked_about_before_the_server_connection_goes(client: int, server: int) -> None:
    for parts in ([ERR], [b"\x01", COLUMN, middle(), ERR], [b"\x01", COLUMN, middle(), b"\x01a", ERR]):
        clients, servers = pair(client, server)
        attached(clients, servers, QUERY)
        assert servers.on_server_bytes(answer(parts, server)) == FORWARD
        assert take_client(servers) == answer(parts, client)
        assert take_server(servers) == sent(b"\x03SHOW WARNINGS")
        rows: list[bytes | Part] = [b"\x05Error\x041064\x02no"]
        assert servers.on_server_bytes(answer(result(rows), server)) == RELEASE
        assert take_client(servers) == b""
        clients.detach()
        assert clients.on_client_bytes(sent(b"\x03SHOW ERRORS")) == FORWARD
        assert take_client(clients) == answer([b"\x03", *warning_columns("", "8.4.0"), middle(), *rows, end()], client)


@pytest.mark.parametrize(("version", "kept"), [("9.7.4", False), ("10.11.19-MariaDB", True)])
def test_preparing_a_statement_clears_the_warnings_as_the_server_does(version: str, kept: bool) -> None:
    clients, servers = pair()
    servers.version = version
    attached(clients, servers, b"\x03UPDATE t SET a = 1")
    servers.on_server_bytes(answer([ok(3, warnings=1)], MODERN))
    rows: list[bytes | Part] = [b"\x07Warning\x041264\x02no"]
    assert servers.on_server_bytes(answer(result(rows), MODERN)) == RELEASE
    clients.detach()
    take_client(servers)
    attached(clients, servers, b"\x16SELECT ?")
    assert servers.on_server_bytes(answer([b"\0" + struct.pack("<IHHBH", 9, 0, 1, 0, 0), COLUMN], MODERN)) == RELEASE
    clients.detach()
    clients.on_client_bytes(sent(b"\x03SHOW WARNINGS"))
    assert (rows[0] in take_client(clients)) == kept
    clients.on_client_bytes(sent(b"\x03SELECT ROW_COUNT()"))
    assert b"\x013" in take_client(clients), "what is prepared has not run"


@pytest.mark.parametrize("said", [ERR, b""])
def test_the_warnings_of_another_client_are_not_told_behind_a_change_of_schema(said: bytes) -> None:
    clients, servers = pair()
    attached(clients, servers, b"\x02app")
    # MySQL keeps the list of the statement before, which was another client's, counts it, and adds to it.
    verdict = servers.on_server_bytes(answer([said or ok(warnings=1)], MODERN))
    if said:
        others: list[bytes | Part] = [b"\x05Error\x041062\x06secret", b"\x05Error\x041064\x02no"]
        verdict = servers.on_server_bytes(answer([b"\x03", *[COLUMN] * 3, middle(), *others, end()], MODERN))
    assert verdict == RELEASE
    clients.detach()
    clients.on_client_bytes(sent(b"\x03SHOW WARNINGS"))
    shown = take_client(clients)
    assert (b"\x05Error\x041064\x02no" in shown) == bool(said)
    assert b"secret" not in shown


@pytest.mark.parametrize(("client", "server"), DIALECTS)
def test_an_error_may_have_left_a_transaction_open(client: int, server: int) -> None:
    clients, servers = pair(client, server)
    attached(clients, servers, QUERY)
    servers.on_server_bytes(answer([ERR], server))
    assert servers.on_server_bytes(answer(result([], IN_TRANS), server)) == FORWARD
    assert servers.in_transaction
    assert not servers.is_quiet()


def test_transactions_hold_the_server_connection() -> None:
    clients, servers = pair()
    attached(clients, servers, b"\x03BEGIN")
    assert servers.on_server_bytes(answer([ok(status=IN_TRANS)], MODERN)) == FORWARD
    assert attached(clients, servers, QUERY) == sent(QUERY)
    assert servers.on_server_bytes(answer(result(ROWS, IN_TRANS), MODERN)) == FORWARD
    attached(clients, servers, b"\x03COMMIT")
    assert servers.on_server_bytes(answer([ok()], MODERN)) == RELEASE


def test_session_mode_never_releases() -> None:
    clients, servers = pair(mode=SESSION)
    attached(clients, servers, QUERY)
    assert servers.on_server_bytes(answer([ok()], MODERN)) == FORWARD
    assert servers.is_quiet()


def test_statement_mode_ends_a_client_that_begins_a_transaction() -> None:
    clients, servers = pair(mode=STATEMENT)
    attached(clients, servers, b"\x03BEGIN")
    assert servers.on_server_bytes(answer([ok(status=IN_TRANS)], MODERN)) == CLOSE
    assert take_client(servers)[4] == wire.ERR
    assert servers.answered()
    assert not servers.is_quiet()


@pytest.mark.parametrize(("client", "server"), DIALECTS)
def test_prepared_statements_cut_at_every_byte(client: int, server: int) -> None:
    definitions: list[bytes | Part] = [COLUMN, COLUMN, middle(), COLUMN, COLUMN, middle()]
    given_, wanted = answer([PREPARED, *definitions], server), answer([GIVEN, *definitions], client)
    execute = b"\x17" + struct.pack("<IBI", 1, 0, 1) + b"\0\1\x08\0\x08\0" + b"v" * 16
    for head, tail in cuts(given_):
        clients, servers = pair(client, server)
        attached(clients, servers, b"\x16SELECT ? + ?")
        verdict = servers.on_server_bytes(head) if head else FORWARD
        if tail:
            verdict = servers.on_server_bytes(tail)
        assert (take_client(servers), verdict) == (wanted, RELEASE)
        clients.detach()
        assert attached(clients, servers, execute) == sent(execute[:1] + struct.pack("<I", 77) + execute[5:])
        servers.on_server_bytes(answer(result([b"\0\0aaaaaaaa"]), server))
        assert take_client(servers) == answer(result([b"\0\0aaaaaaaa"]), client)


def test_a_statement_without_parameters_or_columns() -> None:
    clients, servers = pair()
    attached(clients, servers, b"\x16DO 1")
    assert servers.on_server_bytes(answer([b"\0" + struct.pack("<IHHBH", 3, 0, 0, 0, 0)], MODERN)) == RELEASE
    assert take_client(servers) == answer([b"\0" + struct.pack("<IHHBH", 1, 0, 0, 0, 0)], PLAIN)


def prepared_pair(text: bytes = b"SELECT ?") -> tuple[ClientRelay, ServerRelay, bytes]:
    """A client with a statement of one parameter, and a server connection that does not have it; its COM_STMT_EXECUTE."""
    clients, first = pair()
    attached(clients, first, b"\x16" + text)
    first.on_server_bytes(answer([b"\0" + struct.pack("<IHHBH", 9, 0, 1, 0, 0), COLUMN], MODERN))
    clients.detach()
    servers = pair()[1]
    return clients, servers, b"\x17" + struct.pack("<IBI", 1, 0, 1) + b"\0\1\x08\0" + b"v" * 8


def executing_pair(client: int, server: int) -> tuple[ClientRelay, ServerRelay, bytes]:
    """A client with a statement of one parameter that the server connection has too; its COM_STMT_EXECUTE."""
    clients, servers = pair(client, server)
    attached(clients, servers, b"\x16SELECT ?")
    servers.on_server_bytes(answer([PREPARED[:5] + b"\0\0\1\0\0\0\0", COLUMN, middle()], server))
    clients.detach()
    servers.to_client = b""
    return clients, servers, b"\x17" + struct.pack("<IBI", 1, 0, 1) + b"\0\1\x08\0" + b"v" * 8


@pytest.mark.parametrize(("client", "server"), DIALECTS)
def test_results_of_a_statement_that_begin_as_the_one_before_or_do_not(client: int, server: int) -> None:
    clients, servers, execute = executing_pair(client, server)
    other = codec.column(b"other", 253, 45, 10, 0)
    for _ in range(2):
        for columns in ([COLUMN, COLUMN], [COLUMN], [COLUMN, other], [other, COLUMN], [COLUMN] * 3):
            for rows in ([], [b"\0\0a"], [b"\0\0a", b"\0\0bc"], [b"\0\0abc"] * 300):
                parts: list[bytes | Part] = [bytes((len(columns),)), *columns, middle(), *rows, end()]
                attached(clients, servers, execute)
                assert servers.on_server_bytes(answer(parts, server)) == RELEASE
                assert take_client(servers) == answer(parts, client)
                clients.detach()


COUNTS = (0, 1, 250, 251, 300, 70_000, 1 << 40)


@pytest.mark.parametrize("info", [b"", b"Rows matched: 7  Changed: 3  Warnings: 0"])
@pytest.mark.parametrize(("client", "server"), DIALECTS)
def test_an_ok_that_comes_whole_does_what_one_does_that_does_not(client: int, server: int, info: bytes) -> None:
    for affected, insert_id, status, warnings in itertools.product(COUNTS, COUNTS, (AUTOCOMMIT, IN_TRANS), (0, 1)):
        data = answer([ok(affected, insert_id, status, warnings, info)], server)
        seen = set()
        for cut in (0, 1, 10):
            clients, servers = pair(client, server)
            attached(clients, servers, b"\x03INSERT INTO t VALUES (1)")
            if cut:
                servers.on_server_bytes(data[:cut])
            verdict = servers.on_server_bytes(data[cut:])
            asked, told = take_server(servers), take_client(servers)
            assert (sent(b"\x03SELECT LAST_INSERT_ID() LIMIT 1") in asked) == (insert_id > 0 and status == AUTOCOMMIT)
            if not asked and not clients.captures:
                clients.detach()
                clients.on_client_bytes(sent(b"\x03SELECT ROW_COUNT()"))
            seen.add((verdict, told, servers.in_transaction, asked, take_client(clients)))
        assert len(seen) == 1


ENDS = [b"\x07\0\0\x04\xfe\0\0\2\0\0\0", b"\x07\0\0\x05\xfe\0\0\2\0\0\0", b"\x05\0\0\x05\xfe\0\0\2\0"]


@pytest.mark.parametrize("last", ENDS)
@pytest.mark.parametrize("before", [0, 1, 60])
@pytest.mark.parametrize(("client", "server"), DIALECTS)
def test_what_looks_like_an_end_inside_a_row_is_none(client: int, server: int, before: int, last: bytes) -> None:
    """The first read ends with it."""
    clients, servers, execute = executing_pair(client, server)
    parts = result([b"\0\0ab"] * before + [b"\0\0" + last + b"more"])
    data = answer(parts, server)
    for cut in (data.rindex(last) + len(last), len(data)):
        for _ in range(2):
            attached(clients, servers, execute)
            assert (servers.on_server_bytes(data[:cut]) == RELEASE) == (cut == len(data))
            if cut < len(data):
                assert servers.on_server_bytes(data[cut:]) == RELEASE
            assert take_client(servers) == answer(parts, client)
            clients.detach()


@pytest.mark.parametrize("size", [0x0107, 0x010007])
def test_the_end_of_a_result_that_is_cut_behind_what_makes_a_shorter_one(size: int) -> None:
    clients, servers = pair(MODERN, MODERN)
    attached(clients, servers, QUERY)
    data = answer(result([b"\1a\1b"]), MODERN)
    longer = data[:-11] + wire.packet(data[-8], data[-7:] + b"\xfd" + (size - 11).to_bytes(3, "little") + bytes(size - 11))
    cut = len(data)
    assert servers.on_server_bytes(longer[:cut]) == FORWARD
    assert servers.on_server_bytes(longer[cut:]) == RELEASE
    assert take_client(servers) == longer


class World:
    """Two clients with the same statements, of no, of one and of nine parameters, and two server connections that they use by turns."""

    def __init__(self, client: int, server: int) -> None:
        self.clients = [pair(client, server)[0] for _ in range(2)]
        self.servers = [pair(client, server)[1] for _ in range(2)]
        self.capabilities = server
        self.seen: list[Any] = []
        self.params: dict[int, int] = {}
        self.types: dict[int, bytes] = {}
        self.long_data: dict[object, list[bytes]] = {}
        for one in self.clients:
            for params in PARAMS:
                self.ask(one, self.servers[0], b"\x16SELECT" + b" ?" * params, -1)

    def ask(self, client: ClientRelay, server: ServerRelay, command: bytes, cut: int, status: int = AUTOCOMMIT) -> None:
        """A command that comes cut into two pieces (-1: whole), and its answer."""
        if client.server is not None:
            server = client.server
        elif server.client is not None:
            server = next(other for other in self.servers if other.client is None)
        if command[0] == wire.COM_STMT_SEND_LONG_DATA:
            self.long_data.setdefault((client, number_in(command)), []).append(command[5:])
        data = sent(command)
        verdict = client.on_client_bytes(data[:cut]) if cut > 0 else FORWARD
        verdict = client.on_client_bytes(data[max(cut, 0) :]) if verdict == FORWARD else verdict
        self.seen.append(verdict)
        if verdict == NEEDS_SERVER:
            self.seen.append(client.attach(server))
        asked = take_server(client)
        while asked:
            self.seen.append(asked)
            for one in codec.split(asked):
                if one[0] == wire.COM_STMT_SEND_LONG_DATA:
                    self.long_data.setdefault(number_in(one), []).append(one[5:])
                elif one[0] == wire.COM_STMT_EXECUTE:
                    self.execute(one, client, number_in(command))
                if one[0] not in UNANSWERED:
                    self.seen.append(server.on_server_bytes(self.reply(one, status)))
            asked = take_server(server)
        self.seen.append((take_client(client), take_client(server)))
        self.seen.append((client.binds, client.text[-8:], list(client.statements.known)))
        if not server.in_transaction:
            client.detach()

    def reply(self, command: bytes, status: int) -> bytes:
        if command[0] == wire.COM_STMT_EXECUTE:
            return answer(result([b"\0\0ab"], status), self.capabilities)
        if command[0] != wire.COM_STMT_PREPARE:
            return answer([ok()], self.capabilities)
        number = 77 + len(self.params)
        params = self.params[number] = command.count(b"?")
        given_: list[bytes | Part] = [b"\0" + struct.pack("<IHHBH", number, 0, params, 0, 0), *[COLUMN] * params]
        return answer([*given_, middle()] if params else given_, self.capabilities)

    def execute(self, execute: bytes, client: ClientRelay, number: int) -> None:
        """What the server executes is what the client has asked for."""
        statement = number_in(execute)
        params = self.params[statement]
        flag = 10 + (params + 7) // 8
        if params and execute[flag]:
            self.types[statement] = execute[flag + 1 : flag + 1 + 2 * params]
        wanted = client.statements.known[number].types
        assert self.types.get(statement, b"") == wanted
        assert self.long_data.pop(statement, []) == self.long_data.pop((client, number), [])


def number_in(command: bytes) -> int:
    return int.from_bytes(command[1:5], "little")


UNANSWERED = (wire.COM_STMT_CLOSE, wire.COM_STMT_SEND_LONG_DATA)
PARAMS = (0, 1, 9)
TYPES = (b"\x08\0", b"\x03\0", b"\x08\x80", b"\xfd\0", b"\x06\0")


def execute_of(number: int, flag: int, kinds: list[bytes], end: int) -> bytes:
    """A COM_STMT_EXECUTE of the statement `number`, from whose end `end` bytes are missing."""
    params = PARAMS[(number - 1) % len(PARAMS)]
    head = b"\x17" + struct.pack("<IBI", number, 0, 1) + bytes((params + 7) // 8)
    bound = bytes((flag,)) + (b"".join(kinds[:params]) if flag else b"") if params else b""
    return (head + bound + b"v" * 9)[: 100 - end]


numbers = st.sampled_from((1, 2, 2, 2, 3))
kinds = st.lists(st.sampled_from(TYPES), min_size=9, max_size=9)
executes = st.builds(execute_of, numbers, st.sampled_from((0, 0, 1)), kinds, st.just(0))
strange = st.builds(execute_of, st.integers(0, 5), st.integers(0, 2), kinds, st.integers(0, 95))
long_data = st.builds(lambda number: b"\x18" + struct.pack("<IH", number, 0) + b"long", numbers)
statuses = st.sampled_from((AUTOCOMMIT, AUTOCOMMIT, IN_TRANS))
steps = st.tuples(
    st.integers(0, 1), st.integers(0, 1), executes | executes | executes | strange | long_data | st.just(QUERY), st.integers(1, 3), statuses
)


@given(st.lists(steps, max_size=25), st.sampled_from(DIALECTS))
def test_executions_that_come_whole_go_the_way_of_those_that_do_not(
    done: list[tuple[int, int, bytes, int, int]], dialect: tuple[int, int]
) -> None:
    whole, cut = World(*dialect), World(*dialect)
    for client, server, command, size, status in done:
        whole.ask(whole.clients[client], whole.servers[server], command, -1, status)
        cut.ask(cut.clients[client], cut.servers[server], command, size, status)
        assert whole.seen == cut.seen


@pytest.mark.parametrize("cut", [-1, 3])
def test_an_execution_before_any_types_were_bound_is_refused_as_by_a_server(cut: int) -> None:
    world = World(MODERN, MODERN)
    one, other = world.clients
    world.ask(one, world.servers[0], execute_of(2, 1, list(TYPES), 0), -1)
    for number in (2, 2, 3):
        world.ask(other, world.servers[0], execute_of(number, 0, [], 0), cut)
        assert b"#HY000Incorrect arguments to mysqld_stmt_execute" in world.seen[-2][0]
    world.ask(other, world.servers[0], execute_of(1, 0, [], 0), cut)
    assert world.seen[-2] == (b"", answer(result([b"\0\0ab"]), MODERN))


@pytest.mark.parametrize("cut", [-1, 3])
def test_too_long_data_is_refused_with_the_execution_that_it_is_for(cut: int) -> None:
    world = World(MODERN, MODERN)
    client, server = world.clients[0], world.servers[0]
    execute = execute_of(2, 1, list(TYPES), 0)
    world.ask(client, server, execute, cut)
    client.limits.statement_bytes = 100
    client.on_client_bytes(sent(b"\x18" + struct.pack("<IH", 2, 0) + bytes(100)))
    world.ask(client, server, QUERY, cut)
    world.seen.clear()
    world.ask(client, server, execute, cut)
    assert b"#08S01The data of COM_STMT_SEND_LONG_DATA is more than" in world.seen[1][0]
    world.ask(client, server, execute, cut)
    assert world.seen[-2] == (b"", answer(result([b"\0\0ab"]), MODERN))


def test_a_statement_is_prepared_on_first_use_and_its_error_is_the_client_s() -> None:
    clients, servers, execute = prepared_pair()
    assert attached(clients, servers, execute) == sent(b"\x16SELECT ?")
    assert servers.on_server_bytes(answer([ERR], MODERN)) == RELEASE
    assert take_client(servers) == answer([ERR], PLAIN)
    clients.detach()
    assert attached(clients, servers, execute) == sent(b"\x16SELECT ?")
    assert servers.on_server_bytes(answer([b"\0" + struct.pack("<IHHBH", 4, 0, 1, 0, 0), COLUMN], MODERN)) == FORWARD
    assert take_server(servers) == sent(execute[:1] + struct.pack("<I", 4) + execute[5:])
    assert take_client(servers) == b""
    assert servers.on_server_bytes(answer([ok(1)], MODERN)) == RELEASE


@pytest.mark.parametrize("errno", [1615, 1243])
def test_a_statement_is_prepared_again_once(errno: int) -> None:
    clients, servers, execute = prepared_pair()
    attached(clients, servers, execute)
    servers.on_server_bytes(answer([b"\0" + struct.pack("<IHHBH", 4, 0, 1, 0, 0), COLUMN], MODERN))
    take_server(servers)
    lost = error_payload(errno, "HY000", "again")
    assert servers.on_server_bytes(answer([lost], MODERN)) == FORWARD
    assert take_server(servers) == sent(b"\x19" + struct.pack("<I", 4)) + sent(b"\x16SELECT ?")
    servers.on_server_bytes(answer([b"\0" + struct.pack("<IHHBH", 5, 0, 1, 0, 0), COLUMN], MODERN))
    assert take_server(servers) == sent(execute[:1] + struct.pack("<I", 5) + execute[5:])
    assert take_client(servers) == b""
    assert servers.on_server_bytes(answer([lost], MODERN)) == FORWARD
    assert take_client(servers) == answer([lost], PLAIN)


def test_settings_are_proven_before_a_command_relies_on_them() -> None:
    clients, servers = pair()
    servers.settings = session_sql.UNKNOWN
    clients.on_client_bytes(sent(QUERY))
    clients.attach(servers)
    setting = take_server(clients)
    assert setting[4:].startswith(b"\x03SET SESSION character_set_client='utf8mb4',SESSION character_set_connection='utf8mb4',")
    assert servers.on_server_bytes(answer([ok()], MODERN)) == FORWARD
    assert take_client(servers) == b""
    assert take_server(servers) == sent(QUERY)
    assert servers.on_server_bytes(answer([ok()], MODERN)) == RELEASE
    clients.detach()
    servers.settings = session_sql.UNKNOWN
    clients.on_client_bytes(sent(QUERY))
    clients.attach(servers)
    take_client(servers)
    assert take_server(clients) == setting + sent(QUERY)
    assert servers.on_server_bytes(answer([ok()], MODERN) * 2) == RELEASE
    assert take_client(servers) == answer([ok()], PLAIN)


def test_a_setting_that_fails_is_the_client_s_error_and_the_command_does_not_run() -> None:
    clients, servers = pair()
    servers.settings = session_sql.UNKNOWN
    attached(clients, servers, QUERY)
    assert servers.on_server_bytes(answer([ERR], MODERN)) == RELEASE
    assert take_client(servers) == answer([ERR], PLAIN)
    assert take_server(servers) == b""
    assert servers.dirty


def test_a_proven_setting_that_fails_loses_the_connection() -> None:
    clients, servers = pair()
    servers.settings = session_sql.UNKNOWN
    servers.proven.add(session_sql.UNKNOWN_DEFAULTS.difference(session_sql.UNKNOWN, clients.settings))
    assert attached(clients, servers, QUERY).endswith(sent(QUERY))
    with pytest.raises(RemoteProtocolError):
        servers.on_server_bytes(answer([ERR], MODERN) + answer([ok()], MODERN))
    assert servers.to_client == b""


def tracked(kind: int, data: bytes, status: int = AUTOCOMMIT) -> bytes:
    changes = bytes((kind,)) + wire.put_lenenc_bytes(data)
    return wire.packet(1, build_ok(Ok(0, 0, status | 0x4000, 0, b"", changes), MODERN, wire.OK))


def variable(name: bytes, value: bytes) -> bytes:
    return wire.put_lenenc_bytes(name) + wire.put_lenenc_bytes(value)


def test_what_the_server_reports_is_replayed_elsewhere() -> None:
    clients, servers = pair()
    attached(clients, servers, b"\x03SET time_zone='+01:00'")
    assert servers.on_server_bytes(tracked(wire.TRACK_SYSTEM_VARIABLES, variable(b"time_zone", b"+01:00"))) == RELEASE
    assert take_client(servers) == answer([ok()], PLAIN)
    clients.detach()
    assert attached(clients, servers, QUERY) == sent(QUERY)
    servers.on_server_bytes(answer([ok()], MODERN))
    clients.detach()
    other = pair()[1]
    assert attached(clients, other, QUERY) == sent(b"\x03SET SESSION time_zone='+01:00'")
    other.on_server_bytes(answer([ok()], MODERN))
    assert take_server(other) == sent(QUERY)
    other.on_server_bytes(answer([ok()], MODERN))
    clients.detach()
    stranger = pair()[0]
    other.schema_read = stranger.schema_since
    assert attached(stranger, other, QUERY) == sent(b"\x03SET SESSION time_zone=@@global.time_zone")


def test_the_schema_is_replayed_and_awaited() -> None:
    clients, servers = pair()
    attached(clients, servers, b"\x02shop")
    assert servers.on_server_bytes(tracked(wire.TRACK_SCHEMA, b"\x04shop")) == RELEASE
    clients.detach()
    other = pair()[1]
    assert attached(clients, other, QUERY) == sent(b"\x02shop")
    assert other.on_server_bytes(answer([ok()], MODERN)) == FORWARD
    assert take_server(other) == sent(QUERY)
    other.on_server_bytes(answer([ok()], MODERN))
    take_client(other)
    clients.detach()
    stranger = pair()[0]
    assert attached(stranger, other, QUERY) == sent(b"\x02app")
    assert other.on_server_bytes(answer([ERR], MODERN)) == RELEASE
    assert take_client(other) == answer([ERR], PLAIN)


def test_state_that_nobody_names_pins() -> None:
    clients, servers = pair()
    attached(clients, servers, b"\x03SELECT a FROM v WHERE (b, c) = ('secret', 42)")
    assert servers.on_server_bytes(tracked(wire.TRACK_STATE_CHANGE, b"\x011")) == PINNED
    assert (servers.pins, servers.dirty) == (states.PIN_STATE, True)
    assert (servers.pin_reasons(), servers.pin_text) == (
        ["session state; until the session is reset"],
        "SELECT a FROM v WHERE (b, c) = (?, ?)",
    )
    attached(clients, servers, b"\x1f")
    assert servers.on_server_bytes(answer([ok()], MODERN)) == RELEASE | PINNED
    assert (servers.pins, servers.dirty) == (0, False)


def test_what_happened_in_a_transaction_is_asked_about_at_its_end() -> None:
    clients, servers = pair(MODERN, MODERN)
    attached(clients, servers, b"\x03BEGIN")
    servers.on_server_bytes(answer([ok(status=IN_TRANS)], MODERN))
    attached(clients, servers, b"\x03SELECT GET_LOCK('x', 1)")
    assert servers.on_server_bytes(answer(result([b"\x011\x011"], IN_TRANS), MODERN)) == FORWARD
    assert take_server(servers) == b""
    attached(clients, servers, b"\x03COMMIT")
    assert servers.on_server_bytes(answer([ok()], MODERN)) == FORWARD
    assert b"IS_USED_LOCK('x')" in take_server(servers)
    assert servers.on_server_bytes(answer([b"\x01", COLUMN, middle(), b"\x010", end()], MODERN)) == RELEASE


def test_no_pins_where_they_are_errors() -> None:
    clients, servers = pair(policy=PIN_ERROR)
    assert clients.on_client_bytes(sent(b"\x03SELECT GET_LOCK('x', 1)")) == CLOSE
    assert b"RELEASE_LOCK" in take_client(clients)
    clients, servers = pair(policy=PIN_ERROR)
    attached(clients, servers, b"\x03SELECT a FROM v")
    assert servers.on_server_bytes(tracked(wire.TRACK_STATE_CHANGE, b"\x011")) == CLOSE | PINNED
    assert take_client(servers)[4] == wire.ERR
    clients.detach()
    assert servers.dirty


def test_a_lock_is_held_when_the_server_says_so() -> None:
    for held, verdict in ((b"1", PINNED), (b"0", RELEASE)):
        clients, servers = pair()
        attached(clients, servers, b"\x03SELECT GET_LOCK('x', 1)")
        assert servers.on_server_bytes(answer(result([b"\x01" + held, b"\x01" + held]), MODERN)) == FORWARD
        assert b"IS_USED_LOCK('x')" in take_server(servers)
        assert servers.on_server_bytes(answer([b"\x01", COLUMN, middle(), b"\x01" + held, end()], MODERN)) == verdict
        assert servers.pin_reasons() == (["lock; until RELEASE_LOCK() or RELEASE_ALL_LOCKS()"] if held == b"1" else [])


def test_a_word_in_a_long_statement_is_found_wherever_it_is_cut() -> None:
    text = b"\x03SELECT '" + b"x" * 300_000 + b"', GET_LOCK('a', 1), '" + b"y" * 300_000 + b"'"
    data = sent(text)
    for cut in range(data.index(b"GET_LOCK"), data.index(b"('a'")):
        clients, servers = pair()
        servers.baseline = {}
        servers.holds.created = 0
        assert clients.on_client_bytes(data[: 1 << 18]) == FORWARD | NEEDS_SERVER
        clients.attach(servers)
        assert clients.on_client_bytes(data[1 << 18 : cut]) == clients.on_client_bytes(data[cut:]) == FORWARD
        assert take_server(clients) == data
        assert servers.on_server_bytes(answer(result([b"\x01a\x01b"]), MODERN)) == FORWARD
        assert b"metadata_locks" in take_server(servers)
        assert clients.doubts() & states.D_LOCKS


def test_who_chose_no_schema_never_meets_another_s() -> None:
    clients, servers = pair()
    servers.login_schema = ""
    attached(clients, servers, b"\x02shop")
    assert servers.on_server_bytes(tracked(wire.TRACK_SCHEMA, b"\x04shop")) == RELEASE
    clients.detach()
    assert (servers.dirty, servers.is_lost()) == (True, True)


def test_a_prepared_question_for_the_connection_id() -> None:
    clients, servers = pair()
    assert attached(clients, servers, b"\x16SELECT CONNECTION_ID() AS me") == sent(b"\x16SELECT CAST(5 AS UNSIGNED) AS me")


def test_set_transaction_pins_until_the_next_one_is_over() -> None:
    clients, servers = pair()
    attached(clients, servers, b"\x03SET TRANSACTION READ ONLY")
    about = wire.TRACK_TRANSACTION_CHARACTERISTICS
    assert servers.on_server_bytes(tracked(about, b"\x1aSET TRANSACTION READ ONLY;")) == PINNED
    attached(clients, servers, QUERY)
    assert servers.on_server_bytes(tracked(about, b"\x00")) == RELEASE | PINNED


NUMBER_COLUMN = codec.column(b"LAST_INSERT_ID()", codec.LONGLONG, 63, 21, 0)


def number(value: bytes) -> bytes:
    return answer([b"\x01", NUMBER_COLUMN, middle(), wire.put_lenenc(len(value)) + value, end()], MODERN)


def inserts(clients: ClientRelay, servers: ServerRelay, text: bytes, told: int) -> bytes:
    """A client runs an INSERT, and is told of this number. Returns what the server is asked then."""
    attached(clients, servers, b"\x03" + text)
    servers.on_server_bytes(answer([ok(1, told)], MODERN))
    return take_server(servers)


def test_a_number_that_a_statement_gives_is_not_the_last_one_that_was_made() -> None:
    """An OK packet names both alike."""
    clients, servers = pair()
    last = sent(b"\x03SELECT LAST_INSERT_ID() LIMIT 1")
    assert inserts(clients, servers, b"INSERT INTO t VALUES (60)", 60) == last
    assert servers.on_server_bytes(number(b"41")) == RELEASE
    assert clients.insert_id == servers.insert_id == 41
    clients.detach()
    # Of a column that has no name in the statement, only the server can have made the number: which column that is, is asked once.
    counted = sent(b"\x03SHOW COLUMNS FROM t WHERE Extra LIKE '%auto_increment%'")
    assert inserts(clients, servers, b"INSERT INTO t (v) VALUES (7)", 61) == last + counted
    servers.on_server_bytes(number(b"61"))
    assert servers.on_server_bytes(number(b"Id")) == RELEASE
    clients.detach()
    assert inserts(clients, servers, b"insert into t (v) values (8)", 62) == b""
    assert clients.insert_id == servers.insert_id == 62
    clients.detach()
    for text in (b"INSERT INTO t (v, `ID`) VALUES (8, 70)", b"INSERT INTO t (v) VALUES (8) ON DUPLICATE KEY UPDATE v = 1"):
        assert inserts(clients, servers, text, 70) == last
        assert servers.on_server_bytes(number(b"62")) == RELEASE
        assert clients.insert_id == 62
        clients.detach()


def test_last_insert_id_is_set_where_it_is_asked_for() -> None:
    clients, servers = pair()
    inserts(clients, servers, b"INSERT INTO t VALUES ()", 300)
    servers.on_server_bytes(number(b"300"))
    clients.detach()
    ask = b"\x03SELECT LAST_INSERT_ID()"
    assert attached(clients, servers, ask) == sent(ask)
    servers.on_server_bytes(answer(result([]), MODERN))
    clients.detach()
    other = pair()[1]
    assert attached(clients, other, QUERY) == sent(QUERY)
    other.on_server_bytes(answer([ok()], MODERN))
    clients.detach()
    assert attached(clients, other, ask) == sent(b"\x03SET SESSION last_insert_id=300") + sent(ask)


OWN_ANSWERS = [
    (b"\x0e", [ok()]),
    (b"\x1f", [ok()]),
    (b"\x1b\0\0", [end()]),
    (b"\x03SELECT CONNECTION_ID()", [b"\x01", codec.integer_column(b"CONNECTION_ID()", codec.UNSIGNED), middle(), b"\x015", end()]),
    (b"\x03SELECT @@warning_count n", [b"\x01", codec.integer_column(b"n", codec.NULLABLE_UNSIGNED), middle(), b"\x010", end()]),
    (b"\x03SHOW WARNINGS", [b"\x03", *warning_columns("", "8.4.0"), middle(), end()]),
]


@pytest.mark.parametrize("capabilities", [PLAIN, MODERN])
@pytest.mark.parametrize(("command", "parts"), OWN_ANSWERS)
def test_what_needs_no_server(command: bytes, parts: list[bytes | Part], capabilities: int) -> None:
    clients, _ = pair(capabilities)
    clients.server_version, clients.knowledge = "8.4.0", knowledge.Knowledge("", "8.4.0")  # it had a lease before
    data = sent(command)
    for head, tail in cuts(data):
        verdicts = [clients.on_client_bytes(piece) for piece in (head, tail) if piece]
        assert set(verdicts) == {FORWARD}
        assert take_client(clients) == answer(parts, capabilities)
    assert clients.on_client_bytes(data * 3) == FORWARD
    assert take_client(clients) == answer(parts, capabilities) * 3
    assert clients.held_bytes() == 0


@pytest.mark.parametrize("command", [c for c in range(256) if states.CLIENT_ACTION[c] == states.C_REFUSED])
def test_unknown_commands(command: int) -> None:
    clients, _ = pair()
    assert clients.on_client_bytes(sent(bytes((command,)) + b"junk")) == FORWARD
    assert take_client(clients) == answer([error_payload(1047, "08S01", "Unknown command")], PLAIN)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_change_of_user_is_handed_over_whole(in_transaction: bool) -> None:
    data = sent(bytes((wire.COM_CHANGE_USER,)) + b"app\0\0app\0")
    for head, tail in cuts(data):
        clients, servers = pair()
        if in_transaction:
            attached(clients, servers, b"\x03BEGIN")
            assert servers.on_server_bytes(answer([ok(status=IN_TRANS)], MODERN)) == FORWARD
        verdicts = [clients.on_client_bytes(piece) for piece in (head, tail) if piece]
        assert verdicts in ([REACCEPT], [FORWARD, REACCEPT])
        assert clients.login_request == data
        assert (clients.held_bytes(), clients.to_client, clients.to_server) == (0, b"", b"")


def test_a_change_of_user_waits_for_the_answer_before_it() -> None:
    clients, servers = pair(mode=SESSION)
    attached(clients, servers, QUERY)
    change = sent(bytes((wire.COM_CHANGE_USER,)) + b"app\0\0app\0")
    assert clients.on_client_bytes(change + b"junk") == FORWARD
    assert servers.on_server_bytes(answer(result(ROWS), MODERN)) == REACCEPT
    assert take_client(servers) == answer(result(ROWS), PLAIN)
    assert clients.login_request == change + b"junk"
    clients.detach()
    assert servers.dirty


@pytest.mark.parametrize("size", [RelayLimits().frame_bytes + 10, wire.MAX_PAYLOAD])
def test_a_change_of_user_that_is_too_long(size: int) -> None:
    clients, _ = pair()
    assert clients.on_client_bytes(wire.header(0, size) + b"\x11" + b"a" * RelayLimits().frame_bytes) == CLOSE
    assert b"Got a packet bigger than" in take_client(clients)


def test_a_goodbye() -> None:
    assert pair()[0].on_client_bytes(sent(b"\x01") + b"junk") == CLOSE


@pytest.mark.parametrize("data", [b"\1\0\0\1\x03", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_client_that_has_lost_its_way_is_told_and_closed(data: bytes) -> None:
    clients, _ = pair()
    assert clients.on_client_bytes(data) == CLOSE
    assert take_client(clients)[4] == wire.ERR


def test_commands_sent_ahead_wait_for_their_turn() -> None:
    clients, servers = pair()
    assert clients.on_client_bytes(sent(QUERY) + sent(b"\x0e") + sent(b"\x03SELECT 2")) == NEEDS_SERVER
    clients.attach(servers)
    assert take_server(clients) == sent(QUERY)
    assert clients.on_client_bytes(sent(b"\x0e")) == FORWARD
    assert servers.on_server_bytes(answer([ok()], MODERN)) == RELEASE
    take_client(servers)
    clients.detach()
    assert clients.on_client_bytes(b"") == NEEDS_SERVER
    assert take_client(clients) == answer([ok()], PLAIN)
    clients.attach(servers)
    assert take_server(clients) == sent(b"\x03SELECT 2")
    assert servers.on_server_bytes(answer([ok(status=IN_TRANS)], MODERN)) == FORWARD
    assert take_client(servers) == answer([ok(status=IN_TRANS)], PLAIN) * 2


def test_no_server_connection_comes() -> None:
    clients, servers = pair()
    assert clients.on_client_bytes(sent(QUERY) + sent(b"\x0e")) == NEEDS_SERVER
    assert clients.refuse(CheckoutTimeout("waited for 2 s")) == FORWARD
    assert take_client(clients)[4] == wire.ERR
    assert clients.on_client_bytes(b"") == FORWARD
    assert take_client(clients) == answer([ok()], PLAIN)
    assert attached(clients, servers, QUERY) == sent(QUERY)


def test_a_long_command_that_no_server_connection_comes_for() -> None:
    clients, _ = pair()
    data = sent(b"\x03" + b"x" * 1_000_000)
    assert clients.on_client_bytes(data[:300_000]) == NEEDS_SERVER
    clients.refuse(CheckoutTimeout("no"))
    take_client(clients)
    assert clients.on_client_bytes(data[300_000:] + sent(b"\x0e")) == FORWARD
    assert clients.on_client_bytes(b"") == FORWARD
    assert take_client(clients) == answer([ok()], PLAIN)
    assert clients.held_bytes() == 0


def test_kill() -> None:
    clients, _ = pair()
    for text, connection in ((b"KILL 9", True), (b"KILL QUERY 9", False)):
        assert clients.on_client_bytes(sent(b"\x03" + text)) == CANCEL
        assert (clients.cancel_key, clients.cancel_connection) == (9, connection)
        assert clients.on_client_bytes(sent(b"\x0e")) == FORWARD
        clients.cancel_done(found=False)
        assert take_client(clients) == answer([error_payload(1094, "HY000", "Unknown thread id: 9")], PLAIN)
        assert clients.on_client_bytes(b"") == FORWARD
        assert take_client(clients) == answer([ok()], PLAIN)
    assert clients.on_client_bytes(sent(b"\x0c" + struct.pack("<I", 8))) == CANCEL
    clients.cancel_done(found=True)
    assert take_client(clients) == answer([ok()], PLAIN)


def test_a_local_file_cut_at_every_byte() -> None:
    file = wire.packet(2, b"1\n2\n") + wire.packet(3, b"3\n") + wire.packet(4, b"")
    for head, tail in cuts(file):
        clients, servers = pair()
        attached(clients, servers, b"\x03LOAD DATA LOCAL INFILE 'x' INTO TABLE t")
        assert servers.on_server_bytes(wire.packet(1, b"\xfbx")) == FORWARD
        assert servers.copying_in
        assert take_client(servers) == wire.packet(1, b"\xfbx")
        out = b""
        for piece in (head, tail):
            if piece:
                assert clients.on_client_bytes(piece) == FORWARD
                out += take_server(clients)
        assert out == file
        assert not servers.copying_in
        assert servers.on_server_bytes(wire.packet(5, build_ok(Ok(3, 0, AUTOCOMMIT, 0), MODERN, wire.OK))) == RELEASE


def test_a_client_that_does_not_send_files() -> None:
    clients, servers = pair(PLAIN & ~wire.CLIENT_LOCAL_FILES)
    attached(clients, servers, b"\x03LOAD DATA LOCAL INFILE 'x' INTO TABLE t")
    assert servers.on_server_bytes(wire.packet(1, b"\xfbx")) == FORWARD
    assert take_client(servers) == b""
    assert take_server(servers) == wire.packet(2, b"")
    servers.on_server_bytes(wire.packet(3, build_ok(Ok(0, 0, AUTOCOMMIT, 0), MODERN, wire.OK)))
    assert take_client(servers) == wire.packet(1, error_payload(3948, "42000", server_relay.LOCAL_FILES_TEXT))


BAD_ANSWERS = [
    wire.packet(1, b""),
    wire.packet(1, b"\xfc\x05"),
    wire.packet(1, b"\x02\x00"),
    wire.packet(1, b"\xfd\x00\x00\x01"),
    wire.packet(1, b"\x00\x00"),
    wire.packet(1, b"\xfe"),
    answer([b"\x01", COLUMN], MODERN) + wire.packet(3, b"\xfe\x00"),
    answer([ok(), ok()], MODERN),
]


@pytest.mark.parametrize("data", BAD_ANSWERS)
def test_answers_that_make_no_sense(data: bytes) -> None:
    clients, servers = pair()
    attached(clients, servers, QUERY)
    with pytest.raises(RemoteProtocolError):
        servers.on_server_bytes(data)
    assert servers.to_client == b""


def test_a_server_s_last_words() -> None:
    _, servers = pair()
    said = error_payload(1053, "08S01", "Server shutdown in progress")
    assert servers.on_server_bytes(wire.packet(0, said)) == BROKEN
    assert servers.to_client == wire.packet(1, said), "numbered as the answer to the client's next command"
    with pytest.raises(RemoteProtocolError):
        pair()[1].on_server_bytes(answer([ok()], MODERN))


def test_hidden_commands_of_exchanges() -> None:
    _, servers = pair()
    servers.expect_hidden()
    servers.expect_hidden()
    assert not servers.answered()
    data = answer(result(ROWS), MODERN) + answer([ERR], MODERN)
    for head, tail in cuts(data):
        if not head or not tail:
            continue
        servers.on_server_bytes(head)
        servers.on_server_bytes(tail)
        assert servers.to_client == b""
        assert servers.answered()
        assert servers.last_error == ERR
        servers.expect_hidden()
        servers.expect_hidden()


def open_cursor() -> tuple[ClientRelay, ServerRelay, bytes]:
    """A client with an open cursor; its COM_STMT_FETCH."""
    clients, servers, execute = prepared_pair()
    attached(clients, servers, execute[:5] + b"\1" + execute[6:])
    servers.on_server_bytes(answer([b"\0" + struct.pack("<IHHBH", 4, 0, 1, 0, 0), COLUMN], MODERN))
    servers.on_server_bytes(answer([b"\x01", COLUMN, end(AUTOCOMMIT | wire.STATUS_CURSOR_EXISTS)], MODERN))
    take_server(servers), take_client(servers)
    return clients, servers, b"\x1c" + struct.pack("<II", 1, 5)


@pytest.mark.parametrize("command", [name for name in ANSWERS if name not in ("ok", "ok with info")] + ["fetch", "fetch of nothing"])
def test_an_answer_has_begun_with_its_first_packet(command: str) -> None:
    if command in ANSWERS:
        clients, servers = pair(server=PLAIN)
        asked, parts = ANSWERS[command]
    else:
        clients, servers, asked = open_cursor()
        rows: list[bytes | Part] = [b"\0\0aaaaaaaa", b"\0\0bbbbbbbb"] if command == "fetch" else []
        parts = [*rows, end(AUTOCOMMIT | wire.STATUS_LAST_ROW_SENT)]
    attached(clients, servers, asked)
    whole = answer(parts, servers.capabilities)
    first = 4 + int.from_bytes(whole[:3], "little")
    assert not servers.is_midway()
    servers.on_server_bytes(whole[:first])
    assert servers.is_midway() == (len(whole) > first)
    servers.on_server_bytes(whole[first:])
    assert not servers.is_midway()
    assert take_client(servers) == answer(parts, PLAIN)


def test_a_client_that_leaves_in_the_middle_of_an_answer() -> None:
    clients, servers = pair()
    attached(clients, servers, QUERY)
    data = answer(result(ROWS), MODERN)
    servers.on_server_bytes(data[:50])
    clients.detach()
    assert not servers.is_quiet()
    assert servers.on_server_bytes(data[50:]) == FORWARD
    assert servers.is_quiet()


@given(st.binary(max_size=200))
def test_junk_from_a_client(junk: bytes) -> None:
    clients, servers = pair()
    verdict = clients.on_client_bytes(junk)
    if verdict == NEEDS_SERVER:
        clients.attach(servers)
    assert clients.held_bytes() <= len(junk)


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=5))
def test_junk_in_packets_from_a_client(payloads: list[bytes]) -> None:
    clients, servers = pair()
    for payload in payloads:
        verdict = clients.on_client_bytes(sent(payload))
        if verdict & NEEDS_SERVER:
            clients.attach(servers)
        if verdict & CANCEL:
            clients.cancel_done(found=True)
        if verdict & CLOSE:
            break


@given(st.lists(st.binary(max_size=30), max_size=8), st.sampled_from([QUERY, b"\x16SELECT ?", b"\x04t\0", b"\x09"]))
def test_junk_from_a_server(payloads: list[bytes], command: bytes) -> None:
    clients, servers = pair()
    attached(clients, servers, command)
    with suppress(RemoteProtocolError):
        for number, payload in enumerate(payloads, 1):
            servers.on_server_bytes(wire.packet(number, payload))


@given(st.data(), st.sampled_from(DIALECTS), st.sampled_from(sorted(ANSWERS)))
def test_answers_in_any_pieces(data: st.DataObject, capabilities: tuple[int, int], name: str) -> None:
    command, parts = ANSWERS[name]
    clients, servers = pair(*capabilities)
    attached(clients, servers, command)
    left = answer(parts, capabilities[1])
    out = b""
    while left:
        size = data.draw(st.integers(1, len(left)))
        servers.on_server_bytes(left[:size])
        out += take_client(servers)
        left = left[size:]
    assert out == answer(parts, capabilities[0])


def test_a_server_connection_suits_a_client_whose_session_it_has() -> None:
    client, server = pair()
    assert client.suits(server)
    server.schema = "elsewhere"
    assert not client.suits(server)
    client.schema = "elsewhere"
    assert client.suits(server)
    server.settings = session_sql.UNKNOWN
    assert not client.suits(server)
