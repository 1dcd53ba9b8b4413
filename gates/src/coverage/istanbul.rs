//! Reads Istanbul's `coverage-final.json`: a map from file path to `{path, statementMap, branchMap, s, b}`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::strict_json::check_keys;
use super::{Arm, Branch, CoverageError, MeasuredFile, Position, Report, Statement};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    path: Option<String>,
    statement_map: BTreeMap<Id, Range>,
    s: BTreeMap<Id, u64>,
    branch_map: Option<BTreeMap<Id, BranchEntry>>,
    b: Option<BTreeMap<Id, Vec<u64>>>,
}

/// Numbers in their order, so that the branches of two reports are compared in the order of the source.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
enum Id {
    Number(u32),
    Text(String),
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        match text.parse::<u32>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Text(text),
        }
    }
}

#[derive(Deserialize, Clone, Copy)]
struct Range {
    start: Point,
    end: Point,
}

/// An implicit `else` has neither field. Istanbul writes column null for the end of a line.
#[derive(Deserialize, Clone, Copy, Default)]
struct Point {
    #[serde(default)]
    line: Option<u32>,
    #[serde(default)]
    column: Option<u32>,
}

#[derive(Deserialize)]
struct BranchEntry {
    #[serde(rename = "type", default)]
    kind: String,
    loc: Option<Range>,
    line: Option<u32>,
    #[serde(default)]
    locations: Vec<Range>,
}

/// Reads a report. A report without files is an error, because it measures nothing.
pub fn parse(bytes: &[u8]) -> Result<Report, CoverageError> {
    let not_json = |error: serde_json::Error| unparsable(&format!("it is not Istanbul JSON: {error}"));
    check_keys(bytes).map_err(not_json)?;
    let files: BTreeMap<String, File> = serde_json::from_slice(bytes).map_err(not_json)?;
    if files.is_empty() {
        return Err(CoverageError::new("report_empty", "the coverage report lists no files"));
    }
    let mut report = Report::default();
    for (key, file) in files {
        report.lacks_branches |= file.branch_map.is_none() || file.b.is_none();
        report.files.push(measured_file(key, file)?);
    }
    Ok(report)
}

fn unparsable(why: &str) -> CoverageError {
    CoverageError::unparsable(why)
}

fn measured_file(key: String, file: File) -> Result<MeasuredFile, CoverageError> {
    let mut paths = vec![file.path.unwrap_or_else(|| key.clone())];
    let path = paths.first().cloned().unwrap_or_default();
    if key != path {
        paths.push(key);
    }
    let (branches, counts) = (file.branch_map.unwrap_or_default(), file.b.unwrap_or_default());
    // Without this check, a statement without a count would be dropped together with its lines.
    if file.s.len() != file.statement_map.len() || counts.len() != branches.len() {
        return Err(unparsable(&format!("{path}: the counts do not match the statements or branches")));
    }
    let mut statements = Vec::with_capacity(file.s.len());
    for (id, range) in &file.statement_map {
        let hits = *file.s.get(id).ok_or_else(|| unparsable(&format!("{path}: a statement has no count")))?;
        let start = range.start.position(0).ok_or_else(|| unparsable(&format!("{path}: a statement has no start")))?;
        let end = range.end.position(u32::MAX).unwrap_or(Position { line: start.line, column: u32::MAX });
        if end < start {
            return Err(unparsable(&format!("{path}: a statement ends before it starts")));
        }
        statements.push(Statement { start, end, hits });
    }
    let mut arms = Vec::new();
    for (id, branch) in &branches {
        let hits = counts.get(id).ok_or_else(|| unparsable(&format!("{path}: a branch has no counts")))?;
        if !branch.locations.is_empty() && branch.locations.len() != hits.len() {
            return Err(unparsable(&format!(
                "{path}: a branch has {} arms, but {} counts",
                branch.locations.len(),
                hits.len()
            )));
        }
        arms.extend(branch_arms(branch, hits).ok_or_else(|| unparsable(&format!("{path}: a branch has no line")))?);
    }
    Ok(MeasuredFile { paths, statements, arms })
}

