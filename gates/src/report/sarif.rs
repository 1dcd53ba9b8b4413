//! SARIF 2.1.0 (OASIS), which most security scanners write.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::text::UniqueMap;
use super::{Finding, Format, Parsed, Place, ReportError, Severity, text};

#[derive(Deserialize)]
struct Log {
    version: String,
    runs: Vec<Run>,
    #[serde(default, rename = "inlineExternalProperties")]
    inline_external_properties: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    /// Absent if the tool did not look for problems (section 3.14.23).
    results: Option<Vec<SarifResult>>,
    artifacts: Option<Vec<Artifact>>,
    #[serde(default)]
    invocations: Vec<Invocation>,
    original_uri_base_ids: Option<UniqueMap<ArtifactLocation>>,
    external_property_file_references: Option<External>,
}

#[derive(Deserialize)]
struct External {
    #[serde(default)]
    results: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Tool {
    driver: Component,
    #[serde(default)]
    extensions: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: String,
    help_uri: Option<String>,
    default_configuration: Option<Configuration>,
    message_strings: Option<BTreeMap<String, Message>>,
    short_description: Option<Message>,
}

#[derive(Deserialize)]
struct Configuration {
    level: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SarifResult {
    rule_id: Option<String>,
    rule_index: Option<i64>,
    rule: Option<RuleReference>,
    kind: Option<String>,
    level: Option<String>,
    message: Message,
    #[serde(default)]
    locations: Vec<Location>,
    suppressions: Option<Vec<Suppression>>,
    baseline_state: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleReference {
    id: Option<String>,
    index: Option<i64>,
    tool_component: Option<ComponentReference>,
}

#[derive(Deserialize)]
struct ComponentReference {
    index: Option<i64>,
}

#[derive(Deserialize)]
struct Suppression {
    status: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    text: Option<String>,
    markdown: Option<String>,
    id: Option<String>,
    #[serde(default)]
    arguments: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: Option<PhysicalLocation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: Option<ArtifactLocation>,
    region: Option<Region>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactLocation {
    uri: Option<String>,
    uri_base_id: Option<String>,
    index: Option<i64>,
}

#[derive(Deserialize)]
struct Artifact {
    location: Option<ArtifactLocation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: Option<u32>,
    start_column: Option<u32>,
    end_line: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    execution_successful: Option<bool>,
    #[serde(default)]
    tool_execution_notifications: Vec<Notification>,
    #[serde(default)]
    tool_configuration_notifications: Vec<Notification>,
}

#[derive(Deserialize)]
struct Notification {
    level: Option<String>,
    message: Message,
    #[serde(default)]
    locations: Vec<Location>,
    descriptor: Option<RuleReference>,
}

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let log: Log = text::json(Format::Sarif, text)?;
    if log.version != "2.1.0" {
        let why = format_args!("it has version {:?}; only 2.1.0 is supported", log.version);
        return Err(ReportError::unparsable(Format::Sarif, why));
    }
    let has_external =
        |run: &Run| run.external_property_file_references.as_ref().is_some_and(|e| !e.results.is_empty());
    if !log.inline_external_properties.is_empty() || log.runs.iter().any(has_external) {
        return Err(ReportError::unparsable(Format::Sarif, "it keeps its results in other files"));
    }
    let mut parsed = Parsed::new(Format::Sarif);
    if log.runs.is_empty() || log.runs.iter().any(|run| run.results.is_none()) {
        // A run without `results` did not scan. One that found nothing has an empty list.
        parsed.checked = Some(0);
    }
    for run in &log.runs {
        read_run(run, place, &mut parsed)?;
    }
    Ok(parsed)
}

fn read_run(run: &Run, place: &Place<'_>, parsed: &mut Parsed) -> Result<(), ReportError> {
    let tool = run.tool.driver.name.as_str();
    for result in run.results.as_deref().unwrap_or_default() {
        let rule = find_rule(run, result);
        let Some(severity) = severity(result, rule)? else { continue };
        if result.baseline_state.as_deref() == Some("absent") {
            continue;
        }
        if is_suppressed(result) {
            parsed.suppressed += 1;
            continue;
        }
        let id =
            result.rule_id.as_deref().or_else(|| result.rule.as_ref()?.id.as_deref()).or(rule.map(|r| r.id.as_str()));
        let finding = Finding::new(severity, tool, &message_text(&result.message, rule))
            .rule(id)
            .url(rule.and_then(|rule| rule.help_uri.as_deref()));
        parsed.add(located(finding, run, &result.locations, place));
    }
    for invocation in &run.invocations {
        if invocation.execution_successful == Some(false) {
            parsed
                .tool_failure
                .get_or_insert_with(|| format!("{} says that it did not succeed", text::clean(tool, 80)));
        }
        let notifications =
            invocation.tool_execution_notifications.iter().chain(&invocation.tool_configuration_notifications);
        // A scanner reports there the files that it could not parse, and so did not scan.
        for notification in notifications.filter(|notification| notification.level.as_deref() == Some("error")) {
            let finding = Finding::new(Severity::Error, tool, &message_text(&notification.message, None))
                .rule(notification.descriptor.as_ref().and_then(|descriptor| descriptor.id.as_deref()));
            parsed.add(located(finding, run, &notification.locations, place));
        }
    }
    Ok(())
}

fn find_rule<'a>(run: &'a Run, result: &SarifResult) -> Option<&'a Rule> {
    let at = |index: i64| usize::try_from(index).ok();
    let reference = result.rule.as_ref();
    let extension = reference.and_then(|reference| reference.tool_component.as_ref()?.index).and_then(at);
    let component = match extension {
        Some(index) => run.tool.extensions.get(index)?,
        None => &run.tool.driver,
    };
    let index = result.rule_index.or_else(|| reference?.index).and_then(at);
    if let Some(rule) = index.and_then(|index| component.rules.get(index)) {
        return Some(rule);
    }
    let id = result.rule_id.as_deref().or_else(|| reference?.id.as_deref())?;
    // A result may name a rule by a longer, hierarchical id.
    let named =
        |rule: &&Rule| id == rule.id || id.strip_prefix(rule.id.as_str()).is_some_and(|rest| rest.starts_with('/'));
    run.tool.extensions.iter().chain([&run.tool.driver]).flat_map(|component| &component.rules).find(named)
}

/// `None` for a result that is no problem. Section 3.27.10 gives the order.
fn severity(result: &SarifResult, rule: Option<&Rule>) -> Result<Option<Severity>, ReportError> {
    match result.kind.as_deref() {
        None | Some("fail") => {}
        Some("pass" | "notApplicable") => return Ok(None),
        Some("informational") => return Ok(Some(Severity::Note)),
        // Somebody has to look at it.
        Some("open" | "review") => return Ok(Some(Severity::Warning)),
        Some(other) => return Err(ReportError::unparsable(Format::Sarif, format_args!("unknown kind {other:?}"))),
    }
    let of_rule = rule.and_then(|rule| rule.default_configuration.as_ref()?.level.as_deref());
    match result.level.as_deref().or(of_rule).unwrap_or("warning") {
        "error" => Ok(Some(Severity::Error)),
        "warning" => Ok(Some(Severity::Warning)),
        "note" | "none" => Ok(Some(Severity::Note)),
        other => Err(ReportError::unparsable(Format::Sarif, format_args!("unknown level {other:?}"))),
    }
}

/// Section 3.27.23: suppressed if there is a suppression and none is under review or rejected.
fn is_suppressed(result: &SarifResult) -> bool {
    let suppressions = result.suppressions.as_deref().unwrap_or_default();
    let accepted = |suppression: &Suppression| matches!(suppression.status.as_deref(), None | Some("accepted"));
    !suppressions.is_empty() && suppressions.iter().all(accepted)
}

fn message_text(message: &Message, rule: Option<&Rule>) -> String {
    let of_rule = || {
        let strings = rule?.message_strings.as_ref()?;
        strings.get(message.id.as_deref()?)?.text.clone()
    };
    let described = || rule?.short_description.as_ref()?.text.clone();
    let text = message.text.clone().or_else(|| message.markdown.clone()).or_else(of_rule).or_else(described);
    let text = text.unwrap_or_else(|| "(no message)".to_owned());
    message
        .arguments
        .iter()
        .take(20)
        .enumerate()
        .fold(text, |text, (at, argument)| text.replace(&format!("{{{at}}}"), argument.get(..500).unwrap_or(argument)))
}

fn located(finding: Finding, run: &Run, locations: &[Location], place: &Place<'_>) -> Finding {
    let Some(physical) = locations.iter().find_map(|location| location.physical_location.as_ref()) else {
        return finding;
    };
    let file = physical.artifact_location.as_ref().and_then(|location| uri(run, location)).unwrap_or_default();
    let region = physical.region.as_ref();
    finding
        .at(
            place.locate_uri(&file),
            region.and_then(|region| region.start_line),
            region.and_then(|region| region.start_column),
        )
        .until(region.and_then(|region| region.end_line))
}

fn uri(run: &Run, location: &ArtifactLocation) -> Option<String> {
    let listed = || {
        let index = usize::try_from(location.index?).ok()?;
        run.artifacts.as_ref()?.get(index)?.location.as_ref()
    };
    let location = if location.uri.is_some() { location } else { listed()? };
    let uri = location.uri.clone()?;
    let bases = run.original_uri_base_ids.as_ref().map(|bases| &bases.0);
    let base = location.uri_base_id.as_ref().and_then(|id| bases?.get(id)?.uri.clone());
    match base {
        Some(base) if !uri.contains("://") && !uri.starts_with('/') => {
            Some(format!("{}/{uri}", base.trim_end_matches('/')))
        }
        _ => Some(uri),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Parsed, ReportError> {
        read(text, &Place::new("/w", ["src/a.py"].into_iter()))
    }

    fn run(results: &str) -> String {
        format!(
            r#"{{"version": "2.1.0", "runs": [{{"tool": {{"driver": {{"name": "scan", "rules": [
                {{"id": "r0", "helpUri": "https://x/r0", "defaultConfiguration": {{"level": "error"}}, "messageStrings": {{"m": {{"text": "bad {{0}}"}}}}}},
                {{"id": "r1"}}]}}}},
                "originalUriBaseIds": {{"SRC": {{"uri": "file:///ci/w/"}}}},
                "artifacts": [{{"location": {{"uri": "src/a.py"}}}}],
                "results": {results}}}]}}"#
        )
    }

    #[test]
    fn the_level_comes_from_the_result_then_the_rule_then_the_standard() {
        let report = run(r#"[
            {"ruleIndex": 0, "message": {"id": "m", "arguments": ["x"]}, "locations": [{"physicalLocation": {"artifactLocation": {"uri": "src/a.py", "uriBaseId": "SRC"}, "region": {"startLine": 3, "startColumn": 2, "endLine": 4}}}]},
            {"ruleId": "r0", "level": "note", "message": {"text": "b"}, "locations": [{"physicalLocation": {"artifactLocation": {"index": 0}}}]},
            {"ruleId": "r0/sub", "message": {"text": "c"}},
            {"ruleId": "r1", "message": {"text": "d"}}]"#);
        let parsed = parsed(&report).unwrap();
        let severities: Vec<_> = parsed.findings.iter().map(|f| (f.message.as_str(), f.severity)).collect();
        assert_eq!(
            severities,
            [("bad x", Severity::Error), ("b", Severity::Note), ("c", Severity::Error), ("d", Severity::Warning)]
        );
        let first = &parsed.findings[0];
        assert_eq!(
            (first.file.as_str(), first.line, first.column, first.end_line),
            ("src/a.py", Some(3), Some(2), Some(4))
        );
        assert_eq!((first.rule.as_deref(), first.url.as_deref()), (Some("r0"), Some("https://x/r0")));
        assert_eq!(parsed.findings[1].file, "src/a.py");
    }

    #[test]
    fn suppressed_passed_and_absent_results_are_not_findings_and_rejected_suppressions_do_not_count() {
        let report = run(r#"[
            {"message": {"text": "a"}, "suppressions": [{"kind": "inSource"}]},
            {"message": {"text": "b"}, "suppressions": [{"kind": "external", "status": "underReview"}]},
            {"message": {"text": "c"}, "suppressions": []},
            {"message": {"text": "d"}, "kind": "pass"},
            {"message": {"text": "e"}, "baselineState": "absent"},
            {"message": {"text": "f"}, "baselineState": "unchanged"},
            {"message": {"text": "g"}, "kind": "review", "level": "none"}]"#);
        let parsed = parsed(&report).unwrap();
        assert_eq!(parsed.findings.iter().map(|f| f.message.as_str()).collect::<Vec<_>>(), ["b", "c", "f", "g"]);
        assert_eq!(parsed.suppressed, 1);
    }

    #[test]
    fn a_run_that_did_not_scan_checked_nothing() {
        assert_eq!(parsed(r#"{"version": "2.1.0", "runs": []}"#).unwrap().checked, Some(0));
        let without_results = r#"{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}}]}"#;
        assert_eq!(parsed(without_results).unwrap().checked, Some(0));
        assert_eq!(parsed(&run("[]")).unwrap().checked, None);
    }

    #[test]
    fn a_failed_execution_and_its_notifications_are_reported() {
        let report = r#"{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": [], "invocations": [
            {"executionSuccessful": false, "toolExecutionNotifications": [{"level": "error", "message": {"text": "cannot parse"}, "descriptor": {"id": "E1"},
             "locations": [{"physicalLocation": {"artifactLocation": {"uri": "file:///w/src/a.py"}}}]}, {"level": "note", "message": {"text": "n"}}]}]}]}"#;
        let parsed = parsed(report).unwrap();
        assert!(parsed.tool_failure.is_some());
        assert_eq!((parsed.found.error, parsed.found.total()), (1, 1));
        assert_eq!(parsed.findings[0].file, "src/a.py");
    }

    #[test]
    fn other_versions_other_files_and_unknown_levels_are_refused() {
        for text in [
            r#"{"version": "1.0.0", "runs": []}"#.to_owned(),
            r#"{"version": "2.1.0"}"#.to_owned(),
            r#"{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "externalPropertyFileReferences": {"results": [{}]}}]}"#.to_owned(),
            run(r#"[{"message": {"text": "a"}, "level": "fine"}]"#),
            run(r#"[{"message": {"text": "a"}, "kind": "fine"}]"#),
            run(r#"[{"message": {"text": "a"}, "level": "error", "level": "none"}]"#),
        ] {
            assert_eq!(parsed(&text).unwrap_err().code, "report_unparsable", "{text}");
        }
    }
}
