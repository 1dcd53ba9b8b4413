-- Claim and finish: the two transitions around the work of a step.

-- Claims steps of a batch. p_items: [{tenant_id, run_id, step_id, lease_s}]; lease_s is what is left of the
-- invocation, null when unknown. Claimed are steps that are ready (1 s of skew tolerated), or whose attempt's lease is
-- over; never those of a paused or ended run, never across tenants. Returns {claimed: [..], skipped: [{step_id, status}]}.
create or replace function nofx.steps_claim(p_items jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_runs uuid[] := array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i);
    v_now timestamptz;
    v_dead uuid[];
    v_changes nofx.change[];
    v_started nofx.change[];
    v_claimed jsonb;
    v_won uuid[];
begin
    perform 1 from nofx.run r where r.id = any (v_runs) order by r.id for no key update;
    v_now := clock_timestamp();

    v_dead := array(
        select s.id
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid)
          join nofx.step s on s.id = i.step_id and s.run_id = i.run_id and s.tenant_id = i.tenant_id
          join nofx.run r on r.id = s.run_id
         where s.status = 'running' and s.lease_until < v_now and r.paused_at is null);
    if v_dead <> '{}' then
        v_changes := nofx.leases_end(v_dead, v_now);
        -- Settled now, so that what is claimed below starts from true counters.
        perform nofx.runs_settle(v_changes, v_now);
    end if;

    with item as (
        -- Whole keys: a forged message in the batch must not stand in for the true one.
        select distinct on (i.step_id, i.run_id, i.tenant_id) i.*
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer)
         order by i.step_id, i.run_id, i.tenant_id
    ), won as (
        update nofx.step s
           set status = 'running',
               attempt = s.attempt + 1,
               notify_at = null,
               started_at = coalesce(s.started_at, v_now),
               lease_until = v_now + make_interval(secs => least(s.timeout_s, greatest(i.lease_s, 0)) + 5)
          from item i, nofx.run r
         where s.id = i.step_id and s.run_id = i.run_id and s.tenant_id = i.tenant_id
           and r.id = i.run_id and r.tenant_id = i.tenant_id
           and s.status = 'ready' and s.ready_at <= v_now + interval '1 second'
           and r.status in ('queued', 'running', 'blocked')
        returning s.*, r.goal, r.workspace, r.traceparent,
                  (select jsonb_object_agg(u.name, u.outputs)
                     from nofx.step u
                    where u.run_id = s.run_id and u.name = any (s.refs)) as upstream
    ), tried as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, started_at)
        select w.id, w.attempt, w.tenant_id, w.run_id, 'running', v_now
          from won w
    )
    select array_agg(row(w.run_id, w.id, 'ready', 'running', 'step.started',
                         jsonb_build_object('attempt', w.attempt), 0)::nofx.change order by w.run_id, w.ordinal),
           jsonb_agg(jsonb_build_object(
               'tenant_id', w.tenant_id, 'run_id', w.run_id, 'step_id', w.id, 'name', w.name, 'tool', w.tool,
               'attempt', w.attempt, 'failures', w.failures, 'max_attempts', w.max_attempts,
               'backoff_ms', w.backoff_ms, 'timeout_s', w.timeout_s, 'inputs', w.inputs,
               'upstream', coalesce(w.upstream, '{}'), 'goal', w.goal, 'workspace', w.workspace,
               'traceparent', w.traceparent)),
           array_agg(w.id)
      into v_started, v_claimed, v_won
      from won w;
    perform nofx.runs_settle(v_started, v_now);

    return jsonb_build_object(
        'claimed', coalesce(v_claimed, '[]'),
        'skipped', coalesce((
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown')))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
             where i.step_id <> all (coalesce(v_won, '{}'))), '[]'));
end
$$;

