"""MariaDB from the packages of Debian and Ubuntu, unpacked into the cache: nothing is installed, and no root is needed."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Final

from dualpool.dev.embedded import DevError
from dualpool.dev.folders import OURSELVES, cache_dir, make_folder
from dualpool.dev.mysql_server import HOW_TO_INSTALL, Installation, fetched_installation

PACKAGE: Final = "mariadb-server-core"
DOWNLOAD_SECONDS: Final = 600


def fetch_mariadb(root: Path | None = None, installed: Set[str] | None = None) -> Installation:
    """Download `mariadb-server-core` and the libraries that the machine lacks, and unpack them below `root`. Raises DevError.

    `installed`: the packages that need not be fetched; by default those that are installed. Only signed packages of the machine's own
    sources are taken, as always with apt.
    """
    root = root or cache_dir() / "mariadb"
    if (found := fetched_installation(root)) is not None:
        return found
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise DevError("MariaDB can be fetched on Debian and Ubuntu only", hint=HOW_TO_INSTALL)
    make_folder(root.parent, OURSELVES, 0o755)
    scratch = Path(tempfile.mkdtemp(dir=root.parent, prefix=".mariadb-"))
    try:
        files = _unpack(_download(scratch, _installed_packages() if installed is None else installed), scratch)
        files.rename(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if (found := fetched_installation(root)) is None:
        raise DevError(f"the package {PACKAGE} holds no server in {root}", hint=HOW_TO_INSTALL)
    return found


def _download(scratch: Path, installed: Set[str]) -> list[Path]:
    """The packages as files. Where the machine has no package lists (fresh containers), lists of our own are made first."""
    options: list[str] = []
    try:
        needed = _needed_packages(options)
    except DevError:
        options = ["-o", f"Dir::State::lists={scratch / 'lists'}", "-o", f"Dir::Cache={scratch / 'apt'}"]
        (scratch / "lists" / "partial").mkdir(parents=True)
        (scratch / "apt" / "archives" / "partial").mkdir(parents=True)
        _apt(["update"], options, scratch)
        needed = _needed_packages(options)
    folder = make_folder(scratch / "packages", OURSELVES)
    _apt(["download", *(name for name in needed if name == PACKAGE or name not in installed)], options, folder)
    return sorted(folder.glob("*.deb"))


def _unpack(packages: list[Path], scratch: Path) -> Path:
    files = make_folder(scratch / "files", OURSELVES, 0o755)
    for package in packages:
        _run(["dpkg", "-x", str(package), str(files)], scratch)
    return files


def _needed_packages(options: Sequence[str]) -> list[str]:
    """`mariadb-server-core` and all that it depends on, as if nothing were installed: then a half-broken machine is no obstacle."""
    nothing_installed = ["-o", "Dir::State::status=/dev/null"]
    plan = _apt(["install", "--simulate", "--no-install-recommends", PACKAGE], [*options, *nothing_installed], Path("/"))
    return [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]


def _installed_packages() -> set[str]:
    listed = _run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\\n"], Path("/"))
    return {line.split()[1] for line in listed.splitlines() if line.startswith("ii ")}


def _apt(arguments: Sequence[str], options: Sequence[str], folder: Path) -> str:
    # Root's downloads would go through the user _apt, who cannot write to our folder.
    fixed = ["-q", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]
    return _run(["apt-get", *fixed, *options, *arguments], folder)


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=DOWNLOAD_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DevError(f"{command[0]} failed: {error}", hint=HOW_TO_INSTALL) from error
    if done.returncode != 0:
        raise DevError(f"{command[0]} failed: {done.stderr.strip()}", hint=HOW_TO_INSTALL)
    return done.stdout
