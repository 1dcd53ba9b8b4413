-- A page of rows, bounded in rows and in bytes. p_rows has at most one row more than the limit. A page with large rows ends early.
-- -> {rows, more}
create or replace function nofx.rows_page(p_rows jsonb[], p_limit integer) returns jsonb
    language sql
    set search_path = nofx, pg_temp
as $$
    select jsonb_build_object('rows', coalesce(jsonb_agg(k.item order by k.n) filter (where k.fits), '[]'),
                              'more', coalesce(bool_or(not k.fits), false))
      from (select s.item, s.n, s.n <= p_limit and (s.n = 1 or s.bytes <= 393216) as fits
              from (select r.item, r.n, sum(octet_length(r.item::text)) over (order by r.n) as bytes
                      from unnest(p_rows) with ordinality r(item, n)) s) k
$$;
revoke execute on function nofx.rows_page(jsonb[], integer) from public;
