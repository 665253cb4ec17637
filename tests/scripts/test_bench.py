"""scripts/bench: how it reads what the load generators and Linux say, how it starts programs, and what it prints."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from rich.console import Console

from dualpool.dev.processes import wait_until
from tests.helpers.ports import reserved_port

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchlib import pgbench, proc, programs, report, sysbench  # noqa: E402
from benchlib.cases import CASES  # noqa: E402
from benchlib.endpoints import BY_SOCKET, dualpool_toml, names, odyssey_files, pgbouncer_files, proxysql_files, router_files  # noqa: E402
from benchlib.main import SERVERS, Plan  # noqa: E402
from benchlib.model import ENGINES, Case, Endpoint, LeftOut, Row, Sample, Server, percentile  # noqa: E402

POSTGRES = Server("postgres", "127.0.0.1", 5432, "app", "secret", "shop")
MYSQL = Server("mysql", "127.0.0.1", 3306, "app", "secret", "shop")
SERVE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening on it")
while True:
    listener.accept()
"""


@contextlib.contextmanager
def serving(folder: Path, code: str = SERVE, ready: str = "listening on") -> Iterator[tuple[int, tuple[int, ...]]]:
    port = reserved_port()
    with programs.running("it", [sys.executable, "-c", code, str(port)], port, folder / "it.log", ready=ready) as pids:
        yield port, pids


