-- Records an upload of a tenant that belongs to no run yet. p: {caller, id, name, type, uri, hash, size_bytes, media_type}. Safe to repeat.
-- -> {result: stored}
create or replace function nofx.artifact_upload(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    p := nofx.admitted(p, 'workspaces.create');
    if not exists (select from nofx.artifact a where a.id = (p ->> 'id')::uuid) then
        perform nofx.limits_admit_upload(p ->> 'tenant_id', (p ->> 'size_bytes')::bigint);
    end if;
    insert into nofx.artifact (id, tenant_id, name, type, uri, hash, size_bytes, media_type, created_by)
    values ((p ->> 'id')::uuid, p ->> 'tenant_id', p ->> 'name', p ->> 'type', p ->> 'uri', p ->> 'hash',
            (p ->> 'size_bytes')::bigint, p ->> 'media_type', nofx.author_of(p, 'uploaded'))
        on conflict (id) do nothing;
    return jsonb_build_object('result', 'stored');
end
$$;
select nofx.transition_declare('nofx.artifact_upload(jsonb)', 'nofx_api');
