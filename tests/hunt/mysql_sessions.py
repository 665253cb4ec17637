"""What clients of MySQL and MariaDB do: a random script is made of small scenes of single clients, in all spellings and ways to send."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.hunt.script import Kill, Leave, Message, Probe, Say, Script, Step, View
from tests.hunt.spelling import Lit, MySQLSpeller, Text, joined, verbatim

CLIENTS: Final = 4
PLACEHOLDER: Final = "zzzzzzzw"
"""Stands for what makes the names of one side its own: locks and databases are the whole server's. As long as that."""
ROLE: Final = "hunt_role"
RAND: Final = re.compile(r"\brand\b")
VARIABLES: Final = ("hunt_a", "hunt_b", "hunt_c", "hunt ü", "Hunt_D")
VALUES: Final = ("1", "left", "", "it's", "München", "a\\", "\\", "C:\\temp\\new", "'; SET @hunt_c = 1; -- ", "表ソ", "x" * 300, "a\nb",
                 "see CONNECTION_ID() here", "@@session.")  # fmt: skip
SETTINGS: Final = {
    "sql_mode": ("'ANSI_QUOTES'", "'NO_BACKSLASH_ESCAPES'", "''", "'STRICT_ALL_TABLES,ANSI_QUOTES'", "default", "'PIPES_AS_CONCAT'",
                 "concat(@@sql_mode, ',NO_BACKSLASH_ESCAPES')", "'HIGH_NOT_PRECEDENCE,IGNORE_SPACE'"),
    "sort_buffer_size": ("77824", "default"),
    "group_concat_max_len": ("7777",),
    "max_join_size": ("123456", "default"),
    "sql_select_limit": ("2", "default", "77"),
    "time_zone": ("'+02:00'", "'SYSTEM'"),
    "autocommit": ("0", "1", "off", "on"),
    "transaction_isolation": ("'SERIALIZABLE'", "'READ-COMMITTED'"),
    "tx_isolation": ("'SERIALIZABLE'",),
    "transaction_read_only": ("1", "0"),
    "sql_safe_updates": ("1",),
    "foreign_key_checks": ("0",),
    "unique_checks": ("0",),
    "sql_auto_is_null": ("1",),
    "sql_notes": ("0",),
    "div_precision_increment": ("7",),
    "lock_wait_timeout": ("77",),
    "innodb_lock_wait_timeout": ("77",),
    "wait_timeout": ("7777",),
    "max_execution_time": ("7777",),
    "max_statement_time": ("77",),
    "character_set_client": ("latin1",),
    "character_set_results": ("latin1", "null"),
    "collation_connection": ("latin1_german1_ci", "utf8mb4_bin"),
    "character_set_database": ("latin1",),
    "default_storage_engine": ("memory",),
    "default_week_format": ("3",),
    "lc_time_names": ("'de_DE'",),
    "optimizer_switch": ("'index_merge=off'",),
    "auto_increment_increment": ("5",),
    "timestamp": ("1000000", "default"),
    "insert_id": ("77",),
    "last_insert_id": ("78",),
    "rand_seed1": ("11",),
    "sql_big_selects": ("0",),
    "profiling": ("1",),
    "old_alter_table": ("1",),
    "tmp_table_size": ("7777777",),
    "net_read_timeout": ("77",),
    "sql_warnings": ("1",),
}  # fmt: skip
CHARSETS: Final = {"utf8mb4": "utf8", "latin1": "latin-1", "gbk": "gbk", "big5": "big5", "sjis": "shift_jis", "gb18030": "gb18030",
                   "ascii": "ascii", "utf8mb3": "utf8", "cp932": "cp932"}  # fmt: skip
HIDING: Final = {"shift_jis": "表", "cp932": "表", "big5": "功", "gbk": "縗", "gb18030": "縗"}
"""Letters whose last byte is a backslash in that character set."""
WITHOUT_CURSOR: Final = ("_count", "found_rows", "warnings", "errors", "connection_id", "explain")
"""Of a statement with one of these words dualpool may give the answer, and opens no cursor for it. (No server need do that.) With a cursor
for EXPLAIN, MySQL 9.7 itself breaks down (SIGSEGV) when it is fetched from, or executed again."""
ABOUT_WARNINGS: Final = re.compile("warning|errors|error_count|diagnostics")
HEXADECIMAL: Final = re.compile("x'((?:[0-9a-f]{2})+)'")
FORGET: Final = "select id from hunt_plain limit 0"
"""MariaDB forgets the warnings of the statements before."""
CALLING: Final = re.compile("call|execute|atomic|then")
RUNNING: Final = re.compile("call|execute")
Scene = Callable[["MySQLSessions"], None]


