"""`dualpool top`: what the pools do now, on a full screen, once a second, until somebody presses q."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import attrs
import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from dualpool.admin.client import ConsoleClient, connected
from dualpool.admin.show import as_objects
from dualpool.answers import Table, Value

TABLES: Final = ("VERSION", "STATE", "POOLS", "STATS_TOTALS", "BACKENDS", "QUEUE", "PINS")
CONSOLE: Final = "pgbouncer"
ONCE_WIDTH: Final = 100
NARROW: Final = 90
"""Columns of the screen, below which only the most important ones of the tables are there."""
POOL_COLUMNS: Final = ("clients", "waiting", "max wait", "active", "idle")
QUIT: Final = frozenset(b"qQ\x04")
"""Also Ctrl-D."""
Row = dict[str, Value]


@attrs.frozen
class Snapshot:
    """The tables at one moment. `at`: seconds."""

    at: float
    tables: dict[str, list[Row]]

    def rows(self, name: str) -> list[Row]:
        """A table without the console's own row."""
        return [row for row in self.tables[name] if row.get("database") != CONSOLE]


async def take(client: ConsoleClient) -> Snapshot:
    """Ask for everything."""
    tables = {}
    for name in TABLES:
        answer = await client.ask(f"SHOW {name}")
        assert isinstance(answer, Table)
        tables[name] = as_objects(answer)
    return Snapshot(monotonic(), tables)


async def run(url: str, interval: float, *, once: bool = False) -> None:
    """Show it until q is pressed; `once`: one picture, on a terminal or not. Raises ConnectFailed, ServerLost."""
    async with connected(url) as client:
        before = await take(client)
        if once:
            await trio.sleep(interval)
            console = Console()
            console.width = max(console.width, ONCE_WIDTH)
            console.print(render(await take(client), before, console.width))
            return
        with keyboard() as keys, Live(screen=True, auto_refresh=False) as live:
            live.update(render(before, before, live.console.width), refresh=True)
            while not await told_to_quit(keys, interval):
                now = await take(client)
                live.update(render(now, before, live.console.width), refresh=True)
                before = now


@contextmanager
def keyboard() -> Iterator[int]:
    """The descriptor of the terminal, each key of which can be read at once; -1 if there is none."""
    if not sys.stdin.isatty():
        yield -1
        return
    import termios  # not on Windows
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def told_to_quit(keys: int, seconds: float) -> bool:
    """Wait so long, or until a key says that it is enough."""
    with trio.move_on_after(seconds):
        while keys >= 0:
            await trio.lowlevel.wait_readable(keys)
            pressed = os.read(keys, 64)
            if not pressed or QUIT.intersection(pressed):
                return True
        await trio.sleep_forever()
    return False


def render(now: Snapshot, before: Snapshot, width: int) -> RenderableType:
    """One picture, for a screen so wide."""
    return Group(headline(now, before), pools(now, width), traffic(now, before), backends(now, width))


def number(value: Value) -> int:
    """A number of a table."""
    return int(value or 0)


def total(rows: list[Row], *columns: str) -> int:
    """The sum of columns."""
    return sum(number(row[column]) for row in rows for column in columns)


def headline(now: Snapshot, before: Snapshot) -> Text:
    """Everything in a line."""
    found = now.rows("POOLS")
    rates = [rate(now, before, row) for row in now.rows("STATS_TOTALS")]
    state = {str(row["key"]): row["value"] for row in now.tables["STATE"]}
    parts = [
        str(now.tables["VERSION"][0]["version"]).partition("(")[2].rstrip(")"),
        f"{total(found, 'cl_active', 'cl_waiting')} clients",
        f"{total(found, 'cl_waiting')} waiting",
        f"{total(now.tables['BACKENDS'], 'connections')} server connections",
        f"{sum(one['query_count'] for one in rates):,.0f} queries/s",
        f"{len(now.tables['PINS'])} pinned",
    ]
    paused = Text("  PAUSED", style="bold red") if state["active"] != "yes" else Text("")
    return Text.assemble(Text("  ".join(parts), style="bold"), paused, no_wrap=True, overflow="ellipsis")


def rate(now: Snapshot, before: Snapshot, row: Row) -> dict[str, float]:
    """The change of a row of SHOW STATS_TOTALS per second; its times per query and per transaction, in milliseconds."""
    earlier = next((other for other in before.tables["STATS_TOTALS"] if other["database"] == row["database"]), row)
    seconds = max(now.at - before.at, 0.001)
    change = {name: number(value) - number(earlier[name]) for name, value in row.items() if name != "database"}
    rates = {name: value / seconds for name, value in change.items()}
    rates["query_time"] = change["query_time"] / 1000 / max(1, change["query_count"])
    rates["xact_time"] = change["xact_time"] / 1000 / max(1, change["xact_count"])
    return rates


def sheet(*columns: str, texts: int) -> RichTable:
    """An empty table whose first `texts` columns are text."""
    table = RichTable(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < texts else "right", no_wrap=True)
    return table


def pools(now: Snapshot, width: int) -> RichTable:
    """The pools, those with the longest wait first."""
    wide = width >= NARROW
    more = ("reset", "connect") if wide else ()
    names = ("database", "user", "pool_mode") if wide else ("database", "user")
    table = sheet("pool", "user", *(("mode",) if wide else ()), *POOL_COLUMNS, *more, texts=len(names))
    for row in sorted(now.rows("POOLS"), key=lambda row: (-number(row["maxwait"]), -number(row["cl_waiting"]), str(row["database"]))):
        wait = number(row["maxwait"]) + number(row["maxwait_us"]) / 1e6
        cells = [str(row[name]) for name in (*names, "cl_active", "cl_waiting")]
        cells += [f"{wait:.1f} s" if wait else "", str(row["sv_active"]), str(total([row], "sv_idle", "sv_used"))]
        cells += [str(row[name]) for name in ("sv_tested", "sv_login")] if wide else []
        table.add_row(*cells, style="red" if number(row["cl_waiting"]) else None)
    return table


def traffic(now: Snapshot, before: Snapshot) -> RichTable:
    """What goes through, per database."""
    table = sheet("database", "query/s", "xact/s", "ms/query", "ms/xact", "in B/s", "out B/s", texts=1)
    for row in now.rows("STATS_TOTALS"):
        rates = rate(now, before, row)
        table.add_row(
            str(row["database"]), f"{rates['query_count']:,.0f}", f"{rates['xact_count']:,.0f}", f"{rates['query_time']:.2f}",
            f"{rates['xact_time']:.2f}", f"{rates['bytes_received']:,.0f}", f"{rates['bytes_sent']:,.0f}",
        )  # fmt: skip
    return table


def backends(now: Snapshot, width: int) -> RichTable:
    """The servers."""
    wide = width >= NARROW
    table = sheet("backend", "server", "version", "conns", "active", *(("failed", "lost") if wide else ()), "last error", texts=3)
    table.columns[-1].justify = "left"
    counts = ("connections", "active", "connect_failures", "losses") if wide else ("connections", "active")
    for row in now.tables["BACKENDS"]:
        version = f"{row['protocol']} {row['version']}".split(" (")[0].strip()
        cells = [str(row["name"]), f"{row['host']}:{row['port']}", version, *(str(row[name]) for name in counts)]
        table.add_row(*cells, str(row["last_error"]), style="red" if row["last_error"] else None)
    return table
