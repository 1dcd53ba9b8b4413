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
