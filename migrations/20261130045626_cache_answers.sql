-- The cache of answers: finds earlier answers by the key that codegen records, and what was saved. Shows what a streamed answer has so far. A claim
-- reads the terms of model calls only for codegen. What a model made and does not fit the
-- workspace starts a repair too; a kept prompt is no part of what it starts from.

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';

create index artifact_cache on nofx.artifact (tenant_id, (metadata ->> 'cache_key'), created_at) where metadata ? 'cache_key';
create index artifact_cached on nofx.artifact (tenant_id, created_at) where metadata ? 'cached';

-- What a streamed answer has so far. Losing it in a crash loses nothing.
create unlogged table nofx.llm_progress (
    call_id     uuid primary key references nofx.llm_call (id) on delete cascade,
    tenant_id   text not null,
    step_id     uuid not null,
    attempt     integer not null,
    bytes       bigint not null,
    tail        text not null,
    reported_at timestamptz not null
);
create index llm_progress_step on nofx.llm_progress (step_id);
alter table nofx.llm_progress enable row level security;
create policy tenant_isolation on nofx.llm_progress for select to nofx_api using (tenant_id = (select nofx.tenant_id()));
grant select on nofx.llm_progress to nofx_api;


-- Copies of the files in functions/. Change those files, not this one.

-- functions/llm_cache.sql sha256=659f516f8f5f5e5f2c91ad84421189a05adfcc4936b5bbb7949929f15a307783
-- Finds an earlier answer of a model whose bytes are neither archived nor deleted. Only steps `codegen` that ask for the cache record keys, and no client writes metadata.
-- p: {tenant_id, key, max_age_s}
-- -> {found: {artifact: as nofx.artifact_ref, run_id, metadata, age_s, cost_usd_micros}}, where found is null without one, and the cost without
-- a price
create or replace function nofx.llm_cached(p jsonb) returns jsonb
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select jsonb_build_object('found', (
        select jsonb_build_object(
                   'artifact', nofx.artifact_ref(a), 'run_id', a.run_id, 'metadata', a.metadata,
                   'age_s', greatest(0, extract(epoch from clock_timestamp() - a.created_at)::bigint),
                   'cost_usd_micros', (select sum(c.charged_usd_micros)::bigint from nofx.llm_call c
                                        where c.step_id = any (array[a.step_id]) and c.attempt = a.attempt))
          from nofx.artifact a
          join nofx.step s on s.id = any (array[a.step_id])
         where a.tenant_id = p ->> 'tenant_id' and a.metadata ? 'cache_key' and a.metadata ->> 'cache_key' = p ->> 'key'
           and a.created_at > clock_timestamp() - make_interval(secs => (p ->> 'max_age_s')::integer)
           and not exists (select from nofx.artifact_storage t where t.artifact_id = a.id)
           and s.tenant_id is not distinct from a.tenant_id and s.tool = 'codegen'
         order by a.created_at desc, a.id desc limit 1))
$$;
select nofx.transition_declare('nofx.llm_cached(jsonb)', 'nofx_worker');

-- functions/llm_calls.sql sha256=26575ad1846172c4a2ec0a1029d0573e34beb3e418fc10722b3593e91344388d
-- Requests to models, and their money. A start reserves the most that a request can cost, in the transaction that lets it be sent. Its end
-- settles it: what it really costs is spent, and the rest is free again. If no end comes, the sweeper charges what was reserved.
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

