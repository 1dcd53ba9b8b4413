//! JUnit XML, as pytest, vitest, jest-junit, Surefire, gotestsum, nextest and node:test write it.
//!
//! There is no standard, so this reads what they share: suites, nested or not, with cases that have a `failure`, an
//! `error` or a `skipped`. A DOCTYPE is never resolved: an entity that XML does not define makes the report unparsable.

use std::sync::LazyLock;

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use regex::Regex;

use super::{
    Case, Finding, Format, MAX_CASES, MAX_MESSAGE_CHARS, MAX_NAME_CHARS, Parsed, Place, ReportError, Severity, Status,
    Tests, text,
};

const MAX_DEPTH: usize = 64;
const MAX_ATTRIBUTES: usize = 64;

/// A place in a stack trace, such as `src/a.test.ts:2:65`.
static TRACE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"([\w@./\\-]+\.[A-Za-z]{1,6}):(\d{1,7})").expect("a valid pattern"));

#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Suite,
    Case,
    /// A failure, error or skip of the open case.
    Detail,
    Other,
}

#[derive(Default)]
struct OpenCase {
    suite: String,
    name: String,
    file: Option<String>,
    line: Option<u32>,
    time_ms: Option<u64>,
    status: Option<Status>,
    is_todo: bool,
    message: String,
    details: String,
}

struct Document<'a> {
    place: &'a Place<'a>,
    /// The open elements.
    open: Vec<Element>,
    suites: Vec<String>,
    case: Option<OpenCase>,
    /// The most failures and errors that a suite declares in its attributes.
    declared_bad: u64,
    tests: Tests,
    parsed: Parsed,
}

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut document = Document {
        place,
        open: Vec::new(),
        suites: Vec::new(),
        case: None,
        declared_bad: 0,
        tests: Tests::default(),
        parsed: Parsed::new(Format::Junit),
    };
    let mut has_root = false;
    loop {
        match reader.read_event().map_err(unparsable)? {
            Event::Start(start) => {
                if document.open.is_empty() {
                    if std::mem::replace(&mut has_root, true) {
                        return Err(unparsable("it has more than one document"));
                    }
                    let name = start.local_name();
                    if !matches!(name.as_ref(), "testsuites" | "testsuite") {
                        return Err(unparsable(format_args!("its root is {:?}", text::clean(name.as_ref(), 60))));
                    }
                }
                document.start(&start)?;
            }
            Event::End(_) => document.end()?,
            Event::Text(content) => document.text(&content.xml10_content())?,
            Event::CData(content) => document.text(&content.xml10_content())?,
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref().map_err(unparsable)? {
                    Some(character) => character.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&reference)
                        .ok_or_else(|| unparsable("it uses an entity that XML does not define"))?
                        .to_owned(),
                };
                document.text(&resolved)?;
            }
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    if !document.open.is_empty() {
        return Err(unparsable("it is cut off"));
    }
    if !has_root {
        return Err(unparsable("it has no element"));
    }
    Ok(document.finish())
}

fn unparsable(why: impl std::fmt::Display) -> ReportError {
    ReportError::unparsable(Format::Junit, why)
}

/// The attributes of an element. Their number is limited, because the search for duplicates is quadratic.
fn attributes(start: &BytesStart<'_>) -> Result<Vec<(String, String)>, ReportError> {
    let mut found = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(unparsable)?;
        if found.len() == MAX_ATTRIBUTES {
            return Err(unparsable(format_args!("an element has more than {MAX_ATTRIBUTES} attributes")));
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(unparsable)?;
        found.push((attribute.key.local_name().as_ref().to_owned(), value.into_owned()));
    }
    Ok(found)
}

