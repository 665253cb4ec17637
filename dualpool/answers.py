"""What the admin console answers, whatever protocol it is asked by. admin/ makes these; an engine's console.py sends them."""

from typing import Literal

import attrs

Kind = Literal["text", "int4", "int8", "numeric"]
"""The type of a column, by PostgreSQL's name for it. Values of all but `text` are Python's int."""
Value = str | int | None


@attrs.frozen
class Column:
    """A column of a table."""

    name: str
    kind: Kind = "text"


@attrs.frozen
class Table:
    """Rows for the one who asked."""

    columns: tuple[Column, ...]
    rows: list[tuple[Value, ...]]


@attrs.frozen
class Notice:
    """What is said beside the answer. `severity` is NOTICE or WARNING."""

    message: str
    detail: str = ""
    severity: Literal["NOTICE", "WARNING"] = "NOTICE"


@attrs.frozen
class Done:
    """An order was carried out. `tag` says which, as PostgreSQL's clients print it."""

    tag: str
    notices: tuple[Notice, ...] = ()


Answer = Table | Done


def columns(**kinds: Kind) -> tuple[Column, ...]:
    """Columns of these names and types, in this order."""
    return tuple(Column(name, kind) for name, kind in kinds.items())
