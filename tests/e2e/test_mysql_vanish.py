"""Ends of connections: clients that vanish wherever they are, server connections that are killed, a server that restarts."""

import contextlib
import socket
import struct

import pymysql
import pytest

from tests.e2e.mysql_world import OURS, Client, RunWorld, World, rows, value, world
from tests.e2e.postgres_world import DEADLINE, in_thread, wait_until
from tests.helpers.servers import MySQLServer, Servers


def vanish(client: Client, reset: bool = False) -> None:
    """Cut the connection off without a goodbye. `reset`: as a crashed machine's successor would, with RST."""
    sock = client._sock
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        sock.shutdown(socket.SHUT_RDWR)
    client._force_close()


@pytest.fixture
def table(each_mysql: World) -> str:
    """An empty table."""
    each_mysql.execute("CREATE TABLE IF NOT EXISTS vanishing (n INT, s VARCHAR(100)) ENGINE=InnoDB")
    each_mysql.execute("DELETE FROM vanishing")
    return "vanishing"


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_in_the_middle_of_a_query(each_mysql: World, reset: bool) -> None:
    client = each_mysql.connect()
    client._execute_command(3, "SELECT 1 FROM (SELECT 1) t WHERE SLEEP(600) /* to vanish */")
    each_mysql.wait_until_running("to vanish")
    vanish(client, reset)
    wait_until(lambda: not each_mysql.server_connections("info LIKE '%to vanish%'"), "the query stopped")
    each_mysql.wait_until_rested()
    each_mysql.assert_unharmed()


@pytest.mark.parametrize("listener", ["mysql", "session"])
def test_in_the_middle_of_a_transaction(each_mysql: World, table: str, listener: str) -> None:
    client = each_mysql.connect(listener)
    client.begin()
    rows(client, f"INSERT INTO {table} VALUES (1, 'never committed')")
    wait_until(lambda: each_mysql.open_transactions() == 1, "its transaction, and no other")
    vanish(client)
    each_mysql.wait_until_rested()
    assert each_mysql.execute(f"SELECT * FROM {table}") == []
    each_mysql.assert_unharmed(listener)


def test_in_the_middle_of_a_result(each_mysql: World) -> None:
    client = each_mysql.connect()
    client._execute_command(3, "SELECT REPEAT('x', 1000) FROM information_schema.collations a, information_schema.collations b")
    client._read_packet()
    vanish(client, reset=True)
    each_mysql.wait_until_rested()
    each_mysql.assert_unharmed()


def test_in_the_middle_of_a_packet(each_mysql: World, table: str) -> None:
    client = each_mysql.connect(autocommit=True)
    value(client, "SELECT 1")
    text = f"INSERT INTO {table} VALUES (1, 'half a packet')".encode()
    client._sock.sendall(struct.pack("<I", len(text) + 1 + 500_000) + b"\3" + text + b" " * 400_000)
    vanish(client)
    each_mysql.wait_until_rested()
    assert each_mysql.execute(f"SELECT * FROM {table}") == []
    each_mysql.assert_unharmed()


@pytest.mark.parametrize("missing", [0, 5], ids=["between packets", "in a packet"])
def test_in_the_middle_of_a_local_file(each_mysql: World, table: str, missing: int) -> None:
    client = each_mysql.connect(autocommit=True, local_infile=True)
    client._execute_command(3, f"LOAD DATA LOCAL INFILE 'x' INTO TABLE {table}")
    assert client._read_packet().get_all_data()[:1] == b"\xfb"
    line = b"1\tfrom a file\n"
    client._sock.sendall(struct.pack("<I", len(line) + missing | 2 << 24) + line)
    vanish(client)
    each_mysql.wait_until_rested()
    # As at a server: the file ends there, or nothing of it is loaded. Either way there is no half row.
    assert each_mysql.execute(f"SELECT * FROM {table}") in ([], [(1, "from a file")])
    each_mysql.assert_unharmed()


def test_while_waiting_for_a_server_connection(run_mysql: RunWorld, mysql: MySQLServer) -> None:
    one = run_mysql(mysql, pool_size=1)
    with one.connect() as holder:
        waiting = one.connect(autocommit=True)
        holder.begin()
        rows(holder, "SELECT 1")
        waiting._execute_command(3, "CREATE TABLE never_made (n INT)")
        vanish(waiting)
        holder.commit()
        one.assert_unharmed()
    assert one.execute("SHOW TABLES") == []


