"""One table for every path of the relays: what goes in, what comes out. Each row is fed whole, cut at every byte, byte by byte, with junk
behind it."""

import pytest

from dualpool.postgres import session_sql, sql, wire
from dualpool.postgres.client_sending import CLOSE_UNNAMED, DO_NOTHING, FAIL
from dualpool.postgres.server_relay import NAMES_REFUSED, STALE
from dualpool.postgres.statements import STAND_IN_CLOSE
from dualpool.protocol import BROKEN, CLOSE, NEEDS_SERVER, RELEASE, SESSION, RelayLimits
from dualpool.state import settings
from tests.helpers.frames import (
    BOUND,
    CLOSED,
    COPY_DONE,
    COPY_IN,
    COPY_OUT,
    EMPTY,
    FLUSH,
    GOODBYE,
    NO_DATA,
    PARSED,
    READY,
    READY_E,
    READY_T,
    SUSPENDED,
    SYNC,
    bind,
    call,
    close,
    complete,
    copy_data,
    copy_fail,
    describe,
    description,
    error,
    execute,
    parameters,
    parse,
    query,
    row,
    status,
    warning,
)  # fmt: skip
from tests.helpers.relay_script import (
    Cutter,
    Line,
    OtherClient,
    OtherServer,
    Play,
    Row,
    Says,
    all_cuts,
    by_size,
    client,
    error_message,
    released,
    server,
    whole,
)  # fmt: skip


def prepares(number: int, sql: bytes, types: bytes = b"\0\0") -> bytes:
    """What prepares a text on a server, as the statement `number` that was ever prepared there."""
    name = b"dualpool_%d" % number
    return parse(name, sql, types) + describe(b"S", name)


def asks(data: bytes, to_server: bytes | None = None, to_client: bytes = b"") -> Says:
    """The client's first message of a lease."""
    return client(data, to_server, to_client, NEEDS_SERVER)


ONE = prepares(1, b"select 1")
NAME_ONE, NAME_TWO = b"dualpool_1", b"dualpool_2"
TOLD = parameters(0) + description(1)
NOT_ROWS = parameters(0) + NO_DATA

ROWS = row(b"1") + row(b"22") + row(b"1")
ANSWER = description(1) + ROWS + complete(b"SELECT 3")
PREPARED = parse(b"", b"select 1") + describe(b"S") + SYNC
RUN = bind(b"", b"") + execute() + SYNC
DESCRIBED_RUN = bind(b"", b"") + describe(b"P") + execute() + SYNC
RUN_A = bind(b"", b"a") + execute() + SYNC
RUN_ONE = bind(b"", NAME_ONE) + execute() + SYNC
RUN_TWO = bind(b"", NAME_TWO) + execute() + SYNC
RAN = BOUND + row(b"1") + complete(b"SELECT 1") + READY
CLOSE_ONE = close(b"S", NAME_ONE)
SYNTAX = error(b"42601", b"syntax error")
CANCELED = error(b"57014", b"canceling statement due to user request")
TABLE_COLUMN = wire.message(
    wire.ROW_DESCRIPTION, b"\0\1c\0" + b"\0\0\1\0\0\2" + b"\0\0\0\x19" + b"\xff\xff" + b"\xff\xff\xff\xff" + b"\0\0"
)
NOT_THERE = error(b"26000", b'prepared statement "x" does not exist')
NONE_THERE = error(b"26000", b'prepared statement "dualpool_none" does not exist')


def idles(text: bytes) -> tuple[Line, ...]:
    """A simple query in a lease of its own."""
    return asks(query(text)), released(complete(text.split()[0].upper()) + READY)


WORK_MEM = b"SET work_mem = '8MB'"
BIG = b"x" * 70_000
SMALL_FRAMES = RelayLimits(frame_bytes=1000, statement_bytes=1000)
IN_SESSION = RelayLimits(mode=SESSION)
UNREAD = sql.EVERYTHING

SIMPLE = [
    Row("a query", (asks(query(b"select 1")), released(ANSWER + READY))),
    Row("no rows, an empty query", (asks(query(b"")), released(EMPTY + READY))),
    Row("an error", (asks(query(b"select")), released(SYNTAX + READY))),
    Row("a transaction keeps its server", (
        asks(query(b"begin")), server(complete(b"BEGIN") + READY_T),
        client(query(b"select 1")), server(SYNTAX + READY_E), client(query(b"rollback")), released(complete(b"ROLLBACK") + READY),
    )),
    Row("two queries at once: the lease ends after the second", (
        asks(query(b"select 1") + query(b"select 2")), server(ANSWER + READY), released(ANSWER + READY),
    )),
    Row("a notice, a notification and a warning pass", (
        asks(query(b"select 1")), released(warning(b"w") + wire.message(wire.NOTIFICATION, b"\0\0\0\1c\0p\0") + ANSWER + READY),
    )),
    Row("Sync alone is answered without a server", (client(SYNC, b"", READY),)),
    Row("Sync, then a query", (asks(SYNC + query(b"select 1"), query(b"select 1"), READY), released(ANSWER + READY))),
    Row("Flush alone needs no server", (client(FLUSH + FLUSH, b""),)),
    Row("a function call", (asks(call()), released(wire.message(wire.FUNCTION_RESULT, b"\xff\xff\xff\xff") + READY))),
    Row("goodbye without a lease", (client(GOODBYE, b"", verdict=CLOSE),)),
    Row("goodbye in a transaction", (
        asks(query(b"begin")), server(complete(b"BEGIN") + READY_T), client(GOODBYE, b"", verdict=CLOSE),
    )),
    Row("a query and goodbye: the query is sent", (client(query(b"show x") + GOODBYE, query(b"show x"), verdict=NEEDS_SERVER | CLOSE),)),
    Row("the server's last words", (
        asks(query(b"show x")), server(error(b"57P01", b"terminating", b"FATAL"), verdict=BROKEN),
    )),
    Row("a message that is unknown to the relay but short of a query's length", (asks(query(b";")), released(complete(b"X") + READY))),
]  # fmt: skip

