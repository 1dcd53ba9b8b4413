-- Keeps a policy for each tenant, and what a gate is about.

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';
-- Transitions lock a run before they touch a gate. So this waits for those in flight, and keeps new ones out until the commit.
lock table nofx.run in exclusive mode;

-- What is judged or decided, such as {tree, base, difference}: a decision counts only for it. Only handlers write it.
alter table nofx.gate add column subject jsonb;

-- Versions of a tenant's policy. The highest one is in force. They are added, and never change.
create table nofx.policy (
    tenant_id  text not null check (tenant_id <> ''),
    -- From 1, without gaps.
    version    integer not null check (version >= 1),
    -- A `domain::policy::Policy`, without what it leaves to the defaults.
    document   jsonb not null check (jsonb_typeof(document) = 'object'),
    changed_by text not null check (changed_by <> ''),
    reason     text,
    created_at timestamptz not null default clock_timestamp(),
    primary key (tenant_id, version)
);
alter table nofx.policy enable row level security;
create policy tenant_isolation on nofx.policy for select using (tenant_id = (select nofx.tenant_id()));
grant select on nofx.policy to nofx_api;

-- Copies of the files in functions/. Change those files, not this one.

-- functions/change.sql sha256=5560ab1750c6a9fbd2f137540edc742a95686a9871af8fbbc0784882450b4875
-- A transition collects what it did as nofx.change[]; nofx.runs_settle turns that into counters, states and events. These
-- constructors are plain SQL without settings of their own: the planner inlines them, so they cost nothing.

-- A step changes its state. With no event, the timeline does not show it.
create or replace function nofx.step_change(
    p_run_id uuid, p_step_id uuid, p_from text, p_to text, p_event text, p_payload jsonb default null
) returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, p_from, p_to, p_event, p_payload, 0)::nofx.change
$$;

-- An event that changes no state: of a step, or of the run (p_step_id null).
create or replace function nofx.fact(p_run_id uuid, p_step_id uuid, p_event text, p_payload jsonb default null)
    returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, null, null, p_event, p_payload, 0)::nofx.change
$$;

-- A gate becomes pending (p_pending 1) or is no longer pending (-1). Only gates of the run itself are counted in its row.
create or replace function nofx.gate_change(
    p_run_id uuid, p_step_id uuid, p_event text, p_payload jsonb, p_pending integer
) returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, null, null, p_event, p_payload,
               case when p_step_id is null then p_pending else 0 end)::nofx.change
$$;

-- The field of a gate's event that says what the gate is about. Nothing without a subject.
create or replace function nofx.subject_of(p_subject jsonb) returns jsonb
    language sql immutable
as $$
    select case when p_subject is null then '{}' else jsonb_build_object('subject', p_subject) end
$$;

-- The steps that became ready.
create or replace function nofx.made_ready(p_changes nofx.change[]) returns uuid[]
    language sql immutable
as $$
    select array(select c.step_id from unnest(p_changes) c where c.to_status = 'ready')
$$;
revoke execute on function nofx.step_change(uuid, uuid, text, text, text, jsonb), nofx.fact(uuid, uuid, text, jsonb),
    nofx.gate_change(uuid, uuid, text, jsonb, integer), nofx.subject_of(jsonb), nofx.made_ready(nofx.change[]) from public;

-- functions/children_release.sql sha256=a6551f7fd6e223fcc25b346d03dc4cb2e50dafcd1c549bf3ad98223f5125f653
-- Counts down the blockers of the children of steps that succeeded; the ones that reach zero become ready. The caller
-- holds the runs' locks: two parents that finish at once cannot lose the wake-up.
--
-- p_next: {call, handler, lease_s, timeout_s, refs_bytes, terms} of an invocation that can continue. As many children as p_parents has steps
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

