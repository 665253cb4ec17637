"""The command line of scripts/bench, and the order of a run.

Everything is open at once, and the rounds go case by case through all endpoints, so that whatever else the machine does meets all alike.
"""

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path

import attrs
import click
from rich.console import Console

from benchlib import endpoints, idle, pgbench, report, sysbench
from benchlib.cases import CASES
from benchlib.endpoints import Bench
from benchlib.model import ENGINES, Case, Endpoint, Engine, LeftOut, Row, Sample, Server
from benchlib.programs import PEERS, Host, answers, last_line, peers_port
from benchlib.tables import check_login, tables

SERVERS: dict[Engine, str] = {
    "postgres": f"postgresql://app:app@127.0.0.1:{peers_port('postgres') or 5432}/app",
    "mysql": f"mysql://app:app@127.0.0.1:{peers_port('mysql') or 3306}/app",
}
"""The peers' where there are some, else those of this machine."""
IDLE_CLIENTS, QUICK_IDLE_CLIENTS = 2_000, 200
SECONDS, QUICK_SECONDS = 2.0, 0.8
ROUNDS, QUICK_ROUNDS = 3, 1
BUSY = 0.5
"""A load average above this, before anything has started, is worth a warning."""


@attrs.frozen
class Plan:
    """What was asked for on the command line."""

    engines: list[Engine]
    servers: dict[Engine, str]
    cases: tuple[str, ...]
    through: tuple[str, ...]
    clients: int
    idle_clients: int
    seconds: float
    rounds: int
    quick: bool
    profile: Path | None

    def chosen_cases(self, engine: Engine) -> list[Case]:
        """Cases by name, or all, or with --quick a few."""
        cases = [case for case in CASES if case.engine == engine]
        if self.cases:
            return [case for case in cases if any(fnmatch(case.name, pattern) for pattern in self.cases)]
        return [case for case in cases if case.in_quick or not self.quick]

    def chosen_endpoints(self, engine: Engine) -> list[str]:
        """Endpoints by name, or all that are connected in the same way."""
        if not self.through:
            return [name for name in endpoints.names(engine) if name != endpoints.BY_SOCKET]
        return [name for name in endpoints.names(engine) if any(fnmatch(name, pattern) for pattern in self.through)]


def case_list() -> str:
    """Every case with what it is, for the help text."""
    lines = [f"{case.engine:9} {case.name:17} {case.about}" for case in CASES]
    return "\b\nCases:\n" + "\n".join("  " + line for line in lines)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="Measure dualpool beside its rivals and beside no pooler at all, all in one run, and print a table.",
    epilog=case_list(),
)
@click.option("--engine", type=click.Choice([*ENGINES, "both"]), default="both", show_default=True, help="Which protocol.")
@click.option("--case", "cases", multiple=True, metavar="NAME", help="Only this case; shell wildcards work; may be repeated.")
@click.option(
    "--through",
    multiple=True,
    metavar="NAME",
    help="Only through dualpool, pgbouncer, odyssey, router, proxysql, direct; or also dualpool-unix: dualpool, connected to the server "
    "by its Unix socket.",
)
@click.option("--clients", type=click.IntRange(1), default=16, show_default=True, help="Clients at once.")
@click.option(
    "--idle-clients", type=click.IntRange(1), help=f"Clients of the case idle.  [default: {IDLE_CLIENTS}; quick: {QUICK_IDLE_CLIENTS}]"
)
@click.option("--seconds", type=click.FloatRange(0.1), help=f"Length of one measurement.  [default: {SECONDS}; quick: {QUICK_SECONDS}]")
@click.option(
    "--rounds", type=click.IntRange(1), help=f"Measurements of each; medians are shown.  [default: {ROUNDS}; quick: {QUICK_ROUNDS}]"
)
@click.option("--quick", is_flag=True, help="Fewer cases, once and briefly: an impression within a minute.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the results there too.")
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Run dualpool under cProfile (it is slower then); FILE-ENGINE is for pstats.",
)
@click.option("--postgres", default=SERVERS["postgres"], show_default=True, metavar="URL", help="The PostgreSQL server to use.")
@click.option("--mysql", default=SERVERS["mysql"], show_default=True, metavar="URL", help="The MySQL server to use.")
def main(
    engine: str,
    cases: tuple[str, ...],
    through: tuple[str, ...],
    clients: int,
    idle_clients: int | None,
    seconds: float | None,
    rounds: int | None,
    quick: bool,
    json_path: Path | None,
    profile: Path | None,
    postgres: str,
    mysql: str,
) -> None:
    """Run what was asked for."""
    plan = Plan(
        engines=[name for name in ENGINES if engine in {name, "both"}],
        servers={"postgres": postgres, "mysql": mysql},
        cases=cases,
        through=through,
        clients=clients,
        idle_clients=idle_clients or (QUICK_IDLE_CLIENTS if quick else IDLE_CLIENTS),
        seconds=seconds or (QUICK_SECONDS if quick else SECONDS),
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        quick=quick,
        profile=profile,
    )
    check_names(plan)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that everything started is ended
    raise_file_limit(plan.idle_clients + 100)
    rows: list[Row] = []
    with alone():
        warn_if_busy()
        for name in plan.engines:
            rows += run_engine(plan, name)
    if json_path:
        report.save(json_path, rows)
    sys.exit(0 if any(row.samples or row.kb_per_client is not None for row in rows) else 1)


