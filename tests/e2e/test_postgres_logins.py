"""Logins through dualpool with real drivers: every method on either side, TLS on either leg, and what is refused."""

import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dualpool.postgres import wire
from tests.e2e.postgres_raw import Raw, query
from tests.e2e.postgres_world import DEADLINE, LISTENERS, RunWorld, World, wait_until, world
from tests.helpers.certificates import Certificates
from tests.helpers.pooler import Pooler
from tests.helpers.servers import PostgresServer, Servers, unique

PASSWORD = "s3cret"


@pytest.fixture(scope="module")
def postgres(servers: Servers) -> PostgresServer:
    return servers.postgres(15)


@pytest.fixture(scope="module")
def certificates(servers: Servers) -> Certificates:
    return Certificates(servers.folder(unique("tls")))


@pytest.fixture(scope="module")
def verifiers(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """A user's stored password in each form, as the server keeps it."""
    user = postgres.create_user(unique("stored"), PASSWORD)
    scram = postgres.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", user)[0][0]
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        admin.execute("SET password_encryption = 'md5'")
        admin.execute(f"CREATE ROLE {user}_md5 LOGIN PASSWORD '{PASSWORD}'")
    md5 = postgres.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", f"{user}_md5")[0][0]
    yield {"user": user, "scram": scram, "md5": md5}
    postgres.drop_user(user)
    postgres.drop_user(f"{user}_md5")


@pytest.fixture(scope="module")
def open_world(postgres: PostgresServer, certificates: Certificates, verifiers: dict[str, str]) -> Iterator[World]:
    """One dualpool with a listener for each way to log in, TLS among them; everybody works as `app` at the server."""
    own = certificates.issue("localhost", "127.0.0.1")
    tls = f'cert = "{own.cert}", key = "{own.key}", client_ca = "{certificates.ca}"'
    methods = "".join(
        f'[listeners.by-{method}]\nprotocol = "postgres"\nbind = "127.0.0.1:0"\nauth = "{method}"\ntls = {{ mode = "prefer", {tls} }}\n'
        for method in ("auto", "password", "md5", "scram-sha-256", "cert")
    )
    more = f"""{methods}
[auth]
failed_login_delay = "0s"

[listeners.by-tls-only]
protocol = "postgres"
bind = "127.0.0.1:0"
tls = {{ mode = "require", {tls} }}

[listeners.by-verified]
protocol = "postgres"
bind = "127.0.0.1:0"
auth = "cert"
tls = {{ mode = "verify-full", {tls} }}

[users.plain]
password = "{PASSWORD}"

[users.verifier]
password = "{verifiers["scram"]}"

[users.{verifiers["user"]}_md5]
password = "{verifiers["md5"]}"

[users.rotating]
password = ["old", "new"]

[users.certified]

[users."odd name ü"]
password = "pässwörd %"
"""
    with world(postgres, 2, more) as made:
        yield made


def who(world: World, listener: str, user: str, password: str | None = PASSWORD, **options: object) -> str:
    """Log in, and return the user that dualpool works as at the server."""
    account = {"user": user, "password": password, "dbname": "app", "host": "localhost", "hostaddr": "127.0.0.1"}
    with psycopg.connect(port=world.pooler.port(listener), **{**account, **options}) as client:  # type: ignore[arg-type]
        row = client.execute("SELECT current_user").fetchone()
        assert row is not None
        return str(row[0])


METHODS = [("by-auto", "plain"), ("by-auto", "verifier"), ("by-password", "plain"), ("by-password", "verifier"), ("by-md5", "plain"),
           ("by-scram-sha-256", "plain"), ("by-scram-sha-256", "verifier")]  # fmt: skip


@pytest.mark.parametrize("sslmode", ["disable", "require"])
@pytest.mark.parametrize(("listener", "user"), METHODS)
def test_each_method_lets_in_with_the_password_and_only_with_it(open_world: World, listener: str, user: str, sslmode: str) -> None:
    assert who(open_world, listener, user, sslmode=sslmode) == "app"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        who(open_world, listener, user, "wrong", sslmode=sslmode)


def test_an_md5_hash_is_enough(open_world: World, verifiers: dict[str, str]) -> None:
    for listener in ("by-md5", "by-auto"):
        assert who(open_world, listener, verifiers["user"] + "_md5") == "app"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            who(open_world, listener, verifiers["user"] + "_md5", "wrong")


def test_any_of_several_passwords_and_odd_names(open_world: World) -> None:
    for password in ("old", "new"):
        assert who(open_world, "by-auto", "rotating", password) == "app"
    with pytest.raises(psycopg.OperationalError):
        who(open_world, "by-auto", "rotating", "neither")
    assert who(open_world, "by-auto", "odd name ü", "pässwörd %") == "app"


def test_scram_binds_to_the_channel(open_world: World, certificates: Certificates) -> None:
    bound = {"channel_binding": "require", "sslmode": "verify-full", "sslrootcert": str(certificates.ca)}
    for user in ("plain", "verifier"):
        assert who(open_world, "by-scram-sha-256", user, **bound) == "app"
    with pytest.raises(psycopg.OperationalError):
        who(open_world, "by-scram-sha-256", "plain", "wrong", **bound)
    with pytest.raises(psycopg.OperationalError, match="channel binding"):
        who(open_world, "by-password", "plain", **bound)


def test_direct_tls(open_world: World, certificates: Certificates) -> None:
    assert psycopg.pq.version() >= 170000
    direct = {"sslnegotiation": "direct", "sslmode": "verify-full", "sslrootcert": str(certificates.ca)}
    assert who(open_world, "by-tls-only", "plain", **direct) == "app"


def test_client_certificates(open_world: World, certificates: Certificates) -> None:
    own = certificates.issue("certified@example.org", common_name="certified")
    other = certificates.issue("plain@example.org", common_name="plain")
    files = {"sslmode": "require", "sslcert": str(own.cert), "sslkey": str(own.key)}
    for listener in ("by-cert", "by-verified"):
        assert who(open_world, listener, "certified", None, **files) == "app"
        with pytest.raises(psycopg.OperationalError):
            who(open_world, listener, "certified", None, sslmode="require", sslcert=str(other.cert), sslkey=str(other.key))
    with pytest.raises(psycopg.OperationalError):
        who(open_world, "by-cert", "certified", None, sslmode="disable")


def test_a_listener_that_wants_tls_turns_plain_text_away(open_world: World) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"TLS|SSL|encrypt"):
        who(open_world, "by-tls-only", "plain", sslmode="disable")
    assert who(open_world, "by-tls-only", "plain", sslmode="require") == "app"


