-- Functions move to functions/, one home for each; this file brings what changed with the move to databases that know versioned files alone.

-- Replaced under another signature or result, or needed no longer. The same transaction makes their successors, below.
drop function nofx.wakeups(nofx.change[], timestamptz);
drop function nofx.children_release(uuid[], timestamptz);
drop function nofx.step_claimed(uuid, integer);
drop function nofx.step_upstream(uuid, text[]);
drop function nofx.step_take(text, uuid, uuid, integer, uuid, text, integer, integer, timestamptz);
drop function nofx.steps_claim(jsonb, uuid);
drop function nofx.steps_finish(jsonb, jsonb);

-- Steps and edges lose their foreign keys, as attempts and events never had any. Only nofx.run_create writes both, in the statement that
-- also writes their run; checking each key again cost 8 % of the engine's time. Delete triggers keep the cascade.
alter table nofx.step drop constraint step_run_id_fkey;
alter table nofx.step_edge drop constraint step_edge_parent_id_fkey, drop constraint step_edge_child_id_fkey;

create function nofx.steps_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.step s using gone g where s.run_id = g.id;
    return null;
end
$$;
create trigger steps_forget after delete on nofx.run
    referencing old table as gone for each statement execute function nofx.steps_forget();

create function nofx.edges_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.step_edge e using gone g where e.parent_id = g.id;
    delete from nofx.step_edge e using gone g where e.child_id = g.id;
    return null;
end
$$;
create trigger edges_forget after delete on nofx.step
    referencing old table as gone for each statement execute function nofx.edges_forget();

-- Without the id as a key: a look-up of one run by its id could take this index too, and read all of the tenant's runs. Lists sort the few runs
-- that were created in the same microsecond.
drop index nofx.run_list;
create index run_list on nofx.run (tenant_id, created_at desc) include (id);

-- What follows was copied from the files below functions/: change those, never this.

-- functions/_transition_declare.sql sha256=bbbb97c619a94b14daef0998a49c387017c5d5e6a65ba6bde7b0f72ee8259e9c
-- Makes a function callable from outside: by one role, with the planner settings that every transition needs. Each file here that
-- defines such a function ends with a call of this one, because `create or replace` resets a function's settings.
--
-- The planner settings make plans independent of statistics. Every transition looks rows up by key, a batch at a time, and a pooled
-- connection keeps its plans for hours. A plan made while a table was young would scan the whole table after it has grown.
--   plan_cache_mode = force_generic_plan   plan once a session, not for each of the first five calls
--   enable_seqscan, _hashjoin, _mergejoin  only nested loops over index look-ups find a batch's rows without reading a table
--   cpu_tuple_cost, cpu_index_tuple_cost,
--   random_page_cost                       count the rows that a plan touches, not pages: a young table has one page
--   jit                                    compiling costs more than any transition
--
-- They cannot help where a table had a handful of rows: reading its whole index costs as much as a look-up then. Joins by key are therefore
-- written `s.id = any (array[i.step_id])`. Postgres cannot merge-join on that, so it has no reason to read an index in its order, and a
-- look-up is the only way that is left. `is not distinct from` checks a column without offering its index.
create or replace function nofx.transition_declare(p_function regprocedure, p_role regrole) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_setting text;
begin
    foreach v_setting in array array[
        'plan_cache_mode = force_generic_plan', 'enable_seqscan = off', 'enable_hashjoin = off', 'enable_mergejoin = off',
        'cpu_tuple_cost = 1', 'cpu_index_tuple_cost = 1', 'random_page_cost = 1', 'jit = off']
    loop
        execute format('alter function %s set %s', p_function, v_setting);
    end loop;
    execute format('revoke execute on function %s from public', p_function);
    execute format('grant execute on function %s to %s', p_function, p_role);
end
$$;
revoke execute on function nofx.transition_declare(regprocedure, regrole) from public;

-- The same for the sweeper's functions. The planner takes "due by now" for a third of all steps. A bitmap of the index of what is due
-- would read every entry that has passed through it since the last vacuum; reading the index in its order stops at the first step that
-- is not due yet.
create or replace function nofx.sweep_declare(p_function regprocedure) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    perform nofx.transition_declare(p_function, 'nofx_worker');
    execute format('alter function %s set enable_bitmapscan = off', p_function);
    execute format('alter function %s set max_parallel_workers_per_gather = 0', p_function);
end
$$;
revoke execute on function nofx.sweep_declare(regprocedure) from public;

-- functions/artifacts_find.sql sha256=bd817a4b73fc367f46ee3d72c65dbeba9fb4c89825428ffb0f7bfa5924d5e1d1
-- Finds artifacts of a tenant for a worker, which may not read tables. p: {tenant_id, ids: [..]}
-- -> [{id, uri, hash, size_bytes, media_type}], without ids that the tenant does not have.
create or replace function nofx.artifacts_find(p jsonb) returns jsonb
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'uri', a.uri, 'hash', a.hash,
                                                 'size_bytes', a.size_bytes, 'media_type', a.media_type)), '[]')
      from nofx.artifact a
     where a.tenant_id = p ->> 'tenant_id'
       and a.id = any (array(select jsonb_array_elements_text(p -> 'ids')::uuid))
$$;
select nofx.transition_declare('nofx.artifacts_find(jsonb)', 'nofx_worker');

-- functions/attempt_is_live.sql sha256=73131e78a851632a1ee08a532545b26225f13ae2940ff9dda3a8638f7b0ca96f
-- Whether an attempt still owns its step. Reads one row by its key and takes no lock. p: {tenant_id, run_id, step_id, attempt} -> boolean
create or replace function nofx.attempt_is_live(p jsonb) returns jsonb
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select to_jsonb(exists (
        select from nofx.step s
         where s.id = (p ->> 'step_id')::uuid and s.run_id is not distinct from (p ->> 'run_id')::uuid
           and s.tenant_id = p ->> 'tenant_id'
           and s.status = 'running' and s.attempt = (p ->> 'attempt')::integer))
$$;
select nofx.transition_declare('nofx.attempt_is_live(jsonb)', 'nofx_worker');

-- functions/attempt_usage_record.sql sha256=620b4db08ffe2878839ff4605fba03b75241b0bd94921f2e5fecf2a3109579ec
-- Records what a fenced-out attempt (cancelled, or its lease ended) has spent: its usage events, and nothing else.
-- p: {tenant_id, run_id, step_id, attempt, events: [{type, payload}]}
-- -> how many events were recorded. Each carries `late_attempt`. A repeated call finds them and records nothing.
create or replace function nofx.attempt_usage_record(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run_id uuid := (p ->> 'run_id')::uuid;
    v_step_id uuid := (p ->> 'step_id')::uuid;
    v_attempt integer := (p ->> 'attempt')::integer;
    v_changes nofx.change[];
begin
    if nofx.run_lock(p ->> 'tenant_id', v_run_id) is null then
        return '0';
    end if;
    perform 1
       from nofx.attempt a
      where a.step_id = v_step_id and a.attempt = v_attempt and a.run_id = v_run_id
        and a.tenant_id = p ->> 'tenant_id' and a.status in ('cancelled', 'lost');
    if not found or exists (
        select from nofx.event e
         where e.run_id = v_run_id and e.step_id = v_step_id and e.type = 'codegen.usage'
           and e.payload -> 'late_attempt' = to_jsonb(v_attempt))
    then
        return '0';
    end if;
    select array_agg(nofx.fact(v_run_id, v_step_id, 'codegen.usage',
                               (e.event -> 'payload') || jsonb_build_object('late_attempt', v_attempt))
                     order by e.position)
      into v_changes
      from jsonb_array_elements(p -> 'events') with ordinality as e(event, position)
     where e.event ->> 'type' = 'codegen.usage' and jsonb_typeof(e.event -> 'payload') = 'object'
       and e.position <= 100;
    if v_changes is not null then
        perform nofx.runs_settle(v_changes, clock_timestamp());
    end if;
    return to_jsonb(coalesce(cardinality(v_changes), 0));
end
$$;
select nofx.transition_declare('nofx.attempt_usage_record(jsonb)', 'nofx_worker');

-- functions/cascades.sql sha256=3d9aacbdba25e8c116fb57a20dd8043607f25de1c0a28b21871fe4bd85e93f80
-- Statement triggers after delete. They do what foreign keys with `on delete cascade` would do for steps, edges, attempts and events. `gone`
-- are the deleted runs or steps.

create or replace function nofx.attempts_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.attempt a using gone g where a.step_id = g.id;
    return null;
end
$$;

create or replace function nofx.events_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.event e using gone g where e.run_id = g.id;
    return null;
end
$$;

create or replace function nofx.steps_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.step s using gone g where s.run_id = g.id;
    return null;
end
$$;

create or replace function nofx.edges_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.step_edge e using gone g where e.parent_id = g.id;
    delete from nofx.step_edge e using gone g where e.child_id = g.id;
    return null;
end
$$;

revoke execute on function nofx.attempts_forget(), nofx.events_forget(), nofx.steps_forget(), nofx.edges_forget() from public;

-- functions/change.sql sha256=73faca73ae55ae3f6bacbc2bee1ee40514a4db5ccec3bc981c3dedcfe3b27365
-- A transition collects what it did as nofx.change[]; nofx.runs_settle turns that into counters, states and events. These
-- constructors are plain SQL without settings of their own: the planner inlines them, so they cost nothing.

-- A step changes its state. With no event, the timeline does not show it.
create or replace function nofx.step_change(
    p_run_id uuid, p_step_id uuid, p_from text, p_to text, p_event text, p_payload jsonb default null
) returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, p_from, p_to, p_event, p_payload, 0)::nofx.change
$$;

-- An event that changes no state: of a step, or of the run (p_step_id null).
create or replace function nofx.fact(p_run_id uuid, p_step_id uuid, p_event text, p_payload jsonb default null)
    returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, null, null, p_event, p_payload, 0)::nofx.change
$$;

