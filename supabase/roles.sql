-- Roles of the local cluster. The Supabase CLI runs this file before the migrations, which create the same roles if they are missing. This
-- file also makes `postgres` a member of them. On Supabase it is not a superuser, so it needs that for `set role nofx_worker`, as for
-- `anon` and `authenticated`.
do $$
begin
    if not exists (select from pg_roles where rolname = 'nofx_api') then
        create role nofx_api nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'nofx_worker') then
        create role nofx_worker nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'nofx_writer') then
        create role nofx_writer nologin;
    end if;
end
$$;
grant nofx_api, nofx_worker, nofx_writer to postgres;
grant nofx_writer to nofx_worker;
