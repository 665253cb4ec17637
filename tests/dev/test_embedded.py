"""Database servers of our own: found, made, started, stopped, and never left behind."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pymysql
import pytest

from dualpool.dev import DevError, EmbeddedMySQL, EmbeddedPostgres, EmbeddedServer
from dualpool.dev.mariadb_packages import fetch_mariadb
from dualpool.dev.mysql_server import fetched_installation, find_mysqld
from dualpool.dev.postgres_server import find_postgres, installed_bindirs, wheel_bindirs
from dualpool.dev.processes import command_line, end_stranger, is_running, wait_until
from tests.helpers.ports import reserved_port
from tests.helpers.servers import REPOSITORY, Servers, unique

AWKWARD = "we'ird \\\" p@ss:wörd/%$`"
Make = Callable[..., EmbeddedServer]


def make_postgres(folder: Path, **options: object) -> EmbeddedServer:
    return EmbeddedPostgres(folder, **options)  # type: ignore[arg-type]


def make_mysql(folder: Path, **options: object) -> EmbeddedServer:
    return EmbeddedMySQL(folder, **options)  # type: ignore[arg-type]


@pytest.fixture
def folder(servers: Servers) -> Iterator[Path]:
    made = servers.folder(unique("embedded"))
    yield made
    # At once: most of it has never been written to the disk.
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(params=[make_postgres, make_mysql], ids=["postgres", "mysql"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


def query(server: EmbeddedServer, sql: str) -> list[tuple[object, ...]]:
    """Run a statement with the server's own account."""
    if server.scheme == "postgresql":
        with psycopg.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, dbname=server.database, autocommit=True
        ) as postgres:
            answer = postgres.execute(sql.encode())
            return answer.fetchall() if answer.description else []
    # As bytes: pymysql takes a text for latin1.
    password = server.password.encode()
    place = {"host": server.host, "port": server.port, "connect_timeout": 60}
    mysql = pymysql.connect(**place, user=server.user, password=password, database=server.database)  # type: ignore[arg-type]
    with closing(mysql), mysql.cursor() as cursor:
        cursor.execute(sql)
        mysql.commit()
        return list(cursor.fetchall())


def test_the_url_is_all_that_a_client_needs(folder: Path, make: Make) -> None:
    with make(folder) as server:
        assert server.url == f"{server.scheme}://app:app@127.0.0.1:{server.port}/app"
        assert query(server, "SELECT 1") == [(1,)]


def test_names_and_passwords_with_any_character(folder: Path, make: Make) -> None:
    with make(folder, user="Us er`", password=AWKWARD, database='data"`base') as server:
        assert query(server, "SELECT 1") == [(1,)]


def test_a_wrong_password_is_refused(folder: Path, make: Make) -> None:
    with make(folder) as server:
        server.password = "wrong"
        with pytest.raises((psycopg.OperationalError, pymysql.err.OperationalError)):
            query(server, "SELECT 1")


def test_data_and_port_survive_a_restart(folder: Path, make: Make) -> None:
    first = make(folder)
    (folder / f"{first.edition}.port").write_text(f"{reserved_port()}\n")
    with first as server:
        query(server, "CREATE TABLE kept (id int)")
        port = server.port
    with make(folder) as again:
        assert query(again, "SELECT count(*) FROM kept") == [(0,)]
        assert again.port == port


def test_stop_leaves_no_process(folder: Path, make: Make) -> None:
    server = make(folder)
    server.start()
    pid = server.pid
    assert pid is not None
    server.stop()
    assert not is_running(pid)
    assert not server.running
    server.stop()


def test_a_crashed_server_starts_again(folder: Path, make: Make) -> None:
    server = make(folder, port=reserved_port())
    with server:
        query(server, "CREATE TABLE kept (id int)")
        server.kill()
        assert not server.running
        server.restart()
        assert query(server, "SELECT count(*) FROM kept") == [(0,)]


def test_settings_reach_the_server(folder: Path) -> None:
    with EmbeddedPostgres(folder / "postgres", settings={"max_connections": "17"}) as postgres:
        assert query(postgres, "SHOW max_connections") == [("17",)]
    with EmbeddedMySQL(folder / "mysql", settings={"max-connections": "17"}) as mysql:
        assert query(mysql, "SELECT @@max_connections") == [(17,)]


def test_a_server_that_does_not_start_shows_its_log(folder: Path, make: Make) -> None:
    server = make(folder, settings={"no_such_setting": "1"})
    with pytest.raises(DevError, match=r"did not start(.|\n)*no_such_setting"):
        server.start()
    assert not server.running
    with make(folder):
        pass


def test_a_folder_serves_one_at_a_time(folder: Path, make: Make) -> None:
    with make(folder), pytest.raises(DevError, match=f"in use by process {os.getpid()}"):
        make(folder).start()


def test_data_made_for_another_account_is_refused(folder: Path, make: Make) -> None:
    with make(folder):
        pass
    with pytest.raises(DevError, match="was made for user 'app', not 'other'"):
        make(folder, user="other").start()


def test_data_that_we_did_not_make_is_refused(folder: Path, make: Make) -> None:
    server = make(folder)
    server.folder.mkdir()
    with pytest.raises(DevError, match="was not made by dualpool"):
        server.start()


