"""The results: tables for a terminal, and JSON."""

import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchlib.model import REFERENCE, Engine, Row

NOTHING = "-"


def show(console: Console, engine: Engine, rows: list[Row]) -> None:
    """Print one table for the loads, one for the idle clients, and a line for each case that has failed."""
    loads = [row for row in rows if not row.case.is_idle]
    idle = [row for row in rows if row.case.is_idle]
    if loads:
        console.print(_loads_table(engine, loads))
    if idle:
        console.print(_idle_table(engine, idle))
    for row in rows:
        if row.failure:
            console.print(f"left out: {row.failure}", highlight=False, markup=False)


def _loads_table(engine: Engine, rows: list[Row]) -> Table:
    table = _table(f"{engine}: {rows[0].clients} clients, no TLS on either leg, medians, x is to {REFERENCE[engine]}", "case", "through")
    for head in ("tps", "CPU us/tx", "p99 ms", "tps x", "CPU x"):
        table.add_column(head, justify="right")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        rival = _reference(row, rows)
        figures = (number(row.tps, 0), number(row.cpu_us, 1), number(row.p99_ms, 2))
        ratios = (number(ratio(row.tps, rival.tps), 2), number(ratio(row.cpu_us, rival.cpu_us), 2))
        table.add_row(row.case.name, row.through, *figures, *ratios, end_section=following is None or following.case is not row.case)
    return table


def _idle_table(engine: Engine, rows: list[Row]) -> Table:
    table = _table(f"{engine}: idle clients, x is to {REFERENCE[engine]}", "through")
    for head in ("clients", "KB per client", "KB x"):
        table.add_column(head, justify="right")
    for row in rows:
        rival = _reference(row, rows)
        share = number(ratio(row.kb_per_client, rival.kb_per_client), 2)
        table.add_row(row.through, f"{row.clients:,}", number(row.kb_per_client, 1), share)
    return table


def _table(title: str, *left: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for head in left:
        table.add_column(head, no_wrap=True)
    return table


def _reference(row: Row, rows: list[Row]) -> Row:
    """The same case through the rival that ratios are taken to; a row without samples if it is not among `rows`."""
    wanted = REFERENCE[row.case.engine]
    return next((other for other in rows if other.case is row.case and other.through == wanted), Row(row.case, wanted, 0))


def ratio(value: float | None, to: float | None) -> float | None:
    """`value` / `to`, None where one of them is not known or there is nothing to divide by."""
    return value / to if value is not None and to else None


def number(value: float | None, digits: int) -> str:
    """A number for a column."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def save(path: Path, rows: list[Row]) -> None:
    """Write all rows as a JSON list; rows of idle clients carry `kb_per_client` too."""
    path.write_text(json.dumps([as_json(row) for row in rows], indent=1) + "\n")


def as_json(row: Row) -> dict[str, str | int | float | None]:
    """One row as it is in the JSON file: None for what was not measured."""
    found: dict[str, str | int | float | None] = {
        "engine": row.case.engine,
        "case": row.case.name,
        "through": row.through,
        "clients": row.clients,
        "tps": rounded(row.tps),
        "cpu_us_per_tx": rounded(row.cpu_us),
        "p99_ms": rounded(row.p99_ms),
    }
    if row.case.is_idle:
        found["kb_per_client"] = rounded(row.kb_per_client)
    return found


def rounded(value: float | None) -> float | None:
    """Three digits after the point."""
    return None if value is None else round(value, 3)
