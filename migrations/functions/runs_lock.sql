-- The lock that every transition takes first: the rows of its runs, in id order. Steps and gates change only under it.

-- Waits for the runs of all items: [{run_id}]. Returns the time after that.
create or replace function nofx.runs_lock(p_items jsonb) returns timestamptz
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    perform 1
       from nofx.run r
      where r.id = any (array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i))
      order by r.id
        for no key update;
    return clock_timestamp();
end
$$;

-- Waits for one, of this tenant; all null when there is none.
create or replace function nofx.run_lock(p_tenant_id text, p_run_id uuid) returns nofx.run
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
begin
    select * into v_run
      from nofx.run r
     -- Not `=`: the index of a tenant's runs would read all of them.
     where r.id = p_run_id and r.tenant_id is not distinct from p_tenant_id
       for no key update;
    return v_run;
end
$$;

-- Locks those of the runs that nobody else holds; null when there are none.
create or replace function nofx.runs_lock_free(p_runs uuid[]) returns uuid[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    return (select array_agg(l.id)
              from (select r.id from nofx.run r
                     where r.id = any (p_runs) order by r.id for no key update skip locked) l);
end
$$;
revoke execute on function nofx.runs_lock(jsonb), nofx.run_lock(text, uuid), nofx.runs_lock_free(uuid[]) from public;
