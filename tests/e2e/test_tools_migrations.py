"""What migration tools that cannot be run here say to a server, step by step: settings, a lock of the session's that is held over many
transactions, a database that comes and goes.

In strict mode: each lease is on another server connection than the one before it, and what a client leaves behind is found.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pymysql
import pytest

from tests.e2e import mysql_world, postgres_world
from tests.e2e.mysql_world import rows, value
from tests.e2e.postgres_raw import SYNC, Raw, bind, execute, parse, query
from tests.e2e.postgres_world import Client, wait_until
from tests.helpers.servers import MySQLServer, Servers

ROUNDS: Final = 20
PRISMA: Final = 72707369
STRICT: Final = "pool_size = 3\nstrict = true\n"


@pytest.fixture(scope="module")
def postgres(servers: Servers) -> Iterator[postgres_world.World]:
    """Any database, three server connections each."""
    with postgres_world.world(servers.postgres(15), more=f'[databases."*"]\nbackend = "main"\n{STRICT}') as world:
        yield world


@pytest.fixture(scope="module")
def mysql_pooled(mysql_server: MySQLServer) -> Iterator[mysql_world.World]:
    """Any database, three server connections each."""
    with mysql_world.world(mysql_server, more=f'[databases.every]\nname = "*"\nbackend = "shop"\n{STRICT}') as world:
        yield world


def connect_postgres(world: postgres_world.World, database: str = "") -> Client:
    return psycopg.connect(world.pooler.url(database=database or world.database), autocommit=True)


def connect_mysql(world: mysql_world.World, database: str = "", **options: Any) -> mysql_world.Client:
    flag = pymysql.constants.CLIENT.MULTI_STATEMENTS
    return world.connect(database=database or world.database, autocommit=True, client_flag=flag, **options)


def one(client: Client, sql: str, *parameters: Any) -> Any:
    """The only value of an answer."""
    row = client.execute(sql, parameters or None).fetchone()
    assert row is not None
    return row[0]


def ask(client: mysql_world.Client, sql: str) -> None:
    """Run a text of several statements, and read all that it answers."""
    with client.cursor() as cursor:
        cursor.execute(sql)
        while cursor.nextset():
            pass


def holder(world: mysql_world.World, lock: str) -> int:
    """The server connection that has a lock. (What a client reads as its CONNECTION_ID() is its own number.)"""
    [(found,)] = world.execute("SELECT IS_USED_LOCK(%s)", lock)
    return int(found)


def cut_off(descriptor: int) -> None:
    """What is left of a client that was killed: its socket is closed, without a goodbye."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.shutdown(socket.SHUT_RDWR)


# ------------------------------------------------------------------------------------------------------------------ Prisma Migrate

# As version 6.19 sends them (its introspection left out).
PRISMA_START: Final = (
    "SELECT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = %s), version(), current_setting('server_version_num')::integer"
)
PRISMA_TABLE: Final = """CREATE TABLE IF NOT EXISTS _prisma_migrations (
    id VARCHAR(36) PRIMARY KEY NOT NULL, checksum VARCHAR(64) NOT NULL, migration_name VARCHAR(255) NOT NULL, logs TEXT, {times},
    applied_steps_count INTEGER NOT NULL DEFAULT 0)"""
PRISMA_TABLES: Final = """SELECT tbl.relname FROM pg_class AS tbl INNER JOIN pg_namespace AS namespace ON namespace.oid = tbl.relnamespace
    WHERE tbl.relkind = 'r' AND namespace.nspname = ANY (%s)"""


def postgres_migration(number: int) -> bytes:
    return f"""-- CreateTable
        CREATE TABLE "Author{number}" ("id" SERIAL NOT NULL, "name" TEXT NOT NULL, CONSTRAINT "Author{number}_pkey" PRIMARY KEY ("id"));
        -- CreateIndex
        CREATE UNIQUE INDEX "Author{number}_name_key" ON "Author{number}"("name");
        INSERT INTO "Author{number}" (name) VALUES ('a;b')""".encode()


