//! Runs: create, control, read.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::artifact_storage::GoneArtifact;
use super::page::{Page, page};
use super::row;
use super::session::{Arg, Session};
use crate::domain::approval::Approval;
use crate::domain::repair::Repair;
use crate::domain::{ArtifactId, MicroUsd, RunId, RunStatus, StepId, WakeUp};
use crate::error::{Error, Problem};
use crate::view::{Run, RunPage, RunSummary};

/// A run to create. The caller chooses the ids.
#[derive(Debug, Serialize)]
pub struct NewRun<'a> {
    pub id: RunId,
    pub goal: &'a str,
    pub plan: &'a Value,
    pub plan_digest: String,
    pub request_digest: String,
    pub idempotency_key: Option<&'a str>,
    pub actor: Option<&'a str>,
    pub timeout_s: Option<u32>,
    #[serde(rename = "budget_usd_micros")]
    pub budget: Option<MicroUsd>,
    pub traceparent: String,
    /// Artifact ids by role: archive, base, diff.
    pub workspace: Option<Value>,
    /// Artifacts whose ids are in the inputs. The people who uploaded them may not approve the run.
    pub artifacts: Vec<ArtifactId>,
    /// Whether a step needs an approval.
    pub asks: bool,
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
    /// The path of each reference, as text of a Postgres array.
    pub ref_paths: Vec<String>,
    pub blockers: usize,
    pub max_attempts: u32,
    pub backoff_ms: u32,
    pub timeout_s: Option<u32>,
    /// Who must approve it before each start.
    pub approval: Option<&'a Approval>,
    /// The gates whose findings it repairs.
    pub repair: Option<&'a Repair>,
}

/// `child` waits for `parent`.
#[derive(Debug, Serialize)]
pub struct NewEdge {
    pub parent: StepId,
    pub child: StepId,
}

/// Result of creating a run.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum RunCreated {
    Created {
        id: RunId,
        status: RunStatus,
        ready: Vec<WakeUp>,
    },
    /// The idempotency key was used before, with the same request.
    Existing {
        id: RunId,
        status: RunStatus,
    },
    /// The idempotency key was used before, with another request.
    Conflict {
        id: RunId,
    },
    Invalid {
        problems: Vec<Problem>,
    },
}

/// An operation on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Cancel,
    Pause,
    Resume,
    Retry,
}

/// Result of an operation on a run.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Controlled {
    Cancelled(Changes),
    Paused(Changes),
    Resumed(Changes),
    Retried(Changes),
    /// The run was already in this state.
    Unchanged(Changes),
    /// The run's state forbids the operation.
    Conflict {
        status: RunStatus,
    },
    /// The bytes of an artifact of its workspace are deleted.
    Gone(GoneArtifact),
    NotFound,
}

/// What an operation changed. `view::RunChange` describes the lists.
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
    run_id: RunId,
    actor: &'a str,
}

/// Creates a run with its steps, edges and first events.
pub async fn run_create(session: &Session, run: &NewRun<'_>) -> Result<RunCreated, Error> {
    session.transition("select nofx.run_create($1)", run).await
}

/// Cancels, pauses, resumes or retries.
pub async fn run_control(session: &Session, run: RunId, control: Control, actor: &str) -> Result<Controlled, Error> {
    let sql = match control {
        Control::Cancel => "select nofx.run_cancel($1)",
        Control::Pause => "select nofx.run_pause($1)",
        Control::Resume => "select nofx.run_resume($1)",
        Control::Retry => "select nofx.run_retry($1)",
    };
    session.transition(sql, &ControlCall { run_id: run, actor }).await
}

/// Filters of a list of runs. A run must match all of them. The default matches every run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// The run is in one of these states. Empty for any state.
    pub statuses: Vec<RunStatus>,
    /// The run has a step of this tool, or of a tool with this prefix, such as `gate:`.
    pub tool: Option<String>,
    /// The run's goal contains this text, ignoring case.
    pub goal: Option<String>,
    /// The run was started by somebody with exactly this name.
    pub created_by: Option<String>,
    /// The run was created at this time or later.
    pub created_from: Option<SystemTime>,
    /// The run was created before this time.
    pub created_to: Option<SystemTime>,
}

/// Maximum number of runs that one page reads to find matching ones.
const MAX_SCANNED: usize = 10_000;
/// The same with the filter `tool`. A run has up to 1,000 steps, and no index covers their tools.
const MAX_SCANNED_WITH_STEPS: usize = 500;

