-- Finds ended leases by attempt, not by step. An attempt is written twice, a step more often: without an index on their lease, most updates of
-- steps touch no index.
--
-- Building the index stops all claims for about a second for each five million attempts. To avoid that, first run by hand:
--   alter table nofx.attempt add column if not exists lease_until timestamptz;
--   create index concurrently if not exists attempt_leased on nofx.attempt (lease_until) where finished_at is null;

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';
-- Every transition locks a run first. So this waits for those in flight, and keeps new ones out until the commit.
lock table nofx.run in exclusive mode;

alter table nofx.attempt add column if not exists lease_until timestamptz;
update nofx.attempt a
   set lease_until = s.lease_until
  from nofx.step s
 where s.lease_until is not null and a.step_id = s.id and a.attempt = s.attempt;
create index if not exists attempt_leased on nofx.attempt (lease_until) where finished_at is null;
-- The index keeps an entry of every attempt until a vacuum.
alter table nofx.attempt set (autovacuum_vacuum_scale_factor = 0.02);
drop index nofx.step_leased;

-- Accepts the same texts without a regular expression, which took a twelfth of the time of run_create.
alter domain nofx.sha256 drop constraint sha256_check;
alter domain nofx.sha256 add constraint sha256_check
    check (octet_length(value) = 64 and translate(value, '0123456789abcdef', '') = '') not valid;

-- Copies of the files in functions/. Change those files, not this one.

-- functions/children_release.sql sha256=750fb0e72297a1f538f2244f40e175e4a4eca8db6e067f6874ec3eb2268d94a9
-- Counts down the blockers of the children of steps that succeeded; the ones that reach zero become ready. The caller
-- holds the runs' locks: two parents that finish at once cannot lose the wake-up.
--
-- p_next: {call, handler, lease_s, timeout_s, refs_bytes} of an invocation that can continue. As many children as p_parents has steps
-- start at once, in id order, if they are of that handler and their timeout is at most timeout_s; not in the runs p_failing.
create or replace function nofx.children_release(
    p_parents uuid[], p_next jsonb, p_failing uuid[], p_now timestamptz
) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
    v_started nofx.change[];
