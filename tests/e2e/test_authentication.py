"""Who may come in: users' files, rules by host, auth_query, pass-through, load balancers; at real servers with real drivers."""

import contextlib
import getpass
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymysql
import pytest

from tests.e2e.postgres_world import DEADLINE, in_thread, wait_until
from tests.helpers.certificates import Certificates
from tests.helpers.pooler import Pooler
from tests.helpers.servers import MySQLServer, PostgresServer

HEAD = """
[listeners.postgres]
protocol = "postgres"
bind = {bind}
{listener}

[backends.main]
url = "{url}"
{backend}

[databases."*"]
backend = "main"
"""


def toml(server: PostgresServer, *, bind: str = '"127.0.0.1:0"', listener: str = "", backend: str = "", more: str = "") -> str:
    """Every database of the server, where each client's own user logs in. `more`: other tables."""
    url = f"postgresql://{server.host}:{server.port}?sslmode=disable"
    return HEAD.format(bind=bind, listener=listener, url=url, backend=backend) + more


AT_ONCE = 'failed_login_delay = "0s"\n'
AUTH_QUERY = 'auth_user = "postgres"\nauth_password = "postgres"'


def connect(
    pooler: Pooler, user: str = "app", password: str = "app", database: str = "app", **options: object
) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(
        host="127.0.0.1",
        port=pooler.port(),
        user=user,
        password=password,
        dbname=database,
        autocommit=True,
        **options,  # type: ignore[arg-type]
    )


def log_in(pooler: Pooler, user: str, password: str) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    """The same at the listener of MySQL."""
    return pymysql.connect(host="127.0.0.1", port=pooler.port("mysql"), user=user, password=password, connect_timeout=int(DEADLINE))


def who(pooler: Pooler, user: str, password: str = "app", **options: object) -> object:
    """Log in, and ask the server who that is."""
    with connect(pooler, user, password, **options) as client:
        row = client.execute("SELECT session_user").fetchone()
        assert row is not None
        return row[0]


def lets_in(pooler: Pooler, user: str, password: str) -> bool:
    try:
        connect(pooler, user, password).close()
    except psycopg.OperationalError:
        return False
    return True


def refused(pooler: Pooler, user: str, password: str = "app", **options: object) -> str:
    """What a client is told that does not get in."""
    with pytest.raises(psycopg.OperationalError) as error:
        connect(pooler, user, password, **options)
    return str(error.value).partition("FATAL: ")[2].strip() or str(error.value)


@pytest.fixture
def new_user(postgres_server: PostgresServer) -> Iterator[str]:
    """A role of the server, with password `app`."""
    name = postgres_server.create_user()
    try:
        yield name
    finally:
        postgres_server.drop_user(name)


# ------------------------------------------------------------------------------------------------------------------ userlist


def test_users_of_a_userlist(postgres_server: PostgresServer, tmp_path: Path) -> None:
    [(verifier,)] = postgres_server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    md5 = postgres_server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'app_md5'")[0][0]
    userlist = tmp_path / "userlist.txt"
    userlist.write_text(f'; comment\n"app" "{verifier}" more\n"app_md5" "{md5}"\n"app_password" "app"\n"quo""ted" "x"\n')
    with Pooler(toml(postgres_server, more=f'[auth]\nuserlist = "{userlist}"\n')) as pooler:
        # A verifier and an md5 hash let a client in and log in at the server, without the password ever being known.
        assert [who(pooler, user) for user in ("app", "app_md5", "app_password")] == ["app", "app_md5", "app_password"]
        messages = {refused(pooler, user, "wrong") for user in ("app", "nobody", 'quo"ted')}
        assert messages == {f'password authentication failed for user "{user}"' for user in ("app", "nobody", 'quo"ted')}
        userlist.write_text('"app" "app"\n')
        pooler.reload()
        pooler.wait_for_log("configuration reloaded")
        assert who(pooler, "app") == "app"
        assert "authentication failed" in refused(pooler, "app_md5")


# ---------------------------------------------------------------------------------------------------------------- auth_query


