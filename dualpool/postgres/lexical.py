"""How a session of PostgreSQL reads texts: its encoding, what a backslash is, and what its version takes for white space.

Only two settings matter to where a text's tokens are. (backslash_quote decides what is refused, not what is read.)

Source: PostgreSQL docs, "Character Set Support"; src/common/encnames.c for the names of encodings.
"""

import codecs
import re
from functools import lru_cache
from typing import Final

from dualpool.sql_text import POSTGRES, VERTICAL_TAB, Lexis, lexis

LEXICAL_SETTINGS: Final = ("client_encoding", "standard_conforming_strings", "server_version")
"""All of them are reported by the server (docs: libpq, "PQparameterStatus")."""

_CODECS: Final = {
    "sjis": "cp932", "mskanji": "cp932", "shiftjis": "cp932", "win932": "cp932", "windows932": "cp932",
    "shiftjis2004": "shift_jis_2004",
    "big5": "big5", "win950": "big5", "windows950": "big5",
    "gbk": "gbk", "win936": "gbk", "windows936": "gbk",
    "uhc": "cp949", "win949": "cp949", "windows949": "cp949",
    "gb18030": "gb18030",
    "johab": "johab",
}  # fmt: skip
"""Python's names of the encodings in which a byte of ASCII may be a part of another character."""
_SAFE: Final = (
    "utf8", "unicode", "sqlascii", "latin", "iso8859", "win125", "windows125", "win866", "windows866", "win874", "windows874",
    "koi8", "euc", "mule", "abc", "tcvn", "vscii", "alt",
)  # fmt: skip
"""How the names of others begin."""
_TRUE: Final = frozenset(("on", "true", "yes", "1", "t", "tr", "tru", "y", "ye"))
_FALSE: Final = frozenset(("off", "of", "false", "no", "0", "f", "fa", "fal", "fals", "n"))

_WINDOWS: Final = re.compile(r"win(?:dows)?(?=[0-9])")
_MAJOR: Final = re.compile("[0-9]{1,4}")
_WITH_TAB: Final = frozenset((VERTICAL_TAB,))
MAX_FOUND: Final = 1000
_found: dict[tuple[str, str, str], Lexis | None] = {}


def lexis_of(encoding: str, conforming: str, version: str = "") -> Lexis | None:
    """How texts are read with these values of the LEXICAL_SETTINGS; None where it is not certain."""
    key = (encoding, conforming, version)
    if key not in _found:
        if len(_found) >= MAX_FOUND:
            _found.clear()
        _found[key] = _lexis(encoding, conforming.strip().lower(), version)
    return _found[key]


def _lexis(encoding: str, conforming: str, version: str) -> Lexis | None:
    name = _bare(encoding)
    codec = _CODECS.get(name)
    if (codec is None and not name.startswith(_SAFE)) or conforming not in _TRUE | _FALSE:
        return None
    major = _MAJOR.match(version)
    return lexis(POSTGRES, codec or "", conforming in _FALSE, _WITH_TAB if major is not None and int(major[0]) >= 16 else frozenset())


def _bare(encoding: str) -> str:
    """The name of an encoding as PostgreSQL compares it (clean_encoding_name)."""
    return "".join(letter for letter in encoding.lower() if letter.isascii() and letter.isalnum())


@lru_cache(64)
def codec_of(encoding: str) -> str:
    """Python's name of one of PostgreSQL's encodings; "" where there is none."""
    name = _bare(encoding)
    try:
        return codecs.lookup(_CODECS.get(name) or _WINDOWS.sub("cp", name)).name
    except LookupError:
        return ""
