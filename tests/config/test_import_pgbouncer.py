"""What becomes of a pgbouncer.ini."""

import re
from pathlib import Path

import pytest

from dualpool.config import Bind, Config, load, loads
from dualpool.config.fields import keys_of
from dualpool.config.importers import Imported, import_file
from dualpool.config.importers.pgbouncer import ProcessSettings, process_settings
from dualpool.config.importers.pgbouncer_remarks import DONE_BY_COMMAND, FIXED, LIVE
from dualpool.config.model import TABLES, TABLES_BY_NAME
from dualpool.errors import ConfigError

SMALL = "[databases]\napp = host=10.0.0.1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nunix_socket_dir =\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "userlist.txt").write_text('"app" "secret"\n"admin" "md5' + "0" * 32 + '"\n')
    return tmp_path


def imported(folder: Path, text: str) -> Imported:
    path = folder / "pgbouncer.ini"
    path.write_text(text)
    result = import_file(path)
    # The text says what the dictionaries say.
    assert without_warnings(loads(result.toml(), str(folder / "dualpool.toml"), {})) == without_warnings(result.config())
    return result


def without_warnings(config: Config) -> str:
    return repr(
        (config.listeners, config.backends, config.databases, config.users, config.limits, config.timeouts, config.auth, config.admin)
    )


def config(folder: Path, more: str = "", databases: str = "app = host=10.0.0.1", users: str = "") -> Config:
    text = f"[databases]\n{databases}\n[users]\n{users}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nunix_socket_dir = \n"
    text += f"auth_file = userlist.txt\n{more}"
    return imported(folder, text).config()


def notes(folder: Path, more: str) -> list[str]:
    return [str(note) for note in imported(folder, SMALL + more).notes]


def test_addresses(folder: Path) -> None:
    text = SMALL.replace("127.0.0.1", "127.0.0.1, ::1 ").replace("unix_socket_dir =", "unix_socket_dir = /run/pg\nlisten_port = 7000")
    listener = imported(folder, text + "unix_socket_mode = 0770\nlisten_backlog = 50").config().listeners["postgres"]
    assert listener.bind == (Bind("127.0.0.1", 7000), Bind("::1", 7000), Bind(unix="/run/pg/.s.PGSQL.7000"))
    assert imported(folder, SMALL.replace("127.0.0.1", "*")).config().listeners["postgres"].bind == (Bind("", 6432),)
    assert (listener.socket_mode, listener.backlog, listener.pool_mode, listener.auth) == ("0770", 50, "session", "md5")


def test_the_socket_is_where_pgbouncer_has_it(folder: Path) -> None:
    text = "[databases]\n*=\n[pgbouncer]\n"
    found = imported(folder, text).config()
    assert found.listeners["postgres"].bind == (Bind(unix="/tmp/.s.PGSQL.6432"),)
    assert found.backends["local"].hosts == (("/tmp", 5432),)
    with pytest.raises(ConfigError, match="nobody could connect"):
        imported(folder, text + "unix_socket_dir=\n")


