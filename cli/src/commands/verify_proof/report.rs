//! What was checked, what was wrong, and what was not proved.

use std::fmt::Write;

use nofx_local::report::printable;
use serde::Serialize;
use shared::domain::proof::Fault;

use crate::output::color::{BAD, BOLD, DIM, GOOD, WAIT, paint};

/// The document of `--json`.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub run: String,
    pub tenant: String,
    pub generation: u64,
    pub status: String,
    pub sealed_at: String,
    /// Whether the run succeeded, and every gate and decision that it needed is proved.
    pub passes: bool,
    /// What was checked and holds.
    pub checked: Vec<Check>,
    /// What does not hold. With any of them nothing is proved.
    #[serde(serialize_with = "faults")]
    pub faults: Vec<Fault>,
    /// Why a proof that holds does not pass.
    pub missing: Vec<String>,
    pub not_proved: Vec<Doubt>,
}

#[derive(Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub what: String,
}

/// Something that the proof does not prove.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Doubt {
    /// snake_case, for programs.
    pub code: String,
    /// One sentence, for people.
    pub message: String,
    /// The gates that it is about.
    pub gates: Vec<String>,
}

fn faults<S: serde::Serializer>(faults: &[Fault], serializer: S) -> Result<S::Ok, S::Error> {
    let listed = faults.iter().map(|fault| serde_json::json!({ "path": fault.path, "message": fault.message }));
    serializer.collect_seq(listed)
}

impl Report {
    pub fn check(&mut self, name: &str, what: String) {
        self.checked.push(Check { name: name.to_owned(), what });
    }

    /// Adds a doubt once.
    pub fn doubt(&mut self, code: &str, message: &str) {
        self.doubt_at(code, message, None);
    }

    /// Adds a doubt about a gate. The same doubt about several gates is one.
    pub fn doubt_at(&mut self, code: &str, message: &str, gate: Option<&str>) {
        let gates: Vec<String> = gate.map(str::to_owned).into_iter().collect();
        match self.not_proved.iter_mut().find(|doubt| doubt.code == code && doubt.message == message) {
            Some(known) => {
                known.gates.extend(gates);
                known.gates.dedup();
            }
            None => self.not_proved.push(Doubt { code: code.to_owned(), message: message.to_owned(), gates }),
        }
    }

    pub fn conclude(&mut self, is_strict: bool) {
        if self.status != "succeeded" {
            let how = if self.status == "cancelled" { "was cancelled" } else { self.status.as_str() };
            self.missing.insert(0, format!("the run did not succeed: it {how}"));
        }
        if is_strict {
            let about_gates = self.not_proved.iter().filter(|doubt| !doubt.gates.is_empty());
            self.missing.extend(about_gates.map(|doubt| format!("{}: {}", doubt.gates.join(", "), doubt.message)));
        }
        self.passes = self.faults.is_empty() && self.missing.is_empty();
    }

    /// What people read.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checked {
            let _ = writeln!(text, "{} {:<10} {}", paint(GOOD, "✓"), check.name, printable(&check.what));
        }
        for fault in &self.faults {
            let place = if fault.path.is_empty() { "the file" } else { &fault.path };
            let _ =
                writeln!(text, "{} {}: {}", paint(BAD, "✗"), paint(BOLD, printable(place)), printable(&fault.message));
        }
        if !self.faults.is_empty() {
            let _ = writeln!(text, "{}", paint(BAD.bold(), "NOT VERIFIED: nothing in the file is to be believed"));
            return text;
        }
        for missing in &self.missing {
            let _ = writeln!(text, "{} {}", paint(BAD, "✗"), printable(missing));
        }
        if !self.not_proved.is_empty() {
            let _ = writeln!(text, "{}", paint(BOLD, "not proved:"));
        }
        for doubt in &self.not_proved {
            let about = if doubt.gates.is_empty() { String::new() } else { format!(" ({})", doubt.gates.join(", ")) };
            let code = paint(DIM, format_args!("{}{about}", printable(&doubt.code)));
            let _ = writeln!(text, "{} {}  {code}", paint(WAIT, "?"), printable(&doubt.message));
        }
        let (style, word) = if self.passes { (GOOD, "PASSED") } else { (BAD, "NOT PASSED") };
        let run = format!("verified: the run {}, generation {}, {}:", self.run, self.generation, self.status);
        let _ = writeln!(text, "{} {}", paint(BOLD, printable(&run)), paint(style.bold(), word));
        text
    }
}