def test_a_big_result_a_copy_and_a_cancel_over_tls(open_world: World) -> None:
    options = {"user": "plain", "password": PASSWORD, "dbname": "app", "host": "127.0.0.1", "sslmode": "require"}
    with psycopg.connect(port=open_world.pooler.port("by-auto"), autocommit=True, **options) as client:
        assert client.pgconn.ssl_in_use
        rows = client.execute("SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n").fetchall()
        assert [row[0] for row in rows] == list(range(1, 20001))
        with client.transaction(force_rollback=True):
            client.execute("CREATE TEMP TABLE lines (line text)")
            with client.cursor().copy("COPY lines FROM STDIN") as copy:
                for _ in range(200):
                    copy.write(b"y" * 60_000 + b"\n")
            assert client.execute("SELECT sum(length(line)) FROM lines").fetchone() == (12_000_000,)
        client.execute("SET statement_timeout = '20ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(600)")


def test_unknown_users_and_databases_and_wrong_passwords_get_the_same_answer(open_world: World) -> None:
    def answer(user: str, dbname: str, password: str, listener: str) -> str:
        with pytest.raises(psycopg.OperationalError) as refused:
            who(open_world, listener, user, password, dbname=dbname, sslmode="disable")
        return re.sub(r"[\w ]*\"?(plain|nobody)\"?", "USER", str(refused.value).partition("FATAL")[2])

    for listener in ("by-auto", "by-password", "by-md5", "by-scram-sha-256"):
        wrong = answer("plain", "app", "wrong", listener)
        assert "USER" in wrong
        assert answer("nobody", "app", "wrong", listener) == wrong
        assert answer("nobody", "app", PASSWORD, listener) == wrong
        assert answer("plain", "no such database", PASSWORD, listener) == wrong
        assert answer("nobody", "no such database", "wrong", listener) == wrong


# --------------------------------------------------------------------------------------------------------------- at the server


@pytest.mark.parametrize(
    ("user", "password", "options"),
    [
        ("app_trust", "", ""),
        ("app_password", "app", ""),
        ("app_md5", "app", ""),
        ("app", "app", ""),
        ("app_tls", "app", "?sslmode=require"),
        ("app_tls", "app", "?sslmode=verify-full&sslrootcert={ca}"),
        ("app_cert", "", "?sslmode=verify-full&sslrootcert={ca}&sslcert={cert}&sslkey={key}"),
        ("app", "app", "?sslmode=disable"),
    ],
)
def test_each_way_to_log_in_at_the_server(postgres: PostgresServer, user: str, password: str, options: str, run_world: RunWorld) -> None:
    assert postgres.certificates is not None
    assert postgres.user_certificate is not None
    paths = {"ca": postgres.certificates.ca, "cert": postgres.user_certificate.cert, "key": postgres.user_certificate.key}
    account = f"{user}:{password}" if password else user
    world = run_world(postgres, backend=f"postgresql://{account}@127.0.0.1:{postgres.port}/{{database}}{options.format(**paths)}")
    with world.connect() as client:
        # The server offers TLS and sslmode=prefer is the default.
        encrypted = "sslmode=disable" not in options
        assert client.execute("SELECT current_user, (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())").fetchone() == (
            user,
            encrypted,
        )


def test_a_certificate_of_a_stranger_is_refused(postgres: PostgresServer, certificates: Certificates, run_world: RunWorld) -> None:
    backend = f"postgresql://app:app@127.0.0.1:{postgres.port}/{{database}}?sslmode=verify-full&sslrootcert={certificates.ca}"
    world = run_world(postgres, backend=backend)
    with pytest.raises(psycopg.OperationalError, match="certificate"):
        world.connect()


