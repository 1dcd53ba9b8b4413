-- Asks again for what would not count today: waivers, gates before steps, links from before a removal; and admits a caller with less work.

-- Copies of the files in functions/. Change those files, not this one.

-- functions/caller_admit.sql sha256=fb83a50402b75aedaef7181f3860dd42b9297fc6cd2f771a81e29141e5686073
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

    -- People can still revoke the token that sends too many requests.
    if v_tenant.limits ? 'requests_per_minute' and not (v_who.kind = 'person' and nofx.is_of_access(p_permission)) then
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

-- functions/gate_link.sql sha256=c53787e005cfc0e666e6fa92345da9fa631eb787bc18d2ea4154ed2d8d37460b
-- One-time links to gates, for mail and chat. A link is for one member, and about what the gate asked when it was made. It decides nothing and
-- widens nothing: its person logs in, and nofx.gate_decide checks the rule of the gate as for any other decision. The database never has the
-- secret. Links of a gate change only under the lock of its run.

-- Makes a link. p: {caller, id, gate_id, for, secret_sha256, expires_in_s}. `for` is the subject of a member, or an e-mail address.
-- -> {result: created, for, subject, digest, expires_at} | {result: not_found} | {result: conflict, gate} | {result: nobody, several}
--    | {result: excluded, why} | {result: unbound} | {result: too_many, most}
-- `nobody`: no member is named so, or several are. `excluded`: the member may not approve the gate, and `why` is that of nofx.gate_may_decide.
-- `unbound`: the gate is of an earlier release, and has no digest. A link never lasts longer than its gate.
create or replace function nofx.link_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    k_open constant integer := 100;
    v_gate nofx.gate;
    v_member nofx.membership;
    v_now timestamptz;
    v_why text;
    v_named text[];
    v_expires_at timestamptz;
begin
    p := nofx.admitted(p, 'gates.link');
    perform 1 from nofx.run r
      where r.id = (select g.run_id from nofx.gate g
                     where g.id = (p ->> 'gate_id')::uuid and g.tenant_id = p ->> 'tenant_id')
        for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    v_now := clock_timestamp();
    select * into strict v_gate from nofx.gate g where g.id = (p ->> 'gate_id')::uuid;
    if v_gate.status <> 'pending' or v_gate.expires_at <= v_now then
        return jsonb_build_object('result', 'conflict', 'gate', nofx.gate_view(v_gate.id, p -> 'who'));
    elsif v_gate.bound_digest is null then
        return jsonb_build_object('result', 'unbound');
    end if;

    -- A subject names one member. An address may be that of several.
    v_named := array(select m.subject from nofx.membership m
                      where m.tenant_id = v_gate.tenant_id and m.subject = p ->> 'for' and m.removed_at is null);
    if v_named = '{}' then
        v_named := array(select m.subject from nofx.membership m
                          where m.tenant_id = v_gate.tenant_id and lower(m.email) = lower(p ->> 'for') and m.removed_at is null limit 2);
    end if;
    if cardinality(v_named) <> 1 then
        return jsonb_build_object('result', 'nobody', 'several', cardinality(v_named) > 1);
    end if;
    select * into strict v_member from nofx.membership m where m.tenant_id = v_gate.tenant_id and m.subject = v_named[1];
    -- As if they had just logged in: how old their session may be counts when they decide.
    v_why := nofx.gate_may_decide(v_gate, nofx.gate_rule(v_gate), jsonb_build_object(
        'tenant', v_gate.tenant_id, 'subject', v_member.subject, 'kind', 'person', 'solo', p -> 'who' -> 'solo', 'login_at', v_now), 'approve');
    if v_why is not null then
        return jsonb_build_object('result', 'excluded', 'why', v_why);
    end if;
    if (select count(*) from nofx.gate_link l where l.gate_id = v_gate.id and l.used_at is null and l.expires_at > v_now) >= k_open then
        return jsonb_build_object('result', 'too_many', 'most', k_open);
    end if;

    v_expires_at := least(v_now + make_interval(secs => (p ->> 'expires_in_s')::integer), v_gate.expires_at);
    insert into nofx.gate_link (id, tenant_id, run_id, gate_id, subject, bound_digest, secret_sha256, created_by, created_at, expires_at)
    values ((p ->> 'id')::uuid, v_gate.tenant_id, v_gate.run_id, v_gate.id, v_member.subject, v_gate.bound_digest,
            decode(p ->> 'secret_sha256', 'hex'), p ->> 'actor', v_now, v_expires_at);
    perform nofx.runs_settle(array[nofx.fact(v_gate.run_id, v_gate.step_id, 'gate.linked', jsonb_build_object(
        'gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'link_id', p -> 'id', 'for', v_member.name, 'expires_at', v_expires_at,
        'actor', p -> 'actor', 'by', p -> 'by'))], v_now);
    return jsonb_build_object('result', 'created', 'for', v_member.name, 'subject', v_member.subject, 'digest', v_gate.bound_digest,
                              'expires_at', v_expires_at);