-- functions/gate_json.sql sha256=2b54f0fae0a6ab9b69ee3046d7b43d27e428f3b6e908ceeecffdf148dd811224
-- A gate as the API shows it.
create or replace function nofx.gate_json(p_gate uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_build_object(
               'id', g.id, 'run_id', g.run_id, 'step_id', g.step_id, 'gate_type', g.gate_type, 'status', g.status,
               'on_pass', g.on_pass, 'generation', g.generation, 'subject', g.subject, 'evidence_uri', g.evidence_uri,
               'evidence_id', (select a.id from nofx.artifact a
                                where a.step_id = g.step_id and a.tenant_id = g.tenant_id and a.uri = g.evidence_uri
                                order by a.id limit 1),
               'reason', g.reason,
               'approved_by', g.approved_by, 'approved_at', g.approved_at, 'expires_at', g.expires_at,
               'created_at', g.created_at, 'decided_at', g.decided_at,
               'decision', (select jsonb_build_object('decision', a.decision, 'actor', a.actor, 'reason', a.reason,
                                                      'created_at', a.created_at)
                              from nofx.approval a where a.gate_id = g.id))
      from nofx.gate g
     where g.id = p_gate
$$;
revoke execute on function nofx.gate_json(uuid) from public;
grant execute on function nofx.gate_json(uuid) to nofx_api;

-- functions/gates_conclude.sql sha256=2f76fc9cb7397e9c43fe92036b9253f35ed2a8d5e22df110f207fab07de53767
-- Applies the ends of gates: a gate that passed lets its step or run continue, any other fails it. p_gates: gates that the caller has just
-- written as passed, waived, failed or expired. The caller holds the runs' locks.
create or replace function nofx.gates_conclude(p_gates uuid[], p_payload jsonb, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates nofx.change[];
    v_steps nofx.change[];
    v_finished uuid[];
    v_failed uuid[];
begin
    select array_agg(nofx.gate_change(g.run_id, g.step_id, 'gate.' || g.status,
                         jsonb_strip_nulls(jsonb_build_object('gate_id', g.id, 'gate_type', g.gate_type) || p_payload)
                         || nofx.subject_of(g.subject), -1)
                     order by g.id)
      into v_gates
      from nofx.gate g
     where g.id = any (p_gates);

    with verdict as (
        select s.id, s.status as was, s.ordinal, r.paused_at, g.reason,
               case when g.status in ('failed', 'expired') then 'failed'
                    when g.on_pass = 'finish' then 'succeeded'
                    when g.on_pass = 'resume' or s.blockers = 1 then 'ready'
                    else s.status end as verdict,
               case when g.on_pass = 'release' and g.status in ('passed', 'waived') then 1 else 0 end as released,
               case g.status
                    when 'expired' then jsonb_build_object('code', 'gate_expired', 'message',
                         format('nobody decided the gate %s in time', g.gate_type))
                    else jsonb_strip_nulls(jsonb_build_object('code', 'gate_rejected', 'message',
                         format('the gate %s was rejected', g.gate_type)
                         || coalesce(' by ' || (p_payload ->> 'actor'), '')
                         || coalesce(': ' || (p_payload ->> 'reason'), ''))) end as error,
               jsonb_strip_nulls(jsonb_build_object('gate_id', g.id, 'status', g.status) || p_payload) as outputs
          from nofx.gate g
          join nofx.step s on s.id = g.step_id
          join nofx.run r on r.id = s.run_id
         where g.id = any (p_gates) and s.status in ('pending', 'blocked')
    ), moved as (
        update nofx.step s
           set status = v.verdict,
               blockers = s.blockers - v.released,
               outputs = case when v.verdict = 'succeeded' then v.outputs end,
               error = case when v.verdict = 'failed' then v.error end,
               finished_at = case when v.verdict in ('succeeded', 'failed') then p_now end,
               ready_at = case when v.verdict = 'ready' then p_now else s.ready_at end,
               notify_at = case when v.verdict = 'ready' then nofx.wakeup_due(p_now, v.paused_at) end,
               notify_count = 0
          from verdict v
         where s.id = any (array[v.id])
        returning s.run_id, s.id, v.was, s.status, s.error, s.ordinal
    )
    select array_agg(nofx.step_change(m.run_id, m.id, m.was, m.status, 'step.' || m.status,
                                      jsonb_strip_nulls(jsonb_build_object('error', m.error))) order by m.ordinal)
               filter (where m.status <> m.was),
           array_agg(m.id) filter (where m.status = 'succeeded'),
           array_agg(m.run_id) filter (where m.status = 'failed')
      into v_steps, v_finished, v_failed
      from moved m;

    -- A gate of the run itself that did not pass fails the run.
    with failed as (
        update nofx.run r
           set failure = jsonb_build_object('code', case g.status when 'expired' then 'gate_expired'
                                                                  else 'gate_rejected' end,
                                            'message', format('the gate %s of the run %s', g.gate_type,
                                                case g.status when 'expired' then 'expired' else 'was rejected' end))
          from nofx.gate g
         where g.id = any (p_gates) and g.step_id is null and g.status in ('failed', 'expired') and r.id = g.run_id
        returning r.id
    )
    select coalesce(v_failed, '{}') || coalesce(array_agg(f.id), '{}') into v_failed from failed f;

    if v_finished is not null then
        v_steps := v_steps || nofx.children_release(v_finished, null, v_failed, p_now);
    end if;
    if v_failed <> '{}' then
        v_steps := v_steps || nofx.steps_close(v_failed, 'skipped', false, p_now);
    end if;
    return v_gates || v_steps;
end
$$;
revoke execute on function nofx.gates_conclude(uuid[], jsonb, timestamptz) from public;

-- functions/policy.sql sha256=cab5da97d340146eaa319bc0f14a1013ff1bede6971012a36d682e1440e621f0
-- The policy of a tenant: versions that are added and never changed.

-- Trigger: records every version as an event of the tenant, whoever adds it and in whatever way.
create or replace function nofx.policy_changed() returns trigger
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    insert into nofx.tenant_event (tenant_id, type, subject, actor, payload)
    values (new.tenant_id, 'policy.set', 'policy', new.changed_by,
            jsonb_build_object('version', new.version, 'document', new.document)
            || case when new.reason is null then '{}' else jsonb_build_object('reason', new.reason) end);
    return null;
end
$$;

-- Trigger: keeps versions as they were added. A version that is gone would put an earlier one in force, without an event.
create or replace function nofx.policy_is_kept() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    raise exception 'versions of a policy do not change; add the next one' using errcode = 'restrict_violation';
end
$$;

-- Adds the next version of a tenant's policy. p: {tenant_id, document, actor, reason, if_version}. With if_version the call is refused if another
-- version is current (0: if there is any). A document that is current already gets no version. So a repeated call, after a lost answer, changes
-- nothing; its if_version is that of the version before.
-- -> {result: set|unchanged|conflict, version}
create or replace function nofx.policy_set(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_document jsonb := jsonb_strip_nulls(p -> 'document');
    v_if integer := p ->> 'if_version';
    v_version integer;
    v_is_current boolean;
begin
    loop
        select q.version, q.document = v_document into v_version, v_is_current
          from nofx.policy q
         where q.tenant_id = p ->> 'tenant_id'
         order by q.version desc limit 1;
        v_version := coalesce(v_version, 0);
        if v_is_current and coalesce(v_if in (v_version, v_version - 1), true) then
            return jsonb_build_object('result', 'unchanged', 'version', v_version);
        end if;
        if v_if <> v_version then
            return jsonb_build_object('result', 'conflict', 'version', v_version);
        end if;
        -- Waits for a version that another transaction is adding, and then reads again.
        insert into nofx.policy (tenant_id, version, document, changed_by, reason)
        values (p ->> 'tenant_id', v_version + 1, v_document, p ->> 'actor', p ->> 'reason')
            on conflict do nothing;
        if found then
            return jsonb_build_object('result', 'set', 'version', v_version + 1);
        end if;
    end loop;
end
$$;
revoke execute on function nofx.policy_changed(), nofx.policy_is_kept(), nofx.policy_set(jsonb) from public;
grant execute on function nofx.policy_set(jsonb) to nofx_api;

-- functions/step_facts_insert.sql sha256=a5d473183d5c38e5951f1c690dbab59bd0f53222e533d6b137c8ff285e71350e
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
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, subject,
                               evidence_uri, reason, expires_at, created_at, decided_at)
        select g.id, i.tenant_id, i.run_id, i.step_id, g.gate_type, g.status, g.on_pass, r.generation, g.subject,
               g.evidence_uri, g.reason, p_now + make_interval(secs => g.expires_after_s), p_now,
               case when g.status <> 'pending' then p_now end
          from jsonb_to_recordset(v_items) as i(tenant_id text, run_id uuid, step_id uuid, gates jsonb)
          join nofx.run r on r.id = i.run_id
         cross join jsonb_to_recordset(coalesce(i.gates, '[]'))
               as g(id uuid, gate_type text, status text, on_pass text, subject jsonb, evidence_uri text, reason text,
                    expires_after_s integer)
        returning run_id, step_id, id, gate_type, status, reason, subject
    )
    select array_agg(nofx.fact(m.run_id, m.step_id,
                               case m.status when 'pending' then 'gate.created' else 'gate.' || m.status end,
                               jsonb_strip_nulls(jsonb_build_object('gate_id', m.id, 'gate_type', m.gate_type,
                                                                    'reason', m.reason))
                               || nofx.subject_of(m.subject))
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

-- functions/steps_claim.sql sha256=dcd2270070a5f6b01927b6248a41a30b1b46649e00ee2c7aac5f408aa9df9a9a
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

-- Claims steps of a batch. p_items: [{tenant_id, run_id, step_id, lease_s, refs_bytes, terms}]; lease_s is what is left of the invocation,
-- refs_bytes the largest size of the values that a step refers to, terms whether the worker needs the terms of its steps (those of the first item
-- count). A step can be claimed if it is ready, or if its attempt's lease is over; never in a
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
    v_terms boolean := p_items -> 0 ->> 'terms';
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
            'claimed', nofx.claims_json(array(select c.step_id from unnest(v_started) c), v_refs_bytes, v_terms), 'skipped', '[]'::jsonb);
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
        'claimed', nofx.claims_json(v_won, v_refs_bytes, v_terms),
        'skipped', coalesce((
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown')))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
             where i.step_id <> all (v_won)), '[]'));
