-- Gates: create and decide.

-- A gate in front of a step that has not started, or of the end of a run.
-- p: {tenant_id, id, run_id, step_id, gate_type, evidence_uri, reason, expires_after_s}
-- -> {result: created|conflict|not_found, what, status}
create or replace function nofx.gate_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_run nofx.run;
    v_step nofx.step;
    v_now timestamptz;
begin
    select * into v_run from nofx.run r
     where r.id = (p ->> 'run_id')::uuid and r.tenant_id = p ->> 'tenant_id' for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found', 'what', 'run');
    end if;
    if v_run.finished_at is not null then
        return jsonb_build_object('result', 'conflict', 'what', 'run', 'status', v_run.status);
    end if;
    -- Its last running steps are being recorded; nothing may wait in it any more, or it would end with a pending gate.
    if v_run.steps_failed > 0 or v_run.failure is not null then
        return jsonb_build_object('result', 'conflict', 'what', 'run', 'status', 'failing');
    end if;
    v_now := clock_timestamp();
    if p ->> 'step_id' is not null then
        select * into v_step from nofx.step s where s.id = (p ->> 'step_id')::uuid and s.run_id = v_run.id;
        if not found then
            return jsonb_build_object('result', 'not_found', 'what', 'step');
        end if;
        if v_step.status not in ('pending', 'ready') then
            return jsonb_build_object('result', 'conflict', 'what', 'step', 'status', v_step.status);
        end if;
        update nofx.step s
           set status = 'pending', blockers = s.blockers + 1, ready_at = null, notify_at = null
         where s.id = v_step.id;
    end if;

    insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri, reason,
                           expires_at, created_at)
    values ((p ->> 'id')::uuid, v_run.tenant_id, v_run.id, v_step.id, p ->> 'gate_type', 'pending', 'release',
            v_run.generation, p ->> 'evidence_uri', p ->> 'reason',
            v_now + make_interval(secs => (p ->> 'expires_after_s')::integer), v_now);
    perform nofx.runs_settle(array[row(
        v_run.id, v_step.id, v_step.status, case when v_step.id is not null then 'pending' end, 'gate.created',
        jsonb_build_object('gate_id', p ->> 'id', 'gate_type', p ->> 'gate_type'),
        case when v_step.id is null then 1 else 0 end)::nofx.change], v_now);
    return jsonb_build_object('result', 'created', 'status', 'pending');
end
$$;

-- What follows when gates end: passing ones let their step or run go on, the others fail it. p_gates: ids of gates that
-- were just written as passed, waived, failed or expired. The caller holds the runs' locks.
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
    select array_agg(row(g.run_id, g.step_id, null, null, 'gate.' || g.status,
                         jsonb_strip_nulls(jsonb_build_object('gate_id', g.id, 'gate_type', g.gate_type) || p_payload),
                         case when g.step_id is null then -1 else 0 end)::nofx.change order by g.id)
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
               notify_at = case when v.verdict = 'ready'
                                then case when v.paused_at is null then p_now + interval '1 minute'
                                          else 'infinity' end end,
               notify_count = 0
          from verdict v
         where s.id = v.id
        returning s.run_id, s.id, v.was, s.status, s.error, s.ordinal
    )
    select array_agg(row(m.run_id, m.id, m.was, m.status, 'step.' || m.status,
                         jsonb_strip_nulls(jsonb_build_object('error', m.error)), 0)::nofx.change order by m.ordinal)
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
        v_steps := v_steps || nofx.children_release(v_finished, p_now);
    end if;
    if v_failed <> '{}' then
        v_steps := v_steps || nofx.steps_close(v_failed, 'skipped', false, p_now);
    end if;
    return v_gates || v_steps;
end
$$;

-- p: {tenant_id, gate_id, decision: approve|reject|waive, actor, reason}. Decides a pending gate, once; the step that
-- waits for it goes on, and what depends on it becomes ready, in the same transaction.
-- -> {result: decided|conflict|not_found, gate: {..}, ready: [wake-ups]}
create or replace function nofx.gate_decide(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_gate nofx.gate;
    v_now timestamptz;
    v_status text := case p ->> 'decision' when 'approve' then 'passed' when 'waive' then 'waived'
                                           when 'reject' then 'failed' end;
    v_changes nofx.change[];
begin
    perform 1 from nofx.run r
      where r.id = (select g.run_id from nofx.gate g
                     where g.id = (p ->> 'gate_id')::uuid and g.tenant_id = p ->> 'tenant_id')
        for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    v_now := clock_timestamp();
    select * into strict v_gate from nofx.gate g where g.id = (p ->> 'gate_id')::uuid;
    -- A gate whose time is over is the sweeper's, even if it has not come by yet.
    if v_gate.status <> 'pending' or v_gate.expires_at < v_now then
        return jsonb_build_object('result', 'conflict', 'gate', nofx.gate_json(v_gate.id));
    end if;

    update nofx.gate g
       set status = v_status, decided_at = v_now,
           approved_by = case when v_status <> 'failed' then p ->> 'actor' end,
           approved_at = case when v_status <> 'failed' then v_now end
     where g.id = v_gate.id;
    insert into nofx.approval (tenant_id, run_id, gate_id, decision, actor, reason, created_at)
    values (v_gate.tenant_id, v_gate.run_id, v_gate.id, p ->> 'decision', p ->> 'actor', p ->> 'reason', v_now);

    v_changes := nofx.gates_conclude(array[v_gate.id],
        jsonb_build_object('decision', p ->> 'decision', 'actor', p ->> 'actor', 'reason', p ->> 'reason'), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('result', 'decided', 'gate', nofx.gate_json(v_gate.id),
                              'ready', nofx.wakeups(v_changes, v_now));
end
$$;

-- A gate as the API shows it.
create or replace function nofx.gate_json(p_gate uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_build_object(
               'id', g.id, 'run_id', g.run_id, 'step_id', g.step_id, 'gate_type', g.gate_type, 'status', g.status,
               'on_pass', g.on_pass, 'generation', g.generation, 'evidence_uri', g.evidence_uri, 'reason', g.reason,
               'approved_by', g.approved_by, 'approved_at', g.approved_at, 'expires_at', g.expires_at,
               'created_at', g.created_at, 'decided_at', g.decided_at,
               'decision', (select jsonb_build_object('decision', a.decision, 'actor', a.actor, 'reason', a.reason,
                                                      'created_at', a.created_at)
                              from nofx.approval a where a.gate_id = g.id))
      from nofx.gate g
     where g.id = p_gate
$$;
