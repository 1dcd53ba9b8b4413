-- The lock that every transition takes first: the rows of its runs, in id order. Steps and gates change only under it.

-- Waits for all of them.
create or replace function nofx.runs_lock(p_runs uuid[]) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    perform 1 from nofx.run r where r.id = any (p_runs) order by r.id for no key update;
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
revoke execute on function nofx.runs_lock(uuid[]), nofx.run_lock(text, uuid), nofx.runs_lock_free(uuid[]) from public;
