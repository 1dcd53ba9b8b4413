-- Puts a gate before a step that has not started, or before the end of a run.
-- p: {caller, id, run_id, step_id, gate_type, evidence_uri, reason, expires_after_s}
-- -> {result: created|conflict|not_found, what, status} | {result: full, maximum}
create or replace function nofx.gate_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_step nofx.step;
    v_now timestamptz;
    v_rule jsonb;
    v_bound jsonb;
begin
    p := nofx.admitted(p, 'gates.create');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found', 'what', 'run');
    end if;
    if v_run.finished_at is not null then
        return jsonb_build_object('result', 'conflict', 'what', 'run', 'status', v_run.status);
    end if;
    -- A failing run only records its last running steps. A new gate would leave it ended with a pending gate.
    if nofx.is_failing(v_run.steps_failed, v_run.failure) then
        return jsonb_build_object('result', 'conflict', 'what', 'run', 'status', 'failing');
    end if;
    if (select count(*) from nofx.gate g
         where g.run_id = v_run.id and g.status = 'pending' and g.on_pass = 'release') >= nofx.max_gates() then
        return jsonb_build_object('result', 'full', 'maximum', nofx.max_gates());
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

    -- A client chooses where the gate is. The policy alone says who decides it.
    v_rule := nofx.approval_strictest('{}', nofx.approval_policy(v_run.tenant_id));
    v_bound := nofx.run_binding(v_run.id, v_step.id);
    insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri, reason,
                           expires_at, created_at, rule, bound, bound_digest)
    values ((p ->> 'id')::uuid, v_run.tenant_id, v_run.id, v_step.id, p ->> 'gate_type', 'pending', 'release',
            v_run.generation, p ->> 'evidence_uri', p ->> 'reason',
            nofx.approval_expiry(v_run.tenant_id, (p ->> 'expires_after_s')::integer, v_now), v_now, v_rule, v_bound,
            nofx.binding_digest(v_bound));
    perform nofx.runs_settle(array[
        nofx.gate_change(v_run.id, v_step.id, 'gate.created',
                         nofx.gate_asked((p ->> 'id')::uuid, p ->> 'gate_type', v_rule, nofx.binding_digest(v_bound)), 1),
        nofx.step_change(v_run.id, v_step.id, v_step.status, case when v_step.id is not null then 'pending' end, null)],
        v_now);
    return jsonb_build_object('result', 'created', 'status', 'pending');
end
$$;
select nofx.transition_declare('nofx.gate_create(jsonb)', 'nofx_api');
