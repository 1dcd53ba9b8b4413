-- The tenant of a reader under row level security, from the claims of its JWT. Works with and without Supabase's auth schema.
create or replace function nofx.tenant_id() returns text
    language sql stable
    set search_path = ''
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'app_metadata' ->> 'tenant_id',
        '')
$$;
grant execute on function nofx.tenant_id() to public;
