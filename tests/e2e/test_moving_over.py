"""Coming from PgBouncer and ProxySQL: their files run, for the same clients."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from dualpool import process
from tests.e2e.postgres_world import DEADLINE, wait_until
from tests.helpers.pooler import Pooler
from tests.helpers.servers import MySQLServer, PostgresServer


def dualpool(*arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run([sys.executable, "-m", "dualpool", *arguments], capture_output=True, text=True, timeout=3 * DEADLINE, check=False)
    assert done.returncode == code, done.stderr
    return done


def ini(server: PostgresServer, folder: Path, more: str = "") -> Path:
    """A pgbouncer.ini in the style that people have: three databases, users by auth_query, one of them with a forced user."""
    (folder / "userlist.txt").write_text('"pooler" "pooler"\n"app" "app"\n"console" "secret"\n')
    (folder / "more.ini").write_text("default_pool_size = 5\nquery_wait_timeout = 20\n")
    path = folder / "pgbouncer.ini"
    path.write_text(
        f"""
;; databases
[databases]
app = host={server.host} port={server.port}
other = host={server.host} port={server.port} dbname=app user=app pool_size=3 pool_mode=session
* = host={server.host} port={server.port} auth_dbname=app

[users]
app = pool_mode = transaction max_user_connections=10

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 0
unix_socket_dir = {folder}
auth_type = md5
auth_file = {folder}/userlist.txt
auth_user = pooler
auth_query = SELECT * FROM public.user_lookup($1)
admin_users = console
pool_mode = transaction
max_client_conn = 200
server_reset_query = DISCARD ALL
ignore_startup_parameters = extra_float_digits
log_connections = 1
%include {folder}/more.ini
{more}"""
    )
    return path


LOOKUP = """
CREATE ROLE pooler LOGIN PASSWORD 'pooler';
CREATE FUNCTION public.user_lookup(i_username text, OUT uname text, OUT phash text) RETURNS record AS $$
BEGIN
    SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END
    FROM pg_authid WHERE rolname = i_username AND rolcanlogin INTO uname, phash;
    RETURN;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
REVOKE ALL ON FUNCTION public.user_lookup(text) FROM public;
GRANT EXECUTE ON FUNCTION public.user_lookup(text) TO pooler;
"""


@pytest.fixture(scope="module")
def server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server that PgBouncer could be set up for: with a function for auth_query in the database app."""
    postgres_server.execute(LOOKUP, database="app")
    try:
        yield postgres_server
    finally:
        postgres_server.execute("DROP FUNCTION public.user_lookup(text); DROP ROLE pooler", database="app")


@pytest.fixture
def new_user(server: PostgresServer) -> Iterator[str]:
    name = server.create_user()
    try:
        yield name
    finally:
        server.drop_user(name)


def who(port: int, user: str, password: str, database: str) -> tuple[object, ...] | None:
    place = {"host": "127.0.0.1", "port": port, "user": user, "password": password, "dbname": database}
    with psycopg.connect(**place, autocommit=True) as client:  # type: ignore[arg-type]
        return client.execute("SELECT session_user, current_database()").fetchone()


def assert_served(port: int, server: PostgresServer, new_user: str) -> None:
    """Every client that PgBouncer would let in is served, and nobody else."""
    assert who(port, "app", "app", "app") == ("app", "app")
    assert who(port, new_user, "app", "app") == (new_user, "app")
    assert who(port, new_user, "app", "other") == ("app", "app")
    assert who(port, new_user, "app", "postgres") == (new_user, "postgres")
    for user, password in (("app", "wrong"), (new_user, "wrong"), ("nobody", "app")):
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            who(port, user, password, "app")


def test_an_imported_pgbouncer_ini_runs(server: PostgresServer, new_user: str, tmp_path: Path) -> None:
    done = dualpool("config", "import", str(ini(server, tmp_path)))
    assert "ignore_startup_parameters = extra_float_digits: not ignored" in done.stderr
    assert "#   ignore_startup_parameters" in done.stdout
    target = tmp_path / "dualpool.toml"
    dualpool("config", "import", str(tmp_path / "pgbouncer.ini"), "-o", str(target))
    assert target.read_text() == done.stdout
    assert target.stat().st_mode & 0o777 == 0o600
    assert "ok (1 listener, 2 backends, 3 databases, 3 users)" in dualpool("config", "check", str(target)).stdout
    with Pooler(done.stdout) as pooler:
        assert_served(pooler.port(), server, new_user)


