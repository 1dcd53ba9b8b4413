//! The evidence of a gate, on the page of its step.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::format;
use super::parts::notice;
use super::source::{self, Mark, visible};
use super::weakening::weakenings;
use crate::evidence::{Coverage, Evidence, Finding, Listed, TestFailure, Tests};

/// Files with findings or uncovered lines that are shown.
const FILES: usize = 100;
/// Failed tests that are shown.
const FAILURES: usize = 50;

/// The pages of what a gate stored.
#[derive(Debug, Clone, Default)]
pub(super) struct Links {
    /// The evidence itself, with what its signature is worth.
    pub document: Option<String>,
    /// The whole output of its command.
    pub log: Option<String>,
}

/// What a gate found, and what that is worth.
pub(super) fn verdict(evidence: &Evidence, links: &Links) -> Markup {
    html! {
        @if evidence.verdict == "passed" { (doubts(evidence)) }
        (sources(evidence))
        @if let Some(tests) = &evidence.tests { (tests_of(tests)) }
        @if let Some(coverage) = &evidence.coverage { (coverage_of(coverage)) }
        (checks(evidence))
        @if evidence.verdict != "passed" { (doubts(evidence)) }
        (super::judged::judged(evidence, links))
    }
}

/// Evidence that the row names and the page cannot show.
pub(super) fn verdict_missing(why: &str, links: &Links) -> Markup {
    notice(
        "bad",
        "bad",
        "note",
        &html! {
            p { strong { "The evidence cannot be shown." } " " bdi { (visible(why)) } }
            p { "Do not rely on this gate before somebody has looked into it." }
            @if let Some(href) = &links.document { p { a href=(href) { "What is known about the document" } } }
        },
    )
}

/// Whether the section with findings has something to show.
pub(super) fn has_findings(evidence: &Evidence) -> bool {
    !evidence.findings.listed.is_empty() || !marks(evidence).is_empty()
}

