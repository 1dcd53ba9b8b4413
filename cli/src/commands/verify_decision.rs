//! Checks the signed decisions of people about a gate.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nofx_gates::attestation::{Envelope, MAX_ENVELOPE_BYTES, Statement};
use nofx_local::report::{hinted, printable};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use shared::domain::GateStatus;
use shared::domain::gate::{Decision, GATE_CHANGE};
use shared::flow::attest_decision::PREDICATE_TYPE;
use shared::signing::PublicKey;
use shared::view::Gate;

use crate::output::color::{BAD, BOLD, DIM, GOOD, paint};

/// A file has at most so many decisions. A gate has fewer.
const MAX_DECISIONS: usize = 200;

/// A signed decision.
#[derive(Debug, Serialize)]
pub struct Signed {
    pub keyids: Vec<String>,
    pub decision: Decision,
    /// The name and the subject of the person.
    pub name: String,
    pub subject: String,
    /// The gate at which it was made.
    pub gate: String,
    /// The digest of what was decided about.
    pub digest: Option<String>,
    /// Different people who must approve, says the gate's rule. Null in a statement without a rule.
    pub required: Option<u32>,
    pub statement: Statement,
}

/// What signed decisions prove about a gate. The document of `--json`.
#[derive(Debug, Serialize)]
pub struct Decided {
    /// Those that count.
    pub decisions: Vec<Signed>,
    pub passes: bool,
    /// Different people who must approve. Null if nothing says it.
    pub required: Option<u32>,
    /// Whether somebody kept the keys, instead of getting them together with the decisions.
    pub keys_are_kept: bool,
    /// The gate that the decisions are about.
    #[serde(skip)]
    gate: String,
    /// Whether a signed statement says `required`.
    #[serde(skip)]
    is_signed: bool,
}

/// The gate that decisions must be about.
#[derive(Debug)]
pub struct Asked {
    id: String,
    run: String,
    gate_type: String,
    /// What it judges, for decisions that several gates share.
    subject: Option<Value>,
}

/// How a decision belongs to a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bond {
    /// It was made at the gate.
    Own,
    /// It was made at another gate of the run, and counts for every gate that asks about the same change.
    Shared,
}

/// What a decision covers, and a person may have at hand.
#[derive(Clone, Copy, Debug)]
pub enum Covered {
    Evidence,
    Archive,
}

impl Covered {
    fn name(self) -> &'static str {
        match self {
            Self::Evidence => "evidence file",
            Self::Archive => "archive of a workspace",
        }
    }

    /// Its sha256, if the decision names it.
    fn of(self, signed: &Signed) -> Option<&str> {
        let covers = &signed.statement.predicate["covers"];
        match self {
            Self::Evidence => covers["evidence"].as_str(),
            Self::Archive => covers["workspace"]["archive"].as_str(),
        }
    }
}

/// Whether a statement is about a decision.
pub fn is_decision(statement: &Statement) -> bool {
    statement.predicate_type == PREDICATE_TYPE
}

/// Reads a decision of an envelope that one of the keys signed.
pub fn verify(envelope: &[u8], keys: &[PublicKey]) -> Result<Signed> {
    let not_verified = |error| anyhow!("not verified: {error}");
    let verified = Envelope::read(envelope).and_then(|envelope| envelope.verify(keys, 1)).map_err(not_verified)?;
    let statement = verified.statement().map_err(not_verified)?;
    ensure!(is_decision(&statement), "not verified: {:?} is no decision", statement.predicate_type);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let predicate = &statement.predicate;
    let decision = serde_json::from_value(predicate["decision"].clone());
    let (name, subject) = (text(&predicate["person"]["name"]), text(&predicate["person"]["subject"]));
    let (Ok(decision), Some(name), Some(subject)) = (decision, name, subject) else {
        bail!("not verified: the statement names no decision or no person");
    };
    let gate = text(&predicate["gate"]["id"]).context("not verified: the statement names no gate")?;
    let digest = text(&predicate["digest"]);
    let required = predicate["rule"]["required"].as_u64().and_then(|required| u32::try_from(required).ok());
    Ok(Signed {
        keyids: verified.keyids.into_iter().collect(),
        decision,
        name,
        subject,
        gate,
        digest,
        required,
        statement,
    })
}

/// The envelopes of a file, if they may be of decisions: one, or several in a JSON array or in JSON lines.
pub fn envelopes(file: &[u8], keys: &[PublicKey]) -> Option<Vec<Vec<u8>>> {
    if let Ok(envelope) = Envelope::read(file) {
        // Which keys count does not depend on what the unverified statement says: the file of keys is the same.
        let statement = envelope.verify(keys, 1).and_then(|verified| verified.statement());
        return statement.is_ok_and(|statement| is_decision(&statement)).then(|| vec![file.to_vec()]);
    }
    let text = std::str::from_utf8(file).ok().filter(|text| text.len() <= MAX_ENVELOPE_BYTES)?;
    let several: Vec<Vec<u8>> = match serde_json::from_str::<Vec<Box<RawValue>>>(text) {
        Ok(array) => array.iter().map(|one| one.get().as_bytes().to_vec()).collect(),
        Err(_) => text.lines().filter(|line| !line.trim().is_empty()).map(|line| line.as_bytes().to_vec()).collect(),
    };
    let are_envelopes = !several.is_empty() && several.iter().all(|one| Envelope::read(one).is_ok());
    are_envelopes.then_some(several)
}