-- A gate becomes pending (p_pending 1) or is no longer pending (-1). Only gates of the run itself are counted in its row.
create or replace function nofx.gate_change(
    p_run_id uuid, p_step_id uuid, p_event text, p_payload jsonb, p_pending integer
) returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, null, null, p_event, p_payload,
               case when p_step_id is null then p_pending else 0 end)::nofx.change
$$;

-- The steps that became ready.
create or replace function nofx.made_ready(p_changes nofx.change[]) returns uuid[]
    language sql immutable
as $$
    select array(select c.step_id from unnest(p_changes) c where c.to_status = 'ready')
$$;
revoke execute on function nofx.step_change(uuid, uuid, text, text, text, jsonb), nofx.fact(uuid, uuid, text, jsonb),
    nofx.gate_change(uuid, uuid, text, jsonb, integer), nofx.made_ready(nofx.change[]) from public;

-- functions/children_release.sql sha256=317cdec1585a015c668ed2e7d451d13b1647ec584d2e202cb486680a782b5576
-- Counts down the blockers of the children of steps that succeeded; the ones that reach zero become ready. The caller
-- holds the runs' locks: two parents that finish at once cannot lose the wake-up.
--
-- p_next: {call, handler, lease_s, timeout_s, refs_bytes} of an invocation that can continue. As many children as p_parents has steps
-- start at once, in id order, if they are of that handler and their timeout is at most timeout_s; not in the runs p_failing.
create or replace function nofx.children_release(
    p_parents uuid[], p_next jsonb, p_failing uuid[], p_now timestamptz
) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
    v_started nofx.change[];
