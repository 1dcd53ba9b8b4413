//! `cargo test`: what libtest prints for people. Its JSON needs a nightly compiler, and cargo writes no JUnit.
//!
//! Each binary has a section: `running N tests`, a line for each test, and `test result:` with counts. The counts must be
//! those of the lines: a test can print lines of its own to the same stream. Which binary a section belongs to is on
//! standard error (`Running …`, `Doc-tests …`), so it is known only if the command joins both streams.

use std::collections::BTreeMap;

use super::{
    Case, Finding, Format, MAX_CASES, MAX_MESSAGE_CHARS, MAX_NAME_CHARS, Parsed, Place, ReportError, Severity, Status,
    Tests, text,
};

/// How much output of a failed test is kept.
const OUTPUT_BYTES: usize = 8_000;

const TOOL: &str = "cargo test";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Ignored,
    Measured,
}

/// The counts of a result line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    measured: u64,
    filtered: u64,
}

impl Counts {
    fn ran(self) -> u64 {
        self.passed + self.failed + self.ignored + self.measured
    }
}

/// The tests of one binary.
#[derive(Default)]
struct Section {
    suite: String,
    expected: u64,
    tests: Vec<(String, Outcome)>,
    /// Lines that the output of a test runs into: `outputtest NAME ... ok`. They count only if the section lacks them.
    joined: Vec<(String, Outcome)>,
    /// The test whose line has no result yet, and the last line that it printed. libtest prints the name first if it
    /// runs one test at a time.
    unfinished: Option<(String, String)>,
    /// What tests printed follows: nothing there is a line of libtest but the result.
    is_in_output: bool,
    /// What each failed test printed.
    outputs: BTreeMap<String, String>,
    /// The test whose output follows.
    printing: Option<String>,
}

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let text = text::strip_ansi(text);
    let mut parsed = Parsed::new(Format::CargoTest);
    let (mut tests, mut filtered, mut sections) = (Tests::default(), 0, 0_u64);
    let mut suite = TOOL.to_owned();
    let mut open: Option<Section> = None;
    for (index, line) in text.lines().enumerate() {
        let at = |why: String| ReportError::unparsable(Format::CargoTest, format_args!("line {}: {why}", index + 1));
        let Some(section) = &mut open else {
            if let Some(expected) = announced(line) {
                open = Some(Section { suite: suite.clone(), expected, ..Section::default() });
            } else if line.starts_with("test result: ") {
                return Err(at("a result without `running N tests` before it".to_owned()));
            } else if let Some(name) = binary(line) {
                name.clone_into(&mut suite);
            }
            continue;
        };
        let Some(counts) = section.line(line).map_err(at)? else { continue };
        section.check(counts).map_err(at)?;
        filtered += counts.filtered;
        sections += 1;
        if tests.cases.len() + section.tests.len() > MAX_CASES {
            return Err(ReportError::new("report_too_large", format!("the report has more than {MAX_CASES} tests")));
        }
        for (name, outcome) in &section.tests {
            add(&mut parsed, &mut tests, section, (name, *outcome), place);
        }
        open = None;
    }
    if open.is_some() {
        return Err(ReportError::unparsable(Format::CargoTest, "it is cut off: the last binary has no result"));
    }
    if sections == 0 {
        return Err(ReportError::unparsable(Format::CargoTest, "it has no line `running N tests`"));
    }
    if filtered > 0 {
        parsed.add(Finding::new(Severity::Note, TOOL, &format!("the command's filter left out {filtered} tests")));
    }
    parsed.checked = Some(tests.total);
    parsed.tests = Some(tests);
    Ok(parsed)
}

