//! Runs: create, control, read.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;

use super::page::{Page, page};
use super::pool::{Database, Param};
use super::row;
use crate::domain::{RunId, RunStatus, StepId, TenantId, WakeUp};
use crate::error::{Error, Problem};
use crate::view::{Run, RunSummary};

/// A run to be created, ids given.
#[derive(Debug, Serialize)]
pub struct NewRun<'a> {
    pub id: RunId,
    pub tenant_id: &'a TenantId,
    pub goal: &'a str,
    pub plan: &'a Value,
    pub plan_digest: String,
    pub request_digest: String,
    pub idempotency_key: Option<&'a str>,
    pub timeout_s: Option<u32>,
    pub traceparent: String,
    /// Artifact ids by role: archive, base, diff.
    pub workspace: Option<Value>,
    pub steps: Vec<NewStep<'a>>,
    pub edges: Vec<NewEdge>,
}

/// A step of a new run.
#[derive(Debug, Serialize)]
pub struct NewStep<'a> {
    pub id: StepId,
    pub ordinal: usize,
    pub name: &'a str,
    pub tool: &'a str,
    pub handler: &'a str,
    pub inputs: &'a Value,
    /// Names of the steps that the inputs refer to, one for each reference.
    pub refs: Vec<&'a str>,
    /// What each of them refers to: a path as text of a Postgres array.
    pub ref_paths: Vec<String>,
    pub blockers: usize,
    pub max_attempts: u32,
    pub backoff_ms: u32,
    pub timeout_s: Option<u32>,
}

/// `child` waits for `parent`.
#[derive(Debug, Serialize)]
pub struct NewEdge {
    pub parent: StepId,
    pub child: StepId,
}

/// What creating a run gave.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum RunCreated {
    Created {
        id: RunId,
        status: RunStatus,
        ready: Vec<WakeUp>,
    },
    /// The same idempotency key and the same request came before.
    Existing {
        id: RunId,
        status: RunStatus,
    },
    /// The same idempotency key came before with another request.
    Conflict {
        id: RunId,
    },
    Invalid {
        problems: Vec<Problem>,
    },
}

/// What a person asks of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Cancel,
    Pause,
    Resume,
    Retry,
}

/// What controlling a run gave.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Controlled {
    Cancelled(Changes),
    Paused(Changes),
    Resumed(Changes),
    Retried(Changes),
    /// It was so before.
    Unchanged(Changes),
    /// Its state forbids it.
    Conflict {
        status: RunStatus,
    },
    NotFound,
}

/// What controlling a run changed; the lists are those of `view::RunChange`.
#[derive(Debug, Deserialize)]
pub struct Changes {
    pub status: RunStatus,
    pub generation: Option<u32>,
    #[serde(default)]
    pub ready: Vec<WakeUp>,
    pub stopped: Option<Vec<String>>,
    pub was_running: Option<Vec<String>>,
    pub still_running: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct ControlCall<'a> {
    tenant_id: &'a TenantId,
    run_id: RunId,
    actor: &'a str,
}

/// Creates a run with its steps, edges and first events.
pub async fn run_create(db: &Database, run: &NewRun<'_>) -> Result<RunCreated, Error> {
    db.transition("select nofx.run_create($1)", run).await
}

/// Cancels, pauses, resumes or retries.
pub async fn run_control(
    db: &Database,
    tenant: &TenantId,
    run: RunId,
    control: Control,
    actor: &str,
) -> Result<Controlled, Error> {
    let sql = match control {
        Control::Cancel => "select nofx.run_cancel($1)",
        Control::Pause => "select nofx.run_pause($1)",
        Control::Resume => "select nofx.run_resume($1)",
        Control::Retry => "select nofx.run_retry($1)",
    };
    db.transition(sql, &ControlCall { tenant_id: tenant, run_id: run, actor }).await
}