def test_users_that_only_the_server_knows(postgres_server: PostgresServer, new_user: str) -> None:
    with Pooler(toml(postgres_server, backend=AUTH_QUERY)) as pooler:
        assert who(pooler, new_user) == new_user
        assert who(pooler, "app_md5") == "app_md5"
        for user, password in ((new_user, "wrong"), ("nobody", "app"), ("nobody", "")):
            if password:
                assert refused(pooler, user, password) == f'password authentication failed for user "{user}"'
        assert "auth_query" not in pooler.log


def test_a_new_password_counts_at_the_second_login_at_the_latest(postgres_server: PostgresServer, new_user: str) -> None:
    with Pooler(toml(postgres_server, backend=AUTH_QUERY, more='[auth]\nquery_ttl = "1h"\nfailed_login_delay = "0s"\n')) as pooler:
        assert who(pooler, new_user) == new_user
        postgres_server.execute(f"ALTER ROLE \"{new_user}\" PASSWORD 'new'")
        # An answer that is younger than a second is not doubted, so that guessing passwords asks the server nothing.
        wait_until(lambda: lets_in(pooler, new_user, "new"), "the new password")
        assert "authentication failed" in refused(pooler, new_user, "app")


def test_a_password_whose_time_is_over_opens_nothing(postgres_server: PostgresServer, new_user: str) -> None:
    """CVE-2025-2291."""
    postgres_server.execute(f"ALTER ROLE \"{new_user}\" VALID UNTIL '2001-01-01'")
    with Pooler(toml(postgres_server, backend=AUTH_QUERY + '\nconnect_query = "SELECT 1"')) as pooler:
        assert "authentication failed" in refused(pooler, new_user)
        postgres_server.execute(f"ALTER ROLE \"{new_user}\" VALID UNTIL 'infinity' NOLOGIN")
        assert "authentication failed" in refused(pooler, new_user)


def test_no_client_chooses_where_auth_query_looks(postgres_server: PostgresServer, new_user: str) -> None:
    """CVE-2025-12819: a search_path in the start-up packet must not reach the session in which auth_query runs."""
    with postgres_server.temporary_database() as database:
        for schema, password in (("public", "app"), ("evil", "evil")):
            postgres_server.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}", database=database)
            sql = f"CREATE FUNCTION {schema}.lookup(text, OUT uname text, OUT phash text) AS $$ SELECT $1, '{password}' $$ LANGUAGE sql"
            postgres_server.execute(sql, database=database)
        query = AUTH_QUERY + '\nauth_query = "SELECT * FROM lookup($1)"'
        with Pooler(toml(postgres_server, backend=query, listener='auth = "password"', more="[auth]\n" + AT_ONCE)) as pooler:
            for options in ("-c search_path=evil", "-csearch_path=evil,public", "--search_path=evil"):
                assert "authentication failed" in refused(pooler, new_user, "evil", database=database, options=options)
                assert who(pooler, new_user, database=database, options=options) == new_user


def test_what_auth_query_may_return(postgres_server: PostgresServer) -> None:
    with postgres_server.temporary_database() as database:
        rows = "VALUES ('null', NULL), ('app', 'app'), (NULL, 'nobody')"
        sql = f"CREATE TABLE users AS SELECT * FROM ({rows}) AS rows(name, secret)"
        postgres_server.execute(sql, database=database)
        sql = "SELECT name, secret FROM users WHERE coalesce(name, 'anonymous') = $1"
        query = f'{AUTH_QUERY}\nauth_database = "lookup"\nauth_query = "{sql}"'
        more = f'[databases.lookup]\nbackend = "main"\ndatabase = "{database}"\n[auth]\nfailed_login_delay = "0s"\n'
        with Pooler(toml(postgres_server, backend=query, more=more)) as pooler:
            assert who(pooler, "app") == "app"
            for user in ("null", "anonymous", "app_md5", "'; DROP TABLE users; --"):
                assert "authentication failed" in refused(pooler, user)
            postgres_server.execute("ALTER TABLE users RENAME TO gone", database=database)
            told = refused(pooler, "someone")
            assert "could not be asked" in told
            assert "relation" not in told
            pooler.wait_for_log("does not exist")


