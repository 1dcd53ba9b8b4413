-- Claim and finish: the two transitions around the work of a step.

-- What a worker is told of a step that it has claimed; `upstream` are the outputs that the inputs refer to.
create or replace function nofx.step_claimed(p_step_id uuid) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    return (
        select jsonb_build_object(
                   'tenant_id', s.tenant_id, 'run_id', s.run_id, 'step_id', s.id, 'name', s.name, 'tool', s.tool,
                   'attempt', s.attempt, 'failures', s.failures, 'max_attempts', s.max_attempts,
                   'backoff_ms', s.backoff_ms, 'timeout_s', s.timeout_s, 'inputs', s.inputs,
                   'upstream', case when s.refs = '{}' then '{}' else coalesce((
                       select jsonb_object_agg(u.name, u.outputs)
                         from nofx.step u
                        where u.run_id = s.run_id and u.name = any (s.refs)), '{}') end,
                   'goal', r.goal, 'workspace', r.workspace, 'traceparent', r.traceparent)
          from nofx.step s
          join nofx.run r on r.id = s.run_id
         where s.id = p_step_id);
end
$$;

-- Claims one step for p_call, if it is ready (1 s of skew tolerated) and its run is neither paused nor ended. With
-- p_handler: only if it is that handler's and its timeout is at most p_timeout_s. The caller holds the run's lock, and
-- settles it. Returns nofx.step_claimed, null when the step is not to be had.
create or replace function nofx.step_take(
    p_tenant_id text, p_run_id uuid, p_step_id uuid, p_lease_s integer, p_call uuid, p_handler text,
    p_timeout_s integer, p_now timestamptz
) returns jsonb
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_attempt integer;
begin
    -- By the whole key: a forged message in a batch must not stand in for the true one.
    update nofx.step s
       set status = 'running',
           attempt = s.attempt + 1,
           notify_at = null,
           started_at = coalesce(s.started_at, p_now),
           lease_until = p_now + make_interval(secs => least(s.timeout_s, p_lease_s) + 5)
      from nofx.run r
     where s.id = p_step_id and s.run_id = p_run_id and s.tenant_id = p_tenant_id
       and r.id = p_run_id and r.tenant_id = p_tenant_id
       and s.status = 'ready' and s.ready_at <= p_now + interval '1 second'
       and r.status in ('queued', 'running', 'blocked')
       and (p_handler is null or s.handler = p_handler and s.timeout_s <= p_timeout_s)
    returning s.attempt into v_attempt;
    if not found then
        return null;
    end if;
    insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at)
    values (p_step_id, v_attempt, p_tenant_id, p_run_id, 'running', p_call, p_now);
    return nofx.step_claimed(p_step_id);
end
$$;

-- Claims steps of a batch. p_items: [{tenant_id, run_id, step_id, lease_s}]; lease_s is what is left of the
-- invocation. Claimed are steps that are ready, or whose attempt's lease is over; never those of a
-- paused or ended run, never across tenants. The same p_call again (its answer was lost) gets what it has claimed.
-- Returns {claimed: [..], skipped: [{step_id, status}]}.
create or replace function nofx.steps_claim(p_items jsonb, p_call uuid default null) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz;
    v_item record;
    v_step jsonb;
    v_won uuid[] := '{}';
    v_changes nofx.change[];
    v_claimed jsonb[] := '{}';
    v_dead uuid[];
begin
    perform 1
       from nofx.run r
      where r.id = any (array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i))
      order by r.id for no key update;
    v_now := clock_timestamp();

    -- A second round only when leases that are over made steps ready.
    for v_round in 1..2 loop
        for v_item in
            select i.* from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer)
             order by i.step_id
        loop
            v_step := nofx.step_take(v_item.tenant_id, v_item.run_id, v_item.step_id, v_item.lease_s, p_call, null,
                                     null, v_now);
            continue when v_step is null;
            v_won := v_won || v_item.step_id;
            v_claimed := v_claimed || v_step;
            v_changes := v_changes || row(v_item.run_id, v_item.step_id, 'ready', 'running', 'step.started',
                                          jsonb_build_object('attempt', v_step -> 'attempt'), 0)::nofx.change;
        end loop;
        perform nofx.runs_settle(v_changes, v_now);
        v_changes := null;
        exit when v_round = 2 or cardinality(v_won) = jsonb_array_length(p_items);

        v_dead := array(
            select d.id
              from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid)
             cross join lateral (
                select s.id
                  from nofx.step s
                  join nofx.run r on r.id = s.run_id
                 where s.id = i.step_id and s.run_id = i.run_id and s.tenant_id = i.tenant_id
                   and s.status = 'running' and s.lease_until < v_now and r.paused_at is null
                offset 0) d);
        exit when v_dead = '{}';
        -- Settled at once, so that what is claimed next starts from true counters.
        perform nofx.runs_settle(nofx.leases_end(v_dead, v_now), v_now);
    end loop;

    if cardinality(v_won) = jsonb_array_length(p_items) then
        return jsonb_build_object('claimed', v_claimed, 'skipped', '[]'::jsonb);
    end if;
    for v_item in
        select distinct a.step_id
          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
          join nofx.attempt a on a.step_id = i.step_id and a.tenant_id = i.tenant_id
         where a.claimed_by = p_call and a.status = 'running' and a.step_id <> all (v_won)
    loop
        v_won := v_won || v_item.step_id;
        v_claimed := v_claimed || nofx.step_claimed(v_item.step_id);
    end loop;
    return jsonb_build_object(
        'claimed', to_jsonb(v_claimed),
        'skipped', coalesce((
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown')))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
             where i.step_id <> all (v_won)), '[]'));