-- Records the ends of attempts. p_items: [{tenant_id, run_id, step_id, attempt, to, outputs, error, delay_ms,
-- artifacts, gates, events}] where `to` is succeeded, failed, ready (a retry after delay_ms) or blocked. Fenced by
-- `running` and the attempt number: fenced out changes nothing ("stale"). The same finish again (its answer was lost)
-- is "repeated" and answers with the stored state and the wake-ups that are still owed.
-- Returns {items: [{step_id, result, status}], ready: [wake-ups]}.
create or replace function nofx.steps_finish(p_items jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_runs uuid[] := array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i);
    v_now timestamptz;
    v_done uuid[];
    v_succeeded uuid[];
    v_failed_runs uuid[];
    v_facts nofx.change[];
    v_changes nofx.change[];
    v_items jsonb;
    v_owed nofx.change[];
begin
    perform 1 from nofx.run r where r.id = any (v_runs) order by r.id for no key update;
    v_now := clock_timestamp();

    with item as (
        select distinct on (i.step_id) i.*, r.paused_at, r.steps_failed > 0 or r.failure is not null as failing
          from jsonb_to_recordset(p_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, "to" text, outputs jsonb, error jsonb,
                    delay_ms integer)
          join nofx.run r on r.id = i.run_id
         order by i.step_id
    ), decided as (
        -- Nothing starts again or waits in a run that is failing.
        select i.*, case when i.failing and i."to" = 'ready' then 'failed'
                         when i.failing and i."to" = 'blocked' then 'skipped'
                         else i."to" end as verdict,
               v_now + make_interval(secs => i.delay_ms / 1000.0) as retry_at
          from item i
    ), done as (
        update nofx.step s
           set status = d.verdict,
               outputs = case when d.verdict = 'succeeded' then d.outputs end,
               error = case when d.verdict in ('failed', 'ready') then d.error end,
               failures = s.failures + (d."to" in ('failed', 'ready'))::integer,
               lease_until = null,
               finished_at = case when d.verdict in ('succeeded', 'failed', 'skipped') then v_now end,
               ready_at = case when d.verdict = 'ready' then d.retry_at else s.ready_at end,
               notify_at = case when d.verdict = 'ready'
                                then case when d.paused_at is null then d.retry_at + interval '1 minute'
                                          else 'infinity' end end,
               notify_count = 0
          from decided d
         where s.id = d.step_id and s.run_id = d.run_id and s.tenant_id = d.tenant_id
           and s.status = 'running' and s.attempt = d.attempt
        returning s.run_id, s.id, s.ordinal, s.attempt, d.verdict, d."to" as told, d.error, d.delay_ms
    ), recorded as (
        update nofx.attempt a
           set status = case when d.told = 'ready' then 'failed' else d.told end,
               error = d.error,
               finished_at = v_now
          from done d
         where a.step_id = d.id and a.attempt = d.attempt
    )
    select array_agg(d.id),
           array_agg(d.id) filter (where d.verdict = 'succeeded'),
           array_agg(d.run_id) filter (where d.verdict in ('failed', 'skipped')),
           array_agg(row(d.run_id, d.id, 'running', d.verdict,
                         case d.verdict when 'ready' then 'step.retrying' else 'step.' || d.verdict end,
                         jsonb_strip_nulls(jsonb_build_object(
                             'attempt', d.attempt,
                             'error', case when d.verdict in ('failed', 'ready') then d.error end,
                             'delay_ms', case when d.verdict = 'ready' then d.delay_ms end)), 0)::nofx.change
                     order by d.run_id, d.ordinal)
      into v_done, v_succeeded, v_failed_runs, v_changes
      from done d;

    if v_done is not null then
        v_facts := nofx.step_facts_insert(p_items, v_done, v_now);
        v_changes := v_facts || v_changes;
        if v_succeeded is not null then
            v_changes := v_changes || nofx.children_release(v_succeeded, v_now);
        end if;
        if v_failed_runs is not null then
            v_changes := v_changes || nofx.steps_close(v_failed_runs, 'skipped', false, v_now);
        end if;
        perform nofx.runs_settle(v_changes, v_now);
    end if;

    select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown'), 'result',
               case when s.id = any (v_done) then 'finished'
                    when a.status in ('succeeded', 'failed', 'blocked')
                         and a.status = case i."to" when 'ready' then 'failed' else i."to" end then 'repeated'
                    else 'stale' end))
      into v_items
      from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, attempt integer, "to" text)
      left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
      left join nofx.attempt a on a.step_id = s.id and a.attempt = i.attempt;

    if cardinality(v_done) is distinct from jsonb_array_length(p_items) then
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
                         where a.status in ('succeeded', 'failed') and a.step_id <> all (coalesce(v_done, '{}')));
    end if;

    return jsonb_build_object('items', coalesce(v_items, '[]'), 'ready', nofx.wakeups(v_changes || v_owed, v_now));
