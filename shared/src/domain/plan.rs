//! Plans: reads and checks what a client posts, and finds the parents and references of each step.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::approval::{self, Approval};
use super::bounds::{Shape, json_bytes};
use super::fields::{self, Fields, Most, Names, Null};
use super::gate;
use super::graph::{Ancestors, levels, sorted};
use super::hidden::{self, Lines};
use super::id::ArtifactId;
use super::money::{MicroUsd, USD};
use super::place::first_nul;
use super::problem::Problem;
use super::reference::{Reference, references};
use super::tool::{self, HandlerSpec};

/// Limits of a plan and its steps. Variables set them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub steps: usize,
    /// Dependencies between the steps of a plan.
    pub edges: usize,
    /// Size of a step's inputs as posted.
    pub inputs_bytes: usize,
    /// Size of a step's inputs with their references resolved.
    pub resolved_bytes: usize,
    pub outputs_bytes: usize,
    pub plan_bytes: usize,
    /// Whether a machine polls the queue of gates that take longer than Lambda allows.
    pub long_gates: bool,
}

/// Maximum nesting of JSON in request bodies, inputs, outputs and other results of an attempt. It is half of what the
/// parser reads, so that stored JSON can be read back inside a larger document.
pub const MAX_JSON_DEPTH: usize = 64;

/// Memory in bytes that each of these may take once parsed: a step's inputs as posted, its resolved inputs, its
/// outputs. A worker holds those of a whole batch.
pub const MAX_JSON_MEMORY: usize = 8 << 20;

/// Maximum number of different references of one step. Each is looked up while the run is locked.
const MAX_REFERENCES: usize = 1_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 1_000,
            edges: 10_000,
            inputs_bytes: 256 << 10,
            resolved_bytes: 1 << 20,
            outputs_bytes: 256 << 10,
            plan_bytes: 1 << 20,
            long_gates: false,
        }
    }
}

// The reader below and the schema in `plan_schema` share these.
pub(super) const MAX_NAME_CHARS: usize = 200;
pub(super) const MAX_GOAL_CHARS: usize = 2_000;
pub(super) const ATTEMPTS: RangeInclusive<u64> = 1..=20;
pub(super) const BACKOFF_MS: RangeInclusive<u64> = 0..=900_000;
pub(super) const RUN_TIMEOUT_S: RangeInclusive<u64> = 1..=31_536_000;
/// The largest budget of a run, in dollars.
pub(super) const MAX_BUDGET_USD: i64 = 1_000_000;
pub(super) const DEFAULT_ATTEMPTS: u32 = 3;
pub(super) const DEFAULT_BACKOFF_MS: u32 = 1_000;
/// A path of a URL cannot contain them as a segment.
pub(super) const FORBIDDEN_NAMES: [&str; 2] = [".", ".."];

/// Tools that a plan may only use if it says that it is risky.
pub(super) const RISKY_TOOLS: [&str; 1] = ["gate:e2e_smoke"];

/// The fields of an object in a plan.
pub(super) struct Object {
    pub known: &'static [Names],
    pub required: &'static [&'static str],
}

pub(super) const PLAN: Object = Object {
    known: &[&["goal"], &["timeout_s"], &["risky"], &["budget"], &["workspace"], &["steps"]],
    required: &["goal", "steps"],
};
pub(super) const BUDGET: Object = Object { known: &[&["usd"]], required: &["usd"] };
pub(super) const WORKSPACE: Object = Object { known: &[&["archive"], &["base"], &["diff"]], required: &["archive"] };
pub(super) const STEP: Object = Object {
    known: &[&["name"], &["tool"], &["inputs"], &["depends_on"], &["retry"], &["timeout_s"], &["approval"]],
    required: &["name", "tool"],
};
pub(super) const RETRY: Object = Object { known: &[&["max_attempts"], &["backoff_ms"]], required: &[] };

/// An accepted plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub goal: String,
    pub timeout_s: Option<u32>,
    /// Whether the plan may use tools that start the workspace's own program.
    pub risky: bool,
    /// What model calls of a run may cost.
    pub budget: Option<MicroUsd>,
    pub workspace: Option<PlanWorkspace>,
    /// In the order listed.
    pub steps: Vec<PlanStep>,
}

/// Artifacts of the workspace that gates judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanWorkspace {
    pub archive: ArtifactId,
    pub base: Option<ArtifactId>,
    pub diff: Option<ArtifactId>,
}

