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
