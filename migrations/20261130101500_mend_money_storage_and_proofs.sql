-- What people found who attacked model calls, storage and proofs: waits for money, cooldowns of one model, deletions that others held, seals.

-- Runs that were created between 20261130090300 and this file, by a function that did not record what they use.
set local lock_timeout = '500ms';
lock table nofx.run in exclusive mode;
insert into nofx.run_artifact (artifact_id, run_id, tenant_id)
select distinct a.id, r.id, r.tenant_id
  from nofx.run r
 cross join lateral (
        select w.value ->> 'id' as id from jsonb_each(coalesce(r.workspace, '{}')) w
        union all
        select v #>> '{}' from jsonb_path_query(r.plan, 'strict $.steps.** ? (@.type() == "string")', '{}', true) v) named
  join nofx.artifact a
    on a.id = case when named.id ~* '^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$' then named.id::uuid end and a.tenant_id = r.tenant_id
 where r.status <> 'succeeded'
    on conflict do nothing;

-- Copies of the files in functions/. Change those files, not this one.

-- functions/artifact_requests.sql sha256=21097c4c5ebc407b06ac1e0e5ab44ccc42661d2a300e37eadaa8ad3b1e10999a
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
-- -> {result: asked|unchanged, storage} (null if it is hot) | {result: ongoing, storage} (the archive makes a copy for other terms, and takes no
-- others before it is there) | {result: deleted, storage} | {result: not_found}
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
    if v_row.state = 'restoring' and v_row.restore_days is not null
       and (v_row.restore_days, v_row.restore_tier) is distinct from (v_days, p ->> 'tier') then
        return jsonb_build_object('result', 'ongoing', 'storage', nofx.artifact_storage_json(v_row));
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

-- functions/artifact_storage.sql sha256=f493edaa700afa350798898a6833445c252304e25061a20d89cc05630e72a713
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
-- then nothing is moved or deleted. 30.0 and 3e1 are 30, as for the API.
create or replace function nofx.artifact_terms(p_version integer, p_document jsonb) returns jsonb
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
declare
    v_terms jsonb := jsonb_strip_nulls(p_document -> 'artifacts');
begin
    if jsonb_typeof(v_terms) is distinct from 'object' or v_terms - array['hot_days', 'keep_days', 'archive_min_bytes'] <> '{}'
       or exists (select from jsonb_each(v_terms) t
                   where case jsonb_typeof(t.value) when 'number'
                              then t.value::numeric <> trunc(t.value::numeric) or t.value::numeric not between 1 and 1099511627776
                              else true end)
       or (v_terms ->> 'hot_days')::numeric > 36500 or (v_terms ->> 'keep_days')::numeric > 36500
       or (v_terms ->> 'keep_days')::numeric <= (v_terms ->> 'hot_days')::numeric then
        return null;
    end if;
    return jsonb_build_object('version', p_version, 'hot_days', trunc((v_terms ->> 'hot_days')::numeric),
                              'keep_days', trunc((v_terms ->> 'keep_days')::numeric),
                              'min_bytes', coalesce(trunc((v_terms ->> 'archive_min_bytes')::numeric), 131072));
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
    select u.artifact_id, r.id
      from nofx.run_artifact u
      join nofx.run r on r.id = any (array[u.run_id])
     where u.artifact_id = any (p_ids) and u.tenant_id = p_tenant_id and r.finished_at is null
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

-- Gives every tenant whose policy says how long artifacts are kept its row.
create or replace function nofx.artifact_passes_add() returns void
    language sql
    set search_path = nofx, pg_temp
as $$
    insert into nofx.artifact_pass (tenant_id, policy_version, next_at)
    select t.tenant_id, 0, clock_timestamp()
      from nofx.tenant t
     where exists (select from nofx.policy q where q.tenant_id = t.tenant_id and q.document ? 'artifacts')
       and not exists (select from nofx.artifact_pass s where s.tenant_id = t.tenant_id)
        on conflict do nothing
$$;

-- At most p_limit tenants whose turn it is to be looked at. A turn comes every hour, and after each change of the policy. Whoever is taken comes
-- last the next time, so that a tenant whose turn fails does not keep the others waiting. -> [tenant_id]
create or replace function nofx.artifact_turns(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_tenants text[];
begin
    perform nofx.artifact_passes_add();
    select array_agg(d.tenant_id) into v_tenants
      from (select s.tenant_id
              from nofx.artifact_pass s
             cross join lateral (select c.version from nofx.policy c
                                  where c.tenant_id = s.tenant_id order by c.version desc limit 1) q
             where s.next_at <= v_now or s.policy_version <> q.version
             order by s.next_at, s.tenant_id limit p_limit
               for no key update of s skip locked) d;
    update nofx.artifact_pass s set next_at = v_now + interval '2 minutes' where s.tenant_id = any (v_tenants);
    return coalesce(to_jsonb(v_tenants), '[]');
end
$$;

-- Looks at the next p.limit artifacts of a tenant, and marks those that its policy wants archived or deleted. Only artifacts of runs that are
-- sealed, and uploads, and nothing that an open run uses. p: {tenant_id, limit, can_archive}. Without a tenant, as earlier releases call it: of one
-- whose turn it is.
-- -> {result: none} | {result: planned, tenant_id, archived, deleted, unreadable}. `unreadable`: the version of a policy whose part `artifacts` this
-- release cannot read.
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
    if not p ? 'tenant_id' then
        perform nofx.artifact_passes_add();
    end if;
    select s.tenant_id, s.after_at, s.after_id, s.policy_version, q.version, q.document into v_turn
      from nofx.artifact_pass s
     cross join lateral (select c.version, c.document from nofx.policy c
                          where c.tenant_id = s.tenant_id order by c.version desc limit 1) q
     where case when p ? 'tenant_id' then s.tenant_id = p ->> 'tenant_id'
                else s.next_at <= v_now or s.policy_version <> q.version end
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
        'unreadable', case when v_terms is null and v_turn.document ? 'artifacts' then v_turn.version end,
        'archived', nofx.artifacts_mark(v_turn.tenant_id, v_archive, 'archiving', v_turn.version, v_now),
        'deleted', nofx.artifacts_mark(v_turn.tenant_id, v_delete, 'deleting', v_turn.version, v_now));
end
$$;

-- Tenants with a row at which the sweeper has to look now, at most p_limit of them, in any order. -> [tenant_id]
create or replace function nofx.artifacts_due(p_limit integer) returns jsonb
    language sql
    security definer
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(d.tenant_id), '[]')
      from (select t.tenant_id from nofx.tenant t
             where exists (select from nofx.artifact_storage s where s.tenant_id = t.tenant_id and s.due_at <= now())
             order by random() limit p_limit) d
$$;

