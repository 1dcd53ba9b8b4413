-- Keeps an audit of each tenant, and keeps what was recorded from changes.

-- Shorter than deadlock_timeout: if a reader and this file wait for each other, this file fails, and can be applied again.
set local lock_timeout = '500ms';
-- Transitions lock a run before they touch its events and approvals. So this waits for those in flight, and keeps new ones out until the commit.
lock table nofx.run in exclusive mode;

-- Who changed what, when and from where. Rows are added by triggers, and never change.
create table nofx.audit (
    tenant_id text not null,
    -- From 1, without gaps.
    seq       bigint not null,
    -- Copies of fields of the body, for filters.
    at        timestamptz not null,
    action    text not null,
    subject   text not null,
    actor     text not null,
    -- One JSON object, exactly as it was hashed: another program does not write the same text for the same object.
    body      text not null,
    -- The hash of the row before. 32 zero bytes before the first one.
    prev_hash bytea not null,
    -- sha256(prev_hash || body in UTF-8)
    hash      bytea not null,
    primary key (tenant_id, seq)
);
create index audit_action on nofx.audit (tenant_id, action, seq);
create index audit_actor on nofx.audit (tenant_id, actor, seq);

-- The last row of each chain. Writers of a chain lock it.
create table nofx.audit_head (
    tenant_id text primary key,
    seq       bigint not null,
    hash      bytea not null
);

-- Copies of the files in functions/. Change those files, not this one.

-- functions/append_only.sql sha256=5358c626dba2769be29709111668ac48fe415462de39922273a182eb50055722
-- What was recorded stays as it is, also for the owner of the tables. To get around these triggers somebody has to change the schema, and
-- cannot make the chain of the audit agree afterwards with a head that anybody has seen.

-- Trigger before update, delete or truncate: refuses the statement.
create or replace function nofx.records_are_kept() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    raise exception 'rows of nofx.% are never changed or deleted', tg_table_name using errcode = 'restrict_violation';
end
$$;

-- Trigger after delete: a record goes only together with its run. `gone` are the deleted rows.
create or replace function nofx.records_go_with_their_run() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    if exists (select from (select distinct g.run_id from gone g) g join nofx.run r on r.id = g.run_id) then
        raise exception 'rows of nofx.% are deleted only with their run', tg_table_name using errcode = 'restrict_violation';
    end if;
    return null;
end
$$;

-- Trigger before insert into the audit: a row continues the chain, whoever adds it.
create or replace function nofx.audit_is_chained() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    if not exists (select from nofx.audit_head h
                    where h.tenant_id = new.tenant_id and new.seq = h.seq + 1 and new.prev_hash = h.hash
                      and new.hash = sha256(new.prev_hash || convert_to(new.body, 'UTF8'))) then
        raise exception 'a row of the audit continues its chain' using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

-- Trigger before insert or update of a chain's head: it starts before the first row, and moves to the row that was just added.
create or replace function nofx.audit_head_follows() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_follows boolean := case tg_op
        when 'INSERT' then new.seq = 0 and new.hash = decode(repeat('00', 32), 'hex')
        else new.tenant_id = old.tenant_id and new.seq = old.seq + 1
             and exists (select from nofx.audit a where a.tenant_id = new.tenant_id and a.seq = new.seq and a.hash = new.hash)
    end;
begin
    if v_follows is not true then
        raise exception 'the head of an audit is its last row' using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;
revoke execute on function nofx.records_are_kept(), nofx.records_go_with_their_run(), nofx.audit_is_chained(), nofx.audit_head_follows()
    from public;

-- functions/audit.sql sha256=86caa0611b08226e398e198294e6cf203f2828d0997d23b2db8afd3c6492d051
-- The audit of a tenant: rows that are added and never change, each chained to the one before by its hash. Triggers write them, so no
-- way of changing a policy, a rule, a member, a token or a tenant, and no decision, goes without its row.

-- Adds a row to the chain of a tenant. The row says who acts as `nofx.caller_admit` confirmed it in this transaction, else which login of the
-- database. p_before and p_after are the changed row; only their digests are kept.
-- The head of the chain is the last lock of a transaction, because triggers call this at the commit. So writers of a tenant wait for each
-- other only briefly, and no two can deadlock.
create or replace function nofx.audit_append(
    p_tenant_id text, p_action text, p_subject text, p_before jsonb, p_after jsonb, p_detail jsonb
) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_caller jsonb := nullif(current_setting('nofx.caller', true), '')::jsonb;
    v_head nofx.audit_head;
    v_at timestamptz;
    v_actor text;
    v_body text;