fn doubts(evidence: &Evidence) -> Markup {
    html! {
        section.section aria-labelledby="doubts" {
            div.title { h2 #doubts { "What this does not prove" } }
            @if evidence.not_proved.is_empty() { p.note { "No doubt is recorded." } }
            ul.doubts {
                @for doubt in &evidence.not_proved {
                    li { bdi { (visible(&doubt.message)) } " " code.note { (visible(&doubt.code)) } }
                }
            }
            @if let Some(reused) = &evidence.reused {
                p.note { "The verdict repeats the evidence " code { (visible(&reused.evidence)) } " of run " code { (visible(&reused.run_id)) } "." }
            }
        }
    }
}

/// Findings and lines without coverage, in their files.
fn sources(evidence: &Evidence) -> Markup {
    let files = marks(evidence);
    let findings = &evidence.findings;
    let elsewhere: Vec<&Finding> = findings.listed.iter().filter(|finding| finding.file.is_empty()).collect();
    html! {
        @if !files.is_empty() || !elsewhere.is_empty() {
            section.section aria-labelledby="found" {
                div.title { h2 #found { "What was found" } }
                p.facts.note {
                    @for (severity, count) in findings.by_severity.iter() { span { (count) " " (plural(severity, *count)) } }
                    @if let Some(coverage) = &evidence.coverage {
                        @if coverage.uncovered > 0 { span { "− never ran: " (coverage.uncovered) } }
                        @if coverage.unmeasured > 0 { span { "? not measured: " (coverage.unmeasured) } }
                    }
                }
                @for finding in elsewhere { (source::remark_of(tone(&finding.severity), &remark(finding))) }
                @for (path, marks) in files.iter().take(FILES) { (file(evidence, path, marks)) }
                @if findings.total > findings.listed.len() as u64 {
                    p.note { "The evidence lists the first " (findings.listed.len()) " of " (findings.total) " findings." }
                }
                @if files.len() > FILES { p.note { (files.len() - FILES) " more files are only in the document." } }
            }
        }
    }
}

fn file(evidence: &Evidence, path: &str, marks: &BTreeMap<u32, Mark>) -> Markup {
    let excerpts: Vec<_> = evidence.context.iter().filter(|excerpt| excerpt.path == path).collect();
    let is_shown =
        |line: u32| excerpts.iter().any(|one| (one.first_line..).zip(&one.lines).any(|(number, _)| number == line));
    let rest: Vec<(&u32, &Mark)> = marks.iter().filter(|(line, _)| !is_shown(**line)).collect();
    html! {
        figure.file {
            figcaption { code { bdi { (visible(path)) } } }
            @if !excerpts.is_empty() {
                div.code {
                    @for (at, excerpt) in excerpts.iter().enumerate() {
                        @let before = at.checked_sub(1).and_then(|at| excerpts.get(at));
                        @let is_next = before.is_some_and(|before| before.first_line.saturating_add(count(before.lines.len())) == excerpt.first_line);
                        @if at > 0 && !is_next { div.line.gap aria-hidden="true" { span.n {} span.sign {} code { "⋯" } } }
                        (source::lines(excerpt.first_line, &excerpt.lines, marks))
                    }
                }
            }
            @if !rest.is_empty() { (unseen(&rest)) }
        }
    }
}

/// Marks whose lines the evidence does not repeat.
fn unseen(rest: &[(&u32, &Mark)]) -> Markup {
    let lines = |is: fn(&Mark) -> bool| ranges(rest.iter().filter(|(_, mark)| is(mark)).map(|(line, _)| **line));
    let (never_ran, unmeasured) = (lines(|mark| mark.never_ran), lines(|mark| mark.unmeasured));
    html! {
        div.rest {
            @for (line, mark) in rest { @for (class, remark) in &mark.remarks {
                @let place = if **line > 0 { format!("line {line}, ") } else { String::new() };
                (source::remark_of(class, &format!("{place}{remark}")))
            } }
            @if !never_ran.is_empty() { p.note { "Never ran: lines " (never_ran) } }
            @if !unmeasured.is_empty() { p.note { "Not measured: lines " (unmeasured) } }
        }
    }
}

/// What is said about each line of each file. Line 0 is the whole file.
fn marks(evidence: &Evidence) -> BTreeMap<&str, BTreeMap<u32, Mark>> {
    let mut files: BTreeMap<&str, BTreeMap<u32, Mark>> = BTreeMap::new();
    for finding in evidence.findings.listed.iter().filter(|finding| !finding.file.is_empty()) {
        let mark = files.entry(&finding.file).or_default().entry(finding.line.unwrap_or(0)).or_default();
        mark.remarks.push((tone(&finding.severity), remark(finding)));
    }
    for file in evidence.coverage.iter().flat_map(|coverage| &coverage.files) {
        for line in &file.uncovered_lines {
            files.entry(&file.path).or_default().entry(*line).or_default().never_ran = true;
        }
        for line in &file.unmeasured_lines {
            files.entry(&file.path).or_default().entry(*line).or_default().unmeasured = true;
        }
    }
    files
}

fn remark(finding: &Finding) -> String {
    let rule = finding.rule.as_deref().map(|rule| format!(" ({rule})")).unwrap_or_default();
    format!("{}: {}{rule}", finding.severity, finding.message)
}

fn tone(severity: &str) -> &'static str {
    match severity {
        "error" => "bad",
        "warning" => "warn",
        _ => "quiet",
    }
}

fn tests_of(tests: &Tests) -> Markup {
    let Listed { total, listed } = &tests.failures;
    html! {
        section.section aria-labelledby="tests" {
            div.title { h2 #tests { "Tests" } }
            p.facts {
                span { (tests.total) " ran" }
                span { (tests.passed) " passed" }
                @for (count, word) in [(tests.failed, "failed"), (tests.errored, "ended with an error"), (tests.skipped, "skipped")] {
                    @if count > 0 { span { strong { (count) " " (word) } } }
                }
            }
            ul.plain { @for failure in listed.iter().take(FAILURES) { (failed(failure)) } }
            @if *total > listed.len().min(FAILURES) as u64 {
                p.note { "The first " (listed.len().min(FAILURES)) " of " (total) " failed tests are shown." }
            }
        }
    }
}

fn failed(failure: &TestFailure) -> Markup {
    html! {
        li {
            strong { bdi { (visible(&failure.name)) } }
            @if !failure.suite.is_empty() { span.note { " of " bdi { (visible(&failure.suite)) } } }
            @if let Some(file) = &failure.file { div.note { code { bdi { (visible(file)) } } } }
            @if !failure.message.is_empty() { pre.output { (visible(&failure.message)) } }
        }
    }
}

fn coverage_of(coverage: &Coverage) -> Markup {
    let judged = coverage.covered + coverage.uncovered + coverage.unmeasured;
    html! {
        section.section aria-labelledby="coverage" {
            div.title { h2 #coverage { "Coverage of changed lines" } }
            @if coverage.ratio.is_none() { p.multiline { bdi { (visible(&coverage.reason)) } } }
            p.facts {
                span { (coverage.covered) " of " (judged) " changed lines ran" }
                @if let Some(ratio) = coverage.ratio { span { strong { (format::percent(ratio)) } } }
                @if let Some(threshold) = coverage.threshold { span.note { (format::percent(threshold)) " are needed" } }
            }
            @if !coverage.files.is_empty() {
                table.table role="table" aria-labelledby="coverage" {
                    thead role="rowgroup" { tr role="row" {
                        @for heading in ["File", "Ran", "Never ran", "Not measured"] { th role="columnheader" scope="col" { (heading) } }
                    } }
                    tbody role="rowgroup" { @for file in coverage.files.iter().take(FILES) { tr role="row" {
                        td.wide role="cell" data-label="File" { code { bdi { (visible(&file.path)) } } }
                        td.short role="cell" data-label="Ran" { (file.covered) }
                        td.short role="cell" data-label="Never ran" { (file.uncovered) }
                        td.short role="cell" data-label="Not measured" { (file.unmeasured) }
                    } } }
                }
                @if coverage.file_count > coverage.files.len().min(FILES) {
                    p.note { (coverage.files.len().min(FILES)) " of " (coverage.file_count) " files are shown." }
                }
            }
        }
    }
}

/// How the change weakens the checks, and who let it.
fn checks(evidence: &Evidence) -> Markup {
    let Some(integrity) = &evidence.integrity else { return html! {} };
    html! {
        section.section aria-labelledby="checks" {
            div.title { h2 #checks { "The checks themselves" } }
            @if integrity.total == 0 { p.note { "The change does not weaken them." } }
            (weakenings(&integrity.listed, integrity.total))
            @for approval in &evidence.approvals {
                p { @if approval.waived { "Waived by " } @else { "Approved by " } strong { bdi { (visible(&approval.by)) } } ", " (format::plain_time(&visible(&approval.at)))
                    span.note { ", for the difference " code { (visible(&approval.subject)) } } }
            }
        }
    }
}

/// `1–3, 7`
fn ranges(lines: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(line) => *last = line,
            _ => ranges.push((line, line)),
        }
    }
    let one = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}–{last}") };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn plural(word: &str, count: u64) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_listed_as_ranges_and_ratios_are_rounded_down() {
        assert_eq!(ranges([1, 2, 3, 7, 9, 10].into_iter()), "1–3, 7, 9–10");
        let shown = [0.9, 0.8999, 1.0, 0.0, 0.555].map(format::percent);
        assert_eq!(shown, ["90\u{a0}%", "89.9\u{a0}%", "100\u{a0}%", "0\u{a0}%", "55.5\u{a0}%"]);
    }
}