begin
    with child as (
        select e.child_id as id, count(*)::integer as parents
          from unnest(p_parents) p(id)
         cross join lateral (select e.child_id from nofx.step_edge e where e.parent_id = p.id offset 0) e
         group by e.child_id
    ), due as (
        select c.id, c.parents, s.is_ready, s.paused_at,
               s.continues and row_number() over (partition by s.continues order by c.id) <= cardinality(p_parents) as starts
          from child c
         cross join lateral (
            select s.blockers = c.parents as is_ready, r.paused_at,
                   s.blockers = c.parents and s.handler = p_next ->> 'handler'
                   and s.timeout_s <= (p_next ->> 'timeout_s')::integer
                   and nofx.lets_start(r.status) and r.id <> all (coalesce(p_failing, '{}')) as continues
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = c.id and s.status = 'pending'
            offset 0) s
    ), released as (
        update nofx.step s
           set blockers = s.blockers - d.parents,
               status = case when d.starts then 'running' when d.is_ready then 'ready' else 'pending' end,
               ready_at = case when d.is_ready then p_now end,
               notify_at = case when d.is_ready and d.starts is not true then nofx.wakeup_due(p_now, d.paused_at) end,
               notify_count = 0,
               attempt = s.attempt + coalesce(d.starts, false)::integer,
               started_at = case when d.starts then coalesce(s.started_at, p_now) else s.started_at end,
               lease_until = case when d.starts
                                  then nofx.lease_end(p_now, s.timeout_s, (p_next ->> 'lease_s')::integer) end
          from due d
         where s.id = any (array[d.id])
        returning s.tenant_id, s.run_id, s.id, s.status, s.attempt, s.lease_until
    ), started as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at, lease_until)
        select r.id, r.attempt, r.tenant_id, r.run_id, 'running', (p_next ->> 'call')::uuid, p_now, r.lease_until
          from released r
         where r.status = 'running'
    )
    select array_agg(nofx.step_change(r.run_id, r.id, 'pending', 'ready', 'step.ready') order by r.id),
           array_agg(nofx.step_change(r.run_id, r.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', r.attempt)) order by r.id)
               filter (where r.status = 'running')
      into v_changes, v_started
      from released r
     where r.status <> 'pending';
    return v_changes || v_started;
end
$$;
revoke execute on function nofx.children_release(uuid[], jsonb, uuid[], timestamptz) from public;

-- functions/gate_decide.sql sha256=63688dccc8366855843a3a16f80465ca75e8d5a59824f882b567706fff23b832
-- Decides a pending gate, once. In the same transaction its step continues, and what depends on that step becomes ready.
-- p: {tenant_id, gate_id, decision: approve|reject|waive, actor, reason}
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
    -- Only the sweeper ends an expired gate, even if it has not run yet.
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
                              'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.transition_declare('nofx.gate_decide(jsonb)', 'nofx_api');

-- functions/leases_end.sql sha256=a8359a10725b92b727b1e64d78b9529f74feb96d46db1c02f44040debbee5f68
-- Ends attempts whose lease is over and counts a lost worker for each. The step becomes ready again, unless it has lost too many workers or
-- its run is failing: then the step fails and the rest of its run is closed. The caller holds the runs' locks.
create or replace function nofx.leases_end(p_steps uuid[], p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
    v_failed uuid[];
begin
    with over as (
        select s.id, r.paused_at,
               s.workers_lost >= nofx.max_workers_lost() or nofx.is_failing(r.steps_failed, r.failure) as fails
          from nofx.step s
          join nofx.run r on r.id = any (array[s.run_id])
         where s.id = any (p_steps) and s.status = 'running' and s.lease_until < p_now
    ), ended as (
        update nofx.step s
           set workers_lost = s.workers_lost + 1,
               lease_until = null,
               status = case when o.fails then 'failed' else 'ready' end,
               ready_at = p_now,
               notify_at = case when not o.fails then nofx.wakeup_due(p_now, o.paused_at) end,
               notify_count = 0,
               finished_at = case when o.fails then p_now end,
               error = case when o.fails
                            then jsonb_build_object('code', 'worker_lost', 'message',
                                     format('the worker of attempt %s never answered (%s workers lost)', s.attempt,
                                            s.workers_lost + 1)) end
          from over o
         where s.id = any (array[o.id])
        returning s.run_id, s.id, s.status, s.attempt, s.error, s.workers_lost
    ), lost as (
        update nofx.attempt a
           set status = 'lost', finished_at = p_now
          from ended e
         where a.step_id = any (array[e.id]) and a.attempt = e.attempt
    )
    select array_agg(nofx.step_change(e.run_id, e.id, 'running', e.status,
                         case when e.status = 'failed' then 'step.failed' else 'step.worker_lost' end,
                         jsonb_strip_nulls(jsonb_build_object('attempt', e.attempt, 'workers_lost', e.workers_lost,
                                                              'error', e.error)))),
           array_agg(e.run_id) filter (where e.status = 'failed')
      into v_changes, v_failed
      from ended e;
    if v_failed is not null then
        v_changes := v_changes || nofx.steps_close(v_failed, 'skipped', false, p_now);
    end if;
    return v_changes;
end
$$;
revoke execute on function nofx.leases_end(uuid[], timestamptz) from public;

-- functions/run_create.sql sha256=8912bc6c69021351992b7770ddf8cff520414350b49a02fe473fe03a7b396d9a
-- Creates a run with its steps, edges and first events. No other transaction can see the run yet, so it takes no lock and does not call
-- nofx.runs_settle: it writes each row once, and the run's with its counters.
--
-- p: {tenant_id, id, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s, traceparent,
--     workspace: {archive, base, diff} (artifact ids), steps: [..], edges: [{parent, child}]}
-- -> {result: created, id, status, ready: [wake-ups]}. With `existing` (same key, same request) and `conflict` (same key, other request): id
-- and status of the run that has the key. With `invalid`: problems.
create or replace function nofx.run_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_id uuid := p ->> 'id';
    v_tenant text := p ->> 'tenant_id';
    v_workspace jsonb;
    v_problems jsonb;
    v_ready jsonb;
    v_run record;
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

    with item as materialized (
        select s.*, s.blockers = 0 as is_ready
          from jsonb_to_recordset(p -> 'steps')
               as s(id uuid, ordinal integer, name text, tool text, handler text, inputs jsonb, refs text[], ref_paths text[],
                    blockers integer, max_attempts integer, backoff_ms integer, timeout_s integer)
    ), made as (
        insert into nofx.run (id, tenant_id, status, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s,
                              deadline_at, traceparent, workspace, created_at, steps_ready, steps_pending, event_seq)
        select v_id, v_tenant, 'queued', p ->> 'goal', p -> 'plan', p ->> 'plan_digest', p ->> 'request_digest',
               p ->> 'idempotency_key', (p ->> 'timeout_s')::integer,
               v_now + make_interval(secs => (p ->> 'timeout_s')::integer), p ->> 'traceparent', v_workspace, v_now,
               count(*) filter (where i.is_ready), count(*) filter (where not i.is_ready),
               1 + count(*) filter (where i.is_ready)
          from item i
            on conflict do nothing
        returning id
    ), steps as (
        insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, refs, ref_paths, status, blockers,
                               max_attempts, backoff_ms, timeout_s, created_at, ready_at, notify_at)
        select i.id, v_tenant, m.id, i.ordinal, i.name, i.tool, i.handler, i.inputs, i.refs, i.ref_paths,
               case when i.is_ready then 'ready' else 'pending' end, i.blockers, i.max_attempts, i.backoff_ms, i.timeout_s,
               v_now, case when i.is_ready then v_now end, case when i.is_ready then nofx.wakeup_due(v_now, null) end
          from made m
         cross join item i
    ), edges as (
        insert into nofx.step_edge (parent_id, child_id, tenant_id)
        select e.parent, e.child, v_tenant
          from made m
         cross join jsonb_to_recordset(p -> 'edges') as e(parent uuid, child uuid)
    ), events as (
        insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
        select m.id, 1, v_tenant, null, 'run.created',
               jsonb_build_object('goal', p ->> 'goal', 'plan_digest', p ->> 'plan_digest'), v_now
          from made m
        union all
        select m.id, 1 + row_number() over (order by i.ordinal), v_tenant, i.id, 'step.ready', '{}', v_now
          from made m
         cross join item i
         where i.is_ready
    )
    select jsonb_agg(jsonb_build_object('tenant_id', v_tenant, 'run_id', m.id, 'step_id', i.id, 'handler', i.handler,
                                        'delay_ms', 0, 'traceparent', p ->> 'traceparent') order by i.ordinal)
      into v_ready
      from made m
      join item i on i.is_ready;
    if v_ready is not null then
        return jsonb_build_object('result', 'created', 'id', v_id, 'status', 'queued', 'ready', v_ready);
    end if;

    -- A second statement has a snapshot of its own and sees the winner of a race. The id itself is taken if this call is a retry whose first
    -- answer was lost.
    select r.id, r.status, r.request_digest into strict v_run
      from nofx.run r
     where r.tenant_id = v_tenant and (r.id = v_id or r.idempotency_key = p ->> 'idempotency_key')
     order by r.id = v_id desc limit 1;
    return jsonb_build_object(
        'result', case when v_run.request_digest = p ->> 'request_digest' then 'existing' else 'conflict' end,
        'id', v_run.id, 'status', v_run.status, 'ready', '[]'::jsonb);
end
$$;
select nofx.transition_declare('nofx.run_create(jsonb)', 'nofx_api');

-- functions/run_retry.sql sha256=0034cff2cca8909f34cb27c007215838d44ac6b8eeda7500269b3dcf6c67975c
-- Starts the next generation of a failed or cancelled run. Steps that succeeded stay. All others start again: their blockers are counted
-- again, their failures and lost workers are 0 again, their attempt numbers continue. Gates that did not pass become pending again.
-- p: {tenant_id, run_id, actor}
-- -> {result: retried|conflict|not_found, status, generation, ready: [wake-ups]}
create or replace function nofx.run_retry(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_steps nofx.change[];
    v_gates nofx.change[];
begin
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
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

    -- Only gates that clients put before steps. Handlers create theirs again when their steps run.
    with renewed as (
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
    select array_agg(nofx.gate_change(v_run.id, a.step_id, 'gate.created',
                                      jsonb_build_object('gate_id', a.id, 'gate_type', a.gate_type), 1) order by a.id)
      into v_gates
      from renewed a;

    with old as (
        select s.id, s.status,
               (select count(*) from nofx.step_edge e join nofx.step q on q.id = e.parent_id
                 where e.child_id = s.id and q.status <> 'succeeded')
               + (select count(*) from nofx.gate g where g.step_id = s.id and g.status = 'pending') as blockers
          from nofx.step s
         where s.run_id = v_run.id and s.status <> 'succeeded'
    ), renewed as (
        update nofx.step s
           set status = case when o.blockers = 0 then 'ready' else 'pending' end,
               blockers = o.blockers, failures = 0, workers_lost = 0, outputs = null, error = null,
               started_at = null, finished_at = null, notify_count = 0,
               ready_at = case when o.blockers = 0 then v_now end,
               notify_at = case when o.blockers = 0 then nofx.wakeup_due(v_now, null) end
          from old o
         where s.id = any (array[o.id])
        returning s.id, o.status as was, s.status, s.ordinal
    )
    select array_agg(nofx.step_change(v_run.id, a.id, a.was, a.status, case when a.status = 'ready' then 'step.ready' end)
                     order by a.ordinal)
      into v_steps
      from renewed a;

    perform nofx.runs_settle(
        nofx.fact(v_run.id, null, 'run.retried',
                  jsonb_build_object('actor', p ->> 'actor', 'generation', v_run.generation + 1))
        || v_gates || v_steps, v_now);
    return jsonb_build_object('result', 'retried', 'generation', v_run.generation + 1,
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_steps), v_now));
end
$$;
select nofx.transition_declare('nofx.run_retry(jsonb)', 'nofx_api');

-- functions/runs_settle.sql sha256=d57d73c62b68c58083227c09e913b0924b1a1d05a64c41a8528a4e90fa226775
-- The only function that changes the counters of a run after its creation, and numbers its events.

-- The state of a run, as it follows from its counters. Ended states come first, then what people asked for.
create or replace function nofx.run_status(
    p_open integer, p_active integer, p_failed boolean, p_gates integer,
    p_cancelled boolean, p_paused boolean, p_started boolean
) returns text
    language sql immutable
as $$
    select case
        when p_cancelled then 'cancelled'
        when p_open = 0 and p_failed then 'failed'
        when p_open = 0 and p_gates = 0 then 'succeeded'
        when p_paused then 'paused'
        when p_active = 0 then 'blocked'
        when p_started then 'running'
        else 'queued'
    end
$$;

-- Applies changes to their runs: counters, state, timestamps, and densely numbered events. The caller holds the locks of all runs in
-- p_changes. Every transition but run_create calls it, last.
create or replace function nofx.runs_settle(p_changes nofx.change[], p_now timestamptz) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    with delta as (
        select c.run_id, count(c.event_type) as events,
               sum((c.to_status is not distinct from 'pending')::integer - (c.from_status is not distinct from 'pending')::integer) as pending,
               sum((c.to_status is not distinct from 'ready')::integer - (c.from_status is not distinct from 'ready')::integer) as ready,
               sum((c.to_status is not distinct from 'running')::integer - (c.from_status is not distinct from 'running')::integer) as running,
               sum((c.to_status is not distinct from 'blocked')::integer - (c.from_status is not distinct from 'blocked')::integer) as blocked,
               sum((c.to_status is not distinct from 'failed')::integer - (c.from_status is not distinct from 'failed')::integer) as failed,
               sum(c.gates) as gates,
               bool_or(c.to_status is not distinct from 'running') as starts
          from unnest(p_changes) c
         group by c.run_id
    ), settled as (
        update nofx.run r
           set status = v.status,
               steps_pending = v.pending, steps_ready = v.ready, steps_running = v.running, steps_blocked = v.blocked,
               steps_failed = v.failed, gates_pending = v.gates,
               event_seq = v.seq + v.events + (v.status <> v.was)::integer,
               started_at = case when v.started then coalesce(r.started_at, p_now) end,
               finished_at = case when v.status in ('succeeded', 'failed', 'cancelled')
                                  then coalesce(r.finished_at, p_now) end
          from delta d
         cross join lateral (
            select n.*, nofx.run_status(n.pending + n.ready + n.running + n.blocked, n.ready + n.running,
                                        nofx.is_failing(n.failed, n.failure), n.gates, n.cancelled_at is not null,
                                        n.paused_at is not null, n.started) as status
              from (select r.id, r.status as was, r.event_seq as seq, r.failure, r.cancelled_at, r.paused_at, d.events,
                           r.started_at is not null or d.starts as started,
                           r.steps_pending + d.pending::integer as pending, r.steps_ready + d.ready::integer as ready,
                           r.steps_running + d.running::integer as running, r.steps_blocked + d.blocked::integer as blocked,
                           r.steps_failed + d.failed::integer as failed, r.gates_pending + d.gates::integer as gates
                      from nofx.run r
                     where r.id = d.run_id offset 0) n
             offset 0) v
         where r.id = any (array[v.id])
        returning r.id, r.tenant_id, r.status, v.was, v.seq, v.events, v.failure
    )
    insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
    select c.run_id, s.seq + row_number() over (partition by c.run_id order by c.position), s.tenant_id,
           c.step_id, c.event_type, coalesce(c.payload, '{}'), p_now
      from unnest(p_changes) with ordinality as c(run_id, step_id, from_status, to_status, event_type, payload, gates, position)
      join settled s on s.id = c.run_id
     where c.event_type is not null
    union all
    -- The run's own change comes after the facts that led to it.
    select s.id, s.seq + s.events + 1, s.tenant_id, null,
           case when s.status = 'running' and s.was = 'queued' then 'run.started'
                when s.status = 'running' then 'run.unblocked'
                else 'run.' || s.status end,
           case when s.failure is not null then jsonb_build_object('failure', s.failure) else '{}' end, p_now
      from settled s
     where s.status <> s.was;
end
$$;
revoke execute on function nofx.run_status(integer, integer, boolean, integer, boolean, boolean, boolean),
    nofx.runs_settle(nofx.change[], timestamptz) from public;

-- functions/step_facts_insert.sql sha256=44045cacb954ed2f211859e6120d5cc8dfdfa6c4f0a70ec6cbcd1f6cba0c88ea
-- Stores the artifacts, gates and events that finished attempts leave behind. Returns their events; null if there are none, which is the usual
-- case.
create or replace function nofx.step_facts_insert(p_items jsonb, p_done uuid[], p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_items jsonb;
    v_artifacts nofx.change[];
    v_gates nofx.change[];
    v_events nofx.change[];
begin
    if not jsonb_path_exists(p_items, '$[*] ? (@.artifacts.size() > 0 || @.gates.size() > 0 || @.events.size() > 0)') then
        return null;
    end if;
    -- Matched by the whole key: a forged or late item in the batch leaves nothing behind.
    select jsonb_agg(i.item) into v_items
      from jsonb_array_elements(p_items) i(item)
      join nofx.step s on s.id = any (array[(i.item ->> 'step_id')::uuid])
     where s.id = any (p_done) and s.run_id is not distinct from (i.item ->> 'run_id')::uuid and s.tenant_id = i.item ->> 'tenant_id'
       and s.attempt = (i.item ->> 'attempt')::integer;

    with made as (
        insert into nofx.artifact (id, tenant_id, run_id, step_id, attempt, name, type, uri, hash, size_bytes,
                                   media_type, metadata, created_at)
        select a.id, i.tenant_id, i.run_id, i.step_id, i.attempt, a.name, a.type, a.uri, a.hash, a.size_bytes,
               a.media_type, coalesce(a.metadata, '{}'), p_now
          from jsonb_to_recordset(v_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, artifacts jsonb)
         cross join jsonb_to_recordset(coalesce(i.artifacts, '[]'))
               as a(id uuid, name text, type text, uri text, hash text, size_bytes bigint, media_type text,
                    metadata jsonb)
        returning run_id, step_id, id, name, type, hash
    )
    select array_agg(nofx.fact(m.run_id, m.step_id, 'artifact.created',
                               jsonb_build_object('artifact_id', m.id, 'name', m.name, 'type', m.type, 'hash', m.hash))
                     order by m.id)
      into v_artifacts
      from made m;

    insert into nofx.artifact_edge (parent_id, child_id, tenant_id)
    select p.id, (a ->> 'id')::uuid, i.tenant_id
      from jsonb_to_recordset(v_items) as i(tenant_id text, step_id uuid, artifacts jsonb)
     cross join jsonb_array_elements(coalesce(i.artifacts, '[]')) a
     cross join jsonb_array_elements_text(coalesce(a -> 'made_from', '[]')) made_from
      join nofx.artifact p on p.id = made_from::uuid and p.tenant_id = i.tenant_id
        on conflict do nothing;

    with made as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri,
                               reason, expires_at, created_at, decided_at)
        select g.id, i.tenant_id, i.run_id, i.step_id, g.gate_type, g.status, g.on_pass, r.generation, g.evidence_uri,
               g.reason, p_now + make_interval(secs => g.expires_after_s), p_now,
               case when g.status <> 'pending' then p_now end
          from jsonb_to_recordset(v_items) as i(tenant_id text, run_id uuid, step_id uuid, gates jsonb)
          join nofx.run r on r.id = i.run_id
         cross join jsonb_to_recordset(coalesce(i.gates, '[]'))
               as g(id uuid, gate_type text, status text, on_pass text, evidence_uri text, reason text,
                    expires_after_s integer)
        returning run_id, step_id, id, gate_type, status, reason
    )
    select array_agg(nofx.fact(m.run_id, m.step_id,
                               case m.status when 'pending' then 'gate.created' else 'gate.' || m.status end,
                               jsonb_strip_nulls(jsonb_build_object('gate_id', m.id, 'gate_type', m.gate_type,
                                                                    'reason', m.reason)))
                     order by m.id)
      into v_gates
      from made m;

    select array_agg(nofx.fact(i.run_id, i.step_id, e.event ->> 'type', e.event -> 'payload') order by i.step_id, e.position)
      into v_events
      from jsonb_to_recordset(v_items) as i(run_id uuid, step_id uuid, events jsonb)
     cross join jsonb_array_elements(coalesce(i.events, '[]')) with ordinality as e(event, position);

    return v_events || v_artifacts || v_gates;
end
$$;
revoke execute on function nofx.step_facts_insert(jsonb, uuid[], timestamptz) from public;

-- functions/steps_claim.sql sha256=944ccb6be02cf63569e951d1cb39c01384a8607614d9d5dc1ed0037d2a5421f6
-- Starts the steps that are ready (1 s of clock skew is tolerated) and whose run lets steps start. The caller holds the runs' locks. Returns the
-- changes, null if there are none.
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
           and s.status = 'ready' and s.ready_at <= p_now + interval '1 second'
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

-- Claims steps of a batch. p_items: [{tenant_id, run_id, step_id, lease_s, refs_bytes}]; lease_s is what is left of the invocation, refs_bytes
-- (that of the first item counts) the largest size of the values that a step refers to. A step can be claimed if it is ready, or if its attempt's lease is over; never in a
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
    v_changes nofx.change[];
    v_started nofx.change[];
    v_lost uuid[];
    v_won uuid[];
begin
    perform nofx.runs_lock(array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i));
    v_now := clock_timestamp();
    v_started := nofx.steps_start(p_items, p_call, v_now);
    if v_started is not null then
        perform nofx.runs_settle(v_started, v_now);
    end if;
    if cardinality(v_started) = jsonb_array_length(p_items) then
        return json_build_object(
            'claimed', nofx.steps_claimed(array(select c.step_id from unnest(v_started) c), v_refs_bytes), 'skipped', '[]'::jsonb);
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
    v_won := array(
        select c.step_id from unnest(v_started || v_changes) c
        union
        -- What an earlier try of this call has claimed.
        select a.step_id
          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
          join nofx.attempt a on a.step_id = i.step_id and a.tenant_id = i.tenant_id
         where a.claimed_by = p_call and a.status = 'running');
    return json_build_object(
        'claimed', nofx.steps_claimed(v_won, v_refs_bytes),
        'skipped', coalesce((
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown')))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
             where i.step_id <> all (v_won)), '[]'));
