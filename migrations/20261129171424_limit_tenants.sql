-- Limits what a tenant may have and do.

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';
lock table nofx.run in exclusive mode;

-- For the limit of open runs. On a large table, first build it concurrently by hand.
create index if not exists run_open on nofx.run (tenant_id) where finished_at is null;
-- For the limit of stored bytes.
create index if not exists artifact_size on nofx.artifact (tenant_id, created_at) include (size_bytes);

-- Bytes of artifacts that are older than `counted_to`, of tenants that have the limit. A row that is missing is counted again.
create table nofx.stored_bytes (
    tenant_id  text primary key,
    counted_to timestamptz not null,
    bytes      bigint not null
);

-- Requests of the last minute, of tenants that have the limit. Nothing is lost with it.
create unlogged table nofx.request (
    tenant_id  text not null,
    request_id text not null,
    at         timestamptz not null,
    primary key (tenant_id, request_id)
);
create index request_at on nofx.request (tenant_id, at);

-- Copies of the files in functions/. Change those files, not this one.

-- functions/artifact_upload.sql sha256=35b5b3e00e8c198c8cb6e4880b35a03059daa6cf0389ac4e9915907c747738a4
-- Records an upload of a tenant that belongs to no run yet. p: {caller, id, name, type, uri, hash, size_bytes, media_type}. Safe to repeat.
-- -> {result: stored}
create or replace function nofx.artifact_upload(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    p := nofx.admitted(p, 'workspaces.create');
    if not exists (select from nofx.artifact a where a.id = (p ->> 'id')::uuid) then
        perform nofx.limits_admit_upload(p ->> 'tenant_id', (p ->> 'size_bytes')::bigint);
    end if;
    insert into nofx.artifact (id, tenant_id, name, type, uri, hash, size_bytes, media_type, created_by)
    values ((p ->> 'id')::uuid, p ->> 'tenant_id', p ->> 'name', p ->> 'type', p ->> 'uri', p ->> 'hash',
            (p ->> 'size_bytes')::bigint, p ->> 'media_type', nofx.author_of(p, 'uploaded'))
        on conflict (id) do nothing;
    return jsonb_build_object('result', 'stored');
end
$$;
select nofx.transition_declare('nofx.artifact_upload(jsonb)', 'nofx_api');

-- functions/caller_admit.sql sha256=aafc0f834995fb967600c1ca68a308288066e0715753e873d0b5ec25069939cc
-- Admits a caller: confirms what a request proves about its sender, in the statement that does the request's work. So a revoked token and
-- a removed member count at once, and no request pays a round trip for it.

-- The principal as JSON, for the API and for records.
create or replace function nofx.principal_json(p nofx.principal) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_build_object('tenant', p.tenant_id, 'subject', p.subject, 'name', p.name, 'kind', p.kind, 'role', p.role,
                              'token_id', p.token_id, 'owner', p.owner, 'solo', p.is_solo)
$$;

-- The principal behind a caller that has the permission.
-- p: {tenant, via: token|jwt|local, subject, token_id, kind, secret_sha256, ip, request_id}. A token is known by its id, its kind and the hash of
-- its secret. A JWT was verified by the function that got it, and says only who somebody is: the role is that of the membership. `local` is
-- one person on a laptop, and only a tenant made for that admits it.
-- Raises NF401 if the caller is not known, NF403 if it may not do this, and NF429 if the tenant sends too many requests. Until the end of the transaction, `nofx.caller` says to the
-- audit who acts and from where.
create or replace function nofx.caller_admit(p jsonb, p_permission text) returns nofx.principal
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal;
    v_tenant nofx.tenant;
    v_token nofx.api_token;
    v_member nofx.membership;
begin
    select * into v_tenant from nofx.tenant t where t.tenant_id = p ->> 'tenant' and t.disabled_at is null;
    if not found then
        raise exception 'unauthenticated' using errcode = 'NF401';
    end if;
    case p ->> 'via'
        when 'token' then
            select * into v_token
              from nofx.api_token t
             where t.id = (p ->> 'token_id')::uuid and t.tenant_id = v_tenant.tenant_id and t.kind = p ->> 'kind'
               and t.secret_sha256 = decode(p ->> 'secret_sha256', 'hex')
               and t.revoked_at is null and t.expires_at > clock_timestamp();
            if not found then
                raise exception 'unauthenticated' using errcode = 'NF401';
            end if;
        when 'jwt' then
            null;
        when 'local' then
            if not v_tenant.is_solo then
                raise exception 'unauthenticated' using errcode = 'NF401';
            end if;
        else
            raise exception 'unauthenticated' using errcode = 'NF401';
    end case;

    if v_token.id is null or v_token.kind = 'person' then
        select * into v_member
          from nofx.membership m
         where m.tenant_id = v_tenant.tenant_id and m.subject = coalesce(v_token.subject, p ->> 'subject')
           and m.removed_at is null;
        -- A valid login of somebody who is no member.
        if not found then
            raise exception 'forbidden' using errcode = 'NF403', detail = coalesce(p_permission, '');
        end if;
        v_who := row(v_tenant.tenant_id, v_member.subject, v_member.name, 'person', v_member.role, v_token.id, v_member.subject,
                     v_tenant.is_solo)::nofx.principal;
    else
        v_who := row(v_tenant.tenant_id, v_token.subject, v_token.name, v_token.kind, v_token.role, v_token.id, v_token.owner,
                     v_tenant.is_solo)::nofx.principal;
    end if;
    if not nofx.permits(p_permission, v_who.role, v_who.kind)
       or not coalesce(v_token.scopes is null or p_permission = any (v_token.scopes), false) then
        raise exception 'forbidden' using errcode = 'NF403', detail = coalesce(p_permission, '');
    end if;

    if v_tenant.limits ? 'requests_per_minute' then
        perform nofx.limits_admit_request(v_tenant.tenant_id, p ->> 'request_id', (v_tenant.limits ->> 'requests_per_minute')::bigint);
    end if;

    -- At most one write in five minutes, which never waits for another request of the same token.
    if v_token.id is not null and coalesce(v_token.last_used_at < clock_timestamp() - interval '5 minutes', true) then
        update nofx.api_token t
           set last_used_at = clock_timestamp(), last_used_ip = (p ->> 'ip')::inet
         where t.id = (select u.id from nofx.api_token u where u.id = v_token.id for update skip locked);
    end if;
    perform set_config('nofx.caller', jsonb_build_object(
        'tenant', v_who.tenant_id, 'name', v_who.name, 'ip', p -> 'ip', 'request_id', nullif(p ->> 'request_id', ''),
        'by', jsonb_strip_nulls(jsonb_build_object('kind', v_who.kind, 'subject', v_who.subject, 'role', v_who.role,
                                                   'token_id', v_who.token_id, 'via', p -> 'via')))::text, true);
    return v_who;
end
$$;
revoke execute on function nofx.principal_json(nofx.principal) from public;
select nofx.transition_declare('nofx.caller_admit(jsonb, text)', 'nofx_api');
grant execute on function nofx.principal_json(nofx.principal) to nofx_api;

-- The first statement of a transition that the API calls: admits p.caller, and gives p with who it is.
-- -> p with tenant_id, with actor (the name for people to read), with by: {kind, subject, token_id}, and with who: the principal and when it
-- logged in. Whatever the request says about these is
-- replaced. Only the one person of a local tenant, who has no other name, may say who acts.
create or replace function nofx.admitted(p jsonb, p_permission text) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', p_permission);
    v_said text := case when p -> 'caller' ->> 'via' = 'local' then p ->> 'actor' end;
begin
    if v_said <> v_who.name then
        perform set_config('nofx.caller', (current_setting('nofx.caller')::jsonb || jsonb_build_object('name', v_said))::text, true);
    end if;
    return p || jsonb_build_object(
        'tenant_id', v_who.tenant_id, 'actor', coalesce(v_said, v_who.name),
        'by', jsonb_strip_nulls(jsonb_build_object('kind', v_who.kind, 'subject', v_who.subject, 'token_id', v_who.token_id)),
        'who', nofx.principal_json(v_who) || jsonb_build_object('login_at', p -> 'caller' -> 'login_at'));
end
$$;
revoke execute on function nofx.admitted(jsonb, text) from public;

-- An entry of `authors` of a run: the principal of p_call, as nofx.admitted gives it, and what it did: started, retried or uploaded.
create or replace function nofx.author_of(p_call jsonb, p_did text) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_build_object('did', p_did, 'kind', p_call -> 'who' -> 'kind', 'subject', p_call -> 'who' -> 'subject',
                              'owner', p_call -> 'who' -> 'owner')
$$;
revoke execute on function nofx.author_of(jsonb, text) from public;

-- functions/run_create.sql sha256=e8332a85a006713a63ed2d7b616ecdb71a7bc4cef23fd791f7fd00f6a06afdd8
-- Creates a run with its steps, edges and first events. No other transaction can see the run yet, so it takes no lock and does not call
-- nofx.runs_settle: it writes each row once, and the run's with its counters.
--
-- p: {caller, id, goal, plan, plan_digest, request_digest, idempotency_key, actor, timeout_s,
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
    -- Who uploaded a file does not approve what becomes of it.
    if v_workspace is not null or jsonb_array_length(coalesce(p -> 'artifacts', '[]')) > 0 then
        select v_authors || coalesce(jsonb_agg(distinct a.created_by), '[]') into v_authors
          from (select w.value ->> 'id' as id from jsonb_each(v_workspace) w
                union select jsonb_array_elements_text(coalesce(p -> 'artifacts', '[]'))) named
          join nofx.artifact a on a.id = any (array[named.id::uuid])
         where a.tenant_id = v_tenant and a.created_by is not null;
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
                              deadline_at, traceparent, workspace, created_by, authors, created_at, steps_ready, steps_pending, event_seq)
        select v_id, v_tenant, 'queued', p ->> 'goal', p -> 'plan', p ->> 'plan_digest', p ->> 'request_digest',
               p ->> 'idempotency_key', (p ->> 'timeout_s')::integer,
               v_now + make_interval(secs => (p ->> 'timeout_s')::integer), p ->> 'traceparent', v_workspace, v_call ->> 'actor', v_authors, v_now,
               count(*) filter (where i.is_ready), count(*) filter (where not i.is_ready),
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

-- functions/run_retry.sql sha256=69b67ea7bc7f4d1ca39accbdb10fb429749a84c38f76a66ddce2ec4affabe783
-- Starts the next generation of a failed or cancelled run. Steps that succeeded stay. All others start again: their blockers are counted
-- again, their failures and lost workers are 0 again, their attempt numbers continue. Gates that did not pass become pending again.
-- p: {caller, run_id, actor}
-- -> {result: retried|conflict|not_found, status, generation, ready: [wake-ups]}
create or replace function nofx.run_retry(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_steps nofx.change[];
    v_gates nofx.change[];
    v_policy jsonb;
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.status not in ('failed', 'cancelled') then
        return jsonb_build_object('result', 'conflict', 'status', v_run.status, 'ready', '[]'::jsonb);
    end if;
    perform nofx.limits_admit_run(v_run.tenant_id, (select count(*)::integer from nofx.step s
                                                     where s.run_id = v_run.id and s.status <> 'succeeded'));
    v_now := clock_timestamp();
    update nofx.run r
       set status = 'queued', generation = r.generation + 1, failure = null, finished_at = null, cancelled_at = null,
           paused_at = null, authors = nofx.authors_with(r.authors, nofx.author_of(p, 'retried')), deadline_at = v_now + make_interval(secs => r.timeout_s)
     where r.id = v_run.id;

    v_policy := nofx.approval_policy(v_run.tenant_id);
    -- Only gates that clients put before steps. Handlers create theirs again when their steps run.
    with renewed as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at, rule, bound, bound_digest)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass,
               v_run.generation + 1, g.reason, g.evidence_uri, v_now + (g.expires_at - g.created_at), v_now,
               nofx.approval_strictest(coalesce(g.rule, '{}'), v_policy), b.bound, nofx.binding_digest(b.bound)
          from nofx.gate g
         cross join lateral nofx.gate_binding(g) b(bound)
          left join nofx.step s on s.id = g.step_id
         where g.run_id = v_run.id and g.on_pass = 'release' and g.generation = v_run.generation
           and g.status in ('failed', 'expired', 'cancelled') and s.status is distinct from 'succeeded'
        returning id, step_id, gate_type, rule, bound_digest
    )
    select array_agg(nofx.gate_change(v_run.id, a.step_id, 'gate.created',
                                      nofx.gate_asked(a.id, a.gate_type, a.rule, a.bound_digest), 1) order by a.id)
      into v_gates
      from renewed a;

    with old as (
        select s.id, s.status,
               (select count(*) from nofx.step_edge e join nofx.step q on q.id = e.parent_id
                 where e.child_id = s.id and q.status <> 'succeeded')
               + (select count(*) from nofx.gate g where g.step_id = s.id and g.status = 'pending') as blockers
          from nofx.step s
         where s.run_id = v_run.id and s.status <> 'succeeded'
    ), renewed as (
        update nofx.step s
           set status = case when o.blockers = 0 then 'ready' else 'pending' end,
               blockers = o.blockers, failures = 0, workers_lost = 0, outputs = null, error = null,
               started_at = null, finished_at = null, notify_count = 0,
               ready_at = case when o.blockers = 0 then v_now end,
               notify_at = case when o.blockers = 0 then nofx.wakeup_due(v_now, null) end
          from old o
         where s.id = any (array[o.id])
        returning s.id, o.status as was, s.status, s.ordinal
    )
    select array_agg(nofx.step_change(v_run.id, a.id, a.was, a.status, case when a.status = 'ready' then 'step.ready' end)
                     order by a.ordinal)
      into v_steps
      from renewed a;

    perform nofx.runs_settle(
        nofx.fact(v_run.id, null, 'run.retried',
                  jsonb_build_object('actor', p ->> 'actor', 'by', p -> 'by', 'generation', v_run.generation + 1))
        || v_gates || v_steps, v_now);
    return jsonb_build_object('result', 'retried', 'generation', v_run.generation + 1,
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_steps), v_now));
end
$$;
select nofx.transition_declare('nofx.run_retry(jsonb)', 'nofx_api');

