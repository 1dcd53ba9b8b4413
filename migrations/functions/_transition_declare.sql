-- Makes a function callable from outside: by one role, with the planner settings that every transition needs. Each file here that
-- defines such a function ends with a call of this one, because `create or replace` resets a function's settings.
--
-- The planner settings make plans independent of statistics. Every transition looks rows up by key, a batch at a time, and a pooled
-- connection keeps its plans for hours. A plan made while a table was young would scan the whole table after it has grown.
--   plan_cache_mode = force_generic_plan   plan once a session, not for each of the first five calls
--   enable_seqscan, _hashjoin, _mergejoin  only nested loops over index look-ups find a batch's rows without reading a table
--   cpu_tuple_cost, cpu_index_tuple_cost,
--   random_page_cost                       count the rows that a plan touches, not pages: a young table has one page
--   jit                                    compiling costs more than any transition
--
-- They cannot help where a table had a handful of rows: reading its whole index costs as much as a look-up then. Joins by key are therefore
-- written `s.id = any (array[i.step_id])`. Postgres cannot merge-join on that, so it has no reason to read an index in its order, and a
-- look-up is the only way that is left. `is not distinct from` checks a column without offering its index.
create or replace function nofx.transition_declare(p_function regprocedure, p_role regrole) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_setting text;
begin
    foreach v_setting in array array[
        'plan_cache_mode = force_generic_plan', 'enable_seqscan = off', 'enable_hashjoin = off', 'enable_mergejoin = off',
        'cpu_tuple_cost = 1', 'cpu_index_tuple_cost = 1', 'random_page_cost = 1', 'jit = off']
    loop
        execute format('alter function %s set %s', p_function, v_setting);
    end loop;
    execute format('revoke execute on function %s from public', p_function);
    execute format('grant execute on function %s to %s', p_function, p_role);
end
$$;
revoke execute on function nofx.transition_declare(regprocedure, regrole) from public;

-- The same for the sweeper's functions. The planner takes "due by now" for a third of all steps. A bitmap of the index of what is due
-- would read every entry that has passed through it since the last vacuum; reading the index in its order stops at the first step that
-- is not due yet.
create or replace function nofx.sweep_declare(p_function regprocedure) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    perform nofx.transition_declare(p_function, 'nofx_worker');
    execute format('alter function %s set enable_bitmapscan = off', p_function);
    execute format('alter function %s set max_parallel_workers_per_gather = 0', p_function);
end
$$;
revoke execute on function nofx.sweep_declare(regprocedure) from public;
