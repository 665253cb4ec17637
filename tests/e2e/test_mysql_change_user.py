"""COM_CHANGE_USER: a new login on an old connection. Nothing of the session before is left, and nobody else notices."""

import contextlib
from collections.abc import Iterator

import mysql.connector
import pymysql
import pytest
from pymysql.constants import CLIENT, COMMAND

from dualpool.mysql import auth, wire
from tests.e2e.mysql_world import OURS, Client, RunWorld, World, rows, value
from tests.e2e.postgres_world import wait_for, wait_until
from tests.helpers.certificates import Certificates
from tests.helpers.servers import MySQLServer, Servers, client_tls, unique

DENIED = 1045
TOO_MANY = 1040
TOO_LONG = 1153
NOT_ALLOWED = 1227
UNKNOWN_STATEMENT = 1243
CHOICE = b"\x2d\0" + auth.NATIVE.encode() + b"\0"
"""utf8mb4, and the plugin."""

MORE = """
[listeners.tls]
protocol = "mysql"
bind = "127.0.0.1:0"
tls = {{ mode = "require", cert = "{own.cert}", key = "{own.key}" }}

[databases.other]
backend = "shop"
database = "{other}"
pool_size = 1

[users.second]
password = "second's own"

[users.narrow]
password = "app"
max_client_connections = 1
"""


@pytest.fixture(scope="module")
def certificates(servers: Servers) -> Certificates:
    return Certificates(servers.folder(unique("tls")))


@pytest.fixture
def small(mysql_server: MySQLServer, run_mysql: RunWorld, certificates: Certificates) -> Iterator[World]:
    """One server connection for each of two databases, `app` and `other`; three users."""
    with mysql_server.temporary_database() as other:
        made = run_mysql(mysql_server, 1, MORE.format(other=other, own=certificates.issue("localhost", "127.0.0.1")))
        made.execute(f"CREATE TABLE {other}.here (n INT)")
        yield made
        made.close_clients()
        made.wait_until_rested()


def change_user(client: Client, user: str = "app", password: str = "app", database: str = "app", *, behind: bytes = b"") -> bytes:
    """COM_CHANGE_USER, packet for packet, as PyMySQL does not know it. `behind`: what the client sends together with its proof."""
    ask(client, user, database)
    packet = client._read_packet()
    assert packet.is_auth_switch_request()
    nonce = packet.get_all_data()[2 + len(auth.NATIVE) :][:20]
    token = auth.native_token(auth.native_stage1(password), nonce)
    client._write_bytes(wire.packet(2, token) + behind)
    client._next_seq_id = 3
    answer: bytes = client._read_packet().get_all_data()
    return answer


def ask(client: Client, user: str, database: str) -> None:
    """The first packet of it."""
    end = b"\0" if client.client_flag & CLIENT.CONNECT_ATTRS else b""
    client._execute_command(COMMAND.COM_CHANGE_USER, b"%s\0\0%s\0" % (user.encode(), database.encode()) + CHOICE + end)


def is_closed(client: Client) -> bool:
    """Has dualpool closed the connection?"""
    with pytest.raises(pymysql.err.OperationalError) as caught:
        client._read_packet()
    return caught.value.args[0] in {2006, 2013}


def refused(client: Client, **as_whom: str) -> int:
    """The number of the error that the client is told before the connection is closed."""
    with pytest.raises(pymysql.err.MySQLError) as caught:
        change_user(client, **as_whom)
    assert is_closed(client)
    return int(caught.value.args[0])


def who(client: Client) -> tuple[str, bool]:
    """The schema, and whether it is that of `other`."""
    return str(value(client, "SELECT DATABASE()")), bool(rows(client, "SHOW TABLES LIKE 'here'"))


def test_another_user_in_another_database(small: World) -> None:
    with small.connect(autocommit=True) as client, small.connect(autocommit=True) as witness:
        number = value(client, "SELECT CONNECTION_ID()")
        assert who(client) == (small.database, False)
        change_user(client, "second", "second's own", "other")
        assert who(client)[1]
        assert value(client, "SELECT CONNECTION_ID()") == number
        assert who(witness) == (small.database, False)
        change_user(client)
        assert who(client) == (small.database, False)


