"""Logins through dualpool with real drivers: every plugin on either side, TLS on either leg, and what is refused."""

import ssl
from collections.abc import Iterator
from typing import Any

import mysql.connector
import pymysql
import pytest

from tests.e2e.mysql_world import World, rows, value, world
from tests.e2e.postgres_world import wait_until
from tests.helpers.certificates import Certificates
from tests.helpers.servers import MySQLServer, Servers, client_tls, unique

PASSWORD = "s3cret"
ACCESS_DENIED = 1045
TOO_MANY = 1040


@pytest.fixture(scope="module")
def certificates(servers: Servers) -> Certificates:
    return Certificates(servers.folder(unique("tls")))


@pytest.fixture(scope="module")
def hashes(servers: Servers) -> dict[str, str]:
    """The stored forms of PASSWORD, as servers keep them."""
    stored = {}
    for name, server in (("native", servers.mariadb()), ("sha2", servers.mysql())):
        user = server.create_user(password=PASSWORD)
        stored[name] = stored_password(server, user)
        server.drop_user(user)
    return stored


@pytest.fixture(scope="module")
def open_world(mysql_server: MySQLServer, certificates: Certificates, hashes: dict[str, str]) -> Iterator[World]:
    """One dualpool with listeners with and without TLS, users with each kind of secret, and any database."""
    own = certificates.issue("localhost", "127.0.0.1")
    tls = f'cert = "{own.cert}", key = "{own.key}"'
    more = f"""
[listeners.tls]
protocol = "mysql"
bind = "127.0.0.1:0"
tls = {{ mode = "prefer", {tls} }}

[listeners.tls-only]
protocol = "mysql"
bind = "127.0.0.1:0"
tls = {{ mode = "require", {tls} }}

[databases.every]
name = "*"
backend = "shop"

[users.plain]
password = "{PASSWORD}"

[users.native]
password = "{hashes["native"]}"

[users.sha2]
password = "{hashes["sha2"]}"

[users.rotating]
password = ["old", "{PASSWORD}"]
"""
    with world(mysql_server, 2, more) as made:
        yield made


def driver(name: str, made: World, listener: str, certificates: Certificates, **replaced: Any) -> Any:
    """A connection of PyMySQL or mysql-connector, with TLS where the listener has it."""
    options: dict[str, Any] = {**made.address(listener), "password": PASSWORD, **replaced}
    if name == "pymysql":
        if listener != "mysql":
            options["ssl"] = client_tls(certificates)
        return pymysql.connect(**options, autocommit=True)
    if listener != "mysql":
        options |= {"ssl_ca": str(certificates.ca), "ssl_verify_cert": True, "ssl_verify_identity": True}
    return mysql.connector.connect(**options, use_pure=True, collation="utf8mb4_general_ci", ssl_disabled=listener == "mysql")


LOGINS = [
    (name, user, listener)
    for name in ("pymysql", "connector")
    for user in ("plain", "native", "sha2", "rotating")
    for listener in ("mysql", "tls", "tls-only")
    # mysql-connector has no RSA, so nothing but TLS would do; a MySQL server refuses it as well.
    if (name, user, listener) != ("connector", "sha2", "mysql")
]


@pytest.mark.parametrize(("name", "user", "listener"), LOGINS)
def test_logins(open_world: World, certificates: Certificates, name: str, user: str, listener: str) -> None:
    client = driver(name, open_world, listener, certificates, user=user)
    cursor = client.cursor()
    cursor.execute("SELECT SUBSTRING_INDEX(USER(), '@', 1), DATABASE()")
    assert list(cursor.fetchall()) == [(open_world.user, open_world.database)]
    cursor.close()
    client.close()


@pytest.mark.parametrize("listener", ["mysql", "tls"])
def test_every_refusal_is_the_same(open_world: World, certificates: Certificates, listener: str) -> None:
    said = set()
    wrong: list[dict[str, str]] = [
        {"user": "plain", "password": "wrong"},
        {"user": "native", "password": "wrong"},
        {"user": "sha2", "password": "wrong"},
        {"user": "nobody", "password": PASSWORD},
    ]
    for account in wrong:
        with pytest.raises(pymysql.err.OperationalError) as caught:
            driver("pymysql", open_world, listener, certificates, **account)
        assert caught.value.args[0] == ACCESS_DENIED
        said.add(caught.value.args[1].replace(account["user"], "USER"))
    assert len(said) == 1
    open_world.assert_unharmed()


def test_an_unknown_database_is_refused_like_a_wrong_password(each_mysql: World) -> None:
    said = []
    for account in ({"password": "wrong"}, {"database": "no_such_database"}, {"user": "nobody", "database": "no_such_database"}):
        with pytest.raises(pymysql.err.OperationalError) as caught:
            each_mysql.connect(**account)
        said.append(caught.value.args)
    assert [code for code, _ in said] == [ACCESS_DENIED] * 3
    assert said[0] == said[1]