def test_over_unix_sockets_on_both_sides(servers: Servers, postgres_server: PostgresServer, run_world: RunWorld) -> None:
    folder = servers.folder(unique("socket"))
    more = f'[listeners.unix]\nprotocol = "postgres"\nbind = "unix:{folder}/.s.PGSQL.6543"\n'
    backend = f"postgresql://app:app@/{{database}}?host={postgres_server.socket_dir}&port={postgres_server.port}"
    world = run_world(postgres_server, 2, more, backend)
    with psycopg.connect(host=str(folder), port=6543, user="app", password="app", dbname="app", autocommit=True) as client:
        assert client.execute("SELECT inet_client_addr()").fetchone() == (None,)
        world.wait_until_rested()
    world.assert_unharmed()
    path = Path(folder, ".s.PGSQL.6543")
    assert path.is_socket()
    world.pooler.stop()
    assert not path.exists()


PASS_THROUGH = """
[backends.main]
url = "postgresql://127.0.0.1:{port}?sslmode={sslmode}"

[databases.app]
backend = "main"
pool_size = 2

[users.{user}]
password = "{stored}"
"""


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_a_verifier_is_enough_to_log_in_at_the_server_as_the_client(
    postgres: PostgresServer, verifiers: dict[str, str], sslmode: str
) -> None:
    toml = LISTENERS + PASS_THROUGH.format(port=postgres.port, user=verifiers["user"], stored=verifiers["scram"], sslmode=sslmode)
    with Pooler(toml) as pooler:
        for _ in range(2):
            with psycopg.connect(pooler.url(f"{verifiers['user']}:{PASSWORD}")) as client:
                assert client.execute("SELECT session_user, current_database()").fetchone() == (verifiers["user"], "app")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(pooler.url(f"{verifiers['user']}:wrong"))


def test_what_the_server_refuses_is_told_with_its_reason(run_world: RunWorld, postgres: PostgresServer) -> None:
    world = run_world(postgres, backend=f"postgresql://app:wrong@127.0.0.1:{postgres.port}/{{database}}")
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match='refused the login of user "app"'):
            world.connect()
    assert time.monotonic() - began < DEADLINE, "as long as query_wait, had it been waited for"
    assert "wrong@" not in world.pooler.log


# ----------------------------------------------------------------------------------------------------------- limits of the door


def test_max_client_connections(run_world: RunWorld, postgres: PostgresServer) -> None:
    world = run_world(postgres, 2, "[limits]\nmax_client_connections = 3")
    clients = [world.connect() for _ in range(3)]
    with pytest.raises(psycopg.OperationalError, match=r"too many clients.*max_client_connections") as refused:
        world.connect()
    assert "FATAL" in str(refused.value)
    clients.pop().close()
    wait_until(lambda: can_connect(world), "room for one more client")
    for client in clients:
        assert client.execute("SELECT 1").fetchone() == (1,)
        client.close()


def can_connect(world: World) -> bool:
    try:
        world.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def test_replication_connections_pass_through(postgres_server: PostgresServer, run_world: RunWorld) -> None:
    world = run_world(postgres_server, 1)
    with world.connect(autocommit=False) as holder, psycopg.connect(world.url(), replication="database", autocommit=True) as client:
        holder.execute("SELECT 1")
        row = client.execute("IDENTIFY_SYSTEM").fetchone()
        assert row is not None
        assert row[3] == world.database
        client.execute("CREATE_REPLICATION_SLOT passing TEMPORARY PHYSICAL")
        assert world.server.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'passing'") == [(1,)]
    wait_until(lambda: world.server.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)], "the slot is gone with its client")
    wait_until(lambda: len(world.server_connections()) <= 1, "the replication connection is closed")


def test_streaming_replication(postgres_server: PostgresServer, run_world: RunWorld) -> None:
    world = run_world(postgres_server, 1)
    world.execute("CREATE TABLE streamed (line text)")
    with Raw(world.pooler.port("trust")).log_in(replication="database") as client:
        client.ask(query("CREATE_REPLICATION_SLOT streaming TEMPORARY PHYSICAL RESERVE_WAL"))
        # Not the position that is written, which may be ahead of what is flushed: nothing is streamed from there.
        begin = world.server.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
        client.send(query(f"START_REPLICATION SLOT streaming PHYSICAL {begin}"))
        client.until("W")
        world.execute("INSERT INTO streamed SELECT 'a needle' FROM generate_series(1, 100)")  # (the end of a page may be amid one)
        streamed = b""
        while b"a needle" not in streamed:
            kind, payload = client.message()
            assert kind == "d", payload
            streamed += payload
        status = struct.pack("!cQQQQB", b"r", 0, 0, 0, 0, 1)
        client.send(wire.message(wire.COPY_DATA, status))
        while client.message()[1][:1] != b"k":
            pass
        client.vanish()
    wait_until(lambda: world.server.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)], "the slot is gone with its client")
    world.assert_unharmed()