end
$$;
select nofx.transition_declare('nofx.link_create(jsonb)', 'nofx_api');

-- The link with the id and the hash of the secret in p_link, in a tenant. No row for a link of another tenant, and for another secret.
create or replace function nofx.link_find(p_tenant text, p_link jsonb) returns nofx.gate_link
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select l
      from nofx.gate_link l
     where l.id = (p_link ->> 'id')::uuid and l.tenant_id = p_tenant and l.secret_sha256 = decode(p_link ->> 'secret_sha256', 'hex')
$$;

-- Why somebody cannot use a link to a gate now; null if they can. p_who: a principal as JSON.
-- -> unknown, other (it is for somebody else), used, expired, changed (the gate asks about something else than when it was made)
create or replace function nofx.link_why_not(p_link nofx.gate_link, p_gate nofx.gate, p_who jsonb) returns text
    language sql stable
    set search_path = ''
as $$
    select case
        when p_link.id is null or p_gate.id is null or p_link.gate_id <> p_gate.id then 'unknown'
        when p_who ->> 'kind' is distinct from 'person' or p_link.tenant_id is distinct from p_who ->> 'tenant'
             or p_link.subject is distinct from p_who ->> 'subject'
             -- Who left and came back uses no link from before.
             or p_link.created_at < (select m.joined_at from nofx.membership m
                                      where m.tenant_id = p_link.tenant_id and m.subject = p_link.subject) then 'other'
        when p_link.used_at is not null then 'used'
        when p_link.expires_at <= pg_catalog.clock_timestamp() then 'expired'
        when p_gate.status = 'pending' and p_link.bound_digest is distinct from p_gate.bound_digest then 'changed'
    end
$$;

-- Uses the link that a decision names, right before nofx.gate_decide records it. p: that of nofx.gate_decide, admitted.
-- -> why it cannot be used, and then it stays as it is. Null if it is used up now, and if p names no link.
create or replace function nofx.link_use(p_gate nofx.gate, p jsonb, p_now timestamptz) returns text
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_link nofx.gate_link;
    v_why text;
begin
    if coalesce(p -> 'link', 'null') = 'null' then
        return null;
    end if;
    v_link := nofx.link_find(p ->> 'tenant_id', p -> 'link');
    v_why := nofx.link_why_not(v_link, p_gate, p -> 'who');
    if v_why is null then
        update nofx.gate_link l set used_at = p_now where l.id = v_link.id;
    end if;
    return v_why;
end
$$;