end
$$;

-- Records the ends of attempts. p_items: [{tenant_id, run_id, step_id, attempt, call, to, outputs, error, delay_ms,
-- artifacts, gates, events}] where `to` is succeeded, failed, ready (a retry after delay_ms) or blocked. Fenced by
-- `running` and the attempt number: fenced out changes nothing ("stale"). The same finish again (its answer was lost)
-- is "repeated" and answers with the stored state and the wake-ups that are still owed.
--
-- p_next: {call, handler, lease_s, timeout_s}, of an invocation that can go on: of the steps that thereby became ready as
-- many as succeeded are claimed at once, if they are the same handler's and their timeout is at most timeout_s. They need
-- no wake-up then. The same call again gets what it has claimed; an item's `call` names an earlier finish of that attempt
-- whose answer was lost.
--
-- Returns {items: [{step_id, result, status}], claimed: [..], ready: [wake-ups]}.
create or replace function nofx.steps_finish(p_items jsonb, p_next jsonb default null) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz;
    v_item record;
    v_paused boolean;
    v_failing boolean;
    v_verdict text;
    v_ready_at timestamptz;
    v_notify_at timestamptz;
    v_done uuid[] := '{}';
    v_succeeded uuid[];
    v_failed_runs uuid[];
    v_leaves_facts boolean := false;
    v_wakes boolean := false;
    v_changes nofx.change[];
    v_released nofx.change[];
    v_child nofx.change;
    v_step jsonb;
    v_claimed jsonb[] := '{}';
    v_items jsonb[];
    v_answer jsonb;
    v_owed nofx.change[];
