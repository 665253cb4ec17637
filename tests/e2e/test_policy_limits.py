"""Lanes, limits, caps, times and sleep, as clients of both engines see them."""

import contextlib
import re
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import mysql.connector
import psycopg
import pytest

from tests.e2e.policy_world import ADMIN, SERVER_ERRORS, Conn, Stage, stage, timed
from tests.e2e.postgres_world import DEADLINE, in_thread, wait_until
from tests.helpers.servers import DatabaseServer, Servers

Build = Callable[..., Stage]
ROUNDS = 10


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest, servers: Servers) -> DatabaseServer:
    return servers.postgres(15) if request.param == "postgres" else servers.mariadb()


@pytest.fixture
def build(server: DatabaseServer) -> Iterator[Build]:
    with contextlib.ExitStack() as running:
        yield lambda **keys: running.enter_context(stage(server, **keys))


def code_of(error: BaseException) -> object:
    """PostgreSQL's SQLSTATE, or MySQL's number."""
    if isinstance(error, psycopg.Error):
        return error.sqlstate or re.findall(r"FATAL|ERROR", str(error))
    return error.args[0]


def refused(work: Callable[[], Any], message: str) -> object:
    """The code of the error that `work` ends with."""
    with pytest.raises(SERVER_ERRORS, match=message) as caught:
        work()
    return code_of(caught.value)


# --------------------------------------------------------------------------------------------------------- lanes


def connect_in_lane(world: Stage, lane: str) -> Any:
    """A client of the user app that asks for a lane. (PyMySQL sends no connection attributes but its own.)"""
    if world.listener == "postgres":
        return world.connect(options=f"-c dualpool.lane={lane}").driver
    address: dict[str, Any] = {"host": "127.0.0.1", "port": world.pooler.port("mysql"), "user": "app", "password": "app"}
    options: dict[str, Any] = {"database": "app", "use_pure": True, "collation": "utf8mb4_general_ci", "autocommit": True}
    options["connection_timeout"] = int(DEADLINE)
    return mysql.connector.connect(**address, **options, conn_attrs={"dualpool.lane": lane})


def test_the_maintenance_lane_is_for_those_who_may(build: Build) -> None:
    world = build(pool_size=1, user="maintenance_on_request = true")
    with world.connect() as application:
        application.execute("BEGIN")
        application.execute("SELECT 1")
        # The pool has one connection, and it is taken; a reserved one is not.
        with contextlib.closing(connect_in_lane(world, "maintenance")) as session:
            cursor = session.cursor()
            cursor.execute("SELECT 'maintains'")
            assert cursor.fetchone() == ("maintains",)
        with pytest.raises((*SERVER_ERRORS, mysql.connector.Error), match=r'invalid value for parameter "dualpool\.lane": "fast"'):
            connect_in_lane(world, "fast")


def test_the_maintenance_lane_is_refused_to_others(build: Build) -> None:
    world = build()
    with pytest.raises((*SERVER_ERRORS, mysql.connector.Error), match=r'user "app" may not use the maintenance lane'):
        connect_in_lane(world, "maintenance")


def ask_as_a_tool(client: Conn) -> None:
    """What a migration tool begins with; the table need not exist."""
    with contextlib.suppress(SERVER_ERRORS):
        client.execute("SELECT version_num FROM alembic_version")


def test_a_migration_tool_need_not_wait_for_applications(build: Build) -> None:
    world = build(pool_size=1, more=ADMIN)
    with world.connect() as application, world.connect() as tool, world.connect() as other:
        application.execute("BEGIN")
        application.execute("SELECT 1")
        # The pool's one connection is taken. The tool goes on all the same, also with what tells nothing of it; others wait.
        ask_as_a_tool(tool)
        assert tool.execute("SELECT 'migrates'") == [("migrates",)]
        waiting = in_thread(lambda: other.execute("SELECT 2"))
        wait_until(lambda: world.waiting_clients() == 1, "the other one waits")
        assert tool.execute("SELECT 3") == [(3,)]
        assert not waiting.is_done()
        application.execute("COMMIT")
        assert waiting.result() == [(2,)]


def test_the_tools_of_a_user_may_be_kept_out(build: Build) -> None:
    world = build(pool_size=1, user="migration_tools = false", more='[timeouts]\nquery_wait = "300ms"')
    # The first connect may take longer than anybody waits; the connection is there afterwards.
    wait_until(lambda: lets_in(world), "a server connection")
    with world.connect() as application, world.connect() as tool:
        application.execute("BEGIN")
        application.execute("SELECT 1")
        refused(lambda: tool.execute("SELECT version_num FROM alembic_version"), "waited")


