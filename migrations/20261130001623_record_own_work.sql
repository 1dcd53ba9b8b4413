-- Decides nothing unsigned in the database itself, records decisions about one's own work whatever the policy allows, lets a member own the token that they use, and bounds the gates of a run.

-- Copies of the files in functions/. Change those files, not this one.

-- functions/caller_admit.sql sha256=dbebbbaa816a230d9ff8fa28e95ea8b23ea6430225f925257ce7b7f8b916dfce
-- Admits a caller: confirms what a request proves about its sender, in the statement that does the request's work. So a revoked token and
-- a removed member count at once, and no request pays a round trip for it.

-- The principal as JSON, for the API and for records.
create or replace function nofx.principal_json(p nofx.principal) returns jsonb
    language sql immutable
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
        -- A program may do no more than the person who answers for it may now.
        select * into v_member
          from nofx.membership m
         where m.tenant_id = v_tenant.tenant_id and m.subject = v_token.owner and m.removed_at is null;
        if not found then
            raise exception 'unauthenticated' using errcode = 'NF401';
        end if;
        v_who := row(v_tenant.tenant_id, v_token.subject, v_token.name, v_token.kind,
                     case when nofx.role_rank(v_member.role) < nofx.role_rank(v_token.role) then v_member.role else v_token.role end,
                     v_token.id, v_token.owner, v_tenant.is_solo)::nofx.principal;
    end if;
    if not nofx.permits(p_permission, v_who.role, v_who.kind)
       or not coalesce(v_token.scopes is null or p_permission = any (v_token.scopes), false) then
        raise exception 'forbidden' using errcode = 'NF403', detail = coalesce(p_permission, '');
    end if;

    -- An admin can still log in and revoke the token that sends too many requests.
    if v_tenant.limits ? 'requests_per_minute'
       and not (v_who.kind = 'person' and v_who.role = 'admin' and nofx.is_of_access(p_permission)) then
        perform nofx.limits_admit_request(v_tenant.tenant_id, p ->> 'request_id', (v_tenant.limits ->> 'requests_per_minute')::bigint);
    end if;

    -- At most one write in five minutes, which never waits for another request of the same token. Not before a change of members or tokens, which
    -- locks a member first and then tokens.
    if v_token.id is not null and not nofx.is_of_access(p_permission) and coalesce(v_token.last_used_at < clock_timestamp() - interval '5 minutes', true) then
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

-- An entry of `authors` of a run: the principal of p_call, as nofx.admitted gives it, and what it did: started, retried, uploaded, or made, if its run made a file that another run names.
create or replace function nofx.author_of(p_call jsonb, p_did text) returns jsonb
    language sql immutable
as $$
    select jsonb_build_object('did', p_did, 'kind', p_call -> 'who' -> 'kind', 'subject', p_call -> 'who' -> 'subject',
                              'owner', p_call -> 'who' -> 'owner')
$$;
revoke execute on function nofx.author_of(jsonb, text) from public;

-- functions/gate_create.sql sha256=4197c797fc50f7439a2136b4b44168f30a948579dfcb002a5a354f1d05c43c8a
-- Puts a gate before a step that has not started, or before the end of a run.
-- p: {caller, id, run_id, step_id, gate_type, evidence_uri, reason, expires_after_s}
-- -> {result: created|conflict|not_found, what, status} | {result: full, maximum}
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
    if (select count(*) from nofx.gate g
         where g.run_id = v_run.id and g.status = 'pending' and g.on_pass = 'release') >= nofx.max_gates() then
        return jsonb_build_object('result', 'full', 'maximum', nofx.max_gates());
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

    -- A client chooses where the gate is. The policy alone says who decides it.
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

-- functions/gate_decide.sql sha256=cbda1b1a5169de14a2e2639ac1d728703a74f4b1a750306f2cf33219e7f99cc6
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

-- functions/gate_standing.sql sha256=4b5a8b9ecf9ad99037a88ea6f62139ab891f583cb3ec54c82700736fde44e0c1
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

-- functions/limits.sql sha256=1b18f5412704b1ee53c4f91697788debab998ed6f78ed193f5cd18a5cec69ed5
-- Numbers and rules that several transitions share. Inlined like those of change.sql.

-- Workers that a step may lose in one generation before it fails as `worker_lost`.
create or replace function nofx.max_workers_lost() returns integer
    language sql immutable
as $$ select 3 $$;

-- Wake-ups that a ready step gets before it fails as `undeliverable`.
create or replace function nofx.max_wakeups() returns integer
    language sql immutable
as $$ select 20 $$;

-- Gates of clients that may wait in a run at once.
create or replace function nofx.max_gates() returns integer
    language sql immutable
as $$ select 100 $$;

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

revoke execute on function nofx.max_workers_lost(), nofx.max_wakeups(), nofx.max_gates(), nofx.lease_end(timestamptz, integer, integer),
    nofx.wakeup_due(timestamptz, timestamptz), nofx.is_failing(integer, jsonb), nofx.approval_type(text), nofx.lets_start(text) from public;

-- functions/tokens.sql sha256=3d382daac1cf8d4bd2d8bdb698e888f86425381bce57ed5189ea0ef0d1165bb3
-- API tokens of agents and services. Only people who are admins create and revoke them. The database never gets a secret, only its sha256.