/// Runs of a tenant that match the filter, newest first, after the one with the id `after`. If few runs match, a page can
/// have fewer rows than `limit`, or none, and still have a next page.
pub async fn run_list(
    session: &Session,
    filter: &RunFilter,
    after: Option<RunId>,
    limit: i64,
) -> Result<RunPage, Error> {
    let listing = Listing::new(filter, after, limit);
    let page: Page<ScannedRun<RunSummary>> =
        page(session, &listing.sql(SUMMARY, SUMMARY), limit, &listing.params()).await?;
    let next = page.items.last().filter(|last| page.more || last.is_last).map(|last| last.id);
    Ok(RunPage { runs: page.items.into_iter().filter_map(|scanned| scanned.run).collect(), next })
}

/// Columns of a run in a list. The query names the run `r`.
const SUMMARY: &str =
    "r.id, r.status, r.goal, r.generation, r.created_by, r.created_at, r.started_at, r.finished_at, r.failure";

/// A run that a list has read.
#[derive(Debug, Deserialize)]
pub(super) struct ScannedRun<T> {
    pub id: RunId,
    /// Whether the scan ended here.
    pub is_last: bool,
    /// None if the run does not match.
    pub run: Option<T>,
}

/// A list of runs to query, for any columns.
pub(super) struct Listing<'a> {
    filter: &'a RunFilter,
    after: Option<Uuid>,
    limit: i64,
    statuses: Vec<String>,
    goal: Option<String>,
}

impl<'a> Listing<'a> {
    pub fn new(filter: &'a RunFilter, after: Option<RunId>, limit: i64) -> Self {
        let statuses = filter.statuses.iter().map(ToString::to_string).collect();
        let goal = filter.goal.as_deref().map(ignoring_case);
        Self { filter, after: after.map(|id| id.0), limit, statuses, goal }
    }

    /// Parameters of [`Listing::sql`] and [`Listing::counts`]: `$1` is the tenant, `$2` the limit.
    pub fn params(&self) -> [Arg<'_>; 8] {
        [
            (&self.limit, Type::INT8),
            (&self.after, Type::UUID),
            (&self.filter.created_from, Type::TIMESTAMPTZ),
            (&self.filter.created_to, Type::TIMESTAMPTZ),
            (&self.statuses, Type::TEXT_ARRAY),
            (&self.goal, Type::TEXT),
            (&self.filter.tool, Type::TEXT),
            (&self.filter.created_by, Type::TEXT),
        ]
    }

    /// Selects a [`ScannedRun`] for each run of the page, and for one more. `shown` are the columns of a run `r`, and
    /// `read` those columns of the table that `shown` uses.
    pub fn sql(&self, read: &str, shown: &str) -> String {
        let range = self.range(self.after.is_some());
        let Some(matches) = matches(self.filter) else {
            return format!(
                "select r.id, false as is_last, (select to_json(shown) from (select {shown}) shown) as run
                   from nofx.run r where {range} order by r.created_at desc, r.id desc limit $2 + 1"
            );
        };
        let max_scanned = max_scanned(self.filter);
        // The last scanned run is always returned, because it is the cursor of the next page.
        format!(
            "select r.id, r.position = {max_scanned} as is_last,
                    case when r.matches then (select to_json(shown) from (select {shown}) shown) end as run
               from (select r.*, row_number() over (order by r.created_at desc, r.id desc) as position,
                            {matches} as matches
                       from (select {read} from nofx.run r
                              where {range} order by r.created_at desc, r.id desc limit {max_scanned}) r) r
              where r.matches or r.position = {max_scanned}
              order by r.created_at desc, r.id desc limit $2 + 1"
        )
    }

    /// Selects the number of matching runs in each state, whatever states the filter names: `{by_status, is_cut}`. `is_cut`:
    /// there are older runs that were not counted.
    pub fn counts(&self) -> String {
        let any_status = RunFilter { statuses: Vec::new(), ..self.filter.clone() };
        let (range, max_scanned) = (self.range(false), max_scanned(self.filter));
        let counted = matches(&any_status).map(|matches| format!(" filter (where {matches})")).unwrap_or_default();
        format!(
            "select json_build_object('by_status', coalesce(json_object_agg(c.status, c.count), '{{}}'),
                                      'is_cut', coalesce(sum(c.scanned), 0) > {max_scanned})
               from (select r.status, count(*){counted} as count, count(*) as scanned
                       from (select r.id, r.status, r.goal, r.created_by from nofx.run r
                              where {range} order by r.created_at desc, r.id desc limit {max_scanned} + 1) r
                      group by r.status) c"
        )
    }

    /// The part of the index to read. Postgres would not use the index for an optional bound, so there are only the bounds
    /// that are set.
    fn range(&self, is_after: bool) -> String {
        let mut range = String::from("r.tenant_id = $1");
        if is_after {
            range += " and (r.created_at, r.id) < (select c.created_at, c.id from nofx.run c where c.tenant_id = $1 and c.id = $3)";
        }
        if self.filter.created_from.is_some() {
            range += " and r.created_at >= $4";
        }
        if self.filter.created_to.is_some() {
            range += " and r.created_at < $5";
        }
        range
    }
}

