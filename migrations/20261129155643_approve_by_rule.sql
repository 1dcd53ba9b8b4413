-- Lets a rule say who approves: how many people, which ones, and not those whose work it is. A decision is bound to the digests of what it is about.
set local lock_timeout = '500ms';
lock table nofx.run in exclusive mode;

alter table nofx.run
    -- Who must not approve it: [{did: started|retried|uploaded, kind, subject, owner}].
    add column authors jsonb;
alter table nofx.artifact
    -- Who uploaded it, as an entry of `authors` of a run.
    add column created_by jsonb;
alter table nofx.step
    -- The approval that the plan asks for before each start. Null for almost all steps.
    add column approval jsonb;
alter table nofx.gate
    -- Null for gates that evidence decides, and for those of earlier releases.
    add column rule         jsonb,
    -- What a decision covers, as nofx.step_binding gives it, and its digest.
    add column bound        jsonb,
    add column bound_digest nofx.sha256,
    add column remind_at    timestamptz,
    add column reminded_at  timestamptz,
    -- A later claim found other bytes than the decision was about.
    add column voided_at    timestamptz;
alter table nofx.approval
    drop constraint approval_gate_id_key,
    -- The person. Null for those of earlier releases.
    add column subject      text,
    -- Whether they approved their own work, which only a tenant of one person allows.
    add column is_self      boolean not null default false,
    -- Whether this decision ended the gate. Otherwise more approvals were needed.
    add column decides      boolean not null default true,
    add column bound_digest nofx.sha256,
    -- The signed statement about the decision.
    add column envelope     jsonb;
create unique index approval_decides on nofx.approval (gate_id) where decides;
create unique index approval_once on nofx.approval (gate_id, subject, decision, coalesce(bound_digest, '')) where subject is not null;
create index gate_reminder on nofx.gate (remind_at) where status = 'pending' and remind_at is not null;

-- Copies of the files in functions/. Change those files, not this one.

-- functions/approval_rule.sql sha256=922a1b94241ae86491bb53327a92c73327031b09940b9e42354645bf7565655d
-- Approval rules: how many people must approve, and which. A plan asks for a rule, and the policy of the tenant caps it. A rule is
-- {required, roles, people, self, owners, waive, max_session_age_s}; `roles` has the least role that may decide, `people` is null for anybody,
-- `self` says whether who started the run may decide. What cannot be read counts as the strictest value.

-- A count of people, from 1 to 20.
create or replace function nofx.approval_count(p_count jsonb) returns integer
    language sql immutable
    set search_path = ''
as $$
    select case coalesce(jsonb_typeof(p_count), 'null')
               when 'null' then 1
               when 'number' then least(greatest(ceil(p_count::numeric), 1), 20)::integer
               else 20 end
$$;

-- A number of seconds, up to a year. Null if there is none.
create or replace function nofx.approval_seconds(p_seconds jsonb) returns integer
    language sql immutable
    set search_path = ''
as $$
    select case coalesce(jsonb_typeof(p_seconds), 'null')
               when 'null' then null
               when 'number' then least(greatest(p_seconds::numeric, 1), 31536000)::integer
               else 1 end
$$;

-- The least role of a list. A role includes those below it, so the least one says it all.
create or replace function nofx.approval_role(p_roles jsonb) returns text
    language sql immutable
    set search_path = ''
as $$
    select case when coalesce(jsonb_typeof(p_roles), 'null') = 'null' or p_roles @> '["approver"]' then 'approver' else 'admin' end
$$;

