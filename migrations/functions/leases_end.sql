-- Ends attempts whose lease is over and counts a lost worker for each. The step becomes ready again, unless it has lost too many workers or
-- its run is failing: then the step fails and the rest of its run is closed. The caller holds the runs' locks.
create or replace function nofx.leases_end(p_steps uuid[], p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
    v_failed uuid[];
begin
    with over as (
        select s.id, r.paused_at,
               s.workers_lost >= nofx.max_workers_lost() or nofx.is_failing(r.steps_failed, r.failure) as fails
          from nofx.step s
          join nofx.run r on r.id = any (array[s.run_id])
         where s.id = any (p_steps) and s.status = 'running' and s.lease_until < p_now
    ), ended as (
        update nofx.step s
           set workers_lost = s.workers_lost + 1,
               lease_until = null,
               status = case when o.fails then 'failed' else 'ready' end,
               ready_at = p_now,
               notify_at = case when not o.fails then nofx.wakeup_due(p_now, o.paused_at) end,
               notify_count = 0,
               finished_at = case when o.fails then p_now end,
               error = case when o.fails
                            then jsonb_build_object('code', 'worker_lost', 'message',
                                     format('the worker of attempt %s never answered (%s workers lost)', s.attempt,
                                            s.workers_lost + 1)) end
          from over o
         where s.id = any (array[o.id])
        returning s.run_id, s.id, s.status, s.attempt, s.error, s.workers_lost
    ), lost as (
        update nofx.attempt a
           set status = 'lost', finished_at = p_now
          from ended e
         where a.step_id = any (array[e.id]) and a.attempt = e.attempt
    )
    select array_agg(nofx.step_change(e.run_id, e.id, 'running', e.status,
                         case when e.status = 'failed' then 'step.failed' else 'step.worker_lost' end,
                         jsonb_strip_nulls(jsonb_build_object('attempt', e.attempt, 'workers_lost', e.workers_lost,
                                                              'error', e.error)))),
           array_agg(e.run_id) filter (where e.status = 'failed')
      into v_changes, v_failed
      from ended e;
    if v_failed is not null then
        v_changes := v_changes || nofx.steps_close(v_failed, 'skipped', false, p_now);
    end if;
    return v_changes;
end
$$;
revoke execute on function nofx.leases_end(uuid[], timestamptz) from public;
