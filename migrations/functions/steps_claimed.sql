-- What a worker gets of the steps that it has claimed.

-- The values that one step refers to: [{step, path, value}], without references to nothing. Null if the values have more than
-- p_refs_bytes bytes (null: 0), or the outputs that they are in more than 64 times that. References are in the order of their steps,
-- so each step's outputs are read once.
create or replace function nofx.step_refs(p_run_id uuid, p_refs text[], p_ref_paths text[], p_refs_bytes integer) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_outputs jsonb;
    v_value jsonb;
    v_values jsonb[] := '{}';
    v_most bigint := coalesce(p_refs_bytes, 0);
    v_read bigint := 0;
    v_bytes bigint := 0;
begin
    for i in 1..cardinality(p_refs) loop
        if i = 1 or p_refs[i] <> p_refs[i - 1] then
            -- Appending makes a copy in memory. Stored outputs are compressed, and each look-up would decompress them again.
            select u.outputs || '{}' into v_outputs
              from nofx.step u
             where u.run_id = p_run_id and u.name = p_refs[i];
            v_read := v_read + coalesce(pg_column_size(v_outputs), 0);
        end if;
        v_value := v_outputs #> coalesce(p_ref_paths[i], '{}')::text[];
        continue when v_value is null;
        v_bytes := v_bytes + octet_length(v_value::text);
        if v_bytes > v_most or v_read > v_most * 64 then
            return null;
        end if;
        v_values := v_values || jsonb_build_object('step', p_refs[i], 'path', coalesce(p_ref_paths[i], '{}')::text[],
                                                   'value', v_value);
    end loop;
    return to_jsonb(v_values);
end
$$;

-- What binds a step that judges code or calls models: {policy: {version, document}, decisions: [{gate_id, gate_type, status, subject, decided_by,
-- decided_at}], repair: what the attempt has to repair, and for codegen what nofx.llm_terms returns}.
-- `policy` is null if the tenant has none. `decisions` are of this generation, oldest first: the newest 100 gates of the step that passed or
-- were waived, and those questions about changed checks that a person let pass for other steps of the run, the newest of each of at most
-- 100 subjects. `decided_by` is null if a handler decided.
create or replace function nofx.step_terms(p_tenant_id text, p_step uuid, p_generation integer) returns json
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_run uuid;
    v_repair jsonb;
    v_tool text;
    v_llm jsonb := '{"cooldowns": [], "is_budgeted": false}';
begin
    select s.run_id, s.repair_task, s.tool into v_run, v_repair, v_tool from nofx.step s where s.id = p_step;
    if v_tool = 'codegen' then
        v_llm := nofx.llm_terms(p_tenant_id, v_run);
    end if;
    return json_build_object(
        'repair', v_repair, 'cooldowns', v_llm -> 'cooldowns', 'is_budgeted', v_llm -> 'is_budgeted',
        'policy', (
            select json_build_object('version', p.version, 'document', p.document)
              from nofx.policy p
             where p.tenant_id = p_tenant_id
             order by p.version desc limit 1),
        'decisions', (
            select coalesce(json_agg(json_build_object(
                       'gate_id', d.id, 'gate_type', d.gate_type, 'status', d.status, 'subject', d.subject,
                       'decided_by', d.approved_by, 'decided_at', d.decided_at) order by d.decided_at, d.id), '[]')
              from ((select g.id, g.gate_type, g.status, g.subject, g.approved_by, g.decided_at
                       from nofx.gate g
                      where g.step_id = p_step and g.generation = p_generation and g.status in ('passed', 'waived')
                      order by g.decided_at desc, g.id desc limit 100)
                    union all
                    (select o.id, o.gate_type, o.status, o.subject, o.approved_by, o.decided_at
                       from (select distinct on (g.subject) g.id, g.gate_type, g.status, g.subject, g.approved_by, g.decided_at
                               from nofx.gate g
                              where g.run_id = v_run and g.gate_type = 'manual:gate-change' and g.step_id <> p_step
                                and g.generation = p_generation and g.status in ('passed', 'waived')
                                and g.approved_by is not null and g.subject is not null
                              order by g.subject, g.decided_at desc, g.id desc) o
                      order by o.decided_at desc, o.id desc limit 100)) d));
end
$$;

-- Claimed steps in id order, as `Claimed` in shared/src/db/step.rs reads them; `refs` as nofx.step_refs gives them, `terms` as nofx.step_terms
-- does, null without p_terms.
create or replace function nofx.claims_json(p_steps uuid[], p_refs_bytes integer, p_terms boolean) returns json
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
                   'goal', s.goal, 'workspace', s.workspace, 'traceparent', s.traceparent,
                   'terms', case when p_terms then nofx.step_terms(s.tenant_id, s.id, s.generation) end) order by s.id)
          from unnest(p_steps) c(id)
         cross join lateral (
            select s.tenant_id, s.run_id, s.id, s.name, s.tool, s.attempt, s.failures, s.max_attempts, s.backoff_ms,
                   s.timeout_s, s.inputs, r.goal, r.workspace, r.traceparent, r.generation,
                   case when s.refs = '{}' then '[]'
                        -- Most steps refer to one value. It is no larger than outputs may be, so it needs no check.
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

-- The name of nofx.claims_json before workers needed terms. Claims that are in flight during the migration call it; drop it in the next release.
create or replace function nofx.steps_claimed(p_steps uuid[], p_refs_bytes integer) returns json
    language sql stable
    set search_path = nofx, pg_temp
as $$ select nofx.claims_json(p_steps, p_refs_bytes, false) $$;
revoke execute on function nofx.step_refs(uuid, text[], text[], integer), nofx.step_terms(text, uuid, integer),
    nofx.claims_json(uuid[], integer, boolean), nofx.steps_claimed(uuid[], integer) from public;