end
$$;
select nofx.transition_declare('nofx.steps_claim(jsonb, uuid)', 'nofx_worker');
revoke execute on function nofx.steps_start(jsonb, uuid, timestamptz) from public;

-- functions/steps_claimed.sql sha256=c68333c34f98baf74fce6425f116351bfc8057fad2609f47be813b107067040f
-- What a worker gets of the steps that it has claimed.

-- The values that one step refers to: [{step, path, value}], without references to nothing. Null if the values have more than
-- p_refs_bytes bytes (null: 0), or the outputs that they are in more than 64 times that. References are in the order of their steps,
-- so each step's outputs are read once.
create or replace function nofx.step_refs(p_run_id uuid, p_refs text[], p_ref_paths text[], p_refs_bytes integer) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_outputs jsonb;
    v_value jsonb;
    v_values jsonb[] := '{}';
    v_most bigint := coalesce(p_refs_bytes, 0);
    v_read bigint := 0;
    v_bytes bigint := 0;
begin
    for i in 1..cardinality(p_refs) loop
        if i = 1 or p_refs[i] <> p_refs[i - 1] then
            -- Appending makes a copy in memory. Stored outputs are compressed, and each look-up would decompress them again.
            select u.outputs || '{}' into v_outputs
              from nofx.step u
             where u.run_id = p_run_id and u.name = p_refs[i];
            v_read := v_read + coalesce(pg_column_size(v_outputs), 0);
        end if;
        v_value := v_outputs #> coalesce(p_ref_paths[i], '{}')::text[];
        continue when v_value is null;
        v_bytes := v_bytes + octet_length(v_value::text);
        if v_bytes > v_most or v_read > v_most * 64 then
            return null;
        end if;
        v_values := v_values || jsonb_build_object('step', p_refs[i], 'path', coalesce(p_ref_paths[i], '{}')::text[],
                                                   'value', v_value);
    end loop;
    return to_jsonb(v_values);
