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
