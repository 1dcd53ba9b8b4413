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
