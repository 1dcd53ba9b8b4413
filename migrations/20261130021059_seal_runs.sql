-- Seals runs that have ended, and records which function made an artifact.

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';
-- Transitions lock a run before they touch it or its artifacts. So this waits for those in flight, and keeps new ones out until the commit.
lock table nofx.run in exclusive mode;

alter table nofx.artifact
    -- The function that made it, `@` and its version. Null for uploads, and for artifacts from before this column.
    add column builder       text,
    -- sha256 of the canonical JSON of the inputs of its step, with references resolved.
    add column inputs_sha256 text;

alter table nofx.run
    -- The last generation that has a seal.
    add column sealed_generation integer not null default 0,
    -- Until then a sweeper seals it, or has failed to. Null: nobody has tried, or it has its seal.
    add column seal_after        timestamptz,
    add column seal_tries        integer not null default 0;
-- Ended runs without a seal. Runs that ended before this release are among them.
create index run_unsealed on nofx.run (finished_at desc) where finished_at is not null and sealed_generation < generation;

-- Which columns a seal must have. Its text is that of functions/seals.sql.
create or replace function nofx.seal_is_sound(p_tenant_id text, p_generation integer, p_uri text, p_size_bytes bigint, p_events bigint)
    returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_generation >= 1 and p_uri <> '' and p_size_bytes > 0 and p_events >= 0;
end
$$;
revoke execute on function nofx.seal_is_sound(text, integer, text, bigint, bigint) from public;

-- A signed file with everything that a generation of a run left, and where it is.
create table nofx.seal (
    run_id     uuid not null references nofx.run on delete cascade,
    generation integer not null,
    tenant_id  text not null,
    -- sha256 of the file.
    digest     nofx.sha256 not null,
    -- The key that signed it: sha256 of the public key.
    keyid      nofx.sha256 not null,
    uri        text not null,
    size_bytes bigint not null,
    -- How many events it covers. Later ones are outside.
    events     bigint not null,
    created_at timestamptz not null,
    primary key (run_id, generation),
    constraint seal_is_sound check (nofx.seal_is_sound(tenant_id, generation, uri, size_bytes, events))
);

alter table nofx.seal enable row level security;
create policy tenant_isolation on nofx.seal for select to nofx_api using (tenant_id = (select nofx.tenant_id()));
grant select on nofx.seal to nofx_api;

create trigger records_are_kept before update or truncate on nofx.seal for each statement execute function nofx.records_are_kept();
create trigger records_go_with_their_run after delete on nofx.seal
    referencing old table as gone for each statement execute function nofx.records_go_with_their_run();
alter table nofx.seal enable always trigger records_are_kept;
alter table nofx.seal enable always trigger records_go_with_their_run;


-- Copies of the files in functions/. Change those files, not this one.

-- functions/limits.sql sha256=7beb87328ca23b16af78db1cd5d1882c8f559b081b2645e788a57720f5b8bbf1
-- Numbers and rules that several transitions share. Inlined like those of change.sql.

-- Workers that a step may lose in one generation before it fails as `worker_lost`.
create or replace function nofx.max_workers_lost() returns integer
    language sql immutable
as $$ select 3 $$;

-- Wake-ups that a ready step gets before it fails as `undeliverable`.
create or replace function nofx.max_wakeups() returns integer
    language sql immutable
as $$ select 20 $$;

-- Gates of clients that may wait in a run at once: as many as a plan may have steps.
create or replace function nofx.max_gates() returns integer
    language sql immutable
as $$ select 1000 $$;

-- The end of the lease of an attempt that starts now: its timeout or the rest of the invocation, whichever is shorter, plus 5 s in which the
-- worker records the end.
create or replace function nofx.lease_end(p_now timestamptz, p_timeout_s integer, p_invocation_s integer) returns timestamptz
    language sql stable
as $$ select p_now + make_interval(secs => least(p_timeout_s, p_invocation_s) + 5) $$;

