"""The command line clients and an asyncio driver, in transaction mode and in session mode."""

import subprocess
from pathlib import Path
from typing import Any

import asyncmy
import asyncmy.errors
import pytest
import trio
import trio_asyncio
from trio_asyncio import aio_as_trio

from tests.e2e.mysql_world import RunWorld, World, program
from tests.e2e.postgres_world import DEADLINE
from tests.helpers.servers import MySQLServer

LISTENERS = pytest.mark.parametrize("listener", ["mysql", "session"], ids=["transaction", "session"])


def run(name: str, world: World, listener: str, script: str, *options: str, code: int = 0, database: str = "app") -> str:
    """Feed `script` to a client; what it prints."""
    address = ["-h127.0.0.1", f"-P{world.pooler.port(listener)}", "-uapp", "-papp"]
    done = subprocess.run(
        [*program(name), *address, *options, database], input=script, capture_output=True, text=True, timeout=3 * DEADLINE, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if not code else done.stderr


SCRIPT = """
DROP TABLE IF EXISTS cli; CREATE TABLE cli (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50)) ENGINE=InnoDB;
START TRANSACTION; INSERT INTO cli (name) VALUES ('a'), ('b'); SAVEPOINT s; DELETE FROM cli; ROLLBACK TO s; COMMIT;
SELECT LAST_INSERT_ID(), COUNT(*) FROM cli;
SET autocommit = 0; INSERT INTO cli (name) VALUES ('gone'); ROLLBACK; SET autocommit = 1;
SET @x = 5; SELECT @x + 1;
DROP PROCEDURE IF EXISTS twice;
delimiter //
CREATE PROCEDURE twice(n INT) BEGIN SELECT n; SELECT 2 * n; END //
delimiter ;
CALL twice(4);
PREPARE s FROM 'SELECT ? + 1'; SET @n = 41; EXECUTE s USING @n;
DROP TABLE IF EXISTS no_such_table; SHOW WARNINGS;
SELECT CONNECTION_ID() = CONNECTION_ID();
SELECT name FROM cli ORDER BY id;
"""
PRINTED = ["1\t2", "6", "4", "8", "42", "1", "a", "b"]


@LISTENERS
@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_a_script(each_mysql: World, name: str, listener: str) -> None:
    lines = run(name, each_mysql, listener, SCRIPT, "--skip-column-names", "--batch").splitlines()
    assert [line for line in lines if not line.startswith("Note\t1051")] == PRINTED
    assert len(lines) == len(PRINTED) + 1


@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_an_error_ends_a_script(each_mysql: World, name: str) -> None:
    said = run(name, each_mysql, "mysql", "SELECT 1; SELECT * FROM no_such_table; SELECT 2;", code=1)
    assert "ERROR 1146 (42S02)" in said
    each_mysql.assert_unharmed()


def test_files_and_a_dump(run_mysql: RunWorld, mysql_server: MySQLServer, tmp_path: Path) -> None:
    # mysqldump and its like name no database when they log in, so any database must be served.
    world = run_mysql(mysql_server, more='[databases.every]\nname = "*"\nbackend = "shop"')
    file = tmp_path / "rows.tsv"
    file.write_text("".join(f"{n}\tname {n}\n" for n in range(3000)))
    world.execute("CREATE TABLE dumped (n INT PRIMARY KEY, name VARCHAR(50)) ENGINE=InnoDB")
    for listener in ("mysql", "session"):
        load = f"TRUNCATE TABLE dumped; LOAD DATA LOCAL INFILE '{file}' INTO TABLE dumped;"
        run("mariadb", world, listener, load, "--local-infile=1")
        options = ("--single-transaction", "--no-tablespaces", "--skip-triggers", "--skip-comments")
        dump = run("mariadb-dump", world, listener, "", *options, database=world.database)
        assert dump.count("name 2999") == 1
        world.execute("DROP TABLE dumped")
        run("mariadb", world, listener, dump)
        assert world.execute("SELECT COUNT(*), MAX(n) FROM dumped") == [(3000, 2999)]
    world.wait_until_rested()


async def in_asyncio(world: World, listener: str, autocommit: bool) -> None:
    """asyncmy's cursors, transactions and errors."""
    address: dict[str, Any] = world.address(listener)
    address["db"] = address.pop("database")
    async with asyncmy.create_pool(**address, minsize=1, maxsize=5, autocommit=autocommit) as pool, pool.acquire() as client:
        async with client.cursor() as cursor:
            await cursor.execute("DROP TABLE IF EXISTS asynchronous")
            await cursor.execute("CREATE TABLE asynchronous (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50)) ENGINE=InnoDB")
            await cursor.executemany("INSERT INTO asynchronous (name) VALUES (%s)", [(f"name {n}",) for n in range(100)])
            assert cursor.rowcount == 100
            await client.commit()
            await client.begin()
            await cursor.execute("DELETE FROM asynchronous")
            await client.rollback()
            assert await cursor.execute("SELECT name FROM asynchronous WHERE id > %s ORDER BY id", (90,)) == 10
            assert await cursor.fetchmany(2) == (("name 90",), ("name 91",))
            with pytest.raises(asyncmy.errors.IntegrityError):
                await cursor.execute("INSERT INTO asynchronous (id) VALUES (1)")
            await client.rollback()
        async with client.cursor(asyncmy.cursors.SSCursor) as cursor:
            await cursor.execute("SELECT a.id FROM asynchronous a, asynchronous b")
            assert len(await cursor.fetchall()) == 10_000
        await client.ping()
        await client.rollback()


@LISTENERS
@pytest.mark.parametrize("autocommit", [False, True])
async def test_asyncmy(each_mysql: World, listener: str, autocommit: bool) -> None:
    with trio.fail_after(DEADLINE):
        async with trio_asyncio.open_loop():
            await aio_as_trio(in_asyncio)(each_mysql, listener, autocommit)
    each_mysql.wait_until_rested()
