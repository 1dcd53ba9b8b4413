-- The keys of an object; an empty array for any other value.
create or replace function nofx.keys_of(p jsonb) returns text[]
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
begin
    if jsonb_typeof(p) is distinct from 'object' then
        return '{}';
    end if;
    return array(select jsonb_object_keys(p));
end
$$;

-- A table's name as rules write it: schema.table.
create or replace function nofx.table_label(p_relation oid) returns text
    language sql stable
    set search_path = ''
as $$
    select n.nspname || '.' || c.relname
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = p_relation
$$;

-- Everything about a table that could make a write do more than it says. Null if there is no such table.
-- -> {oid, table, kind, counts, members: [tables], inherited, closed: [tables], definer_views: [views],
--     triggers: {name: sha256}, deferrable: [triggers],
--     foreign_keys: [{parent, child, on_delete, on_update, parent_columns, child_columns}]}
--
-- members        the table, its partitions, and the tables that inherit from it
-- triggers       enabled triggers and rewrite rules (`rule:name`) of the members, of what a view reads, of every table that a cascade
--                reaches, and of p_dependants; each with the sha256 of its definition and of its function's definition
-- deferrable     those of them that could run after rows were counted
-- closed         tables of closed schemas that a view or a cascade reaches
-- definer_views  views that read with their owner's rights
create or replace function nofx.db_write_target(p_schema text, p_table text, p_dependants text[] default '{}') returns jsonb
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_oid oid;
    v_kind "char";
    v_members oid[];
    v_read oid[];
    v_reached oid[];
