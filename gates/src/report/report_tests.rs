//! Reports as the tools wrote them, and what may not pass.

use super::*;

#[path = "report_samples.rs"]
mod samples;

use samples::samples;

const FILES: [&str; 7] = ["src/a.ts", "src/a.js", "a.py", "test_a.py", "a.test.js", "pkg/a_test.go", "src/lib.rs"];

fn place() -> Place<'static> {
    Place::new("/w", FILES.into_iter())
}

fn read_with(format: Format, text: &str, exit: i32, output: &str) -> Result<Parsed, ReportError> {
    read(format, text.as_bytes(), &place(), Ended { exit: Exit::Code(exit), output })
}

/// The code of the verdict.
fn code_with(format: Format, text: &str, exit: i32, policy: &Policy) -> &'static str {
    match read_with(format, text, exit, "") {
        Err(error) => error.code,
        Ok(parsed) => match judge(&parsed, Exit::Code(exit), policy) {
            Ok(reason) => reason.code,
            Err(failure) => failure.reason.code,
        },
    }
}

fn code(format: Format, text: &str, exit: i32) -> &'static str {
    code_with(format, text, exit, &Policy::default())
}

fn places(parsed: &Parsed) -> Vec<String> {
    let line = |finding: &Finding| finding.line.map_or(String::new(), |line| format!(":{line}"));
    let rule = |finding: &Finding| finding.rule.clone().unwrap_or_default();
    parsed.findings.iter().map(|finding| format!("{}{} {}", finding.file, line(finding), rule(finding))).collect()
}

#[test]
fn every_format_reads_its_error_with_its_place_and_a_clean_report_passes() {
    for (format, bad, exit, clean) in samples() {
        let parsed = read_with(format, &bad, exit, "").unwrap_or_else(|error| panic!("{format:?}: {error}"));
        assert_eq!((parsed.found.error, parsed.findings.len()), (1, 1), "{format:?}");
        let finding = &parsed.findings[0];
        if !matches!(format, Format::NpmAudit | Format::PipAudit | Format::CargoAudit) {
            assert_eq!(finding.line, Some(7), "{format:?}");
            assert!(FILES.contains(&finding.file.as_str()), "{format:?}: {}", finding.file);
        }
        let failure = judge(&parsed, Exit::Code(exit), &Policy::default()).unwrap_err();
        assert!(
            matches!(failure.reason.code, "findings_found" | "tests_failed"),
            "{format:?}: {}",
            failure.reason.code
        );
        assert!(failure.reason.message.contains(finding.message.lines().next().unwrap()), "{}", failure.reason.message);
        assert!(
            matches!(code(format, &clean, 0), "report_clean" | "tests_passed"),
            "{format:?}: {}",
            code(format, &clean, 0)
        );
    }
}

#[test]
fn a_report_and_an_exit_code_that_disagree_fail() {
    for (format, bad, _, clean) in samples() {
        let expected = if judge::may_succeed_with_errors(format) { "findings_found" } else { "report_disagrees" };
        assert_eq!(code(format, &bad, 0), expected, "{format:?}");
        let expected = if format == Format::Tsc { "report_empty" } else { "report_disagrees" };
        assert_eq!(code(format, &clean, 1), expected, "{format:?}");
        assert_eq!(code(format, &clean, 101), expected, "{format:?}");
    }
}

#[test]
fn a_killed_command_fails_whatever_it_reported() {
    for (format, _, _, clean) in samples() {
        let parsed = read_with(format, &clean, 0, "").unwrap();
        let code_of = |exit| judge(&parsed, exit, &Policy::default()).unwrap_err().reason.code;
        assert_eq!((code_of(Exit::Signal(9)), code_of(Exit::TimedOut)), ("command_killed", "timed_out"), "{format:?}");
    }
}

#[test]
fn an_empty_report_is_never_clean() {
    for format in Format::ALL {
        for exit in [0, 1] {
            let expected = if format == Format::Tsc && exit == 0 { "report_clean" } else { "report_empty" };
            assert_eq!(code(format, "", exit), expected, "{format:?}");
        }
    }
}