# --------------------------------------------------------------------------------------------------------------- model, report


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.99, None), ([5.0], 0.99, 5.0), ([3.0, 1.0, 2.0], 0.5, 2.0), ([float(n) for n in range(1, 101)], 0.99, 99.0)],
)
def test_percentile_is_the_smallest_value_that_the_share_does_not_exceed(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


def test_a_server_is_read_from_a_url() -> None:
    assert Server.from_url("postgres", "postgresql://app:se%40cret@db:6000/shop") == Server(
        "postgres", "db", 6000, "app", "se@cret", "shop"
    )
    assert Server.from_url("mysql", "mysql://app:app@db:3306").database == "app"


@pytest.mark.parametrize("url", ["mysql://app:app@db:1/shop", "postgresql://db:1/shop", "postgresql://app@db/shop", "db"])
def test_a_url_that_says_too_little_or_another_engine_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be postgresql://"):
        Server.from_url("postgres", url)


def row(through: str, *samples: Sample, case: Case = CASES[1]) -> Row:
    return Row(case, through, 16, list(samples))


def test_a_row_shows_medians_and_none_for_what_was_not_measured() -> None:
    found = row("pgbouncer", Sample(1, 30, 3), Sample(3, 10, None), Sample(2, 20, 1))
    assert (found.tps, found.cpu_us, found.p99_ms) == (2, 20, 2)
    empty = row("direct")
    assert (empty.tps, empty.cpu_us, empty.p99_ms) == (None, None, None)


def test_json_has_one_object_per_row(tmp_path: Path) -> None:
    idle = Row(CASES[0], "pgbouncer", 2000, kb_per_client=2.91234)
    report.save(tmp_path / "x.json", [row("direct", Sample(10.12345, None, 1.5)), idle])
    load, memory = json.loads((tmp_path / "x.json").read_text())
    assert load == {
        "engine": "postgres",
        "case": "select1-simple",
        "through": "direct",
        "clients": 16,
        "tps": 10.123,
        "cpu_us_per_tx": None,
        "p99_ms": 1.5,
    }
    assert memory["kb_per_client"] == 2.912
    assert memory["tps"] is None


def test_the_table_has_ratios_to_the_reference_rival() -> None:
    text = io.StringIO()
    rows = [row("dualpool", Sample(50, 30, 1)), row("pgbouncer", Sample(100, 20, 1)), row("direct", Sample(150, None, 1))]
    report.show(Console(file=text, width=80), "postgres", rows)
    lines = [line.split() for line in text.getvalue().splitlines() if line.strip().startswith("select1")]
    assert lines == [
        ["select1-simple", "dualpool", "50", "30.0", "1.00", "0.50", "1.50"],
        ["select1-simple", "pgbouncer", "100", "20.0", "1.00", "1.00", "1.00"],
        ["select1-simple", "direct", "150", "-", "1.00", "1.50", "-"],
    ]


def test_without_the_reference_rival_there_are_no_ratios() -> None:
    text = io.StringIO()
    report.show(Console(file=text, width=80), "postgres", [row("dualpool", Sample(50, 30, 1))])
    assert text.getvalue().splitlines()[-2].split()[-2:] == ["-", "-"]


def test_a_case_that_has_failed_is_said_below_the_table() -> None:
    text = io.StringIO()
    failed = attrs.evolve(row("dualpool"), failure="select1-simple: dualpool: [gone]")
    report.show(Console(file=text, width=80), "postgres", [failed])
    assert text.getvalue().splitlines()[-1] == "left out: select1-simple: dualpool: [gone]"


def test_case_names_are_unique_per_engine_and_quick_has_some_of_both() -> None:
    named = [(case.engine, case.name) for case in CASES]
    assert len(set(named)) == len(named)
    assert {case.engine for case in CASES if case.in_quick} == set(ENGINES)


# -------------------------------------------------------------------------------------------------------------- load generators


def test_only_transactions_that_ended_within_the_window_count(tmp_path: Path) -> None:
    log = tmp_path / "log.1"
    log.write_text("0 1 900 0 99 999999\n1 1 1000 0 100 0\n0 2 2500 0 101 500000\n2 1 failed 0 101 600000\n0 3 700 0 102 0\n")
    first, latencies = pgbench.read_logs([log], pgbench.Window(100.0, 102.0, 0.0))
    assert first == 99.999999
    assert latencies == [1.0, 2.5]


REPORT = """
SQL statistics:
    transactions:                        171385 (85523.08 per sec.)
    queries:                             171385 (85523.08 per sec.)
Latency (ms):
         99th percentile:                        0.48
"""


def test_sysbench_reports_are_read() -> None:
    assert sysbench.read_report(REPORT) == (171385, 85523.08, 0.48)


def test_a_report_that_sysbench_did_not_finish_says_why() -> None:
    with pytest.raises(LeftOut, match="unable to connect"):
        sysbench.read_report("Initializing\nFATAL: unable to connect to MySQL server\nFATAL: `thread_init' function failed\n")


def test_pgbench_that_cannot_connect_is_left_out_with_its_own_words() -> None:
    gone = Endpoint("direct", POSTGRES, reserved_port(), ())
    with pytest.raises(LeftOut, match=r"^direct: pgbench: .*Connection refused"):
        pgbench.measure(CASES[1], gone, 1, 1)


# ------------------------------------------------------------------------------------------------------------------------ /proc

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41 1 0 100 0 0 10 0
   1: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100 0 0 10 0
   2: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 43 1 0 100 0 0 10 0
   3: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 44 1 0 100 0 0 10 0
"""


def test_only_listening_sockets_on_the_port_are_taken() -> None:
    assert proc.listening_inodes(TABLE, 8000) == {"41", "44"}


def test_the_process_that_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert proc.listeners(listener.getsockname()[1]) == (os.getpid(),)


def test_nobody_listens_on_a_free_port() -> None:
    assert proc.listeners(reserved_port()) == ()


def test_a_family_is_a_process_and_its_descendants() -> None:
    tree = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()']); print(child.pid, flush=True); child.wait()"
    with subprocess.Popen([sys.executable, "-c", tree], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        assert proc.family([process.pid]) == {process.pid, grandchild}
        assert proc.memory_kb([process.pid]) > proc.memory_kb([grandchild]) > 0
        process.communicate("\n")
    assert proc.family([process.pid]) == set()


def test_cpu_time_counts_children_that_have_ended() -> None:
    before = proc.cpu_seconds([os.getpid()])
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    assert proc.cpu_seconds([os.getpid()]) > before


# --------------------------------------------------------------------------------------------------------------------- programs


def test_a_program_runs_until_the_block_ends(tmp_path: Path) -> None:
    with serving(tmp_path) as (port, pids):
        assert programs.answers("127.0.0.1", port)
        assert len(pids) == 1
    assert not programs.answers("127.0.0.1", port)
    assert proc.family(pids) == set()


def test_a_program_that_ignores_the_polite_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "END_SECONDS", 0.2)
    with serving(tmp_path, f"import signal; signal.signal({int(signal.SIGTERM)}, signal.SIG_IGN)" + SERVE) as (_, pids):
        pass
    assert wait_until(lambda: proc.family(pids) == set(), 60)


def test_a_program_that_fails_is_left_out_with_its_last_line(tmp_path: Path) -> None:
    with (
        pytest.raises(LeftOut, match=r"^it: ended with code 3 before it was ready: no such thing$"),
        serving(tmp_path, "import sys; print('no such thing\\n', file=sys.stderr); sys.exit(3)"),
    ):
        pass


def test_a_program_that_never_says_ready_is_left_out_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "START_SECONDS", 0.5)
    with pytest.raises(LeftOut, match="it: not ready after"), serving(tmp_path, ready="never said"):
        pass


def test_a_rival_gets_its_files_in_a_folder_that_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PEERS", tmp_path / "none")
    command, data = programs.Host().command("sh", {"hello.txt": "hello\n"}, "sh -c 'cat hello.txt; pwd'")
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    greeting, folder = done.stdout.decode().splitlines()
    assert greeting == "hello"
    assert not Path(folder).exists()


def test_a_rival_that_is_not_installed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PEERS", tmp_path / "none")
    with pytest.raises(LeftOut, match="nosuchpooler is not installed"):
        programs.Host().command("nosuchpooler", {}, "nosuchpooler")


def test_peers_tell_where_their_servers_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = tmp_path / "peers"
    monkeypatch.setattr(programs, "PEERS", peers)
    assert programs.peers_port("mysql") is None
    peers.write_text("#!/bin/sh\nprintf 'mysql 7001\\npostgres 7002\\n'\n")
    peers.chmod(0o755)
    assert (programs.peers_port("mysql"), programs.peers_port("postgres"), programs.peers_port("oracle")) == (7001, 7002, None)


def test_packed_files_come_out_as_they_went_in() -> None:
    files = {"a.ini": "[x]\n", "b.txt": "é\n"}
    with tarfile.open(fileobj=io.BytesIO(programs.packed(files))) as archive:
        found = {name: archive.extractfile(name) for name in archive.getnames()}
        assert {name: data.read().decode() for name, data in found.items() if data} == files


# ----------------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("server", [POSTGRES, MYSQL], ids=lambda server: server.engine)
def test_dualpools_file_pools_per_transaction_without_tls(server: Server) -> None:
    config = tomllib.loads(dualpool_toml(server, 7000))
    assert config["listeners"]["bench"] == {"protocol": server.engine, "bind": "127.0.0.1:7000", "pool_mode": "transaction"}
    assert config["databases"]["shop"] == {"backend": "bench", "pool_size": 20}
    assert config["backends"]["bench"]["url"].lower().endswith("disable" if server.engine == "postgres" else "disabled")
    config = tomllib.loads(dualpool_toml(server, 7000, "host=/run/db"))
    assert config["backends"]["bench"]["url"].endswith("&host=/run/db")


def test_every_rival_is_told_the_same_server_port_and_pool_size() -> None:
    for files in (pgbouncer_files(POSTGRES, 7000), odyssey_files(POSTGRES, 7000), router_files(MYSQL, 7000), proxysql_files(MYSQL, 7000)):
        text = "\n".join(files.values())
        assert "7000" in text
        assert "20" in text
        assert "127.0.0.1" in text


def test_dualpool_comes_first_and_the_server_itself_last() -> None:
    for engine in ENGINES:
        assert names(engine)[0] == "dualpool"
        assert names(engine)[-1] == "direct"


# -------------------------------------------------------------------------------------------------------------------- the script


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    with tempfile.TemporaryDirectory() as folder:  # with a lock in it that nobody else holds
        environment = {**os.environ, "TMPDIR": folder}
        command = [sys.executable, str(SCRIPTS / "bench"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


def test_help_lists_every_case() -> None:
    done = bench("-h")
    assert done.returncode == 0
    assert all(case.name in done.stdout for case in CASES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--case", "nosuch"], "'nosuch' is none of idle, select1-simple"),
        (["--engine", "mysql", "--through", "pgbouncer"], "'pgbouncer' is none of dualpool, dualpool-unix, router, proxysql, direct"),
        (["--engine", "oracle"], "'oracle' is not one of"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_exist(arguments: list[str], message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_server_that_does_not_answer_is_said_and_nothing_is_measured() -> None:
    port = reserved_port()
    done = bench("--engine", "postgres", "--case", "select1-simple", "--postgres", f"postgresql://app:app@127.0.0.1:{port}/app")
    assert done.returncode == 1
    assert f"no server answers at 127.0.0.1:{port}" in done.stderr


def test_without_peers_the_servers_are_where_they_usually_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALPOOL_PEERS", str(tmp_path / "none"))
    done = bench("-h")
    assert "postgresql://app:app@127.0.0.1:5432/app" in done.stdout
    assert "mysql://app:app@127.0.0.1:3306/app" in done.stdout


def test_a_server_that_refuses_the_login_is_said(tmp_path: Path) -> None:
    with serving(tmp_path, SERVE.replace("listener.accept()", "listener.accept()[0].close()")) as (port, _):
        done = bench("--engine", "postgres", "--case", "select1-simple", "--postgres", f"postgresql://app:app@127.0.0.1:{port}/app")
    assert done.returncode == 1
    assert "left out: postgres: connection failed" in done.stderr
    assert "say who logs in with --postgres URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_unix_socket_is_measured_only_on_request() -> None:
    for engine in ENGINES:
        assert BY_SOCKET not in plan().chosen_endpoints(engine)
        assert plan("dualpool*").chosen_endpoints(engine) == ["dualpool", BY_SOCKET]


def plan(*through: str) -> Plan:
    return Plan([*ENGINES], SERVERS, (), through, 16, 200, 1.0, 1, quick=True, profile=None)
