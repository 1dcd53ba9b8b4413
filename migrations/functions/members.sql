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
