-- Counts down the blockers of the children of steps that succeeded; the ones that reach zero become ready. The caller
-- holds the runs' locks: two parents that finish at once cannot lose the wake-up.
--
-- p_next: {call, handler, lease_s, timeout_s, refs_bytes, terms} of an invocation that can continue. As many children as p_parents has steps
-- start at once, in id order, if they are of that handler, their timeout is at most timeout_s, and they need no approval; not in the runs p_failing.
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
                   and s.approval is null and nofx.lets_start(r.status) and r.id <> all (coalesce(p_failing, '{}')) as continues
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