end
$$;

-- Artifacts, gates and events that finished attempts leave behind. Returns their timeline facts.
create or replace function nofx.step_facts_insert(p_items jsonb, p_done uuid[], p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_artifacts nofx.change[];
    v_gates nofx.change[];
    v_events nofx.change[];
begin
    -- The ordinary step leaves nothing but its outputs: three statements saved.
    if not jsonb_path_exists(p_items, '$[*] ? (exists (@.artifacts[*]) || exists (@.gates[*]) || exists (@.events[*]))')
    then
        return null;
    end if;

    with made as (
        insert into nofx.artifact (id, tenant_id, run_id, step_id, attempt, name, type, uri, hash, size_bytes,
                                   media_type, metadata, created_at)
        select a.id, i.tenant_id, i.run_id, i.step_id, i.attempt, a.name, a.type, a.uri, a.hash, a.size_bytes,
               a.media_type, coalesce(a.metadata, '{}'), p_now
          from jsonb_to_recordset(p_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, artifacts jsonb)
         cross join jsonb_to_recordset(coalesce(i.artifacts, '[]'))
               as a(id uuid, name text, type text, uri text, hash text, size_bytes bigint, media_type text,
                    metadata jsonb)
         where i.step_id = any (p_done)
        returning run_id, step_id, id, name, type, hash
    )
    select array_agg(row(m.run_id, m.step_id, null, null, 'artifact.created',
                         jsonb_build_object('artifact_id', m.id, 'name', m.name, 'type', m.type, 'hash', m.hash),
                         0)::nofx.change order by m.id)
      into v_artifacts
      from made m;

    insert into nofx.artifact_edge (parent_id, child_id, tenant_id)
    select p.id, (a ->> 'id')::uuid, i.tenant_id
      from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, artifacts jsonb)
     cross join jsonb_array_elements(coalesce(i.artifacts, '[]')) a
     cross join jsonb_array_elements_text(coalesce(a -> 'made_from', '[]')) made_from
      join nofx.artifact p on p.id = made_from::uuid and p.tenant_id = i.tenant_id
     where i.step_id = any (p_done)
        on conflict do nothing;

    with made as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri,
                               reason, expires_at, created_at, decided_at)
        select g.id, i.tenant_id, i.run_id, i.step_id, g.gate_type, g.status, g.on_pass, r.generation, g.evidence_uri,
               g.reason, p_now + make_interval(secs => g.expires_after_s), p_now,
               case when g.status <> 'pending' then p_now end
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, gates jsonb)
          join nofx.run r on r.id = i.run_id
         cross join jsonb_to_recordset(coalesce(i.gates, '[]'))
               as g(id uuid, gate_type text, status text, on_pass text, evidence_uri text, reason text,
                    expires_after_s integer)
         where i.step_id = any (p_done)
        returning run_id, step_id, id, gate_type, status, reason
    )
    select array_agg(row(m.run_id, m.step_id, null, null,
                         case m.status when 'pending' then 'gate.created' else 'gate.' || m.status end,
                         jsonb_strip_nulls(jsonb_build_object('gate_id', m.id, 'gate_type', m.gate_type,
                                                              'reason', m.reason)), 0)::nofx.change order by m.id)
      into v_gates
      from made m;

    select array_agg(row(i.run_id, i.step_id, null, null, e.event ->> 'type', e.event -> 'payload', 0)::nofx.change
                     order by i.step_id, e.position)
      into v_events
      from jsonb_to_recordset(p_items) as i(run_id uuid, step_id uuid, events jsonb)
     cross join jsonb_array_elements(coalesce(i.events, '[]')) with ordinality as e(event, position)
     where i.step_id = any (p_done);

    return v_events || v_artifacts || v_gates;
end
$$;