begin
    select c.oid, c.relkind into v_oid, v_kind
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = p_schema and c.relname = p_table;
    if not found then
        return null;
    end if;
    with recursive member(id) as (
        select v_oid union select i.inhrelid from member m join pg_inherits i on i.inhparent = m.id
    )
    select array_agg(m.id) into v_members from member m;
    with recursive read(id) as (
        select v_oid
        union
        select d.refobjid
          from read r
          join pg_rewrite w on w.ev_class = r.id
          join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                          and d.refclassid = 'pg_class'::regclass
    )
    select array_agg(r.id) into v_read from read r;
    -- Follows foreign keys that change their child's rows. The key of a partitioned table stands for those of its partitions.
    with recursive reached(id) as (
        select unnest(v_members || v_read || pg_partition_root(v_oid)::oid
                      || array(select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
                                where n.nspname || '.' || c.relname = any (p_dependants)))
        union
        select k.conrelid
          from reached r
          join pg_constraint k on k.confrelid = r.id and k.contype = 'f'
         where k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd')
    )
    select array_agg(r.id) into v_reached from reached r where r.id is not null;
    return jsonb_build_object(
        'oid', v_oid::bigint, 'table', nofx.table_label(v_oid), 'kind', v_kind,
        'counts', current_setting('track_counts') = 'on',
        'members', (select jsonb_agg(nofx.table_label(m) order by m) from unnest(v_members) m),
        'inherited', exists (select from pg_inherits i join pg_class c on c.oid = i.inhrelid
                              where i.inhparent = any (v_members) and not c.relispartition),
        'closed', coalesce((
            select jsonb_agg(distinct nofx.table_label(c.oid))
              from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where c.oid = any (v_reached) and nofx.schema_is_closed(n.nspname)), '[]'),
        'definer_views', coalesce((
            select jsonb_agg(nofx.table_label(c.oid) order by c.oid)
              from pg_class c
             where c.oid = any (v_read) and c.relkind = 'v'
               and not coalesce(c.reloptions && array['security_invoker=true', 'security_invoker=on',
                                                      'security_invoker=1', 'security_invoker=yes'], false)), '[]'),
        'triggers', coalesce((
            select jsonb_object_agg(d.name, encode(sha256(convert_to(d.definition, 'UTF8')), 'hex'))
              from (select nofx.table_label(t.tgrelid) || '.' || t.tgname as name,
                           concat_ws(E'\n', pg_get_triggerdef(t.oid), pg_get_functiondef(t.tgfoid),
                                     p.proowner::regrole, t.tgenabled) as definition
                      from pg_trigger t join pg_proc p on p.oid = t.tgfoid
                     where t.tgrelid = any (v_reached) and not t.tgisinternal and t.tgenabled <> 'D'
                    union all
                    select nofx.table_label(w.ev_class) || '.rule:' || w.rulename,
                           concat_ws(E'\n', pg_get_ruledef(w.oid), w.ev_enabled)
                      from pg_rewrite w
                     where w.ev_class = any (v_reached) and w.rulename <> '_RETURN'
                       and w.ev_enabled <> 'D') d), '{}'),
        'deferrable', coalesce((
            select jsonb_agg(nofx.table_label(t.tgrelid) || '.' || t.tgname order by t.oid)
              from pg_trigger t
             where t.tgrelid = any (v_reached) and not t.tgisinternal and t.tgenabled <> 'D' and t.tgdeferrable), '[]'),
        'foreign_keys', coalesce((
            select jsonb_agg(jsonb_build_object(
                       'parent', nofx.table_label(k.confrelid), 'child', nofx.table_label(k.conrelid),
                       'on_delete', k.confdeltype, 'on_update', k.confupdtype,
                       'parent_columns', (select jsonb_agg(a.attname) from pg_attribute a
                                           where a.attrelid = k.confrelid and a.attnum = any (k.confkey)),
                       'child_columns', (select jsonb_agg(a.attname) from pg_attribute a
                                          where a.attrelid = k.conrelid and a.attnum = any (k.conkey)))
                       order by k.oid)
              from pg_constraint k
             where k.contype = 'f' and k.confrelid = any (v_reached) and k.conparentid = 0
               and (k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd'))), '[]'));
end
$$;

-- Rows that this connection has changed and not yet reported, by table: [{table, root, closed, inserted, updated, deleted}]. `root` is the
-- partitioned table that a partition belongs to. Rows that cascades and triggers changed are included, also in tables that the role cannot
-- see. The server reports only when a connection is idle, so the counts may include earlier transactions: what one transaction did is the
-- difference of two calls.
create or replace function nofx.db_write_effects() returns jsonb
    language sql volatile
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'table', s.schemaname || '.' || s.relname,
               'root', nofx.table_label(coalesce(pg_partition_root(s.relid)::oid, s.relid)),
               'closed', nofx.schema_is_closed(s.schemaname),
               'inserted', s.n_tup_ins, 'updated', s.n_tup_upd, 'deleted', s.n_tup_del)), '[]')
      from pg_stat_xact_user_tables s
     where s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0
$$;

-- What a write needs to know before it begins. p: {tenant_id, step_id, schema, table}
-- -> {closed, rule: {allowed_ops, ..constraints}, is_rule_approved, role: {name, state}, target, effects}. is_rule_approved: false if people
-- approved the step while another rule was in force.
create or replace function nofx.db_write_look(p jsonb) returns jsonb
    language plpgsql volatile
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_rule record;
    v_role text;
begin
    select r.allowed_ops, r.constraints into v_rule
      from nofx.db_write_rule r
     where r.tenant_id = p ->> 'tenant_id' and r.table_name = (p ->> 'schema') || '.' || (p ->> 'table');
    if not found then
        return jsonb_build_object('closed', nofx.schema_is_closed(p ->> 'schema'), 'rule', null);
    end if;
    v_role := coalesce(v_rule.constraints ->> 'role', 'nofx_writer');
    return jsonb_build_object(
        'closed', nofx.schema_is_closed(p ->> 'schema'),
        'rule', v_rule.constraints || jsonb_build_object('allowed_ops', v_rule.allowed_ops),
        'is_rule_approved', not exists (
            select from nofx.step s
             where s.id = (p ->> 'step_id')::uuid and s.tenant_id = p ->> 'tenant_id' and s.approval is not null
               and not exists (select from nofx.gate g
                                where g.step_id = s.id and g.gate_type = nofx.approval_type(s.tool) and g.status in ('passed', 'waived')
                                  and g.voided_at is null and g.bound ->> 'rule' is not distinct from nofx.rule_binding(s))),
        'role', coalesce((
            with recursive belongs(id) as (
                select r.oid from pg_roles r where r.rolname = v_role
                union
                select m.roleid from belongs b join pg_auth_members m on m.member = b.id
            )
            select jsonb_build_object(
                       'name', v_role,
                       'state', case when count(*) = 0 then 'missing'
                                     when bool_or(r.rolsuper or r.rolbypassrls) then 'superuser'
                                     -- Policies do not apply to a table's owner.
                                     when exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                                                   where n.nspname = p ->> 'schema' and c.relname = p ->> 'table'
                                                     and c.relowner = any (array_agg(r.oid))) then 'owner'
                                     when bool_or(has_schema_privilege(r.oid, 'nofx', 'usage')) then 'reaches_us'
                                     when not bool_or(r.rolname = v_role and pg_has_role(session_user, r.oid, 'member'))
                                          then 'no_member'
                                     else 'usable' end)
              from belongs b join pg_roles r on r.oid = b.id), '{}'),
        'target', nofx.db_write_target(p ->> 'schema', p ->> 'table', nofx.keys_of(v_rule.constraints -> 'dependants')),
        'effects', nofx.db_write_effects());
end
$$;

-- What a write has done, within its transaction. p: {schema, table, dependants: [tables]}
-- -> {target, effects, alters}. `alters`: a table was truncated or altered, which no counter shows. Only such statements lock a table against
-- readers.
create or replace function nofx.db_write_account(p jsonb) returns jsonb
    language plpgsql volatile
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    return jsonb_build_object(
        'target', nofx.db_write_target(p ->> 'schema', p ->> 'table',
                                       array(select jsonb_array_elements_text(p -> 'dependants'))),
        'effects', nofx.db_write_effects(),
        'alters', exists (select from pg_locks l
                           where l.pid = pg_backend_pid() and l.locktype = 'relation'
                             and l.mode = 'AccessExclusiveLock'));
end
$$;
revoke execute on function nofx.keys_of(jsonb), nofx.table_label(oid), nofx.db_write_target(text, text, text[]),
    nofx.db_write_effects(), nofx.db_write_look(jsonb), nofx.db_write_account(jsonb) from public;
grant execute on function nofx.db_write_look(jsonb), nofx.db_write_account(jsonb) to nofx_worker;
grant execute on function nofx.db_write_target(text, text, text[]), nofx.keys_of(jsonb) to nofx_api;
