-- Repair loops: a step generates again with what a failed gate found.

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';

-- Which gates a step repairs, how often it has, and what its next attempt has to repair.
alter table nofx.step
    add column repair jsonb,
    add column repairs integer not null default 0,
    add column repair_task jsonb;


-- Copies of the files in functions/. Change those files, not this one.

-- functions/run_create.sql sha256=76b5ffe3b44e12a3b2fafa1ee9d84e542a59680269166e545dbb67be4e856783
-- Creates a run with its steps, edges and first events. No other transaction can see the run yet, so it locks no run and does not call
-- nofx.runs_settle: it writes each row once, and the run's with its counters.
--
-- p: {caller, id, goal, plan, plan_digest, request_digest, idempotency_key, actor, timeout_s, budget_usd_micros,
--     traceparent, workspace: {archive, base, diff} (artifact ids), artifacts: [ids that inputs name], steps: [..], edges: [{parent, child}]}
-- -> {result: created, id, status, ready: [wake-ups]}. With `existing` (same key, same request) and `conflict` (same key, other request): id
-- and status of the run that has the key. With `invalid`: problems. Raises NF429 if a limit of the tenant is reached.
create or replace function nofx.run_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_id uuid := p ->> 'id';
    -- Not p itself: a plan is large, and each change would copy it.
    v_call jsonb := nofx.admitted(jsonb_build_object('caller', p -> 'caller', 'actor', p -> 'actor'), 'runs.create');
    v_tenant text := v_call ->> 'tenant_id';
    v_workspace jsonb;
    v_problems jsonb;
    v_ready jsonb;
    v_authors jsonb := jsonb_build_array(nofx.author_of(v_call, 'started'));
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
    if (p ->> 'asks')::boolean then
        v_problems := nofx.approval_problems(v_tenant, p -> 'steps');
        if v_problems is not null then
            return jsonb_build_object('result', 'invalid', 'problems', v_problems);
        end if;
    end if;
    -- Who uploaded a file does not approve what becomes of it, and neither do the authors of the run that made it.
    if v_workspace is not null or jsonb_array_length(coalesce(p -> 'artifacts', '[]')) > 0 then
        select v_authors || coalesce(jsonb_agg(distinct m.author), '[]') into v_authors
          from (select w.value ->> 'id' as id from jsonb_each(v_workspace) w
                union select jsonb_array_elements_text(coalesce(p -> 'artifacts', '[]'))) named
          join nofx.artifact a on a.id = any (array[named.id::uuid])
          left join nofx.run r on r.id = any (array[a.run_id])
         cross join lateral (
            select a.created_by where a.created_by is not null
            union all
            select t.author || '{"did": "made"}' from jsonb_array_elements(r.authors) t(author)) m(author)
         where a.tenant_id = v_tenant;
    end if;

    -- Not if this call only repeats one that was carried out.
    if exists (select from nofx.tenant t where t.tenant_id = v_tenant and t.limits <> '{}')
       and not exists (select from nofx.run r where r.tenant_id = v_tenant
                          and (r.id = v_id or r.idempotency_key = p ->> 'idempotency_key')) then
        perform nofx.limits_admit_run(v_tenant, jsonb_array_length(p -> 'steps'));
    end if;

    with item as materialized (
        select s.*, s.blockers = 0 as is_ready
          from jsonb_to_recordset(p -> 'steps')
               as s(id uuid, ordinal integer, name text, tool text, handler text, inputs jsonb, refs text[], ref_paths text[],
                    blockers integer, max_attempts integer, backoff_ms integer, timeout_s integer, approval jsonb, repair jsonb)
    ), made as (
        insert into nofx.run (id, tenant_id, status, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s,
                              deadline_at, traceparent, workspace, created_by, authors, created_at, budget_usd_micros, steps_ready, steps_pending, event_seq)
        select v_id, v_tenant, 'queued', p ->> 'goal', p -> 'plan', p ->> 'plan_digest', p ->> 'request_digest',
               p ->> 'idempotency_key', (p ->> 'timeout_s')::integer,
               v_now + make_interval(secs => (p ->> 'timeout_s')::integer), p ->> 'traceparent', v_workspace, v_call ->> 'actor', v_authors, v_now,
               (p ->> 'budget_usd_micros')::bigint, count(*) filter (where i.is_ready), count(*) filter (where not i.is_ready),
               1 + count(*) filter (where i.is_ready)
          from item i
            on conflict do nothing
        returning id
    ), steps as (
        insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, refs, ref_paths, status, blockers,
                               max_attempts, backoff_ms, timeout_s, approval, repair, created_at, ready_at, notify_at)
        select i.id, v_tenant, m.id, i.ordinal, i.name, i.tool, i.handler, i.inputs, i.refs, i.ref_paths,
               case when i.is_ready then 'ready' else 'pending' end, i.blockers, i.max_attempts, i.backoff_ms, i.timeout_s,
               nullif(i.approval, 'null'), nullif(i.repair, 'null'), v_now, case when i.is_ready then v_now end, case when i.is_ready then nofx.wakeup_due(v_now, null) end
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
               jsonb_build_object('goal', p ->> 'goal', 'plan_digest', p ->> 'plan_digest', 'actor', v_call ->> 'actor', 'by', v_call -> 'by'),
               v_now
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

