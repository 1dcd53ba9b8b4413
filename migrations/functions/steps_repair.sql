-- Repair loops. A gate failed that a step repairs, or what the step made does not fit the workspace that another one writes: the step and
-- everything after it run again, and the step gets what was found.

-- Starts the loops of p_failed, steps that have just failed. A loop starts only if its step has an attempt left, and if nothing failed in the
-- run but p_failed, each within a loop that starts. If one loop is within another, only the outer one starts. Its step becomes ready;
-- everything after it waits again, what runs is fenced, and what people decided about it is asked again.
-- The caller holds the runs' locks, and settles the changes together with those of the failures.
-- -> the runs that go on, the steps that start again, and the changes
create or replace function nofx.steps_repair(
    p_failed uuid[], p_now timestamptz, out runs uuid[], out steps uuid[], out changes nofx.change[]
)
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_loop record;
    v_run record;
begin
    runs := '{}';
    steps := '{}';
    changes := '{}';
    for v_loop in
        with recursive able as materialized (
            select distinct on (s.id) s.id, s.run_id, s.attempt, s.repair, s.repairs,
                   g.id as gate_id, g.name as gate, g.attempt as gate_attempt, g.error
              from nofx.step g
              join nofx.run r on r.id = any (array[g.run_id])
              join nofx.step s on s.run_id = g.run_id
                   and case g.error ->> 'code'
                       when 'gate_failed' then s.repair -> 'gates' ? g.name
                       when 'changes_refused' then g.tool = 'workspace:write' and s.repair is not null and s.name = any (g.refs)
                                                   and nofx.refers_to(g.inputs ->> 'from', s.name)
                       else false end
             where g.id = any (p_failed) and g.status = 'failed'
               and s.status = 'succeeded' and s.repairs + 1 < (s.repair ->> 'max_attempts')::integer
               and r.failure is null and r.cancelled_at is null
             order by s.id, g.ordinal
        ), after as (
            select l.id as root, l.id as id from able l
            union
            select a.root, e.child_id from after a join nofx.step_edge e on e.parent_id = a.id
        )
        select l.*, array(select a.id from after a where a.root = l.id) as again
          from able l
         where not exists (select from after a where a.id = l.id and a.root <> l.id)
           and not exists (
               select from nofx.step f
                where f.run_id = l.run_id and f.status in ('failed', 'skipped')
                  and (f.id <> all (p_failed) or f.id not in (select a.id from after a)))
         order by l.run_id, l.id
    loop
        changes := changes || nofx.fact(v_loop.run_id, v_loop.id, 'step.repairing', jsonb_strip_nulls(jsonb_build_object(
                       'gate', v_loop.gate, 'gate_attempt', v_loop.gate_attempt, 'round', v_loop.repairs + 2,
                       'max_attempts', v_loop.repair -> 'max_attempts', 'error', v_loop.error,
                       'evidence_id', (select a.id from nofx.artifact a
                                        where a.step_id = v_loop.gate_id and a.attempt = v_loop.gate_attempt and a.type = 'gate_evidence'
                                        order by a.id limit 1))));
        update nofx.step s
           set repairs = s.repairs + 1,
               repair_task = jsonb_build_object(
                   'round', v_loop.repairs + 2, 'max_attempts', v_loop.repair -> 'max_attempts', 'gate', v_loop.gate,
                   'code', v_loop.error ->> 'code', 'message', v_loop.error ->> 'message',
                   'evidence', (select nofx.artifact_ref(a) from nofx.artifact a
                                 where a.step_id = v_loop.gate_id and a.attempt = v_loop.gate_attempt and a.type = 'gate_evidence'
                                 order by a.id limit 1),
                   'previous', (select coalesce(jsonb_agg(nofx.artifact_ref(a) order by a.id), '[]')
                                  from (select * from nofx.artifact a
                                         where a.step_id = v_loop.id and a.attempt = v_loop.attempt and a.type <> 'prompt'
                                         order by a.id limit 20) a))
         where s.id = v_loop.id;
        -- What loops within this one had to repair was made from the earlier answer.
        update nofx.step s set repair_task = null
         where s.id = any (v_loop.again) and s.id <> v_loop.id and s.repair_task is not null;
        runs := runs || v_loop.run_id;
        steps := steps || v_loop.again;
    end loop;
    -- Loops of one run can have steps in common.
    for v_run in
        select r.id, r.generation, r.paused_at, array_agg(s.id) as again
          from nofx.step s
          join nofx.run r on r.id = any (array[s.run_id])
         where s.id = any (steps)
         group by r.id
         order by r.id
    loop
        changes := changes || nofx.steps_reopen(v_run.id, v_run.generation, v_run.again, v_run.paused_at, p_now);
    end loop;
