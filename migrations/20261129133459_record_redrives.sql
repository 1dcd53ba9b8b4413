-- Records redrives of dead letters as events of the tenant.

-- Copies of the files in functions/. Change those files, not this one.

-- functions/queues.sql sha256=03fb964b58e0cdd582594e2c74ddd716535ebe90abe141473de8c86e39c130b1
-- Records that somebody moved dead letters of a handler back to its queue. A second call with the same id changes nothing.
-- p: {tenant_id, id, handler, actor, moved, more} -> {result: recorded|repeated}
create or replace function nofx.redrive_record(p jsonb) returns jsonb
    language plpgsql
    security definer
    set search_path = nofx, pg_temp
as $$
begin
    if exists (select from nofx.tenant_event e
                where e.tenant_id = p ->> 'tenant_id' and e.subject = p ->> 'handler' and e.payload ->> 'id' = p ->> 'id') then
        return jsonb_build_object('result', 'repeated');
    end if;
    insert into nofx.tenant_event (tenant_id, type, subject, actor, payload)
    values (p ->> 'tenant_id', 'queue.redriven', p ->> 'handler', p ->> 'actor',
            jsonb_build_object('id', p ->> 'id', 'moved', p -> 'moved', 'more', p -> 'more'));
    return jsonb_build_object('result', 'recorded');
end
$$;
select nofx.transition_declare('nofx.redrive_record(jsonb)', 'nofx_api');
