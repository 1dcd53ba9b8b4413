//! `go test -json`: one event on each line.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    Case, Finding, Format, MAX_CASES, MAX_MESSAGE_CHARS, MAX_NAME_CHARS, Parsed, Place, ReportError, Severity, Status,
    Tests, text,
};

/// How much output of a test is kept, to be shown if it fails.
const OUTPUT_BYTES: usize = 8_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    action: String,
    package: Option<String>,
    /// Of a build that fails.
    import_path: Option<String>,
    test: Option<String>,
    elapsed: Option<f64>,
    output: Option<String>,
}

#[derive(Default)]
struct Item {
    status: Option<Status>,
    elapsed: Option<f64>,
    output: String,
}

impl Item {
    fn note(&mut self, output: Option<&str>) {
        // Such as `=== RUN   TestTotal`, which says nothing about a failure.
        let Some(output) = output.filter(|output| !output.starts_with("=== ")) else { return };
        if self.output.len() + output.len() <= OUTPUT_BYTES {
            self.output.push_str(output);
        }
    }
}

/// Tests by package and name. A package itself has an empty name.
type Items = BTreeMap<(String, String), Item>;

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let mut items = Items::new();
    let mut builds = BTreeMap::<String, Item>::new();
    // Lines of `go vet` and of a broken build are plain text.
    for line in text.lines().map(str::trim).filter(|line| line.starts_with('{')) {
        let event: Event = text::json(Format::GoTest, line)?;
        if items.len() > MAX_CASES {
            return Err(ReportError::new("report_too_large", format!("the report has more than {MAX_CASES} tests")));
        }
        match event.action.as_str() {
            "build-output" => {
                builds.entry(event.import_path.unwrap_or_default()).or_default().note(event.output.as_deref());
            }
            "build-fail" => {
                builds.entry(event.import_path.unwrap_or_default()).or_default().status = Some(Status::Errored);
            }
            _ => {
                let key = (event.package.unwrap_or_default(), event.test.unwrap_or_default());
                let item = items.entry(key).or_default();
                item.note(event.output.as_deref());
                match event.action.as_str() {
                    "pass" => item.status = Some(Status::Passed),
                    "fail" => item.status = Some(Status::Failed),
                    "skip" => item.status = Some(Status::Skipped),
                    // start, run, pause, cont, output, bench, attr and what later versions add.
                    _ => continue,
                }
                item.elapsed = event.elapsed;
            }
        }
    }
    if items.is_empty() && builds.is_empty() {
        return Err(ReportError::unparsable(Format::GoTest, "it has no events"));
    }
    collect(&items, &builds, place)
}

fn collect(items: &Items, builds: &BTreeMap<String, Item>, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let mut parsed = Parsed::new(Format::GoTest);
    let mut tests = Tests::default();
    for (import_path, build) in builds.iter().filter(|(_, build)| build.status.is_some()) {
        let message = format!("{import_path} does not build: {}", build.output);
        parsed.add(located(&message, &build.output, import_path, place));
    }
    let with_test: BTreeSet<&String> =
        items.keys().filter(|(_, test)| !test.is_empty()).map(|(package, _)| package).collect();
    let with_bad_test: BTreeSet<&String> = items
        .iter()
        .filter(|((_, test), item)| !test.is_empty() && is_bad(item))
        .map(|((package, _), _)| package)
        .collect();
    for package in items.keys().map(|(package, _)| package).filter(|package| !package.is_empty()) {
        if items.get(&(package.clone(), String::new())).is_none_or(|item| item.status.is_none()) {
            return Err(ReportError::unparsable(Format::GoTest, format_args!("it is cut off: {package} has no end")));
        }
    }
    for ((package, name), item) in items {
        if name.is_empty() {
            let is_alone = !with_bad_test.contains(package);
            if item.status == Some(Status::Failed) && is_alone {
                tests.errored += 1;
                tests.total += 1;
                parsed.add(located(
                    &format!("{package} failed: {}", item.output.trim_start()),
                    &item.output,
                    package,
                    place,
                ));
            }
            // Its code may have ended the process before its tests. A package without files of tests does not pass.
            if item.status == Some(Status::Passed) && !with_test.is_empty() && !with_test.contains(package) {
                tests.skipped += 1;
                tests.total += 1;
                tests.cases.push(Case {
                    suite: text::clean(package, MAX_NAME_CHARS),
                    name: "no test ran".to_owned(),
                    file: None,
                    status: Status::Skipped,
                    time_ms: milliseconds(item.elapsed),
                    message: None,
                });
            }
            continue;
        }
        // A test without an end was running when its package was killed, timed out or panicked.
        let status = item.status.unwrap_or(Status::Errored);
        tests.total += 1;
        match status {
            Status::Passed => tests.passed += 1,
            Status::Failed => tests.failed += 1,
            Status::Errored => tests.errored += 1,
            Status::Skipped => tests.skipped += 1,
        }
        if matches!(status, Status::Failed | Status::Errored) {
            parsed.add(located(
                &format!("{package} > {name}: {}", item.output.trim_start()),
                &item.output,
                package,
                place,
            ));
        }
        tests.cases.push(Case {
            suite: text::clean(package, MAX_NAME_CHARS),
            name: text::clean(name, MAX_NAME_CHARS),
            file: None,
            status,
            time_ms: milliseconds(item.elapsed),
            message: (status != Status::Passed).then(|| text::clean(&item.output, MAX_MESSAGE_CHARS)),
        });
    }
    parsed.checked = Some(tests.total);
    parsed.tests = Some(tests);
    Ok(parsed)
}

