"""Tables on a terminal, and as JSON."""

import json

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from dualpool.answers import Answer, Done, Table, Value

WIDE = 10_000
"""Columns where there is no terminal: nothing is cut."""


def as_json(answer: Answer) -> str:
    """Rows as objects; of an order, what it was and what it said."""
    if isinstance(answer, Done):
        notices = [{"severity": said.severity, "message": said.message, "detail": said.detail} for said in answer.notices]
        return json.dumps({"done": answer.tag, "notices": notices})
    return json.dumps(as_objects(answer), indent=2)


def as_objects(table: Table) -> list[dict[str, Value]]:
    """Rows with the names of their columns."""
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def output(answer: Answer, console: Console | None = None) -> None:
    """Print an answer: a table, or one record below the other where a row is wider than the terminal."""
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDE
    if isinstance(answer, Done):
        for said in answer.notices:
            console.print(Text(f"{said.severity}: {said.message}"), Text(said.detail) if said.detail else "", sep="\n", end="")
        console.print(Text(answer.tag))
        return
    table = grid(answer)
    fits = console.measure(table).minimum <= console.width if not answer.rows else widest(answer) <= console.width
    console.print(table if fits else records(answer))


def widest(answer: Table) -> int:
    """How many columns of a terminal the table needs."""
    columns = zip(*[[column.name for column in answer.columns], *[map(shown, row) for row in answer.rows]], strict=True)
    return sum(max(map(len, column)) + 2 for column in columns) + 2


def grid(answer: Table) -> RichTable:
    """A table with a line per row."""
    table = RichTable(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in answer.columns:
        table.add_column(column.name, justify="left" if column.kind == "text" else "right", no_wrap=True)
    for row in answer.rows:
        table.add_row(*(Text(shown(value)) for value in row))
    return table


def records(answer: Table) -> RenderableType:
    """A line per value, for rows that are too wide."""
    parts: list[RenderableType] = []
    for number, row in enumerate(answer.rows, 1):
        table = RichTable(box=None, show_header=False, title=f"{number}", title_justify="left", title_style="bold", pad_edge=False)
        for column, value in zip(answer.columns, row, strict=True):
            table.add_row(Text(column.name, style="dim"), Text(shown(value)))
        parts += [table, ""]
    return Group(*parts)


def shown(value: Value) -> str:
    """A value as text; NULL is nothing."""
    return "" if value is None else str(value)