end
$$;
select nofx.transition_declare('nofx.steps_claim(jsonb, uuid)', 'nofx_worker');
revoke execute on function nofx.steps_start(jsonb, uuid, timestamptz) from public;

-- functions/steps_claimed.sql sha256=b1fe1d5558337be6bc72e600ff94fc1b9caf9eb7d2d515f922b428dea9f87226
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

-- What binds a step that judges code: {policy: {version, document}, decisions: [{gate_id, gate_type, status, subject, decided_by, decided_at}]}.
-- `policy` is null if the tenant has none. `decisions` are the gates of the step that passed or were waived in this generation, the newest
-- 100, oldest first; `decided_by` is null if a handler decided.
create or replace function nofx.step_terms(p_tenant_id text, p_step uuid, p_generation integer) returns json
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    return json_build_object(
        'policy', (
            select json_build_object('version', p.version, 'document', p.document)
              from nofx.policy p
             where p.tenant_id = p_tenant_id
             order by p.version desc limit 1),
        'decisions', (
            select coalesce(json_agg(json_build_object(
                       'gate_id', d.id, 'gate_type', d.gate_type, 'status', d.status, 'subject', d.subject,
                       'decided_by', d.approved_by, 'decided_at', d.decided_at) order by d.decided_at, d.id), '[]')
              from (select g.id, g.gate_type, g.status, g.subject, g.approved_by, g.decided_at
                      from nofx.gate g
                     where g.step_id = p_step and g.generation = p_generation and g.status in ('passed', 'waived')
                     order by g.decided_at desc, g.id desc limit 100) d));
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

-- functions/steps_finish.sql sha256=3b59a23a879182d2e105dcb14154b07b203101867b4c51095792653d3fa09357
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
        'claimed', nofx.claims_json(v_started, (p_next ->> 'refs_bytes')::integer, (p_next ->> 'terms')::boolean),
        'ready', nofx.wakeups(v_ready, v_now));
end
$$;
select nofx.transition_declare('nofx.steps_finish(jsonb, jsonb)', 'nofx_worker');
revoke execute on function nofx.steps_record(jsonb, timestamptz), nofx.steps_repeat(jsonb, uuid[], uuid) from public;

create trigger policy_changed after insert on nofx.policy
    for each row execute function nofx.policy_changed();
create trigger policy_is_kept before update or delete on nofx.policy
    for each row execute function nofx.policy_is_kept();
