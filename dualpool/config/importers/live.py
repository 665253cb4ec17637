"""A pgbouncer.ini that runs. It remembers its lines, so that a key can be set by PgBouncer's name until the file is read again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from dualpool.config.importers.document import Imported, Note
from dualpool.config.importers.ini import Item, read_ini
from dualpool.config.importers.pgbouncer import Import
from dualpool.config.importers.pgbouncer_remarks import DONE_BY_COMMAND, FIXED, ONLY_AS_INI
from dualpool.config.model import Config
from dualpool.errors import ConfigError

SECTION: Final = "pgbouncer"
START: Final = "takes effect after a restart: change the file"


@attrs.frozen
class IniConfig(Config):
    """What a pgbouncer.ini says.

    `items`: its lines, as they were read; `changes`: keys that were set since, with values as in an ini; `own`: those that only we have.
    """

    source: Path = Path()
    items: Sequence[Item] = attrs.field(default=(), repr=False)
    changes: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    own: Mapping[str, float] = attrs.field(factory=dict, repr=False)
    notes: Sequence[Note] = attrs.field(default=(), repr=False)

    def with_change(self, key: str, value: str) -> "IniConfig":
        """The same with one key of [pgbouncer] set. Raises ConfigError if that is not possible."""
        if key in FIXED or key in DONE_BY_COMMAND:
            raise ConfigError(f"{key}: {START}")
        changes = {**self.changes, key: value}
        try:
            changed = ini_config(self.source, self.items, changes)
        except ConfigError as error:
            raise ConfigError(str(error).removeprefix(f"{self.source}:0: "), hint=error.hint) from None
        refused = [note for note in changed.notes if note not in self.notes]
        if refused:
            raise ConfigError(f"{key}: {refused[0].reason}")
        return attrs.evolve(changed, own=self.own, log=attrs.evolve(changed.log, format=self.log.format))

    def values(self) -> dict[str, str]:
        """Every key of [pgbouncer] that the file has, or that has been set since."""
        return {item.key: item.value for item in self.items if item.section == SECTION} | dict(self.changes)


def load_ini(path: Path, *, resolve: bool = False) -> IniConfig:
    """Read a pgbouncer.ini for running it. Raises ConfigError. `resolve`: see `load`."""
    return ini_config(path, read_ini(path), {}, resolve=resolve)


def ini_config(path: Path, items: Sequence[Item], changes: Mapping[str, str], *, resolve: bool = False) -> IniConfig:
    """What some lines say, with some keys changed. Raises ConfigError."""
    changed = [Item(SECTION, key, value, path, 0) for key, value in changes.items()]
    imported: Imported = Import(path, [*items, *changed]).run()
    imported.notes = [note for note in imported.notes if note.reason != ONLY_AS_INI]
    config = imported.config(resolve=resolve)
    known = {attribute.name: getattr(config, attribute.name) for attribute in attrs.fields(Config)}
    return IniConfig(**known, source=path, items=items, changes=changes, notes=imported.notes)
