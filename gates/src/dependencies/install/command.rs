//! The installers' command lines and environments.
//!
//! Flags go before the environment and every settings file, so what is pinned here cannot be changed from elsewhere.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{InstallError, InstallSettings, run};
use crate::dependencies::attach::PROJECT_PATH;
use crate::dependencies::programs::{Toolchain, find, npm_global_config, npm_version};
use crate::dependencies::{Ecosystem, InstallPlan, Registries};
use crate::finding::{Reason, error_lines};
use crate::process::{Command, Exit};

/// npm's settings that decide what runs and where packages come from. Older versions of npm do not know the last four
/// and say so; they matter only for packages that were refused before.
const NPM: [&str; 30] = [
    "--ignore-scripts",
    "--script-shell=/bin/false",
    "--node-options=",
    "--git=/bin/false",
    "--no-bin-links",
    "--no-fund",
    "--no-update-notifier",
    "--no-progress",
    "--logs-max=0",
    // With the cache alone npm would take any content with the right digest, whatever its name.
    "--prefer-online",
    "--replace-registry-host=npmjs",
    "--install-strategy=hoisted",
    "--no-install-links",
    "--no-global",
    "--no-dry-run",
    "--no-engine-strict",
    "--no-strict-peer-deps",
    "--include=dev",
    "--include=optional",
    "--include=peer",
    "--foreground-scripts=false",
    // A wrong digest counts as a failed download: with npm's own times it would take two minutes to report.
    "--fetch-retries=2",
    "--fetch-retry-factor=4",
    "--fetch-retry-mintimeout=500",
    "--fetch-retry-maxtimeout=3000",
    "--fetch-timeout=60000",
    "--allow-git=none",
    "--allow-remote=none",
    "--allow-file=none",
    "--allow-directory=none",
];

const PIP: [&str; 10] = [
    "--require-hashes",
    "--only-binary=:all:",
    "--no-deps",
    "--no-input",
    "--no-compile",
    "--disable-pip-version-check",
    "--no-warn-script-location",
    "--progress-bar=off",
    "--no-color",
    "--retries=2",
];

/// Program and arguments, and the whole environment.
type Call = (Vec<String>, Vec<(String, String)>);

pub struct Context<'a> {
    pub settings: &'a InstallSettings,
    pub registries: &'a Registries,
    pub toolchain: &'a Toolchain,
    /// Where to install.
    pub folder: &'a Path,
    /// The folder's later name.
    pub target: &'a Path,
}

