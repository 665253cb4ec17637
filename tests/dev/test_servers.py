"""The servers that tests use are what their names promise: versions, users, and ways to log in."""

import ssl

import psycopg
import pymysql
import pytest

from tests.helpers.servers import DatabaseServer, MySQLServer, PostgresServer, client_tls


def test_app_can_log_in_to_each_postgres(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchone() == ("app", "app")


def test_postgres_takes_200_clients(postgres_server: PostgresServer) -> None:
    assert postgres_server.execute("SHOW max_connections") == [("200",)]


@pytest.mark.parametrize(("user", "password"), [("app_md5", "app"), ("app_password", "app"), ("app_trust", "")])
def test_ways_to_log_in_to_postgres(postgres_server: PostgresServer, user: str, password: str) -> None:
    with psycopg.connect(postgres_server.url_for(user=user, password=password)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (user,)


def test_postgres_with_tls_checks_certificates(postgres15: PostgresServer) -> None:
    assert postgres15.certificates is not None
    assert postgres15.user_certificate is not None
    trust = {"sslmode": "verify-full", "sslrootcert": str(postgres15.certificates.ca)}
    with psycopg.connect(postgres15.url_for(user="app_tls", **trust)) as connection:
        assert connection.pgconn.ssl_in_use
    own = {"sslcert": str(postgres15.user_certificate.cert), "sslkey": str(postgres15.user_certificate.key)}
    with psycopg.connect(postgres15.url_for(user="app_cert", password="", **trust, **own)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("app_cert",)
    with pytest.raises(psycopg.OperationalError, match="reject"):
        psycopg.connect(postgres15.url_for(user="app_tls", sslmode="disable"))


def test_postgres_on_its_unix_socket(postgres_server: PostgresServer) -> None:
    assert postgres_server.socket_dir is not None
    with psycopg.connect(postgres_server.url, host=str(postgres_server.socket_dir)) as connection:
        assert connection.execute("SELECT inet_client_addr()").fetchone() == (None,)


def test_app_can_log_in_to_each_mysql(mysql_server: MySQLServer) -> None:
    with mysql_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user(), database(), @@max_connections >= 200")
        assert cursor.fetchall() == (("app@%", "app", 1),)


def test_mysql_and_mariadb_are_what_they_say(mysql: MySQLServer, mariadb: MySQLServer) -> None:
    assert "MariaDB" in mariadb.execute("SELECT VERSION()")[0][0]
    assert "MariaDB" not in mysql.execute("SELECT VERSION()")[0][0]


def test_mariadb_with_tls(mariadb: MySQLServer) -> None:
    assert mariadb.certificates is not None
    context = client_tls(mariadb.certificates)
    assert context.verify_mode == ssl.CERT_REQUIRED
    with mariadb.connect(ssl=context) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        assert cursor.fetchall()[0][1]


@pytest.mark.parametrize("plugin", ["", "caching_sha2_password", "mysql_native_password"])
def test_a_user_with_a_login_plugin(mysql_server: MySQLServer, plugin: str) -> None:
    if plugin == ("caching_sha2_password" if mysql_server.is_mariadb else "mysql_native_password"):
        with pytest.raises(pymysql.err.Error):
            mysql_server.create_user(plugin=plugin)
        return
    name = mysql_server.create_user(plugin=plugin, password="secret")
    try:
        mysql_server.connect(user=name, password="secret").close()
    finally:
        mysql_server.drop_user(name)


def databases(server: DatabaseServer) -> set[str]:
    query = "SELECT datname FROM pg_database" if server.scheme == "postgresql" else "SHOW DATABASES"
    return {row[0] for row in server.execute(query)}


def test_a_temporary_database_is_gone_afterwards(postgres15: PostgresServer, mariadb: MySQLServer) -> None:
    for server in (postgres15, mariadb):
        with server.temporary_database() as name:
            assert name in databases(server)
        assert name not in databases(server)
