-- Identifies callers: tenants, their members, and API tokens. Readers see rows under row level security, as the API or as a member.

-- A tenant is known before anybody may act in it.
create table nofx.tenant (
    tenant_id   text primary key check (tenant_id ~ '^[A-Za-z0-9_.-]{1,64}$'),
    -- One person on a laptop, without a login. Only `nofx dev` makes such a tenant.
    is_solo     boolean not null default false,
    disabled_at timestamptz,
    created_at  timestamptz not null default clock_timestamp()
);
insert into nofx.tenant (tenant_id)
select distinct r.tenant_id from nofx.run r where r.tenant_id ~ '^[A-Za-z0-9_.-]{1,64}$';

-- The people of a tenant. A member who leaves stays as a row, because decisions refer to it.
create table nofx.membership (
    tenant_id  text not null references nofx.tenant,
    -- `sub` of the person's JWT.
    subject    text not null check (length(subject) between 1 and 255),
    role       text not null check (role in ('viewer', 'operator', 'approver', 'admin')),
    name       text not null check (length(name) between 1 and 255),
    -- As an admin wrote it. A person can change the e-mail address of their login.
    email      text check (length(email) between 3 and 320),
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null,
    removed_at timestamptz,
    primary key (tenant_id, subject)
);

-- Tokens of agents and services, and the sessions of people. The secret is 32 random bytes, so a plain hash keeps it.
create table nofx.api_token (
    id            uuid primary key,
    tenant_id     text not null references nofx.tenant,
    kind          text not null check (kind in ('person', 'agent', 'service')),
    -- A session's member; else `agent:NAME` or `service:NAME`.
    subject       text not null check (length(subject) between 1 and 255),
    -- The person who answers for it.
    owner         text not null,
    name          text not null check (length(name) between 1 and 255),
    -- A session has the role that its member has at each request.
    role          text check (role in ('viewer', 'operator', 'approver', 'admin')),
    -- Permissions. Null for all of the role.
    scopes        text[],
    secret_sha256 bytea not null check (length(secret_sha256) = 32),
    created_at    timestamptz not null default clock_timestamp(),
    expires_at    timestamptz not null,
    revoked_at    timestamptz,
    revoked_by    text,
    last_used_at  timestamptz,
    last_used_ip  inet,
    check ((kind = 'person') = (role is null)),
    check ((revoked_at is null) = (revoked_by is null)),
    check (expires_at > created_at and expires_at <= created_at + interval '366 days')
);
create index api_token_list on nofx.api_token (tenant_id, created_at, id);
-- Ends the sessions and tokens of a member who leaves.
create index api_token_owner on nofx.api_token (tenant_id, owner) where revoked_at is null;

-- Who sends a request, as the database confirmed it.
create type nofx.principal as (tenant_id text, subject text, name text, kind text, role text, token_id uuid, owner text, is_solo boolean);

-- Supabase has these roles. Elsewhere they are made, so that the same policies hold and can be tested.
do $$
declare
    v_role text;
begin
    foreach v_role in array array['authenticated', 'anon'] loop
        if not exists (select from pg_roles where rolname = v_role) then
            execute format('create role %I nologin noinherit', v_role);
        end if;
    end loop;
end
$$;


-- Copies of the files in functions/. Change those files, not this one.

-- functions/caller_admit.sql sha256=587f043c86fc66a16a62210a729bfecf7f7a25002dcfbf500f4c7fa463aec15f
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
-- p: {tenant, via: token|jwt|local, subject, token_id, kind, secret_sha256, ip}. A token is known by its id, its kind and the hash of
-- its secret. A JWT was verified by the function that got it, and says only who somebody is: the role is that of the membership. `local` is
-- one person on a laptop, and only a tenant made for that admits it.
-- Raises NF401 if the caller is not known, and NF403 if it may not do this.
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
    return v_who;
end
$$;
revoke execute on function nofx.principal_json(nofx.principal) from public;
select nofx.transition_declare('nofx.caller_admit(jsonb, text)', 'nofx_api');
grant execute on function nofx.principal_json(nofx.principal) to nofx_api;

