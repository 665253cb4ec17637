"""Prepared statements whose tables, types and functions change, and those that SQL names: as on a connection of one's own.

Each script runs twice: by clients that have a server connection each (session mode), and by clients that share them.
"""

import datetime
import struct
from typing import Final

import asyncpg
import pytest
import trio
import trio_asyncio
from trio_asyncio import aio_as_trio

from dualpool.postgres import messages, wire
from dualpool.postgres.messages import parse_report
from tests.e2e.postgres_raw import FLUSH, SYNC, Message, Raw, bind, close_statement, describe_statement, execute, parse, query
from tests.e2e.postgres_world import DEADLINE, World

Line = tuple[str, str | bytes]
Script = list[Line]

PORTAL: Final = wire.message(wire.DESCRIBE, b"P\0")
TABLE: Final = "DROP TABLE IF EXISTS t CASCADE; CREATE TABLE t (v int, w int); INSERT INTO t VALUES (1, 2)"
SHAPED: Final = describe_statement("s")
RUN: Final = bind("s") + execute() + SYNC
TO_SEE: Final = bind("s") + PORTAL + execute() + SYNC
"""The client asks for the columns once more."""
MOOD: Final = "DROP TYPE IF EXISTS mood CASCADE; CREATE TYPE mood AS ENUM ('a')"
CLOSE: Final = close_statement("s")
FIRST_OWN_OID: Final = 16384
"""FirstNormalObjectId in access/transam.h."""
DDL: Final = "ddl"
"""Who changes tables: an administrator, past dualpool."""


def prepare(text: str, name: str = "s") -> bytes:
    return parse(name, text) + describe_statement(name) + SYNC


@pytest.fixture(scope="module")
def world(each_postgres: World) -> World:
    for kind in ("TABLES", "SEQUENCES", "SCHEMAS"):
        each_postgres.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO app")
    return each_postgres


def type_of(payload: bytes, position: int) -> int:
    """The OID of a type; one number for all that are made by the scripts."""
    (oid,) = struct.unpack_from("!I", payload, position)
    return int(min(oid, FIRST_OWN_OID))


def seen(answer: list[Message]) -> list[str]:
    """What a client can tell of it: columns by name and type, parameter types, rows, tags, errors by code, message and routine."""
    shown = []
    for kind, payload in answer:
        if kind == "T":
            count = int.from_bytes(payload[:2], "big")
            position, columns = 2, []
            for _ in range(count):
                end = payload.index(0, position)
                modifier = payload[end + 13 : end + 17].hex()
                columns.append(f"{payload[position:end].decode()} {type_of(payload, end + 7)} {modifier}")
                position = end + 19
            shown.append(f"T {columns}")
        elif kind == "t":
            shown.append(f"t {[type_of(payload, position) for position in range(2, len(payload), 4)]}")
        elif kind == "E":
            report = parse_report(payload)
            shown.append(f"E {report['C']} {report['M']} {report.get('R') if report['C'] == '0A000' else ''}")
        elif kind == "D":
            shown.append(f"D {messages.parse_row(payload)}")
        elif kind not in "NS":
            shown.append(f"{kind} {payload!r}")
    return shown


def without_parameters(lines: list[str]) -> list[str]:
    """Before it refuses to describe a statement a server has told its parameters already. (Not so where it is prepared first.)"""
    return [line for line in lines if not (line.startswith("t ") and any(other.startswith("E ") for other in lines))]


def play(world: World, script: Script, listener: str) -> list[tuple[str, list[str]]]:
    """What each client has seen of each of its lines."""
    clients: dict[str, Raw] = {}
    found = []
    for who, what in script:
        if who == DDL:
            world.execute(str(what))
            continue
        if who not in clients:
            clients[who] = Raw(world.pooler.port(listener)).log_in()
        data = query(what) if isinstance(what, str) else what
        clients[who].send(data)
        until = clients[who].until("T") if data.endswith(FLUSH) else clients[who].until_ready()
        found.append((f"{who}: {data!r}", without_parameters(seen(until))))
    for client in clients.values():
        client.ask(query("ROLLBACK"))
        client.send(wire.TERMINATE_MESSAGE)
        client.sock.close()
    world.wait_until_rested()
    return found


