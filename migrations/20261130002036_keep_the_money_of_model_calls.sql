-- Keeps the money of model calls: budgets, reservations and costs of runs and tenants, and the cooldowns of deployments.

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';
lock table nofx.run in exclusive mode;

-- In micro-dollars. What requests in flight can still cost is reserved.
alter table nofx.run
    add column budget_usd_micros bigint,
    add column spent_usd_micros bigint not null default 0,
    add column reserved_usd_micros bigint not null default 0,
    add constraint run_money_is_sound
        check (spent_usd_micros >= 0 and reserved_usd_micros >= 0 and coalesce(budget_usd_micros, 1) > 0) not valid;

-- For the sweeper, which lets steps go on that a budget covers again.
create index gate_budget on nofx.gate (created_at, id) where status = 'pending' and gate_type = 'budget';

-- Which columns go with which state. Its text is that of functions/row_checks.sql.
create or replace function nofx.llm_call_is_sound(
    p_tenant_id text, p_state text, p_attempt integer, p_reserved bigint, p_charged bigint, p_is_estimated boolean,
    p_started_at timestamptz, p_due_at timestamptz, p_ended_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_attempt >= 1 and coalesce(p_reserved, 0) >= 0 and coalesce(p_charged, 0) >= 0 and p_due_at > p_started_at
        and case p_state
            when 'open' then p_ended_at is null and p_charged is null and not p_is_estimated
            when 'settled' then p_ended_at is not null
            else false
        end;
end
$$;
revoke execute on function
    nofx.llm_call_is_sound(text, text, integer, bigint, bigint, boolean, timestamptz, timestamptz, timestamptz) from public;

-- A request to a model. It has no prompt, no answer and no key.
create table nofx.llm_call (
    id                       uuid primary key,
    tenant_id                text not null,
    run_id                   uuid not null references nofx.run (id) on delete cascade,
    step_id                  uuid not null references nofx.step (id) on delete cascade,
    attempt                  integer not null,
    provider                 text not null,
    model_requested          text not null,
    model_served             text,
    -- The provider, its address and its key, as a digest.
    deployment               text not null,
    -- Why it was sent: {why: first|retry|fallback, ..}.
    because                  jsonb not null,
    -- The price in micro-dollars per million tokens, and the version of its table. Null if nobody knows it.
    price_version            text,
    price                    jsonb,
    -- open, settled
    state                    text not null default 'open',
    -- The most that it could cost, and what it cost. Null without a price.
    reserved_usd_micros      bigint,
    charged_usd_micros       bigint,
    -- Whether the charge is what was reserved, because nobody knows the tokens. A known cost may still replace it.
    is_estimated             boolean not null default false,
    -- What the provider reported. Cached and written tokens are parts of the input, reasoning is a part of the output.
    input_tokens             bigint,
    output_tokens            bigint,
    cached_input_tokens      bigint,
    cache_write_input_tokens bigint,
    reasoning_tokens         bigint,
    is_usable                boolean,
    fault_kind               text,
    started_at               timestamptz not null,
    -- When the sweeper settles it, if its worker does not.
    due_at                   timestamptz not null,
    ended_at                 timestamptz,
    constraint llm_call_is_sound check (nofx.llm_call_is_sound(
        tenant_id, state, attempt, reserved_usd_micros, charged_usd_micros, is_estimated, started_at, due_at, ended_at))
);
create index llm_call_step on nofx.llm_call (step_id);
create index llm_call_run on nofx.llm_call (run_id);
create index llm_call_due on nofx.llm_call (due_at) where state = 'open';
create index llm_call_tenant on nofx.llm_call (tenant_id, started_at);

-- What a tenant has spent and reserved in a day and in a month (UTC). A call counts in those in which it started.
create table nofx.llm_spend (
    tenant_id           text not null,
    period              text not null,
    starts_on           date not null,
    spent_usd_micros    bigint not null default 0,
    reserved_usd_micros bigint not null default 0,
    primary key (tenant_id, period, starts_on),
    constraint llm_spend_is_sound check (period in ('day', 'month') and spent_usd_micros >= 0 and reserved_usd_micros >= 0)
) with (fillfactor = 50);

-- Deployments of models that failed a short while ago, so that other steps skip them.
create table nofx.llm_cooldown (
    tenant_id  text not null,
    deployment text not null,
    until      timestamptz not null,
    kind       text not null,
    reason     text not null,
    -- When the request ended that found it.
    started_at timestamptz not null,
    primary key (tenant_id, deployment),
    constraint llm_cooldown_is_sound check (until >= started_at)
);

do $$
declare
    v_table text;
begin
    foreach v_table in array array['llm_call', 'llm_spend', 'llm_cooldown'] loop
        execute format('alter table nofx.%I enable row level security', v_table);
        execute format('create policy tenant_isolation on nofx.%I for select to nofx_api using (tenant_id = (select nofx.tenant_id()))', v_table);
        execute format('grant select on nofx.%I to nofx_api', v_table);
    end loop;
    foreach v_table in array array['llm_call', 'llm_spend'] loop
        execute format('create policy member_reads on nofx.%I for select to authenticated using (tenant_id = (select nofx.member_tenant()))',
                       v_table);
        execute format('grant select on nofx.%I to authenticated', v_table);
    end loop;
end
$$;

-- Its text is that of functions/llm_calls.sql.
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
revoke execute on function nofx.llm_calls_forget() from public;

create trigger llm_calls_forget after delete on nofx.llm_call
    referencing old table as gone for each statement execute function nofx.llm_calls_forget();
create trigger records_go_with_their_run after delete on nofx.llm_call
    referencing old table as gone for each statement execute function nofx.records_go_with_their_run();
create trigger records_are_kept before delete or truncate on nofx.llm_spend
    for each statement execute function nofx.records_are_kept();

-- Copies of the files in functions/. Change those files, not this one.

-- functions/budgets.sql sha256=4abd7a1df891810c862bcdcc567207b83a8f1e2bcd2e7e891fca7c624d363c1f
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

-- functions/gate_decide.sql sha256=aa965158a65da38f66b4d081e6bc3c966860162d897d5b8edfc7cdf68a1cf082
-- Decides a pending gate for every path: the API, the console, the command and links. A rejection or a waiver ends the gate at once. An
-- approval ends it when as many different people have approved as its rule requires. In the same transaction its step continues, and what
-- depends on that step becomes ready. Several gates of a run may ask the same question, whether changed checks count: a decision of a person
-- to let one pass counts for the others too.

-- Records one decision about a gate that is open. -> whether it ends the gate, with the name of everybody whose approval counted
create or replace function nofx.decision_record(p_gate nofx.gate, p_rule jsonb, p jsonb, p_now timestamptz)
    returns table (ends boolean, approved integer, names text)
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_subject text := p -> 'who' ->> 'subject';
    v_names text;
begin
    select 1 + count(*), string_agg(a.actor || ', ', '' order by a.created_at, a.id)
      into approved, v_names
      from nofx.gate_approvals(p_gate, p_rule) a
     where p ->> 'decision' = 'approve' and a.subject <> v_subject;
    ends := p ->> 'decision' <> 'approve' or approved >= (p_rule ->> 'required')::integer;
    names := coalesce(v_names, '') || (p ->> 'actor');
    insert into nofx.approval (tenant_id, run_id, gate_id, decision, actor, reason, created_at, subject, is_self, decides, bound_digest,
                               envelope)
    values (p_gate.tenant_id, p_gate.run_id, p_gate.id, p ->> 'decision', p ->> 'actor', p ->> 'reason', p_now, v_subject,
            v_subject = any (nofx.gate_excluded(p_gate.run_id, '{}')), ends, p_gate.bound_digest,
            nullif(p -> 'envelope', 'null'));
    return next;
end
$$;

-- p: {caller, gate_id, decision: approve|reject|waive, actor, reason, seen, envelope, link}. seen: the digest of what the person has seen, and of what
-- the envelope, the signed statement about the decision, is about.
-- -> {result: decided|recorded|unchanged|excluded|changed|link|conflict|not_found, gate: {..}, why, changed: [paths], ready: [wake-ups]}.
-- `recorded`: more approvals are needed. `unchanged`: the person's approval was recorded before. `excluded`: the person may not decide, and `why`
-- is that of nofx.gate_may_decide. `changed`: the gate is not about what the person saw; from now on it asks about what is there.
-- Without an envelope nothing is decided: the answer is `changed` if a decision were possible.
-- `link`: p names a link that cannot be used, and `why` is that of nofx.link_why_not.
create or replace function nofx.gate_decide(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
    v_rule jsonb;
    v_why text;
    v_bound jsonb;
    v_changed jsonb;
    v_now timestamptz;
    v_status text := case p ->> 'decision' when 'approve' then 'passed' when 'waive' then 'waived'
                                           when 'reject' then 'failed' end;
    v_one record;
    v_ended uuid[] := '{}';
    v_changes nofx.change[] := '{}';
begin
    p := nofx.admitted(p, case p ->> 'decision' when 'waive' then 'gates.waive' else 'gates.decide' end);
    -- Whatever the table of permissions says: only people decide.
    if p -> 'who' ->> 'kind' is distinct from 'person' then
        raise exception 'forbidden' using errcode = 'NF403', detail = 'gates.decide';
    end if;
    perform 1 from nofx.run r
      where r.id = (select g.run_id from nofx.gate g
                     where g.id = (p ->> 'gate_id')::uuid and g.tenant_id = p ->> 'tenant_id')
        for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    v_now := clock_timestamp();
    select * into strict v_gate from nofx.gate g where g.id = (p ->> 'gate_id')::uuid;
    v_rule := nofx.gate_rule(v_gate);
    v_why := nofx.gate_may_decide(v_gate, v_rule, p -> 'who', p ->> 'decision');
    if v_why is not null then
        return jsonb_build_object(
            'result', case v_why when 'decided' then 'conflict' when 'expired' then 'conflict' when 'done' then 'unchanged' else 'excluded' end,
            'why', v_why, 'gate', nofx.gate_view(v_gate.id, p -> 'who'), 'ready', '[]'::jsonb);
    end if;
    if v_status is null or (v_status <> 'passed' and coalesce(p ->> 'reason', '') !~ '\S') then
        raise exception 'a rejection and a waiver need a reason' using errcode = 'invalid_parameter_value';
    end if;
    -- Nobody signed it, because the person could not decide a moment ago.
    if coalesce(p -> 'envelope', 'null') = 'null' then
        return jsonb_build_object('result', 'changed', 'changed', '["may_decide"]'::jsonb, 'gate', nofx.gate_view(v_gate.id, p -> 'who'),
                                  'ready', '[]'::jsonb);
    end if;
    v_bound := nofx.gate_binding(v_gate);
    v_changed := case when v_gate.bound is null then '[]' else nofx.binding_changes(v_gate.bound, v_bound) end;
    if v_changed <> '[]' then
        update nofx.gate g set bound = v_bound, bound_digest = nofx.binding_digest(v_bound) where g.id = v_gate.id;
        perform nofx.runs_settle(array[nofx.fact(v_gate.run_id, v_gate.step_id, 'gate.voided', jsonb_build_object(
            'gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'changed', v_changed, 'digest', nofx.binding_digest(v_bound)))], v_now);
    elsif p ->> 'seen' <> v_gate.bound_digest then
        v_changed := '["digest"]';
    end if;
    if v_changed <> '[]' then
        return jsonb_build_object('result', 'changed', 'changed', v_changed, 'gate', nofx.gate_view(v_gate.id, p -> 'who'), 'ready', '[]'::jsonb);
    end if;
    v_why := nofx.link_use(v_gate, p, v_now);
    if v_why is not null then
        return jsonb_build_object('result', 'link', 'why', v_why);
    end if;

    for v_one in
        select g.id, g as gate
          from nofx.gate g
         where g.id = v_gate.id
            or (v_status <> 'failed' and v_gate.gate_type = 'manual:gate-change' and v_gate.subject is not null
                and g.run_id = v_gate.run_id and g.gate_type = 'manual:gate-change' and g.step_id is not null
                and g.status = 'pending' and g.generation = v_gate.generation and g.subject = v_gate.subject
                and (g.expires_at is null or g.expires_at >= v_now))
         order by g.id
    loop
        declare
            v_each jsonb := nofx.gate_rule(v_one.gate);
            v_end record;
        begin
            continue when v_one.id <> v_gate.id
                and (nofx.gate_may_decide(v_one.gate, v_each, p -> 'who', p ->> 'decision') is not null
                     or (v_one.gate).bound is distinct from nofx.gate_binding(v_one.gate));
            select * into v_end from nofx.decision_record(v_one.gate, v_each, p, v_now);
            update nofx.gate g
               set rule = v_each,
                   status = case when v_end.ends then v_status else g.status end,
                   decided_at = case when v_end.ends then v_now end,
                   approved_by = case when v_end.ends and v_status <> 'failed' then v_end.names end,
                   approved_at = case when v_end.ends and v_status <> 'failed' then v_now end
             where g.id = v_one.id;
            if v_end.ends then
                v_ended := v_ended || v_one.id;
            else
                v_changes := v_changes || nofx.fact(v_gate.run_id, (v_one.gate).step_id, 'gate.approved', jsonb_strip_nulls(
                    jsonb_build_object('gate_id', v_one.id, 'gate_type', (v_one.gate).gate_type, 'actor', p ->> 'actor', 'by', p -> 'by',
                                       'reason', p ->> 'reason', 'approved', v_end.approved, 'required', v_each -> 'required',
                                       'digest', (v_one.gate).bound_digest)));
            end if;
        end;
    end loop;

    if v_gate.gate_type = 'budget' and v_status = 'passed' and v_gate.id = any (v_ended) then
        v_changes := v_changes || nofx.budget_raise(v_gate, p);
    end if;
    v_changes := v_changes || nofx.gates_conclude(v_ended, jsonb_strip_nulls(jsonb_build_object(
        'decision', p ->> 'decision', 'actor', p ->> 'actor', 'by', p -> 'by', 'reason', p ->> 'reason',
        'is_self', case when (p -> 'who' ->> 'subject') = any (nofx.gate_excluded(v_gate.run_id, '{}')) then true end)), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('result', case when v_gate.id = any (v_ended) then 'decided' else 'recorded' end,
                              'gate', nofx.gate_view(v_gate.id, p -> 'who'),
                              'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
revoke execute on function nofx.decision_record(nofx.gate, jsonb, jsonb, timestamptz) from public;
select nofx.transition_declare('nofx.gate_decide(jsonb)', 'nofx_api');

-- functions/gate_standing.sql sha256=a4c0b1e1166f78b14c662b0b9fabbcee653bd9636f0fe47a2dfb5288a7ebe49d
-- How a gate stands: its rule, who has approved, and who may still decide. One function says whether somebody may decide, for readers and for
-- nofx.gate_decide, so that a page never offers what a decision refuses.

-- The rule of a gate. A policy that has become stricter counts for gates that wait; one that has become looser does not loosen them.
create or replace function nofx.gate_rule(p_gate nofx.gate) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select case when p_gate.status = 'pending' or p_gate.rule is null
                then nofx.approval_strictest(coalesce(p_gate.rule, '{}'), nofx.approval_policy(p_gate.tenant_id))
                else p_gate.rule end
$$;

-- Who may not approve their own work: who started or retried the run, the owners of their tokens, and who uploaded the files that its plan names.
-- Empty if the rule allows it.
create or replace function nofx.gate_excluded(p_run uuid, p_rule jsonb) returns text[]
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select case when p_rule -> 'self' = 'true' then '{}' else coalesce(array_agg(distinct x.subject), '{}') end
      from nofx.run r
     cross join jsonb_to_recordset(coalesce(r.authors, '[]')) as a(subject text, owner text)
     cross join lateral (values (a.subject), (case when p_rule ->> 'owners' = 'allowed' then null else a.owner end)) x(subject)
     where r.id = p_run and x.subject is not null
$$;

-- The approvals of a gate that count now: those of members who are still entitled, about what the gate still asks. Each person counts once.
create or replace function nofx.gate_approvals(p_gate nofx.gate, p_rule jsonb) returns setof nofx.approval
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_excluded text[] := nofx.gate_excluded(p_gate.run_id, p_rule);
    v_is_solo boolean := (select t.is_solo from nofx.tenant t where t.tenant_id = p_gate.tenant_id);
begin
    return query
    select distinct on (a.subject) a.*
      from nofx.approval a
      join nofx.membership m on m.tenant_id = a.tenant_id and m.subject = a.subject and m.removed_at is null
     where a.gate_id = p_gate.id and a.decision = 'approve' and a.bound_digest is not distinct from p_gate.bound_digest
       and nofx.approval_names(p_rule, m)
       -- Who left and came back decides anew.
       and a.created_at >= coalesce(m.joined_at, m.created_at)
       and (v_is_solo or a.subject <> all (v_excluded))
     order by a.subject, a.created_at, a.id;
end
$$;

-- Whether a decision of an earlier generation counts for the same bytes again: under the policy of today, and by people who may still decide.
create or replace function nofx.gate_still_holds(p_gate nofx.gate) returns boolean
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_rule jsonb := nofx.approval_strictest(coalesce(p_gate.rule, '{}'), nofx.approval_policy(p_gate.tenant_id));
    v_is_solo boolean := (select t.is_solo from nofx.tenant t where t.tenant_id = p_gate.tenant_id);
    -- Who was no author when they decided is none now: a retry makes nobody an author of bytes that they approved.
    v_excluded text[] := nofx.gate_excluded(p_gate.run_id, v_rule);
begin
    if p_gate.status = 'waived' then
        return v_rule ->> 'waive' is not distinct from 'admins' and exists (
            select from nofx.approval a
              join nofx.membership m on m.tenant_id = a.tenant_id and m.subject = a.subject and m.removed_at is null
             where a.gate_id = p_gate.id and a.decision = 'waive' and nofx.permits('gates.waive', m.role, 'person')
               and a.created_at >= coalesce(m.joined_at, m.created_at)
               and (v_is_solo or not a.is_self or a.subject <> all (v_excluded)));
    end if;
    return (select count(distinct a.subject)
              from nofx.approval a
              join nofx.membership m on m.tenant_id = a.tenant_id and m.subject = a.subject and m.removed_at is null
             where a.gate_id = p_gate.id and a.decision = 'approve' and a.bound_digest is not distinct from p_gate.bound_digest
               and nofx.approval_names(v_rule, m) and a.created_at >= coalesce(m.joined_at, m.created_at)
               and (v_is_solo or not a.is_self or a.subject <> all (v_excluded))) >= nofx.approval_count(v_rule -> 'required');
end
$$;

-- Why a principal may not make a decision about a gate; null if it may. p_who: a principal as JSON, with login_at.
-- -> decided, expired, kind, role, tenant_budget, not_named, waive, session, self, or done: they have approved already, and it counts
create or replace function nofx.gate_may_decide(p_gate nofx.gate, p_rule jsonb, p_who jsonb, p_decision text) returns text
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_member nofx.membership;
    v_is_solo boolean := coalesce((p_who ->> 'solo')::boolean, false);
    v_age_s integer := nofx.approval_seconds(p_rule -> 'max_session_age_s');
    v_login timestamptz;
begin
    if p_gate.status <> 'pending' then
        return 'decided';
    elsif p_gate.expires_at < clock_timestamp() then
        -- Only the sweeper ends an expired gate, even if it has not run yet.
        return 'expired';
    elsif p_who ->> 'kind' is distinct from 'person' then
        return 'kind';
    end if;
    select * into v_member
      from nofx.membership m
     where m.tenant_id = p_gate.tenant_id and m.tenant_id = p_who ->> 'tenant' and m.subject = p_who ->> 'subject' and m.removed_at is null;
    if not found or not nofx.permits(case p_decision when 'waive' then 'gates.waive' else 'gates.decide' end, v_member.role, 'person') then
        return 'role';
    elsif p_gate.gate_type = 'budget' and p_decision = 'approve' and p_gate.subject ->> 'scope' is distinct from 'run' then
        -- An approval raises the budget of a run. That of a tenant is its policy's.
        return 'tenant_budget';
    elsif p_decision = 'waive' and (p_rule ->> 'waive' is distinct from 'admins' or p_gate.gate_type = 'budget') then
        return 'waive';
    elsif p_decision <> 'waive' and not nofx.approval_names(p_rule, v_member) then
        return 'not_named';
    end if;
    if v_age_s is not null and not v_is_solo then
        v_login := coalesce((select t.login_at from nofx.api_token t where t.id = (p_who ->> 'token_id')::uuid),
                            (p_who ->> 'login_at')::timestamptz);
        if coalesce(v_login < clock_timestamp() - make_interval(secs => v_age_s), true) then
            return 'session';
        end if;
    end if;
    if not v_is_solo and v_member.subject = any (nofx.gate_excluded(p_gate.run_id, p_rule)) then
        return 'self';
    elsif p_decision = 'approve' and exists (select from nofx.gate_approvals(p_gate, p_rule) a where a.subject = v_member.subject) then
        return 'done';
    end if;
    return null;
end
$$;

-- How a gate stands for a principal. No rows for a gate of another tenant, and for one that evidence decided.
-- required: approvals that it needs. approved: those that count. eligible: people who could approve, counted up to 100.
create or replace function nofx.gate_stands(p_gate nofx.gate, p_who jsonb)
    returns table (required integer, approved integer, eligible integer, rule jsonb, approvals jsonb, may_decide jsonb)
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_rule jsonb := nofx.gate_rule(p_gate);
    v_excluded text[];
    v_why text;
begin
    if p_gate.tenant_id is distinct from p_who ->> 'tenant' then
        return;
    end if;
    -- What evidence decided needs no approval.
    if p_gate.status <> 'pending' and p_gate.rule is null and not exists (select from nofx.approval a where a.gate_id = p_gate.id) then
        return;
    end if;
    v_why := nofx.gate_may_decide(p_gate, v_rule, p_who, 'approve');
    if p_gate.status = 'pending' then
        v_excluded := case when (p_who ->> 'solo')::boolean then '{}' else nofx.gate_excluded(p_gate.run_id, v_rule) end;
    end if;
    return query select
        nofx.approval_count(v_rule -> 'required'),
        (select count(*)::integer from nofx.gate_approvals(p_gate, v_rule)),
        case when p_gate.status = 'pending' then (
            select count(*)::integer
              from (select from nofx.membership m
                     where m.tenant_id = p_gate.tenant_id and m.removed_at is null
                       and nofx.approval_names(v_rule, m) and m.subject <> all (v_excluded) limit 100) e) end,
        -- The one person of a local tenant decides about their own work.
        v_rule || case when (p_who ->> 'solo')::boolean then '{"self": true}' else '{}' end::jsonb,
        (select coalesce(jsonb_agg(jsonb_build_object('decision', a.decision, 'actor', a.actor, 'subject', a.subject, 'reason', a.reason,
                                                      'created_at', a.created_at, 'is_self', a.is_self) order by a.created_at, a.id), '[]')
           from (select * from nofx.approval a where a.gate_id = p_gate.id order by a.created_at, a.id limit 50) a),
        jsonb_strip_nulls(jsonb_build_object(
            'ok', v_why is null, 'why', v_why, 'waive', nofx.gate_may_decide(p_gate, v_rule, p_who, 'waive') is null));
end
$$;

-- The same for who reads: a query of the API names its gate.
create or replace function nofx.gate_standing(p_gate uuid)
    returns table (required integer, approved integer, eligible integer, rule jsonb, approvals jsonb, may_decide jsonb)
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
begin
    select * into v_gate from nofx.gate g where g.id = p_gate;
    return query select * from nofx.gate_stands(v_gate, nofx.reader());
end
$$;

-- Whether who reads may decide the gate, for lists.
create or replace function nofx.gate_is_mine(p_gate uuid) returns boolean
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
begin
    select * into v_gate from nofx.gate g where g.id = p_gate;
    return nofx.gate_may_decide(v_gate, nofx.gate_rule(v_gate), nofx.reader(), 'approve') is null;
end
$$;

-- The principal of a read, as nofx.read sets it.
create or replace function nofx.reader() returns jsonb
    language sql stable
    set search_path = ''
as $$
    select nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'principal'
$$;
revoke execute on function nofx.gate_rule(nofx.gate), nofx.gate_excluded(uuid, jsonb), nofx.gate_approvals(nofx.gate, jsonb),
    nofx.gate_still_holds(nofx.gate),
    nofx.gate_may_decide(nofx.gate, jsonb, jsonb, text), nofx.gate_stands(nofx.gate, jsonb), nofx.gate_standing(uuid), nofx.gate_is_mine(uuid), nofx.reader() from public;
grant execute on function nofx.gate_standing(uuid), nofx.gate_is_mine(uuid) to nofx_api;

-- functions/llm_calls.sql sha256=faaf88e9f6667331e39ea0e8bd5e0bbdf1adc0ce693f95d37e3c8604bcc18d2d
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

-- functions/row_checks.sql sha256=25999a4469a4cacab1c2bdc60cb3253881ea43de6747e359bb33a3d9255ad751
-- CHECK constraints of tables that transitions write: which columns go with which state. One function for each table, because Postgres parses
-- the text of a CHECK again for every statement.
create or replace function nofx.run_is_sound(
    p_tenant_id text, p_status text, p_generation integer, p_timeout_s integer, p_pending integer, p_ready integer,
    p_running integer, p_blocked integer, p_failed integer, p_gates integer, p_paused_at timestamptz,
    p_cancelled_at timestamptz, p_finished_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_generation >= 1 and coalesce(p_timeout_s, 1) > 0
        and p_pending >= 0 and p_ready >= 0 and p_running >= 0 and p_blocked >= 0 and p_failed >= 0 and p_gates >= 0
        and case
            when p_status in ('queued', 'running', 'blocked') then p_finished_at is null
            when p_status = 'paused' then p_finished_at is null and p_paused_at is not null
            when p_status in ('succeeded', 'failed', 'cancelled')
                then p_finished_at is not null and p_pending + p_ready + p_running + p_blocked = 0
                     and (p_status <> 'cancelled' or p_cancelled_at is not null)
            else false
        end;
end
$$;

create or replace function nofx.step_is_sound(
    p_status text, p_blockers integer, p_attempt integer, p_failures integer, p_workers_lost integer,
    p_max_attempts integer, p_backoff_ms integer, p_timeout_s integer, p_ready_at timestamptz, p_notify_at timestamptz,
    p_lease_until timestamptz, p_finished_at timestamptz, p_has_outputs boolean, p_has_error boolean
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_blockers >= 0 and p_attempt >= 0 and p_failures >= 0 and p_workers_lost >= 0
        and p_max_attempts >= 1 and p_backoff_ms >= 0 and coalesce(p_timeout_s, 1) >= 1
        and (p_status = 'ready') = (p_notify_at is not null)
        and (p_status = 'running') = (p_lease_until is not null)
        and (p_status = 'succeeded') = p_has_outputs
        and case
            when p_status = 'pending' then p_finished_at is null
            when p_status = 'ready' then p_finished_at is null and p_blockers = 0 and p_ready_at is not null
            when p_status = 'running' then p_finished_at is null and p_blockers = 0 and p_attempt >= 1
            when p_status = 'blocked' then p_finished_at is null and p_blockers = 0
            when p_status = 'succeeded' then p_finished_at is not null and p_blockers = 0
            when p_status = 'failed' then p_finished_at is not null and p_has_error
            when p_status in ('skipped', 'cancelled') then p_finished_at is not null
            else false
        end;
end
$$;

create or replace function nofx.attempt_is_sound(p_status text, p_attempt integer, p_finished_at timestamptz) returns boolean
    language plpgsql immutable
as $$
begin
    return p_attempt >= 1
        and case
            when p_status = 'running' then p_finished_at is null
            when p_status in ('succeeded', 'failed', 'blocked', 'lost', 'cancelled') then p_finished_at is not null
            else false
        end;
end
$$;

create or replace function nofx.gate_link_is_sound(
    p_subject text, p_secret_sha256 bytea, p_created_at timestamptz, p_expires_at timestamptz, p_used_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_subject <> '' and length(p_secret_sha256) = 32
        and p_expires_at > p_created_at and p_expires_at <= p_created_at + interval '30 days'
        and (p_used_at is null or p_used_at between p_created_at and p_expires_at);
end
$$;
create or replace function nofx.llm_call_is_sound(
    p_tenant_id text, p_state text, p_attempt integer, p_reserved bigint, p_charged bigint, p_is_estimated boolean,
    p_started_at timestamptz, p_due_at timestamptz, p_ended_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_attempt >= 1 and coalesce(p_reserved, 0) >= 0 and coalesce(p_charged, 0) >= 0 and p_due_at > p_started_at
        and case p_state
            when 'open' then p_ended_at is null and p_charged is null and not p_is_estimated
            when 'settled' then p_ended_at is not null
            else false
        end;
end
$$;
revoke execute on function
    nofx.run_is_sound(text, text, integer, integer, integer, integer, integer, integer, integer, integer, timestamptz,
                      timestamptz, timestamptz),
    nofx.step_is_sound(text, integer, integer, integer, integer, integer, integer, integer, timestamptz, timestamptz,
                       timestamptz, timestamptz, boolean, boolean),
    nofx.attempt_is_sound(text, integer, timestamptz),
    nofx.gate_link_is_sound(text, bytea, timestamptz, timestamptz, timestamptz),
    nofx.llm_call_is_sound(text, text, integer, bigint, bigint, boolean, timestamptz, timestamptz, timestamptz) from public;

-- functions/run_create.sql sha256=e7036aa1fb5bb228ea57689d631956e24cea78970587d378198e6f5906b5722e
-- Creates a run with its steps, edges and first events. No other transaction can see the run yet, so it locks no run and does not call
-- nofx.runs_settle: it writes each row once, and the run's with its counters.
--
-- p: {caller, id, goal, plan, plan_digest, request_digest, idempotency_key, actor, timeout_s, budget_usd_micros,
--     traceparent, workspace: {archive, base, diff} (artifact ids), artifacts: [ids that inputs name], steps: [..], edges: [{parent, child}]}
-- -> {result: created, id, status, ready: [wake-ups]}. With `existing` (same key, same request) and `conflict` (same key, other request): id
-- and status of the run that has the key. With `invalid`: problems. Raises NF429 if a limit of the tenant is reached.
create or replace function nofx.run_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_id uuid := p ->> 'id';
    -- Not p itself: a plan is large, and each change would copy it.
    v_call jsonb := nofx.admitted(jsonb_build_object('caller', p -> 'caller', 'actor', p -> 'actor'), 'runs.create');
    v_tenant text := v_call ->> 'tenant_id';
    v_workspace jsonb;
    v_problems jsonb;
    v_ready jsonb;
    v_authors jsonb := jsonb_build_array(nofx.author_of(v_call, 'started'));
    v_run record;
begin
    if jsonb_typeof(p -> 'workspace') = 'object' then
        select jsonb_object_agg(w.key, jsonb_build_object('id', a.id, 'uri', a.uri, 'hash', a.hash,
                                    'size_bytes', a.size_bytes, 'media_type', a.media_type)),
               jsonb_agg(jsonb_build_object('path', 'plan.workspace.' || w.key,
                                            'message', format('no artifact has the id %s', w.value)))
                   filter (where a.id is null)
          into v_workspace, v_problems
          from jsonb_each_text(p -> 'workspace') w
          left join nofx.artifact a on a.id = w.value::uuid and a.tenant_id = v_tenant
         where w.value is not null;
        if v_problems is not null then
            return jsonb_build_object('result', 'invalid', 'problems', v_problems);
        end if;
    end if;
    if (p ->> 'asks')::boolean then
        v_problems := nofx.approval_problems(v_tenant, p -> 'steps');
        if v_problems is not null then
            return jsonb_build_object('result', 'invalid', 'problems', v_problems);
        end if;
    end if;
    -- Who uploaded a file does not approve what becomes of it, and neither do the authors of the run that made it.
    if v_workspace is not null or jsonb_array_length(coalesce(p -> 'artifacts', '[]')) > 0 then
        select v_authors || coalesce(jsonb_agg(distinct m.author), '[]') into v_authors
          from (select w.value ->> 'id' as id from jsonb_each(v_workspace) w
                union select jsonb_array_elements_text(coalesce(p -> 'artifacts', '[]'))) named
          join nofx.artifact a on a.id = any (array[named.id::uuid])
          left join nofx.run r on r.id = any (array[a.run_id])
         cross join lateral (
            select a.created_by where a.created_by is not null
            union all
            select t.author || '{"did": "made"}' from jsonb_array_elements(r.authors) t(author)) m(author)
         where a.tenant_id = v_tenant;
    end if;

    -- Not if this call only repeats one that was carried out.
    if exists (select from nofx.tenant t where t.tenant_id = v_tenant and t.limits <> '{}')
       and not exists (select from nofx.run r where r.tenant_id = v_tenant
                          and (r.id = v_id or r.idempotency_key = p ->> 'idempotency_key')) then
        perform nofx.limits_admit_run(v_tenant, jsonb_array_length(p -> 'steps'));
    end if;

    with item as materialized (
        select s.*, s.blockers = 0 as is_ready
          from jsonb_to_recordset(p -> 'steps')
               as s(id uuid, ordinal integer, name text, tool text, handler text, inputs jsonb, refs text[], ref_paths text[],
                    blockers integer, max_attempts integer, backoff_ms integer, timeout_s integer, approval jsonb)
    ), made as (
        insert into nofx.run (id, tenant_id, status, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s,
                              deadline_at, traceparent, workspace, created_by, authors, created_at, budget_usd_micros, steps_ready, steps_pending, event_seq)
        select v_id, v_tenant, 'queued', p ->> 'goal', p -> 'plan', p ->> 'plan_digest', p ->> 'request_digest',
               p ->> 'idempotency_key', (p ->> 'timeout_s')::integer,
               v_now + make_interval(secs => (p ->> 'timeout_s')::integer), p ->> 'traceparent', v_workspace, v_call ->> 'actor', v_authors, v_now,
               (p ->> 'budget_usd_micros')::bigint, count(*) filter (where i.is_ready), count(*) filter (where not i.is_ready),
               1 + count(*) filter (where i.is_ready)
          from item i
            on conflict do nothing
        returning id
    ), steps as (
        insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, refs, ref_paths, status, blockers,
                               max_attempts, backoff_ms, timeout_s, approval, created_at, ready_at, notify_at)
        select i.id, v_tenant, m.id, i.ordinal, i.name, i.tool, i.handler, i.inputs, i.refs, i.ref_paths,
               case when i.is_ready then 'ready' else 'pending' end, i.blockers, i.max_attempts, i.backoff_ms, i.timeout_s,
               nullif(i.approval, 'null'), v_now, case when i.is_ready then v_now end, case when i.is_ready then nofx.wakeup_due(v_now, null) end
          from made m
         cross join item i
    ), edges as (
        insert into nofx.step_edge (parent_id, child_id, tenant_id)
        select e.parent, e.child, v_tenant
          from made m
         cross join jsonb_to_recordset(p -> 'edges') as e(parent uuid, child uuid)
    ), events as (
        insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
        select m.id, 1, v_tenant, null, 'run.created',
               jsonb_build_object('goal', p ->> 'goal', 'plan_digest', p ->> 'plan_digest', 'actor', v_call ->> 'actor', 'by', v_call -> 'by'),
               v_now
          from made m
        union all
        select m.id, 1 + row_number() over (order by i.ordinal), v_tenant, i.id, 'step.ready', '{}', v_now
          from made m
         cross join item i
         where i.is_ready
    )
    select jsonb_agg(jsonb_build_object('tenant_id', v_tenant, 'run_id', m.id, 'step_id', i.id, 'handler', i.handler,
                                        'delay_ms', 0, 'traceparent', p ->> 'traceparent') order by i.ordinal)
      into v_ready
      from made m
      join item i on i.is_ready;
    if v_ready is not null then
        return jsonb_build_object('result', 'created', 'id', v_id, 'status', 'queued', 'ready', v_ready);
    end if;

    -- A second statement has a snapshot of its own and sees the winner of a race. The id itself is taken if this call is a retry whose first
    -- answer was lost.
    select r.id, r.status, r.request_digest into strict v_run
      from nofx.run r
     where r.tenant_id = v_tenant and (r.id = v_id or r.idempotency_key = p ->> 'idempotency_key')
     order by r.id = v_id desc limit 1;
    return jsonb_build_object(
        'result', case when v_run.request_digest = p ->> 'request_digest' then 'existing' else 'conflict' end,
        'id', v_run.id, 'status', v_run.status, 'ready', '[]'::jsonb);
end
$$;
select nofx.transition_declare('nofx.run_create(jsonb)', 'nofx_api');

-- functions/step_facts_insert.sql sha256=c27dc64c69ea08d435420c74c58134db2f0ffe0e6eff443dbb90346716194aa8
-- Stores the artifacts, gates and events that finished attempts leave behind. Returns their events; null if there are none, which is the usual
-- case.
create or replace function nofx.step_facts_insert(p_items jsonb, p_done uuid[], p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_items jsonb;
    v_artifacts nofx.change[];
    v_gates nofx.change[];
    v_events nofx.change[];
begin
    if not jsonb_path_exists(p_items, '$[*] ? (@.artifacts.size() > 0 || @.gates.size() > 0 || @.events.size() > 0)') then
        return null;
    end if;
    -- Matched by the whole key: a forged or late item in the batch leaves nothing behind.
    select jsonb_agg(i.item) into v_items
      from jsonb_array_elements(p_items) i(item)
      join nofx.step s on s.id = any (array[(i.item ->> 'step_id')::uuid])
     where s.id = any (p_done) and s.run_id is not distinct from (i.item ->> 'run_id')::uuid and s.tenant_id = i.item ->> 'tenant_id'
       and s.attempt = (i.item ->> 'attempt')::integer;

    with made as (
        insert into nofx.artifact (id, tenant_id, run_id, step_id, attempt, name, type, uri, hash, size_bytes,
                                   media_type, metadata, created_at)
        select a.id, i.tenant_id, i.run_id, i.step_id, i.attempt, a.name, a.type, a.uri, a.hash, a.size_bytes,
               a.media_type, coalesce(a.metadata, '{}'), p_now
          from jsonb_to_recordset(v_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, artifacts jsonb)
         cross join jsonb_to_recordset(coalesce(i.artifacts, '[]'))
               as a(id uuid, name text, type text, uri text, hash text, size_bytes bigint, media_type text,
                    metadata jsonb)
        returning run_id, step_id, id, name, type, hash
    )
    select array_agg(nofx.fact(m.run_id, m.step_id, 'artifact.created',
                               jsonb_build_object('artifact_id', m.id, 'name', m.name, 'type', m.type, 'hash', m.hash))
                     order by m.id)
      into v_artifacts
      from made m;

    insert into nofx.artifact_edge (parent_id, child_id, tenant_id)
    select p.id, (a ->> 'id')::uuid, i.tenant_id
      from jsonb_to_recordset(v_items) as i(tenant_id text, step_id uuid, artifacts jsonb)
     cross join jsonb_array_elements(coalesce(i.artifacts, '[]')) a
     cross join jsonb_array_elements_text(coalesce(a -> 'made_from', '[]')) made_from
      join nofx.artifact p on p.id = made_from::uuid and p.tenant_id = i.tenant_id
        on conflict do nothing;

    with made as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, subject,
                               evidence_uri, reason, expires_at, created_at, decided_at, rule, bound, bound_digest, remind_at)
        select g.id, i.tenant_id, i.run_id, i.step_id, g.gate_type, g.status, g.on_pass, r.generation, g.subject,
               g.evidence_uri, g.reason,
               case when g.status = 'pending' then nofx.approval_expiry(i.tenant_id, g.expires_after_s, p_now) end, p_now,
               case when g.status <> 'pending' then p_now end, a.rule, a.bound, nofx.binding_digest(a.bound), a.remind_at
          from jsonb_to_recordset(v_items) as i(tenant_id text, run_id uuid, step_id uuid, gates jsonb)
          join nofx.run r on r.id = i.run_id
         cross join jsonb_to_recordset(coalesce(i.gates, '[]'))
               as g(id uuid, gate_type text, status text, on_pass text, subject jsonb, evidence_uri text, reason text,
                    expires_after_s integer)
          left join lateral (
            -- What evidence decides needs no rule. Whether changed checks count, and for more money,
            -- the system asks, so the policy alone says who decides.
            select nofx.approval_strictest(q.asked, nofx.approval_policy(i.tenant_id)) as rule,
                   nofx.step_binding(q.id, g.subject, g.evidence_uri) as bound,
                   p_now + make_interval(secs => nofx.approval_seconds(q.asked -> 'remind_after_s')) as remind_at
              from (select s.id, case when g.gate_type in ('manual:gate-change', 'budget') then '{}' else nofx.approval_asked(s) end as asked
                      from nofx.step s where s.id = i.step_id) q
             where g.status = 'pending'
            offset 0) a on true
        returning run_id, step_id, id, gate_type, status, reason, subject, rule, bound_digest
    )
    select array_agg(nofx.fact(m.run_id, m.step_id,
                               case m.status when 'pending' then 'gate.created' else 'gate.' || m.status end,
                               nofx.gate_asked(m.id, m.gate_type, m.rule, m.bound_digest)
                               || case when m.reason is null then '{}' else jsonb_build_object('reason', m.reason) end
                               || nofx.subject_of(m.subject))
                     order by m.id)
      into v_gates
      from made m;

    select array_agg(nofx.fact(i.run_id, i.step_id, e.event ->> 'type', e.event -> 'payload') order by i.step_id, e.position)
      into v_events
      from jsonb_to_recordset(v_items) as i(run_id uuid, step_id uuid, events jsonb)
     cross join jsonb_array_elements(coalesce(i.events, '[]')) with ordinality as e(event, position);

    return v_events || v_artifacts || v_gates;
end
$$;
revoke execute on function nofx.step_facts_insert(jsonb, uuid[], timestamptz) from public;

-- functions/steps_claimed.sql sha256=5f314fdb8c3968549aac6b5cab6c5deac3489caa3f50fcc99cc38341fb219362
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
-- decided_at}], and what nofx.llm_terms returns}.
-- `policy` is null if the tenant has none. `decisions` are of this generation, oldest first: the newest 100 gates of the step that passed or
-- were waived, and those questions about changed checks that a person let pass for other steps of the run, the newest of each of at most
-- 100 subjects. `decided_by` is null if a handler decided.
create or replace function nofx.step_terms(p_tenant_id text, p_step uuid, p_generation integer) returns json
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_run uuid;
    v_llm jsonb;
begin
    select s.run_id into v_run from nofx.step s where s.id = p_step;
    v_llm := nofx.llm_terms(p_tenant_id, v_run);
    return json_build_object(
        'cooldowns', v_llm -> 'cooldowns', 'is_budgeted', v_llm -> 'is_budgeted',
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
