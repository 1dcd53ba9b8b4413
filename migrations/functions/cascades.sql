-- Statement triggers after delete. They do what foreign keys with `on delete cascade` would do for steps, edges, attempts and events. `gone`
-- are the deleted runs or steps.

create or replace function nofx.attempts_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.attempt a using gone g where a.step_id = g.id;
    return null;
end
$$;

create or replace function nofx.events_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.event e using gone g where e.run_id = g.id;
    return null;
end
$$;

create or replace function nofx.steps_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.step s using gone g where s.run_id = g.id;
    return null;
end
$$;

create or replace function nofx.edges_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.step_edge e using gone g where e.parent_id = g.id;
    delete from nofx.step_edge e using gone g where e.child_id = g.id;
    return null;
end
$$;

revoke execute on function nofx.attempts_forget(), nofx.events_forget(), nofx.steps_forget(), nofx.edges_forget() from public;
