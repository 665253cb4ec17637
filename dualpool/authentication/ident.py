"""Maps from the names that certificates and operating systems give to users, to the names of database users (docs: User Name Maps).

A line is `MAP SYSTEM-NAME DATABASE-NAME`. A system name that begins with `/` is a regular expression, whose group `\\1` may stand in the
database name; a database name `all` stands for every one.
"""

import re

import attrs

from dualpool.authentication.words import Word, fields, joined_lines


@attrs.frozen
class Mapping:
    """One line of a map."""

    system: Word
    user: Word

    def allows(self, system_name: str, user: str) -> bool:
        """May who is called `system_name` log in as `user`?"""
        target = self.user.text
        if not self.system.quoted and self.system.text.startswith("/"):
            match = re.search(self.system.text[1:], system_name)
            if match is None:
                return False
            if match.re.groups:
                target = target.replace("\\1", match[1] or "", 1)
        elif self.system.text != system_name:
            return False
        return self.user.is_keyword("all") or target == user


IdentMaps = dict[str, list[Mapping]]


def parse_ident(text: str) -> IdentMaps:
    """Every map by its name. Raises ValueError with the number of a broken line."""
    maps: IdentMaps = {}
    for number, line in joined_lines(text):
        try:
            found = fields(line)
            if found:
                name, mapping = parse_mapping([word for field in found for word in field])
                maps.setdefault(name, []).append(mapping)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return maps


def parse_mapping(words: list[Word]) -> tuple[str, Mapping]:
    """One line: the map that it belongs to, and what it says."""
    if len(words) != 3:
        raise ValueError("must be MAP SYSTEM-NAME DATABASE-NAME")
    name, system, user = words
    if not user.quoted and user.text.startswith(("+", "/")):
        raise ValueError(f"{user.text}: groups and regular expressions are not possible for database users")
    if not system.quoted and system.text.startswith("/"):
        try:
            re.compile(system.text[1:])
        except re.error as error:
            raise ValueError(f"{system.text}: {error}") from None
    return name.text, Mapping(system, user)


def allows(maps: IdentMaps, name: str, system_name: str, user: str) -> bool:
    """May `system_name` log in as `user`, by the map `name`? Without a map the two must be the same."""
    if not name:
        return system_name == user
    return any(mapping.allows(system_name, user) for mapping in maps.get(name, []))
