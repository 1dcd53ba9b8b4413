//! Plans: what a client posts, checked and turned into steps, edges and blockers.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::bounds::{Shape, json_bytes};
use super::graph::{Ancestors, sorted};
use super::id::ArtifactId;
use super::place::first_nul;
use super::problem::Problem;
use super::reference::{Reference, references};
use super::tool::{self, HandlerSpec};

/// Bounds on what is accepted. All configurable.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub steps: usize,
    /// Dependencies between the steps of a plan.
    pub edges: usize,
    /// Of a step's inputs, as posted.
    pub inputs_bytes: usize,
    /// Of a step's inputs, with its references replaced by what they refer to.
    pub resolved_bytes: usize,
    pub outputs_bytes: usize,
    pub plan_bytes: usize,
}

/// Deepest nesting of JSON that is accepted and kept: of a request's body, and of inputs, outputs and what else an attempt
/// leaves behind. Half of what the parser reads, so that everything kept can be read back inside a larger document.
pub const MAX_JSON_DEPTH: usize = 64;

/// Memory that a step's inputs, as posted and as resolved, and its outputs may take once they are parsed, in bytes. A
/// worker holds those of a whole batch.
pub const MAX_JSON_MEMORY: usize = 8 << 20;

/// Different references of one step. Each is looked up while the run is locked.
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
        }
    }
}

const MAX_NAME_CHARS: usize = 200;
const MAX_GOAL_CHARS: usize = 2_000;
const MAX_ATTEMPTS: u64 = 20;
const MAX_BACKOFF_MS: u64 = 900_000;
const MAX_RUN_TIMEOUT_S: u64 = 31_536_000;
const DEFAULT_ATTEMPTS: u32 = 3;
const DEFAULT_BACKOFF_MS: u32 = 1_000;

/// An accepted plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub goal: String,
    pub timeout_s: Option<u32>,
    pub workspace: Option<PlanWorkspace>,
    /// In the order listed.
    pub steps: Vec<PlanStep>,
}

/// Artifacts that the plan's gates judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanWorkspace {
    pub archive: ArtifactId,
    pub base: Option<ArtifactId>,
    pub diff: Option<ArtifactId>,
}

/// One step of an accepted plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanStep {
    pub name: String,
    pub tool: String,
    pub handler: &'static str,
    pub inputs: Value,
    /// Positions of the parents in `Plan::steps`, ascending, without repetition.
    pub parents: Vec<usize>,
    /// What the inputs refer to upstream.
    pub refs: BTreeSet<Reference>,
    pub max_attempts: u32,
    pub backoff_ms: u32,
    pub timeout_s: Option<u32>,
}

/// Checks a plan. Every problem is told, each with its JSON path from `plan`.
pub fn parse(plan: &Value, limits: &Limits) -> Result<Plan, Vec<Problem>> {
    let mut reader = Reader { limits, problems: Vec::new() };
    let plan = reader.plan(plan);
    if reader.problems.is_empty() { Ok(plan) } else { Err(reader.problems) }
}

