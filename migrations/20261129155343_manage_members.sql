-- Manages members, API tokens and sessions.

-- Lists of tokens are apart from those of sessions.
drop index nofx.api_token_list;
create index api_token_list on nofx.api_token (tenant_id, (kind = 'person'), created_at, id);

-- Copies of the files in functions/. Change those files, not this one.

-- functions/members.sql sha256=98f5fdb53bc997860dad76b8d582cf67532134297307366fad4ea567d81cd533
-- Members of a tenant: people, each with a role.

-- Keeps the caller's membership as it is until the transaction ends, so that nobody who is being removed gets a token that survives it.
-- Raises NF403 if they were removed meanwhile.
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

-- Makes somebody a member, or changes a member. Who was removed comes back without their earlier sessions and tokens.
-- p: {caller, subject, role, name, email} -> {result: created|replaced|unchanged, member} | {result: last_admin|role_above}
create or replace function nofx.member_set(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'members.write');
    v_old nofx.membership;
    v_new nofx.membership;
begin
    -- Two admins who degrade each other: the second one sees what the first did.
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
    insert into nofx.membership (tenant_id, subject, role, name, email, created_by)
    values (v_who.tenant_id, p ->> 'subject', p ->> 'role', p ->> 'name', p ->> 'email', v_who.name)
        on conflict (tenant_id, subject) do update
           set role = excluded.role, name = excluded.name, email = excluded.email, removed_at = null
    returning * into v_new;
    return jsonb_build_object('result', case when v_old.subject is null or v_old.removed_at is not null then 'created' else 'replaced' end,
                              'member', nofx.member_json(v_new));
end
$$;
select nofx.transition_declare('nofx.member_set(jsonb)', 'nofx_api');

-- Removes a member, ends their sessions, and revokes the tokens that they answer for, unless tokens_to names another member who does from now on.
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

-- functions/rows_page.sql sha256=1fa1fb6ae8c900cfdac104f6b4fd82a39f4cddeb6273e57ca96c6fd7456a8b18
-- A page of rows, bounded in rows and in bytes, of at most one row more than the limit. A page with large rows ends early.
-- -> {rows, more}
create or replace function nofx.rows_page(p_rows jsonb[], p_limit integer) returns jsonb
    language sql
    set search_path = nofx, pg_temp
as $$
    select jsonb_build_object('rows', coalesce(jsonb_agg(k.item order by k.n) filter (where k.fits), '[]'),
                              'more', coalesce(bool_or(not k.fits), false))
      from (select s.item, s.n, s.n <= p_limit and (s.n = 1 or s.bytes <= 393216) as fits
              from (select r.item, r.n, sum(octet_length(r.item::text)) over (order by r.n) as bytes
                      from unnest(p_rows) with ordinality r(item, n)) s) k
$$;
revoke execute on function nofx.rows_page(jsonb[], integer) from public;

-- functions/sessions.sql sha256=ee75e5df254369878f6b4bb15344760e52acaa5a6b5b0b72e2b05de2c66a6dbc
-- Sessions of people. A session is a token of the kind `person`, which has the role that its member has at each request.

-- Who the caller is. p: {caller}
-- -> {tenant, subject, name, kind, role, token_id, owner, solo, expires_at, permissions}; expires_at is null without a token.
create or replace function nofx.whoami(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'account.read');
    v_token nofx.api_token;
begin
    select * into v_token from nofx.api_token t where t.tenant_id = v_who.tenant_id and t.id = v_who.token_id;
    return nofx.principal_json(v_who) || jsonb_build_object(
        'expires_at', v_token.expires_at,
        'permissions', (select coalesce(jsonb_agg(l.permission order by l.permission), '[]')
                          from nofx.permission_list() l
                         where nofx.permits(l.permission, v_who.role, v_who.kind)
                           and (v_token.scopes is null or l.permission = any (v_token.scopes))));
end
$$;
select nofx.transition_declare('nofx.whoami(jsonb)', 'nofx_api');

-- Starts a session of a person who has just logged in. A session does not start another one, or a stolen one would never end. A person has at
-- most 50 sessions: a further one ends the oldest.
-- p: {caller, id, name, secret_sha256, expires_in_s} -> {result: created, expires_at}. Safe to repeat.
create or replace function nofx.session_create(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'sessions.create');
    v_now timestamptz := clock_timestamp();
    v_expires_at timestamptz;
begin
    if p -> 'caller' ->> 'via' is distinct from 'jwt' then
        raise exception 'forbidden' using errcode = 'NF403', detail = 'sessions.create';
    end if;
    perform nofx.member_lock(v_who);
    insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, secret_sha256, created_at, expires_at)
    values ((p ->> 'id')::uuid, v_who.tenant_id, 'person', v_who.subject, v_who.subject, p ->> 'name',
            decode(p ->> 'secret_sha256', 'hex'), v_now, v_now + make_interval(secs => (p ->> 'expires_in_s')::integer))
        on conflict (id) do nothing;
    update nofx.api_token t
       set revoked_at = v_now, revoked_by = 'newer sessions'
     where t.id = any (array(
        select s.id from nofx.api_token s
         where s.tenant_id = v_who.tenant_id and s.owner = v_who.subject and s.revoked_at is null and s.kind = 'person'
           and s.expires_at > v_now
         order by s.created_at desc, s.id desc
        offset 50));
    select t.expires_at into strict v_expires_at
      from nofx.api_token t
     where t.id = (p ->> 'id')::uuid and t.tenant_id = v_who.tenant_id and t.secret_sha256 = decode(p ->> 'secret_sha256', 'hex');
    return jsonb_build_object('result', 'created', 'expires_at', v_expires_at);
end
$$;
select nofx.transition_declare('nofx.session_create(jsonb)', 'nofx_api');

-- Ends the session that the caller uses. Nothing else has a session to end: not a login, and not the token of a program.
-- p: {caller} -> {result: ended|unchanged}
create or replace function nofx.session_end(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_who nofx.principal := nofx.caller_admit(p -> 'caller', 'account.read');
begin
    update nofx.api_token t
       set revoked_at = clock_timestamp(), revoked_by = v_who.name
     where t.tenant_id = v_who.tenant_id and t.id = v_who.token_id and t.kind = 'person' and t.revoked_at is null;
    return jsonb_build_object('result', case when found then 'ended' else 'unchanged' end);
end
$$;
select nofx.transition_declare('nofx.session_end(jsonb)', 'nofx_api');

-- functions/tokens.sql sha256=1d4b57f2c988143cccf40891036b715c32f6a5335797d495d839803c35869abe
-- API tokens of agents and services. Only people who are admins create and revoke them. The database never has a secret.

-- Creates a token, which its creator answers for: it ends when they leave. Its name in records is its subject, so that it cannot look like
-- a person. Every token may ask who it is.
-- p: {caller, id, kind, name, role, scopes, secret_sha256, expires_in_s}; scopes are permissions, or null for all of the role.
-- -> {result: created, expires_at} | {result: role_above} | {result: scope_outside, scopes}. Safe to repeat.
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
    insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, role, scopes, secret_sha256, created_at, expires_at)
    values ((p ->> 'id')::uuid, v_who.tenant_id, p ->> 'kind', v_subject, v_who.subject, v_subject, p ->> 'role',
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

-- Revokes a token or a session, for good. The next statement of a request with it is refused.
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
