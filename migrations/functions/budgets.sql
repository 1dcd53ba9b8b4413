-- Gates `budget`: a step waits for money. Their subject says what helps, in `waits_for`. `approval`: people raise the budget of the run. `policy`: the
-- policy raises that of the tenant, or the next day or month begins. `reserved`: only what requests in flight have reserved is in the way, so nobody is
-- asked, and the step goes on when they end.

-- Whether a request that a gate waits for would fit into every budget, with so much more reserved in its run and its tenant. Takes no lock:
-- nofx.llm_call_start decides.
create or replace function nofx.budget_fits(p_gate nofx.gate, p_run_more bigint, p_tenant_more bigint, p_now timestamptz) returns boolean
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_needs bigint := p_gate.subject ->> 'needs_usd_micros';
    v_caps record;
    v_is_covered boolean;
begin
    -- What costs nothing fits into every budget.
    if v_needs = 0 then
        return true;
    end if;
    select coalesce(r.spent_usd_micros + r.reserved_usd_micros + p_run_more + v_needs <= r.budget_usd_micros, r.budget_usd_micros is null)
      into v_is_covered
      from nofx.run r
     where r.id = p_gate.run_id;
    select * into v_caps from nofx.llm_caps(p_gate.tenant_id);
    return coalesce(v_is_covered and not exists (
        select from (values ('day', nofx.llm_day(p_now), v_caps.day_cap), ('month', nofx.llm_month(p_now), v_caps.month_cap))
                    as c(period, starts_on, cap)
          left join nofx.llm_spend s on s.tenant_id = p_gate.tenant_id and s.period = c.period and s.starts_on = c.starts_on
         where coalesce(s.spent_usd_micros + s.reserved_usd_micros, 0) + p_tenant_more + v_needs > c.cap), false);
end
$$;

-- Whether a gate says that its step waits for requests in flight, and that is not true any more: too much of its budget is spent, or it has room and
-- another budget has none. Then the step has to ask again. It does not come back to the same gate: its own budget
-- refuses it for another reason, or not at all.
create or replace function nofx.budget_asks_anew(p_gate nofx.gate, p_now timestamptz) returns boolean
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_needs bigint := p_gate.subject ->> 'needs_usd_micros';
    v_scope text := p_gate.subject ->> 'scope';
    v_caps record;
    v_own record;
begin
    if p_gate.subject ->> 'waits_for' is distinct from 'reserved' then
        return false;
    end if;
    if v_scope = 'run' then
        select r.budget_usd_micros as cap, r.spent_usd_micros as spent, r.reserved_usd_micros as reserved into v_own
          from nofx.run r
         where r.id = p_gate.run_id;
    else
        select * into v_caps from nofx.llm_caps(p_gate.tenant_id);
        select case v_scope when 'day' then v_caps.day_cap else v_caps.month_cap end as cap,
               coalesce(sum(s.spent_usd_micros), 0) as spent, coalesce(sum(s.reserved_usd_micros), 0) as reserved
          into v_own
          from nofx.llm_spend s
         where s.tenant_id = p_gate.tenant_id and s.period = v_scope
           and s.starts_on = case v_scope when 'day' then nofx.llm_day(p_now) else nofx.llm_month(p_now) end;
    end if;
    return coalesce(v_own.spent + v_needs > v_own.cap, false)
        or coalesce(v_own.spent + v_own.reserved + v_needs <= v_own.cap, true) and not nofx.budget_fits(p_gate, 0, 0, p_now);
end
$$;

-- Raises the budget of a run by what its gate asked for. The caller holds the run's lock and has written the gate as passed. Returns the event.
create or replace function nofx.budget_raise(p_gate nofx.gate, p jsonb) returns nofx.change
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_more bigint := p_gate.subject ->> 'missing_usd_micros';
    v_budget bigint;
begin
    update nofx.run r
       set budget_usd_micros = r.budget_usd_micros + v_more
     where r.id = p_gate.run_id
    returning r.budget_usd_micros into v_budget;
    return nofx.fact(p_gate.run_id, p_gate.step_id, 'budget.raised', jsonb_strip_nulls(jsonb_build_object(
        'gate_id', p_gate.id, 'scope', 'run', 'from_usd_micros', v_budget - v_more, 'to_usd_micros', v_budget, 'actor', p ->> 'actor',
        'by', p -> 'by')));
