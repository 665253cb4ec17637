"""The tables that the loads read and write: made once, directly on the server, and dropped at the end by the run that made them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def check_login(server: Server) -> None:
    """Raises LeftOut with the server's own words if it does not let us in."""
    try:
        if server.engine == "postgres":
            postgres_connection(server, server.port).close()
        else:
            mysql_connection(server, server.port).close()
    except (psycopg.Error, pymysql.MySQLError, OSError) as error:
        raise LeftOut(f"{server.engine}: {' '.join(str(error).split())}; say who logs in with --{server.engine} URL") from None


def unix_socket(server: Server) -> str:
    """The server's Unix socket, as parameters of a url of dualpool's. Raises LeftOut if it has none that can be reached from here."""
    if server.engine == "postgres":
        with postgres_connection(server, server.port) as postgres:
            (found,) = postgres.execute("show unix_socket_directories").fetchone() or ("",)
        folder = str(found).split(",")[0].strip(' "')
        path, parameters = Path(folder, f".s.PGSQL.{server.port}"), f"host={folder}&port={server.port}"
    else:
        with mysql_connection(server, server.port) as mysql, mysql.cursor() as cursor:
            cursor.execute("select @@socket")
            (found,) = cursor.fetchone() or ("",)
        path, parameters = Path(str(found)), f"host={found}"
    if not path.is_absolute() or not path.is_socket():
        raise LeftOut(f"the server's Unix socket ({path}) is not to be found here")
    return parameters


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