def check_names(plan: Plan) -> None:
    """Raise click.BadParameter for a case or an endpoint that no chosen engine has."""
    for option, patterns, known in (
        ("--case", plan.cases, [case.name for case in CASES if case.engine in plan.engines]),
        ("--through", plan.through, [name for engine in plan.engines for name in endpoints.names(engine)]),
    ):
        for pattern in patterns:
            if not any(fnmatch(name, pattern) for name in known):
                raise click.BadParameter(f"{pattern!r} is none of {', '.join(dict.fromkeys(known))}", param_hint=option)


def run_engine(plan: Plan, engine: Engine) -> list[Row]:
    """Measure one engine and print its tables; [] and a line why if that cannot be."""
    cases = plan.chosen_cases(engine)
    if not cases or not plan.chosen_endpoints(engine):
        return []
    try:
        server = ready_server(plan, engine)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            shape = stack.enter_context(tables(server, quick=plan.quick)) if any(case.needs_tables for case in cases) else ()
            found = open_endpoints(stack, plan, Bench(Host(), server, folder, plan.profile))
            rows = measure_all(plan, cases, found, shape)
    except LeftOut as reason:
        say(f"left out: {reason}")
        return []
    report.show(Console(), engine, rows)
    return rows


def ready_server(plan: Plan, engine: Engine) -> Server:
    """The database server, started if it is the peers'; and the load generator. Raises LeftOut."""
    try:
        server = Server.from_url(engine, plan.servers[engine])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=f"--{engine}") from None
    if engine == "mysql":
        sysbench.ensure_installed()
    elif not shutil.which("pgbench"):
        raise LeftOut("postgres: pgbench is not installed (on Debian and Ubuntu: apt-get install postgresql-contrib)")
    if not answers(server.host, server.port) and plan.servers[engine] == SERVERS[engine] and PEERS.exists():
        subprocess.run([str(PEERS), "up", engine], check=False)
    if not answers(server.host, server.port):
        raise LeftOut(f"{engine}: no server answers at {server.host}:{server.port}; say where one is with --{engine} URL")
    check_login(server)
    return server


def open_endpoints(stack: ExitStack, plan: Plan, bench: Bench) -> list[Endpoint]:
    """Start what the load goes through; a line for each that cannot be."""
    found = []
    for name in plan.chosen_endpoints(bench.server.engine):
        try:
            found.append(stack.enter_context(endpoints.opened(name, bench)))
        except LeftOut as reason:
            say(f"left out: {reason}")
    return found


