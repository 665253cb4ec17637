"""The lexer beside the server: both see the same statements and the same names, whatever the text and the settings."""

import random
from collections.abc import Iterator
from typing import Final

import psycopg
import pytest

from dualpool.postgres.lexical import LEXICAL_SETTINGS, lexis_of
from dualpool.sql_text import QUOTED, WORD, Lexed, lex
from tests.helpers.servers import PostgresServer

TEXTS: Final = 400
PIECES: Final = (
    b"'", b"''", b"'a'", rb"'a\'", rb"'\\'", rb"'a\'b'", rb"E'a\'b'", rb"e'\\'", rb"E'\\''x'", b"U&'d\\0061t'", b"B'01'", b"x'1F'", b"N'n'",
    b"'a'\n'b'", b"'a' -- c\n 'b'", b"E'a'\n'\\''", b"'a' 'b'", b"'a'\v\n'b'",
    b"$$a;b$$", b"$a$ ' $$ ; $a$", b"$a$", b"$1", b"$", b"a$b$",
    b"-- x ; '\n", b"/* ; ' */", b"/* /* ; */ ' */", b"/*", b"*/", b"--", b"- -1",
    b'"', b'"a;b"', b'"a""b"', b'U&"\\0062x"', b'U&"!0062" UESCAPE \'!\'', b"AbC", b"\xc3\xa4x", b'"\xc3\xa4"', b"_x1", b"e", b"u",
    b";", b";;", b"(", b")", b",", b" ", b"\n", b"\t", b"\v", b"\f", b"1", b"1.5", b"1e3", b".5", b"1.",
    b"::text", b"+", b"||", b"as", b"select", b"select 1",
)  # fmt: skip
"""What random texts are made of."""
WHOLE: Final = (
    b"'a'", rb"'a\\'", rb"E'a\'b'", rb"E'\\'", b"'it''s'", b"$$a;b$$", b"$q$ '; $$ $q$", b"'a'\n'b;'",
    b"/* ; */ 1", b"-- ;\n 1", b"1 /* /* ' */ ; */",
    b"x'1F'", b"B'01'", b"1.5e3", b"-.5", b"(select ';')", b"'a' || ';'", b"1::text", b"N'n'",
)  # fmt: skip
"""Expressions that a server takes, with what might be taken for the end of a statement."""
NAMES: Final = (b"AbC", b'"a;b"', b'"a""B"', rb'U&"\0062x;"', rb'U&"d\+000061"', b"_x$1", b"\xc3\xa4x", b'"\xc3\xa4;"')


def seen(client: "psycopg.Connection[tuple[object, ...]]", text: bytes) -> list[list[str]] | None:
    """The columns of each statement's answer, for texts that the server takes."""
    try:
        cursor = client.execute(text)
    except psycopg.Error:
        return None
    found = []
    while True:
        if cursor.statusmessage:
            found.append([column.name for column in cursor.description or ()])
        if not cursor.nextset():
            return found


def lexed(client: "psycopg.Connection[tuple[object, ...]]", text: bytes) -> Lexed | None:
    lexis = lexis_of(*(client.info.parameter_status(name) or "" for name in LEXICAL_SETTINGS))
    assert lexis is not None
    return lex(text, lexis)


@pytest.fixture(params=["on", "off"])
def client(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    options = f"-c standard_conforming_strings={request.param} -c backslash_quote=on -c escape_string_warning=off"
    with psycopg.connect(postgres_server.url, autocommit=True, options=options) as connection:
        yield connection


@pytest.mark.parametrize("seed", range(4))
def test_both_see_the_same_statements_and_names(client: "psycopg.Connection[tuple[object, ...]]", seed: int) -> None:
    """Of texts that the server takes."""
    random_ = random.Random(seed)
    taken = 0
    for _ in range(TEXTS):
        names = [random_.choice(NAMES) for _ in range(random_.randint(1, 4))]
        statements = [b"select " + random_.choice(WHOLE) + random_.choice((b" as ", b"\nAS/**/ ")) + name for name in names]
        text = random_.choice((b";", b" ;; ", b";--;\n", b"/*;*/;")).join(statements)
        answer = seen(client, text)
        if answer is None:
            continue
        taken += 1
        found = lexed(client, text)
        assert found is not None, text
        last = [found.words[end - 1].decode() for _, end in found.statements()]
        assert [[name] for name in last] == answer, text
    assert taken > TEXTS // 3


@pytest.mark.parametrize("seed", range(4))
def test_random_texts(client: "psycopg.Connection[tuple[object, ...]]", seed: int) -> None:
    """What the server takes has as many statements as the lexer says, unless that says that it is not certain."""
    random_ = random.Random(seed)
    taken = 0
    for _ in range(3 * TEXTS):
        text = b"select " + b" ".join(random_.choice(PIECES) for _ in range(random_.randint(1, 6)))
        answer = seen(client, text)
        if answer is None:
            continue
        taken += 1
        found = lexed(client, text)
        if found is not None:
            assert len(list(found.statements())) == len(answer), text
            assert all(kind not in (WORD, QUOTED) or found.words[index] for index, kind in enumerate(found.kinds))
    assert taken > 20


ENCODINGS: Final = {
    "SJIS": (b"\x83\x5c", b"\x95\x5c", b"\x83\x7c", b"\xb1", b"\x88\x9f"),
    "BIG5": (b"\xa5\x5c", b"\xb3\x5c", b"\xa4\xa4"),
    "GBK": (b"\x81\x5c", b"\xd6\xd0", b"\x81\x7e"),
    "GB18030": (b"\x81\x5c", b"\xd6\xd0", b"\x81\x30\x84\x36"),
    "UHC": (b"\xb0\xa1", b"\x81\x41"),
    "EUC_JP": (b"\xa4\xa2", b"\x8e\xb1"),
    "LATIN1": (b"\xe4", b"\xff"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(client: "psycopg.Connection[tuple[object, ...]]", encoding: str) -> None:
    """A byte that looks like a backslash, or like a letter, is a part of a character."""
    client.execute(f"SET client_encoding = {encoding}".encode())
    random_ = random.Random(encoding)
    for _ in range(TEXTS // 4):
        letters = [b"".join(random_.choice(ENCODINGS[encoding]) for _ in range(random_.randint(1, 3))) for _ in range(3)]
        text = b"select '%b', E'%b\\\\'; select $a$%b$a$" % tuple(letters)
        answer = seen(client, text)
        found = lexed(client, text)
        assert answer is not None, text
        assert found is not None, text
        assert len(list(found.statements())) == len(answer) == 2, text
        assert found.words.count(b",") == len(answer[0]) - 1, text


def test_a_vertical_tab_is_white_space_where_the_server_says_so(client: "psycopg.Connection[tuple[object, ...]]") -> None:
    text = b"select\v'a'\v\n\v'b' as\vx;\vselect 1"
    assert (lexed(client, text) is not None) == (seen(client, text) is not None) == (client.info.server_version >= 160000)
