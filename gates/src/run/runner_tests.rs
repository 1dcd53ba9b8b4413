use std::os::unix::fs::PermissionsExt;

use super::super::spec::{CommandSpec, Variant};
use super::*;
use crate::dependencies::Ecosystem;

fn job(ecosystem: Option<Ecosystem>) -> Job {
    Job {
        audit: false,
        tenant: "acme".into(),
        command: CommandSpec {
            argv: vec!["true".into()],
            directory: String::new(),
            environment: BTreeMap::new(),
            companions: Vec::new(),
            reports: Vec::new(),
            network: false,
            minimum_sandbox: sandbox::Level::Limits,
            timeout_ms: 10_000,
        },
        ecosystem,
        variants: vec![Variant { name: String::new(), edits: BTreeMap::new() }],
        timeout_ms: 30_000,
    }
}

/// An executor on a host without sandboxes, with these programs, which print their versions.
fn executor(folder: &Path, programs: &[(&str, &str)]) -> Executor {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    for (name, version) in programs {
        fs::write(bin.join(name), format!("#!/bin/sh\necho {version}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut settings = RunnerSettings::new(folder.join("work"));
    settings.search_path = bin.to_string_lossy().into_owned();
    settings.at_most =
        Some(sandbox::Host { own_uid: false, namespaces: None, landlock_abi: 0, seccomp: false, reasons: Vec::new() });
    Executor::new(settings)
}

#[tokio::test]
async fn a_job_without_variants_only_says_what_it_would_run_with() {
    let folder = tempfile::tempdir().unwrap();
    let executor = executor(folder.path(), &[("node", "v22.1.0"), ("npm", "11.0.0")]);
    let probe = job(Some(Ecosystem::Npm)).probe();
    assert!(probe.is_probe() && !job(None).is_probe());
    let Bundle { result, files } = executor.execute(&probe, Arc::default()).await;
    let expected = [("node", "v22.1.0"), ("npm", "11.0.0")].map(|(name, version)| (name.into(), version.into()));
    assert_eq!((result.toolchain, result.sandbox.as_str()), (BTreeMap::from(expected), "limits"));
    assert!(result.stopped.is_none() && result.runs.is_empty() && files.is_empty());
    assert!(!folder.path().join("work").exists(), "it needs no folder");
}

#[tokio::test]
async fn a_probe_without_the_tools_says_which_one_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let executor = executor(folder.path(), &[("node", "v22.1.0")]);
    let stopped = executor.execute(&job(Some(Ecosystem::Npm)).probe(), Arc::default()).await.result.stopped.unwrap();
    assert!(stopped.code == "toolchain_missing" && stopped.message.contains("npm"), "{stopped:?}");
}
