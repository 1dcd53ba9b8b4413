//! The page of a step: where it stands, what it got and returned, what its attempts left.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio_postgres::types::Type;

use super::follow::{START, Start, start_joins};
use super::gate::{GATE, GATE_JOINS, Gate};
use super::steps::AttemptStatus;
use super::{Artifact, WAITING};
use crate::db::GOAL;
use crate::db::row;
use crate::db::session::{Arg, Session};
use crate::domain::{ArtifactRef, MicroUsd, RunId, RunStatus, StepStatus, Timestamp};
use crate::error::Error;

/// Attempts, parents, children, gates, artifacts: the first ones are on the page.
const ATTEMPTS: usize = 20;
const NEIGHBOURS: usize = 20;
const GATES: usize = 20;
const ARTIFACTS: usize = 50;
/// Calls of models that are listed, and usage events of the tenant that are searched for them, newest first.
const CALLS: usize = 20;
const SEARCHED: usize = 5_000;
/// A larger payload of an event is not read.
const PAYLOAD_BYTES: usize = 16 << 10;
/// Characters of inputs, outputs and an error.
const VALUE: usize = 32 << 10;

/// A step.
#[derive(Debug, Clone, Deserialize)]
pub struct StepDetail {
    pub run_id: RunId,
    pub run_status: RunStatus,
    pub goal: String,
    /// Its place in the plan, from 0, and the number of steps.
    pub ordinal: i64,
    pub steps_total: i64,
    pub name: String,
    pub tool: String,
    pub handler: String,
    pub status: StepStatus,
    /// Number of the newest attempt. 0: none yet.
    pub attempt: i64,
    /// The attempt that the page shows. 0: none yet.
    pub shown: i64,
    pub max_attempts: i64,
    /// Attempts of this generation that failed.
    pub failures: i64,
    /// Attempts of this generation whose worker was lost.
    pub workers_lost: i64,
    /// How long one attempt may take, if the plan says so.
    pub timeout_s: Option<i64>,
    pub ready_at: Option<Timestamp>,
    /// Start of the first attempt of this generation.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// From start to end, once it has ended.
    pub duration_ms: Option<i64>,
    /// End of its worker's lease.
    pub lease_until: Option<Timestamp>,
    /// Time of the next attempt, if it is in the future.
    pub next_try_at: Option<Timestamp>,
    /// As posted, with references.
    pub inputs: StoredJson,
    pub outputs: Option<StoredJson>,
    pub error: Option<StepFailure>,
    /// Newest first.
    pub attempts: Vec<TriedAttempt>,
    /// Those that have not succeeded first.
    pub parents: Vec<Neighbour>,
    pub parents_total: usize,
    pub children: Vec<Neighbour>,
    pub children_total: usize,
    /// The step that failed first in the run, if this one was skipped.
    pub culprit: Option<Neighbour>,
    /// Newest first.
    pub gates: Vec<Gate>,
    pub gates_total: usize,
    /// What the shown attempt stored, oldest first.
    pub artifacts: Vec<Artifact>,
    pub artifacts_total: usize,
    /// The evidence of the shown attempt.
    pub evidence: Option<ArtifactRef>,
    /// What a model has written so far, while its answer is being streamed.
    pub writing: Option<Writing>,
    /// Answers of models in all attempts, newest first.
    pub calls: Vec<ModelCall>,
    pub calls_total: usize,
    /// Whether older answers were not searched.
    pub calls_truncated: bool,
    /// What a `db_write` writes.
    pub write: Option<Start>,
    /// Pending gates of the tenant, counted up to 100.
    pub waiting: u64,
}

/// JSON as Postgres writes it, shortened.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredJson {
    pub text: String,
    /// Size of the whole text.
    pub bytes: u64,
}

/// Why a step failed.
#[derive(Debug, Clone, Deserialize)]
pub struct StepFailure {
    pub code: Option<String>,
    /// Shortened.
    pub message: String,
    #[serde(flatten)]
    pub json: StoredJson,
}

/// One attempt of the step.
#[derive(Debug, Clone, Deserialize)]
pub struct TriedAttempt {
    pub number: i64,
    pub status: AttemptStatus,
    pub started_at: Timestamp,
    /// None while it runs.
    pub duration_ms: Option<i64>,
    /// The message of its error, shortened.
    pub error: Option<String>,
}

/// A parent or a child.
#[derive(Debug, Clone, Deserialize)]
pub struct Neighbour {
    pub ordinal: i64,
    pub name: String,
    pub status: StepStatus,
}

/// A beginning of a streamed answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Writing {
    pub provider: String,
    pub model: String,
    pub bytes: u64,
    /// The last characters.
    pub tail: String,
    /// How long nothing was added, in seconds.
    pub silent_s: i64,
}