-- functions/run_retry.sql sha256=2a26504150f9487a6ca2c48a260279ac33b72e819b67b9559db7e6ae1a23df72
-- Starts the next generation of a failed or cancelled run. Steps that succeeded stay. All others start again: their blockers are counted
-- again, their failures and lost workers are 0 again, their attempt numbers continue. Gates that did not pass, and those that would not pass today, are
-- asked again.
-- p: {caller, run_id, actor}
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
    v_voided nofx.change[];
    v_policy jsonb;
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.status not in ('failed', 'cancelled') then
        return jsonb_build_object('result', 'conflict', 'status', v_run.status, 'ready', '[]'::jsonb);
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

    v_policy := nofx.approval_policy(v_run.tenant_id);
    -- Only gates that clients put before steps. Handlers create theirs again when their steps run.
    with renewed as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at, rule, bound, bound_digest)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass,
               v_run.generation + 1, g.reason, g.evidence_uri, nofx.approval_expiry(g.tenant_id, extract(epoch from g.expires_at - g.created_at)::integer, v_now), v_now,
               nofx.approval_strictest(coalesce(g.rule, '{}'), v_policy), b.bound, nofx.binding_digest(b.bound)
          from nofx.gate g
         cross join lateral nofx.gate_binding(g) b(bound)
          left join nofx.step s on s.id = g.step_id
         where g.run_id = v_run.id and g.on_pass = 'release'
           and (g.generation = v_run.generation and g.status in ('failed', 'expired', 'cancelled') or g.voided_at = v_now)
           and s.status is distinct from 'succeeded'
        returning id, step_id, gate_type, rule, bound_digest
    )
    select array_agg(nofx.gate_change(v_run.id, a.step_id, 'gate.created',
                                      nofx.gate_asked(a.id, a.gate_type, a.rule, a.bound_digest), 1) order by a.id)
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

-- functions/steps_claimed.sql sha256=ab8a7cac86e05882bccacb2d781042aff4a55d751009c649be39002e206a466b
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

-- What binds a step that judges code or calls models: {policy: {version, document}, decisions: [{gate_id, gate_type, status, subject, decided_by,
-- decided_at}], repair: what the attempt has to repair, and what nofx.llm_terms returns}.
-- `policy` is null if the tenant has none. `decisions` are of this generation, oldest first: the newest 100 gates of the step that passed or
-- were waived, and those questions about changed checks that a person let pass for other steps of the run, the newest of each of at most
-- 100 subjects. `decided_by` is null if a handler decided.
create or replace function nofx.step_terms(p_tenant_id text, p_step uuid, p_generation integer) returns json
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_run uuid;
    v_repair jsonb;
    v_llm jsonb;
begin
    select s.run_id, s.repair_task into v_run, v_repair from nofx.step s where s.id = p_step;
    v_llm := nofx.llm_terms(p_tenant_id, v_run);
    return json_build_object(
        'repair', v_repair, 'cooldowns', v_llm -> 'cooldowns', 'is_budgeted', v_llm -> 'is_budgeted',
        'policy', (
            select json_build_object('version', p.version, 'document', p.document)
              from nofx.policy p
             where p.tenant_id = p_tenant_id
             order by p.version desc limit 1),
        'decisions', (
            select coalesce(json_agg(json_build_object(
                       'gate_id', d.id, 'gate_type', d.gate_type, 'status', d.status, 'subject', d.subject,
                       'decided_by', d.approved_by, 'decided_at', d.decided_at) order by d.decided_at, d.id), '[]')
              from ((select g.id, g.gate_type, g.status, g.subject, g.approved_by, g.decided_at
                       from nofx.gate g
                      where g.step_id = p_step and g.generation = p_generation and g.status in ('passed', 'waived')
                      order by g.decided_at desc, g.id desc limit 100)
                    union all
                    (select o.id, o.gate_type, o.status, o.subject, o.approved_by, o.decided_at
                       from (select distinct on (g.subject) g.id, g.gate_type, g.status, g.subject, g.approved_by, g.decided_at
                               from nofx.gate g
                              where g.run_id = v_run and g.gate_type = 'manual:gate-change' and g.step_id <> p_step
                                and g.generation = p_generation and g.status in ('passed', 'waived')
                                and g.approved_by is not null and g.subject is not null
                              order by g.subject, g.decided_at desc, g.id desc) o
                      order by o.decided_at desc, o.id desc limit 100)) d));