/// One step of an accepted plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlanStep {
    pub name: String,
    pub tool: String,
    pub handler: &'static str,
    pub inputs: Value,
    /// Positions of the parents in `Plan::steps`, ascending and unique.
    pub parents: Vec<usize>,
    /// References in the inputs.
    pub refs: BTreeSet<Reference>,
    pub max_attempts: u32,
    pub backoff_ms: u32,
    pub timeout_s: Option<u32>,
    /// Who must approve it before each start. For a `manual` step: who decides its gate.
    pub approval: Option<Approval>,
}

impl Plan {
    /// For each step, the length of the longest chain of steps before it.
    pub fn levels(&self) -> Vec<usize> {
        let parents: Vec<&[usize]> = self.steps.iter().map(|step| step.parents.as_slice()).collect();
        // An accepted plan has no cycle.
        levels(&parents, &sorted(&parents).unwrap_or_default())
    }
}

/// Checks a plan. Every problem is reported with its JSON path from `plan`.
pub fn parse(plan: &Value, limits: &Limits) -> Result<Plan, Vec<Problem>> {
    fields::read(plan, "plan", PLAN.known, Null::Wrong, |fields| {
        let size = json_bytes(plan);
        if size > limits.plan_bytes {
            fields.problem_here(format!("has {size} bytes; at most {} are accepted", limits.plan_bytes));
        }
        read_plan(fields, limits)
    })
}

fn read_plan(fields: &mut Fields<'_, '_>, limits: &Limits) -> Option<Plan> {
    fields.require(PLAN.required);
    let goal = fields.readable("goal", Most::Chars(MAX_GOAL_CHARS), Lines::Many).map(str::to_owned);
    let timeout_s = fields.whole("timeout_s", RUN_TIMEOUT_S);
    let budget = fields.object("budget", BUDGET.known, read_budget).flatten();
    let workspace = fields.object("workspace", WORKSPACE.known, read_workspace).flatten();
    let listed = fields.read("steps", |value| listed_steps(value, limits)).unwrap_or_default();
    let mut steps = fields.objects("steps", listed, STEP.known, |fields| read_step(fields, limits));
    connect(fields, listed, &mut steps, limits);
    let risky = fields
        .read("risky", |value| value.as_bool().ok_or_else(|| "must be true or false".to_owned()))
        .unwrap_or(false);
    for (index, step) in
        steps.iter().enumerate().filter(|(_, step)| !risky && RISKY_TOOLS.contains(&step.tool.as_str()))
    {
        let message = format!("{} starts the workspace's own program: the plan needs \"risky\": true", step.tool);
        fields.problem(&format!("steps[{index}].tool"), message);
    }
    Some(Plan { goal: goal?, timeout_s, risky, budget, workspace, steps })
}

fn listed_steps<'a>(value: &'a Value, limits: &Limits) -> Result<&'a [Value], String> {
    match value.as_array().map(Vec::as_slice) {
        None => Err("must be a list of steps".to_owned()),
        Some([]) => Err("must not be empty".to_owned()),
        Some(steps) if steps.len() > limits.steps => {
            Err(format!("has {} steps; at most {} are accepted", steps.len(), limits.steps))
        }
        Some(steps) => Ok(steps),
    }
}

/// Dollars, exactly.
fn read_budget(fields: &mut Fields<'_, '_>) -> Option<MicroUsd> {
    fields.require(BUDGET.required);
    fields.read("usd", |value| {
        let amount = MicroUsd::of_dollars(value).filter(|amount| (1..=MAX_BUDGET_USD * USD).contains(&amount.0));
        amount.ok_or_else(|| {
            format!(
                "must be dollars, more than 0 and at most {MAX_BUDGET_USD}, with at most 6 decimals, such as \"2.50\""
            )
        })
    })
}

fn read_workspace(fields: &mut Fields<'_, '_>) -> Option<PlanWorkspace> {
    fields.require(WORKSPACE.required);
    let archive = fields.id("archive", "an artifact");
    let (base, diff) = (optional_artifact(fields, "base"), optional_artifact(fields, "diff"));
    if base.is_some() && diff.is_some() {
        fields.problem_here("has a base and a diff; give only one of them");
    }
    Some(PlanWorkspace { archive: archive?, base, diff })
}

/// Null counts as absent, because programs that fill in a plan write it.
fn optional_artifact(fields: &mut Fields<'_, '_>, name: &str) -> Option<ArtifactId> {
    fields.value(name).filter(|value| !value.is_null())?;
    fields.id(name, "an artifact")
}