def test_databases(folder: Path) -> None:
    lines = """\
plain = host=10.0.0.1
alias = host=10.0.0.1 port=5432 dbname=real pool_size=7 min_pool_size=9 reserve_pool=2
"quo""ted" = host=10.0.0.1 pool_mode=statement max_db_connections=4 max_db_client_connections=5 query_wait_timeout=3 server_lifetime=60
forced = host=10.0.0.1 user=me password='it''s = ${x} "q"' dbname=d
tuned = host=10.0.0.1 client_encoding=LATIN1 timezone='Europe/Berlin' connect_query='SELECT ''x'''
many = host=10.0.0.1,10.0.0.2 port=5433
first = host=10.0.0.1,10.0.0.2 load_balance_hosts=disable
six = host=2001:db8::1
socket = host=/var/run/postgresql port=5434
* = host=10.0.0.9 auth_user=pooler auth_dbname=plain
"""
    found = config(folder, "default_pool_size = 30\nmin_pool_size = 2\n", lines)
    databases, backends = found.databases, found.backends
    assert databases["plain"].backend == databases["alias"].backend == databases["forced"].backend
    assert len(backends) == 7
    alias, quoted, forced = databases["alias"], databases['quo"ted'], databases["forced"]
    assert (alias.database, alias.pool_size, alias.min_pool_size, alias.reserve_pool_size) == ("real", 7, 7, 2)
    assert (databases["plain"].pool_size, databases["plain"].min_pool_size) == (30, 2)
    assert (quoted.pool_mode, quoted.max_connections, quoted.max_client_connections) == ("statement", 4, 5)
    assert (quoted.query_wait, quoted.server_lifetime) == (3.0, 60.0)
    assert (forced.user, forced.password, forced.database) == ("me", 'it\'s = ${x} "q"', "d")
    tuned = backends[databases["tuned"].backend]
    assert (tuned.parameters, tuned.connect_query) == ({"client_encoding": "LATIN1", "timezone": "Europe/Berlin"}, "SELECT 'x'")
    many, first = backends[databases["many"].backend], backends[databases["first"].backend]
    assert (many.hosts, many.load_balance) == ((("10.0.0.1", 5433), ("10.0.0.2", 5433)), "round-robin")
    assert first.load_balance == "in-order"
    assert backends[databases["six"].backend].hosts == (("2001:db8::1", 5432),)
    assert backends[databases["socket"].backend].hosts == (("/var/run/postgresql", 5434),)
    star = backends[databases["*"].backend]
    assert (star.auth_user, star.auth_query, star.auth_database, star.user) == ("pooler", "", "plain", "")


def test_users(folder: Path) -> None:
    users = "app = pool_size=3 pool_mode=session max_user_connections=4 query_timeout=5 idle_transaction_timeout=6\nghost = pool_size=0"
    found = config(folder, "max_user_client_connections = 9\nadmin_users = admin, nobody\nstats_users = app", users=users)
    app = found.users["app"]
    assert (app.password, app.pool_size, app.pool_mode, app.max_connections) == (("secret",), 3, "session", 4)
    assert (app.query, app.idle_in_transaction, app.max_client_connections) == (5.0, 6.0, 9)
    assert (found.users["admin"].password, found.users["admin"].max_client_connections) == (("md5" + "0" * 32,), 9)
    assert found.users["ghost"].password == ()
    assert (found.admin.users, found.admin.stats_users) == (("admin",), ("app",))
    assert any("admin_users = nobody" in warning for warning in found.warnings)


def test_times(folder: Path) -> None:
    more = """
query_wait_timeout = 1
query_wait_notify = 2
server_connect_timeout = 3
server_login_retry = 4.5
server_idle_timeout = 6
server_lifetime = 600
client_login_timeout = 8
client_idle_timeout = 9
idle_transaction_timeout = 10
transaction_timeout = 11
query_timeout = 12
cancel_wait_timeout = 13
reserve_pool_timeout = 14
server_check_delay = 15
dns_max_ttl = 16
suspend_timeout = 17
server_check_query = select 1
"""
    found = config(folder, more)
    times = found.timeouts
    assert (times.query_wait, times.query_wait_notify, times.server_connect, times.server_login_retry) == (1, 2, 3, 4.5)
    assert (times.server_idle, times.server_lifetime, times.server_lifetime_jitter, times.client_login) == (6, 600, 60, 8)
    assert (times.client_idle, times.idle_in_transaction, times.transaction, times.query) == (9, 10, 11, 12)
    assert (times.cancel_wait, times.reserve_pool, times.server_check_delay, times.dns) == (13, 14, 15, 16)
    assert times.suspend == 17
    assert found.backends["10.0.0.1"].check_query == "select 1"
    assert config(folder, "server_check_query =").timeouts.server_check_delay == 0
    assert 0 < config(folder, "server_check_delay = 0").timeouts.server_check_delay < 0.01


