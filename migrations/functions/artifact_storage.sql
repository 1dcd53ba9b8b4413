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