begin
    perform 1
       from nofx.run r
      where r.id = any (array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i))
      order by r.id for no key update;
    v_now := clock_timestamp();

    for v_item in
        select i.*, coalesce(jsonb_array_length(i.artifacts) + jsonb_array_length(i.gates)
                             + jsonb_array_length(i.events), 0) > 0 as leaves_facts
          from jsonb_to_recordset(p_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, "to" text, outputs jsonb, error jsonb,
                    delay_ms integer, artifacts jsonb, gates jsonb, events jsonb)
         order by i.step_id
    loop
        v_verdict := v_item."to";
        if v_verdict in ('ready', 'blocked') then
            select r.paused_at is not null, r.steps_failed > 0 or r.failure is not null into v_paused, v_failing
              from nofx.run r
             where r.id = v_item.run_id;
            -- Nothing starts again or waits in a run that is failing.
            if v_failing then
                v_verdict := case v_verdict when 'ready' then 'failed' else 'skipped' end;
            end if;
        end if;
        v_ready_at := null;
        v_notify_at := null;
        if v_verdict = 'ready' then
            v_ready_at := v_now + make_interval(secs => v_item.delay_ms / 1000.0);
            v_notify_at := case when v_paused then 'infinity' else v_ready_at + interval '1 minute' end;
            v_wakes := true;
        end if;

        update nofx.step s
           set status = v_verdict,
               outputs = case when v_verdict = 'succeeded' then v_item.outputs end,
               error = case when v_verdict in ('failed', 'ready') then v_item.error end,
               failures = s.failures + (v_item."to" in ('failed', 'ready'))::integer,
               lease_until = null,
               finished_at = case when v_verdict in ('succeeded', 'failed', 'skipped') then v_now end,
               ready_at = coalesce(v_ready_at, s.ready_at),
               notify_at = v_notify_at,
               notify_count = 0
         where s.id = v_item.step_id and s.run_id = v_item.run_id and s.tenant_id = v_item.tenant_id
           and s.status = 'running' and s.attempt = v_item.attempt;
        continue when not found;

        update nofx.attempt a
           set status = case when v_item."to" = 'ready' then 'failed' else v_item."to" end,
               error = v_item.error,
               finished_at = v_now
         where a.step_id = v_item.step_id and a.attempt = v_item.attempt;
        v_done := v_done || v_item.step_id;
        v_leaves_facts := v_leaves_facts or v_item.leaves_facts;
        if v_verdict = 'succeeded' then
            v_succeeded := v_succeeded || v_item.step_id;
        elsif v_verdict in ('failed', 'skipped') then
            v_failed_runs := v_failed_runs || v_item.run_id;
        end if;
        v_changes := v_changes || row(
            v_item.run_id, v_item.step_id, 'running', v_verdict,
            case v_verdict when 'ready' then 'step.retrying' else 'step.' || v_verdict end,
            case when v_verdict in ('failed', 'ready')
                 then jsonb_strip_nulls(jsonb_build_object(
                          'attempt', v_item.attempt, 'error', v_item.error,
                          'delay_ms', case when v_verdict = 'ready' then v_item.delay_ms end))
                 else jsonb_build_object('attempt', v_item.attempt) end, 0)::nofx.change;
        v_items := v_items
            || jsonb_build_object('step_id', v_item.step_id, 'status', v_verdict, 'result', 'finished');
    end loop;

    if v_done <> '{}' then
        if v_leaves_facts then
            v_changes := nofx.step_facts_insert(p_items, v_done, v_now) || v_changes;
        end if;
        if v_succeeded is not null then
            v_released := nofx.children_release(v_succeeded, v_now);
            v_changes := v_changes || v_released;
        end if;
        if v_failed_runs is not null then
            v_changes := v_changes || nofx.steps_close(v_failed_runs, 'skipped', false, v_now);
        end if;
        foreach v_child in array coalesce(v_released, '{}') loop
            v_step := null;
            if p_next is not null and cardinality(v_claimed) < cardinality(v_succeeded) then
                v_step := nofx.step_take(
                    (select r.tenant_id from nofx.run r where r.id = v_child.run_id), v_child.run_id,
                    v_child.step_id, (p_next ->> 'lease_s')::integer, (p_next ->> 'call')::uuid,
                    p_next ->> 'handler', (p_next ->> 'timeout_s')::integer, v_now);
            end if;
            if v_step is null then
                v_wakes := true;
                continue;
            end if;
            v_claimed := v_claimed || v_step;
            v_changes := v_changes || row(v_child.run_id, v_child.step_id, 'ready', 'running', 'step.started',
                                          jsonb_build_object('attempt', v_step -> 'attempt'), 0)::nofx.change;
        end loop;
        perform nofx.runs_settle(v_changes, v_now);
    end if;
    v_answer := coalesce(to_jsonb(v_items), '[]');

    -- Whoever was fenced out, or came again, is told the state of its step; so are neighbours that a failure closed.
    if cardinality(v_done) <> jsonb_array_length(p_items) or v_failed_runs is not null then
        select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown'), 'result',
                   case when s.id = any (v_done) then 'finished'
                        when a.status in ('succeeded', 'failed', 'blocked')
                             and a.status = case i."to" when 'ready' then 'failed' else i."to" end then 'repeated'
                        else 'stale' end))
          into v_answer
          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, attempt integer, "to" text)
          left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
          left join nofx.attempt a on a.step_id = s.id and a.attempt = i.attempt;
        -- A repeated finish may have lost its wake-ups with its answer.
        select array_agg(row(c.run_id, c.id, null, 'ready', null, null, 0)::nofx.change)
          into v_owed
          from nofx.step c
         where c.status = 'ready'
           and c.id in (select unnest(array[a.step_id, e.child_id])
                          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, attempt integer)
                          join nofx.attempt a on a.step_id = i.step_id and a.attempt = i.attempt
                                             and a.tenant_id = i.tenant_id
                          left join nofx.step_edge e on e.parent_id = a.step_id
                         where a.status in ('succeeded', 'failed') and a.step_id <> all (v_done));
        -- Or the steps that it went on with.
        select v_claimed || coalesce(array_agg(distinct nofx.step_claimed(a.step_id)), '{}')
          into v_claimed
          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, call uuid)
          join nofx.step_edge e on e.parent_id = i.step_id
          join nofx.attempt a on a.step_id = e.child_id and a.tenant_id = i.tenant_id
         where i.step_id <> all (v_done)
           and a.claimed_by in ((p_next ->> 'call')::uuid, i.call) and a.status = 'running';
    end if;

    return jsonb_build_object(
        'items', coalesce(v_answer, '[]'), 'claimed', to_jsonb(v_claimed),
        'ready', case when v_wakes or v_owed is not null then nofx.wakeups(v_changes || v_owed, v_now) else '[]' end);