@pytest.mark.parametrize(
    ("kind", "auth"),
    [("md5", "md5"), ("scram-sha-256", "scram-sha-256"), ("plain", "password"), ("trust", "trust"), ("any", "trust"), ("pam", "auto")],
)
def test_auth_types(folder: Path, kind: str, auth: str) -> None:
    databases = "app = host=10.0.0.1 user=app"
    found = config(folder, f"auth_type = {kind}", databases)
    assert found.listeners["postgres"].auth == auth
    assert bool(found.users) == (kind != "any")
    assert found.databases["app"].password == ("secret" if kind == "any" else "")


def test_rules_and_maps(folder: Path) -> None:
    (folder / "hba").write_text("local all all peer map=m\n")
    (folder / "ident").write_text("m root app\n")
    found = config(folder, "auth_type = hba\nauth_hba_file = hba\nauth_ident_file = ident")
    assert found.listeners["postgres"].auth == "hba"
    assert [rule.method for rule in found.hba] == ["peer"]
    assert list(found.ident) == ["m"]


def test_a_broken_map_is_told_once(folder: Path) -> None:
    (folder / "hba").write_text("local all all peer map=m\n")
    (folder / "ident").write_text("m root\n")
    with pytest.raises(ConfigError) as caught:
        config(folder, "auth_type = hba\nauth_hba_file = hba\nauth_ident_file = ident")
    assert "ident: line 1" in str(caught.value)
    assert "there is no map" not in str(caught.value)


def test_tls(folder: Path) -> None:
    for name in ("c.crt", "c.key", "ca.crt"):
        (folder / name).write_text("")
    client = "client_tls_cert_file = c.crt\nclient_tls_key_file = c.key\nclient_tls_ca_file = ca.crt\n"
    server = "server_tls_sslmode = verify-full\nserver_tls_ca_file = ca.crt\nserver_tls_cert_file = c.crt\nserver_tls_key_file = c.key\n"
    found = config(folder, f"client_tls_sslmode = verify-full\n{client}{server}")
    tls, (backend,) = found.listeners["postgres"].tls, found.backends.values()
    assert tls is not None
    # PgBouncer's verify-full does not compare the user with the certificate.
    assert (tls.mode, tls.cert, tls.client_ca) == ("verify-ca", str(folder / "c.crt"), str(folder / "ca.crt"))
    assert (backend.sslmode, backend.sslrootcert, backend.sslcert) == ("verify-full", str(folder / "ca.crt"), str(folder / "c.crt"))
    found = config(folder, f"client_tls_sslmode = require\n{client}{server.replace('verify-full', 'require')}")
    tls, (backend,) = found.listeners["postgres"].tls, found.backends.values()
    assert tls is not None
    assert (tls.mode, tls.client_ca, backend.sslmode, backend.sslrootcert) == ("require", "", "require", "")


def test_includes(folder: Path) -> None:
    (folder / "more.ini").write_text("default_pool_size = 3\n[databases]\nextra = host=10.0.0.1\n")
    found = imported(folder, SMALL + "default_pool_size = 9\n%include more.ini\n").config()
    assert {database.pool_size for database in found.databases.values()} == {3}
    assert set(found.databases) == {"app", "extra"}
    (folder / "more.ini").write_text("%include more.ini\n")
    with pytest.raises(ConfigError, match="more than 16 deep"):
        imported(folder, SMALL + "%include more.ini\n")


def test_what_has_no_equivalent_is_told(folder: Path) -> None:
    more = (
        "server_reset_query = DEALLOCATE ALL\ntcp_defer_accept = 5\npkt_buf = 8192\n"
        "ignore_startup_parameters = extra_float_digits, odd.name\n"
    )
    found = imported(folder, SMALL + more + "[peers]\n1 = host=x\n")
    told = [str(note) for note in found.notes]
    assert told == [
        "[peers]: a cancel request has to reach the process that serves the client",
        "ignore_startup_parameters = extra_float_digits: not ignored: each client gets what it asks for",
        "server_reset_query = DEALLOCATE ALL: DISCARD ALL, and only when a session has left something behind",
        "tcp_defer_accept = 5: the operating system's setting is used",
        "pkt_buf = 8192: buffers have a fixed size",
    ]
    assert all(f"#   {line}" in found.toml() for line in told)
    assert found.config().listeners["postgres"].ignore_parameters == ("odd.name",)


