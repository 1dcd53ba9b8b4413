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
create or replace function nofx.llm_call_is_sound(
    p_tenant_id text, p_state text, p_attempt integer, p_reserved bigint, p_charged bigint, p_is_estimated boolean,
    p_started_at timestamptz, p_due_at timestamptz, p_ended_at timestamptz
) returns boolean
    language plpgsql immutable
as $$
begin
    return p_tenant_id <> '' and p_attempt >= 1 and coalesce(p_reserved, 0) >= 0 and coalesce(p_charged, 0) >= 0 and p_due_at > p_started_at
        and case p_state
            when 'open' then p_ended_at is null and p_charged is null and not p_is_estimated
            when 'settled' then p_ended_at is not null
            else false
        end;
end
$$;
revoke execute on function
    nofx.run_is_sound(text, text, integer, integer, integer, integer, integer, integer, integer, integer, timestamptz,
                      timestamptz, timestamptz),
    nofx.step_is_sound(text, integer, integer, integer, integer, integer, integer, integer, timestamptz, timestamptz,
                       timestamptz, timestamptz, boolean, boolean),
    nofx.attempt_is_sound(text, integer, timestamptz),
    nofx.gate_link_is_sound(text, bytea, timestamptz, timestamptz, timestamptz),
    nofx.llm_call_is_sound(text, text, integer, bigint, bigint, boolean, timestamptz, timestamptz, timestamptz) from public;
