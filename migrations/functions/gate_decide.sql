-- Decides a pending gate for every path: the API, the console, the command and links. A rejection or a waiver ends the gate at once. An
-- approval ends it when as many different people have approved as its rule requires. In the same transaction its step continues, and what
-- depends on that step becomes ready. Several gates of a run may ask the same question, whether changed checks count: a decision of a person
-- to let one pass counts for the others too.

-- Records one decision about a gate that is open. -> whether it ends the gate, with the name of everybody whose approval counted
create or replace function nofx.decision_record(p_gate nofx.gate, p_rule jsonb, p jsonb, p_now timestamptz)
    returns table (ends boolean, approved integer, names text)
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_subject text := p -> 'who' ->> 'subject';
    v_names text;
begin
    select 1 + count(*), string_agg(a.actor || ', ', '' order by a.created_at, a.id)
      into approved, v_names
      from nofx.gate_approvals(p_gate, p_rule) a
     where p ->> 'decision' = 'approve' and a.subject <> v_subject;
    ends := p ->> 'decision' <> 'approve' or approved >= (p_rule ->> 'required')::integer;
    names := coalesce(v_names, '') || (p ->> 'actor');
    insert into nofx.approval (tenant_id, run_id, gate_id, decision, actor, reason, created_at, subject, is_self, decides, bound_digest,
                               envelope)
    values (p_gate.tenant_id, p_gate.run_id, p_gate.id, p ->> 'decision', p ->> 'actor', p ->> 'reason', p_now, v_subject,
            v_subject = any (nofx.gate_excluded(p_gate.run_id, '{}')), ends, p_gate.bound_digest,
            nullif(p -> 'envelope', 'null'));
    return next;
end
$$;

