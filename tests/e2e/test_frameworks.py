"""SQLAlchemy and Django on each engine, in transaction mode, as they are: nothing is set for dualpool's sake."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from tests.e2e import mysql_world, postgres_world
from tests.e2e.postgres_world import DEADLINE, wait_until
from tests.helpers.servers import Servers

REPOSITORY = Path(__file__).resolve().parents[2]


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None] = mapped_column(sa.String(100))
    data: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


@pytest.fixture(scope="module", params=["mysql", "mariadb", "postgres15", "postgres18"])
def pooled(request: pytest.FixtureRequest, servers: Servers) -> Iterator[mysql_world.World | postgres_world.World]:
    """dualpool with 3 server connections in front of each server in turn."""
    if request.param.startswith("postgres"):
        with postgres_world.world(servers.postgres(int(request.param[8:]))) as postgres:
            yield postgres
    else:
        with mysql_world.world(getattr(servers, request.param)()) as mysql:
            yield mysql


def engine_for(pooled: mysql_world.World | postgres_world.World, **options: Any) -> sa.Engine:
    """SQLAlchemy's engine: PyMySQL or psycopg."""
    if isinstance(pooled, mysql_world.World):
        return sa.create_engine(pooled.pooler.url(listener="mysql").replace("mysql:", "mysql+pymysql:"), pool_pre_ping=True, **options)
    return sa.create_engine(pooled.url().replace("postgresql:", "postgresql+psycopg:"), pool_pre_ping=True, **options)


def test_sqlalchemy(pooled: mysql_world.World | postgres_world.World) -> None:
    engine = engine_for(pooled, pool_size=5)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Author(name=f"author {n}", books=[Book(title=f"book {n} ☃", data={"n": n}), Book(data={})]) for n in range(20)])
        session.commit()
        found = session.scalars(sa.select(Author).join(Book).where(Book.title == "book 7 ☃")).one()
        assert [book.data for book in found.books] == [{"n": 7}, {}]
        with session.begin_nested() as nested:
            found.name = "somebody else"
            session.flush()
            nested.rollback()
        assert session.scalar(sa.select(Author.name).where(Author.id == found.id)) == "author 7"
        session.add(Author(name="author 7"))
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
        session.rollback()
        session.delete(found)
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 38
    # Several connections of SQLAlchemy's pool at once, more than there are server connections.
    with closing(engine.connect()) as first, closing(engine.connect()) as second, closing(engine.connect()) as third:
        for connection in (first, second, third) * 3:
            assert connection.execute(sa.text("SELECT :a"), {"a": "x"}).scalar() == "x"
            connection.rollback()
        serializable = third.execution_options(isolation_level="SERIALIZABLE")
        assert serializable.get_isolation_level() == "SERIALIZABLE"
        assert second.get_isolation_level() != "SERIALIZABLE"
        assert serializable.execute(sa.select(sa.func.count()).select_from(Author)).scalar() == 19
    inspector = sa.inspect(engine)
    assert {"author", "book"} <= set(inspector.get_table_names())
    assert inspector.get_foreign_keys("book")[0]["referred_table"] == "author"
    Base.metadata.drop_all(engine)
    engine.dispose()


def test_sqlalchemy_finds_out_that_its_connections_are_dead(pooled: mysql_world.World | postgres_world.World) -> None:
    engine = engine_for(pooled)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1
        dead = connection.connection.dbapi_connection
        assert dead is not None
        if isinstance(pooled, mysql_world.World):
            with pooled.connect(autocommit=True) as other:
                connection.rollback()
                other.kill(dead.thread_id())
        else:
            connection.rollback()
            with socket.socket(fileno=os.dup(dead.fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 2")).scalar() == 2
        assert connection.connection.dbapi_connection is not dead
    engine.dispose()
    pooled.wait_until_rested()


def django(pooled: mysql_world.World | postgres_world.World, *arguments: str) -> str:
    """Run a Python of its own with the project's settings; what it printed. It must succeed."""
    is_mysql = isinstance(pooled, mysql_world.World)
    database = {
        "ENGINE": "django.db.backends.mysql" if is_mysql else "django.db.backends.postgresql",
        "HOST": "127.0.0.1",
        "PORT": pooled.pooler.port("mysql" if is_mysql else "postgres"),
        "USER": "app",
        "PASSWORD": "app",
        "NAME": "app",
    }
    environment = {"DJANGO_SETTINGS_MODULE": "tests.e2e.django_site.settings", "DJANGO_DATABASE": json.dumps(database)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_django(pooled: mysql_world.World | postgres_world.World) -> None:
    assert "Applying shop.0002_orders... OK" in django(pooled, "django", "migrate")
    assert "No migrations to apply" in django(pooled, "django", "migrate")
    assert "done" in django(pooled, "tests.e2e.django_site.crud")
    assert "Unapplying shop.0001_initial... OK" in django(pooled, "django", "migrate", "shop", "zero")
    wait_until(lambda: pooled.server_connections() != [], "server connections are kept")
    pooled.wait_until_rested()
