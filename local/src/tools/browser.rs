//! A pinned Chromium with what drives it, below `.local/browser`: the npm packages of `tests/browser`. It needs no library of
//! the machine but the C library and libgcc.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use shared::domain::digest;
use tokio::process::Command;

use super::{lock, node, npm};
use crate::checkout::Checkout;
use crate::process::{self, PidFile};
use crate::report;

/// Names another Chromium, on a machine that the pinned one does not run on.
pub const CHROMIUM: &str = "NOFX_CHROMIUM";
/// The packages, the unpacked browser, and the browser's libraries.
const DOWNLOAD_MB: u32 = 75;

/// An installed browser.
#[derive(Clone, Debug)]
pub struct Browser {
    /// Holds `node_modules`.
    pub dir: PathBuf,
    /// Holds `chromium`, `lib` and `fonts.conf`. `None` if [`CHROMIUM`] names another browser.
    pub chromium: Option<PathBuf>,
}

impl Browser {
    /// Installs it if it is missing or outdated.
    pub async fn ready(checkout: &Checkout, pid_file: &PidFile) -> Result<Self> {
        node::check().await?;
        let (start, dir, sources) = (Instant::now(), checkout.local().join("browser"), checkout.browser_tests());
        let own = std::env::var_os(CHROMIUM).is_none_or(|name| name.is_empty());
        let browser = Self { chromium: own.then(|| dir.join("chromium")), dir };
        fs::create_dir_all(&browser.dir).with_context(|| format!("cannot create {}", browser.dir.display()))?;
        // Concurrent commands must not install into the same directory.
        let _lock = lock::hold(checkout.local().join("browser.lock")).await?;
        let read = |name: &str| {
            let path = sources.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let wanted = digest::sha256_hex(&[read("package-lock.json")?, read("unpack.mjs")?].concat());
        let stamp = browser.dir.join(if own { "installed.sha256" } else { "packages.sha256" });
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(browser);
        }
        report::line("browser", format_args!("installing Chromium into .local/browser (about {DOWNLOAD_MB} MB, once)"));
        browser.install(&sources, &checkout.local().join("browser.log"), pid_file).await?;
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
        report::took("browser", format_args!("ready in .local/browser"), start.elapsed());
        Ok(browser)
    }

    /// The program of the browser.
    pub fn program(&self) -> Option<PathBuf> {
        let own = self.chromium.as_ref().map(|folder| folder.join("chromium"));
        own.or_else(|| std::env::var_os(CHROMIUM).map(PathBuf::from))
    }

    async fn install(&self, sources: &Path, log: &Path, pid_file: &PidFile) -> Result<()> {
        npm::install("browser", sources, &self.dir, log, pid_file).await?;
        let Some(chromium) = &self.chromium else { return Ok(()) };
        let mut unpack = Command::new("node");
        unpack.arg(sources.join("unpack.mjs")).arg(self.dir.join("node_modules/@sparticuz/chromium")).arg(chromium);
        process::log_to(&mut unpack, log)?;
        if process::run("node unpack.mjs", unpack, pid_file).await? {
            return Ok(());
        }
        bail!("browser: unpacking failed, see {}", log.display())
    }
}
