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
