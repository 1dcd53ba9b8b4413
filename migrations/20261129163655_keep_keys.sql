-- Keeps the public keys of issuers, for processes that start while an issuer is down.

-- The last document of each issuer. The tenant is that of the deployment which trusts the issuer.
create table nofx.jwks (
    tenant_id  text not null check (length(tenant_id) between 1 and 64),
    issuer     text not null check (length(issuer) between 1 and 255),
    document   text not null check (length(document) <= 65536),
    fetched_at timestamptz not null,
    primary key (tenant_id, issuer)
);
alter table nofx.jwks enable row level security;
create policy tenant_isolation on nofx.jwks for select to nofx_api using (tenant_id = (select nofx.tenant_id()));

-- Copies of the files in functions/. Change those files, not this one.

-- functions/jwks.sql sha256=1eb1d60807d15205dedace27fba7a85e653169d062c28be925612a2b1f3667a5
-- The public keys of the issuer, for a process that starts while the issuer gives none. A function that is about to verify a token has no caller
-- yet, so these two take none.

-- Keeps the document of an issuer, in place of an older one. Many processes call it: it writes only another document, or one that is half an
-- hour newer. p: {tenant_id, issuer, document, fetched_at_ms} -> {result: stored|unchanged}. The tenant is that of the deployment.
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
