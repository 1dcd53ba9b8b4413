-- A claim hands out the values that a step refers to, and no others, and stops before they are too many: what one step
-- refers to can neither fill a worker's memory nor make the answer for its neighbours unreadable.

-- What the inputs refer to in the outputs of the step of the same position in `refs`: a path as Postgres' `#>` takes it, as
-- text. A step that is referred to twice stands in `refs` twice. Null: a run of before this column; its steps get whole
-- outputs.
alter table nofx.step add column ref_paths text[];

-- The values that a step refers to, until they have more than p_refs_bytes bytes, or the outputs that they are in more than
-- 64 times that: null then. References are in the order of their steps, so each step's outputs are read once.
-- [{step, path, value}]; a reference to nothing is not in it.
create function nofx.step_refs(p_run_id uuid, p_refs text[], p_ref_paths text[], p_refs_bytes integer) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_outputs jsonb;
    v_value jsonb;
    v_values jsonb[] := '{}';
    v_read bigint := 0;
    v_bytes bigint := 0;
begin
    for i in 1..cardinality(p_refs) loop
        if i = 1 or p_refs[i] <> p_refs[i - 1] then
            -- A copy in memory: what is stored is compressed, and every look into it would unpack it again.
            select u.outputs || '{}' into v_outputs
              from nofx.step u
             where u.run_id = p_run_id and u.name = p_refs[i];
            v_read := v_read + coalesce(pg_column_size(v_outputs), 0);
        end if;
        v_value := v_outputs #> coalesce(p_ref_paths[i], '{}')::text[];
        continue when v_value is null;
        v_bytes := v_bytes + octet_length(v_value::text);
        if v_bytes > p_refs_bytes or v_read > p_refs_bytes * 64::bigint then
            return null;
        end if;
        v_values := v_values || jsonb_build_object('step', p_refs[i], 'path', coalesce(p_ref_paths[i], '{}')::text[],
                                                   'value', v_value);
    end loop;
    return to_jsonb(v_values);
end
$$;

-- Whole outputs by step, for workers of before.
create function nofx.step_upstream(p_run_id uuid, p_refs text[]) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    return coalesce((select jsonb_object_agg(u.name, u.outputs)
                       from nofx.step u
                      where u.run_id = p_run_id and u.name = any (p_refs)), '{}');
end
$$;