impl Section {
    /// Reads a line. Its counts, if it is the result.
    fn line(&mut self, line: &str) -> Result<Option<Counts>, String> {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.finish();
            return match result(rest) {
                Some(counts) if !self.is_in_output || self.agrees(counts) => Ok(Some(counts)),
                _ if self.is_in_output => Ok(None),
                _ => Err("the result cannot be read".to_owned()),
            };
        }
        if self.is_in_output {
            self.note(line);
        } else if matches!(line, "failures:" | "successes:") {
            self.finish();
            self.is_in_output = true;
        } else if announced(line).is_some() {
            return Err("the binary before has no result: it ended early, or a test printed this line".to_owned());
        } else {
            self.test_line(line);
        }
        Ok(None)
    }

    fn test_line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test ") {
            if let Some((name, outcome)) = test(rest) {
                self.finish();
                self.tests.push((name.to_owned(), outcome));
                return;
            }
            if let Some((name, printed)) = rest.split_once(" ... ") {
                self.finish();
                self.unfinished = Some((name.trim().to_owned(), printed.to_owned()));
                return;
            }
        }
        if let Some((_, printed)) = &mut self.unfinished {
            if !line.trim().is_empty() {
                line.clone_into(printed);
            }
        } else if let Some((name, outcome)) = line.rsplit_once("test ").and_then(|(_, rest)| test(rest)) {
            self.joined.push((name.to_owned(), outcome));
        }
    }

    /// The result of a test that printed something before it is at the end of what it printed.
    fn finish(&mut self) {
        let Some((name, printed)) = self.unfinished.take() else { return };
        let printed = printed.trim_end();
        if printed.ends_with("ok") {
            self.tests.push((name, Outcome::Passed));
        } else if printed.ends_with("FAILED") {
            self.tests.push((name, Outcome::Failed));
        }
    }

    fn note(&mut self, line: &str) {
        let header = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----"));
        if let Some((name, _)) = header.and_then(|header| header.rsplit_once(' ')) {
            self.printing = Some(name.to_owned());
        } else if let Some(name) = &self.printing {
            let output = self.outputs.entry(name.clone()).or_default();
            if output.len() + line.len() < OUTPUT_BYTES {
                output.push_str(line);
                output.push('\n');
            }
        }
    }

    fn counts(&self) -> Counts {
        let count = |outcome| self.tests.iter().filter(|(_, known)| *known == outcome).count() as u64;
        Counts {
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            ignored: count(Outcome::Ignored),
            measured: count(Outcome::Measured),
            filtered: 0,
        }
    }

    fn agrees(&self, counts: Counts) -> bool {
        self.counts() == Counts { filtered: 0, ..counts } && counts.ran() == self.expected
    }

    fn check(&mut self, counts: Counts) -> Result<(), String> {
        if !self.agrees(counts) {
            self.tests.append(&mut self.joined);
        }
        if self.agrees(counts) {
            return Ok(());
        }
        let own = self.counts();
        Err(format!(
            "the result counts {} passed, {} failed and {} ignored of {} tests, the lines before it {}, {} and {}. A test \
             that prints to standard output itself breaks them (so does --quiet); cargo nextest writes JUnit instead",
            counts.passed, counts.failed, counts.ignored, self.expected, own.passed, own.failed, own.ignored
        ))
    }
}

fn add(
    parsed: &mut Parsed,
    tests: &mut Tests,
    section: &Section,
    (printed, outcome): (&str, Outcome),
    place: &Place<'_>,
) {
    let printed = printed.strip_suffix(" - should panic").unwrap_or(printed);
    let name = Name::of(printed);
    let file = name.file.and_then(|file| place.known(file));
    let output = section.outputs.get(printed).map_or("", String::as_str);
    // The list of all failed tests follows the output of the last one.
    let output = output.rsplit_once("\n\nfailures:\n").map_or(output, |(own, _)| own).trim();
    let status = match outcome {
        Outcome::Passed | Outcome::Measured => Status::Passed,
        Outcome::Failed => Status::Failed,
        Outcome::Ignored => Status::Skipped,
    };
    tests.total += 1;
    match status {
        Status::Passed => tests.passed += 1,
        Status::Failed | Status::Errored => tests.failed += 1,
        Status::Skipped => tests.skipped += 1,
    }
    if status == Status::Failed {
        let suite = if section.suite == TOOL { String::new() } else { format!("{} > ", section.suite) };
        let finding = Finding::new(Severity::Error, TOOL, &format!("{suite}{printed}: {output}"));
        let found = panicked_at(output, place).or_else(|| Some((file?, name.line?)));
        parsed.add(match found {
            Some((file, line)) => finding.at(file.to_owned(), Some(line), None),
            None => finding,
        });
    }
    tests.cases.push(Case {
        suite: text::clean(&section.suite, MAX_NAME_CHARS),
        name: text::clean(&name.text, MAX_NAME_CHARS),
        file: file.map(ToOwned::to_owned),
        status,
        time_ms: None,
        message: (status == Status::Failed).then(|| text::clean(output, MAX_MESSAGE_CHARS)),
    });
}