-- Takes at most p.limit rows of a tenant at which the sweeper has to look now. Each is the caller's for two minutes, and for twice as long with
-- every further try, up to six hours. What is to be deleted waits while an open run uses it, and says which.
-- p: {tenant_id, limit}
-- -> [{tenant_id, artifact_id, uri, version, state, since_s, asked_days, tier, restored_until_s, writable_until_s, is_shared}].
-- `writable_until_s`: until then the signed URL of an upload may store the object again. `is_shared`: another artifact has the same object and
-- keeps it.
create or replace function nofx.artifacts_take(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_ids uuid[];
    v_kin jsonb;
    v_users jsonb;
    v_used uuid[];
    v_taken jsonb;
begin
    select array_agg(d.artifact_id) into v_ids
      from (select s.artifact_id from nofx.artifact_storage s
             where s.tenant_id = p ->> 'tenant_id' and s.due_at <= v_now
             order by s.due_at limit (p ->> 'limit')::integer
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
    select jsonb_object_agg(u.artifact_id, u.run_id) into v_users
      from nofx.artifacts_in_use(p ->> 'tenant_id', array(
               select s.artifact_id from nofx.artifact_storage s where s.artifact_id = any (v_ids) and s.state = 'deleting'
               union
               select o::uuid from jsonb_each(v_kin) k cross join lateral jsonb_array_elements_text(k.value) o)) u;
    v_used := array(select k::uuid from jsonb_object_keys(coalesce(v_users, '{}')) k);
    with taken as (
        update nofx.artifact_storage s
           set due_at = v_now + case when s.state = 'deleting' and s.artifact_id = any (v_used) then interval '5 minutes'
                                     else least(interval '2 minutes' * 2 ^ least(s.tries, 16), interval '6 hours') end,
               tries = case when s.state = 'deleting' and s.artifact_id = any (v_used) then 0 else s.tries + 1 end,
               problem = case when s.state = 'deleting' and s.artifact_id = any (v_used)
                              then format('the run %s has not ended and uses it', v_users ->> s.artifact_id::text) else s.problem end
         where s.artifact_id = any (v_ids)
        returning s.*
    )
    select jsonb_agg(jsonb_build_object(
               'tenant_id', t.tenant_id, 'artifact_id', t.artifact_id, 'uri', a.uri, 'version', t.version, 'state', t.state,
               'since_s', extract(epoch from t.since)::bigint, 'asked_days', t.asked_days, 'tier', t.restore_tier,
               'restored_until_s', extract(epoch from t.restored_until)::bigint,
               -- The URL is valid for 15 minutes, and S3 may still receive what was sent before.
               'writable_until_s', case when a.run_id is null then extract(epoch from a.created_at)::bigint + 1800 end,
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

-- The same of any tenant, as earlier releases call it.
create or replace function nofx.artifacts_take(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    return nofx.artifacts_take(jsonb_build_object('limit', p_limit, 'tenant_id', (
        select s.tenant_id from nofx.artifact_storage s where s.due_at <= now() order by s.due_at limit 1)));
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
    nofx.artifacts_gone(text, jsonb), nofx.artifacts_mark(text, uuid[], text, integer, timestamptz), nofx.artifact_passes_add() from public;
grant execute on function nofx.artifact_storage_json(nofx.artifact_storage) to nofx_api;
select nofx.sweep_declare('nofx.artifact_turns(integer)');
select nofx.sweep_declare('nofx.artifacts_plan(jsonb)');
select nofx.sweep_declare('nofx.artifacts_due(integer)');
select nofx.sweep_declare('nofx.artifacts_take(jsonb)');
select nofx.sweep_declare('nofx.artifacts_take(integer)');
select nofx.transition_declare('nofx.artifact_record(jsonb)', 'nofx_worker');

-- functions/attempt_leftovers.sql sha256=9c131630114a8715fc4ff80ee6e438bbd2ff65c1a2ce407a05e13f1ac3e1d090
-- Objects that no artifact names: what an attempt stored before it was cancelled, failed, or lost its worker. The sweeper deletes them.

-- Trigger after update of an attempt that fails, is cancelled, or loses its worker: remembers it, if its handler stores anything.
create or replace function nofx.attempt_leftover_add() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    -- The longest function runs for 6 hours.
    insert into nofx.attempt_leftover (step_id, attempt, tenant_id, run_id, due_at)
    select new.step_id, new.attempt, new.tenant_id, new.run_id, new.finished_at + interval '7 hours'
      from nofx.step s
     where s.id = new.step_id and s.handler not in ('manual', 'db_write', 'echo')
        on conflict do nothing;
    return null;
end
$$;

-- Takes at most p_limit attempts that are due. Each is the caller's for ten minutes, and for twice as long with every further try, up to a day.
-- -> [{tenant_id, run_id, step_id, attempt, named: [URIs of the step's artifacts]}]. Only artifacts of the step have objects in its folder
-- first: what has no row there can have none anywhere else.
create or replace function nofx.leftovers_take(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_taken jsonb;
begin
    with due as (
        select l.step_id, l.attempt
          from nofx.attempt_leftover l
         where l.due_at <= v_now
         order by l.due_at limit p_limit
           for no key update skip locked
    ), taken as (
        update nofx.attempt_leftover l
           set due_at = v_now + least(interval '10 minutes' * 2 ^ least(l.tries, 16), interval '1 day'), tries = l.tries + 1
          from due d
         where l.step_id = any (array[d.step_id]) and l.attempt = d.attempt
        returning l.tenant_id, l.run_id, l.step_id, l.attempt
    )
    select jsonb_agg(jsonb_build_object(
               'tenant_id', t.tenant_id, 'run_id', t.run_id, 'step_id', t.step_id, 'attempt', t.attempt,
               'named', array(select a.uri from nofx.artifact a where a.step_id = any (array[t.step_id]))))
      into v_taken
      from taken t;
    return coalesce(v_taken, '[]');
end
$$;

-- Forgets an attempt whose folder has nothing but artifacts. p: {tenant_id, step_id, attempt} -> {result: forgotten}
create or replace function nofx.leftover_forget(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.attempt_leftover l
     where l.step_id = (p ->> 'step_id')::uuid and l.attempt = (p ->> 'attempt')::integer and l.tenant_id = p ->> 'tenant_id';
    return jsonb_build_object('result', 'forgotten');
end
$$;

revoke execute on function nofx.attempt_leftover_add() from public;
select nofx.sweep_declare('nofx.leftovers_take(integer)');
select nofx.transition_declare('nofx.leftover_forget(jsonb)', 'nofx_worker');

-- functions/budgets.sql sha256=5fbd3c085aca9bf8a92e4fd61bbb703093b2063a80b5f025585178ea60a61ef2
-- Gates `budget`: a step waits for money. Their subject says what helps, in `waits_for`. `approval`: people raise the budget of the run. `policy`: the
-- policy raises that of the tenant, or the next day or month begins. `reserved`: only what requests in flight have reserved is in the way, so nobody is
-- asked, and the step goes on when they end.

-- Whether a request that a gate waits for would fit into every budget, with so much more reserved in its run and its tenant. Takes no lock:
-- nofx.llm_call_start decides.
create or replace function nofx.budget_fits(p_gate nofx.gate, p_run_more bigint, p_tenant_more bigint, p_now timestamptz) returns boolean
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_needs bigint := p_gate.subject ->> 'needs_usd_micros';
    v_caps record;
    v_is_covered boolean;
begin
    -- What costs nothing fits into every budget.
    if v_needs = 0 then
        return true;
    end if;
    select coalesce(r.spent_usd_micros + r.reserved_usd_micros + p_run_more + v_needs <= r.budget_usd_micros, r.budget_usd_micros is null)
      into v_is_covered
      from nofx.run r
     where r.id = p_gate.run_id;
    select * into v_caps from nofx.llm_caps(p_gate.tenant_id);
    return coalesce(v_is_covered and not exists (
        select from (values ('day', nofx.llm_day(p_now), v_caps.day_cap), ('month', nofx.llm_month(p_now), v_caps.month_cap))
                    as c(period, starts_on, cap)
          left join nofx.llm_spend s on s.tenant_id = p_gate.tenant_id and s.period = c.period and s.starts_on = c.starts_on
         where coalesce(s.spent_usd_micros + s.reserved_usd_micros, 0) + p_tenant_more + v_needs > c.cap), false);
end
$$;

-- Whether a gate says that its step waits for requests in flight, and that is not true any more: too much of its budget is spent, or it has room and
-- another budget has none. Then the step has to ask again. It does not come back to the same gate: its own budget
-- refuses it for another reason, or not at all.
create or replace function nofx.budget_asks_anew(p_gate nofx.gate, p_now timestamptz) returns boolean
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_needs bigint := p_gate.subject ->> 'needs_usd_micros';
    v_scope text := p_gate.subject ->> 'scope';
    v_caps record;
    v_own record;
begin
    if p_gate.subject ->> 'waits_for' is distinct from 'reserved' then
        return false;
    end if;
    if v_scope = 'run' then
        select r.budget_usd_micros as cap, r.spent_usd_micros as spent, r.reserved_usd_micros as reserved into v_own
          from nofx.run r
         where r.id = p_gate.run_id;
    else
        select * into v_caps from nofx.llm_caps(p_gate.tenant_id);
        select case v_scope when 'day' then v_caps.day_cap else v_caps.month_cap end as cap,
               coalesce(sum(s.spent_usd_micros), 0) as spent, coalesce(sum(s.reserved_usd_micros), 0) as reserved
          into v_own
          from nofx.llm_spend s
         where s.tenant_id = p_gate.tenant_id and s.period = v_scope
           and s.starts_on = case v_scope when 'day' then nofx.llm_day(p_now) else nofx.llm_month(p_now) end;
    end if;
    return coalesce(v_own.spent + v_needs > v_own.cap, false)
        or coalesce(v_own.spent + v_own.reserved + v_needs <= v_own.cap, true) and not nofx.budget_fits(p_gate, 0, 0, p_now);
end
$$;

-- Raises the budget of a run by what its gate asked for. The caller holds the run's lock and has written the gate as passed. Returns the event.
create or replace function nofx.budget_raise(p_gate nofx.gate, p jsonb) returns nofx.change
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_more bigint := p_gate.subject ->> 'missing_usd_micros';
    v_budget bigint;
begin
    update nofx.run r
       set budget_usd_micros = r.budget_usd_micros + v_more
     where r.id = p_gate.run_id
    returning r.budget_usd_micros into v_budget;
    return nofx.fact(p_gate.run_id, p_gate.step_id, 'budget.raised', jsonb_strip_nulls(jsonb_build_object(
        'gate_id', p_gate.id, 'scope', 'run', 'from_usd_micros', v_budget - v_more, 'to_usd_micros', v_budget, 'actor', p ->> 'actor',
        'by', p -> 'by')));
end
$$;

-- Whether somebody paused a run.
create or replace function nofx.is_paused(p_run_id uuid) returns boolean
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select r.paused_at is not null from nofx.run r where r.id = p_run_id
$$;

-- What gates that passed within a minute have promised to steps that can start, and have not reserved it yet: to those of a run, or without
-- p_run_id of the tenant.
create or replace function nofx.budget_promised(p_tenant_id text, p_run_id uuid, p_now timestamptz) returns bigint
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_passed nofx.gate[];
begin
    if p_run_id is null then
        v_passed := array(
            select g from nofx.gate g
             where g.tenant_id = p_tenant_id and g.gate_type = 'budget' and g.status = 'passed' and g.decided_at > p_now - interval '1 minute');
    else
        v_passed := array(
            select g from nofx.gate g
             where g.run_id = p_run_id and g.gate_type = 'budget' and g.status = 'passed' and g.decided_at > p_now - interval '1 minute');
    end if;
    return coalesce((
        select sum(m.needs)
          from (select max((g.subject ->> 'needs_usd_micros')::bigint) as needs
                  from unnest(v_passed) g
                  join nofx.step s on s.id = any (array[g.step_id])
                  join nofx.run r on r.id = any (array[g.run_id])
                 where s.status in ('ready', 'running') and r.paused_at is null
                   and not exists (select from nofx.llm_call c where c.step_id = s.id and c.started_at >= g.decided_at)
                 group by g.step_id) m), 0);
end
$$;

-- Lets those of the gates pass that fit into the budgets together, in the order of p_gates, and those whose steps have to ask again, if nobody else
-- holds their runs. -> {done, ready: [wake-ups]}
create or replace function nofx.budgets_pass(p_gates uuid[], p_now timestamptz) returns jsonb
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_fit uuid[] := '{}';
    v_anew uuid[] := '{}';
    v_done uuid[];
    v_runs uuid[];
    v_gate nofx.gate;
    v_needs bigint;
    v_more jsonb := '{}';
    v_run_more bigint;
    v_tenant_more bigint;
    v_changes nofx.change[];
begin
    for v_gate in
        select g.*
          from unnest(p_gates) with ordinality as c(id, position)
          join nofx.gate g on g.id = c.id
         order by c.position
    loop
        v_needs := v_gate.subject ->> 'needs_usd_micros';
        v_run_more := coalesce((v_more ->> v_gate.run_id::text)::bigint, nofx.budget_promised(v_gate.tenant_id, v_gate.run_id, p_now));
        v_tenant_more := coalesce((v_more ->> v_gate.tenant_id)::bigint, nofx.budget_promised(v_gate.tenant_id, null, p_now));
        if nofx.budget_fits(v_gate, v_run_more, v_tenant_more, p_now) then
            v_fit := v_fit || v_gate.id;
            v_run_more := v_run_more + v_needs;
            v_tenant_more := v_tenant_more + v_needs;
        elsif nofx.budget_asks_anew(v_gate, p_now) then
            v_anew := v_anew || v_gate.id;
        end if;
        v_more := v_more || jsonb_build_object(v_gate.run_id::text, v_run_more, v_gate.tenant_id, v_tenant_more);
    end loop;
    v_runs := nofx.runs_lock_free(array(select distinct g.run_id from nofx.gate g where g.id = any (v_fit || v_anew)));
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    -- Other events of these runs may be younger than the caller's time.
    p_now := clock_timestamp();
    with passed as (
        update nofx.gate g set status = 'passed', decided_at = p_now
         where g.id = any (v_fit || v_anew) and g.run_id = any (v_runs) and g.status = 'pending'
        returning g.id
    )
    select coalesce(array_agg(p.id), '{}') into v_done from passed p;
    v_changes := nofx.gates_conclude(array(select unnest(v_done) intersect select unnest(v_fit)),
                                     '{"reason": "the budget covers it now"}', p_now)
              || nofx.gates_conclude(array(select unnest(v_done) intersect select unnest(v_anew)),
                                     '{"reason": "it no longer waits for requests in flight, so the step asks again"}', p_now);
    perform nofx.runs_settle(v_changes, p_now);
    return jsonb_build_object('done', cardinality(v_done), 'ready', nofx.wakeups(nofx.made_ready(v_changes), p_now));
end
$$;

-- After a request of a run ended: lets the oldest steps go on that wait for what it had reserved, of the run and of the tenant. What is left to do,
-- because there are many or their runs are busy, the sweeper does. -> [wake-ups]
create or replace function nofx.budgets_release(p_tenant_id text, p_run_id uuid, p_now timestamptz) returns jsonb
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates uuid[] := array(
        select g.id from nofx.gate g
         where g.tenant_id = p_tenant_id and g.status = 'pending' and g.gate_type = 'budget' and g.subject ->> 'waits_for' = 'reserved'
           and (g.run_id = p_run_id or g.subject ->> 'scope' <> 'run') and not nofx.is_paused(g.run_id)
         order by (g.subject ->> 'scope' = 'run') desc, g.created_at, g.id limit 20);
begin
    return case when v_gates = '{}' then '[]' else nofx.budgets_pass(v_gates, p_now) -> 'ready' end;
end
$$;

-- The same for steps that have just stopped, because the last request may have ended before their gates were there. Returns those that are ready.
create or replace function nofx.budgets_recheck(p_changes nofx.change[], p_now timestamptz) returns uuid[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates uuid[];
begin
    if not exists (select from unnest(p_changes) c where c.event_type = 'budget.exhausted') then
        return '{}';
    end if;
    v_gates := array(
        select g.id from nofx.gate g
         where g.step_id in (select c.step_id from unnest(p_changes) c where c.event_type = 'budget.exhausted')
           and g.status = 'pending' and g.gate_type = 'budget' and g.subject ->> 'waits_for' = 'reserved' and not nofx.is_paused(g.run_id)
         order by g.id);
    return array(select (w ->> 'step_id')::uuid from jsonb_array_elements(nofx.budgets_pass(v_gates, p_now) -> 'ready') w);
end
$$;

-- Lets steps go on that a budget covers now: a new day or month, a higher cap, or money that was reserved and is free again. First those that
-- wait only for requests in flight, each in the order in which they stopped, and no more than fit together. Steps of paused runs could not use
-- the money. -> {done, ready: [wake-ups]}
create or replace function nofx.sweep_budgets(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    return nofx.budgets_pass(
        array(
            select g.id from nofx.gate g
             where g.status = 'pending' and g.gate_type = 'budget' and g.subject ->> 'waits_for' = 'reserved'
               and (g.expires_at is null or g.expires_at >= v_now) and not nofx.is_paused(g.run_id)
               and (nofx.budget_fits(g, 0, 0, v_now) or nofx.budget_asks_anew(g, v_now))
             order by g.created_at, g.id limit p_limit)
        || array(
            select g.id from nofx.gate g
             where g.status = 'pending' and g.gate_type = 'budget' and g.subject ->> 'waits_for' is distinct from 'reserved'
               and (g.expires_at is null or g.expires_at >= v_now) and not nofx.is_paused(g.run_id)
               and (nofx.budget_fits(g, 0, 0, v_now) or nofx.budget_asks_anew(g, v_now))
             order by g.created_at, g.id limit p_limit), v_now);
end
$$;
select nofx.sweep_declare('nofx.sweep_budgets(integer)');
revoke execute on function nofx.is_paused(uuid), nofx.budget_asks_anew(nofx.gate, timestamptz),
    nofx.budget_fits(nofx.gate, bigint, bigint, timestamptz), nofx.budget_raise(nofx.gate, jsonb),
    nofx.budget_promised(text, uuid, timestamptz), nofx.budgets_pass(uuid[], timestamptz), nofx.budgets_release(text, uuid, timestamptz),
    nofx.budgets_recheck(nofx.change[], timestamptz)
    from public;

-- functions/gate_standing.sql sha256=780b0558f28a44ce5db5d7e82523491c6e6f85e5f7e2c9cca651fc6f5753954b
-- How a gate stands: its rule, who has approved, and who may still decide. One function says whether somebody may decide, for readers and for
-- nofx.gate_decide, so that a page never offers what a decision refuses.

-- The rule of a gate. A policy that has become stricter counts for gates that wait; one that has become looser does not loosen them.
create or replace function nofx.gate_rule(p_gate nofx.gate) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select case when p_gate.status = 'pending' or p_gate.rule is null
                then nofx.approval_strictest(coalesce(p_gate.rule, '{}'), nofx.approval_policy(p_gate.tenant_id))
                else p_gate.rule end
$$;

-- Who may not approve their own work: who started or retried the run, the owners of their tokens, and who uploaded the files that its plan names.
-- Empty if the rule allows it.
create or replace function nofx.gate_excluded(p_run uuid, p_rule jsonb) returns text[]
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select case when p_rule -> 'self' = 'true' then '{}' else coalesce(array_agg(distinct x.subject), '{}') end
      from nofx.run r
     cross join jsonb_to_recordset(coalesce(r.authors, '[]')) as a(subject text, owner text)
     cross join lateral (values (a.subject), (case when p_rule ->> 'owners' = 'allowed' then null else a.owner end)) x(subject)
     where r.id = p_run and x.subject is not null
$$;

-- The approvals of a gate that count now: those of members who are still entitled, about what the gate still asks. Each person counts once.
create or replace function nofx.gate_approvals(p_gate nofx.gate, p_rule jsonb) returns setof nofx.approval
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_excluded text[] := nofx.gate_excluded(p_gate.run_id, p_rule);
    v_is_solo boolean := (select t.is_solo from nofx.tenant t where t.tenant_id = p_gate.tenant_id);
begin
    return query
    select distinct on (a.subject) a.*
      from nofx.approval a
      join nofx.membership m on m.tenant_id = a.tenant_id and m.subject = a.subject and m.removed_at is null
     where a.gate_id = p_gate.id and a.decision = 'approve' and a.bound_digest is not distinct from p_gate.bound_digest
       and nofx.approval_names(p_rule, m)
       -- Who left and came back decides anew.
       and a.created_at >= coalesce(m.joined_at, m.created_at)
       and (v_is_solo or a.subject <> all (v_excluded))
     order by a.subject, a.created_at, a.id;
end
$$;

-- Whether a decision of an earlier generation counts for the same bytes again: under the policy of today, and by people who may still decide.
create or replace function nofx.gate_still_holds(p_gate nofx.gate) returns boolean
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_rule jsonb := nofx.approval_strictest(coalesce(p_gate.rule, '{}'), nofx.approval_policy(p_gate.tenant_id));
    v_is_solo boolean := (select t.is_solo from nofx.tenant t where t.tenant_id = p_gate.tenant_id);
    -- Who was no author when they decided is none now: a retry makes nobody an author of bytes that they approved.
    v_excluded text[] := nofx.gate_excluded(p_gate.run_id, v_rule);
begin
    if p_gate.status = 'waived' then
        return v_rule ->> 'waive' is not distinct from 'admins' and exists (
            select from nofx.approval a
              join nofx.membership m on m.tenant_id = a.tenant_id and m.subject = a.subject and m.removed_at is null
             where a.gate_id = p_gate.id and a.decision = 'waive' and nofx.permits('gates.waive', m.role, 'person')
               and a.created_at >= coalesce(m.joined_at, m.created_at)
               and (v_is_solo or not a.is_self or a.subject <> all (v_excluded)));
    end if;
    return (select count(distinct a.subject)
              from nofx.approval a
              join nofx.membership m on m.tenant_id = a.tenant_id and m.subject = a.subject and m.removed_at is null
             where a.gate_id = p_gate.id and a.decision = 'approve' and a.bound_digest is not distinct from p_gate.bound_digest
               and nofx.approval_names(v_rule, m) and a.created_at >= coalesce(m.joined_at, m.created_at)
               and (v_is_solo or not a.is_self or a.subject <> all (v_excluded))) >= nofx.approval_count(v_rule -> 'required');
end
$$;

-- Why a principal may not make a decision about a gate; null if it may. p_who: a principal as JSON, with login_at.
-- -> decided, expired, kind, role, in_flight, tenant_budget, budget, not_named, waive, session, self, or done: they have approved already, and it counts
create or replace function nofx.gate_may_decide(p_gate nofx.gate, p_rule jsonb, p_who jsonb, p_decision text) returns text
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_member nofx.membership;
    v_is_solo boolean := coalesce((p_who ->> 'solo')::boolean, false);
    v_age_s integer := nofx.approval_seconds(p_rule -> 'max_session_age_s');
    v_login timestamptz;
begin
    if p_gate.status <> 'pending' then
        return 'decided';
    elsif p_gate.expires_at < clock_timestamp() then
        -- Only the sweeper ends an expired gate, even if it has not run yet.
        return 'expired';
    elsif p_who ->> 'kind' is distinct from 'person' then
        return 'kind';
    end if;
    select * into v_member
      from nofx.membership m
     where m.tenant_id = p_gate.tenant_id and m.tenant_id = p_who ->> 'tenant' and m.subject = p_who ->> 'subject' and m.removed_at is null;
    if not found or not nofx.permits(case p_decision when 'waive' then 'gates.waive' else 'gates.decide' end, v_member.role, 'person') then
        return 'role';
    elsif p_gate.gate_type = 'budget' and p_decision <> 'reject' and p_gate.subject ->> 'waits_for' is not distinct from 'reserved' then
        -- It goes on by itself, when requests in flight end.
        return 'in_flight';
    elsif p_gate.gate_type = 'budget' and p_decision <> 'reject' and p_gate.subject ->> 'scope' is distinct from 'run' then
        -- An approval raises the budget of a run. That of a tenant is its policy's.
        return 'tenant_budget';
    elsif p_gate.gate_type = 'budget' and p_decision = 'waive' then
        return 'budget';
    elsif p_decision = 'waive' and p_rule ->> 'waive' is distinct from 'admins' then
        return 'waive';
    elsif p_decision <> 'waive' and not nofx.approval_names(p_rule, v_member) then
        return 'not_named';
    end if;
    if v_age_s is not null and not v_is_solo then
        v_login := coalesce((select t.login_at from nofx.api_token t where t.id = (p_who ->> 'token_id')::uuid),
                            (p_who ->> 'login_at')::timestamptz);
        if coalesce(v_login < clock_timestamp() - make_interval(secs => v_age_s), true) then
            return 'session';
        end if;
    end if;
    if not v_is_solo and v_member.subject = any (nofx.gate_excluded(p_gate.run_id, p_rule)) then
        return 'self';
    elsif p_decision = 'approve' and exists (select from nofx.gate_approvals(p_gate, p_rule) a where a.subject = v_member.subject) then
        return 'done';
    end if;
    return null;
end
$$;

-- How a gate stands for a principal. No rows for a gate of another tenant, and for one that evidence decided.
-- required: approvals that it needs. approved: those that count. eligible: people who could approve, counted up to 100.
create or replace function nofx.gate_stands(p_gate nofx.gate, p_who jsonb)
    returns table (required integer, approved integer, eligible integer, rule jsonb, approvals jsonb, may_decide jsonb)
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_rule jsonb := nofx.gate_rule(p_gate);
    v_excluded text[];
    v_why text;
begin
    if p_gate.tenant_id is distinct from p_who ->> 'tenant' then
        return;
    end if;
    -- What evidence decided needs no approval.
    if p_gate.status <> 'pending' and p_gate.rule is null and not exists (select from nofx.approval a where a.gate_id = p_gate.id) then
        return;
    end if;
    v_why := nofx.gate_may_decide(p_gate, v_rule, p_who, 'approve');
    if p_gate.status = 'pending' then
        v_excluded := case when (p_who ->> 'solo')::boolean then '{}' else nofx.gate_excluded(p_gate.run_id, v_rule) end;
    end if;
    return query select
        nofx.approval_count(v_rule -> 'required'),
        (select count(*)::integer from nofx.gate_approvals(p_gate, v_rule)),
        case when p_gate.status = 'pending' then (
            select count(*)::integer
              from (select from nofx.membership m
                     where m.tenant_id = p_gate.tenant_id and m.removed_at is null
                       and nofx.approval_names(v_rule, m) and m.subject <> all (v_excluded) limit 100) e) end,
        -- The one person of a local tenant decides about their own work.
        v_rule || case when (p_who ->> 'solo')::boolean then '{"self": true}' else '{}' end::jsonb,
        (select coalesce(jsonb_agg(jsonb_build_object('decision', a.decision, 'actor', a.actor, 'subject', a.subject, 'reason', a.reason,
                                                      'created_at', a.created_at, 'is_self', a.is_self) order by a.created_at, a.id), '[]')
           from (select * from nofx.approval a where a.gate_id = p_gate.id order by a.created_at, a.id limit 50) a),
        jsonb_strip_nulls(jsonb_build_object(
            'ok', v_why is null, 'why', v_why, 'waive', nofx.gate_may_decide(p_gate, v_rule, p_who, 'waive') is null));
end
$$;

-- The same for who reads: a query of the API names its gate.
create or replace function nofx.gate_standing(p_gate uuid)
    returns table (required integer, approved integer, eligible integer, rule jsonb, approvals jsonb, may_decide jsonb)
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
begin
    select * into v_gate from nofx.gate g where g.id = p_gate;
    return query select * from nofx.gate_stands(v_gate, nofx.reader());
end
$$;

-- Whether who reads may decide the gate, for lists.
create or replace function nofx.gate_is_mine(p_gate uuid) returns boolean
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
begin
    select * into v_gate from nofx.gate g where g.id = p_gate;
    return nofx.gate_may_decide(v_gate, nofx.gate_rule(v_gate), nofx.reader(), 'approve') is null;
end
$$;

-- The principal of a read, as nofx.read sets it.
create or replace function nofx.reader() returns jsonb
    language sql stable
    set search_path = ''
as $$
    select nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'principal'
$$;
revoke execute on function nofx.gate_rule(nofx.gate), nofx.gate_excluded(uuid, jsonb), nofx.gate_approvals(nofx.gate, jsonb),
    nofx.gate_still_holds(nofx.gate),
    nofx.gate_may_decide(nofx.gate, jsonb, jsonb, text), nofx.gate_stands(nofx.gate, jsonb), nofx.gate_standing(uuid), nofx.gate_is_mine(uuid), nofx.reader() from public;
grant execute on function nofx.gate_standing(uuid), nofx.gate_is_mine(uuid) to nofx_api;

-- functions/llm_calls.sql sha256=574d822b61ba4b5eef9c3790490c6e10dbf80e032b5a313d7e05e9f9ebe6f16d
-- Requests to models, and their money. A start reserves the most that a request can cost, in the transaction that lets it be sent. Its end
-- settles it: what it really costs is spent, at most what was reserved, and the rest is free again. If no end comes, the sweeper charges what was
-- reserved. So no budget is ever passed.
-- Locks: the run first, then the tenant's month, then its day. Amounts are micro-dollars.

-- The days and months of budgets are those of UTC.
create or replace function nofx.llm_day(p_at timestamptz) returns date
    language sql immutable
    set search_path = ''
as $$ select (p_at at time zone 'UTC')::date $$;

create or replace function nofx.llm_month(p_at timestamptz) returns date
    language sql immutable
    set search_path = ''
as $$ select date_trunc('month', p_at at time zone 'UTC')::date $$;

-- The budgets of a tenant, from its current policy. Null without one.
create or replace function nofx.llm_caps(p_tenant_id text, out day_cap bigint, out month_cap bigint)
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    -- Dollars have at most six decimals, as numbers or as strings.
    select ((p.document #>> '{models,budgets,day_usd}')::numeric * 1000000)::bigint,
           ((p.document #>> '{models,budgets,month_usd}')::numeric * 1000000)::bigint
      into day_cap, month_cap
      from nofx.policy p
     where p.tenant_id = p_tenant_id
     order by p.version desc limit 1;
end
$$;

-- What binds the model calls of a step: {cooldowns: [{deployment, left_ms, kind, reason}], is_budgeted}. A cooldown of one model has
-- DEPLOYMENT/MODEL as its deployment.
create or replace function nofx.llm_terms(p_tenant_id text, p_run_id uuid) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_caps record;
begin
    select * into v_caps from nofx.llm_caps(p_tenant_id);
    return jsonb_build_object(
        'is_budgeted', v_caps.day_cap is not null or v_caps.month_cap is not null
                       or (select r.budget_usd_micros is not null from nofx.run r where r.id = p_run_id),
        'cooldowns', (
            select coalesce(jsonb_agg(jsonb_build_object(
                       'deployment', c.deployment, 'left_ms', ceil(extract(epoch from c.until - v_now) * 1000)::bigint, 'kind', c.kind,
                       'reason', c.reason) order by c.deployment), '[]')
              from (select * from nofx.llm_cooldown c
                     where c.tenant_id = p_tenant_id and c.until > v_now
                     order by c.deployment limit 100) c));
end
$$;

-- Locks the month and the day of a tenant in which a request starts, and makes their rows. The caller holds the run's lock.
create or replace function nofx.llm_spend_lock(
    p_tenant_id text, p_at timestamptz, out month_used bigint, out month_spent bigint, out day_used bigint, out day_spent bigint
)
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    insert into nofx.llm_spend (tenant_id, period, starts_on)
    values (p_tenant_id, 'month', nofx.llm_month(p_at)), (p_tenant_id, 'day', nofx.llm_day(p_at))
        on conflict do nothing;
    select s.spent_usd_micros, s.spent_usd_micros + s.reserved_usd_micros into month_spent, month_used
      from nofx.llm_spend s
     where s.tenant_id = p_tenant_id and s.period = 'month' and s.starts_on = nofx.llm_month(p_at)
       for no key update;
    select s.spent_usd_micros, s.spent_usd_micros + s.reserved_usd_micros into day_spent, day_used
      from nofx.llm_spend s
     where s.tenant_id = p_tenant_id and s.period = 'day' and s.starts_on = nofx.llm_day(p_at)
       for no key update;
end
$$;

-- Adds to what a run, and the month and the day of p_at have spent and reserved. The caller holds the run's lock and those of nofx.llm_spend_lock.
create or replace function nofx.llm_account(p_tenant_id text, p_run_id uuid, p_at timestamptz, p_spent bigint, p_reserved bigint) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    update nofx.run r
       set spent_usd_micros = r.spent_usd_micros + p_spent, reserved_usd_micros = r.reserved_usd_micros + p_reserved
     where r.id = p_run_id;
    update nofx.llm_spend s
       set spent_usd_micros = s.spent_usd_micros + p_spent, reserved_usd_micros = s.reserved_usd_micros + p_reserved
     where s.tenant_id = p_tenant_id
       and (s.period = 'month' and s.starts_on = nofx.llm_month(p_at) or s.period = 'day' and s.starts_on = nofx.llm_day(p_at));
end
$$;

-- Settles a call: {usage, charge: {kind: nothing|usage|ceiling|unpriced, usd_micros}, model_served, usable, fault: {kind, reason, status},
-- duration_ms}. A call that was settled before gets its new charge instead of the old one. A cost above what was reserved is charged as what was
-- reserved, and the event says what was reported. The caller holds the run's lock.
-- Returns the event.
create or replace function nofx.llm_settle(p_call nofx.llm_call, p_end jsonb, p_now timestamptz) returns nofx.change
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_kind text := p_end #>> '{charge,kind}';
    v_cost bigint := case when v_kind = 'usage' then (p_end #>> '{charge,usd_micros}')::bigint end;
    v_charge bigint := case v_kind when 'nothing' then 0
                                   when 'usage' then least(v_cost, p_call.reserved_usd_micros)
                                   when 'ceiling' then p_call.reserved_usd_micros end;
    v_was_open boolean := p_call.state = 'open';
    v_usage jsonb := nullif(p_end -> 'usage', 'null');
    v_served text := left(p_end ->> 'model_served', 200);
    v_is_late boolean;
begin
    if v_kind not in ('nothing', 'usage', 'ceiling', 'unpriced') or v_kind = 'usage' and coalesce(v_cost < 0, true) then
        raise exception 'a charge is nothing, usage, ceiling or unpriced' using errcode = 'invalid_parameter_value';
    end if;
    perform nofx.llm_spend_lock(p_call.tenant_id, p_call.started_at);
    perform nofx.llm_account(p_call.tenant_id, p_call.run_id, p_call.started_at,
                             coalesce(v_charge, 0) - coalesce(p_call.charged_usd_micros, 0),
                             case when v_was_open then -coalesce(p_call.reserved_usd_micros, 0) else 0 end);
    update nofx.llm_call c
       set state = 'settled', charged_usd_micros = v_charge, is_estimated = v_kind = 'ceiling', model_served = v_served,
           input_tokens = (v_usage ->> 'input_tokens')::bigint, output_tokens = (v_usage ->> 'output_tokens')::bigint,
           cached_input_tokens = (v_usage ->> 'cached_input_tokens')::bigint,
           cache_write_input_tokens = (v_usage ->> 'cache_write_input_tokens')::bigint,
           reasoning_tokens = (v_usage ->> 'reasoning_tokens')::bigint,
           is_usable = coalesce((p_end ->> 'usable')::boolean, false), fault_kind = left(p_end #>> '{fault,kind}', 50), ended_at = p_now
     where c.id = p_call.id;
    delete from nofx.llm_progress g where g.call_id = p_call.id;
    v_is_late := not exists (select from nofx.step s
                              where s.id = p_call.step_id and s.status = 'running' and s.attempt = p_call.attempt);
    return nofx.fact(p_call.run_id, p_call.step_id, 'llm.usage',
        jsonb_strip_nulls(jsonb_build_object(
            'call_id', p_call.id, 'provider', p_call.provider, 'model', coalesce(v_served, p_call.model_requested),
            'model_requested', p_call.model_requested, 'model_served', v_served,
            'usable', coalesce((p_end ->> 'usable')::boolean, false), 'reason', left(p_end #>> '{fault,reason}', 500),
            'kind', left(p_end #>> '{fault,kind}', 50), 'status', p_end #> '{fault,status}', 'duration_ms', p_end -> 'duration_ms',
            'cost_usd_micros', v_charge, 'price_version', p_call.price_version,
            'estimated', case when v_kind = 'ceiling' then true end,
            'exceeds_reserved', case when v_cost > v_charge then true end,
            'reported_usd_micros', case when v_cost > v_charge then v_cost end,
            'corrects_usd_micros', case when not v_was_open then coalesce(p_call.charged_usd_micros, 0) end,
            'late_attempt', case when v_is_late then p_call.attempt end))
        || coalesce(v_usage, '{}'));
end
$$;

-- The answer of a start that a budget refuses.
create or replace function nofx.llm_over_budget(p_scope text, p_cap bigint, p_spent bigint, p_used bigint, p_needs bigint) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_build_object('result', 'over_budget', 'scope', p_scope, 'cap_usd_micros', p_cap, 'spent_usd_micros', p_spent,
                              'reserved_usd_micros', p_used - p_spent, 'needs_usd_micros', p_needs)
$$;

-- Lets a request be sent, and reserves its money. p: {tenant_id, run_id, step_id, attempt, id, provider, model, deployment, reserve_usd_micros,
-- price, limit_ms, because}. Without a reserve no price is known, which no budget accepts. A repeated start with the same id changes nothing.
-- -> {result: granted|lost|unpriced|over_budget, scope, cap_usd_micros, spent_usd_micros, reserved_usd_micros, needs_usd_micros}
create or replace function nofx.llm_call_start(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := p ->> 'tenant_id';
    v_reserve bigint := p ->> 'reserve_usd_micros';
    v_run nofx.run;
    v_now timestamptz;
    v_call nofx.llm_call;
    v_caps record;
    v_spend record;
begin
    v_run := nofx.run_lock(v_tenant, (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return '{"result": "lost"}';
    end if;
    v_now := clock_timestamp();
    select * into v_call from nofx.llm_call c where c.id = (p ->> 'id')::uuid;
    if not exists (select from nofx.step s
                    where s.id = (p ->> 'step_id')::uuid and s.run_id is not distinct from v_run.id and s.tenant_id = v_tenant
                      and s.status = 'running' and s.attempt = (p ->> 'attempt')::integer and s.lease_until > v_now) then
        -- Reserved by this call, whose first answer was lost. So nothing was sent.
        if v_call.state = 'open' and v_call.run_id = v_run.id and v_call.step_id = (p ->> 'step_id')::uuid
           and v_call.attempt = (p ->> 'attempt')::integer then
            perform nofx.runs_settle(array[nofx.llm_settle(v_call, '{"charge": {"kind": "nothing"}}', v_now)], v_now);
        end if;
        return '{"result": "lost"}';
    end if;
    if v_call.id is not null then
        return jsonb_build_object('result', case
            when v_call.state = 'open' and v_call.run_id = v_run.id and v_call.step_id = (p ->> 'step_id')::uuid
                 and v_call.attempt = (p ->> 'attempt')::integer then 'granted' else 'lost' end);
    end if;
    if v_reserve < 0 then
        raise exception 'a reserve is not negative' using errcode = 'invalid_parameter_value';
    end if;

    select * into v_caps from nofx.llm_caps(v_tenant);
    if v_reserve is null and coalesce(v_run.budget_usd_micros, v_caps.day_cap, v_caps.month_cap) is not null then
        return jsonb_build_object('result', 'unpriced', 'scope', case when v_run.budget_usd_micros is not null then 'run'
                                                                      when v_caps.day_cap is not null then 'day' else 'month' end);
    end if;
    -- What costs nothing fits into every budget.
    if v_reserve > 0 and v_run.spent_usd_micros + v_run.reserved_usd_micros + v_reserve > v_run.budget_usd_micros then
        return nofx.llm_over_budget('run', v_run.budget_usd_micros, v_run.spent_usd_micros,
                                    v_run.spent_usd_micros + v_run.reserved_usd_micros, v_reserve);
    end if;
    select * into v_spend from nofx.llm_spend_lock(v_tenant, v_now);
    if v_reserve > 0 and v_spend.day_used + v_reserve > v_caps.day_cap then
        return nofx.llm_over_budget('day', v_caps.day_cap, v_spend.day_spent, v_spend.day_used, v_reserve);
    elsif v_reserve > 0 and v_spend.month_used + v_reserve > v_caps.month_cap then
        return nofx.llm_over_budget('month', v_caps.month_cap, v_spend.month_spent, v_spend.month_used, v_reserve);
    end if;
    perform nofx.llm_account(v_tenant, v_run.id, v_now, 0, coalesce(v_reserve, 0));
    insert into nofx.llm_call (id, tenant_id, run_id, step_id, attempt, provider, model_requested, deployment, because, price_version, price,
                               reserved_usd_micros, started_at, due_at)
    values ((p ->> 'id')::uuid, v_tenant, v_run.id, (p ->> 'step_id')::uuid, (p ->> 'attempt')::integer, p ->> 'provider', p ->> 'model',
            p ->> 'deployment', p -> 'because', p #>> '{price,version}', nullif(p -> 'price', 'null') - 'version', v_reserve, v_now,
            v_now + make_interval(secs => (p ->> 'limit_ms')::numeric / 1000) + interval '60 s');
    perform nofx.runs_settle(array[nofx.fact(v_run.id, (p ->> 'step_id')::uuid, 'llm.attempt', jsonb_strip_nulls(jsonb_build_object(
        'call_id', p -> 'id', 'provider', p ->> 'provider', 'model_requested', p ->> 'model', 'reserved_usd_micros', v_reserve,
        'price_version', p #>> '{price,version}', 'because', p -> 'because')))], v_now);
    return '{"result": "granted"}';
end
$$;

-- Settles a request. p: {tenant_id, run_id, step_id, attempt, id, and what nofx.llm_settle takes, cooldown: {for_ms, of_model, kind, reason}, recovered}.
-- Also for an attempt that has lost its step. A repeated end changes nothing, but a known cost replaces a ceiling. Steps that waited for the
-- money that is free again go on.
-- -> {result: settled|corrected|repeated|unknown, ready: [wake-ups]}
create or replace function nofx.llm_call_end(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz;
    v_call nofx.llm_call;
begin
    if nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid) is null then
        return '{"result": "unknown"}';
    end if;
    v_now := clock_timestamp();
    select * into v_call
      from nofx.llm_call c
     where c.id = (p ->> 'id')::uuid and c.tenant_id = p ->> 'tenant_id' and c.run_id = (p ->> 'run_id')::uuid
       and c.step_id = (p ->> 'step_id')::uuid and c.attempt = (p ->> 'attempt')::integer;
    if not found then
        return '{"result": "unknown"}';
    end if;
    if v_call.state = 'settled' and not (v_call.is_estimated and p #>> '{charge,kind}' <> 'ceiling') then
        return '{"result": "repeated"}';
    end if;
    if (p ->> 'recovered')::boolean then
        delete from nofx.llm_cooldown c
         where c.tenant_id = v_call.tenant_id
           and c.deployment in (v_call.deployment, v_call.deployment || '/' || v_call.model_requested)
           -- What has failed since this request was sent has not recovered.
           and c.started_at < v_call.started_at;
    elsif jsonb_typeof(p -> 'cooldown') = 'object' then
        insert into nofx.llm_cooldown as c (tenant_id, deployment, until, kind, reason, started_at)
        values (v_call.tenant_id,
                v_call.deployment || case when (p #>> '{cooldown,of_model}')::boolean then '/' || v_call.model_requested else '' end,
                v_now + make_interval(secs => least((p #>> '{cooldown,for_ms}')::numeric / 1000, 86400)),
                left(p #>> '{cooldown,kind}', 50), left(p #>> '{cooldown,reason}', 500), v_now)
            on conflict (tenant_id, deployment) do update
                set until = greatest(c.until, excluded.until), kind = excluded.kind, reason = excluded.reason, started_at = excluded.started_at;
        -- Models come and go, so what ended is forgotten.
        delete from nofx.llm_cooldown c
         where c.ctid = any (array(select o.ctid from nofx.llm_cooldown o
                                    where o.tenant_id = v_call.tenant_id and o.until < v_now - interval '1 hour'
                                    limit 100 for update skip locked));
    end if;
    perform nofx.runs_settle(array[nofx.llm_settle(v_call, p, v_now)], v_now);
    return jsonb_build_object('result', case v_call.state when 'open' then 'settled' else 'corrected' end,
                              'ready', nofx.budgets_release(v_call.tenant_id, v_call.run_id, v_now));
end
$$;

-- Records what a streamed answer has so far, for people who watch. It is forgotten when the request is settled. Takes no lock of the run.
-- p: {tenant_id, run_id, step_id, attempt, id, bytes, tail}
-- -> {result: recorded|unknown}
create or replace function nofx.llm_call_progress(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    insert into nofx.llm_progress as g (call_id, tenant_id, step_id, attempt, bytes, tail, reported_at)
    select c.id, c.tenant_id, c.step_id, c.attempt, (p ->> 'bytes')::bigint, left(p ->> 'tail', 1000), clock_timestamp()
      from nofx.llm_call c
     where c.id = (p ->> 'id')::uuid and c.tenant_id = p ->> 'tenant_id' and c.run_id = (p ->> 'run_id')::uuid
       and c.step_id = (p ->> 'step_id')::uuid and c.attempt = (p ->> 'attempt')::integer and c.state = 'open'
        on conflict (call_id) do update set bytes = excluded.bytes, tail = excluded.tail, reported_at = excluded.reported_at;
    return jsonb_build_object('result', case when found then 'recorded' else 'unknown' end);
end
$$;

-- Trigger after delete of calls, with their runs: what is still reserved for them counts as spent.
create or replace function nofx.llm_calls_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    perform 1
       from nofx.llm_spend s
      where exists (select from gone g
                     where g.state = 'open' and s.tenant_id = g.tenant_id
                       and s.starts_on in (nofx.llm_month(g.started_at), nofx.llm_day(g.started_at)))
      order by s.tenant_id, s.period desc, s.starts_on
        for no key update;
    update nofx.llm_spend s
       set spent_usd_micros = s.spent_usd_micros + o.amount, reserved_usd_micros = s.reserved_usd_micros - o.amount
      from (select g.tenant_id, p.period, p.starts_on, sum(g.reserved_usd_micros)::bigint as amount
              from gone g
             cross join lateral (values ('month', nofx.llm_month(g.started_at)), ('day', nofx.llm_day(g.started_at))) p(period, starts_on)
             where g.state = 'open' and g.reserved_usd_micros > 0
             group by g.tenant_id, p.period, p.starts_on) o
     where s.tenant_id = o.tenant_id and s.period = o.period and s.starts_on = o.starts_on;
    return null;
end
$$;

-- Settles calls whose end never came, at what was reserved for them. -> {done, ready: []}
create or replace function nofx.sweep_calls(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_due uuid[];
    v_runs uuid[];
    v_call nofx.llm_call;
    v_changes nofx.change[] := '{}';
begin
    select array_agg(d.id), array_agg(distinct d.run_id) into v_due, v_runs
      from (select c.id, c.run_id from nofx.llm_call c
             where c.state = 'open' and c.due_at < v_now
             order by c.due_at limit p_limit) d;
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    for v_call in
        -- In the order of the locks of months and days.
        select c.* from nofx.llm_call c
         where c.id = any (v_due) and c.run_id = any (v_runs) and c.state = 'open'
         order by c.tenant_id, nofx.llm_month(c.started_at), nofx.llm_day(c.started_at), c.id
    loop
        v_changes := v_changes || nofx.llm_settle(v_call, jsonb_build_object(
            'charge', '{"kind": "ceiling"}'::jsonb, 'usable', false,
            'fault', '{"kind": "lost", "reason": "the worker never said how it ended"}'::jsonb), v_now);
    end loop;
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('done', cardinality(v_changes), 'ready', '[]'::jsonb);
end
$$;
select nofx.sweep_declare('nofx.sweep_calls(integer)');

revoke execute on function nofx.llm_day(timestamptz), nofx.llm_month(timestamptz), nofx.llm_caps(text), nofx.llm_terms(text, uuid),
    nofx.llm_spend_lock(text, timestamptz), nofx.llm_account(text, uuid, timestamptz, bigint, bigint),
    nofx.llm_settle(nofx.llm_call, jsonb, timestamptz), nofx.llm_over_budget(text, bigint, bigint, bigint, bigint), nofx.llm_calls_forget()
    from public;
select nofx.transition_declare('nofx.llm_call_start(jsonb)', 'nofx_worker');
select nofx.transition_declare('nofx.llm_call_end(jsonb)', 'nofx_worker');
select nofx.transition_declare('nofx.llm_call_progress(jsonb)', 'nofx_worker');

-- functions/run_create.sql sha256=1d9bd801685f7872c47f32c1027f3c8d81e8fdd30d35fcf4eca8aeb11a4c930f
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

-- functions/run_retry.sql sha256=4b07466ffb62488103190020a2dfe741c75473b2064dc01e1d2af8b20f8e8ea4
-- Starts the next generation of a failed or cancelled run. Steps that succeeded stay. All others start again: their blockers are counted
-- again, their failures and lost workers are 0 again, their attempt numbers continue. Gates that did not pass, and those that would not pass today, are
-- asked again.
-- p: {caller, run_id, actor}
-- -> {result: retried|conflict|not_found, status, generation, ready: [wake-ups]}, or {result: gone, artifact_id, storage} if the bytes are deleted of
-- its workspace, or of an artifact that a step names which runs again
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
      from nofx.run_artifact u
      join nofx.artifact_storage s on s.artifact_id = any (array[u.artifact_id])
     where u.run_id = v_run.id and s.tenant_id = v_run.tenant_id and s.state in ('deleting', 'deleted')
       and (exists (select from jsonb_each(v_run.workspace) w where w.value ->> 'id' = u.artifact_id::text)
            or exists (select from nofx.step t
                        where t.run_id = v_run.id and t.status <> 'succeeded'
                          and strpos(replace(lower(t.inputs::text), '-', ''), replace(u.artifact_id::text, '-', '')) > 0))
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

-- functions/seals.sql sha256=84f4a7f4d037f1c49dc5ddde7df79cec96c6bab8e5f63e29b782420e953a34af
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

-- functions/step_facts_insert.sql sha256=804d0d302b4fd5a7650531f5c2cc26c1bc4c536b0c401be0bfb33cb7b15e4a55
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
               -- A budget that nobody may approve has no expiry: it waits for the policy, for time, or for requests in flight.
               case when g.status = 'pending' and (g.gate_type <> 'budget' or g.subject ->> 'scope' = 'run'
                                                   and g.subject ->> 'waits_for' is distinct from 'reserved')
                    then nofx.approval_expiry(i.tenant_id, g.expires_after_s, p_now) end, p_now,
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

-- functions/steps_finish.sql sha256=7d922a29309b82d9aa865bdb83537586819f7862344ae8b464f98ab1f7933071
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

-- functions/steps_repair.sql sha256=007c58d2593e64fa32f714a0b575e2c45af2340beeaf03a050bef077a75c41af
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
                       when 'changes_refused' then g.tool = 'workspace:write' and s.repair is not null and s.name = any (g.refs)
                                                   and nofx.refers_to(g.inputs ->> 'from', s.name)
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

-- Whether a text refers to a step: as steps.NAME. or steps["NAME"].
create or replace function nofx.refers_to(p_text text, p_step text) returns boolean
    language sql immutable
as $$
    select strpos(p_text, 'steps.' || p_step || '.') > 0 or strpos(p_text, 'steps.' || p_step || '[') > 0
        or strpos(p_text, 'steps[' || to_json(p_step)::text || ']') > 0
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
revoke execute on function nofx.steps_repair(uuid[], timestamptz), nofx.artifact_ref(nofx.artifact), nofx.refers_to(text, text),
    nofx.steps_reopen(uuid, integer, uuid[], timestamptz, timestamptz) from public;
