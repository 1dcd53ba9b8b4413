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

-- functions/artifact_upload.sql sha256=30d1b7b81ea0cb6c163e1bb9663b2fae685c4fb3d203bfa2e5dd8809d5d520d2
-- Records an upload of a tenant that belongs to no run yet. p: {caller, id, name, type, uri, hash, size_bytes, media_type}. Safe to repeat.
-- -> {result: stored}
create or replace function nofx.artifact_upload(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    p := nofx.admitted(p, 'workspaces.create');
    insert into nofx.artifact (id, tenant_id, name, type, uri, hash, size_bytes, media_type)
    values ((p ->> 'id')::uuid, p ->> 'tenant_id', p ->> 'name', p ->> 'type', p ->> 'uri', p ->> 'hash',
            (p ->> 'size_bytes')::bigint, p ->> 'media_type')
        on conflict (id) do nothing;
    return jsonb_build_object('result', 'stored');
end
$$;
select nofx.transition_declare('nofx.artifact_upload(jsonb)', 'nofx_api');

-- functions/caller_admit.sql sha256=181c4a706ce4fda3e9c29c9dc7dfad0fc8caaccfc3b6cfaf4341389d661200d6
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

-- The first statement of a transition that the API calls: admits p.caller, and gives p with who it is.
-- -> p with tenant_id, with actor (the name for people to read) and with by: {kind, subject, token_id}. Whatever the request says about these is
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
    return p || jsonb_build_object(
        'tenant_id', v_who.tenant_id, 'actor', coalesce(v_said, v_who.name),
        'by', jsonb_strip_nulls(jsonb_build_object('kind', v_who.kind, 'subject', v_who.subject, 'token_id', v_who.token_id)));
end
$$;
revoke execute on function nofx.admitted(jsonb, text) from public;

-- functions/gate_create.sql sha256=65e13874167eb0d8850273fc977bacb32bdcda2fcdf000ce0aef8a620a667d2c
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

    insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri, reason,
                           expires_at, created_at)
    values ((p ->> 'id')::uuid, v_run.tenant_id, v_run.id, v_step.id, p ->> 'gate_type', 'pending', 'release',
            v_run.generation, p ->> 'evidence_uri', p ->> 'reason',
            v_now + make_interval(secs => (p ->> 'expires_after_s')::integer), v_now);
    perform nofx.runs_settle(array[
        nofx.gate_change(v_run.id, v_step.id, 'gate.created',
                         jsonb_build_object('gate_id', p ->> 'id', 'gate_type', p ->> 'gate_type'), 1),
        nofx.step_change(v_run.id, v_step.id, v_step.status, case when v_step.id is not null then 'pending' end, null)],
        v_now);
    return jsonb_build_object('result', 'created', 'status', 'pending');
end
$$;
select nofx.transition_declare('nofx.gate_create(jsonb)', 'nofx_api');