struct Reader<'a> {
    limits: &'a Limits,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }

    fn plan(&mut self, plan: &Value) -> Plan {
        let empty = Map::new();
        let object = plan.as_object().unwrap_or_else(|| {
            self.problem("plan", "must be an object");
            &empty
        });
        let size = json_bytes(plan);
        if size > self.limits.plan_bytes {
            self.problem("plan", format!("has {size} bytes; at most {} are accepted", self.limits.plan_bytes));
        }
        self.only(object, "plan", &["goal", "timeout_s", "workspace", "steps"]);
        let goal = self.text(object, "plan", "goal", MAX_GOAL_CHARS);
        let timeout_s = self.whole(object, "plan", "timeout_s", 1, MAX_RUN_TIMEOUT_S);
        let workspace = object.get("workspace").and_then(|value| self.workspace(value));
        let listed = match object.get("steps") {
            Some(Value::Array(steps)) if steps.is_empty() => {
                self.problem("plan.steps", "must not be empty");
                &[][..]
            }
            Some(Value::Array(steps)) if steps.len() > self.limits.steps => {
                let message = format!("has {} steps; at most {} are accepted", steps.len(), self.limits.steps);
                self.problem("plan.steps", message);
                &[][..]
            }
            Some(Value::Array(steps)) => steps,
            _ => {
                self.problem("plan.steps", "must be a list of steps");
                &[][..]
            }
        };
        let mut steps: Vec<PlanStep> =
            listed.iter().enumerate().map(|(index, step)| self.step(step, &format!("plan.steps[{index}]"))).collect();
        self.order(listed, &mut steps);
        Plan { goal, timeout_s, workspace, steps }
    }

    fn workspace(&mut self, value: &Value) -> Option<PlanWorkspace> {
        let path = "plan.workspace";
        let Some(object) = value.as_object() else {
            self.problem(path, "must be an object with archive and, optionally, base or diff");
            return None;
        };
        self.only(object, path, &["archive", "base", "diff"]);
        let archive = self.artifact(object, "archive");
        let (base, diff) = (self.artifact(object, "base"), self.artifact(object, "diff"));
        if base.is_some() && diff.is_some() {
            self.problem(path, "has a base and a diff; one of them tells what changed");
        }
        if !object.contains_key("archive") {
            self.problem(format!("{path}.archive"), "is missing");
        }
        Some(PlanWorkspace { archive: archive?, base, diff })
    }

    fn artifact(&mut self, object: &Map<String, Value>, key: &str) -> Option<ArtifactId> {
        let value = object.get(key).filter(|value| !value.is_null())?;
        let id = value.as_str().and_then(|text| text.parse().ok());
        if id.is_none() {
            self.problem(format!("plan.workspace.{key}"), "must be the id of an artifact (a UUID)");
        }
        id
    }

    fn step(&mut self, step: &Value, path: &str) -> PlanStep {
        let empty = Map::new();
        let object = step.as_object().unwrap_or_else(|| {
            self.problem(path, "must be an object");
            &empty
        });
        self.only(object, path, &["name", "tool", "inputs", "depends_on", "retry", "timeout_s"]);
        let name = self.text(object, path, "name", MAX_NAME_CHARS);
        if [".", ".."].contains(&name.as_str()) {
            self.problem(format!("{path}.name"), "must be no . or .., which no address can hold");
        }
        let tool = self.text(object, path, "tool", MAX_NAME_CHARS);
        let handler = if tool.is_empty() { None } else { self.handler(&tool, path) };
        let inputs = self.inputs(object, path);
        let (refs, malformed) = references(&inputs, &format!("{path}.inputs"));
        self.problems.extend(malformed.into_iter().map(|(path, message)| Problem::new(path, message)));
        if refs.len() > MAX_REFERENCES {
            let message = format!("has {} different references; at most {MAX_REFERENCES} are accepted", refs.len());
            self.problem(format!("{path}.inputs"), message);
        }
        let (max_attempts, backoff_ms) = self.retry(object, path);
        PlanStep {
            name,
            handler: handler.map_or("", |handler| handler.name),
            inputs,
            parents: Vec::new(),
            refs,
            max_attempts,
            backoff_ms,
            timeout_s: handler.and_then(|handler| self.step_timeout(object, path, &tool, handler)),
            tool,
        }
    }

    fn handler(&mut self, tool: &str, path: &str) -> Option<&'static HandlerSpec> {
        tool::handler_for(tool).map_err(|message| self.problem(format!("{path}.tool"), message)).ok()
    }

    fn inputs(&mut self, object: &Map<String, Value>, path: &str) -> Value {
        match object.get("inputs") {
            None => Value::Object(Map::new()),
            Some(inputs @ Value::Object(_)) => {
                let shape = Shape::of(&inputs.to_string());
                let (bytes, memory, most) = (shape.bytes, shape.memory, self.limits.inputs_bytes);
                if bytes > most {
                    self.problem(format!("{path}.inputs"), format!("has {bytes} bytes; at most {most} are accepted"));
                } else if memory > MAX_JSON_MEMORY {
                    let message = format!(
                        "has so many parts that it takes {memory} bytes of memory; at most {MAX_JSON_MEMORY} are accepted"
                    );
                    self.problem(format!("{path}.inputs"), message);
                }
                if let Some(path) = first_nul(inputs, &format!("{path}.inputs")) {
                    self.problem(path, "contains the character NUL, which cannot be stored");
                }
                inputs.clone()
            }
            Some(_) => {
                self.problem(format!("{path}.inputs"), "must be an object");
                Value::Object(Map::new())
            }
        }
    }

    fn retry(&mut self, object: &Map<String, Value>, path: &str) -> (u32, u32) {
        let path = format!("{path}.retry");
        let Some(retry) = object.get("retry") else { return (DEFAULT_ATTEMPTS, DEFAULT_BACKOFF_MS) };
        let Some(retry) = retry.as_object() else {
            self.problem(path, "must be an object with max_attempts and backoff_ms");
            return (DEFAULT_ATTEMPTS, DEFAULT_BACKOFF_MS);
        };
        self.only(retry, &path, &["max_attempts", "backoff_ms"]);
        (
            self.whole(retry, &path, "max_attempts", 1, MAX_ATTEMPTS).unwrap_or(DEFAULT_ATTEMPTS),
            self.whole(retry, &path, "backoff_ms", 0, MAX_BACKOFF_MS).unwrap_or(DEFAULT_BACKOFF_MS),
        )
    }

    fn step_timeout(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        tool: &str,
        handler: &HandlerSpec,
    ) -> Option<u32> {
        let Some(asked) = object.get("timeout_s") else { return handler.default_timeout_s };
        match asked.as_u64().map(u32::try_from) {
            Some(Ok(asked)) if (1..=handler.max_timeout_s).contains(&asked) => Some(asked),
            _ => {
                let most = handler.max_timeout_s;
                self.problem(
                    format!("{path}.timeout_s"),
                    format!("must be a whole number from 1 to {most}, the most that {tool} can give"),
                );
                None
            }
        }
    }

    /// Parents: as named, or the step before when no step of the plan has the key `depends_on`.
    fn order(&mut self, listed: &[Value], steps: &mut [PlanStep]) {
        let mut positions = HashMap::new();
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| !step.name.is_empty()) {
            if let Some(first) = positions.insert(step.name.clone(), index) {
                let message = format!("\"{}\" is also the name of plan.steps[{first}]", step.name);
                self.problem(format!("plan.steps[{index}].name"), message);
            }
        }
        if listed.iter().any(|step| step.get("depends_on").is_some()) {
            if !self.edges_fit(listed) {
                return;
            }
            for (index, step) in listed.iter().enumerate() {
                steps[index].parents = self.parents(step, index, &positions);
            }
        } else {
            for (index, step) in steps.iter_mut().enumerate().skip(1) {
                step.parents = vec![index - 1];
            }
        }
        let parents: Vec<&[usize]> = steps.iter().map(|step| step.parents.as_slice()).collect();
        match sorted(&parents) {
            Ok(order) => self.references(steps, &positions, &Ancestors::of(&parents, &order)),
            Err(cycle) => {
                let names: Vec<_> = cycle.iter().map(|&index| format!("\"{}\"", steps[index].name)).collect();
                let path = format!("plan.steps[{}].depends_on", cycle.first().copied().unwrap_or_default());
                self.problem(path, format!("is part of a cycle: {}", names.join(" -> ")));
            }
        }
    }

    /// Counted before any of them is looked at.
    fn edges_fit(&mut self, listed: &[Value]) -> bool {
        let named = |step: &Value| step.get("depends_on").and_then(Value::as_array).map_or(0, Vec::len);
        let (edges, most) = (listed.iter().map(named).sum::<usize>(), self.limits.edges);
        if edges > most {
            self.problem("plan.steps", format!("has {edges} dependencies; at most {most} are accepted"));
        }
        edges <= most
    }

    fn parents(&mut self, step: &Value, index: usize, positions: &HashMap<String, usize>) -> Vec<usize> {
        let path = format!("plan.steps[{index}].depends_on");
        let Some(names) = step.get("depends_on") else { return Vec::new() };
        let Some(names) = names.as_array() else {
            self.problem(path, "must be a list of step names");
            return Vec::new();
        };
        let mut parents = BTreeSet::new();
        for (at, name) in names.iter().enumerate() {
            match name.as_str().map(|name| (name, positions.get(name))) {
                Some((_, Some(&parent))) if parent == index => {
                    self.problem(format!("{path}[{at}]"), "a step cannot depend on itself");
                }
                Some((_, Some(&parent))) => {
                    parents.insert(parent);
                }
                Some((name, None)) => {
                    self.problem(format!("{path}[{at}]"), format!("no step has the name \"{name}\""));
                }
                None => self.problem(format!("{path}[{at}]"), "must be the name of a step"),
            }
        }
        parents.into_iter().collect()
    }

    /// A step may refer to what is upstream of it, and to nothing else.
    fn references(&mut self, steps: &[PlanStep], positions: &HashMap<String, usize>, upstream: &Ancestors) {
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
                self.problem(format!("plan.steps[{index}].inputs"), message);
            }
        }
    }

    fn only(&mut self, object: &Map<String, Value>, path: &str, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            self.problem(format!("{path}.{key}"), format!("is not known; there are {}", known.join(", ")));
        }
    }

    fn text(&mut self, object: &Map<String, Value>, path: &str, key: &str, most: usize) -> String {
        let path = format!("{path}.{key}");
        match object.get(key) {
            Some(Value::String(text)) if text.trim().is_empty() => self.problem(path, "must not be empty"),
            Some(Value::String(text)) if text.chars().count() > most => {
                self.problem(path, format!("must have at most {most} characters"));
            }
            // Postgres cannot store it, and no name needs it.
            Some(Value::String(text)) if text.contains('\0') => self.problem(path, "must not contain NUL"),
            Some(Value::String(text)) => return text.clone(),
            Some(_) => self.problem(path, "must be a string"),
            None => self.problem(path, "is missing"),
        }
        String::new()
    }

    fn whole(&mut self, object: &Map<String, Value>, path: &str, key: &str, least: u64, most: u64) -> Option<u32> {
        let value = object.get(key)?;
        let number = value.as_u64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.problem(format!("{path}.{key}"), format!("must be a whole number from {least} to {most}"));
        }
        number.and_then(|number| u32::try_from(number).ok())
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