EXTENDED = [
    Row("unnamed", (asks(PREPARED), released(PARSED + parameters(0) + description(1) + READY))),
    Row("unnamed, in one go", (asks(parse(b"", b"select 1") + RUN), released(PARSED + RAN))),
    Row("unnamed, with Flush in the middle", (
        asks(parse(b"", b"select 1") + describe(b"S") + FLUSH), server(PARSED + parameters(0) + description(1)), client(RUN), released(RAN),
    )),
    Row("unnamed again on the same server", (
        asks(PREPARED), released(PARSED + parameters(0) + description(1) + READY), asks(RUN), released(RAN),
    )),
    Row("unnamed again on another server", (
        asks(PREPARED), released(PARSED + TOLD + READY), OtherServer(),
        asks(RUN, parse(b"", b"select 1") + describe(b"S") + FLUSH), server(PARSED + TOLD, b"", to_server=RUN), released(RAN),
    )),
    Row("unnamed again on another server, of which the client was not told", (
        asks(parse(b"", b"select 1") + SYNC), released(PARSED + READY), OtherServer(),
        asks(RUN, parse(b"", b"select 1") + RUN), released(PARSED + RAN, RAN),
    )),
    Row("unnamed again on another server, where it has other columns now", (
        asks(PREPARED), released(PARSED + TOLD + READY), OtherServer(),
        asks(RUN, parse(b"", b"select 1") + describe(b"S") + FLUSH),
        server(PARSED + parameters(0) + description(2), b"", to_server=bind(b"", b"dualpool_none") + execute() + SYNC),
        released(NONE_THERE + READY, STALE + READY),
        asks(RUN, parse(b"", b"select 1") + describe(b"S") + FLUSH), server(PARSED + TOLD, b"", to_server=RUN), released(RAN),
    )),
    Row("and the client asks for them once more", (
        asks(PREPARED), released(PARSED + TOLD + READY), OtherServer(),
        asks(DESCRIBED_RUN, parse(b"", b"select 1") + describe(b"S") + DESCRIBED_RUN),
        released(
            PARSED + parameters(0) + description(2) + BOUND + description(2) + complete(b"SELECT 0") + READY,
            BOUND + description(2) + complete(b"SELECT 0") + READY,
        ),
    ), pieces=False),
    Row("unnamed described on another server", (
        asks(parse(b"", b"select 1") + SYNC), released(PARSED + READY), OtherServer(),
        asks(describe(b"S") + SYNC, parse(b"", b"select 1") + describe(b"S") + SYNC),
        released(PARSED + parameters(0) + description(1) + READY, parameters(0) + description(1) + READY),
    )),
    Row("unnamed again after another client's", (
        asks(PREPARED), released(PARSED + parameters(0) + description(1) + READY),
        OtherClient((asks(parse(b"", b"select 2") + RUN), released(PARSED + RAN))),
        asks(RUN, parse(b"", b"select 1") + describe(b"S") + FLUSH), server(PARSED + TOLD, b"", to_server=RUN), released(RAN),
    )),
    Row("another client's unnamed statement is out of reach", (
        OtherClient((asks(parse(b"", b"select 2") + RUN), released(PARSED + RAN))),
        asks(RUN, CLOSE_UNNAMED + RUN), released(CLOSED + NOT_THERE + READY, NOT_THERE + READY),
        asks(describe(b"S") + SYNC), released(NOT_THERE + READY),
    )),
    Row("another client's, skipped by our error, is still out of reach", (
        OtherClient((asks(parse(b"", b"select 2") + RUN), released(PARSED + RAN))),
        asks(bind(b"", b"x") + parse(b"", b"select 1") + SYNC), released(NOT_THERE + READY),
        asks(RUN, CLOSE_UNNAMED + RUN), released(CLOSED + NOT_THERE + READY, NOT_THERE + READY),
    )),
    Row("a simple query ends the unnamed statement", (
        asks(PREPARED), released(PARSED + parameters(0) + description(1) + READY), *idles(b"select 1"),
        asks(RUN), released(NOT_THERE + READY),
    )),
    Row("the unnamed statement is closed", (
        asks(parse(b"", b"select 1") + close(b"S") + SYNC), released(PARSED + CLOSED + READY), asks(RUN), released(NOT_THERE + READY),
    )),
    Row("a portal in parts, described and closed", (
        asks(query(b"begin")), server(complete(b"BEGIN") + READY_T),
        client(parse(b"", b"select 1") + bind(b"p", b"") + describe(b"P", b"p") + execute(b"p", 1) + SYNC),
        server(PARSED + BOUND + description(1) + row(b"1") + SUSPENDED + READY_T),
        client(execute(b"p", 1) + close(b"P", b"p") + SYNC), server(row(b"2") + SUSPENDED + CLOSED + READY_T),
        client(query(b"commit")), released(complete(b"COMMIT") + READY),
    )),
    Row("segments without waiting", (
        asks(parse(b"", b"select 1") + RUN + parse(b"", b"select 2") + RUN), server(PARSED + RAN), released(PARSED + RAN),
    )),
    Row("an error ends the segment and not the next", (
        asks(parse(b"", b"show x") + RUN + parse(b"", b"select 2") + RUN), server(SYNTAX + READY), released(PARSED + RAN),
    )),
    Row("no Sync, no release", (
        asks(parse(b"", b"select 1") + bind(b"", b"") + execute() + FLUSH), server(PARSED + BOUND + complete(b"X")),
    )),
]  # fmt: skip