def test_what_is_logged(folder: Path) -> None:
    log = imported(folder, SMALL + "log_connections = 0\nlog_disconnections = 1\nverbose = 1\n").config().log
    assert (log.level, log.connections, log.disconnections) == ("debug", False, True)


def test_defaults_are_not_told(folder: Path) -> None:
    assert notes(folder, "server_reset_query = DISCARD ALL\nso_reuseport = 0\ntcp_keepalive = 1\nlog_stats = 0\nstats_period = 60\n") == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (SMALL + "max_clinet_conn = 5\n", "pgbouncer.ini:6: max_clinet_conn: PgBouncer has no such setting"),
        (SMALL + "max_client_conn = many\n", "pgbouncer.ini:6: max_client_conn: must be a whole number, got 'many'"),
        (SMALL + "query_timeout = 5s\n", "pgbouncer.ini:6: query_timeout: must be a number of seconds, got '5s'"),
        (SMALL + "pool_mode = both\n", "pgbouncer.ini:6: pool_mode: must be one of session, transaction, statement, got 'both'"),
        (SMALL + "oops\n", "pgbouncer.ini:6: must be key = value"),
        (SMALL + "[other]\nx = 1\n", "pgbouncer.ini:7: there is no section [other]"),
        (SMALL.replace("host=10.0.0.1", "host = 'x"), "pgbouncer.ini:2: databases.app: the settings from 'host' on are not understood"),
        (SMALL.replace("host=10.0.0.1", "hots=x"), "pgbouncer.ini:2: databases.app: unknown settings: hots"),
        (SMALL + "%include nowhere.ini\n", "nowhere.ini: No such file or directory"),
    ],
)
def test_what_cannot_be_imported(folder: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        imported(folder, text)
    assert error in raised.value.message


def test_an_ini_is_loaded_as_it_is(folder: Path) -> None:
    path = folder / "pgbouncer.ini"
    path.write_text(SMALL + "auth_file = userlist.txt\nso_reuseport = 1\npkt_buf = 8192\n")
    found = load(path)
    assert found.users["app"].password == ("secret",)
    assert found.warnings == (f"{path}: pkt_buf = 8192: buffers have a fixed size",)
    assert found.listeners["postgres"].reuse_port


def test_the_process(folder: Path) -> None:
    path = folder / "pgbouncer.ini"
    path.write_text(SMALL + "logfile = /l\npidfile = /p\nuser = nobody\nsyslog = 1\nverbose = 2\n")
    assert process_settings(path) == ProcessSettings("/l", "/p", "nobody", True, "pgbouncer", "daemon", 2)


def test_whose_file_it_is(folder: Path) -> None:
    (folder / "x.cnf").write_text("hello")
    with pytest.raises(ConfigError, match="is neither"):
        import_file(folder / "x.cnf")
    with pytest.raises(ConfigError, match="No such file"):
        import_file(folder / "y.cnf")


def test_the_readme_has_every_setting_that_counts() -> None:
    table = (Path(__file__).parents[2] / "README.md").read_text().partition("| PgBouncer | dualpool |")[2].partition("| ProxySQL")[0]
    assert [key for key in sorted(LIVE | FIXED | DONE_BY_COMMAND) if f"`{key}`" not in table] == []
    keys = {name for cls in (*TABLES.values(), *TABLES_BY_NAME.values()) for name in keys_of(cls)}
    for row in table.strip().splitlines()[1:]:
        told = re.findall(r"`(?:[a-z]+\.(?:\*\.)?)([a-z_]+)`", row.split("|")[2])
        assert [name for name in told if name not in keys] == [], row