end
$$;

-- Claimed steps in id order, as `Claimed` in shared/src/db/step.rs reads them; `refs` as nofx.step_refs gives them, `terms` as nofx.step_terms
-- does, null without p_terms.
create or replace function nofx.claims_json(p_steps uuid[], p_refs_bytes integer, p_terms boolean) returns json
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
                   'goal', s.goal, 'workspace', s.workspace, 'traceparent', s.traceparent,
                   'terms', case when p_terms then nofx.step_terms(s.tenant_id, s.id, s.generation) end) order by s.id)
          from unnest(p_steps) c(id)
         cross join lateral (
            select s.tenant_id, s.run_id, s.id, s.name, s.tool, s.attempt, s.failures, s.max_attempts, s.backoff_ms,
                   s.timeout_s, s.inputs, r.goal, r.workspace, r.traceparent, r.generation,
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

-- The name of nofx.claims_json before workers needed terms. Claims that are in flight during the migration call it; drop it in the next release.
create or replace function nofx.steps_claimed(p_steps uuid[], p_refs_bytes integer) returns json
    language sql stable
    set search_path = nofx, pg_temp
as $$ select nofx.claims_json(p_steps, p_refs_bytes, false) $$;
revoke execute on function nofx.step_refs(uuid, text[], text[], integer), nofx.step_terms(text, uuid, integer),
    nofx.claims_json(uuid[], integer, boolean), nofx.steps_claimed(uuid[], integer) from public;

-- functions/steps_finish.sql sha256=e3c068064e558409a5131ca3e80875e5084d5a48f0452efb470fdaf81c79f6b9
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
        if v_failing is not null then
            select * into v_repair
              from nofx.steps_repair(array(select c.step_id from unnest(v_changes) c where c.to_status = 'failed'), v_now);
            if v_repair.runs <> '{}' then
                v_changes := v_changes || v_repair.changes;
                v_failing := nullif(array(select r from unnest(v_failing) r where r <> all (v_repair.runs)), '{}');
                -- What starts again releases nothing.
                v_succeeded := nullif(array(select s from unnest(v_succeeded) s where s <> all (v_repair.steps)), '{}');
            end if;
        end if;
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
        'claimed', nofx.claims_json(v_started, (p_next ->> 'refs_bytes')::integer, (p_next ->> 'terms')::boolean),
        'ready', nofx.wakeups(v_ready, v_now));
end
$$;
select nofx.transition_declare('nofx.steps_finish(jsonb, jsonb)', 'nofx_worker');
revoke execute on function nofx.steps_record(jsonb, timestamptz), nofx.steps_repeat(jsonb, uuid[], uuid) from public;

-- functions/steps_repair.sql sha256=046d5e08939ce7250c48bf7e56783527e9a073d687a61800141332d7e37b820f
-- Repair loops. A gate failed that a step repairs: the step and everything after it run again, and the step gets what the gate found.

-- Starts the loops of p_failed, steps whose gates have just failed. A loop starts only if its step has an attempt left and nothing else of the
-- run failed. The step becomes ready; everything after it waits again, what runs is fenced, and what people decided about it is asked again.
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
    v_again uuid[];
