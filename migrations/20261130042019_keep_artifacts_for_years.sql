-- Archives, restores and deletes the bytes of artifacts, as the tenant's policy or a person wants it.

-- Which columns a row must have. Its text is that of functions/artifact_storage.sql.
create or replace function nofx.artifact_storage_is_sound(
    p_tenant_id text, p_state text, p_actor text, p_restored_until timestamptz, p_due_at timestamptz, p_restore_days integer, p_restore_tier text
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_actor <> '' and coalesce(p_restore_days between 1 and 365, true)
        and coalesce(p_restore_tier in ('expedited', 'standard', 'bulk'), true)
        and case p_state
            when 'archived' then p_restored_until is null
            when 'restored' then p_restored_until is not null and p_due_at is not null
            when 'deleted' then p_restored_until is null and p_due_at is null
            when 'archiving' then p_due_at is not null
            when 'restoring' then p_due_at is not null
            when 'deleting' then p_due_at is not null
            else false
        end;
end
$$;
-- What the trigger of this name does. Its text is that of functions/artifact_storage.sql.
create or replace function nofx.tombstones_are_kept() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    if old.state = 'deleted' and (tg_op = 'UPDATE' or exists (select from nofx.artifact a where a.id = old.artifact_id)) then
        raise exception 'the record of a deleted artifact is never changed' using errcode = 'restrict_violation';
    end if;
    return case when tg_op = 'UPDATE' then new else old end;
end
$$;
revoke execute on function nofx.artifact_storage_is_sound(text, text, text, timestamptz, timestamptz, integer, text), nofx.tombstones_are_kept() from public;

-- Where the bytes of an artifact are. An artifact without a row is hot.
create table nofx.artifact_storage (
    artifact_id    uuid primary key references nofx.artifact on delete cascade,
    tenant_id      text not null,
    state          text not null,
    since          timestamptz not null,
    -- Who wanted it: a name, or `policy`.
    actor          text not null,
    -- The principal. Null for the policy.
    decided_by     jsonb,
    reason         text,
    -- The end of a copy that can be read.
    restored_until timestamptz,
    -- The last restore that somebody asked for.
    restore_days         integer,
    restore_tier         text,
    restore_requested_at timestamptz,
    -- Its days, until the storage knows of it.
    asked_days     integer,
    -- When the sweeper looks at it. Null: when somebody wants something.
    due_at         timestamptz,
    tries          integer not null default 0,
    -- What is wrong, since the last time that the sweeper looked.
    problem        text,
    -- Counts what people and the policy wanted, so that a sweep records nothing about what is out of date.
    version        integer not null default 1,
    constraint artifact_storage_is_sound
        check (nofx.artifact_storage_is_sound(tenant_id, state, actor, restored_until, due_at, restore_days, restore_tier))
);
create index artifact_storage_due on nofx.artifact_storage (due_at) where due_at is not null;
alter table nofx.artifact_storage enable row level security;
create policy tenant_isolation on nofx.artifact_storage for select to nofx_api using (tenant_id = (select nofx.tenant_id()));
grant select on nofx.artifact_storage to nofx_api;
create trigger tombstones_are_kept before update or delete on nofx.artifact_storage for each row execute function nofx.tombstones_are_kept();
alter table nofx.artifact_storage enable always trigger tombstones_are_kept;

-- How far the sweeper is in looking through the artifacts of a tenant whose policy says how long they are kept.
create table nofx.artifact_pass (
    tenant_id      text primary key references nofx.tenant (tenant_id) on delete cascade,
    -- The version of the policy that the pass applies.
    policy_version integer not null,
    next_at        timestamptz not null,
    -- The last artifact that it has seen. Null: it starts with the oldest one.
    after_at       timestamptz,
    after_id       uuid
);
create index artifact_pass_next on nofx.artifact_pass (next_at);
alter table nofx.artifact_pass enable row level security;
create policy tenant_isolation on nofx.artifact_pass for select to nofx_api using (tenant_id = (select nofx.tenant_id()));
grant select on nofx.artifact_pass to nofx_api;


-- Copies of the files in functions/. Change those files, not this one.

-- functions/artifact_requests.sql sha256=af3b0ca06680a2d626daa9bd83918056960762d0f26533b564536f890203f712
-- What people want of the bytes of an artifact. Each call only records it; the sweeper does it.

-- Deletes the bytes of an artifact for a person. What is recorded about it stays. p: {caller, id, actor, reason}. Safe to repeat.
-- -> {result: deleted|unchanged, storage} | {result: in_use, runs: [..]} | {result: not_found}
create or replace function nofx.artifact_delete(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_artifact nofx.artifact;
    v_row nofx.artifact_storage;
    v_runs jsonb;
begin
    p := nofx.admitted(p, 'artifacts.delete');
    select * into v_artifact from nofx.artifact a where a.id = (p ->> 'id')::uuid and a.tenant_id = p ->> 'tenant_id';
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    select * into v_row from nofx.artifact_storage s where s.artifact_id = v_artifact.id for no key update;
    if v_row.state in ('deleting', 'deleted') then
        return jsonb_build_object('result', 'unchanged', 'storage', nofx.artifact_storage_json(v_row));
    end if;
    select jsonb_agg(distinct u.run_id) into v_runs from nofx.artifacts_in_use(v_artifact.tenant_id, array[v_artifact.id]) u;
    if v_runs is not null then
        return jsonb_build_object('result', 'in_use', 'runs', v_runs);
    end if;
    insert into nofx.artifact_storage as s (artifact_id, tenant_id, state, since, actor, decided_by, reason, due_at)
    values (v_artifact.id, v_artifact.tenant_id, 'deleting', v_now, p ->> 'actor', p -> 'by', p ->> 'reason', v_now + interval '1 minute')
        on conflict (artifact_id) do update
       set state = excluded.state, since = excluded.since, actor = excluded.actor, decided_by = excluded.decided_by, reason = excluded.reason,
           due_at = excluded.due_at, restored_until = null, asked_days = null, problem = null, tries = 0, version = s.version + 1
     where s.state not in ('deleting', 'deleted')
    returning * into v_row;
    if not found then
        -- Somebody else was faster.
        select * into v_row from nofx.artifact_storage s where s.artifact_id = v_artifact.id;
        return jsonb_build_object('result', 'unchanged', 'storage', nofx.artifact_storage_json(v_row));
    end if;
    perform nofx.audit_append(v_artifact.tenant_id, 'artifacts.deleted', v_artifact.id::text, null, null, jsonb_build_object(
        'name', left(v_artifact.name, 200), 'type', left(v_artifact.type, 200), 'hash', v_artifact.hash, 'size_bytes', v_artifact.size_bytes,
        'run_id', v_artifact.run_id, 'reason', left(p ->> 'reason', 2000)));
    return jsonb_build_object('result', 'deleted', 'storage', nofx.artifact_storage_json(v_row));
end
$$;

-- Asks for a copy of an archived artifact that can be read for some days. p: {caller, id, actor, days, tier}. Safe to repeat.
-- -> {result: asked|unchanged, storage} (null if it is hot) | {result: deleted, storage} | {result: not_found}
create or replace function nofx.artifact_restore(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_row nofx.artifact_storage;
    v_days integer := p ->> 'days';
begin
    p := nofx.admitted(p, 'artifacts.restore');
    if not exists (select from nofx.artifact a where a.id = (p ->> 'id')::uuid and a.tenant_id = p ->> 'tenant_id') then
        return jsonb_build_object('result', 'not_found');
    end if;
    select * into v_row from nofx.artifact_storage s where s.artifact_id = (p ->> 'id')::uuid for no key update;
    if v_row.state in ('deleting', 'deleted') then
        return jsonb_build_object('result', 'deleted', 'storage', nofx.artifact_storage_json(v_row));
    end if;
    if v_row.artifact_id is null or v_row.state = 'restoring'
       or v_row.state = 'restored' and v_row.restored_until >= v_now + make_interval(days => v_days) then
        return jsonb_build_object('result', 'unchanged', 'storage', nofx.artifact_storage_json(v_row));
    end if;
    update nofx.artifact_storage s
       set state = case s.state when 'restored' then 'restored' else 'restoring' end,
           since = case s.state when 'restored' then s.since else v_now end,
           actor = p ->> 'actor', decided_by = p -> 'by', reason = null, asked_days = v_days, restore_days = v_days, restore_tier = p ->> 'tier',
           restore_requested_at = v_now, due_at = v_now, problem = null, tries = 0, version = s.version + 1
     where s.artifact_id = v_row.artifact_id
    returning * into v_row;
    perform nofx.audit_append(v_row.tenant_id, 'artifacts.restore_asked', v_row.artifact_id::text, null, null,
                              jsonb_build_object('days', v_days, 'tier', p -> 'tier'));
    return jsonb_build_object('result', 'asked', 'storage', nofx.artifact_storage_json(v_row));
end
$$;
select nofx.transition_declare('nofx.artifact_delete(jsonb)', 'nofx_api');
select nofx.transition_declare('nofx.artifact_restore(jsonb)', 'nofx_api');

-- functions/artifact_storage.sql sha256=93889aeeecc433d6251f8d6b2f6d172b465dcde14b138cfd5c62dcfa87ae14c6
-- Where the bytes of artifacts are: archived, restored, deleted. An artifact without a row is hot, so a step pays nothing. People and the policy
-- say what is wanted; the sweeper asks the storage for it and records what it sees. Rows are written without the lock of a run: the artifact's
-- own row never changes, and what an open run uses is left alone. A row is locked first, then the tenant's limits, then the audit's head.

create or replace function nofx.artifact_storage_is_sound(
    p_tenant_id text, p_state text, p_actor text, p_restored_until timestamptz, p_due_at timestamptz, p_restore_days integer, p_restore_tier text
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_actor <> '' and coalesce(p_restore_days between 1 and 365, true)
        and coalesce(p_restore_tier in ('expedited', 'standard', 'bulk'), true)
        and case p_state
            when 'archived' then p_restored_until is null
            when 'restored' then p_restored_until is not null and p_due_at is not null
            when 'deleted' then p_restored_until is null and p_due_at is null
            when 'archiving' then p_due_at is not null
            when 'restoring' then p_due_at is not null
            when 'deleting' then p_due_at is not null
            else false
        end;
end
$$;

-- Trigger before update or delete of a row: a tombstone stays as it is, until its artifact is deleted together with its run.
create or replace function nofx.tombstones_are_kept() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    if old.state = 'deleted' and (tg_op = 'UPDATE' or exists (select from nofx.artifact a where a.id = old.artifact_id)) then
        raise exception 'the record of a deleted artifact is never changed' using errcode = 'restrict_violation';
    end if;
    return case when tg_op = 'UPDATE' then new else old end;
end
$$;

-- The part `artifacts` of a tenant's policy: {version, hot_days, keep_days, min_bytes}. Null if it has none, or one that this release cannot read:
-- then nothing is moved or deleted.
create or replace function nofx.artifact_terms(p_version integer, p_document jsonb) returns jsonb
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
declare
    v_terms jsonb := jsonb_strip_nulls(p_document -> 'artifacts');
begin
    if jsonb_typeof(v_terms) is distinct from 'object' or v_terms - array['hot_days', 'keep_days', 'archive_min_bytes'] <> '{}'
       or exists (select from jsonb_each(v_terms) t where jsonb_typeof(t.value) <> 'number' or t.value::text !~ '^[1-9][0-9]{0,12}$')
       or (v_terms ->> 'hot_days')::numeric > 36500 or (v_terms ->> 'keep_days')::numeric > 36500
       or (v_terms ->> 'keep_days')::numeric <= (v_terms ->> 'hot_days')::numeric then
        return null;
    end if;
    return jsonb_build_object('version', p_version, 'hot_days', v_terms -> 'hot_days', 'keep_days', v_terms -> 'keep_days',
                              'min_bytes', coalesce(v_terms -> 'archive_min_bytes', '131072'));
end
$$;

-- Which of these artifacts of a tenant a run uses that has not ended: it made them, or its plan or its workspace names them.
create or replace function nofx.artifacts_in_use(p_tenant_id text, p_ids uuid[]) returns table (artifact_id uuid, run_id uuid)
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select a.id, r.id
      from nofx.artifact a
      join nofx.run r on r.id = any (array[a.run_id])
     where a.id = any (p_ids) and a.tenant_id = p_tenant_id and r.finished_at is null
    union
    select named.id, named.run_id
      from (select distinct m[1]::uuid as id, r.id as run_id
              from nofx.run r
             cross join lateral regexp_matches(
                 lower(r.plan::text || coalesce(r.workspace::text, '')),
                 '([0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12})', 'g') m
             where r.tenant_id = p_tenant_id and r.finished_at is null and cardinality(p_ids) > 0) named
     where named.id = any (p_ids)
$$;

-- A row as the API shows it. The storage does not say how far a restore is, only that it goes on: `expected_by` is the longest time that it takes.
create or replace function nofx.artifact_storage_json(p nofx.artifact_storage) returns jsonb
    language sql stable
as $$
    select case when (p).artifact_id is null then null else jsonb_build_object(
        'state', (p).state, 'since', (p).since, 'restored_until', (p).restored_until,
        'restore', case when (p).state in ('restoring', 'restored') and (p).restore_requested_at is not null then jsonb_build_object(
            'days', (p).restore_days, 'tier', (p).restore_tier, 'requested_at', (p).restore_requested_at,
            'expected_by', (p).restore_requested_at + case (p).restore_tier when 'expedited' then interval '5 minutes'
                                                                           when 'bulk' then interval '12 hours' else interval '5 hours' end) end,
        'actor', (p).actor, 'reason', (p).reason, 'problem', (p).problem) end
$$;

-- Problems for artifacts of a plan whose bytes are deleted. p_named: [{path, id}]. Null if there are none.
create or replace function nofx.artifacts_gone(p_tenant_id text, p_named jsonb) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_agg(jsonb_build_object('path', n.path, 'message', format('the artifact %s was deleted on %s', n.id, to_char(s.since at time zone 'UTC', 'YYYY-MM-DD'))))
      from jsonb_to_recordset(p_named) n(path text, id uuid)
      join nofx.artifact_storage s on s.artifact_id = any (array[n.id])
     where s.tenant_id = p_tenant_id and s.state in ('deleting', 'deleted')
$$;

-- Records that artifacts are wanted in another state, and says to the audit what the policy did.
create or replace function nofx.artifacts_mark(p_tenant_id text, p_ids uuid[], p_state text, p_version integer, p_now timestamptz) returns integer
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_marked uuid[];
    v_bytes numeric;
begin
    with marked as (
        insert into nofx.artifact_storage as s (artifact_id, tenant_id, state, since, actor, reason, due_at)
        select i.id, p_tenant_id, p_state, p_now, 'policy', format('version %s of the policy', p_version),
               -- So that a run which names it, and is created at this moment, is seen before anything is deleted.
               p_now + case p_state when 'deleting' then interval '1 minute' else interval '0' end
          from unnest(p_ids) i(id)
         order by i.id
            on conflict (artifact_id) do update
           set state = excluded.state, since = excluded.since, actor = excluded.actor, reason = excluded.reason, due_at = excluded.due_at,
               restored_until = null, asked_days = null, problem = null, tries = 0, version = s.version + 1
         where excluded.state = 'deleting' and s.state not in ('deleting', 'deleted')
        returning s.artifact_id
    )
    select array_agg(m.artifact_id order by m.artifact_id), sum(a.size_bytes) into v_marked, v_bytes
      from marked m
      join nofx.artifact a on a.id = any (array[m.artifact_id]);
    if v_marked is not null then
        perform nofx.audit_append(p_tenant_id, case p_state when 'deleting' then 'artifacts.deleted' else 'artifacts.archived' end, 'artifacts', null, null,
            jsonb_build_object('policy_version', p_version, 'artifacts', cardinality(v_marked), 'bytes', v_bytes, 'ids', to_jsonb(v_marked)));
    end if;
    return coalesce(cardinality(v_marked), 0);
end
$$;

-- Looks at the next p.limit artifacts of the tenant whose turn it is, and marks those that its policy wants archived or deleted. Only artifacts of
-- runs that are sealed, and uploads, and nothing that an open run uses. p: {limit, can_archive}. A tenant's turn comes every hour, and after each
-- change of its policy. -> {result: none} | {result: planned, tenant_id, archived, deleted}
create or replace function nofx.artifacts_plan(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_turn record;
    v_terms jsonb;
    v_hot timestamptz;
    v_keep timestamptz;
    v_last_at timestamptz;
    v_last_id uuid;
    v_archive uuid[];
    v_delete uuid[];
    v_used uuid[];
begin
    insert into nofx.artifact_pass (tenant_id, policy_version, next_at)
    select t.tenant_id, 0, v_now
      from nofx.tenant t
     where exists (select from nofx.policy q where q.tenant_id = t.tenant_id and q.document ? 'artifacts')
       and not exists (select from nofx.artifact_pass s where s.tenant_id = t.tenant_id)
        on conflict do nothing;
    select s.tenant_id, s.after_at, s.after_id, s.policy_version, q.version, q.document into v_turn
      from nofx.artifact_pass s
     cross join lateral (select c.version, c.document from nofx.policy c
                          where c.tenant_id = s.tenant_id order by c.version desc limit 1) q
     where s.next_at <= v_now or s.policy_version <> q.version
     order by s.next_at, s.tenant_id limit 1
       for no key update of s skip locked;
    if not found then
        return jsonb_build_object('result', 'none');
    end if;
    if v_turn.policy_version <> v_turn.version then
        v_turn.after_at := null;
        v_turn.after_id := null;
    end if;
    v_terms := nofx.artifact_terms(v_turn.version, v_turn.document);
    v_hot := case when (p ->> 'can_archive')::boolean then v_now - make_interval(days => (v_terms ->> 'hot_days')::integer) end;
    v_keep := v_now - make_interval(days => (v_terms ->> 'keep_days')::integer);

    with seen as materialized (
        select a.id, a.created_at, a.run_id, a.size_bytes
          from nofx.artifact a
         where a.tenant_id = v_turn.tenant_id and a.created_at < greatest(v_hot, v_keep)
           and a.created_at >= coalesce(v_turn.after_at, '-infinity')
           and (v_turn.after_at is null or (a.created_at, a.id) > (v_turn.after_at, v_turn.after_id))
         order by a.created_at, a.id limit (p ->> 'limit')::integer
    ), wanted as (
        select e.*, s.state,
               coalesce(e.run_id is null or exists (select from nofx.run r where r.id = any (array[e.run_id]) and r.finished_at is not null
                                                       and r.sealed_generation >= r.generation), false) as is_free
          from seen e
          left join nofx.artifact_storage s on s.artifact_id = any (array[e.id])
    )
    select case when count(*) = (p ->> 'limit')::integer then max(w.created_at) end,
           case when count(*) = (p ->> 'limit')::integer then (array_agg(w.id order by w.created_at desc, w.id desc))[1] end,
           array_agg(w.id) filter (where w.is_free and w.created_at < v_keep and coalesce(w.state not in ('deleting', 'deleted'), true)),
           array_agg(w.id) filter (where w.is_free and w.created_at < v_hot and coalesce(w.created_at >= v_keep, true) and w.state is null
                                     and w.size_bytes >= (v_terms ->> 'min_bytes')::bigint)
      into v_last_at, v_last_id, v_delete, v_archive
      from wanted w;
    v_used := array(select u.artifact_id from nofx.artifacts_in_use(v_turn.tenant_id, coalesce(v_delete, '{}') || coalesce(v_archive, '{}')) u);
    v_delete := array(select d from unnest(v_delete) d where d <> all (v_used));
    v_archive := array(select d from unnest(v_archive) d where d <> all (v_used));
    -- A full window means that more may follow. Otherwise the next turn starts at the oldest artifact again.
    update nofx.artifact_pass s
       set policy_version = v_turn.version, after_at = v_last_at, after_id = v_last_id,
           next_at = clock_timestamp() + case when v_last_id is null then interval '1 hour' else interval '0' end
     where s.tenant_id = v_turn.tenant_id;
    return jsonb_build_object(
        'result', 'planned', 'tenant_id', v_turn.tenant_id,
        'archived', nofx.artifacts_mark(v_turn.tenant_id, v_archive, 'archiving', v_turn.version, v_now),
        'deleted', nofx.artifacts_mark(v_turn.tenant_id, v_delete, 'deleting', v_turn.version, v_now));
end
$$;

-- Takes at most p_limit rows at which the sweeper has to look now. Each is the caller's for two minutes, and for twice as long with every further
-- try, up to six hours. What is to be deleted waits while an open run uses it.
-- -> [{tenant_id, artifact_id, uri, version, state, since_s, asked_days, tier, restored_until_s, is_shared}]. `is_shared`: another artifact has the
-- same object and keeps it.
create or replace function nofx.artifacts_take(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_ids uuid[];
    v_kin jsonb;
    v_used uuid[];
    v_taken jsonb;
begin
    select array_agg(d.artifact_id) into v_ids
      from (select s.artifact_id from nofx.artifact_storage s
             where s.due_at <= v_now
             order by s.due_at limit p_limit
               for no key update skip locked) d;
    if v_ids is null then
        return '[]';
    end if;
    -- Artifacts with the same object: those of the same step, and those that were made from it or that it was made from.
    select jsonb_object_agg(k.id, k.others) into v_kin
      from (select a.id, jsonb_agg(distinct b.id) as others
              from nofx.artifact_storage s
              join nofx.artifact a on a.id = any (array[s.artifact_id])
              join nofx.artifact b on b.id = any (array(select o.id from nofx.artifact o where o.step_id = a.step_id
                                                         union select e.child_id from nofx.artifact_edge e where e.parent_id = a.id
                                                         union select e.parent_id from nofx.artifact_edge e where e.child_id = a.id))
             where s.artifact_id = any (v_ids) and s.state = 'deleting' and b.uri = a.uri and b.id <> a.id
             group by a.id) k;
    select array_agg(distinct u.artifact_id) into v_used
      from (select s.tenant_id, array_agg(s.artifact_id) as ids from nofx.artifact_storage s
             where s.artifact_id = any (v_ids) and s.state = 'deleting'
             group by s.tenant_id) t
     cross join lateral nofx.artifacts_in_use(t.tenant_id, t.ids || array(
         select o::uuid from jsonb_each(v_kin) k cross join lateral jsonb_array_elements_text(k.value) o where k.key::uuid = any (t.ids))) u;
    v_used := coalesce(v_used, '{}');
    with taken as (
        update nofx.artifact_storage s
           set due_at = v_now + case when s.state = 'deleting' and s.artifact_id = any (v_used) then interval '5 minutes'
                                     else least(interval '2 minutes' * 2 ^ least(s.tries, 16), interval '6 hours') end,
               tries = case when s.state = 'deleting' and s.artifact_id = any (v_used) then 0 else s.tries + 1 end
         where s.artifact_id = any (v_ids)
        returning s.*
    )
    select jsonb_agg(jsonb_build_object(
               'tenant_id', t.tenant_id, 'artifact_id', t.artifact_id, 'uri', a.uri, 'version', t.version, 'state', t.state,
               'since_s', extract(epoch from t.since)::bigint, 'asked_days', t.asked_days, 'tier', t.restore_tier,
               'restored_until_s', extract(epoch from t.restored_until)::bigint,
               'is_shared', exists (
                   select from jsonb_array_elements_text(v_kin -> t.artifact_id::text) o
                    where o::uuid = any (v_used)
                       or not exists (select from nofx.artifact_storage k where k.artifact_id = any (array[o::uuid]) and k.state in ('deleting', 'deleted')))))
      into v_taken
      from taken t
      join nofx.artifact a on a.id = any (array[t.artifact_id])
     where not (t.state = 'deleting' and t.artifact_id = any (v_used));
    return coalesce(v_taken, '[]');
end
$$;

-- Records what the sweeper saw, unless somebody wants something else since. p: {tenant_id, artifact_id, version, state, restored_until_s, again_s,
-- problem}, or with `failed` that nothing is known. -> {result: recorded|stale}
create or replace function nofx.artifact_record(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_row nofx.artifact_storage;
begin
    select * into v_row from nofx.artifact_storage s
     where s.artifact_id = (p ->> 'artifact_id')::uuid and s.tenant_id = p ->> 'tenant_id' and s.version = (p ->> 'version')::integer
       and s.state <> 'deleted'
       for no key update;
    if not found then
        return jsonb_build_object('result', 'stale');
    end if;
    if p ? 'failed' then
        update nofx.artifact_storage s set problem = p ->> 'failed' where s.artifact_id = v_row.artifact_id;
        return jsonb_build_object('result', 'recorded');
    end if;
    update nofx.artifact_storage s
       set state = p ->> 'state', since = case when s.state = p ->> 'state' then s.since else v_now end,
           restored_until = to_timestamp((p ->> 'restored_until_s')::bigint), asked_days = null, tries = 0, problem = p ->> 'problem',
           due_at = v_now + make_interval(secs => (p ->> 'again_s')::integer)
     where s.artifact_id = v_row.artifact_id;
    if p ->> 'state' = 'deleted' then
        -- The tenant's limit of stored bytes does not count them any more.
        perform nofx.limits_lock(v_row.tenant_id);
        update nofx.stored_bytes b
           set bytes = greatest(0, b.bytes - a.size_bytes)
          from nofx.artifact a
         where b.tenant_id = v_row.tenant_id and a.id = v_row.artifact_id and a.created_at < b.counted_to;
    end if;
    return jsonb_build_object('result', 'recorded');
end
$$;

revoke execute on function nofx.artifact_storage_is_sound(text, text, text, timestamptz, timestamptz, integer, text), nofx.tombstones_are_kept(),
    nofx.artifact_terms(integer, jsonb), nofx.artifacts_in_use(text, uuid[]), nofx.artifact_storage_json(nofx.artifact_storage),
    nofx.artifacts_gone(text, jsonb), nofx.artifacts_mark(text, uuid[], text, integer, timestamptz) from public;
grant execute on function nofx.artifact_storage_json(nofx.artifact_storage) to nofx_api;
select nofx.sweep_declare('nofx.artifacts_plan(jsonb)');
select nofx.sweep_declare('nofx.artifacts_take(integer)');
select nofx.transition_declare('nofx.artifact_record(jsonb)', 'nofx_worker');

-- functions/artifacts_find.sql sha256=05b78c5858f1cca873273a0fca9076ba9dea458cda6cc7fbf467cfce60fb5ac8
-- Finds artifacts of a tenant for a worker, which may not read tables. p: {tenant_id, ids: [..]}
-- -> [{id, uri, hash, size_bytes, media_type, storage}], without ids that the tenant does not have.
create or replace function nofx.artifacts_find(p jsonb) returns jsonb
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'uri', a.uri, 'hash', a.hash,
                                                 'size_bytes', a.size_bytes, 'media_type', a.media_type,
                                                 'storage', coalesce(s.state, 'hot'))), '[]')
      from nofx.artifact a
      left join nofx.artifact_storage s on s.artifact_id = any (array[a.id])
     where a.tenant_id = p ->> 'tenant_id'
       and a.id = any (array(select jsonb_array_elements_text(p -> 'ids')::uuid))
$$;
select nofx.transition_declare('nofx.artifacts_find(jsonb)', 'nofx_worker');

-- functions/permissions.sql sha256=b260175798589003fa47c7c4b780fa2cc77547e4b2ee70f20b1266111816dabe
-- Who may do what. A caller needs at least the role of a permission, and one of its kinds. This is the only table of permissions. Routes name a
-- permission, and docs/security.md lists the table for people.
-- Every request asks. So the functions in SQL set no search path, which lets Postgres inline them, and a session plans nofx.permits once.

-- Each permission with the least role and the kinds of principals that may have it. Agents never decide gates, and never change a policy,
-- rules, members or tokens, whatever their role is.
create or replace function nofx.permission_list()
    returns table (permission text, role text, kinds text[])
    language sql immutable
as $$
    values
        ('account.read',      'viewer',   array['person', 'agent', 'service']),
        ('runs.read',         'viewer',   array['person', 'agent', 'service']),
        ('artifacts.read',    'viewer',   array['person', 'agent', 'service']),
        ('plans.check',       'viewer',   array['person', 'agent', 'service']),
        ('policy.read',       'viewer',   array['person', 'agent', 'service']),
        ('rules.read',        'viewer',   array['person', 'agent', 'service']),
        ('usage.read',        'viewer',   array['person', 'agent', 'service']),
        ('sessions.create',   'viewer',   array['person']),
        ('runs.create',       'operator', array['person', 'agent', 'service']),
        ('runs.control',      'operator', array['person', 'agent', 'service']),
        ('workspaces.create', 'operator', array['person', 'agent', 'service']),
        ('gates.create',      'operator', array['person', 'agent', 'service']),
        ('gates.link',        'operator', array['person', 'service']),
        ('queues.read',       'operator', array['person', 'service']),
        ('queues.redrive',    'operator', array['person', 'service']),
        ('artifacts.restore', 'operator', array['person', 'agent', 'service']),
        ('gates.decide',      'approver', array['person']),
        ('gates.waive',       'admin',    array['person']),
        ('policy.write',      'admin',    array['person', 'service']),
        ('rules.write',       'admin',    array['person', 'service']),
        ('artifacts.delete',  'admin',    array['person', 'service']),
        ('members.read',      'admin',    array['person', 'service']),
        ('tokens.read',       'admin',    array['person', 'service']),
        ('audit.read',        'admin',    array['person', 'service']),
        ('members.write',     'admin',    array['person']),
        ('tokens.write',      'admin',    array['person'])
$$;

-- 1 viewer, 2 operator, 3 approver, 4 admin. Null for anything else, and then nothing is permitted.
create or replace function nofx.role_rank(p_role text) returns integer
    language sql immutable
as $$
    select array_position(array['viewer', 'operator', 'approver', 'admin'], p_role)
$$;

-- Whether a principal of this role and kind has the permission. False for unknown words and for null.
create or replace function nofx.permits(p_permission text, p_role text, p_kind text) returns boolean
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
begin
    return coalesce((select nofx.role_rank(p_role) >= nofx.role_rank(l.role) and p_kind = any (l.kinds)
                       from nofx.permission_list() l
                      where l.permission = p_permission), false);
end
$$;
-- Whether a permission is about members, tokens and sessions.
create or replace function nofx.is_of_access(p_permission text) returns boolean
    language sql immutable
as $$
    select split_part(p_permission, '.', 1) in ('members', 'tokens', 'sessions')
$$;
revoke execute on function nofx.permission_list(), nofx.role_rank(text), nofx.permits(text, text, text), nofx.is_of_access(text) from public;

-- functions/run_create.sql sha256=95afcf1db32e1e70a079ea25a1fa171bab0125a28c5bc4049cf0d13b08e2d059
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

-- functions/run_retry.sql sha256=0d20f90ebd6efa56d0a69caedf1a97c2dbee8a4419860e7af1e655bab1143de4
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
    v_policy jsonb;
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

-- functions/seals.sql sha256=10fb5d5cde4e75bfde6e658ff01c08961c8fcd6e1a3f6ac243b3cde5142c334d
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

-- Artifacts by id. `is_own`: the run made it. Who uploaded one is in `created_by`. Only those whose bytes are deleted have `deleted_at`.
create or replace function nofx.seal_artifacts(p_run nofx.run, p_ids uuid[], p_inline integer) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'id', a.id, 'is_own', a.run_id is not distinct from p_run.id, 'run', a.run_id, 'step', s.name, 'attempt', a.attempt, 'name', a.name,
               'type', a.type, 'hash', a.hash, 'size_bytes', a.size_bytes, 'media_type', a.media_type, 'uri', a.uri,
               'metadata', nofx.seal_value(a.metadata, p_inline), 'builder', a.builder, 'inputs_sha256', a.inputs_sha256,
               'created_by', a.created_by, 'created_at', nofx.seal_time(a.created_at))
               || case when g.state = 'deleted' then jsonb_build_object('deleted_at', nofx.seal_time(g.since)) else '{}' end order by a.id), '[]')
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

-- functions/tenant_limits.sql sha256=ac92fb3a0e05fdbe946ad35c741163a94ebb8a99ceda633f70433e14f461adfe
-- Limits of a tenant. A limit that is not set costs no query.

-- Whether a document of limits is valid: an object of known names with whole numbers.
create or replace function nofx.limits_are_sound(p jsonb) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select jsonb_typeof(p) = 'object'
       and p - array['open_runs', 'queued_steps', 'stored_bytes', 'requests_per_minute'] = '{}'
       and not exists (select from jsonb_each(p) l
                        where jsonb_typeof(l.value) <> 'number' or l.value #>> '{}' !~ '^[0-9]{1,15}$'
                           or l.key = 'requests_per_minute' and not (l.value #>> '{}')::bigint between 1 and 100000)
$$;

-- Raises NF429 for a request that would exceed a limit. If waiting helps, p_retry_after_s says how long.
create or replace function nofx.limit_refuse(p_limit text, p_retry_after_s integer) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    raise exception 'limit' using errcode = 'NF429',
        detail = jsonb_strip_nulls(jsonb_build_object('limit', p_limit, 'retry_after_s', p_retry_after_s))::text;
end
$$;

-- Allows one call at a time for each tenant, until the transaction ends, so that the counts stay correct.
create or replace function nofx.limits_lock(p_tenant_id text) returns void
    language sql
    set search_path = ''
as $$
    select pg_advisory_xact_lock(hashtextextended('nofx.limits.' || p_tenant_id, 0))
$$;

-- The recorded bytes of a tenant's artifacts that are not deleted. Those of artifacts that are older than an hour are counted once and stored, because no transaction adds
-- artifacts of that age.
create or replace function nofx.tenant_bytes(p_tenant_id text) returns bigint
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_known nofx.stored_bytes;
    v_to timestamptz := date_trunc('hour', now()) - interval '1 hour';
    v_bytes bigint;
begin
    select * into v_known from nofx.stored_bytes b where b.tenant_id = p_tenant_id;
    if v_known.counted_to is null or v_known.counted_to < v_to then
        select coalesce(v_known.bytes, 0) + coalesce(sum(a.size_bytes), 0) into v_bytes
          from nofx.artifact a
         where a.tenant_id = p_tenant_id and a.created_at >= coalesce(v_known.counted_to, '-infinity') and a.created_at < v_to
           and not exists (select from nofx.artifact_storage s where s.artifact_id = any (array[a.id]) and s.state = 'deleted');
        insert into nofx.stored_bytes (tenant_id, counted_to, bytes) values (p_tenant_id, v_to, v_bytes)
            on conflict (tenant_id) do update set counted_to = excluded.counted_to, bytes = excluded.bytes
         where stored_bytes.counted_to < excluded.counted_to;
        v_known.counted_to := v_to;
        v_known.bytes := v_bytes;
    end if;
    return v_known.bytes + coalesce((select sum(a.size_bytes) from nofx.artifact a
                                      where a.tenant_id = p_tenant_id and a.created_at >= v_known.counted_to
                                        and not exists (select from nofx.artifact_storage s where s.artifact_id = any (array[a.id]) and s.state = 'deleted')), 0);
end
$$;

-- Trigger after delete of runs: their artifacts are deleted too, so the bytes are counted again.
create or replace function nofx.stored_bytes_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.stored_bytes b using (select distinct g.tenant_id from gone g) g where b.tenant_id = g.tenant_id;
    return null;
end
$$;

-- The runs of a tenant that have not ended, and their steps that wait or run.
create or replace function nofx.open_work(p_tenant_id text) returns table (runs bigint, steps bigint)
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select count(*), coalesce(sum(r.steps_pending + r.steps_ready + r.steps_running + r.steps_blocked), 0)
      from nofx.run r
     where r.tenant_id = p_tenant_id and r.finished_at is null
$$;

-- Refuses one more run with this number of steps if it would exceed a limit of the tenant. The limits of runs and steps are exact, because calls
-- of a tenant that has one wait for each other.
create or replace function nofx.limits_admit_run(p_tenant_id text, p_steps integer) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_limits jsonb := (select t.limits from nofx.tenant t where t.tenant_id = p_tenant_id);
    v_open record;
begin
    if v_limits = '{}' then
        return;
    end if;
    if v_limits ?| array['open_runs', 'queued_steps'] then
        perform nofx.limits_lock(p_tenant_id);
        select * into v_open from nofx.open_work(p_tenant_id);
        if v_open.runs + 1 > (v_limits ->> 'open_runs')::bigint then
            perform nofx.limit_refuse('open_runs', 30);
        elsif v_open.steps + p_steps > (v_limits ->> 'queued_steps')::bigint then
            perform nofx.limit_refuse('queued_steps', 30);
        end if;
    end if;
    if v_limits ? 'stored_bytes' and nofx.tenant_bytes(p_tenant_id) >= (v_limits ->> 'stored_bytes')::bigint then
        perform nofx.limit_refuse('stored_bytes', null);
    end if;
end
$$;

-- Refuses an upload that would exceed the tenant's limit.
create or replace function nofx.limits_admit_upload(p_tenant_id text, p_bytes bigint) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_most bigint := (select (t.limits ->> 'stored_bytes')::bigint from nofx.tenant t where t.tenant_id = p_tenant_id);
begin
    if v_most is null then
        return;
    end if;
    perform nofx.limits_lock(p_tenant_id);
    if nofx.tenant_bytes(p_tenant_id) + p_bytes > v_most then
        perform nofx.limit_refuse('stored_bytes', null);
    end if;
end
$$;

-- Counts a request, and refuses it if the tenant had more than p_most in the last minute, over all processes. The statements of one request count
-- once. Requests that run at the same moment do not see each other, so a burst can exceed the limit by their number. Refused ones are not counted.
create or replace function nofx.limits_admit_request(p_tenant_id text, p_request_id text, p_most bigint) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_requests bigint;
    v_oldest timestamptz;
begin
    insert into nofx.request (tenant_id, request_id, at)
    values (p_tenant_id, coalesce(nullif(p_request_id, ''), gen_random_uuid()::text), v_now)
        on conflict do nothing;
    if not found then
        return;
    end if;
    select count(*), min(q.at) into v_requests, v_oldest
      from (select r.at from nofx.request r
             where r.tenant_id = p_tenant_id and r.at > v_now - interval '1 minute'
             order by r.at limit p_most + 1) q;
    if v_requests > p_most then
        perform nofx.limit_refuse('requests_per_minute',
                                  greatest(1, ceil(extract(epoch from v_oldest + interval '1 minute' - v_now)))::integer);
    end if;
    -- Each request removes up to four old rows and adds one, and never waits for another.
    delete from nofx.request r
     where r.tenant_id = p_tenant_id
       and r.request_id = any (array(select o.request_id from nofx.request o
                                      where o.tenant_id = p_tenant_id and o.at < v_now - interval '1 minute'
                                      order by o.at limit 4 for update skip locked));
end
$$;

-- The limits of the caller's tenant, and what it has used of each. p: {caller}
-- -> {limits: {NAME: maximum}, used: {NAME: current}}. Requests are counted only if they are limited.
create or replace function nofx.limits_of(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := nofx.admitted(p, 'account.read') ->> 'tenant_id';
    v_open record;
begin
    select * into v_open from nofx.open_work(v_tenant);
    return jsonb_build_object(
        'limits', (select t.limits from nofx.tenant t where t.tenant_id = v_tenant),
        'used', jsonb_build_object(
            'open_runs', v_open.runs, 'queued_steps', v_open.steps, 'stored_bytes', nofx.tenant_bytes(v_tenant),
            'requests_per_minute', (select count(*) from nofx.request r
                                     where r.tenant_id = v_tenant and r.at > clock_timestamp() - interval '1 minute')));
end
$$;

revoke execute on function nofx.limits_are_sound(jsonb), nofx.limit_refuse(text, integer), nofx.limits_lock(text), nofx.tenant_bytes(text),
    nofx.stored_bytes_forget(), nofx.open_work(text), nofx.limits_admit_run(text, integer), nofx.limits_admit_upload(text, bigint),
    nofx.limits_admit_request(text, text, bigint) from public;
select nofx.transition_declare('nofx.limits_of(jsonb)', 'nofx_api');