A_ONE = asks(parse(b"a", b"select 1") + SYNC, ONE + SYNC)
A_PREPARED = (A_ONE, released(PARSED + TOLD + READY, PARSED + READY))
FIRST_AGAIN = (asks(RUN_A, ONE + FLUSH), server(PARSED + TOLD, b"", to_server=RUN_ONE), released(RAN))
OTHER_ONE = OtherClient((asks(parse(b"s", b"select 1") + SYNC, ONE + SYNC), released(PARSED + TOLD + READY, PARSED + READY)))
FAIL_A = bind(b"", b"dualpool_none") + execute() + SYNC
NAMED = [
    Row("prepared and run", (*A_PREPARED, asks(RUN_A, RUN_ONE), released(RAN))),
    Row("in one go", (asks(parse(b"a", b"select 1") + RUN_A, ONE + RUN_ONE), released(PARSED + TOLD + RAN, PARSED + RAN))),
    Row("described", (
        *A_PREPARED, asks(describe(b"S", b"a") + SYNC, describe(b"S", NAME_ONE) + SYNC), released(TOLD + READY),
    )),
    Row("run and described on another server", (
        *A_PREPARED, OtherServer(), *FIRST_AGAIN, OtherServer(),
        asks(describe(b"S", b"a") + SYNC, ONE + FLUSH), server(PARSED + TOLD, b"", to_server=describe(b"S", NAME_ONE) + SYNC),
        released(TOLD + READY),
    )),
    Row("on another server it has other columns now: the client is told, each time", (
        *A_PREPARED, OtherServer(),
        asks(RUN_A, ONE + FLUSH), server(PARSED + parameters(0) + description(2), b"", to_server=FAIL_A),
        released(NONE_THERE + READY, STALE + READY),
        asks(RUN_A, prepares(2, b"select 1") + FLUSH), server(PARSED + parameters(0) + description(2), b"", to_server=FAIL_A),
        released(NONE_THERE + READY, STALE + READY),
        asks(describe(b"S", b"a") + SYNC, CLOSE_ONE + prepares(3, b"select 1") + FLUSH),
        server(CLOSED + PARSED + parameters(0) + description(2), b"", to_server=describe(b"S", b"dualpool_none") + SYNC),
        released(NONE_THERE + READY, parameters(0) + STALE + READY),
        asks(RUN_A, close(b"S", NAME_TWO) + prepares(4, b"select 1") + FLUSH),
        server(CLOSED + PARSED + TOLD, b"", to_server=bind(b"", b"dualpool_4") + execute() + SYNC), released(RAN),
    )),
    Row("other columns, and the client asks for them in this very segment", (
        *A_PREPARED, OtherServer(),
        asks(bind(b"", b"a") + describe(b"P") + execute() + SYNC, ONE + bind(b"", NAME_ONE) + describe(b"P") + execute() + SYNC),
        released(
            PARSED + parameters(0) + description(2) + BOUND + description(2) + complete(b"SELECT 0") + READY,
            BOUND + description(2) + complete(b"SELECT 0") + READY,
        ),
        asks(RUN_A, RUN_ONE), released(RAN),
    ), pieces=False),
    Row("it is there no more: the client gets the server's words, and the rest of the segment is skipped", (
        *A_PREPARED, OtherServer(), asks(RUN_A, ONE + FLUSH), server(SYNTAX, to_server=FAIL_A), released(READY),
    )),
    Row("prepared elsewhere with the parameter types that the client was told", (
        asks(parse(b"a", b"select $1") + SYNC, prepares(1, b"select $1") + SYNC),
        released(PARSED + parameters(1) + description(1) + READY, PARSED + READY), OtherServer(),
        asks(RUN_A, prepares(1, b"select $1", b"\0\1\0\0\0\x19") + FLUSH),
        server(PARSED + parameters(1) + description(1), b"", to_server=RUN_ONE), released(RAN),
    )),
    Row("columns are compared by name, type and modifier, and not by their table", (
        asks(parse(b"a", b"select 1") + SYNC, ONE + SYNC), released(PARSED + TOLD + READY, PARSED + READY), OtherServer(),
        asks(RUN_A, ONE + FLUSH),
        server(PARSED + parameters(0) + TABLE_COLUMN, b"", to_server=RUN_ONE), released(RAN),
    )),
    Row("FETCH has the columns of its cursor, which are never compared", (
        asks(parse(b"a", b"fetch c") + SYNC, prepares(1, b"fetch c") + SYNC), released(PARSED + TOLD + READY, PARSED + READY),
        OtherServer(),
        asks(RUN_A, prepares(1, b"fetch c") + FLUSH), server(PARSED + NOT_ROWS, b"", to_server=RUN_ONE), released(RAN),
    )),
    Row("its description fails: it is prepared, but its shape is not known", (
        A_ONE, released(PARSED + CANCELED + READY), asks(RUN_A, RUN_ONE), released(RAN), OtherServer(),
        asks(RUN_A, ONE + RUN_ONE), released(PARSED + TOLD + RAN, RAN), OtherServer(), *FIRST_AGAIN,
    )),
    Row("its columns fail", (
        A_ONE, released(PARSED + parameters(0) + CANCELED + READY, PARSED + CANCELED + READY), asks(RUN_A, RUN_ONE), released(RAN),
        asks(describe(b"S", b"a") + SYNC, describe(b"S", NAME_ONE) + SYNC), released(TOLD + READY), OtherServer(), *FIRST_AGAIN,
    )),
    Row("a text that the server has already is prepared again, and the older one is closed with the next", (
        OTHER_ONE,
        asks(parse(b"a", b"select 1") + RUN_A, prepares(2, b"select 1") + RUN_TWO), released(PARSED + TOLD + RAN, PARSED + RAN),
        asks(parse(b"b", b"select 2") + SYNC, CLOSE_ONE + prepares(3, b"select 2") + SYNC),
        released(CLOSED + PARSED + TOLD + READY, PARSED + READY), asks(RUN_A, RUN_TWO), released(RAN),
    )),
    Row("clients that were told different shapes", (
        *A_PREPARED,
        OtherClient((
            asks(parse(b"a", b"select 1") + SYNC, prepares(2, b"select 1") + SYNC),
            released(PARSED + parameters(0) + description(2) + READY, PARSED + READY), asks(RUN_A, RUN_TWO), released(RAN),
        )),
        asks(RUN_A, RUN_ONE), released(RAN),
    )),
    Row("a name that the client has already: 42P05 with the client's name", (
        *A_PREPARED,
        asks(parse(b"a", b"select 2") + SYNC, parse(NAME_ONE, b"select 2") + SYNC),
        released(
            error(b"42P05", b'prepared statement "%s" already exists' % NAME_ONE) + READY,
            error(b"42P05", b'prepared statement "a" already exists') + READY,
        ),
        asks(RUN_A, RUN_ONE), released(RAN),
    )),
    Row("that name on a server that has not seen it", (
        *A_PREPARED, OtherServer(), asks(parse(b"a", b"select 2") + SYNC, ONE + FLUSH),
        server(PARSED + TOLD, b"", to_server=parse(NAME_ONE, b"select 2") + SYNC),
        released(
            error(b"42P05", b'prepared statement "%s" already exists' % NAME_ONE) + READY,
            error(b"42P05", b'prepared statement "a" already exists') + READY,
        ),
    )),
    Row("that name where it has other columns now", (
        *A_PREPARED, OtherServer(), asks(parse(b"a", b"select 2") + SYNC, ONE + FLUSH),
        server(PARSED + NOT_ROWS, b"", to_server=parse(NAME_ONE, b"select 2") + SYNC),
        released(
            error(b"42P05", b'prepared statement "%s" already exists' % NAME_ONE) + READY,
            error(b"42P05", b'prepared statement "a" already exists') + READY,
        ),
    )),
    Row("a name that does not exist", (asks(bind(b"", b"x") + execute() + SYNC), released(NOT_THERE + READY))),
    Row("a name like ours that the client has not made", (
        asks(bind(b"", NAME_ONE) + SYNC, bind(b"", b"dualpool_none") + SYNC), released(NOT_THERE + READY),
        asks(describe(b"S", NAME_ONE) + SYNC, describe(b"S", b"dualpool_none") + SYNC), released(NOT_THERE + READY),
    )),
    Row("closed: gone for the client, not for the server", (
        *A_PREPARED, asks(close(b"S", b"a") + SYNC, STAND_IN_CLOSE + SYNC), released(CLOSED + READY),
        asks(RUN_A), released(NOT_THERE + READY),
        asks(parse(b"a", b"select 1") + SYNC, prepares(2, b"select 1") + SYNC), released(PARSED + TOLD + READY, PARSED + READY),
        asks(RUN_A, RUN_TWO), released(RAN),
    )),
    Row("closed without having existed", (asks(close(b"S", b"x") + SYNC, STAND_IN_CLOSE + SYNC), released(CLOSED + READY))),
    Row("a text that the server refuses is not prepared", (
        A_ONE, released(SYNTAX + READY), asks(RUN_A), released(NOT_THERE + READY),
        asks(parse(b"a", b"select 1") + SYNC, prepares(2, b"select 1") + SYNC), released(PARSED + TOLD + READY, PARSED + READY),
    )),
    Row("an error before it: not prepared", (
        asks(bind(b"", b"x") + parse(b"a", b"select 1") + SYNC, bind(b"", b"x") + ONE + SYNC), released(NOT_THERE + READY),
        asks(RUN_A), released(NOT_THERE + READY),
    )),
    Row("an error before a Close: not closed", (
        *A_PREPARED,
        asks(bind(b"", b"x") + close(b"S", b"a") + SYNC, bind(b"", b"x") + STAND_IN_CLOSE + SYNC), released(NOT_THERE + READY),
        asks(RUN_A, RUN_ONE), released(RAN),
    )),
    Row("steps that an error skips are undone from the last to the first", (
        *A_PREPARED,
        asks(
            bind(b"", b"x") + close(b"S", b"a") + parse(b"a", b"select 1") + SYNC,
            bind(b"", b"x") + STAND_IN_CLOSE + prepares(2, b"select 1") + SYNC,
        ),
        released(NOT_THERE + READY), asks(RUN_A, RUN_ONE), released(RAN),
    )),
    Row("sent after the error has come", (
        asks(bind(b"", b"x") + FLUSH), server(NOT_THERE), client(parse(b"a", b"select 1") + SYNC, ONE + SYNC), released(READY),
        asks(RUN_A), released(NOT_THERE + READY),
    )),
    Row("a statement that is not there, sent after the error has come", (
        *A_PREPARED, OtherServer(), asks(bind(b"", b"x") + FLUSH), server(NOT_THERE), client(RUN_A, FAIL_A), released(READY),
        *FIRST_AGAIN,
    )),
    Row("a question of ours that an error skips: the next segment asks again", (
        *A_PREPARED, OtherServer(),
        asks(bind(b"", b"x") + RUN_A + RUN_A, bind(b"", b"x") + wire.message(wire.CLOSE, b"Sdualpool_none\0") + ONE + FLUSH),
        server(NOT_THERE, to_server=FAIL_A + prepares(2, b"select 1") + FLUSH), server(READY),
        server(PARSED + TOLD, b"", to_server=RUN_TWO), released(RAN),
        asks(RUN_A, RUN_TWO), released(RAN),
    )),
    Row("a Parse of ours that succeeded is not repeated in its segment", (
        *A_PREPARED, OtherServer(),
        asks(bind(b"", b"a") + execute() + RUN_A, ONE + FLUSH),
        server(PARSED + TOLD, b"", to_server=bind(b"", NAME_ONE) + execute() + RUN_ONE),
        released(BOUND + complete(b"X") + RAN),
    )),
    Row("what the client sends meanwhile waits its turn", (
        *A_PREPARED, OtherServer(), asks(RUN_A, ONE + FLUSH), client(query(b"select 2"), b""),
        server(PARSED + TOLD, b"", to_server=RUN_ONE + query(b"select 2")), server(RAN), released(ANSWER + READY),
    )),
    Row("the least recently used goes", (
        *A_PREPARED, asks(parse(b"b", b"select 2") + SYNC, CLOSE_ONE + prepares(2, b"select 2") + SYNC),
        released(CLOSED + PARSED + TOLD + READY, PARSED + READY),
        asks(RUN_A, prepares(3, b"select 1") + FLUSH),
        server(PARSED + TOLD, b"", to_server=bind(b"", b"dualpool_3") + execute() + SYNC), released(RAN),
        asks(parse(b"c", b"select 3") + SYNC, close(b"S", NAME_TWO) + close(b"S", b"dualpool_3") + prepares(4, b"select 3") + SYNC),
        released(CLOSED + CLOSED + PARSED + TOLD + READY, PARSED + READY),
    ), RelayLimits(statements_per_server=1)),
    Row("an eviction that an error skips", (
        *A_PREPARED,
        asks(bind(b"", b"x") + parse(b"b", b"select 2") + SYNC, bind(b"", b"x") + CLOSE_ONE + prepares(2, b"select 2") + SYNC),
        released(NOT_THERE + READY),
        asks(RUN_A, RUN_ONE), released(RAN),
    ), RelayLimits(statements_per_server=1)),
    Row("names in errors are the client's", (
        *A_PREPARED, asks(RUN_A, RUN_ONE),
        released(
            error(b"08P01", b'bind message supplies 0 parameters, but prepared statement "%s" requires 1' % NAME_ONE) + READY,
            error(b"08P01", b'bind message supplies 0 parameters, but prepared statement "a" requires 1') + READY,
        ),
    )),
]  # fmt: skip