#[test]
fn a_report_of_another_format_is_never_clean() {
    for (format, ..) in samples() {
        for (other, bad, _, clean) in samples().into_iter().filter(|(other, ..)| *other != format) {
            for text in [bad, clean].into_iter().filter(|text| !text.is_empty() && text != "[]") {
                let code = code(format, &text, 0);
                assert!(
                    !matches!(code, "report_clean" | "tests_passed"),
                    "{format:?} reads {other:?} as clean: {text}"
                );
            }
        }
    }
}

#[test]
fn a_cut_report_is_never_clean() {
    for (format, bad, exit, clean) in samples() {
        for (text, exit) in [(bad, exit), (clean, 0)] {
            let length = text.trim_end().len();
            for end in 1..length {
                let Some(cut) = text.get(..end) else { continue };
                // A text format has whole lines, and its exit code is there to disagree.
                if matches!(format, Format::Mypy | Format::Tsc) && exit != 0 {
                    continue;
                }
                let code = code(format, cut, exit);
                assert!(!matches!(code, "report_clean" | "tests_passed"), "{format:?} cut at {end}: {cut}");
            }
        }
    }
}

#[test]
fn a_byte_order_mark_and_utf16_are_read() {
    for (format, bad, exit, _) in samples() {
        let marked = format!("\u{feff}{bad}");
        let wide: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [marked.as_bytes(), &wide] {
            let parsed = read(format, bytes, &place(), Ended { exit: Exit::Code(exit), output: "" }).unwrap();
            assert_eq!(parsed.found.error, 1, "{format:?}");
        }
    }
}

