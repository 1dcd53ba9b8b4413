-- Whether no rule may open the schema: those of Postgres, of the control plane, and of Supabase.
create or replace function nofx.schema_is_closed(p_schema text) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select p_schema like 'pg\_%' or p_schema in (
        'nofx', 'information_schema', 'supabase_migrations', 'auth', 'storage', 'vault', 'realtime', 'extensions',
        'graphql', 'graphql_public', 'cron', 'net', 'pgbouncer')
$$;

-- Whether the value is a list of different, non-empty texts.
create or replace function nofx.is_name_list(p jsonb) returns boolean
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
begin
    return jsonb_typeof(p) = 'array'
        and not exists (select from jsonb_array_elements(p) e where jsonb_typeof(e) <> 'string' or e #>> '{}' = '')
        and (select count(*) = count(distinct e) from jsonb_array_elements(p) e);
end
$$;

-- Whether a rule has exactly one meaning. Unknown keys and other types are refused.
create or replace function nofx.rule_is_sound(p_table text, p_ops text[], p jsonb) returns boolean
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
begin
    return not nofx.schema_is_closed(split_part(p_table, '.', 1))
        and cardinality(p_ops) between 1 and 3
        and p - array['columns', 'key', 'max_rows', 'role', 'triggers', 'dependants', 'allow'] = '{}'
        and nofx.is_name_list(coalesce(p -> 'columns', '[]'))
        and nofx.is_name_list(coalesce(p -> 'key', '[]'))
        and (not p ? 'max_rows' or p ->> 'max_rows' ~ '^[1-9][0-9]{0,3}$' and jsonb_typeof(p -> 'max_rows') = 'number'
             and (p ->> 'max_rows')::integer <= 1000)
        and (not p ? 'role' or jsonb_typeof(p -> 'role') = 'string' and p ->> 'role' <> '')
        and jsonb_typeof(coalesce(p -> 'triggers', '{}')) = 'object'
        and not exists (select from jsonb_each(coalesce(p -> 'triggers', '{}')) t
                         where jsonb_typeof(t.value) <> 'string' or t.value #>> '{}' !~ '^[0-9a-f]{64}$')
        and jsonb_typeof(coalesce(p -> 'dependants', '{}')) = 'object'
        and not exists (select from jsonb_each(coalesce(p -> 'dependants', '{}')) d
                         where d.key !~ '^[^.]+\.[^.]+$' or jsonb_typeof(d.value) <> 'number'
                            or d.value #>> '{}' !~ '^[0-9]{1,6}$'
                            or nofx.schema_is_closed(split_part(d.key, '.', 1)))
        and nofx.is_name_list(coalesce(p -> 'allow', '[]'))
        and coalesce(p -> 'allow', '[]') <@ '["view", "foreign_table", "inheritance"]';
end
$$;

-- Trigger: records every change of a rule, whoever makes it and in whatever way.
create or replace function nofx.rule_changed() returns trigger
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_rule nofx.db_write_rule := coalesce(new, old);
begin
    insert into nofx.tenant_event (tenant_id, type, subject, actor, payload)
    values (v_rule.tenant_id, case when new is null then 'rule.deleted' else 'rule.set' end, v_rule.table_name,
            coalesce(nullif(current_setting('nofx.actor', true), ''), 'database:' || session_user),
            jsonb_build_object(
                'before', case when old is not null
                               then jsonb_build_object('allowed_ops', old.allowed_ops) || old.constraints end,
                'after', case when new is not null
                              then jsonb_build_object('allowed_ops', new.allowed_ops) || new.constraints end));
    return null;
end
$$;

-- Sets the rule of a table. p: {caller, table_name, actor, allowed_ops, constraints} -> {result: created|replaced|closed}
create or replace function nofx.rule_set(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_created boolean;
begin
    p := nofx.admitted(p, 'rules.write');
    if exists (select from jsonb_object_keys(jsonb_build_object(p ->> 'table_name', 0)
                                             || coalesce(p -> 'constraints' -> 'dependants', '{}')) name
                where nofx.schema_is_closed(split_part(name, '.', 1))) then
        return jsonb_build_object('result', 'closed');
    end if;
    perform set_config('nofx.actor', p ->> 'actor', true);
    insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops, constraints)
    values (p ->> 'tenant_id', p ->> 'table_name', array(select jsonb_array_elements_text(p -> 'allowed_ops')),
            p -> 'constraints')
        on conflict (tenant_id, table_name) do update
           set allowed_ops = excluded.allowed_ops, constraints = excluded.constraints, updated_at = now()
    returning xmax = 0 into v_created;
    return jsonb_build_object('result', case when v_created then 'created' else 'replaced' end);
end
$$;

-- Deletes the rule of a table. p: {caller, table_name, actor} -> {result: deleted|not_found}
create or replace function nofx.rule_delete(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    p := nofx.admitted(p, 'rules.write');
    perform set_config('nofx.actor', p ->> 'actor', true);
    delete from nofx.db_write_rule r where r.tenant_id = p ->> 'tenant_id' and r.table_name = p ->> 'table_name';
    return jsonb_build_object('result', case when found then 'deleted' else 'not_found' end);
end
$$;
revoke execute on function nofx.schema_is_closed(text), nofx.is_name_list(jsonb), nofx.rule_is_sound(text, text[], jsonb),
    nofx.rule_changed(), nofx.rule_set(jsonb), nofx.rule_delete(jsonb) from public;
grant execute on function nofx.rule_set(jsonb), nofx.rule_delete(jsonb) to nofx_api;