def test_data_that_was_half_made_is_made_again(folder: Path, make: Make) -> None:
    server = make(folder)
    (folder / f"{server.edition}.new").mkdir()
    (folder / f"{server.edition}.new" / "junk").touch()
    with server:
        assert query(server, "SELECT 1") == [(1,)]


def test_control_characters_are_refused(folder: Path, make: Make) -> None:
    with pytest.raises(DevError, match="printable"):
        make(folder, password="a\nb")


# What happens when we are killed.

PARENT = """
    import signal, sys, threading
    from pathlib import Path
    from dualpool.dev import EmbeddedMySQL, EmbeddedPostgres
    server = {kind}(Path(sys.argv[1]))
    if {in_thread}:
        starter = threading.Thread(target=server.start)
        starter.start()
        starter.join()
    else:
        server.start()
    print(server.pid, flush=True)
    signal.pause()
"""


def killed_parent(folder: Path, make: Make, *, in_thread: bool) -> int:
    """Let another process start the server, kill that process, and return the server's process id."""
    kind = "EmbeddedPostgres" if make is make_postgres else "EmbeddedMySQL"
    script = textwrap.dedent(PARENT).format(kind=kind, in_thread=in_thread)
    command = [sys.executable, "-c", script, str(folder)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=REPOSITORY, text=True)
    try:
        assert parent.stdout is not None
        return int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is dead")
def test_a_killed_parent_takes_the_server_with_it(folder: Path, make: Make) -> None:
    pid = killed_parent(folder, make, in_thread=False)
    assert wait_until(lambda: not is_running(pid), 60)
    with make(folder) as server:
        assert query(server, "SELECT 1") == [(1,)]


def test_a_server_that_was_left_behind_is_stopped(folder: Path, make: Make) -> None:
    pid = killed_parent(folder, make, in_thread=True)
    try:
        assert is_running(pid)
        with make(folder) as server:
            assert not is_running(pid)
            assert server.pid != pid
            assert query(server, "SELECT 1") == [(1,)]
    finally:
        end_stranger(pid, ((signal.SIGTERM, 5.0),))


def test_a_stale_process_id_of_somebody_else_is_left_alone(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    with server:
        pass
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdin=subprocess.DEVNULL)
    try:
        # (A process that has just been started has no command line for a moment.)
        assert wait_until(lambda: "signal.pause" in command_line(stranger.pid), 60)
        server.pid_file.write_text(f"{stranger.pid}\n{server.folder}\n0\n1\n\n127.0.0.1\n0 0\nready\n")
        server._end_stale()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


# Where servers are found.


@pytest.mark.parametrize("bindir", [*installed_bindirs()[:1], *wheel_bindirs()], ids=lambda folder: folder.parent.name)
def test_every_postgres_that_is_found_works(folder: Path, bindir: Path) -> None:
    with EmbeddedPostgres(folder, bindir) as server:
        assert str(query(server, "SHOW server_version")[0][0]).startswith(str(server.server_version[0]))


def test_a_wheel_in_a_closed_folder_works(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment below a home that others cannot enter: for root, the binaries are copied to the cache."""
    monkeypatch.setenv("DUALPOOL_CACHE", str(folder / "cache"))
    bindir = wheel_bindirs()[0]
    package = bindir.parent.parent
    for source in (bindir.parent, package.with_name(f"{package.name}.libs")):
        if source.is_dir():
            shutil.copytree(source, tmp_path / source.relative_to(package.parent))
    tmp_path.chmod(0o700)
    with EmbeddedPostgres(folder / "data", tmp_path / bindir.relative_to(package.parent)) as server:
        assert query(server, "SELECT 1") == [(1,)]
        assert (folder / "cache").exists() == (os.geteuid() == 0)


def test_the_named_postgres_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUALPOOL_PG_BINDIR", str(wheel_bindirs()[0]))
    assert find_postgres() == wheel_bindirs()[0]
    monkeypatch.setenv("DUALPOOL_PG_BINDIR", str(tmp_path))
    with pytest.raises(DevError, match="DUALPOOL_PG_BINDIR"):
        find_postgres()


def test_the_named_mysqld_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = find_mysqld().program
    monkeypatch.setenv("DUALPOOL_MYSQLD", str(program))
    assert find_mysqld().program == program
    monkeypatch.setenv("DUALPOOL_MYSQLD", str(tmp_path / "mysqld"))
    with pytest.raises(DevError, match="DUALPOOL_MYSQLD"):
        find_mysqld()


def test_mariadb_can_be_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no apt: one line that says what to do instead."""
    root = folder / "mariadb"
    if not Path("/usr/bin/apt-get").exists():
        with pytest.raises(DevError, match="Debian and Ubuntu only"):
            fetch_mariadb(root)
        return
    installation = fetch_mariadb(root)
    assert installation == fetched_installation(root) == fetch_mariadb(root)
    with EmbeddedMySQL(folder / "data", installation) as server:
        assert server.is_mariadb
        assert query(server, "SELECT 1") == [(1,)]
    assert not [path for path in folder.iterdir() if path.name.startswith(".mariadb")]
