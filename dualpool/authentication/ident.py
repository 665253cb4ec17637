"""Maps from the names that certificates and operating systems give to users, to the names of database users (docs: User Name Maps).

A line is `MAP SYSTEM-NAME DATABASE-NAME`. A name that begins with `/` is a regular expression; the group `\\1` of a system name's may stand
in the database name. A database name `all` stands for every one. Lines that name other files, which PostgreSQL reads and PgBouncer does
not, are errors.
"""

import re

import attrs

from dualpool.authentication.hba import INCLUDES, MEMBERS
from dualpool.authentication.words import Field, Word, fields, joined_lines


@attrs.frozen
class Mapping:
    """One line of a map."""

    system: Word
    user: Word

    def allows(self, system_name: str, user: str) -> bool:
        """May who is called `system_name` log in as `user`?"""
        if not self.system.finds(system_name):
            return False
        if self.user.is_keyword("all") or self.user.text.startswith("/"):
            return self.user.is_keyword("all") or self.user.finds(user)
        match = re.search(self.system.text[1:], system_name) if self.system.text.startswith("/") else None
        found = (match[1] or "") if match is not None and match.re.groups else "\\1"
        return self.user.text.replace("\\1", found, 1) == user


IdentMaps = dict[str, list[Mapping]]


def parse_ident(text: str) -> IdentMaps:
    """Every map by its name. Raises ValueError with a line for every broken one."""
    maps: IdentMaps = {}
    broken: list[str] = []
    for number, line in joined_lines(text):
        try:
            found = fields(line)
            if found:
                name, mapping = parse_mapping(found)
                maps.setdefault(name, []).append(mapping)
        except ValueError as error:
            broken.append(f"line {number}: {error}")
    if broken:
        raise ValueError("; ".join(broken))
    return maps


def parse_mapping(found: list[Field]) -> tuple[str, Mapping]:
    """One line's fields: the map that it belongs to, and what it says."""
    words = [word for field in found for word in field]
    file = next((word.text for word in words if not word.quoted and word.text.startswith("@")), "")
    if file:
        raise ValueError(f"{file}: a file of maps names no other files; write the name that is meant (one that begins with @: in quotes)")
    if words[0].is_keyword(*INCLUDES):
        raise ValueError(f"{words[0].text}: a file of maps includes no other files; write their lines here")
    if len(found) != 3 or len(words) != 3:
        raise ValueError("must be MAP SYSTEM-NAME DATABASE-NAME, one name each")
    name, system, user = words
    if not user.quoted and user.text.startswith("+"):
        raise ValueError(f"{user.text}: {MEMBERS}; name the users")
    system.check()
    user.check()
    return name.text, Mapping(system, user)


def allows(maps: IdentMaps, name: str, system_name: str, user: str) -> bool:
    """May `system_name` log in as `user`, by the map `name`? Without a map the two must be the same."""
    if not name:
        return system_name == user
    return any(mapping.allows(system_name, user) for mapping in maps.get(name, []))
