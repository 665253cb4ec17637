"""The shape of the package: siblings with the same files, imports that point downward, hot modules that mypyc could compile."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).resolve().parents[1] / "dualpool"
ENGINES: Final = ("postgres", "mysql")
REGISTRY: Final = "dualpool.engines"
"""The one module outside the engines that may name them."""

HOT: Final = frozenset({"reactor", "transport", "link", "buffer", "protocol"})
HOT_IN_ENGINE: Final = frozenset(
    {
        *("wire", "codec", "states", "statements", "requests"),
        *("server_session", "server_relay", "client_session", "client_sending", "client_relay"),
    }
)
ENGINE_FILES: Final = HOT_IN_ENGINE | {"__init__", "messages", "auth", "frontend", "backend", "sql", "session_sql", "cancel", "console"}
OF_ONE_ENGINE: Final = {
    "postgres": frozenset({"beginning", "catalog", "functions", "lexical", "own_names", "reading"}),
    "mysql": frozenset({"reading", "functions", "knowledge", "defaults", "shapes"}),
}
"""A subject that only one engine has is a file that only one has."""

PLAIN_DEPENDENCIES: Final = frozenset({"__future__", "typing_extensions", "pymysql"}) | (sys.stdlib_module_names - {"asyncio"})
"""What hot modules may use from outside. pymysql: its constants and character sets."""
COLD: Final = ("dualpool.config", "dualpool.admin", "dualpool.cli", "dualpool.dev")
USED_ONLY_BY: Final = {
    "dualpool.cli": ("dualpool.cli", "dualpool.__main__"),
    "dualpool.dev": ("dualpool.dev", "dualpool.cli"),
    "dualpool.server": ("dualpool.server", "dualpool.cli", "dualpool.dev", "dualpool.admin"),
}
"""The top of the tree: package -> who may import it."""


# ------------------------------------------------------------------------------------------------------------- the checker


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def is_hot(name: str) -> bool:
    parts = name.split(".")[1:]
    return (len(parts) == 1 and parts[0] in HOT) or (len(parts) == 2 and parts[0] in ENGINES and parts[1] in HOT_IN_ENGINE)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def executed(node: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    """The nodes below `node` that run: not what is under TYPE_CHECKING, and functions' bodies only if wanted."""
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.If) and is_type_checking(node) and child not in node.orelse:
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not into_functions:
            continue
        yield child
        yield from executed(child, into_functions=into_functions)


def imports(source: str, name: str, *, into_functions: bool = True) -> set[str]:
    """The names of the modules that a module imports when it runs; `from a import b` counts as both `a` and `a.b`."""
    found: set[str] = set()
    for node in executed(ast.parse(source), into_functions=into_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*name.split(".")[: -node.level], *([base] if base else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def cold_dependencies(sources: dict[str, str], name: str) -> set[str]:
    """What a hot module needs, directly or through others of ours, that hot modules must not need."""
    seen, waiting, bad = {name}, [name], set()
    while waiting:
        current = waiting.pop()
        for needed in imports(sources[current], current):
            if needed.partition(".")[0] == "dualpool":
                if any(within(needed, package) for package in COLD):
                    bad.add(f"{current} imports {needed}")
                elif needed in sources and needed not in seen and needed != "dualpool" and not is_package_of(needed, name):
                    seen.add(needed)
                    waiting.append(needed)
            elif needed.partition(".")[0] not in PLAIN_DEPENDENCIES:
                bad.add(f"{current} imports {needed}")
    return bad


def is_package_of(package: str, name: str) -> bool:
    """`from dualpool.postgres import wire` runs the package's __init__ too, but that is how every import of its modules begins."""
    return name.startswith(package + ".")


def engine_imports(source: str, name: str) -> set[str]:
    """Imports of an engine by whoever must not know that it exists."""
    bad = set()
    for needed in imports(source, name):
        for engine in ENGINES:
            package = f"dualpool.{engine}"
            if within(needed, package) and not within(name, package) and name != REGISTRY:
                bad.add(f"{name} imports {needed}")
    return bad


def upward_imports(source: str, name: str) -> set[str]:
    """Imports of the top of the tree by what is below it."""
    return {
        f"{name} imports {needed}"
        for needed in imports(source, name)
        for package, allowed in USED_ONLY_BY.items()
        if within(needed, package) and not any(within(name, user) for user in allowed)
    }


def import_cycle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of modules that import each other, or [] if there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for needed in sorted(graph[name]):
            if circle := visit(needed, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(graph) if (circle := visit(name, []))), [])


def is_error(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).rpartition(".")[2].endswith(("Exception", "Error")) for base in node.bases)


def has_slots(node: ast.ClassDef) -> bool:
    return any(isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__slots__" for line in node.body)


def stores_attributes(node: ast.ClassDef) -> bool:
    stores = (part for part in ast.walk(node) if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store))
    return any(isinstance(part.value, ast.Name) and part.value.id == "self" for part in stores)


def is_engine(node: ast.ClassDef) -> bool:
    """Engine and what derives from it: one object for each protocol, with class attributes and no state of its own."""
    names = {node.name, *(ast.unparse(base) for base in node.bases)}
    return "Engine" in names and not stores_attributes(node)