fn branch_arms(entry: &BranchEntry, hits: &[u64]) -> Option<Vec<Arm>> {
    let first = entry.locations.iter().find_map(|range| range.start.position(0));
    let whole = entry.loc.and_then(|range| range.start.position(0)).or(first);
    let line = entry.line.filter(|line| *line > 0).or(whole.map(|start| start.line))?;
    let start = whole.unwrap_or(Position { line, column: 0 });
    let end = entry.loc.and_then(|range| range.end.position(u32::MAX)).unwrap_or(start);
    // Two branches can start at the same place: `a && b ? c : d`.
    let branch = Branch { start, end, kind: Branch::kind(&[&entry.kind]) };
    let line_of =
        |index: usize| entry.locations.get(index).and_then(|range| range.start.position(0)).map_or(line, |at| at.line);
    let arm = |(index, hits): (usize, &u64)| Arm {
        line: line_of(index),
        branch,
        index: u32::try_from(index).unwrap_or(u32::MAX),
        hits: *hits,
    };
    Some(hits.iter().enumerate().map(arm).collect())
}

impl Point {
    fn position(self, missing_column: u32) -> Option<Position> {
        let line = self.line.filter(|line| *line > 0)?;
        Some(Position { line, column: self.column.unwrap_or(missing_column) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_and_arms_are_read_with_their_hits() {
        let text = br#"{"/w/a.ts": {"path": "/w/a.ts",
            "statementMap": {"0": {"start": {"line": 1, "column": 0}, "end": {"line": 3, "column": null}}},
            "fnMap": {}, "f": {}, "s": {"0": 2},
            "branchMap": {"0": {"type": "if", "line": 1, "loc": {"start": {"line": 1, "column": 0}, "end": {"line": 3, "column": 1}},
                "locations": [{"start": {"line": 2, "column": 0}, "end": {"line": 2, "column": 9}}, {"start": {}, "end": {}}]}},
            "b": {"0": [2, 0]}}}"#;
        let report = parse(text).unwrap();
        let file = &report.files[0];
        assert_eq!(file.statements[0].end, Position { line: 3, column: u32::MAX });
        assert_eq!(file.statements[0].hits, 2);
        assert_eq!(file.arms.iter().map(|arm| (arm.line, arm.hits)).collect::<Vec<_>>(), [(2, 2), (1, 0)]);
    }

    #[test]
    fn a_report_without_files_is_an_error() {
        assert_eq!(parse(b"{}").unwrap_err().code, "report_empty");
    }

    #[test]
    fn a_truncated_report_or_another_shape_is_unparsable() {
        for text in ["{", "[]", "null", r#"{"a.ts": {"lines": {"1": 1}}}"#] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code, "report_unparsable", "{text}");
        }
    }

    #[test]
    fn counts_that_do_not_fit_are_unparsable() {
        let range = r#"{"start": {"line": 1, "column": 0}, "end": {"line": 1, "column": 1}}"#;
        for text in [
            format!(r#"{{"a.ts": {{"statementMap": {{"0": {range}}}, "s": {{}}}}}}"#),
            format!(r#"{{"a.ts": {{"statementMap": {{"0": {range}}}, "s": {{"1": 1}}}}}}"#),
            format!(r#"{{"a.ts": {{"statementMap": {{"0": {range}}}, "s": {{"0": -1}}}}}}"#),
            format!(r#"{{"a.ts": {{"statementMap": {{"0": {range}}}, "s": {{"0": 1.5}}}}}}"#),
            format!(r#"{{"a.ts": {{"statementMap": {{"0": {range}}}, "s": {{"0": null}}}}}}"#),
            format!(
                r#"{{"a.ts": {{"statementMap": {{}}, "s": {{}}, "branchMap": {{"0": {{"loc": {range}, "locations": [{range}, {range}]}}}}, "b": {{"0": [1]}}}}}}"#
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code, "report_unparsable", "{text}");
        }
    }
}
