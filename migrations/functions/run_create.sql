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
    if v_workspace is not null or jsonb_array_length(coalesce(p -> 'artifacts', '[]')) > 0 then
        v_problems := nofx.artifacts_gone(v_tenant, (
            select jsonb_agg(n.named)
              from (select jsonb_build_object('path', 'plan.workspace.' || w.key, 'id', w.value -> 'id') from jsonb_each(v_workspace) w
                    union select jsonb_build_object('path', 'plan', 'id', i.id) from jsonb_array_elements(coalesce(p -> 'artifacts', '[]')) i(id)) n(named)));
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
    ), used as (
        insert into nofx.run_artifact (artifact_id, run_id, tenant_id)
        select a.id, m.id, v_tenant
          from made m
         cross join (select w.value ->> 'id' as id from jsonb_each(v_workspace) w
                     union select jsonb_array_elements_text(coalesce(p -> 'artifacts', '[]'))) named
          join nofx.artifact a on a.id = any (array[named.id::uuid])
         where a.tenant_id = v_tenant
            on conflict do nothing
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
