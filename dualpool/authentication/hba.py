"""Host-based rules: who may connect from where, and how they prove who they are. The first line that fits decides.

The format is that of pg_hba.conf (PostgreSQL docs), as far as a pooler can know the answers: PgBouncer reads less of it (docs: HBA file
format), and takes a regular expression for a name. A line that cannot be understood is an error: to skip it, as PgBouncer does, could skip
a `reject`, or let a weaker line below decide.
"""

import ipaddress
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, get_args

import attrs

from dualpool.authentication.words import Field, Word, fields, joined_lines

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
HbaMethod = Literal["trust", "reject", "password", "md5", "scram-sha-256", "cert", "peer"]
METHODS: Final = get_args(HbaMethod)
TYPES: Final = ("local", "host", "hostssl", "hostnossl")
UNSUPPORTED: Final = ("samerole", "samegroup")
NO_TLS_MODES: Final = ("hostgssenc", "hostnogssenc")
INCLUDES: Final = ("include", "include_if_exists", "include_dir")
MEMBERS: Final = "who is a member of a role only the server knows"
OWN_NETWORKS: Final = ("samehost", "samenet")
MAX_INCLUDES: Final = 10


@attrs.frozen
class Rule:
    """One line. `networks` is empty for `local`."""

    line: int
    kind: str
    databases: tuple[Word, ...]
    users: tuple[Word, ...]
    networks: tuple[Network, ...]
    method: HbaMethod
    map: str = ""

    def fits(self, asked: "Asked") -> bool:
        """Is this line about such a connection?"""
        return self.fits_connection(asked) and self.fits_database(asked) and any(fits_user(word, asked.user) for word in self.users)

    def fits_connection(self, asked: "Asked") -> bool:
        """By the way that it came."""
        if asked.address is None or self.kind == "local":
            return asked.address is None and self.kind == "local"
        if self.kind != "host" and asked.tls != (self.kind == "hostssl"):
            return False
        address = plain(asked.address)
        return any(address in network for network in self.networks)

    def fits_database(self, asked: "Asked") -> bool:
        """By the database, or because it is replication, which `all` does not mean."""
        if asked.replication:
            return any(word.is_keyword("replication") for word in self.databases)
        return any(fits_database(word, asked) for word in self.databases)


@attrs.frozen
class Asked:
    """A connection that asks to come in. `address`: None for a Unix socket. `replication`: physical replication."""

    user: str
    database: str
    address: Address | None
    tls: bool = False
    replication: bool = False


def fits_database(word: Word, asked: Asked) -> bool:
    """Does one word of a rule mean the database?"""
    if word.is_keyword("all"):
        return True
    if word.is_keyword("sameuser"):
        return asked.user == asked.database
    return word.finds(asked.database) and not word.is_keyword("replication")


def fits_user(word: Word, user: str) -> bool:
    """Does one word of a rule mean the user?"""
    return word.is_keyword("all") or word.finds(user)


def plain(address: Address) -> Address:
    """An IPv4 address in its own form, also where it came over an IPv6 socket."""
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def decide(rules: Iterable[Rule], asked: Asked) -> Rule | None:
    """The first rule that fits; None means that nothing lets the connection in."""
    return next((rule for rule in rules if rule.fits(asked)), None)


# -------------------------------------------------------------------------------------------------------------------- reading


def parse_hba(text: str, directory: Path, depth: int = 0) -> tuple[Rule, ...]:
    """The rules of a file in `directory` (for the files that it names). Raises ValueError with a line for every broken one."""
    rules: list[Rule] = []
    broken: list[str] = []
    for number, line in joined_lines(text):
        try:
            found = fields(line)
            if found and found[0][0].is_keyword(*INCLUDES):
                rules += included(found, directory, depth)
            elif found:
                rules.append(parse_rule(number, found, directory))
        except ValueError as error:
            broken.append(f"line {number}: {error}")
    if broken:
        raise ValueError("; ".join(broken))
    return tuple(rules)


def included(found: list[Field], directory: Path, depth: int) -> list[Rule]:
    """The rules of the files that a line includes: `include FILE`, `include_if_exists FILE`, `include_dir FOLDER` (its *.conf)."""
    keyword = found[0][0].text
    if len(found) != 2 or len(found[1]) != 1:
        raise ValueError(f"{keyword}: must be followed by one name")
    if depth == MAX_INCLUDES:
        raise ValueError(f"{keyword}: files include each other more than {MAX_INCLUDES} deep")
    path = directory / found[1][0].text
    if keyword == "include_if_exists" and not path.exists():
        return []
    try:
        names = sorted(path.iterdir()) if keyword == "include_dir" else [path]
        files = [name for name in names if name == path or (name.suffix == ".conf" and not name.name.startswith("."))]
        texts = [(name, name.read_text(encoding="utf-8")) for name in files]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{keyword} {found[1][0].text}: {error}") from None
    rules: list[Rule] = []
    for name, text in texts:
        try:
            rules += parse_hba(text, name.parent, depth + 1)
        except ValueError as error:
            raise ValueError(f"{name.name}: {error}") from None
    return rules


