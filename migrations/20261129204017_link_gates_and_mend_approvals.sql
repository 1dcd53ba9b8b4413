-- Makes one-time links to gates, counts a decision only while it may still be made, and lets a token do no more than its owner.

-- When its person logged in. Null for tokens of programs, and for sessions from before this column: then created_at counts.
alter table nofx.api_token add column login_at timestamptz;

-- When a member who was removed came back. Null for who never left.
alter table nofx.membership add column joined_at timestamptz;

-- Who comes back may approve the same bytes again. Under the run's lock nobody else does so twice.
drop index nofx.approval_once;
create index approval_of_gate on nofx.approval (gate_id, subject);

-- Which columns go with which state. Its text is that of functions/row_checks.sql.
create or replace function nofx.gate_link_is_sound(
    p_subject text, p_secret_sha256 bytea, p_created_at timestamptz, p_expires_at timestamptz, p_used_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_subject <> '' and length(p_secret_sha256) = 32
        and p_expires_at > p_created_at and p_expires_at <= p_created_at + interval '30 days'
        and (p_used_at is null or p_used_at between p_created_at and p_expires_at);
end
$$;
revoke execute on function nofx.gate_link_is_sound(text, bytea, timestamptz, timestamptz, timestamptz) from public;

-- A link decides nothing by itself: it is for one person, who logs in, and about what the gate asked when it was made. The secret is 32 random
-- bytes, so a plain hash keeps it.
create table nofx.gate_link (
    id            uuid primary key,
    tenant_id     text not null,
    run_id        uuid not null,
    gate_id       uuid not null references nofx.gate on delete cascade,
    -- The member that it is for.
    subject       text not null,
    -- What the gate asked about.
    bound_digest  nofx.sha256 not null,
    secret_sha256 bytea not null,
    created_by    text not null,
    created_at    timestamptz not null,
    expires_at    timestamptz not null,
    -- When a decision was recorded with it.
    used_at       timestamptz,
    constraint gate_link_is_sound check (nofx.gate_link_is_sound(subject, secret_sha256, created_at, expires_at, used_at))
);
create index gate_link_of_gate on nofx.gate_link (gate_id);

alter table nofx.gate_link enable row level security;
create policy tenant_isolation on nofx.gate_link for select to nofx_api using (tenant_id = (select nofx.tenant_id()));

create constraint trigger audit_change after insert or update on nofx.gate_link deferrable initially deferred
    for each row execute function nofx.audit_change('id', 'gate_id', 'run_id', 'subject', 'bound_digest', 'expires_at', 'used_at');
create trigger records_go_with_their_run after delete on nofx.gate_link
    referencing old table as gone for each statement execute function nofx.records_go_with_their_run();

-- Copies of the files in functions/. Change those files, not this one.

-- functions/append_only.sql sha256=487838398553dcfbba35673d94727c72510d96516efd647535d848c6b44918a4
-- Records are never changed, not even by the owner of the tables. To bypass these triggers somebody has to change the schema. A rewritten chain of
-- the audit does not match a head that somebody has stored before.

-- Trigger before update, delete or truncate: refuses the statement.
create or replace function nofx.records_are_kept() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    raise exception 'rows of nofx.% are never changed or deleted', tg_table_name using errcode = 'restrict_violation';
end
$$;

-- Trigger after delete: a record is deleted only together with its run. `gone` are the deleted rows.
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

-- Trigger before insert into the audit: a row must continue the chain, whoever adds it.
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

-- Trigger before insert or update of a chain's head: it starts before the first row, and can only move to the next row, which must exist.
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

-- functions/approval_rule.sql sha256=f2c778b8f98e51cd07493d1a2f7ee7a534be7aeb356ca1be585fab98af41cbb8
-- Approval rules: how many people must approve, and which. A plan asks for a rule, and the policy of the tenant caps it. A rule is
-- {required, roles, people, self, owners, waive, max_session_age_s}. `roles` has the least role that may decide. `people` is null for anybody.
-- `self` says whether people may decide about their own work. A value that cannot be read counts as the strictest one.

-- A count of people, from 1 to 20.
create or replace function nofx.approval_count(p_count jsonb) returns integer
    language sql immutable
    set search_path = ''
as $$
    select case coalesce(jsonb_typeof(p_count), 'null')
               when 'null' then 1
               when 'number' then least(greatest(ceil(p_count::numeric), 1), 20)::integer
               else 20 end
$$;

-- A number of seconds, up to a year. Null if there is none.
create or replace function nofx.approval_seconds(p_seconds jsonb) returns integer
    language sql immutable
    set search_path = ''
as $$
    select case coalesce(jsonb_typeof(p_seconds), 'null')
               when 'null' then null
               when 'number' then least(greatest(p_seconds::numeric, 1), 31536000)::integer
               else 1 end
$$;

-- The least role of a list. A role includes those below it, so only the least one matters.
create or replace function nofx.approval_role(p_roles jsonb) returns text
    language sql immutable
    set search_path = ''
as $$
    select case when coalesce(jsonb_typeof(p_roles), 'null') = 'null' or p_roles @> '["approver"]' then 'approver' else 'admin' end
$$;

-- The stricter of a rule and a policy, field by field. If the policy has become looser since, the rule keeps the stricter values.
create or replace function nofx.approval_strictest(p_rule jsonb, p_policy jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_build_object(
        'required', greatest(nofx.approval_count(p_rule -> 'required'), nofx.approval_count(p_policy -> 'minimum')),
        'roles', jsonb_build_array(case when 'admin' in (nofx.approval_role(p_rule -> 'roles'), nofx.approval_role(p_policy -> 'roles'))
                                        then 'admin' else 'approver' end),
        'people', nullif(p_rule -> 'people', 'null'),
        'self', coalesce(p_policy ->> 'self' = 'allowed', false) and coalesce(p_rule -> 'self', 'null') in ('null', 'true'),
        'owners', case when p_policy ->> 'owners' = 'allowed' and coalesce(p_rule ->> 'owners', 'allowed') = 'allowed'
                       then 'allowed' else 'excluded' end,
        'waive', case when coalesce(p_policy ->> 'waive', 'admins') = 'admins' and coalesce(p_rule ->> 'waive', 'admins') = 'admins'
                      then 'admins' else 'nobody' end,
        'max_session_age_s', least(nofx.approval_seconds(p_policy -> 'max_session_age_s'),
                                   nofx.approval_seconds(p_rule -> 'max_session_age_s')))
$$;

-- What the current policy of a tenant says about approvals.
create or replace function nofx.approval_policy(p_tenant text) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_approvals jsonb;
begin
    select p.document -> 'approvals' into v_approvals
      from nofx.policy p
     where p.tenant_id = p_tenant
     order by p.version desc limit 1;
    return case when jsonb_typeof(v_approvals) = 'object' then v_approvals else '{}' end;
end
$$;

-- When a gate of this tenant expires, if it may wait p_after_s. Null for never.
create or replace function nofx.approval_expiry(p_tenant text, p_after_s integer, p_now timestamptz) returns timestamptz
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select p_now + make_interval(secs => least(p_after_s, nofx.approval_seconds(nofx.approval_policy(p_tenant) -> 'max_expires_after_s')))
$$;

-- The rule that a step's plan asks for: its field `approval`, or that of the inputs of a step that only asks.
create or replace function nofx.approval_asked(p_step nofx.step) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select case when jsonb_typeof(a.asked) = 'object' then a.asked else '{}' end
      from (select case when p_step.handler = 'manual' then p_step.inputs -> 'approval' else p_step.approval end as asked) a
$$;

-- Whether a rule allows this member: by role, and by the list of people if there is one.
create or replace function nofx.approval_names(p_rule jsonb, p_member nofx.membership) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select coalesce(nofx.permits('gates.decide', p_member.role, 'person')
                    and nofx.role_rank(p_member.role) >= nofx.role_rank(nofx.approval_role(p_rule -> 'roles'))
                    and case coalesce(jsonb_typeof(p_rule -> 'people'), 'null')
                            when 'null' then true
                            when 'array' then (p_rule -> 'people') ? p_member.subject
                                 or exists (select from jsonb_array_elements_text(p_rule -> 'people') l
                                             where lower(l) = lower(p_member.email))
                            else false end, false)
$$;

-- Problems of the approvals that a plan asks for, in the tenant p_tenant: [{path, message}], or null. p_steps: the steps as nofx.run_create takes
-- them.
create or replace function nofx.approval_problems(p_tenant text, p_steps jsonb) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_agg(jsonb_build_object(
               'path', format('plan.steps[%s].%s.people', (s ->> 'ordinal'), case when s ->> 'handler' = 'manual' then 'inputs.approval' else 'approval' end),
               'message', format('names %s people, and the policy demands %s approvals', jsonb_array_length(a.asked -> 'people'), p.minimum))
               order by (s ->> 'ordinal')::integer)
      from jsonb_array_elements(p_steps) s
     cross join lateral (select case when s ->> 'handler' = 'manual' then s -> 'inputs' -> 'approval' else s -> 'approval' end as asked) a
     cross join (select nofx.approval_count(nofx.approval_policy(p_tenant) -> 'minimum') as minimum) p
     where jsonb_typeof(a.asked -> 'people') = 'array' and jsonb_array_length(a.asked -> 'people') < p.minimum
$$;

-- The rules that result from the approvals of a plan and the policy: {rules: {NAME: rule}, problems}. p_steps: the steps that ask, as
-- nofx.run_create takes them.
create or replace function nofx.approval_rules(p_steps jsonb) returns jsonb
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := nofx.tenant_id();
    v_policy jsonb := nofx.approval_policy(v_tenant);
begin
    return jsonb_build_object(
        'rules', (select coalesce(jsonb_object_agg(s ->> 'name', nofx.approval_strictest(
                             case when s ->> 'handler' = 'manual' then s -> 'inputs' -> 'approval' else s -> 'approval' end, v_policy)), '{}')
                    from jsonb_array_elements(p_steps) s),
        'problems', coalesce(nofx.approval_problems(v_tenant, p_steps), '[]'));
end
$$;
revoke execute on function nofx.approval_count(jsonb), nofx.approval_seconds(jsonb), nofx.approval_role(jsonb),
    nofx.approval_strictest(jsonb, jsonb), nofx.approval_policy(text), nofx.approval_expiry(text, integer, timestamptz),
    nofx.approval_asked(nofx.step), nofx.approval_names(jsonb, nofx.membership), nofx.approval_problems(text, jsonb), nofx.approval_rules(jsonb) from public;
grant execute on function nofx.approval_rules(jsonb) to nofx_api;

-- functions/audit.sql sha256=8351f2a151ceac0e5bbebd2553ce73d5f10fe860ef5a1ef0bc12d29a60dc570d
-- The audit of a tenant: rows that are added and never changed. Each has the hash of the row before. Triggers write them, so every change of a
-- policy, a rule, a member, a token or a tenant, and every decision, adds a row, whatever made it.

-- Adds a row to the chain of a tenant. The actor is the principal that `nofx.caller_admit` admitted in this transaction, else the database
-- login. p_before and p_after are the changed row; only their digests are stored.
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
    -- The caller is of another tenant: somebody with a login changes this tenant directly, after a call in the same transaction.
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

-- A row as the audit digests it: without secrets, and without the columns that each use changes. Nulls are left out, so a new column does not
-- change the digest of an older row.
create or replace function nofx.audited(p jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select jsonb_strip_nulls(p - array['secret_sha256', 'last_used_at', 'last_used_ip'])
$$;

-- The action of the audit for a change of a row.
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
        when 'gate_link' then case
            when p_op = 'INSERT' then 'link.created'
            when p_before ->> 'used_at' is null and p_after ->> 'used_at' is not null then 'link.used'
            else 'link.set' end
        when 'tenant' then case p_op when 'INSERT' then 'tenant.created' when 'DELETE' then 'tenant.deleted' else 'tenant.set' end
    end
$$;

-- Trigger, at the commit: adds one row for each changed row of a table. Its arguments are the column with the subject, and the columns whose new
-- values the row contains.
create or replace function nofx.audit_change() returns trigger
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
    -- So that digests of rows with times are the same in every session.
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

-- Trigger after delete of runs by the owner of the tables: adds one row for each statement and tenant. `gone` are the deleted runs.
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
    -- A condition is added only if its filter is set, so that Postgres can use the filter's index.
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

-- Rows of the chain, oldest first. p: {caller, after, limit}: rows after number `after`.
-- -> {rows: [{seq, prev_hash, hash, body}], next, head: {seq, hash}}. Rows and head are read at the same moment: without `next`, the head is the last row.
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

-- The head of a tenant's chain. Before the first row it is {seq: 0, hash: zeros}.
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

-- functions/caller_admit.sql sha256=43a7f51e8a31b92e8588a5bf297d2d9072544829b7e8c08da2520acfa94788fb
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
    set search_path = ''
as $$
    select jsonb_build_object('did', p_did, 'kind', p_call -> 'who' -> 'kind', 'subject', p_call -> 'who' -> 'subject',
                              'owner', p_call -> 'who' -> 'owner')
$$;
revoke execute on function nofx.author_of(jsonb, text) from public;

-- functions/db_write.sql sha256=c22fd1ff60c5a9144c890a83092bcac89079ab026f7a3c138d881788cffdd536
-- The keys of an object; an empty array for any other value.
create or replace function nofx.keys_of(p jsonb) returns text[]
    language plpgsql immutable
    set search_path = nofx, pg_temp
as $$
begin
    if jsonb_typeof(p) is distinct from 'object' then
        return '{}';
    end if;
    return array(select jsonb_object_keys(p));
end
$$;

-- A table's name as rules write it: schema.table.
create or replace function nofx.table_label(p_relation oid) returns text
    language sql stable
    set search_path = ''
as $$
    select n.nspname || '.' || c.relname
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = p_relation
$$;

-- Everything about a table that could make a write do more than it says. Null if there is no such table.
-- -> {oid, table, kind, counts, members: [tables], inherited, closed: [tables], definer_views: [views],
--     triggers: {name: sha256}, deferrable: [triggers],
--     foreign_keys: [{parent, child, on_delete, on_update, parent_columns, child_columns}]}
--
-- members        the table, its partitions, and the tables that inherit from it
-- triggers       enabled triggers and rewrite rules (`rule:name`) of the members, of what a view reads, of every table that a cascade
--                reaches, and of p_dependants; each with the sha256 of its definition and of its function's definition
-- deferrable     those of them that could run after rows were counted
-- closed         tables of closed schemas that a view or a cascade reaches
-- definer_views  views that read with their owner's rights
create or replace function nofx.db_write_target(p_schema text, p_table text, p_dependants text[] default '{}') returns jsonb
    language plpgsql stable
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_oid oid;
    v_kind "char";
    v_members oid[];
    v_read oid[];
    v_reached oid[];
begin
    select c.oid, c.relkind into v_oid, v_kind
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = p_schema and c.relname = p_table;
    if not found then
        return null;
    end if;
    with recursive member(id) as (
        select v_oid union select i.inhrelid from member m join pg_inherits i on i.inhparent = m.id
    )
    select array_agg(m.id) into v_members from member m;
    with recursive read(id) as (
        select v_oid
        union
        select d.refobjid
          from read r
          join pg_rewrite w on w.ev_class = r.id
          join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                          and d.refclassid = 'pg_class'::regclass
    )
    select array_agg(r.id) into v_read from read r;
    -- Follows foreign keys that change their child's rows. The key of a partitioned table stands for those of its partitions.
    with recursive reached(id) as (
        select unnest(v_members || v_read || pg_partition_root(v_oid)::oid
                      || array(select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
                                where n.nspname || '.' || c.relname = any (p_dependants)))
        union
        select k.conrelid
          from reached r
          join pg_constraint k on k.confrelid = r.id and k.contype = 'f'
         where k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd')
    )
    select array_agg(r.id) into v_reached from reached r where r.id is not null;
    return jsonb_build_object(
        'oid', v_oid::bigint, 'table', nofx.table_label(v_oid), 'kind', v_kind,
        'counts', current_setting('track_counts') = 'on',
        'members', (select jsonb_agg(nofx.table_label(m) order by m) from unnest(v_members) m),
        'inherited', exists (select from pg_inherits i join pg_class c on c.oid = i.inhrelid
                              where i.inhparent = any (v_members) and not c.relispartition),
        'closed', coalesce((
            select jsonb_agg(distinct nofx.table_label(c.oid))
              from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where c.oid = any (v_reached) and nofx.schema_is_closed(n.nspname)), '[]'),
        'definer_views', coalesce((
            select jsonb_agg(nofx.table_label(c.oid) order by c.oid)
              from pg_class c
             where c.oid = any (v_read) and c.relkind = 'v'
               and not coalesce(c.reloptions && array['security_invoker=true', 'security_invoker=on',
                                                      'security_invoker=1', 'security_invoker=yes'], false)), '[]'),
        'triggers', coalesce((
            select jsonb_object_agg(d.name, encode(sha256(convert_to(d.definition, 'UTF8')), 'hex'))
              from (select nofx.table_label(t.tgrelid) || '.' || t.tgname as name,
                           concat_ws(E'\n', pg_get_triggerdef(t.oid), pg_get_functiondef(t.tgfoid),
                                     p.proowner::regrole, t.tgenabled) as definition
                      from pg_trigger t join pg_proc p on p.oid = t.tgfoid
                     where t.tgrelid = any (v_reached) and not t.tgisinternal and t.tgenabled <> 'D'
                    union all
                    select nofx.table_label(w.ev_class) || '.rule:' || w.rulename,
                           concat_ws(E'\n', pg_get_ruledef(w.oid), w.ev_enabled)
                      from pg_rewrite w
                     where w.ev_class = any (v_reached) and w.rulename <> '_RETURN'
                       and w.ev_enabled <> 'D') d), '{}'),
        'deferrable', coalesce((
            select jsonb_agg(nofx.table_label(t.tgrelid) || '.' || t.tgname order by t.oid)
              from pg_trigger t
             where t.tgrelid = any (v_reached) and not t.tgisinternal and t.tgenabled <> 'D' and t.tgdeferrable), '[]'),
        'foreign_keys', coalesce((
            select jsonb_agg(jsonb_build_object(
                       'parent', nofx.table_label(k.confrelid), 'child', nofx.table_label(k.conrelid),
                       'on_delete', k.confdeltype, 'on_update', k.confupdtype,
                       'parent_columns', (select jsonb_agg(a.attname) from pg_attribute a
                                           where a.attrelid = k.confrelid and a.attnum = any (k.confkey)),
                       'child_columns', (select jsonb_agg(a.attname) from pg_attribute a
                                          where a.attrelid = k.conrelid and a.attnum = any (k.conkey)))
                       order by k.oid)
              from pg_constraint k
             where k.contype = 'f' and k.confrelid = any (v_reached) and k.conparentid = 0
               and (k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd'))), '[]'));
end
$$;

-- Rows that this connection has changed and not yet reported, by table: [{table, root, closed, inserted, updated, deleted}]. `root` is the
-- partitioned table that a partition belongs to. Rows that cascades and triggers changed are included, also in tables that the role cannot
-- see. The server reports only when a connection is idle, so the counts may include earlier transactions: what one transaction did is the
-- difference of two calls.
create or replace function nofx.db_write_effects() returns jsonb
    language sql volatile
    set search_path = nofx, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'table', s.schemaname || '.' || s.relname,
               'root', nofx.table_label(coalesce(pg_partition_root(s.relid)::oid, s.relid)),
               'closed', nofx.schema_is_closed(s.schemaname),
               'inserted', s.n_tup_ins, 'updated', s.n_tup_upd, 'deleted', s.n_tup_del)), '[]')
      from pg_stat_xact_user_tables s
     where s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0
$$;

-- What a write needs to know before it begins. p: {tenant_id, step_id, schema, table}
-- -> {closed, rule: {allowed_ops, ..constraints}, is_rule_approved, role: {name, state}, target, effects}. is_rule_approved: false if people
-- approved the step while another rule was in force.
create or replace function nofx.db_write_look(p jsonb) returns jsonb
    language plpgsql volatile
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_rule record;
    v_role text;
begin
    select r.allowed_ops, r.constraints into v_rule
      from nofx.db_write_rule r
     where r.tenant_id = p ->> 'tenant_id' and r.table_name = (p ->> 'schema') || '.' || (p ->> 'table');
    if not found then
        return jsonb_build_object('closed', nofx.schema_is_closed(p ->> 'schema'), 'rule', null);
    end if;
    v_role := coalesce(v_rule.constraints ->> 'role', 'nofx_writer');
    return jsonb_build_object(
        'closed', nofx.schema_is_closed(p ->> 'schema'),
        'rule', v_rule.constraints || jsonb_build_object('allowed_ops', v_rule.allowed_ops),
        'is_rule_approved', not exists (
            select from nofx.step s
             where s.id = (p ->> 'step_id')::uuid and s.tenant_id = p ->> 'tenant_id' and s.approval is not null
               and not exists (select from nofx.gate g
                                where g.step_id = s.id and g.gate_type = nofx.approval_type(s.tool) and g.status in ('passed', 'waived')
                                  and g.voided_at is null and g.bound ->> 'rule' is not distinct from nofx.rule_binding(s))),
        'role', coalesce((
            with recursive belongs(id) as (
                select r.oid from pg_roles r where r.rolname = v_role
                union
                select m.roleid from belongs b join pg_auth_members m on m.member = b.id
            )
            select jsonb_build_object(
                       'name', v_role,
                       'state', case when count(*) = 0 then 'missing'
                                     when bool_or(r.rolsuper or r.rolbypassrls) then 'superuser'
                                     -- Policies do not apply to a table's owner.
                                     when exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                                                   where n.nspname = p ->> 'schema' and c.relname = p ->> 'table'
                                                     and c.relowner = any (array_agg(r.oid))) then 'owner'
                                     when bool_or(has_schema_privilege(r.oid, 'nofx', 'usage')) then 'reaches_us'
                                     when not bool_or(r.rolname = v_role and pg_has_role(session_user, r.oid, 'member'))
                                          then 'no_member'
                                     else 'usable' end)
              from belongs b join pg_roles r on r.oid = b.id), '{}'),
        'target', nofx.db_write_target(p ->> 'schema', p ->> 'table', nofx.keys_of(v_rule.constraints -> 'dependants')),
        'effects', nofx.db_write_effects());
end
$$;

-- What a write has done, within its transaction. p: {schema, table, dependants: [tables]}
-- -> {target, effects, alters}. `alters`: a table was truncated or altered, which no counter shows. Only such statements lock a table against
-- readers.
create or replace function nofx.db_write_account(p jsonb) returns jsonb
    language plpgsql volatile
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    return jsonb_build_object(
        'target', nofx.db_write_target(p ->> 'schema', p ->> 'table',
                                       array(select jsonb_array_elements_text(p -> 'dependants'))),
        'effects', nofx.db_write_effects(),
        'alters', exists (select from pg_locks l
                           where l.pid = pg_backend_pid() and l.locktype = 'relation'
                             and l.mode = 'AccessExclusiveLock'));
end
$$;
revoke execute on function nofx.keys_of(jsonb), nofx.table_label(oid), nofx.db_write_target(text, text, text[]),
    nofx.db_write_effects(), nofx.db_write_look(jsonb), nofx.db_write_account(jsonb) from public;
grant execute on function nofx.db_write_look(jsonb), nofx.db_write_account(jsonb) to nofx_worker;
grant execute on function nofx.db_write_target(text, text, text[]), nofx.keys_of(jsonb) to nofx_api;

-- functions/gate_create.sql sha256=e9962eb33c77cdac1f462444a8462976a8a5082e7341414915c19ea0dc22835a
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
    v_rule jsonb;
    v_bound jsonb;
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

    -- A client chooses where the gate is. The policy alone says who decides it.
    v_rule := nofx.approval_strictest('{}', nofx.approval_policy(v_run.tenant_id));
    v_bound := nofx.run_binding(v_run.id, v_step.id);
    insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, evidence_uri, reason,
                           expires_at, created_at, rule, bound, bound_digest)
    values ((p ->> 'id')::uuid, v_run.tenant_id, v_run.id, v_step.id, p ->> 'gate_type', 'pending', 'release',
            v_run.generation, p ->> 'evidence_uri', p ->> 'reason',
            nofx.approval_expiry(v_run.tenant_id, (p ->> 'expires_after_s')::integer, v_now), v_now, v_rule, v_bound,
            nofx.binding_digest(v_bound));
    perform nofx.runs_settle(array[
        nofx.gate_change(v_run.id, v_step.id, 'gate.created',
                         nofx.gate_asked((p ->> 'id')::uuid, p ->> 'gate_type', v_rule, nofx.binding_digest(v_bound)), 1),
        nofx.step_change(v_run.id, v_step.id, v_step.status, case when v_step.id is not null then 'pending' end, null)],
        v_now);
    return jsonb_build_object('result', 'created', 'status', 'pending');
end
$$;
select nofx.transition_declare('nofx.gate_create(jsonb)', 'nofx_api');

-- functions/gate_decide.sql sha256=7ca175a2731aa864d65b6eceac1cd89825926416209e40b3fe4771da9b6a534b
-- Decides a pending gate for every path: the API, the console, the command and links. A rejection or a waiver ends the gate at once. An
-- approval ends it when as many different people have approved as its rule requires. In the same transaction its step continues, and what
-- depends on that step becomes ready. Several gates of a run may ask the same question, whether changed checks count: a decision of a person
-- to let one pass counts for the others too.

-- Records one decision about a gate that is open. -> whether it ends the gate, with the name of everybody whose approval counted
create or replace function nofx.decision_record(p_gate nofx.gate, p_rule jsonb, p jsonb, p_now timestamptz)
    returns table (ends boolean, approved integer, names text)
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_subject text := p -> 'who' ->> 'subject';
    v_names text;
begin
    select 1 + count(*), string_agg(a.actor || ', ', '' order by a.created_at, a.id)
      into approved, v_names
      from nofx.gate_approvals(p_gate, p_rule) a
     where p ->> 'decision' = 'approve' and a.subject <> v_subject;
    ends := p ->> 'decision' <> 'approve' or approved >= (p_rule ->> 'required')::integer;
    names := coalesce(v_names, '') || (p ->> 'actor');
    insert into nofx.approval (tenant_id, run_id, gate_id, decision, actor, reason, created_at, subject, is_self, decides, bound_digest,
                               envelope)
    values (p_gate.tenant_id, p_gate.run_id, p_gate.id, p ->> 'decision', p ->> 'actor', p ->> 'reason', p_now, v_subject,
            v_subject = any (nofx.gate_excluded(p_gate.run_id, p_rule)), ends, p_gate.bound_digest,
            nullif(p -> 'envelope', 'null'));
    return next;
end
$$;

-- p: {caller, gate_id, decision: approve|reject|waive, actor, reason, seen, envelope, link, is_dry}. is_dry: decide nothing, and say `changed` if a
-- decision were possible. seen: the digest of what the person has seen, and of what
-- the envelope, the signed statement about the decision, is about.
-- -> {result: decided|recorded|unchanged|excluded|changed|link|conflict|not_found, gate: {..}, why, changed: [paths], ready: [wake-ups]}.
-- `recorded`: more approvals are needed. `unchanged`: the person's approval was recorded before. `excluded`: the person may not decide, and `why`
-- is that of nofx.gate_may_decide. `changed`: the gate is not about what the person saw; from now on it asks about what is there.
-- `link`: p names a link that cannot be used, and `why` is that of nofx.link_why_not.
create or replace function nofx.gate_decide(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_gate nofx.gate;
    v_rule jsonb;
    v_why text;
    v_bound jsonb;
    v_changed jsonb;
    v_now timestamptz;
    v_status text := case p ->> 'decision' when 'approve' then 'passed' when 'waive' then 'waived'
                                           when 'reject' then 'failed' end;
    v_one record;
    v_ended uuid[] := '{}';
    v_changes nofx.change[] := '{}';
begin
    p := nofx.admitted(p, case p ->> 'decision' when 'waive' then 'gates.waive' else 'gates.decide' end);
    -- Whatever the table of permissions says: only people decide.
    if p -> 'who' ->> 'kind' is distinct from 'person' then
        raise exception 'forbidden' using errcode = 'NF403', detail = 'gates.decide';
    end if;
    perform 1 from nofx.run r
      where r.id = (select g.run_id from nofx.gate g
                     where g.id = (p ->> 'gate_id')::uuid and g.tenant_id = p ->> 'tenant_id')
        for no key update;
    if not found then
        return jsonb_build_object('result', 'not_found');
    end if;
    v_now := clock_timestamp();
    select * into strict v_gate from nofx.gate g where g.id = (p ->> 'gate_id')::uuid;
    v_rule := nofx.gate_rule(v_gate);
    v_why := nofx.gate_may_decide(v_gate, v_rule, p -> 'who', p ->> 'decision');
    if v_why is not null then
        return jsonb_build_object(
            'result', case v_why when 'decided' then 'conflict' when 'expired' then 'conflict' when 'done' then 'unchanged' else 'excluded' end,
            'why', v_why, 'gate', nofx.gate_view(v_gate.id, p -> 'who'), 'ready', '[]'::jsonb);
    end if;
    if v_status is null or (v_status <> 'passed' and coalesce(p ->> 'reason', '') !~ '\S') then
        raise exception 'a rejection and a waiver need a reason' using errcode = 'invalid_parameter_value';
    end if;
    if (p ->> 'is_dry')::boolean then
        return jsonb_build_object('result', 'changed', 'changed', '["may_decide"]'::jsonb, 'gate', nofx.gate_view(v_gate.id, p -> 'who'),
                                  'ready', '[]'::jsonb);
    end if;
    v_bound := nofx.gate_binding(v_gate);
    v_changed := case when v_gate.bound is null then '[]' else nofx.binding_changes(v_gate.bound, v_bound) end;
    if v_changed <> '[]' then
        update nofx.gate g set bound = v_bound, bound_digest = nofx.binding_digest(v_bound) where g.id = v_gate.id;
        perform nofx.runs_settle(array[nofx.fact(v_gate.run_id, v_gate.step_id, 'gate.voided', jsonb_build_object(
            'gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'changed', v_changed, 'digest', nofx.binding_digest(v_bound)))], v_now);
    elsif p ->> 'seen' <> v_gate.bound_digest then
        v_changed := '["digest"]';
    end if;
    if v_changed <> '[]' then
        return jsonb_build_object('result', 'changed', 'changed', v_changed, 'gate', nofx.gate_view(v_gate.id, p -> 'who'), 'ready', '[]'::jsonb);
    end if;
    v_why := nofx.link_use(v_gate, p, v_now);
    if v_why is not null then
        return jsonb_build_object('result', 'link', 'why', v_why);
    end if;

    for v_one in
        select g.id, g as gate
          from nofx.gate g
         where g.id = v_gate.id
            or (v_status <> 'failed' and v_gate.gate_type = 'manual:gate-change' and v_gate.subject is not null
                and g.run_id = v_gate.run_id and g.gate_type = 'manual:gate-change' and g.step_id is not null
                and g.status = 'pending' and g.generation = v_gate.generation and g.subject = v_gate.subject
                and (g.expires_at is null or g.expires_at >= v_now))
         order by g.id
    loop
        declare
            v_each jsonb := nofx.gate_rule(v_one.gate);
            v_end record;
        begin
            continue when v_one.id <> v_gate.id
                and (nofx.gate_may_decide(v_one.gate, v_each, p -> 'who', p ->> 'decision') is not null
                     or (v_one.gate).bound is distinct from nofx.gate_binding(v_one.gate));
            select * into v_end from nofx.decision_record(v_one.gate, v_each, p, v_now);
            update nofx.gate g
               set rule = v_each,
                   status = case when v_end.ends then v_status else g.status end,
                   decided_at = case when v_end.ends then v_now end,
                   approved_by = case when v_end.ends and v_status <> 'failed' then v_end.names end,
                   approved_at = case when v_end.ends and v_status <> 'failed' then v_now end
             where g.id = v_one.id;
            if v_end.ends then
                v_ended := v_ended || v_one.id;
            else
                v_changes := v_changes || nofx.fact(v_gate.run_id, (v_one.gate).step_id, 'gate.approved', jsonb_strip_nulls(
                    jsonb_build_object('gate_id', v_one.id, 'gate_type', (v_one.gate).gate_type, 'actor', p ->> 'actor', 'by', p -> 'by',
                                       'reason', p ->> 'reason', 'approved', v_end.approved, 'required', v_each -> 'required',
                                       'digest', (v_one.gate).bound_digest)));
            end if;
        end;
    end loop;

    v_changes := v_changes || nofx.gates_conclude(v_ended, jsonb_strip_nulls(jsonb_build_object(
        'decision', p ->> 'decision', 'actor', p ->> 'actor', 'by', p -> 'by', 'reason', p ->> 'reason',
        'is_self', case when (p -> 'who' ->> 'subject') = any (nofx.gate_excluded(v_gate.run_id, v_rule)) then true end)), v_now);
    perform nofx.runs_settle(v_changes, v_now);
    return jsonb_build_object('result', case when v_gate.id = any (v_ended) then 'decided' else 'recorded' end,
                              'gate', nofx.gate_view(v_gate.id, p -> 'who'),
                              'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
revoke execute on function nofx.decision_record(nofx.gate, jsonb, jsonb, timestamptz) from public;
select nofx.transition_declare('nofx.gate_decide(jsonb)', 'nofx_api');

-- functions/gate_link.sql sha256=0314f41a0f4f3f3b505f48952b3f18f4f1181787ec8608c9ff498a00443bed36
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
             or p_link.subject is distinct from p_who ->> 'subject' then 'other'
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

-- functions/gate_standing.sql sha256=37b6e333ac0ff7b353f9c29eef3567a4cd1be1ba354d3ff0dd829295829373a5
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
        return v_rule ->> 'waive' is not distinct from 'admins';
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
        v_login := coalesce((select coalesce(t.login_at, t.created_at) from nofx.api_token t where t.id = (p_who ->> 'token_id')::uuid),
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

-- functions/jwks.sql sha256=605701d0ff07bb73ed4e7bcdc49495fa51aa698ec31040909b58bb0c53a21c25
-- Stores the issuer's public keys, for a process that starts while the issuer's key endpoint is down. A process needs them before it knows its
-- caller, so these two functions take no caller.

-- Stores the document of an issuer, and replaces an older one. Many processes call it, so it writes only a different document, or one that is more
-- than 30 minutes newer. p: {tenant_id, issuer, document, fetched_at_ms} -> {result: stored|unchanged}. The tenant is that of the deployment.
create or replace function nofx.jwks_store(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_fetched_at timestamptz := to_timestamp((p ->> 'fetched_at_ms')::bigint / 1000.0);
begin
    insert into nofx.jwks as j (tenant_id, issuer, document, fetched_at)
    values (p ->> 'tenant_id', p ->> 'issuer', p ->> 'document', least(v_fetched_at, clock_timestamp()))
        on conflict (tenant_id, issuer) do update set document = excluded.document, fetched_at = excluded.fetched_at
     where excluded.fetched_at > j.fetched_at
       and (excluded.document <> j.document or excluded.fetched_at > j.fetched_at + interval '30 minutes');
    return jsonb_build_object('result', case when found then 'stored' else 'unchanged' end);
end
$$;
select nofx.transition_declare('nofx.jwks_store(jsonb)', 'nofx_api');

-- The last document of an issuer. p: {tenant_id, issuer} -> {document, fetched_at_ms}, both null if there is none.
create or replace function nofx.jwks_last(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_jwks nofx.jwks;
begin
    select * into v_jwks from nofx.jwks j where j.tenant_id = p ->> 'tenant_id' and j.issuer = p ->> 'issuer';
    return jsonb_build_object('document', v_jwks.document,
                              'fetched_at_ms', (extract(epoch from v_jwks.fetched_at) * 1000)::bigint);
end
$$;
select nofx.transition_declare('nofx.jwks_last(jsonb)', 'nofx_api');

-- functions/members.sql sha256=b262183524afc77615867e50165bf954fd7121b8c6a19fe92f4161be6cf6908b
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
    select case when bool_or(lower(p ->> 'name') in (lower(m.name), lower(m.subject), lower(m.email))) then 'name_taken'
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

-- functions/permissions.sql sha256=e87847af3ddecde94072c8b54d52d7e56adfc982df406bd82dbf32e46c88d188
-- Who may do what. A caller needs at least the role of a permission, and one of its kinds. This is the only table of permissions. Routes name a
-- permission, and docs/security.md lists the table for people.

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
-- Whether a permission is about members, tokens and sessions.
create or replace function nofx.is_of_access(p_permission text) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select split_part(p_permission, '.', 1) in ('members', 'tokens', 'sessions')
$$;
revoke execute on function nofx.permission_list(), nofx.role_rank(text), nofx.permits(text, text, text), nofx.is_of_access(text) from public;

-- functions/read.sql sha256=f1ccd3744450ac1871c5a9cdf028b144d2090e0d8216a87422cdb096c4b78c11
-- Runs a query of the API for a caller: admits the caller, and then reads under row level security with its tenant's claims, all in one
-- statement. Role and claims end with the transaction, so this is safe with a pooler in transaction mode. A query that forgets `where tenant_id`
-- returns no rows of another tenant.
--
-- The function runs as the login that calls it, because a function that runs as its owner cannot change the role. p_sql is text of the API, and can
-- read only what the role nofx_api may read. It selects (item text, n bigint), and takes its parameters from $1, a JSON array: `($1 ->> 0)::uuid`.
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
                                          'app_metadata', jsonb_build_object('tenant_id', v_who.tenant_id),
                                          'principal', nofx.principal_json(v_who)
                                                       || jsonb_build_object('login_at', p_caller -> 'login_at'))::text, true),
            set_config('role', 'nofx_api', true);
    return query select nofx.principal_json(v_who), null::text, null::bigint;
    return query execute 'select null::jsonb, q.item, q.n from (' || p_sql || ') q' using p_args;
end
$$;
revoke execute on function nofx.read(jsonb, text, text, jsonb) from public;
grant execute on function nofx.read(jsonb, text, text, jsonb) to nofx_api;

-- functions/row_checks.sql sha256=5fb827acf2826acc533db909a056fc5e87dfcb76f65f78cd5d2e4a2e3711b42b
-- CHECK constraints of tables that transitions write: which columns go with which state. One function for each table, because Postgres parses
-- the text of a CHECK again for every statement.
create or replace function nofx.run_is_sound(
    p_tenant_id text, p_status text, p_generation integer, p_timeout_s integer, p_pending integer, p_ready integer,
    p_running integer, p_blocked integer, p_failed integer, p_gates integer, p_paused_at timestamptz,
    p_cancelled_at timestamptz, p_finished_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_generation >= 1 and coalesce(p_timeout_s, 1) > 0
        and p_pending >= 0 and p_ready >= 0 and p_running >= 0 and p_blocked >= 0 and p_failed >= 0 and p_gates >= 0
        and case
            when p_status in ('queued', 'running', 'blocked') then p_finished_at is null
            when p_status = 'paused' then p_finished_at is null and p_paused_at is not null
            when p_status in ('succeeded', 'failed', 'cancelled')
                then p_finished_at is not null and p_pending + p_ready + p_running + p_blocked = 0
                     and (p_status <> 'cancelled' or p_cancelled_at is not null)
            else false
        end;
end
$$;

create or replace function nofx.step_is_sound(
    p_status text, p_blockers integer, p_attempt integer, p_failures integer, p_workers_lost integer,
    p_max_attempts integer, p_backoff_ms integer, p_timeout_s integer, p_ready_at timestamptz, p_notify_at timestamptz,
    p_lease_until timestamptz, p_finished_at timestamptz, p_has_outputs boolean, p_has_error boolean
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_blockers >= 0 and p_attempt >= 0 and p_failures >= 0 and p_workers_lost >= 0
        and p_max_attempts >= 1 and p_backoff_ms >= 0 and coalesce(p_timeout_s, 1) >= 1
        and (p_status = 'ready') = (p_notify_at is not null)
        and (p_status = 'running') = (p_lease_until is not null)
        and (p_status = 'succeeded') = p_has_outputs
        and case
            when p_status = 'pending' then p_finished_at is null
            when p_status = 'ready' then p_finished_at is null and p_blockers = 0 and p_ready_at is not null
            when p_status = 'running' then p_finished_at is null and p_blockers = 0 and p_attempt >= 1
            when p_status = 'blocked' then p_finished_at is null and p_blockers = 0
            when p_status = 'succeeded' then p_finished_at is not null and p_blockers = 0
            when p_status = 'failed' then p_finished_at is not null and p_has_error
            when p_status in ('skipped', 'cancelled') then p_finished_at is not null
            else false
        end;
end
$$;

create or replace function nofx.attempt_is_sound(p_status text, p_attempt integer, p_finished_at timestamptz) returns boolean
    language plpgsql immutable
as $$
begin
    return p_attempt >= 1
        and case
            when p_status = 'running' then p_finished_at is null
            when p_status in ('succeeded', 'failed', 'blocked', 'lost', 'cancelled') then p_finished_at is not null
            else false
        end;
end
$$;

create or replace function nofx.gate_link_is_sound(
    p_subject text, p_secret_sha256 bytea, p_created_at timestamptz, p_expires_at timestamptz, p_used_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_subject <> '' and length(p_secret_sha256) = 32
        and p_expires_at > p_created_at and p_expires_at <= p_created_at + interval '30 days'
        and (p_used_at is null or p_used_at between p_created_at and p_expires_at);
end
$$;
revoke execute on function
    nofx.run_is_sound(text, text, integer, integer, integer, integer, integer, integer, integer, integer, timestamptz,
                      timestamptz, timestamptz),
    nofx.step_is_sound(text, integer, integer, integer, integer, integer, integer, integer, timestamptz, timestamptz,
                       timestamptz, timestamptz, boolean, boolean),
    nofx.attempt_is_sound(text, integer, timestamptz),
    nofx.gate_link_is_sound(text, bytea, timestamptz, timestamptz, timestamptz) from public;

-- functions/rows_page.sql sha256=df387c6f413ac1a331cad3861d2f0be83e11469c1348ec638c85000ca3600e13
-- A page of rows, bounded in rows and in bytes. p_rows has at most one row more than the limit. A page with large rows ends early.
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

-- functions/run_create.sql sha256=71153d34465d44cb4361d70cc1668f02668ea9c98b6ee1efefd5d877511ef6c9
-- Creates a run with its steps, edges and first events. No other transaction can see the run yet, so it locks no run and does not call
-- nofx.runs_settle: it writes each row once, and the run's with its counters.
--
-- p: {caller, id, goal, plan, plan_digest, request_digest, idempotency_key, actor, timeout_s,
--     traceparent, workspace: {archive, base, diff} (artifact ids), artifacts: [ids that inputs name], steps: [..], edges: [{parent, child}]}
-- -> {result: created, id, status, ready: [wake-ups]}. With `existing` (same key, same request) and `conflict` (same key, other request): id
-- and status of the run that has the key. With `invalid`: problems. Raises NF429 if a limit of the tenant is reached.
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
    v_authors jsonb := jsonb_build_array(nofx.author_of(v_call, 'started'));
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
    if (p ->> 'asks')::boolean then
        v_problems := nofx.approval_problems(v_tenant, p -> 'steps');
        if v_problems is not null then
            return jsonb_build_object('result', 'invalid', 'problems', v_problems);
        end if;
    end if;
    -- Who uploaded a file does not approve what becomes of it, and neither do the authors of the run that made it.
    if v_workspace is not null or jsonb_array_length(coalesce(p -> 'artifacts', '[]')) > 0 then
        select v_authors || coalesce(jsonb_agg(distinct m.author), '[]') into v_authors
          from (select w.value ->> 'id' as id from jsonb_each(v_workspace) w
                union select jsonb_array_elements_text(coalesce(p -> 'artifacts', '[]'))) named
          join nofx.artifact a on a.id = any (array[named.id::uuid])
          left join nofx.run r on r.id = any (array[a.run_id])
         cross join lateral (
            select a.created_by where a.created_by is not null
            union all
            select t.author || '{"did": "made"}' from jsonb_array_elements(r.authors) t(author)) m(author)
         where a.tenant_id = v_tenant;
    end if;

    -- Not if this call only repeats one that was carried out.
    if exists (select from nofx.tenant t where t.tenant_id = v_tenant and t.limits <> '{}')
       and not exists (select from nofx.run r where r.tenant_id = v_tenant
                          and (r.id = v_id or r.idempotency_key = p ->> 'idempotency_key')) then
        perform nofx.limits_admit_run(v_tenant, jsonb_array_length(p -> 'steps'));
    end if;

    with item as materialized (
        select s.*, s.blockers = 0 as is_ready
          from jsonb_to_recordset(p -> 'steps')
               as s(id uuid, ordinal integer, name text, tool text, handler text, inputs jsonb, refs text[], ref_paths text[],
                    blockers integer, max_attempts integer, backoff_ms integer, timeout_s integer, approval jsonb)
    ), made as (
        insert into nofx.run (id, tenant_id, status, goal, plan, plan_digest, request_digest, idempotency_key, timeout_s,
                              deadline_at, traceparent, workspace, created_by, authors, created_at, steps_ready, steps_pending, event_seq)
        select v_id, v_tenant, 'queued', p ->> 'goal', p -> 'plan', p ->> 'plan_digest', p ->> 'request_digest',
               p ->> 'idempotency_key', (p ->> 'timeout_s')::integer,
               v_now + make_interval(secs => (p ->> 'timeout_s')::integer), p ->> 'traceparent', v_workspace, v_call ->> 'actor', v_authors, v_now,
               count(*) filter (where i.is_ready), count(*) filter (where not i.is_ready),
               1 + count(*) filter (where i.is_ready)
          from item i
            on conflict do nothing
        returning id
    ), steps as (
        insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, refs, ref_paths, status, blockers,
                               max_attempts, backoff_ms, timeout_s, approval, created_at, ready_at, notify_at)
        select i.id, v_tenant, m.id, i.ordinal, i.name, i.tool, i.handler, i.inputs, i.refs, i.ref_paths,
               case when i.is_ready then 'ready' else 'pending' end, i.blockers, i.max_attempts, i.backoff_ms, i.timeout_s,
               nullif(i.approval, 'null'), v_now, case when i.is_ready then v_now end, case when i.is_ready then nofx.wakeup_due(v_now, null) end
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

-- functions/sessions.sql sha256=aa1e3886e7806a0d71b7ee7388b72da86e79ac73bd1647bda0f30bf82f921a32
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

-- functions/step_binding.sql sha256=fac0342d19568b3baed33da193eb252637daba49d1192979da1f67adafc65a1f
-- What a decision covers: digests of everything that a step works with. A claim computes them again, and asks again if one has changed.
-- Plan, workspace and artifacts have digests that anybody can compute. Those of inputs, outputs and rules are of the text that Postgres makes of
-- their JSON, for comparison in this database only.

create or replace function nofx.binding_digest(p_bound jsonb) returns text
    language sql immutable
    set search_path = ''
as $$
    select encode(sha256(convert_to(p_bound::text, 'UTF8')), 'hex')
$$;

-- A digest by name for each entry; of more than 200 entries, their number and one digest of all.
create or replace function nofx.binding_list(p_list jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    select case when c.count <= 200 then coalesce(p_list, '{}')
                else jsonb_build_object('count', c.count, 'digest', nofx.binding_digest(p_list)) end
      from (select count(*) from jsonb_object_keys(coalesce(p_list, '{}'))) c(count)
$$;

-- Of a gate before a step that has not started, or before the end of a run: what is known then. p_step may be null.
create or replace function nofx.run_binding(p_run uuid, p_step uuid) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select jsonb_strip_nulls(jsonb_build_object(
               'v', 1, 'plan', r.plan_digest,
               'workspace', (select jsonb_object_agg(w.key, w.value -> 'hash') from jsonb_each(r.workspace) w),
               'step', s.name, 'inputs', nofx.binding_digest(s.inputs)))
      from nofx.run r
      left join nofx.step s on s.id = p_step
     where r.id = p_run
$$;

-- The rule of the table that a db_write step names; if only its inputs will say which table, all rules of the tenant. Null for other steps.
create or replace function nofx.rule_binding(p_step nofx.step) returns text
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select nofx.binding_digest(coalesce(jsonb_agg(to_jsonb(l) - 'id' - 'created_at' - 'updated_at' order by l.table_name), '[]'))
      from nofx.db_write_rule l
     where l.tenant_id = p_step.tenant_id
       and (l.table_name = p_step.inputs ->> 'table' or p_step.inputs ->> 'table' like '%${{%')
    having p_step.handler = 'db_write'
$$;

-- Of a step whose parents have succeeded: also the outputs and artifacts of every step upstream, and what its gate shows.
create or replace function nofx.step_binding(p_step uuid, p_subject jsonb, p_evidence_uri text) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
declare
    v_step nofx.step;
    v_upstream jsonb;
begin
    select * into v_step from nofx.step s where s.id = p_step;
    with recursive above(id) as (
        select e.parent_id from nofx.step_edge e where e.child_id = p_step
        union
        select e.parent_id from above a join nofx.step_edge e on e.child_id = any (array[a.id])
    )
    select jsonb_object_agg(u.name, jsonb_build_object(
               'outputs', nofx.binding_digest(u.outputs),
               'artifacts', nofx.binding_list((
                   select jsonb_object_agg(f.name, f.hashes)
                     from (select a.name, string_agg(a.hash, ' ' order by a.hash) as hashes
                             from nofx.artifact a
                            where a.step_id = u.id and a.attempt = u.attempt
                            group by a.name) f))))
      into v_upstream
      from above b
      join nofx.step u on u.id = any (array[b.id]);
    return nofx.run_binding(v_step.run_id, p_step)
        || jsonb_strip_nulls(jsonb_build_object(
               'rule', nofx.rule_binding(v_step), 'upstream', nofx.binding_list(v_upstream), 'subject', p_subject,
               'evidence', (select a.hash from nofx.artifact a
                             where a.step_id = p_step and a.uri = p_evidence_uri
                             order by a.id limit 1)));
end
$$;

-- Of a gate, now.
create or replace function nofx.gate_binding(p_gate nofx.gate) returns jsonb
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select case when p_gate.on_pass = 'release' then nofx.run_binding(p_gate.run_id, p_gate.step_id)
                else nofx.step_binding(p_gate.step_id, p_gate.subject, p_gate.evidence_uri) end
$$;

-- The paths at which two bindings differ, at most 20.
create or replace function nofx.binding_changes(p_old jsonb, p_new jsonb) returns jsonb
    language sql immutable
    set search_path = ''
as $$
    with recursive differs(path, old, new) as (
        select '', p_old, p_new where p_old is distinct from p_new
        union all
        select d.path || case when d.path = '' then '' else '.' end || k.key, d.old -> k.key, d.new -> k.key
          from differs d
         cross join lateral (select jsonb_object_keys(d.old) union select jsonb_object_keys(d.new)) k(key)
         where jsonb_typeof(d.old) = 'object' and jsonb_typeof(d.new) = 'object' and d.old -> k.key is distinct from d.new -> k.key
    )
    select coalesce(jsonb_agg(l.path), '[]')
      from (select d.path from differs d
             where not coalesce(jsonb_typeof(d.old) = 'object' and jsonb_typeof(d.new) = 'object', false)
             order by d.path limit 20) l
$$;
revoke execute on function nofx.binding_digest(jsonb), nofx.binding_list(jsonb), nofx.run_binding(uuid, uuid), nofx.rule_binding(nofx.step),
    nofx.step_binding(uuid, jsonb, text), nofx.gate_binding(nofx.gate), nofx.binding_changes(jsonb, jsonb) from public;

-- functions/step_facts_insert.sql sha256=2a027aba0438ae57148db0ac652d3b2fdb8aa540361231d2961e1e9a231e09a9
-- Stores the artifacts, gates and events that finished attempts leave behind. Returns their events; null if there are none, which is the usual
-- case.
create or replace function nofx.step_facts_insert(p_items jsonb, p_done uuid[], p_now timestamptz)
    returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_items jsonb;
    v_artifacts nofx.change[];
    v_gates nofx.change[];
    v_events nofx.change[];
begin
    if not jsonb_path_exists(p_items, '$[*] ? (@.artifacts.size() > 0 || @.gates.size() > 0 || @.events.size() > 0)') then
        return null;
    end if;
    -- Matched by the whole key: a forged or late item in the batch leaves nothing behind.
    select jsonb_agg(i.item) into v_items
      from jsonb_array_elements(p_items) i(item)
      join nofx.step s on s.id = any (array[(i.item ->> 'step_id')::uuid])
     where s.id = any (p_done) and s.run_id is not distinct from (i.item ->> 'run_id')::uuid and s.tenant_id = i.item ->> 'tenant_id'
       and s.attempt = (i.item ->> 'attempt')::integer;

    with made as (
        insert into nofx.artifact (id, tenant_id, run_id, step_id, attempt, name, type, uri, hash, size_bytes,
                                   media_type, metadata, created_at)
        select a.id, i.tenant_id, i.run_id, i.step_id, i.attempt, a.name, a.type, a.uri, a.hash, a.size_bytes,
               a.media_type, coalesce(a.metadata, '{}'), p_now
          from jsonb_to_recordset(v_items)
               as i(tenant_id text, run_id uuid, step_id uuid, attempt integer, artifacts jsonb)
         cross join jsonb_to_recordset(coalesce(i.artifacts, '[]'))
               as a(id uuid, name text, type text, uri text, hash text, size_bytes bigint, media_type text,
                    metadata jsonb)
        returning run_id, step_id, id, name, type, hash
    )
    select array_agg(nofx.fact(m.run_id, m.step_id, 'artifact.created',
                               jsonb_build_object('artifact_id', m.id, 'name', m.name, 'type', m.type, 'hash', m.hash))
                     order by m.id)
      into v_artifacts
      from made m;

    insert into nofx.artifact_edge (parent_id, child_id, tenant_id)
    select p.id, (a ->> 'id')::uuid, i.tenant_id
      from jsonb_to_recordset(v_items) as i(tenant_id text, step_id uuid, artifacts jsonb)
     cross join jsonb_array_elements(coalesce(i.artifacts, '[]')) a
     cross join jsonb_array_elements_text(coalesce(a -> 'made_from', '[]')) made_from
      join nofx.artifact p on p.id = made_from::uuid and p.tenant_id = i.tenant_id
        on conflict do nothing;

    with made as (
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, subject,
                               evidence_uri, reason, expires_at, created_at, decided_at, rule, bound, bound_digest, remind_at)
        select g.id, i.tenant_id, i.run_id, i.step_id, g.gate_type, g.status, g.on_pass, r.generation, g.subject,
               g.evidence_uri, g.reason,
               case when g.status = 'pending' then nofx.approval_expiry(i.tenant_id, g.expires_after_s, p_now) end, p_now,
               case when g.status <> 'pending' then p_now end, a.rule, a.bound, nofx.binding_digest(a.bound), a.remind_at
          from jsonb_to_recordset(v_items) as i(tenant_id text, run_id uuid, step_id uuid, gates jsonb)
          join nofx.run r on r.id = i.run_id
         cross join jsonb_to_recordset(coalesce(i.gates, '[]'))
               as g(id uuid, gate_type text, status text, on_pass text, subject jsonb, evidence_uri text, reason text,
                    expires_after_s integer)
          left join lateral (
            -- What evidence decides needs no rule. Whether changed checks count is asked by the system, so the policy alone says who decides.
            select nofx.approval_strictest(q.asked, nofx.approval_policy(i.tenant_id)) as rule,
                   nofx.step_binding(q.id, g.subject, g.evidence_uri) as bound,
                   p_now + make_interval(secs => nofx.approval_seconds(q.asked -> 'remind_after_s')) as remind_at
              from (select s.id, case when g.gate_type = 'manual:gate-change' then '{}' else nofx.approval_asked(s) end as asked
                      from nofx.step s where s.id = i.step_id) q
             where g.status = 'pending'
            offset 0) a on true
        returning run_id, step_id, id, gate_type, status, reason, subject, rule, bound_digest
    )
    select array_agg(nofx.fact(m.run_id, m.step_id,
                               case m.status when 'pending' then 'gate.created' else 'gate.' || m.status end,
                               nofx.gate_asked(m.id, m.gate_type, m.rule, m.bound_digest)
                               || case when m.reason is null then '{}' else jsonb_build_object('reason', m.reason) end
                               || nofx.subject_of(m.subject))
                     order by m.id)
      into v_gates
      from made m;

    select array_agg(nofx.fact(i.run_id, i.step_id, e.event ->> 'type', e.event -> 'payload') order by i.step_id, e.position)
      into v_events
      from jsonb_to_recordset(v_items) as i(run_id uuid, step_id uuid, events jsonb)
     cross join jsonb_array_elements(coalesce(i.events, '[]')) with ordinality as e(event, position);

    return v_events || v_artifacts || v_gates;
end
$$;
revoke execute on function nofx.step_facts_insert(jsonb, uuid[], timestamptz) from public;

-- functions/steps_claim.sql sha256=762e0a4c92aed9a15c5501df02a434350886429c66e7d7635582f146052be071
-- Starts the steps that are ready (1 s of clock skew is tolerated), whose run lets steps start, and that need no approval. The caller holds the
-- runs' locks. Returns the changes, null if there are none.
create or replace function nofx.steps_start(p_items jsonb, p_call uuid, p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with started as (
        -- Matched by the whole key: a forged message in a batch cannot stand in for the true one.
        update nofx.step s
           set status = 'running',
               attempt = s.attempt + 1,
               notify_at = null,
               started_at = coalesce(s.started_at, p_now),
               lease_until = nofx.lease_end(p_now, s.timeout_s, i.lease_s)
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer)
         where s.id = any (array[i.step_id]) and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
           and s.status = 'ready' and s.ready_at <= p_now + interval '1 second' and s.approval is null
           and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id and r.tenant_id is not distinct from i.tenant_id)
        returning s.tenant_id, s.run_id, s.id, s.attempt, s.lease_until
    ), recorded as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at, lease_until)
        select s.id, s.attempt, s.tenant_id, s.run_id, 'running', p_call, p_now, s.lease_until
          from started s
    )
    select array_agg(nofx.step_change(s.run_id, s.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', s.attempt)) order by s.id)
      into v_changes
      from started s;
    return v_changes;
end
$$;

-- The same for steps that need an approval: those of p_approved, which have it.
create or replace function nofx.steps_begin(p_items jsonb, p_call uuid, p_now timestamptz, p_approved uuid[]) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with started as (
        -- Matched by the whole key: a forged message in a batch cannot stand in for the true one.
        update nofx.step s
           set status = 'running',
               attempt = s.attempt + 1,
               notify_at = null,
               started_at = coalesce(s.started_at, p_now),
               lease_until = nofx.lease_end(p_now, s.timeout_s, i.lease_s)
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid, lease_s integer)
         where s.id = any (array[i.step_id]) and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
           and s.id = any (p_approved) and s.status = 'ready' and s.ready_at <= p_now + interval '1 second'
           and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id and r.tenant_id is not distinct from i.tenant_id)
        returning s.tenant_id, s.run_id, s.id, s.attempt, s.lease_until
    ), recorded as (
        insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, claimed_by, started_at, lease_until)
        select s.id, s.attempt, s.tenant_id, s.run_id, 'running', p_call, p_now, s.lease_until
          from started s
    )
    select array_agg(nofx.step_change(s.run_id, s.id, 'ready', 'running', 'step.started',
                                      jsonb_build_object('attempt', s.attempt)) order by s.id)
      into v_changes
      from started s;
    return v_changes;
end
$$;

-- Asks for the approvals that ready steps need, and finds those that they have: a decision counts for exactly the bytes that it was made about, in
-- any generation of the run, if it would count today. The caller holds the runs' locks. -> the steps that may start, and the changes
create or replace function nofx.steps_ask(p_items jsonb, p_now timestamptz, out approved uuid[], out changes nofx.change[])
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_step nofx.step;
    v_generation integer;
    v_bound jsonb;
    v_digest text;
    v_rule jsonb;
    v_asked jsonb;
    v_gate nofx.gate;
    v_id uuid;
begin
    approved := '{}';
    changes := '{}';
    for v_step in
        -- A batch may name a step twice.
        select distinct on (s.id) s.*
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid)
         cross join lateral (
            select s.*
              from nofx.step s
             where s.id = i.step_id and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
               and s.status = 'ready' and s.ready_at <= p_now + interval '1 second' and s.approval is not null
               and (select nofx.lets_start(r.status) from nofx.run r where r.id = i.run_id)
            offset 0) s
         order by s.id
    loop
        v_generation := (select r.generation from nofx.run r where r.id = v_step.run_id);
        v_bound := nofx.step_binding(v_step.id, null, null);
        v_digest := nofx.binding_digest(v_bound);
        v_id := null;
        -- All decisions of the step that stand. At most one of them is about these bytes.
        for v_gate in
            select g.* from nofx.gate g
             where g.step_id = v_step.id and g.gate_type = nofx.approval_type(v_step.tool) and g.on_pass = 'resume'
               and g.status in ('passed', 'waived') and g.voided_at is null
             order by g.decided_at, g.id
        loop
            if v_gate.bound_digest is not distinct from v_digest
               and (v_gate.generation = v_generation or nofx.gate_still_holds(v_gate)) then
                v_id := v_gate.id;
                -- Once for each generation.
                if v_gate.generation < v_generation and v_step.failures = 0 and v_step.workers_lost = 0 then
                    changes := changes || nofx.fact(v_step.run_id, v_step.id, 'gate.kept',
                        jsonb_build_object('gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'digest', v_digest));
                end if;
            else
                update nofx.gate g set voided_at = p_now where g.id = v_gate.id;
                changes := changes || nofx.fact(v_step.run_id, v_step.id, 'gate.voided', jsonb_build_object(
                    'gate_id', v_gate.id, 'gate_type', v_gate.gate_type, 'changed',
                    case when v_gate.bound_digest is not distinct from v_digest then '["approvals"]'
                         else nofx.binding_changes(v_gate.bound, v_bound) end, 'digest', v_digest));
            end if;
        end loop;
        if v_id is not null then
            approved := approved || v_step.id;
            continue;
        end if;

        v_asked := nofx.approval_asked(v_step);
        v_rule := nofx.approval_strictest(v_asked, nofx.approval_policy(v_step.tenant_id));
        v_id := gen_random_uuid();
        insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, reason, created_at, expires_at,
                               rule, bound, bound_digest, remind_at)
        values (v_id, v_step.tenant_id, v_step.run_id, v_step.id, nofx.approval_type(v_step.tool), 'pending', 'resume', v_generation,
                v_asked ->> 'reason', p_now,
                nofx.approval_expiry(v_step.tenant_id, nofx.approval_seconds(v_asked -> 'expires_after_s'), p_now), v_rule, v_bound, v_digest,
                p_now + make_interval(secs => nofx.approval_seconds(v_asked -> 'remind_after_s')));
        update nofx.step s set status = 'blocked', notify_at = null, notify_count = 0 where s.id = v_step.id;
        changes := changes
            || nofx.step_change(v_step.run_id, v_step.id, 'ready', 'blocked', 'step.blocked')
            || nofx.gate_change(v_step.run_id, v_step.id, 'gate.created',
                   nofx.gate_asked(v_id, nofx.approval_type(v_step.tool), v_rule, v_digest)
                   || case when v_asked ->> 'reason' is null then '{}' else jsonb_build_object('reason', v_asked ->> 'reason') end, 1);
    end loop;
end
$$;

-- Claims steps of a batch. p_items: [{tenant_id, run_id, step_id, lease_s, refs_bytes, terms}]; lease_s is what is left of the invocation,
-- refs_bytes the largest size of the values that a step refers to, terms whether the worker needs the terms of its steps (those of the first item
-- count). A step can be claimed if it is ready and has the approval that it needs, or if its attempt's lease is over; never in a
-- paused or ended run, never across tenants. A retry with the same p_call, after a lost answer, receives what the first call claimed.
-- -> {claimed: [..], skipped: [{step_id, status}]}
create or replace function nofx.steps_claim(p_items jsonb, p_call uuid default null) returns json
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz;
    v_refs_bytes integer := p_items -> 0 ->> 'refs_bytes';
    v_terms boolean := p_items -> 0 ->> 'terms';
    v_changes nofx.change[];
    v_started nofx.change[];
    v_lost uuid[];
    v_won uuid[];
    v_ask record;
begin
    perform nofx.runs_lock(array(select (i ->> 'run_id')::uuid from jsonb_array_elements(p_items) i));
    v_now := clock_timestamp();
    v_started := nofx.steps_start(p_items, p_call, v_now);
    if v_started is not null then
        perform nofx.runs_settle(v_started, v_now);
    end if;
    if cardinality(v_started) = jsonb_array_length(p_items) then
        return json_build_object(
            'claimed', nofx.claims_json(array(select c.step_id from unnest(v_started) c), v_refs_bytes, v_terms), 'skipped', '[]'::jsonb);
    end if;

    -- Ended leases make steps ready. Settled first, so that the next claim starts from true counters.
    v_lost := array(
        select s.id
          from jsonb_to_recordset(p_items) as i(tenant_id text, run_id uuid, step_id uuid)
         cross join lateral (
            select s.id
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = i.step_id and s.run_id is not distinct from i.run_id and s.tenant_id = i.tenant_id
               and s.status = 'running' and s.lease_until < v_now and r.paused_at is null
            offset 0) s);
    if v_lost <> '{}' then
        perform nofx.runs_settle(nofx.leases_end(v_lost, v_now), v_now);
        v_changes := nofx.steps_start(p_items, p_call, v_now);
        if v_changes is not null then
            perform nofx.runs_settle(v_changes, v_now);
        end if;
    end if;
    select * into v_ask from nofx.steps_ask(p_items, v_now);
    if v_ask.approved <> '{}' then
        v_ask.changes := v_ask.changes || nofx.steps_begin(p_items, p_call, v_now, v_ask.approved);
    end if;
    if v_ask.changes <> '{}' then
        perform nofx.runs_settle(v_ask.changes, v_now);
    end if;
    v_won := array(
        select c.step_id from unnest(v_started || v_changes) c
        union
        select unnest(v_ask.approved)
        union
        -- What an earlier try of this call has claimed.
        select a.step_id
          from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
          join nofx.attempt a on a.step_id = i.step_id and a.tenant_id = i.tenant_id
         where a.claimed_by = p_call and a.status = 'running');
    return json_build_object(
        'claimed', nofx.claims_json(v_won, v_refs_bytes, v_terms),
        'skipped', coalesce((
            select jsonb_agg(jsonb_build_object('step_id', i.step_id, 'status', coalesce(s.status, 'unknown')))
              from jsonb_to_recordset(p_items) as i(tenant_id text, step_id uuid)
              left join nofx.step s on s.id = i.step_id and s.tenant_id = i.tenant_id
             where i.step_id <> all (v_won)), '[]'));
end
$$;
select nofx.transition_declare('nofx.steps_claim(jsonb, uuid)', 'nofx_worker');
revoke execute on function nofx.steps_start(jsonb, uuid, timestamptz), nofx.steps_begin(jsonb, uuid, timestamptz, uuid[]),
    nofx.steps_ask(jsonb, timestamptz) from public;

-- functions/sweep_gates.sql sha256=2712f6e6985ec1696d659a5401042cfcd5806a3333a236b349499493114d5635
-- Adds the event `gate.reminder`, once for each gate that still waits when its reminder is due. The caller has locked the
-- runs p_runs. Returns the events, null if there are none.
create or replace function nofx.gates_remind(p_runs uuid[], p_now timestamptz) returns nofx.change[]
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_changes nofx.change[];
begin
    with reminded as (
        update nofx.gate g set remind_at = null, reminded_at = p_now
         where g.run_id = any (p_runs) and g.status = 'pending' and g.remind_at <= p_now
           and (g.expires_at is null or g.expires_at >= p_now)
        returning g.run_id, g.step_id, g.id, g.gate_type, g.expires_at
    )
    select array_agg(nofx.fact(r.run_id, r.step_id, 'gate.reminder', jsonb_strip_nulls(jsonb_build_object(
               'gate_id', r.id, 'gate_type', r.gate_type, 'expires_at', r.expires_at))) order by r.id)
      into v_changes
      from reminded r;
    return v_changes;
end
$$;
revoke execute on function nofx.gates_remind(uuid[], timestamptz) from public;

-- Expires gates that nobody decided in time, and adds due reminders. -> {done: the expired ones, ready: [wake-ups]}
create or replace function nofx.sweep_gates(p_limit integer) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_due uuid[];
    v_gates uuid[];
    v_runs uuid[];
    v_reminders nofx.change[];
    v_changes nofx.change[];
begin
    v_due := array(select g.id from nofx.gate g
                    where g.status = 'pending' and g.expires_at < v_now
                    order by g.expires_at limit p_limit)
             || array(select g.id from nofx.gate g
                       where g.status = 'pending' and g.remind_at <= v_now
                       order by g.remind_at limit p_limit);
    select array_agg(distinct g.run_id) into v_runs from nofx.gate g where g.id = any (v_due);
    v_runs := nofx.runs_lock_free(v_runs);
    if v_runs is null then
        return jsonb_build_object('done', 0, 'ready', '[]'::jsonb);
    end if;
    v_now := clock_timestamp();
    with expired as (
        update nofx.gate g set status = 'expired', decided_at = v_now
         where g.id = any (v_due) and g.run_id = any (v_runs) and g.status = 'pending' and g.expires_at < v_now
        returning g.id
    )
    select array_agg(e.id) into v_gates from expired e;
    v_reminders := nofx.gates_remind(v_runs, v_now);
    v_changes := case when v_gates is not null then nofx.gates_conclude(v_gates, '{}', v_now) end;
    perform nofx.runs_settle(v_reminders || v_changes, v_now);
    return jsonb_build_object('done', coalesce(cardinality(v_gates), 0), 'ready', nofx.wakeups(nofx.made_ready(v_changes), v_now));
end
$$;
select nofx.sweep_declare('nofx.sweep_gates(integer)');

-- functions/tenant_id.sql sha256=cdd95c3825f4192b33fba9eeb4a2192bdf976e004e668c13b655b31020a2861c
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

-- The tenant of a person who reads directly, as a client of Supabase: that of the claims, if the person is a member. The JWT of a removed member
-- may be valid for some time, but it reads no rows.
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

-- functions/tenant_limits.sql sha256=413e42368b59482796d50944b6f8870517c267cd5d1cfb2c375607877b21d900
-- Limits of a tenant. A limit that is not set costs no query.

-- Whether a document of limits is valid: an object of known names with whole numbers.
create or replace function nofx.limits_are_sound(p jsonb) returns boolean
    language sql immutable
    set search_path = ''
as $$
    select jsonb_typeof(p) = 'object'
       and p - array['open_runs', 'queued_steps', 'stored_bytes', 'requests_per_minute'] = '{}'
       and not exists (select from jsonb_each(p) l
                        where jsonb_typeof(l.value) <> 'number' or l.value #>> '{}' !~ '^[0-9]{1,15}$'
                           or l.key = 'requests_per_minute' and not (l.value #>> '{}')::bigint between 1 and 100000)
$$;

-- Raises NF429 for a request that would exceed a limit. If waiting helps, p_retry_after_s says how long.
create or replace function nofx.limit_refuse(p_limit text, p_retry_after_s integer) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    raise exception 'limit' using errcode = 'NF429',
        detail = jsonb_strip_nulls(jsonb_build_object('limit', p_limit, 'retry_after_s', p_retry_after_s))::text;
end
$$;

-- Allows one call at a time for each tenant, until the transaction ends, so that the counts stay correct.
create or replace function nofx.limits_lock(p_tenant_id text) returns void
    language sql
    set search_path = ''
as $$
    select pg_advisory_xact_lock(hashtextextended('nofx.limits.' || p_tenant_id, 0))
$$;

-- The recorded bytes of a tenant's artifacts. Those of artifacts that are older than an hour are counted once and stored, because no transaction adds
-- artifacts of that age.
create or replace function nofx.tenant_bytes(p_tenant_id text) returns bigint
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_known nofx.stored_bytes;
    v_to timestamptz := date_trunc('hour', now()) - interval '1 hour';
    v_bytes bigint;
begin
    select * into v_known from nofx.stored_bytes b where b.tenant_id = p_tenant_id;
    if v_known.counted_to is null or v_known.counted_to < v_to then
        select coalesce(v_known.bytes, 0) + coalesce(sum(a.size_bytes), 0) into v_bytes
          from nofx.artifact a
         where a.tenant_id = p_tenant_id and a.created_at >= coalesce(v_known.counted_to, '-infinity') and a.created_at < v_to;
        insert into nofx.stored_bytes (tenant_id, counted_to, bytes) values (p_tenant_id, v_to, v_bytes)
            on conflict (tenant_id) do update set counted_to = excluded.counted_to, bytes = excluded.bytes
         where stored_bytes.counted_to < excluded.counted_to;
        v_known.counted_to := v_to;
        v_known.bytes := v_bytes;
    end if;
    return v_known.bytes + coalesce((select sum(a.size_bytes) from nofx.artifact a
                                      where a.tenant_id = p_tenant_id and a.created_at >= v_known.counted_to), 0);
end
$$;

-- Trigger after delete of runs: their artifacts are deleted too, so the bytes are counted again.
create or replace function nofx.stored_bytes_forget() returns trigger
    language plpgsql
    set search_path = nofx, pg_temp
as $$
begin
    delete from nofx.stored_bytes b using (select distinct g.tenant_id from gone g) g where b.tenant_id = g.tenant_id;
    return null;
end
$$;

-- The runs of a tenant that have not ended, and their steps that wait or run.
create or replace function nofx.open_work(p_tenant_id text) returns table (runs bigint, steps bigint)
    language sql stable
    set search_path = nofx, pg_temp
as $$
    select count(*), coalesce(sum(r.steps_pending + r.steps_ready + r.steps_running + r.steps_blocked), 0)
      from nofx.run r
     where r.tenant_id = p_tenant_id and r.finished_at is null
$$;

-- Refuses one more run with this number of steps if it would exceed a limit of the tenant. The limits of runs and steps are exact, because calls
-- of a tenant that has one wait for each other.
create or replace function nofx.limits_admit_run(p_tenant_id text, p_steps integer) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_limits jsonb := (select t.limits from nofx.tenant t where t.tenant_id = p_tenant_id);
    v_open record;
begin
    if v_limits = '{}' then
        return;
    end if;
    if v_limits ?| array['open_runs', 'queued_steps'] then
        perform nofx.limits_lock(p_tenant_id);
        select * into v_open from nofx.open_work(p_tenant_id);
        if v_open.runs + 1 > (v_limits ->> 'open_runs')::bigint then
            perform nofx.limit_refuse('open_runs', 30);
        elsif v_open.steps + p_steps > (v_limits ->> 'queued_steps')::bigint then
            perform nofx.limit_refuse('queued_steps', 30);
        end if;
    end if;
    if v_limits ? 'stored_bytes' and nofx.tenant_bytes(p_tenant_id) >= (v_limits ->> 'stored_bytes')::bigint then
        perform nofx.limit_refuse('stored_bytes', null);
    end if;
end
$$;

-- Refuses an upload that would exceed the tenant's limit.
create or replace function nofx.limits_admit_upload(p_tenant_id text, p_bytes bigint) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_most bigint := (select (t.limits ->> 'stored_bytes')::bigint from nofx.tenant t where t.tenant_id = p_tenant_id);
begin
    if v_most is null then
        return;
    end if;
    perform nofx.limits_lock(p_tenant_id);
    if nofx.tenant_bytes(p_tenant_id) + p_bytes > v_most then
        perform nofx.limit_refuse('stored_bytes', null);
    end if;
end
$$;

-- Counts a request, and refuses it if the tenant had more than p_most in the last minute, over all processes. The statements of one request count
-- once. Requests that run at the same moment do not see each other, so a burst can exceed the limit by their number. Refused ones are not counted.
create or replace function nofx.limits_admit_request(p_tenant_id text, p_request_id text, p_most bigint) returns void
    language plpgsql
    set search_path = nofx, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_requests bigint;
    v_oldest timestamptz;
begin
    insert into nofx.request (tenant_id, request_id, at)
    values (p_tenant_id, coalesce(nullif(p_request_id, ''), gen_random_uuid()::text), v_now)
        on conflict do nothing;
    if not found then
        return;
    end if;
    select count(*), min(q.at) into v_requests, v_oldest
      from (select r.at from nofx.request r
             where r.tenant_id = p_tenant_id and r.at > v_now - interval '1 minute'
             order by r.at limit p_most + 1) q;
    if v_requests > p_most then
        perform nofx.limit_refuse('requests_per_minute',
                                  greatest(1, ceil(extract(epoch from v_oldest + interval '1 minute' - v_now)))::integer);
    end if;
    -- Each request removes up to four old rows and adds one, and never waits for another.
    delete from nofx.request r
     where r.tenant_id = p_tenant_id
       and r.request_id = any (array(select o.request_id from nofx.request o
                                      where o.tenant_id = p_tenant_id and o.at < v_now - interval '1 minute'
                                      order by o.at limit 4 for update skip locked));
end
$$;

-- The limits of the caller's tenant, and what it has used of each. p: {caller}
-- -> {limits: {NAME: maximum}, used: {NAME: current}}. Requests are counted only if they are limited.
create or replace function nofx.limits_of(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
declare
    v_tenant text := nofx.admitted(p, 'account.read') ->> 'tenant_id';
    v_open record;
begin
    select * into v_open from nofx.open_work(v_tenant);
    return jsonb_build_object(
        'limits', (select t.limits from nofx.tenant t where t.tenant_id = v_tenant),
        'used', jsonb_build_object(
            'open_runs', v_open.runs, 'queued_steps', v_open.steps, 'stored_bytes', nofx.tenant_bytes(v_tenant),
            'requests_per_minute', (select count(*) from nofx.request r
                                     where r.tenant_id = v_tenant and r.at > clock_timestamp() - interval '1 minute')));
end
$$;

revoke execute on function nofx.limits_are_sound(jsonb), nofx.limit_refuse(text, integer), nofx.limits_lock(text), nofx.tenant_bytes(text),
    nofx.stored_bytes_forget(), nofx.open_work(text), nofx.limits_admit_run(text, integer), nofx.limits_admit_upload(text, bigint),
    nofx.limits_admit_request(text, text, bigint) from public;
select nofx.transition_declare('nofx.limits_of(jsonb)', 'nofx_api');

-- functions/tokens.sql sha256=402174c2be2cb6704a42e955b1875e801f237ff132eca97b1889ca7a4ec11c21
-- API tokens of agents and services. Only people who are admins create and revoke them. The database never gets a secret, only its sha256.

-- Creates a token. Its creator owns it, and it is revoked when they are removed. Its name in records is its subject, so that it cannot look like
-- a person. Every token has the permission account.read.
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