UNLISTEN = query(DO_NOTHING)
DEALLOCATED = complete(b"DEALLOCATE")
UNLISTENED = complete(b"UNLISTEN")
EXPLAIN = query(b"explain execute a")
LOOK = query(b"table pg_prepared_statements")
AS_A = parse(b"a", b"select 1")
CLOSE_A = close(b"S", b"a") + SYNC
NOT_A = error(b"26000", b'prepared statement "a" does not exist')
ASK_A = AS_A + describe(b"S", b"a") + FLUSH
IN_BETWEEN = SYNC + EXPLAIN + CLOSE_A
OWN_NAMES = [
    Row("SQL means a statement of the protocol: it is there under its own name", (
        *A_PREPARED, asks(EXPLAIN, ASK_A), server(PARSED + TOLD, b"", to_server=IN_BETWEEN),
        released(READY + ANSWER + READY + CLOSED + READY, ANSWER + READY), asks(RUN_A, RUN_ONE), released(RAN),
    )),
    Row("what it means has other columns now", (
        *A_PREPARED, asks(EXPLAIN, ASK_A),
        server(PARSED + parameters(0) + description(2), b"", to_server=SYNC + close(b"S", b"a") + EXPLAIN + CLOSE_A),
        released(READY + CLOSED + NOT_A + READY + CLOSED + READY, STALE + READY), asks(RUN_A, RUN_ONE), released(RAN),
    )),
    Row("what it means is not there any more", (
        *A_PREPARED, asks(EXPLAIN, ASK_A), server(SYNTAX, b"", to_server=IN_BETWEEN),
        released(READY + NOT_A + READY + CLOSED + READY, SYNTAX + READY), *idles(b"select 1"),
    )),
    Row("what it means is not there, but the query does not need it", (
        *A_PREPARED, asks(EXPLAIN, ASK_A), server(SYNTAX, b"", to_server=IN_BETWEEN),
        released(READY + ANSWER + READY + CLOSED + READY, ANSWER + READY),
        asks(RUN_A, RUN_ONE), released(RAN),
    )),
    Row("a name that the client has not given", (*A_PREPARED, asks(query(b"explain execute b")), released(NOT_THERE + READY))),
    Row("behind a Parse without Sync", (
        *A_PREPARED, asks(parse(b"", b"select 2") + EXPLAIN, parse(b"", b"select 2") + SYNC + ASK_A),
        server(PARSED + READY + PARSED + TOLD, PARSED, to_server=IN_BETWEEN),
        released(READY + ANSWER + READY + CLOSED + READY, ANSWER + READY),
    ), pieces=False),
    Row("behind an Execute without Sync it is refused", (
        *A_PREPARED,
        asks(RUN_A[: -len(SYNC)] + EXPLAIN + SYNC, RUN_ONE[: -len(SYNC)] + STAND_IN_CLOSE + query(FAIL) + SYNC),
        server(
            RAN[: -len(READY)] + CLOSED + NONE_THERE + READY,
            RAN[: -len(READY)] + error_message(NAMES_REFUSED) + READY,
        ),
        released(READY),
    )),
    Row("by the protocol, up to the Sync", (
        *A_PREPARED,
        asks(parse(b"", b"explain execute a") + RUN, ASK_A),
        server(PARSED + TOLD, b"", to_server=parse(b"", b"explain execute a") + RUN + CLOSE_A),
        released(PARSED + RAN + CLOSED + READY, PARSED + RAN),
    )),
    Row("by the protocol without Sync, and then another one by a query", (
        *A_PREPARED, asks(parse(b"b", b"select 2") + SYNC, prepares(2, b"select 2") + SYNC),
        released(PARSED + TOLD + READY, PARSED + READY),
        asks(parse(b"", b"explain execute b") + EXPLAIN, parse(b"b", b"select 2") + describe(b"S", b"b") + FLUSH),
        server(PARSED + TOLD, b"", to_server=parse(b"", b"explain execute b") + SYNC + ASK_A),
        server(PARSED + READY + PARSED + TOLD, PARSED, to_server=SYNC + EXPLAIN + close(b"S", b"b") + CLOSE_A),
        released(READY + ANSWER + READY + CLOSED + CLOSED + READY, ANSWER + READY),
    ), pieces=False),
    Row("by the protocol, and it has other columns now", (
        *A_PREPARED,
        asks(parse(b"", b"explain execute a") + RUN, ASK_A),
        server(PARSED + parameters(0) + description(2), b"", to_server=parse(b"", b"explain execute a") + FAIL_A + CLOSE_A),
        released(PARSED + NONE_THERE + READY + CLOSED + READY, PARSED + STALE + READY),
    )),
    Row("others' statements are closed before a look at all, and prepared again afterwards", (
        OTHER_ONE, asks(LOOK, CLOSE_ONE + LOOK), released(CLOSED + ANSWER + READY, ANSWER + READY),
    )),
    Row("DEALLOCATE of one that is called as the view", (
        OTHER_ONE, asks(parse(b"pg_prepared_statements", b"select 2") + SYNC, prepares(2, b"select 2") + SYNC),
        released(PARSED + TOLD + READY, PARSED + READY),
        asks(query(b"deallocate pg_prepared_statements"), CLOSE_ONE + close(b"S", NAME_TWO) + UNLISTEN),
        released(CLOSED + CLOSED + UNLISTENED + READY, DEALLOCATED + READY),
    )),
    Row("with its own beside them", (
        *A_PREPARED, asks(LOOK, CLOSE_ONE + AS_A + SYNC + LOOK + CLOSE_A),
        released(CLOSED + PARSED + READY + ANSWER + READY + CLOSED + READY, ANSWER + READY),
        asks(RUN_A, prepares(2, b"select 1") + FLUSH), server(PARSED + TOLD, b"", to_server=RUN_TWO), released(RAN),
    )),
]  # fmt: skip