def test_an_ini_runs_as_it_is_and_is_read_again(server: PostgresServer, new_user: str, tmp_path: Path) -> None:
    path = ini(server, tmp_path, f"pidfile = {tmp_path}/pid\nlogfile = {tmp_path}/log\n")
    pooler = Pooler(arguments=[str(path)])
    with pooler:
        pooler.wait_for_log('listener .*"postgres.*" listening on 127')
        wait_until(lambda: pid_in(tmp_path) == pooler.pid, "its pid file")
        assert_served(pooler.port(), server, new_user)
        path.write_text(path.read_text().replace("other = ", "third = "))
        pooler.reload()
        pooler.wait_for_log("configuration reloaded")
        assert who(pooler.port(), new_user, "app", "third") == ("app", "app")
    assert not (tmp_path / "pid").exists()
    assert "configuration reloaded" in (tmp_path / "log").read_text()


def test_keys_are_set_by_pgbouncers_names_until_the_next_reload(server: PostgresServer, tmp_path: Path) -> None:
    with Pooler(arguments=[str(ini(server, tmp_path))]) as pooler:
        pooler.wait_for_log("listening on 127")
        with psycopg.connect(pooler.url("console:secret", "pgbouncer"), autocommit=True) as console:

            def shown(key: str) -> object:
                return {row[0]: row[1] for row in console.execute("SHOW CONFIG")}[key]

            def size() -> object:
                return {row[0]: row[5] for row in console.execute("SHOW DATABASES")}["app"]

            assert (shown("default_pool_size"), size()) == ("5", 5)
            assert console.execute("SET default_pool_size = 1").statusmessage == "SET default_pool_size=1"
            assert (shown("default_pool_size"), size()) == ("1", 1)
            assert console.execute("SET query_wait_timeout = 0.5").statusmessage == "SET query_wait_timeout=0.5"
            with psycopg.connect(pooler.url()) as one, psycopg.connect(pooler.url()) as two:
                one.execute("SELECT 1")
                with pytest.raises(psycopg.OperationalError, match="server connection"):
                    two.execute("SELECT 1")
            console.execute("SET admin_users = 'console,app'")
            with psycopg.connect(pooler.url(database="pgbouncer"), autocommit=True) as other:
                other.execute("SET log_connections = 0")
            with pytest.raises(psycopg.Error, match="SET failed: server_round_robin: the connection that was used last"):
                console.execute("SET server_round_robin = 1")
            with pytest.raises(psycopg.Error, match="SET failed: listen_port: takes effect after a restart"):
                console.execute("SET listen_port = 1")
            console.execute("RELOAD")
            assert (shown("default_pool_size"), shown("log_connections"), shown("admin_users"), size()) == ("5", "1", "console", 5)


def test_the_console_user_of_the_unix_socket(server: PostgresServer, tmp_path: Path) -> None:
    with Pooler(arguments=[str(ini(server, tmp_path))]) as pooler:
        pooler.wait_for_log("listening on unix:")
        # No driver looks for a socket with port 0.
        (tmp_path / ".s.PGSQL.5997").symlink_to(tmp_path / ".s.PGSQL.0")
        with psycopg.connect(host=str(tmp_path), port=5997, user="pgbouncer", dbname="pgbouncer", autocommit=True) as client:
            assert {row[0] for row in client.execute("SHOW DATABASES")} >= {"app", "other"}
        # By TCP there is no such user.
        with pytest.raises(psycopg.OperationalError):
            who(pooler.port(), "pgbouncer", "pgbouncer", "pgbouncer")