-- functions/tenant_limits.sql sha256=9d97b8035c90b82636a8068eae95c08c22732ad3e61efc7932adb1ea1ca50dd9
-- Limits of a tenant: what it may have and do at most. A tenant without a limit pays nothing for it.

-- Whether limits have exactly one meaning: whole numbers by name. Unknown names are refused.
create or replace function nofx.limits_are_sound(p jsonb) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select jsonb_typeof(p) = 'object'
       and p - array['open_runs', 'queued_steps', 'stored_bytes', 'requests_per_minute'] = '{}'
       and not exists (select from jsonb_each(p) l
                        where jsonb_typeof(l.value) <> 'number' or l.value #>> '{}' !~ '^[0-9]{1,15}$'
                           or l.key = 'requests_per_minute' and not (l.value #>> '{}')::bigint between 1 and 100000)
$$;

-- Refuses what would pass a limit. Waiting helps if p_retry_after_s says how long.
create or replace function nofx.limit_refuse(p_limit text, p_retry_after_s integer) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    raise exception 'limit' using errcode = 'NF429',
        detail = jsonb_strip_nulls(jsonb_build_object('limit', p_limit, 'retry_after_s', p_retry_after_s))::text;
end
$$;

-- One call at a time for each tenant, until the transaction ends: what it counts stays true.
create or replace function nofx.limits_lock(p_tenant_id text) returns void
    language sql
    set search_path = ''
as $$
    select pg_advisory_xact_lock(hashtextextended('nofx.limits.' || p_tenant_id, 0))
$$;

-- Bytes of a tenant's artifacts, as they were recorded. Older ones are counted once, because no transaction adds artifacts that are older
-- than an hour.
create or replace function nofx.tenant_bytes(p_tenant_id text) returns bigint
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_known nofx.stored_bytes;
    v_to timestamptz := date_trunc('hour', now()) - interval '1 hour';
    v_bytes bigint;
begin
    select * into v_known from nofx.stored_bytes b where b.tenant_id = p_tenant_id;
    if v_known.counted_to is null or v_known.counted_to < v_to then
        select coalesce(v_known.bytes, 0) + coalesce(sum(a.size_bytes), 0) into v_bytes
          from nofx.artifact a
         where a.tenant_id = p_tenant_id and a.created_at >= coalesce(v_known.counted_to, '-infinity') and a.created_at < v_to;
        insert into nofx.stored_bytes (tenant_id, counted_to, bytes) values (p_tenant_id, v_to, v_bytes)
            on conflict (tenant_id) do update set counted_to = excluded.counted_to, bytes = excluded.bytes
         where stored_bytes.counted_to < excluded.counted_to;
        v_known.counted_to := v_to;
        v_known.bytes := v_bytes;
    end if;
    return v_known.bytes + coalesce((select sum(a.size_bytes) from nofx.artifact a
                                      where a.tenant_id = p_tenant_id and a.created_at >= v_known.counted_to), 0);
end
$$;

-- Trigger after delete of runs: their artifacts went too, so the bytes are counted again.
create or replace function nofx.stored_bytes_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.stored_bytes b using (select distinct g.tenant_id from gone g) g where b.tenant_id = g.tenant_id;
    return null;
end
$$;

-- The runs of a tenant that have not ended, and their steps that wait or run.
create or replace function nofx.open_work(p_tenant_id text) returns table (runs bigint, steps bigint)
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select count(*), coalesce(sum(r.steps_pending + r.steps_ready + r.steps_running + r.steps_blocked), 0)
      from nofx.run r
     where r.tenant_id = p_tenant_id and r.finished_at is null
$$;

-- Refuses to open one more run with so many steps, if that passes a limit of the tenant. Exact: calls of a tenant that has one wait for each
-- other.
create or replace function nofx.limits_admit_run(p_tenant_id text, p_steps integer) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_limits jsonb := (select t.limits from nofx.tenant t where t.tenant_id = p_tenant_id);
    v_open record;
begin
    if v_limits = '{}' then
        return;
    end if;
    if v_limits ?| array['open_runs', 'queued_steps'] then
        perform nofx.limits_lock(p_tenant_id);
        select * into v_open from nofx.open_work(p_tenant_id);
        if v_open.runs + 1 > (v_limits ->> 'open_runs')::bigint then
            perform nofx.limit_refuse('open_runs', 30);
        elsif v_open.steps + p_steps > (v_limits ->> 'queued_steps')::bigint then
            perform nofx.limit_refuse('queued_steps', 30);
        end if;
    end if;
    if v_limits ? 'stored_bytes' and nofx.tenant_bytes(p_tenant_id) >= (v_limits ->> 'stored_bytes')::bigint then
        perform nofx.limit_refuse('stored_bytes', null);
    end if;
end
$$;

-- Refuses an upload that passes the tenant's limit.
create or replace function nofx.limits_admit_upload(p_tenant_id text, p_bytes bigint) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_most bigint := (select (t.limits ->> 'stored_bytes')::bigint from nofx.tenant t where t.tenant_id = p_tenant_id);
begin
    if v_most is null then
        return;
    end if;
    perform nofx.limits_lock(p_tenant_id);
    if nofx.tenant_bytes(p_tenant_id) + p_bytes > v_most then
        perform nofx.limit_refuse('stored_bytes', null);
    end if;
end
$$;

-- Counts a request in the last minute, whatever process answers it, and refuses it if there were more than p_most. All statements of a
-- request count once. Requests that run at the same moment do not see each other, so a burst may pass the limit by as many.
create or replace function nofx.limits_admit_request(p_tenant_id text, p_request_id text, p_most bigint) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_requests bigint;
    v_oldest timestamptz;
begin
    insert into nofx.request (tenant_id, request_id, at)
    values (p_tenant_id, coalesce(nullif(p_request_id, ''), gen_random_uuid()::text), v_now)
        on conflict do nothing;
    if not found then
        return;
    end if;
    select count(*), min(q.at) into v_requests, v_oldest
      from (select r.at from nofx.request r
             where r.tenant_id = p_tenant_id and r.at > v_now - interval '1 minute'
             order by r.at limit p_most + 1) q;
    if v_requests > p_most then
        perform nofx.limit_refuse('requests_per_minute',
                                  greatest(1, ceil(extract(epoch from v_oldest + interval '1 minute' - v_now)))::integer);
    end if;
    -- Each request removes more than it adds, and waits for no other.
    delete from nofx.request r
     where r.tenant_id = p_tenant_id
       and r.request_id = any (array(select o.request_id from nofx.request o
                                      where o.tenant_id = p_tenant_id and o.at < v_now - interval '1 minute'
                                      order by o.at limit 4 for update skip locked));
end
$$;

-- The limits of the caller's tenant, and what it has used of each. p: {caller}
-- -> {limits: {NAME: most}, used: {NAME: now}}. Requests are counted only where they are limited.
create or replace function nofx.limits_of(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := nofx.admitted(p, 'account.read') ->> 'tenant_id';
    v_open record;
begin
    select * into v_open from nofx.open_work(v_tenant);
    return jsonb_build_object(
        'limits', (select t.limits from nofx.tenant t where t.tenant_id = v_tenant),
        'used', jsonb_build_object(
            'open_runs', v_open.runs, 'queued_steps', v_open.steps, 'stored_bytes', nofx.tenant_bytes(v_tenant),
            'requests_per_minute', (select count(*) from nofx.request r
                                     where r.tenant_id = v_tenant and r.at > clock_timestamp() - interval '1 minute')));
end
$$;

revoke execute on function nofx.limits_are_sound(jsonb), nofx.limit_refuse(text, integer), nofx.limits_lock(text), nofx.tenant_bytes(text),
    nofx.stored_bytes_forget(), nofx.open_work(text), nofx.limits_admit_run(text, integer), nofx.limits_admit_upload(text, bigint),
    nofx.limits_admit_request(text, text, bigint) from public;
select nofx.transition_declare('nofx.limits_of(jsonb)', 'nofx_api');

-- Rows of a tenant: for the API by the claims that `nofx.read` sets. It has no grant, and reads them through functions.
do $$
declare
    v_table text;
begin
    foreach v_table in array array['stored_bytes', 'request'] loop
        execute format('alter table nofx.%I enable row level security', v_table);
        execute format('create policy tenant_isolation on nofx.%I for select to nofx_api using (tenant_id = (select nofx.tenant_id()))', v_table);
    end loop;
end
$$;

-- {NAME: most} of open_runs, queued_steps, stored_bytes, requests_per_minute. No limit without a name.
alter table nofx.tenant add column limits jsonb not null default '{}';
alter table nofx.tenant add constraint limits_are_sound check (nofx.limits_are_sound(limits));
create trigger stored_bytes_forget after delete on nofx.run
    referencing old table as gone for each statement execute function nofx.stored_bytes_forget();

-- The audit records changes, not writes that change nothing: `nofx dev` makes its tenant again at each start.
drop trigger audit_change on nofx.tenant;
create constraint trigger audit_change after insert or delete on nofx.tenant deferrable initially deferred
    for each row execute function nofx.audit_change('tenant_id', 'is_solo', 'disabled_at', 'limits');
create constraint trigger audit_update after update on nofx.tenant deferrable initially deferred
    for each row when (new is distinct from old) execute function nofx.audit_change('tenant_id', 'is_solo', 'disabled_at', 'limits');
drop trigger audit_change on nofx.membership;
create constraint trigger audit_change after insert or delete on nofx.membership deferrable initially deferred
    for each row execute function nofx.audit_change('subject', 'role', 'name');
create constraint trigger audit_update after update on nofx.membership deferrable initially deferred
    for each row when (new is distinct from old) execute function nofx.audit_change('subject', 'role', 'name');