GONE = (asks(RUN_A), released(NOT_THERE + READY))
DEALLOCATE = [
    Row("a name of the protocol, by SQL", (
        *A_PREPARED, asks(query(b"deallocate a"), UNLISTEN), released(UNLISTENED + READY, DEALLOCATED + READY), *GONE,
    )),
    Row("quoted, with PREPARE and a semicolon", (
        asks(parse(b"A b", b"select 1") + SYNC, ONE + SYNC), released(PARSED + TOLD + READY, PARSED + READY),
        asks(query(b' DEALLOCATE PREPARE "A b" ; '), UNLISTEN), released(UNLISTENED + READY, DEALLOCATED + READY),
    )),
    Row("by an unnamed statement", (
        *A_PREPARED,
        asks(parse(b"", b"deallocate a") + RUN, parse(b"", b"deallocate a") + parse(NAME_TWO, DO_NOTHING) + RUN_TWO),
        released(PARSED + PARSED + BOUND + UNLISTENED + READY, PARSED + BOUND + DEALLOCATED + READY), *GONE,
    ), pieces=False),
    Row("by a named statement", (
        *A_PREPARED,
        asks(parse(b"d", b"deallocate a") + SYNC, prepares(2, b"deallocate a") + SYNC),
        released(PARSED + NOT_ROWS + READY, PARSED + READY),
        asks(bind(b"", b"d") + execute() + SYNC, parse(b"dualpool_3", DO_NOTHING) + bind(b"", b"dualpool_3") + execute() + SYNC),
        released(PARSED + BOUND + UNLISTENED + READY, BOUND + DEALLOCATED + READY), *GONE,
    )),
    Row("in a failed transaction it fails, and the name stays", (
        *A_PREPARED, asks(query(b"begin")), server(complete(b"BEGIN") + READY_T), client(query(b"show x")),
        server(SYNTAX + READY_E), client(query(b"deallocate a"), UNLISTEN), server(error(b"25P02", b"aborted") + READY_E),
        client(query(b"rollback")), released(complete(b"ROLLBACK") + READY), asks(RUN_A, RUN_ONE), released(RAN),
    )),
    Row("a name that is not the protocol's goes to the server", (asks(query(b"deallocate z")), released(NOT_THERE + READY))),
    Row("the client's own UNLISTEN", (asks(query(b"unlisten x")), released(UNLISTENED + READY))),
    Row("DEALLOCATE ALL: all names are gone, and everything is prepared anew", (
        *A_PREPARED, asks(query(b"deallocate all")), released(complete(b"DEALLOCATE ALL") + READY), *GONE,
        asks(parse(b"a", b"select 1") + SYNC, prepares(2, b"select 1") + SYNC), released(PARSED + TOLD + READY, PARSED + READY),
    )),
    Row("DISCARD ALL: names and settings are gone", (
        *A_PREPARED, asks(query(WORK_MEM)), released(complete(b"SET") + READY),
        asks(query(b"discard all")), released(complete(b"DISCARD ALL") + READY), *GONE, OtherServer(), *idles(b"select 1"),
    )),
]  # fmt: skip


