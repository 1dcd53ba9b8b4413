-- What a retry of a run and a repair loop have in common.

-- Asks p_gates again: a new gate for each, about what it is about now, under the stricter of its rule and today's policy.
-- -> one change for each
create or replace function nofx.gates_ask_again(p_run uuid, p_gates uuid[], p_generation integer, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_asked nofx.change[];
begin
    with asked as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at, rule, bound, bound_digest)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass, p_generation, g.reason, g.evidence_uri,
               nofx.approval_expiry(g.tenant_id, extract(epoch from g.expires_at - g.created_at)::integer, p_now), p_now,
               nofx.approval_strictest(coalesce(g.rule, '{}'), nofx.approval_policy(g.tenant_id)), b.bound, nofx.binding_digest(b.bound)
          from nofx.gate g
         cross join lateral nofx.gate_binding(g) b(bound)
         where g.run_id = p_run and g.id = any (p_gates)
        returning id, step_id, gate_type, rule, bound_digest
    )
    select array_agg(nofx.gate_change(p_run, a.step_id, 'gate.created', nofx.gate_asked(a.id, a.gate_type, a.rule, a.bound_digest), 1) order by a.id)
      into v_asked
      from asked a;
    return v_asked;
end
$$;

-- Starts p_steps again: each waits for those of its parents that are among them or have not succeeded, and for its pending gates. Attempt
-- numbers continue.
-- -> one change for each
create or replace function nofx.steps_restart(p_run uuid, p_steps uuid[], p_paused_at timestamptz, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_steps nofx.change[];
begin
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
    return v_steps;
end
$$;
revoke execute on function nofx.gates_ask_again(uuid, uuid[], integer, timestamptz),
    nofx.steps_restart(uuid, uuid[], timestamptz, timestamptz) from public;