def test_nothing_of_the_session_is_left(small: World) -> None:
    small.execute("CREATE TABLE kept (n INT) ENGINE=InnoDB")
    with small.connect(autocommit=True) as client, small.connect(autocommit=True) as other:
        [(standard,)] = small.execute("SELECT @@global.group_concat_max_len")
        rows(client, "SET SESSION group_concat_max_len = 4444, @mine = 'mine'")
        rows(client, "CREATE TEMPORARY TABLE own (n INT)")
        rows(client, "PREPARE own_statement FROM 'SELECT 1'")
        assert value(client, f"SELECT GET_LOCK('change_user{OURS}', 0)") == 1
        rows(client, "BEGIN")
        rows(client, "INSERT INTO kept VALUES (1)")
        change_user(client)
        assert value(client, "SELECT @@group_concat_max_len") == standard
        assert value(client, "SELECT @mine") is None
        assert value(client, "SELECT COUNT(*) FROM kept") == 0
        assert value(other, f"SELECT IS_FREE_LOCK('change_user{OURS}')") == 1
        for gone in ("SELECT * FROM own", "EXECUTE own_statement"):
            with pytest.raises(pymysql.err.MySQLError):
                rows(client, gone)


def test_a_transaction_is_rolled_back_even_if_the_login_fails(small: World) -> None:
    small.execute("CREATE TABLE kept (n INT) ENGINE=InnoDB")
    client = small.connect(autocommit=True)
    rows(client, "BEGIN")
    rows(client, "INSERT INTO kept VALUES (1)")
    assert refused(client, password="wrong") == DENIED
    small.wait_until_rested()
    assert small.execute("SELECT * FROM kept") == []
    small.assert_unharmed()


def test_prepared_statements_are_gone(small: World) -> None:
    with small.connector() as client, contextlib.closing(client.cursor(prepared=True)) as cursor:
        cursor.execute("SELECT %s", ("before",))
        assert cursor.fetchall() == [("before",)]
        client.cmd_change_user("app", "app", "app", charset=45)
        with pytest.raises(mysql.connector.Error) as caught:
            cursor.execute("SELECT %s", ("after",))
        assert caught.value.errno == UNKNOWN_STATEMENT


@pytest.mark.parametrize(
    "as_whom",
    [
        {"password": "wrong"},
        {"user": "nobody"},
        {"database": "nothing"},
        {"user": "second"},
        {"user": "second", "password": "app", "database": "other"},
        {"database": "dualpool"},
    ],
)
def test_who_is_not_let_in_is_cut_off(small: World, as_whom: dict[str, str]) -> None:
    with small.connect(autocommit=True) as witness:
        rows(witness, "SET @mine = 'mine'")
        assert refused(small.connect(autocommit=True), **as_whom) in {DENIED, NOT_ALLOWED}
        assert value(witness, "SELECT @mine") == "mine"
    small.assert_unharmed()


def test_a_token_of_the_login_before_is_no_proof(small: World) -> None:
    client = small.connect(autocommit=True)
    ask(client, "app", "app")
    assert client._read_packet().is_auth_switch_request()
    client.write_packet(auth.native_token(auth.native_stage1("app"), client.salt[:20]))
    with pytest.raises(pymysql.err.OperationalError) as caught:
        client._read_packet()
    assert caught.value.args[0] == DENIED


def test_limits_count_whom_the_client_is_now(small: World) -> None:
    with small.connect(autocommit=True) as client:
        change_user(client, "narrow")
        change_user(client, "narrow")
        other = small.connect(autocommit=True)
        assert refused(other, user="narrow") == TOO_MANY
        change_user(client)
        with small.connect(autocommit=True) as again:
            change_user(again, "narrow")
            assert value(again, "SELECT 1") == 1
        assert value(client, "SELECT 1") == 1


def test_what_comes_behind_the_proof_is_answered(small: World) -> None:
    with small.connect(autocommit=True) as client:
        query = wire.packet(0, bytes((COMMAND.COM_QUERY,)) + b"SELECT 'behind'")
        assert change_user(client, database="other", behind=query)[0] == 0
        client._next_seq_id = 1
        result = pymysql.connections.MySQLResult(client)
        result.read()
        assert result.rows == (("behind",),)