def test_a_dump_is_in_the_maintenance_lane_by_its_name(build: Build) -> None:
    world = build(pool_size=1)
    if world.listener == "mysql":
        place = ["--host=127.0.0.1", f"--port={world.pooler.port('mysql')}", "--user=app", "--password=app"]
        command = ["mariadb-dump", "--skip-lock-tables", *place, "app", "dumped"]
    else:
        command = ["pg_dump", f"--dbname=postgresql://app:app@127.0.0.1:{world.pooler.port('postgres')}/app", "--table=dumped"]
    with world.connect() as application:
        application.execute("CREATE TABLE IF NOT EXISTS dumped (number int)")
        application.execute("BEGIN")
        application.execute("SELECT 1")
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert "CREATE TABLE" in done.stdout, done.stderr


# --------------------------------------------------------------------------------------------------------- how many clients


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"more": "[limits]\nmax_client_connections = 2"}, "too many clients: limits.max_client_connections is 2"),
        ({"database": "max_client_connections = 2"}, "too many clients: databases.app.max_client_connections is 2"),
        ({"user": "max_client_connections = 2"}, "too many clients: users.app.max_client_connections is 2"),
    ],
)
def test_one_client_too_many_is_refused_and_maintenance_gets_in(build: Build, keys: dict[str, str], message: str) -> None:
    world = build(**keys)
    with world.connect(), world.connect() as leaver:
        assert refused(world.connect, message) in (["FATAL"], 1040)
        with world.connect("boss") as boss:
            assert boss.execute("SELECT 1") == [(1,)]
        leaver.close()
        wait_until(lambda: lets_in(world), "dualpool has seen that one left")


def lets_in(world: Stage) -> bool:
    """Does one more client get in, and is it served?"""
    try:
        with world.connect() as newcomer:
            return newcomer.execute("SELECT 1") == [(1,)]
    except SERVER_ERRORS:
        return False


# --------------------------------------------------------------------------------------------------------- caps


def test_a_burst_of_one_user_leaves_room_for_others(build: Build) -> None:
    world = build(pool_size=3, more=ADMIN + "[limits]\nclients_per_user = 2\n[users.other]\npassword = 'other'")
    burst = [world.connect() for _ in range(5)]
    for served in burst[:2]:
        served.execute("BEGIN")
        served.execute("SELECT 1")
    waiting = [in_thread(lambda conn=conn: conn.execute("SELECT 2")) for conn in burst[2:]]
    wait_until(lambda: world.waiting_clients() == 3, "the others wait")
    with world.connect("other") as other:
        assert other.execute("SELECT 1") == [(1,)]
    assert not any(one.is_done() for one in waiting)
    for served in burst[:2]:
        served.execute("COMMIT")
    for one in waiting:
        assert one.result() == [(2,)]
    for conn in burst:
        conn.close()


def test_a_queue_that_is_full_refuses_with_the_wait_to_expect(build: Build) -> None:
    world = build(pool_size=1, more="[limits]\nmax_waiting_clients = 1")
    with world.connect() as holder, world.connect() as waiter, world.connect() as third:
        for _ in range(3):
            holder.execute(f"SELECT 1{world.slowly(0.5)}")
        holder.execute("BEGIN")
        holder.execute("SELECT 1")
        waiting = in_thread(lambda: waiter.execute("SELECT 2"))
        message = r"too many clients wait for a server connection \(limits.max_waiting_clients is 1\)"
        codes: list[object] = []

        def is_refused() -> bool:
            try:
                third.execute("SELECT 3")
            except SERVER_ERRORS as error:
                codes.append(code_of(error) if re.search(message, str(error)) else error)
            return bool(codes)

        # Whoever comes first of the two waits; the other is refused.
        refusing = in_thread(is_refused)
        wait_until(lambda: waiting.is_done() or refusing.is_done(), "one is refused")
        holder.execute("COMMIT")
        if refusing.is_done() and codes:
            assert codes[0] in ("53300", 1040)
            assert waiting.result() == [(2,)]
            # The refusal is of the one request; the client goes on.
            assert third.execute("SELECT 4") == [(4,)]
        else:
            with pytest.raises(SERVER_ERRORS, match=message):
                waiting.result()
            assert refusing.result() is False


# --------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize("where", ["user", "database"])
def test_a_query_that_takes_too_long_for_its_user_or_database(build: Build, where: str) -> None:
    world = build(**{where: 'query = "300ms"'})
    name = "users.app.query" if where == "user" else "databases.app.query"
    with world.connect() as conn:
        assert refused(lambda: conn.execute(f"SELECT 1{world.slowly(20)}"), f"took too long: {name} is 0.3 s") in ("57014", 3024)
    if where == "user":
        with world.connect("boss") as boss:
            assert boss.execute(f"SELECT 1{world.slowly(0.6)}")


