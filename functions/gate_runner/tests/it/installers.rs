//! An installer that somebody took over: a stand-in for npm does what an exploit of npm would do.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nofx_gates::ExamineError;
use nofx_gates::dependencies::{
    Ecosystem, InstallPlan, InstallRequest, InstallSettings, Installed, Installer, Place, plan,
};
use nofx_gates::run::RunnerSettings;
use nofx_gates::snapshot::Snapshot;
use nofx_sandbox::{Level, host};
use tempfile::TempDir;

use crate::levels::levels;
use crate::sample::{prepare, work_folder};

/// A host with secrets and an npm of this script.
struct Host {
    work: TempDir,
    settings: InstallSettings,
}

/// Answers the question for the version, and then does what a test wants.
const START: &str = r"#!/usr/bin/python3
import os, sys
if sys.argv[1] == '--version':
    print('10.0.0'); sys.exit()
option = lambda name: next(a.split('=', 1)[1] for a in sys.argv if a.startswith('--' + name + '='))
def read(path):
    try: return open(path).read()
    except OSError as error: return str(error)
";

impl Host {
    fn new(level: Level, script: &str) -> Self {
        prepare();
        let work = work_folder();
        let path = |name: &str| work.path().join(name);
        // A folder above `bin` belongs to the tools.
        for folder in ["tools/bin", "secrets", "workspace"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        fs::write(path("tools/bin/npm"), format!("{START}{script}\n")).unwrap();
        fs::set_permissions(path("tools/bin/npm"), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, text) in [("secrets/key", "plum"), ("npmrc", "//r.example/:_authToken=peach\n")] {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(path("workspace/package.json"), r#"{"dependencies": {"ms": "2.1.3"}}"#).unwrap();
        let lock = r#"{"lockfileVersion": 3, "packages": {"": {"dependencies": {"ms": "2.1.3"}}, "node_modules/ms": {"version": "2.1.3", "integrity": "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA=="}}}"#;
        fs::write(path("workspace/package-lock.json"), lock).unwrap();
        let mut runner = RunnerSettings::new(path("work"));
        runner.search_path = format!("{}:{}", path("tools/bin").display(), runner.search_path);
        runner.npm_user_config = Some(path("npmrc"));
        runner.at_most = Some(host().at(level));
        let settings = runner.installs();
        Self { work, settings }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn plan(&self, installer: &Installer) -> InstallPlan {
        let snapshot = Snapshot::take(&self.path("workspace")).unwrap();
        plan(&snapshot, Ecosystem::Npm, installer.registries()).unwrap().unwrap()
    }

    async fn install(&self, tenant: &str, place: Place) -> Result<Installed, ExamineError> {
        let installer = Installer::new(self.settings.clone());
        let request = InstallRequest { tenant: tenant.into(), timeout: Duration::from_secs(30), place };
        installer.install(&self.plan(&installer), request).await
    }

    /// What the stand-in printed. It must fail.
    async fn printed(&self) -> String {
        match self.install("t", Place::Store).await {
            Err(ExamineError::GateFailed(reason)) if reason.code == "install_failed" => reason.message,
            other => panic!("{other:?}"),
        }
    }

    fn caches(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.settings.caches) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// Installs the package that the lock file names.
const INSTALLS: &str = r#"
os.makedirs('node_modules/ms')
open('node_modules/ms/package.json', 'w').write('{"name": "ms", "version": "2.1.3"}')
"#;

#[tokio::test]
async fn it_reads_its_settings_and_no_other_secret() {
    for level in levels() {
        let script = r"
try: others = [name for name in os.listdir('OTHERS') if name != os.path.basename(os.getcwd())]
except PermissionError: others = []
print('error:', others)
print('error:', read(option('userconfig')))
print('error:', read('SECRET'))
sys.exit(1)";
        let script = |host: &Host| {
            script
                .replace("SECRET", &host.path("secrets/key").display().to_string())
                .replace("OTHERS", &host.path("work/installs").display().to_string())
        };
        let host = Host::new(level, "");
        fs::write(host.path("tools/bin/npm"), format!("{START}{}\n", script(&host))).unwrap();
        let printed = host.printed().await;
        assert!(printed.contains("_authToken=peach"), "{level:?}: {printed}");
        // With the runner's own uid, modes of files do not keep it out.
        if level > Level::Limits || nofx_sandbox::host().own_uid {
            assert!(printed.contains("error: []") && !printed.contains("plum"), "{level:?}: {printed}");
        }
        // The copy of the settings is gone with the folder.
        let left: Vec<_> = fs::read_dir(&host.settings.store).unwrap().collect();
        assert!(left.is_empty(), "{level:?}: {left:?}");
    }
}

#[tokio::test]
async fn it_sees_no_variable_of_the_runner() {
    for level in levels() {
        let script = r"
import glob
seen = [read(path) for path in glob.glob('/proc/*/environ')] + list(os.environ)
print('error:', 'CARGO_MANIFEST_DIR' in ' '.join(seen), 'HOME' in os.environ); sys.exit(1)";
        assert!(std::env::var("CARGO_MANIFEST_DIR").is_ok());
        let printed = Host::new(level, script).printed().await;
        assert!(printed.contains("False True"), "{level:?}: {printed}");
    }
}

/// Connects to a test and leaves a grandchild in a session of its own, without an environment, that keeps the connection.
fn leaves_a_grandchild(port: u16, then: &str) -> String {
    format!(
        r"
import socket, time
connection = socket.create_connection(('127.0.0.1', {port}))
connection.sendall(b'x')
os.set_inheritable(connection.fileno(), True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve('/bin/sleep', ['sleep', '600'], {{}})
    os._exit(0)
os.wait()
{then}"
    )
}

#[tokio::test]
async fn no_process_survives_it() {
    for level in levels() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = Host::new(level, &leaves_a_grandchild(port, INSTALLS));
        host.install("t", Place::Store).await.unwrap();
        let mut connection = listener.accept().unwrap().0;
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The end comes when nobody holds the other side.
        let mut seen = Vec::new();
        connection.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"x", "{level:?}");
    }
}

#[tokio::test]
async fn a_dropped_installation_ends_at_once() {
    for level in levels() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = Host::new(level, &leaves_a_grandchild(port, "time.sleep(600)"));
        let mut connection = tokio::select! {
            ended = host.install("t", Place::Store) => panic!("it ended by itself: {ended:?}"),
            connection = listener.accept() => connection.unwrap().0,
        };
        let mut seen = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut connection, &mut seen);
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("no process lives on");
        assert!(ended.is_ok(), "{level:?}: {ended:?}");
    }
}

#[tokio::test]
async fn what_takes_too_long_is_killed_and_may_be_tried_again() {
    let mut host = Host::new(Level::Namespaces, "import time; time.sleep(600)");
    host.settings.timeout = Duration::from_millis(500);
    match host.install("t", Place::Store).await {
        Err(ExamineError::Infra(error)) => assert_eq!(error.code, "install_timed_out"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn links_that_it_plants_are_refused_before_anybody_follows_them() {
    for level in levels() {
        for planted in [
            "os.symlink('TARGET', 'layout.json')",
            "os.symlink('FOLDER', 'node_modules/ms/lib')",
            "os.mkfifo('node_modules/ms/index.js')",
            "import shutil; shutil.rmtree('.installer'); os.symlink('FOLDER', '.installer'); os.symlink('/', 'x')",
        ] {
            let host = Host::new(level, "");
            let (target, folder) = (host.path("secrets/key"), host.path("secrets"));
            fs::create_dir(folder.join("cache")).unwrap();
            let planted = planted.replace("TARGET", &target.display().to_string());
            let planted = planted.replace("FOLDER", &folder.display().to_string());
            fs::write(host.path("tools/bin/npm"), format!("{START}{INSTALLS}{planted}\n")).unwrap();
            let message = host.printed().await;
            assert!(message.contains("a package is dangerous"), "{level:?}: {planted}: {message}");
            assert_eq!(fs::read_to_string(&target).unwrap(), "plum", "{level:?}: {planted}");
            assert!(folder.join("cache").exists(), "{level:?}: {planted}");
        }
    }
}

#[tokio::test]
async fn its_cache_serves_its_tenant_and_belongs_to_the_runner_between() {
    let script = format!(
        "{INSTALLS}
cache = option('cache')
os.makedirs(cache + '/folder', exist_ok=True)
open('node_modules/ms/before', 'w').write(str(os.path.exists(cache + '/folder/file')))
open(cache + '/folder/file', 'w').write('')
"
    );
    for level in levels() {
        let host = Host::new(level, &script);
        let mut seen = Vec::new();
        for tenant in ["a", "b", "a"] {
            let installed = host.install(tenant, Place::Store).await.unwrap();
            seen.push(fs::read_to_string(installed.folder.join("node_modules/ms/before")).unwrap());
            drop(installed);
            // The next one is fresh.
            fs::rename(&host.settings.store, host.path(&format!("installs-{}", seen.len()))).unwrap();
        }
        assert_eq!(seen, ["False", "False", "True"], "{level:?}");
        let own = fs::metadata(host.work.path()).unwrap().uid();
        let caches = host.caches();
        assert_eq!(caches.len(), 2, "{level:?}");
        for path in caches.iter().flat_map(|cache| [cache.clone(), cache.join("folder"), cache.join("folder/file")]) {
            assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), own, "{level:?}: {}", path.display());
        }
        let is_listable = fs::metadata(&host.settings.caches).unwrap().permissions().mode() & 0o044 != 0;
        assert!(!is_listable, "{level:?}");
    }
}

#[tokio::test]
async fn where_tested_code_can_write_no_cache_is_kept() {
    let script = format!("{INSTALLS}os.makedirs(option('cache')); open(option('cache') + '/file', 'w').write('')");
    let host = Host::new(Level::Limits, &script);
    let folder = host.path("attempt");
    let installed = host.install("t", Place::Folder(folder.clone())).await.unwrap();
    assert_eq!(installed.folder, folder);
    assert!(host.caches().is_empty() && !folder.join(".installer").exists());
}

#[tokio::test]
async fn an_audit_reports_what_the_auditor_prints_to_its_standard_output_alone() {
    let script = "print('{\"vulnerabilities\": {}}'); print('a warning', file=sys.stderr); sys.exit(1)";
    for level in levels() {
        let host = Host::new(level, script);
        let installer = Installer::new(host.settings.clone());
        let folder = host.path("audit");
        let audited = installer.audit(&host.plan(&installer), &folder, Duration::from_secs(30)).await.unwrap();
        assert_eq!(audited.report, b"{\"vulnerabilities\": {}}\n", "{level:?}");
        assert_eq!(audited.exit, nofx_sandbox::Exit::Code(1));
        assert!(String::from_utf8_lossy(&audited.output.head).contains("a warning"));
    }
}

/// The real programs need certificates, names of hosts and their own libraries at every level.
#[tokio::test]
async fn npm_and_pip_install_at_every_level() {
    const WHEEL: &str =
        "iniconfig==2.1.0 --hash=sha256:9deba5723312380e77435581c6bf4935c94cbfab9b1ed33ef8d238ea168eb760\n";
    for level in levels() {
        let mut host = Host::new(level, "");
        fs::remove_file(host.path("tools/bin/npm")).unwrap();
        fs::write(host.path("npmrc"), "").unwrap();
        host.settings.search_path = "/usr/local/bin:/usr/bin:/bin".to_owned();
        let installed = host.install("t", Place::Store).await.unwrap();
        assert!(installed.folder.join("node_modules/ms/index.js").is_file(), "{level:?}");
        if !has_pip(Path::new("/usr/bin/python3")) {
            continue;
        }
        fs::write(host.path("workspace/requirements.txt"), WHEEL).unwrap();
        let pip = Installer::new(host.settings.clone());
        let snapshot = Snapshot::take(&host.path("workspace")).unwrap();
        let plan = plan(&snapshot, Ecosystem::Pip, pip.registries()).unwrap().unwrap();
        let request = InstallRequest { tenant: "t".into(), timeout: Duration::from_mins(1), place: Place::Store };
        let installed = pip.install(&plan, request).await.unwrap();
        assert!(installed.folder.join("venv/bin/python").exists(), "{level:?}");
    }
}

fn has_pip(python: &Path) -> bool {
    let asked = std::process::Command::new(python).args(["-I", "-c", "import pip, venv"]).output();
    asked.is_ok_and(|output| output.status.success())
}
