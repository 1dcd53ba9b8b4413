-- Finds artifacts of a tenant for a worker, which may not read tables. p: {tenant_id, ids: [..]}
-- -> [{id, uri, hash, size_bytes, media_type}], without ids that the tenant does not have.
create or replace function nofx.artifacts_find(p jsonb) returns jsonb
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'uri', a.uri, 'hash', a.hash,
                                                 'size_bytes', a.size_bytes, 'media_type', a.media_type)), '[]')
      from nofx.artifact a
     where a.tenant_id = p ->> 'tenant_id'
       and a.id = any (array(select jsonb_array_elements_text(p -> 'ids')::uuid))
$$;
select nofx.transition_declare('nofx.artifacts_find(jsonb)', 'nofx_worker');
