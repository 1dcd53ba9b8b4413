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