-- The stricter of a rule and a policy, field by field. Of a policy that has changed since, a rule keeps what was stricter.
create or replace function nofx.approval_strictest(p_rule jsonb, p_policy jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_build_object(
        'required', greatest(nofx.approval_count(p_rule -> 'required'), nofx.approval_count(p_policy -> 'minimum')),
        'roles', jsonb_build_array(case when 'admin' in (nofx.approval_role(p_rule -> 'roles'), nofx.approval_role(p_policy -> 'roles'))
                                        then 'admin' else 'approver' end),
        'people', nullif(p_rule -> 'people', 'null'),
        'self', coalesce(p_policy ->> 'self' = 'allowed', false) and coalesce(p_rule -> 'self', 'null') in ('null', 'true'),
        'owners', case when p_policy ->> 'owners' = 'allowed' and coalesce(p_rule ->> 'owners', 'allowed') = 'allowed'
                       then 'allowed' else 'excluded' end,
        'waive', case when coalesce(p_policy ->> 'waive', 'admins') = 'admins' and coalesce(p_rule ->> 'waive', 'admins') = 'admins'
                      then 'admins' else 'nobody' end,
        'max_session_age_s', least(nofx.approval_seconds(p_policy -> 'max_session_age_s'),
                                   nofx.approval_seconds(p_rule -> 'max_session_age_s')))
$$;

-- What the current policy of a tenant says about approvals.
create or replace function nofx.approval_policy(p_tenant text) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_approvals jsonb;
begin
    select p.document -> 'approvals' into v_approvals
      from nofx.policy p
     where p.tenant_id = p_tenant
     order by p.version desc limit 1;
    return case when jsonb_typeof(v_approvals) = 'object' then v_approvals else '{}' end;
end
$$;

-- When a gate of this tenant expires that may wait p_after_s. Null for never.
create or replace function nofx.approval_expiry(p_tenant text, p_after_s integer, p_now timestamptz) returns timestamptz
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select p_now + make_interval(secs => least(p_after_s, nofx.approval_seconds(nofx.approval_policy(p_tenant) -> 'max_expires_after_s')))
$$;

-- The rule that a step's plan asks for: its field `approval`, or that of the inputs of a step that only asks.
create or replace function nofx.approval_asked(p_step nofx.step) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select case when jsonb_typeof(a.asked) = 'object' then a.asked else '{}' end
      from (select case when p_step.handler = 'manual' then p_step.inputs -> 'approval' else p_step.approval end as asked) a
$$;

-- Whether the lists of a rule name a member.
create or replace function nofx.approval_names(p_rule jsonb, p_member nofx.membership) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select coalesce(nofx.permits('gates.decide', p_member.role, 'person')
                    and nofx.role_rank(p_member.role) >= nofx.role_rank(nofx.approval_role(p_rule -> 'roles'))
                    and case coalesce(jsonb_typeof(p_rule -> 'people'), 'null')
                            when 'null' then true
                            when 'array' then (p_rule -> 'people') ? p_member.subject
                                 or exists (select from jsonb_array_elements_text(p_rule -> 'people') l
                                             where lower(l) = lower(p_member.email))
                            else false end, false)
$$;

-- The problems of approvals that a plan asks for, in the tenant of p_tenant: [{path, message}], null if there are none. p_steps: the steps of
-- nofx.run_create.
create or replace function nofx.approval_problems(p_tenant text, p_steps jsonb) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_agg(jsonb_build_object(
               'path', format('plan.steps[%s].%s.people', (s ->> 'ordinal'), case when s ->> 'handler' = 'manual' then 'inputs.approval' else 'approval' end),
               'message', format('names %s people, and the policy demands %s approvals', jsonb_array_length(a.asked -> 'people'), p.minimum))
               order by (s ->> 'ordinal')::integer)
      from jsonb_array_elements(p_steps) s
     cross join lateral (select case when s ->> 'handler' = 'manual' then s -> 'inputs' -> 'approval' else s -> 'approval' end as asked) a
     cross join (select nofx.approval_count(nofx.approval_policy(p_tenant) -> 'minimum') as minimum) p
     where jsonb_typeof(a.asked -> 'people') = 'array' and jsonb_array_length(a.asked -> 'people') < p.minimum
$$;
-- What the approvals of a plan come to: {rules: {NAME: rule}, problems}. p_steps: those that ask, as nofx.run_create takes them.
create or replace function nofx.approval_rules(p_steps jsonb) returns jsonb
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := nofx.tenant_id();
    v_policy jsonb := nofx.approval_policy(v_tenant);
begin
    return jsonb_build_object(
        'rules', (select coalesce(jsonb_object_agg(s ->> 'name', nofx.approval_strictest(
                             case when s ->> 'handler' = 'manual' then s -> 'inputs' -> 'approval' else s -> 'approval' end, v_policy)), '{}')
                    from jsonb_array_elements(p_steps) s),
        'problems', coalesce(nofx.approval_problems(v_tenant, p_steps), '[]'));
end
$$;
revoke execute on function nofx.approval_count(jsonb), nofx.approval_seconds(jsonb), nofx.approval_role(jsonb),
    nofx.approval_strictest(jsonb, jsonb), nofx.approval_policy(text), nofx.approval_expiry(text, integer, timestamptz),
    nofx.approval_asked(nofx.step), nofx.approval_names(jsonb, nofx.membership), nofx.approval_problems(text, jsonb), nofx.approval_rules(jsonb) from public;
grant execute on function nofx.approval_rules(jsonb) to nofx_api;

-- functions/artifact_upload.sql sha256=aac574770868829bea8f5b6add6ca6dacc88dcd74a621fef5c7b4d49feb2cd7a
-- Records an upload of a tenant that belongs to no run yet. p: {caller, id, name, type, uri, hash, size_bytes, media_type}. Safe to repeat.
-- -> {result: stored}
create or replace function nofx.artifact_upload(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    p := nofx.admitted(p, 'workspaces.create');
    insert into nofx.artifact (id, tenant_id, name, type, uri, hash, size_bytes, media_type, created_by)
    values ((p ->> 'id')::uuid, p ->> 'tenant_id', p ->> 'name', p ->> 'type', p ->> 'uri', p ->> 'hash',
            (p ->> 'size_bytes')::bigint, p ->> 'media_type', nofx.author_of(p, 'uploaded'))
        on conflict (id) do nothing;
    return jsonb_build_object('result', 'stored');
end
$$;
select nofx.transition_declare('nofx.artifact_upload(jsonb)', 'nofx_api');

-- functions/caller_admit.sql sha256=a7f036507dbfc53e090da986c3d979a5b74ba7bcc2f194c2015597bfd6c100a6
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
-- Raises NF401 if the caller is not known, and NF403 if it may not do this. Until the end of the transaction, `nofx.caller` says to the
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

-- functions/change.sql sha256=1684357ec89e22ddd44b697f6c7648ef65de26dd0b67d39c213eeaad7f3cd62b
-- A transition collects what it did as nofx.change[]; nofx.runs_settle turns that into counters, states and events. These
-- constructors are plain SQL without settings of their own: the planner inlines them, so they cost nothing.

-- A step changes its state. With no event, the timeline does not show it.
create or replace function nofx.step_change(
    p_run_id uuid, p_step_id uuid, p_from text, p_to text, p_event text, p_payload jsonb default null
) returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, p_from, p_to, p_event, p_payload, 0)::nofx.change
$$;

-- An event that changes no state: of a step, or of the run (p_step_id null).
create or replace function nofx.fact(p_run_id uuid, p_step_id uuid, p_event text, p_payload jsonb default null)
    returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, null, null, p_event, p_payload, 0)::nofx.change
$$;

-- A gate becomes pending (p_pending 1) or is no longer pending (-1). Only gates of the run itself are counted in its row.
create or replace function nofx.gate_change(
    p_run_id uuid, p_step_id uuid, p_event text, p_payload jsonb, p_pending integer
) returns nofx.change
    language sql immutable
as $$
    select row(p_run_id, p_step_id, null, null, p_event, p_payload,
               case when p_step_id is null then p_pending else 0 end)::nofx.change
$$;

