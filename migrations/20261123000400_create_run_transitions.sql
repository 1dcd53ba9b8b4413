-- Runs: create, cancel, pause, resume, retry. Each answers {result, ...}; result `not_found` and `conflict` change nothing.

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
        insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, refs, status, blockers,
                               max_attempts, backoff_ms, timeout_s, created_at, ready_at, notify_at)
        select s.id, v_tenant, v_id, s.ordinal, s.name, s.tool, s.handler, s.inputs,
               array(select jsonb_array_elements_text(s.refs)),
               case when s.blockers = 0 then 'ready' else 'pending' end, s.blockers,
               s.max_attempts, s.backoff_ms, s.timeout_s, v_now,
               case when s.blockers = 0 then v_now end,
               case when s.blockers = 0 then v_now + interval '1 minute' end
          from jsonb_to_recordset(p -> 'steps')
               as s(id uuid, ordinal integer, name text, tool text, handler text, inputs jsonb, refs jsonb,
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

-- p: {tenant_id, run_id, actor}. Fences every open step at once. Cancelling a cancelled run changes nothing.
-- -> {result: cancelled|unchanged|conflict|not_found, status, stopped: [names], was_running: [names]}
create or replace function nofx.run_cancel(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_changes nofx.change[];
begin
    select * into v_run from nofx.run r
     where r.id = (p ->> 'run_id')::uuid and r.tenant_id = p ->> 'tenant_id' for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null then
        return jsonb_build_object('result', case when v_run.status = 'cancelled' then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'stopped', '[]'::jsonb, 'was_running', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r set cancelled_at = v_now where r.id = v_run.id;
    v_changes := row(v_run.id, null, null, null, 'run.cancel_requested',
                     jsonb_build_object('actor', p ->> 'actor'), 0)::nofx.change
                 || nofx.steps_close(array[v_run.id], 'cancelled', true, v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object(
        'result', 'cancelled', 'status', 'cancelled',
        'stopped', coalesce((select jsonb_agg(s.name order by s.ordinal)
                               from unnest(v_changes) c join nofx.step s on s.id = c.step_id
                              where c.to_status = 'cancelled' and c.from_status <> 'running'), '[]'),
        'was_running', coalesce((select jsonb_agg(s.name order by s.ordinal)
                                   from unnest(v_changes) c join nofx.step s on s.id = c.step_id
                                  where c.to_status = 'cancelled' and c.from_status = 'running'), '[]'));
end
$$;

-- p: {tenant_id, run_id, actor}. Stops claims; running steps go on and are recorded. Pausing a paused run changes nothing.
-- -> {result: paused|unchanged|conflict|not_found, status, still_running: [names]}
create or replace function nofx.run_pause(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
begin
    select * into v_run from nofx.run r
     where r.id = (p ->> 'run_id')::uuid and r.tenant_id = p ->> 'tenant_id' for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null or v_run.paused_at is not null then
        return jsonb_build_object('result', case when v_run.finished_at is null then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'still_running', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r set paused_at = v_now where r.id = v_run.id;
    update nofx.step s set notify_at = 'infinity' where s.run_id = v_run.id and s.status = 'ready';
    perform nofx.runs_settle(array[row(v_run.id, null, null, null, 'run.pause_requested',
                                       jsonb_build_object('actor', p ->> 'actor'), 0)::nofx.change], v_now);
    return jsonb_build_object(
        'result', 'paused', 'status', (select r.status from nofx.run r where r.id = v_run.id),
        'still_running', coalesce((select jsonb_agg(s.name order by s.ordinal) from nofx.step s
                                    where s.run_id = v_run.id and s.status = 'running'), '[]'));
end
$$;

-- p: {tenant_id, run_id, actor}. Every ready step is owed a wake-up now. Resuming a run that goes on changes nothing.
-- -> {result: resumed|unchanged|conflict|not_found, status, ready: [wake-ups]}
create or replace function nofx.run_resume(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_ready nofx.change[];
begin
    select * into v_run from nofx.run r
     where r.id = (p ->> 'run_id')::uuid and r.tenant_id = p ->> 'tenant_id' for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null or v_run.paused_at is null then
        return jsonb_build_object('result', case when v_run.finished_at is null then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r
       set paused_at = null,
           status = nofx.run_status(r.steps_pending + r.steps_ready + r.steps_running + r.steps_blocked,
                                    r.steps_ready + r.steps_running, false, r.gates_pending, false, false,
                                    r.started_at is not null)
     where r.id = v_run.id;
    with owed as (
        update nofx.step s set notify_at = greatest(s.ready_at, v_now), notify_count = 0
         where s.run_id = v_run.id and s.status = 'ready'
        returning s.id
    )
    select array_agg(row(v_run.id, o.id, null, 'ready', null, null, 0)::nofx.change) into v_ready from owed o;
    perform nofx.runs_settle(array[row(v_run.id, null, null, null, 'run.resumed',
                                       jsonb_build_object('actor', p ->> 'actor'), 0)::nofx.change], v_now);
    return jsonb_build_object('result', 'resumed',
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(v_ready, v_now));
end
$$;

-- p: {tenant_id, run_id, actor}. A failed or cancelled run goes on as its next generation: what succeeded is kept, the
-- rest starts again with blockers counted anew, allowances start again, attempt numbers go on, gates that did not pass
-- are asked anew. -> {result: retried|conflict|not_found, status, generation, ready: [wake-ups]}
create or replace function nofx.run_retry(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_steps nofx.change[];
    v_gates nofx.change[];
begin
    select * into v_run from nofx.run r
     where r.id = (p ->> 'run_id')::uuid and r.tenant_id = p ->> 'tenant_id' for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.status not in ('failed', 'cancelled') then
        return jsonb_build_object('result', 'conflict', 'status', v_run.status, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r
       set status = 'queued', generation = r.generation + 1, failure = null, finished_at = null, cancelled_at = null,
           paused_at = null, deadline_at = v_now + make_interval(secs => r.timeout_s)
     where r.id = v_run.id;

    -- Barriers that were asked for from outside; the gates of handlers come back with their steps.
    with anew as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass,
               v_run.generation + 1, g.reason, g.evidence_uri, v_now + (g.expires_at - g.created_at), v_now
          from nofx.gate g
          left join nofx.step s on s.id = g.step_id
         where g.run_id = v_run.id and g.on_pass = 'release' and g.generation = v_run.generation
           and g.status in ('failed', 'expired', 'cancelled') and s.status is distinct from 'succeeded'
        returning id, step_id, gate_type
    )
    select array_agg(row(v_run.id, a.step_id, null, null, 'gate.created',
                         jsonb_build_object('gate_id', a.id, 'gate_type', a.gate_type),
                         case when a.step_id is null then 1 else 0 end)::nofx.change order by a.id)
      into v_gates
      from anew a;

    with old as (
        select s.id, s.status,
               (select count(*) from nofx.step_edge e join nofx.step q on q.id = e.parent_id
                 where e.child_id = s.id and q.status <> 'succeeded')
               + (select count(*) from nofx.gate g where g.step_id = s.id and g.status = 'pending') as blockers
          from nofx.step s
         where s.run_id = v_run.id and s.status <> 'succeeded'
    ), anew as (
        update nofx.step s
           set status = case when o.blockers = 0 then 'ready' else 'pending' end,
               blockers = o.blockers, failures = 0, workers_lost = 0, outputs = null, error = null,
               started_at = null, finished_at = null, notify_count = 0,
               ready_at = case when o.blockers = 0 then v_now end,
               notify_at = case when o.blockers = 0 then v_now + interval '1 minute' end
          from old o
         where s.id = o.id
        returning s.id, o.status as was, s.status, s.ordinal
    )
    select array_agg(row(v_run.id, a.id, a.was, a.status, case when a.status = 'ready' then 'step.ready' end, null,
                         0)::nofx.change order by a.ordinal)
      into v_steps
      from anew a;

    perform nofx.runs_settle(
        row(v_run.id, null, null, null, 'run.retried',
            jsonb_build_object('actor', p ->> 'actor', 'generation', v_run.generation + 1), 0)::nofx.change
        || v_gates || v_steps, v_now);
    return jsonb_build_object('result', 'retried', 'generation', v_run.generation + 1,
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(v_steps, v_now));
end
$$;
