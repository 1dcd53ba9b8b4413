-- Gates `budget`: a step waits for money. That of a run is raised by people who approve; that of a tenant's day or month by the policy or by time.

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

-- Lets steps go on that a budget covers now: a new day or month, a higher cap, or money that was reserved and is free again. In the order
-- in which they stopped, and no more than fit together. -> {done, ready: [wake-ups]}
create or replace function nofx.sweep_budgets(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_gates uuid[] := '{}';
    v_runs uuid[];
    v_gate nofx.gate;
    v_more jsonb := '{}';
    v_run_more bigint;
    v_tenant_more bigint;
    v_changes nofx.change[];
begin
    for v_gate in
        select g.* from nofx.gate g
         where g.status = 'pending' and g.gate_type = 'budget' and (g.expires_at is null or g.expires_at >= v_now)
           and nofx.budget_fits(g, 0, 0, v_now)
         order by g.created_at, g.id limit p_limit
    loop
        v_run_more := coalesce((v_more ->> v_gate.run_id::text)::bigint, 0);
        v_tenant_more := coalesce((v_more ->> v_gate.tenant_id)::bigint, 0);
        continue when not nofx.budget_fits(v_gate, v_run_more, v_tenant_more, v_now);
        v_gates := v_gates || v_gate.id;
        v_more := v_more || jsonb_build_object(
            v_gate.run_id::text, v_run_more + (v_gate.subject ->> 'needs_usd_micros')::bigint,
            v_gate.tenant_id, v_tenant_more + (v_gate.subject ->> 'needs_usd_micros')::bigint);
    end loop;
    v_runs := nofx.runs_lock_free(array(select distinct g.run_id from nofx.gate g where g.id = any (v_gates)));
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    with passed as (
        update nofx.gate g set status = 'passed', decided_at = v_now
         where g.id = any (v_gates) and g.run_id = any (v_runs) and g.status = 'pending'
        returning g.id
    )
    select coalesce(array_agg(p.id), '{}') into v_gates from passed p;
    v_changes := nofx.gates_conclude(v_gates, '{"reason": "the budget covers it now"}', v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('done', cardinality(v_gates), 'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.sweep_declare('nofx.sweep_budgets(integer)');
revoke execute on function nofx.budget_fits(nofx.gate, bigint, bigint, timestamptz), nofx.budget_raise(nofx.gate, jsonb) from public;
