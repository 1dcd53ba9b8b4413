-- Resumes a paused run: every ready step is owed a wake-up now. Resuming any other open run changes nothing. p: {caller, run_id, actor}
-- -> {result: resumed|unchanged|conflict|not_found, status, ready: [wake-ups]}
create or replace function nofx.run_resume(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_ready uuid[];
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null or v_run.paused_at is null then
        return jsonb_build_object('result', case when v_run.finished_at is null then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r
       set paused_at = null,
           status = nofx.run_status(r.steps_pending + r.steps_ready + r.steps_running + r.steps_blocked,
                                    r.steps_ready + r.steps_running, false, r.gates_pending, false, false,
                                    r.started_at is not null)
     where r.id = v_run.id;
    with owed as (
        update nofx.step s set notify_at = greatest(s.ready_at, v_now), notify_count = 0
         where s.run_id = v_run.id and s.status = 'ready'
        returning s.id
    )
    select array_agg(o.id) into v_ready from owed o;
    perform nofx.runs_settle(array[nofx.fact(v_run.id, null, 'run.resumed', jsonb_build_object('actor', p ->> 'actor', 'by', p -> 'by'))],
                             v_now);
    return jsonb_build_object('result', 'resumed',
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(v_ready, v_now));
end
$$;
select nofx.transition_declare('nofx.run_resume(jsonb)', 'nofx_api');
