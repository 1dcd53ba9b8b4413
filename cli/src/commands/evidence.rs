//! Shows what a gate stored: its verdict with the first findings, and the difference that a person decides about.

use anyhow::{Context, Result};
use nofx_gates::evidence::{Evidence, Excerpt, Weakening};
use nofx_local::report::printable;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use shared::domain::ArtifactId;
use shared::domain::gate::{GATE_CHANGE, ON_EVIDENCE};
use shared::view::Gate;

use crate::client::api::Api;
use crate::client::download;

/// Findings, failed tests and uncovered lines that are printed.
const SHOWN: usize = 5;
const MAX_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Deserialize)]
struct GateChange {
    weakenings: Vec<Weakening>,
}

/// The first findings of a gate's evidence, a line for each. None, if the gate has no evidence: a person decides about others.
pub async fn findings(api: &Api, gate_id: &str) -> Result<Vec<String>> {
    let gate: Gate = api.get(&format!("/gates/{gate_id}")).await?;
    let Some(id) = gate.evidence_id.filter(|_| gate.gate_type.starts_with(ON_EVIDENCE)) else { return Ok(Vec::new()) };
    let evidence: Evidence = document(api, id).await?;
    Ok(summary(&evidence))
}

/// The difference that a gate asks about, as lines. None, if it asks about something else.
pub async fn difference(api: &Api, gate: &Gate) -> Result<Vec<String>> {
    let Some(id) = gate.evidence_id.filter(|_| gate.gate_type == GATE_CHANGE) else { return Ok(Vec::new()) };
    let change: GateChange = document(api, id).await?;
    let mut lines = Vec::new();
    for weakening in &change.weakenings {
        let line = weakening.line.map(|line| format!(":{line}")).unwrap_or_default();
        lines.push(format!("{}{line}: {}", printable(&weakening.path), printable(&weakening.message)));
        let text = weakening.difference.iter().flat_map(|text| text.lines());
        lines.extend(text.map(|line| format!("    {}", printable(line))));
    }
    Ok(lines)
}

async fn document<T: DeserializeOwned>(api: &Api, id: ArtifactId) -> Result<T> {
    let (_, bytes) = download::bytes(api, id, MAX_BYTES).await?;
    serde_json::from_slice(&bytes).with_context(|| format!("cannot read the document {id}"))
}

/// The first findings, failed tests and lines without coverage.
fn summary(evidence: &Evidence) -> Vec<String> {
    let mut lines = Vec::new();
    let findings = &evidence.findings.list;
    for finding in findings.listed.iter().take(SHOWN) {
        let place = finding.line.map_or(finding.file.clone(), |line| format!("{}:{line}", finding.file));
        let rule = finding.rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
        lines.push(format!("{place}: {}{rule}", finding.message.lines().next().unwrap_or_default()));
        lines.extend(finding.line.and_then(|line| source(&evidence.context, &finding.file, line)));
    }
    more(&mut lines, findings.total, "findings");
    if let Some(tests) = &evidence.tests {
        for test in tests.failures.listed.iter().take(SHOWN) {
            lines.push(format!("failed: {}: {}", test.full_name(), test.message.lines().next().unwrap_or_default()));
        }
        more(&mut lines, tests.failures.total, "failed tests");
    }
    let uncovered = uncovered(evidence);
    for (path, line) in uncovered.iter().take(SHOWN) {
        lines.push(format!("{path}:{line}: no test runs this line"));
        lines.extend(source(&evidence.context, path, *line));
    }
    more(&mut lines, uncovered.len() as u64, "lines that no test runs");
    lines
}

fn more(lines: &mut Vec<String>, total: u64, what: &str) {
    let rest = total.saturating_sub(SHOWN as u64);
    if rest > 0 {
        lines.push(format!("and {rest} more {what}"));
    }
}

fn source(context: &[Excerpt], path: &str, line: u32) -> Option<String> {
    let excerpt = context.iter().find(|excerpt| excerpt.path == path && excerpt.has(line))?;
    let text = excerpt.lines.get(usize::try_from(line.checked_sub(excerpt.first_line)?).ok()?)?;
    Some(format!("{line:>6} | {text}"))
}

fn uncovered(evidence: &Evidence) -> Vec<(String, u32)> {
    let files = evidence.coverage.as_ref().and_then(|coverage| coverage["files"].as_array());
    let mut found = Vec::new();
    for file in files.into_iter().flatten() {
        let path = file["path"].as_str().unwrap_or_default();
        let lines = ["uncovered_lines", "unmeasured_lines"].map(|key| file[key].as_array());
        let lines = lines.into_iter().flatten().flatten().filter_map(serde_json::Value::as_u64);
        found.extend(lines.filter_map(|line| Some((path.to_owned(), u32::try_from(line).ok()?))));
    }
    found
}

#[cfg(test)]
mod tests {
    use nofx_gates::evidence::Reason;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_summary_has_the_first_lines_with_their_source() {
        let mut evidence = Evidence::new("unit", Reason { code: "c".into(), message: "m".into() }, 1);
        evidence.coverage = Some(json!({"files": [{"path": "a.ts", "uncovered_lines": [1, 2, 3, 4, 5, 6, 7]}]}));
        evidence.context = vec![Excerpt { path: "a.ts".into(), first_line: 1, lines: vec!["one();".into()] }];
        let shown = summary(&evidence);
        assert_eq!(shown[..2], ["a.ts:1: no test runs this line", "     1 | one();"]);
        assert_eq!(shown.last().map(String::as_str), Some("and 2 more lines that no test runs"));
    }
}
