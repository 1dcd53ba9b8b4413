-- Closes runs that end early. After a failure (p_running false) running steps end and are recorded, and everything that has not started
-- is skipped. On a cancel or a run timeout (p_running true) every open step is fenced at once, so a late finish changes nothing. Pending gates are
-- cancelled in both cases.
create or replace function nofx.steps_close(p_runs uuid[], p_status text, p_running boolean, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_steps nofx.change[];
    v_gates nofx.change[];
begin
    with open as (
        select s.id, s.status
          from nofx.step s
         where s.run_id = any (p_runs)
           and (s.status in ('pending', 'ready', 'blocked') or (p_running and s.status = 'running'))
    ), closed as (
        update nofx.step s
           set status = p_status, finished_at = p_now, notify_at = null, lease_until = null
          from open o
         where s.id = any (array[o.id])
        returning s.run_id, s.id, o.status as was, s.ordinal, s.attempt
    ), fenced as (
        update nofx.attempt a
           set status = 'cancelled', finished_at = p_now
          from closed c
         where c.was = 'running' and a.step_id = any (array[c.id]) and a.attempt = c.attempt
    )
    select array_agg(nofx.step_change(c.run_id, c.id, c.was, p_status, 'step.' || p_status,
                                      jsonb_build_object('was', c.was)) order by c.ordinal)
      into v_steps
      from closed c;

    with cancelled as (
        update nofx.gate g
           set status = 'cancelled', decided_at = p_now
         where g.run_id = any (p_runs) and g.status = 'pending'
        returning g.run_id, g.step_id, g.id, g.gate_type
    )
    select array_agg(nofx.gate_change(c.run_id, c.step_id, 'gate.cancelled',
                                      jsonb_build_object('gate_id', c.id, 'gate_type', c.gate_type), -1) order by c.id)
      into v_gates
      from cancelled c;

    return v_gates || v_steps;
end
$$;
revoke execute on function nofx.steps_close(uuid[], text, boolean, timestamptz) from public;
