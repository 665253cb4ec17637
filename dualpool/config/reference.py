"""conf/reference.toml and the JSON schema, both written from the classes of model.py."""

import json
import textwrap
import types
from typing import Any, Final, Literal, Union, get_args, get_origin

import attrs
import tomlkit

from dualpool.config.fields import Setting, format_duration, keys_of, setting_of
from dualpool.config.model import TABLES, TABLES_BY_NAME, Bind, Config, MemoryBudget, Pin, Pins, Tls
from dualpool.config.values import item_type, without_none

HEAD: Final = """\
Every key of dualpool's configuration with its default. Written by `dualpool config reference`.

A key that is commented out has no default; the value is an example. A required key is marked so.
Times are strings with a unit: "500ms", "30s", "2m", "1h", "1d"; "0s" is off. Sizes are bytes.
${NAME} reads the environment, ${NAME:-default} has a default, and $${ stands for ${ itself.
Paths are relative to the file that names them."""

NAMES: Final = {"listeners": "postgres", "backends": "main", "databases": "app", "users": "app"}
WIDTH: Final = 110

DURATION_PATTERN: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*$"
VARIABLE: Final = {"type": "string", "pattern": r"\$\{"}
"""A variable may stand for a value of any type."""


def reference() -> str:
    """The text of conf/reference.toml. It can be loaded, and then says what an empty one says."""
    lines = [f"# {line}".rstrip() for line in HEAD.splitlines()]
    lines += ["", *key_lines(attrs.fields(Config).strict_budget)]
    for section, cls in TABLES_BY_NAME.items():
        lines += ["", *comment(summary(cls)), f"[{section}.{NAMES[section]}]", *table_lines(cls)]
    for section, cls in TABLES.items():
        lines += ["", *comment(summary(cls)), f"[{section}]", *table_lines(cls)]
    return "\n".join(lines) + "\n"


def summary(cls: type) -> str:
    """The first sentence of a class's docstring."""
    return (cls.__doc__ or "").partition(". ")[0].rstrip(".") + "."


def table_lines(cls: type) -> list[str]:
    """The keys of a table, each with its comment."""
    return [line for attribute in keys_of(cls).values() for line in key_lines(attribute)]


def key_lines(attribute: "attrs.Attribute[Any]") -> list[str]:
    """What a key means, then the key with its default, or commented out with an example."""
    declared = declaration(attribute)
    lines = comment(("Required. " if declared.required else "") + declared.help)
    kind = without_none(attribute.type)
    if kind in {Tls, Pin}:
        for inner in keys_of(Tls if kind is Tls else Pins).values():
            lines += comment(f"{inner.name}: {declaration(inner).help}", indent="    ")
    if declared.required:
        return [*lines, f"{attribute.name} = {declared.example}"]
    if attribute.default in (None, "", (), attrs.NOTHING) and declared.example:
        return [*lines, f"# {attribute.name} = {declared.example}"]
    return [*lines, f"{attribute.name} = {to_toml(attribute.default, declared)}"]


def declaration(attribute: "attrs.Attribute[Any]") -> Setting:
    """The Setting of an attribute that is a key."""
    declared = setting_of(attribute)
    assert declared is not None
    return declared


def comment(text: str, indent: str = "") -> list[str]:
    """`text` as lines of a comment."""
    return [f"# {indent}{line}" for line in textwrap.wrap(text, WIDTH - len(indent), break_on_hyphens=False, break_long_words=False)]


def to_toml(value: Any, declared: Setting) -> str:
    """A default as TOML."""
    return tomlkit.item(format_duration(value) if declared.kind == "duration" else value).as_string()


def schema() -> dict[str, Any]:
    """A JSON schema (2020-12) of the file, for editors."""
    properties: dict[str, Any] = {}
    for section, cls in TABLES_BY_NAME.items():
        properties[section] = {"type": "object", "description": summary(cls), "additionalProperties": {"$ref": f"#/$defs/{cls.__name__}"}}
    for section, cls in TABLES.items():
        properties[section] = {"$ref": f"#/$defs/{cls.__name__}"}
    properties["strict_budget"] = key_schema(attrs.fields(Config).strict_budget)
    classes = (*TABLES_BY_NAME.values(), *TABLES.values(), Tls, MemoryBudget, Pins)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dualpool",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": {cls.__name__: table_schema(cls) for cls in classes},
    }


def schema_text() -> str:
    """The schema as JSON."""
    return json.dumps(schema(), indent=2) + "\n"


def table_schema(cls: type) -> dict[str, Any]:
    """The schema of one table."""
    keys = keys_of(cls)
    return {
        "type": "object",
        "description": summary(cls),
        "additionalProperties": False,
        "required": [name for name, attribute in keys.items() if declaration(attribute).required],
        "properties": {name: key_schema(attribute) for name, attribute in keys.items()},
    }


def key_schema(attribute: "attrs.Attribute[Any]") -> dict[str, Any]:
    """The schema of one key, with its help and default."""
    declared = declaration(attribute)
    described: dict[str, Any] = {"description": declared.help}
    if attribute.default not in (attrs.NOTHING, None):
        described["default"] = format_duration(attribute.default) if declared.kind == "duration" else plain(attribute.default)
    return {**described, **value_schema(attribute.type, declared)}


def plain(value: Any) -> Any:
    """A default as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def value_schema(kind: Any, declared: Setting) -> dict[str, Any]:
    """The schema of a value: of an item or a list of them for a tuple, of any member for a union."""
    kind = without_none(kind)
    if (item := item_type(kind)) is not None:
        one = value_schema(item, declared)
        return {"anyOf": [one, {"type": "array", "items": one}]}
    if get_origin(kind) in {Union, types.UnionType}:
        return {"anyOf": [value_schema(member, declared) for member in get_args(kind)]}
    if kind in {Tls, MemoryBudget, Pins}:
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if kind in {str, Bind}:
        return {"type": "string"}
    return {"anyOf": [scalar_schema(kind, declared), VARIABLE]}


def scalar_schema(kind: Any, declared: Setting) -> dict[str, Any]:
    """The schema of what is no string, or not any string."""
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if declared.kind == "duration":
        return {"type": "string", "pattern": DURATION_PATTERN}
    if kind is bool:
        return {"type": "boolean"}
    number = {"type": "integer" if kind is int else "number"}
    return number if declared.minimum is None else {**number, "minimum": declared.minimum}