end
$$;

-- Artifacts, gates and events that finished attempts leave behind; the ordinary step leaves nothing but its outputs and
-- is spared these statements. Returns their timeline facts.
create or replace function nofx.step_facts_insert(p_items jsonb, p_done uuid[], p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_artifacts nofx.change[];
    v_gates nofx.change[];
    v_events nofx.change[];
begin
    with made as (
        insert into nofx.artifact (id, tenant_id, run_id, step_id, attempt, name, type, uri, hash, size_bytes,
                                   media_type, metadata, created_at)
        select a.id, i.tenant_id, i.run_id, i.step_id, i.attempt, a.name, a.type, a.uri, a.hash, a.size_bytes,
               a.media_type, coalesce(a.metadata, '{}'), p_now
          from jsonb_to_recordset(p_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, artifacts jsonb)
         cross join jsonb_to_recordset(coalesce(i.artifacts, '[]'))
               as a(id uuid, name text, type text, uri text, hash text, size_bytes bigint, media_type text,
                    metadata jsonb)
         where i.step_id = any (p_done)
        returning run_id, step_id, id, name, type, hash
    )
    select array_agg(row(m.run_id, m.step_id, null, null, 'artifact.created',
                         jsonb_build_object('artifact_id', m.id, 'name', m.name, 'type', m.type, 'hash', m.hash),
                         0)::nofx.change order by m.id)
      into v_artifacts
      from made m;

    insert into nofx.artifact_edge (parent_id, child_id, tenant_id)
    select p.id, (a ->> 'id')::uuid, i.tenant_id
      from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, artifacts jsonb)
     cross join jsonb_array_elements(coalesce(i.artifacts, '[]')) a
     cross join jsonb_array_elements_text(coalesce(a -> 'made_from', '[]')) made_from
      join nofx.artifact p on p.id = made_from::uuid and p.tenant_id = i.tenant_id
     where i.step_id = any (p_done)
        on conflict do nothing;

    with made as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri,
                               reason, expires_at, created_at, decided_at)
        select g.id, i.tenant_id, i.run_id, i.step_id, g.gate_type, g.status, g.on_pass, r.generation, g.evidence_uri,
               g.reason, p_now + make_interval(secs => g.expires_after_s), p_now,
               case when g.status <> 'pending' then p_now end
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, gates jsonb)
          join nofx.run r on r.id = i.run_id
         cross join jsonb_to_recordset(coalesce(i.gates, '[]'))
               as g(id uuid, gate_type text, status text, on_pass text, evidence_uri text, reason text,
                    expires_after_s integer)
         where i.step_id = any (p_done)
        returning run_id, step_id, id, gate_type, status, reason
    )
    select array_agg(row(m.run_id, m.step_id, null, null,
                         case m.status when 'pending' then 'gate.created' else 'gate.' || m.status end,
                         jsonb_strip_nulls(jsonb_build_object('gate_id', m.id, 'gate_type', m.gate_type,
                                                              'reason', m.reason)), 0)::nofx.change order by m.id)
      into v_gates
      from made m;

    select array_agg(row(i.run_id, i.step_id, null, null, e.event ->> 'type', e.event -> 'payload', 0)::nofx.change
                     order by i.step_id, e.position)
      into v_events
      from jsonb_to_recordset(p_items) as i(run_id uuid, step_id uuid, events jsonb)
     cross join jsonb_array_elements(coalesce(i.events, '[]')) with ordinality as e(event, position)
     where i.step_id = any (p_done);

    return v_events || v_artifacts || v_gates;
end
$$;

-- Artifacts of a tenant for a worker, which may read no table. p: {tenant_id, ids: [..]}. Ids that are not the tenant's
-- are absent. -> [{id, uri, hash, size_bytes, media_type}]
create or replace function nofx.artifacts_find(p jsonb) returns jsonb
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'uri', a.uri, 'hash', a.hash,
                                                 'size_bytes', a.size_bytes, 'media_type', a.media_type)), '[]')
      from nofx.artifact a
     where a.tenant_id = p ->> 'tenant_id'
       and a.id = any (array(select jsonb_array_elements_text(p -> 'ids')::uuid))
$$;
