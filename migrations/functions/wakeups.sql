-- Wake-ups for those of the steps that are ready, none for paused runs. -> [{tenant_id, run_id, step_id, handler, delay_ms, traceparent}]
create or replace function nofx.wakeups(p_steps uuid[], p_now timestamptz) returns jsonb
    language plpgsql stable
    set search_path = nofx, pg_temp
as $$
begin
    if p_steps = '{}' then
        return '[]';
    end if;
    return coalesce((
        select jsonb_agg(jsonb_build_object(
                   'tenant_id', s.tenant_id, 'run_id', s.run_id, 'step_id', s.id, 'handler', s.handler,
                   'delay_ms', greatest(0, ceil(extract(epoch from s.ready_at - p_now) * 1000))::bigint,
                   'traceparent', s.traceparent))
          from unnest(p_steps) w(id)
         cross join lateral (
            select s.tenant_id, s.run_id, s.id, s.handler, s.ready_at, r.traceparent
              from nofx.step s
              join nofx.run r on r.id = any (array[s.run_id])
             where s.id = w.id and s.status = 'ready' and r.paused_at is null
            -- One look-up by key for each step, never a scan of all ready steps.
            offset 0) s), '[]');
end
$$;
revoke execute on function nofx.wakeups(uuid[], timestamptz) from public;