/// An answer of a model, as its event records it. `docs/events.md` describes the fields.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelCall {
    pub timestamp: Timestamp,
    #[serde(deserialize_with = "usage")]
    pub usage: CallUsage,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CallUsage {
    pub provider: String,
    pub model: String,
    pub usable: Option<bool>,
    pub reason: Option<String>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cached_input_tokens: Option<u64>,
    pub duration_ms: Option<i64>,
    pub cost_usd_micros: Option<MicroUsd>,
    /// Nobody knows its tokens, so it cost what was reserved.
    pub estimated: Option<bool>,
    pub tries: Option<u64>,
    /// Providers that gave no usable answer before.
    pub fallback_from: Vec<FailedCall>,
    /// The attempt that no longer owned the step.
    pub late_attempt: Option<i64>,
}

/// A provider that gave no usable answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct FailedCall {
    pub provider: String,
    pub model: String,
    pub kind: String,
    pub reason: String,
    pub tries: Option<u64>,
}

/// A payload of another shape has none of the fields. The call is still listed.
fn usage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CallUsage, D::Error> {
    Value::deserialize(deserializer).map(|value| serde_json::from_value(value).unwrap_or_default())
}

impl StepDetail {
    /// Whether the step can still change without a request.
    pub fn is_open(&self) -> bool {
        use StepStatus::{Cancelled, Failed, Skipped, Succeeded};
        !matches!(self.status, Succeeded | Failed | Skipped | Cancelled) && !self.run_status.is_terminal()
    }
}

/// The step at this place of a run, with what an attempt left: the newest one, unless `attempt` names another. `None` if
/// the tenant has no such run, step or attempt.
pub async fn step_detail_fetch(
    session: &Session,
    run: RunId,
    ordinal: i64,
    attempt: Option<i64>,
) -> Result<Option<StepDetail>, Error> {
    let (start, joins) = (START, start_joins());
    // The primary key of nofx.event has no step, so calls are found by their time.
    let sql = format!(
        "with found as materialized (
             select s.*, coalesce($4, s.attempt) as shown
               from nofx.step s
              where s.tenant_id = $1 and s.run_id = $2 and s.ordinal = $3
                and coalesce($4, s.attempt) between least(s.attempt, 1) and s.attempt
         ), used as materialized (
             select u.* from found s cross join lateral ({SEARCHED_CALLS}) u)
         select s.run_id, r.status as run_status, {GOAL} as goal, s.ordinal,
                (select count(*) from nofx.step o where o.tenant_id = $1 and o.run_id = s.run_id) as steps_total,
                s.name, s.tool, s.handler, s.status, s.attempt, s.shown, s.max_attempts, s.failures, s.workers_lost,
                s.timeout_s, s.ready_at, s.started_at, s.finished_at,
                (extract(epoch from s.finished_at - s.started_at) * 1000)::bigint as duration_ms, s.lease_until,
                case when s.status = 'ready' and s.ready_at > now() then s.ready_at end as next_try_at,
                {VALUES},
                coalesce((select json_agg(tried) from ({ATTEMPTS_OF_STEP}) tried), '[]') as attempts,
                {PARENTS_AND_CHILDREN},
                {GATES_OF_STEP},
                {STORED_BY_ATTEMPT},
                {CALLS_OF_STEP},
                {WRITING},
                (select to_json(written) from (
                    select {start} from (values (1)) one {joins} where s.tool = 'db_write') written) as write,
                {WAITING} as waiting
           from found s
           join nofx.run r on r.id = s.run_id
          cross join lateral (select s.inputs::text as inputs, s.outputs::text as outputs, s.error::text as error
                              offset 0) value",
        SEARCHED_CALLS = searched(),
        VALUES = values(),
        ATTEMPTS_OF_STEP = attempts(),
        PARENTS_AND_CHILDREN = neighbours(),
        GATES_OF_STEP = gates(),
        STORED_BY_ATTEMPT = stored(),
        CALLS_OF_STEP = calls(),
    );
    let (ordinal, attempt) = (narrow(ordinal), attempt.map(narrow));
    let params: [Arg<'_>; 3] = [(&run.0, Type::UUID), (&ordinal, Type::INT4), (&attempt, Type::INT4)];
    row::fetch(session, &sql, &params).await
}

/// No step and no attempt has a larger number.
fn narrow(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

// Parts of the query for a step `s` of a run `r`, in the order of the page.

fn values() -> String {
    let stored = |text: &str| format!("'text', left({text}, {VALUE}), 'bytes', octet_length({text})");
    format!(
        "json_build_object({}) as inputs,
         case when value.outputs is not null then json_build_object({}) end as outputs,
         case when value.error is not null then json_build_object(
             'code', left(s.error ->> 'code', 100),
             'message', left(coalesce(s.error ->> 'message', ''), 2000), {}) end as error",
        stored("value.inputs"),
        stored("value.outputs"),
        stored("value.error")
    )
}

fn attempts() -> String {
    let error = cut!("a.error ->> 'message'", 500);
    format!(
        "select a.attempt as number, a.status, a.started_at,
                (extract(epoch from a.finished_at - a.started_at) * 1000)::bigint as duration_ms,
                {error} as error
           from nofx.attempt a
          where a.tenant_id = $1 and a.step_id = s.id
          order by a.attempt desc limit {ATTEMPTS}"
    )
}

fn neighbours() -> String {
    let side = |of: &str, other: &str, order: &str| {
        format!(
            "coalesce((select json_agg(beside) from (
                 select o.ordinal, o.name, o.status
                   from nofx.step_edge e
                   join nofx.step o on o.id = e.{other}
                  where e.tenant_id = $1 and e.{of} = s.id
                  order by {order} o.ordinal limit {NEIGHBOURS}) beside), '[]')"
        )
    };
    let total = |of: &str| format!("(select count(*) from nofx.step_edge e where e.tenant_id = $1 and e.{of} = s.id)");
    format!(
        "{} as parents, {} as parents_total, {} as children, {} as children_total,
         case when s.status = 'skipped' then (
             select to_json(failed) from (
                 select o.ordinal, o.name, o.status from nofx.step o
                  where o.tenant_id = $1 and o.run_id = s.run_id and o.status = 'failed'
                  order by o.finished_at, o.ordinal limit 1) failed) end as culprit",
        side("child_id", "parent_id", "(o.status = 'succeeded'),"),
        total("child_id"),
        side("parent_id", "child_id", ""),
        total("parent_id")
    )
}

