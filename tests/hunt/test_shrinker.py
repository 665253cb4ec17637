"""The shrinker keeps what a difference needs, and nothing else."""

import random

from tests.hunt.postgres_sessions import PostgresSessions
from tests.hunt.script import Leave, Message, Say, Script
from tests.hunt.shrinker import shrink
from tests.hunt.spelling import Lit, MySQLSpeller, Name, PostgresSpeller, verbatim
from tests.hunt.world import Difference

PATIENCE = 60.0


def script(*texts: str) -> Script:
    steps = tuple(Say(0, (Message("Query", (verbatim(text),)), Message("Query", (verbatim("select 1"),))), (0.5,)) for text in texts)
    return Script("s", 1, (3, 0, 0, 0), (*steps, Leave(0)))


def leaks(scripts: list[Script]) -> Difference | None:
    """As if `set a` leaked to a client that asks for it."""
    told = "".join(map(str, scripts))
    return Difference(1, "leak", "", "") if "set a" in told and "show a" in told.partition("set a")[2] else None


def test_steps_and_messages_that_are_not_needed_are_left_out() -> None:
    found = shrink([script("select 2", "set a", "select 3", "show a", "select 4")], Difference(9, "leak", "", ""), leaks, PATIENCE)
    assert found.reproduced
    assert found.scripts == [
        Script("s", 1, (0, 0, 0, 0), tuple(Say(0, (Message("Query", (verbatim(t),)),)) for t in ("set a", "show a"))),
    ]


def test_a_cause_in_an_earlier_script_is_found() -> None:
    history = [script("select 9"), script("set a"), script("select 8"), script("show a")]
    found = shrink(history, Difference(1, "leak", "", ""), leaks, PATIENCE)
    assert [len(one.steps) for one in found.scripts] == [1, 1]


def test_what_does_not_show_again_is_told_as_it_was() -> None:
    history = [script("select 1")]
    found = shrink(history, Difference(1, "leak", "", ""), lambda _: None, PATIENCE)
    assert not found.reproduced
    assert found.scripts == history
    assert "did not show again" in str(found)


def test_odd_spellings_are_straightened() -> None:
    speller = PostgresSpeller(random.Random(1), 1.0)
    odd = speller("select ~set_config({n}, {v}, false) from {t}", n=Lit("a.b"), v=Lit("it's"), t=Name("x.y"))
    assert str(odd) != str(odd.straightened()) == "select set_config('a.b', 'it''s', false) from x.y"
    start = Script("s", 1, (0,), (Say(0, (Message("Query", (odd,)),)),))
    found = shrink(
        [start], Difference(1, "leak", "", ""), lambda scripts: Difference(1, "leak", "", "") if scripts[0].steps else None, PATIENCE
    )
    assert found.scripts[0].steps[0] == Say(0, (Message("Query", (odd.straightened(),)),))


def test_a_literal_keeps_its_value_in_mysql() -> None:
    speller = MySQLSpeller(random.Random(2), 0.0)
    assert str(speller("select {v}", v=Lit("it's a\\"))) == "select 'it''s a\\\\'"


def test_a_seed_gives_the_same_script_each_time() -> None:
    assert PostgresSessions("x.3").script() == PostgresSessions("x.3").script() != PostgresSessions("x.4").script()
