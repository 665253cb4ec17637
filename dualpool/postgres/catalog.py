"""What a database's catalog says of the functions, triggers and views that a statement may meet, and what each text therefore does.

The server is asked for its volatile functions (others may not change anything: docs, "Function Volatility Categories"), and what uses them
unseen. It is asked again after each DDL that a client of ours has run, and once a minute when a server connection is opened. While that
is not known, nothing is known to be harmless.

A `Judge` says what a text does in one database, for sessions that read texts alike. It remembers.
"""

import re
from collections.abc import Iterable
from time import monotonic
from typing import Final
from weakref import WeakValueDictionary

from dualpool.postgres import sql
from dualpool.postgres.functions import HARMLESS
from dualpool.postgres.reading import KEPT_BY_SESSION, RELEASES_LOCK, TAKES_LOCK, Reading, read
from dualpool.protocol import LEARNT, VERIFY_LEARN, VERIFY_NEVER
from dualpool.sql_text import MAX_READ, Lexis

MAX_AGE: Final = 60.0
"""Seconds after which a new server connection has the catalog read again."""
MAX_KNOWN_TEXT: Final = 2048
"""Bytes of a text, and how many of them, that a judge remembers."""
MAX_KNOWN: Final = 2048
MAX_NAMES: Final = 1000
"""Custom settings that are asked for by name."""
DOUBT: Final = sql.EVERYTHING | sql.LIKELY | sql.PROBED << sql.ENDS | sql.REREADS
DOUBTS: Final = sql.EVERYTHING | sql.PROBED << sql.ENDS | sql.REREADS
"""What a text that was found harmless often enough is no longer suspected of."""

# A text without its numbers and strings. What may end a string early, or begin one otherwise, is not in such texts (UNSHAPED).
SHAPE: Final = re.compile(rb"""'[^']*+'|("[^"]*+")|(?<![\w$."])[0-9]++(?:\.[0-9]++)?(?![\w$."])""")
LITERALS: Final = re.compile(rb"""'[^']*+'|(?<![\w$.])[0-9]++(?:\.[0-9]++)?(?![\w$.])""")
"""The same of a text without quoted names."""
UNSHAPED: Final = re.compile(rb"[\\$]|--|/\*")
NUMBERS: Final = bytes.maketrans(b"123456789", b"000000000")
NUMBERED: Final = re.compile(rb"""['"]|[\w$."\x80-\xff](?<=[^0-9])[0-9]""")
"""Of a text without it, each digit belongs to a number, so that it does the same whatever the digits are."""
NOT_SHARED: Final = ~(sql.READS | sql.WRITES | sql.COMPUTES | sql.OPAQUE | DOUBT)
"""Texts of one shape have these marks in common, if they have no others."""

