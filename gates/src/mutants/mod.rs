//! `gate:mutants`: small changes to changed and covered lines, of which each should make a test fail.
//!
//! Pure: sources in, mutants out; and results in, a verdict out. Whoever runs them applies one mutant at a time to a copy
//! of the workspace. A surviving mutant is a finding: the tests run the line and do not notice what it does. This is the
//! answer to tests that forge their coverage.

mod lexer;
mod operators;
mod skip;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::finding::Reason;
use crate::report::{Failure, Finding, Listed, Severity};
use operators::Change;

/// Larger files are generated.
const MAX_SOURCE_BYTES: usize = 2 * 1024 * 1024;
const MAX_TEXT_CHARS: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// With or without JSX.
    JavaScript,
    TypeScript,
    Tsx,
    Python,
    Rust,
}

impl Language {
    /// By the name of the file. `None` if there are no mutants for it.
    pub fn of(path: &str) -> Option<Self> {
        match Path::new(path).extension()?.to_str()? {
            "js" | "jsx" | "mjs" | "cjs" => Some(Self::JavaScript),
            "ts" | "mts" | "cts" => (!path.ends_with(".d.ts")).then_some(Self::TypeScript),
            "tsx" => Some(Self::Tsx),
            "py" => Some(Self::Python),
            "rs" => Some(Self::Rust),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MutantKind {
    Comparison,
    Boundary,
    Logical,
    Negation,
    Condition,
    Arithmetic,
    Constant,
    Return,
    RemovedCall,
    OptionalChain,
}

/// One change to one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutant {
    pub file: String,
    /// Lines and columns count from 1, columns in bytes. The end column is the one after the last byte.
    pub line: u32,
    pub column: u32,
    pub end_line: u32,
    pub end_column: u32,
    pub original: String,
    pub replacement: String,
    pub kind: MutantKind,
    /// Bytes of the file.
    pub start: usize,
    pub end: usize,
}

impl Mutant {
    /// The file with the change. `None` if this is not the file that the mutant was made for.
    pub fn apply(&self, source: &str) -> Option<String> {
        (source.get(self.start..self.end)? == self.original).then_some(())?;
        Some([source.get(..self.start)?, &self.replacement, source.get(self.end..)?].concat())
    }
}

/// Makes at most `limit` mutants of the lines, spread over them. The same arguments give the same mutants.
pub fn mutate(file: &str, source: &str, language: Language, lines: &[u32], limit: usize, seed: u64) -> Vec<Mutant> {
    if source.len() > MAX_SOURCE_BYTES {
        return Vec::new();
    }
    let lexed = lexer::lex(source, language);
    if !lexed.is_sound {
        return Vec::new();
    }
    let mut sorted = lines.to_vec();
    sorted.sort_unstable();
    let changes = operators::changes(source, language, &lexed, |line| sorted.binary_search(&line).is_ok());
    let mutants = changes.into_iter().map(|change| mutant(file, source, change)).collect();
    let is_sane = |mutant: &Mutant| {
        mutant.apply(source).is_some_and(|changed| {
            let after = lexer::lex(&changed, language);
            after.is_sound && after.comments == lexed.comments && changed != source
        })
    };
    spread(mutants, seed).into_iter().filter(is_sane).take(limit).collect()
}

/// Takes `limit` of the mutants of several files, spread over files and lines.
pub fn choose(mutants: Vec<Mutant>, limit: usize, seed: u64) -> Vec<Mutant> {
    let mut chosen = spread(mutants, seed);
    chosen.truncate(limit);
    chosen
}

fn mutant(file: &str, source: &str, change: Change) -> Mutant {
    let column = |at: usize| {
        let before = source.get(..at).unwrap_or_default();
        u32::try_from(at - before.rfind('\n').map_or(0, |newline| newline + 1) + 1).unwrap_or(u32::MAX)
    };
    let original = source.get(change.start..change.end).unwrap_or_default().to_owned();
    let lines = u32::try_from(original.matches('\n').count()).unwrap_or(0);
    let first_line = source.get(..change.start).unwrap_or_default().matches('\n').count();
    let first_line = u32::try_from(first_line + 1).unwrap_or(u32::MAX);
    Mutant {
        file: file.to_owned(),
        line: first_line,
        column: column(change.start),
        end_line: first_line + lines,
        end_column: column(change.end),
        original,
        replacement: change.replacement,
        kind: change.kind,
        start: change.start,
        end: change.end,
    }
}

/// One mutant of each line in a random order of the lines, then a second one of each, and so on.
fn spread(mutants: Vec<Mutant>, seed: u64) -> Vec<Mutant> {
    let mut by_line: BTreeMap<(String, u32), Vec<(u64, Mutant)>> = BTreeMap::new();
    for mutant in mutants {
        let order = hash(seed, &[mutant.file.as_bytes(), &mutant.start.to_le_bytes(), mutant.replacement.as_bytes()]);
        by_line.entry((mutant.file.clone(), mutant.line)).or_default().push((order, mutant));
    }
    let mut ranked = Vec::new();
    for ((file, line), mut of_line) in by_line {
        let order_of_line = hash(seed, &[file.as_bytes(), &line.to_le_bytes()]);
        of_line.sort_by_key(|(order, _)| *order);
        ranked.extend(of_line.into_iter().enumerate().map(|(round, (_, mutant))| ((round, order_of_line), mutant)));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, mutant)| mutant).collect()
}

/// FNV-1a with a final mix: the same on every machine and in every version.
fn hash(seed: u64, parts: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in parts.iter().flat_map(|part| part.iter().chain([&0xff])) {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state ^ (state >> 33)
}

/// What the tests did with a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MutantResult {
    /// A test failed, as it should.
    Killed,
    Survived,
    /// The tests did not end: the change made them loop, which they would notice.
    TimedOut,
    /// It does not compile, so it says nothing about the tests.
    BuildFailed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    pub mutant: Mutant,
    pub result: MutantResult,
}

/// The verdict over the mutants that ran. `max_survivors` is what the gate tolerates.
pub fn judge(tried: &[Tried], max_survivors: u64) -> Result<Reason, Box<Failure>> {
    let count = |wanted: MutantResult| tried.iter().filter(|one| one.result == wanted).count() as u64;
    let survivors: Vec<Finding> =
        tried.iter().filter(|one| one.result == MutantResult::Survived).map(|one| survivor(&one.mutant)).collect();
    let (killed, timed_out, unbuilt) =
        (count(MutantResult::Killed), count(MutantResult::TimedOut), count(MutantResult::BuildFailed));
    let survived = survivors.len() as u64;
    let ran = killed + timed_out + survived;
    let failure = |code, message: String| {
        let findings = Listed::new(&survivors, survived, 100);
        Err(Box::new(Failure { reason: Reason::new(code, message), findings }))
    };
    if tried.is_empty() {
        return failure(
            "nothing_to_mutate",
            "no changed and covered line can be mutated, so the tests were not tried".into(),
        );
    }
    if ran == 0 {
        return failure("no_mutant_built", format!("none of {unbuilt} mutants compiled, so the tests were not tried"));
    }
    if timed_out == ran {
        // Then it is the tests that do not end.
        return failure("mutants_timed_out", format!("the tests did not end with any of {ran} mutants"));
    }
    let detected = killed + timed_out;
    let skipped = if unbuilt > 0 { format!("; {unbuilt} more did not compile") } else { String::new() };
    if survived > max_survivors {
        let shown: Vec<String> = survivors
            .iter()
            .take(3)
            .map(|finding| format!("{}:{}: {}", finding.file, finding.line.unwrap_or_default(), finding.message))
            .collect();
        let message = format!("the tests did not notice {survived} of {ran} mutants{skipped}\n{}", shown.join("\n"));
        return failure("mutants_survived", message);
    }
    Ok(Reason::new("mutants_killed", format!("the tests noticed {detected} of {ran} mutants{skipped}")))
}

fn survivor(mutant: &Mutant) -> Finding {
    let shown = |text: &str| -> String {
        let text: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).take(MAX_TEXT_CHARS).collect();
        if text.is_empty() { "nothing".to_owned() } else { format!("`{text}`") }
    };
    let message = format!("no test fails when {} becomes {}", shown(&mutant.original), shown(&mutant.replacement));
    let rule = serde_json::to_value(mutant.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    let place = (mutant.file.as_str(), mutant.line, mutant.column);
    Finding::of(Severity::Error, "mutants", &message, place, &rule.unwrap_or_default())
}

#[cfg(test)]
#[path = "mutants_tests.rs"]
mod tests;