/// Verifies the decisions of a file, which are about one gate. The gate passes by as many approvals about the same bytes as
/// its rule requires, or by a waiver, unless somebody rejected it. All of that is signed.
pub fn of_file(envelopes: &[Vec<u8>], keys: &[PublicKey]) -> Result<Decided> {
    ensure!(envelopes.len() <= MAX_DECISIONS, "the file has more than {MAX_DECISIONS} decisions");
    let all: Vec<Signed> = envelopes.iter().map(|envelope| verify(envelope, keys)).collect::<Result<_>>()?;
    let asked = Asked::of(all.first().context("the file has no decisions")?);
    let mut tied = Vec::new();
    for one in all {
        let bond = asked.bond(&one).context("not verified: the file has decisions about different gates")?;
        tied.push((bond, one));
    }
    let required = greatest(&tied);
    let has = |decision: Decision| tied.iter().any(|(_, one)| one.decision == decision);
    let wanted = [Decision::Reject, Decision::Waive].into_iter().find(|decision| has(*decision));
    let wanted = wanted.unwrap_or(Decision::Approve);
    // Approvals about earlier bytes do not count beside those about later ones.
    let own = tied.iter().filter(|(bond, one)| *bond == Bond::Own && one.decision == Decision::Approve);
    let digests: BTreeSet<Option<String>> = own.map(|(_, one)| one.digest.clone()).collect();
    let people_about = |digest: &Option<String>| {
        let those = tied.iter().filter(|(bond, one)| counts(*bond, one, Decision::Approve, digest.as_deref()));
        people(those.map(|(_, one)| one))
    };
    let digest = digests.into_iter().max_by_key(people_about).flatten();
    let is_one = |(bond, one): &(Bond, Signed)| match wanted {
        Decision::Approve => counts(*bond, one, wanted, digest.as_deref()),
        Decision::Waive | Decision::Reject => one.decision == wanted,
    };
    let decisions: Vec<Signed> = tied.into_iter().filter(is_one).map(|(_, one)| one).collect();
    let passes = match wanted {
        Decision::Reject => false,
        Decision::Waive => true,
        Decision::Approve => required.is_some_and(|required| people(&decisions) >= required as usize),
    };
    Ok(Decided { decisions, passes, required, keys_are_kept: true, gate: asked.id, is_signed: required.is_some() })
}

/// Verifies the decisions that ended a gate of an API: as many as its rule requires, by different people, each about what the
/// gate asked in the end. The rule is the strictest that a signed statement names; what the API says counts only without one.
pub fn of_gate(gate: &Gate, keys: &[PublicKey], keys_are_kept: bool) -> Result<Decided> {
    let wanted = match gate.status {
        GateStatus::Passed => Decision::Approve,
        GateStatus::Waived => Decision::Waive,
        GateStatus::Failed => Decision::Reject,
        other => bail!("nobody has decided the gate {}: it is {other}", gate.id),
    };
    let asked = Asked::at(gate);
    let mut tied = Vec::new();
    for envelope in &gate.attestations {
        let one = verify(envelope.to_string().as_bytes(), keys)?;
        let other = || format!("not verified: a statement is about another gate than {}", gate.id);
        tied.push((asked.bond(&one).with_context(other)?, one));
    }
    let signed = greatest(&tied);
    let required = signed.or(gate.standing.required);
    // A rejection ends a gate, so no other end of it is true.
    let no = tied.iter().find(|(_, one)| wanted != Decision::Reject && one.decision == Decision::Reject);
    if let Some((_, no)) = no {
        let said = format!("the API says that the gate {} is {}", gate.id, gate.status);
        bail!("not verified: {said}, but {} rejected it", printable(&no.name));
    }
    let is_one = |(bond, one): &(Bond, Signed)| counts(*bond, one, wanted, gate.digest.as_deref());
    let decisions: Vec<Signed> = tied.into_iter().filter(is_one).map(|(_, one)| one).collect();
    let needed = match wanted {
        Decision::Approve => required.context("not verified: nothing says how many people must approve the gate")?,
        Decision::Waive | Decision::Reject => 1,
    };
    let found = people(&decisions);
    ensure!(found >= needed as usize, "not verified: {found} of {needed} decisions that the gate needed are signed");
    let passes = wanted != Decision::Reject;
    Ok(Decided { decisions, passes, required, keys_are_kept, gate: asked.id, is_signed: signed.is_some() })
}

