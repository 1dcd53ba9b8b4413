-- Lets people make one-time links to gates, for mail and chat.

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