def test_prisma_migrate_on_postgres(postgres: postgres_world.World) -> None:
    own = set()
    postgres_times = "started_at TIMESTAMPTZ NOT NULL DEFAULT now(), finished_at TIMESTAMPTZ, rolled_back_at TIMESTAMPTZ"
    for number in range(ROUNDS):
        with connect_postgres(postgres) as tool, connect_postgres(postgres) as other:
            if number % 4 == 0:
                in_postgres_shadow(postgres, tool, number)
            # `migrate deploy`: Prisma gives its lock back by closing the connection.
            tool.execute(PRISMA_START, ["public"], prepare=True)
            tool.execute(f"SELECT pg_advisory_lock({PRISMA})")
            own.add(one(tool, "SELECT pg_backend_pid()"))
            assert one(other, f"SELECT pg_try_advisory_lock({PRISMA})") is False
            tool.execute(PRISMA_TABLES, [["public"]], prepare=True)
            tool.execute(PRISMA_TABLE.format(times=postgres_times).encode())
            insert = "INSERT INTO _prisma_migrations (id, checksum, started_at, migration_name) VALUES (%s, %s, now(), %s)"
            tool.execute(insert, [f"{number}", "c", f"{number}_init"], prepare=True)
            tool.execute(postgres_migration(number))
            with tool.transaction():
                tool.execute("UPDATE _prisma_migrations SET finished_at = now() WHERE id = %s", [f"{number}"], prepare=True)
            assert one(other, f"SELECT pg_try_advisory_lock({PRISMA})") is False
            if number % 2:
                cut_off(tool.fileno())
        wait_until(lambda: is_free(postgres), "the lock is free")
    assert len(own) > 1
    assert postgres.execute("SELECT COUNT(finished_at) FROM _prisma_migrations") == [(ROUNDS,)]


def in_postgres_shadow(world: postgres_world.World, tool: Client, number: int) -> None:
    """`migrate dev`: the migration in a database of its own, under the same name each time. The connections to it rest in their pool."""
    shadow = f"prisma_migrate_shadow_db_{world.database}"
    tool.execute(f'CREATE DATABASE "{shadow}"'.encode())
    with connect_postgres(world, shadow) as first, connect_postgres(world, shadow) as second:
        first.execute(PRISMA_START, ["public"], prepare=True)
        first.execute(postgres_migration(number))
        with first.transaction(), second.transaction():
            assert one(first, "SELECT current_database()") == one(second, "SELECT current_database()") == shadow
    tool.execute(f'DROP DATABASE "{shadow}"'.encode(), prepare=bool(number % 8))


