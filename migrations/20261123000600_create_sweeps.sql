-- What the sweeper does. Any number may run at once: runs that somebody else works on are skipped and found again by
-- the next sweep. Every function answers {done, ready: [wake-ups]}.
--
-- No bitmap scans: the planner takes "due by now" for a third of all steps there ever were, and a bitmap of the index of
-- what is owed reads every entry that has passed through it since the last vacuum. Reading the index in its order stops
-- at what is not due yet, and marks on its way what is dead.

-- Attempts whose lease is over.
create or replace function nofx.sweep_leases(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
    set enable_bitmapscan = off set max_parallel_workers_per_gather = 0
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
    return jsonb_build_object('done', coalesce(cardinality(v_changes), 0), 'ready', nofx.wakeups(v_changes, v_now));
end
$$;

-- Locks those of the runs that nobody else holds, in id order; null when there are none.
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

-- Gates that nobody decided in time.
create or replace function nofx.sweep_gates(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
    set enable_bitmapscan = off set max_parallel_workers_per_gather = 0
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
    return jsonb_build_object('done', coalesce(cardinality(v_gates), 0), 'ready', nofx.wakeups(v_changes, v_now));
end
$$;

-- Runs whose time is over: every open step is fenced, and the run fails.
create or replace function nofx.sweep_runs(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
    set enable_bitmapscan = off set max_parallel_workers_per_gather = 0
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
    select array_agg(row(r, null, null, null, 'run.timed_out', null, 0)::nofx.change) into v_changes
      from unnest(v_runs) r;
    v_changes := v_changes || nofx.steps_close(v_runs, 'cancelled', true, v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('done', coalesce(cardinality(v_runs), 0), 'ready', '[]'::jsonb);
end
$$;

-- Ready steps that are owed a wake-up: its distance doubles from one to fifteen minutes. A step that is never claimed
-- although it was woken 20 times fails as undeliverable.
create or replace function nofx.sweep_wakeups(p_limit_per_handler integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
    set enable_bitmapscan = off set max_parallel_workers_per_gather = 0
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_steps uuid[];
    v_runs uuid[];
    v_changes nofx.change[];
    v_owed nofx.change[];
begin
    select array_agg(d.id), array_agg(distinct d.run_id) into v_steps, v_runs
      from (select s.id, s.run_id from nofx.step s
             where s.status = 'ready' and s.notify_at <= v_now and s.notify_count >= 20
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
               and s.status = 'ready' and s.notify_at <= v_now and s.notify_count >= 20
            returning s.run_id, s.id, s.error
        )
        select array_agg(row(g.run_id, g.id, 'ready', 'failed', 'step.failed', jsonb_build_object('error', g.error),
                             0)::nofx.change), array_agg(distinct g.run_id)
          into v_changes, v_runs
          from given_up g;
        if v_runs is not null then
            v_changes := v_changes || nofx.steps_close(v_runs, 'skipped', false, v_now);
            perform nofx.runs_settle(v_changes, v_now);
        end if;
    end if;

    -- Last, because these locks are taken without the runs': whoever holds them waits for nobody any more.
    with due as (
        select s.id, s.handler, s.notify_at from nofx.step s
         where s.status = 'ready' and s.notify_at <= v_now and s.notify_count < 20
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
         where s.id = f.id and f.position <= p_limit_per_handler
        returning s.run_id, s.id
    )
    select array_agg(row(o.run_id, o.id, null, 'ready', null, null, 0)::nofx.change) into v_owed from owed o;
    return jsonb_build_object('done', coalesce(cardinality(v_owed), 0) + coalesce(cardinality(v_changes), 0),
                              'ready', nofx.wakeups(v_owed, v_now));
end
$$;

-- Functions are nobody's but their callers'.
revoke execute on all functions in schema nofx from public;
grant execute on function nofx.tenant_id() to public;
grant execute on function nofx.steps_claim(jsonb, uuid), nofx.steps_finish(jsonb, jsonb), nofx.artifacts_find(jsonb),
    nofx.sweep_leases(integer), nofx.sweep_gates(integer), nofx.sweep_runs(integer), nofx.sweep_wakeups(integer)
    to nofx_worker;
grant execute on function nofx.run_create(jsonb), nofx.run_cancel(jsonb), nofx.run_pause(jsonb),
    nofx.run_resume(jsonb), nofx.run_retry(jsonb), nofx.gate_create(jsonb), nofx.gate_decide(jsonb),
    nofx.gate_json(uuid) to nofx_api;
