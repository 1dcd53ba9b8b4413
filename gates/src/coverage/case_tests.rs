//! Cases as data: `cases/*.txt`. Each runs with every report format, and with a diff and with a base tree.
//!
//! A case starts with `== name` and options. `-- path` starts a file. Each line of a file is `VERDICT MEASURED|text`:
//!
//! - the verdict is `+` covered, `-` uncovered, `?` unmeasured, `_` not executable, `.` not changed. A second one is for the
//!   formats that know only lines;
//! - measured are the statements that start here: their hits, with `~n` if they go on for n lines, and the arms that
//!   start here as `^hits`.
//!
//! `absent` after a path leaves the file out of the report. Options: `strict`, `threshold=`, `floor=`, `istanbul` (that
//! format alone), and the expected code.

#![expect(clippy::format_push_string, clippy::format_collect, reason = "the texts are small")]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

const CASES: [(&str, &str); 7] = [
    ("rules", include_str!("cases/rules.txt")),
    ("lexer", include_str!("cases/lexer.txt")),
    ("declarations", include_str!("cases/declarations.txt")),
    ("ignores", include_str!("cases/ignores.txt")),
    ("strict", include_str!("cases/strict.txt")),
    ("ratios", include_str!("cases/ratios.txt")),
    ("languages", include_str!("cases/languages.txt")),
];

#[derive(Debug, Default)]
struct Case {
    name: String,
    options: Vec<String>,
    files: Vec<CaseFile>,
}

#[derive(Debug, Default)]
struct CaseFile {
    path: String,
    absent: bool,
    lines: Vec<CaseLine>,
}

#[derive(Debug)]
struct CaseLine {
    /// For Istanbul, and for the formats that know only lines.
    verdicts: (char, char),
    statements: Vec<(u64, u32)>,
    arms: Vec<u64>,
    text: String,
}

fn parse_cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        if let Some(title) = line.strip_prefix("== ") {
            let (name, options) = title.split_once(" : ").unwrap_or((title, ""));
            let options = options.split_whitespace().map(str::to_owned).collect();
            cases.push(Case { name: name.to_owned(), options, files: Vec::new() });
        } else if let Some(path) = line.strip_prefix("-- ") {
            let (path, absent) = path.strip_suffix(" absent").map_or((path, false), |path| (path, true));
            cases.last_mut().unwrap().files.push(CaseFile { path: path.to_owned(), absent, lines: Vec::new() });
        } else {
            let line = parse_line(line);
            cases.last_mut().unwrap().files.last_mut().unwrap().lines.push(line);
        }
    }
    cases
}

fn parse_line(line: &str) -> CaseLine {
    let (head, text) = line.split_once('|').unwrap_or_else(|| panic!("no | in {line:?}"));
    let mut words = head.split_whitespace();
    let mut verdicts = words.next().unwrap().chars();
    let first = verdicts.next().unwrap();
    assert!("+-?_.".contains(first), "{line}");
    let (mut statements, mut arms) = (Vec::new(), Vec::new());
    for word in words {
        if let Some(hits) = word.strip_prefix('^') {
            arms.push(hits.parse().unwrap());
        } else {
            let (hits, length) = word.split_once('~').unwrap_or((word, "1"));
            statements.push((hits.parse().unwrap(), length.parse().unwrap()));
        }
    }
    CaseLine { verdicts: (first, verdicts.next().unwrap_or(first)), statements, arms, text: text.to_owned() }
}

