-- Stores the issuer's public keys, for a process that starts while the issuer's key endpoint is down. A process needs them before it knows its
-- caller, so these two functions take no caller.

-- Stores the document of an issuer, and replaces an older one. Many processes call it, so it writes only a different document, or one that is more
-- than 30 minutes newer. p: {tenant_id, issuer, document, fetched_at_ms} -> {result: stored|unchanged}. The tenant is that of the deployment.
create or replace function nofx.jwks_store(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_fetched_at timestamptz := to_timestamp((p ->> 'fetched_at_ms')::bigint / 1000.0);
begin
    insert into nofx.jwks as j (tenant_id, issuer, document, fetched_at)
    values (p ->> 'tenant_id', p ->> 'issuer', p ->> 'document', least(v_fetched_at, clock_timestamp()))
        on conflict (tenant_id, issuer) do update set document = excluded.document, fetched_at = excluded.fetched_at
     where excluded.fetched_at > j.fetched_at
       and (excluded.document <> j.document or excluded.fetched_at > j.fetched_at + interval '30 minutes');
    return jsonb_build_object('result', case when found then 'stored' else 'unchanged' end);
end
$$;
select nofx.transition_declare('nofx.jwks_store(jsonb)', 'nofx_api');

-- The last document of an issuer. p: {tenant_id, issuer} -> {document, fetched_at_ms}, both null if there is none.
create or replace function nofx.jwks_last(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_jwks nofx.jwks;
begin
    select * into v_jwks from nofx.jwks j where j.tenant_id = p ->> 'tenant_id' and j.issuer = p ->> 'issuer';
    return jsonb_build_object('document', v_jwks.document,
                              'fetched_at_ms', (extract(epoch from v_jwks.fetched_at) * 1000)::bigint);
end
$$;
select nofx.transition_declare('nofx.jwks_last(jsonb)', 'nofx_api');
