-- Cancels a run: fences every open step at once. Cancelling a cancelled run changes nothing. p: {caller, run_id, actor}
-- -> {result: cancelled|unchanged|conflict|not_found, status, stopped: [names], was_running: [names]}
create or replace function nofx.run_cancel(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_changes nofx.change[];
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null then
        return jsonb_build_object('result', case when v_run.status = 'cancelled' then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'stopped', '[]'::jsonb, 'was_running', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r set cancelled_at = v_now where r.id = v_run.id;
    v_changes := nofx.fact(v_run.id, null, 'run.cancel_requested', jsonb_build_object('actor', p ->> 'actor', 'by', p -> 'by'))
                 || nofx.steps_close(array[v_run.id], 'cancelled', true, v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object(
        'result', 'cancelled', 'status', 'cancelled',
        'stopped', coalesce((select jsonb_agg(s.name order by s.ordinal)
                               from unnest(v_changes) c join nofx.step s on s.id = c.step_id
                              where c.to_status = 'cancelled' and c.from_status <> 'running'), '[]'),
        'was_running', coalesce((select jsonb_agg(s.name order by s.ordinal)
                                   from unnest(v_changes) c join nofx.step s on s.id = c.step_id
                                  where c.to_status = 'cancelled' and c.from_status = 'running'), '[]'));
end
$$;
select nofx.transition_declare('nofx.run_cancel(jsonb)', 'nofx_api');