impl Context<'_> {
    pub fn commands(&self, plan: &InstallPlan) -> Result<Vec<Call>, Reason> {
        match plan.ecosystem {
            Ecosystem::Npm => self.npm(plan),
            Ecosystem::Pip => self.pip(),
            Ecosystem::Cargo => self.cargo(),
            Ecosystem::Go => self.go(),
        }
    }

    fn program(&self, name: &str) -> Result<String, Reason> {
        self.toolchain.programs.get(name).map(|path| text(path)).ok_or_else(|| missing(name, self.settings))
    }

    fn environment(&self, more: &[(&str, String)]) -> Vec<(String, String)> {
        environment(self.settings, &home(self.folder), more)
    }

    /// The call that prints known vulnerabilities as JSON.
    pub fn audit(&self, plan: &InstallPlan) -> Result<Call, Reason> {
        let found = |name: &str| {
            let path = find(name, &self.settings.search_path).ok_or_else(|| {
                let path = &self.settings.search_path;
                let message = format!("{name} is not in PATH {path}, so nothing audits the dependencies; install it");
                Reason::new("toolchain_missing", message)
            });
            path.map(|path| text(&path))
        };
        let argv = match plan.ecosystem {
            Ecosystem::Npm => {
                return Ok((self.npm_argv(plan, &["audit", "--json", "--package-lock-only"])?, self.environment(&[])));
            }
            Ecosystem::Pip => {
                let options =
                    ["--requirement", "requirements.txt", "--require-hashes", "--disable-pip", "--format", "json"];
                [found("pip-audit")?].into_iter().chain(options.map(str::to_owned)).collect()
            }
            Ecosystem::Cargo => {
                vec![found("cargo-audit")?, "audit".into(), "--json".into(), "--file".into(), "Cargo.lock".into()]
            }
            Ecosystem::Go => {
                let message = "there is no auditor for Go modules here; define a gate that runs govulncheck";
                return Err(Reason::new("toolchain_missing", message));
            }
        };
        Ok((argv, self.environment(&[])))
    }

    fn npm(&self, plan: &InstallPlan) -> Result<Vec<Call>, Reason> {
        Ok(vec![(self.npm_argv(plan, &["ci", "--no-audit", "--no-package-lock-only"])?, self.environment(&[]))])
    }

    fn npm_argv(&self, plan: &InstallPlan, arguments: &[&str]) -> Result<Vec<String>, Reason> {
        let mut argv = vec![self.program("npm")?];
        argv.extend(arguments.iter().map(ToString::to_string));
        argv.extend(NPM.map(str::to_owned));
        // Else npm would look for a project in the folders above.
        argv.push(format!("--prefix={}", text(self.folder)));
        // Its default follows the prefix, but the operator's file does not.
        if let Some(global) = npm_global_config(self.toolchain) {
            argv.push(format!("--globalconfig={}", text(&global)));
        }
        argv.push(format!("--cache={}", text(&self.settings.caches.join("npm"))));
        let user_config = self.settings.npm_user_config.clone().unwrap_or_else(|| home(self.folder).join("npmrc"));
        argv.push(format!("--userconfig={}", text(&user_config)));
        if let Some(registry) = &self.registries.default {
            argv.push(format!("--registry={registry}"));
        }
        if plan.legacy_peer_deps {
            argv.push("--legacy-peer-deps".into());
        }
        Ok(argv)
    }

    fn pip(&self) -> Result<Vec<Call>, Reason> {
        let python = self.program("python3")?;
        let venv = text(&self.folder.join("venv"));
        let mut more = Vec::new();
        if let Some(config) = &self.settings.pip_config {
            more.push(("PIP_CONFIG_FILE", text(config)));
        }
        let environment = self.environment(&more);
        let isolated = |arguments: &[&str]| {
            let all = [python.as_str(), "-I", "-m"].into_iter().chain(arguments.iter().copied());
            all.map(str::to_owned).collect::<Vec<_>>()
        };
        let make = isolated(&["venv", "--without-pip", "--symlinks", &venv]);
        let cache = format!("--cache-dir={}", text(&self.settings.caches.join("pip")));
        let mut install = isolated(&["pip", "--python", &format!("{venv}/bin/python"), "install"]);
        install.extend(PIP.map(str::to_owned));
        install.extend([cache, "--requirement".into(), "requirements.txt".into()]);
        // Bytecode names its sources. These get their last name later.
        let (from, to) = (text(self.folder), text(self.target));
        let compile = isolated(&["compileall", "-q", "-s", &from, "-p", &to, "--invalidation-mode", "unchecked-hash"])
            .into_iter()
            .chain([format!("{venv}/lib")])
            .collect();
        Ok(vec![(make, environment.clone()), (install, environment.clone()), (compile, environment)])
    }

    fn cargo(&self) -> Result<Vec<Call>, Reason> {
        let argv = vec![self.program("cargo")?, "fetch".into(), "--locked".into(), "--color=never".into()];
        let environment = self.environment(&[
            ("CARGO_HOME", text(&self.folder.join("home"))),
            ("CARGO_NET_GIT_FETCH_WITH_CLI", "false".into()),
            ("CARGO_NET_RETRY", "2".into()),
        ]);
        Ok(vec![(argv, environment)])
    }

    fn go(&self) -> Result<Vec<Call>, Reason> {
        let argv = vec![self.program("go")?, "mod".into(), "download".into()];
        let environment = self.environment(&[
            ("GOMODCACHE", text(&self.folder.join("modules"))),
            ("GOPATH", text(&home(self.folder).join("go"))),
            ("GOCACHE", text(&home(self.folder).join("cache"))),
            ("GOENV", "off".into()),
            ("GOFLAGS", "-mod=readonly".into()),
            ("GOTOOLCHAIN", "local".into()),
            // Modules come from the proxy alone, never from a repository.
            ("GOVCS", "*:off".into()),
        ]);
        Ok(vec![(argv, environment)])
    }
}

