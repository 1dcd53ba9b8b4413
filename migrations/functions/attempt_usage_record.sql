-- Records what a fenced-out attempt (cancelled, or its lease ended) has spent: its usage events, and nothing else.
-- p: {tenant_id, run_id, step_id, attempt, events: [{type, payload}]}
-- -> how many events were recorded. Each carries `late_attempt`. A repeated call finds them and records nothing.
create or replace function nofx.attempt_usage_record(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run_id uuid := (p ->> 'run_id')::uuid;
    v_step_id uuid := (p ->> 'step_id')::uuid;
    v_attempt integer := (p ->> 'attempt')::integer;
    v_changes nofx.change[];
begin
    if nofx.run_lock(p ->> 'tenant_id', v_run_id) is null then
        return '0';
    end if;
    perform 1
       from nofx.attempt a
      where a.step_id = v_step_id and a.attempt = v_attempt and a.run_id = v_run_id
        and a.tenant_id = p ->> 'tenant_id' and a.status in ('cancelled', 'lost');
    if not found or exists (
        select from nofx.event e
         where e.run_id = v_run_id and e.step_id = v_step_id and e.type = 'codegen.usage'
           and e.payload -> 'late_attempt' = to_jsonb(v_attempt))
    then
        return '0';
    end if;
    select array_agg(nofx.fact(v_run_id, v_step_id, 'codegen.usage',
                               (e.event -> 'payload') || jsonb_build_object('late_attempt', v_attempt))
                     order by e.position)
      into v_changes
      from jsonb_array_elements(p -> 'events') with ordinality as e(event, position)
     where e.event ->> 'type' = 'codegen.usage' and jsonb_typeof(e.event -> 'payload') = 'object'
       and e.position <= 100;
    if v_changes is not null then
        perform nofx.runs_settle(v_changes, clock_timestamp());
    end if;
    return to_jsonb(coalesce(cardinality(v_changes), 0));
end
$$;
select nofx.transition_declare('nofx.attempt_usage_record(jsonb)', 'nofx_worker');
