//! The real installers in the sandbox, against the registries that this machine uses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nofx_gates::dependencies::{
    Attached, Ecosystem, InstallPlan, InstallRequest, InstallSettings, Installed, Installer, Place, attach, plan,
};
use nofx_gates::run::RunnerSettings;
use nofx_gates::snapshot::Snapshot;
use nofx_gates::{ExamineError, Reason};
use tempfile::TempDir;

use crate::sample::{prepare, work_folder};

/// A workspace and an installer with folders of its own. Download caches are shared: each serves one test at a time.
struct Sample {
    work: TempDir,
    settings: InstallSettings,
    installer: Installer,
}

impl Sample {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut InstallSettings)) -> Self {
        prepare();
        let work = work_folder();
        let mut settings = settings(work.path());
        change(&mut settings);
        fs::create_dir(work.path().join("workspace")).unwrap();
        Self { work, installer: Installer::new(settings.clone()), settings }
    }

    fn of(example: &str) -> Self {
        let sample = Self::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
        for path in Snapshot::take(&from).unwrap().files().keys() {
            sample.write(path, &fs::read_to_string(from.join(path)).unwrap());
        }
        sample
    }

    fn workspace(&self) -> PathBuf {
        self.work.path().join("workspace")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.workspace().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn plan(&self, ecosystem: Ecosystem) -> InstallPlan {
        let snapshot = Snapshot::take(&self.workspace()).unwrap();
        plan(&snapshot, ecosystem, self.installer.registries()).unwrap().unwrap()
    }

    async fn install(&self, ecosystem: Ecosystem) -> Result<Installed, ExamineError> {
        self.installer.install(&self.plan(ecosystem), request(Place::Store)).await
    }

    /// Runs a command as a gate does. Returns its output.
    fn run(&self, argv: &[&str], attached: &Attached) -> Result<String, String> {
        let mut path: Vec<PathBuf> = attached.path.clone();
        path.extend(std::env::split_paths(&self.settings.search_path));
        let home = self.work.path().join("home");
        fs::create_dir_all(&home).unwrap();
        let mut environment = vec![
            ("PATH".to_owned(), std::env::join_paths(path).unwrap().into_string().unwrap()),
            ("HOME".to_owned(), home.to_string_lossy().into_owned()),
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ];
        environment.extend(attached.environment.clone());
        let output = std::process::Command::new("/usr/bin/env")
            .args(argv)
            .current_dir(self.workspace())
            .env_clear()
            .envs(environment)
            .output()
            .unwrap();
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }
}

fn settings(work: &Path) -> InstallSettings {
    let mut runner = RunnerSettings::new(work.join("work"));
    runner.add_toolchains_of(&std::env::var("PATH").unwrap());
    let mut settings = runner.installs();
    settings.caches = format!("/tmp/nofx-test-caches-{}", rustix::process::geteuid().as_raw()).into();
    // Cargo's own folder, for the toolchain of this test.
    settings.search_path = format!("{}:{}", settings.search_path, Path::new(env!("CARGO")).parent().unwrap().display());
    settings.npm_user_config =
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".npmrc")).filter(|path| path.is_file());
    settings
}

fn request(place: Place) -> InstallRequest {
    InstallRequest { tenant: "t".into(), timeout: Duration::from_mins(5), place }
}

fn refusal(result: Result<Installed, ExamineError>) -> Reason {
    match result {
        Err(ExamineError::GateFailed(reason)) => reason,
        Err(ExamineError::Infra(error)) => panic!("{error}"),
        Ok(installed) => panic!("installed to {}", installed.folder.display()),
    }
}

fn assert_read_only(root: &Path) {
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o222, 0, "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o222, 0, "{}", entry.path().display());
            }
        }
    }
}

/// Counts the files that are no links.
fn files_below(root: &Path) -> usize {
    let entries = fs::read_dir(root).unwrap().map(Result::unwrap);
    let count = |entry: fs::DirEntry| {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() { files_below(&entry.path()) } else { usize::from(kind.is_file()) }
    };
    entries.map(count).sum()
}

