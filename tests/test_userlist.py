"""userlist.txt."""

import pytest

from dualpool.authentication.userlist import parse_userlist


def test_users_and_what_is_stored_for_them() -> None:
    text = (
        '; comment\n\n"app" "secret"\n  "md5 user"\t"md5abc" ignored "too"\n"quo""ted" "pass""word" \n"empty" ""\n"app" "newer"\n"""" "x"'
    )
    assert parse_userlist(text) == {"app": "newer", "md5 user": "md5abc", 'quo"ted': 'pass"word', "empty": "", '"': "x"}


@pytest.mark.parametrize("line", ["app secret", '"app"', '"app" secret', '"app "secret"', "# comment", '"app" "sec'])
def test_broken_lines(line: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: must be"):
        parse_userlist(f'"good" "x"\n{line}')