/// Which runs a list shows. The default shows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// In one of these states; in any state if there is none.
    pub statuses: Vec<RunStatus>,
    /// With a step of this tool.
    pub tool: Option<String>,
    /// With this text in the goal, in any case.
    pub goal: Option<String>,
    /// Created at this moment or later.
    pub created_from: Option<SystemTime>,
    /// Created before this moment.
    pub created_to: Option<SystemTime>,
}

/// A page of runs. Where more may follow, `next` is the cursor of the next page.
#[derive(Debug)]
pub struct RunList {
    pub runs: Vec<RunSummary>,
    pub next: Option<RunId>,
}

/// Most runs that one page reads to find those that fit its filter.
const MAX_READ: usize = 10_000;
/// The same if it also looks for a tool. A run has up to 1,000 steps, and no index finds a tool.
const MAX_READ_WITH_STEPS: usize = 500;

/// Runs of a tenant that fit the filter, newest first, after the one with the id `after`. With a filter that few runs fit, a
/// page may end early, even empty, and lead to the next page.
pub async fn run_list(
    db: &Database,
    tenant: &TenantId,
    filter: &RunFilter,
    after: Option<RunId>,
    limit: i64,
) -> Result<RunList, Error> {
    // One text for each case, because the index is not used where a bound may be absent.
    let mut which = String::from("r.tenant_id = $1");
    if after.is_some() {
        which += " and (r.created_at, r.id) < (select c.created_at, c.id from nofx.run c where c.tenant_id = $1 and c.id = $3)";
    }
    if filter.created_from.is_some() {
        which += " and r.created_at >= $4";
    }
    if filter.created_to.is_some() {
        which += " and r.created_at < $5";
    }
    let statuses: Vec<_> = filter.statuses.iter().map(ToString::to_string).collect();
    let after = after.map(|id| id.0);
    let goal = filter.goal.as_deref().map(in_any_case);
    let params: [Param<'_>; 8] = [
        (&tenant.0, Type::TEXT),
        (&limit, Type::INT8),
        (&after, Type::UUID),
        (&filter.created_from, Type::TIMESTAMPTZ),
        (&filter.created_to, Type::TIMESTAMPTZ),
        (&statuses, Type::TEXT_ARRAY),
        (&goal, Type::TEXT),
        (&filter.tool, Type::TEXT),
    ];
    let fits = fits(filter);
    if fits.is_empty() {
        let sql = format!(
            "select {SUMMARY} from nofx.run r where {which} order by r.created_at desc, r.id desc limit $2 + 1"
        );
        let page: Page<RunSummary> = page(db, &sql, limit, &params).await?;
        let next = page.next(|run| run.id);
        return Ok(RunList { runs: page.items, next });
    }
    let most = if filter.tool.is_some() { MAX_READ_WITH_STEPS } else { MAX_READ };
    // The last run that may be read is a row of the answer in any case: it is the cursor of the next page.
    let sql = format!(
        "select r.id, r.n = {most} as is_last, case when r.fits then (select to_json(shown) from (select {SUMMARY}) shown) end as run
           from (select r.*, row_number() over (order by r.created_at desc, r.id desc) as n, {fits} as fits
                   from (select {SUMMARY} from nofx.run r
                          where {which} order by r.created_at desc, r.id desc limit {most}) r) r
          where r.fits or r.n = {most}
          order by r.created_at desc, r.id desc limit $2 + 1"
    );
    let page: Page<ReadRun> = page(db, &sql, limit, &params).await?;
    let next = page.items.last().filter(|last| page.more || last.is_last).map(|last| last.id);
    Ok(RunList { runs: page.items.into_iter().filter_map(|read| read.run).collect(), next })
}

/// A run in a list; wants `r` a run.
const SUMMARY: &str = "r.id, r.status, r.goal, r.generation, r.created_at, r.started_at, r.finished_at, r.failure";

/// A run that a page with a filter has read.
#[derive(Debug, Deserialize)]
struct ReadRun {
    id: RunId,
    /// Whether the page reads no further.
    is_last: bool,
    /// None if it does not fit.
    run: Option<RunSummary>,
}

