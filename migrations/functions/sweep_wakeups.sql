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

    -- Candidates for eight handlers. With more busy handlers, a sweep wakes the steps that have waited longest.
    -- This comes last, because it locks steps without the locks of their runs: after it, this transaction waits for no lock.
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