impl CaseFile {
    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{}\n", line.text.replace("\\r", "\r").replace("\\0", "\0"))).collect()
    }

    /// The text without the changed lines.
    fn base_text(&self) -> String {
        self.lines.iter().filter(|line| line.verdicts.0 == '.').map(|line| format!("{}\n", line.text)).collect()
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, &CaseLine)> {
        (1_u32..).zip(&self.lines)
    }

    /// One hunk for each changed line.
    fn diff(&self) -> String {
        let mut diff = format!("diff --git a/{0} b/{0}\n--- a/{0}\n+++ b/{0}\n", self.path);
        let mut old = 0;
        let mut changed = false;
        for (number, line) in self.numbered() {
            if line.verdicts.0 == '.' {
                old += 1;
            } else {
                changed = true;
                let text = self.text();
                let text = text.split_inclusive('\n').nth(number as usize - 1).unwrap();
                diff.push_str(&format!("@@ -{old},0 +{number} @@\n+{text}"));
            }
        }
        if changed { diff } else { String::new() }
    }

    fn istanbul(&self) -> serde_json::Value {
        let (mut map, mut s, mut branches, mut b) = (json!({}), json!({}), json!({}), json!({}));
        for (number, line) in self.numbered() {
            let column = line.text.len() - line.text.trim_start().len();
            for (nth, (hits, length)) in line.statements.iter().enumerate() {
                let id = s.as_object().unwrap().len().to_string();
                let end = json!({"line": number + length - 1, "column": 200});
                map[&id] = json!({"start": {"line": number, "column": column + nth}, "end": end});
                s[&id] = json!(hits);
            }
            if !line.arms.is_empty() {
                let id = b.as_object().unwrap().len().to_string();
                let place =
                    json!({"start": {"line": number, "column": column}, "end": {"line": number, "column": 200}});
                let locations = vec![place.clone(); line.arms.len()];
                branches[&id] = json!({"type": "if", "line": number, "loc": place, "locations": locations});
                b[&id] = json!(line.arms);
            }
        }
        json!({"path": format!("/ci/build/{}", self.path), "statementMap": map, "s": s, "branchMap": branches, "b": b, "fnMap": {}, "f": {}})
    }

    fn lcov(&self) -> String {
        let mut text = format!("TN:\nSF:{}\n", self.path);
        for (number, line) in self.numbered() {
            if let Some(hits) = line.statements.iter().map(|(hits, _)| hits).min() {
                text.push_str(&format!("DA:{number},{hits}\n"));
            }
            for (index, hits) in line.arms.iter().enumerate() {
                text.push_str(&format!("BRDA:{number},0,{index},{hits}\n"));
            }
        }
        text + "end_of_record\n"
    }

    fn cobertura(&self) -> String {
        let mut lines = String::new();
        for (number, line) in self.numbered() {
            let conditions = match line.arms.len() {
                0 => String::new(),
                all => {
                    let ran = line.arms.iter().filter(|hits| **hits > 0).count();
                    format!(" branch=\"true\" condition-coverage=\"{}% ({ran}/{all})\"", 100 * ran / all)
                }
            };
            if let Some(hits) = line.statements.iter().map(|(hits, _)| hits).min() {
                lines.push_str(&format!("<line number=\"{number}\" hits=\"{hits}\"{conditions}/>"));
            }
        }
        format!("<class name=\"x\" filename=\"{}\"><methods/><lines>{lines}</lines></class>", self.path)
    }
}

