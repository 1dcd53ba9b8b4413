//! The template passes `sam validate --lint`, cfn-lint and checkov. .checkov.yaml lists the exceptions with their
//! reasons.

use std::process::Command;

use nofx_local::checkout::Checkout;
use nofx_local::process::PidFile;
use nofx_local::tools::python::{CHECKOV, DEPLOY, PythonEnv, Tools};

use crate::template::{read, root};

async fn tools(tools: Tools) -> (PythonEnv, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let pid_file = PidFile::new(folder.path().join("pids.json"));
    let checkout = Checkout::at(root().canonicalize().expect("the checkout"));
    (PythonEnv::of(tools, &checkout, &pid_file).await.expect("the tools install"), folder)
}

fn passes(env: &PythonEnv, program: &str, args: &[&str]) {
    let mut command = Command::new(env.program(program));
    command.args(args).current_dir(root());
    command.env("AWS_DEFAULT_REGION", "us-east-1").env("SAM_CLI_TELEMETRY", "0").env_remove("AWS_ENDPOINT_URL");
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} exited with {}:\n{printed}", output.status);
}

#[tokio::test]
async fn sam_and_cfn_lint_report_nothing() {
    let (env, _folder) = tools(DEPLOY).await;
    passes(&env, "sam", &["validate", "--lint", "--template-file", "template.yaml"]);
    passes(&env, "cfn-lint", &["template.yaml"]);
}

#[tokio::test]
async fn checkov_reports_only_listed_exceptions() {
    let (env, _folder) = tools(CHECKOV).await;
    passes(&env, "checkov", &["--config-file", ".checkov.yaml"]);
}

#[test]
fn deployments_and_the_local_stack_pin_the_same_emulator() {
    let pin = |file: &str| {
        let text = read(file);
        text.lines().find(|line| line.starts_with("ministack==")).map(str::to_owned)
    };
    let local = pin("localstack/requirements.txt");
    assert!(local.is_some());
    assert_eq!(pin("localstack/requirements-deploy.txt"), local);
}
