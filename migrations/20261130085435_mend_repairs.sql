-- A retry and a repair restart steps and ask gates again by the same two functions. A repair starts only if nothing else failed, and counts
-- blockers after the release. A repair that is in flight fails once where it calls the dropped function, and its message is delivered again.
drop function nofx.steps_reset(uuid, uuid, uuid[], timestamptz, timestamptz);

-- Copies of the files in functions/. Change those files, not this one.

-- functions/run_retry.sql sha256=12e26ac4e2b12c8363d5027dd86f45820151694c961db666f50290ebd7c79ad0
-- Starts the next generation of a failed or cancelled run. Steps that succeeded stay. All others start again: their blockers are counted
-- again, their failures and lost workers are 0 again, their attempt numbers continue. Gates that did not pass, and those that would not pass today, are
-- asked again.
-- p: {caller, run_id, actor}
-- -> {result: retried|conflict|not_found, status, generation, ready: [wake-ups]}, or {result: gone, artifact_id, storage} if the bytes of its workspace
-- are deleted
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
    v_voided nofx.change[];
    v_gone jsonb;
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.status not in ('failed', 'cancelled') then
        return jsonb_build_object('result', 'conflict', 'status', v_run.status, 'ready', '[]'::jsonb);
    end if;
    select jsonb_build_object('result', 'gone', 'artifact_id', s.artifact_id, 'storage', nofx.artifact_storage_json(s)) into v_gone
      from jsonb_each(coalesce(v_run.workspace, '{}')) w
      join nofx.artifact_storage s on s.artifact_id = any (array[(w.value ->> 'id')::uuid])
     where s.tenant_id = v_run.tenant_id and s.state in ('deleting', 'deleted')
     order by s.artifact_id limit 1;
    if v_gone is not null then
        return v_gone;
    end if;
    perform nofx.limits_admit_run(v_run.tenant_id, (select count(*)::integer from nofx.step s
                                                     where s.run_id = v_run.id and s.status <> 'succeeded'));
    v_now := clock_timestamp();
    update nofx.run r
       set status = 'queued', generation = r.generation + 1, failure = null, finished_at = null, cancelled_at = null,
           paused_at = null, authors = nofx.authors_with(r.authors, nofx.author_of(p, 'retried')), deadline_at = v_now + make_interval(secs => r.timeout_s)
     where r.id = v_run.id;

    with lapsed as (
        update nofx.gate g
           set voided_at = v_now
         where g.run_id = v_run.id and g.on_pass = 'release' and g.status in ('passed', 'waived') and g.voided_at is null
           and not exists (select from nofx.step s where s.id = g.step_id and s.status = 'succeeded')
           and not nofx.gate_still_holds(g)
        returning g.id, g.step_id, g.gate_type, g.bound_digest
    )
    select array_agg(nofx.fact(v_run.id, l.step_id, 'gate.voided', jsonb_strip_nulls(jsonb_build_object(
               'gate_id', l.id, 'gate_type', l.gate_type, 'changed', '["approvals"]'::jsonb, 'digest', l.bound_digest))) order by l.id)
      into v_voided
      from lapsed l;

    -- Only gates that clients put before steps. Handlers create theirs again when their steps run.
    v_gates := nofx.gates_ask_again(
        v_run.id,
        array(select g.id from nofx.gate g left join nofx.step s on s.id = g.step_id
               where g.run_id = v_run.id and g.on_pass = 'release'
                 -- A repair voids the gates that it has asked again.
                 and (g.generation = v_run.generation and g.status in ('failed', 'expired', 'cancelled') and g.voided_at is null
                      or g.voided_at = v_now)
                 and s.status is distinct from 'succeeded'),
        v_run.generation + 1, v_now);
    v_steps := nofx.steps_restart(
        v_run.id, array(select s.id from nofx.step s where s.run_id = v_run.id and s.status <> 'succeeded'), null, v_now);

    -- A step that stays may repair as often again.
    update nofx.step s set repairs = 0 where s.run_id = v_run.id and s.repairs > 0;
    perform nofx.runs_settle(
        nofx.fact(v_run.id, null, 'run.retried',
                  jsonb_build_object('actor', p ->> 'actor', 'by', p -> 'by', 'generation', v_run.generation + 1))
        || v_voided || v_gates || v_steps, v_now);
    return jsonb_build_object('result', 'retried', 'generation', v_run.generation + 1,
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_steps), v_now));
end
$$;
select nofx.transition_declare('nofx.run_retry(jsonb)', 'nofx_api');