def test_tls_is_required(open_world: World) -> None:
    with pytest.raises(pymysql.err.OperationalError) as caught:
        open_world.connect("tls-only", user="plain", password=PASSWORD, ssl_disabled=True)
    assert caught.value.args[0] != ACCESS_DENIED
    with pytest.raises(pymysql.err.OperationalError):
        # An authority that did not issue this certificate.
        open_world.connect("tls", user="plain", password=PASSWORD, ssl=ssl.create_default_context())
    open_world.assert_unharmed()


def test_no_database_at_login(open_world: World) -> None:
    with open_world.connect(user="plain", password=PASSWORD, database=None, autocommit=True) as client:
        assert value(client, "SELECT 1") == 1
        client.select_db(open_world.database)
        assert [value(client, "SELECT DATABASE()") for _ in range(3)] == [open_world.database] * 3


def test_the_number_of_clients_is_limited(mysql: MySQLServer) -> None:
    with world(mysql, 1, "[limits]\nmax_client_connections = 3") as small:
        clients = [small.connect(autocommit=True) for _ in range(3)]
        with pytest.raises(pymysql.err.OperationalError, match="max_client_connections") as caught:
            small.connect()
        assert caught.value.args[0] == TOO_MANY
        assert [value(client, "SELECT 1") for client in clients] == [1, 1, 1]
        clients.pop().close()
        small.pooler.wait_for_log("too many clients")
        wait_until(small.is_served, "dualpool has seen that one left")


# -------------------------------------------------------------------------------------------------------------- at the server


def test_plugins_and_tls_at_the_server(mysql_server: MySQLServer) -> None:
    plugins = ["caching_sha2_password"]
    if mysql_server.is_mariadb:
        plugins = ["mysql_native_password", "ed25519"]
        if not mysql_server.execute("SELECT 1 FROM information_schema.plugins WHERE plugin_name = 'ed25519'"):
            mysql_server.execute("INSTALL SONAME 'auth_ed25519'")
    users = {f"{plugin}-{mode}": mysql_server.create_user(None, PASSWORD, plugin) for plugin in plugins for mode in ("disable", "require")}
    more = "".join(
        f"""
[backends.{name}]
url = "{mysql_server.url_for(user=user, password=PASSWORD, sslmode=name.rpartition("-")[2])}"
[databases.{name}]
backend = "{name}"
database = "{mysql_server.database}"
pool_size = 1
"""
        for name, user in users.items()
    )
    with world(mysql_server, 1, more) as made:
        for name, user in users.items():
            with made.connect(database=name, autocommit=True) as client:
                assert value(client, "SELECT SUBSTRING_INDEX(USER(), '@', 1)") == user
                [(_, cipher)] = rows(client, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
                assert (cipher != "") == name.endswith("-require")
    for user in users.values():
        mysql_server.drop_user(user)


@pytest.mark.parametrize("server", ["mysql", "mariadb"])
def test_a_client_s_login_opens_the_server(servers: Servers, certificates: Certificates, server: str) -> None:
    """Pass-through: only a hash is known, and what the client's login reveals serves at the server."""
    behind: MySQLServer = getattr(servers, server)()
    user = behind.create_user(password=PASSWORD)
    try:
        stored = stored_password(behind, user)
        own = certificates.issue("127.0.0.1")
        more = f"""
[backends.own-users]
url = "mysql://{behind.host}:{behind.port}"

[databases.own]
backend = "own-users"
database = "{behind.database}"
pool_size = 1

[listeners.tls]
protocol = "mysql"
bind = "127.0.0.1:0"
tls = {{ mode = "prefer", cert = "{own.cert}", key = "{own.key}" }}

[users.{user}]
password = "{stored}"
"""
        with world(behind, 1, more) as made:
            login = {"user": user, "password": PASSWORD, "database": "own", "autocommit": True}
            for listener in ("mysql", "tls"):
                options = {"ssl": client_tls(certificates)} if listener == "tls" else {}
                with made.connect(listener, **login, **options) as client:
                    assert value(client, "SELECT SUBSTRING_INDEX(USER(), '@', 1)") == user
            with pytest.raises(pymysql.err.OperationalError) as caught:
                made.connect(**{**login, "password": "wrong"})
            assert caught.value.args[0] == ACCESS_DENIED
    finally:
        behind.drop_user(user)


def stored_password(server: MySQLServer, user: str) -> str:
    """What the server stores of a user's password; in hexadecimal where it is not text."""
    form = "authentication_string" if server.is_mariadb else "CONCAT('0x', HEX(authentication_string))"
    [(found,)] = server.execute(f"SELECT {form} FROM mysql.user WHERE user = %s", user)
    return str(found)