/// Whether a decision is the one that is wanted. One of the gate itself must be about these bytes; a shared one is about the same
/// change, and its digest is that of the gate at which it was made.
fn counts(bond: Bond, one: &Signed, wanted: Decision, digest: Option<&str>) -> bool {
    one.decision == wanted && (bond == Bond::Shared || one.digest.as_deref() == digest)
}

/// A subject as decisions cover it: the database leaves out the fields that are null.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// The greatest number of people that a rule of these decisions requires.
fn greatest(all: &[(Bond, Signed)]) -> Option<u32> {
    all.iter().filter_map(|(_, one)| one.required).max()
}

/// How many different people decided.
fn people<'a>(decisions: impl IntoIterator<Item = &'a Signed>) -> usize {
    decisions.into_iter().map(|one| one.subject.as_str()).collect::<BTreeSet<_>>().len()
}

impl Asked {
    /// A gate as the API shows it.
    pub fn at(gate: &Gate) -> Self {
        let subject = gate.subject.clone().map(|subject| without_nulls(Value::Object(subject)));
        Self { id: gate.id.to_string(), run: gate.run_id.to_string(), gate_type: gate.gate_type.clone(), subject }
    }

    /// The gate at which a decision was made.
    fn of(signed: &Signed) -> Self {
        let predicate = &signed.statement.predicate;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let subject = predicate["covers"].get("subject").filter(|subject| subject.is_object());
        let subject = subject.cloned().map(without_nulls);
        let (run, gate_type) = (text(&predicate["run"]), text(&predicate["gate"]["type"]));
        Self { id: signed.gate.clone(), run, gate_type, subject }
    }

    /// How a decision belongs to the gate. Decisions to let changed checks count hold for every gate of the run that asks about the
    /// same change. A rejection is never shared.
    pub fn bond(&self, signed: &Signed) -> Option<Bond> {
        let made_at = Self::of(signed);
        if made_at.run != self.run || made_at.gate_type != self.gate_type {
            return None;
        }
        if made_at.id == self.id {
            return Some(Bond::Own);
        }
        let is_shared = self.gate_type == GATE_CHANGE
            && signed.decision != Decision::Reject
            && self.subject.is_some()
            && self.subject == made_at.subject;
        is_shared.then_some(Bond::Shared)
    }
}

impl Decided {
    /// Compares what is at hand with what every decision covers.
    pub fn compare(&self, covered: Covered, option: &str, sha256: impl FnOnce() -> Result<String>) -> Result<()> {
        let what = covered.name();
        if self.decisions.iter().any(|one| covered.of(one).is_none()) {
            let hint = format!("leave out {option}; it compares what the attestation of a gate names");
            return Err(hinted(format!("decisions name no {what}, so there is nothing to compare with"), hint));
        }
        let sha256 = sha256()?;
        for one in &self.decisions {
            let name = printable(&one.name);
            ensure!(covered.of(one) == Some(&sha256), "not verified: the decision of {name} is about another {what}");
        }
        Ok(())
    }

    /// What people read. `matches` is what was compared and is right.
    pub fn text(&self, matches: &[&str]) -> String {
        let mut text = String::new();
        let mut row = |mark: String, name: &str, what: String| {
            let _ = writeln!(text, "{mark} {name:<10} {what}");
        };
        let (good, plain) = (|| paint(GOOD, "✓"), || paint(DIM, "·"));
        let whose = if self.keys_are_kept { "a key that you trust" } else { "a key of the API" };
        for one in &self.decisions {
            row(good(), "signature", format!("{whose}, {}", one.keyids.join(", ")));
            let who = format!("{} ({})", printable(&one.name), printable(&one.subject));
            row(plain(), one.decision.participle(), who);
            row(plain(), "digest", one.digest.as_deref().map(printable).unwrap_or_default());
            if one.gate != self.gate {
                row(plain(), "shared", format!("made at the gate {}, about the same change", printable(&one.gate)));
            }
        }
        for name in matches {
            row(good(), name, "is what was signed".to_owned());
        }
        let are_approvals = self.decisions.iter().all(|one| one.decision == Decision::Approve);
        let found = people(&self.decisions);
        if let Some(required) = self.required.filter(|_| are_approvals) {
            let source =
                if self.is_signed { "as was signed" } else { "as the API says: no signed statement has the rule" };
            row(plain(), "people", format!("{found} of {required}, {source}"));
        }
        let rejected = self.decisions.iter().any(|one| one.decision == Decision::Reject);
        let (style, word, why) = match (self.passes, rejected, self.required) {
            (true, ..) => (GOOD, "PASSED", String::new()),
            (_, true, _) => (BAD, "REJECTED", String::new()),
            (.., Some(required)) => (BAD, "NOT PASSED", format!(": {found} of {required} approvals are in the file")),
            (.., None) => (BAD, "NOT PASSED", ": how many people must approve is not signed".to_owned()),
        };
        let _ =
            writeln!(text, "{} {}{why}", paint(BOLD, "verified: by decision the gate is"), paint(style.bold(), word));
        text
    }
}

#[cfg(test)]
#[path = "verify_decision_tests.rs"]
mod tests;