CHANGES: Final = {
    "text": "ALTER TABLE t ALTER v TYPE text",
    "bigint": "ALTER TABLE t ALTER v TYPE bigint",
    "modifier": "ALTER TABLE t ALTER v TYPE numeric(5,2)",
    "dropped": "ALTER TABLE t DROP v",
    "swapped": "ALTER TABLE t DROP v; ALTER TABLE t ADD v int DEFAULT 77",
    "added": "ALTER TABLE t ADD z int DEFAULT 9",
    "renamed": "ALTER TABLE t RENAME v TO vv",
    "gone": "DROP TABLE t",
    "made again": "DROP TABLE t; CREATE TABLE t (x int, v int, w int); INSERT INTO t VALUES (0, 1, 2)",
}
TEXTS: Final = {
    "all": "SELECT * FROM t",
    "one": "SELECT v FROM t",
    "returning": "UPDATE t SET w = 3 RETURNING *",
    "no rows": "DELETE FROM t",
}


def scripts_of(change: str, text: str) -> dict[str, Script]:
    """A statement before and after a change of its table: on the same server connection, on another one, in a transaction, unnamed."""
    sql, unnamed = TEXTS[text], bind("") + execute() + SYNC
    here: Script = [(DDL, TABLE), ("a", prepare(sql)), ("a", RUN), (DDL, CHANGES[change])]
    # (A server describes what returns no rows without a look at its table.)
    described: Script = [] if text == "no rows" else [("a", SHAPED + SYNC)]
    return {
        "again": [*here, ("a", RUN), ("a", RUN), ("a", SHAPED + SYNC), (DDL, TABLE), ("a", RUN)],
        "elsewhere": [*here, ("h", "BEGIN"), ("a", RUN), ("a", RUN), *described, ("h", "ROLLBACK"), ("a", RUN)],
        "in a transaction": [*here, ("a", "BEGIN"), ("a", RUN), ("a", "SELECT 1"), ("a", "ROLLBACK"), ("a", "SELECT 2")],
        "unnamed elsewhere": [(DDL, TABLE), ("a", prepare(sql, "")), (DDL, CHANGES[change]), ("h", "BEGIN"), ("a", unnamed)],
        "prepared again": [*here, ("a", CLOSE + prepare(sql)), ("a", RUN)],
        "by others": [*here, ("b", prepare(sql)), ("b", RUN), ("a", RUN), ("b", RUN)],
    }


def typed(new: str) -> Script:
    """A client goes on with the parameter types that it was told, and a new one is told the new types."""
    text, run = "INSERT INTO t VALUES ($1)", bind("s", "2020-01-01") + execute() + SYNC
    both: Script = [("a", SHAPED + SYNC), ("a", run), ("b", SHAPED + SYNC), ("b", run)]
    return [
        (DDL, "DROP TABLE IF EXISTS t CASCADE; CREATE TABLE t (v date)"), ("a", prepare(text)),
        (DDL, f"ALTER TABLE t ALTER v TYPE {new} USING v::{new}"), ("b", prepare(text)), *both,
        ("h", "BEGIN"), *both, ("a", "SELECT v::text FROM t"),
    ]  # fmt: skip