def test_many_log_in_at_once_where_the_server_has_room_for_one(postgres15: PostgresServer) -> None:
    """auth_query needs a connection, and so does the client that it lets in: they have to take turns."""
    users = [postgres15.create_user() for _ in range(3)]
    backend = AUTH_QUERY + "\nbudget = 1\nreserved_maintenance = 0"
    try:
        with Pooler(toml(postgres15, backend=backend, more=f"[auth]\n{AT_ONCE}")) as pooler:
            logins = [in_thread(lambda user=user: who(pooler, user)) for user in users * 8]  # type: ignore[misc]
            assert [login.result() for login in logins] == users * 8
    finally:
        for user in users:
            postgres15.drop_user(user)


def test_auth_query_at_mysql(mysql_server: MySQLServer) -> None:
    user = mysql_server.create_user()
    native = mysql_server.create_user(plugin="mysql_native_password") if mysql_server.is_mariadb else ""
    text = f"""
[listeners.mysql]
protocol = "mysql"
bind = "127.0.0.1:0"
[backends.main]
url = "mysql://{mysql_server.host}:{mysql_server.port}"
auth_user = "{mysql_server.admin_user}"
auth_password = "{mysql_server.admin_password}"
[databases."*"]
backend = "main"
[auth]
failed_login_delay = "0s"
query_ttl = "500ms"
"""
    try:
        with Pooler(text) as pooler:

            def login(name: str, password: str) -> object:
                with contextlib.closing(log_in(pooler, name, password)) as client:
                    cursor = client.cursor()
                    cursor.execute("SELECT USER()")
                    return str(cursor.fetchone()[0]).partition("@")[0]  # type: ignore[index]

            for name in filter(None, (user, native)):
                assert login(name, "app") == name
            for name, password in ((user, "wrong"), ("nobody", "app"), (user, "")):
                with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
                    login(name, password)
            mysql_server.execute(f"ALTER USER '{user}'@'%' ACCOUNT LOCK")
            deadline = time.monotonic() + DEADLINE
            with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
                while time.monotonic() < deadline:
                    login(user, "app")
                    time.sleep(0.1)
    finally:
        for name in filter(None, (user, native)):
            mysql_server.drop_user(name)


# ----------------------------------------------------------------------------------------------------------------------- hba