impl Case {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|known| known == option)
    }

    fn value(&self, option: &str) -> Option<Threshold> {
        let prefix = format!("{option}=");
        self.options.iter().find_map(|known| known.strip_prefix(&prefix)).map(|text| text.parse().unwrap())
    }

    fn report(&self, format: Format) -> String {
        let files = self.files.iter().filter(|file| !file.absent);
        match format {
            Format::Istanbul => json!(
                files.map(|file| (format!("/ci/build/{}", file.path), file.istanbul())).collect::<BTreeMap<_, _>>()
            )
            .to_string(),
            Format::Lcov => files.map(CaseFile::lcov).collect(),
            Format::Cobertura => format!(
                "<?xml version=\"1.0\"?><coverage><sources><source>/ci/build</source></sources><packages><package name=\"p\"><classes>{}</classes></package></packages></coverage>",
                files.map(CaseFile::cobertura).collect::<String>()
            ),
        }
    }

    fn judge(&self, format: Format, by_diff: bool) -> Judgement {
        let tree = |text: fn(&CaseFile) -> String| -> Tree {
            self.files.iter().map(|file| (file.path.clone(), Content::Text(text(file).into_bytes()))).collect()
        };
        let (head, base) = (tree(CaseFile::text), tree(CaseFile::base_text));
        let diff: String = self.files.iter().map(CaseFile::diff).collect();
        let base = if by_diff { Base::Diff(diff.as_bytes()) } else { Base::Tree(&base) };
        let changes = ChangeSet::between(base, &head, &SourceRules::of_every_language()).unwrap();
        let options = Options {
            threshold: self.value("threshold").unwrap_or_default(),
            file_floor: self.value("floor"),
            strict_arms: self.has("strict"),
            roots: Vec::new(),
        };
        match read_report(self.report(format).as_bytes(), Some(format)) {
            Ok((report, _)) => judge(&changes, &[report], &options),
            Err(error) => Judgement::unjudged(error, options.threshold),
        }
    }

    /// What differs from the expectation.
    fn check(&self, format: Format, by_diff: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let judgement = self.judge(format, by_diff);
        for file in &self.files {
            let found = judgement.files.iter().find(|found| found.path == file.path);
            let found: BTreeMap<u32, char> =
                found.iter().flat_map(|found| &found.lines).map(|(line, verdict)| (*line, letter(*verdict))).collect();
            for (number, line) in file.numbered() {
                let expected = if format == Format::Istanbul { line.verdicts.0 } else { line.verdicts.1 };
                let actual = found.get(&number).copied().unwrap_or('.');
                if actual != expected {
                    let place = format!("{} ({format}, diff {by_diff}): {} line {number}", self.name, file.path);
                    wrong.push(format!("{place}: {actual} instead of {expected}: {}", line.text));
                }
            }
        }
        let is_code = |option: &&String| !option.contains('=') && !["strict", "istanbul"].contains(&option.as_str());
        if let Some(code) = self.options.iter().find(is_code)
            && judgement.code != code
        {
            wrong.push(format!("{} ({format}): {} instead of {code}", self.name, judgement.code));
        }
        let counted = judgement.covered + judgement.uncovered + judgement.unmeasured;
        assert_eq!(judgement.ratio.is_none(), counted == 0, "{}", self.name);
        wrong
    }
}

fn letter(verdict: LineVerdict) -> char {
    match verdict {
        LineVerdict::Covered => '+',
        LineVerdict::Uncovered => '-',
        LineVerdict::Unmeasured => '?',
        LineVerdict::NonExecutable => '_',
    }
}

#[test]
fn every_case_has_its_verdicts_in_every_format() {
    let mut checked = 0;
    let mut wrong = Vec::new();
    for (_, text) in CASES {
        for case in parse_cases(text) {
            for format in Format::ALL.into_iter().filter(|format| *format == Format::Istanbul || !case.has("istanbul"))
            {
                for by_diff in [true, false] {
                    wrong.extend(case.check(format, by_diff));
                    checked += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 500, "only {checked} cases");
}

/// Whoever takes hits or measurements away never gets a better verdict.
#[test]
fn fewer_hits_and_fewer_measurements_never_improve_a_case() {
    for (_, text) in CASES {
        for case in parse_cases(text) {
            let before = case.judge(Format::Istanbul, true);
            for (file, line) in
                (0..case.files.len()).flat_map(|file| (0..case.files[file].lines.len()).map(move |line| (file, line)))
            {
                let mut fewer = parse_cases(text).into_iter().find(|other| other.name == case.name).unwrap();
                let taken = &mut fewer.files[file].lines[line];
                taken.statements.iter_mut().for_each(|(hits, _)| *hits = 0);
                taken.arms.iter_mut().for_each(|hits| *hits = 0);
                let after = fewer.judge(Format::Istanbul, true);
                assert!(after.covered <= before.covered, "{}: line {line} without hits", case.name);
                assert!(
                    before.verdict == Verdict::Passed || after.verdict != Verdict::Passed,
                    "{}: line {line}",
                    case.name
                );
                fewer.files[file].absent = true;
                let after = fewer.judge(Format::Istanbul, true);
                assert!(after.covered <= before.covered, "{}: without {}", case.name, case.files[file].path);
                assert!(before.verdict == Verdict::Passed || after.verdict != Verdict::Passed, "{}", case.name);
            }
        }
    }
}