end
$$;

-- Claimed steps in id order, as `Claimed` in shared/src/db/step.rs reads them; `refs` as nofx.step_refs gives them.
create or replace function nofx.steps_claimed(p_steps uuid[], p_refs_bytes integer) returns json
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    if p_steps = '{}' then
        return '[]';
    end if;
    return (
        select json_agg(json_build_object(
                   'tenant_id', s.tenant_id, 'run_id', s.run_id, 'step_id', s.id, 'name', s.name, 'tool', s.tool,
                   'attempt', s.attempt, 'failures', s.failures, 'max_attempts', s.max_attempts,
                   'backoff_ms', s.backoff_ms, 'timeout_s', s.timeout_s, 'inputs', s.inputs, 'refs', s.refs,
                   'goal', s.goal, 'workspace', s.workspace, 'traceparent', s.traceparent) order by s.id)
          from unnest(p_steps) c(id)
         cross join lateral (
            select s.tenant_id, s.run_id, s.id, s.name, s.tool, s.attempt, s.failures, s.max_attempts, s.backoff_ms,
                   s.timeout_s, s.inputs, r.goal, r.workspace, r.traceparent,
                   case when s.refs = '{}' then '[]'
                        -- Most steps refer to one value. It is no larger than outputs may be, so it needs no check.
                        when cardinality(s.refs) = 1 then coalesce((
                            select jsonb_build_array(jsonb_build_object('step', u.name, 'path', u.path,
                                                                        'value', u.outputs #> u.path))
                              from (select u.name, u.outputs, coalesce(s.ref_paths[1], '{}')::text[] as path
                                      from nofx.step u
                                     where u.run_id = s.run_id and u.name = s.refs[1] offset 0) u
                             where u.outputs #> u.path is not null), '[]')
                        else nofx.step_refs(s.run_id, s.refs, s.ref_paths, p_refs_bytes) end as refs
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = c.id
            offset 0) s);
end
$$;
revoke execute on function nofx.step_refs(uuid, text[], text[], integer), nofx.steps_claimed(uuid[], integer) from public;

-- functions/steps_finish.sql sha256=428d94484f4cdf158635e11b78bda5d9df10c873e7fa1ad13c3b30887e1e1e4c
-- The end of attempts: record them, release what depended on them, continue with what can start at once, and answer a repeated call.

-- Records ends under their fence (`running` and the attempt's number) and closes the attempts. The caller holds the runs' locks. Returns the
-- changes of the steps that counted, null if none did.
create or replace function nofx.steps_record(p_items jsonb, p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with item as (
        select i.*, r.paused_at,
               -- Nothing starts again or waits in a run that is failing.
               case when i."to" = 'ready' and r.is_failing then 'failed'
                    when i."to" = 'blocked' and r.is_failing then 'skipped'
                    else i."to" end as verdict,
               p_now + make_interval(secs => i.delay_ms / 1000.0) as retry_at
          from jsonb_to_recordset(p_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, "to" text, outputs jsonb, error jsonb,
                    delay_ms integer)
         cross join lateral (
            select r.paused_at, nofx.is_failing(r.steps_failed, r.failure) as is_failing
              from nofx.run r
             where r.id = i.run_id
            offset 0) r
    ), ended as (
        update nofx.step s
           set status = i.verdict,
               outputs = case when i.verdict = 'succeeded' then i.outputs end,
               error = case when i.verdict in ('failed', 'ready') then i.error end,
               failures = s.failures + (i."to" in ('failed', 'ready'))::integer,
               lease_until = null,
               finished_at = case when i.verdict in ('succeeded', 'failed', 'skipped') then p_now end,
               ready_at = case when i.verdict = 'ready' then i.retry_at else s.ready_at end,
               notify_at = case when i.verdict = 'ready' then nofx.wakeup_due(i.retry_at, i.paused_at) end,
               notify_count = 0
          from item i
         where s.id = any (array[i.step_id]) and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
           and s.status = 'running' and s.attempt = i.attempt
        returning s.run_id, s.id, s.attempt, s.status, i."to", i.error, i.delay_ms
    ), closed as (
        update nofx.attempt a
           set status = case when e."to" = 'ready' then 'failed' else e."to" end,
               error = e.error,
               finished_at = p_now
          from ended e
         where a.step_id = any (array[e.id]) and a.attempt = e.attempt
    )
    select array_agg(nofx.step_change(
               e.run_id, e.id, 'running', e.status, case e.status when 'ready' then 'step.retrying' else 'step.' || e.status end,
               case when e.status in ('failed', 'ready')
                    then jsonb_strip_nulls(jsonb_build_object(
                             'attempt', e.attempt, 'error', e.error,
                             'delay_ms', case when e.status = 'ready' then e.delay_ms end))
                    else jsonb_build_object('attempt', e.attempt) end) order by e.id)
      into v_changes
      from ended e;
    return v_changes;
end
$$;

-- The answer for items that did not count, and for neighbours that a failure closed. p_done: the steps that counted. A finish that was already
-- recorded is "repeated": its first answer may have been lost, so it gets the owed wake-ups and the claimed steps again.
-- -> {items: [{step_id, result, status}], owed: [step ids], claimed: [step ids]}
create or replace function nofx.steps_repeat(p_items jsonb, p_done uuid[], p_call uuid) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    return jsonb_build_object(
        'items', (
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown'), 'result',
                       case when s.id = any (p_done) then 'finished'
                            when a.status in ('succeeded', 'failed', 'blocked')
                                 and a.status = case i."to" when 'ready' then 'failed' else i."to" end then 'repeated'
                            else 'stale' end))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, attempt integer, "to" text)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
              left join nofx.attempt a on a.step_id = s.id and a.attempt = i.attempt),
        'owed', (
            select coalesce(jsonb_agg(c.id), '[]')
              from nofx.step c
             where c.status = 'ready'
               and c.id in (select unnest(array[a.step_id, e.child_id])
                              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, attempt integer)
                              join nofx.attempt a on a.step_id = i.step_id and a.attempt = i.attempt
                                                 and a.tenant_id = i.tenant_id
                              left join nofx.step_edge e on e.parent_id = a.step_id
                             where a.status in ('succeeded', 'failed') and a.step_id <> all (p_done))),
        'claimed', (
            select coalesce(jsonb_agg(distinct a.step_id), '[]')
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, call uuid)
              join nofx.step_edge e on e.parent_id = i.step_id
              join nofx.attempt a on a.step_id = e.child_id and a.tenant_id = i.tenant_id
             where p_call is not null and i.step_id <> all (p_done)
               and a.claimed_by in (p_call, i.call) and a.status = 'running'));
end
$$;

-- Records the ends of attempts. p_items: [{tenant_id, run_id, step_id, attempt, call, to, outputs, error, delay_ms,
-- artifacts, gates, events}], where `to` is succeeded, failed, ready (a retry after delay_ms) or blocked. An item that is fenced out changes
-- nothing ("stale"). An item that was already recorded is "repeated".
--
-- p_next: as nofx.children_release takes it. Steps that start at once need no wake-up. A retry with the same call receives what the first
-- call claimed; an item's `call` names an earlier finish of that attempt whose answer was lost.
--
-- -> {items: [{step_id, result: finished|repeated|stale, status}], claimed: [..], ready: [wake-ups]}
create or replace function nofx.steps_finish(p_items jsonb, p_next jsonb default null) returns json
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz;
    v_changes nofx.change[];
    v_done uuid[];
    v_succeeded uuid[];
    v_failing uuid[];
    v_items jsonb;
    v_started uuid[] := '{}';
    v_ready uuid[] := '{}';
    v_repeat jsonb;
begin
    perform nofx.runs_lock(array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i));
    v_now := clock_timestamp();

    v_changes := nofx.steps_record(p_items, v_now);
    select coalesce(array_agg(c.step_id), '{}'),
           array_agg(c.step_id) filter (where c.to_status = 'succeeded'),
           array_agg(c.run_id) filter (where c.to_status in ('failed', 'skipped')),
           jsonb_agg(jsonb_build_object('step_id', c.step_id, 'status', c.to_status, 'result', 'finished'))
      into v_done, v_succeeded, v_failing, v_items
      from unnest(v_changes) c;
    if v_changes is not null then
        v_changes := nofx.step_facts_insert(p_items, v_done, v_now) || v_changes;
        if v_succeeded is not null then
            v_changes := v_changes || nofx.children_release(v_succeeded, p_next, v_failing, v_now);
            v_started := array(select c.step_id from unnest(v_changes) c where c.to_status = 'running');
        end if;
        if v_failing is not null then
            v_changes := v_changes || nofx.steps_close(v_failing, 'skipped', false, v_now);
        end if;
        perform nofx.runs_settle(v_changes, v_now);
        v_ready := array(select c.step_id from unnest(v_changes) c
                          where c.to_status = 'ready' and c.step_id <> all (v_started));
    end if;

    if cardinality(v_done) <> jsonb_array_length(p_items) or v_failing is not null then
        v_repeat := nofx.steps_repeat(p_items, v_done, (p_next ->> 'call')::uuid);
        v_items := v_repeat -> 'items';
        v_ready := v_ready || array(select jsonb_array_elements_text(v_repeat -> 'owed')::uuid);
        -- A child of a new and of a repeated end is in both.
        v_started := array(select unnest(v_started) union select jsonb_array_elements_text(v_repeat -> 'claimed')::uuid);
    end if;
    return json_build_object(
        'items', coalesce(v_items, '[]'),
        'claimed', nofx.steps_claimed(v_started, (p_next ->> 'refs_bytes')::integer),
        'ready', nofx.wakeups(v_ready, v_now));
