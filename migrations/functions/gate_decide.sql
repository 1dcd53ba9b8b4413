-- Decides a pending gate, once. In the same transaction its step continues, and what depends on that step becomes ready. Several gates of
-- a run may ask the same question, whether changed checks count: if a person lets one pass, the others pass with it.
-- p: {caller, gate_id, decision: approve|reject|waive, actor, reason}
-- -> {result: decided|conflict|not_found, gate: {..}, ready: [wake-ups]}
create or replace function nofx.gate_decide(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
    v_now timestamptz;
    v_status text := case p ->> 'decision' when 'approve' then 'passed' when 'waive' then 'waived'
                                           when 'reject' then 'failed' end;
    v_gates uuid[];
    v_changes nofx.change[];
begin
    p := nofx.admitted(p, case p ->> 'decision' when 'waive' then 'gates.waive' else 'gates.decide' end);
    perform 1 from nofx.run r
      where r.id = (select g.run_id from nofx.gate g
                     where g.id = (p ->> 'gate_id')::uuid and g.tenant_id = p ->> 'tenant_id')
        for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    v_now := clock_timestamp();
    select * into strict v_gate from nofx.gate g where g.id = (p ->> 'gate_id')::uuid;
    -- Only the sweeper ends an expired gate, even if it has not run yet.
    if v_gate.status <> 'pending' or v_gate.expires_at < v_now then
        return jsonb_build_object('result', 'conflict', 'gate', nofx.gate_json(v_gate.id));
    end if;

    v_gates := array[v_gate.id];
    if v_status <> 'failed' and v_gate.gate_type = 'manual:gate-change' and v_gate.subject is not null then
        v_gates := v_gates || array(
            select g.id
              from nofx.gate g
             where g.run_id = v_gate.run_id and g.gate_type = 'manual:gate-change' and g.step_id is not null
               and g.status = 'pending' and g.generation = v_gate.generation and g.subject = v_gate.subject
               and g.id <> v_gate.id and (g.expires_at is null or g.expires_at >= v_now));
    end if;

    update nofx.gate g
       set status = v_status, decided_at = v_now,
           approved_by = case when v_status <> 'failed' then p ->> 'actor' end,
           approved_at = case when v_status <> 'failed' then v_now end
     where g.id = any (v_gates);
    insert into nofx.approval (tenant_id, run_id, gate_id, decision, actor, reason, created_at)
    select v_gate.tenant_id, v_gate.run_id, decided.id, p ->> 'decision', p ->> 'actor', p ->> 'reason', v_now
      from unnest(v_gates) decided(id);

    v_changes := nofx.gates_conclude(v_gates,
        jsonb_build_object('decision', p ->> 'decision', 'actor', p ->> 'actor', 'by', p -> 'by', 'reason', p ->> 'reason'), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('result', 'decided', 'gate', nofx.gate_json(v_gate.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.transition_declare('nofx.gate_decide(jsonb)', 'nofx_api');
