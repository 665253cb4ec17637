-- What each of the hunt's databases on PostgreSQL holds: every way in which a statement can change a session without saying so.
create function hunt_set(name text, value text, is_local boolean) returns text language plpgsql as
  $$begin return set_config(name, value, is_local); end$$;
create function hunt_exec(statement text) returns text language plpgsql as $$begin execute statement; return 'done'; end$$;
create function hunt_lock(key bigint) returns boolean language sql as $$select pg_try_advisory_lock(key)$$;
create function hunt_temp(name text) returns int language plpgsql as
  $$begin execute format('create temp table %I (a int)', name); return 1; end$$;
create function hunt_next(name text) returns bigint language sql as $$select nextval(name)$$;
create function hunt_harmless(v int) returns int language sql immutable as $$select v + 1$$;
create function hunt_unmarked(v int) returns int language plpgsql as $$begin return v + 1; end$$;
create function hunt_leading(v int) returns int language sql set work_mem = '3MB' as $$select v$$;
create function hunt_if(wanted int) returns text language plpgsql as
  $$begin if wanted = 7 then perform set_config('hunt.a', 'seven', false); end if; return 'done'; end$$;
create function hunt_cursor() returns refcursor language plpgsql as
  $$declare c refcursor := 'hunt_ref'; begin open c for select generate_series(1, 3); return c; end$$;
create procedure hunt_proc(name text, value text) language plpgsql as
  $$begin perform set_config(name, value, false); commit; perform pg_advisory_lock_shared(77); end$$;
create procedure hunt_quiet(v int) language plpgsql as $$begin perform v; commit; end$$;
create function hunt_add(a int, b int) returns int language plpgsql as
  $$begin perform set_config('hunt.a', a || '+' || b, false); return a + b; end$$;
create operator ### (leftarg = int, rightarg = int, function = hunt_add);
create view hunt_view as select set_config('hunt.b', 'by a view', false) as v;
create view hunt_plain_view as select 1 as v;
create table hunt_default (id int, v text default set_config('hunt.a', 'by a default', false));
create domain hunt_domain as text check (hunt_set('hunt.b', value, false) is not null);
create table hunt_checked (id int, v text check (pg_advisory_lock_shared(78) is not null));
create table hunt_ruled (id int, v text);
create rule hunt_rule as on update to hunt_ruled do also select set_config('hunt.a', 'by a rule', false);
create function hunt_trigger() returns trigger language plpgsql as
  $$begin perform set_config(new.name, new.value, false); return new; end$$;
create table hunt_triggered (name text, value text);
create trigger hunt_trigger before insert or update on hunt_triggered for each row execute function hunt_trigger();
create function hunt_statement_trigger() returns trigger language plpgsql as
  $$begin perform pg_advisory_lock_shared(79); return null; end$$;
create table hunt_counted (v int);
create trigger hunt_statement_trigger after insert on hunt_counted for each statement execute function hunt_statement_trigger();
create table hunt_plain (id int, v text);
do $do$ begin
  for i in 0..3 loop
    execute format('create table t%s (id int primary key, v text)', i);
    execute format('create table n%s (id serial primary key, v text)', i);
    execute format('create sequence s%s', i);
  end loop;
end $do$;
create procedure hunt_reset(shapes boolean) language plpgsql as $$begin
  for i in 0..3 loop
    execute format('delete from t%s; insert into t%s select g, chr(96 + g) from generate_series(1, 3) g', i, i);
    execute format('delete from n%s; select setval(''s%s'', 1, false), setval(''n%s_id_seq'', 1, false)', i, i, i);
    continue when not shapes;
    execute format('drop table if exists a%s, b%s; create table a%s (id int, v int) with (autovacuum_enabled = off); insert into a%s values (1, 57)', i, i, i, i);
    execute format('drop function if exists f%s(); drop type if exists e%s cascade', i, i);
  end loop;
  delete from hunt_default; delete from hunt_ruled; insert into hunt_ruled select g, 'a' from generate_series(0, 3) g; delete from hunt_triggered;
  delete from hunt_counted; delete from hunt_plain; delete from hunt_checked;
end$$;
create schema other;
create table hunt_where as select 'public' as v;
create table other.hunt_where as select 1 as v;
-- Plans, and so how often a function is called, depend on statistics: they must be alike.
do $do$ declare t regclass; begin
  for t in select oid from pg_class where relkind = 'r' and relnamespace in ('public'::regnamespace, 'other'::regnamespace) loop
    execute format('alter table %s set (autovacuum_enabled = off)', t);
  end loop;
end $do$;