/// Whether the run `r` fits, as far as its creation does not tell. Empty if every run fits. The cheap conditions come first.
fn fits(filter: &RunFilter) -> String {
    let mut conditions = Vec::new();
    if !filter.statuses.is_empty() {
        conditions.push("r.status = any ($6)");
    }
    if filter.goal.is_some() {
        conditions.push("r.goal ~ $7");
    }
    if filter.tool.is_some() {
        // `offset 0` keeps the planner from reading all steps of the tool once, instead of the steps of each run.
        conditions.push(
            "exists (select from nofx.step s where s.tenant_id = $1 and s.run_id = r.id and s.tool = $8 offset 0)",
        );
    }
    conditions.join(" and ")
}

/// A regular expression that finds the text in any case, whatever the database's locale knows of letters.
fn in_any_case(text: &str) -> String {
    let mut pattern = String::new();
    for letter in text.chars() {
        let (lower, upper) = (letter.to_lowercase(), letter.to_uppercase());
        // `ß` has two letters in upper case: such letters stand for themselves.
        let has_cases = lower.len() == 1 && upper.len() == 1;
        let cases: BTreeSet<char> = lower.chain(upper).filter(|_| has_cases).chain([letter]).collect();
        if cases.len() > 1 {
            pattern.push('[');
            pattern.extend(cases);
            pattern.push(']');
        } else {
            pattern.extend(letter.is_ascii_punctuation().then_some('\\'));
            pattern.push(letter);
        }
    }
    pattern
}

/// Largest plan that is shown with its run.
const PLAN_INLINE_BYTES: i32 = 64 << 10;

/// A run. A large plan is null, and `plan_omitted: {bytes, href}` tells where it is.
pub async fn run_fetch(db: &Database, tenant: &TenantId, run: RunId) -> Result<Option<Run>, Error> {
    let sql = format!(
        "select r.id, r.status, r.goal, r.plan_digest, r.generation, r.failure, r.timeout_s, r.deadline_at,
                r.created_at, r.started_at, r.paused_at, r.finished_at,
                case when size.plan <= {PLAN_INLINE_BYTES} then r.plan end as plan,
                case when size.plan > {PLAN_INLINE_BYTES}
                     then json_build_object('bytes', size.plan, 'href', '/runs/' || r.id || '/plan')
                end as plan_omitted
           from nofx.run r
          cross join lateral (select octet_length(r.plan::text) as plan offset 0) size
          where r.tenant_id = $1 and r.id = $2"
    );
    row::fetch(db, &sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await
}

/// A run's plan, as it was posted.
pub async fn run_plan(db: &Database, tenant: &TenantId, run: RunId) -> Result<Option<Box<RawValue>>, Error> {
    #[derive(Deserialize)]
    struct Row {
        plan: Box<RawValue>,
    }
    let sql = "select r.plan from nofx.run r where r.tenant_id = $1 and r.id = $2";
    let row: Option<Row> = row::fetch(db, sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await?;
    Ok(row.map(|row| row.plan))
}

/// The version of a run and of all that belongs to it: steps, events, gates, artifacts. Every transition changes it, because
/// `nofx.runs_settle` updates the run's row and so its `xmin`, even where it writes no event. Wake-ups that a sweep sends
/// (`notify_at`, `notify_count` of a step) do not change it.
pub async fn run_version(db: &Database, tenant: &TenantId, run: RunId) -> Result<Option<String>, Error> {
    let sql = "select r.event_seq || '.' || r.xmin from nofx.run r where r.tenant_id = $1 and r.id = $2";
    db.query_value(sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await
}

/// Whether the tenant has such a run.
pub async fn run_exists(db: &Database, tenant: &TenantId, run: RunId) -> Result<bool, Error> {
    let sql = "select from nofx.run r where r.tenant_id = $1 and r.id = $2";
    row::exists(db, sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_any_case_and_no_sign_of_it_means_anything_else() {
        assert_eq!(in_any_case("a1ß Ä"), "[Aa]1ß [Ää]");
        assert_eq!(in_any_case("***:(.*)\\[^-]"), r"\*\*\*\:\(\.\*\)\\\[\^\-\]");
    }
}
