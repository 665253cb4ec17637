"""Through what the load goes. Poolers are started afresh for a run, so that their memory starts at nothing and nobody else uses them.

All of them pool per transaction with POOL_SIZE server connections, and use TLS on neither leg.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from benchlib.model import Endpoint, Engine, LeftOut, Server
from benchlib.proc import listeners
from benchlib.programs import Host, free_port, quoted, running
from benchlib.tables import unix_socket

BY_SOCKET = "dualpool-unix"
"""dualpool again, connected to the server by its Unix socket. Only on request: the others are connected by TCP."""
POOL_SIZE = 20
MAX_CLIENTS = 15_000


@attrs.frozen
class Bench:
    """What an endpoint is started with: the machine, the server behind it, a folder for its log and configuration."""

    host: Host
    server: Server
    folder: Path
    profile: Path | None = None


@attrs.frozen
class Rival:
    """A pooler that somebody else wrote: its program, its files, and how it is called in the folder that holds them."""

    program: str
    files: Callable[[Server, int], dict[str, str]]
    command: str


def names(engine: Engine) -> list[str]:
    """Everything that a load of `engine` can go through, dualpool first, the server itself last."""
    return ["dualpool", BY_SOCKET, *RIVALS[engine], "direct"]


@contextmanager
def opened(name: str, bench: Bench) -> Iterator[Endpoint]:
    """Start the endpoint `name`, yield it, end it. Raises LeftOut where it cannot be started."""
    if name == "direct":
        yield Endpoint(name, bench.server, bench.server.port, listeners(bench.server.port))
        return
    port, log = free_port(), bench.folder / f"{name}-{bench.server.engine}.log"
    if name in {"dualpool", BY_SOCKET}:
        way = unix_socket(bench.server) if name == BY_SOCKET else ""
        command, stdin, ready = dualpool_command(bench, port, way), b"", "listening on"
    else:
        (command, stdin), ready = rival_command(name, bench, port), ""
    with running(name, command, port, log, stdin=stdin, ready=ready) as pids:
        if not pids:
            raise LeftOut(f"{name}: which process listens on its port {port} cannot be seen; run as the same user")
        yield Endpoint(name, bench.server, port, pids, log)


# --------------------------------------------------------------------------------------------------------------------- dualpool


def dualpool_command(bench: Bench, port: int, way: str) -> list[str]:
    """`dualpool run` with a file written for it, under cProfile if asked."""
    config = bench.folder / f"dualpool-{port}.toml"
    config.write_text(dualpool_toml(bench.server, port, way))
    profiler = []
    if bench.profile:
        target = bench.profile.resolve()
        profiler = ["-m", "cProfile", "-o", str(target.with_name(f"{target.stem}-{bench.server.engine}{target.suffix}"))]
    return [sys.executable, *profiler, "-m", "dualpool", "run", "-c", str(config)]


def dualpool_toml(server: Server, port: int, way: str = "") -> str:
    """One listener, one backend, one database. `way`: more parameters for the backend's url."""
    scheme, no_tls = {"postgres": ("postgresql", "sslmode=disable"), "mysql": ("mysql", "ssl-mode=DISABLED")}[server.engine]
    return f"""
[listeners.bench]
protocol = "{server.engine}"
bind = "127.0.0.1:{port}"
pool_mode = "transaction"
[backends.bench]
url = "{scheme}://{server.user}:{server.password}@{server.host}:{server.port}/{server.database}?{"&".join(filter(None, (no_tls, way)))}"
[databases.{server.database}]
backend = "bench"
pool_size = {POOL_SIZE}
[users.{server.user}]
password = "{server.password}"
[limits]
max_client_connections = {MAX_CLIENTS}
"""


# ----------------------------------------------------------------------------------------------------------------------- rivals


def rival_command(name: str, bench: Bench, port: int) -> tuple[list[str], bytes]:
    """How to start the rival `name` on `port`, and its standard input. Raises LeftOut if it is not installed."""
    rival = RIVALS[bench.server.engine][name]
    return bench.host.command(rival.program, rival.files(bench.server, port), rival.command)


