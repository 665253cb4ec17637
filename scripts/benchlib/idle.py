"""Memory per idle client: so many clients log in, run one query, and stay."""

from collections.abc import Callable
from contextlib import ExitStack, suppress

import psycopg
import pymysql

from benchlib import proc
from benchlib.model import Endpoint, LeftOut, Server
from benchlib.tables import mysql_connection, postgres_connection

DIRECT_CLIENTS = 100
"""Without a pooler the server's own limit on connections is near, and each costs it a process or a thread."""


def clients_for(endpoint: Endpoint, wanted: int) -> int:
    """How many idle clients to measure with."""
    return wanted if endpoint.is_pooler else min(wanted, DIRECT_CLIENTS)


def measure(endpoint: Endpoint, clients: int) -> float:
    """KB of resident memory per idle client. Raises LeftOut if a client cannot connect."""
    enter = {"postgres": _enter_postgres, "mysql": _enter_mysql}[endpoint.server.engine]
    with ExitStack() as stay:
        try:
            enter(stay, endpoint.server, endpoint.port)  # the first one brings what is there once: a server connection, lazy imports
            before = proc.memory_kb(endpoint.pids)
            for _ in range(clients):
                enter(stay, endpoint.server, endpoint.port)
        except (psycopg.Error, pymysql.MySQLError, OSError) as error:
            raise LeftOut(f"{endpoint.name}: idle clients: {' '.join(str(error).split())}") from None
        return (proc.memory_kb(endpoint.pids) - before) / clients


def _enter_postgres(stay: ExitStack, server: Server, port: int) -> None:
    connection = postgres_connection(server, port)
    stay.callback(_quietly, connection.close)
    connection.execute("select 1")


def _enter_mysql(stay: ExitStack, server: Server, port: int) -> None:
    connection = mysql_connection(server, port)
    stay.callback(_quietly, connection.close)
    with connection.cursor() as cursor:
        cursor.execute("select 1")


def _quietly(close: Callable[[], None]) -> None:
    """Close a connection that the other side may have closed already."""
    with suppress(psycopg.Error, pymysql.MySQLError, OSError):
        close()
