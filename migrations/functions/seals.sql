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
           -- The cost of a request in flight belongs into the seal. The sweeper settles it at the latest a minute after its time limit, and its
           -- worker, if the database was away, may know better for as long as an attempt of codegen lasts.
           and not exists (select from nofx.llm_call c
                            where c.run_id = r.id
                              and (c.state = 'open' or c.is_estimated and c.fault_kind = 'lost' and c.ended_at > v_now - interval '5 minutes'))
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

-- Artifacts by id. `is_own`: the run made it. Who uploaded one is in `created_by`. Only those whose bytes are deleted, or are about to be, have
-- `deleted_at`.
create or replace function nofx.seal_artifacts(p_run nofx.run, p_ids uuid[], p_inline integer) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'id', a.id, 'is_own', a.run_id is not distinct from p_run.id, 'run', a.run_id, 'step', s.name, 'attempt', a.attempt, 'name', a.name,
               'type', a.type, 'hash', a.hash, 'size_bytes', a.size_bytes, 'media_type', a.media_type, 'uri', a.uri,
               'metadata', nofx.seal_value(a.metadata, p_inline), 'builder', a.builder, 'inputs_sha256', a.inputs_sha256,
               'created_by', a.created_by, 'created_at', nofx.seal_time(a.created_at))
               || case when g.state in ('deleting', 'deleted') then jsonb_build_object('deleted_at', nofx.seal_time(g.since)) else '{}' end order by a.id), '[]')
      from nofx.artifact a
      left join nofx.step s on s.id = a.step_id
      left join nofx.artifact_storage g on g.artifact_id = a.id
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

-- Records a seal that is signed and stored, under the lock of its run, and writes its digest into the audit. So a row that somebody deletes to
-- let the run be sealed again leaves a trace.
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
    perform nofx.audit_append(v_run.tenant_id, 'runs.sealed', v_run.id::text, null, null, jsonb_build_object(
        'generation', v_run.generation, 'digest', p ->> 'digest', 'keyid', p ->> 'keyid', 'events', (p ->> 'events')::bigint));
    return jsonb_build_object('result', 'recorded');
end
$$;
select nofx.transition_declare('nofx.seal_record(jsonb)', 'nofx_worker');
revoke execute on function nofx.seal_is_sound(text, integer, text, bigint, bigint), nofx.seal_time(timestamptz),
    nofx.seal_value(jsonb, integer), nofx.seal_artifact_ids(nofx.run, integer), nofx.seal_steps(uuid), nofx.seal_attempts(uuid),
    nofx.seal_events(uuid, integer), nofx.seal_artifacts(nofx.run, uuid[], integer), nofx.seal_gates(uuid) from public;
