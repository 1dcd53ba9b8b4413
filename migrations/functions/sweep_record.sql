-- Records the last sweep of a deployment, for the page of its health. p: {tenant_id, duration_ms, failed, report} -> nothing.
-- Sweeps may overlap, so an earlier one that ends later does not matter: it ended later.
create or replace function nofx.sweep_record(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    insert into nofx.sweep (tenant_id, ended_at, duration_ms, failed, report)
    values (p ->> 'tenant_id', clock_timestamp(), (p ->> 'duration_ms')::bigint, (p ->> 'failed')::boolean, p -> 'report')
        on conflict (tenant_id) do update
            set ended_at = excluded.ended_at, duration_ms = excluded.duration_ms, failed = excluded.failed,
                report = excluded.report;
    return '{}';
end
$$;
select nofx.transition_declare('nofx.sweep_record(jsonb)', 'nofx_worker');