def test_pgbouncers_command_line(postgres15: PostgresServer, tmp_path: Path) -> None:
    path = tmp_path / "pgbouncer.ini"
    socket_place = f"unix_socket_dir = {tmp_path}\nlisten_port = 5998\n"
    databases = f"[databases]\n* = host={postgres15.host} port={postgres15.port}\n[pgbouncer]\n{socket_place}auth_type = trust\n"
    (tmp_path / "userlist.txt").write_text('"app" "app"\n')
    path.write_text(databases + f"auth_file = {tmp_path}/userlist.txt\n")
    assert "daemon needs pidfile" in dualpool("pgbouncer", "-q", "-d", str(path), code=2).stderr
    with path.open("a") as file:
        file.write(f"pidfile = {tmp_path}/pid\nlogfile = {tmp_path}/log\n")
    assert "there is no user" in dualpool("pgbouncer", "-u", "no-such-user", str(path), code=2).stderr
    assert dualpool("pgbouncer", "-V").stdout.startswith("dualpool ")

    def start(*options: str) -> int:
        before = pid_in(tmp_path)
        dualpool("pgbouncer", "-d", "-v", *options, str(path))
        wait_until(lambda: listening(tmp_path) and pid_in(tmp_path) not in {0, before}, "the daemon listens")
        return pid_in(tmp_path)

    first = start()
    pids = [first]
    try:
        with psycopg.connect(host=str(tmp_path), port=5998, user="app", dbname="app") as client:
            assert client.execute("SELECT session_user").fetchone() == ("app",)
        assert f"the process {first} runs already" in dualpool("pgbouncer", "-d", str(path), code=2).stderr
        assert "pidfile" not in (tmp_path / "log").read_text(), "there is nothing to remark on what is done"
        (tmp_path / "log").unlink()
        second = start("-R")
        pids.append(second)
        assert second != first
        with psycopg.connect(host=str(tmp_path), port=5998, user="app", dbname="app") as client:
            assert client.execute("SELECT 1").fetchone() == (1,)
    finally:
        for pid in pids:
            if process.running_pid(str(tmp_path / "pid")) == pid:
                os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (tmp_path / "pid").exists(), "the daemon has ended")


def listening(folder: Path) -> bool:
    log = folder / "log"
    return log.exists() and "listening on" in log.read_text()


def pid_in(folder: Path) -> int:
    """Who has written the pid file; 0 if nobody has, or is about to."""
    try:
        return int((folder / "pid").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def test_an_imported_proxysql_cnf_runs(mysql_server: MySQLServer, tmp_path: Path) -> None:
    user = mysql_server.create_user(plugin="mysql_native_password") if mysql_server.is_mariadb else mysql_server.create_user()
    path = tmp_path / "proxysql.cnf"
    path.write_text(
        f"""
datadir="/var/lib/proxysql"
admin_variables = {{ admin_credentials="admin:admin" mysql_ifaces="127.0.0.1:6032" }}
mysql_variables =
{{
    threads=4
    max_connections=100
    interfaces="127.0.0.1:0"
    default_query_timeout=36000000
    connect_timeout_server_max=10000
}}
mysql_servers =
(
    {{ address = "{mysql_server.host}" port = {mysql_server.port} hostgroup = 0 max_connections = 5 }}
)
mysql_users: ( {{ username = "{user}" , password = "app" , default_hostgroup = 0 , active = 1 }} )
mysql_query_rules: ( {{ rule_id=1 active=1 match_pattern="^SELECT" destination_hostgroup=1 apply=1 }} )
"""
    )
    try:
        done = dualpool("config", "import", str(path))
        assert "mysql_query_rules: queries are not routed" in done.stderr
        with Pooler(done.stdout) as pooler:
            place: dict[str, Any] = {"host": "127.0.0.1", "port": pooler.port("mysql"), "user": user, "connect_timeout": int(DEADLINE)}
            with pymysql.connect(**place, password="app", database="app") as client:
                cursor = client.cursor()
                cursor.execute("SELECT DATABASE(), USER()")
                database, name = cursor.fetchone()  # type: ignore[misc]
                assert (database, name.partition("@")[0]) == ("app", user)
            with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
                pymysql.connect(**place, password="wrong")
    finally:
        mysql_server.drop_user(user)