-- The field of a gate's event that says what the gate is about. Nothing without a subject.
create or replace function nofx.subject_of(p_subject jsonb) returns jsonb
    language sql immutable
as $$
    select case when p_subject is null then '{}' else jsonb_build_object('subject', p_subject) end
$$;

-- The payload of a gate's event `gate.created`.
create or replace function nofx.gate_asked(p_gate uuid, p_type text, p_rule jsonb, p_digest text) returns jsonb
    language sql immutable
as $$
    select jsonb_strip_nulls(jsonb_build_object('gate_id', p_gate, 'gate_type', p_type, 'required', p_rule -> 'required',
                                                'digest', p_digest))
$$;

-- The authors of a run with one more, who may be one of them already.
create or replace function nofx.authors_with(p_authors jsonb, p_author jsonb) returns jsonb
    language sql immutable
as $$
    select case when p_authors @> jsonb_build_array(p_author) then p_authors
                else coalesce(p_authors, '[]') || jsonb_build_array(p_author) end
$$;

-- The steps that became ready.
create or replace function nofx.made_ready(p_changes nofx.change[]) returns uuid[]
    language sql immutable
as $$
    select array(select c.step_id from unnest(p_changes) c where c.to_status = 'ready')
$$;
revoke execute on function nofx.step_change(uuid, uuid, text, text, text, jsonb), nofx.fact(uuid, uuid, text, jsonb),
    nofx.gate_change(uuid, uuid, text, jsonb, integer), nofx.subject_of(jsonb), nofx.made_ready(nofx.change[]),
    nofx.gate_asked(uuid, text, jsonb, text), nofx.authors_with(jsonb, jsonb) from public;

-- functions/children_release.sql sha256=321332c409ae07bbc292a9cd502548a876ad4f0ec731a7717343dd90b35e5fdd
-- Counts down the blockers of the children of steps that succeeded; the ones that reach zero become ready. The caller
-- holds the runs' locks: two parents that finish at once cannot lose the wake-up.
--
-- p_next: {call, handler, lease_s, timeout_s, refs_bytes, terms} of an invocation that can continue. As many children as p_parents has steps
-- start at once, in id order, if they are of that handler, their timeout is at most timeout_s, and they need no approval; not in the runs p_failing.
create or replace function nofx.children_release(
    p_parents uuid[], p_next jsonb, p_failing uuid[], p_now timestamptz
) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
    v_started nofx.change[];
begin
    with child as (
        select e.child_id as id, count(*)::integer as parents
          from unnest(p_parents) p(id)
         cross join lateral (select e.child_id from nofx.step_edge e where e.parent_id = p.id offset 0) e
         group by e.child_id
    ), due as (
        select c.id, c.parents, s.is_ready, s.paused_at,
               s.continues and row_number() over (partition by s.continues order by c.id) <= cardinality(p_parents) as starts
          from child c
         cross join lateral (
            select s.blockers = c.parents as is_ready, r.paused_at,
                   s.blockers = c.parents and s.handler = p_next ->> 'handler'
                   and s.timeout_s <= (p_next ->> 'timeout_s')::integer
                   and s.approval is null and nofx.lets_start(r.status) and r.id <> all (coalesce(p_failing, '{}')) as continues
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = c.id and s.status = 'pending'
            offset 0) s
    ), released as (
        update nofx.step s
           set blockers = s.blockers - d.parents,
               status = case when d.starts then 'running' when d.is_ready then 'ready' else 'pending' end,
               ready_at = case when d.is_ready then p_now end,
               notify_at = case when d.is_ready and d.starts is not true then nofx.wakeup_due(p_now, d.paused_at) end,
               notify_count = 0,
               attempt = s.attempt + coalesce(d.starts, false)::integer,
               started_at = case when d.starts then coalesce(s.started_at, p_now) else s.started_at end,
               lease_until = case when d.starts
                                  then nofx.lease_end(p_now, s.timeout_s, (p_next ->> 'lease_s')::integer) end
          from due d
         where s.id = any (array[d.id])
        returning s.tenant_id, s.run_id, s.id, s.status, s.attempt, s.lease_until
    ), started as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at, lease_until)
        select r.id, r.attempt, r.tenant_id, r.run_id, 'running', (p_next ->> 'call')::uuid, p_now, r.lease_until
          from released r
         where r.status = 'running'
    )
    select array_agg(nofx.step_change(r.run_id, r.id, 'pending', 'ready', 'step.ready') order by r.id),
           array_agg(nofx.step_change(r.run_id, r.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', r.attempt)) order by r.id)
               filter (where r.status = 'running')
      into v_changes, v_started
      from released r
     where r.status <> 'pending';
    return v_changes || v_started;
end
$$;
revoke execute on function nofx.children_release(uuid[], jsonb, uuid[], timestamptz) from public;

-- functions/gate_create.sql sha256=62fa396e1e7f73424f040d8f6784d4c42ad61f0c45aaa5c3058b2a4e7f33c998
-- Puts a gate before a step that has not started, or before the end of a run.
-- p: {caller, id, run_id, step_id, gate_type, evidence_uri, reason, expires_after_s}
-- -> {result: created|conflict|not_found, what, status}
create or replace function nofx.gate_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_step nofx.step;
    v_now timestamptz;
    v_rule jsonb;
    v_bound jsonb;
begin
    p := nofx.admitted(p, 'gates.create');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found', 'what', 'run');
    end if;
    if v_run.finished_at is not null then
        return jsonb_build_object('result', 'conflict', 'what', 'run', 'status', v_run.status);
    end if;
    -- A failing run only records its last running steps. A new gate would leave it ended with a pending gate.
    if nofx.is_failing(v_run.steps_failed, v_run.failure) then
        return jsonb_build_object('result', 'conflict', 'what', 'run', 'status', 'failing');
    end if;
    v_now := clock_timestamp();
    if p ->> 'step_id' is not null then
        select * into v_step from nofx.step s where s.id = (p ->> 'step_id')::uuid and s.run_id = v_run.id;
        if not found then
            return jsonb_build_object('result', 'not_found', 'what', 'step');
        end if;
        if v_step.status not in ('pending', 'ready') then
            return jsonb_build_object('result', 'conflict', 'what', 'step', 'status', v_step.status);
        end if;
        update nofx.step s
           set status = 'pending', blockers = s.blockers + 1, ready_at = null, notify_at = null
         where s.id = v_step.id;
    end if;

    -- A client may put a gate where it likes; who decides is the policy's.
    v_rule := nofx.approval_strictest('{}', nofx.approval_policy(v_run.tenant_id));
    v_bound := nofx.run_binding(v_run.id, v_step.id);
    insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri, reason,
                           expires_at, created_at, rule, bound, bound_digest)
    values ((p ->> 'id')::uuid, v_run.tenant_id, v_run.id, v_step.id, p ->> 'gate_type', 'pending', 'release',
            v_run.generation, p ->> 'evidence_uri', p ->> 'reason',
            nofx.approval_expiry(v_run.tenant_id, (p ->> 'expires_after_s')::integer, v_now), v_now, v_rule, v_bound,
            nofx.binding_digest(v_bound));
    perform nofx.runs_settle(array[
        nofx.gate_change(v_run.id, v_step.id, 'gate.created',
                         nofx.gate_asked((p ->> 'id')::uuid, p ->> 'gate_type', v_rule, nofx.binding_digest(v_bound)), 1),
        nofx.step_change(v_run.id, v_step.id, v_step.status, case when v_step.id is not null then 'pending' end, null)],
        v_now);
    return jsonb_build_object('result', 'created', 'status', 'pending');
end
$$;
select nofx.transition_declare('nofx.gate_create(jsonb)', 'nofx_api');

-- functions/gate_decide.sql sha256=4e168b12bd96909d8d00e981793c565a340486914abf431bd8ad515db87f8cdf
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
            v_subject = any (nofx.gate_excluded(p_gate.run_id, p_rule)), ends, p_gate.bound_digest,
            nullif(p -> 'envelope', 'null'))
        on conflict do nothing;
    return next;
