"""The command line: what it calls, what it prints, and how it fails."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from dualpool import __version__
from dualpool.cli import main
from dualpool.cli.version import version_text
from dualpool.config import Config
from dualpool.config.reference import reference, schema_text
from dualpool.errors import ConnectFailed

ROOT = Path(__file__).parents[2]
GOOD = """\
[listeners.pg]
protocol = "postgres"
bind = "127.0.0.1:6543"
[backends.main]
url = "postgresql://u:p@127.0.0.1?channel_binding=require"
[databases.app]
backend = "main"
[users.app]
password = "secret"
"""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Server(ModuleType):
    """Stands where dualpool.server is: notes what it is called with, and ends as it is told."""

    def __init__(self) -> None:
        super().__init__("dualpool.server")
        self.calls: list[tuple[Config, Path | None]] = []
        self.ends: int | BaseException = 0

    def main(self, config: Config, path: Path | None) -> int:
        self.calls.append((config, path))
        if isinstance(self.ends, BaseException):
            raise self.ends
        return self.ends


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setitem(sys.modules, "dualpool.server", server)
    return server


def commands(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    """Every command by its path."""
    found: list[tuple[str, ...]] = [path]
    for name, command in group.commands.items():
        found += commands(command, *path, name) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_everywhere(path: tuple[str, ...], option: str) -> None:
    result = invoke(*path, option)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")


def test_run_with_a_file(folder: Path, server: Server) -> None:
    Path("x.toml").write_text(GOOD)
    for arguments in (["x.toml"], ["-c", "x.toml"]):
        assert invoke("run", *arguments).exit_code == 0
    assert [path for _, path in server.calls] == [Path("x.toml")] * 2
    assert server.calls[0][0].backends["main"].user == "u"


def test_run_with_the_file_of_this_folder(folder: Path, server: Server) -> None:
    Path("dualpool.toml").write_text(GOOD)
    server.ends = 3
    assert invoke("run").exit_code == 3
    assert server.calls[0][1] == Path("dualpool.toml")


def test_run_with_urls(folder: Path, server: Server) -> None:
    result = invoke("run", "--postgres", "postgresql://u:p@h/d", "--mysql", "mysql://h", "--bind-mysql", "127.0.0.1:0")
    assert result.exit_code == 0
    ((config, path),) = server.calls
    assert path is None
    assert [str(listener.bind[0]) for listener in config.listeners.values()] == ["127.0.0.1:6543", "127.0.0.1:0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.toml", "-c", "x.toml"], "The configuration file is given twice."),
        (["x.toml", "--mysql", "mysql://h"], "Either a configuration file or URLs with their binds, not both."),
        (["--bind-mysql", "h:1"], "--bind-postgres and --bind-mysql go with --postgres and --mysql."),
        ([], "there is no dualpool.toml here; name a configuration file, or a server: dualpool run --postgres URL"),
        (["x.toml"], "x.toml: No such file or directory"),
        (["--mysql", "h"], "--mysql: must be a URL that starts with postgresql:// or mysql://"),
    ],
)
def test_run_that_cannot_start(folder: Path, server: Server, arguments: list[str], message: str) -> None:
    result = invoke("run", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert server.calls == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectFailed("no answer", hint="Is it running?"), "no answer\nIs it running?\n"),
        (OSError(98, "Address already in use"), "dualpool: [Errno 98] Address already in use\n"),
        (ExceptionGroup("", [ConnectFailed("one"), ExceptionGroup("", [ConnectFailed("two"), ConnectFailed("one")])]), "one\ntwo\n"),
    ],
)
def test_expected_errors_are_messages(folder: Path, server: Server, error: Exception, message: str) -> None:
    server.ends = error
    result = invoke("run", "--mysql", "mysql://h")
    assert (result.exit_code, result.stderr) == (1, message)


def test_bugs_keep_their_traceback(folder: Path, server: Server) -> None:
    server.ends = ExceptionGroup("", [ConnectFailed("one"), ZeroDivisionError()])
    assert invoke("run", "--mysql", "mysql://h").exception is server.ends


def test_check(folder: Path) -> None:
    Path("dualpool.toml").write_text(GOOD)
    result = invoke("config", "check")
    assert (result.exit_code, result.stdout) == (0, "dualpool.toml: ok (1 listener, 1 backend, 1 database, 1 user)\n")
    assert result.stderr.startswith("warning: dualpool.toml:5:")


def test_check_tells_every_mistake(folder: Path) -> None:
    Path("x.toml").write_text(GOOD.replace("backend =", "backnd =").replace('bind = "127', 'bind = "x127').replace("url", "ulr"))
    result = invoke("config", "check", "x.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "x.toml:4: backends.main.url: is required",
        "x.toml:5: backends.main.ulr: unknown key; did you mean url?",
        "x.toml:6: databases.app.backend: is required",
        "x.toml:7: databases.app.backnd: unknown key; did you mean backend?",
    ]


def test_reference_and_schema() -> None:
    assert invoke("config", "reference").stdout == reference()
    assert invoke("config", "schema").stdout == schema_text()


def test_url(folder: Path) -> None:
    Path("x.toml").write_text(GOOD)
    plain = invoke("config", "url", "-c", "x.toml", "app")
    assert plain.stdout == "postgresql://app@127.0.0.1:6543/app  # listeners.pg, transaction mode\n"
    shown = invoke("config", "url", "-c", "x.toml", "app", "--show-password")
    assert shown.stdout.startswith("postgresql://app:secret@127.0.0.1:6543/app ")
    unknown = invoke("config", "url", "-c", "x.toml", "ap")
    assert (unknown.exit_code, unknown.stderr) == (2, "no listener serves a database 'ap'; did you mean app?\n")


def test_version() -> None:
    text = invoke("version").stdout
    assert text == version_text() + "\n"
    assert text.startswith(f"dualpool {__version__}, ")
    assert text.rstrip().endswith(("pure Python", "compiled"))


def python_m_dualpool(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """dualpool as a user runs it."""
    command = [sys.executable, "-m", "dualpool", *arguments]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=180, check=False)


def test_as_a_process(tmp_path: Path) -> None:
    fine = python_m_dualpool("config", "check", str(ROOT / "conf/dualpool.toml"), folder=tmp_path)
    assert (fine.returncode, fine.stderr) == (0, "")
    broken = python_m_dualpool("run", folder=tmp_path)
    assert (broken.returncode, broken.stdout) == (2, "")
    assert broken.stderr.count("\n") == 1
    assert "Traceback" not in broken.stderr
