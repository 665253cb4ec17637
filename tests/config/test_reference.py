"""conf/reference.toml and the JSON schema say what the classes say."""

import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomlkit

from dualpool.config import Admin, Limits, Log, Timeouts, loads
from dualpool.config.fields import keys_of
from dualpool.config.model import TABLES, TABLES_BY_NAME
from dualpool.config.reference import reference, schema, schema_text

CONF = Path(__file__).parents[2] / "conf"
TYPES: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}


def test_the_file_is_up_to_date() -> None:
    assert (CONF / "reference.toml").read_text() == reference(), "run: dualpool config reference > conf/reference.toml"


def test_it_says_the_defaults() -> None:
    config = loads(reference(), environ={})
    assert config.warnings == ()
    assert (config.limits, config.timeouts, config.admin, config.log) == (Limits(), Timeouts(), Admin(), Log())
    for section, cls in TABLES_BY_NAME.items():
        (instance,) = getattr(config, section).values()
        for name, attribute in keys_of(cls).items():
            if attribute.default is not attrs.NOTHING and (section, name) != ("databases", "database"):
                assert getattr(instance, name) == attribute.default


def test_it_has_every_key_and_its_examples_are_right() -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", reference(), flags=re.MULTILINE)
    text = text.replace('tls = { mode = "prefer", cert = "server.crt", key = "server.key" }', 'tls = { mode = "disable" }')
    text = text.replace('stats_users = ["monitor"]', 'stats_users = ["app"]')
    loads(text, environ={"SERVER_PASSWORD": "x"})
    document = tomlkit.parse(text).unwrap()
    for section, cls in TABLES_BY_NAME.items():
        (table,) = document[section].values()
        assert list(table) == list(keys_of(cls))
    for section, cls in TABLES.items():
        assert list(document[section]) == list(keys_of(cls))


def fits(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> bool:
    """The part of JSON Schema that ours uses."""
    if "$ref" in rule:
        return fits(value, root["$defs"][rule["$ref"].rpartition("/")[2]], root)
    if "anyOf" in rule:
        return any(fits(value, choice, root) for choice in rule["anyOf"])
    if "enum" in rule:
        return value in rule["enum"]
    if not isinstance(value, TYPES[rule["type"]]) or (isinstance(value, bool) and rule["type"] != "boolean"):
        return False
    if isinstance(value, dict):
        return all(key in value for key in rule.get("required", ())) and all(fits_key(key, item, rule, root) for key, item in value.items())
    if isinstance(value, list):
        return all(fits(item, rule["items"], root) for item in value)
    if isinstance(value, str):
        return re.search(rule.get("pattern", ""), value) is not None
    return bool(value >= rule.get("minimum", value))


def fits_key(key: str, value: Any, rule: dict[str, Any], root: dict[str, Any]) -> bool:
    other = rule["additionalProperties"]
    chosen = rule.get("properties", {}).get(key, other)
    return chosen is not False and fits(value, chosen, root)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.toml")), ids=lambda path: path.name)
def test_the_schema_allows_our_files(path: Path) -> None:
    assert fits(tomlkit.parse(path.read_text()).unwrap(), schema(), schema())


@pytest.mark.parametrize(
    "document",
    [
        {"foo": 1},
        {"databases": {"app": {}}},
        {"databases": {"app": {"backend": "b", "pool_size": 0}}},
        {"databases": {"app": {"backend": "b", "pool_size": "5"}}},
        {"databases": {"app": {"backend": "b", "pol_size": 5}}},
        {"listeners": {"a": {"protocol": "redis", "bind": "h:1"}}},
        {"listeners": {"a": {"protocol": "mysql", "bind": "h:1", "tls": {"mode": "maybe"}}}},
        {"timeouts": {"query_wait": "5"}},
        {"timeouts": {"query_wait": 5}},
        {"strict_budget": 1},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(document: dict[str, Any]) -> None:
    assert not fits(document, schema(), schema())


def test_the_schema_is_json() -> None:
    assert json.loads(schema_text()) == schema()