fn read_step(fields: &mut Fields<'_, '_>, limits: &Limits) -> PlanStep {
    fields.require(STEP.required);
    let name = fields.readable("name", Most::Chars(MAX_NAME_CHARS), Lines::One).unwrap_or_default();
    if FORBIDDEN_NAMES.contains(&name) {
        fields.problem("name", "must not be . or .., which a URL cannot contain");
    }
    let tool = fields.filled("tool", Most::Chars(MAX_NAME_CHARS)).unwrap_or_default();
    let handler = if tool.is_empty() { None } else { fields.read("tool", |_| handler_of(tool)) };
    let handler = handler.map(|handler| for_timeout(handler, fields.value("timeout_s"), limits));
    let inputs = read_inputs(fields, limits);
    if handler.is_some_and(|handler| handler.name == "manual") {
        check_reason(fields, &inputs);
    }
    let (refs, malformed) = references(&inputs, &fields.path("inputs"));
    fields.problems(malformed.into_iter().map(|(path, message)| Problem::new(path, message)));
    if refs.len() > MAX_REFERENCES {
        let message = format!("has {} different references; at most {MAX_REFERENCES} are accepted", refs.len());
        fields.problem("inputs", message);
    }
    let retry = fields.object("retry", RETRY.known, |fields| {
        (fields.whole("max_attempts", ATTEMPTS), fields.whole("backoff_ms", BACKOFF_MS))
    });
    let (max_attempts, backoff_ms) = retry.unwrap_or_default();
    let timeout_s = handler.and_then(|handler| step_timeout(fields, tool, handler, limits));
    let approval = read_approval(fields, handler, &inputs, timeout_s);
    PlanStep {
        name: name.to_owned(),
        tool: tool.to_owned(),
        handler: handler.map_or("", |handler| handler.name),
        inputs,
        parents: Vec::new(),
        refs,
        max_attempts: max_attempts.unwrap_or(DEFAULT_ATTEMPTS),
        backoff_ms: backoff_ms.unwrap_or(DEFAULT_BACKOFF_MS),
        timeout_s,
        approval,
    }
}

/// A `manual` step says in its inputs who decides. An approval before it would ask twice.
fn read_approval(
    fields: &mut Fields<'_, '_>,
    handler: Option<&HandlerSpec>,
    inputs: &Value,
    timeout_s: Option<u32>,
) -> Option<Approval> {
    if handler.is_none_or(|handler| handler.name != "manual") {
        return approval::read(fields);
    }
    if fields.value("approval").is_some() {
        fields.problem("approval", "does not belong here: a manual step has it in inputs.approval");
    }
    approval::read_ask(fields, inputs, timeout_s)
}

/// The handler of a tool that a plan may use.
fn handler_of(tool: &str) -> Result<&'static HandlerSpec, String> {
    let handler = tool::handler_for(tool)?;
    // Gates of the handler `manual` have the tool as their type.
    if handler.name == "manual" { gate::check_type(tool).map(|()| handler) } else { Ok(handler) }
}

/// What a person reads before they decide.
fn check_reason(fields: &mut Fields<'_, '_>, inputs: &Value) {
    let reason = inputs["reason"].as_str().map(|reason| hidden::check(reason, Lines::Many));
    if let Some(Err(message)) = reason {
        fields.problems([Problem::new(format!("{}.reason", fields.path("inputs")), message)]);
    }
}

fn read_inputs(fields: &mut Fields<'_, '_>, limits: &Limits) -> Value {
    let inputs = fields.read("inputs", |inputs| {
        inputs.as_object().ok_or("must be an object")?;
        let (Shape { bytes, memory, .. }, max) = (Shape::of(&inputs.to_string()), limits.inputs_bytes);
        if bytes > max {
            Err(format!("has {bytes} bytes; at most {max} are accepted"))
        } else if memory > MAX_JSON_MEMORY {
            Err(format!(
                "has so many parts that it takes {memory} bytes of memory; at most {MAX_JSON_MEMORY} are accepted"
            ))
        } else {
            Ok(inputs)
        }
    });
    let Some(inputs) = inputs else { return Value::Object(Map::new()) };
    if let Some(path) = first_nul(inputs, &fields.path("inputs")) {
        fields.problems([Problem::new(path, "contains the character NUL, which cannot be stored")]);
    }
    inputs.clone()
}

