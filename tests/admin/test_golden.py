"""The tables are PgBouncer's, as the real one answered (tests/golden)."""

import pytest

from dualpool.admin.commands import SHOWS, parse
from dualpool.errors import CommandRefused
from dualpool.postgres.console import TYPES
from tests.golden.record import NAMED_ROWS, load

GOLDEN = load()
OURS_TO_ALLOW = {
    "RESUME",
    "RESUME nosuch",
    "PAUSE nosuch",
    "KILL nosuch",
    "RECONNECT nosuch",
    "WAIT_CLOSE nosuch",
    "DISABLE nosuch",
    "ENABLE nosuch",
}
"""They are understood, and refused by the one who carries them out: see tests/e2e."""


@pytest.mark.parametrize("table", GOLDEN["tables"])
def test_columns_have_the_names_and_types(table: str) -> None:
    ours = [[column.name, TYPES[column.kind][0]] for column in SHOWS[table].columns]
    assert ours == GOLDEN["tables"][table]


@pytest.mark.parametrize("command", sorted(GOLDEN["errors"].keys() - OURS_TO_ALLOW - {"KILL_CLIENT 99999999", "SHUTDOWN FOO"}))
def test_a_wrong_command_is_refused_in_the_same_words(command: str) -> None:
    with pytest.raises(CommandRefused) as refusal:
        parse(command)
    assert refusal.value.message == GOLDEN["errors"][command]
    assert refusal.value.hint
    assert refusal.value.sqlstate == "08P01"


def test_rows_that_have_names_are_recorded() -> None:
    assert set(GOLDEN["rows"]) == set(NAMED_ROWS)
