"""sql_text.py: what the lexer makes of texts, by the settings by which they are read."""

import time

import pytest

from dualpool.sql_text import MAX_READ, POSTGRES, VERTICAL_TAB, Lexis, lex, lexis

STANDARD = lexis(POSTGRES)
ESCAPING = lexis(POSTGRES, backslash=True)
SJIS = lexis(POSTGRES, "shift_jis")
NEWER = lexis(POSTGRES, flags=frozenset((VERTICAL_TAB,)))

READ = [
    (STANDARD, rb"select 'a\'; set x", [[b"select", rb"'a\'"], [b"set", b"x"]]),
    (ESCAPING, rb"select 'a\'; set x'", [[b"select", rb"'a\'; set x'"]]),
    (STANDARD, rb"select E'a\'; set x'", [[b"select", rb"E'a\'; set x'"]]),
    (STANDARD, b"select E'a'\n'b\\'; c'", [[b"select", b"E'a'\n'b\\'; c'"]]),
    (STANDARD, b"select 'a' -- x\n'b;'", [[b"select", b"'a' -- x\n'b;'"]]),
    (STANDARD, b"select 'a' 'b'", [[b"select", b"'a'", b"'b'"]]),
    (NEWER, b"select\v'a'\v\n\v'b' --\v\n\v, 'c'\v;d", [[b"select", b"'a'\v\n\v'b'", b",", b"'c'"], [b"d"]]),
    (SJIS, b"select E'\x83\x5c'; set x", [[b"select", b"E'\x83\x5c'"], [b"set", b"x"]]),
    (STANDARD, b"select /* /* */ ; */ 1--;\n;;b", [[b"select", b"1"], [b"b"]]),
    (STANDARD, b"select $$;$$, $a$ $$; $a$, a$b$c;d", [[b"select", b"$$;$$", b",", b"$a$ $$; $a$", b",", b"a$b$c"], [b"d"]]),
    (STANDARD, b"select U&\"p!0067!!\" UEscape '!', b", [[b"select", b"pg!", b",", b"b"]]),
    (STANDARD, b'select U&"p\\0067_x\\+000061", "a""B"', [[b"select", b"pg_xa", b",", b'a"B']]),
    (STANDARD, b"create rule r as on a do (b; c); d", [b"create rule r as on a do ( b ; c )".split(), [b"d"]]),
    (STANDARD, b"select 1.5e3+.5, $1::INT, b'1', x''", [b"select 1.5e3 + .5 , $1 : : int , b'1' , x''".split()]),
]


@pytest.mark.parametrize(("settings", "text", "statements"), READ)
def test_tokens_and_statements(settings: Lexis, text: bytes, statements: list[list[bytes]]) -> None:
    found = lex(text, settings)
    assert found is not None
    assert [found.words[start:end] for start, end in found.statements()] == statements
    for start, end in zip(found.starts, found.ends, strict=True):
        assert text[start:end].strip() == text[start:end] != b""


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (STANDARD, b"select 'a"),
        (STANDARD, b'select "a'),
        (STANDARD, b"select $a$ b $A$"),
        (STANDARD, b"select /* /* */"),
        (STANDARD, b"select 1x"),
        (STANDARD, b"select U&\"a\" /* */ uescape '!'"),
        (STANDARD, b'select U&"\\00"'),
        (ESCAPING, b"select U&'a'"),
        (ESCAPING, rb"select 'a\'"),
        (SJIS, b"select '\x83'"),
        (STANDARD, b"deallocate\vall"),
        (STANDARD, b"select 'a'\v\n'b'"),
        (STANDARD, b"select " + b"1," * MAX_READ),
    ],
)
def test_what_is_not_certain(settings: Lexis, text: bytes) -> None:
    assert lex(text, settings) is None


@pytest.mark.parametrize(
    "piece", [b"'", b"''", b"$", b"$$", b"/*", b"--\n", b"'\n", b"e'\\", b'"', b"(", b";", b"\xff", b"1", b"1e", b". "]
)
def test_reading_takes_linear_time(piece: bytes) -> None:
    """(Quadratic time would be minutes.)"""
    began = time.process_time()
    for settings in (STANDARD, ESCAPING):
        lex((piece * MAX_READ)[:MAX_READ], settings)
        lex((piece * MAX_READ)[: MAX_READ - 2] + b"x'", settings)
    assert time.process_time() - began < 5
