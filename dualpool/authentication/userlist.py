"""PgBouncer's auth_file, userlist.txt: `"user" "password"` a line, a doubled quotation mark standing for one.

Source: PgBouncer docs, "Authentication file format"; what follows the second field is ignored, as are lines that begin with `;`.
"""

import re
from typing import Final

QUOTED: Final = re.compile(r'"((?:[^"]|"")*)"')
COMMENT: Final = ";"


def parse_userlist(text: str) -> dict[str, str]:
    """The stored secret of each user; of a user that is listed twice, the last one. Raises ValueError with the number of a broken line."""
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(COMMENT):
            continue
        user = QUOTED.match(line)
        secret = QUOTED.search(line, user.end()) if user else None
        if user is None or secret is None:
            raise ValueError(f'line {number}: must be "user" "password", both in double quotes')
        users[unquoted(user[1])] = unquoted(secret[1])
    return users


def unquoted(field: str) -> str:
    """What is between the quotation marks."""
    return field.replace('""', '"')
