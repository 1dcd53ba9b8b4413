-- A Postgres as Supabase provides it: its roles, schemas and default privileges. Run it as a superuser other than
-- `postgres`, which is an ordinary role there that may create roles and databases.
create role postgres login createrole createdb replication bypassrls password 'postgres';
alter database postgres owner to postgres;

create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to postgres with admin option;

create role supabase_auth_admin login noinherit createrole;
create role supabase_storage_admin login noinherit createrole;
create role dashboard_user nologin createrole createdb replication;

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role;
create schema auth authorization supabase_auth_admin;
create schema storage authorization supabase_storage_admin;
create schema graphql_public;
create schema vault;
grant usage on schema auth, storage, public to postgres, anon, authenticated, service_role;

-- The most permissive of Supabase's defaults: the Data API may use everything that `postgres` creates in `public`.
alter default privileges for role postgres in schema public
    grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    grant all on sequences to postgres, anon, authenticated, service_role;

create function auth.jwt() returns jsonb language sql stable as $$
    select coalesce(nullif(current_setting('request.jwt.claim', true), ''),
                    nullif(current_setting('request.jwt.claims', true), ''))::jsonb
$$;
create function auth.uid() returns uuid language sql stable as $$
    select nullif(auth.jwt() ->> 'sub', '')::uuid
$$;
create function auth.role() returns text language sql stable as $$
    select auth.jwt() ->> 'role'
$$;
alter database postgres set search_path to "$user", public, extensions;