-- Creates a token. p.owner, the subject or the e-mail address of a member, owns it, else its creator; it is revoked when its owner is removed. Its
-- name in records is its subject, so that it cannot look like a person. Every token has the permission account.read.
-- p: {caller, id, kind, name, role, owner, scopes, secret_sha256, expires_in_s}; scopes are permissions, or null for all of the role.
-- -> {result: created, expires_at} | {result: role_above} (the creator's) | {result: owner_unknown} | {result: role_above_owner}
--  | {result: scope_outside, scopes}. Safe to repeat.
create or replace function nofx.token_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'tokens.write');
    v_now timestamptz := clock_timestamp();
    v_subject text := (p ->> 'kind') || ':' || (p ->> 'name');
    v_scopes text[] := case when jsonb_typeof(p -> 'scopes') = 'array' then array(select jsonb_array_elements_text(p -> 'scopes')) end;
    v_owner nofx.membership;
    v_outside text[];
    v_expires_at timestamptz;
begin
    if coalesce(p ->> 'kind', '') not in ('agent', 'service') then
        raise exception 'a token is of an agent or a service' using errcode = 'check_violation';
    end if;
    if not coalesce(nofx.role_rank(p ->> 'role') <= nofx.role_rank(v_who.role), false) then
        return jsonb_build_object('result', 'role_above');
    end if;
    v_outside := array(select s from unnest(v_scopes) s where not nofx.permits(s, p ->> 'role', p ->> 'kind'));
    if v_outside <> '{}' then
        return jsonb_build_object('result', 'scope_outside', 'scopes', to_jsonb(v_outside));
    end if;
    v_scopes := array(select distinct s from unnest(v_scopes || array['account.read']) s order by s);
    perform nofx.member_lock(v_who);
    -- Locked like its creator: a member who is removed concurrently gets no token that outlives the membership.
    select * into v_owner
      from nofx.membership m
     where m.tenant_id = v_who.tenant_id and m.removed_at is null
       and case when p ->> 'owner' is null then m.subject = v_who.subject
                else m.subject = p ->> 'owner' or lower(m.email) = lower(p ->> 'owner') end
     order by m.subject = p ->> 'owner' desc
     limit 1
       for share;
    if not found then
        return jsonb_build_object('result', 'owner_unknown');
    end if;
    if nofx.role_rank(p ->> 'role') > nofx.role_rank(v_owner.role) then
        return jsonb_build_object('result', 'role_above_owner');
    end if;
    insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, role, scopes, secret_sha256, created_at, expires_at)
    values ((p ->> 'id')::uuid, v_who.tenant_id, p ->> 'kind', v_subject, v_owner.subject, v_subject, p ->> 'role',
            case when jsonb_typeof(p -> 'scopes') = 'array' then v_scopes end, decode(p ->> 'secret_sha256', 'hex'), v_now,
            v_now + make_interval(secs => (p ->> 'expires_in_s')::integer))
        on conflict (id) do nothing;
    select t.expires_at into strict v_expires_at
      from nofx.api_token t
     where t.id = (p ->> 'id')::uuid and t.tenant_id = v_who.tenant_id and t.secret_sha256 = decode(p ->> 'secret_sha256', 'hex');
    return jsonb_build_object('result', 'created', 'expires_at', v_expires_at);
end
$$;
select nofx.transition_declare('nofx.token_create(jsonb)', 'nofx_api');

-- Revokes a token or a session, permanently. The next statement of a request with it is refused.
-- p: {caller, id} -> {result: revoked|unchanged|not_found}
create or replace function nofx.token_revoke(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'tokens.write');
begin
    update nofx.api_token t
       set revoked_at = clock_timestamp(), revoked_by = v_who.name
     where t.tenant_id = v_who.tenant_id and t.id = (p ->> 'id')::uuid and t.revoked_at is null;
    if found then
        return jsonb_build_object('result', 'revoked');
    end if;
    return jsonb_build_object('result', case
        when exists (select from nofx.api_token t where t.tenant_id = v_who.tenant_id and t.id = (p ->> 'id')::uuid) then 'unchanged'
        else 'not_found' end);
end
$$;
select nofx.transition_declare('nofx.token_revoke(jsonb)', 'nofx_api');

-- Tokens of agents and services, or with sessions those of people, newest first, after the one with the id p.after.
-- p: {caller, sessions, after, limit} -> {rows, more, known}; known is false if there is no token p.after.
create or replace function nofx.token_list(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'tokens.read');
    v_limit integer := p ->> 'limit';
    v_after nofx.api_token;
    v_rows jsonb[];
begin
    select * into v_after from nofx.api_token t where t.tenant_id = v_who.tenant_id and t.id = (p ->> 'after')::uuid;
    v_rows := array(
        select jsonb_build_object(
                   'id', t.id, 'kind', t.kind, 'name', t.name, 'subject', t.subject, 'owner', t.owner, 'role', t.role, 'scopes', t.scopes,
                   'created_at', t.created_at, 'expires_at', t.expires_at, 'revoked_at', t.revoked_at, 'revoked_by', t.revoked_by,
                   'last_used_at', t.last_used_at, 'last_used_ip', host(t.last_used_ip),
                   'live', t.revoked_at is null and t.expires_at > clock_timestamp())
          from nofx.api_token t
         where t.tenant_id = v_who.tenant_id and (t.kind = 'person') = (p ->> 'sessions')::boolean
           and (v_after.id is null or (t.created_at, t.id) < (v_after.created_at, v_after.id))
         order by t.created_at desc, t.id desc
         limit v_limit + 1);
    return nofx.rows_page(v_rows, v_limit) || jsonb_build_object('known', v_after.id is not null or p ->> 'after' is null);
end
$$;
select nofx.transition_declare('nofx.token_list(jsonb)', 'nofx_api');
