//! Deploys the template to an emulator that enforces its roles, and runs the sample plans through API Gateway's URL.

use std::process::{Command, Stdio};

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the emulator runs the functions' Linux binaries on this machine")]
fn the_template_deploys_to_the_emulator_and_the_sample_plans_end_as_expected() {
    deploys(&[]);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the emulator runs the functions' Linux binaries on this machine")]
fn the_same_holds_with_iam_authorization() {
    deploys(&["--iam"]);
}

fn deploys(options: &[&str]) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--bin", "nofx", "--", "deploy-local"]).args(options);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stdin(Stdio::null());
    let output = command.output().expect("run nofx deploy-local");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("all 7 plans ended as expected"), "{stdout}\n{stderr}");
}

#[test]
fn a_missing_parameter_fails_the_deployment_before_the_build() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--bin", "nofx", "--", "deploy", "dev"]).env_remove("AWS_ENDPOINT_URL");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stdin(Stdio::null());
    let output = command.output().expect("run nofx deploy");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        stderr.contains("error: the parameter DatabaseSecretArn of dev is missing\nhint: create a secret"),
        "{stderr}"
    );
}