end
$$;

-- Whether a text refers to a step: as steps.NAME. or steps["NAME"].
create or replace function nofx.refers_to(p_text text, p_step text) returns boolean
    language sql immutable
as $$
    select strpos(p_text, 'steps.' || p_step || '.') > 0 or strpos(p_text, 'steps.' || p_step || '[') > 0
        or strpos(p_text, 'steps[' || to_json(p_step)::text || ']') > 0
$$;

-- What a worker needs to read an artifact.
create or replace function nofx.artifact_ref(p nofx.artifact) returns jsonb
    language sql immutable
as $$
    select jsonb_build_object('id', p.id, 'uri', p.uri, 'hash', p.hash, 'size_bytes', p.size_bytes, 'media_type', p.media_type)
$$;

-- Starts p_steps again, which are steps that repair and everything after them. Attempts that run are fenced. Pending gates of the steps are
-- cancelled; gates of clients are asked again, because what they were about changes.
create or replace function nofx.steps_reopen(p_run uuid, p_generation integer, p_steps uuid[], p_paused_at timestamptz, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates nofx.change[];
    v_clients uuid[];
begin
    with ended as (
        update nofx.gate g
           set status = case when g.status = 'pending' then 'cancelled' else g.status end,
               decided_at = case when g.status = 'pending' then p_now else g.decided_at end,
               voided_at = case when g.on_pass = 'release' then p_now end
         where g.run_id = p_run and g.step_id = any (p_steps)
           and (g.status = 'pending' or g.on_pass = 'release' and g.status in ('passed', 'waived') and g.voided_at is null)
        returning g.id, g.step_id, g.gate_type, g.status, g.on_pass, g.bound_digest
    )
    select array_agg(case when e.status = 'cancelled'
                          then nofx.gate_change(p_run, e.step_id, 'gate.cancelled',
                                                jsonb_build_object('gate_id', e.id, 'gate_type', e.gate_type), -1)
                          else nofx.fact(p_run, e.step_id, 'gate.voided', jsonb_strip_nulls(jsonb_build_object(
                                   'gate_id', e.id, 'gate_type', e.gate_type, 'changed', '["upstream"]'::jsonb, 'digest', e.bound_digest)))
                     end order by e.id),
           array_agg(e.id) filter (where e.on_pass = 'release')
      into v_gates, v_clients
      from ended e;

    update nofx.attempt a
       set status = 'cancelled', finished_at = p_now
      from nofx.step s
     where s.id = any (p_steps) and s.status = 'running' and a.step_id = any (array[s.id]) and a.attempt = s.attempt;

    return v_gates
        || nofx.gates_ask_again(p_run, v_clients, p_generation, p_now)
        || nofx.steps_restart(p_run, p_steps, p_paused_at, p_now);
end
$$;
revoke execute on function nofx.steps_repair(uuid[], timestamptz), nofx.artifact_ref(nofx.artifact), nofx.refers_to(text, text),
    nofx.steps_reopen(uuid, integer, uuid[], timestamptz, timestamptz) from public;