def measure_all(plan: Plan, cases: list[Case], found: list[Endpoint], shape: tuple[str, ...]) -> list[Row]:
    """All rounds; idle clients once and before the rest, while memory is still fresh."""
    rows = {(case.name, endpoint.name): Row(case, endpoint.name, plan.clients) for case in cases for endpoint in found}
    for case in (case for case in cases if case.is_idle):
        for endpoint in found:
            measure_idle(plan, endpoint, rows[case.name, endpoint.name])
    loads = [case for case in cases if not case.is_idle]
    if loads:
        warm_up(loads[0], found, plan, shape)
    for number in range(plan.rounds):
        for case in loads:
            for place in range(len(found)):
                endpoint = found[(place + number) % len(found)]
                measure_load(plan, endpoint, rows[case.name, endpoint.name], shape, f"round {number + 1}/{plan.rounds}")
    return list(rows.values())


def measure_idle(plan: Plan, endpoint: Endpoint, row: Row) -> None:
    """Fill in a row of the case idle."""
    row.clients = idle.clients_for(endpoint, plan.idle_clients)
    try:
        row.kb_per_client = idle.measure(endpoint, row.clients)
        say(f"{endpoint.server.engine} idle through {endpoint.name}: {row.kb_per_client:.1f} KB per client")
    except LeftOut as reason:
        row.failure = f"idle: {reason}{last_words(endpoint)}"
        say(f"left out: {row.failure}")


def measure_load(plan: Plan, endpoint: Endpoint, row: Row, shape: tuple[str, ...], place: str) -> None:
    """Add one sample to a row; one that has failed is not tried again."""
    if row.failure:
        return
    try:
        sample = measure_once(row.case, endpoint, plan.clients, plan.seconds, shape)
    except LeftOut as reason:
        row.failure = f"{row.case.name}: {reason}{last_words(endpoint)}"
        say(f"left out: {row.failure}")
        return
    row.samples.append(sample)
    cpu = "" if sample.cpu_us is None else f", {sample.cpu_us:.1f} us"
    say(f"{row.case.engine} {place} {row.case.name} through {endpoint.name}: {sample.tps:,.0f} tps{cpu}")


def last_words(endpoint: Endpoint) -> str:
    """What a pooler logged last, for a message about its failure."""
    return f" (its log: {last_line(endpoint.log)})" if endpoint.log else ""


def measure_once(case: Case, endpoint: Endpoint, clients: int, seconds: float, shape: tuple[str, ...]) -> Sample:
    """One sample with the load generator of the case's engine."""
    if case.engine == "postgres":
        return pgbench.measure(case, endpoint, clients, seconds)
    return sysbench.measure(case, endpoint, clients, seconds, shape)


def warm_up(case: Case, found: list[Endpoint], plan: Plan, shape: tuple[str, ...]) -> None:
    """One run through each that does not count: server connections are made, passwords cached. What fails is said when it counts."""
    for endpoint in found:
        try:
            measure_once(case, endpoint, plan.clients, 0.5, shape)
        except LeftOut:
            continue


def raise_file_limit(wanted: int) -> None:
    """Have file descriptors for so many clients, here and in the programs that are started."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < wanted:
        say(f"warning: only {hard} open files are allowed (ulimit -Hn); {wanted} are needed for the idle clients")


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other run measures on this machine."""
    with (Path(tempfile.gettempdir()) / f"dualpool-bench-{os.getuid()}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is measuring; waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def warn_if_busy() -> None:
    """Say so when the numbers will not be worth much."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * processors:
        say(f"warning: the machine is busy (load average {load:.1f}); only ratios within this run mean something")


def say(line: str) -> None:
    """A line of progress, with the time, on standard error."""
    click.echo(f"bench: {time.strftime('%H:%M:%S')} {line}", err=True)
