"""What each of the hunt's databases on MySQL and MariaDB holds: every way in which a statement can change a session unseen."""

from typing import Final

CLIENTS: Final = 4

ROUTINES: Final = (
    "create function hunt_set(v varchar(300)) returns varchar(300) no sql begin set @hunt_a = v; return v; end",
    "create function hunt_lock(name varchar(64)) returns int no sql return get_lock(name, 0)",
    "create function hunt_harmless(v int) returns int deterministic no sql return v + 1",
    "create function hunt_id(v int) returns int no sql return last_insert_id(v)",
    "create function hunt_mode() returns int no sql begin set session sql_mode = 'ANSI_QUOTES'; return 1; end",
    "create function hunt_if(wanted int) returns int no sql begin if wanted = 7 then set @hunt_b = 'seven'; end if; return wanted; end",
    "create procedure hunt_variable(v varchar(300)) begin set @hunt_b = v; end",
    "create procedure hunt_session(v int) begin set session sort_buffer_size = v; end",
    "create procedure hunt_take(name varchar(64)) begin do get_lock(name, 0); end",
    "create procedure hunt_quiet(v int) begin select v; end",
    "create procedure hunt_results() begin select 1 as a; select 'next' as b; end",
    "create procedure hunt_temp() begin create temporary table if not exists tt0 (a int); end",
    "create procedure hunt_exec(statement text) begin set @hunt_c = statement; prepare hunt_x from @hunt_c; execute hunt_x; "
    "deallocate prepare hunt_x; end",
    "create procedure hunt_prepare() begin prepare q0 from 'select 1'; end",
    "create procedure hunt_out(out v int) begin set v = 7; end",
    "create procedure hunt_transaction() begin start transaction; end",
    "create procedure hunt_rows() begin declare exit handler for sqlexception begin end; select * from no_such_table; end",
    "create view hunt_view as select hunt_set('by a view') as v",
    "create view hunt_plain_view as select 1 as v",
    "create trigger hunt_trigger before insert on hunt_triggered for each row set @hunt_a = new.v",
    "create trigger hunt_locker before insert on hunt_locked for each row set new.id = get_lock(new.v, 0)",
    "create trigger hunt_updated after update on hunt_triggered for each row set @hunt_b = new.v",
)


def schema(mariadb: bool) -> list[str]:
    """Statements that make it."""
    found = [
        "create table hunt_plain (id int, v varchar(300))",
        "create table hunt_triggered (id int, v varchar(300))",
        "create table hunt_locked (id int, v varchar(300))",
        *ROUTINES,
    ]
    for i in range(CLIENTS):
        found += [
            f"create table t{i} (id int primary key, v varchar(300))",
            f"create table u{i} (id int primary key, v varchar(300))",
            f"create table n{i} (id int auto_increment primary key, v varchar(300))",
        ]
        found += [f"create sequence s{i} nocache"] if mariadb else []
    return found


def reset_statements(mariadb: bool, used: str) -> list[str]:
    """Statements that give it the contents with which each script begins. What takes long is done only for what `used` mentions.

    (A table B1 that a script has spelled so is another one than b1.)
    """
    used = used.lower()
    found = ["delete from hunt_plain", "delete from hunt_triggered", "delete from hunt_locked"]
    for i in range(CLIENTS):
        found += [f"delete from t{i}", f"insert into t{i} values (1, 'a'), (2, 'b'), (3, 'c')", f"delete from u{i}"]
        if f"n{i}" in used:
            found += [f"truncate table n{i}"]
        if f"a{i}" in used or f"b{i}" in used:
            found += [f"drop table if exists a{i}, b{i}, A{i}, B{i}", f"create table a{i} (id int, v int)"]
            found += [f"insert into a{i} values (1, 57)"]
        if mariadb and f"s{i}" in used:
            found += [f"alter sequence s{i} restart"]
    return found
