//! The installers' command lines and environments.
//!
//! Flags go before the environment and every settings file, so what is pinned here cannot be changed from elsewhere.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{InstallSettings, operator};
use crate::attempt::private_folder;
use crate::dependencies::attach::PROJECT_PATH;
use crate::dependencies::programs::{Toolchain, find};
use crate::dependencies::{Ecosystem, InstallPlan, Registries};
use crate::finding::Reason;

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

/// One program to run.
#[derive(Debug, Clone)]
pub struct Call {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// What the program may read besides the tools.
    pub read_only: Vec<PathBuf>,
    pub network: bool,
}

pub struct Context<'a> {
    pub settings: &'a InstallSettings,
    pub registries: &'a Registries,
    pub toolchain: &'a Toolchain,
    /// Where to install.
    pub folder: &'a Path,
    /// The folder's later name.
    pub target: &'a Path,
    /// What the operator's settings name.
    pub named: &'a [PathBuf],
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

    /// A call that needs the network and the operator's settings.
    fn online(&self, argv: Vec<String>, environment: Vec<(String, String)>) -> Call {
        Call { argv, environment, read_only: self.named.to_vec(), network: true }
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
                let argv = self.npm_argv(plan, &["audit", "--json", "--package-lock-only"])?;
                return Ok(self.online(argv, self.environment(&[])));
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
        Ok(self.online(argv, self.environment(&[])))
    }

    fn npm(&self, plan: &InstallPlan) -> Result<Vec<Call>, Reason> {
        let argv = self.npm_argv(plan, &["ci", "--no-audit", "--no-package-lock-only"])?;
        Ok(vec![self.online(argv, self.environment(&[]))])
    }

    fn npm_argv(&self, plan: &InstallPlan, arguments: &[&str]) -> Result<Vec<String>, Reason> {
        let mut argv = vec![self.program("npm")?];
        argv.extend(arguments.iter().map(ToString::to_string));
        argv.extend(NPM.map(str::to_owned));
        // Else npm would look for a project in the folders above.
        argv.push(format!("--prefix={}", text(self.folder)));
        let home = home(self.folder);
        argv.push(format!("--cache={}", text(&cache(self.folder))));
        argv.push(format!("--userconfig={}", text(&home.join(operator::NPM_USER))));
        argv.push(format!("--globalconfig={}", text(&home.join(operator::NPM_GLOBAL))));
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
        let config = ("PIP_CONFIG_FILE", text(&home(self.folder).join(operator::PIP)));
        let environment = self.environment(&[config]);
        let isolated = |arguments: &[&str]| {
            let all = [python.as_str(), "-I", "-m"].into_iter().chain(arguments.iter().copied());
            all.map(str::to_owned).collect::<Vec<_>>()
        };
        let make = isolated(&["venv", "--without-pip", "--symlinks", &venv]);
        let cache = format!("--cache-dir={}", text(&cache(self.folder)));
        let mut install = isolated(&["pip", "--python", &format!("{venv}/bin/python"), "install"]);
        install.extend(PIP.map(str::to_owned));
        install.extend([cache, "--requirement".into(), "requirements.txt".into()]);
        // Bytecode names its sources. These get their last name later.
        let (from, to) = (text(self.folder), text(self.target));
        let compile = isolated(&["compileall", "-q", "-s", &from, "-p", &to, "--invalidation-mode", "unchecked-hash"])
            .into_iter()
            .chain([format!("{venv}/lib")])
            .collect();
        let offline = |argv| Call { argv, environment: environment.clone(), read_only: Vec::new(), network: false };
        Ok(vec![offline(make), self.online(install, environment.clone()), offline(compile)])
    }

    fn cargo(&self) -> Result<Vec<Call>, Reason> {
        let argv = vec![self.program("cargo")?, "fetch".into(), "--locked".into(), "--color=never".into()];
        let environment = self.environment(&[
            ("CARGO_HOME", text(&self.folder.join("home"))),
            ("CARGO_NET_GIT_FETCH_WITH_CLI", "false".into()),
            ("CARGO_NET_RETRY", "2".into()),
        ]);
        Ok(vec![self.online(argv, environment)])
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
        Ok(vec![self.online(argv, environment)])
    }
}

/// The folder with the manifest and the lock file. npm installs next to them.
pub fn sources(ecosystem: Ecosystem, folder: &Path) -> PathBuf {
    if ecosystem == Ecosystem::Npm { folder.to_path_buf() } else { folder.join("sources") }
}

/// The name of the folder for what only the program needs.
pub const HOME: &str = ".installer";

pub fn home(folder: &Path) -> PathBuf {
    folder.join(HOME)
}

/// The download cache of npm and pip.
pub fn cache(folder: &Path) -> PathBuf {
    home(folder).join("cache")
}

pub fn write_files(plan: &InstallPlan, folder: &Path) -> io::Result<()> {
    private_folder(&home(folder).join("tmp"))?;
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

/// Completes a venv: its scripts get their later name. The folder must have been checked.
pub fn finish(ecosystem: Ecosystem, folder: &Path, target: &Path) -> io::Result<()> {
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

pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub fn environment(settings: &InstallSettings, home: &Path, more: &[(&str, String)]) -> Vec<(String, String)> {
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

pub fn missing(program: &str, settings: &InstallSettings) -> Reason {
    let message = format!(
        "{program} cannot run from PATH {}, so the dependencies cannot be installed; install it",
        settings.search_path
    );
    Reason::new("toolchain_missing", message)
}