def set_by(text: bytes, tag: bytes = b"SET") -> tuple[Line, ...]:
    return asks(query(text)), released(complete(tag) + READY)


def difference(*values: tuple[str, str | None]) -> bytes:
    """What brings a session to a client's settings."""
    calls = session_sql.set_all(values)
    return query("; ".join(("BEGIN ISOLATION LEVEL READ COMMITTED", *calls, "COMMIT")).encode())


def doubted(
    data: bytes, kinds: int, to_client: bytes | None = None, names: tuple[str, ...] = (), rows: tuple[tuple[bytes, bytes], ...] = ()
) -> tuple[Line, ...]:
    """The server's answer is there, and before the lease is over it is asked what the session holds: these settings, and nothing else."""
    asked = query(session_sql.probe(kinds, names).encode())
    told = b"".join(row(name, value.hex().encode()) for name, value in rows)
    answer = description(2) + row(b"", b"") + told + complete(b"SELECT 1") + READY
    return server(data, to_client, to_server=asked), released(answer, b"")


SET_WORK_MEM = ("work_mem", "8MB")
# What a lease on another server begins with, if work_mem was set.
KNOWN = (
    OtherServer(),
    asks(query(b"show x"), difference(SET_WORK_MEM) + query(b"show x")),
    released(complete(b"SET") + READY + SYNTAX + READY, SYNTAX + READY),
)
NOT_KNOWN = (OtherServer(), *idles(b"select 1"))
BEGIN = (asks(query(b"begin")), server(complete(b"BEGIN") + READY_T))
SET_IN_IT = (client(query(WORK_MEM)), server(complete(b"SET") + READY_T))
COMMIT = (client(query(b"commit")), released(complete(b"COMMIT") + READY))
ROLLBACK = (client(query(b"rollback")), released(complete(b"ROLLBACK") + READY))


def in_it(text: bytes, tag: bytes, ready: bytes = READY_T) -> tuple[Line, ...]:
    return client(query(text)), server(complete(tag) + ready)