begin
    with child as (
        select e.child_id as id, count(*)::integer as parents
          from unnest(p_parents) p(id)
         cross join lateral (select e.child_id from nofx.step_edge e where e.parent_id = p.id offset 0) e
         group by e.child_id
    ), due as (
        select c.id, c.parents, s.is_ready, s.paused_at,
               s.continues and row_number() over (partition by s.continues order by c.id) <= cardinality(p_parents) as starts
          from child c
         cross join lateral (
            select s.blockers = c.parents as is_ready, r.paused_at,
                   s.blockers = c.parents and s.handler = p_next ->> 'handler'
                   and s.timeout_s <= (p_next ->> 'timeout_s')::integer
                   and nofx.lets_start(r.status) and r.id <> all (coalesce(p_failing, '{}')) as continues
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = c.id and s.status = 'pending'
            offset 0) s
    ), released as (
        update nofx.step s
           set blockers = s.blockers - d.parents,
               status = case when d.starts then 'running' when d.is_ready then 'ready' else 'pending' end,
               ready_at = case when d.is_ready then p_now end,
               notify_at = case when d.is_ready and d.starts is not true then nofx.wakeup_due(p_now, d.paused_at) end,
               notify_count = 0,
               attempt = s.attempt + coalesce(d.starts, false)::integer,
               started_at = case when d.starts then coalesce(s.started_at, p_now) else s.started_at end,
               lease_until = case when d.starts
                                  then nofx.lease_end(p_now, s.timeout_s, (p_next ->> 'lease_s')::integer) end
          from due d
         where s.id = any (array[d.id])
        returning s.tenant_id, s.run_id, s.id, s.status, s.attempt
    ), started as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at)
        select r.id, r.attempt, r.tenant_id, r.run_id, 'running', (p_next ->> 'call')::uuid, p_now
          from released r
         where r.status = 'running'
    )
    select array_agg(nofx.step_change(r.run_id, r.id, 'pending', 'ready', 'step.ready') order by r.id),
           array_agg(nofx.step_change(r.run_id, r.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', r.attempt)) order by r.id)
               filter (where r.status = 'running')
      into v_changes, v_started
      from released r
     where r.status <> 'pending';
    return v_changes || v_started;
end
$$;
revoke execute on function nofx.children_release(uuid[], jsonb, uuid[], timestamptz) from public;

-- functions/db_write.sql sha256=21da15acc1666a4b95b05eaf6caae4b722b9bf0785641a5bb2615974059ac3f8
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

-- What a write needs to know before it begins. p: {tenant_id, schema, table}
-- -> {closed, rule: {allowed_ops, ..constraints}, role: {name, state}, target, effects}
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

-- functions/gate_create.sql sha256=51b571daab4751ac44428bec006c6b4b3efd492319e18475be5efea71e2b316f
-- Puts a gate before a step that has not started, or before the end of a run.
-- p: {tenant_id, id, run_id, step_id, gate_type, evidence_uri, reason, expires_after_s}
-- -> {result: created|conflict|not_found, what, status}
create or replace function nofx.gate_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_step nofx.step;
    v_now timestamptz;
begin
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found', 'what', 'run');
    end if;
    if v_run.finished_at is not null then
        return jsonb_build_object('result', 'conflict', 'what', 'run', 'status', v_run.status);
    end if;
    -- A failing run only records its last running steps. A new gate would leave it ended with a pending gate.
    if nofx.is_failing(v_run.steps_failed, v_run.failure) then
        return jsonb_build_object('result', 'conflict', 'what', 'run', 'status', 'failing');
    end if;
    v_now := clock_timestamp();
    if p ->> 'step_id' is not null then
        select * into v_step from nofx.step s where s.id = (p ->> 'step_id')::uuid and s.run_id = v_run.id;
        if not found then
            return jsonb_build_object('result', 'not_found', 'what', 'step');
        end if;
        if v_step.status not in ('pending', 'ready') then
            return jsonb_build_object('result', 'conflict', 'what', 'step', 'status', v_step.status);
        end if;
        update nofx.step s
           set status = 'pending', blockers = s.blockers + 1, ready_at = null, notify_at = null
         where s.id = v_step.id;
    end if;

    insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri, reason,
                           expires_at, created_at)
    values ((p ->> 'id')::uuid, v_run.tenant_id, v_run.id, v_step.id, p ->> 'gate_type', 'pending', 'release',
            v_run.generation, p ->> 'evidence_uri', p ->> 'reason',
            v_now + make_interval(secs => (p ->> 'expires_after_s')::integer), v_now);
    perform nofx.runs_settle(array[
        nofx.gate_change(v_run.id, v_step.id, 'gate.created',
                         jsonb_build_object('gate_id', p ->> 'id', 'gate_type', p ->> 'gate_type'), 1),
        nofx.step_change(v_run.id, v_step.id, v_step.status, case when v_step.id is not null then 'pending' end, null)],
        v_now);
    return jsonb_build_object('result', 'created', 'status', 'pending');
end
$$;
select nofx.transition_declare('nofx.gate_create(jsonb)', 'nofx_api');

-- functions/gate_decide.sql sha256=7f6394c3802084f21efe05800007a58b215e40d9f9b9b9c563922e0b906d8c62
-- Decides a pending gate, once. In the same transaction its step continues, and what depends on that step becomes ready.
-- p: {tenant_id, gate_id, decision: approve|reject|waive, actor, reason}
-- -> {result: decided|conflict|not_found, gate: {..}, ready: [wake-ups]}
create or replace function nofx.gate_decide(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
    v_now timestamptz;
    v_status text := case p ->> 'decision' when 'approve' then 'passed' when 'waive' then 'waived'
                                           when 'reject' then 'failed' end;
    v_changes nofx.change[];
begin
    perform 1 from nofx.run r
      where r.id = (select g.run_id from nofx.gate g
                     where g.id = (p ->> 'gate_id')::uuid and g.tenant_id = p ->> 'tenant_id')
        for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    v_now := clock_timestamp();
    select * into strict v_gate from nofx.gate g where g.id = (p ->> 'gate_id')::uuid;
    -- An expired gate belongs to the sweeper, even before the next sweep.
    if v_gate.status <> 'pending' or v_gate.expires_at < v_now then
        return jsonb_build_object('result', 'conflict', 'gate', nofx.gate_json(v_gate.id));
    end if;

    update nofx.gate g
       set status = v_status, decided_at = v_now,
           approved_by = case when v_status <> 'failed' then p ->> 'actor' end,
           approved_at = case when v_status <> 'failed' then v_now end
     where g.id = v_gate.id;
    insert into nofx.approval (tenant_id, run_id, gate_id, decision, actor, reason, created_at)
    values (v_gate.tenant_id, v_gate.run_id, v_gate.id, p ->> 'decision', p ->> 'actor', p ->> 'reason', v_now);

    v_changes := nofx.gates_conclude(array[v_gate.id],
        jsonb_build_object('decision', p ->> 'decision', 'actor', p ->> 'actor', 'reason', p ->> 'reason'), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('result', 'decided', 'gate', nofx.gate_json(v_gate.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.transition_declare('nofx.gate_decide(jsonb)', 'nofx_api');

-- functions/gate_json.sql sha256=0106ee7ea3ecefba969ecdc28bb40d9d864755aa33e57df0996aabd2701fe74b
-- A gate as the API shows it.
create or replace function nofx.gate_json(p_gate uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_build_object(
               'id', g.id, 'run_id', g.run_id, 'step_id', g.step_id, 'gate_type', g.gate_type, 'status', g.status,
               'on_pass', g.on_pass, 'generation', g.generation, 'evidence_uri', g.evidence_uri, 'reason', g.reason,
               'approved_by', g.approved_by, 'approved_at', g.approved_at, 'expires_at', g.expires_at,
               'created_at', g.created_at, 'decided_at', g.decided_at,
               'decision', (select jsonb_build_object('decision', a.decision, 'actor', a.actor, 'reason', a.reason,
                                                      'created_at', a.created_at)
                              from nofx.approval a where a.gate_id = g.id))
      from nofx.gate g
     where g.id = p_gate
$$;
revoke execute on function nofx.gate_json(uuid) from public;
grant execute on function nofx.gate_json(uuid) to nofx_api;

-- functions/gates_conclude.sql sha256=f20673db9e1b9bb2181533a500b429fbd2f3618398b74ba7e60fa54868aa7366
-- Applies the ends of gates: a gate that passed lets its step or run continue, any other fails it. p_gates: gates that the caller has just
-- written as passed, waived, failed or expired. The caller holds the runs' locks.
create or replace function nofx.gates_conclude(p_gates uuid[], p_payload jsonb, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates nofx.change[];
    v_steps nofx.change[];
    v_finished uuid[];
    v_failed uuid[];
begin
    select array_agg(nofx.gate_change(g.run_id, g.step_id, 'gate.' || g.status,
                         jsonb_strip_nulls(jsonb_build_object('gate_id', g.id, 'gate_type', g.gate_type) || p_payload), -1)
                     order by g.id)
      into v_gates
      from nofx.gate g
     where g.id = any (p_gates);

    with verdict as (
        select s.id, s.status as was, s.ordinal, r.paused_at, g.reason,
               case when g.status in ('failed', 'expired') then 'failed'
                    when g.on_pass = 'finish' then 'succeeded'
                    when g.on_pass = 'resume' or s.blockers = 1 then 'ready'
                    else s.status end as verdict,
               case when g.on_pass = 'release' and g.status in ('passed', 'waived') then 1 else 0 end as released,
               case g.status
                    when 'expired' then jsonb_build_object('code', 'gate_expired', 'message',
                         format('nobody decided the gate %s in time', g.gate_type))
                    else jsonb_strip_nulls(jsonb_build_object('code', 'gate_rejected', 'message',
                         format('the gate %s was rejected', g.gate_type)
                         || coalesce(' by ' || (p_payload ->> 'actor'), '')
                         || coalesce(': ' || (p_payload ->> 'reason'), ''))) end as error,
               jsonb_strip_nulls(jsonb_build_object('gate_id', g.id, 'status', g.status) || p_payload) as outputs
          from nofx.gate g
          join nofx.step s on s.id = g.step_id
          join nofx.run r on r.id = s.run_id
         where g.id = any (p_gates) and s.status in ('pending', 'blocked')
    ), moved as (
        update nofx.step s
           set status = v.verdict,
               blockers = s.blockers - v.released,
               outputs = case when v.verdict = 'succeeded' then v.outputs end,
               error = case when v.verdict = 'failed' then v.error end,
               finished_at = case when v.verdict in ('succeeded', 'failed') then p_now end,
               ready_at = case when v.verdict = 'ready' then p_now else s.ready_at end,
               notify_at = case when v.verdict = 'ready' then nofx.wakeup_due(p_now, v.paused_at) end,
               notify_count = 0
          from verdict v
         where s.id = any (array[v.id])
        returning s.run_id, s.id, v.was, s.status, s.error, s.ordinal
    )
    select array_agg(nofx.step_change(m.run_id, m.id, m.was, m.status, 'step.' || m.status,
                                      jsonb_strip_nulls(jsonb_build_object('error', m.error))) order by m.ordinal)
               filter (where m.status <> m.was),
           array_agg(m.id) filter (where m.status = 'succeeded'),
           array_agg(m.run_id) filter (where m.status = 'failed')
      into v_steps, v_finished, v_failed
      from moved m;

    -- A gate of the run itself that did not pass fails the run.
    with failed as (
        update nofx.run r
           set failure = jsonb_build_object('code', case g.status when 'expired' then 'gate_expired'
                                                                  else 'gate_rejected' end,
                                            'message', format('the gate %s of the run %s', g.gate_type,
                                                case g.status when 'expired' then 'expired' else 'was rejected' end))
          from nofx.gate g
         where g.id = any (p_gates) and g.step_id is null and g.status in ('failed', 'expired') and r.id = g.run_id
        returning r.id
    )
    select coalesce(v_failed, '{}') || coalesce(array_agg(f.id), '{}') into v_failed from failed f;

    if v_finished is not null then
        v_steps := v_steps || nofx.children_release(v_finished, null, v_failed, p_now);
    end if;
    if v_failed <> '{}' then
        v_steps := v_steps || nofx.steps_close(v_failed, 'skipped', false, p_now);
    end if;
    return v_gates || v_steps;
end
$$;
revoke execute on function nofx.gates_conclude(uuid[], jsonb, timestamptz) from public;

-- functions/leases_end.sql sha256=1f65291bf53e9b4c6bb6a640344dc9b1e3d6e868637c123060ff7fe23ec69720
-- Ends attempts whose lease is over. Each costs its step one lost worker, and the step becomes ready again. If that allowance is spent, or the
-- run is failing, the step fails and the rest of its run is closed. The caller holds the runs' locks.
create or replace function nofx.leases_end(p_steps uuid[], p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
    v_failed uuid[];
begin
    with over as (
        select s.id, r.paused_at,
               s.workers_lost >= nofx.max_workers_lost() or nofx.is_failing(r.steps_failed, r.failure) as fails
          from nofx.step s
          join nofx.run r on r.id = any (array[s.run_id])
         where s.id = any (p_steps) and s.status = 'running' and s.lease_until < p_now
    ), ended as (
        update nofx.step s
           set workers_lost = s.workers_lost + 1,
               lease_until = null,
               status = case when o.fails then 'failed' else 'ready' end,
               ready_at = p_now,
               notify_at = case when not o.fails then nofx.wakeup_due(p_now, o.paused_at) end,
               notify_count = 0,
               finished_at = case when o.fails then p_now end,
               error = case when o.fails
                            then jsonb_build_object('code', 'worker_lost', 'message',
                                     format('the worker of attempt %s never answered (%s workers lost)', s.attempt,
                                            s.workers_lost + 1)) end
          from over o
         where s.id = any (array[o.id])
        returning s.run_id, s.id, s.status, s.attempt, s.error, s.workers_lost
    ), lost as (
        update nofx.attempt a
           set status = 'lost', finished_at = p_now
          from ended e
         where a.step_id = any (array[e.id]) and a.attempt = e.attempt
    )
    select array_agg(nofx.step_change(e.run_id, e.id, 'running', e.status,
                         case when e.status = 'failed' then 'step.failed' else 'step.worker_lost' end,
                         jsonb_strip_nulls(jsonb_build_object('attempt', e.attempt, 'workers_lost', e.workers_lost,
                                                              'error', e.error)))),
           array_agg(e.run_id) filter (where e.status = 'failed')
      into v_changes, v_failed
      from ended e;
    if v_failed is not null then
        v_changes := v_changes || nofx.steps_close(v_failed, 'skipped', false, p_now);
    end if;
    return v_changes;
end
$$;
revoke execute on function nofx.leases_end(uuid[], timestamptz) from public;

-- functions/limits.sql sha256=ce5d4bea5cb0e9b1d77e127b1a375f350204e2b54a5a4f17b3b07628a3e0cf52
-- Numbers and rules that several transitions share. Inlined like those of change.sql.

-- Workers that a step may lose in one generation before it fails as `worker_lost`.
create or replace function nofx.max_workers_lost() returns integer
    language sql immutable
as $$ select 3 $$;

-- Wake-ups that a ready step gets before it fails as `undeliverable`.
create or replace function nofx.max_wakeups() returns integer
    language sql immutable
as $$ select 20 $$;

-- The end of the lease of an attempt that starts now: its timeout or the rest of the invocation, whichever is shorter, plus 5 s in which the
-- worker records the end.
create or replace function nofx.lease_end(p_now timestamptz, p_timeout_s integer, p_invocation_s integer) returns timestamptz
    language sql stable
as $$ select p_now + make_interval(secs => least(p_timeout_s, p_invocation_s) + 5) $$;

-- When the sweeper owes a ready step a wake-up: one minute after the wake-up that its transition sends, never while its run is paused.
create or replace function nofx.wakeup_due(p_ready_at timestamptz, p_paused_at timestamptz) returns timestamptz
    language sql stable
as $$ select case when p_paused_at is null then p_ready_at + interval '1 minute' else 'infinity' end $$;

-- Whether a run is failing: one of its steps has failed, or the run itself. Nothing starts or waits in it any more.
create or replace function nofx.is_failing(p_steps_failed integer, p_failure jsonb) returns boolean
    language sql immutable
as $$ select p_steps_failed > 0 or p_failure is not null $$;

-- Whether the run's state lets steps start.
create or replace function nofx.lets_start(p_run_status text) returns boolean
    language sql immutable
as $$ select p_run_status in ('queued', 'running', 'blocked') $$;

revoke execute on function nofx.max_workers_lost(), nofx.max_wakeups(), nofx.lease_end(timestamptz, integer, integer),
    nofx.wakeup_due(timestamptz, timestamptz), nofx.is_failing(integer, jsonb), nofx.lets_start(text) from public;

-- functions/row_checks.sql sha256=3486b26243d6e07e48743fc496e7c5455cc3f215f5c672fad6274cc7ed5fa8b5
-- CHECK constraints of tables that transitions write: which columns go with which state. One function for each table, because Postgres parses
-- the text of a CHECK again for every statement.
create or replace function nofx.run_is_sound(
    p_tenant_id text, p_status text, p_generation integer, p_timeout_s integer, p_pending integer, p_ready integer,
    p_running integer, p_blocked integer, p_failed integer, p_gates integer, p_paused_at timestamptz,
    p_cancelled_at timestamptz, p_finished_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_generation >= 1 and coalesce(p_timeout_s, 1) > 0
        and p_pending >= 0 and p_ready >= 0 and p_running >= 0 and p_blocked >= 0 and p_failed >= 0 and p_gates >= 0
        and case
            when p_status in ('queued', 'running', 'blocked') then p_finished_at is null
            when p_status = 'paused' then p_finished_at is null and p_paused_at is not null
            when p_status in ('succeeded', 'failed', 'cancelled')
                then p_finished_at is not null and p_pending + p_ready + p_running + p_blocked = 0
                     and (p_status <> 'cancelled' or p_cancelled_at is not null)
            else false
        end;
end
$$;

create or replace function nofx.step_is_sound(
    p_status text, p_blockers integer, p_attempt integer, p_failures integer, p_workers_lost integer,
    p_max_attempts integer, p_backoff_ms integer, p_timeout_s integer, p_ready_at timestamptz, p_notify_at timestamptz,
    p_lease_until timestamptz, p_finished_at timestamptz, p_has_outputs boolean, p_has_error boolean
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_blockers >= 0 and p_attempt >= 0 and p_failures >= 0 and p_workers_lost >= 0
        and p_max_attempts >= 1 and p_backoff_ms >= 0 and coalesce(p_timeout_s, 1) >= 1
        and (p_status = 'ready') = (p_notify_at is not null)
        and (p_status = 'running') = (p_lease_until is not null)
        and (p_status = 'succeeded') = p_has_outputs
        and case
            when p_status = 'pending' then p_finished_at is null
            when p_status = 'ready' then p_finished_at is null and p_blockers = 0 and p_ready_at is not null
            when p_status = 'running' then p_finished_at is null and p_blockers = 0 and p_attempt >= 1
            when p_status = 'blocked' then p_finished_at is null and p_blockers = 0
            when p_status = 'succeeded' then p_finished_at is not null and p_blockers = 0
            when p_status = 'failed' then p_finished_at is not null and p_has_error
            when p_status in ('skipped', 'cancelled') then p_finished_at is not null
            else false
        end;
end
$$;

create or replace function nofx.attempt_is_sound(p_status text, p_attempt integer, p_finished_at timestamptz) returns boolean
    language plpgsql immutable
as $$
begin
    return p_attempt >= 1
        and case
            when p_status = 'running' then p_finished_at is null
            when p_status in ('succeeded', 'failed', 'blocked', 'lost', 'cancelled') then p_finished_at is not null
            else false
        end;
end
$$;
revoke execute on function
    nofx.run_is_sound(text, text, integer, integer, integer, integer, integer, integer, integer, integer, timestamptz,
                      timestamptz, timestamptz),
    nofx.step_is_sound(text, integer, integer, integer, integer, integer, integer, integer, timestamptz, timestamptz,
                       timestamptz, timestamptz, boolean, boolean),
    nofx.attempt_is_sound(text, integer, timestamptz) from public;

-- functions/rules.sql sha256=f8a51b53a71cc26133671246e76ca550005750ce038cd78bbc07dd2560bab9d0
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

-- Sets the rule of a table. p: {tenant_id, table_name, actor, allowed_ops, constraints} -> {result: created|replaced|closed}
create or replace function nofx.rule_set(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_created boolean;
begin
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

-- Deletes the rule of a table. p: {tenant_id, table_name, actor} -> {result: deleted|not_found}
create or replace function nofx.rule_delete(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    perform set_config('nofx.actor', p ->> 'actor', true);
    delete from nofx.db_write_rule r where r.tenant_id = p ->> 'tenant_id' and r.table_name = p ->> 'table_name';
    return jsonb_build_object('result', case when found then 'deleted' else 'not_found' end);
end
$$;
revoke execute on function nofx.schema_is_closed(text), nofx.is_name_list(jsonb), nofx.rule_is_sound(text, text[], jsonb),
    nofx.rule_changed(), nofx.rule_set(jsonb), nofx.rule_delete(jsonb) from public;
grant execute on function nofx.rule_set(jsonb), nofx.rule_delete(jsonb) to nofx_api;

-- functions/run_cancel.sql sha256=3a14bc6d5daeec44e33ec14c8895b44dd58391b7ae084a587bb4c2ac809ff4d3
-- Cancels a run: fences every open step at once. Cancelling a cancelled run changes nothing. p: {tenant_id, run_id, actor}
-- -> {result: cancelled|unchanged|conflict|not_found, status, stopped: [names], was_running: [names]}
create or replace function nofx.run_cancel(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_changes nofx.change[];
begin
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null then
        return jsonb_build_object('result', case when v_run.status = 'cancelled' then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'stopped', '[]'::jsonb, 'was_running', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r set cancelled_at = v_now where r.id = v_run.id;
    v_changes := nofx.fact(v_run.id, null, 'run.cancel_requested', jsonb_build_object('actor', p ->> 'actor'))
                 || nofx.steps_close(array[v_run.id], 'cancelled', true, v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object(
        'result', 'cancelled', 'status', 'cancelled',
        'stopped', coalesce((select jsonb_agg(s.name order by s.ordinal)
                               from unnest(v_changes) c join nofx.step s on s.id = c.step_id
                              where c.to_status = 'cancelled' and c.from_status <> 'running'), '[]'),
        'was_running', coalesce((select jsonb_agg(s.name order by s.ordinal)
                                   from unnest(v_changes) c join nofx.step s on s.id = c.step_id
                                  where c.to_status = 'cancelled' and c.from_status = 'running'), '[]'));
end
$$;
select nofx.transition_declare('nofx.run_cancel(jsonb)', 'nofx_api');

-- functions/run_create.sql sha256=ee8c8fab1d723966fff3212432b59f9ead8e67fa7302b7c6e435482c24e9f7fe
-- Creates a run with its steps, edges and first events. Nobody else knows the run yet, so it needs no lock and no settlement: each row is
-- written once, the run's with its counters.
--
-- p: {tenant_id, id, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s, traceparent,
--     workspace: {archive, base, diff} (artifact ids), steps: [..], edges: [{parent, child}]}
-- -> {result: created, id, status, ready: [wake-ups]}. With `existing` (same key, same request) and `conflict` (same key, other request): id
-- and status of the run that has the key. With `invalid`: problems.
create or replace function nofx.run_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_id uuid := p ->> 'id';
    v_tenant text := p ->> 'tenant_id';
    v_workspace jsonb;
    v_problems jsonb;
    v_ready jsonb;
    v_run record;
begin
    if jsonb_typeof(p -> 'workspace') = 'object' then
        select jsonb_object_agg(w.key, jsonb_build_object('id', a.id, 'uri', a.uri, 'hash', a.hash,
                                    'size_bytes', a.size_bytes, 'media_type', a.media_type)),
               jsonb_agg(jsonb_build_object('path', 'plan.workspace.' || w.key,
                                            'message', format('no artifact has the id %s', w.value)))
                   filter (where a.id is null)
          into v_workspace, v_problems
          from jsonb_each_text(p -> 'workspace') w
          left join nofx.artifact a on a.id = w.value::uuid and a.tenant_id = v_tenant
         where w.value is not null;
        if v_problems is not null then
            return jsonb_build_object('result', 'invalid', 'problems', v_problems);
        end if;
    end if;

    with item as materialized (
        select s.*, s.blockers = 0 as is_ready
          from jsonb_to_recordset(p -> 'steps')
               as s(id uuid, ordinal integer, name text, tool text, handler text, inputs jsonb, refs text[], ref_paths text[],
                    blockers integer, max_attempts integer, backoff_ms integer, timeout_s integer)
    ), made as (
        insert into nofx.run (id, tenant_id, status, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s,
                              deadline_at, traceparent, workspace, created_at, steps_ready, steps_pending, event_seq)
        select v_id, v_tenant, 'queued', p ->> 'goal', p -> 'plan', p ->> 'plan_digest', p ->> 'request_digest',
               p ->> 'idempotency_key', (p ->> 'timeout_s')::integer,
               v_now + make_interval(secs => (p ->> 'timeout_s')::integer), p ->> 'traceparent', v_workspace, v_now,
               count(*) filter (where i.is_ready), count(*) filter (where not i.is_ready),
               1 + count(*) filter (where i.is_ready)
          from item i
            on conflict do nothing
        returning id
    ), steps as (
        insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, refs, ref_paths, status, blockers,
                               max_attempts, backoff_ms, timeout_s, created_at, ready_at, notify_at)
        select i.id, v_tenant, m.id, i.ordinal, i.name, i.tool, i.handler, i.inputs, i.refs, i.ref_paths,
               case when i.is_ready then 'ready' else 'pending' end, i.blockers, i.max_attempts, i.backoff_ms, i.timeout_s,
               v_now, case when i.is_ready then v_now end, case when i.is_ready then nofx.wakeup_due(v_now, null) end
          from made m
         cross join item i
    ), edges as (
        insert into nofx.step_edge (parent_id, child_id, tenant_id)
        select e.parent, e.child, v_tenant
          from made m
         cross join jsonb_to_recordset(p -> 'edges') as e(parent uuid, child uuid)
    ), events as (
        insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
        select m.id, 1, v_tenant, null, 'run.created',
               jsonb_build_object('goal', p ->> 'goal', 'plan_digest', p ->> 'plan_digest'), v_now
          from made m
        union all
        select m.id, 1 + row_number() over (order by i.ordinal), v_tenant, i.id, 'step.ready', '{}', v_now
          from made m
         cross join item i
         where i.is_ready
    )
    select jsonb_agg(jsonb_build_object('tenant_id', v_tenant, 'run_id', m.id, 'step_id', i.id, 'handler', i.handler,
                                        'delay_ms', 0, 'traceparent', p ->> 'traceparent') order by i.ordinal)
      into v_ready
      from made m
      join item i on i.is_ready;
    if v_ready is not null then
        return jsonb_build_object('result', 'created', 'id', v_id, 'status', 'queued', 'ready', v_ready);
    end if;

    -- A second statement has a snapshot of its own and sees the winner of a race. The id itself is taken if this call is a retry whose first
    -- answer was lost.
    select r.id, r.status, r.request_digest into strict v_run
      from nofx.run r
     where r.tenant_id = v_tenant and (r.id = v_id or r.idempotency_key = p ->> 'idempotency_key')
     order by r.id = v_id desc limit 1;
    return jsonb_build_object(
        'result', case when v_run.request_digest = p ->> 'request_digest' then 'existing' else 'conflict' end,
        'id', v_run.id, 'status', v_run.status, 'ready', '[]'::jsonb);
end
$$;
select nofx.transition_declare('nofx.run_create(jsonb)', 'nofx_api');

-- functions/run_pause.sql sha256=5478887ed536d4549bb3fdaded541fa2fbbac14309a261c30cb7d9962fbebfa9
-- Pauses a run: no step starts, running steps end and are recorded. Pausing a paused run changes nothing. p: {tenant_id, run_id, actor}
-- -> {result: paused|unchanged|conflict|not_found, status, still_running: [names]}
create or replace function nofx.run_pause(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
begin
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null or v_run.paused_at is not null then
        return jsonb_build_object('result', case when v_run.finished_at is null then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'still_running', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r set paused_at = v_now where r.id = v_run.id;
    update nofx.step s set notify_at = 'infinity' where s.run_id = v_run.id and s.status = 'ready';
    perform nofx.runs_settle(array[nofx.fact(v_run.id, null, 'run.pause_requested',
                                             jsonb_build_object('actor', p ->> 'actor'))], v_now);
    return jsonb_build_object(
        'result', 'paused', 'status', (select r.status from nofx.run r where r.id = v_run.id),
        'still_running', coalesce((select jsonb_agg(s.name order by s.ordinal) from nofx.step s
                                    where s.run_id = v_run.id and s.status = 'running'), '[]'));
end
$$;
select nofx.transition_declare('nofx.run_pause(jsonb)', 'nofx_api');

-- functions/run_resume.sql sha256=1b1118c168e9b4953437067f76cc6cebef9bc87d9d0215b5aadba082370c5a6b
-- Resumes a paused run: every ready step is owed a wake-up now. Resuming any other open run changes nothing. p: {tenant_id, run_id, actor}
-- -> {result: resumed|unchanged|conflict|not_found, status, ready: [wake-ups]}
create or replace function nofx.run_resume(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_ready uuid[];
begin
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null or v_run.paused_at is null then
        return jsonb_build_object('result', case when v_run.finished_at is null then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r
       set paused_at = null,
           status = nofx.run_status(r.steps_pending + r.steps_ready + r.steps_running + r.steps_blocked,
                                    r.steps_ready + r.steps_running, false, r.gates_pending, false, false,
                                    r.started_at is not null)
     where r.id = v_run.id;
    with owed as (
        update nofx.step s set notify_at = greatest(s.ready_at, v_now), notify_count = 0
         where s.run_id = v_run.id and s.status = 'ready'
        returning s.id
    )
    select array_agg(o.id) into v_ready from owed o;
    perform nofx.runs_settle(array[nofx.fact(v_run.id, null, 'run.resumed', jsonb_build_object('actor', p ->> 'actor'))],
                             v_now);
    return jsonb_build_object('result', 'resumed',
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(v_ready, v_now));
end
$$;
select nofx.transition_declare('nofx.run_resume(jsonb)', 'nofx_api');

-- functions/run_retry.sql sha256=2154066f7a83ed9e3d62b66a9f549f1879c2e203f331ad91a9da6466bdd4801a
-- Starts the next generation of a failed or cancelled run. Steps that succeeded stay. All others start again: blockers are counted again,
-- failures and lost workers start at 0, attempt numbers continue. Gates that did not pass are asked again. p: {tenant_id, run_id, actor}
-- -> {result: retried|conflict|not_found, status, generation, ready: [wake-ups]}
create or replace function nofx.run_retry(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_steps nofx.change[];
    v_gates nofx.change[];
begin
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.status not in ('failed', 'cancelled') then
        return jsonb_build_object('result', 'conflict', 'status', v_run.status, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r
       set status = 'queued', generation = r.generation + 1, failure = null, finished_at = null, cancelled_at = null,
           paused_at = null, deadline_at = v_now + make_interval(secs => r.timeout_s)
     where r.id = v_run.id;

    -- Gates that clients put before steps. Gates of handlers come back when their steps run.
    with renewed as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass,
               v_run.generation + 1, g.reason, g.evidence_uri, v_now + (g.expires_at - g.created_at), v_now
          from nofx.gate g
          left join nofx.step s on s.id = g.step_id
         where g.run_id = v_run.id and g.on_pass = 'release' and g.generation = v_run.generation
           and g.status in ('failed', 'expired', 'cancelled') and s.status is distinct from 'succeeded'
        returning id, step_id, gate_type
    )
    select array_agg(nofx.gate_change(v_run.id, a.step_id, 'gate.created',
                                      jsonb_build_object('gate_id', a.id, 'gate_type', a.gate_type), 1) order by a.id)
      into v_gates
      from renewed a;

    with old as (
        select s.id, s.status,
               (select count(*) from nofx.step_edge e join nofx.step q on q.id = e.parent_id
                 where e.child_id = s.id and q.status <> 'succeeded')
               + (select count(*) from nofx.gate g where g.step_id = s.id and g.status = 'pending') as blockers
          from nofx.step s
         where s.run_id = v_run.id and s.status <> 'succeeded'
    ), renewed as (
        update nofx.step s
           set status = case when o.blockers = 0 then 'ready' else 'pending' end,
               blockers = o.blockers, failures = 0, workers_lost = 0, outputs = null, error = null,
               started_at = null, finished_at = null, notify_count = 0,
               ready_at = case when o.blockers = 0 then v_now end,
               notify_at = case when o.blockers = 0 then nofx.wakeup_due(v_now, null) end
          from old o
         where s.id = any (array[o.id])
        returning s.id, o.status as was, s.status, s.ordinal
    )
    select array_agg(nofx.step_change(v_run.id, a.id, a.was, a.status, case when a.status = 'ready' then 'step.ready' end)
                     order by a.ordinal)
      into v_steps
      from renewed a;

    perform nofx.runs_settle(
        nofx.fact(v_run.id, null, 'run.retried',
                  jsonb_build_object('actor', p ->> 'actor', 'generation', v_run.generation + 1))
        || v_gates || v_steps, v_now);
    return jsonb_build_object('result', 'retried', 'generation', v_run.generation + 1,
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_steps), v_now));
end
$$;
select nofx.transition_declare('nofx.run_retry(jsonb)', 'nofx_api');

-- functions/runs_lock.sql sha256=846145e0251723c649de4ffe0380e63cb74d9ff0405552c264e1289324b13508
-- The lock that every transition takes first: the rows of its runs, in id order. Steps and gates change only under it.

-- Waits for all of them.
create or replace function nofx.runs_lock(p_runs uuid[]) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    perform 1 from nofx.run r where r.id = any (p_runs) order by r.id for no key update;
end
$$;

-- Waits for one, of this tenant; all null when there is none.
create or replace function nofx.run_lock(p_tenant_id text, p_run_id uuid) returns nofx.run
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
begin
    select * into v_run
      from nofx.run r
     -- Not `=`: the index of a tenant's runs would read all of them.
     where r.id = p_run_id and r.tenant_id is not distinct from p_tenant_id
       for no key update;
    return v_run;
end
$$;

-- Locks those of the runs that nobody else holds; null when there are none.
create or replace function nofx.runs_lock_free(p_runs uuid[]) returns uuid[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    return (select array_agg(l.id)
              from (select r.id from nofx.run r
                     where r.id = any (p_runs) order by r.id for no key update skip locked) l);
end
$$;
revoke execute on function nofx.runs_lock(uuid[]), nofx.run_lock(text, uuid), nofx.runs_lock_free(uuid[]) from public;

-- functions/runs_settle.sql sha256=b5a09c3b12e202fd81a07bd951fc169cc0207ccc6b2ac2e196ca4e7b66209871
-- The one place that settles a run.

-- The state of a run, as it follows from its counters. Ended states come first, then what people asked for.
create or replace function nofx.run_status(
    p_open integer, p_active integer, p_failed boolean, p_gates integer,
    p_cancelled boolean, p_paused boolean, p_started boolean
) returns text
    language sql immutable
as $$
    select case
        when p_cancelled then 'cancelled'
        when p_open = 0 and p_failed then 'failed'
        when p_open = 0 and p_gates = 0 then 'succeeded'
        when p_paused then 'paused'
        when p_active = 0 then 'blocked'
        when p_started then 'running'
        else 'queued'
    end
$$;

-- Applies changes to their runs: counters, state, timestamps, and densely numbered events. The caller holds the locks of all runs in
-- p_changes. Every transition but run_create calls it, last.
create or replace function nofx.runs_settle(p_changes nofx.change[], p_now timestamptz) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    with delta as (
        select c.run_id, count(c.event_type) as events,
               sum((c.to_status is not distinct from 'pending')::integer - (c.from_status is not distinct from 'pending')::integer) as pending,
               sum((c.to_status is not distinct from 'ready')::integer - (c.from_status is not distinct from 'ready')::integer) as ready,
               sum((c.to_status is not distinct from 'running')::integer - (c.from_status is not distinct from 'running')::integer) as running,
               sum((c.to_status is not distinct from 'blocked')::integer - (c.from_status is not distinct from 'blocked')::integer) as blocked,
               sum((c.to_status is not distinct from 'failed')::integer - (c.from_status is not distinct from 'failed')::integer) as failed,
               sum(c.gates) as gates,
               bool_or(c.to_status is not distinct from 'running') as starts
          from unnest(p_changes) c
         group by c.run_id
    ), settled as (
        update nofx.run r
           set status = v.status,
               steps_pending = v.pending, steps_ready = v.ready, steps_running = v.running, steps_blocked = v.blocked,
               steps_failed = v.failed, gates_pending = v.gates,
               event_seq = v.seq + v.events + (v.status <> v.was)::integer,
               started_at = case when v.started then coalesce(r.started_at, p_now) end,
               finished_at = case when v.status in ('succeeded', 'failed', 'cancelled')
                                  then coalesce(r.finished_at, p_now) end
          from delta d
         cross join lateral (
            select n.*, nofx.run_status(n.pending + n.ready + n.running + n.blocked, n.ready + n.running,
                                        nofx.is_failing(n.failed, n.failure), n.gates, n.cancelled_at is not null,
                                        n.paused_at is not null, n.started) as status
              from (select r.id, r.status as was, r.event_seq as seq, r.failure, r.cancelled_at, r.paused_at, d.events,
                           r.started_at is not null or d.starts as started,
                           r.steps_pending + d.pending::integer as pending, r.steps_ready + d.ready::integer as ready,
                           r.steps_running + d.running::integer as running, r.steps_blocked + d.blocked::integer as blocked,
                           r.steps_failed + d.failed::integer as failed, r.gates_pending + d.gates::integer as gates
                      from nofx.run r
                     where r.id = d.run_id offset 0) n
             offset 0) v
         where r.id = any (array[v.id])
        returning r.id, r.tenant_id, r.status, v.was, v.seq, v.events, v.failure
    )
    insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
    select c.run_id, s.seq + row_number() over (partition by c.run_id order by c.position), s.tenant_id,
           c.step_id, c.event_type, coalesce(c.payload, '{}'), p_now
      from unnest(p_changes) with ordinality as c(run_id, step_id, from_status, to_status, event_type, payload, gates, position)
      join settled s on s.id = c.run_id
     where c.event_type is not null
    union all
    -- The run's own change comes after the facts that led to it.
    select s.id, s.seq + s.events + 1, s.tenant_id, null,
           case when s.status = 'running' and s.was = 'queued' then 'run.started'
                when s.status = 'running' then 'run.unblocked'
                else 'run.' || s.status end,
           case when s.failure is not null then jsonb_build_object('failure', s.failure) else '{}' end, p_now
      from settled s
     where s.status <> s.was;
end
$$;
revoke execute on function nofx.run_status(integer, integer, boolean, integer, boolean, boolean, boolean),
    nofx.runs_settle(nofx.change[], timestamptz) from public;

-- functions/step_facts_insert.sql sha256=5d27639f93cee22cfc18a0ad70aa9221d705c0f065aeac6010bbe5ebbcbf755c
-- Stores the artifacts, gates and events that finished attempts leave behind. Returns their events; null if there are none, which is the usual
-- case.
create or replace function nofx.step_facts_insert(p_items jsonb, p_done uuid[], p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_artifacts nofx.change[];
    v_gates nofx.change[];
    v_events nofx.change[];
begin
    if not jsonb_path_exists(p_items, '$[*] ? (@.artifacts.size() > 0 || @.gates.size() > 0 || @.events.size() > 0)') then
        return null;
    end if;

    with made as (
        insert into nofx.artifact (id, tenant_id, run_id, step_id, attempt, name, type, uri, hash, size_bytes,
                                   media_type, metadata, created_at)
        select a.id, i.tenant_id, i.run_id, i.step_id, i.attempt, a.name, a.type, a.uri, a.hash, a.size_bytes,
               a.media_type, coalesce(a.metadata, '{}'), p_now
          from jsonb_to_recordset(p_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, artifacts jsonb)
         cross join jsonb_to_recordset(coalesce(i.artifacts, '[]'))
               as a(id uuid, name text, type text, uri text, hash text, size_bytes bigint, media_type text,
                    metadata jsonb)
         where i.step_id = any (p_done)
        returning run_id, step_id, id, name, type, hash
    )
    select array_agg(nofx.fact(m.run_id, m.step_id, 'artifact.created',
                               jsonb_build_object('artifact_id', m.id, 'name', m.name, 'type', m.type, 'hash', m.hash))
                     order by m.id)
      into v_artifacts
      from made m;

    insert into nofx.artifact_edge (parent_id, child_id, tenant_id)
    select p.id, (a ->> 'id')::uuid, i.tenant_id
      from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, artifacts jsonb)
     cross join jsonb_array_elements(coalesce(i.artifacts, '[]')) a
     cross join jsonb_array_elements_text(coalesce(a -> 'made_from', '[]')) made_from
      join nofx.artifact p on p.id = made_from::uuid and p.tenant_id = i.tenant_id
     where i.step_id = any (p_done)
        on conflict do nothing;

    with made as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri,
                               reason, expires_at, created_at, decided_at)
        select g.id, i.tenant_id, i.run_id, i.step_id, g.gate_type, g.status, g.on_pass, r.generation, g.evidence_uri,
               g.reason, p_now + make_interval(secs => g.expires_after_s), p_now,
               case when g.status <> 'pending' then p_now end
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, gates jsonb)
          join nofx.run r on r.id = i.run_id
         cross join jsonb_to_recordset(coalesce(i.gates, '[]'))
               as g(id uuid, gate_type text, status text, on_pass text, evidence_uri text, reason text,
                    expires_after_s integer)
         where i.step_id = any (p_done)
        returning run_id, step_id, id, gate_type, status, reason
    )
    select array_agg(nofx.fact(m.run_id, m.step_id,
                               case m.status when 'pending' then 'gate.created' else 'gate.' || m.status end,
                               jsonb_strip_nulls(jsonb_build_object('gate_id', m.id, 'gate_type', m.gate_type,
                                                                    'reason', m.reason)))
                     order by m.id)
      into v_gates
      from made m;

    select array_agg(nofx.fact(i.run_id, i.step_id, e.event ->> 'type', e.event -> 'payload') order by i.step_id, e.position)
      into v_events
      from jsonb_to_recordset(p_items) as i(run_id uuid, step_id uuid, events jsonb)
     cross join jsonb_array_elements(coalesce(i.events, '[]')) with ordinality as e(event, position)
     where i.step_id = any (p_done);

    return v_events || v_artifacts || v_gates;
end
$$;
revoke execute on function nofx.step_facts_insert(jsonb, uuid[], timestamptz) from public;

-- functions/steps_claim.sql sha256=4fdf213e78f3f4b350844b1b21df0289e68a9e2f1229b949519f1b82405f4139
-- Starts the steps that are ready (1 s of clock skew is tolerated) and whose run lets steps start. The caller holds the runs' locks. Returns the
-- changes, null if there are none.
create or replace function nofx.steps_start(p_items jsonb, p_call uuid, p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with started as (
        -- Matched by the whole key: a forged message in a batch cannot stand in for the true one.
        update nofx.step s
           set status = 'running',
               attempt = s.attempt + 1,
               notify_at = null,
               started_at = coalesce(s.started_at, p_now),
               lease_until = nofx.lease_end(p_now, s.timeout_s, i.lease_s)
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer)
         where s.id = any (array[i.step_id]) and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
           and s.status = 'ready' and s.ready_at <= p_now + interval '1 second'
           and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id and r.tenant_id is not distinct from i.tenant_id)
        returning s.tenant_id, s.run_id, s.id, s.attempt
    ), recorded as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at)
        select s.id, s.attempt, s.tenant_id, s.run_id, 'running', p_call, p_now
          from started s
    )
    select array_agg(nofx.step_change(s.run_id, s.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', s.attempt)) order by s.id)
      into v_changes
      from started s;
    return v_changes;
end
$$;

-- Claims steps of a batch. p_items: [{tenant_id, run_id, step_id, lease_s, refs_bytes}]; lease_s is what is left of the invocation, refs_bytes
-- the largest size of the values that a step refers to. A step can be claimed if it is ready, or if its attempt's lease is over; never in a
-- paused or ended run, never across tenants. A retry with the same p_call, after a lost answer, receives what the first call claimed.
-- -> {claimed: [..], skipped: [{step_id, status}]}
create or replace function nofx.steps_claim(p_items jsonb, p_call uuid default null) returns json
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz;
    v_refs_bytes integer := p_items -> 0 ->> 'refs_bytes';
    v_changes nofx.change[];
    v_started nofx.change[];
    v_lost uuid[];
    v_won uuid[];
begin
    perform nofx.runs_lock(array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i));
    v_now := clock_timestamp();
    v_started := nofx.steps_start(p_items, p_call, v_now);
    if v_started is not null then
        perform nofx.runs_settle(v_started, v_now);
    end if;
    if cardinality(v_started) = jsonb_array_length(p_items) then
        return json_build_object(
            'claimed', nofx.steps_claimed(array(select c.step_id from unnest(v_started) c), v_refs_bytes), 'skipped', '[]'::jsonb);
    end if;

    -- Ended leases make steps ready. Settled first, so that the next claim starts from true counters.
    v_lost := array(
        select s.id
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid)
         cross join lateral (
            select s.id
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = i.step_id and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
               and s.status = 'running' and s.lease_until < v_now and r.paused_at is null
            offset 0) s);
    if v_lost <> '{}' then
        perform nofx.runs_settle(nofx.leases_end(v_lost, v_now), v_now);
        v_changes := nofx.steps_start(p_items, p_call, v_now);
        if v_changes is not null then
            perform nofx.runs_settle(v_changes, v_now);
        end if;
    end if;
    v_won := array(
        select c.step_id from unnest(v_started || v_changes) c
        union
        -- What an earlier try of this call has claimed.
        select a.step_id
          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
          join nofx.attempt a on a.step_id = i.step_id and a.tenant_id = i.tenant_id
         where a.claimed_by = p_call and a.status = 'running');
    return json_build_object(
        'claimed', nofx.steps_claimed(v_won, v_refs_bytes),
        'skipped', coalesce((
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown')))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
             where i.step_id <> all (v_won)), '[]'));
end
$$;
select nofx.transition_declare('nofx.steps_claim(jsonb, uuid)', 'nofx_worker');
revoke execute on function nofx.steps_start(jsonb, uuid, timestamptz) from public;

-- functions/steps_claimed.sql sha256=7666f0f20ed1bbc540a43b03678c984042438670035c684a19452b1f2dd95205
-- What a worker gets of the steps that it has claimed.

-- The values that one step refers to: [{step, path, value}], without references to nothing. Null when the values have more than
-- p_refs_bytes bytes, or the outputs that they are in more than 64 times that. References are in the order of their steps, so each
-- step's outputs are read once.
create or replace function nofx.step_refs(p_run_id uuid, p_refs text[], p_ref_paths text[], p_refs_bytes integer) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_outputs jsonb;
    v_value jsonb;
    v_values jsonb[] := '{}';
    v_read bigint := 0;
    v_bytes bigint := 0;
begin
    for i in 1..cardinality(p_refs) loop
        if i = 1 or p_refs[i] <> p_refs[i - 1] then
            -- Appending makes a copy in memory. Stored outputs are compressed, and each look into them would unpack them again.
            select u.outputs || '{}' into v_outputs
              from nofx.step u
             where u.run_id = p_run_id and u.name = p_refs[i];
            v_read := v_read + coalesce(pg_column_size(v_outputs), 0);
        end if;
        v_value := v_outputs #> coalesce(p_ref_paths[i], '{}')::text[];
        continue when v_value is null;
        v_bytes := v_bytes + octet_length(v_value::text);
        if v_bytes > p_refs_bytes or v_read > p_refs_bytes * 64::bigint then
            return null;
        end if;
        v_values := v_values || jsonb_build_object('step', p_refs[i], 'path', coalesce(p_ref_paths[i], '{}')::text[],
                                                   'value', v_value);
    end loop;
    return to_jsonb(v_values);
end
$$;

-- Claimed steps in id order, as `Claimed` in shared/src/db/step.rs reads them; `refs` as nofx.step_refs gives them.
create or replace function nofx.steps_claimed(p_steps uuid[], p_refs_bytes integer) returns json
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    if p_steps = '{}' then
        return '[]';
    end if;
    return (
        select json_agg(json_build_object(
                   'tenant_id', s.tenant_id, 'run_id', s.run_id, 'step_id', s.id, 'name', s.name, 'tool', s.tool,
                   'attempt', s.attempt, 'failures', s.failures, 'max_attempts', s.max_attempts,
                   'backoff_ms', s.backoff_ms, 'timeout_s', s.timeout_s, 'inputs', s.inputs, 'refs', s.refs,
                   'goal', s.goal, 'workspace', s.workspace, 'traceparent', s.traceparent) order by s.id)
          from unnest(p_steps) c(id)
         cross join lateral (
            select s.tenant_id, s.run_id, s.id, s.name, s.tool, s.attempt, s.failures, s.max_attempts, s.backoff_ms,
                   s.timeout_s, s.inputs, r.goal, r.workspace, r.traceparent,
                   case when s.refs = '{}' then '[]'
                        -- Most steps refer to one value, which is as small as outputs are: no call for those.
                        when cardinality(s.refs) = 1 then coalesce((
                            select jsonb_build_array(jsonb_build_object('step', u.name, 'path', u.path,
                                                                        'value', u.outputs #> u.path))
                              from (select u.name, u.outputs, coalesce(s.ref_paths[1], '{}')::text[] as path
                                      from nofx.step u
                                     where u.run_id = s.run_id and u.name = s.refs[1] offset 0) u
                             where u.outputs #> u.path is not null), '[]')
                        else nofx.step_refs(s.run_id, s.refs, s.ref_paths, p_refs_bytes) end as refs
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = c.id
            offset 0) s);
end
$$;
revoke execute on function nofx.step_refs(uuid, text[], text[], integer), nofx.steps_claimed(uuid[], integer) from public;

-- functions/steps_close.sql sha256=e466a70eae6dadedc9597ad0eeb506690859353cbbc257a319945374097c9a07
-- Closes runs that end early. After a failure (p_running false) running steps end and are recorded, and everything that has not started
-- is skipped. On a cancel or a run timeout (p_running true) every open step is fenced at once, so a late finish changes nothing. Pending gates are
-- cancelled in both cases.
create or replace function nofx.steps_close(p_runs uuid[], p_status text, p_running boolean, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_steps nofx.change[];
    v_gates nofx.change[];
begin
    with open as (
        select s.id, s.status
          from nofx.step s
         where s.run_id = any (p_runs)
           and (s.status in ('pending', 'ready', 'blocked') or (p_running and s.status = 'running'))
    ), closed as (
        update nofx.step s
           set status = p_status, finished_at = p_now, notify_at = null, lease_until = null
          from open o
         where s.id = any (array[o.id])
        returning s.run_id, s.id, o.status as was, s.ordinal, s.attempt
    ), fenced as (
        update nofx.attempt a
           set status = 'cancelled', finished_at = p_now
          from closed c
         where c.was = 'running' and a.step_id = any (array[c.id]) and a.attempt = c.attempt
    )
    select array_agg(nofx.step_change(c.run_id, c.id, c.was, p_status, 'step.' || p_status,
                                      jsonb_build_object('was', c.was)) order by c.ordinal)
      into v_steps
      from closed c;

    with cancelled as (
        update nofx.gate g
           set status = 'cancelled', decided_at = p_now
         where g.run_id = any (p_runs) and g.status = 'pending'
        returning g.run_id, g.step_id, g.id, g.gate_type
    )
    select array_agg(nofx.gate_change(c.run_id, c.step_id, 'gate.cancelled',
                                      jsonb_build_object('gate_id', c.id, 'gate_type', c.gate_type), -1) order by c.id)
      into v_gates
      from cancelled c;

    return v_gates || v_steps;
end
$$;
revoke execute on function nofx.steps_close(uuid[], text, boolean, timestamptz) from public;

-- functions/steps_finish.sql sha256=51d0f92912121cf716e49087516229d6eff6385d9b76199465903f411277931d
-- The end of attempts: record them, release what depended on them, continue with what can start at once, and answer a repeated call.

-- Records ends under their fence (`running` and the attempt's number) and closes the attempts. The caller holds the runs' locks. Returns the
-- changes of the steps that counted, null if none did.
create or replace function nofx.steps_record(p_items jsonb, p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with item as (
        select i.*, r.paused_at,
               -- Nothing starts again or waits in a run that is failing.
               case when i."to" = 'ready' and r.is_failing then 'failed'
                    when i."to" = 'blocked' and r.is_failing then 'skipped'
                    else i."to" end as verdict,
               p_now + make_interval(secs => i.delay_ms / 1000.0) as retry_at
          from jsonb_to_recordset(p_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, "to" text, outputs jsonb, error jsonb,
                    delay_ms integer)
         cross join lateral (
            select r.paused_at, nofx.is_failing(r.steps_failed, r.failure) as is_failing
              from nofx.run r
             where r.id = i.run_id
            offset 0) r
    ), ended as (
        update nofx.step s
           set status = i.verdict,
               outputs = case when i.verdict = 'succeeded' then i.outputs end,
               error = case when i.verdict in ('failed', 'ready') then i.error end,
               failures = s.failures + (i."to" in ('failed', 'ready'))::integer,
               lease_until = null,
               finished_at = case when i.verdict in ('succeeded', 'failed', 'skipped') then p_now end,
               ready_at = case when i.verdict = 'ready' then i.retry_at else s.ready_at end,
               notify_at = case when i.verdict = 'ready' then nofx.wakeup_due(i.retry_at, i.paused_at) end,
               notify_count = 0
          from item i
         where s.id = any (array[i.step_id]) and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
           and s.status = 'running' and s.attempt = i.attempt
        returning s.run_id, s.id, s.attempt, s.status, i."to", i.error, i.delay_ms
    ), closed as (
        update nofx.attempt a
           set status = case when e."to" = 'ready' then 'failed' else e."to" end,
               error = e.error,
               finished_at = p_now
          from ended e
         where a.step_id = any (array[e.id]) and a.attempt = e.attempt
    )
    select array_agg(nofx.step_change(
               e.run_id, e.id, 'running', e.status, case e.status when 'ready' then 'step.retrying' else 'step.' || e.status end,
               case when e.status in ('failed', 'ready')
                    then jsonb_strip_nulls(jsonb_build_object(
                             'attempt', e.attempt, 'error', e.error,
                             'delay_ms', case when e.status = 'ready' then e.delay_ms end))
                    else jsonb_build_object('attempt', e.attempt) end) order by e.id)
      into v_changes
      from ended e;
    return v_changes;
end
$$;

-- The answer for items that did not count, and for neighbours that a failure closed. p_done: the steps that counted. A finish that was already
-- recorded is "repeated": its first answer may have been lost, so it gets the owed wake-ups and the claimed steps again.
-- -> {items: [{step_id, result, status}], owed: [step ids], claimed: [step ids]}
create or replace function nofx.steps_repeat(p_items jsonb, p_done uuid[], p_call uuid) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    return jsonb_build_object(
        'items', (
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown'), 'result',
                       case when s.id = any (p_done) then 'finished'
                            when a.status in ('succeeded', 'failed', 'blocked')
                                 and a.status = case i."to" when 'ready' then 'failed' else i."to" end then 'repeated'
                            else 'stale' end))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, attempt integer, "to" text)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
              left join nofx.attempt a on a.step_id = s.id and a.attempt = i.attempt),
        'owed', (
            select coalesce(jsonb_agg(c.id), '[]')
              from nofx.step c
             where c.status = 'ready'
               and c.id in (select unnest(array[a.step_id, e.child_id])
                              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, attempt integer)
                              join nofx.attempt a on a.step_id = i.step_id and a.attempt = i.attempt
                                                 and a.tenant_id = i.tenant_id
                              left join nofx.step_edge e on e.parent_id = a.step_id
                             where a.status in ('succeeded', 'failed') and a.step_id <> all (p_done))),
        'claimed', (
            select coalesce(jsonb_agg(distinct a.step_id), '[]')
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid, call uuid)
              join nofx.step_edge e on e.parent_id = i.step_id
              join nofx.attempt a on a.step_id = e.child_id and a.tenant_id = i.tenant_id
             where p_call is not null and i.step_id <> all (p_done)
               and a.claimed_by in (p_call, i.call) and a.status = 'running'));
end
$$;

-- Records the ends of attempts. p_items: [{tenant_id, run_id, step_id, attempt, call, to, outputs, error, delay_ms,
-- artifacts, gates, events}], where `to` is succeeded, failed, ready (a retry after delay_ms) or blocked. An item that is fenced out changes
-- nothing ("stale"). An item that was already recorded is "repeated".
--
-- p_next: as nofx.children_release takes it. Steps that start at once need no wake-up. A retry with the same call receives what the first
-- call claimed; an item's `call` names an earlier finish of that attempt whose answer was lost.
--
-- -> {items: [{step_id, result: finished|repeated|stale, status}], claimed: [..], ready: [wake-ups]}
create or replace function nofx.steps_finish(p_items jsonb, p_next jsonb default null) returns json
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz;
    v_changes nofx.change[];
    v_done uuid[];
    v_succeeded uuid[];
    v_failing uuid[];
    v_items jsonb;
    v_started uuid[] := '{}';
    v_ready uuid[] := '{}';
    v_repeat jsonb;
begin
    perform nofx.runs_lock(array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i));
    v_now := clock_timestamp();

    v_changes := nofx.steps_record(p_items, v_now);
    select coalesce(array_agg(c.step_id), '{}'),
           array_agg(c.step_id) filter (where c.to_status = 'succeeded'),
           array_agg(c.run_id) filter (where c.to_status in ('failed', 'skipped')),
           jsonb_agg(jsonb_build_object('step_id', c.step_id, 'status', c.to_status, 'result', 'finished'))
      into v_done, v_succeeded, v_failing, v_items
      from unnest(v_changes) c;
    if v_changes is not null then
        v_changes := nofx.step_facts_insert(p_items, v_done, v_now) || v_changes;
        if v_succeeded is not null then
            v_changes := v_changes || nofx.children_release(v_succeeded, p_next, v_failing, v_now);
            v_started := array(select c.step_id from unnest(v_changes) c where c.to_status = 'running');
        end if;
        if v_failing is not null then
            v_changes := v_changes || nofx.steps_close(v_failing, 'skipped', false, v_now);
        end if;
        perform nofx.runs_settle(v_changes, v_now);
        v_ready := array(select c.step_id from unnest(v_changes) c
                          where c.to_status = 'ready' and c.step_id <> all (v_started));
    end if;

    if cardinality(v_done) <> jsonb_array_length(p_items) or v_failing is not null then
        v_repeat := nofx.steps_repeat(p_items, v_done, (p_next ->> 'call')::uuid);
        v_items := v_repeat -> 'items';
        v_ready := v_ready || array(select jsonb_array_elements_text(v_repeat -> 'owed')::uuid);
        v_started := v_started || array(select jsonb_array_elements_text(v_repeat -> 'claimed')::uuid);
    end if;
    return json_build_object(
        'items', coalesce(v_items, '[]'),
        'claimed', nofx.steps_claimed(v_started, (p_next ->> 'refs_bytes')::integer),
        'ready', nofx.wakeups(v_ready, v_now));
end
$$;
select nofx.transition_declare('nofx.steps_finish(jsonb, jsonb)', 'nofx_worker');
revoke execute on function nofx.steps_record(jsonb, timestamptz), nofx.steps_repeat(jsonb, uuid[], uuid) from public;

-- functions/sweep_gates.sql sha256=38ef74e2d4086f76df7f3edf6d8e162c9c31566f46315a85d9afeed61a236546
-- Expires gates that nobody decided in time. -> {done, ready: [wake-ups]}
create or replace function nofx.sweep_gates(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_gates uuid[];
    v_runs uuid[];
    v_changes nofx.change[];
begin
    select array_agg(d.id), array_agg(distinct d.run_id) into v_gates, v_runs
      from (select g.id, g.run_id from nofx.gate g
             where g.status = 'pending' and g.expires_at < v_now
             order by g.expires_at limit p_limit) d;
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    with expired as (
        update nofx.gate g set status = 'expired', decided_at = v_now
         where g.id = any (v_gates) and g.run_id = any (v_runs) and g.status = 'pending' and g.expires_at < v_now
        returning g.id
    )
    select array_agg(e.id) into v_gates from expired e;
    v_changes := nofx.gates_conclude(v_gates, '{}', v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('done', coalesce(cardinality(v_gates), 0), 'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.sweep_declare('nofx.sweep_gates(integer)');

-- functions/sweep_leases.sql sha256=6672838c1b278a400dafbf2755fbd7dbd2bda8f1dca78ab609d4dd83fdbd3568
-- Ends attempts whose lease is over. Sweeps may run side by side: each skips runs that another transaction holds, and a later sweep finds
-- them. -> {done, ready: [wake-ups]}
create or replace function nofx.sweep_leases(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_steps uuid[];
    v_runs uuid[];
    v_changes nofx.change[];
begin
    select array_agg(d.id), array_agg(distinct d.run_id) into v_steps, v_runs
      from (select s.id, s.run_id from nofx.step s
             where s.status = 'running' and s.lease_until < v_now
             order by s.lease_until limit p_limit) d;
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    v_changes := nofx.leases_end(array(select s.id from nofx.step s
                                        where s.id = any (v_steps) and s.run_id = any (v_runs)), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('done', coalesce(cardinality(v_changes), 0), 'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.sweep_declare('nofx.sweep_leases(integer)');

-- functions/sweep_runs.sql sha256=f3a15f7f3a54a5b8b6a6567b764bd42026047248b72189b43c532a2de235443f
-- Fails runs whose deadline has passed, and fences their open steps. -> {done, ready: []}
create or replace function nofx.sweep_runs(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_runs uuid[];
    v_changes nofx.change[];
begin
    v_runs := nofx.runs_lock_free(array(
        select r.id from nofx.run r
         where r.finished_at is null and r.deadline_at < v_now
         order by r.deadline_at limit p_limit));
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    with late as (
        update nofx.run r
           set failure = jsonb_build_object('code', 'run_timeout',
                                            'message', format('the run did not end within %s s', r.timeout_s))
         where r.id = any (v_runs) and r.finished_at is null and r.deadline_at < v_now
        returning r.id
    )
    select array_agg(l.id) into v_runs from late l;
    select array_agg(nofx.fact(r, null, 'run.timed_out')) into v_changes
      from unnest(v_runs) r;
    v_changes := v_changes || nofx.steps_close(v_runs, 'cancelled', true, v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('done', coalesce(cardinality(v_runs), 0), 'ready', '[]'::jsonb);
end
$$;
select nofx.sweep_declare('nofx.sweep_runs(integer)');

-- functions/sweep_wakeups.sql sha256=681a4a35da78b1c4353119c5a8485da6374cfdba0b22bbb695b3f5214857990e
-- Sends wake-ups that ready steps are owed, after 1, 2, 4, 8 and then every 15 minutes. After 20 of them without a claim the step fails as
-- `undeliverable`. -> {done, ready: [wake-ups]}
create or replace function nofx.sweep_wakeups(p_limit_per_handler integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_steps uuid[];
    v_runs uuid[];
    v_changes nofx.change[];
    v_owed uuid[];
begin
    select array_agg(d.id), array_agg(distinct d.run_id) into v_steps, v_runs
      from (select s.id, s.run_id from nofx.step s
             where s.status = 'ready' and s.notify_at <= v_now and s.notify_count >= nofx.max_wakeups()
             order by s.notify_at limit p_limit_per_handler) d;
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is not null then
        with given_up as (
            update nofx.step s
               set status = 'failed', finished_at = v_now, notify_at = null,
                   error = jsonb_build_object('code', 'undeliverable', 'message',
                       format('no worker claimed the step although it was woken %s times; is the function of handler %s running?',
                              s.notify_count, s.handler))
             where s.id = any (v_steps) and s.run_id = any (v_runs)
               and s.status = 'ready' and s.notify_at <= v_now and s.notify_count >= nofx.max_wakeups()
            returning s.run_id, s.id, s.error
        )
        select array_agg(nofx.step_change(g.run_id, g.id, 'ready', 'failed', 'step.failed',
                                          jsonb_build_object('error', g.error))), array_agg(distinct g.run_id)
          into v_changes, v_runs
          from given_up g;
        if v_runs is not null then
            v_changes := v_changes || nofx.steps_close(v_runs, 'skipped', false, v_now);
            perform nofx.runs_settle(v_changes, v_now);
        end if;
    end if;

    -- Candidates for eight handlers. With more than eight busy ones a sweep still wakes the steps that have waited longest.
    -- Last, because these locks are taken without the runs' locks: their holder waits for nobody.
    with due as (
        select s.id, s.handler, s.notify_at from nofx.step s
         where s.status = 'ready' and s.notify_at <= v_now and s.notify_count < nofx.max_wakeups()
         order by s.notify_at
         limit p_limit_per_handler * 8
           for update skip locked
    ), fair as (
        select d.id, row_number() over (partition by d.handler order by d.notify_at) as position from due d
    ), owed as (
        update nofx.step s
           set notify_count = s.notify_count + 1,
               notify_at = v_now + least(interval '1 minute' * power(2, s.notify_count), interval '15 minutes')
          from fair f
         where s.id = any (array[f.id]) and f.position <= p_limit_per_handler
        returning s.id
    )
    select coalesce(array_agg(o.id), '{}') into v_owed from owed o;
    return jsonb_build_object('done', cardinality(v_owed) + coalesce(cardinality(v_changes), 0),
                              'ready', nofx.wakeups(v_owed, v_now));
end
$$;
select nofx.sweep_declare('nofx.sweep_wakeups(integer)');

-- functions/tenant_id.sql sha256=909b9a44beff0f922b67dd63b7e374a87a79b006686558e1c0f2a12cc2681357
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

-- functions/wakeups.sql sha256=55488d0ad5b3cb4d7ea26852626fb428b5ddd0208789bfb1a33c4b0108cd370f
-- Wake-ups for those of the steps that are ready, none for paused runs. -> [{tenant_id, run_id, step_id, handler, delay_ms, traceparent}]
create or replace function nofx.wakeups(p_steps uuid[], p_now timestamptz) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    if p_steps = '{}' then
        return '[]';
    end if;
    return coalesce((
        select jsonb_agg(jsonb_build_object(
                   'tenant_id', s.tenant_id, 'run_id', s.run_id, 'step_id', s.id, 'handler', s.handler,
                   'delay_ms', greatest(0, ceil(extract(epoch from s.ready_at - p_now) * 1000))::bigint,
                   'traceparent', s.traceparent))
          from unnest(p_steps) w(id)
         cross join lateral (
            select s.tenant_id, s.run_id, s.id, s.handler, s.ready_at, r.traceparent
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = w.id and s.status = 'ready' and r.paused_at is null
            -- One look-up for each, never a scan of all that is ready.
            offset 0) s), '[]');
end
$$;
revoke execute on function nofx.wakeups(uuid[], timestamptz) from public;
