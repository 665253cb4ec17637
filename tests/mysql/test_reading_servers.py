"""Does the lexer see what the servers see? Random texts, under the settings by which texts are read; and sqlglot's tokenizer beside it."""

import random
from typing import Any, Final

import pymysql
import pytest
import sqlglot
from pymysql.constants import CLIENT
from sqlglot.tokens import TokenType

from dualpool.mysql.functions import EVERYWHERE, UNQUOTED
from dualpool.mysql.reading import _FUNCTIONS, _Reader, flavour
from dualpool.sql_text import MYSQL, QUOTED, SIGN, STRING, Lexed, lex, lexis, mysql_lexis
from tests.helpers.servers import MySQLServer

ITEMS: Final = [
    b"1", b"1.5", b".5", b"1e3", b"0x1F", b"x'41'", b"b'1'", b"n'x'", b"'a'", b"'it''s'", b"'a\\'", b"'a\\\\'", b"'\\''", b"''",
    b"'--'", b"';'", b"'/*'", b'"x"', b'"it""s"', b'"a\\"', b'";"', b"@a", b"@`b;`", b"@'c'", b'@"d"', b"@a.b$c", b"@@sql_mode",
    b"@@session.sql_mode", b"hex('\xbf\x5c')", b"hex('\x83\x5c')", b"hex('\xbf')", b"'\xbf'", b"'\xc3\xa9'", b"1 AS `a;b`",
    b"1 AS `a``b`", b"1 AS `\\`", b"1 AS `\xc3\xa9`", b"1 AS \xc3\xa9", b"(1)", b"(SELECT 1)", b"NULL", b"IF(1,2,3)",
    b"2*/* , */3", b"2/*! , 4 */", b"2/*!50000 , 4 */", b"1--1", b"1 -- x\n", b"1 # ;\n", b"1 --\x01;\n", b"1/*+ x */",
    b"_utf8'x'", b"'a' 'b'", b"1 AS a1", b"-1", b"1,2,3,4", b"('a'),('b')",
]  # fmt: skip
BETWEEN: Final = [b",", b",", b",", b" , ", b";SELECT ", b"; SELECT ", b",/* ; */", b" -- ;\n,", b"#'\n,", b"\n,"]
SETTINGS: Final = [
    ("utf8mb4", ""), ("utf8mb4", "NO_BACKSLASH_ESCAPES"), ("utf8mb4", "ANSI_QUOTES"), ("latin1", ""), ("gbk", ""), ("sjis", ""),
    ("big5", ""),
    ("gbk", "NO_BACKSLASH_ESCAPES"), ("cp932", "ANSI_QUOTES"), ("ujis", ""), ("euckr", ""), ("gb2312", ""),
]  # fmt: skip
TEXTS: Final = 150
"""For each of the settings."""


def soup(rng: random.Random) -> bytes:
    parts = [b"SELECT ", rng.choice(ITEMS)]
    for _ in range(rng.randrange(6)):
        parts += [rng.choice(BETWEEN), rng.choice(ITEMS)]
    return b"".join(parts)


def counted(connection: "pymysql.connections.Connection[Any]", text: bytes) -> list[int] | None:
    """How many columns each result has; None for a text that the server refuses."""
    found: list[int] = []
    try:
        connection.query(text)
        found.append(connection._result.field_count)  # type: ignore[attr-defined]
        while connection._result.has_next:  # type: ignore[attr-defined]
            connection.next_result()
            found.append(connection._result.field_count)  # type: ignore[attr-defined]
    except (pymysql.err.MySQLError, UnicodeDecodeError):
        connection.close()
        connection.connect()
        return None
    return found


def read(lexed: Lexed) -> list[int]:
    """The same as the lexer sees it: literals that stand in a list are one comma there, so they are counted in its bytes."""
    reader = _Reader(lexed, lexis(MYSQL))
    found = []
    for first, last in reader._statements():
        items = 1
        depth = 0
        for index in range(first, last):
            if lexed.kinds[index] == SIGN:
                word = lexed.words[index]
                depth += (word == b"(") - (word == b")")
                if word == b"," and depth == 0:
                    listed = lexed.source[lexed.starts[index] : lexed.ends[index]]
                    items += listed.count(b",") if listed != b"," else 1
        found.append(items)
    return found


@pytest.mark.parametrize(("charset", "modes"), SETTINGS)
def test_the_server_sees_the_same_statements_and_columns(mysql_server: MySQLServer, charset: str, modes: str) -> None:
    rng = random.Random(f"{charset} {modes}")
    reading = mysql_lexis(charset, modes)
    setup = f"SET NAMES {charset}, sql_mode = '{modes}', character_set_results = 'binary'"
    with mysql_server.connect(
        user=mysql_server.admin_user, password=mysql_server.admin_password, client_flag=CLIENT.MULTI_STATEMENTS, init_command=setup
    ) as connection:
        compared = 0
        for _ in range(TEXTS):
            text = soup(rng)
            lexed = lex(text, reading) if reading is not None else None
            seen = counted(connection, text)
            if lexed is not None and seen is not None:
                assert read(lexed) == seen, text
                compared += 1
    assert compared > TEXTS / 10


def test_sqlglot_sees_the_same_strings_and_names() -> None:
    rng = random.Random(7)
    reading = mysql_lexis("utf8mb4", "")
    words = [
        b"'a'",
        b"'it''s'",
        b"'a\\'b'",
        b'"x"',
        b"`a``b`",
        b"`;`",
        b"a.b",
        b",",
        b";",
        b"(",
        b")",
        b"/* ; */",
        b"-- x\n",
        b"1",
        b"@a",
        b"'\xc3\xa9'",
    ]
    for _ in range(500):
        text = b" ".join(rng.choice(words) for _ in range(rng.randrange(12)))
        lexed = lex(text, reading) if reading is not None else None
        assert lexed is not None
        tokens = sqlglot.tokenize(text.decode(), read="mysql")
        assert [word for kind, word in zip(lexed.kinds, lexed.words, strict=True) if kind == QUOTED] == [
            token.text.encode() for token in tokens if token.token_type == TokenType.IDENTIFIER
        ]
        assert lexed.kinds.count(STRING) == sum(token.token_type == TokenType.STRING for token in tokens)
        ends = [kind for kind, word in zip(lexed.kinds, lexed.words, strict=True) if word == b";" and kind == SIGN]
        assert len(ends) == sum(token.token_type == TokenType.SEMICOLON for token in tokens)


@pytest.mark.parametrize("quoted", [False, True])
def test_no_word_of_the_list_is_the_name_of_a_user_s_function(mysql_server: MySQLServer, quoted: bool) -> None:
    """Each is the server's own, or no name at all: else the server would look for a function of that name, and find none."""
    own: list[str] = []
    with (
        mysql_server.temporary_database() as database,
        mysql_server.connect(
            user=mysql_server.admin_user, password=mysql_server.admin_password, database=database, charset="utf8mb4"
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT VERSION()")
        [(version,)] = cursor.fetchall()
        words = _FUNCTIONS.get(flavour(version), EVERYWHERE)
        for word in sorted(words - UNQUOTED if quoted else words):
            try:
                cursor.execute(f"SELECT `{word.decode()}`()" if quoted else f"SELECT {word.decode()}()")
                cursor.fetchall()
            except pymysql.err.MySQLError as error:
                if error.args[0] in (1305, 1630):
                    own.append(word.decode())
    assert own == []
    assert not words & {b"get_lock", b"release_lock", b"release_all_locks", b"last_insert_id", b"nextval", b"lastval", b"setval"}
