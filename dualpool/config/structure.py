"""From a table of TOML to an attrs class, by cattrs: strict about types and about unknown keys, with the path of every error."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path as Directory
from typing import Any, Final, TypeVar, cast, get_args

import attrs
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from dualpool.config import values
from dualpool.config.fields import keys_of, setting_of
from dualpool.config.model import Backend, Bind, Budget, MemoryBudget, Pin, Pins, Tls
from dualpool.config.positions import Path
from dualpool.config.problems import Problems, suggestion

T = TypeVar("T")
TABLE_CLASSES = (Tls, MemoryBudget)
TABLES_OR_ELSE: Final[dict[Any, type]] = {Budget: MemoryBudget, Pin: Pins}
"""Types that may be given as a table: its class."""


class Structurer:
    """Makes attrs instances of tables; what does not fit is added to `problems`."""

    def __init__(self, problems: Problems, directory: Directory) -> None:
        self.problems = problems
        self.directory = directory
        self.converter = Converter(forbid_extra_keys=True)

    def table(self, cls: type[T], table: Any, path: Path, name: str | None = None) -> T | None:
        """An instance of `cls`, or None if the table has a problem. `name` is the name of the table, if the class keeps it."""
        if not isinstance(table, Mapping):
            self.problems.add(path, str(values.wrong_type("a table", table)))
            return None
        if name is not None:
            if "name" in table and "name" not in keys_of(cls):
                self.problems.add((*path, "name"), "unknown key" + suggestion("name", keys_of(cls)))
            table = {"name": name, **table}
        try:
            return self.structure(cls, dict(table))
        except ClassValidationError as errors:
            self.explain(errors, cls, path)
            return None

    def structure(self, cls: type[T], table: Any) -> T:
        """An instance of `cls`. Raises cattrs' groups of errors; ValueError if it is no table at all."""
        if not isinstance(table, Mapping):
            raise values.wrong_type("a table", table)
        overrides = {
            attribute.name: override(struct_hook=self.hook(attribute)) if setting_of(attribute) else override(omit=attribute.name != "name")
            for attribute in attrs.fields(cast(Any, cls))
        }
        structure = make_dict_structure_fn(cls, self.converter, _cattrs_forbid_extra_keys=True, **overrides)  # type: ignore[arg-type]
        return structure(table, cls)

    def hook(self, attribute: "attrs.Attribute[Any]") -> Callable[[Any, Any], Any]:
        """What cattrs calls for the value of one attribute."""
        read = self.reader(attribute)
        return lambda value, _type: read(value)

    def reader(self, attribute: "attrs.Attribute[Any]") -> values.Reader:
        """How values of an attribute are read: a list where the type is a tuple, item by item."""
        kind = values.without_none(attribute.type)
        item = values.item_type(kind)
        if item is None:
            return self.single(kind, attribute)
        return partial(read_items, self.single(item, attribute))

    def single(self, kind: Any, attribute: "attrs.Attribute[Any]") -> values.Reader:
        """How one value of a type is read."""
        declared = setting_of(attribute)
        assert declared is not None
        special = self.special(kind, attribute.name, declared.kind)
        if special is not None:
            return partial(special, declared=declared)
        if kind in TABLE_CLASSES:
            return partial(self.structure, kind)
        if values.is_literal(kind):
            return partial(values.read_literal, allowed=get_args(kind), declared=declared)
        if kind in {int, float}:
            return partial(values.read_number, declared=declared, wanted=kind)
        return partial(values.read_bool if kind is bool else values.read_str, declared=declared)

    def special(self, kind: Any, name: str, how: str) -> Callable[..., Any] | None:
        """The reader of a type, or of a kind of string, that TOML does not have."""
        if kind == Budget:
            return partial(values.read_budget, table=partial(self.structure, MemoryBudget))
        if kind == Pin:
            return partial(values.read_pin, table=partial(self.structure, Pins))
        if kind is Bind:
            return partial(values.read_bind, directory=self.directory)
        if how == "path":
            return partial(values.read_path, directory=self.directory)
        if how == "network":
            return values.read_network
        if how == "mode":
            return values.read_mode
        if name == "url":
            return partial(values.read_url, directory=self.directory)
        return values.read_duration if how == "duration" else None

    def backend(self, table: Any, path: Path, name: str) -> Backend | None:
        """A backend with everything that its url says."""
        backend = self.table(Backend, table, path, name)
        return None if backend is None else values.resolve_url(backend, self.directory)

    def explain(self, errors: ClassValidationError, cls: type, path: Path) -> None:
        """Add a problem for every error in cattrs' tree, at its path."""
        noted, others = errors.group_exceptions()
        for error, note in noted:
            attribute = getattr(attrs.fields(cast(Any, cls)), note.name)
            self.explain_value(error, values.without_none(attribute.type), (*path, note.name))
        for other in others:
            self.explain_other(other, cls, path)

    def explain_value(self, error: Exception, kind: Any, path: Path) -> None:
        """One value's error: a table or a list has errors of its own."""
        if isinstance(error, ClassValidationError):
            self.explain(error, TABLES_OR_ELSE.get(kind, kind), path)
        elif isinstance(error, IterableValidationError):
            for inner, note in error.group_exceptions()[0]:
                self.explain_value(inner, values.item_type(kind), (*path, note.index))
        elif isinstance(error, KeyError):
            self.problems.add(path, "is required")
        else:
            self.problems.add(path, str(error))

    def explain_other(self, error: Exception, cls: type, path: Path) -> None:
        """An error of the whole table: keys that it does not have."""
        if not isinstance(error, ForbiddenExtraKeysError):
            raise error
        for key in sorted(error.extra_fields):
            self.problems.add((*path, key), "unknown key" + suggestion(key, keys_of(cls)))


def read_items(read: values.Reader, value: Any) -> tuple[Any, ...]:
    """A list, item by item; a value that is no list stands for a list of one. Raises what cattrs raises for a list."""
    if not isinstance(value, list):
        return (read(value),)
    done, failed = [], []
    for index, item in enumerate(value):
        try:
            done.append(read(item))
        except Exception as error:
            error.add_note(IterableValidationNote(f"item {index}", index, None))
            failed.append(error)
    if failed:
        raise IterableValidationError("list", failed, tuple)
    return tuple(done)