_OWN_RULES: Final = TAKES_LOCK | RELEASES_LOCK | KEPT_BY_SESSION | {b"set_config"}
"""Where a text calls them, its reading says so; where a view does, or a trigger, they are as dangerous as others."""
_SEQUENCES: Final = frozenset(("nextval", "setval", "currval", "lastval"))
_RULED_NAMES: Final = ",".join(sorted(name.decode() for name in _OWN_RULES))
_KNOWN_NAMES: Final = ",".join((*sorted(HARMLESS | _SEQUENCES), _RULED_NAMES))
_TEMPORARY_NAMES: Final = "pg_my_temp_schema|current_schemas|pg_is_other_temp_schema|temp_buffers"
_TEMPORARY_CALLS: Final = ":funcid (1403|2854|2855) "
"""The functions of these names, in the expressions that the catalog keeps (pg_proc.dat)."""
_COMPUTED_NAME: Final = "set_config\\\\s*\\\\(\\\\s*([^''[:space:]]|''[^'']*''\\\\s*\\\\|)"
"""A call whose first argument is not one string."""
_OURS: Final = 16384
"""Objects with lower numbers came with the server (docs: System Catalog Initial Data, FirstNormalObjectId)."""
QUERY: Final = f"""
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL lock_timeout = 200;
SET LOCAL jit = off;
WITH RECURSIVE doubtful AS MATERIALIZED (
  SELECT p.oid, p.proname, p.prosrc, p.prorettype, l.lanname FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
  WHERE p.provolatile = 'v' AND (p.oid >= {_OURS} OR p.proname <> ALL ('{{{_KNOWN_NAMES}}}'::name[]))
), aggregate AS MATERIALIZED (
  SELECT p.oid, p.proname, ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn, aggmtransfn, aggminvtransfn,
    aggmfinalfn]::oid[] AS parts FROM pg_aggregate JOIN pg_proc p ON p.oid = aggfnoid WHERE p.oid >= {_OURS}
), called AS MATERIALIZED (
  SELECT oid, proname FROM doubtful WHERE prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
  UNION SELECT a.oid, a.proname FROM aggregate a JOIN doubtful d ON d.oid = ANY (a.parts)
), dangerous AS MATERIALIZED (
  SELECT oid FROM called
  UNION SELECT oid FROM pg_proc WHERE oid < {_OURS} AND proname = ANY ('{{{_RULED_NAMES}}}'::name[])
), hiding AS (
  SELECT oid, proname, prosrc ~* E'{_COMPUTED_NAME}' AS names FROM doubtful
  WHERE oid >= {_OURS} AND (lanname NOT IN ('sql', 'plpgsql', 'c', 'internal')
    OR prosrc ~* E'\\\\mexecute\\\\M' OR prosrc ~* E'{_COMPUTED_NAME}')
  UNION SELECT d.oid, d.proname, h.names FROM hiding h JOIN doubtful d ON d.oid >= {_OURS} AND (
    d.prosrc ~* (E'(^|\\\\W)' || regexp_replace(h.proname, E'(\\\\W)', E'\\\\\\\\\\\\1', 'g') || E'(\\\\W|$)')
    OR EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = d.oid AND refclassid = classid AND refobjid = h.oid))
), opaque AS MATERIALIZED (
  SELECT oid, proname, names FROM hiding
  UNION SELECT a.oid, a.proname, h.names FROM aggregate a JOIN hiding h ON h.oid = ANY (a.parts)
), pattern AS (
  SELECT CASE WHEN count(*) > 500 THEN ':(funcid|opfuncid|aggfnoid|winfnoid) '
    ELSE ':(funcid|opfuncid|aggfnoid|winfnoid) (' || coalesce(string_agg(oid::text, '|'), 'none') || ') ' END AS found,
    ':(funcid|opfuncid|aggfnoid|winfnoid) (' || coalesce((SELECT string_agg(oid::text, '|') FROM opaque), 'none') || ') ' AS hides
  FROM dangerous
), unseen AS MATERIALIZED (
  SELECT 'all' AS kind, conbin::text ~ hides AS is_opaque, pg_get_constraintdef(oid) AS source FROM pg_constraint, pattern
    WHERE oid >= {_OURS} AND contypid <> 0 AND conbin::text ~ found
  UNION ALL SELECT 'all', oprcode IN (SELECT oid FROM opaque), '' FROM pg_operator
    WHERE oid >= {_OURS} AND oprcode IN (SELECT oid FROM dangerous)
  UNION ALL SELECT 'all', castfunc IN (SELECT oid FROM opaque), '' FROM pg_cast
    WHERE oid >= {_OURS} AND castfunc IN (SELECT oid FROM dangerous)
  UNION ALL SELECT 'all', amproc IN (SELECT oid FROM opaque), '' FROM pg_amproc
    WHERE oid >= {_OURS} AND amproc IN (SELECT oid FROM dangerous)
  UNION ALL SELECT CASE rulename WHEN '_RETURN' THEN 'read' ELSE 'write' END, ev_action::text ~ hides, pg_get_ruledef(oid)
    FROM pg_rewrite, pattern WHERE oid >= {_OURS} AND ev_action::text ~ found
  UNION ALL SELECT 'read', polqual::text ~ hides OR polwithcheck::text ~ hides,
    concat(pg_get_expr(polqual, polrelid), ' ', pg_get_expr(polwithcheck, polrelid))
    FROM pg_policy, pattern WHERE polqual::text ~ found OR polwithcheck::text ~ found
  UNION ALL SELECT 'write', tgfoid IN (SELECT oid FROM opaque), pg_get_triggerdef(oid) FROM pg_trigger
    WHERE NOT tgisinternal AND tgenabled <> 'D'
  UNION ALL SELECT 'write', adbin::text ~ hides, pg_get_expr(adbin, adrelid) FROM pg_attrdef, pattern
    WHERE oid >= {_OURS} AND adbin::text ~ found
  UNION ALL SELECT 'write', typdefaultbin::text ~ hides, typdefault FROM pg_type, pattern
    WHERE oid >= {_OURS} AND typdefaultbin::text ~ found
  UNION ALL SELECT 'write', conbin::text ~ hides, pg_get_constraintdef(oid) FROM pg_constraint, pattern
    WHERE oid >= {_OURS} AND conrelid <> 0 AND conbin::text ~ found
)
SELECT 'call', proname, '' FROM called
UNION SELECT 'opaque', proname, '' FROM opaque
UNION SELECT 'naming', '', '' FROM opaque WHERE names
UNION SELECT 'name', lower(m[2]), '' FROM doubtful,
  regexp_matches(prosrc, E'(\\\\mset\\\\s+(?:session\\\\s+|local\\\\s+)?"?|set_config\\\\s*\\\\(\\\\s*'')'
  '([a-z_][\\\\w$]*(?:\\\\.[a-z_][\\\\w$]*)+)', 'gi') AS m WHERE oid >= {_OURS}
UNION SELECT 'name', lower(m[1]), '' FROM unseen, regexp_matches(source, E'''([A-Za-z_][\\\\w$]*(?:\\\\.[A-Za-z_][\\\\w$]*)+)''', 'g') AS m
UNION SELECT kind, '', '' FROM unseen
UNION SELECT 'temporary', '', '' FROM pg_proc p WHERE oid >= {_OURS}
  AND (prosrc ~* '{_TEMPORARY_NAMES}' OR to_jsonb(p)->>'prosqlbody' ~ '{_TEMPORARY_CALLS}')
UNION SELECT 'temporary', '', '' FROM pg_rewrite WHERE oid >= {_OURS} AND ev_action::text ~ '{_TEMPORARY_CALLS}'
UNION SELECT 'temporary', '', '' FROM pg_policy
  WHERE polqual::text ~ '{_TEMPORARY_CALLS}' OR polwithcheck::text ~ '{_TEMPORARY_CALLS}'
UNION SELECT 'temporary', '', '' FROM pg_attrdef WHERE adbin::text ~ '{_TEMPORARY_CALLS}'
UNION SELECT 'temporary', '', '' FROM pg_constraint WHERE oid >= {_OURS} AND conbin::text ~ '{_TEMPORARY_CALLS}'
UNION SELECT 'opaque ' || kind, '', '' FROM unseen WHERE is_opaque
UNION SELECT 'version', md5(coalesce(string_agg(oid || ':' || xmin, ',' ORDER BY c, oid), '')), '' FROM (
  SELECT 1 AS c, oid, xmin FROM pg_proc UNION ALL SELECT 2, oid, xmin FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT 3, oid, xmin FROM pg_rewrite UNION ALL SELECT 4, oid, xmin FROM pg_policy
  UNION ALL SELECT 5, oid, xmin FROM pg_operator UNION ALL SELECT 6, oid, xmin FROM pg_cast
  UNION ALL SELECT 7, oid, xmin FROM pg_type WHERE typtype = 'd' UNION ALL SELECT 8, oid, xmin FROM pg_amproc) AS v WHERE oid >= {_OURS}"""