def parse_rule(number: int, found: list[Field], directory: Path) -> Rule:
    """One line's fields."""
    kind = found[0][0].text
    if kind not in TYPES:
        wrong = "encryption by GSSAPI is not possible" if kind in NO_TLS_MODES else f"must begin with one of {', '.join(TYPES)}"
        raise ValueError(f"{kind}: {wrong}")
    rest = found[1:]
    if len(rest) < (3 if kind == "local" else 4):
        raise ValueError("must be TYPE DATABASE USER METHOD" if kind == "local" else "must be TYPE DATABASE USER ADDRESS METHOD")
    databases = expanded(rest[0], directory, check_database)
    users = expanded(rest[1], directory, check_user)
    networks: tuple[Network, ...] = ()
    rest = rest[2:]
    if kind != "local":
        networks, rest = parse_address(rest)
    if not rest:
        raise ValueError("the method is missing")
    return Rule(number, kind, databases, users, networks, parse_method(rest[0], kind), parse_options(rest[1:], rest[0][0].text))


def expanded(field: Field, directory: Path, check: Callable[[Word], None], depth: int = 0) -> tuple[Word, ...]:
    """The words of a field, with those of the files that it names by @."""
    words: list[Word] = []
    for word in field:
        if word.quoted or not word.text.startswith("@"):
            check(word)
            words.append(word)
            continue
        if depth == MAX_INCLUDES:
            raise ValueError(f"{word.text}: files name each other more than {MAX_INCLUDES} deep")
        path = directory / word.text[1:]
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{word.text}: {error}") from None
        for line in lines:
            for inner in fields(line):
                words += expanded(inner, path.parent, check, depth + 1)
    return tuple(words)


def check_database(word: Word) -> None:
    """Raise ValueError for what a pooler cannot know."""
    if word.is_keyword(*UNSUPPORTED):
        raise ValueError(f"{word.text}: {MEMBERS}; name the databases")
    check_user(word)


def check_user(word: Word) -> None:
    """Raise ValueError for what a pooler cannot know."""
    if not word.quoted and word.text.startswith("+"):
        raise ValueError(f"{word.text}: {MEMBERS}; name the users, or a file with @")
    word.check()


def parse_address(rest: list[Field]) -> tuple[tuple[Network, ...], list[Field]]:
    """The networks that an address stands for, and the fields behind it."""
    text = rest[0][0].text
    if rest[0][0].is_keyword("all"):
        return (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")), rest[1:]
    if rest[0][0].is_keyword(*OWN_NETWORKS):
        raise ValueError(f"{text}: is not possible here; write the network, such as 127.0.0.0/8 or 10.0.0.0/8")
    if "/" not in text and len(rest) > 1 and is_address(rest[1][0].text):
        text, rest = f"{text}/{rest[1][0].text}", rest[1:]
    elif "/" not in text:
        raise ValueError(f"{text}: must be all, or an address with its mask, such as 10.0.0.0/8; names are not possible")
    try:
        return (network_with_mask(text),), rest[1:]
    except ValueError:
        raise ValueError(f"{text}: is no network, such as 10.0.0.0/8") from None


def network_with_mask(text: str) -> Network:
    """`address/bits` or `address/mask`; bits of the address beyond the mask are ignored, as PostgreSQL does. Raises ValueError."""
    address, _, mask = text.partition("/")
    if ":" in mask:
        bits = int(ipaddress.IPv6Address(mask))
        length = bits.bit_count()
        if bits != ((1 << length) - 1) << (128 - length):
            raise ValueError(text)
        mask = str(length)
    elif "." in mask:
        bits = int(ipaddress.IPv4Address(mask))
        length = bits.bit_count()
        if bits != ((1 << length) - 1) << (32 - length):
            raise ValueError(text)
        mask = str(length)
    return ipaddress.ip_network(f"{address}/{mask}", strict=False)


def is_address(text: str) -> bool:
    """An IP address, here as a mask."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_method(field: Field, kind: str) -> HbaMethod:
    """The method's name."""
    name: Any = field[0].text
    if name not in METHODS:
        raise ValueError(f"{name}: is not possible here; methods are {', '.join(METHODS)}")
    if name == "peer" and kind != "local":
        raise ValueError("peer: is for local lines, because only a Unix socket tells who is at its other end")
    if name == "cert" and kind not in {"host", "hostssl"}:
        raise ValueError("cert: is for host and hostssl lines, because it needs TLS")
    return name  # type: ignore[no-any-return]


def parse_options(options: list[Field], method: str) -> str:
    """The map that an option `map=NAME` names, or ""."""
    named = ""
    for word in (word for field in options for word in field):
        key, equals, value = word.text.partition("=")
        if key != "map" or not equals or method not in {"cert", "peer"}:
            raise ValueError(f"{word.text}: the only option is map=NAME, of cert and peer")
        named = value.strip('"')
    return named