fn max_scanned(filter: &RunFilter) -> usize {
    if filter.tool.is_some() { MAX_SCANNED_WITH_STEPS } else { MAX_SCANNED }
}

/// The condition for filters that the index does not cover, cheap tests first. The query names the run `r`. None without
/// such filters.
fn matches(filter: &RunFilter) -> Option<String> {
    let mut conditions = Vec::new();
    if !filter.statuses.is_empty() {
        conditions.push("r.status = any ($6)");
    }
    if filter.created_by.is_some() {
        conditions.push("r.created_by = $9");
    }
    if filter.goal.is_some() {
        conditions.push("r.goal ~ $7");
    }
    if filter.tool.is_some() {
        // `offset 0` keeps the planner from reading all steps of the tool instead of the steps of each run.
        conditions.push(
            "exists (select from nofx.step s where s.tenant_id = $1 and s.run_id = r.id\n                and (s.tool = $8 or right($8, 1) = ':' and starts_with(s.tool, $8)) offset 0)",
        );
    }
    (!conditions.is_empty()).then(|| conditions.join(" and "))
}

/// A regular expression that matches the text, ignoring case. Unlike `ilike`, it does not depend on the database's locale.
fn ignoring_case(text: &str) -> String {
    let mut pattern = String::new();
    for letter in text.chars() {
        let (lower, upper) = (letter.to_lowercase(), letter.to_uppercase());
        // The upper case of `ß` is `SS`. Such letters match only themselves.
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

/// Maximum size of a plan that is shown with its run.
const PLAN_INLINE_BYTES: i32 = 64 << 10;

/// A run. A large plan is null, and `plan_omitted` gives its size. The caller adds its address.
pub async fn run_fetch(session: &Session, run: RunId) -> Result<Option<Run>, Error> {
    let sql = format!(
        "select r.id, r.status, r.goal, r.plan_digest, r.generation, r.failure, r.timeout_s, r.deadline_at,
                r.created_by, r.created_at, r.started_at, r.paused_at, r.finished_at,
                r.budget_usd_micros, r.spent_usd_micros, r.reserved_usd_micros,
                case when size.plan <= {PLAN_INLINE_BYTES} then r.plan end as plan,
                case when size.plan > {PLAN_INLINE_BYTES} then json_build_object('bytes', size.plan) end as plan_omitted
           from nofx.run r
          cross join lateral (select octet_length(r.plan::text) as plan offset 0) size
          where r.tenant_id = $1 and r.id = $2"
    );
    row::fetch(session, &sql, &[(&run.0, Type::UUID)]).await
}

/// A run's plan as posted.
pub async fn run_plan(session: &Session, run: RunId) -> Result<Option<Box<RawValue>>, Error> {
    #[derive(Deserialize)]
    struct Row {
        plan: Box<RawValue>,
    }
    let sql = "select r.plan from nofx.run r where r.tenant_id = $1 and r.id = $2";
    let row: Option<Row> = row::fetch(session, sql, &[(&run.0, Type::UUID)]).await?;
    Ok(row.map(|row| row.plan))
}

/// The version of a run with its steps, events, gates and artifacts. Every transition writes an event, so it changes the
/// version. The number of the last event is not enough: after a restore, other events can get the same numbers. Their
/// timestamps differ.
pub async fn run_version(session: &Session, run: RunId) -> Result<Option<String>, Error> {
    let sql = "select concat_ws('.', r.event_seq, extract(epoch from e.timestamp))
                 from nofx.run r
                 left join nofx.event e on e.run_id = r.id and e.seq = r.event_seq
                where r.tenant_id = $1 and r.id = $2";
    session.value(sql, &[(&run.0, Type::UUID)]).await
}

/// Whether the tenant has such a run.
pub async fn run_exists(session: &Session, run: RunId) -> Result<bool, Error> {
    let sql = "select from nofx.run r where r.tenant_id = $1 and r.id = $2";
    row::exists(session, sql, &[(&run.0, Type::UUID)]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_ignore_case_and_escape_special_characters() {
        assert_eq!(ignoring_case("a1ß Ä"), "[Aa]1ß [Ää]");
        assert_eq!(ignoring_case("***:(.*)\\[^-]"), r"\*\*\*\:\(\.\*\)\\\[\^\-\]");
    }
}