"""Three columns: what it is, the name, and nothing. Under a search path of its own, which its transaction ends.

Compiling it would take a hundred times as long as running it. pg_get_ruledef() and its like lock what they tell of: while somebody
changes that in an open transaction, the question fails after so many milliseconds, and is asked again with the next doubt.

A backslash in its strings is an escape, whatever standard_conforming_strings says: they begin with E."""


OPAQUE_KINDS: Final = {b"opaque all": sql.COMPUTES, b"opaque read": sql.READS, b"opaque write": sql.WRITES}


class Facts:
    """What QUERY has answered. Compared by value."""

    __slots__ = (
        "calls",
        "computes_names",
        "everywhere",
        "names",
        "opaque",
        "opaque_marks",
        "reads",
        "tells_temporary",
        "version",
        "writes",
    )

    def __init__(self, rows: Iterable[list[bytes | None]] = ()) -> None:
        found: dict[bytes, set[bytes]] = {}
        for row in rows:
            found.setdefault(row[0] or b"", set()).add(row[1] or b"")
        self.calls = frozenset(found.get(b"call", ()))
        """Names of volatile functions. One that is called by such a name is in doubt."""
        self.opaque = frozenset(found.get(b"opaque", ()))
        """Those of them that may make settings of which nobody knows the names, by themselves or by others that they call."""
        self.names = frozenset(name.decode("utf-8", "surrogateescape") for name in found.get(b"name", ()))
        """Custom settings that functions make."""
        self.computes_names = b"naming" in found
        """Some of the opaque ones make settings by names that they put together. No reset takes away a name."""
        self.everywhere = b"all" in found
        """Operators, casts or domains call volatile functions."""
        self.reads = b"read" in found
        """So do views or row policies."""
        self.writes = b"write" in found
        """So may triggers, rules, defaults or constraints."""
        self.tells_temporary = b"temporary" in found
        """Views, functions, ... tell whether the session has had temporary tables."""
        self.opaque_marks = sum(mark for kind, mark in OPAQUE_KINDS.items() if kind in found)
        """Texts with one of these marks may call those that are opaque, unseen."""
        self.version = next(iter(found.get(b"version", ())), b"")

    def equal(self, other: "Facts") -> bool:
        """Do both say the same?"""
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)


