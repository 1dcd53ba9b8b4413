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