-- p: {caller, gate_id, decision: approve|reject|waive, actor, reason, seen, envelope, link}. seen: the digest of what the person has seen, and of what
-- the envelope, the signed statement about the decision, is about.
-- -> {result: decided|recorded|unchanged|excluded|changed|link|conflict|not_found, gate: {..}, why, changed: [paths], ready: [wake-ups]}.
-- `recorded`: more approvals are needed. `unchanged`: the person's approval was recorded before. `excluded`: the person may not decide, and `why`
-- is that of nofx.gate_may_decide. `changed`: the gate is not about what the person saw; from now on it asks about what is there.
-- Without an envelope nothing is decided: the answer is `changed` if a decision were possible.
-- `link`: p names a link that cannot be used, and `why` is that of nofx.link_why_not.
create or replace function nofx.gate_decide(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
    v_rule jsonb;
    v_why text;
    v_bound jsonb;
    v_changed jsonb;
    v_now timestamptz;
    v_status text := case p ->> 'decision' when 'approve' then 'passed' when 'waive' then 'waived'
                                           when 'reject' then 'failed' end;
    v_one record;
    v_ended uuid[] := '{}';
    v_changes nofx.change[] := '{}';
begin
    p := nofx.admitted(p, case p ->> 'decision' when 'waive' then 'gates.waive' else 'gates.decide' end);
    -- Whatever the table of permissions says: only people decide.
    if p -> 'who' ->> 'kind' is distinct from 'person' then
        raise exception 'forbidden' using errcode = 'NF403', detail = 'gates.decide';
    end if;
    perform 1 from nofx.run r
      where r.id = (select g.run_id from nofx.gate g
                     where g.id = (p ->> 'gate_id')::uuid and g.tenant_id = p ->> 'tenant_id')
        for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    v_now := clock_timestamp();
    select * into strict v_gate from nofx.gate g where g.id = (p ->> 'gate_id')::uuid;
    v_rule := nofx.gate_rule(v_gate);
    v_why := nofx.gate_may_decide(v_gate, v_rule, p -> 'who', p ->> 'decision');
    if v_why is not null then
        return jsonb_build_object(
            'result', case v_why when 'decided' then 'conflict' when 'expired' then 'conflict' when 'done' then 'unchanged' else 'excluded' end,
            'why', v_why, 'gate', nofx.gate_view(v_gate.id, p -> 'who'), 'ready', '[]'::jsonb);
    end if;
    if v_status is null or (v_status <> 'passed' and coalesce(p ->> 'reason', '') !~ '\S') then
        raise exception 'a rejection and a waiver need a reason' using errcode = 'invalid_parameter_value';
    end if;
    -- Nobody signed it, because the person could not decide a moment ago.
    if coalesce(p -> 'envelope', 'null') = 'null' then
        return jsonb_build_object('result', 'changed', 'changed', '["may_decide"]'::jsonb, 'gate', nofx.gate_view(v_gate.id, p -> 'who'),
                                  'ready', '[]'::jsonb);
    end if;
    v_bound := nofx.gate_binding(v_gate);
    v_changed := case when v_gate.bound is null then '[]' else nofx.binding_changes(v_gate.bound, v_bound) end;
    if v_changed <> '[]' then
        update nofx.gate g set bound = v_bound, bound_digest = nofx.binding_digest(v_bound) where g.id = v_gate.id;
        perform nofx.runs_settle(array[nofx.fact(v_gate.run_id, v_gate.step_id, 'gate.voided', jsonb_build_object(
            'gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'changed', v_changed, 'digest', nofx.binding_digest(v_bound)))], v_now);
    elsif p ->> 'seen' <> v_gate.bound_digest then
        v_changed := '["digest"]';
    end if;
    if v_changed <> '[]' then
        return jsonb_build_object('result', 'changed', 'changed', v_changed, 'gate', nofx.gate_view(v_gate.id, p -> 'who'), 'ready', '[]'::jsonb);
    end if;
    v_why := nofx.link_use(v_gate, p, v_now);
    if v_why is not null then
        return jsonb_build_object('result', 'link', 'why', v_why);
    end if;

    for v_one in
        select g.id, g as gate
          from nofx.gate g
         where g.id = v_gate.id
            or (v_status <> 'failed' and v_gate.gate_type = 'manual:gate-change' and v_gate.subject is not null
                and g.run_id = v_gate.run_id and g.gate_type = 'manual:gate-change' and g.step_id is not null
                and g.status = 'pending' and g.generation = v_gate.generation and g.subject = v_gate.subject
                and (g.expires_at is null or g.expires_at >= v_now))
         order by g.id
    loop
        declare
            v_each jsonb := nofx.gate_rule(v_one.gate);
            v_end record;
        begin
            continue when v_one.id <> v_gate.id
                and (nofx.gate_may_decide(v_one.gate, v_each, p -> 'who', p ->> 'decision') is not null
                     or (v_one.gate).bound is distinct from nofx.gate_binding(v_one.gate));
            select * into v_end from nofx.decision_record(v_one.gate, v_each, p, v_now);
            update nofx.gate g
               set rule = v_each,
                   status = case when v_end.ends then v_status else g.status end,
                   decided_at = case when v_end.ends then v_now end,
                   approved_by = case when v_end.ends and v_status <> 'failed' then v_end.names end,
                   approved_at = case when v_end.ends and v_status <> 'failed' then v_now end
             where g.id = v_one.id;
            if v_end.ends then
                v_ended := v_ended || v_one.id;
            else
                v_changes := v_changes || nofx.fact(v_gate.run_id, (v_one.gate).step_id, 'gate.approved', jsonb_strip_nulls(
                    jsonb_build_object('gate_id', v_one.id, 'gate_type', (v_one.gate).gate_type, 'actor', p ->> 'actor', 'by', p -> 'by',
                                       'reason', p ->> 'reason', 'approved', v_end.approved, 'required', v_each -> 'required',
                                       'digest', (v_one.gate).bound_digest)));
            end if;
        end;
    end loop;

    if v_gate.gate_type = 'budget' and v_status = 'passed' and v_gate.id = any (v_ended) then
        v_changes := v_changes || nofx.budget_raise(v_gate, p);
    end if;
    v_changes := v_changes || nofx.gates_conclude(v_ended, jsonb_strip_nulls(jsonb_build_object(
        'decision', p ->> 'decision', 'actor', p ->> 'actor', 'by', p -> 'by', 'reason', p ->> 'reason',
        'is_self', case when (p -> 'who' ->> 'subject') = any (nofx.gate_excluded(v_gate.run_id, '{}')) then true end)), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('result', case when v_gate.id = any (v_ended) then 'decided' else 'recorded' end,
                              'gate', nofx.gate_view(v_gate.id, p -> 'who'),
                              'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
revoke execute on function nofx.decision_record(nofx.gate, jsonb, jsonb, timestamptz) from public;
select nofx.transition_declare('nofx.gate_decide(jsonb)', 'nofx_api');