def test_locks_and_variables_of_a_client_that_vanished_are_gone(each_mysql: World) -> None:
    client = each_mysql.connect("session", autocommit=True)
    rows(client, "SET @secret = 'mine', SESSION group_concat_max_len = 4321")
    assert value(client, f"SELECT GET_LOCK('a lock{OURS}', 5)") == 1
    vanish(client)
    with each_mysql.connect("session", autocommit=True) as other:
        wait_until(lambda: value(other, f"SELECT IS_FREE_LOCK('a lock{OURS}')") == 1, "the lock free")
    clients = [each_mysql.connect("session", autocommit=True) for _ in range(3)]
    for one in clients:
        assert rows(one, "SELECT @secret, @@group_concat_max_len = @@global.group_concat_max_len") == [(None, 1)]
    for one in clients:
        one.close()


# ------------------------------------------------------------------------------------------------------------ server connections


def kill_all(target: World) -> None:
    """End all server connections, as an administrator would."""
    for number in target.server_connections():
        target.execute(f"KILL {number}")


def test_idle_server_connections_that_are_killed_are_replaced(each_mysql: World) -> None:
    with each_mysql.connect(autocommit=True) as client:
        value(client, "SELECT 1")
        before = set(each_mysql.server_connections())
        kill_all(each_mysql)
        wait_until(lambda: not before & set(each_mysql.server_connections()), "the connections gone")

        def works() -> bool:
            # The server's goodbye may still be on its way when the next query is.
            try:
                return bool(value(client, "SELECT 1") == 1)
            except pymysql.err.MySQLError:
                client.connect()
                return False

        wait_until(works, "a query answered")


@pytest.mark.parametrize("listener", ["mysql", "session"])
def test_a_server_connection_that_is_killed_takes_its_client_with_it(each_mysql: World, listener: str) -> None:
    client = each_mysql.connect(listener)
    work = in_thread(lambda: rows(client, "SELECT 1 FROM (SELECT 1) t WHERE SLEEP(600) /* taken along */"))
    [number] = each_mysql.wait_until_running("taken along")
    with each_mysql.connect(autocommit=True) as other:
        each_mysql.execute(f"KILL {number}")
        with pytest.raises(pymysql.err.MySQLError):
            work.result()
        with pytest.raises(pymysql.err.MySQLError):
            value(client, "SELECT 1")
        assert value(other, "SELECT 'undisturbed'") == "undisturbed"


def test_a_transaction_whose_server_connection_is_killed_is_not_continued(each_mysql: World, table: str) -> None:
    with each_mysql.connect() as client:
        client.begin()
        rows(client, f"INSERT INTO {table} VALUES (1, 'first')")
        number = value(client, "SELECT CONNECTION_ID() + 0 AS processlist_id")
        each_mysql.execute(f"KILL {number}")
        wait_until(lambda: number not in each_mysql.server_connections(), "the connection gone")
        with pytest.raises(pymysql.err.MySQLError):
            rows(client, f"INSERT INTO {table} VALUES (2, 'second')")
            client.commit()
        client._force_close()
    assert each_mysql.execute(f"SELECT * FROM {table}") == []
    each_mysql.assert_unharmed()


def test_a_server_restarts(servers: Servers) -> None:
    server = servers.own_mariadb()
    assert server.embedded is not None
    with world(server, more='[timeouts]\nserver_login_retry = "50ms"\nquery_wait = "60s"') as ours:
        client = ours.connect(autocommit=True)
        assert value(client, "SELECT 1") == 1
        ours.admin.close()
        server.embedded.stop()
        work = in_thread(lambda: value(client, "SELECT 'after the restart'"))
        server.embedded.start()
        ours.admin.connect()
        # If it asked before dualpool had heard that the server was gone, or in the time when it refuses everybody, it is told so.
        with contextlib.suppress(pymysql.err.OperationalError):
            assert work.result(2 * DEADLINE) == "after the restart"
        with ours.connect(autocommit=True) as again:
            assert value(again, "SELECT 'again'") == "again"
        if client.open:
            client.close()
    server.embedded.stop()
