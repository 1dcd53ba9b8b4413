-- Requests to models, and their money. A start reserves the most that a request can cost, in the transaction that lets it be sent. Its end
-- settles it: what it really costs is spent, at most what was reserved, and the rest is free again. If no end comes, the sweeper charges what was
-- reserved. So no budget is ever passed.
-- Locks: the run first, then the tenant's month, then its day. Amounts are micro-dollars.

-- The days and months of budgets are those of UTC.
create or replace function nofx.llm_day(p_at timestamptz) returns date
    language sql immutable
    set search_path = ''
as $$ select (p_at at time zone 'UTC')::date $$;

create or replace function nofx.llm_month(p_at timestamptz) returns date
    language sql immutable
    set search_path = ''
as $$ select date_trunc('month', p_at at time zone 'UTC')::date $$;

-- The budgets of a tenant, from its current policy. Null without one.
create or replace function nofx.llm_caps(p_tenant_id text, out day_cap bigint, out month_cap bigint)
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    -- Dollars have at most six decimals, as numbers or as strings.
    select ((p.document #>> '{models,budgets,day_usd}')::numeric * 1000000)::bigint,
           ((p.document #>> '{models,budgets,month_usd}')::numeric * 1000000)::bigint
      into day_cap, month_cap
      from nofx.policy p
     where p.tenant_id = p_tenant_id
     order by p.version desc limit 1;
end
$$;

-- What binds the model calls of a step: {cooldowns: [{deployment, left_ms, kind, reason}], is_budgeted}. A cooldown of one model has
-- DEPLOYMENT/MODEL as its deployment.
create or replace function nofx.llm_terms(p_tenant_id text, p_run_id uuid) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_caps record;
begin
    select * into v_caps from nofx.llm_caps(p_tenant_id);
    return jsonb_build_object(
        'is_budgeted', v_caps.day_cap is not null or v_caps.month_cap is not null
                       or (select r.budget_usd_micros is not null from nofx.run r where r.id = p_run_id),
        'cooldowns', (
            select coalesce(jsonb_agg(jsonb_build_object(
                       'deployment', c.deployment, 'left_ms', ceil(extract(epoch from c.until - v_now) * 1000)::bigint, 'kind', c.kind,
                       'reason', c.reason) order by c.deployment), '[]')
              from (select * from nofx.llm_cooldown c
                     where c.tenant_id = p_tenant_id and c.until > v_now
                     order by c.deployment limit 100) c));
end
$$;

-- Locks the month and the day of a tenant in which a request starts, and makes their rows. The caller holds the run's lock.
create or replace function nofx.llm_spend_lock(
    p_tenant_id text, p_at timestamptz, out month_used bigint, out month_spent bigint, out day_used bigint, out day_spent bigint
)
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    insert into nofx.llm_spend (tenant_id, period, starts_on)
    values (p_tenant_id, 'month', nofx.llm_month(p_at)), (p_tenant_id, 'day', nofx.llm_day(p_at))
        on conflict do nothing;
    select s.spent_usd_micros, s.spent_usd_micros + s.reserved_usd_micros into month_spent, month_used
      from nofx.llm_spend s
     where s.tenant_id = p_tenant_id and s.period = 'month' and s.starts_on = nofx.llm_month(p_at)
       for no key update;
    select s.spent_usd_micros, s.spent_usd_micros + s.reserved_usd_micros into day_spent, day_used
      from nofx.llm_spend s
     where s.tenant_id = p_tenant_id and s.period = 'day' and s.starts_on = nofx.llm_day(p_at)
       for no key update;
end
$$;

-- Adds to what a run, and the month and the day of p_at have spent and reserved. The caller holds the run's lock and those of nofx.llm_spend_lock.
create or replace function nofx.llm_account(p_tenant_id text, p_run_id uuid, p_at timestamptz, p_spent bigint, p_reserved bigint) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    update nofx.run r
       set spent_usd_micros = r.spent_usd_micros + p_spent, reserved_usd_micros = r.reserved_usd_micros + p_reserved
     where r.id = p_run_id;
    update nofx.llm_spend s
       set spent_usd_micros = s.spent_usd_micros + p_spent, reserved_usd_micros = s.reserved_usd_micros + p_reserved
     where s.tenant_id = p_tenant_id
       and (s.period = 'month' and s.starts_on = nofx.llm_month(p_at) or s.period = 'day' and s.starts_on = nofx.llm_day(p_at));
end
$$;

-- Settles a call: {usage, charge: {kind: nothing|usage|ceiling|unpriced, usd_micros}, model_served, usable, fault: {kind, reason, status},
-- duration_ms}. A call that was settled before gets its new charge instead of the old one. A cost above what was reserved is charged as what was
-- reserved, and the event says what was reported. The caller holds the run's lock.
-- Returns the event.
create or replace function nofx.llm_settle(p_call nofx.llm_call, p_end jsonb, p_now timestamptz) returns nofx.change
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_kind text := p_end #>> '{charge,kind}';
    v_cost bigint := case when v_kind = 'usage' then (p_end #>> '{charge,usd_micros}')::bigint end;
    v_charge bigint := case v_kind when 'nothing' then 0
                                   when 'usage' then least(v_cost, p_call.reserved_usd_micros)
                                   when 'ceiling' then p_call.reserved_usd_micros end;
    v_was_open boolean := p_call.state = 'open';
    v_usage jsonb := nullif(p_end -> 'usage', 'null');
    v_served text := left(p_end ->> 'model_served', 200);
    v_is_late boolean;
begin
    if v_kind not in ('nothing', 'usage', 'ceiling', 'unpriced') or v_kind = 'usage' and coalesce(v_cost < 0, true) then
        raise exception 'a charge is nothing, usage, ceiling or unpriced' using errcode = 'invalid_parameter_value';
    end if;
    perform nofx.llm_spend_lock(p_call.tenant_id, p_call.started_at);
    perform nofx.llm_account(p_call.tenant_id, p_call.run_id, p_call.started_at,
                             coalesce(v_charge, 0) - coalesce(p_call.charged_usd_micros, 0),
                             case when v_was_open then -coalesce(p_call.reserved_usd_micros, 0) else 0 end);
    update nofx.llm_call c
       set state = 'settled', charged_usd_micros = v_charge, is_estimated = v_kind = 'ceiling', model_served = v_served,
           input_tokens = (v_usage ->> 'input_tokens')::bigint, output_tokens = (v_usage ->> 'output_tokens')::bigint,
           cached_input_tokens = (v_usage ->> 'cached_input_tokens')::bigint,
           cache_write_input_tokens = (v_usage ->> 'cache_write_input_tokens')::bigint,
           reasoning_tokens = (v_usage ->> 'reasoning_tokens')::bigint,
           is_usable = coalesce((p_end ->> 'usable')::boolean, false), fault_kind = left(p_end #>> '{fault,kind}', 50), ended_at = p_now
     where c.id = p_call.id;
    delete from nofx.llm_progress g where g.call_id = p_call.id;
    v_is_late := not exists (select from nofx.step s
                              where s.id = p_call.step_id and s.status = 'running' and s.attempt = p_call.attempt);
    return nofx.fact(p_call.run_id, p_call.step_id, 'llm.usage',
        jsonb_strip_nulls(jsonb_build_object(
            'call_id', p_call.id, 'provider', p_call.provider, 'model', coalesce(v_served, p_call.model_requested),
            'model_requested', p_call.model_requested, 'model_served', v_served,
            'usable', coalesce((p_end ->> 'usable')::boolean, false), 'reason', left(p_end #>> '{fault,reason}', 500),
            'kind', left(p_end #>> '{fault,kind}', 50), 'status', p_end #> '{fault,status}', 'duration_ms', p_end -> 'duration_ms',
            'cost_usd_micros', v_charge, 'price_version', p_call.price_version,
            'estimated', case when v_kind = 'ceiling' then true end,
            'exceeds_reserved', case when v_cost > v_charge then true end,
            'reported_usd_micros', case when v_cost > v_charge then v_cost end,
            'corrects_usd_micros', case when not v_was_open then coalesce(p_call.charged_usd_micros, 0) end,
            'late_attempt', case when v_is_late then p_call.attempt end))
        || coalesce(v_usage, '{}'));
end
$$;

-- The answer of a start that a budget refuses.
create or replace function nofx.llm_over_budget(p_scope text, p_cap bigint, p_spent bigint, p_used bigint, p_needs bigint) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_build_object('result', 'over_budget', 'scope', p_scope, 'cap_usd_micros', p_cap, 'spent_usd_micros', p_spent,
                              'reserved_usd_micros', p_used - p_spent, 'needs_usd_micros', p_needs)
$$;

-- Lets a request be sent, and reserves its money. p: {tenant_id, run_id, step_id, attempt, id, provider, model, deployment, reserve_usd_micros,
-- price, limit_ms, because}. Without a reserve no price is known, which no budget accepts. A repeated start with the same id changes nothing.
-- -> {result: granted|lost|unpriced|over_budget, scope, cap_usd_micros, spent_usd_micros, reserved_usd_micros, needs_usd_micros}
create or replace function nofx.llm_call_start(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := p ->> 'tenant_id';
    v_reserve bigint := p ->> 'reserve_usd_micros';
    v_run nofx.run;
    v_now timestamptz;
    v_call nofx.llm_call;
    v_caps record;
    v_spend record;
begin
    v_run := nofx.run_lock(v_tenant, (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return '{"result": "lost"}';
    end if;
    v_now := clock_timestamp();
    select * into v_call from nofx.llm_call c where c.id = (p ->> 'id')::uuid;
    if not exists (select from nofx.step s
                    where s.id = (p ->> 'step_id')::uuid and s.run_id is not distinct from v_run.id and s.tenant_id = v_tenant
                      and s.status = 'running' and s.attempt = (p ->> 'attempt')::integer and s.lease_until > v_now) then
        -- Reserved by this call, whose first answer was lost. So nothing was sent.
        if v_call.state = 'open' and v_call.run_id = v_run.id and v_call.step_id = (p ->> 'step_id')::uuid
           and v_call.attempt = (p ->> 'attempt')::integer then
            perform nofx.runs_settle(array[nofx.llm_settle(v_call, '{"charge": {"kind": "nothing"}}', v_now)], v_now);
        end if;
        return '{"result": "lost"}';
    end if;
    if v_call.id is not null then
        return jsonb_build_object('result', case
            when v_call.state = 'open' and v_call.run_id = v_run.id and v_call.step_id = (p ->> 'step_id')::uuid
                 and v_call.attempt = (p ->> 'attempt')::integer then 'granted' else 'lost' end);
    end if;
    if v_reserve < 0 then
        raise exception 'a reserve is not negative' using errcode = 'invalid_parameter_value';
    end if;

    select * into v_caps from nofx.llm_caps(v_tenant);
    if v_reserve is null and coalesce(v_run.budget_usd_micros, v_caps.day_cap, v_caps.month_cap) is not null then
        return jsonb_build_object('result', 'unpriced', 'scope', case when v_run.budget_usd_micros is not null then 'run'
                                                                      when v_caps.day_cap is not null then 'day' else 'month' end);
    end if;
    -- What costs nothing fits into every budget.
    if v_reserve > 0 and v_run.spent_usd_micros + v_run.reserved_usd_micros + v_reserve > v_run.budget_usd_micros then
        return nofx.llm_over_budget('run', v_run.budget_usd_micros, v_run.spent_usd_micros,
                                    v_run.spent_usd_micros + v_run.reserved_usd_micros, v_reserve);
    end if;
    select * into v_spend from nofx.llm_spend_lock(v_tenant, v_now);
    if v_reserve > 0 and v_spend.day_used + v_reserve > v_caps.day_cap then
        return nofx.llm_over_budget('day', v_caps.day_cap, v_spend.day_spent, v_spend.day_used, v_reserve);
    elsif v_reserve > 0 and v_spend.month_used + v_reserve > v_caps.month_cap then
        return nofx.llm_over_budget('month', v_caps.month_cap, v_spend.month_spent, v_spend.month_used, v_reserve);
    end if;
    perform nofx.llm_account(v_tenant, v_run.id, v_now, 0, coalesce(v_reserve, 0));
    insert into nofx.llm_call (id, tenant_id, run_id, step_id, attempt, provider, model_requested, deployment, because, price_version, price,
                               reserved_usd_micros, started_at, due_at)
    values ((p ->> 'id')::uuid, v_tenant, v_run.id, (p ->> 'step_id')::uuid, (p ->> 'attempt')::integer, p ->> 'provider', p ->> 'model',
            p ->> 'deployment', p -> 'because', p #>> '{price,version}', nullif(p -> 'price', 'null') - 'version', v_reserve, v_now,
            v_now + make_interval(secs => (p ->> 'limit_ms')::numeric / 1000) + interval '60 s');
    perform nofx.runs_settle(array[nofx.fact(v_run.id, (p ->> 'step_id')::uuid, 'llm.attempt', jsonb_strip_nulls(jsonb_build_object(
        'call_id', p -> 'id', 'provider', p ->> 'provider', 'model_requested', p ->> 'model', 'reserved_usd_micros', v_reserve,
        'price_version', p #>> '{price,version}', 'because', p -> 'because')))], v_now);
    return '{"result": "granted"}';
end
$$;

-- Settles a request. p: {tenant_id, run_id, step_id, attempt, id, and what nofx.llm_settle takes, cooldown: {for_ms, of_model, kind, reason}, recovered}.
-- Also for an attempt that has lost its step. A repeated end changes nothing, but a known cost replaces a ceiling. Steps that waited for the
-- money that is free again go on.
-- -> {result: settled|corrected|repeated|unknown, ready: [wake-ups]}
create or replace function nofx.llm_call_end(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz;
    v_call nofx.llm_call;
begin
    if nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid) is null then
        return '{"result": "unknown"}';
    end if;
    v_now := clock_timestamp();
    select * into v_call
      from nofx.llm_call c
     where c.id = (p ->> 'id')::uuid and c.tenant_id = p ->> 'tenant_id' and c.run_id = (p ->> 'run_id')::uuid
       and c.step_id = (p ->> 'step_id')::uuid and c.attempt = (p ->> 'attempt')::integer;
    if not found then
        return '{"result": "unknown"}';
    end if;
    if v_call.state = 'settled' and not (v_call.is_estimated and p #>> '{charge,kind}' <> 'ceiling') then
        return '{"result": "repeated"}';
    end if;
    if (p ->> 'recovered')::boolean then
        delete from nofx.llm_cooldown c
         where c.tenant_id = v_call.tenant_id
           and c.deployment in (v_call.deployment, v_call.deployment || '/' || v_call.model_requested)
           -- What has failed since this request was sent has not recovered.
           and c.started_at < v_call.started_at;
    elsif jsonb_typeof(p -> 'cooldown') = 'object' then
        insert into nofx.llm_cooldown as c (tenant_id, deployment, until, kind, reason, started_at)
        values (v_call.tenant_id,
                v_call.deployment || case when (p #>> '{cooldown,of_model}')::boolean then '/' || v_call.model_requested else '' end,
                v_now + make_interval(secs => least((p #>> '{cooldown,for_ms}')::numeric / 1000, 86400)),
                left(p #>> '{cooldown,kind}', 50), left(p #>> '{cooldown,reason}', 500), v_now)
            on conflict (tenant_id, deployment) do update
                set until = greatest(c.until, excluded.until), kind = excluded.kind, reason = excluded.reason, started_at = excluded.started_at;
        -- Models come and go, so what ended is forgotten.
        delete from nofx.llm_cooldown c
         where c.ctid = any (array(select o.ctid from nofx.llm_cooldown o
                                    where o.tenant_id = v_call.tenant_id and o.until < v_now - interval '1 hour'
                                    limit 100 for update skip locked));
    end if;
    perform nofx.runs_settle(array[nofx.llm_settle(v_call, p, v_now)], v_now);
    return jsonb_build_object('result', case v_call.state when 'open' then 'settled' else 'corrected' end,
                              'ready', nofx.budgets_release(v_call.tenant_id, v_call.run_id, v_now));
end
$$;

-- Records what a streamed answer has so far, for people who watch. It is forgotten when the request is settled. Takes no lock of the run.
-- p: {tenant_id, run_id, step_id, attempt, id, bytes, tail}
-- -> {result: recorded|unknown}
create or replace function nofx.llm_call_progress(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    insert into nofx.llm_progress as g (call_id, tenant_id, step_id, attempt, bytes, tail, reported_at)
    select c.id, c.tenant_id, c.step_id, c.attempt, (p ->> 'bytes')::bigint, left(p ->> 'tail', 1000), clock_timestamp()
      from nofx.llm_call c
     where c.id = (p ->> 'id')::uuid and c.tenant_id = p ->> 'tenant_id' and c.run_id = (p ->> 'run_id')::uuid
       and c.step_id = (p ->> 'step_id')::uuid and c.attempt = (p ->> 'attempt')::integer and c.state = 'open'
        on conflict (call_id) do update set bytes = excluded.bytes, tail = excluded.tail, reported_at = excluded.reported_at;
    return jsonb_build_object('result', case when found then 'recorded' else 'unknown' end);
end
$$;

-- Trigger after delete of calls, with their runs: what is still reserved for them counts as spent.
create or replace function nofx.llm_calls_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    perform 1
       from nofx.llm_spend s
      where exists (select from gone g
                     where g.state = 'open' and s.tenant_id = g.tenant_id
                       and s.starts_on in (nofx.llm_month(g.started_at), nofx.llm_day(g.started_at)))
      order by s.tenant_id, s.period desc, s.starts_on
        for no key update;
    update nofx.llm_spend s
       set spent_usd_micros = s.spent_usd_micros + o.amount, reserved_usd_micros = s.reserved_usd_micros - o.amount
      from (select g.tenant_id, p.period, p.starts_on, sum(g.reserved_usd_micros)::bigint as amount
              from gone g
             cross join lateral (values ('month', nofx.llm_month(g.started_at)), ('day', nofx.llm_day(g.started_at))) p(period, starts_on)
             where g.state = 'open' and g.reserved_usd_micros > 0
             group by g.tenant_id, p.period, p.starts_on) o
     where s.tenant_id = o.tenant_id and s.period = o.period and s.starts_on = o.starts_on;
    return null;
end
$$;

-- Settles calls whose end never came, at what was reserved for them. -> {done, ready: []}
create or replace function nofx.sweep_calls(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_due uuid[];
    v_runs uuid[];
    v_call nofx.llm_call;
    v_changes nofx.change[] := '{}';
begin
    select array_agg(d.id), array_agg(distinct d.run_id) into v_due, v_runs
      from (select c.id, c.run_id from nofx.llm_call c
             where c.state = 'open' and c.due_at < v_now
             order by c.due_at limit p_limit) d;
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    for v_call in
        -- In the order of the locks of months and days.
        select c.* from nofx.llm_call c
         where c.id = any (v_due) and c.run_id = any (v_runs) and c.state = 'open'
         order by c.tenant_id, nofx.llm_month(c.started_at), nofx.llm_day(c.started_at), c.id
    loop
        v_changes := v_changes || nofx.llm_settle(v_call, jsonb_build_object(
            'charge', '{"kind": "ceiling"}'::jsonb, 'usable', false,
            'fault', '{"kind": "lost", "reason": "the worker never said how it ended"}'::jsonb), v_now);
    end loop;
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('done', cardinality(v_changes), 'ready', '[]'::jsonb);
end
$$;
select nofx.sweep_declare('nofx.sweep_calls(integer)');

revoke execute on function nofx.llm_day(timestamptz), nofx.llm_month(timestamptz), nofx.llm_caps(text), nofx.llm_terms(text, uuid),
    nofx.llm_spend_lock(text, timestamptz), nofx.llm_account(text, uuid, timestamptz, bigint, bigint),
    nofx.llm_settle(nofx.llm_call, jsonb, timestamptz), nofx.llm_over_budget(text, bigint, bigint, bigint, bigint), nofx.llm_calls_forget()
    from public;
select nofx.transition_declare('nofx.llm_call_start(jsonb)', 'nofx_worker');
select nofx.transition_declare('nofx.llm_call_end(jsonb)', 'nofx_worker');
select nofx.transition_declare('nofx.llm_call_progress(jsonb)', 'nofx_worker');
