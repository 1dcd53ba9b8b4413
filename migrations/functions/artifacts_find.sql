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
