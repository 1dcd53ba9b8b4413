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
    insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, secret_sha256, login_at, created_at, expires_at)
    values ((p ->> 'id')::uuid, v_who.tenant_id, 'person', v_who.subject, v_who.subject, p ->> 'name',
            decode(p ->> 'secret_sha256', 'hex'), (p -> 'caller' ->> 'login_at')::timestamptz, v_now, v_now + make_interval(secs => (p ->> 'expires_in_s')::integer))
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
