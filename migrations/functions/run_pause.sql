-- Pauses a run: no step starts, running steps end and are recorded. Pausing a paused run changes nothing. p: {caller, run_id, actor}
-- -> {result: paused|unchanged|conflict|not_found, status, still_running: [names]}
create or replace function nofx.run_pause(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null or v_run.paused_at is not null then
        return jsonb_build_object('result', case when v_run.finished_at is null then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'still_running', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r set paused_at = v_now where r.id = v_run.id;
    update nofx.step s set notify_at = 'infinity' where s.run_id = v_run.id and s.status = 'ready';
    perform nofx.runs_settle(array[nofx.fact(v_run.id, null, 'run.pause_requested',
                                             jsonb_build_object('actor', p ->> 'actor', 'by', p -> 'by'))], v_now);
    return jsonb_build_object(
        'result', 'paused', 'status', (select r.status from nofx.run r where r.id = v_run.id),
        'still_running', coalesce((select jsonb_agg(s.name order by s.ordinal) from nofx.step s
                                    where s.run_id = v_run.id and s.status = 'running'), '[]'));
end
$$;
select nofx.transition_declare('nofx.run_pause(jsonb)', 'nofx_api');
