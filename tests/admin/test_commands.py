"""How commands are written, and who may give them."""

import pytest

from dualpool.admin.commands import HELP, ORDERS, SHOWS, check_allowed, parse, split_words
from dualpool.errors import CommandRefused, NotAllowed


@pytest.mark.parametrize("text", ["SHOW POOLS", "show pools;", "  Show   Pools ; ", "SHOW\nPOOLS;;", 'show "pools"'])
def test_case_space_and_semicolons_do_not_matter(text: str) -> None:
    assert parse(text).columns == SHOWS["POOLS"].columns


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("PAUSE app", ["PAUSE", "app"]),
        ("pause 'app'", ["pause", "app"]),
        ('PAUSE "my app"', ["PAUSE", "my app"]),
        ("PAUSE 'it''s'", ["PAUSE", "it's"]),
        ("SET query_timeout=5", ["SET", "query_timeout", "=", "5"]),
        ("SET query_timeout = '5s'", ["SET", "query_timeout", "=", "5s"]),
        ("SET x = ''", ["SET", "x", "=", ""]),
        ("KILL a@mysql", ["KILL", "a@mysql"]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(
    "text", ["", ";", "SHOW", "SHOW POOLS x", "PAUSE a b", "DISABLE", "KILL_CLIENT", "KILL_CLIENT 1 2", "RELOAD x", "SELECT 1"]
)
def test_what_is_no_command(text: str) -> None:
    with pytest.raises(CommandRefused, match="use SHOW HELP"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "hint"), [("SHOW POOL", "SHOW POOLS"), ("show statz", "SHOW STATS"), ("PUASE app", "PAUSE"), ("RELOD", "RELOAD")]
)
def test_a_slip_gets_the_command_that_was_meant(text: str, hint: str) -> None:
    with pytest.raises(CommandRefused) as refusal:
        parse(text)
    assert refusal.value.hint == f"Did you mean {hint}?"


def test_only_admins_may_steer() -> None:
    for command in ("PAUSE", "KILL_CLIENT 1", "RELOAD", "SET a = 1", "SHUTDOWN"):
        check_allowed(parse(command), admin=True)
        with pytest.raises(NotAllowed):
            check_allowed(parse(command), admin=False)
    check_allowed(parse("SHOW POOLS"), admin=False)
    check_allowed(parse("SHOW HELP"), admin=False)


def test_help_names_every_command() -> None:
    for name in [*ORDERS, *(show for show in SHOWS)]:
        assert name in HELP
