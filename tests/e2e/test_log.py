"""What the log tells of real sessions, and what it does not: passwords, verifiers, values."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pymysql
import pytest

from tests.e2e.postgres_world import DEADLINE, in_thread, wait_until
from tests.helpers.pooler import Pooler
from tests.helpers.ports import reserved_port
from tests.helpers.servers import MySQLServer, PostgresServer, Servers

SECRET: Final = "hunter2-in-a-literal"
PASSWORD: Final = "wrong-password-of-somebody"
SLOW: Final = 0.15


def configuration(postgres: PostgresServer, mysql: MySQLServer, log: str) -> str:
    return f"""
[listeners.postgres]
protocol = "postgres"
bind = "127.0.0.1:0"

[listeners.mysql]
protocol = "mysql"
bind = "127.0.0.1:0"

[backends.one]
url = "{postgres.url}"

[backends.two]
url = "{mysql.url}"

[databases.app]
backend = "one"
database = "app"
pool_size = 2

[databases.shop]
name = "app"
backend = "two"
database = "app"
pool_size = 2

[users.app]
password = "app-Login-Word"

[admin]
users = ["app"]

[auth]
failed_login_delay = "0s"

[timeouts]
query_wait = "3s"
query = "60s"

[log]
{log}
"""


@pytest.fixture
def noisy(servers: Servers) -> Iterator[Pooler]:
    toml = configuration(servers.postgres(15), servers.mariadb(), f'level = "debug"\nformat = "json"\nslow_query = "{int(SLOW * 1000)}ms"')
    with Pooler(toml) as pooler:
        yield pooler


def connect(pooler: Pooler, kind: str, password: str = "app-Login-Word", database: str = "app") -> Any:
    if kind == "mysql":
        return pymysql.connect(
            host="127.0.0.1",
            port=pooler.port("mysql"),
            user="app",
            password=password,
            database=database,
            autocommit=True,
            connect_timeout=60,
        )
    return psycopg.connect(
        host="127.0.0.1", port=pooler.port(), user="app", password=password, dbname=database, autocommit=True, prepare_threshold=0
    )


def run(connection: Any, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def events(pooler: Pooler) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pooler.log.splitlines() if line.startswith("{")]


def event(pooler: Pooler, start: str) -> dict[str, Any]:
    """The first whose message has `start` in it; waits for it."""
    wait_until(lambda: any(start in one["message"] for one in events(pooler)), f"{start!r} in the log")
    return next(one for one in events(pooler) if start in one["message"])


def sleeping(kind: str) -> str:
    function = "SLEEP" if kind == "mysql" else "pg_sleep"
    return f"SELECT '{SECRET}', 4711, {function}(0.2) /* {SECRET} */"


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_a_noisy_session(noisy: Pooler, kind: str) -> None:
    with pytest.raises((psycopg.OperationalError, pymysql.OperationalError)):
        connect(noisy, kind, PASSWORD)
    client = connect(noisy, kind)
    run(client, sleeping(kind))
    with pytest.raises((psycopg.Error, pymysql.MySQLError)):
        run(client, f"SELECT '{SECRET}' FROM nowhere_at_all")
    run(client, "CREATE TEMPORARY TABLE pinning (n int)")
    client.close()
    came = event(noisy, "app logged in to app")
    slow = event(noisy, "slow query")
    left = event(noisy, "client ended the session")
    opened = event(noisy, "new server connection")
    assert came["client"] == slow["client"] == left["client"]
    assert came["pool"] == slow["pool"] == opened["pool"]
    assert slow["server"] == opened["server"]
    assert slow["seconds"] >= SLOW
    assert slow["statement"].startswith("SELECT ?, ?, ")
    assert event(noisy, "login of 127.0.0.1")["level"] == "warning"
    assert_nothing_secret(noisy)


def assert_nothing_secret(pooler: Pooler) -> None:
    for secret in (SECRET, PASSWORD, "app-Login-Word", "4711", "SCRAM-SHA-256$", ":app@"):
        assert secret not in pooler.log, secret


def test_a_prepared_statement_is_known_when_it_is_slow(noisy: Pooler) -> None:
    with connect(noisy, "postgres") as client:
        for _ in range(2):
            client.execute(f"SELECT %s::text, pg_sleep(%s), '{SECRET}' AS it", ("bound-" + SECRET, 0.2))
    wait_until(lambda: noisy.log.count("slow query") >= 2, "two of them")
    texts = [one["statement"] for one in events(noisy) if "slow query" in one["message"]]
    assert set(texts) == {"SELECT $?::text, pg_sleep($?), ? AS it"}
    assert_nothing_secret(noisy)


def test_timeouts_and_commands(noisy: Pooler) -> None:
    with connect(noisy, "postgres") as one, connect(noisy, "postgres") as two, connect(noisy, "postgres") as three:
        for holder in (one, two):
            run(holder, "BEGIN")
            run(holder, "SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            run(three, "SELECT 1")
        assert event(noisy, "waited in vain")["pool"] == "app/app"
        for holder in (one, two):
            run(holder, "ROLLBACK")
        with connect(noisy, "postgres", database="dualpool") as console:
            run(console, "SET query_timeout = '1s'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            run(three, "SELECT pg_sleep(600)")
    assert event(noisy, "the query took too long")["level"] == "warning"
    with connect(noisy, "postgres", database="dualpool") as console:
        run(console, "RECONNECT")
    assert event(noisy, "RECONNECT")["message"] == "admin console: app: RECONNECT"
    assert event(noisy, "closing server connection")["reason"]


def test_connections_need_not_be_told(servers: Servers) -> None:
    toml = configuration(
        servers.postgres(15), servers.mariadb(), 'level = "debug"\nformat = "text"\nconnections = false\ndisconnections = false'
    )
    with Pooler(toml) as pooler:
        with connect(pooler, "postgres") as client:
            run(client, "SELECT pg_sleep(0.2)")
        with connect(pooler, "postgres", database="dualpool") as console:
            run(console, "RECONNECT")
        pooler.wait_for_log("RECONNECT")
        assert "logged in" not in pooler.log
        assert "server connection" not in pooler.log
        assert "slow query" not in pooler.log


def test_slow_queries_from_a_reload_on(servers: Servers) -> None:
    """Of a client that was there before, the statement is not known."""
    quiet = configuration(servers.postgres(15), servers.mariadb(), 'format = "json"')
    watching = configuration(servers.postgres(15), servers.mariadb(), f'format = "json"\nslow_query = "{int(SLOW * 1000)}ms"')
    with Pooler(quiet) as pooler, connect(pooler, "postgres") as before:
        with connect(pooler, "postgres", database="dualpool") as console:
            for text, statements in ((quiet, []), (watching, ["", "SELECT ?, ?, SLEEP(?)"]), (quiet, [])):
                seen = pooler.log.count("slow query")
                pooler.write_config(text)
                console.execute("RELOAD")
                with before.cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(%s)", (0.2,))
                with contextlib.closing(connect(pooler, "mysql")) as after:
                    run(after, sleeping("mysql"))
                goal = seen + len(statements)
                wait_until(lambda goal=goal: pooler.log.count("slow query") >= goal, "the slow ones")  # type: ignore[misc]
                slow = [one for one in events(pooler) if "slow query" in one["message"]]
                assert [one["statement"] for one in slow][seen:] == statements
            queries = {row[0]: row[3] for row in console.execute("SHOW STATS_TOTALS").fetchall()}
        assert queries["app"] == 4, "what was counted before the reload still counts"


def test_failed_logins_are_folded(noisy: Pooler) -> None:
    for _ in range(60):
        with pytest.raises(psycopg.OperationalError):
            connect(noisy, "postgres", PASSWORD)
    noisy.stop()
    failed = [one for one in events(noisy) if "login of" in one["message"]]
    repeated = sum(one.get("repeated", 0) for one in failed)
    # How many go out depends on how many come within ten seconds.
    assert repeated > 0
    assert repeated + sum("repeated" not in one for one in failed) == 60


def test_what_else_is_told(noisy: Pooler, servers: Servers) -> None:
    with connect(noisy, "postgres") as client:
        run(client, f"CREATE TEMPORARY TABLE pinning AS SELECT '{SECRET}' AS it")
        pinned = event(noisy, "keeps server connection")
        assert "CREATE TEMPORARY TABLE pinning AS SELECT ? AS it" in pinned["message"]
        assert pinned["client"] == event(noisy, "logged in")["client"]
        sleeping = in_thread(lambda: run(client, "SELECT pg_sleep(600)"))
        wait_until(lambda: bool(servers.postgres(15).execute(RUNNING, database="app")), "it runs")
        client.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            sleeping.result()
        canceled = event(noisy, "cancel request")
        assert (canceled["level"], canceled["client"], canceled["server"]) == ("debug", pinned["client"], pinned["server"])
        [(pid,)] = client.execute("SELECT pg_backend_pid()").fetchall()
        servers.postgres(15).execute(f"SELECT pg_terminate_backend({pid})")
        lost = event(noisy, "lost server connection")
        assert (lost["level"], lost["server"]) == ("warning", pinned["server"])
    assert_nothing_secret(noisy)


RUNNING: Final = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"


def test_another_host_is_told(servers: Servers) -> None:
    server, closed = servers.postgres(15), reserved_port()
    url = f"postgresql://app:app@127.0.0.1:{closed},127.0.0.1:{server.port}"
    toml = configuration(server, servers.mariadb(), 'format = "json"').replace(server.url, url)
    with Pooler(toml) as pooler:
        with connect(pooler, "postgres") as client:
            run(client, "SELECT 1")
        told = event(pooler, "connects go to")
        assert told["message"] == f'backend "one": connects go to 127.0.0.1:{server.port} now, no longer to 127.0.0.1:{closed}'
        assert told["level"] == "warning"


PERIOD: Final = 0.5
SHORT_PERIOD: Final = f"import dualpool.server; dualpool.server.STATS_PERIOD = {PERIOD}; from dualpool.cli import main; main()"
"""Averages are told once a minute, and nobody wants to wait for that."""


def test_pgbouncers_lines(servers: Servers, tmp_path: Path) -> None:
    """As PgBouncer 1.26.1 wrote them for the same events."""
    server = servers.postgres(15)
    (tmp_path / "userlist.txt").write_text('"app" "app"\n')
    path, log = tmp_path / "pgbouncer.ini", tmp_path / "log"
    path.write_text(
        f"[databases]\napp = host={server.host} port={server.port}\n[pgbouncer]\nunix_socket_dir = {tmp_path}\nlisten_port = 6432\n"
        f"pool_mode = transaction\nlogfile = {log}\nauth_type = md5\nauth_file = {tmp_path}/userlist.txt\nquery_timeout = 2\n"
        "idle_transaction_timeout = 2\nadmin_users = app\n"
    )
    process = subprocess.Popen([sys.executable, "-c", SHORT_PERIOD, "pgbouncer", "-q", str(path)])
    try:
        wait_until(lambda: log.exists() and "listening on" in log.read_text(), "it listens")
        place: dict[str, Any] = {"host": str(tmp_path), "port": 6432, "dbname": "app", "user": "app"}
        with psycopg.connect(**place, password="app") as client:
            client.execute("SELECT 1")
            client.commit()
            with psycopg.connect(**{**place, "dbname": "pgbouncer"}, password="app", autocommit=True) as console:
                console.execute("RECONNECT")
                console.execute("PAUSE app")
                console.execute("RESUME app")
        with contextlib.closing(psycopg.connect(**place, password="app")) as client:
            client.execute("SELECT 1")
            wait_until(lambda: "pooler error: idle transaction timeout" in log.read_text(), "the end of an idle transaction")
        with psycopg.connect(**place, password="app", autocommit=True) as client:
            pid = client.execute("SELECT pg_backend_pid()").fetchone()
            server.execute(f"SELECT pg_terminate_backend({pid[0] if pid else 0})")
            wait_until(lambda: "server conn crashed?" in log.read_text(), "the end of a server connection")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**place, password=PASSWORD)
        with psycopg.connect(**place, password="app") as client, pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(30)")
        wait_until(lambda: log.read_text().count("stats: ") > 2, "averages")
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(DEADLINE)
    text = log.read_text()
    stamp = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[\d+\] "
    client_place, server_place = r"C-0x\w+: app/app@unix\(\d+\)", rf"S-0x\w+: app/app@{server.host}:{server.port}"
    for line in (
        rf"LOG {client_place} login attempt: db=app user=app tls=no replication=no$",
        rf"LOG {client_place} closing because: client close request \(age=\d+s\)$",
        rf"LOG {client_place} closing because: query timeout \(age=\d+s\)$",
        rf"WARNING {client_place} pooler error: query timeout$",
        rf"LOG {client_place} closing because: idle transaction timeout \(age=\d+s\)$",
        rf"WARNING {client_place} pooler error: password authentication failed",
        rf"LOG {server_place} new connection to server \(from {server.host}:\d+\)$",
        rf"LOG {server_place} closing because: server conn crashed\? \(age=\d+s\)$",
        rf"LOG {server_place} closing because: database configuration changed \(age=\d+s\)$",
        r"LOG RECONNECT command issued$",
        r"LOG PAUSE 'app' command issued$",
        r"LOG RESUME 'app' command issued$",
        r"LOG stats: \d+ xacts/s, \d+ queries/s, \d+ client parses/s, \d+ server parses/s, \d+ binds/s, \d+ client logins/s, "
        r"in \d+ B/s, out \d+ B/s, xact \d+ us, query \d+ us, wait \d+ us$",
    ):
        assert find(stamp + line, text), f"{line}\n{text}"
    assert PASSWORD not in text


def find(pattern: str, text: str) -> bool:

    return re.search(pattern, text, re.MULTILINE) is not None