end
$$;

-- Whether somebody paused a run.
create or replace function nofx.is_paused(p_run_id uuid) returns boolean
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select r.paused_at is not null from nofx.run r where r.id = p_run_id
$$;

-- What gates that passed within a minute have promised to steps that can start, and have not reserved it yet: to those of a run, or without
-- p_run_id of the tenant.
create or replace function nofx.budget_promised(p_tenant_id text, p_run_id uuid, p_now timestamptz) returns bigint
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_passed nofx.gate[];
begin
    if p_run_id is null then
        v_passed := array(
            select g from nofx.gate g
             where g.tenant_id = p_tenant_id and g.gate_type = 'budget' and g.status = 'passed' and g.decided_at > p_now - interval '1 minute');
    else
        v_passed := array(
            select g from nofx.gate g
             where g.run_id = p_run_id and g.gate_type = 'budget' and g.status = 'passed' and g.decided_at > p_now - interval '1 minute');
    end if;
    return coalesce((
        select sum(m.needs)
          from (select max((g.subject ->> 'needs_usd_micros')::bigint) as needs
                  from unnest(v_passed) g
                  join nofx.step s on s.id = any (array[g.step_id])
                  join nofx.run r on r.id = any (array[g.run_id])
                 where s.status in ('ready', 'running') and r.paused_at is null
                   and not exists (select from nofx.llm_call c where c.step_id = s.id and c.started_at >= g.decided_at)
                 group by g.step_id) m), 0);
end
$$;

-- Lets those of the gates pass that fit into the budgets together, in the order of p_gates, and those whose steps have to ask again, if nobody else
-- holds their runs. -> {done, ready: [wake-ups]}
create or replace function nofx.budgets_pass(p_gates uuid[], p_now timestamptz) returns jsonb
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_fit uuid[] := '{}';
    v_anew uuid[] := '{}';
    v_done uuid[];
    v_runs uuid[];
    v_gate nofx.gate;
    v_needs bigint;
    v_more jsonb := '{}';
    v_run_more bigint;
    v_tenant_more bigint;
    v_changes nofx.change[];
begin
    for v_gate in
        select g.*
          from unnest(p_gates) with ordinality as c(id, position)
          join nofx.gate g on g.id = c.id
         order by c.position
    loop
        v_needs := v_gate.subject ->> 'needs_usd_micros';
        v_run_more := coalesce((v_more ->> v_gate.run_id::text)::bigint, nofx.budget_promised(v_gate.tenant_id, v_gate.run_id, p_now));
        v_tenant_more := coalesce((v_more ->> v_gate.tenant_id)::bigint, nofx.budget_promised(v_gate.tenant_id, null, p_now));
        if nofx.budget_fits(v_gate, v_run_more, v_tenant_more, p_now) then
            v_fit := v_fit || v_gate.id;
            v_run_more := v_run_more + v_needs;
            v_tenant_more := v_tenant_more + v_needs;
        elsif nofx.budget_asks_anew(v_gate, p_now) then
            v_anew := v_anew || v_gate.id;
        end if;
        v_more := v_more || jsonb_build_object(v_gate.run_id::text, v_run_more, v_gate.tenant_id, v_tenant_more);
    end loop;
    v_runs := nofx.runs_lock_free(array(select distinct g.run_id from nofx.gate g where g.id = any (v_fit || v_anew)));
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    -- Other events of these runs may be younger than the caller's time.
    p_now := clock_timestamp();
    with passed as (
        update nofx.gate g set status = 'passed', decided_at = p_now
         where g.id = any (v_fit || v_anew) and g.run_id = any (v_runs) and g.status = 'pending'
        returning g.id
    )
    select coalesce(array_agg(p.id), '{}') into v_done from passed p;
    v_changes := nofx.gates_conclude(array(select unnest(v_done) intersect select unnest(v_fit)),
                                     '{"reason": "the budget covers it now"}', p_now)
              || nofx.gates_conclude(array(select unnest(v_done) intersect select unnest(v_anew)),
                                     '{"reason": "it no longer waits for requests in flight, so the step asks again"}', p_now);
    perform nofx.runs_settle(v_changes, p_now);
    return jsonb_build_object('done', cardinality(v_done), 'ready', nofx.wakeups(nofx.made_ready(v_changes), p_now));