-- When the sweeper owes a ready step a wake-up: one minute after the wake-up that its transition sends, never while its run is paused.
create or replace function nofx.wakeup_due(p_ready_at timestamptz, p_paused_at timestamptz) returns timestamptz
    language sql stable
as $$ select case when p_paused_at is null then p_ready_at + interval '1 minute' else 'infinity' end $$;

-- Whether a run is failing: one of its steps has failed, or the run itself. Nothing starts or waits in it any more.
create or replace function nofx.is_failing(p_steps_failed integer, p_failure jsonb) returns boolean
    language sql immutable
as $$ select p_steps_failed > 0 or p_failure is not null $$;

-- The type of the gate at which people approve a step of this tool.
create or replace function nofx.approval_type(p_tool text) returns text
    language sql immutable
as $$ select left('approval:' || p_tool, 100) $$;

-- Whether the run's state lets steps start.
create or replace function nofx.lets_start(p_run_status text) returns boolean
    language sql immutable
as $$ select p_run_status in ('queued', 'running', 'blocked') $$;

revoke execute on function nofx.max_workers_lost(), nofx.max_wakeups(), nofx.max_gates(), nofx.lease_end(timestamptz, integer, integer),
    nofx.wakeup_due(timestamptz, timestamptz), nofx.is_failing(integer, jsonb), nofx.approval_type(text), nofx.lets_start(text) from public;

-- functions/seals.sql sha256=d0df8c12ac0ca9c0f8bc7fac4ece9d5001aa3c4aa6807e67ce867bf6dc018279
-- Seals of runs that have ended. A seal is a signed file in storage, and a row that names it: one for each generation of a run. The sweeper reads
-- what a run left, signs it, stores the file, and records the row. Several sweepers may do so concurrently, and a crash in between loses nothing.

create or replace function nofx.seal_is_sound(p_tenant_id text, p_generation integer, p_uri text, p_size_bytes bigint, p_events bigint)
    returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_generation >= 1 and p_uri <> '' and p_size_bytes > 0 and p_events >= 0;
end
$$;

-- Takes at most p_limit ended runs whose generation has no seal, newest first. Each is the caller's for two minutes, and for twice as long with
-- every further try, up to six hours: a run that cannot be sealed does not keep others waiting. -> [{tenant_id, run_id}]
create or replace function nofx.seals_take(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_taken jsonb;
begin
    with free as (
        select r.id
          from nofx.run r
         where r.finished_at is not null and r.sealed_generation < r.generation and (r.seal_after is null or r.seal_after <= v_now)
         order by r.finished_at desc limit p_limit
           for no key update skip locked
    ), taken as (
        update nofx.run r
           set seal_after = v_now + least(interval '2 minutes' * 2 ^ least(r.seal_tries, 16), interval '6 hours'),
               seal_tries = r.seal_tries + 1
          from free f
         where r.id = any (array[f.id])
        returning r.id, r.tenant_id, r.finished_at
    )
    select jsonb_agg(jsonb_build_object('tenant_id', t.tenant_id, 'run_id', t.id) order by t.finished_at desc) into v_taken
      from taken t;
    return coalesce(v_taken, '[]');
end
$$;
select nofx.sweep_declare('nofx.seals_take(integer)');

-- A time in UTC, whatever the session's time zone is.
create or replace function nofx.seal_time(p_at timestamptz) returns text
    language sql immutable
    set search_path = ''
as $$
    select pg_catalog.to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
$$;

-- A value, or its size and the sha256 of its text if the text has more than p_inline bytes.
create or replace function nofx.seal_value(p_value jsonb, p_inline integer) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select case when pg_catalog.octet_length(p_value::text) <= p_inline then p_value
                else pg_catalog.jsonb_build_object('omitted', pg_catalog.jsonb_build_object(
                         'bytes', pg_catalog.octet_length(p_value::text),
                         'sha256', pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(p_value::text, 'UTF8')), 'hex'))) end
$$;

-- The artifacts of a run, those that they were made from, and those of its workspace: at most p_limit.
create or replace function nofx.seal_artifact_ids(p_run nofx.run, p_limit integer) returns uuid[]
    language sql stable
    set search_path = nofx, pg_temp
