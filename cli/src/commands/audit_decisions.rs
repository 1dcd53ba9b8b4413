//! Compares the decisions that the audit has with the signed statements about them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use nofx_local::report::printable;
use serde::{Deserialize, Serialize};
use shared::domain::GateId;
use shared::domain::audit::AuditRow;
use shared::domain::gate::Decision;
use shared::signing::PublicKey;
use shared::view::Gate;
use tokio::task::JoinSet;

use crate::client::api::Api;
use crate::client::error::{ApiError, Kind};
use crate::commands::verify;
use crate::commands::verify_decision::{self, Asked, Bond, Signed};
use crate::output::color::{GOOD, paint};
use crate::output::count;

/// How many gates are asked for at once.
const AT_ONCE: usize = 8;
/// How actions of decisions start.
const ACTION: &str = "decision.";

/// The decisions of a chain, by the id of their gate as the audit writes it.
#[derive(Debug, Default)]
pub struct Decisions {
    by_gate: BTreeMap<String, Vec<Recorded>>,
    entries: usize,
}

/// The text of an entry.
#[derive(Debug, Deserialize)]
struct Recorded {
    seq: u64,
    action: String,
    subject: String,
    actor: String,
    /// Null if somebody wrote it by hand.
    by: Option<By>,
    #[serde(default)]
    detail: Detail,
}

#[derive(Debug, Deserialize)]
struct By {
    subject: String,
}

#[derive(Debug, Default, Deserialize)]
struct Detail {
    /// The digest of what was decided about.
    bound_digest: Option<String>,
}

/// How the decisions of an audit stand. A part of the document of `--json`.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// How many decisions the audit has.
    pub entries: usize,
    pub keys_are_kept: bool,
    /// What is missing or wrong.
    pub problems: Vec<Problem>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The number of the entry. Null for a statement that belongs to none.
    pub entry: Option<u64>,
    pub gate: String,
    pub message: String,
}

impl Recorded {
    fn decision(&self) -> Option<Decision> {
        let known = [Decision::Approve, Decision::Reject, Decision::Waive];
        known.into_iter().find(|decision| self.action.strip_prefix(ACTION) == Some(decision.participle()))
    }

    /// Whether a statement is about this decision. One that was made at another gate has the digest of that gate.
    fn is(&self, (bond, signed): &(Bond, Signed)) -> bool {
        self.decision() == Some(signed.decision)
            && self.by.as_ref().is_some_and(|by| by.subject == signed.subject)
            && (*bond == Bond::Shared || self.detail.bound_digest == signed.digest)
    }

    fn problem(&self, message: String) -> Problem {
        Problem { entry: Some(self.seq), gate: self.subject.clone(), message }
    }

    fn who(&self) -> String {
        let what = self.action.strip_prefix(ACTION).unwrap_or(&self.action);
        format!("{} {} the gate {}", printable(&self.actor), printable(what), printable(&self.subject))
    }
}

impl Decisions {
    /// Adds a verified line of an export, if it is a decision.
    pub fn add(&mut self, line: &str) -> Result<()> {
        // The last line is the head of the chain.
        let Ok(row) = serde_json::from_str::<AuditRow>(line) else { return Ok(()) };
        let entry: Recorded =
            serde_json::from_str(&row.body).with_context(|| format!("entry {} cannot be read", row.seq))?;
        if entry.action.starts_with(ACTION) {
            self.entries += 1;
            self.by_gate.entry(entry.subject.clone()).or_default().push(entry);
        }
        Ok(())
    }

    /// Compares all of them with what the API has of their gates. An error if the API does not answer.
    pub async fn verify(self, api: &Api, keys: Vec<PublicKey>, keys_are_kept: bool) -> Result<Checked> {
        let keys: Arc<[PublicKey]> = keys.into();
        let mut gates = self.by_gate.into_values();
        let (mut running, mut problems) = (JoinSet::new(), Vec::new());
        loop {
            while running.len() < AT_ONCE
                && let Some(entries) = gates.next()
            {
                running.spawn(check(api.clone(), Arc::clone(&keys), entries));
            }
            let Some(done) = running.join_next().await else { break };
            problems.extend(done.context("a check ended early")??);
        }
        problems.sort();
        Ok(Checked { entries: self.entries, keys_are_kept, problems })
    }
}

/// Compares the decisions about one gate with the statements that the API has of it.
async fn check(api: Api, keys: Arc<[PublicKey]>, entries: Vec<Recorded>) -> Result<Vec<Problem>> {
    let all = |why: &str| entries.iter().map(|entry| entry.problem(format!("{}, and {why}", entry.who()))).collect();
    let Some(id) = entries.first().and_then(|entry| entry.subject.parse::<GateId>().ok()) else {
        return Ok(all("that is not the id of a gate"));
    };
    match verify::fetch(&api, id).await {
        Ok(gate) => Ok(compare(&gate, &keys, &entries)),
        Err(error) => match error.downcast_ref::<ApiError>().map(|error| error.kind) {
            Some(Kind::NotFound) => Ok(all("the API has no such gate any more")),
            // The API answered with another gate.
            None => Ok(all(&format!("it is {error}"))),
            Some(_) => Err(error),
        },
    }
}

fn compare(gate: &Gate, keys: &[PublicKey], entries: &[Recorded]) -> Vec<Problem> {
    let asked = Asked::at(gate);
    let mut problems = Vec::new();
    let mut signed: Vec<(Bond, Signed)> = Vec::new();
    for envelope in &gate.attestations {
        let read = verify_decision::verify(envelope.to_string().as_bytes(), keys).map(|one| (asked.bond(&one), one));
        let wrong = match read {
            // A statement that is listed twice is one.
            Ok((Some(_), one)) if signed.iter().any(|(_, other)| other.statement == one.statement) => continue,
            Ok((Some(bond), one)) => {
                signed.push((bond, one));
                continue;
            }
            Ok((None, one)) => format!("a statement is about the gate {}", printable(&one.gate)),
            Err(error) => {
                let why = error.to_string();
                format!("a statement cannot be accepted: {}", why.trim_start_matches("not verified: "))
            }
        };
        problems.push(Problem {
            entry: None,
            gate: gate.id.to_string(),
            message: format!("the gate {}: {wrong}", gate.id),
        });
    }
    for entry in entries {
        // Each statement stands for one decision.
        match signed.iter().position(|one| entry.is(one)) {
            Some(at) => drop(signed.swap_remove(at)),
            None => problems.push(entry.problem(format!("{}, and no signed statement says so", entry.who()))),
        }
    }
    problems
}

impl Checked {
    /// A line, if every decision is signed.
    pub fn text(&self) -> String {
        let decisions = count(self.entries, "decision");
        let verb = if self.entries == 1 { "is" } else { "are" };
        let mut text = format!("{} {decisions} {verb} signed\n", paint(GOOD, "✓"));
        text.push_str(&verify::note(self.keys_are_kept, "nofx keys --pem --decisions"));
        text
    }

    /// An error that names every problem.
    pub fn check(&self) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let mut message =
            format!("the audit is intact, but its decisions have {}", count(self.problems.len(), "problem"));
        for Problem { entry, message: what, .. } in &self.problems {
            let entry = entry.map(|entry| format!("entry {entry}: ")).unwrap_or_default();
            let _ = write!(message, "\n  {entry}{what}");
        }
        Err(anyhow::Error::msg(message))
    }
}
