"""What the console's orders do, and who may give them."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import psycopg
import pymysql
import pytest

from tests.admin.world import SHOWS, ConsoleWorld, Row, console_world
from tests.e2e.postgres_world import DEADLINE, in_thread, wait_until
from tests.helpers.certificates import Certificates
from tests.helpers.servers import Servers


@pytest.fixture(scope="module")
def shared(servers: Servers) -> Iterator[ConsoleWorld]:
    with console_world(servers) as made:
        yield made


@pytest.fixture
def world(shared: ConsoleWorld) -> Iterator[ConsoleWorld]:
    """The shared dualpool; afterwards nothing is paused, and the configuration is the first one."""
    first = shared.pooler.toml
    yield shared
    assert first is not None
    if shared.pooler.toml != first:
        shared.pooler.write_config(first)
    shared.order("RELOAD")
    shared.order("ENABLE app")
    with shared.console() as console, contextlib.suppress(psycopg.Error):
        console.execute("RESUME")


def pids(world: ConsoleWorld) -> set[int]:
    """The process ids of the idle and active connections of the database app."""
    return {row["remote_pid"] for row in world.show("SERVERS") if row["database"] == "app" and not row["close_needed"]}


def direct(world: ConsoleWorld) -> "psycopg.Connection[Row]":
    """A client that asks the PostgreSQL server without dualpool."""
    return psycopg.connect(world.postgres.url, autocommit=True, connect_timeout=int(DEADLINE))


def clients(world: ConsoleWorld) -> set[int]:
    """The ids of the clients of the database app."""
    return {row["id"] for row in world.show("CLIENTS") if row["database"] == "app"}


@contextlib.contextmanager
def suspended(world: ConsoleWorld) -> Iterator[None]:
    """Nothing moves inside; also a test that fails ends it, so that its clients can say goodbye."""
    assert world.order("SUSPEND") == "SUSPEND"
    try:
        yield
    finally:
        assert world.order("RESUME") == "RESUME"


def test_only_admins_may_steer_and_others_stay_out(world: ConsoleWorld) -> None:
    with world.console("monitor") as console:
        assert console.execute("SHOW POOLS").fetchall()
        for command in ("PAUSE", "RELOAD", "SET query_timeout = 1", "KILL_CLIENT 1", "SHUTDOWN"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                console.execute(command.encode())
    for user, password in (("other", "app"), ("app", "wrong"), ("nobody", "app")):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(world.pooler.url(f"{user}:{password}", "pgbouncer"))
    with pytest.raises(pymysql.Error):
        world.mysql_client("pgbouncer", user="other")


def test_pause_waits_for_transactions_and_resume_lets_go_on(world: ConsoleWorld) -> None:
    with world.client() as client, world.client() as other:
        client.execute("BEGIN")
        pausing = in_thread(lambda: world.order("PAUSE app"))
        wait_until(lambda: world.show("DATABASES")[0]["paused"] == 1, "paused")
        assert not pausing.is_done()
        waiting = in_thread(lambda: other.execute("SELECT 1").fetchone())
        wait_until(lambda: len(world.show("QUEUE")) == 1, "somebody in the queue")
        client.execute("SELECT 1")
        client.execute("COMMIT")
        assert pausing.result() == "PAUSE"
        wait_until(lambda: not pids(world), "no server connection")
        assert not waiting.is_done()
        with world.mysql_client() as untouched, untouched.cursor() as cursor:
            assert cursor.execute("SELECT 1") == 1
        assert world.order("RESUME app") == "RESUME"
        assert waiting.result() == (1,)


def test_a_database_is_paused_before_its_first_client(world: ConsoleWorld) -> None:
    world.order("PAUSE")
    assert world.show("STATE")[1] == {"key": "paused", "value": "yes"}
    arriving = in_thread(lambda: world.client().close())
    status, body = world.fetch("/readyz")
    assert status == 503
    assert "paused" in body
    world.order("RESUME")
    arriving.result()
    assert world.fetch("/readyz")[0] == 200


def test_a_pause_that_takes_too_long_can_be_canceled_and_its_client_may_leave(world: ConsoleWorld) -> None:
    with world.client() as client:
        client.execute("BEGIN")
        with world.console() as console:
            pausing = in_thread(lambda: console.execute("PAUSE app"))
            wait_until(lambda: world.show("DATABASES")[0]["paused"] == 1, "paused")
            console.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                pausing.result()
            assert console.execute("SHOW VERSION").fetchall()
        leaving = world.console()
        leaving.pgconn.send_query(b"PAUSE app")
        leaving.pgconn.flush()
        leaving.close()
        wait_until(lambda: sum(row["database"] == "pgbouncer" for row in world.show("CLIENTS")) == 1, "its session has ended")
        client.execute("COMMIT")
        world.order("RESUME app")
        client.execute("SELECT 1")


def test_suspend_stands_still_in_the_middle_of_transactions_and_queries(world: ConsoleWorld) -> None:
    with world.client() as client, world.client() as asking, direct(world) as server:
        client.execute("BEGIN")
        server.execute("SELECT pg_advisory_lock(77)")
        asked = in_thread(lambda: asking.execute("SELECT pg_advisory_xact_lock(77)").fetchone())
        locks = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
        wait_until(lambda: server.execute(locks).fetchone() == (1,), "the query waits for the lock")
        before = pids(world)
        with suspended(world):
            assert {row["key"]: row["value"] for row in world.show("STATE")} == {"active": "no", "paused": "no", "suspended": "yes"}
            with pytest.raises(psycopg.Error, match="already suspended"):
                world.order("SUSPEND")
            going_on = in_thread(lambda: client.execute("CREATE TABLE seen_by_the_server ()"))
            arriving = in_thread(lambda: world.client().execute("SELECT 2").fetchone())
            server.execute("SELECT pg_advisory_unlock(77)")
            wait_until(lambda: server.execute(locks).fetchone() == (0,), "the query has ended at the server")
            statement = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE TABLE seen%'"
            assert server.execute(statement).fetchone() == (0,)
            assert not any(task.is_done() for task in (going_on, asked, arriving))
            assert pids(world) == before
        going_on.result()
        client.execute("ROLLBACK")
        assert asked.result() == ("",)
        assert arriving.result() == (2,)


def test_suspend_ends_those_who_do_not_take_what_was_read_in_time(world: ConsoleWorld) -> None:
    world.order("SET suspend_timeout = '500ms'")
    with world.client() as client:
        client.execute("BEGIN")
        deaf = world.client()
        deaf.pgconn.send_query(b"SELECT 'deaf', repeat('x', 1000000) FROM generate_series(1, 100)")
        deaf.pgconn.flush()
        wait_until(lambda: any(row["send_remain"] for row in world.show("SOCKETS")), "it does not take what there is for it")
        with suspended(world):
            wait_until(lambda: deaf.info.backend_pid not in clients(world), "it is gone")
            assert client.info.backend_pid in clients(world)
        assert client.execute("SELECT 1").fetchone() == (1,)
        deaf.close()


def test_suspend_ends_those_who_get_no_server_connection_in_time(world: ConsoleWorld) -> None:
    world.order("SET suspend_timeout = '500ms'")
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(world.client()) for _ in range(5)]
        for holder in holders:
            holder.execute("BEGIN")
        waiting = stack.enter_context(world.client())
        asked = in_thread(lambda: waiting.execute("SELECT 1"))
        wait_until(lambda: len(world.show("QUEUE")) == 1, "somebody in the queue")
        with suspended(world), pytest.raises(psycopg.errors.AdminShutdown, match=r"timeouts\.suspend is 0\.5 s"):
            asked.result()
        for holder in holders:
            holder.execute("COMMIT")


def test_suspend_that_is_canceled_changes_nothing(world: ConsoleWorld) -> None:
    world.order("SET suspend_timeout = 0")
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(world.client()) for _ in range(5)]
        for holder in holders:
            holder.execute("BEGIN")
        waiting = stack.enter_context(world.client())
        asked = in_thread(lambda: waiting.execute("SELECT 1").fetchone())
        wait_until(lambda: len(world.show("QUEUE")) == 1, "somebody in the queue")
        console = stack.enter_context(world.console())
        suspending = in_thread(lambda: console.execute("SUSPEND"))
        wait_until(lambda: world.show("STATE")[2]["value"] == "yes", "suspended")
        console.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            suspending.result()
        assert world.show("STATE")[2]["value"] == "no"
        for holder in holders:
            holder.execute("COMMIT")
        assert asked.result() == (1,)


def test_suspend_stops_mysql_clients_too(world: ConsoleWorld) -> None:
    with world.mysql_client() as client, client.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert world.order("SUSPEND") == "SUSPEND"
        asked = in_thread(lambda: cursor.execute("SELECT 2"))
        with world.mysql_client("pgbouncer") as console, console.cursor() as orders:
            assert not asked.is_done()
            orders.execute("RESUME")
        assert asked.result() == 1


def test_disable_keeps_new_clients_out(world: ConsoleWorld) -> None:
    with world.client() as client:
        world.order("DISABLE app")
        with pytest.raises(psycopg.OperationalError, match='database "app" is disabled'):
            world.client()
        assert client.execute("SELECT 1").fetchone() == (1,)
        assert next(row for row in world.show("DATABASES") if row["name"] == "app")["disabled"] == 1
        world.order("ENABLE app")
        world.client().close()


def test_kill_ends_everybody_and_pauses(world: ConsoleWorld) -> None:
    with world.client() as client, world.mysql_client() as untouched:
        client.execute("BEGIN")
        assert world.order("KILL app") == "KILL"
        with pytest.raises(psycopg.errors.AdminShutdown, match="admin forced disconnect"):
            client.execute("SELECT 1")
        wait_until(lambda: not pids(world), "no server connection")
        assert world.order("WAIT_CLOSE app") == "WAIT_CLOSE"
        untouched.ping(reconnect=False)
        arriving = in_thread(lambda: world.client().close())
        world.order("RESUME app")
        arriving.result()


def test_kill_client_ends_one(world: ConsoleWorld) -> None:
    with world.client() as victim, world.client() as other, world.mysql_client() as mysql_victim:
        world.order(f"KILL_CLIENT {victim.info.backend_pid}")
        with pytest.raises(psycopg.errors.AdminShutdown):
            victim.execute("SELECT 1")
        assert other.execute("SELECT 1").fetchone() == (1,)
        world.order(f"KILL_CLIENT {mysql_victim.thread_id()}")
        with pytest.raises(pymysql.Error):
            mysql_victim.ping(reconnect=False)


def test_reconnect_replaces_server_connections_without_an_error(world: ConsoleWorld) -> None:
    with world.client() as client:
        client.execute("BEGIN")
        [(before,)] = client.execute("SELECT pg_backend_pid()").fetchall()
        world.order("RECONNECT app")
        waiting = in_thread(lambda: world.order("WAIT_CLOSE app"))
        assert client.execute("SELECT pg_backend_pid()").fetchall() == [(before,)]
        client.execute("COMMIT")
        assert waiting.result() == "WAIT_CLOSE"
        assert client.execute("SELECT pg_backend_pid()").fetchall() != [(before,)]


def test_set_takes_effect_at_once(world: ConsoleWorld) -> None:
    assert world.order("SET query_timeout = '300ms'") == "SET timeouts.query=300ms"
    config = {row["key"]: row for row in world.show("CONFIG")}
    assert (config["query_timeout"]["value"], config["timeouts.query"]["value"]) == ("0.3", "300ms")
    with world.client() as client, pytest.raises(psycopg.Error):
        client.execute("SELECT pg_sleep(10)")
    world.order("SET query_timeout = 0")
    world.order("SET max_client_conn = 1")
    with world.client(), pytest.raises(psycopg.OperationalError, match="too many clients"):
        world.client()


# -------------------------------------------------------------------------------------------------------------------- reload


def test_a_bad_file_changes_nothing_and_says_where(world: ConsoleWorld) -> None:
    world.pooler.write_config((world.pooler.toml or "").replace("pool_size = 5", "pool_size = 0", 1))
    with world.console() as console, pytest.raises(psycopg.Error, match=r"dualpool.toml:\d+: databases.app.pool_size"):
        console.execute("RELOAD")
    world.pooler.wait_for_log("reload failed, nothing has changed")
    with world.client() as client:
        client.execute("SELECT 1")
    assert next(row for row in world.show("DATABASES") if row["name"] == "app")["pool_size"] == 5


def test_a_new_size_keeps_connections(world: ConsoleWorld) -> None:
    with world.client() as client:
        client.execute("SELECT 1")
        before = pids(world)
        world.pooler.write_config(world.config(pool_size=7))
        assert world.order("RELOAD") == "RELOAD"
        assert pids(world) == before
        assert next(row for row in world.show("DATABASES") if row["name"] == "app")["pool_size"] == 7
        clients = [world.client() for _ in range(7)]
        for one in clients:
            one.execute("BEGIN")
        assert next(row for row in world.show("POOLS") if row["database"] == "app")["sv_active"] == 7
        for one in clients:
            one.close()


def test_hangup_reloads(world: ConsoleWorld) -> None:
    world.pooler.write_config(world.config(pool_size=6))
    world.pooler.reload()
    wait_until(lambda: next(row for row in world.show("DATABASES") if row["name"] == "app")["pool_size"] == 6, "reloaded")


def test_another_target_recycles_and_clients_stay(world: ConsoleWorld) -> None:
    with world.client() as client:
        [(before,)] = client.execute("SELECT pg_backend_pid()").fetchall()
        world.pooler.write_config(world.config().replace("[backends.main]", '[backends.main]\nconnect_query = "SELECT 1"'))
        world.order("RELOAD")
        assert client.execute("SELECT pg_backend_pid()").fetchall() != [(before,)]


def test_another_backend_takes_the_clients_over(world: ConsoleWorld) -> None:
    with world.client() as client, world.client() as busy:
        client.execute("SELECT 1")
        busy.execute("BEGIN")
        more = f'[backends.second]\nurl = "{world.postgres.url}"\nbudget = 10\n'
        world.pooler.write_config(
            world.config(more=more).replace('[databases.app]\nbackend = "main"', '[databases.app]\nbackend = "second"')
        )
        world.order("RELOAD")
        assert client.execute("SELECT 1").fetchone() == (1,)
        assert busy.execute("SELECT 2").fetchone() == (2,)
        busy.execute("COMMIT")
        assert busy.execute("SELECT 3").fetchone() == (3,)
        backends = {row["name"]: row for row in world.show("BACKENDS")}
        assert backends["second"]["connections"] >= 1
        wait_until(lambda: next(row for row in world.show("BACKENDS") if row["name"] == "main")["connections"] == 0, "main is left")


def test_users_and_databases_come_and_go(world: ConsoleWorld) -> None:
    extra = '\n[users.guest]\npassword = "app"\n'
    more = '[databases.more]\nbackend = "main"\ndatabase = "app"\n'
    world.pooler.write_config(world.config(users=extra, more=more))
    world.order("RELOAD")
    with psycopg.connect(world.pooler.url("guest:app", "more"), autocommit=True) as guest, world.client() as stays:
        guest.execute("BEGIN")
        world.pooler.write_config(world.config())
        world.order("RELOAD")
        assert guest.execute("SELECT 1").fetchone() == (1,)
        guest.execute("COMMIT")
        wait_until(lambda: all(row["user"] != "guest" for row in world.show("CLIENTS")), "the guest has gone")
        with pytest.raises(psycopg.errors.AdminShutdown, match="the configuration has changed"):
            guest.execute("SELECT 1")
        assert stays.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(world.pooler.url("guest:app", "app"))


def test_what_is_left_of_a_backend_that_is_gone_can_be_shown(world: ConsoleWorld) -> None:
    more = f'[backends.old]\nurl = "{world.postgres.url}"\nbudget = 10\n[databases.relic]\nbackend = "old"\ndatabase = "app"\n'
    world.pooler.write_config(world.config(more=more))
    world.order("RELOAD")
    with world.client("relic") as client:
        client.execute("BEGIN")
        world.pooler.write_config(world.config())
        world.order("RELOAD")
        for table in SHOWS:
            world.show(table)
        assert "relic" in world.fetch("/metrics")[1]
        assert "relic" in {row["database"] for row in world.show("POOLS")}
        assert "relic" not in {row["name"] for row in world.show("DATABASES")}
    wait_until(lambda: "relic" not in {row["database"] for row in world.show("POOLS")}, "the pool has gone")
    assert {row["database"]: row["client_login_count"] for row in world.show("STATS_TOTALS")}["relic"] == 1


def test_what_needs_a_restart_is_said(world: ConsoleWorld) -> None:
    text = world.config().replace('bind = "127.0.0.1:0"', 'bind = "localhost:0"\nsocket_mode = "0700"', 1)
    world.pooler.write_config(text + '\n[log]\nformat = "json"\n\n[listeners.late]\nprotocol = "postgres"\nbind = "127.0.0.1:0"\n')
    notices: list[str | None] = []
    with world.console() as console:
        console.add_notice_handler(lambda said: notices.append(said.message_primary))
        for _ in range(2):
            console.execute("RELOAD")
    assert notices == 2 * [
        "listeners.late: a new listener takes effect after a restart",
        "listeners.postgres.bind: the change takes effect after a restart",
        "listeners.postgres.socket_mode: the change takes effect after a restart",
        "log.format: the change takes effect after a restart",
    ]
    with world.mysql_client("dualpool") as console, console.cursor() as cursor:
        cursor.execute("RELOAD")
        cursor.execute("SHOW WARNINGS")
        assert len(cursor.fetchall()) >= 1


def test_certificates_are_read_again(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> None:
    first, second = (Certificates(tmp_path_factory.mktemp(name)) for name in ("first", "second"))
    old, new = first.issue("127.0.0.1"), second.issue("127.0.0.1")
    folder = tmp_path_factory.mktemp("now")
    for name, kept in (("cert", old.cert), ("key", old.key)):
        (folder / name).write_bytes(kept.read_bytes())
    with console_world(servers) as world:
        tls = f'tls = {{ mode = "prefer", cert = "{folder}/cert", key = "{folder}/key" }}'
        world.pooler.write_config(world.config().replace("[listeners.postgres]", f"[listeners.postgres]\n{tls}"))
        world.order("RELOAD")

        def trusts(certificates: Certificates) -> bool:
            try:
                world.client(sslmode="verify-ca", sslrootcert=str(certificates.ca)).close()
            except psycopg.OperationalError:
                return False
            return True

        assert (trusts(first), trusts(second)) == (True, False)
        for name, kept in (("cert", new.cert), ("key", new.key)):
            (folder / name).write_bytes(kept.read_bytes())
        world.order("RELOAD")
        assert (trusts(first), trusts(second)) == (False, True)


# ------------------------------------------------------------------------------------------------------------------ shutdown


def test_shutdown_is_at_once(servers: Servers) -> None:
    with console_world(servers) as world:
        client = world.client()
        client.execute("BEGIN")
        assert world.order("SHUTDOWN") == "SHUTDOWN"
        assert world.pooler.wait() == 0
        with pytest.raises(psycopg.errors.AdminShutdown):
            client.execute("SELECT 1")


@pytest.mark.parametrize("mode", ["WAIT_FOR_SERVERS", "WAIT_FOR_CLIENTS"])
def test_shutdown_can_wait(servers: Servers, mode: str) -> None:
    with console_world(servers) as world, world.client() as client, world.client() as idle:
        client.execute("BEGIN")
        world.order(f"SHUTDOWN {mode}")
        client.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            world.client(connect_timeout=5)
        if mode == "WAIT_FOR_CLIENTS":
            assert idle.execute("SELECT 1").fetchone() == (1,)
        client.execute("COMMIT")
        client.close()
        idle.close()
        assert world.pooler.wait() == 0


# ---------------------------------------------------------------------------------------------------------------- under load

CLIENTS = 30


class Load:
    """Clients of both protocols that run short transactions until they are told to stop."""

    def __init__(self, world: ConsoleWorld) -> None:
        self.world = world
        self.errors: list[BaseException] = []
        self.done = [0] * (2 * CLIENTS)
        self._stop = threading.Event()
        works = [self._postgres] * CLIENTS + [self._mysql] * CLIENTS
        self._threads = [threading.Thread(target=self._run, args=(work, number), daemon=True) for number, work in enumerate(works)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        self.progress()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def progress(self) -> None:
        """Wait until every client has got on."""
        before = list(self.done)
        wait_until(lambda: bool(self.errors) or all(now > then for now, then in zip(self.done, before, strict=True)), "progress")
        assert not self.errors, self.errors[:3]

    def _run(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            self.errors.append(error)

    def _postgres(self, number: int) -> None:
        with self.world.client() as client:
            while not self._stop.is_set():
                with client.transaction():
                    assert client.execute("SELECT %s::int", [number]).fetchone() == (number,)
                self.done[number] += 1

    def _mysql(self, number: int) -> None:
        with self.world.mysql_client(autocommit=False) as client, client.cursor() as cursor:
            while not self._stop.is_set():
                cursor.execute("SELECT %s", [number])
                assert cursor.fetchone() == (number,)
                client.commit()
                self.done[number] += 1


def test_orders_under_load_cost_no_client_an_error(servers: Servers) -> None:
    with console_world(servers) as world, Load(world) as load:
        for size in (8, 3, 5):
            world.pooler.write_config(world.config(pool_size=size))
            world.order("RELOAD")
            load.progress()
            world.order("PAUSE")
            world.order("RESUME")
            load.progress()
            world.order("RECONNECT")
            load.progress()
        world.order("PAUSE shop")
        world.order("RESUME shop")
        world.pooler.process.send_signal(signal.SIGHUP)
        load.progress()
        sizes = {row["database"]: row["sv_active"] + row["sv_idle"] for row in world.show("POOLS")}
        assert sizes["app"] <= 5
        assert sizes["shop"] <= 5
        load.progress()
    assert not load.errors