@dataclass
class Model:
    """What the generator thinks of a client: only so that most of what it does makes sense."""

    index: int
    encoding: str = "utf8"
    ansi_quotes: bool = False
    no_backslash: bool = False


class MySQLSessions:
    """Makes scripts from a seed."""

    def __init__(self, seed: str, *, mariadb: bool, kills: bool = True) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.mariadb, self.kills = mariadb, kills
        self.steps: list[Step] = []
        self.me = Model(0)
        self.wildness = 0.0

    def script(self) -> Script:
        """A script of one to four clients."""
        rng = self.rng
        count = rng.choice((1, 1, 2, 2, 3, CLIENTS))
        models = [Model(i) for i in range(count)]
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
        self._leave_out_chance()
        if self.mariadb:
            self._forget_warnings()
        else:
            self._forget_rows()
        logins = tuple(rng.choice((0, 0, 0, 1, 2, 3, 4)) for _ in range(CLIENTS))
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

    def _leave_out_chance(self) -> None:
        """Where a reset has come between seeds and rand(), nobody can tell what it gives."""
        steps, self.steps = self.steps, []
        seeded: set[int] = set()
        for step in steps:
            if isinstance(step, Say):
                words = " ".join(map(str, step.messages)).lower()
                if step.client not in seeded and RAND.search(words):
                    continue
                if "rand_seed1" in words:
                    seeded.add(step.client)
                if any(message.kind in ("Reset", "ChangeUser") for message in step.messages):
                    seeded.discard(step.client)
            self.steps.append(step)

    def _forget_warnings(self) -> None:
        """MariaDB forgets warnings when a later statement uses a table. Of a routine that is not known, so a table comes between."""
        steps, self.steps = self.steps, []
        calling: set[int] = set()
        for step in steps:
            if isinstance(step, Say):
                words = " ".join(map(str, step.messages)).lower()
                words += "".join(bytes.fromhex(digits).decode() for digits in HEXADECIMAL.findall(words)).lower()
                if step.client in calling and ABOUT_WARNINGS.search(words):
                    self.steps.append(Say(step.client, (Message("Query", (verbatim(FORGET),)),)))
                (calling.add if CALLING.search(words) else calling.discard)(step.client)
            self.steps.append(step)

    def _forget_rows(self) -> None:
        """Of a procedure that changes no rows, MySQL tells how many the session's last statement has changed: dualpool's own, maybe."""
        steps, self.steps = self.steps, []
        for step in steps:
            if isinstance(step, Say) and any(RUNNING.search(str(message).lower()) for message in step.messages):
                self.steps.append(Say(step.client, (Message("Query", (verbatim("select 1"),)),)))
            self.steps.append(step)

    # ------------------------------------------------------------------------------------------------------ how it is sent

    def sql(self, template: str, **values: object) -> Text:
        """A template in the spelling of the day."""
        me = self.me
        speller = MySQLSpeller(self.rng, self.wildness, me.encoding, ansi_quotes=me.ansi_quotes, no_backslash=me.no_backslash)
        return speller(template.replace("{i}", str(me.index)), **values)

    def say(self, *messages: Message) -> None:
        """A step of the client."""
        cuts = tuple(round(self.rng.random(), 3) for _ in range(self.rng.randrange(1, 4))) if self.rng.random() < 0.1 else ()
        self.steps.append(Say(self.me.index, messages, cuts))

    def run(self, text: Text) -> None:
        """Send a statement, one way or the other."""
        rng = self.rng
        way = rng.random()
        if way < 0.55:
            self.say(Message("Query", (text,)))
        elif way < 0.7:
            around = [self.sql("select 1"), text, self.sql("select 'b'")]
            self.say(Message("Query", (joined(around[rng.randrange(2) : rng.randrange(2, 4)], rng.choice(("; ", ";", ";\n"))),)))
        elif way < 0.78:
            self.say(
                Message("Query", (self.sql("select 3"),)), Message("Query", (text,)), Message("Query", (self.sql("select @@sql_mode"),))
            )
        elif way < 0.93:
            name = f"p{rng.randrange(3)}"
            self.say(Message("Prepare", (name, text)))
            plain = any(word in str(text).lower() for word in WITHOUT_CURSOR)
            for _ in range(rng.randrange(1, 3)):
                self.say(Message("Execute", (name, rng.random() < 0.1 and not plain)))
            if rng.random() < 0.3:
                self.say(Message("StmtClose", (name,)), Message("Ping"))
        else:
            self.say(Message("Query", (self.sql("prepare ~q{i} from {s}", s=Lit(str(text))),)))
            self.say(Message("Query", (self.sql("execute ~q{i}"),)))
            self.say(Message("Query", (self.sql("deallocate prepare ~q{i}"),)))

    def run_all(self, texts: list[Text]) -> None:
        """Several statements: as one text or as several."""
        if len(texts) > 1 and self.rng.random() < 0.35:
            self.say(Message("Query", (joined(texts),)))
            return
        for text in texts:
            self.run(text)

    # ------------------------------------------------------------------------------------------------------ what changes a session

    def a_setting(self) -> tuple[str, str]:
        """The name of a variable and an expression."""
        name = self.rng.choice(list(SETTINGS))
        return name, self.rng.choice(SETTINGS[name])

    def expression(self) -> Text:
        """An expression that changes the session, or seems to."""
        rng = self.rng
        lock = Lit(f"lock{PLACEHOLDER}{self.me.index}")
        value = Lit(rng.choice(VALUES))
        choices = (
            "~~get_lock({l}, 0)",
            "~~get_lock({l}, 0)",
            "~~release_lock({l})",
            "~~release_all_locks()",
            "~~last_insert_id(777)",
            "~~hunt_set({v})",
            "~~hunt_lock({l})",
            "~~hunt_id(55)",
            "~~hunt_mode()",
            "~~hunt_if(7)",
            "~~hunt_if(1)",
            "~~hunt_harmless(1)",
            "@hunt_a := {v}",
            "(@hunt_b := 5)",
            "@`hunt ü` := {v}",
            "@hunt_d",
            "@@~~sql_mode",
            "@@session.~~sort_buffer_size",
            "~~last_insert_id()",
            "~~length({v})",
            "~~concat({v}, 'see CONNECTION_ID() here')",
            *(
                ("~~nextval(s{i})", "next value for s{i}", "~~lastval(s{i})", "~~setval(s{i}, 50)", "previous value for s{i}")
                if self.mariadb
                else ()
            ),
        )
        return self.sql(rng.choice(choices), l=lock, v=value)

    def carried(self, e: Text) -> list[Text]:
        """Statements that carry an expression."""
        choices: list[tuple[str, ...]] = [
            ("select {e}",),
            ("select {e}",),
            ("select /*! {e} */",),
            ("select /*!50000 {e} */ as x",),
            ("select 1 /*!50000 , {e} */",),
            ("select 1 /*!999999 , {e} */",),
            ("do {e}",),
            ("select * from (select {e} as x) as s",),
            ("with w as (select {e} as x) select x from w",),
            ("insert into ~n{i}(v) values ({e})",),
            ("insert into ~n{i}(v) values ('a'), ({e}), ('c')",),
            ("insert into ~n{i}(v) select {e}",),
            ("insert into ~t{i} values (1, 'x') on duplicate key update v = {e}",),
            ("insert ignore into ~t{i} values (1, {e})",),
            ("replace into ~t{i} values (2, {e})",),
            ("update ~t{i} set v = {e} where id = 1",),
            ("update ~t{i} set v = 'z' where id = 1 and ({e}) is not null",),
            ("delete from ~t{i} where id = 2 and ({e}) is not null",),
            ("select {e} into @hunt_c",),
            ("select {e} from ~t{i} order by id limit 1",),
            ("select 1 union all select {e}",),
            ("select case when 1 then {e} else 2 end",),
            ("select id from ~t{i} where ({e}) is not null order by id",),
            ("call hunt_quiet(length({e}))",),
            ("set @hunt_c = {e}",),
            ("set @hunt_c = {e}, @hunt_b = 2",),
            ("prepare ~q{i} from {s}", "execute ~q{i}", "deallocate prepare ~q{i}"),
            ("call hunt_exec({s})",),
            ("begin", "select {e}", "commit"),
            ("begin", "select {e}", "rollback"),
            ("create table b{i} as select {e} as x", "drop table b{i}"),
            ("show variables where variable_name = 'sql_mode' and ({e}) is not null",),
            ("explain select {e}",),
            ("handler ~t{i} open as h{i}", "handler h{i} read first where ({e}) is not null", "handler h{i} close"),
        ]
        if self.mariadb:
            choices += [
                ("select /*M! {e} */",),
                ("select /*M!100100 {e} */",),
                ("execute immediate {s}",),
                ("begin not atomic do {e}; end",),
                ("begin not atomic declare x int; select {e} into @hunt_c; end",),
                ("if 1 then do {e}; end if",),
                ("set statement sort_buffer_size = 88888 for select {e}",),
                ("insert into ~n{i}(v) values ({e}) returning id, v",),
                ("values ({e})",),
            ]
        else:
            choices += [("table hunt_plain_view",), ("values row({e})",)]
        return [self.sql(text, e=e, s=Lit(f"select {e}")) for text in self.rng.choice(choices)]

    def statement(self) -> list[Text]:
        """Statements that change the session by themselves."""
        rng = self.rng
        name, value = self.a_setting()
        choices: list[tuple[str, ...]] = [
            ("set {n} = {v}",),
            ("set session {n} = {v}",),
            ("set @@{n} = {v}",),
            ("set @@session.{n} = {v}",),
            ("set @@local.{n} := {v}",),
            ("set local {n} = {v}",),
            ("set {n} = {v}, @hunt_a = 'x', @@session.sql_notes = 1",),
            ("set @hunt_b = {l}, {n} = {v}",),
            ("set @hunt_a = {l}",),
            ("set @hunt_a := {l}, @hunt_b = @hunt_a",),
            ("set @`hunt ü` = {l}",),
            ("set @Hunt_D = 1.50",),
            ("set @hunt_a = null",),
            ("set @hunt_c = x'4142'",),
            ("set @hunt_c = _latin1'abc' collate latin1_bin",),
            ("set names latin1",),
            ("set names utf8mb4 collate utf8mb4_bin",),
            ("set names default",),
            ("set character set latin1",),
            ("set charset utf8mb4",),
            ("set transaction isolation level serializable",),
            ("set session transaction isolation level read committed",),
            ("set transaction read only",),
            ("set session transaction read only",),
            ("set session transaction read write, isolation level repeatable read",),
            ("set transaction read only", "begin", "insert into ~t{i} values (5, 'x')", "rollback"),
            ("set autocommit = 0",),
            ("set autocommit = 0", "insert into ~t{i} values (6, 'x')", "commit"),
            ("set autocommit = 1",),
            ("set role {r}",),
            ("set role none",),
            ("set role all",) if not self.mariadb else ("set role none",),
            ("set default role none to current_user()",) if not self.mariadb else ("set role hunt_role",),
            ("lock tables ~t{i} write",),
            ("lock tables ~t{i} read local, ~u{i} write",),
            ("lock table ~t{i} read",),
            ("unlock tables",),
            ("create temporary table ~tt{i} (a int)",),
            ("create temporary table if not exists ~tt{i} as select 1 as a",),
            ("create temporary table ~tt{i} like ~t{i}",),
            ("create /*!50000 temporary */ table ~tt{i} (a int)",),
            ("create or replace temporary table ~tt{i} (a int)",)
            if self.mariadb
            else ("create temporary table ~tt{i} (a int) engine = memory",),
            ("drop temporary table ~tt{i}",),
            ("drop table if exists ~tt{i}",),
            ("drop temporary table if exists ~tt{i}, ~tt9",),
            ("alter table ~tt{i} rename to ~tt9",),
            ("truncate table ~tt{i}",),
            ("handler ~t{i} open as h{i}",),
            ("handler ~h{i} read first",),
            ("handler ~h{i} close",),
            ("prepare ~q{i} from 'select 1'",),
            ("prepare ~q{i} from 'select ?'",),
            ("execute ~q{i}",),
            ("set @hunt_a = 5", "execute ~q{i} using @hunt_a"),
            ("deallocate prepare ~q{i}",),
            ("drop prepare ~q{i}",),
            ("xa start 'x{z}{i}'", "insert into ~t{i} values (7, 'x')", "xa end 'x{z}{i}'", "xa commit 'x{z}{i}' one phase"),
            ("xa start 'x{z}{i}'", "xa end 'x{z}{i}'", "xa rollback 'x{z}{i}'"),
            ("xa begin 'x{z}{i}'",),
            ("call hunt_variable({l})",),
            ("call hunt_session(77824)",),
            ("call hunt_take('lock{z}{i}')",),
            ("call hunt_results()",),
            ("call hunt_temp()",) if self.me.index == 0 else ("call hunt_quiet(1)",),
            ("call hunt_prepare()",) if self.me.index == 0 else ("call hunt_results()",),
            ("call hunt_out(@hunt_a)",),
            ("call hunt_transaction()",),
            ("call hunt_rows()",),
            ("select * from ~hunt_view",),
            ("select * from ~hunt_plain_view",),
            ("insert into ~hunt_triggered values (1, {l})",),
            ("insert into ~hunt_triggered values (1, {l})", "update ~hunt_triggered set v = 'u'"),
            ("insert into ~hunt_locked values (1, 'lock{z}{i}')",),
            ("insert into ~n{i}(v) values ('a')",),
            ("insert into ~n{i}(v) values ('a'), ('b')",),
            ("insert into ~n{i} values (40, 'a')",),
            ("update ~t{i} set id = last_insert_id(id + 10) where id = 3",),
            ("use hunt{z}",),
            ("use information_schema",),
            ("use information_schema", "use hunt{z}"),
            ("select sql_calc_found_rows id from ~t{i} limit 1", "select found_rows()"),
            ("select id from ~t{i}", "select found_rows()"),
            ("update ~t{i} set v = 'q'", "select row_count()"),
            ("insert into ~n{i}(v) values ('a')", "select last_insert_id()"),
            ("select cast('x' as signed)", "show warnings"),
            ("select cast('x' as signed)", "show count(*) warnings"),
            ("drop table if exists no_such_table", "show warnings"),
            ("select cast('x' as signed)", "get diagnostics @hunt_a = number"),
            ("reset query cache",) if self.mariadb else ("select 1",),
            ("flush status",),
            ("create table b{i} (a int)", "drop table b{i}"),
            ("analyze table ~t{i}",),
            ("kill query 0",),
            ("help 'x'",),
        ]
        if self.mariadb:
            choices += [
                ("set statement {n} = {v} for select 1",),
                ("begin not atomic set {n} = {v}; end",),
                ("begin not atomic set @hunt_a = {l}; end",),
                ("begin not atomic execute immediate concat('do get_', 'lock(''lock{z}{i}'', 0)'); end",),
                ("begin not atomic create temporary table tt{i} (a int); end",),
                ("if 1 then set @hunt_b = {l}; end if",),
                ("select nextval(s{i})", "select lastval(s{i})"),
                ("execute immediate {inner}",),
                ("create or replace table b{i} (a int)", "drop table b{i}"),
                ("set @@last_insert_id = 5", "select last_insert_id()"),
            ]
        else:
            choices += [
                ("select /*+ set_var(sort_buffer_size = 99999) */ @@sort_buffer_size",),
                ("set persist_only {n} = {v}",) if rng.random() < 0.0 else ("select 2",),
                ("set resource group hunt{z}",),
                ("lock instance for backup", "unlock instance"),
                ("create temporary table ~tt{i} select * from ~t{i}",),
            ]
        texts = rng.choice(choices)
        given = {"n": name, "v": value, "l": Lit(rng.choice(VALUES)), "r": ROLE, "inner": Lit(f"set {name} = {value}")}
        return [self.sql(text.replace("{z}", PLACEHOLDER), **given) for text in texts]

    def reading(self) -> list[Text]:
        """Statements that tell what the session holds."""
        rng = self.rng
        name = rng.choice([name for name in SETTINGS if name not in ("timestamp", "rand_seed1")])
        value = Lit(rng.choice(VALUES))
        choices: tuple[tuple[str, ...], ...] = (
            ("select @@{n}",),
            ("show variables like {nl}",),
            ("select @hunt_a, @hunt_b, @hunt_c, @`hunt ü`, @hunt_d",),
            ("select ~~last_insert_id()",),
            ("select ~~row_count()",),
            ("select ~~found_rows()",),
            ("show warnings",),
            ("show errors",),
            ("select @@warning_count, @@error_count",),
            ("select ~~database(), ~~current_user(), ~~current_role()",),
            ("select * from ~tt{i}",),
            ("insert into ~tt{i} values (1)",),
            ("execute ~q{i}",),
            ("handler ~h{i} read next",),
            ("select * from ~t{i} order by id",),
            ("select {v}",),
            ("select {v}, 'see CONNECTION_ID() here', \"a\"",),
            ("insert into ~t{i} values (9, {v}) on duplicate key update v = values(v)",),
            ("select ~~is_used_lock('lock{z}{i}') is null, ~~is_free_lock('lock{z}{i}')",),
            ("select ~~now() < '2020-01-01', ~~unix_timestamp() < 2000000",),
            ("select round(~~rand(5), 9)",),
            ("select 1/7, date_format('2024-03-01', '%M %U')",),
            ("select * from ~t{i} where id is null",),
            ("insert into ~n{i}(v) values ({v})",),
            ("select hex({v})",),
            ("show tables like 'hunt%'",),
            ("select @@autocommit, @@transaction_isolation",)
            if not self.mariadb
            else ("select @@autocommit, @@tx_isolation, @@in_transaction",),
        )
        given = {"n": name, "nl": Lit(name), "v": value}
        return [self.sql(text.replace("{z}", PLACEHOLDER), **given) for text in rng.choice(choices)]

    # ------------------------------------------------------------------------------------------------------ scenes

    def by_expression(self) -> None:
        """A statement that calls something."""
        self.run_all(self.carried(self.expression()))

    def by_statement(self) -> None:
        """A statement of its own kind, as it is or made up by another."""
        texts = self.statement()
        way = self.rng.random()
        # (Behind CALL, FOUND_ROWS() is the last statement's that the server connection has run, maybe dualpool's own: README.md.)
        if way < 0.08 and not any("found_rows" in str(text).lower() for text in texts):
            texts = [self.sql("call ~~hunt_exec({s})", s=Lit(str(text))) for text in texts]
        elif way < 0.16:
            texts = [self.sql("begin"), *texts, self.sql(self.rng.choice(("commit", "rollback", "commit work")))]
        self.run_all(texts)

    def by_reading(self) -> None:
        """A look at the session."""
        self.run_all(self.reading())

    def by_parameter(self) -> None:
        """A value bound as a parameter."""
        text = self.sql(
            self.rng.choice(
                (
                    "select ~~get_lock(~~concat('lock{z}', ?), 0)",
                    "select ~~hunt_set(?)",
                    "select ~~hunt_if(?)",
                    "select @hunt_a := ?",
                    "set @hunt_b = ?",
                    "call hunt_exec(?)",
                    "select ~~last_insert_id(?)",
                    "insert into ~n{i}(v) values (?)",
                    "update ~t{i} set v = ? where id = 1",
                    "set sort_buffer_size = ?",
                )
            ).replace("{z}", PLACEHOLDER)
        )
        values = (f"lock{PLACEHOLDER}{self.me.index}", "1", "7", "7", "set @hunt_c = 7", "77824", None)
        value = self.rng.choice(values)
        name = f"p{self.rng.randrange(3)}"
        self.say(Message("Prepare", (name, text)))
        for _ in range(self.rng.randrange(4)):
            self.say(Message("Execute", (name, False, self.rng.choice(values[:2]))))
        if self.rng.random() < 0.2:
            self.say(Message("LongData", (name, b"long data")), Message("Execute", (name, False, value)))
        self.say(Message("Execute", (name, False, value)))
        if self.rng.random() < 0.2:
            self.say(Message("StmtReset", (name,)))

    def by_charset(self) -> None:
        """Another character set, and strings whose bytes look like quotes and backslashes."""
        theirs, ours = self.rng.choice(list(CHARSETS.items()))
        how = self.rng.choice(("set names {c}", "set names '{c}'", "set character_set_client = {c}", "set character set {c}"))
        self.run(self.sql(how.replace("{c}", theirs)))
        self.me.encoding = ours
        letter = HIDING.get(ours, "é")
        lock = f"lock{PLACEHOLDER}{self.me.index}"
        way = self.rng.randrange(5)
        if way == 0:
            self.say(Message("Query", (verbatim(f"select hex('{letter}') as a, get_lock('{lock}', 0), 'b'", ours),)))
        elif way == 1:
            self.say(Message("Query", (verbatim(f"select hex('{letter}') as a, 'see CONNECTION_ID() here'", ours),)))
        elif way == 2:
            self.say(Message("Query", (verbatim(f"set @hunt_a = '{letter}', @`hunt ü` = 'x', @hunt_b = hex(@hunt_a)", ours),)))
        elif way == 3:
            self.run(self.sql("insert into ~t{i} values (8, {v}) on duplicate key update v = {v}", v=Lit(letter + "'")))
        if self.rng.random() < 0.5:
            self.run(self.sql("set names utf8mb4"))
            self.me.encoding = "utf8"

    def by_mode(self) -> None:
        """Strings that end otherwise than they seem to."""
        lock = f"get_lock('lock{PLACEHOLDER}{self.me.index}', 0)"
        if self.rng.random() < 0.5:
            self.run(self.sql("set sql_mode = 'NO_BACKSLASH_ESCAPES'"))
            self.me.no_backslash = True
            text = self.rng.choice(
                (
                    f"select 'a\\', {lock}, 'b'",
                    "select 'dir\\', 'see CONNECTION_ID() here'",
                    "set @hunt_a = '..\\', @hunt_b = ', @@sql_notes = 0'",
                )
            )
        else:
            self.run(self.sql("set sql_mode = 'ANSI_QUOTES'"))
            self.me.ansi_quotes = True
            text = self.rng.choice(
                (
                    f'select 1 as "a\\"; select {lock} as "x"',
                    'select "see CONNECTION_ID() here" from t0',
                    f"select \"GET_LOCK\"('{lock}', 0)",
                )
            )
        self.say(Message("Query", (verbatim(text),)))
        self.run_all(self.reading())
        if self.rng.random() < 0.6:
            self.run(self.sql("set sql_mode = default"))
            self.me.no_backslash = self.me.ansi_quotes = False

    def by_statement_of_protocol(self) -> None:
        """Prepared statements, over several leases, while the table changes."""
        rng = self.rng
        name = f"p{rng.randrange(3)}"
        text = self.sql(rng.choice(("select id, v from {t}", "select * from {t} where id = ?", "insert into {t}(id, v) values (?, 5)",
                                    "select @@sql_mode, ?", "select {e}")), t=f"a{self.me.index}", e=self.expression())  # fmt: skip
        self.say(Message("Prepare", (name, text)))
        for _ in range(rng.randrange(1, 4)):
            if rng.random() < 0.4:
                change = rng.choice(
                    (
                        "alter table {t} modify v bigint",
                        "alter table {t} modify v double",
                        "alter table {t} drop column v",
                        "alter table {t} add column w varchar(9) default 'w'",
                        "set names latin1",
                        "set sql_mode = 'ANSI_QUOTES'",
                        "set time_zone = '+05:00'",
                    )
                )
                self.say(Message("Query", (self.sql(change, t=f"a{self.me.index}"),)))
            cursor = rng.random() < 0.2
            self.say(Message("Execute", (name, cursor, "1")))
            if cursor:
                self.say(Message("Fetch", (name,)))
                if rng.random() < 0.5:
                    self.say(Message("Fetch", (name,)))
                self.say(Message("StmtReset", (name,)))
            if rng.random() < 0.3:
                self.steps.append(self.a_probe())
        if rng.random() < 0.3:
            self.say(Message("StmtClose", (name,)), Message("Ping"))

    def by_transaction(self) -> None:
        """A transaction with several steps of any kind, errors among them."""
        rng = self.rng
        begins = ("begin", "start transaction", "begin work", "start transaction read only", "start transaction with consistent snapshot")
        self.run(self.sql(rng.choice(begins)))
        for _ in range(rng.randrange(1, 4)):
            way = rng.random()
            if way < 0.15:
                self.run(self.sql(rng.choice(("select nothing", "savepoint a", "rollback to a", "release savepoint a"))))
            else:
                self.run_all(self.carried(self.expression()) if way < 0.6 else self.statement() if way < 0.85 else self.reading())
            if rng.random() < 0.2:
                self.steps.append(self.a_probe())
        self.run(self.sql(rng.choice(("commit", "commit", "rollback", "commit work", "rollback and chain", "commit and chain no release"))))
        if rng.random() < 0.8:
            self.run(self.sql("rollback"))

    def by_command(self) -> None:
        """Commands of the protocol that change the session."""
        rng = self.rng
        self.say(
            *rng.choice(
                (
                    (Message("Reset"),),
                    # (MariaDB leaves the role; here it ends, as documented.)
                    (*([Message("Query", (verbatim("set role none"),))] if self.mariadb else []), Message("ChangeUser")),
                    (Message("InitDb", (f"hunt{PLACEHOLDER}",)),),
                    (Message("InitDb", ("information_schema",)),),
                    (Message("InitDb", ("no_such_database",)),),
                    (Message("Ping"),),
                    (Message("SetOption", (1,)),),
                    (Message("SetOption", (0,)),),
                    (Message("Query", (verbatim(""),)),),
                    (Message("Query", (verbatim(";"),)),),
                )
            )
        )
        if rng.random() < 0.5:
            self.run_all(self.reading())

    def by_lock(self) -> None:
        """A lock, and somebody else who looks before its owner does."""
        rng = self.rng
        lock = Lit(f"lock{PLACEHOLDER}{self.me.index}")
        ways = (
            "select ~~get_lock({l}, 0)",
            "do ~~get_lock({l}, 0)",
            "set @hunt_a = ~~get_lock({l}, 0)",
            "select 1; select ~~get_lock({l}, 0)",
        )
        self.say(Message("Query", (self.sql(rng.choice(ways), l=lock),)))
        self.steps.append(self.a_probe())
        self.say(Message("Query", (self.sql("select ~~is_used_lock({l}) = ~~connection_id()", l=lock),)))
        if rng.random() < 0.5:
            self.run(self.sql(rng.choice(("do ~~release_lock({l})", "select ~~release_all_locks()")), l=lock))
            self.steps.append(self.a_probe())

    def by_load(self) -> None:
        """LOAD DATA LOCAL; the client sends a row."""
        into = self.rng.choice(("~t{i}", "~hunt_triggered", "~n{i}(v)", "~t{i}(id, @hunt_a)", "~t{i}(@hunt_b, v) set id = @hunt_b + 20"))
        self.say(Message("Query", (self.sql(f"load data local infile '/nothing' into table {into}"),)))

    def by_seed(self) -> None:
        """rand() as a seed has it."""
        self.say(Message("Query", (self.sql("set rand_seed1 = 11, rand_seed2 = 22"),)))
        if self.rng.random() < 0.5:
            self.steps.append(self.a_probe())
        self.run(self.sql("select round(~~rand(), 9)"))


SCENES: Final[tuple[tuple[Scene, int], ...]] = (
    (MySQLSessions.by_expression, 30),
    (MySQLSessions.by_statement, 40),
    (MySQLSessions.by_reading, 15),
    (MySQLSessions.by_parameter, 5),
    (MySQLSessions.by_charset, 5),
    (MySQLSessions.by_mode, 5),
    (MySQLSessions.by_statement_of_protocol, 6),
    (MySQLSessions.by_transaction, 10),
    (MySQLSessions.by_command, 6),
    (MySQLSessions.by_lock, 3),
    (MySQLSessions.by_load, 1),
    (MySQLSessions.by_seed, 1),
)