-- What somebody who opens a link, or decides with it, may know. Changes nothing. p: {caller, link: {id, secret_sha256}, decides}
-- -> {result: not_found} | {result: other} | {result: open|used|expired|changed, gate_id, for, expires_at, used_at, changed: [paths]}
-- `other`: it is for somebody else. A link of a gate that does not wait any more is open: the page of its gate says what became of it.
create or replace function nofx.link_open(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_link nofx.gate_link;
    v_gate nofx.gate;
    v_why text;
    v_changed jsonb := '[]';
begin
    p := nofx.admitted(p, case when (p ->> 'decides')::boolean then 'gates.decide' else 'runs.read' end);
    v_link := nofx.link_find(p ->> 'tenant_id', p -> 'link');
    select * into v_gate from nofx.gate g where g.id = v_link.gate_id;
    v_why := nofx.link_why_not(v_link, v_gate, p -> 'who');
    if v_why = 'unknown' then
        return jsonb_build_object('result', 'not_found');
    elsif v_why = 'other' then
        return jsonb_build_object('result', 'other');
    end if;
    if v_gate.status = 'pending' and coalesce(v_why, 'changed') = 'changed' then
        -- What has changed and was noticed since, and what the next decision will notice.
        select coalesce(jsonb_agg(distinct c.path), '[]')
          into v_changed
          from (select jsonb_array_elements(e.payload -> 'changed')
                  from nofx.event e
                 where e.run_id = v_gate.run_id and e.type = 'gate.voided' and e.timestamp >= v_link.created_at
                   and e.payload ->> 'gate_id' = v_gate.id::text
                union all
                select jsonb_array_elements(nofx.binding_changes(v_gate.bound, nofx.gate_binding(v_gate)))) c(path);
        v_why := case when v_changed <> '[]' then 'changed' else v_why end;
    end if;
    return jsonb_build_object(
        'result', coalesce(v_why, 'open'), 'gate_id', v_gate.id, 'expires_at', v_link.expires_at, 'used_at', v_link.used_at, 'changed', v_changed,
        'for', (select m.name from nofx.membership m where m.tenant_id = v_link.tenant_id and m.subject = v_link.subject));
end
$$;
select nofx.transition_declare('nofx.link_open(jsonb)', 'nofx_api');
revoke execute on function nofx.link_find(text, jsonb), nofx.link_why_not(nofx.gate_link, nofx.gate, jsonb),
    nofx.link_use(nofx.gate, jsonb, timestamptz) from public;

-- functions/gate_standing.sql sha256=efc8c29c8f19e1c761891d0876e612e79276ab7a2c08ce60ebc46e57191c1b36
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
begin
    if p_gate.status = 'waived' then
        return v_rule ->> 'waive' is not distinct from 'admins' and exists (
            select from nofx.approval a
              join nofx.membership m on m.tenant_id = a.tenant_id and m.subject = a.subject and m.removed_at is null
             where a.gate_id = p_gate.id and a.decision = 'waive' and nofx.permits('gates.waive', m.role, 'person')
               and a.created_at >= coalesce(m.joined_at, m.created_at) and (v_is_solo or not a.is_self or v_rule -> 'self' = 'true'));
    end if;
    return (select count(distinct a.subject)
              from nofx.approval a
              join nofx.membership m on m.tenant_id = a.tenant_id and m.subject = a.subject and m.removed_at is null
             where a.gate_id = p_gate.id and a.decision = 'approve' and a.bound_digest is not distinct from p_gate.bound_digest
               and nofx.approval_names(v_rule, m) and a.created_at >= coalesce(m.joined_at, m.created_at)
               -- As it was when they decided: a retry makes nobody an author of bytes that they approved.
               and (v_is_solo or not a.is_self or v_rule -> 'self' = 'true')) >= nofx.approval_count(v_rule -> 'required');
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

-- functions/members.sql sha256=615c5cdaa77bd2e4dd2b251c1a72b1dd179d60aad3fa5633c879333fa348d297
-- Members of a tenant: people, each with a role.

-- Locks the caller's membership until the transaction ends, so that a member who is removed concurrently gets no token that outlives the
-- membership. Raises NF403 if the member was removed meanwhile.
create or replace function nofx.member_lock(p_who nofx.principal) returns void
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    perform from nofx.membership m
      where m.tenant_id = p_who.tenant_id and m.subject = p_who.subject and m.removed_at is null
        for share;
    if not found then
        raise exception 'forbidden' using errcode = 'NF403', detail = '';
    end if;
end
$$;

-- Whether somebody else is an admin of the tenant. The caller has locked the tenant.
create or replace function nofx.has_other_admin(p_tenant text, p_subject text) returns boolean
    language sql
    set search_path = nofx, pg_temp
as $$
    select exists (select from nofx.membership m
                    where m.tenant_id = p_tenant and m.subject <> p_subject and m.role = 'admin' and m.removed_at is null)
$$;
revoke execute on function nofx.member_lock(nofx.principal), nofx.has_other_admin(text, text) from public;

-- A member as the API shows it.
create or replace function nofx.member_json(p nofx.membership) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_build_object('subject', p.subject, 'role', p.role, 'name', p.name, 'email', p.email, 'created_at', p.created_at,
                              'created_by', p.created_by)
$$;

-- What of {subject, name, email} another member has: name_taken, email_taken, or null. A name may be one's own subject or address, never
-- somebody else's.
create or replace function nofx.member_taken(p_tenant text, p jsonb) returns text
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select case when bool_or(lower(p ->> 'name') in (lower(m.name), lower(m.subject), lower(m.email))
                             or lower(p ->> 'subject') in (lower(m.name), lower(m.email))) then 'name_taken'
                when bool_or(lower(p ->> 'email') in (lower(m.email), lower(m.name), lower(m.subject))) then 'email_taken' end
      from nofx.membership m
     where m.tenant_id = p_tenant and m.subject <> p ->> 'subject' and m.removed_at is null
$$;
revoke execute on function nofx.member_taken(text, jsonb) from public;

-- Makes somebody a member, or changes a member. A member who was removed and is added again does not get earlier sessions and tokens back.
-- No two members have the same name or e-mail address, because records and rules name people by them. Case does not count.
-- p: {caller, subject, role, name, email}
-- -> {result: created|replaced|unchanged, member} | {result: last_admin|role_above|name_taken|email_taken}
create or replace function nofx.member_set(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'members.write');
    v_old nofx.membership;
    v_new nofx.membership;
    v_taken text;
begin
    -- If two admins change each other's role at the same time, the second call sees the result of the first.
    perform from nofx.tenant t where t.tenant_id = v_who.tenant_id for no key update;
    select * into v_old
      from nofx.membership m
     where m.tenant_id = v_who.tenant_id and m.subject = p ->> 'subject'
       for no key update;
    if not coalesce(nofx.role_rank(p ->> 'role') <= nofx.role_rank(v_who.role), false) then
        return jsonb_build_object('result', 'role_above');
    end if;
    if v_old.removed_at is null and v_old.role = 'admin' and p ->> 'role' <> 'admin'
       and not nofx.has_other_admin(v_who.tenant_id, v_old.subject) then
        return jsonb_build_object('result', 'last_admin');
    end if;
    if v_old.subject is not null and v_old.removed_at is null and v_old.role = p ->> 'role' and v_old.name = p ->> 'name'
       and v_old.email is not distinct from p ->> 'email' then
        return jsonb_build_object('result', 'unchanged', 'member', nofx.member_json(v_old));
    end if;
    v_taken := nofx.member_taken(v_who.tenant_id, p);
    if v_taken is not null then
        return jsonb_build_object('result', v_taken);
    end if;
    insert into nofx.membership (tenant_id, subject, role, name, email, created_by)
    values (v_who.tenant_id, p ->> 'subject', p ->> 'role', p ->> 'name', p ->> 'email', v_who.name)
        on conflict (tenant_id, subject) do update
           set role = excluded.role, name = excluded.name, email = excluded.email, removed_at = null,
               joined_at = case when membership.removed_at is null then membership.joined_at else clock_timestamp() end
    returning * into v_new;
    return jsonb_build_object('result', case when v_old.subject is null or v_old.removed_at is not null then 'created' else 'replaced' end,
                              'member', nofx.member_json(v_new));
end
$$;
select nofx.transition_declare('nofx.member_set(jsonb)', 'nofx_api');

-- Removes a member, ends their sessions, and revokes the tokens that they own, unless tokens_to names another member who owns them from now on.
-- The row stays, because decisions refer to it. p: {caller, subject, tokens_to}
-- -> {result: removed, sessions, tokens, tokens_moved} | {result: last_admin|not_found|heir_not_found}
create or replace function nofx.member_remove(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'members.write');
    v_old nofx.membership;
    v_now timestamptz := clock_timestamp();
    v_moved integer := 0;
    v_sessions integer;
    v_tokens integer;
begin
    perform from nofx.tenant t where t.tenant_id = v_who.tenant_id for no key update;
    select * into v_old
      from nofx.membership m
     where m.tenant_id = v_who.tenant_id and m.subject = p ->> 'subject' and m.removed_at is null
       for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_old.role = 'admin' and not nofx.has_other_admin(v_who.tenant_id, v_old.subject) then
        return jsonb_build_object('result', 'last_admin');
    end if;
    if p ->> 'tokens_to' is not null then
        perform from nofx.membership m
          where m.tenant_id = v_who.tenant_id and m.subject = p ->> 'tokens_to' and m.subject <> v_old.subject and m.removed_at is null;
        if not found then
            return jsonb_build_object('result', 'heir_not_found');
        end if;
        update nofx.api_token t set owner = p ->> 'tokens_to'
         where t.tenant_id = v_who.tenant_id and t.owner = v_old.subject and t.kind <> 'person' and t.revoked_at is null;
        get diagnostics v_moved = row_count;
    end if;
    with revoked as (
        update nofx.api_token t set revoked_at = v_now, revoked_by = v_who.name
         where t.tenant_id = v_who.tenant_id and t.owner = v_old.subject and t.revoked_at is null
        returning t.kind, t.expires_at)
    select count(*) filter (where r.kind = 'person' and r.expires_at > v_now),
           count(*) filter (where r.kind <> 'person' and r.expires_at > v_now)
      into v_sessions, v_tokens
      from revoked r;
    update nofx.membership m set removed_at = v_now where m.tenant_id = v_who.tenant_id and m.subject = v_old.subject;
    return jsonb_build_object('result', 'removed', 'sessions', v_sessions, 'tokens', v_tokens, 'tokens_moved', v_moved);
end
$$;
select nofx.transition_declare('nofx.member_remove(jsonb)', 'nofx_api');

-- Members, ordered by subject, after the subject p.after. p: {caller, after, limit} -> {rows, more}
create or replace function nofx.member_list(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'members.read');
    v_limit integer := p ->> 'limit';
begin
    return nofx.rows_page(array(
        select nofx.member_json(m)
          from nofx.membership m
         where m.tenant_id = v_who.tenant_id and m.removed_at is null and m.subject > coalesce(p ->> 'after', '')
         order by m.subject
         limit v_limit + 1), v_limit);
end
$$;
select nofx.transition_declare('nofx.member_list(jsonb)', 'nofx_api');
revoke execute on function nofx.member_json(nofx.membership) from public;

-- functions/permissions.sql sha256=d975131cf07fe815a747a623cbbc00ef3d499c3725426df2869a5a93d5219a3d
-- Who may do what. A caller needs at least the role of a permission, and one of its kinds. This is the only table of permissions. Routes name a
-- permission, and docs/security.md lists the table for people.
-- Every request asks. So the functions in SQL set no search path, which lets Postgres inline them, and a session plans nofx.permits once.

-- Each permission with the least role and the kinds of principals that may have it. Agents never decide gates, and never change a policy,
-- rules, members or tokens, whatever their role is.
create or replace function nofx.permission_list()
    returns table (permission text, role text, kinds text[])
    language sql immutable
as $$
    values
        ('account.read',      'viewer',   array['person', 'agent', 'service']),
        ('runs.read',         'viewer',   array['person', 'agent', 'service']),
        ('artifacts.read',    'viewer',   array['person', 'agent', 'service']),
        ('plans.check',       'viewer',   array['person', 'agent', 'service']),
        ('policy.read',       'viewer',   array['person', 'agent', 'service']),
        ('rules.read',        'viewer',   array['person', 'agent', 'service']),
        ('usage.read',        'viewer',   array['person', 'agent', 'service']),
        ('sessions.create',   'viewer',   array['person']),
        ('runs.create',       'operator', array['person', 'agent', 'service']),
        ('runs.control',      'operator', array['person', 'agent', 'service']),
        ('workspaces.create', 'operator', array['person', 'agent', 'service']),
        ('gates.create',      'operator', array['person', 'agent', 'service']),
        ('gates.link',        'operator', array['person', 'service']),
        ('queues.read',       'operator', array['person', 'service']),
        ('queues.redrive',    'operator', array['person', 'service']),
        ('gates.decide',      'approver', array['person']),
        ('gates.waive',       'admin',    array['person']),
        ('policy.write',      'admin',    array['person', 'service']),
        ('rules.write',       'admin',    array['person', 'service']),
        ('members.read',      'admin',    array['person', 'service']),
        ('tokens.read',       'admin',    array['person', 'service']),
        ('audit.read',        'admin',    array['person', 'service']),
        ('members.write',     'admin',    array['person']),
        ('tokens.write',      'admin',    array['person'])
$$;

-- 1 viewer, 2 operator, 3 approver, 4 admin. Null for anything else, and then nothing is permitted.
create or replace function nofx.role_rank(p_role text) returns integer
    language sql immutable
as $$
    select array_position(array['viewer', 'operator', 'approver', 'admin'], p_role)
$$;

-- Whether a principal of this role and kind has the permission. False for unknown words and for null.
create or replace function nofx.permits(p_permission text, p_role text, p_kind text) returns boolean
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
begin
    return coalesce((select nofx.role_rank(p_role) >= nofx.role_rank(l.role) and p_kind = any (l.kinds)
                       from nofx.permission_list() l
                      where l.permission = p_permission), false);
end
$$;
-- Whether a permission is about members, tokens and sessions.
create or replace function nofx.is_of_access(p_permission text) returns boolean
    language sql immutable
as $$
    select split_part(p_permission, '.', 1) in ('members', 'tokens', 'sessions')
$$;
revoke execute on function nofx.permission_list(), nofx.role_rank(text), nofx.permits(text, text, text), nofx.is_of_access(text) from public;

-- functions/run_retry.sql sha256=fe906f60ab3924a98738ec4036d7843d814d0ae742e05f8aaaa99dc445d82a81
-- Starts the next generation of a failed or cancelled run. Steps that succeeded stay. All others start again: their blockers are counted
-- again, their failures and lost workers are 0 again, their attempt numbers continue. Gates that did not pass, and those that would not pass today, are
-- asked again.
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
    v_voided nofx.change[];
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

    with lapsed as (
        update nofx.gate g
           set voided_at = v_now
         where g.run_id = v_run.id and g.on_pass = 'release' and g.status in ('passed', 'waived') and g.voided_at is null
           and not exists (select from nofx.step s where s.id = g.step_id and s.status = 'succeeded')
           and not nofx.gate_still_holds(g)
        returning g.id, g.step_id, g.gate_type, g.bound_digest
    )
    select array_agg(nofx.fact(v_run.id, l.step_id, 'gate.voided', jsonb_strip_nulls(jsonb_build_object(
               'gate_id', l.id, 'gate_type', l.gate_type, 'changed', '["approvals"]'::jsonb, 'digest', l.bound_digest))) order by l.id)
      into v_voided
      from lapsed l;

    v_policy := nofx.approval_policy(v_run.tenant_id);
    -- Only gates that clients put before steps. Handlers create theirs again when their steps run.
    with renewed as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at, rule, bound, bound_digest)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass,
               v_run.generation + 1, g.reason, g.evidence_uri, nofx.approval_expiry(g.tenant_id, extract(epoch from g.expires_at - g.created_at)::integer, v_now), v_now,
               nofx.approval_strictest(coalesce(g.rule, '{}'), v_policy), b.bound, nofx.binding_digest(b.bound)
          from nofx.gate g
         cross join lateral nofx.gate_binding(g) b(bound)
          left join nofx.step s on s.id = g.step_id
         where g.run_id = v_run.id and g.on_pass = 'release'
           and (g.generation = v_run.generation and g.status in ('failed', 'expired', 'cancelled') or g.voided_at = v_now)
           and s.status is distinct from 'succeeded'
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
        || v_voided || v_gates || v_steps, v_now);
    return jsonb_build_object('result', 'retried', 'generation', v_run.generation + 1,
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_steps), v_now));
end
$$;
select nofx.transition_declare('nofx.run_retry(jsonb)', 'nofx_api');