-- What a worker learns of a step that it has claimed. With p_refs_bytes: `refs` are the values that the inputs refer to,
-- as nofx.step_refs gives them. Without it: `upstream`, as nofx.step_upstream gives it.
create function nofx.step_claimed(p_step_id uuid, p_refs_bytes integer) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    if p_refs_bytes is null then
        return nofx.step_claimed(p_step_id, 0) || jsonb_build_object('upstream', (
            select nofx.step_upstream(s.run_id, s.refs) from nofx.step s where s.id = p_step_id));
    end if;
    -- One statement: starting one costs more than running it. A single value is as small as outputs are.
    return (
        select jsonb_build_object(
                   'tenant_id', s.tenant_id, 'run_id', s.run_id, 'step_id', s.id, 'name', s.name, 'tool', s.tool,
                   'attempt', s.attempt, 'failures', s.failures, 'max_attempts', s.max_attempts,
                   'backoff_ms', s.backoff_ms, 'timeout_s', s.timeout_s, 'inputs', s.inputs,
                   'refs', case when s.refs = '{}' then '[]'
                                when cardinality(s.refs) = 1 and s.ref_paths is not null then coalesce((
                                    select jsonb_build_array(jsonb_build_object(
                                               'step', u.name, 'path', s.ref_paths[1]::text[],
                                               'value', u.outputs #> s.ref_paths[1]::text[]))
                                      from nofx.step u
                                     where u.run_id = s.run_id and u.name = s.refs[1]
                                       and u.outputs #> s.ref_paths[1]::text[] is not null), '[]')
                                else nofx.step_refs(s.run_id, s.refs, s.ref_paths, p_refs_bytes) end,
                   'goal', r.goal, 'workspace', r.workspace, 'traceparent', r.traceparent)
          from nofx.step s
          join nofx.run r on r.id = s.run_id
         where s.id = p_step_id);
end
$$;

-- They have one more argument now; only the functions below call them.
drop function nofx.step_claimed(uuid);
drop function nofx.step_take(text, uuid, uuid, integer, uuid, text, integer, timestamptz);

-- Claims one step for p_call, if it is ready (1 s of skew tolerated) and its run is neither paused nor ended. With
-- p_handler: only if it is that handler's and its timeout is at most p_timeout_s. The caller holds the run's lock, and
-- settles it. Returns nofx.step_claimed, null when there is nothing to claim.
create or replace function nofx.step_take(
    p_tenant_id text, p_run_id uuid, p_step_id uuid, p_lease_s integer, p_call uuid, p_handler text,
    p_timeout_s integer, p_refs_bytes integer, p_now timestamptz
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
    return nofx.step_claimed(p_step_id, p_refs_bytes);
end
$$;

-- Claims steps of a batch. p_items: [{tenant_id, run_id, step_id, lease_s, refs_bytes}]; lease_s is what is left of the
-- invocation, refs_bytes the most that the values of a step's references may have. Claimed are steps that are ready, or
-- whose attempt's lease is over; never those of a paused or ended run, never across tenants. The same p_call again (its
-- answer was lost) gets what it has claimed. Returns {claimed: [..], skipped: [{step_id, status}]}.
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
            select i.* from jsonb_to_recordset(p_items)
                as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer, refs_bytes integer)
             order by i.step_id
        loop
            v_step := nofx.step_take(v_item.tenant_id, v_item.run_id, v_item.step_id, v_item.lease_s, p_call, null,
                                     null, v_item.refs_bytes, v_now);
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
        select distinct a.step_id, i.refs_bytes
          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, refs_bytes integer)
          join nofx.attempt a on a.step_id = i.step_id and a.tenant_id = i.tenant_id
         where a.claimed_by = p_call and a.status = 'running' and a.step_id <> all (v_won)
    loop
        v_won := v_won || v_item.step_id;
        v_claimed := v_claimed || nofx.step_claimed(v_item.step_id, v_item.refs_bytes);
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
-- p_next: {call, handler, lease_s, timeout_s, refs_bytes}, of an invocation that can go on: of the steps that thereby
-- became ready as many as succeeded are claimed at once, if they are the same handler's and their timeout is at most
-- timeout_s. They need no wake-up then. The same call again gets what it has claimed; an item's `call` names an earlier
-- finish of that attempt whose answer was lost.
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
                    p_next ->> 'handler', (p_next ->> 'timeout_s')::integer,
                    (p_next ->> 'refs_bytes')::integer, v_now);
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
        select v_claimed || coalesce(array_agg(distinct nofx.step_claimed(a.step_id, (p_next ->> 'refs_bytes')::integer)), '{}')
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

-- p: {tenant_id, id, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s, traceparent,
--     workspace: {archive, base, diff} (artifact ids), steps: [..], edges: [{parent, child}]}
-- result: created, existing (same key, same request), conflict (same key, other request), invalid (problems).
create or replace function nofx.run_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_id uuid := (p ->> 'id')::uuid;
    v_tenant text := p ->> 'tenant_id';
    v_workspace jsonb;
    v_problems jsonb;
    v_run nofx.run;
    v_changes nofx.change[];
begin
    if jsonb_typeof(p -> 'workspace') = 'object' then
        select jsonb_object_agg(w.key, jsonb_build_object('id', a.id, 'uri', a.uri, 'hash', a.hash,
                                    'size_bytes', a.size_bytes, 'media_type', a.media_type)),
               jsonb_agg(jsonb_build_object('path', 'plan.workspace.' || w.key,
                                            'message', format('no artifact has the id %s', w.value)))
                   filter (where a.id is null)
          into v_workspace, v_problems
          from jsonb_each_text(p -> 'workspace') w
          left join nofx.artifact a on a.id = w.value::uuid and a.tenant_id = v_tenant
         where w.value is not null;
        if v_problems is not null then
            return jsonb_build_object('result', 'invalid', 'problems', v_problems);
        end if;
    end if;

    insert into nofx.run (id, tenant_id, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s,
                          deadline_at, traceparent, workspace, created_at)
    values (v_id, v_tenant, p ->> 'goal', p -> 'plan', p ->> 'plan_digest', p ->> 'request_digest',
            p ->> 'idempotency_key', (p ->> 'timeout_s')::integer,
            v_now + make_interval(secs => (p ->> 'timeout_s')::integer), p ->> 'traceparent', v_workspace, v_now)
        on conflict do nothing;
    if not found then
        -- A second statement, with a snapshot of its own: it sees the winner of a race. The id itself is taken when this
        -- very call is repeated because its answer was lost.
        select * into strict v_run from nofx.run r
         where r.tenant_id = v_tenant and (r.id = v_id or r.idempotency_key = p ->> 'idempotency_key')
         order by r.id = v_id desc limit 1;
        return jsonb_build_object(
            'result', case when v_run.request_digest = p ->> 'request_digest' then 'existing' else 'conflict' end,
            'id', v_run.id, 'status', v_run.status, 'ready', '[]'::jsonb);
    end if;

    with made as (
        insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, refs, ref_paths, status, blockers,
                               max_attempts, backoff_ms, timeout_s, created_at, ready_at, notify_at)
        select s.id, v_tenant, v_id, s.ordinal, s.name, s.tool, s.handler, s.inputs,
               s.refs, s.ref_paths,
               case when s.blockers = 0 then 'ready' else 'pending' end, s.blockers,
               s.max_attempts, s.backoff_ms, s.timeout_s, v_now,
               case when s.blockers = 0 then v_now end,
               case when s.blockers = 0 then v_now + interval '1 minute' end
          from jsonb_to_recordset(p -> 'steps')
               as s(id uuid, ordinal integer, name text, tool text, handler text, inputs jsonb, refs text[], ref_paths text[],
                    blockers integer, max_attempts integer, backoff_ms integer, timeout_s integer)
        returning id, status, ordinal
    )
    select array_agg(row(v_id, m.id, null, m.status, case when m.status = 'ready' then 'step.ready' end, null,
                         0)::nofx.change order by m.ordinal)
      into v_changes
      from made m;

    insert into nofx.step_edge (parent_id, child_id, tenant_id)
    select e.parent, e.child, v_tenant
      from jsonb_to_recordset(p -> 'edges') as e(parent uuid, child uuid);

    perform nofx.runs_settle(
        row(v_id, null, null, null, 'run.created',
            jsonb_build_object('goal', p ->> 'goal', 'plan_digest', p ->> 'plan_digest'), 0)::nofx.change || v_changes,
        v_now);
    return jsonb_build_object('result', 'created', 'id', v_id,
                              'status', (select r.status from nofx.run r where r.id = v_id),
                              'ready', nofx.wakeups(v_changes, v_now));
end
$$;

revoke execute on function nofx.step_upstream(uuid, text[]), nofx.step_claimed(uuid, integer), nofx.step_refs(uuid, text[], text[], integer),
    nofx.step_take(text, uuid, uuid, integer, uuid, text, integer, integer, timestamptz) from public;
