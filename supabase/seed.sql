-- Seed of the local tenant, for the local stack and `supabase start`: a table that plans may write, and its rule.
create table if not exists public.products (
    id         bigint generated always as identity primary key,
    name       text not null check (name <> ''),
    price      numeric(12, 2) not null check (price >= 0),
    created_at timestamptz not null default now()
);

insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops, constraints)
values ('local', 'public.products', array['insert', 'update'],
        '{"columns": ["name", "price"], "key": ["id"], "max_rows": 100}')
    on conflict (tenant_id, table_name) do nothing;