as $$
    with recursive made as (
        select a.id from nofx.artifact a where a.run_id = p_run.id and a.tenant_id = p_run.tenant_id
        union
        select (w.value ->> 'id')::uuid from jsonb_each(coalesce(p_run.workspace, '{}')) w
        union
        select e.parent_id from made m join nofx.artifact_edge e on e.child_id = m.id and e.tenant_id = p_run.tenant_id
    )
    select array(select m.id from made m limit p_limit)
$$;

-- What a seal covers, from one snapshot. p: {tenant_id, run_id, inline, rows, bytes}: values with more than `inline` bytes are replaced by
-- their digests; more rows of a kind, or more bytes in total, are too many.
-- -> {result: ended, content} | {result: too_large} | {result: open} (no such run, not ended, or its generation has a seal)
create or replace function nofx.seal_read(p jsonb) returns jsonb
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_inline constant integer := (p ->> 'inline')::integer;
    v_rows constant integer := (p ->> 'rows')::integer;
    v_artifacts uuid[];
    v_content jsonb;
begin
    select * into v_run from nofx.run r
     where r.id = (p ->> 'run_id')::uuid and r.tenant_id is not distinct from p ->> 'tenant_id'
       and r.finished_at is not null and r.sealed_generation < r.generation;
    if not found then
        return jsonb_build_object('result', 'open');
    end if;
    v_artifacts := nofx.seal_artifact_ids(v_run, v_rows + 1);
    if v_run.event_seq > v_rows or cardinality(v_artifacts) > v_rows
       or (select count(*) from (select from nofx.attempt a join nofx.step s on s.id = a.step_id
                                  where s.run_id = v_run.id limit v_rows + 1) a) > v_rows
       or (select count(*) from (select from nofx.gate g where g.run_id = v_run.id limit v_rows + 1) g) > v_rows then
        return jsonb_build_object('result', 'too_large');
    end if;
    v_content := jsonb_build_object(
        'run', jsonb_build_object(
            'id', v_run.id, 'tenant', v_run.tenant_id, 'generation', v_run.generation, 'status', v_run.status, 'goal', v_run.goal,
            'plan_digest', v_run.plan_digest, 'workspace', v_run.workspace, 'created_by', v_run.created_by, 'authors', v_run.authors,
            'failure', v_run.failure, 'events', v_run.event_seq, 'created_at', nofx.seal_time(v_run.created_at),
            'started_at', nofx.seal_time(v_run.started_at), 'cancelled_at', nofx.seal_time(v_run.cancelled_at),
            'finished_at', nofx.seal_time(v_run.finished_at)),
        'plan', v_run.plan,
        'steps', nofx.seal_steps(v_run.id), 'attempts', nofx.seal_attempts(v_run.id),
        'events', nofx.seal_events(v_run.id, v_inline), 'artifacts', nofx.seal_artifacts(v_run, v_artifacts, v_inline),
        'edges', (
            select coalesce(jsonb_agg(jsonb_build_object('from', e.parent_id, 'to', e.child_id) order by e.parent_id, e.child_id), '[]')
              from nofx.artifact_edge e
             where e.child_id = any (v_artifacts) and e.parent_id = any (v_artifacts) and e.tenant_id = v_run.tenant_id),
        'gates', nofx.seal_gates(v_run.id),
        'decisions', (
            select coalesce(jsonb_agg(jsonb_build_object(
                       'gate', a.gate_id, 'decision', a.decision, 'subject', a.subject, 'actor', a.actor, 'decides', a.decides,
                       'digest', a.bound_digest, 'at', nofx.seal_time(a.created_at), 'envelope', a.envelope) order by a.created_at, a.id), '[]')
              from nofx.approval a
             where a.run_id = v_run.id));
    if octet_length(v_content::text) > (p ->> 'bytes')::bigint then
        return jsonb_build_object('result', 'too_large');
    end if;
    return jsonb_build_object('result', 'ended', 'content', v_content);
