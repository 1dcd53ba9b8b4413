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

-- The recorded bytes of a tenant's artifacts that are not deleted. Those of artifacts that are older than an hour are counted once and stored, because no transaction adds
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
         where a.tenant_id = p_tenant_id and a.created_at >= coalesce(v_known.counted_to, '-infinity') and a.created_at < v_to
           and not exists (select from nofx.artifact_storage s where s.artifact_id = any (array[a.id]) and s.state = 'deleted');
        insert into nofx.stored_bytes (tenant_id, counted_to, bytes) values (p_tenant_id, v_to, v_bytes)
            on conflict (tenant_id) do update set counted_to = excluded.counted_to, bytes = excluded.bytes
         where stored_bytes.counted_to < excluded.counted_to;
        v_known.counted_to := v_to;
        v_known.bytes := v_bytes;
    end if;
    return v_known.bytes + coalesce((select sum(a.size_bytes) from nofx.artifact a
                                      where a.tenant_id = p_tenant_id and a.created_at >= v_known.counted_to
                                        and not exists (select from nofx.artifact_storage s where s.artifact_id = any (array[a.id]) and s.state = 'deleted')), 0);
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
