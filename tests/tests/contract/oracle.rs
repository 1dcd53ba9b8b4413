//! Other implementations of the formats that NOFX writes: the programs in `tests/oracles`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nofx_local::checkout::Checkout;
use nofx_local::process::PidFile;
use nofx_local::tools::npm;
use nofx_local::tools::python::{ORACLES, PythonEnv};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}

/// Runs a program of `tests/oracles` with this input.
pub async fn run(program: &str, arguments: &[&str], input: &[u8]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let pid_file = PidFile::new(folder.path().join("pids.json"));
    let env = PythonEnv::of(ORACLES, &Checkout::at(root()), &pid_file).await.expect("the oracles install");
    let mut command = Command::new(env.program("python"));
    command.arg(root().join("tests/oracles").join(program)).args(arguments);
    answered(command, input)
}

/// What `tests/oracles/sigstore.mjs` printed, which reads envelopes with the npm packages of Sigstore.
pub async fn sigstore(input: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let (pid_file, oracles) = (PidFile::new(folder.path().join("pids.json")), root().join("tests/oracles"));
    let at = Checkout::at(root());
    let packages = npm::ready("sigstore", &oracles, &at, &pid_file).await.expect("the packages install");
    let mut command = Command::new("node");
    command.arg(oracles.join("sigstore.mjs")).arg(packages);
    let output = answered(command, input);
    assert!(output.status.success(), "sigstore.mjs: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a command says about an input.
fn answered(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("an input").write_all(input).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// What a program printed that accepts this input.
pub async fn accepted(program: &str, arguments: &[&str], input: &[u8]) -> String {
    let output = run(program, arguments, input).await;
    let (input, why) = (String::from_utf8_lossy(input), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} refuses {input}: {why}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
