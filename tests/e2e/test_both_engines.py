"""One process, one file, both engines: the example configuration serves PostgreSQL's and MySQL's crowds at the same time."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e import mysql_world, postgres_world
from tests.e2e import test_mysql_many_clients as mysql_clients
from tests.e2e import test_postgres_many_clients as postgres_clients
from tests.e2e.postgres_world import CROWD_DEADLINE, PATIENT
from tests.helpers.pooler import Pooler
from tests.helpers.servers import MySQLServer, PostgresServer, Servers

EXAMPLE = Path(__file__).resolve().parents[2] / "conf" / "dualpool.toml"
POOL_SIZE = 10


class PostgresWorld(postgres_world.World):
    """Its clients name the database itself: every name is served."""

    def url(self, listener: str = "postgres", account: str = "app:app", **query: str) -> str:
        assert not query
        return self.pooler.url(account, self.database, listener)


class MysqlWorld(mysql_world.World):
    """The same."""

    def address(self, listener: str = "mysql") -> dict[str, Any]:
        return {**super().address(listener), "database": self.database}


@dataclass
class Both:
    """One dualpool, with a world of each engine behind it."""

    postgres: PostgresWorld
    mysql: MysqlWorld


def example(environment: dict[str, str]) -> str:
    """conf/dualpool.toml on free ports, with small pools and without the admin port."""
    text = EXAMPLE.read_text()
    text, ports = re.subn(r'bind = "127\.0\.0\.1:\d+"', 'bind = "127.0.0.1:0"', text)
    text, pools = re.subn(r'(?m)^(backend = "\w+")$', rf"\1\npool_size = {POOL_SIZE}", text)
    assert ports == 3
    assert pools == 2
    assert all("${" + name in text for name in environment)
    return text.replace('http = "127.0.0.1:9127"', "") + PATIENT


@pytest.fixture(params=[("postgres18", "mysql"), ("postgres15", "mariadb")], ids="-".join)
def both(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Both]:
    """Each two of the four servers behind one dualpool."""
    postgres = servers.postgres(int(request.param[0].removeprefix("postgres")))
    mysql: MySQLServer = getattr(servers, request.param[1])()
    assert isinstance(postgres, PostgresServer)
    with ExitStack() as closing:
        postgres_database = closing.enter_context(postgres.temporary_database())
        mysql_database = closing.enter_context(mysql.temporary_database())
        user = mysql.create_user()
        closing.callback(mysql.drop_user, user)
        admin = mysql.connect(user=mysql.admin_user, password=mysql.admin_password, database=mysql_database, autocommit=True)
        closing.callback(admin.close)
        environment = {"POSTGRES_PORT": str(postgres.port), "MYSQL_PORT": str(mysql.port), "MYSQL_USER": user}
        pooler = closing.enter_context(Pooler(example(environment), environment=environment))
        made = Both(PostgresWorld(postgres, postgres_database, pooler), MysqlWorld(mysql, mysql_database, user, pooler, admin))
        closing.callback(made.mysql.close_clients)
        yield made


async def test_200_clients_of_each_engine_at_once(both: Both) -> None:
    postgres_clients.create_tables(both.postgres)
    mysql_clients.create_tables(both.mysql)
    with postgres_world.Sampler(both.postgres) as postgres, mysql_world.Sampler(both.mysql) as mysql, trio.fail_after(CROWD_DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postgres_clients.run_clients, both.postgres)
            nursery.start_soon(mysql_clients.run_clients, both.mysql)
    for sampler in (postgres, mysql):
        assert sampler.samples > 10
        assert 1 < sampler.most <= POOL_SIZE
    assert both.postgres.execute("SELECT count(*) FROM markers WHERE n < 0") == [(0,)]
    assert both.mysql.execute("SELECT COUNT(*) FROM markers WHERE n < 0") == [(0,)]
    both.postgres.wait_until_rested()
    both.mysql.wait_until_rested()


def test_each_port_speaks_its_own_protocol(both: Both) -> None:
    with both.postgres.connect() as one, both.mysql.connect(autocommit=True) as other:
        assert one.execute("SELECT 'PostgreSQL'").fetchone() == ("PostgreSQL",)
        assert mysql_world.value(other, "SELECT 'MySQL'") == "MySQL"
    with both.postgres.connect("postgres-session") as session:
        session.execute("SET application_name = 'kept'")
        assert session.execute("SHOW application_name").fetchone() == ("kept",)
