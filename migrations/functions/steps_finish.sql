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
                             where a.status in ('succeeded', 'failed', 'blocked') and a.step_id <> all (p_done))),
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
    v_repair record;
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
            -- After the release: what starts again counts its blockers anew.
            select * into v_repair
              from nofx.steps_repair(array(select c.step_id from unnest(v_changes) c where c.to_status = 'failed'), v_now);
            v_changes := v_changes || v_repair.changes;
            v_failing := nullif(array(select r from unnest(v_failing) r where r <> all (v_repair.runs)), '{}');
        end if;
        if v_failing is not null then
            v_changes := v_changes || nofx.steps_close(v_failing, 'skipped', false, v_now);
        end if;
        perform nofx.runs_settle(v_changes, v_now);
        v_ready := array(select c.step_id from unnest(v_changes) c
                          where c.to_status = 'ready' and c.step_id <> all (v_started))
                   || nofx.budgets_recheck(v_changes, v_now);
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
        'claimed', nofx.claims_json(v_started, (p_next ->> 'refs_bytes')::integer, (p_next ->> 'terms')::boolean),
        'ready', nofx.wakeups(v_ready, v_now));
end
$$;
select nofx.transition_declare('nofx.steps_finish(jsonb, jsonb)', 'nofx_worker');
revoke execute on function nofx.steps_record(jsonb, timestamptz), nofx.steps_repeat(jsonb, uuid[], uuid) from public;