-- functions/steps_finish.sql sha256=813a1d736b1b7b6d896c32851b465708ed8c0bd6627a6344984350733c23c5a0
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
        'claimed', nofx.claims_json(v_started, (p_next ->> 'refs_bytes')::integer, (p_next ->> 'terms')::boolean),
        'ready', nofx.wakeups(v_ready, v_now));
end
$$;
select nofx.transition_declare('nofx.steps_finish(jsonb, jsonb)', 'nofx_worker');
revoke execute on function nofx.steps_record(jsonb, timestamptz), nofx.steps_repeat(jsonb, uuid[], uuid) from public;

-- functions/steps_repair.sql sha256=be1c3bcf332fafd88b7fcff4642194a071788292fba76e673ef45d772ac42171
-- Repair loops. A gate failed that a step repairs, or what the step made does not fit the workspace that another one writes: the step and
-- everything after it run again, and the step gets what was found.

-- Starts the loops of p_failed, steps that have just failed. A loop starts only if its step has an attempt left, and if nothing failed in the
-- run but p_failed, each within a loop that starts. If one loop is within another, only the outer one starts. Its step becomes ready;
-- everything after it waits again, what runs is fenced, and what people decided about it is asked again.
-- The caller holds the runs' locks, and settles the changes together with those of the failures.
-- -> the runs that go on, the steps that start again, and the changes
create or replace function nofx.steps_repair(
    p_failed uuid[], p_now timestamptz, out runs uuid[], out steps uuid[], out changes nofx.change[]
)
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_loop record;
    v_run record;
