-- Applies the ends of gates: a gate that passed lets its step or run continue, any other fails it. p_gates: gates that the caller has just
-- written as passed, waived, failed or expired. The caller holds the runs' locks.
create or replace function nofx.gates_conclude(p_gates uuid[], p_payload jsonb, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates nofx.change[];
    v_steps nofx.change[];
    v_finished uuid[];
    v_failed uuid[];
begin
    select array_agg(nofx.gate_change(g.run_id, g.step_id, 'gate.' || g.status,
                         jsonb_strip_nulls(jsonb_build_object('gate_id', g.id, 'gate_type', g.gate_type) || p_payload)
                         || nofx.subject_of(g.subject), -1)
                     order by g.id)
      into v_gates
      from nofx.gate g
     where g.id = any (p_gates);

    with verdict as (
        select s.id, s.status as was, s.ordinal, r.paused_at, g.reason,
               case when g.status in ('failed', 'expired') then 'failed'
                    when g.on_pass = 'finish' then 'succeeded'
                    when g.on_pass = 'resume' or s.blockers = 1 then 'ready'
                    else s.status end as verdict,
               case when g.on_pass = 'release' and g.status in ('passed', 'waived') then 1 else 0 end as released,
               case g.status
                    when 'expired' then jsonb_build_object('code', 'gate_expired', 'message',
                         format('nobody decided the gate %s in time', g.gate_type))
                    else jsonb_strip_nulls(jsonb_build_object('code', 'gate_rejected', 'message',
                         format('the gate %s was rejected', g.gate_type)
                         || coalesce(' by ' || (p_payload ->> 'actor'), '')
                         || coalesce(': ' || (p_payload ->> 'reason'), ''))) end as error,
               jsonb_strip_nulls(jsonb_build_object('gate_id', g.id, 'status', g.status) || p_payload) as outputs
          from nofx.gate g
          join nofx.step s on s.id = g.step_id
          join nofx.run r on r.id = s.run_id
         where g.id = any (p_gates) and s.status in ('pending', 'blocked')
    ), moved as (
        update nofx.step s
           set status = v.verdict,
               blockers = s.blockers - v.released,
               outputs = case when v.verdict = 'succeeded' then v.outputs end,
               error = case when v.verdict = 'failed' then v.error end,
               finished_at = case when v.verdict in ('succeeded', 'failed') then p_now end,
               ready_at = case when v.verdict = 'ready' then p_now else s.ready_at end,
               notify_at = case when v.verdict = 'ready' then nofx.wakeup_due(p_now, v.paused_at) end,
               notify_count = 0
          from verdict v
         where s.id = any (array[v.id])
        returning s.run_id, s.id, v.was, s.status, s.error, s.ordinal
    )
    select array_agg(nofx.step_change(m.run_id, m.id, m.was, m.status, 'step.' || m.status,
                                      jsonb_strip_nulls(jsonb_build_object('error', m.error))) order by m.ordinal)
               filter (where m.status <> m.was),
           array_agg(m.id) filter (where m.status = 'succeeded'),
           array_agg(m.run_id) filter (where m.status = 'failed')
      into v_steps, v_finished, v_failed
      from moved m;

    -- A gate of the run itself that did not pass fails the run.
    with failed as (
        update nofx.run r
           set failure = jsonb_build_object('code', case g.status when 'expired' then 'gate_expired'
                                                                  else 'gate_rejected' end,
                                            'message', format('the gate %s of the run %s', g.gate_type,
                                                case g.status when 'expired' then 'expired' else 'was rejected' end))
          from nofx.gate g
         where g.id = any (p_gates) and g.step_id is null and g.status in ('failed', 'expired') and r.id = g.run_id
        returning r.id
    )
    select coalesce(v_failed, '{}') || coalesce(array_agg(f.id), '{}') into v_failed from failed f;

    if v_finished is not null then
        v_steps := v_steps || nofx.children_release(v_finished, null, v_failed, p_now);
    end if;
    if v_failed <> '{}' then
        v_steps := v_steps || nofx.steps_close(v_failed, 'skipped', false, p_now);
    end if;
    return v_gates || v_steps;
end
$$;
revoke execute on function nofx.gates_conclude(uuid[], jsonb, timestamptz) from public;
