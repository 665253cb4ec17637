"""The hunt as a test."""

from typing import Final

from tests.hunt.hunt import Hunt, world_of

SEED: Final = "ci"
SECONDS: Final = 120.0
SHRINK_SECONDS: Final = 45.0


def nothing_leaks(url: str) -> None:
    """Fails with the shortest script that shows a difference. `url`: of a server, with an administrator's account."""
    with world_of(url) as world:
        found = Hunt(world, SEED, shrink_seconds=SHRINK_SECONDS).run(SECONDS)
    assert not found, f"\n{found[0]}"
