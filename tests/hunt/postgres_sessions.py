"""What clients of PostgreSQL do: a random script is made of small scenes, each of one client, in all spellings and ways to send it."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.hunt.script import Kill, Leave, Message, Probe, Say, Script, Step, View
from tests.hunt.spelling import Lit, Name, PostgresSpeller, Text, joined, verbatim

CLIENTS: Final = 4
CUSTOM: Final = ("hunt.a", "hunt.b", "hunt.c", "hunt.Mixed", "hunt.ü")
SEEDED: Final = "hunt.seeded"
"""Set with the seed of random()."""
VALUES: Final = (
    "1",
    "left",
    "",
    "it's",
    "München",
    "a\\",
    "\\",
    "C:\\temp\\new",
    "; commit; create table pwned(a int); --",
    "表ソ",
    "x" * 300,
    "a\nb",
)
SETTINGS: Final = {
    "work_mem": ("7MB", "7777kB"),
    "statement_timeout": ("77s", "0"),
    "lock_timeout": ("66s",),
    "idle_in_transaction_session_timeout": ("99s",),
    "datestyle": ("German", "SQL, DMY", "ISO, MDY"),
    "timezone": ("Asia/Tokyo", "UTC", "-3"),
    "intervalstyle": ("iso_8601", "sql_standard"),
    "search_path": ("public, pg_catalog", "other, public", "", "pg_temp, public", "schéma, public"),
    "standard_conforming_strings": ("on", "off"),
    "backslash_quote": ("on", "off", "safe_encoding"),
    "escape_string_warning": ("off",),
    "bytea_output": ("escape",),
    "extra_float_digits": ("0",),
    "application_name": ("hunter", "hünter", "it's"),
    "default_transaction_isolation": ("serializable", "repeatable read"),
    "default_transaction_read_only": ("on", "off"),
    "default_transaction_deferrable": ("on",),
    "row_security": ("off",),
    "client_min_messages": ("debug5", "warning", "error"),
    "enable_seqscan": ("off",),
    "plan_cache_mode": ("force_generic_plan",),
    "lc_messages": ("C",),
    "check_function_bodies": ("off",),
    "session_replication_role": ("replica",),
    "default_tablespace": ("",),
    "xmloption": ("document",),
    "array_nulls": ("off",),
    "transform_null_equals": ("on",),
    "quote_all_identifiers": ("on",),
    "geqo_threshold": ("5",),
}
ENCODINGS: Final = {"utf8": "utf8", "latin1": "latin-1", "sjis": "shift_jis", "big5": "big5", "gbk": "gbk", "gb18030": "gb18030",
                    "win1252": "cp1252", "euc_jp": "euc_jp", "sql_ascii": "utf8"}  # fmt: skip
HIDING: Final = {"shift_jis": "表", "big5": "功", "gbk": "縗", "gb18030": "縗"}
"""Letters whose last byte is a backslash in that encoding."""
SHARED: Final = (
    ("datestyle", "German", "select date '01/02/2024' - date '2024-01-01', $1::int"),
    ("timezone", "Asia/Tokyo", "select extract(epoch from timestamptz '2024-01-01 00:00'), $1::int"),
    ("intervalstyle", "sql_standard", "select extract(epoch from interval '-1 2:03:04'), $1::int"),
    ("search_path", "other, public", "select v, $1::int from hunt_where"),
    ("standard_conforming_strings", "off", "select length('a\\b'), $1::int"),
    ("transform_null_equals", "on", "select 1 where $1::int = null"),
)
"""A setting, a value of it, and a text that means something else by it."""
ROLES: Final = ("hunt_reader", "hunt_writer")
CHANNELS: Final = ("c1", "c2", "C 3")
RESETS: Final = re.compile(r"reset|default|discard", re.IGNORECASE)
"""Statements that give settings back what they were at the start of the session."""
FORGETS: Final = re.compile(r"deallocate|discard", re.IGNORECASE)
Scene = Callable[["PostgresSessions"], None]


@dataclass
class Model:
    """What the generator thinks of a client: only so that most of what it does makes sense."""

    index: int
    login: int = 0
    in_transaction: bool = False
    encoding: str = "utf8"
    statements: dict[str, int] = field(default_factory=dict)
    cursors: list[str] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    seeded: bool = False


class PostgresSessions:
    """Makes scripts from a seed."""

    def __init__(self, seed: str, *, kills: bool = True) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.kills = kills
        self.steps: list[Step] = []
        self.me = Model(0)
        self.models = [self.me]

    def script(self) -> Script:
        """A script of one to four clients."""
        rng = self.rng
        count = rng.choice((1, 1, 2, 2, 3, CLIENTS))
        logins = tuple(rng.choice((0, 0, 0, 1, 2, 3, 4)) for _ in range(CLIENTS))
        models = [Model(i, logins[i]) for i in range(count)]
        self.models = models
        self.wildness = rng.choice((0.0, 0.05, 0.15, 0.4))
        if rng.random() < 0.1:
            self.steps.append(Probe(new=False))
        for _ in range(rng.choice((1, 2, 3, 5, 8))):
            self.me = rng.choice(models)
            before = len(self.steps)
            self.scene()
            self._interleave(before)
            if rng.random() < 0.6:
                self.steps.append(self.a_probe())
            if rng.random() < 0.3:
                self.steps.append(View(rng.choice(models).index))
            if self.kills and rng.random() < 0.03:
                self.steps.append(Kill())
        rng.shuffle(models)
        for model in models:
            if rng.random() < 0.5:
                self.steps.append(View(model.index))
            self.steps.append(Leave(model.index, rng.random() < 0.3))
            self.steps.append(self.a_probe())
        return Script(self.seed, rng.choice((1, 1, 2)), logins, tuple(self.steps))

    def a_probe(self) -> Probe:
        """A probe."""
        return Probe(self.rng.random() < 0.6, self.rng.random() < 0.3)

    def scene(self) -> None:
        """One scene of the client."""
        names, weights = zip(*SCENES, strict=True)
        scene: Scene = self.rng.choices(names, weights)[0]
        scene(self)

    def _interleave(self, start: int) -> None:
        """Clients' scenes are now and then mixed."""
        if self.rng.random() < 0.2 and start:
            mine = self.steps[start:]
            del self.steps[start:]
            at = self.rng.randrange(start + 1)
            for step in mine:
                self.steps.insert(at, step)
                at = self.rng.randrange(at + 1, len(self.steps) + 1)

    # ------------------------------------------------------------------------------------------------------ how it is sent

    def sql(self, template: str, **values: object) -> Text:
        """A template in the spelling of the day."""
        return PostgresSpeller(self.rng, self.wildness, self.me.encoding)(template, **values)

    def say(self, *messages: Message) -> None:
        """A step of the client."""
        cuts = tuple(round(self.rng.random(), 3) for _ in range(self.rng.randrange(1, 4))) if self.rng.random() < 0.1 else ()
        self.steps.append(Say(self.me.index, messages, cuts))

    def run(self, text: Text) -> None:
        """Send a statement, one way or the other."""
        rng = self.rng
        way = rng.random()
        if self._resets_login(text):
            # What a start-up packet has set is there again when the answer is there: documented.
            self.say(Message("Query", (text,)))
        elif way < 0.45:
            self.say(Message("Query", (text,)))
        elif way < 0.6:
            around = [self.sql("select 1"), text, self.sql("select 'b'")]
            self.say(Message("Query", (joined(around[rng.randrange(2) : rng.randrange(2, 4)], rng.choice(("; ", ";", ";;\n"))),)))
        elif way < 0.8:
            self.say(*self.extended(text))
        elif way < 0.87:
            self.say(*self.extended(text), *self.extended(self.sql("select 2")))
        elif way < 0.93:
            self.say(Message("Query", (self.sql("select 3"),)), Message("Query", (text,)), Message("Query", (self.sql("show work_mem"),)))
        else:
            name = f"p{rng.randrange(3)}"
            self.say(Message("Close", ("S", name)), Message("Parse", (name, text)), Message("Sync"))
            for _ in range(rng.randrange(1, 3)):
                self.say(Message("Bind", ("", name, rng.random() < 0.2)), Message("Execute", ("", 0)), Message("Sync"))

    def extended(self, text: Text, *values: str | None, sync: bool = True) -> list[Message]:
        """The messages of an unnamed statement."""
        describe = [Message("Describe", ("P", ""))] if self.rng.random() < 0.5 else []
        return [
            Message("Parse", ("", text)),
            Message("Bind", ("", "", self.rng.random() < 0.1, *values)),
            *describe,
            Message("Execute", ("", 0)),
            *([Message("Sync")] if sync else []),
        ]

    def _resets_login(self, text: Text) -> bool:
        """May `text` take away what the client's start-up packet has set?"""
        return bool(self.me.login) and RESETS.search(str(text)) is not None

    def run_all(self, texts: list[Text]) -> None:
        """Several statements: as one text, as several, in one transaction or each in its own."""
        if len(texts) > 1 and not any(map(self._resets_login, texts)) and self.rng.random() < 0.35:
            self.say(Message("Query", (joined(texts),)))
            return
        for text in texts:
            self.run(text)

    # ------------------------------------------------------------------------------------------------------ what changes a session

    def a_setting(self) -> tuple[str, str]:
        """A name and a value."""
        rng = self.rng
        if rng.random() < 0.5:
            return rng.choice(CUSTOM[:3] if rng.random() < 0.8 else CUSTOM), rng.choice(VALUES)
        name = rng.choice(list(SETTINGS))
        return name, rng.choice(SETTINGS[name])

    def a_key(self) -> int:
        """The key of a lock that only this client takes."""
        return 100 + 10 * self.me.index + self.rng.randrange(3)

    def expression(self) -> Text:
        """An expression that changes the session, or seems to."""
        rng, i, key = self.rng, self.me.index, self.a_key()
        name, value = self.a_setting()
        local = rng.choice(("false", "false", "false", "true"))
        given = {"n": Lit(name), "v": Lit(value), "l": local, "k": key, "s": Lit(f"s{i}")}
        choices = (
            "~set_config({n}, {v}, {l})",
            "~set_config({n}, {v}, {l})",
            "pg_catalog.~set_config({n}, {v}, {l})",
            "~~pg_advisory_lock({k})::text",
            "~pg_try_advisory_lock({k})",
            "~pg_try_advisory_lock_shared({k})",
            "~pg_try_advisory_lock({k}, 1)",
            "~pg_try_advisory_xact_lock({k})",
            "~pg_advisory_unlock({k})",
            "~pg_advisory_unlock_all()::text",
            "~nextval({s})",
            "~currval({s})",
            "~lastval()",
            "~hunt_set({n}, {v}, {l})",
            "public.~hunt_set({n}, {v}, {l})",
            "~hunt_lock({k})",
            "~hunt_next({s})",
            "~hunt_if(7)",
            "~hunt_if(1)",
            "~hunt_unmarked(1)",
            "~hunt_harmless(1)",
            "~hunt_leading(1)",
            "3 operator(public.###) 4",
            "~current_setting({n}, true)",
            "~hunt_temp('tt' || {k})",
            "~pg_notify('c1', {v})::text",
        )
        return self.sql(rng.choice(choices), **given)

    def carried(self, e: Text) -> list[Text]:
        """Statements that carry an expression."""
        rng, i = self.rng, self.me.index
        body = Lit(f"begin perform {e}; end")
        choices: tuple[tuple[str, ...], ...] = (
            ("select {e}",),
            ("select {e}",),
            ("select {e} as x, 1 where true",),
            ("select * from (select {e} as x) as s",),
            ("values ({e})",),
            ("with w as materialized (select {e} as x) select x from w",),
            ("select v from ~t0 order by id limit 1 + length(({e})::text) * 0",),
            ("insert into ~n{i}(v) values (({e})::text)",),
            ("insert into ~n{i}(v) select ({e})::text returning v",),
            ("update ~t{i} set v = ({e})::text where id = 1",),
            ("delete from ~t{i} where id = 2 and ({e}) is not null",),
            ("merge into ~t{i} as t using (select 1 as id) as s on t.id = s.id when matched then update set v = ({e})::text",),
            ("copy (select {e}) to stdout",),
            ("explain (analyze, costs off, timing off, summary off, buffers off) select {e}",),
            ("do {body}",),
            ("do language plpgsql {body}",),
            ("create table b{i} as select {e} as x", "drop table b{i}"),
            ("begin", "declare c no scroll cursor for select {e}", "fetch all from c", "commit"),
            ("prepare q{i} as select {e}", "execute q{i}", "deallocate q{i}"),
            ("select case when true then ({e})::text else 'x' end",),
            ("select 1 union all select length(({e})::text)",),
            ("begin", "select {e}", "commit"),
            ("begin", "select {e}", "rollback"),
            ("begin", "savepoint a", "select {e}", "rollback to savepoint a", "commit"),
            ("begin", "savepoint a", "select {e}", "release a", "commit"),
            ("begin isolation level serializable", "select {e}", "commit and chain", "rollback"),
            ("select 1/0 where ({e}) is not null",),
            ("select hunt_exec({inner})",),
            ("select {e} \\gset",),
        )
        inner = Lit(f"select {e}")
        return [self.sql(text.replace("{i}", str(i)), e=e, body=body, inner=inner) for text in rng.choice(choices)]

    def statement(self) -> list[Text]:
        """Statements that change the session by themselves."""
        rng, i = self.rng, self.me.index
        name, value = self.a_setting()
        choices: tuple[tuple[str, ...], ...] = (
            ("set {n} = {v}",),
            ("set {n} = {v}",),
            ("set session {n} to {v}",),
            ("set local {n} = {v}",),
            ("begin", "set local {n} = {v}", "commit"),
            ("begin", "set {n} = {v}", "commit"),
            ("begin", "set {n} = {v}", "rollback"),
            ("begin", "savepoint a", "set {n} = {v}", "rollback to a", "commit"),
            ("begin", "set local temp_buffers = 1000", "commit"),
            ("set {n} to default",),
            ("reset {n}",),
            ("reset all",),
            ("set time zone {z}",),
            ("set time zone interval '+02:00' hour to minute",),
            ("set time zone local",),
            ("set role {r}",),
            ("set local role {r}",),
            ("set role none",),
            ("reset role",),
            ("set session authorization {r}",),
            ("set session authorization default",),
            ("reset session authorization",),
            ("set session characteristics as transaction isolation level repeatable read, read only",),
            ("set session characteristics as transaction read write, isolation level read committed",),
            ("set schema {sp}",),
            ("update ~pg_settings set setting = {w} where name = 'work_mem'",),
            ("update pg_catalog.~pg_settings set setting = {w} where name = 'work_mem' returning name",),
            ("create temp table ~tt{i}(a int)",),
            ("create temporary table if not exists ~tt{i}(a int)",),
            ("create local temp table ~tt{i}(a int) on commit preserve rows",),
            ("begin", "create temp table ~tt{i}(a int) on commit drop", "commit"),
            ("create temp table ~tt{i} as select 1 as a",),
            ("create table pg_temp.~tt{i}(a int)",),
            ("select 1 as a into temp ~tt{i}",),
            ("select 1 as a into temporary table ~tt{i}",),
            ("create temp view ~tv{i} as select 1 as a",),
            ("create or replace temp view ~tv{i} as select 1 as a",),
            ("create temp sequence ~ts{i}",),
            ("create function pg_temp.~tf{i}() returns int language sql as 'select 1'",),
            ("create type pg_temp.~ty{i} as (a int)",),
            ("set search_path = pg_temp, public", "create table ~tt{i}(a int)"),
            ("drop table ~tt{i}",),
            ("drop table if exists ~tt{i}, b{i}",),
            ("begin", "declare ~h{i} cursor with hold for select generate_series(1, 3)", "commit"),
            ("declare ~h{i} scroll cursor with hold for values (1), (2)",),
            ("begin", "select hunt_cursor()", "fetch 1 from hunt_ref", "commit"),
            ("close ~h{i}",),
            ("close all",),
            ("prepare ~q{i} as select 1",),
            ("prepare ~q{i}(int) as select $1 + 1",),
            ("deallocate ~q{i}",),
            ("deallocate all",),
            ("deallocate prepare all",),
            ("listen {c}",),
            ("unlisten {c}",),
            ("unlisten *",),
            ("notify {c}, {v}",),
            ("discard all",),
            ("discard temp",),
            ("discard plans",),
            ("discard sequences",),
            ("select setseed(0.25)",),
            ("call hunt_proc({nl}, {v})",),
            ("call hunt_quiet(1)",),
            ("select * from ~hunt_view",),
            ("table ~hunt_view",),
            ("select * from ~hunt_plain_view",),
            ("insert into ~hunt_default(id) values (1)",),
            ("insert into ~hunt_default values (1, default)",),
            ("insert into ~hunt_plain values (1, 'x')",),
            ("insert into ~hunt_checked values (1, 'x')",),
            ("select {v}::hunt_domain",),
            ("select cast({v} as hunt_domain)",),
            ("update ~hunt_ruled set v = 'b' where id = {i}",),
            ("insert into ~hunt_triggered values ({nl}, {v})",),
            ("insert into ~hunt_counted values (1)",),
            ("select 3 ### 4",),
            ("create or replace function f{i}() returns int language sql begin atomic select 1; end", "set {n} = {v}"),
            (
                "create or replace function f{i}() returns int language sql begin atomic select case when true then 1 end; end",
                "set {n} = {v}",
            ),
            ("create or replace function f{i}() returns text language sql as {fbody}", "select f{i}()"),
            ("load 'auto_explain'",),
            ("set constraints all deferred",),
            ("begin", "set transaction isolation level serializable, read only", "select 1", "commit"),
            ("lock table ~t{i}",),
            ("begin", "lock table ~t{i} in exclusive mode", "commit"),
            ("alter table ~t{i} add column if not exists w int default set_config('hunt.b', 'by alter', false)::int", "select 1"),
            ("refresh materialized view hunt_none",),
            ("import foreign schema x from server y into z",),
            ("security label on table t{i} is 'x'",),
        )
        values = {
            "n": Name(name),
            "nl": Lit(name),
            "v": Lit(value),
            "z": Lit(rng.choice(SETTINGS["timezone"])),
            "r": rng.choice(ROLES),
            "c": Name(rng.choice(CHANNELS).replace(".", "_")),
            "w": Lit(rng.choice(("7777", "8888"))),
            "sp": Lit(rng.choice(("public", "other"))),
            "fbody": Lit(f"select set_config('hunt.c', '{rng.randrange(9)}', false)"),
        }
        return [self.sql(text.replace("{i}", str(i)), **values) for text in rng.choice(choices)]

    def reading(self) -> list[Text]:
        """Statements that tell what the session holds."""
        rng, i = self.rng, self.me.index
        name, value = self.a_setting()
        choices: tuple[tuple[str, ...], ...] = (
            ("show {n}",),
            ("show all",) if rng.random() < 0.02 else ("show search_path",),
            ("select ~current_setting({nl}, true)",),
            ("select current_user, session_user",),
            ("select * from ~tt{i}",),
            ("insert into ~tt{i} values (1)",),
            ("select * from ~tv{i}",),
            ("fetch 1 from ~h{i}",),
            ("fetch all in ~h{i}",),
            ("execute ~q{i}",),
            ("execute ~q{i}(1)",),
            ("select ~currval({s})",),
            ("select ~lastval()",),
            ("select ~nextval({s})",),
            ("select {v}",),
            ("select {v}, E'a\\\\b', U&'\\0041'",),
            ("select * from ~t{i} order by id",),
            ("insert into ~t{i} values (9, {v}) on conflict (id) do update set v = excluded.v",),
            ("select name, statement from pg_prepared_statements order by 1",),
            ("select timestamptz '2024-02-03 04:05:06+00', interval '1 day 2 hours', bytea '\\x41', 1.1::float8",),
            ("select pg_advisory_unlock({k})",),
        )
        given = {"n": Name(name), "nl": Lit(name), "v": Lit(value), "s": Lit(f"s{i}"), "k": self.a_key()}
        return [self.sql(text.replace("{i}", str(i)), **given) for text in rng.choice(choices)]

    # ------------------------------------------------------------------------------------------------------ scenes

    def by_expression(self) -> None:
        """A statement that calls something."""
        self.run_all(self.carried(self.expression()))

    def by_statement(self) -> None:
        """A statement of its own kind, as it is or made up by another."""
        texts = self.statement()
        way = self.rng.random()
        if any(map(self._resets_login, texts)) or any(
            "deallocate" in str(text).lower() or "discard" in str(text).lower() for text in texts
        ):
            pass  # what a function deallocates is there again
        elif way < 0.1:
            texts = [self.sql("do {b}", b=Lit(f"begin execute {self.sql('{s}', s=Lit(str(text)))}; end")) for text in texts]
        elif way < 0.2:
            texts = [self.sql("select ~hunt_exec({s})", s=Lit(str(text))) for text in texts]
        elif way < 0.3:
            texts = [self.sql("begin"), *texts, self.sql(self.rng.choice(("commit", "rollback", "end", "abort", "commit work")))]
        self.run_all(texts)

    def by_reading(self) -> None:
        """A look at the session."""
        self.run_all(self.reading())

    def by_parameter(self) -> None:
        """A value bound as a parameter."""
        name, value = self.a_setting()
        data = value.encode(self.me.encoding, "replace").decode("latin-1").encode("latin-1")
        text = self.sql(
            self.rng.choice(("select ~set_config($1, $2, false)", "select ~hunt_set($1, $2, false)", "select ~hunt_exec($1 || $2)"))
        )
        self.say(
            Message("Parse", ("", text)), Message("Bind", ("", "", False, name, data)), Message("Execute", ("", 0)), Message("Sync")
        )  # fmt: skip

    def by_same_text(self) -> None:
        """One text many times with a harmless value, then with one that is not."""
        text = self.sql("select hunt_if($1)")
        name = f"r{self.rng.randrange(2)}"
        self.say(Message("Close", ("S", name)), Message("Parse", (name, text)), Message("Sync"))
        for value in [*["1"] * self.rng.randrange(5), "7"]:
            self.say(Message("Bind", ("", name, False, value)), Message("Execute", ("", 0)), Message("Sync"))

    def by_encoding(self) -> None:
        """Another character set, and strings whose bytes look like quotes and backslashes."""
        theirs, ours = self.rng.choice(list(ENCODINGS.items()))
        self.run(self.sql(self.rng.choice(("set client_encoding = {e}", "set names {e}", "set client_encoding to {e}")), e=Lit(theirs)))
        self.me.encoding = ours
        letter = HIDING.get(ours, "é")
        way = self.rng.randrange(4)
        if way == 0:
            self.say(Message("Query", (verbatim(f"select E'{letter}'; set hunt.a = 'left'; select ''", ours),)))
        elif way == 1:
            self.run(self.sql("select {v}", v=Lit(letter)))
        elif way == 2:
            self.run(self.sql("set hunt.b = {v}", v=Lit(letter + "'" + letter)))
        if self.rng.random() < 0.5:
            self.run(self.sql("reset client_encoding"))
            self.me.encoding = "utf8"

    def by_backslash(self) -> None:
        """Strings that end otherwise than they seem to."""
        self.run(self.sql("set standard_conforming_strings = off"))
        name, value = self.a_setting()
        hidden = self.sql(self.rng.choice(("set {n} = {v}", "select set_config({l}, {v}, false)")), n=Name(name), v=Lit(value), l=Lit(name))
        self.say(Message("Query", (verbatim(f"select 'a\\'b'; {hidden}; select 'x'"),)))
        if self.rng.random() < 0.7:
            self.run(self.sql("reset standard_conforming_strings"))

    def by_statement_of_protocol(self) -> None:
        """Named statements and portals, over several leases."""
        rng, me = self.rng, self.me
        name = f"p{rng.randrange(3)}"
        table = f"a{me.index}"
        text = self.sql(rng.choice(("select id, v from {t}", "select * from {t} where id = $1", "insert into {t}(id, v) values ($1, 5)",
                                    "show work_mem", "select now() < $1::timestamptz, $1::date",
                                    "select {e}")), t=table, e=self.expression())  # fmt: skip
        count = "$1" in str(text)
        values = ["1" if "id" in str(text) else "2024-02-03"] if count else []
        self.say(Message("Close", ("S", name)), Message("Parse", (name, text)), Message("Describe", ("S", name)), Message("Sync"))
        for _ in range(rng.randrange(1, 4)):
            if rng.random() < 0.4:
                change = rng.choice(
                    (
                        "alter table {t} alter v type bigint",
                        "alter table {t} alter v type real",
                        "alter table {t} drop column v",
                        "alter table {t} add column v int default 3",
                        "alter table {t} add column w text default 'w'",
                        "set datestyle = 'German'",
                        "set timezone = 'Asia/Tokyo'",
                        "set search_path = other, public",
                        "drop table {t}; create table {t}(v text, id int)",
                    )
                )
                self.say(Message("Query", (self.sql(change, t=table),)))
            describe = [Message("Describe", ("P", ""))] if rng.random() < 0.4 else []
            self.say(
                Message("Bind", ("", name, rng.random() < 0.3, *values)),
                *describe,
                Message("Execute", ("", 0)),
                *([Message("Bind", ("", name, False, *values)), Message("Execute", ("", 0))] if rng.random() < 0.2 else []),
                Message("Sync"),
            )
            if rng.random() < 0.3:
                self.steps.append(self.a_probe())
        if rng.random() < 0.2:
            self.run(self.sql("execute {n}", n=Name(name)))
        if rng.random() < 0.3:
            self.say(Message("Query", (self.sql(rng.choice(("deallocate {n}", "deallocate all", "discard all")), n=Name(name)),)))

    def by_shared_text(self) -> None:
        """One of few texts, which mean something else by each client's settings."""
        rng = self.rng
        name, value, text = rng.choice(SHARED)
        if rng.random() < 0.5:
            self.run(self.sql("set {n} = {v}", n=Name(name), v=Lit(value)))
        self.say(Message("Close", ("S", "z")), Message("Parse", ("z", verbatim(text))), Message("Describe", ("S", "z")), Message("Sync"))
        for _ in range(rng.randrange(1, 3)):
            self.say(Message("Bind", ("", "z", False, "1")), Message("Execute", ("", 0)), Message("Sync"))
            if rng.random() < 0.3:
                self.run(self.sql(rng.choice(("reset {n}", "set {n} = {v}")), n=Name(name), v=Lit(value)))

    def by_text_of_two(self) -> None:
        """One of these texts, prepared by two clients with different settings, and used by both."""
        name, value, text = self.rng.choice(SHARED)
        prepared = (Message("Close", ("S", "z")), Message("Parse", ("z", verbatim(text))), Message("Describe", ("S", "z")), Message("Sync"))
        used = (Message("Bind", ("", "z", False, "1")), Message("Execute", ("", 0)), Message("Sync"))
        me = self.me
        self.say(*prepared)
        self.say(*used)
        if self.rng.random() < 0.5:
            # The same client reads it otherwise by now, and still means what it meant.
            self.say(Message("Query", (self.sql("set {n} = {v}", n=Name(name), v=Lit(value)),)))
            self.steps.append(self.a_probe())
            self.say(*used)
        self.me = self.rng.choice([model for model in self.models if model is not me] or [me])
        self.run(self.sql("set {n} = {v}", n=Name(name), v=Lit(value)))
        self.say(*prepared)
        self.say(*used)
        self.me = me
        self.say(*used)

    def by_prepare(self) -> None:
        """PREPARE, and a look by somebody else at once."""
        self.say(Message("Query", (self.sql(f"prepare ~q{self.me.index} as select 1"),)))
        self.steps.append(self.a_probe())

    def by_portal(self) -> None:
        """A portal that is read in parts, in a transaction."""
        text = self.sql("select generate_series(1, 3), {e}", e=self.expression())
        self.say(
            Message("Parse", ("", self.sql("begin"))), Message("Bind", ("", "", False)), Message("Execute", ("", 0)),
            Message("Parse", ("", text)), Message("Bind", ("w", "", False)), Message("Execute", ("w", 1)), Message("Sync"),
        )  # fmt: skip
        if self.rng.random() < 0.7:
            self.say(Message("Execute", ("w", 0)), Message("Sync"))
        self.run(self.sql(self.rng.choice(("commit", "rollback"))))

    def by_transaction(self) -> None:
        """A transaction with several steps of any kind, errors among them."""
        rng = self.rng
        self.run(
            self.sql(rng.choice(("begin", "start transaction", "begin work", "begin isolation level repeatable read", "begin read only")))
        )
        for _ in range(rng.randrange(1, 4)):
            way = rng.random()
            if way < 0.15:
                self.run(self.sql(rng.choice(("select 1/0", "select nothing", "savepoint a", "rollback to a", "release a"))))
            else:
                self.run_all(self.carried(self.expression()) if way < 0.6 else self.statement() if way < 0.85 else self.reading())
            if rng.random() < 0.2:
                self.steps.append(self.a_probe())
        self.run(self.sql(rng.choice(("commit", "commit", "rollback", "end", "abort", "rollback and chain", "commit and chain"))))
        if rng.random() < 0.8:
            self.run(self.sql("rollback"))

    def by_pipeline(self) -> None:
        """Many messages in one send, an error in the middle perhaps."""
        messages: list[Message] = []
        for _ in range(self.rng.randrange(2, 6)):
            texts = self.carried(self.expression()) if self.rng.random() < 0.5 else self.statement()
            if self.rng.random() < 0.15 or any(map(self._resets_login, texts)):
                texts = [self.sql("select 1/0")]
            for text in texts:
                if self.rng.random() < 0.4:
                    messages.append(Message("Query", (text,)))
                else:
                    messages += self.extended(text, sync=self.rng.random() < 0.7)
        self.say(*messages, Message("Sync"))

    def by_copy(self) -> None:
        """COPY in, maybe into a table whose trigger sets something."""
        rng, i = self.rng, self.me.index
        name = rng.choice(CUSTOM[:3])
        into, data = rng.choice(
            (
                (f"~n{i}(v)", b"one\ntwo\n"),
                ("~hunt_triggered", name.encode("utf8") + b"\t1\n"),
                ("~hunt_default(id)", b"1\n"),
                ("~hunt_counted", b"1\n2\n"),
            )
        )
        self.say(
            Message("Query", (self.sql("copy {t} from stdin", t=into),)), Message("CopyData", (data,)), Message("CopyDone"),
        )  # fmt: skip

    def by_seed(self) -> None:
        """random() as a seed has it, if the seed was set: in a failed transaction it is not."""
        self.run(verbatim(f"select setseed(0.5), set_config('{SEEDED}', 'yes', false)"))
        self.steps.append(self.a_probe())
        self.run(verbatim(f"select case when current_setting('{SEEDED}', true) = 'yes' then random() end"))

    def by_bad_message(self) -> None:
        """Errors of the protocol that leave the connection in use."""
        self.say(
            *self.rng.choice(
                (
                    (Message("Bind", ("", "unknown", False)), Message("Execute", ("", 0)), Message("Sync")),
                    (Message("Execute", ("unknown", 0)), Message("Sync")),
                    (Message("Describe", ("S", "unknown")), Message("Sync")),
                    (Message("Parse", ("", verbatim("select ("))), Message("Query", (verbatim("select 1"),)), Message("Sync")),
                    (Message("Sync"),),
                    (Message("Query", (verbatim(""),)),),
                    (Message("Query", (verbatim(";;"),)),),
                    (Message("Parse", ("p1", verbatim("select 1"))), Message("Parse", ("p1", verbatim("select 1"))), Message("Sync")),
                    (Message("Close", ("S", "unknown")), Message("Close", ("P", "unknown")), Message("Sync")),
                )
            )
        )


SCENES: Final[tuple[tuple[Scene, int], ...]] = (
    (PostgresSessions.by_expression, 30),
    (PostgresSessions.by_statement, 40),
    (PostgresSessions.by_reading, 15),
    (PostgresSessions.by_parameter, 4),
    (PostgresSessions.by_same_text, 1),
    (PostgresSessions.by_encoding, 4),
    (PostgresSessions.by_backslash, 3),
    (PostgresSessions.by_statement_of_protocol, 8),
    (PostgresSessions.by_shared_text, 3),
    (PostgresSessions.by_text_of_two, 6),
    (PostgresSessions.by_prepare, 2),
    (PostgresSessions.by_portal, 2),
    (PostgresSessions.by_transaction, 10),
    (PostgresSessions.by_pipeline, 5),
    (PostgresSessions.by_copy, 3),
    (PostgresSessions.by_seed, 1),
    (PostgresSessions.by_bad_message, 1),
)