-- functions/gate_decide.sql sha256=efc98ce3cd78d7006f4c647cfc0ccc49da868dbe744f4b8e945742a6babef145
-- Decides a pending gate, once. In the same transaction its step continues, and what depends on that step becomes ready. Several gates of
-- a run may ask the same question, whether changed checks count: if a person lets one pass, the others pass with it.
-- p: {caller, gate_id, decision: approve|reject|waive, actor, reason}
-- -> {result: decided|conflict|not_found, gate: {..}, ready: [wake-ups]}
create or replace function nofx.gate_decide(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
    v_now timestamptz;
    v_status text := case p ->> 'decision' when 'approve' then 'passed' when 'waive' then 'waived'
                                           when 'reject' then 'failed' end;
    v_gates uuid[];
    v_changes nofx.change[];
begin
    p := nofx.admitted(p, case p ->> 'decision' when 'waive' then 'gates.waive' else 'gates.decide' end);
    perform 1 from nofx.run r
      where r.id = (select g.run_id from nofx.gate g
                     where g.id = (p ->> 'gate_id')::uuid and g.tenant_id = p ->> 'tenant_id')
        for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    v_now := clock_timestamp();
    select * into strict v_gate from nofx.gate g where g.id = (p ->> 'gate_id')::uuid;
    -- Only the sweeper ends an expired gate, even if it has not run yet.
    if v_gate.status <> 'pending' or v_gate.expires_at < v_now then
        return jsonb_build_object('result', 'conflict', 'gate', nofx.gate_json(v_gate.id));
    end if;

    v_gates := array[v_gate.id];
    if v_status <> 'failed' and v_gate.gate_type = 'manual:gate-change' and v_gate.subject is not null then
        v_gates := v_gates || array(
            select g.id
              from nofx.gate g
             where g.run_id = v_gate.run_id and g.gate_type = 'manual:gate-change' and g.step_id is not null
               and g.status = 'pending' and g.generation = v_gate.generation and g.subject = v_gate.subject
               and g.id <> v_gate.id and (g.expires_at is null or g.expires_at >= v_now));
    end if;

    update nofx.gate g
       set status = v_status, decided_at = v_now,
           approved_by = case when v_status <> 'failed' then p ->> 'actor' end,
           approved_at = case when v_status <> 'failed' then v_now end
     where g.id = any (v_gates);
    insert into nofx.approval (tenant_id, run_id, gate_id, decision, actor, reason, created_at)
    select v_gate.tenant_id, v_gate.run_id, decided.id, p ->> 'decision', p ->> 'actor', p ->> 'reason', v_now
      from unnest(v_gates) decided(id);

    v_changes := nofx.gates_conclude(v_gates,
        jsonb_build_object('decision', p ->> 'decision', 'actor', p ->> 'actor', 'by', p -> 'by', 'reason', p ->> 'reason'), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('result', 'decided', 'gate', nofx.gate_json(v_gate.id),
                              'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.transition_declare('nofx.gate_decide(jsonb)', 'nofx_api');

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

-- functions/policy.sql sha256=ac4474c2d3399a7f7ca30a42ae3d07d4b383d61e602f0104c4f2a526b3e64fb9
-- The policy of a tenant: versions that are added and never changed.

-- Trigger: records every version as an event of the tenant, whoever adds it and in whatever way.
create or replace function nofx.policy_changed() returns trigger
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    insert into nofx.tenant_event (tenant_id, type, subject, actor, payload)
    values (new.tenant_id, 'policy.set', 'policy', new.changed_by,
            jsonb_build_object('version', new.version, 'document', new.document)
            || case when new.reason is null then '{}' else jsonb_build_object('reason', new.reason) end);
    return null;
end
$$;

-- Trigger: keeps versions as they were added. A version that is gone would put an earlier one in force, without an event.
create or replace function nofx.policy_is_kept() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    raise exception 'versions of a policy do not change; add the next one' using errcode = 'restrict_violation';
end
$$;

-- Adds the next version of a tenant's policy. p: {caller, document, actor, reason, if_version}. With if_version the call is refused if another
-- version is current (0: if there is any). A document that is current already gets no version. So a repeated call, after a lost answer, changes
-- nothing; its if_version is that of the version before.
-- -> {result: set|unchanged|conflict, version}
create or replace function nofx.policy_set(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_document jsonb := jsonb_strip_nulls(p -> 'document');
    v_if integer := p ->> 'if_version';
    v_version integer;
    v_is_current boolean;
begin
    p := nofx.admitted(p, 'policy.write');
    loop
        select q.version, q.document = v_document into v_version, v_is_current
          from nofx.policy q
         where q.tenant_id = p ->> 'tenant_id'
         order by q.version desc limit 1;
        v_version := coalesce(v_version, 0);
        if v_is_current and coalesce(v_if in (v_version, v_version - 1), true) then
            return jsonb_build_object('result', 'unchanged', 'version', v_version);
        end if;
        if v_if <> v_version then
            return jsonb_build_object('result', 'conflict', 'version', v_version);
        end if;
        -- Waits for a version that another transaction is adding, and then reads again.
        insert into nofx.policy (tenant_id, version, document, changed_by, reason)
        values (p ->> 'tenant_id', v_version + 1, v_document, p ->> 'actor', p ->> 'reason')
            on conflict do nothing;
        if found then
            return jsonb_build_object('result', 'set', 'version', v_version + 1);
        end if;
    end loop;
end
$$;
revoke execute on function nofx.policy_changed(), nofx.policy_is_kept(), nofx.policy_set(jsonb) from public;
grant execute on function nofx.policy_set(jsonb) to nofx_api;

-- functions/queues.sql sha256=093e683503b179c5c247b0b62d93c9489b24d2fc7541fc4e2edb352fd1df6a82
-- Records that somebody moved dead letters of a handler back to its queue. A second call with the same id changes nothing.
-- p: {caller, id, handler, actor, moved, more} -> {result: recorded|repeated}
create or replace function nofx.redrive_record(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    p := nofx.admitted(p, 'queues.redrive');
    if exists (select from nofx.tenant_event e
                where e.tenant_id = p ->> 'tenant_id' and e.subject = p ->> 'handler' and e.payload ->> 'id' = p ->> 'id') then
        return jsonb_build_object('result', 'repeated');
    end if;
    insert into nofx.tenant_event (tenant_id, type, subject, actor, payload)
    values (p ->> 'tenant_id', 'queue.redriven', p ->> 'handler', p ->> 'actor',
            jsonb_build_object('id', p ->> 'id', 'moved', p -> 'moved', 'more', p -> 'more', 'by', p -> 'by'));
    return jsonb_build_object('result', 'recorded');
end
$$;
select nofx.transition_declare('nofx.redrive_record(jsonb)', 'nofx_api');

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

-- functions/rules.sql sha256=132c97b8334081d2b89c75fdf0bf3a66d2a5eece6e941d32adf7e037185cdd46
-- Whether no rule may open the schema: those of Postgres, of the control plane, and of Supabase.
create or replace function nofx.schema_is_closed(p_schema text) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select p_schema like 'pg\_%' or p_schema in (
        'nofx', 'information_schema', 'supabase_migrations', 'auth', 'storage', 'vault', 'realtime', 'extensions',
        'graphql', 'graphql_public', 'cron', 'net', 'pgbouncer')
$$;

-- Whether the value is a list of different, non-empty texts.
create or replace function nofx.is_name_list(p jsonb) returns boolean
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
begin
    return jsonb_typeof(p) = 'array'
        and not exists (select from jsonb_array_elements(p) e where jsonb_typeof(e) <> 'string' or e #>> '{}' = '')
        and (select count(*) = count(distinct e) from jsonb_array_elements(p) e);
end
$$;

-- Whether a rule has exactly one meaning. Unknown keys and other types are refused.
create or replace function nofx.rule_is_sound(p_table text, p_ops text[], p jsonb) returns boolean
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
begin
    return not nofx.schema_is_closed(split_part(p_table, '.', 1))
        and cardinality(p_ops) between 1 and 3
        and p - array['columns', 'key', 'max_rows', 'role', 'triggers', 'dependants', 'allow'] = '{}'
        and nofx.is_name_list(coalesce(p -> 'columns', '[]'))
        and nofx.is_name_list(coalesce(p -> 'key', '[]'))
        and (not p ? 'max_rows' or p ->> 'max_rows' ~ '^[1-9][0-9]{0,3}$' and jsonb_typeof(p -> 'max_rows') = 'number'
             and (p ->> 'max_rows')::integer <= 1000)
        and (not p ? 'role' or jsonb_typeof(p -> 'role') = 'string' and p ->> 'role' <> '')
        and jsonb_typeof(coalesce(p -> 'triggers', '{}')) = 'object'
        and not exists (select from jsonb_each(coalesce(p -> 'triggers', '{}')) t
                         where jsonb_typeof(t.value) <> 'string' or t.value #>> '{}' !~ '^[0-9a-f]{64}$')
        and jsonb_typeof(coalesce(p -> 'dependants', '{}')) = 'object'
        and not exists (select from jsonb_each(coalesce(p -> 'dependants', '{}')) d
                         where d.key !~ '^[^.]+\.[^.]+$' or jsonb_typeof(d.value) <> 'number'
                            or d.value #>> '{}' !~ '^[0-9]{1,6}$'
                            or nofx.schema_is_closed(split_part(d.key, '.', 1)))
        and nofx.is_name_list(coalesce(p -> 'allow', '[]'))
        and coalesce(p -> 'allow', '[]') <@ '["view", "foreign_table", "inheritance"]';
end
$$;

-- Trigger: records every change of a rule, whoever makes it and in whatever way.
create or replace function nofx.rule_changed() returns trigger
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_rule nofx.db_write_rule := coalesce(new, old);
begin
    insert into nofx.tenant_event (tenant_id, type, subject, actor, payload)
    values (v_rule.tenant_id, case when new is null then 'rule.deleted' else 'rule.set' end, v_rule.table_name,
            coalesce(nullif(current_setting('nofx.actor', true), ''), 'database:' || session_user),
            jsonb_build_object(
                'before', case when old is not null
                               then jsonb_build_object('allowed_ops', old.allowed_ops) || old.constraints end,
                'after', case when new is not null
                              then jsonb_build_object('allowed_ops', new.allowed_ops) || new.constraints end));
    return null;
end
$$;

-- Sets the rule of a table. p: {caller, table_name, actor, allowed_ops, constraints} -> {result: created|replaced|closed}
create or replace function nofx.rule_set(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_created boolean;
begin
    p := nofx.admitted(p, 'rules.write');
    if exists (select from jsonb_object_keys(jsonb_build_object(p ->> 'table_name', 0)
                                             || coalesce(p -> 'constraints' -> 'dependants', '{}')) name
                where nofx.schema_is_closed(split_part(name, '.', 1))) then
        return jsonb_build_object('result', 'closed');
    end if;
    perform set_config('nofx.actor', p ->> 'actor', true);
    insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops, constraints)
    values (p ->> 'tenant_id', p ->> 'table_name', array(select jsonb_array_elements_text(p -> 'allowed_ops')),
            p -> 'constraints')
        on conflict (tenant_id, table_name) do update
           set allowed_ops = excluded.allowed_ops, constraints = excluded.constraints, updated_at = now()
    returning xmax = 0 into v_created;
    return jsonb_build_object('result', case when v_created then 'created' else 'replaced' end);
end
$$;

-- Deletes the rule of a table. p: {caller, table_name, actor} -> {result: deleted|not_found}
create or replace function nofx.rule_delete(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    p := nofx.admitted(p, 'rules.write');
    perform set_config('nofx.actor', p ->> 'actor', true);
    delete from nofx.db_write_rule r where r.tenant_id = p ->> 'tenant_id' and r.table_name = p ->> 'table_name';
    return jsonb_build_object('result', case when found then 'deleted' else 'not_found' end);
end
$$;
revoke execute on function nofx.schema_is_closed(text), nofx.is_name_list(jsonb), nofx.rule_is_sound(text, text[], jsonb),
    nofx.rule_changed(), nofx.rule_set(jsonb), nofx.rule_delete(jsonb) from public;
grant execute on function nofx.rule_set(jsonb), nofx.rule_delete(jsonb) to nofx_api;

-- functions/run_cancel.sql sha256=8ff912b9fbcfb5b82ee1a379f04bef9c413d8b4c1d26f6de8e18c43d4e9971c9
-- Cancels a run: fences every open step at once. Cancelling a cancelled run changes nothing. p: {caller, run_id, actor}
-- -> {result: cancelled|unchanged|conflict|not_found, status, stopped: [names], was_running: [names]}
create or replace function nofx.run_cancel(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_changes nofx.change[];
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null then
        return jsonb_build_object('result', case when v_run.status = 'cancelled' then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'stopped', '[]'::jsonb, 'was_running', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r set cancelled_at = v_now where r.id = v_run.id;
    v_changes := nofx.fact(v_run.id, null, 'run.cancel_requested', jsonb_build_object('actor', p ->> 'actor', 'by', p -> 'by'))
                 || nofx.steps_close(array[v_run.id], 'cancelled', true, v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object(
        'result', 'cancelled', 'status', 'cancelled',
        'stopped', coalesce((select jsonb_agg(s.name order by s.ordinal)
                               from unnest(v_changes) c join nofx.step s on s.id = c.step_id
                              where c.to_status = 'cancelled' and c.from_status <> 'running'), '[]'),
        'was_running', coalesce((select jsonb_agg(s.name order by s.ordinal)
                                   from unnest(v_changes) c join nofx.step s on s.id = c.step_id
                                  where c.to_status = 'cancelled' and c.from_status = 'running'), '[]'));
end
$$;
select nofx.transition_declare('nofx.run_cancel(jsonb)', 'nofx_api');

-- functions/run_create.sql sha256=f229075bde8333f4df78d15402e51433b6dfa35f745be374b28e3bcdec90885c
-- Creates a run with its steps, edges and first events. No other transaction can see the run yet, so it takes no lock and does not call
-- nofx.runs_settle: it writes each row once, and the run's with its counters.
--
-- p: {caller, id, goal, plan, plan_digest, request_digest, idempotency_key, actor, timeout_s,
--     traceparent, workspace: {archive, base, diff} (artifact ids), steps: [..], edges: [{parent, child}]}
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

    with item as materialized (
        select s.*, s.blockers = 0 as is_ready
          from jsonb_to_recordset(p -> 'steps')
               as s(id uuid, ordinal integer, name text, tool text, handler text, inputs jsonb, refs text[], ref_paths text[],
                    blockers integer, max_attempts integer, backoff_ms integer, timeout_s integer)
    ), made as (
        insert into nofx.run (id, tenant_id, status, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s,
                              deadline_at, traceparent, workspace, created_by, created_at, steps_ready, steps_pending, event_seq)
        select v_id, v_tenant, 'queued', p ->> 'goal', p -> 'plan', p ->> 'plan_digest', p ->> 'request_digest',
               p ->> 'idempotency_key', (p ->> 'timeout_s')::integer,
               v_now + make_interval(secs => (p ->> 'timeout_s')::integer), p ->> 'traceparent', v_workspace, v_call ->> 'actor', v_now,
               count(*) filter (where i.is_ready), count(*) filter (where not i.is_ready),
               1 + count(*) filter (where i.is_ready)
          from item i
            on conflict do nothing
        returning id
    ), steps as (
        insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, refs, ref_paths, status, blockers,
                               max_attempts, backoff_ms, timeout_s, created_at, ready_at, notify_at)
        select i.id, v_tenant, m.id, i.ordinal, i.name, i.tool, i.handler, i.inputs, i.refs, i.ref_paths,
               case when i.is_ready then 'ready' else 'pending' end, i.blockers, i.max_attempts, i.backoff_ms, i.timeout_s,
               v_now, case when i.is_ready then v_now end, case when i.is_ready then nofx.wakeup_due(v_now, null) end
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

-- functions/run_pause.sql sha256=bc04a833bc3984ec9b3733e4dcf68ff47accd9f97ce55f867d65971486731bfc
-- Pauses a run: no step starts, running steps end and are recorded. Pausing a paused run changes nothing. p: {caller, run_id, actor}
-- -> {result: paused|unchanged|conflict|not_found, status, still_running: [names]}
create or replace function nofx.run_pause(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null or v_run.paused_at is not null then
        return jsonb_build_object('result', case when v_run.finished_at is null then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'still_running', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r set paused_at = v_now where r.id = v_run.id;
    update nofx.step s set notify_at = 'infinity' where s.run_id = v_run.id and s.status = 'ready';
    perform nofx.runs_settle(array[nofx.fact(v_run.id, null, 'run.pause_requested',
                                             jsonb_build_object('actor', p ->> 'actor', 'by', p -> 'by'))], v_now);
    return jsonb_build_object(
        'result', 'paused', 'status', (select r.status from nofx.run r where r.id = v_run.id),
        'still_running', coalesce((select jsonb_agg(s.name order by s.ordinal) from nofx.step s
                                    where s.run_id = v_run.id and s.status = 'running'), '[]'));
end
$$;
select nofx.transition_declare('nofx.run_pause(jsonb)', 'nofx_api');

-- functions/run_resume.sql sha256=047a26817c01a9806b554a9a809b10eba9ccaafdccb9996f9cb609b3e5cdc1bd
-- Resumes a paused run: every ready step is owed a wake-up now. Resuming any other open run changes nothing. p: {caller, run_id, actor}
-- -> {result: resumed|unchanged|conflict|not_found, status, ready: [wake-ups]}
create or replace function nofx.run_resume(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_run nofx.run;
    v_now timestamptz;
    v_ready uuid[];
begin
    p := nofx.admitted(p, 'runs.control');
    v_run := nofx.run_lock(p ->> 'tenant_id', (p ->> 'run_id')::uuid);
    if v_run.id is null then
        return jsonb_build_object('result', 'not_found');
    end if;
    if v_run.finished_at is not null or v_run.paused_at is null then
        return jsonb_build_object('result', case when v_run.finished_at is null then 'unchanged' else 'conflict' end,
                                  'status', v_run.status, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    update nofx.run r
       set paused_at = null,
           status = nofx.run_status(r.steps_pending + r.steps_ready + r.steps_running + r.steps_blocked,
                                    r.steps_ready + r.steps_running, false, r.gates_pending, false, false,
                                    r.started_at is not null)
     where r.id = v_run.id;
    with owed as (
        update nofx.step s set notify_at = greatest(s.ready_at, v_now), notify_count = 0
         where s.run_id = v_run.id and s.status = 'ready'
        returning s.id
    )
    select array_agg(o.id) into v_ready from owed o;
    perform nofx.runs_settle(array[nofx.fact(v_run.id, null, 'run.resumed', jsonb_build_object('actor', p ->> 'actor', 'by', p -> 'by'))],
                             v_now);
    return jsonb_build_object('result', 'resumed',
                              'status', (select r.status from nofx.run r where r.id = v_run.id),
                              'ready', nofx.wakeups(v_ready, v_now));
end
$$;
select nofx.transition_declare('nofx.run_resume(jsonb)', 'nofx_api');

-- functions/run_retry.sql sha256=7b590012171999f0810942fab0da253643801c60a4e5011c9e002b5a3226dba1
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
           paused_at = null, deadline_at = v_now + make_interval(secs => r.timeout_s)
     where r.id = v_run.id;

    -- Only gates that clients put before steps. Handlers create theirs again when their steps run.
    with renewed as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason,
                               evidence_uri, expires_at, created_at)
        select gen_random_uuid(), g.tenant_id, g.run_id, g.step_id, g.gate_type, 'pending', g.on_pass,
               v_run.generation + 1, g.reason, g.evidence_uri, v_now + (g.expires_at - g.created_at), v_now
          from nofx.gate g
          left join nofx.step s on s.id = g.step_id
         where g.run_id = v_run.id and g.on_pass = 'release' and g.generation = v_run.generation
           and g.status in ('failed', 'expired', 'cancelled') and s.status is distinct from 'succeeded'
        returning id, step_id, gate_type
    )
    select array_agg(nofx.gate_change(v_run.id, a.step_id, 'gate.created',
                                      jsonb_build_object('gate_id', a.id, 'gate_type', a.gate_type), 1) order by a.id)
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