begin
    -- Of another tenant: somebody with a login changes this one by hand, after a call in the same transaction.
    if v_caller ->> 'tenant' is distinct from p_tenant_id then
        v_caller := null;
    end if;
    v_actor := coalesce(v_caller ->> 'name', 'database:' || session_user);
    insert into nofx.audit_head (tenant_id, seq, hash) values (p_tenant_id, 0, decode(repeat('00', 32), 'hex'))
        on conflict do nothing;
    select * into strict v_head from nofx.audit_head h where h.tenant_id = p_tenant_id for no key update;
    v_at := clock_timestamp();
    v_body := jsonb_build_object(
        'v', 1, 'tenant', p_tenant_id, 'seq', v_head.seq + 1,
        'at', to_char(v_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        'action', p_action, 'subject', p_subject, 'actor', v_actor, 'by', v_caller -> 'by',
        'ip', v_caller -> 'ip', 'request_id', v_caller -> 'request_id', 'database', session_user,
        'before', encode(sha256(convert_to(p_before::text, 'UTF8')), 'hex'),
        'after', encode(sha256(convert_to(p_after::text, 'UTF8')), 'hex'),
        'detail', jsonb_strip_nulls(p_detail))::text;
    insert into nofx.audit (tenant_id, seq, at, action, subject, actor, body, prev_hash, hash)
    values (p_tenant_id, v_head.seq + 1, v_at, p_action, p_subject, v_actor, v_body, v_head.hash,
            sha256(v_head.hash || convert_to(v_body, 'UTF8')));
    update nofx.audit_head h
       set seq = v_head.seq + 1, hash = sha256(v_head.hash || convert_to(v_body, 'UTF8'))
     where h.tenant_id = p_tenant_id;
end
$$;

-- A row as the audit digests it: without secrets, and without what each use changes. A column that an older row does not have counts as null.
create or replace function nofx.audited(p jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_strip_nulls(p - array['secret_sha256', 'last_used_at', 'last_used_ip'])
$$;

-- What happened to a row of a table, in the words of the audit.
create or replace function nofx.audit_action(p_table text, p_op text, p_before jsonb, p_after jsonb) returns text
    language sql immutable
    set search_path = ''
as $$
    select case p_table
        when 'policy' then 'policy.set'
        when 'db_write_rule' then case when p_op = 'DELETE' then 'rule.deleted' else 'rule.set' end
        when 'membership' then case
            when p_op = 'DELETE' or p_before ->> 'removed_at' is null and p_after ->> 'removed_at' is not null then 'member.removed'
            else 'member.set' end
        when 'api_token' then
            case when coalesce(p_after, p_before) ->> 'kind' = 'person' then 'session.' else 'token.' end
            || case
                when p_op = 'INSERT' then 'created'
                when p_op = 'DELETE' then 'deleted'
                when p_before ->> 'revoked_at' is null and p_after ->> 'revoked_at' is not null then 'revoked'
                else 'set' end
        when 'approval' then case p_after ->> 'decision'
            when 'approve' then 'decision.approved' when 'reject' then 'decision.rejected' when 'waive' then 'decision.waived' end
        when 'tenant' then case p_op when 'INSERT' then 'tenant.created' when 'DELETE' then 'tenant.deleted' else 'tenant.set' end
    end
$$;

-- Trigger, at the commit: one row for each changed row of a table. Its arguments are the column that names the subject, and the columns
-- whose new values the row shows.
create or replace function nofx.audit_change() returns trigger
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    -- Digests of rows with times are the same in every session.
    set timezone = 'UTC'
as $$
declare
    v_before jsonb := case when tg_op <> 'INSERT' then nofx.audited(to_jsonb(old)) end;
    v_after jsonb := case when tg_op <> 'DELETE' then nofx.audited(to_jsonb(new)) end;
    v_row jsonb := coalesce(v_after, v_before);
begin
    perform nofx.audit_append(
        v_row ->> 'tenant_id', nofx.audit_action(tg_table_name, tg_op, v_before, v_after),
        coalesce(v_row ->> tg_argv[0], tg_table_name), v_before, v_after,
        (select coalesce(jsonb_object_agg(shown.key, case when jsonb_typeof(shown.value) = 'string'
                                                          then to_jsonb(left(shown.value #>> '{}', 2000)) else shown.value end), '{}')
           from jsonb_each(v_row) shown
          where shown.key = any (tg_argv[1:])));
    return null;
end
$$;

-- Trigger: runs that the owner of the tables deletes, one row for each statement and tenant. `gone` are the deleted runs.
create or replace function nofx.audit_runs_deleted() returns trigger
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    set timezone = 'UTC'
as $$
declare
    v_tenant record;
begin
    for v_tenant in
        select g.tenant_id, count(*) as runs, min(g.created_at) as oldest, max(g.created_at) as newest
          from gone g
         group by g.tenant_id
         order by g.tenant_id
    loop
        perform nofx.audit_append(v_tenant.tenant_id, 'runs.deleted', 'runs', null, null,
            jsonb_build_object('runs', v_tenant.runs, 'oldest', v_tenant.oldest, 'newest', v_tenant.newest));
    end loop;
    return null;
end
$$;

-- Entries of the audit, newest first. p: {caller, after, limit, action, actor}: entries before number `after`, of this action, by an actor
-- of this name.
-- -> {entries: [the recorded object, with prev_hash and hash], next, head: {seq, hash}}
create or replace function nofx.audit_page(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := nofx.admitted(p, 'audit.read') ->> 'tenant_id';
    v_page jsonb;
begin
    -- The conditions are written only where they filter, so that each finds its index.
    execute 'with listed as (
            select a.seq, a.body, a.prev_hash, a.hash
              from nofx.audit a
             where a.tenant_id = $1 and a.seq < $2'
                || case when p ->> 'action' is not null then ' and a.action = $4' else '' end
                || case when p ->> 'actor' is not null then ' and a.actor = $5' else '' end
                || ' order by a.seq desc limit $3 + 1
        ), kept as (
            select b.*
              from (select l.*, row_number() over (order by l.seq desc) as n,
                           sum(octet_length(l.body)) over (order by l.seq desc) as bytes from listed l) b
             where b.n <= $3 and (b.n = 1 or b.bytes <= 393216)
        )
        select jsonb_build_object(
            ''entries'', coalesce((select jsonb_agg(k.body::jsonb || jsonb_build_object(
                                     ''prev_hash'', encode(k.prev_hash, ''hex''), ''hash'', encode(k.hash, ''hex'')) order by k.seq desc)
                                   from kept k), ''[]''),
            ''next'', case when (select count(*) from listed) > (select count(*) from kept) then (select min(k.seq) from kept k) end,
            ''head'', nofx.audit_head_json($1))'
       into v_page
      using v_tenant, coalesce((p ->> 'after')::bigint, 9223372036854775807), (p ->> 'limit')::bigint, p ->> 'action', p ->> 'actor';
    return v_page;
end
$$;

-- Rows of the audit as they are chained, oldest first. p: {caller, after, limit}: rows after number `after`.
-- -> {rows: [{seq, prev_hash, hash, body}], next, head: {seq, hash}}. Rows and head are of one moment: without `next`, the head is the last row.
create or replace function nofx.audit_export(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := nofx.admitted(p, 'audit.read') ->> 'tenant_id';
    v_limit bigint := p ->> 'limit';
    v_page jsonb;
begin
    with head as (
        select nofx.audit_head_json(v_tenant) as head
    ), listed as (
        select a.seq, a.body, a.prev_hash, a.hash
          from nofx.audit a
         where a.tenant_id = v_tenant and a.seq > (p ->> 'after')::bigint
         order by a.seq limit v_limit
    ), kept as (
        select b.*
          from (select l.*, sum(octet_length(l.body)) over (order by l.seq) as bytes,
                       row_number() over (order by l.seq) as n from listed l) b
         where b.n = 1 or b.bytes <= 393216
    ), page as (
        select jsonb_agg(jsonb_build_object('seq', k.seq, 'prev_hash', encode(k.prev_hash, 'hex'), 'hash', encode(k.hash, 'hex'),
                                            'body', k.body) order by k.seq) as rows,
               max(k.seq) as last
          from kept k
    )
    select jsonb_build_object('rows', coalesce(page.rows, '[]'),
                              'next', case when page.last < (head.head ->> 'seq')::bigint then page.last end, 'head', head.head)
      into v_page
      from page, head;
    return v_page;
end
$$;

-- The head of a tenant's chain: that of an empty one, before the first row.
create or replace function nofx.audit_head_json(p_tenant_id text) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_build_object('seq', coalesce(max(h.seq), 0), 'hash', coalesce(max(encode(h.hash, 'hex')), repeat('00', 32)))
      from nofx.audit_head h
     where h.tenant_id = p_tenant_id
$$;

revoke execute on function nofx.audit_append(text, text, text, jsonb, jsonb, jsonb), nofx.audited(jsonb),
    nofx.audit_action(text, text, jsonb, jsonb), nofx.audit_change(), nofx.audit_runs_deleted(), nofx.audit_head_json(text) from public;
select nofx.transition_declare('nofx.audit_page(jsonb)', 'nofx_api');
select nofx.transition_declare('nofx.audit_export(jsonb)', 'nofx_api');

-- functions/caller_admit.sql sha256=9c4652251ef70fdfb4e2101aa2a30ffe5a7eb2b5ff54f5689fec46b50e99f2af
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
-- p: {tenant, via: token|jwt|local, subject, token_id, kind, secret_sha256, ip, request_id}. A token is known by its id, its kind and the hash of
-- its secret. A JWT was verified by the function that got it, and says only who somebody is: the role is that of the membership. `local` is
-- one person on a laptop, and only a tenant made for that admits it.
-- Raises NF401 if the caller is not known, and NF403 if it may not do this. Until the end of the transaction, `nofx.caller` says to the
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
    if v_said <> v_who.name then
        perform set_config('nofx.caller', (current_setting('nofx.caller')::jsonb || jsonb_build_object('name', v_said))::text, true);
    end if;
    return p || jsonb_build_object(
        'tenant_id', v_who.tenant_id, 'actor', coalesce(v_said, v_who.name),
        'by', jsonb_strip_nulls(jsonb_build_object('kind', v_who.kind, 'subject', v_who.subject, 'token_id', v_who.token_id)));
end
$$;
revoke execute on function nofx.admitted(jsonb, text) from public;

-- functions/policy.sql sha256=e3896a2dfcba7d6578a544a8d1b585389bba32045485f5d2e3b344c7e740269c
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
revoke execute on function nofx.policy_changed(), nofx.policy_set(jsonb) from public;
grant execute on function nofx.policy_set(jsonb) to nofx_api;

-- Rows of a tenant: for the API by the claims that `nofx.read` sets. It has no grant, and reads the audit through functions.
do $$
declare
    v_table text;
begin
    foreach v_table in array array['audit', 'audit_head'] loop
        execute format('alter table nofx.%I enable row level security', v_table);
        execute format('create policy tenant_isolation on nofx.%I for select to nofx_api using (tenant_id = (select nofx.tenant_id()))', v_table);
    end loop;
end
$$;

-- What the audit records: the column that names the subject, and the columns that a row shows.
create constraint trigger audit_change after insert on nofx.policy deferrable initially deferred
    for each row execute function nofx.audit_change('', 'version', 'reason');
create constraint trigger audit_change after insert or update or delete on nofx.db_write_rule deferrable initially deferred
    for each row execute function nofx.audit_change('table_name', 'allowed_ops');
create constraint trigger audit_change after insert or update or delete on nofx.membership deferrable initially deferred
    for each row execute function nofx.audit_change('subject', 'role', 'name');
create constraint trigger audit_change after insert or delete on nofx.api_token deferrable initially deferred
    for each row execute function nofx.audit_change('id', 'kind', 'name', 'role', 'scopes', 'owner', 'expires_at');
-- Not each use of a token.
create constraint trigger audit_update after update on nofx.api_token deferrable initially deferred
    for each row when (to_jsonb(new) - array['last_used_at', 'last_used_ip'] is distinct from to_jsonb(old) - array['last_used_at', 'last_used_ip'])
    execute function nofx.audit_change('id', 'kind', 'name', 'role', 'scopes', 'owner', 'expires_at', 'revoked_by');
create constraint trigger audit_change after insert on nofx.approval deferrable initially deferred
    for each row execute function nofx.audit_change('gate_id', 'run_id', 'decision', 'reason', 'is_self', 'bound_digest');
create constraint trigger audit_change after insert or update or delete on nofx.tenant deferrable initially deferred
    for each row execute function nofx.audit_change('tenant_id', 'is_solo', 'disabled_at', 'limits');
create trigger audit_runs_deleted after delete on nofx.run
    referencing old table as gone for each statement execute function nofx.audit_runs_deleted();

-- What is kept as it was recorded, also in a session that skips usual triggers.
create trigger audit_is_chained before insert on nofx.audit for each row execute function nofx.audit_is_chained();
create trigger audit_head_follows before insert or update on nofx.audit_head for each row execute function nofx.audit_head_follows();
create trigger records_go_with_their_run after delete on nofx.event
    referencing old table as gone for each statement execute function nofx.records_go_with_their_run();
create trigger records_go_with_their_run after delete on nofx.approval
    referencing old table as gone for each statement execute function nofx.records_go_with_their_run();
do $$
declare
    v_kept record;
begin
    for v_kept in
        values ('audit', 'update or delete or truncate'), ('audit_head', 'delete or truncate'), ('policy', 'update or delete or truncate'),
               ('tenant_event', 'update or delete or truncate'), ('event', 'update or truncate'), ('approval', 'update or truncate')
    loop
        execute format('create trigger records_are_kept before %s on nofx.%I for each statement execute function nofx.records_are_kept()',
                       v_kept.column2, v_kept.column1);
    end loop;
    for v_kept in
        select t.tgrelid::regclass::text as of_table, t.tgname as name
          from pg_trigger t
         where t.tgname in ('records_are_kept', 'records_go_with_their_run', 'audit_is_chained', 'audit_head_follows')
    loop
        execute format('alter table %s enable always trigger %I', v_kept.of_table, v_kept.name);
    end loop;
end
$$;
drop trigger policy_is_kept on nofx.policy;
drop function nofx.policy_is_kept();
