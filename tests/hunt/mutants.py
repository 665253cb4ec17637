"""dualpool with one bug put back, to see that the hunt finds it.

    python -m tests.hunt.mutants NAME run -c FILE       dualpool itself, patched
    scripts/hunt --mutants --postgres URL --mysql URL   hunts on each of them

A mutant counts as found when the hunt shows a script in which it differs from a direct connection, and dualpool as it is does not.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.hunt.runner import Runner
from tests.hunt.script import Script
from tests.hunt.world import Difference


@dataclass(frozen=True)
class Mutant:
    """A bug: what the engine's dualpool no longer does."""

    engine: str
    what: str
    patch: Callable[[], None]


MUTANTS: dict[str, Mutant] = {}


def mutant(engine: str, what: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Add a patch to MUTANTS, under the name of its function."""

    def add(patch: Callable[[], None]) -> Callable[[], None]:
        MUTANTS[patch.__name__] = Mutant(engine, what, patch)
        return patch

    return add


# ------------------------------------------------------------------------------------------------------------- PostgreSQL


@mutant("postgres", "it is not asked whether a session holds advisory locks")
def unasked_locks() -> None:
    from dualpool.postgres import session_sql, sql

    session_sql.QUESTIONS[sql.LOCK] = "SELECT WHERE false"


@mutant("postgres", "it is not asked whether a session has temporary tables")
def unasked_tables() -> None:
    from dualpool.postgres import session_sql, sql

    session_sql.QUESTIONS[sql.TEMPORARY] = "SELECT WHERE false"


@mutant("postgres", "it is not asked whether a session has statements of PREPARE")
def unasked_statements() -> None:
    from dualpool.postgres import session_sql, sql

    session_sql.QUESTIONS[sql.PREPARED] = "SELECT WHERE false"


@mutant("postgres", "the settings of the client before are not taken back")
def kept_settings() -> None:
    from dualpool.postgres.session_sql import Restoration

    original = Restoration.__init__

    def init(self: Any, actual: dict[str, str], wanted: dict[str, str]) -> None:
        original(self, {name: value for name, value in actual.items() if name in wanted}, wanted)

    Restoration.__init__ = init  # type: ignore[method-assign]


@mutant("postgres", "the role of the client before stays")
def kept_role() -> None:
    from dualpool.postgres import session_sql

    original = session_sql.Restoration.__init__

    def init(self: Any, actual: dict[str, str], wanted: dict[str, str]) -> None:
        original(self, {name: value for name, value in actual.items() if name != "role"}, wanted)

    session_sql.Restoration.__init__ = init  # type: ignore[method-assign]


@mutant("postgres", "statements are shared by their text, whatever the settings are by which it is read")
def shared_statements() -> None:
    from dualpool.postgres import statements

    original = statements.reading
    for module in list(sys.modules.values()):
        if getattr(module, "reading", None) is original:
            module.reading = lambda _: ()  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------------------ MySQL


@mutant("mysql", "user variables of the client before are not cleared")
def kept_variables() -> None:
    from dualpool.mysql import session_sql

    original = session_sql.assignments

    def assignments(values: dict[str, str]) -> str:
        return original({name: value for name, value in values.items() if name[0] != "@" or value != "NULL"} or {"@hunt_none": "1"})

    session_sql.assignments = assignments


@mutant("mysql", "GET_LOCK keeps no server connection")
def unpinned_locks() -> None:
    _unseen("E_LOCK")


@mutant("mysql", "temporary tables keep no server connection")
def unpinned_tables() -> None:
    _unseen("E_TEMPORARY")


def _unseen(name: str) -> None:
    from dualpool.mysql import states

    original, kind = states.Holdings.apply, getattr(states, name)

    def apply(self: Any, steps: tuple[Any, ...], ok: bool, schema: bytes, several: bool = False) -> None:
        original(self, tuple(step for step in steps if step[0] != kind), ok, schema, several)

    states.Holdings.apply = apply  # type: ignore[method-assign]


@mutant("mysql", "LAST_INSERT_ID() is not given back")
def lost_insert_id() -> None:
    from dualpool.mysql import client_sending, reading

    original = client_sending.ClientSender._sync

    def sync(self: Any, server: Any, wanted: Any, schema: Any) -> bool:
        self._marks &= ~reading.M_INSERT_ID
        return original(self, server, wanted, schema)

    client_sending.ClientSender._sync = sync  # type: ignore[method-assign]


@mutant("mysql", "the SQL mode of the client before stays")
def kept_mode() -> None:
    from dualpool.mysql import session_sql

    original = session_sql.with_reports
    session_sql.with_reports = lambda current, reports: original(current, {n: v for n, v in reports.items() if n != "sql_mode"})


# ------------------------------------------------------------------------------------------------------------------ the hunt


def program(name: str) -> list[str]:
    """How the mutant is started."""
    return [sys.executable, "-m", "tests.hunt.mutants", name]


@dataclass(frozen=True)
class Found:
    """What shows a mutant, after how many scripts and seconds."""

    script: Script
    difference: Difference
    number: int
    seconds: float


def find(name: str, make: Callable[[list[str] | None], Any], seed: str, seconds: float) -> Found | None:
    """Hunt for what only the mutant shows, fresh dualpools both. `make`: a World for a program."""
    started = time.monotonic()
    with make(program(name)) as mutated, make(None) as sound:  # type: ignore[attr-defined]
        sound.start()
        mutated.start()
        hunting, checking = Runner(mutated), Runner(sound)
        number = 0
        while time.monotonic() - started < seconds:
            script = mutated.script(f"{seed}.{number}")
            number += 1
            difference = hunting.run(script)
            if difference is None:
                continue
            for world in (mutated, sound):
                world.stop()
                world.start()
            difference = hunting.run(script)
            if difference is not None and checking.run(script) is None:
                return Found(script, difference, number, time.monotonic() - started)
            mutated.stop()
            mutated.start()
    return None


def main() -> None:
    """Run dualpool with the patch that the first argument names."""
    name = sys.argv.pop(1)
    import dualpool.cli
    import dualpool.server

    MUTANTS[name].patch()
    sys.exit(dualpool.cli.main())


if __name__ == "__main__":
    main()
