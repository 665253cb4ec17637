"""The console's commands, once for all protocols: how they are written, who may give them, what they answer with."""

import re
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

import attrs

from dualpool.admin import orders
from dualpool.admin.own_tables import OWN_TABLES
from dualpool.admin.tables import TABLES, Show
from dualpool.answers import Answer, Column, Done, Notice, Table
from dualpool.errors import CommandRefused, NotAllowed

if TYPE_CHECKING:
    from dualpool.server import Server

SHOWS: Final[dict[str, Show]] = TABLES | OWN_TABLES
HELP: Final = """
	SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
	SHOW PEERS|PEER_POOLS
	SHOW SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE|FDS
	SHOW DNS_HOSTS|DNS_ZONES
	SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
	SHOW PINS|BUDGET|BACKENDS|LISTENERS|QUEUE|CHANNELS
	SET key = arg
	RELOAD
	PAUSE [<db>]
	RESUME [<db>]
	DISABLE <db>
	ENABLE <db>
	RECONNECT [<db>]
	KILL [<db>]
	KILL_CLIENT <client_id>
	SUSPEND
	SHUTDOWN
	SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
	WAIT_CLOSE [<db>]
"""


@attrs.frozen
class Order:
    """A command that steers. `words`: how many may follow it. `waits`: it may take long, so that its client may cancel it or leave."""

    run: Callable[["Server", list[str]], Awaitable[Done]]
    words: tuple[int, int] = (0, 0)
    waits: bool = False


ORDERS: Final[dict[str, Order]] = {
    "PAUSE": Order(orders.pause, (0, 1), waits=True),
    "RESUME": Order(orders.resume, (0, 1)),
    "DISABLE": Order(orders.disable, (1, 1)),
    "ENABLE": Order(orders.enable, (1, 1)),
    "RECONNECT": Order(orders.reconnect, (0, 1)),
    "KILL": Order(orders.kill, (0, 1)),
    "KILL_CLIENT": Order(orders.kill_client, (1, 1)),
    "WAIT_CLOSE": Order(orders.wait_close, (0, 1), waits=True),
    "RELOAD": Order(orders.reload, waits=True),
    "SET": Order(orders.set_key, (0, 9)),
    "SUSPEND": Order(orders.suspend, waits=True),
    "SHUTDOWN": Order(orders.shutdown, (0, 1)),
}
WORD: Final = re.compile(r"""'((?:[^']|'')*)'|"((?:[^"]|"")*)"|(=)|([^\s='"]+)""")


@attrs.frozen
class Command:
    """A command that was understood: a table to show, or an order with its words. Both None: SHOW HELP."""

    show: Show | None = None
    order: Order | None = None
    words: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...] | None:
        """The columns of its answer; None if it has none."""
        return self.show.columns if self.show is not None else None

    @property
    def waits(self) -> bool:
        """It may take long."""
        return self.order is not None and self.order.waits

    async def run(self, server: "Server") -> Answer:
        """Carry it out."""
        if self.show is not None:
            return Table(self.show.columns, self.show.rows(server))
        if self.order is not None:
            return await self.order.run(server, list(self.words))
        return Done("SHOW", (Notice("Console usage", HELP),))


def parse(text: str) -> Command:
    """What `text` means: case does not matter, a semicolon at the end neither. Raises CommandRefused as PgBouncer does."""
    text = text.strip().rstrip(";").strip()
    words = split_words(text)
    name = words[0].upper() if words else ""
    if name == "SHOW" and len(words) == 2:
        table = words[1].upper()
        if table in SHOWS:
            return Command(show=SHOWS[table])
        if table == "HELP":
            return Command()
    order = ORDERS.get(name)
    if order is None or not order.words[0] <= len(words) - 1 <= order.words[1]:
        raise CommandRefused(f"invalid command '{text}', use SHOW HELP;", hint=advice(words))
    return Command(order=order, words=tuple(words[1:]))


def split_words(text: str) -> list[str]:
    """The words of a command; quotation marks of either kind keep one together."""
    found = []
    for single, double, sign, bare in WORD.findall(text):
        found.append(single.replace("''", "'") or double.replace('""', '"') or sign or bare)
    return found


def advice(words: list[str]) -> str:
    """The command that may have been meant."""
    known = [f"SHOW {name}" for name in (*SHOWS, "HELP")] + list(ORDERS)
    close = get_close_matches(" ".join(words[:2]).upper(), known, n=1) or get_close_matches(" ".join(words[:1]).upper(), known, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    return "This is the admin console of dualpool, not a database."


def check_allowed(command: Command, *, admin: bool) -> None:
    """Raise NotAllowed for an order of a user who may only look."""
    if command.order is not None and not admin:
        raise NotAllowed("admin access needed", hint="admin.users may do this; admin.stats_users may only SHOW.")