/// The folder with the manifest and the lock file. npm installs next to them.
pub fn sources(ecosystem: Ecosystem, folder: &Path) -> PathBuf {
    if ecosystem == Ecosystem::Npm { folder.to_path_buf() } else { folder.join("sources") }
}

fn home(folder: &Path) -> PathBuf {
    folder.join(".installer")
}

pub fn write_files(plan: &InstallPlan, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(home(folder).join("tmp"))?;
    let root = sources(plan.ecosystem, folder);
    for (path, text) in &plan.files {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?.write_all(text)?;
    }
    Ok(())
}

/// Removes what only the installer needed, and completes a venv: its scripts get their later name.
pub fn finish(ecosystem: Ecosystem, folder: &Path, target: &Path) -> io::Result<()> {
    crate::attempt::remove(&home(folder))?;
    if ecosystem != Ecosystem::Pip {
        return Ok(());
    }
    let venv = folder.join("venv");
    // Python runs such a line at its start. `append`, so that no module of the project stands in for an installed one.
    let line = format!("import os, sys; sys.path += filter(None, os.environ.get('{PROJECT_PATH}', '').split(':'))\n");
    for lib in fs::read_dir(venv.join("lib"))? {
        fs::write(lib?.path().join("site-packages/nofx_project.pth"), &line)?;
    }
    if folder == target {
        return Ok(());
    }
    let (from, to) = (text(folder).into_bytes(), text(target).into_bytes());
    let scripts = fs::read_dir(venv.join("bin"))?.flatten().map(|entry| entry.path());
    for path in scripts.chain([venv.join("pyvenv.cfg")]) {
        if fs::symlink_metadata(&path)?.is_file() {
            let content = fs::read(&path)?;
            let renamed = replace(&content, &from, &to);
            if renamed != content {
                fs::write(&path, renamed)?;
            }
        }
    }
    Ok(())
}

fn replace(content: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        let (before, after) = rest.split_at(at);
        result.extend_from_slice(before);
        result.extend_from_slice(to);
        rest = after.get(from.len()..).unwrap_or_default();
    }
    result.extend_from_slice(rest);
    result
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn environment(settings: &InstallSettings, home: &Path, more: &[(&str, String)]) -> Vec<(String, String)> {
    let fixed = [
        ("PATH", settings.search_path.clone()),
        ("HOME", text(home)),
        ("TMPDIR", text(&home.join("tmp"))),
        ("LANG", "C.UTF-8".into()),
        ("CI", "1".into()),
        ("NO_COLOR", "1".into()),
    ];
    let own = fixed.into_iter().chain(more.iter().cloned()).map(|(name, value)| (name.to_owned(), value));
    settings.environment.iter().cloned().chain(own).collect()
}

fn is_at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

fn missing(program: &str, settings: &InstallSettings) -> Reason {
    let message = format!(
        "{program} cannot run from PATH {}, so the dependencies cannot be installed; install it",
        settings.search_path
    );
    Reason::new("toolchain_missing", message)
}