end
$$;
select nofx.transition_declare('nofx.seal_read(jsonb)', 'nofx_worker');

-- The steps of a run in the order of the plan. Of outputs only the size and the sha256 of their text.
create or replace function nofx.seal_steps(p_run uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'id', s.id, 'name', s.name, 'tool', s.tool, 'handler', s.handler, 'status', s.status, 'attempt', s.attempt, 'refs', s.refs,
               'outputs', case when s.outputs is not null then nofx.seal_value(s.outputs, -1) -> 'omitted' end,
               'error', case when s.error is not null then jsonb_build_object('code', s.error -> 'code', 'message', s.error -> 'message') end,
               'started_at', nofx.seal_time(s.started_at), 'finished_at', nofx.seal_time(s.finished_at)) order by s.ordinal), '[]')
      from nofx.step s
     where s.run_id = p_run
$$;

create or replace function nofx.seal_attempts(p_run uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'step', s.name, 'attempt', a.attempt, 'status', a.status, 'error', a.error -> 'code',
               'started_at', nofx.seal_time(a.started_at), 'finished_at', nofx.seal_time(a.finished_at)) order by s.ordinal, a.attempt), '[]')
      from nofx.step s
      join nofx.attempt a on a.step_id = s.id
     where s.run_id = p_run
$$;

create or replace function nofx.seal_events(p_run uuid, p_inline integer) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'seq', e.seq, 'type', e.type, 'step', s.name, 'at', nofx.seal_time(e.timestamp),
               'payload', nofx.seal_value(e.payload, p_inline)) order by e.seq), '[]')
      from nofx.event e
      left join nofx.step s on s.id = e.step_id
     where e.run_id = p_run
$$;

-- Artifacts by id. `is_own`: the run made it. Who uploaded one is in `created_by`.
create or replace function nofx.seal_artifacts(p_run nofx.run, p_ids uuid[], p_inline integer) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'id', a.id, 'is_own', a.run_id is not distinct from p_run.id, 'run', a.run_id, 'step', s.name, 'attempt', a.attempt, 'name', a.name,
               'type', a.type, 'hash', a.hash, 'size_bytes', a.size_bytes, 'media_type', a.media_type, 'uri', a.uri,
               'metadata', nofx.seal_value(a.metadata, p_inline), 'builder', a.builder, 'inputs_sha256', a.inputs_sha256,
               'created_by', a.created_by, 'created_at', nofx.seal_time(a.created_at)) order by a.id), '[]')
      from nofx.artifact a
      left join nofx.step s on s.id = a.step_id
     where a.id = any (p_ids) and a.tenant_id = p_run.tenant_id
$$;

-- Gates in the form of `GET /gates/{id}`, without what depends on the time and on the reader.
create or replace function nofx.seal_gates(p_run uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'id', g.id, 'run_id', g.run_id, 'step_id', g.step_id, 'gate_type', g.gate_type, 'status', g.status, 'on_pass', g.on_pass,
               'generation', g.generation, 'subject', g.subject, 'reason', g.reason, 'approved_by', g.approved_by,
               'approved_at', nofx.seal_time(g.approved_at), 'expires_at', nofx.seal_time(g.expires_at),
               'created_at', nofx.seal_time(g.created_at), 'decided_at', nofx.seal_time(g.decided_at), 'voided_at', nofx.seal_time(g.voided_at),
               'digest', g.bound_digest,
               'covers', g.bound, 'rule', g.rule, 'required', g.rule -> 'required',
               'evidence_id', (select a.id from nofx.artifact a
                                where a.step_id = g.step_id and a.tenant_id = g.tenant_id and a.uri = g.evidence_uri
                                order by a.id limit 1)) order by g.created_at, g.id), '[]')
      from nofx.gate g
     where g.run_id = p_run
$$;

