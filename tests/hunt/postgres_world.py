"""PostgreSQL for the hunt: two databases that are alike, dualpool in front of one, what a session holds, and when two answers are alike."""

import re
import time
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.helpers.pooler import Pooler
from tests.hunt.postgres_client import Answer, Client, unnumbered
from tests.hunt.postgres_sessions import CUSTOM, ROLES, SEEDED, SHARED, PostgresSessions
from tests.hunt.script import Message, Script
from tests.hunt.spelling import verbatim
from tests.hunt.world import ALWAYS, LOG_LINES, Session, Verdict

SCHEMA: Final = Path(__file__).with_name("postgres_schema.sql")
USER: Final = "hunt"
LOGINS: Final[tuple[dict[str, str], ...]] = (
    {},
    {"application_name": "hunter", "DateStyle": "German"},
    {"options": "-c work_mem=5MB -c hunt.c=options"},
    {"client_encoding": "LATIN1"},
    {"options": "-c search_path=other,public -c standard_conforming_strings=off"},
)
"""The kinds of login; a Script's `logins` are indices here."""

DDL: Final = re.compile(r"\b(?:create|alter|drop)\b|temp", re.IGNORECASE)
SEEDS: Final = (0.25, 0.5)
"""What scripts give to setseed()."""
OWN_ERRORS: Final = (
    # The first question of all, if its transaction has begun on a session that has had them.
    ("0A000", r"^whether this session has had temporary tables is not known in this transaction"),
    ("55000", r"^the last value of the sequence is not known in this transaction"),
    # EXECUTE of a name of the protocol in a simple query behind Bind or Execute without Sync.
    ("0A000", r"^a simple query behind an extended query without Sync cannot mean prepared statements by their names$"),
)
"""Errors of dualpool's own where a direct connection has a value: SQLSTATE, and what the text must contain. Each says what to do."""
STALE: Final = ("0A000", "cached plan must not change result type")
WRONG_NUMBER: Final = "wrong number of parameters for prepared statement"
UNFIT: Final = ("0A000", "42703", "42P01")
"""What is said of a statement whose table has changed; a server looks at its parameters first."""
INTERNAL: Final = "XX000"
"""A direct connection's internal error (`SET` in a simple query behind an extended one without Sync): nobody can do the same."""

CONFIGURATION: Final = """
[listeners.postgres]
protocol = "postgres"
bind = "127.0.0.1:0"
auth = "trust"
[backends.main]
url = "{url}"
budget = 16
reserved_maintenance = 1
[databases.one]
backend = "main"
database = "{database}"
pool_size = 1
pin = "allow"
{more}
[databases.two]
backend = "main"
database = "{database}"
pool_size = 2
pin = "allow"
{more}
[timeouts]
query_wait = "60s"
[users.hunt]
password = "hunt"
"""


def query(sql: str) -> Message:
    """A Query that is written as it is."""
    return Message("Query", (verbatim(sql),))


def custom_settings(*, placeholders: bool = True) -> str:
    """A query for all custom settings that scripts set; NULL is one that the session has never heard of, "" one that was set once."""
    asked = [f"current_setting(e'{name}', true)" for name in (*CUSTOM, SEEDED, "hunt.d")]
    return "select " + ", ".join(one if placeholders else f"coalesce({one}, '')" for one in asked).replace("ü", "\\u00fc")


HELD: Final = """select 'held',
 array(select concat_ws(' ', mode, classid, objid, objsubid) from pg_locks
  where pid = pg_backend_pid() and locktype = 'advisory' order by 1),
 array(select concat_ws(' ', relname, relkind) from pg_class where relnamespace = pg_my_temp_schema() order by 1),
 array(select proname from pg_proc where pronamespace = pg_my_temp_schema() order by 1),
 array(select concat_ws(' ', name, is_holdable) from pg_cursors where name <> '' order by 1),
 array(select concat_ws(' ', name, from_sql) from pg_prepared_statements order by 1),
 array(select c from pg_listening_channels() c order by 1),
 current_user, session_user, current_schemas(true), pg_my_temp_schema() <> 0"""
