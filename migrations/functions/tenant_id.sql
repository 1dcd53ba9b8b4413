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

-- The tenant of a person who reads directly, as a client of Supabase: that of the claims, if the person is a member. The JWT of a removed member
-- may be valid for some time, but it reads no rows.
create or replace function nofx.member_tenant() returns text
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select m.tenant_id
      from nofx.membership m
      join nofx.tenant t on t.tenant_id = m.tenant_id
     where m.tenant_id = nofx.tenant_id()
       and m.subject = nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
       and m.removed_at is null and t.disabled_at is null
$$;
revoke execute on function nofx.member_tenant() from public;
grant execute on function nofx.member_tenant() to authenticated;
