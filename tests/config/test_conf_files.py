"""The files in conf/ can be used as they are."""

from pathlib import Path

import pytest

from dualpool.config import Config, load

CONF = Path(__file__).parents[2] / "conf"
PASSWORD = "p@ss/w#rd?"

ENVIRONMENTS = {
    "heroku": {"DATABASE_URL": "postgres://u7:p1@ec2-1.compute-1.amazonaws.com:5432/d8f7"},
    "supabase": {"SUPABASE_URL": "postgresql://postgres:p1@db.abcdefgh.supabase.co:5432/postgres"},
    "neon": {"DATABASE_URL": "postgresql://alex:p1@ep-cool-1.us-east-2.aws.neon.tech/dbname?sslmode=require&channel_binding=require"},
    "digitalocean": {
        "DATABASE_URL": "postgresql://doadmin:p1@db-1.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
        "MYSQL_URL": "mysql://doadmin:p1@db-2.b.db.ondigitalocean.com:25060/defaultdb?ssl-mode=REQUIRED",
    },
    "rds": {
        "DB_USER": "app",
        "DB_PASSWORD": PASSWORD,
        "POSTGRES_HOST": "pg.abc.eu-west-1.rds.amazonaws.com",
        "MYSQL_HOST": "my.abc.eu-west-1.rds.amazonaws.com",
        "RDS_CA": __file__,
    },
    "planetscale": {
        "POSTGRES_USER": "app.br4nch|pool",
        "POSTGRES_PASSWORD": PASSWORD,
        "POSTGRES_HOST": "eu-west-1.horizon.psdb.cloud",
        "MYSQL_USER": "u1",
        "MYSQL_PASSWORD": PASSWORD,
    },
    "prisma": {"DIRECT_URL": "postgres://0badc0de:sk_p1@db.prisma.io:5432/?sslmode=require"},
}


def preset(name: str) -> Config:
    return load(CONF / "providers" / f"{name}.toml", {"POOL_PASSWORD": "x", **ENVIRONMENTS[name]})


def test_every_preset_is_tested() -> None:
    assert {path.stem for path in (CONF / "providers").glob("*.toml")} == set(ENVIRONMENTS)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_presets_encrypt_and_pool(name: str) -> None:
    config = preset(name)
    for backend in config.backends.values():
        assert backend.sslmode in {"require", "verify-full"}
        assert backend.user
        assert backend.password in {"p1", "sk_p1", PASSWORD}
    for listener in config.listeners.values():
        assert config.find_database(listener.protocol, "any") is not None
    assert not any("budget" in warning for warning in config.warnings)


def test_neon_says_what_it_does_not_enforce() -> None:
    assert [warning.rpartition("url: ")[2] for warning in preset("neon").warnings] == ["channel_binding=require is not enforced"]


def test_planetscale_starts_tls_at_once() -> None:
    backend = preset("planetscale").backends["postgres"]
    assert (backend.sslnegotiation, backend.sslrootcert, backend.user) == ("direct", "system", "app.br4nch|pool")


def test_digitalocean_leaves_its_three_connections() -> None:
    config = preset("digitalocean")
    assert config.strict_budget
    assert config.backends["postgres"].budget_number == 25
    assert config.databases["*"].pool_size == 22


def test_the_small_file_works_on_a_bare_machine() -> None:
    config = load(CONF / "dualpool.toml", {})
    assert config.warnings == ()
    assert {listener.protocol for listener in config.listeners.values()} == {"postgres", "mysql"}