def test_again_and_again_while_others_work(small: World) -> None:
    with small.connect(autocommit=True) as client, small.connect(autocommit=True) as witness:
        for n in range(30):
            database = "other" if n % 2 else "app"
            rows(client, "BEGIN")
            change_user(client, database=database)
            assert who(client)[1] == (database == "other")
            assert value(witness, "SELECT @@in_transaction" if small.server.is_mariadb else "SELECT 0") == 0
            assert who(witness) == (small.database, False)
    small.wait_for_server_connections(2)


def test_in_session_mode(small: World) -> None:
    with small.connect("session", autocommit=True) as client:
        rows(client, "SET @mine = 'mine'")
        change_user(client)
        assert value(client, "SELECT @mine") is None


def test_over_tls(small: World, certificates: Certificates) -> None:
    with small.connect("tls", autocommit=True, ssl=client_tls(certificates)) as client:
        rows(client, "BEGIN")
        query = wire.packet(0, bytes((COMMAND.COM_QUERY,)) + b"SELECT 1")
        change_user(client, "second", "second's own", "other", behind=query)
        client._next_seq_id = 1
        pymysql.connections.MySQLResult(client).read()
        assert who(client)[1]
        assert refused(client, password="wrong") == DENIED


def test_a_client_that_vanishes_in_the_middle(small: World) -> None:
    client = small.connect(autocommit=True)
    rows(client, "BEGIN")
    ask(client, "app", "app")
    assert client._read_packet().is_auth_switch_request()
    client._force_close()
    small.assert_unharmed()


def test_a_client_that_is_killed_in_the_middle(small: World) -> None:
    client = small.connect(autocommit=True)
    ask(client, "app", "app")
    assert client._read_packet().is_auth_switch_request()
    with small.connect(autocommit=True) as killer:
        rows(killer, f"KILL {client.thread_id()}")
    assert is_closed(client)
    small.assert_unharmed()


def test_a_request_that_is_cut_or_too_long(small: World) -> None:
    for text, errno in ((b"app", 0), (b"app\0\xff", 0), (b"a" * 50_000 + b"\0", TOO_LONG)):
        client = small.connect(autocommit=True)
        client._execute_command(COMMAND.COM_CHANGE_USER, text)
        with pytest.raises(pymysql.err.MySQLError) as caught:
            client._read_packet()
        assert caught.value.args[0] == errno or not errno
        assert is_closed(client)
    small.assert_unharmed()


def test_the_login_has_its_time(mysql_server: MySQLServer, run_mysql: RunWorld) -> None:
    world = run_mysql(mysql_server, 1, '[timeouts]\nclient_login = "500ms"\n')
    client = wait_for(lambda: quick_login(world), lambda found: found is not None, "a login that is quick enough")
    assert client is not None
    ask(client, "app", "app")
    assert client._read_packet().is_auth_switch_request()
    with pytest.raises(pymysql.err.MySQLError) as caught:
        client._read_packet()
    assert "timeouts.client_login" in caught.value.args[1]
    wait_until(world.is_served, "a login that is quick enough")


def quick_login(world: World) -> "Client | None":
    """A client, if its login has not taken too long."""
    try:
        return world.connect(autocommit=True)
    except pymysql.err.MySQLError:
        return None


@pytest.mark.parametrize("plugin", ["mysql_native_password", "caching_sha2_password"])
def test_mysql_connector(small: World, plugin: str) -> None:
    with small.connector(auth_plugin=plugin) as client:
        client.cmd_query("SET @mine = 'mine'")
        client.cmd_change_user("second", "second's own", "other", charset=45)
        with contextlib.closing(client.cursor()) as cursor:
            cursor.execute("SELECT @mine")
            assert cursor.fetchall() == [(None,)]
            cursor.execute("SHOW TABLES LIKE 'here'")
            assert len(cursor.fetchall()) == 1
        with pytest.raises(mysql.connector.Error) as caught:
            client.cmd_change_user("second", "wrong", "other", charset=45)
        assert caught.value.errno == DENIED
