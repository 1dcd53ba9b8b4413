use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::coverage::{Base, Content, Format, SourceRules, Tree, read_report};

/// Sources of a workspace in which every line is changed.
fn changes(files: &[(&str, &str)]) -> ChangeSet {
    let head: Tree =
        files.iter().map(|(path, text)| ((*path).to_string(), Content::Text(text.as_bytes().to_vec()))).collect();
    ChangeSet::between(Base::None, &head, &SourceRules::default()).unwrap()
}

/// Statements as (first line, last line, hits).
fn report(path: &str, statements: &[(u32, u32, u64)]) -> Report {
    let statement = |(first, last, hits): &(u32, u32, u64)| Statement {
        start: Position { line: *first, column: 0 },
        end: Position { line: *last, column: 9 },
        hits: *hits,
    };
    Report {
        files: vec![MeasuredFile {
            paths: vec![path.into()],
            statements: statements.iter().map(statement).collect(),
            arms: Vec::new(),
        }],
        ..Report::default()
    }
}

fn istanbul(report: &serde_json::Value) -> Report {
    read_report(report.to_string().as_bytes(), Some(Format::Istanbul)).unwrap().0
}

fn options(threshold: &str) -> Options {
    Options { threshold: threshold.parse().unwrap(), ..Options::default() }
}

fn counts(judgement: &Judgement) -> (u64, u64, u64, u64) {
    (judgement.covered, judgement.uncovered, judgement.unmeasured, judgement.non_executable)
}

#[test]
fn changed_lines_at_zero_hits_fail() {
    let judgement =
        judge(&changes(&[("a.ts", "f();\ng();\n")]), &[report("a.ts", &[(1, 1, 0), (2, 2, 0)])], &options("0.9"));
    assert_eq!((judgement.verdict, judgement.code), (Verdict::Failed, "below_threshold"));
    assert_eq!(judgement.files[0].lines_with(LineVerdict::Uncovered).collect::<Vec<_>>(), [1, 2]);
    assert!(judgement.reason.contains("a.ts lines 1, 2 never ran"), "{}", judgement.reason);
}

#[test]
fn a_file_absent_from_the_report_counts_as_uncovered() {
    let set = changes(&[("a.ts", "f();\n"), ("b.ts", "g();\n// c\n")]);
    let judgement = judge(&set, &[report("a.ts", &[(1, 1, 1)])], &options("0.9"));
    assert_eq!(counts(&judgement), (1, 0, 1, 1));
    assert_eq!(judgement.verdict, Verdict::Failed);
    assert_eq!(judgement.ratio, Some(0.5));
}

#[test]
fn a_change_without_executable_lines_passes_without_a_ratio() {
    let judgement = judge(&changes(&[("a.ts", "// a\n\n}\n")]), &[report("a.ts", &[])], &options("0.9"));
    assert_eq!((judgement.verdict, judgement.code, judgement.ratio), (Verdict::Passed, "no_executable_change", None));
    let same: Tree = [("a.ts".to_string(), Content::Text(b"f();\n".to_vec()))].into();
    let set = ChangeSet::between(Base::Tree(&same), &same, &SourceRules::default()).unwrap();
    let judgement = judge(&set, &[report("a.ts", &[(1, 1, 0)])], &options("0.9"));
    assert_eq!((judgement.verdict, judgement.code, judgement.ratio), (Verdict::Passed, "empty_diff", None));
}

#[test]
fn an_empty_diff_without_a_report_still_cannot_be_judged() {
    let same: Tree = [("a.ts".to_string(), Content::Text(b"f();\n".to_vec()))].into();
    let set = ChangeSet::between(Base::Tree(&same), &same, &SourceRules::default()).unwrap();
    assert_eq!(judge(&set, &[], &options("0.9")).code, "report_missing");
}

#[test]
fn a_report_about_other_files_cannot_judge() {
    let judgement = judge(&changes(&[("src/a.ts", "f();\n")]), &[report("/ci/lib/b.ts", &[(1, 1, 1)])], &options("0"));
    assert_eq!((judgement.verdict, judgement.code), (Verdict::CannotJudge, "no_path_matches"));
}