def not_plain(source: str) -> list[str]:
    """What in a hot module mypyc could not compile, or would compile into something slow without a word."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and not (is_error(node) or is_engine(node) or has_slots(node)):
            found.append(f"class {node.name} has no __slots__")
        if isinstance(node, ast.ClassDef) and node.keywords:
            found.append(f"class {node.name} has a metaclass or class keywords")
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.decorator_list:
            found.append(f"{node.name} is decorated")
        if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None:
            found.append(f"{node.name}() takes **{node.args.kwarg.arg}")
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            found.append(f"line {node.lineno}: async")
    return found


# -------------------------------------------------------------------------------------------------- the package obeys it

MODULES: Final = modules()
SOURCES: Final = {name: path.read_text() for name, path in MODULES.items()}
HOT_MODULES: Final = sorted(filter(is_hot, MODULES))


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_have_the_same_files(engine: str) -> None:
    assert {path.stem for path in (PACKAGE / engine).glob("*.py")} == ENGINE_FILES | OF_ONE_ENGINE[engine]


def test_every_hot_module_is_there() -> None:
    expected = {f"dualpool.{name}" for name in HOT} | {f"dualpool.{engine}.{name}" for engine in ENGINES for name in HOT_IN_ENGINE}
    assert set(HOT_MODULES) == expected


@pytest.mark.parametrize("name", HOT_MODULES)
def test_hot_modules_need_nothing_cold(name: str) -> None:
    assert cold_dependencies(SOURCES, name) == set()


@pytest.mark.parametrize("name", HOT_MODULES)
def test_hot_modules_are_plain(name: str) -> None:
    assert not_plain(SOURCES[name]) == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_only_the_registry_names_an_engine(name: str) -> None:
    assert engine_imports(SOURCES[name], name) == set()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downward(name: str) -> None:
    assert upward_imports(SOURCES[name], name) == set()


def test_no_modules_import_each_other() -> None:
    graph = {
        name: {needed for needed in imports(source, name, into_functions=False) & SOURCES.keys() if not is_package_of(needed, name)}
        - {name}
        for name, source in SOURCES.items()
    }
    assert import_cycle(graph) == []


# ------------------------------------------------------------------------------------------------ the checker finds what it must


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class A:\n    __slots__ = ()\n", []),
        ("class AError(Exception):\n    pass\n", []),
        ("class Engine:\n    name: str = ''\n", []),
        ("class Engine:\n    def __init__(self): self.x = 1\n", ["class Engine has no __slots__"]),
        ("class A:\n    def __init__(self): self.x = 1\n", ["class A has no __slots__"]),
        ("class A(B):\n    pass\n", ["class A has no __slots__"]),
        ("class A(metaclass=M):\n    __slots__ = ()\n", ["class A has a metaclass or class keywords"]),
        ("@final\nclass A:\n    __slots__ = ()\n", ["A is decorated"]),
        ("class A:\n    __slots__ = ()\n    @property\n    def x(self): return 1\n", ["x is decorated"]),
        ("def f(*args, **options): pass\n", ["f() takes **options"]),
        ("async def f(): pass\n", ["line 1: async"]),
    ],
)
def test_what_is_not_plain(source: str, found: list[str]) -> None:
    assert not_plain(source) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import trio.lowlevel", {"trio.lowlevel"}),
        ("from dualpool.a import b", {"dualpool.a", "dualpool.a.b"}),
        ("from . import b", {"dualpool.x", "dualpool.x.b"}),
        ("from ..a import b", {"dualpool.a", "dualpool.a.b"}),
        ("def f():\n    import trio", {"trio"}),
        ("try:\n    import trio\nexcept ImportError:\n    pass", {"trio"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trio", {"typing", "typing.TYPE_CHECKING"}),
        ("import typing\nif typing.TYPE_CHECKING:\n    import trio\nelse:\n    import attrs", {"typing", "attrs"}),
    ],
)
def test_what_counts_as_an_import(source: str, found: set[str]) -> None:
    assert imports(source, "dualpool.x.y") == found


def test_imports_inside_functions_can_be_left_out() -> None:
    assert imports("def f():\n    import trio", "dualpool.x", into_functions=False) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import struct\nfrom pymysql.constants import COMMAND", set()),
        ("import trio", {"dualpool.link imports trio"}),
        ("from dualpool.middle import f", {"dualpool.middle imports attrs"}),
        ("from dualpool.config import Config", {"dualpool.link imports dualpool.config", "dualpool.link imports dualpool.config.Config"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dualpool.middle import f", set()),
    ],
)
def test_what_is_cold(source: str, found: set[str]) -> None:
    sources = {"dualpool.link": source, "dualpool.middle": "import attrs\nimport dualpool.link"}
    assert cold_dependencies(sources, "dualpool.link") == found


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("dualpool.engines", "import dualpool.mysql", set()),
        ("dualpool.mysql.codec", "from dualpool.mysql import wire", set()),
        ("dualpool.mysql.codec", "import dualpool.postgres.wire", {"dualpool.mysql.codec imports dualpool.postgres.wire"}),
        ("dualpool.session", "import dualpool.mysql", {"dualpool.session imports dualpool.mysql"}),
    ],
)
def test_who_may_name_an_engine(name: str, source: str, found: set[str]) -> None:
    assert engine_imports(source, name) == found


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("dualpool.cli.dev", "import dualpool.dev.command", set()),
        ("dualpool.pool", "import dualpool.server", {"dualpool.pool imports dualpool.server"}),
        ("dualpool.dev.command", "import dualpool.cli", {"dualpool.dev.command imports dualpool.cli"}),
    ],
)
def test_what_is_upward(name: str, source: str, found: set[str]) -> None:
    assert upward_imports(source, name) == found


def test_a_circle_of_imports_is_found() -> None:
    assert import_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert import_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
