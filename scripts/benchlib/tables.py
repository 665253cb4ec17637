"""The tables that the loads read and write: made once, directly on the server, and dropped at the end by the run that made them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pymysql

from benchlib.cases import ROWS
from benchlib.model import LeftOut, Server
from benchlib.programs import last_of

SCALE = 16
"""pgbench's: as many branches as clients, or TPC-B measures lock waits (pgbench's documentation)."""
QUICK_SCALE = 1
MYSQL_TABLES = 4


@contextmanager
def tables(server: Server, *, quick: bool) -> Iterator[tuple[str, ...]]:
    """Have the tables until the block ends; yields what sysbench must be told about them (pgbench finds out itself)."""
    if server.engine == "postgres":
        made = _make_postgres(server, QUICK_SCALE if quick else SCALE)
        shape: tuple[str, ...] = ()
    else:
        made, shape = _make_mysql(server)
    try:
        yield shape
    finally:
        if made and server.engine == "postgres":
            run([*pgbench_command(server, server.port), "-i", "-I", "d"], server)
        elif made:
            run([*sysbench_command(server, server.port), *shape, "oltp_read_write", "cleanup"], server)


def _make_postgres(server: Server, scale: int) -> bool:
    with postgres_connection(server, server.port) as connection:
        found = connection.execute("select to_regclass('pgbench_accounts')").fetchone()
    if found and found[0]:
        return False
    run([*pgbench_command(server, server.port), "-i", "-q", "-s", str(scale)], server)
    return True


def _make_mysql(server: Server) -> tuple[bool, tuple[str, ...]]:
    with mysql_connection(server, server.port) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select table_name from information_schema.tables where table_schema = database() and table_name regexp '^sbtest[0-9]+$'"
        )
        count = len(cursor.fetchall())
        size = ROWS
        if count:
            cursor.execute("select count(*) from sbtest1")
            size = int((cursor.fetchone() or (0,))[0])
    shape = (f"--tables={count or MYSQL_TABLES}", f"--table-size={size}", "--rand-type=uniform")
    if count:
        return False, shape
    run([*sysbench_command(server, server.port), *shape, "oltp_read_write", "prepare"], server)
    return True, shape


def postgres_connection(server: Server, port: int) -> "psycopg.Connection[tuple[object, ...]]":
    """A connection without TLS, in autocommit mode."""
    return psycopg.connect(
        host=server.host, port=port, user=server.user, password=server.password, dbname=server.database, sslmode="disable", autocommit=True
    )


def mysql_connection(server: Server, port: int) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    """A connection without TLS, in autocommit mode."""
    return pymysql.connect(
        host=server.host,
        port=port,
        user=server.user,
        password=server.password,
        database=server.database,
        ssl_disabled=True,
        autocommit=True,
    )


def pgbench_command(server: Server, port: int) -> list[str]:
    """pgbench and where it connects; the password and TLS are in environment()."""
    return ["pgbench", "-n", "-h", server.host, "-p", str(port), "-U", server.user, server.database]


def sysbench_command(server: Server, port: int) -> list[str]:
    """sysbench and where it connects: without TLS, so its MariaDB client library sends the password encrypted with the server's RSA key."""
    return [
        "sysbench",
        "--db-driver=mysql",
        f"--mysql-host={server.host}",
        f"--mysql-port={port}",
        f"--mysql-user={server.user}",
        f"--mysql-password={server.password}",
        f"--mysql-db={server.database}",
        "--mysql-ssl=off",
    ]


def environment(server: Server) -> dict[str, str]:
    """For PostgreSQL's programs."""
    return {**os.environ, "PGPASSWORD": server.password, "PGSSLMODE": "disable", "LC_ALL": "C.UTF-8"}


def run(command: list[str], server: Server) -> None:
    """Run to the end. Raises LeftOut with what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment(server), check=False)
    if done.returncode:
        raise LeftOut(f"{command[0]}: {last_of(done.stderr or done.stdout)}")