def pgbouncer_files(server: Server, port: int) -> dict[str, str]:
    """PgBouncer as its documentation recommends it; prepared statements in transaction mode are on by default since 1.24."""
    return {
        "users.txt": f'"{server.user}" "{server.password}"\n',
        "pgbouncer.ini": f"""
[databases]
{server.database} = host={server.host} port={server.port} dbname={server.database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = scram-sha-256
auth_file = users.txt
pool_mode = transaction
default_pool_size = {POOL_SIZE}
max_client_conn = {MAX_CLIENTS}
unix_socket_dir =
server_tls_sslmode = disable
user = nobody
""",
    }


def odyssey_files(server: Server, port: int) -> dict[str, str]:
    """Odyssey with one worker, as PgBouncer and dualpool have one thread."""
    return {
        "odyssey.conf": f"""
daemonize no
log_to_stdout yes
log_format "%p %t %l [%i %s] (%c) %m\\n"
log_session no
log_query no
log_stats no
workers 1
resolvers 1
client_max {MAX_CLIENTS}
listen {{ host "127.0.0.1" port {port} backlog 128 }}
storage "pg" {{ type "remote" host "{server.host}" port {server.port} }}
database default {{ user default {{ authentication "none" storage "pg" storage_user "{server.user}" storage_password "{server.password}"
  pool "transaction" pool_size {POOL_SIZE} pool_reserve_prepared_statement yes pool_discard no }} }}
"""
    }


def router_files(server: Server, port: int) -> dict[str, str]:
    """MySQL Router with connection sharing.

    It offers TLS to clients (who do not take it): without the key it could not ask them for the password over RSA, and shares nothing.
    """
    certificate, key = throwaway_certificate()
    return {
        "server.crt": certificate,
        "server.key": key,
        "router.conf": f"""
[DEFAULT]
logging_folder=
runtime_folder=.
data_folder=.
unknown_config_option=warning
max_total_connections={MAX_CLIENTS}
[logger]
level=WARNING
[connection_pool]
max_idle_server_connections={POOL_SIZE}
[routing:share]
bind_address=127.0.0.1
bind_port={port}
destinations={server.host}:{server.port}
routing_strategy=first-available
protocol=classic
connection_sharing=1
connection_sharing_delay=0
client_ssl_mode=PREFERRED
client_ssl_cert=server.crt
client_ssl_key=server.key
server_ssl_mode=DISABLED
max_connections={MAX_CLIENTS}
""",
    }


def proxysql_files(server: Server, port: int) -> dict[str, str]:
    """ProxySQL with one thread and without its monitor; the server's users log in at it with the same password."""
    return {
        "proxysql.cnf": f"""
datadir="."
admin_variables= {{ admin_credentials="admin:admin"; mysql_ifaces="127.0.0.1:{free_port()}"; }}
mysql_variables=
{{
  threads=1; interfaces="127.0.0.1:{port}"; max_connections={MAX_CLIENTS}; monitor_enabled=false;
  default_schema="{server.database}"; have_ssl=false; server_version="8.4.0";
}}
mysql_servers= ( {{ address="{server.host}"; port={server.port}; hostgroup=0; max_connections={POOL_SIZE}; }} )
mysql_users= ( {{ username="{server.user}"; password="{server.password}"; default_hostgroup=0; max_connections={MAX_CLIENTS}; }} )
"""
    }


def throwaway_certificate() -> tuple[str, str]:
    """A self-signed certificate for a day, and its key, as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    return certificate.decode(), secret.decode()


RIVALS: dict[Engine, dict[str, Rival]] = {
    "postgres": {
        "pgbouncer": Rival("pgbouncer", pgbouncer_files, quoted("pgbouncer", "-q", "pgbouncer.ini")),
        "odyssey": Rival("odyssey", odyssey_files, quoted("odyssey", "odyssey.conf")),
    },
    "mysql": {
        "router": Rival("mysqlrouter", router_files, quoted("mysqlrouter", "-c", "router.conf")),
        "proxysql": Rival("proxysql", proxysql_files, quoted("proxysql", "-f", "-c", "proxysql.cnf")),
    },
}
