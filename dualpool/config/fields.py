"""How a configuration key is declared: its default, what it means, what it may be. Loading, the reference and the schema all read this."""

from typing import Any, Final

import attrs

Seconds = float
"""A time. In TOML a string with a unit ("30s"), in the program a float of seconds; 0 means off."""

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@attrs.frozen
class Setting:
    """What is known of a key beside its type. `example` is for the reference, where there is no default to show.

    `kind` says how a string is read: "duration", "path" (of a file that must exist), "secret" (never shown in an error) or "" (as it is).
    """

    help: str
    kind: str = ""
    minimum: float | None = None
    example: str = ""
    from_url: bool = False
    """Not a key of its own: comes out of the table's `url`."""
    required: bool = False


def setting(
    help: str,
    *,
    default: Any = attrs.NOTHING,
    minimum: float | None = None,
    kind: str = "",
    example: str = "",
    required: bool | None = None,
) -> Any:
    """A key of a table. Without a default it is required, unless that is said otherwise (then the loader fills it in)."""
    required = default is attrs.NOTHING if required is None else required
    declared = Setting(help, kind, minimum, example, required=required)
    return attrs.field(default=default, repr=kind != "secret", metadata={"setting": declared})


def duration(default: str, help: str) -> Any:
    """A key that holds a time, with its default as TOML would write it."""
    return setting(help, default=parse_duration(default), kind="duration", minimum=0)


def instead_of(name: str, example: str) -> Any:
    """A key of a database or a user that replaces `timeouts.<name>` there."""
    return setting(f"Instead of timeouts.{name}.", default=None, kind="duration", minimum=0, example=f'"{example}"')


def from_url(default: Any = attrs.NOTHING, *, secret: bool = False) -> Any:
    """An attribute that is parsed out of `url`, not a key."""
    return attrs.field(default=default, repr=not secret, metadata={"setting": Setting("", from_url=True)})


def setting_of(attribute: "attrs.Attribute[Any]") -> Setting | None:
    """The declaration of an attribute, or None if it is not a key of the file (a name, a warning, a part of a URL)."""
    declared: Setting | None = attribute.metadata.get("setting")
    return None if declared is None or declared.from_url else declared


def keys_of(cls: type) -> "dict[str, attrs.Attribute[Any]]":
    """The keys of a table, in the order in which they are declared."""
    return {attribute.name: attribute for attribute in attrs.fields(cls) if setting_of(attribute) is not None}


def parse_duration(text: str) -> float:
    """Seconds of "500ms", "30s", "2m", "1h", "1d". Raises ValueError that says what is allowed."""
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text.strip()[len(number) :]
    if unit not in UNITS or not is_decimal(number.strip()):
        raise ValueError(f'must be a time with a unit (ms, s, m, h or d), such as "30s", got {text!r}')
    return float(number) * UNITS[unit]


def is_decimal(text: str) -> bool:
    """Digits with at most one point between them: what float() takes, without its signs, exponents, underscores and names."""
    whole, point, fraction = text.partition(".")
    return whole.isdecimal() and whole.isascii() and (not point or (fraction.isdecimal() and fraction.isascii()))


def format_duration(seconds: float) -> str:
    """The shortest way to write a time: 120.0 is "2m"."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= UNITS[unit] and seconds % UNITS[unit] == 0:
            return f"{seconds / UNITS[unit]:.0f}{unit}"
    return f"{seconds * 1000:.12g}ms" if seconds else "0s"