end
$$;

-- p: {caller, gate_id, decision: approve|reject|waive, actor, reason, seen, envelope}. seen: the digest of what the person has seen, and of what
-- the envelope, the signed statement about the decision, is about.
-- -> {result: decided|recorded|unchanged|excluded|changed|conflict|not_found, gate: {..}, why, changed: [paths], ready: [wake-ups]}.
-- `recorded`: more approvals are needed. `unchanged`: the person's approval was recorded before. `excluded`: the person may not decide, and `why`
-- is that of nofx.gate_may_decide. `changed`: the gate is not about what the person saw; from now on it asks about what is there.
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

    v_changes := v_changes || nofx.gates_conclude(v_ended, jsonb_strip_nulls(jsonb_build_object(
        'decision', p ->> 'decision', 'actor', p ->> 'actor', 'by', p -> 'by', 'reason', p ->> 'reason',
        'is_self', case when (p -> 'who' ->> 'subject') = any (nofx.gate_excluded(v_gate.run_id, v_rule)) then true end)), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('result', case when v_gate.id = any (v_ended) then 'decided' else 'recorded' end,
                              'gate', nofx.gate_view(v_gate.id, p -> 'who'),
                              'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
revoke execute on function nofx.decision_record(nofx.gate, jsonb, jsonb, timestamptz) from public;
select nofx.transition_declare('nofx.gate_decide(jsonb)', 'nofx_api');

-- functions/gate_json.sql sha256=13c0a2ca274aeb5c3372d3cc8aa4b446768d6768749cc0af840e430cb7a27ac5
-- A gate as the API shows it, to the principal p_who.
create or replace function nofx.gate_view(p_gate uuid, p_who jsonb) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    return (
    select jsonb_build_object(
               'id', g.id, 'run_id', g.run_id, 'step_id', g.step_id, 'gate_type', g.gate_type, 'status', g.status,
               'on_pass', g.on_pass, 'generation', g.generation, 'subject', g.subject, 'evidence_uri', g.evidence_uri,
               'evidence_id', (select a.id from nofx.artifact a
                                where a.step_id = g.step_id and a.tenant_id = g.tenant_id and a.uri = g.evidence_uri
                                order by a.id limit 1),
               'reason', g.reason,
               'approved_by', g.approved_by, 'approved_at', g.approved_at, 'expires_at', g.expires_at,
               'created_at', g.created_at, 'decided_at', g.decided_at,
               'decision', (select jsonb_build_object('decision', a.decision, 'actor', a.actor, 'reason', a.reason,
                                                      'created_at', a.created_at)
                              from nofx.approval a where a.gate_id = g.id and a.decides),
               'digest', g.bound_digest, 'required', s.required, 'approved', s.approved, 'eligible', s.eligible, 'rule', s.rule, 'approvals', s.approvals,
               'may_decide', s.may_decide)
      from nofx.gate g
      left join lateral nofx.gate_stands(g, p_who) s on true
     where g.id = p_gate);
end
$$;
revoke execute on function nofx.gate_view(uuid, jsonb) from public;

-- What nofx.gate_decide of the release before calls; drop it in the next release.
create or replace function nofx.gate_json(p_gate uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$ select nofx.gate_view(p_gate, null) $$;
revoke execute on function nofx.gate_json(uuid) from public, nofx_api;

-- functions/gate_standing.sql sha256=2a25296646469dd36dfbd8166a0722c62a39b1b96dc719fe1c3b4b65b6960aac
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
       and (v_is_solo or a.subject <> all (v_excluded))
     order by a.subject, a.created_at, a.id;
end
$$;

-- Why a principal may not make a decision about a gate; null if it may. p_who: a principal as JSON, with login_at.
-- -> decided, expired, kind, role, not_named, waive, session, self, or done: they have approved already, and it counts
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
    elsif p_decision = 'waive' and p_rule ->> 'waive' is distinct from 'admins' then
        return 'waive';
    elsif p_decision <> 'waive' and not nofx.approval_names(p_rule, v_member) then
        return 'not_named';
    end if;
    if v_age_s is not null and not v_is_solo then
        v_login := coalesce((select t.created_at from nofx.api_token t where t.id = (p_who ->> 'token_id')::uuid),
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
    nofx.gate_may_decide(nofx.gate, jsonb, jsonb, text), nofx.gate_stands(nofx.gate, jsonb), nofx.gate_standing(uuid), nofx.gate_is_mine(uuid), nofx.reader() from public;
grant execute on function nofx.gate_standing(uuid), nofx.gate_is_mine(uuid) to nofx_api;

-- functions/limits.sql sha256=c72bce4c3a0b41f600dbbabe8bc5f5a7055726b93a296f9ed2642004c03492bb
-- Numbers and rules that several transitions share. Inlined like those of change.sql.

-- Workers that a step may lose in one generation before it fails as `worker_lost`.
create or replace function nofx.max_workers_lost() returns integer
    language sql immutable
as $$ select 3 $$;

-- Wake-ups that a ready step gets before it fails as `undeliverable`.
create or replace function nofx.max_wakeups() returns integer
    language sql immutable
as $$ select 20 $$;

-- The end of the lease of an attempt that starts now: its timeout or the rest of the invocation, whichever is shorter, plus 5 s in which the
-- worker records the end.
create or replace function nofx.lease_end(p_now timestamptz, p_timeout_s integer, p_invocation_s integer) returns timestamptz
    language sql stable
as $$ select p_now + make_interval(secs => least(p_timeout_s, p_invocation_s) + 5) $$;

-- When the sweeper owes a ready step a wake-up: one minute after the wake-up that its transition sends, never while its run is paused.
create or replace function nofx.wakeup_due(p_ready_at timestamptz, p_paused_at timestamptz) returns timestamptz
    language sql stable
as $$ select case when p_paused_at is null then p_ready_at + interval '1 minute' else 'infinity' end $$;

-- Whether a run is failing: one of its steps has failed, or the run itself. Nothing starts or waits in it any more.
create or replace function nofx.is_failing(p_steps_failed integer, p_failure jsonb) returns boolean
    language sql immutable
as $$ select p_steps_failed > 0 or p_failure is not null $$;

-- The type of the gate at which people approve a step of this tool.
create or replace function nofx.approval_type(p_tool text) returns text
    language sql immutable
as $$ select left('approval:' || p_tool, 100) $$;

-- Whether the run's state lets steps start.
create or replace function nofx.lets_start(p_run_status text) returns boolean
    language sql immutable
as $$ select p_run_status in ('queued', 'running', 'blocked') $$;

revoke execute on function nofx.max_workers_lost(), nofx.max_wakeups(), nofx.lease_end(timestamptz, integer, integer),
    nofx.wakeup_due(timestamptz, timestamptz), nofx.is_failing(integer, jsonb), nofx.approval_type(text), nofx.lets_start(text) from public;

-- functions/read.sql sha256=8fbee7b487aeb524a3e6b1e3d1bb8c83a3448fefa83f2d449acf7d13ca6f925c
-- Runs a query of the API for a caller: admits the caller, and then reads under row level security with its tenant's claims, all in one
-- statement. Role and claims end with the transaction. So a pooler in transaction mode needs no care, and a forgotten `where tenant_id`
-- shows nothing of another tenant.
--
-- The function runs as the login that calls it, because a function that runs as its owner cannot change the role. p_sql is text of the API, which may
-- read nothing more than the role nofx_api may. It selects (item text, n bigint), and takes its parameters from $1, a JSON array: `($1 ->> 0)::uuid`.
-- -> first a row with the principal in `who`, then the rows of p_sql.
create or replace function nofx.read(p_caller jsonb, p_permission text, p_sql text, p_args jsonb)
    returns table (who jsonb, item text, n bigint)
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p_caller, p_permission);
begin
    perform set_config('request.jwt.claims',
                       jsonb_build_object('sub', v_who.subject,
                                          'app_metadata', jsonb_build_object('tenant_id', v_who.tenant_id),
                                          'principal', nofx.principal_json(v_who)
                                                       || jsonb_build_object('login_at', p_caller -> 'login_at'))::text, true),
            set_config('role', 'nofx_api', true);
    return query select nofx.principal_json(v_who), null::text, null::bigint;
    return query execute 'select null::jsonb, q.item, q.n from (' || p_sql || ') q' using p_args;
end
$$;
revoke execute on function nofx.read(jsonb, text, text, jsonb) from public;
grant execute on function nofx.read(jsonb, text, text, jsonb) to nofx_api;

-- functions/run_create.sql sha256=df1d75ebf063ef8edaf09017858f8b105a4fca1f013c5f8decfc33e115997cf5
-- Creates a run with its steps, edges and first events. No other transaction can see the run yet, so it takes no lock and does not call
-- nofx.runs_settle: it writes each row once, and the run's with its counters.
--
-- p: {caller, id, goal, plan, plan_digest, request_digest, idempotency_key, actor, timeout_s,
--     traceparent, workspace: {archive, base, diff} (artifact ids), artifacts: [ids that inputs name], steps: [..], edges: [{parent, child}]}
-- -> {result: created, id, status, ready: [wake-ups]}. With `existing` (same key, same request) and `conflict` (same key, other request): id
-- and status of the run that has the key. With `invalid`: problems.
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

-- functions/run_retry.sql sha256=ff343731d432a883a91cc4f2933e7052b0b11e1148c768d104a927e9cd11d6c4
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

-- functions/step_binding.sql sha256=71779ba620b7405fe68b6b659549b6c0dcba0e8a5555f5b9e954653012c0ff0f
-- What a decision covers: digests of everything that a step works with. A claim computes them again, and asks again if one has changed.
-- Plan, workspace and artifacts have digests that anybody can compute. Those of inputs, outputs and rules are of the text that Postgres makes of
-- their JSON, for comparison in this database only.

create or replace function nofx.binding_digest(p_bound jsonb) returns text
    language sql immutable
    set search_path = ''
as $$
    select encode(sha256(convert_to(p_bound::text, 'UTF8')), 'hex')
$$;

-- A digest by name for each entry; of more than 200 entries, their number and one digest of all.
create or replace function nofx.binding_list(p_list jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select case when c.count <= 200 then coalesce(p_list, '{}')
                else jsonb_build_object('count', c.count, 'digest', nofx.binding_digest(p_list)) end
      from (select count(*) from jsonb_object_keys(coalesce(p_list, '{}'))) c(count)
$$;

-- Of a gate before a step that has not started, or before the end of a run: what is known then. p_step may be null.
create or replace function nofx.run_binding(p_run uuid, p_step uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_strip_nulls(jsonb_build_object(
               'v', 1, 'plan', r.plan_digest,
               'workspace', (select jsonb_object_agg(w.key, w.value -> 'hash') from jsonb_each(r.workspace) w),
               'step', s.name, 'inputs', nofx.binding_digest(s.inputs),
               'rule', (select nofx.binding_digest(to_jsonb(l) - 'id' - 'created_at' - 'updated_at')
                          from nofx.db_write_rule l
                         where s.handler = 'db_write' and l.tenant_id = r.tenant_id and l.table_name = s.inputs ->> 'table')))
      from nofx.run r
      left join nofx.step s on s.id = p_step
     where r.id = p_run
$$;

-- Of a step whose parents have succeeded: also the outputs and artifacts of every step upstream, and what its gate shows.
create or replace function nofx.step_binding(p_step uuid, p_subject jsonb, p_evidence_uri text) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_step nofx.step;
    v_upstream jsonb;
begin
    select * into v_step from nofx.step s where s.id = p_step;
    with recursive above(id) as (
        select e.parent_id from nofx.step_edge e where e.child_id = p_step
        union
        select e.parent_id from above a join nofx.step_edge e on e.child_id = any (array[a.id])
    )
    select jsonb_object_agg(u.name, jsonb_build_object(
               'outputs', nofx.binding_digest(u.outputs),
               'artifacts', nofx.binding_list((
                   select jsonb_object_agg(f.name, f.hashes)
                     from (select a.name, string_agg(a.hash, ' ' order by a.hash) as hashes
                             from nofx.artifact a
                            where a.step_id = u.id and a.attempt = u.attempt
                            group by a.name) f))))
      into v_upstream
      from above b
      join nofx.step u on u.id = any (array[b.id]);
    return nofx.run_binding(v_step.run_id, p_step)
        || jsonb_strip_nulls(jsonb_build_object(
               'upstream', nofx.binding_list(v_upstream), 'subject', p_subject,
               'evidence', (select a.hash from nofx.artifact a
                             where a.step_id = p_step and a.uri = p_evidence_uri
                             order by a.id limit 1)));
end
$$;

-- Of a gate, now.
create or replace function nofx.gate_binding(p_gate nofx.gate) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select case when p_gate.on_pass = 'release' then nofx.run_binding(p_gate.run_id, p_gate.step_id)
                else nofx.step_binding(p_gate.step_id, p_gate.subject, p_gate.evidence_uri) end
$$;

-- The paths at which two bindings differ, at most 20.
create or replace function nofx.binding_changes(p_old jsonb, p_new jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    with recursive differs(path, old, new) as (
        select '', p_old, p_new where p_old is distinct from p_new
        union all
        select d.path || case when d.path = '' then '' else '.' end || k.key, d.old -> k.key, d.new -> k.key
          from differs d
         cross join lateral (select jsonb_object_keys(d.old) union select jsonb_object_keys(d.new)) k(key)
         where jsonb_typeof(d.old) = 'object' and jsonb_typeof(d.new) = 'object' and d.old -> k.key is distinct from d.new -> k.key
    )
    select coalesce(jsonb_agg(l.path), '[]')
      from (select d.path from differs d
             where not coalesce(jsonb_typeof(d.old) = 'object' and jsonb_typeof(d.new) = 'object', false)
             order by d.path limit 20) l
$$;
revoke execute on function nofx.binding_digest(jsonb), nofx.binding_list(jsonb), nofx.run_binding(uuid, uuid),
    nofx.step_binding(uuid, jsonb, text), nofx.gate_binding(nofx.gate), nofx.binding_changes(jsonb, jsonb) from public;

-- functions/step_facts_insert.sql sha256=2add3f04651bd3f1e05c9e61d280290e13e794055c1189bce5435d103e7d6901
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
            -- What evidence decides needs no rule.
            select nofx.approval_strictest(q.asked, nofx.approval_policy(i.tenant_id)) as rule,
                   nofx.step_binding(q.id, g.subject, g.evidence_uri) as bound,
                   p_now + make_interval(secs => nofx.approval_seconds(q.asked -> 'remind_after_s')) as remind_at
              from (select s.id, nofx.approval_asked(s) as asked from nofx.step s where s.id = i.step_id) q
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

-- functions/steps_claim.sql sha256=d923c093c44896d823626670f652ee32fd1534d0789e26f9bfc28ee981fbd5ba
-- Starts the steps that are ready (1 s of clock skew is tolerated), whose run lets steps start, and that need no approval. The caller holds the
-- runs' locks. Returns the changes, null if there are none.
create or replace function nofx.steps_start(p_items jsonb, p_call uuid, p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with started as (
        -- Matched by the whole key: a forged message in a batch cannot stand in for the true one.
        update nofx.step s
           set status = 'running',
               attempt = s.attempt + 1,
               notify_at = null,
               started_at = coalesce(s.started_at, p_now),
               lease_until = nofx.lease_end(p_now, s.timeout_s, i.lease_s)
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer)
         where s.id = any (array[i.step_id]) and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
           and s.status = 'ready' and s.ready_at <= p_now + interval '1 second' and s.approval is null
           and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id and r.tenant_id is not distinct from i.tenant_id)
        returning s.tenant_id, s.run_id, s.id, s.attempt, s.lease_until
    ), recorded as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at, lease_until)
        select s.id, s.attempt, s.tenant_id, s.run_id, 'running', p_call, p_now, s.lease_until
          from started s
    )
    select array_agg(nofx.step_change(s.run_id, s.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', s.attempt)) order by s.id)
      into v_changes
      from started s;
    return v_changes;
end
$$;

-- The same for steps that need an approval: those of p_approved, which have it.
create or replace function nofx.steps_begin(p_items jsonb, p_call uuid, p_now timestamptz, p_approved uuid[]) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with started as (
        -- Matched by the whole key: a forged message in a batch cannot stand in for the true one.
        update nofx.step s
           set status = 'running',
               attempt = s.attempt + 1,
               notify_at = null,
               started_at = coalesce(s.started_at, p_now),
               lease_until = nofx.lease_end(p_now, s.timeout_s, i.lease_s)
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer)
         where s.id = any (array[i.step_id]) and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
           and s.id = any (p_approved) and s.status = 'ready' and s.ready_at <= p_now + interval '1 second'
           and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id and r.tenant_id is not distinct from i.tenant_id)
        returning s.tenant_id, s.run_id, s.id, s.attempt, s.lease_until
    ), recorded as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at, lease_until)
        select s.id, s.attempt, s.tenant_id, s.run_id, 'running', p_call, p_now, s.lease_until
          from started s
    )
    select array_agg(nofx.step_change(s.run_id, s.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', s.attempt)) order by s.id)
      into v_changes
      from started s;
    return v_changes;
end
$$;

-- Asks for the approvals that ready steps need, and finds those that they have: a decision counts for exactly the bytes that it was made about, in
-- any generation of the run. The caller holds the runs' locks. -> the steps that may start, and the changes
create or replace function nofx.steps_ask(p_items jsonb, p_now timestamptz, out approved uuid[], out changes nofx.change[])
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_step nofx.step;
    v_generation integer;
    v_bound jsonb;
    v_digest text;
    v_rule jsonb;
    v_asked jsonb;
    v_gate nofx.gate;
    v_id uuid;
begin
    approved := '{}';
    changes := '{}';
    for v_step in
        -- A batch may name a step twice.
        select distinct on (s.id) s.*
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid)
         cross join lateral (
            select s.*
              from nofx.step s
             where s.id = i.step_id and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
               and s.status = 'ready' and s.ready_at <= p_now + interval '1 second' and s.approval is not null
               and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id)
            offset 0) s
         order by s.id
    loop
        v_generation := (select r.generation from nofx.run r where r.id = v_step.run_id);
        v_bound := nofx.step_binding(v_step.id, null, null);
        v_digest := nofx.binding_digest(v_bound);
        v_id := null;
        -- All decisions of the step that stand. At most one of them is about these bytes.
        for v_gate in
            select g.* from nofx.gate g
             where g.step_id = v_step.id and g.gate_type = nofx.approval_type(v_step.tool) and g.on_pass = 'resume'
               and g.status in ('passed', 'waived') and g.voided_at is null
             order by g.decided_at, g.id
        loop
            if v_gate.bound_digest is not distinct from v_digest then
                v_id := v_gate.id;
                -- Once for each generation.
                if v_gate.generation < v_generation and v_step.failures = 0 and v_step.workers_lost = 0 then
                    changes := changes || nofx.fact(v_step.run_id, v_step.id, 'gate.kept',
                        jsonb_build_object('gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'digest', v_digest));
                end if;
            else
                update nofx.gate g set voided_at = p_now where g.id = v_gate.id;
                changes := changes || nofx.fact(v_step.run_id, v_step.id, 'gate.voided', jsonb_build_object(
                    'gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'changed', nofx.binding_changes(v_gate.bound, v_bound),
                    'digest', v_digest));
            end if;
        end loop;
        if v_id is not null then
            approved := approved || v_step.id;
            continue;
        end if;

        v_asked := nofx.approval_asked(v_step);
        v_rule := nofx.approval_strictest(v_asked, nofx.approval_policy(v_step.tenant_id));
        v_id := gen_random_uuid();
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason, created_at, expires_at,
                               rule, bound, bound_digest, remind_at)
        values (v_id, v_step.tenant_id, v_step.run_id, v_step.id, nofx.approval_type(v_step.tool), 'pending', 'resume', v_generation,
                v_asked ->> 'reason', p_now,
                nofx.approval_expiry(v_step.tenant_id, nofx.approval_seconds(v_asked -> 'expires_after_s'), p_now), v_rule, v_bound, v_digest,
                p_now + make_interval(secs => nofx.approval_seconds(v_asked -> 'remind_after_s')));
        update nofx.step s set status = 'blocked', notify_at = null, notify_count = 0 where s.id = v_step.id;
        changes := changes
            || nofx.step_change(v_step.run_id, v_step.id, 'ready', 'blocked', 'step.blocked')
            || nofx.gate_change(v_step.run_id, v_step.id, 'gate.created',
                   nofx.gate_asked(v_id, nofx.approval_type(v_step.tool), v_rule, v_digest)
                   || case when v_asked ->> 'reason' is null then '{}' else jsonb_build_object('reason', v_asked ->> 'reason') end, 1);
    end loop;
end
$$;

-- Claims steps of a batch. p_items: [{tenant_id, run_id, step_id, lease_s, refs_bytes, terms}]; lease_s is what is left of the invocation,
-- refs_bytes the largest size of the values that a step refers to, terms whether the worker needs the terms of its steps (those of the first item
-- count). A step can be claimed if it is ready and has the approval that it needs, or if its attempt's lease is over; never in a
-- paused or ended run, never across tenants. A retry with the same p_call, after a lost answer, receives what the first call claimed.
-- -> {claimed: [..], skipped: [{step_id, status}]}
create or replace function nofx.steps_claim(p_items jsonb, p_call uuid default null) returns json
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz;
    v_refs_bytes integer := p_items -> 0 ->> 'refs_bytes';
    v_terms boolean := p_items -> 0 ->> 'terms';
    v_changes nofx.change[];
    v_started nofx.change[];
    v_lost uuid[];
    v_won uuid[];
    v_ask record;
begin
    perform nofx.runs_lock(array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i));
    v_now := clock_timestamp();
    v_started := nofx.steps_start(p_items, p_call, v_now);
    if v_started is not null then
        perform nofx.runs_settle(v_started, v_now);
    end if;
    if cardinality(v_started) = jsonb_array_length(p_items) then
        return json_build_object(
            'claimed', nofx.claims_json(array(select c.step_id from unnest(v_started) c), v_refs_bytes, v_terms), 'skipped', '[]'::jsonb);
    end if;

    -- Ended leases make steps ready. Settled first, so that the next claim starts from true counters.
    v_lost := array(
        select s.id
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid)
         cross join lateral (
            select s.id
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = i.step_id and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
               and s.status = 'running' and s.lease_until < v_now and r.paused_at is null
            offset 0) s);
    if v_lost <> '{}' then
        perform nofx.runs_settle(nofx.leases_end(v_lost, v_now), v_now);
        v_changes := nofx.steps_start(p_items, p_call, v_now);
        if v_changes is not null then
            perform nofx.runs_settle(v_changes, v_now);
        end if;
    end if;
    select * into v_ask from nofx.steps_ask(p_items, v_now);
    if v_ask.approved <> '{}' then
        v_ask.changes := v_ask.changes || nofx.steps_begin(p_items, p_call, v_now, v_ask.approved);
    end if;
    if v_ask.changes <> '{}' then
        perform nofx.runs_settle(v_ask.changes, v_now);
    end if;
    v_won := array(
        select c.step_id from unnest(v_started || v_changes) c
        union
        select unnest(v_ask.approved)
        union
        -- What an earlier try of this call has claimed.
        select a.step_id
          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
          join nofx.attempt a on a.step_id = i.step_id and a.tenant_id = i.tenant_id
         where a.claimed_by = p_call and a.status = 'running');
    return json_build_object(
        'claimed', nofx.claims_json(v_won, v_refs_bytes, v_terms),
        'skipped', coalesce((
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown')))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
             where i.step_id <> all (v_won)), '[]'));
