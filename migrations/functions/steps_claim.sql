-- Starts the steps that are ready (1 s of clock skew is tolerated), whose run lets steps start, and that need no approval. The caller holds the
-- runs' locks. Returns the changes, null if there are none.
create or replace function nofx.steps_start(p_items jsonb, p_call uuid, p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with started as (
        -- Matched by the whole key: a forged message in a batch cannot stand in for the true one.
        update nofx.step s
           set status = 'running',
               attempt = s.attempt + 1,
               notify_at = null,
               started_at = coalesce(s.started_at, p_now),
               lease_until = nofx.lease_end(p_now, s.timeout_s, i.lease_s)
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer)
         where s.id = any (array[i.step_id]) and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
           and s.status = 'ready' and s.ready_at <= p_now + interval '1 second' and s.approval is null
           and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id and r.tenant_id is not distinct from i.tenant_id)
        returning s.tenant_id, s.run_id, s.id, s.attempt, s.lease_until
    ), recorded as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at, lease_until)
        select s.id, s.attempt, s.tenant_id, s.run_id, 'running', p_call, p_now, s.lease_until
          from started s
    )
    select array_agg(nofx.step_change(s.run_id, s.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', s.attempt)) order by s.id)
      into v_changes
      from started s;
    return v_changes;
end
$$;

-- The same for steps that need an approval: those of p_approved, which have it.
create or replace function nofx.steps_begin(p_items jsonb, p_call uuid, p_now timestamptz, p_approved uuid[]) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with started as (
        -- Matched by the whole key: a forged message in a batch cannot stand in for the true one.
        update nofx.step s
           set status = 'running',
               attempt = s.attempt + 1,
               notify_at = null,
               started_at = coalesce(s.started_at, p_now),
               lease_until = nofx.lease_end(p_now, s.timeout_s, i.lease_s)
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer)
         where s.id = any (array[i.step_id]) and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
           and s.id = any (p_approved) and s.status = 'ready' and s.ready_at <= p_now + interval '1 second'
           and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id and r.tenant_id is not distinct from i.tenant_id)
        returning s.tenant_id, s.run_id, s.id, s.attempt, s.lease_until
    ), recorded as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at, lease_until)
        select s.id, s.attempt, s.tenant_id, s.run_id, 'running', p_call, p_now, s.lease_until
          from started s
    )
    select array_agg(nofx.step_change(s.run_id, s.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', s.attempt)) order by s.id)
      into v_changes
      from started s;
    return v_changes;
end
$$;

-- Asks for the approvals that ready steps need, and finds those that they have: a decision counts for exactly the bytes that it was made about, in
-- any generation of the run, if it would count today. The caller holds the runs' locks. -> the steps that may start, and the changes
create or replace function nofx.steps_ask(p_items jsonb, p_now timestamptz, out approved uuid[], out changes nofx.change[])
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_step nofx.step;
    v_generation integer;
    v_bound jsonb;
    v_digest text;
    v_rule jsonb;
    v_asked jsonb;
    v_gate nofx.gate;
    v_id uuid;
begin
    approved := '{}';
    changes := '{}';
    for v_step in
        -- A batch may name a step twice.
        select distinct on (s.id) s.*
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid)
         cross join lateral (
            select s.*
              from nofx.step s
             where s.id = i.step_id and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
               and s.status = 'ready' and s.ready_at <= p_now + interval '1 second' and s.approval is not null
               and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id)
            offset 0) s
         order by s.id
    loop
        v_generation := (select r.generation from nofx.run r where r.id = v_step.run_id);
        v_bound := nofx.step_binding(v_step.id, null, null);
        v_digest := nofx.binding_digest(v_bound);
        v_id := null;
        -- All decisions of the step that stand. At most one of them is about these bytes.
        for v_gate in
            select g.* from nofx.gate g
             where g.step_id = v_step.id and g.gate_type = nofx.approval_type(v_step.tool) and g.on_pass = 'resume'
               and g.status in ('passed', 'waived') and g.voided_at is null
             order by g.decided_at, g.id
        loop
            if v_gate.bound_digest is not distinct from v_digest
               and (v_gate.generation = v_generation or nofx.gate_still_holds(v_gate)) then
                v_id := v_gate.id;
                -- Once for each generation.
                if v_gate.generation < v_generation and v_step.failures = 0 and v_step.workers_lost = 0 then
                    changes := changes || nofx.fact(v_step.run_id, v_step.id, 'gate.kept',
                        jsonb_build_object('gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'digest', v_digest));
                end if;
            else
                update nofx.gate g set voided_at = p_now where g.id = v_gate.id;
                changes := changes || nofx.fact(v_step.run_id, v_step.id, 'gate.voided', jsonb_build_object(
                    'gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'changed',
                    case when v_gate.bound_digest is not distinct from v_digest then '["approvals"]'
                         else nofx.binding_changes(v_gate.bound, v_bound) end, 'digest', v_digest));
            end if;
        end loop;
        if v_id is not null then
            approved := approved || v_step.id;
            continue;
        end if;

        v_asked := nofx.approval_asked(v_step);
        v_rule := nofx.approval_strictest(v_asked, nofx.approval_policy(v_step.tenant_id));
        v_id := gen_random_uuid();
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason, created_at, expires_at,
                               rule, bound, bound_digest, remind_at)
        values (v_id, v_step.tenant_id, v_step.run_id, v_step.id, nofx.approval_type(v_step.tool), 'pending', 'resume', v_generation,
                v_asked ->> 'reason', p_now,
                nofx.approval_expiry(v_step.tenant_id, nofx.approval_seconds(v_asked -> 'expires_after_s'), p_now), v_rule, v_bound, v_digest,
                p_now + make_interval(secs => nofx.approval_seconds(v_asked -> 'remind_after_s')));
        update nofx.step s set status = 'blocked', notify_at = null, notify_count = 0 where s.id = v_step.id;
        changes := changes
            || nofx.step_change(v_step.run_id, v_step.id, 'ready', 'blocked', 'step.blocked')
            || nofx.gate_change(v_step.run_id, v_step.id, 'gate.created',
                   nofx.gate_asked(v_id, nofx.approval_type(v_step.tool), v_rule, v_digest)
                   || case when v_asked ->> 'reason' is null then '{}' else jsonb_build_object('reason', v_asked ->> 'reason') end, 1);
    end loop;
end
$$;

-- Claims steps of a batch. p_items: [{tenant_id, run_id, step_id, lease_s, refs_bytes, terms}]; lease_s is what is left of the invocation,
-- refs_bytes the largest size of the values that a step refers to, terms whether the worker needs the terms of its steps (those of the first item
-- count). A step can be claimed if it is ready and has the approval that it needs, or if its attempt's lease is over; never in a
-- paused or ended run, never across tenants. A retry with the same p_call, after a lost answer, receives what the first call claimed.
-- -> {claimed: [..], skipped: [{step_id, status}]}
create or replace function nofx.steps_claim(p_items jsonb, p_call uuid default null) returns json
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz;
    v_refs_bytes integer := p_items -> 0 ->> 'refs_bytes';
    v_terms boolean := p_items -> 0 ->> 'terms';
    v_changes nofx.change[];
    v_started nofx.change[];
    v_lost uuid[];
    v_won uuid[];
    v_ask record;
begin
    perform nofx.runs_lock(array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i));
    v_now := clock_timestamp();
    v_started := nofx.steps_start(p_items, p_call, v_now);
    if v_started is not null then
        perform nofx.runs_settle(v_started, v_now);
    end if;
    if cardinality(v_started) = jsonb_array_length(p_items) then
        return json_build_object(
            'claimed', nofx.claims_json(array(select c.step_id from unnest(v_started) c), v_refs_bytes, v_terms), 'skipped', '[]'::jsonb);
    end if;

    -- Ended leases make steps ready. Settled first, so that the next claim starts from true counters.
    v_lost := array(
        select s.id
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid)
         cross join lateral (
            select s.id
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = i.step_id and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
               and s.status = 'running' and s.lease_until < v_now and r.paused_at is null
            offset 0) s);
    if v_lost <> '{}' then
        perform nofx.runs_settle(nofx.leases_end(v_lost, v_now), v_now);
        v_changes := nofx.steps_start(p_items, p_call, v_now);
        if v_changes is not null then
            perform nofx.runs_settle(v_changes, v_now);
        end if;
    end if;
    select * into v_ask from nofx.steps_ask(p_items, v_now);
    if v_ask.approved <> '{}' then
        v_ask.changes := v_ask.changes || nofx.steps_begin(p_items, p_call, v_now, v_ask.approved);
    end if;
    if v_ask.changes <> '{}' then
        perform nofx.runs_settle(v_ask.changes, v_now);
    end if;
    v_won := array(
        select c.step_id from unnest(v_started || v_changes) c
        union
        select unnest(v_ask.approved)
        union
        -- What an earlier try of this call has claimed.
        select a.step_id
          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
          join nofx.attempt a on a.step_id = i.step_id and a.tenant_id = i.tenant_id
         where a.claimed_by = p_call and a.status = 'running');
    return json_build_object(
        'claimed', nofx.claims_json(v_won, v_refs_bytes, v_terms),
        'skipped', coalesce((
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown')))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
             where i.step_id <> all (v_won)), '[]'));
end
$$;
select nofx.transition_declare('nofx.steps_claim(jsonb, uuid)', 'nofx_worker');
revoke execute on function nofx.steps_start(jsonb, uuid, timestamptz), nofx.steps_begin(jsonb, uuid, timestamptz, uuid[]),
    nofx.steps_ask(jsonb, timestamptz) from public;
