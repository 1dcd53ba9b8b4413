-- What every transition shares: changes, and the one place that settles a run.

-- One change of a step or of a gate. Null statuses: a fact for the timeline alone. Null event: no fact of its own.
create type nofx.change as (
    run_id      uuid,
    step_id     uuid,
    from_status text,
    to_status   text,
    event_type  text,
    payload     jsonb,
    -- Pending gates of the run itself that appear (+1) or go (-1).
    gates       integer
);

-- The state of a run as it follows from its counters. Ended comes first, then what people asked for.
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

-- Applies changes to their runs: counters, state, timestamps, and the events, numbered densely. The caller holds the
-- locks of all runs in p_changes. Called once by every transition, last.
--
-- Here and in everything that claims and finishes, a loop of statements that each find one row by its key: their plans
-- cannot be wrong, whatever the statistics of a young or a fast-growing table say, and starting them costs less than one
-- statement that does it all for a batch.
create or replace function nofx.runs_settle(p_changes nofx.change[], p_now timestamptz) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_delta record;
    v_run record;
    v_status text;
    v_runs uuid[];
    v_tenants text[];
    v_seqs bigint[];
    v_facts nofx.change[];
begin
    for v_delta in
        select c.run_id,
               count(c.event_type) as events,
               (count(*) filter (where to_status = 'pending') - count(*) filter (where from_status = 'pending'))::integer as pending,
               (count(*) filter (where to_status = 'ready') - count(*) filter (where from_status = 'ready'))::integer as ready,
               (count(*) filter (where to_status = 'running') - count(*) filter (where from_status = 'running'))::integer as running,
               (count(*) filter (where to_status = 'blocked') - count(*) filter (where from_status = 'blocked'))::integer as blocked,
               (count(*) filter (where to_status = 'failed') - count(*) filter (where from_status = 'failed'))::integer as failed,
               coalesce(sum(c.gates), 0)::integer as gates,
               bool_or(coalesce(to_status = 'running', false)) as starts
          from unnest(p_changes) c
         group by c.run_id
         order by c.run_id
    loop
        select r.tenant_id, r.status, r.event_seq, r.failure, r.cancelled_at, r.paused_at,
               r.started_at is not null or v_delta.starts as started,
               r.steps_pending + v_delta.pending as pending, r.steps_ready + v_delta.ready as ready,
               r.steps_running + v_delta.running as running, r.steps_blocked + v_delta.blocked as blocked,
               r.steps_failed + v_delta.failed as failed, r.gates_pending + v_delta.gates as gates
          into v_run
          from nofx.run r
         where r.id = v_delta.run_id;
        v_status := nofx.run_status(v_run.pending + v_run.ready + v_run.running + v_run.blocked,
                                    v_run.ready + v_run.running, v_run.failed > 0 or v_run.failure is not null,
                                    v_run.gates, v_run.cancelled_at is not null, v_run.paused_at is not null,
                                    v_run.started);
        update nofx.run r
           set status = v_status,
               steps_pending = v_run.pending, steps_ready = v_run.ready, steps_running = v_run.running,
               steps_blocked = v_run.blocked, steps_failed = v_run.failed, gates_pending = v_run.gates,
               event_seq = v_run.event_seq + v_delta.events + (v_status <> v_run.status)::integer,
               started_at = case when v_run.started then coalesce(r.started_at, p_now) end,
               finished_at = case when v_status in ('succeeded', 'failed', 'cancelled')
                                  then coalesce(r.finished_at, p_now) end
         where r.id = v_delta.run_id;
        v_runs := v_runs || v_delta.run_id;
        v_tenants := v_tenants || v_run.tenant_id;
        v_seqs := v_seqs || v_run.event_seq;
        if v_status <> v_run.status then
            -- After the facts that led to it.
            v_facts := v_facts || row(v_delta.run_id, null, null, null,
                    case when v_status = 'running' and v_run.status = 'queued' then 'run.started'
                         when v_status = 'running' and v_run.status = 'paused' then 'run.resumed'
                         when v_status = 'running' then 'run.unblocked'
                         when v_status = 'queued' then 'run.queued'
                         else 'run.' || v_status end,
                    case when v_run.failure is not null then jsonb_build_object('failure', v_run.failure)
                         else '{}' end, null)::nofx.change;
        end if;
    end loop;
    insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
    select c.run_id, v_seqs[r.at] + row_number() over (partition by c.run_id order by c.position), v_tenants[r.at],
           c.step_id, c.event_type, coalesce(c.payload, '{}'), p_now
      from unnest(p_changes || v_facts) with ordinality
           as c(run_id, step_id, from_status, to_status, event_type, payload, gates, position)
     cross join lateral (select array_position(v_runs, c.run_id) as at) r
     where c.event_type is not null;
end
$$;

-- Wake-ups for the steps that a transition made ready; none for paused runs. [{tenant_id, run_id, step_id, handler,
-- delay_ms, traceparent}]
create or replace function nofx.wakeups(p_changes nofx.change[], p_now timestamptz) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    return coalesce((
        select jsonb_agg(w.wakeup)
          from unnest(p_changes) c
         cross join lateral (
            select jsonb_build_object(
                       'tenant_id', s.tenant_id, 'run_id', s.run_id, 'step_id', s.id, 'handler', s.handler,
                       'delay_ms', greatest(0, ceil(extract(epoch from s.ready_at - p_now) * 1000))::bigint,
                       'traceparent', r.traceparent) as wakeup
              from nofx.step s
              join nofx.run r on r.id = s.run_id
             where s.id = c.step_id and s.status = 'ready' and r.paused_at is null
            -- Looked up one by one, never by a scan of what is ready.
            offset 0) w
         where c.to_status = 'ready'), '[]');
