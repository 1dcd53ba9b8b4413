//! What models were used for: calls and tokens. Calls of releases without prices are known by their events alone.

use serde::Deserialize;

use super::WAITING;
use crate::db::GOAL;
use crate::db::row;
use crate::db::session::Session;
use crate::domain::RunId;
use crate::error::Error;

/// Days that a page shows.
pub const DAYS: i32 = 30;
/// Answers of models that a page counts, newest first.
pub const EVENTS: usize = 20_000;
/// Models and runs that are listed.
const LISTED: usize = 20;

/// Calls and tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Tokens {
    pub calls: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Input tokens that the provider had cached. They are part of the input tokens.
    pub cached_tokens: u64,
    /// Templates that were filled in instead of a call.
    pub templates: u64,
    /// Answers that could not be used.
    pub unusable: u64,
    /// Answers for which the provider gave no number of tokens. They count as 0 tokens.
    pub uncounted: u64,
}

/// Usage of one model.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelUsage {
    pub provider: String,
    pub model: String,
    #[serde(flatten)]
    pub tokens: Tokens,
}

/// Usage of one day in UTC.
#[derive(Debug, Clone, Deserialize)]
pub struct DayUsage {
    /// `2026-11-23`
    pub day: String,
    #[serde(flatten)]
    pub tokens: Tokens,
}

/// Usage of one run.
#[derive(Debug, Clone, Deserialize)]
pub struct RunUsage {
    pub run_id: RunId,
    pub goal: String,
    #[serde(flatten)]
    pub tokens: Tokens,
}

/// Usage of the last days.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Usage {
    pub total: Tokens,
    /// Those with most tokens first.
    pub models: Vec<ModelUsage>,
    /// Days with usage, newest first.
    pub days: Vec<DayUsage>,
    /// Those with most tokens first.
    pub runs: Vec<RunUsage>,
    /// Whether older answers of these days are not counted.
    pub truncated: bool,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
}

/// Columns of [`Tokens`].
const TOKENS: &str = "count(*) filter (where not u.is_template) as calls,
            count(*) filter (where u.is_template) as templates, coalesce(sum(u.input_tokens), 0)::bigint as input_tokens,
            coalesce(sum(u.output_tokens), 0)::bigint as output_tokens,
            coalesce(sum(u.cached_tokens), 0)::bigint as cached_tokens,
            count(*) filter (where u.is_unusable) as unusable,
            count(*) filter (where not u.is_template and not u.is_refused
                                   and (u.input_tokens is null or u.output_tokens is null)) as uncounted";

/// The usage of the last days.
pub async fn usage_fetch(session: &Session) -> Result<Usage, Error> {
    let tokens = |field: &str| {
        format!("case when jsonb_typeof(e.payload -> '{field}') = 'number' then (e.payload ->> '{field}')::numeric end")
    };
    let (input, output, cached) = (tokens("input_tokens"), tokens("output_tokens"), tokens("cached_input_tokens"));
    let by_tokens = "order by sum(u.input_tokens) + sum(u.output_tokens) desc nulls last, count(*) desc";
    // The index event_watched serves this.
    let sql = format!(
        "with used as materialized (
             select e.run_id, e.timestamp, left(e.payload ->> 'provider', 100) as provider,
                    left(e.payload ->> 'model', 200) as model, {input} as input_tokens, {output} as output_tokens,
                    {cached} as cached_tokens, coalesce(e.payload -> 'usable' = 'false', false) as is_unusable,
                    coalesce(e.payload ->> 'provider' = 'template', false) as is_template, false as is_refused
               from nofx.event e
              where e.tenant_id = $1 and e.type = 'codegen.usage' and e.timestamp > now() - make_interval(days => {DAYS})
              union all
             select c.run_id, c.started_at, c.provider, left(coalesce(c.model_served, c.model_requested), 200), c.input_tokens, c.output_tokens,
                    c.cached_input_tokens, not coalesce(c.is_usable, false), false,
                    -- It cost nothing, and that is certain.
                    coalesce(c.charged_usd_micros = 0 and not c.is_estimated, false)
               from nofx.llm_call c
              where c.tenant_id = $1 and c.state = 'settled' and c.started_at > now() - make_interval(days => {DAYS})
              order by timestamp desc limit {EVENTS})
         select (select row_to_json(t) from (select {TOKENS} from used u) t) as total,
                coalesce((select json_agg(m) from (
                    select coalesce(u.provider, '') as provider, coalesce(u.model, '') as model, {TOKENS}
                      from used u where not u.is_template group by u.provider, u.model {by_tokens} limit {LISTED}) m), '[]') as models,
                coalesce((select json_agg(d) from (
                    select to_char(u.timestamp at time zone 'UTC', 'YYYY-MM-DD') as day, {TOKENS}
                      from used u group by 1 order by 1 desc) d), '[]') as days,
                coalesce((select json_agg(r) from (
                    select t.*, {GOAL} as goal
                      from (select u.run_id, {TOKENS} from used u group by u.run_id {by_tokens} limit {LISTED}) t
                      join nofx.run r on r.id = t.run_id and r.tenant_id = $1
                     order by t.input_tokens + t.output_tokens desc, t.run_id) r), '[]') as runs,
                (select count(*) from used) = {EVENTS} as truncated,
                {WAITING} as waiting"
    );
    let usage: Option<Usage> = row::fetch(session, &sql, &[]).await?;
    usage.ok_or_else(|| Error::internal("read usage", "no row"))
}