end
$$;

-- After a request of a run ended: lets the oldest steps go on that wait for what it had reserved, of the run and of the tenant. What is left to do,
-- because there are many or their runs are busy, the sweeper does. -> [wake-ups]
create or replace function nofx.budgets_release(p_tenant_id text, p_run_id uuid, p_now timestamptz) returns jsonb
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates uuid[] := array(
        select g.id from nofx.gate g
         where g.tenant_id = p_tenant_id and g.status = 'pending' and g.gate_type = 'budget' and g.subject ->> 'waits_for' = 'reserved'
           and (g.run_id = p_run_id or g.subject ->> 'scope' <> 'run') and not nofx.is_paused(g.run_id)
         order by (g.subject ->> 'scope' = 'run') desc, g.created_at, g.id limit 20);
begin
    return case when v_gates = '{}' then '[]' else nofx.budgets_pass(v_gates, p_now) -> 'ready' end;
end
$$;

-- The same for steps that have just stopped, because the last request may have ended before their gates were there. Returns those that are ready.
create or replace function nofx.budgets_recheck(p_changes nofx.change[], p_now timestamptz) returns uuid[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates uuid[];
begin
    if not exists (select from unnest(p_changes) c where c.event_type = 'budget.exhausted') then
        return '{}';
    end if;
    v_gates := array(
        select g.id from nofx.gate g
         where g.step_id in (select c.step_id from unnest(p_changes) c where c.event_type = 'budget.exhausted')
           and g.status = 'pending' and g.gate_type = 'budget' and g.subject ->> 'waits_for' = 'reserved' and not nofx.is_paused(g.run_id)
         order by g.id);
    return array(select (w ->> 'step_id')::uuid from jsonb_array_elements(nofx.budgets_pass(v_gates, p_now) -> 'ready') w);
end
$$;

-- Lets steps go on that a budget covers now: a new day or month, a higher cap, or money that was reserved and is free again. First those that
-- wait only for requests in flight, each in the order in which they stopped, and no more than fit together. Steps of paused runs could not use
-- the money. -> {done, ready: [wake-ups]}
create or replace function nofx.sweep_budgets(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    return nofx.budgets_pass(
        array(
            select g.id from nofx.gate g
             where g.status = 'pending' and g.gate_type = 'budget' and g.subject ->> 'waits_for' = 'reserved'
               and (g.expires_at is null or g.expires_at >= v_now) and not nofx.is_paused(g.run_id)
               and (nofx.budget_fits(g, 0, 0, v_now) or nofx.budget_asks_anew(g, v_now))
             order by g.created_at, g.id limit p_limit)
        || array(
            select g.id from nofx.gate g
             where g.status = 'pending' and g.gate_type = 'budget' and g.subject ->> 'waits_for' is distinct from 'reserved'
               and (g.expires_at is null or g.expires_at >= v_now) and not nofx.is_paused(g.run_id)
               and (nofx.budget_fits(g, 0, 0, v_now) or nofx.budget_asks_anew(g, v_now))
             order by g.created_at, g.id limit p_limit), v_now);
end
$$;
select nofx.sweep_declare('nofx.sweep_budgets(integer)');
revoke execute on function nofx.is_paused(uuid), nofx.budget_asks_anew(nofx.gate, timestamptz),
    nofx.budget_fits(nofx.gate, bigint, bigint, timestamptz), nofx.budget_raise(nofx.gate, jsonb),
    nofx.budget_promised(text, uuid, timestamptz), nofx.budgets_pass(uuid[], timestamptz), nofx.budgets_release(text, uuid, timestamptz),
    nofx.budgets_recheck(nofx.change[], timestamptz)
    from public;
