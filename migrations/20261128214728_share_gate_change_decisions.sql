-- One decision about changed checks answers all gates of a run that ask the same question.

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';
-- Every transition locks a run first. So this waits for those in flight, and keeps new ones out until the commit.
lock table nofx.run in exclusive mode;

-- A run has many gates, and few that ask this.
create index if not exists gate_change on nofx.gate (run_id) where gate_type = 'manual:gate-change';

-- Copies of the files in functions/. Change those files, not this one.

-- functions/gate_decide.sql sha256=34cbbc3a060a5d7f7cbe8ca55a8c1959495d510e8fd177bd654cb6c913723c2f
-- Decides a pending gate, once. In the same transaction its step continues, and what depends on that step becomes ready. Several gates of
-- a run may ask the same question, whether changed checks count: if a person lets one pass, the others pass with it.
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
    v_gates uuid[];
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
    -- Only the sweeper ends an expired gate, even if it has not run yet.
    if v_gate.status <> 'pending' or v_gate.expires_at < v_now then
        return jsonb_build_object('result', 'conflict', 'gate', nofx.gate_json(v_gate.id));
    end if;

    v_gates := array[v_gate.id];
    if v_status <> 'failed' and v_gate.gate_type = 'manual:gate-change' and v_gate.subject is not null then
        v_gates := v_gates || array(
            select g.id
              from nofx.gate g
             where g.run_id = v_gate.run_id and g.gate_type = 'manual:gate-change' and g.step_id is not null
               and g.status = 'pending' and g.generation = v_gate.generation and g.subject = v_gate.subject
               and g.id <> v_gate.id and (g.expires_at is null or g.expires_at >= v_now));
    end if;

    update nofx.gate g
       set status = v_status, decided_at = v_now,
           approved_by = case when v_status <> 'failed' then p ->> 'actor' end,
           approved_at = case when v_status <> 'failed' then v_now end
     where g.id = any (v_gates);
    insert into nofx.approval (tenant_id, run_id, gate_id, decision, actor, reason, created_at)
    select v_gate.tenant_id, v_gate.run_id, decided.id, p ->> 'decision', p ->> 'actor', p ->> 'reason', v_now
      from unnest(v_gates) decided(id);

    v_changes := nofx.gates_conclude(v_gates,
        jsonb_build_object('decision', p ->> 'decision', 'actor', p ->> 'actor', 'reason', p ->> 'reason'), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('result', 'decided', 'gate', nofx.gate_json(v_gate.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.transition_declare('nofx.gate_decide(jsonb)', 'nofx_api');

-- functions/steps_claimed.sql sha256=771b4e79c5f94eae4494ec1644724917c6a88fb5f5adf873d130518d4ff832de
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

-- What binds a step that judges code: {policy: {version, document}, decisions: [{gate_id, gate_type, status, subject, decided_by, decided_at}]}.
-- `policy` is null if the tenant has none. `decisions` are of this generation, oldest first: the newest 100 gates of the step that passed or
-- were waived, and those questions about changed checks that a person let pass for other steps of the run, the newest of each of at most
-- 100 subjects. `decided_by` is null if a handler decided.
create or replace function nofx.step_terms(p_tenant_id text, p_step uuid, p_generation integer) returns json
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_run uuid;
begin
    select s.run_id into v_run from nofx.step s where s.id = p_step;
    return json_build_object(
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