begin
    runs := '{}';
    steps := '{}';
    changes := '{}';
    for v_loop in
        with recursive able as materialized (
            select distinct on (s.id) s.id, s.run_id, s.attempt, s.repair, s.repairs,
                   g.id as gate_id, g.name as gate, g.attempt as gate_attempt, g.error
              from nofx.step g
              join nofx.run r on r.id = any (array[g.run_id])
              join nofx.step s on s.run_id = g.run_id
                   and case g.error ->> 'code'
                       when 'gate_failed' then s.repair -> 'gates' ? g.name
                       when 'changes_refused' then g.tool = 'workspace:write' and s.repair is not null
                                                   and position('steps.' || s.name || '.' in g.inputs ->> 'from') > 0
                       else false end
             where g.id = any (p_failed) and g.status = 'failed'
               and s.status = 'succeeded' and s.repairs + 1 < (s.repair ->> 'max_attempts')::integer
               and r.failure is null and r.cancelled_at is null
             order by s.id, g.ordinal
        ), after as (
            select l.id as root, l.id as id from able l
            union
            select a.root, e.child_id from after a join nofx.step_edge e on e.parent_id = a.id
        )
        select l.*, array(select a.id from after a where a.root = l.id) as again
          from able l
         where not exists (select from after a where a.id = l.id and a.root <> l.id)
           and not exists (
               select from nofx.step f
                where f.run_id = l.run_id and f.status in ('failed', 'skipped')
                  and (f.id <> all (p_failed) or f.id not in (select a.id from after a)))
         order by l.run_id, l.id
    loop
        changes := changes || nofx.fact(v_loop.run_id, v_loop.id, 'step.repairing', jsonb_strip_nulls(jsonb_build_object(
                       'gate', v_loop.gate, 'gate_attempt', v_loop.gate_attempt, 'round', v_loop.repairs + 2,
                       'max_attempts', v_loop.repair -> 'max_attempts', 'error', v_loop.error,
                       'evidence_id', (select a.id from nofx.artifact a
                                        where a.step_id = v_loop.gate_id and a.attempt = v_loop.gate_attempt and a.type = 'gate_evidence'
                                        order by a.id limit 1))));
        update nofx.step s
           set repairs = s.repairs + 1,
               repair_task = jsonb_build_object(
                   'round', v_loop.repairs + 2, 'max_attempts', v_loop.repair -> 'max_attempts', 'gate', v_loop.gate,
                   'code', v_loop.error ->> 'code', 'message', v_loop.error ->> 'message',
                   'evidence', (select nofx.artifact_ref(a) from nofx.artifact a
                                 where a.step_id = v_loop.gate_id and a.attempt = v_loop.gate_attempt and a.type = 'gate_evidence'
                                 order by a.id limit 1),
                   'previous', (select coalesce(jsonb_agg(nofx.artifact_ref(a) order by a.id), '[]')
                                  from (select * from nofx.artifact a
                                         where a.step_id = v_loop.id and a.attempt = v_loop.attempt and a.type <> 'prompt'
                                         order by a.id limit 20) a))
         where s.id = v_loop.id;
        -- What loops within this one had to repair was made from the earlier answer.
        update nofx.step s set repair_task = null
         where s.id = any (v_loop.again) and s.id <> v_loop.id and s.repair_task is not null;
        runs := runs || v_loop.run_id;
        steps := steps || v_loop.again;
    end loop;
    -- Loops of one run can have steps in common.
    for v_run in
        select r.id, r.generation, r.paused_at, array_agg(s.id) as again
          from nofx.step s
          join nofx.run r on r.id = any (array[s.run_id])
         where s.id = any (steps)
         group by r.id
         order by r.id
    loop
        changes := changes || nofx.steps_reopen(v_run.id, v_run.generation, v_run.again, v_run.paused_at, p_now);
    end loop;
end
$$;

-- What a worker needs to read an artifact.
create or replace function nofx.artifact_ref(p nofx.artifact) returns jsonb
    language sql immutable
as $$
    select jsonb_build_object('id', p.id, 'uri', p.uri, 'hash', p.hash, 'size_bytes', p.size_bytes, 'media_type', p.media_type)
$$;