def is_free(world: postgres_world.World, lock: int = PRISMA) -> bool:
    return world.execute(f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {lock}") == [(0,)]


def mysql_migration(number: int) -> str:
    return f"""-- CreateTable
        CREATE TABLE `Author{number}` (
            `id` INTEGER NOT NULL AUTO_INCREMENT, `name` VARCHAR(191) NOT NULL,
            UNIQUE INDEX `Author{number}_name_key`(`name`), PRIMARY KEY (`id`)
        ) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
        INSERT INTO `Author{number}` (name) VALUES ('a;b')"""


def test_prisma_migrate_on_mysql(mysql_pooled: mysql_world.World) -> None:
    own = set()
    lock = f"prisma_migrate {mysql_pooled.database}"
    mysql_times = "started_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), finished_at DATETIME(3), rolled_back_at DATETIME(3)"
    for number in range(ROUNDS):
        with contextlib.closing(connect_mysql(mysql_pooled)) as tool, contextlib.closing(connect_mysql(mysql_pooled)) as other:
            assert value(tool, "SELECT @@GLOBAL.version")
            if number % 4 == 0:
                in_mysql_shadow(mysql_pooled, tool, number)
            assert value(tool, f"SELECT GET_LOCK('{lock}', 10)") == 1
            own.add(holder(mysql_pooled, lock))
            assert value(other, f"SELECT GET_LOCK('{lock}', 0)") == 0
            ask(tool, PRISMA_TABLE.format(times=mysql_times))
            rows(tool, "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES (%s, %s, %s)", f"{number}", "c", "init")
            ask(tool, mysql_migration(number))
            tool.begin()
            rows(tool, "UPDATE _prisma_migrations SET finished_at = now() WHERE id = %s", f"{number}")
            tool.commit()
            assert value(other, f"SELECT GET_LOCK('{lock}', 0)") == 0
            if number % 2:
                cut_off(tool._sock.fileno())
                tool._force_close()
        wait_until(lambda: mysql_pooled.execute(f"SELECT IS_FREE_LOCK('{lock}')") == [(1,)], "the lock is free")
    assert len(own) > 1
    assert mysql_pooled.execute("SELECT COUNT(finished_at) FROM _prisma_migrations") == [(ROUNDS,)]


def in_mysql_shadow(world: mysql_world.World, tool: mysql_world.Client, number: int) -> None:
    """As on PostgreSQL. Of the connections that rest in its pool, some have been in the database that was dropped."""
    shadow = f"prisma_migrate_shadow_db_{world.database}"
    ask(tool, f"CREATE DATABASE `{shadow}`")
    with connect_mysql(world, shadow) as first, connect_mysql(world, shadow) as second:
        ask(first, mysql_migration(number))
        first.begin()
        second.begin()
        assert value(first, "SELECT COUNT(*) FROM Author%s", number) == value(second, "SELECT COUNT(*) FROM Author%s", number) == 1
        assert value(first, "SELECT DATABASE()") == shadow
    ask(tool, f"DROP DATABASE `{shadow}`")
    with pytest.raises(pymysql.err.OperationalError, match="Unknown database"), connect_mysql(world, shadow) as late:
        ask(late, "SELECT 1")


def test_a_postgres_database_that_is_created_when_it_is_not_found(postgres: postgres_world.World) -> None:
    database = f"{postgres.database}_new"
    for _ in range(3):
        with pytest.raises(psycopg.Error, match="does not exist"), connect_postgres(postgres, database) as client:
            client.execute("SELECT 1")
        with connect_postgres(postgres) as tool:
            tool.execute(f"CREATE DATABASE {database}".encode())
            with connect_postgres(postgres, database) as client:
                assert one(client, "SELECT current_database()") == database
            tool.execute(f"DROP DATABASE {database}".encode())


def test_a_mysql_database_that_is_created_when_it_is_not_found(mysql_pooled: mysql_world.World) -> None:
    with contextlib.closing(connect_mysql(mysql_pooled)) as tool:
        for database in (f"{mysql_pooled.database}_{number}" for number in range(3)):
            with pytest.raises(pymysql.err.OperationalError) as caught, connect_mysql(mysql_pooled, database) as client:
                value(client, "SELECT 1")
            assert caught.value.args[0] == 1049
            ask(tool, f"CREATE DATABASE {database}")
            with contextlib.closing(connect_mysql(mysql_pooled, database)) as client:
                assert value(client, "SELECT DATABASE()") == database
            ask(tool, f"DROP DATABASE {database}")


# ------------------------------------------------------------------------------------------------------------------ other tools


@dataclass
class Tool:
    """`starts`: what it sets for its session; `shows`: how that is seen; `lock`: the arguments that name its lock."""

    starts: tuple[str, ...]
    shows: dict[str, Any]
    lock: str


POSTGRES_TOOLS: Final = {
    "Rails": Tool(
        (
            "SET client_min_messages TO 'warning'",
            "SET standard_conforming_strings = on",
            "SET intervalstyle = iso_8601",
            "SET SESSION timezone TO 'UTC'",
            "SHOW max_identifier_length",
        ),
        {"SHOW client_min_messages": "warning", "SHOW intervalstyle": "iso_8601", "SHOW timezone": "UTC"},
        "4711471147",
    ),
    "Flyway, its lock in the session": Tool(
        (
            "SET application_name = 'Flyway by Redgate'",
            "SELECT current_user",
            "SELECT set_config('search_path', 'public', false)",
            "SET ROLE app",
            "SELECT COUNT(*) FROM pg_namespace WHERE nspname = 'public'",
        ),
        {"SHOW application_name": "Flyway by Redgate", "SHOW search_path": "public", "SHOW role": "app"},
        "77431708279161",
    ),
    "golang-migrate": Tool(
        ("SELECT CURRENT_DATABASE()", "SELECT CURRENT_SCHEMA()", "SET statement_timeout = 60000"),
        {"SHOW statement_timeout": "1min"},
        "1205862432",
    ),
    "Phoenix": Tool(
        ("SET search_path TO public, pg_catalog", "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
        {"SHOW search_path": "public, pg_catalog", "SHOW default_transaction_isolation": "repeatable read"},
        "1, 4711",
    ),
}


@pytest.mark.parametrize("name", POSTGRES_TOOLS)
def test_postgres_tools(postgres: postgres_world.World, name: str) -> None:
    tool = POSTGRES_TOOLS[name]
    locks, unlocks = f"SELECT pg_try_advisory_lock({tool.lock})", f"SELECT pg_advisory_unlock({tool.lock})"
    with connect_postgres(postgres) as client, connect_postgres(postgres) as rival:
        for sql in tool.starts:
            client.execute(sql)
        assert one(client, locks) is True
        own = one(client, "SELECT pg_backend_pid()")
        for number in range(3):
            assert one(rival, locks) is False
            with client.transaction():
                client.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version varchar NOT NULL PRIMARY KEY)")
                client.execute(f"CREATE TABLE migrated{number} (id int PRIMARY KEY, name text)")
                client.execute("INSERT INTO schema_migrations VALUES (%s)", [f"{number}"])
            client.execute(f"CREATE INDEX CONCURRENTLY ON migrated{number} (name)")
            assert {sql: one(client, sql) for sql in tool.shows} == tool.shows
            assert one(client, "SELECT pg_backend_pid()") == own
        assert one(client, unlocks) is True
        assert len({one(client, "SELECT pg_backend_pid()") for _ in range(4)}) > 1
        assert {sql: one(client, sql) for sql in tool.shows} == tool.shows
        assert one(rival, locks) is True
        assert one(rival, unlocks) is True
        client.execute("DROP TABLE schema_migrations, migrated0, migrated1, migrated2")
    with connect_postgres(postgres) as fresh:
        assert {sql: one(fresh, sql) for sql in tool.shows} != tool.shows


def test_flyway_with_its_lock_in_a_transaction(postgres: postgres_world.World) -> None:
    """One connection holds the lock in a transaction of its own, another migrates."""
    with connect_postgres(postgres) as main, connect_postgres(postgres) as migrating, connect_postgres(postgres) as rival:
        for number in range(3):
            with main.transaction():
                assert one(main, "SELECT pg_try_advisory_xact_lock(77431708279161)") is True
                assert one(rival, "SELECT pg_try_advisory_xact_lock(77431708279161)") is False
                with migrating.transaction():
                    migrating.execute(f"CREATE TABLE flown{number} (id int)")
        assert one(rival, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'flown%'") == 3


def test_liquibase(postgres: postgres_world.World) -> None:
    """Its lock is a row, its connection is never in autocommit mode, and each change set is a transaction."""
    take = "UPDATE databasechangeloglock SET locked = TRUE, lockedby = %s, lockgranted = now() WHERE id = 1 AND NOT locked"
    with connect_postgres(postgres) as client, connect_postgres(postgres) as rival:
        client.autocommit = rival.autocommit = False
        client.execute('SET SEARCH_PATH TO public, "$user","public"')
        client.execute("CREATE TABLE databasechangeloglock (id int PRIMARY KEY, locked boolean, lockgranted timestamp, lockedby text)")
        client.execute("INSERT INTO databasechangeloglock (id, locked) VALUES (1, FALSE)")
        client.commit()
        for number in range(3):
            assert client.execute(take, ["me"]).rowcount == 1
            client.commit()
            assert rival.execute(take, ["you"]).rowcount == 0
            rival.rollback()
            client.execute(f"CREATE TABLE changed{number} (id int)")
            client.commit()
            assert one(client, "SHOW search_path") == 'public, "$user", public'
            client.execute("UPDATE databasechangeloglock SET locked = FALSE, lockedby = NULL, lockgranted = NULL WHERE id = 1")
            client.commit()


def test_rails_forgets_a_statement_of_the_protocol_by_sql(postgres: postgres_world.World) -> None:
    """Its pool of statements parses `a1` and ends it with DEALLOCATE, when it has too many."""
    with Raw(postgres.pooler.port("trust")).log_in() as first, Raw(postgres.pooler.port("trust")).log_in() as second:
        for number in range(10):
            first.ask(parse("a1", f"SELECT {number} + $1::int"), SYNC)
            second.ask(parse("a1", f"SELECT {number} * $1::int"), SYNC)
            assert first.value(bind("a1", "7"), execute(), SYNC) == str(number + 7)
            assert second.value(bind("a1", "7"), execute(), SYNC) == str(number * 7)
            first.ask(query('DEALLOCATE "a1"'))
            assert second.value(bind("a1", "8"), execute(), SYNC) == str(number * 8)
            second.ask(query("DEALLOCATE a1"))


MYSQL_TOOLS: Final = {
    "Rails": Tool(
        (
            "SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci, @@SESSION.sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), "
            "@@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483",
            "SHOW VARIABLES LIKE 'sql_mode'",
        ),
        {
            "SELECT @@collation_connection": "utf8mb4_unicode_ci",
            "SELECT @@sql_mode LIKE '%STRICT_ALL_TABLES%'": 1,
            "SELECT @@wait_timeout": 2147483,
        },
        "4711471147 {database}",
    ),
    "Flyway": Tool(
        ("SELECT @@foreign_key_checks", "SET foreign_key_checks = 0, sql_safe_updates = 1", "SET @flyway = 5"),
        {"SELECT @@foreign_key_checks": 0, "SELECT @@sql_safe_updates": 1, "SELECT @flyway": 5},
        "Flyway-{database}",
    ),
    "golang-migrate": Tool(
        ("SELECT DATABASE()", "SET autocommit = 1", "SET SESSION innodb_lock_wait_timeout = 7"),
        {"SELECT @@innodb_lock_wait_timeout": 7},
        "{database}:schema_migrations",
    ),
}


def lock_holders(world: mysql_world.World, client: mysql_world.Client, lock: str) -> Iterator[int]:
    """Take a lock, again and again: the server connections that it is held by."""
    for _ in range(4):
        assert value(client, f"SELECT GET_LOCK('{lock}', 0)") == 1
        yield holder(world, lock)
        assert value(client, f"SELECT RELEASE_LOCK('{lock}')") == 1


@pytest.mark.parametrize("name", MYSQL_TOOLS)
def test_mysql_tools(mysql_pooled: mysql_world.World, name: str) -> None:
    tool = MYSQL_TOOLS[name]
    lock = tool.lock.format(database=mysql_pooled.database)
    locks, unlocks = f"SELECT GET_LOCK('{lock}', 0)", f"SELECT RELEASE_LOCK('{lock}')"
    with contextlib.closing(connect_mysql(mysql_pooled)) as client, contextlib.closing(connect_mysql(mysql_pooled)) as rival:
        for sql in tool.starts:
            rows(client, sql)
        assert value(client, locks) == 1
        own = holder(mysql_pooled, lock)
        for number in range(3):
            assert value(rival, locks) == 0
            rows(client, "CREATE TABLE IF NOT EXISTS schema_migrations (version VARCHAR(255) NOT NULL PRIMARY KEY)")
            client.begin()
            rows(client, f"CREATE TABLE migrated{number} (id INT PRIMARY KEY, name TEXT)")
            rows(client, "INSERT INTO schema_migrations VALUES (%s)", f"{number}")
            client.commit()
            rows(client, f"ALTER TABLE migrated{number} ADD COLUMN more INT, ADD INDEX (more)")
            assert {sql: value(client, sql) for sql in tool.shows} == tool.shows
            assert holder(mysql_pooled, lock) == own
        assert value(client, unlocks) == 1
        assert set(lock_holders(mysql_pooled, client, lock)) - {own}
        assert {sql: value(client, sql) for sql in tool.shows} == tool.shows
        assert value(rival, locks) == 1
        assert value(rival, unlocks) == 1
        rows(client, "DROP TABLE schema_migrations, migrated0, migrated1, migrated2")
    with contextlib.closing(connect_mysql(mysql_pooled)) as fresh:
        assert {sql: value(fresh, sql) for sql in tool.shows} != tool.shows


def test_flyway_resets_the_variables_that_it_finds(mysql_pooled: mysql_world.World) -> None:
    if mysql_pooled.server.is_mariadb:
        found = "SELECT variable_name FROM information_schema.user_variables WHERE variable_value IS NOT NULL"
    else:
        found = "SELECT variable_name FROM performance_schema.user_variables_by_thread WHERE variable_value IS NOT NULL"
    with contextlib.closing(connect_mysql(mysql_pooled)) as client, contextlib.closing(connect_mysql(mysql_pooled)) as other:
        for _ in range(3):
            rows(client, "SET @mine = 5")
            rows(other, "SET @others = 6")
            assert ("mine",) in [(name.lower(),) for (name,) in rows(client, found)]
            rows(client, "SET @mine = NULL")
            assert value(client, "SELECT @mine") is None
            assert value(other, "SELECT @others") == 6
