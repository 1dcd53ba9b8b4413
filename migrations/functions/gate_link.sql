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