impl Document<'_> {
    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), ReportError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(unparsable(format_args!("its elements are nested more than {MAX_DEPTH} deep")));
        }
        let attributes = attributes(start)?;
        let get = |name: &str| attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let element = match (start.local_name().as_ref(), self.case.is_some()) {
            ("testsuites", false) if self.open.is_empty() => {
                self.declare(&get);
                Element::Other
            }
            ("testsuite", false) => {
                self.declare(&get);
                self.suites.push(text::clean(get("name").unwrap_or_default(), MAX_NAME_CHARS));
                Element::Suite
            }
            ("testcase", false) => {
                self.open_case(&get)?;
                Element::Case
            }
            (kind @ ("failure" | "error" | "skipped"), true) if self.open.last() == Some(&Element::Case) => {
                self.detail(kind, &get);
                Element::Detail
            }
            // A suite that could not start. Its cases are not in the report.
            (kind @ ("failure" | "error"), false) => {
                self.open_case(&|_| None)?;
                self.detail(kind, &get);
                Element::Case
            }
            _ => Element::Other,
        };
        self.open.push(element);
        Ok(())
    }

    fn declare<'v>(&mut self, get: &impl Fn(&str) -> Option<&'v str>) {
        let number = |name: &str| get(name).and_then(|digits| digits.trim().parse::<u64>().ok()).unwrap_or(0);
        self.declared_bad = self.declared_bad.max(number("failures").saturating_add(number("errors")));
    }

    fn open_case<'v>(&mut self, get: &impl Fn(&str) -> Option<&'v str>) -> Result<(), ReportError> {
        if self.tests.cases.len() >= MAX_CASES {
            return Err(ReportError::new("report_too_large", format!("the report has more than {MAX_CASES} tests")));
        }
        let class = get("classname").unwrap_or_default();
        let suite = if class.is_empty() { self.suites.last().map(String::as_str).unwrap_or_default() } else { class };
        // vitest puts the path into the class.
        let file = get("file").or_else(|| self.place.known(class).filter(|_| class.contains('.')));
        let status = match (get("status").unwrap_or_default(), get("result").unwrap_or_default()) {
            ("notrun" | "skipped" | "disabled" | "ignored", _) | (_, "skipped" | "suppressed") => Some(Status::Skipped),
            ("failed" | "failure", _) | (_, "failed" | "failure") => Some(Status::Failed),
            ("error", _) | (_, "error") => Some(Status::Errored),
            _ => None,
        };
        self.case = Some(OpenCase {
            suite: text::clean(suite, MAX_NAME_CHARS),
            name: text::clean(get("name").unwrap_or_default(), MAX_NAME_CHARS),
            file: file.map(|file| self.place.locate(file)),
            line: get("line").and_then(|digits| digits.parse().ok()),
            time_ms: get("time").and_then(milliseconds),
            status,
            ..OpenCase::default()
        });
        Ok(())
    }

    fn detail<'v>(&mut self, kind: &str, get: &impl Fn(&str) -> Option<&'v str>) {
        let Some(case) = &mut self.case else { return };
        let status = match kind {
            "failure" => Status::Failed,
            "error" => Status::Errored,
            _ => Status::Skipped,
        };
        // node:test reports a failing `todo` as both. It does not fail the run.
        case.is_todo |= status == Status::Skipped && get("type") == Some("todo");
        let is_worse = |old: Status| old == Status::Passed || old == Status::Skipped;
        if case.status.is_none_or(is_worse) {
            case.status = Some(status);
            get("message").unwrap_or_default().clone_into(&mut case.message);
            case.details.clear();
        }
    }

    fn text(&mut self, content: &str) -> Result<(), ReportError> {
        match (self.open.last(), &mut self.case) {
            (None, _) if !content.trim().is_empty() => Err(unparsable("it has text outside of its root")),
            (Some(Element::Detail), Some(case)) => {
                let room = (MAX_MESSAGE_CHARS * 4).saturating_sub(case.details.len());
                let cut = content.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= room).last();
                case.details.push_str(content.get(..cut.unwrap_or(0)).unwrap_or_default());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), ReportError> {
        match self.open.pop() {
            None => return Err(unparsable("an element ends that has not started")),
            Some(Element::Suite) => {
                self.suites.pop();
            }
            Some(Element::Case) => self.close_case(),
            Some(Element::Detail | Element::Other) => {}
        }
        Ok(())
    }

    fn close_case(&mut self) {
        let Some(case) = self.case.take() else { return };
        let status = if case.is_todo { Status::Skipped } else { case.status.unwrap_or(Status::Passed) };
        let message = if case.message.trim().is_empty() { &case.details } else { &case.message };
        let message = Some(text::clean(message, MAX_MESSAGE_CHARS)).filter(|message| !message.is_empty());
        let tests = &mut self.tests;
        tests.total += 1;
        match status {
            Status::Passed => tests.passed += 1,
            Status::Failed => tests.failed += 1,
            Status::Errored => tests.errored += 1,
            Status::Skipped => tests.skipped += 1,
        }
        if matches!(status, Status::Failed | Status::Errored) {
            let traced = self.traced(&case);
            let (file, line) = traced.unwrap_or((case.file.clone().unwrap_or_default(), case.line));
            let name = if case.suite.is_empty() || case.name.starts_with(&case.suite) {
                case.name.clone()
            } else {
                format!("{} > {}", case.suite, case.name)
            };
            let text = format!("{name}: {}", message.as_deref().unwrap_or("failed without a message"));
            self.parsed.add(Finding::new(Severity::Error, "junit", &text).at(file, line, None));
        }
        let OpenCase { suite, name, file, time_ms, .. } = case;
        self.tests.cases.push(Case { suite, name, file, status, time_ms, message });
    }

    /// The first place in the stack trace that is a file of the workspace; the file of the test itself is best.
    fn traced(&self, case: &OpenCase) -> Option<(String, Option<u32>)> {
        let places = TRACE.captures_iter(&case.details).take(50).filter_map(|found| {
            let file = self.place.known(found.get(1)?.as_str())?;
            Some((file.to_owned(), found.get(2)?.as_str().parse::<u32>().ok()))
        });
        let places: Vec<_> = places.collect();
        let of_test = places.iter().find(|(file, _)| Some(file) == case.file.as_ref());
        of_test.or(places.first()).cloned()
    }

    fn finish(mut self) -> Parsed {
        if self.declared_bad > 0 && self.tests.failed + self.tests.errored == 0 {
            self.tests.failed = self.declared_bad;
            let message = format!("the report counts {} failed tests and does not list them", self.declared_bad);
            self.parsed.add(Finding::new(Severity::Error, "junit", &message));
        }
        self.parsed.checked = Some(self.tests.total);
        self.parsed.tests = Some(self.tests);
        self.parsed
    }
}

/// Some reporters write NaN, a comma as the thousands separator, or nothing.
fn milliseconds(seconds: &str) -> Option<u64> {
    let seconds: f64 = seconds.replace(',', "").trim().parse().ok()?;
    let bounded = seconds.is_finite() && (0.0..1e9).contains(&seconds);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in the range")]
    bounded.then_some((seconds * 1000.0).round() as u64)
}
