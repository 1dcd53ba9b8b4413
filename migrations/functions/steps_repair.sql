-- Repair loops. A gate failed that a step repairs, or what the step made does not fit the workspace that another one writes: the step and
-- everything after it run again, and the step gets what was found.

-- Starts the loops of p_failed, steps that have just failed. A loop starts only if its step has an attempt left and nothing else of the
-- run failed. The step becomes ready; everything after it waits again, what runs is fenced, and what people decided about it is asked again.
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
    v_again uuid[];
begin
    runs := '{}';
    steps := '{}';
    changes := '{}';
    for v_loop in
        select s.id, s.run_id, s.tenant_id, s.attempt, s.repair, s.repairs, r.paused_at,
               g.id as gate_id, g.name as gate, g.attempt as gate_attempt, g.error
          from nofx.step g
          join nofx.run r on r.id = any (array[g.run_id])
          join nofx.step s on s.run_id = g.run_id
               and case g.error ->> 'code'
                   when 'gate_failed' then s.repair -> 'gates' ? g.name
                   when 'changes_refused' then g.tool = 'workspace:write' and s.repair is not null and s.name = any (g.refs)
                   else false end
         where g.id = any (p_failed) and g.status = 'failed'
           and s.status = 'succeeded' and s.repairs + 1 < (s.repair ->> 'max_attempts')::integer
           and r.failure is null and r.cancelled_at is null
         order by s.run_id, s.id, g.ordinal
    loop
        -- Another gate of the same loop failed in the same batch.
        continue when v_loop.id = any (steps);
        v_again := array(
            with recursive after as (
                select v_loop.id as id
                union
                select e.child_id from after a join nofx.step_edge e on e.parent_id = a.id
            )
            select a.id from after a);
        continue when exists (
            select from nofx.step f where f.run_id = v_loop.run_id and f.status in ('failed', 'skipped') and f.id <> all (v_again));
        changes := changes || nofx.fact(v_loop.run_id, v_loop.id, 'step.repairing', jsonb_strip_nulls(jsonb_build_object(
                       'gate', v_loop.gate, 'gate_attempt', v_loop.gate_attempt, 'round', v_loop.repairs + 2,
                       'max_attempts', v_loop.repair -> 'max_attempts', 'error', v_loop.error,
                       'evidence_id', (select a.id from nofx.artifact a
                                        where a.step_id = v_loop.gate_id and a.attempt = v_loop.gate_attempt and a.type = 'gate_evidence'
                                        order by a.id limit 1))))
                || nofx.steps_reset(v_loop.run_id, v_loop.id, v_again, v_loop.paused_at, p_now);
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
        runs := runs || v_loop.run_id;
        steps := steps || v_again;
    end loop;
end
$$;

-- What a worker needs to read an artifact.
create or replace function nofx.artifact_ref(p nofx.artifact) returns jsonb
    language sql immutable
as $$
    select jsonb_build_object('id', p.id, 'uri', p.uri, 'hash', p.hash, 'size_bytes', p.size_bytes, 'media_type', p.media_type)
$$;

-- Makes p_root ready and the other steps of p_steps wait again. Attempts that run are fenced. Pending gates of the steps are cancelled; gates
-- of clients are asked again, because what they were about changes.
create or replace function nofx.steps_reset(p_run uuid, p_root uuid, p_steps uuid[], p_paused_at timestamptz, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates nofx.change[];
    v_asked nofx.change[];
    v_steps nofx.change[];
begin
    with ended as (
        update nofx.gate g
           set status = case when g.status = 'pending' then 'cancelled' else g.status end,
               decided_at = case when g.status = 'pending' then p_now else g.decided_at end,
               voided_at = case when g.status = 'pending' then g.voided_at else p_now end
         where g.run_id = p_run and g.step_id = any (p_steps)
           and (g.status = 'pending' or g.on_pass = 'release' and g.status in ('passed', 'waived') and g.voided_at is null)
        returning g.id, g.step_id, g.gate_type, g.status, g.bound_digest
    )
    select array_agg(case when e.status = 'cancelled'
                          then nofx.gate_change(p_run, e.step_id, 'gate.cancelled',
                                                jsonb_build_object('gate_id', e.id, 'gate_type', e.gate_type), -1)
                          else nofx.fact(p_run, e.step_id, 'gate.voided', jsonb_strip_nulls(jsonb_build_object(
                                   'gate_id', e.id, 'gate_type', e.gate_type, 'changed', '["upstream"]'::jsonb, 'digest', e.bound_digest)))
                     end order by e.id)
      into v_gates
      from ended e;

    with asked as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at, rule, bound, bound_digest)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass, g.generation, g.reason, g.evidence_uri,
               nofx.approval_expiry(g.tenant_id, extract(epoch from g.expires_at - g.created_at)::integer, p_now), p_now,
               nofx.approval_strictest(coalesce(g.rule, '{}'), nofx.approval_policy(g.tenant_id)), b.bound, nofx.binding_digest(b.bound)
          from nofx.gate g
         cross join lateral nofx.gate_binding(g) b(bound)
         where g.run_id = p_run and g.step_id = any (p_steps) and g.on_pass = 'release'
           and (g.voided_at = p_now or g.status = 'cancelled' and g.decided_at = p_now)
        returning id, step_id, gate_type, rule, bound_digest
    )
    select array_agg(nofx.gate_change(p_run, a.step_id, 'gate.created', nofx.gate_asked(a.id, a.gate_type, a.rule, a.bound_digest), 1) order by a.id)
      into v_asked
      from asked a;

    update nofx.attempt a
       set status = 'cancelled', finished_at = p_now
      from nofx.step s
     where s.id = any (p_steps) and s.status = 'running' and a.step_id = any (array[s.id]) and a.attempt = s.attempt;

    with old as (
        select s.id, s.status,
               (select count(*) from nofx.step_edge e join nofx.step q on q.id = e.parent_id
                 where e.child_id = s.id and (q.id = any (p_steps) or q.status <> 'succeeded'))
               + (select count(*) from nofx.gate g where g.step_id = s.id and g.status = 'pending' and g.on_pass = 'release') as blockers
          from nofx.step s
         where s.id = any (p_steps)
    ), renewed as (
        update nofx.step s
           set status = case when o.blockers = 0 then 'ready' else 'pending' end,
               blockers = o.blockers, failures = 0, workers_lost = 0, outputs = null, error = null,
               started_at = null, finished_at = null, lease_until = null, notify_count = 0,
               ready_at = case when o.blockers = 0 then p_now end,
               notify_at = case when o.blockers = 0 then nofx.wakeup_due(p_now, p_paused_at) end
          from old o
         where s.id = any (array[o.id])
        returning s.id, o.status as was, s.status, s.ordinal
    )
    select array_agg(nofx.step_change(p_run, a.id, a.was, a.status, case when a.status = 'ready' then 'step.ready' end) order by a.ordinal)
      into v_steps
      from renewed a;
    return v_gates || v_asked || v_steps;
end
$$;
revoke execute on function nofx.steps_repair(uuid[], timestamptz), nofx.artifact_ref(nofx.artifact),
    nofx.steps_reset(uuid, uuid, uuid[], timestamptz, timestamptz) from public;
