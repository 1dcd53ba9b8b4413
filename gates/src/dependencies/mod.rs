//! Dependencies of a workspace: what to install, how, where it is kept, and how the tested command sees it.
//!
//! 1. [`plan`] reads the workspace's manifest and lock files, and refuses whatever is not a package of a registry with a
//!    digest. It writes them anew, so that the installer sees only what was vetted: no settings, no scripts, no unknown
//!    fields.
//! 2. [`Installer::install`] runs the ecosystem's own installer on these files alone, in the sandbox and a folder of their
//!    own, without running any package's code. Then it compares what was installed with the lock file.
//! 3. The installation is kept under a key that covers everything that decides its content (`store`).
//! 4. [`attach`] shows it to a workspace.
//!
//! **Tested code must never be able to write to an installation.** Nothing checks one again before its next use. The
//! sandbox keeps it read-only: by a mount, by Landlock, or by another user id. Where the host offers none of these, the
//! caller installs into the attempt's own folder ([`Place::Folder`]), which nobody uses again.

mod attach;
mod audit;
mod cargo;
mod go;
mod install;
mod npm;
mod pip;
mod programs;
mod store;
mod verify;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use shared::domain::digest::sha256_hex;

use crate::finding::{ExamineError, Reason};
use crate::snapshot::{Kind, Snapshot};

pub use attach::{Attached, attach};
pub use audit::Audited;
pub use install::{InstallRequest, InstallSettings, Installed, Installer, Place};
pub use npm::Registries;
pub use programs::Toolchain;

/// A family of packages with its own manifest, lock file and installer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ecosystem {
    Npm,
    Pip,
    Cargo,
    Go,
}

impl Ecosystem {
    pub const ALL: [Self; 4] = [Self::Npm, Self::Pip, Self::Cargo, Self::Go];

    pub fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pip => "pip",
            Self::Cargo => "cargo",
            Self::Go => "go",
        }
    }
}

impl fmt::Display for Ecosystem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What to install: vetted, and complete without the workspace.
#[derive(Debug, Clone)]
pub struct InstallPlan {
    pub ecosystem: Ecosystem,
    /// The lock file's path in the workspace.
    pub lock: String,
    /// sha256 of the lock file as the workspace has it.
    pub lock_sha256: String,
    /// The only files that the installer sees, by path.
    files: BTreeMap<String, Vec<u8>>,
    /// The packages that must be there afterwards, and no others.
    packages: Vec<Locked>,
    /// npm only: packages of the workspace itself, as its other packages see them.
    links: Vec<Link>,
    /// npm only: install as if no package had peer dependencies.
    legacy_peer_deps: bool,
}

/// A package that the lock file pins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Locked {
    /// npm: its place, like `node_modules/a/node_modules/b`. Empty elsewhere.
    path: String,
    name: String,
    version: String,
    /// The installer may leave it out, for example because it is for another operating system.
    optional: bool,
    /// The root's manifest names it.
    direct: bool,
}

/// A package of the workspace that its other packages import by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Link {
    /// Its place, like `node_modules/@scope/name`.
    path: String,
    /// The folder in the workspace.
    folder: String,
    /// Its commands: name and path in the folder.
    commands: BTreeMap<String, String>,
}

/// What the dependencies of a workspace need. `None` if it has none. Runs nothing.
pub fn plan(
    snapshot: &Snapshot,
    ecosystem: Ecosystem,
    registries: &Registries,
) -> Result<Option<InstallPlan>, ExamineError> {
    match ecosystem {
        Ecosystem::Npm => npm::plan(snapshot, registries),
        Ecosystem::Pip => pip::plan(snapshot),
        Ecosystem::Cargo => cargo::plan(snapshot),
        Ecosystem::Go => go::plan(snapshot),
    }
}

impl InstallPlan {
    fn new(ecosystem: Ecosystem, lock: &str, lock_text: &[u8]) -> Self {
        Self {
            ecosystem,
            lock: lock.to_owned(),
            lock_sha256: sha256_hex(lock_text),
            files: BTreeMap::new(),
            packages: Vec::new(),
            links: Vec::new(),
            legacy_peer_deps: false,
        }
    }

    /// The number of packages that the lock file pins.
    pub fn packages(&self) -> usize {
        self.packages.len()
    }
}

/// Reads a manifest or a lock file. `None` if there is none.
fn read(snapshot: &Snapshot, path: &str) -> Result<Option<Vec<u8>>, ExamineError> {
    const MAX_BYTES: u64 = 32 * 1024 * 1024;
    match snapshot.files().get(path) {
        None => Ok(None),
        Some(entry) if entry.kind == Kind::Link => {
            Err(refused(path, "is a symbolic link", "commit the file itself").into())
        }
        Some(entry) if entry.size > MAX_BYTES => Err(refused(path, "is larger than 32 MiB", "make it smaller").into()),
        Some(_) => Ok(snapshot.read(path)?),
    }
}

/// The lock file, or what it says about an entry, is not acceptable. `entry` starts with the file's name.
fn refused(entry: impl fmt::Display, why: impl fmt::Display, what_to_do: &str) -> Reason {
    Reason::new("lockfile_refused", format!("{}: {}; {what_to_do}", shown(entry), shown(why)))
}

/// The manifest, or what it says about an entry, is not acceptable.
fn manifest_refused(entry: impl fmt::Display, why: impl fmt::Display, what_to_do: &str) -> Reason {
    Reason::new("manifest_refused", format!("{}: {}; {what_to_do}", shown(entry), shown(why)))
}

/// Text of the workspace, short and without control characters, for a message.
fn shown(text: impl fmt::Display) -> String {
    const CHARACTERS: usize = 200;
    let text = text.to_string();
    let mut short: String =
        text.chars().take(CHARACTERS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