def test_rules_by_host(postgres15: PostgresServer, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    own = certificates.issue("localhost", "127.0.0.1")
    mine = certificates.issue("robot@example.org", common_name="robot")
    (tmp_path / "pg_ident.conf").write_text("robots robot app\nlocals /^(.*)$ \\1_local\nlocals " + getpass.getuser() + " app\n")
    (tmp_path / "pg_hba.conf").write_text(
        """
# the first line that fits decides
local     all       all                      peer map=locals
hostssl   all       app_md5   127.0.0.1/32   md5
host      all       app_md5   all            reject
hostssl   app       app       127.0.0.0/8    cert map=robots
hostnossl "app"     app,"x"   127.0.0.1 255.255.255.255 password
host      sameuser  app_trust 127.0.0.1/32   trust
"""
    )
    text = toml(
        postgres15,
        bind=f'["127.0.0.1:0", "unix:{tmp_path}/dp.sock"]',
        listener=f'auth = "hba"\ntls = {{ cert = "{own.cert}", key = "{own.key}", client_ca = "{certificates.ca}" }}',
        backend=AUTH_QUERY,
        more=f'[auth]\nhba = "{tmp_path}/pg_hba.conf"\nident = "{tmp_path}/pg_ident.conf"\n{AT_ONCE}[users.app]\npassword = "app"\n',
    )
    tls = {"sslmode": "require", "sslrootcert": str(certificates.ca)}
    cert = {"sslcert": str(mine.cert), "sslkey": str(mine.key)}
    with Pooler(text) as pooler:
        assert who(pooler, "app", sslmode="disable") == "app"
        assert "has no entry" in refused(pooler, "app", database="postgres", sslmode="disable")
        assert "has no entry" in refused(pooler, "app_password", sslmode="disable")
        assert who(pooler, "app_md5", **tls) == "app_md5"
        assert "rejects the connection" in refused(pooler, "app_md5", sslmode="disable")
        assert who(pooler, "app", "", **tls, **cert) == "app"
        assert "certificate" in refused(pooler, "app", "", **tls)
        # By the Unix socket, as the user of the system that runs the tests.
        place = tmp_path / ".s.PGSQL.5999"
        place.symlink_to(tmp_path / "dp.sock")
        with psycopg.connect(host=str(tmp_path), port=5999, user="app", dbname="app") as client:
            assert client.execute("SELECT session_user").fetchone() == ("app",)
        with pytest.raises(psycopg.OperationalError, match="peer authentication failed"):
            psycopg.connect(host=str(tmp_path), port=5999, user="app_md5", dbname="app")


# -------------------------------------------------------------------------------------------------------------- pass-through


def test_the_clients_password_is_passed_through(postgres_server: PostgresServer, new_user: str) -> None:
    with Pooler(toml(postgres_server, more='[auth]\npassthrough = true\nfailed_login_delay = "0s"\nquery_ttl = "0s"\n')) as pooler:
        assert [who(pooler, user) for user in (new_user, "app", "app_md5")] == [new_user, "app", "app_md5"]
        # The pool has a connection that is logged in already; that must not let anybody in.
        for user in (new_user, "nobody"):
            assert "authentication failed" in refused(pooler, user, "wrong")
        postgres_server.execute(f"ALTER ROLE \"{new_user}\" PASSWORD 'new'")
        assert who(pooler, new_user, "new") == new_user
        assert "authentication failed" in refused(pooler, new_user, "app")


def test_pass_through_at_mysql(mysql_server: MySQLServer) -> None:
    user = mysql_server.create_user()
    text = f"""
[listeners.mysql]
protocol = "mysql"
bind = "127.0.0.1:0"
[backends.main]
url = "mysql://{mysql_server.host}:{mysql_server.port}"
[databases."*"]
backend = "main"
[auth]
passthrough = true
failed_login_delay = "0s"
"""
    try:
        with Pooler(text) as pooler:
            for _ in range(2):
                with contextlib.closing(log_in(pooler, user, "app")) as client:
                    cursor = client.cursor()
                    cursor.execute("SELECT 1")
                for name, password in ((user, "wrong"), ("nobody", "app")):
                    with pytest.raises(pymysql.err.OperationalError, match=r"(?i)denied|authentication failed"):
                        log_in(pooler, name, password)
    finally:
        mysql_server.drop_user(user)


def test_nothing_is_passed_through_where_the_server_user_is_fixed(postgres15: PostgresServer) -> None:
    text = toml(postgres15, more="[auth]\npassthrough = true\n").replace("postgresql://", "postgresql://app:app@")
    with Pooler(text) as pooler:
        assert "authentication failed" in refused(pooler, "app_password")


# ------------------------------------------------------------------------------------------------------------- failed logins


def test_failed_logins_are_slowed(postgres15: PostgresServer) -> None:
    more = '[users.app]\npassword = "app"\n[auth]\nfailed_login_delay = "3200ms"\n'
    with Pooler(toml(postgres15, more=more, listener='proxy_protocol = "127.0.0.1"')) as pooler:

        def attempt(address: str, password: str) -> float:
            began = time.monotonic()
            with balanced(pooler, f"PROXY TCP4 {address} 10.0.0.1 5 6\r\n".encode()) as (host, port):
                try:
                    psycopg.connect(host=host, port=port, user="app", password=password, dbname="app", sslmode="disable").close()
                except psycopg.OperationalError:
                    assert password != "app"
                else:
                    assert password == "app"
            return time.monotonic() - began

        for _ in range(8):
            attempt("10.1.1.1", "wrong")
        assert attempt("10.1.1.1", "wrong") >= 3.2
        # Neighbours notice nothing, and whoever knows the password in the end starts anew: three more failures are free. (The machine
        # may be slow, but not each time.)
        assert any(attempt("10.1.1.2", "app") < 3.2 for _ in range(5))
        assert attempt("10.1.1.1", "app") >= 3.2
        assert any(attempt("10.1.1.1", "wrong") < 3.2 for _ in range(3))


# ------------------------------------------------------------------------------------------------------------ PROXY protocol


@contextlib.contextmanager
def balanced(pooler: Pooler, header: bytes, listener: str = "postgres") -> Iterator[tuple[str, int]]:
    """A load balancer of one connection: the address at which a driver finds it. It sends `header` first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ends: list[socket.socket] = []

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        def run() -> None:
            with contextlib.suppress(OSError):
                client, _ = server.accept()
                upstream = socket.create_connection(("127.0.0.1", pooler.port(listener)))
                ends.extend((client, upstream))
                upstream.sendall(header)
                back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
                back.start()
                pump(client, upstream)
                back.join(DEADLINE)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[:2]
        finally:
            server.close()
            thread.join(DEADLINE)
            for end in ends:
                end.close()


def version_2(source: str, port: int, command: int = 0x21) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("10.0.0.1") + struct.pack("!HH", port, 6543)
    extension = b"\x04\x00\x02ok"
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", command, 0x11, len(addresses + extension)) + addresses + extension


@pytest.mark.parametrize("header", [b"PROXY TCP4 10.9.8.7 10.0.0.1 4711 6543\r\n", version_2("10.9.8.7", 4711)], ids=["v1", "v2"])
def test_the_address_survives_a_load_balancer(postgres15: PostgresServer, tmp_path: Path, header: bytes) -> None:
    (tmp_path / "hba").write_text("host all app 10.9.8.0/24 scram-sha-256\n")
    more = f'[users.app]\npassword = "app"\n[auth]\nhba = "{tmp_path}/hba"\n'
    text = toml(postgres15, listener='auth = "hba"\nproxy_protocol = ["127.0.0.0/8", "::1"]', more=more)
    with Pooler(text) as pooler, balanced(pooler, header) as (host, port):
        with psycopg.connect(host=host, port=port, user="app", password="app", dbname="app") as client:
            assert client.execute("SELECT 1").fetchone() == (1,)
        stranger = header.replace(b"10.9.8.7", b"10.9.9.7").replace(bytes((10, 9, 8, 7)), bytes((10, 9, 9, 7)))
        with balanced(pooler, stranger) as (host, port), pytest.raises(psycopg.OperationalError, match=r'host "10\.9\.9\.7"'):
            psycopg.connect(host=host, port=port, user="app", password="app", dbname="app")
        pooler.wait_for_log("login of 10.9.9.7:4711 failed")


def test_bad_headers_are_refused_and_nobody_else_notices(postgres15: PostgresServer) -> None:
    more = '[users.app]\npassword = "app"\n'
    with Pooler(toml(postgres15, listener='proxy_protocol = "127.0.0.1"', more=more)) as pooler:
        good = balanced(pooler, b"PROXY UNKNOWN\r\n")
        with good as (host, port), psycopg.connect(host=host, port=port, user="app", password="app", dbname="app") as client:
            ssl_request = b"\0\0\0\x08\x04\xd2\x16\x2f" + b"\0" * 20
            for junk in (b"PROXY TCP4 x y 1 2\r\n", b"PROXY " + b"A" * 200, ssl_request, version_2("1.2.3.4", 1, 0x31)):
                with socket.create_connection(("127.0.0.1", pooler.port()), timeout=DEADLINE) as sock:
                    sock.sendall(junk)
                    with contextlib.suppress(OSError):  # it may have been reset already
                        sock.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(ConnectionError):
                        assert sock.recv(1) == b""
            assert client.execute("SELECT 1").fetchone() == (1,)
        pooler.wait_for_log(r"(?s)(PROXY header.*){4}")


def test_whoever_is_no_load_balancer_may_not_claim_an_address(postgres15: PostgresServer) -> None:
    more = '[users.app]\npassword = "app"\n'
    with Pooler(toml(postgres15, listener='proxy_protocol = "192.0.2.0/24"', more=more)) as pooler:
        assert who(pooler, "app") == "app"
        with balanced(pooler, b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 6543\r\n") as (host, port), pytest.raises(psycopg.OperationalError):
            psycopg.connect(host=host, port=port, user="app", password="app", dbname="app")