end
$$;
select nofx.transition_declare('nofx.steps_claim(jsonb, uuid)', 'nofx_worker');
revoke execute on function nofx.steps_start(jsonb, uuid, timestamptz), nofx.steps_begin(jsonb, uuid, timestamptz, uuid[]),
    nofx.steps_ask(jsonb, timestamptz) from public;

-- functions/sweep_gates.sql sha256=326b155ac09a8f38d4e665d772c2d4f0d3f07adc8cbac0de40e709423330399b
-- Reminds of gates that still wait, once each. The caller has locked the runs p_runs. Returns the events, null if there are none.
create or replace function nofx.gates_remind(p_runs uuid[], p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with reminded as (
        update nofx.gate g set remind_at = null, reminded_at = p_now
         where g.run_id = any (p_runs) and g.status = 'pending' and g.remind_at <= p_now
           and (g.expires_at is null or g.expires_at >= p_now)
        returning g.run_id, g.step_id, g.id, g.gate_type, g.expires_at
    )
    select array_agg(nofx.fact(r.run_id, r.step_id, 'gate.reminder', jsonb_strip_nulls(jsonb_build_object(
               'gate_id', r.id, 'gate_type', r.gate_type, 'expires_at', r.expires_at))) order by r.id)
      into v_changes
      from reminded r;
    return v_changes;
end
$$;
revoke execute on function nofx.gates_remind(uuid[], timestamptz) from public;

-- Expires gates that nobody decided in time, and reminds of those that asked for it. -> {done: the expired ones, ready: [wake-ups]}
create or replace function nofx.sweep_gates(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_due uuid[];
    v_gates uuid[];
    v_runs uuid[];
    v_reminders nofx.change[];
    v_changes nofx.change[];
begin
    v_due := array(select g.id from nofx.gate g
                    where g.status = 'pending' and g.expires_at < v_now
                    order by g.expires_at limit p_limit)
             || array(select g.id from nofx.gate g
                       where g.status = 'pending' and g.remind_at <= v_now
                       order by g.remind_at limit p_limit);
    select array_agg(distinct g.run_id) into v_runs from nofx.gate g where g.id = any (v_due);
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    with expired as (
        update nofx.gate g set status = 'expired', decided_at = v_now
         where g.id = any (v_due) and g.run_id = any (v_runs) and g.status = 'pending' and g.expires_at < v_now
        returning g.id
    )
    select array_agg(e.id) into v_gates from expired e;
    v_reminders := nofx.gates_remind(v_runs, v_now);
    v_changes := case when v_gates is not null then nofx.gates_conclude(v_gates, '{}', v_now) end;
    perform nofx.runs_settle(v_reminders || v_changes, v_now);
    return jsonb_build_object('done', coalesce(cardinality(v_gates), 0), 'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.sweep_declare('nofx.sweep_gates(integer)');
