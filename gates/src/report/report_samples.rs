//! What each tool writes.

use super::Format;

/// A report with one error and its exit code, and a clean one, for each format.
pub fn samples() -> Vec<(Format, String, i32, String)> {
    let eslint_file = |messages: &str, errors: u32| {
        format!(
            r#"[{{"filePath":"/w/src/a.js","messages":[{messages}],"suppressedMessages":[],"errorCount":{errors},"fatalErrorCount":0,"warningCount":0}}]"#
        )
    };
    let npm = |packages: &str, total: u32| {
        format!(
            r#"{{"auditReportVersion":2,"vulnerabilities":{{{packages}}},"metadata":{{"vulnerabilities":{{"info":0,"low":0,"moderate":0,"high":{total},"critical":0,"total":{total}}},"dependencies":{{"prod":2,"dev":0,"optional":0,"peer":0,"peerOptional":0,"total":2}}}}}}"#
        )
    };
    let cargo_audit = |list: &str, count: u32| {
        format!(
            r#"{{"database":{{"advisory-count":900,"last-commit":null,"last-updated":null}},"lockfile":{{"dependency-count":12}},"settings":{{}},"vulnerabilities":{{"found":true,"count":{count},"list":[{list}]}},"warnings":{{}}}}"#
        )
    };
    let sarif = |results: &str| {
        format!(r#"{{"version":"2.1.0","runs":[{{"tool":{{"driver":{{"name":"scan"}}}},"results":[{results}]}}]}}"#)
    };
    let artifact = r#"{"reason":"compiler-artifact","package_id":"c","fresh":true}"#;
    let mut samples = vec![
        (
            Format::Junit,
            r#"<testsuites><testsuite name="s" tests="2" failures="1"><testcase classname="a.test.js" name="t"><failure message="no">at /w/a.test.js:7:1</failure></testcase><testcase name="u"/></testsuite></testsuites>"#.into(),
            1,
            r#"<testsuite name="s" tests="1"><testcase classname="a.test.js" name="t"/></testsuite>"#.into(),
        ),
        (
            Format::Sarif,
            sarif(r#"{"ruleId":"r","level":"error","message":{"text":"m"},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"src/a.js"},"region":{"startLine":7}}}]}"#),
            1,
            sarif(""),
        ),
        (
            Format::Eslint,
            eslint_file(r#"{"ruleId":"no-undef","severity":2,"message":"'x' is not defined.","line":7,"column":1,"endLine":7,"endColumn":2}"#, 1),
            1,
            eslint_file("", 0),
        ),
        (
            Format::Ruff,
            r#"[{"cell":null,"code":"F401","end_location":{"column":10,"row":7},"filename":"/w/a.py","fix":null,"location":{"column":8,"row":7},"message":"unused","noqa_row":7,"url":"https://docs.astral.sh/ruff/rules/unused-import"}]"#.into(),
            1,
            "[]".into(),
        ),
        (Format::Tsc, "src/a.ts(7,1): error TS2322: Type 'string' is not assignable.\n".into(), 2, String::new()),
        (
            Format::Cargo,
            format!(
                "{}\n{}\n",
                r#"{"reason":"compiler-message","package_id":"c","message":{"rendered":"","level":"error","message":"mismatched types","code":{"code":"E0308","explanation":null},"children":[],"spans":[{"file_name":"src/a.js","line_start":7,"line_end":7,"column_start":1,"column_end":2,"is_primary":true,"text":[]}]}}"#,
                r#"{"reason":"build-finished","success":true}"#
            ),
            101,
            format!("{artifact}\n{}\n", r#"{"reason":"build-finished","success":true}"#),
        ),
        (
            Format::Mypy,
            "a.py:7:1: error: Incompatible return value type  [return-value]\nFound 1 error in 1 file (checked 1 source file)\n".into(),
            1,
            "Success: no issues found in 1 source file\n".into(),
        ),
        (
            Format::Pyright,
            r#"{"version":"1.1","time":"1","generalDiagnostics":[{"file":"/w/a.py","severity":"error","message":"m","range":{"start":{"line":6,"character":0},"end":{"line":6,"character":1}},"rule":"reportReturnType"}],"summary":{"filesAnalyzed":1,"errorCount":1,"warningCount":0,"informationCount":0,"timeInSec":0.7}}"#.into(),
            1,
            r#"{"version":"1.1","time":"1","generalDiagnostics":[],"summary":{"filesAnalyzed":1,"errorCount":0,"warningCount":0,"informationCount":0,"timeInSec":0.7}}"#.into(),
        ),
        (
            Format::NpmAudit,
            npm(r#""x":{"name":"x","severity":"high","isDirect":true,"via":[{"source":1,"name":"x","title":"Bad","url":"https://github.com/advisories/GHSA-1","severity":"high","range":"<2"}],"effects":[],"range":"<2","nodes":[],"fixAvailable":true}"#, 1),
            1,
            npm("", 0),
        ),
        (
            Format::PipAudit,
            r#"{"dependencies":[{"name":"x","version":"1","vulns":[{"id":"PYSEC-1","fix_versions":["2"],"aliases":[],"description":"Bad"}]}],"fixes":[]}"#.into(),
            1,
            r#"{"dependencies":[{"name":"x","version":"1","vulns":[]}],"fixes":[]}"#.into(),
        ),
        (
            Format::CargoAudit,
            cargo_audit(r#"{"advisory":{"id":"RUSTSEC-1","title":"Bad","url":null},"package":{"name":"x","version":"1.0.0"},"versions":{"patched":[],"unaffected":[]}}"#, 1),
            1,
            cargo_audit("", 0),
        ),
    ];
    samples.extend(samples_of_runners());
    samples
}

fn samples_of_runners() -> Vec<(Format, String, i32, String)> {
    vec![
        (
            Format::GoTest,
            r#"{"Action":"start","Package":"m/pkg"}
{"Action":"run","Package":"m/pkg","Test":"TestA"}
{"Action":"output","Package":"m/pkg","Test":"TestA","Output":"    a_test.go:7: no\n"}
{"Action":"fail","Package":"m/pkg","Test":"TestA","Elapsed":0.5}
{"Action":"fail","Package":"m/pkg","Elapsed":0.6}
"#.into(),
            1,
            r#"{"Action":"pass","Package":"m/pkg","Test":"TestA","Elapsed":0}
{"Action":"pass","Package":"m/pkg","Elapsed":0.6}
"#.into(),
        ),
        (
            Format::CargoTest,
            "\nrunning 1 test\ntest tests::a ... FAILED\n\nfailures:\n\n---- tests::a stdout ----\n\nthread 'tests::a' (9) panicked at src/lib.rs:7:9:\nno\n\n\nfailures:\n    tests::a\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.06s\n\n".into(),
            101,
            "\nrunning 1 test\ntest tests::a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.06s\n\n".into(),
        ),
    ]
}
