"""What is running."""

import platform
from importlib.machinery import SOURCE_SUFFIXES
from importlib.util import find_spec

from dualpool import __version__


def version_text() -> str:
    """One line: dualpool's version, Python's, and which build of the hot modules would be loaded."""
    return f"dualpool {__version__}, {platform.python_implementation()} {platform.python_version()}, {build()}"


def build() -> str:
    """`pure Python`, or `compiled` if dualpool.link comes from an extension module."""
    spec = find_spec("dualpool.link")
    origin = spec.origin if spec is not None else None
    pure = origin is None or origin.endswith(tuple(SOURCE_SUFFIXES))
    return "pure Python" if pure else "compiled"