#[tokio::test]
async fn the_typescript_sample_installs_once_and_runs_its_checks_through_links() {
    let sample = Sample::of("workspace");
    let first = sample.install(Ecosystem::Npm).await.unwrap();
    assert!(!first.stored && first.toolchain.versions["node"].starts_with('v'));
    assert_read_only(&first.folder);
    assert!(!first.folder.join(".installer").exists());
    let second = sample.install(Ecosystem::Npm).await.unwrap();
    assert!(second.stored && second.folder == first.folder);
    let attached = attach(&second, &sample.workspace()).unwrap();
    // What it costs is that of a link for each package: nothing is copied. `make bench ONLY=gate` measures the time.
    assert_eq!(files_below(&sample.workspace().join("node_modules")), 0);
    assert_eq!(attached.read_only, std::slice::from_ref(&second.folder));
    for script in ["typecheck", "lint", "coverage"] {
        sample.run(&["npm", "run", "--silent", script], &attached).unwrap();
    }
    // Tools keep their caches in node_modules, and nothing reached the installation.
    assert!(sample.workspace().join("node_modules/.vite").is_dir());
    assert_read_only(&second.folder);
    // A mistake is still found.
    sample.write("src/wrong.ts", "export const wrong: string = 1;\n");
    let output = sample.run(&["tsc", "--noEmit"], &attached).unwrap_err();
    assert!(output.contains("src/wrong.ts(1,14)"), "{output}");
}

#[tokio::test]
async fn the_python_sample_installs_once_and_runs_its_checks() {
    let sample = Sample::of("python");
    let first = sample.install(Ecosystem::Pip).await.unwrap();
    assert!(!first.stored);
    assert_read_only(&first.folder);
    let second = sample.install(Ecosystem::Pip).await.unwrap();
    assert!(second.stored);
    let attached = attach(&second, &sample.workspace()).unwrap();
    for command in [&["mypy"][..], &["ruff", "check", "--no-cache"], &["coverage", "run", "-m", "pytest"], &["pytest"]]
    {
        sample.run(command, &attached).unwrap();
    }
    let report = sample.run(&["coverage", "report"], &attached).unwrap();
    assert!(report.contains("src/inventory/stock.py") && report.contains("100%"), "{report}");
    // Modules of the project come last.
    sample.write("src/pytest.py", "import sys; sys.exit(0)\n");
    sample.write("iniconfig.py", "import sys; sys.exit(0)\n");
    let asked =
        sample.run(&["python", "-I", "-c", "import iniconfig, pytest, inventory; print(pytest.__file__)"], &attached);
    assert!(asked.unwrap().starts_with(second.folder.to_str().unwrap()));
    // Scripts, messages and bytecode name the final folder.
    let new = format!("{}.new", second.folder.display());
    for file in ["venv/bin/pytest", "venv/pyvenv.cfg"] {
        let text = fs::read_to_string(second.folder.join(file)).unwrap();
        assert!(!text.contains(&new), "{file}: {text}");
    }
    let asked =
        sample.run(&["python", "-I", "-c", "import pytest; print(pytest.main.__code__.co_filename)"], &attached);
    assert!(asked.unwrap().starts_with(second.folder.to_str().unwrap()));
    assert_read_only(&second.folder);
}

