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