-- functions/permissions.sql sha256=0148789b6b1c94664f41ceaaf44718379c8341d760aa1f76700e4d7fb8231f33
-- Who may do what. A caller needs the role and the kind of a permission. This is the only table of permissions: routes name a permission, and
-- docs/security.md shows the table to people.

-- Each permission with the least role and the kinds of principals that may have it. Agents never decide gates, and never change a policy,
-- rules, members or tokens, whatever their role is.
create or replace function nofx.permission_list()
    returns table (permission text, role text, kinds text[])
    language sql immutable
    set search_path = ''
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
    set search_path = ''
as $$
    select array_position(array['viewer', 'operator', 'approver', 'admin'], p_role)
$$;

-- Whether a principal of this role and kind has the permission. False for unknown words and for null.
create or replace function nofx.permits(p_permission text, p_role text, p_kind text) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select coalesce((select nofx.role_rank(p_role) >= nofx.role_rank(l.role) and p_kind = any (l.kinds)
                       from nofx.permission_list() l
                      where l.permission = p_permission), false)
$$;
revoke execute on function nofx.permission_list(), nofx.role_rank(text), nofx.permits(text, text, text) from public;

-- functions/read.sql sha256=60a30760a866a16acfd29d9c4ff254ca018d631670ce6fd8209e784a7d7453bd
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
                                          'app_metadata', jsonb_build_object('tenant_id', v_who.tenant_id))::text, true),
            set_config('role', 'nofx_api', true);
    return query select nofx.principal_json(v_who), null::text, null::bigint;
    return query execute 'select null::jsonb, q.item, q.n from (' || p_sql || ') q' using p_args;
end
$$;
revoke execute on function nofx.read(jsonb, text, text, jsonb) from public;
grant execute on function nofx.read(jsonb, text, text, jsonb) to nofx_api;

-- functions/tenant_id.sql sha256=af7f7de49f11be09ffd3045528cc9303ec1427a52003efceae0300deb28a5e3d
-- The tenant of a reader under row level security, from the claims of its JWT. Works with and without Supabase's auth schema.
create or replace function nofx.tenant_id() returns text
    language sql stable
    set search_path = ''
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'app_metadata' ->> 'tenant_id',
        '')
$$;
grant execute on function nofx.tenant_id() to public;

-- The tenant of a person who reads directly, as a client of Supabase: that of the claims, while the person is a member. The JWT of somebody
-- who was removed is valid for up to an hour, and reads nothing.
create or replace function nofx.member_tenant() returns text
    language sql stable
    security definer
    set search_path = nofx, pg_temp
as $$
    select m.tenant_id
      from nofx.membership m
      join nofx.tenant t on t.tenant_id = m.tenant_id
     where m.tenant_id = nofx.tenant_id()
       and m.subject = nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
       and m.removed_at is null and t.disabled_at is null
$$;
revoke execute on function nofx.member_tenant() from public;
grant execute on function nofx.member_tenant() to authenticated;

-- Rows of a tenant: for the API by the claims that `nofx.read` sets, for a member by those of the JWT. A role without a policy sees none.
do $$
declare
    v_table text;
begin
    foreach v_table in array array['tenant', 'membership', 'api_token'] loop
        execute format('alter table nofx.%I enable row level security', v_table);
        execute format('create policy tenant_isolation on nofx.%I for select to nofx_api using (tenant_id = (select nofx.tenant_id()))', v_table);
    end loop;
    foreach v_table in array array['run', 'step', 'step_edge', 'attempt', 'artifact', 'artifact_edge', 'event', 'gate', 'approval',
                                   'db_write_rule', 'tenant_event', 'policy', 'sweep'] loop
        execute format('alter policy tenant_isolation on nofx.%I to nofx_api', v_table);
    end loop;
    foreach v_table in array array['run', 'step', 'step_edge', 'attempt', 'artifact', 'artifact_edge', 'event', 'gate', 'approval',
                                   'db_write_rule', 'tenant_event', 'policy'] loop
        execute format('create policy member_reads on nofx.%I for select to authenticated using (tenant_id = (select nofx.member_tenant()))',
                       v_table);
        execute format('grant select on nofx.%I to authenticated', v_table);
    end loop;
end
$$;
grant usage on schema nofx to authenticated;