/// The handler that can give a step this much time, if the deployment has one.
fn for_timeout(handler: &'static HandlerSpec, asked: Option<&Value>, limits: &Limits) -> &'static HandlerSpec {
    let is_long = asked.and_then(fields::whole).is_some_and(|asked| asked > u64::from(handler.max_timeout_s));
    match tool::long_variant(handler) {
        Some(long) if is_long && limits.long_gates => long,
        _ => handler,
    }
}

fn step_timeout(fields: &mut Fields<'_, '_>, tool: &str, handler: &HandlerSpec, limits: &Limits) -> Option<u32> {
    if fields.value("timeout_s").is_none() {
        return handler.default_timeout_s;
    }
    let max = handler.max_timeout_s;
    fields.read("timeout_s", |value| {
        let asked = fields::whole(value).and_then(|asked| u32::try_from(asked).ok());
        let fits = asked.filter(|asked| (1..=max).contains(asked));
        fits.ok_or_else(|| {
            let message = format!("must be a whole number from 1 to {max}, the most that {tool} can give");
            let long = tool::long_variant(handler).filter(|_| !limits.long_gates);
            let long = long.filter(|long| asked.is_some_and(|asked| asked <= long.max_timeout_s));
            match long.filter(|_| asked.is_some_and(|asked| asked > max)) {
                Some(long) => format!(
                    "{message} in this deployment; up to {} needs a machine for long gates and LONG_GATES=true: docs/deploying.md",
                    long.max_timeout_s
                ),
                None => message,
            }
        })
    })
}

/// Sets the parents of each step: those that it names, or the step before if no step of the plan has the key
/// `depends_on`.
fn connect(fields: &mut Fields<'_, '_>, listed: &[Value], steps: &mut [PlanStep], limits: &Limits) {
    let mut positions = HashMap::new();
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| !step.name.is_empty()) {
        if let Some(first) = positions.insert(step.name.clone(), index) {
            let message = format!("\"{}\" is also the name of {}", step.name, fields.path(&format!("steps[{first}]")));
            fields.problem(&format!("steps[{index}].name"), message);
        }
    }
    if listed.iter().any(|step| step.get("depends_on").is_some()) {
        if !edges_fit(fields, listed, limits) {
            return;
        }
        for (index, step) in listed.iter().enumerate() {
            steps[index].parents = parents(fields, step, index, &positions);
        }
    } else {
        for (index, step) in steps.iter_mut().enumerate().skip(1) {
            step.parents = vec![index - 1];
        }
    }
    let parents: Vec<&[usize]> = steps.iter().map(|step| step.parents.as_slice()).collect();
    match sorted(&parents) {
        Ok(order) => check_references(fields, steps, &positions, &Ancestors::of(&parents, &order)),
        Err(cycle) => {
            let names: Vec<_> = cycle.iter().map(|&index| format!("\"{}\"", steps[index].name)).collect();
            let first = cycle.first().copied().unwrap_or_default();
            let message = format!("is part of a cycle: {}", names.join(" -> "));
            fields.problem(&format!("steps[{first}].depends_on"), message);
        }
    }
}

/// Counts the dependencies before any of them is checked.
fn edges_fit(fields: &mut Fields<'_, '_>, listed: &[Value], limits: &Limits) -> bool {
    let named = |step: &Value| step.get("depends_on").and_then(Value::as_array).map_or(0, Vec::len);
    let (edges, max) = (listed.iter().map(named).sum::<usize>(), limits.edges);
    if edges > max {
        fields.problem("steps", format!("has {edges} dependencies; at most {max} are accepted"));
    }
    edges <= max
}

fn parents(fields: &mut Fields<'_, '_>, step: &Value, index: usize, positions: &HashMap<String, usize>) -> Vec<usize> {
    let key = format!("steps[{index}].depends_on");
    let Some(names) = step.get("depends_on") else { return Vec::new() };
    let Some(names) = names.as_array() else {
        fields.problem(&key, "must be a list of step names");
        return Vec::new();
    };
    let mut parents = BTreeSet::new();
    for (at, name) in names.iter().enumerate() {
        match name.as_str().map(|name| (name, positions.get(name))) {
            Some((_, Some(&parent))) if parent == index => {
                fields.problem_at(&key, at, "a step cannot depend on itself");
            }
            Some((_, Some(&parent))) => {
                parents.insert(parent);
            }
            Some((name, None)) => fields.problem_at(&key, at, format!("no step has the name \"{name}\"")),
            None => fields.problem_at(&key, at, "must be the name of a step"),
        }
    }
    parents.into_iter().collect()
}

/// A step may refer only to steps upstream of it.
fn check_references(
    fields: &mut Fields<'_, '_>,
    steps: &[PlanStep],
    positions: &HashMap<String, usize>,
    upstream: &Ancestors,
) {
    for (index, step) in steps.iter().enumerate() {
        let names: BTreeSet<&str> = step.refs.iter().map(|reference| reference.step.as_str()).collect();
        for name in names {
            let message = match positions.get(name) {
                None => format!("refers to \"{name}\", but no step has that name"),
                Some(&position) if !upstream.contains(index, position) => {
                    format!("refers to \"{name}\", which is not upstream of this step")
                }
                Some(_) => continue,
            };
            fields.problem(&format!("steps[{index}].inputs"), message);
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