SETTINGS = [
    Row("SET is repeated on another server", (*set_by(WORK_MEM), *KNOWN)),
    Row("and is not on the same", (*set_by(WORK_MEM), *idles(b"select 1"))),
    Row("and is taken back for another client", (
        *set_by(WORK_MEM),
        OtherClient((
            asks(query(b"show x"), difference(("work_mem", None)) + query(b"show x")),
            released(complete(b"RESET") + READY + SYNTAX + READY, SYNTAX + READY),
        )),
    )),
    Row("RESET", (*set_by(WORK_MEM), *set_by(b"reset work_mem", b"RESET"), *NOT_KNOWN)),
    Row("RESET ALL", (*set_by(WORK_MEM), *set_by(b"reset all", b"RESET"), *NOT_KNOWN)),
    Row("SET that failed", (asks(query(WORK_MEM)), released(SYNTAX + READY), *NOT_KNOWN)),
    Row("SET LOCAL", (asks(query(b"set local work_mem = 1")), released(complete(b"SET") + READY), *NOT_KNOWN)),
    Row("in a transaction", (*BEGIN, *SET_IN_IT, *COMMIT, *KNOWN)),
    Row("in one that is rolled back", (*BEGIN, *SET_IN_IT, *ROLLBACK, *NOT_KNOWN)),
    Row("in one that failed and is committed", (
        *BEGIN, *SET_IN_IT, client(query(b"show x")), server(SYNTAX + READY_E), client(query(b"commit")),
        released(complete(b"ROLLBACK") + READY), *NOT_KNOWN,
    )),
    Row("before a savepoint that is rolled back to", (
        *BEGIN, *SET_IN_IT, *in_it(b"savepoint s", b"SAVEPOINT"), *in_it(b"set app.x = 1", b"SET"), *in_it(b"rollback to s", b"ROLLBACK"),
        *COMMIT, OtherServer(), asks(query(b"show x"), difference(SET_WORK_MEM, ("app.x", None)) + query(b"show x")),
        released(complete(b"SET") + READY + SYNTAX + READY, SYNTAX + READY),
    )),
    Row("after one", (
        *BEGIN, *in_it(b"savepoint s", b"SAVEPOINT"), *SET_IN_IT, *in_it(b'rollback to savepoint "s"', b"ROLLBACK"), *COMMIT, *NOT_KNOWN,
    )),
    Row("the inner of two savepoints of one name is released", (
        *BEGIN, *in_it(b"savepoint s", b"SAVEPOINT"), *SET_IN_IT, *in_it(b"savepoint s", b"SAVEPOINT"), *in_it(b"release s", b"RELEASE"),
        *in_it(b"rollback to s", b"ROLLBACK"), *COMMIT, *NOT_KNOWN,
    )),
    Row("several in one query", (
        asks(query(b"select 1; begin; " + WORK_MEM + b"; commit")),
        released(complete(b"SELECT 0") + complete(b"BEGIN") + complete(b"SET") + complete(b"COMMIT") + READY), *KNOWN,
    )),
    Row("several, the last one failing: all undone", (
        asks(query(WORK_MEM + b"; show x")), released(complete(b"SET") + SYNTAX + READY), *NOT_KNOWN,
    )),
    Row("several, committed before the failure", (
        asks(query(WORK_MEM + b"; commit; show x")), released(complete(b"SET") + complete(b"COMMIT") + SYNTAX + READY), *KNOWN,
    )),
    Row("behind statements whose tags mean nothing", (
        asks(query(b"discard plans; set constraints all deferred; prepare p as select 1; " + WORK_MEM)),
        *doubted(complete(b"DISCARD PLANS") + complete(b"SET CONSTRAINTS") + complete(b"PREPARE") + complete(b"SET") + READY, sql.PREPARED),
        *KNOWN,
    )),
    Row("extended, unnamed", (
        asks(parse(b"", WORK_MEM) + RUN), released(PARSED + BOUND + complete(b"SET") + READY), *KNOWN,
    )),
    Row("extended, named", (
        asks(parse(b"a", WORK_MEM) + RUN_A, prepares(1, WORK_MEM) + RUN_ONE),
        released(PARSED + NOT_ROWS + BOUND + complete(b"SET") + READY, PARSED + BOUND + complete(b"SET") + READY), OtherServer(),
        asks(query(b"show x"), difference(SET_WORK_MEM) + query(b"show x")),
        released(complete(b"SET") + READY + SYNTAX + READY, SYNTAX + READY),
    )),
    Row("extended, behind a COMMIT and a DISCARD PLANS without waiting", (
        asks(parse(b"", b"commit") + bind(b"", b"") + execute() + parse(b"", b"discard plans") + bind(b"", b"") + execute()
             + parse(b"", WORK_MEM) + RUN),
        released(PARSED + BOUND + complete(b"COMMIT") + PARSED + BOUND + complete(b"DISCARD PLANS") + PARSED + BOUND + complete(b"SET")
                 + READY),
        *KNOWN,
    )),
    Row("extended, undone by an error in its segment", (
        asks(parse(b"", WORK_MEM) + bind(b"", b"") + execute() + parse(b"", b"show x") + RUN),
        released(PARSED + BOUND + complete(b"SET") + SYNTAX + READY), *NOT_KNOWN,
    )),
    Row("a reported setting is replayed as it was reported", (
        asks(query(b"set time zone a")), released(complete(b"SET") + status(b"TimeZone", b"A") + READY), OtherServer(),
        asks(query(b"show x"), difference(("timezone", "A")) + query(b"show x")),
        released(ANSWER + status(b"TimeZone", b"A") + READY + SYNTAX + READY, SYNTAX + READY),
    )),
    Row("a reported setting that is back at its default", (
        asks(query(b"set timezone to a")), released(complete(b"SET") + status(b"TimeZone", b"A") + READY),
        asks(query(b"set timezone to 'utc'")), released(complete(b"SET") + status(b"TimeZone", b"UTC") + READY), *NOT_KNOWN,
    )),
    Row("a setting in a text that is not ASCII", (
        asks(query("set app.x = 'żółw'".encode())),
        *doubted(complete(b"SET") + READY, sql.SETTINGS, names=("app.x",), rows=((b"app.x", "żółw".encode()),)), OtherServer(),
        asks(query(b"show x"), difference(("app.x", "żółw")) + query(b"show x")),
        released(complete(b"SET") + READY + SYNTAX + READY, SYNTAX + READY),
    )),
    Row("a reported value that is not ASCII", (
        asks(query(b"set application_name = x")),
        *doubted(complete(b"SET") + status(b"application_name", "żółw".encode()) + READY, sql.SETTINGS,
                 rows=((b"application_name", "żółw".encode()),)), OtherServer(),
        asks(query(b"show x"), difference(("application_name", "żółw")) + query(b"show x")),
        released(ANSWER + READY + SYNTAX + READY, SYNTAX + READY),
    )),
    Row("start-up settings go out with the first query", (
        asks(query(b"show x"), difference(("timezone", "start")) + query(b"show x")),
        released(ANSWER + status(b"TimeZone", b"A") + READY + READY, READY),
    ), start=settings({"timezone": "start"})),
    Row("start-up settings and an extended query", (
        asks(parse(b"", b"select 1") + RUN, difference(("timezone", "start")) + parse(b"", b"select 1") + RUN),
        released(ANSWER + READY + PARSED + RAN, PARSED + RAN),
    ), start=settings({"timezone": "start"})),
]  # fmt: skip

