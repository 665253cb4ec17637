"""`dualpool config import`."""

import os
from pathlib import Path

import click

from dualpool.config.importers import import_file


def import_to(output: Path | None, source: Path, kind: str) -> None:
    """Print or write what `source` says, and tell what is not in it. Raises ConfigError if it says nothing that could run."""
    imported = import_file(source, kind)
    text = imported.toml()
    if output is None:
        click.echo(text, nl=False)
    else:
        write_private(output, text)
    for note in imported.notes:
        click.echo(f"{source}: {note}", err=True)
    # Told last, and with the result at hand: a certificate may just not be on this machine.
    config = imported.config()
    if output is not None:
        click.echo(f"{output}: {config.summary()}", err=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that holds passwords, so that only its owner can read it."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
