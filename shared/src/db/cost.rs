//! What model calls cost: of a run, and of a tenant.

use tokio_postgres::types::Type;

use super::row;
use super::session::{Arg, Session};
use crate::domain::RunId;
use crate::error::Error;
use crate::view::{Costs, RunCosts};

/// Columns of a `view::Cost`. The query names the calls `c`.
const TOTALS: &str = "count(*) as calls, count(*) filter (where c.state = 'open') as open,
        count(*) filter (where c.state = 'settled' and not coalesce(c.is_usable, false)) as unusable,
        count(*) filter (where c.is_estimated) as estimated,
        count(*) filter (where c.state = 'settled' and c.charged_usd_micros is null) as unpriced,
        coalesce(sum(c.input_tokens), 0)::bigint as input_tokens,
        coalesce(sum(c.cached_input_tokens), 0)::bigint as cached_input_tokens,
        coalesce(sum(c.output_tokens), 0)::bigint as output_tokens,
        coalesce(sum(c.charged_usd_micros), 0)::bigint as cost_usd_micros";

/// What an answer of the cache saved. The query names the artifacts `a`.
const SAVED: &str = "(a.metadata #>> '{cached,saved_usd_micros}')::bigint";

/// Limits of the lists.
const STEPS: usize = 1_000;
const MODELS: usize = 200;
const DAYS: usize = 1_000;

/// What the model calls of a run cost. `None` if the tenant has no such run.
pub async fn run_costs(session: &Session, run: RunId) -> Result<Option<RunCosts>, Error> {
    let sql = format!(
        "select r.id as run_id, r.budget_usd_micros, r.spent_usd_micros, r.reserved_usd_micros,
                coalesce((
                    select sum({SAVED})::bigint from nofx.artifact a
                     where a.tenant_id = $1 and a.run_id = $2 and a.metadata ? 'cached'), 0) as saved_usd_micros,
                coalesce((
                    select json_agg(t) from (
                        select c.step_id, s.name, {TOTALS}
                          from nofx.llm_call c
                          join nofx.step s on s.id = c.step_id
                         where c.tenant_id = $1 and c.run_id = $2
                         group by c.step_id, s.name, s.ordinal
                         order by cost_usd_micros desc, s.ordinal limit {STEPS}) t), '[]') as steps,
                coalesce((
                    select json_agg(t) from (
                        select c.provider, coalesce(c.model_served, c.model_requested) as model, {TOTALS}
                          from nofx.llm_call c
                         where c.tenant_id = $1 and c.run_id = $2
                         group by 1, 2
                         order by cost_usd_micros desc, 1, 2 limit {MODELS}) t), '[]') as models
           from nofx.run r where r.tenant_id = $1 and r.id = $2"
    );
    row::fetch(session, &sql, &[(&run.0, Type::UUID)]).await
}

/// What the model calls of a tenant cost that started from the day `from` to the day `to` (`2026-11-30`, UTC). Without
/// `to`: to today. Without `from`: the 30 days before that day's end.
pub async fn tenant_costs(session: &Session, from: Option<&str>, to: Option<&str>) -> Result<Costs, Error> {
    let sql = format!(
        "with range as materialized (
             select coalesce($2::text::date, d.to_day - 29) as from_day, d.to_day
               from (select coalesce($3::text::date, (now() at time zone 'UTC')::date) as to_day) d
         ), day as materialized (
             select (c.started_at at time zone 'UTC')::date as day, c.provider,
                    coalesce(c.model_served, c.model_requested) as model, {TOTALS}
               from range g
               join nofx.llm_call c on c.tenant_id = $1 and c.started_at >= g.from_day::timestamp at time zone 'UTC'
                                   and c.started_at < (g.to_day + 1)::timestamp at time zone 'UTC'
              group by 1, 2, 3
         ), budget as (
             select p.period, p.starts_on, p.cap
               from (select (x.document #>> '{{models,budgets,day_usd}}')::numeric as day_usd,
                            (x.document #>> '{{models,budgets,month_usd}}')::numeric as month_usd
                       from (values (1)) one
                       left join lateral (select q.document from nofx.policy q where q.tenant_id = $1
                                           order by q.version desc limit 1) x on true) b
              cross join lateral (values
                    ('day', (now() at time zone 'UTC')::date, b.day_usd),
                    ('month', date_trunc('month', now() at time zone 'UTC')::date, b.month_usd)) p(period, starts_on, cap)
         )
         select g.from_day::text as \"from\", g.to_day::text as \"to\",
                (select row_to_json(t) from (
                    select coalesce(sum(d.calls), 0)::bigint as calls, coalesce(sum(d.open), 0)::bigint as open,
                           coalesce(sum(d.unusable), 0)::bigint as unusable, coalesce(sum(d.estimated), 0)::bigint as estimated,
                           coalesce(sum(d.unpriced), 0)::bigint as unpriced,
                           coalesce(sum(d.input_tokens), 0)::bigint as input_tokens,
                           coalesce(sum(d.cached_input_tokens), 0)::bigint as cached_input_tokens,
                           coalesce(sum(d.output_tokens), 0)::bigint as output_tokens,
                           coalesce(sum(d.cost_usd_micros), 0)::bigint as cost_usd_micros
                      from day d) t) as total,
                coalesce((select json_agg(t) from (
                    select d.* from day d order by d.day desc, d.cost_usd_micros desc, d.provider, d.model limit {DAYS}) t), '[]') as days,
                (select count(*) from day) > {DAYS} as truncated,
                coalesce((
                    select sum({SAVED})::bigint from nofx.artifact a
                     where a.tenant_id = $1 and a.metadata ? 'cached' and a.created_at >= g.from_day::timestamp at time zone 'UTC'
                       and a.created_at < (g.to_day + 1)::timestamp at time zone 'UTC'), 0) as saved_usd_micros,
                (select json_agg(t) from (
                    select b.period, b.starts_on::text as starts_on, (b.cap * 1000000)::bigint as cap_usd_micros,
                           coalesce(s.spent_usd_micros, 0) as spent_usd_micros, coalesce(s.reserved_usd_micros, 0) as reserved_usd_micros
                      from budget b
                      left join nofx.llm_spend s on s.tenant_id = $1 and s.period = b.period and s.starts_on = b.starts_on
                     order by b.period) t) as budgets
           from range g"
    );
    let params: [Arg<'_>; 2] = [(&from, Type::TEXT), (&to, Type::TEXT)];
    let costs = row::fetch(session, &sql, &params).await?;
    costs.ok_or_else(|| Error::internal("read costs", "no row"))
}
