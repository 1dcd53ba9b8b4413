-- Seed of the local stack and of `supabase start`: a table that plans of the tenant `local` may write, and its rule.
create table if not exists public.products (
    id         bigint generated always as identity primary key,
    name       text not null check (name <> ''),
    price      numeric(12, 2) not null check (price >= 0),
    created_at timestamptz not null default now()
);

-- On a laptop, the writer's role may use every table that `postgres` creates, so only rules decide what plans may write. In production,
-- grant each table by name.
grant usage on schema public to nofx_writer;
grant select, insert, update, delete on all tables in schema public to nofx_writer;
grant usage on all sequences in schema public to nofx_writer;
alter default privileges grant usage on schemas to nofx_writer;
alter default privileges grant select, insert, update, delete on tables to nofx_writer;
alter default privileges grant usage on sequences to nofx_writer;

insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops, constraints)
values ('local', 'public.products', array['insert', 'update'],
        '{"columns": ["name", "price"], "key": ["id"], "max_rows": 100}')
    on conflict (tenant_id, table_name) do nothing;
