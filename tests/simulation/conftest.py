"""How many schedules."""

import pytest


@pytest.fixture(scope="session")
def schedules(request: pytest.FixtureRequest) -> int:
    """How many of the world of pools; the worlds of links, whose schedules take longer, run a part of that."""
    asked: int = request.config.getoption("--schedules")
    return asked