COPY = query(b"copy t from stdin")
COPY_EXTENDED = parse(b"", b"copy t from stdin") + bind(b"", b"") + execute()
BAD = error(b"22P02", b"bad data")
COPIES = [
    Row("out", (
        asks(query(b"copy t to stdout")), released(COPY_OUT + copy_data(b"1") + copy_data(b"22") + COPY_DONE + complete(b"COPY 2") + READY),
    )),
    Row("in", (
        asks(COPY), server(COPY_IN), client(copy_data(b"1") + copy_data(b"2") + COPY_DONE), released(complete(b"COPY 2") + READY),
    )),
    Row("in, data sent at once", (asks(COPY + copy_data(b"1") + COPY_DONE), released(COPY_IN + complete(b"COPY 1") + READY))),
    Row("in, given up", (
        asks(COPY), server(COPY_IN), client(copy_data(b"1") + copy_fail(b"no")), released(error(b"57014", b"no") + READY),
    )),
    Row("in, refused at once", (asks(COPY), released(error(b"42501", b"denied") + READY), client(copy_data(b"1") + COPY_DONE, b""))),
    Row("in, bad data: what comes late is dropped", (
        asks(COPY), server(COPY_IN), client(copy_data(b"bad")), released(BAD + READY),
        client(copy_data(b"2") + copy_data(b"3") + COPY_DONE, b""), *idles(b"select 1"),
    )),
    Row("in, bad data in a transaction: the server drops it", (
        *BEGIN, client(COPY), server(COPY_IN), client(copy_data(b"bad")), server(BAD + READY_E),
        client(copy_data(b"2") + COPY_DONE), *ROLLBACK,
    )),
    Row("extended", (
        asks(COPY_EXTENDED + FLUSH), server(PARSED + BOUND + COPY_IN), client(copy_data(b"1") + COPY_DONE + SYNC),
        released(complete(b"COPY 1") + READY),
    )),
    Row("extended, with a Sync that the server reads while it copies", (
        asks(COPY_EXTENDED + SYNC), server(PARSED + BOUND + COPY_IN), client(copy_data(b"1") + COPY_DONE + SYNC),
        released(complete(b"COPY 1") + READY), *idles(b"select 1"),
    )),
    Row("two in one query", (
        asks(query(b"copy t from stdin; copy t from stdin")), server(COPY_IN), client(COPY_DONE), server(complete(b"COPY 0") + COPY_IN),
        client(COPY_DONE), released(complete(b"COPY 0") + READY),
    )),
    Row("a CopyData of which the rest comes after the failure: the lease ends with it", (
        asks(COPY), server(COPY_IN), client(copy_data(BIG)[:1000]), server(BAD + READY),
        client(copy_data(BIG)[1000:], verdict=RELEASE), *idles(b"select 1"),
    ), pieces=False),
    Row("a late CopyData in parts is dropped to its last byte", (
        asks(COPY), server(COPY_IN), client(copy_data(b"bad")), released(BAD + READY), client(copy_data(BIG) + COPY_DONE, b""),
        *idles(b"select 1"),
    )),
]  # fmt: skip

# Prefix: what is held before the head of a big message goes out. Pieces come out the same, since only the sum is compared.
BIGS = [
    Row("a big query", (asks(query(BIG)), *doubted(ANSWER + READY, UNREAD)), SMALL_FRAMES),
    Row("a big query in a transaction", (
        *BEGIN, client(query(BIG)), server(ANSWER + READY_T), client(query(b"commit")), *doubted(complete(b"COMMIT") + READY, UNREAD),
    ), SMALL_FRAMES),
    Row("a big Bind of a named statement on another server", (
        *A_PREPARED, OtherServer(),
        asks(bind(b"", b"a", BIG) + execute() + SYNC, ONE + FLUSH),
        server(PARSED + TOLD, b"", to_server=bind(b"", NAME_ONE, BIG) + execute() + SYNC), released(RAN),
    ), SMALL_FRAMES),
    Row("a big unnamed Parse", (asks(parse(b"", BIG) + RUN), *doubted(PARSED + RAN, UNREAD)), SMALL_FRAMES),
    Row("a big function call", (
        asks(wire.message(wire.FUNCTION_CALL, wire.INT32.pack(952) + BIG)), released(wire.message(wire.FUNCTION_RESULT, BIG) + READY),
    ), SMALL_FRAMES),
    Row("a big row", (asks(query(b"show")), released(description(1) + row(BIG) + row(b"1") + complete(b"SELECT 2") + READY)), SMALL_FRAMES),
    Row("a big CopyFail", (asks(COPY), server(COPY_IN), client(copy_fail(BIG)), released(BAD + READY)), SMALL_FRAMES),
]  # fmt: skip

SESSIONS = [
    Row("all passes unchanged, and nothing is released", (
        asks(parse(b"a", b"select 1") + RUN_A), server(PARSED + RAN), client(parse(b"a", b"select 2") + SYNC),
        server(error(b"42P05", b'prepared statement "a" already exists') + READY), client(close(b"S", b"a") + describe(b"S", b"b") + SYNC),
        server(CLOSED + NOT_THERE + READY), client(query(b"deallocate a")), server(DEALLOCATED + READY), client(query(b"discard all")),
        server(complete(b"DISCARD ALL") + READY), client(RUN), server(NOT_THERE + READY), client(SYNC), server(READY),
    ), IN_SESSION),
    Row("start-up settings all the same", (
        asks(query(b"show x"), difference(("timezone", "start")) + query(b"show x")), server(ANSWER + READY + READY, READY),
    ), IN_SESSION, start=settings({"timezone": "start"})),
]  # fmt: skip

TABLE: dict[str, Row] = {
    f"{group}: {made.name}": made
    for group, made_rows in {
        "simple": SIMPLE, "extended": EXTENDED, "named": NAMED, "own names": OWN_NAMES, "deallocate": DEALLOCATE, "settings": SETTINGS,
        "copy": COPIES, "big": BIGS, "session": SESSIONS,
    }.items()
    for made in made_rows
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_whole(name: str) -> None:
    play = Play(TABLE[name])
    play.run(whole)
    if not name.endswith("goodbye: the query is sent"):
        play.junk()


@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name].pieces])
def test_cut_at_every_byte(name: str) -> None:
    for cut in all_cuts(TABLE[name]):
        Play(TABLE[name]).run(cut)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name].pieces])
def test_in_small_pieces(name: str, size: int) -> None:
    big = any(len(getattr(line, "data", b"")) > 2000 for line in TABLE[name].script)
    cut: Cutter = by_size(size * 997 if big else size)
    Play(TABLE[name]).run(cut)
