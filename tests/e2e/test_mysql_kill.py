"""KILL: by the ids that clients know, which are dualpool's. It stops the query that was meant, and never another client's."""

import pymysql
import pytest

from tests.e2e.mysql_world import Client, RunWorld, World, rows, value
from tests.e2e.postgres_world import Background, in_thread, wait_until
from tests.helpers.servers import MySQLServer

INTERRUPTED = 1317
UNKNOWN_THREAD = 1094


def slow(client: Client, note: str) -> Background:
    """A statement that ends in an error when it is killed (as SELECT SLEEP() alone would not)."""
    return in_thread(lambda: rows(client, f"SELECT 1 FROM (SELECT 1) t WHERE SLEEP(600) /* {note} */"))


def interrupted(work: Background) -> bool:
    """Did it end because it was killed?"""
    with pytest.raises(pymysql.err.MySQLError) as caught:
        work.result()
    return int(caught.value.args[0]) == INTERRUPTED


def test_kill_query_by_the_id_that_the_client_knows(each_mysql: World) -> None:
    with each_mysql.connect() as victim, each_mysql.connect() as other, each_mysql.connect() as killer:
        assert value(victim, "SELECT CONNECTION_ID()") == victim.thread_id()
        busy, undisturbed = slow(victim, "victim"), slow(other, "other")
        each_mysql.wait_until_running("victim")
        each_mysql.wait_until_running("other")
        rows(killer, f"KILL QUERY {victim.thread_id()}")
        assert interrupted(busy)
        assert len(each_mysql.wait_until_running("other")) == 1
        assert not undisturbed.is_done()
        assert value(victim, "SELECT 'lives on'") == "lives on"
        rows(killer, f"KILL QUERY {other.thread_id()}")
        assert interrupted(undisturbed)
    each_mysql.wait_until_rested()


def test_kill_query_does_not_end_a_transaction(each_mysql: World) -> None:
    each_mysql.execute("CREATE TABLE IF NOT EXISTS kept (n INT) ENGINE=InnoDB")
    each_mysql.execute("DELETE FROM kept")
    with each_mysql.connect() as victim, each_mysql.connect() as killer:
        victim.begin()
        rows(victim, "INSERT INTO kept VALUES (1)")
        busy = slow(victim, "in transaction")
        each_mysql.wait_until_running("in transaction")
        rows(killer, f"KILL QUERY {victim.thread_id()}")
        assert interrupted(busy)
        victim.commit()
    assert each_mysql.execute("SELECT n FROM kept") == [(1,)]


def test_kill_query_of_an_idle_client_harms_nobody(each_mysql: World) -> None:
    with each_mysql.connect(autocommit=True) as idle, each_mysql.connect(autocommit=True) as killer:
        value(idle, "SELECT 1")
        for _ in range(20):
            rows(killer, f"KILL QUERY {idle.thread_id()}")
            assert value(killer, "SELECT 'whole'") == "whole"
        assert value(idle, "SELECT 'whole'") == "whole"


def test_kill_by_the_id_that_the_server_s_process_list_shows(each_mysql: World) -> None:
    # (In latin1 everything can be shown, whatever others run.)
    with each_mysql.connect() as victim, each_mysql.connect(autocommit=True, charset="latin1") as killer:
        for kill, lives in (("KILL QUERY", True), ("KILL", False)):
            busy = slow(victim, "to be found")
            each_mysql.wait_until_running("to be found")
            shown = {row[7]: row[0] for row in rows(killer, "SHOW FULL PROCESSLIST")}
            [found] = [number for text, number in shown.items() if text and "to be found" in text and "processlist" not in text]
            rows(killer, f"{kill} {found}")
            if lives:
                assert interrupted(busy)
                victim.rollback()
        with pytest.raises(pymysql.err.MySQLError):
            busy.result()
        with pytest.raises(pymysql.err.MySQLError):
            value(victim, "SELECT 1")
    each_mysql.wait_until_rested()


def test_a_session_that_keeps_its_server_connection_is_known_by_the_server_s_id(each_mysql: World) -> None:
    with each_mysql.connect("session") as victim, each_mysql.connect(autocommit=True) as killer:
        number = value(victim, "SELECT CONNECTION_ID()")
        assert number in each_mysql.server_connections()
        assert value(victim, "SELECT CONNECTION_ID() + 0") == number
        busy = slow(victim, "session")
        each_mysql.wait_until_running("session")
        rows(killer, f"KILL QUERY {number}")
        assert interrupted(busy)
        rows(killer, f"KILL {victim.thread_id()}")
        with pytest.raises(pymysql.err.MySQLError):
            value(victim, "SELECT 1")
    each_mysql.wait_until_rested()


def test_kill_of_an_unknown_id(each_mysql: World) -> None:
    # The ids of dualpool's server connections mean who holds them now: nobody does.
    with each_mysql.connect(autocommit=True) as client:
        value(client, "SELECT 1")
        for unknown in (*each_mysql.server_connections(), 2**31 - 1):
            with pytest.raises(pymysql.err.MySQLError) as caught:
                rows(client, f"KILL QUERY {unknown}")
            assert caught.value.args[0] == UNKNOWN_THREAD
        assert value(client, "SELECT 1") == 1


@pytest.mark.parametrize("by_command", [False, True], ids=["statement", "command"])
def test_kill_connection_ends_the_client(each_mysql: World, by_command: bool) -> None:
    with each_mysql.connect(autocommit=True) as killer:
        idle, victim = each_mysql.connect(autocommit=True), each_mysql.connect()
        victim.begin()
        busy = slow(victim, "to be ended")
        each_mysql.wait_until_running("to be ended")
        for client in (idle, victim):
            if by_command:
                killer.kill(client.thread_id())
            else:
                rows(killer, f"KILL {client.thread_id()}")
        with pytest.raises(pymysql.err.MySQLError):
            busy.result()
        for client in (idle, victim):
            with pytest.raises(pymysql.err.MySQLError):
                value(client, "SELECT 1")
        assert value(killer, "SELECT 'alive'") == "alive"
    each_mysql.wait_until_rested()


def test_a_client_that_waits_for_a_server_connection_can_be_killed(run_mysql: RunWorld, mysql: MySQLServer) -> None:
    world = run_mysql(mysql, pool_size=1)
    with world.connect() as holder, world.connect(autocommit=True) as waiting, world.connect(autocommit=True) as killer:
        holder.begin()
        rows(holder, "SELECT 1")
        work = in_thread(lambda: value(waiting, "SELECT 'waited'"))

        def killed() -> bool:
            rows(killer, f"KILL QUERY {waiting.thread_id()}")
            return work.is_done()

        wait_until(killed, "the waiting query killed")
        assert interrupted(work)
        holder.rollback()
        assert value(waiting, "SELECT 'lives on'") == "lives on"