#[test]
fn a_path_that_matches_two_sources_or_two_paths_that_match_one_are_ambiguous() {
    let set = changes(&[("p/src/a.ts", "f();\n"), ("q/src/a.ts", "f();\n")]);
    assert_eq!(judge(&set, &[report("src/a.ts", &[(1, 1, 1)])], &options("0")).code, "ambiguous_path");
    let mut twice = report("/x/src/a.ts", &[(1, 1, 1)]);
    twice.files.extend(report("/y/src/a.ts", &[(1, 1, 1)]).files);
    assert_eq!(judge(&changes(&[("src/a.ts", "f();\n")]), &[twice], &options("0")).code, "ambiguous_path");
}

#[test]
fn a_line_inside_nested_statements_counts_for_the_innermost() {
    let text = "const a = f(\n  1,\n  () => {\n    g(\n      2,\n    );\n  },\n);\n";
    let judgement = judge(&changes(&[("a.ts", text)]), &[report("a.ts", &[(1, 8, 1), (4, 6, 0)])], &options("0.9"));
    // Lines 1 to 3 belong to the outer statement, which ran, 4 and 5 to the inner one, which did not. The rest is
    // brackets.
    assert_eq!(counts(&judgement), (3, 2, 0, 3));
    assert_eq!(judgement.files[0].lines_with(LineVerdict::Uncovered).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn a_line_is_covered_only_if_all_its_statements_ran() {
    let judgement = judge(
        &changes(&[("a.ts", "if (a) { f() } else { g() }\n")]),
        &[report("a.ts", &[(1, 1, 5), (1, 1, 5), (1, 1, 0)])],
        &options("0.9"),
    );
    assert_eq!(counts(&judgement), (0, 1, 0, 0));
}

#[test]
fn code_outside_every_statement_is_not_executable() {
    let judgement = judge(
        &changes(&[("a.ts", "interface A {\n  b: string;\n}\nf();\n")]),
        &[report("a.ts", &[(4, 4, 1)])],
        &options("1"),
    );
    assert_eq!((counts(&judgement), judgement.verdict), ((1, 0, 0, 3), Verdict::Passed));
}

#[test]
fn a_statement_that_the_lexer_calls_a_comment_still_needs_coverage() {
    let text = "<p>/* x</p>;\nf();\n<p>*/</p>;\n";
    let judgement =
        judge(&changes(&[("a.tsx", text)]), &[report("a.tsx", &[(1, 1, 1), (2, 2, 0), (3, 3, 1)])], &options("1"));
    assert_eq!(judgement.files[0].lines_with(LineVerdict::Uncovered).collect::<Vec<_>>(), [2]);
}

#[test]
fn hits_of_several_reports_add_up() {
    let set = changes(&[("a.ts", "f();\ng();\n"), ("b.ts", "h();\n")]);
    let first = report("/x/a.ts", &[(1, 1, 1), (2, 2, 0)]);
    let mut second = report("/y/a.ts", &[(1, 1, 0), (2, 2, 1)]);
    second.files.extend(report("/y/b.ts", &[(1, 1, 1)]).files);
    let judgement = judge(&set, &[first, second], &options("1"));
    assert_eq!((counts(&judgement), judgement.verdict), ((3, 0, 0, 0), Verdict::Passed));
}

#[test]
fn nine_of_ten_lines_reach_ninety_percent() {
    let text = "f();\n".repeat(10);
    let hits = |missed: u32| (1..=10).map(|line| (line, line, u64::from(line > missed))).collect::<Vec<_>>();
    assert_eq!(
        judge(&changes(&[("a.ts", &text)]), &[report("a.ts", &hits(1))], &options("0.90")).verdict,
        Verdict::Passed
    );
    assert_eq!(
        judge(&changes(&[("a.ts", &text)]), &[report("a.ts", &hits(2))], &options("0.90")).verdict,
        Verdict::Failed
    );
}

#[test]
fn strict_mode_requires_every_arm_on_the_line() {
    let report = istanbul(&json!({"a.ts": {
        "statementMap": {"0": {"start": {"line": 1, "column": 0}, "end": {"line": 1, "column": 20}}}, "s": {"0": 1},
        "branchMap": {"0": {"line": 1, "loc": {"start": {"line": 1, "column": 10}, "end": {"line": 1, "column": 19}},
            "locations": [{"start": {"line": 1, "column": 10}, "end": {"line": 1, "column": 12}},
                          {"start": {"line": 1, "column": 15}, "end": {"line": 1, "column": 19}}]}}, "b": {"0": [1, 0]},
    }}));
    let set = changes(&[("a.ts", "const a = b ? c : d;\n")]);
    assert_eq!(judge(&set, std::slice::from_ref(&report), &options("1")).verdict, Verdict::Passed);
    let strict = Options { strict_arms: true, ..options("1") };
    assert_eq!(judge(&set, &[report], &strict).verdict, Verdict::Failed);
}

#[test]
fn a_file_with_unusual_line_breaks_is_unmeasured() {
    let judgement =
        judge(&changes(&[("a.ts", "f();\rg();\n")]), &[report("a.ts", &[(1, 1, 1), (2, 2, 0)])], &options("0.5"));
    assert_eq!(counts(&judgement), (0, 0, 1, 0));
}

#[test]
fn a_file_with_nul_bytes_is_unmeasured_whatever_the_report_says() {
    let set = changes(&[("a.ts", "f();\n"), ("b.ts", "g('\0');\n")]);
    let judgement = judge(&set, &[report("a.ts", &[(1, 1, 1)])], &options("1"));
    assert_eq!((counts(&judgement), judgement.verdict), ((1, 0, 1, 0), Verdict::Failed));
    let mut both = report("a.ts", &[(1, 1, 1)]);
    both.files.extend(report("b.ts", &[(1, 1, 1)]).files);
    assert_eq!(counts(&judge(&set, &[both], &options("1"))), (1, 0, 1, 0));
}

#[test]
fn a_huge_line_range_is_cheap() {
    let judgement =
        judge(&changes(&[("a.ts", "f(\n  1,\n);\n")]), &[report("a.ts", &[(1, u32::MAX, 1)])], &options("1"));
    assert_eq!(counts(&judgement), (2, 0, 0, 1));
}

proptest! {
    /// The sweep gives the same result as comparing every line with every statement.
    #[test]
    fn the_sweep_finds_the_innermost_statement(
        ranges in proptest::collection::vec((1_u32..12, 0_u32..6, any::<bool>()), 0..12)
    ) {
        let statements: Vec<Statement> = ranges.iter().zip(0_u32..).map(|((first, length, ran), column)| Statement {
            start: Position { line: *first, column },
            end: Position { line: first + length, column: 100 + column },
            hits: u64::from(*ran),
        }).collect();
        let lines: Vec<u32> = (1..20).collect();
        let swept = innermost(&statements, &lines);
        for line in lines {
            let enclosing = statements.iter().filter(|s| s.start.line < line && s.end.line >= line);
            let expected = enclosing.max_by_key(|s| (s.start, Reverse(s.end))).map(|s| s.hits > 0);
            prop_assert_eq!(swept.get(&line).copied(), expected);
        }
    }

    /// Fewer hits never improve the verdict, and every changed line is counted once.
    #[test]
    fn fewer_hits_never_improve_the_verdict(hits in proptest::collection::vec(0_u64..2, 1..10), missed in 0_usize..10) {
        let set = changes(&[("a.ts", &"f();\n".repeat(hits.len()))]);
        let statements = |hits: &[u64]| (1_u32..).zip(hits).map(|(line, hits)| (line, line, *hits)).collect::<Vec<_>>();
        let before = judge(&set, &[report("a.ts", &statements(&hits))], &options("0.5"));
        let mut fewer = hits.clone();
        if let Some(hit) = fewer.get_mut(missed) {
            *hit = 0;
        }
        let after = judge(&set, &[report("a.ts", &statements(&fewer))], &options("0.5"));
        prop_assert!(after.covered <= before.covered);
        prop_assert!(!(before.verdict == Verdict::Failed && after.verdict == Verdict::Passed));
        prop_assert_eq!(before.covered + before.uncovered + before.unmeasured + before.non_executable, hits.len() as u64);
    }
}
