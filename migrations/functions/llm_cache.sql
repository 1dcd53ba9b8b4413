-- Finds an earlier answer of a model whose bytes are neither archived nor deleted. Only steps `codegen` that ask for the cache record keys, and no client writes metadata.
-- p: {tenant_id, key, max_age_s}
-- -> {found: {artifact: as nofx.artifact_ref, run_id, metadata, age_s, cost_usd_micros}}, where found is null without one, and the cost without
-- a price
create or replace function nofx.llm_cached(p jsonb) returns jsonb
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select jsonb_build_object('found', (
        select jsonb_build_object(
                   'artifact', nofx.artifact_ref(a), 'run_id', a.run_id, 'metadata', a.metadata,
                   'age_s', greatest(0, extract(epoch from clock_timestamp() - a.created_at)::bigint),
                   'cost_usd_micros', (select sum(c.charged_usd_micros)::bigint from nofx.llm_call c
                                        where c.step_id = any (array[a.step_id]) and c.attempt = a.attempt))
          from nofx.artifact a
          join nofx.step s on s.id = any (array[a.step_id])
         where a.tenant_id = p ->> 'tenant_id' and a.metadata ? 'cache_key' and a.metadata ->> 'cache_key' = p ->> 'key'
           and a.created_at > clock_timestamp() - make_interval(secs => (p ->> 'max_age_s')::integer)
           and not exists (select from nofx.artifact_storage t where t.artifact_id = a.id)
           and s.tenant_id is not distinct from a.tenant_id and s.tool = 'codegen'
         order by a.created_at desc, a.id desc limit 1))
$$;
select nofx.transition_declare('nofx.llm_cached(jsonb)', 'nofx_worker');
