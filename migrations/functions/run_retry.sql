-- Starts the next generation of a failed or cancelled run. Steps that succeeded stay. All others start again: their blockers are counted
-- again, their failures and lost workers are 0 again, their attempt numbers continue. Gates that did not pass, and those that would not pass today, are
-- asked again.
-- p: {caller, run_id, actor}
-- -> {result: retried|conflict|not_found, status, generation, ready: [wake-ups]}, or {result: gone, artifact_id, storage} if the bytes are deleted of
-- its workspace, or of an artifact that a step names which runs again
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
    v_voided nofx.change[];
    v_gone jsonb;
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.status not in ('failed', 'cancelled') then
        return jsonb_build_object('result', 'conflict', 'status', v_run.status, 'ready', '[]'::jsonb);
    end if;
    select jsonb_build_object('result', 'gone', 'artifact_id', s.artifact_id, 'storage', nofx.artifact_storage_json(s)) into v_gone
      from nofx.run_artifact u
      join nofx.artifact_storage s on s.artifact_id = any (array[u.artifact_id])
     where u.run_id = v_run.id and s.tenant_id = v_run.tenant_id and s.state in ('deleting', 'deleted')
       and (exists (select from jsonb_each(v_run.workspace) w where w.value ->> 'id' = u.artifact_id::text)
            or exists (select from nofx.step t
                        where t.run_id = v_run.id and t.status <> 'succeeded'
                          and strpos(replace(lower(t.inputs::text), '-', ''), replace(u.artifact_id::text, '-', '')) > 0))
     order by s.artifact_id limit 1;
    if v_gone is not null then
        return v_gone;
    end if;
    perform nofx.limits_admit_run(v_run.tenant_id, (select count(*)::integer from nofx.step s
                                                     where s.run_id = v_run.id and s.status <> 'succeeded'));
    v_now := clock_timestamp();
    update nofx.run r
       set status = 'queued', generation = r.generation + 1, failure = null, finished_at = null, cancelled_at = null,
           paused_at = null, authors = nofx.authors_with(r.authors, nofx.author_of(p, 'retried')), deadline_at = v_now + make_interval(secs => r.timeout_s)
     where r.id = v_run.id;

    with lapsed as (
        update nofx.gate g
           set voided_at = v_now
         where g.run_id = v_run.id and g.on_pass = 'release' and g.status in ('passed', 'waived') and g.voided_at is null
           and not exists (select from nofx.step s where s.id = g.step_id and s.status = 'succeeded')
           and not nofx.gate_still_holds(g)
        returning g.id, g.step_id, g.gate_type, g.bound_digest
    )
    select array_agg(nofx.fact(v_run.id, l.step_id, 'gate.voided', jsonb_strip_nulls(jsonb_build_object(
               'gate_id', l.id, 'gate_type', l.gate_type, 'changed', '["approvals"]'::jsonb, 'digest', l.bound_digest))) order by l.id)
      into v_voided
      from lapsed l;

    -- Only gates that clients put before steps. Handlers create theirs again when their steps run.
    v_gates := nofx.gates_ask_again(
        v_run.id,
        array(select g.id from nofx.gate g left join nofx.step s on s.id = g.step_id
               where g.run_id = v_run.id and g.on_pass = 'release'
                 -- A repair voids the gates that it has asked again.
                 and (g.generation = v_run.generation and g.status in ('failed', 'expired', 'cancelled') and g.voided_at is null
                      or g.voided_at = v_now)
                 and s.status is distinct from 'succeeded'),
        v_run.generation + 1, v_now);
    v_steps := nofx.steps_restart(
        v_run.id, array(select s.id from nofx.step s where s.run_id = v_run.id and s.status <> 'succeeded'), null, v_now);

    -- A step that stays may repair as often again.
    update nofx.step s set repairs = 0 where s.run_id = v_run.id and s.repairs > 0;
    perform nofx.runs_settle(
        nofx.fact(v_run.id, null, 'run.retried',
                  jsonb_build_object('actor', p ->> 'actor', 'by', p -> 'by', 'generation', v_run.generation + 1))
        || v_voided || v_gates || v_steps, v_now);
    return jsonb_build_object('result', 'retried', 'generation', v_run.generation + 1,
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_steps), v_now));
end
$$;
select nofx.transition_declare('nofx.run_retry(jsonb)', 'nofx_api');
