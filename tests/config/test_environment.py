"""`${NAME}` in strings."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.config.environment import Expanded, expand
from dualpool.config.url import parse_url

ENVIRON = {"A": "one", "EMPTY": "", "PW": "p@ss/w?rd#%41", "URL": "mysql://u:p%40@h/d"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("${A}", "one"),
        ("<${A}-${A}>", "<one-one>"),
        ("${B:-two}", "two"),
        ("${A:-two}", "one"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY}", ""),
        ("${B:-}", ""),
        ("${B:-a:-b c}", "a:-b c"),
        ("$${A}", "${A}"),
        ("$A $ $$ md5$ $$$", "$A $ $$ md5$ $$$"),
        ("SCRAM-SHA-256$4096:c2FsdA==$a:b", "SCRAM-SHA-256$4096:c2FsdA==$a:b"),
        ("$A$005$salt$$hash", "$A$005$salt$$hash"),
        ("${URL}", "mysql://u:p%40@h/d"),
        ("mysql://u:${PW}@h/${A}?x=${A}", "mysql://u:p%40ss%2Fw%3Frd%23%2541@h/one?x=one"),
        ("mysql://${A}/${A}@x", "mysql://one/one@x"),
    ],
)
def test_expand(text: str, expanded: str) -> None:
    assert expand(text, ENVIRON) == expanded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${B}", "the environment variable B is not set; set it, or give a default: ${B:-...}"),
        ("${B}${A}${C}${B}", "the environment variables B, C are not set"),
        ("${A", "a variable is written ${NAME} or ${NAME:-default}; $${ stands for ${ itself"),
        ("${}", "a variable is written"),
        ("${1A}", "a variable is written"),
        ("${A:+x}", "a variable is written"),
        ("${A B}", "a variable is written"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        expand(text, ENVIRON)


def test_only_what_held_a_variable_is_marked() -> None:
    assert isinstance(expand("${A}", ENVIRON), Expanded)
    assert not isinstance(expand("one", ENVIRON), Expanded)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_user_and_password_come_out_of_a_url_as_they_were(user: str, password: str) -> None:
    try:
        (user + password).encode()
    except UnicodeEncodeError:
        return
    url = parse_url(expand("postgresql://${U}:${P}@host:1/db", {"U": user, "P": password}))
    assert (url.user, url.password, url.hosts, url.database) == (user, password, (("host", 1),), "db")
