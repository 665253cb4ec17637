"""The command line. No logic here: each command reads its options and calls the part of dualpool that does the work."""

from dualpool.cli.commands import main

__all__ = ["main"]
