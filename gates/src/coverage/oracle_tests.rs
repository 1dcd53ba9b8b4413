//! Compares with `istanbul-lib-coverage` on real reports: each line that it calls uncovered, we call uncovered.

use std::collections::BTreeMap;

use super::lines::{LineKind, classify};
use super::*;

const SOURCES: [(&str, &str); 6] = [
    ("src/tricky.ts", include_str!("oracle/src/tricky.ts")),
    ("src/regex.ts", include_str!("oracle/src/regex.ts")),
    ("src/view.jsx", include_str!("oracle/src/view.jsx")),
    ("src/plain.js", include_str!("oracle/src/plain.js")),
    ("src/types.ts", include_str!("oracle/src/types.ts")),
    ("src/h.js", include_str!("oracle/src/h.js")),
];

/// The tool, and its report in each format.
const REPORTS: [(&str, [&str; 3]); 3] = [
    (
        "istanbul",
        [
            include_str!("oracle/istanbul-coverage-final.json"),
            include_str!("oracle/istanbul-lcov.info"),
            include_str!("oracle/istanbul-cobertura-coverage.xml"),
        ],
    ),
    (
        "v8",
        [
            include_str!("oracle/v8-coverage-final.json"),
            include_str!("oracle/v8-lcov.info"),
            include_str!("oracle/v8-cobertura-coverage.xml"),
        ],
    ),
    (
        "c8",
        [
            include_str!("oracle/c8-coverage-final.json"),
            include_str!("oracle/c8-lcov.info"),
            include_str!("oracle/c8-cobertura-coverage.xml"),
        ],
    ),
];

fn verdicts(report: &str) -> BTreeMap<(String, u32), LineVerdict> {
    let head: Tree =
        SOURCES.iter().map(|(path, text)| ((*path).to_owned(), Content::Text(text.as_bytes().to_vec()))).collect();
    let changes = ChangeSet::between(Base::None, &head, &SourceRules::default()).unwrap();
    let (report, _) = read_report(report.as_bytes(), None).unwrap();
    let judgement = judge(&changes, &[report], &Options::default());
    assert_eq!(judgement.code, "below_threshold");
    let lines = judgement.files.into_iter().flat_map(|file| {
        file.lines.into_iter().map(move |(line, verdict)| ((file.path.clone(), line), verdict)).collect::<Vec<_>>()
    });
    lines.collect()
}

#[test]
fn each_line_that_istanbul_calls_uncovered_is_uncovered() {
    let expected: BTreeMap<String, BTreeMap<String, Vec<u32>>> =
        serde_json::from_str(include_str!("oracle/uncovered.json")).unwrap();
    let texts: BTreeMap<&str, &str> = SOURCES.into();
    let mut compared = 0;
    for (tool, reports) in REPORTS {
        for (format, report) in Format::ALL.into_iter().zip(reports) {
            let ours = verdicts(report);
            for (path, lines) in &expected[tool] {
                let kinds = classify(path, texts[path.as_str()]);
                for line in lines {
                    // V8 measures bytes, so its reports also list comments and brackets. LCOV and Cobertura do not say
                    // whether a statement starts with the bracket.
                    let whole_lines = tool != "istanbul" || format != Format::Istanbul;
                    if whole_lines && kinds.kind(*line) < LineKind::Declaration {
                        continue;
                    }
                    assert_eq!(ours[&(path.clone(), *line)], LineVerdict::Uncovered, "{tool} {format} {path}:{line}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 200, "only {compared} lines");
}

#[test]
fn every_format_of_a_run_agrees_on_the_lines_that_it_knows() {
    for (tool, reports) in REPORTS {
        let [istanbul, lcov, cobertura] = reports.map(verdicts);
        assert_eq!(lcov, cobertura, "{tool}");
        for (place, verdict) in &lcov {
            // The formats of lines take the highest hits of a line, and know nothing of the statements around it.
            if *verdict == LineVerdict::Uncovered {
                assert_eq!(istanbul[place], LineVerdict::Uncovered, "{tool} {place:?}");
            }
        }
    }
}