-- What binds the model calls of a step: {cooldowns: [{deployment, left_ms, kind, reason}], is_budgeted}.
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
-- duration_ms}. A call that was settled before gets its new charge instead of the old one. The caller holds the run's lock.
-- Returns the event.
create or replace function nofx.llm_settle(p_call nofx.llm_call, p_end jsonb, p_now timestamptz) returns nofx.change
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_kind text := p_end #>> '{charge,kind}';
    v_charge bigint := case v_kind when 'nothing' then 0
                                   when 'usage' then (p_end #>> '{charge,usd_micros}')::bigint
                                   when 'ceiling' then p_call.reserved_usd_micros end;
    v_was_open boolean := p_call.state = 'open';
    v_usage jsonb := nullif(p_end -> 'usage', 'null');
    v_served text := left(p_end ->> 'model_served', 200);
    v_is_late boolean;
begin
    if v_kind not in ('nothing', 'usage', 'ceiling', 'unpriced') or v_kind = 'usage' and coalesce(v_charge < 0, true) then
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
            'exceeds_reserved', case when v_charge > p_call.reserved_usd_micros then true end,
            'reserved_usd_micros', case when v_charge > p_call.reserved_usd_micros then p_call.reserved_usd_micros end,
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
    if v_run.spent_usd_micros + v_run.reserved_usd_micros + v_reserve > v_run.budget_usd_micros then
        return nofx.llm_over_budget('run', v_run.budget_usd_micros, v_run.spent_usd_micros,
                                    v_run.spent_usd_micros + v_run.reserved_usd_micros, v_reserve);
    end if;
    select * into v_spend from nofx.llm_spend_lock(v_tenant, v_now);
    if v_spend.day_used + v_reserve > v_caps.day_cap then
        return nofx.llm_over_budget('day', v_caps.day_cap, v_spend.day_spent, v_spend.day_used, v_reserve);
    elsif v_spend.month_used + v_reserve > v_caps.month_cap then
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

-- Settles a request. p: {tenant_id, run_id, step_id, attempt, id, and what nofx.llm_settle takes, cooldown: {for_ms, kind, reason}, recovered}.
-- Also for an attempt that has lost its step. A repeated end changes nothing, but a known cost replaces a ceiling.
-- -> {result: settled|corrected|repeated|unknown}
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
         where c.tenant_id = v_call.tenant_id and c.deployment = v_call.deployment
           -- What has failed since this request was sent has not recovered.
           and c.started_at < v_call.started_at;
    elsif jsonb_typeof(p -> 'cooldown') = 'object' then
        insert into nofx.llm_cooldown as c (tenant_id, deployment, until, kind, reason, started_at)
        values (v_call.tenant_id, v_call.deployment,
                v_now + make_interval(secs => least((p #>> '{cooldown,for_ms}')::numeric / 1000, 86400)),
                left(p #>> '{cooldown,kind}', 50), left(p #>> '{cooldown,reason}', 500), v_now)
            on conflict (tenant_id, deployment) do update
                set until = greatest(c.until, excluded.until), kind = excluded.kind, reason = excluded.reason, started_at = excluded.started_at;
    end if;
    perform nofx.runs_settle(array[nofx.llm_settle(v_call, p, v_now)], v_now);
    return jsonb_build_object('result', case v_call.state when 'open' then 'settled' else 'corrected' end);
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

-- functions/steps_claimed.sql sha256=0425abf393e2c67e855b0ade190adee2c1a1265905a48b5fcf73c3017d3c58e4
-- What a worker gets of the steps that it has claimed.

-- The values that one step refers to: [{step, path, value}], without references to nothing. Null if the values have more than
-- p_refs_bytes bytes (null: 0), or the outputs that they are in more than 64 times that. References are in the order of their steps,
-- so each step's outputs are read once.
create or replace function nofx.step_refs(p_run_id uuid, p_refs text[], p_ref_paths text[], p_refs_bytes integer) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_outputs jsonb;
    v_value jsonb;
    v_values jsonb[] := '{}';
    v_most bigint := coalesce(p_refs_bytes, 0);
    v_read bigint := 0;
    v_bytes bigint := 0;
begin
    for i in 1..cardinality(p_refs) loop
        if i = 1 or p_refs[i] <> p_refs[i - 1] then
            -- Appending makes a copy in memory. Stored outputs are compressed, and each look-up would decompress them again.
            select u.outputs || '{}' into v_outputs
              from nofx.step u
             where u.run_id = p_run_id and u.name = p_refs[i];
            v_read := v_read + coalesce(pg_column_size(v_outputs), 0);
        end if;
        v_value := v_outputs #> coalesce(p_ref_paths[i], '{}')::text[];
        continue when v_value is null;
        v_bytes := v_bytes + octet_length(v_value::text);
        if v_bytes > v_most or v_read > v_most * 64 then
            return null;
        end if;
        v_values := v_values || jsonb_build_object('step', p_refs[i], 'path', coalesce(p_ref_paths[i], '{}')::text[],
                                                   'value', v_value);
    end loop;
    return to_jsonb(v_values);
end
$$;

-- What binds a step that judges code or calls models: {policy: {version, document}, decisions: [{gate_id, gate_type, status, subject, decided_by,
-- decided_at}], repair: what the attempt has to repair, and for codegen what nofx.llm_terms returns}.
-- `policy` is null if the tenant has none. `decisions` are of this generation, oldest first: the newest 100 gates of the step that passed or
-- were waived, and those questions about changed checks that a person let pass for other steps of the run, the newest of each of at most
-- 100 subjects. `decided_by` is null if a handler decided.
create or replace function nofx.step_terms(p_tenant_id text, p_step uuid, p_generation integer) returns json
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_run uuid;
    v_repair jsonb;
    v_tool text;
    v_llm jsonb := '{"cooldowns": [], "is_budgeted": false}';
begin
    select s.run_id, s.repair_task, s.tool into v_run, v_repair, v_tool from nofx.step s where s.id = p_step;
    if v_tool = 'codegen' then
        v_llm := nofx.llm_terms(p_tenant_id, v_run);
    end if;
    return json_build_object(
        'repair', v_repair, 'cooldowns', v_llm -> 'cooldowns', 'is_budgeted', v_llm -> 'is_budgeted',
        'policy', (
            select json_build_object('version', p.version, 'document', p.document)
              from nofx.policy p
             where p.tenant_id = p_tenant_id
             order by p.version desc limit 1),
        'decisions', (
            select coalesce(json_agg(json_build_object(
                       'gate_id', d.id, 'gate_type', d.gate_type, 'status', d.status, 'subject', d.subject,
                       'decided_by', d.approved_by, 'decided_at', d.decided_at) order by d.decided_at, d.id), '[]')
              from ((select g.id, g.gate_type, g.status, g.subject, g.approved_by, g.decided_at
                       from nofx.gate g
                      where g.step_id = p_step and g.generation = p_generation and g.status in ('passed', 'waived')
                      order by g.decided_at desc, g.id desc limit 100)
                    union all
                    (select o.id, o.gate_type, o.status, o.subject, o.approved_by, o.decided_at
                       from (select distinct on (g.subject) g.id, g.gate_type, g.status, g.subject, g.approved_by, g.decided_at
                               from nofx.gate g
                              where g.run_id = v_run and g.gate_type = 'manual:gate-change' and g.step_id <> p_step
                                and g.generation = p_generation and g.status in ('passed', 'waived')
                                and g.approved_by is not null and g.subject is not null
                              order by g.subject, g.decided_at desc, g.id desc) o
                      order by o.decided_at desc, o.id desc limit 100)) d));
end
$$;

-- Claimed steps in id order, as `Claimed` in shared/src/db/step.rs reads them; `refs` as nofx.step_refs gives them, `terms` as nofx.step_terms
-- does, null without p_terms.
create or replace function nofx.claims_json(p_steps uuid[], p_refs_bytes integer, p_terms boolean) returns json
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    if p_steps = '{}' then
        return '[]';
    end if;
    return (
        select json_agg(json_build_object(
                   'tenant_id', s.tenant_id, 'run_id', s.run_id, 'step_id', s.id, 'name', s.name, 'tool', s.tool,
                   'attempt', s.attempt, 'failures', s.failures, 'max_attempts', s.max_attempts,
                   'backoff_ms', s.backoff_ms, 'timeout_s', s.timeout_s, 'inputs', s.inputs, 'refs', s.refs,
                   'goal', s.goal, 'workspace', s.workspace, 'traceparent', s.traceparent,
                   'terms', case when p_terms then nofx.step_terms(s.tenant_id, s.id, s.generation) end) order by s.id)
          from unnest(p_steps) c(id)
         cross join lateral (
            select s.tenant_id, s.run_id, s.id, s.name, s.tool, s.attempt, s.failures, s.max_attempts, s.backoff_ms,
                   s.timeout_s, s.inputs, r.goal, r.workspace, r.traceparent, r.generation,
                   case when s.refs = '{}' then '[]'
                        -- Most steps refer to one value. It is no larger than outputs may be, so it needs no check.
                        when cardinality(s.refs) = 1 then coalesce((
                            select jsonb_build_array(jsonb_build_object('step', u.name, 'path', u.path,
                                                                        'value', u.outputs #> u.path))
                              from (select u.name, u.outputs, coalesce(s.ref_paths[1], '{}')::text[] as path
                                      from nofx.step u
                                     where u.run_id = s.run_id and u.name = s.refs[1] offset 0) u
                             where u.outputs #> u.path is not null), '[]')
                        else nofx.step_refs(s.run_id, s.refs, s.ref_paths, p_refs_bytes) end as refs
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = c.id
            offset 0) s);
end
$$;

-- The name of nofx.claims_json before workers needed terms. Claims that are in flight during the migration call it; drop it in the next release.
create or replace function nofx.steps_claimed(p_steps uuid[], p_refs_bytes integer) returns json
    language sql stable
    set search_path = nofx, pg_temp
as $$ select nofx.claims_json(p_steps, p_refs_bytes, false) $$;
revoke execute on function nofx.step_refs(uuid, text[], text[], integer), nofx.step_terms(text, uuid, integer),
    nofx.claims_json(uuid[], integer, boolean), nofx.steps_claimed(uuid[], integer) from public;

-- functions/steps_repair.sql sha256=45a8867625494ec14506c67f075ba81e9480cf428a217debf2fe16ec0eaf7392
-- Repair loops. A gate failed that a step repairs, or what the step made does not fit the workspace that another one writes: the step and
-- everything after it run again, and the step gets what was found.

-- Starts the loops of p_failed, steps that have just failed. A loop starts only if its step has an attempt left and nothing else of the
-- run failed. The step becomes ready; everything after it waits again, what runs is fenced, and what people decided about it is asked again.
-- The caller holds the runs' locks, and settles the changes together with those of the failures.
-- -> the runs that go on, the steps that start again, and the changes
create or replace function nofx.steps_repair(
    p_failed uuid[], p_now timestamptz, out runs uuid[], out steps uuid[], out changes nofx.change[]
)
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_loop record;
    v_again uuid[];
begin
    runs := '{}';
    steps := '{}';
    changes := '{}';
    for v_loop in
        select s.id, s.run_id, s.tenant_id, s.attempt, s.repair, s.repairs, r.paused_at,
               g.id as gate_id, g.name as gate, g.attempt as gate_attempt, g.error
          from nofx.step g
          join nofx.run r on r.id = any (array[g.run_id])
          join nofx.step s on s.run_id = g.run_id
               and case g.error ->> 'code'
                   when 'gate_failed' then s.repair -> 'gates' ? g.name
                   when 'changes_refused' then g.tool = 'workspace:write' and s.repair is not null and s.name = any (g.refs)
                   else false end
         where g.id = any (p_failed) and g.status = 'failed'
           and s.status = 'succeeded' and s.repairs + 1 < (s.repair ->> 'max_attempts')::integer
           and r.failure is null and r.cancelled_at is null
         order by s.run_id, s.id, g.ordinal
    loop
        -- Another gate of the same loop failed in the same batch.
        continue when v_loop.id = any (steps);
        v_again := array(
            with recursive after as (
                select v_loop.id as id
                union
                select e.child_id from after a join nofx.step_edge e on e.parent_id = a.id
            )
            select a.id from after a);
        continue when exists (
            select from nofx.step f where f.run_id = v_loop.run_id and f.status in ('failed', 'skipped') and f.id <> all (v_again));
        changes := changes || nofx.fact(v_loop.run_id, v_loop.id, 'step.repairing', jsonb_strip_nulls(jsonb_build_object(
                       'gate', v_loop.gate, 'gate_attempt', v_loop.gate_attempt, 'round', v_loop.repairs + 2,
                       'max_attempts', v_loop.repair -> 'max_attempts', 'error', v_loop.error,
                       'evidence_id', (select a.id from nofx.artifact a
                                        where a.step_id = v_loop.gate_id and a.attempt = v_loop.gate_attempt and a.type = 'gate_evidence'
                                        order by a.id limit 1))))
                || nofx.steps_reset(v_loop.run_id, v_loop.id, v_again, v_loop.paused_at, p_now);
        update nofx.step s
           set repairs = s.repairs + 1,
               repair_task = jsonb_build_object(
                   'round', v_loop.repairs + 2, 'max_attempts', v_loop.repair -> 'max_attempts', 'gate', v_loop.gate,
                   'code', v_loop.error ->> 'code', 'message', v_loop.error ->> 'message',
                   'evidence', (select nofx.artifact_ref(a) from nofx.artifact a
                                 where a.step_id = v_loop.gate_id and a.attempt = v_loop.gate_attempt and a.type = 'gate_evidence'
                                 order by a.id limit 1),
                   'previous', (select coalesce(jsonb_agg(nofx.artifact_ref(a) order by a.id), '[]')
                                  from (select * from nofx.artifact a
                                         where a.step_id = v_loop.id and a.attempt = v_loop.attempt and a.type <> 'prompt'
                                         order by a.id limit 20) a))
         where s.id = v_loop.id;
        runs := runs || v_loop.run_id;
        steps := steps || v_again;
    end loop;
end
$$;

-- What a worker needs to read an artifact.
create or replace function nofx.artifact_ref(p nofx.artifact) returns jsonb
    language sql immutable
as $$
    select jsonb_build_object('id', p.id, 'uri', p.uri, 'hash', p.hash, 'size_bytes', p.size_bytes, 'media_type', p.media_type)
$$;

-- Makes p_root ready and the other steps of p_steps wait again. Attempts that run are fenced. Pending gates of the steps are cancelled; gates
-- of clients are asked again, because what they were about changes.
create or replace function nofx.steps_reset(p_run uuid, p_root uuid, p_steps uuid[], p_paused_at timestamptz, p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_gates nofx.change[];
    v_asked nofx.change[];
    v_steps nofx.change[];
begin
    with ended as (
        update nofx.gate g
           set status = case when g.status = 'pending' then 'cancelled' else g.status end,
               decided_at = case when g.status = 'pending' then p_now else g.decided_at end,
               voided_at = case when g.status = 'pending' then g.voided_at else p_now end
         where g.run_id = p_run and g.step_id = any (p_steps)
           and (g.status = 'pending' or g.on_pass = 'release' and g.status in ('passed', 'waived') and g.voided_at is null)
        returning g.id, g.step_id, g.gate_type, g.status, g.bound_digest
    )
    select array_agg(case when e.status = 'cancelled'
                          then nofx.gate_change(p_run, e.step_id, 'gate.cancelled',
                                                jsonb_build_object('gate_id', e.id, 'gate_type', e.gate_type), -1)
                          else nofx.fact(p_run, e.step_id, 'gate.voided', jsonb_strip_nulls(jsonb_build_object(
                                   'gate_id', e.id, 'gate_type', e.gate_type, 'changed', '["upstream"]'::jsonb, 'digest', e.bound_digest)))
                     end order by e.id)
      into v_gates
      from ended e;

    with asked as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at, rule, bound, bound_digest)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass, g.generation, g.reason, g.evidence_uri,
               nofx.approval_expiry(g.tenant_id, extract(epoch from g.expires_at - g.created_at)::integer, p_now), p_now,
               nofx.approval_strictest(coalesce(g.rule, '{}'), nofx.approval_policy(g.tenant_id)), b.bound, nofx.binding_digest(b.bound)
          from nofx.gate g
         cross join lateral nofx.gate_binding(g) b(bound)
         where g.run_id = p_run and g.step_id = any (p_steps) and g.on_pass = 'release'
           and (g.voided_at = p_now or g.status = 'cancelled' and g.decided_at = p_now)
        returning id, step_id, gate_type, rule, bound_digest
    )
    select array_agg(nofx.gate_change(p_run, a.step_id, 'gate.created', nofx.gate_asked(a.id, a.gate_type, a.rule, a.bound_digest), 1) order by a.id)
      into v_asked
      from asked a;

    update nofx.attempt a
       set status = 'cancelled', finished_at = p_now
      from nofx.step s
     where s.id = any (p_steps) and s.status = 'running' and a.step_id = any (array[s.id]) and a.attempt = s.attempt;

    with old as (
        select s.id, s.status,
               (select count(*) from nofx.step_edge e join nofx.step q on q.id = e.parent_id
                 where e.child_id = s.id and (q.id = any (p_steps) or q.status <> 'succeeded'))
               + (select count(*) from nofx.gate g where g.step_id = s.id and g.status = 'pending' and g.on_pass = 'release') as blockers
          from nofx.step s
         where s.id = any (p_steps)
    ), renewed as (
        update nofx.step s
           set status = case when o.blockers = 0 then 'ready' else 'pending' end,
               blockers = o.blockers, failures = 0, workers_lost = 0, outputs = null, error = null,
               started_at = null, finished_at = null, lease_until = null, notify_count = 0,
               ready_at = case when o.blockers = 0 then p_now end,
               notify_at = case when o.blockers = 0 then nofx.wakeup_due(p_now, p_paused_at) end
          from old o
         where s.id = any (array[o.id])
        returning s.id, o.status as was, s.status, s.ordinal
    )
    select array_agg(nofx.step_change(p_run, a.id, a.was, a.status, case when a.status = 'ready' then 'step.ready' end) order by a.ordinal)
      into v_steps
      from renewed a;
    return v_gates || v_asked || v_steps;
end
$$;
revoke execute on function nofx.steps_repair(uuid[], timestamptz), nofx.artifact_ref(nofx.artifact),
    nofx.steps_reset(uuid, uuid, uuid[], timestamptz, timestamptz) from public;