#[tokio::test]
async fn cargo_builds_offline_with_what_was_downloaded() {
    let sample = Sample::new();
    sample.write("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\nresolver = \"3\"\n");
    sample.write("crates/a/Cargo.toml", "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2024\"\nbuild = \"build.rs\"\n[dependencies]\nitoa = \"1\"\nb = { path = \"../b\" }\n[[bin]]\nname = \"a\"\npath = \"src/main.rs\"\n");
    sample.write("crates/a/build.rs", "fn main() { println!(\"cargo::rerun-if-changed=build.rs\"); }\n");
    sample.write("crates/a/src/main.rs", "fn main() { println!(\"{}\", itoa::Buffer::new().format(b::answer())); }\n");
    sample.write("crates/b/Cargo.toml", "[package]\nname = \"b\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    sample.write("crates/b/src/lib.rs", "pub fn answer() -> u32 { 42 }\n");
    // The checksum is that of crates.io.
    sample.write("Cargo.lock", CARGO_LOCK);
    let installed = sample.install(Ecosystem::Cargo).await.unwrap();
    assert_read_only(&installed.folder);
    let attached = attach(&installed, &sample.workspace()).unwrap();
    let output = sample.run(&["cargo", "run", "--quiet", "--locked", "--package", "a"], &attached).unwrap();
    assert_eq!(output.trim(), "42");
    sample.write("Cargo.lock", &CARGO_LOCK.replace("checksum = \"", "checksum = \"0000").replace(&CARGO_SUM[60..], ""));
    let reason = refusal(sample.install(Ecosystem::Cargo).await);
    assert!(reason.code == "install_failed" && reason.message.contains("checksum"), "{reason:?}");
}

const CARGO_SUM: &str = "3bd1574e617a9a6c1f8f8181bd7e841e1f20e4277607ef28945765188d6284d4";
const CARGO_LOCK: &str = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"0.1.0\"\ndependencies = [\n \"b\",\n \"itoa\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"itoa\"\nversion = \"1.0.19\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"3bd1574e617a9a6c1f8f8181bd7e841e1f20e4277607ef28945765188d6284d4\"\n";

#[tokio::test]
async fn packages_of_the_workspace_are_linked_and_found() {
    let sample = Sample::new();
    sample
        .write("package.json", r#"{"name": "root", "workspaces": ["packages/*"], "devDependencies": {"ms": "2.1.3"}}"#);
    sample.write("packages/a/package.json", r#"{"name": "@my/a", "version": "1.0.0", "main": "index.js", "dependencies": {"@my/b": "^1.0.0", "ms": "2.0.0"}}"#);
    sample.write("packages/a/index.js", "module.exports = [require('@my/b'), require('ms/package.json').version];\n");
    sample.write(
        "packages/b/package.json",
        r#"{"name": "@my/b", "version": "1.0.0", "main": "index.js", "bin": {"my-b": "cli.js"}}"#,
    );
    sample.write("packages/b/index.js", "module.exports = 'b';\n");
    sample.write("packages/b/cli.js", "#!/usr/bin/env node\nconsole.log('cli');\n");
    fs::set_permissions(sample.workspace().join("packages/b/cli.js"), fs::Permissions::from_mode(0o755)).unwrap();
    sample.write("package-lock.json", MONOREPO_LOCK);
    let installed = sample.install(Ecosystem::Npm).await.unwrap();
    let attached = attach(&installed, &sample.workspace()).unwrap();
    let script = "console.log(JSON.stringify([require('@my/a'), require('ms/package.json').version]))";
    let output = sample.run(&["node", "-e", script], &attached).unwrap();
    assert_eq!(output.trim(), r#"[["b","2.0.0"],"2.1.3"]"#);
    assert_eq!(sample.run(&["my-b"], &attached).unwrap().trim(), "cli");
    // A folder that became a link leads elsewhere.
    let other = Sample::new();
    let outside = other.work.path().join("outside");
    fs::create_dir_all(other.workspace().join("packages")).unwrap();
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, other.workspace().join("packages/a")).unwrap();
    assert!(attach(&installed, &other.workspace()).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

const MONOREPO_LOCK: &str = r#"{"name": "root", "lockfileVersion": 3, "requires": true, "packages": {
    "": {"name": "root", "workspaces": ["packages/*"], "devDependencies": {"ms": "2.1.3"}},
    "node_modules/@my/a": {"resolved": "packages/a", "link": true},
    "node_modules/@my/b": {"resolved": "packages/b", "link": true},
    "node_modules/ms": {"version": "2.1.3", "resolved": "https://registry.npmjs.org/ms/-/ms-2.1.3.tgz",
        "integrity": "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==", "dev": true},
    "packages/a": {"name": "@my/a", "version": "1.0.0", "dependencies": {"@my/b": "^1.0.0", "ms": "2.0.0"}},
    "packages/a/node_modules/ms": {"version": "2.0.0",
        "integrity": "sha512-Tpp60P6IUJDTuOq/5Z8cdskzJujfwqfOTkrwIwj7IRISpnkJnT6SyJ4PCPnGMoFjC9ddhal5KVIYtAt97ix05A=="},
    "packages/b": {"name": "@my/b", "version": "1.0.0", "bin": {"my-b": "cli.js"}}
}}"#;

const MS: &str = r#""node_modules/ms": {"version": "2.1.3", "integrity": "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA=="}"#;

fn ms(root: &str, packages: &str) -> Sample {
    ms_with(root, packages, |_| ())
}

fn ms_with(root: &str, packages: &str, change: impl FnOnce(&mut InstallSettings)) -> Sample {
    let sample = Sample::with(change);
    sample.write("package.json", root);
    sample.write("package-lock.json", &format!(r#"{{"lockfileVersion": 3, "packages": {{"": {root}, {packages}}}}}"#));
    sample
}

const NEEDS_MS: &str = r#"{"dependencies": {"ms": "2.1.3"}}"#;

#[tokio::test]
async fn what_the_lock_file_says_is_compared_with_what_was_installed() {
    // The digest of ms 2.0.0.
    let other = MS.replace(
        "6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA",
        "Tpp60P6IUJDTuOq/5Z8cdskzJujfwqfOTkrwIwj7IRISpnkJnT6SyJ4PCPnGMoFjC9ddhal5KVIYtAt97ix05A",
    );
    let sample = ms(NEEDS_MS, &other);
    // The content of 2.0.0 is in the cache, under its own address.
    let root = NEEDS_MS.replace("2.1.3", "2.0.0");
    ms(&root, &other.replace("2.1.3", "2.0.0")).install(Ecosystem::Npm).await.unwrap();
    let reason = refusal(sample.install(Ecosystem::Npm).await);
    assert!(reason.code == "install_failed" && reason.message.contains("EINTEGRITY"), "{reason:?}");
    // A lock file that does not fit the manifest.
    let sample = ms(NEEDS_MS, MS);
    sample.write("package.json", &NEEDS_MS.replace("2.1.3", "2.1.2"));
    let reason = refusal(sample.install(Ecosystem::Npm).await);
    assert!(reason.code == "install_failed" && reason.message.contains("ms"), "{reason:?}");
    // A version that does not exist.
    let sample = ms(&NEEDS_MS.replace("2.1.3", "2.99.99"), &MS.replace("2.1.3", "2.99.99"));
    assert_eq!(refusal(sample.install(Ecosystem::Npm).await).code, "install_failed");
}

#[tokio::test]
async fn settings_and_commands_of_a_workspace_reach_nothing() {
    let sample = ms(
        NEEDS_MS,
        &MS.replace(
            r#""version""#,
            r#""bin": {"tsc": "index.js", "evil": "../../x"}, "hasInstallScript": true, "version""#,
        ),
    );
    let marker = sample.work.path().join("marker");
    let command = sample.work.path().join("command");
    fs::write(&command, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
    let program = command.display();
    let settings = format!(
        "git={program}\nscript-shell={program}\nnode-options=--require {program}\nregistry=http://127.0.0.1:9/\nignore-scripts=false\nprefix=/tmp\nproxy=http://127.0.0.1:9\ncafile=/none\nomit=dev\nbin-links=true\nuserconfig={program}\nreplace-registry-host=always\nworkspace=x\nglobal=true\ndry-run=true\noffline=true\ncache={program}\n"
    );
    sample.write(".npmrc", &settings);
    let scripts = format!(
        r#"{{"scripts": {{"preinstall": "{program}", "install": "{program}", "prepare": "{program}", "postinstall": "{program}"}}, "config": {{"registry": "http://127.0.0.1:9"}}, "dependencies": {{"ms": "2.1.3"}}}}"#
    );
    sample.write("package.json", &scripts);
    sample.write("binding.gyp", "{}");
    let installed = sample.install(Ecosystem::Npm).await.unwrap();
    assert!(!marker.exists());
    attach(&installed, &sample.workspace()).unwrap();
    assert!(sample.workspace().join("node_modules/ms").exists());
    assert!(!sample.workspace().join("node_modules/.bin").exists());
    assert!(!installed.folder.join(".npmrc").exists());
    // Settings are not part of the key: they decide nothing.
    sample.write(".npmrc", "");
    assert!(sample.install(Ecosystem::Npm).await.unwrap().stored);
}

#[tokio::test]
async fn tenants_versions_and_manifests_have_installations_of_their_own() {
    let sample = ms(NEEDS_MS, MS);
    let first = sample.install(Ecosystem::Npm).await.unwrap();
    let mut other = request(Place::Store);
    other.tenant = "u".into();
    let second = sample.installer.install(&sample.plan(Ecosystem::Npm), other).await.unwrap();
    assert!(!second.stored && second.folder != first.folder);
    let folder = sample.work.path().join("own");
    let third =
        sample.installer.install(&sample.plan(Ecosystem::Npm), request(Place::Folder(folder.clone()))).await.unwrap();
    assert!(!third.stored && third.folder == folder && third.key == first.key);
    assert_read_only(&folder);
    let attached = attach(&third, &sample.workspace()).unwrap();
    sample.run(&["node", "-e", "require('ms')"], &attached).unwrap();
}

#[tokio::test]
async fn concurrent_attempts_share_one_installation() {
    let sample = Arc::new(ms(NEEDS_MS, MS));
    let attempts: Vec<_> = (0..3)
        .map(|_| {
            let sample = Arc::clone(&sample);
            tokio::spawn(async move { sample.install(Ecosystem::Npm).await.unwrap().stored })
        })
        .collect();
    let mut fresh = 0;
    for attempt in attempts {
        fresh += usize::from(!attempt.await.unwrap());
    }
    assert_eq!(fresh, 1);
}

#[tokio::test]
async fn an_unreachable_registry_is_retryable() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("npmrc");
    fs::write(&config, "registry=http://127.0.0.1:9/\nfetch-retries=0\n").unwrap();
    let sample = ms_with(NEEDS_MS, MS, |settings| settings.npm_user_config = Some(config));
    match sample.install(Ecosystem::Npm).await {
        Err(ExamineError::Infra(error)) => assert_eq!(error.code, "registry_unavailable"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_dir(&sample.settings.store).unwrap().count(), 0);
}

#[tokio::test]
async fn go_reaches_for_its_proxy() {
    let proxy = ("GOPROXY".to_owned(), "http://127.0.0.1:9".to_owned());
    let sample = Sample::with(|settings| settings.environment.push(proxy));
    if !std::env::split_paths(&sample.settings.search_path).any(|folder| folder.join("go").is_file()) {
        return;
    }
    let sum = format!("h1:{}=", "A".repeat(43));
    sample.write("go.mod", "module x\n\ngo 1.19\n\nrequire example.com/a v1.0.0\n");
    sample.write("go.sum", &format!("example.com/a v1.0.0 {sum}\nexample.com/a v1.0.0/go.mod {sum}\n"));
    match sample.install(Ecosystem::Go).await {
        Err(ExamineError::Infra(error)) => assert_eq!(error.code, "registry_unavailable"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let sample = ms_with(NEEDS_MS, MS, |settings| settings.search_path = "/nowhere".into());
    let reason = refusal(sample.install(Ecosystem::Npm).await);
    assert!(reason.code == "toolchain_missing" && reason.message.contains("node"), "{reason:?}");
}