-- Records a seal that is signed and stored, under the lock of its run.
-- p: {tenant_id, run_id, generation, digest, keyid, uri, size_bytes, events}
-- -> {result: recorded} | {result: stale} (somebody else sealed this generation, or a retry began the next one; the file is not used then)
create or replace function nofx.seal_record(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
begin
    if v_run.finished_at is null or v_run.generation is distinct from (p ->> 'generation')::integer
       or v_run.sealed_generation >= v_run.generation then
        return jsonb_build_object('result', 'stale');
    end if;
    insert into nofx.seal (run_id, generation, tenant_id, digest, keyid, uri, size_bytes, events, created_at)
    values (v_run.id, v_run.generation, v_run.tenant_id, p ->> 'digest', p ->> 'keyid', p ->> 'uri', (p ->> 'size_bytes')::bigint,
            (p ->> 'events')::bigint, clock_timestamp());
    update nofx.run r set sealed_generation = r.generation, seal_after = null, seal_tries = 0 where r.id = v_run.id;
    return jsonb_build_object('result', 'recorded');
end
$$;
select nofx.transition_declare('nofx.seal_record(jsonb)', 'nofx_worker');
revoke execute on function nofx.seal_is_sound(text, integer, text, bigint, bigint), nofx.seal_time(timestamptz),
    nofx.seal_value(jsonb, integer), nofx.seal_artifact_ids(nofx.run, integer), nofx.seal_steps(uuid), nofx.seal_attempts(uuid),
    nofx.seal_events(uuid, integer), nofx.seal_artifacts(nofx.run, uuid[], integer), nofx.seal_gates(uuid) from public;

-- functions/step_facts_insert.sql sha256=0372c7584c6140ace6ed71a0bf312da51d7a81bbd742fc0e4d8816e7b8034c35
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
                                   media_type, metadata, builder, inputs_sha256, created_at)
        select a.id, i.tenant_id, i.run_id, i.step_id, i.attempt, a.name, a.type, a.uri, a.hash, a.size_bytes,
               a.media_type, coalesce(a.metadata, '{}'), i.builder, i.inputs_sha256, p_now
          from jsonb_to_recordset(v_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, builder text, inputs_sha256 text, artifacts jsonb)
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
                               evidence_uri, reason, expires_at, created_at, decided_at, rule, bound, bound_digest, remind_at)
        select g.id, i.tenant_id, i.run_id, i.step_id, g.gate_type, g.status, g.on_pass, r.generation, g.subject,
               g.evidence_uri, g.reason,
               case when g.status = 'pending' then nofx.approval_expiry(i.tenant_id, g.expires_after_s, p_now) end, p_now,
               case when g.status <> 'pending' then p_now end, a.rule, a.bound, nofx.binding_digest(a.bound), a.remind_at
          from jsonb_to_recordset(v_items) as i(tenant_id text, run_id uuid, step_id uuid, gates jsonb)
          join nofx.run r on r.id = i.run_id
         cross join jsonb_to_recordset(coalesce(i.gates, '[]'))
               as g(id uuid, gate_type text, status text, on_pass text, subject jsonb, evidence_uri text, reason text,
                    expires_after_s integer)
          left join lateral (
            -- What evidence decides needs no rule. Whether changed checks count, and for more money,
            -- the system asks, so the policy alone says who decides.
            select nofx.approval_strictest(q.asked, nofx.approval_policy(i.tenant_id)) as rule,
                   nofx.step_binding(q.id, g.subject, g.evidence_uri) as bound,
                   p_now + make_interval(secs => nofx.approval_seconds(q.asked -> 'remind_after_s')) as remind_at
              from (select s.id, case when g.gate_type in ('manual:gate-change', 'budget') then '{}' else nofx.approval_asked(s) end as asked
                      from nofx.step s where s.id = i.step_id) q
             where g.status = 'pending'
            offset 0) a on true
        returning run_id, step_id, id, gate_type, status, reason, subject, rule, bound_digest
    )
    select array_agg(nofx.fact(m.run_id, m.step_id,
                               case m.status when 'pending' then 'gate.created' else 'gate.' || m.status end,
                               nofx.gate_asked(m.id, m.gate_type, m.rule, m.bound_digest)
                               || case when m.reason is null then '{}' else jsonb_build_object('reason', m.reason) end
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
