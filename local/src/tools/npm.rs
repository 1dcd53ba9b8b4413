//! npm packages below `.local`, those that a lockfile of the checkout pins. After a change of the lockfile, they are installed
//! again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shared::domain::digest;
use tokio::process::Command;

use super::{lock, node};
use crate::checkout::Checkout;
use crate::process::{self, PidFile};
use crate::report::{self, hinted};

/// Installs the packages of `sources` into `.local/NAME` if they are missing or outdated. Returns that folder.
pub async fn ready(name: &str, sources: &Path, checkout: &Checkout, pid_file: &PidFile) -> Result<PathBuf> {
    node::check().await?;
    let dir = checkout.local().join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // Concurrent commands must not install into the same directory.
    let _lock = lock::hold(checkout.local().join(format!("{name}.lock"))).await?;
    let locked = sources.join("package-lock.json");
    let locked = fs::read(&locked).with_context(|| format!("cannot read {}", locked.display()))?;
    let (wanted, stamp) = (digest::sha256_hex(&locked), dir.join("installed.sha256"));
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(dir);
    }
    report::line(name, format_args!("installing npm packages into .local/{name} (once)"));
    install(name, sources, &dir, &checkout.local().join(format!("{name}.log")), pid_file).await?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(dir)
}

/// Installs exactly the packages of a lockfile. `name` is for messages.
pub(super) async fn install(name: &str, sources: &Path, dir: &Path, log: &Path, pid_file: &PidFile) -> Result<()> {
    for file in ["package.json", "package-lock.json"] {
        fs::copy(sources.join(file), dir.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(dir);
    process::log_to(&mut npm, log)?;
    if process::run("npm ci", npm, pid_file).await? {
        return Ok(());
    }
    Err(hinted(
        format!("{name}: npm ci failed, see {}", log.display()),
        "it needs the npm registry once, or a mirror in npm's configuration",
    ))
}