end
$$;

-- Counts down the blockers of the children of steps that succeeded; the ones that reach zero become ready. The caller
-- holds the run's lock, which is what keeps two parents that finish at once from losing the wake-up.
create or replace function nofx.children_release(p_parents uuid[], p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_child record;
    v_step record;
    v_changes nofx.change[];
begin
    for v_child in
        select e.child_id, count(*)::integer as parents
          from nofx.step_edge e
         where e.parent_id = any (p_parents)
         group by e.child_id
         -- Ids rise with the ordinals of the steps.
         order by e.child_id
    loop
        update nofx.step s
           set blockers = s.blockers - v_child.parents,
               status = case when s.blockers = v_child.parents then 'ready' else s.status end,
               ready_at = case when s.blockers = v_child.parents then p_now end,
               notify_at = case when s.blockers = v_child.parents
                                then case when (select r.paused_at from nofx.run r where r.id = s.run_id) is null
                                          then p_now + interval '1 minute' else 'infinity' end end,
               notify_count = 0
         where s.id = v_child.child_id and s.status = 'pending'
        returning s.run_id, s.id, s.status into v_step;
        if found and v_step.status = 'ready' then
            v_changes := v_changes
                || row(v_step.run_id, v_step.id, 'pending', 'ready', 'step.ready', null, 0)::nofx.change;
        end if;
    end loop;
    return v_changes;
end
$$;

-- Closes what is still open of runs that end early. After a failure (p_running false): running steps go on and are
-- recorded; everything that has not started is skipped. On cancel and run timeout (p_running true): every open step is
-- fenced at once, so that a late finish changes nothing. Pending gates are cancelled either way.
create or replace function nofx.steps_close(p_runs uuid[], p_status text, p_running boolean, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_steps nofx.change[];
    v_gates nofx.change[];
begin
    with open as (
        select s.id, s.status
          from nofx.step s
         where s.run_id = any (p_runs)
           and (s.status in ('pending', 'ready', 'blocked') or (p_running and s.status = 'running'))
    ), closed as (
        update nofx.step s
           set status = p_status, finished_at = p_now, notify_at = null, lease_until = null
          from open o
         where s.id = o.id
        returning s.run_id, s.id, o.status as was, s.ordinal, s.attempt
    ), fenced as (
        update nofx.attempt a
           set status = 'cancelled', finished_at = p_now
          from closed c
         where c.was = 'running' and a.step_id = c.id and a.attempt = c.attempt
    )
    select array_agg(row(c.run_id, c.id, c.was, p_status, 'step.' || p_status,
                         jsonb_build_object('was', c.was), 0)::nofx.change order by c.ordinal)
      into v_steps
      from closed c;

    with cancelled as (
        update nofx.gate g
           set status = 'cancelled', decided_at = p_now
         where g.run_id = any (p_runs) and g.status = 'pending'
        returning g.run_id, g.step_id, g.id, g.gate_type
    )
    select array_agg(row(c.run_id, c.step_id, null, null, 'gate.cancelled',
                         jsonb_build_object('gate_id', c.id, 'gate_type', c.gate_type),
                         case when c.step_id is null then -1 else 0 end)::nofx.change order by c.id)
      into v_gates
      from cancelled c;

    return v_gates || v_steps;
end
$$;

-- Ends attempts whose lease is over. The step is ready again, at the price of one of its lost workers; when the
-- allowance (3) is spent it fails, and the rest of its run is closed. The caller holds the runs' locks.
create or replace function nofx.leases_end(p_steps uuid[], p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
    v_failed uuid[];
begin
    with ended as (
        update nofx.step s
           set workers_lost = s.workers_lost + 1,
               lease_until = null,
               status = case when s.workers_lost >= 3 or r.steps_failed > 0 or r.failure is not null
                             then 'failed' else 'ready' end,
               ready_at = p_now,
               notify_at = case when s.workers_lost >= 3 or r.steps_failed > 0 or r.failure is not null then null
                                when r.paused_at is not null then 'infinity'
                                else p_now + interval '1 minute' end,
               notify_count = 0,
               finished_at = case when s.workers_lost >= 3 or r.steps_failed > 0 or r.failure is not null
                                  then p_now end,
               error = case when s.workers_lost >= 3 or r.steps_failed > 0 or r.failure is not null
                            then jsonb_build_object('code', 'worker_lost', 'message',
                                     format('the worker of attempt %s never answered (%s workers lost)', s.attempt,
                                            s.workers_lost + 1)) end
          from nofx.run r
         where s.id = any (p_steps) and s.status = 'running' and s.lease_until < p_now and r.id = s.run_id
        returning s.run_id, s.id, s.status, s.attempt, s.error, s.workers_lost
    ), lost as (
        update nofx.attempt a
           set status = 'lost', finished_at = p_now
          from ended e
         where a.step_id = e.id and a.attempt = e.attempt
    )
    select array_agg(row(e.run_id, e.id, 'running', e.status,
                         case when e.status = 'failed' then 'step.failed' else 'step.worker_lost' end,
                         jsonb_strip_nulls(jsonb_build_object('attempt', e.attempt, 'workers_lost', e.workers_lost,
                                                              'error', e.error)), 0)::nofx.change),
           array_agg(e.run_id) filter (where e.status = 'failed')
      into v_changes, v_failed
      from ended e;
    if v_failed is not null then
        v_changes := v_changes || nofx.steps_close(v_failed, 'skipped', false, p_now);
    end if;
    return v_changes;
end
$$;
