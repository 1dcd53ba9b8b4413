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