-- Starts p_steps again, which are steps that repair and everything after them. Attempts that run are fenced. Pending gates of the steps are
-- cancelled; gates of clients are asked again, because what they were about changes.
create or replace function nofx.steps_reopen(p_run uuid, p_generation integer, p_steps uuid[], p_paused_at timestamptz, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates nofx.change[];
    v_clients uuid[];
begin
    with ended as (
        update nofx.gate g
           set status = case when g.status = 'pending' then 'cancelled' else g.status end,
               decided_at = case when g.status = 'pending' then p_now else g.decided_at end,
               voided_at = case when g.on_pass = 'release' then p_now end
         where g.run_id = p_run and g.step_id = any (p_steps)
           and (g.status = 'pending' or g.on_pass = 'release' and g.status in ('passed', 'waived') and g.voided_at is null)
        returning g.id, g.step_id, g.gate_type, g.status, g.on_pass, g.bound_digest
    )
    select array_agg(case when e.status = 'cancelled'
                          then nofx.gate_change(p_run, e.step_id, 'gate.cancelled',
                                                jsonb_build_object('gate_id', e.id, 'gate_type', e.gate_type), -1)
                          else nofx.fact(p_run, e.step_id, 'gate.voided', jsonb_strip_nulls(jsonb_build_object(
                                   'gate_id', e.id, 'gate_type', e.gate_type, 'changed', '["upstream"]'::jsonb, 'digest', e.bound_digest)))
                     end order by e.id),
           array_agg(e.id) filter (where e.on_pass = 'release')
      into v_gates, v_clients
      from ended e;

    update nofx.attempt a
       set status = 'cancelled', finished_at = p_now
      from nofx.step s
     where s.id = any (p_steps) and s.status = 'running' and a.step_id = any (array[s.id]) and a.attempt = s.attempt;

    return v_gates
        || nofx.gates_ask_again(p_run, v_clients, p_generation, p_now)
        || nofx.steps_restart(p_run, p_steps, p_paused_at, p_now);
end
$$;
revoke execute on function nofx.steps_repair(uuid[], timestamptz), nofx.artifact_ref(nofx.artifact),
    nofx.steps_reopen(uuid, integer, uuid[], timestamptz, timestamptz) from public;

-- functions/steps_restart.sql sha256=0c432207d356ab7ec10c577dc1d859651ad1e2bef4fbd10ae1e92e2f3f9f4135
-- What a retry of a run and a repair loop have in common.

-- Asks p_gates again: a new gate for each, about what it is about now, under the stricter of its rule and today's policy.
-- -> one change for each
create or replace function nofx.gates_ask_again(p_run uuid, p_gates uuid[], p_generation integer, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_asked nofx.change[];
begin
    with asked as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at, rule, bound, bound_digest)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass, p_generation, g.reason, g.evidence_uri,
               nofx.approval_expiry(g.tenant_id, extract(epoch from g.expires_at - g.created_at)::integer, p_now), p_now,
               nofx.approval_strictest(coalesce(g.rule, '{}'), nofx.approval_policy(g.tenant_id)), b.bound, nofx.binding_digest(b.bound)
          from nofx.gate g
         cross join lateral nofx.gate_binding(g) b(bound)
         where g.run_id = p_run and g.id = any (p_gates)
        returning id, step_id, gate_type, rule, bound_digest
    )
    select array_agg(nofx.gate_change(p_run, a.step_id, 'gate.created', nofx.gate_asked(a.id, a.gate_type, a.rule, a.bound_digest), 1) order by a.id)
      into v_asked
      from asked a;
    return v_asked;
end
$$;

-- Starts p_steps again: each waits for those of its parents that are among them or have not succeeded, and for its pending gates. Attempt
-- numbers continue.
-- -> one change for each
create or replace function nofx.steps_restart(p_run uuid, p_steps uuid[], p_paused_at timestamptz, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_steps nofx.change[];
begin
    with old as (
        select s.id, s.status,
               (select count(*) from nofx.step_edge e join nofx.step q on q.id = e.parent_id
                 where e.child_id = s.id and (q.id = any (p_steps) or q.status <> 'succeeded'))
               + (select count(*) from nofx.gate g where g.step_id = s.id and g.status = 'pending' and g.on_pass = 'release') as blockers
          from nofx.step s
         where s.id = any (p_steps)
    ), renewed as (
        update nofx.step s
           set status = case when o.blockers = 0 then 'ready' else 'pending' end,
               blockers = o.blockers, failures = 0, workers_lost = 0, outputs = null, error = null,
               started_at = null, finished_at = null, lease_until = null, notify_count = 0,
               ready_at = case when o.blockers = 0 then p_now end,
               notify_at = case when o.blockers = 0 then nofx.wakeup_due(p_now, p_paused_at) end
          from old o
         where s.id = any (array[o.id])
        returning s.id, o.status as was, s.status, s.ordinal
    )
    select array_agg(nofx.step_change(p_run, a.id, a.was, a.status, case when a.status = 'ready' then 'step.ready' end) order by a.ordinal)
      into v_steps
      from renewed a;
    return v_steps;
end
$$;
revoke execute on function nofx.gates_ask_again(uuid, uuid[], integer, timestamptz),
    nofx.steps_restart(uuid, uuid[], timestamptz, timestamptz) from public;