#[test]
fn a_tool_that_looked_at_nothing_fails() {
    for (format, text) in [
        (Format::Eslint, "[]"),
        (
            Format::Eslint,
            r#"[{"filePath":"/w/ign.js","messages":[{"ruleId":null,"fatal":false,"severity":1,"message":"File ignored because of a matching ignore pattern. Use \"--no-ignore\"","nodeType":null}],"suppressedMessages":[],"errorCount":0,"warningCount":1}]"#,
        ),
        (Format::Pyright, r#"{"generalDiagnostics":[],"summary":{"filesAnalyzed":0,"errorCount":0,"warningCount":0}}"#),
        // A configuration of references alone (`"files": []`), which `tsc --diagnostics` without --build does not follow.
        (
            Format::Tsc,
            "Files:               0\nLines:               0\nIdentifiers:         0\nSymbols:             7\nTypes:              65\nInstantiations:      0\nMemory used:    14945K\nMemory allocs:     100\nI/O read:        0.00s\nI/O write:       0.00s\nParse time:      0.00s\nTotal time:      0.00s\n",
        ),
        (Format::Tsc, "/w/node_modules/typescript/lib/lib.es5.d.ts\n/w/node_modules/@types/node/index.d.ts\n"),
        (Format::Cargo, "{\"reason\":\"build-finished\",\"success\":true}\n"),
        (Format::Sarif, r#"{"version":"2.1.0","runs":[]}"#),
        (Format::PipAudit, r#"{"dependencies":[],"fixes":[]}"#),
        (Format::PipAudit, r#"{"dependencies":[{"name":"x","skip_reason":"not on PyPI"}]}"#),
        (
            Format::NpmAudit,
            r#"{"auditReportVersion":2,"vulnerabilities":{},"metadata":{"vulnerabilities":{"total":0},"dependencies":{"total":0}}}"#,
        ),
        (
            Format::CargoAudit,
            r#"{"database":{"advisory-count":9},"lockfile":{"dependency-count":0},"vulnerabilities":{"count":0,"list":[]}}"#,
        ),
    ] {
        assert_eq!(code(format, text, 0), "nothing_checked", "{format:?} {text}");
    }
    assert_eq!(
        code(Format::Tsc, "error TS18003: No inputs were found in config file '/w/t.json'.\n", 2),
        "findings_found"
    );
    let parsed = read_with(Format::Ruff, "[]", 0, "warning: No Python files found under the given path(s)\n").unwrap();
    assert_eq!(judge(&parsed, Exit::Code(0), &Policy::default()).unwrap_err().reason.code, "nothing_checked");
}

#[test]
fn a_policy_can_demand_to_know_what_was_looked_at() {
    let policy = Policy { needs_checked: true, ..Policy::default() };
    assert_eq!(code_with(Format::Tsc, "", 0, &policy), "nothing_checked");
    assert_eq!(
        code_with(Format::Tsc, "/w/node_modules/typescript/lib/lib.d.ts\n/w/src/a.ts\n", 0, &policy),
        "report_clean"
    );
    assert_eq!(code_with(Format::Tsc, "Files:              197\n", 0, &policy), "report_clean");
}

#[test]
fn tests_that_did_not_run_do_not_pass() {
    let suite = |cases: &str| format!(r#"<testsuites><testsuite name="s" tests="9">{cases}</testsuite></testsuites>"#);
    assert_eq!(code(Format::Junit, &suite(""), 0), "no_tests");
    assert_eq!(code(Format::Junit, "<testsuites/>", 0), "no_tests");
    assert_eq!(code(Format::Junit, &suite(r#"<testcase name="a"><skipped/></testcase>"#), 0), "all_tests_skipped");
    assert_eq!(code(Format::Junit, &suite(r#"<testcase name="a" status="notrun"/>"#), 0), "all_tests_skipped");
    assert_eq!(
        code(Format::Junit, &suite(r#"<testcase name="a"/><testcase name="b"><skipped/></testcase>"#), 0),
        "tests_passed"
    );
    let policy = Policy { max_skipped: Some(0), ..Policy::default() };
    let one_skipped = suite(r#"<testcase name="a"/><testcase name="b"><skipped/></testcase>"#);
    assert_eq!(code_with(Format::Junit, &one_skipped, 0, &policy), "too_many_skipped");
    for text in [
        "{\"Action\":\"output\",\"Package\":\"m\",\"Output\":\"?   \\tm\\t[no test files]\\n\"}\n{\"Action\":\"skip\",\"Package\":\"m\",\"Elapsed\":0}\n",
        "{\"Action\":\"output\",\"Package\":\"m\",\"Output\":\"testing: warning: no tests to run\\n\"}\n{\"Action\":\"pass\",\"Package\":\"m\",\"Elapsed\":0}\n",
    ] {
        assert_eq!(code(Format::GoTest, text, 0), "no_tests");
    }
    let skipped = "{\"Action\":\"skip\",\"Package\":\"m\",\"Test\":\"A\"}\n{\"Action\":\"pass\",\"Package\":\"m\"}\n";
    assert_eq!(code(Format::GoTest, skipped, 0), "all_tests_skipped");
}

#[test]
fn warnings_fail_if_the_policy_says_so() {
    let text = r#"[{"filePath":"/w/src/a.js","messages":[{"ruleId":"r","severity":1,"message":"m","line":1,"column":1}],"suppressedMessages":[{}],"errorCount":0,"warningCount":1}]"#;
    let policy = Policy { fail_on: Severity::Warning, ..Policy::default() };
    assert_eq!(
        (code(Format::Eslint, text, 0), code_with(Format::Eslint, text, 0, &policy)),
        ("report_clean", "findings_found")
    );
    // --max-warnings
    assert_eq!(code(Format::Eslint, text, 1), "report_disagrees");
    assert_eq!(read_with(Format::Eslint, text, 0, "").unwrap().suppressed, 1);
}

#[test]
fn counts_that_a_report_does_not_list_are_not_lost() {
    for (format, text) in [
        (Format::Eslint, r#"[{"filePath":"/w/a.js","messages":[],"errorCount":1,"warningCount":0}]"#),
        (Format::Pyright, r#"{"generalDiagnostics":[],"summary":{"filesAnalyzed":1,"errorCount":1,"warningCount":0}}"#),
        (Format::Mypy, "Found 1 error in 1 file (checked 1 source file)\n"),
        (Format::Tsc, "Found 1 error in src/a.ts:1\n"),
        (
            Format::NpmAudit,
            r#"{"auditReportVersion":2,"vulnerabilities":{},"metadata":{"vulnerabilities":{"total":1},"dependencies":{"total":1}}}"#,
        ),
        (
            Format::CargoAudit,
            r#"{"database":{"advisory-count":9},"lockfile":{"dependency-count":1},"vulnerabilities":{"count":1,"list":[]}}"#,
        ),
    ] {
        assert_eq!(code(format, text, 0), "report_unparsable", "{format:?}");
    }
    let junit = r#"<testsuites><testsuite tests="2" failures="1"><testcase name="a"/></testsuite></testsuites>"#;
    assert_eq!((code(Format::Junit, junit, 1), code(Format::Junit, junit, 0)), ("tests_failed", "report_disagrees"));
}

#[test]
fn two_documents_nan_and_duplicate_keys_are_refused() {
    for (format, text) in [
        (Format::Junit, "<testsuite><testcase name='a'/></testsuite><testsuite><testcase name='a'/></testsuite>"),
        (Format::Junit, "<testsuite><testcase name='a'/></testsuite> and text"),
        (Format::Eslint, "[][]"),
        (
            Format::Pyright,
            r#"{"generalDiagnostics":[],"summary":{"filesAnalyzed":NaN,"errorCount":0,"warningCount":0}}"#,
        ),
        (Format::Eslint, r#"[{"filePath":"a","messages":[],"errorCount":1,"errorCount":0,"warningCount":0}]"#),
        (
            Format::NpmAudit,
            r#"{"auditReportVersion":2,"vulnerabilities":{"x":{"name":"x","severity":"high","via":["y"]},"x":{"name":"x","severity":"low","via":[]}},"metadata":{"vulnerabilities":{"total":1},"dependencies":{"total":1}}}"#,
        ),
    ] {
        assert_eq!(code(format, text, 0), "report_unparsable", "{text}");
    }
}

#[test]
fn a_hostile_report_is_refused_quickly() {
    let deep_xml = format!("{}{}", "<testsuite>".repeat(100_000), "</testsuite>".repeat(100_000));
    let many_attributes = (0..200_000).map(|number| format!(" a{number}=''")).collect::<Vec<_>>().concat();
    let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY x SYSTEM "file:///etc/passwd">]><testsuite><testcase name="&x;"/></testsuite>"#;
    let in_text = bomb.replace("name=\"&x;\"/>", "name='a'><failure>&b;</failure></testcase>");
    for text in [deep_xml, format!("<testsuite{many_attributes}></testsuite>"), bomb.to_owned(), in_text] {
        assert_eq!(code(Format::Junit, &text, 0), "report_unparsable");
    }
    assert_eq!(code(Format::Sarif, &"[".repeat(1_000_000), 0), "report_unparsable");
    let cases = format!("<testsuite>{}</testsuite>", "<testcase name='a'/>".repeat(MAX_CASES + 1));
    assert_eq!(code(Format::Junit, &cases, 0), "report_too_large");
    // A DOCTYPE alone is harmless.
    assert_eq!(code(Format::Junit, "<!DOCTYPE x><testsuite><testcase name='a'/></testsuite>", 0), "tests_passed");
}

#[test]
fn the_worst_findings_are_kept_and_all_are_counted() {
    let warning = "src/a.ts(1,1): warning TS1: w\n".repeat(MAX_FINDINGS * 2 + 5);
    let parsed = read_with(Format::Tsc, &format!("{warning}src/a.ts(9,1): error TS2: e\n"), 2, "").unwrap();
    assert_eq!((parsed.findings.len(), parsed.found.total()), (MAX_FINDINGS, MAX_FINDINGS as u64 * 2 + 6));
    assert_eq!(parsed.findings[0].severity, Severity::Error);
    let listed = parsed.listed();
    assert_eq!((listed.first.len(), listed.total), (100, parsed.found.total()));
    let failure = judge(&parsed, Exit::Code(2), &Policy::default()).unwrap_err();
    assert_eq!(failure.reason.message.lines().nth(1), Some("src/a.ts:9: e [TS2]"));
    assert!(failure.reason.message.ends_with("and 40003 more"), "{}", failure.reason.message);
}

#[test]
fn pytest_vitest_and_node_are_read() {
    let pytest = r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="2" tests="5" time="0.025"><testcase classname="test_a" name="test_ok" time="0.001" /><testcase classname="test_a" name="test_bad" time="NaN"><failure message="AssertionError: x &lt; y &amp; #x1B[31mred&#10;assert 1 == 2">&gt; def test_bad():

test_a.py:3: AssertionError</failure></testcase><testcase classname="test_a" name="test_skip" time="0.000"><skipped type="pytest.skip" message="later">/w/test_a.py:4: later</skipped></testcase><testcase classname="test_a" name="test_x"><skipped type="pytest.xfail" message="" /></testcase><testcase classname="test_a" name="test_err"><error message="failed on setup with &quot;RuntimeError: boom&quot;"><![CDATA[test_a.py:10: RuntimeError]]></error></testcase></testsuite></testsuites>"#;
    let tests = read_with(Format::Junit, pytest, 1, "").unwrap().tests.unwrap();
    assert_eq!((tests.total, tests.passed, tests.failed, tests.errored, tests.skipped), (5, 1, 1, 1, 2));
    assert_eq!((tests.cases[0].time_ms, tests.cases[1].time_ms), (Some(1), None));
    assert_eq!(places(&read_with(Format::Junit, pytest, 1, "").unwrap()), ["test_a.py:3 ", "test_a.py:10 "]);

    let vitest = r#"<testsuites name="vitest tests" tests="1" failures="1" errors="0"><testsuite name="a.test.js"><testcase classname="a.test.js" name="s &quot;q&quot; &gt; bad" time="0.004"><failure message="expected 1 to be 2">
 ❯ node_modules/x.js:1:1
 ❯ a.test.js:2:65</failure></testcase></testsuite></testsuites>"#;
    let parsed = read_with(Format::Junit, vitest, 1, "").unwrap();
    assert_eq!(places(&parsed), ["a.test.js:2 "]);
    assert_eq!(parsed.findings[0].message, "a.test.js > s \"q\" > bad: expected 1 to be 2");

    // A failing todo does not fail a run of node:test.
    let node = r#"<testsuites><testcase name="a" classname="test"/><testcase name="c" classname="test" failure="1"><skipped type="todo" message="true"/><failure type="testCodeFailure" message="1">x</failure></testcase></testsuites>"#;
    assert_eq!(code(Format::Junit, node, 0), "tests_passed");
    // A suite that could not start, and text in other elements.
    let suite = r#"<testsuite name="s"><error message="import failed"/><testcase name="a"><system-out>failure</system-out></testcase></testsuite>"#;
    assert_eq!((code(Format::Junit, suite, 0), code(Format::Junit, suite, 1)), ("report_disagrees", "tests_failed"));
}

#[test]
fn the_forms_of_tsc_and_mypy_are_read() {
    let pretty = "\u{1b}[96msrc/a.ts\u{1b}[0m:\u{1b}[93m3\u{1b}[0m:\u{1b}[93m8\u{1b}[0m - \u{1b}[91merror\u{1b}[0m\u{1b}[90m TS2322: \u{1b}[0mType 'string'.\n\n\u{1b}[7m3\u{1b}[0m f({a: {b: \"x\"}});\n\u{1b}[7m \u{1b}[0m \u{1b}[91m       ~\u{1b}[0m\n\n  \u{1b}[96msrc/a.ts\u{1b}[0m:\u{1b}[93m2\u{1b}[0m:\u{1b}[93m20\u{1b}[0m\n    \u{1b}[7m2\u{1b}[0m function f() {}\n\n\nFound 1 error in src/a.ts:3\n\n";
    let parsed = read_with(Format::Tsc, pretty, 2, "").unwrap();
    assert_eq!((places(&parsed), parsed.findings[0].column), (vec!["src/a.ts:3 TS2322".to_owned()], Some(8)));
    assert_eq!(parsed.findings[0].message, "Type 'string'.");
    let long = "\n> x@1.0.0 typecheck\n> tsc --noEmit\n\nC:\\ci\\w\\src\\a.ts(3,8): error TS2345: Not assignable.\n  Types of 'x'.\n    Deep.\nerror TS5023: Unknown compiler option '--bad'.\n8:27:19 PM - Building project '/w/t.json'...\n";
    let parsed = read_with(Format::Tsc, long, 2, "").unwrap();
    assert_eq!(places(&parsed), [" TS5023", "src/a.ts:3 TS2345"]);
    assert!(parsed.findings[1].message.ends_with("Deep."));
    assert_eq!(code(Format::Tsc, "\n> x@1.0.0 typecheck\n> tsc --noEmit\n\n", 0), "report_clean");
    assert_eq!(code(Format::Tsc, "tsc: The TypeScript Compiler - Version 5.9.3\n", 0), "report_unparsable");

    let json = "{\"file\": \"a.py\", \"line\": 3, \"column\": 11, \"end_line\": 3, \"end_column\": 12, \"message\": \"Incompatible\", \"hint\": null, \"code\": \"return-value\", \"severity\": \"error\"}\n";
    let parsed = read_with(Format::Mypy, json, 1, "").unwrap();
    assert_eq!((places(&parsed), parsed.findings[0].column), (vec!["a.py:3 return-value".to_owned()], Some(12)));
    let text = "a.py:3:12:3:14: error: Incompatible \"int\"  [return-value]\na.py:4: note: Revealed type\nnosuch.py: error: Cannot read file: No such file\nFound 2 errors in 1 file (checked 2 source files)\n";
    let parsed = read_with(Format::Mypy, text, 1, "").unwrap();
    assert_eq!(places(&parsed), ["a.py:3 return-value", "nosuch.py ", "a.py:4 "]);
    assert_eq!(parsed.checked, Some(2));
    assert_eq!(
        code(
            Format::Mypy,
            "Found 1 error in 1 file (errors prevented further checking)\na.py:1: error: x  [syntax]\n",
            2
        ),
        "tool_failed"
    );
    assert_eq!(code(Format::Mypy, "\n", 0), "report_clean");
    assert_eq!(code(Format::Mypy, "There are no .py[i] files in directory 'e'\n", 0), "report_unparsable");
}

#[test]
fn broken_builds_and_panics_of_go_are_errors() {
    let build = "{\"ImportPath\":\"m/pkg\",\"Action\":\"build-output\",\"Output\":\"pkg/a_test.go:9:2: undefined: x\\n\"}\n{\"ImportPath\":\"m/pkg\",\"Action\":\"build-fail\"}\n{\"Action\":\"start\",\"Package\":\"m/pkg\"}\n{\"Action\":\"fail\",\"Package\":\"m/pkg\",\"Elapsed\":0,\"FailedBuild\":\"m/pkg\"}\n";
    assert_eq!(code(Format::GoTest, build, 1), "tests_failed");
    assert!(places(&read_with(Format::GoTest, build, 1, "").unwrap()).contains(&"pkg/a_test.go:9 ".to_owned()));
    let panic = "{\"Action\":\"run\",\"Package\":\"m/pkg\",\"Test\":\"TestA\"}\n{\"Action\":\"output\",\"Package\":\"m/pkg\",\"Test\":\"TestA\",\"Output\":\"panic: x\\n\"}\n{\"Action\":\"fail\",\"Package\":\"m/pkg\",\"Elapsed\":0}\n";
    let tests = read_with(Format::GoTest, panic, 1, "").unwrap().tests.unwrap();
    assert_eq!((tests.total, tests.errored), (1, 1));
    assert_eq!(code(Format::GoTest, "{\"Action\":\"run\",\"Package\":\"m\",\"Test\":\"A\"}\n", 0), "report_unparsable");
}

#[test]
fn an_audit_that_could_not_ask_is_no_audit() {
    let offline = "npm warn audit 405 Method Not Allowed\n{\n  \"message\": \"405 Method Not Allowed\",\n  \"statusCode\": 405,\n  \"error\": {\"summary\": \"\", \"detail\": \"\"}\n}\nnpm error A complete log\n";
    assert_eq!(code(Format::NpmAudit, offline, 1), "tool_failed");
    assert_eq!(
        code(Format::NpmAudit, r#"{"error":{"code":"ENOLOCK","summary":"needs a lockfile","detail":""}}"#, 0),
        "tool_failed"
    );
    let empty = r#"{"database":{"advisory-count":0},"lockfile":{"dependency-count":3},"vulnerabilities":{"count":0,"list":[]}}"#;
    assert_eq!(code(Format::CargoAudit, empty, 0), "tool_failed");
    // A finding that the policy tolerates.
    let moderate = r#"{"auditReportVersion":2,"vulnerabilities":{"x":{"name":"x","severity":"moderate","via":["y"]}},"metadata":{"vulnerabilities":{"total":1},"dependencies":{"total":5}}}"#;
    assert_eq!(code(Format::NpmAudit, moderate, 1), "report_clean");
}

#[test]
fn reports_of_several_packages_add_up() {
    let mut first = read_with(Format::Junit, "<testsuite><testcase name='a'/></testsuite>", 0, "").unwrap();
    let second = "<testsuite><testcase name='b'><failure/></testcase></testsuite>";
    first.merge(read_with(Format::Junit, second, 1, "").unwrap());
    let tests = first.tests.as_ref().unwrap();
    assert_eq!((tests.total, tests.failed, tests.cases.len(), first.checked, first.found.error), (2, 1, 2, Some(2), 1));
}