class Judge:
    """What texts do in one database, for sessions that read them alike, and what was learnt of them."""

    __slots__ = (
        "catalog",
        "facts",
        "harmless",
        "leases",
        "lexis",
        "numbered",
        "outdated",
        "queries",
        "readings",
        "shapes",
        "texts",
        "verify",
    )

    def __init__(self, catalog: "Catalog", facts: Facts | None, lexis: Lexis | None, verify: int) -> None:
        self.catalog = catalog
        self.facts = facts
        self.lexis = lexis
        """None: nobody can tell by which settings the texts are read."""
        self.verify = verify
        self.outdated = False
        """The catalog has changed: another judge must be asked."""
        self.leases = 0
        """Since one of them was asked though all looked harmless."""
        self.queries: dict[bytes, int] = {}
        """The marks of whole Query messages."""
        self.numbered: dict[bytes, int] = {}
        """The marks of Query messages whose digits do not matter, with 0 in the place of each."""
        self.texts: dict[bytes, int] = {}
        self.shapes: dict[bytes, int] = {}
        self.readings: dict[bytes, Reading] = {}
        """Of texts that have marks."""
        self.harmless: dict[bytes, int] = {}
        """How often a text (or shape) in doubt was found to leave nothing."""

    def query_marks(self, frame: bytes) -> int:
        """The marks of a Query message that `queries` does not have."""
        key = frame.translate(NUMBERS)
        found = self.numbered.get(key)
        if found is not None:
            return found
        text = frame[5:-1]
        found = self.marks(text)
        is_shaped = text not in self.texts and not NUMBERED.search(text)
        return _remember(self.numbered if is_shaped else self.queries, key if is_shaped else frame, found)

    def marks(self, text: bytes) -> int:
        """What `text` may do: bits of sql.py. It only raises doubts: what is the case the server is asked."""
        found = self.texts.get(text)
        if found is not None:
            return found
        shape = shape_of(text)
        if shape is not None and self.lexis is not None:
            found = self.shapes.get(shape)
            if found is not None:
                return found
        reading = self.read(text)
        found = self._judged(reading)
        if shape is not None and not found & NOT_SHARED and reading.lexed is not None and not self._is_direct(reading):
            return _remember(self.shapes, shape, found)
        return _remember(self.texts, text, found)

    def read(self, text: bytes) -> Reading:
        """What is in `text`."""
        found = self.readings.get(text)
        if found is None:
            found = read(text, self.lexis)
            if found.marks & sql.NOTABLE or found.marks & sql.TELLING:
                if len(self.readings) >= MAX_KNOWN:
                    self.readings.clear()
                if len(text) <= MAX_KNOWN_TEXT:
                    self.readings[text] = found
        return found

    def _judged(self, reading: Reading) -> int:
        marks = reading.marks
        if self.verify == VERIFY_NEVER:
            return marks & ~(DOUBTS | sql.LIKELY) if marks & sql.LIKELY and reading.lexed is not None else marks
        facts = self.facts
        if facts is None:
            return marks | DOUBT if marks & sql.COMPUTES else marks
        if reading.calls & facts.opaque or marks & facts.opaque_marks or (facts.opaque_marks and reading.calls & facts.calls):
            marks |= sql.OPAQUE  # (A function that is called may use triggers and views, too.)
        if (
            reading.calls & facts.calls
            or (facts.everywhere and marks & sql.COMPUTES)
            or (facts.reads and marks & sql.READS)
            or (facts.writes and marks & sql.WRITES)
        ):
            marks |= DOUBT
        return marks

    def _is_direct(self, reading: Reading) -> bool:
        """Does the text itself call what is in doubt? Then its parameters may matter."""
        return self.facts is None or bool(reading.calls & self.facts.calls)

    def found_harmless(self, text: bytes) -> None:
        """`text` was in doubt, and the session holds no more than before it."""
        if self.verify != VERIFY_LEARN or len(text) > MAX_KNOWN_TEXT or self.outdated or self.marks(text) & sql.OPAQUE:
            return  # (Of what opaque functions have set the question does not tell.)
        shape = shape_of(text)
        key = shape if shape is not None and shape in self.shapes else text
        count = self.harmless.get(key, 0) + 1
        if len(self.harmless) >= MAX_KNOWN:
            self.harmless.clear()
        self.harmless[key] = count
        if count == LEARNT:
            known = self.shapes if key is shape else self.texts
            says = self.read(text).marks
            known[key] = known.get(key, 0) & ~(DOUBTS | sql.LIKELY) | (says if not says & sql.LIKELY else 0)
            self.queries.clear()
            self.numbered.clear()

    def found_guilty(self, text: bytes) -> None:
        """`text` leaves something behind though it was taken for harmless: it is in doubt for good."""
        if len(text) <= MAX_KNOWN_TEXT:
            self.harmless[text] = -MAX_READ
            self.shapes.clear()
            self.queries.clear()
            self.numbered.clear()
            self.texts[text] = self.read(text).marks | DOUBT


