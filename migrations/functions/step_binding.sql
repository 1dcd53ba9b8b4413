-- What a decision covers: digests of everything that a step works with. A claim computes them again, and asks again if one has changed.
-- Plan, workspace and artifacts have digests that anybody can compute. Those of inputs, outputs and rules are of the text that Postgres makes of
-- their JSON, for comparison in this database only.

create or replace function nofx.binding_digest(p_bound jsonb) returns text
    language sql immutable
    set search_path = ''
as $$
    select encode(sha256(convert_to(p_bound::text, 'UTF8')), 'hex')
$$;

-- A digest by name for each entry; of more than 200 entries, their number and one digest of all.
create or replace function nofx.binding_list(p_list jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select case when c.count <= 200 then coalesce(p_list, '{}')
                else jsonb_build_object('count', c.count, 'digest', nofx.binding_digest(p_list)) end
      from (select count(*) from jsonb_object_keys(coalesce(p_list, '{}'))) c(count)
$$;

-- Of a gate before a step that has not started, or before the end of a run: what is known then. p_step may be null.
create or replace function nofx.run_binding(p_run uuid, p_step uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_strip_nulls(jsonb_build_object(
               'v', 1, 'plan', r.plan_digest,
               'workspace', (select jsonb_object_agg(w.key, w.value -> 'hash') from jsonb_each(r.workspace) w),
               'step', s.name, 'inputs', nofx.binding_digest(s.inputs)))
      from nofx.run r
      left join nofx.step s on s.id = p_step
     where r.id = p_run
$$;

-- The rule of the table that a db_write step names; if only its inputs will say which table, all rules of the tenant. Null for other steps.
create or replace function nofx.rule_binding(p_step nofx.step) returns text
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select nofx.binding_digest(coalesce(jsonb_agg(to_jsonb(l) - 'id' - 'created_at' - 'updated_at' order by l.table_name), '[]'))
      from nofx.db_write_rule l
     where l.tenant_id = p_step.tenant_id
       and (l.table_name = p_step.inputs ->> 'table' or p_step.inputs ->> 'table' like '%${{%')
    having p_step.handler = 'db_write'
$$;

-- Of a step whose parents have succeeded: also the outputs and artifacts of every step upstream, and what its gate shows.
create or replace function nofx.step_binding(p_step uuid, p_subject jsonb, p_evidence_uri text) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_step nofx.step;
    v_upstream jsonb;
begin
    select * into v_step from nofx.step s where s.id = p_step;
    with recursive above(id) as (
        select e.parent_id from nofx.step_edge e where e.child_id = p_step
        union
        select e.parent_id from above a join nofx.step_edge e on e.child_id = any (array[a.id])
    )
    select jsonb_object_agg(u.name, jsonb_build_object(
               'outputs', nofx.binding_digest(u.outputs),
               'artifacts', nofx.binding_list((
                   select jsonb_object_agg(f.name, f.hashes)
                     from (select a.name, string_agg(a.hash, ' ' order by a.hash) as hashes
                             from nofx.artifact a
                            where a.step_id = u.id and a.attempt = u.attempt
                            group by a.name) f))))
      into v_upstream
      from above b
      join nofx.step u on u.id = any (array[b.id]);
    return nofx.run_binding(v_step.run_id, p_step)
        || jsonb_strip_nulls(jsonb_build_object(
               'rule', nofx.rule_binding(v_step), 'upstream', nofx.binding_list(v_upstream), 'subject', p_subject,
               'evidence', (select a.hash from nofx.artifact a
                             where a.step_id = p_step and a.uri = p_evidence_uri
                             order by a.id limit 1)));
end
$$;

-- Of a gate, now.
create or replace function nofx.gate_binding(p_gate nofx.gate) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select case when p_gate.on_pass = 'release' then nofx.run_binding(p_gate.run_id, p_gate.step_id)
                else nofx.step_binding(p_gate.step_id, p_gate.subject, p_gate.evidence_uri) end
$$;

-- The paths at which two bindings differ, at most 20.
create or replace function nofx.binding_changes(p_old jsonb, p_new jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    with recursive differs(path, old, new) as (
        select '', p_old, p_new where p_old is distinct from p_new
        union all
        select d.path || case when d.path = '' then '' else '.' end || k.key, d.old -> k.key, d.new -> k.key
          from differs d
         cross join lateral (select jsonb_object_keys(d.old) union select jsonb_object_keys(d.new)) k(key)
         where jsonb_typeof(d.old) = 'object' and jsonb_typeof(d.new) = 'object' and d.old -> k.key is distinct from d.new -> k.key
    )
    select coalesce(jsonb_agg(l.path), '[]')
      from (select d.path from differs d
             where not coalesce(jsonb_typeof(d.old) = 'object' and jsonb_typeof(d.new) = 'object', false)
             order by d.path limit 20) l
$$;
revoke execute on function nofx.binding_digest(jsonb), nofx.binding_list(jsonb), nofx.run_binding(uuid, uuid), nofx.rule_binding(nofx.step),
    nofx.step_binding(uuid, jsonb, text), nofx.gate_binding(nofx.gate), nofx.binding_changes(jsonb, jsonb) from public;
