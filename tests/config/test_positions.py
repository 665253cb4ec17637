"""The lines of keys and values, on odd files and on generated ones."""

import textwrap

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from dualpool.config.positions import Path, Positions

ODD = textwrap.dedent(
    '''\
    # a comment with [brackets] and key = "value"
    top = "a # that is no comment = nor a key"   # but this is
    "quoted.key" = 1
    'single = quoted' = 2

    [a.b . "c.d"] # header
    x.y.z = 1
    multi = """
    [not.a.table]
    not_a_key = 1 \\""" still inside
    """
    literal = \'\'\'
    '' [nor.this]
    \'\'\'
    quotes = """""two inside"""""
    list = [
      "one", # ]
      [2,
       3],

      { in = "side",
        other = 4 },
    ]
    after = 1
    inline = { u = { v = [1, 2] }, w.x = '}' }
    date = 1979-05-27 07:32:00
    "\\u00e9\\t" = 1

    [[tables]]
    n = 1
    [tables.sub]
    s = 1
    [[tables]]
    n = 2
      [[tables.deep]]
      m = 3
    [a]
    late = 1
    '''
)

LINES = [
    (("top",), 2),
    (("quoted.key",), 3),
    (("single = quoted",), 4),
    (("a", "b", "c.d"), 6),
    (("a", "b", "c.d", "x"), 7),
    (("a", "b", "c.d", "x", "y", "z"), 7),
    (("a", "b", "c.d", "multi"), 8),
    (("a", "b", "c.d", "literal"), 12),
    (("a", "b", "c.d", "quotes"), 15),
    (("a", "b", "c.d", "list"), 16),
    (("a", "b", "c.d", "list", 0), 17),
    (("a", "b", "c.d", "list", 1), 18),
    (("a", "b", "c.d", "list", 1, 1), 19),
    (("a", "b", "c.d", "list", 2), 21),
    (("a", "b", "c.d", "list", 2, "in"), 21),
    (("a", "b", "c.d", "list", 2, "other"), 22),
    (("a", "b", "c.d", "after"), 24),
    (("a", "b", "c.d", "inline", "u", "v", 1), 25),
    (("a", "b", "c.d", "inline", "w", "x"), 25),
    (("a", "b", "c.d", "date"), 26),
    (("a", "b", "c.d", "\u00e9\t"), 27),
    (("tables",), 29),
    (("tables", 0), 29),
    (("tables", 0, "n"), 30),
    (("tables", 0, "sub"), 31),
    (("tables", 0, "sub", "s"), 32),
    (("tables", 1), 33),
    (("tables", 1, "n"), 34),
    (("tables", 1, "deep", 0), 35),
    (("tables", 1, "deep", 0, "m"), 36),
    (("a", "late"), 38),
]


@pytest.mark.parametrize(("path", "line"), LINES, ids=[str(path) for path, _ in LINES])
def test_line_in_an_odd_file(path: Path, line: int) -> None:
    assert Positions(ODD).lines[path] == line


def test_odd_file_with_crlf() -> None:
    positions = Positions(ODD.replace("\n", "\r\n"))
    assert [positions.lines[path] for path, _ in LINES] == [line for _, line in LINES]


def test_missing_key_is_at_its_table() -> None:
    assert Positions(ODD).line(("a", "b", "c.d", "missing", "deeper")) == 6
    assert Positions(ODD).line(("missing",)) == 1


def test_table_named_only_by_its_children_is_where_its_first_child_is() -> None:
    assert Positions("\n[a.b]\n[a]\nx = 1\n").lines[("a",)] == 3
    assert Positions("\n[a.b.c]\nx = 1\n").lines[("a", "b")] == 2


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("a = 1\nb = 2\na = 3\n", [(("a",), 3)]),
        ("[t]\nx = 1\n[t.u]\ny = 1\n", []),
        ("[t]\nx = { y = 1,\n y = 2 }\n", [(("t", "x", "y"), 3)]),
        ("[[t]]\nx = 1\n[[t]]\nx = 1\n", []),
    ],
)
def test_keys_given_twice(text: str, repeated: list[tuple[Path, int]]) -> None:
    assert Positions(text).repeated == repeated


def paths(value: object, path: Path = ()) -> list[Path]:
    """Every path of a parsed document."""
    if isinstance(value, dict):
        children = [paths(item, (*path, key)) for key, item in value.items()]
    elif isinstance(value, list):
        children = [paths(item, (*path, index)) for index, item in enumerate(value)]
    else:
        children = []
    return [path, *(found for child in children for found in child)]


def test_finds_what_tomlkit_finds() -> None:
    assert set(Positions(ODD).lines) == set(paths(tomlkit.parse(ODD).unwrap()))


texts = st.text(st.sampled_from("ab #='\"[]{}.,\\\n\té"), max_size=8)
bare_keys = st.text(st.sampled_from("abc-_12"), min_size=1, max_size=3)


def basic(text: str) -> str:
    """A one-line string."""
    return tomlkit.string(text).as_string()


def spread(text: str) -> str:
    """A string over several lines."""
    return tomlkit.string(text, multiline=True).as_string()


keys = bare_keys | texts.map(basic)
scalars = st.sampled_from(["1", "-2.5", "true", "1979-05-27T07:32:00Z", "0xff"]) | texts.map(basic) | texts.map(spread)
gaps = st.sampled_from(["", " ", "\n", " # it's [a] = {comment}\n  "])
flat = bare_keys.map(lambda key: f"{key} = 1")
values = st.recursive(
    scalars,
    lambda inner: (
        st.builds(lambda items, gap: "[" + gap + ("," + gap).join(items) + gap + "]", st.lists(inner, max_size=3), gaps)
        | inner.map(lambda value: "{ k.l = " + value + ", 'm' = 2 }")
    ),
    max_leaves=4,
)
statements = st.builds(lambda key, value, end: f"{key} = {value}{end}", keys, values, st.sampled_from(["\n", "  # = [x]\n\n"]))
headers = st.builds(
    lambda parts, form: form.format(" . ".join(parts)), st.lists(keys, min_size=1, max_size=3), st.sampled_from(["[{}]\n", "[[{}]]\n"])
)
documents = st.lists(statements | headers, max_size=8).map("".join)


@given(documents)
def test_finds_every_path_of_what_tomlkit_parses(text: str) -> None:
    try:
        parsed = tomlkit.parse(text).unwrap()
    except Exception:
        Positions(text)
        return
    positions = Positions(text)
    assert set(paths(parsed)) <= set(positions.lines)
    lines = text.split("\n")
    for path, line in positions.lines.items():
        if path and isinstance(path[-1], str) and path[-1].isalnum():
            assert path[-1] in lines[line - 1]


@given(st.text(st.sampled_from("ab=.,[]{}\"'#\\\n u"), max_size=40))
def test_garbage_neither_raises_nor_hangs(text: str) -> None:
    assert Positions(text).lines[()] == 1