begin
    runs := '{}';
    steps := '{}';
    changes := '{}';
    for v_loop in
        select s.id, s.run_id, s.tenant_id, s.attempt, s.repair, s.repairs, r.paused_at,
               g.id as gate_id, g.name as gate, g.attempt as gate_attempt, g.error
          from nofx.step g
          join nofx.run r on r.id = any (array[g.run_id])
          join nofx.step s on s.run_id = g.run_id and s.repair -> 'gates' ? g.name
         where g.id = any (p_failed) and g.status = 'failed' and g.error ->> 'code' = 'gate_failed'
           and s.status = 'succeeded' and s.repairs + 1 < (s.repair ->> 'max_attempts')::integer
           and r.failure is null and r.cancelled_at is null
         order by s.run_id, s.id, g.ordinal
    loop
        -- Another gate of the same loop failed in the same batch.
        continue when v_loop.id = any (steps);
        v_again := array(
            with recursive after as (
                select v_loop.id as id
                union
                select e.child_id from after a join nofx.step_edge e on e.parent_id = a.id
            )
            select a.id from after a);
        continue when exists (
            select from nofx.step f where f.run_id = v_loop.run_id and f.status in ('failed', 'skipped') and f.id <> all (v_again));
        changes := changes || nofx.fact(v_loop.run_id, v_loop.id, 'step.repairing', jsonb_strip_nulls(jsonb_build_object(
                       'gate', v_loop.gate, 'gate_attempt', v_loop.gate_attempt, 'round', v_loop.repairs + 2,
                       'max_attempts', v_loop.repair -> 'max_attempts', 'error', v_loop.error,
                       'evidence_id', (select a.id from nofx.artifact a
                                        where a.step_id = v_loop.gate_id and a.attempt = v_loop.gate_attempt and a.type = 'gate_evidence'
                                        order by a.id limit 1))))
                || nofx.steps_reset(v_loop.run_id, v_loop.id, v_again, v_loop.paused_at, p_now);
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
                                         where a.step_id = v_loop.id and a.attempt = v_loop.attempt
                                         order by a.id limit 20) a))
         where s.id = v_loop.id;
        runs := runs || v_loop.run_id;
        steps := steps || v_again;
    end loop;
end
$$;

-- What a worker needs to read an artifact.
create or replace function nofx.artifact_ref(p nofx.artifact) returns jsonb
    language sql immutable
as $$
    select jsonb_build_object('id', p.id, 'uri', p.uri, 'hash', p.hash, 'size_bytes', p.size_bytes, 'media_type', p.media_type)
$$;

-- Makes p_root ready and the other steps of p_steps wait again. Attempts that run are fenced. Pending gates of the steps are cancelled; gates
-- of clients are asked again, because what they were about changes.
create or replace function nofx.steps_reset(p_run uuid, p_root uuid, p_steps uuid[], p_paused_at timestamptz, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates nofx.change[];
    v_asked nofx.change[];
    v_steps nofx.change[];
begin
    with ended as (
        update nofx.gate g
           set status = case when g.status = 'pending' then 'cancelled' else g.status end,
               decided_at = case when g.status = 'pending' then p_now else g.decided_at end,
               voided_at = case when g.status = 'pending' then g.voided_at else p_now end
         where g.run_id = p_run and g.step_id = any (p_steps)
           and (g.status = 'pending' or g.on_pass = 'release' and g.status in ('passed', 'waived') and g.voided_at is null)
        returning g.id, g.step_id, g.gate_type, g.status, g.bound_digest
    )
    select array_agg(case when e.status = 'cancelled'
                          then nofx.gate_change(p_run, e.step_id, 'gate.cancelled',
                                                jsonb_build_object('gate_id', e.id, 'gate_type', e.gate_type), -1)
                          else nofx.fact(p_run, e.step_id, 'gate.voided', jsonb_strip_nulls(jsonb_build_object(
                                   'gate_id', e.id, 'gate_type', e.gate_type, 'changed', '["upstream"]'::jsonb, 'digest', e.bound_digest)))
                     end order by e.id)
      into v_gates
      from ended e;

    with asked as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at, rule, bound, bound_digest)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass, g.generation, g.reason, g.evidence_uri,
               nofx.approval_expiry(g.tenant_id, extract(epoch from g.expires_at - g.created_at)::integer, p_now), p_now,
               nofx.approval_strictest(coalesce(g.rule, '{}'), nofx.approval_policy(g.tenant_id)), b.bound, nofx.binding_digest(b.bound)
          from nofx.gate g
         cross join lateral nofx.gate_binding(g) b(bound)
         where g.run_id = p_run and g.step_id = any (p_steps) and g.on_pass = 'release'
           and (g.voided_at = p_now or g.status = 'cancelled' and g.decided_at = p_now)
        returning id, step_id, gate_type, rule, bound_digest
    )
    select array_agg(nofx.gate_change(p_run, a.step_id, 'gate.created', nofx.gate_asked(a.id, a.gate_type, a.rule, a.bound_digest), 1) order by a.id)
      into v_asked
      from asked a;

    update nofx.attempt a
       set status = 'cancelled', finished_at = p_now
      from nofx.step s
     where s.id = any (p_steps) and s.status = 'running' and a.step_id = any (array[s.id]) and a.attempt = s.attempt;

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
    return v_gates || v_asked || v_steps;
end
$$;
revoke execute on function nofx.steps_repair(uuid[], timestamptz), nofx.artifact_ref(nofx.artifact),
    nofx.steps_reset(uuid, uuid, uuid[], timestamptz, timestamptz) from public;
