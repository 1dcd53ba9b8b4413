-- Adds the event `gate.reminder`, once for each gate that still waits when its reminder is due. The caller has locked the
-- runs p_runs. Returns the events, null if there are none.
create or replace function nofx.gates_remind(p_runs uuid[], p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with reminded as (
        update nofx.gate g set remind_at = null, reminded_at = p_now
         where g.run_id = any (p_runs) and g.status = 'pending' and g.remind_at <= p_now
           and (g.expires_at is null or g.expires_at >= p_now)
        returning g.run_id, g.step_id, g.id, g.gate_type, g.expires_at
    )
    select array_agg(nofx.fact(r.run_id, r.step_id, 'gate.reminder', jsonb_strip_nulls(jsonb_build_object(
               'gate_id', r.id, 'gate_type', r.gate_type, 'expires_at', r.expires_at))) order by r.id)
      into v_changes
      from reminded r;
    return v_changes;
end
$$;
revoke execute on function nofx.gates_remind(uuid[], timestamptz) from public;

-- Expires gates that nobody decided in time, and adds due reminders. -> {done: the expired ones, ready: [wake-ups]}
create or replace function nofx.sweep_gates(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_due uuid[];
    v_gates uuid[];
    v_runs uuid[];
    v_reminders nofx.change[];
    v_changes nofx.change[];
begin
    v_due := array(select g.id from nofx.gate g
                    where g.status = 'pending' and g.expires_at < v_now
                    order by g.expires_at limit p_limit)
             || array(select g.id from nofx.gate g
                       where g.status = 'pending' and g.remind_at <= v_now
                       order by g.remind_at limit p_limit);
    select array_agg(distinct g.run_id) into v_runs from nofx.gate g where g.id = any (v_due);
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    with expired as (
        update nofx.gate g set status = 'expired', decided_at = v_now
         where g.id = any (v_due) and g.run_id = any (v_runs) and g.status = 'pending' and g.expires_at < v_now
        returning g.id
    )
    select array_agg(e.id) into v_gates from expired e;
    v_reminders := nofx.gates_remind(v_runs, v_now);
    v_changes := case when v_gates is not null then nofx.gates_conclude(v_gates, '{}', v_now) end;
    perform nofx.runs_settle(v_reminders || v_changes, v_now);
    return jsonb_build_object('done', coalesce(cardinality(v_gates), 0), 'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.sweep_declare('nofx.sweep_gates(integer)');
