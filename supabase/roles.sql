-- Roles of the local cluster. The Supabase CLI runs this file before the migrations. The first migration creates the same
-- roles if they are missing. Here `postgres`, which is not a superuser on Supabase, also becomes a member of them, so that it
-- can `set role nofx_worker`, as it can with `anon` and `authenticated`.
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
