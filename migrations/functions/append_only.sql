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