fn is_bad(item: &Item) -> bool {
    !matches!(item.status, Some(Status::Passed | Status::Skipped))
}

/// Go prints `    a_test.go:12: message`, with the file's name only. The package says in which folder.
fn located(message: &str, output: &str, package: &str, place: &Place<'_>) -> Finding {
    let finding = Finding::new(Severity::Error, "go test", message);
    for line in output.lines().take(200) {
        let Some((file, rest)) = line.trim_start().split_once(".go:") else { continue };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).take(7).collect();
        let Ok(number) = digits.parse() else { continue };
        let name = format!("{file}.go");
        let in_package = format!("/{package}/{name}");
        if let Some(known) = place.known(&in_package).or_else(|| place.known(&name)) {
            return finding.at(known.to_owned(), Some(number), None);
        }
    }
    finding
}

fn milliseconds(seconds: Option<f64>) -> Option<u64> {
    let seconds = seconds.filter(|seconds| (0.0..1e9).contains(seconds))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in the range")]
    Some((seconds * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_passes_without_a_test_was_skipped() {
        let event =
            |package: &str, action: &str, test: &str| format!(r#"{{"Action":"{action}","Package":"{package}"{test}}}"#);
        let test = r#","Test":"TestA""#;
        let events = [event("x", "pass", test), event("x", "pass", ""), event("y", "pass", ""), event("z", "skip", "")];
        let parsed = read(&events.join("\n"), &Place::new("/w", std::iter::empty())).unwrap();
        let tests = parsed.tests.unwrap();
        assert_eq!((tests.passed, tests.skipped, tests.total), (1, 1, 2));
        assert!(tests.cases.iter().any(|case| case.suite == "y" && case.status == Status::Skipped));
    }

    #[test]
    fn a_failed_test_shows_what_it_printed_itself() {
        let events =
            [("run", ""), ("output", "=== RUN   TestA\\n"), ("output", "    a_test.go:7: got 2\\n"), ("fail", "")];
        let event = |(action, output): &(&str, &str)| {
            format!(r#"{{"Action":"{action}","Package":"x","Test":"TestA","Output":"{output}"}}"#)
        };
        let text = events.iter().map(event).collect::<Vec<_>>().join("\n");
        let text = format!("{text}\n{}\n", r#"{"Action":"fail","Package":"x"}"#);
        let parsed = read(&text, &Place::new("/w", ["a_test.go"].into_iter())).unwrap();
        assert_eq!(parsed.findings[0].line, Some(7));
        assert!(parsed.findings[0].message.starts_with("x > TestA: a_test.go:7: got 2"), "{:?}", parsed.findings);
    }
}