F: Final = "CREATE FUNCTION f() RETURNS {} LANGUAGE sql AS $$SELECT {}$$"
VIEW: Final = "SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements ORDER BY 1"
SCRIPTS: Final[dict[str, Script]] = {
    **{
        f"{change}, {text}, {how}": script
        for change in CHANGES
        for text in TEXTS
        for how, script in scripts_of(change, text).items()
    },
    "date, now timestamptz": typed("timestamptz"),
    "date, now text": typed("text"),
    "enum made again": [
        (DDL, MOOD), ("a", parse("s", "SELECT $1::mood") + SYNC), ("a", bind("s", "a") + execute() + SYNC), (DDL, MOOD),
        ("b", prepare("SELECT $1::mood")), ("b", bind("s", "a") + execute() + SYNC),
        ("a", CLOSE + prepare("SELECT $1::mood")), ("a", bind("s", "a") + execute() + SYNC),
    ],
    "function made again": [
        (DDL, "DROP FUNCTION IF EXISTS f(); " + F.format("int", "1")), ("a", prepare("SELECT f()")), ("a", RUN),
        (DDL, "DROP FUNCTION f(); " + F.format("int", "2")), ("a", RUN),
        (DDL, "DROP FUNCTION f(); " + F.format("text", "'x'")), ("a", RUN), ("b", prepare("SELECT f()")), ("b", RUN),
        (DDL, "DROP FUNCTION f()"), ("b", RUN),
    ],
    "view made again": [
        (DDL, TABLE + "; CREATE VIEW vw AS SELECT v FROM t"), ("a", prepare("SELECT * FROM vw")), ("a", RUN),
        (DDL, "DROP VIEW vw; CREATE VIEW vw AS SELECT w FROM t"), ("a", RUN), ("h", "BEGIN"), ("a", RUN), ("h", "ROLLBACK"),
        (DDL, "DROP VIEW vw; CREATE VIEW vw AS SELECT v FROM t"), ("a", RUN),
    ],
    "a table in an earlier schema": [
        (DDL, "DROP SCHEMA IF EXISTS early CASCADE; CREATE SCHEMA early;" + TABLE),
        ("a", "SET search_path = early, public"), ("a", prepare("SELECT v FROM t")), ("a", RUN),
        (DDL, "CREATE TABLE early.t (v int); INSERT INTO early.t VALUES (77)"),
        ("b", "SET search_path = early, public"), ("b", prepare("SELECT v FROM t")), ("b", RUN), (DDL, "DROP SCHEMA early CASCADE"),
    ],
    "the same with other columns": [
        (DDL, "DROP SCHEMA IF EXISTS early CASCADE; CREATE SCHEMA early;" + TABLE),
        ("a", "SET search_path = early, public"), ("a", prepare("SELECT v FROM t")),
        (DDL, "CREATE TABLE early.t (v text); INSERT INTO early.t VALUES ('x')"),
        ("b", "SET search_path = early, public"), ("b", prepare("SELECT v FROM t")), ("b", RUN), (DDL, "DROP SCHEMA early CASCADE"),
        ("a", RUN),
    ],
    "in one pipeline": [
        (DDL, TABLE), ("a", parse("s", "SELECT * FROM t") + SHAPED + FLUSH), ("a", RUN), ("h", "BEGIN"),
        ("a", bind("s") + execute() + bind("s") + execute() + SYNC), ("a", RUN), ("h", "ROLLBACK"),
    ],
    "nothing of the segment runs": [
        (DDL, TABLE), ("a", parse("i", "INSERT INTO t VALUES (9, 9)") + prepare("SELECT * FROM t")), (DDL, CHANGES["added"]),
        ("h", "BEGIN"), ("a", bind("i") + execute() + RUN), ("a", "SELECT count(*) FROM t"),
    ],
    "FETCH of another cursor": [
        ("a", "BEGIN; DECLARE c CURSOR FOR SELECT 1 AS one"), ("a", prepare("FETCH 1 FROM c")), ("a", RUN), ("a", "COMMIT"),
        ("h", "BEGIN"), ("a", "BEGIN; DECLARE c CURSOR FOR SELECT 2 AS two"), ("a", RUN), ("a", "COMMIT"),
    ],
    "a name that is taken": [
        ("a", prepare("SELECT 1")), ("a", parse("s", "SELEC") + SYNC), ("a", parse("s", "SELECT 2") + SYNC), ("a", RUN),
        ("h", "BEGIN"), ("a", parse("s", "SELECT 2") + SYNC), ("a", RUN),
    ],
    # Names of the protocol in SQL.
    "EXECUTE": [
        ("a", parse("s", "SELECT $1::int AS x") + SYNC), ("a", "EXECUTE s(5)"), ("a", "explain (costs off) /* s */ execute s(3)"),
        ("a", "CREATE TEMP TABLE made AS EXECUTE s(4)"), ("a", "SELECT * FROM made"), ("a", "DROP TABLE made"),
        ("a", "EXECUTE s(1); EXECUTE s(2); SELECT 3"), ("a", "DEALLOCATE s"), ("a", "EXECUTE s(3)"),
    ],
    "EXECUTE of a quoted name": [
        ("a", parse("S One", "SELECT 5") + SYNC), ("a", 'EXECUTE "S One"'), ("b", 'EXECUTE "S One"'), ("h", "BEGIN"),
        ("a", "BEGIN"), ("a", 'EXECUTE "S One"'), ("a", "COMMIT"), ("a", bind("S One") + execute() + SYNC),
    ],
    "EXECUTE of what is gone": [
        (DDL, TABLE), ("a", parse("s", "SELECT * FROM t") + SYNC), (DDL, "DROP TABLE t"), ("a", "EXECUTE s"), ("a", "BEGIN"),
        ("a", "EXECUTE s"), ("a", "SELECT 1"), ("a", "ROLLBACK"), ("a", "SELECT 1"),
    ],
    "a text that cannot be read, and one that is gone": [
        (DDL, TABLE), ("a", prepare("SELECT * FROM t")), (DDL, "DROP TABLE t"),
        ("a", parse("", "EXECUTE 's") + bind("") + execute() + SYNC), ("a", "EXECUTE 's"), ("a", "EXECUTE s"),
    ],
    "EXECUTE by the protocol": [
        ("a", parse("s", "SELECT $1::int") + SYNC), ("a", prepare("EXECUTE s(7)", "")),
        ("a", parse("", "EXECUTE s(7)") + bind("") + PORTAL + execute() + SYNC),
        ("a", prepare("EXECUTE s(8)", "e")), ("a", bind("e") + execute() + SYNC), ("h", "BEGIN"), ("a", bind("e") + execute() + SYNC),
    ],
    "EXECUTE behind a Parse without Sync": [
        ("a", prepare("SELECT 1")), ("a", parse("", "SELECT 2") + query("EXECUTE s")), ("a", "SELECT 1"),
    ],
    "a column gone, asked for, and back as another": [
        (DDL, TABLE + "; ALTER TABLE t OWNER TO app"), ("a", prepare("SELECT v, w FROM t")), ("a", "ALTER TABLE t DROP COLUMN w"),
        ("a", parse("", "SELECT 5") + SYNC), ("a", bind("s") + PORTAL + execute() + RUN),
        ("a", "DROP TABLE t; CREATE TABLE t (w int, v text)"), ("a", RUN), ("a", RUN),
    ],
    "the same, without a name": [
        (DDL, TABLE), ("a", prepare("SELECT v, w FROM t", "")), (DDL, "ALTER TABLE t DROP COLUMN w"), ("b", parse("", "SELECT 1") + SYNC),
        ("a", bind("") + PORTAL + execute() + SYNC), (DDL, "DROP TABLE t; CREATE TABLE t (w int, v text)"),
        ("b", parse("", "SELECT 1") + SYNC), ("a", bind("") + execute() + SYNC), ("a", bind("") + execute() + SYNC),
    ],
    "PREPARE of a name of the protocol": [("a", prepare("SELECT 1")), ("a", "PREPARE s AS SELECT 2"), ("a", "EXECUTE s"), ("a", RUN)],
    "EXECUTE in a failed transaction": [
        ("a", prepare("SELECT 1")), ("a", "BEGIN"), ("a", "SELEC"), ("a", "EXECUTE s"), ("a", VIEW), ("a", "ROLLBACK"), ("a", "EXECUTE s"),
    ],
    "pg_prepared_statements": [
        ("a", parse("s", "SELECT 'secret', $1::date") + SYNC), ("b", parse("mine", "SELECT 7") + SYNC), ("b", VIEW), ("a", VIEW),
        ("c", VIEW), ("c", "SELECT name FROM pg_prepared_statement()"), ("c", 'SELECT name FROM U&"pg\\005fprepared_statements"'),
        ("b", bind("mine") + execute() + SYNC),
    ],
    "pg_prepared_statements by the protocol": [
        ("a", parse("s", "SELECT 'secret'") + SYNC), ("b", parse("mine", "SELECT 7") + SYNC),
        ("b", parse("", VIEW) + bind("") + execute() + SYNC), ("b", prepare(VIEW, "v")), ("b", bind("v") + execute() + SYNC),
        ("b", bind("v") + execute() + SYNC), ("b", bind("mine") + execute() + SYNC),
    ],
    "pg_prepared_statements with statements of SQL": [
        ("a", parse("s", "SELECT 1") + SYNC), ("a", "PREPARE t AS SELECT 2"), ("a", VIEW), ("a", "EXECUTE t"),
        ("a", "DEALLOCATE t"), ("a", VIEW),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_as_on_a_connection_of_its_own(world: World, name: str) -> None:
    assert play(world, SCRIPTS[name], "trust") == play(world, SCRIPTS[name], "session-trust")


@pytest.mark.parametrize("change", [change for change in CHANGES if change != "gone"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_client_that_asks_for_its_columns_each_time_need_not_know(world: World, change: str, elsewhere: bool) -> None:
    held: Script = [("h", "BEGIN")] if elsewhere else []
    script = [(DDL, TABLE), ("a", prepare("SELECT * FROM t")), ("a", TO_SEE), (DDL, CHANGES[change]), *held, ("a", TO_SEE), ("a", TO_SEE)]
    *_, once, twice = play(world, script, "trust")
    assert once == twice
    fresh = play(world, [("b", prepare("SELECT * FROM t")), ("b", TO_SEE)], "trust")
    assert once[1] == fresh[1][1]


def test_what_is_refused_says_why(world: World) -> None:
    script = [("a", prepare("SELECT 1")), ("a", bind("s") + execute() + query("EXECUTE s")), ("a", SYNC), ("a", "SELECT 2")]
    *_, refused, _, after = play(world, script, "trust")
    assert any("E 0A000" in line and "without Sync" in line for line in refused[1])
    assert after[1][-1] == "Z b'I'"


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    ("change", "expected"), [("text", {"v": "1", "w": 2}), ("swapped", {"w": 2, "v": 77}), ("added", {"v": 1, "w": 2, "z": 9})]
)
async def test_asyncpg_prepares_again(world: World, elsewhere: bool, change: str, expected: dict[str, object]) -> None:
    world.execute(TABLE)

    async def scenario() -> None:
        client, holder = await asyncpg.connect(world.url()), await asyncpg.connect(world.url())
        assert dict(await client.fetchrow("SELECT * FROM t")) == {"v": 1, "w": 2}
        world.execute(CHANGES[change])
        await holder.execute("BEGIN" if elsewhere else "SELECT 1")
        assert dict(await client.fetchrow("SELECT * FROM t")) == expected
        for other in (client, holder):
            await other.close()

    with trio.fail_after(DEADLINE):
        async with trio_asyncio.open_loop():
            await aio_as_trio(scenario)()


async def test_asyncpg_inserts_what_a_column_takes_now(world: World) -> None:
    world.execute("DROP TABLE IF EXISTS t CASCADE; CREATE TABLE t (v date)")

    async def insert(value: datetime.date) -> None:
        client = await asyncpg.connect(world.url())
        await client.execute("INSERT INTO t VALUES ($1)", value)
        await client.close()

    async def scenario() -> None:
        await insert(datetime.date(2020, 1, 1))
        world.execute("ALTER TABLE t ALTER v TYPE timestamptz USING v::timestamptz")
        for _ in range(2):
            await insert(datetime.datetime(2020, 1, 1, 5, 30, tzinfo=datetime.UTC))

    with trio.fail_after(DEADLINE):
        async with trio_asyncio.open_loop():
            await aio_as_trio(scenario)()
    assert [when.minute for (when,) in world.execute("SELECT v FROM t")] == [0, 30, 30]


def test_a_list_of_prepared_statements_leaves_out_what_is_gone(world: World) -> None:
    names = "SELECT name FROM pg_prepared_statements ORDER BY name"
    listed = (names, parse("", names) + bind("") + execute() + SYNC, names)
    script: Script = [(DDL, TABLE), ("a", prepare("SELECT * FROM t")), ("a", parse("kept", "SELECT 1") + SYNC), (DDL, "DROP TABLE t")]
    *_, first, second, third = play(world, [*script, *(("a", one) for one in listed)], "trust")
    for _, lines in (first, second, third):
        assert [line for line in lines if line[0] in "DE"] == ["D [b'kept']"]