/// Finds the programs and asks for their versions.
pub async fn toolchain(ecosystem: Ecosystem, settings: &InstallSettings) -> Result<Toolchain, InstallError> {
    let mut toolchain = Toolchain::default();
    let find = |name: &str| find(name, &settings.search_path).ok_or_else(|| missing(name, settings));
    match ecosystem {
        Ecosystem::Npm => {
            let (node, npm) = (find("node")?, find("npm")?);
            let version = match npm_version(&npm) {
                Some(version) => version,
                None => ask(&npm, &["--version"], settings).await?,
            };
            toolchain.versions.insert("node".into(), ask(&node, &["--version"], settings).await?);
            toolchain.versions.insert("npm".into(), version);
            for program in [&node, &npm] {
                toolchain.folders.extend(outside_of_the_system(program));
            }
            toolchain.folders.dedup();
            toolchain.programs.extend([("node".into(), node), ("npm".into(), npm)]);
        }
        Ecosystem::Pip => {
            const ASK: &str = "import os, sys, pip, venv; \
                print(sys.version.split()[0], pip.__version__, os.path.realpath(sys.executable), sys.base_prefix, sep='\\n')";
            let python = find("python3")?;
            let answer = ask(&python, &["-I", "-c", ASK], settings).await?;
            let mut lines = answer.lines();
            let (version, pip, program, prefix) = (lines.next(), lines.next(), lines.next(), lines.next());
            let (Some(version), Some(pip), Some(program), Some(prefix)) = (version, pip, program, prefix) else {
                return Err(missing("python3 with pip and venv", settings).into());
            };
            if !is_at_least(pip, (22, 3)) {
                return Err(missing("pip 22.3 or later", settings).into());
            }
            toolchain.versions.insert("pip".into(), pip.into());
            toolchain.versions.insert("python".into(), version.into());
            toolchain.programs.insert("python3".into(), PathBuf::from(program));
            toolchain.folders.extend(Some(PathBuf::from(prefix)).filter(|prefix| !is_of_the_system(prefix)));
        }
        Ecosystem::Cargo => {
            // rustup's proxies choose a toolchain by files of the workspace. The real programs do not.
            let sysroot = PathBuf::from(ask(&find("rustc")?, &["--print", "sysroot"], settings).await?);
            for program in ["cargo", "rustc"] {
                let path = Some(sysroot.join("bin").join(program)).filter(|path| path.is_file());
                let path = path.map_or_else(|| find(program), Ok)?;
                toolchain.versions.insert(program.into(), ask(&path, &["--version"], settings).await?);
                toolchain.programs.insert(program.into(), path);
            }
            toolchain.folders.extend(Some(sysroot).filter(|sysroot| !is_of_the_system(sysroot)));
        }
        Ecosystem::Go => {
            let go = find("go")?;
            toolchain.versions.insert("go".into(), ask(&go, &["version"], settings).await?);
            toolchain.programs.insert("go".into(), go);
        }
    }
    Ok(toolchain)
}

/// The folder of a version manager's program: that above its `bin`. `None` for the system's own programs.
fn outside_of_the_system(program: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(program).ok()?;
    if is_of_the_system(&real) {
        return None;
    }
    real.ancestors().find(|folder| folder.ends_with("bin"))?.parent().map(Path::to_path_buf)
}

/// Whether every sandbox shows it.
fn is_of_the_system(path: &Path) -> bool {
    ["/usr", "/bin", "/lib"].iter().any(|folder| path.starts_with(folder))
}

/// What a program prints.
async fn ask(program: &Path, arguments: &[&str], settings: &InstallSettings) -> Result<String, InstallError> {
    let home = std::env::temp_dir();
    let command = Command {
        argv: [text(program)].into_iter().chain(arguments.iter().map(ToString::to_string)).collect(),
        current_dir: PathBuf::from("/"),
        environment: environment(settings, &home, &[]),
        timeout: Duration::from_secs(30),
        tag: uuid::Uuid::new_v4().to_string(),
    };
    match run(&command).await {
        Ok(result) if result.exit == Exit::Code(0) => Ok(result.output.tail().trim().to_owned()),
        Ok(result) => {
            let printed = error_lines(&result.output.tail());
            let message =
                format!("{} cannot say its version, so nothing can be installed:\n{printed}", program.display());
            Err(Reason::new("toolchain_missing", message).into())
        }
        Err(_) => Err(missing(&text(program), settings).into()),
    }
}