end
$$;
select nofx.transition_declare('nofx.steps_finish(jsonb, jsonb)', 'nofx_worker');
revoke execute on function nofx.steps_record(jsonb, timestamptz), nofx.steps_repeat(jsonb, uuid[], uuid) from public;

-- functions/sweep_leases.sql sha256=221d45c15b75c03556dceda9cf60d3393b3680707bf29e56a7bd6bee1e61b677
-- Ends attempts whose lease is over. Sweeps may run side by side: each skips runs that another transaction holds, and a later sweep finds
-- them. -> {done, ready: [wake-ups]}
create or replace function nofx.sweep_leases(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_steps uuid[];
    v_runs uuid[];
    v_changes nofx.change[];
begin
    select array_agg(d.id), array_agg(distinct d.run_id) into v_steps, v_runs
      from (select a.step_id as id, a.run_id from nofx.attempt a
             where a.finished_at is null and a.lease_until < v_now
             order by a.lease_until limit p_limit) d;
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    v_changes := nofx.leases_end(array(select s.id from nofx.step s
                                        where s.id = any (v_steps) and s.run_id = any (v_runs)), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('done', coalesce(cardinality(v_changes), 0), 'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.sweep_declare('nofx.sweep_leases(integer)');

-- functions/sweep_wakeups.sql sha256=bc56de2cd2dfa671827ce3412397bd16bef8f12c57c848f71d8309a638c25234
-- Sends wake-ups that ready steps are owed, after 1, 2, 4, 8 and then every 15 minutes. After 20 of them without a claim the step fails as
-- `undeliverable`. -> {done, ready: [wake-ups]}
create or replace function nofx.sweep_wakeups(p_limit_per_handler integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_steps uuid[];
    v_runs uuid[];
    v_changes nofx.change[];
    v_owed uuid[];
begin
    select array_agg(d.id), array_agg(distinct d.run_id) into v_steps, v_runs
      from (select s.id, s.run_id from nofx.step s
             where s.status = 'ready' and s.notify_at <= v_now and s.notify_count >= nofx.max_wakeups()
             order by s.notify_at limit p_limit_per_handler) d;
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is not null then
        with given_up as (
            update nofx.step s
               set status = 'failed', finished_at = v_now, notify_at = null,
                   error = jsonb_build_object('code', 'undeliverable', 'message',
                       format('no worker claimed the step although it was woken %s times; is the function of handler %s running?',
                              s.notify_count, s.handler))
             where s.id = any (v_steps) and s.run_id = any (v_runs)
               and s.status = 'ready' and s.notify_at <= v_now and s.notify_count >= nofx.max_wakeups()
            returning s.run_id, s.id, s.error
        )
        select array_agg(nofx.step_change(g.run_id, g.id, 'ready', 'failed', 'step.failed',
                                          jsonb_build_object('error', g.error))), array_agg(distinct g.run_id)
          into v_changes, v_runs
          from given_up g;
        if v_runs is not null then
            v_changes := v_changes || nofx.steps_close(v_runs, 'skipped', false, v_now);
            perform nofx.runs_settle(v_changes, v_now);
        end if;
    end if;

    -- Candidates for eight handlers. With more busy handlers, a sweep wakes the steps that have waited longest.
    -- This comes last, because it locks steps without the locks of their runs: after it, this transaction waits for no lock.
    with due as (
        select s.id, s.handler, s.notify_at from nofx.step s
         where s.status = 'ready' and s.notify_at <= v_now and s.notify_count < nofx.max_wakeups()
         order by s.notify_at
         limit p_limit_per_handler * 8
           for update skip locked
    ), fair as (
        select d.id, row_number() over (partition by d.handler order by d.notify_at) as position from due d
    ), owed as (
        update nofx.step s
           set notify_count = s.notify_count + 1,
               notify_at = v_now + least(interval '1 minute' * power(2, s.notify_count), interval '15 minutes')
          from fair f
         where s.id = any (array[f.id]) and f.position <= p_limit_per_handler
        returning s.id
    )
    select coalesce(array_agg(o.id), '{}') into v_owed from owed o;
    return jsonb_build_object('done', cardinality(v_owed) + coalesce(cardinality(v_changes), 0),
                              'ready', nofx.wakeups(v_owed, v_now));
end
$$;
select nofx.sweep_declare('nofx.sweep_wakeups(integer)');

-- functions/wakeups.sql sha256=95ce5235050694828c148771be371fb8a096a28ff8bb1275785c0d537fd8f6c2
-- Wake-ups for those of the steps that are ready, none for paused runs. -> [{tenant_id, run_id, step_id, handler, delay_ms, traceparent}]
create or replace function nofx.wakeups(p_steps uuid[], p_now timestamptz) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    if p_steps = '{}' then
        return '[]';
    end if;
    return coalesce((
        select jsonb_agg(jsonb_build_object(
                   'tenant_id', s.tenant_id, 'run_id', s.run_id, 'step_id', s.id, 'handler', s.handler,
                   'delay_ms', greatest(0, ceil(extract(epoch from s.ready_at - p_now) * 1000))::bigint,
                   'traceparent', s.traceparent))
          from unnest(p_steps) w(id)
         cross join lateral (
            select s.tenant_id, s.run_id, s.id, s.handler, s.ready_at, r.traceparent
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = w.id and s.status = 'ready' and r.paused_at is null
            -- One look-up by key for each step, never a scan of all ready steps.
            offset 0) s), '[]');
end
$$;
revoke execute on function nofx.wakeups(uuid[], timestamptz) from public;
