"""`${NAME}` and `${NAME:-default}` in strings. `$${` stands for `${`; any other dollar is a dollar (verifiers are full of them)."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

VARIABLE: Final = re.compile(r"\$(?P<escape>\$\{)|\$\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?(?P<end>\})?")
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Expanded(str):
    """A string that held a variable: where a number or true/false is wanted, its text may stand for it."""

    __slots__ = ()


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`text` with its variables replaced. Raises ValueError that names an unset variable.

    In the user and password of a URL the value is percent-encoded on the way in, so that it comes out of the URL as it was.
    """
    if "${" not in text:
        return text
    literal = literal_span(text)
    check_variables(text, environ)

    def replacement(match: re.Match[str]) -> str:
        if match["escape"]:
            return "${"
        value = environ.get(match["name"]) or match["default"] or ""
        return quote(value, safe="") if match.start() in literal else value

    return Expanded(VARIABLE.sub(replacement, text))


def check_variables(text: str, environ: Mapping[str, str]) -> None:
    """Raise ValueError unless every variable is well written, and set or has a default (used for an empty one too, as in a shell)."""
    unset: list[str] = []
    for match in VARIABLE.finditer(text):
        if match["escape"]:
            continue
        if not match["end"] or not NAME.match(match["name"]):
            raise ValueError("a variable is written ${NAME} or ${NAME:-default}; $${ stands for ${ itself")
        if match["default"] is None and match["name"] not in environ and match["name"] not in unset:
            unset.append(match["name"])
    if len(unset) == 1:
        raise ValueError(f"the environment variable {unset[0]} is not set; set it, or give a default: ${{{unset[0]}:-...}}")
    if unset:
        raise ValueError(f"the environment variables {', '.join(unset)} are not set")


def literal_span(text: str) -> range:
    """Where in `text` the user and password of a URL are; empty if it is no URL, or a variable holds all of it."""
    masked = VARIABLE.sub(lambda match: "x" * len(match[0]), text)
    scheme = masked.find("://")
    if scheme < 0 or text[: scheme + 3] != masked[: scheme + 3]:
        return range(0)
    start = scheme + 3
    end = min((at for at in (masked.find(mark, start) for mark in "/?") if at >= 0), default=len(masked))
    return range(start, max(start, masked.rfind("@", start, end)))