def _remember(known: dict[bytes, int], key: bytes, found: int) -> int:
    if len(key) <= MAX_KNOWN_TEXT:
        if len(known) >= MAX_KNOWN:
            known.clear()
        known[key] = found
    return found


def shape_of(text: bytes) -> bytes | None:
    """`text` without its literals; None where it is not certain what they are."""
    if len(text) > MAX_KNOWN_TEXT or UNSHAPED.search(text):
        return None
    return LITERALS.sub(b"?", text) if b'"' not in text else SHAPE.sub(rb"\1?", text)


class SamplingJudge(Judge):
    """For one lease: it knows nothing beforehand, so that it hears of each text."""

    __slots__ = ("base", "seen")

    def __init__(self, base: Judge) -> None:
        super().__init__(base.catalog, base.facts, base.lexis, base.verify)
        self.base = base
        self.seen: list[bytes] = []
        """The texts of the lease."""

    def query_marks(self, frame: bytes) -> int:
        return self.marks(frame[5:-1])

    def marks(self, text: bytes) -> int:
        if len(self.seen) < MAX_KNOWN:
            self.seen.append(text)
        return self.base.marks(text)


class Catalog:
    """One database's facts, as they were asked for last, and the judges by them. All server connections to it share one."""

    __slots__ = ("__weakref__", "_asked_at", "_before", "facts", "judges", "names")

    def __init__(self, facts: Facts | None = None) -> None:
        self.facts = facts
        """None: to be asked for."""
        self.judges: dict[tuple[Lexis | None, int], Judge] = {}
        self.names: set[str] = set()
        """Custom settings that are known to exist in sessions of this database."""
        self._before: tuple[Facts, dict[tuple[Lexis | None, int], Judge]] | None = None
        self._asked_at = monotonic()

    @property
    def is_known(self) -> bool:
        """It has been asked for once, though it may be another one by now."""
        return self.facts is not None or self._before is not None

    def judge(self, lexis: Lexis | None, verify: int) -> Judge:
        """Who judges the texts of sessions that read by `lexis`."""
        found = self.judges.get((lexis, verify))
        if found is None:
            found = self.judges[lexis, verify] = Judge(self, self.facts, lexis, verify)
        return found

    def outdate(self) -> None:
        """DDL has run: what was known may be wrong."""
        if self.facts is not None:
            self._before = (self.facts, self.judges)
            self.facts = None
            self._replace({})

    def learn(self, facts: Facts) -> None:
        """The answer of QUERY is there."""
        self._asked_at = monotonic()
        self.know(facts.names)
        if self.facts is not None and self.facts.equal(facts):
            return
        before, self._before = self._before, None
        self.facts = facts
        if before is not None and before[0].equal(facts):
            # The DDL was of no importance here: what was learnt is still true.
            self.facts = before[0]
            self._replace(before[1])
        else:
            self._replace({})

    def know(self, names: Iterable[str]) -> None:
        """There are custom settings with these names."""
        if len(self.names) < MAX_NAMES:
            self.names.update(names)

    def age(self) -> None:
        """A server connection is opened: is it time to ask again?"""
        if monotonic() - self._asked_at > MAX_AGE:
            self.outdate()

    def _replace(self, judges: dict[tuple[Lexis | None, int], Judge]) -> None:
        for judge in self.judges.values():
            judge.outdated = True
        for judge in judges.values():
            judge.outdated = False
        self.judges = judges


_catalogs: "WeakValueDictionary[tuple[str, int, str], Catalog]" = WeakValueDictionary()


def catalog_of(host: str, port: int, database: str) -> Catalog:
    """The one Catalog of a database. It lives as long as somebody uses it."""
    found = _catalogs.get((host, port, database))
    if found is None:
        found = _catalogs[host, port, database] = Catalog()
    found.age()
    return found


def forget() -> None:
    """Begin again, as a new process does. (Who has a Catalog keeps it.)"""
    _catalogs.clear()