def test_idle_in_a_transaction_for_too_long(build: Build) -> None:
    world = build(user='idle_in_transaction = "300ms"')
    with world.connect() as conn:

        def dawdle() -> None:
            conn.execute("BEGIN")
            # On a slow machine the time may be over here already.
            conn.execute("SELECT 1")
            wait_until(lambda: ended(conn), "the server connection is free")
            conn.execute("SELECT 2")

        message = "users.app.idle_in_transaction is 0.3 s|Lost connection|gone away"
        assert refused(dawdle, message) in ("25P03", 1205, 2013, 2006)


def ended(conn: Conn) -> bool:
    """Has the other side said something, without being asked?"""
    fd = conn.driver.fileno() if isinstance(conn.driver, psycopg.Connection) else conn.driver._sock.fileno()
    return bool(select.select([fd], [], [], 0)[0])


def test_waiting_too_long_for_its_user(build: Build) -> None:
    world = build(pool_size=1, user='query_wait = "300ms"')
    # The first connect may take longer than anybody waits; the connection is there afterwards.
    wait_until(lambda: lets_in(world), "a server connection")
    with world.connect("boss"), world.connect() as holder, world.connect() as waiter:
        holder.execute("BEGIN")
        holder.execute("SELECT 1")
        message = r"waited \d+\.\d s for a server connection \(users.app.query_wait is 0.3 s\): all 1 are taken \(pool_size\)"
        assert refused(lambda: waiter.execute("SELECT 2"), message) in ("53300", 1040)
        holder.execute("COMMIT")
        assert waiter.execute("SELECT 3") == [(3,)]


# --------------------------------------------------------------------------------------------------------- reserve, sleep


def test_the_pools_own_reserve_comes_after_its_time_and_goes_again(build: Build) -> None:
    world = build(pool_size=1, database="reserve_pool_size = 1", more='[timeouts]\nreserve_pool = "500ms"')
    with world.connect() as holder, world.connect() as waiter:
        holder.execute("BEGIN")
        holder.execute("SELECT 1")
        assert timed(lambda: waiter.execute("SELECT 2")) > 0.3
        wait_until(lambda: world.server_connections() == 1, "what is beyond pool_size is closed")
        holder.execute("COMMIT")


def test_a_database_that_nobody_uses_may_sleep_although_clients_are_connected(build: Build) -> None:
    world = build(database='min_pool_size = 1\nidle_after = "1s"')
    with world.connect() as conn:
        conn.execute("SELECT 1")
        wait_until(lambda: world.server_connections() == 0, "it sleeps")
        time.sleep(0.5)
        assert world.server_connections() == 0
        conn.execute("BEGIN")
        assert conn.execute("SELECT 'awake'") == [("awake",)]
        assert world.server_connections() == 1
        conn.execute("COMMIT")


def test_who_wakes_a_database_is_told_that_it_is_starting(servers: Servers) -> None:
    server = servers.own_postgres(15)
    assert server.embedded is not None
    notices: list[str] = []
    try:
        with stage(server, database='idle_after = "1m"', more='[timeouts]\nserver_login_retry = "50ms"') as world, world.connect() as conn:
            conn.execute("SELECT 1")
            conn.driver.add_notice_handler(lambda notice: notices.append(notice.message_primary))
            server.embedded.stop()
            waking = in_thread(lambda: conn.execute("SELECT 'woken'"))
            wait_until(lambda: any("the database is starting" in notice for notice in notices), "told")
            server.embedded.restart()
            assert waking.result() == [("woken",)]
    finally:
        server.embedded.stop()


# --------------------------------------------------------------------------------------------------------- login storms


def test_a_storm_of_logins_is_served_fairly(build: Build) -> None:
    world = build(pool_size=5)
    # PyMySQL takes many times longer over a login than psycopg.
    clients = 50 if world.listener == "postgres" else 20
    gate = threading.Barrier(clients)
    times: list[tuple[float, float]] = []

    def log_in() -> None:
        gate.wait(DEADLINE)
        for _ in range(ROUNDS):
            started = time.monotonic()
            with world.connect() as conn:
                conn.execute("SELECT 1")
            times.append((started, time.monotonic()))

    for logins in [in_thread(log_in) for _ in range(clients)]:
        logins.result(3 * DEADLINE)
    assert len(times) == ROUNDS * clients
    overtaken = [sum(start < other and other_end < end for other, other_end in times) for start, end in times]
    assert max(overtaken) < len(times) / 2, "nobody waits while all others come and go"