PREPARED_COLUMN: Final = 5
CHANNELS_COLUMN: Final = 6
"""Of HELD."""
SETTINGS: Final = "select string_agg(name || '=' || setting, chr(10) order by name) from pg_settings where strpos(name, '.') = 0"
"""Without those of libraries, which are loaded when a session first needs them."""


class PostgresWorld:
    """See World."""

    def __init__(
        self,
        host: str,
        port: int,
        user: str,
        password: str,
        *,
        program: list[str] | None = None,
        more: str = ALWAYS,
        blind: tuple[str, ...] = (),
    ) -> None:
        self.name = "postgres"
        self.address = (host, port)
        self.admin_account = {"host": host, "port": port, "user": user, "password": password}
        self.program, self.more, self.blind = program, more, blind
        self.pooler: Pooler | None = None
        self.is_replanned = False
        """The script has DDL, by which a server plans all that is prepared again: constants are then read by the settings of now
        (`PlanCacheSysCallback` in plancache.c). When it does that for a session is a matter of chance."""
        self._readings: set[tuple[bytes | None, ...]] = set()
        """The rows of texts that mean something else by other settings."""
        mark = f"{time.time_ns() // 1000 % 10**9:09d}"
        self.databases = {"direct": f"hunt{mark}_d", "pooled": f"hunt{mark}_p"}
        self.admins: dict[str, psycopg.Connection[Any]] = {}
        custom = custom_settings(placeholders="placeholders" not in blind)
        self.view = (query(SETTINGS), query(custom), query(HELD), *([] if "lastval" in blind else [query("select lastval()")]))
        self.probe = self.view
        self.release: tuple[Message, ...] = (query("commit"),)

    # ------------------------------------------------------------------------------------------------------ databases

    def __enter__(self) -> "PostgresWorld":
        with self._admin("postgres") as admin:
            self.version = admin.info.server_version // 10000
            self.name = f"postgres{self.version}"
            for role in (*ROLES, USER):
                options = " superuser login password 'hunt'" if role == USER else ""
                admin.execute(f"do $$begin create role {role}{options}; exception when duplicate_object or unique_violation then end$$")
            for database in self.databases.values():
                admin.execute(f"create database {database} owner {USER} template template0 encoding 'UTF8' locale 'C'")
        for side, database in self.databases.items():
            self.admins[side] = self._admin(database)
            self.admins[side].execute("set session authorization hunt")
            self.admins[side].execute(SCHEMA.read_text())
            self.admins[side].execute("set lock_timeout = '5s'")
        self.reset()
        self._predict()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for admin in self.admins.values():
            admin.close()
        with self._admin("postgres") as admin:
            for database in self.databases.values():
                admin.execute(f"drop database if exists {database} with (force)")

    def _admin(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.admin_account, dbname=database, autocommit=True, connect_timeout=60)

    def _predict(self) -> None:
        """What can be known of answers beforehand."""
        self._predict_readings()
        self._predict_seeds()

    def _predict_readings(self) -> None:
        with self._admin(self.databases["direct"]) as admin:
            for setting, value, text in SHARED:
                if setting == "search_path":
                    continue
                for change in (f"reset {setting}", f"set {setting} = '{value}'"):
                    admin.execute(change)
                    rows = admin.execute(text.replace("$1", "1")).fetchall()
                    self._readings.update(tuple(str(one).encode() for one in row) for row in rows)

    def _predict_seeds(self) -> None:
        """A probe must not get what random() gives after a seed that another client has set."""
        values: list[str] = []
        client = self.direct(0)
        assert isinstance(client, Client)
        client.read(30)
        for seed in SEEDS:
            client.send((query(f"select setseed({seed})"), *[query("select random()")] * 30))
            answer = client.read(30)
            assert answer is not None
            values += [str(unnumbered(body)[0], "ascii") for kind, body in answer.replies if kind == "D" if unnumbered(body)[0]]
        client.close()
        seeded = query(f"select random()::text in ({', '.join(map(repr, values))})")
        self.probe = (query("begin"), *self.view, seeded)
        client = self.direct(0)
        assert isinstance(client, Client)
        client.read(30)
        client.send(self.view[:3])
        answer = client.read(30)
        assert answer is not None
        assert not answer.errors, answer.errors
        client.close()

    def reset(self, used: str = "a0") -> None:
        """Both databases as at the beginning."""
        self.is_replanned = DDL.search(used) is not None
        for admin in self.admins.values():
            for attempt in range(3):
                try:
                    admin.execute("call hunt_reset(%s)", [re.search(r"\b[abef][0-3]\b", used) is not None])
                    break
                except psycopg.errors.LockNotAvailable:
                    if attempt == 2:
                        raise
                    self.kill()

    def kill(self, side: str = "pooled") -> None:
        """End dualpool's server connections, or the "direct" ones, and wait until they are gone."""
        admin, database = self.admins[side], self.databases[side]
        mine = f"from pg_stat_activity where datname = '{database}' and pid <> pg_backend_pid() and backend_type = 'client backend'"
        admin.execute(f"select pg_terminate_backend(pid) {mine}")
        deadline = time.monotonic() + 30
        while admin.execute(f"select 1 {mine} limit 1").fetchone() and time.monotonic() < deadline:
            time.sleep(0.002)

    # ------------------------------------------------------------------------------------------------------ clients

    def start(self) -> None:
        """A fresh dualpool."""
        host, port = self.address
        url = f"postgresql://{USER}:hunt@{host}:{port}"
        self.pooler = Pooler(CONFIGURATION.format(url=url, database=self.databases["pooled"], more=self.more), program=self.program)
        self.pooler.start()
        self.port = self.pooler.port()

    def stop(self) -> None:
        """End it."""
        if self.pooler is not None:
            self.pooler.kill()
            self.pooler = None

    def log(self) -> str:
        """The end of its log."""
        return "\n    ".join(self.pooler.log.splitlines()[-LOG_LINES:]) if self.pooler is not None else ""

    def direct(self, kind: int) -> Session:
        """A client with a connection of its own."""
        return Client(self.address, USER, "hunt", self.databases["direct"], **LOGINS[kind])

    def pooled(self, kind: int, pool_size: int) -> Session:
        """A client of dualpool."""
        return Client(("127.0.0.1", self.port), USER, "hunt", "one" if pool_size == 1 else "two", **LOGINS[kind])

    def log_in_differs(self, direct: Session, pooled: Session) -> str:
        """Do the ParameterStatus messages differ?"""
        assert isinstance(direct, Client)
        assert isinstance(pooled, Client)
        return self._parameters_differ(direct, pooled)

    def _parameters_differ(self, direct: Client, pooled: Client) -> str:
        names = direct.parameters.keys() | pooled.parameters.keys()
        pairs = [(n, direct.parameters.get(n), pooled.parameters.get(n)) for n in sorted(names)]
        return ", ".join(f"{n}: {d!r} / {p!r}" for n, d, p in pairs if d != p)

    def script(self, seed: str) -> Script:
        """A random script."""
        return PostgresSessions(seed).script()

    # ------------------------------------------------------------------------------------------------------ the judge

    def judge(self, direct: Answer, pooled: Answer) -> tuple[Verdict, str, str, str]:
        """Are the answers alike?"""
        if direct.replies == pooled.replies and not direct.closed and not pooled.closed:
            if self._notices(direct) != self._notices(pooled):
                return Verdict.DIFFERENT, "notices", str(direct.notices)[:600], str(pooled.notices)[:600]
            return Verdict.EQUAL, "", "", ""
        verdict = Verdict.EQUAL
        theirs, ours = segments(direct), segments(pooled)
        for i, (one, other) in enumerate(zip(theirs, ours, strict=False)):
            if one == other or [self._clean(r) for r in one] == [self._clean(r) for r in other]:
                continue
            if any(kind == "E" and isinstance(body, tuple) and body[0] == INTERNAL for kind, body in one):
                return Verdict.PARTED, "", "", ""
            if self.is_replanned and self._are_readings(one, other):
                verdict = Verdict.EXCUSED
                continue
            if is_documented(one, other) or is_refused_sooner(one, other) or (self.is_replanned and is_left_out(one, other)):
                verdict = Verdict.EXCUSED
                continue
            if self._is_own_error(pooled, other):
                verdict = Verdict.EXCUSED
                if one[-1] != other[-1] or one[-1] != ("Z", b"I") or has_done_more(one, other) or has_created(one):
                    return Verdict.PARTED, "", "", ""
                continue
            if is_unlistable(one, other) or is_fresh(one, other) or (self.is_replanned and is_not_prepared(one, other)):
                return Verdict.PARTED, "", "", ""
            if has_healed(one, other):
                # From now on the statements of the two have different shapes.
                return Verdict.PARTED, "", "", ""
            return Verdict.DIFFERENT, *first_unlike(i, one, other)
        if pooled.closed and not direct.closed and self._is_own_error(pooled, ours[-1]):
            return Verdict.PARTED, "", "", ""
        if len(theirs) != len(ours) or direct.closed != pooled.closed:
            return Verdict.DIFFERENT, "end", f"{theirs[-1]!r:.300} closed={direct.closed}", f"{ours[-1]!r:.300} closed={pooled.closed}"
        return verdict, "", "", ""

    def _are_readings(self, direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
        """Is the difference one of how a prepared text's constants are read? See `is_replanned`."""
        if [reply for reply in direct if reply[0] not in "DC"] != [reply for reply in pooled if reply[0] not in "DC"]:
            return False
        rows = [body for kind, body in (*direct, *pooled) if kind == "D" and isinstance(body, bytes)]
        return bool(rows) and all(tuple(unnumbered(body)) in self._readings for body in rows)

    def _notices(self, answer: Answer) -> list[tuple[str, str]]:
        return [(code, self._anonymous(text)) for code, text in answer.notices if code != "00000"]

    def _is_own_error(self, answer: Answer, segment: list[tuple[str, object]]) -> bool:
        """Is there an error of dualpool's own in it, of those that say what to do? A server's errors have a field R."""
        own = [(e["C"], e["M"]) for e in answer.errors if "R" not in e]
        return any(
            reply[0] == "E" and reply[1] in own and any(reply[1][0] == code and re.search(text, reply[1][1]) for code, text in OWN_ERRORS)
            for reply in segment
            if isinstance(reply[1], tuple)
        )

    def _clean(self, reply: tuple[str, object]) -> tuple[str, object]:
        kind, body = reply
        if kind == "D":
            assert isinstance(body, bytes)
            return kind, [value and self._anonymous(value.decode("latin-1")) for value in unnumbered(body)]
        if kind == "E":
            assert isinstance(body, tuple)
            return kind, (body[0], self._anonymous(body[1]))
        return reply

    def _anonymous(self, text: str) -> str:
        for database in self.databases.values():
            text = text.replace(database, "hunt_db")
        return re.sub(r"pg_temp_\d+|pg_toast_temp_\d+", "pg_temp_n", text)


def is_documented(direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
    """Does a look at what a session holds differ only in what the documentation says?

    pg_prepared_statements leaves out what cannot be prepared with the settings and tables of now; pg_listening_channels() leaves out what
    the shared connection listens to; and a schema for temporary tables with nothing in it is the server connection's.
    """
    if [kind for kind, _ in direct] != [kind for kind, _ in pooled]:
        return False
    for one, other in zip(direct, pooled, strict=True):
        if one == other:
            continue
        if one[0] != "D" or not isinstance(one[1], bytes) or not isinstance(other[1], bytes):
            return False
        theirs, ours = unnumbered(one[1]), unnumbered(other[1])
        if len(theirs) != len(ours) or theirs[:1] != [b"held"] or ours[:1] != [b"held"]:
            return False
        for column in (PREPARED_COLUMN, CHANNELS_COLUMN):
            if not elements(ours[column]) <= elements(theirs[column]):
                return False
        if theirs[2] == b"{}" and theirs[3] == b"{}" and theirs[-1] == b"t" and ours[-1] == b"f":
            theirs[-1], theirs[-2] = b"f", (theirs[-2] or b"").replace(b"pg_numbered,", b"").replace(b"pg_numbered", b"")
        kept = [i for i in range(len(theirs)) if i not in {PREPARED_COLUMN, CHANNELS_COLUMN}]
        if [theirs[i] for i in kept] != [ours[i] for i in kept]:
            return False
    return True


def is_left_out(direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
    """Does a list of names and texts of prepared statements leave out what cannot be prepared any more, as documented?"""
    rows, fewer = ([body for kind, body in replies if kind == "D"] for replies in (direct, pooled))
    others, same = ([kind for kind, _ in replies if kind != "D"] for replies in (direct, pooled))
    left = iter(rows)
    return others == same and len(fewer) < len(rows) and all(isinstance(row, bytes) and row[:2] == b"\0\2" and row in left for row in fewer)


def has_done_more(direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
    """Has the direct connection carried out more than the statement that dualpool refuses: what comes behind it, or what it undoes?"""
    refused = next(i for i, (kind, _) in enumerate(pooled) if kind == "E")
    return any(kind == "C" for kind, _ in pooled[:refused]) or sum(kind == "C" for kind, _ in direct[refused:]) > 1


def has_created(direct: list[tuple[str, object]]) -> bool:
    """Has the direct connection carried out CREATE TABLE AS? Its tag is that of a SELECT, and there are no rows."""
    told = any(kind == "D" for kind, _ in direct)
    return not told and any(kind == "C" and isinstance(tag, bytes) and re.match(rb"SELECT [1-9]", tag) is not None for kind, tag in direct)


def is_unlistable(direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
    """Has a look at pg_prepared_statements ended a transaction, since a statement cannot be prepared with the search path of now?

    Or a text with a mistake, by which it might have looked at them.
    """
    if len(pooled) != 2 or pooled[0][0] != "E" or not isinstance(pooled[0][1], tuple) or pooled[1] != ("Z", b"E"):
        return False
    if len(direct) == 2 and isinstance(direct[0][1], tuple) and direct[0][1][0] == "42601":
        return pooled[0][1][0] in {*UNFIT, "42883"}
    rows = [unnumbered(body) for kind, body in direct if kind == "D" and isinstance(body, bytes)]
    return pooled[0][1][0] in UNFIT and len(rows) == 1 and rows[0][:1] == [b"held"]


def elements(array: bytes | None) -> set[bytes]:
    """Of an array as text. (No name in it has a comma.)"""
    return {one for one in (array or b"{}")[1:-1].split(b",") if one}


def is_refused_sooner(direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
    """Both refuse to run a statement whose table has changed: dualpool at once, the server for its parameters (22...) first."""
    if not direct or is_said_sooner(direct, pooled):
        return bool(direct)
    if len(direct) != len(pooled):
        return False
    differing = [(one, other) for one, other in zip(direct, pooled, strict=True) if one != other]
    return len(differing) == 1 and are_errors_in_turn(*differing[0])


def are_errors_in_turn(direct: tuple[str, object], pooled: tuple[str, object]) -> bool:
    """Are both errors of a statement whose table has changed, of which dualpool looks at another one first?"""
    if direct[0] != "E" or pooled[0] != "E" or not isinstance(direct[1], tuple) or not isinstance(pooled[1], tuple):
        return False
    code, text = direct[1]
    is_of_parameters = code[:2] == "22" or code == "08P01" or (code == "42601" and text.startswith(WRONG_NUMBER))
    return is_of_parameters and pooled[1][0] in UNFIT


def is_said_sooner(direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
    """Do both say the same error, dualpool where a text with EXECUTE is prepared or bound, the server where it is described or runs?"""
    kinds, sooner = ("".join(kind for kind, _ in replies) for replies in (direct, pooled))
    if re.fullmatch("1?2?[nT]?EZ", kinds) is None or re.fullmatch("1?EZ", sooner) is None or direct[-1] != pooled[-1]:
        return False
    return direct[-2] == pooled[-2] or are_errors_in_turn(direct[-2], pooled[-2])


def is_fresh(direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
    """Has a client whose temporary objects are gone a server connection that never had any, as documented?"""
    refused = ("22023", 'invalid value for parameter "temp_buffers": ')
    kinds, done = ("".join(kind for kind, _ in replies) for replies in (direct, pooled))
    errors = [body for kind, body in direct if kind == "E" and isinstance(body, tuple)]
    return bool(errors) and kinds.replace("E", "C") == done and all((code, text[: len(refused[1])]) == refused for code, text in errors)


def is_not_prepared(direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
    """Has dualpool said at Parse of a text with EXECUTE what a server says when that runs: its statement's table has changed?"""
    error = pooled[-2][1] if len(pooled) > 1 else None
    kinds, sooner = ("".join(kind for kind, _ in replies).replace("3", "") for replies in (direct, pooled))
    return (kinds, sooner) == ("1Z", "EZ") and isinstance(error, tuple) and error[0] in UNFIT


def segments(answer: Answer) -> list[list[tuple[str, object]]]:
    """The replies up to each ReadyForQuery."""
    found: list[list[tuple[str, object]]] = [[]]
    for reply in answer.replies:
        found[-1].append(reply)
        if reply[0] == "Z":
            found.append([])
    return found if found[-1] or len(found) == 1 else found[:-1]


def has_healed(direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> bool:
    """Has dualpool prepared a statement again that a change of its table made unfit, and told the client of the new columns?

    A direct connection answers 0A000 (cached plan must not change result type). An EXECUTE with a wrong number of parameters is refused
    for that behind the columns.
    """
    refused = any(kind == "E" and isinstance(body, tuple) and body[0] == "0A000" for kind, body in direct)
    others = [body for kind, body in pooled if kind == "E" and not (isinstance(body, tuple) and body[1].startswith(WRONG_NUMBER))]
    kinds = "".join(kind for kind, _ in pooled)
    return refused and not others and "T" in re.split("[DE]", kinds)[0]


def first_unlike(index: int, direct: list[tuple[str, object]], pooled: list[tuple[str, object]]) -> tuple[str, str, str]:
    """What differs first, as a short name, and both sides of it."""
    for one, other in zip([*direct, ("nothing", b"")], [*pooled, ("nothing", b"")], strict=False):
        if one != other:
            kinds = one[0] if one[0] == other[0] else f"{one[0]} or {other[0]}"
            detail = f" {one[1][0]} or {other[1][0]}" if one[0] == other[0] == "E" else ""  # type: ignore[index]
            return f"answer {index + 1}, {kinds}{detail}", shown(one, other), shown(other, one)
    return f"answer {index + 1}", str(direct)[:300], str(pooled)[:300]


def shown(reply: tuple[str, object], other: tuple[str, object]) -> str:
    """A reply as text; of a long row only the lines that the other one does not have."""
    if reply[0] != "D":
        return f"{reply[0]} {reply[1]!r:.400}"
    assert isinstance(reply[1], bytes)
    theirs = (
        set(b"\n".join(v or b"" for v in unnumbered(other[1])).split(b"\n")) if isinstance(other[1], bytes) and other[0] == "D" else set()
    )
    values = unnumbered(reply[1])
    if len(reply[1]) > 2000:
        return str([line.decode("utf8", "replace") for v in values for line in (v or b"").split(b"\n") if line not in theirs])[:800]
    return str([v and v.decode("utf8", "replace") for v in values])[:800]
