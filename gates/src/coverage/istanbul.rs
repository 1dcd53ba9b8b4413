//! Reads Istanbul's `coverage-final.json`: a map from file path to `{path, statementMap, branchMap, s, b}`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Arm, CoverageError, MeasuredFile, Position, Report, Statement};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    path: Option<String>,
    statement_map: BTreeMap<String, Range>,
    s: BTreeMap<String, u64>,
    #[serde(default)]
    branch_map: BTreeMap<String, Branch>,
    #[serde(default)]
    b: BTreeMap<String, Vec<u64>>,
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
struct Branch {
    loc: Option<Range>,
    line: Option<u32>,
    #[serde(default)]
    locations: Vec<Range>,
}

/// Reads a report. A report without files is an error, because it measures nothing.
pub fn parse(bytes: &[u8]) -> Result<Report, CoverageError> {
    let files: BTreeMap<String, File> =
        serde_json::from_slice(bytes).map_err(|error| unparsable(&format!("it is not Istanbul JSON: {error}")))?;
    if files.is_empty() {
        return Err(CoverageError::new("report_empty", "the coverage report lists no files"));
    }
    let files = files.into_iter().map(|(key, file)| measured_file(key, file)).collect::<Result<_, _>>()?;
    Ok(Report { files })
}

fn unparsable(why: &str) -> CoverageError {
    CoverageError::new("report_unparsable", format!("the coverage report cannot be read: {why}"))
}

fn measured_file(key: String, file: File) -> Result<MeasuredFile, CoverageError> {
    let path = file.path.unwrap_or(key);
    // Without this check, a statement without a count would be dropped together with its lines.
    if file.s.len() != file.statement_map.len() || file.b.len() != file.branch_map.len() {
        return Err(unparsable(&format!("{path}: the counts do not match the statements or branches")));
    }
    let mut statements = Vec::with_capacity(file.s.len());
    for (id, range) in &file.statement_map {
        let hits = *file.s.get(id).ok_or_else(|| unparsable(&format!("{path}: statement {id} has no count")))?;
        let start =
            range.start.position(0).ok_or_else(|| unparsable(&format!("{path}: statement {id} has no start")))?;
        let end = range.end.position(u32::MAX).unwrap_or(Position { line: start.line, column: u32::MAX });
        if end < start {
            return Err(unparsable(&format!("{path}: statement {id} ends before it starts")));
        }
        statements.push(Statement { start, end, hits });
    }
    let mut arms = Vec::new();
    for (id, branch) in &file.branch_map {
        let hits = file.b.get(id).ok_or_else(|| unparsable(&format!("{path}: branch {id} has no counts")))?;
        arms.extend(branch_arms(branch, hits));
    }
    Ok(MeasuredFile { path, statements, arms })
}

fn branch_arms(branch: &Branch, hits: &[u64]) -> Vec<Arm> {
    let whole = branch.loc.and_then(|range| range.start.position(0));
    let line = branch.line.or(whole.map(|start| start.line)).unwrap_or(0);
    let start = whole.unwrap_or(Position { line, column: 0 });
    let line_of = |index: usize| branch.locations.get(index).and_then(|range| range.start.line).unwrap_or(start.line);
    let arm = |(index, hits): (usize, &u64)| Arm {
        line: line_of(index),
        branch: start,
        index: u32::try_from(index).unwrap_or(u32::MAX),
        hits: *hits,
    };
    hits.iter().enumerate().map(arm).collect()
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
    fn a_truncated_report_or_another_format_is_unparsable() {
        for text in ["", "{", "[]", "null", r#"{"a.ts": {"lines": {"1": 1}}}"#] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code, "report_unparsable", "{text}");
        }
    }

    #[test]
    fn a_statement_without_a_count_is_an_error() {
        let text = br#"{"a.ts": {"statementMap": {"0": {"start": {"line": 1, "column": 0}, "end": {"line": 1, "column": 1}}}, "s": {}}}"#;
        assert_eq!(parse(text).unwrap_err().code, "report_unparsable");
    }
}
