//! What the commands of gates leave: outputs and reports, in the bundle of a runner. The judge reads them as it reads
//! those of real tools.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nofx_gates::run::{Bundle, CommandRun, Exit, Found, Output, ReportFile};
use serde_json::json;
use shared::domain::digest::sha256_hex;

/// Answers with the bundle of the command's program.
const RUNNER: &str = r#"#!/usr/bin/env python3
import hashlib, json, pathlib, sys
spec = json.load(sys.stdin)
bundle = (pathlib.Path(__file__).parent / ("bundle-" + spec["job"]["command"]["argv"][0])).read_bytes()
pathlib.Path(spec["bundle"]["file"]).write_bytes(bundle)
print(json.dumps({"sha256": hashlib.sha256(bundle).hexdigest(), "size_bytes": len(bundle)}))
"#;

/// A command that has ended.
#[derive(Debug, Clone, Default)]
pub struct Ended<'a> {
    pub exit: i32,
    pub printed: &'a str,
    /// The name of each report below `$NOFX_REPORTS`, or `stdout`, in the order of the definition.
    pub reports: &'a [(&'a str, &'a str)],
}

/// A program that stands in for `gate_runner`.
#[derive(Debug)]
pub struct Runner(PathBuf);

impl Runner {
    pub fn new(folder: &Path) -> Self {
        let program = folder.join("gate_runner");
        fs::write(&program, RUNNER).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
        Self(program)
    }

    pub fn program(&self) -> &Path {
        &self.0
    }

    /// From now on this program ends like this.
    pub fn answer(&self, program: &str, ended: &Ended<'_>) {
        let mut bundle = Bundle::default();
        "gallery".clone_into(&mut bundle.result.runner);
        bundle.result.toolchain = [("node".to_owned(), "v22.11.0".to_owned())].into();
        let entry = bundle.add("runs/0/log".into(), ended.printed.as_bytes().to_vec());
        let mut reports = Vec::new();
        for (report, (path, text)) in ended.reports.iter().enumerate() {
            let entry = bundle.add(format!("runs/0/reports/{report}"), text.as_bytes().to_vec());
            reports.push(ReportFile { report, path: (*path).to_owned(), found: Found::File { entry } });
        }
        bundle.result.runs.push(CommandRun {
            variant: String::new(),
            root: "/work".into(),
            exit: Exit::Code(ended.exit),
            ms: 4_210,
            output: Output {
                bytes: ended.printed.len() as u64,
                sha256: sha256_hex(ended.printed.as_bytes()),
                head: None,
                tail: ended.printed.to_owned(),
                entry: Some(entry),
            },
            reports,
            sandbox: json!({ "level": "namespaces", "network": "none" }),
        });
        fs::write(self.0.with_file_name(format!("bundle-{program}")), bundle.pack().expect("a bundle"))
            .expect("written");
    }

    /// From now on every command of the shop passes.
    pub fn all_pass(&self) {
        self.answer("tsc", &Ended { reports: &[("stdout", "")], ..Ended::default() });
        self.answer("eslint", &Ended { reports: &[("stdout", NO_PROBLEMS)], ..Ended::default() });
        self.answer(
            "vitest",
            &Ended {
                printed: " Test Files  2 passed (2)\n      Tests  3 passed (3)\n",
                reports: &[("junit.xml", TESTS_PASS), ("lcov.info", ALL_LINES)],
                ..Ended::default()
            },
        );
    }
}

/// What ESLint writes about a file without a problem.
const NO_PROBLEMS: &str = r#"[{"filePath":"/work/src/shipping.ts","messages":[],"suppressedMessages":[],"errorCount":0,"fatalErrorCount":0,"warningCount":0}]"#;

pub const TESTS_PASS: &str = r#"<testsuites><testsuite name="test/shipping.test.ts" tests="3">
<testcase classname="test/shipping.test.ts" name="delivers large orders for nothing" time="0.004"/>
<testcase classname="test/shipping.test.ts" name="charges smaller orders" time="0.001"/>
<testcase classname="test/money.test.ts" name="adds cents" time="0.002"/></testsuite></testsuites>"#;

pub const TESTS_FAIL: &str = r#"<testsuites><testsuite name="test/money.test.ts" tests="3" failures="2">
<testcase classname="test/shipping.test.ts" name="delivers large orders for nothing" time="0.004"/>
<testcase classname="test/money.test.ts" name="formats a negative amount" time="0.003"><failure message="expected '-4.95' to be '- 4.95'">AssertionError: expected '-4.95' to be '- 4.95'
    at /work/test/money.test.ts:14:22</failure></testcase>
<testcase classname="test/money.test.ts" name="rounds half a cent" time="0.001"><failure message="expected 2 to be 3">AssertionError: expected 2 to be 3
    at /work/test/money.test.ts:21:18</failure></testcase></testsuite></testsuites>"#;

pub const ALL_LINES: &str = "SF:src/shipping.ts\nDA:4,3\nDA:5,3\nDA:6,1\nDA:8,2\nend_of_record\n";
pub const MISSED_LINE: &str = "SF:src/shipping.ts\nDA:4,1\nDA:5,1\nDA:6,1\nDA:8,0\nend_of_record\n";

pub const TYPE_ERRORS: &str = "src/shipping.ts(5,10): error TS2322: Type 'number' is not assignable to type 'Money'.\n\
                               src/shipping.ts(8,16): error TS2345: Argument of type 'string' is not assignable to parameter of type 'number'.\n";