/// The name of a test. That of a documentation test has a file and a line, `src/lib.rs - add (line 3) - compile`.
struct Name<'a> {
    /// Without the line, which changes with the code before it.
    text: String,
    file: Option<&'a str>,
    line: Option<u32>,
}

impl<'a> Name<'a> {
    fn of(printed: &'a str) -> Self {
        let parts = printed.rsplit_once(" (line ").and_then(|(before, after)| {
            let (line, rest) = after.split_once(')')?;
            Some((before, line.parse().ok()?, rest))
        });
        match parts {
            Some((before, line, rest)) => Self {
                text: format!("{before}{rest}"),
                file: before.split_once(" - ").map(|(file, _)| file),
                line: Some(line),
            },
            None => Self { text: printed.to_owned(), file: None, line: None },
        }
    }
}

/// The first `path.rs:line:column` of the workspace in the output of a test.
fn panicked_at<'a>(output: &str, place: &Place<'a>) -> Option<(&'a str, u32)> {
    output.lines().take(200).flat_map(str::split_whitespace).find_map(|word| {
        let (path, rest) = word.trim_start_matches("./").split_once(".rs:")?;
        let line = rest.split(':').next()?.parse().ok()?;
        Some((place.known(&format!("{path}.rs"))?, line))
    })
}

/// The number in `running N tests`.
fn announced(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("running ")?;
    rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test"))?.parse().ok()
}

/// The binary in `     Running unittests src/lib.rs (target/debug/deps/name-0123456789abcdef)` or `   Doc-tests name`.
fn binary(line: &str) -> Option<&str> {
    let line = line.trim();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(name);
    }
    let (_, path) = line.strip_prefix("Running ")?.strip_suffix(')')?.rsplit_once('(')?;
    let file = path.rsplit(['/', '\\']).next()?;
    file.rsplit_once('-').map(|(name, _)| name)
}

/// A test and its outcome in what follows `test `.
fn test(rest: &str) -> Option<(&str, Outcome)> {
    rest.match_indices(" ... ").find_map(|(at, mark)| {
        let name = rest.get(..at)?.trim();
        let outcome = outcome(rest.get(at + mark.len()..)?.trim_end())?;
        (!name.is_empty()).then_some((name, outcome))
    })
}

fn outcome(text: &str) -> Option<Outcome> {
    // With --report-time the time follows: `ok <0.001s>`.
    let word = text.strip_suffix('>').and_then(|text| text.rsplit_once(" <")).map_or(text, |(word, _)| word);
    match word {
        "ok" => Some(Outcome::Passed),
        "FAILED" | "FAILED (time limit exceeded)" => Some(Outcome::Failed),
        "ignored" => Some(Outcome::Ignored),
        _ if text.starts_with("ignored, ") => Some(Outcome::Ignored),
        _ if text.starts_with("bench: ") && text.contains(" ns/iter") => Some(Outcome::Measured),
        _ => None,
    }
}

/// The counts in `ok. 3 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.06s`.
fn result(rest: &str) -> Option<Counts> {
    let (word, rest) = rest.split_once(". ")?;
    let mut parts = rest.trim_end().split("; ");
    let mut next = |label: &str| parts.next()?.strip_suffix(label)?.parse::<u32>().ok().map(u64::from);
    let counts = Counts {
        passed: next(" passed")?,
        failed: next(" failed")?,
        ignored: next(" ignored")?,
        measured: next(" measured")?,
        filtered: next(" filtered out")?,
    };
    let finished = parts.next()?.strip_prefix("finished in ")?.strip_suffix('s')?;
    let is_whole = parts.next().is_none() && finished.parse::<f64>().is_ok();
    let agrees = if counts.failed == 0 { word == "ok" } else { word == "FAILED" };
    (is_whole && agrees).then_some(counts)
}

#[cfg(test)]
#[path = "cargo_test_tests.rs"]
mod tests;
