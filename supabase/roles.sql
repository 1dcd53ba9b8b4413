-- Roles of the local cluster; the Supabase CLI runs this before the migrations. They are the ones that the first
-- migration makes where they are missing: here `postgres`, who is no superuser on Supabase, may also become them
-- (`set role nofx_worker`), as it may become `anon` and `authenticated`.
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
