"""HTTP and the command line, beside a dualpool that serves both protocols."""

import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.admin.world import SHOWS, ConsoleWorld, console_world, dualpool
from tests.e2e.postgres_world import wait_for, wait_until
from tests.golden.record import exported
from tests.helpers.servers import Servers, unique


@pytest.fixture(scope="module")
def world(servers: Servers) -> Iterator[ConsoleWorld]:
    with console_world(servers) as made, made.client() as client, made.mysql_client() as other, other.cursor() as cursor:
        for _ in range(5):
            client.execute("SELECT 1")
            cursor.execute("SELECT 1")
        yield made


def samples(text: str) -> dict[tuple[str, str], float]:
    """(name, database) -> value, of all samples without buckets."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_bucket") and "state" not in sample.labels:
                found[sample.name, sample.labels.get("database", "")] = sample.value
    return found


def test_metrics_of_our_own(world: ConsoleWorld) -> None:
    status, text = world.fetch("/metrics")
    assert status == 200
    found = samples(text)
    assert found["dualpool_queries_total", "app"] == 5
    assert found["dualpool_queries_total", "shop"] >= 5
    assert found["dualpool_query_seconds_count", "app"] == 5
    assert found["dualpool_wait_seconds_count", "app"] == found["dualpool_checkouts_total", "app"]
    assert found["dualpool_pool_size", "app"] == 5
    assert ("process_cpu_seconds_total", "") in found
    assert 'dualpool_clients{database="app",protocol="postgres",state="idle",user="app"} 1.0' in text


def test_metrics_of_pgbouncers_exporter(world: ConsoleWorld) -> None:
    found = samples(world.fetch("/metrics")[1])
    for name in ("pools_client_active_connections", "pools_server_idle_connections", "pools_client_maxwait_seconds", "databases_pool_size"):
        assert f"pgbouncer_{name}" in {name for name, _ in found}
    for prefix in ("stats_totals", "stats"):
        assert found[f"pgbouncer_{prefix}_queries_pooled_total", "app"] == 5
        assert found[f"pgbouncer_{prefix}_sql_transactions_pooled_total", "app"] == 5
        assert 0 < found[f"pgbouncer_{prefix}_queries_duration_seconds_total", "app"] < 60
    assert found["pgbouncer_up", ""] == 1
    assert found["pgbouncer_config_max_client_connections", ""] == 1000
    assert found["pgbouncer_used_clients", ""] == 2


def test_all_that_the_exporter_has_is_there(world: ConsoleWorld) -> None:
    found: dict[str, list[str]] = {}
    for family in text_string_to_metric_families(world.fetch("/metrics")[1]):
        found |= {sample.name: sorted(sample.labels) for sample in family.samples}
    wanted = exported()
    assert {name: found.get(name) for name in wanted} == wanted


def test_histograms_add_up(world: ConsoleWorld) -> None:
    for family in text_string_to_metric_families(world.fetch("/metrics")[1]):
        if family.type != "histogram":
            continue
        for labels in {tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le")) for sample in family.samples}:
            mine = [sample for sample in family.samples if set(labels) <= set(sample.labels.items())]
            buckets = [sample.value for sample in mine if sample.name.endswith("_bucket")]
            assert buckets == sorted(buckets)
            assert buckets[-1] == next(sample.value for sample in mine if sample.name.endswith("_count"))


def test_every_table_is_json(world: ConsoleWorld) -> None:
    status, body = world.fetch("/api/v1")
    assert (status, sorted(json.loads(body))) == (200, sorted(name.lower() for name in SHOWS))
    for name in SHOWS:
        assert isinstance(world.api(name.lower()), list)
    pools = {row["database"]: row for row in world.api("pools")}
    assert pools["app"]["cl_active"] == 1
    status, body = world.fetch("/api/v1/nonsense")
    assert status == 404


def test_health_and_the_dashboard(world: ConsoleWorld) -> None:
    assert world.fetch("/healthz") == (200, '{"status":"ok"}')
    assert world.fetch("/readyz")[0] == 200
    status, page = world.fetch("/")
    assert status == 200
    assert "<title>dualpool</title>" in page
    assert "http://" not in page
    assert "https://" not in page
    assert world.fetch("/nonsense")[0] == 404


def test_secrets_are_not_told(world: ConsoleWorld) -> None:
    assert ":app@" not in json.dumps([world.api(name.lower()) for name in SHOWS])


def test_the_command_line_over_both_protocols(world: ConsoleWorld) -> None:
    shown = dualpool("admin", "SHOW POOLS", "--url", world.url("dualpool")).stdout
    assert "cl_active" in shown
    assert " app " in shown
    url = f"mysql://app:app@127.0.0.1:{world.pooler.port('mysql')}/dualpool"
    assert json.loads(dualpool("admin", "--json", "show lists", "--url", url).stdout)[0] == {"list": "databases", "items": 3}
    assert dualpool("admin", "reload", "--url", url).stdout.strip() == "RELOAD"
    assert "SHOW HELP|CONFIG" in dualpool("admin", "--url", world.url()).stdout
    failed = dualpool("admin", "PAUSE nosuch", "--url", world.url(), check=False)
    assert (failed.returncode, failed.stderr) == (1, "no such database: nosuch\nSee SHOW DATABASES.\n")
    failed = dualpool("admin", "--url", "postgresql://app:app@127.0.0.1:1/dualpool", check=False)
    assert failed.returncode == 1
    assert "Is dualpool running?" in failed.stderr


def test_the_command_line_with_the_configuration(world: ConsoleWorld, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("conf") / "dualpool.toml"
    text = (world.pooler.toml or "").replace("127.0.0.1:0", f"127.0.0.1:{world.pooler.port()}", 1)
    path.write_text(text)
    picture = dualpool("top", "--once", "--interval", "0.1", "-c", str(path)).stdout
    assert "dualpool 0." in picture
    assert "shop" in picture


def pinned(world: ConsoleWorld, name: str) -> dict[tuple[str, str], float]:
    """(database, reason) -> value, of the samples with a reason."""
    families = text_string_to_metric_families(world.fetch("/metrics")[1])
    found = [sample for family in families for sample in family.samples if sample.name == name]
    return {(sample.labels["database"], sample.labels["reason"]): sample.value for sample in found}


def test_metrics_of_pins(world: ConsoleWorld) -> None:
    with world.client() as client, world.mysql_client() as other, other.cursor() as cursor:
        client.execute("CREATE TEMPORARY TABLE kept (id int)")
        lock = unique("kept")
        cursor.execute("SELECT GET_LOCK(%s, 10)", (lock,))
        rows = wait_for(lambda: world.show("PINS"), lambda found: {row["database"] for row in found} == {"app", "shop"}, "both pins")
        reasons = {(row["database"], row["reason"]) for row in rows}
        assert pinned(world, "dualpool_pins_total") == dict.fromkeys(reasons, 1.0)
        assert pinned(world, "dualpool_pinned_connections") == dict.fromkeys(reasons, 1.0)
        client.execute("DROP TABLE kept")
        cursor.execute("SELECT RELEASE_LOCK(%s)", (lock,))
        wait_until(lambda: pinned(world, "dualpool_pinned_connections") == dict.fromkeys(reasons, 0.0), "no pin")
        assert pinned(world, "dualpool_pins_total") == dict.fromkeys(reasons, 1.0)
