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
      from (select a.step_id as id, a.run_id from nofx.attempt a
             where a.finished_at is null and a.lease_until < v_now
             order by a.lease_until limit p_limit) d;
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
