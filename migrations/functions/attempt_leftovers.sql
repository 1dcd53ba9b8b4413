-- Objects that no artifact names: what an attempt stored before it was cancelled, failed, or lost its worker. The sweeper deletes them.

-- Trigger after update of an attempt that fails, is cancelled, or loses its worker: remembers it, if its handler stores anything.
create or replace function nofx.attempt_leftover_add() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    -- The longest function runs for 6 hours.
    insert into nofx.attempt_leftover (step_id, attempt, tenant_id, run_id, due_at)
    select new.step_id, new.attempt, new.tenant_id, new.run_id, new.finished_at + interval '7 hours'
      from nofx.step s
     where s.id = new.step_id and s.handler not in ('manual', 'db_write', 'echo')
        on conflict do nothing;
    return null;
end
$$;

-- Takes at most p_limit attempts that are due. Each is the caller's for ten minutes, and for twice as long with every further try, up to a day.
-- -> [{tenant_id, run_id, step_id, attempt, named: [URIs of the step's artifacts]}]. Only artifacts of the step have objects in its folder
-- first: what has no row there can have none anywhere else.
create or replace function nofx.leftovers_take(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_taken jsonb;
begin
    with due as (
        select l.step_id, l.attempt
          from nofx.attempt_leftover l
         where l.due_at <= v_now
         order by l.due_at limit p_limit
           for no key update skip locked
    ), taken as (
        update nofx.attempt_leftover l
           set due_at = v_now + least(interval '10 minutes' * 2 ^ least(l.tries, 16), interval '1 day'), tries = l.tries + 1
          from due d
         where l.step_id = any (array[d.step_id]) and l.attempt = d.attempt
        returning l.tenant_id, l.run_id, l.step_id, l.attempt
    )
    select jsonb_agg(jsonb_build_object(
               'tenant_id', t.tenant_id, 'run_id', t.run_id, 'step_id', t.step_id, 'attempt', t.attempt,
               'named', array(select a.uri from nofx.artifact a where a.step_id = any (array[t.step_id]))))
      into v_taken
      from taken t;
    return coalesce(v_taken, '[]');
end
$$;

-- Forgets an attempt whose folder has nothing but artifacts. p: {tenant_id, step_id, attempt} -> {result: forgotten}
create or replace function nofx.leftover_forget(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.attempt_leftover l
     where l.step_id = (p ->> 'step_id')::uuid and l.attempt = (p ->> 'attempt')::integer and l.tenant_id = p ->> 'tenant_id';
    return jsonb_build_object('result', 'forgotten');
end
$$;

revoke execute on function nofx.attempt_leftover_add() from public;
select nofx.sweep_declare('nofx.leftovers_take(integer)');
select nofx.transition_declare('nofx.leftover_forget(jsonb)', 'nofx_worker');
