"""The loop of the leak hunt, and its command line."""

import argparse
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final, TextIO
from urllib.parse import unquote, urlsplit

from tests.hunt.mutants import MUTANTS, find
from tests.hunt.mysql_world import MySQLWorld
from tests.hunt.postgres_world import PostgresWorld
from tests.hunt.runner import Runner
from tests.hunt.script import Script
from tests.hunt.shrinker import Shrunk, shrink
from tests.hunt.world import ALWAYS, Difference, World

HISTORY: Final = 64
"""How many scripts back a difference may have its cause."""
SHRINK_SECONDS: Final = 90.0
BLIND: Final = ("placeholders", "lastval", "collation_database")
"""What can be left out of the comparison, to see what else there is."""


@dataclass
class Hunt:
    """A hunt on one World. `most`: after how many differences it ends."""

    world: World
    seed: str
    most: int = 1
    shrink_seconds: float = SHRINK_SECONDS
    out: TextIO = sys.stderr
    found: list[Shrunk] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    def run(self, seconds: float, *, first: int = 0, scripts: int | None = None) -> list[Shrunk]:
        """Hunt for so long (or for so many scripts); what was found."""
        self.world.start()
        self.runner = Runner(self.world)
        started = time.monotonic()
        history: list[Script] = []
        number = first
        while time.monotonic() - started < seconds and len(self.found) < self.most and number - first != scripts:
            script = self.world.script(f"{self.seed}.{number}")
            number += 1
            history = [*history[-HISTORY + 1 :], script]
            try:
                difference = self.runner.run(script)
            except Exception as error:
                error.add_note(str(script))
                raise
            if difference is not None:
                self._take(history, difference)
                history = []
                self.world.stop()
                self.world.start()
        took = time.monotonic() - started
        self.say(f"{self.world.name}: seed {self.seed}, {took:.0f} s: {self.runner.counts}")
        for error, count in sorted(self.runner.excuses.items(), key=lambda item: -item[1]):
            self.say(f"  {count} times: {error}")
        return self.found

    def _take(self, history: list[Script], difference: Difference) -> None:
        self.say(f"{self.world.name}: {history[-1].seed} differs, shrinking\n{difference}")
        shrunk = (
            shrink(history, difference, self._shows, self.shrink_seconds)
            if self.shrink_seconds
            else Shrunk(history[-1:], difference, False)
        )
        self.say(f"{self.world.name}: {shrunk}\n")
        self.found.append(shrunk)

    def _shows(self, scripts: list[Script]) -> Difference | None:
        self.world.stop()
        self.world.start()
        runner = Runner(self.world)
        difference = None
        for script in scripts:
            difference = runner.run(script)
            if difference is not None:
                break
        return difference

    def say(self, text: str) -> None:
        """A line of the report."""
        print(text, file=self.out, flush=True)


def world_of(url: str, **options: Any) -> PostgresWorld | MySQLWorld:
    """The World of a URL."""
    parts = urlsplit(url)
    made, port = (MySQLWorld, 3306) if parts.scheme == "mysql" else (PostgresWorld, 5432)
    account = unquote(parts.username or ""), unquote(parts.password or "")
    return made(parts.hostname or "127.0.0.1", parts.port or port, *account, **options)


def hunt_mutants(urls: list[str], seed: str, seconds: float) -> int:
    """Each mutant on each server of its engine: 0 if the hunt finds all of them."""
    missed = 0
    for url in urls:
        engine = "mysql" if urlsplit(url).scheme == "mysql" else "postgres"
        for name in [name for name, mutant in MUTANTS.items() if mutant.engine == engine]:
            found = find(name, lambda program, url=url: world_of(url, program=program), seed, seconds)  # type: ignore[misc]
            missed += found is None
            told = f"found in {found.seconds:.0f} s, by script {found.number}: {found.difference.what}" if found else "NOT FOUND"
            print(f"{name} ({MUTANTS[name].what}): {told}", file=sys.stderr, flush=True)
    return 1 if missed else 0


def main(arguments: list[str] | None = None) -> int:
    """`scripts/hunt`: 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="hunt", description="Random sessions on a small pool, each compared with a session of its own.")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", default="", help="default: a random one, which is printed")
    parser.add_argument("--first", type=int, default=0, help="the number of the first script, to run one again: 12 of a seed 'x.12'")
    parser.add_argument("--scripts", type=int, help="how many scripts at most")
    parser.add_argument("--postgres", metavar="URL", action="append", default=[], help="a PostgreSQL server, as a superuser")
    parser.add_argument("--mysql", metavar="URL", action="append", default=[], help="a MySQL or MariaDB server, as an administrator")
    parser.add_argument("--most", type=int, default=10, help="after how many differences it ends (10)")
    parser.add_argument("--shrink", type=float, default=SHRINK_SECONDS, metavar="SECONDS", help="how long a script is made shorter (90)")
    parser.add_argument("--more", default=ALWAYS, metavar="TOML", help=f"more keys of the databases ({ALWAYS})")
    parser.add_argument("--blind", action="append", default=[], choices=BLIND, help="what is not looked at")
    parser.add_argument("--mutants", action="store_true", help="hunt on dualpools with one bug each, for --minutes at most")
    given = parser.parse_args(arguments)
    seed = given.seed or f"{random.SystemRandom().randrange(10**6)}"
    urls = [*given.postgres, *given.mysql]
    if not urls:
        parser.error("give a server: --postgres URL or --mysql URL")
    if given.mutants:
        return hunt_mutants(urls, seed, 60 * given.minutes)
    found: list[Shrunk] = []
    for url in urls:
        with world_of(url, more=given.more, blind=tuple(given.blind)) as world:
            hunt = Hunt(world, seed, given.most, given.shrink)
            found += hunt.run(60 * given.minutes, first=given.first, scripts=given.scripts)
    print(f"{len(found)} differences", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