fn gates() -> String {
    let order = "(g.status = 'pending') desc, g.created_at desc, g.id desc";
    format!(
        "coalesce((select json_agg(gate) from (
             select {GATE}
               from (select g.* from nofx.gate g
                      where g.tenant_id = $1 and g.step_id = s.id order by {order} limit {GATES}) g
               {GATE_JOINS} order by {order}) gate), '[]') as gates,
         (select count(*) from nofx.gate g where g.tenant_id = $1 and g.step_id = s.id) as gates_total"
    )
}

fn stored() -> String {
    let of_attempt = "from nofx.artifact a where a.tenant_id = $1 and a.step_id = s.id and a.attempt = s.shown";
    format!(
        "coalesce((select json_agg(artifact) from (
             select a.id, s.name as step, left(a.name, 200) as name, left(a.type, 200) as type, a.hash, a.size_bytes,
                    a.media_type,
                    (select k.state from nofx.artifact_storage k where k.artifact_id = a.id and k.tenant_id = $1) as storage {of_attempt}
              order by a.created_at, a.id limit {ARTIFACTS}) artifact), '[]') as artifacts,
         (select count(*) {of_attempt}) as artifacts_total,
         (select json_build_object('id', a.id, 'uri', a.uri, 'hash', a.hash, 'size_bytes', a.size_bytes,
                                   'media_type', a.media_type) {of_attempt} and a.type = 'gate_evidence'
           order by a.created_at desc, a.id desc limit 1) as evidence"
    )
}

/// What a request that is open has so far.
const WRITING: &str = "(select to_json(w) from (
         select c.provider, left(c.model_requested, 200) as model, g.bytes, g.tail,
                greatest(0, floor(extract(epoch from clock_timestamp() - g.reported_at)))::bigint as silent_s
           from nofx.llm_progress g
           join nofx.llm_call c on c.id = g.call_id
          where g.tenant_id = $1 and g.step_id = s.id and g.attempt = s.attempt and s.status = 'running' and s.shown = s.attempt
            and c.state = 'open'
          order by g.reported_at desc limit 1) w) as writing";

/// The calls of the step, and usage events of the tenant (as releases without prices recorded them) from the step's first
/// attempt until an hour after its end, because a late attempt reports its usage too. The index event_watched serves this.
fn searched() -> String {
    format!(
        "(select c.run_id, c.step_id, c.ended_at as timestamp, jsonb_build_object(
                     'provider', c.provider, 'model', left(coalesce(c.model_served, c.model_requested), 200), 'usable', c.is_usable,
                     'reason', c.fault_kind, 'input_tokens', c.input_tokens, 'output_tokens', c.output_tokens,
                     'cached_input_tokens', c.cached_input_tokens, 'cost_usd_micros', c.charged_usd_micros, 'estimated', c.is_estimated,
                     'duration_ms', floor(extract(epoch from c.ended_at - c.started_at) * 1000)::bigint) as usage
            from nofx.llm_call c
           where c.tenant_id = $1 and c.step_id = s.id and c.state = 'settled'
           order by c.ended_at desc limit {SEARCHED})
          union all
         (select e.run_id, e.step_id, e.timestamp,
                case when octet_length(e.payload::text) <= {PAYLOAD_BYTES} then e.payload end as usage
           from nofx.event e
          where e.tenant_id = $1 and e.type = 'codegen.usage' and s.tool = 'codegen'
            and e.timestamp >= (select min(a.started_at) from nofx.attempt a
                                 where a.tenant_id = $1 and a.step_id = s.id)
            and e.timestamp <= coalesce(s.finished_at + interval '1 hour', now())
          order by e.timestamp desc limit {SEARCHED})"
    )
}

fn calls() -> String {
    format!(
        "coalesce((select json_agg(call) from (
             select u.timestamp, u.usage from used u where u.run_id = s.run_id and u.step_id = s.id
              order by u.timestamp desc limit {CALLS}) call), '[]') as calls,
         (select count(*) from used u where u.run_id = s.run_id and u.step_id = s.id) as calls_total,
         (select count(*) >= {SEARCHED} from used u) as calls_truncated"
    )
}
