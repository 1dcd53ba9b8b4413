-- Whether an attempt still owns its step. Reads one row by its key and takes no lock. p: {tenant_id, run_id, step_id, attempt} -> boolean
create or replace function nofx.attempt_is_live(p jsonb) returns jsonb
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select to_jsonb(exists (
        select from nofx.step s
         where s.id = (p ->> 'step_id')::uuid and s.run_id is not distinct from (p ->> 'run_id')::uuid
           and s.tenant_id = p ->> 'tenant_id'
           and s.status = 'running' and s.attempt = (p ->> 'attempt')::integer))
$$;
select nofx.transition_declare('nofx.attempt_is_live(jsonb)', 'nofx_worker');
