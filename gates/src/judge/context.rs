//! The source around findings and uncovered lines, as the judged tree has it.

use std::collections::BTreeMap;

use super::text::redacted;
use crate::evidence::{Evidence, Excerpt};
use crate::snapshot::Snapshot;

/// The limits on what evidence repeats of the sources.
const MAX_EXCERPTS: usize = 50;
const MAX_CHARACTERS: usize = 200;
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// Lines before and after a place.
const AROUND: u32 = 2;

/// At most 50 excerpts of 5 lines: findings first, then lines that no test ran.
pub fn excerpts(evidence: &Evidence, head: &Snapshot) -> Vec<Excerpt> {
    let mut files: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
    let mut found: Vec<Excerpt> = Vec::new();
    for (path, line) in places(evidence) {
        if found.len() >= MAX_EXCERPTS {
            break;
        }
        if found.iter().any(|excerpt| excerpt.path == path && excerpt.has(line)) {
            continue;
        }
        let lines = files.entry(path.clone()).or_insert_with(|| text(head, &path));
        let Some(lines) = lines else { continue };
        found.extend(excerpt(&path, line, lines, &found));
    }
    found.sort_by(|one, other| (&one.path, one.first_line).cmp(&(&other.path, other.first_line)));
    found
}

/// The lines around `line` that no other excerpt shows.
fn excerpt(path: &str, line: u32, lines: &[String], others: &[Excerpt]) -> Option<Excerpt> {
    let is_shown = |line: u32| others.iter().any(|other| other.path == path && other.has(line));
    let last = u32::try_from(lines.len()).unwrap_or(u32::MAX).min(line.saturating_add(AROUND));
    let first = (line.saturating_sub(AROUND).max(1)..=line).rev().take_while(|line| !is_shown(*line)).last()?;
    let shown = (first..=last).take_while(|line| !is_shown(*line));
    let shown: Vec<String> =
        shown.filter_map(|line| lines.get(usize::try_from(line - 1).ok()?)).map(|line| cut(line)).collect();
    let is_there = usize::try_from(line).is_ok_and(|line| (1..=lines.len()).contains(&line));
    is_there.then(|| Excerpt { path: path.to_owned(), first_line: first, lines: shown })
}

fn cut(line: &str) -> String {
    let end = line.char_indices().nth(MAX_CHARACTERS);
    end.map_or_else(|| line.to_owned(), |(end, _)| format!("{}…", &line[..end]))
}

/// The lines of a file without secrets. `None`: it is missing, too large or not text.
fn text(head: &Snapshot, path: &str) -> Option<Vec<String>> {
    if head.files().get(path)?.size > MAX_FILE_BYTES {
        return None;
    }
    let bytes = head.read(path).ok()??;
    if bytes.contains(&0) {
        return None;
    }
    let text = redacted(&String::from_utf8_lossy(&bytes));
    Some(text.lines().map(str::to_owned).collect())
}

fn places(evidence: &Evidence) -> Vec<(String, u32)> {
    let findings = evidence.findings.list.listed.iter();
    let mut places: Vec<_> = findings.filter_map(|finding| Some((finding.file.clone(), finding.line?))).collect();
    let files = evidence.coverage.as_ref().and_then(|coverage| coverage["files"].as_array());
    for file in files.into_iter().flatten() {
        let Some(path) = file["path"].as_str() else { continue };
        let lines = ["uncovered_lines", "unmeasured_lines"].map(|key| file[key].as_array());
        let lines = lines.into_iter().flatten().flatten().filter_map(serde_json::Value::as_u64);
        let mut lines: Vec<u32> = lines.filter_map(|line| line.try_into().ok()).collect();
        lines.sort_unstable();
        places.extend(lines.into_iter().map(|line| (path.to_owned(), line)));
    }
    places
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::evidence::{Finding, Findings, Reason, Severity};

    fn evidence(found: &[(&str, u32)], uncovered: &[u32]) -> Evidence {
        let mut evidence = Evidence::new("lint", Reason { code: "c".into(), message: "m".into() }, 1);
        let finding = |(file, line): &(&str, u32)| Finding {
            severity: Severity::Error,
            tool: "t".into(),
            file: (*file).into(),
            line: Some(*line),
            column: None,
            end_line: None,
            rule: None,
            message: "m".into(),
            url: None,
        };
        evidence.findings = Findings::of(found.iter().map(finding).collect());
        evidence.coverage = Some(json!({"files": [{"path": "a.ts", "uncovered_lines": uncovered}]}));
        evidence
    }

    fn shown(evidence: &Evidence, files: &[(&str, &str)]) -> Vec<(String, u32, usize)> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            fs::write(root.path().join(path), text).unwrap();
        }
        let head = Snapshot::take(root.path()).unwrap();
        let shown = excerpts(evidence, &head);
        shown.into_iter().map(|one| (one.path, one.first_line, one.lines.len())).collect()
    }

    #[test]
    fn excerpts_show_every_line_once() {
        let text = "x\n".repeat(30);
        let files = [("a.ts", text.as_str()), ("b.ts", "1\n2\n")];
        let all = shown(&evidence(&[("b.ts", 1), ("a.ts", 20)], &[1, 10, 11, 12, 13, 30]), &files);
        let expected =
            [("a.ts", 1, 3), ("a.ts", 8, 5), ("a.ts", 13, 3), ("a.ts", 18, 5), ("a.ts", 28, 3), ("b.ts", 1, 2)];
        assert_eq!(all, expected.map(|(path, first, count)| (path.to_owned(), first, count)));
    }

    #[test]
    fn places_outside_the_tree_and_what_is_no_text_have_no_excerpt() {
        let files = [("a.ts", "one\n"), ("b.bin", "\0\n")];
        let found =
            [("../../etc/passwd", 1), ("/etc/passwd", 1), ("b.bin", 1), ("gone.ts", 1), ("a.ts", 0), ("a.ts", 9)];
        assert_eq!(shown(&evidence(&found, &[]), &files), []);
    }

    #[test]
    fn excerpts_are_bounded_and_have_no_secrets() {
        let lines: Vec<u32> = (1..=2_000).step_by(10).collect();
        let text = "x\n".repeat(2_000);
        assert_eq!(shown(&evidence(&[], &lines), &[("a.ts", &text)]).len(), MAX_EXCERPTS);
        let root = tempfile::tempdir().unwrap();
        let key = ["ghp_", "0123456789abcdefghijABCDEFGHIJ012345"].concat();
        fs::write(root.path().join("a.ts"), format!("const key = \"{key}\";\n{}\n", "y".repeat(500))).unwrap();
        let head = Snapshot::take(root.path()).unwrap();
        let shown = excerpts(&evidence(&[("a.ts", 1)], &[]), &head);
        assert!(!shown[0].lines[0].contains(&key), "{shown:?}");
        assert_eq!(shown[0].lines[1].chars().count(), MAX_CHARACTERS + 1);
    }
}
